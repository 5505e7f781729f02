/*
 * What buffers tell the flight recorder.
 */
#ifndef UMO_MEM_EVENTS_H
#define UMO_MEM_EVENTS_H

#include "mem/buffer_state.h"
#include "trace/trace.h"

/* The buffer's number, which no other one of the process has. Given at the first event, so that
 * buffers cost nothing while nobody records. Any thread. */
uint64_t umo_buffer_number(umo_buffer *buffer);

/* An event of a buffer, caused by whom scope names; as UMO_TRACE(). */
#define UMO_TRACE_BUFFER(buffer_, scope_, ...)                                                     \
    UMO_TRACE(.scope = (scope_), .device = (buffer_)->device->number,                              \
              .driver = (buffer_)->device->info.driver, .buffer = umo_buffer_number(buffer_),      \
              .mode = atomic_load_explicit(&(buffer_)->mode, memory_order_relaxed) + 1,            \
              __VA_ARGS__)

/* One of a bracket. */
#define UMO_TRACE_ACCESS(buffer_, access_, kind_, fence_, status_)                                 \
    UMO_TRACE_BUFFER(buffer_, (access_)->scope != NULL ? (access_)->scope : (buffer_)->scope,      \
                     .kind = (kind_), .side = (uint32_t)(access_)->side,                           \
                     .use = (uint32_t)(access_)->use, .offset_bytes = (access_)->offset_bytes,     \
                     .size_bytes = (access_)->size_bytes, .queue = (access_)->queue,               \
                     .fence_value = (fence_).value, .status = (status_))

/* Counts a transfer between the sides of a buffer, and tells of it. */
void umo_buffer_count_transfer(umo_buffer *buffer, umo_scope *scope, umo_side to, bool performed,
                               size_t offset_bytes, size_t size_bytes, umo_fence fence);

#endif
