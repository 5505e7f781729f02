/*
 * Shapes: a product of dimensions is trusted only after every dimension was looked at.
 *
 * All dimensions are checked before any product is judged, so that the verdict does not depend on
 * their order: a negative dimension is an error beside a zero, and a zero makes the shape empty
 * however large the others are.
 */
#include <umo/tensor.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

umo_status umo_shape_count(const umo_shape *shape, uint64_t *out)
{
    if (shape->rank > UMO_RANK_MAX) {
        return UMO_E_INVAL;
    }
    bool empty = false;
    for (uint32_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] < 0) {
            return UMO_E_INVAL;
        }
        empty = empty || shape->dims[i] == 0;
    }
    int64_t count = empty ? 0 : 1;
    for (uint32_t i = 0; i < shape->rank && !empty; i++) {
        if (__builtin_mul_overflow(count, shape->dims[i], &count)) {
            return UMO_E_INVAL;
        }
    }
    *out = (uint64_t)count;
    return UMO_OK;
}

umo_status umo_shape_bytes(const umo_shape *shape, umo_dtype dtype, uint64_t *out)
{
    const size_t element_bytes = umo_dtype_size(dtype);
    uint64_t count;
    umo_status status = umo_shape_count(shape, &count);
    if (status != UMO_OK) {
        return status;
    }
    if (element_bytes == 0 || count > (uint64_t)INT64_MAX / element_bytes) {
        return UMO_E_INVAL;
    }
    *out = count * element_bytes;
    return UMO_OK;
}

bool umo_shape_equal(const umo_shape *a, const umo_shape *b)
{
    return a->rank == b->rank && a->rank <= UMO_RANK_MAX &&
           memcmp(a->dims, b->dims, a->rank * sizeof a->dims[0]) == 0;
}

char *umo_shape_format(const umo_shape *shape, char *text, size_t text_bytes)
{
    if (shape->rank > UMO_RANK_MAX) {
        (void)snprintf(text, text_bytes, "[rank %" PRIu32 "]", shape->rank);
        return text;
    }
    size_t used = 0;
    for (uint32_t i = 0; i < shape->rank && used < text_bytes; i++) {
        int wanted = snprintf(text + used, text_bytes - used, "%s%" PRId64, i == 0 ? "[" : ",",
                              shape->dims[i]);
        used += (size_t)wanted;
    }
    if (used < text_bytes) {
        (void)snprintf(text + used, text_bytes - used, "%s", shape->rank == 0 ? "[]" : "]");
    }
    return text;
}
