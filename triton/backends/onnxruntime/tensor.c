/* Makes values of ONNX Runtime over memory that somebody else owns, and reads the ones it made.
 *
 * ONNX Runtime keeps strings as C++ objects, so they are copied in and out one by one; through its
 * resizable element buffers, because its other way in takes C strings and would cut an element at
 * its first zero byte. */
#include "tensor.h"

#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 4
};

static const ort_element elements[UMO_DTYPES] = {
    [UMO_BOOL] = ORT_ELEMENT_BOOL,     [UMO_UINT8] = ORT_ELEMENT_UINT8,
    [UMO_UINT16] = ORT_ELEMENT_UINT16, [UMO_UINT32] = ORT_ELEMENT_UINT32,
    [UMO_UINT64] = ORT_ELEMENT_UINT64, [UMO_INT8] = ORT_ELEMENT_INT8,
    [UMO_INT16] = ORT_ELEMENT_INT16,   [UMO_INT32] = ORT_ELEMENT_INT32,
    [UMO_INT64] = ORT_ELEMENT_INT64,   [UMO_FP16] = ORT_ELEMENT_FLOAT16,
    [UMO_FP32] = ORT_ELEMENT_FLOAT,    [UMO_FP64] = ORT_ELEMENT_DOUBLE,
    [UMO_BYTES] = ORT_ELEMENT_STRING,  [UMO_BF16] = ORT_ELEMENT_BFLOAT16,
};

umo_dtype ort_dtype_from_element(int element)
{
    for (int dtype = UMO_DTYPE_INVALID + 1; dtype < UMO_DTYPES; dtype++) {
        if ((int)elements[dtype] == element) {
            return (umo_dtype)dtype;
        }
    }
    return UMO_DTYPE_INVALID;
}

int ort_element_from_dtype(umo_dtype dtype)
{
    return (int)elements[dtype];
}

void ort_scratch_finish(ort_scratch *scratch)
{
    free(scratch->data);
    *scratch = (ort_scratch){0};
}

bool ort_scratch_reserve(ort_scratch *scratch, size_t size_bytes)
{
    if (size_bytes <= scratch->capacity_bytes) {
        return true;
    }
    /* What it holds is of no use any more: free first, so that both never exist at once. */
    ort_scratch_finish(scratch);
    scratch->data = malloc(size_bytes);
    scratch->capacity_bytes = scratch->data != NULL ? size_bytes : 0;
    return scratch->data != NULL;
}

/* Engines read a BOOL as C++'s bool, for which other bytes than 0 and 1 are undefined: one pass may
 * count such an element where another does not. */
static bool bools_are_clean(const unsigned char *data, size_t size_bytes)
{
    uint64_t seen = 0;
    size_t i = 0;
    for (; size_bytes - i >= sizeof seen; i += sizeof seen) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        seen |= word;
    }
    for (; i < size_bytes; i++) {
        seen |= data[i];
    }
    return (seen & 0xFEFEFEFEFEFEFEFEu) == 0;
}

static umo_status fill_strings(const ort_api *api, const char *name, const umo_tensor *tensor,
                               uint64_t count, ort_value *value, umo_error *error)
{
    size_t cursor = 0;
    for (uint64_t i = 0; i < count; i++) {
        const void *element;
        size_t element_bytes;
        char *target = NULL;
        if (umo_bytes_next(tensor->data, tensor->size_bytes, &cursor, &element, &element_bytes) !=
            UMO_OK) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "input '%s' holds fewer strings than its shape says", name);
        }
        umo_status status =
            ort_check(api, api->string_resize(value, (size_t)i, element_bytes, &target),
                      "take a string", error);
        if (status != UMO_OK) {
            return status;
        }
        if (element_bytes != 0) {
            memcpy(target, element, element_bytes);
        }
    }
    return UMO_OK;
}

static umo_status wrap_strings(const ort_runtime *runtime, const char *name,
                               const umo_tensor *tensor, ort_value **out, umo_error *error)
{
    const ort_api *api = &runtime->api;
    uint64_t count;
    const umo_shape *shape = &tensor->shape;
    if (umo_shape_count(shape, &count) != UMO_OK || count > tensor->size_bytes / LENGTH_BYTES) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "input '%s' holds fewer strings than its shape says", name);
    }
    ort_value *value = NULL;
    umo_status status = ort_check(api,
                                  api->create_tensor(runtime->allocator, shape->dims, shape->rank,
                                                     ORT_ELEMENT_STRING, &value),
                                  "make a string tensor", error);
    if (status == UMO_OK) {
        status = fill_strings(api, name, tensor, count, value, error);
    }
    if (status != UMO_OK) {
        if (value != NULL) {
            api->release_value(value);
        }
        return status;
    }
    *out = value;
    return UMO_OK;
}

static umo_status wrap_numbers(const ort_runtime *runtime, const umo_tensor *tensor,
                               ort_value **out, umo_error *error)
{
    const ort_api *api = &runtime->api;
    return ort_check(api,
                     api->create_tensor_with_data(
                         runtime->cpu_memory, tensor->data, tensor->size_bytes, tensor->shape.dims,
                         tensor->shape.rank, ort_element_from_dtype(tensor->dtype), out),
                     "bind a tensor", error);
}

umo_status ort_value_wrap(const ort_runtime *runtime, const char *name, const umo_tensor *tensor,
                          bool check_bools, ort_value **out, umo_error *error)
{
    if (tensor->dtype == UMO_BYTES) {
        return wrap_strings(runtime, name, tensor, out, error);
    }
    if (check_bools && tensor->dtype == UMO_BOOL &&
        !bools_are_clean(tensor->data, tensor->size_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "input '%s' of BOOL holds a byte other than 0 and 1", name);
    }
    return wrap_numbers(runtime, tensor, out, error);
}

umo_status ort_value_target(const ort_runtime *runtime, const umo_tensor *tensor, ort_value **out,
                            umo_error *error)
{
    return wrap_numbers(runtime, tensor, out, error);
}

static void store_length(char *target, size_t length_bytes)
{
    for (int i = 0; i < LENGTH_BYTES; i++) {
        target[i] = (char)(length_bytes >> (8 * i) & 0xFF);
    }
}

static umo_status read_strings(const ort_api *api, const char *name, ort_value *value,
                               uint64_t count, ort_scratch *scratch, ort_result *out,
                               umo_error *error)
{
    size_t text_bytes;
    umo_status status = ort_check(api, api->strings_bytes(value, &text_bytes),
                                  "measure an output's strings", error);
    if (status != UMO_OK) {
        return status;
    }
    size_t total_bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)LENGTH_BYTES, &total_bytes) ||
        __builtin_add_overflow(total_bytes, text_bytes, &total_bytes) ||
        !ort_scratch_reserve(scratch, total_bytes)) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the strings of output '%s'",
                             name);
    }
    size_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        size_t length_bytes;
        status = ort_check(api, api->string_bytes(value, (size_t)i, &length_bytes),
                           "measure an output's string", error);
        if (status != UMO_OK) {
            return status;
        }
        if (length_bytes > UINT32_MAX) {
            return umo_error_set(error, UMO_E_LIMIT, 0,
                                 "output '%s' holds a string of 4 GiB or more", name);
        }
        store_length(scratch->data + at, length_bytes);
        at += LENGTH_BYTES;
        status =
            ort_check(api, api->string_copy(value, length_bytes, (size_t)i, scratch->data + at),
                      "copy an output's string", error);
        if (status != UMO_OK) {
            return status;
        }
        at += length_bytes;
    }
    out->data = scratch->data;
    out->size_bytes = total_bytes;
    return UMO_OK;
}

static umo_status read_shape(const ort_api *api, const char *name, const ort_value *value,
                             ort_result *out, umo_error *error)
{
    int kind = 0;
    umo_status status = ort_check(api, api->value_kind(value, &kind), "describe an output", error);
    if (status == UMO_OK && kind != ORT_KIND_TENSOR) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0, "output '%s' is no tensor", name);
    }
    ort_tensor_info *info = NULL;
    if (status == UMO_OK) {
        status = ort_check(api, api->value_info(value, &info), "describe an output", error);
    }
    if (status != UMO_OK) {
        return status;
    }
    int element = ORT_ELEMENT_UNDEFINED;
    size_t rank = 0;
    status = ort_check(api, api->tensor_element(info, &element), "describe an output", error);
    if (status == UMO_OK) {
        status = ort_check(api, api->tensor_rank(info, &rank), "describe an output", error);
    }
    out->dtype = ort_dtype_from_element(element);
    if (status == UMO_OK && (out->dtype == UMO_DTYPE_INVALID || rank > UMO_RANK_MAX)) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "output '%s' has an element type or a rank that Triton lacks", name);
    }
    if (status == UMO_OK) {
        out->shape.rank = (uint32_t)rank;
        status = ort_check(api, api->tensor_dims(info, out->shape.dims, rank), "describe an output",
                           error);
    }
    api->release_tensor_info(info);
    return status;
}

umo_status ort_value_read(const ort_runtime *runtime, const char *name, ort_value *value,
                          ort_scratch *scratch, ort_result *out, umo_error *error)
{
    const ort_api *api = &runtime->api;
    ort_result result = {0};
    umo_status status = read_shape(api, name, value, &result, error);
    uint64_t count = 0;
    if (status == UMO_OK && umo_shape_count(&result.shape, &count) != UMO_OK) {
        status = umo_error_set(error, UMO_E_DEVICE, 0, "output '%s' has an impossible shape", name);
    }
    if (status == UMO_OK && result.dtype == UMO_BYTES) {
        status = read_strings(api, name, value, count, scratch, &result, error);
    } else if (status == UMO_OK) {
        void *data = NULL;
        status = ort_check(api, api->tensor_data(value, &data), "give an output's bytes", error);
        result.data = data;
        result.size_bytes = (size_t)count * umo_dtype_size(result.dtype);
    }
    if (status == UMO_OK) {
        *out = result;
    }
    return status;
}
