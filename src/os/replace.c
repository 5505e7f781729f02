/*
 * Files replaced as a whole, alike on every POSIX system.
 */
#include "os/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENDING ".XXXXXX"

static umo_status fail(umo_os_replace *r, const char *step)
{
    r->cause = errno;
    r->step = step;
    return UMO_E_SYSTEM;
}

static void signals_block(umo_os_replace *r)
{
    sigset_t both;
    (void)sigemptyset(&both);
    (void)sigaddset(&both, SIGXFSZ);
    (void)sigaddset(&both, SIGPIPE);
    (void)sigpending(&r->pending_before);
    (void)pthread_sigmask(SIG_BLOCK, &both, &r->blocked_before);
}

/* Takes back what our own writes raised; what was pending before stays. */
static void signals_restore(umo_os_replace *r)
{
    static const int ours[] = {SIGXFSZ, SIGPIPE};
    sigset_t pending;
    (void)sigpending(&pending);
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        if (sigismember(&pending, ours[i]) == 1 && sigismember(&r->pending_before, ours[i]) == 0) {
            sigset_t one;
            int taken;
            (void)sigemptyset(&one);
            (void)sigaddset(&one, ours[i]);
            (void)sigwait(&one, &taken);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &r->blocked_before, NULL);
}

static umo_status target_open(umo_os_replace *r, const char *path)
{
    struct stat seen;
    if (stat(path, &seen) == 0) {
        r->direct = !S_ISREG(seen.st_mode);
        if (r->direct) {
            r->file = open(path, O_WRONLY | O_CLOEXEC);
            return r->file >= 0 ? UMO_OK : fail(r, "opened");
        }
        if (realpath(path, r->target) == NULL) {
            return fail(r, "found");
        }
    } else if (errno == ENOENT) {
        memcpy(r->target, path, strlen(path) + 1);
    } else {
        return fail(r, "found");
    }
    size_t length = strlen(r->target);
    if (length + sizeof ENDING > sizeof r->beside) {
        return UMO_E_INVAL;
    }
    memcpy(r->beside, r->target, length);
    memcpy(r->beside + length, ENDING, sizeof ENDING);
    r->file = mkstemp(r->beside);
    if (r->file < 0) {
        return fail(r, "created");
    }
    (void)fcntl(r->file, F_SETFD, FD_CLOEXEC);
    return UMO_OK;
}

umo_status umo_os_replace_begin(umo_os_replace *r, const char *path)
{
    r->file = -1;
    r->direct = false;
    r->step = "named";
    r->cause = EINVAL;
    if (path == NULL || path[0] == '\0' || strlen(path) >= sizeof r->target) {
        return UMO_E_INVAL;
    }
    umo_status status = target_open(r, path);
    if (status == UMO_OK) {
        signals_block(r);
    }
    return status;
}

umo_status umo_os_replace_write(umo_os_replace *r, const void *data, size_t size_bytes)
{
    const char *next = data;
    while (size_bytes > 0) {
        ssize_t written = write(r->file, next, size_bytes);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            return fail(r, "written");
        }
        next += written;
        size_bytes -= (size_t)written;
    }
    return UMO_OK;
}

void umo_os_replace_cancel(umo_os_replace *r)
{
    (void)close(r->file);
    if (!r->direct) {
        (void)unlink(r->beside);
    }
    signals_restore(r);
}

static int file_sync(int file)
{
#ifdef F_FULLFSYNC /* macOS's fsync leaves the bytes in the disk's own memory; not every file      \
                      system knows the other way */
    if (fcntl(file, F_FULLFSYNC) == 0) {
        return 0;
    }
#endif
    return fsync(file);
}

/* Best effort: without it a power cut may bring the old file back, whole. */
static void folder_sync(const umo_os_replace *r)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(r->target, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - r->target) + 1;
    memcpy(folder, length == 0 ? "." : r->target, length == 0 ? 1 : length);
    folder[length == 0 ? 1 : length] = '\0';
    int file = open(folder, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        (void)fsync(file);
        (void)close(file);
    }
}

umo_status umo_os_replace_commit(umo_os_replace *r)
{
    umo_status status = UMO_OK;
    if (!r->direct && file_sync(r->file) != 0) {
        status = fail(r, "brought to the disk");
    } else if (!r->direct && rename(r->beside, r->target) != 0) {
        status = fail(r, "renamed");
    }
    if (status != UMO_OK) {
        umo_os_replace_cancel(r);
        return status;
    }
    /* Some file systems tell of a write that failed only now; on a disk, fsync has told before. */
    if (close(r->file) != 0 && r->direct && errno != EINTR) {
        status = fail(r, "closed");
    }
    if (!r->direct) {
        folder_sync(r);
    }
    signals_restore(r);
    return status;
}
