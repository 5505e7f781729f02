/*
 * Zeroed memory of a device, ready for kernels: what stands in for tensors that no request brought.
 */
#ifndef UMO_KERNEL_SCRATCH_H
#define UMO_KERNEL_SCRATCH_H

#include "launch.h"

#include <umo/context.h>

/* Holds its device bracket from alloc to free. Zeroed means none. */
typedef struct umo_scratch {
    umo_buffer *buffer;
    umo_access access;
} umo_scratch;

/* Errors: as umo_buffer_alloc() and umo_access_begin(). Nothing is held after an error. */
umo_status umo_scratch_alloc(umo_device *device, umo_scope *scope, size_t size_bytes,
                             uint32_t queue, umo_use use, umo_scratch *out, umo_error *error);

/* Waits for done. Accepts a zeroed one. */
void umo_scratch_free(umo_scratch *scratch, umo_fence done);

void umo_scratch_bind(const umo_scratch *scratch, umo_launch_memory *out);

#endif
