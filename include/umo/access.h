/**
 * @file access.h
 * How memory is used: who touches it, what pattern that is.
 */
#ifndef UMO_ACCESS_H
#define UMO_ACCESS_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How memory is mostly used; the mission's names. */
typedef enum umo_pattern {
    UMO_PATTERN_UNKNOWN = 0,
    UMO_PATTERN_CPU_DOMINANT = 1,
    UMO_PATTERN_GPU_DOMINANT = 2,
    UMO_PATTERN_BALANCED = 3,
    UMO_PATTERN_STREAMING = 4
} umo_pattern;

#define UMO_PATTERNS 5

/** "cpu_dominant"; "unknown" for any other value. Threads: any. */
UMO_API const char *umo_pattern_name(umo_pattern pattern);

#ifdef __cplusplus
}
#endif

#endif
