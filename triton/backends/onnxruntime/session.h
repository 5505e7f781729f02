/**
 * @file session.h
 * A model file as a session of ONNX Runtime, and what the model says of its own inputs and outputs.
 */
#ifndef UMO_ORT_SESSION_H
#define UMO_ORT_SESSION_H

#include "options.h"
#include "ort_api.h"

#include <umo/tensor.h>

/** One input or output as the model declares it, the batch dimension included. */
typedef struct ort_spec {
    char *name;
    bool is_tensor;              /**< false for sequences, maps and optional values */
    umo_dtype dtype;             /**< UMO_DTYPE_INVALID for a type that Triton lacks */
    umo_shape shape;             /**< -1 is variable */
    char *symbols[UMO_RANK_MAX]; /**< the name of a variable dimension; NULL for none */
} ort_spec;

typedef struct ort_spec_list {
    ort_spec *specs;
    size_t count;
} ort_spec_list;

/** All that a model takes and gives. Zero it to start. */
typedef struct ort_description {
    ort_spec_list inputs;
    ort_spec_list outputs;
    ort_spec_list initializers; /**< constants that a request may override: optional inputs */
} ort_description;

/** What a session is made of. */
typedef struct ort_session_source {
    const char *path;
    const char *folder; /**< where relative op libraries are looked for */
    const char *const *weight_names;
    ort_value *const *weights; /**< constants used in place of the file's; outlive the session */
    size_t weight_count;
    ort_prepacked *prepacked; /**< what is packed of them is shared through it; NULL for none */
    bool pooled;              /**< takes its memory from umo's pools (heap.h) */
} ort_session_source;

/**
 * Loads a model file.
 *
 * Errors:    INVAL        a session_config entry that ONNX Runtime refuses.
 *            NOT_FOUND, UNSUPPORTED, DEVICE  as ONNX Runtime says.
 * Ownership: api.release_session().
 * Threads:   any.
 */
UMO_MUST_USE umo_status ort_session_create(const ort_runtime *runtime, const ort_options *options,
                                           const ort_session_source *source, ort_session **out,
                                           umo_error *error);

/** Errors: NOMEM, DEVICE. Ownership: ort_description_finish(), also after an error. */
UMO_MUST_USE umo_status ort_session_describe(const ort_runtime *runtime, const ort_session *session,
                                             ort_description *out, umo_error *error);
void ort_description_finish(ort_description *description);

/** By name; NULL when there is none. */
const ort_spec *ort_spec_find(const ort_spec_list *list, const char *name);

#endif
