/*
 * A model's whole life in three calls, as the kit makes them.
 */
#include "rig.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

char rig_library[4096];

bool rig_find_library(void)
{
    const char *named = getenv("UMO_ONNXRUNTIME");
    const char *root = getenv("UMO_ROOT");
    if (named != NULL) {
        (void)snprintf(rig_library, sizeof rig_library, "%s", named);
        return true;
    }
    char pattern[4096];
    (void)snprintf(pattern, sizeof pattern,
                   "%s/.venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so*",
                   root != NULL ? root : ".");
    glob_t found;
    bool any = glob(pattern, 0, NULL, &found) == 0;
    if (any) {
        (void)snprintf(rig_library, sizeof rig_library, "%s", found.gl_pathv[0]);
        globfree(&found);
    }
    return any;
}

void rig_unload(loaded *l)
{
    ort_instance_finish(l->instance);
    ort_model_finish(l->model);
    fake_model_finish(&l->umo);
}

umo_status rig_load_near(loaded *l, umo_instance *near, umo_error *error)
{
    void *state = NULL;
    l->model = NULL;
    l->instance = NULL;
    umo_status status = ort_model_init(&l->umo, &state, error);
    if (status == UMO_OK) {
        l->model = state;
        status = ort_model_complete(&l->umo, state, error);
    }
    if (status == UMO_OK) {
        status = ort_model_check(&l->umo, state, error);
    }
    if (status == UMO_OK) {
        status = ort_instance_init(near, state, &l->instance, error);
    }
    return status;
}

umo_status rig_load(loaded *l, umo_error *error)
{
    return rig_load_near(l, NULL, error);
}
