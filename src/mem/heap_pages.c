/*
 * Pages move to where addresses are free, instead of more being taken: a hole that is too short for
 * a block still has pages, and the system can put them behind other addresses without a copy, for
 * about the price of two page faults a run. So what a heap holds follows what is used, however its
 * holes lie. Source: GMLake (ASPLOS 2024) does it to a GPU's memory with the driver's calls.
 */
#include "mem/heap_pages.h"

#include "mem/nodes.h"
#include "os/os.h"

#include <assert.h>
#include <string.h>

/* A system allows a process some 65,000 mappings; each move makes up to two more. */
#define SEAMS_MAX 6000u

/* Shorter runs of pages are given back and asked for anew: that costs less than a move does, and
 * makes no seam. */
#define MOVE_MIN_BYTES ((size_t)32 << 10)

/* Of a run, what is looked at: a look at all would cost more than a move does. */
#define SAMPLE_BYTES ((size_t)64 << 10)

/* How many extents are looked at: free ones for pages to spare, hollow ones for a place. */
#define SOURCE_LOOKS 8u
#define PLACE_LOOKS 32u

static size_t page_up(const umo_heap *heap, size_t offset)
{
    return (offset + heap->page_bytes - 1) & ~(heap->page_bytes - 1);
}

static size_t page_down(const umo_heap *heap, size_t offset)
{
    return offset & ~(heap->page_bytes - 1);
}

static bool is_state(const umo_extent *extent, umo_extent_state state)
{
    return extent != NULL && umo_extent_state_get(extent) == state;
}

/* ---- seams ---- */

static bool seam_at(const umo_heap *heap, size_t offset)
{
    size_t page = offset / heap->page_bytes;
    return (heap->seams[page / 64] >> (page % 64) & 1) != 0;
}

static void seam_set(umo_heap *heap, size_t offset)
{
    if (!seam_at(heap, offset)) {
        size_t page = offset / heap->page_bytes;
        heap->seams[page / 64] |= (uint64_t)1 << (page % 64);
        heap->seam_count++;
    }
}

/* The last seam inside of (from, to), or from. */
static size_t seam_last(const umo_heap *heap, size_t from, size_t to)
{
    size_t first = from / heap->page_bytes;
    for (size_t page = to / heap->page_bytes; page-- > first + 1;) {
        uint64_t word = heap->seams[page / 64] << (63 - page % 64);
        if (word == 0) {
            page = page / 64 * 64; /* the loop steps below it */
        } else {
            size_t found = page - (size_t)__builtin_clzll(word);
            return found > first ? found * heap->page_bytes : from;
        }
    }
    return from;
}

/* There is one mapping from `from` to `to`. */
static void seams_clear(umo_heap *heap, size_t from, size_t to)
{
    for (size_t at = seam_last(heap, from, to); at > from; at = seam_last(heap, from, at)) {
        size_t page = at / heap->page_bytes;
        heap->seams[page / 64] &= ~((uint64_t)1 << (page % 64));
        heap->seam_count--;
    }
}

/* ---- huge pages ---- */

/*
 * A touch brings a huge page only where all of it is held, so that what is present never passes
 * what is reserved: addresses are marked when a place takes all of a huge page at once, and not any
 * more before a part of it goes. A huge page that is there by then stays until its last page goes,
 * or the system splits it when memory is short.
 */

static size_t huge_up(const umo_heap *heap, size_t offset)
{
    uintptr_t at = (uintptr_t)heap->base + offset;
    return offset + (-at & (heap->huge_bytes - 1));
}

static size_t huge_down(const umo_heap *heap, size_t offset)
{
    size_t over = ((uintptr_t)heap->base + offset) & (heap->huge_bytes - 1);
    return offset > over ? offset - over : 0;
}

/* The number of the huge page that an address lies in; 0 is the one of the range's start. */
static size_t huge_number(const umo_heap *heap, size_t offset)
{
    uintptr_t base = (uintptr_t)heap->base;
    return (base + offset) / heap->huge_bytes - base / heap->huge_bytes;
}

static bool huge_at(const umo_heap *heap, size_t number)
{
    return (heap->huge[number / 64] >> (number % 64) & 1) != 0;
}

/* Notes a border between mappings, unless both sides are alike. */
static void huge_seam(umo_heap *heap, size_t offset)
{
    size_t number = huge_number(heap, offset);
    if (number > 0 && huge_at(heap, number) != huge_at(heap, number - 1)) {
        seam_set(heap, offset);
    }
}

/* Marks whole huge pages, [from, to), or takes their marks away, and tells the system. */
static void huge_mark(umo_heap *heap, size_t from, size_t to, bool marked)
{
    const size_t last = huge_number(heap, to - 1);
    for (size_t number = huge_number(heap, from); number <= last; number++) {
        uint64_t bit = (uint64_t)1 << (number % 64);
        heap->huge[number / 64] =
            marked ? heap->huge[number / 64] | bit : heap->huge[number / 64] & ~bit;
    }
    umo_os_pages_huge(heap->base + from, to - from, marked);
    huge_seam(heap, from);
    huge_seam(heap, to);
}

/* All of [from, to) is held from now on, and has no page yet. */
static void huge_begin(umo_heap *heap, size_t from, size_t to)
{
    if (heap->huge_bytes != 0 && huge_up(heap, from) < huge_down(heap, to)) {
        huge_mark(heap, huge_up(heap, from), huge_down(heap, to), true);
    }
}

/* Pages of [from, to) are about to go. */
static void huge_end(umo_heap *heap, size_t from, size_t to)
{
    if (heap->huge_bytes == 0 || from >= to) {
        return;
    }
    bool any = false;
    const size_t last = huge_number(heap, to - 1);
    for (size_t number = huge_number(heap, from); number <= last && !any; number++) {
        any = huge_at(heap, number);
    }
    if (any) {
        size_t end = huge_up(heap, to);
        end = end < heap->mapped_bytes ? end : heap->mapped_bytes;
        huge_mark(heap, huge_down(heap, from), end, false);
    }
}

/* Makes ordinary again what moves have cut, where no page is used. */
static void seams_renew(umo_heap *heap, size_t from, size_t to)
{
    if (heap->seam_count == 0 || !umo_os_pages_renew(heap->base + from, to - from)) {
        umo_os_pages_empty(heap->base + from, to - from);
        return;
    }
    umo_os_pages_huge(heap->base + from, to - from, false); /* as its neighbours are */
    if (heap->node != UMO_NUMA_ANY) {
        /* A mapping made anew knows nothing of nodes. If the system cannot say so now, the pages
         * lie where they are touched, and the borders stay. */
        umo_status_ignore(umo_numa_place(heap->base + from, to - from, heap->node, NULL));
    }
    seams_clear(heap, from, to);
    /* Beside what was moved, both ends are borders; elsewhere they may be none. */
    seam_set(heap, from);
    seam_set(heap, to);
}

/* ---- hollow extents ---- */

/* Pages that go when [from, end) of a free extent joins its hollow neighbours: [*first, *last). */
static void pages_leaving(const umo_heap *heap, const umo_extent *extent, size_t from,
                          size_t *first, size_t *last)
{
    size_t start = umo_extent_offset(heap, extent);
    size_t end = start + extent->size_bytes;
    const umo_extent *before = umo_heap_before(heap, extent);
    const umo_extent *after = umo_heap_after(heap, extent);
    size_t whole_from = from;
    size_t whole_to = end;
    if (from == start && is_state(before, UMO_EXTENT_HOLLOW)) {
        whole_from = umo_extent_offset(heap, before);
    }
    if (is_state(after, UMO_EXTENT_HOLLOW)) {
        whole_to = end + after->size_bytes;
    }
    size_t low = page_up(heap, whole_from);
    size_t high = page_down(heap, whole_to);
    size_t own_low = page_down(heap, from);
    size_t own_high = page_up(heap, end);
    *first = low > own_low ? low : own_low;
    *last = high < own_high ? high : own_high;
    if (*last < *first) {
        *last = *first;
    }
}

/* Makes a free extent, in no list, hollow: its pages have gone. */
static void make_hollow(umo_heap *heap, umo_extent *extent)
{
    umo_extent *before = umo_heap_before(heap, extent);
    if (is_state(before, UMO_EXTENT_HOLLOW)) {
        umo_heap_bin_remove(heap, &heap->hollow, before);
        umo_heap_join(heap, before, extent);
        extent = before;
    }
    umo_extent *after = umo_heap_after(heap, extent);
    if (is_state(after, UMO_EXTENT_HOLLOW)) {
        umo_heap_bin_remove(heap, &heap->hollow, after);
        umo_heap_join(heap, extent, after);
    }
    umo_extent_state_set(extent, UMO_EXTENT_HOLLOW);
    size_t start = umo_extent_offset(heap, extent);
    size_t end = start + extent->size_bytes;
    if (start == page_up(heap, start) && end == page_down(heap, end)) {
        extent->marks = UMO_EXTENT_FRESH; /* no page is shared */
    }
    umo_heap_bin_add(heap, &heap->hollow, extent);
}

/* Bytes of pages that a free extent can spare. */
static size_t source_bytes(const umo_heap *heap, const umo_extent *extent)
{
    size_t first;
    size_t last;
    pages_leaving(heap, extent, umo_extent_offset(heap, extent), &first, &last);
    return last - first;
}

/* The free extent that pages are taken from first: one that has all, so that longer ones stay
 * whole; else a long one, since a call moves any number of pages. */
static umo_extent *source_find(const umo_heap *heap, size_t want_bytes)
{
    umo_extent *extent = umo_heap_bin_shortest(heap, &heap->free, want_bytes);
    if (extent != NULL && source_bytes(heap, extent) >= want_bytes) {
        return extent;
    }
    extent = umo_heap_bin_best(heap, &heap->free, 0);
    for (unsigned looks = 0; extent != NULL && looks < SOURCE_LOOKS; looks++) {
        if (source_bytes(heap, extent) > 0) {
            return extent;
        }
        extent = extent->next != 0 ? &heap->extents[extent->next] : NULL;
    }
    return NULL;
}

/* Takes [from, end of its pages) of a source, which is in no list, out of the free extents. */
static void source_shrink(umo_heap *heap, umo_extent *source, size_t from)
{
    size_t start = umo_extent_offset(heap, source);
    umo_extent *gone = source;
    if (from > start) {
        gone = umo_heap_split(heap, source, from - start);
        umo_extent_state_set(source, UMO_EXTENT_FREE);
        umo_heap_bin_add(heap, &heap->free, source);
    }
    heap->free_bytes -= gone->size_bytes;
    make_hollow(heap, gone);
}

/* Can a source be cut in two there? */
static bool source_cuts(const umo_heap *heap, const umo_extent *source, size_t at)
{
    size_t start = umo_extent_offset(heap, source);
    size_t end = start + source->size_bytes;
    return at > start && at < end && (at - start) >> heap->unit_shift != 0 &&
           (end - at) >> heap->unit_shift != 0;
}

/* Where a source is cut so that about want_bytes of pages go, or its start: then all go. */
static size_t source_cut(const umo_heap *heap, const umo_extent *source, size_t want_bytes)
{
    size_t start = umo_extent_offset(heap, source);
    size_t first;
    size_t last;
    pages_leaving(heap, source, start, &first, &last);
    if (last - first <= want_bytes) {
        return start;
    }
    size_t cut = last - page_up(heap, want_bytes);
    if (!source_cuts(heap, source, cut)) {
        cut -= heap->page_bytes; /* its last page is shared with a hollow neighbour */
    }
    return source_cuts(heap, source, cut) ? cut : start;
}

/* Gives whole pages back. */
static void pages_drop(umo_heap *heap, size_t first, size_t last)
{
    if (last - first < MOVE_MIN_BYTES) {
        umo_os_pages_empty(heap->base + first, last - first);
    } else {
        seams_renew(heap, first, last);
    }
    heap->reserved_bytes -= last - first;
}

/* Notes whose bytes the pages of [from, end) of a source bring: its first and last one may be
 * shared with hollow neighbours, who remember theirs. */
static void pages_mix(const umo_heap *heap, umo_extent *target, const umo_extent *source,
                      size_t from)
{
    const umo_extent *before = umo_heap_before(heap, source);
    const umo_extent *after = umo_heap_after(heap, source);
    umo_extent_mix(target, source->owner, source->marks);
    if (from == umo_extent_offset(heap, source) && is_state(before, UMO_EXTENT_HOLLOW)) {
        umo_extent_mix(target, before->owner, before->marks);
    }
    if (is_state(after, UMO_EXTENT_HOLLOW)) {
        umo_extent_mix(target, after->owner, after->marks);
    }
}

/* Each mapping in a run costs what one move does, and only pages that are there are worth it: many
 * short ones go, which heals them, and so do those that nobody wrote to. */
static bool pages_worth_moving(const umo_heap *heap, size_t from, size_t bytes)
{
    size_t least_bytes = MOVE_MIN_BYTES;
    for (size_t seam = seam_last(heap, from, from + bytes); seam > from && least_bytes <= bytes;
         seam = seam_last(heap, from, seam)) {
        least_bytes += MOVE_MIN_BYTES;
    }
    if (least_bytes > bytes) {
        return false;
    }
    /* All are as those in the middle. */
    const size_t some_bytes = bytes < SAMPLE_BYTES ? bytes : SAMPLE_BYTES;
    const size_t middle = page_down(heap, from + (bytes - some_bytes) / 2);
    const size_t there_bytes = umo_os_pages_present(heap->base + middle, some_bytes);
    return there_bytes * (bytes / some_bytes) >= least_bytes;
}

/* Moves the pages of [from, from + bytes) behind `to`. */
static bool pages_move(umo_heap *heap, size_t from, size_t bytes, size_t to)
{
    if (!umo_os_pages_move(heap->base + from, bytes, heap->base + to)) {
        return false;
    }
    seams_clear(heap, to, to + bytes);
    seam_set(heap, to);
    seam_set(heap, to + bytes);
    size_t seam = seam_last(heap, from, from + bytes);
    if (seam > from) {
        /* Newer systems move several mappings, and leave as many: there would be ever more. */
        for (; seam > from; seam = seam_last(heap, from, seam)) {
            seam_set(heap, to + (seam - from));
        }
        seams_renew(heap, from, from + bytes);
    }
    heap->moved_bytes += bytes;
    return true;
}

/* Takes pages of a source, from its end and about max_bytes, out of the free extents: they go
 * behind [to, to + max_bytes) of a target if that pays, else (and without one, NULL) back to the
 * system. Returns the bytes. */
static size_t source_use(umo_heap *heap, umo_extent *source, size_t to, size_t max_bytes,
                         umo_extent *target)
{
    size_t from = source_cut(heap, source, max_bytes);
    size_t first;
    size_t last;
    pages_leaving(heap, source, from, &first, &last);
    size_t run = seam_last(heap, first, last);
    /* Where seams are many, short runs go together, which heals them. */
    bool crowded = heap->seam_count > SEAMS_MAX / 2 && last - run < MOVE_MIN_BYTES;
    bool movable = target != NULL && heap->moves && heap->seam_count <= SEAMS_MAX && !crowded;
    size_t bytes = last - first < max_bytes ? last - first : max_bytes;
    huge_end(heap, first, last);
    bool moved =
        movable && pages_worth_moving(heap, first, bytes) && pages_move(heap, first, bytes, to);
    if (!moved && run > first && !crowded && source_cuts(heap, source, run)) {
        from = run; /* older systems move pages of one mapping */
        pages_leaving(heap, source, from, &first, &last);
        bytes = last - first < max_bytes ? last - first : max_bytes;
        moved =
            movable && pages_worth_moving(heap, first, bytes) && pages_move(heap, first, bytes, to);
    }
    if (moved) {
        pages_mix(heap, target, source, from);
        first += bytes;
    }
    if (first < last) {
        pages_drop(heap, first, last);
    }
    umo_heap_bin_remove(heap, &heap->free, source);
    source_shrink(heap, source, from);
    return bytes;
}

/* Gives pages of a source back. Returns the bytes. */
static size_t source_empty(umo_heap *heap, umo_extent *source, size_t max_bytes)
{
    size_t from = source_cut(heap, source, max_bytes);
    size_t first;
    size_t last;
    pages_leaving(heap, source, from, &first, &last);
    huge_end(heap, first, last);
    pages_drop(heap, first, last);
    umo_heap_bin_remove(heap, &heap->free, source);
    source_shrink(heap, source, from);
    return last - first;
}

/* ---- places ---- */

/* The place that a hollow extent and the free ones beside it make; false for none. What is left of
 * the last of them, and too short for an extent, goes along. */
static bool place_at(const umo_heap *heap, umo_extent *hollow, size_t size_bytes,
                     umo_heap_place *out)
{
    const size_t start = umo_extent_offset(heap, hollow);
    const size_t end = start + hollow->size_bytes;
    umo_extent *before = umo_heap_before(heap, hollow);
    umo_extent *after = umo_heap_after(heap, hollow);
    size_t need = size_bytes; /* of the hollow extent, and then of the one behind it */
    *out = (umo_heap_place){.hollow = hollow, .size_bytes = size_bytes};
    if (is_state(before, UMO_EXTENT_FREE) && before->size_bytes < size_bytes) {
        size_t less = size_bytes - (size_t)before->size_bytes;
        /* Beside the others it may be in the way: what is left then has no page of its own. */
        if (less >= hollow->size_bytes || (hollow->size_bytes - less) >> heap->unit_shift != 0) {
            out->before = before;
            need = less;
        }
    }
    size_t used_end = end;
    if (need > hollow->size_bytes) {
        size_t more = need - (size_t)hollow->size_bytes;
        if (!is_state(after, UMO_EXTENT_FREE) || after->size_bytes < more ||
            (after->size_bytes != more && (after->size_bytes - more) >> heap->unit_shift == 0)) {
            return false;
        }
        out->after = after;
    } else if ((hollow->size_bytes - need) >> heap->unit_shift != 0) {
        used_end = start + need;
    }
    const size_t high = page_up(heap, used_end);
    const size_t whole = page_down(heap, end);
    out->from_bytes = page_up(heap, start);
    out->to_bytes = high < whole ? high : whole;
    if (out->to_bytes < out->from_bytes) {
        out->to_bytes = out->from_bytes;
    }
    return true;
}

bool umo_heap_place_find(umo_heap *heap, size_t size_bytes, umo_heap_place *out)
{
    umo_extent *hollow = umo_heap_bin_best(heap, &heap->hollow, size_bytes);
    bool found = hollow != NULL && place_at(heap, hollow, size_bytes, out);
    /* A short gap between free extents lacks little, and closing it joins them for good. */
    unsigned looks = PLACE_LOOKS;
    for (uint64_t rows = heap->hollow.rows; rows != 0 && looks > 0; rows &= rows - 1) {
        unsigned row = (unsigned)__builtin_ctzll(rows);
        for (uint32_t columns = heap->hollow.columns[row]; columns != 0; columns &= columns - 1) {
            uint32_t at = heap->hollow.first[row][__builtin_ctz(columns)];
            for (; at != 0 && looks > 0; looks--) {
                umo_heap_place place;
                if (place_at(heap, &heap->extents[at], size_bytes, &place) &&
                    (!found || umo_heap_place_missing(&place) < umo_heap_place_missing(out))) {
                    *out = place;
                    found = true;
                }
                at = heap->extents[at].next;
            }
        }
    }
    return found;
}

void umo_heap_place_grow(const umo_heap *heap, umo_heap_place *place)
{
    if (heap->huge_bytes == 0 || place->after != NULL) {
        return;
    }
    size_t start = umo_extent_offset(heap, place->before != NULL ? place->before : place->hollow);
    size_t end = umo_extent_offset(heap, place->hollow) + (size_t)place->hollow->size_bytes;
    size_t to = huge_up(heap, place->to_bytes);
    if (to < end && (end - to) >> heap->unit_shift != 0 && to - start > place->size_bytes) {
        place->size_bytes = to - start;
        place->to_bytes = to;
    }
}

/* Fills [from, to) with pages of free extents, as far as they reach. A page that also lies beyond
 * the target is not moved: it would bring somebody's bytes to where they are taken for zeros. */
static void place_fill(umo_heap *heap, umo_extent *target, size_t from, size_t to)
{
    const size_t whole = page_down(heap, umo_extent_offset(heap, target) + target->size_bytes);
    while (from < to) {
        bool inside = from < whole;
        size_t end = inside && whole < to ? whole : to;
        umo_extent *source = source_find(heap, end - from);
        if (source == NULL) {
            return;
        }
        size_t used = source_use(heap, source, from, end - from, inside ? target : NULL);
        if (used == 0) {
            return;
        }
        from += used;
    }
}

/* What a place leaves of its hollow extent. Without a whole page it is free: its neighbours keep
 * its bytes present, and as a hollow one between them it would hide that all of a page is free. */
static void hollow_rest(umo_heap *heap, umo_extent *rest)
{
    size_t start = umo_extent_offset(heap, rest);
    if (page_up(heap, start) < page_down(heap, start + rest->size_bytes)) {
        umo_extent_state_set(rest, UMO_EXTENT_HOLLOW);
        umo_heap_bin_add(heap, &heap->hollow, rest);
    } else {
        umo_heap_give(heap, rest, rest->stamp);
    }
}

umo_extent *umo_heap_place_take(umo_heap *heap, const umo_heap_place *place, size_t reuse_bytes)
{
    umo_extent *hollow = place->hollow;
    if (!umo_heap_map(heap, place->to_bytes)) {
        return NULL;
    }
    umo_extent *extent = hollow;
    umo_heap_bin_remove(heap, &heap->hollow, hollow);
    if (place->before != NULL) {
        extent = place->before;
        umo_heap_bin_remove(heap, &heap->free, extent);
        heap->free_bytes -= extent->size_bytes;
        umo_heap_join(heap, extent, hollow);
    }
    if (place->after != NULL) {
        umo_heap_bin_remove(heap, &heap->free, place->after);
        heap->free_bytes -= place->after->size_bytes;
        umo_heap_join(heap, extent, place->after);
    }
    umo_extent_state_set(extent, UMO_EXTENT_OTHER);
    if ((extent->size_bytes - place->size_bytes) >> heap->unit_shift != 0) {
        umo_extent *rest = umo_heap_split(heap, extent, place->size_bytes);
        if (place->after != NULL) {
            umo_heap_give(heap, rest, rest->stamp);
        } else {
            hollow_rest(heap, rest);
        }
    }
    size_t missing = umo_heap_place_missing(place);
    heap->reserved_bytes += missing;
    size_t fresh = place->from_bytes; /* from here on pages are the system's */
    if (reuse_bytes > 0) {
        uint64_t moved = heap->moved_bytes;
        reuse_bytes = page_up(heap, reuse_bytes);
        fresh += reuse_bytes < missing ? reuse_bytes : missing;
        place_fill(heap, extent, place->from_bytes, fresh);
        heap->reserved_bytes -= heap->moved_bytes - moved;
    }
    if (seam_last(heap, fresh, place->to_bytes) > fresh) {
        seams_renew(heap, fresh, place->to_bytes);
    }
    huge_begin(heap, fresh, place->to_bytes);
    heap->fresh_from_bytes = fresh;
    heap->fresh_to_bytes = place->to_bytes;
    return extent;
}

/* ---- giving back ---- */

size_t umo_heap_empty(umo_heap *heap, size_t max_bytes, uint64_t stamp)
{
    size_t gone = 0;
    for (unsigned row = UMO_HEAP_ROWS; row-- > 0 && gone < max_bytes;) {
        for (unsigned column = UMO_HEAP_COLUMNS; column-- > 0 && gone < max_bytes;) {
            uint32_t at = heap->free.first[row][column];
            while (at != 0 && gone < max_bytes) {
                umo_extent *extent = &heap->extents[at];
                at = extent->next;
                size_t first;
                size_t last;
                pages_leaving(heap, extent, umo_extent_offset(heap, extent), &first, &last);
                if (extent->stamp < stamp && last > first) {
                    gone += source_empty(heap, extent, max_bytes - gone);
                    at = heap->free.first[row][column]; /* the list has changed */
                }
            }
        }
    }
    umo_extent *all =
        umo_heap_unit_entry(heap, page_up(heap, (size_t)1 << heap->unit_shift) >> heap->unit_shift);
    if (heap->seam_count > 0 && heap->reserved_bytes == 0 && is_state(all, UMO_EXTENT_HOLLOW) &&
        umo_heap_after(heap, all) == NULL) {
        seams_renew(heap, umo_extent_offset(heap, all), heap->mapped_bytes);
        memset(heap->seams, 0,
               (heap->mapped_bytes / heap->page_bytes / 64 + 1) * sizeof *heap->seams);
        heap->seam_count = 0;
    }
    return gone;
}
