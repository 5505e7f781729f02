/*
 * A block taken and given back at once: umo's pool against mimalloc, in turns.
 *
 *   pool_hot [TURNS [CLAIM]]            every loop, or one, a JSON line each
 *   pool_hot count WHOM SIZE PAIRS      one loop of one thread for callgrind; WHOM is umo, buffer
 * or mimalloc
 *
 * Loops: one thread (1), two threads each with its own blocks (2), one that takes and another that
 * gives, with a ring of 64 blocks between them (x), one that holds 16 blocks and gives the oldest
 * (w16). mimalloc is told not to give memory back to the system, which is its fastest regime here.
 * Both are called directly, by the same code, compiled once for each. Each turn runs one and then
 * the other, in an order that alternates; the figure is the median of the turns' ratios, the spread
 * their quartiles. Before any time counts, each must hand out blocks that are distinct and can be
 * written from end to end. The timed loops write one word to each block.
 */
#include "callgrind.h"

#include <umo/umo.h>

#include <mimalloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TURNS_DEFAULT = 31,
    TURNS_MAX = 1001,
    PAIRS = 20000,
    WARM_UPS = 1000,
    RING = 64, /* blocks between the one that takes and the one that gives */
    WINDOW = 16,
    HELD = 64, /* blocks held at once by the check */
    OWNER = 1
};

static umo_pool *pool;

static void must(bool good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "pool_hot: %s\n", what);
        exit(1);
    }
}

/* ---- the two sides: the same calls, direct and inlined into each loop ---- */

static inline void *umo_take(size_t size_bytes)
{
    void *data = NULL;
    must(umo_pool_take(pool, size_bytes, OWNER, &data) == UMO_OK, "umo_pool_take failed");
    return data;
}

static inline void umo_give(void *data)
{
    must(umo_pool_give(pool, data) == UMO_OK, "umo_pool_give failed");
}

static inline void *mimalloc_take(size_t size_bytes)
{
    void *data = mi_malloc(size_bytes);
    must(data != NULL, "mi_malloc failed");
    return data;
}

static inline void mimalloc_give(void *data)
{
    mi_free(data);
}

/* The pool's other face: blocks as buffers. A host's buffer has an address to write to. */
static inline void *buffer_take(size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    must(umo_pool_alloc(pool, size_bytes, OWNER, &buffer, NULL) == UMO_OK, "umo_pool_alloc failed");
    return buffer;
}

static inline void buffer_give(void *buffer)
{
    must(umo_pool_free(pool, buffer) == UMO_OK, "umo_pool_free failed");
}

static inline void word_write(void *data)
{
    *(volatile uint64_t *)data = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What one thread does in a turn; the ring is for the loops across threads. */
typedef struct ring {
    _Alignas(128) atomic_size_t taken; /* blocks put in so far */
    _Alignas(128) atomic_size_t given; /* blocks taken out so far */
    _Alignas(128) void *blocks[RING];
} ring;

static ring between;

/* Waits without keeping the other from the processor for long. */
static inline void wait_a_little(unsigned *tries)
{
    if (++*tries > 1000) {
        (void)sched_yield();
    } else {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

#define LOOPS(WHO)                                                                                 \
    static void WHO##_pairs(size_t size_bytes, size_t pairs)                                       \
    {                                                                                              \
        for (size_t i = 0; i < pairs; i++) {                                                       \
            void *data = WHO##_take(size_bytes);                                                   \
            word_write(data);                                                                      \
            WHO##_give(data);                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void WHO##_window(size_t size_bytes, size_t pairs)                                      \
    {                                                                                              \
        void *held[WINDOW] = {NULL};                                                               \
        for (size_t i = 0; i < pairs; i++) {                                                       \
            void **at = &held[i % WINDOW];                                                         \
            if (*at != NULL) {                                                                     \
                WHO##_give(*at);                                                                   \
            }                                                                                      \
            *at = WHO##_take(size_bytes);                                                          \
            word_write(*at);                                                                       \
        }                                                                                          \
        for (size_t i = 0; i < WINDOW; i++) {                                                      \
            if (held[i] != NULL) {                                                                 \
                WHO##_give(held[i]);                                                               \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void WHO##_takes(size_t size_bytes, size_t pairs)                                       \
    {                                                                                              \
        size_t seen = 0;                                                                           \
        for (size_t i = 0; i < pairs; i++) {                                                       \
            void *data = WHO##_take(size_bytes);                                                   \
            word_write(data);                                                                      \
            for (unsigned tries = 0; i - seen == RING; wait_a_little(&tries)) {                    \
                seen = atomic_load_explicit(&between.given, memory_order_acquire);                 \
            }                                                                                      \
            between.blocks[i % RING] = data;                                                       \
            atomic_store_explicit(&between.taken, i + 1, memory_order_release);                    \
        }                                                                                          \
    }                                                                                              \
    static void WHO##_gives(size_t size_bytes, size_t pairs)                                       \
    {                                                                                              \
        (void)size_bytes;                                                                          \
        size_t seen = 0;                                                                           \
        for (size_t i = 0; i < pairs; i++) {                                                       \
            for (unsigned tries = 0; i == seen; wait_a_little(&tries)) {                           \
                seen = atomic_load_explicit(&between.taken, memory_order_acquire);                 \
            }                                                                                      \
            WHO##_give(between.blocks[i % RING]);                                                  \
            atomic_store_explicit(&between.given, i + 1, memory_order_release);                    \
        }                                                                                          \
    }

LOOPS(umo)
LOOPS(mimalloc)

static void buffer_pairs(size_t size_bytes, size_t pairs)
{
    for (size_t i = 0; i < pairs; i++) {
        buffer_give(buffer_take(size_bytes));
    }
}

/* What `count` must be able to see: a lock, and a call of the system. */
static void lock_pairs(size_t size_bytes, size_t pairs)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    for (size_t i = 0; i < pairs; i++) {
        (void)pthread_mutex_lock(&lock);
        umo_pairs(size_bytes, 1);
        (void)pthread_mutex_unlock(&lock);
    }
}

static void call_pairs(size_t size_bytes, size_t pairs)
{
    for (size_t i = 0; i < pairs; i++) {
        umo_pairs(size_bytes, 1);
        (void)getppid();
    }
}

typedef void loop(size_t size_bytes, size_t pairs);

/* ---- two threads, started together each turn ---- */

typedef struct pair {
    pthread_barrier_t start;
    pthread_barrier_t end;
    loop *loops[2]; /* NULL ends the second thread */
    size_t size_bytes;
    size_t pairs;
    uint64_t ns[2];
} pair;

static pair two;

static void pair_half(size_t which)
{
    (void)pthread_barrier_wait(&two.start);
    const uint64_t start = now_ns();
    two.loops[which](two.size_bytes, two.pairs);
    two.ns[which] = now_ns() - start;
    (void)pthread_barrier_wait(&two.end);
}

static void *second_main(void *user)
{
    (void)user;
    for (;;) {
        /* The first barrier of a turn also says whether there is one. */
        (void)pthread_barrier_wait(&two.start);
        if (two.loops[1] == NULL) {
            return NULL;
        }
        pair_half(1);
    }
}

/* Time of one pair of calls, ns. Across threads: until both are done. */
static double run(loop *first, loop *second, size_t size_bytes, size_t pairs)
{
    if (second == NULL) {
        const uint64_t start = now_ns();
        first(size_bytes, pairs);
        return (double)(now_ns() - start) / (double)pairs;
    }
    atomic_store(&between.taken, 0);
    atomic_store(&between.given, 0);
    two.loops[0] = first;
    two.loops[1] = second;
    two.size_bytes = size_bytes;
    two.pairs = pairs;
    (void)pthread_barrier_wait(&two.start);
    pair_half(0);
    if (first != second) {
        return (double)(two.ns[0] > two.ns[1] ? two.ns[0] : two.ns[1]) / (double)pairs;
    }
    return (double)(two.ns[0] + two.ns[1]) / 2 / (double)pairs;
}

/* ---- is it memory ---- */

static void verify(const char *who, void *(*take)(size_t), void (*give)(void *), size_t size_bytes)
{
    unsigned char *held[HELD];
    for (size_t i = 0; i < HELD; i++) {
        held[i] = take(size_bytes);
        memset(held[i], (int)(i + 1), size_bytes);
    }
    for (size_t i = 0; i < HELD; i++) {
        for (size_t at = 0; at < size_bytes; at++) {
            must(held[i][at] == i + 1, who);
        }
        give(held[i]);
    }
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *figures, size_t count, double q)
{
    qsort(figures, count, sizeof *figures, compare);
    return figures[(size_t)(q * (double)(count - 1) + 0.5)];
}

typedef struct contest {
    const char *name;
    loop *ours[2];
    loop *theirs[2];
} contest;

static void contest_run(const contest *c, const char *claim, size_t size_bytes, size_t turns)
{
    static double ours[TURNS_MAX];
    static double theirs[TURNS_MAX];
    static double ratios[TURNS_MAX];
    (void)run(c->ours[0], c->ours[1], size_bytes, WARM_UPS);
    (void)run(c->theirs[0], c->theirs[1], size_bytes, WARM_UPS);
    for (size_t turn = 0; turn < turns; turn++) {
        for (size_t side = 0; side < 2; side++) {
            if ((turn + side) % 2 == 0) {
                ours[turn] = run(c->ours[0], c->ours[1], size_bytes, PAIRS);
            } else {
                theirs[turn] = run(c->theirs[0], c->theirs[1], size_bytes, PAIRS);
            }
        }
        ratios[turn] = ours[turn] / theirs[turn];
    }
    (void)printf("{\"claim\": \"%s\", \"value\": %.1f, \"unit\": \"ns\", \"opponent\": "
                 "\"mimalloc %d.%d.%d that keeps its memory\", \"ratio\": %.3f, \"spread\": [%.3f, "
                 "%.3f], \"opponent_ns\": %.1f, \"turns\": %zu, \"command\": "
                 "\"build/release/bench/pool_hot\"}\n",
                 claim, quantile(ours, turns, 0.5), mi_version() / 100, mi_version() / 10 % 10,
                 mi_version() % 10, quantile(ratios, turns, 0.5), quantile(ratios, turns, 0.25),
                 quantile(ratios, turns, 0.75), quantile(theirs, turns, 0.5), turns);
    (void)fflush(stdout);
}

static void count(const char *whom, size_t size_bytes, size_t pairs)
{
    static const struct {
        const char *name;
        loop *run;
    } loops[] = {{"umo", umo_pairs},
                 {"buffer", buffer_pairs},
                 {"mimalloc", mimalloc_pairs},
                 {"lock", lock_pairs},
                 {"call", call_pairs}};
    loop *pairs_run = NULL;
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        pairs_run = strcmp(whom, loops[i].name) == 0 ? loops[i].run : pairs_run;
    }
    must(pairs_run != NULL && size_bytes > 0 && pairs > 0, "usage: pool_hot count WHOM SIZE PAIRS");
    pairs_run(size_bytes, WARM_UPS);
    CALLGRIND_ZERO_STATS;
    CALLGRIND_START_INSTRUMENTATION;
    pairs_run(size_bytes, pairs);
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS_AT("measured");
}

static void contests_run(size_t turns, const char *only)
{
    static const contest contests[] = {
        {"1", {umo_pairs, NULL}, {mimalloc_pairs, NULL}},
        {"2", {umo_pairs, umo_pairs}, {mimalloc_pairs, mimalloc_pairs}},
        {"x", {umo_takes, umo_gives}, {mimalloc_takes, mimalloc_gives}},
        {"w16", {umo_window, NULL}, {mimalloc_window, NULL}},
        {"buffer", {buffer_pairs, NULL}, {mimalloc_pairs, NULL}},
    };
    static const struct {
        const char *name;
        size_t bytes;
    } sizes[] = {{"4k", 4096}, {"64k", 65536}, {"1m", 1048576}};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        verify("umo: a block's bytes were overwritten", umo_take, umo_give, sizes[s].bytes);
        verify("mimalloc: a block's bytes were overwritten", mimalloc_take, mimalloc_give,
               sizes[s].bytes);
        for (size_t i = 0; i < sizeof contests / sizeof contests[0]; i++) {
            char claim[64];
            (void)snprintf(claim, sizeof claim, "pool_hot_%s_%s", sizes[s].name, contests[i].name);
            if (only == NULL || strcmp(only, claim) == 0) {
                contest_run(&contests[i], claim, sizes[s].bytes, turns);
            }
        }
    }
}

int main(int argc, char **argv)
{
    umo_context *context = NULL;
    umo_device *device = NULL;
    mi_option_disable(mi_option_allow_decommit);
    mi_option_disable(mi_option_page_reset);
    must(umo_context_create(NULL, &context, NULL) == UMO_OK, "no context");
    must(umo_context_device(context, "host", 0, &device, NULL) == UMO_OK, "no device");
    const umo_pool_options options = {
        .device = device, .scope = umo_context_scope(context), .mode = UMO_UNIFIED};
    must(umo_pool_create(&options, &pool, NULL) == UMO_OK, "no pool");
    /* It waits most of the time, but it is there: a C library may leave out locks without it. */
    pthread_t second;
    must(pthread_barrier_init(&two.start, NULL, 2) == 0 &&
             pthread_barrier_init(&two.end, NULL, 2) == 0,
         "no barrier");
    must(pthread_create(&second, NULL, second_main, NULL) == 0, "no second thread");
    if (argc == 5 && strcmp(argv[1], "count") == 0) {
        count(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    } else {
        const size_t turns = argc >= 2 ? strtoul(argv[1], NULL, 10) : TURNS_DEFAULT;
        must(argc <= 3 && turns > 0 && turns <= TURNS_MAX, "usage: pool_hot [TURNS [CLAIM]]");
        contests_run(turns, argc == 3 ? argv[2] : NULL);
    }
    two.loops[1] = NULL;
    (void)pthread_barrier_wait(&two.start);
    (void)pthread_join(second, NULL);
    umo_pool_destroy(pool);
    umo_device_release(device);
    umo_context_destroy(context);
    return 0;
}
