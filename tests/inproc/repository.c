/* Model repositories made by tests; see triton_inproc.h. */
#include "triton_inproc.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool fail_at(inproc_error *error, const char *path)
{
    if (error != NULL) {
        error->code = TRITONSERVER_ERROR_UNKNOWN;
        snprintf(error->text, sizeof(error->text), "cannot make '%s': %s", path, strerror(errno));
    }
    return false;
}

bool inproc_repository_create(char *path, inproc_error *error)
{
    const char *parent = getenv("TMPDIR");

    snprintf(path, INPROC_PATH, "%s/umo_repository_XXXXXX", parent != NULL ? parent : "/tmp");
    return mkdtemp(path) != NULL || fail_at(error, path);
}

bool inproc_repository_add(const char *path, const char *model, const char *config,
                           inproc_error *error)
{
    char name[INPROC_PATH + 128];
    FILE *file;
    bool ok;

    snprintf(name, sizeof(name), "%s/%s", path, model);
    if (mkdir(name, 0755) != 0 && errno != EEXIST) {
        return fail_at(error, name);
    }
    snprintf(name, sizeof(name), "%s/%s/1", path, model);
    if (mkdir(name, 0755) != 0 && errno != EEXIST) {
        return fail_at(error, name);
    }
    snprintf(name, sizeof(name), "%s/%s/config.pbtxt", path, model);
    file = fopen(name, "w");
    if (file == NULL) {
        return fail_at(error, name);
    }
    ok = fputs(config, file) >= 0;
    ok = fclose(file) == 0 && ok;
    return ok || fail_at(error, name);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

void inproc_repository_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
