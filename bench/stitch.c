/*
 * Whether a batch whose slots do not touch should be stitched (mapped into one range) instead of
 * gathered (copied into one range).
 *
 *   stitch [TURNS]   by default 15
 *
 * Clients are 8 segments of shared memory with 2 slots each, as 8 processes have them. A batch
 * takes one slot of some of them. A slot is mapped as a server must do it, which has no file: by
 * duplicating the mapping (mremap). Before each turn its client has written the slot anew, so that
 * no way finds it warmer than another; the engine reads every byte once. Per kind of page and size
 * of slot, in turns whose order changes:
 *
 * - gather: 8 slots are copied into prepared memory by one thread, and read there.
 * - fresh: they are mapped, and read through the new mapping.
 * - kept: they are read through a mapping that was made and touched before.
 *
 * Then the mix: batches of 2 to 8 clients at random, of all sizes, with the mappings of the last 64
 * batches of a size kept. Figures are medians; a ratio is gather's time over the other's, so above
 * 1 stitching wins. Each sum that was read is compared.
 */
#include <umo/copy.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define CLIENTS 8
#define SLOTS 2
#define KEPT 64
#define MIX_BATCHES 400
#define TURNS_MAX 101

static const size_t sizes[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 16 << 20};
#define SIZES (sizeof sizes / sizeof sizes[0])

/* Slots of a batch, by client; -1 for a client that is not in it. */
typedef struct batch {
    int slot[CLIENTS];
    size_t count;
} batch;

typedef struct stitched {
    batch of;
    char *range;
    uint64_t used;
} stitched;

/* All clients' slots of one size. */
typedef struct scene {
    size_t slot_bytes;
    char *segment[CLIENTS];
    char *scratch;
    stitched kept[KEPT];
    uint64_t clock;
    uint64_t hits;
    uint64_t misses;
} scene;

static double now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void must(bool fine, const char *what)
{
    if (!fine) {
        perror(what);
        exit(1);
    }
}

/* 2 MiB aligned, so that huge pages may lie behind it. */
static char *reserve(size_t size_bytes)
{
    const size_t huge = (size_t)2 << 20;
    char *range = mmap(NULL, size_bytes + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(range != MAP_FAILED, "mmap");
    char *aligned = (char *)(((uintptr_t)range + huge - 1) & ~(uintptr_t)(huge - 1));
    if (aligned > range) {
        (void)munmap(range, (size_t)(aligned - range));
    }
    (void)munmap(aligned + size_bytes, huge - (size_t)(aligned - range));
    return aligned;
}

/* False: the system gives no huge pages. */
static bool segment_make(scene *s, size_t client, bool huge)
{
    char name[64];
    size_t size_bytes = SLOTS * s->slot_bytes;
    (void)snprintf(name, sizeof name, "/umo-stitch-%ld-%zu", (long)getpid(), client);
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    must(file >= 0, "shm_open");
    (void)shm_unlink(name);
    must(ftruncate(file, (off_t)size_bytes) == 0, "ftruncate");
    char *at = reserve(size_bytes);
    s->segment[client] =
        mmap(at, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    must(s->segment[client] == at, "mmap");
    (void)close(file);
    memset(at, (int)client + 1, size_bytes);
    return !huge || madvise(at, size_bytes, MADV_COLLAPSE) == 0;
}

static void scene_end(scene *s)
{
    for (size_t c = 0; c < CLIENTS; c++) {
        if (s->segment[c] != NULL) {
            (void)munmap(s->segment[c], SLOTS * s->slot_bytes);
        }
    }
    for (size_t k = 0; k < KEPT; k++) {
        if (s->kept[k].range != NULL) {
            (void)munmap(s->kept[k].range, CLIENTS * s->slot_bytes);
        }
    }
    (void)munmap(s->scratch, CLIENTS * s->slot_bytes);
    free(s);
}

static scene *scene_make(size_t slot_bytes, bool huge)
{
    scene *s = calloc(1, sizeof *s);
    must(s != NULL, "calloc");
    s->slot_bytes = slot_bytes;
    s->scratch = mmap(NULL, CLIENTS * slot_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(s->scratch != MAP_FAILED, "mmap");
    memset(s->scratch, 1, CLIENTS * slot_bytes);
    for (size_t c = 0; c < CLIENTS; c++) {
        if (!segment_make(s, c, huge)) {
            scene_end(s);
            return NULL;
        }
    }
    return s;
}

/* What the clients of a batch do before they ask. */
static void clients_write(scene *s, const batch *b, int value)
{
    for (size_t c = 0; c < CLIENTS; c++) {
        if (b->slot[c] >= 0) {
            memset(s->segment[c] + (size_t)b->slot[c] * s->slot_bytes, value + (int)c,
                   s->slot_bytes);
        }
    }
}

static uint64_t engine_read(const char *data, size_t size_bytes)
{
    const uint64_t *words = (const uint64_t *)(const void *)data;
    uint64_t sums[4] = {0};
    for (size_t i = 0; i < size_bytes / 8; i += 4) {
        for (size_t k = 0; k < 4; k++) {
            sums[k] += words[i + k];
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3];
}

static uint64_t by_gather(scene *s, const batch *b)
{
    umo_copy copies[CLIENTS];
    size_t count = 0;
    for (size_t c = 0; c < CLIENTS; c++) {
        if (b->slot[c] >= 0) {
            copies[count] =
                (umo_copy){s->scratch + count * s->slot_bytes,
                           s->segment[c] + (size_t)b->slot[c] * s->slot_bytes, s->slot_bytes};
            count++;
        }
    }
    umo_copier_run(NULL, copies, count);
    return engine_read(s->scratch, b->count * s->slot_bytes);
}

static void stitch(scene *s, const batch *b, char *to)
{
    for (size_t c = 0; c < CLIENTS; c++) {
        if (b->slot[c] >= 0) {
            char *from = s->segment[c] + (size_t)b->slot[c] * s->slot_bytes;
            must(mremap(from, 0, s->slot_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
            to += s->slot_bytes;
        }
    }
}

/* The mapping of a batch: one that is kept, or a new one in the place of the oldest. */
static uint64_t by_stitch(scene *s, const batch *b, bool keep)
{
    stitched *oldest = &s->kept[0];
    for (size_t k = 0; k < KEPT && keep; k++) {
        stitched *one = &s->kept[k];
        if (one->range != NULL && memcmp(one->of.slot, b->slot, sizeof b->slot) == 0) {
            one->used = ++s->clock;
            s->hits++;
            return engine_read(one->range, b->count * s->slot_bytes);
        }
        oldest = one->used < oldest->used ? one : oldest;
    }
    s->misses++;
    if (oldest->range == NULL) {
        oldest->range = reserve(CLIENTS * s->slot_bytes);
    }
    stitch(s, b, oldest->range);
    oldest->of = *b;
    oldest->used = ++s->clock;
    return engine_read(oldest->range, b->count * s->slot_bytes);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static void row(const char *claim, const char *pages, size_t slot_bytes, double us,
                const double *ratios, size_t count)
{
    (void)printf("{\"claim\": \"stitch_%s_%s_%zuk\", \"value\": %.1f, \"unit\": \"us\", "
                 "\"opponent\": \"gather into prepared memory\", \"ratio\": %.2f, \"spread\": "
                 "[%.2f, %.2f], \"command\": \"stitch\"}\n",
                 claim, pages, slot_bytes >> 10, us, ratios[count / 2], ratios[count / 4],
                 ratios[3 * count / 4]);
}

static void sizes_compare(size_t turns, bool huge)
{
    const char *pages = huge ? "huge" : "4k";
    for (size_t i = 0; i < SIZES; i++) {
        scene *s = scene_make(sizes[i], huge);
        if (s == NULL) {
            (void)fprintf(stderr, "stitch: no huge pages for %zu KiB slots\n", sizes[i] >> 10);
            continue;
        }
        const batch all = {.slot = {0, 1, 0, 1, 0, 1, 0, 1}, .count = CLIENTS};
        double fresh_us[TURNS_MAX];
        double kept_us[TURNS_MAX];
        double fresh_ratio[TURNS_MAX];
        double kept_ratio[TURNS_MAX];
        for (size_t t = 0; t < turns; t++) {
            double us[3];
            uint64_t sums[3];
            for (size_t n = 0; n < 3; n++) {
                size_t way = (n + t) % 3;
                clients_write(s, &all, (int)t);
                double start = now_us();
                sums[way] = way == 0 ? by_gather(s, &all) : by_stitch(s, &all, way == 2);
                us[way] = now_us() - start;
            }
            must(sums[0] == sums[1] && sums[0] == sums[2], "the stitched bytes");
            fresh_us[t] = us[1];
            kept_us[t] = us[2];
            fresh_ratio[t] = us[0] / us[1];
            kept_ratio[t] = us[0] / us[2];
        }
        (void)median(fresh_ratio, turns);
        (void)median(kept_ratio, turns);
        row("fresh", pages, sizes[i], median(fresh_us, turns), fresh_ratio, turns);
        row("kept", pages, sizes[i], median(kept_us, turns), kept_ratio, turns);
        scene_end(s);
    }
}

static uint64_t chance = 1;

static unsigned below(unsigned limit)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(chance >> 33) % limit;
}

static batch batch_choose(void)
{
    batch b = {.count = 0};
    do {
        b.count = 0;
        for (size_t c = 0; c < CLIENTS; c++) {
            /* Slots are given out lowest first: the second is used when the first is in flight. */
            b.slot[c] = below(10) < 7 ? (below(4) == 0 ? 1 : 0) : -1;
            b.count += b.slot[c] >= 0 ? 1 : 0;
        }
    } while (b.count < 2);
    return b;
}

static void mix_compare(size_t turns, bool huge)
{
    scene *scenes[SIZES];
    double ratios[TURNS_MAX];
    double times[TURNS_MAX];
    uint64_t hits = 0;
    uint64_t misses = 0;
    turns = turns < 5 ? turns : 5;
    for (size_t i = 0; i < SIZES; i++) {
        scenes[i] = scene_make(sizes[i], huge);
        if (scenes[i] == NULL) {
            (void)fprintf(stderr, "stitch: no huge pages, so no mix on them\n");
            return;
        }
    }
    for (size_t t = 0; t < turns; t++) {
        double gather_us = 0;
        double stitch_us = 0;
        for (size_t n = 0; n < MIX_BATCHES; n++) {
            /* Small tensors are more frequent, large ones carry the bytes. */
            size_t i = below(2) == 0 ? below(3) : below(SIZES);
            batch b = batch_choose();
            uint64_t sums[2];
            for (size_t k = 0; k < 2; k++) {
                bool gather = (k + n) % 2 == 0;
                clients_write(scenes[i], &b, (int)n);
                double start = now_us();
                sums[gather ? 0 : 1] =
                    gather ? by_gather(scenes[i], &b) : by_stitch(scenes[i], &b, true);
                *(gather ? &gather_us : &stitch_us) += now_us() - start;
            }
            must(sums[0] == sums[1], "the stitched bytes");
        }
        ratios[t] = gather_us / stitch_us;
        times[t] = stitch_us / MIX_BATCHES;
    }
    for (size_t i = 0; i < SIZES; i++) {
        hits += scenes[i]->hits;
        misses += scenes[i]->misses;
        scene_end(scenes[i]);
    }
    (void)median(ratios, turns);
    (void)printf("{\"claim\": \"stitch_mix_%s\", \"value\": %.1f, \"unit\": \"us\", \"opponent\": "
                 "\"gather into prepared memory\", \"ratio\": %.2f, \"spread\": [%.2f, %.2f], "
                 "\"hits\": %.3f, \"command\": \"stitch\"}\n",
                 huge ? "huge" : "4k", median(times, turns), ratios[turns / 2], ratios[0],
                 ratios[turns - 1], (double)hits / (double)(hits + misses));
}

int main(int argc, char **argv)
{
    size_t turns = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 15;
    turns = turns < 1 ? 1 : turns > TURNS_MAX ? TURNS_MAX : turns;
    for (int huge = 0; huge < 2; huge++) {
        sizes_compare(turns, huge != 0);
        mix_compare(turns, huge != 0);
    }
    return 0;
}
