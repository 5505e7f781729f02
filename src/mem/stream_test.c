/*
 * Streams: messages arrive whole, in order and once, on one memory without moving and on two with
 * one transfer each; and whatever a party does wrong is an error that leaves the ring as it was.
 */
#include "mem/stream_scene_test.h"

/* ---- bytes, sides and fences ---- */

static uint64_t transfers(const umo_counters *c, bool performed)
{
    uint64_t events = 0;
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        events += (performed ? c->transfer_performed[d] : c->transfer_eliminated[d]).events;
    }
    return events;
}

/* Every pair of sides on every kind of memory, with commands that run late and stale bytes that are
 * poisoned: a fence or a transfer that is missing shows as wrong bytes. */
static void sides_run(umo_storage_mode mode, umo_side producer, umo_side consumer, bool apart)
{
    enum {
        MESSAGES = 40
    };
    const umo_stream_options wanted = {.mode = mode,
                                       .slots = 4,
                                       .slot_bytes = 300,
                                       .producer = producer,
                                       .consumer = consumer,
                                       .producer_queue = producer == UMO_SIDE_DEVICE ? 1 : 0,
                                       .consumer_queue = consumer == UMO_SIDE_DEVICE ? 2 : 0};
    const umo_driver_options late = {.delay_ns = 200000, .test_mode = true};
    const wrapper_switches switches = {.apart = apart};
    rig r = rig_open(&wanted, &switches, &late);
    kernels k = kernels_open(r.device);
    uint64_t bytes = 0;
    uint64_t sent = 0;
    for (uint64_t got = 0; got < MESSAGES;) {
        for (; sent < MESSAGES && sent < got + 4; sent++) {
            produce(&r, &k, 1 + sent * 7 % 300);
        }
        bytes += 1 + got * 7 % 300;
        assert_int_equal(consume(&r, &k, 1 + got * 7 % 300), got);
        got++;
    }
    const bool crosses = producer != consumer;
    const bool two = mode != UMO_UNIFIED;
    const umo_counters c = counters(&r);
    assert_int_equal(transfers(&c, true), crosses && two ? MESSAGES : 0);
    assert_int_equal(transfers(&c, false), crosses && !two ? MESSAGES : 0);
    if (crosses) {
        const int way = consumer == UMO_SIDE_DEVICE ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT;
        assert_int_equal((two ? c.transfer_performed : c.transfer_eliminated)[way].bytes, bytes);
    }
    for (int reason = 0; reason < UMO_REASON_COUNT; reason++) {
        assert_int_equal(c.copy_performed[0][reason].events + c.copy_performed[1][reason].events,
                         0);
    }
    assert_int_equal(stats(&r).produced, MESSAGES);
    assert_int_equal(stats(&r).consumed, MESSAGES);
    assert_int_equal(stats(&r).bytes, bytes);
    rig_close(&r);
    assert_int_equal(kernel_wrong, 0);
    /* Kernels outlive the stream, not the device: they hold it. */
    kernels_close(&k);
}

static void a_message_moves_once_on_two_memories_and_never_on_one(void **state)
{
    (void)state;
    static const umo_side sides[] = {UMO_SIDE_HOST, UMO_SIDE_DEVICE};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (size_t p = 0; p < 2; p++) {
            for (size_t c = 0; c < 2; c++) {
                sides_run((umo_storage_mode)mode, sides[p], sides[c], false);
            }
        }
    }
    sides_run(UMO_UNIFIED, UMO_SIDE_HOST, UMO_SIDE_DEVICE, true);
    sides_run(UMO_UNIFIED, UMO_SIDE_DEVICE, UMO_SIDE_HOST, true);
}

static void fences_pass_through_both_ways(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 2,
                                       .slot_bytes = 64,
                                       .producer = UMO_SIDE_DEVICE,
                                       .consumer = UMO_SIDE_DEVICE,
                                       .producer_queue = 1,
                                       .consumer_queue = 2};
    const umo_driver_options late = {.delay_ns = 50000000};
    rig r = rig_open(&wanted, NULL, &late);
    kernels k = kernels_open(r.device);
    umo_stream_slot slot;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(umo_stream_produce_begin(r.stream, 64, 0, &slot), UMO_OK);
        assert_int_equal(slot.waits.count, 0);
        umo_fence written = launch(k.fill, 1, &slot, 64);
        assert_int_equal(umo_stream_produce_end(r.stream, &slot, 64, written), UMO_OK);
        assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slot), UMO_OK);
        assert_int_equal(slot.waits.count, 1);
        assert_int_equal(slot.waits.fences[0].queue, 1);
        assert_int_equal(slot.waits.fences[0].value, written.value);
        umo_fence read = launch(k.check, 2, &slot, 64);
        assert_int_equal(umo_stream_consume_end(r.stream, &slot, read), UMO_OK);
    }
    /* Nothing was waited for so far; the slot comes back with its reader's fence. */
    assert_int_equal(umo_stream_produce_begin(r.stream, 64, 0, &slot), UMO_OK);
    bool of_reader = false;
    for (size_t i = 0; i < slot.waits.count; i++) {
        of_reader = of_reader || slot.waits.fences[i].queue == 2;
    }
    assert_true(of_reader);
    assert_int_equal(umo_stream_produce_abort(r.stream, &slot, (umo_fence){0}), UMO_OK);
    rig_close(&r);
    kernels_close(&k);
    assert_int_equal(kernel_wrong, 0);
}

static void a_buffer_of_ones_own_is_cut_into_slots(void **state)
{
    (void)state;
    const umo_stream_options plain = {.slots = 2, .slot_bytes = 8};
    rig r = rig_open(&plain, NULL, NULL);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 1000, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    umo_stream_options cut = r.options;
    cut.buffer = buffer;
    cut.slots = 9;
    cut.slot_bytes = 99;
    cut.offset_bytes = 1;
    cut.stride_bytes = 100;
    umo_stream *own = NULL;
    assert_int_equal(umo_stream_create(&cut, &own, NULL), UMO_OK);
    umo_buffer_release(buffer);
    rig over = {.stream = own, .options = cut};
    for (uint64_t i = 0; i < 30; i++) {
        produce(&over, NULL, 99);
        umo_stream_slot slot;
        assert_int_equal(umo_stream_consume_begin(own, 0, &slot), UMO_OK);
        assert_int_equal(slot.offset_bytes, 1 + i % 9 * 100);
        assert_true(bytes_match(host_bytes(&slot), 99, i));
        assert_int_equal(umo_stream_consume_end(own, &slot, (umo_fence){0}), UMO_OK);
    }
    assert_int_equal(umo_stream_destroy(own), UMO_OK);
    rig_close(&r);
}

/* ---- the ring ---- */

static void a_shorter_message_is_what_its_producer_says(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 2, .slot_bytes = 64};
    rig r = rig_open(&wanted, NULL, NULL);
    umo_stream_slot slot;
    assert_int_equal(umo_stream_produce_begin(r.stream, 50, 0, &slot), UMO_OK);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 51, (umo_fence){0}), UMO_E_INVAL);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 0, (umo_fence){0}), UMO_E_INVAL);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 7, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slot), UMO_OK);
    assert_int_equal(slot.size_bytes, 7);
    assert_int_equal(umo_stream_consume_end(r.stream, &slot, (umo_fence){0}), UMO_OK);
    rig_close(&r);
}

static void full_and_empty_rings_time_out(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 3, .slot_bytes = 8};
    rig r = rig_open(&wanted, NULL, NULL);
    umo_stream_slot slot;
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slot), UMO_E_TIMEOUT);
    for (int i = 0; i < 3; i++) {
        produce(&r, NULL, 8);
    }
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &slot), UMO_E_TIMEOUT);
    const uint64_t before = umo_os_now_ns();
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 3000000, &slot), UMO_E_TIMEOUT);
    assert_true(umo_os_now_ns() - before >= 3000000);
    assert_int_equal(stats(&r).producer_waits, 2);
    assert_int_equal(stats(&r).consumer_waits, 1);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(consume(&r, NULL, 8), i);
    }
    assert_int_equal(umo_stream_consume_begin(r.stream, 1, &slot), UMO_E_TIMEOUT);
    rig_close(&r);
}

static void numbers_wrap_around(void **state)
{
    (void)state;
    const uint64_t firsts[] = {UINT32_MAX - 4, UINT64_MAX - 4};
    for (size_t i = 0; i < 2; i++) {
        const umo_stream_options wanted = {.slots = 3, .slot_bytes = 16, .first_number = firsts[i]};
        rig r = rig_open(&wanted, NULL, NULL);
        for (uint64_t m = 0; m < 10; m++) {
            produce(&r, NULL, 16);
            if (m % 2 == 1) {
                assert_int_equal(consume(&r, NULL, 16), firsts[i] + m - 1);
                assert_int_equal(consume(&r, NULL, 16), firsts[i] + m);
            }
        }
        rig_close(&r);
    }
}

static void impossible_streams_are_refused(void **state)
{
    (void)state;
    const umo_stream_options plain = {.slots = 2, .slot_bytes = 8};
    rig r = rig_open(&plain, NULL, NULL);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 100, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    umo_device *other = NULL;
    assert_int_equal(umo_device_open("host", 0, NULL, &other, NULL), UMO_OK);
    umo_buffer *foreign = NULL;
    assert_int_equal(umo_buffer_alloc(other, r.scope, 100, UMO_UNIFIED, &foreign, NULL), UMO_OK);
    umo_stream_options bad[16];
    size_t count = 0;
#define BAD(...)                                                                                   \
    do {                                                                                           \
        bad[count] = r.options;                                                                    \
        umo_stream_options *o = &bad[count++];                                                     \
        __VA_ARGS__;                                                                               \
    } while (0)
    BAD(o->device = NULL);
    BAD(o->scope = NULL);
    BAD(o->slots = 0);
    BAD(o->slots = 1);
    BAD(o->slots = 65537);
    BAD(o->slot_bytes = 0);
    BAD(o->producer = (umo_side)3);
    BAD(o->consumer = (umo_side)4);
    BAD(o->producer_queue = 99);
    BAD(o->consumer_queue = 99);
    BAD(o->buffer = buffer, o->slots = 13);
    BAD(o->buffer = buffer, o->stride_bytes = 7);
    BAD(o->buffer = buffer, o->stride_bytes = SIZE_MAX);
    BAD(o->buffer = buffer, o->offset_bytes = SIZE_MAX - 3);
    BAD(o->buffer = foreign);
    BAD(o->slot_bytes = SIZE_MAX);
#undef BAD
    for (size_t i = 0; i < count; i++) {
        umo_stream *stream = NULL;
        umo_error error = {0};
        assert_int_equal(umo_stream_create(&bad[i], &stream, &error), UMO_E_INVAL);
        assert_null(stream);
        assert_int_not_equal(error.text[0], '\0');
    }
    assert_int_equal(umo_stream_destroy(NULL), UMO_OK);
    umo_buffer_release(buffer);
    umo_buffer_release(foreign);
    umo_device_release(other);
    rig_close(&r);
}

static void misuse_of_slots_is_an_error_and_nothing_else(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 2, .slot_bytes = 8};
    rig r = rig_open(&wanted, NULL, NULL);
    umo_stream_slot slot = {0};
    umo_stream_slot second;
    const umo_fence none = {0};
    assert_int_equal(umo_stream_produce_begin(r.stream, 0, 0, &slot), UMO_E_INVAL);
    assert_int_equal(umo_stream_produce_begin(r.stream, 9, 0, &slot), UMO_E_INVAL);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 1, none), UMO_E_INVAL);
    assert_int_equal(umo_stream_consume_end(r.stream, &slot, none), UMO_E_INVAL);
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &slot), UMO_OK);
    /* Two producers where one is meant. */
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &second), UMO_E_BUSY);
    umo_stream_slot forged = slot;
    forged.index = 77;
    assert_int_equal(umo_stream_produce_end(r.stream, &forged, 8, none), UMO_E_INVAL);
    forged = slot;
    forged.number++;
    assert_int_equal(umo_stream_produce_end(r.stream, &forged, 8, none), UMO_E_INVAL);
    assert_int_equal(umo_stream_consume_end(r.stream, &slot, none), UMO_E_INVAL);
    assert_int_equal(umo_stream_destroy(r.stream), UMO_E_BUSY);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 8, none), UMO_OK);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 8, none), UMO_E_INVAL);
    assert_int_equal(umo_stream_produce_abort(r.stream, &slot, none), UMO_E_INVAL);
    produce(&r, NULL, 8);
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &second), UMO_OK);
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slot), UMO_E_BUSY);
    assert_int_equal(umo_stream_destroy(r.stream), UMO_E_BUSY);
    assert_int_equal(umo_stream_consume_end(r.stream, &second, none), UMO_OK);
    assert_int_equal(umo_stream_consume_end(r.stream, &second, none), UMO_E_INVAL);
    assert_int_equal(consume(&r, NULL, 8), 1);
    assert_int_equal(stats(&r).produced, 2);
    assert_int_equal(stats(&r).consumed, 2);
    rig_close(&r);
}

static void slots_that_are_given_up_are_passed_over(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 4, .slot_bytes = 8, .producers = 4};
    rig r = rig_open(&wanted, NULL, NULL);
    const umo_fence none = {0};
    for (unsigned which = 0; which < 16; which++) {
        /* Of four open slots those whose bit is set are given up, the first ones first or last. */
        for (int reverse = 0; reverse < 2; reverse++) {
            umo_stream_slot slots[4];
            for (int i = 0; i < 4; i++) {
                assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &slots[i]), UMO_OK);
            }
            for (int i = 0; i < 4; i++) {
                umo_stream_slot *s = &slots[reverse ? 3 - i : i];
                unsigned bit = 1u << (reverse ? 3 - i : i);
                if ((which & bit) != 0) {
                    assert_int_equal(umo_stream_produce_abort(r.stream, s, none), UMO_OK);
                } else {
                    assert_int_equal(umo_stream_produce_end(r.stream, s, 8, none), UMO_OK);
                }
            }
            umo_stream_slot got;
            for (int i = 0; i < 4; i++) {
                if ((which & 1u << i) == 0) {
                    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &got), UMO_OK);
                    assert_int_equal(got.number, slots[i].number);
                    assert_int_equal(umo_stream_consume_end(r.stream, &got, none), UMO_OK);
                }
            }
            assert_int_equal(umo_stream_consume_begin(r.stream, 0, &got), UMO_E_TIMEOUT);
        }
    }
    assert_int_equal(stats(&r).aborted, 64);
    rig_close(&r);
}

static void consumers_may_end_in_any_order(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 3, .slot_bytes = 8, .consumers = 3};
    rig r = rig_open(&wanted, NULL, NULL);
    umo_stream_slot slots[3];
    umo_stream_slot next;
    const umo_fence none = {0};
    for (int i = 0; i < 3; i++) {
        produce(&r, NULL, 8);
        assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slots[i]), UMO_OK);
    }
    assert_int_equal(umo_stream_consume_end(r.stream, &slots[2], none), UMO_OK);
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &next), UMO_E_TIMEOUT);
    assert_int_equal(umo_stream_consume_end(r.stream, &slots[0], none), UMO_OK);
    produce(&r, NULL, 8);
    assert_int_equal(umo_stream_consume_end(r.stream, &slots[1], none), UMO_OK);
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &next), UMO_OK);
    assert_int_equal(next.number, 3);
    assert_int_equal(umo_stream_consume_end(r.stream, &next, none), UMO_OK);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_moves_once_on_two_memories_and_never_on_one),
        cmocka_unit_test(fences_pass_through_both_ways),
        cmocka_unit_test(a_buffer_of_ones_own_is_cut_into_slots),
        cmocka_unit_test(a_shorter_message_is_what_its_producer_says),
        cmocka_unit_test(full_and_empty_rings_time_out),
        cmocka_unit_test(numbers_wrap_around),
        cmocka_unit_test(impossible_streams_are_refused),
        cmocka_unit_test(misuse_of_slots_is_an_error_and_nothing_else),
        cmocka_unit_test(slots_that_are_given_up_are_passed_over),
        cmocka_unit_test(consumers_may_end_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
