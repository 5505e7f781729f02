/*
 * The porting surface: everything that libumo asks of an operating system beyond C11 and POSIX
 * threads. linux.c and darwin.c each implement it, but for what posix.c does for both; nothing
 * above this layer includes a system header for memory.
 */
#ifndef UMO_OS_OS_H
#define UMO_OS_OS_H

#include <umo/region.h>
#include <umo/status.h>

#include <pthread.h>

/* Bytes of a page: asked of the system once, never assumed. */
size_t umo_os_page_bytes(void);

/* Bytes of physical memory; 0 if unknown. */
uint64_t umo_os_memory_bytes(void);

/* Fresh zeroed pages, size_bytes rounded up to whole pages, at a multiple of theirs. NULL when
 * memory is out. */
void *umo_os_pages_alloc(size_t size_bytes);
void umo_os_pages_free(void *pages, size_t size_bytes);

/*
 * The same for pages whose bytes the system may be allowed to drop: umo_os_pages_purgeable() says
 * when, for all of one allocation. out_lost is written for KEPT only: whether bytes were dropped
 * since they were last KEPT. UNSUPPORTED where the system cannot say so.
 */
umo_status umo_os_pages_alloc_purgeable(size_t size_bytes, void **out);
umo_status umo_os_pages_purgeable(void *pages, umo_purgeable want, bool *out_lost);

/* How short the system is of memory. */
typedef enum umo_os_pressure_level {
    UMO_OS_PRESSURE_NORMAL = 0, /* again: sent after one of the others */
    UMO_OS_PRESSURE_WARN = 1,
    UMO_OS_PRESSURE_CRITICAL = 2
} umo_os_pressure_level;

/* Calls notify, on a thread of the system's and never twice at once, whenever the level changes,
 * until it is destroyed; no call runs any more when that returns, so notify may not destroy it.
 * UNSUPPORTED where the system sends no such message. */
typedef struct umo_os_pressure umo_os_pressure;
umo_status umo_os_pressure_create(void (*notify)(umo_os_pressure_level level, void *user),
                                  void *user, umo_os_pressure **out);
void umo_os_pressure_destroy(umo_os_pressure *pressure);

/* Monotonic time. */
uint64_t umo_os_now_ns(void);

/* A condition variable whose deadlines are on umo_os_now_ns()'s clock. */
void umo_os_condition_init(pthread_cond_t *condition);
void umo_os_condition_finish(pthread_cond_t *condition);
/* False at the deadline, true when woken (by anybody, or for no reason: look again). UINT64_MAX
 * waits for ever. */
bool umo_os_condition_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock,
                                 uint64_t deadline_ns);

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

/* Bytes of a line of the processor's data cache; 64 where the system does not say. */
size_t umo_os_cache_line_bytes(void);

/* What snprintf wrote fits; text that does not is no name of anything, and is taken back. */
static inline bool umo_os_written(char *out, size_t out_bytes, int written)
{
    bool whole = written > 0 && (size_t)written < out_bytes;
    if (!whole && out_bytes > 0) {
        out[0] = '\0';
    }
    return whole;
}

/* The folder for files of ours that may vanish at any time. It need not exist yet. False, and
 * nothing written, if this user has none or it does not fit. */
bool umo_os_cache_dir(char *out, size_t out_bytes);

/* The system's own version, down to the build: part of the name of what is cached and must not
 * outlive an update. False, and nothing written, if it is unknown or does not fit. */
bool umo_os_release(char *out, size_t out_bytes);

#endif
