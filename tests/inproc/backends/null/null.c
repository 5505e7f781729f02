/* The backend that touches nothing: the floor below which no backend can answer in this server.
 * It asks for every output's buffer and writes none of it, and reads no byte of any input. */
#include "../probe.h"

static TRITONSERVER_Error *answer_all(const probe_model *model, TRITONBACKEND_Request *request,
                                      TRITONBACKEND_Response *response)
{
    uint32_t count = 0;
    TRITONSERVER_Error *error = TRITONBACKEND_RequestOutputCount(request, &count);

    for (uint32_t i = 0; error == NULL && i < count; i++) {
        const char *name = NULL;
        probe_answer answer;

        error = TRITONBACKEND_RequestOutputName(request, i, &name);
        if (error == NULL) {
            error = probe_output_make(model, request, response, name, &answer);
        }
    }
    return error;
}

void probe_execute(const probe_model *model, void **scratch, TRITONBACKEND_Request **requests,
                   uint32_t request_count, bool *succeeded)
{
    (void)scratch;
    for (uint32_t i = 0; i < request_count; i++) {
        TRITONBACKEND_Response *response = NULL;
        TRITONSERVER_Error *error = TRITONBACKEND_ResponseNew(&response, requests[i]);

        if (error != NULL) {
            TRITONSERVER_ErrorDelete(error);
            continue;
        }
        error = answer_all(model, requests[i], response);
        succeeded[i] = error == NULL;
        probe_send(response, error);
    }
}

void probe_scratch_free(const probe_model *model, void *scratch)
{
    (void)model;
    (void)scratch;
}
