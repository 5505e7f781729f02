/*
 * Shared memory and processes, as Linux has them.
 */
#include "os/shared.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

umo_status umo_os_shared_commit(int file, size_t offset_bytes, size_t size_bytes)
{
    /* A full /dev/shm is an error here, and would be a SIGBUS at the first write. */
    return posix_fallocate(file, (off_t)offset_bytes, (off_t)size_bytes) == 0 ? UMO_OK
                                                                              : UMO_E_NOMEM;
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
