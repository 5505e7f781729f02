/*
 * The compiler and the evaluator of size formulas. A recursive descent with a depth limit writes
 * the operations in the order in which a stack machine runs them; there is no tree and nothing to
 * free.
 */
#include "expression.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

UMO_STATIC_ASSERT(UMO_EXPRESSION_TEXT_BYTES <= UINT8_MAX, "a step holds its character in 8 bits");

typedef struct parser {
    const char *text;
    size_t at; /* next character, from 0 */
    uint32_t depth;
    const umo_expression_names *names;
    umo_expression *out;
    umo_error *error;
} parser;

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static void skip_spaces(parser *p)
{
    while (is_space(p->text[p->at])) {
        p->at++;
    }
}

/* The next character in a form that a message can hold. */
static const char *next_name(const parser *p, char text[16])
{
    unsigned char c = (unsigned char)p->text[p->at];
    if (c == '\0') {
        return "the end";
    }
    (void)snprintf(text, 16, c >= 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", c);
    return text;
}

static umo_status unexpected(parser *p, const char *wanted)
{
    char next[16];
    return umo_error_set(p->error, UMO_E_INVAL, 0,
                         "%s expected at character %zu, not %s, in \"%s\"", wanted, p->at + 1,
                         next_name(p, next), p->text);
}

static umo_status expect(parser *p, char c)
{
    const char wanted[] = {'\'', c, '\'', '\0'};
    skip_spaces(p);
    if (p->text[p->at] != c) {
        return unexpected(p, wanted);
    }
    p->at++;
    return UMO_OK;
}

static umo_status emit(parser *p, umo_expression_step step, umo_expression_op op, size_t at)
{
    if (p->out->step_count == UMO_EXPRESSION_STEPS_MAX) {
        return umo_error_set(p->error, UMO_E_INVAL, 0,
                             "more than %u values and operators in \"%s\"",
                             UMO_EXPRESSION_STEPS_MAX, p->text);
    }
    step.op = (uint8_t)op;
    step.character = (uint8_t)(at + 1);
    p->out->steps[p->out->step_count++] = step;
    return UMO_OK;
}

static umo_status parse_integer(parser *p, int64_t *out)
{
    const size_t start = p->at;
    int64_t value = 0;
    if (!is_digit(p->text[p->at])) {
        return unexpected(p, "an integer");
    }
    for (; is_digit(p->text[p->at]); p->at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, p->text[p->at] - '0', &value)) {
            return umo_error_set(p->error, UMO_E_INVAL, 0,
                                 "the integer at character %zu does not fit 63 bits in \"%s\"",
                                 start + 1, p->text);
        }
    }
    *out = value;
    return UMO_OK;
}

static bool is_name(const char *name, const char *word, size_t length)
{
    return strlen(name) == length && memcmp(name, word, length) == 0;
}

/* "[dim]" behind a tensor's name. */
static umo_status parse_dim(parser *p, const char *name, size_t length, size_t start)
{
    const umo_expression_name *tensors = p->names->tensors;
    size_t tensor = 0;
    while (tensor < p->names->tensor_count && !is_name(tensors[tensor].name, name, length)) {
        tensor++;
    }
    if (tensor == p->names->tensor_count) {
        return umo_error_set(p->error, UMO_E_INVAL, 0,
                             "unknown tensor '%.*s' at character %zu in \"%s\"", (int)length, name,
                             start + 1, p->text);
    }
    int64_t dim = 0;
    umo_status status = expect(p, '[');
    if (status != UMO_OK) {
        return status;
    }
    skip_spaces(p);
    const size_t at = p->at;
    status = parse_integer(p, &dim);
    if (status == UMO_OK) {
        status = expect(p, ']');
    }
    if (status != UMO_OK) {
        return status;
    }
    if (dim >= (int64_t)tensors[tensor].rank) {
        return umo_error_set(p->error, UMO_E_INVAL, 0,
                             "'%.*s' has %" PRIu32 " dimension(s), no number %" PRId64
                             ", at character %zu in \"%s\"",
                             (int)length, name, tensors[tensor].rank, dim, at + 1, p->text);
    }
    const umo_expression_step step = {.tensor = (uint16_t)tensor, .dim = (uint32_t)dim};
    return emit(p, step, UMO_EXPRESSION_DIM, start);
}

static umo_status parse_sum(parser *p);

/* "(a,b)" behind a function's name. */
static umo_status parse_call(parser *p, umo_expression_op op, size_t start)
{
    umo_status status = expect(p, '(');
    if (status == UMO_OK) {
        status = parse_sum(p);
    }
    if (status == UMO_OK) {
        status = expect(p, ',');
    }
    if (status == UMO_OK) {
        status = parse_sum(p);
    }
    if (status == UMO_OK) {
        status = expect(p, ')');
    }
    return status != UMO_OK ? status : emit(p, (umo_expression_step){0}, op, start);
}

/* What a word is follows from what stands behind it, so that a tensor may be called batch or min.
 */
static umo_status parse_word(parser *p)
{
    static const struct {
        const char *name;
        umo_expression_op op;
    } functions[] = {
        {"min", UMO_EXPRESSION_MIN}, {"max", UMO_EXPRESSION_MAX}, {"ceil", UMO_EXPRESSION_CEIL}};
    const size_t start = p->at;
    const char *name = p->text + start;
    while (is_word(p->text[p->at])) {
        p->at++;
    }
    const size_t length = p->at - start;
    skip_spaces(p);
    if (p->text[p->at] == '[') {
        return parse_dim(p, name, length, start);
    }
    if (p->text[p->at] == '(') {
        for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
            if (is_name(functions[i].name, name, length)) {
                return parse_call(p, functions[i].op, start);
            }
        }
        return umo_error_set(
            p->error, UMO_E_INVAL, 0,
            "unknown function '%.*s' at character %zu in \"%s\"; there are min, max and ceil",
            (int)length, name, start + 1, p->text);
    }
    if (is_name("batch", name, length)) {
        return emit(p, (umo_expression_step){0}, UMO_EXPRESSION_BATCH, start);
    }
    for (size_t i = 0; i < p->names->number_count; i++) {
        const umo_expression_number *number = &p->names->numbers[i];
        if (is_name(number->name, name, length)) {
            return emit(p, (umo_expression_step){.constant = number->value},
                        UMO_EXPRESSION_CONSTANT, start);
        }
    }
    return umo_error_set(p->error, UMO_E_INVAL, 0,
                         "'%.*s' at character %zu in \"%s\" is neither batch nor a tensor's "
                         "dimension, NAME[dim], nor a number of \"parameters\"",
                         (int)length, name, start + 1, p->text);
}

static umo_status parse_quoted(parser *p)
{
    const size_t start = p->at++;
    const char *name = p->text + p->at;
    while (p->text[p->at] != '\'' && p->text[p->at] != '\0') {
        p->at++;
    }
    const size_t length = (size_t)(p->text + p->at - name);
    umo_status status = expect(p, '\'');
    return status != UMO_OK ? status : parse_dim(p, name, length, start);
}

static umo_status parse_value(parser *p)
{
    skip_spaces(p);
    const size_t start = p->at;
    const char c = p->text[p->at];
    umo_status status;
    if (is_digit(c)) {
        int64_t value = 0;
        status = parse_integer(p, &value);
        return status != UMO_OK ? status
                                : emit(p, (umo_expression_step){.constant = value},
                                       UMO_EXPRESSION_CONSTANT, start);
    }
    if (is_word(c)) {
        return parse_word(p);
    }
    if (c == '\'') {
        return parse_quoted(p);
    }
    if (c == '-') {
        p->at++;
        if (p->depth == UMO_EXPRESSION_DEPTH_MAX) {
            return unexpected(p, "a value without another sign");
        }
        p->depth++;
        status = parse_value(p);
        p->depth--;
        return status != UMO_OK ? status
                                : emit(p, (umo_expression_step){0}, UMO_EXPRESSION_NEGATE, start);
    }
    if (c == '(') {
        p->at++;
        status = parse_sum(p);
        return status != UMO_OK ? status : expect(p, ')');
    }
    return unexpected(p, "a value");
}

static umo_status parse_product(parser *p)
{
    umo_status status = parse_value(p);
    while (status == UMO_OK) {
        skip_spaces(p);
        const size_t at = p->at;
        umo_expression_op op;
        switch (p->text[at]) {
        case '*':
            op = UMO_EXPRESSION_MULTIPLY;
            break;
        case '/':
            op = UMO_EXPRESSION_DIVIDE;
            break;
        case '%':
            op = UMO_EXPRESSION_REMAINDER;
            break;
        default:
            return UMO_OK;
        }
        p->at++;
        status = parse_value(p);
        if (status == UMO_OK) {
            status = emit(p, (umo_expression_step){0}, op, at);
        }
    }
    return status;
}

static umo_status parse_sum(parser *p)
{
    if (p->depth == UMO_EXPRESSION_DEPTH_MAX) {
        return umo_error_set(p->error, UMO_E_INVAL, 0,
                             "nested deeper than %u at character %zu in \"%s\"",
                             UMO_EXPRESSION_DEPTH_MAX, p->at + 1, p->text);
    }
    p->depth++;
    umo_status status = parse_product(p);
    while (status == UMO_OK) {
        skip_spaces(p);
        const size_t at = p->at;
        const char c = p->text[at];
        if (c != '+' && c != '-') {
            break;
        }
        p->at++;
        status = parse_product(p);
        if (status == UMO_OK) {
            status = emit(p, (umo_expression_step){0},
                          c == '+' ? UMO_EXPRESSION_ADD : UMO_EXPRESSION_SUBTRACT, at);
        }
    }
    p->depth--;
    return status;
}

umo_status umo_expression_parse(const char *text, const umo_expression_names *names,
                                umo_expression *out, umo_error *error)
{
    umo_expression made = {.step_count = 0};
    parser p = {.text = text, .names = names, .out = &made, .error = error};
    const size_t length = strlen(text);
    if (length >= sizeof made.text) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a formula of %zu characters is longer than the %zu that are allowed",
                             length, sizeof made.text - 1);
    }
    memcpy(made.text, text, length + 1);
    umo_status status = parse_sum(&p);
    if (status != UMO_OK) {
        return status;
    }
    if (text[p.at] != '\0') {
        return unexpected(&p, "an operator");
    }
    *out = made;
    return UMO_OK;
}

void umo_expression_init_constant(umo_expression *expression, int64_t value)
{
    *expression = (umo_expression){.step_count = 1};
    (void)snprintf(expression->text, sizeof expression->text, "%" PRId64, value);
    expression->steps[0] =
        (umo_expression_step){.op = UMO_EXPRESSION_CONSTANT, .character = 1, .constant = value};
}

/* One operator on its two operands (NEGATE: on b alone). False when the result does not exist. */
static bool apply(umo_expression_op op, int64_t a, int64_t b, int64_t *out, const char **why)
{
    *why = "does not fit 63 bits";
    switch (op) {
    case UMO_EXPRESSION_ADD:
        return !__builtin_add_overflow(a, b, out);
    case UMO_EXPRESSION_SUBTRACT:
        return !__builtin_sub_overflow(a, b, out);
    case UMO_EXPRESSION_NEGATE:
        return !__builtin_sub_overflow((int64_t)0, b, out);
    case UMO_EXPRESSION_MULTIPLY:
        return !__builtin_mul_overflow(a, b, out);
    case UMO_EXPRESSION_MIN:
        *out = a < b ? a : b;
        return true;
    case UMO_EXPRESSION_MAX:
        *out = a > b ? a : b;
        return true;
    case UMO_EXPRESSION_DIVIDE:
    case UMO_EXPRESSION_REMAINDER:
    case UMO_EXPRESSION_CEIL:
        if (b == 0) {
            *why = "divides by 0";
            return false;
        }
        /* The one quotient that does not fit; every remainder by -1 is 0. */
        if (b == -1) {
            *out = 0;
            return op == UMO_EXPRESSION_REMAINDER || !__builtin_sub_overflow((int64_t)0, a, out);
        }
        if (op == UMO_EXPRESSION_REMAINDER) {
            *out = a % b;
            return true;
        }
        /* C cuts towards 0; rounding up differs where operands of one sign leave a rest. */
        *out = a / b + (op == UMO_EXPRESSION_CEIL && a % b != 0 && (a < 0) == (b < 0));
        return true;
    case UMO_EXPRESSION_CONSTANT:
    case UMO_EXPRESSION_DIM:
    case UMO_EXPRESSION_BATCH:
        break;
    }
    *why = "is no operator";
    return false;
}

umo_status umo_expression_eval(const umo_expression *expression, const umo_shape *shapes,
                               int64_t batch, int64_t *out, umo_error *error)
{
    int64_t stack[UMO_EXPRESSION_STEPS_MAX] = {0};
    size_t height = 0;
    for (uint32_t i = 0; i < expression->step_count; i++) {
        const umo_expression_step *step = &expression->steps[i];
        const umo_expression_op op = (umo_expression_op)step->op;
        if (op == UMO_EXPRESSION_CONSTANT) {
            stack[height++] = step->constant;
        } else if (op == UMO_EXPRESSION_DIM) {
            stack[height++] = shapes[step->tensor].dims[step->dim];
        } else if (op == UMO_EXPRESSION_BATCH) {
            stack[height++] = batch;
        } else {
            const int64_t b = stack[--height];
            const int64_t a = op == UMO_EXPRESSION_NEGATE ? 0 : stack[--height];
            const char *why;
            if (!apply(op, a, b, &stack[height++], &why)) {
                return umo_error_set(error, UMO_E_INVAL, 0,
                                     "the value at character %u %s in \"%s\"", step->character, why,
                                     expression->text);
            }
        }
    }
    *out = stack[0];
    return UMO_OK;
}

umo_status umo_expression_eval_size(const umo_expression *expression, const umo_shape *shapes,
                                    int64_t batch, int64_t *out, umo_error *error)
{
    int64_t value = 0;
    umo_status status = umo_expression_eval(expression, shapes, batch, &value, error);
    if (status == UMO_OK && value < 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "\"%s\" is %" PRId64 ", a size is 0 or more",
                             expression->text, value);
    }
    if (status == UMO_OK) {
        *out = value;
    }
    return status;
}

bool umo_expression_is_known(const umo_expression *expression, const umo_shape *shapes)
{
    for (uint32_t i = 0; i < expression->step_count; i++) {
        const umo_expression_step *step = &expression->steps[i];
        if (step->op == UMO_EXPRESSION_BATCH ||
            (step->op == UMO_EXPRESSION_DIM && shapes[step->tensor].dims[step->dim] < 0)) {
            return false;
        }
    }
    return true;
}
