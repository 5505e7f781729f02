/*
 * Engines that fail, lie, or forget: the requests of the batch fail in words, or the one that is
 * meant, and nothing is read, written or kept that must not be.
 */
#include "world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>

#include <cmocka.h>

/* Where an engine works and how. */
typedef struct variant {
    const char *unified;
    bool on_device;
    uint64_t delay_ns;
} variant;

static const variant variants[] = {
    {"{}", false, 0},
    {"{\"enable\": false}", false, 0},
    {"{\"zero_copy_threshold\": 0}", true, 0},
    {"{\"zero_copy_threshold\": 0}", true, 2000000},
    {"{\"zero_copy_threshold\": 1000000}", true, 2000000},
    {"{\"enable\": false}", true, 2000000},
};

#define VARIANTS (sizeof variants / sizeof variants[0])
#define JOBS 3
#define SIZE ((size_t)3000)

static const model_plan plan_plain = {
    .batch_max = 8,
    .input_count = 2,
    .output_count = 2,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}, {.dtype = UMO_UINT8, .dims = {1, {3}}}},
};

static model_plan plan;

static void variant_start(world *w, const variant *v, const model_plan *of)
{
    world_start(w);
    plan = *of;
    plan.unified = v->unified;
    if (v->on_device) {
        engine.device = world_device(v->delay_ns, true);
    }
    world_load_ok(w, &plan);
}

static void variant_finish(world *w)
{
    world_unload(w);
    world_finish(w);
}

static void jobs_start(job *jobs, bool shared)
{
    for (unsigned i = 0; i < JOBS; i++) {
        job_start(&jobs[i], &plan, 1 + i, 500, i);
        for (size_t input = 0; input < plan.input_count; input++) {
            job_input_own(&jobs[i], input, shared);
        }
        for (size_t output = 0; output < plan.output_count; output++) {
            job_want(&jobs[i], output, NULL);
        }
    }
}

/* All requests of a batch fail with these words; without the trouble all is right again. */
static void fails_all(engine_trouble trouble, const char *words)
{
    for (size_t v = 0; v < VARIANTS; v++) {
        world w;
        job jobs[JOBS];
        variant_start(&w, &variants[v], &plan_plain);
        for (int turn = 0; turn < 4; turn++) {
            engine.trouble = turn % 2 == 0 ? trouble : TROUBLE_NONE;
            jobs_start(jobs, turn / 2 != 0);
            assert_true(world_execute(&w, jobs, JOBS));
            for (size_t i = 0; i < JOBS; i++) {
                if (engine.trouble == TROUBLE_NONE) {
                    job_expect_right(&jobs[i]);
                } else {
                    job_expect_failed(&jobs[i], words);
                }
                job_finish(&jobs[i]);
            }
        }
        variant_finish(&w);
    }
}

static void an_engine_that_fails_fails_its_batch(void **state)
{
    (void)state;
    fails_all(TROUBLE_WORDLESS, "DEVICE");
    fails_all(TROUBLE_BEFORE_INPUTS, "the engine stumbled");
    fails_all(TROUBLE_AFTER_INPUTS, "the engine stumbled");
    fails_all(TROUBLE_AFTER_OUTPUTS, "the engine stumbled");
    fails_all(TROUBLE_AFTER_LAUNCH, "the engine stumbled");
}

static void an_output_that_never_comes_is_named(void **state)
{
    (void)state;
    fails_all(TROUBLE_NO_OUTPUT, "model 'fake' gave no output 'OUTPUT1'");
}

static void an_output_that_is_not_as_configured_is_named(void **state)
{
    (void)state;
    fails_all(TROUBLE_WRONG_RANK, "output 'OUTPUT1' of model 'fake' came out as UINT8 [6,3,1]; the "
                                  "configuration says UINT8 [3] behind the batch's size");
    fails_all(TROUBLE_WRONG_DIM, "came out as UINT8 [6,4]");
    fails_all(TROUBLE_WRONG_ROWS, "came out as UINT8 [7,3]");
    fails_all(TROUBLE_NEGATIVE_DIM, "came out as UINT8 [6,-1]");
    fails_all(TROUBLE_WRONG_DTYPE, "came out as INT32 [6,3]");
    fails_all(TROUBLE_OUTPUT_TWICE, "no such output left");
    fails_all(TROUBLE_NO_SUCH_OUTPUT, "no such output left");
}

static void one_request_may_fail_alone(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        for (size_t which = 0; which < JOBS + 1; which++) {
            for (int later = 0; later < 2; later++) {
                world w;
                job jobs[JOBS];
                variant_start(&w, &variants[v], &plan_plain);
                jobs_start(jobs, true);
                engine.trouble = later != 0 ? TROUBLE_FAIL_ONE_LATER : TROUBLE_FAIL_ONE;
                engine.which = which;
                assert_true(world_execute(&w, jobs, JOBS));
                size_t failed = 0;
                for (size_t i = 0; i < JOBS; i++) {
                    if (jobs[i].request->text[0] != '\0') {
                        failed++;
                        job_expect_failed(&jobs[i], "does not like this one");
                    } else {
                        job_expect_right(&jobs[i]);
                    }
                    job_finish(&jobs[i]);
                }
                /* A request that is not there fails nobody. */
                assert_int_equal(failed, which < JOBS ? 1 : 0);
                variant_finish(&w);
            }
        }
    }
}

static void an_engine_that_waits_itself_is_right(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        world w;
        job jobs[JOBS];
        variant_start(&w, &variants[v], &plan_plain);
        engine.synchronous = true;
        jobs_start(jobs, false);
        assert_true(world_execute(&w, jobs, JOBS));
        for (size_t i = 0; i < JOBS; i++) {
            job_expect_right(&jobs[i]);
            job_finish(&jobs[i]);
        }
        variant_finish(&w);
    }
}

static void outputs_that_nobody_wants_may_be_placed(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        for (int late = 0; late < (variants[v].on_device ? 1 : 2); late++) {
            world w;
            job jobs[JOBS];
            variant_start(&w, &variants[v], &plan_plain);
            engine.insists = true;
            engine.late = late != 0;
            for (unsigned i = 0; i < JOBS; i++) {
                job_start(&jobs[i], &plan, 1, 500, i);
                job_input_own(&jobs[i], 0, true);
                job_input_own(&jobs[i], 1, false);
                if (i == 1) {
                    job_want(&jobs[i], 0, NULL);
                }
            }
            assert_true(world_execute(&w, jobs, JOBS));
            for (size_t i = 0; i < JOBS; i++) {
                job_expect_right(&jobs[i]);
                job_finish(&jobs[i]);
            }
            variant_finish(&w);
        }
    }
}

/* The copies that the kit itself queued still read the requests when execute returns. */
static void inputs_that_an_engine_forgets_are_waited_for(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        world w;
        job jobs[JOBS];
        variant_start(&w, &variants[v], &plan_plain);
        engine.trouble = TROUBLE_FORGETS_INPUTS;
        for (unsigned i = 0; i < JOBS; i++) {
            job_start(&jobs[i], &plan, 1, 500, i);
            job_input_own(&jobs[i], 0, false);
            job_input_own(&jobs[i], 1, false);
        }
        assert_true(world_execute(&w, jobs, JOBS));
        for (size_t i = 0; i < JOBS; i++) {
            job_expect_right(&jobs[i]);
            job_finish(&jobs[i]);
        }
        variant_finish(&w);
    }
}

/* An engine that fails while its work is under way: when the client has its answer, nothing writes
 * to its memory any more. */
static void work_under_way_is_waited_for(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        world w;
        job j;
        char seen[3 * 3000];
        variant_start(&w, &variants[v], &plan_plain);
        fake_region *region = fake_region_create(sizeof seen, true, true);
        engine.trouble = TROUBLE_AFTER_LAUNCH;
        job_start(&j, &plan, 1, 2000, 1);
        job_input_own(&j, 0, true);
        job_input_own(&j, 1, true);
        job_want(&j, 0, region->memory.data);
        assert_true(world_execute(&w, &j, 1));
        memcpy(seen, region->memory.data, sizeof seen);
        job_expect_failed(&j, "the engine stumbled");
        (void)nanosleep(&(struct timespec){.tv_nsec = 3 * (long)variants[v].delay_ns}, NULL);
        assert_memory_equal(seen, region->memory.data, sizeof seen);
        job_finish(&j);
        fake_region_destroy(region);
        variant_finish(&w);
    }
}

/* An engine that goes on after an input could not be given gets no half-made tensor instead. */
static void an_input_that_failed_fails_again(void **state)
{
    (void)state;
    static const model_plan big = {
        .batch_max = 8,
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}},
    };
    for (size_t v = 0; v < VARIANTS; v++) {
        for (uint64_t number = 1; number < 8; number++) {
            world w;
            job jobs[JOBS];
            variant_start(&w, &variants[v], &big);
            jobs_start(jobs, false);
            engine.trouble = TROUBLE_IGNORES_ERRORS;
            allocations_start(number);
            assert_true(world_execute(&w, jobs, JOBS));
            (void)allocations_stop();
            for (size_t i = 0; i < JOBS; i++) {
                if (jobs[i].request->text[0] == '\0') {
                    job_expect_right(&jobs[i]);
                }
                job_finish(&jobs[i]);
            }
            variant_finish(&w);
        }
    }
}

/* ---- After the computation ---- */

static void late_outputs_are_delivered(void **state)
{
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        world w;
        job jobs[JOBS];
        variant_start(&w, &variants[v], &plan_plain);
        engine.late = true;
        for (int bad = 0; bad < 2; bad++) {
            engine.trouble = bad != 0 ? TROUBLE_LATE_WRONG_SIZE : TROUBLE_NONE;
            jobs_start(jobs, bad != 0);
            assert_true(world_execute(&w, jobs, JOBS));
            for (size_t i = 0; i < JOBS; i++) {
                if (bad != 0) {
                    job_expect_failed(&jobs[i], "output 'OUTPUT0' has 12001 bytes");
                } else {
                    job_expect_right(&jobs[i]);
                }
                job_finish(&jobs[i]);
            }
        }
        variant_finish(&w);
    }
}

static const model_plan strings = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_BYTES, .dims = {1, {-1}}}},
};

static void strings_that_an_engine_garbles_fail_the_batch(void **state)
{
    (void)state;
    world w;
    job jobs[JOBS];
    variant_start(&w, &variants[0], &strings);
    jobs_start(jobs, false);
    engine.trouble = TROUBLE_LATE_BAD_STRINGS;
    assert_true(world_execute(&w, jobs, JOBS));
    for (size_t i = 0; i < JOBS; i++) {
        job_expect_failed(&jobs[i], "BYTES");
        job_finish(&jobs[i]);
    }
    variant_finish(&w);
}

/* ---- Overlaps ---- */

static const model_plan one_tensor = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

/* Two requests in one region; each answer goes over an input, `shift` bytes behind its own. */
static void overlap(const variant *v, size_t shift, bool again, bool shared)
{
    world w;
    job jobs[2];
    variant_start(&w, v, &one_tensor);
    fake_region *region = fake_region_create(3 * SIZE, shared, true);
    guarded other = again ? guarded_again(&region->memory) : (guarded){.file = -1};
    char *from = region->memory.data;
    char *to = again ? other.data : from;
    for (unsigned i = 0; i < 2; i++) {
        job_start(&jobs[i], &plan, 1, (int64_t)SIZE, i);
        fake_request_hold(jobs[i].request, region);
        job_input_at(&jobs[i], 0, from + i * SIZE);
        job_want(&jobs[i], 0, to + shift + i * SIZE);
    }
    assert_true(world_execute(&w, jobs, 2));
    for (size_t i = 0; i < 2; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
    assert_true(world_counters(&w).copy_performed[UMO_DIRECTION_OUT][UMO_REASON_OVERLAP].bytes ==
                    2 * SIZE ||
                strstr(v->unified, "enable") != NULL || strstr(v->unified, "1000000") != NULL);
    guarded_unmap(&other);
    fake_region_destroy(region);
    variant_finish(&w);
}

static void an_output_over_an_input_is_right(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        for (int shared = 0; shared < 2; shared++) {
            overlap(&variants[v], 0, false, shared != 0);
            overlap(&variants[v], 1, false, shared != 0);
            overlap(&variants[v], 2999, false, shared != 0);
            overlap(&variants[v], 3000, false, shared != 0);
        }
    }
}

/* The same file, registered twice: other addresses, the same bytes. */
static void an_output_over_an_input_at_another_address_is_right(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        overlap(&variants[v], 0, true, true);
        overlap(&variants[v], 1, true, true);
    }
}

/* Two requests that want their answers in one place: the last one stays, and the memory between
 * them is nobody's. */
static void two_outputs_in_one_place_harm_nobody(void **state)
{
    (void)state;
    static const size_t shifts[] = {0, 1, 2999};
    for (size_t v = 0; v < VARIANTS; v++) {
        for (size_t s = 0; s < 3; s++) {
            world w;
            job jobs[2];
            variant_start(&w, &variants[v], &one_tensor);
            fake_region *region = fake_region_create(2 * SIZE + 4, true, true);
            for (unsigned i = 0; i < 2; i++) {
                job_start(&jobs[i], &plan, 1, (int64_t)SIZE, i);
                fake_request_hold(jobs[i].request, region);
                job_input_own(&jobs[i], 0, true);
                job_want(&jobs[i], 0, region->memory.data + 1 + i * shifts[s]);
            }
            assert_true(world_execute(&w, jobs, 2));
            for (size_t i = 0; i < 2; i++) {
                fake_request_expect_answered(jobs[i].request);
                assert_string_equal(jobs[i].request->text, "");
            }
            assert_true(
                guarded_clean_outside(&region->memory, region->memory.data + 1, SIZE + shifts[s]));
            for (size_t i = 0; i < 2; i++) {
                job_finish(&jobs[i]);
            }
            fake_region_destroy(region);
            variant_finish(&w);
        }
    }
}

/* One request that wants both its outputs in one place, or nearly. */
static void two_outputs_of_one_request_in_one_place_harm_nobody(void **state)
{
    (void)state;
    static const model_plan twice = {
        .batch_max = 8,
        .input_count = 1,
        .output_count = 2,
        .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    };
    static const size_t shifts[] = {0, 1, SIZE - 1, SIZE};
    for (size_t v = 0; v < VARIANTS; v++) {
        for (size_t s = 0; s < 4; s++) {
            world w;
            job j;
            variant_start(&w, &variants[v], &twice);
            fake_region *region = fake_region_create(2 * SIZE, true, true);
            job_start(&j, &plan, 1, (int64_t)SIZE, 1);
            fake_request_hold(j.request, region);
            job_input_own(&j, 0, true);
            job_want(&j, 0, region->memory.data);
            job_want(&j, 1, region->memory.data + shifts[s]);
            assert_true(world_execute(&w, &j, 1));
            assert_string_equal(j.request->text, "");
            bool in_place =
                strstr(plan.unified, "enable") == NULL && strstr(plan.unified, "1000000") == NULL;
            assert_int_equal(
                world_counters(&w).copy_performed[UMO_DIRECTION_OUT][UMO_REASON_OVERLAP].bytes,
                in_place && shifts[s] < SIZE ? SIZE : 0);
            if (shifts[s] == SIZE) {
                job_expect_right(&j);
            }
            job_finish(&j);
            fake_region_destroy(region);
            variant_finish(&w);
        }
    }
}

/* Strings go back over the strings that they are made of, which lie where the client put them. What
 * a client does to itself with a shift is its own affair. */
static void strings_over_their_own_input_harm_nobody(void **state)
{
    (void)state;
    static const variant trusted = {"{\"trusted_clients\": true}", false, 0};
    for (int turn = 0; turn < 6; turn++) {
        int shift = turn / 2;
        world w;
        job jobs[2];
        variant_start(&w, &trusted, &strings);
        fake_region *region = fake_region_create(4096, turn % 2 != 0, true);
        char *at = region->memory.data + 4;
        for (unsigned i = 0; i < 2; i++) {
            job_start(&jobs[i], &plan, 2, 9, i);
            fake_request_hold(jobs[i].request, region);
            job_input_at(&jobs[i], 0, at);
            job_want(&jobs[i], 0, at + shift);
            at += jobs[i].sizes[0];
        }
        assert_true(world_execute(&w, jobs, 2));
        for (size_t i = 0; i < 2; i++) {
            fake_request_expect_answered(jobs[i].request);
            assert_string_equal(jobs[i].request->text, "");
        }
        for (size_t i = 0; i < 2; i++) {
            if (shift == 0) {
                job_expect_right(&jobs[i]);
            }
            job_finish(&jobs[i]);
        }
        fake_region_destroy(region);
        variant_finish(&w);
    }
}

/* The same of an engine that hands its input on as its output. */
static void an_input_that_is_handed_on_over_itself_harms_nobody(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        world w;
        job j;
        variant_start(&w, &variants[0], &one_tensor);
        engine.late = true;
        engine.passes_on = true;
        fake_region *region = fake_region_create(SIZE + 4, false, true);
        job_start(&j, &plan, 1, (int64_t)SIZE, 1);
        fake_request_hold(j.request, region);
        job_input_at(&j, 0, region->memory.data);
        job_want(&j, 0, region->memory.data + shift);
        assert_true(world_execute(&w, &j, 1));
        fake_request_expect_answered(j.request);
        assert_string_equal(j.request->text, "");
        assert_memory_equal(region->memory.data + shift, j.contents[0], SIZE);
        job_finish(&j);
        fake_region_destroy(region);
        variant_finish(&w);
    }
}

/* ---- Loading ---- */

static void an_engine_that_does_not_start_fails_the_load(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_configure(&w, &plan_plain);
    engine.trouble = TROUBLE_MODEL_INIT;
    assert_false(world_load(&w));
    assert_string_equal(w.text, "the engine has no model");
    engine.trouble = TROUBLE_INSTANCE_INIT;
    assert_false(world_load(&w));
    assert_string_equal(w.text, "the engine does not start");
    engine.trouble = TROUBLE_NONE;
    fake.config = "{}";
    assert_false(world_load(&w));
    assert_string_equal(w.text, "a model without outputs");
    fake.config = "[";
    assert_false(world_load(&w));
    assert_non_null(strstr(w.text, "the configuration is not JSON"));
    world_finish(&w);
}

static void a_configuration_is_completed_by_the_engine(void **state)
{
    (void)state;
    static const model_plan complete = {
        .batch_max = 4,
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    };
    world w;
    job j;
    world_start(&w);
    fake.config = "{\"name\": \"fake\"}";
    fake.completes = true;
    engine.completes = true;
    assert_true(world_load(&w));
    assert_string_equal(engine.config,
                        "{\"name\":\"fake\"}"); /* strings live as long as the model */
    assert_non_null(strstr(umo_model_config(w.model.state), "\"max_batch_size\":4"));
    assert_non_null(strstr(fake.completed, "\"max_batch_size\":4"));
    assert_non_null(strstr(fake.completed, "\"name\":\"INPUT0\",\"data_type\":\"TYPE_UINT8\""));
    job_simple(&j, &complete, 3, 7, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    variant_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_that_fails_fails_its_batch),
        cmocka_unit_test(an_output_that_never_comes_is_named),
        cmocka_unit_test(an_output_that_is_not_as_configured_is_named),
        cmocka_unit_test(one_request_may_fail_alone),
        cmocka_unit_test(an_engine_that_waits_itself_is_right),
        cmocka_unit_test(outputs_that_nobody_wants_may_be_placed),
        cmocka_unit_test(inputs_that_an_engine_forgets_are_waited_for),
        cmocka_unit_test(work_under_way_is_waited_for),
        cmocka_unit_test(an_input_that_failed_fails_again),
        cmocka_unit_test(late_outputs_are_delivered),
        cmocka_unit_test(strings_that_an_engine_garbles_fail_the_batch),
        cmocka_unit_test(an_output_over_an_input_is_right),
        cmocka_unit_test(an_output_over_an_input_at_another_address_is_right),
        cmocka_unit_test(two_outputs_in_one_place_harm_nobody),
        cmocka_unit_test(two_outputs_of_one_request_in_one_place_harm_nobody),
        cmocka_unit_test(strings_over_their_own_input_harm_nobody),
        cmocka_unit_test(an_input_that_is_handed_on_over_itself_harms_nobody),
        cmocka_unit_test(an_engine_that_does_not_start_fails_the_load),
        cmocka_unit_test(a_configuration_is_completed_by_the_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
