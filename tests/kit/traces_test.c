/*
 * What the kit tells the flight recorder: one event an execution, one a request, with the number of
 * the server's trace; and nothing at all, nor a question to the server, while nobody records.
 */
#include "world.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* The server's tracing, which other tests do without: the kit finds none there. */
static unsigned asked;
static bool fails;

TRITONSERVER_Error *TRITONBACKEND_RequestTrace(TRITONBACKEND_Request *request,
                                               TRITONSERVER_InferenceTrace **trace)
{
    asked++;
    *trace = asked % 4 == 0 ? NULL : (TRITONSERVER_InferenceTrace *)(void *)request;
    return fails ? TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED, "no tracing") : NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceTraceId(TRITONSERVER_InferenceTrace *trace, uint64_t *id)
{
    assert_non_null(trace);
    *id = 1000 + asked;
    return NULL;
}

static const model_plan plan = {
    .batch_max = 8,
    .input_count = 2,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}, {.dtype = UMO_UINT8, .dims = {1, {3}}}},
};

typedef struct told {
    unsigned batches, requests, others;
    umo_profile_event batch;
    umo_profile_event request[8];
} told;

static bool event_note(const umo_profile_event *e, void *user)
{
    told *t = user;
    if (e->kind == UMO_EVENT_BATCH) {
        t->batches++;
        t->batch = *e;
    } else if (e->kind == UMO_EVENT_REQUEST) {
        assert_true(t->requests < 8);
        t->request[t->requests++] = *e;
    } else {
        t->others++;
    }
    return true;
}

static told recorded(void)
{
    told t = {0};
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_int_equal(umo_profile_read(event_note, &t, NULL), UMO_OK);
    return t;
}

static void jobs_run(world *w, size_t count)
{
    job jobs[8];
    for (size_t i = 0; i < count; i++) {
        job_simple(&jobs[i], &plan, 1, 100, (unsigned)i);
    }
    assert_true(world_execute(w, jobs, count));
    for (size_t i = 0; i < count; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
}

static void each_request_is_told_with_the_servers_number(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan);
    asked = 0;
    fails = false;
    for (unsigned turn = 0; turn < 2; turn++) {
        assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
        jobs_run(&w, 5);
        const told t = recorded();
        assert_int_equal(t.batches, 1);
        assert_int_equal(t.batch.detail, 5);
        assert_int_equal(t.batch.size_bytes, 5 * 403);
        assert_int_equal(t.requests, 5);
        for (unsigned i = 0; i < 5; i++) {
            const unsigned number = turn * 5 + i + 1;
            assert_int_equal(t.request[i].detail, i);
            assert_int_equal(t.request[i].size_bytes, 403);
            assert_int_equal(t.request[i].status, UMO_OK);
            assert_int_equal(t.request[i].fence_value, number % 4 == 0 ? 0 : 1000 + number);
            assert_int_equal(t.request[i].offset_bytes, t.batch.offset_bytes);
            assert_true(t.request[i].duration_ns > t.batch.duration_ns);
            assert_int_equal(t.request[i].scope, t.batch.scope);
        }
        assert_true(t.batch.offset_bytes > 0);
    }
    world_unload(&w);
    world_finish(&w);
}

static void a_server_without_tracing_is_none_the_worse(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan);
    fails = true;
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    jobs_run(&w, 1);
    const told t = recorded();
    assert_int_equal(t.requests, 1);
    assert_int_equal(t.request[0].fence_value, 0);
    fails = false;
    world_unload(&w);
    world_finish(&w);
}

static void a_request_that_fails_says_how(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan);
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    job j;
    job_simple(&j, &plan, 1, 100, 1);
    engine.trouble = TROUBLE_BEFORE_INPUTS;
    assert_true(world_execute(&w, &j, 1));
    job_expect_failed(&j, "");
    job_finish(&j);
    const told t = recorded();
    assert_int_equal(t.requests, 1);
    assert_int_not_equal(t.request[0].status, UMO_OK);
    world_unload(&w);
    world_finish(&w);
}

static void nothing_is_asked_while_nobody_records(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan);
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    asked = 0;
    jobs_run(&w, 3);
    assert_int_equal(asked, 0);
    world_unload(&w);
    world_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_request_is_told_with_the_servers_number),
        cmocka_unit_test(a_server_without_tracing_is_none_the_worse),
        cmocka_unit_test(a_request_that_fails_says_how),
        cmocka_unit_test(nothing_is_asked_while_nobody_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
