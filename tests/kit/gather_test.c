/*
 * Batches that are too large to be copied range by range: every byte arrives where it belongs, from
 * pieces of any size, into responses that touch, lie apart, or are one and the same.
 */
#include "world.h"

#include "kit/kit.h"

#include <umo/copy.h>

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#define JOBS 4
#define LENGTH ((int64_t)100003) /* elements: no multiple of anything */

static const model_plan bytes = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

static uint64_t copied(const umo_counters *before, const umo_counters *after,
                       umo_direction direction, umo_reason reason)
{
    return after->copy_performed[direction][reason].bytes -
           before->copy_performed[direction][reason].bytes;
}

/* Replaces an input's one piece by many of odd sizes, `gap` bytes apart. */
static fake_region *cut_into_pieces(job *j, size_t gap)
{
    TRITONBACKEND_Input *in = j->inputs[0];
    size_t size_bytes = j->sizes[0];
    fake_region *region = fake_region_create(2 * size_bytes + 4096 * gap, false, false);
    char *at = region->memory.data;
    fake_request_hold(j->request, region);
    in->piece_count = 0;
    in->size_bytes = 0;
    for (size_t done = 0, n = 0; done < size_bytes; n++) {
        size_t piece = 1 + (n * 997) % 1999;
        piece = piece < size_bytes - done ? piece : size_bytes - done;
        memcpy(at, j->contents[0] + done, piece);
        fake_input_piece(in, at, piece);
        at += piece + gap;
        done += piece;
    }
    return region;
}

static void large_batches_are_gathered_and_scattered(void **state)
{
    (void)state;
    for (int device = 0; device < 3; device++) {
        for (int shared = 0; shared < 2; shared++) {
            world w;
            job jobs[JOBS];
            model_plan plan = bytes;
            world_start(&w);
            plan.unified = device == 2 ? "{\"enable\": false}" : "{}";
            engine.device = device == 0 ? NULL : world_device(0, true);
            world_load_ok(&w, &plan);
            fake_region *out = fake_region_create(JOBS * 200000, shared != 0, true);
            for (unsigned i = 0; i < JOBS; i++) {
                job_start(&jobs[i], &plan, 1, LENGTH, i);
                job_input_own(&jobs[i], 0, shared != 0);
                fake_request_hold(jobs[i].request, out);
                job_want(&jobs[i], 0, out->memory.data + (size_t)(JOBS - 1 - i) * 150000);
            }
            umo_counters before = world_counters(&w);
            assert_true(world_execute(&w, jobs, JOBS));
            umo_counters after = world_counters(&w);
            if (device < 2) {
                assert_int_equal(copied(&before, &after, UMO_DIRECTION_IN, UMO_REASON_SCATTERED),
                                 JOBS * LENGTH);
                assert_int_equal(copied(&before, &after, UMO_DIRECTION_OUT, UMO_REASON_SCATTERED),
                                 JOBS * LENGTH);
            }
            for (unsigned i = 0; i < JOBS; i++) {
                job_expect_right(&jobs[i]);
                job_finish(&jobs[i]);
            }
            fake_region_destroy(out);
            world_unload(&w);
            world_finish(&w);
        }
    }
}

/* Whether the copier has measured its threads, which its first large copy does. */
static bool threads_were_asked(const char *unified)
{
    world w;
    job jobs[JOBS];
    model_plan plan = bytes;
    umo_copier_figures figures;
    plan.unified = unified;
    world_start(&w);
    world_load_ok(&w, &plan);
    fake_region *out = fake_region_create(JOBS * 200000, true, true);
    for (unsigned i = 0; i < JOBS; i++) {
        job_start(&jobs[i], &plan, 1, LENGTH, i);
        job_input_own(&jobs[i], 0, true);
        fake_request_hold(jobs[i].request, out);
        job_want(&jobs[i], 0, out->memory.data + (size_t)(JOBS - 1 - i) * 150000);
    }
    assert_true(world_execute(&w, jobs, JOBS));
    for (unsigned i = 0; i < JOBS; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
    umo_copier_read(umo_context_copier(w.context), &figures);
    fake_region_destroy(out);
    world_unload(&w);
    world_finish(&w);
    return figures.crossover_bytes != 0;
}

static void copies_ask_for_threads_unless_the_model_forbids_it(void **state)
{
    (void)state;
    assert_false(threads_were_asked("{\"parallel_copies\": false}"));
    assert_false(threads_were_asked("{\"enable\": false, \"parallel_copies\": false}"));
    /* On one processor there is no thread to ask for. */
    bool several = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    assert_int_equal(threads_were_asked("{}"), several);
    assert_int_equal(threads_were_asked("{\"enable\": false}"), several);
}

static void pieces_of_odd_sizes_are_one_run_where_they_touch(void **state)
{
    (void)state;
    for (size_t gap = 0; gap < 2; gap++) {
        for (size_t count = 1; count <= JOBS; count += JOBS - 1) {
            world w;
            job jobs[JOBS];
            fake_region *regions[JOBS];
            world_start(&w);
            world_load_ok(&w, &bytes);
            for (unsigned i = 0; i < count; i++) {
                job_start(&jobs[i], &bytes, 1, 3 * LENGTH, i);
                job_input_own(&jobs[i], 0, false);
                regions[i] = cut_into_pieces(&jobs[i], gap);
                job_want(&jobs[i], 0, NULL);
            }
            umo_counters before = world_counters(&w);
            assert_true(world_execute(&w, jobs, count));
            umo_counters after = world_counters(&w);
            assert_int_equal(copied(&before, &after, UMO_DIRECTION_IN, UMO_REASON_SCATTERED),
                             gap > 0 || count > 1 ? count * 3 * LENGTH : 0);
            for (unsigned i = 0; i < count; i++) {
                job_expect_right(&jobs[i]);
                job_finish(&jobs[i]);
                fake_region_destroy(regions[i]);
            }
            world_unload(&w);
            world_finish(&w);
        }
    }
}

/* Requests whose pieces touch within and across them are one run, as if each had one piece. */
static void pieces_touch_across_requests(void **state)
{
    (void)state;
    world w;
    job jobs[JOBS];
    world_start(&w);
    world_load_ok(&w, &bytes);
    fake_region *region = fake_region_create(JOBS * (size_t)LENGTH, true, false);
    for (unsigned i = 0; i < JOBS; i++) {
        char *at = region->memory.data + (size_t)((i + 2) % JOBS) * LENGTH;
        job_start(&jobs[i], &bytes, 1, LENGTH, i);
        job_input_at(&jobs[i], 0, at);
        fake_request_hold(jobs[i].request, region);
        TRITONBACKEND_Input *in = jobs[i].inputs[0];
        in->piece_count = 0;
        in->size_bytes = 0;
        for (size_t done = 0; done < (size_t)LENGTH;) {
            size_t piece = done + 4097 < (size_t)LENGTH ? 4097 : (size_t)LENGTH - done;
            fake_input_piece(in, at + done, piece);
            done += piece;
        }
        job_want(&jobs[i], 0, NULL);
    }
    umo_counters before = world_counters(&w);
    assert_true(world_execute(&w, jobs, JOBS));
    umo_counters after = world_counters(&w);
    assert_int_equal(copied(&before, &after, UMO_DIRECTION_IN, UMO_REASON_SCATTERED), 0);
    assert_int_equal(after.copy_avoided[UMO_DIRECTION_IN].bytes -
                         before.copy_avoided[UMO_DIRECTION_IN].bytes,
                     JOBS * LENGTH);
    for (unsigned i = 0; i < JOBS; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
    fake_region_destroy(region);
    world_unload(&w);
    world_finish(&w);
}

/* Threads must not mix them: what stays is the answer of the last request. */
static void one_response_memory_for_two_requests_holds_a_whole_answer(void **state)
{
    (void)state;
    world w;
    job jobs[2];
    world_start(&w);
    world_load_ok(&w, &bytes);
    fake_region *out = fake_region_create(5 * (size_t)LENGTH, true, true);
    for (unsigned i = 0; i < 2; i++) {
        job_start(&jobs[i], &bytes, 1, 5 * LENGTH, i * 77);
        job_input_own(&jobs[i], 0, true);
        fake_request_hold(jobs[i].request, out);
        job_want(&jobs[i], 0, out->memory.data);
    }
    assert_true(world_execute(&w, jobs, 2));
    bool whole[2] = {true, true};
    const struct TRITONBACKEND_Output *received = fake_received(jobs[1].request, "OUTPUT0");
    assert_non_null(received);
    for (size_t k = 0; k < 5 * (size_t)LENGTH; k++) {
        for (int i = 0; i < 2; i++) {
            whole[i] = whole[i] && (unsigned char)received->received[k] ==
                                       engine_byte((unsigned char)jobs[i].contents[0][k], 0);
        }
    }
    assert_true(whole[0] || whole[1]);
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(jobs[i].request->text, "");
        job_finish(&jobs[i]);
    }
    fake_region_destroy(out);
    world_unload(&w);
    world_finish(&w);
}

/* A request whose pieces end too soon fails alone, after some of them were noted for copying. */
static job *shrinking;

static void pieces_shrink(umo_batch *batch)
{
    (void)batch;
    shrinking->inputs[0]->pieces[shrinking->inputs[0]->piece_count - 1].size_bytes--;
}

static void a_large_request_that_changes_meanwhile_fails_alone(void **state)
{
    (void)state;
    world w;
    job jobs[3];
    fake_region *regions[3];
    world_start(&w);
    world_load_ok(&w, &bytes);
    for (unsigned i = 0; i < 3; i++) {
        job_start(&jobs[i], &bytes, 1, 2 * LENGTH, i);
        job_input_own(&jobs[i], 0, false);
        regions[i] = cut_into_pieces(&jobs[i], 1);
        job_want(&jobs[i], 0, NULL);
    }
    shrinking = &jobs[1];
    engine.before = pieces_shrink;
    assert_true(world_execute(&w, jobs, 3));
    job_expect_failed(&jobs[1], "pieces changed");
    job_expect_right(&jobs[0]);
    job_expect_right(&jobs[2]);
    for (unsigned i = 0; i < 3; i++) {
        job_finish(&jobs[i]);
        fake_region_destroy(regions[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* More bytes than one string can have: what was in two cannot become one. */
static void strings_of_four_gigabytes_are_mended(void **state)
{
    (void)state;
#if SIZE_MAX > UINT32_MAX
    const size_t extra = 1000;
    const size_t size_bytes = 3 * 4 + (size_t)UINT32_MAX + extra;
    unsigned char *copy = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(copy != MAP_FAILED);
    /* Right: the longest string, one of the rest, and an empty one. */
    memset(copy, 0xFF, 4);
    copy[4 + (size_t)UINT32_MAX] = (unsigned char)(extra & 0xFF);
    copy[5 + (size_t)UINT32_MAX] = (unsigned char)(extra >> 8);
    assert_true(kit_strings_mend((char *)copy, size_bytes, 3));
    /* The client says now that the first one is empty. */
    memset(copy, 0, 4);
    assert_false(kit_strings_mend((char *)copy, size_bytes, 3));
    assert_int_equal(umo_bytes_check(copy, size_bytes, 3, NULL), UMO_OK);
    assert_true(kit_strings_mend((char *)copy, size_bytes, 3));
    assert_int_equal(munmap(copy, size_bytes), 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_batches_are_gathered_and_scattered),
        cmocka_unit_test(copies_ask_for_threads_unless_the_model_forbids_it),
        cmocka_unit_test(pieces_of_odd_sizes_are_one_run_where_they_touch),
        cmocka_unit_test(pieces_touch_across_requests),
        cmocka_unit_test(one_response_memory_for_two_requests_holds_a_whole_answer),
        cmocka_unit_test(a_large_request_that_changes_meanwhile_fails_alone),
        cmocka_unit_test(strings_of_four_gigabytes_are_mended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
