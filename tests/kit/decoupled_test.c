/*
 * Decoupled models: requests that live on when execute has returned, how they end, and everything
 * that can go wrong on the way.
 */
#include "streamer.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* ---- Life of a request ---- */

static void a_request_lives_on_when_execute_has_returned(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        for (int final = 0; final < 2; final++) {
            world w;
            model_plan plan;
            stream_start(&w, &plan, &stream_single, NULL);
            stream_reset(5);
            how.final = final != 0;
            how.drops = true;
            job j;
            job_start(&j, &plan, 1, (int64_t)LENGTH, 7);
            job_input_own(&j, 0, shared != 0);
            job_want(&j, 0, NULL);
            (void)pthread_mutex_lock(&how.gate);
            assert_true(world_execute(&w, &j, 1));
            assert_int_equal(j.request->releases, 0);
            (void)pthread_mutex_unlock(&how.gate);
            assert_true(fake_request_wait(j.request));
            stream_threads_wait();
            stream_expect_right(&j, 5);
            assert_int_equal(j.request->streamed[4]->final, final != 0);
            assert_int_equal(w.instance.batches, 1);
            job_finish(&j);
            stream_end(&w);
        }
    }
}

static void a_request_may_have_no_response_or_empty_ones(void **state)
{
    (void)state;
    for (int in_execute = 0; in_execute < 2; in_execute++) {
        for (unsigned responses = 0; responses < 3; responses++) {
            world w;
            model_plan plan;
            stream_start(&w, &plan, &stream_single, NULL);
            stream_reset(responses);
            how.empty = true;
            how.in_execute = in_execute != 0;
            job j;
            job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
            assert_true(world_execute(&w, &j, 1));
            assert_true(fake_request_wait(j.request));
            stream_threads_wait();
            fake_request_expect_answered(j.request);
            assert_int_equal(j.request->streamed_count, responses);
            assert_int_equal(j.request->told_empty, responses + 1); /* and the end */
            assert_int_equal(j.request->told_full + j.request->told_failed, 0);
            for (unsigned i = 0; i < responses; i++) {
                assert_int_equal(j.request->streamed[i]->output_count, 0);
            }
            job_finish(&j);
            stream_end(&w);
        }
    }
}

static void errors_in_the_middle_and_at_the_end(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_single, NULL);
    stream_reset(3);
    how.bad = 2;
    job j;
    job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
    assert_true(world_execute(&w, &j, 1));
    assert_true(fake_request_wait(j.request));
    stream_threads_wait();
    assert_int_equal(j.request->streamed_count, 3);
    stream_expect_response(&j, 0);
    assert_string_equal(j.request->streamed[1]->text, "this response failed");
    stream_expect_response(&j, 2);
    assert_int_equal(j.request->told_full, 2);
    assert_int_equal(j.request->told_failed, 1);
    assert_int_equal(j.request->told_empty, 1);
    job_finish(&j);
    /* The last of all is an error with FINAL. */
    stream_reset(1);
    how.fate = UMO_E_DEVICE;
    job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
    assert_true(world_execute(&w, &j, 1));
    assert_true(fake_request_wait(j.request));
    stream_threads_wait();
    job_expect_failed(&j, "the whole request failed");
    assert_int_equal(j.request->streamed_count, 2);
    assert_true(j.request->streamed[1]->final);
    assert_false(j.request->reported_success);
    assert_int_equal(j.request->told_full, 1);
    assert_int_equal(j.request->told_failed, 1);
    assert_int_equal(j.request->told_empty, 0);
    job_finish(&j);
    stream_end(&w);
}

/* Any of the calls for it may fail: then a response goes untold, and that is all. */
static void a_server_without_statistics_of_responses_is_told_nothing(void **state)
{
    (void)state;
    static const char *const calls[] = {"New", "SetModelInstance", "SetResponseEnd", "SetError"};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        world w;
        model_plan plan;
        char name[96];
        (void)snprintf(name, sizeof name, "TRITONBACKEND_ModelInstanceResponseStatistics%s",
                       calls[i]);
        fake_reset();
        stream_start(&w, &plan, &stream_single, NULL);
        world_unload(&w);
        fake.fail_name = name;
        assert_true(world_load(&w));
        stream_reset(3);
        job j;
        job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
        assert_true(world_execute(&w, &j, 1));
        assert_true(fake_request_wait(j.request));
        stream_threads_wait();
        stream_expect_right(&j, 3);
        assert_int_equal(j.request->told_full + j.request->told_failed + j.request->told_empty, 0);
        job_finish(&j);
        fake.fail_name = NULL;
        stream_end(&w);
    }
}

static umo_status take_and_fail(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_status status = umo_batch_take(batch, error);
    if (status == UMO_OK && how.bad == 1) {
        umo_batch_fail(batch, 0, UMO_E_INVAL, "not this one");
        umo_request_finish(umo_batch_request(batch, 1), UMO_OK, NULL);
        return UMO_OK;
    }
    return status != UMO_OK ? status : umo_error_set(error, UMO_E_DEVICE, 0, "execute stumbled");
}

static void what_execute_says_is_the_end(void **state)
{
    (void)state;
    for (unsigned one = 0; one < 2; one++) {
        world w;
        model_plan plan;
        stream_start(&w, &plan, &stream_batching, NULL);
        engine.run = take_and_fail;
        stream_reset(0);
        how.bad = one;
        job jobs[2];
        for (unsigned i = 0; i < 2; i++) {
            job_simple(&jobs[i], &plan, 1, (int64_t)LENGTH, i);
        }
        assert_true(world_execute(&w, jobs, 2));
        unsigned failed = 0;
        for (unsigned i = 0; i < 2; i++) {
            fake_request_expect_answered(jobs[i].request);
            const char *text = jobs[i].request->text;
            failed += text[0] != '\0' ? 1 : 0;
            if (text[0] != '\0') {
                assert_string_equal(text, one == 1 ? "not this one" : "execute stumbled");
            }
            job_finish(&jobs[i]);
        }
        assert_int_equal(failed, one == 1 ? 1 : 2);
        stream_end(&w);
    }
}

static umo_status misuse(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    umo_tensor out;
    const umo_shape shape = {.rank = 1, .dims = {(int64_t)LENGTH}};
    umo_response *response = NULL;
    assert_null(umo_batch_request(batch, 0));
    if (how.bad == 1) {
        assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
        return umo_batch_take(batch, error);
    }
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_take(batch, error), UMO_E_INVAL);
    assert_null(umo_batch_request(batch, 1));
    assert_int_equal(umo_batch_output(batch, 0, UMO_UINT8, &shape, &out, error), UMO_E_INVAL);
    assert_non_null(strstr(error->text, "belongs to a response"));
    assert_int_equal(
        umo_batch_output_late(batch, 0, UMO_UINT8, &shape, "", 1, UMO_REASON_UNKNOWN_SHAPE, error),
        UMO_E_INVAL);
    umo_request *request = umo_batch_request(batch, 0);
    assert_true(umo_request_wants_output(request, 0));
    assert_false(umo_request_wants_output(request, 1));
    umo_request_finish(request, UMO_OK, NULL);
    assert_int_equal(umo_response_begin(request, 0, &response, error), UMO_E_INVAL);
    error->text[0] = '\0';
    return UMO_OK;
}

static void misuse_is_refused_in_words(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        world w;
        model_plan plan;
        stream_start(&w, &plan, &stream_single, NULL);
        engine.run = misuse;
        stream_reset(0);
        how.bad = late;
        job j;
        job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
        assert_true(world_execute(&w, &j, 1));
        fake_request_expect_answered(j.request);
        assert_string_equal(j.request->text,
                            late == 1 ? "the batch was taken, or its tensors are in use" : "");
        job_finish(&j);
        stream_end(&w);
    }
    world w;
    model_plan plan = stream_single;
    plan.extra = NULL;
    world_start(&w);
    engine.run = stream_engine;
    world_load_ok(&w, &plan);
    assert_false(umo_model_decoupled(w.model.state));
    job j;
    job_simple(&j, &plan, 1, 5, 7);
    assert_true(world_execute(&w, &j, 1));
    job_expect_failed(&j, "model 'fake' is not decoupled");
    job_finish(&j);
    stream_end(&w);
}

static void a_model_that_takes_nothing_answers_as_ever(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_batching, NULL);
    engine.run = NULL;
    job jobs[3];
    for (unsigned i = 0; i < 3; i++) {
        job_simple(&jobs[i], &plan, 1, (int64_t)LENGTH, i);
    }
    assert_true(world_execute(&w, jobs, 3));
    for (unsigned i = 0; i < 3; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
    stream_end(&w);
}

static void bad_numbers_of_slots_do_not_load(void **state)
{
    (void)state;
    static const char *const extras[] = {SLOTS("0"), SLOTS("many"), SLOTS("-1"), SLOTS("65537"),
                                         SLOTS("7x")};
    for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        world w;
        model_plan plan = stream_single;
        plan.extra = extras[i];
        world_start(&w);
        world_configure(&w, &plan);
        assert_false(world_load(&w));
        assert_non_null(strstr(w.text, "is no integer from 1 to 65536"));
        world_finish(&w);
    }
}

/* ---- Batches ---- */

static void requests_of_a_batch_end_one_by_one(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_batching, NULL);
    stream_reset(3);
    job jobs[4];
    for (unsigned turn = 0; turn < 5; turn++) {
        for (unsigned i = 0; i < 4; i++) {
            job_start(&jobs[i], &plan, 1, (int64_t)LENGTH, i);
            job_input_own(&jobs[i], 0, turn % 2 == 1); /* taken away at FINAL */
            job_want(&jobs[i], 0, NULL);
        }
        how.in_execute = turn == 4;
        assert_true(world_execute(&w, jobs, 4));
        for (unsigned i = 0; i < 4; i++) {
            assert_true(fake_request_wait(jobs[i].request));
        }
        stream_threads_wait();
        for (unsigned i = 0; i < 4; i++) {
            stream_expect_right(&jobs[i], 3);
            job_finish(&jobs[i]);
        }
    }
    assert_int_equal(world_counters(&w).copy_performed[UMO_DIRECTION_IN][UMO_REASON_OUTLIVES].bytes,
                     5 * 4 * LENGTH);
    stream_end(&w);
}

/* ---- Cancellation ---- */

static void a_request_is_cancelled_in_the_middle(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_single, NULL);
    stream_reset(1000000);
    how.empty = true;
    how.until_cancelled = true;
    job j;
    job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
    assert_true(world_execute(&w, &j, 1));
    atomic_store(&j.request->cancelled, true);
    assert_true(fake_request_wait(j.request));
    stream_threads_wait();
    job_expect_failed(&j, "stopped");
    assert_int_equal(j.request->code, TRITONSERVER_ERROR_CANCELLED);
    job_finish(&j);
    stream_end(&w);
}

/* ---- States ---- */

static umo_status state_run(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor past;
    umo_tensor future;
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 1, &past, error), UMO_OK);
    if (how.bad == 0) {
        assert_int_equal(umo_batch_output(batch, 1, UMO_UINT8, &past.shape, &future, error),
                         UMO_OK);
        memset(future.data, 'n', future.size_bytes);
    }
    umo_request_finish(umo_batch_request(batch, 0), UMO_OK, NULL);
    return UMO_OK;
}

static void a_decoupled_sequence_has_its_state_when_execute_returns(void **state)
{
    (void)state;
    for (unsigned bad = 0; bad < 2; bad++) {
        world w;
        model_plan plan = stream_single;
        plan.extra = DECOUPLED ", \"sequence_batching\": {\"oldest\": {}, \"state\": "
                               "[{\"input_name\": \"PAST\", \"output_name\": \"FUTURE\", "
                               "\"data_type\": \"TYPE_UINT8\", \"dims\": [8]}]}";
        fake_sequence sequence = {0};
        world_start(&w);
        engine.run = state_run;
        world_load_ok(&w, &plan);
        stream_reset(0);
        how.bad = bad;
        const int64_t dims = 8;
        fake_state *kept = fake_sequence_add(&sequence, "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8,
                                             1, &dims, "one more", 8);
        job j;
        job_simple(&j, &plan, 1, 4, 7);
        fake_sequence_join(&sequence, j.request);
        assert_true(world_execute(&w, &j, 1));
        fake_request_expect_answered(j.request);
        assert_string_equal(j.request->text,
                            bad == 1 ? "model 'fake' gave no output 'FUTURE'" : "");
        assert_int_equal(kept->updates, 1 - bad);
        assert_int_equal(kept->now.data[7], bad == 1 ? 'e' : 'n');
        job_finish(&j);
        fake_sequence_destroy(&sequence);
        stream_end(&w);
    }
}

/* ---- Faults and threads ---- */

static void every_call_that_fails_leaves_every_request_with_one_end(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        bool failed = true;
        unsigned tried = 0;
        for (uint64_t number = 1; failed; number++) {
            world w;
            model_plan plan;
            stream_start(&w, &plan, &stream_batching, NULL);
            stream_reset(2);
            how.in_execute = number % 2 == 0;
            how.final = number % 3 == 0;
            how.drops = true;
            job jobs[2];
            for (unsigned i = 0; i < 2; i++) {
                job_simple(&jobs[i], &plan, 1, (int64_t)LENGTH, i);
            }
            fake.failed[0] = '\0';
            if (kind == 0) {
                fake.calls = 0;
                fake.fail_at = number;
            } else {
                allocations_start(number);
            }
            (void)world_execute(&w, jobs, 2);
            for (unsigned i = 0; i < 2; i++) {
                assert_true(fake_request_wait(jobs[i].request));
            }
            stream_threads_wait();
            failed = kind == 0 ? fake.failed[0] != '\0' : allocations_stop() >= number;
            fake.fail_at = 0;
            tried++;
            for (unsigned i = 0; i < 2; i++) {
                fake_request_expect_answered(jobs[i].request);
                if (!failed) {
                    stream_expect_right(&jobs[i], 2);
                }
                job_finish(&jobs[i]);
            }
            stream_end(&w);
        }
        assert_true(tried > (kind == 0 ? 40 : 3));
    }
}

#define WORKERS 3u
#define TURNS 30u

typedef struct worker {
    pthread_t thread;
    TRITONBACKEND_ModelInstance instance;
    const model_plan *plan;
    unsigned number;
    unsigned failed;
} worker;

static void *worker_main(void *argument)
{
    worker *me = argument;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        job jobs[3];
        TRITONBACKEND_Request *requests[3];
        unsigned count = 1 + (turn + me->number) % 3;
        for (unsigned i = 0; i < count; i++) {
            job_simple(&jobs[i], me->plan, 1, (int64_t)LENGTH, turn + i);
            requests[i] = jobs[i].request;
        }
        me->failed += fake_execute(&me->instance, requests, count) ? 0 : 1;
        for (unsigned i = 0; i < count; i++) {
            me->failed += fake_request_wait(requests[i]) ? 0 : 1;
        }
        for (unsigned i = 0; i < count; i++) {
            me->failed += requests[i]->streamed_count == how.responses ? 0 : 1;
            me->failed += requests[i]->finals == 1 ? 0 : 1;
        }
        for (unsigned i = 0; i < count; i++) {
            job_finish(&jobs[i]);
        }
    }
    return NULL;
}

static void instances_stream_at_once(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    model_plan few = stream_batching;
    few.extra = SLOTS("3");
    stream_start(&w, &plan, &few, NULL);
    stream_reset(4);
    how.drops = false;
    worker workers[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (worker){.plan = &plan, .number = i};
        assert_true(fake_instance_load(&workers[i].instance, &w.model, "one", w.text));
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].failed, 0);
    }
    stream_threads_wait();
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_true(fake_instance_unload(&workers[i].instance, w.text));
    }
    stream_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_lives_on_when_execute_has_returned),
        cmocka_unit_test(a_request_may_have_no_response_or_empty_ones),
        cmocka_unit_test(errors_in_the_middle_and_at_the_end),
        cmocka_unit_test(a_server_without_statistics_of_responses_is_told_nothing),
        cmocka_unit_test(what_execute_says_is_the_end),
        cmocka_unit_test(misuse_is_refused_in_words),
        cmocka_unit_test(a_model_that_takes_nothing_answers_as_ever),
        cmocka_unit_test(bad_numbers_of_slots_do_not_load),
        cmocka_unit_test(requests_of_a_batch_end_one_by_one),
        cmocka_unit_test(a_request_is_cancelled_in_the_middle),
        cmocka_unit_test(a_decoupled_sequence_has_its_state_when_execute_returns),
        cmocka_unit_test(every_call_that_fails_leaves_every_request_with_one_end),
        cmocka_unit_test(instances_stream_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
