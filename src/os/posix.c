/*
 * What every system that we know does alike.
 */
#include "os/os.h"

#include "base/size.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __APPLE__
#define CACHES "/Library/Caches"
#else
#define CACHES "/.cache"
#endif

void umo_os_pages_free(void *pages, size_t size_bytes)
{
    size_t whole_bytes;
    if (pages != NULL && umo_round_up(size_bytes, umo_os_page_bytes(), &whole_bytes)) {
        (void)munmap(pages, whole_bytes);
    }
}

void umo_os_mapping_drop(void *start, size_t size_bytes)
{
    (void)munmap(start, size_bytes);
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
