/*
 * The inside of carved memory, shared by carve.c and carve_central.c alone: what happens under the
 * lock, between the threads' caches, the stash and the heaps.
 */
#ifndef UMO_MEM_CARVE_CENTRAL_H
#define UMO_MEM_CARVE_CENTRAL_H

#include "mem/carve.h"

static inline umo_heap *heap_of(umo_carve *carve, size_t granules)
{
    return &carve->heaps[granules < UMO_CACHE_SMALL ? UMO_CARVE_SHORT : UMO_CARVE_LONG];
}

static inline size_t granules_of(const umo_extent *extent)
{
    return (size_t)(extent->size_bytes >> UMO_HEAP_GRANULE_SHIFT);
}

/* May an extent hold bytes of somebody else's than this owner's? */
static inline bool umo_carve_foreign(const umo_extent *extent, uint64_t owner)
{
    return (extent->marks & UMO_EXTENT_FRESH) == 0 &&
           ((extent->marks & UMO_EXTENT_MIXED) != 0 || extent->owner != owner);
}

static inline uint64_t relaxed(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline uint64_t reserved_of(const umo_carve *carve)
{
    return carve->heaps[UMO_CARVE_LONG].reserved_bytes +
           carve->heaps[UMO_CARVE_SHORT].reserved_bytes;
}

static inline void cache_room_add(umo_cache *cache, uint64_t bytes)
{
    UMO_CACHE_ADD(cache->room_bytes, bytes);
}

/* Locks, by waiting for a moment before sleeping: it is held for some hundred instructions. True
 * when somebody else had it. */
bool umo_carve_lock(umo_carve *carve);

/* All below: the lock is held. */

/* Sums over the caches; exact while they are blocked. */
int64_t umo_carve_live(const umo_carve *carve);
/* What one cache holds. */
uint64_t umo_carve_cached(const umo_cache *cache);
uint64_t umo_carve_kept_now(const umo_carve *carve);

/* Notes that live bytes rise by size_bytes, and lets this thread's cache (NULL: none) go on without
 * asking as long as that makes no new peak. */
void umo_carve_peak_note(umo_carve *carve, umo_cache *cache, size_t size_bytes);

/* Gives back what is charged beyond what is held. */
void umo_carve_charge_less(umo_carve *carve);

/* Gives an extent back to its heap. */
void umo_carve_release(umo_carve *carve, umo_extent *extent);

/* Moves a cache's bin to the stash, whole. Returns its bytes. */
uint64_t umo_carve_bin_stash(umo_carve *carve, umo_cache_bin *bin);
/* Empties bins of a cache that nobody else is in, in turn, until it has this much room; or all. */
void umo_carve_cache_room(umo_carve *carve, umo_cache *cache, uint64_t room_bytes);
void umo_carve_cache_empty(umo_carve *carve, umo_cache *cache);
/* May this thread's cache hold an extent that is given? `met`: it met another thread at the lock.
 */
bool umo_carve_cacheable(umo_carve *carve, umo_cache *cache, const umo_extent *extent, bool met);
/* Gives all that threads and the stash hold to the heaps. */
void umo_carve_caches_empty(umo_carve *carve);
/* Lets a cache hold what it may now, which follows the peak. */
void umo_carve_cache_limit(const umo_carve *carve, umo_cache *cache);
umo_cache *umo_carve_cache_make(umo_carve *carve);
/* This thread's cache, made at its first use. NULL: it has to do without. */
static inline umo_cache *umo_carve_cache(umo_carve *carve)
{
    umo_cache *cache = umo_cache_get(&carve->slot);
    return __builtin_expect(cache != NULL, 1) ? cache : umo_carve_cache_make(carve);
}

void umo_carve_wake(umo_carve *carve);
/* Something is kept from now on. */
static inline void umo_carve_arm(umo_carve *carve)
{
    if (__builtin_expect(!carve->armed, 0) && carve->wake != NULL) {
        umo_carve_wake(carve);
    }
}
/* Gives back what is kept beyond the bound. */
void umo_carve_keep_enforce(umo_carve *carve);

/* Puts some more blocks of an extent's size, that lie behind it, into a cache which has none:
 * whoever loads a model takes many of a size. They hold nothing that `owner` may not see. */
void umo_carve_cache_fill(umo_carve *carve, umo_cache *cache, umo_cache_bin *bin,
                          const umo_extent *extent, uint64_t owner);

/* A block of this size from the stash or a heap, with all of its books but the live ones; NULL and
 * LIMIT or NOMEM. */
umo_extent *umo_carve_central_take(umo_carve *carve, umo_cache *cache, size_t rounded,
                                   umo_status *status);

#endif
