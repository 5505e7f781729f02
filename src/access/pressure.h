/*
 * The inner side of pressure.h, for the context and for tests.
 */
#ifndef UMO_ACCESS_PRESSURE_H
#define UMO_ACCESS_PRESSURE_H

#include <umo/pressure.h>

/* umo_pressure_create() with procfs somewhere else: NULL for "/proc". */
umo_status umo_pressure_create_below(const umo_pressure_options *options, umo_scope *root,
                                     const char *proc, umo_pressure **out, umo_error *error);

/* The most memory that this process may use: the smallest limit of a cgroup that holds it, or the
 * machine's memory. 0 if neither is known. Reads some files. */
uint64_t umo_pressure_memory_bytes(void);

#endif
