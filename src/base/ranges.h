/*
 * A partition of [0, size) into ranges with a small value each: where which bytes of a buffer are
 * valid.
 *
 * Most buffers have one range, so the first few live in the object itself. Room is reserved before
 * it is needed (umo_ranges_reserve), so that marking, which happens when a use has already run,
 * cannot fail.
 */
#ifndef UMO_BASE_RANGES_H
#define UMO_BASE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct umo_range {
    size_t start;
    uint32_t value;
} umo_range;

/* What one bracket reserves on a buffer with one range and another open bracket fits. */
#define UMO_RANGES_INLINE 8u

typedef struct umo_ranges {
    size_t size;
    size_t count;
    size_t capacity;
    umo_range *items; /* sorted by start; items[0].start is 0; neighbours differ in value */
    umo_range inline_items[UMO_RANGES_INLINE];
} umo_ranges;

/* One range of the whole size with a value. */
void umo_ranges_init(umo_ranges *ranges, size_t size, uint32_t value);
void umo_ranges_finish(umo_ranges *ranges);

/* Makes room for `splits` further calls of umo_ranges_set. False when memory is out. */
bool umo_ranges_reserve(umo_ranges *ranges, size_t splits);

/* Sets [offset, offset + size), size > 0, inside the whole. Room was reserved. */
void umo_ranges_set(umo_ranges *ranges, size_t offset, size_t size, uint32_t value);

/* Index of the range that holds offset. */
size_t umo_ranges_find(const umo_ranges *ranges, size_t offset);

/* One past the last byte of a range. */
size_t umo_ranges_end(const umo_ranges *ranges, size_t index);

#endif
