/* What the two measuring backends share: which inputs and outputs a model has, and the statistics
 * that every backend owes the server. They differ in one function only, so that their difference in
 * time is the copies and nothing else. */
#ifndef PROBE_H
#define PROBE_H

#include "triton_abi.h"

#define PROBE_MAX_DIMS 16

typedef struct probe_output {
    char *name;
    TRITONSERVER_DataType datatype;
    /* The configured shape without the batch dimension; used where it is fixed. */
    int64_t dims[PROBE_MAX_DIMS];
    uint32_t dim_count;
    bool fixed;
} probe_output;

typedef struct probe_model {
    char **inputs;
    uint32_t input_count;
    probe_output *outputs;
    uint32_t output_count;
    bool batched;
} probe_model;

/* One output of one response: where it goes, and the input it answers. */
typedef struct probe_answer {
    uint32_t input_index;
    uint64_t input_bytes;
    void *buffer;
    uint64_t size_bytes;
} probe_answer;

/* Finds the input that output `name` answers (the one at the same index, else the last), makes the
 * output in the response and asks for its buffer. Nothing behind `buffer` is touched. */
TRITONSERVER_Error *probe_output_make(const probe_model *model, TRITONBACKEND_Request *request,
                                      TRITONBACKEND_Response *response, const char *name,
                                      probe_answer *answer);

/* Input `index` of the model in this request. */
TRITONSERVER_Error *probe_input_get(const probe_model *model, TRITONBACKEND_Request *request,
                                    uint32_t index, TRITONBACKEND_Input **input);

/* Given by null.c and copying.c: answers all requests; on return they are still to be released. */
void probe_execute(const probe_model *model, void **scratch, TRITONBACKEND_Request **requests,
                   uint32_t request_count, bool *succeeded);
void probe_scratch_free(const probe_model *model, void *scratch);

/* Sends the response, with the error if there is one; both are gone afterwards. */
void probe_send(TRITONBACKEND_Response *response, TRITONSERVER_Error *error);

#endif /* PROBE_H */
