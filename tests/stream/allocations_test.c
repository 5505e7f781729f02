/*
 * What streams, DLPack and the recorder allocate: nothing per message and nothing per event; and
 * that each allocation which they do make may fail.
 */
#include "../kit/allocations.h"

#include <umo/dlpack.h>
#include <umo/stream.h>
#include <umo/umo.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
} rig;

static rig rig_open(void)
{
    rig r;
    assert_int_equal(umo_device_open("host", 0, NULL, &r.device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "rig", 0, &r.scope, NULL), UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
}

/* One message: the host writes, the device's side reads. */
static umo_status message(umo_stream *stream, size_t size_bytes)
{
    umo_stream_slot slot;
    umo_status status = umo_stream_produce_begin(stream, size_bytes, 0, &slot);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&slot.waits, UINT64_MAX);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_stream_produce_end(stream, &slot, size_bytes, (umo_fence){0});
    if (status != UMO_OK) {
        return status;
    }
    status = umo_stream_consume_begin(stream, 0, &slot);
    return status == UMO_OK ? umo_stream_consume_end(stream, &slot, (umo_fence){0}) : status;
}

static void a_message_allocates_nothing_and_copies_nothing(void **state)
{
    (void)state;
    enum {
        SLOTS = 5,
        MESSAGES = 1000
    };
    for (int own = 0; own < 2; own++) {
        rig r = rig_open();
        umo_buffer *buffer = NULL;
        if (own == 1) {
            assert_int_equal(umo_buffer_alloc(r.device, r.scope, (size_t)SLOTS << 16, UMO_UNIFIED,
                                              &buffer, NULL),
                             UMO_OK);
        }
        const umo_stream_options options = {.device = r.device,
                                            .scope = r.scope,
                                            .slots = SLOTS,
                                            .slot_bytes = (size_t)1 << 16,
                                            .consumer = UMO_SIDE_DEVICE,
                                            .buffer = buffer};
        umo_stream *stream = NULL;
        assert_int_equal(umo_stream_create(&options, &stream, NULL), UMO_OK);
        umo_buffer_release(buffer);
        for (int i = 0; i < SLOTS; i++) {
            assert_int_equal(message(stream, (size_t)1 << 15), UMO_OK);
        }
        umo_counters before;
        umo_scope_read(r.scope, &before);
        allocations_start(0);
        for (size_t i = 0; i < MESSAGES; i++) {
            umo_status status = message(stream, 1 + i * 65 % ((size_t)1 << 16));
            if (status != UMO_OK) {
                (void)allocations_stop();
                assert_true(false);
            }
        }
        assert_int_equal(allocations_stop(), 0);
        umo_counters after;
        umo_scope_read(r.scope, &after);
        assert_int_equal(after.allocated.events, before.allocated.events);
        assert_int_equal(after.transfer_performed[UMO_DIRECTION_IN].events, 0);
        assert_int_equal(after.transfer_eliminated[UMO_DIRECTION_IN].events -
                             before.transfer_eliminated[UMO_DIRECTION_IN].events,
                         MESSAGES);
        assert_memory_equal(after.copy_performed, before.copy_performed,
                            sizeof before.copy_performed);
        assert_int_equal(umo_stream_destroy(stream), UMO_OK);
        rig_close(&r);
    }
}

static void a_recording_allocates_nothing_after_its_start(void **state)
{
    (void)state;
    char path[] = "/tmp/umo-stream-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    (void)close(file);
    rig r = rig_open();
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 100, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    const umo_access access = {.size_bytes = 100, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
    allocations_start(0);
    umo_status started = umo_profile_start(NULL, NULL);
    umo_status first = UMO_OK;
    for (int i = 0; i < 5000 && first == UMO_OK; i++) {
        first = umo_access_begin(buffer, &access, &waits);
        umo_status ended = umo_access_end(buffer, &access, (umo_fence){0});
        first = first == UMO_OK ? ended : first;
    }
    umo_profile_stats stats = {0};
    umo_status dumped = umo_profile_dump(path, NULL);
    umo_status read = umo_profile_read(NULL, NULL, &stats);
    umo_status ended = umo_profile_enable(false);
    assert_int_equal(allocations_stop(), 0);
    assert_int_equal(started | first | dumped | read | ended, UMO_OK);
    assert_int_equal(stats.recorded, 10000);
    umo_buffer_release(buffer);
    rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

/* ---- each allocation fails once ---- */

typedef umo_status (*scene)(const rig *r);

static umo_status stream_scene(const rig *r)
{
    const umo_stream_options options = {.device = r->device,
                                        .scope = r->scope,
                                        .mode = UMO_PRIVATE,
                                        .slots = 3,
                                        .slot_bytes = 100,
                                        .consumer = UMO_SIDE_DEVICE};
    umo_stream *stream = NULL;
    umo_status status = umo_stream_create(&options, &stream, NULL);
    for (int i = 0; i < 4 && status == UMO_OK; i++) {
        status = message(stream, 50);
        if (status == UMO_E_NOMEM) {
            /* The message that was not brought is still there, or was never sent. */
            umo_stream_stats stats;
            umo_stream_read(stream, &stats);
            umo_stream_slot slot;
            if (stats.produced == stats.consumed + 1 &&
                (umo_stream_consume_begin(stream, 0, &slot) != UMO_OK ||
                 umo_stream_consume_end(stream, &slot, (umo_fence){0}) != UMO_OK)) {
                status = UMO_E_INVAL;
            }
            if (stats.lost != 0 || message(stream, 50) != UMO_OK) {
                status = UMO_E_INVAL;
            }
        }
    }
    umo_status destroyed = umo_stream_destroy(stream);
    return destroyed != UMO_OK ? destroyed : status;
}

static int deleted;

static void count_deleted(umo_dl_managed_versioned *self)
{
    (void)self;
    deleted++;
}

static umo_status dlpack_scene(const rig *r)
{
    static float data[8];
    static int64_t shape[1] = {8};
    umo_dl_managed_versioned given = {
        .version = {1, 0},
        .deleter = count_deleted,
        .tensor = {.data = data,
                   .device = {.type = UMO_DL_CPU},
                   .ndim = 1,
                   .dtype = {UMO_DL_FLOAT, 32, 1},
                   .shape = shape},
    };
    const umo_dl_import options = {.device = r->device, .scope = r->scope, .writable = true};
    umo_tensor tensor;
    deleted = 0;
    umo_status status = umo_tensor_from_dlpack(&given, &options, &tensor, NULL, NULL, NULL);
    if (status != UMO_OK) {
        return deleted == 0 ? status : UMO_E_INVAL;
    }
    umo_dl_managed_versioned *out = NULL;
    status = umo_tensor_to_dlpack(&tensor, NULL, &out, NULL);
    umo_buffer_release(tensor.buffer);
    if (status == UMO_OK) {
        status = deleted == 0 ? UMO_OK : UMO_E_INVAL;
        out->deleter(out);
    }
    return deleted == 1 ? status : UMO_E_INVAL;
}

static void sweep(scene run)
{
    for (uint64_t number = 1;; number++) {
        rig r = rig_open();
        allocations_start(number);
        umo_status status = run(&r);
        bool none_left = allocations_stop() < number;
        assert_int_equal(status, none_left ? UMO_OK : UMO_E_NOMEM);
        rig_close(&r);
        if (none_left) {
            assert_true(number > 1);
            return;
        }
    }
}

static void memory_may_run_out_anywhere_in_a_stream(void **state)
{
    (void)state;
    sweep(stream_scene);
}

static void memory_may_run_out_anywhere_in_dlpack(void **state)
{
    (void)state;
    sweep(dlpack_scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_allocates_nothing_and_copies_nothing),
        cmocka_unit_test(a_recording_allocates_nothing_after_its_start),
        cmocka_unit_test(memory_may_run_out_anywhere_in_a_stream),
        cmocka_unit_test(memory_may_run_out_anywhere_in_dlpack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
