/*
 * One way through the Metal driver's whole table, for tests in which a call fails on the way: what
 * comes out OK has to be right, what does not has to say why, and nothing may stay behind.
 */
#ifndef UMO_DRIVER_METAL_SCENE_TEST_H
#define UMO_DRIVER_METAL_SCENE_TEST_H

#include "driver/metal/metal_test.h"

enum {
    SCENE_BYTES = 272 << 10, /* long enough to be wrapped, and no multiple of 64 KiB */
    SCENE_SMALL = 1000,
    SCENE_AT = 64 /* where transfers begin in host memory: a line of its own */
};

typedef struct scene {
    void *state;
    umo_device_info info;
    void *program;
    void *kernel;
    umo_memory big[UMO_STORAGE_MODES];
    umo_memory small[UMO_STORAGE_MODES];
    umo_memory imported;
    unsigned char *pages; /* of the import */
    unsigned char *host;  /* SCENE_AT + SCENE_BYTES of each */
    unsigned char *between;
    unsigned char *back;
} scene;

static inline void scene_pages_make(scene *s)
{
    *s = (scene){.pages = umo_os_pages_alloc(2 * pages_test_bytes()),
                 .host = umo_os_pages_alloc(2 * (size_t)SCENE_BYTES),
                 .between = umo_os_pages_alloc(2 * (size_t)SCENE_BYTES),
                 .back = umo_os_pages_alloc(2 * (size_t)SCENE_BYTES)};
    assert_true(s->pages != NULL && s->host != NULL && s->between != NULL && s->back != NULL);
    pattern_fill(s->host, SCENE_AT + SCENE_BYTES, 3);
}

static inline void scene_pages_free(scene *s)
{
    umo_os_pages_free(s->back, 2 * (size_t)SCENE_BYTES);
    umo_os_pages_free(s->between, 2 * (size_t)SCENE_BYTES);
    umo_os_pages_free(s->host, 2 * (size_t)SCENE_BYTES);
    umo_os_pages_free(s->pages, 2 * pages_test_bytes());
}

#define SCENE_TRY(call)                                                                            \
    do {                                                                                           \
        umo_status try_status = (call);                                                            \
        if (try_status != UMO_OK) {                                                                \
            return try_status;                                                                     \
        }                                                                                          \
    } while (0)

/* A call that has words to give with its status. */
#define SCENE_TRY_WORDS(call)                                                                      \
    do {                                                                                           \
        umo_error error = {0};                                                                     \
        umo_status try_status = (call);                                                            \
        if (try_status != UMO_OK) {                                                                \
            assert_int_equal(error.status, try_status);                                            \
            assert_string_not_equal(error.text, "");                                               \
            return try_status;                                                                     \
        }                                                                                          \
    } while (0)

static inline umo_status scene_make(scene *s, const umo_driver_options *options)
{
    uint32_t count = 0;
    SCENE_TRY_WORDS(driver->count(&count, &error));
    assert_int_equal(count, 1);
    SCENE_TRY_WORDS(driver->open(0, options, &s->state, &s->info, &error));
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        SCENE_TRY_WORDS(
            driver->alloc(s->state, SCENE_BYTES, (umo_storage_mode)mode, &s->big[mode], &error));
        SCENE_TRY_WORDS(
            driver->alloc(s->state, SCENE_SMALL, (umo_storage_mode)mode, &s->small[mode], &error));
    }
    SCENE_TRY_WORDS(driver->import(s->state, s->pages, 2 * pages_test_bytes(),
                                   UMO_IMPORT_READ | UMO_IMPORT_WRITE, &s->imported, NULL, &error));
    const umo_program_source source = text_source(kernel_text);
    SCENE_TRY_WORDS(driver->program_create(s->state, &source, &s->program, &error));
    SCENE_TRY_WORDS(driver->kernel_create(s->state, s->program, "add", &s->kernel, &error));
    return UMO_OK;
}

/* host -> private -> kernel -> between -> private -> unified, over all queues, without a wait. */
static inline umo_status scene_private(scene *s)
{
    umo_memory *big = &s->big[UMO_PRIVATE];
    umo_memory *small = &s->small[UMO_PRIVATE];
    umo_memory *seen = &s->small[UMO_UNIFIED];
    const adder add = {s->program, s->kernel};
    umo_fence up = {0};
    umo_fence added = {0};
    umo_fence odd = {0};
    umo_fence down = {0};
    umo_fence again = {0};
    memset(seen->host, 0, SCENE_SMALL);
    SCENE_TRY(driver->transfer(s->state, 0, big, UMO_SIDE_DEVICE, 0, SCENE_BYTES,
                               s->host + SCENE_AT, NULL, 0, &up));
    SCENE_TRY_WORDS(add_launch(s->state, 1, add, big, 16, 4096, 5, &up, 1, &added, &error));
    SCENE_TRY(driver->copy(s->state, 1, big, 17, small, 3, 501, NULL, 0, &odd));
    SCENE_TRY(
        driver->transfer(s->state, 2, big, UMO_SIDE_HOST, 0, 4096, s->between, &added, 1, &down));
    const umo_fence both[] = {down, odd};
    /* The bytes are still to come. */
    SCENE_TRY(driver->transfer(s->state, 3, small, UMO_SIDE_DEVICE, 600, 300, s->between + 100,
                               both, 2, &again));
    SCENE_TRY(driver->copy(s->state, 0, small, 0, seen, 0, SCENE_SMALL, &again, 1, &again));
    SCENE_TRY(driver->fence_wait(s->state, 0, again.value, UINT64_C(60000000000)));
    assert_true(driver->fence_done(s->state, 0, again.value));
    const unsigned char *bytes = seen->host;
    for (size_t i = 0; i < 501; i++) {
        assert_int_equal(bytes[3 + i], add_value(s->host[SCENE_AT + 17 + i], 5));
    }
    for (size_t i = 0; i < 300; i++) {
        assert_int_equal(bytes[600 + i], add_value(s->host[SCENE_AT + 100 + i], 5));
    }
    memset(s->back, 0, SCENE_AT + SCENE_BYTES);
    SCENE_TRY(driver->transfer(s->state, 1, big, UMO_SIDE_HOST, 0, SCENE_BYTES, s->back + SCENE_AT,
                               NULL, 0, &down));
    SCENE_TRY(driver->fence_wait(s->state, 1, down.value, UINT64_MAX));
    assert_memory_equal(s->back + SCENE_AT + 4112, s->host + SCENE_AT + 4112, SCENE_BYTES - 4112);
    assert_int_equal(s->back[SCENE_AT - 1], 0);
    return UMO_OK;
}

static inline umo_status scene_managed(scene *s)
{
    umo_memory *big = &s->big[UMO_MANAGED];
    unsigned char *host = big->host;
    const adder add = {s->program, s->kernel};
    umo_fence fence = {0};
    memset(host, 9, SCENE_BYTES);
    if (!big->one_memory) {
        SCENE_TRY(driver->transfer(s->state, 0, big, UMO_SIDE_DEVICE, 0, SCENE_BYTES, host, NULL, 0,
                                   &fence));
    }
    SCENE_TRY_WORDS(add_launch(s->state, 0, add, big, 0, 4096, 1, &fence, 1, &fence, &error));
    for (size_t part = 0; part < 2 && !big->one_memory; part++) {
        size_t size_bytes = part == 0 ? SCENE_SMALL : SCENE_BYTES;
        SCENE_TRY(driver->transfer(s->state, 1, big, UMO_SIDE_HOST, 0, size_bytes, host, &fence, 1,
                                   &fence));
    }
    SCENE_TRY(driver->fence_wait(s->state, fence.queue, fence.value, UINT64_MAX));
    assert_int_equal(host[0], add_value(9, 1));
    assert_memory_equal(host, host + 1, 4095);
    assert_int_equal(host[4096], 9);
    assert_memory_equal(host + 4096, host + 4097, SCENE_BYTES - 4097);
    return UMO_OK;
}

static inline umo_status scene_rest(scene *s)
{
    const adder add = {s->program, s->kernel};
    umo_fence fence = {0};
    umo_device_usage usage = {0};
    memset(s->pages, 4, 2 * pages_test_bytes());
    SCENE_TRY_WORDS(
        add_launch(s->state, 2, add, &s->imported, 1, SCENE_SMALL, 2, NULL, 0, &fence, &error));
    SCENE_TRY(driver->copy(s->state, 3, &s->imported, 0, &s->big[UMO_UNIFIED], 0, 4096, &fence, 1,
                           &fence));
    SCENE_TRY(driver->fence_wait(s->state, 3, fence.value, UINT64_MAX));
    assert_int_equal(s->pages[0], 4);
    assert_int_equal(s->pages[SCENE_SMALL], add_value(4, 2));
    assert_memory_equal(s->big[UMO_UNIFIED].host, s->pages, 4096);
    if ((s->info.caps & UMO_CAP_POISON) != 0) {
        SCENE_TRY(driver->poison(s->state, 0, &s->small[UMO_PRIVATE], UMO_SIDE_DEVICE, 0,
                                 SCENE_SMALL, NULL, NULL, 0, &fence));
        SCENE_TRY(driver->poison(s->state, 0, &s->small[UMO_PRIVATE], UMO_SIDE_HOST, 0, SCENE_SMALL,
                                 s->back, &fence, 1, &fence));
        SCENE_TRY(driver->fence_wait(s->state, 0, fence.value, UINT64_MAX));
        assert_int_equal(s->back[SCENE_SMALL - 1], 0xDB);
    }
    SCENE_TRY(driver->usage(s->state, &usage));
    assert_true(usage.allocated_bytes > 3 * (uint64_t)SCENE_BYTES);
    bool lost = true;
    SCENE_TRY(driver->purgeable(s->state, &s->big[UMO_UNIFIED], UMO_PURGEABLE_VOLATILE, NULL));
    SCENE_TRY(driver->purgeable(s->state, &s->big[UMO_UNIFIED], UMO_PURGEABLE_KEPT, &lost));
    assert_false(lost);
    return UMO_OK;
}

static inline umo_status scene_play(scene *s, const umo_driver_options *options)
{
    umo_status status = scene_make(s, options);
    if (status == UMO_OK) {
        status = scene_private(s);
    }
    if (status == UMO_OK) {
        status = scene_managed(s);
    }
    if (status == UMO_OK) {
        status = scene_rest(s);
    }
    /* What was queued may still use the pages; and a failure that nobody waited for is one too. */
    for (uint32_t q = 0; s->state != NULL && q < UMO_METAL_QUEUES; q++) {
        uint64_t given = ((umo_metal_state *)s->state)->queues[q].given;
        umo_status waited = driver->fence_wait(s->state, q, given, UINT64_MAX);
        status = status == UMO_OK ? waited : status;
    }
    return status;
}

static inline void scene_clear(scene *s)
{
    if (s->kernel != NULL) {
        driver->kernel_destroy(s->state, s->kernel);
    }
    if (s->program != NULL) {
        driver->program_destroy(s->state, s->program);
    }
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_memory *both[] = {&s->big[mode], &s->small[mode]};
        for (size_t i = 0; i < 2; i++) {
            if (both[i]->native != NULL) {
                driver->free(s->state, both[i]);
            }
            *both[i] = (umo_memory){0};
        }
    }
    if (s->imported.native != NULL) {
        driver->free(s->state, &s->imported);
    }
    if (s->state != NULL) {
        driver->close(s->state);
    }
    s->imported = (umo_memory){0};
    s->kernel = NULL;
    s->program = NULL;
    s->state = NULL;
    assert_nothing_left();
}

#endif
