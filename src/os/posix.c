/*
 * What every system that we know does alike.
 */
#include "os/os.h"

#include "base/size.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <sys/resource.h>

#ifdef __APPLE__
#define CACHES "/Library/Caches"
#else
#define CACHES "/.cache"
#endif

#define PIPE_PART ((size_t)65536)

uint32_t umo_os_processors(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors > 0 ? (uint32_t)processors : 1;
}

void umo_os_pages_free(void *pages, size_t size_bytes)
{
    size_t whole_bytes;
    if (pages != NULL && umo_round_up(size_bytes, umo_os_page_bytes(), &whole_bytes)) {
        (void)munmap(pages, whole_bytes);
    }
}

bool umo_os_pages_commit(void *pages, size_t size_bytes)
{
    return mprotect(pages, size_bytes, PROT_READ | PROT_WRITE) == 0;
}

umo_status umo_os_pages_lock(void *start, size_t size_bytes)
{
    if (mlock(start, size_bytes) == 0) {
        return UMO_OK;
    }
    const int cause = errno;
    if (cause != ENOMEM && cause != EPERM && cause != EAGAIN) {
        return UMO_E_SYSTEM;
    }
    /* What was locked before the failure must not stay so. macOS has undone it, and an unlock there
     * would undo a lock of somebody else's. */
#ifndef __APPLE__
    (void)munlock(start, size_bytes);
#endif
    /* ENOMEM has two meanings; this call has only the one: there is a hole in the range. */
    if (cause == ENOMEM && msync(start, size_bytes, MS_ASYNC) != 0 && errno == ENOMEM) {
        return UMO_E_SYSTEM;
    }
    return umo_os_lock_limit_bytes() != UINT64_MAX ? UMO_E_LIMIT : UMO_E_NOMEM;
}

void umo_os_pages_unlock(void *start, size_t size_bytes)
{
    (void)munlock(start, size_bytes);
}

uint64_t umo_os_lock_limit_bytes(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
               ? (uint64_t)limit.rlim_cur
               : UINT64_MAX;
}

_Atomic uint32_t umo_os_fork_count;

static void forks_count(void)
{
    atomic_fetch_add_explicit(&umo_os_fork_count, 1, memory_order_relaxed);
}

static void forks_register(void)
{
    (void)pthread_atfork(NULL, NULL, forks_count);
}

void umo_os_forks_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, forks_register);
}

void umo_os_mapping_drop(void *start, size_t size_bytes)
{
    (void)munmap(start, size_bytes);
}

/* A file's two ends that wait for nothing and that no child inherits. */
static bool pipe_open(int ends[2])
{
    if (pipe(ends) != 0) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        (void)fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return true;
}

/* The system reads what is written to a pipe, and writes what is read from it, and says so where it
 * cannot. As much at a time as the pipe happens to take. */
size_t umo_os_copy_by_pipe(void *to, const void *from, size_t size_bytes)
{
    int ends[2];
    size_t done = 0;
    if (!pipe_open(ends)) {
        return 0;
    }
    while (done < size_bytes) {
        size_t left = size_bytes - done < PIPE_PART ? size_bytes - done : PIPE_PART;
        ssize_t in = write(ends[1], (const char *)from + done, left);
        ssize_t out = in > 0 ? read(ends[0], (char *)to + done, (size_t)in) : -1;
        done += out > 0 ? (size_t)out : 0;
        if (out != in || in <= 0) {
            break;
        }
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
    return done;
}

void umo_os_condition_finish(pthread_cond_t *condition)
{
    (void)pthread_cond_destroy(condition);
}

void *umo_os_library_open(const char *const *names)
{
    for (; *names != NULL; names++) {
        void *library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
        if (library != NULL) {
            return library;
        }
    }
    return NULL;
}

void *umo_os_library_symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

bool umo_os_cache_dir(char *out, size_t out_bytes)
{
    /* Not of macOS, but whoever sets it means it. A relative path there is to be ignored (XDG Base
     * Directory Specification). */
    const char *base = getenv("XDG_CACHE_HOME");
    const char *below = "";
    if (base == NULL || base[0] != '/') {
        base = getenv("HOME");
        below = CACHES;
    }
    return base != NULL && base[0] == '/' &&
           umo_os_written(out, out_bytes, snprintf(out, out_bytes, "%s%s/umo", base, below));
}
