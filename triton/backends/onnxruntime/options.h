/**
 * @file options.h
 * What a model's configuration and the command line say about its session, checked once.
 */
#ifndef UMO_ORT_OPTIONS_H
#define UMO_ORT_OPTIONS_H

#include <umo/triton.h>

#include <jansson.h>

/** For settings that may be absent: then ONNX Runtime's own default holds. */
enum {
    ORT_UNSET = -1
};

/** Everything that is not ONNX Runtime's default. Zero it before ort_options_read(). */
typedef struct ort_options {
    int intra_op_threads; /**< or ORT_UNSET */
    int inter_op_threads;
    int execution_mode;
    int mem_arena;
    int mem_pattern;
    int graph_level; /**< ONNX Runtime's number */
    bool global_threads;
    bool share_session;    /**< one session for all instances, and for all models like it */
    bool share_weights;    /**< weights are read where they lie in the files */
    bool memory_pool;      /**< the engine's memory comes from umo's pools */
    int share_prepacked;   /**< sessions share what they pack of common weights; or ORT_UNSET */
    bool symbolic_shapes;  /**< trust equal names of dimensions */
    bool cancel_runs;      /**< a run that nobody waits for any more is ended */
    int over_read_bytes;   /**< how far operators of the model read past an input's end */
    const char *library;   /**< of the command line; NULL when absent */
    const char *shrinkage; /**< the arenas to shrink after each run; NULL for none */
    int64_t batch_default; /**< max_batch_size of a model that batches and is not configured */
    json_t *config;        /**< owns the strings and what the functions below read */
} ort_options;

/**
 * Reads and checks.
 *
 * Errors:    INVAL        a value that is not allowed; the text names the parameter and what is.
 *            UNSUPPORTED  an execution accelerator.
 *            NOMEM.
 * Ownership: ort_options_finish().
 */
UMO_MUST_USE umo_status ort_options_read(const umo_model *model, ort_options *out,
                                         umo_error *error);
/** Also for a half-read or zeroed value. */
void ort_options_finish(ort_options *options);

/** The parameters `session_config.KEY`, one a call: index counts up from 0. False behind the last
 * one. */
bool ort_options_session_config(const ort_options *options, size_t index, const char **key,
                                const char **value);
/** The libraries under model_operations.op_library_filename; NULL behind the last one. */
const char *ort_options_op_library(const ort_options *options, size_t index);

#endif
