/**
 * @file context.h
 * A context owns devices, the registration cache and the root scope with its budget.
 *
 * A process normally has one: the default context, reference-counted, shared by every backend, the
 * Python package and the tools, because they all load the same libumo.so.0.
 */
#ifndef UMO_CONTEXT_H
#define UMO_CONTEXT_H

#include <umo/buffer.h>
#include <umo/copy.h>
#include <umo/pool.h>
#include <umo/pressure.h>
#include <umo/region.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_context umo_context;

/** How a context is made. Zeroed means the defaults. */
typedef struct umo_context_options {
    uint64_t budget_bytes; /**< most live bytes of all scopes; 0 means no limit */
    /** The same as a part of the memory that this process may use (the machine's, or what a
     * container allows), 0 to 1; of the two budgets the smaller one counts. 0 means none. */
    double budget_fraction;
    umo_registry_options registry;
    umo_driver_options driver;
} umo_context_options;

/** Errors: NOMEM. Ownership: umo_context_destroy(). */
UMO_API UMO_MUST_USE umo_status umo_context_create(const umo_context_options *options,
                                                   umo_context **out, umo_error *error);
/** Everything made from it was given back before. NULL is allowed. */
UMO_API void umo_context_destroy(umo_context *context);

/**
 * Joins the process's default context, making it if this is the first.
 *
 * @param options  NULL joins whatever is there. Each field must equal the existing one, or be 0.
 *
 * Errors:    INVAL  the context exists with another configuration (the text names the field).
 *            NOMEM.
 * Ownership: one reference, given back by umo_context_default_release().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_context_default_acquire(const umo_context_options *options,
                                                            umo_context **out, umo_error *error);
/** The last release destroys it. Threads: any. */
UMO_API void umo_context_default_release(umo_context *context);

/** The root scope: the sum of everything in the context. Lives as long as it. Threads: any. */
UMO_API umo_scope *umo_context_scope(umo_context *context);
/** The registration cache. Lives as long as the context. Threads: any. */
UMO_API umo_registry *umo_context_registry(umo_context *context);

/** What copies for everybody in the context, so that a process has its threads once. Lives as long
 * as the context. Threads: any. */
UMO_API umo_copier *umo_context_copier(umo_context *context);

/**
 * A device of the context, opened at first use.
 *
 * Errors:    as umo_device_open().
 * Ownership: one reference, given back by umo_device_release().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_context_device(umo_context *context, const char *driver,
                                                   uint32_t ordinal, umo_device **out,
                                                   umo_error *error);

/**
 * Has memory pressure watched and answered for all pools of the context, until it is destroyed. A
 * second call joins.
 *
 * @param options  NULL for the defaults, or whatever is there.
 *
 * Errors:    INVAL  it runs with another threshold; else as umo_pressure_create().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_context_pressure_start(umo_context *context,
                                                           const umo_pressure_options *options,
                                                           umo_error *error);

/** NULL before umo_context_pressure_start(). Lives as long as the context. Threads: any. */
UMO_API umo_pressure *umo_context_pressure(umo_context *context);

/** Something that is done again and again on umo's own thread, "umo-keeper". */
typedef struct umo_ticker umo_ticker;

/** Called on that thread, no lock held. Returns after how many nanoseconds it wants to be called
 * again; whatever it takes, others wait for. */
typedef uint64_t (*umo_tick)(void *user);

/**
 * Has a function called again and again: for what changes although nobody calls, as what pools
 * give back.
 *
 * @param first_ns  After how many nanoseconds the first call is due.
 *
 * Errors:    NOMEM.
 * Ownership: umo_ticker_stop().
 * Threads:   any. Where the system has no thread to give, it is not called. In a child after fork()
 *            neither.
 */
UMO_API UMO_MUST_USE umo_status umo_ticker_start(umo_tick tick, void *user, uint64_t first_ns,
                                                 umo_ticker **out, umo_error *error);

/** No call of it runs any more when this returns; not from inside one. NULL is allowed. Threads:
 * any. */
UMO_API void umo_ticker_stop(umo_ticker *ticker);

/** Version of the library, "0.1.0". */
UMO_API const char *umo_version(void);

#ifdef __cplusplus
}
#endif

#endif
