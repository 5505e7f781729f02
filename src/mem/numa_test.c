/*
 * Buffers, pools and votes on two nodes: the machine's, or fake ones (see numa_fake_test.h).
 */
#include "mem/heap_pages.h"
#include "mem/nodes.h"
#include "mem/numa.h"
#include "mem/numa_fake_test.h"
#include "mem/record.h"

#include "base/scope.h"

#include <umo/pool.h>
#include <umo/profile.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define NOWHERE 77

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
} rig;

static rig r;

static int rig_open(void **state)
{
    (void)state;
    numa_test_start();
    (void)printf("# %s nodes: %d and %d\n", numa_faked ? "fake" : "real", (int)numa_first,
                 (int)numa_second);
    return umo_device_open("host", 0, NULL, &r.device, NULL) != UMO_OK ||
                   umo_scope_create(NULL, "root", 0, &r.scope, NULL) != UMO_OK
               ? -1
               : 0;
}

static int rig_close(void **state)
{
    (void)state;
    umo_counters counters;
    umo_scope_read(r.scope, &counters);
    umo_scope_destroy(r.scope);
    umo_device_release(r.device);
    return counters.live_buffers == 0 && counters.live_bytes == 0 ? 0 : -1;
}

static int calm(void **state)
{
    (void)state;
    numa_fake.refuses = false;
    numa_fake.sticky = 0;
    numa_fake.moving = NULL;
    return numa_run_on(numa_first) ? 0 : -1;
}

static umo_buffer *movable(size_t size_bytes, int32_t node)
{
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    if (umo_buffer_alloc_movable_on(r.device, r.scope, size_bytes, UMO_UNIFIED, node, &buffer,
                                    &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return buffer;
}

static uint64_t on(int32_t node, umo_buffer *buffer)
{
    return numa_bytes_on(node, umo_buffer_host(buffer), umo_buffer_size(buffer));
}

/* ---- placing ---- */

static void a_buffer_lies_on_its_node_whoever_touches_it_first(void **state)
{
    (void)state;
    umo_buffer *there = movable(MIB, numa_second);
    umo_buffer *anywhere = movable(MIB, UMO_NUMA_ANY);
    assert_int_equal(umo_buffer_numa_node(there), UMO_NUMA_ANY); /* nothing is there yet */
    assert_true(numa_touch(numa_first, umo_buffer_host(there), MIB, 1));
    assert_true(numa_touch(numa_first, umo_buffer_host(anywhere), MIB, 1));
    assert_int_equal(on(numa_second, there), MIB);
    assert_int_equal(umo_buffer_numa_node(there), numa_second);
    assert_int_equal(umo_buffer_numa_node(anywhere), numa_first);
    /* Also pages that come behind its addresses later. */
    assert_int_equal(umo_buffer_move(there, UMO_PRIVATE, 0, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_node(there), UMO_NUMA_ANY);
    assert_int_equal(umo_buffer_move(there, UMO_UNIFIED, 0, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(there), MIB, 2));
    assert_int_equal(on(numa_second, there), MIB);
    umo_buffer_release(there);
    umo_buffer_release(anywhere);
}

static void nodes_that_cannot_be_are_refused_and_nothing_is_left(void **state)
{
    (void)state;
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    assert_int_equal(
        umo_buffer_alloc_movable_on(r.device, r.scope, MIB, UMO_UNIFIED, NOWHERE, &buffer, &error),
        UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "77"));
    assert_int_equal(
        umo_buffer_alloc_movable_on(r.device, r.scope, MIB, UMO_UNIFIED, -2, &buffer, NULL),
        UMO_E_NOT_FOUND);
    if (numa_faked) {
        assert_int_equal(
            umo_buffer_alloc_movable_on(r.device, r.scope, MIB, UMO_UNIFIED, 2, &buffer, NULL),
            UMO_E_UNSUPPORTED);
        numa_fake.refuses = true;
        assert_int_equal(
            umo_buffer_alloc_movable_on(r.device, r.scope, MIB, UMO_UNIFIED, 1, &buffer, NULL),
            UMO_E_REFUSED);
    }
    assert_null(buffer);
    assert_int_equal(umo_scope_live(r.scope), 0);
}

static void moving_takes_pages_and_later_ones_along(void **state)
{
    (void)state;
    const size_t size = 5 * MIB / 2;
    const size_t half = 5 * MIB / 4;
    umo_buffer *buffer = movable(size, UMO_NUMA_ANY);
    unsigned char *data = umo_buffer_host(buffer);
    uint64_t moved = 1;
    assert_true(umo_buffer_numa_follows(buffer, r.scope));
    assert_true(numa_touch(numa_first, data, half, 7));
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, &moved, NULL), UMO_OK);
    assert_int_equal(moved, half);
    assert_false(umo_buffer_numa_follows(buffer, NULL));
    for (size_t i = 0; i < half; i++) {
        assert_int_equal(data[i], 7);
    }
    assert_true(numa_touch(numa_first, data, size, 8));
    assert_int_equal(on(numa_second, buffer), size);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, &moved, NULL), UMO_OK);
    assert_int_equal(moved, 0);
    assert_int_equal(umo_buffer_numa_move(buffer, NOWHERE, &moved, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(umo_buffer_numa_move(buffer, UMO_NUMA_ANY, NULL, NULL), UMO_OK);
    assert_true(umo_buffer_numa_follows(buffer, NULL));
    assert_int_equal(umo_buffer_numa_node(buffer), numa_second);
    umo_buffer_release(buffer);
}

static void allocated_memory_of_the_host_moves_too(void **state)
{
    (void)state;
    umo_buffer *buffer = NULL;
    uint64_t moved = 0;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 100, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), 100, 3));
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, &moved, NULL), UMO_OK);
    assert_int_equal(moved, umo_os_page_bytes());
    assert_int_equal(umo_buffer_numa_node(buffer), numa_second);
    umo_buffer_release(buffer);
}

static void what_is_not_umos_own_does_not_move(void **state)
{
    (void)state;
    char *mine = umo_os_pages_alloc(MIB);
    const umo_import import = {.data = mine, .size_bytes = MIB, .whole_pages = true};
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffer, NULL, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, mine, MIB, 1));
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, NULL, &error), UMO_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "own"));
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first); /* but it is seen */
    umo_buffer_release(buffer);
    umo_os_pages_free(mine, MIB);

    umo_pool *pool = NULL;
    const umo_pool_options options = {.device = r.device, .scope = r.scope};
    assert_int_equal(umo_pool_create(&options, &pool, NULL), UMO_OK);
    assert_int_equal(umo_pool_alloc(pool, MIB, 0, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, NULL, NULL), UMO_E_UNSUPPORTED);
    assert_false(umo_buffer_numa_follows(buffer, NULL));
    assert_int_equal(umo_pool_free(pool, buffer), UMO_OK);
    umo_pool_destroy(pool);

    buffer = movable(MIB, UMO_NUMA_ANY);
    assert_int_equal(umo_buffer_move(buffer, UMO_PRIVATE, 0, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, NULL, NULL), UMO_E_UNSUPPORTED);
    umo_buffer_release(buffer);
}

static void pinned_and_exported_memory_does_not_move(void **state)
{
    (void)state;
    umo_buffer *buffer = movable(MIB, UMO_NUMA_ANY);
    umo_error error = {0};
    umo_fence_set waits;
    size_t at = 0;
    uint64_t moved = 0;
    bool more = false;
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), MIB, 1));
    assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, NULL, &error), UMO_E_BUSY);
    assert_non_null(strstr(error.text, "pinned"));
    assert_int_equal(umo_buffer_numa_move_part(buffer, numa_second, &at, &moved, &more, NULL),
                     UMO_E_BUSY);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
    assert_int_equal(umo_buffer_export_begin(buffer, UMO_SIDE_HOST, true, &waits), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, NULL, &error), UMO_E_BUSY);
    assert_non_null(strstr(error.text, "exported"));
    assert_int_equal(umo_buffer_export_end(buffer, UMO_SIDE_HOST, true, (umo_fence){0}), UMO_OK);
    assert_int_equal(on(numa_first, buffer), MIB);
    do {
        assert_int_equal(umo_buffer_numa_move_part(buffer, numa_second, &at, &moved, &more, NULL),
                         UMO_OK);
    } while (more);
    assert_int_equal(at, MIB);
    assert_int_equal(on(numa_second, buffer), MIB);
    /* Nobody but who asks moves a buffer that was placed. */
    assert_int_equal(umo_buffer_numa_move(buffer, numa_first, NULL, NULL), UMO_OK);
    at = 0;
    assert_int_equal(umo_buffer_numa_move_part(buffer, numa_second, &at, &moved, &more, &error),
                     UMO_E_BUSY);
    assert_non_null(strstr(error.text, "placed"));
    umo_buffer_release(buffer);
}

/* ---- what the flight recorder is told ---- */

#define TOLD_MOST 8

typedef struct told {
    size_t count;
    umo_profile_event moves[TOLD_MOST];
} told;

static bool told_add(const umo_profile_event *event, void *user)
{
    told *t = user;
    if (event->kind == UMO_EVENT_NUMA_MOVE) {
        assert_true(t->count < TOLD_MOST);
        t->moves[t->count++] = *event;
    }
    return true;
}

static void moves_that_are_asked_for_are_recorded(void **state)
{
    (void)state;
    const size_t size = 5 * MIB;
    umo_buffer *buffer = movable(size, UMO_NUMA_ANY);
    told t = {0};
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), size, 1));
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, NULL, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, NOWHERE, NULL, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(umo_buffer_numa_move(buffer, UMO_NUMA_ANY, NULL, NULL), UMO_OK);
    assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_first, NULL, NULL), UMO_E_BUSY);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_int_equal(umo_buffer_numa_move(buffer, numa_first, NULL, NULL), UMO_OK);
    assert_int_equal(umo_profile_read(told_add, &t, NULL), UMO_OK);
    const struct {
        int32_t node;
        umo_status status;
        uint64_t size_bytes;
    } want[] = {
        {numa_second, UMO_OK, size}, {NOWHERE, UMO_E_NOT_FOUND, 0}, {numa_first, UMO_E_BUSY, 0}};
    assert_int_equal(t.count, sizeof want / sizeof want[0]);
    for (size_t i = 0; i < t.count; i++) {
        const umo_profile_event *e = &t.moves[i];
        assert_int_equal(e->detail, want[i].node);
        assert_int_equal(e->status, want[i].status);
        assert_int_equal(e->size_bytes, want[i].size_bytes);
        assert_int_equal(e->buffer, t.moves[0].buffer);
        assert_int_equal(e->mode, UMO_UNIFIED);
        assert_int_equal(e->mode_before, 0xFF);
        assert_string_equal(e->scope_name, "root");
    }
    assert_true(t.moves[0].buffer != 0 && t.moves[0].duration_ns > 0);
    umo_buffer_release(buffer);
}

/* ---- while pages are on their way ---- */

static umo_buffer *travelling;
static void *(*promise)(void *unused);
static pthread_t promiser;
static _Atomic bool promised;
static bool promised_early;

static void nap_us(long us)
{
    const struct timespec time = {.tv_nsec = us * 1000};
    (void)nanosleep(&time, NULL);
}

static void *promise_pin(void *unused)
{
    (void)unused;
    if (umo_buffer_pin(travelling, NULL) != UMO_OK) {
        abort();
    }
    atomic_store(&promised, true);
    return NULL;
}

static void *promise_export(void *unused)
{
    (void)unused;
    umo_fence_set waits;
    if (umo_buffer_export_begin(travelling, UMO_SIDE_HOST, false, &waits) != UMO_OK) {
        abort();
    }
    atomic_store(&promised, true);
    return NULL;
}

/* Called in the middle of the first part's move, on the thread that moves. */
static void in_the_middle(void *start, size_t size_bytes)
{
    numa_fake.moving = NULL;
    assert_true(size_bytes <= UMO_NUMA_PART_BYTES);
    assert_int_equal(((uintptr_t)start + size_bytes) % UMO_NUMA_PART_BYTES, 0);
    const umo_access access = {
        .size_bytes = 64, .side = UMO_SIDE_HOST, .use = UMO_WRITE, .scope = r.scope};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(travelling, &access, &waits), UMO_OK);
    assert_int_equal(umo_access_end(travelling, &access, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_buffer_move(travelling, UMO_PRIVATE, 0, NULL), UMO_E_BUSY);
    assert_int_equal(pthread_create(&promiser, NULL, promise, NULL), 0);
    nap_us(30000);
    promised_early = atomic_load(&promised);
}

static void brackets_go_on_while_pages_move_and_promises_wait(void **state)
{
    (void)state;
    void *(*const promises[2])(void *) = {promise_pin, promise_export};
    for (int i = 0; i < 2; i++) {
        promise = promises[i];
        atomic_store(&promised, false);
        travelling = movable(5 * MIB, UMO_NUMA_ANY);
        size_t at = 0;
        uint64_t moved = 0;
        bool more = false;
        assert_true(numa_touch(numa_first, umo_buffer_host(travelling), 5 * MIB, 1));
        numa_fake.moving = in_the_middle;
        assert_int_equal(
            umo_buffer_numa_move_part(travelling, numa_second, &at, &moved, &more, NULL), UMO_OK);
        assert_true(more);
        assert_true(at > 0 && at <= UMO_NUMA_PART_BYTES);
        assert_int_equal(pthread_join(promiser, NULL), 0);
        assert_false(promised_early);
        assert_int_equal(
            umo_buffer_numa_move_part(travelling, numa_second, &at, &moved, &more, NULL),
            UMO_E_BUSY);
        if (i == 1) {
            assert_int_equal(
                umo_buffer_export_end(travelling, UMO_SIDE_HOST, false, (umo_fence){0}), UMO_OK);
        }
        umo_buffer_release(travelling);
    }
}

static _Atomic bool over;

static void *move_to_and_fro(void *argument)
{
    for (unsigned i = 0; !atomic_load(&over); i++) {
        umo_status status = umo_buffer_numa_move(argument,
                                                 i % 3 == 0   ? UMO_NUMA_ANY
                                                 : i % 3 == 1 ? numa_first
                                                              : numa_second,
                                                 NULL, NULL);
        if (status != UMO_OK && status != UMO_E_BUSY && status != UMO_E_UNSUPPORTED) {
            abort();
        }
    }
    return NULL;
}

static void *change_modes(void *argument)
{
    for (unsigned i = 0; !atomic_load(&over); i++) {
        umo_status status =
            umo_buffer_move(argument, i % 2 == 0 ? UMO_PRIVATE : UMO_UNIFIED, 1000000, NULL);
        if (status != UMO_OK && status != UMO_E_BUSY && status != UMO_E_TIMEOUT) {
            abort();
        }
        if (umo_buffer_pin(argument, NULL) == UMO_OK) {
            umo_status_ignore(umo_buffer_unpin(argument));
        }
    }
    return NULL;
}

static void bytes_are_right_whatever_threads_move(void **state)
{
    (void)state;
    umo_buffer *buffer = movable(2 * MIB, UMO_NUMA_ANY);
    pthread_t threads[2];
    atomic_store(&over, false);
    assert_int_equal(pthread_create(&threads[0], NULL, move_to_and_fro, buffer), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, change_modes, buffer), 0);
    for (unsigned i = 1; i < 60; i++) {
        umo_access access = {
            .size_bytes = 2 * MIB, .side = UMO_SIDE_HOST, .use = UMO_WRITE, .scope = r.scope};
        umo_fence_set waits;
        assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        memset(umo_buffer_host(buffer), (int)i, 2 * MIB);
        assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
        access.use = UMO_READ;
        assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        const unsigned char *data = umo_buffer_host(buffer);
        for (size_t b = 0; b < 2 * MIB; b += 4096) {
            assert_int_equal(data[b], i);
        }
        assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
    }
    atomic_store(&over, true);
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    umo_buffer_release(buffer);
}

static void pages_that_will_not_move_are_no_error(void **state)
{
    (void)state;
    if (!numa_faked) {
        skip(); /* every page of ours moves */
    }
    umo_buffer *buffer = movable(MIB, UMO_NUMA_ANY);
    uint64_t moved = 0;
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), MIB, 1));
    numa_fake.sticky = 2;
    assert_int_equal(umo_buffer_numa_move(buffer, numa_second, &moved, NULL), UMO_OK);
    assert_int_equal(moved, MIB / 2);
    assert_int_equal(on(numa_first, buffer), MIB / 2);
    numa_fake.refuses = true;
    assert_int_equal(umo_buffer_numa_move(buffer, numa_first, &moved, NULL), UMO_E_REFUSED);
    assert_int_equal(moved, MIB / 2);
    umo_buffer_release(buffer);
}

/* ---- pools ---- */

static umo_pool *pool_on(int32_t node)
{
    umo_pool *pool = NULL;
    umo_error error = {0};
    const umo_pool_options options = {
        .device = r.device, .scope = r.scope, .one_node = true, .numa_node = node};
    if (umo_pool_create(&options, &pool, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return pool;
}

static void a_pools_blocks_lie_on_its_node(void **state)
{
    (void)state;
    umo_pool *pool = pool_on(numa_second);
    void *blocks[3];
    const size_t sizes[3] = {100, 64 * KIB, 3 * MIB};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(umo_pool_take(pool, sizes[i], 0, &blocks[i]), UMO_OK);
        assert_true(numa_touch(numa_first, blocks[i], sizes[i], 1));
        assert_true(numa_bytes_on(numa_second, blocks[i], sizes[i]) >= sizes[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(umo_pool_give(pool, blocks[i]), UMO_OK);
    }
    umo_pool_trim(pool, 0);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_pool_alloc(pool, MIB, 0, &buffer, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), MIB, 1));
    assert_int_equal(umo_buffer_numa_node(buffer), numa_second);
    assert_int_equal(umo_pool_free(pool, buffer), UMO_OK);
    umo_pool_destroy(pool);
}

static void a_pool_that_cannot_be_on_its_node_is_not_made(void **state)
{
    (void)state;
    umo_pool *pool = NULL;
    umo_error error = {0};
    umo_pool_options options = {
        .device = r.device, .scope = r.scope, .one_node = true, .numa_node = NOWHERE};
    assert_int_equal(umo_pool_create(&options, &pool, &error), UMO_E_NOT_FOUND);
    options.numa_node = numa_second;
    options.mode = UMO_PRIVATE;
    assert_int_equal(umo_pool_create(&options, &pool, &error), UMO_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "carves"));
    options.mode = UMO_UNIFIED;
    if (numa_faked) {
        options.numa_node = 5;
        assert_int_equal(umo_pool_create(&options, &pool, &error), UMO_E_UNSUPPORTED);
        options.numa_node = numa_second;
        numa_fake.refuses = true;
        assert_int_equal(umo_pool_create(&options, &pool, &error), UMO_E_REFUSED);
    }
    assert_null(pool);
    assert_int_equal(umo_scope_live(r.scope), 0);
    numa_fake.refuses = false;
    options.one_node = false; /* the number alone says nothing */
    uint64_t binds = atomic_load(&numa_fake.binds);
    assert_int_equal(umo_pool_create(&options, &pool, NULL), UMO_OK);
    assert_int_equal(atomic_load(&numa_fake.binds), binds);
    umo_pool_destroy(pool);
}

/* Pages go, come and change their addresses; mappings are made anew. */
static void a_heaps_pages_stay_on_its_node_whatever_becomes_of_them(void **state)
{
    (void)state;
    enum {
        HELD = 24,
        STEPS = 400
    };
    umo_heap heap;
    umo_extent *held[HELD] = {NULL};
    unsigned seed = 4;
    assert_true(umo_heap_init(&heap, 64 * MIB, 4096));
    assert_int_equal(umo_heap_bind(&heap, numa_second, NULL), UMO_OK);
    uint64_t renews = atomic_load(&numa_fake.renews);
    for (int step = 0; step < STEPS; step++) {
        size_t i = (size_t)rand_r(&seed) % HELD;
        if (held[i] != NULL) {
            umo_heap_give(&heap, held[i], 0);
            held[i] = NULL;
            if (rand_r(&seed) % 8 == 0) {
                (void)umo_heap_empty(&heap, 512 * KIB, 1);
            }
            continue;
        }
        size_t size = 4096 + (size_t)rand_r(&seed) % (768 * KIB) / 64 * 64;
        umo_heap_place place;
        held[i] = umo_heap_take_free(&heap, size);
        if (held[i] == NULL && umo_heap_place_find(&heap, size, &place)) {
            held[i] = umo_heap_place_take(&heap, &place, umo_heap_place_missing(&place));
        }
        assert_non_null(held[i]);
        void *data = umo_extent_data(&heap, held[i]);
        assert_true(numa_touch(numa_first, data, size, step & 0xff));
        assert_int_equal(numa_bytes_on(numa_first, data, size), 0);
    }
    assert_true(heap.moved_bytes > 0);
    assert_true(atomic_load(&numa_fake.renews) > renews);
    umo_heap_finish(&heap);
}

/* ---- faults ---- */

/* True when all went well; after a failure nothing is left, and what was there is as it was. */
static bool scene_play(void)
{
    umo_buffer *placed = NULL;
    umo_pool *pool = NULL;
    const umo_pool_options options = {
        .device = r.device, .scope = r.scope, .one_node = true, .numa_node = numa_second};
    umo_error error = {0};
    umo_status status = umo_buffer_alloc_movable_on(r.device, r.scope, 2 * MIB, UMO_UNIFIED,
                                                    numa_second, &placed, &error);
    if (status == UMO_OK) {
        assert_true(numa_touch(numa_first, umo_buffer_host(placed), 2 * MIB, 5));
        status = umo_pool_create(&options, &pool, &error);
    }
    if (status == UMO_OK) {
        uint64_t moved = 0;
        status = umo_buffer_numa_move(placed, numa_first, &moved, &error);
        assert_int_equal(moved, status == UMO_OK ? 2 * MIB : 0); /* also if a part has moved */
        assert_int_equal(((char *)umo_buffer_host(placed))[2 * MIB - 1], 5);
    }
    assert_true(status == UMO_OK || (status == UMO_E_NOMEM && error.text[0] != '\0'));
    if (placed != NULL) { /* nothing is at work any more */
        assert_int_equal(umo_buffer_pin(placed, NULL), UMO_OK);
    }
    umo_buffer_release(placed);
    umo_pool_destroy(pool);
    assert_int_equal(umo_scope_live(r.scope), 0);
    return status == UMO_OK;
}

static void every_call_about_nodes_fails_once(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (numa_fake.fail_at = 1;; numa_fake.fail_at++) {
        numa_fake.calls = 0;
        if (scene_play()) {
            break;
        }
        failures++;
    }
    numa_fake.fail_at = 0;
    /* A buffer's range, a pool's two, a buffer's again, and its one or two parts. */
    assert_true(failures == 5 || failures == 6);
}

/* ---- votes ---- */

typedef struct use {
    umo_buffer *buffer;
    int32_t node;
    unsigned times;
    size_t size_bytes;
} use;

static void *use_from(void *argument)
{
    const use *u = argument;
    if (!numa_run_on(u->node)) {
        abort();
    }
    for (unsigned i = 0; i < u->times; i++) {
        umo_use what = (umo_use)(i % 3 + 1);
        if (umo_access_record(u->buffer, UMO_SIDE_HOST, what, u->size_bytes) != UMO_OK ||
            umo_access_record(u->buffer, UMO_SIDE_DEVICE, what, u->size_bytes) != UMO_OK) {
            abort();
        }
        if (i % 5000 == 0) {
            umo_record_votes_collect();
        }
    }
    return NULL;
}

static double votes_of(const umo_votes *votes, int32_t node)
{
    for (unsigned i = 0; i < UMO_VOTERS; i++) {
        if (votes->bytes[i] > 0 && votes->node[i] == node) {
            return (double)votes->bytes[i];
        }
    }
    return 0;
}

/* All uses of four threads vote, each once. Returns whether each did so for its thread's node: who
 * collects does not wait for a record that another one has, so a use may come along later, when its
 * thread's place is another thread's. */
static bool uses_vote_at_home(void)
{
    umo_buffer *buffer = movable(MIB, UMO_NUMA_ANY);
    use uses[4];
    pthread_t threads[4];
    double expected[2] = {0, 0};
    for (unsigned i = 0; i < 4; i++) {
        uses[i] = (use){.buffer = buffer,
                        .node = i % 2 == 0 ? numa_first : numa_second,
                        .times = 1000u + 12345u * i,
                        .size_bytes = 64};
        expected[i % 2] += (double)uses[i].times * (double)uses[i].size_bytes;
        assert_int_equal(pthread_create(&threads[i], NULL, use_from, &uses[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    umo_votes votes;
    umo_record_votes_collect();
    assert_true(umo_record_votes_take(buffer, 1e12, &votes) == 0);
    double sum = umo_record_votes_take(buffer, 1, &votes);
    assert_true(sum == expected[0] + expected[1]);
    const bool at_home =
        votes_of(&votes, numa_first) == expected[0] && votes_of(&votes, numa_second) == expected[1];
    umo_record_votes_collect();
    assert_true(umo_record_votes_take(buffer, 0, &votes) == 0);
    umo_buffer_release(buffer);
    return at_home;
}

static void uses_vote_for_their_threads_node_each_once(void **state)
{
    (void)state;
    bool at_home = false;
    for (int i = 0; i < 5 && !at_home; i++) {
        at_home = uses_vote_at_home();
    }
    assert_true(at_home);
}

static void a_thread_that_goes_to_and_fro_votes_where_it_was(void **state)
{
    (void)state;
    umo_buffer *buffer = movable(MIB, UMO_NUMA_ANY);
    umo_votes votes;
    for (unsigned i = 0; i < 300; i++) {
        assert_true(numa_run_on(i % 3 == 0 ? numa_first : numa_second));
        /* Slow enough for each to be stamped, as all are but those of bursts. */
        assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, 640), UMO_OK);
        nap_us(100);
    }
    umo_record_votes_collect();
    assert_true(umo_record_votes_take(buffer, 1, &votes) == 300 * 640);
    assert_true(votes_of(&votes, numa_first) == 100 * 640);
    umo_buffer_release(buffer);
}

/* A large buffer is used some times a second: no window is ever full. */
static void few_uses_vote_as_soon_as_somebody_asks(void **state)
{
    (void)state;
    umo_buffer *buffer = movable(MIB, UMO_NUMA_ANY);
    umo_votes votes;
    for (unsigned i = 0; i < 6; i++) {
        int32_t node = i < 3 ? numa_first : numa_second;
        assert_true(numa_run_on(node));
        assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, MIB), UMO_OK);
        umo_record_votes_collect();
        assert_true(umo_record_votes_take(buffer, 1, &votes) == (double)MIB);
        assert_true(votes_of(&votes, node) == (double)MIB);
    }
    umo_buffer_release(buffer);
    buffer = movable(MIB, UMO_NUMA_ANY); /* most likely with the same record */
    umo_record_votes_collect();
    assert_true(umo_record_votes_take(buffer, 0, &votes) == 0);
    umo_buffer_release(buffer);
}

static void the_largest_voters_are_kept(void **state)
{
    (void)state;
    umo_votes votes = {{0}, {0}};
    double sum = 0;
    unsigned seed = 1;
    for (int i = 0; i < 3000; i++) {
        int32_t node = i % 3 == 0 ? 8 : i % 3 == 1 ? 9 : (int32_t)(rand_r(&seed) % 60);
        umo_votes_add(&votes, node, 10);
        sum += 10;
    }
    assert_true(umo_votes_sum(&votes) == sum);
    /* Nobody has less than his own, nor more than that and the least. */
    for (int32_t node = 8; node < 10; node++) {
        assert_true(votes_of(&votes, node) >= 10000);
        assert_true(votes_of(&votes, node) <= 10000 + sum / UMO_VOTERS);
    }
}

static void memory_is_looked_for_where_it_is_near(void **state)
{
    (void)state;
    if (!numa_faked) {
        skip(); /* these are the fake's distances */
    }
    umo_numa_topology topology;
    fake_topology(&topology);
    assert_int_equal(umo_numa_home(&topology, 0), 0);
    assert_int_equal(umo_numa_home(&topology, 1), 1);
    assert_int_equal(umo_numa_home(&topology, 2), 1); /* has none of its own */
    assert_int_equal(umo_numa_home(&topology, 5), 0); /* has some, but not for us */
    assert_int_equal(umo_numa_home(&topology, 3), -1);
    assert_true(umo_numa_factor(&topology, 0, 1) > 3.0 && umo_numa_factor(&topology, 0, 1) < 3.2);
    topology.distances[0][1] = 0;
    assert_true(umo_numa_factor(&topology, 0, 1) == 2);
    assert_true(umo_numa_factor(&topology, 0, 0) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_buffer_lies_on_its_node_whoever_touches_it_first, calm),
        cmocka_unit_test_setup(nodes_that_cannot_be_are_refused_and_nothing_is_left, calm),
        cmocka_unit_test_setup(moving_takes_pages_and_later_ones_along, calm),
        cmocka_unit_test_setup(allocated_memory_of_the_host_moves_too, calm),
        cmocka_unit_test_setup(what_is_not_umos_own_does_not_move, calm),
        cmocka_unit_test_setup(pinned_and_exported_memory_does_not_move, calm),
        cmocka_unit_test_setup(moves_that_are_asked_for_are_recorded, calm),
        cmocka_unit_test_setup(brackets_go_on_while_pages_move_and_promises_wait, calm),
        cmocka_unit_test_setup(bytes_are_right_whatever_threads_move, calm),
        cmocka_unit_test_setup(pages_that_will_not_move_are_no_error, calm),
        cmocka_unit_test_setup(a_pools_blocks_lie_on_its_node, calm),
        cmocka_unit_test_setup(a_pool_that_cannot_be_on_its_node_is_not_made, calm),
        cmocka_unit_test_setup(a_heaps_pages_stay_on_its_node_whatever_becomes_of_them, calm),
        cmocka_unit_test_setup(every_call_about_nodes_fails_once, calm),
        cmocka_unit_test_setup(uses_vote_for_their_threads_node_each_once, calm),
        cmocka_unit_test_setup(a_thread_that_goes_to_and_fro_votes_where_it_was, calm),
        cmocka_unit_test_setup(few_uses_vote_as_soon_as_somebody_asks, calm),
        cmocka_unit_test_setup(the_largest_voters_are_kept, calm),
        cmocka_unit_test_setup(memory_is_looked_for_where_it_is_near, calm),
    };
    return cmocka_run_group_tests(tests, rig_open, rig_close);
}
