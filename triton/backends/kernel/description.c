/*
 * The `kernel` parameter: JSON text to umo_description. This file reads what belongs to the model
 * as a whole and to each kernel; arguments.c reads arguments, flow.c checks who writes and reads
 * what.
 *
 * Names come into being in the order parameters, intermediates, kernels, so that a formula can only
 * name what is known by then.
 */
#include "reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any kernel needs. */
#define PARAMETERS_MAX 16u

/* "global_size" and "local_size": one to three formulas. 0 in *dimensions when absent. */
static umo_status read_grid(const umo_reader *r, const char *where, const json_t *kernel,
                            const char *key, uint32_t *dimensions, umo_expression out[3])
{
    char place[UMO_WHERE_BYTES];
    const json_t *list = json_object_get(kernel, key);
    *dimensions = 0;
    if (list == NULL) {
        return UMO_OK;
    }
    (void)umo_reader_join(place, where, key);
    if (!json_is_array(list)) {
        return umo_reader_complain(r, place, "an array is expected, not %s",
                                   umo_reader_type_name(list));
    }
    const size_t count = json_array_size(list);
    if (count < 1 || count > 3) {
        return umo_reader_complain(r, place, "1 to 3 sizes are expected, not %zu", count);
    }
    for (size_t i = 0; i < count; i++) {
        umo_status status = umo_reader_formula(r, umo_reader_join_at(place, where, key, i),
                                               json_array_get(list, i), &out[i]);
        if (status != UMO_OK) {
            return status;
        }
    }
    *dimensions = (uint32_t)count;
    return UMO_OK;
}

static umo_status read_grids(const umo_reader *r, const char *where, const json_t *kernel,
                             umo_stage *stage)
{
    char place[UMO_WHERE_BYTES];
    uint32_t local = 0;
    umo_status status =
        read_grid(r, where, kernel, "global_size", &stage->dimensions, stage->global_size);
    if (status != UMO_OK) {
        return status;
    }
    if (stage->dimensions == 0) {
        return umo_reader_complain(r, where,
                                   "\"global_size\" is missing: the number of work items");
    }
    status = read_grid(r, where, kernel, "local_size", &local, stage->local_size);
    if (status != UMO_OK) {
        return status;
    }
    if (local != 0 && local != stage->dimensions) {
        return umo_reader_complain(r, umo_reader_join(place, where, "local_size"),
                                   "has %u sizes, but global_size has %u", local,
                                   stage->dimensions);
    }
    stage->has_local_size = local != 0;
    return UMO_OK;
}

/* Which function of which program. What a kernel does not say is what the whole says. */
static umo_status read_program(const umo_reader *r, const char *where, const json_t *kernel,
                               const json_t *root, umo_stage *stage)
{
    char place[UMO_WHERE_BYTES];
    const char *file;
    const char *function;
    const char *options;
    umo_status status = umo_reader_file(r, where, kernel, "file", &file);
    if (status == UMO_OK && file == NULL) {
        status = umo_reader_file(r, "", root, "file", &file);
    }
    if (status == UMO_OK) {
        status = umo_reader_text(r, where, kernel, "function", &function);
    }
    if (status == UMO_OK) {
        status = umo_reader_text(r, where, kernel, "options", &options);
    }
    if (status == UMO_OK && options == NULL) {
        status = umo_reader_text(r, "", root, "options", &options);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (function == NULL) {
        return umo_reader_complain(r, where,
                                   "\"function\" is missing: the kernel's name in the program");
    }
    if (!umo_reader_is_identifier(function)) {
        return umo_reader_complain(r, umo_reader_join(place, where, "function"),
                                   "'%s' is no name of a function", function);
    }
    status = umo_reader_keep(r, file, &stage->file);
    if (status == UMO_OK) {
        status = umo_reader_keep(r, function, &stage->function);
    }
    return status != UMO_OK ? status : umo_reader_keep(r, options, &stage->options);
}

static umo_status read_stage(umo_reader *r, const char *where, json_t *kernel, const json_t *root,
                             umo_stage *stage)
{
    umo_status status = read_program(r, where, kernel, root, stage);
    if (status == UMO_OK) {
        status = umo_reader_arguments(r, where, kernel, stage);
    }
    return status != UMO_OK ? status : read_grids(r, where, kernel, stage);
}

/* "kernels", or the one kernel that the root itself describes. */
static umo_status read_stages(umo_reader *r, json_t *root)
{
    static const char *const keys[] = {"file",        "function",   "options", "arguments",
                                       "global_size", "local_size", NULL};
    static const char *const of_a_kernel[] = {"function", "arguments", "global_size", "local_size"};
    char where[UMO_WHERE_BYTES];
    const json_t *list = json_object_get(root, "kernels");
    const size_t count = list != NULL ? json_array_size(list) : 1;
    if (list != NULL && !json_is_array(list)) {
        return umo_reader_complain(r, "kernels", "an array is expected, not %s",
                                   umo_reader_type_name(list));
    }
    if (count < 1 || count > UMO_STAGES_MAX) {
        return umo_reader_complain(r, "kernels", "1 to %u kernels are expected, not %zu",
                                   UMO_STAGES_MAX, count);
    }
    for (size_t i = 0; list != NULL && i < sizeof of_a_kernel / sizeof of_a_kernel[0]; i++) {
        if (json_object_get(root, of_a_kernel[i]) != NULL) {
            return umo_reader_complain(r, of_a_kernel[i],
                                       "beside \"kernels\" it belongs into one of them");
        }
    }
    r->out->listed = list != NULL;
    r->out->stages = calloc(count, sizeof r->out->stages[0]);
    if (r->out->stages == NULL) {
        return umo_reader_no_memory(r);
    }
    r->out->stage_count = count;
    if (list == NULL) {
        return read_stage(r, "", root, root, &r->out->stages[0]);
    }
    for (size_t i = 0; i < count; i++) {
        json_t *kernel = json_array_get(list, i);
        (void)umo_reader_join_at(where, "", "kernels", i);
        if (!json_is_object(kernel)) {
            return umo_reader_complain(r, where, "an object is expected, not %s",
                                       umo_reader_type_name(kernel));
        }
        umo_status status = umo_reader_keys(r, where, kernel, keys);
        if (status == UMO_OK) {
            status = read_stage(r, where, kernel, root, &r->out->stages[i]);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

/* "parameters": which of the model's parameters are numbers that formulas may name. */
static umo_status read_parameters(umo_reader *r, const json_t *root)
{
    char where[UMO_WHERE_BYTES];
    const json_t *list = json_object_get(root, "parameters");
    if (list != NULL && !json_is_array(list)) {
        return umo_reader_complain(r, "parameters", "an array is expected, not %s",
                                   umo_reader_type_name(list));
    }
    const size_t count = json_array_size(list);
    if (count > PARAMETERS_MAX) {
        return umo_reader_complain(r, "parameters", "%zu of them; at most %u are possible", count,
                                   PARAMETERS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *name = json_array_get(list, i);
        umo_expression_number *number = &r->numbers[i];
        (void)umo_reader_join_at(where, "", "parameters", i);
        if (!json_is_string(name)) {
            return umo_reader_complain(r, where, "a string is expected, not %s",
                                       umo_reader_type_name(name));
        }
        number->name = json_string_value(name);
        if (!umo_reader_is_identifier(number->name) || strcmp(number->name, "batch") == 0) {
            return umo_reader_complain(r, where, "'%s' is no name that a formula could have",
                                       number->name);
        }
        umo_status status = umo_reader_parameter(r, where, number->name, &number->value);
        if (status != UMO_OK) {
            return status;
        }
        r->number_count++;
    }
    return UMO_OK;
}

static umo_status read_intermediate(umo_reader *r, const char *name, json_t *object,
                                    umo_intermediate *out)
{
    static const char *const keys[] = {"dtype", "dims", "clear", NULL};
    char where[UMO_WHERE_BYTES];
    char place[UMO_WHERE_BYTES];
    (void)umo_reader_join(where, "intermediates", name);
    for (size_t i = 0; i < r->tensor_count; i++) {
        if (strcmp(r->tensors[i].name, name) == 0) {
            return umo_reader_complain(r, where, "the model has an input or output of that name");
        }
    }
    if (!json_is_object(object)) {
        return umo_reader_complain(r, where, "an object is expected, not %s",
                                   umo_reader_type_name(object));
    }
    umo_status status = umo_reader_keys(r, where, object, keys);
    if (status == UMO_OK) {
        status = umo_reader_dtype(r, where, object, &out->dtype);
    }
    if (status == UMO_OK) {
        status = umo_reader_bool(r, where, object, "clear", &out->clear);
    }
    if (status == UMO_OK) {
        status = umo_reader_keep(r, name, &out->name);
    }
    if (status != UMO_OK) {
        return status;
    }
    const json_t *list = json_object_get(object, "dims");
    const size_t rank = json_array_size(list);
    if (rank < 1 || rank > UMO_RANK_MAX) {
        return umo_reader_complain(r, umo_reader_join(place, where, "dims"),
                                   "1 to %u formulas are expected", UMO_RANK_MAX);
    }
    out->dims.dims = calloc(rank, sizeof out->dims.dims[0]);
    if (out->dims.dims == NULL) {
        return umo_reader_no_memory(r);
    }
    out->dims.rank = (uint32_t)rank;
    for (size_t i = 0; i < rank && status == UMO_OK; i++) {
        status = umo_reader_formula(r, umo_reader_join_at(place, where, "dims", i),
                                    json_array_get(list, i), &out->dims.dims[i]);
    }
    return status;
}

/* "intermediates", in the order of the text: each may name those before it. */
static umo_status read_intermediates(umo_reader *r, json_t *root)
{
    const char *name;
    json_t *value;
    json_t *given = json_object_get(root, "intermediates");
    if (given != NULL && !json_is_object(given)) {
        return umo_reader_complain(r, "intermediates", "an object is expected, not %s",
                                   umo_reader_type_name(given));
    }
    const size_t count = json_object_size(given);
    if (count > UMO_INTERMEDIATES_MAX) {
        return umo_reader_complain(r, "intermediates", "%zu of them; at most %u are possible",
                                   count, UMO_INTERMEDIATES_MAX);
    }
    r->out->intermediates = calloc(count > 0 ? count : 1, sizeof r->out->intermediates[0]);
    if (r->out->intermediates == NULL) {
        return umo_reader_no_memory(r);
    }
    json_object_foreach(given, name, value)
    {
        umo_intermediate *made = &r->out->intermediates[r->out->intermediate_count];
        /* Counted also when it is wrong: what it holds already is freed with the others. */
        r->out->intermediate_count++;
        umo_status status = read_intermediate(r, name, value, made);
        if (status != UMO_OK) {
            return status;
        }
        r->tensors[r->tensor_count++] =
            (umo_expression_name){.name = made->name, .rank = made->dims.rank};
    }
    return UMO_OK;
}

/* A size that is known now, against the one in the model's configuration. */
static umo_status dim_check(const umo_reader *r, const char *where,
                            const umo_expression *expression, const umo_shape *shapes,
                            int64_t configured)
{
    umo_error inner = {0};
    int64_t value;
    if (!umo_expression_is_known(expression, shapes)) {
        return UMO_OK;
    }
    if (umo_expression_eval_size(expression, shapes, 1, &value, &inner) != UMO_OK) {
        return umo_reader_complain(r, where, "%s", inner.text);
    }
    if (configured >= 0 && value != configured) {
        return umo_reader_complain(
            r, where, "\"%s\" is %" PRId64 ", but the model's configuration says %" PRId64,
            expression->text, value, configured);
    }
    return UMO_OK;
}

/* The formulas of one output. */
static umo_status read_output(const umo_reader *r, size_t output, const json_t *list,
                              const umo_shape *input_shapes)
{
    char where[UMO_WHERE_BYTES];
    const umo_io *io = &r->model->outputs[output];
    const umo_shape configured = umo_description_dims(io);
    umo_formula_dims *dims = &r->out->outputs[output];
    (void)umo_reader_join(where, "outputs", io->name);
    if (!json_is_array(list)) {
        return umo_reader_complain(r, where, "an array is expected, not %s",
                                   umo_reader_type_name(list));
    }
    if (json_array_size(list) != configured.rank) {
        return umo_reader_complain(r, where,
                                   "%zu sizes, but the model's configuration has %" PRIu32,
                                   json_array_size(list), configured.rank);
    }
    for (uint32_t i = 0; i < configured.rank; i++) {
        (void)umo_reader_join_at(where, "outputs", io->name, i);
        umo_status status = umo_reader_formula(r, where, json_array_get(list, i), &dims->dims[i]);
        if (status == UMO_OK) {
            status = dim_check(r, where, &dims->dims[i], input_shapes, configured.dims[i]);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status read_outputs(const umo_reader *r, const json_t *root,
                               const umo_shape *input_shapes)
{
    const umo_description_tensors *tensors = r->model;
    const char *key;
    json_t *unused;
    json_t *given = json_object_get(root, "outputs");
    if (given != NULL && !json_is_object(given)) {
        return umo_reader_complain(r, "outputs", "an object is expected, not %s",
                                   umo_reader_type_name(given));
    }
    json_object_foreach(given, key, unused)
    {
        if (umo_reader_find(tensors->outputs, tensors->output_count, key) ==
            tensors->output_count) {
            return umo_reader_complain(r, "outputs", "the model has no output '%s'", key);
        }
    }
    for (size_t i = 0; i < tensors->output_count; i++) {
        const umo_io *io = &tensors->outputs[i];
        const umo_shape configured = umo_description_dims(io);
        umo_formula_dims *dims = &r->out->outputs[i];
        const json_t *list = json_object_get(given, io->name);
        dims->rank = configured.rank;
        dims->dims = calloc(configured.rank > 0 ? configured.rank : 1, sizeof dims->dims[0]);
        if (dims->dims == NULL) {
            return umo_reader_no_memory(r);
        }
        if (list != NULL) {
            umo_status status = read_output(r, i, list, input_shapes);
            if (status != UMO_OK) {
                return status;
            }
            continue;
        }
        for (uint32_t d = 0; d < configured.rank; d++) {
            if (configured.dims[d] < 0) {
                return umo_reader_complain(
                    r, "outputs",
                    "output '%s' has variable dimensions in the model's configuration: "
                    "say here how long each is, as \"%s\": [...]",
                    io->name, io->name);
            }
            umo_expression_init_constant(&dims->dims[d], configured.dims[d]);
        }
    }
    return UMO_OK;
}

static umo_status read_root(umo_reader *r, json_t *root, const umo_shape *input_shapes)
{
    static const char *const keys[] = {"file",          "function",   "options", "arguments",
                                       "global_size",   "local_size", "outputs", "kernels",
                                       "intermediates", "parameters", NULL};
    if (!json_is_object(root)) {
        return umo_reader_complain(r, "", "an object is expected, not %s",
                                   umo_reader_type_name(root));
    }
    umo_status status = umo_reader_keys(r, "", root, keys);
    if (status == UMO_OK) {
        status = read_parameters(r, root);
    }
    if (status == UMO_OK) {
        status = read_intermediates(r, root);
    }
    if (status == UMO_OK) {
        status = read_stages(r, root);
    }
    if (status == UMO_OK) {
        r->tensor_count = r->model->input_count;
        status = read_outputs(r, root, input_shapes);
    }
    return status != UMO_OK ? status : umo_reader_flow(r);
}

/* The reader's own lists: what a formula may name, and the shapes of the inputs. */
static umo_status reader_start(umo_reader *r, umo_shape *input_shapes)
{
    const umo_description_tensors *model = r->model;
    r->out->flagged = calloc(model->input_count + 1, sizeof r->out->flagged[0]);
    r->out->outputs = calloc(model->output_count + 1, sizeof r->out->outputs[0]);
    if (r->out->flagged == NULL || r->out->outputs == NULL) {
        return umo_reader_no_memory(r);
    }
    r->out->input_count = model->input_count;
    r->out->output_count = model->output_count;
    r->tensor_count = model->input_count + model->output_count;
    for (size_t i = 0; i < r->tensor_count; i++) {
        const umo_io *io =
            i < model->input_count ? &model->inputs[i] : &model->outputs[i - model->input_count];
        const umo_shape dims = umo_description_dims(io);
        r->tensors[i] = (umo_expression_name){.name = io->name, .rank = dims.rank};
        if (i < model->input_count) {
            input_shapes[i] = dims;
        }
    }
    return UMO_OK;
}

umo_status umo_description_init(umo_description *out, const char *json,
                                const umo_description_tensors *tensors, umo_error *error)
{
    umo_description made = {0};
    umo_expression_number numbers[PARAMETERS_MAX];
    umo_reader r = {.model = tensors, .numbers = numbers, .out = &made, .error = error};
    umo_shape *input_shapes = calloc(tensors->input_count + 1, sizeof *input_shapes);
    json_error_t place;
    json_t *root = NULL;
    r.tensors = calloc(tensors->input_count + tensors->output_count + UMO_INTERMEDIATES_MAX,
                       sizeof r.tensors[0]);
    umo_status status = r.tensors == NULL || input_shapes == NULL ? umo_reader_no_memory(&r)
                                                                  : reader_start(&r, input_shapes);
    if (status != UMO_OK) {
        goto done;
    }
    root = json_loads(json, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &place);
    if (root == NULL) {
        status = umo_reader_complain(&r, "", "broken JSON at line %d, column %d: %.120s",
                                     place.line, place.column, place.text);
        goto done;
    }
    status = read_root(&r, root, input_shapes);
    if (status == UMO_OK) {
        *out = made;
        made = (umo_description){0};
    }

done:
    json_decref(root);
    free(input_shapes);
    free(r.tensors);
    umo_description_finish(&made);
    return status;
}

static void stage_finish(umo_stage *stage)
{
    for (size_t i = 0; i < stage->argument_count; i++) {
        free(stage->arguments[i].weights_file);
    }
    free(stage->arguments);
    free(stage->function);
    free(stage->options);
    free(stage->file);
}

void umo_description_finish(umo_description *description)
{
    for (size_t i = 0; i < description->stage_count; i++) {
        stage_finish(&description->stages[i]);
    }
    for (size_t i = 0; i < description->intermediate_count; i++) {
        free(description->intermediates[i].dims.dims);
        free(description->intermediates[i].name);
    }
    for (size_t i = 0; i < description->output_count; i++) {
        free(description->outputs[i].dims);
    }
    free(description->stages);
    free(description->intermediates);
    free(description->outputs);
    free(description->flagged);
    *description = (umo_description){0};
}
