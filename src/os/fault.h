/*
 * What fault.c asks of a system about a SIGBUS; linux_fault.c and darwin_fault.c answer. Called in
 * the handler.
 */
#ifndef UMO_OS_FAULT_H
#define UMO_OS_FAULT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/* A page that a mapping has and its file has not. */
bool umo_os_fault_lost_page(const siginfo_t *info);

/* Somebody sent the signal, or the system for no instruction's sake: nothing faults again when the
 * handler returns. */
bool umo_os_fault_sent(const siginfo_t *info);

/* Sends it again to the calling thread, with what came with it where the system can. It is blocked
 * in its handler and arrives when that returns. */
void umo_os_fault_send(int number, siginfo_t *info);

/* Puts pages of zeros over whole pages of another mapping. */
bool umo_os_fault_overlay(void *pages, size_t size_bytes, bool writable);

#endif
