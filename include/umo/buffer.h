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
 * without a deleter, until the last umo_buffer_release() has returned. On an error the deleter is
 * not called. Threads:   any. Cost:      no copy; one driver call; at most one system call where
 * pages have to be looked up.
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
/** UNIFIED for imported memory. Threads: any. */
UMO_API umo_storage_mode umo_buffer_mode(const umo_buffer *buffer);
/** Lives at least as long as the buffer. Threads: any. */
UMO_API umo_device *umo_buffer_device(const umo_buffer *buffer);

/** What a launch binds. Valid inside a device bracket. */
UMO_API const umo_memory *umo_buffer_memory(const umo_buffer *buffer);

/** Offset of the buffer's first byte inside umo_buffer_memory() (whole pages may be bound around
 * it). */
UMO_API size_t umo_buffer_memory_offset(const umo_buffer *buffer);

/** The host side's address. Valid inside a host bracket; NULL for PRIVATE memory never used by the
 * host. */
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
 * set as its waits.
 *
 * @param waits  Emptied, then filled; written also when nothing is to wait for.
 *
 * Errors:    INVAL   range outside the buffer, or a use that the import forbids.
 *            BUSY    an open bracket conflicts (one of the two writes).
 *            DEVICE  also for a read of bytes whose writer failed, until they are written again.
 *            LIMIT   the first host bracket on PRIVATE memory, whose host side is charged too.
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

/** Where the bytes of a range are valid now: a set of umo_side bits that holds for all of them.
 * Threads: any. */
UMO_API uint32_t umo_buffer_valid(const umo_buffer *buffer, size_t offset_bytes, size_t size_bytes);

#ifdef __cplusplus
}
#endif

#endif
