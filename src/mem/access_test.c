/*
 * Brackets one by one: what is refused, what conflicts, what is waited for, and what a failure
 * leaves behind. access_model_test.c has the random counterpart.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "driver/device.h"
#include "mem/buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

enum {
    SIZE = 1000
};

#define MS UINT64_C(1000000)
#define ACCESS(offset, size, side_, use_)                                                          \
    (&(const umo_access){.offset_bytes = offset, .size_bytes = size, .side = side_, .use = use_})
#define HOST UMO_SIDE_HOST
#define DEVICE UMO_SIDE_DEVICE

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
    assert_int_equal(umo_scope_create(NULL, "access", 0, &r.scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, SIZE, mode, &r.buffer, NULL), UMO_OK);
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

static umo_status end(const rig *r, const umo_access *access)
{
    return umo_access_end(r->buffer, access, (umo_fence){0});
}

static void assert_bracket(const rig *r, const umo_access *access)
{
    assert_int_equal(begin(r, access), UMO_OK);
    assert_int_equal(end(r, access), UMO_OK);
}

/* A command that runs until it is let go: what depends on it never passes by luck. A test that
 * failed does not let it go, so it ends by itself at last. */
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opened;
static bool gate_is_open;

static void gate_run(void *const *args, const size_t global[3])
{
    (void)args;
    (void)global;
    uint64_t deadline_ns = umo_os_now_ns() + 10000 * MS;
    (void)pthread_mutex_lock(&gate_lock);
    while (!gate_is_open && umo_os_condition_wait_until(&gate_opened, &gate_lock, deadline_ns)) {
    }
    (void)pthread_mutex_unlock(&gate_lock);
}

static void gate_open(void)
{
    (void)pthread_mutex_lock(&gate_lock);
    gate_is_open = true;
    (void)pthread_cond_broadcast(&gate_opened);
    (void)pthread_mutex_unlock(&gate_lock);
}

static umo_fence gate_make(umo_device *device, uint32_t queue)
{
    static const umo_host_kernel kernels[] = {{"gate", gate_run}, {NULL, NULL}};
    umo_host_kernel *kernel = (umo_host_kernel *)(uintptr_t)kernels;
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence fence = {0};
    (void)pthread_mutex_lock(&gate_lock);
    gate_is_open = false;
    (void)pthread_mutex_unlock(&gate_lock);
    assert_int_equal(device->driver->kernel_launch(device->state, queue, kernel, NULL, 0, &grid,
                                                   NULL, 0, &fence, NULL),
                     UMO_OK);
    fence.device = device;
    fence.queue = queue;
    return fence;
}

/* A command that touches nothing, to have a fence that passes later. */
static umo_fence fence_make(umo_device *device, uint32_t queue)
{
    static char bytes[8];
    umo_fence fence = {0};
    umo_memory memory = {.native = bytes, .size_bytes = sizeof bytes};
    assert_int_equal(device->driver->transfer(device->state, queue, &memory, DEVICE, 0, 0, bytes,
                                              NULL, 0, &fence),
                     UMO_OK);
    fence.device = device;
    fence.queue = queue;
    return fence;
}

static void bad_uses_are_refused(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    const umo_access bad[] = {
        {.offset_bytes = 0, .size_bytes = SIZE + 1, .side = HOST, .use = UMO_READ},
        {.offset_bytes = SIZE, .size_bytes = 1, .side = HOST, .use = UMO_READ},
        {.offset_bytes = SIZE + 1, .size_bytes = 0, .side = HOST, .use = UMO_READ},
        {.offset_bytes = 1, .size_bytes = SIZE_MAX, .side = HOST, .use = UMO_READ},
        {.offset_bytes = SIZE_MAX, .size_bytes = 2, .side = HOST, .use = UMO_READ},
        {.size_bytes = 1, .side = (umo_side)0, .use = UMO_READ},
        {.size_bytes = 1, .side = (umo_side)3, .use = UMO_READ},
        {.size_bytes = 1, .side = HOST, .use = (umo_use)0},
        {.size_bytes = 1, .side = HOST, .use = (umo_use)4},
        {.size_bytes = 1, .side = DEVICE, .use = UMO_READ, .queue = 4},
        {.size_bytes = 1, .side = DEVICE, .use = UMO_READ, .queue = UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        umo_fence_set waits = {.count = 5};
        assert_int_equal(umo_access_begin(r.buffer, &bad[i], &waits), UMO_E_INVAL);
        assert_int_equal(waits.count, 0);
        assert_int_equal(umo_access_end(r.buffer, &bad[i], (umo_fence){0}),
                         bad[i].size_bytes == 0 ? UMO_OK : UMO_E_INVAL);
    }
    char bytes[4];
    umo_fence fence;
    assert_int_equal(umo_buffer_upload(r.buffer, SIZE - 3, bytes, 4, 0, &fence), UMO_E_INVAL);
    assert_int_equal(umo_buffer_download(r.buffer, 0, bytes, 4, 4, &fence), UMO_E_INVAL);
    rig_close(&r);
}

static void an_empty_range_touches_nothing(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    assert_int_equal(begin(&r, ACCESS(0, SIZE, HOST, UMO_WRITE)), UMO_OK);
    assert_bracket(&r, ACCESS(5, 0, DEVICE, UMO_WRITE));
    assert_bracket(&r, ACCESS(SIZE, 0, DEVICE, UMO_READ_WRITE));
    const char byte = 0;
    umo_fence fence = {.value = 9};
    assert_int_equal(umo_buffer_upload(r.buffer, 3, &byte, 0, 0, &fence), UMO_OK);
    assert_int_equal(fence.value, 0);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, 0), 0);
    assert_int_equal(umo_buffer_valid(r.buffer, SIZE, 1), 0);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE_MAX), 0);
    assert_int_equal(end(&r, ACCESS(0, SIZE, HOST, UMO_WRITE)), UMO_OK);
    rig_close(&r);
}

static void open_brackets_conflict_when_one_writes(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    const umo_use uses[] = {UMO_READ, UMO_WRITE, UMO_READ_WRITE};
    const umo_side sides[] = {HOST, DEVICE};
    const struct {
        size_t offset;
        size_t size;
        bool overlaps;
    } ranges[] = {{0, 100, false},   {0, 101, true},  {100, 1, true},  {150, 10, true},
                  {199, 1, true},    {200, 1, false}, {0, SIZE, true}, {199, 800, true},
                  {200, 800, false}, {99, 1, false}};
    for (int i = 0; i < 3 * 3 * 2 * 2; i++) {
        umo_use first = uses[i % 3];
        umo_use second = uses[i / 3 % 3];
        const umo_access *open = ACCESS(100, 100, sides[i / 9 % 2], first);
        assert_int_equal(begin(&r, open), UMO_OK);
        for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
            const umo_access *other =
                ACCESS(ranges[k].offset, ranges[k].size, sides[i / 18], second);
            bool busy = ranges[k].overlaps && ((first | second) & UMO_WRITE) != 0;
            assert_int_equal(begin(&r, other), busy ? UMO_E_BUSY : UMO_OK);
            if (!busy) {
                assert_int_equal(end(&r, other), UMO_OK);
            }
        }
        assert_int_equal(end(&r, open), UMO_OK);
    }
    rig_close(&r);
}

static void only_what_was_opened_is_closed_and_once(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    const umo_access *access = ACCESS(10, 20, HOST, UMO_READ);
    assert_int_equal(end(&r, access), UMO_E_INVAL);
    assert_int_equal(begin(&r, access), UMO_OK);
    assert_int_equal(begin(&r, access), UMO_OK); /* twice, by two readers */
    assert_int_equal(end(&r, ACCESS(10, 19, HOST, UMO_READ)), UMO_E_INVAL);
    assert_int_equal(end(&r, ACCESS(11, 20, HOST, UMO_READ)), UMO_E_INVAL);
    assert_int_equal(end(&r, ACCESS(10, 20, DEVICE, UMO_READ)), UMO_E_INVAL);
    assert_int_equal(end(&r, ACCESS(10, 20, HOST, UMO_WRITE)), UMO_E_INVAL);
    assert_int_equal(end(&r, access), UMO_OK);
    assert_int_equal(begin(&r, ACCESS(10, 1, HOST, UMO_WRITE)), UMO_E_BUSY); /* one is open */
    assert_int_equal(umo_access_abort(r.buffer, access, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_access_abort(r.buffer, access, (umo_fence){0}), UMO_E_INVAL);
    assert_bracket(&r, ACCESS(10, 1, HOST, UMO_WRITE));
    rig_close(&r);
}

static void an_ended_use_is_waited_for_where_it_conflicts(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 1);
    const umo_access *written = ACCESS(100, 100, DEVICE, UMO_WRITE);
    assert_int_equal(begin(&r, written), UMO_OK);
    umo_fence fence = gate_make(r.device, 2);
    assert_int_equal(umo_access_end(r.buffer, written, fence), UMO_OK);
    umo_fence_set waits;
    const umo_access *beside = ACCESS(0, 100, HOST, UMO_READ);
    assert_int_equal(umo_access_begin(r.buffer, beside, &waits), UMO_OK);
    assert_int_equal(waits.count, 0);
    const umo_access *inside = ACCESS(199, 1, HOST, UMO_READ);
    assert_int_equal(umo_access_begin(r.buffer, inside, &waits), UMO_OK);
    assert_int_equal(waits.count, 1);
    assert_true(waits.fences[0].device == fence.device && waits.fences[0].queue == 2 &&
                waits.fences[0].value == fence.value);
    assert_int_equal(umo_fence_set_wait(&waits, 0), UMO_E_TIMEOUT);
    assert_int_equal(umo_fence_set_wait(&waits, 1 * MS), UMO_E_TIMEOUT);
    assert_int_equal(waits.count, 1);
    gate_open();
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_int_equal(waits.count, 0);
    assert_int_equal(end(&r, inside), UMO_OK);
    assert_int_equal(end(&r, beside), UMO_OK);
    /* It has passed: nobody waits for it any more. */
    assert_int_equal(umo_access_begin(r.buffer, inside, &waits), UMO_OK);
    assert_int_equal(waits.count, 0);
    assert_int_equal(end(&r, inside), UMO_OK);
    rig_close(&r);
}

/* Readers end with fences of many devices and queues; a writer gets 16 of them to wait for and the
 * rest was waited for already. */
static void more_fences_than_a_set_holds_are_waited_for(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    enum {
        DEVICES = 6,
        READERS = 4 * DEVICES
    };
    umo_device *others[DEVICES];
    umo_fence fences[READERS];
    const umo_driver_options options = {.delay_ns = 5 * MS};
    for (size_t i = 0; i < DEVICES; i++) {
        others[i] = wrapper_device(NULL, &options);
        assert_non_null(others[i]);
    }
    const umo_access *read = ACCESS(0, SIZE, HOST, UMO_READ);
    for (size_t i = 0; i < READERS; i++) {
        assert_int_equal(begin(&r, read), UMO_OK);
    }
    for (size_t i = 0; i < READERS; i++) {
        fences[i] = fence_make(others[i / 4], (uint32_t)(i % 4));
        assert_int_equal(umo_access_end(r.buffer, read, fences[i]), UMO_OK);
    }
    const umo_access *write = ACCESS(0, SIZE, HOST, UMO_WRITE);
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(r.buffer, write, &waits), UMO_OK);
    assert_true(waits.count <= UMO_WAITS_MAX);
    size_t passed = 0;
    for (size_t i = 0; i < READERS; i++) {
        bool listed = false;
        for (size_t k = 0; k < waits.count; k++) {
            listed = listed || (waits.fences[k].device == fences[i].device &&
                                waits.fences[k].queue == fences[i].queue &&
                                waits.fences[k].value >= fences[i].value);
        }
        assert_true(listed || umo_fence_done(fences[i]));
        passed += listed ? 0 : 1;
    }
    assert_true(passed >= READERS - UMO_WAITS_MAX);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    for (size_t i = 0; i < READERS; i++) {
        assert_true(umo_fence_done(fences[i]));
    }
    assert_int_equal(end(&r, write), UMO_OK);
    for (size_t i = 0; i < DEVICES; i++) {
        umo_device_release(others[i]);
    }
    rig_close(&r);
}

typedef struct opening {
    const rig *rig;
    const umo_access *access;
    umo_status status;
    _Atomic bool done;
} opening;

static void *opening_main(void *argument)
{
    opening *o = argument;
    umo_fence_set waits;
    o->status = umo_access_begin(o->rig->buffer, o->access, &waits);
    atomic_store(&o->done, true);
    return NULL;
}

/* A bracket that has to wait for fences of other devices before it can be opened: a set that would
 * be full, or a transfer, whose device cannot wait for them. The buffer is not locked meanwhile. */
static void what_waits_before_it_opens_locks_nobody_out(void **state)
{
    (void)state;
    enum {
        DEVICES = 5
    };
    for (int transfers = 0; transfers < 2; transfers++) {
        rig r = rig_open(transfers ? UMO_MANAGED : UMO_UNIFIED, NULL, 1);
        umo_device *others[DEVICES];
        uint64_t start = umo_os_now_ns();
        assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_WRITE));
        const umo_access *read = ACCESS(0, 10, HOST, UMO_READ);
        size_t readers = transfers ? 1 : 4 * DEVICES;
        for (size_t i = 0; i < DEVICES; i++) {
            others[i] = wrapper_device(NULL, &(const umo_driver_options){.delay_ns = 1});
            assert_non_null(others[i]);
        }
        for (size_t i = 0; i < readers; i++) {
            assert_int_equal(begin(&r, read), UMO_OK);
            umo_fence fence = gate_make(others[i / 4], (uint32_t)(i % 4));
            assert_int_equal(umo_access_end(r.buffer, read, fence), UMO_OK);
        }
        opening o = {.rig = &r,
                     .access = transfers ? ACCESS(0, SIZE, DEVICE, UMO_READ)
                                         : ACCESS(0, SIZE, HOST, UMO_WRITE)};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, opening_main, &o), 0);
        (void)nanosleep(&(const struct timespec){.tv_nsec = (long)(20 * MS)}, NULL);
        assert_false(o.done);
        assert_bracket(&r, ACCESS(SIZE - 10, 10, HOST, UMO_READ));
        assert_false(o.done);
        assert_true(umo_os_now_ns() - start < 5000 * MS);
        gate_open();
        (void)pthread_join(thread, NULL);
        assert_int_equal(o.status, UMO_OK);
        assert_int_equal(end(&r, o.access), UMO_OK);
        for (size_t i = 0; i < DEVICES; i++) {
            umo_device_release(others[i]);
        }
        rig_close(&r);
    }
}

static void *gate_open_later(void *argument)
{
    (void)argument;
    const struct timespec pause = {.tv_nsec = 5000000};
    (void)nanosleep(&pause, NULL);
    gate_open();
    return NULL;
}

static void deleted(void *data, void *user)
{
    *(bool *)user = umo_fence_done(*(umo_fence *)data);
}

/* The one that was used last may have passed already: release waits for all of them. */
static void release_waits_for_every_use(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    const umo_driver_options options = {.delay_ns = 1};
    umo_device *other = wrapper_device(NULL, &options);
    assert_non_null(other);
    for (int order = 0; order < 2; order++) {
        umo_fence fence = {0};
        bool passed = false;
        const umo_import import = {.data = &fence,
                                   .size_bytes = sizeof fence,
                                   .writable = true,
                                   .deleter = deleted,
                                   .user = &passed};
        umo_buffer *mine = NULL;
        assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &mine, NULL, NULL), UMO_OK);
        const umo_access *uses[] = {ACCESS(0, 4, DEVICE, UMO_READ), ACCESS(4, 4, HOST, UMO_READ)};
        umo_fence_set waits;
        fence = gate_make(other, 1);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(umo_access_begin(mine, uses[i], &waits), UMO_OK);
        }
        for (int i = 0; i < 2; i++) {
            const umo_access *use = uses[(i + order) % 2];
            assert_int_equal(
                umo_access_end(mine, use, i == order ? fence : fence_make(r.device, 0)), UMO_OK);
        }
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, gate_open_later, NULL), 0);
        umo_buffer_release(mine);
        assert_true(passed);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    umo_device_release(other);
    rig_close(&r);
}

static void a_kept_fence_keeps_its_device(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    const umo_driver_options options = {.delay_ns = 1};
    umo_device *other = wrapper_device(NULL, &options);
    assert_non_null(other);
    const umo_access *reads[] = {ACCESS(0, 4, DEVICE, UMO_READ), ACCESS(4, 4, DEVICE, UMO_READ)};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(begin(&r, reads[i]), UMO_OK);
        assert_int_equal(umo_access_end(r.buffer, reads[i], fence_make(other, 2)), UMO_OK);
    }
    umo_device_release(other);
    assert_bracket(&r, ACCESS(0, 1, HOST, UMO_WRITE));
    rig_close(&r);
}

static void a_set_raises_and_ends_at_its_room(void **state)
{
    (void)state;
    umo_fence_set set = {0};
    struct umo_device *device = (struct umo_device *)0x1000; /* compared, never followed */
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 1, 0}));
    assert_int_equal(set.count, 0);
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 1, 7}));
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 1, 5}));
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 2, 5}));
    assert_int_equal(set.count, 2);
    assert_int_equal(set.fences[0].value, 7);
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 1, 9}));
    assert_int_equal(set.fences[0].value, 9);
    for (uint32_t i = 3; i < UMO_WAITS_MAX + 1; i++) {
        assert_true(umo_fence_set_add(&set, (umo_fence){device, i, 1}));
    }
    assert_int_equal(set.count, UMO_WAITS_MAX);
    assert_false(umo_fence_set_add(&set, (umo_fence){device, 99, 1}));
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 3, 100}));
    assert_true(umo_fence_set_add(&set, (umo_fence){device, 99, 0}));
    assert_int_equal(set.count, UMO_WAITS_MAX);
}

static void a_failure_does_not_hide_what_is_pending(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 1);
    wrapper.bad_queue = 0;
    wrapper.bad_value = 1;
    umo_fence_set set = {0};
    umo_fence failed = fence_make(r.device, 0);
    assert_int_equal(umo_fence_wait(failed, UINT64_MAX), UMO_E_DEVICE);
    assert_true(umo_fence_set_add(&set, failed));
    assert_true(umo_fence_set_add(&set, gate_make(r.device, 1)));
    assert_int_equal(umo_fence_set_wait(&set, 1 * MS), UMO_E_TIMEOUT);
    assert_int_equal(set.count, 2);
    gate_open();
    assert_int_equal(umo_fence_set_wait(&set, UINT64_MAX), UMO_E_DEVICE);
    assert_int_equal(set.count, 0);
    rig_close(&r);
}

static void undefined_bytes_are_not_transferred(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    uint64_t before = wrapper_calls.transfer;
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_READ));
    assert_int_equal(wrapper_calls.transfer, before);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), 0);
    assert_bracket(&r, ACCESS(100, 100, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
    assert_int_equal(wrapper_calls.transfer, before + 1); /* of the 100 bytes alone */
    umo_counters c;
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].bytes, 100);
    /* Writing alone brings nothing. */
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_WRITE));
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].bytes, 100);
    rig_close(&r);
}

static void an_aborted_write_is_valid_nowhere(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
    const umo_access *write = ACCESS(200, 100, DEVICE, UMO_READ_WRITE);
    assert_int_equal(begin(&r, write), UMO_OK);
    assert_int_equal(umo_access_abort(r.buffer, write, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_buffer_valid(r.buffer, 200, 100), 0);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, 200), HOST | DEVICE);
    assert_int_equal(umo_buffer_valid(r.buffer, 300, SIZE - 300), HOST | DEVICE);
    const umo_access *read = ACCESS(0, 100, DEVICE, UMO_READ);
    assert_int_equal(begin(&r, read), UMO_OK);
    assert_int_equal(umo_access_abort(r.buffer, read, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, 100), HOST | DEVICE);
    rig_close(&r);
}

/* Every other byte valid on the host: as many ranges as bytes, one transfer each. */
static void many_ranges_are_kept_apart(void **state)
{
    (void)state;
    for (int delayed = 0; delayed < 2; delayed++) {
        rig r = rig_open(UMO_PRIVATE, NULL, delayed != 0 ? 1000 : 0);
        for (size_t i = 0; i < SIZE; i += 2) {
            const umo_access *byte = ACCESS(i, 1, HOST, UMO_WRITE);
            assert_int_equal(begin(&r, byte), UMO_OK);
            ((unsigned char *)umo_buffer_host(r.buffer))[i] = (unsigned char)i;
            assert_int_equal(end(&r, byte), UMO_OK);
        }
        uint64_t before = wrapper_calls.transfer;
        assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
        assert_int_equal(wrapper_calls.transfer, before + SIZE / 2);
        unsigned char back[SIZE] = {0};
        umo_fence fence;
        assert_int_equal(umo_buffer_download(r.buffer, 0, back, SIZE, 1, &fence), UMO_OK);
        assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
        for (size_t i = 0; i < SIZE; i += 2) {
            assert_int_equal(back[i], (unsigned char)i);
        }
        rig_close(&r);
    }
}

static void private_memory_has_no_host_side_until_it_is_used(void **state)
{
    (void)state;
    rig r = rig_open(UMO_PRIVATE, NULL, 0);
    assert_null(umo_buffer_host(r.buffer));
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_WRITE));
    assert_null(umo_buffer_host(r.buffer));
    assert_bracket(&r, ACCESS(0, 1, HOST, UMO_READ));
    assert_non_null(umo_buffer_host(r.buffer));
    rig_close(&r);
}

/* The host's side of private memory is memory too: it counts, and a limit holds for it. */
static void the_host_side_of_private_memory_is_charged(void **state)
{
    (void)state;
    rig r = rig_open(UMO_PRIVATE, NULL, 0);
    umo_scope *tight = NULL;
    umo_buffer *mine = r.buffer;
    assert_int_equal(umo_scope_create(r.scope, "tight", SIZE + SIZE / 2, &tight, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(r.device, tight, SIZE, UMO_PRIVATE, &r.buffer, NULL), UMO_OK);
    assert_int_equal(begin(&r, ACCESS(0, 1, HOST, UMO_WRITE)), UMO_E_LIMIT);
    umo_counters c;
    umo_scope_read(tight, &c);
    assert_int_equal(c.live_bytes, SIZE);
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_WRITE)); /* none is open, nothing is broken */
    umo_buffer_release(r.buffer);
    r.buffer = mine;
    assert_bracket(&r, ACCESS(0, 1, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(1, 1, HOST, UMO_WRITE));
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.live_bytes, 2 * SIZE);
    umo_scope_destroy(tight);
    rig_close(&r);
}

static void a_read_only_import_is_not_written(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    unsigned char bytes[10] = {0};
    const umo_import import = {.data = bytes, .size_bytes = sizeof bytes};
    umo_buffer *mine = r.buffer;
    assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &r.buffer, NULL, NULL), UMO_OK);
    assert_int_equal(begin(&r, ACCESS(0, 10, DEVICE, UMO_WRITE)), UMO_E_INVAL);
    assert_int_equal(begin(&r, ACCESS(0, 10, HOST, UMO_READ_WRITE)), UMO_E_INVAL);
    umo_fence fence;
    assert_int_equal(umo_buffer_upload(r.buffer, 0, "x", 1, 0, &fence), UMO_E_INVAL);
    assert_bracket(&r, ACCESS(0, 10, DEVICE, UMO_READ));
    umo_buffer_release(r.buffer);
    r.buffer = mine;
    rig_close(&r);
}

static void a_transfer_is_counted_where_it_was_caused(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    umo_scope *user = NULL;
    assert_int_equal(umo_scope_create(NULL, "user", 0, &user, NULL), UMO_OK);
    umo_access access = {.size_bytes = SIZE, .side = DEVICE, .use = UMO_READ, .scope = user};
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_WRITE));
    assert_bracket(&r, &access);
    umo_counters c;
    umo_scope_read(user, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].bytes, SIZE);
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].bytes, 0);
    umo_scope_destroy(user);
    rig_close(&r);
}

/* ---- failures ---- */

static const char *failing;

static bool fails_named(const char *entry)
{
    return failing != NULL && strcmp(entry, failing) == 0;
}

static void a_failed_transfer_leaves_the_bytes_where_they_are(void **state)
{
    (void)state;
    const wrapper_switches switches = {.fails = fails_named};
    rig r = rig_open(UMO_MANAGED, &switches, 0);
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_WRITE));
    failing = "transfer";
    assert_int_equal(begin(&r, ACCESS(0, SIZE, DEVICE, UMO_READ)), UMO_E_DEVICE);
    char bytes[10];
    umo_fence fence;
    assert_int_equal(umo_buffer_download(r.buffer, 0, bytes, 10, 0, &fence), UMO_E_DEVICE);
    failing = NULL;
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), HOST);
    umo_counters c;
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].events, 0);
    /* No bracket stayed open. */
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), HOST | DEVICE);
    failing = "transfer";
    assert_int_equal(umo_buffer_upload(r.buffer, 0, bytes, 10, 0, &fence), UMO_E_DEVICE);
    failing = NULL;
    assert_int_equal(umo_buffer_valid(r.buffer, 0, 10), 0);
    assert_int_equal(umo_buffer_valid(r.buffer, 10, SIZE - 10), HOST | DEVICE);
    rig_close(&r);
}

static void a_failed_publish_is_asked_for_again(void **state)
{
    (void)state;
    const wrapper_switches switches = {.fails = fails_named, .apart = true};
    rig r = rig_open(UMO_UNIFIED, &switches, 0);
    assert_int_equal(begin(&r, ACCESS(0, SIZE, HOST, UMO_WRITE)), UMO_OK);
    memset(umo_buffer_host(r.buffer), 0x77, SIZE);
    assert_int_equal(end(&r, ACCESS(0, SIZE, HOST, UMO_WRITE)), UMO_OK);
    failing = "publish";
    assert_int_equal(begin(&r, ACCESS(0, SIZE, DEVICE, UMO_READ)), UMO_E_DEVICE);
    failing = NULL;
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), HOST);
    uint64_t before = wrapper_calls.publish;
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
    assert_int_equal(wrapper_calls.publish, before + 1);
    assert_int_equal(((unsigned char *)umo_buffer_memory(r.buffer)->native)[SIZE - 1], 0x77);
    umo_counters c;
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_eliminated[UMO_DIRECTION_IN].events, 1);
    /* Bytes that both sides have need no publish to be read. */
    assert_bracket(&r, ACCESS(0, SIZE, DEVICE, UMO_READ));
    assert_bracket(&r, ACCESS(0, SIZE, HOST, UMO_READ));
    assert_int_equal(wrapper_calls.publish, before + 1);
    /* To be written they do: the other side loses them. */
    assert_bracket(&r, ACCESS(0, 10, HOST, UMO_WRITE));
    assert_int_equal(wrapper_calls.publish, before + 2);
    rig_close(&r);
}

/* Publishing what the host wrote last back from the device would bring the old bytes. */
static void publish_takes_only_what_is_missing(void **state)
{
    (void)state;
    const wrapper_switches switches = {.apart = true};
    rig r = rig_open(UMO_UNIFIED, &switches, 0);
    assert_bracket(&r, ACCESS(100, 100, DEVICE, UMO_WRITE));
    const umo_access *mine = ACCESS(0, 100, HOST, UMO_WRITE);
    assert_int_equal(begin(&r, mine), UMO_OK);
    memset(umo_buffer_host(r.buffer), 0x42, 100);
    assert_int_equal(end(&r, mine), UMO_OK);
    const umo_access *both = ACCESS(0, 200, HOST, UMO_READ);
    assert_int_equal(begin(&r, both), UMO_OK);
    const unsigned char *bytes = umo_buffer_host(r.buffer);
    assert_int_equal(bytes[0], 0x42);
    assert_int_equal(bytes[99], 0x42);
    assert_int_equal(bytes[100], 0xA5); /* the device's */
    assert_int_equal(end(&r, both), UMO_OK);
    rig_close(&r);
}

/* A device write fails after its bracket ended: nobody may take its bytes for good. */
static void bytes_whose_writer_failed_cannot_be_read(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 1 * MS);
    const umo_access *write = ACCESS(100, 100, DEVICE, UMO_WRITE);
    assert_int_equal(begin(&r, write), UMO_OK);
    umo_fence fence = fence_make(r.device, 3);
    wrapper.bad_queue = 3;
    wrapper.bad_value = fence.value;
    assert_int_equal(umo_access_end(r.buffer, write, fence), UMO_OK);
    assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_E_DEVICE);
    /* Somebody who is not concerned comes first and hears nothing. */
    assert_bracket(&r, ACCESS(0, 100, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(0, 100, DEVICE, UMO_READ));
    for (int again = 0; again < 2; again++) {
        assert_int_equal(begin(&r, ACCESS(150, 1, HOST, UMO_READ)), UMO_E_DEVICE);
        assert_int_equal(begin(&r, ACCESS(0, SIZE, DEVICE, UMO_READ)), UMO_E_DEVICE);
        assert_int_equal(begin(&r, ACCESS(199, 10, DEVICE, UMO_READ_WRITE)), UMO_E_DEVICE);
    }
    assert_int_equal(umo_buffer_valid(r.buffer, 100, 100), 0);
    assert_bracket(&r, ACCESS(0, 100, HOST, UMO_READ));
    assert_bracket(&r, ACCESS(200, 100, HOST, UMO_READ));
    /* Writing them anew heals them. */
    assert_bracket(&r, ACCESS(100, 50, HOST, UMO_WRITE));
    assert_bracket(&r, ACCESS(0, 150, DEVICE, UMO_READ));
    assert_int_equal(begin(&r, ACCESS(149, 2, HOST, UMO_READ)), UMO_E_DEVICE);
    rig_close(&r);
}

/* A transfer that was queued and failed later: the bytes are still where they were. */
static void a_transfer_that_fails_later_is_made_again(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 1 * MS);
    const umo_access *write = ACCESS(0, SIZE, HOST, UMO_WRITE);
    assert_int_equal(begin(&r, write), UMO_OK);
    memset(umo_buffer_host(r.buffer), 0x31, SIZE);
    assert_int_equal(end(&r, write), UMO_OK);
    const umo_access *read = ACCESS(0, SIZE, DEVICE, UMO_READ);
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(r.buffer, read, &waits), UMO_OK);
    assert_int_equal(waits.count, 1);
    wrapper.bad_queue = waits.fences[0].queue;
    wrapper.bad_value = waits.fences[0].value;
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_E_DEVICE);
    assert_int_equal(umo_access_abort(r.buffer, read, (umo_fence){0}), UMO_OK);
    uint64_t before = wrapper_calls.transfer;
    assert_bracket(&r, read);
    assert_int_equal(wrapper_calls.transfer, before + 1);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), HOST | DEVICE);
    assert_int_equal(((unsigned char *)umo_buffer_memory(r.buffer)->native)[SIZE - 1], 0x31);
    rig_close(&r);
}

int main(void)
{
    umo_os_condition_init(&gate_opened);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_uses_are_refused),
        cmocka_unit_test(an_empty_range_touches_nothing),
        cmocka_unit_test(open_brackets_conflict_when_one_writes),
        cmocka_unit_test(only_what_was_opened_is_closed_and_once),
        cmocka_unit_test(an_ended_use_is_waited_for_where_it_conflicts),
        cmocka_unit_test(more_fences_than_a_set_holds_are_waited_for),
        cmocka_unit_test(what_waits_before_it_opens_locks_nobody_out),
        cmocka_unit_test(release_waits_for_every_use),
        cmocka_unit_test(a_kept_fence_keeps_its_device),
        cmocka_unit_test(a_set_raises_and_ends_at_its_room),
        cmocka_unit_test(a_failure_does_not_hide_what_is_pending),
        cmocka_unit_test(undefined_bytes_are_not_transferred),
        cmocka_unit_test(an_aborted_write_is_valid_nowhere),
        cmocka_unit_test(many_ranges_are_kept_apart),
        cmocka_unit_test(private_memory_has_no_host_side_until_it_is_used),
        cmocka_unit_test(the_host_side_of_private_memory_is_charged),
        cmocka_unit_test(a_read_only_import_is_not_written),
        cmocka_unit_test(a_transfer_is_counted_where_it_was_caused),
        cmocka_unit_test(a_failed_transfer_leaves_the_bytes_where_they_are),
        cmocka_unit_test(a_failed_publish_is_asked_for_again),
        cmocka_unit_test(publish_takes_only_what_is_missing),
        cmocka_unit_test(bytes_whose_writer_failed_cannot_be_read),
        cmocka_unit_test(a_transfer_that_fails_later_is_made_again),
    };
    return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
