/*
 * Configurations, good and bad: what is wrong is named at load, with what would be right.
 */
#include "world.h"

#include "kit/kit.h"

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
        {"{\"enable\": NaN}", "is not JSON"},
        {"{\"enable\": \"\xff\"}", "is not JSON: unable to decode byte 0xff"},
        {"{\"enable\": 1}", "unified_memory.enable is an integer; write true or false"},
        {"{\"enable\": \"yes\"}", "unified_memory.enable is a string (\"yes\")"},
        {"{\"enable\": \"true\"}", "unified_memory.enable is a string (\"true\")"},
        {"{\"enable\": {}}", "unified_memory.enable is an object"},
        {"{\"batch_optimization\": null}", "unified_memory.batch_optimization is null"},
        {"{\"trusted_clients\": 0.5}",
         "unified_memory.trusted_clients is a number with a fraction"},
        {"{\"zero_copy_threshold\": -1}", "unified_memory.zero_copy_threshold is negative"},
        {"{\"zero_copy_threshold\": \"1M\"}",
         "unified_memory.zero_copy_threshold is a string (\"1M\"); write a number of bytes, 0 or "
         "more, or \"auto\""},
        {"{\"zero_copy_threshold\": \"\"}", "zero_copy_threshold is a string"},
        {"{\"zero_copy_threshold\": \"-1\"}", "zero_copy_threshold is a string"},
        {"{\"zero_copy_threshold\": \" 5\"}", "zero_copy_threshold is a string"},
        {"{\"zero_copy_threshold\": \"5 \"}", "zero_copy_threshold is a string"},
        {"{\"zero_copy_threshold\": \"99999999999999999999\"}", "is a string (\"9999"},
        {"{\"zero_copy_threshold\": \"18446744073709551615\"}", "is a string (\"1844"},
        {"{\"zero_copy_threshold\": \"a long text \\\\u0007 with "
         "\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9"
         "\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\"}",
         "(\"a long text ? with \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
         "...\")"},
        {"{\"zero_copy_threshold\": 1e6}", "zero_copy_threshold is a number with a fraction"},
        {"{\"zero_copy_threshold\": 1e999}", "is not JSON"},
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
        {"{\"tensor_patterns\": [7]}",
         "unified_memory.tensor_patterns[0]: an entry is {\"name\": "},
        {"{\"tensor_patterns\": [{\"name\": \"INPUT0\"}]}", "an entry is"},
        {"{\"tensor_patterns\": [{\"name\": \"\", \"pattern\": \"unknown\"}]}", "an entry is"},
        {"{\"tensor_patterns\": [{\"name\": \"INPUT0\", \"pattern\": \"fast\"}]}",
         "unified_memory.tensor_patterns[0].pattern: 'fast' is no pattern; write cpu_dominant"},
        {"{\"tensor_patterns\": [{\"name\": \"a\", \"pattern\": \"unknown\"}, {\"name\": \"b\", "
         "\"pattern\": \"GPU-Dominnt\"}]}",
         "tensor_patterns[1].pattern: 'GPU-Dominnt' is no pattern; did you mean gpu_dominant?"},
        {"{\"tensor_patterns\": [{\"name\": \"a\", \"pattern\": 3}]}",
         "tensor_patterns[0].pattern: 'an integer' is no pattern"},
        {"{\"tensor_patterns\": [{\"name\": \"a\", \"pattern\": \"unknown\"}, {\"name\": \"a\", "
         "\"pattern\": \"unknown\"}]}",
         "tensor_patterns[1].name: 'a' has a pattern already, at [0]"},
        {"{\"tensor_patterns\": [{\"name\": \"x\", \"pattern\": \"unknown\", \"more\": 1}]}",
         "and nothing else"},
        {"{\"cache_line_size\": 0}", "unified_memory.cache_line_size: write a power of two"},
        {"{\"cache_line_size\": 96}", "unified_memory.cache_line_size: write a power of two"},
        {"{\"cache_line_size\": 8192}", "unified_memory.cache_line_size: write a power of two"},
        {"{\"pool_config\": 5}", "unified_memory.pool_config is an integer; write an object"},
        {"{\"pool_config\": {\"small_buffer_size\": 0}}",
         "unified_memory.pool_config.small_buffer_size: write a number, 1 or more"},
        {"{\"pool_config\": {\"large_buffer_count\": -1}}",
         "unified_memory.pool_config.large_buffer_count: write a number, 0 or more"},
        {"{\"pool_config\": {\"small_bufer_size\": 1}}",
         "unified_memory.pool_config has no field 'small_bufer_size'; did you mean "
         "small_buffer_size?"},
        {"{\"pool_config\": {\"medium_buffer_size\": 9223372036854775807}}",
         "sizes times counts are more bytes than there can be"},
        {"{\"memory_pressure_threshold\": 0.5}",
         "unified_memory.memory_pressure_threshold is of the whole process and not of one model: "
         "start the server with --backend-config=BACKEND,unified_memory.memory_pressure_threshold"},
        {"{\"enable_pressure_adaptation\": true}", "is of the whole process"},
        {"{\"enable_zero_copy\": true}", "unified_memory.enable_zero_copy has no meaning here: "
                                         "write enable"},
        {"{\"enable_unified_memory\": true}", "write enable"},
        {"{\"enable_batch_optimization\": true}", "write batch_optimization"},
        {"{\"enable_profiling\": true}", "write profiling"},
        {"{\"enable_auto_placement\": true}",
         "has no meaning here: tensors of a served model stay"},
        {"{\"placement_change_threshold\": 1}", "has no meaning here"},
        {"{\"enable_prefetching\": true}", "has no meaning here"},
        {"{\"prefetch_size\": 1}", "has no meaning here"},
        {"{\"enable_numa_optimization\": 1}",
         "unified_memory.enable_numa_optimization is an integer; write true or false"},
        {"{\"enabled\": true}", "unified_memory has no field 'enabled'; did you mean enable?"},
        {"{\"zero_copy_treshold\": 1}", "did you mean zero_copy_threshold?"},
        {"{\"speed\": 1}",
         "unified_memory has no field 'speed'; it has enable, batch_optimization, trusted_clients, "
         "profiling, parallel_copies, zero_copy_threshold, device, tensor_patterns, "
         "cache_line_size, pool_config, enable_numa_optimization"},
        {"{\"\": 1}", "unified_memory has no field ''; it has enable"},
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

/* What the model of a test holds in the end. */
static const umo_unified_config *settings(world *w, const char *unified, const char *options)
{
    model_plan plan = bytes;
    plan.unified = unified;
    world_start(w);
    fake.options = options;
    world_load_ok(w, &plan);
    return umo_model_unified(w->model.state);
}

static void settings_end(world *w)
{
    world_unload(w);
    world_finish(w);
}

static void numbers_may_be_written_as_strings(void **state)
{
    (void)state;
    world w;
    assert_int_equal(settings(&w, "{\"zero_copy_threshold\": \"4096\"}", "{}")->zero_copy_threshold,
                     4096);
    settings_end(&w);
}

static void auto_and_no_word_are_the_same_threshold(void **state)
{
    (void)state;
    static const char *const rows[] = {NULL, "{}", "{\"zero_copy_threshold\": \"auto\"}"};
    for (size_t i = 0; i < 3; i++) {
        world w;
        assert_int_equal(settings(&w, rows[i], "{}")->zero_copy_threshold, UMO_THRESHOLD_AUTO);
        settings_end(&w);
    }
}

static void a_model_s_fields_come_over_the_operator_s_one_by_one(void **state)
{
    (void)state;
    static const char options[] =
        "{\"cmdline\": {\"unified_memory.zero_copy_threshold\": \"7\", \"unified_memory\": "
        "\"{\\\"zero_copy_threshold\\\": 5, \\\"device\\\": \\\"opencl:2\\\", "
        "\\\"trusted_clients\\\": true, \\\"profiling\\\": false, \\\"tensor_patterns\\\": "
        "[{\\\"name\\\": \\\"weights\\\", \\\"pattern\\\": \\\"streaming\\\"}]}\", "
        "\"unified_memory.batch_optimization\": \"false\", \"other\": \"1\"}}";
    world w;
    const umo_unified_config *got = settings(&w, NULL, options);
    /* A field of its own comes over the object, whatever their order. */
    assert_int_equal(got->zero_copy_threshold, 7);
    assert_string_equal(got->driver, "opencl");
    assert_int_equal(got->ordinal, 2);
    assert_true(got->trusted_clients);
    assert_false(got->batch_optimization);
    assert_int_equal(got->weights, UMO_PATTERN_STREAMING);
    settings_end(&w);
    got = settings(&w,
                   "{\"zero_copy_threshold\": 9, \"trusted_clients\": false, "
                   "\"tensor_patterns\": []}",
                   options);
    assert_int_equal(got->zero_copy_threshold, 9);
    assert_false(got->trusted_clients);
    assert_false(got->batch_optimization);
    assert_string_equal(got->driver, "opencl");
    /* A list is one field. */
    assert_int_equal(got->weights, UMO_PATTERN_UNKNOWN);
    settings_end(&w);
}

static void what_is_of_the_process_comes_from_the_command_line(void **state)
{
    (void)state;
    world w;
    const umo_unified_config *got = settings(
        &w, NULL, "{\"cmdline\": {\"unified_memory.memory_pressure_threshold\": \"0.7\"}}");
    assert_true(got->pressure_threshold > 0.69 && got->pressure_threshold < 0.71);
    assert_non_null(umo_context_pressure(w.context));
    assert_int_equal(
        umo_context_pressure_start(w.context, &(umo_pressure_options){.threshold = 0.9}, NULL),
        UMO_E_INVAL);
    assert_int_equal(
        umo_context_pressure_start(
            w.context, &(umo_pressure_options){.threshold = got->pressure_threshold}, NULL),
        UMO_OK);
    settings_end(&w);
    (void)settings(&w, NULL,
                   "{\"cmdline\": {\"unified_memory.enable_pressure_adaptation\": \"false\"}}");
    assert_null(umo_context_pressure(w.context));
    settings_end(&w);
}

static void a_bad_default_is_named_as_one_of_the_command_line(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"unified_memory", "{\\\"enable\\\": 1}",
         "--backend-config unified_memory.enable is an integer"},
        {"unified_memory", "{", "--backend-config unified_memory is not JSON"},
        {"unified_memory", "[]", "--backend-config unified_memory is an array; write an object"},
        {"unified_memory.enable", "1", "--backend-config unified_memory.enable is an integer"},
        {"unified_memory.enable", "yes", "unified_memory.enable is a string (\"yes\")"},
        {"unified_memory.zero_copy_threshold", "NaN", "zero_copy_threshold is a string (\"NaN\")"},
        {"unified_memory.zero_copy_threshold", "1e3", "is a number with a fraction"},
        {"unified_memory.tensor_patterns", "[{]",
         "tensor_patterns is a string (\"[{]\"); write an array"},
        {"unified_memory.memory_pressure_threshold", "2", "write a number from 0.1 to 0.98"},
        {"unified_memory.memory_pressure_threshold", "much", "write a number from 0.1 to 0.98"},
        {"unified_memory.budget", "5", "--backend-config unified_memory has no field 'budget'"},
        {"unified_memory.prefetch_size", "5", "has no meaning here"},
        {"unified_memory.", "5", "has no field ''"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        char text[512];
        world_start(&w);
        world_configure(&w, &bytes);
        (void)snprintf(text, sizeof text, "{\"cmdline\": {\"%s\": \"%s\"}}", rows[i][0],
                       rows[i][1]);
        fake.options = text;
        assert_false(world_load(&w));
        if (strstr(w.text, rows[i][2]) == NULL) {
            fail_msg("%s: '%s', without '%s'", text, w.text, rows[i][2]);
        }
        world_finish(&w);
    }
}

static void pressure_is_said_in_one_way(void **state)
{
    (void)state;
    static const char *const rows[] = {"enable_pressure_adaptation\": \"false",
                                       "memory_pressure_threshold\": \"0.5"};
    for (size_t i = 0; i < 2; i++) {
        world w;
        char text[256];
        world_start(&w);
        world_configure(&w, &bytes);
        (void)snprintf(text, sizeof text,
                       "{\"cmdline\": {\"pressure\": \"on\", \"unified_memory.%s\"}}", rows[i]);
        fake.options = text;
        assert_false(world_load(&w));
        assert_non_null(strstr(w.text, "which are one setting"));
        world_finish(&w);
    }
}

#define IO                                                                                         \
    "\"input\": [{\"name\": \"A\", \"data_type\": \"TYPE_UINT8\", \"dims\": [-1]}, "               \
    "{\"name\": \"B\", \"data_type\": \"TYPE_UINT8\", \"dims\": [-1]}], \"output\": "              \
    "[{\"name\": \"output\", \"data_type\": \"TYPE_UINT8\", \"dims\": [-1]}, "                     \
    "{\"name\": \"D\", \"data_type\": \"TYPE_UINT8\", \"dims\": [-1]}]"

static void an_execution_accelerator_says_it_too(void **state)
{
    (void)state;
    static const char *const lists[] = {"cpu_execution_accelerator", "gpu_execution_accelerator"};
    for (size_t i = 0; i < 2; i++) {
        world w;
        char text[1024];
        world_start(&w);
        (void)snprintf(text, sizeof text,
                       "{" IO
                       ", \"optimization\": {\"execution_accelerators\": {\"%s\": [{\"name\": "
                       "\"other\"}, {\"name\": \"unified_memory\", \"parameters\": {\"enable\": "
                       "\"false\", \"zero_copy_threshold\": \"77\", \"device\": \"opencl:1\", "
                       "\"tensor_patterns\": \"[{\\\"name\\\": \\\"D\\\", \\\"pattern\\\": "
                       "\\\"balanced\\\"}]\"}}]}}}",
                       lists[i]);
        fake.config = text;
        assert_true(world_load(&w));
        const umo_unified_config *got = umo_model_unified(w.model.state);
        assert_false(got->enable);
        assert_int_equal(got->zero_copy_threshold, 77);
        assert_string_equal(got->driver, "opencl");
        size_t count;
        assert_int_equal(umo_model_outputs(w.model.state, &count)[1].pattern, UMO_PATTERN_BALANCED);
        settings_end(&w);
    }
}

static void two_places_are_one_too_many(void **state)
{
    (void)state;
    static const char parameter[] =
        "\"parameters\": {\"unified_memory\": {\"string_value\": \"{}\"}}";
    static const char accelerator[] = "\"execution_accelerators\": {\"cpu_execution_accelerator\": "
                                      "[{\"name\": \"unified_memory\"}]}";
    umo_unified_config config;
    umo_error error = {0};
    char text[512];
    (void)snprintf(text, sizeof text, "{%s, \"optimization\": {%s}}", parameter, accelerator);
    assert_int_equal(umo_unified_config_find(text, &config, NULL, NULL, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "unified_memory is written 2 times"));
    (void)snprintf(text, sizeof text, "{%s, \"optimization\": {\"unified_memory\": {}}}",
                   parameter);
    assert_int_equal(umo_unified_config_find(text, &config, NULL, NULL, &error), UMO_E_INVAL);
    (void)snprintf(text, sizeof text, "{\"optimization\": {\"unified_memory\": {}, %s}}",
                   accelerator);
    assert_int_equal(umo_unified_config_find(text, &config, NULL, NULL, &error), UMO_E_INVAL);
    (void)snprintf(text, sizeof text, "{\"parameters\": {\"unified_memory\": {}}}");
    assert_int_equal(umo_unified_config_find(text, &config, NULL, NULL, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "no string_value"));
}

/* "input" is every input; "output" is a tensor's own name here. */
static void a_tensor_s_own_pattern_comes_over_its_side_s(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    fake.config =
        "{" IO
        ", \"parameters\": {\"unified_memory\": {\"string_value\": \"{\\\"tensor_patterns\\\": ["
        "{\\\"name\\\": \\\"B\\\", \\\"pattern\\\": \\\"streaming\\\"}, "
        "{\\\"name\\\": \\\"input\\\", \\\"pattern\\\": \\\"cpu_dominant\\\"}, "
        "{\\\"name\\\": \\\"output\\\", \\\"pattern\\\": \\\"gpu_dominant\\\"}, "
        "{\\\"name\\\": \\\"intermediate\\\", \\\"pattern\\\": \\\"balanced\\\"}]}\"}}}";
    assert_true(world_load(&w));
    size_t count;
    const umo_io *inputs = umo_model_inputs(w.model.state, &count);
    assert_int_equal(inputs[0].pattern, UMO_PATTERN_CPU_DOMINANT);
    assert_int_equal(inputs[1].pattern, UMO_PATTERN_STREAMING);
    const umo_io *outputs = umo_model_outputs(w.model.state, &count);
    assert_int_equal(outputs[0].pattern, UMO_PATTERN_GPU_DOMINANT);
    assert_int_equal(outputs[1].pattern, UMO_PATTERN_UNKNOWN);
    assert_int_equal(umo_model_unified(w.model.state)->intermediate, UMO_PATTERN_BALANCED);
    assert_non_null(strstr(fake.log, "unified_memory: enable=true batch_optimization=true"));
    assert_non_null(strstr(fake.log, "zero_copy_threshold=auto"));
    assert_non_null(strstr(fake.log, "B=streaming input=cpu_dominant"));
    settings_end(&w);
}

static void tensors_that_the_model_brings_get_their_patterns_too(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    fake.completes = true;
    engine.completes = true;
    fake.config =
        "{\"parameters\": {\"unified_memory\": {\"string_value\": \"{\\\"tensor_patterns\\\": ["
        "{\\\"name\\\": \\\"input\\\", \\\"pattern\\\": \\\"streaming\\\"}, "
        "{\\\"name\\\": \\\"nobody\\\", \\\"pattern\\\": \\\"balanced\\\"}]}\"}}}";
    assert_true(world_load(&w));
    size_t count;
    const umo_io *inputs = umo_model_inputs(w.model.state, &count);
    assert_int_equal(count, 1);
    assert_int_equal(inputs[0].pattern, UMO_PATTERN_STREAMING);
    assert_non_null(strstr(fake.log, "'nobody' is no tensor of this model"));
    settings_end(&w);
}

static void a_pool_keeps_what_its_configuration_says(void **state)
{
    (void)state;
    for (int none = 0; none < 2; none++) {
        world w;
        umo_buffer *block = NULL;
        umo_pool_stats stats;
        (void)settings(
            &w,
            none != 0 ? "{\"cache_line_size\": 1024, \"pool_config\": {\"small_buffer_count\": "
                        "0, \"medium_buffer_count\": 0, \"large_buffer_count\": \"0\"}}"
                      : "{\"cache_line_size\": 1024}",
            "{}");
        umo_pool *pool = ((umo_instance *)w.instance.state)->scratch;
        for (int i = 0; i < 8; i++) {
            assert_int_equal(umo_pool_alloc(pool, 1000, 1, &block, NULL), UMO_OK);
            assert_int_equal((uintptr_t)umo_buffer_host(block) % 1024, 0);
            assert_int_equal(umo_pool_free(pool, block), UMO_OK);
        }
        assert_int_equal(umo_pool_alloc(pool, 4 << 20, 1, &block, NULL), UMO_OK);
        assert_int_equal(umo_pool_free(pool, block), UMO_OK);
        umo_pool_read(pool, &stats);
        if (none != 0) {
            assert_true(stats.kept_bytes < 1 << 20);
        } else {
            assert_true(stats.kept_bytes >= 4 << 20);
        }
        settings_end(&w);
    }
}

/* Pieces of right and wrong settings in any order: whatever it is, it is judged, and what was
 * refused has changed nothing. Run under the sanitizers, it is also about every byte read. */
static void any_text_is_judged_and_a_refused_one_writes_nothing(void **state)
{
    static const char *const pieces[] = {
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"enable\"",
        "true",
        "null",
        "1e9",
        "-1",
        "\"\"",
        "\"auto\"",
        "\"device\"",
        "\"name\"",
        "\"pattern\"",
        "\"unknown\"",
        "\"tensor_patterns\"",
        "\"pool_config\"",
        "\"zero_copy_threshold\"",
        "\"opencl:0\"",
        "\"\\ud83d\\ude00\"",
        "\xc3",
        "\"\xe2\x82\xac\"",
        "{\"enable\":",
        "{\"device\":",
        "[{\"name\":\"a\",\"pattern\":",
        "\"a-long-word-that-is-no-field-of-anything-and-is-cut-where-it-is-shown\"",
    };
    unsigned seed = 5;
    size_t refused = 0;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char text[1024] = "";
        unsigned count = 1 + (seed >> 20) % 9;
        for (unsigned i = 0; i < count; i++) {
            seed = seed * 1664525u + 1013904223u;
            (void)strcat(text, pieces[(seed >> 16) % (sizeof pieces / sizeof pieces[0])]);
        }
        umo_unified_config config;
        memset(&config, 0x5A, sizeof config);
        umo_unified_config before;
        memcpy(&before, &config, sizeof before);
        umo_error error = {.text = ""};
        umo_status status = umo_unified_config_parse(text, &config, NULL, NULL, &error);
        if (status == UMO_E_INVAL) {
            refused++;
            assert_memory_equal(&config, &before, sizeof config);
            assert_true(strlen(error.text) > 0);
        } else {
            assert_int_equal(status, UMO_OK);
        }
    }
    assert_true(refused > 10000 && refused < 20000);
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
    assert_true(config.zero_copy_threshold == UMO_THRESHOLD_AUTO);
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
        cmocka_unit_test(numbers_may_be_written_as_strings),
        cmocka_unit_test(auto_and_no_word_are_the_same_threshold),
        cmocka_unit_test(a_model_s_fields_come_over_the_operator_s_one_by_one),
        cmocka_unit_test(what_is_of_the_process_comes_from_the_command_line),
        cmocka_unit_test(a_bad_default_is_named_as_one_of_the_command_line),
        cmocka_unit_test(pressure_is_said_in_one_way),
        cmocka_unit_test(an_execution_accelerator_says_it_too),
        cmocka_unit_test(two_places_are_one_too_many),
        cmocka_unit_test(a_tensor_s_own_pattern_comes_over_its_side_s),
        cmocka_unit_test(tensors_that_the_model_brings_get_their_patterns_too),
        cmocka_unit_test(a_pool_keeps_what_its_configuration_says),
        cmocka_unit_test(any_text_is_judged_and_a_refused_one_writes_nothing),
        cmocka_unit_test(the_missions_own_form_is_read),
        cmocka_unit_test(a_bad_tensor_is_named),
        cmocka_unit_test(reshape_is_what_the_model_sees),
        cmocka_unit_test(a_bad_budget_is_named),
        cmocka_unit_test(options_that_cannot_be_read_fail_the_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
