/**
 * @file weights.h
 * Files that are read and never written, model weights above all: mapped once a process.
 *
 * Whoever opens the same file gets the same bytes at the same address: other instances, versions
 * and models, by whatever path. A file is known by its identity (device, inode, size, time of its
 * last change), never by its name, so a file that took an old one's place is another one. On
 * request, a copy of a file that is open already is recognised by its bytes. Devices see the bytes
 * through buffers that their users share as well.
 */
#ifndef UMO_WEIGHTS_H
#define UMO_WEIGHTS_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One open file. */
typedef struct umo_weights umo_weights;

/** What may be asked for at opening, or-ed. */
enum {
    /** A file of the same length and bytes as one that is open is that one. */
    UMO_WEIGHTS_SAME_BYTES = 1
};

/**
 * Opens a file and maps it whole, or finds it among those that are open.
 *
 * The mapping is the system's own copy of the file: it belongs to no process, is read when touched
 * and may be dropped again, so nothing is charged to a budget. Never write to the file in place
 * while it is open (replace it by a new one); umo_weights_check() tells when somebody did.
 *
 * @param scope  Where the mapping is counted as an import, and what umo_weights_buffer() charges.
 *               Only the first opener's counts, so the context's own scope is the right one.
 * @param flags  UMO_WEIGHTS_SAME_BYTES or 0.
 *
 * Errors:    INVAL      no regular file, an empty one, or one that does not fit the address space.
 *            NOT_FOUND  no such file.
 *            SYSTEM     it cannot be read or mapped; native says why.
 *            NOMEM.
 * Ownership: one use, given back by umo_weights_release(). Holds the scope.
 * Threads:   any; of several that open the same file at the same time, one maps it.
 * Cost:      three system calls. With SAME_BYTES also one reading of the file for each open file of
 *            its length, up to the first byte that differs.
 */
UMO_API UMO_MUST_USE umo_status umo_weights_open(const char *path, umo_scope *scope, uint32_t flags,
                                                 umo_weights **out, umo_error *error);

/** Gives one use back; NULL is allowed. Device copies that nobody holds go with any use, the
 * mapping with the last one, or with the last buffer that shows it. Threads: any. */
UMO_API void umo_weights_release(umo_weights *weights);

/** The bytes, read-only. Live as long as a use. Threads: any. */
UMO_API const void *umo_weights_data(const umo_weights *weights);
/** Bytes of the file. Threads: any. */
UMO_API size_t umo_weights_size(const umo_weights *weights);

/**
 * Whether the file still has the bytes that were opened.
 *
 * A file that was cut short ends the process of whoever touches what is gone (SIGBUS), and one that
 * was written to in place shows the new bytes at once. A server therefore asks before it computes,
 * and answers with this error instead. What happens between the question and the use is not seen,
 * nor a change that leaves size and time as they were.
 *
 * Errors:    NOT_FOUND  another size or time of change: the opened bytes may exist no more.
 *            SYSTEM.
 * Threads:   any.
 * Cost:      one system call (fstat), under a microsecond.
 */
UMO_API UMO_MUST_USE umo_status umo_weights_check(const umo_weights *weights, umo_error *error);

/**
 * Takes the pages that were touched so far out of the process's working set, after a reading of
 * everything (packing, copying to a device) of which little is needed again. The bytes stay where
 * they are; the next touch of a page finds it in the system's cache.
 *
 * Threads: any, also while others read the bytes.
 * Cost:    one system call; later a page fault for each page or few that are touched again.
 */
UMO_API void umo_weights_rest(umo_weights *weights);

/**
 * A range of the file as a device's memory; all who ask for the same range in the same mode share
 * one buffer.
 *
 * UNIFIED binds the mapping where it lies, for reading. PRIVATE and MANAGED are a copy in the
 * device's own memory, made once: for a device that reads its own memory faster, or that binds no
 * foreign one.
 *
 * @param[out] why  Written when not NULL, also on failure: the reason of a refusal, else
 *                  UMO_REASON_NONE.
 *
 * Errors:    INVAL        no byte, or a range outside of the file.
 *            REFUSED      UNIFIED on a device that cannot bind it; see why. Ask for PRIVATE.
 *            UNSUPPORTED  the device lacks the mode.
 *            LIMIT        the copy would pass the scope's budget.
 *            NOT_FOUND    the file has changed (as umo_weights_check()), so it is not copied.
 *            NOMEM, DEVICE.
 * Ownership: one reference. It keeps the mapping alive, also past the last use of the file.
 * Threads:   any; of several that ask for the same at the same time, one makes it and the others
 *            wait.
 * Cost:      known: a walk over the file's buffers. New: an import, or a copy that is waited for.
 */
UMO_API UMO_MUST_USE umo_status umo_weights_buffer(umo_weights *weights, umo_device *device,
                                                   umo_storage_mode mode, size_t offset_bytes,
                                                   size_t size_bytes, umo_buffer **out,
                                                   umo_reason *why, umo_error *error);

/** Figures of all files of the process. */
typedef struct umo_weights_stats {
    size_t files;          /**< open */
    size_t users;          /**< of them, added up */
    uint64_t mapped_bytes; /**< each file once */
    size_t buffers;        /**< that devices have of them */
    uint64_t copied_bytes; /**< of those, in devices' own memory */
    uint64_t hits;         /**< openings that found the file open, by its identity */
    uint64_t same_bytes;   /**< likewise by its bytes */
    uint64_t misses;       /**< openings that mapped a file */
} umo_weights_stats;

/** Reads the figures, all of one instant. Threads: any. */
UMO_API void umo_weights_read(umo_weights_stats *out);

#ifdef __cplusplus
}
#endif

#endif
