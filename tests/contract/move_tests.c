/*
 * The contract of movable memory: bytes of the host and of the device survive every move, a kernel
 * works on the memory in each mode, and the address never changes.
 */
#include "contract.h"

#include <stdio.h>

static umo_buffer *movable(contract *c, size_t size_bytes, umo_storage_mode mode)
{
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    umo_status status =
        umo_buffer_alloc_movable(c->device, c->scope, size_bytes, mode, &buffer, &error);
    if (status != UMO_OK) {
        print_error("mode %d: %s\n", (int)mode, error.text);
    }
    assert_int_equal(status, UMO_OK);
    return buffer;
}

static uint32_t modes_of(contract *c)
{
    for (int m = 0; m < UMO_STORAGE_MODES; m++) {
        umo_buffer *buffer = NULL;
        if (umo_buffer_alloc_movable(c->device, c->scope, 1, (umo_storage_mode)m, &buffer, NULL) ==
            UMO_OK) {
            uint32_t modes = umo_buffer_modes(buffer);
            umo_buffer_release(buffer);
            return modes;
        }
    }
    return 0;
}

static void modes_that_are_named_can_be_had(void **state)
{
    contract *c = *state;
    uint32_t modes = modes_of(c);
    assert_int_not_equal(modes, 0);
    for (int m = 0; m < UMO_STORAGE_MODES; m++) {
        umo_buffer *buffer = NULL;
        umo_error error = {0};
        umo_status status = umo_buffer_alloc_movable(c->device, c->scope, 3 * c->page + 5,
                                                     (umo_storage_mode)m, &buffer, &error);
        if ((modes & 1u << m) == 0) {
            assert_int_equal(status, UMO_E_UNSUPPORTED);
            assert_int_not_equal(error.text[0], '\0');
            continue;
        }
        assert_int_equal(status, UMO_OK);
        assert_int_equal(umo_buffer_mode(buffer), m);
        assert_int_equal(umo_buffer_size(buffer), 3 * c->page + 5);
        assert_int_equal((uintptr_t)umo_buffer_host(buffer) % c->page, 0);
        umo_buffer_release(buffer);
    }
}

/* A first part that the host wrote, a second one that the device did, with the command pending. */
static void bytes_survive_every_move(void **state)
{
    contract *c = *state;
    const uint32_t modes = modes_of(c);
    const size_t part = 4096; /* kernels start at multiples on every device */
    const size_t sizes[] = {2 * part, 2 * part + 1, (size_t)256 << 10, ((size_t)1 << 20) + 3};
    umo_buffer *source = contract_alloc(c, UMO_PRIVATE, (size_t)2 << 20);
    contract_host_pattern(source, 0, (size_t)2 << 20, 8);
    for (int pair = 0; pair < UMO_STORAGE_MODES * UMO_STORAGE_MODES; pair++) {
        const int from = pair / UMO_STORAGE_MODES;
        const int to = pair % UMO_STORAGE_MODES;
        const size_t size = sizes[pair % 4];
        if ((modes & 1u << from) == 0 || (modes & 1u << to) == 0) {
            continue;
        }
        umo_buffer *buffer = movable(c, size, (umo_storage_mode)from);
        void *host = umo_buffer_host(buffer);
        contract_host_pattern(buffer, 0, part, 7);
        (void)contract_device_copy(c, 0, source, 0, buffer, part, size - part);
        umo_error error = {0};
        umo_status status = umo_buffer_move(buffer, (umo_storage_mode)to, 0, &error);
        if (status != UMO_OK) {
            print_error("%d to %d: %s\n", from, to, error.text);
        }
        assert_int_equal(status, UMO_OK);
        assert_int_equal(umo_buffer_mode(buffer), to);
        assert_ptr_equal(umo_buffer_host(buffer), host);
        /* The device sees the host's bytes and the host the device's. */
        umo_buffer *out = contract_alloc(c, UMO_PRIVATE, part);
        (void)contract_device_copy(c, 0, buffer, 0, out, 0, part);
        contract_host_expect(out, 0, part, 7);
        contract_host_expect(buffer, 0, part, 7);
        contract_host_expect(buffer, part, size - part, 8);
        umo_buffer_release(out);
        umo_buffer_release(buffer);
    }
    umo_buffer_release(source);
}

/* One buffer on a tour, worked on by kernels and the host in turns. */
static void work_goes_on_in_each_mode(void **state)
{
    contract *c = *state;
    const uint32_t modes = modes_of(c);
    enum {
        COUNT = 5000,
        ROUNDS = 12
    };
    float values[COUNT];
    umo_storage_mode start = (modes & 1u << UMO_PRIVATE) != 0 ? UMO_PRIVATE : UMO_UNIFIED;
    umo_buffer *y = movable(c, sizeof values, start);
    umo_buffer *x = contract_alloc(c, start, sizeof values);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)i;
    }
    contract_host_write(x, 0, values, sizeof values);
    memset(values, 0, sizeof values);
    contract_host_write(y, 0, values, sizeof values);
    uint64_t moved = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const contract_operand operands[] = {{x, 0, sizeof values, UMO_READ},
                                             {y, 0, sizeof values, UMO_READ_WRITE}};
        const float a = 1.0f;
        (void)contract_launch(c, c->scale_add, (uint32_t)round % c->info->queues, operands, 2, &a,
                              sizeof a, COUNT);
        const umo_storage_mode next = (umo_storage_mode)((round * 2 + round / 3) % 3);
        if ((modes & 1u << next) != 0) {
            moved += umo_buffer_mode(y) != next ? 1 : 0;
            assert_int_equal(umo_buffer_move(y, next, 0, NULL), UMO_OK);
        }
        if (round % 4 == 3) {
            contract_host_read(y, 0, values, sizeof values);
            for (int i = 0; i < COUNT; i++) {
                assert_true(values[i] == (float)i * (float)(round + 1));
            }
            contract_host_write(y, 0, values, sizeof values);
        }
    }
    const umo_counters counters = contract_counters(c);
    assert_int_equal(counters.moves.events, moved);
    assert_int_equal(counters.moves.bytes, moved * sizeof values);
    umo_buffer_release(x);
    umo_buffer_release(y);
}

static void a_prefetch_is_found_by_the_next_use(void **state)
{
    contract *c = *state;
    const size_t size = 8192;
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, size);
        umo_buffer *out = contract_alloc(c, (umo_storage_mode)m, size);
        contract_host_pattern(buffer, 0, size, 3);
        assert_int_equal(umo_buffer_prefetch(buffer, 0, size, UMO_SIDE_DEVICE, NULL), UMO_OK);
        assert_int_equal(umo_buffer_valid(buffer, 0, size), UMO_SIDE_HOST | UMO_SIDE_DEVICE);
        const umo_counters before = contract_counters(c);
        (void)contract_device_copy(c, 0, buffer, 0, out, 0, size);
        const umo_counters after = contract_counters(c);
        assert_memory_equal(&before.transfer_performed, &after.transfer_performed,
                            sizeof before.transfer_performed);
        assert_memory_equal(&before.transfer_eliminated, &after.transfer_eliminated,
                            sizeof before.transfer_eliminated);
        assert_int_equal(umo_buffer_prefetch(out, 0, size, UMO_SIDE_HOST, NULL), UMO_OK);
        assert_int_equal(umo_buffer_valid(out, 0, size), UMO_SIDE_HOST | UMO_SIDE_DEVICE);
        contract_host_expect(out, 0, size, 3);
        umo_buffer_release(buffer);
        umo_buffer_release(out);
    }
}

const struct CMUnitTest contract_move_tests[] = {
    CONTRACT_TEST(modes_that_are_named_can_be_had),
    CONTRACT_TEST(bytes_survive_every_move),
    CONTRACT_TEST(work_goes_on_in_each_mode),
    CONTRACT_TEST(a_prefetch_is_found_by_the_next_use),
};
const size_t contract_move_test_count = sizeof contract_move_tests / sizeof contract_move_tests[0];
