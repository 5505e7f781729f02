/*
 * Which tensors steer: the list, what passes bytes on, and files that are no graph.
 */
#include "graph.h"
#include "onnx_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/umo-graph-test-XXXXXX";

static ort_graph *graph_of(const onnx_node nodes[], size_t count)
{
    onnx_model model = {.inputs = {{"X", 1, {"n"}}}};
    ort_graph *graph = NULL;
    memcpy(model.nodes, nodes, count * sizeof nodes[0]);
    assert_true(onnx_write(&model, path));
    assert_int_equal(ort_graph_read(path, &graph, NULL), UMO_OK);
    return graph;
}

#define GRAPH(...)                                                                                 \
    graph_of((const onnx_node[]){__VA_ARGS__},                                                     \
             sizeof(const onnx_node[]){__VA_ARGS__} / sizeof(onnx_node))

static bool steered(ort_graph *graph)
{
    bool is = ort_graph_is_steered(graph, "X", false);
    ort_graph_destroy(graph);
    return is;
}

static void arithmetic_is_not_steered(void **state)
{
    (void)state;
    assert_false(steered(GRAPH({"Relu", {"X"}, "Y"})));
    assert_false(steered(GRAPH({"Conv", {"X", "W"}, "Y"}, {"Softmax", {"Y"}, "Z"})));
    assert_false(steered(GRAPH({"Mul", {"W", "X"}, "Y"}, {"Transpose", {"Y"}, "Z"})));
}

static void selecting_and_unknown_operators_are_steered(void **state)
{
    (void)state;
    assert_true(steered(GRAPH({"TopK", {"X", "K"}, "Y"})));
    assert_true(steered(GRAPH({"Unique", {"X"}, "Y"})));
    assert_true(steered(GRAPH({"NonMaxSuppression", {"B", "X"}, "Y"})));
    assert_true(steered(GRAPH({"SomethingNew", {"X"}, "Y"})));
    assert_true(steered(GRAPH({"Relu", {"X"}, "Y"}, {"TopK", {"X", "K"}, "Z"})));
}

static void whole_divisors_are_steered_and_others_are_not(void **state)
{
    (void)state;
    ort_graph *graph = GRAPH({"Div", {"D", "X"}, "Y"});
    assert_false(ort_graph_is_steered(graph, "X", false));
    assert_true(ort_graph_is_steered(graph, "X", true));
    assert_false(ort_graph_is_steered(graph, "D", true));
    ort_graph_destroy(graph);
    assert_true(steered(GRAPH({"Div", {"X", "D"}, "Y"}, {"TopK", {"Y", "K"}, "Z"})));
}

static void harmless_first_inputs_have_harmful_others(void **state)
{
    (void)state;
    assert_false(steered(GRAPH({"Gather", {"X", "I"}, "Y"})));
    assert_true(steered(GRAPH({"Gather", {"D", "X"}, "Y"})));
    assert_true(steered(GRAPH({"GridSample", {"D", "X"}, "Y"})));
}

static void bytes_are_followed_through_what_an_optimiser_may_remove(void **state)
{
    (void)state;
    assert_true(steered(GRAPH({"Reshape", {"X", "S"}, "Y"}, {"TopK", {"Y", "K"}, "Z"})));
    assert_true(steered(GRAPH({"Cast", {"X"}, "A"}, {"Add", {"A", "0"}, "B"},
                              {"Identity", {"B"}, "C"}, {"TopK", {"C", "K"}, "Z"})));
    /* In any order of the nodes. */
    assert_true(steered(GRAPH({"TopK", {"C", "K"}, "Z"}, {"Identity", {"B"}, "C"},
                              {"Add", {"A", "0"}, "B"}, {"Cast", {"X"}, "A"})));
    /* New bytes of the engine's own are no client's. */
    assert_false(steered(GRAPH({"MatMul", {"X", "W"}, "Y"}, {"TopK", {"Y", "K"}, "Z"})));
}

static void readers_are_found(void **state)
{
    (void)state;
    ort_graph *graph = GRAPH({"Relu", {"X"}, "Y"}, {"Neg", {"Y"}, "Z"});
    assert_true(ort_graph_reads(graph, "X"));
    assert_true(ort_graph_reads(graph, "Y"));
    assert_false(ort_graph_reads(graph, "Z"));
    assert_false(ort_graph_reads(graph, ""));
    ort_graph_destroy(graph);
}

static void write_bytes(const void *data, size_t size_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

/* If { then_branch: Identity(X) }: field numbers of ONNX by hand. */
static void use_inside_a_branch_is_steered(void **state)
{
    (void)state;
    static const char inner[] = "\x0a\x01X\x12\x05inner\x22\x08Identity"; /* a node */
    static const char head[] = "\x3a\x26\x0a\x24"                         /* model, graph */
                               "\x0a\x01\x43\x12\x01Y\x22\x02If"          /* a node, C to Y */
                               "\x2a\x18\x32\x16\x0a\x14";                /* attribute, graph */
    char model[sizeof head + sizeof inner - 2];
    memcpy(model, head, sizeof head - 1);
    memcpy(model + sizeof head - 1, inner, sizeof inner - 1);
    ort_graph *graph = NULL;
    write_bytes(model, sizeof model);
    assert_int_equal(ort_graph_read(path, &graph, NULL), UMO_OK);
    assert_true(ort_graph_reads(graph, "X"));
    assert_true(steered(graph));
}

static void what_is_no_graph_is_unsupported(void **state)
{
    (void)state;
    ort_graph *graph = NULL;
    static const char *const files[] = {"not a model at all", "\x08\x08", "\x3a\x7f",
                                        "\x3a\x02\x0a\x7f",
                                        "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        write_bytes(files[i], strlen(files[i]));
        assert_int_equal(ort_graph_read(path, &graph, NULL), UMO_E_UNSUPPORTED);
    }
    write_bytes("", 0);
    assert_int_equal(ort_graph_read(path, &graph, NULL), UMO_E_SYSTEM);
    assert_int_equal(ort_graph_read("/nowhere/model.onnx", &graph, NULL), UMO_E_SYSTEM);
    assert_null(graph);
}

/* Every cut and every changed byte of a real file ends in a graph or in a refusal. */
static void damaged_files_do_no_harm(void **state)
{
    (void)state;
    unsigned char bytes[512];
    ort_graph_destroy(GRAPH({"Relu", {"X"}, "Y"}, {"TopK", {"Y", "K"}, "Z"}));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size_bytes = fread(bytes, 1, sizeof bytes, file);
    assert_int_equal(fclose(file), 0);
    assert_true(size_bytes < sizeof bytes);
    for (size_t i = 0; i < size_bytes; i++) {
        static const unsigned char changes[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
        for (size_t k = 0; k <= sizeof changes; k++) {
            ort_graph *graph = NULL;
            unsigned char was = bytes[i];
            bytes[i] = k < sizeof changes ? changes[k] : was;
            write_bytes(bytes, k < sizeof changes ? size_bytes : i);
            if (ort_graph_read(path, &graph, NULL) == UMO_OK) {
                (void)ort_graph_is_steered(graph, "X", false);
                (void)ort_graph_reads(graph, "X");
            }
            ort_graph_destroy(graph);
            bytes[i] = was;
        }
    }
}

int main(void)
{
    int file = mkstemp(path);
    if (file < 0) {
        return 1;
    }
    (void)close(file);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_is_not_steered),
        cmocka_unit_test(selecting_and_unknown_operators_are_steered),
        cmocka_unit_test(whole_divisors_are_steered_and_others_are_not),
        cmocka_unit_test(harmless_first_inputs_have_harmful_others),
        cmocka_unit_test(bytes_are_followed_through_what_an_optimiser_may_remove),
        cmocka_unit_test(readers_are_found),
        cmocka_unit_test(use_inside_a_branch_is_steered),
        cmocka_unit_test(what_is_no_graph_is_unsupported),
        cmocka_unit_test(damaged_files_do_no_harm),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
