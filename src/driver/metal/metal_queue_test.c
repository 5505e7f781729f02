/*
 * Timelines of the Metal driver over a GPU that runs what it may in the worst order, newest first:
 * order, failures and where they travel, waits, and many threads.
 */
#include "driver/metal/metal_test.h"

#include <stdatomic.h>
#include <sched.h>

enum {
    SIZE = 4096
};

/* MTLCommandBufferError */
enum {
    ERROR_INTERNAL = 1,
    ERROR_TIMEOUT = 2,
    ERROR_PAGE_FAULT = 3,
    ERROR_NOT_PERMITTED = 7,
    ERROR_OUT_OF_MEMORY = 8,
    ERROR_INVALID_RESOURCE = 9
};

static umo_status wait_for(void *state, umo_fence fence)
{
    return driver->fence_wait(state, fence.queue, fence.value, UINT64_MAX);
}

/* A command that touches a memory's first bytes. */
static umo_status touch(void *state, uint32_t queue, umo_memory *memory, const umo_fence *waits,
                        size_t wait_count, umo_fence *out)
{
    static unsigned char bytes[16];
    return driver->transfer(state, queue, memory, UMO_SIDE_DEVICE, 0, sizeof bytes, bytes, waits,
                            wait_count, out);
}

static umo_fence touch_give(void *state, uint32_t queue, umo_memory *memory, const umo_fence *waits,
                            size_t wait_count)
{
    umo_fence fence = {0};
    assert_int_equal(touch(state, queue, memory, waits, wait_count, &fence), UMO_OK);
    assert_int_equal(fence.queue, queue);
    return fence;
}

/* ---- order ---- */

static void commands_of_one_queue_run_one_after_the_other(void **unused)
{
    (void)unused;
    enum {
        ROUNDS = 20
    };
    unsigned char bytes[SIZE];
    unsigned char expected = 7;
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence last = {0};
    memset(bytes, 7, SIZE);
    fake_metal_pause();
    (void)upload_give(state, 2, &memory, 0, SIZE, bytes, NULL, 0);
    for (int i = 0; i < ROUNDS; i++) {
        last = add_give(state, 2, add, &memory, SIZE, i, NULL, 0);
        expected = add_value(expected, i);
        assert_int_equal(last.value, i + 2);
    }
    assert_false(driver->fence_done(state, 2, 1));
    last = download_give(state, 2, &memory, 0, SIZE, bytes, NULL, 0);
    fake_metal_resume();
    fence_pass(state, last);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(bytes[i], expected);
    }
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

static void commands_wait_for_fences_of_other_queues(void **unused)
{
    (void)unused;
    unsigned char bytes[SIZE];
    unsigned char back[SIZE] = {0};
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory first = memory_make(state, SIZE, UMO_PRIVATE);
    umo_memory second = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence copied;
    memset(bytes, 7, SIZE);
    fake_metal_pause();
    umo_fence up = upload_give(state, 3, &first, 0, SIZE, bytes, NULL, 0);
    umo_fence added = add_give(state, 1, add, &first, SIZE, 1, &up, 1);
    assert_int_equal(driver->copy(state, 0, &first, 0, &second, 0, SIZE, &added, 1, &copied),
                     UMO_OK);
    const umo_fence waits[] = {up, {.queue = 1, .value = 0}, copied};
    umo_fence twice = add_give(state, 2, add, &second, SIZE, 2, waits, 3);
    umo_fence down = download_give(state, 1, &second, 0, SIZE, back, &twice, 1);
    assert_false(driver->fence_done(state, down.queue, down.value));
    assert_int_equal(back[0], 0);
    fake_metal_resume();
    fence_pass(state, down);
    assert_true(driver->fence_done(state, up.queue, up.value));
    assert_true(driver->fence_done(state, copied.queue, copied.value));
    assert_int_equal(back[0], add_value(add_value(7, 1), 2));
    assert_memory_equal(back, back + 1, SIZE - 1);
    driver->free(state, &second);
    driver->free(state, &first);
    adder_destroy(state, add);
    device_close(state);
}

/* All the other queues' last commands, and more than fit into a command. */
static void a_command_waits_for_sixteen_fences(void **unused)
{
    (void)unused;
    unsigned char bytes[UMO_WAITS_MAX][SIZE];
    umo_memory memory[UMO_WAITS_MAX];
    umo_fence waits[UMO_WAITS_MAX + 1];
    unsigned char back[SIZE];
    void *state = device_open();
    umo_memory sum = memory_make(state, SIZE, UMO_PRIVATE);
    fake_metal_pause();
    for (uint32_t i = 0; i < UMO_WAITS_MAX; i++) {
        memset(bytes[i], (int)i, SIZE);
        memory[i] = memory_make(state, SIZE, UMO_PRIVATE);
        waits[i] = upload_give(state, i % UMO_METAL_QUEUES, &memory[i], 0, SIZE, bytes[i], NULL, 0);
    }
    umo_fence fence = {0};
    assert_int_equal(
        driver->copy(state, 0, &memory[15], 0, &sum, 0, SIZE, waits, UMO_WAITS_MAX, &fence),
        UMO_OK);
    waits[UMO_WAITS_MAX] = fence;
    assert_int_equal(
        driver->copy(state, 0, &memory[15], 0, &sum, 0, SIZE, waits, UMO_WAITS_MAX + 1, &fence),
        UMO_E_INVAL);
    fake_metal_resume();
    download(state, &sum, 0, SIZE, back);
    assert_int_equal(back[0], 15);
    for (size_t i = 0; i < UMO_WAITS_MAX; i++) {
        assert_true(driver->fence_done(state, waits[i].queue, waits[i].value));
        driver->free(state, &memory[i]);
    }
    driver->free(state, &sum);
    device_close(state);
}

static void what_does_not_exist_is_not_waited_for(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence good = touch_give(state, 0, &memory, NULL, 0);
    umo_fence fence = {.queue = 77, .value = 77};
    const umo_fence wrong[] = {{.queue = UMO_METAL_QUEUES, .value = 1},
                               {.queue = UINT32_MAX, .value = 1},
                               {.queue = 0, .value = good.value + 1},
                               {.queue = 1, .value = 1},
                               {.queue = 0, .value = UINT64_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const umo_fence both[] = {good, wrong[i], good};
        assert_int_equal(touch(state, 0, &memory, &wrong[i], 1, &fence), UMO_E_INVAL);
        assert_int_equal(touch(state, 2, &memory, both, 3, &fence), UMO_E_INVAL);
        assert_int_equal(driver->fence_wait(state, wrong[i].queue, wrong[i].value, UINT64_MAX),
                         UMO_E_INVAL);
        assert_false(driver->fence_done(state, wrong[i].queue, wrong[i].value));
    }
    assert_int_equal(touch(state, UMO_METAL_QUEUES, &memory, NULL, 0, &fence), UMO_E_INVAL);
    assert_int_equal(fence.queue, 77);
    assert_int_equal(fence.value, 77);
    /* Value 0 has always passed. */
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        assert_true(driver->fence_done(state, q, 0));
        assert_int_equal(driver->fence_wait(state, q, 0, 0), UMO_OK);
    }
    const umo_fence passed[] = {{.queue = 3}, {.queue = 0}};
    good = touch_give(state, 0, &memory, passed, 2);
    /* Nothing of that was queued. */
    assert_int_equal(touch_give(state, 0, &memory, NULL, 0).value, good.value + 1);
    assert_int_equal(touch_give(state, 2, &memory, NULL, 0).value, 1);
    queues_drain(state);
    driver->free(state, &memory);
    device_close(state);
}

/* ---- waiting ---- */

static void a_wait_ends_after_its_timeout(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    fake_metal_pause();
    umo_fence fence = touch_give(state, 0, &memory, NULL, 0);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 0), UMO_E_TIMEOUT);
    uint64_t start_ns = umo_os_now_ns();
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 3000000), UMO_E_TIMEOUT);
    assert_true(umo_os_now_ns() - start_ns >= 3000000);
    fake_metal_resume();
    /* One that would end after the clock does lasts for ever. */
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX - 1), UMO_OK);
    fence = touch_give(state, 0, &memory, NULL, 0);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_C(60000000000)), UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, 0), UMO_OK);
    driver->free(state, &memory);
    device_close(state);
}

typedef struct giver {
    void *state;
    umo_memory *memory;
    _Atomic unsigned given;
    umo_fence last;
} giver;

static void *giver_run(void *opaque)
{
    giver *g = opaque;
    for (unsigned i = 0; i < UMO_METAL_RING + 10; i++) {
        if (touch(g->state, 1, g->memory, NULL, 0, &g->last) != UMO_OK) {
            break;
        }
        atomic_fetch_add(&g->given, 1);
    }
    return NULL;
}

static void a_full_ring_waits_for_the_oldest(void **unused)
{
    (void)unused;
    pthread_t thread;
    giver g = {.state = device_open()};
    umo_memory memory = memory_make(g.state, SIZE, UMO_PRIVATE);
    g.memory = &memory;
    fake_metal_pause();
    assert_int_equal(pthread_create(&thread, NULL, giver_run, &g), 0);
    while (atomic_load(&g.given) < UMO_METAL_RING) {
        (void)sched_yield();
    }
    (void)usleep(10000);
    assert_int_equal(atomic_load(&g.given), UMO_METAL_RING);
    assert_int_equal(fake_metal_pending(), UMO_METAL_RING);
    /* Other queues have rings of their own. */
    umo_fence other = touch_give(g.state, 0, &memory, NULL, 0);
    fake_metal_resume();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&g.given), UMO_METAL_RING + 10);
    assert_int_equal(g.last.value, UMO_METAL_RING + 10);
    fence_pass(g.state, g.last);
    fence_pass(g.state, other);
    driver->free(g.state, &memory);
    device_close(g.state);
}

static void commands_under_way_end_before_close(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.delay_ns = 5000000;
    fake_metal_reset(&options);
    static unsigned char bytes[16] = {1, 2, 3};
    unsigned char back[UMO_METAL_QUEUES][16] = {{0}};
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        umo_fence up = upload_give(state, q, &memory, 0, 16, bytes, NULL, 0);
        (void)download_give(state, q, &memory, 0, 16, back[q], &up, 1);
    }
    umo_memory gone = memory;
    queues_drain(state);
    driver->free(state, &gone);
    device_close(state);
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        assert_memory_equal(back[q], bytes, 16);
    }
    /* And those of a device that nobody waited for. */
    state = device_open();
    umo_fence fence;
    const umo_metal_host_step step = {
        .kind = UMO_METAL_STEP_POISON, .target = back[0], .size_bytes = 16};
    assert_int_equal(umo_metal_host_step_give(state, 3, &step, NULL, NULL, 0, &fence), UMO_OK);
    device_close(state);
    assert_int_equal(back[0][15], 0xDB);
}

/* ---- the host's steps ---- */

static void a_step_of_the_host_has_its_place_in_the_order(void **unused)
{
    (void)unused;
    unsigned char seen[SIZE];
    unsigned char host[SIZE];
    umo_device_info info;
    void *state = device_open_with(&test_mode, &info);
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence poisoned;
    memset(host, 1, SIZE);
    fake_metal_pause();
    umo_fence up = upload_give(state, 0, &memory, 0, SIZE, host, NULL, 0);
    umo_fence down = download_give(state, 1, &memory, 0, SIZE, seen, &up, 1);
    assert_int_equal(driver->poison(state, 2, &memory, UMO_SIDE_HOST, 8, SIZE - 8, seen + 8, &down,
                                    1, &poisoned),
                     UMO_OK);
    memset(seen, 2, SIZE);
    fake_metal_resume();
    fence_pass(state, poisoned);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(seen[i], i < 8 ? 1 : 0xDB);
    }
    driver->free(state, &memory);
    device_close(state);
}

static void a_command_that_failed_makes_no_step(void **unused)
{
    (void)unused;
    unsigned char seen[SIZE];
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    memset(seen, 2, SIZE);
    fake_metal_fail("commit", 1);
    umo_fence down = download_give(state, 1, &memory, 0, SIZE, seen, NULL, 0);
    assert_int_equal(wait_for(state, down), UMO_E_DEVICE);
    assert_int_equal(seen[0], 2);
    assert_memory_equal(seen, seen + 1, SIZE - 1);
    driver->free(state, &memory);
    device_close(state);
}

/* ---- failures ---- */

/* Across all queues, and over a command that ran well on what the failed one should have written.
 */
static void a_failure_reaches_what_builds_on_it_and_nothing_else(void **unused)
{
    (void)unused;
    static const struct {
        int64_t code;
        umo_status status;
    } codes[] = {
        {ERROR_INTERNAL, UMO_E_DEVICE},     {ERROR_TIMEOUT, UMO_E_DEVICE},
        {ERROR_PAGE_FAULT, UMO_E_DEVICE},   {ERROR_NOT_PERMITTED, UMO_E_DEVICE},
        {ERROR_OUT_OF_MEMORY, UMO_E_NOMEM}, {ERROR_INVALID_RESOURCE, UMO_E_DEVICE},
    };
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        umo_status status = codes[i].status;
        umo_fence fence = {.queue = 9, .value = 9};
        fake_metal_pause();
        umo_fence before = touch_give(state, 0, &memory, NULL, 0);
        fake_metal_fail("commit", 1);
        fake_metal_fail_code(codes[i].code);
        umo_fence failed = touch_give(state, 0, &memory, NULL, 0);
        umo_fence behind = touch_give(state, 1, &memory, &failed, 1);
        umo_fence further = touch_give(state, 2, &memory, &behind, 1);
        umo_fence alone = touch_give(state, 3, &memory, &before, 1);
        umo_fence same_queue = touch_give(state, 0, &memory, NULL, 0);
        fake_metal_resume();
        assert_int_equal(wait_for(state, further), status);
        assert_int_equal(wait_for(state, behind), status);
        assert_int_equal(wait_for(state, failed), status);
        assert_int_equal(wait_for(state, same_queue), status);
        assert_int_equal(wait_for(state, before), UMO_OK);
        assert_int_equal(wait_for(state, alone), UMO_OK);
        assert_true(driver->fence_done(state, failed.queue, failed.value));
        /* What would build on it now is not queued at all. */
        uint64_t run = fake_metal_commands_run();
        for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
            assert_int_equal(touch(state, q, &memory, &failed, 1, &fence), status);
            assert_int_equal(touch(state, q, &memory, &further, 1, &fence), status);
        }
        assert_int_equal(fence.value, 9);
        assert_true(fake_metal_idle());
        assert_int_equal(fake_metal_commands_run(), run);
        /* Everything else goes on, on every queue. */
        for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
            fence_pass(state, touch_give(state, q, &memory, &alone, 1));
        }
    }
    driver->free(state, &memory);
    device_close(state);
}

static void a_failure_whose_reason_metal_does_not_give_is_the_devices(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    adder add = adder_create(state);
    umo_fence fence = {0};
    umo_error error = {0};
    /* Purged memory: the command buffer is refused while it runs. */
    umo_memory purged = memory_make(state, 1 << 20, UMO_PRIVATE);
    assert_int_equal(driver->purgeable(state, &purged, UMO_PURGEABLE_EMPTY, NULL), UMO_OK);
    assert_int_equal(add_launch(state, 0, add, &purged, 0, 16, 1, NULL, 0, &fence, &error), UMO_OK);
    assert_int_equal(wait_for(state, fence), UMO_E_DEVICE);
    fence_pass(state, touch_give(state, 0, &memory, NULL, 0));
    driver->free(state, &purged);
    adder_destroy(state, add);
    driver->free(state, &memory);
    device_close(state);
}

static void failures_are_known_for_ever(void **unused)
{
    (void)unused;
    enum {
        FAILURES = 3 * UMO_METAL_FAILURES
    };
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence failed[FAILURES];
    umo_fence first = touch_give(state, 0, &memory, NULL, 0);
    fence_pass(state, first);
    for (int i = 0; i < FAILURES; i++) {
        fake_metal_fail("commit", 1);
        failed[i] = touch_give(state, 0, &memory, NULL, 0);
        assert_int_equal(wait_for(state, failed[i]), UMO_E_DEVICE);
        fence_pass(state, touch_give(state, 0, &memory, NULL, 0));
    }
    for (int i = 0; i < FAILURES; i++) {
        assert_int_equal(wait_for(state, failed[i]), UMO_E_DEVICE);
    }
    assert_int_equal(wait_for(state, first), UMO_OK);
    /* The newest are told apart from what ran well between them. */
    umo_fence between = {.queue = 0, .value = failed[FAILURES - 1].value - 1};
    assert_int_equal(wait_for(state, between), UMO_OK);
    fence_pass(state, touch_give(state, 0, &memory, NULL, 0));
    driver->free(state, &memory);
    device_close(state);
}

static void failures_close_together_are_one(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence fences[6];
    fake_metal_pause();
    for (int i = 0; i < 6; i++) {
        if (i == 1 || i == 3) {
            fake_metal_fail("commit", 1);
        }
        fences[i] = touch_give(state, 1, &memory, NULL, 0);
    }
    fake_metal_resume();
    queues_drain(state);
    assert_int_equal(wait_for(state, fences[0]), UMO_OK);
    for (int i = 1; i < 6; i++) {
        assert_int_equal(wait_for(state, fences[i]), UMO_E_DEVICE);
    }
    fence_pass(state, touch_give(state, 1, &memory, NULL, 0));
    driver->free(state, &memory);
    device_close(state);
}

static void a_lost_device_takes_no_more_commands(void **unused)
{
    (void)unused;
    unsigned char bytes[SIZE] = {0};
    umo_device_info info;
    void *state = device_open_with(&test_mode, &info);
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_error error = {0};
    umo_fence fences[UMO_METAL_QUEUES];
    umo_fence fence = {.value = 9};
    fake_metal_pause();
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        fences[q] = touch_give(state, q, &memory, q > 0 ? &fences[q - 1] : NULL, q > 0);
    }
    fake_metal_set_modes(FAKE_METAL_DEVICE_LOST);
    fake_metal_resume();
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        assert_int_equal(wait_for(state, fences[q]), UMO_E_DEVICE);
    }
    fake_metal_mark();
    for (uint32_t q = 0; q < UMO_METAL_QUEUES; q++) {
        assert_int_equal(touch(state, q, &memory, NULL, 0, &fence), UMO_E_DEVICE);
        assert_int_equal(
            driver->transfer(state, q, &memory, UMO_SIDE_HOST, 0, SIZE, bytes, NULL, 0, &fence),
            UMO_E_DEVICE);
        assert_int_equal(driver->copy(state, q, &memory, 0, &memory, 64, 16, NULL, 0, &fence),
                         UMO_E_DEVICE);
        assert_int_equal(driver->copy(state, q, &memory, 1, &memory, 64, 15, NULL, 0, &fence),
                         UMO_E_DEVICE);
        assert_int_equal(add_launch(state, q, add, &memory, 0, SIZE, 1, NULL, 0, &fence, &error),
                         UMO_E_DEVICE);
        assert_string_not_equal(error.text, "");
        for (int side = UMO_SIDE_HOST; side <= UMO_SIDE_DEVICE; side++) {
            assert_int_equal(
                driver->poison(state, q, &memory, (umo_side)side, 0, SIZE, bytes, NULL, 0, &fence),
                UMO_E_DEVICE);
        }
    }
    assert_int_equal(fence.value, 9);
    assert_int_equal(fake_metal_messages_of("commandBufferWithUnretainedReferences"), 0);
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

static void without_a_command_buffer_or_an_encoder_nothing_is_queued(void **unused)
{
    (void)unused;
    unsigned char bytes[SIZE] = {0};
    umo_device_info info;
    void *state = device_open_with(&test_mode, &info);
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    umo_fence fence = {.value = 9};
    umo_error error = {0};
    fake_metal_fail("commandBufferWithUnretainedReferences", 1);
    assert_int_equal(driver->copy(state, 0, &memory, 0, &memory, 64, 16, NULL, 0, &fence),
                     UMO_E_DEVICE);
    fake_metal_fail("blitCommandEncoder", 1);
    assert_int_equal(driver->copy(state, 0, &memory, 0, &memory, 64, 16, NULL, 0, &fence),
                     UMO_E_DEVICE);
    fake_metal_fail("computeCommandEncoder", 1);
    assert_int_equal(driver->copy(state, 0, &memory, 1, &memory, 64, 16, NULL, 0, &fence),
                     UMO_E_DEVICE);
    fake_metal_fail("computeCommandEncoder", 1);
    assert_int_equal(add_launch(state, 0, add, &memory, 0, SIZE, 1, NULL, 0, &fence, &error),
                     UMO_E_DEVICE);
    assert_non_null(strstr(error.text, "kernel 'add'"));
    assert_int_equal(fence.value, 9);
    /* A step of the host needs no encoder. */
    fake_metal_fail("blitCommandEncoder", 1);
    assert_int_equal(
        driver->poison(state, 0, &memory, UMO_SIDE_HOST, 0, SIZE, bytes, NULL, 0, &fence), UMO_OK);
    assert_int_equal(fence.value, 1);
    fence_pass(state, fence);
    fake_metal_fail("blitCommandEncoder", 0);
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

/* ---- many threads ---- */

enum {
    THREADS = 6,
    ROUNDS = 60
};

typedef struct worker {
    void *state;
    adder add;
    unsigned number;
    bool one_queue;
    const char *wrong;
} worker;

/* A chain of launches over the queues, each behind the last, checked at the end. */
static const char *worker_round(worker *w, umo_memory *memory, unsigned round)
{
    unsigned char bytes[512];
    unsigned char expected = (unsigned char)w->number;
    umo_fence last = {0};
    memset(bytes, expected, sizeof bytes);
    if (driver->transfer(w->state, w->number % UMO_METAL_QUEUES, memory, UMO_SIDE_DEVICE, 0,
                         sizeof bytes, bytes, NULL, 0, &last) != UMO_OK) {
        return "upload";
    }
    for (unsigned i = 0; i < 4; i++) {
        uint32_t queue = w->one_queue ? 1 : (round + i + w->number) % UMO_METAL_QUEUES;
        umo_fence next = {0};
        if (add_launch(w->state, queue, w->add, memory, 0, sizeof bytes, (int)(round + i), &last, 1,
                       &next, NULL) != UMO_OK) {
            return "launch";
        }
        last = next;
        expected = add_value(expected, (int)(round + i));
    }
    umo_fence down = {0};
    if (driver->transfer(w->state, w->one_queue ? 1 : 3, memory, UMO_SIDE_HOST, 0, sizeof bytes,
                         bytes, &last, 1, &down) != UMO_OK) {
        return "download";
    }
    if (driver->fence_wait(w->state, down.queue, down.value, UINT64_MAX) != UMO_OK) {
        return "wait";
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        if (bytes[i] != expected) {
            return "bytes";
        }
    }
    return NULL;
}

static void *worker_run(void *opaque)
{
    worker *w = opaque;
    umo_memory memory;
    if (driver->alloc(w->state, 512, UMO_PRIVATE, &memory, NULL) != UMO_OK) {
        w->wrong = "alloc";
        return NULL;
    }
    for (unsigned round = 0; round < ROUNDS && w->wrong == NULL; round++) {
        w->wrong = worker_round(w, &memory, round);
    }
    driver->free(w->state, &memory);
    return NULL;
}

static void workers_run(bool one_queue)
{
    worker workers[THREADS];
    pthread_t threads[THREADS];
    void *state = device_open();
    adder add = adder_create(state);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.state = state, .add = add, .number = i + 1, .one_queue = one_queue};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_string_equal(workers[i].wrong != NULL ? workers[i].wrong : "", "");
    }
    adder_destroy(state, add);
    device_close(state);
}

static void many_threads_give_commands_on_one_queue(void **unused)
{
    (void)unused;
    workers_run(true);
}

static void many_threads_give_commands_on_all_queues(void **unused)
{
    (void)unused;
    workers_run(false);
}

/* Half of the threads' commands fail now and then; every fence is right about its own. */
static void *failing_run(void *opaque)
{
    worker *w = opaque;
    umo_memory memory;
    if (driver->alloc(w->state, 512, UMO_PRIVATE, &memory, NULL) != UMO_OK) {
        w->wrong = "alloc";
        return NULL;
    }
    for (unsigned round = 0; round < ROUNDS && w->wrong == NULL; round++) {
        umo_fence first = {0};
        umo_fence second = {0};
        uint32_t queue = w->number % UMO_METAL_QUEUES;
        if (touch(w->state, queue, &memory, NULL, 0, &first) != UMO_OK) {
            w->wrong = "first";
            break;
        }
        umo_status given = driver->copy(w->state, (queue + 1) % UMO_METAL_QUEUES, &memory, 0,
                                        &memory, 256, 64, &first, 1, &second);
        umo_status status = driver->fence_wait(w->state, queue, first.value, UINT64_MAX);
        if (given == UMO_OK &&
            driver->fence_wait(w->state, second.queue, second.value, UINT64_MAX) == UMO_OK &&
            status != UMO_OK) {
            w->wrong = "a command is well that waited for a failed one";
        }
        if (given != UMO_OK && status == UMO_OK) {
            w->wrong = "a command was refused that waited for one that is well";
        }
    }
    driver->free(w->state, &memory);
    return NULL;
}

static void failures_of_many_threads_stay_apart(void **unused)
{
    (void)unused;
    worker workers[THREADS];
    pthread_t threads[THREADS];
    void *state = device_open();
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.state = state, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, failing_run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 50; i++) {
        fake_metal_fail("commit", 1 + i % 7);
        (void)usleep(100);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_string_equal(workers[i].wrong != NULL ? workers[i].wrong : "", "");
    }
    fake_metal_fail("commit", 0);
    device_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(commands_of_one_queue_run_one_after_the_other),
        TEST(commands_wait_for_fences_of_other_queues),
        TEST(a_command_waits_for_sixteen_fences),
        TEST(what_does_not_exist_is_not_waited_for),
        TEST(a_wait_ends_after_its_timeout),
        TEST(a_full_ring_waits_for_the_oldest),
        TEST(commands_under_way_end_before_close),
        TEST(a_step_of_the_host_has_its_place_in_the_order),
        TEST(a_command_that_failed_makes_no_step),
        TEST(a_failure_reaches_what_builds_on_it_and_nothing_else),
        TEST(a_failure_whose_reason_metal_does_not_give_is_the_devices),
        TEST(failures_are_known_for_ever),
        TEST(failures_close_together_are_one),
        TEST(a_lost_device_takes_no_more_commands),
        TEST(without_a_command_buffer_or_an_encoder_nothing_is_queued),
        TEST(many_threads_give_commands_on_one_queue),
        TEST(many_threads_give_commands_on_all_queues),
        TEST(failures_of_many_threads_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
