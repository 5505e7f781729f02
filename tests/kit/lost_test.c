/*
 * Clients that take their shared memory away while a request uses it: theirs fails, the others of
 * its batch do not notice; and systems that are slow to say whose memory it is.
 */
#include "segment.h"
#include "world.h"

#include "os/mapping_test.h"
#include "os/pages_test.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <setjmp.h>

#include <cmocka.h>

#define LENGTH 5000 /* floats: several pages, and not whole ones */
#define JOBS 4

static const model_plan plan = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}},
    .unified = "{\"zero_copy_threshold\": 0}",
};

static const model_plan plan_conventional = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}},
    .unified = "{\"enable\": false}",
};

static segment victim; /* what is cut while the engine works */
static size_t victim_bytes;

static void cut(umo_batch *batch)
{
    (void)batch;
    segment_cut(&victim, victim_bytes);
}

/* One has failed, saying which side's memory it was; the others are right. */
static void jobs_end(job *jobs, segment *segments, size_t lost, const char *side)
{
    for (size_t i = 0; i < JOBS; i++) {
        if (i == lost) {
            job_expect_failed(&jobs[i], "shrank while it was used");
            job_expect_failed(&jobs[i], side);
        } else {
            job_expect_right(&jobs[i]);
        }
        job_finish(&jobs[i]);
        segment_close(&segments[i]);
    }
}

/* Four requests, each with an input of its own file; one file is cut `when`. */
static void one_of_four(const model_plan *of, bool on_device, void (**when)(umo_batch *),
                        bool outputs)
{
    size_t page = pages_test_bytes();
    for (size_t lost = 0; lost < JOBS; lost += 3) {
        world w;
        world_start(&w);
        engine.device = on_device ? world_device(0, false) : NULL;
        *when = cut;
        world_load_ok(&w, of);
        job jobs[JOBS];
        segment segments[JOBS];
        for (unsigned i = 0; i < JOBS; i++) {
            job_start(&jobs[i], of, 1, LENGTH, 10 * (unsigned)lost + i);
            segments[i] = segment_open(LENGTH * 4);
            if (outputs) {
                job_input_own(&jobs[i], 0, false);
                job_want(&jobs[i], 0, segments[i].data);
            } else {
                job_input_at(&jobs[i], 0, segments[i].data);
                job_want(&jobs[i], 0, NULL);
            }
        }
        victim = segments[lost];
        victim_bytes = page;
        assert_true(world_execute(&w, jobs, JOBS));
        segment_cut(&victim, victim.size_bytes); /* so that a test may look at it */
        jobs_end(jobs, segments, lost, outputs ? "output" : "input");
        world_unload(&w);
        world_finish(&w);
    }
}

static void who_takes_an_input_away_fails_alone(void **state)
{
    (void)state;
    one_of_four(&plan, false, &engine.before, false);
    one_of_four(&plan, true, &engine.before, false);
    one_of_four(&plan_conventional, true, &engine.before, false);
}

static void who_takes_an_output_away_fails_alone(void **state)
{
    (void)state;
    one_of_four(&plan, false, &engine.between, true);
    one_of_four(&plan, true, &engine.between, true);
    one_of_four(&plan_conventional, true, &engine.between, true);
}

/* Four neighbouring slots of one file form the batch where they lie. What is behind the cut fails.
 */
static void a_batch_in_one_file_fails_from_the_cut_on(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    for (size_t kept = 0; kept <= JOBS; kept++) {
        world w;
        world_start(&w);
        engine.between = cut;
        world_load_ok(&w, &plan);
        const size_t slot = 2 * page;
        job jobs[JOBS];
        segment all = segment_open(JOBS * slot);
        victim = all;
        victim_bytes = kept * slot;
        for (unsigned i = 0; i < JOBS; i++) {
            job_start(&jobs[i], &plan, 1, (int64_t)(slot / 4), i);
            job_input_at(&jobs[i], 0, all.data + i * slot);
            job_want(&jobs[i], 0, NULL);
        }
        assert_true(world_execute(&w, jobs, JOBS));
        for (size_t i = 0; i < JOBS; i++) {
            if (i >= kept) {
                job_expect_failed(&jobs[i], "shrank while it was used");
            } else {
                job_expect_right(&jobs[i]);
            }
            job_finish(&jobs[i]);
        }
        /* The file is whole again, and so is the next request. */
        segment_cut(&all, all.size_bytes);
        engine.between = NULL;
        job again;
        job_start(&again, &plan, 1, (int64_t)(slot / 4), 77);
        job_input_at(&again, 0, all.data);
        job_want(&again, 0, NULL);
        assert_true(world_execute(&w, &again, 1));
        job_expect_right(&again);
        job_finish(&again);
        segment_close(&all);
        world_unload(&w);
        world_finish(&w);
    }
}

#ifdef __linux__
static uint64_t copied(const world *w, umo_reason reason)
{
    return world_counters(w).copy_performed[UMO_DIRECTION_IN][reason].bytes;
}

/* On an older kernel few bytes are copied, and many are used in a view as everywhere else. */
static void an_older_system_copies_few_bytes_and_looks_for_many(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan);
    mapping_test_silent = true;
    uint64_t crossover = umo_mappings_crossover_bytes();
    size_t many = pages_test_round_up((size_t)crossover * 2);
    const size_t sizes[] = {400, many};
    for (size_t i = 0; i < 2; i++) {
        for (int cuts = 0; cuts < 2; cuts++) {
            job j;
            segment s = segment_open(sizes[i]);
            job_start(&j, &plan, 1, (int64_t)(sizes[i] / 4), (unsigned)i);
            job_input_at(&j, 0, s.data);
            job_want(&j, 0, NULL);
            victim = s;
            victim_bytes = 0;
            engine.before = cuts != 0 ? cut : NULL;
            uint64_t before = copied(&w, UMO_REASON_NO_IDENTITY);
            assert_true(world_execute(&w, &j, 1));
            if (cuts == 0) {
                job_expect_right(&j);
                assert_int_equal(copied(&w, UMO_REASON_NO_IDENTITY) - before,
                                 i == 0 ? sizes[i] : 0);
            } else {
                job_expect_failed(&j, "shrank while it was used");
            }
            job_finish(&j);
            segment_close(&s);
        }
    }
    mapping_test_silent = false;
    world_unload(&w);
    world_finish(&w);
}
#endif

#ifdef __linux__
static bool views_refused;

/* Of nothing: a second mapping, which is what a view is. */
void *mremap(void *old, size_t old_bytes, size_t new_bytes, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *target = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    if (views_refused && old_bytes == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *(*next)(void *, size_t, size_t, int, ...);
    *(void **)&next = dlsym(RTLD_NEXT, "mremap");
    return next(old, old_bytes, new_bytes, flags, target);
}

/* Without a view what a client may take away is copied, by somebody who expects that. */
static void who_takes_away_what_has_no_view_fails_alone(void **state)
{
    (void)state;
    for (size_t lost = 0; lost < JOBS; lost++) {
        world w;
        job jobs[JOBS];
        segment segments[JOBS];
        world_start(&w);
        world_load_ok(&w, &plan);
        views_refused = true;
        for (unsigned i = 0; i < JOBS; i++) {
            job_start(&jobs[i], &plan, 1, LENGTH, i);
            segments[i] = segment_open(LENGTH * 4);
            job_input_at(&jobs[i], 0, segments[i].data);
            job_want(&jobs[i], 0, NULL);
        }
        segment_cut(&segments[lost], pages_test_bytes());
        assert_true(world_execute(&w, jobs, JOBS));
        views_refused = false;
        segment_cut(&segments[lost], segments[lost].size_bytes);
        jobs_end(jobs, segments, lost, "input");
        world_unload(&w);
        world_finish(&w);
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_takes_an_input_away_fails_alone),
        cmocka_unit_test(who_takes_an_output_away_fails_alone),
        cmocka_unit_test(a_batch_in_one_file_fails_from_the_cut_on),
#ifdef __linux__
        cmocka_unit_test(an_older_system_copies_few_bytes_and_looks_for_many),
        cmocka_unit_test(who_takes_away_what_has_no_view_fails_alone),
#endif
    };
    return cmocka_run_group_tests_name("lost", tests, NULL, NULL);
}
