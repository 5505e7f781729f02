/*
 * The porting surface: everything that libumo asks of an operating system beyond C11 and POSIX
 * threads. linux.c and darwin.c each implement all of it; nothing above this layer includes a
 * system header for memory.
 */
#ifndef UMO_OS_OS_H
#define UMO_OS_OS_H

#include <umo/region.h>
#include <umo/status.h>

/* Bytes of a page: asked of the system once, never assumed. */
size_t umo_os_page_bytes(void);

/* Bytes of physical memory; 0 if unknown. */
uint64_t umo_os_memory_bytes(void);

/* Fresh zeroed pages, size_bytes rounded up to whole pages, at a multiple of theirs. NULL when
 * memory is out. */
void *umo_os_pages_alloc(size_t size_bytes);
void umo_os_pages_free(void *pages, size_t size_bytes);

/* Monotonic time. */
uint64_t umo_os_now_ns(void);

/* See umo_mapping_query(). */
umo_status umo_os_mapping_query(const void *address, umo_mapping *out);

/*
 * A second mapping of the shared memory at [start, start + size_bytes), whole pages of one mapping.
 * Without its file, name or permission: the mapping itself is duplicated. REFUSED for private
 * memory and for less than whole pages, UNSUPPORTED where the system cannot.
 */
umo_status umo_os_mapping_duplicate(void *start, size_t size_bytes, void **out);
/* Whether this system duplicates mappings at all (tried once): sandboxes and emulators may not. */
bool umo_os_mapping_duplicates(void);
void umo_os_mapping_drop(void *start, size_t size_bytes);

/* Calls visit for every mapping of the process until it returns false. One pass, slow (a read of
 * the whole map). */
umo_status umo_os_mapping_visit(bool (*visit)(const umo_mapping *mapping, void *user), void *user);

/* dlopen of the first name that loads (NULL-terminated list); NULL if none. */
void *umo_os_library_open(const char *const *names);
void *umo_os_library_symbol(void *library, const char *name);

#endif
