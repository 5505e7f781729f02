/*
 * What the flight recorder hears of executions: how long the engine had a batch, and each request
 * with the number that the server's own trace has for it, so that both can be put on one timeline.
 *
 * Callers ask kit_recorded() first: while nobody records, that load and a branch are all.
 */
#include "kit/kit.h"

#include <stdatomic.h>

/* Servers that are built without tracing, or are older, need not have them. */
#pragma weak TRITONBACKEND_RequestTrace
#pragma weak TRITONSERVER_InferenceTraceId

static uint64_t trace_id(TRITONBACKEND_Request *request)
{
    TRITONSERVER_InferenceTrace *trace = NULL;
    uint64_t id = 0;
    if (TRITONBACKEND_RequestTrace == NULL || TRITONSERVER_InferenceTraceId == NULL ||
        kit_from_triton(TRITONBACKEND_RequestTrace(request, &trace), NULL) != UMO_OK ||
        trace == NULL ||
        kit_from_triton(TRITONSERVER_InferenceTraceId(trace, &id), NULL) != UMO_OK) {
        return 0;
    }
    return id;
}

static uint64_t inputs_bytes(const umo_model *model, const kit_request *request)
{
    uint64_t size_bytes = 0;
    for (size_t i = 0; i < model->input_count; i++) {
        size_bytes += request->inputs[i].present ? request->inputs[i].size_bytes : 0;
    }
    return size_bytes;
}

/* Numbers that no other execution of the process has. */
static uint64_t run_next(void)
{
    static _Atomic uint64_t runs;
    return atomic_fetch_add_explicit(&runs, 1, memory_order_relaxed) + 1;
}

void kit_record_batch(umo_instance *instance, uint32_t count, uint64_t duration_ns)
{
    uint64_t size_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_bytes += inputs_bytes(instance->model, &instance->requests[i]);
    }
    instance->run = run_next();
    umo_profile_span_write(&(umo_profile_span){.kind = UMO_EVENT_BATCH,
                                               .scope = instance->model->scope,
                                               .duration_ns = duration_ns,
                                               .size_bytes = size_bytes,
                                               .run = instance->run,
                                               .detail = count});
}

void kit_record_request(const umo_model *model, const kit_request *request, uint64_t run,
                        uint32_t place, uint64_t duration_ns, umo_status status)
{
    umo_profile_span_write(&(umo_profile_span){.kind = UMO_EVENT_REQUEST,
                                               .scope = model->scope,
                                               .duration_ns = duration_ns,
                                               .size_bytes = inputs_bytes(model, request),
                                               .run = run,
                                               .trace_id = trace_id(request->triton),
                                               .detail = place,
                                               .status = status});
}

void kit_record_requests(const umo_instance *instance, uint32_t count, uint64_t duration_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        const kit_request *request = &instance->requests[i];
        if (request->triton != NULL) { /* was not taken */
            kit_record_request(instance->model, request, instance->run, i, duration_ns,
                               request->error.status);
        }
    }
}
