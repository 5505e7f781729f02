/*
 * How often this process has been copied by fork(), for who made something that a child must not
 * take for its own.
 */
#include "os/os.h"

#include <pthread.h>
#include <stdatomic.h>

_Atomic uint32_t umo_os_fork_count;

static void forks_count(void)
{
    atomic_fetch_add_explicit(&umo_os_fork_count, 1, memory_order_relaxed);
}

static void forks_register(void)
{
    (void)pthread_atfork(NULL, NULL, forks_count);
}

void umo_os_forks_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, forks_register);
}
