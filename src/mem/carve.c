/*
 * See carve.h. A take and a give go the shortest way that there is: the thread's own cache, without
 * a lock; else under the lock, through carve_central.c.
 */
#include "mem/carve_central.h"

#include "mem/heap_pages.h"
#include "trace/trace.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#define BLOCK_HIDE(data, bytes) __asan_poison_memory_region(data, bytes)
#define BLOCK_SHOW(data, bytes) __asan_unpoison_memory_region(data, bytes)
#else
#define BLOCK_HIDE(data, bytes) ((void)(data), (void)(bytes))
#define BLOCK_SHOW(data, bytes) ((void)(data), (void)(bytes))
#endif

#define LONG_UNIT_BYTES ((size_t)4096)
#define POISON_BYTE 0xDB

/* From here on there are 32 sizes a doubling, so that a block that has grown a little fits where
 * its predecessor lay; it costs under 2 percent. */
#define STEPPED_BYTES ((size_t)32 << 10)

/* Longer blocks are cut one at a time. */
#define FILL_GRANULES ((size_t)(12u << 10) >> UMO_HEAP_GRANULE_SHIFT)

/* How often others are asked for memory when a budget is met. */
#define RECLAIMS_MAX 8

/* Pages that one call brings: others wait for it that change what is mapped. */
#define BRING_STEP_BYTES ((size_t)2 << 20)

/* Pages that are given back under one hold of the lock. */
#define SLICE_BYTES ((size_t)8 << 20)

/* Asks others of the same budget for memory, without the lock. */
static umo_extent *take_reclaimed(umo_carve *carve, umo_cache *cache, size_t rounded,
                                  umo_status *status)
{
    umo_extent *extent = NULL;
    for (int i = 0; i < RECLAIMS_MAX && extent == NULL && *status == UMO_E_LIMIT; i++) {
        (void)pthread_mutex_unlock(&carve->lock);
        size_t got = carve->reclaim != NULL ? carve->reclaim(carve->user, rounded) : 0;
        (void)umo_carve_lock(carve);
        if (got == 0) {
            break;
        }
        *status = UMO_OK;
        extent = umo_carve_central_take(carve, cache, rounded, status);
    }
    return extent;
}

/* The slow way, and the only one that can fail. */
static umo_status take_slowly(umo_carve *carve, size_t size_bytes, size_t rounded, uint64_t owner,
                              umo_extent_state state, umo_extent **out, bool *clear)
{
    char *bring = NULL;
    size_t bring_bytes = 0;
    umo_status status = UMO_OK;
    umo_extent *extent = NULL;
    (void)umo_carve_lock(carve);
    umo_carve_arm(carve);
    const uint64_t charged_before = carve->charged_bytes;
    umo_cache *cache = umo_carve_cache(carve);
    size_t granules = rounded >> UMO_HEAP_GRANULE_SHIFT;
    umo_cache_bin *bin = cache != NULL ? umo_cache_bin_of(cache, granules) : NULL;
    size_t live_bytes = state == UMO_EXTENT_LIVE ? size_bytes : 0;
    if (cache == NULL ||
        atomic_load_explicit(&cache->live_bytes, memory_order_relaxed) + (int64_t)live_bytes >
            atomic_load_explicit(&cache->alarm_bytes, memory_order_relaxed)) {
        umo_carve_peak_note(carve, cache, live_bytes);
    }
    if (bin != NULL && bin->granules == granules && bin->first != 0) {
        extent = &heap_of(carve, granules)->extents[bin->first];
        bin->first = extent->next;
        cache_room_add(cache, rounded);
        carve->stats.hits++;
    } else {
        extent = umo_carve_central_take(carve, cache, rounded, &status);
    }
    if (extent == NULL && status == UMO_E_NOMEM && granules < UMO_CACHE_SMALL) {
        status = UMO_OK; /* the short range is full */
        extent = umo_carve_central_take(carve, cache, LONG_UNIT_BYTES, &status);
    }
    if (extent == NULL && status == UMO_E_LIMIT) {
        extent = take_reclaimed(carve, cache, rounded, &status);
    }
    if (extent != NULL) {
        if (cache != NULL) {
            UMO_CACHE_ADD(cache->live_bytes, (int64_t)live_bytes);
        } else {
            carve->live_bytes += (int64_t)live_bytes;
        }
        *clear = umo_carve_foreign(extent, owner);
        if (bin != NULL && bin->first == 0 && granules <= FILL_GRANULES &&
            extent->size_bytes == rounded) {
            if (bin->granules == granules && !*clear) {
                umo_carve_cache_fill(carve, cache, bin, extent, owner);
            }
            bin->granules = (uint32_t)granules;
        }
        carve->stats.scrubbed_bytes += *clear ? extent->size_bytes : 0;
        extent->owner = owner;
        extent->marks = 0;
        extent->asked_bytes = size_bytes;
        extent->user = NULL;
        umo_extent_state_set(extent, state);
        *out = extent;
        bring = carve->bring;
        bring_bytes = carve->bring_bytes;
    }
    carve->bring = NULL;
    const uint64_t charged_after = carve->charged_bytes;
    (void)pthread_mutex_unlock(&carve->lock);
    if (charged_after > charged_before) {
        /* Before its pages are touched. */
        umo_scope_guard_ask(carve->scope, charged_after - charged_before);
    }
    for (size_t at = 0; bring != NULL && at < bring_bytes; at += BRING_STEP_BYTES) {
        size_t left = bring_bytes - at;
        (void)umo_os_pages_bring(bring + at, left < BRING_STEP_BYTES ? left : BRING_STEP_BYTES);
    }
    return extent != NULL ? UMO_OK : status != UMO_OK ? status : UMO_E_NOMEM;
}

/* Bytes to ask a heap for; 0 when there can be none. */
static inline size_t size_rounded(const umo_carve *carve, size_t size_bytes)
{
    size_t mask = carve->align_mask;
    if (size_bytes >= STEPPED_BYTES) {
        mask |=
            ((size_t)1 << (58u - (unsigned)__builtin_clzll((unsigned long long)size_bytes))) - 1;
    }
    size_t rounded = (size_bytes + mask) & ~mask;
    return size_bytes != 0 && rounded >= size_bytes ? rounded : 0;
}

static void block_ready(const umo_carve *carve, void *data, size_t bytes, bool clear)
{
    BLOCK_SHOW(data, bytes);
    if (clear) {
        memset(data, 0, bytes);
    }
    if (carve->poisoned) {
        memset(data, POISON_BYTE, bytes);
    }
}

static umo_status take(umo_carve *carve, size_t size_bytes, uint64_t owner, umo_extent_state state,
                       umo_extent **out)
{
    size_t rounded = size_rounded(carve, size_bytes);
    if (rounded == 0 || rounded > carve->heaps[UMO_CARVE_LONG].range_bytes / 2) {
        return UMO_E_INVAL;
    }
    bool clear = false;
    umo_status status = take_slowly(carve, size_bytes, rounded, owner, state, out, &clear);
    if (status == UMO_OK) {
        const umo_heap *heap =
            heap_of(carve, granules_of(*out)); /* a short one's may be the long */
        block_ready(carve, umo_extent_data(heap, *out), (size_t)(*out)->size_bytes, clear);
    }
    return status;
}

/* Out of line, so that the short way saves no registers for it. */
static __attribute__((noinline)) umo_status take_live(umo_carve *carve, size_t size_bytes,
                                                      uint64_t owner, void **out)
{
    umo_extent *extent = NULL;
    umo_status status = take(carve, size_bytes, owner, UMO_EXTENT_LIVE, &extent);
    if (status == UMO_OK) {
        *out = umo_extent_data(heap_of(carve, granules_of(extent)), extent);
    }
    return status;
}

umo_status umo_carve_take(umo_carve *carve, size_t size_bytes, uint64_t owner, void **out)
{
    umo_cache *cache = umo_cache_get(&carve->slot);
    size_t granules = size_rounded(carve, size_bytes) >> UMO_HEAP_GRANULE_SHIFT;
    if (__builtin_expect(cache != NULL, 1) && umo_cache_enter(cache)) {
        umo_cache_bin *bin = umo_cache_bin_of(cache, granules);
        const umo_heap *heap = heap_of(carve, granules);
        umo_extent *extent = &heap->extents[bin->first];
        int64_t live =
            atomic_load_explicit(&cache->live_bytes, memory_order_relaxed) + (int64_t)size_bytes;
        if (__builtin_expect(
                bin->granules == granules && bin->first != 0 && extent->owner == owner &&
                    live <= atomic_load_explicit(&cache->alarm_bytes, memory_order_relaxed),
                1)) {
            bin->first = extent->next;
            /* Its line may be with the processor of whoever gave it. */
            __builtin_prefetch(&heap->extents[extent->next], 1);
            extent->asked_bytes = size_bytes;
            uint32_t tag = atomic_load_explicit(&extent->tag, memory_order_relaxed) ^
                           (UMO_EXTENT_CACHED ^ UMO_EXTENT_LIVE);
            atomic_store_explicit(&extent->tag, tag, memory_order_relaxed);
            atomic_store_explicit(&cache->live_bytes, live, memory_order_relaxed);
            cache_room_add(cache, extent->size_bytes);
            UMO_CACHE_ADD(cache->takes, 1u);
            umo_cache_leave(cache);
            void *data = heap->base + ((size_t)extent->unit << heap->unit_shift) + (tag >> 8);
            BLOCK_SHOW(data, extent->size_bytes);
            *out = data;
            return UMO_OK;
        }
        umo_cache_leave(cache);
    }
    return take_live(carve, size_bytes, owner, out);
}

/* ---- giving ---- */

/* The heap whose range an address lies in, and the entry of its unit; NULL for none. */
static inline umo_extent *entry_find(umo_carve *carve, const void *address, umo_heap **heap)
{
    *heap = &carve->heaps[UMO_CARVE_LONG];
    umo_extent *extent = umo_heap_entry(*heap, address);
    if (extent == NULL) {
        *heap = &carve->heaps[UMO_CARVE_SHORT];
        extent = umo_heap_entry(*heap, address);
    }
    return extent;
}

/* Puts a block into its thread's cache, after others went; false when it has no place there. */
static bool cache_put(umo_carve *carve, umo_cache *cache, umo_heap *heap, umo_extent *extent)
{
    size_t granules = granules_of(extent);
    uint64_t bytes = extent->size_bytes;
    umo_cache_bin *bin = umo_cache_bin_of(cache, granules);
    if (bin->granules != granules) {
        cache_room_add(cache, umo_carve_bin_stash(carve, bin));
        bin->granules = (uint32_t)granules;
    }
    if (relaxed(&cache->room_bytes) < bytes) {
        umo_carve_cache_limit(carve, cache);
    }
    if (relaxed(&cache->room_bytes) < bytes) {
        /* Most likely there are many of its own size: another thread takes what this one gives. */
        cache_room_add(cache, umo_carve_bin_stash(carve, bin));
        umo_carve_cache_room(carve, cache, relaxed(&cache->limit_bytes) / 2);
    }
    if (relaxed(&cache->room_bytes) < bytes) {
        return false;
    }
    umo_extent_state_set(extent, UMO_EXTENT_CACHED);
    extent->next = bin->first;
    bin->first = umo_extent_index(heap, extent);
    cache_room_add(cache, (uint64_t)0 - bytes);
    return true;
}

static __attribute__((noinline)) umo_status give_slowly(umo_carve *carve, umo_heap *heap,
                                                        umo_extent *extent, uint32_t tag)
{
    umo_status status = UMO_E_INVAL;
    const bool met = umo_carve_lock(carve);
    if (atomic_load_explicit(&extent->tag, memory_order_relaxed) == tag) {
        umo_carve_arm(carve);
        umo_cache *cache = umo_carve_cache(carve);
        if (cache != NULL) {
            UMO_CACHE_ADD(cache->live_bytes, -(int64_t)extent->asked_bytes);
        } else {
            carve->live_bytes -= (int64_t)extent->asked_bytes;
        }
        if (cache == NULL || !umo_carve_cacheable(carve, cache, extent, met) ||
            !cache_put(carve, cache, heap, extent)) {
            umo_carve_release(carve, extent);
        } else if (granules_of(extent) > UMO_CACHE_LONG) {
            /* At once to whoever takes what this thread gives, so that the next need no lock. */
            umo_cache_bin *bin = umo_cache_bin_of(cache, granules_of(extent));
            cache_room_add(cache, umo_carve_bin_stash(carve, bin));
        }
        umo_carve_keep_enforce(carve);
        status = UMO_OK;
    }
    (void)pthread_mutex_unlock(&carve->lock);
    return status;
}

umo_status umo_carve_give(umo_carve *carve, void *data)
{
    umo_heap *heap;
    umo_extent *extent = entry_find(carve, data, &heap);
    if (__builtin_expect(extent == NULL, 0)) {
        return UMO_E_INVAL;
    }
    uint32_t tag =
        umo_extent_tag(UMO_EXTENT_LIVE, (uintptr_t)data - (uintptr_t)heap->base, heap->unit_shift);
    if (__builtin_expect(atomic_load_explicit(&extent->tag, memory_order_relaxed) != tag, 0)) {
        return UMO_E_INVAL;
    }
    BLOCK_HIDE(data, extent->size_bytes);
    umo_cache *cache = umo_cache_get(&carve->slot);
    if (__builtin_expect(cache != NULL, 1) && umo_cache_enter(cache)) {
        size_t granules = granules_of(extent);
        umo_cache_bin *bin = umo_cache_bin_of(cache, granules);
        if (__builtin_expect(bin->granules == granules &&
                                 (granules <= UMO_CACHE_LONG || umo_cache_long_fits(heap, bin)) &&
                                 extent->size_bytes <= relaxed(&cache->room_bytes),
                             1)) {
            atomic_store_explicit(&extent->tag, tag ^ (UMO_EXTENT_LIVE ^ UMO_EXTENT_CACHED),
                                  memory_order_relaxed);
            extent->next = bin->first;
            bin->first = umo_extent_index(heap, extent);
            UMO_CACHE_ADD(cache->live_bytes, -(int64_t)extent->asked_bytes);
            cache_room_add(cache, (uint64_t)0 - extent->size_bytes);
            umo_cache_leave(cache);
            return UMO_OK;
        }
        umo_cache_leave(cache);
    }
    return give_slowly(carve, heap, extent, tag);
}

/* ---- blocks of others ---- */

umo_status umo_carve_take_other(umo_carve *carve, size_t size_bytes, size_t live_bytes,
                                uint64_t owner, void *user, void **out, size_t *out_bytes)
{
    umo_extent *extent = NULL;
    /* Counted first: what is live bounds what may be reserved. */
    (void)umo_carve_lock(carve);
    umo_carve_peak_note(carve, NULL, live_bytes);
    carve->live_bytes += (int64_t)live_bytes;
    carve->ahead_bytes += (int64_t)live_bytes;
    (void)pthread_mutex_unlock(&carve->lock);
    umo_status status = take(carve, size_bytes, owner, UMO_EXTENT_OTHER, &extent);
    (void)umo_carve_lock(carve);
    carve->ahead_bytes -= (int64_t)live_bytes;
    if (status == UMO_OK) {
        extent->user = user;
    } else {
        carve->live_bytes -= (int64_t)live_bytes;
        umo_carve_keep_enforce(carve);
    }
    (void)pthread_mutex_unlock(&carve->lock);
    if (status == UMO_OK) {
        *out = umo_extent_data(heap_of(carve, granules_of(extent)), extent);
        *out_bytes = (size_t)extent->size_bytes;
    }
    return status;
}

void umo_carve_give_other(umo_carve *carve, void *data)
{
    umo_heap *heap;
    umo_extent *extent = entry_find(carve, data, &heap);
    BLOCK_HIDE(data, extent->size_bytes);
    (void)umo_carve_lock(carve);
    umo_carve_arm(carve);
    umo_carve_release(carve, extent);
    umo_carve_keep_enforce(carve);
    (void)pthread_mutex_unlock(&carve->lock);
}

void umo_carve_pass_other(umo_carve *carve, const void *data, uint64_t owner)
{
    umo_heap *heap;
    umo_extent *extent = entry_find(carve, data, &heap);
    (void)umo_carve_lock(carve);
    umo_extent_mix(extent, owner, 0);
    (void)pthread_mutex_unlock(&carve->lock);
}

void umo_carve_live_add(umo_carve *carve, size_t size_bytes, size_t kept_bytes)
{
    (void)umo_carve_lock(carve);
    umo_carve_peak_note(carve, NULL, size_bytes);
    carve->live_bytes += (int64_t)size_bytes;
    carve->other_kept_bytes -= kept_bytes;
    (void)pthread_mutex_unlock(&carve->lock);
}

void umo_carve_live_remove(umo_carve *carve, size_t size_bytes, size_t kept_bytes)
{
    (void)umo_carve_lock(carve);
    carve->live_bytes -= (int64_t)size_bytes;
    carve->other_kept_bytes += kept_bytes;
    umo_carve_keep_enforce(carve);
    (void)pthread_mutex_unlock(&carve->lock);
}

bool umo_carve_find(umo_carve *carve, const void *address, umo_pool_block *out, void **user)
{
    umo_heap *heap;
    bool found = false;
    (void)umo_carve_lock(carve);
    if (entry_find(carve, address, &heap) != NULL) {
        const umo_extent *extent = umo_heap_find(heap, address);
        umo_extent_state state = extent != NULL ? umo_extent_state_get(extent) : UMO_EXTENT_NONE;
        if (state == UMO_EXTENT_LIVE || state == UMO_EXTENT_OTHER) {
            char *data = umo_extent_data(heap, extent);
            size_t within = (size_t)((const char *)address - data);
            found = within < extent->asked_bytes;
            *out = (umo_pool_block){
                .data = data, .size_bytes = (size_t)extent->asked_bytes, .owner = extent->owner};
            *user = state == UMO_EXTENT_OTHER ? extent->user : NULL;
        }
    }
    (void)pthread_mutex_unlock(&carve->lock);
    return found;
}

/* ---- giving back, and figures ---- */

size_t umo_carve_trim(umo_carve *carve, size_t keep_bytes, uint64_t stamp_ns)
{
    const uint64_t start_ns = umo_trace_clock();
    size_t total = 0;
    bool emptied = false;
    for (bool more = true; more;) {
        size_t gone = 0;
        (void)umo_carve_lock(carve);
        uint64_t kept = umo_carve_kept_now(carve);
        if (kept > keep_bytes) {
            if (!emptied && stamp_ns == UINT64_MAX) {
                umo_carve_caches_empty(carve);
                kept = umo_carve_kept_now(carve);
            }
            emptied = true;
            for (int i = 0; i < UMO_CARVE_HEAPS && gone < SLICE_BYTES; i++) {
                uint64_t surplus = kept > keep_bytes + gone ? kept - keep_bytes - gone : 0;
                size_t most = surplus < SLICE_BYTES - gone ? (size_t)surplus : SLICE_BYTES - gone;
                gone += most > 0 ? umo_heap_empty(&carve->heaps[i], most, stamp_ns) : 0;
            }
            umo_carve_charge_less(carve);
            carve->stats.trimmed_bytes += gone;
            carve->stats.trims += gone > 0 && total == 0 ? 1 : 0;
        }
        more = gone > 0;
        total += gone;
        if (!more && stamp_ns == UINT64_MAX && (total > 0 || reserved_of(carve) == 0)) {
            carve->loan_bytes = 0;
        }
        (void)pthread_mutex_unlock(&carve->lock);
    }
    if (total > 0) {
        UMO_TRACE(.kind = UMO_EVENT_POOL_TRIM, .scope = carve->scope, .size_bytes = total,
                  .start_ns = start_ns);
    }
    return total;
}

void umo_carve_read(umo_carve *carve, umo_pool_stats *out)
{
    (void)umo_carve_lock(carve);
    umo_cache *self = umo_cache_get(&carve->slot);
    umo_caches_block(carve->caches, self);
    umo_carve_peak_note(carve, NULL, 0);
    *out = carve->stats;
    for (const umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        out->hits += relaxed(&cache->takes);
        out->metadata_bytes += sizeof *cache;
    }
    out->live_bytes = (uint64_t)(umo_carve_live(carve) - carve->ahead_bytes);
    out->kept_bytes = umo_carve_kept_now(carve);
    umo_caches_unblock(carve->caches, self);
    out->reserved_bytes = reserved_of(carve);
    size_t longest = 0;
    for (int i = 0; i < UMO_CARVE_HEAPS; i++) {
        const umo_heap *heap = &carve->heaps[i];
        size_t this_longest = umo_heap_longest(heap);
        longest = longest > this_longest ? longest : this_longest;
        out->moved_bytes += heap->moved_bytes;
        out->metadata_bytes += heap->extent_count * sizeof *heap->extents +
                               (heap->mapped_bytes >> heap->unit_shift) * sizeof *heap->units;
    }
    out->fragmentation =
        out->kept_bytes > longest ? 1.0 - (double)longest / (double)out->kept_bytes : 0.0;
    (void)pthread_mutex_unlock(&carve->lock);
}

static uint64_t activity_of(const umo_carve *carve)
{
    uint64_t sum = 0;
    for (const umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        uint64_t live = (uint64_t)atomic_load_explicit(&cache->live_bytes, memory_order_relaxed);
        sum += relaxed(&cache->takes) * 0x9e3779b97f4a7c15u + live * 0xbf58476d1ce4e5b9u;
    }
    sum += (carve->stats.hits + carve->stats.misses) * 0x94d049bb133111ebu +
           (uint64_t)carve->live_bytes * 31u;
    return sum;
}

uint64_t umo_carve_activity(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    carve->clock_ns = umo_os_now_ns();
    uint64_t sum = activity_of(carve);
    (void)pthread_mutex_unlock(&carve->lock);
    return sum;
}

bool umo_carve_disarm(umo_carve *carve, uint64_t activity)
{
    (void)umo_carve_lock(carve);
    umo_cache *self = umo_cache_get(&carve->slot);
    umo_caches_block(carve->caches, self);
    bool same = activity_of(carve) == activity;
    for (umo_cache *cache = carve->caches; cache != NULL && same; cache = cache->next) {
        umo_carve_cache_empty(carve, cache);
        /* Without room, its next give comes to the lock. */
        atomic_store_explicit(&cache->limit_bytes, 0, memory_order_relaxed);
        atomic_store_explicit(&cache->room_bytes, 0, memory_order_relaxed);
    }
    umo_caches_unblock(carve->caches, self);
    if (same) {
        carve->armed = false;
    }
    (void)pthread_mutex_unlock(&carve->lock);
    return same;
}

void umo_carve_keep(umo_carve *carve, uint64_t bytes_max, uint32_t percent)
{
    (void)umo_carve_lock(carve);
    carve->keep_bytes_max = bytes_max;
    carve->keep_percent = percent;
    umo_cache *self = umo_cache_get(&carve->slot);
    umo_caches_block(carve->caches, self);
    for (umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        umo_carve_cache_empty(carve, cache);
        umo_carve_cache_limit(carve, cache);
    }
    umo_caches_unblock(carve->caches, self);
    umo_carve_keep_enforce(carve);
    (void)pthread_mutex_unlock(&carve->lock);
}

void umo_carve_fork_lock(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    umo_caches_block(carve->caches, umo_cache_get(&carve->slot));
}

void umo_carve_fork_unlock(umo_carve *carve, bool child)
{
    umo_cache *self = umo_cache_get(&carve->slot);
    for (umo_cache *cache = carve->caches; cache != NULL && child; cache = cache->next) {
        /* The next take or give comes to the lock, and finds the child's keeper. */
        atomic_store_explicit(&cache->limit_bytes, umo_carve_cached(cache), memory_order_relaxed);
        atomic_store_explicit(&cache->room_bytes, 0, memory_order_relaxed);
        atomic_store_explicit(&cache->alarm_bytes, INT64_MIN, memory_order_relaxed);
        carve->armed = false;
    }
    umo_caches_unblock(carve->caches, self);
    (void)pthread_mutex_unlock(&carve->lock);
}

uint64_t umo_carve_reserved(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    uint64_t bytes = reserved_of(carve);
    (void)pthread_mutex_unlock(&carve->lock);
    return bytes;
}

uint64_t umo_carve_kept(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    uint64_t bytes = umo_carve_kept_now(carve);
    (void)pthread_mutex_unlock(&carve->lock);
    return bytes;
}

uint64_t umo_carve_used(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    int64_t live = umo_carve_live(carve);
    (void)pthread_mutex_unlock(&carve->lock);
    return live > 0 ? (uint64_t)live : 0;
}

uint64_t umo_carve_peak(umo_carve *carve)
{
    (void)umo_carve_lock(carve);
    uint64_t bytes = carve->stats.peak_live_bytes;
    (void)pthread_mutex_unlock(&carve->lock);
    return bytes;
}

/* ---- life ---- */

/* A thread ends: what it cached and counted stays with the pool. */
static void cache_retire(void *user, umo_cache *cache)
{
    umo_carve *carve = user;
    (void)umo_carve_lock(carve);
    umo_carve_cache_empty(carve, cache);
    carve->live_bytes += atomic_load_explicit(&cache->live_bytes, memory_order_relaxed);
    carve->stats.hits += relaxed(&cache->takes);
    umo_cache **link = &carve->caches;
    while (*link != cache) {
        link = &(*link)->next;
    }
    *link = cache->next;
    carve->cache_count--;
    (void)pthread_mutex_unlock(&carve->lock);
    umo_cache_destroy(cache);
}

bool umo_carve_init(umo_carve *carve, umo_scope *scope, size_t align_bytes)
{
    uint64_t memory = umo_os_memory_bytes();
    size_t range = (size_t)4 << 30;
    if (memory * 2 > range) {
        range = memory < (uint64_t)1 << 39 ? (size_t)memory * 2 : (size_t)1 << 40;
    }
    *carve = (umo_carve){.scope = scope, .keep_bytes_max = UINT64_MAX, .keep_percent = 100};
    carve->align_mask = (align_bytes > UMO_HEAP_GRANULE ? align_bytes : UMO_HEAP_GRANULE) - 1;
    if (!umo_heap_init(&carve->heaps[UMO_CARVE_LONG], range, LONG_UNIT_BYTES)) {
        return false;
    }
    if (!umo_heap_init(&carve->heaps[UMO_CARVE_SHORT], range / 64, UMO_HEAP_GRANULE)) {
        umo_heap_finish(&carve->heaps[UMO_CARVE_LONG]);
        return false;
    }
    (void)pthread_mutex_init(&carve->lock, NULL);
    carve->slot.retire = cache_retire;
    carve->slot.user = carve;
    umo_cache_slot_open(&carve->slot);
    return true;
}

umo_status umo_carve_bind(umo_carve *carve, int32_t node, umo_error *error)
{
    umo_status status = UMO_OK;
    for (int i = 0; i < UMO_CARVE_HEAPS && status == UMO_OK; i++) {
        status = umo_heap_bind(&carve->heaps[i], node, error);
    }
    return status;
}

void umo_carve_finish(umo_carve *carve)
{
    umo_cache_slot_close(&carve->slot);
    while (carve->caches != NULL) {
        umo_cache *next = carve->caches->next;
        umo_cache_destroy(carve->caches);
        carve->caches = next;
    }
    umo_scope_uncharge(carve->scope, carve->charged_bytes);
    UMO_TRACE(.kind = UMO_EVENT_FREE, .scope = carve->scope, .size_bytes = carve->charged_bytes);
    for (int i = 0; i < UMO_CARVE_HEAPS; i++) {
        BLOCK_SHOW(carve->heaps[i].base, carve->heaps[i].mapped_bytes);
        umo_heap_finish(&carve->heaps[i]);
    }
    (void)pthread_mutex_destroy(&carve->lock);
}
