/*
 * A kernel's arguments: what each is follows from the one key of a list that it has.
 */
#include "reader.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any device or kernel needs; an alignment above the smallest page would refuse tensors
 * that lie at the start of one. A file means the same on every machine, so this is no page size. */
#define ALIGN_MAX_BYTES 4096

static umo_status read_type(const umo_reader *r, const char *where, const json_t *object,
                            umo_scalar_type *out)
{
    char place[UMO_WHERE_BYTES];
    char list[128] = "";
    const char *name;
    umo_status status = umo_reader_text(r, where, object, "type", &name);
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
    return name != NULL ? umo_reader_complain(r, umo_reader_join(place, where, "type"),
                                              "unknown type '%s'; known: %s", name, list)
                        : umo_reader_complain(r, where, "\"type\" is missing: one of %s", list);
}

/* What a kernel does with memory that it may write to. */
static umo_status read_use(const umo_reader *r, const char *where, const json_t *object,
                           umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const char *use;
    umo_status status = umo_reader_text(r, where, object, "use", &use);
    if (status != UMO_OK) {
        return status;
    }
    if (use == NULL && argument->kind == UMO_ARGUMENT_OUTPUT) {
        use = "write";
    }
    argument->reads = use != NULL && (strcmp(use, "read") == 0 || strcmp(use, "update") == 0);
    argument->writes = use != NULL && (strcmp(use, "write") == 0 || strcmp(use, "update") == 0);
    if (use != NULL && strcmp(use, "scratch") == 0 && argument->kind == UMO_ARGUMENT_INTERMEDIATE) {
        argument->writes = true;
        argument->scratch = true;
    }
    if (use == NULL) {
        return umo_reader_complain(r, where, "\"use\" is missing: write, read, update or scratch");
    }
    return argument->reads || argument->writes
               ? UMO_OK
               : umo_reader_complain(r, umo_reader_join(place, where, "use"),
                                     "'%s' is none of write, read, update%s", use,
                                     argument->kind == UMO_ARGUMENT_INTERMEDIATE ? " and scratch"
                                                                                 : "");
}

static umo_status read_align(const umo_reader *r, const char *where, const json_t *object,
                             size_t *out)
{
    char place[UMO_WHERE_BYTES];
    const json_t *align = json_object_get(object, "align");
    if (align == NULL) {
        return UMO_OK;
    }
    (void)umo_reader_join(place, where, "align");
    if (!json_is_integer(align)) {
        return umo_reader_complain(r, place, "an integer is expected, not %s",
                                   umo_reader_type_name(align));
    }
    const int64_t bytes = json_integer_value(align);
    if (bytes < 1 || bytes > ALIGN_MAX_BYTES || (bytes & (bytes - 1)) != 0) {
        return umo_reader_complain(r, place, "%" PRId64 " is no power of two from 1 to %d", bytes,
                                   ALIGN_MAX_BYTES);
    }
    *out = (size_t)bytes;
    return UMO_OK;
}

static size_t find_intermediate(const umo_description *description, const char *name)
{
    size_t i = 0;
    while (i < description->intermediate_count &&
           strcmp(description->intermediates[i].name, name) != 0) {
        i++;
    }
    return i;
}

/* "input", "output" and "intermediate" arguments. */
static umo_status read_tensor(const umo_reader *r, const char *where, const json_t *object,
                              const umo_stage *stage, const char *key, umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const umo_description_tensors *model = r->model;
    const char *name;
    size_t count = r->out->intermediate_count;
    umo_status status = umo_reader_text(r, where, object, key, &name);
    if (status != UMO_OK) {
        return status;
    }
    if (argument->kind == UMO_ARGUMENT_INTERMEDIATE) {
        argument->tensor = find_intermediate(r->out, name);
    } else if (argument->kind == UMO_ARGUMENT_INPUT) {
        count = model->input_count;
        argument->tensor = umo_reader_find(model->inputs, count, name);
    } else {
        count = model->output_count;
        argument->tensor = umo_reader_find(model->outputs, count, name);
    }
    if (argument->tensor == count) {
        return umo_reader_complain(r, umo_reader_join(place, where, key),
                                   "the model has no %s '%s'", key, name);
    }
    for (size_t i = 0; i < stage->argument_count; i++) {
        const umo_argument *other = &stage->arguments[i];
        if (other->kind == argument->kind && other->tensor == argument->tensor) {
            return umo_reader_complain(r, umo_reader_join(place, where, key),
                                       "%s '%s' is bound already by arguments[%zu]", key, name, i);
        }
    }
    status = umo_reader_bool(r, where, object, "index", &argument->index);
    if (status == UMO_OK) {
        status = read_align(r, where, object, &argument->align_bytes);
    }
    if (status == UMO_OK) {
        status = umo_reader_bool(r, where, object, "overwrites", &argument->overwrites);
    }
    if (status == UMO_OK && argument->overwrites && !model->outputs[argument->tensor].state) {
        return umo_reader_complain(r, umo_reader_join(place, where, "overwrites"),
                                   "output '%s' is no state of a sequence", name);
    }
    return status != UMO_OK || argument->kind == UMO_ARGUMENT_INPUT
               ? status
               : read_use(r, where, object, argument);
}

/* {"present": NAME, "type": T} */
static umo_status read_present(const umo_reader *r, const char *where, const json_t *object,
                               umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const char *name;
    umo_status status = umo_reader_text(r, where, object, "present", &name);
    if (status != UMO_OK) {
        return status;
    }
    const size_t count = r->model->input_count;
    (void)umo_reader_join(place, where, "present");
    argument->tensor = umo_reader_find(r->model->inputs, count, name);
    if (argument->tensor == count) {
        return umo_reader_complain(r, place, "the model has no input '%s'", name);
    }
    if (!r->model->inputs[argument->tensor].optional) {
        return umo_reader_complain(r, place, "input '%s' is not optional, so it is always there",
                                   name);
    }
    r->out->flagged[argument->tensor] = true;
    return read_type(r, where, object, &argument->type);
}

/* {"shape": NAME, "dim": N, "type": T}: short for {"size": "NAME[N]", "type": T}, for any name. */
static umo_status read_shape(const umo_reader *r, const char *where, const json_t *object,
                             umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const char *name = NULL;
    umo_status status = umo_reader_text(r, where, object, "shape", &name);
    if (status != UMO_OK) {
        return status;
    }
    assert(name != NULL);
    size_t tensor = 0;
    while (tensor < r->tensor_count && strcmp(r->tensors[tensor].name, name) != 0) {
        tensor++;
    }
    if (tensor == r->tensor_count) {
        return umo_reader_complain(r, umo_reader_join(place, where, "shape"),
                                   "the model has no tensor '%s'", name);
    }
    const json_t *dim = json_object_get(object, "dim");
    if (dim == NULL) {
        return umo_reader_complain(r, where, "\"dim\" is missing: which dimension of '%s'", name);
    }
    if (!json_is_integer(dim)) {
        return umo_reader_complain(r, umo_reader_join(place, where, "dim"),
                                   "an integer is expected, not %s", umo_reader_type_name(dim));
    }
    const int64_t number = json_integer_value(dim);
    if (number < 0 || number >= (int64_t)r->tensors[tensor].rank) {
        return umo_reader_complain(r, umo_reader_join(place, where, "dim"),
                                   "'%s' has %" PRIu32 " dimension(s), no number %" PRId64, name,
                                   r->tensors[tensor].rank, number);
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

static bool is_float(umo_scalar_type type)
{
    return type == UMO_SCALAR_FLOAT32 || type == UMO_SCALAR_FLOAT64;
}

/* A real number into a scalar of a floating type. */
static umo_status keep_real(const umo_reader *r, const char *place, double number,
                            umo_argument *argument)
{
    argument->value = (umo_scalar){.f64 = number};
    if (argument->type == UMO_SCALAR_FLOAT32) {
        /* Rounding is what a literal in the kernel would do too; running over is not. */
        if (fabs(number) > (double)3.402823466e+38F) {
            return umo_reader_complain(r, place, "%g does not fit %s", number,
                                       umo_scalar_name(argument->type));
        }
        argument->value = (umo_scalar){.f32 = (float)number};
    }
    return UMO_OK;
}

static umo_status keep_integer(const umo_reader *r, const char *place, int64_t number,
                               umo_argument *argument)
{
    return umo_scalar_from_integer(argument->type, number, &argument->value)
               ? UMO_OK
               : umo_reader_complain(r, place, "%" PRId64 " does not fit %s", number,
                                     umo_scalar_name(argument->type));
}

static umo_status read_value(const umo_reader *r, const char *where, const json_t *object,
                             umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    umo_status status = read_type(r, where, object, &argument->type);
    if (status != UMO_OK) {
        return status;
    }
    const json_t *value = json_object_get(object, "value");
    (void)umo_reader_join(place, where, "value");
    if (is_float(argument->type)) {
        return json_is_number(value) ? keep_real(r, place, json_number_value(value), argument)
                                     : umo_reader_complain(r, place, "a number is expected, not %s",
                                                           umo_reader_type_name(value));
    }
    if (!json_is_integer(value)) {
        return umo_reader_complain(r, place, "an integer is expected for %s, not %s",
                                   umo_scalar_name(argument->type), umo_reader_type_name(value));
    }
    return keep_integer(r, place, json_integer_value(value), argument);
}

/* {"parameter": KEY, "type": T}: a number among the model's own parameters. */
static umo_status read_parameter(const umo_reader *r, const char *where, const json_t *object,
                                 umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const char *key;
    char *end = NULL;
    umo_status status = umo_reader_text(r, where, object, "parameter", &key);
    if (status == UMO_OK) {
        status = read_type(r, where, object, &argument->type);
    }
    if (status != UMO_OK) {
        return status;
    }
    (void)umo_reader_join(place, where, "parameter");
    if (!is_float(argument->type)) {
        int64_t number = 0;
        status = umo_reader_parameter(r, place, key, &number);
        return status != UMO_OK ? status : keep_integer(r, place, number, argument);
    }
    const char *text =
        r->model->parameter != NULL ? r->model->parameter(r->model->user, key) : NULL;
    if (text == NULL) {
        return umo_reader_complain(r, place, "the model has no parameter '%s'", key);
    }
    const double number = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(number)) {
        return umo_reader_complain(r, place, "parameter '%s' is '%.40s', which is no number", key,
                                   text);
    }
    return keep_real(r, place, number, argument);
}

static umo_status read_weights_dims(const umo_reader *r, const char *where, const json_t *list,
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
        return umo_reader_complain(r, where, "1 to %u sizes of 1 or more are expected",
                                   UMO_RANK_MAX);
    }
    *out = (size_t)bytes;
    return UMO_OK;
}

static umo_status read_pattern(const umo_reader *r, const char *where, const char *name,
                               umo_pattern *out)
{
    int found = UMO_PATTERN_UNKNOWN + 1;
    while (found < UMO_PATTERNS && strcmp(umo_pattern_name((umo_pattern)found), name) != 0) {
        found++;
    }
    *out = (umo_pattern)found;
    return found < UMO_PATTERNS
               ? UMO_OK
               : umo_reader_complain(
                     r, where, "cpu_dominant, gpu_dominant, balanced or streaming is expected");
}

/* {"weights": FILE, "dtype": T, "dims": [...], "offset": N, "pattern": P} */
static umo_status read_weights(umo_reader *r, const char *where, const json_t *object,
                               umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const char *file = NULL;
    const char *pattern = NULL;
    umo_dtype dtype = UMO_DTYPE_INVALID;
    umo_status status = umo_reader_file(r, where, object, "weights", &file);
    if (status == UMO_OK) {
        status = umo_reader_text(r, where, object, "pattern", &pattern);
    }
    if (status == UMO_OK && pattern != NULL) {
        status =
            read_pattern(r, umo_reader_join(place, where, "pattern"), pattern, &argument->pattern);
    }
    if (status != UMO_OK) {
        return status;
    }
    status = umo_reader_dtype(r, where, object, &dtype);
    if (status == UMO_OK) {
        status = umo_reader_bool(r, where, object, "private", &argument->weights_private);
    }
    if (status != UMO_OK) {
        return status;
    }
    const json_t *offset = json_object_get(object, "offset");
    const int64_t bytes = json_integer_value(offset);
    if (offset != NULL && (!json_is_integer(offset) || bytes < 0 || (uint64_t)bytes > SIZE_MAX ||
                           (uint64_t)bytes % umo_dtype_size(dtype) != 0)) {
        return umo_reader_complain(r, umo_reader_join(place, where, "offset"),
                                   "a multiple of the element's %zu bytes is expected",
                                   umo_dtype_size(dtype));
    }
    status = read_weights_dims(r, umo_reader_join(place, where, "dims"),
                               json_object_get(object, "dims"), dtype, &argument->weights_bytes);
    argument->weights_offset_bytes = (size_t)bytes;
    argument->tensor = r->out->weights_count++;
    return status != UMO_OK ? status : umo_reader_keep(r, file, &argument->weights_file);
}

/* What an argument is follows from the one key of these that it has. */
typedef struct argument_form {
    const char *key;
    umo_argument_kind kind;
    const char *const *allowed;
} argument_form;

static const char *const input_keys[] = {"input", "index", "align", NULL};
static const char *const output_keys[] = {"output", "use", "align", "overwrites", NULL};
static const char *const intermediate_keys[] = {"intermediate", "use", NULL};
static const char *const shape_keys[] = {"shape", "dim", "type", NULL};
static const char *const size_keys[] = {"size", "type", NULL};
static const char *const value_keys[] = {"value", "type", NULL};
static const char *const parameter_keys[] = {"parameter", "type", NULL};
static const char *const present_keys[] = {"present", "type", NULL};
static const char *const local_keys[] = {"local_bytes", NULL};
static const char *const weights_keys[] = {"weights", "dtype",   "dims", "offset",
                                           "pattern", "private", NULL};

static const argument_form argument_forms[] = {
    {"weights", UMO_ARGUMENT_WEIGHTS, weights_keys},
    {"input", UMO_ARGUMENT_INPUT, input_keys},
    {"output", UMO_ARGUMENT_OUTPUT, output_keys},
    {"intermediate", UMO_ARGUMENT_INTERMEDIATE, intermediate_keys},
    {"shape", UMO_ARGUMENT_SIZE, shape_keys},
    {"size", UMO_ARGUMENT_SIZE, size_keys},
    {"value", UMO_ARGUMENT_VALUE, value_keys},
    {"parameter", UMO_ARGUMENT_VALUE, parameter_keys},
    {"present", UMO_ARGUMENT_PRESENT, present_keys},
    {"local_bytes", UMO_ARGUMENT_LOCAL, local_keys},
};

/* The form that an argument has; NULL, and why in the error, if it has none or two. */
static const argument_form *find_form(const umo_reader *r, const char *where, const json_t *object)
{
    const argument_form *form = NULL;
    if (!json_is_object(object)) {
        (void)umo_reader_complain(r, where, "an object is expected, not %s",
                                  umo_reader_type_name(object));
        return NULL;
    }
    for (size_t i = 0; i < sizeof argument_forms / sizeof argument_forms[0]; i++) {
        if (json_object_get(object, argument_forms[i].key) == NULL) {
            continue;
        }
        if (form != NULL) {
            (void)umo_reader_complain(r, where, "has both \"%s\" and \"%s\"", form->key,
                                      argument_forms[i].key);
            return NULL;
        }
        form = &argument_forms[i];
    }
    if (form == NULL) {
        (void)umo_reader_complain(r, where,
                                  "needs one of \"input\", \"output\", \"intermediate\", "
                                  "\"shape\", \"size\", \"value\", \"parameter\", "
                                  "\"present\", \"local_bytes\", \"weights\"");
    }
    return form;
}

static umo_status read_argument(umo_reader *r, const char *where, json_t *object,
                                const umo_stage *stage, umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    const argument_form *form = find_form(r, where, object);
    if (form == NULL) {
        return UMO_E_INVAL;
    }
    umo_status status = umo_reader_keys(r, where, object, form->allowed);
    if (status != UMO_OK) {
        return status;
    }
    *argument = (umo_argument){.kind = form->kind};
    switch (form->kind) {
    case UMO_ARGUMENT_INPUT:
    case UMO_ARGUMENT_OUTPUT:
    case UMO_ARGUMENT_INTERMEDIATE:
        return read_tensor(r, where, object, stage, form->key, argument);
    case UMO_ARGUMENT_SIZE:
        if (form->allowed == shape_keys) {
            return read_shape(r, where, object, argument);
        }
        status = umo_reader_formula(r, umo_reader_join(place, where, "size"),
                                    json_object_get(object, "size"), &argument->expression);
        return status != UMO_OK ? status : read_type(r, where, object, &argument->type);
    case UMO_ARGUMENT_VALUE:
        return form->allowed == value_keys ? read_value(r, where, object, argument)
                                           : read_parameter(r, where, object, argument);
    case UMO_ARGUMENT_PRESENT:
        return read_present(r, where, object, argument);
    case UMO_ARGUMENT_LOCAL:
        return umo_reader_formula(r, umo_reader_join(place, where, "local_bytes"),
                                  json_object_get(object, "local_bytes"), &argument->expression);
    case UMO_ARGUMENT_WEIGHTS:
        return read_weights(r, where, object, argument);
    }
    return UMO_OK;
}

umo_status umo_reader_arguments(umo_reader *r, const char *where, const json_t *kernel,
                                umo_stage *stage)
{
    char place[UMO_WHERE_BYTES];
    const json_t *list = json_object_get(kernel, "arguments");
    if (list == NULL) {
        return umo_reader_complain(r, where,
                                   "\"arguments\" is missing: the kernel's arguments in order");
    }
    (void)umo_reader_join(place, where, "arguments");
    if (!json_is_array(list)) {
        return umo_reader_complain(r, place, "an array is expected, not %s",
                                   umo_reader_type_name(list));
    }
    const size_t count = json_array_size(list);
    if (count > UMO_KERNEL_ARGS_MAX) {
        return umo_reader_complain(r, place, "%zu of them; a kernel takes at most %u", count,
                                   UMO_KERNEL_ARGS_MAX);
    }
    stage->arguments = calloc(count > 0 ? count : 1, sizeof stage->arguments[0]);
    if (stage->arguments == NULL) {
        return umo_reader_no_memory(r);
    }
    for (size_t i = 0; i < count; i++) {
        umo_status status = read_argument(r, umo_reader_join_at(place, where, "arguments", i),
                                          json_array_get(list, i), stage, &stage->arguments[i]);
        /* Counted also when it is wrong: what it holds already is freed with the others. */
        stage->argument_count++;
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}
