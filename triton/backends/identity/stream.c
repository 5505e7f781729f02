/*
 * umo_identity's decoupled mode: each request is answered `repeat` times by a thread of its own,
 * which goes on when execute has returned. A thread a request is dear, and shows that any thread
 * may answer.
 */
#include "identity.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A request's part of an input of the batch, for each output that it asks for. */
typedef struct part {
    bool wanted;
    umo_dtype dtype;
    umo_shape shape;
    const char *data;
    size_t size_bytes;
} part;

typedef struct stream {
    identity_model *state;
    umo_request *request;
    part parts[];
} stream;

void identity_streams_init(identity_model *state)
{
    (void)pthread_mutex_init(&state->lock, NULL);
    (void)pthread_cond_init(&state->quiet, NULL);
}

void identity_streams_finish(identity_model *state)
{
    (void)pthread_mutex_lock(&state->lock);
    while (state->running > 0) {
        (void)pthread_cond_wait(&state->quiet, &state->lock);
    }
    (void)pthread_mutex_unlock(&state->lock);
    (void)pthread_cond_destroy(&state->quiet);
    (void)pthread_mutex_destroy(&state->lock);
}

static umo_status response_fill(const stream *s, umo_response *response, umo_error *error)
{
    for (size_t i = 0; i < s->state->output_count; i++) {
        const part *p = &s->parts[i];
        umo_status status = UMO_OK;
        umo_tensor to;
        if (p->wanted && p->dtype == UMO_BYTES) {
            status = umo_response_output_late(response, i, p->dtype, &p->shape, p->data,
                                              p->size_bytes, UMO_REASON_ENGINE_STRINGS, error);
        } else if (p->wanted) {
            status = umo_response_output(response, i, p->dtype, &p->shape, &to, error);
            if (status == UMO_OK && !s->state->touch_nothing && p->size_bytes > 0) {
                memmove(to.data, p->data, p->size_bytes);
            }
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static void stream_run(const stream *s)
{
    const identity_model *state = s->state;
    for (uint64_t number = 1; number <= state->repeat; number++) {
        if (state->response_delay_us > 0) {
            identity_pause(state->response_delay_us);
        }
        if (umo_request_cancelled(s->request)) {
            umo_request_finish(s->request, UMO_E_REFUSED, "the request was cancelled");
            return;
        }
        umo_response *response = NULL;
        umo_error error = {0};
        umo_status status = umo_response_begin(s->request, UINT64_MAX, &response, &error);
        if (status != UMO_OK) {
            umo_request_finish(s->request, status, error.text);
            return;
        }
        status = response_fill(s, response, &error);
        if (status != UMO_OK) {
            umo_response_fail(response, status, error.text);
        }
        if (number == state->error_at) {
            umo_response_fail(response, UMO_E_INVAL, "this response failed because of error_at");
        }
        /* One response at a time is open, so no earlier one is in the way. */
        umo_status_ignore(umo_response_send(response, (umo_fence){0}, false));
    }
    umo_request_finish(s->request, UMO_OK, NULL);
}

static void *stream_main(void *argument)
{
    stream *s = argument;
    identity_model *state = s->state;
    stream_run(s);
    free(s);
    (void)pthread_mutex_lock(&state->lock);
    if (--state->running == 0) {
        (void)pthread_cond_broadcast(&state->quiet);
    }
    (void)pthread_mutex_unlock(&state->lock);
    return NULL;
}

/* Bytes of the next `rows` rows of a tensor from *cursor on. */
static size_t rows_bytes(const umo_tensor *tensor, int64_t all, int64_t rows, size_t *cursor)
{
    size_t start = *cursor;
    if (tensor->dtype != UMO_BYTES) {
        *cursor += all > 0 ? tensor->size_bytes / (size_t)all * (size_t)rows : 0;
        return *cursor - start;
    }
    uint64_t count = 0;
    umo_status_ignore(umo_shape_count(&tensor->shape, &count));
    uint64_t elements = all > 0 ? count / (uint64_t)all * (uint64_t)rows : 0;
    for (uint64_t e = 0; e < elements; e++) {
        const void *element;
        size_t element_bytes;
        if (umo_bytes_next(tensor->data, tensor->size_bytes, cursor, &element, &element_bytes) !=
            UMO_OK) {
            break;
        }
    }
    return *cursor - start;
}

static umo_status parts_take(identity_model *state, umo_batch *batch, stream **streams,
                             umo_error *error)
{
    int64_t all = umo_batch_rows(batch);
    bool batching = umo_model_batch_max(state->model) > 0;
    size_t count;
    const umo_io *outputs = umo_model_outputs(state->model, &count);
    for (size_t i = 0; i < count; i++) {
        umo_tensor from;
        if (outputs[i].source == UMO_IO_STATE) {
            umo_status placed = identity_answer(state, batch, i, error);
            if (placed != UMO_OK) {
                return placed;
            }
            continue;
        }
        if (!umo_batch_wants_output(batch, i)) {
            continue;
        }
        umo_status status = umo_batch_input(batch, state->sources[i], &from, error);
        if (status != UMO_OK) {
            return status;
        }
        size_t cursor = 0;
        for (size_t r = 0; r < umo_batch_requests(batch); r++) {
            assert(streams[r] != NULL); /* all of them were made */
            umo_request *request = streams[r]->request;
            part *p = &streams[r]->parts[i];
            p->wanted = umo_request_wants_output(request, i);
            p->dtype = from.dtype;
            p->shape = from.shape;
            p->data = (const char *)from.data + cursor;
            p->size_bytes = rows_bytes(&from, all, umo_request_rows(request), &cursor);
            if (batching) {
                p->shape.dims[0] = umo_request_rows(request);
            }
        }
    }
    return UMO_OK;
}

/* Starts a thread; without one the request is answered here. */
static void stream_start(stream *s)
{
    assert(s != NULL); /* where one was not made the status says so */
    identity_model *state = s->state;
    (void)pthread_mutex_lock(&state->lock);
    state->running++;
    (void)pthread_mutex_unlock(&state->lock);
    pthread_t thread;
    if (pthread_create(&thread, NULL, stream_main, s) == 0) {
        (void)pthread_detach(thread);
    } else {
        (void)stream_main(s);
    }
}

umo_status identity_stream(identity_model *state, umo_batch *batch, umo_error *error)
{
    size_t count = umo_batch_requests(batch);
    umo_status status = umo_batch_take(batch, error);
    if (status != UMO_OK) {
        return status;
    }
    stream **streams = calloc(count, sizeof(stream *));
    bool complete = streams != NULL;
    for (size_t r = 0; complete && r < count; r++) {
        streams[r] = calloc(1, sizeof(stream) + state->output_count * sizeof(part));
        complete = streams[r] != NULL;
        if (complete) {
            streams[r]->state = state;
            streams[r]->request = umo_batch_request(batch, r);
        }
    }
    status = complete ? parts_take(state, batch, streams, error)
                      : umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an answer");
    for (size_t r = 0; streams != NULL && r < count; r++) {
        if (status == UMO_OK) {
            stream_start(streams[r]);
        } else {
            free(streams[r]);
        }
    }
    free(streams);
    return status;
}
