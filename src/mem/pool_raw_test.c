/*
 * The raw face of a pool: any size, misuse, owners, figures against a model, budgets, idle time,
 * threads, a fork, and that what is held stays close to what is used.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"

#include <umo/pool.h>

#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SECRET 0x5E

/* The thread sanitizer makes every byte dear. */
#ifdef __SANITIZE_THREAD__
#define SLOWNESS 5
#else
#define SLOWNESS 1
#endif
#define MIB ((size_t)1 << 20)

typedef struct rig {
    umo_device *device;
    umo_scope *root;
    umo_scope *scope;
    umo_pool *pool;
} rig;

static rig rig_open(const umo_pool_options *options, uint64_t limit_bytes)
{
    rig r = {0};
    umo_pool_options what = options != NULL ? *options : (umo_pool_options){0};
    assert_int_equal(umo_device_open("host", 0, NULL, &r.device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "root", limit_bytes, &r.root, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(r.root, "model", 0, &r.scope, NULL), UMO_OK);
    what.device = r.device;
    what.scope = r.scope;
    if (what.idle_ns == 0) {
        what.idle_ns = UINT64_MAX;
    }
    assert_int_equal(umo_pool_create(&what, &r.pool, NULL), UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    umo_counters c;
    umo_pool_destroy(r->pool);
    umo_scope_read(r->root, &c);
    assert_int_equal(c.live_bytes, 0);
    umo_scope_destroy(r->scope);
    umo_scope_destroy(r->root);
    umo_device_release(r->device);
}

static umo_pool_stats stats(const rig *r)
{
    umo_pool_stats s;
    umo_pool_read(r->pool, &s);
    return s;
}

static void *take(const rig *r, size_t size_bytes, uint64_t owner)
{
    void *data = NULL;
    assert_int_equal(umo_pool_take(r->pool, size_bytes, owner, &data), UMO_OK);
    assert_non_null(data);
    return data;
}

static void give(const rig *r, void *data)
{
    assert_int_equal(umo_pool_give(r->pool, data), UMO_OK);
}

/* ---- misuse ---- */

static void impossible_sizes_are_refused_and_nothing_is_written(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    void *data = &r;
    const size_t sizes[] = {0,           SIZE_MAX, SIZE_MAX - 62, SIZE_MAX - 63, SIZE_MAX / 2 + 1,
                            SIZE_MAX / 4};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(umo_pool_take(r.pool, sizes[i], 1, &data), UMO_E_INVAL);
        assert_ptr_equal(data, &r);
        give(&r, take(&r, 64, 1)); /* with and without a cache of its own */
    }
    assert_int_equal(stats(&r).live_bytes, 0);
    rig_close(&r);
}

static void only_a_live_blocks_first_byte_can_be_given(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    rig other = rig_open(NULL, 0);
    int local = 0;
    const size_t sizes[] = {1, 64, 100, 4000, 4096, 5000, 65576, 3 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *block = take(&r, sizes[i], 1);
        assert_int_equal(umo_pool_give(r.pool, &local), UMO_E_INVAL);
        assert_int_equal(umo_pool_give(r.pool, NULL), UMO_E_INVAL);
        assert_int_equal(umo_pool_give(r.pool, (void *)UINTPTR_MAX), UMO_E_INVAL);
        assert_int_equal(umo_pool_give(other.pool, block), UMO_E_INVAL);
        for (size_t at = 1; at < sizes[i]; at = at * 2 + at % 3) {
            assert_int_equal(umo_pool_give(r.pool, block + at), UMO_E_INVAL);
        }
        give(&r, block);
        assert_int_equal(umo_pool_give(r.pool, block), UMO_E_INVAL); /* in the thread's cache */
        umo_pool_trim(r.pool, 0);
        assert_int_equal(umo_pool_give(r.pool, block), UMO_E_INVAL); /* gone */
    }
    assert_int_equal(stats(&r).live_bytes, 0);
    rig_close(&other);
    rig_close(&r);
}

static void *give_again(void *argument)
{
    void **what = argument;
    umo_status status = umo_pool_give(what[0], what[1]);
    return status == UMO_E_INVAL ? argument : NULL;
}

static void another_thread_cannot_give_it_a_second_time(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    void *what[2] = {r.pool, take(&r, 8192, 1)};
    void *keeps_the_cache = take(&r, 8192, 1);
    give(&r, what[1]);
    pthread_t thread;
    void *good = NULL;
    assert_int_equal(pthread_create(&thread, NULL, give_again, what), 0);
    assert_int_equal(pthread_join(thread, &good), 0);
    assert_ptr_equal(good, what);
    give(&r, keeps_the_cache);
    rig_close(&r);
}

static void a_block_goes_back_by_the_face_it_came_from(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_pool_alloc(r.pool, 5000, 1, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_pool_give(r.pool, umo_buffer_host(buffer)), UMO_E_INVAL);
    assert_int_equal(umo_pool_free(r.pool, buffer), UMO_OK);
    assert_int_equal(umo_pool_give(r.pool, umo_buffer_host(buffer)), UMO_E_INVAL);
    rig_close(&r);
}

static void memory_that_is_not_the_cpus_has_no_raw_face(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const wrapper_switches switches = {.apart = i != 0};
        umo_device *device = wrapper_device(&switches, NULL);
        umo_scope *scope = NULL;
        umo_pool *pool = NULL;
        void *data = NULL;
        assert_int_equal(umo_scope_create(NULL, "s", 0, &scope, NULL), UMO_OK);
        const umo_pool_options what = {
            .device = device, .scope = scope, .mode = i != 0 ? UMO_UNIFIED : UMO_PRIVATE};
        assert_int_equal(umo_pool_create(&what, &pool, NULL), UMO_OK);
        assert_int_equal(umo_pool_take(pool, 100, 1, &data), UMO_E_UNSUPPORTED);
        assert_int_equal(umo_pool_give(pool, &scope), UMO_E_INVAL);
        umo_pool_destroy(pool);
        umo_scope_destroy(scope);
        umo_device_release(device);
    }
}

static void blocks_are_found_by_any_of_their_bytes(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    const size_t sizes[] = {1, 100, 4095, 4096, 70000, 5 * MIB + 1};
    umo_pool_block found;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *block = take(&r, sizes[i], 40 + i);
        for (size_t at = 0; at < sizes[i]; at += at + 1000 < sizes[i] ? 1000 : 1) {
            assert_int_equal(umo_pool_find(r.pool, block + at, &found), UMO_OK);
            assert_ptr_equal(found.data, block);
            assert_int_equal(found.size_bytes, sizes[i]);
            assert_int_equal(found.owner, 40 + i);
            assert_null(found.buffer);
        }
        assert_int_equal(umo_pool_find(r.pool, block + sizes[i], &found), UMO_E_NOT_FOUND);
        give(&r, block);
        assert_int_equal(umo_pool_find(r.pool, block, &found), UMO_E_NOT_FOUND);
    }
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_pool_alloc(r.pool, 5000, 7, &buffer, NULL), UMO_OK);
    char *host = umo_buffer_host(buffer);
    assert_int_equal(umo_pool_find(r.pool, host + 4999, &found), UMO_OK);
    assert_ptr_equal(found.buffer, buffer);
    assert_int_equal(found.owner, 7);
    assert_int_equal(umo_pool_find(r.pool, host + 5000, &found), UMO_E_NOT_FOUND);
    assert_int_equal(umo_pool_free(r.pool, buffer), UMO_OK);
    assert_int_equal(umo_pool_find(r.pool, host, &found), UMO_E_NOT_FOUND);
    rig_close(&r);
}

static void alignment_is_as_asked(void **state)
{
    (void)state;
    for (size_t align = 64; align <= 4096; align *= 2) {
        const umo_pool_options options = {.align_bytes = align};
        rig r = rig_open(&options, 0);
        void *blocks[64];
        for (size_t i = 0; i < 64; i++) {
            blocks[i] = take(&r, 1 + i * i * 37, 1);
            assert_int_equal((uintptr_t)blocks[i] % align, 0);
        }
        for (size_t i = 0; i < 64; i++) {
            give(&r, blocks[(i * 29) % 64]);
        }
        rig_close(&r);
    }
    rig r = rig_open(NULL, 0);
    umo_pool *pool = NULL;
    const size_t wrong[] = {3, 8192, SIZE_MAX};
    for (size_t i = 0; i < 3; i++) {
        const umo_pool_options bad = {
            .device = r.device, .scope = r.scope, .align_bytes = wrong[i]};
        assert_int_equal(umo_pool_create(&bad, &pool, NULL), UMO_E_INVAL);
        assert_null(pool);
    }
    rig_close(&r);
}

/* ---- random operations against a model ---- */

enum {
    SLOTS = 120,
    STEPS = SLOWNESS > 1 ? 4000 : 20000
};

typedef struct slot {
    unsigned char *data;
    size_t size_bytes;
    uint64_t owner;
} slot;

static size_t size_next(unsigned *seed)
{
    const unsigned kind = (unsigned)rand_r(seed) % 8;
    const size_t r = (size_t)rand_r(seed);
    if (kind < 3) {
        return 1 + r % 5000;
    }
    if (kind < 6) {
        return 4096 + r % 8 * 9000;
    }
    return 100000 + r % (kind == 6 ? 400000 : 3 * MIB);
}

/* No byte of another owner's is in it. Then it is its owner's, from end to end. */
static void own(slot *s)
{
    for (size_t i = 0; i < s->size_bytes; i += 61) {
        assert_true(s->data[i] == 0 || s->data[i] == s->owner);
    }
    assert_true(s->data[s->size_bytes - 1] == 0 || s->data[s->size_bytes - 1] == s->owner);
    memset(s->data, (int)s->owner, s->size_bytes);
}

static void assert_own(const slot *s)
{
    for (size_t i = 0; i < s->size_bytes; i += i + 509 < s->size_bytes ? 509 : 1) {
        assert_int_equal(s->data[i], s->owner);
    }
}

static void figures_and_bytes_are_those_of_a_plain_model(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++) {
        rig r = rig_open(NULL, 0);
        static slot slots[SLOTS];
        unsigned random = seed;
        uint64_t live = 0;
        uint64_t peak = 0;
        for (unsigned step = 0; step < STEPS; step++) {
            slot *s = &slots[(size_t)rand_r(&random) % SLOTS];
            if (s->data != NULL) {
                assert_own(s);
                give(&r, s->data);
                live -= s->size_bytes;
                s->data = NULL;
            } else {
                s->size_bytes = size_next(&random);
                s->owner = 1 + (uint64_t)rand_r(&random) % 3;
                s->data = take(&r, s->size_bytes, s->owner);
                own(s);
                live += s->size_bytes;
                peak = live > peak ? live : peak;
            }
            if (step % 50 == 0) {
                umo_pool_stats now = stats(&r);
                umo_counters c;
                umo_scope_read(r.scope, &c);
                assert_int_equal(now.live_bytes, live);
                assert_int_equal(now.peak_live_bytes, peak);
                assert_true(now.reserved_bytes >= now.live_bytes + now.kept_bytes);
                assert_true(now.reserved_bytes <= now.peak_reserved_bytes);
                assert_true(c.live_bytes >= now.reserved_bytes);
                assert_true(now.fragmentation >= 0 && now.fragmentation <= 1);
                /* The promise: a few percent, and for short blocks pages of their own. */
                assert_true(now.peak_reserved_bytes <= peak + peak / 16 + MIB / 2);
            }
            if (step % 4999 == 0) {
                umo_pool_trim(r.pool, (size_t)rand_r(&random) % MIB);
            }
        }
        for (size_t i = 0; i < SLOTS; i++) {
            if (slots[i].data != NULL) {
                assert_own(&slots[i]);
                give(&r, slots[i].data);
                slots[i].data = NULL;
            }
        }
        assert_true(stats(&r).scrubbed_bytes > 0);
        umo_pool_trim(r.pool, 0);
        assert_int_equal(stats(&r).reserved_bytes, 0);
        rig_close(&r);
    }
}

/* ---- owners ---- */

/* In every way that a block can come: from the cache, the stash, a heap's cut, a join, moved pages,
 * an address whose neighbour's page was never given back. */
static void no_owner_sees_anothers_bytes_however_a_block_comes(void **state)
{
    (void)state;
    const size_t sizes[] = {64, 1000, 4096, 4160, 12000, 65576, 130000, MIB + 64};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int way = 0; way < 4; way++) {
            rig r = rig_open(NULL, 0);
            slot blocks[12];
            for (size_t k = 0; k < 12; k++) {
                blocks[k] = (slot){.size_bytes = sizes[i], .owner = 1 + k % 2};
                blocks[k].data = take(&r, sizes[i], blocks[k].owner);
                own(&blocks[k]);
            }
            for (size_t k = 0; k < 12; k += way == 1 ? 2 : 1) {
                give(&r, blocks[k].data);
            }
            if (way == 2) {
                umo_pool_trim(r.pool, 2 * sizes[i]); /* the heap has them, some hollow */
            }
            slot next = {.size_bytes = way == 3 ? 5 * sizes[i] : sizes[i], .owner = 3};
            void *taken[3];
            for (size_t k = 0; k < 3; k++) {
                taken[k] = next.data = take(&r, next.size_bytes, next.owner);
                own(&next);
            }
            for (size_t k = 0; k < 3; k++) {
                give(&r, taken[k]);
            }
            for (size_t k = 1; k < 12 && way == 1; k += 2) {
                assert_own(&blocks[k]);
                give(&r, blocks[k].data);
            }
            rig_close(&r);
        }
    }
}

/* A buffer that was kept, and passed on to another owner, is not the first one's any more when its
 * memory is let go. */
static void a_first_owner_does_not_see_who_had_its_buffer_next(void **state)
{
    (void)state;
    const size_t sizes[] = {1024, 3000, 102400, 4000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        rig r = rig_open(NULL, 0);
        const size_t size = sizes[i];
        void *before = take(&r, size, 1); /* keep the pages of its ends */
        umo_buffer *buffer = NULL;
        assert_int_equal(umo_pool_alloc(r.pool, size, 1, &buffer, NULL), UMO_OK);
        void *after = take(&r, size, 1);
        assert_int_equal(umo_pool_free(r.pool, buffer), UMO_OK);
        umo_buffer *next = NULL;
        assert_int_equal(umo_pool_alloc(r.pool, size, 2, &next, NULL), UMO_OK);
        assert_ptr_equal(next, buffer);
        memset(umo_buffer_host(next), SECRET, size);
        umo_pool_block found;
        assert_int_equal(umo_pool_find(r.pool, umo_buffer_host(next), &found), UMO_OK);
        assert_int_equal(found.owner, 2);
        assert_int_equal(umo_pool_free(r.pool, next), UMO_OK);
        umo_pool_trim(r.pool, 0);
        void *blocks[8];
        for (size_t k = 0; k < 8; k++) {
            const unsigned char *data = blocks[k] = take(&r, size, 1);
            for (size_t at = 0; at < size; at++) {
                assert_int_not_equal(data[at], SECRET);
            }
        }
        for (size_t k = 0; k < 8; k++) {
            give(&r, blocks[k]);
        }
        give(&r, before);
        give(&r, after);
        rig_close(&r);
    }
}

/* Nor what lies in pages that its owner locked, which cannot be given back. */
static void no_owner_sees_what_another_has_locked(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    for (size_t size = 8192; size <= 2 * MIB; size *= 4) {
        unsigned char *data = take(&r, size, 1);
        memset(data, 0xaa, size);
        if (mlock(data, size) != 0) {
            give(&r, data);
            rig_close(&r);
            skip(); /* nothing may be locked here */
        }
        give(&r, data);
        umo_pool_trim(r.pool, 0);
        data = take(&r, size, 2);
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(data[i], 0);
        }
        give(&r, data);
    }
    rig_close(&r);
}

static void the_same_owner_pays_for_no_clearing(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    const size_t sizes[] = {100, 8192, MIB};
    for (int i = 0; i < 3; i++) {
        void *data = take(&r, sizes[i], 9);
        memset(data, SECRET, sizes[i]);
        give(&r, data);
        assert_ptr_equal(take(&r, sizes[i], 9), data);
        give(&r, data);
    }
    assert_int_equal(stats(&r).scrubbed_bytes, 0);
    rig_close(&r);
}

/* ---- budgets ---- */

static void a_budget_takes_what_is_kept_first(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 4 * MIB);
    void *blocks[64];
    size_t count = 0;
    while (umo_pool_take(r.pool, 100000, 1, &blocks[count]) == UMO_OK) {
        count++;
        assert_true(count < 64);
    }
    assert_true(count >= 38); /* of 41.9 */
    void *none = NULL;
    assert_int_equal(umo_pool_take(r.pool, 100000, 1, &none), UMO_E_LIMIT);
    assert_null(none);
    for (size_t i = 0; i < count; i++) {
        give(&r, blocks[i]);
    }
    for (size_t size = MIB; size >= 64; size /= 4) { /* in the other heap too */
        void *all[3];
        for (int i = 0; i < 3; i++) {
            all[i] = take(&r, size, 1);
        }
        for (int i = 0; i < 3; i++) {
            give(&r, all[i]);
        }
    }
    void *big = take(&r, 4 * MIB - 65536, 1);
    give(&r, big);
    rig_close(&r);
}

static void pools_of_one_root_share_one_budget(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 8 * MIB);
    umo_pool *second = NULL;
    const umo_pool_options what = {.device = r.device, .scope = r.root, .idle_ns = UINT64_MAX};
    assert_int_equal(umo_pool_create(&what, &second, NULL), UMO_OK);
    rig other = rig_open(NULL, 0); /* of another root: left alone */
    give(&other, take(&other, MIB, 1));
    void *data = NULL;
    assert_int_equal(umo_pool_take(second, 6 * MIB, 1, &data), UMO_OK);
    assert_int_equal(umo_pools_reserved(r.root), 6 * MIB);
    void *none = NULL;
    assert_int_equal(umo_pool_take(r.pool, 5 * MIB, 1, &none), UMO_E_LIMIT);
    assert_int_equal(umo_pool_give(second, data), UMO_OK);
    assert_int_equal(umo_pools_kept(r.root), 6 * MIB);
    data = take(&r, 5 * MIB, 1); /* what the second one keeps is taken back */
    assert_true(umo_pools_kept(r.root) <= 3 * MIB);
    give(&r, data);
    assert_true(umo_pools_kept(other.root) >= MIB);
    assert_true(umo_pools_trim(r.root, MIB) >= 4 * MIB);
    assert_true(umo_pools_kept(r.root) <= MIB);
    (void)umo_pools_trim(r.root, 0);
    assert_int_equal(umo_pools_reserved(r.root), 0);
    assert_true(umo_pools_kept(other.root) >= MIB);
    umo_pool_destroy(second);
    rig_close(&other);
    rig_close(&r);
}

static void a_tightened_pool_keeps_less(void **state)
{
    (void)state;
    const umo_pool_options bounded = {.keep_bytes_max = 2 * MIB};
    for (int i = 0; i < 2; i++) {
        rig r = rig_open(i == 0 ? NULL : &bounded, 0);
        const uint64_t most = i == 0 ? 8 * MIB : 2 * MIB;
        for (int round = 0; round < 3; round++) {
            const uint32_t percent = round == 1 ? 25 : 100;
            umo_pools_tighten(r.root, percent);
            void *blocks[8];
            for (int k = 0; k < 8; k++) {
                blocks[k] = take(&r, MIB, 1);
            }
            for (int k = 0; k < 8; k++) {
                give(&r, blocks[k]);
            }
            assert_true(stats(&r).kept_bytes <= most * percent / 100);
            assert_true(stats(&r).kept_bytes + MIB >= most * percent / 100);
        }
        rig_close(&r);
    }
}

/* ---- idle ---- */

static void settle(const rig *r, uint64_t most)
{
    for (int i = 0; i < 200 && stats(r).kept_bytes > most; i++) {
        (void)usleep(10000);
    }
    assert_true(stats(r).kept_bytes <= most);
}

static void an_idle_pool_gives_back_and_wakes_again(void **state)
{
    (void)state;
    const umo_pool_options options = {.idle_ns = 10000000, .idle_keep_bytes = 1};
    rig r = rig_open(&options, 0);
    for (int round = 0; round < 3; round++) {
        void *long_one = take(&r, 8 * MIB, 1);
        void *short_one = take(&r, 8192, 1);
        void *stays = take(&r, 4096, 1);
        memset(long_one, 1, 8 * MIB);
        give(&r, long_one);
        give(&r, short_one);
        settle(&r, umo_os_page_bytes()); /* a page that a live block shares stays */
        assert_true(stats(&r).reserved_bytes >= 4096);
        umo_counters c;
        umo_scope_read(r.root, &c);
        assert_true(c.live_bytes <= 3 * umo_os_page_bytes());
        /* Only into the cache of this thread: it is looked after too. */
        give(&r, stays);
        settle(&r, 0);
    }
    assert_true(stats(&r).trims >= 3);
    rig_close(&r);
}

static void by_default_100_ms_of_rest_leave_a_twentieth(void **state)
{
    (void)state;
    const umo_pool_options options = {.idle_ns = 50000000};
    rig r = rig_open(&options, 0);
    void *blocks[100];
    for (size_t i = 0; i < 100; i++) {
        blocks[i] = take(&r, 50000 + i * 3000, 1);
    }
    for (size_t i = 0; i < 100; i++) {
        give(&r, blocks[i]);
    }
    const uint64_t peak = stats(&r).peak_live_bytes;
    settle(&r, peak / 20);
    rig_close(&r);
}

/* Who holds blocks computes with them: what he gave before stays for what he asks next. */
static void a_pool_that_is_lived_in_rests_for_long_before_it_gives_back(void **state)
{
    (void)state;
    const umo_pool_options options = {.idle_ns = 20000000, .idle_keep_bytes = 1};
    rig r = rig_open(&options, 0);
    void *stays = take(&r, 4 * MIB, 1);
    give(&r, take(&r, 4 * MIB, 1));
    const uint64_t begin_ns = umo_os_now_ns();
    while (stats(&r).kept_bytes > MIB && umo_os_now_ns() - begin_ns < (uint64_t)5000000000) {
        (void)usleep(5000);
    }
    const uint64_t took_ns = umo_os_now_ns() - begin_ns;
    assert_true(took_ns > (uint64_t)400000000 && took_ns < (uint64_t)5000000000);
    give(&r, stays);
    settle(&r, 0);
    rig_close(&r);
}

/* Memory that lay free for long goes while the pool is busy. */
static void a_busy_pool_lets_go_of_what_is_stale(void **state)
{
    (void)state;
    const umo_pool_options options = {.idle_ns = 2000000, .idle_keep_bytes = SIZE_MAX};
    rig r = rig_open(&options, 0);
    give(&r, take(&r, 16 * MIB, 1));
    for (int i = 0; i < 5000 && stats(&r).reserved_bytes > MIB;
         i++) { /* 80 ms, if somebody is let run */
        give(&r, take(&r, 4096, 1));
        (void)usleep(1000);
    }
    assert_true(stats(&r).reserved_bytes <= MIB);
    rig_close(&r);
}

/* ---- threads ---- */

enum {
    THREADS = 8,
    ROUNDS = 3000 / SLOWNESS,
    SHARED = 64
};

typedef struct party {
    rig r;
    _Atomic(unsigned char *) shared[SHARED]; /* blocks that any thread may give */
    _Atomic int wrong;
} party;

typedef struct guest {
    party *p;
    unsigned seed;
} guest;

static size_t guest_size(unsigned *seed)
{
    const size_t sizes[] = {100, 1000, 4096, 8192, 8192, 65536, 65576, 300000};
    return sizes[(size_t)rand_r(seed) % 8];
}

/* The block's first word says how long it is; every byte looked at is the number of its slot. */
static void *guest_main(void *argument)
{
    guest *g = argument;
    for (int i = 0; i < ROUNDS; i++) {
        const size_t at = (size_t)rand_r(&g->seed) % SHARED;
        size_t size = guest_size(&g->seed);
        void *data = NULL;
        umo_status status = umo_pool_take(g->p->r.pool, size, at / 16, &data);
        if (status != UMO_OK) {
            g->p->wrong += status == UMO_E_LIMIT ? 0 : 1;
        } else {
            memset(data, (int)at + 1, size);
            memcpy(data, &size, sizeof size);
        }
        unsigned char *before = atomic_exchange(&g->p->shared[at], (unsigned char *)data);
        if (before != NULL) {
            memcpy(&size, before, sizeof size);
            for (size_t k = sizeof size; k < size; k += k + 997 < size ? 997 : 1) {
                g->p->wrong += before[k] != (unsigned char)(at + 1) ? 1 : 0;
            }
            g->p->wrong += umo_pool_give(g->p->r.pool, before) != UMO_OK ? 1 : 0;
        }
        if (i % 500 == 0) {
            umo_pool_stats s;
            umo_pool_read(g->p->r.pool, &s);
            g->p->wrong += s.reserved_bytes < s.live_bytes + s.kept_bytes ? 1 : 0;
        }
        if (i % 700 == 0) {
            umo_pool_trim(g->p->r.pool, 100000);
        }
    }
    return NULL;
}

static void eight_threads_never_share_a_block(void **state)
{
    (void)state;
    const umo_pool_options options = {.idle_ns = 1000000, .idle_keep_bytes = 4096};
    party p = {.r = rig_open(&options, 16 * MIB)};
    for (int round = 0; round < 2; round++) {
        pthread_t threads[THREADS];
        guest guests[THREADS];
        for (unsigned i = 0; i < THREADS; i++) {
            guests[i] = (guest){&p, i + 1 + 100 * (unsigned)round};
            assert_int_equal(pthread_create(&threads[i], NULL, guest_main, &guests[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_int_equal(p.wrong, 0);
    }
    for (size_t i = 0; i < SHARED; i++) {
        if (p.shared[i] != NULL) {
            give(&p.r, p.shared[i]);
        }
    }
    assert_int_equal(stats(&p.r).live_bytes, 0);
    umo_pool_trim(p.r.pool, 0);
    assert_int_equal(stats(&p.r).reserved_bytes, 0);
    rig_close(&p.r);
}

static void *leave_a_cache(void *argument)
{
    const rig *r = argument;
    void *blocks[8];
    for (int i = 0; i < 8; i++) {
        if (umo_pool_take(r->pool, 8192, 1, &blocks[i]) != UMO_OK) {
            return NULL;
        }
    }
    for (int i = 0; i < 8; i++) {
        if (umo_pool_give(r->pool, blocks[i]) != UMO_OK) {
            return NULL;
        }
    }
    return argument;
}

static void a_thread_that_ends_leaves_its_cache_to_the_pool(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        void *good = NULL;
        assert_int_equal(pthread_create(&thread, NULL, leave_a_cache, &r), 0);
        assert_int_equal(pthread_join(thread, &good), 0);
        assert_ptr_equal(good, &r);
    }
    /* The first block brought pages for all; what each thread cached, the next one had. */
    const size_t page = umo_os_page_bytes();
    assert_int_equal(stats(&r).reserved_bytes, (8192 + 65536 + page - 1) / page * page);
    const uint64_t misses = page > 4096 ? 2 : 1; /* a gap without a page of its own is one */
    assert_int_equal(stats(&r).misses, misses);
    assert_int_equal(stats(&r).hits, 20 * 8 - misses);
    rig_close(&r);
}

/* A child of several threads that starts one is ended by the thread sanitizer, and by the emulator
 * that runs the programs for macOS: there it has none. */
#if defined(__SANITIZE_THREAD__) || defined(__APPLE__)
#define CHILD_IDLE_NS UINT64_MAX
#else
#define CHILD_IDLE_NS ((uint64_t)5000000)
#endif

static void a_forked_child_has_the_pool_and_its_own_keeper(void **state)
{
    (void)state;
    const umo_pool_options options = {.idle_ns = CHILD_IDLE_NS, .idle_keep_bytes = 4096};
    rig r = rig_open(&options, 0);
    void *before = take(&r, MIB, 1);
    memset(before, SECRET, MIB);
    give(&r, take(&r, 8192, 1));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        void *mine = NULL;
        bool good = *(unsigned char *)before == SECRET && umo_pool_give(r.pool, before) == UMO_OK &&
                    umo_pool_take(r.pool, 8192, 1, &mine) == UMO_OK &&
                    umo_pool_give(r.pool, mine) == UMO_OK;
        for (int i = 0; i < 300 && stats(&r).kept_bytes > 4096 && CHILD_IDLE_NS < UINT64_MAX; i++) {
            (void)usleep(10000);
        }
        good = good && (stats(&r).kept_bytes <= 4096 || CHILD_IDLE_NS == UINT64_MAX);
        umo_pool_destroy(r.pool);
        _exit(good ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(*(unsigned char *)before, SECRET);
    give(&r, before);
    umo_pool_trim(r.pool, CHILD_IDLE_NS < UINT64_MAX ? SIZE_MAX : 0);
    settle(&r, 4096);
    rig_close(&r);
}

static void more_pools_than_a_thread_has_caches_for_work(void **state)
{
    (void)state;
    if (getenv("UMO_MACHO_RUN") != NULL) {
        print_message("the emulator's books of the addresses of a thousand pools take minutes\n");
        skip();
    }
    rig r = rig_open(NULL, 0);
    enum {
        MANY = 1100
    };
    static umo_pool *pools[MANY];
    size_t count = 0;
    const umo_pool_options what = {.device = r.device, .scope = r.scope, .idle_ns = UINT64_MAX};
    /* Where addresses are short, it is said. */
    while (count < MANY && umo_pool_create(&what, &pools[count], NULL) == UMO_OK) {
        void *data = NULL;
        assert_int_equal(umo_pool_take(pools[count], 100, 1, &data), UMO_OK);
        assert_int_equal(umo_pool_give(pools[count], data), UMO_OK);
        assert_int_equal(umo_pool_give(pools[count], data), UMO_E_INVAL);
        count++;
    }
    assert_true(count > 16);
    for (size_t i = 0; i < count; i++) {
        umo_pool_destroy(pools[i]);
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impossible_sizes_are_refused_and_nothing_is_written),
        cmocka_unit_test(only_a_live_blocks_first_byte_can_be_given),
        cmocka_unit_test(another_thread_cannot_give_it_a_second_time),
        cmocka_unit_test(a_block_goes_back_by_the_face_it_came_from),
        cmocka_unit_test(memory_that_is_not_the_cpus_has_no_raw_face),
        cmocka_unit_test(blocks_are_found_by_any_of_their_bytes),
        cmocka_unit_test(alignment_is_as_asked),
        cmocka_unit_test(figures_and_bytes_are_those_of_a_plain_model),
        cmocka_unit_test(no_owner_sees_anothers_bytes_however_a_block_comes),
        cmocka_unit_test(a_first_owner_does_not_see_who_had_its_buffer_next),
        cmocka_unit_test(no_owner_sees_what_another_has_locked),
        cmocka_unit_test(the_same_owner_pays_for_no_clearing),
        cmocka_unit_test(a_budget_takes_what_is_kept_first),
        cmocka_unit_test(pools_of_one_root_share_one_budget),
        cmocka_unit_test(a_tightened_pool_keeps_less),
        cmocka_unit_test(an_idle_pool_gives_back_and_wakes_again),
        cmocka_unit_test(by_default_100_ms_of_rest_leave_a_twentieth),
        cmocka_unit_test(a_pool_that_is_lived_in_rests_for_long_before_it_gives_back),
        cmocka_unit_test(a_busy_pool_lets_go_of_what_is_stale),
        cmocka_unit_test(eight_threads_never_share_a_block),
        cmocka_unit_test(a_thread_that_ends_leaves_its_cache_to_the_pool),
        cmocka_unit_test(a_forked_child_has_the_pool_and_its_own_keeper),
        cmocka_unit_test(more_pools_than_a_thread_has_caches_for_work),
    };
    return cmocka_run_group_tests_name("pool_raw", tests, NULL, NULL);
}
