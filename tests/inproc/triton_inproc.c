/* See triton_inproc.h. A request is one allocation block that owns copies of its description, so
 * that the measured path - start, allocate, respond, wait - allocates nothing of its own once the
 * result array has its size. */
#include "triton_inproc.h"

#include <dlfcn.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct inproc_server {
    const inproc_api *api;
    TRITONSERVER_Server *handle;
    TRITONSERVER_ResponseAllocator *allocator;
};

typedef struct output_slot {
    char *name;
    void *buffer;
    size_t capacity_bytes;
} output_slot;

typedef struct response_parameter {
    char name[64];
    char text[192];
} response_parameter;

struct inproc_request {
    inproc_server *server;
    TRITONSERVER_InferenceRequest *handle;
    output_slot *slots;
    size_t slot_count;
    inproc_response_fn on_response;
    void *on_response_userp;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* All below: under the lock while started. */
    bool started;
    bool final;
    bool released;
    uint64_t start_ns;
    uint64_t final_ns;
    uint32_t response_count;
    inproc_result *results;
    size_t result_count;
    size_t result_capacity;
    response_parameter parameters[INPROC_MAX_PARAMETERS];
    size_t parameter_count;
    void **blocks;
    size_t block_count;
    size_t block_capacity;
    bool failed;
    inproc_error failure;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((format(printf, 2, 3))) static bool fail(inproc_error *error, const char *format, ...)
{
    va_list args;

    if (error != NULL) {
        error->code = TRITONSERVER_ERROR_UNKNOWN;
        va_start(args, format);
        vsnprintf(error->text, sizeof(error->text), format, args);
        va_end(args);
    }
    return false;
}

static void take_words(const inproc_api *api, TRITONSERVER_Error *from, inproc_error *error)
{
    error->code = api->TRITONSERVER_ErrorCode(from);
    snprintf(error->text, sizeof(error->text), "%s", api->TRITONSERVER_ErrorMessage(from));
}

/* True for NULL; else takes code and words over and deletes the server's error. */
static bool check(const inproc_api *api, TRITONSERVER_Error *from, inproc_error *error)
{
    if (from == NULL) {
        return true;
    }
    if (error != NULL) {
        take_words(api, from, error);
    }
    api->TRITONSERVER_ErrorDelete(from);
    return false;
}

static bool find_below(const char *root, char *path, size_t size)
{
    char pattern[PATH_MAX];
    glob_t found;
    bool ok = false;

    snprintf(pattern, sizeof(pattern),
             "%s/.venv/lib/python3*/site-packages/nvidia_pytriton.libs/libtritonserver*.so*", root);
    if (glob(pattern, 0, NULL, &found) == 0) {
        ok = snprintf(path, size, "%s", found.gl_pathv[0]) < (int)size;
        globfree(&found);
    }
    return ok;
}

const char *inproc_library_find(const char *root)
{
    static char path[PATH_MAX];
    const char *named = getenv("UMO_TRITON_LIBRARY");
    const char *environment_root = getenv("UMO_ROOT");

    if (named != NULL && named[0] != '\0') {
        return named;
    }
    if (root != NULL && find_below(root, path, sizeof(path))) {
        return path;
    }
    if (environment_root != NULL && find_below(environment_root, path, sizeof(path))) {
        return path;
    }
    return NULL;
}

bool inproc_missing(void)
{
    if (inproc_library_find(NULL) != NULL) {
        return false;
    }
    (void)fprintf(stderr,
                  "skipped: no libtritonserver; run the set-up or set UMO_TRITON_LIBRARY\n");
    return true;
}

/* Opens a library that brings its own copies of what it needs, in its own directory, but not always
 * a run path to find them: what the loader misses is opened from there first. */
static void *open_with_siblings(const char *path, int flags, int depth)
{
    static const char missing_suffix[] = ": cannot open shared object file";
    char sibling[PATH_MAX];
    const char *slash = strrchr(path, '/');
    void *handle;

    for (;;) {
        const char *words;
        const char *end;

        handle = dlopen(path, flags);
        if (handle != NULL || slash == NULL || depth == 0) {
            return handle;
        }
        words = dlerror();
        end = words != NULL ? strstr(words, missing_suffix) : NULL;
        if (end == NULL || end == words || memchr(words, '/', (size_t)(end - words)) != NULL ||
            snprintf(sibling, sizeof(sibling), "%.*s/%.*s", (int)(slash - path), path,
                     (int)(end - words), words) >= (int)sizeof(sibling)) {
            /* Asked again for the words, which the loader gives once. */
            return dlopen(path, flags);
        }
        if (open_with_siblings(sibling, RTLD_NOW, depth - 1) == NULL) {
            return NULL;
        }
    }
}

static const inproc_api *open_locked(const char *library, inproc_error *error)
{
    static inproc_api api;
    static bool opened;
    inproc_api fresh;
    void *handle;

    if (opened) {
        return &api;
    }
    handle = open_with_siblings(library, RTLD_NOW | RTLD_GLOBAL, 16);
    if (handle == NULL) {
        fail(error, "cannot open the server's library: %s", dlerror());
        return NULL;
    }
    /* ISO C has no conversion from an object pointer to a function pointer; POSIX promises that the
     * bytes are good. */
#define LOOK_UP(name)                                                                              \
    do {                                                                                           \
        void *symbol = dlsym(handle, #name);                                                       \
        if (symbol == NULL) {                                                                      \
            fail(error, "the server's library lacks %s", #name);                                   \
            dlclose(handle);                                                                       \
            return NULL;                                                                           \
        }                                                                                          \
        memcpy(&fresh.name, &symbol, sizeof(symbol));                                              \
    } while (0);
    INPROC_API(LOOK_UP)
#undef LOOK_UP
    api = fresh;
    opened = true;
    return &api;
}

const inproc_api *inproc_api_open(const char *library, inproc_error *error)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const inproc_api *api;

    if (library == NULL) {
        library = inproc_library_find(NULL);
        if (library == NULL) {
            fail(error, "no libtritonserver: name one in UMO_TRITON_LIBRARY or run the set-up");
            return NULL;
        }
    }
    pthread_mutex_lock(&lock);
    api = open_locked(library, error);
    pthread_mutex_unlock(&lock);
    return api;
}

/* ---- The response allocator: the caller's memory where given, else malloc ---- */

static bool block_keep(inproc_request *request, void *block)
{
    if (request->block_count == request->block_capacity) {
        size_t capacity = request->block_capacity == 0 ? 16 : 2 * request->block_capacity;
        void **grown = realloc(request->blocks, capacity * sizeof(*grown));

        if (grown == NULL) {
            return false;
        }
        request->blocks = grown;
        request->block_capacity = capacity;
    }
    request->blocks[request->block_count++] = block;
    return true;
}

static output_slot *slot_find(inproc_request *request, const char *name)
{
    for (size_t i = 0; i < request->slot_count; i++) {
        if (strcmp(request->slots[i].name, name) == 0) {
            return &request->slots[i];
        }
    }
    return NULL;
}

static TRITONSERVER_Error *alloc_output(TRITONSERVER_ResponseAllocator *allocator, const char *name,
                                        size_t size_bytes, TRITONSERVER_MemoryType memory_type,
                                        int64_t memory_type_id, void *userp, void **buffer,
                                        void **buffer_userp,
                                        TRITONSERVER_MemoryType *actual_memory_type,
                                        int64_t *actual_memory_type_id)
{
    inproc_request *request = userp;
    const inproc_api *api = request->server->api;
    output_slot *slot = slot_find(request, name);
    char text[256];
    void *block;
    bool kept;

    (void)allocator;
    (void)memory_type;
    (void)memory_type_id;
    *actual_memory_type = TRITONSERVER_MEMORY_CPU;
    *actual_memory_type_id = 0;
    *buffer_userp = NULL;
    if (slot != NULL && slot->buffer != NULL) {
        if (size_bytes > slot->capacity_bytes) {
            snprintf(text, sizeof(text), "output '%s' needs %zu bytes, the buffer has %zu", name,
                     size_bytes, slot->capacity_bytes);
            return api->TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, text);
        }
        *buffer = slot->buffer;
        return NULL;
    }
    block = malloc(size_bytes > 0 ? size_bytes : 1);
    pthread_mutex_lock(&request->lock);
    kept = block != NULL && block_keep(request, block);
    pthread_mutex_unlock(&request->lock);
    if (!kept) {
        free(block);
        return api->TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE,
                                          "no memory for an output");
    }
    *buffer = block;
    return NULL;
}

static TRITONSERVER_Error *release_output(TRITONSERVER_ResponseAllocator *allocator, void *buffer,
                                          void *buffer_userp, size_t size_bytes,
                                          TRITONSERVER_MemoryType memory_type,
                                          int64_t memory_type_id)
{
    /* Blocks live until the request's next start: results point at them. */
    (void)allocator;
    (void)buffer;
    (void)buffer_userp;
    (void)size_bytes;
    (void)memory_type;
    (void)memory_type_id;
    return NULL;
}

static TRITONSERVER_Error *query_output(TRITONSERVER_ResponseAllocator *allocator, void *userp,
                                        const char *name, size_t *size_bytes,
                                        TRITONSERVER_MemoryType *memory_type,
                                        int64_t *memory_type_id)
{
    (void)allocator;
    (void)userp;
    (void)name;
    (void)size_bytes;
    *memory_type = TRITONSERVER_MEMORY_CPU;
    *memory_type_id = 0;
    return NULL;
}

/* ---- Server ---- */

static bool options_fill(const inproc_api *api, TRITONSERVER_ServerOptions *to,
                         const inproc_options *from, inproc_error *error)
{
    char repository[PATH_MAX];
    char backends[PATH_MAX];

    if (from->repository == NULL || realpath(from->repository, repository) == NULL) {
        return fail(error, "no model repository at '%s'", from->repository ? from->repository : "");
    }
    if (from->backends == NULL || realpath(from->backends, backends) == NULL) {
        return fail(error, "no backend directory at '%s'", from->backends ? from->backends : "");
    }
#define SET(call, ...)                                                                             \
    do {                                                                                           \
        if (!check(api, api->TRITONSERVER_ServerOptions##call(to, __VA_ARGS__), error)) {          \
            return false;                                                                          \
        }                                                                                          \
    } while (0)
    SET(SetServerId, "inproc");
    SET(SetModelRepositoryPath, repository);
    SET(SetBackendDirectory, backends);
    SET(SetStrictModelConfig, false);
    /* A failed model must not take the server with it: the index still has the reason. */
    SET(SetExitOnError, false);
    SET(SetStrictReadiness, from->strict_readiness);
    SET(SetExitTimeout, 60);
    /* Not all options have a value from the start: an unset retry count is whatever the memory
     * held, and a model that fails to load is then tried for ever. */
    SET(SetModelLoadRetryCount, 0);
    SET(SetModelLoadThreadCount, 2);
    SET(SetBufferManagerThreadCount, 0);
    SET(SetModelNamespacing, false);
    SET(SetRateLimiterMode, TRITONSERVER_RATE_LIMIT_OFF);
    SET(SetMetricsInterval, 2000);
    /* Nobody here asks for pinned memory; the default pool is 256 MB. */
    SET(SetPinnedMemoryPoolByteSize, 0);
    SET(SetMetrics, from->metrics);
    SET(SetGpuMetrics, false);
    SET(SetCpuMetrics, false);
    SET(SetLogError, from->log_level >= 0);
    SET(SetLogWarn, from->log_level >= 1);
    SET(SetLogInfo, from->log_level >= 2);
    SET(SetLogVerbose, from->log_level >= 3 ? from->log_level - 2 : 0);
    if (from->models != NULL) {
        SET(SetModelControlMode, TRITONSERVER_MODEL_CONTROL_EXPLICIT);
        for (size_t i = 0; from->models[i] != NULL; i++) {
            SET(SetStartupModel, from->models[i]);
        }
    } else {
        SET(SetModelControlMode, TRITONSERVER_MODEL_CONTROL_NONE);
    }
    for (size_t i = 0; i < from->setting_count; i++) {
        SET(SetBackendConfig, from->settings[i].backend, from->settings[i].key,
            from->settings[i].value);
    }
    for (size_t i = 0; i < from->policy_count; i++) {
        SET(SetHostPolicy, from->policies[i].backend, from->policies[i].key,
            from->policies[i].value);
    }
#undef SET
    return true;
}

/* Copies a message's text and deletes the message. */
static char *message_text(const inproc_api *api, TRITONSERVER_Message *message, inproc_error *error)
{
    const char *base = NULL;
    size_t size_bytes = 0;
    char *text = NULL;

    if (check(api, api->TRITONSERVER_MessageSerializeToJson(message, &base, &size_bytes), error)) {
        text = strndup(base, size_bytes);
        if (text == NULL) {
            fail(error, "out of memory");
        }
    }
    check(api, api->TRITONSERVER_MessageDelete(message), NULL);
    return text;
}

/* Release 24.10 ends an instance's thread by looking into a queue that this thread may just be
 * changing, and crashes about once in fifty times when a model goes right after it came or after
 * its last request. So its threads get the time to come to rest first. */
static void let_threads_rest(void)
{
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 30000000};

    nanosleep(&pause, NULL);
}

/* Fills the error with the reason of the first model that did not come up. */
static bool fail_not_ready(inproc_server *server, inproc_error *error)
{
    const inproc_api *api = server->api;
    TRITONSERVER_Message *message = NULL;
    char *index = NULL;
    const char *reason;
    int length;

    if (check(api, api->TRITONSERVER_ServerModelIndex(server->handle, 0, &message), NULL)) {
        index = message_text(api, message, NULL);
    }
    reason = index != NULL ? strstr(index, "\"reason\":\"") : NULL;
    if (reason == NULL) {
        fail(error, "the server is not ready: a model failed to load");
    } else {
        reason += strlen("\"reason\":\"");
        length = (int)strcspn(reason, "}");
        fail(error, "the server is not ready: %.*s", length > 0 ? length - 1 : 0, reason);
    }
    free(index);
    return false;
}

bool inproc_server_start(const inproc_options *options, inproc_server **out, inproc_error *error)
{
    const inproc_api *api = inproc_api_open(options->library, error);
    TRITONSERVER_ServerOptions *server_options = NULL;
    inproc_server *server = NULL;
    bool ok = false;
    bool ready = false;

    if (api == NULL) {
        return false;
    }
    server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return fail(error, "out of memory");
    }
    server->api = api;
    ok = check(api, api->TRITONSERVER_ServerOptionsNew(&server_options), error) &&
         options_fill(api, server_options, options, error) &&
         check(api,
               api->TRITONSERVER_ResponseAllocatorNew(&server->allocator, alloc_output,
                                                      release_output, NULL),
               error) &&
         check(api,
               api->TRITONSERVER_ResponseAllocatorSetQueryFunction(server->allocator, query_output),
               error) &&
         check(api, api->TRITONSERVER_ServerNew(&server->handle, server_options), error);
    if (server_options != NULL) {
        check(api, api->TRITONSERVER_ServerOptionsDelete(server_options), NULL);
    }
    if (ok && options->strict_readiness) {
        ok = check(api, api->TRITONSERVER_ServerIsReady(server->handle, &ready), error);
        if (ok && !ready) {
            ok = fail_not_ready(server, error);
        }
    }
    if (!ok) {
        inproc_server_stop(server, NULL);
        return false;
    }
    *out = server;
    return true;
}

bool inproc_server_stop(inproc_server *server, inproc_error *error)
{
    bool ok = true;

    if (server == NULL) {
        return true;
    }
    if (server->handle != NULL) {
        let_threads_rest();
        ok = check(server->api, server->api->TRITONSERVER_ServerStop(server->handle), error);
        ok = check(server->api, server->api->TRITONSERVER_ServerDelete(server->handle),
                   ok ? error : NULL) &&
             ok;
    }
    if (server->allocator != NULL) {
        check(server->api, server->api->TRITONSERVER_ResponseAllocatorDelete(server->allocator),
              NULL);
    }
    free(server);
    return ok;
}

const inproc_api *inproc_server_api(const inproc_server *server)
{
    return server->api;
}

TRITONSERVER_Server *inproc_server_handle(const inproc_server *server)
{
    return server->handle;
}

bool inproc_model_load(inproc_server *server, const char *model, const char *config_json,
                       inproc_error *error)
{
    const inproc_api *api = server->api;
    TRITONSERVER_Parameter *parameter;
    const TRITONSERVER_Parameter *list[1];
    bool ok;

    if (config_json == NULL) {
        return check(api, api->TRITONSERVER_ServerLoadModel(server->handle, model), error);
    }
    parameter =
        api->TRITONSERVER_ParameterNew("config", TRITONSERVER_PARAMETER_STRING, config_json);
    if (parameter == NULL) {
        return fail(error, "out of memory");
    }
    list[0] = parameter;
    ok = check(api, api->TRITONSERVER_ServerLoadModelWithParameters(server->handle, model, list, 1),
               error);
    api->TRITONSERVER_ParameterDelete(parameter);
    return ok;
}

/* The index has one flat object for each version of a model. */
static bool index_shows_alive(const char *index, const char *model)
{
    char name[256];

    snprintf(name, sizeof(name), "\"name\":\"%s\"", model);
    for (const char *at = strstr(index, name); at != NULL; at = strstr(at + 1, name)) {
        const char *state = strstr(at, "\"state\":\"");
        const char *end = strchr(at, '}');

        if (state != NULL && end != NULL && state < end &&
            strncmp(state + 9, "UNAVAILABLE", 11) != 0) {
            return true;
        }
    }
    return false;
}

bool inproc_model_unload(inproc_server *server, const char *model, unsigned timeout_ms,
                         inproc_error *error)
{
    const inproc_api *api = server->api;
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 2000000};
    uint64_t deadline_ns = now_ns() + (uint64_t)timeout_ms * 1000000u;

    let_threads_rest();
    if (!check(api, api->TRITONSERVER_ServerUnloadModel(server->handle, model), error)) {
        return false;
    }
    for (;;) {
        TRITONSERVER_Message *message = NULL;
        char *index;
        bool alive;

        if (!check(api, api->TRITONSERVER_ServerModelIndex(server->handle, 0, &message), error)) {
            return false;
        }
        index = message_text(api, message, error);
        if (index == NULL) {
            return false;
        }
        alive = index_shows_alive(index, model);
        free(index);
        if (!alive) {
            return true;
        }
        if (now_ns() > deadline_ns) {
            return fail(error, "model '%s' is still there %u ms after its unload", model,
                        timeout_ms);
        }
        nanosleep(&pause, NULL);
    }
}

char *inproc_metrics_text(inproc_server *server, inproc_error *error)
{
    const inproc_api *api = server->api;
    TRITONSERVER_Metrics *metrics = NULL;
    const char *base = NULL;
    size_t size_bytes = 0;
    char *text = NULL;

    if (!check(api, api->TRITONSERVER_ServerMetrics(server->handle, &metrics), error)) {
        return NULL;
    }
    if (check(api,
              api->TRITONSERVER_MetricsFormatted(metrics, TRITONSERVER_METRIC_PROMETHEUS, &base,
                                                 &size_bytes),
              error)) {
        text = strndup(base, size_bytes);
        if (text == NULL) {
            fail(error, "out of memory");
        }
    }
    check(api, api->TRITONSERVER_MetricsDelete(metrics), NULL);
    return text;
}

char *inproc_statistics_json(inproc_server *server, const char *model, inproc_error *error)
{
    TRITONSERVER_Message *message = NULL;

    if (!check(server->api,
               server->api->TRITONSERVER_ServerModelStatistics(server->handle, model, -1, &message),
               error)) {
        return NULL;
    }
    return message_text(server->api, message, error);
}

char *inproc_config_json(inproc_server *server, const char *model, inproc_error *error)
{
    TRITONSERVER_Message *message = NULL;

    if (!check(server->api,
               server->api->TRITONSERVER_ServerModelConfig(server->handle, model, -1, 1, &message),
               error)) {
        return NULL;
    }
    return message_text(server->api, message, error);
}

/* ---- Requests ---- */

static void on_release(TRITONSERVER_InferenceRequest *handle, uint32_t flags, void *userp)
{
    inproc_request *request = userp;

    (void)handle;
    if ((flags & TRITONSERVER_REQUEST_RELEASE_ALL) == 0) {
        return;
    }
    pthread_mutex_lock(&request->lock);
    request->released = true;
    pthread_cond_broadcast(&request->changed);
    pthread_mutex_unlock(&request->lock);
}

static bool results_reserve(inproc_request *request, size_t count)
{
    inproc_result *grown;

    if (count <= request->result_capacity) {
        return true;
    }
    grown = realloc(request->results, count * sizeof(*grown));
    if (grown == NULL) {
        return false;
    }
    request->results = grown;
    request->result_capacity = count;
    return true;
}

static bool result_read(const inproc_api *api, TRITONSERVER_InferenceResponse *response,
                        uint32_t index, inproc_result *result, inproc_error *error)
{
    const char *name = NULL;
    const int64_t *shape = NULL;
    uint64_t dim_count = 0;
    int64_t memory_type_id = 0;
    void *userp = NULL;

    if (!check(api,
               api->TRITONSERVER_InferenceResponseOutput(
                   response, index, &name, &result->datatype, &shape, &dim_count, &result->base,
                   &result->size_bytes, &result->memory_type, &memory_type_id, &userp),
               error)) {
        return false;
    }
    if (dim_count > INPROC_MAX_DIMS) {
        return fail(error, "output '%s' has more than %d dimensions", name, INPROC_MAX_DIMS);
    }
    snprintf(result->name, sizeof(result->name), "%s", name);
    result->dim_count = (size_t)dim_count;
    if (dim_count > 0) {
        memcpy(result->shape, shape, (size_t)dim_count * sizeof(*shape));
    }
    return true;
}

static void parameters_read(inproc_request *request, TRITONSERVER_InferenceResponse *response)
{
    const inproc_api *api = request->server->api;
    uint32_t count = 0;

    request->parameter_count = 0;
    check(api, api->TRITONSERVER_InferenceResponseParameterCount(response, &count), NULL);
    for (uint32_t i = 0; i < count && i < INPROC_MAX_PARAMETERS; i++) {
        response_parameter *to = &request->parameters[i];
        const char *name = NULL;
        const void *value = NULL;
        TRITONSERVER_ParameterType type = TRITONSERVER_PARAMETER_BYTES;

        if (!check(api,
                   api->TRITONSERVER_InferenceResponseParameter(response, i, &name, &type, &value),
                   NULL)) {
            return;
        }
        snprintf(to->name, sizeof(to->name), "%s", name);
        to->text[0] = '\0';
        if (type == TRITONSERVER_PARAMETER_STRING) {
            snprintf(to->text, sizeof(to->text), "%s", (const char *)value);
        } else if (type == TRITONSERVER_PARAMETER_INT) {
            snprintf(to->text, sizeof(to->text), "%" PRId64, *(const int64_t *)value);
        } else if (type == TRITONSERVER_PARAMETER_BOOL) {
            snprintf(to->text, sizeof(to->text), "%s", *(const bool *)value ? "true" : "false");
        } else if (type == TRITONSERVER_PARAMETER_DOUBLE) {
            snprintf(to->text, sizeof(to->text), "%.17g", *(const double *)value);
        }
        request->parameter_count = i + 1;
    }
}

/* Under the lock. */
static void results_read(inproc_request *request, TRITONSERVER_InferenceResponse *response,
                         inproc_error *error, bool *ok)
{
    const inproc_api *api = request->server->api;
    TRITONSERVER_Error *failure = api->TRITONSERVER_InferenceResponseError(response);
    uint32_t count = 0;

    request->result_count = 0;
    if (failure != NULL) {
        /* The response's own: read, never deleted. */
        take_words(api, failure, error);
        *ok = false;
        return;
    }
    *ok = check(api, api->TRITONSERVER_InferenceResponseOutputCount(response, &count), error);
    if (*ok && !results_reserve(request, count)) {
        *ok = fail(error, "out of memory");
    }
    for (uint32_t i = 0; *ok && i < count; i++) {
        *ok = result_read(api, response, i, &request->results[i], error);
        request->result_count = *ok ? i + 1 : 0;
    }
}

static void on_response(TRITONSERVER_InferenceResponse *response, uint32_t flags, void *userp)
{
    inproc_request *request = userp;
    uint64_t now = now_ns();
    inproc_error error;
    bool ok = true;

    pthread_mutex_lock(&request->lock);
    if (response != NULL) {
        parameters_read(request, response);
        results_read(request, response, &error, &ok);
        request->response_count++;
        if (!ok && !request->failed) {
            request->failed = true;
            request->failure = error;
        }
        if (request->on_response != NULL) {
            request->on_response(request->on_response_userp, request->results,
                                 request->result_count, ok ? NULL : &error);
        }
        check(request->server->api,
              request->server->api->TRITONSERVER_InferenceResponseDelete(response), NULL);
    }
    if ((flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL) != 0) {
        request->final = true;
        request->final_ns = now;
        pthread_cond_broadcast(&request->changed);
    }
    pthread_mutex_unlock(&request->lock);
}

static bool input_add(const inproc_api *api, TRITONSERVER_InferenceRequest *handle,
                      const inproc_input *input, inproc_error *error)
{
    if (!check(api,
               api->TRITONSERVER_InferenceRequestAddInput(handle, input->name, input->datatype,
                                                          input->shape, input->dim_count),
               error)) {
        return false;
    }
    for (size_t i = 0; i < input->piece_count; i++) {
        if (!check(api,
                   api->TRITONSERVER_InferenceRequestAppendInputData(
                       handle, input->name, input->pieces[i].base, input->pieces[i].size_bytes,
                       TRITONSERVER_MEMORY_CPU, input->memory_type_id),
                   error)) {
            return false;
        }
    }
    return true;
}

static bool outputs_add(inproc_request *request, const inproc_output *outputs, size_t count,
                        inproc_error *error)
{
    const inproc_api *api = request->server->api;

    if (count == 0) {
        return true;
    }
    request->slots = calloc(count, sizeof(*request->slots));
    if (request->slots == NULL || !results_reserve(request, count)) {
        return fail(error, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        output_slot *slot = &request->slots[i];

        slot->name = strdup(outputs[i].name);
        if (slot->name == NULL) {
            return fail(error, "out of memory");
        }
        request->slot_count = i + 1;
        slot->buffer = outputs[i].buffer;
        slot->capacity_bytes = outputs[i].capacity_bytes;
        if (!check(api,
                   api->TRITONSERVER_InferenceRequestAddRequestedOutput(request->handle,
                                                                        outputs[i].name),
                   error)) {
            return false;
        }
    }
    return true;
}

bool inproc_request_create(inproc_server *server, const char *model, const inproc_input *inputs,
                           size_t input_count, const inproc_output *outputs, size_t output_count,
                           inproc_request **out, inproc_error *error)
{
    const inproc_api *api = server->api;
    inproc_request *request = calloc(1, sizeof(*request));
    bool ok;

    if (request == NULL) {
        return fail(error, "out of memory");
    }
    request->server = server;
    pthread_mutex_init(&request->lock, NULL);
    pthread_cond_init(&request->changed, NULL);
    ok = check(api,
               api->TRITONSERVER_InferenceRequestNew(&request->handle, server->handle, model, -1),
               error);
    for (size_t i = 0; ok && i < input_count; i++) {
        ok = input_add(api, request->handle, &inputs[i], error);
    }
    ok = ok && outputs_add(request, outputs, output_count, error) &&
         check(api,
               api->TRITONSERVER_InferenceRequestSetReleaseCallback(request->handle, on_release,
                                                                    request),
               error) &&
         check(api,
               api->TRITONSERVER_InferenceRequestSetResponseCallback(
                   request->handle, server->allocator, request, on_response, request),
               error);
    if (!ok) {
        inproc_request_destroy(request);
        return false;
    }
    *out = request;
    return true;
}

TRITONSERVER_InferenceRequest *inproc_request_handle(const inproc_request *request)
{
    return request->handle;
}

void inproc_request_on_response(inproc_request *request, inproc_response_fn fn, void *userp)
{
    request->on_response = fn;
    request->on_response_userp = userp;
}

static void blocks_free(inproc_request *request)
{
    for (size_t i = 0; i < request->block_count; i++) {
        free(request->blocks[i]);
    }
    request->block_count = 0;
}

bool inproc_request_start(inproc_request *request, inproc_error *error)
{
    const inproc_api *api = request->server->api;

    if (request->started) {
        return fail(error, "the request is under way");
    }
    blocks_free(request);
    request->started = true;
    request->final = false;
    request->released = false;
    request->failed = false;
    request->response_count = 0;
    request->result_count = 0;
    request->parameter_count = 0;
    request->start_ns = now_ns();
    if (!check(api,
               api->TRITONSERVER_ServerInferAsync(request->server->handle, request->handle, NULL),
               error)) {
        request->started = false;
        return false;
    }
    return true;
}

bool inproc_request_wait(inproc_request *request, inproc_error *error)
{
    bool ok;

    if (!request->started) {
        return fail(error, "the request was not started");
    }
    pthread_mutex_lock(&request->lock);
    while (!request->final || !request->released) {
        pthread_cond_wait(&request->changed, &request->lock);
    }
    ok = !request->failed;
    if (!ok && error != NULL) {
        *error = request->failure;
    }
    pthread_mutex_unlock(&request->lock);
    request->started = false;
    return ok;
}

bool inproc_request_infer(inproc_request *request, inproc_error *error)
{
    return inproc_request_start(request, error) && inproc_request_wait(request, error);
}

size_t inproc_request_result_count(const inproc_request *request)
{
    return request->result_count;
}

const inproc_result *inproc_request_result(const inproc_request *request, size_t index)
{
    return index < request->result_count ? &request->results[index] : NULL;
}

const inproc_result *inproc_request_result_by_name(const inproc_request *request, const char *name)
{
    for (size_t i = 0; i < request->result_count; i++) {
        if (strcmp(request->results[i].name, name) == 0) {
            return &request->results[i];
        }
    }
    return NULL;
}

const char *inproc_request_parameter(const inproc_request *request, const char *name)
{
    for (size_t i = 0; i < request->parameter_count; i++) {
        if (strcmp(request->parameters[i].name, name) == 0) {
            return request->parameters[i].text;
        }
    }
    return NULL;
}

uint32_t inproc_request_response_count(const inproc_request *request)
{
    return request->response_count;
}

uint64_t inproc_request_latency_ns(const inproc_request *request)
{
    return request->final_ns - request->start_ns;
}

void inproc_request_destroy(inproc_request *request)
{
    if (request == NULL) {
        return;
    }
    if (request->started) {
        inproc_request_wait(request, NULL);
    }
    if (request->handle != NULL) {
        check(request->server->api,
              request->server->api->TRITONSERVER_InferenceRequestDelete(request->handle), NULL);
    }
    blocks_free(request);
    free(request->blocks);
    free(request->results);
    for (size_t i = 0; i < request->slot_count; i++) {
        free(request->slots[i].name);
    }
    free(request->slots);
    pthread_cond_destroy(&request->changed);
    pthread_mutex_destroy(&request->lock);
    free(request);
}
