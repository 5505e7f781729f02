/*
 * The inner side of trace.h: charging memory against the limits of a scope and its parents.
 */
#ifndef UMO_BASE_SCOPE_H
#define UMO_BASE_SCOPE_H

#include <umo/trace.h>

/* One more reference. */
void umo_scope_acquire(umo_scope *scope);

/* Takes size_bytes out of every limit up to the root, or out of none: false when one is reached. */
bool umo_scope_charge(umo_scope *scope, uint64_t size_bytes);
void umo_scope_uncharge(umo_scope *scope, uint64_t size_bytes);

/* Counts memory that was really taken: a charge comes before it, and the system may still refuse.
 */
void umo_scope_count_alloc(umo_scope *scope, uint64_t size_bytes);

/* Counts a umo_buffer that comes to life (+1) or goes (-1). */
void umo_scope_count_buffer(umo_scope *scope, int change);

/* Counts a wrap of size_bytes, made new or found in the registration cache. */
void umo_scope_count_import(umo_scope *scope, bool hit, uint64_t size_bytes);

#endif
