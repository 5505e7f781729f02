/*
 * Plans: no two items share a byte while both live, nothing is longer than the sum, and what is
 * planned is near the bound below which nothing can be: the most that lives at one step.
 */
#include "plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEPS 16u

static size_t up(size_t bytes, size_t align_bytes)
{
    return (bytes + align_bytes - 1) / align_bytes * align_bytes;
}

/* The most bytes, in whole steps of the alignment, that live at one step. */
static size_t bound(const umo_plan_item *items, size_t count, size_t align_bytes)
{
    size_t most = 0;
    for (size_t step = 0; step < STEPS; step++) {
        size_t sum = 0;
        for (size_t i = 0; i < count; i++) {
            if (items[i].first <= step && step <= items[i].last) {
                sum += up(items[i].size_bytes, align_bytes);
            }
        }
        most = most > sum ? most : sum;
    }
    return most;
}

/* What holds for every plan. */
static void plan_check(const umo_plan_item *items, size_t count, size_t align_bytes, size_t bytes)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const umo_plan_item *a = &items[i];
        sum += up(a->size_bytes, align_bytes);
        assert_int_equal(a->offset_bytes % align_bytes, 0);
        assert_true(a->offset_bytes <= bytes && a->size_bytes <= bytes - a->offset_bytes);
        for (size_t j = 0; j < i; j++) {
            const umo_plan_item *b = &items[j];
            const bool meet = a->first <= b->last && b->first <= a->last;
            const bool apart = a->size_bytes == 0 || b->size_bytes == 0 ||
                               a->offset_bytes >= b->offset_bytes + b->size_bytes ||
                               b->offset_bytes >= a->offset_bytes + a->size_bytes;
            assert_true(!meet || apart);
        }
    }
    assert_true(bytes <= sum);
    assert_true(up(bytes, align_bytes) >= bound(items, count, align_bytes));
}

static size_t pack(umo_plan_item *items, size_t count, size_t align_bytes)
{
    size_t bytes = SIZE_MAX;
    assert_true(umo_plan_pack(items, count, align_bytes, &bytes));
    plan_check(items, count, align_bytes, bytes);
    return bytes;
}

static void what_never_meets_shares_its_bytes(void **unused)
{
    (void)unused;
    umo_plan_item items[] = {{100, 0, 1, 7}, {100, 2, 3, 7}, {50, 4, 4, 7}};
    assert_int_equal(pack(items, 3, 64), 100);
    assert_int_equal(items[0].offset_bytes, 0);
    assert_int_equal(items[1].offset_bytes, 0);
    assert_int_equal(items[2].offset_bytes, 0);
}

static void what_meets_at_one_step_lies_apart(void **unused)
{
    (void)unused;
    /* The kernel at step 1 reads one and writes the other. */
    umo_plan_item items[] = {{100, 0, 1, 0}, {200, 1, 2, 0}};
    assert_int_equal(pack(items, 2, 64), 356);
    assert_int_equal(items[1].offset_bytes, 0);
    assert_int_equal(items[0].offset_bytes, 256);
}

static void an_item_takes_the_tightest_gap(void **unused)
{
    (void)unused;
    /* Between the two long ones that live throughout, the two that live for a while leave gaps of
     * 512 and 256 bytes at step 3; the last fits both. */
    umo_plan_item items[] = {{1024, 0, 3, 0}, {512, 0, 2, 0}, {448, 0, 3, 0},
                             {256, 0, 2, 0},  {192, 0, 3, 0}, {128, 3, 3, 0}};
    assert_int_equal(pack(items, 6, 64), 1024 + 512 + 448 + 256 + 192);
    assert_int_equal(items[5].offset_bytes, 1024 + 512 + 448);
}

static void items_without_bytes_take_no_room(void **unused)
{
    (void)unused;
    umo_plan_item items[] = {{0, 0, 9, 5}, {64, 0, 9, 5}, {0, 3, 4, 5}};
    assert_int_equal(pack(items, 3, 64), 64);
    assert_int_equal(items[0].offset_bytes, 0);
    assert_int_equal(items[2].offset_bytes, 0);
    assert_int_equal(pack(items, 0, 64), 0);
    assert_int_equal(pack(items, 1, 64), 0);
}

static void what_no_memory_holds_is_refused(void **unused)
{
    (void)unused;
    size_t bytes = 5;
    umo_plan_item longs[] = {{SIZE_MAX - 100, 0, 1, 0}, {200, 1, 2, 0}};
    assert_false(umo_plan_pack(longs, 2, 64, &bytes));
    umo_plan_item rounded[] = {{SIZE_MAX - 10, 0, 1, 0}, {1, 1, 2, 0}};
    assert_false(umo_plan_pack(rounded, 2, 4096, &bytes));
    umo_plan_item apart[] = {{SIZE_MAX - 100, 0, 1, 0}, {200, 2, 2, 0}};
    assert_true(umo_plan_pack(apart, 2, 64, &bytes));
    assert_true(bytes == SIZE_MAX - 100);
}

static void sizes_met_again_keep_their_places(void **unused)
{
    (void)unused;
    umo_plan_kept kept = {0};
    size_t bytes[2];
    for (size_t turn = 0; turn < 3 * UMO_PLAN_LAYOUTS; turn++) {
        /* As many different ones as are kept, then more. */
        const size_t k = turn % (turn < 2 * UMO_PLAN_LAYOUTS ? UMO_PLAN_LAYOUTS : 20);
        umo_plan_item items[] = {{64 + 64 * k, 0, 1, 0}, {128, 1, 2, 0}, {64, 2, 3, 0}};
        assert_true(umo_plan_pack_kept(&kept, items, 3, 64, &bytes[0]));
        plan_check(items, 3, 64, bytes[0]);
        assert_true(umo_plan_pack_kept(&kept, items, 3, 64, &bytes[1]));
        plan_check(items, 3, 64, bytes[1]);
        assert_int_equal(bytes[0], bytes[1]);
        assert_int_equal(bytes[0], 192 + 64 * k);
    }
    assert_int_equal(kept.searches, 0); /* packed greedily, they are at the bound */
    umo_plan_item longs[] = {{SIZE_MAX - 100, 0, 1, 0}, {200, 1, 2, 0}};
    assert_false(umo_plan_pack_kept(&kept, longs, 2, 64, &bytes[0]));
}

static void what_greed_makes_too_long_is_planned(void **unused)
{
    (void)unused;
    unsigned seed = 7;
    size_t greedy = 0;
    size_t planned = 0;
    size_t least = 0;
    for (unsigned round = 0; round < 40; round++) {
        umo_plan_kept kept = {0};
        umo_plan_item items[24];
        for (size_t i = 0; i < 24; i++) {
            const size_t first = (size_t)rand_r(&seed) % (STEPS - 5);
            items[i] = (umo_plan_item){256 * (1 + (size_t)rand_r(&seed) % 40), first,
                                       first + (size_t)rand_r(&seed) % 5, 0};
        }
        greedy += pack(items, 24, 256);
        size_t bytes = 0;
        assert_true(umo_plan_pack_kept(&kept, items, 24, 256, &bytes));
        plan_check(items, 24, 256, bytes);
        planned += bytes;
        least += bound(items, 24, 256);
        assert_true(kept.searches <= 1);
    }
    assert_true(planned < greedy);
    assert_true((double)planned < 1.01 * (double)least);
}

/* The usual form: each kernel writes what the next one reads. */
static void chains_stay_near_what_lives_at_once(void **unused)
{
    (void)unused;
    unsigned seed = 3;
    double worst = 1;
    double sum = 0;
    const int rounds = 2000;
    for (int round = 0; round < rounds; round++) {
        umo_plan_item items[STEPS - 1];
        const size_t count = 2 + (size_t)rand_r(&seed) % (STEPS - 2);
        for (size_t i = 0; i < count; i++) {
            items[i] = (umo_plan_item){64 * (1 + (size_t)rand_r(&seed) % 1000), i, i + 1, 0};
        }
        const double ratio = (double)pack(items, count, 64) / (double)bound(items, count, 64);
        worst = worst > ratio ? worst : ratio;
        sum += ratio;
    }
    assert_true(sum / rounds < 1.06);
    assert_true(worst < 1.5);
}

static void random_lifetimes_stay_near_what_lives_at_once(void **unused)
{
    (void)unused;
    unsigned seed = 4;
    double worst = 1;
    double sum = 0;
    const int rounds = 3000;
    for (int round = 0; round < rounds; round++) {
        umo_plan_item items[UMO_PLAN_ITEMS_MAX];
        const size_t count = 1 + (size_t)rand_r(&seed) % UMO_PLAN_ITEMS_MAX;
        const size_t align_bytes = (size_t)1 << (rand_r(&seed) % 13);
        const size_t most = (size_t)1 << (rand_r(&seed) % 20);
        for (size_t i = 0; i < count; i++) {
            const size_t first = (size_t)rand_r(&seed) % STEPS;
            items[i] = (umo_plan_item){(size_t)rand_r(&seed) % (most + 1), first,
                                       first + (size_t)rand_r(&seed) % (STEPS - first), 0};
        }
        const size_t least = bound(items, count, align_bytes);
        const size_t bytes = pack(items, count, align_bytes);
        const double ratio = least > 0 ? (double)up(bytes, align_bytes) / (double)least : 1;
        worst = worst > ratio ? worst : ratio;
        sum += ratio;
    }
    assert_true(sum / rounds < 1.03);
    assert_true(worst < 1.5);
}

/* For few items every order is tried: placing them one by one, each as low as it can be, finds the
 * best plan that there is. */
static size_t best_of_orders(umo_plan_item *items, size_t count, size_t placed, size_t end,
                             size_t best)
{
    if (placed == count) {
        return best < end ? best : end;
    }
    for (size_t i = placed; i < count; i++) {
        const umo_plan_item kept = items[i];
        items[i] = items[placed];
        items[placed] = kept;
        size_t offset = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (size_t j = 0; j < placed; j++) {
                const umo_plan_item *other = &items[j];
                if (kept.first <= other->last && other->first <= kept.last &&
                    offset < other->offset_bytes + other->size_bytes &&
                    other->offset_bytes < offset + kept.size_bytes) {
                    offset = other->offset_bytes + other->size_bytes;
                    moved = true;
                }
            }
        }
        items[placed].offset_bytes = offset;
        const size_t top = offset + kept.size_bytes;
        best = best_of_orders(items, count, placed + 1, end > top ? end : top, best);
        items[placed] = items[i];
        items[i] = kept;
    }
    return best;
}

static void plans_of_few_items_are_mostly_the_best_there_are(void **unused)
{
    (void)unused;
    unsigned seed = 5;
    int best = 0;
    const int rounds = 400;
    for (int round = 0; round < rounds; round++) {
        umo_plan_item items[6];
        for (size_t i = 0; i < 6; i++) {
            const size_t first = (size_t)rand_r(&seed) % 6;
            items[i] = (umo_plan_item){1 + (size_t)rand_r(&seed) % 40, first,
                                       first + (size_t)rand_r(&seed) % 3, 0};
        }
        const size_t bytes = pack(items, 6, 1);
        const size_t least = best_of_orders(items, 6, 0, 0, SIZE_MAX);
        assert_true(bytes >= least);
        assert_true(bytes <= least + least / 2);
        best += bytes == least;
    }
    assert_true(best > rounds * 9 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_never_meets_shares_its_bytes),
        cmocka_unit_test(what_meets_at_one_step_lies_apart),
        cmocka_unit_test(an_item_takes_the_tightest_gap),
        cmocka_unit_test(items_without_bytes_take_no_room),
        cmocka_unit_test(what_no_memory_holds_is_refused),
        cmocka_unit_test(sizes_met_again_keep_their_places),
        cmocka_unit_test(what_greed_makes_too_long_is_planned),
        cmocka_unit_test(chains_stay_near_what_lives_at_once),
        cmocka_unit_test(random_lifetimes_stay_near_what_lives_at_once),
        cmocka_unit_test(plans_of_few_items_are_mostly_the_best_there_are),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
