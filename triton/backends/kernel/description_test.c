/*
 * The `kernel` parameter: what is right becomes the struct, what is wrong is named by its place,
 * every key with every wrong type, and a sweep of mutated JSON.
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
    {.name = "IMAGE", .dtype = UMO_UINT8, .dims = {3, {-1, -1, 3}}},
    {.name = "PICK", .dtype = UMO_INT32, .dims = {1, {8}}},
};
static const umo_io outputs[] = {
    {.name = "TENSOR", .dtype = UMO_FP32, .dims = {3, {3, -1, -1}}},
    {.name = "SUM", .dtype = UMO_FP32, .dims = {1, {4}}},
};
static const umo_description_tensors tensors = {inputs, 2, outputs, 2, NULL, NULL};

static const char good[] =
    "{\"file\": \"prep.cl\", \"function\": \"image_prep\", \"options\": \"-cl-fast-relaxed-math\","
    " \"arguments\": [{\"input\": \"IMAGE\", \"align\": 64}, {\"input\": \"PICK\", \"index\": "
    "true},"
    " {\"output\": \"TENSOR\"}, {\"output\": \"SUM\", \"align\": 16},"
    " {\"shape\": \"IMAGE\", \"dim\": 1, \"type\": \"int32\"},"
    " {\"size\": \"IMAGE[0]*IMAGE[1]\", \"type\": \"uint32\"},"
    " {\"value\": 0.485, \"type\": \"float32\"}, {\"value\": -3, \"type\": \"int8\"},"
    " {\"local_bytes\": 1024}, {\"local_bytes\": \"4*TENSOR[0]\"},"
    " {\"weights\": \"w.bin\", \"dtype\": \"FP16\", \"dims\": [8, 3], \"offset\": 12,"
    " \"pattern\": \"balanced\"}],"
    " \"global_size\": [\"IMAGE[1]\", \"batch*IMAGE[0]\"], \"local_size\": [16, 4],"
    " \"outputs\": {\"TENSOR\": [\"3\", \"IMAGE[0]\", \"IMAGE[1]\"]}}";

static umo_status read(const char *json, umo_description *out, umo_error *error)
{
    return umo_description_init(out, json, &tensors, error);
}

static void a_right_one_is_taken_over(void **state)
{
    (void)state;
    umo_description d;
    umo_error error = {0};
    if (read(good, &d, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(d.stages[0].file, "prep.cl");
    assert_string_equal(d.stages[0].function, "image_prep");
    assert_string_equal(d.stages[0].options, "-cl-fast-relaxed-math");
    assert_int_equal(d.stages[0].argument_count, 11);
    assert_int_equal(d.stages[0].arguments[0].kind, UMO_ARGUMENT_INPUT);
    assert_int_equal(d.stages[0].arguments[0].tensor, 0);
    assert_int_equal(d.stages[0].arguments[0].align_bytes, 64);
    assert_false(d.stages[0].arguments[0].index);
    assert_int_equal(d.stages[0].arguments[1].tensor, 1);
    assert_true(d.stages[0].arguments[1].index);
    assert_int_equal(d.stages[0].arguments[1].align_bytes, 0);
    assert_int_equal(d.stages[0].arguments[2].kind, UMO_ARGUMENT_OUTPUT);
    assert_int_equal(d.stages[0].arguments[3].tensor, 1);
    assert_int_equal(d.stages[0].arguments[3].align_bytes, 16);
    assert_int_equal(d.stages[0].arguments[4].kind, UMO_ARGUMENT_SIZE);
    assert_int_equal(d.stages[0].arguments[4].type, UMO_SCALAR_INT32);
    assert_string_equal(d.stages[0].arguments[4].expression.text, "IMAGE[1]");
    assert_int_equal(d.stages[0].arguments[5].type, UMO_SCALAR_UINT32);
    assert_int_equal(d.stages[0].arguments[6].kind, UMO_ARGUMENT_VALUE);
    const float expected = 0.485F;
    assert_memory_equal(&d.stages[0].arguments[6].value, &expected, sizeof expected);
    assert_int_equal(d.stages[0].arguments[7].value.i8, -3);
    assert_int_equal(d.stages[0].arguments[8].kind, UMO_ARGUMENT_LOCAL);
    assert_string_equal(d.stages[0].arguments[8].expression.text, "1024");
    assert_int_equal(d.weights_count, 1);
    assert_int_equal(d.stages[0].arguments[10].kind, UMO_ARGUMENT_WEIGHTS);
    assert_string_equal(d.stages[0].arguments[10].weights_file, "w.bin");
    assert_int_equal(d.stages[0].arguments[10].weights_offset_bytes, 12);
    assert_int_equal(d.stages[0].arguments[10].weights_bytes, 48);
    assert_int_equal(d.stages[0].arguments[10].pattern, UMO_PATTERN_BALANCED);
    assert_int_equal(d.stages[0].dimensions, 2);
    assert_string_equal(d.stages[0].global_size[1].text, "batch*IMAGE[0]");
    assert_true(d.stages[0].has_local_size);
    assert_string_equal(d.stages[0].local_size[0].text, "16");
    assert_false(d.listed);
    assert_int_equal(d.stage_count, 1);
    assert_int_equal(d.outputs[0].rank, 3);
    assert_string_equal(d.outputs[0].dims[2].text, "IMAGE[1]");
    /* Fixed in the configuration, so not needed here. */
    assert_int_equal(d.outputs[1].rank, 1);
    assert_string_equal(d.outputs[1].dims[0].text, "4");
    umo_description_finish(&d);
}

static void what_is_optional_may_be_absent(void **state)
{
    (void)state;
    const umo_io one = {.name = "X", .dtype = UMO_FP32, .dims = {1, {16}}};
    const umo_io two = {.name = "Y", .dtype = UMO_FP32, .dims = {1, {16}}};
    const umo_description_tensors small = {&one, 1, &two, 1, NULL, NULL};
    umo_description d;
    umo_error error = {0};
    if (umo_description_init(
            &d,
            "{\"function\": \"f\", \"arguments\": [{\"input\": \"X\"}, {\"output\":"
            " \"Y\"}], \"global_size\": [16]}",
            &small, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    assert_null(d.stages[0].file);
    assert_null(d.stages[0].options);
    assert_false(d.stages[0].has_local_size);
    umo_description_finish(&d);
    umo_description_finish(&d);
}

static void mistakes_are_named_by_their_place(void **state)
{
    (void)state;
    static const mistake cases[] = {
        /* Text */
        {"{\"file\"", "\"file\"", "parameter kernel: broken JSON at line 1, column"},
        {"]}}", "]}", "broken JSON at line 1"},
        {"]}}", "]}}}", "broken JSON at line 1"},
        {"{\"file\": \"prep.cl\"", "{\"function\": \"f\", \"file\": \"prep.cl\"", "duplicate"},
        {"0.485", "0x10", "broken JSON"},
        {"-3", "99999999999999999999", "broken JSON"},
        /* Weights */
        {"w.bin", "a/w.bin", "arguments[10].weights: 'a/w.bin' is no plain name"},
        {"FP16", "BYTES", "arguments[10].dtype: a type is expected"},
        {"FP16", "FP15", "arguments[10].dtype: a type is expected"},
        {"[8, 3]", "[]", "arguments[10].dims: 1 to"},
        {"[8, 3]", "[8, 0]", "arguments[10].dims: 1 to"},
        {"[8, 3]", "[8, \"3\"]", "arguments[10].dims: 1 to"},
        {"[8, 3]", "[4611686018427387904, 4]", "arguments[10].dims: 1 to"},
        {"\"offset\": 12", "\"offset\": 13", "arguments[10].offset: a multiple of"},
        {"\"offset\": 12", "\"offset\": -2", "arguments[10].offset: a multiple of"},
        {"balanced", "unknown", "arguments[10].pattern: cpu_dominant"},
        {"\"pattern\"", "\"input\"", "has both"},
        /* Program */
        {"\"file\"", "\"files\"",
         "parameter kernel: unknown key 'files'; allowed: file, function, options, arguments, "
         "global_size, local_size, outputs"},
        {"prep.cl", "", "file: the text is empty"},
        {"prep.cl", "../other/1/model.cl", "file: '../other/1/model.cl' is no plain name"},
        {"\"function\": \"image_prep\",", "", "\"function\" is missing"},
        {"\"image_prep\"", "\"image prep\"", "function: 'image prep' is no name of a function"},
        {"\"image_prep\"", "\"1st\"", "function: '1st' is no name"},
        /* Arguments */
        {"\"arguments\"", "\"arguments_\"", "unknown key 'arguments_'"},
        {"{\"input\": \"IMAGE\", \"align\": 64}", "{}", "arguments[0]: needs one of \"input\""},
        {"{\"input\": \"IMAGE\", \"align\": 64}", "7",
         "arguments[0]: an object is expected, not an integer"},
        {"\"align\": 64", "\"output\": \"SUM\"", "arguments[0]: has both \"input\" and \"output\""},
        {"\"align\": 64", "\"typ\": 1",
         "arguments[0]: unknown key 'typ'; allowed: input, index, align"},
        {"\"output\": \"SUM\", \"align\"", "\"output\": \"SUM\", \"index\"",
         "arguments[3]: unknown key 'index'; allowed: output, use, align, overwrites"},
        {"\"dim\": 1", "\"dimension\": 1",
         "arguments[4]: unknown key 'dimension'; allowed: shape, dim, type"},
        {"{\"local_bytes\": 1024}", "{\"local_bytes\": 1024, \"type\": \"int8\"}",
         "arguments[8]: unknown key 'type'; allowed: local_bytes"},
        {"\"input\": \"IMAGE\"", "\"input\": \"IMGAE\"",
         "arguments[0].input: the model has no input 'IMGAE'"},
        {"\"output\": \"SUM\"", "\"output\": \"IMAGE\"",
         "arguments[3].output: the model has no output 'IMAGE'"},
        {"\"input\": \"PICK\"", "\"input\": \"IMAGE\"",
         "arguments[1].input: input 'IMAGE' is bound already by arguments[0]"},
        {"\"output\": \"SUM\"", "\"output\": \"TENSOR\"",
         "arguments[3].output: output 'TENSOR' is bound already by arguments[2]"},
        {"{\"input\": \"PICK\", \"index\": true},", "",
         "arguments: no argument binds the model's input 'PICK'"},
        {", {\"output\": \"SUM\", \"align\": 16}", "",
         "arguments: no argument binds the model's output 'SUM'"},
        {"\"align\": 64", "\"align\": 0", "arguments[0].align: 0 is no power of two"},
        {"\"align\": 64", "\"align\": 48", "arguments[0].align: 48 is no power of two"},
        {"\"align\": 64", "\"align\": 8192", "arguments[0].align: 8192 is no power of two"},
        {"\"align\": 64", "\"align\": -64", "arguments[0].align: -64 is no power of two"},
        {"\"shape\": \"IMAGE\"", "\"shape\": \"NONE\"",
         "arguments[4].shape: the model has no tensor 'NONE'"},
        {"\"dim\": 1, ", "", "arguments[4]: \"dim\" is missing"},
        {"\"dim\": 1", "\"dim\": 3", "arguments[4].dim: 'IMAGE' has 3 dimension(s), no number 3"},
        {"\"dim\": 1", "\"dim\": -1", "arguments[4].dim: 'IMAGE' has 3 dimension(s), no number -1"},
        {"\"int32\"", "\"Int32\"", "arguments[4].type: unknown type 'Int32'; known: int8, uint8, "},
        {", \"type\": \"int32\"", "", "arguments[4]: \"type\" is missing: one of int8"},
        {"IMAGE[0]*IMAGE[1]", "IMAGE[0]*", "arguments[5].size: a value expected at character 10"},
        {"IMAGE[0]*IMAGE[1]", "WIDTH*2", "arguments[5].size: 'WIDTH' at character 1"},
        {"0.485", "1e39", "arguments[6].value: 1e+39 does not fit float32"},
        {"-3", "-129", "arguments[7].value: -129 does not fit int8"},
        {"-3", "128", "arguments[7].value: 128 does not fit int8"},
        {"-3", "1.0", "arguments[7].value: an integer is expected for int8, not a number"},
        {"1024", "-1", "arguments[8].local_bytes: a size is 0 or more, not -1"},
        {"4*TENSOR[0]", "4*TENSOR[7]", "arguments[9].local_bytes: 'TENSOR' has 3 dimension(s)"},
        /* Work sizes */
        {"\"global_size\": [\"IMAGE[1]\", \"batch*IMAGE[0]\"], ", "", "\"global_size\" is missing"},
        {"[\"IMAGE[1]\", \"batch*IMAGE[0]\"]", "[]",
         "global_size: 1 to 3 sizes are expected, not 0"},
        {"[\"IMAGE[1]\", \"batch*IMAGE[0]\"]", "[1,1,1,1]",
         "global_size: 1 to 3 sizes are expected, not 4"},
        {"\"batch*IMAGE[0]\"", "\"batch*IMAGE\"", "global_size[1]: 'IMAGE' at character 7"},
        {"[16, 4]", "[16]", "local_size: has 1 sizes, but global_size has 2"},
        {"[16, 4]", "[16, -4]", "local_size[1]: a size is 0 or more, not -4"},
        /* Outputs */
        {"\"outputs\": {\"TENSOR\"", "\"outputs\": {\"TENSER\"",
         "outputs: the model has no output 'TENSER'"},
        {", \"outputs\": {\"TENSOR\": [\"3\", \"IMAGE[0]\", \"IMAGE[1]\"]}", "",
         "outputs: output 'TENSOR' has variable dimensions"},
        {"[\"3\", \"IMAGE[0]\", \"IMAGE[1]\"]", "[3]",
         "outputs.TENSOR: 1 sizes, but the model's configuration has 3"},
        {"[\"3\",", "[\"4\",",
         "outputs.TENSOR[0]: \"4\" is 4, but the model's configuration says 3"},
        {"[\"3\",", "[\"IMAGE[2]+1\",", "outputs.TENSOR[0]: \"IMAGE[2]+1\" is 4, but"},
        {"[\"3\",", "[\"IMAGE[2]/0\",", "outputs.TENSOR[0]: the value at character 9 divides by 0"},
        {"[\"3\",", "[\"IMAGE[2]-9\",", "outputs.TENSOR[0]: \"IMAGE[2]-9\" is -6, a size"},
        {"[\"3\", \"IMAGE[0]\"", "[\"3\", \"SUM[0]\"",
         "outputs.TENSOR[1]: unknown tensor 'SUM' at character 1"},
    };
    mistakes_expect(good, &tensors, cases, sizeof cases / sizeof cases[0]);
}

static void text_that_is_no_object_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",  " ",    "null", "[]",   "\"x\"",
                                        "1", "true", "{",    "\xff", "{}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        umo_description d;
        umo_error error = {0};
        assert_int_equal(read(texts[i], &d, &error), UMO_E_INVAL);
        assert_true(strncmp(error.text, "parameter kernel: ", 18) == 0);
    }
}

/* A value that no key of this name takes, for each JSON type. */
static json_t *of_type(int type)
{
    switch (type) {
    case 0:
        return json_null();
    case 1:
        return json_true();
    case 2:
        return json_integer(5);
    case 3:
        return json_real(0.5);
    case 4:
        return json_string("?");
    case 5:
        return json_array();
    default:
        return json_object();
    }
}

static bool is_right_type(const char *key, int type)
{
    return (strcmp(key, "options") == 0 && type == 4) || (strcmp(key, "file") == 0 && type == 4) ||
           (strcmp(key, "weights") == 0 && type == 4) ||
           (strcmp(key, "private") == 0 && type == 1) || (strcmp(key, "index") == 0 && type == 1) ||
           (strcmp(key, "local_bytes") == 0 && type == 2) ||
           (strcmp(key, "value") == 0 && type == 2) || (strcmp(key, "size") == 0 && type == 2) ||
           (strcmp(key, "value") == 0 && type == 3);
}

/* Puts each wrong type at each key of an object below root. Returns the number of tries. */
static size_t wrong_types_in(json_t *root, json_t *object)
{
    size_t tries = 0;
    const char *key;
    json_t *kept;
    void *next;
    json_object_foreach_safe(object, next, key, kept)
    {
        char name[64];
        (void)snprintf(name, sizeof name, "%s", key);
        json_incref(kept);
        for (int type = 0; type <= 6; type++) {
            /* An empty object of outputs leaves TENSOR without a shape: an error, as wanted. */
            if (is_right_type(name, type)) {
                continue;
            }
            assert_int_equal(json_object_set_new(object, name, of_type(type)), 0);
            char *text = json_dumps(root, 0);
            umo_description d;
            umo_error error = {0};
            if (read(text, &d, &error) != UMO_E_INVAL) {
                fail_msg("taken: %s", text);
            }
            /* The message names the key or what stands in its place. */
            assert_true(strncmp(error.text, "parameter kernel: ", 18) == 0);
            assert_true(strstr(error.text, name) != NULL ||
                        strstr(error.text, "needs one of") != NULL ||
                        strstr(error.text, "has no") != NULL);
            free(text);
            tries++;
        }
        assert_int_equal(json_object_set_new(object, name, kept), 0);
    }
    return tries;
}

static void wrong_types_are_refused_at_every_key(void **state)
{
    (void)state;
    json_t *root = json_loads(good, 0, NULL);
    size_t tries = wrong_types_in(root, root);
    tries += wrong_types_in(root, json_object_get(root, "outputs"));
    json_t *arguments = json_object_get(root, "arguments");
    for (size_t i = 0; i < json_array_size(arguments); i++) {
        tries += wrong_types_in(root, json_array_get(arguments, i));
    }
    assert_true(tries > 150);
    /* And at every place of the arrays. */
    static const char *const arrays[] = {"global_size", "local_size", "arguments"};
    for (size_t a = 0; a < 3; a++) {
        json_t *array = json_object_get(root, arrays[a]);
        for (size_t i = 0; i < json_array_size(array); i++) {
            json_t *kept = json_incref(json_array_get(array, i));
            for (int type = 0; type <= 6; type++) {
                umo_description d;
                umo_error error = {0};
                if (a < 2 && type == 2) {
                    continue;
                }
                (void)json_array_set_new(array, i, of_type(type));
                char *text = json_dumps(root, 0);
                assert_int_equal(read(text, &d, &error), UMO_E_INVAL);
                assert_non_null(strstr(error.text, arrays[a]));
                free(text);
            }
            (void)json_array_set_new(array, i, kept);
        }
    }
    json_decref(root);
}

static void more_arguments_than_a_launch_takes_are_refused(void **state)
{
    (void)state;
    json_t *root = json_loads(good, 0, NULL);
    json_t *arguments = json_object_get(root, "arguments");
    umo_description d;
    umo_error error = {0};
    while (json_array_size(arguments) < UMO_KERNEL_ARGS_MAX) {
        (void)json_array_append_new(arguments,
                                    json_pack("{s:i, s:s}", "value", 1, "type", "uint64"));
    }
    char *text = json_dumps(root, 0);
    assert_int_equal(read(text, &d, &error), UMO_OK);
    umo_description_finish(&d);
    free(text);
    (void)json_array_append_new(arguments, json_pack("{s:i}", "local_bytes", 1));
    text = json_dumps(root, 0);
    assert_int_equal(read(text, &d, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "arguments: 33 of them; a kernel takes at most 32"));
    free(text);
    json_decref(root);
}

static void scalars_take_what_they_hold_and_no_more(void **state)
{
    (void)state;
    static const struct {
        umo_scalar_type type;
        int64_t min;
        int64_t max;
    } cases[] = {
        {UMO_SCALAR_INT8, INT8_MIN, INT8_MAX},
        {UMO_SCALAR_UINT8, 0, UINT8_MAX},
        {UMO_SCALAR_INT16, INT16_MIN, INT16_MAX},
        {UMO_SCALAR_UINT16, 0, UINT16_MAX},
        {UMO_SCALAR_INT32, INT32_MIN, INT32_MAX},
        {UMO_SCALAR_UINT32, 0, UINT32_MAX},
        {UMO_SCALAR_FLOAT32, -(1 << 24), 1 << 24},
        {UMO_SCALAR_FLOAT64, -(INT64_C(1) << 53), INT64_C(1) << 53},
    };
    umo_scalar value;
    assert_int_equal(umo_scalar_parse("uint16"), UMO_SCALAR_UINT16);
    assert_int_equal(umo_scalar_parse("double"), UMO_SCALAR_FLOAT64);
    assert_int_equal(umo_scalar_parse("half"), UMO_SCALAR_COUNT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(umo_scalar_from_integer(cases[i].type, cases[i].min, &value));
        assert_true(umo_scalar_from_integer(cases[i].type, cases[i].max, &value));
        assert_false(umo_scalar_from_integer(cases[i].type, cases[i].min - 1, &value));
        assert_false(umo_scalar_from_integer(cases[i].type, cases[i].max + 1, &value));
    }
    assert_true(umo_scalar_from_integer(UMO_SCALAR_INT64, INT64_MIN, &value));
    assert_true(value.i64 == INT64_MIN);
    assert_true(umo_scalar_from_integer(UMO_SCALAR_UINT64, INT64_MAX, &value));
    assert_true(value.u64 == INT64_MAX);
    assert_false(umo_scalar_from_integer(UMO_SCALAR_UINT64, -1, &value));
    assert_true(umo_scalar_from_integer(UMO_SCALAR_INT16, -2, &value));
    assert_int_equal(value.i16, -2);
    assert_true(umo_scalar_from_integer(UMO_SCALAR_FLOAT32, 5, &value));
    assert_true(value.f32 > 4.9F && value.f32 < 5.1F);
}

static void mutated_json_ends_in_a_description_or_an_error(void **state)
{
    (void)state;
    static const char alphabet[] = "{}[]\":,0123456789-.eE+ \\untrfalse\x01\xc3\xff";
    static const char *const words[] = {"null",      "true",       "-1",
                                        "1e999",     "\"\"",       "[]",
                                        "{}",        "\"batch\"",  "9223372036854775807",
                                        "\"IMAGE\"", "\"\\u0000\""};
    unsigned seed = 5;
    size_t taken = 0;
    for (int round = 0; round < 40000; round++) {
        char text[sizeof good + 256];
        memcpy(text, good, sizeof good);
        for (int edits = 1 + rand_r(&seed) % 3; edits > 0; edits--) {
            const size_t length = strlen(text);
            const size_t at = length > 0 ? (size_t)rand_r(&seed) % length : 0;
            const char c = alphabet[(size_t)rand_r(&seed) % (sizeof alphabet - 1)];
            const char *word = words[(size_t)rand_r(&seed) % (sizeof words / sizeof words[0])];
            const size_t word_bytes = strlen(word);
            switch (rand_r(&seed) % 5) {
            case 0:
                text[at] = c;
                break;
            case 1:
                memmove(text + at, text + at + (length > 0), length - at);
                break;
            case 2:
                memmove(text + at + 1, text + at, length - at + 1);
                text[at] = c;
                break;
            case 3:
                memmove(text + at + word_bytes, text + at, length - at + 1);
                memcpy(text + at, word, word_bytes);
                break;
            default: {
                /* A whole value gives way to a word. */
                const char *end = text + at + strcspn(text + at, ",]}");
                const size_t rest = strlen(end);
                memmove(text + at + word_bytes, end, rest + 1);
                memcpy(text + at, word, word_bytes);
                break;
            }
            }
        }
        char *exact = strdup(text);
        taken += text_ends_well(exact, &tensors) ? 1 : 0;
        free(exact);
    }
    assert_true(taken > 100 && taken < 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_one_is_taken_over),
        cmocka_unit_test(what_is_optional_may_be_absent),
        cmocka_unit_test(mistakes_are_named_by_their_place),
        cmocka_unit_test(text_that_is_no_object_is_refused),
        cmocka_unit_test(wrong_types_are_refused_at_every_key),
        cmocka_unit_test(more_arguments_than_a_launch_takes_are_refused),
        cmocka_unit_test(scalars_take_what_they_hold_and_no_more),
        cmocka_unit_test(mutated_json_ends_in_a_description_or_an_error),
    };
    return cmocka_run_group_tests_name("description", tests, NULL, NULL);
}
