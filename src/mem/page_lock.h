/*
 * Page-locks that nest: pages are counted, since two pinned buffers may share one and the system
 * counts nothing.
 */
#ifndef UMO_MEM_PAGE_LOCK_H
#define UMO_MEM_PAGE_LOCK_H

#include <umo/status.h>

/* Locks the pages around a range. LIMIT, with words; NOMEM, SYSTEM. Nothing is locked after an
 * error. */
umo_status umo_page_lock(void *start, size_t size_bytes, umo_error *error);

/* Undoes one umo_page_lock() of the same range. */
void umo_page_unlock(void *start, size_t size_bytes);

/* Bytes of pages that are locked now. */
uint64_t umo_page_locked_bytes(void);

#endif
