/* Reads a model's parameters, its `optimization` and the command line.
 *
 * A value that is not understood stops the load: a misread thread count would show only as a slow
 * model. What is not ours (other parameters) is left to those whose it is. */
#include "options.h"

#include "ort_api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_CONFIG_PREFIX "session_config."

enum {
    THREADS_MAX = 4096,
    OVER_READ_MAX = 4096
};
static const int64_t BATCH_MAX = 1 << 20;

static bool parse_int(const char *text, int64_t least, int64_t most, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < least || value > most) {
        return false;
    }
    *out = value;
    return true;
}

/* Reads one number out of a parameter. An absent one leaves *out as it is. */
static umo_status read_int(const char *where, const char *key, const char *text, int most, int *out,
                           umo_error *error)
{
    int64_t value;
    if (text == NULL) {
        return UMO_OK;
    }
    if (!parse_int(text, 0, most, &value)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s %s is '%s'; it must be a number from 0 to %d", where, key, text,
                             most);
    }
    *out = (int)value;
    return UMO_OK;
}

static umo_status read_flag(const char *where, const char *key, const char *text, int *out,
                            umo_error *error)
{
    if (text == NULL) {
        return UMO_OK;
    }
    if (strcmp(text, "1") == 0 || strcmp(text, "true") == 0) {
        *out = 1;
    } else if (strcmp(text, "0") == 0 || strcmp(text, "false") == 0) {
        *out = 0;
    } else {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s %s is '%s'; it must be 0, 1, false or true",
                             where, key, text);
    }
    return UMO_OK;
}

static umo_status read_command_line(const umo_model *model, ort_options *options, umo_error *error)
{
    static const char where[] = "--backend-config";
    int global = 0;
    options->library = umo_model_backend_option(model, "onnxruntime_library");
    umo_status status = read_int(where, "intra_op_thread_count",
                                 umo_model_backend_option(model, "intra_op_thread_count"),
                                 THREADS_MAX, &options->intra_op_threads, error);
    if (status == UMO_OK) {
        status = read_int(where, "inter_op_thread_count",
                          umo_model_backend_option(model, "inter_op_thread_count"), THREADS_MAX,
                          &options->inter_op_threads, error);
    }
    if (status == UMO_OK) {
        status =
            read_flag(where, "enable-global-threadpool",
                      umo_model_backend_option(model, "enable-global-threadpool"), &global, error);
    }
    options->global_threads = global != 0;
    const char *batch = umo_model_backend_option(model, "default-max-batch-size");
    options->batch_default = 4;
    if (status == UMO_OK && batch != NULL &&
        !parse_int(batch, 0, BATCH_MAX, &options->batch_default)) {
        status =
            umo_error_set(error, UMO_E_INVAL, 0,
                          "%s default-max-batch-size is '%s'; it must be a number from 0 to %lld",
                          where, batch, (long long)BATCH_MAX);
    }
    return status;
}

static umo_status read_threads(const umo_model *model, ort_options *options, umo_error *error)
{
    const char *intra = umo_model_parameter(model, "intra_op_thread_count");
    const char *inter = umo_model_parameter(model, "inter_op_thread_count");
    if (options->global_threads && (intra != NULL || inter != NULL)) {
        umo_model_log(model, true,
                      "thread counts of the model are ignored: a global thread pool is enabled");
        return UMO_OK;
    }
    umo_status status = read_int("parameter", "intra_op_thread_count", intra, THREADS_MAX,
                                 &options->intra_op_threads, error);
    if (status == UMO_OK) {
        status = read_int("parameter", "inter_op_thread_count", inter, THREADS_MAX,
                          &options->inter_op_threads, error);
    }
    return status;
}

static umo_status read_shrinkage(const umo_model *model, ort_options *options, umo_error *error)
{
    static const char key[] = "memory.enable_memory_arena_shrinkage";
    const char *text = umo_model_parameter(model, key);
    if (text == NULL || text[0] == '\0') {
        return UMO_OK;
    }
    /* ONNX Runtime looks at this at every run, and fails it; here the engine has one arena. */
    if (strcmp(text, "cpu:0") != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter %s is '%s'; the engine's only arena is cpu:0", key, text);
    }
    if (options->mem_arena == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter %s needs the arena that enable_mem_arena switches off",
                             key);
    }
    options->shrinkage = text;
    return UMO_OK;
}

static umo_status read_parameters(const umo_model *model, ort_options *options, umo_error *error)
{
    static const char where[] = "parameter";
    const struct {
        const char *key;
        int *out;
    } flags[] = {
        {"execution_mode", &options->execution_mode},
        {"enable_mem_arena", &options->mem_arena},
        {"enable_mem_pattern", &options->mem_pattern},
    };
    umo_status status = read_threads(model, options, error);
    for (size_t i = 0; status == UMO_OK && i < sizeof flags / sizeof flags[0]; i++) {
        status = read_flag(where, flags[i].key, umo_model_parameter(model, flags[i].key),
                           flags[i].out, error);
    }
    /* Off is the conventional way in all things but one: instances have always shared a session. */
    int unified = umo_model_unified(model)->enable ? 1 : 0;
    int share = 1;
    int symbolic = 1;
    int weights = unified;
    int pool = unified;
    int cancel = 1;
    const struct {
        const char *key;
        int *out;
    } switches[] = {
        {"share_session_between_instances", &share}, /* the original's name for it */
        {"share_session", &share},
        {"symbolic_shapes", &symbolic},
        {"share_weights", &weights},
        {"share_prepacked", &options->share_prepacked},
        {"memory_pool", &pool},
        {"cancel_runs", &cancel},
    };
    for (size_t i = 0; status == UMO_OK && i < sizeof switches / sizeof switches[0]; i++) {
        status = read_flag(where, switches[i].key, umo_model_parameter(model, switches[i].key),
                           switches[i].out, error);
    }
    options->share_session = share != 0;
    options->symbolic_shapes = symbolic != 0;
    options->share_weights = weights != 0;
    options->memory_pool = pool != 0;
    options->cancel_runs = cancel != 0;
    if (status == UMO_OK) {
        status = read_int(where, "over_read_bytes", umo_model_parameter(model, "over_read_bytes"),
                          OVER_READ_MAX, &options->over_read_bytes, error);
    }
    return status == UMO_OK ? read_shrinkage(model, options, error) : status;
}

/* The numbers of `optimization.graph.level` are Triton's own. */
static umo_status read_graph_level(const json_t *optimization, ort_options *options,
                                   umo_error *error)
{
    const json_t *level = json_object_get(json_object_get(optimization, "graph"), "level");
    if (level == NULL) {
        return UMO_OK;
    }
    switch (json_is_integer(level) ? json_integer_value(level) : 1000) {
    case -1:
        options->graph_level = ORT_OPTIMIZE_BASIC;
        return UMO_OK;
    case 0:
        options->graph_level = ORT_OPTIMIZE_ALL;
        return UMO_OK;
    case 1:
        options->graph_level = ORT_OPTIMIZE_EXTENDED;
        return UMO_OK;
    case 2:
        options->graph_level = ORT_OPTIMIZE_NONE;
        return UMO_OK;
    default:
        return umo_error_set(
            error, UMO_E_INVAL, 0,
            "optimization.graph.level must be -1 (basic), 0 (all), 1 (extended) or "
            "2 (none)");
    }
}

static umo_status refuse_accelerators(const json_t *list, umo_error *error)
{
    size_t index;
    json_t *entry;
    json_array_foreach(list, index, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        /* The one slot under `optimization` that the server leaves to backends; the kit reads it.
         */
        if (name == NULL || strcmp(name, "unified_memory") != 0) {
            return umo_error_set(
                error, UMO_E_UNSUPPORTED, 0,
                "execution accelerator '%s' is not supported: the engine runs on the "
                "CPU; remove it from optimization.execution_accelerators",
                name != NULL ? name : "");
        }
    }
    return UMO_OK;
}

umo_status ort_options_read(const umo_model *model, ort_options *out, umo_error *error)
{
    ort_options options = {
        .intra_op_threads = ORT_UNSET,
        .inter_op_threads = ORT_UNSET,
        .execution_mode = ORT_UNSET,
        .mem_arena = ORT_UNSET,
        .mem_pattern = ORT_UNSET,
        .graph_level = ORT_OPTIMIZE_ALL,
        .share_prepacked = ORT_UNSET,
    };
    json_error_t problem;
    options.config = json_loads(umo_model_config(model), 0, &problem);
    if (options.config == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the configuration is no JSON: %s",
                             problem.text);
    }
    const json_t *optimization = json_object_get(options.config, "optimization");
    const json_t *accelerators = json_object_get(optimization, "execution_accelerators");
    umo_status status = read_command_line(model, &options, error);
    if (status == UMO_OK) {
        status = read_parameters(model, &options, error);
    }
    if (status == UMO_OK) {
        status = read_graph_level(optimization, &options, error);
    }
    if (status == UMO_OK) {
        status =
            refuse_accelerators(json_object_get(accelerators, "gpu_execution_accelerator"), error);
    }
    if (status == UMO_OK) {
        status =
            refuse_accelerators(json_object_get(accelerators, "cpu_execution_accelerator"), error);
    }
    if (status != UMO_OK) {
        ort_options_finish(&options);
        return status;
    }
    *out = options;
    return UMO_OK;
}

void ort_options_finish(ort_options *options)
{
    json_decref(options->config);
    *options = (ort_options){0};
}

bool ort_options_session_config(const ort_options *options, size_t index, const char **key,
                                const char **value)
{
    const size_t prefix = sizeof SESSION_CONFIG_PREFIX - 1;
    json_t *parameters = json_object_get(options->config, "parameters");
    const char *name;
    json_t *entry;
    json_object_foreach(parameters, name, entry)
    {
        const char *text = json_string_value(json_object_get(entry, "string_value"));
        if (text == NULL || strncmp(name, SESSION_CONFIG_PREFIX, prefix) != 0) {
            continue;
        }
        if (index == 0) {
            *key = name + prefix;
            *value = text;
            return true;
        }
        index -= 1;
    }
    return false;
}

const char *ort_options_op_library(const ort_options *options, size_t index)
{
    const json_t *operations = json_object_get(options->config, "model_operations");
    return json_string_value(
        json_array_get(json_object_get(operations, "op_library_filename"), index));
}
