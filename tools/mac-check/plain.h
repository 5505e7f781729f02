/* Metal without umo, for checks and benchmarks: plain.c. */
#ifndef UMO_MAC_CHECK_PLAIN_H
#define UMO_MAC_CHECK_PLAIN_H

#include "probe.h"

#include "driver/metal/metal_api.h"

typedef struct plain {
    const umo_metal_api *api;
    void *pool;
    umo_id devices;
    umo_id device;
    umo_id queue;
    umo_id pipeline; /* probe_one; NULL when it was not wanted */
} plain;

void plain_open(plain *m, bool pipeline);
void plain_close(plain *m);
/* Launches probe_one over one work item and waits for its handler. event, if not NULL, is signalled
 * by the command; what it said inside the handler is returned. */
uint64_t plain_launch(plain *m, umo_id buffer, uint32_t value, umo_id event, uint64_t signal);

#endif
