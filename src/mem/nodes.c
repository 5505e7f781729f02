/*
 * Placing memory on nodes, and which is near which.
 */
#include "mem/nodes.h"

#include "os/numa.h"

/* A node that no topology tells the distance of. */
#define FACTOR_UNKNOWN 2.0

umo_status umo_numa_place(void *start, size_t size_bytes, int32_t node, umo_error *error)
{
    if (umo_numa_memory_nodes() > 1) {
        return umo_numa_bind(start, size_bytes, node, UMO_NUMA_PREFER, error);
    }
    if (node == UMO_NUMA_ANY) {
        return UMO_OK;
    }
    umo_numa_topology topology;
    umo_status status = umo_numa_topology_read(&topology, error);
    return status == UMO_OK ? umo_numa_check_usable(&topology, node, error) : status;
}

double umo_numa_factor(const umo_numa_topology *topology, uint32_t from, uint32_t to)
{
    uint32_t distance = topology->distances[from][to];
    if (from == to) {
        return 1;
    }
    return distance > UMO_NUMA_DISTANCE_LOCAL ? (double)distance / UMO_NUMA_DISTANCE_LOCAL
                                              : FACTOR_UNKNOWN;
}

int umo_numa_home(const umo_numa_topology *topology, int32_t node)
{
    int index = umo_numa_index(topology, node);
    int nearest = -1;
    double least = 0;
    for (uint32_t i = 0; index >= 0 && i < topology->count; i++) {
        const umo_numa_node *other = &topology->nodes[i];
        double factor = umo_numa_factor(topology, (uint32_t)index, i);
        if (other->memory_bytes > 0 && other->allowed && (nearest < 0 || factor < least)) {
            nearest = (int)i;
            least = factor;
        }
    }
    return nearest;
}
