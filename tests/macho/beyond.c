/*
 * Mappings that reach beyond their file's end. A Mac makes them, and a touch of a page that the
 * file does not have is a SIGBUS. The emulator, whose pages are larger than the system's, ends such
 * a mapping with the file, or refuses it: what lies behind is no memory, and a touch of it a
 * SIGSEGV, after which nothing can be repaired. So the file is long enough while it is mapped, and
 * is cut again. Other processes could see that; under regions_lock() this one does not.
 */
#include "regions.h"

#include "runtime.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t pages(uint64_t size)
{
    return size / MACHO_PAGE_BYTES + (size % MACHO_PAGE_BYTES != 0 ? 1 : 0);
}

/* A descriptor to lengthen the file by, where whole pages of the mapping lie beyond its end. */
static int file_beyond(int fd, uint64_t end, off_t *size)
{
    struct stat status;
    char name[32];
    if (fd < 0 || end > INT64_MAX || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        pages((uint64_t)status.st_size) >= pages(end)) {
        return -1;
    }
    *size = status.st_size;
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd); /* which may be open to read only */
    return open(name, O_RDWR | O_CLOEXEC);
}

void *macho_map(void *start, size_t size, int protection, int flags, int fd, off_t offset)
{
    off_t file_bytes = 0;
    uint64_t end = (uint64_t)offset + size;
    int writable = end < size ? -1 : file_beyond(fd, end, &file_bytes);
    bool longer = writable >= 0 && ftruncate(writable, (off_t)end) == 0;
    void *mapped = mmap(start, size, protection, flags, fd, offset);
    if (longer && ftruncate(writable, file_bytes) != 0) {
        macho_die("a file that was made longer cannot be cut again");
    }
    if (writable >= 0) {
        (void)close(writable);
    }
    return mapped;
}
