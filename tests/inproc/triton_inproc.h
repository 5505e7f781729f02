/* A real Triton server inside the calling process, without a network in front of it.
 *
 * Tests get the whole server - scheduler, batcher, backends - with inputs and outputs lying exactly
 * where the test put them: core copies nothing between these pointers and the backend. The server's
 * library is opened at run time and globally, because a backend's undefined TRITON* symbols bind to
 * whatever the process has in its global scope.
 *
 * All sizes are bytes. Functions return false and fill the error on failure; the error may be NULL.
 * Everything may be called from any thread; one request object belongs to one thread at a time.
 */
#ifndef TRITON_INPROC_H
#define TRITON_INPROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "triton_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The calls of the server's library that this file and its users need. */
#define INPROC_API(X)                                                                              \
    X(TRITONSERVER_ApiVersion)                                                                     \
    X(TRITONBACKEND_ApiVersion)                                                                    \
    X(TRITONSERVER_DataTypeString)                                                                 \
    X(TRITONSERVER_StringToDataType)                                                               \
    X(TRITONSERVER_DataTypeByteSize)                                                               \
    X(TRITONSERVER_MemoryTypeString)                                                               \
    X(TRITONSERVER_ParameterTypeString)                                                            \
    X(TRITONSERVER_InstanceGroupKindString)                                                        \
    X(TRITONSERVER_ParameterNew)                                                                   \
    X(TRITONSERVER_ParameterBytesNew)                                                              \
    X(TRITONSERVER_ParameterDelete)                                                                \
    X(TRITONSERVER_LogIsEnabled)                                                                   \
    X(TRITONSERVER_ErrorNew)                                                                       \
    X(TRITONSERVER_ErrorDelete)                                                                    \
    X(TRITONSERVER_ErrorCode)                                                                      \
    X(TRITONSERVER_ErrorCodeString)                                                                \
    X(TRITONSERVER_ErrorMessage)                                                                   \
    X(TRITONSERVER_MessageNewFromSerializedJson)                                                   \
    X(TRITONSERVER_MessageDelete)                                                                  \
    X(TRITONSERVER_MessageSerializeToJson)                                                         \
    X(TRITONSERVER_BufferAttributesNew)                                                            \
    X(TRITONSERVER_BufferAttributesDelete)                                                         \
    X(TRITONSERVER_BufferAttributesSetMemoryTypeId)                                                \
    X(TRITONSERVER_BufferAttributesSetMemoryType)                                                  \
    X(TRITONSERVER_BufferAttributesSetCudaIpcHandle)                                               \
    X(TRITONSERVER_BufferAttributesSetByteSize)                                                    \
    X(TRITONSERVER_BufferAttributesMemoryTypeId)                                                   \
    X(TRITONSERVER_BufferAttributesMemoryType)                                                     \
    X(TRITONSERVER_BufferAttributesCudaIpcHandle)                                                  \
    X(TRITONSERVER_BufferAttributesByteSize)                                                       \
    X(TRITONSERVER_MetricsDelete)                                                                  \
    X(TRITONSERVER_MetricsFormatted)                                                               \
    X(TRITONSERVER_MetricFamilyNew)                                                                \
    X(TRITONSERVER_MetricFamilyDelete)                                                             \
    X(TRITONSERVER_GetMetricFamilyKind)                                                            \
    X(TRITONSERVER_MetricArgsNew)                                                                  \
    X(TRITONSERVER_MetricArgsSetHistogram)                                                         \
    X(TRITONSERVER_MetricArgsDelete)                                                               \
    X(TRITONSERVER_MetricNew)                                                                      \
    X(TRITONSERVER_MetricNewWithArgs)                                                              \
    X(TRITONSERVER_MetricDelete)                                                                   \
    X(TRITONSERVER_MetricValue)                                                                    \
    X(TRITONSERVER_MetricIncrement)                                                                \
    X(TRITONSERVER_MetricSet)                                                                      \
    X(TRITONSERVER_MetricObserve)                                                                  \
    X(TRITONSERVER_GetMetricKind)                                                                  \
    X(TRITONSERVER_ResponseAllocatorNew)                                                           \
    X(TRITONSERVER_ResponseAllocatorSetQueryFunction)                                              \
    X(TRITONSERVER_ResponseAllocatorDelete)                                                        \
    X(TRITONSERVER_InferenceRequestNew)                                                            \
    X(TRITONSERVER_InferenceRequestDelete)                                                         \
    X(TRITONSERVER_InferenceRequestSetId)                                                          \
    X(TRITONSERVER_InferenceRequestSetFlags)                                                       \
    X(TRITONSERVER_InferenceRequestSetCorrelationId)                                               \
    X(TRITONSERVER_InferenceRequestSetCorrelationIdString)                                         \
    X(TRITONSERVER_InferenceRequestSetTimeoutMicroseconds)                                         \
    X(TRITONSERVER_InferenceRequestSetStringParameter)                                             \
    X(TRITONSERVER_InferenceRequestSetIntParameter)                                                \
    X(TRITONSERVER_InferenceRequestSetBoolParameter)                                               \
    X(TRITONSERVER_InferenceRequestSetDoubleParameter)                                             \
    X(TRITONSERVER_InferenceRequestCancel)                                                         \
    X(TRITONSERVER_InferenceRequestAddInput)                                                       \
    X(TRITONSERVER_InferenceRequestAppendInputData)                                                \
    X(TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes)                            \
    X(TRITONSERVER_InferenceRequestRemoveAllInputs)                                                \
    X(TRITONSERVER_InferenceRequestAddRequestedOutput)                                             \
    X(TRITONSERVER_InferenceRequestRemoveAllRequestedOutputs)                                      \
    X(TRITONSERVER_InferenceRequestSetReleaseCallback)                                             \
    X(TRITONSERVER_InferenceRequestSetResponseCallback)                                            \
    X(TRITONSERVER_InferenceResponseDelete)                                                        \
    X(TRITONSERVER_InferenceResponseError)                                                         \
    X(TRITONSERVER_InferenceResponseParameterCount)                                                \
    X(TRITONSERVER_InferenceResponseParameter)                                                     \
    X(TRITONSERVER_InferenceResponseOutputCount)                                                   \
    X(TRITONSERVER_InferenceResponseOutput)                                                        \
    X(TRITONSERVER_ServerOptionsNew)                                                               \
    X(TRITONSERVER_ServerOptionsDelete)                                                            \
    X(TRITONSERVER_ServerOptionsSetServerId)                                                       \
    X(TRITONSERVER_ServerOptionsSetModelRepositoryPath)                                            \
    X(TRITONSERVER_ServerOptionsSetModelControlMode)                                               \
    X(TRITONSERVER_ServerOptionsSetStartupModel)                                                   \
    X(TRITONSERVER_ServerOptionsSetStrictModelConfig)                                              \
    X(TRITONSERVER_ServerOptionsSetPinnedMemoryPoolByteSize)                                       \
    X(TRITONSERVER_ServerOptionsSetExitOnError)                                                    \
    X(TRITONSERVER_ServerOptionsSetStrictReadiness)                                                \
    X(TRITONSERVER_ServerOptionsSetExitTimeout)                                                    \
    X(TRITONSERVER_ServerOptionsSetModelLoadRetryCount)                                            \
    X(TRITONSERVER_ServerOptionsSetBufferManagerThreadCount)                                       \
    X(TRITONSERVER_ServerOptionsSetModelNamespacing)                                               \
    X(TRITONSERVER_ServerOptionsSetRateLimiterMode)                                                \
    X(TRITONSERVER_ServerOptionsSetMetricsInterval)                                                \
    X(TRITONSERVER_ServerOptionsSetEnablePeerAccess)                                               \
    X(TRITONSERVER_ServerOptionsSetModelLoadThreadCount)                                           \
    X(TRITONSERVER_ServerOptionsSetLogInfo)                                                        \
    X(TRITONSERVER_ServerOptionsSetLogWarn)                                                        \
    X(TRITONSERVER_ServerOptionsSetLogError)                                                       \
    X(TRITONSERVER_ServerOptionsSetLogVerbose)                                                     \
    X(TRITONSERVER_ServerOptionsSetMetrics)                                                        \
    X(TRITONSERVER_ServerOptionsSetGpuMetrics)                                                     \
    X(TRITONSERVER_ServerOptionsSetCpuMetrics)                                                     \
    X(TRITONSERVER_ServerOptionsSetBackendDirectory)                                               \
    X(TRITONSERVER_ServerOptionsSetBackendConfig)                                                  \
    X(TRITONSERVER_ServerOptionsSetHostPolicy)                                                     \
    X(TRITONSERVER_ServerNew)                                                                      \
    X(TRITONSERVER_ServerDelete)                                                                   \
    X(TRITONSERVER_ServerStop)                                                                     \
    X(TRITONSERVER_ServerIsReady)                                                                  \
    X(TRITONSERVER_ServerModelIsReady)                                                             \
    X(TRITONSERVER_ServerModelBatchProperties)                                                     \
    X(TRITONSERVER_ServerModelTransactionProperties)                                               \
    X(TRITONSERVER_ServerModelStatistics)                                                          \
    X(TRITONSERVER_ServerModelConfig)                                                              \
    X(TRITONSERVER_ServerModelIndex)                                                               \
    X(TRITONSERVER_ServerLoadModel)                                                                \
    X(TRITONSERVER_ServerLoadModelWithParameters)                                                  \
    X(TRITONSERVER_ServerUnloadModel)                                                              \
    X(TRITONSERVER_ServerMetrics)                                                                  \
    X(TRITONSERVER_ServerInferAsync)

/* One pointer per call above, under the call's own name: api->TRITONSERVER_ServerNew(...). */
#define INPROC_MEMBER(name) __typeof__(&(name)) name;
typedef struct inproc_api {
    INPROC_API(INPROC_MEMBER)
} inproc_api;

#define INPROC_MAX_DIMS 16
#define INPROC_ERROR_TEXT 1024

typedef struct inproc_error {
    /* The server's code, or TRITONSERVER_ERROR_UNKNOWN where the failure is ours. */
    TRITONSERVER_Error_Code code;
    char text[INPROC_ERROR_TEXT];
} inproc_error;

typedef struct inproc_setting {
    const char *backend; /* or host policy */
    const char *key;
    const char *value;
} inproc_setting;

typedef struct inproc_options {
    /* Path of the server's library; NULL: inproc_library_find(). */
    const char *library;
    const char *repository;
    const char *backends;
    /* NULL: load the whole repository, no loading afterwards. Else control mode "explicit" with
     * these models at start, a NULL at the end; an empty list loads none. */
    const char *const *models;
    const inproc_setting *settings;
    size_t setting_count;
    const inproc_setting *policies;
    size_t policy_count;
    /* Fail to start unless every model came up. */
    bool strict_readiness;
    bool metrics;
    /* -1 nothing, 0 errors, 1 warnings, 2 information, 3 and more verbose. */
    int log_level;
} inproc_options;

typedef struct inproc_piece {
    const void *base;
    size_t size_bytes;
} inproc_piece;

typedef struct inproc_input {
    const char *name;
    TRITONSERVER_DataType datatype;
    const int64_t *shape;
    size_t dim_count;
    /* Handed on by reference; one input may come in any number of pieces, also none. */
    const inproc_piece *pieces;
    size_t piece_count;
    /* Delivered to the backend as is; the memory type is always CPU. */
    int64_t memory_type_id;
} inproc_input;

typedef struct inproc_output {
    const char *name;
    /* Where the output goes; NULL: a block from malloc, the request's until the next start. */
    void *buffer;
    size_t capacity_bytes;
} inproc_output;

/* What came back for one output. */
typedef struct inproc_result {
    char name[128];
    TRITONSERVER_DataType datatype;
    int64_t shape[INPROC_MAX_DIMS];
    size_t dim_count;
    const void *base;
    size_t size_bytes;
    TRITONSERVER_MemoryType memory_type;
} inproc_result;

typedef struct inproc_server inproc_server;
typedef struct inproc_request inproc_request;

/**
 * Finds the server's library: $UMO_TRITON_LIBRARY, else the one in the `.venv` under `root`, else
 * under $UMO_ROOT; `root` may be NULL.
 *
 * Ownership: the text is static; the next call overwrites it. NULL when there is none.
 */
const char *inproc_library_find(const char *root);

/** Whether a test program has to be skipped (exit status 77) for want of the server; says so. */
bool inproc_missing(void);

/**
 * Opens the server's library globally and looks its calls up. Repeated calls give the same table.
 *
 * Ownership: the table and the library stay until the process ends.
 */
const inproc_api *inproc_api_open(const char *library, inproc_error *error);

/* A model repository in a fresh temporary directory. `path` has room for INPROC_PATH bytes. */
#define INPROC_PATH 512
bool inproc_repository_create(char *path, inproc_error *error);

/* Adds NAME/config.pbtxt with this text, and NAME/1/. */
bool inproc_repository_add(const char *path, const char *model, const char *config,
                           inproc_error *error);

/* Removes it with all it holds. */
void inproc_repository_remove(const char *path);

/* Starts a server, which is ready on return. Several may run in one process, after each other. */
bool inproc_server_start(const inproc_options *options, inproc_server **out, inproc_error *error);

/* Stops and deletes it; waits for its requests. NULL does nothing. */
bool inproc_server_stop(inproc_server *server, inproc_error *error);

const inproc_api *inproc_server_api(const inproc_server *server);
TRITONSERVER_Server *inproc_server_handle(const inproc_server *server);

/* `config_json` may be NULL: the configuration in the repository. */
bool inproc_model_load(inproc_server *server, const char *model, const char *config_json,
                       inproc_error *error);

/* Returns when the model is gone, its backend's finalisers included, or after `timeout_ms`. */
bool inproc_model_unload(inproc_server *server, const char *model, unsigned timeout_ms,
                         inproc_error *error);

/* The three below return text that is the caller's to free(); NULL on failure. */
char *inproc_metrics_text(inproc_server *server, inproc_error *error);
char *inproc_statistics_json(inproc_server *server, const char *model, inproc_error *error);
char *inproc_config_json(inproc_server *server, const char *model, inproc_error *error);

/**
 * Prepares a request that may be sent any number of times.
 *
 * Names, shapes and piece lists are copied; the pieces' bytes and the outputs' buffers are not and
 * must stay until destroy. With no outputs given, the model's all are asked for and malloc'd.
 */
bool inproc_request_create(inproc_server *server, const char *model, const inproc_input *inputs,
                           size_t input_count, const inproc_output *outputs, size_t output_count,
                           inproc_request **out, inproc_error *error);

/* The server's own object, to set an id, parameters, a correlation id; only while not started. */
TRITONSERVER_InferenceRequest *inproc_request_handle(const inproc_request *request);

/**
 * Called on the server's thread for every response with its results, before wait() returns; for
 * decoupled models. The results are valid during the call.
 */
typedef void (*inproc_response_fn)(void *userp, const inproc_result *results, size_t result_count,
                                   const inproc_error *error);
void inproc_request_on_response(inproc_request *request, inproc_response_fn fn, void *userp);

/* Starts without waiting. Starting N requests before waiting for any lets the batcher batch. */
bool inproc_request_start(inproc_request *request, inproc_error *error);

/* Waits for the FINAL flag and the release; false with the server's words if any response was an
 * error. */
bool inproc_request_wait(inproc_request *request, inproc_error *error);

/* start and wait. */
bool inproc_request_infer(inproc_request *request, inproc_error *error);

/* Results of the last response; valid until the next start. NULL where there is none. */
size_t inproc_request_result_count(const inproc_request *request);
const inproc_result *inproc_request_result(const inproc_request *request, size_t index);
const inproc_result *inproc_request_result_by_name(const inproc_request *request, const char *name);

/* The value of a parameter of the last response as text ("true", "-5", "0.5"); NULL if it has none
 * of that name among its first INPROC_MAX_PARAMETERS. */
#define INPROC_MAX_PARAMETERS 16
const char *inproc_request_parameter(const inproc_request *request, const char *name);

/* Responses since the last start, and the time from start to FINAL. */
uint32_t inproc_request_response_count(const inproc_request *request);
uint64_t inproc_request_latency_ns(const inproc_request *request);

/* Waits if started. NULL does nothing. */
void inproc_request_destroy(inproc_request *request);

#ifdef __cplusplus
}
#endif

#endif /* TRITON_INPROC_H */
