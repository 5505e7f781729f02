/**
 * @file tensor.h
 * Tensors of umo as values of ONNX Runtime and back. Numbers stay where they lie; strings change
 * their form.
 */
#ifndef UMO_ORT_TENSOR_H
#define UMO_ORT_TENSOR_H

#include "ort_api.h"

#include <umo/tensor.h>

/** Memory that grows to the largest need so far and is used again. Zero it to start. */
typedef struct ort_scratch {
    char *data;
    size_t capacity_bytes;
} ort_scratch;

/** Frees what it holds; it can be used again. */
void ort_scratch_finish(ort_scratch *scratch);
/** Makes room for so many bytes; what it held is lost. False: no memory, and it holds nothing. */
bool ort_scratch_reserve(ort_scratch *scratch, size_t size_bytes);

/** UMO_DTYPE_INVALID for a type that Triton does not have. */
umo_dtype ort_dtype_from_element(int element);
/** ORT_ELEMENT_UNDEFINED for no type. */
int ort_element_from_dtype(umo_dtype dtype);

/**
 * Makes a value over a tensor's own bytes, at any alignment; a string tensor is converted.
 *
 * @param name         For the error's text.
 * @param check_bools  Look at every byte of a BOOL tensor.
 *
 * Errors:    INVAL  strings that do not match the shape, a BOOL byte that is neither 0 nor 1, or
 * what ONNX Runtime refuses. NOMEM, DEVICE. Ownership: the caller releases the value; the tensor's
 * memory outlives it. Cost:      O(1); O(bytes) for BOOL and BYTES.
 */
UMO_MUST_USE umo_status ort_value_wrap(const ort_runtime *runtime, const char *name,
                                       const umo_tensor *tensor, bool check_bools, ort_value **out,
                                       umo_error *error);

/**
 * Makes a value for the engine to write to.
 *
 * Errors: as ort_value_wrap().
 */
UMO_MUST_USE umo_status ort_value_target(const ort_runtime *runtime, const umo_tensor *tensor,
                                         ort_value **out, umo_error *error);

/** A value that the engine made, in host memory. */
typedef struct ort_result {
    umo_dtype dtype;
    umo_shape shape;
    const void *data; /**< in the value, or in the scratch for UMO_BYTES */
    size_t size_bytes;
} ort_result;

/**
 * Reads what the engine made; strings are serialized into the scratch.
 *
 * Errors:    UNSUPPORTED  no tensor, or a type or rank that Triton does not have.
 *            LIMIT        a string of 4 GiB or more.
 *            NOMEM, DEVICE.
 * Ownership: data is valid until the value is released and the scratch is used again.
 */
UMO_MUST_USE umo_status ort_value_read(const ort_runtime *runtime, const char *name,
                                       ort_value *value, ort_scratch *scratch, ort_result *out,
                                       umo_error *error);

#endif
