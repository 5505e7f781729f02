/*
 * Every call that can fail does, one after the other: calls of the server, allocations, calls of a
 * device's driver; while a model loads, while it executes, while it unloads. A load then fails in
 * words or works; every request is answered once, right or with an error; nothing stays behind;
 * and the next execution is as if nothing had been.
 */
#include "world.h"

#include "driver/wrapper_test.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define JOBS 3

/* Where an engine works and how. */
typedef struct variant {
    const char *name;
    const char *unified;
    bool on_device;
    uint64_t delay_ns;
} variant;

static const variant variants[] = {
    {"cpu", "{}", false, 0},
    {"cpu, off", "{\"enable\": false}", false, 0},
    {"device", "{\"zero_copy_threshold\": 0}", true, 0},
    {"device, delayed", "{\"zero_copy_threshold\": 16}", true, 20000},
    {"device, off, delayed", "{\"enable\": false}", true, 20000},
};

#define VARIANTS (sizeof variants / sizeof variants[0])

/* What fails: one of three kinds of call, the number-th of it. */
typedef enum fault_kind {
    FAULT_SERVER,
    FAULT_MEMORY,
    FAULT_DRIVER,
    FAULT_KINDS
} fault_kind;

static uint64_t driver_calls;
static uint64_t driver_fails_at;
static const char *driver_failed;

static bool driver_fails(const char *entry)
{
    bool fails = ++driver_calls == driver_fails_at;
    driver_failed = fails ? entry : driver_failed;
    return fails;
}

static void fault_arm(fault_kind kind, uint64_t number)
{
    fake.failed[0] = '\0';
    driver_failed = NULL;
    switch (kind) {
    case FAULT_SERVER:
        fake.calls = 0;
        fake.fail_at = number;
        break;
    case FAULT_MEMORY:
        allocations_start(number);
        break;
    default:
        driver_calls = 0;
        driver_fails_at = number;
        break;
    }
}

/* Nothing fails any more; true when something did. */
static bool fault_disarm(fault_kind kind, uint64_t number)
{
    fake.fail_at = 0;
    driver_fails_at = 0;
    switch (kind) {
    case FAULT_SERVER:
        return fake.failed[0] != '\0';
    case FAULT_MEMORY:
        return allocations_stop() >= number;
    default:
        return driver_failed != NULL;
    }
}

/* Two that batch, strings apart: a model with what the kit has ways for. */
static const model_plan plan_plain = {
    .batch_max = 8,
    .input_count = 2,
    .output_count = 2,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}},
               {.dtype = UMO_INT32, .dims = {1, {2}}, .optional = true}},
};

static model_plan plan;

static void variant_start(world *w, const variant *v)
{
    world_start(w);
    plan = plan_plain;
    plan.unified = v->unified;
    world_configure(w, &plan);
    fake.options =
        "{\"cmdline\": {\"budget_bytes\": \"0\", \"pressure\": \"off\", \"auto-complete-config\": "
        "\"true\"}}";
    fake.completes = true;
    if (v->on_device) {
        const wrapper_switches switches = {.fails = driver_fails};
        const umo_driver_options options = {.delay_ns = v->delay_ns, .test_mode = true};
        engine.device = wrapper_device(&switches, &options);
        assert_non_null(engine.device);
    }
}

typedef enum mix {
    MIX_SINGLE,
    MIX_BATCH,
    MIX_SHAPES,
    MIX_ONE_BAD,
    MIXES
} mix;

static size_t jobs_start(job *jobs, mix m)
{
    size_t count = m == MIX_SINGLE ? 1 : JOBS;
    for (unsigned i = 0; i < count; i++) {
        job_start(&jobs[i], &plan, 1 + i, m == MIX_SHAPES ? 4 + i % 2 : 5, i);
        job_input_own(&jobs[i], 0, i != 1);
        job_input_own(&jobs[i], 1, i == 0);
        if (i == 2) {
            job_input_split(&jobs[i], 0);
        }
        job_want(&jobs[i], 0, NULL);
        if (i < 2) {
            job_want(&jobs[i], 1, NULL);
        }
    }
    if (m == MIX_ONE_BAD) {
        jobs[1].inputs[0]->dims[1] = -1;
    }
    return count;
}

/* Each is right or failed, and said so. */
static void jobs_finish(job *jobs, size_t count, bool all_right)
{
    for (size_t i = 0; i < count; i++) {
        if (all_right || jobs[i].request->text[0] == '\0') {
            job_expect_right(&jobs[i]);
        } else {
            fake_request_expect_answered(jobs[i].request);
        }
        job_finish(&jobs[i]);
    }
}

static void execute_clean(world *w)
{
    job jobs[JOBS];
    size_t count = jobs_start(jobs, MIX_BATCH);
    assert_true(world_execute(w, jobs, count));
    jobs_finish(jobs, count, true);
}

/* One load with a fault; false when the fault was never reached. */
static bool load_with_fault(const variant *v, fault_kind kind, uint64_t number)
{
    world w;
    variant_start(&w, v);
    fault_arm(kind, number);
    bool loaded = world_load(&w);
    bool reached = fault_disarm(kind, number);
    if (loaded) {
        execute_clean(&w);
        world_unload(&w);
    } else {
        assert_true(reached);
        assert_true(w.text[0] != '\0');
    }
    world_finish(&w);
    return reached;
}

static void a_load_that_fails_says_so_and_leaves_nothing(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        for (int kind = 0; kind < FAULT_KINDS; kind++) {
            uint64_t number = 1;
            while (load_with_fault(&variants[v], (fault_kind)kind, number)) {
                number++;
            }
            assert_true(number > (kind != FAULT_DRIVER ? 20 : variants[v].on_device ? 2 : 0));
        }
    }
}

/* One execution with a fault, after `warm` clean ones. */
static bool execute_with_fault(const variant *v, fault_kind kind, mix m, bool warm, uint64_t number)
{
    world w;
    job jobs[JOBS];
    variant_start(&w, v);
    assert_true(world_load(&w));
    if (warm) {
        execute_clean(&w);
    }
    size_t count = jobs_start(jobs, m);
    fault_arm(kind, number);
    (void)world_execute(&w, jobs, count);
    bool reached = fault_disarm(kind, number);
    if (m != MIX_ONE_BAD || reached) {
        jobs_finish(jobs, count, !reached);
    } else {
        job_expect_right(&jobs[0]);
        job_expect_failed(&jobs[1], "INPUT0");
        job_expect_right(&jobs[2]);
        jobs_finish(jobs, count, false);
    }
    execute_clean(&w);
    world_unload(&w);
    world_finish(&w);
    return reached;
}

static void every_request_is_answered_once_whatever_fails(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        for (int kind = 0; kind < FAULT_KINDS; kind++) {
            for (int m = 0; m < 2 * MIXES; m++) {
                uint64_t number = 1;
                while (execute_with_fault(&variants[v], (fault_kind)kind, (mix)(m / 2), m % 2 != 0,
                                          number)) {
                    number++;
                }
                assert_true(kind != FAULT_SERVER || number > 10);
            }
        }
    }
}

static void calls_that_always_fail_fail_the_requests_alone(void **state)
{
    (void)state;
    static const char *const names[] = {
        "TRITONBACKEND_ModelInstanceState",
        "TRITONBACKEND_RequestInputCount",
        "TRITONBACKEND_RequestInputByIndex",
        "TRITONBACKEND_InputProperties",
        "TRITONBACKEND_InputBuffer",
        "TRITONBACKEND_RequestOutputCount",
        "TRITONBACKEND_RequestOutputName",
        "TRITONBACKEND_ResponseOutput",
        "TRITONBACKEND_OutputBuffer",
        "TRITONBACKEND_ModelInstanceReportStatistics",
        "TRITONBACKEND_ModelInstanceReportBatchStatistics",
        "TRITONSERVER_ParameterNew",
        "TRITONSERVER_MetricNew",
        "TRITONSERVER_MetricIncrement",
        "TRITONSERVER_MetricSet",
    };
    for (size_t v = 0; v < VARIANTS; v++) {
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            world w;
            job jobs[JOBS];
            variant_start(&w, &variants[v]);
            assert_true(world_load(&w));
            size_t count = jobs_start(jobs, MIX_SHAPES);
            fake.fail_name = names[n];
            (void)world_execute(&w, jobs, count);
            assert_true(fake.failed[0] != '\0');
            fake.fail_name = NULL;
            jobs_finish(jobs, count, false);
            execute_clean(&w);
            world_unload(&w);
            world_finish(&w);
        }
    }
}

/* Nothing can be done for such a client; the operator reads why, the server goes on. */
static void a_request_that_cannot_be_answered_is_logged_and_released(void **state)
{
    (void)state;
    world w;
    job jobs[JOBS];
    variant_start(&w, &variants[0]);
    assert_true(world_load(&w));
    size_t count = jobs_start(jobs, MIX_SHAPES);
    fake.fail_name = "TRITONBACKEND_ResponseNew";
    assert_true(world_execute(&w, jobs, count));
    fake.fail_name = NULL;
    assert_non_null(strstr(fake.log, "without an answer"));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(jobs[i].request->releases, 1);
        assert_int_equal(jobs[i].request->finals, 0);
        assert_false(jobs[i].request->reported_success);
        job_finish(&jobs[i]);
    }
    execute_clean(&w);
    world_unload(&w);
    world_finish(&w);
}

static bool unload_with_fault(const variant *v, fault_kind kind, uint64_t number)
{
    world w;
    variant_start(&w, v);
    assert_true(world_load(&w));
    execute_clean(&w);
    fault_arm(kind, number);
    world_unload(&w);
    bool reached = fault_disarm(kind, number);
    world_finish(&w);
    return reached;
}

static void an_unload_leaves_nothing_whatever_fails(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        for (int kind = 0; kind < FAULT_KINDS; kind++) {
            uint64_t number = 1;
            while (unload_with_fault(&variants[v], (fault_kind)kind, number)) {
                number++;
            }
        }
    }
}

/* More requests than there ever were, while memory is out: all are answered. */
static void requests_without_room_are_answered(void **state)
{
    (void)state;
    for (uint64_t number = 1; number < 40; number++) {
        world w;
        job jobs[40];
        variant_start(&w, &variants[0]);
        assert_true(world_load(&w));
        for (unsigned i = 0; i < 40; i++) {
            job_simple(&jobs[i], &plan, 1, 5, i);
        }
        fault_arm(FAULT_MEMORY, number);
        assert_true(world_execute(&w, jobs, 40));
        (void)fault_disarm(FAULT_MEMORY, number);
        jobs_finish(jobs, 40, false);
        execute_clean(&w);
        world_unload(&w);
        world_finish(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_that_fails_says_so_and_leaves_nothing),
        cmocka_unit_test(every_request_is_answered_once_whatever_fails),
        cmocka_unit_test(calls_that_always_fail_fail_the_requests_alone),
        cmocka_unit_test(a_request_that_cannot_be_answered_is_logged_and_released),
        cmocka_unit_test(an_unload_leaves_nothing_whatever_fails),
        cmocka_unit_test(requests_without_room_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
