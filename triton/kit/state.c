/*
 * Implicit states: the memory of a sequence's next state is the server's and is written in place
 * where a response's is, so that a state is never copied by us while its sequence is alone in its
 * batch. Two memories take turns: what is written now is the input of the next request.
 *
 * TRITONBACKEND_StateUpdate hands the memory over. It comes last, and only for a request that
 * succeeded: one that failed leaves its sequence where it was.
 */
#include "kit/kit.h"

#include <string.h>

void kit_states_begin(const umo_model *model, kit_request *request)
{
    for (size_t i = 0; i < model->output_count; i++) {
        request->outputs[i].kept = model->outputs[i].state && !request->blank;
        request->outputs[i].state = NULL;
        request->outputs[i].state_data = NULL;
    }
}

umo_status kit_state_ask(umo_batch *batch, size_t output, kit_request *request,
                         const umo_shape *shape, size_t size_bytes, umo_error *error)
{
    const umo_io *io = &batch->instance->model->outputs[output];
    kit_output *out = &request->outputs[output];
    TRITONBACKEND_State *state = NULL;
    void *data = NULL;
    TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
    int64_t type_id = 0;
    umo_status status = kit_from_triton(TRITONBACKEND_StateNew(&state, request->triton, io->name,
                                                               (TRITONSERVER_DataType)io->dtype,
                                                               shape->dims, shape->rank),
                                        error);
    if (status == UMO_OK) {
        status = kit_from_triton(
            TRITONBACKEND_StateBuffer(state, &data, size_bytes, &type, &type_id), error);
    }
    if (status == UMO_OK && type == TRITONSERVER_MEMORY_GPU) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "the server gave GPU memory for state '%s'", io->name);
    }
    if (status != UMO_OK) {
        return status;
    }
    out->state = state;
    if (io->source == UMO_IO_STATE) {
        out->data = data;
        out->size_bytes = size_bytes;
    } else {
        out->state_data = data;
    }
    return UMO_OK;
}

void kit_state_write(umo_batch *batch, kit_request *request, size_t output, const void *source,
                     size_t size_bytes, umo_reason reason)
{
    char *target = request->outputs[output].state_data;
    if (target != NULL && target != source && size_bytes > 0) {
        memmove(target, source, size_bytes);
        umo_scope_count_copy(batch->instance->model->scope, UMO_DIRECTION_OUT, reason, size_bytes);
    }
}

void kit_states_write(umo_batch *batch, size_t output, const char *source, size_t row_bytes,
                      umo_reason reason)
{
    for (size_t m = 0; batch->instance->model->outputs[output].state && m < batch->count; m++) {
        kit_request *request = batch->members[m];
        size_t size_bytes = row_bytes * (size_t)request->rows;
        if (request->error.status == UMO_OK) {
            kit_state_write(batch, request, output, source, size_bytes, reason);
        }
        source += size_bytes;
    }
}

void kit_states_update(umo_batch *batch)
{
    const umo_model *model = batch->instance->model;
    for (size_t m = 0; model->stateful && m < batch->count; m++) {
        kit_request *request = batch->members[m];
        for (size_t i = 0; i < model->output_count && request->error.status == UMO_OK; i++) {
            umo_error error = {0};
            TRITONBACKEND_State *state = request->outputs[i].state;
            if (state != NULL &&
                kit_from_triton(TRITONBACKEND_StateUpdate(state), &error) != UMO_OK) {
                (void)kit_request_fail(request, error.status, "%s", error.text);
            }
        }
    }
}
