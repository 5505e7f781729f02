/*
 * The inside of a registry, shared by region.c (regions and wraps) and view.c (own views) alone.
 */
#ifndef UMO_MEM_REGISTRY_H
#define UMO_MEM_REGISTRY_H

#include "base/hash.h"
#include "base/list.h"
#include "mem/buffer.h"

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
    umo_list_link wraps_by_use;

    umo_hash views; /* by device and inode of the file behind them */
    umo_list_link views_by_use;
    uint64_t sweep_ns; /* when the last sweep was */

    umo_registry_stats stats;
};

struct umo_region {
    umo_registry *registry;
    uint64_t number; /* of its making: tells it from a later one at the same address */
    uintptr_t start;
    size_t size_bytes;
    bool writable;
};

/* Drops every cached wrap inside a region. Takes the lock. */
void umo_registry_drop_wraps(umo_registry *registry, const umo_region *region);

/* Drops all views; no view is in use. */
void umo_registry_drop_views(umo_registry *registry);

#endif
