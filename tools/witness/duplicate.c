/*
 * Preloaded under valgrind, which refuses mremap() with an old size of 0: the same second mapping
 * by way of /proc/self/map_files, so that what is counted there is the path that runs outside.
 * Needs the right to open those files (root has it).
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* At an address, or anywhere for NULL. */
static void *duplicate(uintptr_t start, size_t size_bytes, void *place)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return MAP_FAILED;
    }
    char line[512];
    void *made = MAP_FAILED;
    while (made == MAP_FAILED && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from;
        unsigned long to;
        unsigned long offset;
        char mode[5];
        /* The kernel's own numbers fit. NOLINTNEXTLINE(cert-err34-c) */
        if (sscanf(line, "%lx-%lx %4s %lx", &from, &to, mode, &offset) != 4 || mode[3] != 's' ||
            start < from || start >= to || size_bytes > to - start) {
            continue;
        }
        char path[64];
        (void)snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", from, to);
        int writes = mode[1] == 'w';
        int file = open(path, (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (file < 0) {
            break;
        }
        made = mmap(place, size_bytes, PROT_READ | (writes ? PROT_WRITE : 0),
                    MAP_SHARED | (place != NULL ? MAP_FIXED : 0), file,
                    (off_t)(offset + (start - from)));
        (void)close(file);
        break;
    }
    (void)fclose(maps);
    return made;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): reserved there. */
__attribute__((visibility("default"))) void *mremap(void *old, size_t old_bytes, size_t new_bytes,
                                                    int flags, ...)
{
    va_list more;
    va_start(more, flags);
    void *to = (flags & MREMAP_FIXED) != 0 ? va_arg(more, void *) : NULL;
    va_end(more);
    if (old_bytes == 0) {
        return duplicate((uintptr_t)old, new_bytes, to);
    }
    static void *(*next)(void *, size_t, size_t, int, ...);
    if (next == NULL) {
        void *found = dlsym(RTLD_NEXT, "mremap");
        memcpy(&next, &found, sizeof next);
    }
    return next(old, old_bytes, new_bytes, flags, to);
}
