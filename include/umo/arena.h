/**
 * @file arena.h
 * Memory of one request: handed out by moving a mark, given back all at once.
 *
 * An arena takes chunks from a pool, each as long as all before it, and keeps the chunks of the
 * longest request that it has seen as one, so that a warm request takes nothing from the pool. For
 * what lives as long as a request and is too short-lived to be freed piece by piece.
 *
 * Who says with umo_arena_free() what is not used any more gets by with less: requests that take
 * and free the same in the same order are planned (plan.h), and from then on lie in a block that is
 * as long as what is in use at once. docs/planning.md has figures.
 */
#ifndef UMO_ARENA_H
#define UMO_ARENA_H

#include <umo/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_arena umo_arena;

typedef struct umo_arena_options {
    umo_pool *pool;     /**< outlives the arena; one that umo_pool_take() works on */
    uint64_t owner;     /**< whose memory it is: see umo_pool_take() */
    size_t first_bytes; /**< of the first chunk; 0 means 64 KiB */
} umo_arena_options;

/** Figures of an arena. */
typedef struct umo_arena_stats {
    size_t used_bytes;    /**< handed out since the last reset, with what alignment cost */
    size_t peak_bytes;    /**< the most of any request */
    size_t held_bytes;    /**< taken from the pool */
    size_t chunk_count;   /**< in how many pieces; 1 when warm */
    size_t planned_bytes; /**< length of planned requests' block; 0 without a plan */
} umo_arena_stats;

/**
 * Makes an empty arena. Takes nothing from the pool yet.
 *
 * Errors:    INVAL        no pool.
 *            UNSUPPORTED  the pool's memory has no plain addresses.
 *            NOMEM.
 * Ownership: umo_arena_destroy(), before the pool's.
 * Threads:   an arena is used by one thread at a time, whichever; the caller sees to that.
 */
UMO_API UMO_MUST_USE umo_status umo_arena_create(const umo_arena_options *options, umo_arena **out,
                                                 umo_error *error);

/** Gives everything back to the pool. NULL is allowed. Threads: one at a time. */
UMO_API void umo_arena_destroy(umo_arena *arena);

/**
 * Hands out memory that lives until the next reset. Contents undefined, as of umo_pool_take().
 *
 * @param align_bytes  A power of two, at most 4,096.
 * @param[out] out     Written only on UMO_OK.
 *
 * Errors:    INVAL  size 0, or another alignment. LIMIT, NOMEM as umo_pool_take(); what was handed
 *                   out before stays.
 * Threads:   one at a time.
 * Cost:      an addition; now and then a chunk from the pool.
 */
UMO_API UMO_MUST_USE umo_status umo_arena_alloc(umo_arena *arena, size_t size_bytes,
                                                size_t align_bytes, void **out);

/**
 * Says that memory is not used any more in this request. Nobody has to: it is for the plan of the
 * requests that will do the same.
 *
 * The first call of an arena has requests noted from the next on. Two that take and free the same,
 * in the same order, one after the other, are planned at the reset (a plan that follows another
 * asks for twice as many). A request is given the planned places up to its first step that differs;
 * what it takes from there on comes behind those that it was given. A plan that eight requests in a
 * row have left is forgotten. Requests of more than 4,096 steps are not planned.
 *
 * @param data  What umo_arena_alloc() gave since the last reset. NULL is allowed.
 *
 * Errors:    INVAL  it is not in use: never handed out, or freed before. Only where the request is
 *                   noted; else whatever comes is OK, and without an effect.
 * Threads:   one at a time.
 * Cost:      as planned, a comparison; else a look through what was handed out, last first. Memory:
 *            some 100 bytes a step. The reset that plans takes a millisecond, 13 at 4,096 steps.
 * Source:    as ONNX Runtime and TFLite plan what they know before, but from what was seen: the
 *            sizes of a served model come again.
 */
UMO_API UMO_MUST_USE umo_status umo_arena_free(umo_arena *arena, const void *data);

/**
 * Takes all memory back that was handed out; nobody may use it any more.
 *
 * Several chunks become one as long as all of them, at the next use; an arena whose last eight
 * requests used less than half of what it holds gives it back and takes what they needed.
 * Threads: one at a time. Cost: O(chunks).
 */
UMO_API void umo_arena_reset(umo_arena *arena);

/** Reads the figures. Threads: one at a time. */
UMO_API void umo_arena_read(const umo_arena *arena, umo_arena_stats *out);

#ifdef __cplusplus
}
#endif

#endif
