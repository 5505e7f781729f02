/**
 * @file optimizer.h
 * The mission's UnifiedMemoryOptimizer in C: one object of the process that allocates where memory
 * is used, learns how it is used, and moves it.
 *
 * It is a face over the default context (context.h), whose devices, budget and counters it shares
 * with every backend and tool of the process. unified_memory.hpp puts the mission's names over it;
 * all state is here, so that a header included into ten backends still means one optimizer.
 */
#ifndef UMO_OPTIMIZER_H
#define UMO_OPTIMIZER_H

#include <umo/access.h>
#include <umo/context.h>
#include <umo/plan.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Size classes of which a pool keeps blocks ready. */
#define UMO_OPTIMIZER_CLASSES 3

/** Blocks of one size. */
typedef struct umo_optimizer_class {
    size_t size_bytes;
    size_t count;
} umo_optimizer_class;

/** How the optimizer works. Start from umo_optimizer_config_init(). */
typedef struct umo_optimizer_config {
    bool auto_placement; /**< true: buffers move to the storage mode that their use asks for */
    uint32_t placement_change_threshold; /**< 1000: uses of a buffer between two decisions */
    bool prefetching;                    /**< true: umo_optimizer_prefetch() does something */
    size_t prefetch_bytes;               /**< 4 MiB: what a prefetch of size 0 brings */
    bool pressure_adaptation;            /**< true: memory pressure is watched and answered */
    double pressure_threshold;           /**< 0.8: share of the limit at which the answers begin */
    /** true: with several nodes (numa.h) each has its own pools, and buffers follow the threads
     * that use them. Of no effect with one node. */
    bool numa;
    size_t cache_line_bytes; /**< 128: what blocks of the pools are aligned to at least */
    bool zero_copy;          /**< true: umo_optimizer_wrap() wraps */
    /** 64 KiB x128, 1 MiB x32, 16 MiB x8: together the bytes that each pool keeps for reuse. */
    umo_optimizer_class classes[UMO_OPTIMIZER_CLASSES];
    /** Driver of device 0 ("opencl"); empty: the best there is. Others follow in its numbering. */
    char driver[16];
} umo_optimizer_config;

/** Fills in the defaults. Threads: any. */
UMO_API void umo_optimizer_config_init(umo_optimizer_config *config);

/**
 * Starts the optimizer, or joins it: a second caller with an equal configuration gets the same one.
 *
 * @param config  NULL joins whatever is there, or starts with the defaults.
 *
 * Errors:    INVAL  a figure that cannot be (a fraction outside 0 to 1, a line that is no power of
 *                   two), or it runs with another configuration (the text names the field).
 *            NOT_FOUND the driver. NOMEM.
 * Ownership: one umo_optimizer_shutdown() for each success.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_initialize(const umo_optimizer_config *config,
                                                         umo_error *error);

/**
 * Leaves. The last one stops it; buffers that are still held stay valid until they are released.
 *
 * Errors:    INVAL  it does not run. All calls below say the same then.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_shutdown(umo_error *error);

/** Whether it runs. Threads: any. */
UMO_API bool umo_optimizer_running(void);

/**
 * Allocates memory that may move between storage modes while its host address stays.
 *
 * @param size_bytes  1 or more.
 * @param pattern     How it is going to be used; UNKNOWN lets it be found out.
 * @param device      Number of the device, 0 the default one.
 *
 * Errors:    INVAL, NOT_FOUND no such device, LIMIT, NOMEM, DEVICE.
 * Ownership: one reference, umo_buffer_release().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_alloc(size_t size_bytes, umo_pattern pattern,
                                                    uint32_t device, umo_buffer **out,
                                                    umo_error *error);

/**
 * Wraps memory where it lies, for reading and writing by both sides. Nothing is copied.
 *
 * @param data  Owned by the caller, valid until the buffer is released.
 *
 * Errors:    INVAL    empty memory.
 *            REFUSED  the device cannot bind it (the text says why); zero copy is off.
 *            NOMEM, LIMIT.
 * Ownership, threads: as umo_optimizer_alloc().
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_wrap(void *data, size_t size_bytes, uint32_t device,
                                                   umo_buffer **out, umo_error *error);

/**
 * Allocates several buffers at once: all or none, out of one piece of memory where the mode is
 * UNIFIED, each at a page of its own.
 *
 * @param sizes  count sizes of 1 or more.
 * @param out    count buffers, each with one reference, independent of each other.
 *
 * Errors, threads: as umo_optimizer_alloc(). Nothing is written on an error.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_alloc_batch(const size_t *sizes, size_t count,
                                                          umo_pattern pattern, uint32_t device,
                                                          umo_buffer **out, umo_error *error);

/**
 * Allocates a batch of which not everything is in use at once: buffers whose lifetimes do not meet
 * may lie on the same bytes of the one piece, which umo_plan() makes short. Each begins at a page
 * of its own, on whole pages.
 *
 * The contents of a buffer are undefined until it is written; who uses it outside its lifetime sees
 * bytes of another one. Lifetimes are only an order. Brackets keep it: a bracket is BUSY while one
 * of another buffer is open on the same bytes (and one of the two writes), and what another
 * buffer's ended bracket has queued there comes out in its waits, so that a wait may report that
 * buffer's failure. An export is in the way of the others' writes until it ends. Who uses addresses
 * without brackets has to wait himself. umo_buffer_find() finds, of the buffers that lie on an
 * address and are not released, the last one in the array, and so do the calls here that take an
 * address. Nothing that is shared moves between nodes.
 *
 * Where a device keeps memory of its own, or is not coherent, nothing is shared: the buffers are
 * those of umo_optimizer_alloc_batch(), and `plan` says so by its peak.
 *
 * @param lifetimes  count of them; align_bytes is 0 or a power of two, and holds for the host's
 *                   address where bytes are shared.
 * @param out        count buffers, each with one reference; they may be released in any order.
 * @param[out] plan  peak_bytes is what the batch takes, on whole pages: the sum of all sizes where
 *                   nothing is shared. An alignment beyond a page costs up to as much on top.
 *                   Written on UMO_OK; may be NULL.
 *
 * Errors:    INVAL  a lifetime that ends before it begins, a size of 0 or beyond memory, an
 *                   alignment that is no power of two; the text has the buffer's number.
 *            LIMIT  also for a plan of more than 63 bits.
 *            else, and threads, as umo_optimizer_alloc(). Nothing is written on an error.
 * Cost:      20,000 nodes of umo_plan(), the same plan on every machine: some 20 ms at most for a
 *            model's tensors. A bracket takes one more short lock, of the piece.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_alloc_planned(const umo_plan_buffer *lifetimes,
                                                            size_t count, umo_pattern pattern,
                                                            uint32_t device, umo_buffer **out,
                                                            umo_plan_result *plan,
                                                            umo_error *error);

/**
 * Allocates memory on one NUMA node (numa.h), in pages of its own; it stays there whoever uses it.
 * While the node is full, pages come from others.
 *
 * @param node  UMO_NUMA_ANY (-1): where it is first touched, and later where it is used most.
 *
 * Errors:    NOT_FOUND    no such node (or device).
 *            UNSUPPORTED  the node has no memory, or none for this process (the text says which);
 *                         the device keeps buffers in memory of its own, which has no node.
 *            REFUSED      the system lets nobody choose nodes here: a seccomp filter.
 *            else as umo_optimizer_alloc().
 * Ownership, threads: as umo_optimizer_alloc().
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_alloc_numa(size_t size_bytes, int32_t node,
                                                         uint32_t device, umo_buffer **out,
                                                         umo_error *error);

/**
 * Takes a block of the pool for a device and the mode that the pattern asks for; with several
 * nodes, of the calling thread's node.
 *
 * Errors:    as umo_optimizer_alloc().
 * Ownership: given back by umo_optimizer_give(), also after umo_optimizer_shutdown().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_take(size_t size_bytes, umo_pattern pattern,
                                                   uint32_t device, umo_buffer **out,
                                                   umo_error *error);

/** Errors: INVAL not a block that umo_optimizer_take() gave, or given back already. Threads: any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_give(umo_buffer *block);

/**
 * Decides about the buffer at an address now, and moves it if another storage mode is cheaper. One
 * that cannot move stays where it is.
 *
 * @param[out] moved  Whether it moved; may be NULL.
 *
 * Errors:    NOT_FOUND no buffer there. BUSY, LIMIT, NOMEM, DEVICE it stayed where it was.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_optimize(const void *address, bool *moved,
                                                       umo_error *error);

/**
 * Brings bytes to a side before they are used.
 *
 * @param size_bytes  0 means the configured prefetch_bytes, cut at the buffer's end.
 *
 * Errors:    NOT_FOUND, INVAL past the buffer's end, BUSY an open use is in the way, LIMIT, NOMEM,
 *            DEVICE. UNSUPPORTED prefetching is off.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_prefetch(const void *address, size_t size_bytes,
                                                       umo_side side, umo_error *error);

/**
 * Pins the buffer at an address, or takes one pin back: it neither moves nor is it paged out.
 *
 * Errors:    NOT_FOUND. LIMIT the system's limit of locked memory. INVAL it is not pinned.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_pin(const void *address, bool pin, umo_error *error);

/**
 * The storage mode that a new buffer would get.
 *
 * Errors:    INVAL size 0, NOT_FOUND no such device.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_mode(size_t size_bytes, umo_pattern pattern,
                                                   uint32_t device, umo_storage_mode *out,
                                                   umo_error *error);

/** Answers memory pressure now, on this thread. Errors: UNSUPPORTED adaptation is off. Threads:
 * any. */
UMO_API UMO_MUST_USE umo_status umo_optimizer_adapt(umo_error *error);

/** The process's memory as umo sees it. */
typedef struct umo_optimizer_stats {
    /** Held by all buffers and pools of the process, and wrapped by umo_optimizer_wrap(). */
    uint64_t total_bytes;
    uint64_t unified_bytes;    /**< of it, in buffers that both sides see without a copy */
    uint64_t eliminated_bytes; /**< transfers that were not needed, since the start or a reset */
    /** Of the buffers: by how they are used. Those that share bytes count with all of theirs. */
    uint64_t pattern_bytes[UMO_PATTERNS];
} umo_optimizer_stats;

/** Reads the figures. Errors: INVAL it does not run. Threads: any. Cost: a walk over all buffers.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_stats_read(umo_optimizer_stats *out,
                                                         umo_error *error);

/**
 * Where host memory was when it was used, on a machine with several nodes; all 0 on one. The bytes
 * are those of recorded accesses (access.h) on the host side, of buffers that are used enough to be
 * looked at; where their pages lie is sampled.
 */
typedef struct umo_numa_figures {
    uint64_t local_bytes;  /**< used by threads on the node where the pages were */
    uint64_t remote_bytes; /**< used by threads on another one */
    uint64_t moves;        /**< buffers that followed their threads */
    uint64_t moved_bytes;
    uint64_t stayed_bytes; /**< of those buffers, what the system did not move */
} umo_numa_figures;

/** Reads the process's figures, since it began; the optimizer need not run. Threads: any. Cost: a
 * walk over all buffers, if nobody looked for 100 ms; nothing with one node. */
UMO_API void umo_numa_figures_read(umo_numa_figures *out);

/** Transfers that were not needed. */
typedef struct umo_optimizer_transfers {
    umo_tally to_device;
    umo_tally to_host;
} umo_optimizer_transfers;

/** Counts a transfer that the caller saved by means of its own. Errors: INVAL no such direction, or
 * it does not run. Threads: any. */
UMO_API UMO_MUST_USE umo_status umo_optimizer_transfer_eliminated(uint64_t size_bytes,
                                                                  umo_direction direction);
/** Since the start or the last reset. Errors: INVAL it does not run. Threads: any. */
UMO_API UMO_MUST_USE umo_status umo_optimizer_transfers_read(umo_optimizer_transfers *out);
/** Counts from here on. The scopes' own counters go on. Errors: INVAL it does not run. Threads:
 * any.
 */
UMO_API UMO_MUST_USE umo_status umo_optimizer_transfers_reset(void);

#ifdef __cplusplus
}
#endif

#endif
