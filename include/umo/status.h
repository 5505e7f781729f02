/**
 * @file status.h
 * The closed set of results and the value that carries their words.
 *
 * A umo_error lives with the caller, has a fixed size and never allocates, so that an error can be
 * reported when memory is out and from any thread. Hot calls return a bare umo_status.
 */
#ifndef UMO_STATUS_H
#define UMO_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define UMO_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define UMO_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#if defined(__GNUC__)
#define UMO_API __attribute__((visibility("default")))
#define UMO_MUST_USE __attribute__((warn_unused_result))
#define UMO_PRINTF(format_index, first_index)                                                      \
    __attribute__((format(printf, format_index, first_index)))
#else
#error "umo is written for gcc and clang"
#endif

/** Result of a call. Closed: a new value is a new ABI. */
typedef enum umo_status {
    UMO_OK = 0,
    UMO_E_INVAL = 1,       /**< the caller's mistake: an argument that can never be right */
    UMO_E_NOMEM = 2,       /**< the system has no memory left */
    UMO_E_LIMIT = 3,       /**< a budget or a fixed limit is reached; a release makes room */
    UMO_E_UNSUPPORTED = 4, /**< this device or build cannot do it, ever */
    UMO_E_NOT_FOUND = 5,   /**< a name, file, device or library does not exist */
    UMO_E_BUSY = 6,        /**< a conflicting use is open; try again after it ends */
    UMO_E_DEVICE = 7,      /**< the device or its driver failed */
    UMO_E_SYSTEM = 8,      /**< a system call failed; native holds errno */
    UMO_E_REFUSED = 9,     /**< memory cannot be wrapped where it lies; a umo_reason says why */
    UMO_E_TIMEOUT = 10     /**< the time limit passed first */
} umo_status;

#define UMO_STATUS_COUNT 11

/** Says that a result is deliberately not looked at, where a cast to void does not satisfy
 * UMO_MUST_USE. */
static inline void umo_status_ignore(umo_status status)
{
    (void)status;
}

/** Bytes of text in a umo_error, the final zero included. */
#define UMO_ERROR_TEXT_BYTES 256

/**
 * What went wrong, in words. Caller-owned; any call that takes one accepts NULL.
 * The text is one line, and never holds an address, a shared-memory key or tensor content.
 */
typedef struct umo_error {
    umo_status status;
    int32_t native; /**< errno, cl_int, CUresult or the like; 0 if none */
    char text[UMO_ERROR_TEXT_BYTES];
} umo_error;

/** The enumerator's name without prefix ("NOMEM"); "UNKNOWN" for any other value. Threads: any. */
UMO_API const char *umo_status_name(umo_status status);

/** One sentence on what a result means; "" for any other value. Threads: any. */
UMO_API const char *umo_status_cause(umo_status status);

/** One sentence on what a user can do about it; "" for any other value. Threads: any. */
UMO_API const char *umo_status_remedy(umo_status status);

/**
 * Fills an error and returns its status, so that a failing path is one line.
 *
 * @param error   Written when not NULL. Longer text is cut at UMO_ERROR_TEXT_BYTES.
 *
 * Errors:    returns status unchanged.
 * Ownership: copies the text; format's arguments may go away at return.
 * Threads:   any, each with its own error.
 * Cost:      one vsnprintf; no allocation by umo.
 */
UMO_API umo_status umo_error_set(umo_error *error, umo_status status, int32_t native,
                                 const char *format, ...) UMO_PRINTF(4, 5);

#ifdef __cplusplus
}
#endif

#endif
