/*
 * Models, jobs and their right answers; see world.h.
 */
#include "world.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define REQUESTS_MAX 64

void world_start(world *w)
{
    *w = (world){0};
    fake_reset();
    memset(&engine, 0, sizeof engine);
    kit_metrics_period_ns = UINT64_MAX; /* no thread that makes calls on its own */
    assert_int_equal(umo_context_default_acquire(NULL, &w->context, NULL), UMO_OK);
}

void world_finish(world *w)
{
    (void)allocations_stop();
    fake.fail_at = 0;
    fake.fail_name = NULL;
    fake_expect_clean();
    (void)umo_registry_sweep(umo_context_registry(w->context));
    umo_registry_stats stats;
    umo_registry_read(umo_context_registry(w->context), &stats);
    assert_int_equal(stats.views, 0);
    assert_int_equal(stats.wraps, 0);
    umo_counters counters;
    umo_scope_read(umo_context_scope(w->context), &counters);
    assert_int_equal(counters.live_buffers, 0);
    assert_int_equal(counters.live_bytes, 0);
    umo_context_default_release(w->context);
    umo_device_release(engine.device);
    engine.device = NULL;
}

static size_t tensor_write(char *text, size_t size, const char *kind, size_t index,
                           const model_tensor *tensor, bool optional)
{
    size_t used = (size_t)snprintf(
        text, size, "%s{\"name\": \"%s%zu\", \"data_type\": \"TYPE_%s\", \"dims\": [",
        index > 0 ? ", " : "", kind, index,
        tensor->dtype == UMO_BYTES ? "STRING" : umo_dtype_name(tensor->dtype));
    for (uint32_t d = 0; d < tensor->dims.rank; d++) {
        used += (size_t)snprintf(text + used, size - used, "%s\"%lld\"", d > 0 ? ", " : "",
                                 (long long)tensor->dims.dims[d]);
    }
    return used + (size_t)snprintf(text + used, size - used, "]%s}",
                                   optional ? ", \"optional\": true" : "");
}

/* The input that an output is made of. */
static size_t source_of(const model_plan *plan, size_t output)
{
    return output < plan->input_count ? output : plan->input_count - 1;
}

void world_configure(world *w, const model_plan *plan)
{
    char *text = w->config;
    size_t size = sizeof w->config;
    w->plan = plan;
    size_t used = (size_t)snprintf(text, size, "{\"max_batch_size\": %lld, \"input\": [",
                                   (long long)plan->batch_max);
    for (size_t i = 0; i < plan->input_count; i++) {
        used += tensor_write(text + used, size - used, "INPUT", i, &plan->inputs[i],
                             plan->inputs[i].optional);
    }
    used += (size_t)snprintf(text + used, size - used, "], \"output\": [");
    for (size_t i = 0; i < plan->output_count; i++) {
        used += tensor_write(text + used, size - used, "OUTPUT", i,
                             &plan->inputs[source_of(plan, i)], false);
    }
    used += (size_t)snprintf(text + used, size - used, "]");
    if (plan->unified != NULL) {
        used += (size_t)snprintf(text + used, size - used,
                                 ", \"parameters\": {\"unified_memory\": {\"string_value\": \"");
        for (const char *c = plan->unified; *c != '\0'; c++) {
            used += (size_t)snprintf(text + used, size - used, *c == '"' ? "\\%c" : "%c", *c);
        }
        used += (size_t)snprintf(text + used, size - used, "\"}}");
    }
    (void)snprintf(text + used, size - used, "%s}", plan->extra != NULL ? plan->extra : "");
    fake.config = text;
}

bool world_load(world *w)
{
    if (!fake_model_load(&w->model, "fake", w->text)) {
        return false;
    }
    if (fake_instance_load(&w->instance, &w->model, "fake_0", w->text)) {
        return true;
    }
    char ignored[FAKE_TEXT_BYTES];
    if (!fake_model_unload(&w->model, ignored)) {
        assert_true(fake_model_unload(&w->model, ignored));
    }
    return false;
}

void world_load_ok(world *w, const model_plan *plan)
{
    world_configure(w, plan);
    if (!world_load(w)) {
        fail_msg("the model does not load: %s", w->text);
    }
}

void world_unload(world *w)
{
    if (!fake_instance_unload(&w->instance, w->text)) {
        assert_true(fake_instance_unload(&w->instance, w->text));
    }
    if (!fake_model_unload(&w->model, w->text)) {
        assert_true(fake_model_unload(&w->model, w->text));
    }
}

umo_counters world_counters(const world *w)
{
    umo_counters counters;
    umo_scope_read(umo_model_scope(w->model.state), &counters);
    return counters;
}

umo_device *world_device(uint64_t delay_ns, bool test_mode)
{
    const umo_driver_options options = {.delay_ns = delay_ns, .test_mode = test_mode};
    umo_device *device = NULL;
    assert_int_equal(umo_device_open("host", 0, &options, &device, NULL), UMO_OK);
    return device;
}

bool world_execute(world *w, job *jobs, size_t count)
{
    TRITONBACKEND_Request *requests[REQUESTS_MAX];
    for (size_t i = 0; i < count; i++) {
        requests[i] = jobs[i].request;
    }
    return fake_execute(&w->instance, requests, (uint32_t)count);
}

/* ---- Jobs ---- */

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Strings of 0 to 9 bytes each, serialized. */
static size_t strings_fill(char **out, uint64_t count, unsigned *seed)
{
    char *data = plain_alloc((size_t)count * 13 + 1);
    size_t used = 0;
    for (uint64_t e = 0; e < count; e++) {
        uint32_t length = next_random(seed) % 10;
        memcpy(data + used, &length, sizeof length);
        used += sizeof length;
        for (uint32_t i = 0; i < length; i++) {
            data[used++] = (char)next_random(seed);
        }
    }
    *out = data;
    return used;
}

void job_start(job *j, const model_plan *plan, int64_t rows, int64_t length, unsigned seed)
{
    *j = (job){.plan = plan, .request = fake_request_create(), .rows = rows};
    for (size_t i = 0; i < plan->input_count; i++) {
        const model_tensor *tensor = &plan->inputs[i];
        umo_shape *shape = &j->shapes[i];
        if (plan->batch_max > 0) {
            shape->dims[shape->rank++] = rows;
        }
        for (uint32_t d = 0; d < tensor->dims.rank; d++) {
            int64_t dim = tensor->dims.dims[d];
            shape->dims[shape->rank++] = dim < 0 ? length : dim;
        }
        uint64_t count = 0;
        assert_int_equal(umo_shape_count(shape, &count), UMO_OK);
        if (tensor->dtype == UMO_BYTES) {
            j->sizes[i] = strings_fill(&j->contents[i], count, &seed);
            continue;
        }
        j->sizes[i] = (size_t)count * umo_dtype_size(tensor->dtype);
        j->contents[i] = plain_alloc(j->sizes[i]);
        for (size_t b = 0; b < j->sizes[i]; b++) {
            j->contents[i][b] = (char)next_random(&seed);
        }
    }
}

void job_finish(job *j)
{
    fake_request_destroy(j->request);
    for (size_t i = 0; i < MODEL_TENSORS_MAX; i++) {
        free(j->contents[i]);
    }
    for (size_t i = 0; i < j->region_count; i++) {
        fake_region_destroy(j->regions[i]);
    }
}

static TRITONBACKEND_Input *input_add(job *j, size_t input)
{
    static const char *const names[MODEL_TENSORS_MAX] = {"INPUT0", "INPUT1", "INPUT2", "INPUT3"};
    j->present[input] = true;
    j->inputs[input] =
        fake_input(j->request, names[input], (TRITONSERVER_DataType)j->plan->inputs[input].dtype,
                   j->shapes[input].rank, j->shapes[input].dims);
    return j->inputs[input];
}

void job_input_at(job *j, size_t input, char *data)
{
    if (j->sizes[input] > 0) {
        memcpy(data, j->contents[input], j->sizes[input]);
    }
    fake_input_piece(input_add(j, input), data, j->sizes[input]);
}

void job_input_own(job *j, size_t input, bool shared)
{
    fake_region *region = fake_region_create(j->sizes[input], shared, false);
    j->regions[j->region_count++] = region;
    fake_request_hold(j->request, region);
    job_input_at(j, input, region->memory.data);
}

void job_input_split(job *j, size_t input)
{
    TRITONBACKEND_Input *in = j->inputs[input];
    uint64_t half = in->size_bytes / 2;
    in->pieces[0].size_bytes = half;
    in->size_bytes = half;
    fake_input_piece(in, j->contents[input] + half, j->sizes[input] - half);
}

void job_want(job *j, size_t output, char *data)
{
    static const char *const names[MODEL_TENSORS_MAX] = {"OUTPUT0", "OUTPUT1", "OUTPUT2",
                                                         "OUTPUT3"};
    j->wants[output] = true;
    fake_want_output(j->request, names[output], data, job_output_bytes(j, output));
}

void job_simple(job *j, const model_plan *plan, int64_t rows, int64_t length, unsigned seed)
{
    job_start(j, plan, rows, length, seed);
    for (size_t i = 0; i < plan->input_count; i++) {
        job_input_own(j, i, false);
    }
    for (size_t o = 0; o < plan->output_count; o++) {
        job_want(j, o, NULL);
    }
}

/* The shape of an output. */
static umo_shape output_shape(const job *j, size_t output)
{
    size_t source = source_of(j->plan, output);
    umo_shape shape = j->shapes[source];
    const model_tensor *tensor = &j->plan->inputs[source];
    uint32_t skip = j->plan->batch_max > 0 ? 1 : 0;
    for (uint32_t d = 0; !j->present[source] && d < tensor->dims.rank; d++) {
        shape.dims[d + skip] = tensor->dims.dims[d] < 0 ? 1 : tensor->dims.dims[d];
    }
    return shape;
}

size_t job_output_bytes(const job *j, size_t output)
{
    size_t source = source_of(j->plan, output);
    if (j->present[source]) {
        return j->sizes[source];
    }
    umo_shape shape = output_shape(j, output);
    uint64_t size_bytes = 0;
    umo_status_ignore(umo_shape_bytes(&shape, j->plan->inputs[source].dtype, &size_bytes));
    return (size_t)size_bytes;
}

static void output_expect_right(const job *j, size_t output)
{
    size_t source = source_of(j->plan, output);
    char name[16];
    (void)snprintf(name, sizeof name, "OUTPUT%zu", output);
    const struct TRITONBACKEND_Output *received = fake_received(j->request, name);
    if (received == NULL) {
        fail_msg("no %s arrived", name);
        return;
    }
    umo_dtype dtype = j->plan->inputs[source].dtype;
    umo_shape shape = output_shape(j, output);
    assert_int_equal(received->dtype, dtype);
    assert_int_equal(received->rank, shape.rank);
    assert_memory_equal(received->dims, shape.dims, shape.rank * sizeof shape.dims[0]);
    assert_int_equal(received->size_bytes, job_output_bytes(j, output));
    for (size_t i = 0; i < received->size_bytes; i++) {
        unsigned char byte = j->present[source] ? (unsigned char)j->contents[source][i] : 0;
        unsigned char want = !j->present[source]  ? ABSENT_BYTE
                             : dtype == UMO_BYTES ? byte
                                                  : engine_byte(byte, output);
        if ((unsigned char)received->received[i] != want) {
            fail_msg("%s: byte %zu of %zu is %02x, not %02x", name, i, received->size_bytes,
                     (unsigned)(unsigned char)received->received[i], (unsigned)want);
        }
    }
}

void job_expect_right(const job *j)
{
    fake_request_expect_answered(j->request);
    if (j->request->text[0] != '\0') {
        fail_msg("the request failed: %s", j->request->text);
    }
    uint32_t wanted = 0;
    for (size_t o = 0; o < j->plan->output_count; o++) {
        if (j->wants[o]) {
            wanted++;
            output_expect_right(j, o);
        }
    }
    assert_int_equal(j->request->response.output_count, wanted);
}

void job_expect_failed(const job *j, const char *words)
{
    fake_request_expect_answered(j->request);
    if (strstr(j->request->text, words) == NULL) {
        fail_msg("the answer is '%s', without '%s'", j->request->text, words);
    }
}
