/*
 * What the fake server has for sequences and decoupled models: states, factories, cancellation.
 *
 * A state that was handed over by TRITONBACKEND_StateUpdate is taken away at once, the memory of
 * the input too, so that a kit that still reads or writes it crashes.
 */
#include "allocations.h"
#include "fake_books.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;

TRITONSERVER_Error *TRITONBACKEND_RequestIsCancelled(TRITONBACKEND_Request *request,
                                                     bool *is_cancelled)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (request->releases != 0) {
        fake_violation("a request is asked for its cancellation after its release");
    }
    if (failed == NULL) {
        *is_cancelled = atomic_load(&request->cancelled);
    }
    return failed;
}

/* ---- States ---- */

fake_state *fake_sequence_add(fake_sequence *sequence, const char *input, const char *output,
                              TRITONSERVER_DataType dtype, uint32_t rank, const int64_t *dims,
                              const void *data, size_t size_bytes)
{
    fake_state *state = &sequence->states[sequence->count++];
    *state = (fake_state){.input = input,
                          .output = output,
                          .dtype = dtype,
                          .rank = rank,
                          .size_bytes = size_bytes,
                          .now = guarded_private(size_bytes),
                          .next = {.file = -1}};
    memcpy(state->dims, dims, rank * sizeof *dims);
    memcpy(state->now.data, data, size_bytes);
    return state;
}

void fake_sequence_join(fake_sequence *sequence, TRITONBACKEND_Request *request)
{
    request->sequence = sequence;
    for (uint32_t i = 0; i < sequence->count; i++) {
        fake_state *state = &sequence->states[i];
        TRITONBACKEND_Input *input =
            fake_input(request, state->input, state->dtype, state->rank, state->dims);
        fake_input_piece(input, state->now.data, state->size_bytes);
    }
}

void fake_sequence_destroy(fake_sequence *sequence)
{
    for (uint32_t i = 0; i < sequence->count; i++) {
        guarded_unmap(&sequence->states[i].now);
        guarded_unmap(&sequence->states[i].next);
    }
    sequence->count = 0;
}

static bool state_usable(const TRITONBACKEND_Request *request, const char *name)
{
    if (request->releases == 0 && request->finals == 0) {
        return true;
    }
    fake_violation("%s on a request that was answered", name);
    return false;
}

TRITONSERVER_Error *TRITONBACKEND_StateNew(TRITONBACKEND_State **state,
                                           TRITONBACKEND_Request *request, const char *name,
                                           const TRITONSERVER_DataType datatype,
                                           const int64_t *shape, const uint32_t dim_count)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !state_usable(request, __func__)) {
        return failed;
    }
    fake_state *found = NULL;
    for (uint32_t i = 0; request->sequence != NULL && i < request->sequence->count; i++) {
        if (strcmp(request->sequence->states[i].output, name) == 0) {
            found = &request->sequence->states[i];
        }
    }
    if (found == NULL || found->dtype != datatype) {
        fake_violation("no state %s of that type", name);
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, "no such state");
    }
    if (request->state_count == FAKE_STATES_MAX) {
        fake_violation("state %s is made too often", name);
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, "too many states");
    }
    TRITONBACKEND_State *made = &request->states[request->state_count++];
    *made = (struct TRITONBACKEND_State){.request = request, .state = found, .rank = dim_count};
    memcpy(made->dims, shape, dim_count * sizeof *shape);
    *state = made;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_StateBuffer(TRITONBACKEND_State *state, void **buffer,
                                              const uint64_t size_bytes,
                                              TRITONSERVER_MemoryType *memory_type,
                                              int64_t *memory_type_id)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !state_usable(state->request, __func__)) {
        return failed;
    }
    if (state->asked || state->updated) {
        fake_violation("the buffer of state %s is asked for twice", state->state->output);
    }
    state->asked = true;
    state->size_bytes = (size_t)size_bytes;
    *memory_type = state->request->gpu_outputs ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
    *memory_type_id = 0;
    fake_state *of = state->state;
    if (of->one_memory && of->size_bytes == state->size_bytes) {
        *buffer = of->now.data;
        return NULL;
    }
    guarded_unmap(&of->next); /* of a request that failed */
    of->next = guarded_private(state->size_bytes);
    *buffer = of->next.data;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_StateUpdate(TRITONBACKEND_State *state)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !state_usable(state->request, __func__)) {
        return failed;
    }
    fake_state *of = state->state;
    if (!state->asked || state->updated) {
        fake_violation("state %s is updated twice or without memory", of->output);
        return NULL;
    }
    state->updated = true;
    of->updates++;
    if (of->next.pages != NULL) {
        guarded_unmap(&of->now);
        of->now = of->next;
        of->next = (guarded){.file = -1};
    }
    of->rank = state->rank;
    memcpy(of->dims, state->dims, state->rank * sizeof state->dims[0]);
    of->size_bytes = state->size_bytes;
    return NULL;
}

/* ---- Factories ---- */

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory **factory,
                                                     TRITONBACKEND_Request *request)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL) {
        return failed;
    }
    if (request->releases != 0) {
        fake_violation("a factory of a request that was released");
    }
    *factory = plain_alloc(sizeof **factory);
    (*factory)->request = request;
    (void)pthread_mutex_lock(&lock);
    request->factories++;
    (void)pthread_mutex_unlock(&lock);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    (void)pthread_mutex_lock(&lock);
    factory->request->factories--;
    (void)pthread_mutex_unlock(&lock);
    free(factory);
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryIsCancelled(TRITONBACKEND_ResponseFactory *factory,
                                                             bool *is_cancelled)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *is_cancelled = atomic_load(&factory->request->cancelled);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory *factory,
                                                           const uint32_t send_flags)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL) {
        return failed;
    }
    TRITONBACKEND_Request *request = factory->request;
    if (send_flags != TRITONSERVER_RESPONSE_COMPLETE_FINAL || request->finals != 0 ||
        request->releases != 0) {
        fake_violation("flags %u after FINAL, after the release, or not FINAL", send_flags);
        return NULL;
    }
    request->finals++;
    fake_regions_leave(request);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response,
                                                         TRITONBACKEND_ResponseFactory *factory)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL) {
        return failed;
    }
    if (factory->request->finals != 0) {
        fake_violation("a response is made after FINAL");
    }
    *response = plain_alloc(sizeof **response);
    (*response)->request = factory->request;
    (*response)->streamed = true;
    (void)pthread_mutex_lock(&lock);
    factory->request->unsent++;
    (void)pthread_mutex_unlock(&lock);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response *response)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (!response->streamed || response->sent) {
        fake_violation("a response is deleted that is not the kit's");
        return failed;
    }
    (void)pthread_mutex_lock(&lock);
    response->request->unsent--;
    (void)pthread_mutex_unlock(&lock);
    fake_response_free(response);
    return failed;
}

/* ---- Statistics of responses ---- */

struct TRITONBACKEND_ModelInstanceResponseStatistics {
    TRITONBACKEND_ModelInstance *instance;
    TRITONBACKEND_ResponseFactory *factory;
    uint64_t start_ns;
    uint64_t output_ns;
    uint64_t end_ns;
    bool failed;
};

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsNew(
    TRITONBACKEND_ModelInstanceResponseStatistics **statistics)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *statistics = plain_alloc(sizeof **statistics);
        (void)pthread_mutex_lock(&lock);
        fake.statistics++;
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatisticsDelete(
    TRITONBACKEND_ModelInstanceResponseStatistics *statistics)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    (void)pthread_mutex_lock(&lock);
    fake.statistics--;
    (void)pthread_mutex_unlock(&lock);
    free(statistics);
    return failed;
}

/* A call that sets one field. */
#define SETTER(name, type, field, value)                                                           \
    TRITONSERVER_Error *TRITONBACKEND_ModelInstanceResponseStatistics##name(                       \
        TRITONBACKEND_ModelInstanceResponseStatistics *statistics, type given)                     \
    {                                                                                              \
        TRITONSERVER_Error *failed = fake_gate(__func__);                                          \
        if (failed == NULL) {                                                                      \
            statistics->field = value;                                                             \
        }                                                                                          \
        return failed;                                                                             \
    }

SETTER(SetModelInstance, TRITONBACKEND_ModelInstance *, instance, given)
SETTER(SetResponseFactory, TRITONBACKEND_ResponseFactory *, factory, given)
SETTER(SetResponseStart, const uint64_t, start_ns, given)
SETTER(SetComputeOutputStart, const uint64_t, output_ns, given)
SETTER(SetResponseEnd, const uint64_t, end_ns, given)
SETTER(SetError, TRITONSERVER_Error *, failed, given != NULL)

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportResponseStatistics(
    TRITONBACKEND_ModelInstanceResponseStatistics *statistics)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL) {
        return failed;
    }
    TRITONBACKEND_Request *request = statistics->factory->request;
    bool empty = !statistics->failed && statistics->output_ns == 0;
    (void)pthread_mutex_lock(&lock);
    request->told_failed += statistics->failed ? 1 : 0;
    request->told_empty += empty ? 1 : 0;
    request->told_full += !statistics->failed && !empty ? 1 : 0;
    unsigned told = request->told_failed + request->told_empty + request->told_full;
    bool early = told > request->streamed_count + request->finals;
    (void)pthread_mutex_unlock(&lock);
    uint64_t middle_ns = statistics->output_ns != 0 ? statistics->output_ns : statistics->end_ns;
    if (statistics->instance == NULL || early || request->releases != 0 ||
        statistics->start_ns > middle_ns || middle_ns > statistics->end_ns) {
        fake_violation("a response is reported before it was sent or after its request's release, "
                       "or its times run backwards");
    }
    return NULL;
}

void fake_stream_keep(TRITONBACKEND_Response *response)
{
    TRITONBACKEND_Request *request = response->request;
    (void)pthread_mutex_lock(&lock);
    TRITONBACKEND_Response **kept =
        plain_alloc((request->streamed_count + 1) * sizeof(TRITONBACKEND_Response *));
    if (request->streamed_count > 0) {
        memcpy(kept, request->streamed, request->streamed_count * sizeof(TRITONBACKEND_Response *));
    }
    free(request->streamed);
    request->streamed = kept;
    kept[request->streamed_count++] = response;
    request->unsent--;
    (void)pthread_mutex_unlock(&lock);
}

void fake_stream_released(TRITONBACKEND_Request *request, bool refused)
{
    (void)pthread_mutex_lock(&lock);
    request->releases += refused ? 0 : 1;
    request->release_refusals += refused ? 1 : 0;
    (void)pthread_cond_broadcast(&released);
    (void)pthread_mutex_unlock(&lock);
}

bool fake_request_wait(TRITONBACKEND_Request *request)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    (void)pthread_mutex_lock(&lock);
    int waited = 0;
    while (request->releases + request->release_refusals == 0 && waited != ETIMEDOUT) {
        waited = pthread_cond_timedwait(&released, &lock, &until);
    }
    bool done = request->releases + request->release_refusals != 0;
    (void)pthread_mutex_unlock(&lock);
    return done;
}
