/*
 * Nodes, for buffers: the inner side of what buffer.h says of them.
 */
#ifndef UMO_MEM_NUMA_H
#define UMO_MEM_NUMA_H

#include "mem/buffer.h"

#include <umo/numa.h>

/* What pages move in at a time, from one multiple to the next, so that a huge page is in one part:
 * so long may a pin have to wait. */
#define UMO_NUMA_PART_BYTES ((size_t)2 << 20)

/* Where the bytes of a buffer in host memory lie, of a sample. False when they are nowhere, and
 * where the system does not say. */
bool umo_buffer_numa_look(umo_buffer *buffer, const umo_numa_topology *topology,
                          umo_numa_residency *out);

/* Whether it has whole pages of umo's to itself, and its scope is the given one or below it (NULL
 * for any); and whether they are on no node that somebody chose. */
bool umo_buffer_numa_own(const umo_buffer *buffer, const umo_scope *scope);
bool umo_buffer_numa_follows(const umo_buffer *buffer, const umo_scope *scope);

/* Moves the part of a buffer's pages from *offset_bytes on, in steps of UMO_NUMA_PART_BYTES, unless
 * somebody has placed it. *offset_bytes goes on, and *more says whether there is more. Errors as
 * umo_buffer_numa_move(); BUSY for a buffer that was placed. */
umo_status umo_buffer_numa_move_part(umo_buffer *buffer, int32_t node, size_t *offset_bytes,
                                     uint64_t *moved_bytes, bool *more, umo_error *error);

#endif
