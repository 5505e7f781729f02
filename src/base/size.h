/*
 * Size arithmetic that never overflows silently. Range checks elsewhere are written `size > limit -
 * offset`.
 */
#ifndef UMO_BASE_SIZE_H
#define UMO_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rounds up to a multiple of align_bytes, a power of two. False on overflow. */
static inline bool umo_round_up(size_t size_bytes, size_t align_bytes, size_t *out)
{
    size_t padded;
    if (__builtin_add_overflow(size_bytes, align_bytes - 1, &padded)) {
        return false;
    }
    *out = padded & ~(align_bytes - 1);
    return true;
}

static inline uintptr_t umo_round_down(uintptr_t value, size_t align_bytes)
{
    return value & ~((uintptr_t)align_bytes - 1);
}

/* True when [offset, offset + size) lies in [0, limit). */
static inline bool umo_range_fits(size_t offset_bytes, size_t size_bytes, size_t limit_bytes)
{
    return offset_bytes <= limit_bytes && size_bytes <= limit_bytes - offset_bytes;
}

static inline bool umo_is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

#endif
