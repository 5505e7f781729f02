/*
 * Carved memory from inside: which blocks a thread's cache holds. Whether a thread meets another
 * one at the lock is made certain here, by holding it.
 */
#include "mem/carve_central.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

enum {
    BLOCKS = 4
};

typedef struct scene {
    umo_carve carve;
    void *blocks[BLOCKS];
    size_t size_bytes;
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
    *s = (scene){.size_bytes = size_bytes};
    assert_true(umo_carve_init(&s->carve, scope, 64));
    for (int i = 0; i < BLOCKS; i++) {
        assert_int_equal(umo_carve_take(&s->carve, size_bytes, 1, &s->blocks[i]), UMO_OK);
    }
}

static unsigned char *take(umo_carve *carve, size_t size_bytes, uint64_t owner)
{
    void *data = NULL;
    assert_int_equal(umo_carve_take(carve, size_bytes, owner, &data), UMO_OK);
    return data;
}

static void blocks_give(umo_carve *carve, void *const *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(umo_carve_give(carve, blocks[i]), UMO_OK);
    }
}

static void scene_close(scene *s)
{
    assert_int_equal(umo_carve_used(&s->carve), 0);
    (void)umo_carve_trim(&s->carve, 0, UINT64_MAX);
    assert_int_equal(umo_carve_reserved(&s->carve), 0);
    umo_carve_finish(&s->carve);
}

static uint64_t stash_bytes(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    uint64_t bytes = carve->stash_bytes;
    (void)pthread_mutex_unlock(&carve->lock);
    return bytes;
}

/* Gives the first block while the lock is another's, and then the others. Says how many blocks its
 * cache and the stash hold after each: three bits each. */
static void *give_first(void *user)
{
    scene *s = user;
    static uint64_t story;
    atomic_store(&s->ready, true);
    story = 0;
    for (int i = 0; i < BLOCKS; i++) {
        if (umo_carve_give(&s->carve, s->blocks[i]) != UMO_OK) {
            return NULL;
        }
        story = story << 6 | cached_bytes(&s->carve) / s->size_bytes << 3 |
                stash_bytes(&s->carve) / s->size_bytes;
    }
    return &story;
}

static uint64_t story_after_meeting(umo_scope *scope, size_t size_bytes)
{
    scene s;
    pthread_t thread;
    void *story = NULL;
    scene_open(&s, scope, size_bytes);
    (void)umo_carve_lock(&s.carve);
    assert_int_equal(pthread_create(&thread, NULL, give_first, &s), 0);
    while (!atomic_load(&s.ready)) {
        (void)usleep(1000);
    }
    (void)usleep(20000);
    (void)pthread_mutex_unlock(&s.carve.lock);
    assert_int_equal(pthread_join(thread, &story), 0);
    assert_non_null(story);
    assert_int_equal(cached_bytes(&s.carve), 0); /* its thread has ended */
    scene_close(&s);
    return *(uint64_t *)story;
}

/* Two in its cache and then all three for whoever takes them, so that two of three need no lock. */
static void a_thread_that_met_another_hands_long_blocks_on(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    assert_int_equal(story_after_meeting(scope, MIB), 001112104);
    assert_int_equal(story_after_meeting(scope, MIB / 2), 001112104);
    assert_int_equal(story_after_meeting(scope, 2 * MIB), 0);
    umo_scope_destroy(scope);
}

static void a_thread_that_met_nobody_caches_no_long_block(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    scene s;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    scene_open(&s, scope, MIB);
    blocks_give(&s.carve, s.blocks, BLOCKS);
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
            assert_true(stats.reserved_bytes <= live + 2 * umo_os_page_bytes() +
                                                    (keeps ? ((uint64_t)64 << 10) + live / 24 : 0));
        }
        /* Where pages are long, gaps without one of their own count as well. */
        const uint64_t few = umo_os_page_bytes() > 4096 ? 24 : 12;
        assert_true(keeps ? stats.misses < few : stats.misses == 64);
        blocks_give(&carve, blocks, 64);
        umo_carve_finish(&carve);
    }
    umo_scope_destroy(scope);
}

/* Where the short range is full, a short block lies in the long one, and is cleared there. */
static void a_short_block_in_the_long_range_is_cleared(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    umo_carve carve;
    unsigned char *blocks[2000];
    size_t count = 0;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    assert_true(umo_carve_init(&carve, scope, 64));
    umo_heap_finish(&carve.heaps[UMO_CARVE_SHORT]);
    assert_true(umo_heap_init(&carve.heaps[UMO_CARVE_SHORT], MIB, UMO_HEAP_GRANULE));
    for (bool full = false; !full; count++) {
        assert_true(count < 2000);
        void *data = NULL;
        assert_int_equal(umo_carve_take(&carve, 1000, 1, &data), UMO_OK);
        blocks[count] = data;
        memset(data, 0xaa, 1000);
        full = umo_heap_entry(&carve.heaps[UMO_CARVE_SHORT], data) == NULL;
    }
    assert_int_equal(umo_carve_give(&carve, blocks[--count]), UMO_OK);
    (void)umo_carve_lock(&carve);
    umo_carve_caches_empty(&carve);
    (void)pthread_mutex_unlock(&carve.lock);
    void *other = NULL;
    assert_int_equal(umo_carve_take(&carve, 1000, 2, &other), UMO_OK);
    assert_ptr_equal(other, blocks[count]);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(((unsigned char *)other)[i], 0);
    }
    assert_int_equal(umo_carve_give(&carve, other), UMO_OK);
    while (count > 0) {
        count--;
        for (size_t i = 0; i < 1000; i++) {
            assert_int_equal(blocks[count][i], 0xaa);
        }
        assert_int_equal(umo_carve_give(&carve, blocks[count]), UMO_OK);
    }
    umo_carve_finish(&carve);
    umo_scope_destroy(scope);
}

static size_t present_pages(const char *data, size_t size_bytes)
{
    return umo_os_pages_present(data, size_bytes) / umo_os_page_bytes();
}

/* Pages come before they are touched, where those of the blocks before were; all but a few. */
static void pages_are_brought_to_who_touches_them(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    /* Some systems and emulators have no call for it. */
    char *page = umo_os_pages_alloc(umo_os_page_bytes());
    assert_non_null(page);
    const bool brings = umo_os_pages_bring(page, umo_os_page_bytes()) &&
                        present_pages(page, umo_os_page_bytes()) == 1;
    umo_os_pages_free(page, umo_os_page_bytes());
    for (int touches = 0; touches < 2; touches++) {
        umo_carve carve;
        void *blocks[40];
        size_t present = 0;
        assert_true(umo_carve_init(&carve, scope, 64));
        for (size_t i = 0; i < 40; i++) {
            const size_t bytes = (i % 2 != 0 ? 3 * MIB : MIB / 8) + 4096 * i;
            assert_int_equal(umo_carve_take(&carve, bytes, 1, &blocks[i]), UMO_OK);
            present += i >= 20 ? present_pages(blocks[i], bytes) : 0;
            if (touches) {
                memset(blocks[i], 1, bytes);
            }
        }
        const size_t half = 10 * (3 * MIB + MIB / 8) / umo_os_page_bytes(); /* of the last 20 */
        assert_true(touches && brings ? present > half * 3 / 4 : present < half / 8);
        blocks_give(&carve, blocks, 40);
        umo_carve_finish(&carve);
    }
    umo_scope_destroy(scope);
}

/* The second of a size brings some more into the thread's cache, up to a 64th of the peak; they lie
 * one behind the other. */
static void the_second_of_a_size_brings_some_more(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    umo_carve carve;
    void *blocks[5];
    const size_t size = 4096 + 64;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    assert_true(umo_carve_init(&carve, scope, 64));
    void *peak = take(&carve, MIB, 1);
    for (size_t i = 0; i < 5; i++) {
        blocks[i] = take(&carve, size, 1);
        /* A 64th of the peak is three of them. */
        const uint64_t cached[] = {0, 3, 2, 1, 0};
        assert_int_equal(cached_bytes(&carve), cached[i] * size);
        memset(blocks[i], (int)i + 1, size);
    }
    umo_pool_stats stats;
    umo_carve_read(&carve, &stats);
    assert_int_equal(stats.live_bytes, MIB + 5 * size);
    assert_int_equal(stats.peak_live_bytes, MIB + 5 * size);
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < size; k++) {
            assert_int_equal(((unsigned char *)blocks[i])[k], i + 1);
        }
    }
    blocks_give(&carve, blocks, 5);
    assert_int_equal(umo_carve_give(&carve, peak), UMO_OK);
    (void)umo_carve_trim(&carve, 0, UINT64_MAX);
    assert_int_equal(umo_carve_reserved(&carve), 0);
    umo_carve_finish(&carve);
    umo_scope_destroy(scope);
}

/* What came along is not somebody else's, either. */
static void blocks_that_come_along_are_cleared(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    umo_carve carve;
    const size_t size = 4096 + 64;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    assert_true(umo_carve_init(&carve, scope, 64));
    void *first = take(&carve, 4 * MIB, 1);
    void *wall = take(&carve, MIB, 1);
    memset(first, 0xaa, 4 * MIB);
    assert_int_equal(umo_carve_give(&carve, first), UMO_OK);
    void *blocks[32];
    for (size_t i = 0; i < 32; i++) {
        blocks[i] = take(&carve, size, 2);
        for (size_t k = 0; k < size; k++) {
            assert_int_equal(((unsigned char *)blocks[i])[k], 0);
        }
    }
    blocks_give(&carve, blocks, 32);
    assert_int_equal(umo_carve_give(&carve, wall), UMO_OK);
    umo_carve_finish(&carve);
    umo_scope_destroy(scope);
}

static void assert_not_in(const unsigned char *data, size_t size_bytes, unsigned char secret)
{
    for (size_t i = 0; i < size_bytes; i++) {
        assert_int_not_equal(data[i], secret);
    }
}

/* A size of another number that shares its bin of a cache with this one. */
static size_t size_in_the_same_bin(size_t size_bytes)
{
    static umo_cache cache;
    const umo_cache_bin *bin = umo_cache_bin_of(&cache, size_bytes >> UMO_HEAP_GRANULE_SHIFT);
    size_t other = size_bytes + UMO_HEAP_GRANULE;
    while (umo_cache_bin_of(&cache, other >> UMO_HEAP_GRANULE_SHIFT) != bin) {
        other += UMO_HEAP_GRANULE;
    }
    return other;
}

/* Behind a block that comes from the cache, from the stash or from pages of its own may lie what
 * was anybody's. */
static void what_lies_behind_an_old_block_does_not_come_along(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "carve", 0, &scope, NULL), UMO_OK);
    const size_t size = 8192;
    const size_t other = size_in_the_same_bin(size);
    assert_true(other < 32768);
    for (int from_stash = 0; from_stash < 2; from_stash++) {
        umo_carve carve;
        assert_true(umo_carve_init(&carve, scope, 64));
        unsigned char *peak = take(&carve, 16 * MIB, 1);
        unsigned char *pusher = take(&carve, other, 1);
        unsigned char *old = take(&carve, size, 1);
        unsigned char *secret = take(&carve, 256 << 10, 2);
        unsigned char *wall = take(&carve, 4096, 1);
        assert_ptr_equal(secret, old + size);
        memset(secret, 0x55, 256 << 10);
        void *more = NULL;
        assert_int_equal(umo_carve_give(&carve, old), UMO_OK);
        if (from_stash) {
            assert_int_equal(umo_carve_give(&carve, pusher), UMO_OK);
        }
        assert_int_equal(umo_carve_give(&carve, secret), UMO_OK);
        if (from_stash) {
            assert_ptr_equal(take(&carve, other, 1), pusher);
        } else {
            more = take(&carve, 300 << 10, 1); /* a new peak: the next one comes by the lock */
        }
        void *taken[4];
        for (size_t i = 0; i < 4; i++) {
            unsigned char *data = taken[i] = take(&carve, size, 1);
            assert_not_in(data, size, 0x55);
        }
        assert_ptr_equal(taken[0], old);
        void *rest[] = {peak, pusher, wall, more};
        blocks_give(&carve, taken, 4);
        blocks_give(&carve, rest, from_stash ? 3 : 4);
        umo_carve_finish(&carve);
    }
    umo_carve carve;
    assert_true(umo_carve_init(&carve, scope, 64));
    void *row[] = {take(&carve, 16 * MIB, 1),  take(&carve, size, 1), take(&carve, 256 << 10, 1),
                   take(&carve, 264 << 10, 1), take(&carve, 4096, 2), take(&carve, 256 << 10, 1)};
    memset(row[4], 0x55, 4096);
    blocks_give(&carve, row + 3, 1);
    (void)umo_carve_trim(&carve, 0, UINT64_MAX);
    blocks_give(&carve, row + 4, 1);
    (void)umo_carve_lock(&carve);
    umo_carve_caches_empty(&carve);
    (void)pthread_mutex_unlock(&carve.lock);
    for (size_t i = 3; i < 5; i++) {
        row[i] = take(&carve, size, 1);
        assert_not_in(row[i], size, 0x55);
    }
    blocks_give(&carve, row, 6);
    umo_carve_finish(&carve);
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
        blocks_give(&carve, blocks, 2000);
        assert_int_equal(umo_carve_give(&carve, peak), UMO_OK);
        assert_int_equal(umo_carve_used(&carve), 0);
        umo_carve_finish(&carve);
    }
    umo_scope_destroy(scope);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_that_met_another_hands_long_blocks_on),
        cmocka_unit_test(a_thread_that_met_nobody_caches_no_long_block),
        cmocka_unit_test(short_blocks_bring_pages_for_the_next_ones),
        cmocka_unit_test(blocks_taken_ahead_are_aligned),
        cmocka_unit_test(the_second_of_a_size_brings_some_more),
        cmocka_unit_test(blocks_that_come_along_are_cleared),
        cmocka_unit_test(what_lies_behind_an_old_block_does_not_come_along),
        cmocka_unit_test(pages_are_brought_to_who_touches_them),
        cmocka_unit_test(a_short_block_in_the_long_range_is_cleared),
    };
    return cmocka_run_group_tests_name("carve", tests, NULL, NULL);
}
