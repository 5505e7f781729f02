/**
 * @file model.h
 * A loaded model: its session, its description and how the configuration's tensors map to it.
 * Read-only once checked, so that instances share it without a lock.
 */
#ifndef UMO_ORT_MODEL_H
#define UMO_ORT_MODEL_H

#include "engine.h"
#include "graph.h"
#include "options.h"
#include "ort_api.h"
#include "plan.h"

#include <pthread.h>

typedef struct ort_model {
    umo_model *umo;
    ort_runtime *runtime;
    ort_options options;
    char *path;
    ort_description description;
    ort_graph
        *graph;   /**< until the model is checked; NULL when it cannot be read or does not matter */
    bool guarded; /**< clients may write to shared memory while the engine reads it */
    ort_bound *inputs; /**< one a configured input */
    size_t input_count;
    ort_bound *outputs;
    size_t output_count;
    ort_plan plan;
    pthread_mutex_t lock;
    ort_engine *engine; /**< under lock; taken by the first instance unless sessions are shared */
    bool joined;        /**< its engine was there already */
    ort_heap *heap;     /**< for what requests need; NULL: the engine's own memory */
} ort_model;

umo_status ort_model_init(umo_model *umo, void **state, umo_error *error);
void ort_model_finish(void *state);
umo_status ort_model_complete(umo_model *umo, void *state, umo_error *error);
umo_status ort_model_check(umo_model *umo, void *state, umo_error *error);

/**
 * An engine for an instance: everybody's, or one of its own.
 *
 * Errors:    as ort_engine_acquire().
 * Ownership: one reference.
 * Threads:   any.
 */
UMO_MUST_USE umo_status ort_model_engine(ort_model *model, ort_engine **out, umo_error *error);

umo_status ort_instance_init(umo_instance *umo, void *model_state, void **state, umo_error *error);
void ort_instance_finish(void *state);
umo_status ort_instance_execute(umo_instance *umo, void *state, umo_batch *batch, umo_error *error);

#endif
