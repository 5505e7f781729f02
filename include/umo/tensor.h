/**
 * @file tensor.h
 * Element types, shapes and strides over memory.
 *
 * A shape is checked before its size is used: element count and byte count are computed without
 * overflow, and a negative dimension is never silently taken as a size.
 */
#ifndef UMO_TENSOR_H
#define UMO_TENSOR_H

#include <umo/buffer.h>
#include <umo/dtype.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Most dimensions of a tensor. */
#define UMO_RANK_MAX 32u

/** Bytes of one element; 0 for UMO_BYTES and for no type. Threads: any. */
UMO_API size_t umo_dtype_size(umo_dtype dtype);

/** "FP32"; "INVALID" for no type. Threads: any. */
UMO_API const char *umo_dtype_name(umo_dtype dtype);

/** From "FP32" or "TYPE_FP32" ("TYPE_STRING" and "STRING" are BYTES); UMO_DTYPE_INVALID if unknown.
 */
UMO_API umo_dtype umo_dtype_parse(const char *name);

/** True for types that may steer control flow or addresses: integers of 32 and 64 bits, BOOL,
 * BYTES. */
UMO_API bool umo_dtype_is_control(umo_dtype dtype);

/** Dimensions, outermost first. rank 0 is a scalar of one element. */
typedef struct umo_shape {
    uint32_t rank;
    int64_t dims[UMO_RANK_MAX];
} umo_shape;

/**
 * Number of elements: the product of the dimensions, 1 for rank 0.
 *
 * Errors: INVAL a negative dimension, a rank above UMO_RANK_MAX, or a product that does not fit 63
 * bits.
 */
UMO_API UMO_MUST_USE umo_status umo_shape_count(const umo_shape *shape, uint64_t *out);

/** Bytes of a packed tensor. Errors: INVAL as umo_shape_count(), UMO_BYTES, no type, or a product
 * over 63 bits. */
UMO_API UMO_MUST_USE umo_status umo_shape_bytes(const umo_shape *shape, umo_dtype dtype,
                                                uint64_t *out);

/** True when rank and all dimensions are equal. */
UMO_API bool umo_shape_equal(const umo_shape *a, const umo_shape *b);

/** Writes "[2,3,4]" (always ended by a zero, cut if too long); returns text. */
UMO_API char *umo_shape_format(const umo_shape *shape, char *text, size_t text_bytes);

/** A typed view of a buffer's bytes. A plain value that owns nothing. */
typedef struct umo_tensor {
    umo_buffer *buffer;  /**< NULL for plain host memory */
    void *data;          /**< first byte on the host side; NULL where the host has none */
    size_t offset_bytes; /**< of the first byte in the buffer */
    size_t size_bytes;   /**< of the range the elements lie in */
    umo_dtype dtype;
    umo_shape shape;
    int64_t strides[UMO_RANK_MAX]; /**< in elements, one a dimension; of no meaning for UMO_BYTES */
} umo_tensor;

/**
 * Describes a packed (row-major) tensor in host memory.
 *
 * @param size_bytes  How many bytes there are; must be exactly what dtype and shape need (any, for
 * UMO_BYTES).
 *
 * Errors: INVAL a bad shape or type, or a size that does not match.
 */
UMO_API UMO_MUST_USE umo_status umo_tensor_init(umo_tensor *tensor, void *data, size_t size_bytes,
                                                umo_dtype dtype, const umo_shape *shape,
                                                umo_error *error);

/** Describes a packed tensor in a buffer at an offset. Errors: as umo_tensor_init(), or a range
 * outside the buffer. */
UMO_API UMO_MUST_USE umo_status umo_tensor_init_buffer(umo_tensor *tensor, umo_buffer *buffer,
                                                       size_t offset_bytes, size_t size_bytes,
                                                       umo_dtype dtype, const umo_shape *shape,
                                                       umo_error *error);

/** True when the elements lie row-major without gaps. */
UMO_API bool umo_tensor_is_packed(const umo_tensor *tensor);

/**
 * Narrows one dimension to [start, start + length): strides stay, the first byte moves.
 *
 * Errors: INVAL a dimension or range that is not there; UNSUPPORTED for UMO_BYTES.
 */
UMO_API UMO_MUST_USE umo_status umo_tensor_slice(const umo_tensor *tensor, uint32_t dim,
                                                 int64_t start, int64_t length, umo_tensor *out);

/**
 * Steps over one element of a BYTES tensor.
 *
 * @param data, size_bytes  The whole serialized tensor.
 * @param[in,out] cursor    Start at 0; moves behind the element.
 * @param[out] element      The element's bytes, inside data; size in element_bytes.
 *
 * Errors: NOT_FOUND at the end. INVAL a length that runs past the end.
 */
UMO_API UMO_MUST_USE umo_status umo_bytes_next(const void *data, size_t size_bytes, size_t *cursor,
                                               const void **element, size_t *element_bytes);

/** Checks a whole BYTES tensor: exactly count elements and nothing behind them. Errors: INVAL.
 * Cost: O(count). */
UMO_API UMO_MUST_USE umo_status umo_bytes_check(const void *data, size_t size_bytes, uint64_t count,
                                                umo_error *error);

#ifdef __cplusplus
}
#endif

#endif
