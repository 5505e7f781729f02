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
#include <time.h>

#ifdef __APPLE__
#define CACHES "/Library/Caches"
#else
#define CACHES "/.cache"
#endif

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

size_t umo_os_pages_present(const void *start, size_t size_bytes)
{
    unsigned char there[256];                          /* macOS's are signed; the bit is the same */
    const size_t page = (size_t)sysconf(_SC_PAGESIZE); /* the call's, also where ours are longer */
    const size_t within = (uintptr_t)start % page;
    char *at = (char *)(uintptr_t)start - within;
    size_t pages = (size_bytes + within + page - 1) / page;
    size_t found_bytes = 0;
    while (pages > 0) {
        size_t some = pages < sizeof there ? pages : sizeof there;
        if (mincore(at, some * page, (void *)there) != 0) {
            break;
        }
        for (size_t i = 0; i < some; i++) {
            found_bytes += (there[i] & 1) != 0 ? page : 0;
        }
        at += some * page;
        pages -= some;
    }
    return found_bytes;
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

void umo_os_mapping_drop(void *start, size_t size_bytes)
{
    (void)munmap(start, size_bytes);
}

void umo_os_sleep_ns(uint64_t time_ns)
{
    const struct timespec time = {
        .tv_sec = (time_t)(time_ns / 1000000000u),
        .tv_nsec = (long)(time_ns % 1000000000u),
    };
    (void)nanosleep(&time, NULL);
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
