/*
 * What recording an access costs: time, and the same on two threads at once.
 *
 *   record                    JSON lines with times
 *   record count WHAT TIMES   for callgrind: TIMES accesses, "buffer" or "address"
 *
 * The opponent of two threads is one thread, in turns: each figure is a median of the turns, and
 * the spread is the range between the quartiles. Afterwards every access must have been counted.
 */
#include <umo/umo.h>

#include <umo/access.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef BENCH_HAVE_CALLGRIND
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION (void)0
#define CALLGRIND_STOP_INSTRUMENTATION (void)0
#define CALLGRIND_DUMP_STATS (void)0
#endif

enum {
    TURNS = 31,
    ACCESSES = 2000000,
    THREADS = 2,
    BYTES = 1 << 20
};

typedef struct bench {
    umo_context *context;
    umo_buffer *buffers[THREADS];
    uint64_t made[THREADS];
} bench;

static void must(umo_status status, const char *what)
{
    if (status != UMO_OK) {
        (void)fprintf(stderr, "record: %s failed: %s\n", what, umo_status_name(status));
        exit(1);
    }
}

/* The thread's own time: what others do on the machine is left out, waiting for a cache line is
 * not.
 */
static double now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A server's request: the host writes an input, the device reads it. */
static void record_buffer(umo_buffer *buffer, unsigned times)
{
    for (unsigned i = 0; i < times; i += 2) {
        umo_status_ignore(umo_access_record(buffer, UMO_SIDE_HOST, UMO_WRITE, 4096));
        umo_status_ignore(umo_access_record(buffer, UMO_SIDE_DEVICE, UMO_READ, 4096));
    }
}

static void record_address(const void *address, unsigned times)
{
    for (unsigned i = 0; i < times; i += 2) {
        umo_status_ignore(umo_access_record_at(address, UMO_SIDE_HOST, UMO_WRITE, 4096));
        umo_status_ignore(umo_access_record_at(address, UMO_SIDE_DEVICE, UMO_READ, 4096));
    }
}

typedef struct worker {
    pthread_barrier_t *barrier;
    umo_buffer *buffer;
    bool by_address;
    double ns; /* an access */
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    const void *address = umo_buffer_host(w->buffer);
    if (w->barrier != NULL) {
        (void)pthread_barrier_wait(w->barrier);
    }
    double start = now_ns();
    if (w->by_address) {
        record_address(address, ACCESSES);
    } else {
        record_buffer(w->buffer, ACCESSES);
    }
    w->ns = (now_ns() - start) / ACCESSES;
    return NULL;
}

/* Nanoseconds an access, the slowest of the threads. */
static double threads_run(bench *b, unsigned threads, bool same, bool by_address)
{
    worker workers[THREADS];
    pthread_t ids[THREADS];
    pthread_barrier_t barrier;
    (void)pthread_barrier_init(&barrier, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        unsigned at = same ? 0 : i;
        workers[i] = (worker){&barrier, b->buffers[at], by_address, 0};
        b->made[at] += ACCESSES;
        if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0) {
            must(UMO_E_SYSTEM, "a thread");
        }
    }
    double slowest = 0;
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(ids[i], NULL);
        slowest = workers[i].ns > slowest ? workers[i].ns : slowest;
    }
    (void)pthread_barrier_destroy(&barrier);
    return slowest;
}

static void row(const char *claim, double *turns, const char *unit, const char *opponent,
                double against)
{
    qsort(turns, TURNS, sizeof *turns, compare);
    (void)printf("{\"claim\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", \"opponent\": \"%s\", "
                 "\"ratio\": %.3f, \"spread\": [%.3f, %.3f], \"command\": \"make bench "
                 "(bench/record.c)\"}\n",
                 claim, turns[TURNS / 2], unit, opponent, turns[TURNS / 2] / against,
                 turns[TURNS / 4], turns[3 * TURNS / 4]);
}

static void times_print(bench *b)
{
    double one[TURNS];
    double at[TURNS];
    double same[TURNS];
    double apart[TURNS];
    for (int i = 0; i < TURNS; i++) {
        one[i] = threads_run(b, 1, true, false);
        same[i] = threads_run(b, THREADS, true, false) / one[i];
        apart[i] = threads_run(b, THREADS, false, false) / one[i];
        at[i] = threads_run(b, 1, true, true);
    }
    row("record_ns", one, "ns/access", "none: at most 10 asked", 10);
    row("record_at_ns", at, "ns/access", "none: at most 10 asked", 10);
    row("record_threads", same, "x", "one thread; two record the same buffer", 1);
    row("record_threads_apart", apart, "x", "one thread; two record a buffer each", 1);
}

/* No count may be missing. */
static void counts_check(bench *b)
{
    for (int i = 0; i < THREADS; i++) {
        umo_access_stats stats;
        umo_buffer_stats(b->buffers[i], &stats);
        if (stats.accesses != b->made[i]) {
            (void)fprintf(stderr, "record: %" PRIu64 " of %" PRIu64 " accesses were counted\n",
                          stats.accesses, b->made[i]);
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    bench b = {0};
    umo_device *device = NULL;
    must(umo_context_create(NULL, &b.context, NULL), "a context");
    must(umo_context_device(b.context, "host", 0, &device, NULL), "the device");
    for (int i = 0; i < THREADS; i++) {
        must(umo_buffer_alloc(device, umo_context_scope(b.context), BYTES, UMO_UNIFIED,
                              &b.buffers[i], NULL),
             "a buffer");
    }
    if (argc == 4 && strcmp(argv[1], "count") == 0) {
        unsigned times = (unsigned)strtoul(argv[3], NULL, 10);
        const void *address = umo_buffer_host(b.buffers[0]);
        bool by_address = strcmp(argv[2], "address") == 0;
        /* Warm: the thread has its table, and the buffer a slot. */
        record_buffer(b.buffers[0], 1000);
        record_address(address, 1000);
        CALLGRIND_START_INSTRUMENTATION;
        if (by_address) {
            record_address(address, times);
        } else {
            record_buffer(b.buffers[0], times);
        }
        CALLGRIND_STOP_INSTRUMENTATION;
        CALLGRIND_DUMP_STATS;
        b.made[0] = 2000 + times;
    } else {
        times_print(&b);
    }
    counts_check(&b);
    for (int i = 0; i < THREADS; i++) {
        umo_buffer_release(b.buffers[i]);
    }
    umo_device_release(device);
    umo_context_destroy(b.context);
    return 0;
}
