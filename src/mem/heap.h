/*
 * A heap: one reserved range of addresses, cut into extents without gaps. Extents in use, free ones
 * whose pages are there, and *hollow* ones, whose pages are not: addresses cost nothing, pages do,
 * so the two are kept apart and pages move to where addresses are free. A hollow extent lacks a
 * whole page at least: where all of its bytes are in pages that its neighbours keep, it is free.
 *
 * All books are outside of the memory. No extent is shorter than a *unit* of addresses, so at most
 * one starts in each: a number a unit says which entry of the table is its own, and an address
 * finds it by a shift. Entries lie side by side however far apart their extents are, since a page
 * of books costs as much as one of memory. The heap knows no threads, owners' rules or budgets: its
 * user locks and decides.
 */
#ifndef UMO_MEM_HEAP_H
#define UMO_MEM_HEAP_H

#include "base/size.h"

#include <umo/status.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Addresses and sizes of extents are multiples of it. */
#define UMO_HEAP_GRANULE_SHIFT 6u
#define UMO_HEAP_GRANULE ((size_t)1 << UMO_HEAP_GRANULE_SHIFT)

/* Four size bins in each doubling would be enough for speed; 32 keep "best" within 3 percent. */
#define UMO_HEAP_ROWS 40u
#define UMO_HEAP_COLUMNS 32u

#define UMO_HEAP_LEVELS 5u

typedef enum umo_extent_state {
    UMO_EXTENT_NONE = 0, /* no extent starts in this unit */
    UMO_EXTENT_FREE = 1,
    UMO_EXTENT_HOLLOW = 2,
    UMO_EXTENT_LIVE = 3,   /* a user's */
    UMO_EXTENT_CACHED = 4, /* given back, out of the free lists all the same */
    UMO_EXTENT_OTHER = 5   /* in use, but not for umo_pool_give() */
} umo_extent_state;

/* What an extent's bytes are. */
enum {
    UMO_EXTENT_FRESH = 1u << 0, /* zeros: nobody's */
    UMO_EXTENT_MIXED = 1u << 1  /* of several owners */
};

/* An extent's entry. What only one state has shares its place with what only others have: a page of
 * entries costs as much as a page of memory. */
typedef struct umo_extent {
    _Atomic uint32_t tag; /* state, and place within the unit */
    uint32_t unit;        /* in which it starts */
    uint32_t before;      /* the extent that ends where this one starts; 0 for none */
    uint32_t marks;
    uint64_t size_bytes;
    uint64_t owner; /* of the bytes; of a hollow extent: of the pages that its ends share */
    union {
        uint64_t asked_bytes; /* LIVE, OTHER */
        uint64_t stamp;       /* FREE: when it became so, in its user's ticks */
    };
    union {
        struct {
            uint32_t next; /* links of the list that it is in; 0 ends */
            uint32_t previous;
        };
        void *user; /* OTHER: its user's */
    };
} umo_extent;

/* One list for each range of sizes, and which have any. */
typedef struct umo_heap_bins {
    uint64_t rows;
    uint32_t columns[UMO_HEAP_ROWS];
    uint32_t first[UMO_HEAP_ROWS][UMO_HEAP_COLUMNS];
} umo_heap_bins;

typedef struct umo_heap {
    char *base;
    size_t range_bytes;
    umo_extent *extents;        /* entry 0 is nobody's */
    uint32_t extent_count;      /* entries that were ever used, entry 0 too */
    uint32_t spare;             /* of those, the ones that are not: a list */
    size_t extents_ready_bytes; /* of the table, whose pages are there */
    _Atomic uint32_t *units;    /* the entry of the extent that starts in each unit; 0: none does */
    uint32_t units_ready;       /* units whose entries are there, from some on */
    uint32_t unit_shift;
    uint32_t unit_count;
    size_t page_bytes;
    size_t mapped_bytes; /* of the range, from its start: pages may be behind them */
    size_t tables_bytes; /* of the mapping that starts with extents */
    uint64_t
        *starts[UMO_HEAP_LEVELS]; /* a bit a unit where an extent starts; above, a bit a word */
    uint64_t *seams;              /* a bit a page where one mapping may end and another start */
    size_t seam_count;
    size_t huge_bytes;       /* of a huge page; 0: none are asked for */
    size_t fresh_from_bytes; /* offsets of the pages that came with the last place */
    size_t fresh_to_bytes;
    uint64_t *huge; /* a bit a huge page of addresses that is to be behind one */
    bool moves;     /* the system moves pages */
    int32_t node;   /* that the range is bound to, or UMO_NUMA_ANY */
    umo_heap_bins free;
    umo_heap_bins hollow;
    uint64_t reserved_bytes; /* whole pages that are not hollow */
    uint64_t free_bytes;     /* in free extents */
    uint64_t moved_bytes;
} umo_heap;

/* Reserves a range of about range_bytes, or of less where addresses are scarce. False when not even
 * a small one can be had. unit_bytes is a power of two. Sizes asked for later are a unit or more,
 * and all multiples of one alignment that divides a page: then addresses are too. */
bool umo_heap_init(umo_heap *heap, size_t range_bytes, size_t unit_bytes);
void umo_heap_finish(umo_heap *heap);

/* Has all pages of a new heap come from a node. Errors as umo_numa_bind(). */
umo_status umo_heap_bind(umo_heap *heap, int32_t node, umo_error *error);

static inline uint32_t umo_extent_index(const umo_heap *heap, const umo_extent *extent)
{
    return (uint32_t)(extent - heap->extents);
}

static inline uint32_t umo_extent_tag(umo_extent_state state, uintptr_t address,
                                      uint32_t unit_shift)
{
    uintptr_t within = address & (((uintptr_t)1 << unit_shift) - 1);
    return (uint32_t)state | (uint32_t)(within << 8);
}

static inline umo_extent_state umo_extent_state_get(const umo_extent *extent)
{
    return (umo_extent_state)(atomic_load_explicit(&extent->tag, memory_order_relaxed) & 0xffu);
}

static inline void umo_extent_state_set(umo_extent *extent, umo_extent_state state)
{
    uint32_t tag = atomic_load_explicit(&extent->tag, memory_order_relaxed);
    atomic_store_explicit(&extent->tag, (tag & ~(uint32_t)0xff) | (uint32_t)state,
                          memory_order_relaxed);
}

/* Offsets are from the heap's base. */
static inline size_t umo_extent_offset(const umo_heap *heap, const umo_extent *extent)
{
    return ((size_t)extent->unit << heap->unit_shift) +
           (atomic_load_explicit(&extent->tag, memory_order_relaxed) >> 8);
}

static inline void *umo_extent_data(const umo_heap *heap, const umo_extent *extent)
{
    return heap->base + umo_extent_offset(heap, extent);
}

/* Of the extent that starts in a unit; entry 0, whose state is NONE, when none does. Without a lock
 * it is right for as long as the extent is the caller's. */
static inline umo_extent *umo_heap_unit_entry(const umo_heap *heap, size_t unit)
{
    return &heap->extents[atomic_load_explicit(&heap->units[unit], memory_order_relaxed)];
}

/* NULL for an address outside of the range. */
static inline umo_extent *umo_heap_entry(const umo_heap *heap, const void *address)
{
    size_t offset = (size_t)((uintptr_t)address - (uintptr_t)heap->base);
    return offset < heap->range_bytes ? umo_heap_unit_entry(heap, offset >> heap->unit_shift)
                                      : NULL;
}

/* The extent that an address of the range lies in; NULL outside of it. */
umo_extent *umo_heap_find(const umo_heap *heap, const void *address);

/* Takes the free extent that fits best, cut to size; NULL when none fits. Its state is OTHER. */
umo_extent *umo_heap_take_free(umo_heap *heap, size_t size_bytes);

/* Takes up to `most` extents of one size out of the free one that begins where `before` ends.
 * Returns how many; they are OTHER and lie one behind the other. */
uint32_t umo_heap_take_behind(umo_heap *heap, const umo_extent *before, size_t size_bytes,
                              uint32_t most);

/* Gives an extent in use back: it joins its free neighbours. */
void umo_heap_give(umo_heap *heap, umo_extent *extent, uint64_t stamp);

/* Bytes of the longest free extent. */
size_t umo_heap_longest(const umo_heap *heap);

/* ---- for heap_pages.c ---- */

umo_extent *umo_heap_before(const umo_heap *heap, const umo_extent *extent);
umo_extent *umo_heap_after(const umo_heap *heap, const umo_extent *extent);
void umo_heap_bin_add(umo_heap *heap, umo_heap_bins *bins, umo_extent *extent);
void umo_heap_bin_remove(umo_heap *heap, umo_heap_bins *bins, umo_extent *extent);
/* The best of the bins, or NULL; the largest when size_bytes is 0. */
umo_extent *umo_heap_bin_best(const umo_heap *heap, const umo_heap_bins *bins, size_t size_bytes);
/* One that leaves little over, or NULL. */
umo_extent *umo_heap_bin_shortest(const umo_heap *heap, const umo_heap_bins *bins,
                                  size_t size_bytes);
/* Cuts an extent that is in no list in two; the second half is in no list either. */
umo_extent *umo_heap_split(umo_heap *heap, umo_extent *extent, size_t size_bytes);
/* The first of two neighbours in no list takes the second in. */
void umo_heap_join(umo_heap *heap, umo_extent *first, umo_extent *second);
/* Notes that the bytes of an extent now also hold another one's. */
void umo_extent_mix(umo_extent *extent, uint64_t owner, uint32_t marks);
/* Makes [0, end_bytes) of the range usable. False when the system has no more. */
bool umo_heap_map(umo_heap *heap, size_t end_bytes);

#endif
