/*
 * Alike on every system that we know, but that macOS lets a thread name nobody but itself.
 */
#include "os/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

typedef struct start {
    const char *name;
    void (*run)(void *);
    void *argument;
} start;

static void *thread_run(void *opaque)
{
    start given = *(start *)opaque;
    free(opaque);
#ifdef __APPLE__
    (void)pthread_setname_np(given.name);
#else
    (void)pthread_setname_np(pthread_self(), given.name);
#endif
    given.run(given.argument);
    return NULL;
}

int umo_os_thread_create(pthread_t *out, const char *name, void (*run)(void *), void *argument)
{
    start *given = malloc(sizeof *given);
    if (given == NULL) {
        return ENOMEM;
    }
    *given = (start){name, run, argument};
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        (void)sigdelset(&all, faults[i]);
    }
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(out, NULL, thread_run, given);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        free(given);
    }
    return code;
}
