/*
 * What a batch may be beyond rows of equal shape, and what ends or pads its run: against the real
 * engine, with a kit of its own.
 */
#include "onnx_writer.h"
#include "rig.h"
#include "watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SKIPPED = 77,
    SIDE = 1024, /* of a square matrix: its product takes some 50 ms */
    TRIES = 30   /* of a run that somebody else has to get the processor beside */
};

/* The engine's own threads hand work over in ways that the thread sanitizer cannot see. */
#define ONE_THREAD "\"intra_op_thread_count\":{\"string_value\":\"1\"}"

static char folder[] = "/tmp/umo-ort-batch-XXXXXX";

/* X float [n] -> Y = X + X; B float [b] -> M = -B. */
static const onnx_model lines = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n"}}, {"B", ORT_ELEMENT_FLOAT, {"b"}}},
    .nodes = {{"Add", {"X", "X"}, "Y"}, {"Neg", {"B"}, "M"}},
    .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"n"}}, {"M", ORT_ELEMENT_FLOAT, {"b"}}},
};

/* X float [b, n] -> Y = X + X. */
static const onnx_model table = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"b", "n"}}},
    .nodes = {{"Add", {"X", "X"}, "Y"}},
    .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"b", "n"}}},
};

/* S float [n] -> I, where S is not zero, and T = S[I]. */
static const onnx_model selecting = {
    .inputs = {{"S", ORT_ELEMENT_FLOAT, {"n"}}},
    .nodes = {{"NonZero", {"S"}, "W"}, {"Transpose", {"W"}, "I"}, {"GatherND", {"S", "I"}, "T"}},
    .outputs = {{"I", ORT_ELEMENT_INT64, {"n", "1"}}, {"T", ORT_ELEMENT_FLOAT, {"n"}}},
};

/* X float [n, n] -> its fifth power. */
static const onnx_model powers = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n", "n"}}},
    .nodes = {{"MatMul", {"X", "X"}, "A"},
              {"MatMul", {"A", "X"}, "B"},
              {"MatMul", {"B", "X"}, "C"},
              {"MatMul", {"C", "X"}, "Y"}},
    .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"n", "n"}}},
};

static void model_make(umo_model *umo, const onnx_model *model)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%s/model.onnx", folder);
    assert_true(onnx_write(model, path));
    *umo = (umo_model){.path = folder,
                       .config = "{}",
                       .options = {{"onnxruntime_library", rig_library}},
                       .unified = {.enable = true}};
}

static umo_tensor host_tensor(void *data, size_t size_bytes, uint32_t rank, int64_t d0, int64_t d1)
{
    umo_tensor tensor;
    umo_shape shape = {.rank = rank, .dims = {d0, d1}};
    assert_int_equal(umo_tensor_init(&tensor, data, size_bytes, UMO_FP32, &shape, NULL), UMO_OK);
    return tensor;
}

static const umo_shape line = {.rank = 1, .dims = {-1}};
static const umo_shape one = {.rank = 1, .dims = {1}};

/* X ragged, B of the kit's own, Y scattered, M a row each. */
static void lines_configure(umo_model *umo)
{
    model_make(umo, &lines);
    umo->batch_max = 4;
    umo->input_count = 2;
    umo->inputs[0] = (umo_io){.name = "X", .dtype = UMO_FP32, .dims = line, .ragged = true};
    umo->inputs[1] = (umo_io){.name = "B", .dtype = UMO_FP32, .dims = line, .source = UMO_IO_BATCH};
    umo->output_count = 2;
    umo->outputs[0] = (umo_io){.name = "Y", .dtype = UMO_FP32, .dims = line, .scattered = true};
    umo->outputs[1] = (umo_io){.name = "M", .dtype = UMO_FP32, .dims = one};
}

static void ragged_batch_is_one_line_and_its_outputs_are_in_place(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    lines_configure(&l.umo);
    if (rig_load(&l, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    float x[7] = {1, 2, 3, 4, 5, 6, 7};
    float b[3] = {3, 1, 3};
    float y[7] = {0};
    float m[3] = {0};
    umo_batch batch = {
        .requests = 3,
        .rows = 3,
        .inputs = {host_tensor(x, sizeof x, 1, 7, 0), host_tensor(b, sizeof b, 1, 3, 0)},
        .outputs = {{.data = y}, {.data = m}}};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_false(batch.late[0]);
    assert_false(batch.late[1]);
    assert_int_equal(batch.outputs[0].shape.rank, 1);
    assert_int_equal(batch.outputs[0].shape.dims[0], 7);
    assert_int_equal(batch.outputs[1].shape.rank, 2);
    assert_int_equal(batch.outputs[1].shape.dims[0], 3);
    assert_true(y[0] == 2 && y[6] == 14 && m[0] == -3 && m[1] == -1);
    rig_unload(&l);
}

static void line_that_the_model_does_not_take_is_refused_in_words(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    model_make(&l.umo, &table);
    l.umo.batch_max = 4;
    l.umo.input_count = 1;
    l.umo.inputs[0] = (umo_io){.name = "X", .dtype = UMO_FP32, .dims = line, .ragged = true};
    assert_int_equal(rig_load(&l, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "ragged input 'X' of a whole batch has shape [-1], and "
                                       "[-1,-1] in the model"));
    rig_unload(&l);
    lines_configure(&l.umo);
    l.umo.inputs[1].dims = (umo_shape){.rank = 2, .dims = {-1, 2}};
    assert_int_equal(rig_load(&l, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "batch input 'B' of a whole batch has shape [-1,2]"));
    rig_unload(&l);
}

/* A failing batch of lines is not tried row by row: nobody knows where a row begins. */
static void lines_are_never_run_alone(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    lines_configure(&l.umo);
    assert_int_equal(rig_load(&l, &error), UMO_OK);
    float x[2] = {1, 2};
    float b[2] = {1, 1};
    float y[4];
    umo_batch batch = {
        .requests = 2,
        .rows = 2,
        .inputs = {host_tensor(x, sizeof x, 1, 2, 0), host_tensor(b, sizeof b, 1, 2, 0)},
        .outputs = {{.data = y}, {.data = y + 2}}};
    batch.inputs[1].shape.rank = 2; /* the engine refuses the run */
    batch.inputs[1].shape.dims[1] = 1;
    for (int lines_alone = 0; lines_alone < 2; lines_alone++) {
        batch.unwanted[0] = lines_alone != 0; /* then only inputs are lines */
        assert_int_not_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
        assert_int_equal(batch.failed[0], UMO_OK);
        assert_int_equal(batch.failed[1], UMO_OK);
    }
    rig_unload(&l);
}

static void state_that_the_model_reads_again_is_written_in_place(void **state)
{
    (void)state;
    for (int is_state = 0; is_state < 2; is_state++) {
        loaded l;
        umo_error error = {0};
        float s[2] = {5, 6};
        float t[2];
        int64_t i[2];
        model_make(&l.umo, &selecting);
        l.umo.output_count = 1;
        l.umo.outputs[0] = (umo_io){.name = "I",
                                    .dtype = UMO_INT64,
                                    .dims = {.rank = 2, .dims = {-1, 1}},
                                    .source = is_state != 0 ? UMO_IO_STATE : UMO_IO_REQUEST,
                                    .state = is_state != 0};
        assert_int_equal(rig_load(&l, &error), UMO_OK);
        umo_batch batch = {.requests = 1,
                           .rows = 1,
                           .inputs = {host_tensor(s, sizeof s, 1, 2, 0)},
                           .outputs = {{.data = i}, {.data = t}}};
        assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
        assert_int_equal(batch.late[0], is_state == 0); /* no client can write to a state */
        assert_true(t[0] == 5 && t[1] == 6);
        rig_unload(&l);
    }
}

static void inputs_are_padded_for_an_engine_that_reads_too_far(void **state)
{
    (void)state;
    for (int padded = 0; padded < 2; padded++) {
        loaded l;
        umo_error error = {0};
        model_make(&l.umo, &table);
        l.umo.config =
            padded != 0 ? "{\"parameters\":{\"over_read_bytes\":{\"string_value\":\"64\"}}}" : "{}";
        assert_int_equal(rig_load(&l, &error), UMO_OK);
        float x[4] = {1, 2, 3, 4};
        float y[4];
        umo_batch batch = {.requests = 1,
                           .rows = 1,
                           .inputs = {host_tensor(x, sizeof x, 2, 2, 2)},
                           .outputs = {{.data = y}}};
        for (int round = 1; round <= 3; round++) {
            umo_counters counters;
            assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
            assert_true(y[3] == 8);
            umo_scope_read(umo_model_scope(&l.umo), &counters);
            assert_int_equal(counters.copy_performed[UMO_DIRECTION_IN][UMO_REASON_OVER_READ].bytes,
                             padded != 0 ? (size_t)round * sizeof x : 0);
        }
        rig_unload(&l);
    }
}

static void run_that_nobody_waits_for_is_ended(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    model_make(&l.umo, &powers);
    l.umo.config = "{\"parameters\":{" ONE_THREAD "}}";
    assert_int_equal(rig_load(&l, &error), UMO_OK);
    size_t size_bytes = sizeof(float[SIDE]) * SIDE;
    float *x = calloc(1, size_bytes);
    float *y = calloc(1, size_bytes);
    assert_true(x != NULL && y != NULL);
    static const struct {
        bool cancelled[2];
        umo_status status;
    } cases[] = {
        {{true, true}, UMO_E_REFUSED},
        {{false, true}, UMO_OK}, /* somebody waits */
        {{true, true}, UMO_E_REFUSED},
        {{false, false}, UMO_OK},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        umo_batch batch = {.requests = 2,
                           .rows = 1,
                           .inputs = {host_tensor(x, size_bytes, 2, SIDE, SIDE)},
                           .outputs = {{.data = y}},
                           .cancelled = {cases[c].cancelled[0], cases[c].cancelled[1]}};
        /* On a busy machine a run may be over before the watching thread has looked twice. */
        umo_status status = UMO_OK;
        int tries = cases[c].status == UMO_OK ? 1 : TRIES;
        for (int t = 0; t < tries && status == UMO_OK; t++) {
            error = (umo_error){0};
            status = ort_instance_execute(NULL, l.instance, &batch, &error);
        }
        assert_int_equal(status, cases[c].status);
        assert_true(cases[c].status == UMO_OK || strstr(error.text, "cancelled") != NULL);
    }
    rig_unload(&l);
    free(x);
    free(y);
}

static void runs_are_not_watched_where_that_is_switched_off(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    model_make(&l.umo, &powers);
    l.umo.config = "{\"parameters\":{" ONE_THREAD ",\"cancel_runs\":{\"string_value\":\"0\"}}}";
    assert_int_equal(rig_load(&l, &error), UMO_OK);
    size_t size_bytes = sizeof(float[SIDE]) * SIDE;
    float *x = calloc(2, size_bytes);
    assert_non_null(x);
    umo_batch batch = {.requests = 1,
                       .rows = 1,
                       .inputs = {host_tensor(x, size_bytes, 2, SIDE, SIDE)},
                       .outputs = {{.data = x + (size_t)SIDE * SIDE}},
                       .cancelled = {true}};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    rig_unload(&l);
    free(x);
}

int main(void)
{
    if (!rig_find_library()) {
        printf("skipped: no ONNX Runtime; run scripts/setup or set UMO_ONNXRUNTIME\n");
        return SKIPPED;
    }
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ragged_batch_is_one_line_and_its_outputs_are_in_place),
        cmocka_unit_test(line_that_the_model_does_not_take_is_refused_in_words),
        cmocka_unit_test(lines_are_never_run_alone),
        cmocka_unit_test(state_that_the_model_reads_again_is_written_in_place),
        cmocka_unit_test(inputs_are_padded_for_an_engine_that_reads_too_far),
        cmocka_unit_test(run_that_nobody_waits_for_is_ended),
        cmocka_unit_test(runs_are_not_watched_where_that_is_switched_off),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char path[64];
    (void)snprintf(path, sizeof path, "%s/model.onnx", folder);
    (void)unlink(path);
    (void)rmdir(folder);
    return failed;
}
