/*
 * What a decoupled model keeps: slots for its responses, a fixed number, which bounds the memory
 * that responses under way can take; and flights, as many as there ever were at once. Both are
 * given out again and again, so that a warm request allocates nothing.
 */
#include "kit/streams.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define SLOTS_DEFAULT 64
#define SLOTS_MAX 65536

static bool slot_init(const umo_model *model, umo_response *slot)
{
    slot->batch.inputs = calloc(model->input_count + 1, sizeof(kit_slot));
    slot->batch.outputs = calloc(model->output_count + 1, sizeof(kit_slot));
    slot->own.outputs = calloc(model->output_count + 1, sizeof(kit_output));
    slot->statistics = kit_statistics_create();
    return slot->batch.inputs != NULL && slot->batch.outputs != NULL && slot->own.outputs != NULL &&
           umo_mappings_create(&slot->instance.mappings, NULL) == UMO_OK;
}

static void slot_finish(umo_response *slot)
{
    free(slot->batch.inputs);
    free(slot->batch.outputs);
    free(slot->own.outputs);
    kit_statistics_destroy(slot->statistics);
    umo_mappings_destroy(slot->instance.mappings);
}

static void flight_destroy(kit_flight *flight)
{
    for (size_t i = 0; i < flight->capacity; i++) {
        assert(flight->requests != NULL); /* the capacity counts what was made of them */
        (void)pthread_mutex_destroy(&flight->requests[i].delivery);
        kit_statistics_destroy(flight->requests[i].statistics);
        free(flight->requests[i].own.inputs);
        free(flight->requests[i].own.outputs);
    }
    free(flight->requests);
    free(flight->members);
    free(flight->batch.inputs);
    free(flight->batch.outputs);
    (void)pthread_mutex_destroy(&flight->lock);
    free(flight);
}

static kit_flight *flight_create(const umo_model *model, size_t capacity)
{
    kit_flight *flight = calloc(1, sizeof *flight);
    if (flight == NULL) {
        return NULL;
    }
    (void)pthread_mutex_init(&flight->lock, NULL);
    flight->requests = calloc(capacity, sizeof *flight->requests);
    flight->members = calloc(capacity, sizeof(kit_request *));
    flight->batch.inputs = calloc(model->input_count + 1, sizeof(kit_slot));
    flight->batch.outputs = calloc(model->output_count + 1, sizeof(kit_slot));
    bool complete = flight->requests != NULL && flight->members != NULL &&
                    flight->batch.inputs != NULL && flight->batch.outputs != NULL;
    for (size_t i = 0; complete && i < capacity; i++) {
        umo_request *request = &flight->requests[i];
        request->flight = flight;
        (void)pthread_mutex_init(&request->delivery, NULL);
        request->statistics = kit_statistics_create();
        request->own.inputs = calloc(model->input_count + 1, sizeof(kit_input));
        request->own.outputs = calloc(model->output_count + 1, sizeof(kit_output));
        flight->members[i] = &request->own;
        flight->capacity++;
        complete = request->own.inputs != NULL && request->own.outputs != NULL;
    }
    if (!complete) {
        flight_destroy(flight);
        return NULL;
    }
    return flight;
}

static umo_status slot_count_read(const umo_model *model, size_t *out, umo_error *error)
{
    const char *text = umo_model_parameter(model, "response_slots");
    char *end = NULL;
    errno = 0;
    unsigned long long value = text != NULL ? strtoull(text, &end, 10) : SLOTS_DEFAULT;
    if (text != NULL && (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 ||
                         value == 0 || value > SLOTS_MAX)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter response_slots: '%s' is no integer from 1 to %d", text,
                             SLOTS_MAX);
    }
    *out = (size_t)value;
    return UMO_OK;
}

static void condition_init(pthread_cond_t *condition)
{
#ifdef __APPLE__
    (void)pthread_cond_init(condition, NULL);
#else
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
#endif
}

/* Waits until the time `until_ns` of kit_now_ns() at the latest. */
static void condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX) {
        (void)pthread_cond_wait(condition, lock);
        return;
    }
#ifdef __APPLE__
    uint64_t now_ns = kit_now_ns();
    uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    const struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u),
                                  .tv_nsec = (long)(left_ns % 1000000000u)};
    (void)pthread_cond_timedwait_relative_np(condition, lock, &left);
#else
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};
    (void)pthread_cond_timedwait(condition, lock, &until);
#endif
}

umo_status kit_streams_create(umo_model *model, umo_error *error)
{
    size_t count = 0;
    umo_status status = slot_count_read(model, &count, error);
    if (status != UMO_OK) {
        return status;
    }
    kit_streams *streams = calloc(1, sizeof *streams);
    if (streams == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a model");
    }
    streams->model = model;
    (void)pthread_mutex_init(&streams->lock, NULL);
    condition_init(&streams->freed);
    assert(count > 0);
    streams->slots = calloc(count, sizeof *streams->slots);
    bool complete = streams->slots != NULL;
    while (complete && streams->slot_count < count) {
        umo_response *slot = &streams->slots[streams->slot_count++];
        complete = slot_init(model, slot);
        slot->next = streams->free;
        streams->free = slot;
    }
    if (!complete) {
        kit_streams_destroy(streams);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a model");
    }
    model->streams = streams;
    return UMO_OK;
}

void kit_streams_destroy(kit_streams *streams)
{
    if (streams == NULL) {
        return;
    }
    while (streams->idle != NULL) {
        kit_flight *flight = streams->idle;
        streams->idle = flight->next;
        flight_destroy(flight);
    }
    for (size_t i = 0; i < streams->slot_count; i++) {
        assert(streams->slots != NULL); /* the count is of those that were made */
        slot_finish(&streams->slots[i]);
    }
    free(streams->slots);
    (void)pthread_cond_destroy(&streams->freed);
    (void)pthread_mutex_destroy(&streams->lock);
    free(streams);
}

/* A flight with room for so many requests. Those that are too short are not kept. */
kit_flight *kit_flight_take(kit_streams *streams, size_t count)
{
    (void)pthread_mutex_lock(&streams->lock);
    kit_flight *flight = streams->idle;
    if (flight != NULL) {
        streams->idle = flight->next;
    }
    (void)pthread_mutex_unlock(&streams->lock);
    if (flight != NULL && flight->capacity < count) {
        flight_destroy(flight);
        flight = NULL;
    }
    if (flight == NULL) {
        int64_t most = streams->model->batch_max;
        size_t usual = most > 0 && most < 64 ? (size_t)most : 1;
        flight = flight_create(streams->model, count > usual ? count : usual);
    }
    return flight;
}

void kit_flight_give(kit_streams *streams, kit_flight *flight)
{
    (void)pthread_mutex_lock(&streams->lock);
    flight->next = streams->idle;
    streams->idle = flight;
    (void)pthread_mutex_unlock(&streams->lock);
}

umo_response *kit_slot_take(kit_streams *streams, uint64_t timeout_ns)
{
    uint64_t now_ns = timeout_ns == 0 ? 0 : kit_now_ns();
    uint64_t until_ns = timeout_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
    (void)pthread_mutex_lock(&streams->lock);
    while (streams->free == NULL && timeout_ns > 0 &&
           (until_ns == UINT64_MAX || kit_now_ns() < until_ns)) {
        condition_wait(&streams->freed, &streams->lock, until_ns);
    }
    umo_response *slot = streams->free;
    if (slot != NULL) {
        streams->free = slot->next;
    }
    (void)pthread_mutex_unlock(&streams->lock);
    return slot;
}

void kit_slot_give(kit_streams *streams, umo_response *slot)
{
    (void)pthread_mutex_lock(&streams->lock);
    slot->next = streams->free;
    streams->free = slot;
    (void)pthread_cond_signal(&streams->freed);
    (void)pthread_mutex_unlock(&streams->lock);
}
