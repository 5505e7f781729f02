/*
 * Reading one request: every name, type, shape and size is taken once, checked against the
 * configuration, and used from our copy afterwards.
 */
#include "kit/kit.h"

#include <stdlib.h>
#include <string.h>

/* Index of a configured input; the order of a client that sends what the configuration lists is
 * tried first. */
static size_t input_find(const umo_model *model, const char *name, size_t guess)
{
    if (guess < model->input_count && strcmp(model->inputs[guess].name, name) == 0) {
        return guess;
    }
    return umo_model_find_input(model, name);
}

/* Finds an input's first byte where its pieces lie in one run, and checks their sizes. */
static umo_status pieces_read(kit_input *input, umo_error *error)
{
    const char *first = NULL;
    const char *next = NULL;
    bool one_run = true;
    uint64_t total = 0;
    for (uint32_t i = 0; i < input->pieces; i++) {
        const void *piece = NULL;
        uint64_t piece_bytes = 0;
        TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
        int64_t type_id = 0;
        umo_status status = kit_from_triton(
            TRITONBACKEND_InputBuffer(input->triton, i, &piece, &piece_bytes, &type, &type_id),
            error);
        if (status != UMO_OK) {
            return status;
        }
        if (type == TRITONSERVER_MEMORY_GPU) {
            return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "the tensor lies in GPU memory");
        }
        if (__builtin_add_overflow(total, piece_bytes, &total)) {
            return umo_error_set(error, UMO_E_INVAL, 0, "its pieces overflow");
        }
        if (piece_bytes == 0) {
            continue;
        }
        one_run = one_run && (first == NULL || piece == next);
        first = first == NULL ? piece : first;
        next = (const char *)piece + piece_bytes;
    }
    input->data = one_run ? first : NULL;
    if (total != input->size_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0, "it has %llu bytes in its pieces, not %llu",
                             (unsigned long long)total, (unsigned long long)input->size_bytes);
    }
    return UMO_OK;
}

/* A walk over serialized strings that come in pieces: a length may lie in several of them. */
typedef struct strings_walk {
    uint64_t elements; /* whole ones so far */
    uint32_t length;   /* of the present one, as far as it was read */
    uint32_t length_bytes;
    uint64_t left; /* bytes of the present one still to come */
} strings_walk;

static umo_status strings_step(const void *data, size_t size_bytes, void *user)
{
    strings_walk *walk = user;
    const unsigned char *bytes = data;
    for (size_t at = 0; at < size_bytes;) {
        if (walk->length_bytes < 4) {
            walk->length |= (uint32_t)bytes[at++] << (8 * walk->length_bytes++);
            walk->left = walk->length;
        } else {
            size_t skip = walk->left < size_bytes - at ? (size_t)walk->left : size_bytes - at;
            at += skip;
            walk->left -= skip;
        }
        if (walk->length_bytes == 4 && walk->left == 0) {
            walk->elements++;
            walk->length = 0;
            walk->length_bytes = 0;
        }
    }
    return UMO_OK;
}

/* In a batch, strings lie one behind the other: one too many or too few in a request would move
 * those of the next. */
static umo_status strings_check(umo_instance *instance, kit_request *request, kit_input *input,
                                umo_error *error)
{
    strings_walk walk = {0};
    uint64_t count = 0;
    umo_status status = umo_shape_count(&input->shape, &count);
    if (status == UMO_OK) {
        status = kit_input_visit(instance, request, input, strings_step, &walk, error);
    }
    if (status == UMO_OK && (walk.elements != count || walk.length_bytes != 0)) {
        status = umo_error_set(error, UMO_E_INVAL, 0, "its bytes are not %llu strings",
                               (unsigned long long)count);
    }
    return status;
}

static bool dims_fit(const umo_io *io, const umo_shape *shape, uint32_t skip)
{
    if (shape->rank != io->dims.rank + skip) {
        return false;
    }
    for (uint32_t d = 0; d < io->dims.rank; d++) {
        if (io->dims.dims[d] >= 0 && io->dims.dims[d] != shape->dims[d + skip]) {
            return false;
        }
    }
    return true;
}

static void input_check(umo_instance *instance, kit_request *request, const umo_io *io,
                        kit_input *input)
{
    const umo_model *model = instance->model;
    uint32_t skip = model->batch_max > 0 ? 1 : 0;
    char text[256];
    char want[256];
    if (input->dtype != io->dtype) {
        (void)kit_request_fail(request, UMO_E_INVAL, "input '%s' of model '%s' has type %s, not %s",
                               io->name, model->name, umo_dtype_name(input->dtype),
                               umo_dtype_name(io->dtype));
        return;
    }
    uint64_t count;
    if (umo_shape_count(&input->shape, &count) != UMO_OK) {
        (void)kit_request_fail(request, UMO_E_INVAL,
                               "input '%s' of model '%s' has shape %s, "
                               "which is negative or too large",
                               io->name, model->name,
                               umo_shape_format(&input->shape, text, sizeof text));
        return;
    }
    if (!dims_fit(io, &input->shape, skip)) {
        (void)kit_request_fail(request, UMO_E_INVAL,
                               "input '%s' of model '%s' has shape %s; the configuration says %s%s",
                               io->name, model->name,
                               umo_shape_format(&input->shape, text, sizeof text),
                               umo_shape_format(&io->dims, want, sizeof want),
                               skip > 0 ? " behind a batch dimension" : "");
        return;
    }
    uint64_t expected = input->size_bytes;
    if (io->dtype != UMO_BYTES && umo_shape_bytes(&input->shape, io->dtype, &expected) != UMO_OK) {
        (void)kit_request_fail(request, UMO_E_INVAL,
                               "input '%s' of model '%s' has shape %s, which is too large for %s",
                               io->name, model->name,
                               umo_shape_format(&input->shape, text, sizeof text),
                               umo_dtype_name(io->dtype));
        return;
    }
    if (input->size_bytes != expected) {
        (void)kit_request_fail(request, UMO_E_INVAL,
                               "input '%s' of model '%s' has %llu bytes; shape %s of %s needs %llu",
                               io->name, model->name, (unsigned long long)input->size_bytes,
                               umo_shape_format(&input->shape, text, sizeof text),
                               umo_dtype_name(io->dtype), (unsigned long long)expected);
        return;
    }
    if (skip > 0) {
        int64_t rows = input->shape.dims[0];
        if (request->rows == -1) {
            request->rows = rows;
        }
        if (rows != request->rows || rows > model->batch_max) {
            (void)kit_request_fail(
                request, UMO_E_INVAL, "input '%s' of model '%s' has batch size %lld; %s %lld",
                io->name, model->name, (long long)rows,
                rows > model->batch_max ? "the most is" : "another input has",
                (long long)(rows > model->batch_max ? model->batch_max : request->rows));
        }
    }
}

static umo_status input_read(umo_instance *instance, kit_request *request, uint32_t index,
                             umo_error *error)
{
    const umo_model *model = instance->model;
    TRITONBACKEND_Input *triton = NULL;
    const char *name = NULL;
    TRITONSERVER_DataType dtype;
    const int64_t *dims = NULL;
    uint32_t rank = 0;
    uint64_t size_bytes = 0;
    uint32_t pieces = 0;
    umo_status status =
        kit_from_triton(TRITONBACKEND_RequestInputByIndex(request->triton, index, &triton), error);
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONBACKEND_InputProperties(triton, &name, &dtype, &dims, &rank,
                                                               &size_bytes, &pieces),
                                 error);
    }
    if (status != UMO_OK) {
        return status;
    }
    size_t found = input_find(model, name, index);
    if (found == model->input_count || model->inputs[found].source == UMO_IO_BATCH) {
        return umo_error_set(error, UMO_E_INVAL, 0, "model '%s' has no input '%s'", model->name,
                             name);
    }
    if (rank > UMO_RANK_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "input '%s' has %u dimensions; at most %u",
                             name, rank, UMO_RANK_MAX);
    }
    kit_input *input = &request->inputs[found];
    if (input->present) {
        return umo_error_set(error, UMO_E_INVAL, 0, "input '%s' comes twice", name);
    }
    input->present = true;
    input->triton = triton;
    input->dtype = (umo_dtype)dtype;
    input->shape.rank = rank;
    if (rank > 0) {
        memcpy(input->shape.dims, dims, rank * sizeof *dims); /* dims is NULL for a scalar */
    }
    input->size_bytes = size_bytes;
    input->pieces = pieces;
    input->data = NULL;
    input_check(instance, request, &model->inputs[found], input);
    if (request->blank && model->inputs[found].source != UMO_IO_CONTROL) {
        kit_sequence_blank(input);
        return UMO_OK;
    }
    if (request->error.status != UMO_OK) {
        return UMO_OK;
    }
    umo_error why = {0};
    status = pieces_read(input, &why);
    if (status == UMO_OK && input->dtype == UMO_BYTES) {
        if (model->inputs[found].source == UMO_IO_CONTROL) {
            kit_sequence_trim_name(input);
        } else {
            status = strings_check(instance, request, input, &why);
        }
    }
    if (status == UMO_E_INVAL && model->direct) {
        /* It fails, and its slot has a row all the same, with the controls that come behind. */
        (void)kit_request_fail(request, status, "input '%s' of model '%s': %s", name, model->name,
                               why.text);
        return UMO_OK;
    }
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "input '%s' of model '%s': %s", name, model->name,
                             why.text);
    }
    return UMO_OK;
}

static umo_status inputs_read(umo_instance *instance, kit_request *request, umo_error *error)
{
    const umo_model *model = instance->model;
    uint32_t count = 0;
    umo_status status =
        kit_from_triton(TRITONBACKEND_RequestInputCount(request->triton, &count), error);
    for (uint32_t i = 0; i < count && status == UMO_OK; i++) {
        status = input_read(instance, request, i, error);
    }
    for (size_t i = 0; i < model->input_count && status == UMO_OK; i++) {
        if (!request->inputs[i].present && !model->inputs[i].optional &&
            model->inputs[i].source != UMO_IO_BATCH) {
            status = umo_error_set(
                error, UMO_E_INVAL, 0, "%s '%s' of model '%s' is missing%s",
                model->inputs[i].state ? "state" : "input", model->inputs[i].name, model->name,
                model->inputs[i].state ? "; a server without CUDA has none that grow "
                                         "(use_growable_memory)"
                                       : "");
        }
    }
    return status;
}

static umo_status outputs_read(umo_instance *instance, kit_request *request, umo_error *error)
{
    const umo_model *model = instance->model;
    uint32_t count = 0;
    umo_status status =
        kit_from_triton(TRITONBACKEND_RequestOutputCount(request->triton, &count), error);
    for (uint32_t i = 0; i < count && status == UMO_OK; i++) {
        const char *name = NULL;
        status = kit_from_triton(TRITONBACKEND_RequestOutputName(request->triton, i, &name), error);
        if (status != UMO_OK) {
            break;
        }
        size_t found = i < model->output_count && strcmp(model->outputs[i].name, name) == 0
                           ? i
                           : umo_model_find_output(model, name);
        if (found == model->output_count) {
            status = umo_error_set(error, UMO_E_INVAL, 0, "model '%s' has no output '%s'",
                                   model->name, name);
        } else {
            request->outputs[found].wanted = true;
        }
    }
    return status;
}

void kit_request_read(umo_instance *instance, kit_request *request, TRITONBACKEND_Request *triton)
{
    const umo_model *model = instance->model;
    request->triton = triton;
    request->response = NULL;
    request->grouped = false;
    request->blank = false;
    request->cancelled = false;
    request->places = false;
    request->error.status = UMO_OK;
    request->rows = model->batch_max > 0 ? -1 : 1;
    for (size_t i = 0; i < model->input_count; i++) {
        request->inputs[i].present = false;
        request->inputs[i].placed = false;
    }
    for (size_t i = 0; i < model->output_count; i++) {
        request->outputs[i].wanted = false;
        request->outputs[i].placed = false;
        request->outputs[i].asked = false;
        request->outputs[i].data = NULL;
    }
    umo_error error = {0};
    umo_status status = UMO_OK;
    if (model->direct) {
        status = kit_sequence_is_blank(request, &request->blank, &error);
    }
    if (status == UMO_OK) {
        status = inputs_read(instance, request, &error);
    }
    if (status == UMO_OK) {
        status = outputs_read(instance, request, &error);
    }
    if (model->stateful) {
        kit_states_begin(model, request);
    }
    if (status != UMO_OK) {
        (void)kit_request_fail(request, status, "%s", error.text);
    }
    if (model->scatter_inputs != NULL && status == UMO_OK) {
        kit_scatter_check(model, request);
    }
    if (model->batch_input_count > 0 && status == UMO_OK) {
        kit_batch_input_check(model, request);
    }
    if (request->rows == -1) {
        request->rows = 1; /* every input was optional and absent */
    }
}

/* A place that must not be touched comes in copies of its parts. */
static umo_status place_visit(const kit_place *place, size_t size_bytes,
                              umo_status (*visit)(const void *data, size_t size_bytes, void *user),
                              void *user, umo_error *error)
{
    if (place->guarded) {
        return visit(place->data, size_bytes, user);
    }
    char part[4096];
    umo_status status = UMO_OK;
    for (size_t at = 0; at < size_bytes && status == UMO_OK; at += sizeof part) {
        size_t part_bytes = size_bytes - at < sizeof part ? size_bytes - at : sizeof part;
        status = kit_place_read(place, at, part, part_bytes, error);
        if (status == UMO_OK) {
            status = visit(part, part_bytes, user);
        }
    }
    return status;
}

umo_status kit_input_visit(umo_instance *instance, kit_request *request, kit_input *input,
                           umo_status (*visit)(const void *data, size_t size_bytes, void *user),
                           void *user, umo_error *error)
{
    if (input->data != NULL) {
        return place_visit(kit_input_place(instance, request, input), (size_t)input->size_bytes,
                           visit, user, error);
    }
    if (request->blank && input->pieces == 0) {
        return kit_sequence_visit_blank(input, visit, user);
    }
    uint64_t left = input->size_bytes;
    umo_status status = UMO_OK;
    for (uint32_t i = 0; i < input->pieces && status == UMO_OK; i++) {
        const void *piece = NULL;
        uint64_t piece_bytes = 0;
        TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
        int64_t type_id = 0;
        status = kit_from_triton(
            TRITONBACKEND_InputBuffer(input->triton, i, &piece, &piece_bytes, &type, &type_id),
            error);
        if (status == UMO_OK && piece_bytes > left) {
            status = umo_error_set(error, UMO_E_INVAL, 0, "an input's pieces changed");
        }
        if (status == UMO_OK && piece_bytes > 0) {
            status = visit(piece, (size_t)piece_bytes, user);
            left -= piece_bytes;
        }
    }
    if (status == UMO_OK && left != 0) {
        status = umo_error_set(error, UMO_E_INVAL, 0, "an input's pieces changed");
    }
    return status;
}

static umo_status gather_piece(const void *data, size_t size_bytes, void *user)
{
    char **target = user;
    memcpy(*target, data, size_bytes);
    *target += size_bytes;
    return UMO_OK;
}

umo_status kit_input_gather(umo_instance *instance, kit_request *request, kit_input *input,
                            char *target, umo_error *error)
{
    if (input->data != NULL) {
        return kit_place_read(kit_input_place(instance, request, input), 0, target,
                              (size_t)input->size_bytes, error);
    }
    return kit_input_visit(instance, request, input, gather_piece, &target, error);
}
