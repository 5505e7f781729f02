/*
 * Shown memory on macOS: an object of shm_open(), named after the pid and the part. Its size is set
 * once and never again, by the system's own rule. A name outlives a process that was killed and is
 * taken over by the next one of that pid; whoever opens it asks whether its process runs.
 */
#include "os/shown.h"

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/types.h>
#include <unistd.h>

#define PARTS_MAX 64u

static _Atomic uint64_t parts_made; /* a bit each */

static void name_write(int64_t pid, uint32_t part, char *out, size_t out_bytes)
{
    (void)snprintf(out, out_bytes, "/umo-rec.%lld.%u", (long long)pid, part);
}

static void names_remove(void)
{
    uint64_t made = atomic_exchange(&parts_made, 0);
    for (uint32_t part = 0; part < PARTS_MAX; part++) {
        char name[32];
        if ((made >> part & 1) != 0) {
            name_write((int64_t)getpid(), part, name, sizeof name);
            (void)shm_unlink(name);
        }
    }
}

__attribute__((destructor)) static void names_remove_at_end(void)
{
    names_remove();
}

umo_status umo_os_shown_create(uint32_t part, size_t size_bytes, int *out_file, int *cause)
{
    char name[32];
    if (part >= PARTS_MAX) {
        *cause = EMFILE;
        return UMO_E_SYSTEM;
    }
    name_write((int64_t)getpid(), part, name, sizeof name);
    (void)shm_unlink(name);
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file < 0) {
        *cause = errno;
        return UMO_E_SYSTEM;
    }
    (void)fcntl(file, F_SETFD, FD_CLOEXEC);
    if (ftruncate(file, (off_t)size_bytes) != 0) {
        *cause = errno;
        (void)close(file);
        (void)shm_unlink(name);
        return UMO_E_SYSTEM;
    }
    (void)atomic_fetch_or(&parts_made, UINT64_C(1) << part);
    *out_file = file;
    return UMO_OK;
}

void umo_os_shown_close(uint32_t part, int file, bool ours)
{
    char name[32];
    const uint64_t bit = UINT64_C(1) << part;
    if (ours) {
        name_write((int64_t)getpid(), part, name, sizeof name);
        (void)shm_unlink(name);
    }
    (void)atomic_fetch_and(&parts_made, ~bit);
    (void)close(file);
}

umo_status umo_os_shown_open(int64_t pid, uint32_t part, int *out_file, size_t *out_bytes,
                             int *cause)
{
    char name[32];
    struct stat seen;
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH) {
        *cause = ESRCH;
        return UMO_E_NOT_FOUND;
    }
    name_write(pid, part, name, sizeof name);
    int file = shm_open(name, O_RDWR, 0);
    if (file < 0) {
        *cause = errno == ENOENT ? 0 : errno;
        return errno == ENOENT                     ? UMO_E_NOT_FOUND
               : errno == EACCES || errno == EPERM ? UMO_E_REFUSED
                                                   : UMO_E_SYSTEM;
    }
    *cause = 0;
    if (fstat(file, &seen) != 0 || seen.st_size <= 0) {
        (void)close(file);
        return UMO_E_REFUSED;
    }
    *out_file = file;
    *out_bytes = (size_t)seen.st_size;
    return UMO_OK;
}

void umo_os_shown_empty(int file, size_t offset_bytes, size_t size_bytes)
{
    (void)file;
    (void)offset_bytes;
    (void)size_bytes;
}

static bool process_find(int64_t pid, struct kinfo_proc *out)
{
    size_t size_bytes = sizeof *out;
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, (int)pid};
    return sysctl(name, 4, out, &size_bytes, NULL, 0) == 0 && size_bytes >= sizeof *out &&
           out->kp_proc.p_stat != SZOMB;
}

umo_status umo_os_other_open(int64_t pid, umo_os_other *out)
{
    struct kinfo_proc found;
    if (!process_find(pid, &found)) {
        return UMO_E_NOT_FOUND;
    }
    *out = (umo_os_other){
        .pid = pid, .handle = -1, .started = (uint64_t)found.kp_proc.p_starttime.tv_sec};
    return UMO_OK;
}

bool umo_os_other_ended(const umo_os_other *other)
{
    struct kinfo_proc found;
    return !process_find(other->pid, &found) ||
           (uint64_t)found.kp_proc.p_starttime.tv_sec != other->started;
}

void umo_os_other_close(umo_os_other *other)
{
    (void)other;
}

int64_t umo_os_other_inner_pid(const umo_os_other *other)
{
    return other->pid;
}
