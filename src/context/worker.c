/*
 * The placement worker: it looks at what was recorded some times a second, and sleeps without an
 * end while there is nothing to look after. Uses are only counted where they happen, so that no
 * request ever waits for a decision.
 */
#include "context/worker.h"

#include "context/numa.h"
#include "os/os.h"
#include "os/thread.h"

#include <pthread.h>
#include <stdlib.h>

#include <unistd.h>

#define PERIOD_NS UINT64_C(50000000)
#define PERIOD_MOVING_NS UINT64_C(10000000) /* while pages are on their way to another node */

struct umo_placement_worker {
    umo_placer *placer;
    const umo_scope *followers;
    pthread_t thread;
    pthread_mutex_t lock; /* the two below */
    pthread_cond_t wake;
    bool stopping;
    bool busy;                /* something to look after */
    void (*then)(void *user); /* what the thread does last, once it was given that */
    void *user;
    pid_t owner; /* a child of fork() has no such thread */
};

static void worker_free(umo_placement_worker *worker)
{
    umo_os_condition_finish(&worker->wake);
    (void)pthread_mutex_destroy(&worker->lock);
    free(worker);
}

/* One look at everything. Returns how many buffers there are to look after, and when the next look
 * is. */
static size_t worker_run(const umo_placement_worker *worker, uint64_t *period_ns)
{
    size_t buffers = 0;
    bool unfinished = false;
    if (worker->placer != NULL) {
        umo_placer_stats stats;
        (void)umo_placer_run(worker->placer);
        umo_placer_read(worker->placer, &stats);
        buffers = (size_t)stats.buffers;
    }
    if (worker->followers != NULL) {
        buffers += umo_numa_run(worker->followers, &unfinished);
    }
    *period_ns = unfinished ? PERIOD_MOVING_NS : PERIOD_NS;
    return buffers;
}

static void worker_main(void *argument)
{
    umo_placement_worker *worker = argument;
    uint64_t period_ns = PERIOD_NS;
    (void)pthread_mutex_lock(&worker->lock);
    while (!worker->stopping) {
        uint64_t deadline = worker->busy ? umo_os_now_ns() + period_ns : UINT64_MAX;
        if (umo_os_condition_wait_until(&worker->wake, &worker->lock, deadline)) {
            continue; /* woken: see what changed, and wait for the time */
        }
        worker->busy = false; /* whoever adds a buffer meanwhile says so again */
        (void)pthread_mutex_unlock(&worker->lock);
        size_t buffers = worker_run(worker, &period_ns);
        (void)pthread_mutex_lock(&worker->lock);
        worker->busy = worker->busy || buffers > 0;
    }
    void (*then)(void *user) = worker->then;
    void *user = worker->user;
    (void)pthread_mutex_unlock(&worker->lock);
    if (then != NULL) {
        worker_free(worker);
        then(user);
    }
}

umo_status umo_placement_worker_create(umo_placer *placer, const umo_scope *followers,
                                       umo_placement_worker **out, umo_error *error)
{
    umo_placement_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the placement worker");
    }
    worker->placer = placer;
    worker->followers = followers;
    worker->owner = getpid();
    (void)pthread_mutex_init(&worker->lock, NULL);
    umo_os_condition_init(&worker->wake);
    int failed = umo_os_thread_create(&worker->thread, "umo-placement", worker_main, worker);
    if (failed != 0) {
        worker_free(worker);
        return umo_error_set(error, UMO_E_SYSTEM, failed, "no thread for the placement worker");
    }
    *out = worker;
    return UMO_OK;
}

void umo_placement_worker_stop(umo_placement_worker *worker)
{
    (void)pthread_mutex_lock(&worker->lock);
    worker->stopping = true;
    (void)pthread_cond_signal(&worker->wake);
    (void)pthread_mutex_unlock(&worker->lock);
}

void umo_placement_worker_destroy(umo_placement_worker *worker, void (*then)(void *user),
                                  void *user)
{
    if (worker->owner != getpid()) {
        free(worker); /* its lock and condition are as that thread left them */
    } else if (pthread_equal(worker->thread, pthread_self())) {
        (void)pthread_detach(worker->thread);
        (void)pthread_mutex_lock(&worker->lock);
        worker->stopping = true;
        worker->then = then;
        worker->user = user;
        (void)pthread_mutex_unlock(&worker->lock);
        return;
    } else {
        umo_placement_worker_stop(worker);
        (void)pthread_join(worker->thread, NULL);
        worker_free(worker);
    }
    then(user);
}

void umo_placement_worker_kick(umo_placement_worker *worker)
{
    (void)pthread_mutex_lock(&worker->lock);
    if (!worker->busy) {
        worker->busy = true;
        (void)pthread_cond_signal(&worker->wake);
    }
    (void)pthread_mutex_unlock(&worker->lock);
}
