/*
 * What the tests of the Metal driver share: a device opened on the fake Metal (tests/fake), kernels
 * that the fake can run, short forms of the table's calls, and the look that nothing is left.
 *
 * A broken rule of Metal's aborts the test with the rule's name, so no test looks for one.
 */
#ifndef UMO_DRIVER_METAL_TEST_H
#define UMO_DRIVER_METAL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver/drivers.h"
#include "driver/metal/metal_state.h"
#include "os/pages_test.h"

#include <fake_metal.h>

#include <string.h>

#define TEST(name) cmocka_unit_test_setup_teardown(name, metal_setup, metal_teardown)

static const umo_driver *const driver = &umo_driver_metal;
static const umo_driver_options no_options;
static const umo_driver_options test_mode = {.test_mode = true};

/* ---- kernels ---- */

static const char kernel_text[] =
    "#include <metal_stdlib>\n"
    "using namespace metal;\n"
    "kernel void add(device uchar *bytes [[buffer(0)]], constant int &amount [[buffer(1)]],\n"
    "                threadgroup uchar *scratch [[threadgroup(0)]],\n"
    "                uint i [[thread_position_in_grid]])\n"
    "{\n"
    "    bytes[i] = uchar(bytes[i] * 3 + amount);\n"
    "}\n";

/* Not a plain sum: what it leaves depends on the order of the launches. */
static inline unsigned char add_value(unsigned char before, int amount)
{
    return (unsigned char)(before * 3 + amount);
}

static inline void add_run(void *const *args, const size_t global[3])
{
    unsigned char *bytes = args[0];
    const int *amount = args[1];
    for (size_t i = 0; i < global[0]; i++) {
        bytes[i] = add_value(bytes[i], *amount);
    }
}

static inline void copy_bytes_run(void *const *args, const size_t global[3])
{
    memcpy(args[0], args[1], global[0]);
}

static inline void kernels_register(void)
{
    static const fake_metal_binding add[] = {
        {.name = "bytes", .writes = true, .data_bytes = 1, .align_bytes = 1},
        {.name = "amount", .index = 1, .data_bytes = sizeof(int), .align_bytes = _Alignof(int)},
        {.name = "scratch", .type = FAKE_METAL_THREADGROUP, .data_bytes = 1, .align_bytes = 1},
    };
    static const fake_metal_binding copy[] = {
        {.name = "to", .writes = true, .data_bytes = 1, .align_bytes = 1},
        {.name = "from", .index = 1, .data_bytes = 1, .align_bytes = 1},
    };
    fake_metal_kernel_register(
        &(fake_metal_kernel){.name = "add", .run = add_run, .bindings = add, .binding_count = 3});
    fake_metal_kernel_register(&(fake_metal_kernel){
        .name = "umo_copy_bytes", .run = copy_bytes_run, .bindings = copy, .binding_count = 2});
}

/* ---- the machine ---- */

/* The fake's defaults, to be changed and given to fake_metal_reset(). */
static inline fake_metal_options machine(void)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    return options;
}

static inline void machine_discrete(void)
{
    fake_metal_options options = machine();
    options.unified = false;
    options.apple_family = 0;
    fake_metal_reset(&options);
}

static inline int metal_setup(void **unused)
{
    (void)unused;
    fake_metal_reset(NULL);
    kernels_register();
    return 0;
}

static inline int metal_teardown(void **unused)
{
    (void)unused;
    fake_metal_resume();
    fake_metal_set_modes(0);
    return 0;
}

/* The worker lets a command go after its fence has passed. */
static inline void assert_nothing_left(void)
{
    char living[1024];
    assert_true(fake_metal_idle());
    fake_metal_live_print(living, sizeof living);
    assert_string_equal(living, "");
    assert_int_equal(fake_metal_live_total(), 0);
    assert_int_equal(fake_metal_violations(), 0);
}

/* ---- the table in short ---- */

static inline void *device_open_with(const umo_driver_options *options, umo_device_info *info)
{
    umo_error error = {0};
    void *state = NULL;
    umo_status status = driver->open(0, options, &state, info, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    return state;
}

static inline void *device_open(void)
{
    umo_device_info info;
    return device_open_with(&no_options, &info);
}

static inline void device_close(void *state)
{
    driver->close(state);
    assert_nothing_left();
}

static inline umo_memory memory_make(void *state, size_t size_bytes, umo_storage_mode mode)
{
    umo_error error = {0};
    umo_memory memory;
    umo_status status = driver->alloc(state, size_bytes, mode, &memory, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    return memory;
}

static inline void fence_pass(void *state, umo_fence fence)
{
    assert_int_equal(driver->fence_wait(state, fence.queue, fence.value, UINT64_MAX), UMO_OK);
    assert_true(driver->fence_done(state, fence.queue, fence.value));
}

/* Waits until all that was given has ended, well or not. */
static inline void queues_drain(void *state)
{
    const umo_metal_state *opened = state;
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        umo_status_ignore(driver->fence_wait(state, q, opened->queues[q].given, UINT64_MAX));
    }
}

static inline umo_fence upload_give(void *state, uint32_t queue, umo_memory *memory,
                                    size_t offset_bytes, size_t size_bytes, void *host,
                                    const umo_fence *waits, size_t wait_count)
{
    umo_fence fence = {0};
    assert_int_equal(driver->transfer(state, queue, memory, UMO_SIDE_DEVICE, offset_bytes,
                                      size_bytes, host, waits, wait_count, &fence),
                     UMO_OK);
    return fence;
}

static inline umo_fence download_give(void *state, uint32_t queue, umo_memory *memory,
                                      size_t offset_bytes, size_t size_bytes, void *host,
                                      const umo_fence *waits, size_t wait_count)
{
    umo_fence fence = {0};
    assert_int_equal(driver->transfer(state, queue, memory, UMO_SIDE_HOST, offset_bytes, size_bytes,
                                      host, waits, wait_count, &fence),
                     UMO_OK);
    return fence;
}

static inline void upload(void *state, umo_memory *memory, size_t offset_bytes, size_t size_bytes,
                          void *host)
{
    fence_pass(state, upload_give(state, 0, memory, offset_bytes, size_bytes, host, NULL, 0));
}

static inline void download(void *state, umo_memory *memory, size_t offset_bytes, size_t size_bytes,
                            void *host)
{
    fence_pass(state, download_give(state, 0, memory, offset_bytes, size_bytes, host, NULL, 0));
}

static inline umo_program_source text_source(const char *text)
{
    return (umo_program_source){
        .kind = UMO_PROGRAM_SOURCE, .text = text, .size_bytes = strlen(text)};
}

/* A kernel of a text, or NULL with the error. */
static inline void *kernel_of(void *state, const char *text, const char *name, void **program,
                              umo_status expected, umo_error *error)
{
    void *kernel = NULL;
    const umo_program_source source = text_source(text);
    *error = (umo_error){0};
    umo_status status = driver->program_create(state, &source, program, error);
    assert_string_equal(error->text, "");
    assert_int_equal(status, UMO_OK);
    status = driver->kernel_create(state, *program, name, &kernel, error);
    assert_int_equal(status, expected);
    assert_int_equal(status != UMO_OK, kernel == NULL);
    assert_int_equal(error->status, status);
    return kernel;
}

/* The kernel add and its program. */
typedef struct adder {
    void *program;
    void *kernel;
} adder;

static inline adder adder_create(void *state)
{
    adder made;
    umo_error error = {0};
    const umo_program_source source = text_source(kernel_text);
    umo_status status = driver->program_create(state, &source, &made.program, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    status = driver->kernel_create(state, made.program, "add", &made.kernel, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    return made;
}

static inline void adder_destroy(void *state, adder old)
{
    driver->kernel_destroy(state, old.kernel);
    driver->program_destroy(state, old.program);
}

static inline umo_status add_launch(void *state, uint32_t queue, adder add,
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
    return driver->kernel_launch(state, queue, add.kernel, args, 3, &grid, waits, wait_count, out,
                                 error);
}

static inline umo_fence add_give(void *state, uint32_t queue, adder add, const umo_memory *memory,
                                 size_t size_bytes, int amount, const umo_fence *waits,
                                 size_t wait_count)
{
    umo_error error = {0};
    umo_fence fence = {0};
    umo_status status = add_launch(state, queue, add, memory, 0, size_bytes, amount, waits,
                                   wait_count, &fence, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    return fence;
}

/* Bytes that differ from place to place. */
static inline void pattern_fill(unsigned char *bytes, size_t size_bytes, unsigned seed)
{
    for (size_t i = 0; i < size_bytes; i++) {
        bytes[i] = (unsigned char)(i * 7 + i / 251 + seed);
    }
}

#endif
