/*
 * The sequence batcher's side of a model: its controls and implicit states come with each request
 * as inputs that no client sends, and become inputs and outputs like any other.
 *
 * Under the strategy direct a request's position in a batch is its slot. The server fills slots
 * between the used ones with requests of its own: memory that nobody wrote, no outputs. They keep
 * their rows, because an engine that counts rows needs them, but the rows are zeros: what happens
 * to lie in the server's heap is nobody's to see and no engine's to follow as an index. The row of
 * a request that fails before its batch runs is of the same kind.
 */
#include "kit/kit.h"

#include <string.h>

static const struct {
    const char *kind;
    umo_sequence_control control;
} controls[] = {{"CONTROL_SEQUENCE_START", UMO_SEQUENCE_START},
                {"CONTROL_SEQUENCE_END", UMO_SEQUENCE_END},
                {"CONTROL_SEQUENCE_READY", UMO_SEQUENCE_READY},
                {"CONTROL_SEQUENCE_CORRID", UMO_SEQUENCE_CORRID}};

/* Which of the lists of a control has values says its type; a CORRID has a type. */
static umo_dtype control_dtype(const json_t *control)
{
    static const struct {
        const char *list;
        umo_dtype dtype;
    } lists[] = {{"int32_false_true", UMO_INT32},
                 {"fp32_false_true", UMO_FP32},
                 {"bool_false_true", UMO_BOOL}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (json_array_size(json_object_get(control, lists[i].list)) > 0) {
            return lists[i].dtype;
        }
    }
    const char *type = json_string_value(json_object_get(control, "data_type"));
    return umo_dtype_parse(type != NULL ? type : "");
}

static umo_sequence_control control_kind(const json_t *control)
{
    const char *kind = json_string_value(json_object_get(control, "kind"));
    for (size_t i = 0; kind != NULL && i < sizeof controls / sizeof controls[0]; i++) {
        if (strcmp(kind, controls[i].kind) == 0) {
            return controls[i].control;
        }
    }
    return UMO_SEQUENCE_NONE;
}

static umo_status control_read(umo_model *model, const json_t *entry, umo_error *error)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const json_t *control = json_array_get(json_object_get(entry, "control"), 0);
    umo_sequence_control kind = control_kind(control);
    umo_dtype dtype = control_dtype(control);
    if (name == NULL || kind == UMO_SEQUENCE_NONE || dtype == UMO_DTYPE_INVALID) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "sequence_batching: control input '%s' has no kind or no type",
                             name != NULL ? name : "");
    }
    umo_shape dims = {.rank = 1, .dims = {1}};
    umo_status status =
        kit_io_append(&model->inputs, &model->input_count, name, dtype, &dims, false);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "no memory for a model");
    }
    model->inputs[model->input_count - 1].source = UMO_IO_CONTROL;
    model->inputs[model->input_count - 1].sequence_control = kind;
    return UMO_OK;
}

/* An output that the client may have too keeps its place among the configured ones. */
static umo_status state_output(umo_model *model, const char *name, umo_dtype dtype,
                               const umo_shape *dims, size_t *index, umo_error *error)
{
    *index = umo_model_find_output(model, name);
    if (*index < model->output_count) {
        const umo_io *io = &model->outputs[*index];
        return io->dtype == dtype
                   ? UMO_OK
                   : umo_error_set(error, UMO_E_INVAL, 0,
                                   "output '%s' is %s, but as a state it is %s", name,
                                   umo_dtype_name(io->dtype), umo_dtype_name(dtype));
    }
    umo_status status =
        kit_io_append(&model->outputs, &model->output_count, name, dtype, dims, false);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "no memory for a model");
    }
    model->outputs[*index].source = UMO_IO_STATE;
    return UMO_OK;
}

static umo_status state_read(umo_model *model, const json_t *entry, umo_error *error)
{
    const char *in = json_string_value(json_object_get(entry, "input_name"));
    const char *out = json_string_value(json_object_get(entry, "output_name"));
    const char *type = json_string_value(json_object_get(entry, "data_type"));
    umo_dtype dtype = umo_dtype_parse(type != NULL ? type : "");
    if (in == NULL || out == NULL || dtype == UMO_DTYPE_INVALID) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "sequence_batching: a state needs input_name, output_name and "
                             "data_type");
    }
    if (umo_model_find_input(model, in) < model->input_count) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "'%s' is an input that requests bring, and a state", in);
    }
    umo_shape dims;
    size_t output = 0;
    umo_status status = kit_dims_read(in, entry, &dims, error);
    if (status == UMO_OK) {
        status = state_output(model, out, dtype, &dims, &output, error);
    }
    if (status == UMO_OK &&
        kit_io_append(&model->inputs, &model->input_count, in, dtype, &dims, false) != UMO_OK) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a model");
    }
    if (status == UMO_OK) {
        size_t input = model->input_count - 1;
        model->inputs[input].source = UMO_IO_STATE;
        model->inputs[input].state = true;
        model->inputs[input].pair = output;
        model->outputs[output].state = true;
        model->outputs[output].pair = input;
        model->stateful = true;
    }
    return status;
}

umo_status kit_sequence_read(umo_model *model, umo_error *error)
{
    const json_t *sequence = json_object_get(model->config, "sequence_batching");
    model->sequence = sequence != NULL;
    model->direct = model->sequence && json_object_get(sequence, "oldest") == NULL;
    size_t index;
    json_t *entry;
    json_array_foreach(json_object_get(sequence, "control_input"), index, entry)
    {
        umo_status status = control_read(model, entry, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    json_array_foreach(json_object_get(sequence, "state"), index, entry)
    {
        umo_status status = state_read(model, entry, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

umo_status kit_sequence_is_blank(kit_request *request, bool *out, umo_error *error)
{
    /* A client that names no output gets them all, so it always has some. */
    uint32_t count = 0;
    umo_status status =
        kit_from_triton(TRITONBACKEND_RequestOutputCount(request->triton, &count), error);
    *out = status == UMO_OK && count == 0;
    return status;
}

void kit_sequence_trim_name(kit_input *input)
{
    uint32_t length = 0;
    if (input->data == NULL || input->size_bytes < sizeof length) {
        return;
    }
    memcpy(&length, input->data, sizeof length);
    if (length < input->size_bytes - sizeof length) {
        input->size_bytes = sizeof length + length;
    }
}

void kit_sequence_blank(kit_input *input)
{
    uint64_t count = 0;
    input->data = NULL;
    input->pieces = 0;
    if (input->dtype == UMO_BYTES) {
        /* As many strings, all empty: a length of zero each. */
        umo_status_ignore(umo_shape_count(&input->shape, &count));
        input->size_bytes = 4 * count;
    }
}

/* Any request that succeeded so far says what a row looks like, a client's better than a slot's. */
static const kit_request *row_model(const umo_instance *instance, uint32_t count)
{
    const kit_request *found = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const kit_request *request = &instance->requests[i];
        if (request->error.status == UMO_OK && (found == NULL || found->blank)) {
            found = request;
        }
    }
    return found;
}

void kit_sequence_fill_rows(umo_instance *instance, uint32_t count)
{
    const umo_model *model = instance->model;
    const kit_request *like = row_model(instance, count);
    for (uint32_t i = 0; like != NULL && i < count; i++) {
        kit_request *request = &instance->requests[i];
        if (request->error.status == UMO_OK) {
            continue;
        }
        request->blank = true;
        request->rows = like->rows;
        for (size_t k = 0; k < model->input_count; k++) {
            kit_input *input = &request->inputs[k];
            const kit_input *other = &like->inputs[k];
            bool known = model->inputs[k].source == UMO_IO_CONTROL && input->present &&
                         input->dtype == other->dtype && input->size_bytes == other->size_bytes;
            if (!known) { /* those are the server's, and true */
                input->present = other->present;
                input->dtype = other->dtype;
                input->shape = other->shape;
                input->size_bytes = other->size_bytes;
                kit_sequence_blank(input);
            }
        }
    }
}

umo_status kit_sequence_visit_blank(const kit_input *input,
                                    umo_status (*visit)(const void *data, size_t size_bytes,
                                                        void *user),
                                    void *user)
{
    static const char zeros[4096];
    umo_status status = UMO_OK;
    for (uint64_t left = input->size_bytes; left > 0 && status == UMO_OK;) {
        size_t size_bytes = left < sizeof zeros ? (size_t)left : sizeof zeros;
        status = visit(zeros, size_bytes, user);
        left -= size_bytes;
    }
    return status;
}
