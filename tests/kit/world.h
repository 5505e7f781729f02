/*
 * What the tests of the kit have in common: a context whose counters are read, models by a short
 * description, and jobs, which are requests that know their right answer.
 */
#ifndef UMO_TESTS_KIT_WORLD_H
#define UMO_TESTS_KIT_WORLD_H

#include "allocations.h"
#include "engine.h"
#include "fake_server.h"

#define MODEL_TENSORS_MAX 4

typedef struct model_tensor {
    umo_dtype dtype;
    umo_shape dims; /* -1 is variable */
    bool optional;
} model_tensor;

/* Inputs are INPUT0..., outputs OUTPUT0... of the type and dims of the input they are made of. */
typedef struct model_plan {
    int64_t batch_max;
    size_t input_count;
    size_t output_count;
    model_tensor inputs[MODEL_TENSORS_MAX];
    const char *unified; /* JSON; NULL for none */
    const char *extra;   /* more of the configuration: ", \"key\": value"; NULL for none */
} model_plan;

typedef struct world {
    umo_context *context;
    const model_plan *plan;
    TRITONBACKEND_Model model;
    TRITONBACKEND_ModelInstance instance;
    char text[FAKE_TEXT_BYTES]; /* of the last failure */
    char config[4096];
} world;

/* Starts empty: nothing fails, the engine is a well-behaved CPU. */
void world_start(world *w);
/* Ends: the server's books are clean and no memory of umo's is left. */
void world_finish(world *w);
/* Sets the configuration that the server gives. */
void world_configure(world *w, const model_plan *plan);
/* Loads model and instance; false leaves nothing loaded. */
bool world_load(world *w);
/* As world_load(), which must work. */
void world_load_ok(world *w, const model_plan *plan);
/* Unloads both; what a failing call left is tried again. */
void world_unload(world *w);
umo_counters world_counters(const world *w);
/* The host driver as a device of the engine's own. */
umo_device *world_device(uint64_t delay_ns, bool test_mode);

typedef struct job {
    const model_plan *plan;
    TRITONBACKEND_Request *request;
    int64_t rows;
    bool present[MODEL_TENSORS_MAX];
    umo_shape shapes[MODEL_TENSORS_MAX]; /* of the inputs, with the batch dimension */
    char *contents[MODEL_TENSORS_MAX];
    size_t sizes[MODEL_TENSORS_MAX];
    TRITONBACKEND_Input *inputs[MODEL_TENSORS_MAX];
    bool wants[MODEL_TENSORS_MAX];
    fake_region *regions[2 * MODEL_TENSORS_MAX]; /* the job's own */
    size_t region_count;
} job;

/* Makes a request of `rows` rows whose variable dimensions are `length`, with contents for all
 * inputs and nothing placed yet. */
void job_start(job *j, const model_plan *plan, int64_t rows, int64_t length, unsigned seed);
void job_finish(job *j);
/* Adds an input whose bytes are put at `data`, in one piece. */
void job_input_at(job *j, size_t input, char *data);
/* Likewise in memory of its own; private, or a region. */
void job_input_own(job *j, size_t input, bool shared);
/* Takes an input that was added apart: its second half comes from elsewhere. */
void job_input_split(job *j, size_t input);
void job_want(job *j, size_t output, char *data);
/* All inputs in memory of their own, all outputs wanted in the server's memory. */
void job_simple(job *j, const model_plan *plan, int64_t rows, int64_t length, unsigned seed);
/* Bytes of an output of this job. */
size_t job_output_bytes(const job *j, size_t output);
/* The right answer arrived. */
void job_expect_right(const job *j);
/* A failure arrived whose words contain `words`. */
void job_expect_failed(const job *j, const char *words);
/* Executes jobs in one go. */
bool world_execute(world *w, job *jobs, size_t count);

#endif
