/*
 * umo_plan() against plain enumeration, against rectangles whose optimum is known, and at its
 * limits. Every plan is checked, by a naive check where that is cheap.
 */
#include "plan/build.h"
#include "plan/instances_test.h"

#include <umo/plan.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    MANY = 1200
};

static umo_plan_buffer buffers[MANY];
static int64_t offsets[MANY];
static int64_t others[MANY];

static bool meet(const umo_plan_buffer *a, const umo_plan_buffer *b)
{
    return a->lower < b->upper && b->lower < a->upper;
}

/* Peak of a plan, or -1 if it is none: by looking at all pairs. */
static int64_t naive_peak(const umo_plan_buffer *b, size_t count, const int64_t *at)
{
    int64_t peak = 0;
    for (size_t i = 0; i < count; i++) {
        if (at[i] < 0 || (b[i].align_bytes > 1 && (uint64_t)at[i] % b[i].align_bytes != 0)) {
            return -1;
        }
        const int64_t end = at[i] + (int64_t)b[i].size_bytes;
        peak = end > peak ? end : peak;
        for (size_t j = 0; j < i; j++) {
            if (meet(&b[i], &b[j]) && at[i] < at[j] + (int64_t)b[j].size_bytes && at[j] < end) {
                return -1;
            }
        }
    }
    return peak;
}

/* The optimum: in the order of offsets, each as low as those before it let it. */
typedef struct enumeration {
    size_t count;
    int64_t at[16];
    int64_t best;
    int64_t live; /* no plan is shorter */
} enumeration;

static int64_t naive_live(size_t count)
{
    int64_t most = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t live = 0;
        for (size_t j = 0; j < count; j++) {
            const bool then =
                buffers[j].lower <= buffers[i].lower && buffers[i].lower < buffers[j].upper;
            live += then ? (int64_t)buffers[j].size_bytes : 0;
        }
        most = live > most ? live : most;
    }
    return most;
}

static void enumerate(enumeration *e, uint32_t placed, int64_t last)
{
    if (placed == (UINT32_C(1) << e->count) - 1) {
        int64_t peak = 0;
        for (size_t i = 0; i < e->count; i++) {
            const int64_t end = e->at[i] + (int64_t)buffers[i].size_bytes;
            peak = end > peak ? end : peak;
        }
        e->best = peak < e->best ? peak : e->best;
        return;
    }
    for (size_t i = 0; i < e->count && e->best > e->live; i++) {
        if ((placed >> i & 1) != 0) {
            continue;
        }
        int64_t at = 0;
        for (size_t j = 0; j < e->count; j++) {
            const int64_t end = e->at[j] + (int64_t)buffers[j].size_bytes;
            if ((placed >> j & 1) != 0 && meet(&buffers[i], &buffers[j]) && end > at) {
                at = end;
            }
        }
        const int64_t align = (int64_t)buffers[i].align_bytes;
        at = (at + align - 1) / align * align;
        if (at < last || at + (int64_t)buffers[i].size_bytes >= e->best) {
            continue;
        }
        e->at[i] = at;
        enumerate(e, placed | UINT32_C(1) << i, at);
    }
}

static umo_plan_options nodes_only(uint64_t nodes)
{
    umo_plan_options options;
    umo_plan_options_init(&options);
    options.time_limit_ns = 0;
    options.node_limit = nodes;
    return options;
}

static umo_plan_result plan(size_t count, const umo_plan_options *options)
{
    umo_plan_result result;
    umo_error error;
    assert_int_equal(umo_plan(buffers, count, options, offsets, &result, &error), UMO_OK);
    int64_t peak = -1;
    assert_int_equal(umo_plan_check(buffers, count, offsets, &peak, &error), UMO_OK);
    assert_int_equal(peak, result.peak_bytes);
    assert_true(result.bound_bytes <= peak && result.live_bytes <= result.bound_bytes);
    return result;
}

static void optimum_agrees(size_t given, unsigned turns, uint32_t aligns, unsigned *exhausted)
{
    uint32_t state = 5 + aligns;
    for (unsigned turn = 0; turn < turns; turn++) {
        random_buffers_test(buffers, given, 3 + turn % 3, 3, turn % 2 == 0 ? 6 : 100, aligns,
                            &state);
        const size_t count = aligns == 1 ? fill_test(buffers, given, 6) : given;
        enumeration e = {.count = count, .best = INT64_MAX, .live = naive_live(count)};
        enumerate(&e, 0, 0);
        umo_plan_options options = nodes_only(200000);
        const umo_plan_result result = plan(count, &options);
        assert_int_equal(naive_peak(buffers, count, offsets), result.peak_bytes);
        assert_int_equal(result.peak_bytes, e.best);
        assert_int_not_equal(result.proof, UMO_PLAN_OPEN);
        assert_int_equal(result.bound_bytes, e.best);
        *exhausted += result.proof == UMO_PLAN_EXHAUSTED ? 1 : 0;

        options.capacity_bytes = (uint64_t)e.best;
        assert_int_equal(plan(count, &options).peak_bytes, e.best);
        options.capacity_bytes = (uint64_t)e.best - 1;
        umo_plan_result none;
        if (options.capacity_bytes > 0) {
            assert_int_equal(umo_plan(buffers, count, &options, offsets, &none, NULL), UMO_E_LIMIT);
            assert_int_equal(none.proof, UMO_PLAN_INFEASIBLE);
            assert_true(none.bound_bytes <= e.best);
        }
    }
}

static void a_plan_of_few_buffers_is_the_enumerated_optimum(void **state)
{
    (void)state;
    unsigned exhausted = 0;
    for (size_t count = 1; count <= 7; count++) {
        optimum_agrees(count, count < 5 ? 20 : 240 / (unsigned)count * 5, 1, &exhausted);
    }
    assert_true(exhausted > 5); /* proofs beyond the bound were asked for too */
}

static void alignments_of_any_number_are_kept_at_the_optimum(void **state)
{
    (void)state;
    unsigned exhausted = 0;
    for (size_t count = 2; count <= 7; count++) {
        optimum_agrees(count, 40, 2, &exhausted);
        optimum_agrees(count, 40, 8, &exhausted);
    }
    assert_true(exhausted > 20);
}

static void one_alignment_for_all_costs_only_its_padding(void **state)
{
    (void)state;
    buffers[0] = (umo_plan_buffer){0, 9, 100, 64};
    buffers[1] = (umo_plan_buffer){1, 5, 1, 64};
    buffers[2] = (umo_plan_buffer){2, 8, 63, 64};
    const umo_plan_options options = nodes_only(1000);
    const umo_plan_result result = plan(3, &options);
    assert_int_equal(result.peak_bytes, 128 + 64 + 1); /* the shortest on top */
    assert_int_equal(result.proof, UMO_PLAN_AT_BOUND);
}

static void a_cut_rectangle_is_put_together_again(void **state)
{
    (void)state;
    uint32_t random = 11;
    for (unsigned turn = 0; turn < 12; turn++) {
        const size_t room = turn % 3 == 0 ? 120 : turn % 3 == 1 ? 400 : MANY;
        const size_t count = cut_test(buffers, room, 200000, 1 << 20, turn % 2 == 1, &random);
        assert_true(count > 100);
        umo_plan_options options = nodes_only(300000);
        options.seed = turn;
        const umo_plan_result result = plan(count, &options);
        assert_int_equal(result.peak_bytes, 1 << 20);
        assert_int_equal(result.proof, UMO_PLAN_AT_BOUND);
    }
}

static void the_search_alone_solves_what_is_not_cut(void **state)
{
    (void)state;
    /* A buffer less, and sizes a little smaller: nothing fits exactly any more. */
    uint32_t random = 3;
    for (unsigned turn = 0; turn < 4; turn++) {
        const size_t count = cut_test(buffers, 60, 3000, 100000, false, &random) - 1;
        for (size_t i = 0; i < count; i++) {
            buffers[i].size_bytes -= random_test(&random, (uint32_t)buffers[i].size_bytes / 20 + 1);
        }
        const umo_plan_options options = nodes_only(100000);
        const umo_plan_result result = plan(count, &options);
        assert_true((double)result.peak_bytes <= 1.02 * (double)result.live_bytes);
    }
}

static void random_plans_are_valid_and_no_longer_than_first_fit(void **state)
{
    (void)state;
    uint32_t random = 77;
    for (unsigned turn = 0; turn < 60; turn++) {
        const size_t count = 1 + random_test(&random, 150);
        random_buffers_test(buffers, count, 1 + random_test(&random, 60), 1 + turn,
                            1u << (1 + turn % 20), turn % 3 == 0 ? 70 : 1, &random);
        umo_plan_options options = nodes_only(20000);
        options.seed = turn;
        const umo_plan_result result = plan(count, &options);
        assert_int_equal(naive_peak(buffers, count, offsets), result.peak_bytes);
        int64_t first_fit = 0;
        for (size_t i = 0; i < count; i++) {
            int64_t at = 0;
            for (size_t j = 0; j < i; j++) { /* again from the start after each move */
                const int64_t end = others[j] + (int64_t)buffers[j].size_bytes;
                if (meet(&buffers[i], &buffers[j]) && at < end &&
                    others[j] < at + (int64_t)buffers[i].size_bytes) {
                    const int64_t align = (int64_t)buffers[i].align_bytes;
                    at = (end + align - 1) / align * align;
                    j = SIZE_MAX;
                }
            }
            others[i] = at;
            const int64_t end = at + (int64_t)buffers[i].size_bytes;
            first_fit = end > first_fit ? end : first_fit;
        }
        /* Alignments of all kinds at once are no case that it was made for. */
        assert_true(result.peak_bytes <= (turn % 3 == 0 ? first_fit + first_fit / 20 : first_fit));
    }
}

/* One that is not solved within the limits of these tests. */
static size_t hard_buffers(void)
{
    uint32_t random = 33;
    random_buffers_test(buffers, 160, 80, 30, 1000, 1, &random);
    return fill_test(buffers, 160, 110);
}

static void the_same_seed_and_node_limit_give_the_same_plan(void **state)
{
    (void)state;
    const size_t count = hard_buffers();
    umo_plan_options options = nodes_only(20000);
    options.seed = 4;
    const umo_plan_result first = plan(count, &options);
    memcpy(others, offsets, sizeof others);
    const umo_plan_result second = plan(count, &options);
    assert_memory_equal(offsets, others, count * sizeof *offsets);
    assert_int_equal(first.nodes, second.nodes);
}

static void a_plan_is_there_at_every_node_limit_and_gets_no_worse(void **state)
{
    (void)state;
    uint32_t random = 21;
    random_buffers_test(buffers, 40, 30, 30, 500, 1, &random);
    int64_t before = INT64_MAX;
    for (uint64_t nodes = 1; nodes <= 1500; nodes += nodes < 400 ? 1 : 23) {
        const umo_plan_options options = nodes_only(nodes);
        const umo_plan_result result = plan(40, &options);
        assert_true(result.peak_bytes <= before);
        before = result.peak_bytes;
    }
}

typedef struct watcher {
    unsigned calls;
    unsigned end_at;
    umo_plan_progress last;
} watcher;

static bool watch(const umo_plan_progress *progress, void *user)
{
    watcher *w = user;
    if (w->calls > 0 && w->last.peak_bytes >= 0) {
        assert_true(progress->peak_bytes >= 0 && progress->peak_bytes <= w->last.peak_bytes);
        assert_true(progress->bound_bytes >= w->last.bound_bytes);
    }
    w->last = *progress;
    return ++w->calls != w->end_at;
}

static void a_caller_can_end_it_and_keeps_the_best_plan(void **state)
{
    (void)state;
    const size_t count = hard_buffers();
    int64_t before = INT64_MAX;
    for (unsigned end_at = 1; end_at < 40; end_at += end_at) {
        watcher w = {.end_at = end_at};
        umo_plan_options options = nodes_only(UINT64_MAX);
        options.time_limit_ns = UINT64_C(20000000000); /* a test that fails ends too */
        options.progress = watch;
        options.user = &w;
        const umo_plan_result result = plan(count, &options);
        assert_true(result.interrupted && result.out_of_limit);
        assert_int_equal(w.calls, end_at);
        assert_true(result.peak_bytes <= before);
        before = result.peak_bytes;
    }
}

static void a_time_limit_ends_it(void **state)
{
    (void)state;
    const size_t count = hard_buffers();
    umo_plan_options options = nodes_only(0);
    options.time_limit_ns = 20000000;
    const umo_plan_result result = plan(count, &options);
    assert_true(result.out_of_limit && !result.interrupted);
    assert_true(result.time_ns >= options.time_limit_ns);
}

/* In steps, not by a clock: of the skyline, which makes the first plan of any part. */
static uint64_t skyline_work(const umo_plan_buffer *many, size_t count)
{
    const umo_plan_options options = nodes_only(1);
    const plan_taste taste = {.order = PLAN_ORDER_SIZE, .whole = true};
    plan_budget budget;
    plan_problem problem;
    umo_plan_budget_start(&budget, &options);
    assert_int_equal(umo_plan_problem_init(&problem, many, count, NULL), UMO_OK);
    for (size_t i = 0; i < problem.part_count; i++) {
        plan_part *part = &problem.parts[i];
        plan_skyline *skyline = umo_plan_skyline_create(part);
        assert_non_null(skyline);
        assert_true(umo_plan_skyline_run(skyline, part, &taste, &budget));
        assert_true(part->planned);
        umo_plan_skyline_destroy(skyline);
    }
    umo_plan_problem_finish(&problem);
    return budget.work;
}

static void first_plan_is_cheap(const umo_plan_buffer *many, size_t count)
{
    const uint64_t work = skyline_work(many, count);
    assert_true(work < 2000 * count);

    /* Ended before there is a plan: the first one is made, and no more. */
    int64_t *at = calloc(count, sizeof *at);
    assert_non_null(at);
    watcher w = {.end_at = 1};
    umo_plan_options options = nodes_only(UINT64_MAX);
    options.progress = watch;
    options.user = &w;
    umo_plan_result result;
    int64_t peak = -1;
    assert_int_equal(umo_plan(many, count, &options, at, &result, NULL), UMO_OK);
    assert_int_equal(umo_plan_check(many, count, at, &peak, NULL), UMO_OK);
    assert_true(peak == result.peak_bytes && result.interrupted);
    assert_int_equal(w.calls, 1);
    assert_true(result.nodes <= count);
    free(at);
}

static void a_first_plan_costs_little_whatever_the_lifetimes(void **state)
{
    (void)state;
    enum {
        COUNT = 20000,
        TIMES = 100000,
        APART = 1000
    };
    umo_plan_buffer *many = calloc(COUNT, sizeof *many);
    assert_non_null(many);
    /* Long ones: a valley has thousands of begins over it that do not end in it. */
    uint32_t random = 9;
    random_buffers_test(many, COUNT, TIMES, TIMES / 3, 1 << 20, 1, &random);
    first_plan_is_cheap(many, COUNT);
    /* Many that begin at once, each with its own end, and nothing goes on from most ends. */
    for (uint32_t i = 0; i < COUNT; i++) {
        const int64_t hub = APART * (int64_t)random_test(&random, COUNT / APART + 1);
        const int64_t beside = i % 2 == 1 ? 1 + random_test(&random, APART) : 0;
        const int64_t length = random_test(&random, APART) + (i % 2 == 1 ? APART : 1);
        many[i] = (umo_plan_buffer){hub + beside, hub + beside + length,
                                    1 + random_test(&random, 1 << 20), 1};
    }
    first_plan_is_cheap(many, COUNT);
    free(many);
}

static void a_capacity_ends_the_search_and_one_not_reached_is_told(void **state)
{
    (void)state;
    const size_t count = hard_buffers();
    umo_plan_options options = nodes_only(3000);
    const umo_plan_result best = plan(count, &options);
    options.capacity_bytes = (uint64_t)(best.peak_bytes + best.peak_bytes / 2);
    const umo_plan_result any = plan(count, &options);
    assert_true(any.peak_bytes <= (int64_t)options.capacity_bytes && any.nodes < best.nodes);

    options.capacity_bytes = (uint64_t)best.live_bytes - 1;
    umo_plan_result result;
    umo_error error;
    assert_int_equal(umo_plan(buffers, count, &options, offsets, &result, &error), UMO_E_LIMIT);
    assert_int_equal(result.proof, UMO_PLAN_INFEASIBLE);
    assert_int_equal(result.peak_bytes, -1);
    char words[32];
    (void)snprintf(words, sizeof words, "%lld", (long long)best.live_bytes);
    assert_non_null(strstr(error.text, words)); /* the bound is named */

    assert_true(best.peak_bytes > best.live_bytes); /* else this asks for nothing */
    options.capacity_bytes = (uint64_t)best.live_bytes;
    memset(offsets, 0xff, sizeof offsets);
    const umo_status status = umo_plan(buffers, count, &options, offsets, &result, &error);
    assert_int_equal(status, UMO_E_TIMEOUT);
    assert_int_equal(naive_peak(buffers, count, offsets), result.peak_bytes); /* the best one */
}

static void parts_of_time_share_a_bottom_and_nothing_else(void **state)
{
    (void)state;
    /* A buffer for all time below three phases, one of which has its own for all of it. */
    const umo_plan_buffer phases[] = {{0, 30, 1000, 1}, {0, 10, 7, 1},  {0, 5, 3, 1},
                                      {5, 10, 3, 1},    {10, 20, 9, 1}, {20, 30, 1, 1},
                                      {12, 14, 4, 1},   {15, 19, 4, 1}};
    memcpy(buffers, phases, sizeof phases);
    const umo_plan_options options = nodes_only(100);
    const umo_plan_result result = plan(8, &options);
    assert_int_equal(result.peak_bytes, 1013);
    assert_int_equal(result.proof, UMO_PLAN_AT_BOUND);
    assert_int_equal(result.nodes, 0); /* nothing was searched: all fell apart */
}

static void lifetimes_and_sizes_reach_the_ends_of_their_types(void **state)
{
    (void)state;
    const umo_plan_options options = nodes_only(1000);
    buffers[0] = (umo_plan_buffer){INT64_MIN, INT64_MAX, INT64_MAX, 0};
    assert_int_equal(plan(1, &options).peak_bytes, INT64_MAX);
    buffers[0].align_bytes = INT64_MAX;
    assert_int_equal(plan(1, &options).peak_bytes, INT64_MAX);
    buffers[0] = (umo_plan_buffer){INT64_MIN, 0, INT64_MAX, 1};
    buffers[1] = (umo_plan_buffer){0, INT64_MAX, INT64_MAX, 64};
    assert_int_equal(plan(2, &options).peak_bytes, INT64_MAX);
    /* Halves that meet fit exactly; one byte more does not. */
    buffers[0] = (umo_plan_buffer){0, 2, INT64_MAX / 2, 1};
    buffers[1] = (umo_plan_buffer){1, 3, INT64_MAX / 2 + 1, 1};
    assert_int_equal(plan(2, &options).peak_bytes, INT64_MAX);
    buffers[1].size_bytes++;
    umo_plan_result result;
    umo_error error;
    assert_int_equal(umo_plan(buffers, 2, &options, offsets, &result, &error), UMO_E_LIMIT);
    /* An alignment that leaves no room for the second. */
    buffers[0] = (umo_plan_buffer){0, 2, 1, INT64_MAX};
    buffers[1] = (umo_plan_buffer){1, 3, 1, INT64_MAX};
    assert_int_equal(umo_plan(buffers, 2, &options, offsets, &result, &error), UMO_E_LIMIT);
    assert_int_equal(plan(0, &options).peak_bytes, 0);
}

static void large_sizes_are_planned_as_well_as_small_ones(void **state)
{
    (void)state;
    uint32_t random = 41;
    const size_t count = cut_test(buffers, 80, 1000, 1 << 15, false, &random);
    for (size_t i = 0; i < count; i++) {
        buffers[i].size_bytes <<= 47; /* of 2^62 together */
    }
    const umo_plan_options options = nodes_only(100000);
    assert_int_equal(plan(count, &options).peak_bytes, INT64_C(1) << 62);
}

static void wrong_buffers_are_named(void **state)
{
    (void)state;
    static const struct {
        umo_plan_buffer buffer;
        const char *words;
    } wrong[] = {
        {{5, 5, 1, 1}, "buffer 1: its lifetime ends at 5"},
        {{5, 4, 1, 1}, "not after its begin, 5"},
        {{0, 1, 0, 1}, "buffer 1: size 0"},
        {{0, 1, UINT64_C(1) << 63, 1}, "buffer 1: size 9223372036854775808"},
        {{0, 1, 1, UINT64_MAX}, "buffer 1: alignment"},
    };
    buffers[0] = (umo_plan_buffer){0, 1, 1, 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        umo_plan_result result;
        umo_error error;
        buffers[1] = wrong[i].buffer;
        assert_int_equal(umo_plan(buffers, 2, NULL, offsets, &result, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, wrong[i].words));
        const int64_t zeros[2] = {0, 0};
        assert_int_equal(umo_plan_check(buffers, 2, zeros, NULL, NULL), UMO_E_INVAL);
    }
    umo_plan_options options = nodes_only(1);
    options.capacity_bytes = UINT64_C(1) << 63;
    umo_plan_result result;
    assert_int_equal(umo_plan(buffers, 1, &options, offsets, &result, NULL), UMO_E_INVAL);
    assert_int_equal(
        umo_plan(buffers, (size_t)UMO_PLAN_BUFFERS_MAX + 1, NULL, offsets, &result, NULL),
        UMO_E_INVAL);
}

/* The sweep, which has to find its neighbours in a set, against all pairs. */
static void the_check_agrees_with_looking_at_all_pairs(void **state)
{
    (void)state;
    uint32_t random = 55;
    unsigned valid = 0;
    for (unsigned turn = 0; turn < 3000; turn++) {
        const size_t count = 1 + random_test(&random, turn % 50 == 0 ? 300 : 7);
        random_buffers_test(buffers, count, 12, 12, 6, turn % 2 == 0 ? 1 : 3, &random);
        const umo_plan_options options = nodes_only(1);
        (void)plan(count, &options);
        if (turn % 4 != 0) { /* a little beside what is right */
            offsets[random_test(&random, (uint32_t)count)] += (int64_t)random_test(&random, 5) - 2;
        }
        const int64_t naive = naive_peak(buffers, count, offsets);
        int64_t peak = -1;
        const umo_status status = umo_plan_check(buffers, count, offsets, &peak, NULL);
        assert_int_equal(status, naive < 0 ? UMO_E_INVAL : UMO_OK);
        assert_int_equal(peak, naive < 0 ? -1 : naive);
        valid += naive >= 0 ? 1 : 0;
    }
    assert_in_range(valid, 800, 2900);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_of_few_buffers_is_the_enumerated_optimum),
        cmocka_unit_test(alignments_of_any_number_are_kept_at_the_optimum),
        cmocka_unit_test(one_alignment_for_all_costs_only_its_padding),
        cmocka_unit_test(a_cut_rectangle_is_put_together_again),
        cmocka_unit_test(the_search_alone_solves_what_is_not_cut),
        cmocka_unit_test(random_plans_are_valid_and_no_longer_than_first_fit),
        cmocka_unit_test(the_same_seed_and_node_limit_give_the_same_plan),
        cmocka_unit_test(a_plan_is_there_at_every_node_limit_and_gets_no_worse),
        cmocka_unit_test(a_caller_can_end_it_and_keeps_the_best_plan),
        cmocka_unit_test(a_time_limit_ends_it),
        cmocka_unit_test(a_first_plan_costs_little_whatever_the_lifetimes),
        cmocka_unit_test(a_capacity_ends_the_search_and_one_not_reached_is_told),
        cmocka_unit_test(parts_of_time_share_a_bottom_and_nothing_else),
        cmocka_unit_test(lifetimes_and_sizes_reach_the_ends_of_their_types),
        cmocka_unit_test(large_sizes_are_planned_as_well_as_small_ones),
        cmocka_unit_test(wrong_buffers_are_named),
        cmocka_unit_test(the_check_agrees_with_looking_at_all_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
