/*
 * Responses of decoupled models: where they are written, how many are under way, what they bring.
 */
#include "streamer.h"

#include "driver/wrapper_test.h"
#include "kit/kit.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* ---- A client's shared memory ---- */

static struct {
    umo_request *request;
} held;

static umo_status hold(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_status status = umo_batch_take(batch, error);
    held.request = umo_batch_request(batch, 0);
    return status;
}

static void fill(const umo_tensor *tensor, int byte)
{
    memset(tensor->data, byte, tensor->size_bytes);
}

static void one_response_at_a_time_is_in_place(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_single, NULL);
    engine.run = hold;
    fake_region *region = fake_region_create(LENGTH, true, true);
    job j;
    job_start(&j, &plan, 1, (int64_t)LENGTH, 7);
    job_input_own(&j, 0, false);
    job_want(&j, 0, region->memory.data);
    assert_true(world_execute(&w, &j, 1));
    const umo_shape shape = {.rank = 1, .dims = {(int64_t)LENGTH}};
    umo_response *first = NULL;
    umo_response *second = NULL;
    umo_tensor one;
    umo_tensor two;
    umo_error error = {0};
    assert_int_equal(umo_response_begin(held.request, 0, &first, &error), UMO_OK);
    assert_int_equal(umo_response_begin(held.request, 0, &second, &error), UMO_OK);
    assert_int_equal(umo_response_output(first, 0, UMO_UINT8, &shape, &one, &error), UMO_OK);
    assert_int_equal(umo_response_output(second, 0, UMO_UINT8, &shape, &two, &error), UMO_OK);
    fill(&one, 'a');
    assert_int_equal((unsigned char)region->memory.data[0], 'a'); /* there at once */
    fill(&two, 'b');
    assert_int_equal((unsigned char)region->memory.data[0], 'a');
    assert_int_equal(umo_response_send(second, (umo_fence){0}, false), UMO_E_BUSY);
    assert_int_equal(umo_response_send(first, (umo_fence){0}, false), UMO_OK);
    assert_int_equal(umo_response_send(second, (umo_fence){0}, false), UMO_OK);
    const struct TRITONBACKEND_Output *got =
        fake_response_output(j.request->streamed[0], "OUTPUT0");
    assert_int_equal(got->received[LENGTH - 1], 'a');
    got = fake_response_output(j.request->streamed[1], "OUTPUT0");
    assert_int_equal(got->received[LENGTH - 1], 'b');
    umo_counters counters = world_counters(&w);
    assert_int_equal(counters.copy_performed[UMO_DIRECTION_OUT][UMO_REASON_OVERLAP].bytes, LENGTH);
    /* Who comes while one is still to be copied does not get in its way. */
    umo_response *third = NULL;
    umo_tensor three;
    assert_int_equal(umo_response_begin(held.request, 0, &first, &error), UMO_OK);
    assert_int_equal(umo_response_begin(held.request, 0, &second, &error), UMO_OK);
    assert_int_equal(umo_response_begin(held.request, 0, &third, &error), UMO_OK);
    assert_int_equal(umo_response_output(first, 0, UMO_UINT8, &shape, &one, &error), UMO_OK);
    assert_int_equal(umo_response_output(second, 0, UMO_UINT8, &shape, &two, &error), UMO_OK);
    umo_response_drop(first, (umo_fence){0});
    assert_int_equal(umo_response_output(third, 0, UMO_UINT8, &shape, &three, &error), UMO_OK);
    fill(&two, 'x');
    fill(&three, 'y');
    assert_int_equal((unsigned char)region->memory.data[0], 'b');
    assert_int_equal(umo_response_send(second, (umo_fence){0}, false), UMO_OK);
    assert_int_equal((unsigned char)region->memory.data[0], 'x');
    assert_int_equal(umo_response_send(third, (umo_fence){0}, false), UMO_OK);
    /* The place is free again; bytes that lie elsewhere wait for it. */
    assert_int_equal(umo_response_begin(held.request, 0, &first, &error), UMO_OK);
    assert_int_equal(umo_response_begin(held.request, 0, &second, &error), UMO_OK);
    assert_int_equal(umo_response_output(first, 0, UMO_UINT8, &shape, &one, &error), UMO_OK);
    fill(&one, 'c');
    assert_int_equal((unsigned char)region->memory.data[0], 'c');
    char late[LENGTH];
    memset(late, 'd', LENGTH);
    assert_int_equal(umo_response_output_late(second, 0, UMO_UINT8, &shape, late, LENGTH,
                                              UMO_REASON_UNKNOWN_SHAPE, &error),
                     UMO_E_BUSY);
    umo_response_drop(first, (umo_fence){0});
    assert_int_equal(umo_response_output_late(second, 0, UMO_UINT8, &shape, late, LENGTH,
                                              UMO_REASON_UNKNOWN_SHAPE, &error),
                     UMO_OK);
    assert_int_equal(umo_response_send(second, (umo_fence){0}, true), UMO_OK);
    got = fake_response_output(j.request->streamed[4], "OUTPUT0");
    assert_int_equal(got->received[0], 'd');
    assert_true(fake_request_wait(j.request));
    fake_request_expect_answered(j.request);
    job_finish(&j);
    fake_region_destroy(region);
    stream_end(&w);
}

static void a_response_never_overwrites_the_input(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_single, NULL);
    stream_reset(1);
    fake_region *region = fake_region_create(LENGTH, true, true);
    job j;
    job_start(&j, &plan, 1, (int64_t)LENGTH, 7);
    job_input_at(&j, 0, region->memory.data);
    job_want(&j, 0, region->memory.data);
    assert_true(world_execute(&w, &j, 1));
    assert_true(fake_request_wait(j.request));
    stream_threads_wait();
    stream_expect_right(&j, 1);
    assert_int_equal(world_counters(&w).copy_performed[UMO_DIRECTION_OUT][UMO_REASON_OVERLAP].bytes,
                     LENGTH);
    job_finish(&j);
    fake_region_destroy(region);
    stream_end(&w);
}

/* ---- Slots ---- */

static void *send_later(void *argument)
{
    const struct timespec moment = {.tv_nsec = 20000000};
    (void)nanosleep(&moment, NULL);
    stream_must(umo_response_send(argument, (umo_fence){0}, false));
    return NULL;
}

static void slots_bound_the_responses_under_way(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    model_plan two = stream_single;
    two.extra = SLOTS("2");
    stream_start(&w, &plan, &two, NULL);
    engine.run = hold;
    stream_reset(0);
    job j;
    job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
    assert_true(world_execute(&w, &j, 1));
    umo_response *open[3];
    umo_error error = {0};
    assert_int_equal(umo_response_begin(held.request, 0, &open[0], &error), UMO_OK);
    assert_int_equal(umo_response_begin(held.request, 0, &open[1], &error), UMO_OK);
    assert_int_equal(umo_response_begin(held.request, 0, &open[2], &error), UMO_E_BUSY);
    assert_string_equal(error.text, "all 2 response slots of the model are in use");
    uint64_t before_ns = kit_now_ns();
    assert_int_equal(umo_response_begin(held.request, 5000000, &open[2], &error), UMO_E_BUSY);
    assert_true(kit_now_ns() - before_ns >= 5000000);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_later, open[0]), 0);
    assert_int_equal(umo_response_begin(held.request, UINT64_MAX, &open[2], &error), UMO_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(umo_response_send(open[1], (umo_fence){0}, true), UMO_OK);
    assert_int_equal(j.request->finals, 0); /* one is open */
    umo_response_drop(open[2], (umo_fence){0});
    fake_request_expect_answered(j.request);
    assert_int_equal(j.request->streamed_count, 2);
    job_finish(&j);
    stream_end(&w);
}

#define THOUSANDS 5000u

static void thousands_of_responses_allocate_nothing(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_single, NULL);
    job j;
    for (unsigned turn = 0; turn < 3; turn++) {
        stream_reset(turn < 2 ? 10 : THOUSANDS);
        how.in_execute = true;
        how.empty = turn == 2; /* the fake server keeps what was received */
        job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
        if (turn > 0) {
            allocations_start(0);
        }
        assert_true(world_execute(&w, &j, 1));
        assert_int_equal(turn > 0 ? allocations_stop() : 0, 0);
        assert_int_equal(j.request->streamed_count, how.responses);
        fake_request_expect_answered(j.request);
        job_finish(&j);
    }
    stream_end(&w);
}

/* ---- Strings and devices ---- */

static umo_status strings_run(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_status status = umo_batch_take(batch, error);
    umo_tensor in;
    if (status == UMO_OK) {
        status = umo_batch_input(batch, 0, &in, error);
    }
    for (unsigned i = 0; i < 3 && status == UMO_OK; i++) {
        umo_response *response = NULL;
        umo_request *request = umo_batch_request(batch, 0);
        assert_int_equal(umo_response_begin(request, 0, &response, error), UMO_OK);
        status = umo_response_output_late(response, 0, UMO_BYTES, &in.shape, in.data, in.size_bytes,
                                          UMO_REASON_ENGINE_STRINGS, error);
        stream_must(umo_response_send(response, (umo_fence){0}, i == 2));
    }
    return status;
}

static void responses_of_strings(void **state)
{
    (void)state;
    world w;
    static const model_plan strings = {
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_BYTES, .dims = {1, {-1}}}},
        .extra = DECOUPLED,
    };
    model_plan plan;
    stream_start(&w, &plan, &strings, NULL);
    engine.run = strings_run;
    stream_reset(0);
    job j;
    job_simple(&j, &plan, 1, 4, 7);
    assert_true(world_execute(&w, &j, 1));
    fake_request_expect_answered(j.request);
    assert_string_equal(j.request->text, "");
    assert_int_equal(j.request->streamed_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        const struct TRITONBACKEND_Output *out =
            fake_response_output(j.request->streamed[i], "OUTPUT0");
        assert_int_equal(out->size_bytes, j.sizes[0]);
        assert_memory_equal(out->received, j.contents[0], j.sizes[0]);
    }
    assert_int_equal(how.problems, 0);
    job_finish(&j);
    stream_end(&w);
}

static bool device_fails; /* the next time that somebody waits for it */

static bool wait_fails(const char *entry)
{
    bool fails = device_fails && strcmp(entry, "fence_wait") == 0;
    device_fails = device_fails && !fails;
    return fails;
}

/* A device writes each response behind the last one's back: only the fences order anything. */
static umo_status device_run(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    umo_request *request = umo_batch_request(batch, 0);
    for (unsigned i = 0; i < 3; i++) {
        umo_response *response = NULL;
        umo_tensor to;
        unsigned char output = (unsigned char)(i + 1);
        assert_int_equal(umo_response_begin(request, 0, &response, error), UMO_OK);
        assert_int_equal(umo_response_output(response, 0, UMO_UINT8, &in.shape, &to, error),
                         UMO_OK);
        umo_kernel_arg args[3] = {
            {.kind = UMO_ARG_MEMORY,
             .memory = umo_buffer_memory(in.buffer),
             .offset_bytes = umo_buffer_memory_offset(in.buffer) + in.offset_bytes},
            {.kind = UMO_ARG_MEMORY,
             .memory = umo_buffer_memory(to.buffer),
             .offset_bytes = umo_buffer_memory_offset(to.buffer) + to.offset_bytes},
            {.kind = UMO_ARG_VALUE, .size_bytes = 1, .value = &output}};
        const umo_grid grid = {.dimensions = 1, .global = {to.size_bytes, 1, 1}};
        umo_fence_set waits = *umo_batch_waits(batch);
        const umo_fence_set *own = umo_response_waits(response);
        for (size_t f = 0; f < own->count; f++) {
            assert_true(umo_fence_set_add(&waits, own->fences[f]));
        }
        umo_fence fence;
        assert_int_equal(umo_kernel_launch(engine.change, engine.queue, args, 3, &grid,
                                           waits.fences, waits.count, &fence, error),
                         UMO_OK);
        device_fails = i + 1 == how.bad;
        stream_must(umo_response_send(response, fence, i == 2));
        device_fails = false;
    }
    return UMO_OK;
}

static void a_device_that_fails_fails_one_response(void **state)
{
    (void)state;
    world w;
    model_plan plan = stream_single;
    plan.unified = "{\"zero_copy_threshold\": 0}";
    world_start(&w);
    const wrapper_switches switches = {.fails = wait_fails};
    const umo_driver_options options = {.delay_ns = 20000, .test_mode = true};
    engine.device = wrapper_device(&switches, &options);
    engine.run = device_run;
    world_load_ok(&w, &plan);
    stream_reset(3);
    how.bad = 2;
    job j;
    job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
    assert_true(world_execute(&w, &j, 1));
    assert_true(fake_request_wait(j.request));
    fake_request_expect_answered(j.request);
    assert_int_equal(j.request->streamed_count, 3);
    stream_expect_response(&j, 0);
    assert_string_equal(j.request->streamed[1]->text,
                        "the device failed while it ran model 'fake'");
    stream_expect_response(&j, 2);
    job_finish(&j);
    stream_end(&w);
}

static void a_device_writes_responses(void **state)
{
    (void)state;
    static const char *const ways[] = {"{\"enable\": false}", "{\"zero_copy_threshold\": 0}",
                                       "{\"zero_copy_threshold\": 1000}"};
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        for (int shared = 0; shared < 2; shared++) {
            world w;
            model_plan plan = stream_single;
            plan.unified = ways[way];
            world_start(&w);
            engine.device = world_device(20000, true);
            engine.run = device_run;
            world_load_ok(&w, &plan);
            stream_reset(3);
            fake_region *region = fake_region_create(LENGTH, true, true);
            job j;
            job_start(&j, &plan, 1, (int64_t)LENGTH, 7);
            job_input_own(&j, 0, shared != 0);
            job_want(&j, 0, shared != 0 ? region->memory.data : NULL);
            assert_true(world_execute(&w, &j, 1));
            assert_true(fake_request_wait(j.request));
            assert_int_equal(how.problems, 0);
            stream_expect_right(&j, 3);
            job_finish(&j);
            fake_region_destroy(region);
            stream_end(&w);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_response_at_a_time_is_in_place),
        cmocka_unit_test(a_response_never_overwrites_the_input),
        cmocka_unit_test(slots_bound_the_responses_under_way),
        cmocka_unit_test(thousands_of_responses_allocate_nothing),
        cmocka_unit_test(responses_of_strings),
        cmocka_unit_test(a_device_writes_responses),
        cmocka_unit_test(a_device_that_fails_fails_one_response),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
