/*
 * The engine of decoupled models; see streamer.h.
 */
#include "streamer.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <setjmp.h>

#include <cmocka.h>

const model_plan stream_single = {
    .batch_max = 0,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .extra = DECOUPLED,
};

const model_plan stream_batching = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .extra = DECOUPLED,
};

stream_settings how = {.gate = PTHREAD_MUTEX_INITIALIZER};

void stream_reset(unsigned responses)
{
    how.responses = responses;
    how.final = false;
    how.empty = false;
    how.bad = 0;
    how.fate = UMO_OK;
    how.in_execute = false;
    how.drops = false;
    how.until_cancelled = false;
    how.threads = 0;
    how.problems = 0;
}

typedef struct stream {
    umo_request *request;
    const char *data; /* of its rows */
    size_t size_bytes;
    umo_shape shape;
} stream;

void stream_must(umo_status status)
{
    if (status != UMO_OK) {
        atomic_fetch_add(&how.problems, 1);
    }
}

/* One response: the input's bytes, changed for the output that its number is. */
static bool answer(const stream *s, unsigned number, bool last)
{
    umo_response *response = NULL;
    umo_error error = {0};
    umo_status status = umo_response_begin(s->request, UINT64_MAX, &response, &error);
    if (status != UMO_OK) {
        umo_request_finish(s->request, status, error.text);
        return false;
    }
    umo_tensor to;
    if (!how.empty) {
        status = umo_response_output(response, 0, UMO_UINT8, &s->shape, &to, &error);
        for (size_t i = 0; status == UMO_OK && i < to.size_bytes; i++) {
            ((unsigned char *)to.data)[i] = engine_byte((unsigned char)s->data[i], number);
        }
        if (status != UMO_OK) {
            umo_response_fail(response, status, error.text);
        }
    }
    if (number == how.bad) {
        umo_response_fail(response, UMO_E_DEVICE, "this response failed");
    }
    stream_must(umo_response_send(response, (umo_fence){0}, last));
    return true;
}

static void stream_run(const stream *s)
{
    for (unsigned number = 1; number <= how.responses; number++) {
        if (how.until_cancelled && umo_request_cancelled(s->request)) {
            umo_request_finish(s->request, UMO_E_REFUSED, "stopped");
            return;
        }
        bool last = how.final && number == how.responses;
        if (!answer(s, number, last) || last) {
            return;
        }
    }
    umo_response *extra = NULL;
    if (how.drops && umo_response_begin(s->request, 0, &extra, NULL) == UMO_OK) {
        umo_tensor to;
        stream_must(umo_response_output(extra, 0, UMO_UINT8, &s->shape, &to, NULL));
        umo_response_drop(extra, (umo_fence){0});
    }
    umo_request_finish(s->request, how.fate, "the whole request failed");
}

static void *stream_main(void *argument)
{
    stream *s = argument;
    (void)pthread_mutex_lock(&how.gate);
    (void)pthread_mutex_unlock(&how.gate);
    stream_run(s);
    free(s);
    atomic_fetch_sub(&how.threads, 1);
    return NULL;
}

void stream_threads_wait(void)
{
    while (atomic_load(&how.threads) != 0) {
        const struct timespec moment = {.tv_nsec = 100000};
        (void)nanosleep(&moment, NULL);
    }
    assert_int_equal(how.problems, 0);
}

umo_status stream_engine(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_status status = umo_batch_take(batch, error);
    umo_tensor in;
    if (status == UMO_OK) {
        status = umo_batch_input(batch, 0, &in, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    size_t count = umo_batch_requests(batch);
    const char *data = in.data;
    for (size_t i = 0; i < count; i++) {
        stream *s = plain_alloc(sizeof *s);
        *s = (stream){umo_batch_request(batch, i), data, in.size_bytes / count, in.shape};
        if (s->shape.rank == 2) {
            s->shape.dims[0] = 1;
        }
        data += s->size_bytes;
        if (how.in_execute) {
            stream_run(s);
            free(s);
            continue;
        }
        atomic_fetch_add(&how.threads, 1);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, stream_main, s), 0);
        (void)pthread_detach(thread);
    }
    return UMO_OK;
}

void stream_start(world *w, model_plan *plan, const model_plan *base, const char *unified)
{
    *plan = *base;
    plan->unified = unified;
    world_start(w);
    engine.run = stream_engine;
    world_load_ok(w, plan);
}

void stream_end(world *w)
{
    world_unload(w);
    world_finish(w);
}

void stream_expect_response(const job *j, unsigned at)
{
    const TRITONBACKEND_Response *response = j->request->streamed[at];
    assert_string_equal(response->text, "");
    const struct TRITONBACKEND_Output *out = fake_response_output(response, "OUTPUT0");
    assert_non_null(out);
    assert_int_equal(out->size_bytes, j->sizes[0]);
    for (size_t i = 0; i < out->size_bytes; i++) {
        assert_int_equal((unsigned char)out->received[i],
                         engine_byte((unsigned char)j->contents[0][i], at + 1));
    }
}

void stream_expect_right(const job *j, unsigned responses)
{
    fake_request_expect_answered(j->request);
    assert_string_equal(j->request->text, "");
    assert_int_equal(j->request->streamed_count, responses);
    for (unsigned i = 0; i < responses; i++) {
        stream_expect_response(j, i);
    }
}
