/*
 * umo_kernel: a user's compute kernels as a model.
 *
 * The kernels' arguments are bound to the requests' tensors where they lie, so what a request costs
 * beyond the kernels is one launch each. The model owns the programs, built once, and the pool of
 * the memory between kernels; each instance has kernel objects and one of the device's queues, so
 * that instances run side by side. The kernels of one batch run in their order, in that queue, each
 * behind the one before.
 */
#include "constants.h"
#include "description.h"
#include "intermediates.h"
#include "launch.h"
#include "programs.h"
#include "scratch.h"
#include "trial.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the memory that stands in for a tensor without elements: a launch cannot bind nothing.
 */
#define NOTHING_BYTES 4096

typedef struct kernel_model {
    umo_model *model;
    umo_device *device;
    umo_programs programs;
    umo_description description;
    umo_constants constants;
    umo_intermediates intermediates;
    bool batched;
    _Atomic uint32_t instances;
} kernel_model;

typedef struct kernel_instance {
    const kernel_model *model;
    umo_intermediates near; /* own ones, where its memory has a node */
    const umo_intermediates *intermediates;
    umo_plan_kept kept;   /* where intermediates lay */
    umo_kernel **kernels; /* one a stage */
    uint32_t queue;
    umo_scratch nothing; /* stands in for tensors without elements and inputs that are absent */
    /* For one execution; calls for one instance never overlap. */
    umo_shape *shapes;         /* one entry a name of formulas, without the batch dimension */
    umo_launch_memory *memory; /* likewise; then the weights, which stay */
    bool *present;             /* of each input */
    umo_launch *launches;      /* one a stage */
} kernel_instance;

/* Puts the kernel's name in front of what a lower layer said. */
static umo_status explain(const kernel_model *state, size_t stage, const umo_error *inner,
                          umo_error *error)
{
    return umo_programs_explain(&state->programs, &state->description, stage, inner, error);
}

static umo_status try_kernels(kernel_model *state, umo_error *error)
{
    umo_kernel *kernels[UMO_STAGES_MAX] = {NULL};
    const umo_trial trial = {.model = state->model,
                             .device = state->device,
                             .kernels = kernels,
                             .description = &state->description,
                             .programs = &state->programs,
                             .constants = &state->constants};
    umo_status status = umo_programs_kernels(&state->programs, &state->description, kernels, error);
    if (status == UMO_OK) {
        status = umo_trial_run(&trial, error);
    }
    for (size_t i = 0; i < state->description.stage_count; i++) {
        umo_kernel_destroy(kernels[i]);
    }
    return status;
}

/* What the kernels need of the memory they are given, and which inputs nobody may change under
 * them. */
static void declare_needs(const kernel_model *state, umo_io *inputs, umo_io *outputs)
{
    const umo_description *description = &state->description;
    for (size_t i = 0; i < description->input_count; i++) {
        inputs[i].align_bytes = 1;
        inputs[i].control = false;
    }
    for (size_t i = 0; i < description->output_count; i++) {
        outputs[i].align_bytes = 1;
        outputs[i].overwrites = false;
    }
    for (size_t s = 0; s < description->stage_count; s++) {
        const umo_stage *stage = &description->stages[s];
        for (size_t i = 0; i < stage->argument_count; i++) {
            const umo_argument *argument = &stage->arguments[i];
            if (argument->kind != UMO_ARGUMENT_INPUT && argument->kind != UMO_ARGUMENT_OUTPUT) {
                continue;
            }
            const bool input = argument->kind == UMO_ARGUMENT_INPUT;
            umo_io *io = &(input ? inputs : outputs)[argument->tensor];
            const size_t align_bytes =
                argument->align_bytes != 0 ? argument->align_bytes : umo_dtype_size(io->dtype);
            io->align_bytes = io->align_bytes > align_bytes ? io->align_bytes : align_bytes;
            io->control = io->control || argument->index;
            io->overwrites = io->overwrites || argument->overwrites;
        }
    }
}

static umo_status refuse_bytes(const umo_io *list, size_t count, const char *what, umo_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].dtype == UMO_BYTES) {
            return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                                 "%s '%s' is of type BYTES, which no kernel can take: use UINT8",
                                 what, list[i].name);
        }
    }
    return UMO_OK;
}

/* Memory that is written and never read is a mistake of its author's, but none that harms. */
static void warn_unread(const kernel_model *state)
{
    for (size_t i = 0; i < state->description.intermediate_count; i++) {
        const umo_intermediate *one = &state->description.intermediates[i];
        if (!one->read) {
            umo_model_log(state->model, true,
                          "parameter kernel: intermediates.%s: no kernel reads it", one->name);
        }
    }
}

static const char *find_parameter(const void *model, const char *key)
{
    return umo_model_parameter(model, key);
}

static void model_finish(void *opaque)
{
    kernel_model *state = opaque;
    if (state != NULL) {
        umo_intermediates_finish(&state->intermediates);
        umo_programs_finish(&state->programs);
        umo_constants_finish(&state->constants);
        umo_device_release(state->device);
        umo_description_finish(&state->description);
        free(state);
    }
}

static umo_status model_start(kernel_model *state, umo_error *error)
{
    umo_model *model = state->model;
    const umo_description *description = &state->description;
    umo_status status = umo_programs_device(model, description, &state->device, error);
    if (status == UMO_OK) {
        status = umo_constants_init(model, state->device, description, &state->constants, error);
    }
    if (status == UMO_OK) {
        status = umo_programs_init(model, state->device, description, &state->programs, error);
    }
    if (status == UMO_OK) {
        status =
            umo_intermediates_init(model, state->device, description, &state->intermediates, error);
    }
    return status != UMO_OK ? status : try_kernels(state, error);
}

static umo_status model_init(umo_model *model, void **out, umo_error *error)
{
    umo_description_tensors tensors = {.parameter = find_parameter, .user = model};
    umo_io *inputs = umo_model_inputs(model, &tensors.input_count);
    umo_io *outputs = umo_model_outputs(model, &tensors.output_count);
    const char *json = umo_model_parameter(model, "kernel");
    tensors.inputs = inputs;
    tensors.outputs = outputs;
    if (json == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter kernel is missing: it says in JSON which function runs on "
                             "which arguments");
    }
    if (tensors.output_count == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the model's configuration has no outputs: a kernel's inputs and "
                             "outputs must be configured");
    }
    umo_status status = refuse_bytes(inputs, tensors.input_count, "input", error);
    if (status == UMO_OK) {
        status = refuse_bytes(outputs, tensors.output_count, "output", error);
    }
    if (status != UMO_OK) {
        return status;
    }
    kernel_model *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel model");
    }
    state->model = model;
    state->batched = umo_model_batch_max(model) > 0;
    status = umo_description_init(&state->description, json, &tensors, error);
    if (status == UMO_OK) {
        declare_needs(state, inputs, outputs);
        warn_unread(state);
        status = model_start(state, error);
    }
    if (status != UMO_OK) {
        model_finish(state);
        return status;
    }
    *out = state;
    return UMO_OK;
}

static void instance_finish(void *opaque)
{
    kernel_instance *state = opaque;
    if (state == NULL) {
        return;
    }
    umo_scratch_free(&state->nothing, (umo_fence){0});
    umo_intermediates_finish(&state->near);
    for (size_t i = 0; state->kernels != NULL && i < state->model->description.stage_count; i++) {
        umo_kernel_destroy(state->kernels[i]);
    }
    free(state->kernels);
    free(state->launches);
    free(state->present);
    free(state->memory);
    free(state->shapes);
    free(state);
}

static umo_status instance_init(umo_instance *instance, void *model_state, void **out,
                                umo_error *error)
{
    kernel_model *model = model_state;
    const umo_description *description = &model->description;
    umo_error inner = {0};
    const size_t count = umo_description_names(description);
    kernel_instance *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel instance");
    }
    state->model = model;
    state->intermediates = &model->intermediates;
    state->queue =
        atomic_fetch_add(&model->instances, 1) % umo_device_info_get(model->device)->queues;
    state->kernels = calloc(description->stage_count, sizeof *state->kernels);
    state->launches = calloc(description->stage_count, sizeof *state->launches);
    state->present = calloc(description->input_count + 1, sizeof *state->present);
    state->shapes = calloc(count, sizeof *state->shapes);
    state->memory = calloc(count + model->constants.count, sizeof *state->memory);
    umo_status status = UMO_OK;
    if (state->kernels == NULL || state->launches == NULL || state->present == NULL ||
        state->shapes == NULL || state->memory == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel instance");
        goto fail;
    }
    status = umo_programs_kernels(&model->programs, description, state->kernels, error);
    if (status != UMO_OK) {
        goto fail;
    }
    status = umo_scratch_alloc(model->device, umo_context_scope(umo_model_context(model->model)),
                               NOTHING_BYTES, state->queue, UMO_READ, &state->nothing, &inner);
    if (status != UMO_OK) {
        status = explain(model, description->stage_count, &inner, error);
        goto fail;
    }
    if (umo_instance_node(instance) != UMO_NUMA_ANY) {
        status =
            umo_intermediates_init_near(instance, model->device, description, &state->near, error);
        if (status != UMO_OK) {
            goto fail;
        }
        state->intermediates = &state->near;
    }
    umo_constants_bind(&model->constants, state->memory + count);
    umo_instance_set_device(instance, model->device, state->queue);
    *out = state;
    return UMO_OK;

fail:
    instance_finish(state);
    return status;
}

static void shape_without_batch(const kernel_model *model, const umo_io *io, const umo_shape *from,
                                umo_shape *out)
{
    const uint32_t skip = model->batched && !umo_description_is_whole(io) ? 1 : 0;
    *out = (umo_shape){.rank = from->rank - skip};
    memcpy(out->dims, from->dims + skip, out->rank * sizeof out->dims[0]);
}

static void bind_tensor(const kernel_instance *state, const umo_tensor *tensor,
                        umo_launch_memory *out)
{
    if (tensor->size_bytes == 0) {
        umo_scratch_bind(&state->nothing, out);
        return;
    }
    *out = (umo_launch_memory){.memory = umo_buffer_memory(tensor->buffer),
                               .offset_bytes =
                                   umo_buffer_memory_offset(tensor->buffer) + tensor->offset_bytes,
                               .size_bytes = tensor->size_bytes};
}

static umo_status take_inputs(kernel_instance *state, umo_batch *batch, umo_error *error)
{
    const umo_description *description = &state->model->description;
    size_t count;
    const umo_io *inputs = umo_model_inputs(state->model->model, &count);
    for (size_t i = 0; i < description->input_count; i++) {
        umo_tensor tensor;
        state->present[i] = umo_batch_has_input(batch, i);
        if (!state->present[i] && description->flagged[i]) {
            /* The kernel is told, and looks at nothing: it has no element. */
            state->shapes[i] = (umo_shape){.rank = umo_description_dims(&inputs[i]).rank};
            umo_scratch_bind(&state->nothing, &state->memory[i]);
            continue;
        }
        if (!state->present[i]) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "input '%s' is absent; the kernel cannot run without it",
                                 inputs[i].name);
        }
        umo_status status = umo_batch_input(batch, i, &tensor, error);
        if (status != UMO_OK) {
            return status;
        }
        shape_without_batch(state->model, &inputs[i], &tensor.shape, &state->shapes[i]);
        bind_tensor(state, &tensor, &state->memory[i]);
    }
    return UMO_OK;
}

/* An intermediate without elements is bound to the memory that stands in for it. */
static void bind_empty(kernel_instance *state)
{
    const umo_description *description = &state->model->description;
    const size_t first = description->input_count + description->output_count;
    for (size_t i = first; i < umo_description_names(description); i++) {
        if (state->memory[i].memory == NULL) {
            umo_scratch_bind(&state->nothing, &state->memory[i]);
        }
    }
}

/* Asks for every output. *any says whether one of them has an element. */
static umo_status take_outputs(kernel_instance *state, umo_batch *batch, bool *any,
                               umo_error *error)
{
    const kernel_model *model = state->model;
    const umo_description *description = &model->description;
    const int64_t rows = umo_batch_rows(batch);
    size_t count;
    const umo_io *outputs = umo_model_outputs(model->model, &count);
    *any = false;
    for (size_t i = 0; i < description->output_count; i++) {
        const size_t at = description->input_count + i;
        const umo_shape *inner = &state->shapes[at];
        umo_shape shape = *inner;
        umo_tensor tensor;
        if (model->batched && !umo_description_is_whole(&outputs[i])) {
            /* The rank was checked with the configuration, batch dimension included. */
            shape.rank = inner->rank + 1;
            shape.dims[0] = rows;
            memcpy(shape.dims + 1, inner->dims, inner->rank * sizeof inner->dims[0]);
        }
        umo_status status = umo_batch_output(batch, i, outputs[i].dtype, &shape, &tensor, error);
        if (status != UMO_OK) {
            return status;
        }
        *any = *any || tensor.size_bytes > 0;
        bind_tensor(state, &tensor, &state->memory[at]);
    }
    return UMO_OK;
}

/* A kernel without work items is left out, unless that leaves something unwritten. */
static umo_status check_left_out(const kernel_instance *state, size_t stage, umo_error *error)
{
    const kernel_model *model = state->model;
    const umo_description *description = &model->description;
    const size_t missed = umo_launch_missed(description, stage, state->shapes);
    const uint32_t zero = state->launches[stage].zero_dimension;
    const size_t between = description->input_count + description->output_count;
    umo_error inner = {0};
    if (missed == umo_description_names(description)) {
        return UMO_OK;
    }
    const char *text = description->stages[stage].global_size[zero].text;
    if (missed < between) {
        (void)umo_error_set(&inner, UMO_E_INVAL, 0,
                            "global_size[%" PRIu32 "]: \"%s\" is 0, but there are outputs to write",
                            zero, text);
    } else {
        (void)umo_error_set(&inner, UMO_E_INVAL, 0,
                            "global_size[%" PRIu32 "]: \"%s\" is 0, but intermediate '%s' is to "
                            "be written; \"clear\": true gives zeros",
                            zero, text, description->intermediates[missed - between].name);
    }
    return explain(model, stage, &inner, error);
}

/* All launches of the batch, before the first of them runs: what cannot be leaves nothing queued.
 */
static umo_status fill_launches(kernel_instance *state, int64_t rows, umo_error *error)
{
    const umo_description *description = &state->model->description;
    const umo_launch_facts facts = {
        .shapes = state->shapes, .memory = state->memory, .present = state->present, .batch = rows};
    for (size_t i = 0; i < description->stage_count; i++) {
        umo_launch *launch = &state->launches[i];
        umo_error inner = {0};
        if (umo_launch_fill(description, i, &facts, launch, &inner) != UMO_OK) {
            return explain(state->model, i, &inner, error);
        }
        if (launch->zero_dimension < launch->grid.dimensions) {
            umo_status status = check_left_out(state, i, error);
            if (status != UMO_OK) {
                return status;
            }
        }
    }
    return UMO_OK;
}

/* Runs the kernels in their order, the first behind waits. *done completes what was queued, also
 * after an error. */
static umo_status run_kernels(kernel_instance *state, umo_fence_set *waits, umo_fence *done,
                              umo_error *error)
{
    const kernel_model *model = state->model;
    const umo_description *description = &model->description;
    for (size_t i = 0; i < description->stage_count; i++) {
        const umo_launch *launch = &state->launches[i];
        umo_error inner = {0};
        umo_status status =
            umo_intermediates_clear(model->device, description, i, state->shapes, state->memory,
                                    state->queue, waits, done, &inner);
        if (status == UMO_OK && launch->zero_dimension < launch->grid.dimensions) {
            continue;
        }
        if (status == UMO_OK) {
            status =
                umo_kernel_launch(state->kernels[i], state->queue, launch->args, launch->arg_count,
                                  &launch->grid, waits->fences, waits->count, done, &inner);
        }
        if (status != UMO_OK) {
            return explain(model, i, &inner, error);
        }
        /* What this one waited for has passed when it has. */
        *waits = (umo_fence_set){.count = 1, .fences = {*done}};
    }
    return UMO_OK;
}

/* The batch's work, once its inputs and outputs are bound. */
static umo_status run(kernel_instance *state, umo_batch *batch, umo_error *error)
{
    const kernel_model *model = state->model;
    const umo_description *description = &model->description;
    umo_fence_set waits = *umo_batch_waits(batch);
    umo_intermediates_block block = {0};
    umo_fence done = {0};
    umo_status status = UMO_OK;
    if (description->intermediate_count > 0) {
        status =
            umo_intermediates_take(state->intermediates, &state->kept, description, state->shapes,
                                   state->queue, &waits, state->memory, &block, error);
        if (status != UMO_OK) {
            return status;
        }
        bind_empty(state);
    }
    status = fill_launches(state, umo_batch_rows(batch), error);
    if (status == UMO_OK) {
        status = run_kernels(state, &waits, &done, error);
    }
    umo_intermediates_give(state->intermediates, &block, done);
    /* Also of a batch that fails: what runs already still writes to the requests' memory. */
    umo_batch_complete(batch, done);
    return status;
}

static umo_status execute(umo_instance *instance, void *opaque, umo_batch *batch, umo_error *error)
{
    (void)instance;
    kernel_instance *state = opaque;
    const umo_description *description = &state->model->description;
    umo_error inner = {0};
    bool any = false;
    umo_status status = umo_constants_check(&state->model->constants, error);
    if (status == UMO_OK) {
        status = take_inputs(state, batch, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    status = umo_launch_shapes(description, state->shapes, umo_batch_rows(batch), &inner);
    if (status != UMO_OK) {
        return explain(state->model, description->stage_count, &inner, error);
    }
    status = take_outputs(state, batch, &any, error);
    return status != UMO_OK || !any ? status : run(state, batch, error);
}

const umo_backend umo_backend_table = {
    .name = "umo_kernel",
    .model_init = model_init,
    .model_finish = model_finish,
    .instance_init = instance_init,
    .instance_finish = instance_finish,
    .execute = execute,
};
