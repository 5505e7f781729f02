/**
 * @file copy.h
 * Many copies at once, by several threads where that is faster: what gathers a batch and scatters
 * its answers.
 *
 * One thread does not use all of a machine's memory bandwidth, but waking others costs more than a
 * small copy. A copier measures both once and uses its threads only from there on. They claim what
 * is left piece by piece, so a thread that the system does not let run delays nobody.
 */
#ifndef UMO_COPY_H
#define UMO_COPY_H

#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_copier umo_copier;

/** One range to copy. */
typedef struct umo_copy {
    void *to;
    const void *from;
    size_t size_bytes;
} umo_copy;

/** Most threads that a copier takes beside its caller's: more do not make memory faster. */
#define UMO_COPIER_HELPERS_MAX 3

/**
 * Makes a copier. Its threads start with the first copy that may be large enough for them.
 *
 * @param helpers  Threads beside the caller's, at most UMO_COPIER_HELPERS_MAX; UINT32_MAX for what
 *                 the machine has processors for, which may be none.
 * @param crossover_bytes  From how many bytes on they help; 0 to measure it. Never below 256 KiB.
 *
 * Errors:    NOMEM.
 * Ownership: umo_copier_destroy().
 */
UMO_API UMO_MUST_USE umo_status umo_copier_create(uint32_t helpers, size_t crossover_bytes,
                                                  umo_copier **out, umo_error *error);
/** No copy runs any more. NULL is allowed. */
UMO_API void umo_copier_destroy(umo_copier *copier);

/**
 * Copies all ranges. No range that is written overlaps another one that is written, or one that is
 * read; the order is undefined.
 *
 * @param copier  NULL copies on the caller's thread.
 *
 * Threads: any. While one caller has the copier's threads, another one copies alone.
 * Cost:    memcpy's, divided by the threads that help. Never allocates, but for the first copy of
 *          256 KiB and more, which starts the threads and measures for some milliseconds.
 */
UMO_API void umo_copier_run(umo_copier *copier, const umo_copy *copies, size_t count);

/** What was measured; all zero before. */
typedef struct umo_copier_figures {
    uint32_t helpers;
    uint64_t wake_ns;         /**< to have the threads at work */
    uint64_t alone_ns_mib;    /**< for one MiB on the caller's thread */
    uint64_t together_ns_mib; /**< for one MiB with all threads */
    size_t crossover_bytes;   /**< from here on the threads are used; SIZE_MAX for never */
} umo_copier_figures;

/** Threads: any. */
UMO_API void umo_copier_read(umo_copier *copier, umo_copier_figures *out);

#ifdef __cplusplus
}
#endif

#endif
