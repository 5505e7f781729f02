/* triton_abi.h against a real server: the numbers of its enumerations where the server can name
 * them or acts on them, and its signatures by calls whose answers are known. The backend's half of
 * the interface is looked at from inside by backend/abi_probe.c. */
#include "triton_inproc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const char *backends;
static char repository[INPROC_PATH];
static inproc_server *server;
static const inproc_api *api;

static const char plain_config[] =
    "backend: \"abi_probe\"\n"
    "parameters { key: \"note\" value { string_value: \"left as it is\" } }\n";

static const char decoupled_config[] =
    "backend: \"abi_probe\"\n"
    "input [ { name: \"IN\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "output [ { name: \"OUT\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1\n"
    "  secondary_devices [ { kind: KIND_NVDLA device_id: 5 } ] } ]\n"
    "model_transaction_policy { decoupled: true }\n"
    "parameters { key: \"note\" value { string_value: \"left as it is\" } }\n";

static const char summing_config[] =
    "backend: \"abi_probe\"\n"
    "max_batch_size: 4\n"
    "input [ { name: \"IN\" data_type: TYPE_INT32 dims: [ 1 ] } ]\n"
    "output [ { name: \"OUT\" data_type: TYPE_INT32 dims: [ 1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1\n"
    "  secondary_devices [ { kind: KIND_NVDLA device_id: 5 } ] } ]\n"
    "sequence_batching {\n"
    "  control_input [ { name: \"START\" control [ { kind: CONTROL_SEQUENCE_START\n"
    "    int32_false_true: [ 0, 1 ] } ] } ]\n"
    "  state [ { input_name: \"TOTAL_IN\" output_name: \"TOTAL_OUT\" data_type: TYPE_INT32\n"
    "    dims: [ 1 ] initial_state { name: \"zero\" data_type: TYPE_INT32 dims: [ 1 ]\n"
    "    zero_data: true } } ]\n"
    "}\n"
    "parameters { key: \"note\" value { string_value: \"left as it is\" } }\n";

/* Holds a lone request back for company that never comes. */
static const char waiting_config[] =
    "backend: \"null\"\n"
    "max_batch_size: 4\n"
    "input [ { name: \"IN\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "output [ { name: \"OUT\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 300000 }\n";

/* Version 3, so that a version is told from a constant. */
static bool model_add(const char *name, const char *config, inproc_error *error)
{
    char from[INPROC_PATH + 128];
    char to[INPROC_PATH + 128];

    if (!inproc_repository_add(repository, name, config, error)) {
        return false;
    }
    snprintf(from, sizeof(from), "%s/%s/1", repository, name);
    snprintf(to, sizeof(to), "%s/%s/3", repository, name);
    return rename(from, to) == 0;
}

static int group_setup(void **state)
{
    const char *models[] = {"plain", "decoupled", "summing", "waiting", NULL};
    const inproc_setting setting = {"abi_probe", "test-setting", "test value"};
    inproc_options options = {.backends = backends,
                              .models = models,
                              .settings = &setting,
                              .setting_count = 1,
                              .strict_readiness = true,
                              .metrics = true,
                              .log_level = -1};
    inproc_error error = {.text = "cannot make the repository"};

    (void)state;
    if (!inproc_repository_create(repository, &error) ||
        !model_add("plain", plain_config, &error) ||
        !model_add("decoupled", decoupled_config, &error) ||
        !model_add("summing", summing_config, &error) ||
        !model_add("waiting", waiting_config, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return -1;
    }
    options.repository = repository;
    if (!inproc_server_start(&options, &server, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return -1;
    }
    api = inproc_server_api(server);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    inproc_server_stop(server, NULL);
    inproc_repository_remove(repository);
    return 0;
}

/* Fails with the server's words. */
static void must(TRITONSERVER_Error *error)
{
    if (error != NULL) {
        fail_msg("%s", api->TRITONSERVER_ErrorMessage(error));
    }
}

static void must_refuse(TRITONSERVER_Error *error, TRITONSERVER_Error_Code code)
{
    assert_non_null(error);
    assert_int_equal(api->TRITONSERVER_ErrorCode(error), code);
    api->TRITONSERVER_ErrorDelete(error);
}

/* ---- Values ---- */

static void versions_are_at_least_the_declared_ones(void **state)
{
    uint32_t major = 0;
    uint32_t minor = 0;

    (void)state;
    must(api->TRITONSERVER_ApiVersion(&major, &minor));
    assert_int_equal(major, TRITONSERVER_API_VERSION_MAJOR);
    assert_true(minor >= TRITONSERVER_API_VERSION_MINOR);
    must(api->TRITONBACKEND_ApiVersion(&major, &minor));
    assert_int_equal(major, TRITONBACKEND_API_VERSION_MAJOR);
    assert_true(minor >= TRITONBACKEND_API_VERSION_MINOR);
}

static void data_types_have_their_names_and_sizes(void **state)
{
    static const struct {
        TRITONSERVER_DataType datatype;
        const char *name;
        uint32_t size_bytes;
    } types[] = {
        {TRITONSERVER_TYPE_BOOL, "BOOL", 1},     {TRITONSERVER_TYPE_UINT8, "UINT8", 1},
        {TRITONSERVER_TYPE_UINT16, "UINT16", 2}, {TRITONSERVER_TYPE_UINT32, "UINT32", 4},
        {TRITONSERVER_TYPE_UINT64, "UINT64", 8}, {TRITONSERVER_TYPE_INT8, "INT8", 1},
        {TRITONSERVER_TYPE_INT16, "INT16", 2},   {TRITONSERVER_TYPE_INT32, "INT32", 4},
        {TRITONSERVER_TYPE_INT64, "INT64", 8},   {TRITONSERVER_TYPE_FP16, "FP16", 2},
        {TRITONSERVER_TYPE_FP32, "FP32", 4},     {TRITONSERVER_TYPE_FP64, "FP64", 8},
        {TRITONSERVER_TYPE_BYTES, "BYTES", 0},   {TRITONSERVER_TYPE_BF16, "BF16", 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        assert_string_equal(api->TRITONSERVER_DataTypeString(types[i].datatype), types[i].name);
        assert_int_equal(api->TRITONSERVER_StringToDataType(types[i].name), types[i].datatype);
        assert_int_equal(api->TRITONSERVER_DataTypeByteSize(types[i].datatype),
                         types[i].size_bytes);
    }
    assert_int_equal(api->TRITONSERVER_StringToDataType("none"), TRITONSERVER_TYPE_INVALID);
    /* The list is complete: the next number has no name. */
    assert_string_equal(
        api->TRITONSERVER_DataTypeString((TRITONSERVER_DataType)(TRITONSERVER_TYPE_BF16 + 1)),
        api->TRITONSERVER_DataTypeString(TRITONSERVER_TYPE_INVALID));
}

static void memory_types_parameters_and_kinds_have_their_names(void **state)
{
    (void)state;
    assert_string_equal(api->TRITONSERVER_MemoryTypeString(TRITONSERVER_MEMORY_CPU), "CPU");
    assert_string_equal(api->TRITONSERVER_MemoryTypeString(TRITONSERVER_MEMORY_CPU_PINNED),
                        "CPU_PINNED");
    assert_string_equal(api->TRITONSERVER_MemoryTypeString(TRITONSERVER_MEMORY_GPU), "GPU");
    assert_string_equal(api->TRITONSERVER_ParameterTypeString(TRITONSERVER_PARAMETER_STRING),
                        "STRING");
    assert_string_equal(api->TRITONSERVER_ParameterTypeString(TRITONSERVER_PARAMETER_INT), "INT");
    assert_string_equal(api->TRITONSERVER_ParameterTypeString(TRITONSERVER_PARAMETER_BOOL), "BOOL");
    assert_string_equal(api->TRITONSERVER_ParameterTypeString(TRITONSERVER_PARAMETER_DOUBLE),
                        "DOUBLE");
    assert_string_equal(api->TRITONSERVER_ParameterTypeString(TRITONSERVER_PARAMETER_BYTES),
                        "BYTES");
    assert_string_equal(
        api->TRITONSERVER_InstanceGroupKindString(TRITONSERVER_INSTANCEGROUPKIND_AUTO), "AUTO");
    assert_string_equal(
        api->TRITONSERVER_InstanceGroupKindString(TRITONSERVER_INSTANCEGROUPKIND_CPU), "CPU");
    assert_string_equal(
        api->TRITONSERVER_InstanceGroupKindString(TRITONSERVER_INSTANCEGROUPKIND_GPU), "GPU");
    assert_string_equal(
        api->TRITONSERVER_InstanceGroupKindString(TRITONSERVER_INSTANCEGROUPKIND_MODEL), "MODEL");
}

static void error_codes_have_their_names(void **state)
{
    static const struct {
        TRITONSERVER_Error_Code code;
        const char *name;
    } codes[] = {
        {TRITONSERVER_ERROR_UNKNOWN, "Unknown"},
        {TRITONSERVER_ERROR_INTERNAL, "Internal"},
        {TRITONSERVER_ERROR_NOT_FOUND, "Not found"},
        {TRITONSERVER_ERROR_INVALID_ARG, "Invalid argument"},
        {TRITONSERVER_ERROR_UNAVAILABLE, "Unavailable"},
        {TRITONSERVER_ERROR_UNSUPPORTED, "Unsupported"},
        {TRITONSERVER_ERROR_ALREADY_EXISTS, "Already exists"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        TRITONSERVER_Error *error = api->TRITONSERVER_ErrorNew(codes[i].code, "some words");

        assert_string_equal(api->TRITONSERVER_ErrorCodeString(error), codes[i].name);
        assert_int_equal(api->TRITONSERVER_ErrorCode(error), codes[i].code);
        assert_string_equal(api->TRITONSERVER_ErrorMessage(error), "some words");
        api->TRITONSERVER_ErrorDelete(error);
    }
}

/* Release 24.10 has no name for this code (it says "<invalid code>"), so the number is taken from a
 * request that really was cancelled. */
static void a_cancelled_request_ends_with_the_code_for_it(void **state)
{
    const float values[4] = {0};
    const int64_t shape[2] = {1, 4};
    const inproc_piece piece = {values, sizeof(values)};
    const inproc_input input = {"IN", TRITONSERVER_TYPE_FP32, shape, 2, &piece, 1, 0};
    inproc_request *request = NULL;
    inproc_error error;

    (void)state;
    assert_true(inproc_request_create(server, "waiting", &input, 1, NULL, 0, &request, &error));
    assert_true(inproc_request_start(request, &error));
    must(api->TRITONSERVER_InferenceRequestCancel(inproc_request_handle(request)));
    assert_false(inproc_request_wait(request, &error));
    assert_int_equal(error.code, TRITONSERVER_ERROR_CANCELLED);
    inproc_request_destroy(request);
}

static void log_levels_follow_their_switches(void **state)
{
    TRITONSERVER_ServerOptions *options = NULL;

    (void)state;
    /* The switches act on the whole process and at once. */
    must(api->TRITONSERVER_ServerOptionsNew(&options));
    for (unsigned bits = 0; bits < 16; bits++) {
        must(api->TRITONSERVER_ServerOptionsSetLogInfo(options, (bits & 1) != 0));
        must(api->TRITONSERVER_ServerOptionsSetLogWarn(options, (bits & 2) != 0));
        must(api->TRITONSERVER_ServerOptionsSetLogError(options, (bits & 4) != 0));
        must(api->TRITONSERVER_ServerOptionsSetLogVerbose(options, (bits & 8) != 0));
        assert_int_equal(api->TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_INFO), (bits & 1) != 0);
        assert_int_equal(api->TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_WARN), (bits & 2) != 0);
        assert_int_equal(api->TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_ERROR), (bits & 4) != 0);
        assert_int_equal(api->TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_VERBOSE), (bits & 8) != 0);
    }
    must(api->TRITONSERVER_ServerOptionsSetLogInfo(options, false));
    must(api->TRITONSERVER_ServerOptionsSetLogWarn(options, false));
    must(api->TRITONSERVER_ServerOptionsSetLogError(options, false));
    must(api->TRITONSERVER_ServerOptionsSetLogVerbose(options, 0));
    must(api->TRITONSERVER_ServerOptionsDelete(options));
}

static void parameters_of_bytes_need_their_own_maker(void **state)
{
    TRITONSERVER_Parameter *parameter;

    (void)state;
    assert_null(api->TRITONSERVER_ParameterNew("p", TRITONSERVER_PARAMETER_BYTES, "bytes"));
    parameter = api->TRITONSERVER_ParameterBytesNew("p", "bytes", 5);
    assert_non_null(parameter);
    api->TRITONSERVER_ParameterDelete(parameter);
}

static void buffer_attributes_keep_what_they_are_given(void **state)
{
    TRITONSERVER_BufferAttributes *attributes = NULL;
    TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
    int64_t memory_type_id = 0;
    size_t size_bytes = 0;
    uint8_t handle[64];
    void *told = NULL;

    (void)state;
    memset(handle, 0x5a, sizeof(handle));
    must(api->TRITONSERVER_BufferAttributesNew(&attributes));
    must(api->TRITONSERVER_BufferAttributesSetMemoryType(attributes, TRITONSERVER_MEMORY_GPU));
    must(api->TRITONSERVER_BufferAttributesSetMemoryTypeId(attributes, -3000000000));
    must(api->TRITONSERVER_BufferAttributesSetByteSize(attributes, (size_t)5 << 32));
    must(api->TRITONSERVER_BufferAttributesMemoryType(attributes, &memory_type));
    must(api->TRITONSERVER_BufferAttributesMemoryTypeId(attributes, &memory_type_id));
    must(api->TRITONSERVER_BufferAttributesByteSize(attributes, &size_bytes));
    assert_int_equal(memory_type, TRITONSERVER_MEMORY_GPU);
    assert_true(memory_type_id == -3000000000);
    assert_true(size_bytes == (size_t)5 << 32);
    must(api->TRITONSERVER_BufferAttributesCudaIpcHandle(attributes, &told));
    assert_null(told);
    must(api->TRITONSERVER_BufferAttributesSetCudaIpcHandle(attributes, handle));
    must(api->TRITONSERVER_BufferAttributesCudaIpcHandle(attributes, &told));
    assert_memory_equal(told, handle, sizeof(handle));
    must(api->TRITONSERVER_BufferAttributesDelete(attributes));
}

static void model_flags_say_batching_and_decoupling(void **state)
{
    TRITONSERVER_Server *handle = inproc_server_handle(server);
    uint32_t flags = 0;
    void *detail = NULL;
    TRITONSERVER_Message *message = NULL;
    const char *base = NULL;
    size_t size_bytes = 0;

    (void)state;
    must(api->TRITONSERVER_ServerModelBatchProperties(handle, "summing", -1, &flags, &detail));
    assert_int_equal(flags, TRITONSERVER_BATCH_FIRST_DIM);
    must(api->TRITONSERVER_ServerModelBatchProperties(handle, "plain", -1, &flags, &detail));
    assert_int_equal(flags, TRITONSERVER_BATCH_UNKNOWN);
    must(api->TRITONSERVER_ServerModelTransactionProperties(handle, "decoupled", -1, &flags,
                                                            &detail));
    assert_int_equal(flags, TRITONSERVER_TXN_DECOUPLED);
    must(api->TRITONSERVER_ServerModelTransactionProperties(handle, "plain", 3, &flags, &detail));
    assert_int_equal(flags, TRITONSERVER_TXN_ONE_TO_ONE);
    must(api->TRITONSERVER_ServerModelIndex(handle, TRITONSERVER_INDEX_FLAG_READY, &message));
    must(api->TRITONSERVER_MessageSerializeToJson(message, &base, &size_bytes));
    assert_true(size_bytes > 0);
    must(api->TRITONSERVER_MessageDelete(message));
}

/* ---- Metrics ---- */

static void metric_kinds_and_calls_agree(void **state)
{
    static const struct {
        TRITONSERVER_MetricKind kind;
        const char *name;
        const char *type_line;
    } kinds[] = {
        {TRITONSERVER_METRIC_KIND_COUNTER, "abi_counter", "# TYPE abi_counter counter"},
        {TRITONSERVER_METRIC_KIND_GAUGE, "abi_gauge", "# TYPE abi_gauge gauge"},
        {TRITONSERVER_METRIC_KIND_HISTOGRAM, "abi_histogram", "# TYPE abi_histogram histogram"},
    };
    static const double buckets[2] = {1.0, 10.0};
    TRITONSERVER_MetricFamily *families[3];
    TRITONSERVER_Metric *metrics[3];
    TRITONSERVER_Parameter *label;
    const TRITONSERVER_Parameter *labels[1];
    inproc_error error;
    char *text;

    (void)state;
    label = api->TRITONSERVER_ParameterNew("who", TRITONSERVER_PARAMETER_STRING, "me");
    labels[0] = label;
    for (size_t i = 0; i < 3; i++) {
        TRITONSERVER_MetricKind told = (TRITONSERVER_MetricKind)7;

        must(api->TRITONSERVER_MetricFamilyNew(&families[i], kinds[i].kind, kinds[i].name, "test"));
        must(api->TRITONSERVER_GetMetricFamilyKind(families[i], &told));
        assert_int_equal(told, kinds[i].kind);
        if (kinds[i].kind == TRITONSERVER_METRIC_KIND_HISTOGRAM) {
            TRITONSERVER_MetricArgs *args = NULL;

            must(api->TRITONSERVER_MetricArgsNew(&args));
            must(api->TRITONSERVER_MetricArgsSetHistogram(args, buckets, 2));
            must(api->TRITONSERVER_MetricNewWithArgs(&metrics[i], families[i], labels, 1, args));
            must(api->TRITONSERVER_MetricArgsDelete(args));
        } else {
            must(api->TRITONSERVER_MetricNew(&metrics[i], families[i], labels, 1));
        }
        must(api->TRITONSERVER_GetMetricKind(metrics[i], &told));
        assert_int_equal(told, kinds[i].kind);
    }
    api->TRITONSERVER_ParameterDelete(label);
    must(api->TRITONSERVER_MetricIncrement(metrics[0], 2.5));
    must_refuse(api->TRITONSERVER_MetricIncrement(metrics[0], -1), TRITONSERVER_ERROR_INVALID_ARG);
    must_refuse(api->TRITONSERVER_MetricSet(metrics[0], 1), TRITONSERVER_ERROR_UNSUPPORTED);
    must(api->TRITONSERVER_MetricSet(metrics[1], -4));
    must(api->TRITONSERVER_MetricIncrement(metrics[1], 1.5));
    must(api->TRITONSERVER_MetricObserve(metrics[2], 5));
    must_refuse(api->TRITONSERVER_MetricIncrement(metrics[2], 1), TRITONSERVER_ERROR_UNSUPPORTED);
    for (size_t i = 0; i < 2; i++) {
        double value = 0;

        must(api->TRITONSERVER_MetricValue(metrics[i], &value));
        assert_true(value == (i == 0 ? 2.5 : -2.5));
    }
    text = inproc_metrics_text(server, &error);
    assert_non_null(text);
    for (size_t i = 0; i < 3; i++) {
        assert_non_null(strstr(text, kinds[i].type_line));
    }
    assert_non_null(strstr(text, "abi_counter{who=\"me\"} 2.5"));
    assert_non_null(strstr(text, "abi_gauge{who=\"me\"} -2.5"));
    assert_non_null(strstr(text, "abi_histogram_bucket{who=\"me\",le=\"1\"} 0"));
    assert_non_null(strstr(text, "abi_histogram_bucket{who=\"me\",le=\"10\"} 1"));
    free(text);
    for (size_t i = 0; i < 3; i++) {
        must(api->TRITONSERVER_MetricDelete(metrics[i]));
        must(api->TRITONSERVER_MetricFamilyDelete(families[i]));
    }
}

/* ---- Requests, looked at by the backend ---- */

typedef struct answers {
    uint32_t count;
    uint32_t good;
    char text[INPROC_ERROR_TEXT];
} answers;

static void on_answer(void *userp, const inproc_result *results, size_t count,
                      const inproc_error *error)
{
    answers *seen = userp;
    bool good = error == NULL && count == 1 && results[0].size_bytes == 32 &&
                results[0].dim_count == 2 && results[0].shape[0] == 2 && results[0].shape[1] == 4;

    for (int i = 0; good && i < 8; i++) {
        good = ((const float *)results[0].base)[i] == (float)i * 1.5f;
    }
    seen->count++;
    seen->good += good ? 1 : 0;
    if (error != NULL) {
        snprintf(seen->text, sizeof(seen->text), "%s", error->text);
    }
}

/* The request that abi_probe.c expects. */
static inproc_request *probe_request(const char *model, answers *seen)
{
    static float values[8];
    static uint8_t handle[64];
    const int64_t shape[1] = {8};
    const inproc_piece pieces[2] = {{values, 4}, {values + 1, 12}};
    const inproc_input input = {"IN", TRITONSERVER_TYPE_FP32, shape, 1, pieces, 2, 0};
    const inproc_output output = {"OUT", NULL, 0};
    TRITONSERVER_BufferAttributes *attributes = NULL;
    TRITONSERVER_InferenceRequest *raw;
    inproc_request *request = NULL;
    inproc_error error;

    for (int i = 0; i < 8; i++) {
        values[i] = (float)i * 1.5f;
    }
    if (!inproc_request_create(server, model, &input, 1, &output, 1, &request, &error)) {
        fail_msg("%s", error.text);
    }
    raw = inproc_request_handle(request);
    must(api->TRITONSERVER_BufferAttributesNew(&attributes));
    must(api->TRITONSERVER_BufferAttributesSetMemoryType(attributes, TRITONSERVER_MEMORY_CPU));
    must(api->TRITONSERVER_BufferAttributesSetMemoryTypeId(attributes, 9));
    must(api->TRITONSERVER_BufferAttributesSetCudaIpcHandle(attributes, handle));
    must(api->TRITONSERVER_BufferAttributesSetByteSize(attributes, 16));
    must(api->TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes(
        raw, "IN", values + 4, attributes));
    must(api->TRITONSERVER_BufferAttributesDelete(attributes));
    must(api->TRITONSERVER_InferenceRequestSetId(raw, "request 7"));
    must(api->TRITONSERVER_InferenceRequestSetCorrelationId(raw, 0x123456789abcdef0));
    must(api->TRITONSERVER_InferenceRequestSetFlags(
        raw, TRITONSERVER_REQUEST_FLAG_SEQUENCE_START | TRITONSERVER_REQUEST_FLAG_SEQUENCE_END));
    must(api->TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(raw, 30000000));
    must(api->TRITONSERVER_InferenceRequestSetStringParameter(raw, "text", "some text"));
    must(api->TRITONSERVER_InferenceRequestSetIntParameter(raw, "whole", -1234567890123));
    must(api->TRITONSERVER_InferenceRequestSetBoolParameter(raw, "truth", true));
    must(api->TRITONSERVER_InferenceRequestSetDoubleParameter(raw, "real", 0.15625));
    inproc_request_on_response(request, on_answer, seen);
    return request;
}

static void a_backend_sees_a_request_as_it_was_made(void **state)
{
    answers seen = {0};
    inproc_request *request = probe_request("plain", &seen);
    inproc_error error;
    char *statistics;

    (void)state;
    if (!inproc_request_infer(request, &error)) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.good, 1);
    assert_string_equal(inproc_request_parameter(request, "text"), "answer");
    assert_string_equal(inproc_request_parameter(request, "whole"), "-9876543210987");
    assert_string_equal(inproc_request_parameter(request, "truth"), "true");
    assert_string_equal(inproc_request_parameter(request, "real"), "0.3125");
    inproc_request_destroy(request);
    /* Reported as a batch of 5; times in the order in which they were given. */
    statistics = inproc_statistics_json(server, "plain", &error);
    assert_non_null(statistics);
    assert_non_null(strstr(statistics, "\"version\":\"3\""));
    assert_non_null(strstr(statistics, "\"compute_input\":{\"count\":1,\"ns\":1000}"));
    assert_non_null(strstr(statistics, "\"compute_infer\":{\"count\":1,\"ns\":2000}"));
    assert_non_null(strstr(statistics, "\"compute_output\":{\"count\":1,\"ns\":3000}"));
    assert_non_null(strstr(statistics, "\"batch_size\":5"));
    free(statistics);
}

static void a_decoupled_backend_answers_twice_then_ends(void **state)
{
    answers seen = {0};
    inproc_request *request = probe_request("decoupled", &seen);
    inproc_error error;
    char *statistics;

    (void)state;
    if (!inproc_request_infer(request, &error)) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(inproc_request_response_count(request), 2);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.good, 2);
    inproc_request_destroy(request);
    statistics = inproc_statistics_json(server, "decoupled", &error);
    assert_non_null(statistics);
    /* One entry for each response by its number in the stream. */
    assert_non_null(strstr(statistics, "\"response_stats\":{\"0\":"));
    assert_non_null(strstr(statistics, "\"compute_infer\":{\"count\":1,\"ns\":1000}"));
    assert_non_null(strstr(statistics, "\"compute_output\":{\"count\":1,\"ns\":2000}"));
    assert_non_null(strstr(statistics, "\"1\":{"));
    free(statistics);
}

static int32_t sum_send(int32_t value, uint32_t flags, inproc_error *error)
{
    const int64_t shape[2] = {1, 1};
    const inproc_piece piece = {&value, sizeof(value)};
    const inproc_input input = {"IN", TRITONSERVER_TYPE_INT32, shape, 2, &piece, 1, 0};
    inproc_request *request = NULL;
    int32_t total = -1;

    assert_true(inproc_request_create(server, "summing", &input, 1, NULL, 0, &request, error));
    must(api->TRITONSERVER_InferenceRequestSetCorrelationIdString(inproc_request_handle(request),
                                                                  "a sequence"));
    must(api->TRITONSERVER_InferenceRequestSetFlags(inproc_request_handle(request), flags));
    if (inproc_request_infer(request, error)) {
        memcpy(&total, inproc_request_result_by_name(request, "OUT")->base, sizeof(total));
    }
    inproc_request_destroy(request);
    return total;
}

static void a_sequence_keeps_its_state_between_start_and_end(void **state)
{
    inproc_error error = {.text = ""};

    (void)state;
    assert_int_equal(sum_send(5, 0, &error), -1);
    assert_non_null(strstr(error.text, "START"));
    assert_int_equal(sum_send(5, TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, &error), 5);
    assert_int_equal(sum_send(7, 0, &error), 12);
    assert_int_equal(sum_send(100, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END, &error), 112);
    /* Ended: a new one starts from nothing. */
    assert_int_equal(sum_send(1, 0, &error), -1);
    assert_int_equal(sum_send(1, TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, &error), 1);
    assert_int_equal(sum_send(1, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END, &error), 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_are_at_least_the_declared_ones),
        cmocka_unit_test(data_types_have_their_names_and_sizes),
        cmocka_unit_test(memory_types_parameters_and_kinds_have_their_names),
        cmocka_unit_test(error_codes_have_their_names),
        cmocka_unit_test(a_cancelled_request_ends_with_the_code_for_it),
        cmocka_unit_test(log_levels_follow_their_switches),
        cmocka_unit_test(parameters_of_bytes_need_their_own_maker),
        cmocka_unit_test(buffer_attributes_keep_what_they_are_given),
        cmocka_unit_test(model_flags_say_batching_and_decoupling),
        cmocka_unit_test(metric_kinds_and_calls_agree),
        cmocka_unit_test(a_backend_sees_a_request_as_it_was_made),
        cmocka_unit_test(a_decoupled_backend_answers_twice_then_ends),
        cmocka_unit_test(a_sequence_keeps_its_state_between_start_and_end),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: abi_test BACKENDS\n");
        return 2;
    }
    backends = argv[1];
    if (inproc_missing()) {
        return 77;
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
