/*
 * umo_kernel: a user's compute kernel as a model.
 *
 * The kernel's arguments are bound to the requests' tensors where they lie, so what a request costs
 * beyond the kernel is one launch. The model owns the program, built once; each instance has a
 * kernel object and one of the device's queues, so that instances run side by side.
 */
#include "constants.h"
#include "description.h"
#include "launch.h"
#include "scratch.h"
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Longer than any program that people write; keeps a wrong file from filling memory. */
#define PROGRAM_MAX_BYTES ((off_t)16 << 20)

/* Bytes of the memory that stands in for an input without elements: a launch cannot bind nothing.
 */
#define NOTHING_BYTES 4096

typedef struct kernel_model {
    umo_model *model;
    umo_device *device;
    umo_program *program;
    umo_description description;
    umo_constants constants;
    const char *file; /* the program's name, for messages */
    bool batched;
    _Atomic uint32_t instances;
} kernel_model;

typedef struct kernel_instance {
    const kernel_model *model;
    umo_kernel *kernel;
    uint32_t queue;
    umo_scratch nothing; /* stands in for inputs without elements */
    /* For one execution; calls for one instance never overlap. */
    umo_shape *shapes;         /* inputs, then outputs, without the batch dimension */
    umo_launch_memory *memory; /* likewise; then the weights, which stay */
    umo_launch launch;
} kernel_instance;

/* A language's usual file name: one model folder may serve several kinds of devices. A device
 * without a language compiles nothing by name, but takes a file that is named. */
static const char *default_file(umo_program_language language)
{
    switch (language) {
    case UMO_LANGUAGE_OPENCL_C:
        return "model.cl";
    case UMO_LANGUAGE_METAL:
        return "model.metal";
    case UMO_LANGUAGE_CUDA:
        return "model.cu";
    case UMO_LANGUAGE_HOST:
        break;
    }
    return NULL;
}

/* Of a model that names no device: Metal where the machine has it, else OpenCL. */
static const char *default_driver(void)
{
    uint32_t count = 0;
    return umo_driver_count("metal", &count, NULL) == UMO_OK && count > 0 ? "metal" : "opencl";
}

static umo_status read_program(const kernel_model *state, char **out, size_t *out_bytes,
                               umo_error *error)
{
    char *path = NULL;
    char *text = NULL;
    struct stat found;
    umo_status status = UMO_OK;
    int fd = -1;
    if (asprintf(&path, "%s/%s", umo_model_path(state->model), state->file) < 0) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the program's path");
    }
    /* Without O_NONBLOCK a FIFO of that name would stop the server here. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &found) != 0) {
        const int code = errno;
        status = umo_error_set(error, code == ENOENT ? UMO_E_NOT_FOUND : UMO_E_SYSTEM, code,
                               "kernel file '%s' in folder %" PRIu64 " of the model: %s",
                               state->file, umo_model_version(state->model), strerror(code));
        goto done;
    }
    if (!S_ISREG(found.st_mode) || found.st_size == 0 || found.st_size > PROGRAM_MAX_BYTES) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "kernel file '%s' is %s; a text of 1 byte to %d MiB is expected",
                               state->file,
                               !S_ISREG(found.st_mode) ? "no plain file"
                               : found.st_size == 0    ? "empty"
                                                       : "too long",
                               (int)(PROGRAM_MAX_BYTES >> 20));
        goto done;
    }
    const size_t size_bytes = (size_t)found.st_size;
    text = malloc(size_bytes + 1);
    if (text == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the kernel file");
        goto done;
    }
    for (size_t had = 0; had < size_bytes;) {
        const ssize_t got = read(fd, text + had, size_bytes - had);
        if (got <= 0) {
            const int code = got < 0 ? errno : EIO;
            if (code == EINTR) {
                continue;
            }
            status = umo_error_set(error, UMO_E_SYSTEM, code, "kernel file '%s': %s", state->file,
                                   strerror(code));
            goto done;
        }
        had += (size_t)got;
    }
    text[size_bytes] = '\0';
    if (memchr(text, '\0', size_bytes) != NULL) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "kernel file '%s' is no text: it has a zero byte", state->file);
        goto done;
    }
    *out = text;
    *out_bytes = size_bytes;
    text = NULL;

done:
    free(text);
    free(path);
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

/* Puts the kernel's name in front of what a lower layer said. */
static umo_status explain(const kernel_model *state, const umo_error *inner, umo_error *error)
{
    return umo_error_set(error, inner->status, inner->native, "%s, kernel '%s': %s", state->file,
                         state->description.function, inner->text);
}

static umo_status build(kernel_model *state, umo_error *error)
{
    umo_error inner = {0};
    char *text = NULL;
    size_t size_bytes = 0;
    umo_kernel *kernel = NULL;
    umo_status status = read_program(state, &text, &size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    const umo_program_source source = {.kind = UMO_PROGRAM_SOURCE,
                                       .text = text,
                                       .size_bytes = size_bytes,
                                       .options = state->description.options};
    status = umo_program_create(state->device, &source, &state->program, &inner);
    free(text);
    if (status != UMO_OK) {
        return umo_error_set(error, status, inner.native, "%s: %s", state->file, inner.text);
    }
    status = umo_kernel_create(state->program, state->description.function, &kernel, &inner);
    if (status != UMO_OK) {
        return umo_error_set(error, status, inner.native, "%s: %s", state->file, inner.text);
    }
    const umo_trial trial = {.model = state->model,
                             .device = state->device,
                             .kernel = kernel,
                             .description = &state->description,
                             .constants = &state->constants};
    status = umo_trial_run(&trial, &inner);
    if (status != UMO_OK) {
        status = explain(state, &inner, error);
    }
    umo_kernel_destroy(kernel);
    return status;
}

/* What the kernel needs of the memory it is given, and which inputs nobody may change under it. */
static void declare_needs(const kernel_model *state, umo_io *inputs, umo_io *outputs)
{
    const umo_description *description = &state->description;
    for (size_t i = 0; i < description->argument_count; i++) {
        const umo_argument *argument = &description->arguments[i];
        if (argument->kind != UMO_ARGUMENT_INPUT && argument->kind != UMO_ARGUMENT_OUTPUT) {
            continue;
        }
        const bool input = argument->kind == UMO_ARGUMENT_INPUT;
        umo_io *io = &(input ? inputs : outputs)[argument->tensor];
        io->align_bytes =
            argument->align_bytes != 0 ? argument->align_bytes : umo_dtype_size(io->dtype);
        if (input) {
            io->control = argument->index;
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

static void model_finish(void *opaque)
{
    kernel_model *state = opaque;
    if (state != NULL) {
        umo_program_destroy(state->program);
        umo_constants_finish(&state->constants);
        umo_device_release(state->device);
        umo_description_finish(&state->description);
        free(state);
    }
}

static umo_status model_init(umo_model *model, void **out, umo_error *error)
{
    umo_description_tensors tensors;
    umo_io *inputs = umo_model_inputs(model, &tensors.input_count);
    umo_io *outputs = umo_model_outputs(model, &tensors.output_count);
    const umo_unified_config *config = umo_model_unified(model);
    const bool named = config->driver[0] != '\0';
    const char *driver = named ? config->driver : default_driver();
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
    if (status != UMO_OK) {
        goto fail;
    }
    declare_needs(state, inputs, outputs);
    status = umo_context_device(umo_model_context(model), driver, named ? config->ordinal : 0,
                                &state->device, error);
    if (status != UMO_OK) {
        goto fail;
    }
    state->file =
        state->description.file != NULL
            ? state->description.file
            : umo_model_file(model, default_file(umo_device_info_get(state->device)->language));
    if (state->file == NULL) {
        status =
            umo_error_set(error, UMO_E_INVAL, 0,
                          "parameter kernel: \"file\" is missing, and driver '%s' has no usual "
                          "name for it",
                          driver);
        goto fail;
    }
    status =
        umo_constants_init(model, state->device, &state->description, &state->constants, error);
    if (status == UMO_OK) {
        status = build(state, error);
    }
    if (status != UMO_OK) {
        goto fail;
    }
    *out = state;
    return UMO_OK;

fail:
    model_finish(state);
    return status;
}

static void instance_finish(void *opaque)
{
    kernel_instance *state = opaque;
    if (state == NULL) {
        return;
    }
    umo_scratch_free(&state->nothing, (umo_fence){0});
    umo_kernel_destroy(state->kernel);
    free(state->memory);
    free(state->shapes);
    free(state);
}

static umo_status instance_init(umo_instance *instance, void *model_state, void **out,
                                umo_error *error)
{
    kernel_model *model = model_state;
    umo_error inner = {0};
    const size_t count = model->description.input_count + model->description.output_count;
    kernel_instance *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel instance");
    }
    state->model = model;
    state->queue =
        atomic_fetch_add(&model->instances, 1) % umo_device_info_get(model->device)->queues;
    state->shapes = calloc(count, sizeof *state->shapes);
    state->memory = calloc(count + model->constants.count, sizeof *state->memory);
    umo_status status = UMO_OK;
    if (state->shapes == NULL || state->memory == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel instance");
        goto fail;
    }
    status = umo_kernel_create(model->program, model->description.function, &state->kernel, &inner);
    if (status == UMO_OK) {
        status =
            umo_scratch_alloc(model->device, umo_context_scope(umo_model_context(model->model)),
                              NOTHING_BYTES, state->queue, UMO_READ, &state->nothing, &inner);
    }
    if (status != UMO_OK) {
        status = explain(model, &inner, error);
        goto fail;
    }
    umo_constants_bind(&model->constants, state->memory + count);
    umo_instance_set_device(instance, model->device, state->queue);
    *out = state;
    return UMO_OK;

fail:
    instance_finish(state);
    return status;
}

static void shape_without_batch(const kernel_model *model, const umo_shape *from, umo_shape *out)
{
    const uint32_t skip = model->batched ? 1 : 0;
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
    for (size_t i = 0; i < description->input_count; i++) {
        umo_tensor tensor;
        if (!umo_batch_has_input(batch, i)) {
            size_t count;
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "input '%s' is absent; the kernel cannot run without it",
                                 umo_model_inputs(state->model->model, &count)[i].name);
        }
        umo_status status = umo_batch_input(batch, i, &tensor, error);
        if (status != UMO_OK) {
            return status;
        }
        shape_without_batch(state->model, &tensor.shape, &state->shapes[i]);
        bind_tensor(state, &tensor, &state->memory[i]);
    }
    return UMO_OK;
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
        if (model->batched) {
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

static umo_status execute(umo_instance *instance, void *opaque, umo_batch *batch, umo_error *error)
{
    (void)instance;
    kernel_instance *state = opaque;
    const umo_description *description = &state->model->description;
    umo_launch *launch = &state->launch;
    const int64_t rows = umo_batch_rows(batch);
    umo_error inner = {0};
    umo_fence done = {0};
    bool any = false;
    umo_status status = umo_constants_check(&state->model->constants, error);
    if (status == UMO_OK) {
        status = take_inputs(state, batch, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    status = umo_launch_shapes(description, state->shapes, rows, &inner);
    if (status != UMO_OK) {
        return explain(state->model, &inner, error);
    }
    status = take_outputs(state, batch, &any, error);
    if (status != UMO_OK || !any) {
        return status;
    }
    status = umo_launch_fill(description, state->shapes, rows, state->memory, launch, &inner);
    if (status != UMO_OK) {
        return explain(state->model, &inner, error);
    }
    if (launch->zero_dimension < launch->grid.dimensions) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s, kernel '%s': global_size[%" PRIu32
                             "]: \"%s\" is 0, but there are "
                             "outputs to write",
                             state->model->file, description->function, launch->zero_dimension,
                             description->global_size[launch->zero_dimension].text);
    }
    const umo_fence_set *waits = umo_batch_waits(batch);
    status = umo_kernel_launch(state->kernel, state->queue, launch->args, launch->arg_count,
                               &launch->grid, waits->fences, waits->count, &done, &inner);
    if (status != UMO_OK) {
        return explain(state->model, &inner, error);
    }
    umo_batch_complete(batch, done);
    return UMO_OK;
}

const umo_backend umo_backend_table = {
    .name = "umo_kernel",
    .model_init = model_init,
    .model_finish = model_finish,
    .instance_init = instance_init,
    .instance_finish = instance_finish,
    .execute = execute,
};
