/*
 * The trial launch: variable dimensions get a few round numbers in turn, until one gives a launch
 * that the device takes.
 */
#include "trial.h"

#include "launch.h"
#include "scratch.h"

#include <stdlib.h>

/* A kernel that steps over its data in vectors or tiles may touch a little more than a small shape
 * has. */
#define SLACK_BYTES ((size_t)64 << 10)
/* Above this a trial would take memory and time that the load of a model should not. */
#define TRIAL_MAX_BYTES ((uint64_t)256 << 20)

/* What an OpenCL device says to a work size that it cannot run, as opposed to an argument that is
 * wrong. */
enum {
    OPENCL_INVALID_WORK_GROUP_SIZE = -54,
    OPENCL_INVALID_WORK_ITEM_SIZE = -55
};

typedef struct tensor {
    umo_dtype dtype;
    bool written;
    umo_scratch scratch;
} tensor;

typedef enum verdict {
    VERDICT_RAN,
    VERDICT_WRONG,  /* the description cannot work: error is set */
    VERDICT_NOTHING /* these shapes prove nothing: error says why */
} verdict;

/* The sum over all tensors was checked: no size overflows here. */
static umo_status prepare(const umo_trial *trial, tensor *t, const umo_shape *shape,
                          umo_launch_memory *memory, umo_error *error)
{
    uint64_t bytes = 0;
    umo_status status = umo_shape_bytes(shape, t->dtype, &bytes);
    if (status == UMO_OK) {
        status =
            umo_scratch_alloc(trial->device, umo_context_scope(umo_model_context(trial->model)),
                              (size_t)bytes + SLACK_BYTES, 0,
                              t->written ? UMO_READ_WRITE : UMO_READ, &t->scratch, error);
    }
    if (status == UMO_OK) {
        umo_scratch_bind(&t->scratch, memory);
    }
    return status;
}

static verdict launch(const umo_trial *trial, size_t stage, bool variable, const umo_launch *filled,
                      umo_fence *done, umo_error *error)
{
    umo_error inner = {0};
    umo_status status = umo_kernel_launch(trial->kernels[stage], 0, filled->args, filled->arg_count,
                                          &filled->grid, NULL, 0, done, &inner);
    if (status == UMO_OK) {
        status = umo_fence_wait(*done, UINT64_MAX);
        if (status != UMO_OK) {
            (void)umo_error_set(&inner, status, 0, "the device failed while it ran");
        }
    }
    if (status == UMO_OK) {
        return VERDICT_RAN;
    }
    (void)umo_programs_explain(trial->programs, trial->description, stage, &inner, error);
    const bool size_refused = inner.native == OPENCL_INVALID_WORK_GROUP_SIZE ||
                              inner.native == OPENCL_INVALID_WORK_ITEM_SIZE;
    return variable && size_refused ? VERDICT_NOTHING : VERDICT_WRONG;
}

/* True when all tensors together are small enough; false also when a size is none. */
static bool affordable(const tensor *tensors, const umo_shape *shapes, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes;
        if (umo_shape_bytes(&shapes[i], tensors[i].dtype, &bytes) != UMO_OK ||
            bytes > TRIAL_MAX_BYTES || (sum += bytes + SLACK_BYTES) > TRIAL_MAX_BYTES) {
            return false;
        }
    }
    return true;
}

/* Whether every kernel has a launch for these shapes. */
static verdict check(const umo_trial *trial, bool variable, const umo_launch_facts *facts,
                     umo_error *error)
{
    umo_launch filled;
    umo_error inner = {0};
    for (size_t i = 0; i < trial->description->stage_count; i++) {
        umo_status status = umo_launch_fill(trial->description, i, facts, &filled, &inner);
        if (status == UMO_OK && filled.zero_dimension == filled.grid.dimensions) {
            continue;
        }
        if (status == UMO_OK) {
            (void)umo_error_set(&inner, UMO_E_INVAL, 0, "global_size[%u] is 0",
                                filled.zero_dimension);
        }
        (void)umo_programs_explain(trial->programs, trial->description, i, &inner, error);
        /* A formula that fails for a dimension of our choice may hold for every real one. */
        return variable || status == UMO_OK ? VERDICT_NOTHING : VERDICT_WRONG;
    }
    return VERDICT_RAN;
}

/* One try with shapes whose inputs are filled in; variable says that some of their dimensions are
 * our choice. */
static verdict attempt(const umo_trial *trial, bool variable, tensor *tensors, umo_shape *shapes,
                       umo_launch_memory *memory, const bool *present, umo_error *error)
{
    const umo_description *description = trial->description;
    const size_t count = umo_description_names(description);
    const umo_launch_facts facts = {
        .shapes = shapes, .memory = memory, .present = present, .batch = 1};
    umo_launch filled;
    umo_fence done = {0};
    umo_error inner = {0};
    if (umo_launch_shapes(description, shapes, 1, &inner) != UMO_OK) {
        (void)umo_programs_explain(trial->programs, description, description->stage_count, &inner,
                                   error);
        return variable ? VERDICT_NOTHING : VERDICT_WRONG;
    }
    verdict said = check(trial, variable, &facts, error);
    if (said != VERDICT_RAN) {
        return said;
    }
    if (!affordable(tensors, shapes, count)) {
        (void)umo_error_set(error, UMO_E_LIMIT, 0, "its tensors are larger than %llu MiB",
                            (unsigned long long)(TRIAL_MAX_BYTES >> 20));
        return VERDICT_NOTHING;
    }
    for (size_t i = 0; i < count && said == VERDICT_RAN; i++) {
        if (prepare(trial, &tensors[i], &shapes[i], &memory[i], error) != UMO_OK) {
            said = VERDICT_NOTHING;
        }
    }
    for (size_t i = 0; i < description->stage_count && said == VERDICT_RAN; i++) {
        said = VERDICT_WRONG;
        if (umo_launch_fill(description, i, &facts, &filled, error) == UMO_OK) {
            said = launch(trial, i, variable, &filled, &done, error);
        }
    }
    for (size_t i = 0; i < count; i++) {
        umo_scratch_free(&tensors[i].scratch, done);
    }
    return said;
}

/* The configured shapes with a number for every variable dimension. True when there was one. */
static bool shapes_fill(const umo_io *inputs, size_t count, int64_t variable, umo_shape *shapes)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        shapes[i] = umo_description_dims(&inputs[i]);
        for (uint32_t d = 0; d < shapes[i].rank; d++) {
            if (shapes[i].dims[d] < 0) {
                shapes[i].dims[d] = variable;
                any = true;
            }
        }
    }
    return any;
}

/* What each tensor is: inputs are read, the others written. */
static void tensors_fill(const umo_trial *trial, const umo_io *inputs, const umo_io *outputs,
                         tensor *tensors)
{
    const umo_description *description = trial->description;
    for (size_t i = 0; i < description->input_count; i++) {
        tensors[i].dtype = inputs[i].dtype;
    }
    tensors += description->input_count;
    for (size_t i = 0; i < description->output_count; i++) {
        tensors[i] = (tensor){.dtype = outputs[i].dtype, .written = true};
    }
    tensors += description->output_count;
    for (size_t i = 0; i < description->intermediate_count; i++) {
        tensors[i] = (tensor){.dtype = description->intermediates[i].dtype, .written = true};
    }
}

umo_status umo_trial_run(const umo_trial *trial, umo_error *error)
{
    static const int64_t tries[] = {64, 16, 1};
    size_t input_count;
    size_t output_count;
    const umo_io *inputs = umo_model_inputs(trial->model, &input_count);
    const umo_io *outputs = umo_model_outputs(trial->model, &output_count);
    const size_t count = umo_description_names(trial->description);
    tensor *tensors = calloc(count, sizeof *tensors);
    umo_shape *shapes = calloc(count, sizeof *shapes);
    bool *present = calloc(input_count + 1, sizeof *present);
    umo_launch_memory *memory = calloc(count + trial->constants->count, sizeof *memory);
    umo_error inner = {0};
    verdict said = VERDICT_NOTHING;
    bool variable = true;
    if (tensors == NULL || shapes == NULL || memory == NULL || present == NULL) {
        (void)umo_error_set(&inner, UMO_E_NOMEM, 0, "no memory for it");
        goto done;
    }
    umo_constants_bind(trial->constants, memory + count);
    tensors_fill(trial, inputs, outputs, tensors);
    for (size_t i = 0; i < input_count; i++) {
        present[i] = true;
    }
    for (size_t i = 0; i < sizeof tries / sizeof tries[0] && said == VERDICT_NOTHING && variable;
         i++) {
        variable = shapes_fill(inputs, input_count, tries[i], shapes);
        said = attempt(trial, variable, tensors, shapes, memory, present, &inner);
    }

done:
    free(present);
    free(memory);
    free(shapes);
    free(tensors);
    if (said == VERDICT_WRONG) {
        return umo_error_set(error, inner.status, inner.native, "%s", inner.text);
    }
    if (said == VERDICT_NOTHING) {
        umo_model_log(
            trial->model, true,
            "the kernel was not tried at load: %s; its first request checks the arguments",
            inner.text);
    }
    return UMO_OK;
}
