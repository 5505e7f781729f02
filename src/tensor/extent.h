/*
 * How far the elements of a tensor reach: strides come from others and are not trusted.
 */
#ifndef UMO_TENSOR_EXTENT_H
#define UMO_TENSOR_EXTENT_H

#include <umo/tensor.h>

/* Bytes from the first byte of the first element to the last byte of the last; false if a stride is
 * below 0 or no size can hold them. */
static inline bool umo_tensor_extent(const umo_tensor *tensor, uint64_t *out)
{
    int64_t elements = 1;
    for (uint32_t i = 0; i < tensor->shape.rank; i++) {
        int64_t step;
        if (tensor->strides[i] < 0 ||
            __builtin_mul_overflow(tensor->shape.dims[i] - 1, tensor->strides[i], &step) ||
            __builtin_add_overflow(elements, step, &elements)) {
            return false;
        }
    }
    return !__builtin_mul_overflow((uint64_t)elements, umo_dtype_size(tensor->dtype), out);
}

#endif
