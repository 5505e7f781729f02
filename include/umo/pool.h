/**
 * @file pool.h
 * Memory of one device and storage mode, handed out in blocks of any size and reused.
 *
 * Where the device's memory is the CPU's own, a pool *carves*: it reserves a long range of
 * addresses, binds it once on the device, and cuts blocks from it in steps of 64 bytes, so that
 * what it holds stays within a few percent of what is used at the peak. Everywhere else each block
 * is one allocation of the driver, kept for the next taker of about its size. Either way all
 * bookkeeping is outside of the blocks; memory that passes to another owner is cleared first; and
 * what nobody uses goes back by itself: see umo_pool_options.idle_ns. docs/pools.md has the
 * reasons and the figures.
 *
 * Two faces: umo_pool_alloc() gives a umo_buffer, used inside brackets; umo_pool_take() gives a
 * plain address, for engines that want an allocator. A block goes back by the face it came from.
 *
 * One budget holds for all pools of a process whose scopes have one root: a pool that meets a
 * limit first takes back what it and the others keep.
 */
#ifndef UMO_POOL_H
#define UMO_POOL_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_pool umo_pool;

/** Zeroed fields mean the defaults; device and scope are needed. */
typedef struct umo_pool_options {
    umo_device *device;
    umo_scope *scope; /**< whose memory the pool's is: all that it holds is charged to it */
    umo_storage_mode mode;
    /** Most bytes kept beside the live ones while the pool is busy. Default: what was live at the
     * peak, and a few percent. */
    size_t keep_bytes_max;
    /** Most bytes kept by a pool that is idle. Default: 1/64 of the peak. */
    size_t idle_keep_bytes;
    /** A pool in which nothing was taken or given for this long is idle, and gives back all but
     * idle_keep_bytes; while more than 1/16 of its peak is live, for 40 times as long. In a busy
     * one, memory that lay free for 40 times as long goes. One thread of the process does it,
     * "umo-keeper": it runs only while a pool keeps something. Default: 25 ms. UINT64_MAX: never,
     * and no thread. */
    uint64_t idle_ns;
    /** What addresses and sizes of blocks are multiples of: a power of two, at most 4,096.
     * Default: 64. Pools that do not carve have the driver's alignment and refuse a larger one. */
    size_t align_bytes;
    /** All memory comes from numa_node (numa.h) while that has some, whoever touches it first. Such
     * a pool carves, or is UNSUPPORTED. Default: no; a page lies where it is first touched. */
    bool one_node;
    int32_t numa_node;
} umo_pool_options;

/** Figures of a pool, all of one instant. Bytes are bytes, never counted twice. */
typedef struct umo_pool_stats {
    uint64_t live_bytes;     /**< asked for and not given back */
    uint64_t reserved_bytes; /**< held from the system or device, and charged to the scope */
    uint64_t kept_bytes;     /**< reserved, but in no live block: could be given back or handed out;
                                what threads cache is part of it. reserved - live - kept is rounding */
    uint64_t peak_live_bytes; /**< exact while one thread uses the pool; with more, it may have
                                 missed what a few caches took at the same time */
    uint64_t peak_reserved_bytes;
    uint64_t hits;           /**< blocks that reused memory */
    uint64_t misses;         /**< blocks that needed more from the system or device */
    uint64_t scrubbed_bytes; /**< cleared because their owner changed */
    uint64_t trims;          /**< times that memory was given back, by whomever */
    uint64_t trimmed_bytes;  /**< given back in all */
    uint64_t moved_bytes;    /**< put behind other addresses, to fit where no free run was long
                                enough, instead of taking more */
    uint64_t metadata_bytes; /**< the pool's own books, in no other figure and charged to nobody */
    /** Of the kept bytes, the share that does not lie in the longest free run: 0 when a block as
     * long as all of it would fit, near 1 when it is in crumbs. */
    double fragmentation;
} umo_pool_stats;

/**
 * Makes a pool.
 *
 * Errors:    INVAL        no device or scope, an impossible mode or alignment.
 *            UNSUPPORTED  the device lacks the mode; one_node, but the pool does not carve, or the
 *                         node has no memory, or none for this process.
 *            NOT_FOUND    one_node, but there is no such node.
 *            REFUSED      one_node, but the system lets nobody choose nodes here (numa.h).
 *            NOMEM.
 * Ownership: umo_pool_destroy(). Holds the device and the scope.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_pool_create(const umo_pool_options *options, umo_pool **out,
                                                umo_error *error);

/** All blocks were given back before, and no other thread is in a call on it. NULL is allowed. */
UMO_API void umo_pool_destroy(umo_pool *pool);

/**
 * Takes a block. Its contents are undefined, except that another owner's bytes are never shown.
 *
 * @param owner  Any number that stands for a model or client; 0 for nobody in particular.
 *
 * Errors:    INVAL  size 0, or one that no range of addresses has.
 *            LIMIT  a budget, after what all pools of its root keep was given back; a free makes
 *                   room.
 *            NOMEM, DEVICE.
 * Ownership: the caller owns the buffer until umo_pool_free(); it is at least size_bytes long.
 * Threads:   any, also at the same time. No lock is held while the device allocates.
 * Cost:      a hit is O(1), without a system call, a driver call or an allocation.
 */
UMO_API UMO_MUST_USE umo_status umo_pool_alloc(umo_pool *pool, size_t size_bytes, uint64_t owner,
                                               umo_buffer **out, umo_error *error);

/**
 * Gives a block back. No bracket is open on it; pending fences are waited for by the next taker.
 * While somebody else holds a reference to the buffer its memory is not handed out again.
 *
 * Errors:    INVAL  not a live block of this pool (a double free, another pool's buffer).
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_pool_free(umo_pool *pool, umo_buffer *buffer);

/**
 * Takes a block as a plain address that both sides use without brackets. Its contents are
 * undefined, except that another owner's bytes are never shown.
 *
 * @param[out] out  size_bytes bytes at a multiple of align_bytes; written only on UMO_OK.
 *
 * Errors:    INVAL        size 0, or one that no range of addresses has.
 *            UNSUPPORTED  the device's memory is not the CPU's own, or not coherent.
 *            LIMIT        as umo_pool_alloc().
 *            NOMEM.
 * Ownership: the caller owns the block until umo_pool_give().
 * Threads:   any, also at the same time on one pool.
 * Cost:      a hit in the thread's cache is O(1), some 20 instructions: no lock, no atomic
 *            read-modify-write, no system call. A hit in the pool takes one short lock.
 */
UMO_API UMO_MUST_USE umo_status umo_pool_take(umo_pool *pool, size_t size_bytes, uint64_t owner,
                                              void **out);

/**
 * Gives a block of umo_pool_take() back. Both sides are done with it.
 *
 * Errors:    INVAL  no live block of this pool starts there: a foreign, interior or freed address,
 *                   also one that another thread freed; or it is a buffer's.
 * Threads:   any, also another one than took it.
 * Cost:      as umo_pool_take().
 */
UMO_API UMO_MUST_USE umo_status umo_pool_give(umo_pool *pool, void *data);

/** A live block, as it was at the instant of the question. */
typedef struct umo_pool_block {
    void *data;
    size_t size_bytes; /**< as asked for */
    uint64_t owner;
    umo_buffer *buffer; /**< NULL for a block of umo_pool_take(). No reference is given */
} umo_pool_block;

/**
 * Finds the live block that an address lies in: its first byte, or any other that was asked for.
 *
 * Errors:    NOT_FOUND  no live block of this pool has this byte.
 * Threads:   any.
 * Cost:      one short lock, O(log of the pool's bytes).
 */
UMO_API UMO_MUST_USE umo_status umo_pool_find(umo_pool *pool, const void *address,
                                              umo_pool_block *out);

/** Gives kept memory back, also what threads cache, until at most keep_bytes are kept. Memory is
 * given back in whole pages or blocks. Threads: any. */
UMO_API void umo_pool_trim(umo_pool *pool, size_t keep_bytes);

/** Reads the figures, all of one instant. Threads: any. Cost: a lock, and a pause of the threads
 * that use the pool: not for every request. */
UMO_API void umo_pool_read(umo_pool *pool, umo_pool_stats *out);

/*
 * All pools of a process that have one root: those whose scope is root, or has it as its topmost
 * parent. Threads: any.
 */

/** Gives kept memory back, from the pool that keeps most on, until all together keep at most
 * keep_bytes. Returns the bytes given back. */
UMO_API size_t umo_pools_trim(umo_scope *root, size_t keep_bytes);

/** Lowers what each pool may keep from now on to a share, in percent, of its keep_bytes_max, and
 * gives back what is above; 100 restores it. Pools made later have 100. */
UMO_API void umo_pools_tighten(umo_scope *root, uint32_t percent);

/** Bytes that they hold, as in umo_pool_stats. Cheap, pauses nobody. */
UMO_API uint64_t umo_pools_reserved(umo_scope *root);
/** Bytes that they keep. Cheap, pauses nobody: what threads cache at the moment is estimated. */
UMO_API uint64_t umo_pools_kept(umo_scope *root);

/**
 * Adds up the figures of all pools whose scope is the given one or below it: a model's. Peaks are
 * the sum of the pools' own; the fragmentation is that of the pools in the measure of what they
 * keep.
 *
 * Threads: any. Cost: umo_pool_read() for each.
 */
UMO_API void umo_pools_read(const umo_scope *scope, umo_pool_stats *out);

#ifdef __cplusplus
}
#endif

#endif
