/*
 * A server for the kit, in the test's own process: it implements the part of Triton's ABI that the
 * kit calls, keeps books of everything it hands out and takes back, and makes any one call fail.
 *
 * It is stricter than the real server: what a request brought is scribbled over and taken away when
 * its FINAL response is sent, and what it received is copied in that moment, as a client would see
 * it. A broken rule is not an error code but an entry in the books, so that a kit that ignores
 * errors cannot hide it.
 */
#ifndef UMO_TESTS_KIT_FAKE_SERVER_H
#define UMO_TESTS_KIT_FAKE_SERVER_H

#include "guarded.h"

#include "kit/abi/triton_abi.h"

#include <stdatomic.h>

#define FAKE_TENSORS_MAX 8
#define FAKE_STATES_MAX 4
#define FAKE_RANK_MAX 40
#define FAKE_TEXT_BYTES 512

/* Memory that one or more requests lie in. */
typedef struct fake_region {
    guarded memory;
    unsigned users; /* requests without a FINAL response */
    bool output;    /* a client reads it after the response; else it is taken away */
} fake_region;

typedef struct fake_piece {
    const void *data;
    uint64_t size_bytes;
    TRITONSERVER_MemoryType type;
} fake_piece;

struct TRITONBACKEND_Input {
    TRITONBACKEND_Request *request;
    const char *name;
    TRITONSERVER_DataType dtype;
    uint32_t rank;
    int64_t dims[FAKE_RANK_MAX];
    uint64_t size_bytes; /* what is claimed */
    fake_piece *pieces;
    uint32_t piece_count;
};

/* Where a request wants an output: its client's memory, or NULL for the server's own. */
typedef struct fake_want {
    const char *name;
    char *data;
    size_t size_bytes;
} fake_want;

struct TRITONBACKEND_Output {
    TRITONBACKEND_Response *response;
    char name[64];
    TRITONSERVER_DataType dtype;
    uint32_t rank;
    int64_t dims[FAKE_RANK_MAX];
    bool asked; /* for its buffer */
    char *data;
    size_t size_bytes;
    guarded own;    /* the server's, where the client gave none */
    char *received; /* a copy made at FINAL */
};

struct TRITONBACKEND_Response {
    TRITONBACKEND_Request *request;
    bool streamed; /* made by a factory */
    bool sent;
    bool final;
    TRITONSERVER_Error_Code code; /* of a streamed one; text empty for success */
    char text[FAKE_TEXT_BYTES];
    struct TRITONBACKEND_Output outputs[FAKE_TENSORS_MAX];
    uint32_t output_count;
};

/* One state of one sequence: the memory of the present one, and of the next while it is written. */
typedef struct fake_state {
    const char *input;
    const char *output;
    TRITONSERVER_DataType dtype;
    uint32_t rank;
    int64_t dims[FAKE_RANK_MAX];
    size_t size_bytes;
    guarded now;
    guarded next;
    bool one_memory; /* use_same_buffer_for_input_output */
    unsigned updates;
} fake_state;

typedef struct fake_sequence {
    fake_state states[FAKE_STATES_MAX];
    uint32_t count;
} fake_sequence;

struct TRITONBACKEND_State {
    TRITONBACKEND_Request *request;
    fake_state *state;
    uint32_t rank;
    int64_t dims[FAKE_RANK_MAX];
    size_t size_bytes;
    bool asked;
    bool updated;
};

struct TRITONBACKEND_ResponseFactory {
    TRITONBACKEND_Request *request;
};

struct TRITONBACKEND_Request {
    struct TRITONBACKEND_Input inputs[FAKE_TENSORS_MAX];
    uint32_t input_count;
    fake_want wants[FAKE_TENSORS_MAX];
    uint32_t want_count;
    fake_region *regions[2 * FAKE_TENSORS_MAX];
    uint32_t region_count;
    bool gpu_outputs;
    _Atomic bool cancelled;
    fake_sequence *sequence;
    struct TRITONBACKEND_State states[FAKE_STATES_MAX];
    uint32_t state_count;

    /* By factories, in the order in which they were sent. */
    TRITONBACKEND_Response **streamed;
    uint32_t streamed_count;
    unsigned factories; /* alive */
    unsigned unsent;    /* responses of factories that are alive and not sent */

    struct TRITONBACKEND_Response response;
    unsigned responses_made;
    unsigned finals;
    unsigned releases;
    unsigned release_refusals; /* releases that were made to fail */
    unsigned reports;
    bool reported_success;
    unsigned told_full; /* responses, by their statistics */
    unsigned told_empty;
    unsigned told_failed;
    TRITONSERVER_Error_Code code; /* of the answer; text empty for success */
    char text[FAKE_TEXT_BYTES];
};

struct TRITONBACKEND_Model {
    void *state;
    char name[64];
};

struct TRITONBACKEND_ModelInstance {
    TRITONBACKEND_Model *model;
    void *state;
    TRITONSERVER_Message *policy; /* once it was asked for */
    char name[64];
    uint64_t batches; /* reported */
    uint64_t rows;
};

/* What the server says and what happened to it. One a process; fake_reset() starts over. */
typedef struct fake_books {
    const char *config;  /* of the models to load */
    const char *options; /* of the command line, JSON */
    const char *policy;  /* of all instances, JSON */
    bool completes;      /* configurations */
    bool parallel;       /* the backend lets instances be made side by side */
    char completed[8192];

    uint64_t calls;        /* that may fail */
    uint64_t fail_at;      /* the number of the call that fails; 0 for none */
    const char *fail_name; /* or every call of this name */
    char failed[64];       /* what was made to fail */

    unsigned errors; /* alive */
    unsigned messages;
    unsigned statistics; /* of responses */
    char log[FAKE_TEXT_BYTES];

    unsigned violations;
    char violation[FAKE_TEXT_BYTES]; /* the first */
} fake_books;

extern fake_books fake;

/* Empty books, nothing fails. */
void fake_reset(void);
/* Fails the running test when a rule was broken or something of the server's was not given back. */
void fake_expect_clean(void);

/* Loads, unloads: 0, or the error's text in `text` (FAKE_TEXT_BYTES). As the real server, an object
 * whose initialisation failed is finalised too. */
bool fake_model_load(TRITONBACKEND_Model *model, const char *name, char *text);
bool fake_model_unload(TRITONBACKEND_Model *model, char *text);
bool fake_instance_load(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Model *model,
                        const char *name, char *text);
bool fake_instance_unload(TRITONBACKEND_ModelInstance *instance, char *text);
/* Executes; requests that an error left to the server are answered with it. */
bool fake_execute(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request **requests,
                  uint32_t count);

TRITONBACKEND_Request *fake_request_create(void);
/* Fails the running test unless the request was answered once and then released once. */
void fake_request_expect_answered(const TRITONBACKEND_Request *request);
void fake_request_destroy(TRITONBACKEND_Request *request);
TRITONBACKEND_Input *fake_input(TRITONBACKEND_Request *request, const char *name,
                                TRITONSERVER_DataType dtype, uint32_t rank, const int64_t *dims);
/* One more piece; the input's size grows with it. */
void fake_input_piece(TRITONBACKEND_Input *input, const void *data, uint64_t size_bytes);
void fake_want_output(TRITONBACKEND_Request *request, const char *name, char *data,
                      size_t size_bytes);
void fake_request_hold(TRITONBACKEND_Request *request, fake_region *region);
/* One more state of a sequence, whose first value is a copy of data. */
fake_state *fake_sequence_add(fake_sequence *sequence, const char *input, const char *output,
                              TRITONSERVER_DataType dtype, uint32_t rank, const int64_t *dims,
                              const void *data, size_t size_bytes);
/* Makes the request the next of its sequence: the states come as inputs. */
void fake_sequence_join(fake_sequence *sequence, TRITONBACKEND_Request *request);
void fake_sequence_destroy(fake_sequence *sequence);

/* Waits until a request was released. False after ten seconds. */
bool fake_request_wait(TRITONBACKEND_Request *request);
/* What fake_requests.c and fake_streams.c share: a streamed response is kept. */
void fake_stream_keep(TRITONBACKEND_Response *response);
void fake_stream_released(TRITONBACKEND_Request *request, bool refused);
void fake_response_free(TRITONBACKEND_Response *response);
const struct TRITONBACKEND_Output *fake_response_output(const TRITONBACKEND_Response *response,
                                                        const char *name);
/* An output as it was at FINAL; NULL if there is none. */
const struct TRITONBACKEND_Output *fake_received(const TRITONBACKEND_Request *request,
                                                 const char *name);

/* What /metrics shows: the sum of a family's series whose labels hold `label`, as "reason=limit",
 * NULL for any. Below 0 when there is none. */
double fake_metric(const char *family, const char *label);
/* All of it, into text; returns the number of series. */
unsigned fake_metrics_print(char *text, size_t text_bytes);

fake_region *fake_region_create(size_t size_bytes, bool shared, bool output);
void fake_region_destroy(fake_region *region);

#endif
