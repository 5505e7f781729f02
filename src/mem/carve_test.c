/*
 * Carved memory from inside: which blocks a thread's cache holds. Whether a thread meets another
 * one at the lock is made certain here, by holding it.
 */
#include "mem/carve_central.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

enum {
    BLOCKS = 3
};

typedef struct scene {
    umo_carve carve;
    void *blocks[BLOCKS];
    _Atomic bool ready; /* the thread is about to give */
} scene;

static uint64_t cached_bytes(umo_carve *carve)
{
    uint64_t bytes = 0;
    (void)umo_carve_lock(carve);
    for (const umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        bytes += umo_carve_cached(cache);
    }
    (void)pthread_mutex_unlock(&carve->lock);
    return bytes;
}

static void scene_open(scene *s, umo_scope *scope, size_t size_bytes)
{
    *s = (scene){0};
    assert_true(umo_carve_init(&s->carve, scope, 64));
    for (int i = 0; i < BLOCKS; i++) {
        assert_int_equal(umo_carve_take(&s->carve, size_bytes, 1, &s->blocks[i]), UMO_OK);
    }
}

static void scene_close(scene *s)
{
    assert_int_equal(umo_carve_used(&s->carve), 0);
    (void)umo_carve_trim(&s->carve, 0, UINT64_MAX);
    assert_int_equal(umo_carve_reserved(&s->carve), 0);
    umo_carve_finish(&s->carve);
}

/* Gives a block while the lock is another's. Returns the bytes that are cached then. */
static void *give_first(void *user)
{
    scene *s = user;
    atomic_store(&s->ready, true);
    static uint64_t cached;
    cached = umo_carve_give(&s->carve, s->blocks[0]) == UMO_OK ? cached_bytes(&s->carve) : 1;
    for (int i = 1; i < BLOCKS; i++) {
        if (umo_carve_give(&s->carve, s->blocks[i]) != UMO_OK ||
            cached_bytes(&s->carve) != cached) {
            cached = 1; /* no more than one */
        }
    }
    return &cached;
}

static uint64_t cached_after_meeting(umo_scope *scope, size_t size_bytes)
{
    scene s;
    pthread_t thread;
    void *cached = NULL;
    scene_open(&s, scope, size_bytes);
    (void)umo_carve_lock(&s.carve);
    assert_int_equal(pthread_create(&thread, NULL, give_first, &s), 0);
    while (!atomic_load(&s.ready)) {
        (void)usleep(1000);
    }
    (void)usleep(20000);
    (void)pthread_mutex_unlock(&s.carve.lock);
    assert_int_equal(pthread_join(thread, &cached), 0);
    assert_int_equal(cached_bytes(&s.carve), 0); /* its thread has ended */
    scene_close(&s);
    return *(uint64_t *)cached;
}

static void a_thread_that_met_another_caches_one_long_block(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    assert_int_equal(cached_after_meeting(scope, MIB), MIB);
    assert_int_equal(cached_after_meeting(scope, MIB / 2), MIB / 2);
    assert_int_equal(cached_after_meeting(scope, 2 * MIB), 0);
    umo_scope_destroy(scope);
}

static void a_thread_that_met_nobody_caches_no_long_block(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    scene s;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    scene_open(&s, scope, MIB);
    for (int i = 0; i < BLOCKS; i++) {
        assert_int_equal(umo_carve_give(&s.carve, s.blocks[i]), UMO_OK);
    }
    assert_int_equal(cached_bytes(&s.carve), 0);
    scene_close(&s);
    umo_scope_destroy(scope);
}

/* Short blocks come many at a time from the system, but not where nothing may be kept. */
static void short_blocks_bring_pages_for_the_next_ones(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    for (int keeps = 0; keeps < 2; keeps++) {
        umo_carve carve;
        umo_pool_stats stats;
        assert_true(umo_carve_init(&carve, scope, 64));
        umo_carve_keep(&carve, keeps ? UINT64_MAX : 0, 100);
        void *blocks[64];
        uint64_t live = 0;
        for (size_t i = 0; i < 64; i++) {
            assert_int_equal(umo_carve_take(&carve, 4096 + 64 * i, 1, &blocks[i]), UMO_OK);
            live += 4096 + 64 * i;
            umo_carve_read(&carve, &stats);
            assert_true(stats.reserved_bytes <=
                        live + 8192 + (keeps ? ((uint64_t)64 << 10) + live / 24 : 0));
        }
        assert_true(keeps ? stats.misses < 12 : stats.misses == 64);
        for (size_t i = 0; i < 64; i++) {
            assert_int_equal(umo_carve_give(&carve, blocks[i]), UMO_OK);
        }
        umo_carve_finish(&carve);
    }
    umo_scope_destroy(scope);
}

/* However many come along, a block is where its alignment says. */
static void blocks_taken_ahead_are_aligned(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    umo_carve carve;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    for (size_t align = 64; align <= 4096; align *= 8) {
        assert_true(umo_carve_init(&carve, scope, align));
        void *peak = NULL; /* not a round one */
        assert_int_equal(umo_carve_take(&carve, 40 * MIB + 4711, 1, &peak), UMO_OK);
        void *blocks[2000];
        for (size_t i = 0; i < 2000; i++) {
            assert_int_equal(umo_carve_take(&carve, 4096 + 17 * i, 1, &blocks[i]), UMO_OK);
            assert_int_equal((uintptr_t)blocks[i] % align, 0);
        }
        for (size_t i = 0; i < 2000; i++) {
            assert_int_equal(umo_carve_give(&carve, blocks[i]), UMO_OK);
        }
        assert_int_equal(umo_carve_give(&carve, peak), UMO_OK);
        assert_int_equal(umo_carve_used(&carve), 0);
        umo_carve_finish(&carve);
    }
    umo_scope_destroy(scope);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_that_met_another_caches_one_long_block),
        cmocka_unit_test(a_thread_that_met_nobody_caches_no_long_block),
        cmocka_unit_test(short_blocks_bring_pages_for_the_next_ones),
        cmocka_unit_test(blocks_taken_ahead_are_aligned),
    };
    return cmocka_run_group_tests_name("carve", tests, NULL, NULL);
}
