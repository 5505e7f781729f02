/*
 * Streams: how they end, what they survive, and many threads on one.
 */
#include "mem/stream_scene_test.h"

/* ---- the end of a stream ---- */

static void a_closed_stream_is_emptied_first(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 4, .slot_bytes = 8, .producers = 2};
    rig r = rig_open(&wanted, NULL, NULL);
    umo_stream_slot open;
    umo_stream_slot slot;
    produce(&r, NULL, 8);
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &open), UMO_OK);
    umo_stream_close(r.stream);
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &slot), UMO_E_REFUSED);
    assert_int_equal(consume(&r, NULL, 8), 0);
    /* Somebody may still send. */
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slot), UMO_E_TIMEOUT);
    bytes_fill(host_bytes(&open), 8, open.number);
    assert_int_equal(umo_stream_produce_end(r.stream, &open, 8, (umo_fence){0}), UMO_OK);
    assert_int_equal(consume(&r, NULL, 8), 1);
    assert_int_equal(umo_stream_consume_begin(r.stream, UINT64_MAX, &slot), UMO_E_NOT_FOUND);
    rig_close(&r);
}

static void an_aborted_stream_tells_why_and_can_be_destroyed(void **state)
{
    (void)state;
    const umo_stream_options wanted = {.slots = 4, .slot_bytes = 8};
    rig r = rig_open(&wanted, NULL, NULL);
    umo_stream_slot slot;
    produce(&r, NULL, 8);
    produce(&r, NULL, 8);
    produce(&r, NULL, 8);
    umo_stream_slot dead;
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &dead), UMO_OK);
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &slot), UMO_OK);
    umo_stream_abort(r.stream, UMO_E_DEVICE);
    umo_stream_abort(r.stream, UMO_E_NOMEM);
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 8, (umo_fence){0}), UMO_OK);
    assert_int_equal(stats(&r).lost, 3);
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, UINT64_MAX, &slot), UMO_E_DEVICE);
    assert_int_equal(umo_stream_consume_begin(r.stream, UINT64_MAX, &slot), UMO_E_DEVICE);
    /* The consumer died with its slot open. */
    rig_close(&r);
}

typedef struct waiter {
    const rig *r;
    bool produces;
    umo_status status;
} waiter;

static void *waiter_main(void *argument)
{
    waiter *w = argument;
    umo_stream_slot slot;
    w->status = w->produces ? umo_stream_produce_begin(w->r->stream, 8, UINT64_MAX, &slot)
                            : umo_stream_consume_begin(w->r->stream, UINT64_MAX, &slot);
    return NULL;
}

static void who_waits_is_woken_by_the_end(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const umo_stream_options wanted = {.slots = 2, .slot_bytes = 8};
        rig r = rig_open(&wanted, NULL, NULL);
        const bool produces = i % 2 == 0;
        const bool aborts = i < 2;
        if (produces) {
            produce(&r, NULL, 8);
            produce(&r, NULL, 8);
        }
        waiter w = {.r = &r, .produces = produces};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, waiter_main, &w), 0);
        while (stats(&r).producer_waits + stats(&r).consumer_waits == 0) {
            (void)sched_yield();
        }
        assert_int_equal(umo_stream_destroy(r.stream), UMO_E_BUSY);
        if (aborts) {
            umo_stream_abort(r.stream, UMO_E_LIMIT);
        } else {
            umo_stream_close(r.stream);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.status, aborts     ? UMO_E_LIMIT
                                   : produces ? UMO_E_REFUSED
                                              : UMO_E_NOT_FOUND);
        rig_close(&r);
    }
}

/* ---- failures ---- */

static const char *failing;

static bool fails_named(const char *entry)
{
    return failing != NULL && strcmp(entry, failing) == 0;
}

static void a_transfer_that_is_refused_leaves_the_message(void **state)
{
    (void)state;
    const umo_stream_options wanted = {
        .mode = UMO_MANAGED, .slots = 2, .slot_bytes = 8, .consumer = UMO_SIDE_DEVICE};
    const wrapper_switches switches = {.fails = fails_named};
    rig r = rig_open(&wanted, &switches, NULL);
    kernels k = kernels_open(r.device);
    produce(&r, &k, 8);
    umo_stream_slot slot;
    failing = "transfer";
    umo_status status = umo_stream_consume_begin(r.stream, 0, &slot);
    assert_int_not_equal(status, UMO_OK);
    failing = NULL;
    if (status == UMO_E_DEVICE) {
        assert_int_equal(stats(&r).lost, 1);
        produce(&r, &k, 8);
        assert_int_equal(consume(&r, &k, 8), 1);
    } else {
        assert_int_equal(consume(&r, &k, 8), 0);
    }
    assert_int_equal(kernel_wrong, 0);
    rig_close(&r);
    kernels_close(&k);
}

static void a_writer_that_failed_loses_its_message_alone(void **state)
{
    (void)state;
    const umo_stream_options wanted = {
        .slots = 2, .slot_bytes = 8, .producer = UMO_SIDE_DEVICE, .producer_queue = 1};
    const umo_driver_options late = {.delay_ns = 1000};
    rig r = rig_open(&wanted, &(wrapper_switches){0}, &late);
    kernels k = kernels_open(r.device);
    umo_stream_slot slot;
    assert_int_equal(umo_stream_produce_begin(r.stream, 8, 0, &slot), UMO_OK);
    umo_fence done = launch(k.fill, 1, &slot, 8);
    assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
    wrapper.bad_queue = 1;
    wrapper.bad_value = done.value;
    assert_int_equal(umo_stream_produce_end(r.stream, &slot, 8, done), UMO_OK);
    assert_int_equal(umo_stream_consume_begin(r.stream, 0, &slot), UMO_E_DEVICE);
    wrapper.bad_value = 0;
    assert_int_equal(stats(&r).lost, 1);
    produce(&r, &k, 8);
    assert_int_equal(consume(&r, &k, 8), 1);
    rig_close(&r);
    kernels_close(&k);
}

static void a_stream_that_cannot_be_made_leaves_nothing(void **state)
{
    (void)state;
    const umo_stream_options plain = {.slots = 2, .slot_bytes = 8};
    rig r = rig_open(&plain, NULL, NULL);
    umo_scope *small = NULL;
    assert_int_equal(umo_scope_create(NULL, "small", 1000, &small, NULL), UMO_OK);
    umo_stream_options wanted = r.options;
    wanted.scope = small;
    wanted.slots = 11;
    wanted.slot_bytes = 100;
    umo_stream *stream = NULL;
    assert_int_equal(umo_stream_create(&wanted, &stream, NULL), UMO_E_LIMIT);
    umo_counters c;
    umo_scope_read(small, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_null(stream);
    umo_scope_destroy(small);
    rig_close(&r);
}

/* ---- threads ---- */

enum {
    EACH = 4000
};

typedef struct team {
    const rig *r;
    uint64_t wrong;
    uint64_t count;
    unsigned seed;
} team;

static void *producer_main(void *argument)
{
    team *t = argument;
    for (unsigned i = 0; i < EACH; i++) {
        umo_stream_slot slot;
        const size_t size = 1 + (i * 13 + t->seed) % 128;
        umo_status status;
        do {
            status = umo_stream_produce_begin(t->r->stream, size, SECOND, &slot);
        } while (status == UMO_E_BUSY);
        if (status != UMO_OK || umo_fence_set_wait(&slot.waits, UINT64_MAX) != UMO_OK) {
            t->wrong++;
            return NULL;
        }
        if (i % 17 == 3) {
            t->wrong += umo_stream_produce_abort(t->r->stream, &slot, (umo_fence){0}) != UMO_OK;
            continue;
        }
        bytes_fill(host_bytes(&slot), size, slot.number);
        t->wrong += umo_stream_produce_end(t->r->stream, &slot, size, (umo_fence){0}) != UMO_OK;
        t->count++;
    }
    return NULL;
}

static void *consumer_main(void *argument)
{
    team *t = argument;
    for (;;) {
        umo_stream_slot slot;
        umo_status status = umo_stream_consume_begin(t->r->stream, 20 * SECOND, &slot);
        if (status == UMO_E_BUSY) {
            continue;
        }
        if (status != UMO_OK) {
            t->wrong += status != UMO_E_NOT_FOUND;
            return NULL;
        }
        t->wrong += umo_fence_set_wait(&slot.waits, UINT64_MAX) != UMO_OK;
        t->wrong += !bytes_match(host_bytes(&slot), slot.size_bytes, slot.number);
        t->wrong += umo_stream_consume_end(t->r->stream, &slot, (umo_fence){0}) != UMO_OK;
        t->count++;
    }
}

static void teams_run(unsigned producers, unsigned consumers)
{
    const umo_stream_options wanted = {
        .slots = 5, .slot_bytes = 128, .producers = producers, .consumers = consumers};
    rig r = rig_open(&wanted, NULL, NULL);
    team teams[8];
    pthread_t threads[8];
    for (unsigned i = 0; i < producers + consumers; i++) {
        teams[i] = (team){.r = &r, .seed = i};
        assert_int_equal(pthread_create(&threads[i], NULL,
                                        i < producers ? producer_main : consumer_main, &teams[i]),
                         0);
    }
    uint64_t sent = 0;
    uint64_t got = 0;
    for (unsigned i = 0; i < producers + consumers; i++) {
        if (i == producers) {
            umo_stream_close(r.stream);
        }
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(teams[i].wrong, 0);
        *(i < producers ? &sent : &got) += teams[i].count;
    }
    assert_int_equal(sent, got);
    assert_int_equal(stats(&r).produced, sent);
    assert_int_equal(stats(&r).consumed, got);
    assert_int_equal(stats(&r).lost, 0);
    rig_close(&r);
}

static void threads_lose_and_mix_nothing(void **state)
{
    (void)state;
    teams_run(1, 1);
    teams_run(4, 4);
    teams_run(1, 3);
    teams_run(3, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_stream_is_emptied_first),
        cmocka_unit_test(an_aborted_stream_tells_why_and_can_be_destroyed),
        cmocka_unit_test(who_waits_is_woken_by_the_end),
        cmocka_unit_test(a_transfer_that_is_refused_leaves_the_message),
        cmocka_unit_test(a_writer_that_failed_loses_its_message_alone),
        cmocka_unit_test(a_stream_that_cannot_be_made_leaves_nothing),
        cmocka_unit_test(threads_lose_and_mix_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
