/*
 * Life and figures of a registry: the regions, wraps and views themselves are in region.c, view.c
 * and sweep.c.
 */
#include "mem/registry.h"

#include "base/scope.h"
#include "os/os.h"

#include <stdlib.h>

#define WRAPS_MAX_DEFAULT 16384
#define VIEWS_MAX_DEFAULT 16384

/* Views take entries of the process's map, whose number is limited for everybody in it. */
static size_t views_max_default(void)
{
    size_t fair = umo_os_mappings_max() / 4;
    return fair < VIEWS_MAX_DEFAULT ? fair : VIEWS_MAX_DEFAULT;
}

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
    o->views_max = o->views_max != 0 ? o->views_max : views_max_default();
    if (o->views_bytes_max == 0) {
        uint64_t memory = umo_os_memory_bytes();
        o->views_bytes_max = memory != 0 ? memory : UINT64_MAX;
    }
    (void)pthread_mutex_init(&registry->lock, NULL);
    umo_list_init(&registry->wraps_by_age);
    umo_list_init(&registry->views_by_age);
    umo_scope_acquire(scope);
    registry->scope = scope;
    umo_registry_join(registry);
    *out = registry;
    return UMO_OK;
}

void umo_registry_destroy(umo_registry *registry)
{
    if (registry == NULL) {
        return;
    }
    umo_registry_leave(registry);
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
