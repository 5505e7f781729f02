/*
 * Settings and plans: what is read, what is refused and with which words, and which shapes are
 * certain.
 */
#include "fake_kit.h"
#include "options.h"
#include "ort_api.h"
#include "plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static umo_status read_json(const char *config, ort_options *out, umo_error *error)
{
    umo_model model = {.path = "/models/m/1", .config = config};
    umo_status status = ort_options_read(&model, out, error);
    if (status == UMO_OK) {
        out->shrinkage = NULL; /* lives as long as the model, which ends here */
    }
    fake_model_finish(&model);
    return status;
}

static void nothing_said_leaves_the_engines_defaults(void **state)
{
    (void)state;
    ort_options options;
    assert_int_equal(read_json("{}", &options, NULL), UMO_OK);
    assert_int_equal(options.intra_op_threads, ORT_UNSET);
    assert_int_equal(options.inter_op_threads, ORT_UNSET);
    assert_int_equal(options.execution_mode, ORT_UNSET);
    assert_int_equal(options.mem_arena, ORT_UNSET);
    assert_int_equal(options.mem_pattern, ORT_UNSET);
    assert_int_equal(options.graph_level, ORT_OPTIMIZE_ALL);
    assert_int_equal(options.batch_default, 4);
    assert_true(options.share_session);
    assert_true(options.symbolic_shapes);
    assert_false(options.global_threads);
    ort_options_finish(&options);
}

#define PARAMETER(key, value) "{\"parameters\":{\"" key "\":{\"string_value\":\"" value "\"}}}"

static void parameters_are_read(void **state)
{
    (void)state;
    ort_options options;
    const char *key;
    const char *value;
    assert_int_equal(
        read_json("{\"parameters\":{\"intra_op_thread_count\":{\"string_value\":\"3\"},"
                  "\"inter_op_thread_count\":{\"string_value\":\"0\"},"
                  "\"execution_mode\":{\"string_value\":\"1\"},"
                  "\"enable_mem_arena\":{\"string_value\":\"false\"},"
                  "\"enable_mem_pattern\":{\"string_value\":\"true\"},"
                  "\"share_session\":{\"string_value\":\"0\"},"
                  "\"session_config.a.b\":{\"string_value\":\"x\"},"
                  "\"somebody_elses\":{\"string_value\":\"?\"},"
                  "\"session_config.c\":{\"string_value\":\"y\"}},"
                  "\"optimization\":{\"graph\":{\"level\":-1}},"
                  "\"model_operations\":{\"op_library_filename\":[\"one.so\",\"two.so\"]}}",
                  &options, NULL),
        UMO_OK);
    assert_int_equal(options.intra_op_threads, 3);
    assert_int_equal(options.inter_op_threads, 0);
    assert_int_equal(options.execution_mode, 1);
    assert_int_equal(options.mem_arena, 0);
    assert_int_equal(options.mem_pattern, 1);
    assert_int_equal(options.graph_level, ORT_OPTIMIZE_BASIC);
    assert_false(options.share_session);
    assert_true(ort_options_session_config(&options, 0, &key, &value));
    assert_string_equal(key, "a.b");
    assert_string_equal(value, "x");
    assert_true(ort_options_session_config(&options, 1, &key, &value));
    assert_string_equal(key, "c");
    assert_false(ort_options_session_config(&options, 2, &key, &value));
    assert_string_equal(ort_options_op_library(&options, 1), "two.so");
    assert_null(ort_options_op_library(&options, 2));
    ort_options_finish(&options);
}

static void graph_levels_are_tritons(void **state)
{
    (void)state;
    static const int expected[][2] = {{-1, ORT_OPTIMIZE_BASIC},
                                      {0, ORT_OPTIMIZE_ALL},
                                      {1, ORT_OPTIMIZE_EXTENDED},
                                      {2, ORT_OPTIMIZE_NONE}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char config[96];
        ort_options options;
        (void)snprintf(config, sizeof config, "{\"optimization\":{\"graph\":{\"level\":%d}}}",
                       expected[i][0]);
        assert_int_equal(read_json(config, &options, NULL), UMO_OK);
        assert_int_equal(options.graph_level, expected[i][1]);
        ort_options_finish(&options);
    }
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        const char *words;
        umo_status status;
    } cases[] = {
        {PARAMETER("intra_op_thread_count", "two"), "intra_op_thread_count is 'two'", UMO_E_INVAL},
        {PARAMETER("intra_op_thread_count", ""), "intra_op_thread_count is ''", UMO_E_INVAL},
        {PARAMETER("intra_op_thread_count", "99999999999999999999"), "intra_op_thread_count",
         UMO_E_INVAL},
        {PARAMETER("inter_op_thread_count", "-1"), "inter_op_thread_count is '-1'", UMO_E_INVAL},
        {PARAMETER("execution_mode", "parallel"), "execution_mode is 'parallel'", UMO_E_INVAL},
        {PARAMETER("enable_mem_arena", "2"), "enable_mem_arena is '2'", UMO_E_INVAL},
        {PARAMETER("memory.enable_memory_arena_shrinkage", "cpu:1"), "only arena is cpu:0",
         UMO_E_INVAL},
        {"{\"optimization\":{\"graph\":{\"level\":\"1\"}}}", "optimization.graph.level",
         UMO_E_INVAL},
        {"{\"optimization\":{\"graph\":{\"level\":3}}}", "optimization.graph.level", UMO_E_INVAL},
        {"{\"optimization\":{\"execution_accelerators\":{\"gpu_execution_accelerator\":[{\"name\":"
         "\"tensorrt\"}]}}}",
         "'tensorrt'", UMO_E_UNSUPPORTED},
        {"{\"optimization\":{\"execution_accelerators\":{\"cpu_execution_accelerator\":[{}]}}}",
         "accelerator ''", UMO_E_UNSUPPORTED},
        {"{", "no JSON", UMO_E_INVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ort_options options = {0};
        umo_error error = {0};
        assert_int_equal(read_json(cases[i].config, &options, &error), cases[i].status);
        assert_non_null(strstr(error.text, cases[i].words));
        assert_null(options.config);
    }
}

static void slot_of_the_kit_is_no_accelerator(void **state)
{
    (void)state;
    ort_options options;
    assert_int_equal(read_json("{\"optimization\":{\"execution_accelerators\":{\"cpu_execution_"
                               "accelerator\":[{\"name\":\"unified_memory\"}]}}}",
                               &options, NULL),
                     UMO_OK);
    ort_options_finish(&options);
}

static void command_line_yields_to_the_model_but_not_with_a_global_pool(void **state)
{
    (void)state;
    umo_model model = {.config = PARAMETER("intra_op_thread_count", "3"),
                       .options = {{"intra_op_thread_count", "7"},
                                   {"inter_op_thread_count", "5"},
                                   {"default-max-batch-size", "16"}}};
    ort_options options;
    assert_int_equal(ort_options_read(&model, &options, NULL), UMO_OK);
    assert_int_equal(options.intra_op_threads, 3);
    assert_int_equal(options.inter_op_threads, 5);
    assert_int_equal(options.batch_default, 16);
    assert_int_equal(model.warnings, 0);
    ort_options_finish(&options);
    model.options[3][0] = "enable-global-threadpool";
    model.options[3][1] = "1";
    assert_int_equal(ort_options_read(&model, &options, NULL), UMO_OK);
    assert_int_equal(options.intra_op_threads, 7);
    assert_true(options.global_threads);
    assert_int_equal(model.warnings, 1);
    ort_options_finish(&options);
    model.options[3][1] = "on";
    umo_error error;
    assert_int_equal(ort_options_read(&model, &options, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "enable-global-threadpool is 'on'"));
    fake_model_finish(&model);
}

/* A (a x n), B (n) -> Y (a x 3 x n), Z (2 x q), S without rank. */
typedef struct world {
    ort_spec specs[5];
    umo_io ios[5];
    ort_bound inputs[2];
    ort_bound outputs[3];
} world;

static ort_spec spec_of(uint32_t rank, const int64_t *dims, char *const *symbols)
{
    ort_spec spec = {.is_tensor = true, .dtype = UMO_FP32, .shape = {.rank = rank}};
    for (uint32_t i = 0; i < rank; i++) {
        spec.shape.dims[i] = dims[i];
        spec.symbols[i] = symbols[i];
    }
    return spec;
}

static void world_make(world *w)
{
    static char a[] = "a", n[] = "n", q[] = "q";
    *w = (world){0};
    w->specs[0] = spec_of(2, (int64_t[]){-1, -1}, (char *[]){a, n});
    w->specs[1] = spec_of(1, (int64_t[]){-1}, (char *[]){n});
    w->specs[2] = spec_of(3, (int64_t[]){-1, 3, -1}, (char *[]){a, NULL, n});
    w->specs[3] = spec_of(2, (int64_t[]){2, -1}, (char *[]){NULL, q});
    w->specs[4] = spec_of(0, NULL, NULL);
    for (int i = 0; i < 5; i++) {
        w->ios[i] = (umo_io){.dtype = UMO_FP32, .dims = w->specs[i].shape};
    }
    for (int i = 0; i < 2; i++) {
        w->inputs[i] = (ort_bound){.io = &w->ios[i], .spec = &w->specs[i]};
    }
    for (int i = 0; i < 3; i++) {
        w->outputs[i] = (ort_bound){.io = &w->ios[2 + i], .spec = &w->specs[2 + i]};
    }
}

static umo_tensor tensor_of(uint32_t rank, int64_t d0, int64_t d1)
{
    return (umo_tensor){.dtype = UMO_FP32, .shape = {.rank = rank, .dims = {d0, d1}}};
}

static void names_tell_shapes_where_the_inputs_agree(void **state)
{
    (void)state;
    world w;
    ort_plan plan;
    int64_t values[4];
    umo_shape shape;
    world_make(&w);
    assert_int_equal(ort_plan_make(w.inputs, 2, w.outputs, 3, false, true, &plan, NULL), UMO_OK);
    assert_int_equal(plan.symbol_count, 2);
    umo_tensor inputs[2] = {tensor_of(2, 5, 7), tensor_of(1, 7, 0)};
    ort_plan_values(&plan, inputs, values);
    assert_true(ort_plan_shape(&plan, 0, 1, values, &shape));
    assert_true(umo_shape_equal(&shape, &(umo_shape){.rank = 3, .dims = {5, 3, 7}}));
    assert_false(ort_plan_shape(&plan, 1, 1, values, &shape)); /* q is no input's */
    assert_false(ort_plan_shape(&plan, 2, 1, values, &shape)); /* may be of any rank */
    inputs[1] = tensor_of(1, 1, 0);
    ort_plan_values(&plan, inputs, values);
    assert_false(ort_plan_shape(&plan, 0, 1, values, &shape));
    inputs[1].dtype = UMO_DTYPE_INVALID; /* an absent optional input contradicts nobody */
    ort_plan_values(&plan, inputs, values);
    assert_true(ort_plan_shape(&plan, 0, 1, values, &shape));
    inputs[0].dtype = UMO_DTYPE_INVALID;
    ort_plan_values(&plan, inputs, values);
    assert_false(ort_plan_shape(&plan, 0, 1, values, &shape));
    ort_plan_finish(&plan);
    assert_int_equal(ort_plan_make(w.inputs, 2, w.outputs, 3, false, false, &plan, NULL), UMO_OK);
    inputs[0] = tensor_of(2, 5, 7);
    ort_plan_values(&plan, inputs, values);
    assert_false(ort_plan_shape(&plan, 0, 1, values, &shape));
    ort_plan_finish(&plan);
}

static void batch_and_configuration_tell_shapes(void **state)
{
    (void)state;
    world w;
    ort_plan plan;
    umo_shape shape;
    world_make(&w);
    w.specs[3].shape.dims[0] = -1;
    w.ios[3].dims = (umo_shape){.rank = 1, .dims = {9}};
    assert_int_equal(ort_plan_make(w.inputs, 2, w.outputs, 2, true, false, &plan, NULL), UMO_OK);
    assert_true(ort_plan_shape(&plan, 1, 6, NULL, &shape));
    assert_true(umo_shape_equal(&shape, &(umo_shape){.rank = 2, .dims = {6, 9}}));
    ort_plan_finish(&plan);
    w.specs[3].dtype = UMO_BYTES; /* no size follows from the shape of strings */
    assert_int_equal(ort_plan_make(w.inputs, 2, w.outputs, 2, true, false, &plan, NULL), UMO_OK);
    assert_false(ort_plan_shape(&plan, 1, 6, NULL, &shape));
    ort_plan_finish(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_said_leaves_the_engines_defaults),
        cmocka_unit_test(parameters_are_read),
        cmocka_unit_test(graph_levels_are_tritons),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(slot_of_the_kit_is_no_accelerator),
        cmocka_unit_test(command_line_yields_to_the_model_but_not_with_a_global_pool),
        cmocka_unit_test(names_tell_shapes_where_the_inputs_agree),
        cmocka_unit_test(batch_and_configuration_tell_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
