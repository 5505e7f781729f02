/*
 * A walk through the few protobuf fields that say which node reads what.
 *
 * The list is of operators that are harmless, so that an unknown one costs a copy and not a crash.
 * It speaks of kernels that take the same steps and touch the same addresses for all values of the
 * inputs in question. It is made by reading kernels, and held against what was seen to fail:
 * tests/conformance/mutate_ops.json.
 */
#include "graph.h"

#include "proto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef proto_span span;
typedef proto_field field;

typedef struct node {
    span op;
    span domain;
    size_t first_name; /* in names: inputs, then outputs */
    size_t input_count;
    size_t output_count;
    bool inner; /* in a branch or a loop's body: its outputs leave under another name */
} node;

struct ort_graph {
    void *file;
    size_t file_bytes;
    node *nodes;
    size_t node_count;
    size_t node_capacity;
    span *names;
    size_t name_count;
    size_t name_capacity;
};

/* Field numbers of ONNX. */
enum {
    MODEL_GRAPH = 7,
    GRAPH_NODE = 1,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_OP = 4,
    NODE_ATTRIBUTE = 5,
    NODE_DOMAIN = 7,
    ATTRIBUTE_GRAPH = 6,
    ATTRIBUTE_GRAPHS = 11
};

enum {
    DEPTH_MAX = 64,
    STEERED_NAMES_MAX = 4096
};

typedef enum op_kind {
    OP_ANY_INPUT = 0,
    OP_FIRST_INPUT, /* the others say where to read or how much to write */
    OP_DIVIDES,     /* passes; stumbles over whole divisors that turn zero */
    OP_PASSES       /* may vanish, or hand on the same bytes */
} op_kind;

static const struct {
    const char *name;
    op_kind kind;
} harmless[] = {
    {"Abs", OP_ANY_INPUT},
    {"Acos", OP_ANY_INPUT},
    {"Acosh", OP_ANY_INPUT},
    {"Add", OP_PASSES},
    {"And", OP_ANY_INPUT},
    {"Asin", OP_ANY_INPUT},
    {"Asinh", OP_ANY_INPUT},
    {"Atan", OP_ANY_INPUT},
    {"Atanh", OP_ANY_INPUT},
    {"AveragePool", OP_ANY_INPUT},
    {"BatchNormalization", OP_ANY_INPUT},
    {"Cast", OP_PASSES},
    {"CastLike", OP_PASSES},
    {"Ceil", OP_ANY_INPUT},
    {"Celu", OP_ANY_INPUT},
    {"Clip", OP_PASSES},
    {"Concat", OP_PASSES},
    {"Conv", OP_ANY_INPUT},
    {"ConvInteger", OP_ANY_INPUT},
    {"ConvTranspose", OP_ANY_INPUT},
    {"Cos", OP_ANY_INPUT},
    {"Cosh", OP_ANY_INPUT},
    {"DepthToSpace", OP_PASSES},
    {"DequantizeLinear", OP_ANY_INPUT},
    {"Div", OP_DIVIDES},
    {"DynamicQuantizeLinear", OP_ANY_INPUT},
    {"Einsum", OP_ANY_INPUT},
    {"Elu", OP_ANY_INPUT},
    {"Equal", OP_ANY_INPUT},
    {"Erf", OP_ANY_INPUT},
    {"Exp", OP_ANY_INPUT},
    {"Flatten", OP_PASSES},
    {"Floor", OP_ANY_INPUT},
    {"GRU", OP_ANY_INPUT},
    {"Gather", OP_FIRST_INPUT},
    {"GatherElements", OP_FIRST_INPUT},
    {"GatherND", OP_FIRST_INPUT},
    {"Gelu", OP_ANY_INPUT},
    {"Gemm", OP_ANY_INPUT},
    {"GlobalAveragePool", OP_ANY_INPUT},
    {"GlobalMaxPool", OP_ANY_INPUT},
    {"Greater", OP_ANY_INPUT},
    {"GreaterOrEqual", OP_ANY_INPUT},
    {"GridSample", OP_FIRST_INPUT},
    {"GroupNormalization", OP_ANY_INPUT},
    {"HardSigmoid", OP_ANY_INPUT},
    {"HardSwish", OP_ANY_INPUT},
    {"Identity", OP_PASSES},
    {"InstanceNormalization", OP_ANY_INPUT},
    {"IsInf", OP_ANY_INPUT},
    {"IsNaN", OP_ANY_INPUT},
    {"LRN", OP_ANY_INPUT},
    {"LSTM", OP_ANY_INPUT},
    {"LayerNormalization", OP_ANY_INPUT},
    {"LeakyRelu", OP_ANY_INPUT},
    {"Less", OP_ANY_INPUT},
    {"LessOrEqual", OP_ANY_INPUT},
    {"Log", OP_ANY_INPUT},
    {"LogSoftmax", OP_ANY_INPUT},
    {"LpNormalization", OP_ANY_INPUT},
    {"LpPool", OP_ANY_INPUT},
    {"MatMul", OP_ANY_INPUT},
    {"MatMulInteger", OP_ANY_INPUT},
    {"Max", OP_PASSES},
    {"MaxPool", OP_ANY_INPUT},
    {"Mean", OP_PASSES},
    {"MeanVarianceNormalization", OP_ANY_INPUT},
    {"Min", OP_PASSES},
    {"Mish", OP_ANY_INPUT},
    {"Mul", OP_PASSES},
    {"Neg", OP_ANY_INPUT},
    {"Not", OP_ANY_INPUT},
    {"Or", OP_ANY_INPUT},
    {"PRelu", OP_ANY_INPUT},
    {"Pow", OP_PASSES},
    {"QuantizeLinear", OP_ANY_INPUT},
    {"RNN", OP_ANY_INPUT},
    {"Reciprocal", OP_ANY_INPUT},
    {"ReduceL1", OP_ANY_INPUT},
    {"ReduceL2", OP_ANY_INPUT},
    {"ReduceLogSum", OP_ANY_INPUT},
    {"ReduceLogSumExp", OP_ANY_INPUT},
    {"ReduceMax", OP_ANY_INPUT},
    {"ReduceMean", OP_ANY_INPUT},
    {"ReduceMin", OP_ANY_INPUT},
    {"ReduceProd", OP_ANY_INPUT},
    {"ReduceSum", OP_ANY_INPUT},
    {"ReduceSumSquare", OP_ANY_INPUT},
    {"Relu", OP_PASSES},
    {"Reshape", OP_PASSES},
    {"Resize", OP_FIRST_INPUT},
    {"Round", OP_ANY_INPUT},
    {"Selu", OP_ANY_INPUT},
    {"Shape", OP_ANY_INPUT},
    {"Sigmoid", OP_ANY_INPUT},
    {"Sign", OP_ANY_INPUT},
    {"Sin", OP_ANY_INPUT},
    {"Sinh", OP_ANY_INPUT},
    {"Size", OP_ANY_INPUT},
    {"Slice", OP_PASSES},
    {"Softmax", OP_ANY_INPUT},
    {"Softplus", OP_ANY_INPUT},
    {"Softsign", OP_ANY_INPUT},
    {"SpaceToDepth", OP_PASSES},
    {"Split", OP_PASSES},
    {"Sqrt", OP_ANY_INPUT},
    {"Squeeze", OP_PASSES},
    {"Sub", OP_PASSES},
    {"Sum", OP_PASSES},
    {"Tan", OP_ANY_INPUT},
    {"Tanh", OP_ANY_INPUT},
    {"ThresholdedRelu", OP_ANY_INPUT},
    {"Tile", OP_PASSES},
    {"Transpose", OP_PASSES},
    {"Unsqueeze", OP_PASSES},
    {"Where", OP_PASSES},
    {"Xor", OP_ANY_INPUT},
};

static umo_status broken(umo_error *error)
{
    return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                         "the model file is not in ONNX's own form: export it as .onnx");
}

/* Room for one more element. */
static umo_status grow(void **array, size_t count, size_t *capacity, size_t element_bytes,
                       umo_error *error)
{
    if (count < *capacity) {
        return UMO_OK;
    }
    size_t wanted = count < 16 ? 16 : 2 * count;
    void *grown = realloc(*array, wanted * element_bytes);
    if (grown == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to read the model's graph");
    }
    *array = grown;
    *capacity = wanted;
    return UMO_OK;
}

static umo_status add_name(ort_graph *graph, span name, umo_error *error)
{
    void *names = graph->names;
    umo_status status =
        grow(&names, graph->name_count, &graph->name_capacity, sizeof *graph->names, error);
    graph->names = names;
    if (status == UMO_OK) {
        graph->names[graph->name_count++] = name;
    }
    return status;
}

static umo_status add_node(ort_graph *graph, const node *made, umo_error *error)
{
    void *nodes = graph->nodes;
    umo_status status =
        grow(&nodes, graph->node_count, &graph->node_capacity, sizeof *graph->nodes, error);
    graph->nodes = nodes;
    if (status == UMO_OK) {
        graph->nodes[graph->node_count++] = *made;
    }
    return status;
}

/* The names of one kind, in their order; and what else the node says. */
static umo_status read_names(ort_graph *graph, span body, unsigned kind, node *made,
                             umo_error *error)
{
    field f;
    umo_status status = UMO_OK;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return broken(error);
        }
        if (f.is_bytes && f.number == NODE_OP) {
            made->op = f.bytes;
        } else if (f.is_bytes && f.number == NODE_DOMAIN) {
            made->domain = f.bytes;
        } else if (f.is_bytes && f.number == kind) {
            status = add_name(graph, f.bytes, error);
            *(kind == NODE_INPUT ? &made->input_count : &made->output_count) += 1;
        }
    }
    return status;
}

static umo_status read_graph(ort_graph *graph, span body, int depth, umo_error *error);

/* The graphs inside one attribute: branches and loop bodies. */
static umo_status read_attribute(ort_graph *graph, span body, int depth, umo_error *error)
{
    field f;
    umo_status status = UMO_OK;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return broken(error);
        }
        if (f.is_bytes && (f.number == ATTRIBUTE_GRAPH || f.number == ATTRIBUTE_GRAPHS)) {
            status = read_graph(graph, f.bytes, depth + 1, error);
        }
    }
    return status;
}

static umo_status read_node(ort_graph *graph, span body, int depth, umo_error *error)
{
    node made = {.first_name = graph->name_count, .inner = depth > 0};
    umo_status status = read_names(graph, body, NODE_INPUT, &made, error);
    if (status == UMO_OK) {
        status = read_names(graph, body, NODE_OUTPUT, &made, error);
    }
    if (status == UMO_OK) {
        status = add_node(graph, &made, error);
    }
    field f;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return broken(error);
        }
        if (f.is_bytes && f.number == NODE_ATTRIBUTE) {
            status = read_attribute(graph, f.bytes, depth, error);
        }
    }
    return status;
}

static umo_status read_graph(ort_graph *graph, span body, int depth, umo_error *error)
{
    field f;
    umo_status status = UMO_OK;
    if (depth > DEPTH_MAX) {
        return broken(error);
    }
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return broken(error);
        }
        if (f.is_bytes && f.number == GRAPH_NODE) {
            status = read_node(graph, f.bytes, depth, error);
        }
    }
    return status;
}

static umo_status read_model(ort_graph *graph, umo_error *error)
{
    span body = {graph->file, graph->file_bytes};
    bool found = false;
    field f;
    umo_status status = UMO_OK;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return broken(error);
        }
        if (f.is_bytes && f.number == MODEL_GRAPH) {
            found = true;
            status = read_graph(graph, f.bytes, 0, error);
        }
    }
    return status == UMO_OK && !found ? broken(error) : status;
}

static umo_status map_file(const char *path, ort_graph *graph, umo_error *error)
{
    struct stat seen;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &seen) != 0 || seen.st_size <= 0) {
        int cause = errno;
        if (file >= 0) {
            close(file);
        }
        return umo_error_set(error, UMO_E_SYSTEM, cause, "the model file cannot be read");
    }
    void *mapped = mmap(NULL, (size_t)seen.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    int cause = errno;
    close(file);
    if (mapped == MAP_FAILED) {
        return umo_error_set(error, UMO_E_SYSTEM, cause, "the model file cannot be mapped");
    }
    graph->file = mapped;
    graph->file_bytes = (size_t)seen.st_size;
    return UMO_OK;
}

umo_status ort_graph_read(const char *path, ort_graph **out, umo_error *error)
{
    ort_graph *graph = calloc(1, sizeof *graph);
    if (graph == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to read the model's graph");
    }
    umo_status status = map_file(path, graph, error);
    if (status == UMO_OK) {
        status = read_model(graph, error);
    }
    if (status != UMO_OK) {
        ort_graph_destroy(graph);
        return status;
    }
    *out = graph;
    return UMO_OK;
}

void ort_graph_destroy(ort_graph *graph)
{
    if (graph == NULL) {
        return;
    }
    if (graph->file != NULL) {
        munmap(graph->file, graph->file_bytes);
    }
    free(graph->nodes);
    free(graph->names);
    free(graph);
}

bool ort_graph_reads(const ort_graph *graph, const char *tensor)
{
    for (size_t n = 0; n < graph->node_count; n++) {
        for (size_t i = 0; i < graph->nodes[n].input_count; i++) {
            if (proto_is(graph->names[graph->nodes[n].first_name + i], tensor)) {
                return true;
            }
        }
    }
    return false;
}

/* Tensors that may be the bytes in question. */
typedef struct tainted {
    span names[STEERED_NAMES_MAX];
    size_t count;
} tainted;

static bool is_tainted(const tainted *set, span name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (proto_equal(set->names[i], name)) {
            return true;
        }
    }
    return false;
}

/* Whether the node is harmless for its input i; *passes says if the outputs may be the same bytes.
 */
static bool node_is_harmless(const node *at, size_t i, bool integer, bool *passes)
{
    *passes = false;
    if (at->domain.size_bytes != 0 && !proto_is(at->domain, "ai.onnx")) {
        return false;
    }
    for (size_t k = 0; k < sizeof harmless / sizeof harmless[0]; k++) {
        if (proto_is(at->op, harmless[k].name)) {
            op_kind kind = harmless[k].kind;
            *passes = kind == OP_PASSES || kind == OP_DIVIDES;
            return i == 0 || (kind != OP_FIRST_INPUT && (kind != OP_DIVIDES || !integer));
        }
    }
    return false;
}

/* Looks at every node once. False at the first harmful use; *grew when an output joined the set. */
static bool visit_nodes(const ort_graph *graph, tainted *set, bool integer, bool *grew)
{
    for (size_t n = 0; n < graph->node_count; n++) {
        const node *at = &graph->nodes[n];
        const span *inputs = graph->names + at->first_name;
        const span *outputs = inputs + at->input_count;
        for (size_t i = 0; i < at->input_count; i++) {
            bool passes;
            if (!is_tainted(set, inputs[i])) {
                continue;
            }
            if (!node_is_harmless(at, i, integer, &passes) || (passes && at->inner)) {
                return false;
            }
            for (size_t o = 0; passes && o < at->output_count; o++) {
                if (outputs[o].size_bytes == 0 || is_tainted(set, outputs[o])) {
                    continue;
                }
                if (set->count == STEERED_NAMES_MAX) {
                    return false;
                }
                set->names[set->count++] = outputs[o];
                *grew = true;
            }
        }
    }
    return true;
}

bool ort_graph_is_steered(const ort_graph *graph, const char *tensor, bool integer)
{
    tainted *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return true;
    }
    set->names[set->count++] = (span){(const unsigned char *)tensor, strlen(tensor)};
    bool harmful = false;
    bool grew = true;
    while (grew && !harmful) {
        grew = false;
        harmful = !visit_nodes(graph, set, integer, &grew);
    }
    free(set);
    return harmful;
}
