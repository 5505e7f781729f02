/*
 * The backend against the real engine, with a kit of its own: what is bound where, what is late,
 * what fails alone, and that nothing stays behind when any one call of the engine fails.
 */
#include "onnx_writer.h"
#include "rig.h"
#include "tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SKIPPED = 77
};

static char folder[] = "/tmp/umo-ort-test-XXXXXX";

/* X float [n, m] -> Y = X + X. */
static const onnx_model doubling = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n", "m"}}},
    .nodes = {{"Add", {"X", "X"}, "Y"}},
    .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"n", "m"}}},
};

/* Something of everything: a bound, a late and a string output, and an input with a default. */
static const onnx_model mixed = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n"}},
               {"T", ORT_ELEMENT_STRING, {"t"}},
               {"SCALE", ORT_ELEMENT_FLOAT, {"1"}}},
    .constants = {{.name = "SCALE", .count = 1, .values = {2}}, {.name = "IDLE", .count = 512}},
    .nodes = {{"Mul", {"X", "SCALE"}, "Y"}, {"NonZero", {"X"}, "W"}, {"Identity", {"T"}, "U"}},
    .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"n"}},
                {"W", ORT_ELEMENT_INT64, {"1", "k"}},
                {"U", ORT_ELEMENT_STRING, {"t"}}},
};

/* INDEX int64 [b, m] -> P float [b, m], out of four. */
static const onnx_model table = {
    .inputs = {{"INDEX", ORT_ELEMENT_INT64, {"b", "m"}}},
    .constants = {{.name = "TABLE", .count = 4, .values = {10, 11, 12, 13}}},
    .nodes = {{"Gather", {"TABLE", "INDEX"}, "P"}},
    .outputs = {{"P", ORT_ELEMENT_FLOAT, {"b", "m"}}},
};

/* X, D float [n] -> I, where X is not zero, and P = D[I]; N = -D. */
static const onnx_model selecting = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n"}}, {"D", ORT_ELEMENT_FLOAT, {"n"}}},
    .nodes = {{"NonZero", {"X"}, "W"},
              {"Neg", {"D"}, "N"},
              {"Transpose", {"W"}, "I"},
              {"GatherND", {"D", "I"}, "P"}},
    .outputs = {{"I", ORT_ELEMENT_INT64, {"n", "1"}},
                {"P", ORT_ELEMENT_FLOAT, {"n"}},
                {"N", ORT_ELEMENT_FLOAT, {"n"}}},
};

/* B bool [n] -> C = not B. */
static const onnx_model negation = {
    .inputs = {{"B", ORT_ELEMENT_BOOL, {"n"}}},
    .nodes = {{"Not", {"B"}, "C"}},
    .outputs = {{"C", ORT_ELEMENT_BOOL, {"n"}}},
};

static void model_make(umo_model *umo, const onnx_model *model)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%s/model.onnx", folder);
    assert_true(onnx_write(model, path));
    *umo = (umo_model){.path = folder,
                       .config = "{}",
                       .options = {{"onnxruntime_library", rig_library}},
                       .unified = {.enable = true},
                       .batch_unset = true};
}

static void load_well(loaded *l, const onnx_model *model, bool batches)
{
    umo_error error = {0};
    model_make(&l->umo, model);
    if (!batches) {
        l->umo.batch_unset = false;
    }
    if (rig_load(l, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
}

static umo_tensor host_tensor(void *data, size_t size_bytes, umo_dtype dtype, uint32_t rank,
                              int64_t d0, int64_t d1)
{
    umo_tensor tensor;
    umo_shape shape = {.rank = rank, .dims = {d0, d1}};
    assert_int_equal(umo_tensor_init(&tensor, data, size_bytes, dtype, &shape, NULL), UMO_OK);
    return tensor;
}

static void numbers_are_computed_where_they_lie_at_any_alignment(void **state)
{
    (void)state;
    loaded l;
    load_well(&l, &doubling, false);
    for (size_t off = 0; off < 8; off++) {
        char in[8 + 24];
        char out[8 + 24 + 1];
        float x[6] = {1, 2, 3, 4, 5, 6};
        float y[6];
        memcpy(in + off, x, sizeof x);
        memset(out, 77, sizeof out);
        umo_batch batch = {.requests = 1,
                           .rows = 1,
                           .inputs = {host_tensor(in + off, sizeof x, UMO_FP32, 2, 2, 3)},
                           .outputs = {{.data = out + off}}};
        umo_error error = {0};
        assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
        assert_false(batch.late[0]);
        memcpy(y, out + off, sizeof y);
        for (int i = 0; i < 6; i++) {
            assert_true(y[i] == 2 * x[i]);
        }
        assert_int_equal(out[off + sizeof y], 77);
    }
    rig_unload(&l);
}

static void empty_tensor_without_an_address_is_computed(void **state)
{
    (void)state;
    loaded l;
    char out;
    load_well(&l, &doubling, false);
    umo_batch batch = {.requests = 1, .rows = 1, .outputs = {{.data = &out}}};
    batch.inputs[0] =
        (umo_tensor){.dtype = UMO_FP32, .shape = {.rank = 2, .dims = {0, 3}}, .data = NULL};
    umo_error error = {0};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_int_equal(batch.outputs[0].shape.dims[0], 0);
    assert_int_equal(batch.outputs[0].shape.dims[1], 3);
    rig_unload(&l);
}

#define TEXTS "\1\0\0\0a\0\0\0\0\3\0\0\0\0b\0"
enum {
    TEXTS_BYTES = sizeof TEXTS - 1
};

static void mixed_batch(umo_batch *batch, float *x, float *y, char *texts)
{
    memcpy(texts, TEXTS, TEXTS_BYTES);
    *batch = (umo_batch){.requests = 1, .rows = 1};
    batch->inputs[0] = host_tensor(x, 4 * sizeof *x, UMO_FP32, 1, 4, 0);
    batch->inputs[1] = host_tensor(texts, TEXTS_BYTES, UMO_BYTES, 1, 3, 0);
    batch->outputs[0].data = y;
}

static void unknown_shapes_and_strings_are_late_with_their_reason(void **state)
{
    (void)state;
    loaded l;
    load_well(&l, &mixed, false);
    float x[4] = {0, 3, 0, 5};
    float y[4] = {0};
    char texts[TEXTS_BYTES];
    umo_batch batch;
    umo_error error = {0};
    assert_int_equal(l.umo.input_count, 2); /* what has a default is no input unless configured */
    mixed_batch(&batch, x, y, texts);
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_false(batch.late[0]);
    assert_true(y[1] == 6 && y[3] == 10);
    assert_true(batch.late[1]);
    assert_int_equal(batch.reason[1], UMO_REASON_UNKNOWN_SHAPE);
    int64_t where[2];
    assert_int_equal(batch.outputs[1].size_bytes, sizeof where);
    memcpy(where, batch.late_data[1], sizeof where);
    assert_int_equal(where[0], 1);
    assert_int_equal(where[1], 3);
    assert_true(batch.late[2]);
    assert_int_equal(batch.reason[2], UMO_REASON_ENGINE_STRINGS);
    assert_int_equal(batch.outputs[2].size_bytes, TEXTS_BYTES);
    assert_memory_equal(batch.late_data[2], TEXTS, TEXTS_BYTES);
    rig_unload(&l);
}

static void unwanted_outputs_are_not_asked_for(void **state)
{
    (void)state;
    loaded l;
    load_well(&l, &mixed, false);
    float x[4] = {0, 3, 0, 5};
    float y[4] = {0};
    char texts[TEXTS_BYTES];
    umo_batch batch;
    umo_error error = {0};
    mixed_batch(&batch, x, y, texts);
    batch.unwanted[0] = batch.unwanted[2] = true;
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_true(batch.late[1]);
    assert_false(batch.late[2]);
    assert_true(y[1] == 0);
    mixed_batch(&batch, x, y, texts);
    batch.unwanted[0] = batch.unwanted[1] = batch.unwanted[2] = true;
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    rig_unload(&l);
}

static void optional_input_overrides_its_default(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    model_make(&l.umo, &mixed);
    l.umo.batch_unset = false;
    assert_int_equal(
        umo_model_add_input(&l.umo, "SCALE", UMO_FP32, &(umo_shape){.rank = 1, .dims = {1}}, true),
        UMO_OK);
    assert_int_equal(rig_load(&l, &error), UMO_OK);
    float x[4] = {0, 3, 0, 5};
    float y[4] = {0};
    float scale = 7;
    char texts[TEXTS_BYTES];
    umo_batch batch;
    mixed_batch(&batch, x, y, texts);
    batch.inputs[2] = batch.inputs[1];
    batch.inputs[1] = batch.inputs[0];
    batch.inputs[0] = (umo_tensor){.dtype = UMO_DTYPE_INVALID};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_true(y[3] == 10);
    memset(batch.late, 0, sizeof batch.late);
    batch.inputs[0] = host_tensor(&scale, sizeof scale, UMO_FP32, 1, 1, 0);
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_true(y[3] == 35);
    rig_unload(&l);
}

static void strings_that_end_early_are_refused(void **state)
{
    (void)state;
    loaded l;
    load_well(&l, &mixed, false);
    float x[4] = {0};
    float y[4] = {0};
    char texts[TEXTS_BYTES];
    umo_batch batch;
    for (size_t size_bytes = 0; size_bytes < TEXTS_BYTES; size_bytes++) {
        umo_error error = {0};
        mixed_batch(&batch, x, y, texts);
        batch.inputs[1].size_bytes = size_bytes;
        assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, "input 'T'"));
    }
    rig_unload(&l);
}

static void bool_must_be_zero_or_one_unless_clients_are_trusted(void **state)
{
    (void)state;
    loaded l;
    unsigned char in[19];
    unsigned char out[19];
    load_well(&l, &negation, false);
    umo_error error = {0};
    for (size_t i = 0; i < sizeof in; i++) {
        in[i] = i % 2;
    }
    umo_batch batch = {.requests = 1,
                       .rows = 1,
                       .inputs = {host_tensor(in, sizeof in, UMO_BOOL, 1, sizeof in, 0)},
                       .outputs = {{.data = out}}};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_int_equal(out[0], 1);
    assert_int_equal(out[1], 0);
    for (size_t i = 0; i < sizeof in; i++) {
        unsigned char was = in[i];
        in[i] = 2;
        assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_E_INVAL);
        in[i] = was;
    }
    l.model->guarded = false;
    in[3] = 2;
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    rig_unload(&l);
}

static void bad_row_fails_alone(void **state)
{
    (void)state;
    loaded l;
    load_well(&l, &table, true);
    assert_int_equal(l.umo.batch_max, 4);
    int64_t index[6] = {0, 1, 2, 9, 3, 0};
    float picked[6] = {0};
    umo_batch batch = {.requests = 3,
                       .rows = 3,
                       .inputs = {host_tensor(index, sizeof index, UMO_INT64, 2, 3, 2)},
                       .outputs = {{.data = picked}}};
    umo_error error = {0};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
    assert_int_equal(batch.failed[0], UMO_OK);
    assert_int_equal(batch.failed[1], UMO_E_INVAL);
    assert_int_equal(batch.failed[2], UMO_OK);
    assert_true(picked[0] == 10 && picked[1] == 11 && picked[4] == 13 && picked[5] == 10);
    /* Rows of one request cannot be told apart by the client: the request fails as a whole. */
    batch = (umo_batch){
        .requests = 1, .rows = 3, .inputs = {batch.inputs[0]}, .outputs = {{.data = picked}}};
    assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "out of data bounds"));
    rig_unload(&l);
}

static void what_steers_the_engine_stays_out_of_clients_reach(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    float x[2] = {1, 2};
    float d[2] = {5, 6};
    float p[2];
    float n[2];
    int64_t i[2];
    for (int trusted = 0; trusted < 2; trusted++) {
        model_make(&l.umo, &selecting);
        l.umo.batch_unset = false;
        l.umo.unified.trusted_clients = trusted != 0;
        assert_int_equal(rig_load(&l, &error), UMO_OK);
        assert_int_equal(l.umo.inputs[0].control, !trusted); /* NonZero reads it */
        assert_false(l.umo.inputs[1].control);
        umo_batch batch = {.requests = 1,
                           .rows = 1,
                           .inputs = {host_tensor(x, sizeof x, UMO_FP32, 1, 2, 0),
                                      host_tensor(d, sizeof d, UMO_FP32, 1, 2, 0)},
                           .outputs = {{.data = i}, {.data = p}, {.data = n}}};
        assert_int_equal(ort_instance_execute(NULL, l.instance, &batch, &error), UMO_OK);
        assert_int_equal(batch.late[0], !trusted); /* GatherND reads it again */
        assert_int_equal(batch.reason[0], trusted ? UMO_REASON_NONE : UMO_REASON_CONTROL_DATA);
        assert_false(batch.late[1]);
        assert_false(batch.late[2]);
        memcpy(i, batch.outputs[0].data, sizeof i);
        assert_true(i[0] == 0 && i[1] == 1 && p[0] == 5 && p[1] == 6 && n[1] == -6);
        rig_unload(&l);
    }
}

static void every_type_has_one_partner(void **state)
{
    (void)state;
    int known = 0;
    for (int dtype = 1; dtype < UMO_DTYPES; dtype++) {
        int element = ort_element_from_dtype((umo_dtype)dtype);
        assert_int_not_equal(element, ORT_ELEMENT_UNDEFINED);
        assert_int_equal(ort_dtype_from_element(element), dtype);
    }
    for (int element = 0; element < 32; element++) {
        known += ort_dtype_from_element(element) != UMO_DTYPE_INVALID;
    }
    assert_int_equal(known, UMO_DTYPES - 1);
    assert_int_equal(ort_element_from_dtype(UMO_DTYPE_INVALID), ORT_ELEMENT_UNDEFINED);
}

static void sessions_are_shared_or_not_as_configured(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        loaded l;
        model_make(&l.umo, &doubling);
        l.umo.config = shared != 0
                           ? "{}"
                           : "{\"parameters\":{\"share_session\":{\"string_value\":\"false\"}}}";
        assert_int_equal(rig_load(&l, NULL), UMO_OK);
        ort_engine *more[2];
        for (int i = 0; i < 2; i++) {
            assert_int_equal(ort_model_engine(l.model, &more[i], NULL), UMO_OK);
        }
        assert_int_equal(more[0] == more[1], shared);
        for (int i = 0; i < 2; i++) {
            ort_engine_release(more[i]);
        }
        rig_unload(&l);
    }
}

/* The engine's calls, each of which can be made to fail once. */
static ort_api real;
static long calls;
static long fail_at;

static ort_status *failure(void)
{
    const int64_t dims = 100;
    char small;
    ort_value *none = NULL;
    ort_memory_info *info = NULL;
    assert_null(real.create_cpu_memory_info(ORT_ALLOCATOR_DEVICE, ORT_MEMORY_DEFAULT, &info));
    ort_status *status =
        real.create_tensor_with_data(info, &small, 1, &dims, 1, ORT_ELEMENT_FLOAT, &none);
    real.release_memory_info(info);
    assert_non_null(status);
    return status;
}

#define FAULTY(name, parameters, arguments)                                                        \
    static ort_status *faulty_##name parameters                                                    \
    {                                                                                              \
        calls += 1;                                                                                \
        return calls == fail_at ? failure() : real.name arguments;                                 \
    }

FAULTY(create_session_options, (ort_session_options * *a), (a))
FAULTY(set_graph_optimization, (ort_session_options * a, int b), (a, b))
FAULTY(set_log_severity, (ort_session_options * a, int b), (a, b))
FAULTY(create_session,
       (const ort_env *a, const char *b, const ort_session_options *c, ort_session **d),
       (a, b, c, d))
FAULTY(create_session_prepacked,
       (const ort_env *a, const char *b, const ort_session_options *c, ort_prepacked *d,
        ort_session **e),
       (a, b, c, d, e))
FAULTY(create_prepacked, (ort_prepacked * *a), (a))
FAULTY(add_initializer, (ort_session_options * a, const char *b, const ort_value *c), (a, b, c))
FAULTY(add_session_config, (ort_session_options * a, const char *b, const char *c), (a, b, c))
FAULTY(input_count, (const ort_session *a, size_t *b), (a, b))
FAULTY(output_count, (const ort_session *a, size_t *b), (a, b))
FAULTY(initializer_count, (const ort_session *a, size_t *b), (a, b))
FAULTY(input_type, (const ort_session *a, size_t b, ort_type_info **c), (a, b, c))
FAULTY(output_type, (const ort_session *a, size_t b, ort_type_info **c), (a, b, c))
FAULTY(initializer_type, (const ort_session *a, size_t b, ort_type_info **c), (a, b, c))
FAULTY(input_name, (const ort_session *a, size_t b, ort_allocator *c, char **d), (a, b, c, d))
FAULTY(output_name, (const ort_session *a, size_t b, ort_allocator *c, char **d), (a, b, c, d))
FAULTY(initializer_name, (const ort_session *a, size_t b, ort_allocator *c, char **d), (a, b, c, d))
FAULTY(type_kind, (const ort_type_info *a, int *b), (a, b))
FAULTY(type_as_tensor, (const ort_type_info *a, const ort_tensor_info **b), (a, b))
FAULTY(tensor_element, (const ort_tensor_info *a, int *b), (a, b))
FAULTY(tensor_rank, (const ort_tensor_info *a, size_t *b), (a, b))
FAULTY(tensor_dims, (const ort_tensor_info *a, int64_t *b, size_t c), (a, b, c))
FAULTY(tensor_symbols, (const ort_tensor_info *a, const char **b, size_t c), (a, b, c))
FAULTY(create_run_options, (ort_run_options * *a), (a))
FAULTY(run_set_log_severity, (ort_run_options * a, int b), (a, b))
FAULTY(create_tensor, (ort_allocator * a, const int64_t *b, size_t c, int d, ort_value **e),
       (a, b, c, d, e))
FAULTY(create_tensor_with_data,
       (const ort_memory_info *a, void *b, size_t c, const int64_t *d, size_t e, int f,
        ort_value **g),
       (a, b, c, d, e, f, g))
FAULTY(string_resize, (ort_value * a, size_t b, size_t c, char **d), (a, b, c, d))
FAULTY(run,
       (ort_session * a, const ort_run_options *b, const char *const *c, const ort_value *const *d,
        size_t e, const char *const *f, size_t g, ort_value **h),
       (a, b, c, d, e, f, g, h))
FAULTY(value_kind, (const ort_value *a, int *b), (a, b))
FAULTY(value_info, (const ort_value *a, ort_tensor_info **b), (a, b))
FAULTY(tensor_data, (ort_value * a, void **b), (a, b))
FAULTY(strings_bytes, (const ort_value *a, size_t *b), (a, b))
FAULTY(string_bytes, (const ort_value *a, size_t b, size_t *c), (a, b, c))
FAULTY(string_copy, (const ort_value *a, size_t b, size_t c, void *d), (a, b, c, d))

static void make_faulty(ort_api *api)
{
    real = *api;
#define INSTALL(name) api->name = faulty_##name;
    INSTALL(create_session_options)
    INSTALL(set_graph_optimization)
    INSTALL(set_log_severity)
    INSTALL(create_session)
    INSTALL(create_session_prepacked)
    INSTALL(create_prepacked)
    INSTALL(add_initializer)
    INSTALL(add_session_config)
    INSTALL(input_count)
    INSTALL(output_count)
    INSTALL(initializer_count)
    INSTALL(input_type)
    INSTALL(output_type)
    INSTALL(initializer_type)
    INSTALL(input_name)
    INSTALL(output_name)
    INSTALL(initializer_name)
    INSTALL(type_kind)
    INSTALL(type_as_tensor)
    INSTALL(tensor_element)
    INSTALL(tensor_rank)
    INSTALL(tensor_dims)
    INSTALL(tensor_symbols)
    INSTALL(create_run_options)
    INSTALL(run_set_log_severity)
    INSTALL(create_tensor)
    INSTALL(create_tensor_with_data)
    INSTALL(string_resize)
    INSTALL(run)
    INSTALL(value_kind)
    INSTALL(value_info)
    INSTALL(tensor_data)
    INSTALL(strings_bytes)
    INSTALL(string_bytes)
    INSTALL(string_copy)
}

/* Loads the mixed model and runs it twice; the sanitizer sees what a failing path leaves behind. */
static umo_status whole_life(const char *config, umo_error *error)
{
    loaded l;
    float x[4] = {0, 3, 0, 5};
    float y[4] = {0};
    char texts[TEXTS_BYTES];
    umo_batch batch;
    model_make(&l.umo, &mixed);
    l.umo.batch_unset = false;
    l.umo.config = config;
    umo_status status = rig_load(&l, error);
    if (status == UMO_OK) {
        mixed_batch(&batch, x, y, texts);
        status = ort_instance_execute(NULL, l.instance, &batch, error);
        /* Whatever failed, the instance answers the next request. */
        long armed = fail_at;
        umo_error none = {0};
        fail_at = calls >= fail_at ? -1 : fail_at;
        mixed_batch(&batch, x, y, texts);
        umo_status again = ort_instance_execute(NULL, l.instance, &batch, &none);
        if (fail_at == -1 && again != UMO_OK) {
            fail_msg("after a failure: %s", none.text);
        }
        fail_at = armed;
        status = status != UMO_OK ? status : again;
        if (again != UMO_OK && status == again) {
            *error = none;
        }
    }
    rig_unload(&l);
    return status;
}

static void every_failing_call_is_reported_and_leaves_nothing(void **state)
{
    (void)state;
    ort_runtime *runtime = NULL;
    umo_error error = {0};
    assert_int_equal(
        ort_runtime_acquire(&(ort_runtime_options){.library = rig_library}, &runtime, NULL),
        UMO_OK);
    make_faulty(&runtime->api);
    static const char *const configs[] = {
        "{}", "{\"parameters\":{\"share_session\":{\"string_value\":\"false\"}}}"};
    for (int c = 0; c < 2; c++) {
        calls = 0;
        fail_at = -1;
        assert_int_equal(whole_life(configs[c], &error), UMO_OK);
        long total = calls;
        assert_true(total > 60);
        for (fail_at = 1; fail_at <= total; fail_at++) {
            calls = 0;
            error = (umo_error){0};
            if (whole_life(configs[c], &error) == UMO_OK) {
                fail_msg("call %ld of %ld failed, and nobody noticed", fail_at, total);
            }
            assert_non_null(strstr(error.text, "ONNX Runtime could not "));
            umo_weights_stats stats;
            umo_weights_read(&stats);
            assert_int_equal(stats.files, 0);
        }
    }
    runtime->api = real;
    ort_runtime_release(runtime);
}

/* First of all: once a library is open, the process keeps it. */
static void refused_library_is_named_and_another_can_follow(void **state)
{
    (void)state;
    ort_runtime *runtime = NULL;
    umo_error error = {0};
    static const struct {
        const char *library;
        const char *words;
        umo_status status;
    } cases[] = {
        {"/nowhere/libonnxruntime.so", "onnxruntime_library: cannot load", UMO_E_NOT_FOUND},
        {"/proc", "names a folder without libonnxruntime.so", UMO_E_NOT_FOUND},
        {"libm.so.6", "has no OrtGetApiBase", UMO_E_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const ort_runtime_options options = {.library = cases[i].library};
        assert_int_equal(ort_runtime_acquire(&options, &runtime, &error), cases[i].status);
        assert_non_null(strstr(error.text, cases[i].words));
        assert_null(runtime);
    }
    assert_int_equal(
        ort_runtime_acquire(&(ort_runtime_options){.library = rig_library}, &runtime, NULL),
        UMO_OK);
    assert_true(runtime->release[0] >= '1' && runtime->release[0] <= '9');
    ort_runtime_release(runtime);
}

static void remove_files(void)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%s/model.onnx", folder);
    (void)unlink(path);
    (void)rmdir(folder);
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
        cmocka_unit_test(refused_library_is_named_and_another_can_follow),
        cmocka_unit_test(numbers_are_computed_where_they_lie_at_any_alignment),
        cmocka_unit_test(empty_tensor_without_an_address_is_computed),
        cmocka_unit_test(unknown_shapes_and_strings_are_late_with_their_reason),
        cmocka_unit_test(unwanted_outputs_are_not_asked_for),
        cmocka_unit_test(optional_input_overrides_its_default),
        cmocka_unit_test(strings_that_end_early_are_refused),
        cmocka_unit_test(bool_must_be_zero_or_one_unless_clients_are_trusted),
        cmocka_unit_test(bad_row_fails_alone),
        cmocka_unit_test(what_steers_the_engine_stays_out_of_clients_reach),
        cmocka_unit_test(every_type_has_one_partner),
        cmocka_unit_test(sessions_are_shared_or_not_as_configured),
        cmocka_unit_test(every_failing_call_is_reported_and_leaves_nothing),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_files();
    return failed;
}
