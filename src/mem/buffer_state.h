/*
 * The inside of a umo_buffer, shared by buffer.c (life), uses.c and access.c (brackets) and move.c
 * (copies on demand) alone.
 */
#ifndef UMO_MEM_BUFFER_STATE_H
#define UMO_MEM_BUFFER_STATE_H

#include "base/ranges.h"
#include "driver/device.h"
#include "mem/buffer.h"

#include <pthread.h>
#include <stdatomic.h>

#define USES_INLINE 6u

/* A bracket that is open, or ended with a fence that may still be pending, or a command of our own
 * that brought bytes to a side. */
typedef struct buffer_use {
    umo_access access;
    umo_fence fence; /* of an ended use */
    bool open;
    bool moves; /* ours: should it fail, only access.side lacks the bytes */
} buffer_use;

/* In the values of umo_buffer.valid, beside the umo_side bits and never together with one: the
 * command that was to write these bytes failed. Whoever reads them is told so. */
#define RANGE_FAILED 4u

struct umo_buffer {
    _Atomic uint32_t refs;
    umo_device *device;
    umo_scope *scope;
    umo_memory memory;
    size_t memory_offset; /* of our first byte, where whole pages were bound around it */
    size_t size_bytes;
    uint64_t charged_bytes;
    bool writable; /* by the device */
    void *shadow;  /* PRIVATE memory's host side, made at its first host bracket */
    umo_deleter deleter;
    void *deleter_data; /* the owner's address: the device may have given it another one */
    void *deleter_user;

    pthread_mutex_t lock; /* all below */
    umo_ranges valid;     /* umo_side bits, or RANGE_FAILED */
    size_t use_count;
    size_t use_capacity;
    buffer_use *uses;
    buffer_use inline_uses[USES_INLINE];
    umo_buffer *next_spare;
};

/* A fence that is kept must not outlive its device; the buffer's own device outlives the buffer
 * anyway. */
void umo_use_fence_hold(const umo_buffer *buffer, umo_fence fence);
void umo_use_fence_drop(const umo_buffer *buffer, umo_fence fence);

/* Takes a use out of the list. The lock is held. */
void umo_use_drop(umo_buffer *buffer, size_t index);

/* Are there two memories that have to be kept in step? */
static inline bool umo_buffer_two_sided(const umo_buffer *buffer)
{
    return buffer->memory.mode != UMO_UNIFIED && !buffer->memory.one_memory;
}

#endif
