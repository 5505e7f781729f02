/*
 * The heap against a plain model: random operations, after each of which the books are walked from
 * end to end; bytes are where they were put, whatever moved; given-back pages are zeros.
 */
#include "mem/heap_pages.h"

#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    HELD = 40,
    STEPS = 4000,
    HUGE_STEPS = 600
};

#define MIB ((size_t)1 << 20)
#define HUGE_RANGE_BYTES (256 * MIB)

static size_t page_bytes(void)
{
    return umo_os_page_bytes();
}

static size_t whole_pages(size_t from, size_t to)
{
    size_t page = page_bytes();
    size_t first = (from + page - 1) / page * page;
    size_t last = to / page * page;
    return last > first ? last - first : 0;
}

static size_t bins_count(const umo_heap *heap, const umo_heap_bins *bins, umo_extent_state state)
{
    size_t count = 0;
    for (unsigned row = 0; row < UMO_HEAP_ROWS; row++) {
        assert_int_equal((bins->rows >> row & 1) != 0, bins->columns[row] != 0);
        for (unsigned column = 0; column < UMO_HEAP_COLUMNS; column++) {
            uint32_t at = bins->first[row][column];
            assert_int_equal((bins->columns[row] >> column & 1) != 0, at != 0);
            for (; at != 0; at = heap->extents[at].next) {
                assert_int_equal(umo_extent_state_get(&heap->extents[at]), state);
                count++;
            }
        }
    }
    return count;
}

/* Every byte of the range is in one extent, neighbours know each other, no two that could be joined
 * lie side by side, and the sums are what the extents say. */
static void assert_sound(const umo_heap *heap)
{
    size_t at =
        page_bytes() > (size_t)1 << heap->unit_shift ? page_bytes() : (size_t)1 << heap->unit_shift;
    size_t first = at;
    uint32_t before = 0;
    umo_extent_state last = UMO_EXTENT_NONE;
    uint64_t free_bytes = 0;
    uint64_t hollow_pages = 0;
    size_t free_count = 0;
    size_t hollow_count = 0;
    while (at < heap->range_bytes) {
        const umo_extent *extent = umo_heap_unit_entry(heap, at >> heap->unit_shift);
        umo_extent_state state = umo_extent_state_get(extent);
        assert_int_not_equal(state, UMO_EXTENT_NONE);
        assert_int_equal(umo_extent_offset(heap, extent), at);
        assert_int_equal(extent->before, before);
        assert_false(state == last && (state == UMO_EXTENT_FREE || state == UMO_EXTENT_HOLLOW));
        assert_true(extent->size_bytes >> heap->unit_shift != 0);
        assert_int_equal((at | extent->size_bytes) % UMO_HEAP_GRANULE, 0);
        if (state == UMO_EXTENT_FREE) {
            free_bytes += extent->size_bytes;
            free_count++;
        } else if (state == UMO_EXTENT_HOLLOW) {
            assert_true(whole_pages(at, at + extent->size_bytes) > 0);
            hollow_pages += whole_pages(at, at + extent->size_bytes);
            hollow_count++;
        }
        before = umo_extent_index(heap, extent);
        last = state;
        at += extent->size_bytes;
    }
    assert_int_equal(at, heap->range_bytes);
    assert_int_equal(heap->free_bytes, free_bytes);
    assert_int_equal(heap->reserved_bytes, heap->range_bytes - first - hollow_pages);
    assert_int_equal(bins_count(heap, &heap->free, UMO_EXTENT_FREE), free_count);
    assert_int_equal(bins_count(heap, &heap->hollow, UMO_EXTENT_HOLLOW), hollow_count);
}

/* What is marked for huge pages is held from end to end. */
static size_t assert_marks_held(const umo_heap *heap)
{
    size_t marked = 0;
    if (heap->huge_bytes == 0) {
        return 0;
    }
    const uintptr_t base = (uintptr_t)heap->base;
    for (size_t number = 0; number < heap->range_bytes / heap->huge_bytes; number++) {
        if ((heap->huge[number / 64] >> (number % 64) & 1) == 0) {
            continue;
        }
        marked++;
        const size_t from = (base / heap->huge_bytes + number) * heap->huge_bytes - base;
        for (size_t at = from; at < from + heap->huge_bytes;) {
            const umo_extent *extent = umo_heap_find(heap, heap->base + at);
            assert_non_null(extent);
            size_t end = umo_extent_offset(heap, extent) + extent->size_bytes;
            assert_true(umo_extent_state_get(extent) != UMO_EXTENT_HOLLOW ||
                        whole_pages(at, end) == 0);
            at = end;
        }
    }
    return marked;
}

/* Nor are more pages present than are held. */
static void assert_no_more_present(const umo_heap *heap)
{
#ifdef __linux__
    static unsigned char present[HUGE_RANGE_BYTES / 4096];
    size_t count = 0;
    const size_t pages = heap->mapped_bytes / (size_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(mincore(heap->base, heap->mapped_bytes, present), 0);
    for (size_t i = 0; i < pages; i++) {
        count += present[i] & 1;
    }
    assert_true(count * (size_t)sysconf(_SC_PAGESIZE) <= heap->reserved_bytes);
#else
    (void)heap;
#endif
}

typedef struct held {
    umo_extent *extent;
    size_t size_bytes;
    unsigned char value;
} held;

static void assert_filled(const umo_heap *heap, const held *h)
{
    const unsigned char *data = umo_extent_data(heap, h->extent);
    for (size_t i = 0; i < h->size_bytes; i += i + 512 < h->size_bytes ? 512 : 1) {
        assert_int_equal(data[i], h->value);
    }
}

static size_t size_next(unsigned *seed, size_t unit_bytes)
{
    size_t r = (size_t)rand_r(seed);
    size_t size = unit_bytes << (r % 7);
    return size + (size_t)rand_r(seed) % 32 * UMO_HEAP_GRANULE;
}

/* Takes an extent as a pool does: what is free, else a place, with some of its pages moved. */
static umo_extent *extent_take(umo_heap *heap, size_t size_bytes, bool reuse)
{
    umo_extent *extent = umo_heap_take_free(heap, size_bytes);
    umo_heap_place place;
    if (extent == NULL && umo_heap_place_find(heap, size_bytes, &place)) {
        extent = umo_heap_place_take(heap, &place, reuse ? umo_heap_place_missing(&place) : 0);
    }
    return extent;
}

static void play(umo_heap *heap, size_t unit_bytes, unsigned seed)
{
    held blocks[HELD] = {0};
    for (unsigned step = 0; step < STEPS; step++) {
        held *h = &blocks[(size_t)rand_r(&seed) % HELD];
        if (h->extent != NULL) {
            assert_filled(heap, h);
            size_t inside = (size_t)rand_r(&seed) % h->size_bytes;
            char *data = umo_extent_data(heap, h->extent);
            assert_ptr_equal(umo_heap_find(heap, data + inside), h->extent);
            umo_heap_give(heap, h->extent, step);
            h->extent = NULL;
        } else {
            h->size_bytes = size_next(&seed, unit_bytes);
            h->extent = extent_take(heap, h->size_bytes, step % 3 != 0);
            assert_non_null(h->extent);
            assert_true(h->extent->size_bytes >= h->size_bytes);
            assert_int_equal((uintptr_t)umo_extent_data(heap, h->extent) % UMO_HEAP_GRANULE, 0);
            h->value = (unsigned char)(1 + step % 250);
            memset(umo_extent_data(heap, h->extent), h->value, h->size_bytes);
            h->extent->owner = h->value;
            h->extent->marks = 0;
        }
        if (step % 97 == 0) {
            uint64_t reserved = heap->reserved_bytes;
            size_t most = 2 * page_bytes() + step % page_bytes(); /* of no whole granules */
            size_t gone = umo_heap_empty(heap, most, step % 2 != 0 ? UINT64_MAX : step / 2);
            assert_int_equal(heap->reserved_bytes, reserved - gone);
        }
        if (step % 16 == 0) {
            assert_sound(heap);
        }
    }
    for (size_t i = 0; i < HELD; i++) {
        if (blocks[i].extent != NULL) {
            assert_filled(heap, &blocks[i]);
            umo_heap_give(heap, blocks[i].extent, 0);
        }
    }
    assert_sound(heap);
}

static void random_operations_keep_the_books_and_the_bytes(void **state)
{
    (void)state;
    const size_t units[] = {4096, 64};
    uint64_t moved_bytes = 0;
    for (unsigned seed = 1; seed <= 6; seed++) {
        umo_heap heap;
        size_t unit = units[seed % 2];
        assert_true(umo_heap_init(&heap, (size_t)64 << 20, unit));
        heap.moves = seed % 3 != 0;
        heap.huge_bytes = seed % 2 != 0 ? heap.huge_bytes : 0;
        play(&heap, unit, seed);
        assert_true(heap.moves || heap.moved_bytes == 0);
        moved_bytes += heap.moved_bytes;
        while (umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX) > 0) {
        }
        assert_int_equal(heap.reserved_bytes, 0);
        assert_int_equal(heap.seam_count, 0);
        umo_heap_finish(&heap);
    }
#ifdef __linux__
    assert_true(moved_bytes > 0);
#else
    (void)moved_bytes;
#endif
}

/* As a pool does: what it takes ends where a huge page does, and the rest is free. */
static umo_extent *extent_take_grown(umo_heap *heap, size_t size_bytes)
{
    umo_extent *extent = umo_heap_take_free(heap, size_bytes);
    umo_heap_place place;
    if (extent == NULL && umo_heap_place_find(heap, size_bytes, &place)) {
        umo_heap_place_grow(heap, &place);
        extent = umo_heap_place_take(heap, &place, 0);
        if ((extent->size_bytes - size_bytes) >> heap->unit_shift != 0) {
            umo_heap_give(heap, umo_heap_split(heap, extent, size_bytes), 0);
        }
    }
    return extent;
}

/* However pages come, move and go: a touch never brings more than is held. */
static void a_huge_page_is_held_from_end_to_end(void **state)
{
    (void)state;
    umo_heap heap;
    held blocks[HELD] = {0};
    unsigned seed = 1;
    size_t marked = 0;
    assert_true(umo_heap_init(&heap, HUGE_RANGE_BYTES, 4096));
    for (unsigned step = 0; step < HUGE_STEPS; step++) {
        held *h = &blocks[(size_t)rand_r(&seed) % HELD];
        if (h->extent != NULL) {
            assert_filled(&heap, h);
            umo_heap_give(&heap, h->extent, step);
            h->extent = NULL;
        } else {
            const size_t most = (size_t)1 << (16 + (unsigned)rand_r(&seed) % 8);
            h->size_bytes = 4096 + (size_t)rand_r(&seed) % most / 64 * 64;
            h->extent = step % 4 != 0 ? extent_take_grown(&heap, h->size_bytes)
                                      : extent_take(&heap, h->size_bytes, true);
            assert_non_null(h->extent);
            h->value = (unsigned char)(1 + step % 250);
            memset(umo_extent_data(&heap, h->extent), h->value, h->size_bytes);
            h->extent->owner = 1;
            h->extent->marks = 0;
        }
        if (step % 29 == 0) {
            (void)umo_heap_empty(&heap, (size_t)rand_r(&seed) % ((size_t)8 << 20), UINT64_MAX);
        }
        if (step % 8 == 0) {
            assert_sound(&heap);
            assert_no_more_present(&heap);
            const size_t now = assert_marks_held(&heap);
            marked = now > marked ? now : marked;
        }
    }
#ifdef __linux__
    assert_true(heap.huge_bytes == 0 || marked > 4);
#endif
    for (size_t i = 0; i < HELD; i++) {
        if (blocks[i].extent != NULL) {
            umo_heap_give(&heap, blocks[i].extent, 0);
        }
    }
    while (umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX) > 0) {
    }
    assert_int_equal(heap.reserved_bytes, 0);
    assert_int_equal(heap.seam_count, 0);
    assert_int_equal(assert_marks_held(&heap), 0);
    assert_no_more_present(&heap);
    umo_heap_finish(&heap);
}

/* Holes that are each too short are put together, and nothing more is taken. */
static void pages_of_holes_serve_a_longer_block(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t size = (size_t)256 << 10; /* shorter ones are not worth a move */
    umo_extent *extents[16];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    for (size_t i = 0; i < 16; i++) {
        extents[i] = extent_take(&heap, size, false);
        memset(umo_extent_data(&heap, extents[i]), (int)i + 1, size);
        extents[i]->owner = i;
        extents[i]->marks = 0;
    }
    for (size_t i = 0; i < 16; i += 2) {
        umo_heap_give(&heap, extents[i], 0);
    }
    uint64_t reserved = heap.reserved_bytes;
    umo_extent *longer = extent_take(&heap, 8 * size, true);
    assert_non_null(longer);
    assert_int_equal(heap.reserved_bytes, reserved);
#ifdef __linux__
    assert_int_equal(heap.moved_bytes, 8 * size);
    assert_true((longer->marks & UMO_EXTENT_MIXED) != 0); /* it holds their owners' bytes */
#endif
    memset(umo_extent_data(&heap, longer), 99, 8 * size);
    for (size_t i = 1; i < 16; i += 2) {
        const unsigned char *data = umo_extent_data(&heap, extents[i]);
        assert_int_equal(data[0], i + 1);
        assert_int_equal(data[size - 1], i + 1);
    }
    assert_sound(&heap);
    umo_heap_finish(&heap);
}

/* A page that two free extents share with what is left of a hole goes once nobody uses any of it.
 */
static void a_page_of_several_free_extents_goes(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t page = page_bytes();
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 64));
    umo_extent *hole = extent_take(&heap, 4 * page + page / 2, false);
    umo_extent *wall = extent_take(&heap, page / 4, false);
    umo_heap_give(&heap, hole, 0);
    assert_int_equal(umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX), 4 * page);
    /* All of the hole but its last bytes, in the page that the wall keeps. */
    umo_extent *most = extent_take(&heap, 4 * page + page / 4, false);
    assert_int_equal(umo_extent_offset(&heap, most), page);
    assert_sound(&heap);
    umo_heap_give(&heap, most, 0);
    umo_heap_give(&heap, wall, 0);
    assert_sound(&heap);
    assert_int_equal(umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX), 5 * page);
    assert_int_equal(heap.reserved_bytes, 0);
    umo_heap_finish(&heap);
}

/* The last page that was moved may reach beyond the block: whoever comes there sees zeros. */
static void what_a_moved_page_brings_beyond_a_block_is_not_seen(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t size = (size_t)256 << 10;
    umo_extent *extents[8];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    for (size_t i = 0; i < 8; i++) {
        extents[i] = extent_take(&heap, size, false);
        memset(umo_extent_data(&heap, extents[i]), 99, size);
        extents[i]->owner = 1;
        extents[i]->marks = 0;
    }
    for (size_t i = 0; i < 8; i += 2) {
        umo_heap_give(&heap, extents[i], 0);
    }
    umo_extent *longer = extent_take(&heap, 4 * size - page_bytes() / 2, true);
    umo_extent *next = extent_take(&heap, 2 * size, false);
    assert_non_null(longer);
    assert_int_equal(umo_extent_offset(&heap, next),
                     umo_extent_offset(&heap, longer) + longer->size_bytes);
    const unsigned char *data = umo_extent_data(&heap, next);
    for (size_t i = 0; i < next->size_bytes && (next->marks & UMO_EXTENT_FRESH) != 0; i++) {
        assert_int_equal(data[i], 0);
    }
    assert_sound(&heap);
    umo_heap_finish(&heap);
}

/* An owner's bytes are known for his through every cut and join; pages that went are nobody's. */
static void an_extent_knows_whose_bytes_it_holds(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t size = 4 * page_bytes();
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    umo_extent *first = extent_take(&heap, size, false);
    umo_extent *second = extent_take(&heap, size, false);
    umo_extent *wall = extent_take(&heap, size, false);
    assert_true((first->marks & UMO_EXTENT_FRESH) != 0);
    first->owner = 1;
    second->owner = 1;
    wall->owner = 3;
    first->marks = second->marks = wall->marks = 0;
    umo_heap_give(&heap, first, 0);
    umo_heap_give(&heap, second, 0);
    umo_extent *both = extent_take(&heap, 2 * size, false);
    assert_int_equal(both->owner, 1);
    assert_int_equal(both->marks, 0);
    umo_extent *rest = umo_heap_split(&heap, both, size);
    rest->owner = 2;
    umo_heap_give(&heap, both, 0);
    umo_heap_give(&heap, rest, 0);
    both = extent_take(&heap, 2 * size, false);
    assert_true((both->marks & UMO_EXTENT_MIXED) != 0);
    memset(umo_extent_data(&heap, both), 7, 2 * size);
    umo_heap_give(&heap, both, 0);
    assert_int_equal(umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX), 2 * size);
    both = extent_take(&heap, 2 * size, false);
    assert_true((both->marks & UMO_EXTENT_FRESH) != 0);
    const unsigned char *data = umo_extent_data(&heap, both);
    for (size_t i = 0; i < 2 * size; i++) {
        assert_int_equal(data[i], 0);
    }
    umo_heap_finish(&heap);
}

static void an_address_outside_is_in_no_extent(void **state)
{
    (void)state;
    umo_heap heap;
    int local = 0;
    assert_true(umo_heap_init(&heap, (size_t)16 << 20, 4096));
    umo_extent *extent = extent_take(&heap, 4096, false);
    assert_null(umo_heap_find(&heap, &local));
    assert_null(umo_heap_find(&heap, NULL));
    assert_null(umo_heap_find(&heap, heap.base)); /* the first page is never used */
    assert_null(umo_heap_entry(&heap, heap.base + heap.range_bytes));
    assert_ptr_equal(umo_heap_find(&heap, (char *)umo_extent_data(&heap, extent) + 4095), extent);
    umo_heap_finish(&heap);
}

/* Blocks of these sizes, one behind the other, each with a byte of its own. */
static void row_take(umo_heap *heap, const size_t *sizes, umo_extent **out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = extent_take(heap, sizes[i], false);
        assert_non_null(out[i]);
        memset(umo_extent_data(heap, out[i]), (int)i + 1, sizes[i]);
        out[i]->owner = 1;
        out[i]->marks = 0;
    }
}

/* A long block takes the lowest of the holes that are not far too long; a short one the shortest.
 */
static void a_long_block_lies_low_and_a_short_one_fits(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t long_bytes = (size_t)64 << 10;
    const size_t short_bytes = (size_t)32 << 10;
    const size_t sizes[] = {3 * long_bytes, 4096, long_bytes,  4096, short_bytes,
                            4096,           4096, 4096 + 2048, 4096};
    umo_extent *row[9];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 9);
    const size_t low = umo_extent_offset(&heap, row[0]);
    umo_heap_give(&heap, row[0], 0);
    umo_heap_give(&heap, row[2], 0);
    umo_heap_give(&heap, row[4], 0);
    umo_extent *taken = umo_heap_take_free(&heap, short_bytes);
    assert_ptr_equal(taken, row[4]);
    taken = umo_heap_take_free(&heap, long_bytes);
    assert_int_equal(umo_extent_offset(&heap, taken), low);
    taken = umo_heap_take_free(&heap, long_bytes);
    assert_int_equal(umo_extent_offset(&heap, taken), low + long_bytes);
    assert_sound(&heap);
    umo_heap_finish(&heap);
}

/* Short blocks cut from a long hole, and given back to it, leave it in its bin, beside another. */
static void a_long_hole_is_cut_and_joined_in_its_bin(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t size = (size_t)8 << 20;
    const size_t sizes[] = {size, 4096, size, 4096};
    umo_extent *row[4];
    umo_extent *cut[16];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 4);
    for (size_t i = 0; i < 2; i++) {
        umo_heap_give(&heap, row[2 * i], 0);
        for (size_t k = 0; k < 16; k++) {
            cut[k] = umo_heap_take_free(&heap, 4096);
            assert_ptr_not_equal(cut[k], k > 0 ? cut[k - 1] : NULL);
            assert_sound(&heap);
        }
        for (size_t k = 16; k-- > 0;) {
            umo_heap_give(&heap, cut[i == 0 ? k : 15 - k], 0);
            assert_sound(&heap);
        }
        assert_int_equal(umo_heap_longest(&heap), size);
    }
    umo_heap_finish(&heap);
}

/* Several of a size behind one that was cut: as many as leave an extent of their own, or as asked.
 */
static void some_more_are_taken_behind_a_block(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t size = 4096 + 64;
    const size_t sizes[] = {size, 4 * size + 4096, 4096, size, 4 * size + 4032, 4096};
    umo_extent *row[6];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 6);
    assert_int_equal(umo_heap_take_behind(&heap, row[0], size, 7), 0); /* that one is in use */
    umo_heap_give(&heap, row[1], 0);
    umo_heap_give(&heap, row[4], 0);
    assert_int_equal(umo_heap_take_behind(&heap, row[0], 8 * size, 7), 0);
    const uint64_t free_bytes = heap.free_bytes;
    assert_int_equal(umo_heap_take_behind(&heap, row[0], size, 3), 3);
    assert_int_equal(umo_heap_take_behind(&heap, row[3], size, 7), 3);
    assert_int_equal(heap.free_bytes, free_bytes - 6 * size);
    for (size_t i = 0; i < 2; i++) {
        umo_extent *extent = row[3 * i];
        for (size_t k = 0; k < 3; k++) {
            extent = umo_heap_after(&heap, extent);
            assert_int_equal(umo_extent_state_get(extent), UMO_EXTENT_OTHER);
            assert_int_equal(extent->size_bytes, size);
        }
        assert_sound(&heap);
    }
    assert_int_equal(umo_heap_take_behind(&heap, row[5], size, 7),
                     0); /* hollow, or free and short */
    umo_heap_finish(&heap);
}

/* Far longer holes are kept for far longer blocks. */
static void a_far_longer_hole_stays_whole(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t size = (size_t)64 << 10;
    const size_t sizes[] = {40 * size, 4096, size, 4096};
    umo_extent *row[4];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 4);
    umo_heap_give(&heap, row[0], 0);
    umo_heap_give(&heap, row[2], 0);
    assert_ptr_equal(umo_heap_take_free(&heap, size), row[2]);
    assert_int_equal(umo_heap_longest(&heap), 40 * size);
    umo_heap_finish(&heap);
}

/* Between two free extents addresses alone are missing some pages: those come, and no others. */
static void a_short_gap_between_free_extents_is_closed(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t gap = 4 * page_bytes();
    const size_t side = 16 * gap;
    const size_t sizes[] = {side, gap, side, 4096};
    umo_extent *row[4];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 4);
    const size_t start = umo_extent_offset(&heap, row[0]);
    umo_heap_give(&heap, row[1], 0);
    assert_int_equal(umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX), gap);
    umo_heap_give(&heap, row[0], 0);
    umo_heap_give(&heap, row[2], 0);
    const uint64_t reserved = heap.reserved_bytes;
    umo_heap_place place;
    assert_true(umo_heap_place_find(&heap, side + gap + side / 2, &place));
    assert_int_equal(umo_heap_place_missing(&place), gap);
    assert_int_equal(umo_heap_place_free(&place), side + side / 2);
    umo_extent *taken = umo_heap_place_take(&heap, &place, 0);
    assert_int_equal(umo_extent_offset(&heap, taken), start);
    assert_int_equal(taken->size_bytes, side + gap + side / 2);
    assert_int_equal(heap.reserved_bytes, reserved + gap);
    assert_int_equal(umo_heap_longest(&heap), side / 2);
    assert_sound(&heap);
    memset(umo_extent_data(&heap, taken), 77, taken->size_bytes);
    assert_int_equal(*(unsigned char *)umo_extent_data(&heap, row[3]), 4);
    umo_heap_finish(&heap);
}

/* All of both sides and the gap: nothing is left over. */
static void a_gap_and_both_of_its_sides_are_one_block(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t gap = 2 * page_bytes();
    const size_t sizes[] = {8 * gap, gap, 8 * gap, 4096};
    umo_extent *row[4];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 4);
    umo_heap_give(&heap, row[1], 0);
    assert_int_equal(umo_heap_empty(&heap, SIZE_MAX, UINT64_MAX), gap);
    umo_heap_give(&heap, row[0], 0);
    umo_heap_give(&heap, row[2], 0);
    umo_extent *taken = extent_take(&heap, 17 * gap, false);
    assert_int_equal(taken->size_bytes, 17 * gap);
    assert_int_equal(heap.free_bytes, 0);
    assert_sound(&heap);
    umo_heap_finish(&heap);
}

/* Pages to move come from a hole that has as many, so that a longer one stays whole. */
static void pages_come_from_a_hole_that_has_just_enough(void **state)
{
    (void)state;
#ifdef __linux__
    umo_heap heap;
    const size_t some = (size_t)512 << 10;
    const size_t sizes[] = {8 * some, page_bytes(), 2 * some, page_bytes()};
    umo_extent *row[4];
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    row_take(&heap, sizes, row, 4);
    umo_heap_give(&heap, row[0], 0);
    umo_heap_give(&heap, row[2], 0);
    umo_heap_place place;
    assert_true(umo_heap_place_find(&heap, 9 * some, &place));
    assert_non_null(umo_heap_place_take(&heap, &place, 2 * some));
    assert_int_equal(heap.moved_bytes, 2 * some);
    assert_int_equal(umo_heap_longest(&heap), 8 * some);
    assert_sound(&heap);
    umo_heap_finish(&heap);
#else
    skip(); /* pages are not moved */
#endif
}

/* Nobody wrote to the pages of a hole: they go, and no mapping is cut for them. */
static void pages_that_nobody_touched_are_not_moved(void **state)
{
    (void)state;
    umo_heap heap;
    const size_t some = (size_t)512 << 10;
    assert_true(umo_heap_init(&heap, (size_t)64 << 20, 4096));
    heap.huge_bytes = 0;
    umo_extent *hole = extent_take(&heap, 2 * some, false);
    umo_extent *wall = extent_take(&heap, 4096, false);
    assert_non_null(hole);
    assert_non_null(wall);
    umo_heap_give(&heap, hole, 0);
    const uint64_t reserved = heap.reserved_bytes;
    umo_heap_place place;
    assert_true(umo_heap_place_find(&heap, 3 * some, &place));
    const size_t missing = umo_heap_place_missing(&place);
    assert_non_null(umo_heap_place_take(&heap, &place, 2 * some));
    assert_int_equal(heap.moved_bytes, 0);
    assert_int_equal(heap.seam_count, 0);
    assert_int_equal(heap.reserved_bytes, reserved + missing - 2 * some);
    assert_no_more_present(&heap);
    assert_sound(&heap);
    umo_heap_finish(&heap);
}

#ifdef __linux__
/* Mappings of this process in a range. */
static size_t mappings_in(const char *from, size_t bytes)
{
    size_t count = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        char *rest;
        const uintptr_t start = strtoull(line, &rest, 16);
        const uintptr_t end = strtoull(rest + 1, NULL, 16);
        count += start < (uintptr_t)from + bytes && end > (uintptr_t)from ? 1 : 0;
    }
    (void)fclose(maps);
    return count;
}
#endif

/* A heap whose blocks drift moves pages all the time; its mappings stay few. */
static void mappings_stay_few_however_much_moves(void **state)
{
    (void)state;
#ifdef __linux__
    umo_heap heap;
    held blocks[HELD] = {0};
    assert_true(umo_heap_init(&heap, HUGE_RANGE_BYTES, 4096));
    heap.huge_bytes = 0;
    for (unsigned pass = 0; pass < 16; pass++) {
        unsigned seed = 7;
        for (unsigned step = 0; step < HUGE_STEPS; step++) {
            held *h = &blocks[(size_t)rand_r(&seed) % HELD];
            if (h->extent != NULL) {
                umo_heap_give(&heap, h->extent, step);
                h->extent = NULL;
                continue;
            }
            h->size_bytes = ((size_t)64 << 10) + (size_t)rand_r(&seed) % (4 * MIB) / 64 * 64;
            h->extent = extent_take(&heap, h->size_bytes, true);
            assert_non_null(h->extent);
            memset(umo_extent_data(&heap, h->extent), 1, h->size_bytes);
        }
        for (size_t i = 0; i < HELD; i++) {
            if (blocks[i].extent != NULL) {
                umo_heap_give(&heap, blocks[i].extent, 0);
                blocks[i].extent = NULL;
            }
        }
    }
    assert_true(heap.moved_bytes > (uint64_t)64 << 20);
    const size_t mappings = mappings_in(heap.base, heap.mapped_bytes);
    assert_true(mappings <= heap.reserved_bytes / ((size_t)36 << 10));
    assert_sound(&heap);
    umo_heap_finish(&heap);
#else
    skip(); /* pages are not moved */
#endif
}

/* The range is all there is, and the heap stays whole when it is out. */
static void a_range_that_is_full_says_so(void **state)
{
    (void)state;
    umo_heap heap;
    umo_heap_place place;
    assert_true(umo_heap_init(&heap, (size_t)4 << 20, 4096));
    size_t taken = 0;
    while (umo_heap_place_find(&heap, 65536 + 64, &place)) {
        assert_non_null(umo_heap_place_take(&heap, &place, 0));
        taken += 65536 + 64;
    }
    assert_true(taken > ((size_t)4 << 20) - 2 * 65536 - 2 * page_bytes());
    assert_sound(&heap);
    umo_heap_finish(&heap);
}

int main(void)
{
    (void)setenv("UMO_HUGE_PAGES", "on", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_keep_the_books_and_the_bytes),
        cmocka_unit_test(a_huge_page_is_held_from_end_to_end),
        cmocka_unit_test(pages_of_holes_serve_a_longer_block),
        cmocka_unit_test(a_page_of_several_free_extents_goes),
        cmocka_unit_test(what_a_moved_page_brings_beyond_a_block_is_not_seen),
        cmocka_unit_test(an_extent_knows_whose_bytes_it_holds),
        cmocka_unit_test(an_address_outside_is_in_no_extent),
        cmocka_unit_test(a_long_block_lies_low_and_a_short_one_fits),
        cmocka_unit_test(a_long_hole_is_cut_and_joined_in_its_bin),
        cmocka_unit_test(some_more_are_taken_behind_a_block),
        cmocka_unit_test(a_far_longer_hole_stays_whole),
        cmocka_unit_test(a_short_gap_between_free_extents_is_closed),
        cmocka_unit_test(a_gap_and_both_of_its_sides_are_one_block),
        cmocka_unit_test(pages_come_from_a_hole_that_has_just_enough),
        cmocka_unit_test(pages_that_nobody_touched_are_not_moved),
        cmocka_unit_test(mappings_stay_few_however_much_moves),
        cmocka_unit_test(a_range_that_is_full_says_so),
    };
    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
