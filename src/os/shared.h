/*
 * Segments of shared memory that this process makes, and what names a process for all time.
 */
#ifndef UMO_OS_SHARED_H
#define UMO_OS_SHARED_H

#include <umo/status.h>

/* A fresh segment under a key ("/name"), reserved and mapped; nothing of it is taken yet. The file
 * is open until umo_os_shared_close(). SYSTEM, with errno in cause: also where the key is taken. */
umo_status umo_os_shared_create(const char *key, size_t size_bytes, int *out_file, void **out,
                                int *cause);
/* Takes memory for a range. NOMEM when the system has none; where it cannot tell, a write waits. */
umo_status umo_os_shared_commit(int file, size_t offset_bytes, size_t size_bytes);
/* Removes the key. Who has the segment mapped keeps it. */
void umo_os_shared_hide(const char *key);
void umo_os_shared_close(int file, void *mapped, size_t size_bytes);

/* When this process started, in a unit of the system's: with the pid it names one process until the
 * machine starts again. False if that cannot be found out. */
bool umo_os_process_started(uint64_t *out);
/* The namespace that its pid belongs to; 0 where there is one only. */
uint64_t umo_os_process_namespace(void);

/* Bytes that nobody can guess. False if the system has none. */
bool umo_os_random(void *out, size_t size_bytes);

#endif
