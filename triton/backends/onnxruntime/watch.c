/*
 * The watching thread; see watch.h.
 *
 * A watch's lock is held while the kit is asked about its batch, so that ort_watch_end() returns
 * only when nobody looks at the batch. Order of locks: life, the table's, then one watch's.
 */
#include "watch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
    TICK_MS = 20,
    IDLE_TICKS = 50 /* without a run, before the thread sleeps */
};

struct ort_watch {
    ort_watch *next; /* under the table's lock */
    const ort_runtime *runtime;
    ort_run_options *options;
    pthread_mutex_t lock; /* all below */
    const umo_batch *batch;
    uint64_t runs;        /* begun so far */
    uint64_t runs_before; /* at the last look */
    bool ended;
};

static struct {
    pthread_mutex_t life; /* held while the thread starts or ends */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t wake;
    ort_watch *watches;
    pthread_t thread; /* there is one while there are watches */
    bool stop;
    _Atomic bool asleep;
} table = {.life = PTHREAD_MUTEX_INITIALIZER,
           .lock = PTHREAD_MUTEX_INITIALIZER,
           .wake = PTHREAD_COND_INITIALIZER};

static bool is_abandoned(const umo_batch *batch)
{
    size_t count = umo_batch_requests(batch);
    for (size_t i = 0; i < count; i++) {
        if (!umo_batch_cancelled(batch, i)) {
            return false;
        }
    }
    return count > 0;
}

/* True when something runs, or ran since the last look. */
static bool look_at(ort_watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    bool lasts = watch->batch != NULL && watch->runs == watch->runs_before;
    if (lasts && !watch->ended && is_abandoned(watch->batch)) {
        const ort_api *api = &watch->runtime->api;
        watch->ended =
            ort_check(api, api->run_set_terminate(watch->options), "end a run", NULL) == UMO_OK;
    }
    bool busy = watch->batch != NULL || watch->runs != watch->runs_before;
    watch->runs_before = watch->runs;
    (void)pthread_mutex_unlock(&watch->lock);
    return busy;
}

static bool look_at_all(void)
{
    bool busy = false;
    for (ort_watch *watch = table.watches; watch != NULL; watch = watch->next) {
        busy = look_at(watch) || busy;
    }
    return busy;
}

static void wait_a_tick(void)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec += 1;
        until.tv_nsec -= 1000000000L;
    }
    (void)pthread_cond_timedwait(&table.wake, &table.lock, &until);
}

static void *watch_always(void *user)
{
    (void)user;
    int idle = 0;
    (void)pthread_mutex_lock(&table.lock);
    while (!table.stop) {
        idle = look_at_all() ? 0 : idle + 1;
        if (idle < IDLE_TICKS) {
            wait_a_tick();
            continue;
        }
        /* A run that begins from here on either sees this or is seen. */
        atomic_store(&table.asleep, true);
        if (!look_at_all() && !table.stop) {
            (void)pthread_cond_wait(&table.wake, &table.lock);
        }
        atomic_store(&table.asleep, false);
        idle = 0;
    }
    (void)pthread_mutex_unlock(&table.lock);
    return NULL;
}

/* With the table's lock. */
static umo_status thread_start(umo_error *error)
{
    table.stop = false;
    int failed = pthread_create(&table.thread, NULL, watch_always, NULL);
    return failed == 0 ? UMO_OK
                       : umo_error_set(error, UMO_E_SYSTEM, failed, "no thread to watch runs");
}

umo_status ort_watch_create(const ort_runtime *runtime, ort_run_options *options, ort_watch **out,
                            umo_error *error)
{
    ort_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an instance");
    }
    watch->runtime = runtime;
    watch->options = options;
    (void)pthread_mutex_init(&watch->lock, NULL);
    (void)pthread_mutex_lock(&table.life);
    (void)pthread_mutex_lock(&table.lock);
    umo_status status = table.watches == NULL ? thread_start(error) : UMO_OK;
    if (status == UMO_OK) {
        watch->next = table.watches;
        table.watches = watch;
    }
    (void)pthread_mutex_unlock(&table.lock);
    (void)pthread_mutex_unlock(&table.life);
    if (status != UMO_OK) {
        (void)pthread_mutex_destroy(&watch->lock);
        free(watch);
        return status;
    }
    *out = watch;
    return UMO_OK;
}

void ort_watch_destroy(ort_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&table.life);
    (void)pthread_mutex_lock(&table.lock);
    ort_watch **at = &table.watches;
    while (*at != watch) {
        at = &(*at)->next;
    }
    *at = watch->next;
    bool last = table.watches == NULL;
    pthread_t thread = table.thread;
    if (last) {
        table.stop = true;
        (void)pthread_cond_signal(&table.wake);
    }
    (void)pthread_mutex_unlock(&table.lock);
    if (last) {
        (void)pthread_join(thread, NULL);
    }
    (void)pthread_mutex_unlock(&table.life);
    (void)pthread_mutex_destroy(&watch->lock);
    free(watch);
}

void ort_watch_begin(ort_watch *watch, const umo_batch *batch)
{
    if (watch == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&watch->lock);
    watch->batch = batch;
    watch->runs += 1;
    (void)pthread_mutex_unlock(&watch->lock);
    if (atomic_load(&table.asleep)) {
        (void)pthread_mutex_lock(&table.lock);
        (void)pthread_cond_signal(&table.wake);
        (void)pthread_mutex_unlock(&table.lock);
    }
}

bool ort_watch_end(ort_watch *watch)
{
    if (watch == NULL) {
        return false;
    }
    (void)pthread_mutex_lock(&watch->lock);
    bool ended = watch->ended;
    watch->batch = NULL;
    watch->ended = false;
    if (ended) {
        const ort_api *api = &watch->runtime->api;
        umo_status_ignore(
            ort_check(api, api->run_unset_terminate(watch->options), "go on after an end", NULL));
    }
    (void)pthread_mutex_unlock(&watch->lock);
    return ended;
}
