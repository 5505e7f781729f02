/*
 * Memory of a GPU that shares it but not its caches: the strict OpenCL's GPU keeps a copy of what
 * it wraps, so a range that is not handed over shows as wrong bytes, and one that both sides use at
 * once as a violation.
 */
#include "driver/opencl/fake_device.h"

#include "os/os.h"

/*
 * Random uses of one buffer on a GPU that keeps copies, against a plain array: what the host wrote
 * is what the device adds to, and what the device wrote is what the host reads, for ranges that
 * cross each other in every way.
 */
static void publishing_keeps_both_sides_in_step(void **unused)
{
    (void)unused;
    enum {
        PLACE = 4096, /* sub-buffers start at multiples */
        PLACES = 8
    };
    fake_reset_gpu();
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    void *state = device_open(&info);
    adder add = adder_create(state);
    unsigned char *model = calloc(PLACES, PLACE);
    assert_non_null(model);
    assert_int_equal(driver->alloc(state, (size_t)PLACES * PLACE, UMO_UNIFIED, &memory, NULL),
                     UMO_OK);
    unsigned char *host = memory.host;
    uint64_t random = 88172645463325252u;
    for (int round = 0; round < 3000; round++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        size_t from = (random >> 8) % PLACES;
        size_t places = 1 + (random >> 16) % (PLACES - from);
        /* The host's ranges end anywhere; the first round writes all. */
        size_t offset = round == 0 ? 0 : from * PLACE + (random >> 24) % 100;
        size_t size =
            round == 0 ? (size_t)PLACES * PLACE : places * PLACE - 100 - (random >> 32) % 100;
        uint32_t queue = (uint32_t)(random >> 40) % UMO_OPENCL_QUEUES;
        if (round == 0 || random % 2 == 0) {
            const bool writes = round == 0 || (random >> 50) % 2 == 0;
            assert_int_equal(driver->publish(state, queue, &memory, UMO_SIDE_HOST, writes, offset,
                                             size, NULL, 0, &fence),
                             UMO_OK);
            assert_int_equal(driver->fence_wait(state, queue, fence.value, UINT64_MAX), UMO_OK);
            if (round > 0) {
                assert_memory_equal(host + offset, model + offset, size);
            }
            if (writes) {
                memset(host + offset, round, size);
                memset(model + offset, round, size);
            }
        } else {
            offset = from * PLACE;
            assert_int_equal(driver->publish(state, queue, &memory, UMO_SIDE_DEVICE, true, offset,
                                             size, NULL, 0, &fence),
                             UMO_OK);
            assert_int_equal(add_launch(state, queue, add.kernel, &memory, offset, size, 3, &fence,
                                        1, &fence, NULL),
                             UMO_OK);
            assert_int_equal(driver->fence_wait(state, queue, fence.value, UINT64_MAX), UMO_OK);
            for (size_t i = 0; i < size; i++) {
                model[offset + i] = (unsigned char)(model[offset + i] + 3);
            }
        }
        assert_int_equal(fake.violations, 0);
    }
    driver->free(state, &memory);
    free(model);
    adder_destroy(state, add);
    driver->close(state);
    assert_nothing_left();
}

/* One buffer of three places on the GPU, written by the host to 1 and still with it. */
static unsigned char *three_places(void *state, umo_memory *memory)
{
    umo_fence fence = {0};
    assert_int_equal(driver->alloc(state, 12288, UMO_UNIFIED, memory, NULL), UMO_OK);
    assert_int_equal(
        driver->publish(state, 0, memory, UMO_SIDE_HOST, true, 0, 12288, NULL, 0, &fence), UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    memset(memory->host, 1, 12288);
    return memory->host;
}

static void a_range_for_the_device_leaves_the_rest_with_the_host(void **unused)
{
    (void)unused;
    fake_reset_gpu();
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    void *state = device_open(&info);
    adder add = adder_create(state);
    unsigned char *host = three_places(state, &memory);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, true, 4096, 4096, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(
        add_launch(state, 0, add.kernel, &memory, 4096, 4096, 1, &fence, 1, &fence, NULL), UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    /* Brackets of the host beside it are still open, and write. */
    memset(host, 5, 4096);
    memset(host + 8192, 6, 4096);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, true, 0, 12288, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(
        add_launch(state, 0, add.kernel, &memory, 0, 12288, 1, &fence, 1, &fence, NULL), UMO_OK);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_HOST, false, 0, 12288, &fence, 1, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    assert_int_equal(host[0], 6);
    assert_int_equal(host[4096], 3);
    assert_int_equal(host[8192], 7);
    assert_int_equal(host[12287], 7);
    driver->free(state, &memory);
    adder_destroy(state, add);
    driver->close(state);
    assert_nothing_left();
}

static void the_device_may_read_what_the_host_only_reads(void **unused)
{
    (void)unused;
    fake_reset_gpu();
    umo_device_info info;
    umo_memory memory;
    umo_memory mirror;
    umo_fence fence = {0};
    unsigned char back[4096];
    void *state = device_open(&info);
    unsigned char *host = three_places(state, &memory);
    assert_int_equal(driver->alloc(state, 4096, UMO_PRIVATE, &mirror, NULL), UMO_OK);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, false, 0, 12288, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_HOST, false, 0, 12288, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->copy(state, 0, &memory, 4096, &mirror, 0, 4096, &fence, 1, &fence),
                     UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    assert_int_equal(fake.violations, 0);
    /* Now the host writes, to a part. */
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_HOST, true, 5000, 100, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    memset(host + 5000, 9, 100);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, false, 4096, 4096, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->copy(state, 0, &memory, 4096, &mirror, 0, 4096, &fence, 1, &fence),
                     UMO_OK);
    assert_int_equal(
        driver->transfer(state, 0, &mirror, UMO_SIDE_HOST, 0, 4096, back, &fence, 1, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    assert_int_equal(back[903], 1);
    assert_int_equal(back[904], 9);
    assert_int_equal(back[1003], 9);
    assert_int_equal(back[1004], 1);
    driver->free(state, &memory);
    driver->free(state, &mirror);
    driver->close(state);
    assert_nothing_left();
}

static void imported_bytes_are_with_the_host_from_the_start(void **unused)
{
    (void)unused;
    fake_reset_gpu();
    umo_device_info info;
    umo_memory memory;
    umo_memory mirror;
    umo_fence fence = {0};
    unsigned char back[4096];
    void *state = device_open(&info);
    unsigned char *pages = umo_os_pages_alloc(4096);
    memset(pages, 1, 4096);
    assert_int_equal(driver->alloc(state, 4096, UMO_PRIVATE, &mirror, NULL), UMO_OK);
    assert_int_equal(driver->import(state, pages, 4096, UMO_IMPORT_READ, &memory, NULL, NULL),
                     UMO_OK);
    memset(pages, 2, 4096);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, false, 0, 4096, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(driver->copy(state, 0, &memory, 0, &mirror, 0, 4096, &fence, 1, &fence),
                     UMO_OK);
    assert_int_equal(
        driver->transfer(state, 0, &mirror, UMO_SIDE_HOST, 0, 4096, back, &fence, 1, &fence),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 0, fence.value, UINT64_MAX), UMO_OK);
    assert_int_equal(back[0], 2);
    assert_int_equal(back[4095], 2);
    driver->free(state, &memory);
    driver->free(state, &mirror);
    driver->close(state);
    umo_os_pages_free(pages, 4096);
    assert_nothing_left();
}

static void a_second_reader_waits_for_the_mapping_of_the_first(void **unused)
{
    (void)unused;
    fake_reset_gpu();
    umo_device_info info;
    umo_memory memory;
    umo_fence fence = {0};
    umo_fence first = {0};
    umo_fence second = {0};
    void *state = device_open(&info);
    adder add = adder_create(state);
    unsigned char *host = three_places(state, &memory);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_DEVICE, true, 0, 12288, NULL, 0, &fence),
        UMO_OK);
    assert_int_equal(
        add_launch(state, 0, add.kernel, &memory, 0, 12288, 1, &fence, 1, &fence, NULL), UMO_OK);
    assert_int_equal(
        driver->publish(state, 0, &memory, UMO_SIDE_HOST, false, 0, 12288, &fence, 1, &first),
        UMO_OK);
    assert_int_equal(
        driver->publish(state, 1, &memory, UMO_SIDE_HOST, false, 100, 100, NULL, 0, &second),
        UMO_OK);
    assert_int_equal(driver->fence_wait(state, 1, second.value, UINT64_MAX), UMO_OK);
    assert_int_equal(host[100], 2);
    driver->free(state, &memory);
    adder_destroy(state, add);
    driver->close(state);
    assert_nothing_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(publishing_keeps_both_sides_in_step),
        TEST(a_range_for_the_device_leaves_the_rest_with_the_host),
        TEST(the_device_may_read_what_the_host_only_reads),
        TEST(imported_bytes_are_with_the_host_from_the_start),
        TEST(a_second_reader_waits_for_the_mapping_of_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
