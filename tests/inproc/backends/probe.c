/* The entry points of both measuring backends; see probe.h. */
#include "probe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct probe_instance {
    const probe_model *model;
    void *scratch;
} probe_instance;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        TRITONSERVER_Error *try_error = (call);                                                    \
        if (try_error != NULL) {                                                                   \
            return try_error;                                                                      \
        }                                                                                          \
    } while (0)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static TRITONSERVER_Error *no_memory(void)
{
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
}

static void drop(TRITONSERVER_Error *error)
{
    if (error != NULL) {
        TRITONSERVER_ErrorDelete(error);
    }
}

/* ---- Configuration ---- */

static void model_destroy(probe_model *model)
{
    if (model == NULL) {
        return;
    }
    for (uint32_t i = 0; model->inputs != NULL && i < model->input_count; i++) {
        free(model->inputs[i]);
    }
    for (uint32_t i = 0; model->outputs != NULL && i < model->output_count; i++) {
        free(model->outputs[i].name);
    }
    free(model->inputs);
    free(model->outputs);
    free(model);
}

static bool output_parse(const json_t *from, probe_output *to)
{
    const char *type = json_string_value(json_object_get(from, "data_type"));
    const char *name = json_string_value(json_object_get(from, "name"));
    const json_t *dims = json_object_get(from, "dims");

    if (type == NULL || name == NULL || json_array_size(dims) > PROBE_MAX_DIMS - 1) {
        return false;
    }
    /* The configuration says TYPE_FP32 and TYPE_STRING, the ABI FP32 and BYTES. */
    type = strncmp(type, "TYPE_", 5) == 0 ? type + 5 : type;
    to->datatype = TRITONSERVER_StringToDataType(strcmp(type, "STRING") == 0 ? "BYTES" : type);
    to->name = strdup(name);
    to->fixed = to->datatype != TRITONSERVER_TYPE_BYTES;
    to->dim_count = (uint32_t)json_array_size(dims);
    for (uint32_t i = 0; i < to->dim_count; i++) {
        const json_t *dim = json_array_get(dims, i);

        /* 64-bit integers come as strings. */
        to->dims[i] = json_is_string(dim) ? strtoll(json_string_value(dim), NULL, 10)
                                          : json_integer_value(dim);
        to->fixed = to->fixed && to->dims[i] >= 0;
    }
    return to->name != NULL;
}

static bool model_parse(const json_t *config, probe_model *model)
{
    const json_t *inputs = json_object_get(config, "input");
    const json_t *outputs = json_object_get(config, "output");

    model->batched = json_integer_value(json_object_get(config, "max_batch_size")) > 0;
    model->input_count = (uint32_t)json_array_size(inputs);
    model->output_count = (uint32_t)json_array_size(outputs);
    model->inputs = calloc(model->input_count + 1, sizeof(*model->inputs));
    model->outputs = calloc(model->output_count + 1, sizeof(*model->outputs));
    if (model->inputs == NULL || model->outputs == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < model->input_count; i++) {
        const char *name = json_string_value(json_object_get(json_array_get(inputs, i), "name"));

        model->inputs[i] = name != NULL ? strdup(name) : NULL;
        if (model->inputs[i] == NULL) {
            return false;
        }
    }
    for (uint32_t i = 0; i < model->output_count; i++) {
        if (!output_parse(json_array_get(outputs, i), &model->outputs[i])) {
            return false;
        }
    }
    return model->input_count > 0;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *handle)
{
    TRITONSERVER_Message *message = NULL;
    const char *base = NULL;
    size_t size_bytes = 0;
    json_t *config = NULL;
    probe_model *model = calloc(1, sizeof(*model));
    TRITONSERVER_Error *error;

    if (model == NULL) {
        return no_memory();
    }
    error = TRITONBACKEND_ModelConfig(handle, 1, &message);
    if (error == NULL) {
        error = TRITONSERVER_MessageSerializeToJson(message, &base, &size_bytes);
        config = error == NULL ? json_loadb(base, size_bytes, 0, NULL) : NULL;
        drop(TRITONSERVER_MessageDelete(message));
    }
    if (error == NULL && (config == NULL || !model_parse(config, model))) {
        error = TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG,
                                      "the configuration must name all inputs and outputs");
    }
    json_decref(config);
    if (error == NULL) {
        error = TRITONBACKEND_ModelSetState(handle, model);
    }
    if (error != NULL) {
        model_destroy(model);
    }
    return error;
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *handle)
{
    void *model = NULL;

    TRY(TRITONBACKEND_ModelState(handle, &model));
    model_destroy(model);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *handle)
{
    TRITONBACKEND_Model *model = NULL;
    probe_instance *instance;
    void *state = NULL;

    TRY(TRITONBACKEND_ModelInstanceModel(handle, &model));
    TRY(TRITONBACKEND_ModelState(model, &state));
    instance = calloc(1, sizeof(*instance));
    if (instance == NULL) {
        return no_memory();
    }
    instance->model = state;
    return TRITONBACKEND_ModelInstanceSetState(handle, instance);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *handle)
{
    void *state = NULL;
    probe_instance *instance;

    TRY(TRITONBACKEND_ModelInstanceState(handle, &state));
    instance = state;
    if (instance != NULL) {
        probe_scratch_free(instance->model, instance->scratch);
        free(instance);
    }
    return NULL;
}

/* ---- Requests ---- */

TRITONSERVER_Error *probe_input_get(const probe_model *model, TRITONBACKEND_Request *request,
                                    uint32_t index, TRITONBACKEND_Input **input)
{
    return TRITONBACKEND_RequestInput(request, model->inputs[index], input);
}

static const probe_output *output_find(const probe_model *model, const char *name, uint32_t *index)
{
    for (uint32_t i = 0; i < model->output_count; i++) {
        if (strcmp(model->outputs[i].name, name) == 0) {
            *index = i;
            return &model->outputs[i];
        }
    }
    return NULL;
}

static uint64_t elements(const int64_t *shape, uint32_t dim_count)
{
    uint64_t count = 1;

    for (uint32_t i = 0; i < dim_count; i++) {
        count *= (uint64_t)shape[i];
    }
    return count;
}

TRITONSERVER_Error *probe_output_make(const probe_model *model, TRITONBACKEND_Request *request,
                                      TRITONBACKEND_Response *response, const char *name,
                                      probe_answer *answer)
{
    uint32_t index = 0;
    const probe_output *output = output_find(model, name, &index);
    TRITONBACKEND_Input *input = NULL;
    TRITONBACKEND_Output *handle = NULL;
    const int64_t *input_shape = NULL;
    const int64_t *shape;
    int64_t fixed_shape[PROBE_MAX_DIMS];
    uint32_t dim_count = 0;
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
    int64_t memory_type_id = 0;

    if (output == NULL) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, "no such output");
    }
    answer->input_index = index < model->input_count ? index : model->input_count - 1;
    TRY(probe_input_get(model, request, answer->input_index, &input));
    TRY(TRITONBACKEND_InputProperties(input, NULL, NULL, &input_shape, &dim_count,
                                      &answer->input_bytes, NULL));
    shape = input_shape;
    if (output->fixed) {
        uint32_t lead = model->batched ? 1 : 0;

        fixed_shape[0] = model->batched && dim_count > 0 ? input_shape[0] : 1;
        memcpy(fixed_shape + lead, output->dims, output->dim_count * sizeof(*output->dims));
        shape = fixed_shape;
        dim_count = output->dim_count + lead;
    }
    answer->size_bytes =
        output->datatype == TRITONSERVER_TYPE_BYTES
            ? answer->input_bytes
            : elements(shape, dim_count) * TRITONSERVER_DataTypeByteSize(output->datatype);
    TRY(TRITONBACKEND_ResponseOutput(response, &handle, name, output->datatype, shape, dim_count));
    return TRITONBACKEND_OutputBuffer(handle, &answer->buffer, answer->size_bytes, &memory_type,
                                      &memory_type_id);
}

void probe_send(TRITONBACKEND_Response *response, TRITONSERVER_Error *error)
{
    drop(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
    drop(error);
}

static uint64_t batch_size_of(const probe_model *model, TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Input *input = NULL;
    const int64_t *shape = NULL;
    uint32_t dim_count = 0;
    TRITONSERVER_Error *error = NULL;

    if (!model->batched) {
        return 1;
    }
    error = probe_input_get(model, request, 0, &input);
    if (error == NULL) {
        error = TRITONBACKEND_InputProperties(input, NULL, NULL, &shape, &dim_count, NULL, NULL);
    }
    drop(error);
    return error == NULL && dim_count > 0 ? (uint64_t)shape[0] : 1;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *handle,
                                                       TRITONBACKEND_Request **requests,
                                                       const uint32_t request_count)
{
    uint64_t start_ns = now_ns();
    uint64_t end_ns;
    uint64_t batch_size = 0;
    probe_instance *instance;
    void *state = NULL;
    bool *succeeded;

    TRY(TRITONBACKEND_ModelInstanceState(handle, &state));
    instance = state;
    succeeded = calloc(request_count, sizeof(*succeeded));
    if (succeeded == NULL) {
        return no_memory();
    }
    for (uint32_t i = 0; i < request_count; i++) {
        batch_size += batch_size_of(instance->model, requests[i]);
    }
    probe_execute(instance->model, &instance->scratch, requests, request_count, succeeded);
    end_ns = now_ns();
    /* All statistics before the first release: whoever has seen a release finds the counts. */
    for (uint32_t i = 0; i < request_count; i++) {
        drop(TRITONBACKEND_ModelInstanceReportStatistics(handle, requests[i], succeeded[i],
                                                         start_ns, start_ns, end_ns, end_ns));
    }
    drop(TRITONBACKEND_ModelInstanceReportBatchStatistics(handle, batch_size, start_ns, start_ns,
                                                          end_ns, end_ns));
    for (uint32_t i = 0; i < request_count; i++) {
        drop(TRITONBACKEND_RequestRelease(requests[i], TRITONSERVER_REQUEST_RELEASE_ALL));
    }
    free(succeeded);
    return NULL;
}
