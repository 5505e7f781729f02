/**
 * @file buffer.h
 * Reference-counted memory of a device: allocated or wrapped where it lies, used inside brackets.
 *
 * A buffer knows, for each range of its bytes, on which sides (host, device) they are valid. Every
 * use is a bracket: umo_access_begin() brings the bytes to the side that wants them and names the
 * fences to wait for; umo_access_end() takes the fence that completes the use. A side that lacks
 * bytes is a transfer: performed where there are two memories, eliminated where both sides see one.
 */
#ifndef UMO_BUFFER_H
#define UMO_BUFFER_H

#include <umo/device.h>
#include <umo/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_buffer umo_buffer;

/**
 * Allocates memory. Its contents are undefined, and valid on no side until written.
 *
 * @param scope       Whose memory it is; its limit is honoured.
 * @param size_bytes  1 or more.
 *
 * Errors:    INVAL        size 0, or longer than the device's buffer_max_bytes.
 *            LIMIT        the scope's or a parent's limit.
 *            UNSUPPORTED  the device lacks the mode.
 *            NOMEM, DEVICE.
 * Ownership: one reference, given back by umo_buffer_release(). Holds the device and the scope.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_alloc(umo_device *device, umo_scope *scope,
                                                 size_t size_bytes, umo_storage_mode mode,
                                                 umo_buffer **out, umo_error *error);

/**
 * Allocates memory that can be moved between storage modes while it lives: umo_buffer_move(). A
 * range of host addresses is reserved for its life, so umo_buffer_host() never changes.
 *
 * What each mode holds, and therefore what the scope is charged: UNIFIED one memory of the host,
 * imported on the device; PRIVATE the device's memory, and a host side from its first host bracket
 * on; MANAGED the device's memory and a host side, always both.
 *
 * Errors:    as umo_buffer_alloc(); UNSUPPORTED also when the device cannot bind host memory for
 *            writing (UNIFIED), has no memory of its own (MANAGED, PRIVATE), or returns an import
 *            at another address; REFUSED when it does not take this import.
 * Ownership: as umo_buffer_alloc().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_alloc_movable(umo_device *device, umo_scope *scope,
                                                         size_t size_bytes, umo_storage_mode mode,
                                                         umo_buffer **out, umo_error *error);

/** Called once, when the last use has completed and the last reference is gone. Any thread, no lock
 * held. */
typedef void (*umo_deleter)(void *data, void *user);

/** Memory that somebody else owns. Zero what is not used. */
typedef struct umo_import {
    void *data;
    size_t size_bytes; /**< 1 or more */
    bool writable;     /**< the device may write to it */
    bool whole_pages; /**< the caller vouches that every byte of the pages around it may be bound */
    umo_deleter deleter; /**< NULL if the owner needs no word */
    void *user;
} umo_import;

/**
 * Wraps memory where it lies. The bytes are valid on the host side.
 *
 * A device that binds whole pages gets the pages around the range, when whole_pages vouches for
 * them or when they are shown to lie in one mapping; nothing is ever copied here.
 *
 * @param[out] why  Written when not NULL, also on failure: the reason of a refusal, else
 * UMO_REASON_NONE.
 *
 * Errors:    INVAL    NULL or empty memory, or a range that wraps around.
 *            REFUSED  see why. The caller may copy instead.
 *            NOMEM, LIMIT.
 * Ownership: one reference. The memory stays its owner's and must live until deleter runs, or,
 *            without a deleter, until the last umo_buffer_release() has returned. On an error the
 *            deleter is not called.
 * Threads:   any.
 * Cost:      no copy; one driver call; at most one system call where pages have to be looked up.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_import(umo_device *device, umo_scope *scope,
                                                  const umo_import *import, umo_buffer **out,
                                                  umo_reason *why, umo_error *error);

/** One more reference. Threads: any. */
UMO_API void umo_buffer_acquire(umo_buffer *buffer);

/** Gives a reference back; NULL is allowed. The last one waits for pending uses, then frees.
 * Threads: any. */
UMO_API void umo_buffer_release(umo_buffer *buffer);

/** Bytes of the buffer, as asked for. Threads: any. */
UMO_API size_t umo_buffer_size(const umo_buffer *buffer);
/** UNIFIED for imported memory. A move changes it, but not inside a bracket. Threads: any. */
UMO_API umo_storage_mode umo_buffer_mode(const umo_buffer *buffer);
/** The modes that umo_buffer_move() takes, a set of 1 << umo_storage_mode; only its own where the
 * memory is not movable. What the device promises: a move may still fail. Threads: any. */
UMO_API uint32_t umo_buffer_modes(const umo_buffer *buffer);
/** Lives at least as long as the buffer. Threads: any. */
UMO_API umo_device *umo_buffer_device(const umo_buffer *buffer);

/** What a launch binds. Valid inside a device bracket. */
UMO_API const umo_memory *umo_buffer_memory(const umo_buffer *buffer);

/** Offset of the buffer's first byte inside umo_buffer_memory() (whole pages may be bound around
 * it). */
UMO_API size_t umo_buffer_memory_offset(const umo_buffer *buffer);

/** The host side's address. Valid inside a host bracket; NULL for PRIVATE memory never used by the
 * host. Movable memory has one address for life, even while nothing lies behind it. */
UMO_API void *umo_buffer_host(const umo_buffer *buffer);

/** What a bracket is going to do. WRITE alone promises that every byte of the range is written. */
typedef enum umo_use {
    UMO_READ = 1,
    UMO_WRITE = 2,
    UMO_READ_WRITE = 3
} umo_use;

typedef struct umo_access {
    size_t offset_bytes;
    size_t size_bytes; /**< 0 is allowed and touches nothing */
    umo_side side;
    umo_use use;
    uint32_t queue;   /**< device side: the queue that the use is going to run in */
    umo_scope *scope; /**< who causes it, for the counters; NULL for the buffer's own */
} umo_access;

/** Fences to wait for before a use. A plain value. */
typedef struct umo_fence_set {
    size_t count;
    umo_fence fences[UMO_WAITS_MAX];
} umo_fence_set;

/** Adds a fence; one of the same queue is raised instead. False when full: wait for the fence
 * yourself. */
UMO_API bool umo_fence_set_add(umo_fence_set *set, umo_fence fence);

/**
 * Waits for all and empties the set.
 *
 * Errors:    DEVICE   the first failure, after all were waited for.
 *            TIMEOUT  not all have passed; the set stays as it is.
 * Threads:   any, each with its own set.
 */
UMO_API UMO_MUST_USE umo_status umo_fence_set_wait(umo_fence_set *set, uint64_t timeout_ns);

/**
 * Opens a bracket: makes the range usable on a side.
 *
 * Transfers that are needed are queued; the fences to wait for (earlier uses, and those transfers)
 * come out in waits. The host touches the bytes only after umo_fence_set_wait(); a launch takes the
 * set as its waits. While a move runs, this waits for its end.
 *
 * @param waits  Emptied, then filled; written also when nothing is to wait for.
 *
 * Errors:    INVAL   range outside the buffer, or a use that the import forbids.
 *            BUSY    an open bracket conflicts (one of the two writes), or an export; or the device
 *                    is not coherent and would take what the host wrote from an open host bracket.
 *            DEVICE  also for a read of bytes whose writer failed, until they are written again.
 *            LIMIT   the first host bracket on PRIVATE memory, whose host side is charged too, and
 *                    page-locked if the buffer is pinned.
 *            NOMEM.  No bracket is open after an error.
 * Threads:   any. One short lock a buffer.
 * Cost:      no allocation and no system call when no bytes have to move.
 */
UMO_API UMO_MUST_USE umo_status umo_access_begin(umo_buffer *buffer, const umo_access *access,
                                                 umo_fence_set *waits);

/**
 * Closes the bracket that an equal umo_access opened.
 *
 * @param done  Completes the use; {0} when it has completed already.
 *
 * Errors:    INVAL  no such bracket is open.
 * Threads:   any, also another one than began.
 */
UMO_API UMO_MUST_USE umo_status umo_access_end(umo_buffer *buffer, const umo_access *access,
                                               umo_fence done);

/**
 * Closes a bracket whose use failed: what it was to write is valid on no side.
 *
 * Errors, threads: as umo_access_end().
 */
UMO_API UMO_MUST_USE umo_status umo_access_abort(umo_buffer *buffer, const umo_access *access,
                                                 umo_fence done);

/**
 * Copies host memory into a range, straight to the device side of two-sided memory: the
 * conventional way in.
 *
 * @param data  size_bytes bytes, valid and unchanged until the fence has passed.
 *
 * Errors:    INVAL range or queue; BUSY an open bracket overlaps; DEVICE, NOMEM.
 * Threads:   any.
 * Cost:      one copy of the bytes, counted as a performed transfer.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_upload(umo_buffer *buffer, size_t offset_bytes,
                                                  const void *data, size_t size_bytes,
                                                  uint32_t queue, umo_fence *done);

/**
 * Copies a range into host memory: the conventional way out.
 *
 * Errors:    as umo_buffer_upload(); also DEVICE when the command that was to write the bytes
 * failed. Threads, cost: as umo_buffer_upload().
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_download(umo_buffer *buffer, size_t offset_bytes,
                                                    void *data, size_t size_bytes, uint32_t queue,
                                                    umo_fence *done);

/**
 * Moves a movable buffer to another storage mode. Its bytes and its host address stay; brackets
 * that would open meanwhile wait until it is done. Every pending use is waited for first.
 *
 * A move that waits for open brackets stops none from opening, so it locks nobody out; it starts at
 * a moment when none is open. A side that held a range's bytes still holds them afterwards, where
 * the mode has that side; otherwise the other side does. A move to PRIVATE of memory that is
 * PRIVATE gives its host side back; any other move to the mode that it has does nothing.
 *
 * @param timeout_ns  How long to wait for open brackets: 0 not at all, UINT64_MAX for ever. The
 *                    device's pending work is waited for without limit.
 *
 * Errors:    BUSY         pinned, exported, or a bracket is open: with a timeout only when this
 *                         thread opened it, which would wait for itself.
 *            TIMEOUT      brackets were open all the time.
 *            LIMIT        while it moves both memories exist, and the scope has no room for that.
 *            UNSUPPORTED  the buffer is not movable, or the device lacks the mode.
 *            INVAL        no such mode.
 *            DEVICE, NOMEM, REFUSED.
 *            After an error the bytes are valid where they were, in the mode that it had.
 * Threads:   any. No lock is held while it waits or a driver works.
 * Cost:      one allocation or import on the device; transfers of the valid bytes that the new mode
 *            needs elsewhere, counted as performed; counted in umo_counters.moves.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_move(umo_buffer *buffer, umo_storage_mode mode,
                                                uint64_t timeout_ns, umo_error *error);

/**
 * Forbids moves, and keeps the host side's pages in memory (page-lock) where there is one; a host
 * side that is made later is locked too. Pins are counted, and so are pages: memory that two pinned
 * buffers share stays locked until both are unpinned.
 *
 * Errors:    LIMIT   RLIMIT_MEMLOCK, with what it is, what umo has locked, and the remedy.
 *            NOMEM, SYSTEM. Nothing is pinned after an error.
 * Ownership: undone by umo_buffer_unpin(), at the latest by the last umo_buffer_release().
 * Threads:   any. Waits for a move that runs.
 * Cost:      a page-lock touches every page.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_pin(umo_buffer *buffer, umo_error *error);

/** Takes one pin back. Errors: INVAL it has none. Threads: any. */
UMO_API UMO_MUST_USE umo_status umo_buffer_unpin(umo_buffer *buffer);

/** Whether it is pinned now. Threads: any. */
UMO_API bool umo_buffer_pinned(const umo_buffer *buffer);

/**
 * The node (numa.h) that most of the buffer's bytes in host memory lie on now; UMO_NUMA_ANY (-1)
 * while none of them is in memory, and where the system does not say.
 *
 * Threads:   any.
 * Cost:      reads what nodes there are (umo_numa_topology_read()) and looks at 64 pages at most.
 */
UMO_API int32_t umo_buffer_numa_node(umo_buffer *buffer);

/**
 * Places a buffer: moves its pages in host memory to a node, and has pages that come later lie
 * there too. Its bytes, its addresses and its mode stay, brackets stay open. The optimizer leaves a
 * buffer that was placed where it is.
 *
 * @param node        UMO_NUMA_ANY: nothing moves, pages that come later lie where they are first
 *                    touched, and the optimizer may move the buffer again.
 * @param moved_bytes What lies there now and did not before; may be NULL.
 *
 * Errors:    NOT_FOUND    no such node.
 *            UNSUPPORTED  the node has no memory, or none for this process; or the buffer has no
 *                         pages of its own in host memory: an import, a block of a pool, memory of
 *                         the device.
 *            BUSY         it is pinned or exported.
 *            REFUSED      the system lets nobody say so here (numa.h). NOMEM.
 *            That some pages could not be moved is no error.
 * Threads:   any. Pins, exports and moves to another mode wait for it, 2 MiB at most; nobody else.
 * Cost:      as umo_numa_move().
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_numa_move(umo_buffer *buffer, int32_t node,
                                                     uint64_t *moved_bytes, umo_error *error);

/**
 * Hands the whole memory on one side to somebody who knows no brackets (DLPack), until
 * umo_buffer_export_end(). Moves are forbidden meanwhile.
 *
 * The bytes are brought to the side. A writable export may be written to at any time: all bytes
 * count as valid on its side alone from now on. While exports are out,
 *   - brackets that write are BUSY;
 *   - brackets that read on the side of a writable export see its bytes as they are: who waits for
 *     the exporter's writes is the caller's affair;
 *   - brackets that read on the other side bring the bytes again each time, and are BUSY while
 *     another such bracket overlaps, or where the device has to map memory to see it;
 *   - exports nest; but a writable one and one of the other side are BUSY for each other.
 *
 * @param writable  The other party may write.
 * @param waits     Emptied, then filled with what to wait for before the first use.
 *
 * Errors:    BUSY   an open bracket conflicts, or another export (see above).
 *            INVAL  no such side; a writable export of memory imported for reading.
 *            DEVICE also for bytes whose writer failed. LIMIT, NOMEM as umo_access_begin().
 * Ownership: holds a reference until umo_buffer_export_end().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_export_begin(umo_buffer *buffer, umo_side side,
                                                        bool writable, umo_fence_set *waits);

/**
 * Ends one export that an equal umo_buffer_export_begin() began.
 *
 * @param done  Completes the last use; {0} when it has completed already. Later brackets wait.
 *
 * Errors:    INVAL  no such export is out.
 * Ownership: gives the export's reference back, perhaps the last one.
 * Threads:   any, also another one than began; under no lock of the caller's that a deleter takes.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_export_end(umo_buffer *buffer, umo_side side,
                                                      bool writable, umo_fence done);

/**
 * Gets a range ready for its next use on a side, ahead of it. Never changes a byte.
 *
 * Bytes that the side lacks are transferred now, in the device's last queue (counted once: the use
 * finds them valid). For the host the pages behind the range are made present, on this thread.
 *
 * Errors:    INVAL  range or side. BUSY, DEVICE, LIMIT, NOMEM as umo_access_begin() of a read.
 *            SYSTEM pages that cannot be made present.
 * Threads:   any.
 * Cost:      queues the transfers; host side: one system call, and a fault for each page that is
 *            not present.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_prefetch(umo_buffer *buffer, size_t offset_bytes,
                                                    size_t size_bytes, umo_side side,
                                                    umo_error *error);

/** Where the bytes of a range are valid now: a set of umo_side bits that holds for all of them.
 * Threads: any. */
UMO_API uint32_t umo_buffer_valid(const umo_buffer *buffer, size_t offset_bytes, size_t size_bytes);

#ifdef __cplusplus
}
#endif

#endif
