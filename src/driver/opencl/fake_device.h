/*
 * What the tests over the strict OpenCL share: a device opened on it, its one kernel, and the look
 * that nothing is left.
 */
#ifndef UMO_DRIVER_OPENCL_FAKE_DEVICE_H
#define UMO_DRIVER_OPENCL_FAKE_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver/drivers.h"
#include "driver/opencl/fake_opencl.h"
#include "driver/opencl/opencl_state.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

static const umo_driver *const driver = &umo_driver_opencl;
static const umo_driver_options no_options;

static inline int fake_setup(void **unused)
{
    (void)unused;
    fake_reset();
    umo_opencl_api_replace(&fake_api);
    return 0;
}

static inline int fake_teardown(void **unused)
{
    (void)unused;
    umo_opencl_api_replace(NULL);
    return 0;
}

static inline void assert_nothing_left(void)
{
    for (int kind = 0; kind < FAKE_KINDS; kind++) {
        assert_int_equal(fake.live[kind], 0);
    }
    assert_int_equal(fake.violations, 0);
}

static inline void *device_open(umo_device_info *info)
{
    umo_error error = {0};
    void *state = NULL;
    assert_int_equal(driver->open(0, &no_options, &state, info, &error), UMO_OK);
    return state;
}

static const umo_program_source add_source = {
    .kind = UMO_PROGRAM_SOURCE, .text = "add", .size_bytes = 3};

/* The kernel add and its program. */
typedef struct adder {
    void *program;
    void *kernel;
} adder;

static inline adder adder_create(void *state)
{
    adder made;
    assert_int_equal(driver->program_create(state, &add_source, &made.program, NULL), UMO_OK);
    assert_int_equal(driver->kernel_create(state, made.program, "add", &made.kernel, NULL), UMO_OK);
    return made;
}

static inline void adder_destroy(void *state, adder old)
{
    driver->kernel_destroy(state, old.kernel);
    driver->program_destroy(state, old.program);
}

static inline umo_status add_launch(void *state, uint32_t queue, void *kernel,
                                    const umo_memory *memory, size_t offset_bytes,
                                    size_t size_bytes, int amount, const umo_fence *waits,
                                    size_t wait_count, umo_fence *out, umo_error *error)
{
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = memory, .offset_bytes = offset_bytes},
        {.kind = UMO_ARG_VALUE, .value = &amount, .size_bytes = sizeof amount},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
    };
    const umo_grid grid = {.dimensions = 1, .global = {size_bytes}};
    return driver->kernel_launch(state, queue, kernel, args, 3, &grid, waits, wait_count, out,
                                 error);
}

#endif
