/*
 * The inner side of buffer.h for the other files of this layer.
 */
#ifndef UMO_MEM_BUFFER_H
#define UMO_MEM_BUFFER_H

#include <umo/buffer.h>

/* Before anything else of this layer registers for forks, as the locks here are taken last. */
void umo_buffer_fork_register(void);

/* References held now: a cache that holds one asks whether anybody else does. */
uint32_t umo_buffer_refs(const umo_buffer *buffer);

/* umo_buffer_import() without counting it: the registry counts for who asked, not for itself. */
umo_status umo_buffer_import_uncounted(umo_device *device, umo_scope *scope,
                                       const umo_import *import, umo_buffer **out, umo_reason *why,
                                       umo_error *error);

/* Says of a new import that its memory is umo's own, cut out of something that a scope is charged
 * for, and that nobody wrote to it. */
void umo_buffer_make_inner(umo_buffer *buffer);

/* Says of a new buffer that no other one has any of the pages that its host side is in, and that
 * they are umo's. */
void umo_buffer_own_pages(umo_buffer *buffer);

/* Says of a new import that its memory is part of a piece, `offset_bytes` into it, whose bytes
 * other buffers use too: a bracket of one is in the way of those of the others, and its fence is
 * waited for by them. The piece is a buffer in the host's memory, longer-lived, and used by nobody
 * itself.
 */
void umo_buffer_share_piece(umo_buffer *buffer, umo_buffer *piece, size_t offset_bytes);
/* That one, or NULL. Lives as long as the buffer. */
const umo_buffer *umo_buffer_piece(const umo_buffer *buffer);

/* umo_buffer_alloc_movable() on a node, or UMO_NUMA_ANY. NOT_FOUND, UNSUPPORTED, REFUSED as
 * umo_numa_place(). */
umo_status umo_buffer_alloc_movable_on(umo_device *device, umo_scope *scope, size_t size_bytes,
                                       umo_storage_mode mode, int32_t node, umo_buffer **out,
                                       umo_error *error);

/* Bytes of somebody else's memory. */
size_t umo_buffer_wrapped_bytes(const umo_buffer *buffer);

/* The owner of imported memory may have changed bytes that the host has: what the device made of
 * them is stale. Bytes that only the device has stay. */
void umo_buffer_refresh(umo_buffer *buffer);

/* Waits for every pending use. The first failure is returned, after all were waited for. */
umo_status umo_buffer_settle(umo_buffer *buffer);

/* Marks all bytes undefined; no bracket is open and all uses have completed. */
void umo_buffer_forget(umo_buffer *buffer);

/* Overwrites all bytes on both sides with zeros and waits; they are undefined afterwards. Not
 * counted as a transfer: nobody asked for these bytes. */
umo_status umo_buffer_clear(umo_buffer *buffer);

/* May the device write to it? */
bool umo_buffer_writable(const umo_buffer *buffer);

#endif
