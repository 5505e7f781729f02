/*
 * The OpenCL driver over a strict OpenCL in memory: every call fails once, machines that are not
 * here (a GPU with shared memory, a discrete one, two platforms) are tried, and nothing may stay
 * behind.
 */
#include "driver/opencl/fake_device.h"
#include "os/os.h"

/* ---- every call fails once ---- */

#define TRY(call)                                                                                  \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != UMO_OK) {                                                                    \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)

enum {
    SCENE_BYTES = 8192
};

typedef struct scene {
    void *state;
    umo_device_info info;
    void *program;
    void *kernel;
    size_t memory_count;
    umo_memory memory[4];
    unsigned char *pages; /* of the import */
} scene;

/* One way through the whole table; every result that comes out OK has to be right. */
static umo_status scene_play(scene *s)
{
    umo_status status;
    umo_error error = {0};
    umo_fence fence = {0};
    umo_fence copied = {0};
    umo_fence added = {0};
    umo_memory *m = s->memory;
    uint32_t count = 0;
    unsigned char back[SCENE_BYTES];

    TRY(driver->count(&count, &error));
    TRY(driver->open(0, &no_options, &s->state, &s->info, &error));
    if ((s->info.caps & UMO_CAP_UNIFIED) == 0 || (s->info.caps & UMO_CAP_KERNELS) == 0) {
        status = UMO_E_UNSUPPORTED; /* a probe failed, and the device said so */
        goto done;
    }
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        TRY(driver->alloc(s->state, SCENE_BYTES, (umo_storage_mode)mode, &m[s->memory_count],
                          &error));
        s->memory_count++;
    }
    TRY(driver->import(s->state, s->pages, SCENE_BYTES, UMO_IMPORT_READ | UMO_IMPORT_WRITE, &m[3],
                       NULL, &error));
    s->memory_count++;
    TRY(driver->program_create(s->state, &add_source, &s->program, &error));
    TRY(driver->kernel_create(s->state, s->program, "add", &s->kernel, &error));

    /* host -> imported -> private -> managed -> host, one added on the way, over three queues */
    TRY(driver->publish(s->state, 0, &m[3], UMO_SIDE_HOST, true, 0, SCENE_BYTES, NULL, 0, &fence));
    TRY(driver->fence_wait(s->state, 0, fence.value, UINT64_MAX));
    memset(s->pages, 7, SCENE_BYTES);
    TRY(driver->publish(s->state, 0, &m[3], UMO_SIDE_DEVICE, false, 0, SCENE_BYTES, NULL, 0,
                        &fence));
    TRY(driver->copy(s->state, 1, &m[3], 0, &m[UMO_PRIVATE], 0, SCENE_BYTES, &fence, 1, &copied));
    TRY(add_launch(s->state, 2, s->kernel, &m[UMO_PRIVATE], 4096, 4096, 1, &copied, 1, &added,
                   &error));
    TRY(driver->copy(s->state, 2, &m[UMO_PRIVATE], 0, &m[UMO_MANAGED], 0, SCENE_BYTES, &added, 1,
                     &copied));
    TRY(driver->transfer(s->state, 3, &m[UMO_MANAGED], UMO_SIDE_HOST, 0, SCENE_BYTES,
                         m[UMO_MANAGED].host, &copied, 1, &fence));
    TRY(driver->fence_wait(s->state, 3, fence.value, 1000000000));
    for (size_t i = 0; i < SCENE_BYTES; i++) {
        assert_int_equal(((unsigned char *)m[UMO_MANAGED].host)[i], i < 4096 ? 7 : 8);
    }
    /* and once more, straight from the private one */
    memset(back, 0, sizeof back);
    TRY(driver->transfer(s->state, 0, &m[UMO_PRIVATE], UMO_SIDE_HOST, 0, SCENE_BYTES, back, &added,
                         1, &fence));
    TRY(driver->fence_wait(s->state, 0, fence.value, UINT64_MAX));
    assert_true(driver->fence_done(s->state, 0, fence.value));
    assert_memory_equal(back, m[UMO_MANAGED].host, SCENE_BYTES);

done:
    /* What was queued may still use the stack and the pages. */
    if (s->state != NULL) {
        for (uint32_t q = 0; q < UMO_OPENCL_QUEUES; q++) {
            uint64_t given = ((umo_opencl_state *)s->state)->queues[q].given;
            umo_status waited = driver->fence_wait(s->state, q, given, UINT64_MAX);
            status = status == UMO_OK ? waited : status;
        }
    }
    return status;
}

static void scene_clear(scene *s)
{
    if (s->kernel != NULL) {
        driver->kernel_destroy(s->state, s->kernel);
    }
    if (s->program != NULL) {
        driver->program_destroy(s->state, s->program);
    }
    for (size_t i = 0; i < s->memory_count; i++) {
        driver->free(s->state, &s->memory[i]);
    }
    if (s->state != NULL) {
        driver->close(s->state);
    }
}

/* Plays the scene with each call failing once, and each command ending badly once. */
static void sweep(void (*machine)(void), cl_int code)
{
    unsigned char *pages = umo_os_pages_alloc(SCENE_BYTES);
    uint64_t tolerated = 0;
    for (int what = 0; what < 2; what++) {
        for (uint64_t n = 1;; n++) {
            machine();
            fake.fail_code = code;
            *(what == 0 ? &fake.fail_at : &fake.fail_command_at) = n;
            scene s = {.pages = pages};
            umo_status status = scene_play(&s);
            bool reached = what == 0 ? fake.calls >= n : fake.commands >= n;
            scene_clear(&s);
            assert_nothing_left();
            if (!reached) {
                assert_int_equal(status, UMO_OK);
                assert_true(n > 5);
                break;
            }
            tolerated += status == UMO_OK;
        }
    }
    /* Names for display, flushes, kinds of arguments: the work is right without them. More would be
     * swallowed errors. */
    assert_in_range(tolerated, 1, 40);
    umo_os_pages_free(pages, SCENE_BYTES);
}

static void every_call_that_fails_once_leaves_nothing_behind(void **unused)
{
    (void)unused;
    sweep(fake_reset, CL_OUT_OF_RESOURCES);
    sweep(fake_reset, CL_OUT_OF_HOST_MEMORY);
}

static void every_call_that_fails_once_leaves_nothing_behind_on_a_gpu(void **unused)
{
    (void)unused;
    sweep(fake_reset_gpu, CL_OUT_OF_RESOURCES);
}

/* ---- finding devices ---- */

static void a_missing_loader_says_what_to_install(void **unused)
{
    (void)unused;
    static const char *const absent[] = {"libOpenCL-absent.so.9", NULL};
    umo_opencl_api api;
    umo_error error = {0};
    assert_int_equal(umo_opencl_api_load(absent, &api, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "libOpenCL-absent.so.9"));
    assert_non_null(strstr(error.text, "pocl-opencl-icd"));
}

static void a_loader_without_the_calls_is_refused_by_name(void **unused)
{
    (void)unused;
    static const char *const other[] = {"libm.so.6", "/usr/lib/libSystem.B.dylib", NULL};
    umo_opencl_api api;
    umo_error error = {0};
    assert_int_equal(umo_opencl_api_load(other, &api, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "clGetPlatformIDs"));
}

static void no_platform_and_no_device_say_what_to_install(void **unused)
{
    (void)unused;
    umo_error error = {0};
    uint32_t count = 77;
    fake.no_platform = true;
    assert_int_equal(driver->count(&count, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "pocl-opencl-icd"));
    fake.no_platform = false;
    fake.devices[0] = 0;
    assert_int_equal(driver->count(&count, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "pocl-opencl-icd"));
    assert_int_equal(count, 77);
}

static void name_at(uint32_t ordinal, char *out)
{
    umo_device_info info;
    void *state = NULL;
    assert_int_equal(driver->open(ordinal, &no_options, &state, &info, NULL), UMO_OK);
    driver->close(state);
    memcpy(out, info.name, sizeof info.name);
}

static void devices_are_numbered_by_platform_name(void **unused)
{
    (void)unused;
    char name[128];
    uint32_t count = 0;
    fake.platforms = 3;
    fake.platform_names[0] = "Zeta";
    fake.platform_names[1] = "Alpha";
    fake.platform_names[2] = "Midway";
    fake.devices[0] = 1;
    fake.devices[1] = 2;
    fake.devices[2] = 0;
    assert_int_equal(driver->count(&count, NULL), UMO_OK);
    assert_int_equal(count, 3);
    name_at(0, name);
    assert_string_equal(name, "fake device 1.0");
    name_at(1, name);
    assert_string_equal(name, "fake device 1.1");
    name_at(2, name);
    assert_string_equal(name, "fake device 0.0");
    umo_device_info info;
    void *state = NULL;
    umo_error error = {0};
    assert_int_equal(driver->open(3, &no_options, &state, &info, &error), UMO_E_NOT_FOUND);
    assert_nothing_left();
}

static void a_broken_platform_does_not_hide_the_others(void **unused)
{
    (void)unused;
    uint32_t count = 0;
    umo_error error = {0};
    fake.platforms = 2;
    fake.platform_names[1] = "Other";
    fake.devices[1] = 2;
    fake.broken_platform = 1;
    assert_int_equal(driver->count(&count, NULL), UMO_OK);
    assert_int_equal(count, 2);
    fake.devices[1] = 0;
    assert_int_equal(driver->count(&count, &error), UMO_E_DEVICE);
    assert_int_equal(error.native, CL_OUT_OF_RESOURCES);
}

/* ---- capabilities ---- */

static void a_cpu_is_coherent_and_wraps_any_address(void **unused)
{
    (void)unused;
    umo_device_info info;
    void *state = device_open(&info);
    const uint32_t all = UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE | UMO_CAP_IMPORT_READ |
                         UMO_CAP_IMPORT_WRITE | UMO_CAP_COHERENT | UMO_CAP_KERNELS | UMO_CAP_ASYNC |
                         UMO_CAP_HOST_PROCESSOR;
    assert_int_equal(info.caps, all);
    assert_int_equal(info.import_align_bytes, 1);
    assert_int_equal(info.import_size_align_bytes, 1);
    assert_int_equal(info.write_granule_bytes, 1);
    driver->close(state);
    assert_nothing_left();
}

static void a_cpu_that_keeps_copies_is_not_called_coherent(void **unused)
{
    (void)unused;
    umo_device_info info;
    fake.shadow = true;
    void *state = device_open(&info);
    assert_int_equal(info.caps & UMO_CAP_COHERENT, 0);
    assert_int_equal(info.write_granule_bytes, umo_os_page_bytes());
    assert_int_not_equal(info.caps & UMO_CAP_UNIFIED, 0);
    assert_int_equal(info.import_align_bytes, umo_os_page_bytes());
    driver->close(state);
}

static void a_gpu_with_shared_memory_wraps_whole_pages(void **unused)
{
    (void)unused;
    fake_reset_gpu();
    umo_device_info info;
    umo_memory memory;
    umo_error error = {0};
    void *state = device_open(&info);
    assert_int_equal(info.caps & (UMO_CAP_COHERENT | UMO_CAP_HOST_PROCESSOR), 0);
    assert_int_equal(info.write_granule_bytes, umo_os_page_bytes());
    assert_int_not_equal(info.caps & UMO_CAP_IMPORT_WRITE, 0);
    assert_int_equal(info.import_align_bytes, umo_os_page_bytes());
    unsigned char *pages = umo_os_pages_alloc(8192);
    assert_int_equal(
        driver->import(state, pages + 64, 4096, UMO_IMPORT_READ, &memory, NULL, &error),
        UMO_E_REFUSED);
    assert_int_equal(driver->import(state, pages, 4096 + 8, UMO_IMPORT_READ, &memory, NULL, &error),
                     UMO_E_REFUSED);
    assert_int_equal(
        driver->import(state, pages, 4096 + 64, UMO_IMPORT_READ, &memory, NULL, &error), UMO_OK);
    driver->free(state, &memory);
    umo_os_pages_free(pages, 8192);
    driver->close(state);
    assert_nothing_left();
}

static void a_discrete_gpu_has_no_unified_memory(void **unused)
{
    (void)unused;
    fake_reset_gpu();
    fake.unified = CL_FALSE;
    umo_device_info info;
    umo_memory memory;
    unsigned char bytes[64];
    umo_error error = {0};
    void *state = device_open(&info);
    assert_int_equal(info.caps,
                     UMO_CAP_MANAGED | UMO_CAP_PRIVATE | UMO_CAP_KERNELS | UMO_CAP_ASYNC);
    assert_int_equal(driver->alloc(state, 64, UMO_UNIFIED, &memory, &error), UMO_E_UNSUPPORTED);
    assert_int_equal(driver->import(state, bytes, 64, UMO_IMPORT_READ, &memory, NULL, &error),
                     UMO_E_REFUSED);
    driver->close(state);
    assert_nothing_left();
}

static void a_device_that_does_not_share_what_it_wraps_is_not_unified(void **unused)
{
    (void)unused;
    bool *const faults[] = {&fake.elsewhere, &fake.deaf, &fake.mute, &fake.spill};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        if (faults[i] == &fake.spill) {
            fake_reset();
        } else {
            fake_reset_gpu();
        }
        *faults[i] = true;
        umo_device_info info;
        void *state = device_open(&info);
        assert_int_equal(info.caps & (UMO_CAP_UNIFIED | UMO_CAP_IMPORT_READ), 0);
        driver->close(state);
        for (int kind = 0; kind < FAKE_KINDS; kind++) {
            assert_int_equal(fake.live[kind], 0);
        }
    }
}

static void an_import_is_one_call(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    unsigned char bytes[100];
    void *state = device_open(&info);
    uint64_t before = fake.calls;
    assert_int_equal(driver->import(state, bytes + 1, 97, UMO_IMPORT_READ, &memory, NULL, NULL),
                     UMO_OK);
    assert_int_equal(fake.calls - before, 1);
    assert_ptr_equal(memory.host, bytes + 1);
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

/* ---- timelines ---- */

static void a_full_ring_waits_for_the_oldest_and_loses_no_event(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    void *state = device_open(&info);
    adder add = adder_create(state);
    assert_int_equal(driver->alloc(state, 16, UMO_UNIFIED, &memory, NULL), UMO_OK);
    memset(memory.host, 0, 16);
    for (uint64_t i = 1; i <= 1000; i++) {
        assert_int_equal(add_launch(state, 1, add.kernel, &memory, 0, 16, 1, NULL, 0, &fence, NULL),
                         UMO_OK);
        assert_int_equal(fence.queue, 1);
        assert_int_equal(fence.value, i);
        assert_true(fake.live[FAKE_EVENT] <= UMO_OPENCL_RING);
    }
    assert_true(driver->fence_done(state, 1, 1));
    assert_int_equal(driver->fence_wait(state, 1, 1000, UINT64_MAX), UMO_OK);
    assert_int_equal(fake.live[FAKE_EVENT], 0);
    assert_int_equal(*(unsigned char *)memory.host, (unsigned char)1000);
    assert_int_equal(fake.live[FAKE_KERNEL], 1);
    adder_destroy(state, add);
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

static void commands_wait_for_fences_of_other_queues(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence first = {0};
    umo_fence second = {0};
    unsigned char bytes[16];
    unsigned char back[16] = {0};
    void *state = device_open(&info);
    assert_int_equal(driver->alloc(state, 16, UMO_PRIVATE, &memory, NULL), UMO_OK);
    memset(bytes, 9, sizeof bytes);
    assert_int_equal(
        driver->transfer(state, 3, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &first),
        UMO_OK);
    assert_int_equal(
        driver->transfer(state, 2, &memory, UMO_SIDE_HOST, 0, 16, back, &first, 1, &second),
        UMO_OK);
    assert_int_equal(back[0], 0);
    assert_false(driver->fence_done(state, 2, second.value));
    assert_int_equal(driver->fence_wait(state, 2, second.value, UINT64_MAX), UMO_OK);
    assert_memory_equal(back, bytes, 16);
    assert_true(driver->fence_done(state, 3, first.value));
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

static void a_wait_ends_after_its_timeout(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    unsigned char bytes[16] = {0};
    void *state = device_open(&info);
    assert_int_equal(driver->alloc(state, 16, UMO_PRIVATE, &memory, NULL), UMO_OK);
    fake.stuck = true;
    assert_int_equal(
        driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 0), UMO_E_TIMEOUT);
    uint64_t start = umo_os_now_ns();
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 3000000), UMO_E_TIMEOUT);
    assert_true(umo_os_now_ns() - start >= 3000000);
    fake.stuck = false;
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 1000000000), UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 0), UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value + 1, 0), UMO_E_INVAL);
    assert_int_equal(driver->fence_wait(state, UMO_OPENCL_QUEUES, 1, 0), UMO_E_INVAL);
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

static void a_failed_command_fails_what_was_given_behind_it_and_nothing_later(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    unsigned char bytes[16] = {0};
    void *state = device_open(&info);
    assert_int_equal(driver->alloc(state, 16, UMO_PRIVATE, &memory, NULL), UMO_OK);
    fake.fail_command_at = fake.commands + 2;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
            UMO_OK);
    }
    assert_int_equal(driver->fence_wait(state, 0, 3, UINT64_MAX), UMO_E_DEVICE);
    assert_int_equal(driver->fence_wait(state, 0, 2, UINT64_MAX), UMO_E_DEVICE);
    assert_int_equal(driver->fence_wait(state, 0, 1, UINT64_MAX), UMO_OK);
    /* A command that would build on it is not queued, on no queue. */
    umo_fence failed = {.queue = 0, .value = 2};
    uint64_t before = fake.commands;
    assert_int_equal(
        driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, &failed, 1, &fence),
        UMO_E_DEVICE);
    assert_int_equal(
        driver->transfer(state, 1, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, &failed, 1, &fence),
        UMO_E_DEVICE);
    assert_int_equal(fake.commands, before);
    assert_int_equal(
        driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    /* Still known after more failures than are kept apart. */
    for (int i = 0; i < 20; i++) {
        fake.fail_command_at = fake.commands + 1;
        assert_int_equal(
            driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
            UMO_OK);
        assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_E_DEVICE);
    }
    assert_int_equal(driver->fence_wait(state, 0, 2, UINT64_MAX), UMO_E_DEVICE);
    assert_int_equal(driver->fence_wait(state, 0, 1, UINT64_MAX), UMO_OK);
    assert_int_equal(
        driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

static void failures_close_together_reach_what_was_given_between_them(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    unsigned char bytes[16] = {0};
    void *state = device_open(&info);
    assert_int_equal(driver->alloc(state, 16, UMO_PRIVATE, &memory, NULL), UMO_OK);
    fake.stuck = true; /* only what is waited for runs */
    const uint64_t first = fake.commands + 1;
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(
            driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
            UMO_OK);
        if (i == 1) {
            fake.fail_command_at = first;
            assert_int_equal(driver->fence_wait(state, 0, 1, UINT64_MAX), UMO_E_DEVICE);
            fake.fail_command_at = first + 1;
        }
    }
    assert_int_equal(driver->fence_wait(state, 0, 3, UINT64_MAX), UMO_E_DEVICE);
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

static void an_unknown_outcome_is_a_failure_and_the_command_has_ended(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    unsigned char bytes[16] = {0};
    void *state = device_open(&info);
    assert_int_equal(driver->alloc(state, 16, UMO_PRIVATE, &memory, NULL), UMO_OK);
    assert_int_equal(
        driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
        UMO_OK);
    fake.fail_at = fake.calls + 1; /* the question for its status */
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_E_DEVICE);
    assert_int_equal(fake.run, fake.commands);
    driver->free(state, &memory);
    driver->close(state);
    assert_nothing_left();
}

static void commands_under_way_end_before_close(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    static unsigned char bytes[16];
    void *state = device_open(&info);
    assert_int_equal(driver->alloc(state, 16, UMO_PRIVATE, &memory, NULL), UMO_OK);
    for (uint32_t q = 0; q < UMO_OPENCL_QUEUES; q++) {
        assert_int_equal(
            driver->transfer(state, q, &memory, UMO_SIDE_DEVICE, 0, 16, bytes, NULL, 0, &fence),
            UMO_OK);
    }
    driver->free(state, &memory);
    driver->close(state);
    assert_int_equal(fake.run, fake.commands);
    assert_nothing_left();
}

/* ---- programs and kernels ---- */

static void a_program_that_does_not_build_carries_the_compilers_text_and_line(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_error error = {0};
    void *program = NULL;
    void *state = device_open(&info);
    umo_program_source source = {.kind = UMO_PROGRAM_SOURCE, .text = "broken", .size_bytes = 6};
    assert_int_equal(driver->program_create(state, &source, &program, &error), UMO_E_INVAL);
    assert_string_equal(
        error.text,
        "the program does not build: some dir/x.cl:3:7: error: no such thing: a / b a / b");
    source.size_bytes = 0;
    assert_int_equal(driver->program_create(state, &source, &program, &error), UMO_E_INVAL);
    source = add_source;
    source.options = "-nonsense";
    assert_int_equal(driver->program_create(state, &source, &program, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "CL_INVALID_BUILD_OPTIONS"));
    source.kind = UMO_PROGRAM_HOST;
    assert_int_equal(driver->program_create(state, &source, &program, &error), UMO_E_UNSUPPORTED);
    driver->close(state);
    assert_nothing_left();
}

static void a_launch_names_the_argument_that_does_not_fit(void **unused)
{
    (void)unused;
    umo_device_info info;
    umo_error error = {0};
    umo_memory memory;
    umo_fence fence = {0};
    void *state = device_open(&info);
    adder add = adder_create(state);
    void *none = NULL;
    assert_int_equal(driver->kernel_create(state, add.program, "absent", &none, &error),
                     UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "'absent'"));
    assert_int_equal(driver->alloc(state, 64, UMO_UNIFIED, &memory, NULL), UMO_OK);
    const umo_grid grid = {.dimensions = 1, .global = {16}};
    const int amount = 1;
    const umo_kernel_arg right[] = {
        {.kind = UMO_ARG_MEMORY, .memory = &memory},
        {.kind = UMO_ARG_VALUE, .value = &amount, .size_bytes = sizeof amount},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
    };
    static const struct {
        size_t index;
        umo_kernel_arg arg;
        const char *text;
    } wrong[] = {
        {0,
         {.kind = UMO_ARG_VALUE, .value = "12345678", .size_bytes = 8},
         "argument 0 is memory, not a value"},
        {0, {.kind = UMO_ARG_MEMORY}, "argument 0 is empty"},
        {1,
         {.kind = UMO_ARG_LOCAL, .size_bytes = 4},
         "argument 1 is a value, not work-group memory"},
        {1,
         {.kind = UMO_ARG_VALUE, .value = "12345678", .size_bytes = 8},
         "argument 1 (a value, 8 bytes): CL_INVALID_ARG_SIZE"},
        {1, {.kind = UMO_ARG_VALUE}, "argument 1 is empty"},
        {2, {.kind = UMO_ARG_LOCAL}, "argument 2 is empty"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        umo_kernel_arg args[3];
        memcpy(args, right, sizeof args);
        args[wrong[i].index] = wrong[i].arg;
        assert_int_equal(
            driver->kernel_launch(state, 0, add.kernel, args, 3, &grid, NULL, 0, &fence, &error),
            UMO_E_INVAL);
        assert_non_null(strstr(error.text, wrong[i].text));
    }
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, right, 2, &grid, NULL, 0, &fence, &error),
        UMO_E_INVAL);
    assert_non_null(strstr(error.text, "takes 3 argument(s), not 2"));
    assert_int_equal(add_launch(state, 0, add.kernel, &memory, 64, 16, 1, NULL, 0, &fence, &error),
                     UMO_E_INVAL);
    assert_non_null(strstr(error.text, "argument 0 starts at byte 64 of 64"));
    const umo_grid odd = {.dimensions = 1, .global = {16}, .local = {7}};
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, right, 3, &odd, NULL, 0, &fence, &error),
        UMO_E_INVAL);
    assert_non_null(strstr(error.text, "CL_INVALID_WORK_GROUP_SIZE"));
    const umo_grid half = {.dimensions = 2, .global = {16, 16}, .local = {4, 0}};
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, right, 3, &half, NULL, 0, &fence, &error),
        UMO_E_INVAL);
    assert_int_equal(
        driver->kernel_launch(state, 0, add.kernel, right, 3, &grid, NULL, 0, &fence, &error),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    driver->free(state, &memory);
    adder_destroy(state, add);
    driver->close(state);
    assert_nothing_left();
}

static void an_argument_starts_anywhere_on_a_cpu_and_at_multiples_on_a_gpu(void **unused)
{
    (void)unused;
    for (int gpu = 0; gpu < 2; gpu++) {
        if (gpu) {
            fake_reset_gpu();
        }
        umo_device_info info;
        umo_memory memory;
        umo_fence fence = {0};
        umo_error error = {0};
        unsigned char bytes[8192];
        void *state = device_open(&info);
        adder add = adder_create(state);
        assert_int_equal(driver->alloc(state, sizeof bytes, UMO_UNIFIED, &memory, NULL), UMO_OK);
        assert_int_equal(driver->publish(state, 0, &memory, UMO_SIDE_HOST, true, 0, sizeof bytes,
                                         NULL, 0, &fence),
                         UMO_OK);
        assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
        memset(memory.host, 1, sizeof bytes);
        assert_int_equal(driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, true, 0, sizeof bytes,
                                         NULL, 0, &fence),
                         UMO_OK);
        assert_int_equal(
            add_launch(state, 0, add.kernel, &memory, 4096, 10, 1, NULL, 0, &fence, &error),
            UMO_OK);
        umo_status status =
            add_launch(state, 0, add.kernel, &memory, 77, 10, 2, NULL, 0, &fence, &error);
        assert_int_equal(status, gpu ? UMO_E_INVAL : UMO_OK);
        if (gpu) {
            assert_non_null(
                strstr(error.text, "starts at byte 77, which is no multiple of the device's 4096"));
        }
        assert_int_equal(driver->publish(state, 0, &memory, UMO_SIDE_HOST, false, 0, sizeof bytes,
                                         NULL, 0, &fence),
                         UMO_OK);
        uint64_t last = ((umo_opencl_state *)state)->queues[0].given;
        assert_int_equal(driver->fence_wait(state, 0, last, UINT64_MAX), UMO_OK);
        memset(bytes, 1, sizeof bytes);
        memset(bytes + 4096, 2, 10);
        memset(bytes + 77, gpu ? 1 : 3, 10);
        assert_memory_equal(bytes, memory.host, sizeof bytes);
        driver->free(state, &memory);
        adder_destroy(state, add);
        driver->close(state);
        assert_nothing_left();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_call_that_fails_once_leaves_nothing_behind),
        TEST(every_call_that_fails_once_leaves_nothing_behind_on_a_gpu),
        TEST(a_missing_loader_says_what_to_install),
        TEST(a_loader_without_the_calls_is_refused_by_name),
        TEST(no_platform_and_no_device_say_what_to_install),
        TEST(devices_are_numbered_by_platform_name),
        TEST(a_broken_platform_does_not_hide_the_others),
        TEST(a_cpu_is_coherent_and_wraps_any_address),
        TEST(a_cpu_that_keeps_copies_is_not_called_coherent),
        TEST(a_gpu_with_shared_memory_wraps_whole_pages),
        TEST(a_discrete_gpu_has_no_unified_memory),
        TEST(a_device_that_does_not_share_what_it_wraps_is_not_unified),
        TEST(an_import_is_one_call),
        TEST(a_full_ring_waits_for_the_oldest_and_loses_no_event),
        TEST(commands_wait_for_fences_of_other_queues),
        TEST(a_wait_ends_after_its_timeout),
        TEST(a_failed_command_fails_what_was_given_behind_it_and_nothing_later),
        TEST(failures_close_together_reach_what_was_given_between_them),
        TEST(an_unknown_outcome_is_a_failure_and_the_command_has_ended),
        TEST(commands_under_way_end_before_close),
        TEST(a_program_that_does_not_build_carries_the_compilers_text_and_line),
        TEST(a_launch_names_the_argument_that_does_not_fit),
        TEST(an_argument_starts_anywhere_on_a_cpu_and_at_multiples_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
