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
#include <stdatomic.h>

/* Bytes of a page: asked of the system once, never assumed. */
size_t umo_os_page_bytes(void);

/* Processors that are on; at least 1. */
uint32_t umo_os_processors(void);

/* Bytes of physical memory; 0 if unknown. */
uint64_t umo_os_memory_bytes(void);

/* Fresh zeroed pages, size_bytes rounded up to whole pages, at a multiple of theirs. NULL when
 * memory is out. */
void *umo_os_pages_alloc(size_t size_bytes);
void umo_os_pages_free(void *pages, size_t size_bytes);

/*
 * A range of addresses with nothing behind it, which no other mapping gets: size_bytes rounded up
 * to whole pages, at a multiple of a huge page if it is as long, given back by umo_os_pages_free()
 * whatever lies behind it then. NULL when there is none. commit puts fresh zeroed pages behind a
 * part (whole pages; what is there already stays as it is), decommit takes them away and leaves the
 * addresses reserved: a touch is a fault.
 */
void *umo_os_pages_reserve(size_t size_bytes);
bool umo_os_pages_commit(void *pages, size_t size_bytes);
void umo_os_pages_decommit(void *pages, size_t size_bytes);

/* Takes the pages behind whole pages away and leaves them in use: they read as zeros, and a touch
 * brings a fresh one. */
void umo_os_pages_empty(void *pages, size_t size_bytes);

/* Bytes of the huge pages that umo_os_pages_huge() asks for; 0 where there are none to be had, and
 * without UMO_HUGE_PAGES=on in the environment. */
size_t umo_os_huge_page_bytes(void);

/* Whether a touch may bring a huge page from now on, in whole pages of a range: one that lies in it
 * from end to end, and has no page yet. What is there stays as it is. A hint, and a border between
 * mappings at both ends. */
void umo_os_pages_huge(void *pages, size_t size_bytes, bool huge);

/*
 * Puts the pages behind [from, from + size_bytes) behind `to`, whose own are dropped: the bytes
 * move without being copied, and from reads as zeros. Both are committed, do not overlap, and from
 * is one mapping: each call makes one of its own of to, and the ends of both may from then on be
 * borders between mappings. umo_os_pages_renew() makes empty pages of a range ordinary again.
 * False where the system cannot, or not now: behind `to` are fresh pages then, and what was behind
 * from may be lost.
 */
bool umo_os_pages_move(void *from, size_t size_bytes, void *to);
bool umo_os_pages_renew(void *pages, size_t size_bytes);

/*
 * A fence that one side of two threads pays for both. The cheap side: a store,
 * umo_os_barrier_here(), a load. The dear side: a store, umo_os_barrier_all(), a load. At least one
 * sees the other's store. prepare() before the first use; also in a child after fork.
 */
extern _Atomic bool umo_os_barrier_real
    __attribute__((visibility("hidden"))); /* the system has no such thing: both sides fence */
void umo_os_barrier_prepare(void);
void umo_os_barrier_all(void);
/* A full fence. The thread sanitizer does not know the plain one; a locked instruction is one. */
static inline void umo_os_fence(void)
{
#if defined(__SANITIZE_THREAD__)
    _Atomic int line = 0;
    (void)atomic_exchange_explicit(&line, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}
static inline void umo_os_barrier_here(void)
{
    if (atomic_load_explicit(&umo_os_barrier_real, memory_order_relaxed)) {
        umo_os_fence();
    }
    atomic_signal_fence(memory_order_seq_cst);
}

/* Makes the pages that a range lies in present, for writing too where that is asked; no byte
 * changes. NOMEM, or SYSTEM where something behind the range cannot be read. */
umo_status umo_os_pages_populate(void *start, size_t size_bytes, bool writable);

/* Has whole pages, all to be written soon, be there at once: for less than a fault each. False
 * where the system has no call for that; then, or where memory is out, they come when touched. */
bool umo_os_pages_bring(void *pages, size_t size_bytes);
/* Of the pages of ours that an address range reaches into, the bytes of those that are there. */
size_t umo_os_pages_present(const void *start, size_t size_bytes);

/* Keeps whole pages in memory. Lock a page once: locks nest on macOS and do not on Linux. LIMIT
 * where umo_os_lock_limit_bytes() is in force, NOMEM, SYSTEM (not all of it is memory); then none
 * of it is locked. */
umo_status umo_os_pages_lock(void *start, size_t size_bytes);
void umo_os_pages_unlock(void *start, size_t size_bytes);
/* The most bytes that this process may lock (RLIMIT_MEMLOCK); UINT64_MAX for no limit. */
uint64_t umo_os_lock_limit_bytes(void);

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

/* Between two looks at what another processor is about to change. */
static inline void umo_os_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Monotonic time. */
uint64_t umo_os_now_ns(void);

/* At least that long, unless a signal comes. */
void umo_os_sleep_ns(uint64_t time_ns);

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

/*
 * Watches over shared memory that is mapped here, whole pages, whose file may be cut short: a touch
 * of what is gone finds zeros there and to the end, instead of ending the process, and what is
 * written goes nowhere. whole_bytes, its owner's, is size_bytes now and less when something was
 * lost: from there on. The first one takes SIGBUS over; what is not about a guarded page goes to
 * who had it before. UNSUPPORTED where UMO_SIGBUS=off said no to that when the first one asked,
 * LIMIT, SYSTEM.
 *
 * It is removed (NULL is allowed) before the memory is unmapped, and by nobody after a fork: see
 * umo_os_forks().
 */
typedef struct umo_os_guard umo_os_guard;
umo_status umo_os_guard_add(void *start, size_t size_bytes, bool writable,
                            _Atomic size_t *whole_bytes, umo_os_guard **out);
void umo_os_guard_remove(umo_os_guard *guard);
/* Whether an address lies in memory that is watched over. */
bool umo_os_guarded(const void *address);

/* How many forks lie between this process and the one that first had them watched: what was made
 * under another count belongs to the parent. A child that was not made by fork() is not counted. */
extern _Atomic uint32_t umo_os_fork_count __attribute__((visibility("hidden")));
void umo_os_forks_watch(void);
static inline uint32_t umo_os_forks(void)
{
    return atomic_load_explicit(&umo_os_fork_count, memory_order_relaxed);
}

/* Copies between memory of this process and memory that may vanish meanwhile: comes back short
 * instead of a signal. Returns the bytes copied, from the first on. */
size_t umo_os_copy_from(void *to, const void *from, size_t size_bytes);
size_t umo_os_copy_to(void *to, const void *from, size_t size_bytes);
/* The same in both directions, slower, on any system. */
size_t umo_os_copy_by_pipe(void *to, const void *from, size_t size_bytes);

/* How many mappings a process may have; SIZE_MAX where that is not limited or not known. */
size_t umo_os_mappings_max(void);

/* Calls visit for every mapping of the process until it returns false. One pass, slow (a read of
 * the whole map). */
umo_status umo_os_mapping_visit(bool (*visit)(const umo_mapping *mapping, void *user), void *user);

/* What makes a file the same one. Writing to it changes the time, within the clock's tick. */
typedef struct umo_os_file_id {
    uint64_t device;
    uint64_t inode;
    uint64_t size_bytes;
    int64_t changed_s; /* the last write */
    int64_t changed_ns;
    bool regular;
} umo_os_file_id;

/* A file for reading. NOT_FOUND, or SYSTEM with errno in cause. */
umo_status umo_os_file_open(const char *path, int *out, umo_os_file_id *id, int *cause);
umo_status umo_os_file_identify(int file, umo_os_file_id *out, int *cause);
void umo_os_file_close(int file);
/* Its first size_bytes, read-only and shared with all who map it; umo_os_mapping_drop() ends it. */
umo_status umo_os_file_map(int file, size_t size_bytes, void **out, int *cause);
/* Takes what was touched of such a mapping out of the process's working set; it stays mapped, and
 * the system's copy of the file stays too. */
void umo_os_file_rest(void *mapped, size_t size_bytes);

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
