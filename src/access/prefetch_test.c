/*
 * The prefetcher: what it makes of uses, what it predicts, and that it brings bytes and no others.
 */
#include <umo/prefetch.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIB ((size_t)1024)
#define BUFFER_BYTES (1024 * KIB)

typedef struct scene {
    umo_device *device;
    umo_scope *scope;
    umo_buffer *buffer;
    umo_prefetcher *prefetcher;
} scene;

static void scene_start(scene *s, umo_prefetch_hint hint)
{
    assert_int_equal(umo_device_open("host", 0, NULL, &s->device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "test", 0, &s->scope, NULL), UMO_OK);
    assert_int_equal(
        umo_buffer_alloc(s->device, s->scope, BUFFER_BYTES, UMO_MANAGED, &s->buffer, NULL), UMO_OK);
    assert_int_equal(umo_prefetcher_create(s->buffer, UMO_SIDE_DEVICE, hint, &s->prefetcher, NULL),
                     UMO_OK);
}

static void scene_finish(scene *s)
{
    umo_prefetcher_destroy(s->prefetcher);
    umo_buffer_release(s->buffer);
    umo_scope_destroy(s->scope);
    umo_device_release(s->device);
}

static void record(scene *s, size_t offset_bytes, size_t size_bytes)
{
    assert_int_equal(umo_prefetcher_record(s->prefetcher, offset_bytes, size_bytes), UMO_OK);
}

static umo_prefetch_stats stats_of(scene *s)
{
    umo_prefetch_stats stats;
    umo_prefetcher_read(s->prefetcher, &stats);
    return stats;
}

/* The first predicted range, or one of no bytes. */
static umo_prefetch_range next_of(scene *s, size_t *count)
{
    umo_prefetch_range ranges[UMO_PREFETCH_DEGREE_MAX] = {{0}};
    *count = umo_prefetcher_predict(s->prefetcher, ranges);
    return ranges[0];
}

static void one_pass_from_front_to_back_is_streaming(void **state)
{
    (void)state;
    scene s;
    size_t count;
    scene_start(&s, UMO_PREFETCH_CONSERVATIVE);
    for (size_t i = 0; i < 3; i++) {
        record(&s, i * 4 * KIB, 4 * KIB);
        assert_int_equal(stats_of(&s).pattern, UMO_PREFETCH_UNKNOWN);
        (void)next_of(&s, &count);
        assert_int_equal(count, 0);
    }
    record(&s, 12 * KIB, 4 * KIB);
    assert_int_equal(stats_of(&s).pattern, UMO_PREFETCH_STREAMING);
    umo_prefetch_range next = next_of(&s, &count);
    assert_int_equal(count, 1);
    assert_int_equal(next.offset_bytes, 16 * KIB);
    assert_int_equal(next.size_bytes, 4 * KIB);
    scene_finish(&s);
}

static void a_second_pass_is_sequential(void **state)
{
    (void)state;
    scene s;
    scene_start(&s, UMO_PREFETCH_CONSERVATIVE);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < 40; i++) {
            record(&s, i * 4 * KIB, 4 * KIB);
        }
    }
    assert_int_equal(stats_of(&s).pattern, UMO_PREFETCH_SEQUENTIAL);
    /* Three uses of each pass come before the trend is known; the jump back is a surprise. */
    assert_true(stats_of(&s).predicted >= 74);
    scene_finish(&s);
}

static void strides_are_followed_in_both_directions_and_cut_at_the_ends(void **state)
{
    (void)state;
    scene s;
    size_t count;
    scene_start(&s, UMO_PREFETCH_MODERATE);
    for (size_t i = 0; i < 8; i++) {
        record(&s, BUFFER_BYTES - (i + 1) * 64 * KIB, KIB);
    }
    umo_prefetch_stats stats = stats_of(&s);
    assert_int_equal(stats.pattern, UMO_PREFETCH_STRIDED);
    assert_int_equal(stats.stride_bytes, -(int64_t)(64 * KIB));
    umo_prefetch_range next = next_of(&s, &count);
    assert_int_equal(count, 4);
    assert_int_equal(next.offset_bytes, BUFFER_BYTES - 9 * 64 * KIB);
    for (size_t i = 8; i < 16; i++) {
        record(&s, BUFFER_BYTES - (i + 1) * 64 * KIB, KIB);
    }
    (void)next_of(&s, &count); /* at offset 0 */
    assert_int_equal(count, 0);

    /* The last use would end behind the buffer. */
    for (size_t i = 0; i < 20; i++) {
        record(&s, BUFFER_BYTES - 100 * KIB + i * 3 * KIB, 4 * KIB);
    }
    umo_prefetch_range ranges[UMO_PREFETCH_DEGREE_MAX];
    assert_int_equal(umo_prefetcher_advise(s.prefetcher, UMO_PREFETCH_AGGRESSIVE), UMO_OK);
    count = umo_prefetcher_predict(s.prefetcher, ranges);
    assert_true(count > 4 && count < 16);
    const umo_prefetch_range *last = &ranges[count - 1];
    assert_true(last->offset_bytes + last->size_bytes <= BUFFER_BYTES);
    assert_true(last->offset_bytes + 3 * KIB >= BUFFER_BYTES);
    scene_finish(&s);
}

static void a_disturbance_does_not_hide_the_trend(void **state)
{
    (void)state;
    scene s;
    size_t count;
    scene_start(&s, UMO_PREFETCH_CONSERVATIVE);
    for (size_t i = 0; i < 24; i++) {
        record(&s, i * 8 * KIB, 8 * KIB);
        if (i % 6 == 5) {
            record(&s, (i * 37 % 100) * KIB, KIB); /* something else in between */
        }
    }
    record(&s, 24 * 8 * KIB, 8 * KIB);
    umo_prefetch_range next = next_of(&s, &count);
    assert_int_equal(count, 1);
    assert_int_equal(next.offset_bytes, 25 * 8 * KIB);
    scene_finish(&s);
}

static void random_uses_predict_nothing(void **state)
{
    (void)state;
    scene s;
    size_t count;
    uint64_t x = 1;
    scene_start(&s, UMO_PREFETCH_AGGRESSIVE);
    for (int i = 0; i < 200; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
        record(&s, (size_t)(x >> 33) % (BUFFER_BYTES - KIB), KIB);
        if (i > 8) {
            (void)next_of(&s, &count);
            assert_int_equal(stats_of(&s).pattern, UMO_PREFETCH_RANDOM);
            assert_int_equal(count, 0);
        }
    }
    scene_finish(&s);
}

static void a_few_places_again_and_again_are_temporal(void **state)
{
    (void)state;
    static const size_t places[] = {0, 700 * KIB, 300 * KIB, 950 * KIB, 120 * KIB};
    scene s;
    size_t count;
    scene_start(&s, UMO_PREFETCH_MODERATE);
    for (size_t i = 0; i < 40; i++) {
        record(&s, places[i * 3 % 5], KIB);
    }
    assert_int_equal(stats_of(&s).pattern, UMO_PREFETCH_TEMPORAL);
    (void)next_of(&s, &count);
    assert_int_equal(count, 0);
    scene_finish(&s);
}

static void uses_near_each_other_predict_what_lies_around(void **state)
{
    (void)state;
    scene s;
    size_t count;
    uint64_t x = 7;
    size_t at = 500 * KIB;
    scene_start(&s, UMO_PREFETCH_MODERATE);
    for (int i = 0; i < 60; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
        at = 500 * KIB + (size_t)(x >> 40) % (16 * KIB);
        record(&s, at, KIB);
    }
    assert_int_equal(stats_of(&s).pattern, UMO_PREFETCH_SPATIAL);
    umo_prefetch_range next = next_of(&s, &count);
    assert_int_equal(count, 1);
    assert_int_equal(next.offset_bytes, at - 4 * KIB);
    assert_int_equal(next.size_bytes, 9 * KIB);
    scene_finish(&s);
}

static void the_degree_adapts_to_hits_and_misses(void **state)
{
    (void)state;
    scene s;
    scene_start(&s, UMO_PREFETCH_ADAPTIVE);
    assert_int_equal(stats_of(&s).degree, 1);
    for (size_t i = 0; i < 20; i++) {
        record(&s, i * KIB, KIB);
    }
    assert_int_equal(stats_of(&s).degree, UMO_PREFETCH_DEGREE_MAX);
    record(&s, 900 * KIB, KIB);
    assert_int_equal(stats_of(&s).degree, UMO_PREFETCH_DEGREE_MAX / 2);
    scene_finish(&s);
}

static void a_distance_skips_what_would_come_too_late(void **state)
{
    (void)state;
    scene s;
    size_t count;
    scene_start(&s, UMO_PREFETCH_CONSERVATIVE);
    assert_int_equal(umo_prefetcher_set_distance(s.prefetcher, 5), UMO_OK);
    for (size_t i = 0; i < 6; i++) {
        record(&s, i * KIB, KIB);
    }
    assert_int_equal(next_of(&s, &count).offset_bytes, 10 * KIB);
    assert_int_equal(umo_prefetcher_set_distance(s.prefetcher, 0), UMO_E_INVAL);
    assert_int_equal(umo_prefetcher_set_distance(s.prefetcher, 65), UMO_E_INVAL);
    scene_finish(&s);
}

static umo_status use(scene *s, size_t offset_bytes, size_t size_bytes, umo_side side, umo_use how)
{
    const umo_access access = {
        .offset_bytes = offset_bytes, .size_bytes = size_bytes, .side = side, .use = how};
    umo_fence_set waits;
    umo_status status = umo_access_begin(s->buffer, &access, &waits);
    if (status == UMO_OK) {
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        assert_int_equal(umo_access_end(s->buffer, &access, (umo_fence){0}), UMO_OK);
    }
    return status;
}

static void what_is_predicted_is_there_when_it_is_used(void **state)
{
    (void)state;
    scene s;
    umo_counters counters;
    scene_start(&s, UMO_PREFETCH_MODERATE);
    assert_int_equal(use(&s, 0, BUFFER_BYTES, UMO_SIDE_HOST, UMO_WRITE), UMO_OK);
    size_t piece = 16 * KIB;
    uint64_t transfers_in_uses = 0;
    for (size_t i = 0; i < BUFFER_BYTES / piece; i++) {
        umo_scope_read(s.scope, &counters);
        uint64_t before = counters.transfer_performed[UMO_DIRECTION_IN].events;
        assert_int_equal(use(&s, i * piece, piece, UMO_SIDE_DEVICE, UMO_READ), UMO_OK);
        umo_scope_read(s.scope, &counters);
        transfers_in_uses += counters.transfer_performed[UMO_DIRECTION_IN].events - before;
        record(&s, i * piece, piece);
        assert_int_equal(umo_prefetcher_run(s.prefetcher, NULL), UMO_OK);
    }
    assert_int_equal(transfers_in_uses, 4); /* until the trend was known */
    umo_prefetch_stats stats = stats_of(&s);
    assert_int_equal(stats.fetched_bytes, BUFFER_BYTES - 4 * piece);
    umo_scope_read(s.scope, &counters);
    assert_int_equal(counters.transfer_performed[UMO_DIRECTION_IN].bytes, BUFFER_BYTES);
    scene_finish(&s);
}

static void a_range_in_use_is_left_out(void **state)
{
    (void)state;
    scene s;
    scene_start(&s, UMO_PREFETCH_MODERATE);
    assert_int_equal(use(&s, 0, BUFFER_BYTES, UMO_SIDE_HOST, UMO_WRITE), UMO_OK);
    for (size_t i = 0; i < 4; i++) {
        record(&s, i * KIB, KIB);
    }
    const umo_access writer = {
        .offset_bytes = 5 * KIB, .size_bytes = KIB, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(s.buffer, &writer, &waits), UMO_OK);
    assert_int_equal(umo_prefetcher_run(s.prefetcher, NULL), UMO_OK);
    assert_int_equal(stats_of(&s).fetched, 3);
    assert_int_equal(umo_access_end(s.buffer, &writer, (umo_fence){0}), UMO_OK);
    scene_finish(&s);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    scene s;
    umo_prefetcher *none = NULL;
    scene_start(&s, UMO_PREFETCH_NONE);
    assert_int_equal(umo_prefetcher_record(s.prefetcher, 0, 0), UMO_E_INVAL);
    assert_int_equal(umo_prefetcher_record(s.prefetcher, BUFFER_BYTES, 1), UMO_E_INVAL);
    assert_int_equal(umo_prefetcher_record(s.prefetcher, 1, SIZE_MAX), UMO_E_INVAL);
    assert_int_equal(umo_prefetcher_advise(s.prefetcher, (umo_prefetch_hint)5), UMO_E_INVAL);
    assert_int_equal(umo_prefetcher_create(s.buffer, (umo_side)3, UMO_PREFETCH_NONE, &none, NULL),
                     UMO_E_INVAL);
    assert_int_equal(
        umo_prefetcher_create(s.buffer, UMO_SIDE_HOST, (umo_prefetch_hint)9, &none, NULL),
        UMO_E_INVAL);
    assert_null(none);
    for (size_t i = 0; i < 9; i++) {
        record(&s, i * KIB, KIB);
    }
    size_t count;
    (void)next_of(&s, &count); /* NONE */
    assert_int_equal(count, 0);
    umo_prefetcher_destroy(NULL);
    scene_finish(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_pass_from_front_to_back_is_streaming),
        cmocka_unit_test(a_second_pass_is_sequential),
        cmocka_unit_test(strides_are_followed_in_both_directions_and_cut_at_the_ends),
        cmocka_unit_test(a_disturbance_does_not_hide_the_trend),
        cmocka_unit_test(random_uses_predict_nothing),
        cmocka_unit_test(a_few_places_again_and_again_are_temporal),
        cmocka_unit_test(uses_near_each_other_predict_what_lies_around),
        cmocka_unit_test(the_degree_adapts_to_hits_and_misses),
        cmocka_unit_test(a_distance_skips_what_would_come_too_late),
        cmocka_unit_test(what_is_predicted_is_there_when_it_is_used),
        cmocka_unit_test(a_range_in_use_is_left_out),
        cmocka_unit_test(bad_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
