/*
 * One execution: read the requests, group those of equal shape, run each group, answer.
 *
 * Order matters at the end: every use of a request's memory completes, then its response is sent
 * with FINAL, then the request is released, because the server drops its hold on shared memory when
 * FINAL is sent.
 */
#include "kit/kit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t kit_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

size_t umo_batch_requests(const umo_batch *batch)
{
    return batch->count;
}

int64_t umo_batch_rows(const umo_batch *batch)
{
    return batch->rows;
}

void umo_batch_complete(umo_batch *batch, umo_fence fence)
{
    batch->done = fence;
}

bool kit_request_is_cancelled(kit_request *request)
{
    bool cancelled = request->cancelled;
    if (!cancelled && kit_from_triton(TRITONBACKEND_RequestIsCancelled(request->triton, &cancelled),
                                      NULL) == UMO_OK) {
        request->cancelled = cancelled;
    }
    return request->cancelled;
}

bool umo_batch_cancelled(const umo_batch *batch, size_t request)
{
    return request < batch->count && kit_request_is_cancelled(batch->members[request]);
}

void umo_batch_fail(umo_batch *batch, size_t request, umo_status status, const char *text)
{
    if (request < batch->count) {
        (void)kit_request_fail(batch->members[request], status, "%s", text);
    }
}

/* Do two requests agree in everything but the batch dimension? */
static bool requests_agree(const umo_model *model, const kit_request *a, const kit_request *b)
{
    uint32_t skip = model->batch_max > 0 ? 1 : 0;
    for (size_t i = 0; i < model->input_count; i++) {
        const kit_input *x = &a->inputs[i];
        const kit_input *y = &b->inputs[i];
        if (x->present != y->present) {
            return false;
        }
        if (x->present && !model->inputs[i].ragged &&
            (x->shape.rank != y->shape.rank ||
             memcmp(x->shape.dims + skip, y->shape.dims + skip,
                    (x->shape.rank - skip) * sizeof(int64_t)) != 0)) {
            return false;
        }
    }
    return true;
}

/* Collects the ungrouped requests that agree with the first of them. */
static size_t members_collect(umo_instance *instance, size_t count)
{
    const umo_model *model = instance->model;
    size_t members = 0;
    int64_t rows = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        kit_request *request = &instance->requests[i];
        if (request->grouped || (request->error.status != UMO_OK && !request->blank)) {
            continue;
        }
        /* Under the strategy direct a sequence has no step without a row. */
        if (!model->direct && kit_request_is_cancelled(request)) {
            (void)kit_request_fail(request, UMO_E_REFUSED, "the request was cancelled");
            continue;
        }
        bool fits =
            members == 0 || (model->batch_max > 0 && rows + request->rows <= model->batch_max &&
                             requests_agree(model, instance->members[0], request));
        fits = fits && (!model->uneven || kit_batch_has_room(model, request, &bytes));
        if (fits) {
            request->grouped = true;
            instance->members[members++] = request;
            rows += request->rows;
        }
    }
    return members;
}

void kit_batch_slots_finish(umo_batch *batch, bool succeeded)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < model->input_count; i++) {
        kit_slot_finish(batch, &batch->inputs[i], succeeded);
    }
    for (size_t i = 0; i < model->output_count; i++) {
        kit_slot_finish(batch, &batch->outputs[i], succeeded);
    }
}

/* Every output that a request asked for must have been placed by the backend. */
static umo_status outputs_check(const umo_batch *batch, umo_error *error)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < model->output_count; i++) {
        if (!batch->outputs[i].used && umo_batch_wants_output(batch, i)) {
            return umo_error_set(error, UMO_E_SYSTEM, 0, "model '%s' gave no output '%s'",
                                 model->name, model->outputs[i].name);
        }
    }
    return UMO_OK;
}

/* Is every request of the group the server's own? Then there is nothing to compute. */
static bool all_blank(const umo_batch *batch)
{
    size_t blank = 0;
    while (blank < batch->count && batch->members[blank]->blank) {
        blank++;
    }
    return blank == batch->count;
}

/* Sets the batch to the members from here on. */
static void batch_set(umo_batch *batch, kit_request **members, size_t count)
{
    batch->members = members;
    batch->count = count;
    batch->waits.count = 0;
    batch->done = (umo_fence){0};
    batch->flight = NULL;
    batch->rows = 0;
    for (size_t i = 0; i < count; i++) {
        batch->rows += members[i]->rows;
    }
}

/* Calls the engine once. Requests' errors are set where they failed. */
static void batch_execute(umo_instance *instance, umo_batch *batch)
{
    const umo_model *model = instance->model;
    umo_error error = {0};
    umo_status status = umo_backend_table.execute(instance, instance->state, batch, &error);
    if (batch->flight != NULL) {
        kit_flight_depart(batch, status, &error);
        return;
    }
    if (status == UMO_OK) {
        status = outputs_check(batch, &error);
    }
    umo_status completed = umo_fence_wait(batch->done, UINT64_MAX);
    if (completed != UMO_OK) {
        /* Whatever else went wrong, nothing runs any more; the fence is spent. */
        status = umo_error_set(&error, completed, 0, "the device failed while it ran model '%s'",
                               model->name);
    }
    /* Copies to the device that the engine never waited for still read the requests' memory. */
    umo_status waited = umo_fence_set_wait(&batch->waits, UINT64_MAX);
    if (status == UMO_OK && waited != UMO_OK) {
        status = umo_error_set(&error, waited, 0, "the device failed while model '%s' was prepared",
                               model->name);
    }
    if (status == UMO_OK) {
        status = kit_outputs_deliver(batch, &error);
    }
    kit_batch_check_places(batch);
    if (status != UMO_OK) {
        for (size_t i = 0; i < batch->count; i++) {
            (void)kit_request_fail(batch->members[i], status, "%s",
                                   error.text[0] != '\0' ? error.text : umo_status_name(status));
        }
    }
    kit_batch_slots_finish(batch, status == UMO_OK);
    kit_states_update(batch);
}

/* Runs one group, as a rule at once. Returns its rows. */
static uint64_t batch_run(umo_instance *instance, size_t count)
{
    const umo_model *model = instance->model;
    umo_batch *batch = &instance->batch;
    batch_set(batch, instance->members, count);
    uint64_t rows = (uint64_t)batch->rows;
    if (model->direct && all_blank(batch)) {
        return rows;
    }
    /* Under the sequence batcher a request's position is its slot. */
    bool free_order = count > 1 && !model->sequence && !model->decoupled && model->unified.enable &&
                      model->unified.batch_optimization;
    batch->arrival_order = true;
    if (free_order) {
        kit_outputs_foresee(batch);
        batch->arrival_order = kit_order_choose(batch);
    }
    size_t part = free_order ? kit_order_part(batch) : count;
    for (size_t at = 0; part < count; part = kit_order_part(batch)) {
        batch_set(batch, instance->members + at, part);
        batch_execute(instance, batch);
        at += part;
        count -= part;
        batch_set(batch, instance->members + at, count);
    }
    batch_execute(instance, batch);
    return rows;
}

/* Makes the response of a request that has none yet. Without one nobody ever answers the client, so
 * it is asked for twice. */
static void response_make(const umo_model *model, kit_request *request)
{
    umo_error error = {0};
    for (int i = 0; i < 2 && request->response == NULL; i++) {
        (void)kit_from_triton(TRITONBACKEND_ResponseNew(&request->response, request->triton),
                              &error);
    }
    if (request->response == NULL) {
        umo_model_log(model, true, "a request goes without an answer: %s", error.text);
        (void)kit_request_fail(request, error.status, "%s", error.text);
    }
}

TRITONSERVER_Error *kit_request_failure(const kit_request *request)
{
    if (request->error.status == UMO_OK) {
        return NULL;
    }
    return request->cancelled ? kit_error_cancelled(request->error.text)
                              : kit_error(request->error.status, request->error.text);
}

/* Sends the FINAL response. The request itself is released afterwards. */
static void response_send(const umo_model *model, kit_request *request)
{
    TRITONSERVER_Error *failure = NULL;
    if (request->response == NULL) {
        response_make(model, request);
    }
    if (request->response == NULL) {
        return;
    }
    failure = kit_request_failure(request);
    (void)kit_from_triton(TRITONBACKEND_ResponseSend(request->response,
                                                     TRITONSERVER_RESPONSE_COMPLETE_FINAL, failure),
                          NULL);
    request->response = NULL;
    if (failure != NULL) {
        TRITONSERVER_ErrorDelete(failure);
    }
}

/* While memory is so short that nothing else helped, no new work begins. */
static void requests_admit(umo_instance *instance, uint32_t count)
{
    umo_pressure *pressure = instance->model->pressure;
    if (pressure == NULL || umo_pressure_ready(pressure)) {
        return;
    }
    umo_error error = {0};
    if (umo_pressure_admit(pressure, 0, &error) != UMO_OK) {
        for (uint32_t i = 0; i < count; i++) {
            (void)kit_request_fail(&instance->requests[i], error.status, "%s", error.text);
        }
        kit_metrics_refuse(instance->model->metrics, count);
    }
}

void kit_execute(umo_instance *instance, TRITONBACKEND_Request **requests, uint32_t count)
{
    uint64_t start_ns = kit_now_ns();
    instance->start_ns = start_ns;
    kit_node_follow(instance);
    umo_mappings_forget(instance->mappings);
    bool room = kit_instance_reserve(instance, count) == UMO_OK;
    if (!room) {
        /* Answer what fits one by one: a server that is out of memory still owes every request an
         * answer. */
        for (uint32_t i = 0; i < count && instance->request_capacity > 0 && count > 1; i++) {
            kit_execute(instance, &requests[i], 1);
        }
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        kit_request_read(instance, &instance->requests[i], requests[i]);
    }
    if (instance->model->direct) {
        kit_sequence_fill_rows(instance, count);
    }
    requests_admit(instance, count);
    uint64_t compute_start_ns = kit_now_ns();
    uint64_t rows = 0;
    for (size_t members = members_collect(instance, count); members > 0;
         members = members_collect(instance, count)) {
        rows += batch_run(instance, members);
    }
    uint64_t compute_end_ns = kit_now_ns();
    if (kit_recorded(instance)) {
        kit_record_batch(instance, count, compute_end_ns - compute_start_ns);
    }
    /* Before the answers: who has one and reads /metrics then finds it counted. */
    kit_metrics_update(instance->model->metrics, instance->model->scope);
    for (uint32_t i = 0; i < count; i++) {
        if (instance->requests[i].triton != NULL) { /* was not taken */
            kit_request_leave(instance->model, &instance->requests[i]);
            response_send(instance->model, &instance->requests[i]);
        }
    }
    uint64_t end_ns = kit_now_ns();
    if (kit_recorded(instance)) {
        kit_record_requests(instance, count, end_ns - start_ns);
    }
    /* All statistics before the first release: who waits for a request's end may read them right
     * after. */
    for (uint32_t i = 0; i < count; i++) {
        const kit_request *request = &instance->requests[i];
        if (request->triton == NULL) {
            continue;
        }
        (void)kit_from_triton(
            TRITONBACKEND_ModelInstanceReportStatistics(instance->triton, request->triton,
                                                        request->error.status == UMO_OK, start_ns,
                                                        compute_start_ns, compute_end_ns, end_ns),
            NULL);
    }
    if (rows > 0) {
        (void)kit_from_triton(
            TRITONBACKEND_ModelInstanceReportBatchStatistics(
                instance->triton, rows, start_ns, compute_start_ns, compute_end_ns, end_ns),
            NULL);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (instance->requests[i].triton != NULL) {
            (void)kit_from_triton(TRITONBACKEND_RequestRelease(instance->requests[i].triton,
                                                               TRITONSERVER_REQUEST_RELEASE_ALL),
                                  NULL);
        }
    }
}
