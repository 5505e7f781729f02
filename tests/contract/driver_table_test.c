/*
 * The drivers' tables called directly, below devices and buffers: driver_table_test DRIVER
 * [delay_ns]
 *
 * The public API checks most arguments and orders most work itself, so what a driver has to get
 * right alone, above all many threads on one queue, is tried here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver/registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const umo_driver *driver;
static umo_driver_options options;

typedef struct table {
    void *state;
    umo_device_info info;
} table;

static int table_setup(void **state)
{
    table *t = calloc(1, sizeof *t);
    umo_error error = {0};
    assert_non_null(t);
    if (driver->open(0, &options, &t->state, &t->info, &error) != UMO_OK) {
        print_error("%s\n", error.text);
        free(t);
        return -1;
    }
    *state = t;
    return 0;
}

static int table_teardown(void **state)
{
    table *t = *state;
    driver->close(t->state);
    free(t);
    return 0;
}

static bool has_mode(const table *t, int mode)
{
    static const uint32_t bits[] = {UMO_CAP_UNIFIED, UMO_CAP_MANAGED, UMO_CAP_PRIVATE};
    return (t->info.caps & bits[mode]) != 0;
}

static void the_table_holds_what_it_promises(void **state)
{
    const table *t = *state;
    assert_int_equal(driver->abi, UMO_DRIVER_ABI);
    assert_int_equal(driver->size_bytes, sizeof *driver);
    assert_null(umo_driver_missing(driver, &t->info));
}

static void memory_says_what_it_is(void **state)
{
    table *t = *state;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_memory memory = {0};
        if (!has_mode(t, mode)) {
            continue;
        }
        assert_int_equal(driver->alloc(t->state, 12345, (umo_storage_mode)mode, &memory, NULL),
                         UMO_OK);
        assert_int_equal(memory.size_bytes, 12345);
        assert_int_equal(memory.mode, mode);
        assert_false(memory.imported);
        assert_non_null(memory.native);
        assert_int_equal(memory.host == NULL, mode == UMO_PRIVATE);
        assert_int_equal((uintptr_t)memory.host % t->info.alloc_align_bytes, 0);
        driver->free(t->state, &memory);
    }
    if (t->info.import_align_bytes == 1 && t->info.import_size_align_bytes == 1) {
        char bytes[100];
        umo_memory memory = {0};
        assert_int_equal(
            driver->import(t->state, bytes + 3, 91, UMO_IMPORT_READ, &memory, NULL, NULL), UMO_OK);
        assert_ptr_equal(memory.host, bytes + 3);
        assert_int_equal(memory.size_bytes, 91);
        assert_int_equal(memory.mode, UMO_UNIFIED);
        assert_true(memory.imported);
        driver->free(t->state, &memory);
    }
}

/* What the layer above does: nothing is moved where both sides have one memory. */
static umo_fence moved(const table *t, uint32_t queue, umo_memory *memory, umo_side to,
                       size_t offset_bytes, size_t size_bytes, void *host, const umo_fence *wait)
{
    umo_fence fence = {0};
    if (memory->one_memory) {
        if (wait != NULL && to == UMO_SIDE_HOST) {
            assert_int_equal(driver->fence_wait(t->state, wait->queue, wait->value, UINT64_MAX),
                             UMO_OK);
        }
        return fence;
    }
    assert_int_equal(driver->transfer(t->state, queue, memory, to, offset_bytes, size_bytes, host,
                                      wait, wait != NULL ? 1 : 0, &fence),
                     UMO_OK);
    fence.queue = queue;
    return fence;
}

/* Up to the first memory, over to the second, down again, each step on another queue and waiting
 * for the last. */
static void copies_join_every_pair_of_modes(void **state)
{
    table *t = *state;
    enum {
        BYTES = 5000,
        FROM = 700,
        TO = 1300,
        MOVED = 3001
    };
    unsigned char up[BYTES];
    unsigned char down[BYTES];
    for (int i = 0; i < BYTES; i++) {
        up[i] = (unsigned char)(i * 7 + i / 256);
    }
    for (int from = UMO_MANAGED; from < UMO_STORAGE_MODES; from++) {
        for (int to = UMO_MANAGED; to < UMO_STORAGE_MODES; to++) {
            umo_memory a;
            umo_memory b;
            umo_fence fence[3] = {{0}};
            if (!has_mode(t, from) || !has_mode(t, to)) {
                continue;
            }
            assert_int_equal(driver->alloc(t->state, BYTES, (umo_storage_mode)from, &a, NULL),
                             UMO_OK);
            assert_int_equal(driver->alloc(t->state, BYTES, (umo_storage_mode)to, &b, NULL),
                             UMO_OK);
            unsigned char *source = a.host != NULL ? a.host : up;
            unsigned char *target = b.host != NULL ? b.host : down;
            memcpy(source, up, BYTES);
            memset(target, 0, BYTES);
            fence[0] = moved(t, 0, &a, UMO_SIDE_DEVICE, 0, BYTES, source, NULL);
            assert_int_equal(
                driver->copy(t->state, 1, &a, FROM, &b, TO, MOVED, &fence[0], 1, &fence[1]),
                UMO_OK);
            fence[1].queue = 1;
            fence[2] = moved(t, 2, &b, UMO_SIDE_HOST, TO, MOVED, target + TO, &fence[1]);
            assert_int_equal(driver->fence_wait(t->state, 2, fence[2].value, UINT64_MAX), UMO_OK);
            assert_true(driver->fence_done(t->state, 0, fence[0].value));
            assert_memory_equal(target + TO, up + FROM, MOVED);
            assert_int_equal(target[TO - 1], 0);
            assert_int_equal(target[TO + MOVED], 0);
            driver->free(t->state, &a);
            driver->free(t->state, &b);
        }
    }
}

/* ---- many threads, one queue ---- */

enum {
    THREADS = 6,
    ROUNDS = 400, /* together far more than a driver keeps in flight */
    SLOT = 64
};

typedef struct crowd {
    table *t;
    umo_memory *memory;
    _Atomic uint32_t wrong;
} crowd;

typedef struct member {
    crowd *all;
    uint32_t index;
    pthread_t thread;
    uint64_t values[ROUNDS];
} member;

/* Sends bytes to an own slot and fetches them back, all on queue 0, waiting only now and then. */
static void *member_main(void *argument)
{
    member *m = argument;
    crowd *all = m->all;
    void *state = all->t->state;
    unsigned char bytes[2][SLOT];
    for (uint32_t round = 0; round < ROUNDS; round += 2) {
        umo_fence fence = {0};
        memset(bytes[0], (int)(m->index * 40 + round % 37), SLOT);
        memset(bytes[1], 0, SLOT);
        if (driver->transfer(state, 0, all->memory, UMO_SIDE_DEVICE, (size_t)m->index * SLOT, SLOT,
                             bytes[0], NULL, 0, &fence) != UMO_OK) {
            all->wrong++;
            return NULL;
        }
        m->values[round] = fence.value;
        if (driver->transfer(state, 0, all->memory, UMO_SIDE_HOST, (size_t)m->index * SLOT, SLOT,
                             bytes[1], NULL, 0, &fence) != UMO_OK) {
            all->wrong++;
            return NULL;
        }
        m->values[round + 1] = fence.value;
        umo_status status =
            driver->fence_wait(state, 0, fence.value, round % 4 == 0 ? UINT64_MAX : 60000000000u);
        if (status != UMO_OK || memcmp(bytes[0], bytes[1], SLOT) != 0 ||
            !driver->fence_done(state, 0, m->values[round])) {
            all->wrong++;
        }
    }
    return NULL;
}

static void many_threads_share_one_queue(void **state)
{
    table *t = *state;
    static member members[THREADS];
    umo_memory memory;
    crowd all = {.t = t, .memory = &memory};
    if ((t->info.caps & UMO_CAP_PRIVATE) == 0) {
        skip();
    }
    assert_int_equal(driver->alloc(t->state, (size_t)THREADS * SLOT, UMO_PRIVATE, &memory, NULL),
                     UMO_OK);
    memset(members, 0, sizeof members);
    for (uint32_t i = 0; i < THREADS; i++) {
        members[i].all = &all;
        members[i].index = i;
        assert_int_equal(pthread_create(&members[i].thread, NULL, member_main, &members[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(members[i].thread, NULL), 0);
    }
    assert_int_equal(atomic_load(&all.wrong), 0);
    if ((t->info.caps & UMO_CAP_ASYNC) != 0) {
        /* Every number from 1 on was given once. */
        static bool seen[THREADS * ROUNDS + 1];
        memset(seen, 0, sizeof seen);
        for (uint32_t i = 0; i < THREADS; i++) {
            for (uint32_t round = 0; round < ROUNDS; round++) {
                uint64_t value = members[i].values[round];
                assert_in_range(value, 1, THREADS * ROUNDS);
                assert_false(seen[value]);
                seen[value] = true;
                assert_true(round == 0 || value > members[i].values[round - 1]);
            }
        }
    }
    driver->free(t->state, &memory);
}

static void more_commands_than_fit_wait_for_room(void **state)
{
    table *t = *state;
    umo_memory memory;
    static unsigned char bytes[SLOT];
    umo_fence fence = {0};
    if ((t->info.caps & UMO_CAP_PRIVATE) == 0) {
        skip();
    }
    assert_int_equal(driver->alloc(t->state, SLOT, UMO_PRIVATE, &memory, NULL), UMO_OK);
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(driver->transfer(t->state, 3, &memory, UMO_SIDE_DEVICE, 0, SLOT, bytes,
                                          NULL, 0, &fence),
                         UMO_OK);
    }
    assert_int_equal(driver->fence_wait(t->state, 3, fence.value, UINT64_MAX), UMO_OK);
    driver->free(t->state, &memory);
}

int main(int argc, char **argv)
{
    driver = argc > 1 ? umo_driver_find(argv[1]) : NULL;
    if (driver == NULL) {
        print_error("usage: driver_table_test DRIVER [delay_ns]\n");
        return 2;
    }
    if (argc > 2) {
        options.delay_ns = strtoull(argv[2], NULL, 10);
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, table_setup, table_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_table_holds_what_it_promises),     TEST(memory_says_what_it_is),
        TEST(copies_join_every_pair_of_modes),      TEST(many_threads_share_one_queue),
        TEST(more_commands_than_fit_wait_for_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
