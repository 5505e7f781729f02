/*
 * When buffers follow their threads: phases, equals, changes as if to annoy, and against an
 * optimum that knows what comes.
 */
#include "access/numa_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)
#define SIZE (16 * MIB)

/* Two nodes, apart as in the machine of tests/numa, and one without memory near the second. */
static umo_numa_topology machine(void)
{
    static const uint8_t distances[3][3] = {{10, 31, 40}, {31, 10, 20}, {40, 20, 10}};
    umo_numa_topology t;
    memset(&t, 0, sizeof t);
    t.count = 3;
    for (int i = 0; i < 3; i++) {
        t.nodes[i] = (umo_numa_node){
            .id = i, .processors = 1, .memory_bytes = i < 2 ? 1000 * MIB : 0, .allowed = true};
        memcpy(t.distances[i], distances[i], sizeof distances[i]);
    }
    return t;
}

typedef struct scene {
    umo_numa_topology topology;
    umo_numa_prices prices;
    umo_numa_case c;
    umo_numa_residency where;
    unsigned moves;
    double cost_ns; /* of accesses and moves */
} scene;

static scene scene_open(void)
{
    scene s;
    memset(&s, 0, sizeof s);
    s.topology = machine();
    s.prices = (umo_numa_prices){.read = 0.1, .move = 0.5};
    umo_numa_case_init(&s.c);
    s.where.node_bytes[0] = SIZE;
    return s;
}

/* One look after uses by nodes 0 to 2; moves all pages if that is asked for. */
static int look(scene *s, double zero, double one, double two)
{
    umo_votes votes = {{(float)zero, (float)one, (float)two, 0}, {0, 1, 2, 0}};
    int at = s->where.node_bytes[0] > 0 ? 0 : 1;
    double local[3] = {zero, one, two};
    for (int n = 0; n < 3; n++) {
        s->cost_ns += local[n] * s->prices.read * s->topology.distances[n][at] / 10;
    }
    int to = umo_numa_case_look(&s->c, &s->topology, &s->prices, &votes, &s->where);
    if (to >= 0) {
        s->where.node_bytes[at] = 0;
        s->where.node_bytes[to] = SIZE;
        s->moves++;
        s->cost_ns += (double)SIZE * s->prices.move;
        umo_numa_case_moved(&s->c, false);
    }
    return to;
}

static void a_change_of_phase_is_followed_when_it_has_cost_a_move(void **state)
{
    (void)state;
    scene s = scene_open();
    for (int i = 0; i < 50; i++) {
        assert_int_equal(look(&s, 4 * SIZE, 0, 0), -1);
    }
    int looks = 0;
    while (look(&s, 0, 4 * SIZE, 0) < 0) {
        looks++;
        assert_true(looks < 10);
    }
    /* One look until two thirds are seen, and two in a row. */
    assert_true(looks >= 2 && looks <= 4);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(look(&s, 0, 4 * SIZE, 0), -1);
    }
    assert_int_equal(s.moves, 1);
}

static void a_little_use_is_not_worth_a_move(void **state)
{
    (void)state;
    scene s = scene_open();
    /* A move costs as much as the third of what it is paid for here. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(look(&s, 0, 0.5 * SIZE, 0), -1);
    }
    /* But in the end it has cost that. */
    int looks = 0;
    while (look(&s, 0, 0.5 * SIZE, 0) < 0) {
        looks++;
        assert_true(looks < 10);
    }
}

static void what_two_nodes_use_alike_stays(void **state)
{
    (void)state;
    scene s = scene_open();
    unsigned seed = 3;
    for (int i = 0; i < 1000; i++) {
        double share = 0.37 + 0.26 * (double)rand_r(&seed) / RAND_MAX;
        assert_int_equal(look(&s, 8 * SIZE * share, 8 * SIZE * (1 - share), 0), -1);
    }
    /* Nor when they take turns at every look. */
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(look(&s, i % 2 == 0 ? 8 * SIZE : 0, i % 2 == 0 ? 0 : 8 * SIZE, 0), -1);
    }
}

static void a_node_without_memory_has_it_nearby(void **state)
{
    (void)state;
    scene s = scene_open();
    int to = -1;
    for (int i = 0; i < 10 && to < 0; i++) {
        to = look(&s, 0, 0, 4 * SIZE);
    }
    assert_int_equal(to, 1);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(look(&s, 0, 0, 4 * SIZE), -1); /* that is as near as it gets */
    }
}

static void phases_that_earn_a_move_are_followed_each_time(void **state)
{
    (void)state;
    scene s = scene_open();
    for (int phase = 0; phase < 20; phase++) {
        for (int i = 0; i < 20; i++) {
            (void)look(&s, phase % 2 == 0 ? 0 : 4 * SIZE, phase % 2 == 0 ? 4 * SIZE : 0, 0);
        }
        assert_int_equal(s.moves, phase + 1);
    }
}

/* Whenever the pages have come, the use goes. */
static void a_use_that_flees_is_followed_seldom(void **state)
{
    (void)state;
    scene s = scene_open();
    unsigned looks = 3000;
    for (unsigned i = 0; i < looks; i++) {
        bool at_zero = s.where.node_bytes[0] > 0;
        (void)look(&s, at_zero ? 0 : SIZE, at_zero ? SIZE : 0, 0);
    }
    /* 16 times the price: each move is paid for by 16 times its own in remote uses. */
    double remote = (double)SIZE * s.prices.read * 2.1;
    double price = (double)SIZE * s.prices.move;
    assert_true(s.moves * 16 * price < (double)looks * remote * 1.2);
    assert_true(s.moves > 0);
}

static void pages_that_will_not_move_are_asked_for_less_and_less(void **state)
{
    (void)state;
    scene s = scene_open();
    umo_votes votes = {{0, 4 * SIZE, 0, 0}, {0, 1, 0, 0}};
    unsigned asked = 0;
    for (int i = 0; i < 400; i++) {
        if (umo_numa_case_look(&s.c, &s.topology, &s.prices, &votes, &s.where) >= 0) {
            asked++;
            umo_numa_case_moved(&s.c, true);
        }
    }
    /* Three looks would do for a move that goes well. */
    assert_true(asked >= 4 && asked < 60);
}

static void nothing_is_decided_about_memory_that_is_nowhere(void **state)
{
    (void)state;
    scene s = scene_open();
    umo_votes votes = {{0, 4 * SIZE, 0, 0}, {0, 1, 0, 0}};
    memset(&s.where, 0, sizeof s.where);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(umo_numa_case_look(&s.c, &s.topology, &s.prices, &votes, &s.where), -1);
    }
    s.where.node_bytes[1] = SIZE;
    s.where.node_bytes[0] = SIZE / 64; /* too little to matter */
    for (int i = 0; i < 10; i++) {
        assert_int_equal(umo_numa_case_look(&s.c, &s.topology, &s.prices, &votes, &s.where), -1);
    }
}

/* Random phases of random uses; the optimum by dynamic programming over the two nodes. */
static void it_costs_no_more_than_a_few_times_the_optimum(void **state)
{
    (void)state;
    double worst = 0;
    for (unsigned seed = 1; seed <= 200; seed++) {
        unsigned r = seed;
        scene s = scene_open();
        double best[2] = {0, (double)SIZE * s.prices.move};
        unsigned phase_most = 1u << (unsigned)(rand_r(&r) % 7);
        double amount = (double)SIZE * (0.1 + 8.0 * (double)rand_r(&r) / RAND_MAX);
        for (int i = 0; i < 600;) {
            double share = (double)rand_r(&r) / RAND_MAX;
            for (unsigned k = (unsigned)rand_r(&r) % phase_most + 1; k > 0 && i < 600; k--, i++) {
                double zero = amount * share;
                double one = amount - zero;
                (void)look(&s, zero, one, 0);
                double at[2] = {s.prices.read * (zero + 3.1 * one),
                                s.prices.read * (3.1 * zero + one)};
                double move = (double)SIZE * s.prices.move;
                double next[2];
                for (int n = 0; n < 2; n++) {
                    next[n] = (best[n] < best[1 - n] + move ? best[n] : best[1 - n] + move) + at[n];
                }
                best[0] = next[0];
                best[1] = next[1];
            }
        }
        double ratio = s.cost_ns / (best[0] < best[1] ? best[0] : best[1]);
        worst = ratio > worst ? ratio : worst;
    }
    print_message("# at most %.2f times the optimum\n", worst);
    assert_true(worst < 1.6);
}

static void prices_are_learnt_within_reason(void **state)
{
    (void)state;
    umo_numa_prices prices = {.read = 0.1, .move = 0.5};
    for (int i = 0; i < 100; i++) {
        umo_numa_prices_learn(&prices, 10 * MIB, 7 * MIB); /* 0.7 ns a byte */
    }
    assert_true(prices.move > 0.69 && prices.move < 0.71);
    umo_numa_prices_learn(&prices, 0, 1000000);
    assert_true(prices.move > 0.69 && prices.move < 0.71);
    umo_numa_prices_learn(&prices, 4096, UINT64_C(1) << 40); /* the thread was stopped */
    assert_true(prices.move < 0.81);
    for (int i = 0; i < 100; i++) {
        umo_numa_prices_learn(&prices, MIB, 1);
    }
    assert_true(prices.move > 0.09);
}

static void uses_are_local_where_the_pages_are_nearest(void **state)
{
    (void)state;
    const umo_numa_topology t = machine();
    umo_numa_residency where;
    memset(&where, 0, sizeof where);
    where.node_bytes[0] = 3 * MIB;
    where.node_bytes[1] = MIB;
    const umo_votes votes = {{800, 100, 100, 0}, {0, 1, 2, 0}};
    double used = 0;
    double local = umo_numa_local_bytes(&t, &votes, &where, &used);
    assert_true(used == 1000);
    assert_true(local == 600 + 25 + 25);
    memset(&where, 0, sizeof where);
    assert_true(umo_numa_local_bytes(&t, &votes, &where, &used) == 0);
    assert_true(used == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_of_phase_is_followed_when_it_has_cost_a_move),
        cmocka_unit_test(a_little_use_is_not_worth_a_move),
        cmocka_unit_test(what_two_nodes_use_alike_stays),
        cmocka_unit_test(a_node_without_memory_has_it_nearby),
        cmocka_unit_test(phases_that_earn_a_move_are_followed_each_time),
        cmocka_unit_test(a_use_that_flees_is_followed_seldom),
        cmocka_unit_test(pages_that_will_not_move_are_asked_for_less_and_less),
        cmocka_unit_test(nothing_is_decided_about_memory_that_is_nowhere),
        cmocka_unit_test(it_costs_no_more_than_a_few_times_the_optimum),
        cmocka_unit_test(prices_are_learnt_within_reason),
        cmocka_unit_test(uses_are_local_where_the_pages_are_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
