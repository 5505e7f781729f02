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

/* By the whole place: a client may map one file thousands of times. */
static uint64_t view_hash(uint64_t device, uint64_t inode, uint64_t offset_bytes, size_t size_bytes)
{
    return umo_hash_mix(umo_hash_mix(device, inode), offset_bytes ^ (uint64_t)size_bytes << 16);
}

umo_hash_link *umo_view_chain(const umo_registry *registry, const umo_mapping *mapping,
                              uint64_t *hash)
{
    *hash = view_hash(mapping->device, mapping->inode, mapping->offset_bytes,
                      (size_t)(mapping->end - mapping->start));
    return umo_hash_chain(&registry->views, *hash);
}

bool umo_view_matches(const umo_view *view, const umo_mapping *mapping)
{
    return view->device == mapping->device && view->inode == mapping->inode &&
           view->offset_bytes == mapping->offset_bytes &&
           view->size_bytes == mapping->end - mapping->start;
}

static bool view_whole(const umo_view *view)
{
    return atomic_load_explicit(&view->whole_bytes, memory_order_acquire) == view->size_bytes;
}

void umo_view_unlink(umo_registry *registry, umo_view *view)
{
    umo_hash_remove(&registry->views, &view->link);
    umo_list_remove(&view->by_age);
    view->linked = false;
    registry->idle_count -= view->users == 0 ? 1 : 0;
    registry->stats.views--;
    registry->stats.view_bytes -= view->size_bytes;
}

void umo_view_free(umo_view *view)
{
    umo_region_release(view->region);
    /* In a child of fork() neither is there, and something else may be mapped at its address. */
    if (view->forks == umo_os_forks() && view->base != NULL) {
        umo_os_guard_remove(view->guard);
        umo_os_mapping_drop(view->base, view->size_bytes);
    }
    free(view);
}

/* The view that shows a mapping, or NULL. One that has lost bytes is nobody's any more: *gone is to
 * be freed without the lock, where it has no user. */
static umo_view *view_lookup(umo_registry *registry, const umo_mapping *mapping, umo_view **gone)
{
    uint64_t hash;
    for (umo_hash_link *link = umo_view_chain(registry, mapping, &hash); link != NULL;
         link = link->next) {
        umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
        if (link->hash != hash || !umo_view_matches(view, mapping) ||
            (mapping->writable && !view->writable)) {
            continue;
        }
        if (view_whole(view)) {
            return view;
        }
        umo_view_unlink(registry, view);
        *gone = view->users == 0 ? view : NULL;
        return NULL;
    }
    return NULL;
}

static void view_use(umo_registry *registry, umo_view *view)
{
    registry->idle_count -= view->users++ == 0 ? 1 : 0;
    view->used_again = true;
}

/* Second chance, since moving each view to the front of a list when it is found would touch its two
 * neighbours as well. A look takes back what a hit has marked, so it costs no more than those. */
umo_view *umo_view_take_idle(umo_registry *registry)
{
    while (registry->idle_count > 0) {
        umo_list_link *oldest = registry->views_by_age.previous;
        umo_view *view = UMO_LIST_ENTRY(oldest, umo_view, by_age);
        if (view->users == 0 && !view->used_again) {
            umo_view_unlink(registry, view);
            return view;
        }
        view->used_again = false;
        umo_list_remove(oldest);
        umo_list_push(&registry->views_by_age, oldest);
    }
    return NULL;
}

/* What a duplicate shows. Where the system has no quick answer, the whole map is read: a view is
 * made seldom. */
typedef struct own_search {
    uintptr_t address;
    umo_mapping *out;
    bool found;
} own_search;

static bool own_visit(const umo_mapping *mapping, void *user)
{
    own_search *search = user;
    search->found = search->address >= mapping->start && search->address < mapping->end;
    if (search->found) {
        *search->out = *mapping;
    }
    return !search->found;
}

static umo_status own_query(const void *base, umo_mapping *out)
{
    umo_status status = umo_os_mapping_query(base, out);
    if (status == UMO_E_UNSUPPORTED) {
        own_search search = {.address = (uintptr_t)base, .out = out};
        status = umo_os_mapping_visit(own_visit, &search);
        status = status == UMO_OK && !search.found ? UMO_E_NOT_FOUND : status;
    }
    return status;
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
    view->forks = umo_os_forks();
    view->size_bytes = (size_t)(mapping->end - mapping->start);
    void *base = NULL;
    umo_status status = umo_os_mapping_duplicate((void *)mapping->start, view->size_bytes, &base);
    if (status != UMO_OK) {
        (void)umo_error_set(error, status, 0, "the mapping could not be duplicated");
        goto fail;
    }
    view->base = base;
    umo_mapping own;
    status = own_query(base, &own);
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
        umo_os_guard_add(base, view->size_bytes, view->writable, &view->whole_bytes, &view->guard);
    if (status != UMO_OK && status != UMO_E_UNSUPPORTED) {
        (void)umo_error_set(error, status, 0, "no more views can be watched over");
        goto fail;
    }
    status =
        umo_region_register(registry, base, view->size_bytes, view->writable, &view->region, error);
    if (status != UMO_OK) {
        goto fail;
    }
    *out = view;
    return UMO_OK;

fail:
    umo_view_free(view);
    return status;
}

/* Links a new view, or finds the one that another thread linked first. What is in *gone afterwards
 * is to be freed without the lock. */
static umo_view *view_keep(umo_registry *registry, umo_view *fresh, const umo_mapping *mapping,
                           umo_view **gone)
{
    umo_view *view = view_lookup(registry, mapping, gone);
    if (view != NULL) {
        *gone = fresh;
        view_use(registry, view);
        return view;
    }
    umo_hash_insert(&registry->views, &fresh->link,
                    view_hash(fresh->device, fresh->inode, fresh->offset_bytes, fresh->size_bytes));
    umo_list_push(&registry->views_by_age, &fresh->by_age);
    fresh->linked = true;
    fresh->users = 1;
    fresh->seen = registry->sweeps;
    registry->stats.views++;
    registry->stats.view_bytes += fresh->size_bytes;
    return fresh;
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
        umo_view *idle = fits ? NULL : umo_view_take_idle(registry);
        registry->stats.evictions += idle != NULL ? 1 : 0;
        (void)pthread_mutex_unlock(&registry->lock);
        if (fits) {
            return UMO_OK;
        }
        if (idle == NULL) {
            return umo_error_set(error, UMO_E_LIMIT, 0, "no room for one more view");
        }
        umo_view_free(idle);
    }
}

/* In a child of fork() no view is mapped, and what is at its address may be anything. */
static void views_forget(umo_registry *registry)
{
    umo_view *gone = NULL;
    (void)pthread_mutex_lock(&registry->lock);
    registry->sweep_due = registry->forks == umo_os_forks() && registry->sweep_due;
    for (size_t slot = 0; registry->forks != umo_os_forks() && slot < registry->views.slot_count;
         slot++) {
        while (registry->views.slots[slot] != NULL) {
            umo_view *view = UMO_LIST_ENTRY(registry->views.slots[slot], umo_view, link);
            umo_view_unlink(registry, view);
            view->users++;
            view->next_gone = gone;
            gone = view;
        }
    }
    registry->forks = umo_os_forks();
    (void)pthread_mutex_unlock(&registry->lock);
    while (gone != NULL) {
        umo_view *next = gone->next_gone;
        umo_region_release(gone->region);
        gone->region = NULL;
        umo_view_release(gone);
        gone = next;
    }
}

static umo_status view_make(umo_registry *registry, const umo_mapping *mapping, bool sweep,
                            umo_view **out, umo_error *error)
{
    if (!umo_os_mapping_duplicates()) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "this system duplicates no mappings");
    }
    if (sweep) {
        (void)registry->keeper.tick(&registry->keeper, umo_os_now_ns());
    }
    umo_view *fresh = NULL;
    umo_view *gone = NULL;
    umo_status status = views_make_room(registry, (size_t)(mapping->end - mapping->start), error);
    if (status == UMO_OK) {
        status = view_create(registry, mapping, &fresh, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    assert(fresh != NULL);
    (void)pthread_mutex_lock(&registry->lock);
    *out = view_keep(registry, fresh, mapping, &gone);
    (void)pthread_mutex_unlock(&registry->lock);
    if (gone != NULL) {
        umo_view_free(gone);
    }
    return UMO_OK;
}

umo_status umo_view_find(umo_registry *registry, void *data, size_t size_bytes,
                         const umo_mapping *mapping, void **own, umo_view **out, umo_error *error)
{
    uintptr_t address = (uintptr_t)data;
    if (!mapping->shared || mapping->inode == 0) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "the memory is not shared");
    }
    if (address < mapping->start || address >= mapping->end ||
        size_bytes > mapping->end - address) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "the range is not in one mapping");
    }
    umo_view *gone = NULL;
    bool sweep = false;
    (void)pthread_mutex_lock(&registry->lock);
    if (registry->forks != umo_os_forks()) {
        (void)pthread_mutex_unlock(&registry->lock);
        views_forget(registry);
        (void)pthread_mutex_lock(&registry->lock);
    }
    umo_view *view = view_lookup(registry, mapping, &gone);
    if (view != NULL) {
        view_use(registry, view);
        registry->stats.view_hits++;
    } else {
        registry->stats.view_misses++;
        sweep = umo_registry_sweep_overdue(registry);
    }
    (void)pthread_mutex_unlock(&registry->lock);
    if (gone != NULL) {
        umo_view_free(gone);
    }
    if (view == NULL) {
        umo_status status = view_make(registry, mapping, sweep, &view, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    *own = view->base + (address - mapping->start);
    *out = view;
    return UMO_OK;
}

void umo_view_release(umo_view *view)
{
    if (view == NULL) {
        return;
    }
    umo_registry *registry = view->registry;
    bool gone = false;
    bool wake = false;
    (void)pthread_mutex_lock(&registry->lock);
    if (--view->users == 0) {
        registry->idle_count += view->linked ? 1 : 0;
        if (view->linked && !view_whole(view)) {
            umo_view_unlink(registry, view); /* nobody will find it: its memory goes now */
        }
        gone = !view->linked;
        wake = !gone && !registry->sweep_due;
        registry->sweep_due = registry->sweep_due || wake;
    }
    (void)pthread_mutex_unlock(&registry->lock);
    if (gone) {
        umo_view_free(view);
    }
    if (wake) {
        umo_registry_sweep_soon(registry);
    }
}

bool umo_view_lost(const umo_view *view, const void *own, size_t size_bytes)
{
    size_t whole_bytes = atomic_load_explicit(&view->whole_bytes, memory_order_acquire);
    size_t offset_bytes = (size_t)((const char *)own - view->base);
    return whole_bytes < view->size_bytes && size_bytes > 0 &&
           (offset_bytes >= whole_bytes || size_bytes > whole_bytes - offset_bytes);
}

void umo_registry_drop_views(umo_registry *registry)
{
    for (;;) {
        (void)pthread_mutex_lock(&registry->lock);
        umo_view *view = umo_view_take_idle(registry);
        (void)pthread_mutex_unlock(&registry->lock);
        if (view == NULL) {
            return;
        }
        umo_view_free(view);
    }
}
