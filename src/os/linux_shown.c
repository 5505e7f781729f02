/*
 * Shown memory on Linux: a memory file, sealed against any change of its size, among the process's
 * open files.
 */
#include "os/shown.h"

#include "os/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME "umo-recorder"
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void name_write(uint32_t part, char *out, size_t out_bytes)
{
    (void)snprintf(out, out_bytes, NAME ".%u", part);
}

/* A limit on the size of files holds for memory files too, and its signal would end the process. */
static bool size_allowed(size_t size_bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur >= size_bytes;
}

umo_status umo_os_shown_create(uint32_t part, size_t size_bytes, int *out_file, int *cause)
{
    char name[32];
    if (!size_allowed(size_bytes)) {
        *cause = EFBIG;
        return UMO_E_SYSTEM;
    }
    name_write(part, name, sizeof name);
    int file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0) {
        *cause = errno;
        return UMO_E_SYSTEM;
    }
    if (fchmod(file, 0600) != 0 || ftruncate(file, (off_t)size_bytes) != 0 ||
        fcntl(file, F_ADD_SEALS, SEALS) != 0) {
        *cause = errno;
        (void)close(file);
        return UMO_E_SYSTEM;
    }
    *out_file = file;
    return UMO_OK;
}

void umo_os_shown_close(uint32_t part, int file, bool ours)
{
    /* Somebody may have closed every file of the process, and the number may be another's by now.
     */
    char name[32];
    char path[64];
    char target[64];
    (void)ours;
    name_write(part, name, sizeof name);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    if (strstr(target, name) != NULL) {
        (void)close(file);
    }
}

static umo_status part_open(const char *path, int *out_file, size_t *out_bytes, int *cause)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        *cause = errno;
        return errno == EACCES || errno == EPERM ? UMO_E_REFUSED : UMO_E_SYSTEM;
    }
    struct stat seen;
    int seals = fcntl(file, F_GET_SEALS);
    *cause = 0;
    if (fstat(file, &seen) != 0 || !S_ISREG(seen.st_mode) || seen.st_size <= 0 || seals < 0 ||
        (seals & F_SEAL_SHRINK) == 0) {
        (void)close(file);
        return UMO_E_REFUSED;
    }
    *out_file = file;
    *out_bytes = (size_t)seen.st_size;
    return UMO_OK;
}

umo_status umo_os_shown_open(int64_t pid, uint32_t part, int *out_file, size_t *out_bytes,
                             int *cause)
{
    char name[32];
    char wanted[64];
    char folder[48];
    name_write(part, name, sizeof name);
    (void)snprintf(wanted, sizeof wanted, "/memfd:%s (deleted)", name);
    (void)snprintf(folder, sizeof folder, "/proc/%lld/fd", (long long)pid);
    DIR *listing = opendir(folder);
    if (listing == NULL) {
        *cause = errno == ENOENT ? ESRCH : errno;
        return errno == ENOENT                     ? UMO_E_NOT_FOUND
               : errno == EACCES || errno == EPERM ? UMO_E_REFUSED
                                                   : UMO_E_SYSTEM;
    }
    umo_status status = UMO_E_NOT_FOUND;
    *cause = 0;
    for (struct dirent *entry; status != UMO_OK && (entry = readdir(listing)) != NULL;) {
        char path[sizeof folder + sizeof entry->d_name + 1];
        char target[64];
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        if (length < 0 && (errno == EACCES || errno == EPERM)) {
            *cause = errno;
            status = UMO_E_REFUSED;
        }
        if (strcmp(target, wanted) == 0) {
            status = part_open(path, out_file, out_bytes, cause);
        }
    }
    (void)closedir(listing);
    return status;
}

void umo_os_shown_empty(int file, size_t offset_bytes, size_t size_bytes)
{
    (void)fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset_bytes,
                    (off_t)size_bytes);
}

umo_status umo_os_other_open(int64_t pid, umo_os_other *out)
{
    *out = (umo_os_other){.pid = pid, .handle = -1};
#ifdef SYS_pidfd_open
    out->handle = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (out->handle < 0 && (errno == ESRCH || errno == EINVAL)) {
        return UMO_E_NOT_FOUND;
    }
#endif
    return umo_os_other_ended(out) ? UMO_E_NOT_FOUND : UMO_OK;
}

bool umo_os_other_ended(const umo_os_other *other)
{
    if (other->handle >= 0) {
        struct pollfd wait = {.fd = other->handle, .events = POLLIN};
        return poll(&wait, 1, 0) > 0;
    }
    return kill((pid_t)other->pid, 0) != 0 && errno == ESRCH;
}

void umo_os_other_close(umo_os_other *other)
{
    if (other->handle >= 0) {
        (void)close(other->handle);
        other->handle = -1;
    }
}

int64_t umo_os_other_inner_pid(const umo_os_other *other)
{
    char path[48];
    char line[256];
    long long inner = other->pid;
    (void)snprintf(path, sizeof path, "/proc/%lld/status", (long long)other->pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *last = strncmp(line, "NSpid:", 6) == 0 ? strrchr(line, '\t') : NULL;
        inner = last != NULL ? strtoll(last, NULL, 10) : inner;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return inner;
}
