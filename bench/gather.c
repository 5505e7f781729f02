/*
 * What gathering a batch costs: umo's copier against one thread's memcpy and against stores that go
 * past the caches, over 8 pieces of one size.
 *
 *   gather [TURNS]   by default 31
 *
 * The pieces lie in shared memory, as clients' do, and were just written; the target was touched
 * before. The ways take turns in changing order; the figure is GB/s of the median, the ratio is
 * memcpy's time over the other's in the same turn. The copied bytes are compared.
 */
#include <umo/copy.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define PIECES 8
#define TURNS_MAX 101

enum {
    BY_MEMCPY,
    BY_COPIER,
    BY_STREAM,
    WAYS
};

static const char *const names[WAYS] = {"memcpy", "copier", "stream"};
static umo_copier *copier;

static double now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static char *memory(size_t size_bytes, int how)
{
    char *at = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, how | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    memset(at, 1, size_bytes);
    return at;
}

/* False where there are no such stores. */
static bool stream(char *to, const char *from, size_t size_bytes)
{
#if defined(__SSE2__)
    for (size_t i = 0; i < size_bytes; i += 64) {
        __m128i lines[4];
        memcpy(lines, from + i, sizeof lines);
        for (size_t k = 0; k < 4; k++) {
            _mm_stream_si128((__m128i *)(void *)(to + i + 16 * k), lines[k]);
        }
    }
    _mm_sfence();
    return true;
#else
    (void)to;
    (void)from;
    (void)size_bytes;
    return false;
#endif
}

static bool gather(int way, const umo_copy *copies)
{
    if (way == BY_COPIER) {
        umo_copier_run(copier, copies, PIECES);
        return true;
    }
    bool able = true;
    for (size_t i = 0; i < PIECES; i++) {
        if (way == BY_STREAM) {
            able = stream(copies[i].to, copies[i].from, copies[i].size_bytes);
        } else {
            memcpy(copies[i].to, copies[i].from, copies[i].size_bytes);
        }
    }
    return able;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void size_measure(size_t piece_bytes, size_t turns)
{
    char *target = memory(PIECES * piece_bytes, MAP_PRIVATE);
    char *pieces[PIECES];
    umo_copy copies[PIECES];
    double us[WAYS][TURNS_MAX];
    double ratios[WAYS][TURNS_MAX];
    bool able = true;
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = memory(piece_bytes, MAP_SHARED);
        copies[i] = (umo_copy){target + i * piece_bytes, pieces[i], piece_bytes};
    }
    for (size_t t = 0; t < turns; t++) {
        for (size_t n = 0; n < WAYS; n++) {
            size_t way = (n + t) % WAYS;
            for (size_t i = 0; i < PIECES; i++) {
                memset(pieces[i], (int)(t * WAYS + n + i), piece_bytes);
            }
            double start = now_us();
            able = gather((int)way, copies) && able;
            us[way][t] = now_us() - start;
            for (size_t i = 0; able && i < PIECES; i++) {
                if (memcmp(copies[i].to, pieces[i], piece_bytes) != 0) {
                    (void)fprintf(stderr, "gather: %s copied wrong bytes\n", names[way]);
                    exit(1);
                }
            }
        }
        for (size_t way = 0; way < WAYS; way++) {
            ratios[way][t] = us[BY_MEMCPY][t] / us[way][t];
        }
    }
    for (size_t way = 0; way < (able ? WAYS : BY_STREAM); way++) {
        qsort(us[way], turns, sizeof us[way][0], compare);
        qsort(ratios[way], turns, sizeof ratios[way][0], compare);
        (void)printf("{\"claim\": \"gather_%s_%dx%zuk\", \"value\": %.2f, \"unit\": \"GB/s\", "
                     "\"opponent\": \"memcpy by one thread\", \"ratio\": %.2f, \"spread\": "
                     "[%.2f, %.2f], \"command\": \"gather\"}\n",
                     names[way], PIECES, piece_bytes >> 10,
                     (double)(PIECES * piece_bytes) / us[way][turns / 2] / 1e3,
                     ratios[way][turns / 2], ratios[way][turns / 4], ratios[way][3 * turns / 4]);
    }
    for (size_t i = 0; i < PIECES; i++) {
        (void)munmap(pieces[i], piece_bytes);
    }
    (void)munmap(target, PIECES * piece_bytes);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20};
    size_t turns = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 31;
    turns = turns < 1 ? 1 : turns > TURNS_MAX ? TURNS_MAX : turns;
    if (umo_copier_create(UINT32_MAX, 0, &copier, NULL) != UMO_OK) {
        return 1;
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_measure(sizes[i], turns);
    }
    umo_copier_figures figures;
    umo_copier_read(copier, &figures);
    (void)fprintf(stderr,
                  "gather: %u helpers, waking %llu ns, a MiB %llu ns alone, %llu together, "
                  "used from %zu bytes on\n",
                  figures.helpers, (unsigned long long)figures.wake_ns,
                  (unsigned long long)figures.alone_ns_mib,
                  (unsigned long long)figures.together_ns_mib, figures.crossover_bytes);
    umo_copier_destroy(copier);
    return 0;
}
