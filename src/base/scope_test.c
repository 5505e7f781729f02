/*
 * Scopes: limits along the way to the root, high-water marks, and counting from many threads.
 */
#include "base/scope.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static umo_scope *scope_make(umo_scope *parent, const char *name, uint64_t limit_bytes)
{
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(parent, name, limit_bytes, &scope, NULL), UMO_OK);
    return scope;
}

static umo_counters read(const umo_scope *scope)
{
    umo_counters counters;
    memset(&counters, 0xff, sizeof counters);
    umo_scope_read(scope, &counters);
    return counters;
}

static void a_charge_counts_on_every_level(void **state)
{
    (void)state;
    umo_scope *root = scope_make(NULL, "root", 0);
    umo_scope *middle = scope_make(root, "middle", 0);
    umo_scope *leaf = scope_make(middle, "leaf", 0);
    assert_true(umo_scope_charge(leaf, 100));
    assert_true(umo_scope_charge(middle, 10));
    assert_int_equal(read(leaf).live_bytes, 100);
    assert_int_equal(read(middle).live_bytes, 110);
    assert_int_equal(read(root).live_bytes, 110);
    umo_scope_uncharge(leaf, 100);
    assert_int_equal(read(leaf).live_bytes, 0);
    assert_int_equal(read(root).live_bytes, 10);
    assert_int_equal(read(root).peak_bytes, 110);
    assert_int_equal(read(leaf).peak_bytes, 100);
    umo_scope_uncharge(middle, 10);
    umo_scope_destroy(leaf);
    umo_scope_destroy(middle);
    umo_scope_destroy(root);
}

static void a_limit_is_reached_exactly(void **state)
{
    (void)state;
    umo_scope *scope = scope_make(NULL, "limited", 100);
    assert_true(umo_scope_charge(scope, 100));
    assert_false(umo_scope_charge(scope, 1));
    umo_scope_uncharge(scope, 1);
    assert_true(umo_scope_charge(scope, 1));
    assert_int_equal(read(scope).live_bytes, 100);
    umo_scope_destroy(scope);
}

static void a_refused_charge_leaves_no_trace(void **state)
{
    (void)state;
    umo_scope *root = scope_make(NULL, "root", 50);
    umo_scope *leaf = scope_make(root, "leaf", 0);
    assert_true(umo_scope_charge(leaf, 20));
    assert_false(umo_scope_charge(leaf, 1000));
    assert_false(umo_scope_charge(leaf, UINT64_MAX));
    assert_false(umo_scope_charge(leaf, 31));
    assert_int_equal(read(leaf).live_bytes, 20);
    assert_int_equal(read(root).live_bytes, 20);
    /* A high-water mark of bytes that were never there would be a lie. */
    assert_int_equal(read(leaf).peak_bytes, 20);
    assert_int_equal(read(root).peak_bytes, 20);
    umo_scope_uncharge(leaf, 20);
    umo_scope_destroy(leaf);
    umo_scope_destroy(root);
}

static void no_limit_still_ends_at_64_bits(void **state)
{
    (void)state;
    umo_scope *scope = scope_make(NULL, "unlimited", 0);
    assert_true(umo_scope_charge(scope, UINT64_MAX - 1));
    assert_true(umo_scope_charge(scope, 1));
    assert_false(umo_scope_charge(scope, 1));
    umo_scope_destroy(scope);
}

static void a_scope_lives_as_long_as_its_children(void **state)
{
    (void)state;
    umo_scope *root = scope_make(NULL, "root", 0);
    umo_scope *leaf = scope_make(root, "leaf", 0);
    umo_scope_destroy(root);
    umo_scope_count_transfer(leaf, UMO_DIRECTION_IN, true, 1);
    umo_scope_acquire(leaf);
    umo_scope_destroy(leaf);
    assert_string_equal(umo_scope_name(leaf), "leaf");
    umo_scope_destroy(leaf);
    umo_scope_destroy(NULL);
}

static void a_long_name_is_cut(void **state)
{
    (void)state;
    char name[200];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    umo_scope *scope = scope_make(NULL, name, 0);
    assert_int_equal(strlen(umo_scope_name(scope)), 63);
    umo_scope_destroy(scope);
}

static void every_counter_has_its_own_place(void **state)
{
    (void)state;
    umo_scope *root = scope_make(NULL, "root", 0);
    umo_scope *leaf = scope_make(root, "leaf", 0);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        uint64_t base = (uint64_t)d * 1000;
        umo_scope_count_transfer(leaf, (umo_direction)d, true, base + 1);
        umo_scope_count_transfer(leaf, (umo_direction)d, false, base + 2);
        umo_scope_count_copy_avoided(leaf, (umo_direction)d, base + 3);
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            umo_scope_count_copy(leaf, (umo_direction)d, (umo_reason)r, base + 10 + (uint64_t)r);
        }
    }
    umo_scope_count_import(leaf, false, 4);
    umo_scope_count_import(leaf, true, 5);
    const umo_scope *levels[] = {leaf, root};
    for (size_t level = 0; level < 2; level++) {
        umo_counters c = read(levels[level]);
        for (int d = 0; d < UMO_DIRECTIONS; d++) {
            uint64_t base = (uint64_t)d * 1000;
            assert_int_equal(c.transfer_performed[d].bytes, base + 1);
            assert_int_equal(c.transfer_performed[d].events, 1);
            assert_int_equal(c.transfer_eliminated[d].bytes, base + 2);
            assert_int_equal(c.copy_avoided[d].bytes, base + 3);
            for (int r = 0; r < UMO_REASON_COUNT; r++) {
                assert_int_equal(c.copy_performed[d][r].bytes, base + 10 + (uint64_t)r);
                assert_int_equal(c.copy_performed[d][r].events, 1);
            }
        }
        assert_int_equal(c.imported.bytes, 4);
        assert_int_equal(c.import_hits.bytes, 5);
    }
    umo_scope_destroy(leaf);
    umo_scope_destroy(root);
}

enum {
    THREADS = 4,
    ROUNDS = 20000,
    LIMIT = 64
};

typedef struct counting {
    umo_scope *scope;
    uint64_t granted;
} counting;

static void *counting_run(void *argument)
{
    counting *c = argument;
    for (int i = 0; i < ROUNDS; i++) {
        umo_scope_count_copy(c->scope, UMO_DIRECTION_OUT, UMO_REASON_SCATTERED, 3);
        umo_scope_count_buffer(c->scope, 1);
        if (umo_scope_charge(c->scope, 40)) {
            c->granted++;
            umo_scope_uncharge(c->scope, 40);
        }
        umo_scope_count_buffer(c->scope, -1);
    }
    return NULL;
}

/* Two charges of 40 never fit together: the mark shows whether they ever were. */
static void threads_lose_no_count_and_pass_no_limit(void **state)
{
    (void)state;
    umo_scope *root = scope_make(NULL, "root", LIMIT);
    pthread_t threads[THREADS];
    counting counts[THREADS];
    for (int i = 0; i < THREADS; i++) {
        counts[i] = (counting){.scope = scope_make(root, "leaf", 0)};
        assert_int_equal(pthread_create(&threads[i], NULL, counting_run, &counts[i]), 0);
    }
    uint64_t granted = 0;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        umo_counters c = read(counts[i].scope);
        assert_int_equal(c.live_bytes, 0);
        granted += counts[i].granted;
        umo_scope_destroy(counts[i].scope);
    }
    umo_counters c = read(root);
    assert_int_equal(c.copy_performed[UMO_DIRECTION_OUT][UMO_REASON_SCATTERED].events,
                     THREADS * ROUNDS);
    assert_int_equal(c.copy_performed[UMO_DIRECTION_OUT][UMO_REASON_SCATTERED].bytes,
                     3 * THREADS * ROUNDS);
    assert_int_equal(c.live_buffers, 0);
    assert_int_equal(c.live_bytes, 0);
    assert_true(granted > 0);
    assert_int_equal(c.peak_bytes, 40);
    umo_scope_destroy(root);
}

static void reading_again_finds_every_copy(void **state)
{
    (void)state;
    umo_scope *root = NULL;
    umo_scope *scope = NULL;
    umo_counters counters = {0};
    uint64_t copies = 0;
    assert_int_equal(umo_scope_create(NULL, "root", 0, &root, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(root, "model", 0, &scope, NULL), UMO_OK);
    umo_scope_count_copy_avoided(scope, UMO_DIRECTION_IN, 3);
    assert_false(umo_scope_read_again(root, &copies, &counters));
    assert_int_equal(counters.copy_avoided[UMO_DIRECTION_IN].bytes, 3);
    umo_scope_count_copy(scope, UMO_DIRECTION_OUT, UMO_REASON_OVERLAP, 5);
    assert_true(umo_scope_read_again(root, &copies, &counters));
    assert_int_equal(counters.copy_performed[UMO_DIRECTION_OUT][UMO_REASON_OVERLAP].bytes, 5);
    assert_false(umo_scope_read_again(root, &copies, &counters));
    assert_int_equal(counters.copy_performed[UMO_DIRECTION_OUT][UMO_REASON_OVERLAP].bytes, 5);
    umo_scope_destroy(scope);
    umo_scope_destroy(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_again_finds_every_copy),
        cmocka_unit_test(a_charge_counts_on_every_level),
        cmocka_unit_test(a_limit_is_reached_exactly),
        cmocka_unit_test(a_refused_charge_leaves_no_trace),
        cmocka_unit_test(no_limit_still_ends_at_64_bits),
        cmocka_unit_test(a_scope_lives_as_long_as_its_children),
        cmocka_unit_test(a_long_name_is_cut),
        cmocka_unit_test(every_counter_has_its_own_place),
        cmocka_unit_test(threads_lose_no_count_and_pass_no_limit),
    };
    return cmocka_run_group_tests_name("scope", tests, NULL, NULL);
}
