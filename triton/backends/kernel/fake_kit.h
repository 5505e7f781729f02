/*
 * A kit for tests of the backend: one model with the inputs A and B and the output Y, in a folder
 * of its own with the program test.fake, on the fake device.
 */
#ifndef UMO_KERNEL_FAKE_KIT_H
#define UMO_KERNEL_FAKE_KIT_H

#include "fake_device.h"

#include <umo/triton.h>

#define FAKE_INPUTS 2u

struct umo_model {
    umo_context *context;
    umo_unified_config unified;
    const char *kernel;
    const char *k; /* parameter "k", or NULL */
    char path[64];
    int64_t batch_max;
    umo_io inputs[FAKE_INPUTS];
    umo_io outputs[1];
    int warnings;
    char warning[512]; /* the last one */
};

struct umo_instance {
    umo_model *model;
    umo_device *device;
    uint32_t queue;
    bool placed; /* its memory has a node */
    int32_t node;
    unsigned pools; /* that were made near it */
};

struct umo_batch {
    int64_t rows;
    umo_tensor inputs[FAKE_INPUTS];
    bool absent[FAKE_INPUTS];
    umo_tensor output; /* where the backend is to write; its shape is what it asked for */
    size_t output_bytes;
    umo_fence_set waits;
    umo_fence done;
};

/* Everything but the description: inputs and output of one dimension, the output twice as long
 * where it is not variable (-1). The device is reset to kernels of arg_count arguments. */
void fake_model_setup(umo_model *model, int64_t dims, const char *kernel, size_t arg_count);
/* Checks that nothing of the device is left. */
void fake_model_teardown(umo_model *model);
/* Loads it, and fails the test in the backend's words. */
void *fake_model_start(umo_model *model);
/* Writes a text or other bytes into the model's folder. */
void fake_model_write(const umo_model *model, const char *file, const void *bytes,
                      size_t size_bytes);
/* A file "w.bin" of sevens. */
void fake_model_weights(const umo_model *model, size_t size_bytes);
umo_buffer *fake_buffer(const umo_instance *instance, size_t size_bytes);

#endif
