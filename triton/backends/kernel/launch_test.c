/*
 * Launches: arguments, sizes and output shapes as the description and the shapes at hand say.
 */
#include "launch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const umo_io input = {.name = "IMAGE", .dtype = UMO_UINT8, .dims = {3, {-1, -1, 3}}};
static const umo_io output = {.name = "TENSOR", .dtype = UMO_FP32, .dims = {3, {3, -1, -1}}};
static const umo_description_tensors tensors = {&input, 1, &output, 1, NULL, NULL};

#define HEAD                                                                                       \
    "{\"function\": \"f\", \"outputs\": {\"TENSOR\": [3, \"IMAGE[0]/2\", \"IMAGE[1]-1\"]}, "
#define ARGUMENTS                                                                                  \
    "\"arguments\": [{\"output\": \"TENSOR\"}, {\"input\": \"IMAGE\"}, "                           \
    "{\"size\": \"batch*IMAGE[0]\", \"type\": \"uint16\"}, "                                       \
    "{\"shape\": \"TENSOR\", \"dim\": 1, \"type\": \"int64\"}, "                                   \
    "{\"value\": 7, \"type\": \"uint8\"}, {\"local_bytes\": \"4*IMAGE[0]\"}], "

static void init(umo_description *out, const char *json)
{
    umo_error error = {0};
    if (umo_description_init(out, json, &tensors, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
}

static umo_status fill(const umo_description *d, const umo_shape *shapes, int64_t batch,
                       const umo_launch_memory *memory, umo_launch *out, umo_error *error)
{
    static const bool present[] = {true};
    const umo_launch_facts facts = {shapes, memory, present, batch};
    return umo_launch_fill(d, 0, &facts, out, error);
}

static void a_launch_is_filled_from_shapes_and_memory(void **state)
{
    (void)state;
    umo_description d;
    umo_memory memories[2] = {{.size_bytes = 1}, {.size_bytes = 2}};
    const umo_launch_memory memory[2] = {{&memories[0], 64, 1000}, {&memories[1], 128, 2000}};
    umo_shape shapes[2] = {{3, {10, 8, 3}}, {0, {0}}};
    umo_launch launch;
    init(&d, HEAD ARGUMENTS
         "\"global_size\": [\"TENSOR[2]\", \"TENSOR[1]\", \"batch\"], \"local_size\": [7, 1, 1]}");
    assert_int_equal(umo_launch_shapes(&d, shapes, 2, NULL), UMO_OK);
    assert_int_equal(shapes[1].rank, 3);
    assert_int_equal(shapes[1].dims[0], 3);
    assert_int_equal(shapes[1].dims[1], 5);
    assert_int_equal(shapes[1].dims[2], 7);
    assert_int_equal(fill(&d, shapes, 2, memory, &launch, NULL), UMO_OK);
    assert_int_equal(launch.arg_count, 6);
    assert_ptr_equal(launch.args[0].memory, &memories[1]);
    assert_int_equal(launch.args[0].offset_bytes, 128);
    assert_int_equal(launch.args[0].size_bytes, 2000);
    assert_ptr_equal(launch.args[1].memory, &memories[0]);
    assert_int_equal(launch.args[1].offset_bytes, 64);
    assert_int_equal(launch.args[2].kind, UMO_ARG_VALUE);
    assert_int_equal(launch.args[2].size_bytes, 2);
    assert_int_equal(*(const uint16_t *)launch.args[2].value, 20);
    assert_int_equal(launch.args[3].size_bytes, 8);
    assert_int_equal(*(const int64_t *)launch.args[3].value, 5);
    assert_int_equal(launch.args[4].size_bytes, 1);
    assert_int_equal(*(const uint8_t *)launch.args[4].value, 7);
    assert_int_equal(launch.args[5].kind, UMO_ARG_LOCAL);
    assert_int_equal(launch.args[5].size_bytes, 40);
    assert_int_equal(launch.grid.dimensions, 3);
    assert_int_equal(launch.grid.global[0], 7);
    assert_int_equal(launch.grid.global[1], 5);
    assert_int_equal(launch.grid.global[2], 2);
    assert_int_equal(launch.grid.local[0], 7);
    assert_int_equal(launch.zero_dimension, 3);
    umo_description_finish(&d);
}

static void a_grid_without_work_items_is_seen(void **state)
{
    (void)state;
    umo_description d;
    const umo_launch_memory memory[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    umo_shape shapes[2] = {{3, {10, 0, 3}}, {3, {3, 5, 0}}};
    umo_launch launch;
    init(&d, HEAD ARGUMENTS "\"global_size\": [\"IMAGE[0]\", \"IMAGE[1]\", \"IMAGE[1]\"]}");
    assert_int_equal(fill(&d, shapes, 1, memory, &launch, NULL), UMO_OK);
    assert_int_equal(launch.zero_dimension, 1);
    assert_int_equal(launch.grid.local[0], 0);
    umo_description_finish(&d);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *global;
        int64_t height;
        const char *said;
    } cases[] = {
        {"[1]}", 70000, "arguments[2]: \"batch*IMAGE[0]\" is 70000, which does not fit uint16"},
        {"[1]}", 0, "arguments[5].local_bytes: \"4*IMAGE[0]\" is 0"},
        {"[1, \"IMAGE[0]-11\"]}", 10, "global_size[1]: \"IMAGE[0]-11\" is -1, a size is 0 or more"},
        {"[\"1/(IMAGE[0]-10)\"]}", 10, "global_size[0]: the value at character 2 divides by 0"},
        {"[8], \"local_size\": [\"IMAGE[0]-10\"]}", 10, "local_size[0]: \"IMAGE[0]-10\" is 0"},
        {"[8], \"local_size\": [\"IMAGE[0]-12\"]}", 10, "local_size[0]: \"IMAGE[0]-12\" is -2"},
    };
    const umo_launch_memory memory[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[1024] = HEAD ARGUMENTS "\"global_size\": ";
        umo_description d;
        umo_shape shapes[2] = {{3, {cases[i].height, 8, 3}}, {3, {3, 1, 7}}};
        umo_launch launch;
        umo_error error = {0};
        strcat(json, cases[i].global);
        init(&d, json);
        assert_int_equal(fill(&d, shapes, 1, memory, &launch, &error), UMO_E_INVAL);
        if (strstr(error.text, cases[i].said) == NULL) {
            fail_msg("%s gave: %s", cases[i].global, error.text);
        }
        umo_description_finish(&d);
    }
}

static void an_impossible_output_shape_is_named(void **state)
{
    (void)state;
    umo_description d;
    umo_shape shapes[2] = {{3, {10, 0, 3}}, {0, {0}}};
    umo_error error = {0};
    init(&d, HEAD ARGUMENTS "\"global_size\": [1]}");
    assert_int_equal(umo_launch_shapes(&d, shapes, 1, &error), UMO_E_INVAL);
    assert_string_equal(error.text,
                        "dimension 2 of output 0: \"IMAGE[1]-1\" is -1, a size is 0 or more");
    umo_description_finish(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_launch_is_filled_from_shapes_and_memory),
        cmocka_unit_test(a_grid_without_work_items_is_seen),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(an_impossible_output_shape_is_named),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
