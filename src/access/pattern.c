/*
 * Patterns: what the counts of a buffer's uses say about how it is used.
 */
#include <umo/access.h>

const char *umo_pattern_name(umo_pattern pattern)
{
    static const char *const names[UMO_PATTERNS] = {"unknown", "cpu_dominant", "gpu_dominant",
                                                    "balanced", "streaming"};
    return (unsigned)pattern < UMO_PATTERNS ? names[pattern] : names[0];
}
