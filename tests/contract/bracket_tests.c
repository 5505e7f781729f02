/*
 * The contract of brackets: which uses exclude each other, and what a wrong one is answered.
 */
#include "contract.h"

#include <pthread.h>

static umo_status begin(umo_buffer *buffer, const umo_access *access)
{
    umo_fence_set waits;
    umo_status status = umo_access_begin(buffer, access, &waits);
    if (status == UMO_OK) {
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    } else {
        assert_int_equal(waits.count, 0);
    }
    return status;
}

static void end(umo_buffer *buffer, const umo_access *access)
{
    assert_int_equal(umo_access_end(buffer, access, (umo_fence){0}), UMO_OK);
}

static void a_write_excludes_every_other_use_of_its_bytes(void **state)
{
    contract *c = *state;
    static const umo_use uses[] = {UMO_READ, UMO_WRITE, UMO_READ_WRITE};
    static const umo_side sides[] = {UMO_SIDE_HOST, UMO_SIDE_DEVICE};
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, 100);
        contract_host_pattern(buffer, 0, 100, 1);
        for (int pair = 0; pair < 36; pair++) {
            const umo_access open = contract_use(10, 20, sides[pair % 2], uses[pair / 4 % 3], 0);
            const umo_access over = contract_use(29, 20, sides[pair / 2 % 2], uses[pair / 12], 0);
            const umo_access after = contract_use(30, 20, over.side, over.use, 0);
            const umo_access before = contract_use(0, 10, over.side, over.use, 0);
            const bool readers = open.use == UMO_READ && over.use == UMO_READ;
            assert_int_equal(begin(buffer, &open), UMO_OK);
            assert_int_equal(begin(buffer, &over), readers ? UMO_OK : UMO_E_BUSY);
            if (readers) {
                end(buffer, &over);
            }
            assert_int_equal(begin(buffer, &after), UMO_OK);
            assert_int_equal(begin(buffer, &before), UMO_OK);
            end(buffer, &before);
            end(buffer, &open);
            end(buffer, &after);
            /* What was busy is free now. */
            assert_int_equal(begin(buffer, &over), UMO_OK);
            end(buffer, &over);
        }
        umo_buffer_release(buffer);
    }
}

static void equal_readers_end_one_by_one(void **state)
{
    contract *c = *state;
    int m = 0;
    assert_true(contract_mode(c, &m));
    umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, 100);
    const umo_access read = contract_use(0, 100, UMO_SIDE_HOST, UMO_READ, 0);
    const umo_access write = contract_use(50, 1, UMO_SIDE_HOST, UMO_WRITE, 0);
    contract_host_pattern(buffer, 0, 100, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(begin(buffer, &read), UMO_OK);
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(begin(buffer, &write), UMO_E_BUSY);
        end(buffer, &read);
    }
    assert_int_equal(umo_access_end(buffer, &read, (umo_fence){0}), UMO_E_INVAL);
    assert_int_equal(begin(buffer, &write), UMO_OK);
    end(buffer, &write);
    umo_buffer_release(buffer);
}

static void wrong_brackets_are_invalid(void **state)
{
    contract *c = *state;
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, 100);
        contract_host_pattern(buffer, 0, 100, 1);
        const umo_access wrong[] = {
            contract_use(0, 101, UMO_SIDE_HOST, UMO_READ, 0),
            contract_use(100, 1, UMO_SIDE_HOST, UMO_READ, 0),
            contract_use(101, 0, UMO_SIDE_HOST, UMO_READ, 0),
            contract_use(SIZE_MAX, 2, UMO_SIDE_HOST, UMO_READ, 0),
            contract_use(2, SIZE_MAX, UMO_SIDE_HOST, UMO_READ, 0),
            contract_use(0, 10, (umo_side)0, UMO_READ, 0),
            contract_use(0, 10, (umo_side)3, UMO_READ, 0),
            contract_use(0, 10, UMO_SIDE_HOST, (umo_use)0, 0),
            contract_use(0, 10, UMO_SIDE_HOST, (umo_use)4, 0),
            contract_use(0, 10, UMO_SIDE_DEVICE, UMO_READ, c->info->queues),
        };
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            assert_int_equal(begin(buffer, &wrong[i]), UMO_E_INVAL);
        }
        const umo_access never = contract_use(0, 10, UMO_SIDE_HOST, UMO_READ, 0);
        const umo_access other = contract_use(0, 11, UMO_SIDE_HOST, UMO_READ, 0);
        assert_int_equal(umo_access_end(buffer, &never, (umo_fence){0}), UMO_E_INVAL);
        assert_int_equal(umo_access_abort(buffer, &never, (umo_fence){0}), UMO_E_INVAL);
        assert_int_equal(begin(buffer, &other), UMO_OK);
        assert_int_equal(umo_access_end(buffer, &never, (umo_fence){0}), UMO_E_INVAL);
        end(buffer, &other);
        /* Nothing above left a mark. */
        const umo_access all = contract_use(0, 100, UMO_SIDE_HOST, UMO_READ_WRITE, 0);
        assert_int_equal(begin(buffer, &all), UMO_OK);
        end(buffer, &all);
        contract_host_expect(buffer, 0, 100, 1);
        umo_buffer_release(buffer);
    }
}

static void no_bytes_are_no_use(void **state)
{
    contract *c = *state;
    int m = 0;
    assert_true(contract_mode(c, &m));
    umo_buffer *buffer = contract_alloc(c, (umo_storage_mode)m, 100);
    const umo_access all = contract_use(0, 100, UMO_SIDE_HOST, UMO_WRITE, 0);
    const umo_access none = contract_use(50, 0, UMO_SIDE_DEVICE, UMO_WRITE, 0);
    const umo_access at_end = contract_use(100, 0, UMO_SIDE_DEVICE, UMO_READ, 0);
    assert_int_equal(begin(buffer, &all), UMO_OK);
    assert_int_equal(begin(buffer, &none), UMO_OK);
    assert_int_equal(begin(buffer, &at_end), UMO_OK);
    end(buffer, &none);
    end(buffer, &at_end);
    end(buffer, &all);
    umo_buffer_release(buffer);
}

typedef struct handed {
    umo_buffer *buffer;
    umo_access access;
    umo_status status;
} handed;

static void *end_elsewhere(void *argument)
{
    handed *h = argument;
    h->status = umo_access_end(h->buffer, &h->access, (umo_fence){0});
    return NULL;
}

static void a_bracket_may_end_on_another_thread(void **state)
{
    contract *c = *state;
    int m = 0;
    assert_true(contract_mode(c, &m));
    handed h = {.buffer = contract_alloc(c, (umo_storage_mode)m, 100),
                .access = contract_use(0, 100, UMO_SIDE_HOST, UMO_WRITE, 0)};
    pthread_t thread;
    assert_int_equal(begin(h.buffer, &h.access), UMO_OK);
    assert_int_equal(pthread_create(&thread, NULL, end_elsewhere, &h), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(h.status, UMO_OK);
    assert_int_equal(umo_buffer_valid(h.buffer, 0, 100), UMO_SIDE_HOST);
    umo_buffer_release(h.buffer);
}

static void fence_sets_keep_the_newest_of_a_queue_and_tell_when_full(void **state)
{
    contract *c = *state;
    umo_fence_set set = {0};
    assert_true(umo_fence_set_add(&set, (umo_fence){0}));
    assert_int_equal(set.count, 0);
    /* Only added, never waited for: these values were not given by any device. */
    for (uint64_t v = 1; v <= 3; v++) {
        assert_true(umo_fence_set_add(&set, (umo_fence){c->device, 1, v}));
    }
    assert_true(umo_fence_set_add(&set, (umo_fence){c->device, 1, 2}));
    assert_int_equal(set.count, 1);
    assert_int_equal(set.fences[0].value, 3);
    for (uint32_t q = 2; q <= UMO_WAITS_MAX; q++) {
        assert_true(umo_fence_set_add(&set, (umo_fence){c->device, q, 1}));
    }
    assert_int_equal(set.count, UMO_WAITS_MAX);
    assert_false(umo_fence_set_add(&set, (umo_fence){c->device, UMO_WAITS_MAX + 1, 1}));
    assert_true(umo_fence_set_add(&set, (umo_fence){c->device, 1, 9}));
    assert_int_equal(set.count, UMO_WAITS_MAX);
}

const struct CMUnitTest contract_bracket_tests[] = {
    CONTRACT_TEST(a_write_excludes_every_other_use_of_its_bytes),
    CONTRACT_TEST(equal_readers_end_one_by_one),
    CONTRACT_TEST(wrong_brackets_are_invalid),
    CONTRACT_TEST(no_bytes_are_no_use),
    CONTRACT_TEST(a_bracket_may_end_on_another_thread),
    CONTRACT_TEST(fence_sets_keep_the_newest_of_a_queue_and_tell_when_full),
};
const size_t contract_bracket_test_count =
    sizeof contract_bracket_tests / sizeof contract_bracket_tests[0];
