/**
 * @file trace.h
 * Scopes: who owns memory and causes movement, and the counters of it.
 *
 * A scope is a name (a model, a pool, the context) with counters. A child's counters are also added
 * to its parent, so the context's root scope holds the sum. Counting is one relaxed atomic addition
 * a level and never locks.
 *
 * Two things are counted apart. A *transfer* takes bytes from the host side to the device side of a
 * buffer or back; it is performed (bytes moved) or eliminated (the other side already sees them). A
 * *copy* moves bytes within host memory; it is performed, for a named reason, or avoided. An engine
 * that runs on the CPU has no transfers.
 */
#ifndef UMO_TRACE_H
#define UMO_TRACE_H

#include <umo/reason.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Which way bytes go, seen from the model. */
typedef enum umo_direction {
    UMO_DIRECTION_IN = 0, /**< into the model; host to device */
    UMO_DIRECTION_OUT = 1 /**< out of the model; device to host */
} umo_direction;

#define UMO_DIRECTIONS 2

/** Number and size of events of one kind. */
typedef struct umo_tally {
    uint64_t events;
    uint64_t bytes;
} umo_tally;

/** What a scope has counted since it was made. A snapshot: the fields are read one by one. */
typedef struct umo_counters {
    umo_tally transfer_performed[UMO_DIRECTIONS];
    umo_tally transfer_eliminated[UMO_DIRECTIONS];
    umo_tally copy_performed[UMO_DIRECTIONS][UMO_REASON_COUNT];
    umo_tally copy_avoided[UMO_DIRECTIONS];
    umo_tally imported;    /**< memory wrapped where it lies, first time */
    umo_tally import_hits; /**< wrapped again from the registration cache */
    umo_tally allocated;   /**< memory taken from the system or a device */
    uint64_t live_bytes;   /**< allocated and not yet freed */
    uint64_t peak_bytes;   /**< high-water mark of live_bytes */
    uint64_t live_buffers; /**< umo_buffer objects that exist */
    umo_tally moves;       /**< buffers that changed their storage mode, with their size; what that
                            transferred is counted as such, too */
} umo_counters;

typedef struct umo_scope umo_scope;

/**
 * Makes a scope below a parent.
 *
 * @param parent  Outlives the scope; NULL makes a root.
 * @param name    Copied, at most 63 bytes kept.
 * @param limit_bytes  The most that may be live in the scope and its children; 0 for no limit of
 * its own.
 *
 * Errors:    NOMEM.
 * Ownership: the caller owns the scope until umo_scope_destroy(). A buffer keeps its scope alive.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_scope_create(umo_scope *parent, const char *name,
                                                 uint64_t limit_bytes, umo_scope **out,
                                                 umo_error *error);

/** Gives the caller's reference back. NULL is allowed. Threads: any. */
UMO_API void umo_scope_destroy(umo_scope *scope);

/** The name given at creation; lives as long as the scope. */
UMO_API const char *umo_scope_name(const umo_scope *scope);

/** Reads all counters. Threads: any. Cost: some 100 relaxed loads. */
UMO_API void umo_scope_read(const umo_scope *scope, umo_counters *out);

/**
 * The same for who reads often: copy_performed, most of the counters, is read only when a copy was
 * counted since the last call, and stays as it was in out otherwise.
 *
 * @param copies  The caller's, 0 before the first call; out is all zeros then.
 * @return        Whether copy_performed was read.
 *
 * Threads: any, with a copies and an out of their own. Cost: some 20 relaxed loads.
 */
UMO_API bool umo_scope_read_again(const umo_scope *scope, uint64_t *copies, umo_counters *out);

/** Counts one transfer of size_bytes. Threads: any. Cost: two relaxed additions a level. */
UMO_API void umo_scope_count_transfer(umo_scope *scope, umo_direction direction, bool performed,
                                      uint64_t size_bytes);

/** Counts a copy within host memory, made for a reason. Threads, cost: as above. */
UMO_API void umo_scope_count_copy(umo_scope *scope, umo_direction direction, umo_reason reason,
                                  uint64_t size_bytes);

/** Counts a copy that the conventional way makes and this one did not. Threads, cost: as above. */
UMO_API void umo_scope_count_copy_avoided(umo_scope *scope, umo_direction direction,
                                          uint64_t size_bytes);

#ifdef __cplusplus
}
#endif

#endif
