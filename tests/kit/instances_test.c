/*
 * Instances of two models in threads of their own: they share the context, its views and wraps, one
 * client's regions and the models' counters. Meant for the thread sanitizer, right without it too.
 */
#include "world.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define THREADS 4u
#define TURNS 40u
#define LENGTH ((size_t)3000)

static const model_plan bytes = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .unified = "{\"zero_copy_threshold\": 64}",
};

typedef struct worker {
    pthread_t thread;
    TRITONBACKEND_Model *model;
    TRITONBACKEND_ModelInstance instance;
    fake_region *inputs; /* everybody's */
    char *output;        /* its own range of a region that everybody writes to */
    unsigned number;
    unsigned failed;
} worker;

/* The jobs of one turn: two in everybody's region, one by itself. */
static void turn_run(worker *me, unsigned turn)
{
    job jobs[3];
    TRITONBACKEND_Request *requests[3];
    for (unsigned i = 0; i < 3; i++) {
        job_start(&jobs[i], &bytes, 1, i < 2 ? (int64_t)LENGTH : 1 + turn % 70, i < 2 ? i : turn);
        if (i < 2) {
            /* The bytes are there already, and the same for all. */
            jobs[i].inputs[0] = fake_input(jobs[i].request, "INPUT0", TRITONSERVER_TYPE_UINT8, 2,
                                           jobs[i].shapes[0].dims);
            fake_input_piece(jobs[i].inputs[0], me->inputs->memory.data + i * LENGTH, LENGTH);
            jobs[i].present[0] = true;
            job_want(&jobs[i], 0, me->output + i * LENGTH);
        } else {
            job_input_own(&jobs[i], 0, turn % 3 == 0);
            job_want(&jobs[i], 0, NULL);
        }
        requests[i] = jobs[i].request;
    }
    if (!fake_execute(&me->instance, requests, 3)) {
        me->failed++;
    }
    for (unsigned i = 0; i < 3; i++) {
        const struct TRITONBACKEND_Output *received = fake_received(jobs[i].request, "OUTPUT0");
        bool right = jobs[i].request->text[0] == '\0' && received != NULL &&
                     received->size_bytes == jobs[i].sizes[0];
        for (size_t b = 0; right && b < jobs[i].sizes[0]; b++) {
            right = (unsigned char)received->received[b] ==
                    engine_byte((unsigned char)jobs[i].contents[0][b], 0);
        }
        me->failed += right ? 0 : 1;
        job_finish(&jobs[i]);
    }
}

static void *worker_main(void *argument)
{
    worker *me = argument;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        turn_run(me, turn);
    }
    return NULL;
}

/* Something that comes and goes while the workers work. */
static void *visitor_main(void *argument)
{
    world *w = argument;
    for (unsigned turn = 0; turn < TURNS / 4; turn++) {
        TRITONBACKEND_Model model;
        TRITONBACKEND_ModelInstance instance;
        char text[FAKE_TEXT_BYTES];
        if (!fake_model_load(&model, "visitor", text) ||
            !fake_instance_load(&instance, &model, "visitor_0", text) ||
            !fake_instance_unload(&instance, text) || !fake_model_unload(&model, text)) {
            return argument;
        }
        (void)umo_registry_sweep(umo_context_registry(w->context));
    }
    return NULL;
}

static void run(bool on_device, bool contested)
{
    world w;
    worker workers[THREADS];
    TRITONBACKEND_Model models[2];
    pthread_t visitor;
    void *visit = NULL;
    world_start(&w);
    if (on_device) {
        engine.device = world_device(20000, true);
    }
    world_configure(&w, &bytes);
    fake_region *inputs = fake_region_create(2 * LENGTH, true, false);
    fake_region *outputs = fake_region_create(2 * LENGTH * THREADS, true, true);
    for (unsigned i = 0; i < 2; i++) {
        job j;
        job_start(&j, &bytes, 1, (int64_t)LENGTH, i);
        memcpy(inputs->memory.data + i * LENGTH, j.contents[0], LENGTH);
        job_finish(&j);
        assert_true(fake_model_load(&models[i], i == 0 ? "first" : "second", w.text));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.model = &models[i % 2],
                              .inputs = inputs,
                              .output = outputs->memory.data + (contested ? 0 : 2 * LENGTH * i),
                              .number = i};
        assert_true(fake_instance_load(&workers[i].instance, workers[i].model, "one", w.text));
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
    assert_int_equal(pthread_create(&visitor, NULL, visitor_main, &w), 0);
    assert_int_equal(pthread_join(visitor, &visit), 0);
    assert_null(visit);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].failed, 0);
        assert_true(fake_instance_unload(&workers[i].instance, w.text));
    }
    for (unsigned i = 0; i < 2; i++) {
        umo_counters counters;
        umo_scope_read(umo_model_scope(models[i].state), &counters);
        /* The two in the region lie in a run; only the third may be too small to bind. */
        assert_int_equal(counters.copy_performed[UMO_DIRECTION_IN][UMO_REASON_SCATTERED].bytes, 0);
        assert_true(fake_model_unload(&models[i], w.text));
    }
    fake_region_destroy(inputs);
    fake_region_destroy(outputs);
    world_finish(&w);
}

static void instances_may_be_made_side_by_side(void **state)
{
    (void)state;
    char attributes;
    fake_reset();
    assert_null(TRITONBACKEND_GetBackendAttribute(
        NULL, (TRITONBACKEND_BackendAttribute *)(void *)&attributes));
    assert_true(fake.parallel);
}

static void instances_of_a_cpu_share_what_they_share(void **state)
{
    (void)state;
    run(false, false);
}

static void instances_of_a_device_share_what_they_share(void **state)
{
    (void)state;
    run(true, false);
}

/* All write the same bytes to one place, and each is answered right. The thread sanitizer is right
 * to call that a race of the clients. */
static void instances_that_share_an_output_are_all_answered(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    run(false, true);
    run(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instances_may_be_made_side_by_side),
        cmocka_unit_test(instances_of_a_cpu_share_what_they_share),
        cmocka_unit_test(instances_of_a_device_share_what_they_share),
        cmocka_unit_test(instances_that_share_an_output_are_all_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
