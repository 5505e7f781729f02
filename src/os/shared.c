/*
 * Segments of shared memory: what POSIX has for it.
 */
#include "os/shared.h"

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

umo_status umo_os_shared_create(const char *key, size_t size_bytes, int *out_file, void **out,
                                int *cause)
{
    int file = shm_open(key, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file < 0) {
        *cause = errno;
        return UMO_E_SYSTEM;
    }
    /* shm_open() sets it too on every system that we know; POSIX leaves it open. */
    (void)fcntl(file, F_SETFD, FD_CLOEXEC);
    void *mapped = MAP_FAILED;
    if (ftruncate(file, (off_t)size_bytes) == 0) {
        mapped = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    if (mapped == MAP_FAILED) {
        *cause = errno;
        (void)shm_unlink(key);
        (void)close(file);
        return UMO_E_SYSTEM;
    }
    *out_file = file;
    *out = mapped;
    return UMO_OK;
}

void umo_os_shared_hide(const char *key)
{
    (void)shm_unlink(key);
}

void umo_os_shared_close(int file, void *mapped, size_t size_bytes)
{
    umo_os_mapping_drop(mapped, size_bytes);
    (void)close(file);
}

bool umo_os_random(void *out, size_t size_bytes)
{
    FILE *source = fopen("/dev/urandom", "rb");
    if (source == NULL) {
        return false;
    }
    bool whole = fread(out, 1, size_bytes, source) == size_bytes;
    (void)fclose(source);
    return whole;
}
