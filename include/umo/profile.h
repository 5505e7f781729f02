/**
 * @file profile.h
 * A flight recorder: the last events of this process (allocations, uses, transfers, moves,
 * pressure), as a table.
 */
#ifndef UMO_PROFILE_H
#define UMO_PROFILE_H

#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Starts or stops recording. Threads: any. */
UMO_API void umo_profile_enable(bool on);

#ifdef __cplusplus
}
#endif

#endif
