/*
 * Launches of the Metal driver: what an argument may be, and how a grid is cut into groups.
 */
#include "driver/metal/metal_test.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- arguments ---- */

/* What add is given right, and one argument in its place. */
typedef struct arg_case {
    size_t index;
    umo_kernel_arg arg;
    const char *text; /* NULL: it fits */
} arg_case;

static void arg_case_try(void *state, adder add, const umo_kernel_arg right[3],
                         const arg_case *tried)
{
    const umo_grid grid = {.dimensions = 1, .global = {16}};
    umo_kernel_arg args[3];
    umo_error error = {0};
    umo_fence fence = {.value = 9};
    memcpy(args, right, sizeof args);
    args[tried->index] = tried->arg;
    umo_status status =
        driver->kernel_launch(state, 0, add.kernel, args, 3, &grid, NULL, 0, &fence, &error);
    if (tried->text == NULL) {
        assert_int_equal(status, UMO_OK);
        fence_pass(state, fence);
        return;
    }
    assert_int_equal(status, UMO_E_INVAL);
    assert_non_null(strstr(error.text, "kernel 'add'"));
    assert_non_null(strstr(error.text, tried->text));
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, args, 3, &grid, NULL, 0, &fence, NULL),
        UMO_E_INVAL);
    assert_int_equal(fence.value, 9);
}

static void a_launch_names_the_argument_that_does_not_fit(void **unused)
{
    (void)unused;
    static unsigned char big[8192];
    const int amount = 1;
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, 64, UMO_UNIFIED);
    const umo_kernel_arg right[] = {
        {.kind = UMO_ARG_MEMORY, .memory = &memory},
        {.kind = UMO_ARG_VALUE, .value = &amount, .size_bytes = sizeof amount},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
    };
    const arg_case cases[] = {
        {0,
         {.kind = UMO_ARG_VALUE, .value = big, .size_bytes = 1},
         "argument 0 is memory of 1 bytes, not a value of 1"},
        {0, {.kind = UMO_ARG_MEMORY}, "argument 0 starts at byte 0 of 0"},
        {0,
         {.kind = UMO_ARG_MEMORY, .memory = &memory, .offset_bytes = 64},
         "argument 0 starts at byte 64 of 64"},
        {0,
         {.kind = UMO_ARG_MEMORY, .memory = &memory, .offset_bytes = SIZE_MAX},
         "argument 0 starts at byte"},
        {0, {.kind = UMO_ARG_MEMORY, .memory = &memory, .offset_bytes = 47}, NULL},
        {0,
         {.kind = UMO_ARG_LOCAL, .size_bytes = 4}, /* so the value takes the memory's place */
         "argument 1 is memory of 1 bytes, not a value of 4"},
        {1,
         {.kind = UMO_ARG_LOCAL, .size_bytes = 4},
         "takes 2 buffer(s) or value(s) and 1 piece(s) of work-group memory, not 1 and 2"},
        {1,
         {.kind = UMO_ARG_VALUE, .value = big, .size_bytes = 8},
         "argument 1 is a value of 4 bytes, not a value of 8"},
        {1,
         {.kind = UMO_ARG_VALUE, .value = big, .size_bytes = 3},
         "argument 1 is a value of 4 bytes, not a value of 3"},
        {1, {.kind = UMO_ARG_VALUE, .size_bytes = 4}, "argument 1 is a value of 4 bytes, not 1 to"},
        {1, {.kind = UMO_ARG_VALUE, .value = big}, "argument 1 is a value of 0 bytes, not 1 to"},
        {1,
         {.kind = UMO_ARG_VALUE, .value = big, .size_bytes = 4097},
         "argument 1 is a value of 4097 bytes, not 1 to 4096"},
        {1, {.kind = UMO_ARG_MEMORY, .memory = &memory, .offset_bytes = 8}, NULL},
        {1,
         {.kind = UMO_ARG_MEMORY, .memory = &memory, .offset_bytes = 10},
         "argument 1 starts at byte 10, which is no multiple of 4"},
        {2, {.kind = UMO_ARG_LOCAL}, "argument 2 asks for 0 bytes of work-group memory"},
        {2, {.kind = UMO_ARG_LOCAL, .size_bytes = 32768}, NULL},
        {2,
         {.kind = UMO_ARG_LOCAL, .size_bytes = 32769},
         "argument 2 asks for 32769 bytes of work-group memory; 32768 are left"},
        {2, {.kind = UMO_ARG_LOCAL, .size_bytes = SIZE_MAX}, "argument 2 asks for"},
        {2, {.kind = UMO_ARG_VALUE, .value = big, .size_bytes = 4}, "not 3 and 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        arg_case_try(state, add, right, &cases[i]);
    }
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

static void a_launch_of_the_wrong_number_or_behind_nothing_is_refused(void **unused)
{
    (void)unused;
    const int amount = 1;
    const umo_grid grid = {.dimensions = 1, .global = {16}};
    umo_error error = {0};
    umo_fence fence = {.value = 9};
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, 64, UMO_UNIFIED);
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = &memory},
        {.kind = UMO_ARG_VALUE, .value = &amount, .size_bytes = sizeof amount},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
        {.kind = UMO_ARG_MEMORY, .memory = &memory},
    };
    for (size_t count = 0; count < 5; count++) {
        if (count != 3) {
            assert_int_equal(driver->kernel_launch(state, 0, add.kernel, args, count, &grid, NULL,
                                                   0, &fence, &error),
                             UMO_E_INVAL);
            assert_non_null(strstr(error.text, "takes 2 buffer(s)"));
        }
    }
    const umo_fence unknown = {.queue = 1, .value = 1};
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, args, 3, &grid, &unknown, 1, &fence, &error),
        UMO_E_INVAL);
    assert_non_null(strstr(error.text, "kernel 'add': what it waits for"));
    assert_int_equal(fence.value, 9);
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

static const char wide_text[] =
    "#include <metal_stdlib>\n"
    "using namespace metal;\n"
    "kernel void wide(device float4 *to [[buffer(0)]], device const float4 *from [[buffer(1)]],\n"
    "                 constant float4 &factor [[buffer(2)]], constant int &ignored [[buffer(3)]],\n"
    "                 threadgroup float *one [[threadgroup(0)]],\n"
    "                 threadgroup float *two [[threadgroup(1)]],\n"
    "                 uint i [[thread_position_in_grid]])\n"
    "{\n"
    "    one[0] = two[0];\n"
    "    to[i] = from[i] * factor;\n"
    "}\n";

static void *wide_seen[6];

static void wide_run(void *const *args, const size_t global[3])
{
    (void)global;
    memcpy(wide_seen, args, sizeof wide_seen);
}

typedef struct wide {
    void *program;
    void *kernel;
    umo_memory to;
    umo_memory from;
} wide;

static umo_status wide_launch(void *state, const wide *w, size_t from_offset_bytes,
                              size_t ignored_bytes, size_t one_bytes, size_t two_bytes,
                              umo_error *error)
{
    static const float factor[1024] = {1, 2, 3, 4};
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_LOCAL, .size_bytes = one_bytes}, /* has a numbering of its own */
        {.kind = UMO_ARG_MEMORY, .memory = &w->to},
        {.kind = UMO_ARG_MEMORY, .memory = &w->from, .offset_bytes = from_offset_bytes},
        {.kind = UMO_ARG_LOCAL, .size_bytes = two_bytes},
        {.kind = UMO_ARG_VALUE, .value = factor, .size_bytes = 16},
        {.kind = UMO_ARG_VALUE, .value = factor, .size_bytes = ignored_bytes},
    };
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence fence;
    umo_status status =
        driver->kernel_launch(state, 3, w->kernel, args, 6, &grid, NULL, 0, &fence, error);
    if (status == UMO_OK) {
        fence_pass(state, fence);
    }
    return status;
}

static wide wide_create(void *state, size_t local_static_bytes)
{
    wide made;
    umo_error error;
    fake_metal_kernel_register(&(fake_metal_kernel){
        .name = "wide", .run = wide_run, .static_local_bytes = local_static_bytes});
    made.kernel = kernel_of(state, wide_text, "wide", &made.program, UMO_OK, &error);
    made.to = memory_make(state, 64, UMO_UNIFIED);
    made.from = memory_make(state, 64, UMO_UNIFIED);
    return made;
}

static void wide_destroy(void *state, wide *old)
{
    driver->free(state, &old->from);
    driver->free(state, &old->to);
    driver->kernel_destroy(state, old->kernel);
    driver->program_destroy(state, old->program);
}

static void arguments_are_bound_by_their_position(void **unused)
{
    (void)unused;
    umo_error error = {0};
    void *state = device_open();
    wide w = wide_create(state, 0);
    assert_int_equal(wide_launch(state, &w, 16, 4, 16, 32, &error), UMO_OK);
    assert_ptr_equal(wide_seen[0], w.to.host);
    assert_ptr_equal(wide_seen[1], (unsigned char *)w.from.host + 16);
    assert_non_null(wide_seen[2]);
    assert_non_null(wide_seen[4]);
    assert_ptr_not_equal(wide_seen[4], wide_seen[5]);
    /* What the kernel does not use may be anything. */
    assert_int_equal(wide_launch(state, &w, 16, 4096, 16, 16, &error), UMO_OK);
    umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = &w.to},
        {.kind = UMO_ARG_MEMORY, .memory = &w.from},
        {.kind = UMO_ARG_MEMORY, .memory = &w.from, .offset_bytes = 32},
        {.kind = UMO_ARG_MEMORY, .memory = &w.to, .offset_bytes = 60},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
    };
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence fence;
    assert_int_equal(
        driver->kernel_launch(state, 0, w.kernel, args, 6, &grid, NULL, 0, &fence, &error), UMO_OK);
    fence_pass(state, fence);
    assert_ptr_equal(wide_seen[2], (unsigned char *)w.from.host + 32);
    /* An element has to begin at a multiple of its size, and to end in the memory. */
    assert_int_equal(wide_launch(state, &w, 8, 4, 16, 16, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "argument 2 starts at byte 8, which is no multiple of 16"));
    assert_int_equal(wide_launch(state, &w, 48, 4, 16, 16, &error), UMO_OK);
    w.from.size_bytes = 63;
    assert_int_equal(wide_launch(state, &w, 48, 4, 16, 16, &error), UMO_E_INVAL);
    assert_non_null(
        strstr(error.text, "argument 2 ends 15 bytes behind its start; one element has 16"));
    wide_destroy(state, &w);
    device_close(state);
}

/* Work-group memory comes in steps of 16 bytes, and a kernel may have its own. */
static void work_group_memory_fits_the_device_together(void **unused)
{
    (void)unused;
    static const struct {
        size_t own;
        size_t one;
        size_t two;
        bool fits;
    } sizes[] = {{0, 64, 64, true},   {0, 65, 48, true},  {0, 65, 63, false}, {0, 1, 112, true},
                 {0, 1, 113, false},  {0, 128, 1, false}, {64, 32, 32, true}, {64, 33, 16, true},
                 {64, 33, 17, false}, {128, 1, 1, false}, {120, 1, 1, false}};
    fake_metal_options options = machine();
    options.local_max = 128;
    fake_metal_reset(&options);
    void *state = device_open();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        umo_error error = {0};
        wide w = wide_create(state, sizes[i].own);
        umo_status status = wide_launch(state, &w, 0, 4, sizes[i].one, sizes[i].two, &error);
        assert_int_equal(status, sizes[i].fits ? UMO_OK : UMO_E_INVAL);
        assert_int_equal(strstr(error.text, "bytes of work-group memory; ") != NULL,
                         !sizes[i].fits);
        wide_destroy(state, &w);
    }
    device_close(state);
}

static void a_value_is_read_before_the_launch_returns(void **unused)
{
    (void)unused;
    umo_fence fence;
    int amount = 1;
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, 64, UMO_UNIFIED);
    const umo_grid grid = {.dimensions = 1, .global = {64}};
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = &memory},
        {.kind = UMO_ARG_VALUE, .value = &amount, .size_bytes = sizeof amount},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
    };
    memset(memory.host, 7, 64);
    fake_metal_pause();
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, args, 3, &grid, NULL, 0, &fence, NULL), UMO_OK);
    amount = 50;
    fake_metal_resume();
    fence_pass(state, fence);
    assert_int_equal(*(unsigned char *)memory.host, add_value(7, 1));
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

static void a_kernel_may_go_while_it_runs(void **unused)
{
    (void)unused;
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, 64, UMO_UNIFIED);
    memset(memory.host, 7, 64);
    fake_metal_pause();
    umo_fence fence = add_give(state, 0, add, &memory, 64, 1, NULL, 0);
    adder_destroy(state, add);
    fake_metal_resume();
    fence_pass(state, fence);
    assert_int_equal(*(unsigned char *)memory.host, add_value(7, 1));
    driver->free(state, &memory);
    device_close(state);
}

static size_t grid_seen[3];

static void grid_run(void *const *args, const size_t global[3])
{
    (void)args;
    memcpy(grid_seen, global, sizeof grid_seen);
}

static void a_kernel_takes_as_many_buffers_as_metal_binds(void **unused)
{
    (void)unused;
    enum {
        MOST = 31
    };
    char text[4096] = "kernel void many(";
    umo_error error;
    void *program = NULL;
    umo_fence fence = {.value = 9};
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX];
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    for (int i = 0; i < MOST; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text),
                       "%sdevice int *b%d [[buffer(%d)]]", i > 0 ? ", " : "", i, i);
    }
    (void)strcat(text, ")\n{\n    b0[0] = b30[0];\n}\n");
    fake_metal_kernel_register(&(fake_metal_kernel){.name = "many", .run = grid_run});
    void *state = device_open();
    void *kernel = kernel_of(state, text, "many", &program, UMO_OK, &error);
    umo_memory memory = memory_make(state, 64, UMO_UNIFIED);
    for (size_t i = 0; i < UMO_KERNEL_ARGS_MAX; i++) {
        args[i] = (umo_kernel_arg){.kind = UMO_ARG_MEMORY, .memory = &memory};
    }
    args[MOST].memory = NULL; /* there is no place whose kind it could be compared with */
    assert_int_equal(
        driver->kernel_launch(state, 0, kernel, args, MOST + 1, &grid, NULL, 0, &fence, &error),
        UMO_E_INVAL);
    assert_non_null(strstr(error.text, "takes 31 buffer(s) or value(s) and 0 piece(s) of "
                                       "work-group memory, not 32 and 0"));
    assert_int_equal(fence.value, 9);
    assert_int_equal(
        driver->kernel_launch(state, 0, kernel, args, MOST, &grid, NULL, 0, &fence, NULL), UMO_OK);
    fence_pass(state, fence);
    driver->free(state, &memory);
    driver->kernel_destroy(state, kernel);
    driver->program_destroy(state, program);
    device_close(state);
}

/* ---- grids ---- */

typedef struct grid_device {
    void *state;
    void *program;
    void *kernel;
    umo_memory memory;
} grid_device;

/* A device with a kernel that takes so many threads in a group; with more, the fake stops the test.
 */
static grid_device grid_open(size_t threads_max)
{
    static const char text[] = "kernel void grid(device int *out [[buffer(0)]])\n"
                               "{\n"
                               "    out[0] = 1;\n"
                               "}\n";
    grid_device made = {.state = device_open()};
    umo_error error;
    fake_metal_kernel_register(
        &(fake_metal_kernel){.name = "grid", .run = grid_run, .threads_max = threads_max});
    made.kernel = kernel_of(made.state, text, "grid", &made.program, UMO_OK, &error);
    made.memory = memory_make(made.state, 4, UMO_PRIVATE);
    return made;
}

static umo_status grid_launch(const grid_device *device, const umo_grid *grid, umo_error *error)
{
    const umo_kernel_arg arg = {.kind = UMO_ARG_MEMORY, .memory = &device->memory};
    umo_fence fence = {.value = 9};
    umo_status status = driver->kernel_launch(device->state, 0, device->kernel, &arg, 1, grid, NULL,
                                              0, &fence, error);
    if (status == UMO_OK) {
        fence_pass(device->state, fence);
    } else {
        assert_int_equal(fence.value, 9);
    }
    return status;
}

static void grid_close(grid_device *device)
{
    driver->free(device->state, &device->memory);
    driver->kernel_destroy(device->state, device->kernel);
    driver->program_destroy(device->state, device->program);
    device_close(device->state);
}

static void a_grid_of_any_size_is_launched_whole(void **unused)
{
    (void)unused;
    static const umo_grid grids[] = {
        {1, {1}, {0}},
        {1, {1000003}, {0}},
        {1, {31}, {0}},
        {1, {100}, {7}},
        {1, {3}, {32}},
        {2, {640, 481}, {0}},
        {2, {1, 5}, {0}},
        {2, {33, 2}, {0}},
        {2, {33, 2}, {8, 4}},
        {3, {5, 6, 7}, {0}},
        {3, {50, 60, 70}, {0}},
        {3, {50, 60, 70}, {1, 1, 32}},
        {3, {50, 60, 70}, {3, 5, 2}},
        {1, {9}, {0, 55, 66}}, /* what lies behind the dimensions is not looked at */
        {2, {9, 9}, {0, 0, 1000}},
    };
    static const size_t most[] = {1024, 100, 32, 8, 1};
    for (size_t m = 0; m < sizeof most / sizeof most[0]; m++) {
        grid_device device = grid_open(most[m]);
        for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
            const umo_grid *grid = &grids[i];
            umo_error error = {0};
            size_t threads = 1;
            for (uint32_t d = 0; d < grid->dimensions; d++) {
                threads *= grid->local[d] != 0 ? grid->local[d] : 1;
            }
            umo_status status = grid_launch(&device, grid, &error);
            if (threads > most[m]) {
                assert_int_equal(status, UMO_E_INVAL);
                assert_non_null(strstr(error.text, "kernel 'grid': a group has at most"));
                continue;
            }
            assert_int_equal(status, UMO_OK);
            for (uint32_t d = 0; d < 3; d++) {
                assert_int_equal(grid_seen[d], d < grid->dimensions ? grid->global[d] : 1);
            }
        }
        grid_close(&device);
    }
}

static void a_group_of_half_a_size_or_of_too_many_is_refused(void **unused)
{
    (void)unused;
    static const struct {
        umo_grid grid;
        const char *text;
    } wrong[] = {
        {{2, {16, 16}, {4, 0}}, "a local size is given in all dimensions or in none"},
        {{3, {16, 16, 16}, {0, 0, 1}}, "a local size is given in all dimensions or in none"},
        {{1, {16}, {1025}}, "a group has at most 1024 work items"},
        {{2, {16, 16}, {2, 513}}, "a group has at most 1024 work items"},
        {{3, {16, 16, 16}, {SIZE_MAX / 2, 4, 4}}, "a group has at most 1024 work items"},
        {{3, {16, 16, 16}, {4, SIZE_MAX, SIZE_MAX}}, "a group has at most 1024 work items"},
    };
    grid_device device = grid_open(1024);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        umo_error error = {0};
        assert_int_equal(grid_launch(&device, &wrong[i].grid, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, wrong[i].text));
    }
    grid_close(&device);
}

/* The runtime's, in the fake. */
const void *sel_registerName(const char *name);

/* Told that it launches groups instead of threads, the fake multiplies them: what the kernel sees
 * is the grid times the group. */
static void a_group_is_as_full_as_the_kernel_allows(void **unused)
{
    (void)unused;
    static const struct {
        size_t most;
        umo_grid grid;
        size_t group[3];
    } cases[] = {
        {1024, {1, {5000}, {0}}, {1024, 1, 1}},
        {1024, {1, {100}, {0}}, {100, 1, 1}},
        {100, {1, {5000}, {0}}, {100, 1, 1}},
        {1024, {2, {640, 481}, {0}}, {32, 32, 1}}, /* of the GPU's width */
        {1024, {2, {640, 7}, {0}}, {32, 7, 1}},
        {1024, {2, {5, 1000}, {0}}, {5, 204, 1}},
        {100, {2, {640, 481}, {0}}, {32, 3, 1}},
        {8, {2, {640, 481}, {0}}, {8, 1, 1}},
        {1024, {3, {50, 60, 70}, {0}}, {32, 32, 1}},
        {1024, {3, {50, 60, 70}, {2, 3, 4}}, {2, 3, 4}},
        {1024, {2, {50, 60}, {64, 1}}, {64, 1, 1}},
        {1024, {1, {3}, {32}}, {32, 1, 1}},
    };
    umo_metal_api api;
    assert_int_equal(umo_metal_api_load(getenv("UMO_METAL_LIBRARY"), &api, NULL), UMO_OK);
    api.selectors.compute_dispatch =
        sel_registerName("dispatchThreadgroups:threadsPerThreadgroup:");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        umo_error error = {0};
        umo_metal_api_replace(&api);
        grid_device device = grid_open(cases[i].most);
        umo_metal_api_replace(NULL);
        assert_int_equal(grid_launch(&device, &cases[i].grid, &error), UMO_OK);
        for (uint32_t d = 0; d < 3; d++) {
            size_t whole = d < cases[i].grid.dimensions ? cases[i].grid.global[d] : 1;
            assert_int_equal(grid_seen[d], whole * cases[i].group[d]);
        }
        grid_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_launch_names_the_argument_that_does_not_fit),
        TEST(a_launch_of_the_wrong_number_or_behind_nothing_is_refused),
        TEST(arguments_are_bound_by_their_position),
        TEST(work_group_memory_fits_the_device_together),
        TEST(a_kernel_takes_as_many_buffers_as_metal_binds),
        TEST(a_value_is_read_before_the_launch_returns),
        TEST(a_kernel_may_go_while_it_runs),
        TEST(a_grid_of_any_size_is_launched_whole),
        TEST(a_group_of_half_a_size_or_of_too_many_is_refused),
        TEST(a_group_is_as_full_as_the_kernel_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
