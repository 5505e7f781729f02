/*
 * Memory that this process shows to others of its user, who find it by its pid: for the flight
 * recorder. Each part is an object of its own and keeps the size that it is made with, so that
 * nobody who has it mapped can be hurt by another one cutting it short.
 *
 * On Linux it is a memory file without a name, found among the process's files in /proc, where the
 * system asks for the right to trace the process; on macOS an object that is named after the pid.
 */
#ifndef UMO_OS_SHOWN_H
#define UMO_OS_SHOWN_H

#include <umo/status.h>

/* A fresh part of zeros, its owner's alone. SYSTEM, with errno in cause. */
umo_status umo_os_shown_create(uint32_t part, size_t size_bytes, int *out_file, int *cause);
/* Before this process ends, or in a child, whose the part is not (then its name stays). */
void umo_os_shown_close(uint32_t part, int file, bool ours);

/* A part of another process. NOT_FOUND: there is no such process (cause is ESRCH), or it shows no
 * such part (0). REFUSED: this user may not, or the part could be cut short. SYSTEM. */
umo_status umo_os_shown_open(int64_t pid, uint32_t part, int *out_file, size_t *out_bytes,
                             int *cause);

/* Maps a part, at an address that is mapped already or (NULL) anywhere. NULL on failure. */
void *umo_os_shown_map(int file, size_t size_bytes, void *at, bool writable);
/* Puts fresh private pages over such a mapping. */
bool umo_os_shown_leave(void *at, size_t size_bytes);
/* Gives the memory behind whole pages back; they read as zeros. Best effort. */
void umo_os_shown_empty(int file, size_t offset_bytes, size_t size_bytes);

/* One process, also when its pid is given to another one. */
typedef struct umo_os_other {
    int64_t pid;
    int handle;
    uint64_t started;
} umo_os_other;
/* NOT_FOUND when it does not run. */
umo_status umo_os_other_open(int64_t pid, umo_os_other *out);
bool umo_os_other_ended(const umo_os_other *other);
void umo_os_other_close(umo_os_other *other);
/* The number that the process itself has for its pid: another one inside of a container. */
int64_t umo_os_other_inner_pid(const umo_os_other *other);

#endif
