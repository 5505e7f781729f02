/*
 * Moves one by one: what stays, what is charged, what keeps a move from starting, and what waits
 * for it. access_model_test.c has the random counterpart, migrate_fault_test.c what fails in the
 * middle.
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
    SIZE = 20000,
    PART = 5000
};

#define MS UINT64_C(1000000)
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

static rig rig_open(umo_storage_mode mode, const wrapper_switches *switches, uint64_t limit_bytes)
{
    rig r = {0};
    const umo_driver_options options = {.delay_ns = 10000, .test_mode = true};
    r.device = wrapper_device(switches, &options);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "moves", limit_bytes, &r.scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, SIZE, mode, &r.buffer, NULL),
                     UMO_OK);
    return r;
}

static umo_counters rig_counters(const rig *r)
{
    umo_counters c;
    umo_scope_read(r->scope, &c);
    return c;
}

static void rig_close(rig *r)
{
    wrapper = (wrapper_switches){0};
    umo_buffer_release(r->buffer);
    umo_counters c = rig_counters(r);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    assert_int_equal(wrapper_calls.live, 0);
    umo_device_release(r->device);
    umo_scope_destroy(r->scope);
}

static void begin(const rig *r, const umo_access *access)
{
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(r->buffer, access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
}

static void end(const rig *r, const umo_access *access)
{
    assert_int_equal(umo_access_end(r->buffer, access, (umo_fence){0}), UMO_OK);
}

/* The bytes that a side works on. */
static unsigned char *side_bytes(const rig *r, umo_side side)
{
    return side == HOST ? umo_buffer_host(r->buffer)
                        : (unsigned char *)umo_buffer_memory(r->buffer)->native +
                              umo_buffer_memory_offset(r->buffer);
}

static void fill(const rig *r, size_t offset, size_t size, umo_side side, int value)
{
    const umo_access *write = ACCESS(offset, size, side, UMO_WRITE);
    begin(r, write);
    memset(side_bytes(r, side) + offset, value, size);
    end(r, write);
}

static void expect(const rig *r, size_t offset, size_t size, umo_side side, int value)
{
    const umo_access *read = ACCESS(offset, size, side, UMO_READ);
    begin(r, read);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(side_bytes(r, side)[offset + i], value);
    }
    end(r, read);
}

static void move(const rig *r, umo_storage_mode mode)
{
    umo_error error = {0};
    umo_status status = umo_buffer_move(r->buffer, mode, 0, &error);
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(status, UMO_OK);
    assert_int_equal(umo_buffer_mode(r->buffer), mode);
}

static const wrapper_switches devices[] = {{0}, {.apart = true}};

/* One range written by each side, one read back by the host, one that nobody wrote. */
static void a_move_keeps_bytes_and_address(void **state)
{
    (void)state;
    for (size_t d = 0; d < 2; d++) {
        for (int pair = 0; pair < UMO_STORAGE_MODES * UMO_STORAGE_MODES; pair++) {
            umo_storage_mode to = (umo_storage_mode)(pair % UMO_STORAGE_MODES);
            rig r = rig_open((umo_storage_mode)(pair / UMO_STORAGE_MODES), &devices[d], 0);
            void *host = umo_buffer_host(r.buffer);
            const umo_memory *memory = umo_buffer_memory(r.buffer);
            fill(&r, 0, PART, HOST, 1);
            fill(&r, PART, PART, DEVICE, 2);
            fill(&r, (size_t)2 * PART, PART, DEVICE, 3);
            expect(&r, (size_t)2 * PART, PART, HOST, 3);
            move(&r, to);
            assert_ptr_equal(umo_buffer_host(r.buffer), host);
            assert_ptr_equal(umo_buffer_memory(r.buffer), memory);
            for (size_t i = 0; i < 3; i++) {
                assert_int_not_equal(umo_buffer_valid(r.buffer, i * PART, PART), 0);
                expect(&r, i * PART, PART, i == 1 ? HOST : DEVICE, (int)i + 1);
                expect(&r, i * PART, PART, i == 1 ? DEVICE : HOST, (int)i + 1);
            }
            assert_int_equal(umo_buffer_valid(r.buffer, (size_t)3 * PART, PART), 0);
            rig_close(&r);
        }
    }
}

static void a_side_that_held_bytes_still_holds_them(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    fill(&r, 0, SIZE, DEVICE, 9);
    move(&r, UMO_MANAGED);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), HOST | DEVICE);
    umo_counters before = rig_counters(&r);
    expect(&r, 0, SIZE, DEVICE, 9);
    assert_int_equal(rig_counters(&r).transfer_performed[UMO_DIRECTION_IN].events,
                     before.transfer_performed[UMO_DIRECTION_IN].events);
    move(&r, UMO_UNIFIED);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, SIZE), HOST | DEVICE);
    rig_close(&r);
}

static void what_nobody_wrote_is_not_moved(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    uint64_t transfers = wrapper_calls.transfer;
    move(&r, UMO_PRIVATE);
    move(&r, UMO_MANAGED);
    move(&r, UMO_UNIFIED);
    assert_int_equal(wrapper_calls.transfer, transfers);
    fill(&r, 100, 50, HOST, 1);
    move(&r, UMO_PRIVATE);
    umo_counters c = rig_counters(&r);
    assert_int_equal(wrapper_calls.transfer, transfers + 1);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].bytes, 50);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_OUT].bytes, 0);
    assert_int_equal(c.moves.events, 4);
    assert_int_equal(c.moves.bytes, 4 * SIZE);
    /* To where it is already. */
    move(&r, UMO_PRIVATE);
    assert_int_equal(rig_counters(&r).moves.events, 4);
    rig_close(&r);
}

/* A command whose result is a failure leaves bytes that no mode can bring back. */
static void bytes_that_failed_stay_failed(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    fill(&r, 0, SIZE, HOST, 5);
    unsigned char source[PART];
    memset(source, 7, sizeof source);
    umo_fence done;
    assert_int_equal(umo_buffer_upload(r.buffer, 0, source, PART, 1, &done), UMO_OK);
    wrapper.bad_queue = 1;
    wrapper.bad_value = done.value;
    const umo_storage_mode tour[] = {UMO_PRIVATE, UMO_UNIFIED, UMO_MANAGED, UMO_UNIFIED,
                                     UMO_PRIVATE};
    for (size_t i = 0; i < sizeof tour / sizeof tour[0]; i++) {
        move(&r, tour[i]);
        umo_fence_set waits;
        assert_int_equal(umo_access_begin(r.buffer, ACCESS(0, PART, HOST, UMO_READ), &waits),
                         UMO_E_DEVICE);
        assert_int_equal(umo_access_begin(r.buffer, ACCESS(0, PART, DEVICE, UMO_READ), &waits),
                         UMO_E_DEVICE);
        assert_int_equal(umo_buffer_valid(r.buffer, 0, PART) & 3u, 0);
        expect(&r, PART, SIZE - PART, HOST, 5);
    }
    fill(&r, 0, PART, HOST, 8);
    expect(&r, 0, PART, DEVICE, 8);
    rig_close(&r);
}

static void each_mode_is_charged_what_it_holds(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    assert_int_equal(rig_counters(&r).live_bytes, SIZE);
    move(&r, UMO_MANAGED);
    assert_int_equal(rig_counters(&r).live_bytes, 2 * SIZE);
    move(&r, UMO_PRIVATE);
    assert_int_equal(rig_counters(&r).live_bytes, SIZE);
    fill(&r, 0, 1, HOST, 1);
    assert_int_equal(rig_counters(&r).live_bytes, 2 * SIZE);
    /* Gives the host side back. */
    move(&r, UMO_PRIVATE);
    assert_int_equal(rig_counters(&r).live_bytes, SIZE);
    assert_int_equal(umo_buffer_valid(r.buffer, 0, 1), DEVICE);
    expect(&r, 0, 1, HOST, 1);
    move(&r, UMO_UNIFIED);
    assert_int_equal(rig_counters(&r).live_bytes, SIZE);
    assert_int_equal(rig_counters(&r).peak_bytes, 2 * SIZE);
    rig_close(&r);
}

/* While it moves both memories exist. */
static void a_move_beyond_the_budget_moves_nothing(void **state)
{
    (void)state;
    const umo_storage_mode from[] = {UMO_UNIFIED, UMO_UNIFIED, UMO_PRIVATE, UMO_PRIVATE};
    const umo_storage_mode to[] = {UMO_MANAGED, UMO_PRIVATE, UMO_UNIFIED, UMO_MANAGED};
    for (size_t i = 0; i < 4; i++) {
        rig r = rig_open(from[i], NULL, SIZE * 2 - 1);
        umo_side side = from[i] == UMO_UNIFIED ? HOST : DEVICE;
        fill(&r, 0, SIZE, side, 4);
        umo_counters before = rig_counters(&r);
        umo_error error = {0};
        assert_int_equal(umo_buffer_move(r.buffer, to[i], UINT64_MAX, &error), UMO_E_LIMIT);
        assert_non_null(strstr(error.text, "budget of 'moves'"));
        umo_counters after = rig_counters(&r);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(umo_buffer_mode(r.buffer), from[i]);
        expect(&r, 0, SIZE, side, 4);
        rig_close(&r);
    }
    /* Nor is such memory made. */
    umo_device *device = wrapper_device(NULL, NULL);
    umo_scope *scope = NULL;
    umo_buffer *none = NULL;
    assert_int_equal(umo_scope_create(NULL, "moves", SIZE * 2 - 1, &scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc_movable(device, scope, SIZE, UMO_MANAGED, &none, NULL),
                     UMO_E_LIMIT);
    assert_null(none);
    umo_counters c;
    umo_scope_read(scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(scope);
    umo_device_release(device);
}

/* Nothing lies behind the address, but it is nobody else's. */
static void the_address_stays_ours_when_nothing_lies_there(void **state)
{
    (void)state;
    rig r = rig_open(UMO_UNIFIED, NULL, 0);
    fill(&r, 0, SIZE, HOST, 6);
    char *host = umo_buffer_host(r.buffer);
    move(&r, UMO_PRIVATE);
    umo_mapping mapping;
    umo_status status = umo_os_mapping_query(host, &mapping);
    if (status != UMO_E_UNSUPPORTED) {
        assert_int_equal(status, UMO_OK);
        assert_false(mapping.readable);
        assert_false(mapping.writable);
        assert_true(mapping.end - (uintptr_t)host >= SIZE);
    }
    void *others[64];
    for (size_t i = 0; i < 64; i++) {
        others[i] = umo_os_pages_alloc(SIZE);
        assert_true((char *)others[i] + SIZE <= host || (char *)others[i] >= host + SIZE);
    }
    for (size_t i = 0; i < 64; i++) {
        umo_os_pages_free(others[i], SIZE);
    }
    expect(&r, 0, SIZE, HOST, 6);
    rig_close(&r);
}

static void what_a_device_cannot_is_unsupported(void **state)
{
    (void)state;
    static const struct {
        wrapper_switches switches;
        uint32_t modes;
    } cases[] = {
        {{.caps_off = UMO_CAP_IMPORT_WRITE}, 1u << UMO_MANAGED | 1u << UMO_PRIVATE},
        {{.caps_off = UMO_CAP_IMPORT_READ}, 1u << UMO_MANAGED | 1u << UMO_PRIVATE},
        {{.import_align_bytes = (size_t)1 << 30}, 1u << UMO_MANAGED | 1u << UMO_PRIVATE},
        {{.caps_off = UMO_CAP_PRIVATE}, 1u << UMO_UNIFIED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        umo_storage_mode start =
            (cases[i].modes & 1u << UMO_UNIFIED) != 0 ? UMO_UNIFIED : UMO_MANAGED;
        rig r = rig_open(start, &cases[i].switches, 0);
        assert_int_equal(umo_buffer_modes(r.buffer), cases[i].modes);
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            umo_error error = {0};
            umo_buffer *made = NULL;
            bool can = (cases[i].modes & 1u << mode) != 0;
            assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, SIZE,
                                                      (umo_storage_mode)mode, &made, &error),
                             can ? UMO_OK : UMO_E_UNSUPPORTED);
            umo_buffer_release(made);
            assert_int_equal(umo_buffer_move(r.buffer, (umo_storage_mode)mode, 0, &error),
                             can ? UMO_OK : UMO_E_UNSUPPORTED);
            assert_true(can || strstr(error.text, "UNIFIED") != NULL ||
                        strstr(error.text, "PRIVATE") != NULL);
        }
        rig_close(&r);
    }
    /* Imports that lie elsewhere: the address could not stay. */
    rig r = rig_open(UMO_PRIVATE, &(const wrapper_switches){.elsewhere = true}, 0);
    fill(&r, 0, SIZE, DEVICE, 2);
    assert_int_equal(umo_buffer_move(r.buffer, UMO_UNIFIED, 0, NULL), UMO_E_UNSUPPORTED);
    assert_int_equal(rig_counters(&r).live_bytes, SIZE);
    expect(&r, 0, SIZE, DEVICE, 2);
    rig_close(&r);
    /* The pages around it are longer than the device takes. */
    r = rig_open(UMO_PRIVATE, &(const wrapper_switches){.buffer_max_bytes = SIZE}, 0);
    assert_int_equal(umo_buffer_move(r.buffer, UMO_UNIFIED, 0, NULL), UMO_E_UNSUPPORTED);
    rig_close(&r);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    rig r = rig_open(UMO_PRIVATE, NULL, 0);
    umo_buffer *made = NULL;
    assert_int_equal(umo_buffer_move(r.buffer, (umo_storage_mode)3, 0, NULL), UMO_E_INVAL);
    assert_int_equal(umo_buffer_move(r.buffer, (umo_storage_mode)-1, 0, NULL), UMO_E_INVAL);
    const size_t sizes[] = {0, SIZE_MAX, SIZE_MAX - 1, ((size_t)1 << 46) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(
            umo_buffer_alloc_movable(r.device, r.scope, sizes[i], UMO_PRIVATE, &made, NULL),
            UMO_E_INVAL);
    }
    assert_int_equal(
        umo_buffer_alloc_movable(r.device, r.scope, 1, (umo_storage_mode)7, &made, NULL),
        UMO_E_INVAL);
    /* More addresses than there are. */
    assert_int_equal(
        umo_buffer_alloc_movable(r.device, r.scope, (size_t)1 << 46, UMO_PRIVATE, &made, NULL),
        UMO_E_NOMEM);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 1, UMO_MANAGED, &made, NULL), UMO_OK);
    assert_int_equal(umo_buffer_modes(made), 1u << UMO_MANAGED);
    assert_int_equal(umo_buffer_move(made, UMO_PRIVATE, 0, NULL), UMO_E_UNSUPPORTED);
    umo_buffer_release(made);
    rig_close(&r);
}

static void odd_lengths_are_imported_as_whole_ones(void **state)
{
    (void)state;
    rig r = rig_open(
        UMO_PRIVATE,
        &(const wrapper_switches){.import_align_bytes = 4096, .import_size_align_bytes = 65536}, 0);
    fill(&r, 0, SIZE, DEVICE, 3);
    move(&r, UMO_UNIFIED);
    assert_int_equal(umo_buffer_memory(r.buffer)->size_bytes % 65536, 0);
    assert_int_equal(umo_buffer_size(r.buffer), SIZE);
    expect(&r, 0, SIZE, HOST, 3);
    move(&r, UMO_PRIVATE);
    expect(&r, 0, SIZE, DEVICE, 3);
    rig_close(&r);
}

/* ---- moves and brackets at the same time ---- */

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

/* A use of the buffer that has ended and whose command runs until the gate is opened. */
static void pending_use(const rig *r)
{
    static const umo_host_kernel kernels[] = {{"gate", gate_run}, {NULL, NULL}};
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    const umo_access *write = ALL(DEVICE, UMO_READ_WRITE);
    umo_fence fence = {0};
    (void)pthread_mutex_lock(&gate_lock);
    gate_is_open = false;
    (void)pthread_mutex_unlock(&gate_lock);
    begin(r, write);
    assert_int_equal(r->device->driver->kernel_launch(r->device->state, 0,
                                                      (void *)(uintptr_t)kernels, NULL, 0, &grid,
                                                      NULL, 0, &fence, NULL),
                     UMO_OK);
    fence.device = r->device;
    assert_int_equal(umo_access_end(r->buffer, write, fence), UMO_OK);
}

typedef struct call {
    const rig *rig;
    void (*run)(struct call *c);
    umo_storage_mode mode;
    uint64_t timeout_ns;
    umo_status status;
    _Atomic bool done;
    pthread_t thread;
} call;

static void *call_main(void *argument)
{
    call *c = argument;
    c->run(c);
    atomic_store(&c->done, true);
    return NULL;
}

static void call_start(call *c)
{
    assert_int_equal(pthread_create(&c->thread, NULL, call_main, c), 0);
}

static void call_move(call *c)
{
    c->status = umo_buffer_move(c->rig->buffer, c->mode, c->timeout_ns, NULL);
}

static void call_bracket(call *c)
{
    umo_fence_set waits;
    const umo_access *read = ACCESS(PART, PART, HOST, UMO_READ);
    c->status = umo_access_begin(c->rig->buffer, read, &waits);
    if (c->status == UMO_OK) {
        c->status = umo_fence_set_wait(&waits, UINT64_MAX);
        umo_status_ignore(umo_access_end(c->rig->buffer, read, (umo_fence){0}));
    }
}

static void call_upload(call *c)
{
    unsigned char source[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    umo_fence fence = {0};
    c->status = umo_buffer_upload(c->rig->buffer, 0, source, sizeof source, 0, &fence);
    if (c->status == UMO_OK) {
        c->status = umo_fence_wait(fence, UINT64_MAX);
    }
}

static void call_pin(call *c)
{
    c->status = umo_buffer_pin(c->rig->buffer, NULL);
}

static void rest(void)
{
    (void)nanosleep(&(const struct timespec){.tv_nsec = (long)(20 * MS)}, NULL);
}

static void a_move_waits_for_pending_work_and_all_wait_for_the_move(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    fill(&r, 0, SIZE, HOST, 1);
    pending_use(&r);
    call mover = {.rig = &r, .run = call_move, .mode = UMO_UNIFIED};
    call others[] = {{.rig = &r, .run = call_bracket},
                     {.rig = &r, .run = call_upload},
                     {.rig = &r, .run = call_pin},
                     {.rig = &r, .run = call_move, .mode = UMO_MANAGED, .timeout_ns = 5 * MS}};
    call_start(&mover);
    rest();
    for (size_t i = 0; i < 4; i++) {
        call_start(&others[i]);
    }
    (void)pthread_join(others[3].thread, NULL);
    assert_int_equal(others[3].status, UMO_E_TIMEOUT);
    rest();
    assert_false(mover.done);
    assert_int_equal(umo_buffer_mode(r.buffer), UMO_MANAGED);
    for (size_t i = 0; i < 3; i++) {
        assert_false(others[i].done);
    }
    assert_int_equal(umo_buffer_move(r.buffer, UMO_PRIVATE, 0, NULL), UMO_E_BUSY);
    gate_open();
    (void)pthread_join(mover.thread, NULL);
    assert_int_equal(mover.status, UMO_OK);
    for (size_t i = 0; i < 3; i++) {
        (void)pthread_join(others[i].thread, NULL);
        assert_int_equal(others[i].status, UMO_OK);
    }
    assert_int_equal(umo_buffer_mode(r.buffer), UMO_UNIFIED);
    assert_int_equal(umo_buffer_unpin(r.buffer), UMO_OK);
    expect(&r, 0, SIZE, DEVICE, 1);
    rig_close(&r);
}

static void a_move_waits_for_brackets_but_locks_nobody_out(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    fill(&r, 0, SIZE, HOST, 1);
    const umo_access *first = ACCESS(0, 10, HOST, UMO_READ);
    const umo_access *second = ACCESS(10, 10, DEVICE, UMO_READ_WRITE);
    begin(&r, first);
    call brief = {.rig = &r, .run = call_move, .mode = UMO_UNIFIED, .timeout_ns = 5 * MS};
    call_start(&brief);
    (void)pthread_join(brief.thread, NULL);
    assert_int_equal(brief.status, UMO_E_TIMEOUT);
    call tried = {.rig = &r, .run = call_move, .mode = UMO_UNIFIED};
    call_start(&tried);
    (void)pthread_join(tried.thread, NULL);
    assert_int_equal(tried.status, UMO_E_BUSY);

    call mover = {.rig = &r, .run = call_move, .mode = UMO_UNIFIED, .timeout_ns = UINT64_MAX};
    call_start(&mover);
    rest();
    /* The thread that it waits for goes on: it may open another one. */
    begin(&r, second);
    end(&r, first);
    rest();
    assert_false(mover.done);
    assert_int_equal(umo_buffer_mode(r.buffer), UMO_MANAGED);
    end(&r, second);
    (void)pthread_join(mover.thread, NULL);
    assert_int_equal(mover.status, UMO_OK);
    expect(&r, 0, SIZE, HOST, 1);
    rig_close(&r);
}

/* It would wait for itself. */
static void a_thread_with_a_bracket_does_not_wait_for_it(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    begin(&r, ALL(HOST, UMO_WRITE));
    umo_error error = {0};
    assert_int_equal(umo_buffer_move(r.buffer, UMO_UNIFIED, UINT64_MAX, &error), UMO_E_BUSY);
    assert_non_null(strstr(error.text, "in use"));
    end(&r, ALL(HOST, UMO_WRITE));
    move(&r, UMO_UNIFIED);
    rig_close(&r);
}

static void *reads_as_well(void *user)
{
    const rig *r = user;
    begin(r, ALL(HOST, UMO_READ));
    end(r, ALL(HOST, UMO_READ));
    return NULL;
}

/* Two threads read alike, and the other one is through: what is left is not his. */
static void an_end_takes_the_bracket_of_its_own_thread(void **state)
{
    (void)state;
    rig r = rig_open(UMO_MANAGED, NULL, 0);
    begin(&r, ALL(HOST, UMO_READ));
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, reads_as_well, &r), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(umo_buffer_move(r.buffer, UMO_UNIFIED, 50 * MS, NULL), UMO_E_BUSY);
    end(&r, ALL(HOST, UMO_READ));
    rig_close(&r);
}

/* Memory that a launch has bound stays until the launch is through. */
static void the_old_memory_outlives_its_commands(void **state)
{
    (void)state;
    rig r = rig_open(UMO_PRIVATE, NULL, 0);
    fill(&r, 0, SIZE, DEVICE, 1);
    pending_use(&r);
    uint64_t freed = wrapper_calls.free;
    call mover = {.rig = &r, .run = call_move, .mode = UMO_UNIFIED};
    call_start(&mover);
    rest();
    assert_int_equal(wrapper_calls.free, freed);
    gate_open();
    (void)pthread_join(mover.thread, NULL);
    assert_int_equal(mover.status, UMO_OK);
    assert_int_equal(wrapper_calls.free, freed + 1);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_move_keeps_bytes_and_address),
        cmocka_unit_test(a_side_that_held_bytes_still_holds_them),
        cmocka_unit_test(what_nobody_wrote_is_not_moved),
        cmocka_unit_test(bytes_that_failed_stay_failed),
        cmocka_unit_test(each_mode_is_charged_what_it_holds),
        cmocka_unit_test(a_move_beyond_the_budget_moves_nothing),
        cmocka_unit_test(the_address_stays_ours_when_nothing_lies_there),
        cmocka_unit_test(what_a_device_cannot_is_unsupported),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(odd_lengths_are_imported_as_whole_ones),
        cmocka_unit_test(a_move_waits_for_pending_work_and_all_wait_for_the_move),
        cmocka_unit_test(a_move_waits_for_brackets_but_locks_nobody_out),
        cmocka_unit_test(a_thread_with_a_bracket_does_not_wait_for_it),
        cmocka_unit_test(an_end_takes_the_bracket_of_its_own_thread),
        cmocka_unit_test(the_old_memory_outlives_its_commands),
    };
    umo_os_condition_init(&gate_opened);
    return cmocka_run_group_tests_name("migrate", tests, NULL, NULL);
}
