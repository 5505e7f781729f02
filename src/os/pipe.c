/*
 * Copies that go through a pipe, for systems and sandboxes without a better call.
 */
#include "os/os.h"

#include <fcntl.h>
#include <unistd.h>

#define PIPE_PART ((size_t)65536)

/* A file's two ends that wait for nothing and that no child inherits. */
static bool pipe_open(int ends[2])
{
    if (pipe(ends) != 0) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        (void)fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return true;
}

/* The system reads what is written to a pipe, and writes what is read from it, and says so where it
 * cannot. As much at a time as the pipe happens to take. */
size_t umo_os_copy_by_pipe(void *to, const void *from, size_t size_bytes)
{
    int ends[2];
    size_t done = 0;
    if (!pipe_open(ends)) {
        return 0;
    }
    while (done < size_bytes) {
        size_t left = size_bytes - done < PIPE_PART ? size_bytes - done : PIPE_PART;
        ssize_t in = write(ends[1], (const char *)from + done, left);
        ssize_t out = in > 0 ? read(ends[0], (char *)to + done, (size_t)in) : -1;
        done += out > 0 ? (size_t)out : 0;
        if (out != in || in <= 0) {
            break;
        }
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
    return done;
}
