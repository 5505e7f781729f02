/*
 * Sizes as small formulas over the shapes of tensors: "3*IMAGE[0]", "ceil(IMAGE[1],16)".
 *
 * A formula is compiled once, when the model loads, into a short list of stack operations, so that
 * a request costs a few additions and no allocation, and so that every mistake that can be seen at
 * load is seen at load. All arithmetic is checked: a size that does not fit 63 bits is an error,
 * never another size.
 */
#ifndef UMO_KERNEL_EXPRESSION_H
#define UMO_KERNEL_EXPRESSION_H

#include <umo/tensor.h>

/* A tensor that a formula may name; its index in the list is what a compiled formula refers to. */
typedef struct umo_expression_name {
    const char *name;
    uint32_t rank;
} umo_expression_name;

/* A number that a formula may name: known at load, so it is compiled in. */
typedef struct umo_expression_number {
    const char *name;
    int64_t value;
} umo_expression_number;

/* What names mean in a formula. */
typedef struct umo_expression_names {
    const umo_expression_name *tensors;
    size_t tensor_count;
    const umo_expression_number *numbers;
    size_t number_count;
} umo_expression_names;

#define UMO_EXPRESSION_TEXT_BYTES 128
#define UMO_EXPRESSION_STEPS_MAX 64u
#define UMO_EXPRESSION_DEPTH_MAX 16u

typedef enum umo_expression_op {
    UMO_EXPRESSION_CONSTANT,
    UMO_EXPRESSION_DIM,
    UMO_EXPRESSION_BATCH,
    UMO_EXPRESSION_ADD,
    UMO_EXPRESSION_SUBTRACT,
    UMO_EXPRESSION_MULTIPLY,
    UMO_EXPRESSION_DIVIDE,
    UMO_EXPRESSION_REMAINDER,
    UMO_EXPRESSION_NEGATE,
    UMO_EXPRESSION_MIN,
    UMO_EXPRESSION_MAX,
    UMO_EXPRESSION_CEIL
} umo_expression_op;

typedef struct umo_expression_step {
    uint8_t op;        /* umo_expression_op */
    uint8_t character; /* where it stands in the text, counted from 1 */
    uint16_t tensor;   /* DIM: index in the list of names */
    uint32_t dim;      /* DIM */
    int64_t constant;  /* CONSTANT */
} umo_expression_step;

/* A compiled formula. A plain value that owns nothing. */
typedef struct umo_expression {
    char text[UMO_EXPRESSION_TEXT_BYTES]; /* as written, for messages */
    uint32_t step_count;
    umo_expression_step steps[UMO_EXPRESSION_STEPS_MAX]; /* operands before their operator */
} umo_expression;

/*
 * Compiles a formula: integers, NAME[dim] ('NAME'[dim] for a name that is no identifier), batch,
 * named numbers, + - * / % and parentheses, min(a,b), max(a,b), and ceil(a,b), the quotient rounded
 * up.
 *
 * out is written only on success. INVAL with the character and the text.
 */
umo_status umo_expression_parse(const char *text, const umo_expression_names *names,
                                umo_expression *out, umo_error *error);

/* The formula for an integer. */
void umo_expression_init_constant(umo_expression *expression, int64_t value);

/*
 * shapes has one entry a name, of the rank that the name was given; batch is the number of rows.
 * INVAL on overflow and on division by 0, with the character and the text.
 */
umo_status umo_expression_eval(const umo_expression *expression, const umo_shape *shapes,
                               int64_t batch, int64_t *out, umo_error *error);

/* As umo_expression_eval(), for a value that must be 0 or more. */
umo_status umo_expression_eval_size(const umo_expression *expression, const umo_shape *shapes,
                                    int64_t batch, int64_t *out, umo_error *error);

/* True when all the dimensions it refers to are known (not negative) and it does not refer to the
 * batch. */
bool umo_expression_is_known(const umo_expression *expression, const umo_shape *shapes);

#endif
