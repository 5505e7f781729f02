/*
 * Alike on every system that we know, but that macOS lets a thread name nobody but itself.
 */
#include "os/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct start {
    const char *name;
    void (*run)(void *);
    void *argument;
} start;

#ifdef __linux__
enum {
    PROCESSORS = 8192, /* the most that a kernel is built for */
    WORD_BITS = 8 * sizeof(unsigned long)
};

/* A thread begins bound to the processors of who made it; with the server's host policies that is
 * an instance's core. What the process's first thread may use comes to it, so that work for all
 * does not queue on one core. Where the first thread has ended, or the machine is larger, it stays
 * as it began. */
static void thread_unbind(void)
{
    unsigned long mine[PROCESSORS / WORD_BITS] = {0};
    unsigned long firsts[PROCESSORS / WORD_BITS] = {0};
    if (sched_getaffinity(0, sizeof mine, (cpu_set_t *)(void *)mine) != 0 ||
        sched_getaffinity(getpid(), sizeof firsts, (cpu_set_t *)(void *)firsts) != 0) {
        return;
    }
    for (size_t i = 0; i < PROCESSORS / WORD_BITS; i++) {
        mine[i] |= firsts[i];
    }
    (void)sched_setaffinity(0, sizeof mine, (const cpu_set_t *)(const void *)mine);
}
#else
static void thread_unbind(void)
{
}
#endif

/* Of a thread that has begun, for the next one: a thread that frees anything is given an arena of
 * its own by glibc, 128 MiB of addresses and a page or more. */
static _Atomic(start *) spare;

static void *thread_run(void *opaque)
{
    start given = *(start *)opaque;
    free(atomic_exchange(&spare, (start *)opaque));
#ifdef __APPLE__
    (void)pthread_setname_np(given.name);
#else
    (void)pthread_setname_np(pthread_self(), given.name);
#endif
    thread_unbind();
    given.run(given.argument);
    return NULL;
}

int umo_os_thread_create(pthread_t *out, const char *name, void (*run)(void *), void *argument)
{
    start *given = atomic_exchange(&spare, NULL);
    if (given == NULL) {
        given = malloc(sizeof *given);
    }
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
        free(atomic_exchange(&spare, given));
    }
    return code;
}
