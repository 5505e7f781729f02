/*
 * Names of scopes and devices. Their numbers are never used again in a process, so a name that is
 * kept stays right, and outlives recordings. Kept twice: for this process, and in the head for
 * those who look on, out of which nothing is read here.
 */
#ifndef UMO_TRACE_NAMES_H
#define UMO_TRACE_NAMES_H

#include "trace/layout.h"

typedef enum umo_trace_name_of {
    UMO_TRACE_NAME_SCOPE = 1,
    UMO_TRACE_NAME_DEVICE = 2
} umo_trace_name_of;

/* Where a name is looked for: some places of a table, one after the other. */
#define UMO_TRACE_NAME_PROBES 16u
static inline uint64_t umo_trace_name_key(umo_trace_name_of what, uint32_t number)
{
    return (uint64_t)what << 32 | number;
}
static inline uint32_t umo_trace_name_place(uint64_t key, uint32_t probe)
{
    return (uint32_t)((key * UINT64_C(0x9e3779b97f4a7c15) >> 40) + probe) & (UMO_TRACE_NAMES - 1);
}

/* False when there is no room near its place. Any thread, no lock. */
bool umo_trace_name_keep(umo_trace_name_of what, uint32_t number, const char *text);

/* "" for none. The text stays. */
const char *umo_trace_name_find(umo_trace_name_of what, uint32_t number);

/* Puts all of them into a head that is new. Nothing is recorded meanwhile. */
void umo_trace_names_show(umo_trace_head *head);

#endif
