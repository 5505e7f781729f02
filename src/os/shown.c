/*
 * Shown memory: what POSIX has for it.
 */
#include "os/shown.h"

#include <sys/mman.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

static void *mapped(void *at, size_t size_bytes, int protection, int flags, int file)
{
    void *memory = mmap(at, size_bytes, protection, flags | (at != NULL ? MAP_FIXED : 0), file, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void *umo_os_shown_map(int file, size_t size_bytes, void *at, bool writable)
{
    return mapped(at, size_bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, file);
}

bool umo_os_shown_leave(void *at, size_t size_bytes)
{
    return mapped(at, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1) != NULL;
}
