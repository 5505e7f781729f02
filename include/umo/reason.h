/**
 * @file reason.h
 * Why bytes were copied, or why memory could not be used where it lies.
 */
#ifndef UMO_REASON_H
#define UMO_REASON_H

#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One value per row of reasons.inc. */
typedef enum umo_reason {
#define UMO_REASON(identifier, label, cause, remedy) UMO_REASON_##identifier,
#include <umo/reasons.inc>
#undef UMO_REASON
    UMO_REASON_COUNT
} umo_reason;

/** The label used in metrics ("control_data"); "unknown" out of range. Threads: any. */
UMO_API const char *umo_reason_label(umo_reason reason);

/** One sentence on what happened; "" out of range. Threads: any. */
UMO_API const char *umo_reason_cause(umo_reason reason);

/** One sentence on what a user can do; "" out of range. Threads: any. */
UMO_API const char *umo_reason_remedy(umo_reason reason);

#ifdef __cplusplus
}
#endif

#endif
