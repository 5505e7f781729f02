/*
 * Exports: who may use a buffer while somebody without brackets has it, what is valid where, what
 * is waited for, and that it stays alive and in place.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "os/barrier_test.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

enum {
    SIZE = 3000
};

#define HOST UMO_SIDE_HOST
#define DEVICE UMO_SIDE_DEVICE
#define ACCESS(offset, size, side_, use_)                                                          \
    (&(const umo_access){.offset_bytes = offset, .size_bytes = size, .side = side_, .use = use_})
#define ALL(side_, use_) ACCESS(0, SIZE, side_, use_)

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_buffer *buffer;
} rig;

static rig rig_open(umo_storage_mode mode, const wrapper_switches *switches, uint64_t delay_ns)
{
    rig r = {0};
    const umo_driver_options options = {.delay_ns = delay_ns, .test_mode = true};
    r.device = wrapper_device(switches, &options);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "exports", 0, &r.scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, SIZE, mode, &r.buffer, NULL),
                     UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    wrapper = (wrapper_switches){0};
    umo_buffer_release(r->buffer);
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    umo_device_release(r->device);
    umo_scope_destroy(r->scope);
}

static umo_status begin(const rig *r, const umo_access *access)
{
    umo_fence_set waits;
    umo_status status = umo_access_begin(r->buffer, access, &waits);
    return status == UMO_OK ? umo_fence_set_wait(&waits, UINT64_MAX) : status;
}

static void end(const rig *r, const umo_access *access)
{
    assert_int_equal(umo_access_end(r->buffer, access, (umo_fence){0}), UMO_OK);
}

static umo_status export_begin(const rig *r, umo_side side, bool writable)
{
    umo_fence_set waits;
    umo_status status = umo_buffer_export_begin(r->buffer, side, writable, &waits);
    return status == UMO_OK ? umo_fence_set_wait(&waits, UINT64_MAX) : status;
}

static void export_end(const rig *r, umo_side side, bool writable)
{
    assert_int_equal(umo_buffer_export_end(r->buffer, side, writable, (umo_fence){0}), UMO_OK);
}

static unsigned char *side_bytes(const rig *r, umo_side side)
{
    return side == HOST ? umo_buffer_host(r->buffer)
                        : (unsigned char *)umo_buffer_memory(r->buffer)->native;
}

static void fill(const rig *r, umo_side side, int value)
{
    assert_int_equal(begin(r, ALL(side, UMO_WRITE)), UMO_OK);
    memset(side_bytes(r, side), value, SIZE);
    end(r, ALL(side, UMO_WRITE));
}

static void expect(const rig *r, umo_side side, int value)
{
    assert_int_equal(begin(r, ALL(side, UMO_READ)), UMO_OK);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(side_bytes(r, side)[i], value);
    }
    end(r, ALL(side, UMO_READ));
}

static umo_side other(umo_side side)
{
    return side == HOST ? DEVICE : HOST;
}

/* The bytes come with it; what the exporter writes is what both sides see afterwards. */
static void an_export_takes_and_gives_bytes(void **state)
{
    (void)state;
    static const wrapper_switches devices[] = {{0}, {.apart = true}};
    for (size_t d = 0; d < 2; d++) {
        for (int i = 0; i < 2 * UMO_STORAGE_MODES; i++) {
            umo_side side = i % 2 == 0 ? HOST : DEVICE;
            rig r = rig_open((umo_storage_mode)(i / 2), &devices[d], 10000);
            fill(&r, other(side), 1);
            assert_int_equal(export_begin(&r, side, true), UMO_OK);
            for (size_t at = 0; at < SIZE; at++) {
                assert_int_equal(side_bytes(&r, side)[at], 1);
            }
            assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), side);
            memset(side_bytes(&r, side), 2, SIZE);
            expect(&r, side, 2);
            export_end(&r, side, true);
            assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), side);
            expect(&r, other(side), 2);
            expect(&r, side, 2);
            rig_close(&r);
        }
    }
}

static void what_nobody_wrote_may_be_written_by_an_exporter(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    assert_int_equal(export_begin(&r, DEVICE, true), UMO_OK);
    memset(side_bytes(&r, DEVICE), 3, SIZE);
    export_end(&r, DEVICE, true);
    expect(&r, HOST, 3);
    rig_close(&r);
}

static void writers_find_exported_memory_busy(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    fill(&r, HOST, 1);
    for (int i = 0; i < 4; i++) {
        umo_side side = i % 2 == 0 ? HOST : DEVICE;
        bool writable = i / 2 == 1;
        umo_fence done;
        unsigned char byte = 0;
        assert_int_equal(export_begin(&r, side, writable), UMO_OK);
        assert_int_equal(begin(&r, ACCESS(7, 1, HOST, UMO_WRITE)), UMO_E_BUSY);
        assert_int_equal(begin(&r, ACCESS(7, 1, DEVICE, UMO_READ_WRITE)), UMO_E_BUSY);
        assert_int_equal(umo_buffer_upload(r.buffer, 0, &byte, 1, 0, &done), UMO_E_BUSY);
        umo_error error = {0};
        assert_int_equal(umo_buffer_move(r.buffer, UMO_UNIFIED, UINT64_MAX, &error), UMO_E_BUSY);
        assert_non_null(strstr(error.text, "exported"));
        expect(&r, side, 1);
        export_end(&r, side, writable);
        assert_int_equal(begin(&r, ALL(HOST, UMO_READ_WRITE)), UMO_OK);
        end(&r, ALL(HOST, UMO_READ_WRITE));
    }
    rig_close(&r);
}

/* Across from somebody who writes when he likes, nothing that was brought stays good. */
static void the_other_side_brings_the_bytes_each_time(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 10000);
    fill(&r, HOST, 1);
    assert_int_equal(export_begin(&r, DEVICE, true), UMO_OK);
    uint64_t transfers = wrapper_calls.transfer;
    for (int round = 2; round < 5; round++) {
        memset(side_bytes(&r, DEVICE), round, SIZE);
        expect(&r, HOST, round);
        assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), DEVICE);
    }
    assert_int_equal(wrapper_calls.transfer, transfers + 3);
    /* Not under the eyes of another one. */
    assert_int_equal(begin(&r, ACCESS(0, 100, HOST, UMO_READ)), UMO_OK);
    assert_int_equal(begin(&r, ACCESS(99, 10, HOST, UMO_READ)), UMO_E_BUSY);
    assert_int_equal(begin(&r, ACCESS(100, 10, HOST, UMO_READ)), UMO_OK);
    assert_int_equal(begin(&r, ACCESS(99, 10, DEVICE, UMO_READ)), UMO_OK);
    end(&r, ACCESS(99, 10, DEVICE, UMO_READ));
    end(&r, ACCESS(100, 10, HOST, UMO_READ));
    end(&r, ACCESS(0, 100, HOST, UMO_READ));
    export_end(&r, DEVICE, true);
    rig_close(&r);

    /* Where both see one memory there is nothing to bring; where it takes mapping, it is refused.
     */
    r = rig_open(UMO_UNIFIED, NULL, 0);
    fill(&r, HOST, 1);
    assert_int_equal(export_begin(&r, DEVICE, true), UMO_OK);
    memset(side_bytes(&r, DEVICE), 6, SIZE);
    expect(&r, HOST, 6);
    export_end(&r, DEVICE, true);
    rig_close(&r);
    r = rig_open(UMO_UNIFIED, &(const wrapper_switches){.apart = true}, 0);
    fill(&r, HOST, 1);
    assert_int_equal(export_begin(&r, DEVICE, true), UMO_OK);
    assert_int_equal(begin(&r, ALL(HOST, UMO_READ)), UMO_E_BUSY);
    export_end(&r, DEVICE, true);
    expect(&r, HOST, 1);
    rig_close(&r);
}

static void exports_nest_but_not_against_a_writer(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    fill(&r, HOST, 1);
    for (int i = 0; i < 16; i++) {
        umo_side first = (i & 1) != 0 ? HOST : DEVICE;
        umo_side second = (i & 2) != 0 ? HOST : DEVICE;
        bool first_writes = (i & 4) != 0;
        bool second_writes = (i & 8) != 0;
        bool can = first == second || (!first_writes && !second_writes);
        assert_int_equal(export_begin(&r, first, first_writes), UMO_OK);
        assert_int_equal(export_begin(&r, second, second_writes), can ? UMO_OK : UMO_E_BUSY);
        if (can) {
            export_end(&r, first, first_writes);
            assert_int_equal(begin(&r, ALL(HOST, UMO_WRITE)), UMO_E_BUSY);
            export_end(&r, second, second_writes);
        } else {
            export_end(&r, first, first_writes);
        }
        umo_status status = umo_buffer_export_end(r.buffer, first, first_writes, (umo_fence){0});
        assert_int_equal(status, UMO_E_INVAL);
    }
    rig_close(&r);
}

static void an_open_bracket_is_in_the_way(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    fill(&r, HOST, 1);
    assert_int_equal(begin(&r, ACCESS(5, 1, HOST, UMO_READ)), UMO_OK);
    assert_int_equal(export_begin(&r, HOST, true), UMO_E_BUSY);
    assert_int_equal(export_begin(&r, HOST, false), UMO_OK);
    export_end(&r, HOST, false);
    end(&r, ACCESS(5, 1, HOST, UMO_READ));
    assert_int_equal(begin(&r, ACCESS(5, 1, HOST, UMO_READ_WRITE)), UMO_OK);
    assert_int_equal(export_begin(&r, DEVICE, false), UMO_E_BUSY);
    end(&r, ACCESS(5, 1, HOST, UMO_READ_WRITE));

    umo_fence_set waits;
    assert_int_equal(umo_buffer_export_begin(r.buffer, (umo_side)0, false, &waits), UMO_E_INVAL);
    assert_int_equal(umo_buffer_export_begin(r.buffer, (umo_side)3, false, &waits), UMO_E_INVAL);
    assert_int_equal(umo_buffer_export_end(r.buffer, (umo_side)3, false, (umo_fence){0}),
                     UMO_E_INVAL);
    static unsigned char theirs[64];
    umo_buffer *import = NULL;
    const umo_import wanted = {.data = theirs, .size_bytes = sizeof theirs};
    assert_int_equal(umo_buffer_import(r.device, r.scope, &wanted, &import, NULL, NULL), UMO_OK);
    assert_int_equal(umo_buffer_export_begin(import, HOST, true, &waits), UMO_E_INVAL);
    assert_int_equal(umo_buffer_export_begin(import, HOST, false, &waits), UMO_OK);
    assert_int_equal(umo_buffer_export_end(import, HOST, false, (umo_fence){0}), UMO_OK);
    umo_buffer_release(import);
    rig_close(&r);
}

/* The last use of many exporters at once is pending: room for each was made in time. */
static void brackets_wait_for_the_last_use_of_an_export(void **state)
{
    (void)state;
    enum {
        MANY = 40
    };
    rig r = rig_open(UMO_MANAGED, NULL, UINT64_C(1000000));
    fill(&r, HOST, 1);
    umo_fence_set waits;
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(export_begin(&r, DEVICE, true), UMO_OK);
    }
    /* A bracket in between needs room of its own. */
    assert_int_equal(begin(&r, ACCESS(0, 1, DEVICE, UMO_READ)), UMO_OK);
    umo_fence done = {0};
    for (size_t i = 0; i < MANY; i++) {
        static unsigned char bytes[SIZE];
        memset(bytes, 7, SIZE);
        done = (umo_fence){0};
        uint32_t queue = (uint32_t)(i % 4);
        umo_memory memory = *umo_buffer_memory(r.buffer);
        assert_int_equal(r.device->driver->transfer(r.device->state, queue, &memory, DEVICE, 0,
                                                    SIZE, bytes, NULL, 0, &done),
                         UMO_OK);
        done.device = r.device;
        done.queue = queue;
        assert_int_equal(umo_buffer_export_end(r.buffer, DEVICE, true, done), UMO_OK);
    }
    assert_int_equal(umo_access_end(r.buffer, ACCESS(0, 1, DEVICE, UMO_READ), done), UMO_OK);
    assert_int_equal(umo_access_begin(r.buffer, ALL(DEVICE, UMO_READ), &waits), UMO_OK);
    assert_int_equal(waits.count, 4);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    end(&r, ALL(DEVICE, UMO_READ));
    expect(&r, HOST, 7);
    rig_close(&r);
}

static void an_export_keeps_the_buffer_alive(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    fill(&r, HOST, 1);
    assert_int_equal(export_begin(&r, HOST, false), UMO_OK);
    umo_buffer *buffer = r.buffer;
    r.buffer = NULL;
    umo_buffer_release(buffer);
    assert_int_equal(*(unsigned char *)umo_buffer_host(buffer), 1);
    assert_int_equal(umo_buffer_export_end(buffer, HOST, false, (umo_fence){0}), UMO_OK);
    rig_close(&r);
}

enum {
    ROUNDS = 4000
};

static _Atomic int opened;
static _Atomic int ended;

static void *exports_often(void *user)
{
    const rig *r = user;
    while (atomic_load(&ended) < ROUNDS) {
        if (export_begin(r, HOST, false) == UMO_OK) {
            export_end(r, HOST, false);
        }
    }
    return NULL;
}

/* Ends what another thread has opened. */
static void *ends_often(void *user)
{
    const rig *r = user;
    for (int i = 0; i < ROUNDS; i++) {
        while (atomic_load(&opened) <= i) {
            (void)sched_yield();
        }
        end(r, ALL(HOST, UMO_READ));
        atomic_store(&ended, i + 1);
    }
    return NULL;
}

/* An export begins like a bracket, and somebody else's may be equal to it. */
static void exports_beside_readers_leave_no_bracket(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    fill(&r, HOST, 1);
    pthread_t exporter;
    pthread_t ender;
    assert_int_equal(pthread_create(&exporter, NULL, exports_often, &r), 0);
    assert_int_equal(pthread_create(&ender, NULL, ends_often, &r), 0);
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(begin(&r, ALL(HOST, UMO_READ)), UMO_OK);
        atomic_store(&opened, i + 1);
    }
    assert_int_equal(pthread_join(exporter, NULL), 0);
    assert_int_equal(pthread_join(ender, NULL), 0);
    fill(&r, HOST, 2);
    rig_close(&r);
}

typedef struct taker {
    const rig *r;
    barrier_test *start;
    _Atomic int *running;
    int refused;
} taker;

static void *exports_and_ends(void *user)
{
    taker *t = user;
    barrier_test_wait(t->start);
    /* As long as the other one, so that they meet also where one processor runs both. */
    for (int i = 0; i < 50 * ROUNDS || atomic_load(t->running) > 1; i++) {
        if (i == 50 * ROUNDS) {
            atomic_fetch_sub(t->running, 1);
        }
        if (export_begin(t->r, HOST, true) == UMO_OK) {
            export_end(t->r, HOST, true);
        } else {
            t->refused++;
        }
    }
    return NULL;
}

static void exports_that_begin_at_the_same_time_are_not_in_each_others_way(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    barrier_test start;
    barrier_test_init(&start, 2);
    _Atomic int running = 3;
    taker takers[2] = {{.r = &r, .start = &start, .running = &running},
                       {.r = &r, .start = &start, .running = &running}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, exports_and_ends, &takers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(takers[i].refused, 0);
    }
    barrier_test_finish(&start);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_takes_and_gives_bytes),
        cmocka_unit_test(what_nobody_wrote_may_be_written_by_an_exporter),
        cmocka_unit_test(writers_find_exported_memory_busy),
        cmocka_unit_test(the_other_side_brings_the_bytes_each_time),
        cmocka_unit_test(exports_nest_but_not_against_a_writer),
        cmocka_unit_test(an_open_bracket_is_in_the_way),
        cmocka_unit_test(brackets_wait_for_the_last_use_of_an_export),
        cmocka_unit_test(an_export_keeps_the_buffer_alive),
        cmocka_unit_test(exports_beside_readers_leave_no_bracket),
        cmocka_unit_test(exports_that_begin_at_the_same_time_are_not_in_each_others_way),
    };
    return cmocka_run_group_tests_name("export", tests, NULL, NULL);
}
