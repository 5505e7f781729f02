/*
 * Configurations, good and bad: what is wrong is named at load, with what would be right.
 */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

static const model_plan bytes = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

static void a_bad_parameter_is_named_with_its_remedy(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{", "parameter 'unified_memory' is not JSON"},
        {"", "parameter 'unified_memory' is not JSON"},
        {"[]", "parameter 'unified_memory' is an array; write an object"},
        {"7", "is not JSON"},
        {"{\"enable\": true, \"enable\": false}", "duplicate"},
        {"{\"enable\": 1}", "unified_memory.enable is an integer; write true or false"},
        {"{\"enable\": \"yes\"}", "unified_memory.enable is a string"},
        {"{\"batch_optimization\": null}", "unified_memory.batch_optimization is null"},
        {"{\"trusted_clients\": 0.5}",
         "unified_memory.trusted_clients is a number with a fraction"},
        {"{\"zero_copy_threshold\": -1}", "unified_memory.zero_copy_threshold is negative"},
        {"{\"zero_copy_threshold\": \"1M\"}", "unified_memory.zero_copy_threshold is a string"},
        {"{\"zero_copy_threshold\": 1e6}", "zero_copy_threshold is a number with a fraction"},
        {"{\"zero_copy_threshold\": 99999999999999999999}", "is not JSON"},
        {"{\"device\": 0}", "unified_memory.device is an integer; write a driver and a number"},
        {"{\"device\": \"\"}", "write a driver and a number"},
        {"{\"device\": \":0\"}", "write a driver and a number"},
        {"{\"device\": \"opencl:\"}", "write a driver and a number"},
        {"{\"device\": \"opencl:-1\"}", "write a driver and a number"},
        {"{\"device\": \"opencl:1x\"}", "write a driver and a number"},
        {"{\"device\": \"opencl:4294967296\"}", "write a driver and a number"},
        {"{\"device\": \"a-name-that-is-far-too-long:0\"}", "write a driver and a number"},
        {"{\"tensor_patterns\": {}}", "unified_memory.tensor_patterns is an object"},
        {"{\"tensor_patterns\": [7]}", "an entry is {\"name\": TENSOR"},
        {"{\"tensor_patterns\": [{\"name\": \"INPUT0\"}]}", "an entry is"},
        {"{\"tensor_patterns\": [{\"name\": \"INPUT0\", \"pattern\": \"fast\"}]}",
         "'fast' is no pattern; write cpu_dominant"},
        {"{\"tensor_patterns\": [{\"name\": \"x\", \"pattern\": \"unknown\", \"more\": 1}]}",
         "and nothing else"},
        {"{\"enabled\": true}", "unified_memory has no field 'enabled'; it has enable"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        model_plan plan = bytes;
        plan.unified = rows[i][0];
        world_start(&w);
        world_configure(&w, &plan);
        if (world_load(&w)) {
            fail_msg("%s was taken", rows[i][0]);
        }
        if (strstr(w.text, rows[i][1]) == NULL) {
            fail_msg("%s: '%s', without '%s'", rows[i][0], w.text, rows[i][1]);
        }
        world_finish(&w);
    }
}

static void a_good_parameter_is_read(void **state)
{
    (void)state;
    world w;
    model_plan plan = bytes;
    plan.unified = "{\"enable\": false, \"batch_optimization\": false, \"trusted_clients\": true, "
                   "\"zero_copy_threshold\": 0, \"device\": \"opencl:3\", \"tensor_patterns\": "
                   "[{\"name\": \"OUTPUT0\", \"pattern\": \"streaming\"}, "
                   "{\"name\": \"weights\", \"pattern\": \"gpu_dominant\"}]}";
    world_start(&w);
    world_load_ok(&w, &plan);
    const umo_unified_config *unified = umo_model_unified(w.model.state);
    assert_false(unified->enable);
    assert_false(unified->batch_optimization);
    assert_true(unified->trusted_clients);
    assert_int_equal(unified->zero_copy_threshold, 0);
    assert_string_equal(unified->driver, "opencl");
    assert_int_equal(unified->ordinal, 3);
    size_t count;
    assert_int_equal(umo_model_inputs(w.model.state, &count)[0].pattern, UMO_PATTERN_UNKNOWN);
    assert_int_equal(umo_model_outputs(w.model.state, &count)[0].pattern, UMO_PATTERN_STREAMING);
    world_unload(&w);
    world_finish(&w);
}

typedef struct noted {
    char names[64];
    umo_pattern last;
} noted;

static void note(const char *name, umo_pattern pattern, void *user)
{
    noted *n = user;
    (void)strcat(n->names, name);
    (void)strcat(n->names, " ");
    n->last = pattern;
}

static void the_missions_own_form_is_read(void **state)
{
    (void)state;
    static const char model[] =
        "{\"name\": \"my_model\", \"backend\": \"pytorch\", \"optimization\": {\"unified_memory\": "
        "{\"enable\": true, \"batch_optimization\": false, \"profiling\": true, "
        "\"zero_copy_threshold\": 4096, \"tensor_patterns\": ["
        "{\"name\": \"input\", \"pattern\": \"cpu_dominant\"}, "
        "{\"name\": \"weights\", \"pattern\": \"gpu_dominant\"}]}}}";
    umo_unified_config config;
    noted n = {.names = ""};
    assert_int_equal(umo_unified_config_find(model, &config, note, &n, NULL), UMO_OK);
    assert_false(config.batch_optimization);
    assert_true(config.profiling);
    assert_int_equal(config.zero_copy_threshold, 4096);
    assert_int_equal(config.weights, UMO_PATTERN_GPU_DOMINANT);
    assert_string_equal(n.names, "input weights ");
    assert_int_equal(n.last, UMO_PATTERN_GPU_DOMINANT);

    /* What the server passes on; and a model that says nothing. */
    static const char passed[] = "{\"parameters\": {\"unified_memory\": {\"string_value\": "
                                 "\"{\\\"zero_copy_threshold\\\": 7}\"}}}";
    assert_int_equal(umo_unified_config_find(passed, &config, NULL, NULL, NULL), UMO_OK);
    assert_int_equal(config.zero_copy_threshold, 7);
    assert_int_equal(umo_unified_config_find("{}", &config, NULL, NULL, NULL), UMO_OK);
    assert_int_equal(config.zero_copy_threshold, 1 << 20);
    assert_int_equal(config.weights, UMO_PATTERN_UNKNOWN);

    umo_error error = {0};
    static const char *const bad[] = {"", "[]", "{\"optimization\": {\"unified_memory\": 1}}",
                                      "{\"optimization\": {\"unified_memory\": {\"x\": 1}}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        config.zero_copy_threshold = 99;
        assert_int_equal(umo_unified_config_find(bad[i], &config, NULL, NULL, &error), UMO_E_INVAL);
        assert_int_equal(config.zero_copy_threshold, 99);
    }
}

static void a_bad_tensor_is_named(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{\"name\": \"X\", \"data_type\": \"TYPE_FP31\", \"dims\": []}",
         "tensor 'X' has no valid data type"},
        {"{\"name\": \"X\", \"dims\": []}", "tensor 'X' has no valid data type"},
        {"{\"data_type\": \"TYPE_FP32\", \"dims\": []}", "tensor ''"},
        {"{\"name\": \"X\", \"data_type\": \"TYPE_FP32\", \"dims\": [\"two\"]}",
         "tensor 'X': dimension 0 is no number"},
        {"{\"name\": \"X\", \"data_type\": \"TYPE_FP32\", \"dims\": [1, \"\"]}",
         "tensor 'X': dimension 1 is no number"},
        {"{\"name\": \"X\", \"data_type\": \"TYPE_FP32\", \"dims\": [null]}",
         "tensor 'X': dimension 0 is no number"},
        {"{\"name\": \"X\", \"data_type\": \"TYPE_FP32\", \"dims\": [\"99999999999999999999\"]}",
         "tensor 'X': dimension 0 is no number"},
        {"{\"name\": \"X\", \"data_type\": \"TYPE_FP32\", \"dims\": "
         "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}",
         "tensor 'X' has 32 dimensions; at most 31"},
        {"7", "tensor ''"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        char text[1024];
        world_start(&w);
        (void)snprintf(text, sizeof text, "{\"input\": [%s], \"output\": []}", rows[i][0]);
        fake.config = text;
        if (world_load(&w)) {
            fail_msg("%s was taken", rows[i][0]);
        }
        if (strstr(w.text, rows[i][1]) == NULL) {
            fail_msg("%s: '%s', without '%s'", rows[i][0], w.text, rows[i][1]);
        }
        world_finish(&w);
    }
}

/* A scalar model is shown as one element by reshape; the request has the shape of the model. */
static void reshape_is_what_the_model_sees(void **state)
{
    (void)state;
    static const model_plan scalar = {
        .input_count = 1, .output_count = 1, .inputs = {{.dtype = UMO_FP32, .dims = {0}}}};
    world w;
    job j;
    world_start(&w);
    fake.config = "{\"input\": [{\"name\": \"INPUT0\", \"data_type\": \"TYPE_FP32\", \"dims\": "
                  "[\"1\"], \"reshape\": {\"shape\": []}}], \"output\": [{\"name\": \"OUTPUT0\", "
                  "\"data_type\": \"TYPE_FP32\", \"dims\": [1], \"reshape\": {\"shape\": []}}]}";
    assert_true(world_load(&w));
    job_simple(&j, &scalar, 1, 1, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

static void a_bad_budget_is_named(void **state)
{
    (void)state;
    static const char *const values[] = {"", "-1", "1G", " 5", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        world w;
        char text[128];
        world_start(&w);
        world_configure(&w, &bytes);
        (void)snprintf(text, sizeof text, "{\"cmdline\": {\"budget_bytes\": \"%s\"}}", values[i]);
        fake.options = text;
        assert_false(world_load(&w));
        assert_non_null(strstr(w.text, "is not a number of bytes"));
        world_finish(&w);
    }
}

static void options_that_cannot_be_read_fail_the_load(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_configure(&w, &bytes);
    fake.options = "{\"cmdline\": ";
    assert_false(world_load(&w));
    assert_non_null(strstr(w.text, "options"));
    world_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_parameter_is_named_with_its_remedy),
        cmocka_unit_test(a_good_parameter_is_read),
        cmocka_unit_test(the_missions_own_form_is_read),
        cmocka_unit_test(a_bad_tensor_is_named),
        cmocka_unit_test(reshape_is_what_the_model_sees),
        cmocka_unit_test(a_bad_budget_is_named),
        cmocka_unit_test(options_that_cannot_be_read_fail_the_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
