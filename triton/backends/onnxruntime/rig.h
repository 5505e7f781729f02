/*
 * What the tests against the real engine have in common: finding it, and the life of a model.
 */
#ifndef UMO_ORT_RIG_H
#define UMO_ORT_RIG_H

#include "fake_kit.h"
#include "model.h"

/** ONNX Runtime's library, for the option onnxruntime_library. */
extern char rig_library[4096];

/** From UMO_ONNXRUNTIME, else the virtual environment below UMO_ROOT. False when there is none. */
bool rig_find_library(void);

/** A loaded model with one instance; umo is filled before. */
typedef struct loaded {
    umo_model umo;
    ort_model *model;
    void *instance;
} loaded;

umo_status rig_load(loaded *l, umo_error *error);
/** near is the kit's side of the instance, whose memory has a node. */
umo_status rig_load_near(loaded *l, umo_instance *near, umo_error *error);
/** Also after an error. */
void rig_unload(loaded *l);

#endif
