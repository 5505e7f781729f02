/*
 * The model's configuration, read once from the server's JSON. The `unified_memory` object inside
 * it is unified.c's, its settings unified_model.c's.
 */
#include "kit/kit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void kit_ios_free(umo_io *ios, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)ios[i].name);
    }
    free(ios);
}

umo_status kit_io_append(umo_io **ios, size_t *count, const char *name, umo_dtype dtype,
                         const umo_shape *dims, bool optional)
{
    umo_io *grown = realloc(*ios, (*count + 1) * sizeof *grown);
    if (grown == NULL) {
        return UMO_E_NOMEM;
    }
    *ios = grown;
    char *copy = strdup(name);
    if (copy == NULL) {
        return UMO_E_NOMEM;
    }
    grown[(*count)++] = (umo_io){.name = copy,
                                 .dtype = dtype,
                                 .dims = *dims,
                                 .optional = optional,
                                 .control = umo_dtype_is_control(dtype),
                                 .align_bytes = 1};
    return UMO_OK;
}

/* The server writes 64-bit integers as numbers or as strings. */
static bool json_int64(const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) {
        *out = (int64_t)json_integer_value(value);
        return true;
    }
    const char *text = json_string_value(value);
    char *end = NULL;
    if (text == NULL || *text == '\0') {
        return false;
    }
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0;
}

umo_status kit_dims_read(const char *name, const json_t *entry, umo_shape *out, umo_error *error)
{
    const json_t *dims = json_object_get(json_object_get(entry, "reshape"), "shape");
    if (dims == NULL) {
        dims = json_object_get(entry, "dims");
    }
    size_t rank = json_array_size(dims);
    if (rank >= UMO_RANK_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "tensor '%s' has %zu dimensions; at most %u",
                             name, rank, UMO_RANK_MAX - 1);
    }
    *out = (umo_shape){.rank = (uint32_t)rank};
    for (size_t i = 0; i < rank; i++) {
        if (!json_int64(json_array_get(dims, i), &out->dims[i])) {
            return umo_error_set(error, UMO_E_INVAL, 0, "tensor '%s': dimension %zu is no number",
                                 name, i);
        }
    }
    return UMO_OK;
}

static umo_status read_ios(const json_t *array, umo_io **ios, size_t *count, umo_error *error)
{
    size_t index;
    json_t *entry;
    json_array_foreach(array, index, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *type = json_string_value(json_object_get(entry, "data_type"));
        umo_dtype dtype = umo_dtype_parse(type != NULL ? type : "");
        if (name == NULL || dtype == UMO_DTYPE_INVALID) {
            return umo_error_set(error, UMO_E_INVAL, 0, "tensor '%s' has no valid data type",
                                 name != NULL ? name : "");
        }
        umo_shape dims;
        umo_status status = kit_dims_read(name, entry, &dims, error);
        if (status == UMO_OK) {
            status = kit_io_append(ios, count, name, dtype, &dims,
                                   json_is_true(json_object_get(entry, "optional")));
        }
        if (status != UMO_OK) {
            return status;
        }
        (*ios)[*count - 1].ragged = json_is_true(json_object_get(entry, "allow_ragged_batch"));
    }
    return UMO_OK;
}

umo_status kit_config_read(umo_model *model, umo_error *error)
{
    TRITONSERVER_Message *message = NULL;
    umo_status status =
        kit_from_triton(TRITONBACKEND_ModelConfig(model->triton, 1, &message), error);
    if (status != UMO_OK) {
        return status;
    }
    const char *text = NULL;
    size_t text_bytes = 0;
    status =
        kit_from_triton(TRITONSERVER_MessageSerializeToJson(message, &text, &text_bytes), error);
    if (status == UMO_OK) {
        json_error_t problem;
        model->config = json_loadb(text, text_bytes, 0, &problem);
        if (model->config == NULL) {
            status = umo_error_set(error, UMO_E_INVAL, 0, "the configuration is not JSON: %s",
                                   problem.text);
        }
    }
    (void)kit_from_triton(TRITONSERVER_MessageDelete(message), NULL);
    if (status != UMO_OK) {
        return status;
    }
    model->config_text = json_dumps(model->config, JSON_COMPACT);
    if (model->config_text == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the configuration");
    }
    (void)json_int64(json_object_get(model->config, "max_batch_size"), &model->batch_max);
    const json_t *inputs = json_object_get(model->config, "input");
    const json_t *outputs = json_object_get(model->config, "output");
    model->batch_unset =
        model->batch_max == 0 && json_array_size(inputs) == 0 && json_array_size(outputs) == 0;
    model->decoupled = json_is_true(
        json_object_get(json_object_get(model->config, "model_transaction_policy"), "decoupled"));
    status = read_ios(inputs, &model->inputs, &model->input_count, error);
    if (status == UMO_OK) {
        status = read_ios(outputs, &model->outputs, &model->output_count, error);
    }
    if (status == UMO_OK) {
        status = kit_sequence_read(model, error);
    }
    return status == UMO_OK ? kit_batch_io_read(model, error) : status;
}

static json_t *io_to_json(const umo_io *io)
{
    json_t *dims = json_array();
    for (uint32_t i = 0; i < io->dims.rank; i++) {
        (void)json_array_append_new(dims, json_integer((json_int_t)io->dims.dims[i]));
    }
    char type[32] = "TYPE_";
    strcat(type, io->dtype == UMO_BYTES ? "STRING" : umo_dtype_name(io->dtype));
    json_t *entry = json_pack("{s:s, s:s, s:o}", "name", io->name, "data_type", type, "dims", dims);
    if (entry != NULL && io->optional) {
        (void)json_object_set_new(entry, "optional", json_true());
    }
    return entry;
}

/* Adds the tensors that the model brought. Those of the configuration come first in ios, and their
 * entries are left as the user wrote them. */
static umo_status ios_complete(json_t *config, const char *key, const umo_io *ios, size_t count)
{
    json_t *array = json_object_get(config, key);
    if (!json_is_array(array)) {
        array = json_array();
        if (json_object_set_new(config, key, array) != 0) {
            return UMO_E_NOMEM;
        }
    }
    for (size_t i = json_array_size(array); i < count; i++) {
        if (ios[i].source == UMO_IO_REQUEST &&
            json_array_append_new(array, io_to_json(&ios[i])) != 0) {
            return UMO_E_NOMEM;
        }
    }
    return UMO_OK;
}

/* A model whose batching was completed too gets the dynamic batcher, unless the user chose how
 * requests are scheduled. */
static umo_status scheduling_complete(const umo_model *model)
{
    static const char *const choices[] = {"dynamic_batching", "sequence_batching",
                                          "ensemble_scheduling"};
    bool chosen = !model->batch_unset || model->batch_max <= 1;
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        chosen = chosen || json_object_get(model->config, choices[i]) != NULL;
    }
    return chosen || json_object_set_new(model->config, choices[0], json_object()) == 0
               ? UMO_OK
               : UMO_E_NOMEM;
}

umo_status kit_config_complete(umo_model *model, umo_error *error)
{
    umo_status status = ios_complete(model->config, "input", model->inputs, model->input_count);
    if (status == UMO_OK) {
        status = ios_complete(model->config, "output", model->outputs, model->output_count);
    }
    if (status == UMO_OK) {
        status = scheduling_complete(model);
    }
    char *text = NULL;
    if (status == UMO_OK &&
        json_object_set_new(model->config, "max_batch_size", json_integer(model->batch_max)) == 0) {
        text = json_dumps(model->config, JSON_COMPACT);
    }
    if (text == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the configuration");
    }
    TRITONSERVER_Message *message = NULL;
    status = kit_from_triton(
        TRITONSERVER_MessageNewFromSerializedJson(&message, text, strlen(text)), error);
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONBACKEND_ModelSetConfig(model->triton, 1, message), error);
        (void)kit_from_triton(TRITONSERVER_MessageDelete(message), NULL);
    }
    model->config_given = model->config_text;
    model->config_text = text;
    return status;
}
