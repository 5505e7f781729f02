/**
 * @file heap.h
 * ONNX Runtime's memory out of umo's pools, so that it is counted and held to the budget.
 *
 * ONNX Runtime knows one allocator for the process and does not say for whom it asks. So the thread
 * says it: between ort_heap_enter() and ort_heap_leave() what it takes comes from that heap. A
 * model has a heap for what its requests need; what belongs to sessions (packed weights above all)
 * comes from one of the process's own, as sessions are shared between models. Threads of the engine
 * that nobody sent take from that one too.
 */
#ifndef UMO_ORT_HEAP_H
#define UMO_ORT_HEAP_H

#include "ort_api.h"

#include <umo/triton.h>

/** A pool, alive until the last block of it is given back. */
typedef struct ort_heap ort_heap;

/**
 * Makes a heap for one model's requests, or those of one instance whose memory has a node.
 *
 * @param keep      False: nothing is kept from one request to the next.
 * @param instance  Whose node it is on; NULL: anywhere.
 *
 * Errors:    NOMEM; NOT_FOUND, UNSUPPORTED  no host device.
 * Ownership: ort_heap_release().
 */
UMO_MUST_USE umo_status ort_heap_create(umo_context *context, umo_scope *scope, bool keep,
                                        const umo_instance *instance, ort_heap **out,
                                        umo_error *error);

/**
 * Joins the heap of the process's sessions; the first user makes it, with a scope "onnxruntime"
 * below the context's. Errors, ownership: as above.
 */
UMO_MUST_USE umo_status ort_heap_sessions(umo_context *context, ort_heap **out, umo_error *error);

/** NULL is allowed. Blocks that are still out keep the heap. Threads: any. */
void ort_heap_release(ort_heap *heap);

/** Gives back what the heap keeps. */
void ort_heap_trim(ort_heap *heap);

/** The figures of a heap; all zero for NULL. */
void ort_heap_read(ort_heap *heap, umo_pool_stats *out);

/** What a thread was in before, and what it was refused meanwhile. */
typedef struct ort_heap_visit {
    ort_heap *before;
    umo_status refused;   /**< the first refusal: LIMIT or NOMEM; else UMO_OK */
    size_t refused_bytes; /**< that were asked for */
    struct ort_heap_visit *outer;
} ort_heap_visit;

/** From here on this thread takes from the heap; NULL: from that of the sessions. */
void ort_heap_enter(ort_heap *heap, ort_heap_visit *visit);
/** Ends what the same visit began. */
void ort_heap_leave(ort_heap_visit *visit);

/**
 * Words for a call that failed inside a visit: when memory was refused in it, that is the cause,
 * and status and error say so; else both stay as they are.
 */
umo_status ort_heap_explain(const ort_heap_visit *visit, const ort_heap *heap, umo_status status,
                            umo_error *error);

/** Leaves the engine by a C++ exception of its own kind (std::bad_alloc); never returns. */
typedef void (*ort_thrower)(void);

/**
 * The allocator to register with ONNX Runtime's environment.
 *
 * @param info        Describes host memory and outlives its use.
 * @param bad_alloc   How a thread on a visit is told that there is no memory. ONNX Runtime writes
 * to what an allocator returned without looking whether it is NULL, as its own allocators throw; so
 * ours has to.
 */
ort_allocator *ort_heap_allocator(const ort_memory_info *info, ort_thrower bad_alloc);

#endif
