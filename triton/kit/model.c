/*
 * Models and instances: what the server makes once, and what a backend may ask about them.
 */
#include "kit/kit.h"
#include "kit/unified.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What --backend-config gave this backend: {"cmdline": {key: value}}. */
static umo_status options_read(umo_model *model, umo_error *error)
{
    TRITONBACKEND_Backend *backend = NULL;
    TRITONSERVER_Message *message = NULL;
    umo_status status = kit_from_triton(TRITONBACKEND_ModelBackend(model->triton, &backend), error);
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONBACKEND_BackendConfig(backend, &message), error);
    }
    const char *text = NULL;
    size_t text_bytes = 0;
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONSERVER_MessageSerializeToJson(message, &text, &text_bytes),
                                 error);
    }
    if (status == UMO_OK) {
        model->options = json_loadb(text, text_bytes, 0, NULL);
        if (model->options == NULL) {
            status = umo_error_set(error, UMO_E_INVAL, 0, "the backend's options are not JSON");
        }
    }
    return status;
}

static umo_status names_read(umo_model *model, umo_error *error)
{
    const char *name = NULL;
    const char *folder = NULL;
    TRITONBACKEND_ArtifactType type;
    umo_status status = kit_from_triton(TRITONBACKEND_ModelName(model->triton, &name), error);
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONBACKEND_ModelVersion(model->triton, &model->version), error);
    }
    if (status == UMO_OK) {
        status =
            kit_from_triton(TRITONBACKEND_ModelRepository(model->triton, &type, &folder), error);
    }
    if (status != UMO_OK) {
        return status;
    }
    model->name = strdup(name);
    model->folder = strdup(folder);
    if (asprintf(&model->path, "%s/%llu", folder, (unsigned long long)model->version) < 0) {
        model->path = NULL;
    }
    return model->name != NULL && model->folder != NULL && model->path != NULL
               ? UMO_OK
               : umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a model");
}

/* --backend-config=NAME,budget_bytes=N bounds all models of the process together. */
static umo_status budget_bytes_read(const umo_model *model, uint64_t *out, umo_error *error)
{
    const char *text = umo_model_backend_option(model, "budget_bytes");
    if (text == NULL) {
        return UMO_OK;
    }
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "--backend-config budget_bytes=%s is not a number of bytes", text);
    }
    *out = value;
    return UMO_OK;
}

/* A number from least to most. The server's locale is its own affair: the point is a point. */
static bool fraction_parse(const char *text, double least, double most, double *out)
{
    double value = 0;
    double scale = 1;
    bool digits = false;
    bool point = false;
    for (; *text != '\0'; text++) {
        if (*text == '.' && !point) {
            point = true;
        } else if (*text >= '0' && *text <= '9') {
            value = value * 10 + (*text - '0');
            scale *= point ? 10 : 1; /* divided once: 0.7 is the compiler's 0.7 */
            digits = true;
        } else {
            return false;
        }
    }
    *out = value / scale;
    return digits && *out >= least && *out <= most;
}

/* budget_fraction=F: likewise, as a part of the memory that the server may use. */
static umo_status budget_fraction_read(const umo_model *model, double *out, umo_error *error)
{
    const char *text = umo_model_backend_option(model, "budget_fraction");
    if (text != NULL && !fraction_parse(text, 0, 1, out)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "--backend-config budget_fraction=%s is not a number from 0 to 1",
                             text);
    }
    return UMO_OK;
}

/* pressure=off, or the part of a limit at which memory pressure begins. */
static umo_status pressure_start(umo_model *model, umo_error *error)
{
    const char *text = umo_model_backend_option(model, "pressure");
    umo_pressure_options options = {.threshold = model->unified.pressure_threshold};
    if (text != NULL ? strcmp(text, "off") == 0 : !model->unified.pressure_adaptation) {
        return UMO_OK;
    }
    if (text != NULL && strcmp(text, "on") != 0 &&
        !fraction_parse(text, 0.1, 0.98, &options.threshold)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "--backend-config pressure=%s is neither on, off nor a number from "
                             "0.1 to 0.98",
                             text);
    }
    umo_status status = umo_context_pressure_start(model->context, &options, error);
    model->pressure = umo_context_pressure(model->context);
    return status;
}

static umo_status model_read(umo_model *model, umo_error *error)
{
    umo_status status = names_read(model, error);
    if (status == UMO_OK) {
        status = options_read(model, error);
    }
    if (status == UMO_OK) {
        status = kit_config_read(model, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    status = kit_config_unified(model, error);
    umo_context_options options = {0};
    if (status == UMO_OK) {
        status = budget_bytes_read(model, &options.budget_bytes, error);
    }
    if (status == UMO_OK) {
        status = budget_fraction_read(model, &options.budget_fraction, error);
    }
    if (status == UMO_OK) {
        status = umo_context_default_acquire(&options, &model->context, error);
    }
    if (status == UMO_OK) {
        status = pressure_start(model, error);
    }
    if (status == UMO_OK) {
        status = umo_scope_create(umo_context_scope(model->context), model->name, 0, &model->scope,
                                  error);
    }
    if (status == UMO_OK && model->unified.profiling) {
        status = umo_profile_enable(true);
    }
    return status;
}

umo_status kit_model_create(TRITONBACKEND_Model *triton, umo_model **out, umo_error *error)
{
    static _Atomic uint64_t owners;
    umo_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a model");
    }
    model->triton = triton;
    model->owner = atomic_fetch_add(&owners, 1) + 1;
    const umo_backend *backend = &umo_backend_table;
    umo_status status = model_read(model, error);
    if (status == UMO_OK) {
        status = backend->model_init(model, &model->state, error);
        model->started = status == UMO_OK;
    }
    bool complete = false;
    if (status == UMO_OK && backend->model_complete != NULL) {
        status = kit_from_triton(TRITONBACKEND_ModelAutoCompleteConfig(triton, &complete), error);
    }
    if (status == UMO_OK && complete) {
        status = backend->model_complete(model, model->state, error);
        if (status == UMO_OK) {
            status = kit_config_complete(model, error);
        }
    }
    if (status == UMO_OK) {
        status = kit_config_unified(model, error); /* for the tensors that came in */
    }
    if (status == UMO_OK && backend->model_check != NULL) {
        status = backend->model_check(model, model->state, error);
    }
    if (status == UMO_OK) {
        status = kit_unified_log(model, error);
    }
    if (status != UMO_OK) {
        kit_model_destroy(model);
        return status;
    }
    kit_batch_rules_find(model);
    if (model->decoupled && (status = kit_streams_create(model, error)) != UMO_OK) {
        kit_model_destroy(model);
        return status;
    }
    model->metrics = kit_metrics_create(model);
    *out = model;
    return UMO_OK;
}

/* --backend-config=NAME,profile_file=PATH: what a profiled model's process did, when it goes. */
static void profile_write(const umo_model *model)
{
    const char *path = umo_model_backend_option(model, "profile_file");
    umo_error error = {0};
    if (path != NULL && model->unified.profiling && model->scope != NULL &&
        umo_profile_dump(path, &error) != UMO_OK) {
        umo_model_log(model, true, "the profile is not written: %s", error.text);
    }
}

void kit_model_destroy(umo_model *model)
{
    if (model == NULL) {
        return;
    }
    if (model->started) {
        umo_backend_table.model_finish(model->state);
    }
    kit_streams_destroy(model->streams);
    kit_metrics_destroy(model->metrics);
    profile_write(model);
    if (model->context != NULL) {
        /* Other models may go on with hits alone, which never look whether a region was
         * unregistered. */
        (void)umo_registry_sweep(umo_context_registry(model->context));
    }
    umo_scope_destroy(model->scope);
    umo_context_default_release(model->context);
    kit_ios_free(model->inputs, model->input_count);
    kit_ios_free(model->outputs, model->output_count);
    free(model->batch_inputs);
    free(model->scatter_inputs);
    json_decref(model->config);
    json_decref(model->options);
    free(model->config_text);
    free(model->config_given);
    free(model->file);
    free(model->path);
    free(model->folder);
    free(model->name);
    free(model);
}

const char *umo_model_name(const umo_model *model)
{
    return model->name;
}

uint64_t umo_model_version(const umo_model *model)
{
    return model->version;
}

const char *umo_model_path(const umo_model *model)
{
    return model->path;
}

const char *umo_model_folder(const umo_model *model)
{
    return model->folder;
}

const char *umo_model_config(const umo_model *model)
{
    return model->config_text;
}

const char *umo_model_parameter(const umo_model *model, const char *key)
{
    const json_t *parameter = json_object_get(json_object_get(model->config, "parameters"), key);
    return json_string_value(json_object_get(parameter, "string_value"));
}

const char *umo_model_backend_option(const umo_model *model, const char *key)
{
    return json_string_value(json_object_get(json_object_get(model->options, "cmdline"), key));
}

const char *umo_model_file(const umo_model *model, const char *fallback)
{
    const char *name = json_string_value(json_object_get(model->config, "default_model_filename"));
    return name != NULL && name[0] != '\0' ? name : fallback;
}

int64_t umo_model_batch_max(const umo_model *model)
{
    return model->batch_max;
}

bool umo_model_decoupled(const umo_model *model)
{
    return model->decoupled;
}

const umo_unified_config *umo_model_unified(const umo_model *model)
{
    return &model->unified;
}

umo_context *umo_model_context(umo_model *model)
{
    return model->context;
}

umo_scope *umo_model_scope(umo_model *model)
{
    return model->scope;
}

umo_io *umo_model_inputs(umo_model *model, size_t *count)
{
    *count = model->input_count;
    return model->inputs;
}

umo_io *umo_model_outputs(umo_model *model, size_t *count)
{
    *count = model->output_count;
    return model->outputs;
}

static size_t io_find(const umo_io *ios, size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(ios[i].name, name) != 0) {
        i++;
    }
    return i;
}

size_t umo_model_find_input(const umo_model *model, const char *name)
{
    return io_find(model->inputs, model->input_count, name);
}

size_t umo_model_find_output(const umo_model *model, const char *name)
{
    return io_find(model->outputs, model->output_count, name);
}

umo_status umo_model_add_input(umo_model *model, const char *name, umo_dtype dtype,
                               const umo_shape *dims, bool optional)
{
    if (umo_model_find_input(model, name) < model->input_count) {
        return UMO_OK;
    }
    return kit_io_append(&model->inputs, &model->input_count, name, dtype, dims, optional);
}

umo_status umo_model_add_output(umo_model *model, const char *name, umo_dtype dtype,
                                const umo_shape *dims)
{
    if (umo_model_find_output(model, name) < model->output_count) {
        return UMO_OK;
    }
    return kit_io_append(&model->outputs, &model->output_count, name, dtype, dims, false);
}

bool umo_model_batch_unset(const umo_model *model)
{
    return model->batch_unset;
}

void umo_model_set_batch_max(umo_model *model, int64_t batch_max)
{
    model->batch_max = batch_max;
}

void umo_model_log(const umo_model *model, bool warning, const char *format, ...)
{
    char text[512];
    int prefix = snprintf(text, sizeof text, "%s: ", model->name);
    size_t used = prefix > 0 && (size_t)prefix < sizeof text ? (size_t)prefix : 0;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + used, sizeof text - used, format, arguments);
    va_end(arguments);
    (void)kit_from_triton(
        TRITONSERVER_LogMessage(warning ? TRITONSERVER_LOG_WARN : TRITONSERVER_LOG_INFO, "umo", 0,
                                text),
        NULL);
}

umo_status kit_instance_create(TRITONBACKEND_ModelInstance *triton, umo_model *model,
                               umo_instance **out, umo_error *error)
{
    umo_instance *instance = calloc(1, sizeof *instance);
    if (instance == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an instance");
    }
    instance->triton = triton;
    instance->model = model;
    instance->recorder = umo_profile_switch();
    instance->side = UMO_SIDE_HOST;
    instance->batch.instance = instance;
    const char *name = "";
    umo_status status = kit_from_triton(TRITONBACKEND_ModelInstanceName(triton, &name), error);
    instance->name = strdup(name);
    instance->batch.inputs = calloc(model->input_count + 1, sizeof(kit_slot));
    instance->batch.outputs = calloc(model->output_count + 1, sizeof(kit_slot));
    if (instance->name == NULL || instance->batch.inputs == NULL ||
        instance->batch.outputs == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an instance");
    }
    if (status == UMO_OK) {
        status = umo_mappings_create(&instance->mappings, error);
    }
    if (status == UMO_OK) {
        status = kit_node_find(instance, error);
    }
    if (status == UMO_OK) {
        status = umo_context_device(model->context, "host", 0, &instance->host, error);
    }
    if (status == UMO_OK) {
        status = umo_backend_table.instance_init(instance, model->state, &instance->state, error);
        instance->started = status == UMO_OK;
    }
    if (status == UMO_OK) {
        bool on_device = instance->device != NULL;
        umo_device *device = on_device ? instance->device : instance->host;
        kit_thresholds_find(instance);
        status = kit_instance_pool(instance, device, UMO_UNIFIED, &instance->scratch, error);
        if (status == UMO_OK && on_device) {
            status = kit_instance_pool(instance, device, UMO_PRIVATE, &instance->staging, error);
        }
    }
    if (status == UMO_OK) {
        size_t first = model->batch_max > 0 && model->batch_max < 64 ? (size_t)model->batch_max : 8;
        status = kit_instance_reserve(instance, first);
        if (status != UMO_OK) {
            (void)umo_error_set(error, status, 0, "no memory for an instance");
        }
    }
    if (status != UMO_OK) {
        kit_instance_destroy(instance);
        return status;
    }
    *out = instance;
    return UMO_OK;
}

void kit_instance_destroy(umo_instance *instance)
{
    if (instance == NULL) {
        return;
    }
    if (instance->started) {
        umo_backend_table.instance_finish(instance->state);
    }
    kit_node_finish(instance);
    umo_pool_destroy(instance->scratch);
    umo_pool_destroy(instance->staging);
    for (size_t i = 0; i < instance->request_capacity; i++) {
        free(instance->requests[i].inputs);
        free(instance->requests[i].outputs);
    }
    free(instance->requests);
    free(instance->members);
    free(instance->batch.inputs);
    free(instance->batch.outputs);
    umo_mappings_destroy(instance->mappings);
    umo_device_release(instance->device);
    umo_device_release(instance->host);
    free(instance->name);
    free(instance);
}

umo_status kit_instance_reserve(umo_instance *instance, size_t requests)
{
    if (requests <= instance->request_capacity) {
        return UMO_OK;
    }
    const umo_model *model = instance->model;
    kit_request *grown = realloc(instance->requests, requests * sizeof *grown);
    if (grown == NULL) {
        return UMO_E_NOMEM;
    }
    instance->requests = grown;
    kit_request **members = realloc(instance->members, 2 * requests * sizeof(kit_request *));
    if (members == NULL) {
        return UMO_E_NOMEM;
    }
    instance->members = members;
    instance->spare = members + requests;
    while (instance->request_capacity < requests) {
        kit_request *request = &grown[instance->request_capacity];
        memset(request, 0, sizeof *request);
        request->inputs = calloc(model->input_count + 1, sizeof *request->inputs);
        request->outputs = calloc(model->output_count + 1, sizeof *request->outputs);
        if (request->inputs == NULL || request->outputs == NULL) {
            free(request->inputs);
            free(request->outputs);
            return UMO_E_NOMEM;
        }
        instance->request_capacity++;
    }
    return UMO_OK;
}

umo_model *umo_instance_model(const umo_instance *instance)
{
    return instance->model;
}

const char *umo_instance_name(const umo_instance *instance)
{
    return instance->name;
}

void umo_instance_set_device(umo_instance *instance, umo_device *device, uint32_t queue)
{
    umo_device_acquire(device);
    umo_device_release(instance->device);
    instance->device = device;
    instance->side = UMO_SIDE_DEVICE;
    instance->queue = queue;
}
