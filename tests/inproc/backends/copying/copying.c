/* The backend that copies as a conventional one must: every input of the batch is gathered into one
 * block, every output is copied out of it. The blocks are kept from batch to batch, so what is
 * measured against it is two copies into prepared memory, not page faults. */
#include "../probe.h"

#include <stdlib.h>
#include <string.h>

/* One gathered input; an instance has one for each input of the model. */
typedef struct gathered {
    uint8_t *base;
    uint64_t size_bytes;
    uint64_t capacity_bytes;
} gathered;

static TRITONSERVER_Error *append(gathered *to, TRITONBACKEND_Input *input)
{
    uint32_t buffer_count = 0;
    uint64_t size_bytes = 0;
    TRITONSERVER_Error *error =
        TRITONBACKEND_InputProperties(input, NULL, NULL, NULL, NULL, &size_bytes, &buffer_count);

    if (error == NULL && size_bytes > to->capacity_bytes - to->size_bytes) {
        uint64_t capacity_bytes = to->size_bytes + size_bytes;
        uint8_t *grown = realloc(to->base, capacity_bytes);

        if (grown == NULL) {
            return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
        }
        to->base = grown;
        to->capacity_bytes = capacity_bytes;
    }
    for (uint32_t i = 0; error == NULL && i < buffer_count; i++) {
        const void *piece = NULL;
        uint64_t piece_bytes = 0;
        TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
        int64_t memory_type_id = 0;

        error = TRITONBACKEND_InputBuffer(input, i, &piece, &piece_bytes, &memory_type,
                                          &memory_type_id);
        if (error == NULL && piece_bytes > 0) {
            memcpy(to->base + to->size_bytes, piece, piece_bytes);
            to->size_bytes += piece_bytes;
        }
    }
    return error;
}

static TRITONSERVER_Error *gather(const probe_model *model, gathered *all,
                                  TRITONBACKEND_Request *request)
{
    TRITONSERVER_Error *error = NULL;

    for (uint32_t i = 0; error == NULL && i < model->input_count; i++) {
        TRITONBACKEND_Input *input = NULL;

        error = probe_input_get(model, request, i, &input);
        if (error == NULL) {
            error = append(&all[i], input);
        }
    }
    return error;
}

/* `offsets`: where this request's share of each gathered input starts. */
static TRITONSERVER_Error *answer_all(const probe_model *model, const gathered *all,
                                      const uint64_t *offsets, TRITONBACKEND_Request *request,
                                      TRITONBACKEND_Response *response)
{
    uint32_t count = 0;
    TRITONSERVER_Error *error = TRITONBACKEND_RequestOutputCount(request, &count);

    for (uint32_t i = 0; error == NULL && i < count; i++) {
        const char *name = NULL;
        probe_answer answer;
        uint64_t copied;

        error = TRITONBACKEND_RequestOutputName(request, i, &name);
        if (error == NULL) {
            error = probe_output_make(model, request, response, name, &answer);
        }
        if (error == NULL && answer.size_bytes > 0) {
            copied =
                answer.size_bytes < answer.input_bytes ? answer.size_bytes : answer.input_bytes;
            if (copied > 0) {
                memcpy(answer.buffer, all[answer.input_index].base + offsets[answer.input_index],
                       copied);
            }
            memset((uint8_t *)answer.buffer + copied, 0, answer.size_bytes - copied);
        }
    }
    return error;
}

static gathered *scratch_get(const probe_model *model, void **scratch)
{
    gathered *all = *scratch;

    if (all == NULL) {
        all = calloc(model->input_count, sizeof(*all));
        *scratch = all;
    }
    for (uint32_t i = 0; all != NULL && i < model->input_count; i++) {
        all[i].size_bytes = 0;
    }
    return all;
}

void probe_execute(const probe_model *model, void **scratch, TRITONBACKEND_Request **requests,
                   uint32_t request_count, bool *succeeded)
{
    gathered *all = scratch_get(model, scratch);
    uint64_t *offsets = calloc((size_t)request_count * model->input_count, sizeof(*offsets));
    TRITONSERVER_Error **errors = calloc(request_count, sizeof(*errors));
    bool memory = all != NULL && offsets != NULL && errors != NULL;

    for (uint32_t i = 0; memory && i < request_count; i++) {
        for (uint32_t j = 0; j < model->input_count; j++) {
            offsets[(size_t)i * model->input_count + j] = all[j].size_bytes;
        }
        errors[i] = gather(model, all, requests[i]);
    }
    for (uint32_t i = 0; i < request_count; i++) {
        TRITONBACKEND_Response *response = NULL;
        TRITONSERVER_Error *error = TRITONBACKEND_ResponseNew(&response, requests[i]);

        if (error != NULL) {
            TRITONSERVER_ErrorDelete(error);
            if (memory && errors[i] != NULL) {
                TRITONSERVER_ErrorDelete(errors[i]);
            }
            continue;
        }
        if (!memory) {
            error = TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
        } else if (errors[i] != NULL) {
            error = errors[i];
        } else {
            error = answer_all(model, all, offsets + (size_t)i * model->input_count, requests[i],
                               response);
        }
        succeeded[i] = error == NULL;
        probe_send(response, error);
    }
    free(errors);
    free(offsets);
}

void probe_scratch_free(const probe_model *model, void *scratch)
{
    gathered *all = scratch;

    for (uint32_t i = 0; all != NULL && i < model->input_count; i++) {
        free(all[i].base);
    }
    free(all);
}
