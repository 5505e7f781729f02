/*
 * Threads of our own: named, so that an operator sees whose they are, and deaf to signals, so that
 * the program's handlers run on the program's threads. What a thread's own instructions raise
 * (SIGSEGV and the like) is not blocked: a program that handles faults, as a Java virtual machine
 * or a crash reporter does, would be killed instead of asked. They may run wherever the process's
 * first thread may, however narrowly the one that makes them is bound.
 */
#ifndef UMO_OS_THREAD_H
#define UMO_OS_THREAD_H

#include <pthread.h>

/* name: at most 15 characters, a constant. Returns what pthread_create() did. */
int umo_os_thread_create(pthread_t *out, const char *name, void (*run)(void *), void *argument);

#endif
