/*
 * SIGBUS as Linux sends it.
 */
#include "os/fault.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Memory that is broken (BUS_MCEERR_*) and addresses that are odd (BUS_ADRALN) are no lost page. */
bool umo_os_fault_lost_page(const siginfo_t *info)
{
    return info->si_code == BUS_ADRERR;
}

bool umo_os_fault_sent(const siginfo_t *info)
{
    return info == NULL || info->si_code <= 0 || info->si_code == BUS_MCEERR_AO;
}

void umo_os_fault_send(int number, siginfo_t *info)
{
    pid_t thread = (pid_t)syscall(SYS_gettid);
    if (info == NULL || syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, number, info) != 0) {
        (void)syscall(SYS_tgkill, getpid(), thread, number);
    }
}

/* Whoever has put himself before mmap (allocators and recorders do) may not be called in a handler.
 */
static void *map_plainly(void *at, size_t size_bytes, int protection, int flags)
{
#ifdef SYS_mmap2
    return (void *)syscall(SYS_mmap2, at, size_bytes, protection, flags, -1, 0);
#else
    return (void *)syscall(SYS_mmap, at, size_bytes, protection, flags, -1, 0);
#endif
}

bool umo_os_fault_overlay(void *pages, size_t size_bytes, bool writable)
{
    return map_plainly(pages, size_bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE) == pages;
}
