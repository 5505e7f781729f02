/*
 * The inside of a registry, shared by region.c (regions and wraps), view.c (own views) and sweep.c
 * (what becomes of idle ones) alone.
 */
#ifndef UMO_MEM_REGISTRY_H
#define UMO_MEM_REGISTRY_H

#include "base/hash.h"
#include "base/list.h"
#include "mem/buffer.h"
#include "os/os.h"
#include "mem/keeper.h"

#include <umo/region.h>

#include <pthread.h>

struct umo_registry {
    pthread_mutex_t lock; /* all below; never held over a driver call or a system call that maps */
    umo_registry_options options;
    umo_scope *scope;

    umo_region **regions; /* sorted by start; they do not overlap */
    uint64_t regions_made;
    size_t region_count;
    size_t region_capacity;

    umo_hash wraps; /* by device, address, size and writability */
    umo_list_link wraps_by_age;

    umo_hash views; /* by the file behind them and their place in it */
    umo_list_link views_by_age;
    size_t idle_count; /* views without users */
    uint64_t sweeps;   /* begun */
    uint64_t sweep_ns; /* when the last one began */
    bool sweep_due;    /* the keeper knows */
    umo_keeper_task keeper;

    umo_list_link link; /* of the process's registries */
    uint32_t forks;     /* in which process the views are mapped: umo_os_forks() */

    umo_registry_stats stats;
};

struct umo_region {
    umo_registry *registry;
    uint64_t number; /* of its making: tells it from a later one at the same address */
    uintptr_t start;
    size_t size_bytes;
    bool writable;
    umo_list_link wraps; /* in it */
};

typedef struct umo_os_guard umo_os_guard;

/* What a hit looks at comes first: with thousands of views, lines of the cache are what it costs.
 */
struct umo_view {
    umo_hash_link link;
    uint64_t device;
    uint64_t inode;
    uint64_t offset_bytes; /* of base in the file */
    size_t size_bytes;
    _Atomic size_t whole_bytes; /* what lies behind was lost */
    char *base;
    uint32_t users;
    bool linked; /* can be found; otherwise its last user frees it */
    bool writable;
    bool used_again; /* since its turn to make room came last */
    umo_registry *registry;
    umo_list_link by_age;
    uint64_t seen; /* by which sweep last: its first mapping was still there */
    uint32_t forks;
    umo_os_guard *guard; /* NULL where SIGBUS is not ours */
    umo_region *region;
    umo_view *next_gone; /* unlinked, to be freed */
};

/* Drops every cached wrap inside a region. Takes the lock. */
void umo_registry_drop_wraps(umo_registry *registry, umo_region *region);

/* Under the lock: takes a view out of the look-up, and out of the idle ones. One without users is
 * freed by the caller, without the lock; the others by their last user. */
void umo_view_unlink(umo_registry *registry, umo_view *view);
void umo_view_free(umo_view *view);
/* Under the lock: unlinks an idle view that was not used lately; NULL if all are in use. */
umo_view *umo_view_take_idle(umo_registry *registry);
/* Drops all views; no view is in use. */
void umo_registry_drop_views(umo_registry *registry);
/* The first of the views with these extents; the caller walks on. Under the lock. */
umo_hash_link *umo_view_chain(const umo_registry *registry, const umo_mapping *mapping,
                              uint64_t *hash);
bool umo_view_matches(const umo_view *view, const umo_mapping *mapping);

/* sweep.c. A registry joins the process's others, whose views are no client's mappings. */
void umo_registry_join(umo_registry *registry);
void umo_registry_leave(umo_registry *registry);
#define UMO_SWEEP_EVERY_NS UINT64_C(1000000000)
#define UMO_SWEEP_OVERDUE_NS UINT64_C(10000000000)
/* After a view has become idle; not under the lock. */
static inline void umo_registry_sweep_soon(umo_registry *registry)
{
    umo_keeper_wake(&registry->keeper, umo_os_now_ns() + UMO_SWEEP_EVERY_NS);
}
/* Whether the keeper has not come for a while, as where the system has no thread for it. Under the
 * lock. */
static inline bool umo_registry_sweep_overdue(const umo_registry *registry)
{
    return registry->idle_count > 0 && umo_os_now_ns() - registry->sweep_ns > UMO_SWEEP_OVERDUE_NS;
}

#endif
