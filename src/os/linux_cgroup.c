/*
 * Finding the own cgroup. /proc/self/cgroup has the path inside a hierarchy,
 * /proc/self/mountinfo where a part of that hierarchy is mounted: a container's
 * mount often shows nothing but its own folder, so the path is taken relative
 * to the mount's root.
 */
#include "os/linux_cgroup.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool umo_file_read(int file, char *out, size_t out_bytes)
{
    size_t have = 0;
    ssize_t more = 0;
    /* The kernel's files give at most a page at a time. */
    do {
        more = pread(file, out + have, out_bytes - 1 - have, (off_t)have);
        have += more > 0 ? (size_t)more : 0;
    } while (more > 0 && have < out_bytes - 1);
    out[have] = '\0';
    return more >= 0;
}

static bool number_parse(const char *text, uint64_t *out)
{
    if (strncmp(text, "max", 3) == 0) {
        *out = UINT64_MAX;
        return true;
    }
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || errno != 0 || *text == '-') {
        errno = EINVAL;
        return false;
    }
    *out = value;
    return true;
}

bool umo_file_number(int file, uint64_t *out)
{
    char text[64];
    return umo_file_read(file, text, sizeof text) && number_parse(text, out);
}

bool umo_text_number(const char *text, const char *word, uint64_t *out)
{
    size_t length = strlen(word);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, word, length) == 0 && (line[length] == ' ' || line[length] == '\t')) {
            return number_parse(line + length + strspn(line + length, " \t"), out);
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

static FILE *proc_open(const char *proc, const char *name)
{
    char path[CGROUP_PATH_BYTES];
    if (!umo_os_written(path, sizeof path, snprintf(path, sizeof path, "%s/%s", proc, name))) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return fopen(path, "re");
}

/* A word of a comma-separated list. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* The kernel writes a space in a path as \040. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* The process's path inside each hierarchy; empty where it is in none. */
typedef struct own_paths {
    char v1[CGROUP_PATH_BYTES];
    char v2[CGROUP_PATH_BYTES];
} own_paths;

/* A line of /proc/self/cgroup: "4:memory:/path", "0::/path". */
static void own_line(char *line, own_paths *out)
{
    char *controllers = strchr(line, ':');
    char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (path == NULL) {
        return;
    }
    *controllers++ = '\0';
    *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    char *to = NULL;
    if (*controllers == '\0' && strcmp(line, "0") == 0) {
        to = out->v2;
    } else if (list_has(controllers, "memory")) {
        to = out->v1;
    }
    if (to != NULL) {
        (void)umo_os_written(to, CGROUP_PATH_BYTES, snprintf(to, CGROUP_PATH_BYTES, "%s", path));
    }
}

static uint64_t text_mix(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++) {
        hash = umo_hash_mix(hash, (uint64_t)(unsigned char)*text);
    }
    return hash;
}

static bool own_find(const char *proc, own_paths *out, uint64_t *identity)
{
    *out = (own_paths){.v1 = "", .v2 = ""};
    *identity = 0;
    FILE *file = proc_open(proc, "self/cgroup");
    if (file == NULL) {
        return false;
    }
    char *line = NULL;
    size_t line_bytes = 0;
    while (getline(&line, &line_bytes, file) > 0) {
        own_line(line, out);
    }
    free(line);
    (void)fclose(file);
    *identity = text_mix(text_mix(1, out->v1), out->v2);
    return true;
}

uint64_t umo_cgroup_identity(const char *proc)
{
    own_paths paths;
    uint64_t identity;
    return own_find(proc, &paths, &identity) ? identity : 0;
}

/* Above the root of our namespace; a name may begin with dots as well. */
static bool outside(const char *path)
{
    return strncmp(path, "/..", 3) == 0 && (path[3] == '/' || path[3] == '\0');
}

/* The path below a mount's root; NULL if the mount does not show it. A root of
 * ".." shows something above our namespace: the way down from there has a name
 * that we cannot know. */
static const char *below(const char *path, const char *root)
{
    if (outside(path) || outside(root)) {
        return NULL;
    }
    size_t length = strlen(root);
    length = length == 1 ? 0 : length; /* "/" */
    if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0')) {
        return NULL;
    }
    return strcmp(path + length, "/") == 0 ? "" : path + length;
}

/* Takes a mount for a hierarchy if it shows the process's folder and none did
 * before. */
static void place_try(umo_cgroup_place *place, const char *path, const char *mount,
                      const char *root)
{
    const char *rest = path[0] != '\0' ? below(path, root) : NULL;
    if (rest == NULL || place->presence.why == NULL) {
        return;
    }
    char own[CGROUP_PATH_BYTES];
    if (!umo_os_written(own, sizeof own, snprintf(own, sizeof own, "%s%s", mount, rest))) {
        place->presence.why = "the cgroup's path is too long";
        return;
    }
    if (access(own, X_OK) != 0) {
        place->presence = (umo_os_presence){"the cgroup's folder cannot be entered", errno};
        return;
    }
    (void)snprintf(place->mount, sizeof place->mount, "%s", mount);
    (void)snprintf(place->own, sizeof place->own, "%s", own);
    place->presence = (umo_os_presence){NULL, 0};
}

/* A line of /proc/self/mountinfo: "id parent major:minor root mount options
 * [more] - type source super-options". */
static void mount_line(char *line, const own_paths *own, umo_cgroup_places *out)
{
    char *root = NULL;
    char *mount = NULL;
    char *type = NULL;
    char *super = NULL;
    char *save = NULL;
    int behind = -1; /* fields since the dash */
    int field = 0;
    for (char *word = strtok_r(line, " \n", &save); word != NULL;
         word = strtok_r(NULL, " \n", &save), field++) {
        if (field == 3) {
            root = word;
        } else if (field == 4) {
            mount = word;
        } else if (behind >= 0) {
            behind++;
            type = behind == 1 ? word : type;
            super = behind == 3 ? word : super;
        } else if (field > 5 && strcmp(word, "-") == 0) {
            behind = 0;
        }
    }
    if (super == NULL) {
        return;
    }
    unescape(root);
    unescape(mount);
    if (strcmp(type, "cgroup2") == 0) {
        place_try(&out->v2, own->v2, mount, root);
    } else if (strcmp(type, "cgroup") == 0 && list_has(super, "memory")) {
        place_try(&out->v1, own->v1, mount, root);
    }
}

void umo_cgroup_find(const char *proc, umo_cgroup_places *out)
{
    own_paths own;
    bool told = own_find(proc, &own, &out->identity);
    umo_os_presence none = {"the process is in no such cgroup", 0};
    umo_os_presence hidden = {"no mount shows the cgroup", 0};
    if (!told) {
        none = (umo_os_presence){"the process's cgroup cannot be read", errno};
    }
    out->v1 = (umo_cgroup_place){.presence = own.v1[0] != '\0' ? hidden : none};
    out->v2 = (umo_cgroup_place){.presence = own.v2[0] != '\0' ? hidden : none};
    FILE *file = told ? proc_open(proc, "self/mountinfo") : NULL;
    if (file == NULL) {
        return;
    }
    char *line = NULL;
    size_t line_bytes = 0;
    while (getline(&line, &line_bytes, file) > 0) {
        mount_line(line, &own, out);
    }
    free(line);
    (void)fclose(file);
}
