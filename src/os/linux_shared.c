/*
 * Shared memory and processes, as Linux has them.
 */
#include "os/shared.h"

#include "base/size.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

/* Makes huge pages of those that lie wholly in a range, so that passes over it are up to twice as
 * fast. This works whatever the system's settings for huge pages are, but only through a mapping
 * that lies in step with the file: one for the purpose. Where it does not work, small pages stay.
 */
static void enlarge(int file, size_t offset_bytes, size_t size_bytes)
{
    size_t first;
    size_t end = (offset_bytes + size_bytes) & ~(HUGE_PAGE_BYTES - 1);
    size_t room_bytes;
    if (!umo_round_up(offset_bytes, HUGE_PAGE_BYTES, &first) || first >= end ||
        __builtin_add_overflow(end - first, HUGE_PAGE_BYTES, &room_bytes)) {
        return;
    }
    char *room = mmap(NULL, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) {
        return;
    }
    char *start = room + (-(uintptr_t)room & (HUGE_PAGE_BYTES - 1));
    if (mmap(start, end - first, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
             (off_t)first) == start) {
        (void)madvise(start, end - first, MADV_COLLAPSE);
    }
    (void)munmap(room, room_bytes);
}

umo_status umo_os_shared_commit(int file, size_t offset_bytes, size_t size_bytes)
{
    /* A full /dev/shm is an error here, and would be a SIGBUS at the first write. */
    if (posix_fallocate(file, (off_t)offset_bytes, (off_t)size_bytes) != 0) {
        return UMO_E_NOMEM;
    }
    enlarge(file, offset_bytes, size_bytes);
    return UMO_OK;
}

/* The 22nd word of /proc/self/stat; the second, the program's name, may hold blanks and brackets.
 */
bool umo_os_process_started(uint64_t *out)
{
    enum {
        WORDS_AFTER_NAME = 20
    };
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "r");
    if (file == NULL) {
        return false;
    }
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file);
    text[length] = '\0';
    const char *word = strrchr(text, ')');
    for (int i = 0; word != NULL && i < WORDS_AFTER_NAME; i++) {
        word = strchr(word + 1, ' ');
    }
    if (word == NULL) {
        return false;
    }
    char *end = NULL;
    unsigned long long started = strtoull(word + 1, &end, 10);
    if (end == word + 1) {
        return false;
    }
    *out = started;
    return true;
}

uint64_t umo_os_process_namespace(void)
{
    struct stat entry;
    return stat("/proc/self/ns/pid", &entry) == 0 ? (uint64_t)entry.st_ino : 0;
}
