/*
 * See reader.h.
 */
#include "reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

umo_status umo_reader_complain(const umo_reader *r, const char *where, const char *format, ...)
{
    char text[UMO_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return umo_error_set(r->error, UMO_E_INVAL, 0, "parameter kernel: %s%s%s", where,
                         where[0] != '\0' ? ": " : "", text);
}

umo_status umo_reader_no_memory(const umo_reader *r)
{
    return umo_error_set(r->error, UMO_E_NOMEM, 0, "no memory for the description of a kernel");
}

const char *umo_reader_type_name(const json_t *value)
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
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "of no type";
}

const char *umo_reader_join(char out[UMO_WHERE_BYTES], const char *where, const char *key)
{
    (void)snprintf(out, UMO_WHERE_BYTES, "%.70s%s%.70s", where, where[0] != '\0' ? "." : "", key);
    return out;
}

const char *umo_reader_join_at(char out[UMO_WHERE_BYTES], const char *where, const char *key,
                               size_t index)
{
    (void)snprintf(out, UMO_WHERE_BYTES, "%.60s%s%.60s[%zu]", where, where[0] != '\0' ? "." : "",
                   key, index);
    return out;
}

umo_status umo_reader_keys(const umo_reader *r, const char *where, json_t *object,
                           const char *const *allowed)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (allowed[i] != NULL && strcmp(allowed[i], key) != 0) {
            i++;
        }
        if (allowed[i] != NULL) {
            continue;
        }
        char list[128] = "";
        size_t used = 0;
        for (i = 0; allowed[i] != NULL && used < sizeof list; i++) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "",
                                     allowed[i]);
        }
        return umo_reader_complain(r, where, "unknown key '%s'; allowed: %s", key, list);
    }
    return UMO_OK;
}

/* A non-empty string; NULL in *out when the key is absent. */
umo_status umo_reader_text(const umo_reader *r, const char *where, const json_t *object,
                           const char *key, const char **out)
{
    char place[UMO_WHERE_BYTES];
    const json_t *value = json_object_get(object, key);
    *out = NULL;
    if (value == NULL) {
        return UMO_OK;
    }
    if (!json_is_string(value)) {
        return umo_reader_complain(r, umo_reader_join(place, where, key),
                                   "a string is expected, not %s", umo_reader_type_name(value));
    }
    if (json_string_length(value) == 0) {
        return umo_reader_complain(r, umo_reader_join(place, where, key), "the text is empty");
    }
    *out = json_string_value(value);
    return UMO_OK;
}

/* The name of a file in the version's folder. */
umo_status umo_reader_file(const umo_reader *r, const char *where, const json_t *object,
                           const char *key, const char **out)
{
    char place[UMO_WHERE_BYTES];
    umo_status status = umo_reader_text(r, where, object, key, out);
    if (status == UMO_OK && *out != NULL && strchr(*out, '/') != NULL) {
        return umo_reader_complain(r, umo_reader_join(place, where, key),
                                   "'%s' is no plain name: the file lies in the version's folder",
                                   *out);
    }
    return status;
}

umo_status umo_reader_bool(const umo_reader *r, const char *where, const json_t *object,
                           const char *key, bool *out)
{
    char place[UMO_WHERE_BYTES];
    const json_t *value = json_object_get(object, key);
    if (value != NULL && !json_is_boolean(value)) {
        return umo_reader_complain(r, umo_reader_join(place, where, key),
                                   "true or false is expected, not %s",
                                   umo_reader_type_name(value));
    }
    *out = json_is_true(value);
    return UMO_OK;
}

umo_status umo_reader_dtype(const umo_reader *r, const char *where, const json_t *object,
                            umo_dtype *out)
{
    char place[UMO_WHERE_BYTES];
    const char *name;
    umo_status status = umo_reader_text(r, where, object, "dtype", &name);
    if (status != UMO_OK) {
        return status;
    }
    *out = name != NULL ? umo_dtype_parse(name) : UMO_DTYPE_INVALID;
    return *out != UMO_DTYPE_INVALID && *out != UMO_BYTES
               ? UMO_OK
               : umo_reader_complain(r, umo_reader_join(place, where, "dtype"),
                                     "a type is expected, as FP32 or INT8");
}

umo_status umo_reader_keep(const umo_reader *r, const char *text, char **out)
{
    if (text == NULL) {
        return UMO_OK;
    }
    *out = strdup(text);
    return *out != NULL ? UMO_OK : umo_reader_no_memory(r);
}

umo_status umo_reader_formula(const umo_reader *r, const char *where, const json_t *value,
                              umo_expression *out)
{
    const umo_expression_names names = {.tensors = r->tensors,
                                        .tensor_count = r->tensor_count,
                                        .numbers = r->numbers,
                                        .number_count = r->number_count};
    umo_error inner = {0};
    if (json_is_integer(value)) {
        const int64_t number = json_integer_value(value);
        if (number < 0) {
            return umo_reader_complain(r, where, "a size is 0 or more, not %" PRId64, number);
        }
        umo_expression_init_constant(out, number);
        return UMO_OK;
    }
    if (!json_is_string(value)) {
        return umo_reader_complain(r, where,
                                   "a formula (a string) or an integer is expected, not %s",
                                   umo_reader_type_name(value));
    }
    if (umo_expression_parse(json_string_value(value), &names, out, &inner) != UMO_OK) {
        return umo_reader_complain(r, where, "%s", inner.text);
    }
    return UMO_OK;
}

umo_status umo_reader_parameter(const umo_reader *r, const char *where, const char *key,
                                int64_t *out)
{
    const char *text =
        r->model->parameter != NULL ? r->model->parameter(r->model->user, key) : NULL;
    char *end = NULL;
    if (text == NULL) {
        return umo_reader_complain(r, where, "the model has no parameter '%s'", key);
    }
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0) {
        return umo_reader_complain(r, where, "parameter '%s' is '%.40s', which is no integer", key,
                                   text);
    }
    *out = number;
    return UMO_OK;
}

size_t umo_reader_find(const umo_io *list, size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(list[i].name, name) != 0) {
        i++;
    }
    return i;
}

bool umo_reader_is_identifier(const char *text)
{
    if (text[0] >= '0' && text[0] <= '9') {
        return false;
    }
    return text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")] ==
           '\0';
}
