/*
 * The placement: against all ways there are (small cases, exhaustively), against every adversary
 * there is (the graph of all states that it can be brought into), and on traces.
 */
#include "access/traces_test.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    ALL = 7
};

static umo_placement_moves moves_all(uint64_t ns)
{
    umo_placement_moves moves = {0};
    for (int a = 0; a < UMO_STORAGE_MODES; a++) {
        for (int b = 0; b < UMO_STORAGE_MODES; b++) {
            moves.ns[a][b] = a == b ? 0 : ns;
        }
    }
    return moves;
}

/* Closed under the triangle inequality. */
static umo_placement_moves moves_random(uint64_t *seed, uint64_t most)
{
    umo_cost_model model = {.modes = ALL};
    umo_placement_moves moves;
    for (int a = 0; a < UMO_STORAGE_MODES; a++) {
        for (int b = 0; b < UMO_STORAGE_MODES; b++) {
            model.move[a][b].latency_ns = 1 + trace_below(seed, most);
        }
    }
    umo_cost_moves(&model, 0, &moves);
    return moves;
}

/* ---- costs ---- */

static void costs_are_latency_and_bandwidth_added_up(void **state)
{
    (void)state;
    umo_cost_model model = {.modes = 1};
    model.use[UMO_UNIFIED][UMO_TRAFFIC_DEVICE_READ] = (umo_rate){100, 25 * TRACE_GB};
    model.use[UMO_UNIFIED][UMO_TRAFFIC_TO_HOST] = (umo_rate){7, 0};
    umo_placement_window window = {0};
    assert_int_equal(umo_cost_window_ns(&model, UMO_UNIFIED, &window), 0);
    window.uses[UMO_TRAFFIC_DEVICE_READ] = (umo_uses){3, 50000};
    assert_int_equal(umo_cost_window_ns(&model, UMO_UNIFIED, &window), 300 + 2000);
    window.uses[UMO_TRAFFIC_TO_HOST] = (umo_uses){2, UINT64_MAX};
    window.uses[UMO_TRAFFIC_HOST_WRITE] = (umo_uses){5, 5};
    assert_int_equal(umo_cost_window_ns(&model, UMO_UNIFIED, &window), 300 + 2000 + 14);
}

static void costs_stop_at_their_limit(void **state)
{
    (void)state;
    umo_cost_model model = {.modes = ALL};
    for (int t = 0; t < UMO_TRAFFICS; t++) {
        model.use[UMO_PRIVATE][t] = (umo_rate){UINT64_MAX, 1};
    }
    umo_placement_window window;
    for (int t = 0; t < UMO_TRAFFICS; t++) {
        window.uses[t] = (umo_uses){UINT64_MAX, UINT64_MAX};
    }
    assert_true(umo_cost_window_ns(&model, UMO_PRIVATE, &window) == UMO_COST_MAX_NS);
    for (int a = 0; a < UMO_STORAGE_MODES; a++) {
        for (int b = 0; b < UMO_STORAGE_MODES; b++) {
            model.move[a][b] = (umo_rate){UINT64_MAX, 1};
        }
    }
    umo_placement_moves moves;
    umo_cost_moves(&model, UINT64_MAX, &moves);
    assert_true(moves.ns[0][1] == UMO_COST_MAX_NS);
    assert_true(moves.ns[2][2] == 0);
}

static void a_move_is_never_dearer_than_a_detour(void **state)
{
    (void)state;
    umo_cost_model model = {.modes = ALL};
    for (int a = 0; a < UMO_STORAGE_MODES; a++) {
        for (int b = 0; b < UMO_STORAGE_MODES; b++) {
            model.move[a][b].latency_ns = 10;
        }
    }
    model.move[UMO_UNIFIED][UMO_PRIVATE].latency_ns = 1000;
    umo_placement_moves moves;
    umo_cost_moves(&model, 4096, &moves);
    assert_int_equal(moves.ns[UMO_UNIFIED][UMO_PRIVATE], 20);
    assert_int_equal(moves.ns[UMO_PRIVATE][UMO_UNIFIED], 10);
    /* But not by way of a mode that the device lacks. */
    model.modes = 1u << UMO_UNIFIED | 1u << UMO_PRIVATE;
    umo_cost_moves(&model, 4096, &moves);
    assert_int_equal(moves.ns[UMO_UNIFIED][UMO_PRIVATE], 1000);
}

static void a_move_is_reckoned_as_two_uses_at_least(void **state)
{
    (void)state;
    umo_cost_model model = {.modes = 5};
    model.use[UMO_UNIFIED][UMO_TRAFFIC_HOST_READ] = (umo_rate){10, 1000000000}; /* 1 ns a byte */
    model.use[UMO_MANAGED][UMO_TRAFFIC_HOST_READ] = (umo_rate){1000000, 1};     /* not there */
    model.move[UMO_UNIFIED][UMO_PRIVATE].latency_ns = 5000;
    model.move[UMO_PRIVATE][UMO_UNIFIED].latency_ns = 7;
    umo_placement_moves moves;
    umo_placement_reckon(&model, 1000, &moves);
    assert_int_equal(moves.ns[UMO_UNIFIED][UMO_PRIVATE], 5000);
    assert_int_equal(moves.ns[UMO_PRIVATE][UMO_UNIFIED], 2020);
    assert_int_equal(moves.ns[UMO_UNIFIED][UMO_UNIFIED], 0);
}

static void moves_that_cost_nothing_are_not_made_after_every_use(void **state)
{
    (void)state;
    /* One mode is better to read from, the other to write to, by much more than a move. */
    umo_cost_model model = {.modes = 5};
    model.use[UMO_UNIFIED][UMO_TRAFFIC_DEVICE_READ] = (umo_rate){1000, 0};
    model.use[UMO_UNIFIED][UMO_TRAFFIC_DEVICE_WRITE] = (umo_rate){9000, 0};
    model.use[UMO_PRIVATE][UMO_TRAFFIC_DEVICE_READ] = (umo_rate){8000, 0};
    model.use[UMO_PRIVATE][UMO_TRAFFIC_DEVICE_WRITE] = (umo_rate){1000, 0};
    model.move[UMO_UNIFIED][UMO_PRIVATE].latency_ns = 100;
    model.move[UMO_PRIVATE][UMO_UNIFIED].latency_ns = 100;
    trace t = {.size_bytes = 4096};
    for (int i = 0; i < 1000; i++) {
        trace_add(&t, UMO_SIDE_DEVICE, UMO_READ, 4096);
        trace_add(&t, UMO_SIDE_DEVICE, UMO_WRITE, 4096);
    }
    trace_result r = trace_live(&model, &t, UMO_UNIFIED, 1000);
    assert_true((double)r.paid_ns <= 1.05 * (double)r.static_ns);
    assert_true(r.moves <= 40); /* nothing is to be gained, and little lost, by those that remain */
    trace_finish(&t);
}

static void a_link_is_what_lies_between_two_memories(void **state)
{
    (void)state;
    umo_link link = trace_link_pcie4();
    umo_cost_model model;
    umo_cost_model_link(&link, &model);
    assert_int_equal(model.modes, ALL);
    assert_true(model.use[UMO_UNIFIED][UMO_TRAFFIC_DEVICE_READ].bytes_s == 25 * TRACE_GB);
    assert_true(model.use[UMO_PRIVATE][UMO_TRAFFIC_DEVICE_READ].bytes_s == 900 * TRACE_GB);
    assert_int_equal(model.use[UMO_UNIFIED][UMO_TRAFFIC_TO_DEVICE].latency_ns, 0);
    assert_int_equal(model.use[UMO_MANAGED][UMO_TRAFFIC_TO_HOST].latency_ns, 10000);
    umo_placement_moves moves;
    umo_cost_moves(&model, 1000000, &moves);
    /* 10 us and 40 us over the wire, 20 us and 50 us for new memory. */
    assert_int_equal(moves.ns[UMO_UNIFIED][UMO_PRIVATE], 120000);
    assert_true(umo_placement_asymmetry(ALL, &moves) == 1);
}

static void an_assumed_model_has_the_modes_of_its_device(void **state)
{
    (void)state;
    umo_device_info info = {.caps = UMO_CAP_PRIVATE | UMO_CAP_UNIFIED | UMO_CAP_KERNELS |
                                    UMO_CAP_ASYNC};
    umo_cost_model apart;
    umo_cost_model_assume(&info, &apart);
    assert_int_equal(apart.modes, 1u << UMO_PRIVATE | 1u << UMO_UNIFIED);
    assert_int_equal(apart.source, UMO_COST_ASSUMED);
    assert_int_equal(umo_placement_initial(&apart, 1 << 20, UMO_PATTERN_GPU_DOMINANT), UMO_PRIVATE);
    info.unified = true;
    umo_cost_model one;
    umo_cost_model_assume(&info, &one);
    for (int pattern = 0; pattern < UMO_PATTERNS; pattern++) {
        assert_int_equal(umo_placement_initial(&one, 1 << 20, (umo_pattern)pattern), UMO_UNIFIED);
    }
}

/* ---- the first mode ---- */

static void the_first_mode_follows_the_pattern(void **state)
{
    (void)state;
    umo_link link = trace_link_pcie4();
    umo_cost_model model;
    umo_cost_model_link(&link, &model);
    assert_int_equal(umo_placement_initial(&model, 16 << 20, UMO_PATTERN_GPU_DOMINANT),
                     UMO_PRIVATE);
    assert_int_equal(umo_placement_initial(&model, 16 << 20, UMO_PATTERN_CPU_DOMINANT),
                     UMO_UNIFIED);
    assert_int_equal(umo_placement_initial(&model, 16 << 20, UMO_PATTERN_STREAMING), UMO_UNIFIED);
    /* A small one, which both use: a transfer's latency is more than all its bytes. */
    assert_int_equal(umo_placement_initial(&model, 64, UMO_PATTERN_BALANCED), UMO_UNIFIED);
    /* No pattern, or none that there is: one of the modes that it has. */
    model.modes = 1u << UMO_MANAGED;
    assert_int_equal(umo_placement_initial(&model, 64, UMO_PATTERN_UNKNOWN), UMO_MANAGED);
    assert_int_equal(umo_placement_initial(&model, 64, (umo_pattern)99), UMO_MANAGED);
    assert_int_equal(umo_placement_initial(&model, UINT64_MAX, UMO_PATTERN_BALANCED), UMO_MANAGED);
    model.modes = 0;
    assert_int_equal(umo_placement_initial(&model, 64, UMO_PATTERN_BALANCED), UMO_UNIFIED);
}

static void an_unknown_pattern_gets_the_mode_with_the_least_worst_case(void **state)
{
    (void)state;
    umo_link link = trace_link_pcie4();
    umo_cost_model model;
    umo_cost_model_link(&link, &model);
    /* UNIFIED is 36 times too dear for weights; PRIVATE twice, for a stream. */
    assert_int_equal(umo_placement_initial(&model, 16 << 20, UMO_PATTERN_UNKNOWN), UMO_PRIVATE);
}

/* ---- the optimum ---- */

/* Every way through the windows, tried. */
static uint64_t cheapest_way(uint32_t modes, int at, const umo_placement_moves *moves,
                             const uint64_t (*cost)[UMO_STORAGE_MODES], size_t count)
{
    if (count == 0) {
        return 0;
    }
    uint64_t least = UINT64_MAX;
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        if ((modes & 1u << s) != 0) {
            uint64_t way =
                moves->ns[at][s] + cost[0][s] + cheapest_way(modes, s, moves, cost + 1, count - 1);
            least = way < least ? way : least;
        }
    }
    return least;
}

static void the_optimum_is_the_cheapest_of_all_ways(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        static const uint32_t sets[] = {7, 7, 7, 3, 5, 6, 1};
        uint32_t modes = sets[trace_below(&seed, 7)];
        umo_placement_moves moves = moves_random(&seed, 20);
        uint64_t cost[6][UMO_STORAGE_MODES];
        size_t count = 1 + (size_t)trace_below(&seed, 6);
        for (size_t i = 0; i < count; i++) {
            for (int s = 0; s < UMO_STORAGE_MODES; s++) {
                cost[i][s] = trace_below(&seed, 15);
            }
        }
        int first = (int)trace_below(&seed, 3);
        while ((modes & 1u << first) == 0) {
            first = (first + 1) % 3;
        }
        /* Detours only by way of modes that there are. */
        umo_cost_model model = {.modes = modes};
        for (int a = 0; a < UMO_STORAGE_MODES; a++) {
            for (int b = 0; b < UMO_STORAGE_MODES; b++) {
                model.move[a][b].latency_ns = moves.ns[a][b];
            }
        }
        umo_cost_moves(&model, 0, &moves);
        umo_placement_optimum optimum;
        umo_placement_solve(modes, (umo_storage_mode)first, &moves,
                            (const uint64_t(*)[UMO_STORAGE_MODES])cost, count, &optimum);
        assert_int_equal(
            optimum.cost_ns,
            cheapest_way(modes, first, &moves, (const uint64_t(*)[UMO_STORAGE_MODES])cost, count));
        for (int s = 0; s < UMO_STORAGE_MODES; s++) {
            uint64_t sum = 0;
            for (size_t i = 0; i < count; i++) {
                sum += cost[i][s];
            }
            assert_true(optimum.static_ns[s] == ((modes & 1u << s) != 0 ? sum : UINT64_MAX));
        }
    }
}

static void an_empty_trace_costs_nothing(void **state)
{
    (void)state;
    umo_placement_moves moves = moves_all(5);
    umo_placement_optimum optimum;
    umo_placement_solve(3, UMO_MANAGED, &moves, NULL, 0, &optimum);
    assert_int_equal(optimum.cost_ns, 0);
    assert_int_equal(optimum.static_ns[UMO_UNIFIED], 0);
    assert_true(optimum.static_ns[UMO_PRIVATE] == UINT64_MAX);
}

/* ---- what holds at every step ---- */

static void work_never_differs_by_more_than_a_move(void **state)
{
    (void)state;
    uint64_t seed = 77;
    for (int round = 0; round < 400; round++) {
        uint64_t scale = (uint64_t)1 << trace_below(&seed, 60); /* beyond all limits too */
        umo_placement_moves moves = moves_random(&seed, scale);
        umo_placement p;
        umo_placement_init(&p, ALL, (umo_storage_mode)trace_below(&seed, 3),
                           trace_below(&seed, 2) == 0 ? NULL : &moves);
        uint64_t optimum = 0;
        for (int i = 0; i < 60; i++) {
            uint64_t cost[UMO_STORAGE_MODES];
            for (int s = 0; s < UMO_STORAGE_MODES; s++) {
                cost[s] = trace_below(&seed, 3) == 0 ? 0 : trace_random(&seed) % scale;
                cost[s] = trace_below(&seed, 50) == 0 ? UINT64_MAX : cost[s];
            }
            uint64_t paid = p.paid_ns;
            umo_storage_mode mode = umo_placement_step(&p, cost, &moves);
            assert_int_equal(mode, p.mode);
            for (int a = 0; a < UMO_STORAGE_MODES; a++) {
                for (int b = 0; b < UMO_STORAGE_MODES; b++) {
                    uint64_t ab = a == b ? 0 : moves.ns[a][b] + moves.ns[b][a];
                    assert_true(p.work[b] <= p.work[a] + ab);
                    assert_true(p.true_work_ns[b] <=
                                p.true_work_ns[a] + (a == b ? 0 : moves.ns[a][b]));
                }
            }
            assert_true(p.work[0] == 0 || p.work[1] == 0 || p.work[2] == 0);
            assert_true(p.optimum_ns >= optimum && p.paid_ns >= paid);
            assert_true(p.paid_ns >= p.optimum_ns); /* nobody is better than the optimum */
            assert_true(umo_placement_regret_ns(&p) == p.paid_ns - p.optimum_ns);
            optimum = p.optimum_ns;
        }
        assert_int_equal(p.steps, 60);
    }
}

static void a_mode_outside_the_set_is_never_answered(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (uint32_t modes = 1; modes < 8; modes++) {
        umo_placement_moves moves = moves_random(&seed, 10);
        umo_storage_mode first = (modes & 1) != 0   ? UMO_UNIFIED
                                 : (modes & 2) != 0 ? UMO_MANAGED
                                                    : UMO_PRIVATE;
        umo_placement p;
        umo_placement_init(&p, modes, first, &moves);
        for (int i = 0; i < 200; i++) {
            uint64_t cost[UMO_STORAGE_MODES] = {0, 0, 0};
            cost[p.mode] = trace_below(&seed, 30); /* the others are cheaper, there or not */
            assert_true((modes & 1u << umo_placement_step(&p, cost, &moves)) != 0);
        }
        assert_true((p.moves > 0) == ((modes & (modes - 1)) != 0));
    }
}

static void it_moves_when_staying_has_cost_a_move_more(void **state)
{
    (void)state;
    umo_placement_moves moves = moves_all(100);
    umo_placement p;
    umo_placement_init(&p, ALL, UMO_UNIFIED, &moves);
    const uint64_t cost[UMO_STORAGE_MODES] = {11, 10, 1};
    for (int i = 0; i < 19; i++) {
        assert_int_equal(umo_placement_step(&p, cost, &moves), UMO_UNIFIED);
    }
    /* After the twentieth, 200 more: the move that it would have taken, and the one to make. */
    assert_int_equal(umo_placement_step(&p, cost, &moves), UMO_PRIVATE);
    assert_int_equal(p.moves, 1);
    assert_int_equal(p.paid_ns, 20 * 11 + 100);
    assert_int_equal(p.optimum_ns, 20 * 1 + 100);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(umo_placement_step(&p, cost, &moves), UMO_PRIVATE);
    }
}

static void of_equals_the_present_mode_is_kept(void **state)
{
    (void)state;
    /* Two names of one memory: moves for nothing, and the same costs. */
    umo_placement_moves moves = moves_all(0);
    for (int first = 0; first < UMO_STORAGE_MODES; first++) {
        umo_placement p;
        umo_placement_init(&p, ALL, (umo_storage_mode)first, &moves);
        const uint64_t cost[UMO_STORAGE_MODES] = {9, 9, 9};
        for (int i = 0; i < 10; i++) {
            assert_int_equal(umo_placement_step(&p, cost, &moves), first);
        }
    }
}

static void a_buffer_without_bytes_moves_for_nothing(void **state)
{
    (void)state;
    umo_placement_moves moves = moves_all(100);
    umo_placement p;
    umo_placement_init(&p, ALL, UMO_UNIFIED, NULL);
    const uint64_t cost[UMO_STORAGE_MODES] = {60, 60, 1};
    /* The optimum would have started in PRIVATE, so half the time is enough. */
    assert_int_equal(umo_placement_step(&p, cost, &moves), UMO_UNIFIED);
    assert_int_equal(umo_placement_step(&p, cost, &moves), UMO_PRIVATE);
    assert_int_equal(p.optimum_ns, 2);
}

static void a_move_not_made_is_asked_for_again(void **state)
{
    (void)state;
    umo_placement_moves moves = moves_all(10);
    umo_placement p;
    umo_placement_init(&p, ALL, UMO_UNIFIED, &moves);
    const uint64_t cost[UMO_STORAGE_MODES] = {50, 50, 0};
    for (uint64_t i = 1; i < 5; i++) {
        assert_int_equal(umo_placement_step(&p, cost, &moves), UMO_PRIVATE);
        assert_int_equal(p.paid_ns, 50 * i + 10);
        umo_placement_stay(&p);
        assert_int_equal(p.mode, UMO_UNIFIED);
        assert_int_equal(p.moves, 0);
        assert_int_equal(p.paid_ns, 50 * i);
        umo_placement_stay(&p); /* once is enough */
        assert_int_equal(p.paid_ns, 50 * i);
    }
}

static void it_is_due_after_enough_uses_or_cost(void **state)
{
    (void)state;
    umo_placement_moves moves = moves_all(800);
    umo_placement p;
    umo_placement_init(&p, 5, UMO_UNIFIED, &moves);
    uint64_t cost[UMO_STORAGE_MODES] = {1024, 0, 1000};
    assert_false(umo_placement_due(&p, cost, &moves, 0, 0));
    assert_false(umo_placement_due(&p, cost, &moves, 9, 10)); /* MANAGED is not in the set */
    assert_true(umo_placement_due(&p, cost, &moves, 10, 10));
    cost[UMO_UNIFIED] = 1025; /* a thirty-second of a move more than elsewhere */
    assert_true(umo_placement_due(&p, cost, &moves, 1, 10));
    cost[UMO_PRIVATE] = 5000; /* cheap here: no hurry */
    assert_false(umo_placement_due(&p, cost, &moves, 1, 10));
}

/* ---- every adversary ---- */

enum {
    STATES_MAX = 20000,
    SLOTS = 65536
};

/* All that decides what the algorithm does next, and what the optimum pays. */
typedef struct game_state {
    umo_placement placement;
    double gain; /* the most that any way here has cost the algorithm beyond the bound */
} game_state;

typedef struct game {
    umo_placement_moves moves;
    uint64_t task_max; /* tasks: 0 to task_max in steps of task_step in each mode */
    uint64_t task_step;
    bool paid_before; /* the window was paid for in the mode before the decision */
    size_t count;
    game_state states[STATES_MAX];
    int slots[SLOTS]; /* of states, by what makes them different; one more than the index, 0 free */
    size_t task_count;
    size_t edges;
    int (*next)[729];
    double (*paid)[729];
    double (*optimum)[729];
} game;

static bool game_same(const umo_placement *p, const umo_placement *q)
{
    return p->mode == q->mode && memcmp(p->work, q->work, sizeof p->work) == 0 &&
           memcmp(p->true_work_ns, q->true_work_ns, sizeof p->true_work_ns) == 0;
}

static int game_find(game *g, const umo_placement *p)
{
    uint64_t hash = (uint64_t)p->mode;
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        hash = umo_hash_mix(umo_hash_mix(hash, p->work[s]), p->true_work_ns[s]);
    }
    int *slot = &g->slots[hash % SLOTS];
    while (*slot != 0 && !game_same(p, &g->states[*slot - 1].placement)) {
        slot = slot + 1 < g->slots + SLOTS ? slot + 1 : g->slots;
    }
    if (*slot == 0) {
        assert_true(g->count < STATES_MAX);
        g->states[g->count].placement = *p;
        *slot = (int)++g->count;
    }
    return *slot - 1;
}

/* Plays every task in every state that can be reached. */
static void game_explore(game *g)
{
    umo_placement start;
    umo_placement_init(&start, ALL, UMO_UNIFIED, &g->moves);
    g->count = 0;
    memset(g->slots, 0, sizeof g->slots);
    (void)game_find(g, &start);
    uint64_t values = g->task_max / g->task_step + 1;
    g->task_count = (size_t)(values * values * values);
    assert_true(g->task_count <= 729);
    for (size_t i = 0; i < g->count; i++) {
        for (size_t task = 0; task < g->task_count; task++) {
            uint64_t cost[UMO_STORAGE_MODES] = {task % values * g->task_step,
                                                task / values % values * g->task_step,
                                                task / values / values * g->task_step};
            umo_placement p = g->states[i].placement;
            p.optimum_ns = 0;
            umo_storage_mode before = p.mode;
            umo_storage_mode after = umo_placement_step(&p, cost, &g->moves);
            g->paid[i][task] =
                (double)(cost[g->paid_before ? before : after] + g->moves.ns[before][after]);
            g->optimum[i][task] = (double)p.optimum_ns;
            g->next[i][task] = game_find(g, &p);
        }
    }
}

/* Can anybody make it pay more than so many times the optimum for ever? A cycle of states whose sum
 * of paid - ratio * optimum is positive (Bellman-Ford, for the longest way). */
static bool game_beats(game *g, double ratio)
{
    for (size_t i = 0; i < g->count; i++) {
        g->states[i].gain = 0;
    }
    for (size_t round = 0; round <= g->count; round++) {
        bool changed = false;
        for (size_t i = 0; i < g->count; i++) {
            for (size_t task = 0; task < g->task_count; task++) {
                double gain = g->states[i].gain + g->paid[i][task] - ratio * g->optimum[i][task];
                game_state *next = &g->states[g->next[i][task]];
                if (gain > next->gain + 1e-6) {
                    next->gain = gain;
                    changed = true;
                }
            }
        }
        if (!changed) {
            return false;
        }
    }
    return true;
}

/* The ratio that the best adversary reaches, to a hundredth. */
static double game_value(game *g)
{
    double low = 1;
    double high = 64;
    while (high - low > 0.01) {
        double middle = (low + high) / 2;
        if (game_beats(g, middle)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return high;
}

static int game_setup(void **state)
{
    game *g = calloc(1, sizeof *g);
    assert_non_null(g);
    g->next = malloc(STATES_MAX * sizeof *g->next);
    g->paid = malloc(STATES_MAX * sizeof *g->paid);
    g->optimum = malloc(STATES_MAX * sizeof *g->optimum);
    assert_true(g->next != NULL && g->paid != NULL && g->optimum != NULL);
    *state = g;
    return 0;
}

static int game_teardown(void **state)
{
    game *g = *state;
    free(g->next);
    free(g->paid);
    free(g->optimum);
    free(g);
    return 0;
}

static void no_adversary_makes_it_pay_more_than_five_optima(void **state)
{
    game *g = *state;
    g->paid_before = false;
    g->task_step = 1;
    g->moves = moves_all(4);
    for (g->task_max = 1; g->task_max <= 6; g->task_max++) {
        game_explore(g);
        assert_false(game_beats(g, 5));
    }
    /* And five it can be: no deterministic algorithm does better. */
    assert_true(game_value(g) > 3);
    uint64_t seed = 42;
    for (int round = 0; round < 6; round++) {
        umo_placement_moves one = moves_random(&seed, 4);
        for (int a = 0; a < UMO_STORAGE_MODES; a++) { /* the same in both directions */
            for (int b = 0; b < a; b++) {
                one.ns[a][b] = one.ns[b][a];
            }
        }
        umo_cost_model model = {.modes = ALL};
        for (int a = 0; a < UMO_STORAGE_MODES; a++) {
            for (int b = 0; b < UMO_STORAGE_MODES; b++) {
                model.move[a][b].latency_ns = one.ns[a][b];
            }
        }
        umo_cost_moves(&model, 0, &g->moves);
        g->task_max = 3;
        game_explore(g);
        assert_false(game_beats(g, 5));
    }
}

static void uneven_moves_cost_at_most_their_asymmetry(void **state)
{
    game *g = *state;
    g->paid_before = false;
    g->task_step = 1;
    g->task_max = 3;
    uint64_t seed = 4242;
    double most = 0;
    for (int round = 0; round < 6; round++) {
        g->moves = moves_random(&seed, 4);
        double asymmetry = umo_placement_asymmetry(ALL, &g->moves);
        assert_true(asymmetry >= 1);
        most = asymmetry > most ? asymmetry : most;
        game_explore(g);
        assert_false(game_beats(g, 5 * asymmetry));
    }
    assert_true(most > 1.5);
}

static void windows_paid_before_add_what_they_cost_beside_a_move(void **state)
{
    game *g = *state;
    g->paid_before = true;
    g->task_step = 1;
    g->moves = moves_all(16);
    g->task_max = 1; /* a sixteenth of a move; umo_placement_due() has half of that */
    game_explore(g);
    assert_false(game_beats(g, 5 + 3.0 / 16));
    g->moves = moves_all(8);
    g->task_max = 2;
    game_explore(g);
    assert_false(game_beats(g, 5 + 3 * 2.0 / 8));
    /* Whole moves at a time are another matter. */
    g->task_max = 8;
    g->task_step = 4;
    game_explore(g);
    assert_false(game_beats(g, 5 + 3));
}

static void an_adversary_that_charges_the_present_mode_gets_five(void **state)
{
    (void)state;
    umo_placement_moves moves = moves_all(64);
    umo_placement p;
    umo_placement_init(&p, ALL, UMO_UNIFIED, &moves);
    for (int i = 0; i < 100000; i++) {
        uint64_t cost[UMO_STORAGE_MODES] = {0, 0, 0};
        cost[p.mode] = 1;
        (void)umo_placement_step(&p, cost, &moves);
    }
    double ratio = (double)p.paid_ns / (double)p.optimum_ns;
    assert_true(p.moves > 500);
    assert_true(ratio > 4.9 && ratio < 5.01);
}

/* ---- traces ---- */

static const uint64_t trace_sizes[] = {16 << 10, 256 << 10, 4 << 20, 64 << 20};

static void for_each_link(void (*check)(const umo_cost_model *model, uint64_t size_bytes))
{
    umo_link links[] = {trace_link_pcie4(), trace_link_c2c()};
    for (size_t l = 0; l < 2; l++) {
        umo_cost_model model;
        umo_cost_model_link(&links[l], &model);
        for (size_t i = 0; i < sizeof trace_sizes / sizeof trace_sizes[0]; i++) {
            check(&model, trace_sizes[i]);
        }
    }
}

static void check_single_phase(const umo_cost_model *model, uint64_t size_bytes)
{
    uint64_t seed = 9;
    for (umo_pattern pattern = UMO_PATTERN_CPU_DOMINANT; pattern < UMO_PATTERNS; pattern++) {
        trace t = {.size_bytes = size_bytes};
        trace_phase(&t, pattern, 2000, &seed);
        umo_storage_mode first = umo_placement_initial(model, size_bytes, pattern);
        trace_result r = trace_live(model, &t, first, 1000);
        assert_true((double)r.paid_ns <= 1.05 * (double)r.static_ns);
        trace_finish(&t);
    }
}

static void a_declared_single_phase_costs_as_the_best_static_mode(void **state)
{
    (void)state;
    for_each_link(check_single_phase);
}

static void check_cold(const umo_cost_model *model, uint64_t size_bytes)
{
    uint64_t seed = 10;
    for (umo_pattern pattern = UMO_PATTERN_CPU_DOMINANT; pattern < UMO_PATTERNS; pattern++) {
        for (int first = 0; first < UMO_STORAGE_MODES; first++) {
            trace t = {.size_bytes = size_bytes};
            trace_phase(&t, pattern, 1000, &seed);
            trace_walk w;
            trace_walk_init(&w, model, size_bytes, (umo_storage_mode)first, 1000);
            uint64_t most = 0;
            for (int a = 0; a < UMO_STORAGE_MODES; a++) {
                for (int b = 0; b < UMO_STORAGE_MODES; b++) {
                    most = w.moves.ns[a][b] > most ? w.moves.ns[a][b] : most;
                }
            }
            trace_result r = trace_live(model, &t, (umo_storage_mode)first, 1000);
            /* One move's worth of regret, the move, and a little for windows. */
            assert_true((double)r.paid_ns <= 1.05 * (double)r.static_ns + 2.2 * (double)most);
            trace_finish(&t);
        }
    }
}

static void a_wrong_start_costs_two_moves_and_no_more(void **state)
{
    (void)state;
    for_each_link(check_cold);
}

static void check_phases(const umo_cost_model *model, uint64_t size_bytes)
{
    uint64_t seed = 11;
    for (int round = 0; round < 2; round++) {
        trace t = trace_phases(size_bytes, 12, 50, 1000, &seed);
        trace_result r = trace_live(
            model, &t, umo_placement_initial(model, size_bytes, UMO_PATTERN_UNKNOWN), 1000);
        assert_true((double)r.paid_ns <= 1.5 * (double)r.optimum_ns);
        trace_finish(&t);
    }
}

static void phases_cost_at_most_half_more_than_the_optimum(void **state)
{
    (void)state;
    for_each_link(check_phases);
}

static void check_adversary(const umo_cost_model *model, uint64_t size_bytes)
{
    for (int first = 0; first < UMO_STORAGE_MODES; first++) {
        trace_result r = trace_adversary(model, size_bytes, (umo_storage_mode)first, 1000, 6000);
        assert_true((double)r.paid_ns <= 5 * (double)r.optimum_ns);
    }
}

static void an_adversary_with_real_uses_gets_less_than_five(void **state)
{
    (void)state;
    for_each_link(check_adversary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_latency_and_bandwidth_added_up),
        cmocka_unit_test(costs_stop_at_their_limit),
        cmocka_unit_test(a_move_is_never_dearer_than_a_detour),
        cmocka_unit_test(a_move_is_reckoned_as_two_uses_at_least),
        cmocka_unit_test(moves_that_cost_nothing_are_not_made_after_every_use),
        cmocka_unit_test(a_link_is_what_lies_between_two_memories),
        cmocka_unit_test(an_assumed_model_has_the_modes_of_its_device),
        cmocka_unit_test(the_first_mode_follows_the_pattern),
        cmocka_unit_test(an_unknown_pattern_gets_the_mode_with_the_least_worst_case),
        cmocka_unit_test(the_optimum_is_the_cheapest_of_all_ways),
        cmocka_unit_test(an_empty_trace_costs_nothing),
        cmocka_unit_test(work_never_differs_by_more_than_a_move),
        cmocka_unit_test(a_mode_outside_the_set_is_never_answered),
        cmocka_unit_test(it_moves_when_staying_has_cost_a_move_more),
        cmocka_unit_test(of_equals_the_present_mode_is_kept),
        cmocka_unit_test(a_buffer_without_bytes_moves_for_nothing),
        cmocka_unit_test(a_move_not_made_is_asked_for_again),
        cmocka_unit_test(it_is_due_after_enough_uses_or_cost),
        cmocka_unit_test_setup_teardown(no_adversary_makes_it_pay_more_than_five_optima, game_setup,
                                        game_teardown),
        cmocka_unit_test_setup_teardown(uneven_moves_cost_at_most_their_asymmetry, game_setup,
                                        game_teardown),
        cmocka_unit_test_setup_teardown(windows_paid_before_add_what_they_cost_beside_a_move,
                                        game_setup, game_teardown),
        cmocka_unit_test(an_adversary_that_charges_the_present_mode_gets_five),
        cmocka_unit_test(a_declared_single_phase_costs_as_the_best_static_mode),
        cmocka_unit_test(a_wrong_start_costs_two_moves_and_no_more),
        cmocka_unit_test(phases_cost_at_most_half_more_than_the_optimum),
        cmocka_unit_test(an_adversary_with_real_uses_gets_less_than_five),
    };
    return cmocka_run_group_tests_name("placement", tests, NULL, NULL);
}
