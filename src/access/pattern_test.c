/*
 * Patterns: what each figure makes of a buffer, that nothing flaps, and how often it is right over
 * labelled windows (windows_test.h).
 */
#include "driver/wrapper_test.h"

#include "access/windows_test.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    BYTES = 1 << 20
};

static umo_device *device;
static umo_scope *scope;

static int rig_open(void **state)
{
    (void)state;
    device = wrapper_device(NULL, NULL);
    return device == NULL || umo_scope_create(NULL, "root", 0, &scope, NULL) != UMO_OK ? -1 : 0;
}

static int rig_close(void **state)
{
    (void)state;
    umo_scope_destroy(scope);
    umo_device_release(device);
    return 0;
}

static umo_buffer *buffer_make(umo_scope *owner, umo_storage_mode mode, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(device, owner, size_bytes, mode, &buffer, NULL), UMO_OK);
    return buffer;
}

static void record(umo_buffer *buffer, umo_side side, umo_use use, size_t bytes, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        assert_int_equal(umo_access_record(buffer, side, use, bytes), UMO_OK);
    }
}

static void every_pattern_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(umo_pattern_name(UMO_PATTERN_CPU_DOMINANT), "cpu_dominant");
    assert_string_equal(umo_pattern_name(UMO_PATTERN_STREAMING), "streaming");
    assert_string_equal(umo_pattern_name((umo_pattern)99), "unknown");
    assert_string_equal(umo_pattern_name((umo_pattern)-1), "unknown");
}

static void few_accesses_say_nothing(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_UNKNOWN);
    record(buffer, UMO_SIDE_DEVICE, UMO_READ, BYTES, 7);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_UNKNOWN);
    record(buffer, UMO_SIDE_DEVICE, UMO_READ, BYTES, 1);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_GPU_DOMINANT);
    umo_buffer_release(buffer);
}

static void weights_written_once_are_the_devices(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
    record(buffer, UMO_SIDE_HOST, UMO_WRITE, BYTES / 8, 8);
    record(buffer, UMO_SIDE_DEVICE, UMO_READ, BYTES, 10);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_GPU_DOMINANT);
    umo_buffer_release(buffer);
}

/* Written, then read the same bytes: without turns that is a load, not a stream. */
static void a_load_is_no_stream(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
    record(buffer, UMO_SIDE_HOST, UMO_WRITE, BYTES / 32, 32);
    record(buffer, UMO_SIDE_DEVICE, UMO_READ, BYTES / 32, 32);
    assert_int_not_equal(umo_buffer_pattern(buffer), UMO_PATTERN_STREAMING);
    umo_buffer_release(buffer);
}

/* What reads its input twice moves the same bytes as a stream and half as many more. */
static void a_side_that_writes_back_makes_no_stream(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
    for (int i = 0; i < 40; i++) {
        record(buffer, UMO_SIDE_HOST, UMO_WRITE, BYTES, 1);
        record(buffer, UMO_SIDE_DEVICE, UMO_READ_WRITE, BYTES, 1);
        record(buffer, UMO_SIDE_HOST, UMO_READ, BYTES, 1);
    }
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_BALANCED);
    umo_buffer_release(buffer);
}

static void bracket(umo_buffer *buffer, umo_side side, umo_use use)
{
    umo_access access = {.size_bytes = umo_buffer_size(buffer), .side = side, .use = use};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

/* The brackets that the kit opens for a kernel's request, in the order that it does. */
static void brackets_of_served_requests_have_the_patterns_of_their_tensors(void **state)
{
    (void)state;
    umo_buffer *input = buffer_make(scope, UMO_MANAGED, BYTES);
    umo_buffer *between = buffer_make(scope, UMO_PRIVATE, BYTES);
    umo_buffer *output = buffer_make(scope, UMO_MANAGED, BYTES);
    umo_buffer *weights_buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
    bracket(weights_buffer, UMO_SIDE_HOST, UMO_WRITE);
    for (int request = 0; request < 30; request++) {
        bracket(input, UMO_SIDE_HOST, UMO_WRITE);
        bracket(input, UMO_SIDE_DEVICE, UMO_READ);
        bracket(weights_buffer, UMO_SIDE_DEVICE, UMO_READ);
        bracket(between, UMO_SIDE_DEVICE, UMO_WRITE);
        bracket(between, UMO_SIDE_DEVICE, UMO_READ);
        bracket(output, UMO_SIDE_DEVICE, UMO_WRITE);
        bracket(output, UMO_SIDE_HOST, UMO_READ);
        if (request >= 10) {
            assert_int_equal(umo_buffer_pattern(input), UMO_PATTERN_STREAMING);
            assert_int_equal(umo_buffer_pattern(output), UMO_PATTERN_STREAMING);
            assert_int_equal(umo_buffer_pattern(between), UMO_PATTERN_GPU_DOMINANT);
            assert_int_equal(umo_buffer_pattern(weights_buffer), UMO_PATTERN_GPU_DOMINANT);
        }
    }
    umo_buffer_release(input);
    umo_buffer_release(between);
    umo_buffer_release(output);
    umo_buffer_release(weights_buffer);
}

static void what_was_declared_stands_until_use_overrules_it(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
    assert_int_equal(umo_buffer_set_pattern(buffer, UMO_PATTERN_GPU_DOMINANT), UMO_OK);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_GPU_DOMINANT);
    record(buffer, UMO_SIDE_HOST, UMO_READ, BYTES, 31);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_GPU_DOMINANT);
    record(buffer, UMO_SIDE_HOST, UMO_READ, BYTES, 1);
    assert_int_equal(umo_buffer_pattern(buffer), UMO_PATTERN_CPU_DOMINANT);
    umo_buffer_release(buffer);
}

/* ---- the classifier alone ---- */

static uint64_t seed = 1;

static uint32_t random_below(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((seed >> 33) % below);
}

static double random_bytes(void)
{
    return random_below(4) == 0 ? 0.0 : (double)random_below(1u << random_below(24));
}

static umo_access_stats random_stats(void)
{
    umo_access_stats s = {0};
    s.host.recent_read_bytes = random_bytes();
    s.host.recent_write_bytes = random_bytes();
    s.device.recent_read_bytes = random_bytes();
    s.device.recent_write_bytes = random_bytes();
    s.recent_accesses = random_below(300);
    s.recent_turns = random_below(1 + (uint32_t)s.recent_accesses);
    s.declared =
        random_below(4) == 0 ? (umo_pattern)random_below(UMO_PATTERNS) : UMO_PATTERN_UNKNOWN;
    return s;
}

static void a_pattern_once_named_is_named_again(void **state)
{
    (void)state;
    unsigned seen[UMO_PATTERNS] = {0};
    for (int i = 0; i < 200000; i++) {
        umo_access_stats s = random_stats();
        umo_pattern before = (umo_pattern)random_below(UMO_PATTERNS);
        umo_pattern named = umo_pattern_classify(&s, before);
        assert_in_range(named, 0, UMO_PATTERNS - 1);
        assert_int_equal(umo_pattern_classify(&s, named), named);
        seen[named]++;
    }
    for (int i = 0; i < UMO_PATTERNS; i++) {
        assert_true(seen[i] > 1000);
    }
}

static void sides_that_change_places_change_the_name(void **state)
{
    (void)state;
    static const umo_pattern mirror[UMO_PATTERNS] = {UMO_PATTERN_UNKNOWN, UMO_PATTERN_GPU_DOMINANT,
                                                     UMO_PATTERN_CPU_DOMINANT, UMO_PATTERN_BALANCED,
                                                     UMO_PATTERN_STREAMING};
    for (int i = 0; i < 100000; i++) {
        umo_access_stats s = random_stats();
        s.declared = UMO_PATTERN_UNKNOWN;
        /* On the middle the two are not each other's mirror, and need not be. */
        if (s.host.recent_read_bytes + s.host.recent_write_bytes ==
            s.device.recent_read_bytes + s.device.recent_write_bytes) {
            continue;
        }
        umo_pattern before = (umo_pattern)random_below(UMO_PATTERNS);
        umo_access_stats t = s;
        t.host = s.device;
        t.device = s.host;
        assert_int_equal(umo_pattern_classify(&t, mirror[before]),
                         mirror[umo_pattern_classify(&s, before)]);
    }
}

/*
 * Mixtures that creep over every threshold, an access at a time: with 1 part in 64 of drift, the
 * name must not come back within as many accesses as it takes to cross a band.
 */
static void one_access_never_makes_a_pattern_flap(void **state)
{
    (void)state;
    unsigned changes = 0;
    for (unsigned run = 0; run < 40; run++) {
        umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
        const size_t piece = 1000 + random_below(9000);
        umo_use host_use = (umo_use)(1 + random_below(3));
        umo_use device_use = (umo_use)(1 + random_below(3));
        umo_pattern last = UMO_PATTERN_UNKNOWN;
        umo_pattern older = UMO_PATTERN_UNKNOWN;
        unsigned since = 1000;
        for (unsigned i = 0; i < 3000; i++) {
            /* From all device to all host and back, evenly spread. */
            unsigned host_of_64 = i < 1500 ? i * 64 / 1500 : (3000 - i) * 64 / 1500;
            bool host = (i * host_of_64) / 64 != ((i + 1) * host_of_64) / 64;
            assert_int_equal(umo_access_record(buffer, host ? UMO_SIDE_HOST : UMO_SIDE_DEVICE,
                                               host ? host_use : device_use, piece),
                             UMO_OK);
            umo_pattern now = umo_buffer_pattern(buffer);
            since++;
            if (now == last || i < 64) {
                last = now;
                continue;
            }
            changes++;
            assert_false(now == older && since < 16);
            older = last;
            last = now;
            since = 0;
        }
        umo_buffer_release(buffer);
    }
    assert_true(changes >= 80);
}

/* ---- all of a process ---- */

static bool visit_count(umo_buffer *buffer, void *user)
{
    unsigned *left = user;
    assert_non_null(buffer);
    (*left)--;
    return *left > 0;
}

static void a_summary_adds_up_by_mode_and_pattern(void **state)
{
    (void)state;
    umo_scope *model = NULL;
    umo_scope *other = NULL;
    assert_int_equal(umo_scope_create(scope, "model", 0, &model, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(scope, "other", 0, &other, NULL), UMO_OK);
    umo_buffer *a = buffer_make(model, UMO_UNIFIED, 1000);
    umo_buffer *b = buffer_make(model, UMO_PRIVATE, 200);
    umo_buffer *c = buffer_make(other, UMO_MANAGED, 30);
    record(a, UMO_SIDE_HOST, UMO_READ, 10, 20);
    assert_int_equal(umo_buffer_set_pattern(b, UMO_PATTERN_GPU_DOMINANT), UMO_OK);
    umo_access_summary sum;
    umo_access_summarize(scope, &sum);
    assert_int_equal(sum.buffers, 3);
    assert_int_equal(sum.bytes, 1230);
    assert_int_equal(sum.mode_bytes[UMO_UNIFIED], 1000);
    assert_int_equal(sum.mode_bytes[UMO_PRIVATE], 200);
    assert_int_equal(sum.mode_bytes[UMO_MANAGED], 30);
    assert_int_equal(sum.pattern_bytes[UMO_PATTERN_CPU_DOMINANT], 1000);
    assert_int_equal(sum.pattern_bytes[UMO_PATTERN_GPU_DOMINANT], 200);
    assert_int_equal(sum.pattern_bytes[UMO_PATTERN_UNKNOWN], 30);
    umo_access_summarize(model, &sum);
    assert_int_equal(sum.bytes, 1200);
    umo_access_summarize(NULL, &sum);
    assert_int_equal(sum.bytes, 1230);
    unsigned left = 2;
    umo_buffer_visit(scope, visit_count, &left);
    assert_int_equal(left, 0);
    umo_buffer_release(a);
    umo_buffer_release(b);
    umo_buffer_release(c);
    umo_access_summarize(scope, &sum);
    assert_int_equal(sum.buffers, 0);
    umo_scope_destroy(model);
    umo_scope_destroy(other);
}

static void patterns_are_right_in_95_of_100_labelled_windows(void **state)
{
    (void)state;
    window_result result = {0};
    for (uint64_t i = 1; i <= 12; i++) {
        umo_buffer *buffer = buffer_make(scope, UMO_UNIFIED, BYTES);
        windows_run(buffer, i * 7919, 40, &result);
        umo_buffer_release(buffer);
    }
    unsigned of;
    double right = windows_right(result.all, &of);
    assert_true(of > 4000);
    assert_true(right >= 0.95);
    for (int label = 1; label < UMO_PATTERNS; label++) {
        unsigned all = 0;
        for (int said = 0; said < UMO_PATTERNS; said++) {
            all += result.all[label][said];
        }
        assert_true(result.all[label][label] >= all * 0.93);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern_has_its_name),
        cmocka_unit_test(few_accesses_say_nothing),
        cmocka_unit_test(weights_written_once_are_the_devices),
        cmocka_unit_test(a_load_is_no_stream),
        cmocka_unit_test(a_side_that_writes_back_makes_no_stream),
        cmocka_unit_test(brackets_of_served_requests_have_the_patterns_of_their_tensors),
        cmocka_unit_test(what_was_declared_stands_until_use_overrules_it),
        cmocka_unit_test(a_pattern_once_named_is_named_again),
        cmocka_unit_test(sides_that_change_places_change_the_name),
        cmocka_unit_test(one_access_never_makes_a_pattern_flap),
        cmocka_unit_test(a_summary_adds_up_by_mode_and_pattern),
        cmocka_unit_test(patterns_are_right_in_95_of_100_labelled_windows),
    };
    return cmocka_run_group_tests(tests, rig_open, rig_close);
}
