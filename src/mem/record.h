/*
 * The inner side of access.h: how the life of a buffer and its brackets are recorded.
 *
 * record.c knows buffers only by their state, so that buffer.c and access.c may call it.
 */
#ifndef UMO_MEM_RECORD_H
#define UMO_MEM_RECORD_H

#include "mem/buffer_state.h"
#include "mem/votes.h"

#include <umo/access.h>

/* Counts an access; its arguments are right. */
void umo_record_count(umo_buffer *buffer, umo_side side, umo_use use, size_t size_bytes);

/* The buffer's memory is about to go: nothing finds it any more, and its figures are dropped. */
void umo_record_close(umo_buffer *buffer);

/* Has forks wait until nobody is in the middle of recording, so that a child finds all of it whole.
 * Once. */
void umo_record_fork_register(void);

/* A bracket was opened. */
static inline void umo_record_bracket(umo_buffer *buffer, const umo_access *access)
{
    if (atomic_load_explicit(&buffer->record_key, memory_order_relaxed) != 0) {
        umo_record_count(buffer, access->side, access->use, access->size_bytes);
    }
}

/* The tracked buffers one after the other: the first from *cursor 0 on whose scope is the given one
 * or below it (NULL for any), with a reference; NULL at the end. */
umo_buffer *umo_record_next(uint32_t *cursor, const umo_scope *scope);

/* The pattern that was named last, UNKNOWN at first. Nothing where it is not tracked. */
umo_pattern umo_record_pattern(umo_buffer *buffer);
void umo_record_pattern_set(umo_buffer *buffer, umo_pattern pattern);

/* Whose nodes' threads used a buffer on the host side. Nothing is counted with one node. collect
 * brings what threads have counted so far to the records; take empties a buffer's if they are
 * `least` bytes or more, and returns the bytes, 0 for none. */
void umo_record_votes_collect(void);
double umo_record_votes_take(umo_buffer *buffer, double least, umo_votes *out);

#endif
