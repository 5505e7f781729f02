/*
 * A device that fails in the middle of a move: at every call of every move in turn, once and with
 * all that come after. The bytes are valid where they were, in the mode that the buffer had,
 * nothing is held that was not, and the move succeeds when the device works again. tests/fault has
 * the system's calls.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    PART = 500,
    PARTS = 4,
    SIZE = PART * PARTS
};

#define HOST UMO_SIDE_HOST
#define DEVICE UMO_SIDE_DEVICE

static _Atomic bool armed;
static _Atomic unsigned calls;
static unsigned fail_at;
static bool fail_after;
static _Atomic bool failed;

static bool fault(const char *entry)
{
    (void)entry;
    if (!armed) {
        return false;
    }
    unsigned call = ++calls;
    bool now = call == fail_at || (fail_after && call > fail_at);
    if (now) {
        failed = true;
    }
    return now;
}

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_buffer *buffer;
} rig;

static void bytes_use(const rig *r, size_t part, umo_side side, umo_use use)
{
    const umo_access access = {
        .offset_bytes = part * PART, .size_bytes = PART, .side = side, .use = use};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(r->buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    unsigned char *bytes = side == HOST ? umo_buffer_host(r->buffer)
                                        : (unsigned char *)umo_buffer_memory(r->buffer)->native;
    bytes += part * PART;
    if (use == UMO_WRITE) {
        memset(bytes, (int)part + 1, PART);
    }
    for (size_t i = 0; i < PART; i++) {
        assert_int_equal(bytes[i], part + 1);
    }
    assert_int_equal(umo_access_end(r->buffer, &access, (umo_fence){0}), UMO_OK);
}

/* Parts that the host has, that the device has, that both have, and that nobody wrote. */
static rig rig_open(umo_storage_mode mode, bool apart)
{
    rig r = {0};
    const wrapper_switches switches = {.apart = apart, .fails = fault};
    const umo_driver_options options = {.delay_ns = 2000, .test_mode = true};
    r.device = wrapper_device(&switches, &options);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "faults", 0, &r.scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, SIZE, mode, &r.buffer, NULL),
                     UMO_OK);
    bytes_use(&r, 0, HOST, UMO_WRITE);
    bytes_use(&r, 1, DEVICE, UMO_WRITE);
    bytes_use(&r, 2, DEVICE, UMO_WRITE);
    bytes_use(&r, 2, HOST, UMO_READ);
    return r;
}

static void rig_close(rig *r)
{
    umo_buffer_release(r->buffer);
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    assert_int_equal(wrapper_calls.live, 0);
    umo_device_release(r->device);
    umo_scope_destroy(r->scope);
}

static void all_parts_are_there(const rig *r)
{
    for (size_t part = 0; part < 3; part++) {
        assert_int_not_equal(umo_buffer_valid(r->buffer, part * PART, PART), 0);
        bytes_use(r, part, part == 1 ? HOST : DEVICE, UMO_READ);
        bytes_use(r, part, part == 1 ? DEVICE : HOST, UMO_READ);
    }
    assert_int_equal(umo_buffer_valid(r->buffer, (size_t)3 * PART, PART), 0);
}

/* One move whose call number `at` fails. False when it has fewer. */
static bool move_fails(umo_storage_mode from, umo_storage_mode to, bool apart, unsigned at)
{
    rig r = rig_open(from, apart);
    umo_counters before;
    umo_scope_read(r.scope, &before);
    int64_t live = wrapper_calls.live;
    calls = 0;
    failed = false;
    fail_at = at;
    armed = true;
    umo_error error = {0};
    umo_status status = umo_buffer_move(r.buffer, to, 0, &error);
    armed = false;
    umo_counters after;
    umo_scope_read(r.scope, &after);
    assert_int_equal(wrapper_calls.live, live);
    if (status != UMO_OK) {
        assert_true(failed);
        assert_int_equal(error.status, status);
        assert_int_not_equal(error.text[0], 0);
        assert_int_equal(umo_buffer_mode(r.buffer), from);
        assert_int_equal(after.live_bytes, before.live_bytes);
        assert_int_equal(after.moves.events, 0);
        all_parts_are_there(&r);
        assert_int_equal(umo_buffer_move(r.buffer, to, 0, NULL), UMO_OK);
    }
    assert_int_equal(umo_buffer_mode(r.buffer), to);
    all_parts_are_there(&r);
    rig_close(&r);
    return failed;
}

static void every_call_of_every_move_fails(bool apart, bool after)
{
    fail_after = after;
    unsigned total = 0;
    for (int pair = 0; pair < UMO_STORAGE_MODES * UMO_STORAGE_MODES; pair++) {
        for (unsigned at = 1; move_fails((umo_storage_mode)(pair / UMO_STORAGE_MODES),
                                         (umo_storage_mode)(pair % UMO_STORAGE_MODES), apart, at);
             at++) {
            total++;
        }
    }
    print_message("%u calls failed\n", total);
    /* An allocation or import, and one transfer and its wait for each part that moves. */
    assert_true(total >= 30);
}

static void a_device_that_fails_leaves_the_bytes(void **state)
{
    (void)state;
    every_call_of_every_move_fails(false, false);
    every_call_of_every_move_fails(false, true);
}

static void so_does_one_that_is_not_coherent(void **state)
{
    (void)state;
    every_call_of_every_move_fails(true, false);
    every_call_of_every_move_fails(true, true);
}

/* The command was taken, and failed. */
static void a_transfer_that_fails_late_leaves_the_bytes(void **state)
{
    (void)state;
    for (int to = 0; to < UMO_STORAGE_MODES; to++) {
        umo_storage_mode from = to == UMO_UNIFIED ? UMO_MANAGED : UMO_UNIFIED;
        if (to == UMO_MANAGED) {
            from = UMO_UNIFIED;
        }
        rig r = rig_open(from, false);
        wrapper.bad_queue = umo_device_info_get(r.device)->queues - 1;
        wrapper.bad_value = 1;
        assert_int_equal(umo_buffer_move(r.buffer, (umo_storage_mode)to, 0, NULL), UMO_E_DEVICE);
        assert_int_equal(umo_buffer_mode(r.buffer), from);
        wrapper.bad_value = 0;
        all_parts_are_there(&r);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_fails_leaves_the_bytes),
        cmocka_unit_test(so_does_one_that_is_not_coherent),
        cmocka_unit_test(a_transfer_that_fails_late_leaves_the_bytes),
    };
    return cmocka_run_group_tests_name("migrate_fault", tests, NULL, NULL);
}
