/*
 * Labelled windows of accesses, for the classifier to be judged by.
 *
 * A label is the behaviour that made the window (a ring, weights, a table that both sides write),
 * never a formula over its counts. Each behaviour emits what one request does; sizes, orders and
 * rates are drawn anew for each phase, a share of noise is mixed in, and phases follow one another
 * on one buffer without a pause. Only the public API is used.
 */
#ifndef UMO_ACCESS_WINDOWS_TEST_H
#define UMO_ACCESS_WINDOWS_TEST_H

#include <umo/access.h>

#include <stdio.h>
#include <stdlib.h>

typedef struct window_phase {
    umo_buffer *buffer;
    size_t buffer_bytes;
    uint64_t random;
    size_t bytes;    /* what a request uses of the buffer */
    unsigned pieces; /* in how many accesses */
    unsigned rate;   /* the behaviour's own: passes, or requests between rare events */
    unsigned noise;  /* accesses of any kind, in a thousand */
    unsigned request;
    uint64_t made; /* accesses in all */
} window_phase;

static inline uint32_t window_random(window_phase *p, uint32_t below)
{
    p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((p->random >> 33) % below);
}

static inline void window_emit(window_phase *p, umo_side side, umo_use use, size_t bytes)
{
    if (window_random(p, 1000) < p->noise) {
        umo_status_ignore(
            umo_access_record(p->buffer, window_random(p, 2) == 0 ? UMO_SIDE_HOST : UMO_SIDE_DEVICE,
                              (umo_use)(1 + window_random(p, 3)),
                              1 + window_random(p, (uint32_t)(p->bytes / 4 + 1))));
        p->made++;
    }
    umo_status_ignore(umo_access_record(p->buffer, side, use, bytes == 0 ? 1 : bytes));
    p->made++;
}

/* Uses the request's bytes once, piece by piece, of uneven lengths. */
static inline void window_pass(window_phase *p, umo_side side, umo_use use)
{
    size_t left = p->bytes;
    for (unsigned i = 0; i < p->pieces && left > 0; i++) {
        size_t even = left / (p->pieces - i);
        size_t piece = i + 1 == p->pieces
                           ? left
                           : even / 2 + window_random(p, (uint32_t)(even > 0 ? even : 1));
        piece = piece > left ? left : piece;
        if (piece > 0) {
            window_emit(p, side, use, piece);
        }
        left -= piece;
    }
}

/* ---- GPU_DOMINANT ---- */

/* Loaded once by the host, then read by the device at every request; rarely looked at. */
static void weights(window_phase *p)
{
    if (p->request == 0) {
        window_pass(p, UMO_SIDE_HOST, UMO_WRITE);
    }
    window_pass(p, UMO_SIDE_DEVICE, UMO_READ);
    if (window_random(p, 50) == 0) {
        window_emit(p, UMO_SIDE_HOST, UMO_READ, p->bytes / 16);
    }
}

/* A cache that grows on the device: much is read, little is written, the host samples a row. */
static void device_cache(window_phase *p)
{
    window_emit(p, UMO_SIDE_DEVICE, UMO_WRITE, p->bytes / 32);
    window_pass(p, UMO_SIDE_DEVICE, UMO_READ);
    if (window_random(p, 4) == 0) {
        window_emit(p, UMO_SIDE_HOST, UMO_READ, p->bytes / 64);
    }
}

/* What the device keeps between its own launches. */
static void intermediates(window_phase *p)
{
    window_pass(p, UMO_SIDE_DEVICE, UMO_WRITE);
    window_pass(p, UMO_SIDE_DEVICE, UMO_READ);
}

/* ---- CPU_DOMINANT ---- */

/* A table that the host looks up; the device takes a copy of a part of it now and then. */
static void host_table(window_phase *p)
{
    unsigned lookups = 4 + window_random(p, 8);
    for (unsigned i = 0; i < lookups; i++) {
        window_emit(p, UMO_SIDE_HOST, UMO_READ, p->bytes / 8);
    }
    if (window_random(p, 20) == 0) {
        window_emit(p, UMO_SIDE_DEVICE, UMO_READ, p->bytes / 4);
    }
}

/* Decoded, scaled and normalised in place by the host; the device reads the result once. */
static void host_preparation(window_phase *p)
{
    for (unsigned i = 0; i < 3 + p->rate % 3; i++) {
        window_pass(p, UMO_SIDE_HOST, UMO_READ_WRITE);
    }
    window_pass(p, UMO_SIDE_DEVICE, UMO_READ);
}

/* Text that the host writes and parses; no device. */
static void host_scratch(window_phase *p)
{
    window_pass(p, UMO_SIDE_HOST, UMO_WRITE);
    window_pass(p, UMO_SIDE_HOST, UMO_READ);
}

/* ---- BALANCED ---- */

/* A state that both sides update. */
static void shared_state(window_phase *p)
{
    window_pass(p, UMO_SIDE_HOST, UMO_READ_WRITE);
    window_pass(p, UMO_SIDE_DEVICE, UMO_READ_WRITE);
}

/* Read by both sides, in no order. */
static void shared_constants(window_phase *p)
{
    unsigned host = 1 + p->rate % 2;
    for (unsigned i = 0; i < host + 1; i++) {
        window_pass(p, window_random(p, host + 1) == 0 ? UMO_SIDE_DEVICE : UMO_SIDE_HOST, UMO_READ);
    }
}

/* Prepared in place by the host, worked on in place by the device, read again by the host. */
static void worked_in_place(window_phase *p)
{
    window_pass(p, UMO_SIDE_HOST, UMO_READ_WRITE);
    window_pass(p, UMO_SIDE_DEVICE, UMO_READ_WRITE);
    window_pass(p, UMO_SIDE_HOST, UMO_READ);
}

/* ---- STREAMING ---- */

/* A tokenised input: each request has its own length, and some are not run or run twice. */
static void input(window_phase *p)
{
    size_t most = p->bytes;
    p->bytes = most / 8 + window_random(p, (uint32_t)(most - most / 8));
    window_pass(p, UMO_SIDE_HOST, UMO_WRITE);
    if (window_random(p, 30) != 0) {
        window_pass(p, UMO_SIDE_DEVICE, UMO_READ);
    }
    if (window_random(p, 30) == 0) {
        window_pass(p, UMO_SIDE_DEVICE, UMO_READ);
    }
    p->bytes = most;
}

/* An output: the other way round. */
static void output(window_phase *p)
{
    window_pass(p, UMO_SIDE_DEVICE, UMO_WRITE);
    window_pass(p, UMO_SIDE_HOST, UMO_READ);
}

/* A ring in one buffer: pieces are written and read with a few in flight. */
static void ring(window_phase *p)
{
    unsigned ahead = 1 + p->rate % 4;
    for (unsigned i = 0; i < ahead; i++) {
        window_emit(p, UMO_SIDE_HOST, UMO_WRITE, p->bytes / 8);
    }
    for (unsigned i = 0; i < ahead; i++) {
        window_emit(p, UMO_SIDE_DEVICE, UMO_READ, p->bytes / 8);
    }
}

typedef struct window_behaviour {
    const char *name;
    umo_pattern label;
    void (*request)(window_phase *phase);
} window_behaviour;

static const window_behaviour window_behaviours[] = {
    {"weights", UMO_PATTERN_GPU_DOMINANT, weights},
    {"device cache", UMO_PATTERN_GPU_DOMINANT, device_cache},
    {"intermediates", UMO_PATTERN_GPU_DOMINANT, intermediates},
    {"host table", UMO_PATTERN_CPU_DOMINANT, host_table},
    {"host preparation", UMO_PATTERN_CPU_DOMINANT, host_preparation},
    {"host scratch", UMO_PATTERN_CPU_DOMINANT, host_scratch},
    {"shared state", UMO_PATTERN_BALANCED, shared_state},
    {"shared constants", UMO_PATTERN_BALANCED, shared_constants},
    {"worked in place", UMO_PATTERN_BALANCED, worked_in_place},
    {"input", UMO_PATTERN_STREAMING, input},
    {"output", UMO_PATTERN_STREAMING, output},
    {"ring", UMO_PATTERN_STREAMING, ring},
};

enum {
    WINDOW_BEHAVIOURS = sizeof window_behaviours / sizeof window_behaviours[0],
    WINDOW_ACCESSES = 512,  /* of a judged window */
    WINDOW_PHASE_LEAST = 6, /* windows of a phase */
    WINDOW_PHASE_MOST = 20
};

/* [label][what was said] */
typedef struct window_result {
    unsigned all[UMO_PATTERNS][UMO_PATTERNS];
    unsigned changed[UMO_PATTERNS][UMO_PATTERNS]; /* of those, windows in which the phase changed */
    unsigned wrong[WINDOW_BEHAVIOURS];
    unsigned of[WINDOW_BEHAVIOURS];
} window_result;

/* Runs phases on one buffer. A window in which the behaviour changes has the label of the one that
 * made more of its accesses. */
static inline void windows_run(umo_buffer *buffer, uint64_t seed, unsigned phases,
                               window_result *result)
{
    window_phase p = {.buffer = buffer, .buffer_bytes = umo_buffer_size(buffer), .random = seed};
    uint64_t window_end = WINDOW_ACCESSES;
    const window_behaviour *before = NULL;
    for (unsigned i = 0; i < phases; i++) {
        unsigned index = window_random(&p, WINDOW_BEHAVIOURS);
        const window_behaviour *b = &window_behaviours[index];
        p.bytes = p.buffer_bytes >> window_random(&p, 4);
        p.pieces = 1 + window_random(&p, 6);
        p.rate = window_random(&p, 1000);
        p.noise = window_random(&p, 40);
        uint64_t start = p.made;
        unsigned windows =
            WINDOW_PHASE_LEAST + window_random(&p, WINDOW_PHASE_MOST - WINDOW_PHASE_LEAST + 1);
        uint64_t end = start + (uint64_t)windows * WINDOW_ACCESSES - window_random(&p, 400);
        for (p.request = 0; p.made < end; p.request++) {
            b->request(&p);
            if (p.made < window_end) {
                continue;
            }
            uint64_t window_start = window_end - WINDOW_ACCESSES;
            bool changed = start > window_start && before != NULL;
            bool old = changed && start - window_start > p.made - start;
            umo_pattern label = old ? before->label : b->label;
            umo_pattern said = umo_buffer_pattern(buffer);
            result->all[label][said]++;
            result->changed[label][said] += changed ? 1 : 0;
            size_t made_by = old ? (size_t)(before - window_behaviours) : index;
            result->of[made_by]++;
            result->wrong[made_by] += said != label ? 1 : 0;
            window_end = p.made + WINDOW_ACCESSES;
        }
        before = b;
    }
}

static inline double windows_right(unsigned counts[UMO_PATTERNS][UMO_PATTERNS], unsigned *of)
{
    unsigned right = 0;
    *of = 0;
    for (int label = 0; label < UMO_PATTERNS; label++) {
        for (int said = 0; said < UMO_PATTERNS; said++) {
            *of += counts[label][said];
            right += label == said ? counts[label][said] : 0;
        }
    }
    return *of > 0 ? (double)right / *of : 0;
}

#endif
