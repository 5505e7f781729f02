/**
 * @file plan.h
 * Which output shapes are certain before the computation: those that are fixed, that are the batch,
 * or that follow from the inputs because model and input call a dimension by one name.
 */
#ifndef UMO_ORT_PLAN_H
#define UMO_ORT_PLAN_H

#include "session.h"

/** Where an output's dimension comes from. */
typedef enum ort_dim_kind {
    ORT_DIM_UNKNOWN = 0,
    ORT_DIM_FIXED,
    ORT_DIM_ROWS,  /**< the batch dimension */
    ORT_DIM_SYMBOL /**< as the inputs' dimension of that name */
} ort_dim_kind;

typedef struct ort_dim {
    ort_dim_kind kind;
    int64_t value; /**< FIXED */
    size_t symbol; /**< SYMBOL: index */
} ort_dim;

typedef struct ort_output_plan {
    bool possible; /**< no dimension is UNKNOWN */
    uint32_t rank;
    ort_dim dims[UMO_RANK_MAX];
} ort_output_plan;

/** One dimension of one input that bears a name. */
typedef struct ort_source {
    size_t symbol;
    size_t input;
    uint32_t dim;
} ort_source;

/** Indices are those of the configuration. Zero it to start. */
typedef struct ort_plan {
    ort_output_plan *outputs;
    size_t output_count;
    ort_source *sources;
    size_t source_count;
    const char **symbols; /**< names, in the specs */
    size_t symbol_count;
} ort_plan;

/** A tensor of the configuration and the model's own word on it. */
typedef struct ort_bound {
    const umo_io *io;
    const ort_spec *spec; /**< outlives the plan */
    bool squeezed;        /**< one element a row: clients say [1], which the engine does not have */
    bool whole;           /**< its shape says nothing of rows: ragged, of a batch, or scattered */
    bool kept_private;    /**< an output that the model reads again in a way its bytes can steer */
} ort_bound;

/**
 * Makes the plan of a model.
 *
 * @param batches   The first dimension of every tensor is the batch, and not part of io's dims.
 * @param symbolic  Whether equal names may be trusted.
 *
 * Errors:    NOMEM.
 * Ownership: ort_plan_finish().
 */
UMO_MUST_USE umo_status ort_plan_make(const ort_bound *inputs, size_t input_count,
                                      const ort_bound *outputs, size_t output_count, bool batches,
                                      bool symbolic, ort_plan *out, umo_error *error);
void ort_plan_finish(ort_plan *plan);

/**
 * Reads the named dimensions of one request's inputs.
 *
 * @param inputs  One a configured input; dtype UMO_DTYPE_INVALID marks an absent one.
 * @param values  symbol_count of them; -1 where inputs contradict each other or none is present.
 */
void ort_plan_values(const ort_plan *plan, const umo_tensor *inputs, int64_t *values);

/** The shape of an output, if it is certain. Writes out only then. */
bool ort_plan_shape(const ort_plan *plan, size_t output, int64_t rows, const int64_t *values,
                    umo_shape *out);

#endif
