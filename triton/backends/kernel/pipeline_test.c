/*
 * Descriptions of several kernels: what a right one becomes, and every mistake named by its place.
 */
#include "texts_test.h"

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const umo_io inputs[] = {
    {.name = "X", .dtype = UMO_FP32, .dims = {1, {-1}}},
    {.name = "BIAS", .dtype = UMO_FP32, .dims = {1, {8}}, .optional = true},
};
static const umo_io outputs[] = {{.name = "Y", .dtype = UMO_FP32, .dims = {1, {5}}}};

static const char *parameter(const void *user, const char *key)
{
    static const char *const values[][2] = {{"k", "5"},
                                            {"half", "0.5"},
                                            {"words", "5 or 6"},
                                            {"long", "99999999999999999999"},
                                            {"empty", ""}};
    (void)user;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        if (strcmp(values[i][0], key) == 0) {
            return values[i][1];
        }
    }
    return NULL;
}

static const umo_description_tensors tensors = {inputs, 2, outputs, 1, parameter, NULL};

static const char good[] =
    "{\"file\": \"all.cl\", \"options\": \"-DA\", \"parameters\": [\"k\"],"
    " \"intermediates\": {\"PART\": {\"dtype\": \"FP32\", \"dims\": [\"batch\", "
    "\"ceil(X[0],64)\"]},"
    " \"BEST\": {\"dtype\": \"INT32\", \"dims\": [\"PART[1]*k\"], \"clear\": true}},"
    " \"kernels\": ["
    "{\"function\": \"one\", \"file\": \"one.cl\", \"arguments\": [{\"input\": \"X\"},"
    " {\"intermediate\": \"PART\", \"use\": \"write\"}], \"global_size\": [\"PART[1]\", "
    "\"batch\"]},"
    "{\"function\": \"two\", \"options\": \"-DB\", \"arguments\": [{\"intermediate\": \"PART\","
    " \"use\": \"read\"}, {\"intermediate\": \"BEST\", \"use\": \"update\"}, {\"output\": \"Y\"},"
    " {\"input\": \"BIAS\"}, {\"present\": \"BIAS\", \"type\": \"uint8\"}],"
    " \"global_size\": [\"k\"], \"local_size\": [\"k\"]},"
    "{\"function\": \"three\", \"arguments\": [{\"output\": \"Y\", \"use\": \"update\"},"
    " {\"input\": \"X\", \"index\": true}, {\"parameter\": \"k\", \"type\": \"int32\"},"
    " {\"parameter\": \"half\", \"type\": \"float32\"}, {\"shape\": \"BEST\", \"dim\": 0,"
    " \"type\": \"int32\"}, {\"weights\": \"w.bin\", \"dtype\": \"INT8\", \"dims\": [7],"
    " \"private\": true}], \"global_size\": [\"Y[0]\"]}],"
    " \"outputs\": {\"Y\": [\"k\"]}}";

static void a_right_one_is_taken_over(void **unused)
{
    (void)unused;
    umo_description d;
    umo_error error = {0};
    if (umo_description_init(&d, good, &tensors, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    assert_true(d.listed);
    assert_int_equal(d.stage_count, 3);
    assert_string_equal(d.stages[0].file, "one.cl");
    assert_string_equal(d.stages[0].options, "-DA");
    assert_string_equal(d.stages[1].file, "all.cl");
    assert_string_equal(d.stages[1].options, "-DB");
    assert_int_equal(d.intermediate_count, 2);
    assert_string_equal(d.intermediates[0].name, "PART");
    assert_int_equal(d.intermediates[0].dtype, UMO_FP32);
    assert_int_equal(d.intermediates[0].dims.rank, 2);
    assert_false(d.intermediates[0].clear);
    assert_int_equal(d.intermediates[0].first_stage, 0);
    assert_int_equal(d.intermediates[0].last_stage, 1);
    assert_true(d.intermediates[0].read);
    assert_true(d.intermediates[1].clear);
    assert_int_equal(d.intermediates[1].first_stage, 1);
    assert_int_equal(d.intermediates[1].last_stage, 1);
    const umo_argument *write = &d.stages[0].arguments[1];
    assert_int_equal(write->kind, UMO_ARGUMENT_INTERMEDIATE);
    assert_true(write->writes && !write->reads && write->first);
    const umo_argument *read = &d.stages[1].arguments[0];
    assert_true(!read->writes && read->reads && !read->first);
    const umo_argument *update = &d.stages[2].arguments[0];
    assert_true(update->writes && update->reads && !update->first);
    assert_true(d.stages[1].arguments[2].first);
    assert_true(d.flagged[1] && !d.flagged[0]);
    assert_int_equal(d.stages[2].arguments[2].value.i32, 5);
    const float half = 0.5F;
    assert_memory_equal(&d.stages[2].arguments[3].value, &half, sizeof half);
    assert_true(d.stages[2].arguments[5].weights_private);
    /* A number of "parameters" is compiled in. */
    umo_error none = {0};
    int64_t value = 0;
    assert_int_equal(umo_expression_eval(&d.outputs[0].dims[0], NULL, 1, &value, &none), UMO_OK);
    assert_int_equal(value, 5);
    umo_description_finish(&d);
}

static void mistakes_are_named_by_their_place(void **unused)
{
    (void)unused;
    static const mistake cases[] = {
        /* The list of kernels */
        {"\"kernels\": [{", "\"kernels\": [5, {",
         "kernels[0]: an object is expected, not an integer"},
        {"{\"file\": \"all.cl\"", "{\"function\": \"f\", \"file\": \"all.cl\"",
         "function: beside \"kernels\" it belongs into one of them"},
        {"{\"file\": \"all.cl\"", "{\"local_size\": [1], \"file\": \"all.cl\"",
         "local_size: beside \"kernels\" it belongs into one of them"},
        {"\"function\": \"two\", ", "", "kernels[1]: \"function\" is missing"},
        {"\"function\": \"two\"", "\"function\": \"t w o\"",
         "kernels[1].function: 't w o' is no name of a function"},
        {"\"function\": \"two\"", "\"functions\": \"two\"",
         "kernels[1]: unknown key 'functions'; allowed: file, function, options, arguments, "
         "global_size, local_size"},
        {"one.cl", "../one.cl", "kernels[0].file: '../one.cl' is no plain name"},
        {"all.cl", "../all.cl", "file: '../all.cl' is no plain name"},
        {"\"local_size\": [\"k\"]", "\"local_size\": [1, 1]",
         "kernels[1].local_size: has 2 sizes, but global_size has 1"},
        {"\"global_size\": [\"Y[0]\"]", "\"global_size\": [\"Z[0]\"]",
         "kernels[2].global_size[0]: unknown tensor 'Z' at character 1"},
        {", \"global_size\": [\"Y[0]\"]", "", "kernels[2]: \"global_size\" is missing"},
        /* Arguments */
        {"{\"input\": \"X\", \"index\"", "{\"input\": \"Z\", \"index\"",
         "kernels[2].arguments[1].input: the model has no input 'Z'"},
        {"{\"intermediate\": \"PART\", \"use\": \"write\"}",
         "{\"intermediate\": \"PARTS\", \"use\": \"write\"}",
         "kernels[0].arguments[1].intermediate: the model has no intermediate 'PARTS'"},
        {", \"use\": \"write\"}", "}", "kernels[0].arguments[1]: \"use\" is missing: write, read"},
        {"\"use\": \"write\"}", "\"use\": \"writ\"}",
         "kernels[0].arguments[1].use: 'writ' is none of write, read, update and scratch"},
        {"\"use\": \"write\"}", "\"use\": 1}",
         "kernels[0].arguments[1].use: a string is expected, not an integer"},
        {"\"use\": \"write\"}", "\"use\": \"write\", \"align\": 4}",
         "kernels[0].arguments[1]: unknown key 'align'; allowed: intermediate, use"},
        {"\"output\": \"Y\", \"use\": \"update\"", "\"output\": \"Y\", \"use\": \"scratch\"",
         "kernels[2].arguments[0].use: 'scratch' is none of write, read, update"},
        {"{\"input\": \"BIAS\"}", "{\"intermediate\": \"PART\", \"use\": \"read\"}",
         "kernels[1].arguments[3].intermediate: intermediate 'PART' is bound already by "
         "arguments[0]"},
        {"\"present\": \"BIAS\"", "\"present\": \"X\"",
         "kernels[1].arguments[4].present: input 'X' is not optional"},
        {"\"present\": \"BIAS\"", "\"present\": \"Y\"",
         "kernels[1].arguments[4].present: the model has no input 'Y'"},
        {"\"parameter\": \"k\"", "\"parameter\": \"q\"",
         "kernels[2].arguments[2].parameter: the model has no parameter 'q'"},
        {"\"parameter\": \"k\"", "\"parameter\": \"half\"",
         "kernels[2].arguments[2].parameter: parameter 'half' is '0.5', which is no integer"},
        {"\"parameter\": \"half\"", "\"parameter\": \"words\"",
         "kernels[2].arguments[3].parameter: parameter 'words' is '5 or 6', which is no number"},
        {"\"parameter\": \"half\"", "\"parameter\": \"q\"",
         "kernels[2].arguments[3].parameter: the model has no parameter 'q'"},
        {"\"parameter\": \"half\"", "\"parameter\": \"empty\"",
         "kernels[2].arguments[3].parameter: parameter 'empty' is '', which is no number"},
        {"\"parameter\": \"k\"", "\"parameter\": \"long\"", "which is no integer"},
        {"\"private\": true", "\"private\": 1",
         "kernels[2].arguments[5].private: true or false is expected, not an integer"},
        /* Parameters */
        {"[\"k\"]", "{}", "parameters: an array is expected, not an object"},
        {"[\"k\"]", "[\"k\", 5]", "parameters[1]: a string is expected, not an integer"},
        {"[\"k\"]", "[\"batch\"]", "parameters[0]: 'batch' is no name that a formula could have"},
        {"[\"k\"]", "[\"a b\"]", "parameters[0]: 'a b' is no name that a formula could have"},
        {"[\"k\"]", "[\"q\"]", "parameters[0]: the model has no parameter 'q'"},
        {"[\"k\"]", "[\"half\"]", "parameters[0]: parameter 'half' is '0.5', which is no integer"},
        {"[\"k\"]",
         "[\"k\",\"k\",\"k\",\"k\",\"k\",\"k\",\"k\",\"k\",\"k\",\"k\",\"k\",\"k\","
         "\"k\",\"k\",\"k\",\"k\",\"k\"]",
         "parameters: 17 of them; at most 16 are possible"},
        {"\"parameters\": [\"k\"],", "",
         "intermediates.BEST.dims[0]: 'k' at character 9 in \"PART[1]*k\" is neither batch"},
        /* Intermediates */
        {"\"PART\": {", "\"X\": {",
         "intermediates.X: the model has an input or output of that name"},
        {"\"PART\": {", "\"Y\": {",
         "intermediates.Y: the model has an input or output of that name"},
        {"{\"dtype\": \"FP32\", \"dims\": [\"batch\", \"ceil(X[0],64)\"]}", "[]",
         "intermediates.PART: an object is expected, not an array"},
        {"\"dtype\": \"FP32\"", "\"type\": \"FP32\"",
         "intermediates.PART: unknown key 'type'; allowed: dtype, dims, clear"},
        {"\"dtype\": \"FP32\"", "\"dtype\": \"BYTES\"",
         "intermediates.PART.dtype: a type is expected"},
        {"\"dtype\": \"FP32\", ", "", "intermediates.PART.dtype: a type is expected"},
        {", \"dims\": [\"PART[1]*k\"]", "",
         "intermediates.BEST.dims: 1 to 32 formulas are expected"},
        {"[\"PART[1]*k\"]", "[]", "intermediates.BEST.dims: 1 to 32 formulas are expected"},
        {"[\"PART[1]*k\"]", "[-1]", "intermediates.BEST.dims[0]: a size is 0 or more, not -1"},
        {"[\"batch\", \"ceil(X[0],64)\"]", "[\"BEST[0]\"]",
         "intermediates.PART.dims[0]: unknown tensor 'BEST' at character 1"},
        {"\"clear\": true", "\"clear\": 1", "intermediates.BEST.clear: true or false is expected"},
        {"\"outputs\": {\"Y\": [\"k\"]}", "\"outputs\": {\"Y\": [\"PART[0]\"]}",
         "outputs.Y[0]: unknown tensor 'PART' at character 1"},
        {"\"outputs\": {\"Y\": [\"k\"]}", "\"outputs\": {\"Y\": [\"k+1\"]}",
         "outputs.Y[0]: \"k+1\" is 6, but the model's configuration says 5"},
        /* Who writes and reads */
        {"\"PART\", \"use\": \"write\"}", "\"PART\", \"use\": \"read\"}",
         "kernels[0].arguments[1]: reads intermediate 'PART', which no kernel before has written; "
         "\"clear\": true gives zeros"},
        {"\"PART\", \"use\": \"write\"}", "\"PART\", \"use\": \"update\"}",
         "kernels[0].arguments[1]: reads intermediate 'PART', which no kernel before has written"},
        {", \"clear\": true", "",
         "kernels[1].arguments[1]: reads intermediate 'BEST', which no kernel before has written"},
        {"{\"output\": \"Y\"}", "{\"output\": \"Y\", \"use\": \"update\"}",
         "kernels[1].arguments[2]: reads output 'Y', which no kernel before has written"},
        {"{\"output\": \"Y\", \"use\": \"update\"}", "{\"output\": \"Y\", \"use\": \"read\"}",
         "kernels[2]: the kernel writes nothing"},
        {"{\"input\": \"BIAS\"}", "{\"value\": 1, \"type\": \"int8\"}",
         "kernels: no argument binds the model's input 'BIAS'"},
        {", {\"intermediate\": \"BEST\", \"use\": \"update\"}", "",
         "kernels: no argument binds the intermediate 'BEST'"},
    };
    mistakes_expect(good, &tensors, cases, sizeof cases / sizeof cases[0]);
}

static void there_are_at_most_so_many(void **unused)
{
    (void)unused;
    for (int extra = 0; extra < 2; extra++) {
        umo_description d;
        umo_error error = {0};
        json_t *root = json_loads(good, 0, NULL);
        json_t *kernels = json_object_get(root, "kernels");
        while (json_array_size(kernels) < UMO_STAGES_MAX + (size_t)extra) {
            (void)json_array_append_new(kernels, json_deep_copy(json_array_get(kernels, 2)));
        }
        char *text = json_dumps(root, 0);
        assert_int_equal(umo_description_init(&d, text, &tensors, &error),
                         extra ? UMO_E_INVAL : UMO_OK);
        if (extra) {
            assert_string_equal(error.text,
                                "parameter kernel: kernels: 1 to 16 kernels are expected, not 17");
        } else {
            umo_description_finish(&d);
        }
        free(text);
        json_decref(root);
        root = json_loads(good, 0, NULL);
        json_t *between = json_object_get(root, "intermediates");
        json_t *arguments =
            json_object_get(json_array_get(json_object_get(root, "kernels"), 1), "arguments");
        for (size_t i = 2; i < UMO_INTERMEDIATES_MAX + (size_t)extra; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "I%zu", i);
            (void)json_object_set_new(between, name,
                                      json_pack("{s:s, s:[i]}", "dtype", "INT8", "dims", 1));
            if (json_array_size(arguments) < UMO_KERNEL_ARGS_MAX) {
                (void)json_array_append_new(
                    arguments, json_pack("{s:s, s:s}", "intermediate", name, "use", "write"));
            }
        }
        text = json_dumps(root, 0);
        assert_int_equal(umo_description_init(&d, text, &tensors, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, extra ? "intermediates: 33 of them; at most 32"
                                                 : "no argument binds the intermediate 'I29'"));
        free(text);
        json_decref(root);
    }
    umo_description d;
    umo_error error = {0};
    assert_int_equal(umo_description_init(&d, "{\"kernels\": []}", &tensors, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "kernels: 1 to 16 kernels are expected, not 0"));
}

static void mutated_json_ends_in_a_description_or_an_error(void **unused)
{
    (void)unused;
    static const char *const words[] = {"null",        "true",       "-1",       "1e999",
                                        "\"\"",        "[]",         "{}",       "\"batch\"",
                                        "\"PART[0]\"", "\"update\"", "\"read\"", "\"k\"",
                                        "\"PART\"",    "\"BEST\"",   "\"Y\"",    "99999999999"};
    unsigned seed = 6;
    size_t taken = 0;
    for (int round = 0; round < 20000; round++) {
        char text[sizeof good + 128];
        memcpy(text, good, sizeof good);
        for (int edits = 1 + rand_r(&seed) % 2; edits > 0; edits--) {
            const size_t length = strlen(text);
            const size_t at = (size_t)rand_r(&seed) % length;
            const char *word = words[(size_t)rand_r(&seed) % (sizeof words / sizeof words[0])];
            /* A value, or its rest, gives way to a word; or a letter goes. */
            const char *end =
                rand_r(&seed) % 3 == 0 ? text + at + 1 : text + at + strcspn(text + at, ",]}");
            const size_t word_bytes = rand_r(&seed) % 3 == 0 ? 0 : strlen(word);
            memmove(text + at + word_bytes, end, strlen(end) + 1);
            memcpy(text + at, word, word_bytes);
        }
        taken += text_ends_well(text, &tensors) ? 1 : 0;
    }
    assert_true(taken > 100 && taken < 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_one_is_taken_over),
        cmocka_unit_test(mistakes_are_named_by_their_place),
        cmocka_unit_test(there_are_at_most_so_many),
        cmocka_unit_test(mutated_json_ends_in_a_description_or_an_error),
    };
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
