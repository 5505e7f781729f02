/*
 * Movement of bytes in the Metal driver: every way between host memory and the device's, and what
 * must not be moved with it.
 */
#include "driver/metal/metal_test.h"

#include <stdlib.h>

enum {
    KIB = 1024,
    WRAP_MIN = 256 * KIB,
    SIZE = 320 * KIB
};

static const char no_copy[] = "newBufferWithBytesNoCopy:length:options:deallocator:";
static const char new_pipeline[] =
    "newComputePipelineStateWithDescriptor:options:reflection:error:";
static const char byte_kernel[] = "dispatchThreads:threadsPerThreadgroup:";
static const char blit[] = "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:";

/* ---- private memory ---- */

/* Up and down again, at offsets that suit a blit and that do not. */
static void private_memory_takes_any_range(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {
        1, 2, 3, 4, 5, 255, 4096, 4097, 65537, WRAP_MIN - 1, WRAP_MIN, WRAP_MIN + 1, 300 * KIB};
    static const size_t offsets[] = {0, 1, 2, 3, 4, 4099};
    static const size_t shifts[] = {0, 1, 4};
    const size_t size_bytes = SIZE;
    unsigned char *up = umo_os_pages_alloc(SIZE);
    unsigned char *down = umo_os_pages_alloc(SIZE);
    unsigned char *expected = umo_os_pages_alloc(SIZE);
    for (int discrete = 0; discrete < 2; discrete++) {
        if (discrete != 0) {
            machine_discrete();
        }
        void *state = device_open();
        umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
        pattern_fill(expected, size_bytes, 3);
        upload(state, &memory, 0, SIZE, expected);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            for (size_t o = 0; o < sizeof offsets / sizeof offsets[0]; o++) {
                const size_t shift = shifts[(s + o) % 3];
                pattern_fill(up, size_bytes, (unsigned)(s * 16 + o));
                memcpy(expected + offsets[o], up + shift, sizes[s]);
                upload(state, &memory, offsets[o], sizes[s], up + shift);
                /* The range alone comes back, and not a byte beside it. */
                memset(down, 0x55, size_bytes);
                download(state, &memory, offsets[o], sizes[s], down + shift);
                assert_memory_equal(down + shift, expected + offsets[o], sizes[s]);
                assert_int_equal(shift > 0 ? down[shift - 1] : 0x55, 0x55);
                assert_int_equal(down[shift + sizes[s]], 0x55);
            }
        }
        memset(down, 0, size_bytes);
        download(state, &memory, 0, SIZE, down);
        assert_memory_equal(down, expected, size_bytes);
        driver->free(state, &memory);
        device_close(state);
    }
    umo_os_pages_free(expected, SIZE);
    umo_os_pages_free(down, SIZE);
    umo_os_pages_free(up, SIZE);
}

static void long_host_memory_is_wrapped_and_short_is_staged(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(2 * SIZE);
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    const struct {
        size_t offset;
        size_t size;
        umo_side to;
        bool wrapped;
    } ways[] = {
        {0, WRAP_MIN, UMO_SIDE_DEVICE, true},
        {0, WRAP_MIN, UMO_SIDE_HOST, true},
        {0, WRAP_MIN - 4, UMO_SIDE_DEVICE, false},
        {0, WRAP_MIN - 4, UMO_SIDE_HOST, false},
        /* To the device, any place does; what is written back has whole lines of its own. */
        {1, WRAP_MIN, UMO_SIDE_DEVICE, true},
        {1, WRAP_MIN, UMO_SIDE_HOST, false},
        {page - 4, WRAP_MIN, UMO_SIDE_DEVICE, true},
        {page - 4, WRAP_MIN, UMO_SIDE_HOST, false},
        {128, WRAP_MIN, UMO_SIDE_HOST, true},
        {128, WRAP_MIN + 4, UMO_SIDE_HOST, false},
        {128, WRAP_MIN + 4, UMO_SIDE_DEVICE, true},
    };
    pattern_fill(pages, 2 * (size_t)SIZE, 5);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        umo_fence fence = {0};
        fake_metal_mark();
        assert_int_equal(driver->transfer(state, 1, &memory, ways[i].to, 0, ways[i].size,
                                          pages + ways[i].offset, NULL, 0, &fence),
                         UMO_OK);
        assert_int_equal(fake_metal_messages_of(no_copy), ways[i].wrapped);
        assert_int_equal(fake_metal_messages_of("newBufferWithLength:options:"), !ways[i].wrapped);
        fence_pass(state, fence);
        /* Once the fence has passed, the memory is its owner's alone. */
        assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    }
    driver->free(state, &memory);
    device_close(state);
    umo_os_pages_free(pages, 2 * SIZE);
}

static void what_metal_does_not_wrap_is_staged(void **unused)
{
    (void)unused;
    unsigned char *pages = umo_os_pages_alloc(SIZE);
    unsigned char *expected = umo_os_pages_alloc(SIZE);
    unsigned char *read_only =
        pages_test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *parts =
        pages_test_map(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const size_t page = pages_test_bytes();
    assert_true(read_only != MAP_FAILED && parts != MAP_FAILED);
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    const size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
    for (int way = 0; way < 6; way++) {
        unsigned char *host = pages;
        bool wraps = way < 2;
        pattern_fill(expected, SIZE, (unsigned)way);
        pattern_fill(pages, SIZE, (unsigned)way);
        switch (way) {
        case 0:
            fake_metal_set_modes(FAKE_METAL_NO_COPY_NIL);
            break;
        case 1: /* the wrap is empty; the staging memory comes after it */
            fake_metal_fail(no_copy, 1);
            break;
        case 2:
            pattern_fill(read_only, SIZE, (unsigned)way);
            assert_int_equal(mprotect(read_only, SIZE, PROT_READ), 0);
            host = read_only;
            break;
        case 3: /* the range ends in a mapping that may not be written */
            pattern_fill(parts, SIZE, (unsigned)way);
            assert_int_equal(mprotect(parts + SIZE - page, page, PROT_READ), 0);
            host = parts;
            break;
        case 4: /* or starts there: the mapping in front of the range's is another */
            assert_int_equal(mprotect(parts, SIZE, PROT_READ | PROT_WRITE), 0);
            pattern_fill(parts, SIZE, (unsigned)way);
            assert_int_equal(mprotect(parts, page, PROT_READ), 0);
            host = parts;
            break;
        default: /* or the mapping starts inside the first page, where that is longer than Linux's
                  */
            assert_int_equal(mprotect(parts, SIZE, PROT_READ | PROT_WRITE), 0);
            host = parts + system_page;
            pattern_fill(host, SIZE - page, (unsigned)way);
            assert_int_equal(munmap(parts, system_page), 0);
            wraps = page == system_page;
            break;
        }
        const size_t size_bytes = way == 5 ? SIZE - page : SIZE;
        fake_metal_mark();
        upload(state, &memory, 0, size_bytes, host);
        assert_int_equal(fake_metal_messages_of(no_copy), wraps);
        fake_metal_set_modes(0);
        memset(pages, 0, SIZE);
        download(state, &memory, 0, size_bytes, pages);
        assert_memory_equal(pages, expected, size_bytes);
    }
    driver->free(state, &memory);
    device_close(state);
    assert_int_equal(munmap(parts, SIZE), 0);
    assert_int_equal(munmap(read_only, SIZE), 0);
    umo_os_pages_free(expected, SIZE);
    umo_os_pages_free(pages, SIZE);
}

static void a_range_with_more_pages_than_a_buffer_is_staged(void **unused)
{
    (void)unused;
    unsigned char *pages = umo_os_pages_alloc(SIZE);
    unsigned char *back = umo_os_pages_alloc(SIZE);
    fake_metal_options options = machine();
    options.buffer_max = WRAP_MIN;
    fake_metal_reset(&options);
    void *state = device_open();
    umo_memory memory = memory_make(state, WRAP_MIN, UMO_PRIVATE);
    pattern_fill(pages, SIZE, 1);
    fake_metal_mark();
    upload(state, &memory, 0, WRAP_MIN, pages + 64);
    assert_int_equal(fake_metal_messages_of(no_copy), 0);
    download(state, &memory, 0, WRAP_MIN, back);
    assert_int_equal(fake_metal_messages_of(no_copy), 1);
    assert_memory_equal(back, pages + 64, WRAP_MIN);
    driver->free(state, &memory);
    device_close(state);
    umo_os_pages_free(back, SIZE);
    umo_os_pages_free(pages, SIZE);
}

/* The host's bytes are read when what is waited for has ended, not when the command is given. */
static void bytes_that_are_still_being_written_arrive(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {1, 4096, 4099, WRAP_MIN + 8};
    unsigned char *between = umo_os_pages_alloc(SIZE);
    unsigned char *back = umo_os_pages_alloc(SIZE);
    unsigned char *bytes = umo_os_pages_alloc(SIZE);
    void *state = device_open();
    umo_memory first = memory_make(state, SIZE, UMO_PRIVATE);
    umo_memory second = memory_make(state, SIZE, UMO_PRIVATE);
    pattern_fill(bytes, SIZE, 77);
    upload(state, &first, 0, SIZE, bytes);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memset(between, 0, SIZE);
        memset(back, 0, SIZE);
        fake_metal_pause();
        umo_fence down = download_give(state, 0, &first, 8, sizes[i], between + 64, NULL, 0);
        umo_fence up = upload_give(state, 1, &second, 4, sizes[i], between + 64, &down, 1);
        umo_fence last = download_give(state, 2, &second, 4, sizes[i], back, &up, 1);
        assert_int_equal(between[64], 0);
        fake_metal_resume();
        fence_pass(state, last);
        assert_memory_equal(back, bytes + 8, sizes[i]);
    }
    driver->free(state, &second);
    driver->free(state, &first);
    device_close(state);
    umo_os_pages_free(bytes, SIZE);
    umo_os_pages_free(back, SIZE);
    umo_os_pages_free(between, SIZE);
}

static void bytes_that_are_there_are_copied_by_one_command(void **unused)
{
    (void)unused;
    unsigned char bytes[64] = {1};
    void *state = device_open();
    umo_memory memory = memory_make(state, 64, UMO_PRIVATE);
    umo_fence passed = upload_give(state, 0, &memory, 0, 64, bytes, NULL, 0);
    fence_pass(state, passed);
    fake_metal_pause();
    umo_fence up = upload_give(state, 1, &memory, 0, 64, bytes, &passed, 1);
    assert_int_equal(up.value, 1);
    bytes[0] = 2; /* taken over already */
    fake_metal_resume();
    fence_pass(state, up);
    download(state, &memory, 0, 64, bytes);
    assert_int_equal(bytes[0], 1);
    driver->free(state, &memory);
    device_close(state);
}

/* The step and the copy behind it: either may fail to be given, and either may fail. */
static void a_failed_staged_upload_leaves_nothing_behind(void **unused)
{
    (void)unused;
    unsigned char bytes[4096] = {0};
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    for (uint32_t n = 1; n <= 2; n++) {
        umo_fence fence = {.value = 9};
        fake_metal_pause();
        umo_fence first = download_give(state, 0, &memory, 0, 4096, bytes, NULL, 0);
        /* A command buffer for each of the two; they wait for the first command. */
        fake_metal_fail("commandBufferWithUnretainedReferences", n);
        fake_metal_set_delay(1000000);
        fake_metal_resume();
        assert_int_equal(
            driver->transfer(state, 1, &memory, UMO_SIDE_DEVICE, 0, 4096, bytes, &first, 1, &fence),
            UMO_E_DEVICE);
        assert_int_equal(fence.value, 9);
        queues_drain(state);
        assert_true(fake_metal_idle());
        assert_int_equal(fake_metal_live("MTLBuffer"), 1);
        fake_metal_pause();
        first = download_give(state, 0, &memory, 0, 4096, bytes, NULL, 0);
        fake_metal_fail("commit", n);
        fence = upload_give(state, 1, &memory, 0, 4096, bytes, &first, 1);
        fake_metal_resume();
        assert_int_equal(driver->fence_wait(state, 1, fence.value, UINT64_MAX), UMO_E_DEVICE);
        assert_true(fake_metal_idle());
        assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    }
    driver->free(state, &memory);
    device_close(state);
}

static void without_staging_memory_a_transfer_says_so(void **unused)
{
    (void)unused;
    unsigned char bytes[64] = {0};
    void *state = device_open();
    umo_memory memory = memory_make(state, 1 << 20, UMO_PRIVATE);
    const umo_side sides[] = {UMO_SIDE_DEVICE, UMO_SIDE_HOST};
    for (int way = 0; way < 3; way++) {
        for (size_t s = 0; s < 2; s++) {
            umo_fence fence = {.value = 9};
            if (way == 0) {
                fake_metal_fail("newBufferWithLength:options:", 1);
            } else if (way == 1) {
                fake_metal_fail("contents", 1);
            } else {
                fake_metal_set_modes(FAKE_METAL_ZERO_LENGTH);
            }
            assert_int_equal(driver->transfer(state, 0, &memory, sides[s], 0, sizeof bytes, bytes,
                                              NULL, 0, &fence),
                             UMO_E_NOMEM);
            assert_int_equal(fence.value, 9);
            fake_metal_set_modes(0);
        }
    }
    /* An empty wrap is none either. */
    unsigned char *pages = umo_os_pages_alloc(SIZE);
    umo_fence fence = {.value = 9};
    fake_metal_set_modes(FAKE_METAL_ZERO_LENGTH);
    assert_int_equal(
        driver->transfer(state, 0, &memory, UMO_SIDE_DEVICE, 0, SIZE, pages, NULL, 0, &fence),
        UMO_E_NOMEM);
    fake_metal_set_modes(0);
    assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    umo_os_pages_free(pages, SIZE);
    driver->free(state, &memory);
    device_close(state);
}

static void what_is_no_transfer_is_refused(void **unused)
{
    (void)unused;
    unsigned char bytes[64];
    void *state = device_open();
    umo_memory unified = memory_make(state, 64, UMO_UNIFIED);
    umo_memory managed = memory_make(state, 64, UMO_MANAGED);
    umo_memory own = memory_make(state, 64, UMO_PRIVATE);
    umo_fence fence = {.value = 9};
    const struct {
        umo_memory *memory;
        size_t offset;
        size_t size;
        void *host;
    } wrong[] = {
        {&unified, 0, 64, unified.host}, /* nothing is to be moved */
        {&managed, 0, 64, managed.host},
        {&own, 0, 64, NULL},
        {&own, 0, 0, bytes},
        {&own, 0, 65, bytes},
        {&own, 64, 1, bytes},
        {&own, 65, 0, bytes},
        {&own, 1, SIZE_MAX, bytes},
        {&own, SIZE_MAX, 2, bytes},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        for (int side = UMO_SIDE_HOST; side <= UMO_SIDE_DEVICE; side++) {
            assert_int_equal(driver->transfer(state, 0, wrong[i].memory, (umo_side)side,
                                              wrong[i].offset, wrong[i].size, wrong[i].host, NULL,
                                              0, &fence),
                             UMO_E_INVAL);
        }
    }
    const struct {
        size_t from;
        size_t to;
        size_t size;
    } copies[] = {{0, 0, 0}, {0, 0, 65}, {64, 0, 1}, {0, 64, 1}, {0, SIZE_MAX, 2}};
    for (size_t i = 0; i < sizeof copies / sizeof copies[0]; i++) {
        assert_int_equal(driver->copy(state, 0, &unified, copies[i].from, &own, copies[i].to,
                                      copies[i].size, NULL, 0, &fence),
                         UMO_E_INVAL);
    }
    assert_int_equal(driver->poison(state, 0, &own, UMO_SIDE_DEVICE, 1, 64, NULL, NULL, 0, &fence),
                     UMO_E_INVAL);
    assert_int_equal(fence.value, 9);
    driver->free(state, &own);
    driver->free(state, &managed);
    driver->free(state, &unified);
    device_close(state);
}

/* ---- managed memory with two sides ---- */

static void managed_sides_are_apart_until_a_transfer(void **unused)
{
    (void)unused;
    machine_discrete();
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, SIZE, UMO_MANAGED);
    unsigned char *host = memory.host;
    assert_false(memory.one_memory);
    memset(host, 1, SIZE);
    upload(state, &memory, 0, SIZE, host);
    memset(host, 2, SIZE);
    fence_pass(state, add_give(state, 1, add, &memory, SIZE, 5, NULL, 0));
    assert_int_equal(host[0], 2);
    fake_metal_mark();
    download(state, &memory, 0, SIZE, host);
    assert_int_equal(fake_metal_messages_of("synchronizeResource:"), 1);
    assert_int_equal(host[0], add_value(1, 5));
    assert_memory_equal(host, host + 1, SIZE - 1);
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

/* Both sides write to their own parts; a transfer of one part loses neither side's other bytes. */
static void a_part_of_managed_memory_moves_alone(void **unused)
{
    (void)unused;
    machine_discrete();
    static const struct {
        size_t offset;
        size_t size;
    } parts[] = {{0, 100}, {1, 1}, {4, 4}, {3, 4097}, {SIZE - 5, 5}, {8, 300 * KIB}, {0, SIZE - 1}};
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory = memory_make(state, SIZE, UMO_MANAGED);
    umo_memory seen = memory_make(state, SIZE, UMO_UNIFIED);
    unsigned char *host = memory.host;
    const unsigned char *device = seen.host;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const size_t from = parts[i].offset;
        const size_t to = from + parts[i].size;
        umo_fence fence;
        memset(host, 1, SIZE);
        upload(state, &memory, 0, SIZE, host);
        fence_pass(state, add_give(state, 1, add, &memory, SIZE, 5, NULL, 0));
        memset(host, 2, SIZE);
        download(state, &memory, from, parts[i].size, host + from);
        for (size_t b = 0; b < SIZE; b++) {
            assert_int_equal(host[b], b >= from && b < to ? add_value(1, 5) : 2);
        }
        memset(host, 3, SIZE);
        upload(state, &memory, from, parts[i].size, host + from);
        assert_int_equal(driver->copy(state, 2, &memory, 0, &seen, 0, SIZE, NULL, 0, &fence),
                         UMO_OK);
        fence_pass(state, fence);
        for (size_t b = 0; b < SIZE; b++) {
            assert_int_equal(device[b], b >= from && b < to ? 3 : add_value(1, 5));
        }
    }
    driver->free(state, &seen);
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
}

static void managed_bytes_wait_for_what_writes_them(void **unused)
{
    (void)unused;
    machine_discrete();
    unsigned char bytes[4096];
    void *state = device_open();
    umo_memory source = memory_make(state, 4096, UMO_PRIVATE);
    umo_memory memory = memory_make(state, 4096, UMO_MANAGED);
    umo_memory seen = memory_make(state, 4096, UMO_UNIFIED);
    umo_fence fence;
    memset(bytes, 8, sizeof bytes);
    upload(state, &source, 0, 4096, bytes);
    memset(memory.host, 1, 4096);
    memset(seen.host, 0, 4096);
    fake_metal_set_delay(2000000);
    umo_fence down = download_give(state, 0, &source, 0, 4096, memory.host, NULL, 0);
    umo_fence up = upload_give(state, 1, &memory, 0, 4096, memory.host, &down, 1);
    assert_int_equal(driver->copy(state, 2, &memory, 0, &seen, 0, 4096, &up, 1, &fence), UMO_OK);
    fence_pass(state, fence);
    assert_memory_equal(seen.host, bytes, 4096);
    fake_metal_set_delay(0);
    /* A failure on the way is one. */
    fake_metal_fail("commit", 1);
    down = download_give(state, 0, &source, 0, 4096, memory.host, NULL, 0);
    fence = (umo_fence){.value = 9};
    assert_int_equal(driver->transfer(state, 1, &memory, UMO_SIDE_DEVICE, 0, 4096, memory.host,
                                      &down, 1, &fence),
                     UMO_E_DEVICE);
    assert_int_equal(
        driver->transfer(state, 1, &memory, UMO_SIDE_HOST, 0, 4096, memory.host, &down, 1, &fence),
        UMO_E_DEVICE);
    fake_metal_fail("blitCommandEncoder", 1);
    assert_int_equal(
        driver->transfer(state, 1, &memory, UMO_SIDE_HOST, 0, 4096, memory.host, NULL, 0, &fence),
        UMO_E_DEVICE);
    assert_int_equal(fence.value, 9);
    driver->free(state, &seen);
    driver->free(state, &memory);
    driver->free(state, &source);
    device_close(state);
}

/* ---- copies ---- */

static void copies_join_all_modes_at_any_offset(void **unused)
{
    (void)unused;
    static const struct {
        size_t from;
        size_t to;
        size_t size;
        bool words;
    } ranges[] = {{0, 0, 4096, true},  {8, 1000, 64, true}, {1, 0, 4, false},
                  {0, 3, 4, false},    {4, 4, 3, false},    {13, 700, 3001, false},
                  {4095, 0, 1, false}, {0, 0, 4095, false}};
    unsigned char source[4096];
    unsigned char expected[4096];
    unsigned char back[4096];
    for (int discrete = 0; discrete < 2; discrete++) {
        if (discrete != 0) {
            machine_discrete();
        }
        void *state = device_open();
        for (int pair = 0; pair < UMO_STORAGE_MODES * UMO_STORAGE_MODES; pair++) {
            umo_memory from = memory_make(state, 4096, (umo_storage_mode)(pair % 3));
            umo_memory to = memory_make(state, 4096, (umo_storage_mode)(pair / 3));
            umo_memory start = memory_make(state, 4096, UMO_PRIVATE);
            umo_memory end = memory_make(state, 4096, UMO_PRIVATE);
            for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
                umo_fence fence;
                umo_fence copied;
                pattern_fill(source, 4096, (unsigned)i);
                memset(expected, 0x11, 4096);
                upload(state, &start, 0, 4096, source);
                assert_int_equal(driver->copy(state, 0, &start, 0, &from, 0, 4096, NULL, 0, &fence),
                                 UMO_OK);
                upload(state, &start, 0, 4096, expected);
                assert_int_equal(driver->copy(state, 0, &start, 0, &to, 0, 4096, NULL, 0, &fence),
                                 UMO_OK);
                fake_metal_mark();
                assert_int_equal(driver->copy(state, 1, &from, ranges[i].from, &to, ranges[i].to,
                                              ranges[i].size, &fence, 1, &copied),
                                 UMO_OK);
                assert_int_equal(fake_metal_messages_of(blit), ranges[i].words);
                assert_int_equal(fake_metal_messages_of(byte_kernel), !ranges[i].words);
                assert_int_equal(driver->copy(state, 2, &to, 0, &end, 0, 4096, &copied, 1, &fence),
                                 UMO_OK);
                fence_pass(state, fence);
                memcpy(expected + ranges[i].to, source + ranges[i].from, ranges[i].size);
                download(state, &end, 0, 4096, back);
                assert_memory_equal(back, expected, 4096);
            }
            driver->free(state, &end);
            driver->free(state, &start);
            driver->free(state, &to);
            driver->free(state, &from);
        }
        device_close(state);
    }
}

static void the_kernel_that_copies_bytes_is_made_once(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, 4096, UMO_UNIFIED);
    umo_fence fence = {.value = 9};
    static const char *const calls[] = {
        "newLibraryWithSource:options:error:", "newFunctionWithName:", new_pipeline};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        fake_metal_fail(calls[i], 1);
        assert_int_equal(driver->copy(state, 0, &memory, 1, &memory, 100, 9, NULL, 0, &fence),
                         UMO_E_DEVICE);
        assert_string_equal(fake_metal_failed(), calls[i]);
        assert_int_equal(fence.value, 9);
    }
    pattern_fill(memory.host, 100, 4);
    fake_metal_mark();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(driver->copy(state, 0, &memory, 1, &memory, 100, 9, NULL, 0, &fence),
                         UMO_OK);
    }
    fence_pass(state, fence);
    assert_memory_equal((unsigned char *)memory.host + 100, (unsigned char *)memory.host + 1, 9);
    assert_int_equal(fake_metal_messages_of(calls[0]), 1);
    driver->free(state, &memory);
    device_close(state);
}

typedef struct copier {
    void *state;
    umo_memory *memory;
    size_t at;
    bool failed;
} copier;

static void *copier_run(void *opaque)
{
    copier *c = opaque;
    umo_fence fence;
    c->failed = driver->copy(c->state, 0, c->memory, c->at + 1, c->memory, c->at + 100, 9, NULL, 0,
                             &fence) != UMO_OK ||
                driver->fence_wait(c->state, 0, fence.value, UINT64_MAX) != UMO_OK;
    return NULL;
}

static void threads_that_need_the_kernel_first_share_one(void **unused)
{
    (void)unused;
    for (int round = 0; round < 5; round++) {
        copier copiers[4];
        pthread_t threads[4];
        void *state = device_open();
        umo_memory memory = memory_make(state, 4096, UMO_UNIFIED);
        const unsigned char *bytes = memory.host;
        pattern_fill(memory.host, 4096, 4);
        fake_metal_mark();
        for (size_t i = 0; i < 4; i++) {
            copiers[i] = (copier){.state = state, .memory = &memory, .at = i * 1024};
            assert_int_equal(pthread_create(&threads[i], NULL, copier_run, &copiers[i]), 0);
        }
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_false(copiers[i].failed);
            assert_memory_equal(bytes + i * 1024 + 100, bytes + i * 1024 + 1, 9);
        }
        assert_int_equal(fake_metal_messages_of("newLibraryWithSource:options:error:"), 1);
        driver->free(state, &memory);
        device_close(state);
    }
}

/* A thread's place in the grid has 32 bits. */
static struct {
    size_t count;
    size_t sizes[4];
    const unsigned char *to[4];
    const unsigned char *from[4];
} huge;

static void huge_run(void *const *args, const size_t global[3])
{
    huge.to[huge.count] = args[0];
    huge.from[huge.count] = args[1];
    huge.sizes[huge.count++] = global[0];
}

static void a_copy_of_more_bytes_than_a_grid_has_places_is_cut(void **unused)
{
    (void)unused;
    const size_t most = (size_t)1 << 31;
    const size_t size_bytes = most + 4;
    fake_metal_kernel_register(&(fake_metal_kernel){.name = "umo_copy_bytes", .run = huge_run});
    void *state = device_open();
    umo_memory from = memory_make(state, size_bytes, UMO_UNIFIED);
    umo_memory to = memory_make(state, size_bytes, UMO_UNIFIED);
    umo_fence fence;
    huge.count = 0;
    assert_int_equal(driver->copy(state, 0, &from, 1, &to, 0, size_bytes - 1, NULL, 0, &fence),
                     UMO_OK);
    fence_pass(state, fence);
    assert_int_equal(huge.count, 2);
    assert_int_equal(huge.sizes[0], most);
    assert_int_equal(huge.sizes[1], 3);
    for (size_t i = 0; i < 2; i++) {
        assert_ptr_equal(huge.to[i], (unsigned char *)to.host + i * most);
        assert_ptr_equal(huge.from[i], (unsigned char *)from.host + 1 + i * most);
    }
    driver->free(state, &to);
    driver->free(state, &from);
    device_close(state);
}

/* ---- poison ---- */

static void poison_covers_the_range_and_nothing_beside_it(void **unused)
{
    (void)unused;
    static const struct {
        size_t offset;
        size_t size;
    } ranges[] = {{0, 4096}, {0, 4}, {1, 1}, {1, 3}, {3, 2}, {5, 100}, {4, 97}, {4092, 4}, {9, 0}};
    for (int discrete = 0; discrete < 2; discrete++) {
        if (discrete != 0) {
            machine_discrete();
        }
        umo_device_info info;
        void *state = device_open_with(&test_mode, &info);
        for (int mode = UMO_MANAGED; mode < UMO_STORAGE_MODES; mode++) {
            umo_memory memory = memory_make(state, 4096, (umo_storage_mode)mode);
            umo_memory seen = memory_make(state, 4096, UMO_UNIFIED);
            unsigned char host[4096];
            for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
                const size_t from = ranges[i].offset;
                const size_t to = from + ranges[i].size;
                umo_fence fence;
                memset(seen.host, 1, 4096);
                assert_int_equal(
                    driver->copy(state, 0, &seen, 0, &memory, 0, 4096, NULL, 0, &fence), UMO_OK);
                assert_int_equal(driver->poison(state, 1, &memory, UMO_SIDE_DEVICE, from,
                                                ranges[i].size, NULL, &fence, 1, &fence),
                                 UMO_OK);
                assert_int_equal(
                    driver->copy(state, 2, &memory, 0, &seen, 0, 4096, &fence, 1, &fence), UMO_OK);
                fence_pass(state, fence);
                const unsigned char *bytes = seen.host;
                for (size_t b = 0; b < 4096; b++) {
                    /* Words that lie in the range wholly. */
                    bool word = b / 4 * 4 >= from && b / 4 * 4 + 4 <= to;
                    assert_int_equal(bytes[b], word ? 0xDB : 1);
                }
                memset(host, 1, 4096);
                assert_int_equal(driver->poison(state, 1, &memory, UMO_SIDE_HOST, from,
                                                ranges[i].size, host + from, NULL, 0, &fence),
                                 UMO_OK);
                fence_pass(state, fence);
                for (size_t b = 0; b < 4096; b++) {
                    assert_int_equal(host[b], b >= from && b < to ? 0xDB : 1);
                }
            }
            driver->free(state, &seen);
            driver->free(state, &memory);
        }
        device_close(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(private_memory_takes_any_range),
        TEST(long_host_memory_is_wrapped_and_short_is_staged),
        TEST(what_metal_does_not_wrap_is_staged),
        TEST(a_range_with_more_pages_than_a_buffer_is_staged),
        TEST(bytes_that_are_still_being_written_arrive),
        TEST(bytes_that_are_there_are_copied_by_one_command),
        TEST(a_failed_staged_upload_leaves_nothing_behind),
        TEST(without_staging_memory_a_transfer_says_so),
        TEST(what_is_no_transfer_is_refused),
        TEST(managed_sides_are_apart_until_a_transfer),
        TEST(a_part_of_managed_memory_moves_alone),
        TEST(managed_bytes_wait_for_what_writes_them),
        TEST(copies_join_all_modes_at_any_offset),
        TEST(the_kernel_that_copies_bytes_is_made_once),
        TEST(threads_that_need_the_kernel_first_share_one),
        TEST(a_copy_of_more_bytes_than_a_grid_has_places_is_cut),
        TEST(poison_covers_the_range_and_nothing_beside_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
