/**
 * @file watch.h
 * Ends runs that nobody waits for any more.
 *
 * A run blocks the thread that asks for it, so somebody else has to look: one thread of the process
 * asks every TICK whether all requests of a batch that was already there at its last look are
 * cancelled, and tells ONNX Runtime, which stops before the next node. A run that is shorter is
 * never looked at. While nothing runs the thread sleeps.
 */
#ifndef UMO_ORT_WATCH_H
#define UMO_ORT_WATCH_H

#include "ort_api.h"

#include <umo/triton.h>

/** One instance's. */
typedef struct ort_watch ort_watch;

/**
 * Errors:    NOMEM; SYSTEM  no thread.
 * Ownership: ort_watch_destroy(), before the run options go.
 */
UMO_MUST_USE umo_status ort_watch_create(const ort_runtime *runtime, ort_run_options *options,
                                         ort_watch **out, umo_error *error);
/** NULL is allowed. */
void ort_watch_destroy(ort_watch *watch);

/** From here on the batch's run may be ended. Cost: a lock nobody holds; a system call only after a
 * pause of a second. NULL is allowed. */
void ort_watch_begin(ort_watch *watch, const umo_batch *batch);
/** The batch is not looked at any more. True when its run was told to end. */
bool ort_watch_end(ort_watch *watch);

#endif
