/*
 * A whole Triton backend against the kit: OUTPUT = factor * INPUT, in FP32. Everything that has to
 * do with the server (requests, batches, where bytes lie, responses, statistics, errors of one
 * request among many) is the kit's; a backend says what its model is and computes.
 */
#include <umo/triton.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

typedef struct scale_model {
    float factor;
} scale_model;

/* Whatever is wrong with a model is said when it is loaded, with what to do about it. */
static umo_status model_init(umo_model *model, void **out, umo_error *error)
{
    size_t inputs;
    size_t outputs;
    const umo_io *input = umo_model_inputs(model, &inputs);
    const umo_io *output = umo_model_outputs(model, &outputs);
    if (inputs != 1 || outputs != 1 || input->dtype != UMO_FP32 || output->dtype != UMO_FP32) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a model of umo_scale has one input and one output, both TYPE_FP32");
    }
    const char *text = umo_model_parameter(model, "factor");
    char *end = NULL;
    errno = 0;
    float factor = text != NULL ? strtof(text, &end) : 1.0f;
    if (text != NULL && (end == text || *end != '\0' || errno != 0 || !isfinite(factor))) {
        return umo_error_set(error, UMO_E_INVAL, 0, "parameter factor: '%s' is no number", text);
    }
    scale_model *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the model");
    }
    made->factor = factor;
    *out = made;
    return UMO_OK;
}

static void model_finish(void *state)
{
    free(state);
}

/* What one instance needs for itself (a session, a device) is made here. This one needs nothing. */
static umo_status instance_init(umo_instance *instance, void *model_state, void **out,
                                umo_error *error)
{
    (void)instance;
    (void)error;
    *out = model_state;
    return UMO_OK;
}

static void instance_finish(void *state)
{
    (void)state;
}

/* One batch: the requests' own bytes where they lie in a row, the responses' own memory likewise.
 */
static umo_status execute(umo_instance *instance, void *state, umo_batch *batch, umo_error *error)
{
    (void)instance;
    const scale_model *model = state;
    umo_tensor from;
    umo_tensor to;
    umo_status status = umo_batch_input(batch, 0, &from, error);
    if (status != UMO_OK || !umo_batch_wants_output(batch, 0)) {
        return status;
    }
    status = umo_batch_output(batch, 0, UMO_FP32, &from.shape, &to, error);
    if (status != UMO_OK) {
        return status;
    }
    const float *x = from.data;
    float *y = to.data;
    for (size_t i = 0; i < to.size_bytes / sizeof *y; i++) {
        y[i] = model->factor * x[i];
    }
    return UMO_OK;
}

const umo_backend umo_backend_table = {
    .name = "umo_scale",
    .model_init = model_init,
    .model_finish = model_finish,
    .instance_init = instance_init,
    .instance_finish = instance_finish,
    .execute = execute,
};
