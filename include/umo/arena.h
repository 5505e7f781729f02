/**
 * @file arena.h
 * Memory of one request: handed out by moving a mark, given back all at once.
 *
 * An arena takes chunks from a pool, each as long as all before it, and keeps the chunks of the
 * longest request that it has seen as one, so that a warm request takes nothing from the pool. For
 * what lives as long as a request and is too short-lived to be freed piece by piece.
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
    size_t used_bytes;  /**< handed out since the last reset, with what alignment cost */
    size_t peak_bytes;  /**< the most of any request */
    size_t held_bytes;  /**< taken from the pool */
    size_t chunk_count; /**< in how many pieces; 1 when warm */
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
