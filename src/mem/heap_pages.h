/*
 * The pages behind a heap: where they come from when no free extent fits, and how they go back.
 */
#ifndef UMO_MEM_HEAP_PAGES_H
#define UMO_MEM_HEAP_PAGES_H

#include "mem/heap.h"

/* A place for an extent whose pages are not all there. */
typedef struct umo_heap_place {
    umo_extent *hollow;
    umo_extent *before; /* the free extent before it, used first; or NULL */
    umo_extent *after;  /* the free extent behind it, used last; or NULL */
    size_t size_bytes;
    size_t from_bytes; /* offsets of the pages that are missing */
    size_t to_bytes;
} umo_heap_place;

static inline size_t umo_heap_place_missing(const umo_heap_place *place)
{
    return place->to_bytes - place->from_bytes;
}

/* Bytes of free extents that it uses up. */
static inline size_t umo_heap_place_free(const umo_heap_place *place)
{
    if (place->after != NULL) {
        return place->size_bytes - (size_t)place->hollow->size_bytes;
    }
    return place->before != NULL ? (size_t)place->before->size_bytes : 0;
}

/* The one that lacks the fewest pages, of those looked at. False when the range of addresses has
 * none. */
bool umo_heap_place_find(umo_heap *heap, size_t size_bytes, umo_heap_place *out);

/* Has a place end where a huge page does, if its hollow extent is long enough. */
void umo_heap_place_grow(const umo_heap *heap, umo_heap_place *place);

/*
 * Takes it. Of the pages that are missing up to reuse_bytes come from free extents, the rest from
 * the system. The extent's marks tell what its bytes are.
 * NULL when the system has no memory.
 */
umo_extent *umo_heap_place_take(umo_heap *heap, const umo_heap_place *place, size_t reuse_bytes);

/*
 * Gives pages of free extents back to the system, about max_bytes at most, of those that are free
 * since before `stamp` alone. Returns the bytes given back; 0 when there is nothing to give.
 */
size_t umo_heap_empty(umo_heap *heap, size_t max_bytes, uint64_t stamp);

#endif
