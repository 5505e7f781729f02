/*
 * The `kernel` parameter: JSON text to umo_description.
 *
 * A reader carries the place in the JSON that it is at, and every complaint goes through
 * complain(), which puts that place in front. Keys are closed lists: a misspelt key is named, never
 * ignored.
 */
#include "description.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHERE_BYTES 96

/* More than any device or kernel needs; an alignment above the smallest page would refuse tensors
 * that lie at the start of one. A file means the same on every machine, so this is no page size. */
#define ALIGN_MAX_BYTES 4096

typedef struct reader {
    const umo_description_tensors *tensors;
    umo_expression_name *names; /* inputs, then outputs */
    umo_description *out;
    umo_error *error;
} reader;

static umo_status complain(const reader *r, const char *where, const char *format, ...)
    UMO_PRINTF(3, 4);

static umo_status complain(const reader *r, const char *where, const char *format, ...)
{
    char text[UMO_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return umo_error_set(r->error, UMO_E_INVAL, 0, "parameter kernel: %s%s%s", where,
                         where[0] != '\0' ? ": " : "", text);
}

static umo_status no_memory(const reader *r)
{
    return umo_error_set(r->error, UMO_E_NOMEM, 0, "no memory for the description of a kernel");
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "of no type";
}

/* "arguments[2]" and "type" to "arguments[2].type". */
static const char *join(char out[WHERE_BYTES], const char *where, const char *key)
{
    (void)snprintf(out, WHERE_BYTES, "%.40s%s%.40s", where, where[0] != '\0' ? "." : "", key);
    return out;
}

static umo_status keys_check(const reader *r, const char *where, json_t *object,
                             const char *const *allowed)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (allowed[i] != NULL && strcmp(allowed[i], key) != 0) {
            i++;
        }
        if (allowed[i] != NULL) {
            continue;
        }
        char list[128] = "";
        size_t used = 0;
        for (i = 0; allowed[i] != NULL && used < sizeof list; i++) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "",
                                     allowed[i]);
        }
        return complain(r, where, "unknown key '%s'; allowed: %s", key, list);
    }
    return UMO_OK;
}

/* A non-empty string; NULL in *out when the key is absent. */
static umo_status read_text(const reader *r, const char *where, const json_t *object,
                            const char *key, const char **out)
{
    char place[WHERE_BYTES];
    const json_t *value = json_object_get(object, key);
    *out = NULL;
    if (value == NULL) {
        return UMO_OK;
    }
    if (!json_is_string(value)) {
        return complain(r, join(place, where, key), "a string is expected, not %s",
                        type_name(value));
    }
    if (json_string_length(value) == 0) {
        return complain(r, join(place, where, key), "the text is empty");
    }
    *out = json_string_value(value);
    return UMO_OK;
}

/* The name of a file in the version's folder. */
static umo_status read_file_name(const reader *r, const char *where, const json_t *object,
                                 const char *key, const char **out)
{
    char place[WHERE_BYTES];
    umo_status status = read_text(r, where, object, key, out);
    if (status == UMO_OK && *out != NULL && strchr(*out, '/') != NULL) {
        return complain(r, join(place, where, key),
                        "'%s' is no plain name: the file lies in the version's folder", *out);
    }
    return status;
}

static umo_status keep_text(const reader *r, const char *text, char **out)
{
    if (text == NULL) {
        return UMO_OK;
    }
    *out = strdup(text);
    return *out != NULL ? UMO_OK : no_memory(r);
}

/* A formula: a string, or an integer. The first name_count names may occur in it. */
static umo_status read_expression(const reader *r, const char *where, const json_t *value,
                                  size_t name_count, umo_expression *out)
{
    umo_error inner = {0};
    if (json_is_integer(value)) {
        const int64_t number = json_integer_value(value);
        if (number < 0) {
            return complain(r, where, "a size is 0 or more, not %" PRId64, number);
        }
        umo_expression_init_constant(out, number);
        return UMO_OK;
    }
    if (!json_is_string(value)) {
        return complain(r, where, "a formula (a string) or an integer is expected, not %s",
                        type_name(value));
    }
    if (umo_expression_parse(json_string_value(value), r->names, name_count, out, &inner) !=
        UMO_OK) {
        return complain(r, where, "%s", inner.text);
    }
    return UMO_OK;
}

static size_t find_tensor(const umo_io *list, size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(list[i].name, name) != 0) {
        i++;
    }
    return i;
}

static umo_status read_type(const reader *r, const char *where, const json_t *object,
                            umo_scalar_type *out)
{
    char place[WHERE_BYTES];
    char list[128] = "";
    const char *name;
    umo_status status = read_text(r, where, object, "type", &name);
    if (status != UMO_OK) {
        return status;
    }
    *out = name != NULL ? umo_scalar_parse(name) : UMO_SCALAR_COUNT;
    if (*out != UMO_SCALAR_COUNT) {
        return UMO_OK;
    }
    size_t used = 0;
    for (unsigned i = 0; i < UMO_SCALAR_COUNT; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "",
                                 umo_scalar_name((umo_scalar_type)i));
    }
    return name != NULL
               ? complain(r, join(place, where, "type"), "unknown type '%s'; known: %s", name, list)
               : complain(r, where, "\"type\" is missing: one of %s", list);
}

/* "input" and "output" arguments. */
static umo_status read_tensor(reader *r, const char *where, const json_t *object,
                              umo_argument *argument)
{
    char place[WHERE_BYTES];
    const bool input = argument->kind == UMO_ARGUMENT_INPUT;
    const char *key = input ? "input" : "output";
    const umo_io *list = input ? r->tensors->inputs : r->tensors->outputs;
    const size_t count = input ? r->tensors->input_count : r->tensors->output_count;
    const char *name;
    umo_status status = read_text(r, where, object, key, &name);
    if (status != UMO_OK) {
        return status;
    }
    argument->tensor = find_tensor(list, count, name);
    if (argument->tensor == count) {
        return complain(r, join(place, where, key), "the model has no %s '%s'", key, name);
    }
    for (size_t i = 0; i < r->out->argument_count; i++) {
        const umo_argument *other = &r->out->arguments[i];
        if (other->kind == argument->kind && other->tensor == argument->tensor) {
            return complain(r, join(place, where, key),
                            "%s '%s' is bound already by arguments[%zu]", key, name, i);
        }
    }
    const json_t *index = json_object_get(object, "index");
    if (index != NULL && !json_is_boolean(index)) {
        return complain(r, join(place, where, "index"), "true or false is expected, not %s",
                        type_name(index));
    }
    argument->index = json_is_true(index);
    const json_t *align = json_object_get(object, "align");
    if (align == NULL) {
        return UMO_OK;
    }
    if (!json_is_integer(align)) {
        return complain(r, join(place, where, "align"), "an integer is expected, not %s",
                        type_name(align));
    }
    const int64_t bytes = json_integer_value(align);
    if (bytes < 1 || bytes > ALIGN_MAX_BYTES || (bytes & (bytes - 1)) != 0) {
        return complain(r, join(place, where, "align"),
                        "%" PRId64 " is no power of two from 1 to %d", bytes, ALIGN_MAX_BYTES);
    }
    argument->align_bytes = (size_t)bytes;
    return UMO_OK;
}

/* {"shape": NAME, "dim": N, "type": T}: short for {"size": "NAME[N]", "type": T}, for any name. */
static umo_status read_shape(const reader *r, const char *where, const json_t *object,
                             umo_argument *argument)
{
    char place[WHERE_BYTES];
    const char *name = NULL;
    umo_status status = read_text(r, where, object, "shape", &name);
    if (status != UMO_OK) {
        return status;
    }
    assert(name != NULL);
    const size_t count = r->tensors->input_count + r->tensors->output_count;
    size_t tensor = 0;
    while (tensor < count && strcmp(r->names[tensor].name, name) != 0) {
        tensor++;
    }
    if (tensor == count) {
        return complain(r, join(place, where, "shape"), "the model has no tensor '%s'", name);
    }
    const json_t *dim = json_object_get(object, "dim");
    if (dim == NULL) {
        return complain(r, where, "\"dim\" is missing: which dimension of '%s'", name);
    }
    if (!json_is_integer(dim)) {
        return complain(r, join(place, where, "dim"), "an integer is expected, not %s",
                        type_name(dim));
    }
    const int64_t number = json_integer_value(dim);
    if (number < 0 || number >= (int64_t)r->names[tensor].rank) {
        return complain(r, join(place, where, "dim"),
                        "'%s' has %" PRIu32 " dimension(s), no number %" PRId64, name,
                        r->names[tensor].rank, number);
    }
    argument->kind = UMO_ARGUMENT_SIZE;
    argument->expression = (umo_expression){.step_count = 1};
    argument->expression.steps[0] = (umo_expression_step){.op = UMO_EXPRESSION_DIM,
                                                          .character = 1,
                                                          .tensor = (uint16_t)tensor,
                                                          .dim = (uint32_t)number};
    (void)snprintf(argument->expression.text, sizeof argument->expression.text,
                   "%.100s[%" PRId64 "]", name, number);
    return read_type(r, where, object, &argument->type);
}

static umo_status read_value(const reader *r, const char *where, const json_t *object,
                             umo_argument *argument)
{
    char place[WHERE_BYTES];
    umo_status status = read_type(r, where, object, &argument->type);
    if (status != UMO_OK) {
        return status;
    }
    const json_t *value = json_object_get(object, "value");
    const char *name = umo_scalar_name(argument->type);
    (void)join(place, where, "value");
    if (argument->type == UMO_SCALAR_FLOAT32 || argument->type == UMO_SCALAR_FLOAT64) {
        if (!json_is_number(value)) {
            return complain(r, place, "a number is expected, not %s", type_name(value));
        }
        const double number = json_number_value(value);
        argument->value = (umo_scalar){.f64 = number};
        if (argument->type == UMO_SCALAR_FLOAT32) {
            /* Rounding is what a literal in the kernel would do too; running over is not. */
            if (fabs(number) > (double)3.402823466e+38F) {
                return complain(r, place, "%g does not fit %s", number, name);
            }
            argument->value = (umo_scalar){.f32 = (float)number};
        }
        return UMO_OK;
    }
    if (!json_is_integer(value)) {
        return complain(r, place, "an integer is expected for %s, not %s", name, type_name(value));
    }
    if (!umo_scalar_from_integer(argument->type, json_integer_value(value), &argument->value)) {
        return complain(r, place, "%" PRId64 " does not fit %s", (int64_t)json_integer_value(value),
                        name);
    }
    return UMO_OK;
}

static umo_status read_weights_dims(const reader *r, const char *where, const json_t *list,
                                    umo_dtype dtype, size_t *out)
{
    umo_shape shape = {.rank = (uint32_t)json_array_size(list)};
    uint64_t bytes = 0;
    bool right = shape.rank >= 1 && shape.rank <= UMO_RANK_MAX;
    for (size_t i = 0; right && i < shape.rank; i++) {
        shape.dims[i] = json_integer_value(json_array_get(list, i));
        right = shape.dims[i] >= 1;
    }
    if (!right || umo_shape_bytes(&shape, dtype, &bytes) != UMO_OK || bytes > SIZE_MAX) {
        return complain(r, where, "1 to %u sizes of 1 or more are expected", UMO_RANK_MAX);
    }
    *out = (size_t)bytes;
    return UMO_OK;
}

static umo_status read_pattern(const reader *r, const char *where, const char *name,
                               umo_pattern *out)
{
    int found = UMO_PATTERN_UNKNOWN + 1;
    while (found < UMO_PATTERNS && strcmp(umo_pattern_name((umo_pattern)found), name) != 0) {
        found++;
    }
    *out = (umo_pattern)found;
    return found < UMO_PATTERNS
               ? UMO_OK
               : complain(r, where,
                          "cpu_dominant, gpu_dominant, balanced or streaming is expected");
}

/* {"weights": FILE, "dtype": T, "dims": [...], "offset": N, "pattern": P} */
static umo_status read_weights(reader *r, const char *where, const json_t *object,
                               umo_argument *argument)
{
    char place[WHERE_BYTES];
    const char *file = NULL;
    const char *type = NULL;
    const char *pattern = NULL;
    umo_status status = read_file_name(r, where, object, "weights", &file);
    if (status == UMO_OK) {
        status = read_text(r, where, object, "dtype", &type);
    }
    if (status == UMO_OK) {
        status = read_text(r, where, object, "pattern", &pattern);
    }
    if (status == UMO_OK && pattern != NULL) {
        status = read_pattern(r, join(place, where, "pattern"), pattern, &argument->pattern);
    }
    if (status != UMO_OK) {
        return status;
    }
    const umo_dtype dtype = type != NULL ? umo_dtype_parse(type) : UMO_DTYPE_INVALID;
    if (dtype == UMO_DTYPE_INVALID || dtype == UMO_BYTES) {
        return complain(r, join(place, where, "dtype"), "a type is expected, as FP32 or INT8");
    }
    const json_t *offset = json_object_get(object, "offset");
    const int64_t bytes = json_integer_value(offset);
    if (offset != NULL && (!json_is_integer(offset) || bytes < 0 || (uint64_t)bytes > SIZE_MAX ||
                           (uint64_t)bytes % umo_dtype_size(dtype) != 0)) {
        return complain(r, join(place, where, "offset"),
                        "a multiple of the element's %zu bytes is expected", umo_dtype_size(dtype));
    }
    status = read_weights_dims(r, join(place, where, "dims"), json_object_get(object, "dims"),
                               dtype, &argument->weights_bytes);
    argument->weights_offset_bytes = (size_t)bytes;
    argument->tensor = r->out->weights_count++;
    return status != UMO_OK ? status : keep_text(r, file, &argument->weights_file);
}

/* What an argument is follows from the one key of these that it has. */
typedef struct argument_form {
    const char *key;
    umo_argument_kind kind;
    const char *const *allowed;
} argument_form;

static const char *const input_keys[] = {"input", "index", "align", NULL};
static const char *const output_keys[] = {"output", "align", NULL};
static const char *const shape_keys[] = {"shape", "dim", "type", NULL};
static const char *const size_keys[] = {"size", "type", NULL};
static const char *const value_keys[] = {"value", "type", NULL};
static const char *const local_keys[] = {"local_bytes", NULL};
static const char *const weights_keys[] = {"weights", "dtype", "dims", "offset", "pattern", NULL};

static const argument_form argument_forms[] = {
    {"weights", UMO_ARGUMENT_WEIGHTS, weights_keys}, {"input", UMO_ARGUMENT_INPUT, input_keys},
    {"output", UMO_ARGUMENT_OUTPUT, output_keys},    {"shape", UMO_ARGUMENT_SIZE, shape_keys},
    {"size", UMO_ARGUMENT_SIZE, size_keys},          {"value", UMO_ARGUMENT_VALUE, value_keys},
    {"local_bytes", UMO_ARGUMENT_LOCAL, local_keys},
};

static umo_status read_argument(reader *r, const char *where, json_t *object,
                                umo_argument *argument)
{
    char place[WHERE_BYTES];
    const argument_form *form = NULL;
    if (!json_is_object(object)) {
        return complain(r, where, "an object is expected, not %s", type_name(object));
    }
    for (size_t i = 0; i < sizeof argument_forms / sizeof argument_forms[0]; i++) {
        if (json_object_get(object, argument_forms[i].key) == NULL) {
            continue;
        }
        if (form != NULL) {
            return complain(r, where, "has both \"%s\" and \"%s\"", form->key,
                            argument_forms[i].key);
        }
        form = &argument_forms[i];
    }
    if (form == NULL) {
        return complain(r, where,
                        "needs one of \"input\", \"output\", \"shape\", \"size\", \"value\", "
                        "\"local_bytes\", \"weights\"");
    }
    umo_status status = keys_check(r, where, object, form->allowed);
    if (status != UMO_OK) {
        return status;
    }
    *argument = (umo_argument){.kind = form->kind};
    const size_t name_count = r->tensors->input_count + r->tensors->output_count;
    switch (form->kind) {
    case UMO_ARGUMENT_INPUT:
    case UMO_ARGUMENT_OUTPUT:
        return read_tensor(r, where, object, argument);
    case UMO_ARGUMENT_SIZE:
        if (form->allowed == shape_keys) {
            return read_shape(r, where, object, argument);
        }
        status = read_expression(r, join(place, where, "size"), json_object_get(object, "size"),
                                 name_count, &argument->expression);
        return status != UMO_OK ? status : read_type(r, where, object, &argument->type);
    case UMO_ARGUMENT_VALUE:
        return read_value(r, where, object, argument);
    case UMO_ARGUMENT_LOCAL:
        return read_expression(r, join(place, where, "local_bytes"),
                               json_object_get(object, "local_bytes"), name_count,
                               &argument->expression);
    case UMO_ARGUMENT_WEIGHTS:
        return read_weights(r, where, object, argument);
    }
    return UMO_OK;
}

static umo_status read_arguments(reader *r, const json_t *root)
{
    char where[WHERE_BYTES];
    const json_t *list = json_object_get(root, "arguments");
    if (list == NULL) {
        return complain(r, "", "\"arguments\" is missing: the kernel's arguments in order");
    }
    if (!json_is_array(list)) {
        return complain(r, "arguments", "an array is expected, not %s", type_name(list));
    }
    if (json_array_size(list) > UMO_KERNEL_ARGS_MAX) {
        return complain(r, "arguments", "%zu of them; a kernel takes at most %u",
                        json_array_size(list), UMO_KERNEL_ARGS_MAX);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        (void)snprintf(where, sizeof where, "arguments[%zu]", i);
        umo_status status = read_argument(r, where, json_array_get(list, i), &r->out->arguments[i]);
        if (status != UMO_OK) {
            return status;
        }
        r->out->argument_count++;
    }
    return UMO_OK;
}

static bool is_bound(const umo_description *description, umo_argument_kind kind, size_t tensor)
{
    for (size_t i = 0; i < description->argument_count; i++) {
        if (description->arguments[i].kind == kind && description->arguments[i].tensor == tensor) {
            return true;
        }
    }
    return false;
}

/* A tensor that the kernel never sees is a mistake in one of the two lists. */
static umo_status bound_check(const reader *r)
{
    const umo_description_tensors *tensors = r->tensors;
    for (size_t i = 0; i < tensors->input_count; i++) {
        if (!is_bound(r->out, UMO_ARGUMENT_INPUT, i)) {
            return complain(r, "arguments", "no argument binds the model's input '%s'",
                            tensors->inputs[i].name);
        }
    }
    for (size_t i = 0; i < tensors->output_count; i++) {
        if (!is_bound(r->out, UMO_ARGUMENT_OUTPUT, i)) {
            return complain(r, "arguments", "no argument binds the model's output '%s'",
                            tensors->outputs[i].name);
        }
    }
    return UMO_OK;
}

/* "global_size" and "local_size": one to three formulas. 0 in *dimensions when absent. */
static umo_status read_grid(const reader *r, const json_t *root, const char *key,
                            uint32_t *dimensions, umo_expression out[3])
{
    char where[WHERE_BYTES];
    const json_t *list = json_object_get(root, key);
    *dimensions = 0;
    if (list == NULL) {
        return UMO_OK;
    }
    if (!json_is_array(list)) {
        return complain(r, key, "an array is expected, not %s", type_name(list));
    }
    const size_t count = json_array_size(list);
    if (count < 1 || count > 3) {
        return complain(r, key, "1 to 3 sizes are expected, not %zu", count);
    }
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(where, sizeof where, "%s[%zu]", key, i);
        umo_status status =
            read_expression(r, where, json_array_get(list, i),
                            r->tensors->input_count + r->tensors->output_count, &out[i]);
        if (status != UMO_OK) {
            return status;
        }
    }
    *dimensions = (uint32_t)count;
    return UMO_OK;
}

static umo_status read_grids(const reader *r, const json_t *root)
{
    uint32_t local = 0;
    umo_status status = read_grid(r, root, "global_size", &r->out->dimensions, r->out->global_size);
    if (status != UMO_OK) {
        return status;
    }
    if (r->out->dimensions == 0) {
        return complain(r, "", "\"global_size\" is missing: the number of work items");
    }
    status = read_grid(r, root, "local_size", &local, r->out->local_size);
    if (status != UMO_OK) {
        return status;
    }
    if (local != 0 && local != r->out->dimensions) {
        return complain(r, "local_size", "has %u sizes, but global_size has %u", local,
                        r->out->dimensions);
    }
    r->out->has_local_size = local != 0;
    return UMO_OK;
}

/* A size that is known now, against the one in the model's configuration. */
static umo_status dim_check(const reader *r, const char *where, const umo_expression *expression,
                            const umo_shape *shapes, int64_t configured)
{
    umo_error inner = {0};
    int64_t value;
    if (!umo_expression_is_known(expression, shapes)) {
        return UMO_OK;
    }
    if (umo_expression_eval_size(expression, shapes, 1, &value, &inner) != UMO_OK) {
        return complain(r, where, "%s", inner.text);
    }
    if (configured >= 0 && value != configured) {
        return complain(r, where,
                        "\"%s\" is %" PRId64 ", but the model's configuration says %" PRId64,
                        expression->text, value, configured);
    }
    return UMO_OK;
}

/* The formulas of one output. */
static umo_status read_output(const reader *r, size_t output, const json_t *list,
                              const umo_shape *input_shapes)
{
    char where[WHERE_BYTES];
    const umo_io *io = &r->tensors->outputs[output];
    umo_output_dims *dims = &r->out->outputs[output];
    (void)snprintf(where, sizeof where, "outputs.%.60s", io->name);
    if (!json_is_array(list)) {
        return complain(r, where, "an array is expected, not %s", type_name(list));
    }
    if (json_array_size(list) != io->dims.rank) {
        return complain(r, where, "%zu sizes, but the model's configuration has %" PRIu32,
                        json_array_size(list), io->dims.rank);
    }
    for (uint32_t i = 0; i < io->dims.rank; i++) {
        (void)snprintf(where, sizeof where, "outputs.%.60s[%" PRIu32 "]", io->name, i);
        umo_status status = read_expression(r, where, json_array_get(list, i),
                                            r->tensors->input_count, &dims->dims[i]);
        if (status == UMO_OK) {
            status = dim_check(r, where, &dims->dims[i], input_shapes, io->dims.dims[i]);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status read_outputs(const reader *r, const json_t *root, const umo_shape *input_shapes)
{
    const umo_description_tensors *tensors = r->tensors;
    const char *key;
    json_t *unused;
    json_t *given = json_object_get(root, "outputs");
    if (given != NULL && !json_is_object(given)) {
        return complain(r, "outputs", "an object is expected, not %s", type_name(given));
    }
    json_object_foreach(given, key, unused)
    {
        if (find_tensor(tensors->outputs, tensors->output_count, key) == tensors->output_count) {
            return complain(r, "outputs", "the model has no output '%s'", key);
        }
    }
    for (size_t i = 0; i < tensors->output_count; i++) {
        const umo_io *io = &tensors->outputs[i];
        umo_output_dims *dims = &r->out->outputs[i];
        const json_t *list = json_object_get(given, io->name);
        dims->rank = io->dims.rank;
        dims->dims = calloc(io->dims.rank > 0 ? io->dims.rank : 1, sizeof dims->dims[0]);
        if (dims->dims == NULL) {
            return no_memory(r);
        }
        if (list != NULL) {
            umo_status status = read_output(r, i, list, input_shapes);
            if (status != UMO_OK) {
                return status;
            }
            continue;
        }
        for (uint32_t d = 0; d < io->dims.rank; d++) {
            if (io->dims.dims[d] < 0) {
                return complain(r, "outputs",
                                "output '%s' has variable dimensions in the model's configuration: "
                                "say here how long each is, as \"%s\": [...]",
                                io->name, io->name);
            }
            umo_expression_init_constant(&dims->dims[d], io->dims.dims[d]);
        }
    }
    return UMO_OK;
}

static bool is_identifier(const char *text)
{
    if (text[0] >= '0' && text[0] <= '9') {
        return false;
    }
    return text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")] ==
           '\0';
}

static umo_status read_program(const reader *r, const json_t *root)
{
    const char *file;
    const char *function;
    const char *options;
    umo_status status = read_file_name(r, "", root, "file", &file);
    if (status == UMO_OK) {
        status = read_text(r, "", root, "function", &function);
    }
    if (status == UMO_OK) {
        status = read_text(r, "", root, "options", &options);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (function == NULL) {
        return complain(r, "", "\"function\" is missing: the kernel's name in the program");
    }
    if (!is_identifier(function)) {
        return complain(r, "function", "'%s' is no name of a function", function);
    }
    status = keep_text(r, file, &r->out->file);
    if (status == UMO_OK) {
        status = keep_text(r, function, &r->out->function);
    }
    return status != UMO_OK ? status : keep_text(r, options, &r->out->options);
}

static umo_status read_root(reader *r, json_t *root, const umo_shape *input_shapes)
{
    static const char *const keys[] = {"file",        "function",   "options", "arguments",
                                       "global_size", "local_size", "outputs", NULL};
    if (!json_is_object(root)) {
        return complain(r, "", "an object is expected, not %s", type_name(root));
    }
    umo_status status = keys_check(r, "", root, keys);
    if (status == UMO_OK) {
        status = read_program(r, root);
    }
    if (status == UMO_OK) {
        status = read_arguments(r, root);
    }
    if (status == UMO_OK) {
        status = read_grids(r, root);
    }
    if (status == UMO_OK) {
        status = read_outputs(r, root, input_shapes);
    }
    return status != UMO_OK ? status : bound_check(r);
}

umo_status umo_description_init(umo_description *out, const char *json,
                                const umo_description_tensors *tensors, umo_error *error)
{
    umo_status status = UMO_OK;
    const size_t count = tensors->input_count + tensors->output_count;
    umo_description *made = calloc(1, sizeof *made);
    umo_expression_name *names = calloc(count > 0 ? count : 1, sizeof *names);
    umo_shape *input_shapes =
        calloc(tensors->input_count > 0 ? tensors->input_count : 1, sizeof *input_shapes);
    reader r = {.tensors = tensors, .names = names, .out = made, .error = error};
    json_error_t place;
    json_t *root = NULL;
    if (made != NULL) {
        made->outputs =
            calloc(tensors->output_count > 0 ? tensors->output_count : 1, sizeof *made->outputs);
    }
    if (made == NULL || names == NULL || input_shapes == NULL || made->outputs == NULL) {
        status = no_memory(&r);
        goto done;
    }
    made->input_count = tensors->input_count;
    made->output_count = tensors->output_count;
    for (size_t i = 0; i < count; i++) {
        const umo_io *io = i < tensors->input_count ? &tensors->inputs[i]
                                                    : &tensors->outputs[i - tensors->input_count];
        names[i] = (umo_expression_name){.name = io->name, .rank = io->dims.rank};
        if (i < tensors->input_count) {
            input_shapes[i] = io->dims;
        }
    }
    root = json_loads(json, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &place);
    if (root == NULL) {
        status = complain(&r, "", "broken JSON at line %d, column %d: %.120s", place.line,
                          place.column, place.text);
        goto done;
    }
    status = read_root(&r, root, input_shapes);
    if (status == UMO_OK) {
        *out = *made;
        *made = (umo_description){0};
    }

done:
    json_decref(root);
    free(input_shapes);
    free(names);
    if (made != NULL) {
        umo_description_finish(made);
        free(made);
    }
    return status;
}

void umo_description_finish(umo_description *description)
{
    free(description->file);
    free(description->function);
    free(description->options);
    for (size_t i = 0; description->outputs != NULL && i < description->output_count; i++) {
        free(description->outputs[i].dims);
    }
    free(description->outputs);
    for (size_t i = 0; i < UMO_KERNEL_ARGS_MAX; i++) {
        free(description->arguments[i].weights_file);
    }
    *description = (umo_description){0};
}
