/*
 * The policy against scripted memory: a clock, a usage, and answers that give back what the script
 * says. No threads and no files.
 */
#include "access/pressure_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)
#define LIMIT (1000 * MIB)

/* A process in a cgroup. */
typedef struct world {
    pressure_state state;
    uint64_t now_ns;
    uint64_t limit_bytes;
    uint64_t used_bytes;        /* by the application */
    uint64_t idle_bytes;        /* what trimming gives back */
    uint64_t spare_bytes;       /* what relieving gives back */
    uint64_t pools_bytes;       /* what pools hold, idle or not */
    umo_pressure_level urgency; /* of the next step */
    umo_pressure_level system;
    bool forced;
    uint64_t given[UMO_PRESSURE_ANSWERS];
    uint64_t given_ns[UMO_PRESSURE_ANSWERS]; /* the first time; 0 for never */
    uint64_t suppressed;
    uint64_t restored;
    pressure_actions last;
} world;

static world world_new(uint64_t used_bytes)
{
    world w = {.now_ns = 1000 * MS,
               .limit_bytes = LIMIT,
               .used_bytes = used_bytes,
               .pools_bytes = LIMIT / 2};
    umo_pressure_policy_init(&w.state, 0.8);
    return w;
}

static void world_step(world *w)
{
    pressure_sample sample = {
        .usage_bytes = w->used_bytes + w->idle_bytes + w->spare_bytes,
        .limit_bytes = w->limit_bytes,
        .urgency = w->urgency,
        .system = w->system,
        .forced = w->forced,
        .blind_bytes = UINT64_MAX,
        .pools_bytes = w->pools_bytes,
    };
    w->urgency = UMO_PRESSURE_NORMAL;
    umo_pressure_policy_step(&w->state, &sample, w->now_ns, &w->last);
    for (size_t a = 0; a < UMO_PRESSURE_ANSWERS; a++) {
        if (w->last.give[a]) {
            w->given[a]++;
            w->given_ns[a] = w->given_ns[a] != 0 ? w->given_ns[a] : w->now_ns;
        }
        w->suppressed += w->last.suppressed[a] ? 1 : 0;
    }
    w->restored += w->last.restore ? 1 : 0;
    if (w->last.give[UMO_PRESSURE_TRIM]) {
        w->idle_bytes = 0;
    }
    if (w->last.give[UMO_PRESSURE_RELIEVE]) {
        w->spare_bytes = 0;
    }
    assert_true(w->last.next_ns >= 5 * MS && w->last.next_ns <= 1000 * MS);
    assert_int_equal(w->last.percent, w->state.percent);
    assert_int_equal(w->state.refusing, w->state.stage == 4);
}

/* Steps whenever the policy asks for it. */
static void world_run(world *w, uint64_t for_ns)
{
    uint64_t until_ns = w->now_ns + for_ns;
    while (w->now_ns < until_ns) {
        world_step(w);
        w->now_ns += w->last.next_ns;
    }
}

static void nothing_happens_far_from_the_limit(void **state)
{
    (void)state;
    world w = world_new(700 * MIB);
    w.idle_bytes = 90 * MIB;
    world_run(&w, 60000 * MS);
    for (size_t a = 0; a < UMO_PRESSURE_ANSWERS; a++) {
        assert_int_equal(w.given[a], 0);
    }
    assert_int_equal(w.state.level, UMO_PRESSURE_NORMAL);
    assert_int_equal(w.last.next_ns, 1000 * MS);
}

static void the_first_answer_comes_with_the_first_sample_above(void **state)
{
    (void)state;
    world w = world_new(705 * MIB);
    w.idle_bytes = 100 * MIB;
    world_step(&w);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], 1);
    assert_int_equal(w.given[UMO_PRESSURE_TIGHTEN], 0);
    assert_int_equal(w.last.want_bytes, 805 * MIB - 760 * MIB);
    world_run(&w, 5000 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], 1);
    assert_int_equal(w.given[UMO_PRESSURE_TIGHTEN], 0);
    assert_int_equal(w.state.stage, 0);
}

static void answers_come_in_order_and_only_after_their_settling_time(void **state)
{
    (void)state;
    world w = world_new(960 * MIB);
    world_run(&w, 1000 * MS);
    for (size_t a = 1; a < UMO_PRESSURE_ANSWERS; a++) {
        assert_true(w.given[a] > 0);
        assert_true(w.given_ns[a] >=
                    w.given_ns[a - 1] + umo_pressure_settle_ns(UMO_PRESSURE_CRITICAL));
    }
    assert_true(w.state.refusing);
    assert_int_equal(w.state.percent, 0);
    assert_true(w.given_ns[UMO_PRESSURE_REFUSE] - 1000 * MS <= 100 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 1);
}

static void an_answer_that_was_enough_is_the_last(void **state)
{
    (void)state;
    world w = world_new(700 * MIB);
    w.spare_bytes = 260 * MIB;
    world_run(&w, 3000 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_RELIEVE], 1);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 0);
}

static void a_steady_low_level_neither_relieves_nor_refuses(void **state)
{
    (void)state;
    world w = world_new(830 * MIB);
    world_run(&w, 600000 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_RELIEVE], 0);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 0);
    assert_int_equal(w.state.percent, 50);
    /* One a second at most, once it is known to change nothing. */
    assert_true(w.given[UMO_PRESSURE_TRIM] <= 610);
}

/* Others fill the machine: giving up what little we have helps nobody and costs every request. */
static void pools_that_hold_next_to_nothing_are_left_alone_at_a_low_level(void **state)
{
    (void)state;
    world w = world_new(850 * MIB); /* 90 over the target */
    w.pools_bytes = 5 * MIB;
    world_run(&w, 600000 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_TIGHTEN], 0);
    assert_int_equal(w.state.percent, 100);
    assert_in_range(w.given[UMO_PRESSURE_TRIM], 1, 70);
    w.pools_bytes = 6 * MIB;
    world_run(&w, 2000 * MS);
    assert_int_equal(w.state.percent, 50);
    w.pools_bytes = 0;
    world_run(&w, 15000 * MS);
    assert_int_equal(w.state.percent, 100);
    w.used_bytes = 880 * MIB; /* the second level: whatever there is */
    world_run(&w, 2000 * MS);
    assert_int_equal(w.state.percent, 25);
}

/* A peak of a second, then a steady 82 or 78 %: the one above the threshold, the other above the
 * target. */
static void what_a_peak_called_for_does_not_stay_for_ever(void **state)
{
    (void)state;
    static const uint64_t steady[] = {820 * MIB, 780 * MIB};
    for (size_t i = 0; i < 2; i++) {
        world w = world_new(960 * MIB);
        world_run(&w, 1000 * MS);
        assert_true(w.state.refusing);
        assert_int_equal(w.state.percent, 0);
        w.used_bytes = steady[i];
        world_run(&w, 5000 * MS);
        assert_int_equal(w.state.percent, 0); /* nor does it end at once */
        world_run(&w, 60000 * MS);
        assert_int_equal(w.state.percent, 50);
        assert_int_equal(w.state.stage, 2);
        uint64_t relieved = w.given[UMO_PRESSURE_RELIEVE];
        world_run(&w, 60000 * MS);
        assert_int_equal(w.given[UMO_PRESSURE_RELIEVE], relieved);
    }
}

static void a_steady_medium_level_does_not_refuse(void **state)
{
    (void)state;
    world w = world_new(900 * MIB);
    world_run(&w, 60000 * MS);
    assert_true(w.given[UMO_PRESSURE_RELIEVE] > 0);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 0);
    assert_int_equal(w.state.percent, 25);
}

static void growth_ends_the_waiting_between_repetitions(void **state)
{
    (void)state;
    world w = world_new(950 * MIB);
    world_run(&w, 20000 * MS); /* repeats come once a second now */
    uint64_t before = w.given[UMO_PRESSURE_TRIM];
    w.used_bytes += 15 * MIB;
    w.now_ns += 10 * MS;
    world_step(&w);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], before + 1);
}

static void budgets_are_restored_in_steps_and_refusing_ends_first(void **state)
{
    (void)state;
    world w = world_new(960 * MIB);
    world_run(&w, 1000 * MS);
    assert_true(w.state.refusing);
    w.used_bytes = 500 * MIB;
    world_step(&w);
    assert_false(w.state.refusing);
    assert_int_equal(w.state.percent, 0);
    static const uint32_t steps[] = {0, 25, 50, 100};
    size_t at = 0;
    uint64_t changed_ns = w.now_ns;
    while (w.state.stage > 0) {
        w.now_ns += w.last.next_ns;
        world_step(&w);
        if (w.state.percent != steps[at]) {
            at++;
            assert_true(at < 4);
            assert_int_equal(w.state.percent, steps[at]);
            assert_true(w.now_ns - changed_ns >= 1000 * MS);
            changed_ns = w.now_ns;
        }
        assert_true(w.now_ns < 60000 * MS);
    }
    assert_int_equal(at, 3);
    assert_int_equal(w.restored, 3);
}

static void between_target_and_threshold_nothing_moves(void **state)
{
    (void)state;
    world w = world_new(830 * MIB);
    world_run(&w, 3000 * MS);
    assert_int_equal(w.state.percent, 50);
    uint64_t trims = w.given[UMO_PRESSURE_TRIM];
    w.used_bytes = 780 * MIB; /* the target is 760 */
    world_run(&w, 30000 * MS);
    assert_int_equal(w.state.percent, 50);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], trims);
    w.used_bytes = 755 * MIB;
    world_run(&w, 5000 * MS);
    assert_int_equal(w.state.percent, 100);
    assert_int_equal(w.state.stage, 0);
}

/* 100 ms above, 100 ms below, for a minute: the budget is not to follow each tooth. */
static void a_sawtooth_does_not_swing_the_budget(void **state)
{
    (void)state;
    world w = world_new(0);
    uint32_t before = 100;
    unsigned changes = 0;
    for (unsigned tooth = 0; tooth < 300; tooth++) {
        w.used_bytes = 850 * MIB;
        world_run(&w, 100 * MS);
        w.used_bytes = 700 * MIB;
        world_run(&w, 100 * MS);
        changes += w.state.percent != before ? 1 : 0;
        before = w.state.percent;
    }
    assert_true(changes <= 1);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 0);
    assert_int_equal(w.restored, 0);
}

static void a_short_spike_leaves_no_trace(void **state)
{
    (void)state;
    world w = world_new(970 * MIB);
    w.idle_bytes = 20 * MIB;
    world_step(&w);
    w.used_bytes = 400 * MIB;
    w.now_ns += 5 * MS;
    world_run(&w, 10000 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], 1);
    assert_int_equal(w.given[UMO_PRESSURE_TIGHTEN], 0);
    assert_int_equal(w.state.stage, 0);
}

static void a_limit_that_shrinks_is_met_at_once(void **state)
{
    (void)state;
    world w = world_new(500 * MIB);
    w.idle_bytes = 100 * MIB;
    world_run(&w, 5000 * MS);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], 0);
    w.limit_bytes = 620 * MIB;
    world_step(&w);
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], 1);
    assert_int_equal(w.state.level, UMO_PRESSURE_CRITICAL);
    w.limit_bytes = 0; /* and then goes: there is nothing to go by */
    w.now_ns += 20 * MS;
    world_run(&w, 10000 * MS);
    assert_int_equal(w.state.stage, 0);
}

/* As pressure_level did: 3,079 events while usage is far below the limit. */
static void flapping_events_trim_seldom_and_never_refuse(void **state)
{
    (void)state;
    world w = world_new(300 * MIB);
    for (unsigned event = 0; event < 3000; event++) {
        w.urgency = UMO_PRESSURE_LOW;
        w.idle_bytes = 10 * MIB;
        world_step(&w);
        w.now_ns += MS / 3;
    }
    assert_true(w.given[UMO_PRESSURE_TRIM] >= 2);
    assert_true(w.given[UMO_PRESSURE_TRIM] <= 6);
    assert_int_equal(w.suppressed, 3000 - w.given[UMO_PRESSURE_TRIM]);
    assert_int_equal(w.given[UMO_PRESSURE_TIGHTEN], 0);
    world_run(&w, 5000 * MS);
    assert_int_equal(w.state.stage, 0);
}

static void critical_events_go_up_to_relief_but_do_not_refuse(void **state)
{
    (void)state;
    world w = world_new(300 * MIB);
    for (unsigned event = 0; event < 3000; event++) {
        w.urgency = UMO_PRESSURE_CRITICAL;
        world_step(&w);
        w.now_ns += MS / 3;
    }
    assert_true(w.given[UMO_PRESSURE_RELIEVE] > 0);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 0);
}

static void what_the_system_says_of_itself_counts_until_it_is_taken_back(void **state)
{
    (void)state;
    world w = world_new(300 * MIB);
    w.system = UMO_PRESSURE_CRITICAL;
    world_run(&w, 10000 * MS);
    assert_int_equal(w.state.level, UMO_PRESSURE_CRITICAL);
    assert_true(w.state.refusing);
    w.system = UMO_PRESSURE_NORMAL;
    world_run(&w, 10000 * MS);
    assert_false(w.state.refusing);
    assert_int_equal(w.state.stage, 0);
    assert_int_equal(w.state.percent, 100);
}

static void asking_repeats_an_answer_but_does_not_climb(void **state)
{
    (void)state;
    world w = world_new(960 * MIB);
    w.forced = true;
    for (unsigned i = 0; i < 100; i++) {
        world_step(&w); /* no time passes */
    }
    assert_int_equal(w.given[UMO_PRESSURE_TRIM], 100);
    assert_int_equal(w.state.stage, 1);
    assert_int_equal(w.given[UMO_PRESSURE_REFUSE], 0);
}

static void a_clock_that_goes_back_neither_blocks_nor_climbs(void **state)
{
    (void)state;
    world w = world_new(960 * MIB);
    world_step(&w);
    assert_int_equal(w.state.stage, 1);
    w.now_ns -= 900 * MS;
    world_step(&w);
    assert_int_equal(w.state.stage, 1);
    world_run(&w, 100 * MS);
    assert_true(w.state.refusing); /* as fast as with a clock that goes on */
    w.used_bytes = 100 * MIB;
    world_step(&w);
    w.now_ns = 1;
    world_run(&w, 10000 * MS);
    assert_int_equal(w.state.stage, 0);
}

static void a_clock_that_jumps_ahead_climbs_one_stage(void **state)
{
    (void)state;
    world w = world_new(960 * MIB);
    world_step(&w);
    w.now_ns += UINT64_C(86400) * 1000 * MS;
    world_step(&w);
    assert_int_equal(w.state.stage, 2);
    assert_int_equal(w.state.percent, 50);
}

static void room_that_fills_unseen_is_looked_at_more_often(void **state)
{
    (void)state;
    pressure_state policy;
    pressure_actions actions;
    umo_pressure_policy_init(&policy, 0.8);
    pressure_sample sample = {
        .usage_bytes = 100 * MIB, .limit_bytes = 200 * MIB, .blind_bytes = 100 * MIB};
    umo_pressure_policy_step(&policy, &sample, MS, &actions);
    assert_true(actions.next_ns <= 27 * MS); /* 100 MiB at 1 GB/s take 105 ms */
    sample.blind_bytes = 2 * MIB;
    umo_pressure_policy_step(&policy, &sample, 2 * MS, &actions);
    assert_int_equal(actions.next_ns, 5 * MS);
    sample.blind_bytes = UINT64_MAX;
    umo_pressure_policy_step(&policy, &sample, 3 * MS, &actions);
    assert_int_equal(actions.next_ns, 1000 * MS);
}

static void marks_lie_in_order_for_every_threshold(void **state)
{
    (void)state;
    for (unsigned percent = 10; percent <= 98; percent++) {
        pressure_marks marks = umo_pressure_marks(percent / 100.0);
        assert_true(marks.target < marks.level[1] && marks.target > 0);
        assert_true(marks.level[1] < marks.level[2] && marks.level[2] < marks.level[3]);
        assert_true(marks.level[3] < 1);
        assert_true(marks.refuse_end < marks.level[3] && marks.refuse_end > marks.level[2]);
    }
}

/* Random usage, events, clocks and limits: what must hold whatever happens. */
static void no_history_breaks_the_order(void **state)
{
    (void)state;
    uint64_t seed = 42;
    for (unsigned life = 0; life < 200; life++) {
        world w = world_new(0);
        unsigned stage = 0;
        for (unsigned i = 0; i < 500; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            unsigned dice = (unsigned)(seed >> 33);
            w.used_bytes = (uint64_t)(dice % 1100) * MIB;
            w.limit_bytes = dice % 17 == 0 ? 0 : (dice % 13 == 0 ? LIMIT / 2 : LIMIT);
            w.urgency = dice % 5 == 0 ? (umo_pressure_level)(dice % 4) : UMO_PRESSURE_NORMAL;
            w.forced = dice % 11 == 0;
            w.pools_bytes = (uint64_t)(dice % 97) * MIB;
            if (dice % 29 == 0) {
                w.now_ns -= w.now_ns < 500 * MS ? 0 : 500 * MS;
            }
            uint32_t percent = w.state.percent;
            world_step(&w);
            assert_true(w.state.stage <= stage + 1);
            assert_true(w.state.stage <= 4 && w.state.percent <= 100);
            assert_true(w.state.percent >= percent || w.last.give[UMO_PRESSURE_TIGHTEN]);
            assert_true(w.state.percent <= percent || w.last.restore);
            assert_false(w.last.restore && w.last.give[UMO_PRESSURE_TIGHTEN]);
            assert_true(w.state.stage > 0 || w.state.percent == 100);
            stage = w.state.stage;
            w.now_ns += (uint64_t)(dice % 400) * MS;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_happens_far_from_the_limit),
        cmocka_unit_test(the_first_answer_comes_with_the_first_sample_above),
        cmocka_unit_test(answers_come_in_order_and_only_after_their_settling_time),
        cmocka_unit_test(an_answer_that_was_enough_is_the_last),
        cmocka_unit_test(a_steady_low_level_neither_relieves_nor_refuses),
        cmocka_unit_test(pools_that_hold_next_to_nothing_are_left_alone_at_a_low_level),
        cmocka_unit_test(what_a_peak_called_for_does_not_stay_for_ever),
        cmocka_unit_test(a_steady_medium_level_does_not_refuse),
        cmocka_unit_test(growth_ends_the_waiting_between_repetitions),
        cmocka_unit_test(budgets_are_restored_in_steps_and_refusing_ends_first),
        cmocka_unit_test(between_target_and_threshold_nothing_moves),
        cmocka_unit_test(a_sawtooth_does_not_swing_the_budget),
        cmocka_unit_test(a_short_spike_leaves_no_trace),
        cmocka_unit_test(a_limit_that_shrinks_is_met_at_once),
        cmocka_unit_test(flapping_events_trim_seldom_and_never_refuse),
        cmocka_unit_test(critical_events_go_up_to_relief_but_do_not_refuse),
        cmocka_unit_test(what_the_system_says_of_itself_counts_until_it_is_taken_back),
        cmocka_unit_test(asking_repeats_an_answer_but_does_not_climb),
        cmocka_unit_test(a_clock_that_goes_back_neither_blocks_nor_climbs),
        cmocka_unit_test(a_clock_that_jumps_ahead_climbs_one_stage),
        cmocka_unit_test(room_that_fills_unseen_is_looked_at_more_often),
        cmocka_unit_test(marks_lie_in_order_for_every_threshold),
        cmocka_unit_test(no_history_breaks_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
