/*
 * What is asked of a caller before any system is, and the answers of a machine without nodes.
 */
#include "os/numa.h"

#include "base/size.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

int umo_numa_index(const umo_numa_topology *topology, int32_t node)
{
    for (uint32_t i = 0; topology != NULL && i < topology->count; i++) {
        if (topology->nodes[i].id == node) {
            return (int)i;
        }
    }
    return -1;
}

void umo_numa_one_node(umo_numa_topology *out)
{
    *out = (umo_numa_topology){.count = 1};
    out->nodes[0] = (umo_numa_node){
        .processors = umo_os_processors(),
        .memory_bytes = umo_os_memory_bytes(),
        .allowed = true,
    };
    out->distances[0][0] = UMO_NUMA_DISTANCE_LOCAL;
}

umo_status umo_numa_check_range(const void *start, size_t size_bytes, umo_error *error)
{
    size_t rest = umo_os_page_bytes() - 1;
    if (start == NULL || size_bytes == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "an empty range has no node");
    }
    if (((uintptr_t)start & rest) != 0 || (size_bytes & rest) != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a range must be whole pages of %zu bytes to lie on a node", rest + 1);
    }
    if (size_bytes > UINTPTR_MAX - (uintptr_t)start) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a range ends beyond the last address");
    }
    return UMO_OK;
}

umo_status umo_numa_check_mapped(void *start, size_t size_bytes, umo_error *error)
{
    /* The cheapest question about mappings that a filter lets pass: nothing is written. */
    if (msync(start, size_bytes, MS_ASYNC) != 0 && errno == ENOMEM) {
        return umo_error_set(error, UMO_E_INVAL, ENOMEM, "not all of the range is mapped");
    }
    return UMO_OK;
}

umo_status umo_numa_check_node(const umo_numa_topology *topology, int32_t node, umo_error *error)
{
    if (umo_numa_index(topology, node) >= 0) {
        return UMO_OK;
    }
    char list[128];
    size_t have = 0;
    list[0] = '\0';
    for (uint32_t i = 0; i < topology->count && have < sizeof list; i++) {
        int more = snprintf(list + have, sizeof list - have, "%s%d", i > 0 ? ", " : "",
                            (int)topology->nodes[i].id);
        have += more > 0 ? (size_t)more : 0;
    }
    return umo_error_set(error, UMO_E_NOT_FOUND, 0, "there is no node %d here, only %s", (int)node,
                         list);
}

umo_status umo_numa_check_usable(const umo_numa_topology *topology, int32_t node, umo_error *error)
{
    umo_status status = umo_numa_check_node(topology, node, error);
    if (status != UMO_OK) {
        return status;
    }
    const umo_numa_node *found = &topology->nodes[umo_numa_index(topology, node)];
    if (found->memory_bytes == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "node %d has no memory of its own",
                             (int)node);
    }
    if (!found->allowed) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "node %d has no memory for this process: its cpuset leaves it out",
                             (int)node);
    }
    return UMO_OK;
}
