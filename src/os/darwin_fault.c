/*
 * SIGBUS as macOS sends it: also for a write to what is read-only, which fault.c ends by counting.
 */
#include "os/fault.h"

#include <pthread.h>
#include <sys/mman.h>

/* The codes do not tell a lost page from others; a sender's (SI_USER and on) are far above. */
bool umo_os_fault_lost_page(const siginfo_t *info)
{
    return info->si_code > 0 && info->si_code < SI_USER;
}

bool umo_os_fault_sent(const siginfo_t *info)
{
    return info == NULL || !umo_os_fault_lost_page(info);
}

void umo_os_fault_send(int number, siginfo_t *info)
{
    (void)info;
    (void)pthread_kill(pthread_self(), number);
}

bool umo_os_fault_overlay(void *pages, size_t size_bytes, bool writable)
{
    return mmap(pages, size_bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == pages;
}
