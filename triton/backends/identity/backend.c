/*
 * umo_identity: answers every output with the input of the same place.
 *
 * It exists for tests and for measurement, so its own work is plain and named: one memcpy a tensor,
 * which stands for what an engine does, or, in mode "touch_nothing", no work at all, which shows
 * what a request costs by itself. A decoupled model answers several times (stream.c).
 */
#include "identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DELAY_MAX_US 60000000u
#define FAIL_EVERY_MAX 1000000000u
#define REPEAT_MAX 1000000u
/* How often a request that waits looks whether its client has gone. */
#define SLICE_US 2000u

/* "INPUTx" feeds "OUTPUTx"; any other output has the input of its own number. */
static size_t find_source(const umo_model *model, const char *output, size_t number)
{
    static const char prefix[] = "OUTPUT";
    if (strncmp(output, prefix, sizeof prefix - 1) == 0) {
        char name[256] = "INPUT";
        const char *suffix = output + sizeof prefix - 1;
        if (strlen(suffix) < sizeof name - sizeof "INPUT") {
            strcat(name, suffix);
            size_t count;
            (void)umo_model_inputs((umo_model *)model, &count);
            const size_t found = umo_model_find_input(model, name);
            if (found < count) {
                return found;
            }
        }
    }
    return number;
}

static umo_status read_number(const umo_model *model, const char *key, uint64_t max, uint64_t *out,
                              umo_error *error)
{
    const char *text = umo_model_parameter(model, key);
    *out = 0;
    if (text == NULL) {
        return UMO_OK;
    }
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > max) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter %s: '%s' is no integer from 0 to %" PRIu64, key, text, max);
    }
    *out = value;
    return UMO_OK;
}

static umo_status read_mode(identity_model *state, umo_error *error)
{
    const char *mode = umo_model_parameter(state->model, "mode");
    state->touch_nothing = mode != NULL && strcmp(mode, "touch_nothing") == 0;
    if (mode != NULL && !state->touch_nothing && strcmp(mode, "copy") != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter mode: '%s' is neither copy nor touch_nothing", mode);
    }
    return UMO_OK;
}

/* "OUTPUT=INPUT,OUTPUT=INPUT": what the parameter `sources` says of an output; count if nothing. */
static size_t chosen_source(const umo_model *model, const char *output)
{
    size_t count;
    (void)umo_model_inputs((umo_model *)(uintptr_t)model, &count);
    const char *at = umo_model_parameter(model, "sources");
    size_t length = strlen(output);
    while (at != NULL) {
        if (strncmp(at, output, length) == 0 && at[length] == '=') {
            char name[256] = "";
            const char *from = at + length + 1;
            size_t name_length = strcspn(from, ",");
            if (name_length < sizeof name) {
                memcpy(name, from, name_length);
                return umo_model_find_input(model, name);
            }
        }
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
    return count;
}

/* A state without a choice stays what it is. */
static size_t source_of(const umo_model *model, const umo_io *output, size_t number)
{
    size_t count;
    (void)umo_model_inputs((umo_model *)(uintptr_t)model, &count);
    size_t chosen = chosen_source(model, output->name);
    if (chosen < count) {
        return chosen;
    }
    return output->source == UMO_IO_STATE ? output->pair : find_source(model, output->name, number);
}

static umo_status map_outputs(identity_model *state, umo_error *error)
{
    size_t input_count;
    const umo_io *inputs = umo_model_inputs(state->model, &input_count);
    const umo_io *outputs = umo_model_outputs(state->model, &state->output_count);
    if (state->output_count == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the model's configuration has no outputs: list an input and an "
                             "output of the same type");
    }
    state->sources = calloc(state->output_count, sizeof *state->sources);
    if (state->sources == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an identity model");
    }
    for (size_t i = 0; i < state->output_count; i++) {
        const size_t source = source_of(state->model, &outputs[i], i);
        if (source >= input_count) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "output '%s' has no input: neither one of its name nor one of "
                                 "its number %zu",
                                 outputs[i].name, i);
        }
        if (inputs[source].dtype != outputs[i].dtype) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "output '%s' is %s, but its input '%s' is %s", outputs[i].name,
                                 umo_dtype_name(outputs[i].dtype), inputs[source].name,
                                 umo_dtype_name(inputs[source].dtype));
        }
        if (outputs[i].dtype == UMO_BYTES && state->touch_nothing) {
            return umo_error_set(
                error, UMO_E_UNSUPPORTED, 0,
                "output '%s' is BYTES, whose size is known only by reading: not in "
                "mode touch_nothing",
                outputs[i].name);
        }
        state->sources[i] = source;
    }
    return UMO_OK;
}

static void model_finish(void *opaque)
{
    identity_model *state = opaque;
    if (state != NULL) {
        identity_streams_finish(state);
        free(state->sources);
        free(state);
    }
}

static umo_status model_init(umo_model *model, void **out, umo_error *error)
{
    identity_model *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an identity model");
    }
    state->model = model;
    identity_streams_init(state);
    umo_status status = read_mode(state, error);
    if (status == UMO_OK) {
        status = read_number(model, "delay_us", DELAY_MAX_US, &state->delay_us, error);
    }
    if (status == UMO_OK) {
        status = read_number(model, "fail_every", FAIL_EVERY_MAX, &state->fail_every, error);
    }
    if (status == UMO_OK) {
        status = read_number(model, "repeat", REPEAT_MAX, &state->repeat, error);
        state->repeat += umo_model_parameter(model, "repeat") == NULL ? 1 : 0;
    }
    if (status == UMO_OK) {
        status =
            read_number(model, "response_delay_us", DELAY_MAX_US, &state->response_delay_us, error);
    }
    if (status == UMO_OK) {
        status = read_number(model, "error_at", REPEAT_MAX, &state->error_at, error);
    }
    if (status == UMO_OK) {
        status = map_outputs(state, error);
    }
    if (status != UMO_OK) {
        model_finish(state);
        return status;
    }
    /* Bytes are moved and never followed, so nothing steers here, whatever its type. */
    size_t count;
    umo_io *inputs = umo_model_inputs(model, &count);
    for (size_t i = 0; i < count; i++) {
        inputs[i].control = inputs[i].dtype == UMO_BYTES;
    }
    umo_io *outputs = umo_model_outputs(model, &count);
    for (size_t i = 0; i < count; i++) {
        outputs[i].overwrites = outputs[i].state && state->sources[i] == outputs[i].pair;
    }
    *out = state;
    return UMO_OK;
}

static umo_status instance_init(umo_instance *instance, void *model_state, void **state,
                                umo_error *error)
{
    (void)instance;
    (void)error;
    *state = model_state;
    return UMO_OK;
}

static void instance_finish(void *state)
{
    (void)state;
}

void identity_pause(uint64_t delay_us)
{
    struct timespec left = {.tv_sec = (time_t)(delay_us / 1000000),
                            .tv_nsec = (long)(delay_us % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* Has everybody gone? Those that have are failed. */
static bool all_cancelled(umo_batch *batch)
{
    size_t cancelled = 0;
    for (size_t i = 0; i < umo_batch_requests(batch); i++) {
        if (umo_batch_cancelled(batch, i)) {
            umo_batch_fail(batch, i, UMO_E_REFUSED, "the request was cancelled");
            cancelled++;
        }
    }
    return cancelled == umo_batch_requests(batch);
}

static bool delay(const identity_model *state, umo_batch *batch)
{
    for (uint64_t left = state->delay_us; left > 0;) {
        uint64_t slice = left < SLICE_US ? left : SLICE_US;
        identity_pause(slice);
        left -= slice;
        if (all_cancelled(batch)) {
            return false;
        }
    }
    return true;
}

umo_status identity_answer(const identity_model *state, umo_batch *batch, size_t output,
                           umo_error *error)
{
    const size_t input = state->sources[output];
    size_t count;
    umo_tensor from;
    umo_tensor to;
    if (!umo_batch_has_input(batch, input)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "input '%s' is absent, so output '%s' is too",
                             umo_model_inputs(state->model, &count)[input].name,
                             umo_model_outputs(state->model, &count)[output].name);
    }
    umo_status status = umo_batch_input(batch, input, &from, error);
    if (status != UMO_OK) {
        return status;
    }
    if (from.dtype == UMO_BYTES) {
        /* How many bytes the strings have is known only now. */
        return umo_batch_output_late(batch, output, UMO_BYTES, &from.shape, from.data,
                                     from.size_bytes, UMO_REASON_ENGINE_STRINGS, error);
    }
    status = umo_batch_output(batch, output, from.dtype, &from.shape, &to, error);
    if (status == UMO_OK && !state->touch_nothing && to.size_bytes > 0) {
        /* Input and output may be one memory, if the client says so. */
        memmove(to.data, from.data, to.size_bytes);
    }
    return status;
}

static umo_status execute(umo_instance *instance, void *opaque, umo_batch *batch, umo_error *error)
{
    (void)instance;
    identity_model *state = opaque;
    if (umo_model_decoupled(state->model)) {
        return identity_stream(state, batch, error);
    }
    if (!delay(state, batch)) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "all requests were cancelled");
    }
    for (size_t i = 0; i < state->output_count; i++) {
        if (umo_batch_wants_output(batch, i)) {
            umo_status status = identity_answer(state, batch, i, error);
            if (status != UMO_OK) {
                return status;
            }
        }
    }
    for (size_t i = 0; state->fail_every > 0 && i < umo_batch_requests(batch); i++) {
        if (atomic_fetch_add(&state->requests, 1) % state->fail_every == state->fail_every - 1) {
            umo_batch_fail(batch, i, UMO_E_INVAL, "this request failed because of fail_every");
        }
    }
    return UMO_OK;
}

const umo_backend umo_backend_table = {
    .name = "umo_identity",
    .model_init = model_init,
    .model_finish = model_finish,
    .instance_init = instance_init,
    .instance_finish = instance_finish,
    .execute = execute,
};
