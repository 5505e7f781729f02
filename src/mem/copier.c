/*
 * See copy.h. The caller works like any of its threads and never waits for one that has not begun:
 * chunks are claimed from one counter, and what is waited for at the end are only chunks under way.
 */
#include <umo/copy.h>

#include "os/os.h"
#include "os/thread.h"

#include <stdlib.h>
#include <string.h>

#include <unistd.h>

/* Below this nobody is woken: waking takes as long as copying so much. */
#define LEAST_BYTES ((size_t)256 << 10)
#define CHUNK_LEAST_BYTES ((size_t)64 << 10)
#define CHUNK_MOST_BYTES ((size_t)1 << 20)
#define PROBE_BYTES ((size_t)2 << 20)
#define PROBES 7
/* Threads that gain less than a tenth are left asleep. */
#define GAIN_LEAST_PERCENT 10
#define AGAIN_FIRST 256

struct umo_copier {
    uint32_t helpers; /* asked for */
    pid_t owner;      /* a child of fork() has no such threads */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t idle; /* no thread is at the job any more */
    /* All under the lock: */
    pthread_t threads[UMO_COPIER_HELPERS_MAX];
    uint32_t started;
    bool begun; /* to start them: once, however many there came */
    bool stopping;
    bool busy;        /* somebody has the threads */
    bool open;        /* the job below may be joined */
    uint64_t number;  /* of the job */
    uint32_t working; /* threads at it */
    /* The job; whoever joined it reads it without the lock. */
    const umo_copy *copies;
    size_t count;
    size_t chunk_bytes;
    _Atomic size_t next; /* chunk that nobody claimed yet */
    size_t chunks;
    /* Measured. */
    _Atomic size_t crossover_bytes; /* 0: not yet */
    _Atomic uint64_t refused;       /* large copies since it did not pay at any size */
    _Atomic uint64_t again;         /* so many, and it is measured again: who starts is busy */
    umo_copier_figures figures;
};

static void copy_alone(const umo_copy *copies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (copies[i].size_bytes > 0) {
            memcpy(copies[i].to, copies[i].from, copies[i].size_bytes);
        }
    }
}

/* Copies the bytes [from, from + size_bytes) of all ranges, as if they lay one behind the other. */
static void copy_part(const umo_copy *copies, size_t count, size_t from, size_t size_bytes)
{
    for (size_t i = 0; i < count && size_bytes > 0; i++) {
        if (from >= copies[i].size_bytes) {
            from -= copies[i].size_bytes;
            continue;
        }
        size_t part = copies[i].size_bytes - from;
        part = part < size_bytes ? part : size_bytes;
        memcpy((char *)copies[i].to + from, (const char *)copies[i].from + from, part);
        from = 0;
        size_bytes -= part;
    }
}

static void chunks_claim(umo_copier *copier)
{
    for (;;) {
        size_t chunk = atomic_fetch_add_explicit(&copier->next, 1, memory_order_relaxed);
        if (chunk >= copier->chunks) {
            return;
        }
        copy_part(copier->copies, copier->count, chunk * copier->chunk_bytes, copier->chunk_bytes);
    }
}

static void helper_main(void *argument)
{
    umo_copier *copier = argument;
    uint64_t seen = 0;
    (void)pthread_mutex_lock(&copier->lock);
    while (!copier->stopping) {
        if (!copier->open || copier->number == seen) {
            (void)pthread_cond_wait(&copier->wake, &copier->lock);
            continue;
        }
        seen = copier->number;
        copier->working++;
        (void)pthread_mutex_unlock(&copier->lock);
        chunks_claim(copier);
        (void)pthread_mutex_lock(&copier->lock);
        if (--copier->working == 0) {
            (void)pthread_cond_signal(&copier->idle);
        }
    }
    (void)pthread_mutex_unlock(&copier->lock);
}

/* Runs a job with the threads; the caller has them (busy). */
static void job_run(umo_copier *copier, const umo_copy *copies, size_t count, size_t total)
{
    size_t chunk = total / (4 * ((size_t)copier->helpers + 1));
    chunk = chunk < CHUNK_LEAST_BYTES ? CHUNK_LEAST_BYTES : chunk;
    chunk = chunk > CHUNK_MOST_BYTES ? CHUNK_MOST_BYTES : chunk;
    (void)pthread_mutex_lock(&copier->lock);
    copier->copies = copies;
    copier->count = count;
    copier->chunk_bytes = chunk;
    copier->chunks = (total - 1) / chunk + 1;
    atomic_store_explicit(&copier->next, 0, memory_order_relaxed);
    copier->number++;
    copier->open = true;
    (void)pthread_cond_broadcast(&copier->wake);
    (void)pthread_mutex_unlock(&copier->lock);
    chunks_claim(copier);
    (void)pthread_mutex_lock(&copier->lock);
    copier->open = false;
    while (copier->working > 0) {
        (void)pthread_cond_wait(&copier->idle, &copier->lock);
    }
    (void)pthread_mutex_unlock(&copier->lock);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The best of some turns: whatever else runs meanwhile only ever makes one slower. */
static void measure(umo_copier *copier)
{
    umo_copier_figures figures = {0};
    size_t crossover = SIZE_MAX;
    char *memory = umo_os_pages_alloc(2 * PROBE_BYTES);
    if (memory != NULL && copier->started > 0) {
        const umo_copy probe = {memory, memory + PROBE_BYTES, PROBE_BYTES};
        memset(memory, 1, 2 * PROBE_BYTES);
        uint64_t alone = UINT64_MAX;
        uint64_t together = UINT64_MAX;
        uint64_t wake = UINT64_MAX;
        for (int i = 0; i < PROBES; i++) {
            uint64_t a = umo_os_now_ns();
            copy_alone(&probe, 1);
            uint64_t b = umo_os_now_ns();
            job_run(copier, &probe, 1, PROBE_BYTES);
            uint64_t c = umo_os_now_ns();
            job_run(copier, &(umo_copy){memory, memory + 1, 1}, 1, 1); /* nothing but waking */
            uint64_t d = umo_os_now_ns();
            alone = least(alone, b - a);
            together = least(together, c - b);
            wake = least(wake, d - c);
        }
        figures.helpers = copier->started;
        figures.wake_ns = wake;
        figures.alone_ns_mib = alone / (PROBE_BYTES >> 20);
        figures.together_ns_mib = together / (PROBE_BYTES >> 20);
        /* Together pays where it gains twice what waking costs: a thread that sleeps deeper than it
         * did here takes longer. */
        if (alone > together && (alone - together) * 100 >= alone * GAIN_LEAST_PERCENT) {
            double gain_per_byte = (double)(alone - together) / (double)PROBE_BYTES;
            double bytes = 2 * (double)wake / gain_per_byte;
            crossover = bytes < (double)LEAST_BYTES ? LEAST_BYTES : (size_t)bytes;
        }
    }
    umo_os_pages_free(memory, 2 * PROBE_BYTES);
    figures.crossover_bytes = crossover;
    (void)pthread_mutex_lock(&copier->lock);
    copier->figures = figures;
    (void)pthread_mutex_unlock(&copier->lock);
    atomic_store_explicit(&copier->refused, 0, memory_order_relaxed);
    atomic_store_explicit(&copier->crossover_bytes, crossover, memory_order_release);
}

static void threads_start(umo_copier *copier)
{
    while (!copier->begun && copier->started < copier->helpers &&
           umo_os_thread_create(&copier->threads[copier->started], "umo-copy", helper_main,
                                copier) == 0) {
        copier->started++;
    }
    copier->begun = true;
}

/* Takes the threads; false when another caller has them, or this process has none. */
static bool threads_take(umo_copier *copier)
{
    if (getpid() != copier->owner) {
        return false;
    }
    (void)pthread_mutex_lock(&copier->lock);
    bool taken = !copier->busy;
    copier->busy = true;
    (void)pthread_mutex_unlock(&copier->lock);
    return taken;
}

static void threads_leave(umo_copier *copier)
{
    (void)pthread_mutex_lock(&copier->lock);
    copier->busy = false;
    (void)pthread_mutex_unlock(&copier->lock);
}

/* What was measured; 0 where it is time to measure. Twice as long is waited each time. */
static size_t crossover_now(umo_copier *copier)
{
    size_t crossover = atomic_load_explicit(&copier->crossover_bytes, memory_order_acquire);
    if (crossover != SIZE_MAX) {
        return crossover;
    }
    uint64_t again = atomic_load_explicit(&copier->again, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&copier->refused, 1, memory_order_relaxed) + 1 < again) {
        return crossover;
    }
    atomic_store_explicit(&copier->again, 2 * again, memory_order_relaxed);
    return 0;
}

void umo_copier_run(umo_copier *copier, const umo_copy *copies, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += copies[i].size_bytes;
    }
    size_t crossover = SIZE_MAX;
    if (copier != NULL && copier->helpers > 0 && total >= LEAST_BYTES) {
        crossover = crossover_now(copier);
    }
    if (copier == NULL || total < crossover || !threads_take(copier)) {
        copy_alone(copies, count);
        return;
    }
    threads_start(copier);
    if (crossover == 0) {
        measure(copier);
        crossover = copier->figures.crossover_bytes;
    }
    if (total >= crossover) {
        job_run(copier, copies, count, total);
    } else {
        copy_alone(copies, count);
    }
    threads_leave(copier);
}

umo_status umo_copier_create(uint32_t helpers, size_t crossover_bytes, umo_copier **out,
                             umo_error *error)
{
    umo_copier *copier = calloc(1, sizeof *copier);
    if (copier == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a copier");
    }
    uint32_t most = helpers == UINT32_MAX ? umo_os_processors() - 1 : helpers;
    copier->helpers = most < UMO_COPIER_HELPERS_MAX ? most : UMO_COPIER_HELPERS_MAX;
    copier->owner = getpid();
    copier->again = AGAIN_FIRST;
    copier->crossover_bytes = crossover_bytes;
    copier->figures.crossover_bytes = crossover_bytes;
    (void)pthread_mutex_init(&copier->lock, NULL);
    (void)pthread_cond_init(&copier->wake, NULL);
    (void)pthread_cond_init(&copier->idle, NULL);
    *out = copier;
    return UMO_OK;
}

void umo_copier_destroy(umo_copier *copier)
{
    if (copier == NULL) {
        return;
    }
    if (getpid() == copier->owner) {
        (void)pthread_mutex_lock(&copier->lock);
        copier->stopping = true;
        (void)pthread_cond_broadcast(&copier->wake);
        (void)pthread_mutex_unlock(&copier->lock);
        for (uint32_t i = 0; i < copier->started; i++) {
            (void)pthread_join(copier->threads[i], NULL);
        }
        (void)pthread_cond_destroy(&copier->idle);
        (void)pthread_cond_destroy(&copier->wake);
        (void)pthread_mutex_destroy(&copier->lock);
    }
    free(copier);
}

void umo_copier_read(umo_copier *copier, umo_copier_figures *out)
{
    (void)pthread_mutex_lock(&copier->lock);
    *out = copier->figures;
    (void)pthread_mutex_unlock(&copier->lock);
}
