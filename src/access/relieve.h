/*
 * What idle buffers can give back without losing a byte.
 */
#ifndef UMO_ACCESS_RELIEVE_H
#define UMO_ACCESS_RELIEVE_H

#include <umo/pressure.h>

/*
 * Moves movable buffers below root that nobody has used lately to the mode that needs less of what
 * is short, the coldest first, until want_bytes were given. device: a device's memory is short, not
 * the host's. Returns the bytes given.
 *
 * MANAGED gives up one of its two sides: the host's, or the device's where the two are one memory
 * anyway; PRIVATE gives up a host side that it once needed. Bytes that only the side that goes has
 * are transferred first. Where a device's memory is short, both move to the host's, UNIFIED. A
 * buffer in use, pinned or exported stays as it is. The next use brings back what it needs.
 */
uint64_t umo_relieve_buffers(umo_scope *root, bool device, uint64_t want_bytes,
                             umo_pressure_level level, uint64_t now_ns);

#endif
