/*
 * macOS shows one memory, on a machine of two chips as well: one node, and no say about it.
 */
#include "os/numa.h"

#include <errno.h>
#include <sys/mman.h>

umo_status umo_numa_topology_read(umo_numa_topology *out, umo_error *error)
{
    if (out == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no place for the nodes");
    }
    umo_numa_one_node(out);
    return UMO_OK;
}

uint32_t umo_numa_memory_nodes(void)
{
    return 1;
}

int32_t umo_numa_node_here(void)
{
    return 0;
}

static umo_status check(void *start, size_t size_bytes, int32_t node, umo_error *error)
{
    umo_numa_topology topology;
    umo_numa_one_node(&topology);
    umo_status status = umo_numa_check_range(start, size_bytes, error);
    if (status == UMO_OK && node != UMO_NUMA_ANY) {
        status = umo_numa_check_node(&topology, node, error);
    }
    return status == UMO_OK ? umo_numa_check_mapped(start, size_bytes, error) : status;
}

umo_status umo_numa_bind(void *start, size_t size_bytes, int32_t node, umo_numa_binding binding,
                         umo_error *error)
{
    if (binding != UMO_NUMA_PREFER && binding != UMO_NUMA_ONLY) {
        return umo_error_set(error, UMO_E_INVAL, 0, "there is no binding %d", (int)binding);
    }
    return check(start, size_bytes, node, error);
}

umo_status umo_numa_look(void **pages, size_t count, int *where, umo_error *error)
{
    (void)error;
    for (size_t i = 0; i < count; i++) {
        char in = 0;
        where[i] = mincore(pages[i], 1, &in) == 0 && (in & MINCORE_INCORE) != 0 ? 0 : -ENOENT;
    }
    return UMO_OK;
}

umo_status umo_numa_move(void *start, size_t size_bytes, int32_t node, uint64_t *moved_bytes,
                         umo_error *error)
{
    umo_status status = node == UMO_NUMA_ANY ? umo_error_set(error, UMO_E_INVAL, 0,
                                                             "pages move to a node, not to any")
                                             : check(start, size_bytes, node, error);
    if (status == UMO_OK && moved_bytes != NULL) {
        *moved_bytes = 0;
    }
    return status;
}
