/*
 * The kit's side of the backend's calls, as the header promises them and no further.
 */
#include "fake_kit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

void fake_model_finish(umo_model *model)
{
    for (size_t i = 0; i < model->string_count; i++) {
        free(model->strings[i]);
    }
    model->string_count = 0;
    umo_scope_destroy(model->scope);
    model->scope = NULL;
    if (model->context != NULL) {
        umo_context_default_release(model->context);
    }
    model->context = NULL;
}

umo_context *umo_model_context(umo_model *model)
{
    if (model->context == NULL &&
        umo_context_default_acquire(NULL, &model->context, NULL) != UMO_OK) {
        abort();
    }
    return model->context;
}

umo_scope *umo_model_scope(umo_model *model)
{
    if (model->scope == NULL &&
        umo_scope_create(umo_context_scope(umo_model_context(model)), "model", model->limit_bytes,
                         &model->scope, NULL) != UMO_OK) {
        abort();
    }
    return model->scope;
}

/* Strings live as long as the model, so they are kept in it. */
static const char *keep(umo_model *model, const char *text)
{
    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < model->string_count; i++) {
        if (strcmp(model->strings[i], text) == 0) {
            return model->strings[i];
        }
    }
    if (model->string_count == sizeof model->strings / sizeof model->strings[0]) {
        abort();
    }
    return model->strings[model->string_count++] = strdup(text);
}

static const char *from_config(const umo_model *model, const char *object, const char *key)
{
    json_t *config = json_loads(model->config, 0, NULL);
    const json_t *value =
        object == NULL ? json_object_get(config, key)
                       : json_object_get(json_object_get(json_object_get(config, object), key),
                                         "string_value");
    const char *text = keep((umo_model *)(uintptr_t)model, json_string_value(value));
    json_decref(config);
    return text;
}

const char *umo_model_path(const umo_model *model)
{
    return model->path;
}

const char *umo_model_folder(const umo_model *model)
{
    return model->path;
}

const char *umo_model_config(const umo_model *model)
{
    return model->config;
}

const char *umo_model_parameter(const umo_model *model, const char *key)
{
    return from_config(model, "parameters", key);
}

const char *umo_model_backend_option(const umo_model *model, const char *key)
{
    for (size_t i = 0; i < sizeof model->options / sizeof model->options[0]; i++) {
        if (model->options[i][0] != NULL && strcmp(model->options[i][0], key) == 0) {
            return model->options[i][1];
        }
    }
    return NULL;
}

const char *umo_model_file(const umo_model *model, const char *fallback)
{
    const char *name = from_config(model, NULL, "default_model_filename");
    return name != NULL ? name : fallback;
}

int64_t umo_model_batch_max(const umo_model *model)
{
    return model->batch_max;
}

const umo_unified_config *umo_model_unified(const umo_model *model)
{
    return &model->unified;
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

static size_t find(const umo_io *ios, size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(ios[i].name, name) != 0) {
        i++;
    }
    return i;
}

size_t umo_model_find_input(const umo_model *model, const char *name)
{
    return find(model->inputs, model->input_count, name);
}

size_t umo_model_find_output(const umo_model *model, const char *name)
{
    return find(model->outputs, model->output_count, name);
}

static umo_status append(umo_model *model, umo_io *ios, size_t *count, umo_io io)
{
    if (find(ios, *count, io.name) < *count) {
        return UMO_OK;
    }
    if (*count == FAKE_TENSORS) {
        return UMO_E_NOMEM;
    }
    io.name = keep(model, io.name);
    ios[(*count)++] = io;
    return UMO_OK;
}

umo_status umo_model_add_input(umo_model *model, const char *name, umo_dtype dtype,
                               const umo_shape *dims, bool optional)
{
    return append(model, model->inputs, &model->input_count,
                  (umo_io){.name = name, .dtype = dtype, .dims = *dims, .optional = optional});
}

umo_status umo_model_add_output(umo_model *model, const char *name, umo_dtype dtype,
                                const umo_shape *dims)
{
    return append(model, model->outputs, &model->output_count,
                  (umo_io){.name = name, .dtype = dtype, .dims = *dims});
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
    (void)format;
    ((umo_model *)(uintptr_t)model)->warnings += warning;
}

int32_t umo_instance_node(const umo_instance *instance)
{
    return instance != NULL ? instance->node : UMO_NUMA_ANY;
}

umo_status umo_instance_pool_create(const umo_instance *instance, const umo_pool_options *options,
                                    umo_pool **out, umo_error *error)
{
    ((umo_instance *)(uintptr_t)instance)->pools += 1;
    return umo_pool_create(options, out, error);
}

size_t umo_batch_requests(const umo_batch *batch)
{
    return batch->requests;
}

int64_t umo_batch_rows(const umo_batch *batch)
{
    return batch->rows;
}

bool umo_batch_has_input(const umo_batch *batch, size_t input)
{
    return batch->inputs[input].dtype != UMO_DTYPE_INVALID;
}

umo_status umo_batch_input(umo_batch *batch, size_t input, umo_tensor *out, umo_error *error)
{
    (void)error;
    *out = batch->inputs[input];
    return UMO_OK;
}

bool umo_batch_wants_output(const umo_batch *batch, size_t output)
{
    return !batch->unwanted[output];
}

umo_status umo_batch_output(umo_batch *batch, size_t output, umo_dtype dtype,
                            const umo_shape *shape, umo_tensor *out, umo_error *error)
{
    uint64_t size_bytes;
    umo_tensor *tensor = &batch->outputs[output];
    if (umo_shape_bytes(shape, dtype, &size_bytes) != UMO_OK || tensor->data == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no such output");
    }
    umo_status status =
        umo_tensor_init(tensor, tensor->data, (size_t)size_bytes, dtype, shape, error);
    *out = *tensor;
    return status;
}

umo_status umo_batch_output_late(umo_batch *batch, size_t output, umo_dtype dtype,
                                 const umo_shape *shape, const void *data, size_t size_bytes,
                                 umo_reason reason, umo_error *error)
{
    if (batch->late[output] || size_bytes > sizeof batch->late_data[output]) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no such output left");
    }
    batch->late[output] = true;
    batch->reason[output] = reason;
    if (size_bytes > 0) {
        memcpy(batch->late_data[output], data, size_bytes);
    }
    return umo_tensor_init(&batch->outputs[output], batch->late_data[output], size_bytes, dtype,
                           shape, error);
}

const umo_fence_set *umo_batch_waits(const umo_batch *batch)
{
    return &batch->waits;
}

void umo_batch_fail(umo_batch *batch, size_t request, umo_status status, const char *text)
{
    (void)text;
    if (request < FAKE_ROWS) {
        batch->failed[request] = status;
    }
}

bool umo_batch_cancelled(const umo_batch *batch, size_t request)
{
    return batch->cancelled[request];
}
