/*
 * Replays one trace with one allocator, and says how long it took and how much memory it held.
 *
 *   pool_replay ALLOCATOR MODE TRACE [PASSES]
 *
 *   ALLOCATOR  umo       umo_pool_take and umo_pool_give
 *              arena     umo_arena_alloc and umo_arena_free; a trace is a request, and what is
 *                        looked at is one that came often enough to be planned
 *              caching   decides as PyTorch's allocator does (pool_caching.h)
 *              glibc     never maps and never trims
 *              jemalloc, mimalloc   as preloaded; the program checks that they are
 *   MODE       untouched  blocks are taken and given
 *              touched    and every page of a block is written when it is taken
 *              threads    as touched, each event on the thread that the trace names, in the trace's
 *                         order; only the allocator's side of a hand-over is timed
 *              check      touched, every page stamped and looked at again before it is given; what
 *                         is reserved is read after each event; then what is kept 100 ms after all
 *                         was given back, and when it is 5 % of the peak; no time
 *
 * One allocator a process, because the peak of its memory is the process's. The trace is read
 * before, into memory that no allocator manages; one small block is taken and given to start it.
 * Prints one JSON line.
 */
#include "pool_caching.h"
#include "pool_trace.h"

#include <umo/umo.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    PASSES_MAX = 64,
    PAGE_BYTES = 4096,
    IDLE_MS = 100,       /* after so long, what is kept counts */
    IDLE_LONG_MS = 1500, /* and so long it is waited for until it is little */
    IDLE_PERCENT = 5,    /* of the peak */
    OWNER = 1,
    ARENA_ALIGN_BYTES = 64,
    WARM_PASSES = 3
};

typedef struct allocator {
    const char *name;
    void (*start)(void);
    void *(*take)(size_t size_bytes);
    void (*give)(void *data);
    uint64_t (*reserved)(void); /* NULL where it does not say */
    bool reserved_is_cheap;     /* to be asked after each event */
    uint64_t (*live)(void);     /* NULL likewise; must be what the trace says, at any time */
    void (*figures)(void);      /* NULL likewise; prints more of them */
    void (*end)(void);          /* after each pass; NULL: what passes did before is of no account */
} allocator;

static void must(bool good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "pool_replay: %s\n", what);
        exit(1);
    }
}

/* ---- umo ---- */

static umo_pool *pool;

static void umo_start(void)
{
    umo_context *context = NULL;
    umo_device *device = NULL;
    must(umo_context_create(NULL, &context, NULL) == UMO_OK, "no context");
    must(umo_context_device(context, "host", 0, &device, NULL) == UMO_OK, "no device");
    const umo_pool_options options = {
        .device = device, .scope = umo_context_scope(context), .mode = UMO_UNIFIED};
    must(umo_pool_create(&options, &pool, NULL) == UMO_OK, "no pool");
}

static void *umo_take(size_t size_bytes)
{
    void *data = NULL;
    return umo_pool_take(pool, size_bytes, OWNER, &data) == UMO_OK ? data : NULL;
}

static void umo_give(void *data)
{
    must(umo_pool_give(pool, data) == UMO_OK, "umo_pool_give refused a live block");
}

static uint64_t umo_reserved(void)
{
    umo_pool_stats stats;
    umo_pool_read(pool, &stats);
    return stats.reserved_bytes;
}

static uint64_t umo_live(void)
{
    umo_pool_stats stats;
    umo_pool_read(pool, &stats);
    return stats.live_bytes;
}

static void umo_figures(void)
{
    umo_pool_stats s;
    umo_pool_read(pool, &s);
    (void)printf(", \"hits\": %llu, \"misses\": %llu, \"trims\": %llu, \"trimmed_bytes\": %llu, "
                 "\"moved_bytes\": %llu, \"metadata_bytes\": %llu",
                 (unsigned long long)s.hits, (unsigned long long)s.misses,
                 (unsigned long long)s.trims, (unsigned long long)s.trimmed_bytes,
                 (unsigned long long)s.moved_bytes, (unsigned long long)s.metadata_bytes);
}

/* ---- umo, by requests ---- */

static umo_arena *arena;

static void arena_end(void)
{
    umo_arena_reset(arena);
}

static void arena_start(void)
{
    umo_start();
    const umo_arena_options options = {.pool = pool, .owner = OWNER};
    must(umo_arena_create(&options, &arena, NULL) == UMO_OK, "no arena");
}

static void *arena_take(size_t size_bytes)
{
    void *data = NULL;
    return umo_arena_alloc(arena, size_bytes, ARENA_ALIGN_BYTES, &data) == UMO_OK ? data : NULL;
}

static void arena_give(void *data)
{
    must(umo_arena_free(arena, data) == UMO_OK, "umo_arena_free refused what is in use");
}

static uint64_t arena_reserved(void)
{
    umo_arena_stats stats;
    umo_arena_read(arena, &stats);
    return stats.held_bytes;
}

static void arena_figures(void)
{
    umo_arena_stats s;
    umo_arena_read(arena, &s);
    (void)printf(", \"planned_bytes\": %zu, \"mark_bytes\": %zu", s.planned_bytes, s.peak_bytes);
}

/* ---- those behind malloc ---- */

/* Blocks that are mapped or trimmed are paid for again and again; a user who knows turns both off.
 * The threshold alone does not: it is not taken above 32 MiB. One arena, because others end at 64
 * MiB and unmap what is empty. */
static void glibc_start(void)
{
    must(dlsym(RTLD_DEFAULT, "mallctl") == NULL && dlsym(RTLD_DEFAULT, "mi_version") == NULL,
         "malloc is not glibc's");
    must(mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, INT_MAX) == 1 &&
             mallopt(M_ARENA_MAX, 1) == 1,
         "mallopt failed");
    (void)mallopt(M_MMAP_THRESHOLD, INT_MAX);
}

/* The heap's arena; nothing of it is given back. */
static uint64_t glibc_reserved(void)
{
    const struct mallinfo2 info = mallinfo2();
    return info.arena + info.hblkhd;
}

typedef int mallctl_function(const char *name, void *old, size_t *old_bytes, void *fresh,
                             size_t fresh_bytes);
static mallctl_function *mallctl;

static void jemalloc_read(const char *name, void *out, size_t out_bytes)
{
    size_t bytes = out_bytes;
    must(mallctl(name, out, &bytes, NULL, 0) == 0 && bytes == out_bytes, name);
}

static void jemalloc_start(void)
{
    *(void **)&mallctl = dlsym(RTLD_DEFAULT, "mallctl");
    must(mallctl != NULL, "malloc is not jemalloc's");
    ssize_t decay[2];
    size_t oversize;
    jemalloc_read("opt.dirty_decay_ms", &decay[0], sizeof decay[0]);
    jemalloc_read("opt.muzzy_decay_ms", &decay[1], sizeof decay[1]);
    jemalloc_read("opt.oversize_threshold", &oversize, sizeof oversize);
    must(decay[0] == -1 && decay[1] == -1 && oversize == 0, "jemalloc is not in its strong regime");
}

static uint64_t jemalloc_reserved(void)
{
    uint64_t epoch = 1;
    size_t resident;
    must(mallctl("epoch", NULL, NULL, &epoch, sizeof epoch) == 0, "epoch");
    jemalloc_read("stats.resident", &resident, sizeof resident);
    return resident;
}

static void mimalloc_start(void)
{
    must(dlsym(RTLD_DEFAULT, "mi_version") != NULL, "malloc is not mimalloc's");
}

static void caching_start(void)
{
}

static const allocator allocators[] = {
    {"umo", umo_start, umo_take, umo_give, umo_reserved, true, umo_live, umo_figures, NULL},
    {"arena", arena_start, arena_take, arena_give, arena_reserved, true, NULL, arena_figures,
     arena_end},
    {"caching", caching_start, bench_caching_take, bench_caching_give, bench_caching_reserved, true,
     NULL, NULL, NULL},
    {"glibc", glibc_start, malloc, free, glibc_reserved, false, NULL, NULL, NULL},
    {"jemalloc", jemalloc_start, malloc, free, jemalloc_reserved, false, NULL, NULL, NULL},
    {"mimalloc", mimalloc_start, malloc, free, NULL, false, NULL, NULL, NULL},
};

/* ---- what the process holds ---- */

/* A figure of /proc/self/FILE in bytes. Read without stdio, whose buffer is malloc's. */
static uint64_t proc_bytes(const char *path, const char *name)
{
    char text[4096];
    size_t had = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; fd >= 0 && got > 0 && had < sizeof text - 1; had += (size_t)got) {
        got = read(fd, text + had, sizeof text - 1 - had);
        must(got >= 0, path);
    }
    (void)close(fd);
    text[had] = '\0';
    const char *at = strstr(text, name);
    must(at != NULL, name);
    return at != NULL ? (uint64_t)strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

static uint64_t resident_now(void)
{
    return proc_bytes("/proc/self/smaps_rollup", "Rss:");
}

static void peak_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && write(fd, "5", 1) == 1, "the peak of the memory cannot be reset");
    (void)close(fd);
}

static uint64_t peak_now(void)
{
    return proc_bytes("/proc/self/status", "VmHWM:");
}

/* ---- the replay ---- */

typedef struct replay {
    const allocator *with;
    bench_trace trace;
    uint64_t reserved_peak_bytes;
    uint64_t cpu_ns[PASSES_MAX];
    uint64_t wall_ns[PASSES_MAX];
} replay;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* One byte in every page that the block reaches into. */
static inline void touch(char *data, size_t size_bytes)
{
    volatile char *at = data;
    for (size_t i = 0; i < size_bytes; i += PAGE_BYTES) {
        at[i] = 1;
    }
    at[size_bytes - 1] = 1;
}

/* Compiled once for each use, with `touched` and the two calls known where the compiler can. */
static inline void events_run(const bench_trace *t, const allocator *with, size_t from, size_t to,
                              bool touched)
{
    void *(*const take)(size_t) = with->take;
    void (*const give)(void *) = with->give;
    for (size_t i = from; i < to; i++) {
        const bench_event *e = &t->events[i];
        if (e->take) {
            char *data = take(e->size_bytes);
            must(data != NULL, "the memory is out");
            t->slots[e->slot] = data;
            if (touched) {
                touch(data, e->size_bytes);
            }
        } else {
            give(t->slots[e->slot]);
            t->slots[e->slot] = NULL;
        }
    }
}

/* What the trace never frees. */
static void rest_give(replay *r)
{
    for (size_t i = 0; i < r->trace.slot_count; i++) {
        if (r->trace.slots[i] != NULL) {
            r->with->give(r->trace.slots[i]);
            r->trace.slots[i] = NULL;
        }
    }
    if (r->with->end != NULL) {
        r->with->end();
    }
}

static void timed_run(replay *r, bool touched, unsigned long pass)
{
    const uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    const uint64_t wall = clock_ns(CLOCK_MONOTONIC);
    if (touched) {
        events_run(&r->trace, r->with, 0, r->trace.event_count, true);
    } else {
        events_run(&r->trace, r->with, 0, r->trace.event_count, false);
    }
    r->wall_ns[pass] = clock_ns(CLOCK_MONOTONIC) - wall;
    r->cpu_ns[pass] = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    rest_give(r);
}

/* ---- each event on its thread ---- */

typedef struct worker {
    pthread_t thread;
    sem_t turn;
    replay *replay;
    struct worker *all;
    uint64_t ns;
    uint16_t index;
} worker;

static size_t next_event; /* handed over with the turn */

static void *worker_main(void *user)
{
    worker *w = user;
    const bench_trace *t = &w->replay->trace;
    for (;;) {
        (void)sem_wait(&w->turn);
        if (next_event == t->event_count) {
            return NULL;
        }
        const size_t from = next_event;
        size_t to = from;
        while (to < t->event_count && t->events[to].thread == w->index) {
            to++;
        }
        const uint64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        events_run(t, w->replay->with, from, to, true);
        w->ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
        next_event = to;
        if (to == t->event_count) {
            for (size_t i = 0; i < t->thread_count; i++) {
                (void)sem_post(&w->all[i].turn);
            }
        } else {
            (void)sem_post(&w->all[t->events[to].thread].turn);
        }
    }
}

static void threads_run(replay *r, unsigned long pass)
{
    const bench_trace *t = &r->trace;
    worker *workers = calloc(t->thread_count, sizeof *workers);
    must(workers != NULL && t->event_count > 0, "no threads");
    next_event = 0;
    for (size_t i = 0; i < t->thread_count; i++) {
        workers[i].replay = r;
        workers[i].all = workers;
        workers[i].index = (uint16_t)i;
        (void)sem_init(&workers[i].turn, 0, 0);
        must(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) == 0, "no thread");
    }
    (void)sem_post(&workers[t->events[0].thread].turn);
    for (size_t i = 0; i < t->thread_count; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        r->cpu_ns[pass] += workers[i].ns;
        (void)sem_destroy(&workers[i].turn);
    }
    r->wall_ns[pass] = r->cpu_ns[pass];
    free(workers);
    rest_give(r);
}

/* ---- is it memory, and how much is held ---- */

/* A stamp in every page of a block and in its last whole word; blocks that overlap there are found.
 */
static bool stamp(char *data, size_t size_bytes, uint64_t mark, bool look)
{
    bool same = true;
    const size_t last = (size_bytes & ~(sizeof mark - 1)) - sizeof mark;
    for (size_t i = 0; size_bytes >= sizeof mark;) {
        if (look) {
            same = same && memcmp(data + i, &mark, sizeof mark) == 0;
        } else {
            memcpy(data + i, &mark, sizeof mark);
        }
        if (i == last) {
            break;
        }
        i = last - i > PAGE_BYTES ? i + PAGE_BYTES : last;
    }
    return same;
}

static void reserved_note(replay *r)
{
    const uint64_t now = r->with->reserved();
    r->reserved_peak_bytes = now > r->reserved_peak_bytes ? now : r->reserved_peak_bytes;
}

static void check_run(replay *r)
{
    const bench_trace *t = &r->trace;
    const bool each = r->with->reserved != NULL && r->with->reserved_is_cheap;
    uint64_t live_bytes = 0;
    for (size_t i = 0; i < t->event_count; i++) {
        const bench_event *e = &t->events[i];
        char **slot = (char **)&t->slots[e->slot];
        const uint64_t mark = (uint64_t)e->slot * 0x9e3779b97f4a7c15u + e->size_bytes;
        if (e->take) {
            *slot = r->with->take(e->size_bytes);
            must(*slot != NULL, "the memory is out");
            touch(*slot, e->size_bytes);
            (void)stamp(*slot, e->size_bytes, mark, false);
            live_bytes += e->size_bytes;
        } else {
            must(stamp(*slot, e->size_bytes, mark, true), "a block's bytes were overwritten");
            r->with->give(*slot);
            *slot = NULL;
            live_bytes -= e->size_bytes;
        }
        if (each) {
            reserved_note(r);
        }
        must(r->with->live == NULL || i % 64 != 0 || r->with->live() == live_bytes,
             "live_bytes is not what lives");
    }
    if (r->with->reserved != NULL) {
        reserved_note(r);
    }
}

/* What the process and the allocator hold beyond what they did before. */
typedef struct held {
    uint64_t resident_bytes;
    uint64_t reserved_bytes;
} held;

static held held_now(const replay *r, uint64_t before)
{
    const uint64_t resident = resident_now();
    return (held){.resident_bytes = resident > before ? resident - before : 0,
                  .reserved_bytes = r->with->reserved != NULL ? r->with->reserved() : 0};
}

/* Waits until at most `most` is held, or for IDLE_LONG_MS. How long that took. */
static uint64_t idle_wait(const replay *r, uint64_t before, held most, uint64_t since_ns)
{
    const struct timespec step = {.tv_nsec = 10 * 1000000L};
    for (;;) {
        const held now = held_now(r, before);
        const uint64_t ms = (clock_ns(CLOCK_MONOTONIC) - since_ns) / 1000000u;
        if ((now.resident_bytes <= most.resident_bytes &&
             now.reserved_bytes <= most.reserved_bytes) ||
            ms >= IDLE_LONG_MS) {
            return ms;
        }
        (void)nanosleep(&step, NULL);
    }
}

static void check(replay *r)
{
    for (int i = 0; r->with->end != NULL && i < WARM_PASSES; i++) {
        check_run(r);
        rest_give(r);
    }
    r->reserved_peak_bytes = 0;
    const uint64_t before = resident_now();
    peak_reset();
    check_run(r);
    const uint64_t peak = peak_now() - before;
    rest_give(r);
    const uint64_t idle_from = clock_ns(CLOCK_MONOTONIC);
    const struct timespec idle = {.tv_nsec = IDLE_MS * 1000000L};
    (void)nanosleep(&idle, NULL);
    const held kept = held_now(r, before);
    const held most = {peak / 100 * IDLE_PERCENT, r->reserved_peak_bytes / 100 * IDLE_PERCENT};
    (void)printf("\"resident_peak_bytes\": %llu, \"resident_kept_bytes\": %llu",
                 (unsigned long long)peak, (unsigned long long)kept.resident_bytes);
    if (r->with->reserved != NULL) {
        (void)printf(", \"reserved_peak_bytes\": %llu, \"reserved_kept_bytes\": %llu",
                     (unsigned long long)r->reserved_peak_bytes,
                     (unsigned long long)kept.reserved_bytes);
    }
    (void)printf(", \"idle_ms\": %llu, \"idle_limit_ms\": %d",
                 (unsigned long long)(strcmp(r->with->name, "umo") == 0
                                          ? idle_wait(r, before, most, idle_from)
                                          : IDLE_LONG_MS),
                 IDLE_LONG_MS);
}

static void list_print(const char *name, const uint64_t *ns, unsigned long passes)
{
    (void)printf("\"%s\": [", name);
    for (unsigned long i = 0; i < passes; i++) {
        (void)printf("%s%llu", i > 0 ? ", " : "", (unsigned long long)ns[i]);
    }
    (void)printf("]");
}

int main(int argc, char **argv)
{
    static replay r;
    const unsigned long passes = argc == 5 ? strtoul(argv[4], NULL, 10) : 1;
    for (size_t i = 0; argc >= 4 && i < sizeof allocators / sizeof allocators[0]; i++) {
        r.with = strcmp(argv[1], allocators[i].name) == 0 ? &allocators[i] : r.with;
    }
    if (r.with == NULL || argc > 5 || passes == 0 || passes > PASSES_MAX) {
        (void)fprintf(stderr, "usage: pool_replay ALLOCATOR MODE TRACE [PASSES]\n");
        return 2;
    }
    bench_trace_load(argv[3], &r.trace);
    r.with->start();
    void *first = r.with->take(PAGE_BYTES);
    must(first != NULL, "the memory is out");
    touch(first, PAGE_BYTES);
    r.with->give(first);
    if (r.with->end != NULL) {
        r.with->end();
    }

    (void)printf("{\"allocator\": \"%s\", \"mode\": \"%s\", \"events\": %zu, \"ignored\": %zu, "
                 "\"threads\": %zu, \"live_peak_bytes\": %llu, ",
                 argv[1], argv[2], r.trace.event_count, r.trace.ignored_count, r.trace.thread_count,
                 (unsigned long long)r.trace.live_peak_bytes);
    if (strcmp(argv[2], "check") == 0) {
        check(&r);
    } else {
        const bool threads = strcmp(argv[2], "threads") == 0;
        const bool touched = strcmp(argv[2], "touched") == 0;
        must(threads || touched || strcmp(argv[2], "untouched") == 0, "no such mode");
        for (unsigned long pass = 0; pass < passes; pass++) {
            if (threads) {
                threads_run(&r, pass);
            } else {
                timed_run(&r, touched, pass);
            }
        }
        list_print("cpu_ns", r.cpu_ns, passes);
        (void)printf(", ");
        list_print("wall_ns", r.wall_ns, passes);
    }
    if (r.with->figures != NULL) {
        r.with->figures();
    }
    (void)printf("}\n");
    return 0;
}
