/*
 * Tensors: a typed view of bytes, checked once when it is made.
 *
 * A tensor is a plain value that anybody can fill, so a slice trusts neither strides nor size: the
 * new range is computed without overflow and has to lie inside the old one. An empty tensor has no
 * element that could lie anywhere: its strides are 0, it counts as packed, and an empty slice
 * leaves the first byte where it was, because a step beyond the last element may leave the memory.
 */
#include "base/size.h"
#include "tensor/extent.h"

#include <umo/tensor.h>

#include <inttypes.h>

/* Room for the shapes that occur; longer ones are cut in a message. */
#define SHAPE_TEXT_BYTES 128

/* Checks type, shape and size together, since one message has to name all three. */
static umo_status check(umo_dtype dtype, const umo_shape *shape, size_t size_bytes,
                        umo_error *error)
{
    char text[SHAPE_TEXT_BYTES];
    uint64_t count;
    uint64_t wanted_bytes;
    if (dtype != UMO_BYTES && umo_dtype_size(dtype) == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "element type %d does not exist", (int)dtype);
    }
    if (umo_shape_count(shape, &count) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "shape %s has a negative dimension, more than %u dimensions or too "
                             "many elements",
                             umo_shape_format(shape, text, sizeof text), UMO_RANK_MAX);
    }
    if (dtype == UMO_BYTES) {
        return UMO_OK;
    }
    if (umo_shape_bytes(shape, dtype, &wanted_bytes) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0, "shape %s of %s has too many bytes",
                             umo_shape_format(shape, text, sizeof text), umo_dtype_name(dtype));
    }
    if (wanted_bytes != size_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "shape %s of %s needs %" PRIu64 " bytes, but there are %zu",
                             umo_shape_format(shape, text, sizeof text), umo_dtype_name(dtype),
                             wanted_bytes, size_bytes);
    }
    return UMO_OK;
}

/* The shape was checked: without a zero among the dimensions no product of them overflows. */
static void strides_fill(umo_tensor *tensor)
{
    const umo_shape *shape = &tensor->shape;
    int64_t stride = 1;
    for (uint32_t i = 0; i < shape->rank; i++) {
        stride = shape->dims[i] == 0 ? 0 : stride;
    }
    for (uint32_t i = shape->rank; i-- > 0;) {
        tensor->strides[i] = stride;
        stride *= stride == 0 ? 1 : shape->dims[i];
    }
}

umo_status umo_tensor_init(umo_tensor *tensor, void *data, size_t size_bytes, umo_dtype dtype,
                           const umo_shape *shape, umo_error *error)
{
    umo_status status = check(dtype, shape, size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    if (data == NULL && size_bytes > 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a tensor of %zu bytes has no memory",
                             size_bytes);
    }
    *tensor = (umo_tensor){.data = data, .size_bytes = size_bytes, .dtype = dtype, .shape = *shape};
    strides_fill(tensor);
    return UMO_OK;
}

umo_status umo_tensor_init_buffer(umo_tensor *tensor, umo_buffer *buffer, size_t offset_bytes,
                                  size_t size_bytes, umo_dtype dtype, const umo_shape *shape,
                                  umo_error *error)
{
    umo_status status = check(dtype, shape, size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    const size_t limit_bytes = umo_buffer_size(buffer);
    if (!umo_range_fits(offset_bytes, size_bytes, limit_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%zu bytes at offset %zu do not lie in a buffer of %zu bytes",
                             size_bytes, offset_bytes, limit_bytes);
    }
    unsigned char *host = umo_buffer_host(buffer);
    *tensor = (umo_tensor){.buffer = buffer,
                           .data = host != NULL ? host + offset_bytes : NULL,
                           .offset_bytes = offset_bytes,
                           .size_bytes = size_bytes,
                           .dtype = dtype,
                           .shape = *shape};
    strides_fill(tensor);
    return UMO_OK;
}

bool umo_tensor_is_packed(const umo_tensor *tensor)
{
    uint64_t count;
    if (umo_shape_count(&tensor->shape, &count) != UMO_OK) {
        return false;
    }
    if (count == 0 || tensor->dtype == UMO_BYTES) {
        return true;
    }
    int64_t stride = 1;
    for (uint32_t i = tensor->shape.rank; i-- > 0;) {
        const int64_t dim = tensor->shape.dims[i];
        /* A dimension of one is never stepped over, so its stride says nothing. */
        if (dim != 1 && tensor->strides[i] != stride) {
            return false;
        }
        stride *= dim;
    }
    return true;
}

umo_status umo_tensor_slice(const umo_tensor *tensor, uint32_t dim, int64_t start, int64_t length,
                            umo_tensor *out)
{
    uint64_t count;
    if (tensor->dtype == UMO_BYTES) {
        return UMO_E_UNSUPPORTED;
    }
    if (umo_dtype_size(tensor->dtype) == 0 || umo_shape_count(&tensor->shape, &count) != UMO_OK ||
        dim >= tensor->shape.rank || start < 0 || length < 0 ||
        length > tensor->shape.dims[dim] - start) {
        return UMO_E_INVAL;
    }
    umo_tensor slice = *tensor;
    slice.shape.dims[dim] = length;
    if (count == 0 || length == 0) {
        slice.size_bytes = 0;
        strides_fill(&slice);
        *out = slice;
        return UMO_OK;
    }
    uint64_t skipped_bytes;
    uint64_t extent_bytes;
    if (!umo_tensor_extent(&slice, &extent_bytes) ||
        __builtin_mul_overflow((uint64_t)start, (uint64_t)tensor->strides[dim], &skipped_bytes) ||
        __builtin_mul_overflow(skipped_bytes, umo_dtype_size(tensor->dtype), &skipped_bytes) ||
        !umo_range_fits(skipped_bytes, extent_bytes, tensor->size_bytes) ||
        __builtin_add_overflow(tensor->offset_bytes, skipped_bytes, &slice.offset_bytes)) {
        return UMO_E_INVAL;
    }
    slice.data = slice.data != NULL ? (unsigned char *)slice.data + skipped_bytes : NULL;
    slice.size_bytes = extent_bytes;
    *out = slice;
    return UMO_OK;
}
