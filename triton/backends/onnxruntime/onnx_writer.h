/*
 * Writes small ONNX models for tests, without the onnx package: the few protobuf fields that a
 * graph needs.
 */
#ifndef UMO_ORT_ONNX_WRITER_H
#define UMO_ORT_ONNX_WRITER_H

#include <stdbool.h>

enum {
    ONNX_LIST = 4,
    ONNX_RANK = 3,
    ONNX_VALUES = 512
};

/** An input or output. A dimension that is no number is a symbol. Ends at the first NULL. */
typedef struct onnx_tensor {
    const char *name;
    int element;
    const char *dims[ONNX_RANK];
} onnx_tensor;

typedef struct onnx_node {
    const char *op;
    const char *inputs[2];
    const char *output;
} onnx_node;

/** A constant of floats. Named like an input it is that input's default. */
typedef struct onnx_constant {
    const char *name;
    int count;
    float values[ONNX_VALUES];
    int columns;          /* 0: one dimension, else [count / columns, columns] */
    const char *location; /* not NULL: the values lie in that file, and these say where */
    const char *offset;   /* NULL: not said */
    const char *length;
} onnx_constant;

typedef struct onnx_model {
    onnx_tensor inputs[ONNX_LIST];
    onnx_constant constants[ONNX_LIST];
    onnx_node nodes[ONNX_LIST];
    onnx_tensor outputs[ONNX_LIST];
} onnx_model;

/** False when the file cannot be written. */
bool onnx_write(const onnx_model *model, const char *path);

#endif
