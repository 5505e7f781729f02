/*
 * The write granule: while the GPU writes one byte, the CPU writes the bytes beside it, in the same
 * cache line and beyond, at moments spread over the kernel's time. A cache that writes back more
 * than the byte takes the CPU's back to what they were.
 *
 * This goes round umo's brackets on purpose: the granule is what they rely on.
 */
#include "checks.h"

#include <string.h>

enum {
    POINTS = 256,
    POINT_BYTES = 16384,
    DISTANCES = 13, /* 1, 2, 4 ... 4096 */
    FLIGHT_US = 2000
};

typedef struct tally {
    unsigned lost[DISTANCES];
    unsigned gpu_lost;
    unsigned writes;
    unsigned in_flight;
} tally;

static umo_fence poke(const probe *p, umo_buffer *buffer, uint8_t value, uint32_t rounds)
{
    const use uses[] = {{buffer, UMO_READ_WRITE}};
    const uint32_t values[] = {POINT_BYTES, value, rounds};
    return probe_launch(p->poke, 0, uses, 1, values, 3, POINTS);
}

/* Rounds of the kernel that take it some time, and the time. The shortest of some: a GPU that
 * rested is slow at first. */
static uint32_t calibrate(const probe *p, umo_buffer *buffer, double *flight_us)
{
    const uint32_t most = p->stand_in ? UINT32_C(1) << 12 : UINT32_C(1) << 22;
    for (uint32_t rounds = 256;; rounds *= 2) {
        *flight_us = 1e9;
        for (int i = 0; i < 4; i++) {
            double start_us = now_us();
            must(umo_fence_wait(poke(p, buffer, 1, rounds), UINT64_MAX), "a command");
            double took_us = now_us() - start_us;
            *flight_us = took_us < *flight_us ? took_us : *flight_us;
        }
        if (*flight_us >= FLIGHT_US || rounds >= most) {
            return rounds;
        }
    }
}

static void turn(const probe *p, umo_buffer *buffer, unsigned char *bytes, unsigned number,
                 uint32_t rounds, double flight_us, tally *t)
{
    const uint8_t value = (uint8_t)(2 + number % 250);
    umo_fence fence = poke(p, buffer, value, rounds);
    double start_us = now_us();
    for (unsigned i = 0; i < POINTS; i++) {
        unsigned char *centre =
            bytes + (size_t)((i * 5 + number * 37) % POINTS) * POINT_BYTES + POINT_BYTES / 2;
        while (now_us() < start_us + flight_us * i / POINTS && !umo_fence_done(fence)) {
        }
        t->in_flight += !umo_fence_done(fence);
        t->writes++;
        for (unsigned d = 0; d < DISTANCES; d++) {
            *(centre - ((size_t)1 << d)) = value;
            *(centre + ((size_t)1 << d)) = value;
        }
    }
    must(umo_fence_wait(fence, UINT64_MAX), "a command");
    for (unsigned i = 0; i < POINTS; i++) {
        const unsigned char *centre = bytes + (size_t)i * POINT_BYTES + POINT_BYTES / 2;
        t->gpu_lost += *centre != value;
        for (unsigned d = 0; d < DISTANCES; d++) {
            t->lost[d] += *(centre - ((size_t)1 << d)) != value;
            t->lost[d] += *(centre + ((size_t)1 << d)) != value;
        }
    }
}

verdict check_write_granule(probe *p)
{
    const unsigned turns = p->stand_in ? 20 : 300;
    region r = region_take(p, ORIGIN_ANONYMOUS, (size_t)POINTS * POINT_BYTES);
    memset(r.data, 1, r.size_bytes);
    umo_buffer *buffer = probe_import(p, r.data, r.size_bytes, true);
    if (buffer == NULL) {
        return VERDICT_FAILS;
    }
    tally t = {.writes = 0};
    double flight_us = 0;
    const uint32_t rounds = calibrate(p, buffer, &flight_us);
    for (unsigned number = 0; number < turns; number++) {
        turn(p, buffer, r.data, number, rounds, flight_us, &t);
    }
    umo_buffer_release(buffer);
    region_give(&r);
    say("kernel of %.0f us, %u turns, %u points; of %u bursts of the CPU %u fell into a kernel's "
        "time",
        flight_us, turns, (unsigned)POINTS, t.writes, t.in_flight);
    size_t farthest = 0;
    for (unsigned d = 0; d < DISTANCES; d++) {
        if (t.lost[d] > 0) {
            say("at a distance of %u bytes the CPU lost %u bytes", 1u << d, t.lost[d]);
            farthest = (size_t)1 << d;
        }
    }
    say("umo's granule here is %zu; the farthest byte lost lay %zu away; the GPU lost %u bytes",
        p->info->write_granule_bytes, farthest, t.gpu_lost);
    if (farthest == 0 && t.in_flight < t.writes / 10) {
        say("too few bursts fell into a kernel's time to tell");
        return VERDICT_UNKNOWN;
    }
    return farthest < p->info->write_granule_bytes && t.gpu_lost == 0 ? VERDICT_HOLDS
                                                                      : VERDICT_FAILS;
}
