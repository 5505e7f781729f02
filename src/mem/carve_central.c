/*
 * See carve_central.h. What it decides: memory is taken from the system only as long as what is
 * held stays within a few percent of what was live at the peak; beyond that the caches are emptied
 * and pages of holes are moved.
 */
#include "mem/carve_central.h"

#include "mem/heap_pages.h"
#include "trace/trace.h"

/* What is held may pass the peak of what is live by this share, and by the floor. */
#define SLACK_SHARE 24u
#define SLACK_HUGE_SHARE 16u /* by a huge page, if that is at most this share */
#define SLACK_FLOOR_BYTES ((uint64_t)64 << 10)

/* And by a loan, which an idle pool returns. It doubles each time that other threads had to be
 * interrupted for what their caches held: a pool whose threads hand blocks on would do that for
 * each few of them. At most so much, or this share of the peak. */
#define LOAN_MIN_BYTES ((uint64_t)256 << 10)
#define LOAN_MAX_BYTES ((uint64_t)2 << 20)
#define LOAN_SHARE 16u

/* Of the peak, what one thread's cache and the stash may hold; and the bounds of both. */
#define CACHE_SHARE 64u
#define CACHE_MIN_BYTES ((uint64_t)2 << 20)
#define CACHE_MAX_BYTES ((uint64_t)4 << 20)
#define KEEP_SHARE 16u /* where what may be kept is bounded: of that */
#define STASH_SHARE 32u
#define STASH_MIN_BYTES ((uint64_t)4 << 20)

/* Where there is room below that, so much more than is asked for is taken from the system at a
 * time, or this share of the peak. */
#define AHEAD_MIN_BYTES ((uint64_t)64 << 10)
#define AHEAD_MAX_BYTES ((uint64_t)1 << 20) /* they may be brought under the lock */
#define AHEAD_SHARE 64u

/* Pages that are brought, and how often it is looked whether that is worth it: of so many bytes
 * that came, so many at most are left to be touched. */
#define BRING_MIN_BYTES ((size_t)16 << 10)
#define BRING_MAX_BYTES ((size_t)64 << 20) /* a block far longer than others may be unlike them */
#define WATCH_BYTES ((uint64_t)8 << 20)
#define WATCHED_MAX_BYTES ((size_t)1 << 20)

/* Blocks up to a size are cut several at a time, when the second of a size is asked for; a cache
 * that is filled so holds at most this share of the peak. */
#define FILL_MAX_BYTES ((size_t)24 << 10)
#define FILL_MAX 7u
#define FILL_SHARE 64u

/* The scope is charged ahead by this share of what is held, so that few takes walk its parents. */
#define CHARGE_SHARE 512u

/* The longest block that any cache holds. */
#define LONG_MAX_BYTES ((uint64_t)1 << 20)

#define LOCK_TRIES 100

bool umo_carve_lock(umo_carve *carve)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (pthread_mutex_trylock(&carve->lock) == 0) {
            return i > 0;
        }
        umo_os_pause();
    }
    (void)pthread_mutex_lock(&carve->lock);
    return true;
}

int64_t umo_carve_live(const umo_carve *carve)
{
    int64_t live = carve->live_bytes;
    for (const umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        live += atomic_load_explicit(&cache->live_bytes, memory_order_relaxed);
    }
    return live;
}

uint64_t umo_carve_cached(const umo_cache *cache)
{
    uint64_t limit = relaxed(&cache->limit_bytes);
    uint64_t room = relaxed(&cache->room_bytes);
    return limit > room ? limit - room : 0;
}

static uint64_t cached_sum(const umo_carve *carve)
{
    uint64_t cached = carve->stash_bytes;
    for (const umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        cached += umo_carve_cached(cache);
    }
    return cached;
}

uint64_t umo_carve_kept_now(const umo_carve *carve)
{
    uint64_t used = carve->out_bytes;
    uint64_t cached = cached_sum(carve) + carve->other_kept_bytes;
    used = used > cached ? used - cached : 0;
    uint64_t reserved = reserved_of(carve);
    return reserved > used ? reserved - used : 0;
}

/* How many bytes may be kept; UINT64_MAX: what may be reserved bounds it. */
static uint64_t keep_limit(const umo_carve *carve)
{
    if (carve->keep_bytes_max == UINT64_MAX && carve->keep_percent == 100) {
        return UINT64_MAX;
    }
    uint64_t most = carve->keep_bytes_max;
    most = most < carve->stats.peak_live_bytes ? most : carve->stats.peak_live_bytes;
    return most / 100 * carve->keep_percent + most % 100 * carve->keep_percent / 100;
}

static uint64_t cache_limit(const umo_carve *carve)
{
    uint64_t limit = carve->stats.peak_live_bytes / CACHE_SHARE;
    limit = limit > CACHE_MIN_BYTES ? limit : CACHE_MIN_BYTES;
    limit = limit < CACHE_MAX_BYTES ? limit : CACHE_MAX_BYTES;
    /* Giving to a cache enforces nothing, so what may be kept is passed by so much at most. */
    uint64_t most = keep_limit(carve) / KEEP_SHARE / (carve->cache_count + 1);
    return limit < most ? limit : most;
}

/* Notes that live bytes rise by size_bytes, and lets this thread's cache go on without asking as
 * long as that makes no new peak. */
void umo_carve_peak_note(umo_carve *carve, umo_cache *cache, size_t size_bytes)
{
    int64_t live = umo_carve_live(carve) + (int64_t)size_bytes;
    if (live > (int64_t)carve->stats.peak_live_bytes) {
        carve->stats.peak_live_bytes = (uint64_t)live;
    }
    if (cache != NULL) {
        int64_t mine = atomic_load_explicit(&cache->live_bytes, memory_order_relaxed);
        int64_t margin =
            ((int64_t)carve->stats.peak_live_bytes - live) / (int64_t)carve->cache_count;
        atomic_store_explicit(&cache->alarm_bytes, mine + (int64_t)size_bytes + margin,
                              memory_order_relaxed);
    }
}

/* ---- the budget ---- */

static bool charge_more(umo_carve *carve, uint64_t reserved)
{
    if (reserved <= carve->charged_bytes) {
        return true;
    }
    uint64_t exact = reserved - carve->charged_bytes;
    uint64_t ahead = exact + reserved / CHARGE_SHARE;
    if (!umo_scope_charge(carve->scope, ahead)) {
        ahead = exact;
        if (!umo_scope_charge(carve->scope, ahead)) {
            return false;
        }
    }
    umo_scope_count_alloc(carve->scope, ahead);
    UMO_TRACE(.kind = UMO_EVENT_ALLOC, .scope = carve->scope, .size_bytes = ahead);
    carve->charged_bytes += ahead;
    return true;
}

void umo_carve_charge_less(umo_carve *carve)
{
    uint64_t reserved = reserved_of(carve);
    if (carve->charged_bytes > reserved) {
        umo_scope_uncharge(carve->scope, carve->charged_bytes - reserved);
        UMO_TRACE(.kind = UMO_EVENT_FREE, .scope = carve->scope,
                  .size_bytes = carve->charged_bytes - reserved);
        carve->charged_bytes = reserved;
    }
}

/* ---- between caches, stash and heaps; the lock is held ---- */

void umo_carve_release(umo_carve *carve, umo_extent *extent)
{
    carve->out_bytes -= extent->size_bytes;
    umo_heap_give(heap_of(carve, granules_of(extent)), extent, carve->clock_ns);
}

/* Gives a list of cached blocks to the heap. Returns their bytes. */
static uint64_t list_release(umo_carve *carve, umo_cache_bin *bin)
{
    uint64_t bytes = 0;
    umo_heap *heap = heap_of(carve, bin->granules);
    while (bin->first != 0) {
        umo_extent *extent = &heap->extents[bin->first];
        bin->first = extent->next;
        bytes += extent->size_bytes;
        umo_carve_release(carve, extent);
    }
    return bytes;
}

static unsigned stash_index(size_t granules)
{
    uint32_t hash = (uint32_t)((uint32_t)granules * 2654435769u);
    return hash >> (32u - UMO_CARVE_STASH_SHIFT);
}

static void stash_bin_release(umo_carve *carve, unsigned index)
{
    carve->stash_bytes -= list_release(carve, &carve->stash[index]);
    carve->stash_counts[index] = 0;
}

static void stash_release(umo_carve *carve, uint64_t keep_bytes)
{
    for (unsigned i = 0; i < UMO_CARVE_STASH && carve->stash_bytes > keep_bytes; i++) {
        carve->stash_hand = (carve->stash_hand + 1) % UMO_CARVE_STASH;
        stash_bin_release(carve, carve->stash_hand);
    }
}

uint64_t umo_carve_bin_stash(umo_carve *carve, umo_cache_bin *bin)
{
    if (bin->first == 0) {
        return 0;
    }
    if ((uint64_t)bin->granules << UMO_HEAP_GRANULE_SHIFT > LONG_MAX_BYTES) {
        return list_release(carve, bin);
    }
    unsigned index = stash_index(bin->granules);
    umo_cache_bin *stash = &carve->stash[index];
    if (stash->granules != bin->granules) {
        stash_bin_release(carve, index);
        stash->granules = bin->granules;
    }
    const umo_heap *heap = heap_of(carve, bin->granules);
    uint32_t count = 1;
    umo_extent *last = &heap->extents[bin->first];
    while (last->next != 0) {
        last = &heap->extents[last->next];
        count++;
    }
    last->next = stash->first;
    stash->first = bin->first;
    bin->first = 0;
    carve->stash_counts[index] += count;
    uint64_t bytes = (uint64_t)count * bin->granules << UMO_HEAP_GRANULE_SHIFT;
    carve->stash_bytes += bytes;
    uint64_t limit = carve->stats.peak_live_bytes / STASH_SHARE;
    stash_release(carve, limit > STASH_MIN_BYTES ? limit : STASH_MIN_BYTES);
    return bytes;
}

void umo_carve_cache_room(umo_carve *carve, umo_cache *cache, uint64_t room_bytes)
{
    const unsigned bins = UMO_CACHE_SMALL + UMO_CACHE_LARGE;
    for (unsigned i = 0; i < bins && relaxed(&cache->room_bytes) < room_bytes; i++) {
        cache->hand = (cache->hand + 1) % bins;
        umo_cache_bin *bin = cache->hand < UMO_CACHE_SMALL
                                 ? &cache->small[cache->hand]
                                 : &cache->large[cache->hand - UMO_CACHE_SMALL];
        cache_room_add(cache, umo_carve_bin_stash(carve, bin));
    }
}

/* Takes the place for a long block away: the thread has to meet others again. */
static void long_bin_drop(umo_carve *carve, umo_cache *cache)
{
    umo_cache_bin *bin = cache->long_bin;
    if (bin != NULL && bin->granules > UMO_CACHE_LONG) {
        cache_room_add(cache, list_release(carve, bin));
        bin->granules = 0;
    }
    cache->long_bin = NULL;
}

bool umo_carve_cacheable(umo_carve *carve, umo_cache *cache, const umo_extent *extent, bool met)
{
    size_t granules = granules_of(extent);
    if (granules <= UMO_CACHE_LONG) {
        return true;
    }
    umo_cache_bin *bin = umo_cache_bin_of(cache, granules);
    if (cache->long_bin == bin && bin->granules == granules) {
        if (!umo_cache_long_fits(heap_of(carve, granules), bin)) {
            cache_room_add(cache, umo_carve_bin_stash(carve, bin));
        }
        return extent->size_bytes <= relaxed(&cache->room_bytes);
    }
    if (!met || extent->size_bytes > LONG_MAX_BYTES) {
        return false;
    }
    long_bin_drop(carve, cache);
    if (extent->size_bytes > relaxed(&cache->room_bytes)) {
        umo_carve_cache_limit(carve, cache);
    }
    if (extent->size_bytes > relaxed(&cache->room_bytes)) {
        return false;
    }
    cache->long_bin = bin;
    return true;
}

void umo_carve_cache_empty(umo_carve *carve, umo_cache *cache)
{
    for (unsigned i = 0; i < UMO_CACHE_SMALL; i++) {
        cache_room_add(cache, list_release(carve, &cache->small[i]));
    }
    for (unsigned i = 0; i < UMO_CACHE_LARGE; i++) {
        umo_cache_bin *bin = &cache->large[i];
        cache_room_add(cache, list_release(carve, bin));
        if (bin->granules > UMO_CACHE_LONG) {
            bin->granules = 0; /* the thread has to meet others again, or what they gave */
        }
    }
    long_bin_drop(carve, cache);
}

void umo_carve_caches_empty(umo_carve *carve)
{
    umo_cache *self = umo_cache_get(&carve->slot);
    umo_caches_block(carve->caches, self);
    for (umo_cache *cache = carve->caches; cache != NULL; cache = cache->next) {
        umo_carve_cache_empty(carve, cache);
    }
    umo_caches_unblock(carve->caches, self);
    stash_release(carve, 0);
}

void umo_carve_cache_limit(const umo_carve *carve, umo_cache *cache)
{
    uint64_t limit = cache_limit(carve);
    uint64_t cached = umo_carve_cached(cache);
    limit = limit > cached ? limit : cached;
    atomic_store_explicit(&cache->limit_bytes, limit, memory_order_relaxed);
    atomic_store_explicit(&cache->room_bytes, limit - cached, memory_order_relaxed);
}

umo_cache *umo_carve_cache_make(umo_carve *carve)
{
    /* In test mode every block goes the way on which it is overwritten. */
    umo_cache *cache = carve->poisoned ? NULL : umo_cache_create(&carve->slot);
    if (cache != NULL) {
        cache->next = carve->caches;
        carve->caches = cache;
        carve->cache_count++;
        umo_carve_cache_limit(carve, cache);
    }
    return cache;
}

void umo_carve_wake(umo_carve *carve)
{
    carve->armed = true;
    carve->clock_ns = umo_os_now_ns();
    carve->wake(carve->user);
}

void umo_carve_keep_enforce(umo_carve *carve)
{
    uint64_t most = keep_limit(carve);
    if (most == UINT64_MAX) {
        return;
    }
    uint64_t kept = umo_carve_kept_now(carve);
    if (kept > most && cached_sum(carve) > most / 2) {
        umo_carve_caches_empty(carve);
    }
    for (int i = 0; i < UMO_CARVE_HEAPS && kept > most; i++) {
        size_t gone = umo_heap_empty(&carve->heaps[i], (size_t)(kept - most), UINT64_MAX);
        carve->stats.trimmed_bytes += gone;
        carve->stats.trims += gone > 0 ? 1 : 0;
        kept -= gone;
    }
    umo_carve_charge_less(carve);
}

/* ---- taking ---- */

/* How many bytes may be held. */
static uint64_t reserve_limit(const umo_carve *carve)
{
    const uint64_t peak = carve->stats.peak_live_bytes;
    const uint64_t huge = carve->heaps[UMO_CARVE_LONG].huge_bytes;
    uint64_t slack = peak / SLACK_SHARE;
    if (slack < huge && huge <= peak / SLACK_HUGE_SHARE) {
        slack = huge;
    }
    return peak + slack + SLACK_FLOOR_BYTES + carve->loan_bytes;
}

static void loan_raise(umo_carve *carve)
{
    uint64_t most = carve->stats.peak_live_bytes / LOAN_SHARE;
    most = most > LOAN_MAX_BYTES ? most : LOAN_MAX_BYTES;
    uint64_t loan = carve->loan_bytes != 0 ? 2 * carve->loan_bytes : LOAN_MIN_BYTES;
    carve->loan_bytes = loan < most ? loan : most;
}

/* Takes a place, with `reuse` bytes of the pages that it lacks from free extents. */
static umo_extent *place_fill(umo_carve *carve, umo_heap *heap, const umo_heap_place *place,
                              size_t reuse, umo_status *status)
{
    uint64_t wanted = reserved_of(carve) + umo_heap_place_missing(place) - reuse;
    if (!charge_more(carve, wanted)) {
        *status = UMO_E_LIMIT;
        return NULL;
    }
    umo_extent *extent = umo_heap_place_take(heap, place, reuse);
    if (extent == NULL) {
        umo_carve_charge_less(carve);
        *status = UMO_E_NOMEM;
    } else if (!charge_more(carve, reserved_of(carve))) {
        /* Fewer pages could be had than free bytes promised, and there is no budget for more. */
        umo_heap_give(heap, extent, 0);
        (void)umo_heap_empty(heap, umo_heap_place_missing(place), UINT64_MAX);
        umo_carve_charge_less(carve);
        *status = UMO_E_LIMIT;
        extent = NULL;
    }
    return extent;
}

/*
 * Pages are worth bringing many at a time, if they will be touched: that saves a fifth of the
 * faults' time. Whether they will is seen on a few that are left: was the page in their middle
 * there when the next ones came? Sets from and to of the pages to bring; false for none.
 */
static bool fresh_bring(umo_carve *carve, const umo_heap *heap, size_t *from, size_t *to)
{
    *from = heap->fresh_from_bytes;
    *to = heap->fresh_to_bytes;
    if (*to - *from < BRING_MIN_BYTES || heap->huge_bytes != 0) {
        return false;
    }
    carve->watched_bytes += *to - *from;
    if (carve->watched != NULL && carve->watched_bytes >= WATCH_BYTES) {
        carve->touched = umo_os_pages_present(carve->watched, 1) != 0;
        carve->watched = NULL;
    }
    if (carve->watched == NULL) {
        size_t left = *to - *from < WATCHED_MAX_BYTES ? *to - *from : WATCHED_MAX_BYTES;
        carve->watched = heap->base + *from + left / 2;
        carve->watched_bytes = 0;
        *from += left;
    }
    return carve->touched && *from < *to;
}

/* A block with more pages than its own from the system, for the next ones: a short one's are many
 * at a time, and any one's end where a huge page does. NULL where those would be too many, or
 * cannot be had. */
static umo_extent *ahead_take(umo_carve *carve, umo_heap *heap, size_t size_bytes)
{
    /* What short blocks leave unused cannot be moved to where long ones need it. */
    const bool movable = heap == &carve->heaps[UMO_CARVE_LONG];
    uint64_t ahead = movable ? carve->stats.peak_live_bytes / AHEAD_SHARE : 0;
    ahead = ahead > AHEAD_MIN_BYTES ? ahead / AHEAD_MIN_BYTES * AHEAD_MIN_BYTES : AHEAD_MIN_BYTES;
    ahead = ahead < AHEAD_MAX_BYTES ? ahead : AHEAD_MAX_BYTES;
    ahead = size_bytes < ahead ? ahead : 0;
    umo_heap_place place;
    if (!umo_heap_place_find(heap, size_bytes + (size_t)ahead, &place)) {
        return NULL;
    }
    const umo_heap_place least = place;
    if (movable) {
        umo_heap_place_grow(heap, &place);
    }
    const uint64_t kept = umo_carve_kept_now(carve);
    const uint64_t reserved = reserved_of(carve);
    if (reserved + umo_heap_place_missing(&place) > reserve_limit(carve) ||
        kept + place.size_bytes - size_bytes > keep_limit(carve)) {
        place = least;
    }
    if (place.size_bytes == size_bytes ||
        reserved + umo_heap_place_missing(&place) > reserve_limit(carve) ||
        kept + ahead > keep_limit(carve)) {
        return NULL;
    }
    umo_status status = UMO_OK;
    umo_extent *extent = place_fill(carve, heap, &place, 0, &status);
    if (extent != NULL) {
        carve->stats.misses++;
        if ((extent->size_bytes - size_bytes) >> heap->unit_shift != 0) {
            umo_heap_give(heap, umo_heap_split(heap, extent, size_bytes), carve->clock_ns);
        }
        size_t from;
        size_t to;
        if (fresh_bring(carve, heap, &from, &to)) {
            (void)umo_os_pages_bring(heap->base + from, to - from);
        }
    }
    return extent;
}

/* The way to more pages. */
static umo_extent *place_take(umo_carve *carve, umo_heap *heap, size_t size_bytes,
                              umo_status *status)
{
    umo_extent *ahead = ahead_take(carve, heap, size_bytes);
    if (ahead != NULL) {
        return ahead;
    }
    umo_heap_place place;
    if (!umo_heap_place_find(heap, size_bytes, &place)) {
        *status = UMO_E_NOMEM;
        return NULL;
    }
    bool lean = heap == &carve->heaps[UMO_CARVE_LONG]; /* few pages, or many small moves */
    uint64_t limit = lean ? reserve_limit(carve) : UINT64_MAX;
    size_t missing = umo_heap_place_missing(&place);
    uint64_t cached = cached_sum(carve);
    /* Emptying the own cache alone interrupts nobody. */
    if (reserved_of(carve) + missing > limit &&
        cached > (carve->cache_count > 1 ? (uint64_t)missing : 0)) {
        /* Before pages are moved: what is cached may be whole. */
        if (carve->cache_count > 1) {
            loan_raise(carve);
        }
        umo_carve_caches_empty(carve);
        umo_extent *extent = umo_heap_take_free(heap, size_bytes);
        if (extent != NULL) {
            carve->stats.hits++;
            return extent;
        }
        if (!umo_heap_place_find(heap, size_bytes, &place)) {
            *status = UMO_E_NOMEM; /* what was the end of a place has joined others */
            return NULL;
        }
        missing = umo_heap_place_missing(&place);
    }
    size_t spare = (size_t)heap->free_bytes;
    spare -= umo_heap_place_free(&place);
    spare = spare < missing ? spare : missing;
    uint64_t wanted = reserved_of(carve) + missing;
    size_t reuse = wanted > limit ? (size_t)(wanted - limit) : 0;
    umo_extent *extent = place_fill(carve, heap, &place, reuse < spare ? reuse : spare, status);
    if (extent == NULL && *status == UMO_E_LIMIT && spare > reuse &&
        umo_heap_place_find(heap, size_bytes, &place)) {
        *status = UMO_OK;
        extent = place_fill(carve, heap, &place, spare, status);
    }
    if (extent != NULL) {
        size_t from;
        size_t to;
        carve->stats.misses++;
        if (fresh_bring(carve, heap, &from, &to)) {
            carve->bring = heap->base + from;
            carve->bring_bytes = to - from < BRING_MAX_BYTES ? to - from : BRING_MAX_BYTES;
        }
    }
    return extent;
}

void umo_carve_cache_fill(umo_carve *carve, umo_cache *cache, umo_cache_bin *bin,
                          const umo_extent *extent, uint64_t owner)
{
    const size_t bytes = (size_t)extent->size_bytes;
    const uint64_t limit = carve->stats.peak_live_bytes / FILL_SHARE;
    const uint64_t cached = umo_carve_cached(cache);
    uint64_t room = limit > cached ? limit - cached : 0;
    room = room < relaxed(&cache->room_bytes) ? room : relaxed(&cache->room_bytes);
    room = room < FILL_MAX_BYTES ? room : FILL_MAX_BYTES;
    uint32_t most = (uint32_t)(room / bytes);
    umo_heap *heap = heap_of(carve, granules_of(extent));
    const umo_extent *behind = umo_heap_after(heap, extent);
    if (most == 0 || behind == NULL || umo_carve_foreign(behind, owner)) {
        return; /* they would be handed out without a look */
    }
    most = umo_heap_take_behind(heap, extent, bytes, most < FILL_MAX ? most : FILL_MAX);
    carve->out_bytes += most * bytes;
    cache_room_add(cache, (uint64_t)0 - most * bytes);
    for (; most > 0; most--) {
        umo_extent *more = umo_heap_after(heap, extent);
        more->owner = owner;
        more->marks = 0;
        umo_extent_state_set(more, UMO_EXTENT_CACHED);
        more->next = bin->first;
        bin->first = umo_extent_index(heap, more);
        extent = more;
    }
}

/* A block from the stash. The others go along to the thread's cache if it has room for all: they
 * are not looked at here, since they are likely with another processor. */
static umo_extent *stash_take(umo_carve *carve, umo_cache *cache, umo_heap *heap, size_t rounded)
{
    size_t granules = rounded >> UMO_HEAP_GRANULE_SHIFT;
    unsigned index = stash_index(granules);
    umo_cache_bin *stash = &carve->stash[index];
    if (stash->granules != granules || stash->first == 0) {
        return NULL;
    }
    umo_extent *extent = &heap->extents[stash->first];
    stash->first = extent->next;
    carve->stash_bytes -= rounded;
    uint64_t others = (uint64_t)--carve->stash_counts[index] * rounded;
    umo_cache_bin *bin = cache != NULL ? umo_cache_bin_of(cache, granules) : NULL;
    if (bin != NULL && bin->first == 0 && others <= relaxed(&cache->room_bytes)) {
        *bin = *stash;
        stash->first = 0;
        carve->stash_counts[index] = 0;
        carve->stash_bytes -= others;
        cache_room_add(cache, (uint64_t)0 - others);
    }
    return extent;
}

umo_extent *umo_carve_central_take(umo_carve *carve, umo_cache *cache, size_t rounded,
                                   umo_status *status)
{
    umo_heap *heap = heap_of(carve, rounded >> UMO_HEAP_GRANULE_SHIFT);
    umo_extent *extent = stash_take(carve, cache, heap, rounded);
    if (extent != NULL) {
        carve->stats.hits++;
        return extent;
    }
    extent = umo_heap_take_free(heap, rounded);
    if (extent != NULL) {
        carve->stats.hits++;
    } else {
        extent = place_take(carve, heap, rounded, status);
    }
    if (extent != NULL) {
        carve->out_bytes += extent->size_bytes;
        uint64_t reserved = reserved_of(carve);
        if (reserved > carve->stats.peak_reserved_bytes) {
            carve->stats.peak_reserved_bytes = reserved;
        }
    }
    return extent;
}
