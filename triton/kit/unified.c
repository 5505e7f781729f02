/*
 * The `unified_memory` object of a model, in the server's parameter or in the mission's own place.
 *
 * Every field is checked by a table: an unknown field, a wrong type and a bad value are errors that
 * name the field and what is allowed, because a silently ignored setting looks like one that does
 * not work.
 */
#include "kit/kit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNIFIED_KEY "unified_memory"
#define THRESHOLD_DEFAULT ((size_t)1 << 20)

static const char *json_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

static umo_status read_bool(const char *key, const json_t *value, bool *out, umo_error *error)
{
    if (!json_is_boolean(value)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s.%s is %s; write true or false", UNIFIED_KEY,
                             key, json_type_name(value));
    }
    *out = json_is_true(value);
    return UMO_OK;
}

static umo_status read_size(const char *key, const json_t *value, size_t *out, umo_error *error)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s.%s is %s; write a number of bytes, 0 or more", UNIFIED_KEY, key,
                             json_is_integer(value) ? "negative" : json_type_name(value));
    }
    *out = (size_t)json_integer_value(value);
    return UMO_OK;
}

/* "opencl:0" or "opencl". */
static umo_status read_device(const json_t *value, umo_unified_config *config, umo_error *error)
{
    const char *text = json_string_value(value);
    const char *colon = text != NULL ? strchr(text, ':') : NULL;
    size_t length = text == NULL ? 0 : colon != NULL ? (size_t)(colon - text) : strlen(text);
    unsigned long ordinal = 0;
    char *end = NULL;
    bool numbered = true;
    if (colon != NULL) {
        ordinal = strtoul(colon + 1, &end, 10);
        numbered = colon[1] >= '0' && colon[1] <= '9' && *end == '\0' && ordinal < 1024;
    }
    if (length == 0 || length >= sizeof config->driver || !numbered) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s.device is %s; write a driver and a number, as \"opencl:0\"",
                             UNIFIED_KEY, text != NULL ? text : json_type_name(value));
    }
    memcpy(config->driver, text, length);
    config->driver[length] = '\0';
    config->ordinal = (uint32_t)ordinal;
    return UMO_OK;
}

typedef struct pattern_sink {
    umo_unified_config *config;
    umo_pattern_visit visit;
    void *user;
} pattern_sink;

static umo_status read_pattern(const json_t *entry, const pattern_sink *sink, umo_error *error)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *pattern = json_string_value(json_object_get(entry, "pattern"));
    if (name == NULL || pattern == NULL || json_object_size(entry) != 2) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s.tensor_patterns: an entry is {\"name\": TENSOR, \"pattern\": "
                             "PATTERN} and nothing else",
                             UNIFIED_KEY);
    }
    int found = 0;
    while (found < UMO_PATTERNS && strcmp(umo_pattern_name((umo_pattern)found), pattern) != 0) {
        found++;
    }
    if (found == UMO_PATTERNS) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s.tensor_patterns: '%s' is no pattern; write cpu_dominant, "
                             "gpu_dominant, balanced, streaming or unknown",
                             UNIFIED_KEY, pattern);
    }
    if (strcmp(name, "weights") == 0) {
        sink->config->weights = (umo_pattern)found;
    }
    if (sink->visit != NULL) {
        sink->visit(name, (umo_pattern)found, sink->user);
    }
    return UMO_OK;
}

static umo_status read_patterns(const json_t *value, const pattern_sink *sink, umo_error *error)
{
    if (!json_is_array(value)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s.tensor_patterns is %s; write an array",
                             UNIFIED_KEY, json_type_name(value));
    }
    size_t index;
    json_t *entry;
    json_array_foreach(value, index, entry)
    {
        umo_status status = read_pattern(entry, sink, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status read_field(const char *key, const json_t *value, const pattern_sink *sink,
                             umo_error *error)
{
    umo_unified_config *config = sink->config;
    if (strcmp(key, "enable") == 0) {
        return read_bool(key, value, &config->enable, error);
    }
    if (strcmp(key, "batch_optimization") == 0) {
        return read_bool(key, value, &config->batch_optimization, error);
    }
    if (strcmp(key, "trusted_clients") == 0) {
        return read_bool(key, value, &config->trusted_clients, error);
    }
    if (strcmp(key, "profiling") == 0) {
        return read_bool(key, value, &config->profiling, error);
    }
    if (strcmp(key, "zero_copy_threshold") == 0) {
        return read_size(key, value, &config->zero_copy_threshold, error);
    }
    if (strcmp(key, "device") == 0) {
        return read_device(value, config, error);
    }
    if (strcmp(key, "tensor_patterns") == 0) {
        return read_patterns(value, sink, error);
    }
    return umo_error_set(error, UMO_E_INVAL, 0,
                         "%s has no field '%s'; it has enable, batch_optimization, "
                         "trusted_clients, profiling, zero_copy_threshold, device, "
                         "tensor_patterns",
                         UNIFIED_KEY, key);
}

static umo_status unified_read(const json_t *object, const pattern_sink *sink, umo_error *error)
{
    if (!json_is_object(object)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "parameter '%s' is %s; write an object",
                             UNIFIED_KEY, json_type_name(object));
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        umo_status status = read_field(key, value, sink, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status text_read(const char *text, const char *what, json_t **out, umo_error *error)
{
    json_error_t problem;
    *out = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    return *out != NULL
               ? UMO_OK
               : umo_error_set(error, UMO_E_INVAL, 0, "%s is not JSON: %s at line %d, column %d",
                               what, problem.text, problem.line, problem.column);
}

static const umo_unified_config defaults = {
    .enable = true, .batch_optimization = true, .zero_copy_threshold = THRESHOLD_DEFAULT};

umo_status umo_unified_config_parse(const char *text, umo_unified_config *out,
                                    umo_pattern_visit visit, void *user, umo_error *error)
{
    umo_unified_config config = defaults;
    const pattern_sink sink = {.config = &config, .visit = visit, .user = user};
    umo_status status = UMO_OK;
    if (text != NULL) {
        json_t *object = NULL;
        status = text_read(text, "parameter '" UNIFIED_KEY "'", &object, error);
        if (status == UMO_OK) {
            status = unified_read(object, &sink, error);
        }
        json_decref(object);
    }
    if (status == UMO_OK) {
        *out = config;
    }
    return status;
}

umo_status umo_unified_config_find(const char *model, umo_unified_config *out,
                                   umo_pattern_visit visit, void *user, umo_error *error)
{
    json_t *root = NULL;
    umo_status status = text_read(model, "the model's configuration", &root, error);
    if (status != UMO_OK) {
        return status;
    }
    const json_t *object = json_object_get(json_object_get(root, "optimization"), UNIFIED_KEY);
    const json_t *parameter = json_object_get(json_object_get(root, "parameters"), UNIFIED_KEY);
    umo_unified_config config = defaults;
    if (!json_is_object(root)) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "the model's configuration is %s; write an "
                               "object",
                               json_type_name(root));
    } else if (object != NULL) {
        const pattern_sink sink = {.config = &config, .visit = visit, .user = user};
        status = unified_read(object, &sink, error);
    } else {
        status =
            umo_unified_config_parse(json_string_value(json_object_get(parameter, "string_value")),
                                     &config, visit, user, error);
    }
    json_decref(root);
    if (status == UMO_OK) {
        *out = config;
    }
    return status;
}
