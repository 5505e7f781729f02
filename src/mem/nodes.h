/*
 * Nodes: what this layer asks of them beyond numa.h. Knows no buffers.
 */
#ifndef UMO_MEM_NODES_H
#define UMO_MEM_NODES_H

#include <umo/numa.h>

/* Has pages that come into a range of whole pages lie on a node, elsewhere while that is full. As
 * umo_numa_bind(); but where one node has all memory it only looks whether that is the one, so that
 * a system that refuses to be asked is no obstacle. */
umo_status umo_numa_place(void *start, size_t size_bytes, int32_t node, umo_error *error);

/* The index of the node whose memory is nearest to a node's processors and this process's to use:
 * itself if it has some. -1 where there is none, or no such node. */
int umo_numa_home(const umo_numa_topology *topology, int32_t node);

/* How far a node's memory is from another one's processors, by index: 1 is local. Where the system
 * does not say it is twice that for every other node. */
double umo_numa_factor(const umo_numa_topology *topology, uint32_t from, uint32_t to);

#endif
