/*
 * The host driver: order within and between its queues, fences and their time limits, what is
 * poison and what is not.
 */
#include "driver/device.h"
#include "driver/drivers.h"
#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define POISON 0xDB

static umo_device *device_open(uint64_t delay_ns, bool test_mode)
{
    umo_device *device = NULL;
    const umo_driver_options options = {.delay_ns = delay_ns, .test_mode = test_mode};
    assert_int_equal(umo_device_open("host", 0, &options, &device, NULL), UMO_OK);
    return device;
}

/* Appends its first argument's value to a log. */
static _Atomic size_t log_count;
static int log_values[64];

static void log_run(void *const *args, const size_t global[3])
{
    (void)global;
    log_values[atomic_fetch_add(&log_count, 1)] = *(const int *)args[0];
}

static void local_run(void *const *args, const size_t global[3])
{
    unsigned char *local = args[0];
    size_t *seen = *(size_t **)args[1];
    for (size_t i = 0; i < 100; i++) {
        local[i] = (unsigned char)i;
    }
    memcpy(seen, global, 3 * sizeof *seen);
}

static const umo_host_kernel kernels[] = {{"log", log_run}, {"local", local_run}, {NULL, NULL}};

typedef struct rig {
    umo_device *device;
    umo_program *program;
    umo_kernel *log;
} rig;

static rig rig_open(uint64_t delay_ns)
{
    rig r = {.device = device_open(delay_ns, false)};
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
    assert_int_equal(umo_program_create(r.device, &source, &r.program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(r.program, "log", &r.log, NULL), UMO_OK);
    log_count = 0;
    return r;
}

static void rig_close(rig *r)
{
    umo_kernel_destroy(r->log);
    umo_program_destroy(r->program);
    umo_device_release(r->device);
}

static umo_fence log_launch(rig *r, uint32_t queue, int value, const umo_fence *waits,
                            size_t wait_count)
{
    const umo_kernel_arg arg = {.kind = UMO_ARG_VALUE, .size_bytes = sizeof value, .value = &value};
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence fence = {0};
    assert_int_equal(
        umo_kernel_launch(r->log, queue, &arg, 1, &grid, waits, wait_count, &fence, NULL), UMO_OK);
    return fence;
}

static void assert_log(size_t count, const int *expected)
{
    assert_int_equal(log_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(log_values[i], expected[i]);
    }
}

static void without_delay_all_is_done_at_once(void **state)
{
    (void)state;
    rig r = rig_open(0);
    umo_fence fence = log_launch(&r, 1, 5, NULL, 0);
    assert_int_equal(fence.value, 0);
    assert_true(umo_fence_done(fence));
    assert_int_equal(umo_fence_wait(fence, 0), UMO_OK);
    assert_log(1, (int[]){5});
    assert_int_equal(umo_device_info_get(r.device)->caps & UMO_CAP_ASYNC, 0);
    rig_close(&r);
}

static void a_queue_keeps_its_order(void **state)
{
    (void)state;
    rig r = rig_open(2 * MS);
    umo_fence last = {0};
    int expected[10];
    for (int i = 0; i < 10; i++) {
        last = log_launch(&r, 2, i, NULL, 0);
        expected[i] = i;
    }
    assert_int_equal(umo_fence_wait(last, UINT64_MAX), UMO_OK);
    assert_true(umo_fence_done(last));
    assert_log(10, expected);
    rig_close(&r);
}

/* Without waits the newest command of all queues runs first: luck never hides a missing one. */
static void between_queues_the_newest_runs_first(void **state)
{
    (void)state;
    rig r = rig_open(2000 * MS);
    umo_fence fences[4];
    for (uint32_t q = 0; q < 4; q++) {
        fences[q] = log_launch(&r, q, (int)q, NULL, 0);
    }
    /* All become due before the worker is let go: closing makes every command due at once. */
    umo_kernel_destroy(r.log);
    umo_program_destroy(r.program);
    umo_device_release(r.device);
    assert_log(4, (int[]){3, 2, 1, 0});
    (void)fences;
}

static void a_wait_orders_two_queues(void **state)
{
    (void)state;
    rig r = rig_open(2 * MS);
    umo_fence first = log_launch(&r, 0, 1, NULL, 0);
    umo_fence second = log_launch(&r, 3, 2, &first, 1);
    umo_fence third = log_launch(&r, 1, 3, &second, 1);
    assert_int_equal(umo_fence_wait(third, UINT64_MAX), UMO_OK);
    assert_log(3, (int[]){1, 2, 3});
    /* A later value of a queue includes the earlier ones. */
    assert_true(umo_fence_done(first) && umo_fence_done(second));
    rig_close(&r);
}

static void commands_wait_for_their_time(void **state)
{
    (void)state;
    rig r = rig_open(250 * MS);
    uint64_t start = umo_os_now_ns();
    umo_fence fence = log_launch(&r, 0, 1, NULL, 0);
    assert_false(umo_fence_done(fence));
    assert_int_equal(umo_fence_wait(fence, 0), UMO_E_TIMEOUT);
    assert_int_equal(umo_fence_wait(fence, 1 * MS), UMO_E_TIMEOUT);
    assert_int_equal(log_count, 0);
    assert_int_equal(umo_fence_wait(fence, UINT64_MAX - 1), UMO_OK); /* overflows: for ever */
    assert_true(umo_os_now_ns() - start >= 250 * MS);
    assert_int_equal(log_count, 1);
    rig_close(&r);
}

static void closing_runs_what_is_queued(void **state)
{
    (void)state;
    rig r = rig_open(60000 * MS);
    uint64_t start = umo_os_now_ns();
    (void)log_launch(&r, 0, 1, NULL, 0);
    (void)log_launch(&r, 0, 2, NULL, 0);
    rig_close(&r);
    assert_log(2, (int[]){1, 2});
    assert_true(umo_os_now_ns() - start < 30000 * MS);
}

/* A fence of another device is waited for here and never reaches the driver. */
static void fences_of_other_devices_are_waited_for(void **state)
{
    (void)state;
    rig slow = rig_open(5 * MS);
    rig fast = rig_open(0);
    umo_fence foreign = log_launch(&slow, 0, 1, NULL, 0);
    (void)log_launch(&fast, 0, 2, &foreign, 1);
    assert_log(2, (int[]){1, 2});
    /* More fences than a command takes: the rest is waited for. */
    umo_fence many[UMO_WAITS_MAX + 3];
    for (size_t i = 0; i < UMO_WAITS_MAX + 3; i++) {
        many[i] = log_launch(&slow, (uint32_t)(i % 4), 3, NULL, 0);
    }
    umo_fence own[UMO_WAITS_MAX];
    size_t count = 0;
    assert_int_equal(umo_device_waits(slow.device, many, UMO_WAITS_MAX + 3, own, &count), UMO_OK);
    assert_int_equal(count, UMO_WAITS_MAX);
    for (size_t i = UMO_WAITS_MAX; i < UMO_WAITS_MAX + 3; i++) {
        assert_true(umo_fence_done(many[i]));
    }
    rig_close(&fast);
    rig_close(&slow);
}

static void launches_are_checked(void **state)
{
    (void)state;
    rig r = rig_open(0);
    int value = 1;
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX + 1];
    for (size_t i = 0; i < UMO_KERNEL_ARGS_MAX + 1; i++) {
        args[i] =
            (umo_kernel_arg){.kind = UMO_ARG_VALUE, .size_bytes = sizeof value, .value = &value};
    }
    umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence fence = {0};
#define LAUNCH(queue, count)                                                                       \
    umo_kernel_launch(r.log, queue, args, count, &grid, NULL, 0, &fence, NULL)
    assert_int_equal(LAUNCH(0, UMO_KERNEL_ARGS_MAX), UMO_OK);
    assert_int_equal(LAUNCH(0, UMO_KERNEL_ARGS_MAX + 1), UMO_E_INVAL);
    assert_int_equal(LAUNCH(4, 1), UMO_E_INVAL);
    grid.dimensions = 0;
    assert_int_equal(LAUNCH(0, 1), UMO_E_INVAL);
    grid.dimensions = 4;
    assert_int_equal(LAUNCH(0, 1), UMO_E_INVAL);
    grid = (umo_grid){.dimensions = 2, .global = {1, 0}};
    assert_int_equal(LAUNCH(0, 1), UMO_E_INVAL);
    grid = (umo_grid){.dimensions = 1, .global = {1}};
    args[0].value = NULL;
    assert_int_equal(LAUNCH(0, 1), UMO_E_INVAL);
    args[0] = (umo_kernel_arg){.kind = UMO_ARG_MEMORY};
    assert_int_equal(LAUNCH(0, 1), UMO_E_INVAL);
    /* A size that overflows must not become a small one. */
    args[0] = (umo_kernel_arg){.kind = UMO_ARG_LOCAL, .size_bytes = SIZE_MAX};
    assert_int_not_equal(LAUNCH(0, 1), UMO_OK);
    args[0].size_bytes = SIZE_MAX / 2;
    args[1] = args[0];
    args[2] = args[0];
    assert_int_not_equal(LAUNCH(0, 3), UMO_OK);
#undef LAUNCH
    assert_int_equal(log_count, 1);
    rig_close(&r);
}

static void a_kernel_gets_its_grid_and_local_memory(void **state)
{
    (void)state;
    rig r = rig_open(0);
    umo_kernel *local = NULL;
    assert_int_equal(umo_kernel_create(r.program, "local", &local, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(r.program, "no such", &local, NULL), UMO_E_NOT_FOUND);
    size_t seen[3] = {0};
    size_t *target = seen;
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_LOCAL, .size_bytes = 100},
        {.kind = UMO_ARG_VALUE, .size_bytes = sizeof target, .value = &target}};
    const umo_grid grid = {.dimensions = 2, .global = {7, 3, 99}};
    umo_fence fence = {0};
    assert_int_equal(umo_kernel_launch(local, 0, args, 2, &grid, NULL, 0, &fence, NULL), UMO_OK);
    assert_int_equal(seen[0], 7);
    assert_int_equal(seen[1], 3);
    assert_int_equal(seen[2], 1);
    umo_kernel_destroy(local);
    umo_program *program = NULL;
    const umo_program_source text = {.kind = UMO_PROGRAM_SOURCE, .text = "x", .size_bytes = 1};
    assert_int_equal(umo_program_create(r.device, &text, &program, NULL), UMO_E_UNSUPPORTED);
    rig_close(&r);
}

static void memory_has_as_many_copies_as_its_mode(void **state)
{
    (void)state;
    umo_device *device = device_open(0, true);
    enum {
        SIZE = 5000
    };
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_memory memory;
        assert_int_equal(
            device->driver->alloc(device->state, SIZE, (umo_storage_mode)mode, &memory, NULL),
            UMO_OK);
        assert_int_equal(memory.mode, mode);
        const unsigned char *native = memory.native;
        const unsigned char *host = memory.host;
        assert_int_equal(host == NULL, mode == UMO_PRIVATE);
        assert_int_equal(host == native, mode == UMO_UNIFIED);
        for (size_t i = 0; i < SIZE; i++) {
            assert_int_equal(native[i], POISON);
            assert_true(host == NULL || host[i] == POISON);
        }
        assert_int_equal((uintptr_t)native % umo_device_info_get(device)->alloc_align_bytes, 0);
        device->driver->free(device->state, &memory);
    }
    umo_device_release(device);
}

static void poison_covers_one_side_of_one_range(void **state)
{
    (void)state;
    umo_device *device = device_open(0, true);
    enum {
        SIZE = 300
    };
    umo_memory memory;
    umo_fence fence = {0};
    assert_int_equal(device->driver->alloc(device->state, SIZE, UMO_MANAGED, &memory, NULL),
                     UMO_OK);
    for (int side = UMO_SIDE_HOST; side <= UMO_SIDE_DEVICE; side++) {
        unsigned char *host = memory.host;
        unsigned char *native = memory.native;
        memset(host, 1, SIZE);
        memset(native, 2, SIZE);
        assert_int_equal(device->driver->poison(device->state, 0, &memory, (umo_side)side, 100, 50,
                                                host + 100, NULL, 0, &fence),
                         UMO_OK);
        for (size_t i = 0; i < SIZE; i++) {
            bool hit = i >= 100 && i < 150;
            assert_int_equal(host[i], hit && side == UMO_SIDE_HOST ? POISON : 1);
            assert_int_equal(native[i], hit && side == UMO_SIDE_DEVICE ? POISON : 2);
        }
    }
    device->driver->free(device->state, &memory);
    umo_device_release(device);
}

static void transfer_and_copy_move_just_their_range(void **state)
{
    (void)state;
    umo_device *device = device_open(0, false);
    enum {
        SIZE = 200
    };
    umo_memory memory;
    umo_memory other;
    umo_fence fence = {0};
    unsigned char outside[SIZE];
    assert_int_equal(device->driver->alloc(device->state, SIZE, UMO_PRIVATE, &memory, NULL),
                     UMO_OK);
    assert_int_equal(device->driver->alloc(device->state, SIZE, UMO_PRIVATE, &other, NULL), UMO_OK);
    memset(memory.native, 1, SIZE);
    memset(other.native, 2, SIZE);
    memset(outside, 3, SIZE);
    assert_int_equal(device->driver->transfer(device->state, 0, &memory, UMO_SIDE_DEVICE, 10, 20,
                                              outside, NULL, 0, &fence),
                     UMO_OK);
    assert_int_equal(
        device->driver->copy(device->state, 1, &memory, 5, &other, 100, 10, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(device->driver->transfer(device->state, 0, &memory, UMO_SIDE_HOST, 9, 2,
                                              outside, NULL, 0, &fence),
                     UMO_OK);
    const unsigned char *m = memory.native;
    const unsigned char *o = other.native;
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(m[i], i >= 10 && i < 30 ? 3 : 1);
        unsigned char copied = i < 105 ? 1 : 3;
        assert_int_equal(o[i], i >= 100 && i < 110 ? copied : 2);
    }
    assert_int_equal(outside[0], 1);
    assert_int_equal(outside[1], 3);
    device->driver->free(device->state, &memory);
    device->driver->free(device->state, &other);
    umo_device_release(device);
}

static void a_device_lives_until_its_last_reference(void **state)
{
    (void)state;
    umo_device *device = device_open(1 * MS, false);
    umo_device_acquire(device);
    umo_device_release(device);
    assert_string_equal(umo_device_info_get(device)->driver, "host");
    umo_device_release(device);
    umo_device_release(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_delay_all_is_done_at_once),
        cmocka_unit_test(a_queue_keeps_its_order),
        cmocka_unit_test(between_queues_the_newest_runs_first),
        cmocka_unit_test(a_wait_orders_two_queues),
        cmocka_unit_test(commands_wait_for_their_time),
        cmocka_unit_test(closing_runs_what_is_queued),
        cmocka_unit_test(fences_of_other_devices_are_waited_for),
        cmocka_unit_test(launches_are_checked),
        cmocka_unit_test(a_kernel_gets_its_grid_and_local_memory),
        cmocka_unit_test(memory_has_as_many_copies_as_its_mode),
        cmocka_unit_test(poison_covers_one_side_of_one_range),
        cmocka_unit_test(transfer_and_copy_move_just_their_range),
        cmocka_unit_test(a_device_lives_until_its_last_reference),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
