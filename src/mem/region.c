/*
 * Registered regions, and the cache of wraps inside them.
 *
 * A wrap is keyed by its address, which is sound only inside a region, whose owner vouches that the
 * address means the same memory until it is released. A hit is one hash look-up under one short
 * lock; the driver is called without it.
 */
#include "mem/registry.h"

#include "base/scope.h"
#include "base/size.h"
#include "driver/device.h"
#include "mem/events.h"
#include "os/os.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define EVICTION_LOOKS 64

/* What a hit looks at comes first; see umo_view. */
typedef struct wrap {
    umo_hash_link link;
    umo_device *device;
    uintptr_t data;
    size_t size_bytes;
    umo_buffer *buffer;
    bool writable;
    bool used_again; /* since its turn to make room came last */
    umo_list_link by_age;
    umo_list_link in_region;
    struct wrap *next_surplus; /* unlinked, to be freed */
} wrap;

/* Takes a wrap out of the cache; its reference is given back by the caller, without the lock. */
static void wrap_unlink(umo_registry *registry, wrap *w)
{
    umo_hash_remove(&registry->wraps, &w->link);
    umo_list_remove(&w->by_age);
    umo_list_remove(&w->in_region);
    registry->stats.wraps--;
}

static void wrap_free(wrap *w)
{
    umo_buffer_release(w->buffer);
    umo_device_release(w->device);
    free(w);
}

/* Anybody's wrap goes with its region. */
void umo_registry_drop_wraps(umo_registry *registry, umo_region *region)
{
    for (;;) {
        wrap *w = NULL;
        (void)pthread_mutex_lock(&registry->lock);
        if (region->wraps.previous != &region->wraps) {
            w = UMO_LIST_ENTRY(region->wraps.previous, wrap, in_region);
            wrap_unlink(registry, w);
            assert(region->wraps.previous != &w->in_region); /* not found again */
        }
        (void)pthread_mutex_unlock(&registry->lock);
        if (w == NULL) {
            return;
        }
        wrap_free(w);
    }
}

/* Index of the first region that starts behind address. */
static size_t region_after(const umo_registry *registry, uintptr_t address)
{
    size_t low = 0;
    size_t high = registry->region_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (registry->regions[middle]->start <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The region that holds the whole range, or NULL. */
static umo_region *region_holding(const umo_registry *registry, uintptr_t start, size_t size_bytes)
{
    size_t after = region_after(registry, start);
    if (after == 0) {
        return NULL;
    }
    umo_region *region = registry->regions[after - 1];
    size_t offset = (size_t)(start - region->start);
    return offset < region->size_bytes && size_bytes <= region->size_bytes - offset ? region : NULL;
}

umo_status umo_region_register(umo_registry *registry, void *data, size_t size_bytes, bool writable,
                               umo_region **out, umo_error *error)
{
    uintptr_t start = (uintptr_t)data;
    if (data == NULL || size_bytes == 0 || size_bytes > UINTPTR_MAX - start) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a region needs memory of at least one byte");
    }
    umo_region *region = malloc(sizeof *region);
    if (region == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a region");
    }
    *region = (umo_region){
        .registry = registry, .start = start, .size_bytes = size_bytes, .writable = writable};
    umo_list_init(&region->wraps);

    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&registry->lock);
    size_t after = region_after(registry, start);
    bool hits_left = after > 0 && start - registry->regions[after - 1]->start <
                                      registry->regions[after - 1]->size_bytes;
    bool hits_right =
        after < registry->region_count && registry->regions[after]->start - start < size_bytes;
    if (hits_left || hits_right) {
        status = umo_error_set(error, UMO_E_INVAL, 0, "the range overlaps a registered region");
        goto done;
    }
    if (registry->region_count == registry->region_capacity) {
        size_t capacity = registry->region_capacity == 0 ? 16 : registry->region_capacity * 2;
        umo_region **regions = realloc(registry->regions, capacity * sizeof(umo_region *));
        if (regions == NULL) {
            status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a region");
            goto done;
        }
        registry->regions = regions;
        registry->region_capacity = capacity;
    }
    memmove(&registry->regions[after + 1], &registry->regions[after],
            (registry->region_count - after) * sizeof(umo_region *));
    registry->regions[after] = region;
    region->number = ++registry->regions_made;
    registry->region_count++;
    registry->stats.regions++;
    *out = region;
    region = NULL;

done:
    (void)pthread_mutex_unlock(&registry->lock);
    free(region);
    return status;
}

void umo_region_release(umo_region *region)
{
    if (region == NULL) {
        return;
    }
    umo_registry *registry = region->registry;
    /* First out of the table, so that nobody wraps in it any more; then the wraps, whose uses are
     * waited for. */
    (void)pthread_mutex_lock(&registry->lock);
    size_t index = region_after(registry, region->start) - 1;
    memmove(&registry->regions[index], &registry->regions[index + 1],
            (registry->region_count - index - 1) * sizeof(umo_region *));
    registry->region_count--;
    registry->stats.regions--;
    (void)pthread_mutex_unlock(&registry->lock);
    umo_registry_drop_wraps(registry, region);
    free(region);
}

static uint64_t wrap_hash(const umo_device *device, uintptr_t data, size_t size_bytes)
{
    return umo_hash_mix(umo_hash_mix((uint64_t)(uintptr_t)device, (uint64_t)data), size_bytes);
}

static wrap *wrap_find(const umo_registry *registry, uint64_t hash, const umo_device *device,
                       uintptr_t data, size_t size_bytes, bool writable)
{
    for (umo_hash_link *link = umo_hash_chain(&registry->wraps, hash); link != NULL;
         link = link->next) {
        wrap *w = UMO_LIST_ENTRY(link, wrap, link);
        if (link->hash == hash && w->device == device && w->data == data &&
            w->size_bytes == size_bytes && w->writable == writable) {
            return w;
        }
    }
    return NULL;
}

/* Marks a wrap as used and gives out a reference. */
static umo_buffer *wrap_use(wrap *w)
{
    w->used_again = true;
    umo_buffer_acquire(w->buffer);
    return w->buffer;
}

/*
 * Unlinks idle wraps until the cache is within its limit; the caller frees them without the lock.
 * A wrap that was used again since its turn came last, or that somebody holds now, has a second
 * chance. However many have, only a few are looked at each time.
 */
static wrap *wraps_make_room(umo_registry *registry)
{
    wrap *surplus = NULL;
    umo_list_link *head = &registry->wraps_by_age;
    for (int looks = 0;
         looks < EVICTION_LOOKS && registry->stats.wraps > registry->options.wraps_max; looks++) {
        wrap *oldest = UMO_LIST_ENTRY(head->previous, wrap, by_age);
        if (oldest->used_again || umo_buffer_refs(oldest->buffer) > 1) {
            oldest->used_again = false;
            umo_list_remove(&oldest->by_age);
            umo_list_push(head, &oldest->by_age);
            continue;
        }
        wrap_unlink(registry, oldest);
        registry->stats.evictions++;
        oldest->next_surplus = surplus;
        surplus = oldest;
    }
    return surplus;
}

/*
 * Puts a new wrap into the cache, making room; the wrap that somebody else put there meanwhile is
 * used instead. NULL when the region is gone: the next one at its address must not find the wrap.
 */
static umo_buffer *wrap_keep(umo_registry *registry, wrap *fresh, uint64_t hash, uint64_t number)
{
    wrap *surplus = fresh;
    umo_buffer *buffer = NULL;
    fresh->next_surplus = NULL;
    (void)pthread_mutex_lock(&registry->lock);
    umo_region *region = region_holding(registry, fresh->data, fresh->size_bytes);
    wrap *w =
        wrap_find(registry, hash, fresh->device, fresh->data, fresh->size_bytes, fresh->writable);
    if (region == NULL || region->number != number) {
        w = NULL;
    } else if (w == NULL) {
        w = fresh;
        umo_hash_insert(&registry->wraps, &w->link, hash);
        umo_list_push(&registry->wraps_by_age, &w->by_age);
        umo_list_push(&region->wraps, &w->in_region);
        registry->stats.wraps++;
    }
    if (w != NULL) {
        bool again = w != fresh;
        buffer = wrap_use(w);
        w->used_again = again;
        if (!again) {
            surplus = wraps_make_room(registry);
        }
    }
    (void)pthread_mutex_unlock(&registry->lock);
    while (surplus != NULL) {
        wrap *next = surplus->next_surplus;
        wrap_free(surplus);
        surplus = next;
    }
    return buffer;
}

/* A found region, as much of it as is needed without the lock. */
typedef struct region_found {
    bool found;
    uint64_t number;
    bool whole_pages; /* the device's pages around the range stay inside it */
} region_found;

static region_found region_look(const umo_registry *registry, const umo_device_info *info,
                                uintptr_t start, size_t size_bytes, bool writable)
{
    const umo_region *region = region_holding(registry, start, size_bytes);
    if (region == NULL || (writable && !region->writable)) {
        return (region_found){0};
    }
    uintptr_t first = umo_round_down(start, info->import_align_bytes);
    size_t wide = 0;
    bool inside =
        first >= region->start &&
        umo_round_up((size_t)(start - first) + size_bytes, info->import_size_align_bytes, &wide) &&
        wide <= region->size_bytes - (size_t)(first - region->start);
    return (region_found){
        .found = true,
        .number = region->number,
        /* To be written, only the range itself is vouched for. */
        .whole_pages = inside && (!writable || info->import_align_bytes == 1),
    };
}

umo_status umo_registry_wrap(umo_registry *registry, umo_device *device, umo_scope *scope,
                             void *data, size_t size_bytes, bool writable, umo_buffer **out,
                             umo_reason *why, umo_error *error)
{
    uintptr_t start = (uintptr_t)data;
    uint64_t hash = wrap_hash(device, start, size_bytes);
    scope = scope != NULL ? scope : registry->scope;
    if (why != NULL) {
        *why = UMO_REASON_NONE;
    }
    (void)pthread_mutex_lock(&registry->lock);
    wrap *w = wrap_find(registry, hash, device, start, size_bytes, writable);
    if (w != NULL) {
        umo_buffer *buffer = wrap_use(w);
        registry->stats.wrap_hits++;
        (void)pthread_mutex_unlock(&registry->lock);
        umo_buffer_refresh(buffer);
        umo_scope_count_import(scope, true, size_bytes);
        UMO_TRACE_BUFFER(buffer, scope, .kind = UMO_EVENT_IMPORT_HIT, .size_bytes = size_bytes);
        *out = buffer;
        return UMO_OK;
    }
    registry->stats.wrap_misses++;
    region_found region = region_look(registry, &device->info, start, size_bytes, writable);
    (void)pthread_mutex_unlock(&registry->lock);
    if (!region.found) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "no registered region holds the range%s",
                             writable ? " for writing" : "");
    }

    umo_import import = {.data = data,
                         .size_bytes = size_bytes,
                         .writable = writable,
                         .whole_pages = region.whole_pages};
    if ((device->info.caps & UMO_CAP_COHERENT) == 0) {
        /* No driver call tells such a device that the memory's owner wrote to it outside a bracket;
         * a new import does. */
        return umo_buffer_import(device, scope, &import, out, why, error);
    }
    wrap *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a wrap");
    }
    umo_status status =
        umo_buffer_import_uncounted(device, registry->scope, &import, &fresh->buffer, why, error);
    if (status != UMO_OK) {
        free(fresh);
        return status;
    }
    umo_device_acquire(device);
    fresh->device = device;
    fresh->data = start;
    fresh->size_bytes = size_bytes;
    fresh->writable = writable;
    umo_buffer *buffer = wrap_keep(registry, fresh, hash, region.number);
    if (buffer == NULL) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "the region was released meanwhile");
    }
    umo_scope_count_import(scope, false, size_bytes);
    UMO_TRACE_BUFFER(buffer, scope, .kind = UMO_EVENT_IMPORT, .size_bytes = size_bytes);
    *out = buffer;
    return UMO_OK;
}

umo_status umo_mapping_query(const void *address, umo_mapping *out)
{
    return umo_os_mapping_query(address, out);
}
