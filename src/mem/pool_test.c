/*
 * The pool: size classes, misuse, limits, and that no owner ever sees another one's bytes.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"

#include <umo/pool.h>

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define SECRET 0x5E

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_pool *pool;
} rig;

static rig rig_open(umo_storage_mode mode, const wrapper_switches *switches,
                    const umo_driver_options *options, uint64_t limit_bytes, size_t keep_bytes_max)
{
    rig r = {0};
    r.device = wrapper_device(switches, options);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "pool", limit_bytes, &r.scope, NULL), UMO_OK);
    const umo_pool_options what = {.device = r.device,
                                   .scope = r.scope,
                                   .mode = mode,
                                   .keep_bytes_max = keep_bytes_max,
                                   .idle_ns = UINT64_MAX};
    assert_int_equal(umo_pool_create(&what, &r.pool, NULL), UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    wrapper = (wrapper_switches){.apart = wrapper.apart};
    umo_pool_destroy(r->pool);
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
    assert_int_equal(wrapper_calls.live, 0);
    wrapper = (wrapper_switches){0};
}

static umo_pool_stats stats(const rig *r)
{
    umo_pool_stats s;
    umo_pool_read(r->pool, &s);
    return s;
}

static umo_buffer *take(const rig *r, size_t size_bytes, uint64_t owner)
{
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_pool_alloc(r->pool, size_bytes, owner, &buffer, NULL), UMO_OK);
    assert_true(umo_buffer_size(buffer) >= size_bytes);
    return buffer;
}

static void give(const rig *r, umo_buffer *buffer)
{
    assert_int_equal(umo_pool_free(r->pool, buffer), UMO_OK);
}

/* Every size up to a mebibyte: long enough, and not much longer; longer sizes have longer blocks;
 * what comes back is taken again, and by whom it fits exactly. */
static void a_block_is_long_enough_and_not_much_longer(void **state)
{
    (void)state;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        rig r = rig_open((umo_storage_mode)mode, NULL, NULL, 0, 0);
        size_t page = umo_os_page_bytes();
        size_t before = 0;
        for (size_t size = 1; size <= (size_t)1 << 20; size += size < 5000 ? 1 : 997) {
            umo_buffer *buffer = take(&r, size, 0);
            size_t have = umo_buffer_size(buffer);
            if (mode == UMO_UNIFIED) {
                assert_true(have - size < 64 || have - size <= size / (size <= 65536 ? 4 : 16));
            } else {
                assert_true(have - size < (size < page ? 64 : page));
            }
            assert_true(have >= before);
            before = have;
            give(&r, buffer);
            umo_buffer *exact = take(&r, have, 0);
            assert_ptr_equal(exact, buffer);
            give(&r, exact);
            umo_pool_trim(r.pool, 0);
        }
        rig_close(&r);
    }
}

/* Memory that cannot be cut serves who wants less, but not much less. */
static void a_kept_block_serves_about_its_size(void **state)
{
    (void)state;
    rig r = rig_open(UMO_PRIVATE, NULL, NULL, 0, 0);
    size_t page = umo_os_page_bytes();
    umo_buffer *kept = take(&r, 16 * page, 0);
    give(&r, kept);
    umo_buffer *other = take(&r, 14 * page, 0); /* two pages less */
    assert_ptr_not_equal(other, kept);
    umo_buffer *less = take(&r, 15 * page, 0);
    assert_ptr_equal(less, kept);
    give(&r, less);
    give(&r, other);
    kept = take(&r, 15 * page, 0); /* the shortest that will do */
    assert_int_equal(umo_buffer_size(kept), 16 * page);
    other = take(&r, 13 * page, 0);
    assert_int_equal(umo_buffer_size(other), 14 * page);
    give(&r, kept);
    give(&r, other);
    umo_pool_trim(r.pool, 16 * page); /* the one unused for longest goes */
    assert_int_equal(stats(&r).reserved_bytes, 14 * page);
    kept = take(&r, 256, 0);
    give(&r, kept);
    other = take(&r, 128, 0);
    assert_ptr_not_equal(other, kept); /* half */
    less = take(&r, 129, 0);
    assert_ptr_equal(less, kept);
    give(&r, less);
    give(&r, other);
    rig_close(&r);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0);
    umo_buffer *buffer = NULL;
    const size_t sizes[] = {
        0, SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, SIZE_MAX / 2 + 2, ((size_t)7 << 61) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_not_equal(umo_pool_alloc(r.pool, sizes[i], 0, &buffer, NULL), UMO_OK);
        assert_null(buffer);
    }
    assert_int_equal(stats(&r).live_bytes, 0);
    umo_pool *pool = NULL;
    umo_pool_options bad = {.device = NULL, .scope = r.scope};
    assert_int_equal(umo_pool_create(&bad, &pool, NULL), UMO_E_INVAL);
    bad = (umo_pool_options){.device = r.device};
    assert_int_equal(umo_pool_create(&bad, &pool, NULL), UMO_E_INVAL);
    bad = (umo_pool_options){.device = r.device, .scope = r.scope, .mode = (umo_storage_mode)3};
    assert_int_equal(umo_pool_create(&bad, &pool, NULL), UMO_E_INVAL);
    const wrapper_switches lacks = {.caps_off = UMO_CAP_PRIVATE};
    umo_device *device = wrapper_device(&lacks, NULL);
    bad = (umo_pool_options){.device = device, .scope = r.scope, .mode = UMO_PRIVATE};
    assert_int_equal(umo_pool_create(&bad, &pool, NULL), UMO_E_UNSUPPORTED);
    assert_null(pool);
    umo_device_release(device);
    umo_pool_destroy(NULL);
    rig_close(&r);
}

static void a_double_free_and_a_foreign_buffer_are_errors(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0);
    rig other = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0);
    umo_buffer *buffer = take(&r, 100, 1);
    assert_int_equal(umo_pool_free(other.pool, buffer), UMO_E_INVAL);
    give(&r, buffer);
    assert_int_equal(umo_pool_free(r.pool, buffer), UMO_E_INVAL);
    assert_int_equal(umo_pool_free(r.pool, buffer), UMO_E_INVAL);
    umo_buffer *first = take(&r, 100, 1);
    umo_buffer *second = take(&r, 100, 1);
    assert_ptr_equal(first, buffer);
    assert_ptr_not_equal(first, second); /* not given out twice */
    umo_buffer *foreign = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 100, UMO_UNIFIED, &foreign, NULL), UMO_OK);
    assert_int_equal(umo_pool_free(r.pool, foreign), UMO_E_INVAL);
    assert_int_equal(umo_pool_free(r.pool, NULL), UMO_E_INVAL);
    umo_buffer_release(foreign);
    assert_int_equal(stats(&r).live_bytes, 200);
    give(&r, first);
    give(&r, second);
    assert_int_equal(stats(&r).live_bytes, 0);
    assert_int_equal(stats(&other).live_bytes, 0);
    umo_pool_trim(r.pool, 0);
    rig_close(&other);
    rig_close(&r);
}

static void figures_add_up(void **state)
{
    (void)state;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        size_t page = umo_os_page_bytes();
        rig r = rig_open((umo_storage_mode)mode, NULL, NULL, 0, 3 * page);
        umo_buffer *blocks[10];
        for (size_t i = 0; i < 10; i++) {
            blocks[i] = take(&r, page - 6, 0);
        }
        umo_pool_stats s = stats(&r);
        assert_int_equal(s.live_bytes, 10 * (page - 6));
        assert_int_equal(s.peak_live_bytes, 10 * (page - 6));
        assert_int_equal(s.reserved_bytes, 10 * page);
        assert_int_equal(s.kept_bytes, 0);
        assert_int_equal(s.misses, 10);
        for (size_t i = 0; i < 10; i++) {
            give(&r, blocks[i]);
            s = stats(&r);
            assert_int_equal(s.live_bytes, (9 - i) * (page - 6));
            assert_int_equal(s.kept_bytes, (i < 3 ? i + 1 : 3) * page);
            assert_int_equal(s.reserved_bytes, (9 - i) * page + s.kept_bytes);
        }
        umo_counters c;
        umo_scope_read(r.scope, &c);
        assert_in_range(c.live_bytes, 3 * page, 3 * page + 3 * page / 512);
        umo_buffer *again = take(&r, page - 7, 0);
        assert_int_equal(stats(&r).hits, 1);
        assert_int_equal(stats(&r).live_bytes, page - 7);
        give(&r, again);
        umo_pool_trim(r.pool, 2 * page);
        assert_int_equal(stats(&r).reserved_bytes, 2 * page);
        umo_pool_trim(r.pool, 0);
        s = stats(&r);
        assert_int_equal(s.reserved_bytes, 0);
        assert_int_equal(s.kept_bytes, 0);
        assert_int_equal(s.peak_live_bytes, 10 * (page - 6));
        assert_int_equal(s.peak_reserved_bytes, 10 * page);
        assert_int_equal(s.trimmed_bytes, 10 * page);
        umo_scope_read(r.scope, &c);
        assert_int_equal(c.live_bytes, 0);
        rig_close(&r);
    }
}

static void a_hit_calls_no_driver(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0);
    give(&r, take(&r, 4096, 7));
    uint64_t before = wrapper_calls.alloc;
    for (int i = 0; i < 100; i++) {
        give(&r, take(&r, 4000, 7));
    }
    assert_int_equal(wrapper_calls.alloc, before);
    rig_close(&r);
}

static void a_limit_takes_what_is_kept_first(void **state)
{
    (void)state;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        size_t page = umo_os_page_bytes();
        rig r = rig_open((umo_storage_mode)mode, NULL, NULL, 16 * page, 0);
        umo_buffer *small[16];
        for (size_t i = 0; i < 16; i++) {
            small[i] = take(&r, page, 0);
        }
        umo_buffer *none = NULL;
        assert_int_equal(umo_pool_alloc(r.pool, 1, 0, &none, NULL), UMO_E_LIMIT);
        assert_null(none);
        for (size_t i = 0; i < 16; i++) {
            give(&r, small[i]);
        }
        /* All of the budget is kept in short blocks: they go. */
        umo_buffer *big = take(&r, 16 * page, 0);
        assert_int_equal(stats(&r).reserved_bytes, 16 * page);
        assert_int_equal(umo_pool_alloc(r.pool, 1, 0, &none, NULL), UMO_E_LIMIT);
        assert_int_equal(stats(&r).live_bytes, 16 * page);
        give(&r, big);
        rig_close(&r);
    }
}

/* Somebody who still holds a reference must not see the next taker's bytes. */
static void a_block_that_somebody_holds_is_not_handed_out(void **state)
{
    (void)state;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        rig r = rig_open((umo_storage_mode)mode, NULL, NULL, 0, 0);
        umo_buffer *held = take(&r, 5000, 1);
        umo_buffer_acquire(held);
        give(&r, held);
        umo_buffer *next = take(&r, 5000, 1);
        assert_ptr_not_equal(next, held);
        umo_pool_trim(r.pool, 0);
        umo_buffer *third = take(&r, 5000, 1);
        if (mode == UMO_UNIFIED) {
            assert_ptr_not_equal(umo_buffer_host(third), umo_buffer_host(held));
        }
        umo_buffer_release(held);
        give(&r, next);
        give(&r, third);
        rig_close(&r);
    }
}

/* What the buffer face keeps goes by itself, on a device of its own memory too. */
static void an_idle_pool_gives_its_blocks_back(void **state)
{
    (void)state;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        rig r = {.device = wrapper_device(NULL, NULL)};
        assert_int_equal(umo_scope_create(NULL, "pool", 0, &r.scope, NULL), UMO_OK);
        const umo_pool_options what = {.device = r.device,
                                       .scope = r.scope,
                                       .mode = (umo_storage_mode)mode,
                                       .idle_ns = 5000000,
                                       .idle_keep_bytes = 1};
        assert_int_equal(umo_pool_create(&what, &r.pool, NULL), UMO_OK);
        for (int round = 0; round < 2; round++) {
            give(&r, take(&r, 100000, 1));
            for (int i = 0; i < 300 && stats(&r).reserved_bytes > 0; i++) {
                (void)usleep(5000);
            }
            assert_int_equal(stats(&r).reserved_bytes, 0);
        }
        rig_close(&r);
    }
}

/* ---- owners ---- */

static void secret_run(void *const *args, const size_t global[3])
{
    memset(args[0], SECRET, global[0]);
}

/* Writes a secret on the device side of the whole block, with a kernel, as a tenant does. */
static void fill_device(umo_buffer *buffer)
{
    static const umo_host_kernel kernels[] = {{"secret", secret_run}, {NULL, NULL}};
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
    umo_device *device = umo_buffer_device(buffer);
    umo_program *program = NULL;
    umo_kernel *kernel = NULL;
    assert_int_equal(umo_program_create(device, &source, &program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(program, "secret", &kernel, NULL), UMO_OK);
    const umo_access write = {.size_bytes = umo_buffer_size(buffer),
                              .side = UMO_SIDE_DEVICE,
                              .use = UMO_WRITE,
                              .queue = 2};
    const umo_kernel_arg arg = {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(buffer)};
    const umo_grid grid = {.dimensions = 1, .global = {umo_buffer_size(buffer)}};
    umo_fence_set waits;
    umo_fence done = {0};
    assert_int_equal(umo_access_begin(buffer, &write, &waits), UMO_OK);
    assert_int_equal(
        umo_kernel_launch(kernel, 2, &arg, 1, &grid, waits.fences, waits.count, &done, NULL),
        UMO_OK);
    assert_int_equal(umo_access_end(buffer, &write, done), UMO_OK);
    umo_kernel_destroy(kernel);
    umo_program_destroy(program);
}

/* Likewise on either side. */
static void fill(umo_buffer *buffer, umo_side side)
{
    size_t size_bytes = umo_buffer_size(buffer);
    if (side == UMO_SIDE_DEVICE) {
        fill_device(buffer);
        return;
    }
    const umo_access write = {.size_bytes = size_bytes, .side = side, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &write, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    memset(umo_buffer_host(buffer), SECRET, size_bytes);
    assert_int_equal(umo_access_end(buffer, &write, (umo_fence){0}), UMO_OK);
}

static void assert_no_secret(const void *bytes, size_t size_bytes)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size_bytes; i++) {
        assert_int_not_equal(at[i], SECRET);
    }
}

/* Looks everywhere that a new owner could: through brackets, downloads, and both sides raw where
 * nothing stands between an address and the memory. */
static void assert_clean(umo_buffer *buffer)
{
    size_t size_bytes = umo_buffer_size(buffer);
    const umo_memory *memory = umo_buffer_memory(buffer);
    if (!wrapper.apart) {
        assert_no_secret(memory->native, size_bytes);
    }
    if (umo_buffer_host(buffer) != NULL) {
        assert_no_secret(umo_buffer_host(buffer), size_bytes);
    }
    for (int side = UMO_SIDE_HOST; side <= UMO_SIDE_DEVICE; side++) {
        const umo_access read = {.size_bytes = size_bytes, .side = (umo_side)side, .use = UMO_READ};
        umo_fence_set waits;
        assert_int_equal(umo_access_begin(buffer, &read, &waits), UMO_OK);
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        assert_no_secret(side == UMO_SIDE_HOST ? umo_buffer_host(buffer) : memory->native,
                         size_bytes);
        assert_int_equal(umo_access_end(buffer, &read, (umo_fence){0}), UMO_OK);
    }
    void *back = calloc(1, size_bytes);
    assert_non_null(back);
    umo_fence fence;
    assert_int_equal(umo_buffer_download(buffer, 0, back, size_bytes, 1, &fence), UMO_OK);
    assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
    assert_no_secret(back, size_bytes);
    free(back);
}

static void no_owner_sees_anothers_bytes(void **state)
{
    (void)state;
    for (int variant = 0; variant < UMO_STORAGE_MODES * 2 * 2 * 2; variant++) {
        const wrapper_switches switches = {.apart = (variant / 12) % 2 != 0};
        const umo_driver_options options = {.delay_ns = (variant / 3) % 2 != 0 ? 10000 : 0,
                                            .test_mode = (variant / 6) % 2 != 0};
        rig r = rig_open((umo_storage_mode)(variant % 3), &switches, &options, 0, 0);
        for (int side = UMO_SIDE_HOST; side <= UMO_SIDE_DEVICE; side++) {
            /* Both sides hold it, the second one last. */
            umo_buffer *buffer = take(&r, 1000, 1);
            fill(buffer, UMO_SIDE_HOST);
            fill(buffer, (umo_side)side);
            give(&r, buffer);
            umo_buffer *next = take(&r, 1000, 2);
            assert_ptr_equal(next, buffer);
            assert_clean(next);
            fill(next, (umo_side)side);
            give(&r, next);
            /* Nobody is somebody else too. */
            next = take(&r, 900, 0);
            assert_clean(next);
            fill(next, (umo_side)side);
            give(&r, next);
            next = take(&r, 1000, 1);
            assert_clean(next);
            give(&r, next);
            umo_pool_trim(r.pool, 0);
        }
        rig_close(&r);
    }
}

/* Longer than what is cleared at a time. */
static void a_long_block_is_cleared_to_its_end(void **state)
{
    (void)state;
    const umo_driver_options options = {.delay_ns = 10000, .test_mode = true};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        rig r = rig_open((umo_storage_mode)mode, NULL, &options, 0, 0);
        umo_buffer *buffer = take(&r, 300001, 1);
        fill(buffer, UMO_SIDE_HOST);
        fill(buffer, UMO_SIDE_DEVICE);
        give(&r, buffer);
        assert_ptr_equal(take(&r, 300001, 2), buffer);
        assert_clean(buffer);
        give(&r, buffer);
        rig_close(&r);
    }
}

static void the_same_owner_pays_for_no_clearing(void **state)
{
    (void)state;
    rig r = rig_open(UMO_PRIVATE, NULL, NULL, 0, 0);
    umo_buffer *buffer = take(&r, 1000, 1);
    fill(buffer, UMO_SIDE_DEVICE);
    give(&r, buffer);
    uint64_t before = wrapper_calls.transfer;
    assert_ptr_equal(take(&r, 1000, 1), buffer);
    assert_int_equal(wrapper_calls.transfer, before);
    give(&r, buffer);
    rig_close(&r);
}

static const char *failing;

static bool fails_named(const char *entry)
{
    return failing != NULL && strcmp(entry, failing) == 0;
}

/* A block that could not be cleared must not reach its new owner later as its own. */
static void a_clearing_that_fails_is_not_forgotten(void **state)
{
    (void)state;
    const umo_storage_mode modes[] = {UMO_MANAGED, UMO_PRIVATE, UMO_UNIFIED};
    for (int m = 0; m < 3; m++) {
        const wrapper_switches switches = {.fails = fails_named, .apart = modes[m] == UMO_UNIFIED};
        rig r = rig_open(modes[m], &switches, NULL, 0, 0);
        umo_buffer *buffer = take(&r, 1000, 1);
        fill(buffer, UMO_SIDE_HOST);
        fill(buffer, UMO_SIDE_DEVICE);
        give(&r, buffer);
        failing = modes[m] == UMO_UNIFIED ? "publish" : "transfer";
        umo_buffer *next = NULL;
        umo_status status = umo_pool_alloc(r.pool, 1000, 2, &next, NULL);
        failing = NULL;
        if (status == UMO_OK) {
            give(&r, next); /* it gave another block */
        } else {
            assert_null(next);
        }
        for (int i = 0; i < 2; i++) {
            next = take(&r, 1000, 2);
            assert_clean(next);
            give(&r, next);
        }
        assert_int_equal(stats(&r).live_bytes, 0);
        rig_close(&r);
    }
}

/* Memory that goes back to the device and comes from it again, uncleared, as devices do. */
static void *recycled;
static size_t recycled_bytes;
static umo_driver recycler;

static umo_status recycler_alloc(void *device_state, size_t size_bytes, umo_storage_mode mode,
                                 umo_memory *out, umo_error *error)
{
    umo_status status = umo_driver_host.alloc(device_state, size_bytes, mode, out, error);
    if (status == UMO_OK) {
        out->cleared = false;
    }
    if (status == UMO_OK && recycled != NULL) {
        size_t both = size_bytes < recycled_bytes ? size_bytes : recycled_bytes;
        memcpy(out->native, recycled, both);
        if (out->host != NULL) {
            memcpy(out->host, recycled, both);
        }
    }
    return status;
}

static void recycler_free(void *device_state, umo_memory *memory)
{
    free(recycled);
    recycled = malloc(memory->size_bytes);
    recycled_bytes = memory->size_bytes;
    if (recycled != NULL) {
        memcpy(recycled, memory->native, memory->size_bytes);
    }
    umo_driver_host.free(device_state, memory);
}

static void memory_fresh_from_the_device_shows_nobodys_bytes(void **state)
{
    (void)state;
    recycler = umo_driver_host;
    recycler.name = "recycler";
    recycler.alloc = recycler_alloc;
    recycler.free = recycler_free;
    assert_int_equal(umo_driver_register(&recycler, NULL), UMO_OK);
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        rig r = {0};
        assert_int_equal(umo_device_open("recycler", 0, NULL, &r.device, NULL), UMO_OK);
        assert_int_equal(umo_scope_create(NULL, "pool", 0, &r.scope, NULL), UMO_OK);
        const umo_pool_options what = {
            .device = r.device, .scope = r.scope, .mode = (umo_storage_mode)mode};
        assert_int_equal(umo_pool_create(&what, &r.pool, NULL), UMO_OK);
        umo_buffer *buffer = take(&r, 1000, 1);
        fill(buffer, UMO_SIDE_HOST);
        fill(buffer, UMO_SIDE_DEVICE);
        give(&r, buffer);
        umo_pool_trim(r.pool, 0);
        buffer = take(&r, 1000, 2);
        assert_clean(buffer);
        give(&r, buffer);
        rig_close(&r);
    }
    free(recycled);
    recycled = NULL;
}

static void a_pool_keeps_its_scope(void **state)
{
    (void)state;
    umo_device *device = wrapper_device(NULL, NULL);
    umo_scope *scope = NULL;
    umo_pool *pool = NULL;
    assert_int_equal(umo_scope_create(NULL, "short", 0, &scope, NULL), UMO_OK);
    const umo_pool_options what = {.device = device, .scope = scope};
    assert_int_equal(umo_pool_create(&what, &pool, NULL), UMO_OK);
    umo_scope_destroy(scope);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_pool_alloc(pool, 100, 0, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_pool_free(pool, buffer), UMO_OK);
    umo_pool_destroy(pool);
    umo_device_release(device);
}

typedef struct churn {
    const rig *r;
    _Atomic bool stop;
} churn;

static void *churn_main(void *argument)
{
    churn *c = argument;
    while (!atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        give(c->r, take(c->r, (size_t)1 << 20, 0));
        umo_pool_trim(c->r->pool, 0);
    }
    return NULL;
}

/* At any moment: a block that is still being made is not live. */
static void what_is_live_is_reserved(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0);
    churn c = {.r = &r};
    pthread_t thread;
    unsigned seen[2] = {0, 0};
    assert_int_equal(pthread_create(&thread, NULL, churn_main, &c), 0);
    const uint64_t start = umo_os_now_ns();
    for (uint64_t passed_ns = 0;
         passed_ns < 500000000 || (seen[0] * seen[1] == 0 && passed_ns < 20000000000);
         passed_ns = umo_os_now_ns() - start) {
        umo_pool_stats s = stats(&r);
        seen[s.live_bytes != 0]++;
        assert_true(s.reserved_bytes >= s.live_bytes);
    }
    atomic_store_explicit(&c.stop, true, memory_order_relaxed);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(seen[0] > 0 && seen[1] > 0);
    assert_int_equal(stats(&r).live_bytes, 0);
    rig_close(&r);
}

static void pools_below_a_scope_are_read_together(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0);
    umo_scope *below = NULL;
    assert_int_equal(umo_scope_create(r.scope, "below", 0, &below, NULL), UMO_OK);
    umo_pool *inner = NULL;
    const umo_pool_options what = {.device = r.device, .scope = below, .idle_ns = UINT64_MAX};
    assert_int_equal(umo_pool_create(&what, &inner, NULL), UMO_OK);
    rig other = rig_open(UMO_UNIFIED, NULL, NULL, 0, 0); /* of another root */
    umo_buffer *blocks[3] = {take(&r, 1000, 0), NULL, take(&other, 500, 0)};
    assert_int_equal(umo_pool_alloc(inner, 3000, 0, &blocks[1], NULL), UMO_OK);
    give(&r, blocks[0]);

    umo_pool_stats outer_stats = stats(&r);
    umo_pool_stats inner_stats;
    umo_pool_stats both;
    umo_pool_read(inner, &inner_stats);
    umo_pools_read(r.scope, &both);
    assert_int_equal(both.live_bytes, 3000);
    assert_int_equal(both.reserved_bytes, outer_stats.reserved_bytes + inner_stats.reserved_bytes);
    assert_int_equal(both.kept_bytes, outer_stats.kept_bytes + inner_stats.kept_bytes);
    assert_int_equal(both.misses, 2);
    assert_true(both.fragmentation >= 0 && both.fragmentation <= 1);
    umo_pools_read(below, &both);
    assert_int_equal(both.reserved_bytes, inner_stats.reserved_bytes);
    assert_int_equal(both.misses, 1);

    assert_int_equal(umo_pool_free(inner, blocks[1]), UMO_OK);
    umo_pool_destroy(inner);
    umo_pools_read(below, &both);
    assert_int_equal(both.reserved_bytes, 0);
    umo_scope_destroy(below);
    give(&other, blocks[2]);
    umo_pool_destroy(other.pool);
    umo_scope_destroy(other.scope);
    umo_device_release(other.device);
    rig_close(&r);
}

/* A block comes back with a command still running on it: its next taker waits. */
static void a_block_with_a_pending_use_is_waited_for(void **state)
{
    (void)state;
    const umo_driver_options options = {.delay_ns = 2000000};
    rig r = rig_open(UMO_PRIVATE, NULL, &options, 0, 0);
    static unsigned char secret[1024];
    memset(secret, SECRET, sizeof secret);
    for (uint64_t owner = 1; owner <= 2; owner++) {
        umo_buffer *buffer = take(&r, 1024, 1);
        umo_fence fence;
        assert_int_equal(umo_buffer_upload(buffer, 0, secret, 1024, 3, &fence), UMO_OK);
        give(&r, buffer);
        assert_ptr_equal(take(&r, 1024, owner), buffer);
        if (owner == 2) {
            assert_true(umo_fence_done(fence));
            assert_clean(buffer);
        } else {
            unsigned char mine[1024] = {0};
            umo_fence later;
            assert_int_equal(umo_buffer_upload(buffer, 0, mine, 1024, 0, &later), UMO_OK);
            assert_int_equal(umo_fence_wait(later, UINT64_MAX), UMO_OK);
            assert_true(umo_fence_done(fence));
            assert_no_secret(umo_buffer_memory(buffer)->native, 1024);
        }
        give(&r, buffer);
    }
    rig_close(&r);
}

/* ---- threads ---- */

enum {
    THREADS = 4,
    ROUNDS = 2000,
    HELD = 6
};

typedef struct worker {
    const rig *r;
    unsigned seed;
    uint64_t owner;
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    umo_buffer *held[HELD] = {0};
    size_t sizes[HELD] = {0};
    for (int i = 0; i < ROUNDS; i++) {
        size_t at = (size_t)rand_r(&w->seed) % HELD;
        if (held[at] != NULL) {
            const unsigned char *bytes = umo_buffer_host(held[at]);
            for (size_t k = 0; k < sizes[at]; k++) {
                if (bytes[k] != (unsigned char)w->owner) {
                    return w; /* somebody else has it too */
                }
            }
            if (umo_pool_free(w->r->pool, held[at]) != UMO_OK) {
                return w;
            }
            held[at] = NULL;
            continue;
        }
        sizes[at] = 1 + (size_t)rand_r(&w->seed) % 700;
        if (umo_pool_alloc(w->r->pool, sizes[at], w->owner, &held[at], NULL) != UMO_OK) {
            return w;
        }
        memset(umo_buffer_host(held[at]), (int)w->owner, sizes[at]);
        if (i % 100 == 0) {
            umo_pool_trim(w->r->pool, 512);
        }
    }
    for (size_t i = 0; i < HELD; i++) {
        if (held[i] != NULL && umo_pool_free(w->r->pool, held[i]) != UMO_OK) {
            return w;
        }
    }
    return NULL;
}

static void threads_never_share_a_block(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, NULL, 0, 3000);
    pthread_t threads[THREADS];
    worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){&r, i + 1, i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed = &r;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(stats(&r).live_bytes, 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_long_enough_and_not_much_longer),
        cmocka_unit_test(a_kept_block_serves_about_its_size),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(a_double_free_and_a_foreign_buffer_are_errors),
        cmocka_unit_test(figures_add_up),
        cmocka_unit_test(a_hit_calls_no_driver),
        cmocka_unit_test(a_limit_takes_what_is_kept_first),
        cmocka_unit_test(a_block_that_somebody_holds_is_not_handed_out),
        cmocka_unit_test(an_idle_pool_gives_its_blocks_back),
        cmocka_unit_test(no_owner_sees_anothers_bytes),
        cmocka_unit_test(a_long_block_is_cleared_to_its_end),
        cmocka_unit_test(the_same_owner_pays_for_no_clearing),
        cmocka_unit_test(a_clearing_that_fails_is_not_forgotten),
        cmocka_unit_test(memory_fresh_from_the_device_shows_nobodys_bytes),
        cmocka_unit_test(a_pool_keeps_its_scope),
        cmocka_unit_test(what_is_live_is_reserved),
        cmocka_unit_test(pools_below_a_scope_are_read_together),
        cmocka_unit_test(a_block_with_a_pending_use_is_waited_for),
        cmocka_unit_test(threads_never_share_a_block),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
