/* A backend that calls everything the server offers to backends and checks what it gets.
 *
 * A wrong signature compiles and links: only a call with known answers shows it. abi_test.c sends
 * requests whose every property it fixed; this side looks at them through each call of the ABI. The
 * first expectation that does not hold becomes the error of the load or of the response, with its
 * line. Not here: MemoryManagerAllocate of GPU memory, which a server without a GPU refuses. */
#include "triton_abi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Both leave the function with an error that names the line. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return unexpected(__LINE__, #condition);                                               \
        }                                                                                          \
    } while (0)
#define CALL(call)                                                                                 \
    do {                                                                                           \
        TRITONSERVER_Error *call_error = (call);                                                   \
        if (call_error != NULL) {                                                                  \
            return call_error;                                                                     \
        }                                                                                          \
    } while (0)

static int backend_mark;
static int model_mark;
static int instance_mark;

static TRITONSERVER_Error *unexpected(int line, const char *condition)
{
    char text[512];

    snprintf(text, sizeof(text), "abi_probe.c:%d: not so: %s", line, condition);
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, text);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool text_has(const char *base, size_t size_bytes, const char *part)
{
    char *copy = strndup(base, size_bytes);
    bool found = copy != NULL && strstr(copy, part) != NULL;

    free(copy);
    return found;
}

static TRITONSERVER_Error *message_expect(TRITONSERVER_Message *message, const char *part)
{
    const char *base = NULL;
    size_t size_bytes = 0;

    CALL(TRITONSERVER_MessageSerializeToJson(message, &base, &size_bytes));
    if (!text_has(base, size_bytes, part)) {
        return unexpected(__LINE__, part);
    }
    return NULL;
}

/* One entry of CPU memory, for the two calls that report what a model uses. */
static TRITONSERVER_Error *usage_make(TRITONSERVER_BufferAttributes **usage, size_t size_bytes)
{
    CALL(TRITONSERVER_BufferAttributesNew(usage));
    CALL(TRITONSERVER_BufferAttributesSetMemoryType(*usage, TRITONSERVER_MEMORY_CPU));
    CALL(TRITONSERVER_BufferAttributesSetMemoryTypeId(*usage, 0));
    return TRITONSERVER_BufferAttributesSetByteSize(*usage, size_bytes);
}

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    uint32_t major = 0;
    uint32_t minor = 0;
    const char *name = NULL;
    const char *location = NULL;
    TRITONSERVER_Message *config = NULL;
    TRITONBACKEND_MemoryManager *manager = NULL;
    TRITONBACKEND_ArtifactType artifact = (TRITONBACKEND_ArtifactType)7;
    TRITONBACKEND_ExecutionPolicy policy = (TRITONBACKEND_ExecutionPolicy)7;
    void *state = &state;
    void *block = NULL;

    CALL(TRITONBACKEND_ApiVersion(&major, &minor));
    EXPECT(major == TRITONBACKEND_API_VERSION_MAJOR);
    EXPECT(minor >= TRITONBACKEND_API_VERSION_MINOR);
    CALL(TRITONBACKEND_BackendName(backend, &name));
    EXPECT(strcmp(name, "abi_probe") == 0);
    CALL(TRITONBACKEND_BackendConfig(backend, &config));
    CALL(message_expect(config, "\"test-setting\":\"test value\""));
    CALL(TRITONBACKEND_BackendExecutionPolicy(backend, &policy));
    EXPECT(policy == TRITONBACKEND_EXECUTION_BLOCKING);
    CALL(TRITONBACKEND_BackendSetExecutionPolicy(backend, TRITONBACKEND_EXECUTION_DEVICE_BLOCKING));
    CALL(TRITONBACKEND_BackendExecutionPolicy(backend, &policy));
    EXPECT(policy == TRITONBACKEND_EXECUTION_DEVICE_BLOCKING);
    CALL(TRITONBACKEND_BackendSetExecutionPolicy(backend, TRITONBACKEND_EXECUTION_BLOCKING));
    CALL(TRITONBACKEND_BackendArtifacts(backend, &artifact, &location));
    EXPECT(artifact == TRITONBACKEND_ARTIFACT_FILESYSTEM);
    EXPECT(strstr(location, "/abi_probe") != NULL);
    CALL(TRITONBACKEND_BackendMemoryManager(backend, &manager));
    CALL(TRITONBACKEND_MemoryManagerAllocate(manager, &block, TRITONSERVER_MEMORY_CPU, 0, 100));
    EXPECT(block != NULL);
    memset(block, 1, 100);
    CALL(TRITONBACKEND_MemoryManagerFree(manager, block, TRITONSERVER_MEMORY_CPU, 0));
    CALL(TRITONBACKEND_BackendState(backend, &state));
    EXPECT(state == NULL);
    CALL(TRITONBACKEND_BackendSetState(backend, &backend_mark));
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_Finalize(TRITONBACKEND_Backend *backend)
{
    void *state = NULL;

    CALL(TRITONBACKEND_BackendState(backend, &state));
    EXPECT(state == &backend_mark);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend *backend,
                                                      TRITONBACKEND_BackendAttribute *attributes)
{
    (void)backend;
    /* The model's configuration has no instance group: this count shows in it. */
    CALL(TRITONBACKEND_BackendAttributeAddPreferredInstanceGroup(
        attributes, TRITONSERVER_INSTANCEGROUPKIND_MODEL, 2, NULL, 0));
    return TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(attributes, false);
}

static TRITONSERVER_Error *config_complete(TRITONBACKEND_Model *model)
{
    static const char completed[] =
        "{\"max_batch_size\": 0, \"input\": [{\"name\": \"IN\", \"data_type\": \"TYPE_FP32\", "
        "\"dims\": [-1]}], \"output\": [{\"name\": \"OUT\", \"data_type\": \"TYPE_FP32\", "
        "\"dims\": [-1]}]}";
    TRITONSERVER_Message *config = NULL;

    CALL(TRITONSERVER_MessageNewFromSerializedJson(&config, completed, sizeof(completed) - 1));
    CALL(TRITONBACKEND_ModelSetConfig(model, 1, config));
    CALL(TRITONSERVER_MessageDelete(config));
    CALL(TRITONBACKEND_ModelConfig(model, 1, &config));
    CALL(message_expect(config, "\"name\":\"IN\""));
    return TRITONSERVER_MessageDelete(config);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *model)
{
    const char *name = NULL;
    const char *location = NULL;
    uint64_t version = 0;
    TRITONBACKEND_ArtifactType artifact = (TRITONBACKEND_ArtifactType)7;
    TRITONSERVER_Message *config = NULL;
    TRITONSERVER_Server *server = NULL;
    TRITONBACKEND_Backend *backend = NULL;
    TRITONSERVER_BufferAttributes *usage = NULL;
    bool complete = false;
    void *state = &state;

    CALL(TRITONBACKEND_ModelName(model, &name));
    CALL(TRITONBACKEND_ModelVersion(model, &version));
    EXPECT(version == 3);
    CALL(TRITONBACKEND_ModelRepository(model, &artifact, &location));
    EXPECT(artifact == TRITONBACKEND_ARTIFACT_FILESYSTEM);
    EXPECT(strlen(location) > strlen(name));
    EXPECT(strcmp(location + strlen(location) - strlen(name), name) == 0);
    CALL(TRITONBACKEND_ModelConfig(model, 1, &config));
    CALL(message_expect(config, "\"string_value\":\"left as it is\""));
    CALL(TRITONSERVER_MessageDelete(config));
    CALL(TRITONBACKEND_ModelAutoCompleteConfig(model, &complete));
    EXPECT(complete);
    if (strcmp(name, "plain") == 0) {
        CALL(config_complete(model));
    }
    CALL(TRITONBACKEND_ModelServer(model, &server));
    EXPECT(server != NULL);
    CALL(TRITONBACKEND_ModelBackend(model, &backend));
    CALL(TRITONBACKEND_BackendState(backend, &state));
    EXPECT(state == &backend_mark);
    CALL(TRITONBACKEND_ModelState(model, &state));
    EXPECT(state == NULL);
    CALL(TRITONBACKEND_ModelSetState(model, &model_mark));
    CALL(usage_make(&usage, 12345));
    CALL(TRITONBACKEND_ModelReportMemoryUsage(model, &usage, 1));
    return TRITONSERVER_BufferAttributesDelete(usage);
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *model)
{
    void *state = NULL;

    CALL(TRITONBACKEND_ModelState(model, &state));
    EXPECT(state == &model_mark);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance)
{
    const char *name = NULL;
    TRITONSERVER_InstanceGroupKind kind = TRITONSERVER_INSTANCEGROUPKIND_AUTO;
    int32_t device_id = -7;
    bool passive = true;
    uint32_t count = 7;
    int64_t id = 0;
    TRITONSERVER_Message *policy = NULL;
    TRITONBACKEND_Model *model = NULL;
    TRITONSERVER_BufferAttributes *usage = NULL;
    TRITONSERVER_Error *refused;
    void *state = &state;

    CALL(TRITONBACKEND_ModelInstanceName(instance, &name));
    CALL(TRITONBACKEND_ModelInstanceModel(instance, &model));
    CALL(TRITONBACKEND_ModelState(model, &state));
    EXPECT(state == &model_mark);
    CALL(TRITONBACKEND_ModelInstanceKind(instance, &kind));
    /* "plain" has no instance group and gets what GetBackendAttribute preferred. */
    if (strncmp(name, "plain", 5) == 0) {
        EXPECT(kind == TRITONSERVER_INSTANCEGROUPKIND_MODEL);
    } else {
        EXPECT(kind == TRITONSERVER_INSTANCEGROUPKIND_CPU);
    }
    CALL(TRITONBACKEND_ModelInstanceDeviceId(instance, &device_id));
    EXPECT(device_id == 0);
    CALL(TRITONBACKEND_ModelInstanceHostPolicy(instance, &policy));
    EXPECT(policy != NULL);
    CALL(TRITONBACKEND_ModelInstanceIsPassive(instance, &passive));
    EXPECT(!passive);
    CALL(TRITONBACKEND_ModelInstanceProfileCount(instance, &count));
    /* The server takes profiles for TensorRT only. */
    EXPECT(count == 0);
    refused = TRITONBACKEND_ModelInstanceProfileName(instance, count, &name);
    EXPECT(refused != NULL);
    EXPECT(TRITONSERVER_ErrorCode(refused) == TRITONSERVER_ERROR_INVALID_ARG);
    TRITONSERVER_ErrorDelete(refused);
    CALL(TRITONBACKEND_ModelInstanceSecondaryDeviceCount(instance, &count));
    EXPECT(count == (kind == TRITONSERVER_INSTANCEGROUPKIND_CPU ? 1 : 0));
    if (count == 1) {
        CALL(TRITONBACKEND_ModelInstanceSecondaryDeviceProperties(instance, 0, &name, &id));
        EXPECT(strcmp(name, "KIND_NVDLA") == 0);
        EXPECT(id == 5);
    }
    CALL(TRITONBACKEND_ModelInstanceState(instance, &state));
    EXPECT(state == NULL);
    CALL(TRITONBACKEND_ModelInstanceSetState(instance, &instance_mark));
    CALL(usage_make(&usage, 54321));
    CALL(TRITONBACKEND_ModelInstanceReportMemoryUsage(instance, &usage, 1));
    return TRITONSERVER_BufferAttributesDelete(usage);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *instance)
{
    void *state = NULL;

    CALL(TRITONBACKEND_ModelInstanceState(instance, &state));
    EXPECT(state == &instance_mark);
    return NULL;
}

/* ---- Requests ---- */

static TRITONSERVER_Error *parameters_look(TRITONBACKEND_Request *request)
{
    uint32_t count = 0;
    uint32_t seen = 0;

    CALL(TRITONBACKEND_RequestParameterCount(request, &count));
    EXPECT(count == 4);
    for (uint32_t i = 0; i < count; i++) {
        const char *key = NULL;
        const void *value = NULL;
        TRITONSERVER_ParameterType type = TRITONSERVER_PARAMETER_BYTES;

        CALL(TRITONBACKEND_RequestParameter(request, i, &key, &type, &value));
        if (strcmp(key, "text") == 0) {
            EXPECT(type == TRITONSERVER_PARAMETER_STRING);
            EXPECT(strcmp(value, "some text") == 0);
            seen |= 1;
        } else if (strcmp(key, "whole") == 0) {
            EXPECT(type == TRITONSERVER_PARAMETER_INT);
            EXPECT(*(const int64_t *)value == -1234567890123);
            seen |= 2;
        } else if (strcmp(key, "truth") == 0) {
            EXPECT(type == TRITONSERVER_PARAMETER_BOOL);
            EXPECT(*(const bool *)value);
            seen |= 4;
        } else if (strcmp(key, "real") == 0) {
            EXPECT(type == TRITONSERVER_PARAMETER_DOUBLE);
            EXPECT(*(const double *)value == 0.15625);
            seen |= 8;
        }
    }
    EXPECT(seen == 15);
    return NULL;
}

static TRITONSERVER_Error *properties_look(TRITONBACKEND_Request *request)
{
    const char *text = NULL;
    uint64_t number = 0;
    uint32_t flags = 7;
    bool cancelled = true;
    TRITONSERVER_InferenceTrace *trace = (TRITONSERVER_InferenceTrace *)&trace;
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_GPU;
    int64_t memory_type_id = 7;
    size_t size_bytes = 64;
    TRITONSERVER_Error *refused;

    CALL(TRITONBACKEND_RequestId(request, &text));
    EXPECT(strcmp(text, "request 7") == 0);
    CALL(TRITONBACKEND_RequestCorrelationId(request, &number));
    EXPECT(number == 0x123456789abcdef0);
    refused = TRITONBACKEND_RequestCorrelationIdString(request, &text);
    EXPECT(refused != NULL);
    TRITONSERVER_ErrorDelete(refused);
    CALL(TRITONBACKEND_RequestFlags(request, &flags));
    EXPECT(flags ==
           (TRITONSERVER_REQUEST_FLAG_SEQUENCE_START | TRITONSERVER_REQUEST_FLAG_SEQUENCE_END));
    CALL(TRITONBACKEND_InferenceRequestTimeoutMicroseconds(request, &number));
    EXPECT(number == 30000000);
    CALL(TRITONBACKEND_RequestIsCancelled(request, &cancelled));
    EXPECT(!cancelled);
    CALL(TRITONBACKEND_RequestTrace(request, &trace));
    EXPECT(trace == NULL);
    CALL(TRITONBACKEND_RequestOutputBufferProperties(request, "OUT", &size_bytes, &memory_type,
                                                     &memory_type_id));
    EXPECT(memory_type == TRITONSERVER_MEMORY_CPU && memory_type_id == 0);
    return parameters_look(request);
}

/* The input comes as 4, 12 and 16 bytes; the third piece bears memory_type_id 9 and a handle. */
static TRITONSERVER_Error *pieces_look(TRITONBACKEND_Input *input, float *values)
{
    static const uint64_t sizes[3] = {4, 12, 16};
    uint8_t *to = (uint8_t *)values;

    for (uint32_t i = 0; i < 3; i++) {
        const void *piece = NULL;
        const void *same = NULL;
        uint64_t size_bytes = 0;
        size_t told_bytes = 0;
        TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_GPU;
        int64_t memory_type_id = 7;
        TRITONSERVER_BufferAttributes *attributes = NULL;
        void *handle = NULL;

        CALL(TRITONBACKEND_InputBuffer(input, i, &piece, &size_bytes, &memory_type,
                                       &memory_type_id));
        EXPECT(size_bytes == sizes[i]);
        EXPECT(memory_type == TRITONSERVER_MEMORY_CPU);
        EXPECT(memory_type_id == (i == 2 ? 9 : 0));
        memcpy(to, piece, size_bytes);
        to += size_bytes;
        CALL(TRITONBACKEND_InputBufferForHostPolicy(input, "no such policy", i, &same, &size_bytes,
                                                    &memory_type, &memory_type_id));
        EXPECT(same == piece && size_bytes == sizes[i]);
        CALL(TRITONBACKEND_InputBufferAttributes(input, i, &same, &attributes));
        EXPECT(same == piece);
        CALL(TRITONSERVER_BufferAttributesByteSize(attributes, &told_bytes));
        EXPECT(told_bytes == sizes[i]);
        CALL(TRITONSERVER_BufferAttributesMemoryTypeId(attributes, &memory_type_id));
        EXPECT(memory_type_id == (i == 2 ? 9 : 0));
        CALL(TRITONSERVER_BufferAttributesMemoryType(attributes, &memory_type));
        EXPECT(memory_type == TRITONSERVER_MEMORY_CPU);
        CALL(TRITONSERVER_BufferAttributesCudaIpcHandle(attributes, &handle));
        EXPECT((handle != NULL) == (i == 2));
    }
    return NULL;
}

static TRITONSERVER_Error *input_look(TRITONBACKEND_Request *request, float *values)
{
    TRITONBACKEND_Input *input = NULL;
    TRITONBACKEND_Input *same = NULL;
    const char *name = NULL;
    const int64_t *shape = NULL;
    TRITONSERVER_DataType datatype = TRITONSERVER_TYPE_INVALID;
    uint32_t dim_count = 0;
    uint32_t count = 0;
    uint64_t size_bytes = 0;

    CALL(TRITONBACKEND_RequestInputCount(request, &count));
    EXPECT(count == 1);
    CALL(TRITONBACKEND_RequestInputName(request, 0, &name));
    EXPECT(strcmp(name, "IN") == 0);
    CALL(TRITONBACKEND_RequestInput(request, "IN", &input));
    CALL(TRITONBACKEND_RequestInputByIndex(request, 0, &same));
    EXPECT(input != NULL && input == same);
    CALL(TRITONBACKEND_InputProperties(input, &name, &datatype, &shape, &dim_count, &size_bytes,
                                       &count));
    EXPECT(strcmp(name, "IN") == 0);
    EXPECT(datatype == TRITONSERVER_TYPE_FP32);
    EXPECT(dim_count == 1 && shape[0] == 8);
    EXPECT(size_bytes == 32 && count == 3);
    CALL(TRITONBACKEND_InputPropertiesForHostPolicy(input, "no such policy", &name, &datatype,
                                                    &shape, &dim_count, &size_bytes, &count));
    EXPECT(dim_count == 1 && size_bytes == 32 && count == 3);
    return pieces_look(input, values);
}

static TRITONSERVER_Error *response_fill(TRITONBACKEND_Request *request,
                                         TRITONBACKEND_Response *response)
{
    static const int64_t shape[2] = {2, 4};
    TRITONBACKEND_Output *output = NULL;
    TRITONSERVER_BufferAttributes *attributes = NULL;
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_GPU;
    TRITONSERVER_DataType datatype = TRITONSERVER_TYPE_INVALID;
    const int64_t *told_shape = NULL;
    int64_t memory_type_id = 7;
    uint64_t dim_count = 0;
    uint32_t count = 0;
    size_t size_bytes = 0;
    const char *name = NULL;
    float values[8];
    void *buffer = NULL;

    CALL(properties_look(request));
    CALL(input_look(request, values));
    CALL(TRITONBACKEND_RequestOutputCount(request, &count));
    EXPECT(count == 1);
    CALL(TRITONBACKEND_RequestOutputName(request, 0, &name));
    EXPECT(strcmp(name, "OUT") == 0);
    CALL(TRITONBACKEND_ResponseSetStringParameter(response, "text", "answer"));
    CALL(TRITONBACKEND_ResponseSetIntParameter(response, "whole", -9876543210987));
    CALL(TRITONBACKEND_ResponseSetBoolParameter(response, "truth", true));
    CALL(TRITONBACKEND_ResponseSetDoubleParameter(response, "real", 0.3125));
    CALL(TRITONBACKEND_ResponseOutput(response, &output, "OUT", TRITONSERVER_TYPE_FP32, shape, 2));
    CALL(
        TRITONBACKEND_OutputBuffer(output, &buffer, sizeof(values), &memory_type, &memory_type_id));
    EXPECT(memory_type == TRITONSERVER_MEMORY_CPU && memory_type_id == 0);
    memcpy(buffer, values, sizeof(values));
    CALL(TRITONBACKEND_OutputBufferAttributes(output, &attributes));
    CALL(TRITONSERVER_BufferAttributesByteSize(attributes, &size_bytes));
    EXPECT(size_bytes == sizeof(values));
    CALL(TRITONBACKEND_InferenceResponseOutput(response, 0, &name, &datatype, &told_shape,
                                               &dim_count));
    EXPECT(strcmp(name, "OUT") == 0 && datatype == TRITONSERVER_TYPE_FP32);
    EXPECT(dim_count == 2 && told_shape[0] == 2 && told_shape[1] == 4);
    dim_count = 0;
    CALL(TRITONBACKEND_InferenceResponseOutputByName(response, "OUT", &datatype, &told_shape,
                                                     &dim_count));
    EXPECT(dim_count == 2 && told_shape[1] == 4);
    return NULL;
}

static TRITONSERVER_Error *response_statistics(TRITONBACKEND_ModelInstance *instance,
                                               TRITONBACKEND_ResponseFactory *factory,
                                               uint64_t start_ns)
{
    TRITONBACKEND_ModelInstanceResponseStatistics *statistics = NULL;

    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsNew(&statistics));
    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(statistics, instance));
    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(statistics, factory));
    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart(statistics, start_ns));
    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart(statistics,
                                                                            start_ns + 1000));
    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd(statistics, start_ns + 3000));
    CALL(TRITONBACKEND_ModelInstanceResponseStatisticsSetError(statistics, NULL));
    CALL(TRITONBACKEND_ModelInstanceReportResponseStatistics(statistics));
    return TRITONBACKEND_ModelInstanceResponseStatisticsDelete(statistics);
}

/* "plain": one response from the request, FINAL on it. */
static TRITONSERVER_Error *answer_plain(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = NULL;
    TRITONSERVER_Error *error;

    /* Made and thrown away: not every response is sent. */
    CALL(TRITONBACKEND_ResponseNew(&response, request));
    CALL(TRITONBACKEND_ResponseDelete(response));
    CALL(TRITONBACKEND_ResponseNew(&response, request));
    error = response_fill(request, response);
    CALL(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
    if (error != NULL) {
        TRITONSERVER_ErrorDelete(error);
    }
    return NULL;
}

/* "decoupled": two responses from a factory, then FINAL without a response. */
static TRITONSERVER_Error *answer_decoupled(TRITONBACKEND_ModelInstance *instance,
                                            TRITONBACKEND_Request *request)
{
    TRITONBACKEND_ResponseFactory *factory = NULL;
    bool cancelled = true;

    CALL(TRITONBACKEND_ResponseFactoryNew(&factory, request));
    CALL(TRITONBACKEND_ResponseFactoryIsCancelled(factory, &cancelled));
    EXPECT(!cancelled);
    for (int i = 0; i < 2; i++) {
        TRITONBACKEND_Response *response = NULL;
        TRITONSERVER_Error *error;
        uint64_t start_ns = now_ns();

        CALL(TRITONBACKEND_ResponseNewFromFactory(&response, factory));
        error = response_fill(request, response);
        CALL(TRITONBACKEND_ResponseSend(response, 0, error));
        if (error != NULL) {
            TRITONSERVER_ErrorDelete(error);
        }
        CALL(response_statistics(instance, factory, start_ns));
    }
    CALL(TRITONBACKEND_ResponseFactorySendFlags(factory, TRITONSERVER_RESPONSE_COMPLETE_FINAL));
    return TRITONBACKEND_ResponseFactoryDelete(factory);
}

/* "summing": OUT is the state after adding IN to it. */
static TRITONSERVER_Error *sum(TRITONBACKEND_Request *request, TRITONBACKEND_Response *response)
{
    static const int64_t shape[1] = {1};
    TRITONBACKEND_Input *input = NULL;
    TRITONBACKEND_Output *output = NULL;
    TRITONBACKEND_State *state = NULL;
    TRITONSERVER_BufferAttributes *attributes = NULL;
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
    int64_t memory_type_id = 0;
    uint64_t piece_bytes = 0;
    size_t size_bytes = 0;
    const void *piece = NULL;
    const char *correlation = NULL;
    int32_t total = 0;
    int32_t added = 0;
    void *buffer = NULL;

    CALL(TRITONBACKEND_RequestCorrelationIdString(request, &correlation));
    EXPECT(strcmp(correlation, "a sequence") == 0);
    CALL(TRITONBACKEND_RequestInput(request, "TOTAL_IN", &input));
    CALL(TRITONBACKEND_InputBuffer(input, 0, &piece, &piece_bytes, &memory_type, &memory_type_id));
    EXPECT(piece_bytes == sizeof(total));
    memcpy(&total, piece, sizeof(total));
    CALL(TRITONBACKEND_RequestInput(request, "IN", &input));
    CALL(TRITONBACKEND_InputBuffer(input, 0, &piece, &piece_bytes, &memory_type, &memory_type_id));
    memcpy(&added, piece, sizeof(added));
    total += added;
    CALL(TRITONBACKEND_StateNew(&state, request, "TOTAL_OUT", TRITONSERVER_TYPE_INT32, shape, 1));
    CALL(TRITONBACKEND_StateBuffer(state, &buffer, sizeof(total), &memory_type, &memory_type_id));
    memcpy(buffer, &total, sizeof(total));
    CALL(TRITONBACKEND_StateBufferAttributes(state, &attributes));
    CALL(TRITONSERVER_BufferAttributesByteSize(attributes, &size_bytes));
    EXPECT(size_bytes == sizeof(total));
    CALL(TRITONBACKEND_StateUpdate(state));
    CALL(TRITONBACKEND_ResponseOutput(response, &output, "OUT", TRITONSERVER_TYPE_INT32, shape, 1));
    CALL(TRITONBACKEND_OutputBuffer(output, &buffer, sizeof(total), &memory_type, &memory_type_id));
    memcpy(buffer, &total, sizeof(total));
    return NULL;
}

static TRITONSERVER_Error *answer_summing(TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response = NULL;
    TRITONSERVER_Error *error;

    CALL(TRITONBACKEND_ResponseNew(&response, request));
    error = sum(request, response);
    CALL(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
    if (error != NULL) {
        TRITONSERVER_ErrorDelete(error);
    }
    return NULL;
}

/* The answer is under way or lost: only the log is left to say it, and the answer's absence. */
static void say(TRITONSERVER_Error *error)
{
    if (error != NULL) {
        fprintf(stderr, "%s\n", TRITONSERVER_ErrorMessage(error));
        TRITONSERVER_ErrorDelete(error);
    }
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests,
                                                       const uint32_t request_count)
{
    TRITONBACKEND_Model *model = NULL;
    const char *name = NULL;
    uint64_t start_ns = now_ns();

    CALL(TRITONBACKEND_ModelInstanceModel(instance, &model));
    CALL(TRITONBACKEND_ModelName(model, &name));
    for (uint32_t i = 0; i < request_count; i++) {
        TRITONSERVER_Error *error;

        if (strcmp(name, "decoupled") == 0) {
            error = answer_decoupled(instance, requests[i]);
        } else if (strcmp(name, "summing") == 0) {
            error = answer_summing(requests[i]);
        } else {
            error = answer_plain(requests[i]);
        }
        say(error);
        error = TRITONBACKEND_ModelInstanceReportStatistics(instance, requests[i], true, start_ns,
                                                            start_ns + 1000, start_ns + 3000,
                                                            start_ns + 6000);
        say(error);
    }
    /* Before the first release, so that whoever has seen one finds the counts. */
    say(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance, 5, start_ns, start_ns + 1000,
                                                         start_ns + 3000, start_ns + 6000));
    for (uint32_t i = 0; i < request_count; i++) {
        say(TRITONBACKEND_RequestRelease(requests[i], TRITONSERVER_REQUEST_RELEASE_ALL));
    }
    return NULL;
}
