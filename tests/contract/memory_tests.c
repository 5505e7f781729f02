/*
 * The contract of devices and their memory: opening, allocation in every mode and size, bytes that
 * go to the device and come back, and what of it was counted.
 */
#include "contract.h"

#include <umo/pool.h>

#include <stdlib.h>

static void a_device_describes_itself(void **state)
{
    const contract *c = *state;
    const umo_device_info *info = c->info;
    assert_string_equal(info->driver, contract_the_run.driver);
    assert_int_not_equal(info->name[0], '\0');
    assert_in_range(info->queues, 1, UMO_QUEUES_MAX);
    assert_true(info->buffer_max_bytes > 0);
    assert_int_equal(info->alloc_align_bytes & (info->alloc_align_bytes - 1), 0);
    assert_int_equal(info->import_align_bytes & (info->import_align_bytes - 1), 0);
    assert_int_not_equal(info->import_align_bytes, 0);
    assert_int_not_equal(info->import_size_align_bytes, 0);
    if ((info->caps & UMO_CAP_IMPORT_WRITE) != 0) {
        assert_int_not_equal(info->caps & UMO_CAP_IMPORT_READ, 0);
    }
    assert_int_not_equal(info->caps & (UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE), 0);
}

static void an_unknown_driver_or_ordinal_is_not_found_and_named(void **state)
{
    (void)state;
    umo_device *device = NULL;
    umo_error error = {0};
    uint32_t count = 0;
    assert_int_equal(umo_device_open("absent", 0, NULL, &device, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "absent"));
    assert_int_equal(umo_driver_count("absent", &count, &error), UMO_E_NOT_FOUND);
    assert_int_equal(umo_driver_count(contract_the_run.driver, &count, &error), UMO_OK);
    assert_true(count > 0);
    assert_int_equal(umo_device_open(contract_the_run.driver, count, NULL, &device, &error),
                     UMO_E_NOT_FOUND);
    assert_int_equal(umo_device_open(contract_the_run.driver, UINT32_MAX, NULL, &device, NULL),
                     UMO_E_NOT_FOUND);
    assert_null(device);
}

static void a_device_opened_twice_is_two_devices(void **state)
{
    contract *c = *state;
    umo_device *second = NULL;
    umo_buffer *buffer = NULL;
    assert_int_equal(
        umo_device_open(contract_the_run.driver, 0, &contract_the_run.options, &second, NULL),
        UMO_OK);
    assert_ptr_not_equal(second, c->device);
    int mode = 0;
    assert_true(contract_mode(c, &mode));
    assert_int_equal(umo_buffer_alloc(second, c->scope, 100, (umo_storage_mode)mode, &buffer, NULL),
                     UMO_OK);
    assert_ptr_equal(umo_buffer_device(buffer), second);
    /* The buffer holds the device. */
    umo_device_release(second);
    contract_host_pattern(buffer, 0, 100, 1);
    contract_host_expect(buffer, 0, 100, 1);
    umo_buffer_release(buffer);
}

static void buffers_of_every_mode_and_size_come_and_go(void **state)
{
    contract *c = *state;
    const size_t sizes[] = {1, 3, c->page - 1, c->page, c->page + 1, (size_t)16 << 20};
    for (int m = 0; contract_mode(c, &m); m++) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            const umo_counters before = contract_counters(c);
            umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, sizes[s]);
            assert_int_equal(umo_buffer_size(buffer), sizes[s]);
            assert_int_equal(umo_buffer_mode(buffer), m);
            assert_int_equal(umo_buffer_valid(buffer, 0, sizes[s]), 0);
            umo_counters now = contract_counters(c);
            assert_int_equal(now.live_buffers, 1);
            assert_int_equal(now.live_bytes, sizes[s]);
            assert_int_equal(now.allocated.bytes - before.allocated.bytes, sizes[s]);
            contract_host_pattern(buffer, 0, sizes[s], (unsigned)s);
            contract_host_expect(buffer, 0, sizes[s], (unsigned)s);
            if (m != UMO_PRIVATE) {
                assert_int_equal((uintptr_t)umo_buffer_host(buffer) % c->info->alloc_align_bytes,
                                 0);
            }
            umo_buffer_acquire(buffer);
            umo_buffer_release(buffer);
            umo_buffer_release(buffer);
            now = contract_counters(c);
            assert_int_equal(now.live_buffers, 0);
            assert_int_equal(now.live_bytes, 0);
            assert_true(now.peak_bytes >= sizes[s]);
        }
    }
    umo_buffer_release(NULL);
}

static void impossible_sizes_and_modes_are_refused(void **state)
{
    contract *c = *state;
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    const uint64_t most = c->info->buffer_max_bytes;
    for (int m = 0; contract_mode(c, &m); m++) {
        const umo_storage_mode mode = (umo_storage_mode)m;
        assert_int_equal(umo_buffer_alloc(c->device, c->scope, 0, mode, &buffer, &error),
                         UMO_E_INVAL);
        assert_int_equal(umo_buffer_alloc(c->device, c->scope, SIZE_MAX, mode, &buffer, &error),
                         UMO_E_INVAL);
        if (most < SIZE_MAX) {
            assert_int_equal(
                umo_buffer_alloc(c->device, c->scope, (size_t)most + 1, mode, &buffer, &error),
                UMO_E_INVAL);
        }
        assert_int_not_equal(error.text[0], '\0');
    }
    assert_int_not_equal(umo_buffer_alloc(c->device, c->scope, 64,
                                          (umo_storage_mode)UMO_STORAGE_MODES, &buffer, &error),
                         UMO_OK);
    assert_null(buffer);
}

static void the_limit_of_a_scope_and_of_its_parent_is_honoured(void **state)
{
    contract *c = *state;
    umo_scope *parent = NULL;
    umo_scope *child = NULL;
    umo_buffer *first = NULL;
    umo_buffer *second = NULL;
    umo_error error = {0};
    int m = 0;
    assert_true(contract_mode(c, &m));
    const umo_storage_mode mode = (umo_storage_mode)m;
    assert_int_equal(umo_scope_create(NULL, "parent", 3 * c->page, &parent, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(parent, "child", 2 * c->page, &child, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(c->device, child, 3 * c->page, mode, &first, &error),
                     UMO_E_LIMIT);
    assert_int_equal(umo_buffer_alloc(c->device, child, 2 * c->page, mode, &first, &error), UMO_OK);
    assert_int_equal(umo_buffer_alloc(c->device, child, 1, mode, &second, &error), UMO_E_LIMIT);
    assert_non_null(strstr(error.text, "child"));
    assert_int_equal(umo_buffer_alloc(c->device, parent, 2 * c->page, mode, &second, &error),
                     UMO_E_LIMIT);
    assert_int_equal(umo_buffer_alloc(c->device, parent, c->page, mode, &second, &error), UMO_OK);
    umo_buffer_release(first);
    /* What was refused has left nothing behind: the room is there. */
    assert_int_equal(umo_buffer_alloc(c->device, child, 2 * c->page, mode, &first, &error), UMO_OK);
    umo_buffer_release(first);
    umo_buffer_release(second);
    umo_scope_destroy(child);
    umo_scope_destroy(parent);
}

static void bytes_go_to_the_device_and_back_in_every_mode(void **state)
{
    contract *c = *state;
    const size_t sizes[] = {1, 3, c->page - 1, c->page, c->page + 1, (size_t)1 << 20};
    unsigned seed = 0;
    for (int from = 0; contract_mode(c, &from); from++) {
        for (int to = 0; contract_mode(c, &to); to++) {
            for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++, seed++) {
                const uint32_t queue = seed % c->info->queues;
                umo_buffer *a = contract_alloc(c, (umo_storage_mode)from, sizes[s]);
                umo_buffer *b = contract_alloc(c, (umo_storage_mode)to, sizes[s]);
                contract_host_pattern(a, 0, sizes[s], seed);
                contract_host_pattern(b, 0, sizes[s], seed + 1000);
                (void)contract_device_copy(c, queue, a, 0, b, 0, sizes[s]);
                contract_host_expect(b, 0, sizes[s], seed);
                contract_host_expect(a, 0, sizes[s], seed);
                umo_buffer_release(a);
                umo_buffer_release(b);
            }
        }
    }
}

static void a_kernel_reads_and_writes_floats_in_every_mode(void **state)
{
    contract *c = *state;
    enum {
        COUNT = 10000
    };
    float *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *x = contract_alloc(c, (umo_storage_mode)m, COUNT * sizeof *values);
        umo_buffer *y = contract_alloc(c, (umo_storage_mode)m, COUNT * sizeof *values);
        for (int i = 0; i < COUNT; i++) {
            values[i] = (float)i;
        }
        contract_host_write(x, 0, values, COUNT * sizeof *values);
        for (int i = 0; i < COUNT; i++) {
            values[i] = 1.0f;
        }
        contract_host_write(y, 0, values, COUNT * sizeof *values);
        const contract_operand operands[] = {
            {x, 0, COUNT * sizeof *values, UMO_READ},
            {y, 0, COUNT * sizeof *values, UMO_READ_WRITE},
        };
        /* Twice, and the value goes away at once: a launch has read it when it returns. */
        for (int round = 0; round < 2; round++) {
            float a = 0.5f;
            (void)contract_launch(c, c->scale_add, 0, operands, 2, &a, sizeof a, COUNT);
            a = -1e9f;
            (void)a;
        }
        contract_host_read(y, 0, values, COUNT * sizeof *values);
        for (int i = 0; i < COUNT; i++) {
            assert_true(values[i] == (float)i + 1.0f);
        }
        umo_buffer_release(x);
        umo_buffer_release(y);
    }
    free(values);
}

static void validity_follows_every_step(void **state)
{
    contract *c = *state;
    const size_t size = 1000;
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *a = contract_alloc(c, (umo_storage_mode)m, size);
        umo_buffer *b = contract_alloc(c, (umo_storage_mode)m, size);
        assert_int_equal(umo_buffer_valid(a, 0, size), 0);
        contract_host_pattern(a, 0, size, 1);
        assert_int_equal(umo_buffer_valid(a, 0, size), UMO_SIDE_HOST);
        (void)contract_device_copy(c, 0, a, 0, b, 0, size);
        assert_int_equal(umo_buffer_valid(a, 0, size), UMO_SIDE_HOST | UMO_SIDE_DEVICE);
        assert_int_equal(umo_buffer_valid(b, 0, size), UMO_SIDE_DEVICE);
        contract_host_expect(b, 0, size, 1);
        assert_int_equal(umo_buffer_valid(b, 0, size), UMO_SIDE_HOST | UMO_SIDE_DEVICE);
        contract_host_pattern(b, 0, 100, 2);
        assert_int_equal(umo_buffer_valid(b, 0, 100), UMO_SIDE_HOST);
        assert_int_equal(umo_buffer_valid(b, 100, size - 100), UMO_SIDE_HOST | UMO_SIDE_DEVICE);
        assert_int_equal(umo_buffer_valid(b, 99, 2), UMO_SIDE_HOST);
        /* A write that failed leaves nothing valid in its range, and the rest alone. */
        const umo_access failed = contract_use(50, 100, UMO_SIDE_DEVICE, UMO_WRITE, 0);
        umo_fence_set waits;
        assert_int_equal(umo_access_begin(b, &failed, &waits), UMO_OK);
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        assert_int_equal(umo_access_abort(b, &failed, (umo_fence){0}), UMO_OK);
        assert_int_equal(umo_buffer_valid(b, 50, 100), 0);
        assert_int_equal(umo_buffer_valid(b, 0, 50), UMO_SIDE_HOST);
        umo_buffer_release(a);
        umo_buffer_release(b);
    }
}

/* What a number of bytes that went one way counts as: performed where there are two memories. */
static void expect_moved(const umo_counters *before, const umo_counters *after, bool two_sided,
                         umo_direction direction, uint64_t bytes)
{
    const umo_tally *performed[] = {&before->transfer_performed[direction],
                                    &after->transfer_performed[direction]};
    const umo_tally *eliminated[] = {&before->transfer_eliminated[direction],
                                     &after->transfer_eliminated[direction]};
    assert_int_equal(performed[1]->bytes - performed[0]->bytes, two_sided ? bytes : 0);
    assert_int_equal(eliminated[1]->bytes - eliminated[0]->bytes, two_sided ? 0 : bytes);
    uint64_t events =
        performed[1]->events - performed[0]->events + eliminated[1]->events - eliminated[0]->events;
    assert_int_equal(events == 0, bytes == 0);
}

static void a_transfer_is_counted_once_as_performed_or_eliminated(void **state)
{
    contract *c = *state;
    const size_t page = 4096; /* kernels start at multiples on every device */
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *a = contract_alloc(c, (umo_storage_mode)m, 4 * page);
        umo_buffer *b = contract_alloc(c, (umo_storage_mode)m, 4 * page);
        const umo_memory *memory = umo_buffer_memory(a);
        const bool two_sided = memory->mode != UMO_UNIFIED && !memory->one_memory;
        umo_counters steps[6];
        steps[0] = contract_counters(c);
        contract_host_pattern(a, 0, 4 * page, 1);
        steps[1] = contract_counters(c);
        expect_moved(&steps[0], &steps[1], two_sided, UMO_DIRECTION_IN, 0);
        expect_moved(&steps[0], &steps[1], two_sided, UMO_DIRECTION_OUT, 0);
        /* One page in; b is written whole where the kernel writes, so nothing of it moves. */
        (void)contract_device_copy(c, 0, a, page, b, page, page);
        steps[2] = contract_counters(c);
        expect_moved(&steps[1], &steps[2], two_sided, UMO_DIRECTION_IN, page);
        expect_moved(&steps[1], &steps[2], two_sided, UMO_DIRECTION_OUT, 0);
        /* Two more: one of the three is there. */
        (void)contract_device_copy(c, 0, a, 0, b, 0, 3 * page);
        steps[3] = contract_counters(c);
        expect_moved(&steps[2], &steps[3], two_sided, UMO_DIRECTION_IN, 2 * page);
        /* Out, once; the second look is free. */
        contract_host_expect(b, 0, 3 * page, 1);
        steps[4] = contract_counters(c);
        expect_moved(&steps[3], &steps[4], two_sided, UMO_DIRECTION_OUT, 3 * page);
        contract_host_expect(b, 0, 3 * page, 1);
        steps[5] = contract_counters(c);
        expect_moved(&steps[4], &steps[5], two_sided, UMO_DIRECTION_OUT, 0);
        expect_moved(&steps[3], &steps[5], two_sided, UMO_DIRECTION_IN, 0);
        umo_buffer_release(a);
        umo_buffer_release(b);
    }
}

static void partial_ranges_keep_what_is_beside_them(void **state)
{
    contract *c = *state;
    const size_t page = 4096;
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *a = contract_alloc(c, (umo_storage_mode)m, 4 * page);
        umo_buffer *b = contract_alloc(c, (umo_storage_mode)m, 4 * page);
        unsigned char expected[16384];
        unsigned char got[16384];
        contract_host_pattern(a, 0, 4 * page, 1);
        contract_pattern(expected, 4 * page, 2);
        contract_host_write(b, 0, expected, 4 * page);
        (void)contract_device_copy(c, 0, a, page, b, 2 * page, 100);
        contract_pattern(got, 4 * page, 1);
        memcpy(expected + 2 * page, got + page, 100);
        /* The host writes into the middle of what the device wrote, at odd places. */
        memset(expected + 2 * page + 33, 0x77, 21);
        contract_host_write(b, 2 * page + 33, expected + 2 * page + 33, 21);
        (void)contract_device_copy(c, 0, b, 0, a, 0, 4 * page);
        contract_host_read(b, 0, got, 4 * page);
        assert_memory_equal(got, expected, 4 * page);
        contract_host_read(a, 0, got, 4 * page);
        assert_memory_equal(got, expected, 4 * page);
        umo_buffer_release(a);
        umo_buffer_release(b);
    }
}

/* Random uses of two buffers against two arrays. */
static void random_uses_agree_with_a_plain_model(void **state)
{
    contract *c = *state;
    enum {
        PLACE = 4096, /* where kernels may start on every device */
        PLACES = 6,
        BYTES = PLACE * PLACES,
        ROUNDS = 300
    };
    static unsigned char model[2][BYTES];
    static unsigned char got[BYTES];
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *buffers[2];
        uint64_t random = 88172645463325252u + (uint64_t)m;
        for (int i = 0; i < 2; i++) {
            buffers[i] = contract_alloc(c, (umo_storage_mode)m, BYTES);
            contract_pattern(model[i], BYTES, (unsigned)i);
            contract_host_write(buffers[i], 0, model[i], BYTES);
        }
        for (unsigned round = 0; round < ROUNDS; round++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            const int which = (int)(random & 1);
            const uint32_t queue = (uint32_t)(random >> 4) % c->info->queues;
            const size_t offset = (size_t)(random >> 8) % BYTES;
            const size_t size = 1 + (size_t)(random >> 24) % (BYTES - offset);
            switch ((random >> 1) & 3) {
            case 0:
                contract_pattern(model[which] + offset, size, round);
                contract_host_write(buffers[which], offset, model[which] + offset, size);
                break;
            case 1:
                contract_host_read(buffers[which], offset, got, size);
                assert_memory_equal(got, model[which] + offset, size);
                break;
            default: {
                const size_t from = (size_t)(random >> 40) % PLACES;
                const size_t to = (size_t)(random >> 44) % PLACES;
                const size_t places = PLACES - (from > to ? from : to);
                const size_t bytes = 1 + (size_t)(random >> 12) % (places * PLACE);
                (void)contract_device_copy(c, queue, buffers[which], from * PLACE,
                                           buffers[1 - which], to * PLACE, bytes);
                memcpy(model[1 - which] + to * PLACE, model[which] + from * PLACE, bytes);
                break;
            }
            }
        }
        for (int i = 0; i < 2; i++) {
            contract_host_read(buffers[i], 0, got, BYTES);
            assert_memory_equal(got, model[i], BYTES);
            umo_buffer_release(buffers[i]);
        }
    }
}

/* Whole and in part, with the caller's bytes, which are nobody's host side. */
static void bytes_are_handed_in_and_out(void **state)
{
    contract *c = *state;
    enum {
        BYTES = 70001, /* more than small memory, and no multiple of anything */
        AT = 1003,
        PART = 5001
    };
    unsigned char *given = malloc(BYTES);
    unsigned char *got = malloc(BYTES);
    assert_non_null(given);
    assert_non_null(got);
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, BYTES);
        umo_fence fence;
        contract_host_pattern(buffer, 0, BYTES, 1);
        contract_pattern(given, BYTES, 2);
        assert_int_equal(umo_buffer_upload(buffer, 0, given, BYTES, 0, &fence), UMO_OK);
        assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
        memset(got, 0, BYTES);
        assert_int_equal(umo_buffer_download(buffer, 0, got, BYTES, 1, &fence), UMO_OK);
        assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
        assert_memory_equal(got, given, BYTES);
        contract_host_expect(buffer, 0, BYTES, 2);

        contract_pattern(given + AT, PART, 3);
        assert_int_equal(umo_buffer_upload(buffer, AT, given + AT, PART, 2, &fence), UMO_OK);
        assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
        memset(got, 0, BYTES);
        assert_int_equal(umo_buffer_download(buffer, 1, got + 1, BYTES - 1, 0, &fence), UMO_OK);
        assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
        assert_memory_equal(got + 1, given + 1, BYTES - 1);
        umo_buffer_release(buffer);
    }
    free(given);
    free(got);
}

/* A block of a pool that held somebody else's bytes holds none of them, on either side. */
static void a_pools_block_shows_nothing_of_its_last_owner(void **state)
{
    contract *c = *state;
    enum {
        BYTES = 20000
    };
    static const unsigned char zeros[BYTES];
    for (int m = 0; contract_mode(c, &m); m++) {
        const umo_pool_options options = {
            .device = c->device, .scope = c->scope, .mode = (umo_storage_mode)m};
        umo_pool *pool = NULL;
        umo_buffer *block = NULL;
        assert_int_equal(umo_pool_create(&options, &pool, NULL), UMO_OK);
        assert_int_equal(umo_pool_alloc(pool, BYTES, 1, &block, NULL), UMO_OK);
        umo_buffer *from = contract_alloc(c, (umo_storage_mode)m, BYTES);
        contract_host_pattern(from, 0, BYTES, 4);
        (void)contract_device_copy(c, 0, from, 0, block, 0, BYTES);
        assert_int_equal(umo_pool_free(pool, block), UMO_OK);
        assert_int_equal(umo_pool_alloc(pool, BYTES, 2, &block, NULL), UMO_OK);
        (void)contract_device_copy(c, 0, block, 0, from, 0, BYTES);
        unsigned char *got = malloc(BYTES);
        assert_non_null(got);
        contract_host_read(from, 0, got, BYTES);
        assert_memory_equal(got, zeros, BYTES);
        contract_host_read(block, 0, got, BYTES);
        assert_memory_equal(got, zeros, BYTES);
        free(got);
        assert_int_equal(umo_pool_free(pool, block), UMO_OK);
        umo_buffer_release(from);
        umo_pool_destroy(pool);
    }
}

const struct CMUnitTest contract_memory_tests[] = {
    CONTRACT_TEST(a_device_describes_itself),
    CONTRACT_TEST(an_unknown_driver_or_ordinal_is_not_found_and_named),
    CONTRACT_TEST(a_device_opened_twice_is_two_devices),
    CONTRACT_TEST(buffers_of_every_mode_and_size_come_and_go),
    CONTRACT_TEST(impossible_sizes_and_modes_are_refused),
    CONTRACT_TEST(the_limit_of_a_scope_and_of_its_parent_is_honoured),
    CONTRACT_TEST(bytes_go_to_the_device_and_back_in_every_mode),
    CONTRACT_TEST(a_kernel_reads_and_writes_floats_in_every_mode),
    CONTRACT_TEST(validity_follows_every_step),
    CONTRACT_TEST(a_transfer_is_counted_once_as_performed_or_eliminated),
    CONTRACT_TEST(partial_ranges_keep_what_is_beside_them),
    CONTRACT_TEST(bytes_are_handed_in_and_out),
    CONTRACT_TEST(a_pools_block_shows_nothing_of_its_last_owner),
    CONTRACT_TEST(random_uses_agree_with_a_plain_model),
};
const size_t contract_memory_test_count =
    sizeof contract_memory_tests / sizeof contract_memory_tests[0];
