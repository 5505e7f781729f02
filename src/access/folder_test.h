/*
 * A folder of its own for each test program, removed with all that is in it.
 */
#ifndef UMO_ACCESS_FOLDER_TEST_H
#define UMO_ACCESS_FOLDER_TEST_H

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline bool folder_make(char *out, size_t out_bytes)
{
    const char *temporary = getenv("TMPDIR");
    int written = snprintf(out, out_bytes, "%s/umo_access_XXXXXX",
                           temporary != NULL && temporary[0] == '/' ? temporary : "/tmp");
    return written > 0 && (size_t)written < out_bytes && mkdtemp(out) != NULL;
}

static inline unsigned folder_count(const char *path)
{
    unsigned count = 0;
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 ? 1 : 0;
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return count;
}

static inline void folder_remove(const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char below[PATH_MAX];
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            snprintf(below, sizeof below, "%s/%s", path, entry->d_name) < (int)sizeof below &&
            unlink(below) != 0) {
            folder_remove(below);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    (void)rmdir(path);
}

#endif
