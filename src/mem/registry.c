/*
 * Life and figures of a registry: the regions, wraps and views themselves are in region.c and
 * view.c.
 */
#include "mem/registry.h"

#include "base/scope.h"
#include "os/os.h"

#include <stdlib.h>

#define WRAPS_MAX_DEFAULT 4096
#define VIEWS_MAX_DEFAULT 1024

umo_status umo_registry_create(const umo_registry_options *options, umo_scope *scope,
                               umo_registry **out, umo_error *error)
{
    umo_registry *registry = calloc(1, sizeof *registry);
    if (registry == NULL || !umo_hash_init(&registry->wraps) || !umo_hash_init(&registry->views)) {
        if (registry != NULL) {
            umo_hash_finish(&registry->wraps);
            umo_hash_finish(&registry->views);
        }
        free(registry);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the registration cache");
    }
    if (options != NULL) {
        registry->options = *options;
    }
    umo_registry_options *o = &registry->options;
    o->wraps_max = o->wraps_max != 0 ? o->wraps_max : WRAPS_MAX_DEFAULT;
    o->views_max = o->views_max != 0 ? o->views_max : VIEWS_MAX_DEFAULT;
    if (o->views_bytes_max == 0) {
        uint64_t memory = umo_os_memory_bytes();
        o->views_bytes_max = memory != 0 ? memory : UINT64_MAX;
    }
    (void)pthread_mutex_init(&registry->lock, NULL);
    umo_list_init(&registry->wraps_by_use);
    umo_list_init(&registry->views_by_use);
    umo_scope_acquire(scope);
    registry->scope = scope;
    *out = registry;
    return UMO_OK;
}

void umo_registry_destroy(umo_registry *registry)
{
    if (registry == NULL) {
        return;
    }
    umo_registry_drop_views(registry);
    umo_hash_finish(&registry->wraps);
    umo_hash_finish(&registry->views);
    free(registry->regions);
    (void)pthread_mutex_destroy(&registry->lock);
    umo_scope_destroy(registry->scope);
    free(registry);
}

void umo_registry_read(umo_registry *registry, umo_registry_stats *out)
{
    (void)pthread_mutex_lock(&registry->lock);
    *out = registry->stats;
    (void)pthread_mutex_unlock(&registry->lock);
}
