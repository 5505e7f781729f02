/*
 * What the model's `kernel` parameter says, checked: the program, the function, its arguments in
 * order, the work sizes and the shapes of the outputs.
 *
 * Everything that can be wrong with the text alone, or with the text against the model's inputs and
 * outputs, is found here and named by its place in the JSON ("arguments[2].type"), so that a
 * request can only fail by its own shapes.
 */
#ifndef UMO_KERNEL_DESCRIPTION_H
#define UMO_KERNEL_DESCRIPTION_H

#include "expression.h"

#include <umo/triton.h>

/* Types of a kernel's scalar arguments. */
typedef enum umo_scalar_type {
    UMO_SCALAR_INT8,
    UMO_SCALAR_UINT8,
    UMO_SCALAR_INT16,
    UMO_SCALAR_UINT16,
    UMO_SCALAR_INT32,
    UMO_SCALAR_UINT32,
    UMO_SCALAR_INT64,
    UMO_SCALAR_UINT64,
    UMO_SCALAR_FLOAT32,
    UMO_SCALAR_FLOAT64,
    UMO_SCALAR_COUNT
} umo_scalar_type;

/* "int32"; never NULL. */
const char *umo_scalar_name(umo_scalar_type type);
/* From "int32" or OpenCL C's "int"; UMO_SCALAR_COUNT if unknown. */
umo_scalar_type umo_scalar_parse(const char *name);
size_t umo_scalar_size(umo_scalar_type type);

/* A scalar's bytes as a launch passes them. */
typedef union umo_scalar {
    int8_t i8;
    uint8_t u8;
    int16_t i16;
    uint16_t u16;
    int32_t i32;
    uint32_t u32;
    int64_t i64;
    uint64_t u64;
    float f32;
    double f64;
} umo_scalar;

/* Puts an integer into a scalar. False when it does not fit; a float type takes what it holds
 * exactly. */
bool umo_scalar_from_integer(umo_scalar_type type, int64_t value, umo_scalar *out);

typedef enum umo_argument_kind {
    UMO_ARGUMENT_INPUT,
    UMO_ARGUMENT_OUTPUT,
    UMO_ARGUMENT_SIZE,   /* a scalar computed for each batch; "shape" and "size" of the JSON */
    UMO_ARGUMENT_VALUE,  /* a scalar that never changes */
    UMO_ARGUMENT_LOCAL,  /* work-group memory of a computed size */
    UMO_ARGUMENT_WEIGHTS /* bytes of a file in the version's folder; read alone */
} umo_argument_kind;

typedef struct umo_argument {
    umo_argument_kind kind;
    size_t tensor;        /* INPUT, OUTPUT: index in the model's list; WEIGHTS: which of them */
    bool index;           /* INPUT: steers addresses in the kernel */
    size_t align_bytes;   /* INPUT, OUTPUT: 0 when not given */
    umo_scalar_type type; /* SIZE, VALUE */
    umo_scalar value;     /* VALUE */
    umo_expression expression; /* SIZE, LOCAL (bytes) */
    char *weights_file;        /* WEIGHTS */
    size_t weights_offset_bytes;
    size_t weights_bytes;
    umo_pattern pattern; /* WEIGHTS: who reads them; UNKNOWN unless said */
} umo_argument;

/* An output's dimensions, without the batch dimension. */
typedef struct umo_output_dims {
    uint32_t rank;
    umo_expression *dims; /* rank of them, over the inputs alone */
} umo_output_dims;

typedef struct umo_description {
    char *file; /* NULL when not given */
    char *function;
    char *options; /* NULL when not given */
    size_t argument_count;
    umo_argument arguments[UMO_KERNEL_ARGS_MAX];
    uint32_t dimensions;
    umo_expression global_size[3];
    bool has_local_size;
    umo_expression local_size[3];
    /* Names of all formulas: the inputs, then the outputs. Inside "outputs" the inputs alone. */
    size_t input_count;
    size_t output_count;
    umo_output_dims *outputs; /* output_count of them */
    size_t weights_count;
} umo_description;

/* The model's tensors that a description speaks of. */
typedef struct umo_description_tensors {
    const umo_io *inputs;
    size_t input_count;
    const umo_io *outputs;
    size_t output_count;
} umo_description_tensors;

/*
 * Reads the JSON text. INVAL names the place and what is allowed there.
 *
 * out is written only on success and then holds memory: umo_description_finish().
 */
umo_status umo_description_init(umo_description *out, const char *json,
                                const umo_description_tensors *tensors, umo_error *error);

/* Accepts a zeroed one. */
void umo_description_finish(umo_description *description);

#endif
