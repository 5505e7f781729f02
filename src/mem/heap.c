/*
 * Extents: cut, joined, found by size and by address. See heap.h.
 *
 * Free extents are kept in bins by size, as in TLSF, but the best of a bin is looked for, because
 * what a worse fit leaves over has to be paid for in pages. Source: Masmano, Ripoll, Crespo, Real,
 * "TLSF: a new dynamic memory allocator for real-time systems", ECRTS 2004.
 */
#include "mem/heap.h"

#include "mem/nodes.h"
#include "os/os.h"

#include <assert.h>
#include <string.h>

/* How many extents of one bin are looked at for the best: where they may be of the very size, and
 * where all are longer. */
#define LOOKS_EXACT 8u
#define LOOKS_MORE 8u

/* From here on the lowest of those up to so many times as long is taken, not the shortest: that
 * leaves fewer holes. So many are looked at; on recorded traces one or two. */
#define LOW_BYTES ((size_t)64 << 10)
#define LOW_REACH 16u
#define LOOKS_LOW 32u

/* What is left over and too short for an extent of its own goes along, if it is at most this share
 * of the whole. */
#define SLACK_SHARE 32u

#define RANGE_MIN_BYTES ((size_t)1 << 20)

/* The least that is made usable at a time. */
#define STEP_BYTES ((size_t)16 << 20)

/* Most that a table is made longer at a time. */
#define AHEAD_BYTES ((size_t)64 << 10)
#define UNITS_AHEAD_BYTES ((size_t)16 << 10)

/* ---- bits ---- */

static unsigned top_bit(uint64_t word)
{
    return 63u - (unsigned)__builtin_clzll(word);
}

static void starts_set(umo_heap *heap, uint32_t unit)
{
    size_t at = unit;
    for (unsigned level = 0; level < UMO_HEAP_LEVELS; level++) {
        uint64_t *word = &heap->starts[level][at / 64];
        bool had = *word != 0;
        *word |= (uint64_t)1 << (at % 64);
        if (had) {
            return;
        }
        at /= 64;
    }
}

static void starts_clear(umo_heap *heap, uint32_t unit)
{
    size_t at = unit;
    for (unsigned level = 0; level < UMO_HEAP_LEVELS; level++) {
        uint64_t *word = &heap->starts[level][at / 64];
        *word &= ~((uint64_t)1 << (at % 64));
        if (*word != 0) {
            return;
        }
        at /= 64;
    }
}

/* The last unit up to `unit` in which an extent starts; UINT32_MAX for none. */
static uint32_t starts_last(const umo_heap *heap, uint32_t unit)
{
    size_t at = unit;
    for (unsigned level = 0; level < UMO_HEAP_LEVELS; level++) {
        uint64_t below = ~(uint64_t)0 >> (63 - at % 64); /* bits 0 to at, itself included */
        uint64_t word = heap->starts[level][at / 64] & below;
        if (word != 0) {
            at = at / 64 * 64 + top_bit(word);
            while (level > 0) {
                level--;
                at = at * 64 + top_bit(heap->starts[level][at]);
            }
            return (uint32_t)at;
        }
        if (at / 64 == 0) {
            break;
        }
        at = at / 64 - 1;
    }
    return UINT32_MAX;
}

/* ---- bins ---- */

static void bin_of(size_t size_bytes, unsigned *row, unsigned *column)
{
    /* 32 equal steps in each doubling; short sizes have a step of a granule. */
    uint64_t granules = size_bytes >> UMO_HEAP_GRANULE_SHIFT;
    if (granules < UMO_HEAP_COLUMNS) {
        *row = 0;
        *column = (unsigned)granules;
        return;
    }
    unsigned top = top_bit(granules);
    *row = top - 4;
    *column = (unsigned)(granules >> (top - 5)) - UMO_HEAP_COLUMNS;
}

/* The least size of the next bin. */
static size_t bins_above(unsigned row, unsigned column)
{
    size_t granules = row == 0 ? column + 1 : (size_t)(UMO_HEAP_COLUMNS + column + 1) << (row - 1);
    return granules << UMO_HEAP_GRANULE_SHIFT;
}

void umo_heap_bin_add(umo_heap *heap, umo_heap_bins *bins, umo_extent *extent)
{
    unsigned row;
    unsigned column;
    bin_of(extent->size_bytes, &row, &column);
    assert(heap->extents != NULL);
    uint32_t index = umo_extent_index(heap, extent);
    uint32_t first = bins->first[row][column];
    extent->previous = 0;
    extent->next = first;
    if (first != 0) {
        heap->extents[first].previous = index;
    }
    bins->first[row][column] = index;
    bins->columns[row] |= 1u << column;
    bins->rows |= (uint64_t)1 << row;
}

/* size_bytes: of the extent when it came into its bin. */
static void bin_remove(umo_heap *heap, umo_heap_bins *bins, const umo_extent *extent,
                       size_t size_bytes)
{
    assert(heap->extents != NULL);
    if (extent->next != 0) {
        heap->extents[extent->next].previous = extent->previous;
    }
    if (extent->previous != 0) {
        heap->extents[extent->previous].next = extent->next;
        return;
    }
    unsigned row;
    unsigned column;
    bin_of(size_bytes, &row, &column);
    bins->first[row][column] = extent->next;
    if (extent->next == 0) {
        bins->columns[row] &= ~(1u << column);
        if (bins->columns[row] == 0) {
            bins->rows &= ~((uint64_t)1 << row);
        }
    }
}

void umo_heap_bin_remove(umo_heap *heap, umo_heap_bins *bins, umo_extent *extent)
{
    bin_remove(heap, bins, extent, extent->size_bytes);
}

static bool bins_same(size_t a_bytes, size_t b_bytes)
{
    unsigned row[2];
    unsigned column[2];
    bin_of(a_bytes, &row[0], &column[0]);
    bin_of(b_bytes, &row[1], &column[1]);
    return row[0] == row[1] && column[0] == column[1];
}

/* Puts what is left of an extent in its place, in the same bin. */
static void bin_replace(umo_heap *heap, umo_heap_bins *bins, const umo_extent *extent,
                        umo_extent *rest)
{
    const uint32_t index = umo_extent_index(heap, rest);
    rest->next = extent->next;
    rest->previous = extent->previous;
    if (rest->next != 0) {
        heap->extents[rest->next].previous = index;
    }
    if (rest->previous != 0) {
        heap->extents[rest->previous].next = index;
    } else {
        unsigned row;
        unsigned column;
        bin_of(rest->size_bytes, &row, &column);
        bins->first[row][column] = index;
    }
}

/* May an extent be cut to size_bytes? What is left is nothing, an extent of its own, or little. */
static bool fits(const umo_heap *heap, const umo_extent *extent, size_t size_bytes)
{
    if (extent->size_bytes < size_bytes) {
        return false;
    }
    size_t rest = extent->size_bytes - size_bytes;
    return rest == 0 || rest >> heap->unit_shift != 0 || rest <= size_bytes / SLACK_SHARE;
}

static umo_extent *bin_look(const umo_heap *heap, uint32_t first, size_t size_bytes, unsigned most)
{
    umo_extent *best = NULL;
    for (uint32_t at = first; at != 0 && most > 0; most--) {
        umo_extent *extent = &heap->extents[at];
        if (fits(heap, extent, size_bytes) &&
            (best == NULL || extent->size_bytes < best->size_bytes)) {
            best = extent;
            if (extent->size_bytes == size_bytes) {
                break;
            }
        }
        at = extent->next;
    }
    return best;
}

static umo_extent *bins_largest(const umo_heap *heap, const umo_heap_bins *bins)
{
    if (bins->rows == 0) {
        return NULL;
    }
    unsigned row = top_bit(bins->rows);
    unsigned column = top_bit(bins->columns[row]);
    return &heap->extents[bins->first[row][column]];
}

/* The first bin from a size on that has any. */
static bool bin_next(const umo_heap_bins *bins, size_t size_bytes, unsigned *row, unsigned *column)
{
    bin_of(size_bytes, row, column);
    uint32_t columns = bins->columns[*row] & (~(uint32_t)0 << *column);
    if (columns == 0) {
        uint64_t rows = bins->rows >> *row >> 1;
        if (rows == 0) {
            return false;
        }
        *row += 1 + (unsigned)__builtin_ctzll(rows);
        columns = bins->columns[*row];
    }
    *column = (unsigned)__builtin_ctz(columns);
    return true;
}

static umo_extent *bins_lowest(const umo_heap *heap, const umo_heap_bins *bins, size_t size_bytes)
{
    unsigned row;
    unsigned column;
    umo_extent *lowest = NULL;
    unsigned looked = 0;
    if (!bin_next(bins, size_bytes, &row, &column)) {
        return NULL;
    }
    do {
        uint32_t at = bins->first[row][column];
        for (unsigned some = LOOKS_MORE; at != 0 && some > 0; some--) {
            umo_extent *extent = &heap->extents[at];
            if ((lowest == NULL || extent->unit < lowest->unit) && fits(heap, extent, size_bytes)) {
                lowest = extent;
            }
            at = extent->next;
            looked++;
        }
        uint32_t columns = bins->columns[row] & (~(uint32_t)1 << column);
        if (columns == 0) {
            const uint64_t rows = bins->rows >> row >> 1;
            if (rows == 0) {
                break;
            }
            row += 1 + (unsigned)__builtin_ctzll(rows);
            columns = bins->columns[row];
        }
        column = (unsigned)__builtin_ctz(columns);
    } while (lowest == NULL ||
             (looked < LOOKS_LOW && bins_above(row, column) / LOW_REACH <= size_bytes));
    return lowest;
}

umo_extent *umo_heap_bin_shortest(const umo_heap *heap, const umo_heap_bins *bins,
                                  size_t size_bytes)
{
    unsigned row;
    unsigned column;
    /* Its own size, or so little more that it goes along. */
    bin_of(size_bytes, &row, &column);
    umo_extent *found = bin_look(heap, bins->first[row][column], size_bytes, LOOKS_EXACT);
    if (found != NULL) {
        return found;
    }
    /* Between a size and that and a unit nothing fits. */
    size_t more = size_bytes + ((size_t)1 << heap->unit_shift);
    for (int bin = 0; bin < 2 && bin_next(bins, more, &row, &column); bin++) {
        found = bin_look(heap, bins->first[row][column], size_bytes, LOOKS_MORE);
        if (found != NULL) {
            return found;
        }
        /* The first bin also holds some that are shorter; all in the next ones fit. */
        more = bins_above(row, column);
    }
    return NULL;
}

umo_extent *umo_heap_bin_best(const umo_heap *heap, const umo_heap_bins *bins, size_t size_bytes)
{
    if (size_bytes == 0) {
        return bins_largest(heap, bins);
    }
    return size_bytes < LOW_BYTES ? umo_heap_bin_shortest(heap, bins, size_bytes)
                                  : bins_lowest(heap, bins, size_bytes);
}

/* ---- extents ---- */

umo_extent *umo_heap_before(const umo_heap *heap, const umo_extent *extent)
{
    return extent->before != 0 ? &heap->extents[extent->before] : NULL;
}

umo_extent *umo_heap_after(const umo_heap *heap, const umo_extent *extent)
{
    size_t end = umo_extent_offset(heap, extent) + extent->size_bytes;
    return end < heap->range_bytes ? umo_heap_unit_entry(heap, end >> heap->unit_shift) : NULL;
}

void umo_extent_mix(umo_extent *extent, uint64_t owner, uint32_t marks)
{
    if ((marks & UMO_EXTENT_FRESH) != 0) {
        return;
    }
    if ((extent->marks & UMO_EXTENT_FRESH) != 0) {
        extent->owner = owner;
        extent->marks = marks;
    } else if (extent->owner != owner) {
        extent->marks |= UMO_EXTENT_MIXED;
    } else {
        extent->marks |= marks;
    }
}

/* Brings the table's next pages at once, as many as it has, which costs a third of a fault each. */
static void extents_prepare(umo_heap *heap)
{
    size_t had_bytes = heap->extents_ready_bytes;
    size_t more_bytes = had_bytes < AHEAD_BYTES ? had_bytes : AHEAD_BYTES;
    const size_t all_bytes = ((size_t)heap->unit_count + 1) * sizeof *heap->extents;
    more_bytes = more_bytes < all_bytes - had_bytes ? more_bytes : all_bytes - had_bytes;
    (void)umo_os_pages_bring((char *)heap->extents + had_bytes, more_bytes);
    heap->extents_ready_bytes += more_bytes;
}

/* The same for the table of units, a little at a time: what is brought and not used costs more than
 * three faults save. */
static void units_prepare(umo_heap *heap, uint32_t unit)
{
    uintptr_t first = (uintptr_t)&heap->units[unit];
    first -= first & (heap->page_bytes - 1);
    uintptr_t last =
        first + (UNITS_AHEAD_BYTES > heap->page_bytes ? UNITS_AHEAD_BYTES : heap->page_bytes);
    const uintptr_t end = (uintptr_t)&heap->units[heap->unit_count];
    last = last < end ? last : end;
    (void)umo_os_pages_bring((void *)first, last - first);
    heap->units_ready = (uint32_t)((last - (uintptr_t)heap->units) / sizeof *heap->units);
}

static umo_extent *extent_make(umo_heap *heap, size_t offset, size_t size_bytes)
{
    uint32_t unit = (uint32_t)(offset >> heap->unit_shift);
    if (__builtin_expect(unit >= heap->units_ready, 0)) {
        units_prepare(heap, unit);
    }
    assert(atomic_load_explicit(&heap->units[unit], memory_order_relaxed) == 0);
    uint32_t index = heap->spare;
    if (index != 0) {
        heap->spare = heap->extents[index].next;
    } else {
        index = heap->extent_count++;
        if (heap->extent_count * sizeof *heap->extents > heap->extents_ready_bytes) {
            extents_prepare(heap);
        }
    }
    umo_extent *extent = &heap->extents[index];
    extent->unit = unit;
    atomic_store_explicit(&extent->tag, umo_extent_tag(UMO_EXTENT_OTHER, offset, heap->unit_shift),
                          memory_order_relaxed);
    extent->size_bytes = size_bytes;
    atomic_store_explicit(&heap->units[unit], index, memory_order_relaxed);
    starts_set(heap, unit);
    return extent;
}

umo_extent *umo_heap_split(umo_heap *heap, umo_extent *extent, size_t size_bytes)
{
    assert(size_bytes % UMO_HEAP_GRANULE == 0);
    umo_extent *after = umo_heap_after(heap, extent);
    umo_extent *rest = extent_make(heap, umo_extent_offset(heap, extent) + size_bytes,
                                   extent->size_bytes - size_bytes);
    rest->owner = extent->owner;
    rest->marks = extent->marks;
    rest->stamp = extent->stamp;
    rest->before = umo_extent_index(heap, extent);
    extent->size_bytes = size_bytes;
    if (after != NULL) {
        after->before = umo_extent_index(heap, rest);
    }
    return rest;
}

void umo_heap_join(umo_heap *heap, umo_extent *first, umo_extent *second)
{
    umo_extent *after = umo_heap_after(heap, second);
    first->size_bytes += second->size_bytes;
    umo_extent_mix(first, second->owner, second->marks);
    if (second->stamp > first->stamp) {
        first->stamp = second->stamp;
    }
    atomic_store_explicit(&second->tag, UMO_EXTENT_NONE, memory_order_relaxed);
    atomic_store_explicit(&heap->units[second->unit], 0, memory_order_relaxed);
    starts_clear(heap, second->unit);
    second->next = heap->spare;
    heap->spare = umo_extent_index(heap, second);
    if (after != NULL) {
        after->before = umo_extent_index(heap, first);
    }
}

umo_extent *umo_heap_take_free(umo_heap *heap, size_t size_bytes)
{
    umo_extent *extent = umo_heap_bin_best(heap, &heap->free, size_bytes);
    if (extent == NULL) {
        return NULL;
    }
    /* What is left of a far longer one is mostly of the same bin. */
    const size_t had_bytes = extent->size_bytes;
    const size_t rest_bytes = had_bytes - size_bytes;
    const bool cut = rest_bytes >> heap->unit_shift != 0;
    const bool stays = cut && bins_same(had_bytes, rest_bytes);
    if (!stays) {
        umo_heap_bin_remove(heap, &heap->free, extent);
    }
    if (cut) {
        umo_extent *rest = umo_heap_split(heap, extent, size_bytes);
        umo_extent_state_set(rest, UMO_EXTENT_FREE);
        if (stays) {
            bin_replace(heap, &heap->free, extent, rest);
        } else {
            umo_heap_bin_add(heap, &heap->free, rest);
        }
    }
    umo_extent_state_set(extent, UMO_EXTENT_OTHER);
    heap->free_bytes -= extent->size_bytes;
    return extent;
}

uint32_t umo_heap_take_behind(umo_heap *heap, const umo_extent *before, size_t size_bytes,
                              uint32_t most)
{
    umo_extent *rest = umo_heap_after(heap, before);
    const size_t unit = (size_t)1 << heap->unit_shift;
    if (rest == NULL || umo_extent_state_get(rest) != UMO_EXTENT_FREE ||
        rest->size_bytes < size_bytes + unit) {
        return 0;
    }
    const size_t had_bytes = rest->size_bytes;
    const size_t fit = (had_bytes - unit) / size_bytes;
    const uint32_t count = fit < most ? (uint32_t)fit : most;
    umo_heap_bin_remove(heap, &heap->free, rest);
    for (uint32_t i = 0; i < count; i++) {
        umo_extent *taken = rest;
        rest = umo_heap_split(heap, taken, size_bytes);
        umo_extent_state_set(taken, UMO_EXTENT_OTHER);
    }
    umo_extent_state_set(rest, UMO_EXTENT_FREE);
    umo_heap_bin_add(heap, &heap->free, rest);
    heap->free_bytes -= count * size_bytes;
    return count;
}

void umo_heap_give(umo_heap *heap, umo_extent *extent, uint64_t stamp)
{
    heap->free_bytes += extent->size_bytes;
    extent->stamp = stamp;
    size_t had_bytes = 0; /* of the one before, which is in a bin */
    umo_extent *before = umo_heap_before(heap, extent);
    if (before != NULL && umo_extent_state_get(before) == UMO_EXTENT_FREE) {
        had_bytes = before->size_bytes;
        umo_heap_join(heap, before, extent);
        extent = before;
    }
    umo_extent *after = umo_heap_after(heap, extent);
    if (after != NULL && umo_extent_state_get(after) == UMO_EXTENT_FREE) {
        umo_heap_bin_remove(heap, &heap->free, after);
        umo_heap_join(heap, extent, after);
    }
    if (had_bytes != 0 && bins_same(had_bytes, extent->size_bytes)) {
        return;
    }
    if (had_bytes != 0) {
        bin_remove(heap, &heap->free, extent, had_bytes);
    }
    umo_extent_state_set(extent, UMO_EXTENT_FREE);
    umo_heap_bin_add(heap, &heap->free, extent);
}

umo_extent *umo_heap_find(const umo_heap *heap, const void *address)
{
    size_t offset = (size_t)((uintptr_t)address - (uintptr_t)heap->base);
    if (offset >= heap->mapped_bytes) {
        return NULL;
    }
    uint32_t unit = (uint32_t)(offset >> heap->unit_shift);
    /* An extent that starts in this very unit may start behind the address. */
    const umo_extent *here = umo_heap_unit_entry(heap, unit);
    if (umo_extent_state_get(here) != UMO_EXTENT_NONE && umo_extent_offset(heap, here) > offset) {
        unit--;
    }
    unit = starts_last(heap, unit);
    return unit != UINT32_MAX ? umo_heap_unit_entry(heap, unit) : NULL;
}

size_t umo_heap_longest(const umo_heap *heap)
{
    const umo_extent *longest = bins_largest(heap, &heap->free);
    return longest != NULL ? longest->size_bytes : 0;
}

static size_t pages_up(const umo_heap *heap, size_t size_bytes)
{
    return (size_bytes + heap->page_bytes - 1) & ~(heap->page_bytes - 1);
}

bool umo_heap_map(umo_heap *heap, size_t end_bytes)
{
    if (end_bytes <= heap->mapped_bytes) {
        return true;
    }
    /* Half as much again each time, but the exact need where the system has no more. */
    size_t mapped = heap->mapped_bytes;
    size_t need = pages_up(heap, end_bytes - mapped);
    size_t step = pages_up(heap, mapped / 2 > STEP_BYTES ? mapped / 2 : STEP_BYTES);
    size_t room = heap->range_bytes - mapped;
    step = step < room ? step : room;
    if (step <= need || !umo_os_pages_commit(heap->base + mapped, step)) {
        step = need;
        if (!umo_os_pages_commit(heap->base + mapped, step)) {
            return false;
        }
    }
    heap->mapped_bytes = mapped + step;
    return true;
}

/* ---- the range and the tables ---- */

/* Words of a level of the bits of starts; level 0 has a bit a unit. */
static size_t starts_words(const umo_heap *heap, unsigned level)
{
    size_t words = heap->unit_count;
    for (unsigned i = 0; i <= level; i++) {
        words = (words + 63) / 64;
    }
    return words;
}

/* The tables lie one behind the other in one mapping, which has pages as far as it was used. */
static bool tables_alloc(umo_heap *heap)
{
    size_t seams_words = heap->range_bytes / heap->page_bytes / 64 + 1;
    size_t huge_words = 0;
    if (heap->huge_bytes != 0) {
        huge_words = heap->range_bytes / heap->huge_bytes / 64 + 2; /* the ends are in two, too */
    }
    size_t words = seams_words + huge_words;
    for (unsigned level = 0; level < UMO_HEAP_LEVELS; level++) {
        words += starts_words(heap, level);
    }
    /* As many entries as units, and the one that is nobody's. */
    size_t entries = (size_t)heap->unit_count + 1;
    heap->tables_bytes = entries * (sizeof *heap->extents + sizeof *heap->units) +
                         words * sizeof(uint64_t) + sizeof(uint64_t);
    heap->extents = umo_os_pages_alloc(heap->tables_bytes);
    if (heap->extents == NULL) {
        return false;
    }
    heap->extent_count = 1;
    heap->extents_ready_bytes = heap->page_bytes;
    /* Short blocks' table is a sixteenth of their memory: it comes as it is used. */
    const bool is_long = (size_t)1 << heap->unit_shift >= heap->page_bytes;
    heap->units_ready = is_long ? (uint32_t)(heap->page_bytes / sizeof *heap->units) : UINT32_MAX;
    uint64_t *at = (uint64_t *)(void *)(heap->extents + entries);
    for (unsigned level = 0; level < UMO_HEAP_LEVELS; level++) {
        heap->starts[level] = at;
        at += starts_words(heap, level);
    }
    heap->seams = at;
    heap->huge = at + seams_words;
    heap->units = (_Atomic uint32_t *)(void *)(heap->huge + huge_words);
    return true;
}

void umo_heap_finish(umo_heap *heap)
{
    umo_os_pages_free(heap->base, heap->range_bytes);
    umo_os_pages_free(heap->extents, heap->tables_bytes);
    heap->base = NULL;
    heap->extents = NULL;
}

bool umo_heap_init(umo_heap *heap, size_t range_bytes, size_t unit_bytes)
{
    *heap = (umo_heap){.page_bytes = umo_os_page_bytes(), .moves = true, .node = UMO_NUMA_ANY};
    heap->huge_bytes = umo_os_huge_page_bytes();
    heap->unit_shift = top_bit(unit_bytes);
    uint64_t most = (uint64_t)(UINT32_MAX / 2) << heap->unit_shift;
    size_t whole = range_bytes < most ? range_bytes : (size_t)most;
    for (;; whole /= 2) {
        heap->range_bytes = whole / heap->page_bytes * heap->page_bytes;
        heap->unit_count = (uint32_t)(heap->range_bytes >> heap->unit_shift);
        heap->base = umo_os_pages_reserve(heap->range_bytes);
        if (heap->base != NULL && tables_alloc(heap)) {
            break;
        }
        umo_heap_finish(heap);
        if (whole / 2 < RANGE_MIN_BYTES) {
            return false;
        }
    }
    /* Where the system makes all pages huge, one would reach beyond what is held. */
    umo_os_pages_huge(heap->base, heap->range_bytes, false);
    /* The first page is never used: unit 0 is no extent, and what runs off the front is a fault. */
    size_t first = pages_up(heap, unit_bytes);
    heap->mapped_bytes = first;
    umo_extent *all = extent_make(heap, first, heap->range_bytes - first);
    umo_extent_state_set(all, UMO_EXTENT_HOLLOW);
    all->marks = UMO_EXTENT_FRESH;
    umo_heap_bin_add(heap, &heap->hollow, all);
    return true;
}

umo_status umo_heap_bind(umo_heap *heap, int32_t node, umo_error *error)
{
    umo_status status = umo_numa_place(heap->base, heap->range_bytes, node, error);
    if (status == UMO_OK && umo_numa_memory_nodes() > 1) {
        heap->node = node; /* with one there is nothing to say again */
    }
    return status;
}
