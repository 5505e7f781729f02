/*
 * See ranges.h. Linear shifts of a sorted array: a buffer with more than a handful of ranges is
 * rare.
 */
#include "base/ranges.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void umo_ranges_init(umo_ranges *ranges, size_t size, uint32_t value)
{
    ranges->size = size;
    ranges->count = 1;
    ranges->capacity = UMO_RANGES_INLINE;
    ranges->items = ranges->inline_items;
    ranges->items[0] = (umo_range){.start = 0, .value = value};
}

void umo_ranges_finish(umo_ranges *ranges)
{
    if (ranges->items != ranges->inline_items) {
        free(ranges->items);
    }
    ranges->items = NULL;
}

bool umo_ranges_reserve(umo_ranges *ranges, size_t splits)
{
    /* One set cuts at both of its ends: at most two more ranges. */
    size_t wanted = ranges->count + 2 * splits;
    if (wanted <= ranges->capacity) {
        return true;
    }
    size_t capacity = ranges->capacity * 2 > wanted ? ranges->capacity * 2 : wanted;
    bool was_inline = ranges->items == ranges->inline_items;
    umo_range *items = realloc(was_inline ? NULL : ranges->items, capacity * sizeof *items);
    if (items == NULL) {
        return false;
    }
    if (was_inline) {
        memcpy(items, ranges->inline_items, ranges->count * sizeof *items);
    }
    ranges->items = items;
    ranges->capacity = capacity;
    return true;
}

size_t umo_ranges_find(const umo_ranges *ranges, size_t offset)
{
    size_t low = 0;
    size_t high = ranges->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (ranges->items[middle].start <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

size_t umo_ranges_end(const umo_ranges *ranges, size_t index)
{
    return index + 1 < ranges->count ? ranges->items[index + 1].start : ranges->size;
}

/* Makes a range start at `at` and returns its index; ranges->count when `at` is the end of the
 * whole. */
static size_t ranges_cut(umo_ranges *ranges, size_t at)
{
    if (at == ranges->size) {
        return ranges->count;
    }
    size_t index = umo_ranges_find(ranges, at);
    if (ranges->items[index].start == at) {
        return index;
    }
    assert(ranges->count < ranges->capacity);
    memmove(&ranges->items[index + 2], &ranges->items[index + 1],
            (ranges->count - index - 1) * sizeof *ranges->items);
    ranges->items[index + 1] = (umo_range){.start = at, .value = ranges->items[index].value};
    ranges->count++;
    return index + 1;
}

static void ranges_erase(umo_ranges *ranges, size_t first, size_t last)
{
    memmove(&ranges->items[first], &ranges->items[last],
            (ranges->count - last) * sizeof *ranges->items);
    ranges->count -= last - first;
}

void umo_ranges_set(umo_ranges *ranges, size_t offset, size_t size, uint32_t value)
{
    assert(size > 0 && offset <= ranges->size && size <= ranges->size - offset);
    size_t first = ranges_cut(ranges, offset);
    size_t last = ranges_cut(ranges, offset + size);
    ranges->items[first].value = value;
    ranges_erase(ranges, first + 1, last);
    if (first + 1 < ranges->count && ranges->items[first + 1].value == value) {
        ranges_erase(ranges, first + 1, first + 2);
    }
    if (first > 0 && ranges->items[first - 1].value == value) {
        ranges_erase(ranges, first, first + 1);
    }
}
