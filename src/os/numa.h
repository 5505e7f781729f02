/*
 * What the systems' halves of umo/numa.h share, and the doors that only tests use.
 */
#ifndef UMO_OS_NUMA_H
#define UMO_OS_NUMA_H

#include "os/os.h"

#include <umo/numa.h>

/* Nodes have numbers below it, on every kernel that we know (CONFIG_NODES_SHIFT is at most 10). */
#define UMO_NUMA_IDS 1024

/* A machine that says nothing of nodes. */
void umo_numa_one_node(umo_numa_topology *out);

/* INVAL in words unless [start, start + size_bytes) is a range of whole pages and not empty. */
umo_status umo_numa_check_range(const void *start, size_t size_bytes, umo_error *error);
/* INVAL in words unless all of a range of whole pages is mapped. */
umo_status umo_numa_check_mapped(void *start, size_t size_bytes, umo_error *error);
/* NOT_FOUND in words, with the numbers that there are, unless a topology has the node. */
umo_status umo_numa_check_node(const umo_numa_topology *topology, int32_t node, umo_error *error);
/* The same, and UNSUPPORTED in words unless this process can have memory on the node. */
umo_status umo_numa_check_usable(const umo_numa_topology *topology, int32_t node, umo_error *error);

/* Where pages lie: a node's number, or less than 0 for one that is not in memory. As
 * umo_numa_residency_read() of the errors. */
umo_status umo_numa_look(void **pages, size_t count, int *where, umo_error *error);

/* Linux: the same as umo_numa_topology_read() of the system whose /proc and /sys lie under root;
 * told, which may be NULL, says whether it speaks of nodes at all. */
umo_status umo_numa_topology_read_at(const char *root, umo_numa_topology *out, bool *told,
                                     umo_error *error);

#endif
