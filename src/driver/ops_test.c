/*
 * Operations on devices that lack something or fail: what the contract's suite cannot bring about.
 * The bytes themselves are its business (tests/contract/ops_tests.c).
 */
#include "driver/wrapper_test.h"

#include "driver/device.h"
#include "driver/ops/ops.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum {
    LONG = 256 << 10,
    SIZE = 8 * LONG,
    COMMANDS = 64,
    KERNELS = 3 /* of the program */
};

/* What the driver below was asked for, and what it says of itself. */
static struct {
    umo_program_language language;
    size_t alloc_align_bytes; /* 0 leaves the host driver's */
    int meeting;              /* threads that build wait until so many do; macOS has no barriers */
    _Atomic int met;          /* those that came */
    _Atomic int programs_made;
    _Atomic int programs;
    _Atomic int kernels;
    int devices;
    bool closed_too_early;
    int launches;
    int copies;
    umo_fence given[COMMANDS];
    /* The entry that fails, at its fail_at-th call. */
    const char *entry;
    int fail_at;
    int calls;
} seen;

static bool fails_once(const char *entry)
{
    return seen.entry != NULL && strcmp(entry, seen.entry) == 0 && ++seen.calls == seen.fail_at;
}

static void fail_at(const char *entry, int call)
{
    seen.entry = entry;
    seen.fail_at = call;
    seen.calls = 0;
}

static umo_status ops_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                           umo_device_info *out_info, umo_error *error)
{
    umo_status status = wrapper_open(ordinal, options, out_state, out_info, error);
    if (status == UMO_OK) {
        seen.devices++;
        out_info->language = seen.language;
        if (seen.alloc_align_bytes != 0) {
            out_info->alloc_align_bytes = seen.alloc_align_bytes;
        }
    }
    return status;
}

static void ops_close(void *state)
{
    /* Each of those still open has one program at most. */
    seen.devices--;
    seen.closed_too_early = seen.closed_too_early || seen.programs > seen.devices ||
                            seen.kernels > seen.devices * KERNELS;
    umo_driver_host.close(state);
}

static umo_status ops_program_create(void *state, const umo_program_source *source, void **out,
                                     umo_error *error)
{
    seen.met++;
    while (seen.met < seen.meeting) {
        (void)sched_yield();
    }
    umo_status status = wrapper_program_create(state, source, out, error);
    if (status == UMO_OK) {
        seen.programs_made++;
        seen.programs++;
    }
    return status;
}

static void ops_program_destroy(void *state, void *program)
{
    seen.programs--;
    umo_driver_host.program_destroy(state, program);
}

static umo_status ops_kernel_create(void *state, void *program, const char *name, void **out,
                                    umo_error *error)
{
    umo_status status = wrapper_kernel_create(state, program, name, out, error);
    seen.kernels += status == UMO_OK ? 1 : 0;
    return status;
}

static void ops_kernel_destroy(void *state, void *kernel)
{
    seen.kernels--;
    umo_driver_host.kernel_destroy(state, kernel);
}

static void command_note(umo_fence fence)
{
    const int command = seen.launches + seen.copies;
    if (command < COMMANDS) {
        seen.given[command] = fence;
    }
}

static umo_status ops_kernel_launch(void *state, uint32_t queue, void *kernel,
                                    const umo_kernel_arg *args, size_t arg_count,
                                    const umo_grid *grid, const umo_fence *waits, size_t wait_count,
                                    umo_fence *out, umo_error *error)
{
    umo_status status = wrapper_kernel_launch(state, queue, kernel, args, arg_count, grid, waits,
                                              wait_count, out, error);
    if (status == UMO_OK) {
        command_note(*out);
        seen.launches++;
    }
    return status;
}

static umo_status ops_copy(void *state, uint32_t queue, const umo_memory *source,
                           size_t source_offset_bytes, umo_memory *target,
                           size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                           size_t wait_count, umo_fence *out)
{
    umo_status status = wrapper_copy(state, queue, source, source_offset_bytes, target,
                                     target_offset_bytes, size_bytes, waits, wait_count, out);
    if (status == UMO_OK) {
        command_note(*out);
        seen.copies++;
    }
    return status;
}

/* A device of that driver with two memories of its own. */
typedef struct bench {
    umo_device *device;
    umo_memory from;
    umo_memory to;
    unsigned char *from_bytes; /* as the device sees them */
    unsigned char *to_bytes;
} bench;

static void memory_make(const umo_device *device, umo_memory *out, unsigned char **bytes,
                        unsigned seed)
{
    assert_int_equal(device->driver->alloc(device->state, SIZE, UMO_PRIVATE, out, NULL), UMO_OK);
    *bytes = out->native;
    for (size_t i = 0; i < SIZE; i++) {
        (*bytes)[i] = (unsigned char)(i * 31 + i / 251 + seed);
    }
}

static bench bench_open(const wrapper_switches *switches, uint64_t delay_ns)
{
    static umo_driver driver;
    const umo_driver_options options = {.delay_ns = delay_ns};
    bench b = {0};
    if (driver.name == NULL) {
        driver = wrapper_table("ops");
        driver.open = ops_open;
        driver.close = ops_close;
        driver.program_create = ops_program_create;
        driver.program_destroy = ops_program_destroy;
        driver.kernel_create = ops_kernel_create;
        driver.kernel_destroy = ops_kernel_destroy;
        driver.kernel_launch = ops_kernel_launch;
        driver.copy = ops_copy;
        assert_int_equal(umo_driver_register(&driver, NULL), UMO_OK);
    }
    wrapper = *switches;
    wrapper.fails = fails_once;
    assert_int_equal(umo_device_open("ops", 0, &options, &b.device, NULL), UMO_OK);
    memory_make(b.device, &b.from, &b.from_bytes, 1);
    memory_make(b.device, &b.to, &b.to_bytes, 2);
    return b;
}

static const wrapper_switches as_it_is = {0};

static void bench_close(bench *b)
{
    b->device->driver->free(b->device->state, &b->from);
    b->device->driver->free(b->device->state, &b->to);
    umo_device_release(b->device);
}

static int setup(void **state)
{
    (void)state;
    memset(&seen, 0, sizeof seen);
    return 0;
}

/* Nothing of a program outlives its device. */
static int teardown(void **state)
{
    (void)state;
    return seen.devices == 0 && !seen.closed_too_early ? 0 : -1;
}

/* ---- what the operations are called with ---- */

typedef umo_status (*operation)(bench *b, umo_fence *out, umo_error *error);

enum {
    PIECES = 20,
    PIECE = 100
};

static void pieces_make(umo_piece *pieces, const umo_memory *memory)
{
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = (umo_piece){memory, i * (PIECE + 3), PIECE};
    }
}

static umo_status gather(bench *b, umo_fence *out, umo_error *error)
{
    umo_piece pieces[PIECES];
    pieces_make(pieces, &b->from);
    return umo_device_gather(b->device, 1, pieces, PIECES, &b->to, 7, NULL, 0, out, error);
}

static umo_status scatter(bench *b, umo_fence *out, umo_error *error)
{
    umo_piece pieces[PIECES];
    pieces_make(pieces, &b->to);
    return umo_device_scatter(b->device, 1, &b->from, 7, pieces, PIECES, NULL, 0, out, error);
}

static umo_status fill(bench *b, umo_fence *out, umo_error *error)
{
    return umo_device_fill(b->device, 1, &b->to, 7, PIECES * PIECE, "abcd", 4, NULL, 0, out, error);
}

static umo_status convert(bench *b, umo_fence *out, umo_error *error)
{
    const umo_conversion k = {.from = UMO_UINT8,
                              .to = UMO_FP32,
                              .source = &b->from,
                              .target = &b->to,
                              .count = PIECE,
                              .scale = 1.0f};
    return umo_device_convert(b->device, 1, &k, NULL, 0, out, error);
}

static umo_status prepare(bench *b, umo_fence *out, umo_error *error)
{
    *out = (umo_fence){0};
    return umo_device_prepare(b->device, error);
}

static const operation operations[] = {gather, scatter, fill, convert, prepare};
#define OPERATIONS (sizeof operations / sizeof operations[0])

/* What gather and scatter leave in to. */
static void expect_moved(const bench *b, bool gathered)
{
    for (size_t i = 0; i < PIECES; i++) {
        const size_t apart = i * (PIECE + 3);
        const size_t joined = 7 + i * PIECE;
        assert_memory_equal(b->to_bytes + (gathered ? joined : apart),
                            b->from_bytes + (gathered ? apart : joined), PIECE);
    }
}

/* ---- devices that lack something ---- */

/* A device that runs nothing of ours: gather and scatter copy, the others say so. */
static void expect_copies_alone(bench *b)
{
    umo_fence fence = {.queue = 55, .value = 66};
    umo_error error = {0};
    for (size_t i = 2; i < OPERATIONS; i++) {
        fence = (umo_fence){.queue = 55, .value = 66};
        error = (umo_error){0};
        assert_int_equal(operations[i](b, &fence, &error), UMO_E_UNSUPPORTED);
        assert_int_equal(error.status, UMO_E_UNSUPPORTED);
        assert_non_null(strstr(error.text, "wrapped host memory"));
    }
    assert_int_equal(gather(b, &fence, &error), UMO_OK);
    assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
    expect_moved(b, true);
    assert_int_equal(scatter(b, &fence, &error), UMO_OK);
    assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
    expect_moved(b, false);
    assert_int_equal(seen.programs_made, 0);
    assert_int_equal(seen.launches, 0);
    assert_int_equal(seen.copies, 2 * PIECES);
}

static void a_device_without_kernels_copies(void **state)
{
    (void)state;
    const wrapper_switches none = {.caps_off = UMO_CAP_KERNELS};
    bench b = bench_open(&none, 0);
    expect_copies_alone(&b);
    bench_close(&b);
}

static void a_device_of_a_language_without_our_program_copies(void **state)
{
    (void)state;
    seen.language = UMO_LANGUAGE_CUDA;
    bench b = bench_open(&as_it_is, 100000);
    expect_copies_alone(&b);
    bench_close(&b);
    seen.copies = 0;
    seen.language = (umo_program_language)77;
    b = bench_open(&as_it_is, 0);
    expect_copies_alone(&b);
    bench_close(&b);
}

/* The kernels read whole words of 16 bytes. */
static void a_device_whose_memory_lies_anywhere_copies(void **state)
{
    (void)state;
    seen.alloc_align_bytes = 8;
    bench b = bench_open(&as_it_is, 0);
    expect_copies_alone(&b);
    bench_close(&b);
    seen.alloc_align_bytes = 16;
    b = bench_open(&as_it_is, 0);
    assert_int_equal(umo_device_prepare(b.device, NULL), UMO_OK);
    bench_close(&b);
}

/* ---- one program a device ---- */

static void a_program_is_built_once_and_lives_as_long_as_its_device(void **state)
{
    (void)state;
    bench first = bench_open(&as_it_is, 0);
    bench second = bench_open(&as_it_is, 0);
    umo_fence fence = {0};
    assert_false(umo_ops_ready(first.device));
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < OPERATIONS; i++) {
            assert_int_equal(operations[i](&first, &fence, NULL), UMO_OK);
        }
    }
    assert_true(umo_ops_ready(first.device));
    assert_int_equal(seen.programs_made, 1);
    assert_int_equal(seen.kernels, KERNELS);
    assert_false(umo_ops_ready(second.device));
    assert_int_equal(umo_device_prepare(second.device, NULL), UMO_OK);
    assert_int_equal(seen.programs_made, 2);
    bench_close(&first);
    assert_int_equal(seen.programs, 1);
    assert_int_equal(seen.kernels, KERNELS);
    assert_int_equal(fill(&second, &fence, NULL), UMO_OK);
    bench_close(&second);
    assert_int_equal(seen.programs_made, 2);
}

enum {
    THREADS = 4
};

static void *prepare_main(void *argument)
{
    umo_device *device = argument;
    return umo_device_prepare(device, NULL) == UMO_OK ? device : NULL;
}

static void of_programs_built_at_the_same_time_one_is_kept(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    bench b = bench_open(&as_it_is, 0);
    seen.met = 0;
    seen.meeting = THREADS;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, prepare_main, b.device), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *prepared = NULL;
        assert_int_equal(pthread_join(threads[i], &prepared), 0);
        assert_ptr_equal(prepared, b.device);
    }
    seen.meeting = 0;
    assert_int_equal(seen.programs_made, THREADS);
    assert_int_equal(seen.programs, 1);
    assert_int_equal(seen.kernels, KERNELS);
    bench_close(&b);
}

/* ---- failures ---- */

/* Nothing was written to what comes out, and the words say why. */
static void expect_failed(bench *b, operation run, umo_status status, const char *why)
{
    umo_fence fence = {.queue = 55, .value = 66};
    umo_error error = {0};
    assert_int_equal(run(b, &fence, &error), status);
    assert_int_equal(error.status, status);
    if (strstr(error.text, why) == NULL) {
        fail_msg("'%s' does not say '%s'", error.text, why);
    }
    if (run != prepare) {
        assert_int_equal(fence.queue, 55);
        assert_int_equal(fence.value, 66);
    }
}

static void a_program_that_did_not_build_is_tried_again_and_each_call_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *entry;
        const char *why;
        umo_status status;
        int call;
    } faults[] = {
        {"program_create", "program_create failed", UMO_E_INVAL, 1},
        {"kernel_create", "kernel_create failed", UMO_E_NOMEM, 1},
        {"kernel_create", "kernel_create failed", UMO_E_NOMEM, 2},
        {"kernel_create", "kernel_create failed", UMO_E_NOMEM, 3},
    };
    for (size_t i = 0; i < OPERATIONS; i++) {
        bench b = bench_open(&as_it_is, 0);
        umo_fence fence = {0};
        for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
            fail_at(faults[f].entry, faults[f].call);
            expect_failed(&b, operations[i], faults[f].status, faults[f].why);
            assert_int_equal(seen.programs, 0);
            assert_int_equal(seen.kernels, 0);
            assert_int_equal(seen.launches + seen.copies, 0);
        }
        assert_int_equal(operations[i](&b, &fence, NULL), UMO_OK);
        assert_int_equal(seen.kernels, KERNELS);
        seen.launches = seen.copies = 0;
        bench_close(&b);
    }
}

/* Of the commands that were given, all have ended. */
static void expect_given_ended(const bench *b, int commands)
{
    assert_int_equal(seen.launches + seen.copies, commands);
    for (int i = 0; i < commands; i++) {
        assert_int_not_equal(seen.given[i].value, 0);
        assert_true(
            umo_driver_host.fence_done(b->device->state, seen.given[i].queue, seen.given[i].value));
    }
}

/* Three long pieces, each a command. */
static umo_status gather_long(bench *b, umo_fence *out, umo_error *error)
{
    const umo_piece pieces[] = {
        {&b->from, 0, LONG}, {&b->from, LONG, LONG}, {&b->from, 2 * LONG, LONG}};
    return umo_device_gather(b->device, 1, pieces, 3, &b->to, 7, NULL, 0, out, error);
}

static umo_status scatter_long(bench *b, umo_fence *out, umo_error *error)
{
    const umo_piece pieces[] = {{&b->to, 0, LONG}, {&b->to, LONG, LONG}, {&b->to, 2 * LONG, LONG}};
    return umo_device_scatter(b->device, 1, &b->from, 7, pieces, 3, NULL, 0, out, error);
}

static void after_a_failure_midway_nothing_runs_any_more(void **state)
{
    (void)state;
    static const struct {
        operation run;
        const char *entry;
        int commands;
    } faults[] = {
        {gather, "kernel_launch", 3}, {scatter, "kernel_launch", 3}, {gather_long, "copy", 3},
        {scatter_long, "copy", 3},    {fill, "kernel_launch", 1},    {convert, "kernel_launch", 1},
    };
    bench b = bench_open(&as_it_is, 3000000);
    assert_int_equal(umo_device_prepare(b.device, NULL), UMO_OK);
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
        for (int call = 1; call <= faults[f].commands; call++) {
            seen.launches = seen.copies = 0;
            fail_at(faults[f].entry, call);
            expect_failed(&b, faults[f].run, UMO_E_DEVICE,
                          strcmp(faults[f].entry, "copy") == 0 ? "copy" : "kernel_launch failed");
            expect_given_ended(&b, call - 1);
        }
        /* The next call works. */
        umo_fence fence = {0};
        seen.launches = seen.copies = 0;
        assert_int_equal(faults[f].run(&b, &fence, NULL), UMO_OK);
        assert_int_equal(seen.launches + seen.copies, faults[f].commands);
        assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
    }
    bench_close(&b);
}

static void a_failure_of_another_devices_work_is_passed_on(void **state)
{
    (void)state;
    bench other = bench_open(&as_it_is, 1000000);
    bench b = bench_open(&as_it_is, 1000000);
    umo_fence fence = {.queue = 55, .value = 66};
    umo_fence bad = {0};
    assert_int_equal(umo_device_prepare(b.device, NULL), UMO_OK);
    assert_int_equal(
        umo_device_fill(other.device, 3, &other.to, 0, 16, "x", 1, NULL, 0, &bad, NULL), UMO_OK);
    wrapper.bad_queue = bad.queue;
    wrapper.bad_value = bad.value;
    seen.launches = seen.copies = 0;
    const umo_piece pieces[] = {{&b.from, 0, 10}, {&b.from, 20, 10}};
    const umo_piece targets[] = {{&b.to, 0, 10}, {&b.to, 20, 10}};
    const umo_conversion k = {
        .from = UMO_FP32, .to = UMO_FP16, .source = &b.from, .target = &b.to, .count = 4};
    umo_error errors[4] = {{0}};
    assert_int_equal(umo_device_gather(b.device, 0, pieces, 2, &b.to, 0, &bad, 1, &fence, errors),
                     UMO_E_DEVICE);
    assert_int_equal(
        umo_device_scatter(b.device, 0, &b.from, 0, targets, 2, &bad, 1, &fence, errors + 1),
        UMO_E_DEVICE);
    assert_int_equal(
        umo_device_fill(b.device, 0, &b.to, 0, 16, "x", 1, &bad, 1, &fence, errors + 2),
        UMO_E_DEVICE);
    assert_int_equal(umo_device_convert(b.device, 0, &k, &bad, 1, &fence, errors + 3),
                     UMO_E_DEVICE);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(errors[i].status, UMO_E_DEVICE);
        assert_int_not_equal(errors[i].text[0], '\0');
    }
    assert_int_equal(seen.launches + seen.copies, 0);
    assert_int_equal(fence.queue, 55);
    assert_int_equal(fence.value, 66);
    /* But not to what has nothing to do. */
    const umo_piece empty = {&b.from, 5, 0};
    umo_conversion none = k;
    none.count = 0;
    assert_int_equal(umo_device_gather(b.device, 2, &empty, 1, &b.to, 0, &bad, 1, &fence, NULL),
                     UMO_OK);
    assert_true(umo_fence_done(fence));
    assert_ptr_equal(fence.device, b.device);
    assert_int_equal(fence.queue, 2);
    assert_int_equal(umo_device_scatter(b.device, 2, &b.to, 0, &empty, 1, &bad, 1, &fence, NULL),
                     UMO_OK);
    assert_int_equal(umo_device_fill(b.device, 2, &b.to, 0, 0, "x", 1, &bad, 1, &fence, NULL),
                     UMO_OK);
    assert_int_equal(umo_device_convert(b.device, 2, &none, &bad, 1, &fence, NULL), UMO_OK);
    assert_true(umo_fence_done(fence));
    bench_close(&b);
    bench_close(&other);
}

/* ---- cost ---- */

static void eight_short_pieces_share_a_command_and_a_long_one_has_its_own(void **state)
{
    (void)state;
    static const struct {
        size_t short_pieces;
        size_t long_pieces;
        int commands;
    } costs[] = {{0, 0, 0},  {1, 0, 1},  {2, 0, 1}, {7, 0, 1}, {8, 0, 1}, {9, 0, 2},
                 {16, 0, 2}, {17, 0, 3}, {0, 1, 1}, {1, 1, 2}, {8, 2, 3}, {24, 3, 6}};
    bench b = bench_open(&as_it_is, 0);
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++) {
        umo_piece pieces[64];
        size_t count = 0;
        size_t shorts = costs[i].short_pieces;
        size_t longs = costs[i].long_pieces;
        size_t at = 0;
        /* Long ones between short ones, and empty ones between all. */
        while (shorts > 0 || longs > 0) {
            const bool takes_long = longs > 0 && (shorts == 0 || count % 3 == 0);
            const size_t size_bytes = takes_long ? LONG : LONG / 8 - 1;
            pieces[count++] = (umo_piece){&b.from, at, size_bytes};
            pieces[count++] = (umo_piece){&b.from, at, 0};
            at += size_bytes;
            *(takes_long ? &longs : &shorts) -= 1;
        }
        umo_fence fence = {0};
        seen.launches = seen.copies = 0;
        assert_int_equal(
            umo_device_gather(b.device, 0, pieces, count, &b.to, 0, NULL, 0, &fence, NULL), UMO_OK);
        assert_int_equal(seen.launches + seen.copies, costs[i].commands);
        assert_memory_equal(b.to_bytes, b.from_bytes, at);
        seen.launches = seen.copies = 0;
        assert_int_equal(
            umo_device_scatter(b.device, 0, &b.to, 0, pieces, count, NULL, 0, &fence, NULL),
            UMO_OK);
        assert_int_equal(seen.launches + seen.copies, costs[i].commands);
    }
    bench_close(&b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_device_without_kernels_copies),
        TEST(a_device_of_a_language_without_our_program_copies),
        TEST(a_device_whose_memory_lies_anywhere_copies),
        TEST(a_program_is_built_once_and_lives_as_long_as_its_device),
        TEST(of_programs_built_at_the_same_time_one_is_kept),
        TEST(a_program_that_did_not_build_is_tried_again_and_each_call_says_why),
        TEST(after_a_failure_midway_nothing_runs_any_more),
        TEST(a_failure_of_another_devices_work_is_passed_on),
        TEST(eight_short_pieces_share_a_command_and_a_long_one_has_its_own),
    };
    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
