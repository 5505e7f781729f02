/*
 * Placement: the work-function algorithm over at most three storage modes, and the offline optimum
 * by the same recurrence. Pure functions.
 *
 * Two work functions are kept. The optimum's has the moves as they are, which may cost more in one
 * direction than in the other. The one that decides has them made even, d(x, s) + d(s, x), since
 * the bound is known for that; it counts in half nanoseconds, so that nothing has to be rounded.
 * Both are kept less their minimum, which is what they have in common: they are then never more
 * than one move.
 */
#include <umo/placement.h>

#include <assert.h>

/* The part of a move that a window may cost too much before it is decided about. */
#define DUE_SHARE 32u

static bool has_mode(uint32_t modes, int mode)
{
    return (modes & 1u << mode) != 0;
}

static uint64_t cost_clamp(uint64_t ns)
{
    return ns < UMO_COST_MAX_NS ? ns : UMO_COST_MAX_NS;
}

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t move_ns(const umo_placement_moves *moves, int from, int to)
{
    return from == to ? 0 : cost_clamp(moves->ns[from][to]);
}

/* In half nanoseconds. */
static void moves_even(const umo_placement_moves *moves, umo_placement_moves *out)
{
    for (int from = 0; from < UMO_STORAGE_MODES; from++) {
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            out->ns[from][to] = move_ns(moves, from, to) + move_ns(moves, to, from);
        }
    }
}

/*
 * One step of the recurrence: w'(s) = min over x of w(x) + cost(x) + d(x, s), less the minimum,
 * which is returned. A mode is its own when no other is the cheaper way to it. w is at most one
 * move here, so with costs of 2^59 half nanoseconds no sum reaches 2^62.
 */
static uint64_t work_update(uint64_t work[UMO_STORAGE_MODES], uint32_t modes,
                            const uint64_t cost[UMO_STORAGE_MODES],
                            const umo_placement_moves *moves, bool own[UMO_STORAGE_MODES])
{
    uint64_t stayed[UMO_STORAGE_MODES] = {0};
    uint64_t least = UINT64_MAX;
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        stayed[s] = has_mode(modes, s) ? work[s] + cost[s] : UINT64_MAX;
        least = stayed[s] < least ? stayed[s] : least;
    }
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        uint64_t best = stayed[s];
        for (int x = 0; x < UMO_STORAGE_MODES; x++) {
            if (has_mode(modes, x) && has_mode(modes, s) && stayed[x] + moves->ns[x][s] < best) {
                best = stayed[x] + moves->ns[x][s];
            }
        }
        own[s] = has_mode(modes, s) && best == stayed[s];
        work[s] = has_mode(modes, s) ? best - least : 0;
    }
    return least;
}

/* Where to be, by the work function that was just updated. */
static int mode_choose(const umo_placement *placement, const umo_placement_moves *moves,
                       const uint64_t cost[UMO_STORAGE_MODES], const bool own[UMO_STORAGE_MODES])
{
    const int now = (int)placement->mode;
    int chosen = -1;
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < UMO_STORAGE_MODES; i++) {
        int s = (now + i) % UMO_STORAGE_MODES; /* the present mode first: of equals it is kept */
        uint64_t value = placement->work[s] + moves->ns[now][s];
        /* But once it is as good to have moved, every further window of this kind is lost. */
        bool dearer = chosen == now && value == least && cost[now] > cost[s];
        if (own[s] && (value < least || dearer)) {
            chosen = s;
            least = value;
        }
    }
    assert(chosen >= 0); /* the mode that would have been cheapest to stay in is its own */
    return chosen;
}

void umo_placement_init(umo_placement *placement, uint32_t modes, umo_storage_mode mode,
                        const umo_placement_moves *moves)
{
    *placement = (umo_placement){.modes = modes | 1u << mode, .mode = mode, .before = mode};
    for (int s = 0; s < UMO_STORAGE_MODES && moves != NULL; s++) {
        if (has_mode(modes, s)) {
            placement->true_work_ns[s] = move_ns(moves, (int)mode, s);
            placement->work[s] = move_ns(moves, (int)mode, s) + move_ns(moves, s, (int)mode);
        }
    }
}

umo_storage_mode umo_placement_step(umo_placement *placement,
                                    const uint64_t cost_ns[UMO_STORAGE_MODES],
                                    const umo_placement_moves *moves)
{
    uint64_t cost[UMO_STORAGE_MODES] = {0};
    uint64_t doubled[UMO_STORAGE_MODES] = {0};
    umo_placement_moves clamped;
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        if (has_mode(placement->modes, s)) {
            cost[s] = cost_clamp(cost_ns[s]);
            doubled[s] = 2 * cost[s];
        }
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            clamped.ns[s][to] = move_ns(moves, s, to);
        }
    }
    umo_placement_moves even;
    moves_even(moves, &even);

    bool own[UMO_STORAGE_MODES];
    uint64_t least = work_update(placement->true_work_ns, placement->modes, cost, &clamped, own);
    placement->optimum_ns = add_saturating(placement->optimum_ns, least);
    (void)work_update(placement->work, placement->modes, doubled, &even, own);

    const int before = (int)placement->mode;
    const int after = mode_choose(placement, &even, cost, own);
    placement->before = placement->mode;
    placement->mode = (umo_storage_mode)after;
    placement->move_ns = clamped.ns[before][after];
    placement->steps++;
    placement->moves += after != before ? 1 : 0;
    placement->paid_ns = add_saturating(placement->paid_ns, cost[before] + placement->move_ns);
    return placement->mode;
}

static void placement_at(umo_placement *placement, umo_storage_mode mode)
{
    placement->mode = mode;
    placement->before = mode;
    placement->move_ns = 0;
}

void umo_placement_stay(umo_placement *placement)
{
    if (placement->mode == placement->before) {
        return;
    }
    placement->moves--;
    placement->paid_ns -= placement->move_ns;
    placement_at(placement, placement->before);
}

void umo_placement_set(umo_placement *placement, umo_storage_mode mode)
{
    placement_at(placement, mode);
}

bool umo_placement_due(const umo_placement *placement, const uint64_t cost_ns[UMO_STORAGE_MODES],
                       const umo_placement_moves *moves, uint64_t accesses, uint64_t accesses_max)
{
    if (accesses >= accesses_max) {
        return accesses > 0;
    }
    const int now = (int)placement->mode;
    uint64_t here = cost_clamp(cost_ns[now]);
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        uint64_t there = cost_clamp(cost_ns[s]);
        uint64_t both_ways = move_ns(moves, now, s) + move_ns(moves, s, now);
        if (s != now && has_mode(placement->modes, s) && here > there &&
            here - there >= both_ways / 2 / DUE_SHARE) {
            return true;
        }
    }
    return false;
}

uint64_t umo_placement_regret_ns(const umo_placement *placement)
{
    return placement->paid_ns > placement->optimum_ns ? placement->paid_ns - placement->optimum_ns
                                                      : 0;
}

double umo_placement_asymmetry(uint32_t modes, const umo_placement_moves *moves)
{
    if ((modes & 7u) != 7u) {
        return 1;
    }
    uint64_t one = move_ns(moves, 0, 1) + move_ns(moves, 1, 2) + move_ns(moves, 2, 0);
    uint64_t other = move_ns(moves, 0, 2) + move_ns(moves, 2, 1) + move_ns(moves, 1, 0);
    uint64_t more = one > other ? one : other;
    uint64_t less = one > other ? other : one;
    return more == less ? 1 : (double)more / (double)(less > 0 ? less : 1);
}

void umo_placement_solve(uint32_t modes, umo_storage_mode first, const umo_placement_moves *moves,
                         const uint64_t (*cost_ns)[UMO_STORAGE_MODES], size_t count,
                         umo_placement_optimum *out)
{
    umo_placement placement;
    umo_placement_init(&placement, modes, first, moves);
    umo_placement_optimum optimum = {0};
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        optimum.static_ns[s] = has_mode(placement.modes, s) ? 0 : UINT64_MAX;
    }
    for (size_t i = 0; i < count; i++) {
        (void)umo_placement_step(&placement, cost_ns[i], moves);
        for (int s = 0; s < UMO_STORAGE_MODES; s++) {
            if (has_mode(placement.modes, s)) {
                optimum.static_ns[s] =
                    add_saturating(optimum.static_ns[s], cost_clamp(cost_ns[i][s]));
            }
        }
    }
    optimum.cost_ns = placement.optimum_ns;
    *out = optimum;
}

/* ---- the first mode ---- */

/* A hundred uses of the whole buffer, as a pattern has them. */
static const uint64_t pattern_uses[UMO_PATTERNS][UMO_TRAFFICS] = {
    [UMO_PATTERN_CPU_DOMINANT] = {60, 30, 9, 1, 9, 1},
    /* as weights and states: loaded once, then the device's, with a look at them now and then */
    [UMO_PATTERN_GPU_DOMINANT] = {2, 1, 95, 2, 1, 2},
    [UMO_PATTERN_BALANCED] = {25, 25, 25, 25, 25, 25},
    /* produced on one side, used up on the other */
    [UMO_PATTERN_STREAMING] = {0, 50, 50, 0, 50, 0},
};

static uint64_t pattern_cost(const umo_cost_model *model, int mode, uint64_t size_bytes,
                             umo_pattern pattern)
{
    umo_placement_window window;
    for (int t = 0; t < UMO_TRAFFICS; t++) {
        uint64_t count = pattern_uses[pattern][t];
        uint64_t bytes = 0;
        if (__builtin_mul_overflow(count, size_bytes, &bytes)) {
            bytes = UINT64_MAX;
        }
        window.uses[t] = (umo_uses){count, bytes};
    }
    return umo_cost_window_ns(model, (umo_storage_mode)mode, &window);
}

/* How many times the cheapest mode's cost a mode costs, in the worst of the given patterns. */
static double worst_ratio(const umo_cost_model *model, int mode, uint64_t size_bytes,
                          umo_pattern first, umo_pattern last)
{
    double worst = 0;
    for (umo_pattern pattern = first; pattern <= last; pattern++) {
        uint64_t least = UINT64_MAX;
        for (int s = 0; s < UMO_STORAGE_MODES; s++) {
            if (has_mode(model->modes, s)) {
                uint64_t cost = pattern_cost(model, s, size_bytes, pattern);
                least = cost < least ? cost : least;
            }
        }
        double ratio =
            (double)(pattern_cost(model, mode, size_bytes, pattern) + 1) / ((double)least + 1);
        worst = ratio > worst ? ratio : worst;
    }
    return worst;
}

umo_storage_mode umo_placement_initial(const umo_cost_model *model, uint64_t size_bytes,
                                       umo_pattern pattern)
{
    /* By the memory that they hold: the host's side of PRIVATE is made when it is needed. */
    static const umo_storage_mode order[UMO_STORAGE_MODES] = {UMO_UNIFIED, UMO_PRIVATE,
                                                              UMO_MANAGED};
    const double same = 1.02;
    bool known = pattern > UMO_PATTERN_UNKNOWN && pattern <= UMO_PATTERN_STREAMING;
    umo_pattern first = known ? pattern : UMO_PATTERN_CPU_DOMINANT;
    umo_pattern last = known ? pattern : UMO_PATTERN_STREAMING;
    double ratios[UMO_STORAGE_MODES];
    double least = 0;
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        if (has_mode(model->modes, s)) {
            ratios[s] = worst_ratio(model, s, size_bytes, first, last);
            least = least == 0 || ratios[s] < least ? ratios[s] : least;
        }
    }
    for (int i = 0; i < UMO_STORAGE_MODES; i++) {
        if (has_mode(model->modes, (int)order[i]) && ratios[order[i]] <= least * same) {
            return order[i];
        }
    }
    return UMO_UNIFIED; /* a model of no device */
}
