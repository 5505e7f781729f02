/**
 * @file dtype.h
 * Element types. Apart from tensor.h, since devices convert elements and know no tensors.
 */
#ifndef UMO_DTYPE_H
#define UMO_DTYPE_H

/** Element types: those of Triton, in its order and with its numbers. */
typedef enum umo_dtype {
    UMO_DTYPE_INVALID = 0,
    UMO_BOOL = 1,
    UMO_UINT8 = 2,
    UMO_UINT16 = 3,
    UMO_UINT32 = 4,
    UMO_UINT64 = 5,
    UMO_INT8 = 6,
    UMO_INT16 = 7,
    UMO_INT32 = 8,
    UMO_INT64 = 9,
    UMO_FP16 = 10,
    UMO_FP32 = 11,
    UMO_FP64 = 12,
    UMO_BYTES = 13, /**< each element is a 4-byte little-endian length and that many bytes */
    UMO_BF16 = 14
} umo_dtype;

#define UMO_DTYPES 15

#endif
