/*
 * What shared memory costs a request, with few regions registered and with thousands.
 *
 *   views REGIONS [PAGES]    one JSON object: microseconds of the thread's processor time
 *   views count REGIONS      1000 hits, for callgrind (bench/views.py)
 *
 * Each region is a file of its own, mapped as the server maps it. A hit is the way of a request
 * that has been here before: which mapping is this, which view of ours, which wrap in it, and all
 * given back. Regions are picked at random, so with thousands of them little is in the processor's
 * caches.
 *
 * - hit_us, hot_us: at random; the same one again and again.
 * - new_us: the first request for a region.
 * - sweep_us: the keeper's look for unregistered regions, nothing to be found; gone_us: all are.
 * - lost_us: a client cuts its file short, and a thread touches what is gone.
 * - copy_us: the bytes of a region (PAGES pages, by default 16) copied into prepared memory.
 */
#include "callgrind.h"

#include <umo/umo.h>

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    TURNS = 31,
    HITS = 1000,
    CUT = 10
};

typedef struct bench {
    umo_context *context;
    umo_registry *registry;
    umo_device *device;
    umo_mappings *mappings;
    size_t count;
    size_t size_bytes;
    int *files;
    char **theirs;
    unsigned seed;
} bench;

/* The thread's own time: what else the machine does is not counted. */
static double now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void must(bool well, const char *what)
{
    if (!well) {
        (void)fprintf(stderr, "views: %s failed\n", what);
        exit(1);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double us[TURNS])
{
    qsort(us, TURNS, sizeof us[0], compare);
    return us[TURNS / 2];
}

static void bench_open(bench *b, size_t count, size_t pages)
{
    *b = (bench){.count = count, .size_bytes = pages * (size_t)sysconf(_SC_PAGESIZE), .seed = 1};
    must(umo_context_create(NULL, &b->context, NULL) == UMO_OK, "a context");
    b->registry = umo_context_registry(b->context);
    must(umo_context_device(b->context, "host", 0, &b->device, NULL) == UMO_OK, "a device");
    must(umo_mappings_create(&b->mappings, NULL) == UMO_OK, "mappings");
    b->files = calloc(count, sizeof *b->files);
    b->theirs = calloc(count, sizeof *b->theirs);
    must(b->files != NULL && b->theirs != NULL, "memory");
    for (size_t i = 0; i < count; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "/umo-views-%ld-%zu", (long)getpid(), i);
        b->files[i] = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        must(b->files[i] >= 0 && shm_unlink(name) == 0 &&
                 ftruncate(b->files[i], (off_t)b->size_bytes) == 0,
             "a segment");
        b->theirs[i] =
            mmap(NULL, b->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->files[i], 0);
        must(b->theirs[i] != MAP_FAILED, "a mapping");
        memset(b->theirs[i], (int)(i % 251), b->size_bytes);
        if (i + CUT < count) { /* few files may be open at once */
            (void)close(b->files[i]);
            b->files[i] = -1;
        }
    }
}

/* As the kit does for shared memory. */
static void request(bench *b, size_t region, bool look)
{
    const umo_mapping *mapping = NULL;
    void *own = NULL;
    umo_view *view = NULL;
    umo_buffer *buffer = NULL;
    umo_mappings_forget(b->mappings);
    must(umo_mappings_find(b->mappings, b->theirs[region], b->size_bytes, &mapping) == UMO_OK,
         "the look-up");
    must(umo_view_find(b->registry, b->theirs[region], b->size_bytes, mapping, &own, &view, NULL) ==
             UMO_OK,
         "the view");
    must(umo_registry_wrap(b->registry, b->device, umo_context_scope(b->context), own,
                           b->size_bytes, true, &buffer, NULL, NULL) == UMO_OK,
         "the wrap");
    if (look) {
        must(own != b->theirs[region] && *(unsigned char *)own == region % 251 &&
                 umo_buffer_host(buffer) == own,
             "the comparison");
    }
    umo_buffer_release(buffer);
    umo_view_release(view);
}

static size_t pick(bench *b)
{
    assert(b->count > 0); /* the command line has been looked at */
    b->seed = b->seed * 1664525u + 1013904223u;
    return (b->seed >> 8) % b->count;
}

static double hits_us(bench *b, bool hot)
{
    double us[TURNS];
    for (int turn = 0; turn < TURNS; turn++) {
        double start = now_us();
        for (int i = 0; i < HITS; i++) {
            request(b, hot ? 0 : pick(b), false);
        }
        us[turn] = (now_us() - start) / HITS;
    }
    return median(us);
}

static double copy_us(const bench *b)
{
    double us[TURNS];
    char *target = malloc(b->size_bytes);
    must(target != NULL, "memory");
    memset(target, 1, b->size_bytes);
    for (int turn = 0; turn < TURNS; turn++) {
        double start = now_us();
        for (int i = 0; i < 100; i++) {
            memcpy(target, b->theirs[0], b->size_bytes);
            __asm__ volatile("" ::"r"(target) : "memory");
        }
        us[turn] = (now_us() - start) / 100;
    }
    free(target);
    return median(us);
}

static double sweep_us(const bench *b)
{
    double us[TURNS];
    for (int turn = 0; turn < TURNS; turn++) {
        double start = now_us();
        must(umo_registry_sweep(b->registry) == 0, "the sweep");
        us[turn] = now_us() - start;
    }
    return median(us);
}

/* The last regions' files are cut, one after the other: the handler finds them last. */
static double lost_us(bench *b)
{
    double us[TURNS];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t turn = 0; turn < TURNS; turn++) {
        size_t region = b->count - 1 - turn % (b->count < CUT ? b->count : CUT);
        umo_mapping mapping;
        void *own = NULL;
        umo_view *view = NULL;
        must(umo_mapping_query(b->theirs[region], &mapping) == UMO_OK &&
                 umo_view_find(b->registry, b->theirs[region], b->size_bytes, &mapping, &own, &view,
                               NULL) == UMO_OK &&
                 ftruncate(b->files[region], (off_t)page) == 0,
             "the cut");
        volatile unsigned char *gone = (volatile unsigned char *)own + page;
        double start = now_us();
        unsigned char byte = *gone;
        us[turn] = now_us() - start;
        must(byte == 0 && umo_view_lost(view, own, b->size_bytes) &&
                 ftruncate(b->files[region], (off_t)b->size_bytes) == 0,
             "the loss");
        umo_view_release(view);
    }
    return median(us);
}

static double gone_us(bench *b)
{
    for (size_t i = 0; i < b->count; i++) {
        (void)munmap(b->theirs[i], b->size_bytes);
    }
    /* The keeper may be at it as well. */
    double start = now_us();
    umo_registry_stats stats;
    do {
        (void)umo_registry_sweep(b->registry);
        umo_registry_read(b->registry, &stats);
    } while (stats.views > 0 || stats.wraps > 0);
    return now_us() - start;
}

int main(int argc, char **argv)
{
    static bench b;
    bool count = argc > 1 && strcmp(argv[1], "count") == 0;
    long regions = argc > 1 + count ? strtol(argv[1 + count], NULL, 10) : 10;
    long pages = argc > 2 && !count ? strtol(argv[2], NULL, 10) : 16;
    must(regions > 0 && pages > 1, "the command line");
    bench_open(&b, (size_t)regions, count ? 1 : (size_t)pages);
    double start = now_us();
    for (size_t i = 0; i < b.count; i++) {
        request(&b, i, false);
    }
    double new_us = (now_us() - start) / (double)b.count;
    for (size_t i = 0; i < b.count; i++) {
        request(&b, i, true);
    }
    if (count) {
        CALLGRIND_ZERO_STATS;
        CALLGRIND_START_INSTRUMENTATION;
        for (int i = 0; i < HITS; i++) {
            request(&b, pick(&b), false);
        }
        CALLGRIND_STOP_INSTRUMENTATION;
        CALLGRIND_DUMP_STATS_AT("measured");
        return 0;
    }
    double copy = copy_us(&b);
    double hit = hits_us(&b, false);
    double hot = hits_us(&b, true);
    double sweep = sweep_us(&b);
    double lost = lost_us(&b);
    double gone = gone_us(&b);
    (void)printf("{\"regions\": %zu, \"hit_us\": %.4f, \"hot_us\": %.4f, \"new_us\": %.3f, "
                 "\"sweep_us\": %.1f, \"gone_us\": %.1f, \"lost_us\": %.2f, \"copy_us\": %.3f}\n",
                 b.count, hit, hot, new_us, sweep, gone, lost, copy);
    umo_mappings_destroy(b.mappings);
    umo_device_release(b.device);
    umo_context_destroy(b.context);
    free(b.files);
    free(b.theirs);
    return 0;
}
