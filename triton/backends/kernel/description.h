/*
 * What the model's `kernel` parameter says, checked: the kernels in the order in which they run,
 * each with its program, arguments and work sizes; the intermediates between them; the shapes of
 * the outputs.
 *
 * Everything that can be wrong with the text alone, or with the text against the model's inputs and
 * outputs, is found here and named by its place in the JSON ("kernels[1].arguments[2].type"), so
 * that a request can only fail by its own shapes.
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
    UMO_ARGUMENT_INTERMEDIATE,
    UMO_ARGUMENT_SIZE,    /* a scalar computed for each batch; "shape" and "size" of the JSON */
    UMO_ARGUMENT_VALUE,   /* a scalar that never changes; "value" and "parameter" */
    UMO_ARGUMENT_PRESENT, /* a scalar: 1 when the requests bring an optional input, else 0 */
    UMO_ARGUMENT_LOCAL,   /* work-group memory of a computed size */
    UMO_ARGUMENT_WEIGHTS  /* bytes of a file in the version's folder; read alone */
} umo_argument_kind;

typedef struct umo_argument {
    umo_argument_kind kind;
    /* INPUT, OUTPUT, INTERMEDIATE, PRESENT: index in that list; WEIGHTS: which of them. */
    size_t tensor;
    bool reads;                /* OUTPUT, INTERMEDIATE: what the kernel does with it */
    bool writes;               /* likewise */
    bool scratch;              /* INTERMEDIATE: it reads what it wrote itself */
    bool first;                /* OUTPUT, INTERMEDIATE: no kernel before this one writes it */
    bool overwrites;           /* OUTPUT: may be the memory of the state that it continues */
    bool index;                /* INPUT: steers addresses in the kernel */
    size_t align_bytes;        /* INPUT, OUTPUT: 0 when not given */
    umo_scalar_type type;      /* SIZE, VALUE, PRESENT */
    umo_scalar value;          /* VALUE */
    umo_expression expression; /* SIZE, LOCAL (bytes) */
    char *weights_file;        /* WEIGHTS */
    size_t weights_offset_bytes;
    size_t weights_bytes;
    umo_pattern pattern;  /* WEIGHTS: who reads them; UNKNOWN unless said */
    bool weights_private; /* WEIGHTS: copied to the device's own memory whatever that costs */
} umo_argument;

/* Dimensions as formulas: an output's without the batch dimension, an intermediate's whole. */
typedef struct umo_formula_dims {
    uint32_t rank;
    umo_expression *dims; /* rank of them */
} umo_formula_dims;

/* One kernel of the model. */
typedef struct umo_stage {
    char *file;    /* NULL when not given */
    char *options; /* NULL when not given */
    char *function;
    size_t argument_count;
    umo_argument *arguments; /* argument_count of them */
    uint32_t dimensions;
    umo_expression global_size[3];
    bool has_local_size;
    umo_expression local_size[3];
} umo_stage;

/* Memory between kernels: lives from the first that names it to the last. */
typedef struct umo_intermediate {
    char *name;
    umo_dtype dtype;
    umo_formula_dims dims; /* over inputs, outputs and the intermediates before it */
    bool clear;            /* zeroed before its first kernel */
    bool read;             /* some kernel reads it */
    size_t first_stage;
    size_t last_stage;
} umo_intermediate;

#define UMO_STAGES_MAX 16u
#define UMO_INTERMEDIATES_MAX 32u

/* Names of all formulas: the inputs, the outputs, the intermediates. Inside "outputs" the inputs
 * alone. Memory and shapes of a launch are listed in this order, weights behind them. */
typedef struct umo_description {
    bool listed; /* "kernels" was given: messages say which */
    size_t stage_count;
    umo_stage *stages; /* stage_count of them, at least 1 */
    size_t input_count;
    bool *flagged; /* of each input: some kernel asks whether it is present */
    size_t output_count;
    umo_formula_dims *outputs; /* output_count of them */
    size_t intermediate_count;
    umo_intermediate *intermediates; /* intermediate_count of them */
    size_t weights_count;
} umo_description;

/* What a description speaks of: the model's tensors and its other parameters. */
typedef struct umo_description_tensors {
    const umo_io *inputs;
    size_t input_count;
    const umo_io *outputs;
    size_t output_count;
    const char *(*parameter)(const void *user, const char *key); /* NULL when there are none */
    const void *user;
} umo_description_tensors;

/* Whether a batch's tensor has the batch dimension in its own dimensions, or none: the
 * concatenation of ragged tensors, what the kit makes of a batch, and what it cuts into ragged
 * tensors. */
static inline bool umo_description_is_whole(const umo_io *io)
{
    return io->ragged || io->scattered || io->source == UMO_IO_BATCH;
}

/* A tensor's dimensions as formulas name them; -1 is variable. */
static inline umo_shape umo_description_dims(const umo_io *io)
{
    return io->ragged || io->scattered ? (umo_shape){.rank = 1, .dims = {-1}} : io->dims;
}

/*
 * Reads the JSON text. INVAL names the place and what is allowed there.
 *
 * out is written only on success and then holds memory: umo_description_finish().
 */
umo_status umo_description_init(umo_description *out, const char *json,
                                const umo_description_tensors *tensors, umo_error *error);

/* Accepts a zeroed one. */
void umo_description_finish(umo_description *description);

/* Tensors that formulas may name. */
static inline size_t umo_description_names(const umo_description *description)
{
    return description->input_count + description->output_count + description->intermediate_count;
}

#endif
