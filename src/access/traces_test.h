/*
 * Access traces for tests and benchmarks of the placement: made ones, an adversary, and the walk
 * that lets the algorithm live through a trace next to the offline optimum.
 *
 * A trace is a list of uses of one buffer. Which bytes a side lacks does not depend on the storage
 * mode (that is what makes windows comparable), so one pass turns uses into costs for all modes.
 */
#ifndef UMO_ACCESS_TRACES_TEST_H
#define UMO_ACCESS_TRACES_TEST_H

#include <assert.h>
#include <umo/placement.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_GB ((uint64_t)1000000000)

/* ---- random numbers that are the same everywhere ---- */

static inline uint64_t trace_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static inline uint64_t trace_below(uint64_t *seed, uint64_t limit)
{
    assert(limit > 0);
    return (trace_random(seed) >> 11) % limit;
}

/* ---- two fixed links ---- */

/* PCIe 4 to a card with 900 GB/s, and chip to chip (450 GB/s) to one with 3,350 GB/s. Launches cost
 * nothing here: they cost the same in every mode, and would only make all ratios look better. */
static inline umo_link trace_link_pcie4(void)
{
    return (umo_link){.host = {.bytes_s = 20 * TRACE_GB},
                      .device = {.bytes_s = 900 * TRACE_GB},
                      .wire = {.latency_ns = 10000, .bytes_s = 25 * TRACE_GB},
                      .alloc = {.latency_ns = 20000, .bytes_s = 20 * TRACE_GB}};
}

static inline umo_link trace_link_c2c(void)
{
    return (umo_link){.host = {.bytes_s = 400 * TRACE_GB},
                      .device = {.bytes_s = 3350 * TRACE_GB},
                      .wire = {.latency_ns = 2000, .bytes_s = 450 * TRACE_GB},
                      .alloc = {.latency_ns = 20000, .bytes_s = 20 * TRACE_GB}};
}

/* ---- a buffer's validity, as the brackets keep it ---- */

typedef struct trace_use {
    unsigned char side; /* umo_side */
    unsigned char use;  /* umo_use */
    uint64_t size_bytes;
} trace_use;

/* What one use is, brought bytes included. valid: umo_side bits. */
static inline umo_placement_window trace_window(unsigned *valid, trace_use use)
{
    umo_placement_window window = {0};
    bool device = use.side == UMO_SIDE_DEVICE;
    umo_uses once = {1, use.size_bytes};
    if ((use.use & UMO_READ) != 0) {
        window.uses[device ? UMO_TRAFFIC_DEVICE_READ : UMO_TRAFFIC_HOST_READ] = once;
        if (*valid != 0 && (*valid & use.side) == 0) {
            window.uses[device ? UMO_TRAFFIC_TO_DEVICE : UMO_TRAFFIC_TO_HOST] = once;
        }
        *valid |= use.side;
    }
    if ((use.use & UMO_WRITE) != 0) {
        window.uses[device ? UMO_TRAFFIC_DEVICE_WRITE : UMO_TRAFFIC_HOST_WRITE] = once;
        *valid = use.side;
    }
    return window;
}

static inline void trace_costs(const umo_cost_model *model, const umo_placement_window *window,
                               uint64_t cost_ns[UMO_STORAGE_MODES])
{
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        cost_ns[s] = (model->modes & 1u << s) != 0
                         ? umo_cost_window_ns(model, (umo_storage_mode)s, window)
                         : UMO_COST_MAX_NS;
    }
}

/* ---- made traces ---- */

typedef struct trace {
    trace_use *uses;
    size_t count;
    size_t capacity;
    uint64_t size_bytes; /* of the buffer */
} trace;

static inline void trace_add(trace *t, umo_side side, umo_use use, uint64_t size_bytes)
{
    if (t->count == t->capacity) {
        t->capacity = t->capacity == 0 ? 1024 : 2 * t->capacity;
        t->uses = realloc(t->uses, t->capacity * sizeof *t->uses);
        if (t->uses == NULL) {
            abort();
        }
    }
    t->uses[t->count++] = (trace_use){(unsigned char)side, (unsigned char)use, size_bytes};
}

static inline void trace_finish(trace *t)
{
    free(t->uses);
    *t = (trace){0};
}

/*
 * One round of a pattern over the whole buffer. Of the dominant ones every sixteenth round has a
 * use by the other side, which is well on their side of the classifier's limits.
 */
static inline void trace_round(trace *t, umo_pattern pattern, uint64_t *seed)
{
    uint64_t size = t->size_bytes;
    bool other = trace_below(seed, 16) == 0;
    switch (pattern) {
    case UMO_PATTERN_CPU_DOMINANT: /* worked on by the host, looked at by the device now and then */
        trace_add(t, UMO_SIDE_HOST, UMO_READ, size);
        trace_add(t, UMO_SIDE_HOST, UMO_WRITE, size);
        trace_add(t, UMO_SIDE_HOST, UMO_READ, size);
        if (other) {
            trace_add(t, UMO_SIDE_DEVICE, UMO_READ, size);
        }
        break;
    case UMO_PATTERN_GPU_DOMINANT: /* weights, states: the host sees little of them */
        trace_add(t, UMO_SIDE_DEVICE, UMO_READ, size);
        trace_add(t, UMO_SIDE_DEVICE, UMO_READ, size);
        trace_add(t, UMO_SIDE_DEVICE, other ? UMO_READ_WRITE : UMO_READ, size);
        if (other) {
            trace_add(t, UMO_SIDE_HOST, UMO_READ, size);
        }
        break;
    case UMO_PATTERN_BALANCED: /* both work on it in turns, several times each */
        trace_add(t, UMO_SIDE_HOST, UMO_READ_WRITE, size);
        trace_add(t, UMO_SIDE_HOST, UMO_READ, size);
        trace_add(t, UMO_SIDE_DEVICE, UMO_READ, size);
        trace_add(t, UMO_SIDE_DEVICE, UMO_READ_WRITE, size);
        break;
    case UMO_PATTERN_STREAMING: /* filled by the host, used up by the device */
    case UMO_PATTERN_UNKNOWN:
        trace_add(t, UMO_SIDE_HOST, UMO_WRITE, size);
        trace_add(t, UMO_SIDE_DEVICE, UMO_READ, size);
        break;
    }
}

static inline void trace_phase(trace *t, umo_pattern pattern, size_t rounds, uint64_t *seed)
{
    for (size_t i = 0; i < rounds; i++) {
        trace_round(t, pattern, seed);
    }
}

/* Phases of random patterns and lengths. */
static inline trace trace_phases(uint64_t size_bytes, size_t phases, size_t rounds_min,
                                 size_t rounds_max, uint64_t *seed)
{
    trace t = {.size_bytes = size_bytes};
    for (size_t i = 0; i < phases; i++) {
        umo_pattern pattern = (umo_pattern)(1 + trace_below(seed, 4));
        size_t rounds = rounds_min + (size_t)trace_below(seed, rounds_max - rounds_min + 1);
        trace_phase(&t, pattern, rounds, seed);
    }
    return t;
}

/* ---- living through a trace ---- */

typedef struct trace_result {
    uint64_t paid_ns;    /* uses in the mode of the moment, and moves */
    uint64_t optimum_ns; /* starts anywhere for nothing, may move before any single use */
    uint64_t static_ns;  /* the best mode, placed there for nothing */
    /* The conventional way: the host's memory, a copy in before each use of the device and one out
     * after it has written. */
    uint64_t explicit_ns;
    uint64_t uses;
    uint64_t moves;
    uint64_t last_move; /* the use after which it moved last */
    umo_storage_mode best;
    umo_storage_mode last;
} trace_result;

/* One buffer on its way. Feed uses one by one, in order; an adversary looks at placement.mode. */
typedef struct trace_walk {
    const umo_cost_model *model;
    umo_placement_moves moves;    /* as they are */
    umo_placement_moves reckoned; /* as they are decided by */
    umo_placement decides;        /* fed with windows, when due */
    umo_placement exact;          /* fed with single uses, for the optimum alone */
    umo_placement_window window;
    uint64_t window_uses;
    uint64_t threshold;
    unsigned valid;
    uint64_t static_ns[UMO_STORAGE_MODES];
    trace_result result;
} trace_walk;

static inline void trace_walk_init(trace_walk *w, const umo_cost_model *model, uint64_t size_bytes,
                                   umo_storage_mode first, uint64_t threshold)
{
    *w = (trace_walk){.model = model, .threshold = threshold};
    umo_cost_moves(model, size_bytes, &w->moves);
    umo_placement_reckon(model, size_bytes, &w->reckoned);
    umo_placement_init(&w->decides, model->modes, first, NULL);
    umo_placement_init(&w->exact, model->modes, first, NULL);
}

static inline void walk_decide(trace_walk *w, bool last)
{
    uint64_t cost_ns[UMO_STORAGE_MODES];
    trace_costs(w->model, &w->window, cost_ns);
    if ((last && w->window_uses > 0) ||
        umo_placement_due(&w->decides, cost_ns, &w->reckoned, w->window_uses, w->threshold)) {
        umo_storage_mode before = w->decides.mode;
        umo_storage_mode after = umo_placement_step(&w->decides, cost_ns, &w->reckoned);
        w->result.paid_ns += cost_ns[before] + w->moves.ns[before][after];
        if (after != before) {
            w->result.last_move = w->result.uses;
        }
        w->window = (umo_placement_window){0};
        w->window_uses = 0;
    }
}

static inline void trace_walk_use(trace_walk *w, trace_use use)
{
    umo_placement_window one = trace_window(&w->valid, use);
    uint64_t cost_ns[UMO_STORAGE_MODES];
    trace_costs(w->model, &one, cost_ns);
    (void)umo_placement_step(&w->exact, cost_ns, &w->moves);
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        w->static_ns[s] += (w->model->modes & 1u << s) != 0 ? cost_ns[s] : UMO_COST_MAX_NS / 1024;
    }
    /* Conventional: the side's own memory, and a copy for every use of the device. */
    for (int t = 0; t < UMO_TRAFFICS; t++) {
        w->window.uses[t].count += one.uses[t].count;
        w->window.uses[t].size_bytes += one.uses[t].size_bytes;
    }
    umo_placement_window copies = one;
    bool device = use.side == UMO_SIDE_DEVICE;
    umo_uses once = {1, use.size_bytes};
    copies.uses[UMO_TRAFFIC_TO_DEVICE] = device && (use.use & UMO_READ) != 0 ? once : (umo_uses){0};
    copies.uses[UMO_TRAFFIC_TO_HOST] = device && (use.use & UMO_WRITE) != 0 ? once : (umo_uses){0};
    w->result.explicit_ns += umo_cost_window_ns(w->model, UMO_PRIVATE, &copies);
    w->window_uses++;
    w->result.uses++;
    walk_decide(w, false);
}

static inline trace_result trace_walk_end(trace_walk *w)
{
    walk_decide(w, true);
    trace_result *r = &w->result;
    r->optimum_ns = w->exact.optimum_ns;
    r->moves = w->decides.moves;
    r->last = w->decides.mode;
    r->static_ns = UINT64_MAX;
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        if ((w->model->modes & 1u << s) != 0 && w->static_ns[s] < r->static_ns) {
            r->static_ns = w->static_ns[s];
            r->best = (umo_storage_mode)s;
        }
    }
    return *r;
}

static inline trace_result trace_live(const umo_cost_model *model, const trace *t,
                                      umo_storage_mode first, uint64_t threshold)
{
    trace_walk w;
    trace_walk_init(&w, model, t->size_bytes, first, threshold);
    for (size_t i = 0; i < t->count; i++) {
        trace_walk_use(&w, t->uses[i]);
    }
    return trace_walk_end(&w);
}

/* Two uses that the adversary makes in a row. */
typedef struct trace_pair {
    trace_use uses[2];
} trace_pair;

static inline trace_use pair_use(uint64_t size_bytes, unsigned kind)
{
    static const uint64_t part[3] = {64, 4096, UINT64_MAX};
    uint64_t size = part[kind % 3] < size_bytes ? part[kind % 3] : size_bytes;
    return (trace_use){(unsigned char)(1 + kind / 9), (unsigned char)(1 + kind / 3 % 3), size};
}

/* Of all pairs that a program could make next, the one that costs the most in this mode beside what
 * it costs in the cheapest one: the sides, uses and sizes that hurt. */
static inline trace_pair pair_worst(const umo_cost_model *model, uint64_t size_bytes,
                                    umo_storage_mode mode, unsigned valid_before)
{
    trace_pair worst = {{{UMO_SIDE_HOST, UMO_READ, 64}, {UMO_SIDE_HOST, UMO_READ, 64}}};
    double most = -1;
    for (unsigned kinds = 0; kinds < 18 * 18; kinds++) {
        trace_pair pair = {{pair_use(size_bytes, kinds % 18), pair_use(size_bytes, kinds / 18)}};
        unsigned valid = valid_before;
        uint64_t sum_ns[UMO_STORAGE_MODES] = {0};
        for (int i = 0; i < 2; i++) {
            umo_placement_window one = trace_window(&valid, pair.uses[i]);
            uint64_t cost_ns[UMO_STORAGE_MODES];
            trace_costs(model, &one, cost_ns);
            for (int s = 0; s < UMO_STORAGE_MODES; s++) {
                sum_ns[s] += cost_ns[s];
            }
        }
        uint64_t least = UINT64_MAX;
        for (int s = 0; s < UMO_STORAGE_MODES; s++) {
            least = sum_ns[s] < least ? sum_ns[s] : least;
        }
        double ratio = (double)sum_ns[mode] / (double)(least + 100);
        if (ratio > most) {
            most = ratio;
            worst = pair;
        }
    }
    return worst;
}

/* The adversary: reads the algorithm's state, and then makes the worst two uses for it. */
static inline trace_result trace_adversary(const umo_cost_model *model, uint64_t size_bytes,
                                           umo_storage_mode first, uint64_t threshold, size_t uses)
{
    trace_pair worst[UMO_STORAGE_MODES][4];
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (unsigned valid = 0; valid < 4; valid++) {
            worst[mode][valid] = pair_worst(model, size_bytes, (umo_storage_mode)mode, valid);
        }
    }
    trace_walk w;
    trace_walk_init(&w, model, size_bytes, first, threshold);
    for (size_t i = 0; i < uses; i += 2) {
        trace_pair pair = worst[w.decides.mode][w.valid];
        trace_walk_use(&w, pair.uses[0]);
        trace_walk_use(&w, pair.uses[1]);
    }
    return trace_walk_end(&w);
}

#endif
