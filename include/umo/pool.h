/**
 * @file pool.h
 * Blocks of one device and storage mode, reused by size class.
 *
 * The free lists keep a block for the next taker of its class, up to a limit of kept bytes; beyond
 * it a freed block goes back to the device at once. A block that passes to another owner is cleared
 * first.
 */
#ifndef UMO_POOL_H
#define UMO_POOL_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_pool umo_pool;

typedef struct umo_pool_options {
    umo_device *device;
    umo_scope *scope; /**< whose memory the pool's is */
    umo_storage_mode mode;
    size_t keep_bytes_max; /**< free bytes kept; 0 means 64 MiB */
} umo_pool_options;

typedef struct umo_pool_stats {
    uint64_t live_bytes; /**< asked for and not freed */
    uint64_t
        reserved_bytes; /**< held from the device: live blocks with their rounding, and kept ones */
    uint64_t peak_bytes; /**< high-water mark of live_bytes */
    uint64_t hits;
    uint64_t misses;
} umo_pool_stats;

/** Errors: INVAL, NOMEM, UNSUPPORTED the device lacks the mode. Ownership: umo_pool_destroy(). */
UMO_API UMO_MUST_USE umo_status umo_pool_create(const umo_pool_options *options, umo_pool **out,
                                                umo_error *error);

/** All blocks were freed before. NULL is allowed. */
UMO_API void umo_pool_destroy(umo_pool *pool);

/**
 * Takes a block. Its contents are undefined, except that another owner's bytes are never shown.
 *
 * @param owner  Any number that stands for a model or client; 0 for nobody in particular.
 *
 * Errors:    INVAL  size 0. LIMIT, NOMEM, DEVICE.
 * Ownership: the caller owns the buffer until umo_pool_free(); it is at least size_bytes long.
 * Threads:   any. One short lock, not held while the device allocates.
 * Cost:      a hit is O(1), without a system call, a driver call or an allocation.
 */
UMO_API UMO_MUST_USE umo_status umo_pool_alloc(umo_pool *pool, size_t size_bytes, uint64_t owner,
                                               umo_buffer **out, umo_error *error);

/**
 * Gives a block back. No bracket is open on it; pending fences are waited for by the next taker.
 *
 * Errors:    INVAL  not a live block of this pool (a double free, another pool's buffer).
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_pool_free(umo_pool *pool, umo_buffer *buffer);

/** Gives kept blocks back to the device until at most keep_bytes are kept. Threads: any. */
UMO_API void umo_pool_trim(umo_pool *pool, size_t keep_bytes);

/** Reads the figures, all of one instant. Threads: any. */
UMO_API void umo_pool_read(umo_pool *pool, umo_pool_stats *out);

#ifdef __cplusplus
}
#endif

#endif
