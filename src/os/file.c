/*
 * Files for reading, alike on every system that we know but for the name of one field.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#define CHANGE_TIME st_mtimespec
#else
#define CHANGE_TIME st_mtim
#endif

umo_status umo_os_file_identify(int file, umo_os_file_id *out, int *cause)
{
    struct stat seen;
    if (fstat(file, &seen) != 0) {
        *cause = errno;
        return UMO_E_SYSTEM;
    }
    *out = (umo_os_file_id){
        .device = (uint64_t)seen.st_dev,
        .inode = (uint64_t)seen.st_ino,
        .size_bytes = seen.st_size > 0 ? (uint64_t)seen.st_size : 0,
        .changed_s = (int64_t)seen.CHANGE_TIME.tv_sec,
        .changed_ns = (int64_t)seen.CHANGE_TIME.tv_nsec,
        .regular = S_ISREG(seen.st_mode),
    };
    return UMO_OK;
}

umo_status umo_os_file_open(const char *path, int *out, umo_os_file_id *id, int *cause)
{
    /* A pipe must not keep us waiting for its writer. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        *cause = errno;
        return errno == ENOENT || errno == ENOTDIR ? UMO_E_NOT_FOUND : UMO_E_SYSTEM;
    }
    umo_status status = umo_os_file_identify(file, id, cause);
    if (status != UMO_OK) {
        (void)close(file);
        return status;
    }
    *out = file;
    return UMO_OK;
}

void umo_os_file_close(int file)
{
    (void)close(file);
}

umo_status umo_os_file_map(int file, size_t size_bytes, void **out, int *cause)
{
    void *mapped = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
        *cause = errno;
        return errno == ENOMEM ? UMO_E_NOMEM : UMO_E_SYSTEM;
    }
    *out = mapped;
    return UMO_OK;
}

void umo_os_file_rest(void *mapped, size_t size_bytes)
{
#ifdef __APPLE__ /* where the hint does nothing to a mapping of a file */
    (void)mapped;
    (void)size_bytes;
#else
    (void)madvise(mapped, size_bytes, MADV_DONTNEED);
#endif
}
