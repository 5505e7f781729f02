/*
 * Where the memory controller's files of this process lie, found from what the kernel says of its
 * mounts and never by a guess at a path.
 */
#ifndef UMO_OS_LINUX_CGROUP_H
#define UMO_OS_LINUX_CGROUP_H

#include "os/watch.h"

#define CGROUP_PATH_BYTES 1024

/* One hierarchy as this process sees it. */
typedef struct umo_cgroup_place {
    umo_os_presence presence;
    char mount[CGROUP_PATH_BYTES]; /* the mount's folder: the highest that can be seen */
    char own[CGROUP_PATH_BYTES];   /* the process's folder: the same or below */
} umo_cgroup_place;

typedef struct umo_cgroup_places {
    umo_cgroup_place v1; /* the hierarchy that the memory controller is bound to */
    umo_cgroup_place v2; /* the unified hierarchy, with the controller or without */
    uint64_t identity;   /* of the text that said where the process is: another, another place */
} umo_cgroup_places;

/* proc: the folder where procfs is mounted. */
void umo_cgroup_find(const char *proc, umo_cgroup_places *out);
/* umo_cgroup_places.identity as it is now; 0 if it cannot be read. */
uint64_t umo_cgroup_identity(const char *proc);

/* A whole small file. False, errno set, if it cannot be read. Text is ended by a zero. */
bool umo_file_read(int file, char *out, size_t out_bytes);
/* A file that holds one number, or "max" (UINT64_MAX). */
bool umo_file_number(int file, uint64_t *out);
/* The number behind a word at the start of a line, in a text like memory.stat. */
bool umo_text_number(const char *text, const char *word, uint64_t *out);

#endif
