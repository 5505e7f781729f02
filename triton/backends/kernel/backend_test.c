/*
 * The backend's own functions over a kit and a device that the test controls: what is bound, on
 * which queue, behind which fences, and that nothing stays when any step fails.
 */
#include "rig_test.h"

#include <umo/weights.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char variable_kernel[] =
    "{\"file\": \"test.fake\", \"function\": \"f\", \"options\": \"-O9\", \"arguments\": ["
    "{\"input\": \"A\", \"align\": 256}, {\"input\": \"B\", \"index\": true}, {\"output\": \"Y\"}, "
    "{\"size\": \"batch*A[0]\", \"type\": \"uint32\"}], \"global_size\": [\"A[0]\"], "
    "\"local_size\": [16], \"outputs\": {\"Y\": [\"A[0]+B[0]\"]}}";

#define ARGUMENTS 4u

/* The same with 32 floats behind the first 64 bytes of a file. */
static const char weighted_kernel[] =
    "{\"file\": \"test.fake\", \"function\": \"f\", \"arguments\": [{\"input\": \"A\"}, "
    "{\"weights\": \"w.bin\", \"dtype\": \"FP32\", \"dims\": [4, 8], \"offset\": 64}, "
    "{\"input\": \"B\"}, {\"output\": \"Y\"}], \"global_size\": [\"A[0]\"], "
    "\"outputs\": {\"Y\": [\"A[0]+B[0]\"]}}";

/* ---- Loading ---- */

static void loading_declares_what_the_kernel_needs(void **unused)
{
    (void)unused;
    umo_model model;
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    void *state = fake_model_start(&model);
    assert_int_equal(model.inputs[0].align_bytes, 256);
    assert_false(model.inputs[0].control);
    assert_int_equal(model.inputs[1].align_bytes, 4);
    assert_true(model.inputs[1].control);
    assert_int_equal(model.outputs[0].align_bytes, 4);
    assert_string_equal(fake.text, "text of the program");
    assert_string_equal(fake.options, "-O9");
    umo_backend_table.model_finish(state);
    /* An index is only what the description calls one. */
    char kernel[sizeof variable_kernel];
    memcpy(kernel, variable_kernel, sizeof kernel);
    memcpy(strstr(kernel, "true"), "null", 4);
    memcpy(strstr(kernel, ", \"index\": null"), "               ", 15);
    model.kernel = kernel;
    state = fake_model_start(&model);
    assert_false(model.inputs[1].control);
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

static void loading_runs_the_kernel_once(void **unused)
{
    (void)unused;
    umo_model model;
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    void *state = fake_model_start(&model);
    assert_int_equal(fake.launches, 1);
    assert_int_equal(fake.grid.global[0], 64);
    assert_int_equal(fake.grid.local[0], 16);
    assert_int_equal(fake.values[3], 64);
    assert_true(fake.args[0].size_bytes >= 64 * 4);
    assert_true(fake.args[2].size_bytes >= 128 * 4);
    assert_int_equal(model.warnings, 0);
    umo_counters counters;
    umo_scope_read(umo_context_scope(model.context), &counters);
    assert_int_equal(counters.live_buffers, 0);
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

static void a_refused_size_of_our_choice_gives_way_to_the_next(void **unused)
{
    (void)unused;
    umo_model model;
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    fake.group_max = 20;
    void *state = fake_model_start(&model);
    assert_int_equal(fake.launches, 1);
    assert_int_equal(fake.grid.global[0], 16);
    umo_backend_table.model_finish(state);
    /* None will do: the model loads all the same, and says so. */
    fake_device_reset(ARGUMENTS);
    fake.group_max = 1;
    state = fake_model_start(&model);
    assert_int_equal(fake.launches, 0);
    assert_int_equal(model.warnings, 1);
    assert_non_null(strstr(model.warning,
                           "not tried at load: test.fake, kernel 'f': that work size is refused"));
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

static void a_refused_size_of_the_model_is_an_error(void **unused)
{
    (void)unused;
    umo_model model;
    void *state = NULL;
    umo_error error = {0};
    fake_model_setup(&model, 40, variable_kernel, ARGUMENTS);
    fake.group_max = 1000;
    assert_int_equal(umo_backend_table.model_init(&model, &state, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "test.fake, kernel 'f': that work size is refused");
    assert_null(state);
    fake_model_teardown(&model);
}

static void arguments_that_do_not_fit_are_an_error(void **unused)
{
    (void)unused;
    umo_model model;
    void *state = NULL;
    umo_error error = {0};
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    fake.arg_count = 5;
    assert_int_equal(umo_backend_table.model_init(&model, &state, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "test.fake, kernel 'f': the kernel takes 5 argument(s), not 4");
    fake_model_teardown(&model);
}

static void a_device_that_fails_the_trial_is_an_error(void **unused)
{
    (void)unused;
    umo_model model;
    void *state = NULL;
    umo_error error = {0};
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    fake.fence_says = UMO_E_DEVICE;
    assert_int_equal(umo_backend_table.model_init(&model, &state, &error), UMO_E_DEVICE);
    assert_non_null(strstr(error.text, "the device failed while it ran"));
    fake_model_teardown(&model);
}

static void instances_take_the_queues_in_turn(void **unused)
{
    (void)unused;
    umo_model model;
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    void *state = fake_model_start(&model);
    umo_instance instances[3] = {{.model = &model}, {.model = &model}, {.model = &model}};
    void *states[3];
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(umo_backend_table.instance_init(&instances[i], state, &states[i], NULL),
                         UMO_OK);
        assert_int_equal(instances[i].queue, i % FAKE_QUEUES);
        assert_non_null(instances[i].device);
    }
    for (size_t i = 0; i < 3; i++) {
        umo_backend_table.instance_finish(states[i]);
    }
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

/* Each fallible call of the device fails once: the error comes out, and nothing stays. Returns how
 * many of them were errors. */
static long fail_each_step(umo_model *model)
{
    long refused = 0;
    for (long at = 0;; at++) {
        void *state = NULL;
        void *instance_state = NULL;
        umo_error error = {0};
        umo_instance instance = {.model = model};
        /* A context keeps its device open, so each round has one of its own. */
        umo_context_destroy(model->context);
        assert_int_equal(umo_context_create(NULL, &model->context, NULL), UMO_OK);
        fake_device_reset(ARGUMENTS);
        fake.fail_after = at;
        umo_status status = umo_backend_table.model_init(model, &state, &error);
        if (status == UMO_OK) {
            status = umo_backend_table.instance_init(&instance, state, &instance_state, &error);
        }
        refused += status != UMO_OK;
        if (status != UMO_OK) {
            assert_int_equal(error.status, status);
            assert_true(strlen(error.text) > 0);
        }
        umo_backend_table.instance_finish(instance_state);
        umo_backend_table.model_finish(state);
        umo_counters counters;
        umo_scope_read(umo_context_scope(model->context), &counters);
        assert_int_equal(counters.live_buffers, 0);
        assert_int_equal(counters.live_bytes, 0);
        assert_int_equal(fake.live, 0);
        umo_weights_stats stats;
        umo_weights_read(&stats);
        assert_int_equal(stats.files, 0);
        if (fake.fail_after >= 0) {
            return refused; /* all calls succeeded */
        }
    }
}

static void nothing_stays_when_a_step_fails(void **unused)
{
    (void)unused;
    umo_model model;
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    /* Open, program, kernel, launch; the instance's kernel and memory. What the trial alone lacks
     * is no error. */
    assert_int_equal(fail_each_step(&model), 6);
    fake_model_weights(&model, 192);
    model.kernel = weighted_kernel;
    assert_int_equal(fail_each_step(&model), 7); /* and binding the weights: there is no copy */
    fake_model_teardown(&model);
}

/* ---- Weights ---- */

static void weights_are_bound_where_they_lie_for_all_models(void **unused)
{
    (void)unused;
    umo_model model;
    umo_weights_stats stats;
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    fake_model_weights(&model, 192);
    model.kernel = weighted_kernel;
    void *first = fake_model_start(&model);
    const umo_memory *memory = fake.args[1].memory;
    assert_int_equal(fake.args[1].kind, UMO_ARG_MEMORY);
    assert_int_equal(fake.args[1].size_bytes, 128);
    assert_int_equal(((const char *)memory->host)[fake.args[1].offset_bytes], 7);
    assert_true(memory->imported);
    void *second = fake_model_start(&model);
    assert_ptr_equal(fake.args[1].memory, memory);
    umo_weights_read(&stats);
    assert_int_equal(stats.files, 1);
    assert_int_equal(stats.buffers, 1);
    assert_int_equal(stats.copied_bytes, 0);
    umo_backend_table.model_finish(first);
    umo_backend_table.model_finish(second);
    umo_weights_read(&stats);
    assert_int_equal(stats.files, 0);
    fake_model_teardown(&model);
}

static void weights_that_are_not_there_are_an_error(void **unused)
{
    (void)unused;
    umo_model model;
    void *state = NULL;
    umo_error error = {0};
    fake_model_setup(&model, -1, variable_kernel, ARGUMENTS);
    model.kernel = weighted_kernel;
    assert_int_equal(umo_backend_table.model_init(&model, &state, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "arguments[1]: weights 'w.bin': "));
    fake_model_weights(&model, 191);
    assert_int_equal(umo_backend_table.model_init(&model, &state, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "the file has 191 bytes, too few for 128 at offset 64"));
    fake_model_teardown(&model);
}

/* ---- Executing ---- */

static void rig_setup(rig *r, int64_t batch_max)
{
    fake_model_setup(&r->model, -1, variable_kernel, ARGUMENTS);
    r->model.batch_max = batch_max;
    rig_load(r, ARGUMENTS);
}

/* A batch of rows x 32 and rows x 32 elements, each tensor at an offset of its own. */
static umo_batch batch_make(const rig *r, int64_t rows)
{
    umo_batch batch = {.rows = rows};
    for (size_t i = 0; i < FAKE_INPUTS; i++) {
        batch.inputs[i] = (umo_tensor){.buffer = r->buffers[i],
                                       .offset_bytes = 256 * (i + 1),
                                       .size_bytes = (size_t)rows * 32 * 4,
                                       .dtype = r->model.inputs[i].dtype,
                                       .shape = {1, {32}}};
        if (r->model.batch_max > 0) {
            batch.inputs[i].shape = (umo_shape){2, {rows, 32}};
        }
    }
    batch.output = (umo_tensor){.buffer = r->buffers[2], .offset_bytes = 64};
    return batch;
}

static void a_batch_is_bound_where_it_lies(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, 8);
    umo_batch batch = batch_make(&r, 3);
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, NULL),
                     UMO_OK);
    assert_int_equal(fake.launches, 1);
    for (size_t i = 0; i < FAKE_INPUTS; i++) {
        assert_ptr_equal(fake.args[i].memory, umo_buffer_memory(r.buffers[i]));
        assert_int_equal(fake.args[i].offset_bytes, 256 * (i + 1));
        assert_int_equal(fake.args[i].size_bytes, 3 * 32 * 4);
    }
    assert_ptr_equal(fake.args[2].memory, umo_buffer_memory(r.buffers[2]));
    assert_int_equal(fake.args[2].offset_bytes, 64);
    assert_int_equal(fake.values[3], 3 * 32);
    assert_int_equal(fake.grid.global[0], 32);
    assert_int_equal(batch.output.shape.rank, 2);
    assert_int_equal(batch.output.shape.dims[0], 3);
    assert_int_equal(batch.output.shape.dims[1], 64);
    assert_true(batch.done.value != 0);
    assert_int_equal(batch.done.queue, r.instance.queue);
    rig_teardown(&r);
}

static void a_model_without_batches_has_no_batch_dimension(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, 0);
    umo_batch batch = batch_make(&r, 1);
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, NULL),
                     UMO_OK);
    assert_int_equal(batch.output.shape.rank, 1);
    assert_int_equal(batch.output.shape.dims[0], 64);
    assert_int_equal(fake.values[3], 32);
    rig_teardown(&r);
}

static void a_launch_waits_for_what_is_on_its_way(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, 8);
    umo_batch batch = batch_make(&r, 1);
    const umo_fence first = {.device = r.instance.device, .queue = 1, .value = 70};
    const umo_fence second = {.device = r.instance.device, .queue = 0, .value = 71};
    assert_true(umo_fence_set_add(&batch.waits, first));
    assert_true(umo_fence_set_add(&batch.waits, second));
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, NULL),
                     UMO_OK);
    assert_int_equal(fake.wait_count, 2);
    assert_int_equal(fake.waits[0].value, 70);
    assert_int_equal(fake.waits[1].value, 71);
    rig_teardown(&r);
}

static void nothing_to_write_is_nothing_to_launch(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, 0);
    umo_batch batch = batch_make(&r, 1);
    for (size_t i = 0; i < FAKE_INPUTS; i++) {
        batch.inputs[i].shape.dims[0] = 0;
        batch.inputs[i].size_bytes = 0;
        batch.inputs[i].buffer = NULL;
    }
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, NULL),
                     UMO_OK);
    assert_int_equal(fake.launches, 0);
    assert_int_equal(batch.done.value, 0);
    rig_teardown(&r);
}

static void an_empty_input_is_bound_to_memory_all_the_same(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, 0);
    umo_batch batch = batch_make(&r, 1);
    batch.inputs[1].shape.dims[0] = 0;
    batch.inputs[1].size_bytes = 0;
    batch.inputs[1].buffer = NULL;
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, NULL),
                     UMO_OK);
    assert_int_equal(fake.launches, 1);
    assert_non_null(fake.args[1].memory);
    assert_int_equal(fake.args[1].offset_bytes, 0);
    assert_int_equal(*(const int *)fake.args[1].memory->host, 0);
    rig_teardown(&r);
}

static void what_cannot_run_is_an_error_of_the_batch(void **unused)
{
    (void)unused;
    rig r;
    umo_error error = {0};
    rig_setup(&r, 0);
    umo_batch batch = batch_make(&r, 1);
    batch.absent[1] = true;
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, &error),
                     UMO_E_INVAL);
    assert_string_equal(error.text, "input 'B' is absent; the kernel cannot run without it");
    /* No work items, but something to write. */
    batch = batch_make(&r, 1);
    batch.inputs[0].shape.dims[0] = 0;
    batch.inputs[0].size_bytes = 0;
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, &error),
                     UMO_E_INVAL);
    assert_string_equal(error.text,
                        "test.fake, kernel 'f': global_size[0]: \"A[0]\" is 0, but there "
                        "are outputs to write");
    fake.fail_after = 0;
    batch = batch_make(&r, 1);
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, &error),
                     UMO_E_DEVICE);
    assert_string_equal(error.text, "test.fake, kernel 'f': the fake device fails");
    assert_int_equal(batch.done.value, 0);
    /* The next batch runs. */
    batch = batch_make(&r, 1);
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, &error),
                     UMO_OK);
    assert_int_equal(fake.launches, 1);
    rig_teardown(&r);
}

static void weights_that_were_written_to_fail_the_batch(void **unused)
{
    (void)unused;
    rig r;
    umo_error error = {0};
    fake_model_setup(&r.model, -1, variable_kernel, ARGUMENTS);
    fake_model_weights(&r.model, 192);
    r.model.kernel = weighted_kernel;
    r.instance = (umo_instance){.model = &r.model};
    r.state = fake_model_start(&r.model);
    assert_int_equal(
        umo_backend_table.instance_init(&r.instance, r.state, &r.instance_state, &error), UMO_OK);
    for (size_t i = 0; i < 3; i++) {
        r.buffers[i] = fake_buffer(&r.instance, 4096);
    }
    umo_batch batch = batch_make(&r, 1);
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, &error),
                     UMO_OK);
    assert_int_equal(((const char *)fake.args[1].memory->host)[fake.args[1].offset_bytes], 7);
    char file[96];
    (void)snprintf(file, sizeof file, "%s/w.bin", r.model.path);
    assert_int_equal(truncate(file, 100), 0);
    batch = batch_make(&r, 1);
    assert_int_equal(umo_backend_table.execute(&r.instance, r.instance_state, &batch, &error),
                     UMO_E_DEVICE);
    assert_non_null(strstr(error.text, "cut short"));
    rig_teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_bound_where_they_lie_for_all_models),
        cmocka_unit_test(weights_that_are_not_there_are_an_error),
        cmocka_unit_test(weights_that_were_written_to_fail_the_batch),
        cmocka_unit_test(loading_declares_what_the_kernel_needs),
        cmocka_unit_test(loading_runs_the_kernel_once),
        cmocka_unit_test(a_refused_size_of_our_choice_gives_way_to_the_next),
        cmocka_unit_test(a_refused_size_of_the_model_is_an_error),
        cmocka_unit_test(arguments_that_do_not_fit_are_an_error),
        cmocka_unit_test(a_device_that_fails_the_trial_is_an_error),
        cmocka_unit_test(instances_take_the_queues_in_turn),
        cmocka_unit_test(nothing_stays_when_a_step_fails),
        cmocka_unit_test(a_batch_is_bound_where_it_lies),
        cmocka_unit_test(a_model_without_batches_has_no_batch_dimension),
        cmocka_unit_test(a_launch_waits_for_what_is_on_its_way),
        cmocka_unit_test(nothing_to_write_is_nothing_to_launch),
        cmocka_unit_test(an_empty_input_is_bound_to_memory_all_the_same),
        cmocka_unit_test(what_cannot_run_is_an_error_of_the_batch),
    };
    return cmocka_run_group_tests_name("backend", tests, NULL, NULL);
}
