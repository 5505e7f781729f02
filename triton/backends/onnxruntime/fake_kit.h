/*
 * A kit for tests: models and batches are filled by hand, outputs land in plain memory.
 */
#ifndef UMO_ORT_FAKE_KIT_H
#define UMO_ORT_FAKE_KIT_H

#include <umo/triton.h>

enum {
    FAKE_TENSORS = 8,
    FAKE_ROWS = 8
};

struct umo_model {
    const char *path;   /* of the version */
    const char *config; /* JSON */
    const char *options[4][2];
    umo_unified_config unified;
    umo_io inputs[FAKE_TENSORS];
    size_t input_count;
    umo_io outputs[FAKE_TENSORS];
    size_t output_count;
    int64_t batch_max;
    bool batch_unset;
    int warnings;
    uint64_t limit_bytes; /* of its scope; 0 for none */
    umo_context *context; /* joined when asked for */
    umo_scope *scope;     /* likewise */
    char *strings[32];    /* what umo_model_parameter() handed out */
    size_t string_count;
};

void fake_model_finish(umo_model *model);

struct umo_instance {
    int32_t node;
    unsigned pools; /* that were made near it */
};

struct umo_batch {
    size_t requests;
    int64_t rows;
    umo_tensor inputs[FAKE_TENSORS]; /* dtype UMO_DTYPE_INVALID: absent */
    bool unwanted[FAKE_TENSORS];
    umo_tensor
        outputs[FAKE_TENSORS]; /* what the backend asked for; data is set by the test before */
    bool late[FAKE_TENSORS];
    umo_reason reason[FAKE_TENSORS];
    char late_data[FAKE_TENSORS][512];
    umo_status failed[FAKE_ROWS];
    _Atomic bool cancelled[FAKE_ROWS];
    umo_fence_set waits;
};

#endif
