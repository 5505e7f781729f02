/*
 * Own views of shared memory that somebody else mapped.
 *
 * The server unmaps a client's region whenever the client says so, and the next region often gets
 * the same address. Neither concerns a second mapping of the same memory that is ours alone. A view
 * is found again by the identity of the file behind it: as long as we hold a mapping of an inode,
 * no other file can get its number.
 */
#include "mem/registry.h"

#include "base/size.h"
#include "os/os.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SWEEP_EVERY_NS UINT64_C(1000000000)

struct umo_view {
    umo_hash_link link;
    umo_list_link by_use;
    umo_registry *registry;
    uint32_t users;
    bool seen; /* by a sweep: the first mapping is still there */
    bool writable;
    char *base;
    size_t size_bytes;
    uint64_t device;
    uint64_t inode;
    uint64_t offset_bytes; /* of base in the file */
    _Atomic uintptr_t lost_from; /* what lies from here on is gone; UINTPTR_MAX for nothing */
    umo_region *region;
};

static uint64_t view_hash(uint64_t device, uint64_t inode)
{
    return umo_hash_mix(umo_hash_mix(0, device), inode);
}

static void view_unlink(umo_registry *registry, umo_view *view)
{
    umo_hash_remove(&registry->views, &view->link);
    umo_list_remove(&view->by_use);
    registry->stats.views--;
    registry->stats.view_bytes -= view->size_bytes;
}

static void view_free(umo_view *view)
{
    umo_region_release(view->region);
    if (view->base != NULL) {
        umo_os_mapping_drop(view->base, view->size_bytes);
    }
    free(view);
}

/* The view that holds [offset, offset + size) of a file, or NULL. */
static umo_view *view_lookup(const umo_registry *registry, const umo_mapping *mapping,
                             uint64_t offset_bytes, size_t size_bytes)
{
    uint64_t hash = view_hash(mapping->device, mapping->inode);
    for (umo_hash_link *link = umo_hash_chain(&registry->views, hash); link != NULL;
         link = link->next) {
        umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
        if (link->hash != hash || view->device != mapping->device ||
            view->inode != mapping->inode || offset_bytes < view->offset_bytes ||
            (mapping->writable && !view->writable)) {
            continue;
        }
        uint64_t inside = offset_bytes - view->offset_bytes;
        if (inside <= view->size_bytes && size_bytes <= view->size_bytes - inside) {
            return view;
        }
    }
    return NULL;
}

static void view_use(umo_registry *registry, umo_view *view)
{
    view->users++;
    umo_list_remove(&view->by_use);
    umo_list_push(&registry->views_by_use, &view->by_use);
}

/* Unlinks the least used idle view; NULL if all are in use. */
static umo_view *view_take_idle(umo_registry *registry)
{
    umo_list_link *head = &registry->views_by_use;
    for (umo_list_link *at = head->previous; at != head; at = at->previous) {
        umo_view *view = UMO_LIST_ENTRY(at, umo_view, by_use);
        if (view->users == 0) {
            view_unlink(registry, view);
            return view;
        }
    }
    return NULL;
}

/* Duplicates the mapping and checks, on the duplicate, that it is what the caller saw. */
static umo_status view_create(umo_registry *registry, const umo_mapping *mapping, umo_view **out,
                              umo_error *error)
{
    umo_view *view = calloc(1, sizeof *view);
    if (view == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a view");
    }
    view->registry = registry;
    view->lost_from = UINTPTR_MAX;
    view->size_bytes = (size_t)(mapping->end - mapping->start);
    void *base = NULL;
    umo_status status = umo_os_mapping_duplicate((void *)mapping->start, view->size_bytes, &base);
    if (status != UMO_OK) {
        (void)umo_error_set(error, status, 0, "the mapping could not be duplicated");
        goto fail;
    }
    view->base = base;
    umo_mapping own;
    status = umo_os_mapping_query(base, &own);
    if (status != UMO_OK || own.inode != mapping->inode || own.device != mapping->device ||
        own.offset_bytes + ((uintptr_t)base - own.start) != mapping->offset_bytes ||
        own.end - (uintptr_t)base < view->size_bytes) {
        status = umo_error_set(error, UMO_E_REFUSED, 0, "the mapping changed meanwhile");
        goto fail;
    }
    view->device = own.device;
    view->inode = own.inode;
    view->offset_bytes = mapping->offset_bytes; /* own may start at a neighbouring view */
    view->writable = own.writable;
    status =
        umo_region_register(registry, base, view->size_bytes, view->writable, &view->region, error);
    if (status != UMO_OK) {
        goto fail;
    }
    *out = view;
    return UMO_OK;

fail:
    view_free(view);
    return status;
}

/* Links a new view, or finds the one that another thread linked first; *surplus is to be freed
 * without the lock. */
static umo_view *view_keep(umo_registry *registry, umo_view *fresh, const umo_mapping *mapping,
                           uint64_t offset_bytes, size_t size_bytes, umo_view **surplus)
{
    umo_view *view = view_lookup(registry, mapping, offset_bytes, size_bytes);
    if (view != NULL) {
        *surplus = fresh;
    } else {
        view = fresh;
        umo_hash_insert(&registry->views, &view->link, view_hash(view->device, view->inode));
        umo_list_push(&registry->views_by_use, &view->by_use);
        registry->stats.views++;
        registry->stats.view_bytes += view->size_bytes;
    }
    view_use(registry, view);
    return view;
}

/* Makes room for one more view of size_bytes by dropping idle ones. */
static umo_status views_make_room(umo_registry *registry, size_t size_bytes, umo_error *error)
{
    if (size_bytes > registry->options.views_bytes_max) {
        return umo_error_set(error, UMO_E_LIMIT, 0, "a view of %zu bytes is more than all may be",
                             size_bytes);
    }
    for (;;) {
        (void)pthread_mutex_lock(&registry->lock);
        bool fits = registry->stats.views < registry->options.views_max &&
                    registry->stats.view_bytes <= registry->options.views_bytes_max &&
                    size_bytes <= registry->options.views_bytes_max - registry->stats.view_bytes;
        umo_view *idle = fits ? NULL : view_take_idle(registry);
        registry->stats.evictions += idle != NULL ? 1 : 0;
        (void)pthread_mutex_unlock(&registry->lock);
        if (fits) {
            return UMO_OK;
        }
        if (idle == NULL) {
            return umo_error_set(error, UMO_E_LIMIT, 0, "no room for one more view");
        }
        view_free(idle);
    }
}

umo_status umo_view_find(umo_registry *registry, void *data, size_t size_bytes,
                         const umo_mapping *mapping, void **own, umo_view **out, umo_error *error)
{
    uintptr_t address = (uintptr_t)data;
    if (!umo_os_mapping_duplicates()) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "this system duplicates no mappings");
    }
    if (!mapping->shared || mapping->inode == 0) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "the memory is not shared");
    }
    if (address < mapping->start || address >= mapping->end ||
        size_bytes > mapping->end - address) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "the range is not in one mapping");
    }
    uint64_t offset_bytes = mapping->offset_bytes + (address - mapping->start);

    (void)pthread_mutex_lock(&registry->lock);
    umo_view *view = view_lookup(registry, mapping, offset_bytes, size_bytes);
    if (view != NULL) {
        view_use(registry, view);
        registry->stats.view_hits++;
    } else {
        registry->stats.view_misses++;
    }
    (void)pthread_mutex_unlock(&registry->lock);

    if (view == NULL) {
        uint64_t now = umo_os_now_ns();
        (void)pthread_mutex_lock(&registry->lock);
        bool sweep = registry->stats.views > 0 && now - registry->sweep_ns >= SWEEP_EVERY_NS;
        (void)pthread_mutex_unlock(&registry->lock);
        if (sweep) {
            (void)umo_registry_sweep(registry);
        }
        umo_status status =
            views_make_room(registry, (size_t)(mapping->end - mapping->start), error);
        umo_view *fresh = NULL;
        umo_view *surplus = NULL;
        if (status == UMO_OK) {
            status = view_create(registry, mapping, &fresh, error);
        }
        if (status != UMO_OK) {
            return status;
        }
        assert(fresh != NULL);
        (void)pthread_mutex_lock(&registry->lock);
        view = view_keep(registry, fresh, mapping, offset_bytes, size_bytes, &surplus);
        (void)pthread_mutex_unlock(&registry->lock);
        if (surplus != NULL) {
            view_free(surplus);
        }
    }
    *own = view->base + (offset_bytes - view->offset_bytes);
    *out = view;
    return UMO_OK;
}

void umo_view_release(umo_view *view)
{
    if (view != NULL) {
        (void)pthread_mutex_lock(&view->registry->lock);
        view->users--;
        (void)pthread_mutex_unlock(&view->registry->lock);
    }
}

bool umo_view_lost(const umo_view *view, const void *own, size_t size_bytes)
{
    uintptr_t end = (uintptr_t)own + size_bytes;
    return end > atomic_load_explicit(&view->lost_from, memory_order_acquire);
}

/* Marks the views whose file is mapped somewhere else than in views: those of one file must not
 * keep each other, and the system may show neighbouring ones as one mapping. */
static bool sweep_visit(const umo_mapping *mapping, void *user)
{
    umo_registry *registry = user;
    if (!mapping->shared || mapping->inode == 0) {
        return true;
    }
    uint64_t hash = view_hash(mapping->device, mapping->inode);
    (void)pthread_mutex_lock(&registry->lock);
    umo_hash_link *first = umo_hash_chain(&registry->views, hash);
    bool ours = false;
    for (umo_hash_link *link = first; link != NULL && !ours; link = link->next) {
        const umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
        ours = mapping->start - (uintptr_t)view->base < view->size_bytes;
    }
    for (umo_hash_link *link = first; link != NULL && !ours; link = link->next) {
        umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
        if (link->hash == hash && view->device == mapping->device &&
            view->inode == mapping->inode) {
            view->seen = true;
        }
    }
    (void)pthread_mutex_unlock(&registry->lock);
    return true;
}

size_t umo_registry_sweep(umo_registry *registry)
{
    umo_list_link *head = &registry->views_by_use;
    (void)pthread_mutex_lock(&registry->lock);
    registry->sweep_ns = umo_os_now_ns();
    for (umo_list_link *at = head->next; at != head; at = at->next) {
        UMO_LIST_ENTRY(at, umo_view, by_use)->seen = false;
    }
    (void)pthread_mutex_unlock(&registry->lock);

    if (umo_os_mapping_visit(sweep_visit, registry) != UMO_OK) {
        return 0;
    }

    size_t dropped = 0;
    for (;;) {
        umo_view *gone = NULL;
        (void)pthread_mutex_lock(&registry->lock);
        for (umo_list_link *at = head->previous; at != head && gone == NULL; at = at->previous) {
            umo_view *view = UMO_LIST_ENTRY(at, umo_view, by_use);
            if (!view->seen && view->users == 0) {
                gone = view;
                view_unlink(registry, gone);
            }
        }
        (void)pthread_mutex_unlock(&registry->lock);
        if (gone == NULL) {
            return dropped;
        }
        view_free(gone);
        dropped++;
    }
}

void umo_registry_drop_views(umo_registry *registry)
{
    for (;;) {
        (void)pthread_mutex_lock(&registry->lock);
        umo_view *view = view_take_idle(registry);
        (void)pthread_mutex_unlock(&registry->lock);
        if (view == NULL) {
            return;
        }
        view_free(view);
    }
}
