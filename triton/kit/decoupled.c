/*
 * Decoupled models: requests that live on when execute has returned.
 *
 * A batch that is taken moves out of its instance into a flight, which holds what the batch's
 * inputs hold until the last of its requests has ended.
 *
 * The order at a request's end is the one of batch.c: every use completes, then FINAL is sent, then
 * the request is released. A request that is finished while execute runs or while a response is
 * open ends later, by whoever takes away the last hindrance. Nothing of the model may be touched
 * after the release: the server unloads it when the last request has gone.
 */
#include "kit/streams.h"

/* ---- Taking a batch ---- */

static umo_status factories_make(umo_batch *batch, kit_flight *flight, umo_error *error)
{
    for (size_t i = 0; i < batch->count; i++) {
        umo_status status =
            kit_from_triton(TRITONBACKEND_ResponseFactoryNew(&flight->requests[i].factory,
                                                             batch->members[i]->triton),
                            error);
        if (status != UMO_OK) {
            while (i-- > 0) {
                (void)kit_from_triton(
                    TRITONBACKEND_ResponseFactoryDelete(flight->requests[i].factory), NULL);
            }
            return status;
        }
    }
    return UMO_OK;
}

/* Moves a request out of its instance, which gets empty arrays for it. */
static void request_move(umo_batch *batch, size_t index, umo_request *request)
{
    umo_instance *instance = batch->instance;
    kit_request *from = batch->members[index];
    kit_request spare = request->own;
    request->own = *from;
    *from = spare;
    from->triton = NULL;
    from->grouped = true;
    from->places = false;
    from->error.status = UMO_OK;
    batch->members[index] = &request->own;
    /* Found now, because from now on several threads look at them. */
    for (size_t i = 0; i < instance->model->input_count; i++) {
        kit_input *in = &request->own.inputs[i];
        if (in->present && in->data != NULL) {
            (void)kit_input_place(instance, &request->own, in);
        }
    }
    atomic_store(&request->cancelled, false);
    request->start_ns = instance->start_ns;
    request->open = 0;
    request->writer = NULL;
    request->behind = 0;
    request->finishing = false;
    request->ended = false;
    request->verdict.status = UMO_OK;
}

umo_status umo_batch_take(umo_batch *batch, umo_error *error)
{
    umo_model *model = batch->instance->model;
    bool fresh = batch->flight == NULL;
    for (size_t i = 0; i < model->input_count; i++) {
        fresh = fresh && !batch->inputs[i].used;
    }
    for (size_t i = 0; i < model->output_count; i++) {
        fresh = fresh && !batch->outputs[i].used;
    }
    if (!model->decoupled || !fresh) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             model->decoupled ? "the batch was taken, or its tensors are in use"
                                              : "model '%s' is not decoupled: its configuration "
                                                "needs model_transaction_policy",
                             model->name);
    }
    kit_flight *flight = kit_flight_take(model->streams, batch->count);
    if (flight == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a batch");
    }
    umo_status status = factories_make(batch, flight, error);
    if (status != UMO_OK) {
        kit_flight_give(model->streams, flight);
        return status;
    }
    for (size_t i = 0; i < batch->count; i++) {
        request_move(batch, i, &flight->requests[i]);
    }
    flight->instance = batch->instance;
    flight->alive = batch->count;
    flight->executing = true;
    flight->batch.count = batch->count;
    batch->flight = flight;
    return UMO_OK;
}

umo_request *umo_batch_request(umo_batch *batch, size_t request)
{
    return batch->flight != NULL && request < batch->count ? &batch->flight->requests[request]
                                                           : NULL;
}

bool umo_request_cancelled(umo_request *request)
{
    bool cancelled = atomic_load(&request->cancelled);
    if (!cancelled &&
        kit_from_triton(TRITONBACKEND_ResponseFactoryIsCancelled(request->factory, &cancelled),
                        NULL) == UMO_OK) {
        if (cancelled) {
            atomic_store(&request->cancelled, true);
        }
    }
    return cancelled;
}

int64_t umo_request_rows(const umo_request *request)
{
    return request->own.rows;
}

bool umo_request_wants_output(const umo_request *request, size_t output)
{
    return output < request->flight->instance->model->output_count &&
           request->own.outputs[output].wanted;
}

/* ---- The end of a request ---- */

/* Nothing of the engine's runs any more; lets go of what the batch's inputs hold. */
static void flight_land(kit_flight *flight)
{
    umo_status_ignore(umo_fence_wait(flight->batch.done, UINT64_MAX));
    umo_status_ignore(umo_fence_set_wait(&flight->batch.waits, UINT64_MAX));
    kit_batch_slots_finish(&flight->batch, true);
}

/* Before FINAL. */
void kit_stream_leave(umo_request *request)
{
    kit_flight *flight = request->flight;
    umo_model *model = flight->instance->model;
    if (flight->batch.count == 1) {
        flight_land(flight); /* the tensors of a longer batch are copies */
    }
    kit_request_leave(model, &request->own);
    kit_metrics_update(model->metrics, model->scope);
}

/* After FINAL. */
void kit_stream_release(umo_request *request)
{
    kit_flight *flight = request->flight;
    TRITONBACKEND_ModelInstance *instance = flight->instance->triton;
    TRITONBACKEND_Request *triton = request->own.triton;
    uint64_t end_ns = kit_now_ns();
    bool success = request->own.error.status == UMO_OK && request->verdict.status == UMO_OK;
    if (kit_recorded(flight->instance)) {
        kit_record_request(flight->instance->model, &request->own, 0, 0, end_ns - request->start_ns,
                           success                               ? UMO_OK
                           : request->own.error.status != UMO_OK ? request->own.error.status
                                                                 : request->verdict.status);
    }
    (void)kit_from_triton(
        TRITONBACKEND_ModelInstanceReportStatistics(instance, triton, success, request->start_ns,
                                                    request->start_ns, end_ns, end_ns),
        NULL);
    (void)kit_from_triton(TRITONBACKEND_ResponseFactoryDelete(request->factory), NULL);
    (void)pthread_mutex_lock(&flight->lock);
    bool last = --flight->alive == 0;
    (void)pthread_mutex_unlock(&flight->lock);
    if (last) {
        if (flight->batch.count > 1) {
            flight_land(flight);
        }
        kit_flight_give(flight->instance->model->streams, flight);
    }
    (void)kit_from_triton(TRITONBACKEND_RequestRelease(triton, TRITONSERVER_REQUEST_RELEASE_ALL),
                          NULL);
}

/* An error as the last response. */
static umo_status verdict_send(umo_request *request, uint64_t start_ns, umo_error *error)
{
    TRITONBACKEND_Response *response = NULL;
    umo_status status = UMO_OK;
    for (int i = 0; i < 2 && response == NULL; i++) {
        status = kit_from_triton(TRITONBACKEND_ResponseNewFromFactory(&response, request->factory),
                                 error);
    }
    if (status == UMO_OK) {
        TRITONSERVER_Error *failure = kit_request_failure(&request->own);
        (void)kit_from_triton(
            TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, failure),
            NULL);
        kit_statistics_report(request->statistics, request, start_ns, start_ns, failure);
        TRITONSERVER_ErrorDelete(failure);
    }
    return status;
}

/* Ends a request whose `ended` this caller has set. */
static void request_end(umo_request *request)
{
    const umo_model *model = request->flight->instance->model;
    umo_error error = {0};
    uint64_t start_ns = kit_now_ns();
    kit_stream_leave(request);
    if (request->verdict.status != UMO_OK) {
        (void)kit_request_fail(&request->own, request->verdict.status, "%s", request->verdict.text);
    }
    umo_status status = UMO_OK;
    bool failed = request->own.error.status != UMO_OK;
    if (failed) {
        request->own.cancelled = request->own.cancelled || umo_request_cancelled(request);
        status = verdict_send(request, start_ns, &error);
    }
    if (!failed || status != UMO_OK) {
        /* Without FINAL the client would wait for ever, so it is sent twice if need be. */
        for (int i = 0; i < 2; i++) {
            status = kit_from_triton(TRITONBACKEND_ResponseFactorySendFlags(
                                         request->factory, TRITONSERVER_RESPONSE_COMPLETE_FINAL),
                                     &error);
            if (status == UMO_OK) {
                break;
            }
        }
        if (status != UMO_OK) {
            umo_model_log(model, true, "a request goes without an end: %s", error.text);
        } else {
            kit_statistics_report(request->statistics, request, start_ns, 0, NULL);
        }
    }
    kit_stream_release(request);
}

/* Under the flight's lock: is it this caller who ends it? */
static bool request_may_end(umo_request *request)
{
    bool may =
        request->finishing && request->open == 0 && !request->ended && !request->flight->executing;
    request->ended = request->ended || may;
    return may;
}

void kit_stream_close(umo_request *request)
{
    (void)pthread_mutex_lock(&request->flight->lock);
    request->open--;
    bool end = request_may_end(request);
    (void)pthread_mutex_unlock(&request->flight->lock);
    if (end) {
        request_end(request);
    }
}

bool kit_stream_final(umo_request *request, bool final)
{
    (void)pthread_mutex_lock(&request->flight->lock);
    request->finishing = request->finishing || final;
    bool last = request->finishing && request->verdict.status == UMO_OK && request->open == 1 &&
                !request->flight->executing && !request->ended;
    request->ended = request->ended || last;
    (void)pthread_mutex_unlock(&request->flight->lock);
    return last;
}

void umo_request_finish(umo_request *request, umo_status status, const char *text)
{
    (void)pthread_mutex_lock(&request->flight->lock);
    if (request->verdict.status == UMO_OK && status != UMO_OK) {
        (void)umo_error_set(&request->verdict, status, 0, "%s", text);
    }
    request->finishing = true;
    bool end = request_may_end(request);
    (void)pthread_mutex_unlock(&request->flight->lock);
    if (end) {
        request_end(request);
    }
}

/* Delivers the states of a batch that was taken. */
static umo_status states_depart(umo_batch *batch, umo_error *error)
{
    const umo_model *model = batch->instance->model;
    bool placed = false;
    for (size_t i = 0; i < model->output_count; i++) {
        bool used = batch->outputs[i].used;
        placed = placed || used;
        if (model->outputs[i].source == UMO_IO_STATE && !used && umo_batch_wants_output(batch, i)) {
            return umo_error_set(error, UMO_E_SYSTEM, 0, "model '%s' gave no output '%s'",
                                 model->name, model->outputs[i].name);
        }
    }
    if (!placed) {
        return UMO_OK;
    }
    umo_status status = umo_fence_wait(batch->done, UINT64_MAX);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "the device failed while it ran model '%s'",
                             model->name);
    }
    batch->done = (umo_fence){0}; /* is spent */
    return kit_outputs_deliver(batch, error);
}

void kit_flight_depart(umo_batch *batch, umo_status status, const umo_error *error)
{
    const umo_model *model = batch->instance->model;
    kit_flight *flight = batch->flight;
    umo_error why = *error;
    if (status == UMO_OK) {
        status = states_depart(batch, &why);
    } else {
        umo_status_ignore(umo_fence_wait(batch->done, UINT64_MAX));
        batch->done = (umo_fence){0};
    }
    if (model->stateful) {
        kit_batch_check_places(batch); /* what was made of lost bytes is no state */
    }
    for (size_t i = 0; i < model->output_count; i++) {
        kit_slot_finish(batch, &batch->outputs[i], status == UMO_OK);
    }
    for (size_t i = 0; status != UMO_OK && i < batch->count; i++) {
        (void)kit_request_fail(batch->members[i], status, "%s",
                               why.text[0] != '\0' ? why.text : umo_status_name(status));
    }
    kit_states_update(batch);

    kit_slot *inputs = flight->batch.inputs;
    kit_slot *outputs = flight->batch.outputs;
    flight->batch = *batch;
    flight->batch.outputs = outputs;
    flight->batch.members = flight->members;
    batch->inputs = inputs;
    umo_request *ending = NULL;
    (void)pthread_mutex_lock(&flight->lock);
    flight->executing = false;
    for (size_t i = flight->batch.count; i-- > 0;) {
        umo_request *request = &flight->requests[i];
        request->finishing = request->finishing || request->own.error.status != UMO_OK;
        if (request_may_end(request)) {
            request->next = ending;
            ending = request;
        }
    }
    (void)pthread_mutex_unlock(&flight->lock);
    /* The flight is gone with the last of its requests. */
    while (ending != NULL) {
        umo_request *request = ending;
        ending = request->next;
        request_end(request);
    }
}
