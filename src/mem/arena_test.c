/*
 * Arenas: what is handed out does not overlap, a warm request takes nothing from the pool, what was
 * too much goes back, and memory that is out leaves what was handed out alone.
 */
#include "mem/arena_rig_test.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static unsigned char *alloc(const rig *r, size_t size_bytes, size_t align_bytes)
{
    void *data = NULL;
    assert_int_equal(umo_arena_alloc(r->arena, size_bytes, align_bytes, &data), UMO_OK);
    assert_int_equal((uintptr_t)data % align_bytes, 0);
    return data;
}

static void bad_input_is_refused(void **state)
{
    (void)state;
    rig r = rig_open(0, 0);
    void *data = NULL;
    assert_int_equal(umo_arena_alloc(r.arena, 0, 8, &data), UMO_E_INVAL);
    assert_int_equal(umo_arena_alloc(r.arena, 8, 0, &data), UMO_E_INVAL);
    assert_int_equal(umo_arena_alloc(r.arena, 8, 3, &data), UMO_E_INVAL);
    assert_int_equal(umo_arena_alloc(r.arena, 8, 8192, &data), UMO_E_INVAL);
    assert_int_equal(umo_arena_alloc(r.arena, SIZE_MAX, 64, &data), UMO_E_INVAL);
    assert_int_equal(umo_arena_alloc(r.arena, SIZE_MAX / 2, 64, &data), UMO_E_INVAL);
    assert_null(data);
    umo_arena *arena = NULL;
    const umo_arena_options none = {0};
    assert_int_equal(umo_arena_create(&none, &arena, NULL), UMO_E_INVAL);
    umo_pool *pool = NULL;
    const umo_pool_options apart = {.device = r.device, .scope = r.scope, .mode = UMO_PRIVATE};
    assert_int_equal(umo_pool_create(&apart, &pool, NULL), UMO_OK);
    const umo_arena_options device = {.pool = pool};
    assert_int_equal(umo_arena_create(&device, &arena, NULL), UMO_E_UNSUPPORTED);
    assert_null(arena);
    umo_pool_destroy(pool);
    umo_arena_destroy(NULL);
    rig_close(&r);
}

static void what_is_handed_out_does_not_overlap(void **state)
{
    (void)state;
    enum {
        COUNT = 400
    };
    rig r = rig_open(1000, 0);
    unsigned seed = 1;
    for (int request = 0; request < 5; request++) {
        unsigned char *data[COUNT];
        size_t sizes[COUNT];
        for (size_t i = 0; i < COUNT; i++) {
            sizes[i] = 1 + (size_t)rand_r(&seed) % 3000;
            data[i] = alloc(&r, sizes[i], (size_t)1 << (rand_r(&seed) % 13));
            memset(data[i], (int)(i % 251), sizes[i]);
        }
        for (size_t i = 0; i < COUNT; i++) {
            for (size_t k = 0; k < sizes[i]; k++) {
                assert_int_equal(data[i][k], i % 251);
            }
        }
        umo_arena_reset(r.arena);
    }
    rig_close(&r);
}

static void a_warm_request_takes_nothing_from_the_pool(void **state)
{
    (void)state;
    rig r = rig_open(0, 0);
    for (int request = 0; request < 20; request++) {
        for (int i = 0; i < 100; i++) {
            (void)alloc(&r, 10000, 64);
        }
        if (request > 0) {
            assert_int_equal(stats(&r).chunk_count, 1);
        }
        umo_arena_reset(r.arena);
        assert_int_equal(stats(&r).used_bytes, 0);
    }
    umo_pool_stats pool;
    umo_pool_read(r.pool, &pool);
    /* The chunks of the first request, and the one that took their place. */
    assert_true(pool.hits + pool.misses <= 7);
    assert_in_range(stats(&r).peak_bytes, 1000000, 1010000);
    assert_true(stats(&r).held_bytes < 3 * 1000000);
    rig_close(&r);
}

static void what_was_too_much_goes_back(void **state)
{
    (void)state;
    rig r = rig_open(0, 0);
    (void)alloc(&r, (size_t)8 << 20, 64);
    umo_arena_reset(r.arena);
    for (int request = 0; request < 16; request++) {
        (void)alloc(&r, 50000, 64);
        umo_arena_reset(r.arena);
    }
    (void)alloc(&r, 50000, 64);
    assert_in_range(stats(&r).held_bytes, 50000, 100000);
    rig_close(&r);
}

static void memory_that_is_out_leaves_the_rest_alone(void **state)
{
    (void)state;
    rig r = rig_open(4096, (uint64_t)1 << 20);
    unsigned char *first = alloc(&r, 1000, 64);
    memset(first, 7, 1000);
    void *data = NULL;
    assert_int_equal(umo_arena_alloc(r.arena, (size_t)2 << 20, 64, &data), UMO_E_LIMIT);
    assert_null(data);
    /* What remains of the budget can still be had, to the last pages. */
    size_t got = 0;
    while (umo_arena_alloc(r.arena, 10000, 64, &data) == UMO_OK) {
        got += 10000;
        assert_true(got < (size_t)1 << 20);
    }
    assert_true(got > (size_t)900 << 10);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(first[i], 7);
    }
    umo_arena_reset(r.arena);
    (void)alloc(&r, 1000, 64);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(what_is_handed_out_does_not_overlap),
        cmocka_unit_test(a_warm_request_takes_nothing_from_the_pool),
        cmocka_unit_test(what_was_too_much_goes_back),
        cmocka_unit_test(memory_that_is_out_leaves_the_rest_alone),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
