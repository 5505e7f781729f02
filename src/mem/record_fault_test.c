/*
 * Recording when memory is out: each allocation fails once, what was asked for says so, nothing is
 * half done, and the next try works. The calls are redirected when this is linked.
 */
#include "driver/wrapper_test.h"

#include "mem/record.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    BYTES = 4096,
    MORE = 600 /* buffers: some chunks of records, and tables of addresses */
};

static _Atomic long fail_at; /* 0 for never */
static _Atomic long calls;

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_calloc(size_t count, size_t size)
{
    long at = atomic_load(&fail_at);
    if (at != 0 && atomic_fetch_add(&calls, 1) + 1 == at) {
        return NULL;
    }
    return __real_calloc(count, size);
}

static void fail_from_now(long at)
{
    atomic_store(&calls, 0);
    atomic_store(&fail_at, at);
}

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_buffer *buffer;
} rig;

static char memory[MORE][BYTES];

static umo_buffer *import(const rig *r, unsigned i)
{
    const umo_import import = {.data = memory[i], .size_bytes = BYTES, .whole_pages = true};
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_import(r->device, r->scope, &import, &buffer, NULL, NULL), UMO_OK);
    return buffer;
}

/* A fresh thread: its table is the first thing that it needs. */
static void *first_access(void *argument)
{
    umo_buffer *buffer = argument;
    for (long at = 1; at < 3; at++) {
        fail_from_now(at);
        umo_status status = umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, 1);
        fail_from_now(0);
        if (status == UMO_OK) {
            return (void *)(uintptr_t)at;
        }
        if (status != UMO_E_NOMEM) {
            abort();
        }
    }
    return NULL;
}

static void a_thread_without_memory_counts_at_its_next_access(void **state)
{
    rig *r = *state;
    umo_buffer *buffer = import(r, 0);
    assert_int_equal(umo_buffer_track(buffer), UMO_OK);
    pthread_t thread;
    void *at = NULL;
    assert_int_equal(pthread_create(&thread, NULL, first_access, buffer), 0);
    assert_int_equal(pthread_join(thread, &at), 0);
    assert_int_equal((uintptr_t)at, 2);
    umo_access_stats s;
    umo_buffer_stats(buffer, &s);
    assert_int_equal(s.accesses, 1);
    umo_buffer_release(buffer);
}

static void buffers_are_tracked_when_there_is_memory_again(void **state)
{
    rig *r = *state;
    static umo_buffer *buffers[MORE];
    unsigned failures = 0;
    for (unsigned i = 0; i < MORE; i++) {
        buffers[i] = import(r, i);
        fail_from_now(1);
        umo_status status = umo_buffer_track(buffers[i]);
        fail_from_now(0);
        if (status != UMO_OK) {
            failures++;
            assert_int_equal(status, UMO_E_NOMEM);
            assert_int_equal(umo_access_record_at(memory[i], UMO_SIDE_HOST, UMO_READ, 1),
                             UMO_E_NOT_FOUND);
            assert_int_equal(umo_buffer_track(buffers[i]), UMO_OK);
        }
        assert_int_equal(umo_access_record_at(memory[i], UMO_SIDE_HOST, UMO_READ, 1), UMO_OK);
    }
    /* Two chunks more than the first at least; a table that cannot grow still has room. */
    assert_true(failures >= 2);
    for (unsigned i = 0; i < MORE; i++) {
        umo_access_stats s;
        umo_buffer_stats(buffers[i], &s);
        assert_int_equal(s.accesses, 1);
        umo_buffer_release(buffers[i]);
    }
}

/* What is not recorded must not fail for it. */
static void memory_is_allocated_even_if_it_cannot_be_tracked(void **state)
{
    rig *r = *state;
    for (long at = 1; at < 8; at++) {
        umo_buffer *buffer = NULL;
        fail_from_now(at);
        umo_status status =
            umo_buffer_alloc(r->device, r->scope, BYTES, UMO_UNIFIED, &buffer, NULL);
        bool reached = atomic_load(&calls) >= at;
        fail_from_now(0);
        if (status == UMO_OK) {
            umo_access_stats s;
            assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, 7), UMO_OK);
            umo_buffer_stats(buffer, &s);
            assert_int_equal(s.host.reads.bytes, 7);
            umo_buffer_release(buffer);
        } else {
            assert_true(reached);
        }
    }
}

static int rig_open(void **state)
{
    static rig r;
    r.device = wrapper_device(NULL, NULL);
    *state = &r;
    return r.device == NULL || umo_scope_create(NULL, "root", 0, &r.scope, NULL) != UMO_OK ? -1 : 0;
}

static int rig_close(void **state)
{
    rig *r = *state;
    umo_counters c;
    umo_scope_read(r->scope, &c);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
    return c.live_buffers == 0 && wrapper_calls.live == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_without_memory_counts_at_its_next_access),
        cmocka_unit_test(memory_is_allocated_even_if_it_cannot_be_tracked),
        cmocka_unit_test(buffers_are_tracked_when_there_is_memory_again),
    };
    return cmocka_run_group_tests(tests, rig_open, rig_close);
}
