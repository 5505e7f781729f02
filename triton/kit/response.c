/*
 * Responses of decoupled models. A response is a batch of one request with outputs alone, so that
 * it is placed, bound and delivered by the code that serves every other batch.
 */
#include "kit/streams.h"

static umo_model *model_of(const umo_response *response)
{
    return response->instance.model;
}

/* What placing needs of an instance never changes while requests live. */
static void response_prepare(umo_response *response, umo_request *request)
{
    const umo_instance *from = request->flight->instance;
    umo_instance *to = &response->instance;
    to->triton = from->triton;
    to->model = from->model;
    to->device = from->device;
    to->host = from->host;
    to->side = from->side;
    to->queue = from->queue;
    to->scratch = from->scratch;
    to->staging = from->staging;
    to->costs_known = from->costs_known;
    to->costs = from->costs;
    to->zero_copy_bytes = from->zero_copy_bytes;
    to->import_bytes = from->import_bytes;
    umo_mappings_forget(to->mappings);

    kit_request *own = &response->own;
    own->triton = request->own.triton;
    own->response = NULL;
    own->inputs = request->own.inputs;
    own->rows = request->own.rows;
    own->places = request->own.places;
    own->blank = false;
    own->cancelled = false;
    own->error.status = UMO_OK;
    for (size_t i = 0; i < to->model->output_count; i++) {
        kit_output *out = &own->outputs[i];
        *out = (kit_output){.wanted = request->own.outputs[i].wanted};
    }

    umo_batch *batch = &response->batch;
    batch->instance = to;
    response->member = own;
    batch->members = &response->member;
    batch->count = 1;
    batch->rows = own->rows;
    batch->arrival_order = true;
    batch->waits.count = 0;
    batch->done = (umo_fence){0};
    batch->flight = NULL;
    batch->crowded = false;
    response->request = request;
    response->behind = false;
    response->start_ns = kit_now_ns();
}

umo_status umo_response_begin(umo_request *request, uint64_t timeout_ns, umo_response **out,
                              umo_error *error)
{
    kit_flight *flight = request->flight;
    kit_streams *streams = flight->instance->model->streams;
    (void)pthread_mutex_lock(&flight->lock);
    bool over = request->finishing;
    request->open += over ? 0 : 1;
    (void)pthread_mutex_unlock(&flight->lock);
    if (over) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the request is being finished");
    }
    umo_response *response = kit_slot_take(streams, timeout_ns);
    if (response == NULL) {
        kit_stream_close(request);
        return umo_error_set(error, UMO_E_BUSY, 0, "all %zu response slots of the model are in use",
                             streams->slot_count);
    }
    response_prepare(response, request);
    umo_status status = kit_from_triton(
        TRITONBACKEND_ResponseNewFromFactory(&response->own.response, request->factory), error);
    if (status != UMO_OK) {
        kit_slot_give(streams, response);
        kit_stream_close(request);
        return status;
    }
    *out = response;
    return UMO_OK;
}

/* The right to write to the client's memory in place: one response of a request has it, while no
 * earlier one is still to be copied there. */
static bool writer_take(umo_response *response)
{
    umo_request *request = response->request;
    (void)pthread_mutex_lock(&request->flight->lock);
    size_t others = request->behind - (response->behind ? 1 : 0);
    if (request->writer == NULL && others == 0) {
        request->writer = response;
    }
    bool taken = request->writer == response;
    (void)pthread_mutex_unlock(&request->flight->lock);
    return taken;
}

static void writer_give(umo_response *response)
{
    umo_request *request = response->request;
    (void)pthread_mutex_lock(&request->flight->lock);
    if (request->writer == response) {
        request->writer = NULL;
    }
    (void)pthread_mutex_unlock(&request->flight->lock);
}

static void behind_set(umo_response *response, bool behind)
{
    umo_request *request = response->request;
    (void)pthread_mutex_lock(&request->flight->lock);
    if (behind && !response->behind) {
        request->behind++;
    } else if (!behind && response->behind) {
        request->behind--;
    }
    response->behind = behind;
    (void)pthread_mutex_unlock(&request->flight->lock);
}

/* Did it write, or will it, to memory that its client sees before it is sent? What is in place
 * there has a view. */
static bool writes_in_place(const umo_response *response)
{
    for (size_t i = 0; i < model_of(response)->output_count; i++) {
        const kit_slot *slot = &response->batch.outputs[i];
        const kit_output *out = &response->own.outputs[i];
        if (slot->used && (slot->late ? out->placed && out->place.client_writable
                                      : slot->in_place && slot->view != NULL)) {
            return true;
        }
    }
    return false;
}

/* Is an output of scratch memory to be copied to where its client sees it? */
static bool copies_to_client(umo_response *response, size_t output)
{
    kit_output *out = &response->own.outputs[output];
    return !response->batch.outputs[output].in_place && out->data != NULL && out->size_bytes > 0 &&
           kit_output_place(&response->instance, &response->own, out)->client_writable;
}

umo_status umo_response_output(umo_response *response, size_t output, umo_dtype dtype,
                               const umo_shape *shape, umo_tensor *out, umo_error *error)
{
    response->batch.crowded = !writer_take(response);
    umo_status status = umo_batch_output(&response->batch, output, dtype, shape, out, error);
    if (status == UMO_OK && copies_to_client(response, output)) {
        behind_set(response, true);
    }
    if (!response->batch.crowded && !writes_in_place(response)) {
        writer_give(response);
    }
    return status;
}

umo_status umo_response_output_late(umo_response *response, size_t output, umo_dtype dtype,
                                    const umo_shape *shape, const void *data, size_t size_bytes,
                                    umo_reason reason, umo_error *error)
{
    if (!writer_take(response)) {
        return umo_error_set(error, UMO_E_BUSY, 0,
                             "an earlier response of the request writes to its client's memory");
    }
    umo_status status = umo_batch_output_late(&response->batch, output, dtype, shape, data,
                                              size_bytes, reason, error);
    if (!writes_in_place(response)) {
        writer_give(response);
    }
    return status;
}

const umo_fence_set *umo_response_waits(const umo_response *response)
{
    return &response->batch.waits;
}

void umo_response_fail(umo_response *response, umo_status status, const char *text)
{
    (void)kit_request_fail(&response->own, status, "%s", text);
}

/* Waits for the work that writes it; the fence is spent afterwards. */
static umo_status response_wait(umo_response *response, umo_fence done)
{
    response->batch.done = done;
    umo_status status = umo_fence_wait(done, UINT64_MAX);
    umo_status waited = umo_fence_set_wait(&response->batch.waits, UINT64_MAX);
    return status != UMO_OK ? status : waited;
}

/* Memory that was asked for and that nobody wrote is not for a client to see. */
static void outputs_check(umo_response *response)
{
    const umo_model *model = model_of(response);
    for (size_t i = 0; i < model->output_count; i++) {
        if (response->own.outputs[i].asked && !response->batch.outputs[i].used) {
            (void)kit_request_fail(&response->own, UMO_E_SYSTEM, "model '%s' gave no output '%s'",
                                   model->name, model->outputs[i].name);
        }
    }
}

/* Brings the outputs to the client; status is that of the work. */
static void response_deliver(umo_response *response, umo_status status)
{
    umo_batch *batch = &response->batch;
    umo_model *model = model_of(response);
    umo_error error = {0};
    if (status != UMO_OK) {
        (void)umo_error_set(&error, status, 0, "the device failed while it ran model '%s'",
                            model->name);
    } else if (response->own.error.status == UMO_OK) {
        outputs_check(response);
        status = kit_outputs_deliver(batch, &error);
    }
    kit_batch_check_places(batch);
    if (status != UMO_OK) {
        (void)kit_request_fail(&response->own, status, "%s", error.text);
    }
    kit_batch_slots_finish(batch, status == UMO_OK);
}

/* Lets go of the outputs' places; those of the inputs are the request's. */
static void response_leave(umo_response *response)
{
    for (size_t i = 0; i < model_of(response)->output_count; i++) {
        kit_output *out = &response->own.outputs[i];
        if (out->placed) {
            umo_view_release(out->place.view);
            out->placed = false;
        }
    }
}

static bool has_outputs(const umo_response *response)
{
    bool any = false;
    for (size_t i = 0; i < model_of(response)->output_count && !any; i++) {
        any = response->own.outputs[i].asked;
    }
    return any;
}

static bool is_behind(const umo_response *response)
{
    umo_request *request = response->request;
    (void)pthread_mutex_lock(&request->flight->lock);
    bool behind = response->behind && request->writer != NULL && request->writer != response;
    (void)pthread_mutex_unlock(&request->flight->lock);
    return behind;
}

umo_status umo_response_send(umo_response *response, umo_fence done, bool final)
{
    umo_request *request = response->request;
    umo_model *model = model_of(response);
    if (is_behind(response)) {
        return UMO_E_BUSY;
    }
    umo_status status = response_wait(response, done);
    (void)pthread_mutex_lock(&request->delivery);
    uint64_t output_ns = has_outputs(response) ? kit_now_ns() : 0;
    response_deliver(response, status);
    response_leave(response);
    kit_metrics_update(model->metrics, model->scope);
    bool last = kit_stream_final(request, final);
    if (last) {
        kit_stream_leave(request);
    }
    if (response->own.error.status != UMO_OK) {
        response->own.cancelled = umo_request_cancelled(request);
    }
    TRITONSERVER_Error *failure = kit_request_failure(&response->own);
    (void)kit_from_triton(
        TRITONBACKEND_ResponseSend(response->own.response,
                                   last ? TRITONSERVER_RESPONSE_COMPLETE_FINAL : 0, failure),
        NULL);
    kit_statistics_report(response->statistics, request, response->start_ns, output_ns, failure);
    if (failure != NULL) {
        TRITONSERVER_ErrorDelete(failure);
    }
    writer_give(response);
    behind_set(response, false);
    if (last && response->own.error.status != UMO_OK) {
        request->own.error = response->own.error; /* it ends with a failure */
    }
    (void)pthread_mutex_unlock(&request->delivery);
    kit_slot_give(model->streams, response);
    if (last) {
        kit_stream_release(request);
    } else {
        kit_stream_close(request);
    }
    return UMO_OK;
}

void umo_response_drop(umo_response *response, umo_fence done)
{
    umo_request *request = response->request;
    umo_status_ignore(response_wait(response, done));
    kit_batch_slots_finish(&response->batch, false);
    response_leave(response);
    (void)kit_from_triton(TRITONBACKEND_ResponseDelete(response->own.response), NULL);
    writer_give(response);
    behind_set(response, false);
    kit_slot_give(model_of(response)->streams, response);
    kit_stream_close(request);
}
