/**
 * @file engine.h
 * A session and all that must live as long as it: the files it reads its weights from, the packed
 * weights that it shares, the heap it takes from.
 *
 * Sessions are safe to run from any number of threads, so one is enough for all that want the same:
 * instances, versions and models whose files have one identity and whose options agree.
 */
#ifndef UMO_ORT_ENGINE_H
#define UMO_ORT_ENGINE_H

#include "heap.h"
#include "initializers.h"
#include "options.h"
#include "session.h"

typedef struct ort_engine ort_engine;

/** What a model wants. */
typedef struct ort_wish {
    ort_runtime *runtime;
    const ort_options *options;
    umo_context *context;
    const char *path;   /**< the model's file */
    const char *folder; /**< where relative op libraries are looked for */
} ort_wish;

/**
 * Loads a model, or joins a session that was loaded from the same files with the same options, when
 * the options say that it may be shared.
 *
 * @param[out] joined  Written when not NULL: whether the session was there already.
 *
 * Errors:    INVAL        external data outside of the model's folder, or an option that ONNX
 * Runtime refuses. LIMIT, NOMEM the budget or the memory does not suffice for the session.
 *            NOT_FOUND, UNSUPPORTED, DEVICE, SYSTEM  as ONNX Runtime or the system says.
 * Ownership: one reference, given back by ort_engine_release().
 * Threads:   any; of several that want the same at the same time, one loads.
 */
UMO_MUST_USE umo_status ort_engine_acquire(const ort_wish *wish, ort_engine **out, bool *joined,
                                           umo_error *error);
/** One more reference. */
void ort_engine_hold(ort_engine *engine);
/** NULL is allowed. */
void ort_engine_release(ort_engine *engine);

/** Lives as long as the engine. */
ort_session *ort_engine_session(const ort_engine *engine);

/** What is known of an engine, for the log. */
typedef struct ort_engine_facts {
    bool joined;    /**< by the last who acquired it: it was there already */
    size_t weights; /**< constants read where they lie in the files */
    uint64_t weight_bytes;
} ort_engine_facts;
ort_engine_facts ort_engine_describe(const ort_engine *engine);

/**
 * Whether the weights are what was loaded. Errors: DEVICE, and the words of umo_weights_check().
 * Cost: one system call a file.
 */
UMO_MUST_USE umo_status ort_engine_check(const ort_engine *engine, umo_error *error);

#endif
