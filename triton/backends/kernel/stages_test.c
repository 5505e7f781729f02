/*
 * Models of several kernels: order, the memory between them, what is left out, and that a failure
 * at any step leaves neither memory nor work behind.
 */
#include "rig_test.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- allocations of the backend that fail ---- */

static long alloc_after = -1; /* so many succeed, the next fails; negative: none */

static bool alloc_fails(void)
{
    return alloc_after >= 0 && alloc_after-- == 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
char *__real_strdup(const char *text);
/* Some linkers look for them on behalf of shared libraries too. */
#pragma GCC visibility push(default)
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
char *__wrap_strdup(const char *text);
#pragma GCC visibility pop

void *__wrap_malloc(size_t size)
{
    return alloc_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return alloc_fails() ? NULL : __real_calloc(count, size);
}

char *__wrap_strdup(const char *text)
{
    return alloc_fails() ? NULL : __real_strdup(text);
}

/* ---- the model ---- */

#define PROLOGUE                                                                                   \
    "{\"file\": \"test.fake\", \"parameters\": [\"k\"], \"intermediates\": {"                      \
    "\"M\": {\"dtype\": \"FP32\", \"dims\": [\"batch\", \"A[0]\"]}, "                              \
    "\"N\": {\"dtype\": \"INT32\", \"dims\": [\"M[1]*k\"]}, "                                      \
    "\"S\": {\"dtype\": \"FP32\", \"dims\": [\"batch\", 100], \"clear\": true}}, \"kernels\": ["
#define FIRST                                                                                      \
    "{\"function\": \"first\", \"arguments\": [{\"input\": \"A\", \"align\": 64}, "                \
    "{\"intermediate\": \"M\", \"use\": \"write\"}], \"global_size\": [\"A[0]\", \"batch\"]}, "
#define SECOND                                                                                     \
    "{\"function\": \"second\", \"options\": \"-DX\", \"arguments\": ["                            \
    "{\"intermediate\": \"M\", \"use\": \"read\"}, {\"intermediate\": \"N\", \"use\": "            \
    "\"write\"}, "                                                                                 \
    "{\"size\": \"k\", \"type\": \"int32\"}, {\"parameter\": \"k\", \"type\": \"uint8\"}], "       \
    "\"global_size\": [\"B[0]\"], \"local_size\": [\"min(B[0]+1,8)\"]}, "
#define THIRD                                                                                      \
    "{\"function\": \"third\", \"arguments\": [{\"input\": \"B\", \"index\": true}, "              \
    "{\"intermediate\": \"N\", \"use\": \"read\"}, {\"intermediate\": \"S\", \"use\": "            \
    "\"update\"}, "                                                                                \
    "{\"output\": \"Y\"}, {\"present\": \"B\", \"type\": \"int8\"}], "                             \
    "\"global_size\": [\"Y[0]\"]}"
#define EPILOGUE "], \"outputs\": {\"Y\": [\"A[0]\"]}}"

static const char three[] = PROLOGUE FIRST SECOND THIRD EPILOGUE;

static void setup(umo_model *model, const char *kernel)
{
    fake_model_setup(model, -1, kernel, 0);
    model->inputs[1].optional = true;
    model->k = "3";
    model->batch_max = 8;
}

static void rig_setup(rig *r, const char *kernel)
{
    setup(&r->model, kernel);
    rig_load(r, 0);
}

/* rows x a elements of A and rows x b of B. */
static umo_batch batch_make(const rig *r, int64_t rows, int64_t a, int64_t b)
{
    umo_batch batch = {.rows = rows};
    const int64_t lengths[FAKE_INPUTS] = {a, b};
    for (size_t i = 0; i < FAKE_INPUTS; i++) {
        batch.inputs[i] = (umo_tensor){.buffer = r->buffers[i],
                                       .size_bytes = (size_t)(rows * lengths[i]) * 4,
                                       .dtype = r->model.inputs[i].dtype,
                                       .shape = {2, {rows, lengths[i]}}};
    }
    batch.output = (umo_tensor){.buffer = r->buffers[2]};
    return batch;
}

static void execute(rig *r, umo_batch *batch)
{
    umo_error error = {0};
    if (umo_backend_table.execute(&r->instance, r->instance_state, batch, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
}

/* The error of an execution that must fail. */
static umo_error refused(rig *r, umo_batch *batch)
{
    umo_error error = {0};
    const umo_status status =
        umo_backend_table.execute(&r->instance, r->instance_state, batch, &error);
    assert_true(status != UMO_OK);
    assert_int_equal(error.status, status);
    return error;
}

/* The error of a load that must fail. */
static umo_error load_refused(umo_model *model)
{
    umo_error error = {0};
    void *state = NULL;
    const umo_status status = umo_backend_table.model_init(model, &state, &error);
    assert_true(status != UMO_OK);
    assert_null(state);
    assert_int_equal(error.status, status);
    return error;
}

static void expect_words(const umo_error *error, const char *words)
{
    if (strstr(error->text, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", error->text, words);
    }
}

/* ---- order and memory ---- */

static void kernels_run_in_order_each_behind_the_one_before(void **unused)
{
    (void)unused;
    static const char *const names[] = {"first", "second", "umo_fill", "third"};
    rig r;
    rig_setup(&r, three);
    umo_batch batch = batch_make(&r, 2, 32, 16);
    const umo_fence before = {.device = r.instance.device, .queue = 1, .value = 70};
    assert_true(umo_fence_set_add(&batch.waits, before));
    execute(&r, &batch);
    assert_int_equal(fake.launches, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(fake.log[i].name, names[i]);
        assert_int_equal(fake.log[i].queue, r.instance.queue);
        assert_int_equal(fake.log[i].wait_count, 1);
        assert_int_equal(fake.log[i].waits[0].value, i == 0 ? 70 : fake.log[i - 1].value);
    }
    assert_int_equal(batch.done.value, fake.log[3].value);
    assert_int_equal(fake.log[0].grid.global[0], 32);
    assert_int_equal(fake.log[0].grid.global[1], 2);
    assert_int_equal(fake.log[1].grid.global[0], 16);
    assert_int_equal(fake.log[1].grid.local[0], 8);
    assert_int_equal(fake.log[1].values[2], 3);
    assert_int_equal(fake.log[1].args[3].size_bytes, 1);
    assert_int_equal(fake.log[1].values[3], 3);
    assert_int_equal(fake.log[3].values[4], 1);
    assert_ptr_equal(fake.log[3].args[3].memory, umo_buffer_memory(r.buffers[2]));
    rig_teardown(&r);
}

static void intermediates_lie_in_one_block_by_their_lifetimes(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, three);
    umo_batch batch = batch_make(&r, 2, 100, 16);
    execute(&r, &batch);
    const umo_kernel_arg *m = &fake.log[0].args[1];
    const umo_kernel_arg *n = &fake.log[1].args[1];
    const umo_kernel_arg *s = &fake.log[3].args[2];
    assert_ptr_equal(m->memory, n->memory);
    assert_ptr_equal(m->memory, s->memory);
    /* Every kernel sees the same place. */
    assert_int_equal(fake.log[1].args[0].offset_bytes, m->offset_bytes);
    assert_int_equal(fake.log[3].args[1].offset_bytes, n->offset_bytes);
    assert_int_equal(m->size_bytes, 1024); /* 2 x 100 x 4, in steps of 256 */
    assert_int_equal(n->size_bytes, 1280); /* 100 x 3 x 4 */
    assert_int_equal(s->size_bytes, 1024);
    /* N meets both of the others; these never meet. */
    assert_int_equal(m->offset_bytes, s->offset_bytes);
    assert_int_equal(m->offset_bytes - n->offset_bytes, 1280);
    assert_int_equal(n->offset_bytes % 256, 0);
    assert_int_equal(fake.log[2].args[0].offset_bytes, 0);
    assert_ptr_equal(fake.log[2].args[0].memory, s->memory);
    rig_teardown(&r);
}

static void the_block_goes_back_with_the_fence(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, three);
    umo_batch batch = batch_make(&r, 2, 32, 16);
    execute(&r, &batch);
    const umo_memory *memory = fake.log[0].args[1].memory;
    const uint64_t last = fake.log[3].value;
    const long live = fake.live;
    fake_device_reset(0);
    fake.fence_says = UMO_E_TIMEOUT; /* the first batch still runs */
    batch = batch_make(&r, 2, 32, 16);
    execute(&r, &batch);
    assert_ptr_equal(fake.log[0].args[1].memory, memory);
    assert_int_equal(fake.live, live);
    bool waits = false;
    for (size_t i = 0; i < fake.log[0].wait_count; i++) {
        waits = waits || fake.log[0].waits[i].value == last;
    }
    assert_true(waits);
    fake.fence_says = UMO_OK;
    rig_teardown(&r);
}

static void an_instance_on_a_node_has_a_pool_of_its_own(void **unused)
{
    (void)unused;
    rig r;
    umo_error error = {0};
    rig_setup(&r, three);
    assert_int_equal(r.instance.pools, 0);
    umo_batch batch = batch_make(&r, 2, 32, 16);
    execute(&r, &batch);
    const umo_memory *models = fake.log[0].args[1].memory;
    umo_instance placed = {.model = &r.model, .placed = true, .node = 1};
    void *state = NULL;
    assert_int_equal(umo_backend_table.instance_init(&placed, r.state, &state, &error), UMO_OK);
    assert_int_equal(placed.pools, 1);
    fake_device_reset(0);
    batch = batch_make(&r, 2, 32, 16);
    assert_int_equal(umo_backend_table.execute(&placed, state, &batch, &error), UMO_OK);
    assert_ptr_not_equal(fake.log[0].args[1].memory, models);
    umo_backend_table.instance_finish(state);
    rig_teardown(&r);
}

static void a_shape_of_its_own_has_a_plan_of_its_own(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, three);
    umo_batch batch = batch_make(&r, 1, 8, 4);
    execute(&r, &batch);
    assert_int_equal(fake.log[0].args[1].size_bytes, 256);
    fake_device_reset(0);
    batch = batch_make(&r, 8, 64, 4);
    execute(&r, &batch);
    assert_int_equal(fake.log[0].args[1].size_bytes, 2048);
    rig_teardown(&r);
}

/* ---- what is left out ---- */

static void a_kernel_without_work_is_left_out_if_nothing_misses_it(void **unused)
{
    (void)unused;
    /* N is cleared, so that zeros stand for what the second kernel does not add. */
    static const char cleared[] =
        "{\"file\": \"test.fake\", \"intermediates\": {"
        "\"N\": {\"dtype\": \"INT32\", \"dims\": [\"A[0]\"], \"clear\": true}}, \"kernels\": ["
        "{\"function\": \"count\", \"arguments\": [{\"input\": \"B\"}, "
        "{\"intermediate\": \"N\", \"use\": \"update\"}], \"global_size\": [\"B[0]\"]}, "
        "{\"function\": \"last\", \"arguments\": [{\"input\": \"A\"}, "
        "{\"intermediate\": \"N\", \"use\": \"read\"}, {\"output\": \"Y\"}], "
        "\"global_size\": [\"A[0]\"]}" EPILOGUE;
    rig r;
    rig_setup(&r, cleared);
    umo_batch batch = batch_make(&r, 1, 32, 0);
    execute(&r, &batch);
    assert_int_equal(fake.launches, 2);
    assert_string_equal(fake.log[0].name, "umo_fill");
    assert_string_equal(fake.log[1].name, "last");
    assert_int_equal(fake.log[1].waits[0].value, fake.log[0].value);
    rig_teardown(&r);
}

static void a_kernel_without_work_that_something_needs_is_an_error(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, three);
    umo_batch batch = batch_make(&r, 1, 32, 0);
    umo_error error = refused(&r, &batch);
    assert_string_equal(error.text,
                        "test.fake, kernels[1] 'second': global_size[0]: \"B[0]\" is 0, but "
                        "intermediate 'N' is to be written; \"clear\": true gives zeros");
    assert_int_equal(fake.launches, 0);
    assert_int_equal(batch.done.value, 0);
    batch = batch_make(&r, 1, 32, 16);
    execute(&r, &batch);
    rig_teardown(&r);
}

static void an_empty_intermediate_needs_no_kernel(void **unused)
{
    (void)unused;
    static const char per_b[] =
        "{\"file\": \"test.fake\", \"intermediates\": {"
        "\"N\": {\"dtype\": \"INT32\", \"dims\": [\"B[0]\"]}}, \"kernels\": ["
        "{\"function\": \"make\", \"arguments\": [{\"input\": \"B\"}, "
        "{\"intermediate\": \"N\", \"use\": \"write\"}], \"global_size\": [\"B[0]\"]}, "
        "{\"function\": \"last\", \"arguments\": [{\"input\": \"A\"}, "
        "{\"intermediate\": \"N\", \"use\": \"read\"}, {\"output\": \"Y\"}], "
        "\"global_size\": [\"A[0]\"]}" EPILOGUE;
    rig r;
    rig_setup(&r, per_b);
    umo_batch batch = batch_make(&r, 1, 32, 0);
    execute(&r, &batch);
    assert_int_equal(fake.launches, 1);
    assert_non_null(fake.log[0].args[1].memory);
    rig_teardown(&r);
}

static void an_absent_input_is_told_to_a_kernel_that_asks(void **unused)
{
    (void)unused;
    static const char asks[] =
        "{\"file\": \"test.fake\", \"function\": \"f\", \"arguments\": [{\"input\": \"A\"}, "
        "{\"input\": \"B\"}, {\"present\": \"B\", \"type\": \"uint32\"}, {\"shape\": \"B\", "
        "\"dim\": 0, \"type\": \"int64\"}, {\"output\": \"Y\"}], \"global_size\": [\"A[0]\"], "
        "\"outputs\": {\"Y\": [\"A[0]\"]}}";
    rig r;
    rig_setup(&r, asks);
    umo_batch batch = batch_make(&r, 2, 32, 5);
    batch.absent[1] = true;
    execute(&r, &batch);
    assert_int_equal(fake.values[2], 0);
    assert_int_equal(fake.values[3], 0);
    assert_int_equal(*(const int *)fake.args[1].memory->host, 0);
    batch = batch_make(&r, 2, 32, 5);
    execute(&r, &batch);
    assert_int_equal(fake.values[2], 1);
    assert_int_equal(fake.values[3], 5);
    assert_ptr_equal(fake.args[1].memory, umo_buffer_memory(r.buffers[1]));
    rig_teardown(&r);
}

static void tensors_of_a_whole_batch_have_no_batch_dimension(void **unused)
{
    (void)unused;
    /* A is the requests' tensors one behind the other, B what the kit says of them. */
    static const char ragged[] =
        "{\"file\": \"test.fake\", \"function\": \"f\", \"arguments\": [{\"input\": \"A\"}, "
        "{\"input\": \"B\", \"index\": true}, {\"size\": \"A[0]\", \"type\": \"int64\"}, "
        "{\"size\": \"B[0]\", \"type\": \"int64\"}, {\"output\": \"Y\"}], "
        "\"global_size\": [\"B[0]\"], \"outputs\": {\"Y\": [\"A[0]*2\"]}}";
    rig r = {0};
    umo_error error = {0};
    setup(&r.model, ragged);
    r.model.inputs[0].ragged = true;
    r.model.inputs[0].dims = (umo_shape){2, {-1, 7}};
    r.model.inputs[1].source = UMO_IO_BATCH;
    r.model.outputs[0].scattered = true;
    r.model.outputs[0].dims = (umo_shape){2, {-1, 14}};
    r.instance = (umo_instance){.model = &r.model};
    r.state = fake_model_start(&r.model);
    assert_int_equal(
        umo_backend_table.instance_init(&r.instance, r.state, &r.instance_state, &error), UMO_OK);
    for (size_t i = 0; i < 3; i++) {
        r.buffers[i] = fake_buffer(&r.instance, 4096);
    }
    umo_batch batch = batch_make(&r, 3, 32, 5);
    batch.inputs[0].shape = (umo_shape){1, {96}};
    batch.inputs[1].shape = (umo_shape){1, {4}};
    execute(&r, &batch);
    assert_int_equal(fake.values[2], 96);
    assert_int_equal(fake.values[3], 4);
    assert_int_equal(fake.grid.global[0], 4);
    assert_int_equal(batch.output.shape.rank, 1);
    assert_int_equal(batch.output.shape.dims[0], 192);
    rig_teardown(&r);
}

static void a_state_may_be_written_where_it_was_read(void **unused)
{
    (void)unused;
    static const char state_kernel[] =
        "{\"file\": \"test.fake\", \"function\": \"f\", \"arguments\": [{\"input\": \"A\"}, "
        "{\"input\": \"B\"}, {\"output\": \"Y\", \"overwrites\": true}], "
        "\"global_size\": [\"A[0]\"], \"outputs\": {\"Y\": [\"A[0]\"]}}";
    umo_model model;
    setup(&model, state_kernel);
    umo_error error = load_refused(&model);
    assert_string_equal(error.text, "parameter kernel: arguments[2].overwrites: output 'Y' is no "
                                    "state of a sequence");
    model.outputs[0].state = true;
    void *state = fake_model_start(&model);
    assert_true(model.outputs[0].overwrites);
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

/* ---- loading ---- */

static void a_text_is_compiled_once_for_equal_options(void **unused)
{
    (void)unused;
    umo_model model;
    setup(&model, three);
    void *state = fake_model_start(&model);
    assert_int_equal(fake.programs, 3); /* test.fake with and without -DX; libumo's own for zeros */
    assert_int_equal(model.warnings, 0);
    assert_int_equal(model.inputs[0].align_bytes, 64);
    assert_true(model.inputs[1].control);
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

static void loading_tries_every_kernel(void **unused)
{
    (void)unused;
    static const char *const names[] = {"first", "second", "third"};
    umo_model model;
    setup(&model, three);
    void *state = fake_model_start(&model);
    assert_int_equal(fake.launches, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(fake.log[i].name, names[i]);
    }
    assert_true(fake.log[1].args[1].size_bytes >= 64 * 3 * 4);
    umo_backend_table.model_finish(state);
    /* The one that fails is named. */
    fake_device_reset(4);
    umo_error error = load_refused(&model);
    assert_string_equal(error.text,
                        "test.fake, kernels[0] 'first': the kernel takes 4 argument(s), not 2");
    fake_model_teardown(&model);
}

static void what_nobody_reads_is_warned_of(void **unused)
{
    (void)unused;
    static const char unread[] =
        "{\"file\": \"test.fake\", \"intermediates\": {"
        "\"N\": {\"dtype\": \"INT32\", \"dims\": [\"B[0]\"]}}, \"function\": \"f\", "
        "\"arguments\": [{\"input\": \"A\"}, {\"input\": \"B\"}, {\"output\": \"Y\"}, "
        "{\"intermediate\": \"N\", \"use\": \"write\"}], \"global_size\": [\"B[0]\"], "
        "\"outputs\": {\"Y\": [\"A[0]\"]}}";
    umo_model model;
    setup(&model, unread);
    void *state = fake_model_start(&model);
    assert_int_equal(model.warnings, 1);
    assert_string_equal(model.warning, "parameter kernel: intermediates.N: no kernel reads it");
    umo_backend_table.model_finish(state);
    /* Memory of one kernel alone is no mistake, nor has it to be written before. */
    char text[sizeof unread + 4];
    const char *use = strstr(unread, "\"write\"");
    assert_non_null(use);
    (void)snprintf(text, sizeof text, "%.*s\"scratch\"%s", (int)(use - unread), unread, use + 7);
    model.kernel = text;
    state = fake_model_start(&model);
    assert_int_equal(model.warnings, 1);
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

static const char no_file[] =
    "{\"function\": \"f\", \"arguments\": [{\"input\": \"A\"}, {\"input\": \"B\"}, "
    "{\"output\": \"Y\"}], \"global_size\": [\"A[0]\"], \"outputs\": {\"Y\": [\"A[0]\"]}}";

static void the_driver_chooses_among_the_texts_of_a_folder(void **unused)
{
    (void)unused;
    umo_model model;
    setup(&model, no_file);
    fake_model_write(&model, "model.cl", "opencl", 6);
    fake_model_write(&model, "model.cu", "cuda", 4);
    fake_model_write(&model, "model.metal", "metal", 5);
    void *state = fake_model_start(&model);
    assert_string_equal(fake.text, "opencl");
    umo_backend_table.model_finish(state);
    fake_model_teardown(&model);
}

static void a_text_for_a_driver_that_is_not_there_is_named(void **unused)
{
    (void)unused;
    static const char metal_file[] =
        "{\"file\": \"mine.metal\", \"function\": \"f\", \"arguments\": [{\"input\": \"A\"}, "
        "{\"input\": \"B\"}, {\"output\": \"Y\"}], \"global_size\": [\"A[0]\"], "
        "\"outputs\": {\"Y\": [\"A[0]\"]}}";
    umo_model model;
    setup(&model, no_file);
    fake_model_write(&model, "model.cu", "cuda", 4);
    umo_error error = load_refused(&model);
    assert_int_equal(error.status, UMO_E_NOT_FOUND);
    expect_words(&error, "kernel file 'model.cl' in folder 1 of the model: No such file");
    expect_words(&error,
                 "; 'model.cu' is there, but for driver 'cuda', which finds no device here");
    assert_int_equal(fake.programs, 0);
    model.kernel = metal_file;
    fake_model_write(&model, "mine.metal", "metal", 5);
    error = load_refused(&model);
    assert_int_equal(error.status, UMO_E_INVAL);
    expect_words(&error, "kernel file 'mine.metal' is for driver 'metal', but the model runs on "
                         "'fake', whose files end in '.cl'; nothing was compiled");
    model.kernel = no_file;
    strcpy(model.unified.driver, "cuda");
    error = load_refused(&model);
    assert_int_equal(error.status, UMO_E_NOT_FOUND);
    expect_words(&error, "the model asks for driver 'cuda', which this build of umo does not have, "
                         "so 'model.cu' is not compiled");
    fake_model_teardown(&model);
}

/* ---- failures ---- */

static void a_failing_launch_leaves_nothing_running_unseen(void **unused)
{
    (void)unused;
    static const char *const named[] = {"kernels[0] 'first'", "kernels[1] 'second'",
                                        "kernels[2] 'third'", "kernels[2] 'third'"};
    rig r;
    rig_setup(&r, three);
    umo_batch batch = batch_make(&r, 2, 32, 16);
    execute(&r, &batch); /* the pool has its block */
    for (long at = 0; at < 4; at++) {
        umo_counters counters;
        umo_scope_read(umo_context_scope(r.model.context), &counters);
        const uint64_t live = counters.live_bytes;
        fake_device_reset(0);
        fake.fail_after = at;
        batch = batch_make(&r, 2, 32, 16);
        umo_error error = refused(&r, &batch);
        expect_words(&error, named[at]);
        assert_int_equal(fake.launches, at);
        /* Whoever answers the requests waits for what was queued. */
        assert_int_equal(batch.done.value, at > 0 ? fake.log[at - 1].value : 0);
        umo_scope_read(umo_context_scope(r.model.context), &counters);
        assert_int_equal(counters.live_bytes, live);
        fake_device_reset(0);
        batch = batch_make(&r, 2, 32, 16);
        execute(&r, &batch);
        assert_int_equal(fake.launches, 4);
    }
    rig_teardown(&r);
}

static void no_memory_for_intermediates_fails_the_batch_alone(void **unused)
{
    (void)unused;
    rig r;
    rig_setup(&r, three);
    fake.fail_after = 0;
    umo_batch batch = batch_make(&r, 2, 32, 16);
    umo_error error = refused(&r, &batch);
    assert_int_equal(error.status, UMO_E_NOMEM);
    assert_int_equal(fake.launches, 0);
    batch = batch_make(&r, 2, 32, 16);
    execute(&r, &batch);
    /* Sizes that no memory has. */
    batch = batch_make(&r, 1, 32, 16);
    batch.inputs[0].shape.dims[1] = INT64_MAX / 8;
    error = refused(&r, &batch);
    assert_int_equal(error.status, UMO_E_INVAL);
    rig_teardown(&r);
}

/* Loads the model and an instance, with one failure. False when nothing failed any more. */
static bool load_once(umo_model *model, long *fails_after)
{
    void *state = NULL;
    void *instance_state = NULL;
    umo_error error = {0};
    umo_instance instance = {.model = model};
    umo_status status = umo_backend_table.model_init(model, &state, &error);
    if (status == UMO_OK) {
        status = umo_backend_table.instance_init(&instance, state, &instance_state, &error);
    }
    const bool failed = *fails_after < 0;
    *fails_after = -1;
    if (status != UMO_OK) {
        assert_true(failed);
        assert_int_equal(error.status, status);
        assert_true(strlen(error.text) > 0);
    }
    umo_backend_table.instance_finish(instance_state);
    umo_backend_table.model_finish(state);
    umo_counters counters;
    umo_scope_read(umo_context_scope(model->context), &counters);
    assert_int_equal(counters.live_buffers, 0);
    assert_int_equal(counters.live_bytes, 0);
    return failed;
}

static void nothing_stays_when_a_step_of_the_load_fails(void **unused)
{
    (void)unused;
    umo_model model;
    setup(&model, three);
    fake_model_weights(&model, 192);
    long at = 0;
    for (bool failed = true; failed; at++) {
        umo_context_destroy(model.context);
        assert_int_equal(umo_context_create(NULL, &model.context, NULL), UMO_OK);
        assert_int_equal(fake.live, 0);
        fake_device_reset(0);
        fake.fail_after = at;
        failed = load_once(&model, &fake.fail_after);
    }
    /* Device, 2 programs and libumo's with its kernels, 2 x 3 kernels, the trial's 6 memories and 3
     * launches, the instance's memory. */
    assert_true(at > 18);
    at = 0;
    for (bool failed = true; failed; at++) {
        umo_context_destroy(model.context);
        assert_int_equal(umo_context_create(NULL, &model.context, NULL), UMO_OK);
        assert_int_equal(fake.live, 0);
        fake_device_reset(0);
        alloc_after = at;
        failed = load_once(&model, &alloc_after);
    }
    assert_true(at > 30);
    fake_model_teardown(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_run_in_order_each_behind_the_one_before),
        cmocka_unit_test(intermediates_lie_in_one_block_by_their_lifetimes),
        cmocka_unit_test(the_block_goes_back_with_the_fence),
        cmocka_unit_test(an_instance_on_a_node_has_a_pool_of_its_own),
        cmocka_unit_test(a_shape_of_its_own_has_a_plan_of_its_own),
        cmocka_unit_test(a_kernel_without_work_is_left_out_if_nothing_misses_it),
        cmocka_unit_test(a_kernel_without_work_that_something_needs_is_an_error),
        cmocka_unit_test(an_empty_intermediate_needs_no_kernel),
        cmocka_unit_test(an_absent_input_is_told_to_a_kernel_that_asks),
        cmocka_unit_test(tensors_of_a_whole_batch_have_no_batch_dimension),
        cmocka_unit_test(a_state_may_be_written_where_it_was_read),
        cmocka_unit_test(a_text_is_compiled_once_for_equal_options),
        cmocka_unit_test(loading_tries_every_kernel),
        cmocka_unit_test(what_nobody_reads_is_warned_of),
        cmocka_unit_test(the_driver_chooses_among_the_texts_of_a_folder),
        cmocka_unit_test(a_text_for_a_driver_that_is_not_there_is_named),
        cmocka_unit_test(a_failing_launch_leaves_nothing_running_unseen),
        cmocka_unit_test(no_memory_for_intermediates_fails_the_batch_alone),
        cmocka_unit_test(nothing_stays_when_a_step_of_the_load_fails),
    };
    return cmocka_run_group_tests_name("stages", tests, NULL, NULL);
}
