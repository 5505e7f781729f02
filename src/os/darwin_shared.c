/*
 * Shared memory and processes, as macOS has them.
 */
#include "os/shared.h"

#include <sys/sysctl.h>
#include <sys/types.h>
#include <unistd.h>

umo_status umo_os_shared_commit(int file, size_t offset_bytes, size_t size_bytes)
{
    /* Memory objects are backed by all of the system's memory: there is no folder that fills up. */
    (void)file;
    (void)offset_bytes;
    (void)size_bytes;
    return UMO_OK;
}

bool umo_os_process_started(uint64_t *out)
{
    struct kinfo_proc process;
    size_t size_bytes = sizeof(process);
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, (int)getpid()};
    if (sysctl(name, 4, &process, &size_bytes, NULL, 0) != 0 || size_bytes < sizeof(process)) {
        return false;
    }
    *out = (uint64_t)process.kp_proc.p_starttime.tv_sec; /* in seconds, as `ps -o lstart` */
    return true;
}

uint64_t umo_os_process_namespace(void)
{
    return 0;
}
