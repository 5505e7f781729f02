/*
 * Replacing a file as a whole: what is written lies beside it under another name until it is
 * complete and on the disk, then takes its name. Whoever looks sees the old file or the new one.
 *
 * A path that exists and is no regular file (a pipe, a terminal, /dev/null) has nothing that could
 * be kept whole and is written to directly. Nothing here allocates.
 */
#ifndef UMO_OS_REPLACE_H
#define UMO_OS_REPLACE_H

#include <umo/status.h>

#include <limits.h>
#include <signal.h>

typedef struct umo_os_replace {
    int file;
    bool direct;
    const char *step; /* what failed, as a verb: "written" */
    int cause;        /* its errno */
    sigset_t blocked_before;
    sigset_t pending_before;
    char target[PATH_MAX];
    char beside[PATH_MAX];
} umo_os_replace;

/* INVAL for no path or one that is too long, SYSTEM with step and cause; then nothing is open. A
 * link is followed: the file that it names is replaced. The file is its owner's alone. Until commit
 * or cancel this thread gets no SIGXFSZ and no SIGPIPE: a full disk is an error, not an end. */
umo_status umo_os_replace_begin(umo_os_replace *r, const char *path);
umo_status umo_os_replace_write(umo_os_replace *r, const void *data, size_t size_bytes);
/* Exactly one of these ends it. After a commit that failed nothing is left behind either. */
umo_status umo_os_replace_commit(umo_os_replace *r);
void umo_os_replace_cancel(umo_os_replace *r);

#endif
