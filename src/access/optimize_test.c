/*
 * The placer: buffers that follow their use, on a device whose costs are given to it by a file,
 * since the host's own would have everything stay in one memory.
 */
#include "driver/wrapper_test.h"

#include "access/calibration.h"
#include "access/folder_test.h"
#include "access/traces_test.h"
#include "base/scope.h"

#include <umo/profile.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SIZE = 256 << 10
};

static char folder[256];
static umo_device *device;
static umo_scope *scope;

static bool (*failing)(const char *entry);

static bool fails(const char *entry)
{
    return failing != NULL && failing(entry);
}

/* A wrapped host device that is said to lie behind PCIe 4. */
static int group_setup(void **state)
{
    (void)state;
    const wrapper_switches switches = {.fails = fails};
    device = wrapper_device(&switches, NULL);
    umo_calibration_key key;
    if (!folder_make(folder, sizeof folder) || unsetenv("UMO_CALIBRATION") != 0 || device == NULL ||
        !umo_calibration_key_make(umo_device_info_get(device), folder, false, &key)) {
        return -1;
    }
    umo_link link = trace_link_pcie4();
    umo_cost_model model;
    umo_cost_model_link(&link, &model);
    model.measured_s = (int64_t)time(NULL);
    umo_calibration_write(&key, &model);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    umo_device_release(device);
    folder_remove(folder);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    failing = NULL;
    return umo_scope_create(NULL, "optimize", 0, &scope, NULL) == UMO_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    umo_scope_destroy(scope);
    return wrapper_calls.live == 0 ? 0 : -1;
}

static umo_placer *placer_make(umo_placer_options options)
{
    options.calibrate.folder = folder;
    umo_placer *placer = NULL;
    assert_int_equal(umo_placer_create(&options, &placer, NULL), UMO_OK);
    return placer;
}

static umo_buffer *buffer_make(umo_storage_mode mode)
{
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc_movable(device, scope, SIZE, mode, &buffer, NULL), UMO_OK);
    return buffer;
}

static void use_times(umo_buffer *buffer, umo_side side, umo_use use, uint64_t size_bytes,
                      unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        assert_int_equal(umo_access_record(buffer, side, use, size_bytes), UMO_OK);
    }
}

static bool optimize(umo_placer *placer, umo_buffer *buffer)
{
    bool moved = true;
    umo_error error = {0};
    umo_status status = umo_buffer_optimize(buffer, placer, &moved, &error);
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(status, UMO_OK);
    return moved;
}

/* The host writes and the device answers with the sum, so that bytes are seen to have moved. */
static void bytes_put(umo_buffer *buffer, int byte)
{
    const umo_access access = {.size_bytes = SIZE, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    memset(umo_buffer_host(buffer), byte, SIZE);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

static void bytes_expect(umo_buffer *buffer, int byte)
{
    const umo_access access = {.size_bytes = SIZE, .side = UMO_SIDE_HOST, .use = UMO_READ};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    const unsigned char *bytes = umo_buffer_host(buffer);
    for (size_t i = 0; i < SIZE; i += 97) {
        assert_int_equal(bytes[i], byte);
    }
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

static void a_buffer_follows_its_use(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    const void *address = umo_buffer_host(buffer);
    bytes_put(buffer, 17);
    assert_false(optimize(placer, buffer));
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    assert_true(optimize(placer, buffer));
    assert_int_not_equal(umo_buffer_mode(buffer), UMO_UNIFIED);
    assert_ptr_equal(umo_buffer_host(buffer), address);
    bytes_expect(buffer, 17);
    /* Both sides in turns, small pieces: each would be a transfer. */
    for (int turn = 0; turn < 400; turn++) {
        use_times(buffer, UMO_SIDE_HOST, UMO_WRITE, 64, 1);
        use_times(buffer, UMO_SIDE_DEVICE, UMO_READ_WRITE, 64, 1);
        use_times(buffer, UMO_SIDE_HOST, UMO_READ, 64, 1);
    }
    assert_true(optimize(placer, buffer));
    assert_int_equal(umo_buffer_mode(buffer), UMO_UNIFIED);
    bytes_expect(buffer, 17);
    umo_placer_stats stats;
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.moves, 2);
    assert_int_equal(stats.buffers, 1);
    assert_true(stats.moved_ns > 0);
    assert_true(stats.paid_ns >= stats.optimum_ns && stats.optimum_ns > 0);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void nothing_is_decided_before_it_is_due(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){.change_threshold = 50});
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    umo_placer_stats stats;
    for (unsigned i = 1; i < 50; i++) { /* cheap ones */
        use_times(buffer, UMO_SIDE_HOST, UMO_READ, 64, 1);
        assert_false(optimize(placer, buffer));
    }
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.steps, 0);
    use_times(buffer, UMO_SIDE_HOST, UMO_READ, 64, 1);
    assert_false(optimize(placer, buffer));
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.steps, 1);
    assert_int_equal(stats.buffers, 1);
    /* What was decided about is not looked at again. */
    use_times(buffer, UMO_SIDE_HOST, UMO_READ, 64, 49);
    assert_false(optimize(placer, buffer));
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.steps, 1);
    /* A dear one by itself is decided about at once: a thirty-second of a move. */
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 1);
    assert_false(optimize(placer, buffer));
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.steps, 2);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void a_buffer_of_one_mode_is_refused(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    umo_buffer *buffer = NULL;
    umo_error error;
    bool moved = true;
    assert_int_equal(umo_buffer_alloc(device, scope, SIZE, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_buffer_optimize(buffer, placer, &moved, &error), UMO_E_UNSUPPORTED);
    assert_false(moved);
    assert_non_null(strstr(error.text, "one storage mode"));
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 500);
    assert_int_equal(umo_placer_run(placer), 0);
    umo_placer_stats stats;
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.buffers, 0);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void a_pinned_buffer_stays_until_it_is_free_to_go(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    umo_error error;
    bool moved = true;
    assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    assert_int_equal(umo_buffer_optimize(buffer, placer, &moved, &error), UMO_E_BUSY);
    assert_false(moved);
    assert_int_equal(umo_buffer_mode(buffer), UMO_UNIFIED);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 20);
    assert_int_equal(umo_placer_run(placer), 1);
    assert_int_not_equal(umo_buffer_mode(buffer), UMO_UNIFIED);
    umo_placer_stats stats;
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.moves, 1);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static bool alloc_fails(const char *entry)
{
    return strcmp(entry, "alloc") == 0;
}

static void a_move_that_fails_is_asked_for_again(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    bool moved;
    bytes_put(buffer, 3);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    failing = alloc_fails;
    assert_int_not_equal(umo_buffer_optimize(buffer, placer, &moved, NULL), UMO_OK);
    failing = NULL;
    assert_int_equal(umo_buffer_mode(buffer), UMO_UNIFIED);
    bytes_expect(buffer, 3);
    umo_placer_stats stats;
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.moves, 0);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 20);
    assert_true(optimize(placer, buffer));
    bytes_expect(buffer, 3);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void a_buffer_that_others_moved_is_seen_where_it_is(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    assert_true(optimize(placer, buffer));
    assert_int_equal(umo_buffer_move(buffer, UMO_UNIFIED, 0, NULL), UMO_OK); /* under pressure */
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 20);
    assert_true(optimize(placer, buffer));
    assert_int_not_equal(umo_buffer_mode(buffer), UMO_UNIFIED);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void a_freed_buffer_is_forgotten_and_was_not_held(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    umo_placer_stats stats;
    umo_buffer *buffers[20];
    for (int i = 0; i < 20; i++) {
        buffers[i] = buffer_make(UMO_UNIFIED);
        use_times(buffers[i], UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    }
    assert_int_equal(umo_placer_run(placer), 20);
    for (int i = 0; i < 20; i++) {
        umo_buffer_release(buffers[i]);
    }
    assert_int_equal(wrapper_calls.live, 0);
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.buffers, 20);
    /* One that comes to lie in the same place is another one. */
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    assert_int_equal(umo_placer_run(placer), 0);
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.buffers, 1);
    assert_int_equal(stats.moves, 20);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void a_run_keeps_to_its_scope(void **state)
{
    (void)state;
    umo_scope *inner = NULL;
    assert_int_equal(umo_scope_create(scope, "inner", 0, &inner, NULL), UMO_OK);
    umo_placer *placer = placer_make((umo_placer_options){.scope = inner});
    umo_buffer *outside = buffer_make(UMO_UNIFIED);
    umo_buffer *inside = NULL;
    assert_int_equal(umo_buffer_alloc_movable(device, inner, SIZE, UMO_UNIFIED, &inside, NULL),
                     UMO_OK);
    use_times(outside, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    use_times(inside, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    assert_int_equal(umo_placer_run(placer), 1);
    assert_int_equal(umo_buffer_mode(outside), UMO_UNIFIED);
    assert_int_not_equal(umo_buffer_mode(inside), UMO_UNIFIED);
    /* Whoever asks about the other one by itself gets an answer, which the runs leave alone. */
    assert_true(optimize(placer, outside));
    assert_int_equal(umo_placer_run(placer), 0);
    umo_placer_stats stats;
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.buffers, 2);
    umo_buffer_release(outside);
    umo_buffer_release(inside);
    umo_placer_destroy(placer);
    umo_scope_destroy(inner);
}

static void moves_keep_to_their_share_of_the_time(void **state)
{
    (void)state;
    const umo_placer_options options = {.move_credit_ns = 1, .move_share = UINT32_MAX};
    umo_placer *placer = placer_make(options);
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    assert_true(optimize(placer, buffer)); /* from the credit */
    for (int i = 0; i < 1000; i++) {
        use_times(buffer, UMO_SIDE_HOST, UMO_WRITE, 64, 1);
        use_times(buffer, UMO_SIDE_DEVICE, UMO_READ_WRITE, 64, 1);
        use_times(buffer, UMO_SIDE_HOST, UMO_READ, 64, 1);
        assert_false(optimize(placer, buffer));
    }
    umo_placer_stats stats;
    umo_placer_read(placer, &stats);
    assert_int_equal(stats.moves, 1);
    assert_true(stats.deferred > 0);
    assert_int_equal(stats.refused, 0);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

/* Decisions and patterns of one buffer, as they are told. */
typedef struct decisions {
    unsigned patterns, count;
    umo_profile_event pattern;
    umo_profile_event event[8];
} decisions;

static bool decision_note(const umo_profile_event *e, void *user)
{
    decisions *d = user;
    if (e->kind == UMO_EVENT_PATTERN) {
        d->pattern = *e;
        d->patterns++;
    } else if (e->kind == UMO_EVENT_PLACEMENT && d->count < 8) {
        d->event[d->count++] = *e;
    }
    return true;
}

static void decisions_and_patterns_are_told_with_their_reasons(void **state)
{
    (void)state;
    const umo_placer_options options = {.move_credit_ns = 1, .move_share = UINT32_MAX};
    umo_placer *placer = placer_make(options);
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    bool moved;
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 300);
    failing = alloc_fails;
    assert_int_not_equal(umo_buffer_optimize(buffer, placer, &moved, NULL), UMO_OK);
    failing = NULL;
    umo_placer_destroy(placer);
    placer = placer_make(options); /* whose credit is not used up */
    assert_true(optimize(placer, buffer));
    for (int i = 0; i < 400; i++) {
        use_times(buffer, UMO_SIDE_HOST, UMO_WRITE, 64, 1);
        use_times(buffer, UMO_SIDE_DEVICE, UMO_READ_WRITE, 64, 1);
        use_times(buffer, UMO_SIDE_HOST, UMO_READ, 64, 1);
    }
    assert_false(optimize(placer, buffer));
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    decisions d = {0};
    assert_int_equal(umo_profile_read(decision_note, &d, NULL), UMO_OK);
    static const umo_placement_why whys[] = {UMO_WHY_REFUSED, UMO_WHY_CHEAPER, UMO_WHY_DEFERRED};
    assert_int_equal(d.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        const umo_profile_event *e = &d.event[i];
        assert_int_equal(e->detail & 0xFF, whys[i]);
        assert_int_equal(e->mode_before == UMO_UNIFIED, i < 2);
        assert_int_not_equal(e->mode, e->mode_before);
        assert_true(e->offset_bytes > e->fence_value); /* it is dearer where it was */
        assert_int_equal(e->size_bytes, SIZE);
        assert_int_equal(e->status == UMO_OK, i != 0);
        assert_int_equal(e->duration_ns > 0, i < 2);
    }
    assert_int_equal(d.event[0].detail >> 8, UMO_PATTERN_GPU_DOMINANT);
    assert_int_equal(d.patterns, 1);
    assert_int_equal(d.pattern.detail, UMO_PATTERN_GPU_DOMINANT | UMO_PATTERN_UNKNOWN << 8);
    umo_buffer_release(buffer);
    umo_placer_destroy(placer);
}

static void the_first_mode_follows_the_devices_costs(void **state)
{
    (void)state;
    umo_placer *placer = placer_make((umo_placer_options){0});
    assert_int_equal(umo_placer_initial(placer, device, 16 << 20, UMO_PATTERN_GPU_DOMINANT),
                     UMO_PRIVATE);
    assert_int_equal(umo_placer_initial(placer, device, 16 << 20, UMO_PATTERN_CPU_DOMINANT),
                     UMO_UNIFIED);
    umo_placer_destroy(placer);
    umo_placer_destroy(NULL);
    umo_placer *none = NULL;
    const umo_placer_options bad = {.calibrate.age_max_s = -1};
    assert_int_equal(umo_placer_create(&bad, &none, NULL), UMO_E_INVAL);
    assert_null(none);
}

static bool all_fails(const char *entry)
{
    (void)entry;
    return true;
}

static void a_device_that_cannot_be_measured_is_assumed(void **state)
{
    (void)state;
    const umo_placer_options options = {.calibrate = {.redo = true, .no_files = true}};
    umo_placer *placer = NULL;
    assert_int_equal(umo_placer_create(&options, &placer, NULL), UMO_OK);
    failing = all_fails;
    /* Host memory is one memory, as far as its facts go. */
    assert_int_equal(umo_placer_initial(placer, device, 16 << 20, UMO_PATTERN_GPU_DOMINANT),
                     UMO_UNIFIED);
    failing = NULL;
    umo_placer_destroy(placer);
}

/* ---- memory that runs out ---- */

#ifdef UMO_TEST_WRAPS_MALLOC

static _Atomic int allocations_left;

static bool allocation_fails(void)
{
    return allocations_left > 0 && --allocations_left == 0;
}

void *__real_calloc(size_t count, size_t size_bytes);
void *__wrap_calloc(size_t count, size_t size_bytes);
void *__real_malloc(size_t size_bytes);
void *__wrap_malloc(size_t size_bytes);

void *__wrap_calloc(size_t count, size_t size_bytes)
{
    return allocation_fails() ? NULL : __real_calloc(count, size_bytes);
}

void *__wrap_malloc(size_t size_bytes)
{
    return allocation_fails() ? NULL : __real_malloc(size_bytes);
}

/* A placer's life: a device measured or assumed, a buffer decided about and moved, and a run. */
static umo_status placer_life(umo_buffer *buffer, bool measure)
{
    const umo_placer_options options = {
        .change_threshold = 1,
        .calibrate = {.redo = measure, .off = !measure, .no_files = true, .budget_ns = 1}};
    umo_placer *placer = NULL;
    umo_error error = {0};
    umo_status status = umo_placer_create(&options, &placer, &error);
    if (status == UMO_OK) {
        use_times(buffer, UMO_SIDE_DEVICE, UMO_READ, SIZE, 10);
        status = umo_buffer_optimize(buffer, placer, NULL, &error);
        (void)umo_placer_run(placer);
    }
    assert_true(status == UMO_OK || (error.status == status && error.text[0] != '\0'));
    umo_placer_destroy(placer);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(UMO_UNIFIED);
    use_times(buffer, UMO_SIDE_HOST, UMO_READ, 1, 1);
    bytes_put(buffer, 9);
    int64_t live = wrapper_calls.live;
    for (int measure = 0; measure < 2; measure++) {
        int refused = 0;
        bool failed = true;
        /* A measurement allocates for hundreds of commands, one like the other. */
        for (int at = 1; failed; at += 1 + measure * at / 16) {
            allocations_left = at;
            umo_status status = placer_life(buffer, measure != 0);
            failed = allocations_left == 0;
            allocations_left = 0;
            assert_true(status == UMO_OK || status == UMO_E_NOMEM);
            refused += status != UMO_OK ? 1 : 0;
            assert_true(wrapper_calls.live == live);
            bytes_expect(buffer, 9);
        }
        assert_true(measure != 0 || refused >= 3); /* the placer, its table, the buffer's entry */
    }
    umo_buffer_release(buffer);
}

#else

static void every_allocation_may_fail(void **state)
{
    (void)state;
    print_message("this system's linker redirects no calls\n");
    skip();
}

#endif

/* ---- what happened between two readings ---- */

static void statistics_become_the_window_that_brackets_would_see(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (umo_pattern pattern = UMO_PATTERN_CPU_DOMINANT; pattern < UMO_PATTERNS; pattern++) {
        umo_buffer *buffer = buffer_make(UMO_UNIFIED);
        trace t = {.size_bytes = SIZE};
        trace_phase(&t, pattern, 640, &seed);
        umo_placement_window exact = {0};
        unsigned valid = 0;
        for (size_t i = 0; i < t.count; i++) {
            umo_placement_window one = trace_window(&valid, t.uses[i]);
            for (int k = 0; k < UMO_TRAFFICS; k++) {
                exact.uses[k].count += one.uses[k].count;
                exact.uses[k].size_bytes += one.uses[k].size_bytes;
            }
            use_times(buffer, (umo_side)t.uses[i].side, (umo_use)t.uses[i].use, SIZE, 1);
        }
        umo_access_stats now;
        umo_placement_window window;
        umo_buffer_stats(buffer, &now);
        umo_placement_window_between(NULL, &now, &window);
        for (int k = 0; k <= UMO_TRAFFIC_DEVICE_WRITE; k++) {
            assert_int_equal(window.uses[k].count, exact.uses[k].count);
            assert_true(window.uses[k].size_bytes == exact.uses[k].size_bytes);
        }
        for (int k = UMO_TRAFFIC_TO_DEVICE; k <= UMO_TRAFFIC_TO_HOST; k++) {
            /* From turns that fade: near enough. */
            double off = (double)window.uses[k].count - (double)exact.uses[k].count;
            assert_true(off < 0 ? -off < 0.04 * (double)t.count : off < 0.04 * (double)t.count);
        }
        umo_placement_window_between(&now, &now, &window);
        for (int k = 0; k < UMO_TRAFFICS; k++) {
            assert_int_equal(window.uses[k].count, 0);
        }
        trace_finish(&t);
        umo_buffer_release(buffer);
    }
}

/* ---- threads ---- */

enum {
    THREADS = 4
};

static umo_placer *shared_placer;
static umo_buffer *shared_buffers[THREADS];

/* Each uses all buffers, asks about them, and now and then runs over all of them. */
static void *thread_main(void *argument)
{
    uint64_t seed = 1 + (uintptr_t)argument;
    for (int i = 0; i < 400; i++) {
        umo_buffer *buffer = shared_buffers[trace_below(&seed, THREADS)];
        bool device_turn = trace_below(&seed, 100) < (i < 200 ? 95 : 5);
        umo_status_ignore(umo_access_record(buffer, device_turn ? UMO_SIDE_DEVICE : UMO_SIDE_HOST,
                                            device_turn ? UMO_READ : UMO_READ_WRITE, 4096));
        bool moved;
        umo_status_ignore(umo_buffer_optimize(buffer, shared_placer, &moved, NULL));
        if (i % 50 == 0) {
            (void)umo_placer_run(shared_placer);
            umo_buffer *own = NULL;
            if (umo_buffer_alloc_movable(device, scope, 4096, UMO_UNIFIED, &own, NULL) == UMO_OK) {
                umo_status_ignore(umo_buffer_optimize(own, shared_placer, &moved, NULL));
                umo_buffer_release(own);
            }
        }
    }
    return NULL;
}

static void threads_may_use_and_ask_at_once(void **state)
{
    (void)state;
    shared_placer = placer_make((umo_placer_options){.change_threshold = 20});
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        shared_buffers[i] = buffer_make(UMO_UNIFIED);
        bytes_put(shared_buffers[i], i + 1);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, (void *)i), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    (void)umo_placer_run(shared_placer);
    umo_placer_stats stats;
    umo_placer_read(shared_placer, &stats);
    assert_int_equal(stats.buffers, THREADS);
    assert_true(stats.steps > 0);
    for (int i = 0; i < THREADS; i++) {
        bytes_expect(shared_buffers[i], i + 1);
        umo_buffer_release(shared_buffers[i]);
    }
    umo_placer_destroy(shared_placer);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_buffer_follows_its_use),
        TEST(nothing_is_decided_before_it_is_due),
        TEST(a_buffer_of_one_mode_is_refused),
        TEST(a_pinned_buffer_stays_until_it_is_free_to_go),
        TEST(a_move_that_fails_is_asked_for_again),
        TEST(a_buffer_that_others_moved_is_seen_where_it_is),
        TEST(a_freed_buffer_is_forgotten_and_was_not_held),
        TEST(a_run_keeps_to_its_scope),
        TEST(moves_keep_to_their_share_of_the_time),
        TEST(decisions_and_patterns_are_told_with_their_reasons),
        TEST(the_first_mode_follows_the_devices_costs),
        TEST(a_device_that_cannot_be_measured_is_assumed),
        TEST(statistics_become_the_window_that_brackets_would_see),
        TEST(threads_may_use_and_ask_at_once),
        TEST(every_allocation_may_fail), /* last: the device's costs are its own from then on */
    };
    return cmocka_run_group_tests_name("placer", tests, group_setup, group_teardown);
}
