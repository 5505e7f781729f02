/*
 * The test engine; see engine.h.
 */
#include "engine.h"

#include "allocations.h"

#include <stdlib.h>
#include <string.h>

engine_settings engine;

typedef struct engine_instance {
    umo_model *model;
    umo_program *program;
    umo_kernel *change;
    umo_kernel *fill;
} engine_instance;

static void kernel_change(void *const *args, const size_t global[3])
{
    const unsigned char *from = args[0];
    unsigned char *to = args[1];
    unsigned char output = *(const unsigned char *)args[2];
    for (size_t i = 0; i < global[0]; i++) {
        to[i] = engine_byte(from[i], output);
    }
}

static void kernel_fill(void *const *args, const size_t global[3])
{
    memset(args[0], ABSENT_BYTE, global[0]);
}

static const umo_host_kernel kernels[] = {
    {"change", kernel_change}, {"fill", kernel_fill}, {NULL, NULL}};

static umo_status model_init(umo_model *model, void **state, umo_error *error)
{
    if (engine.trouble == TROUBLE_MODEL_INIT) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "the engine has no model");
    }
    if (engine.prepare != NULL) {
        engine.prepare(model);
    }
    engine.config = umo_model_config(model);
    *state = model;
    return UMO_OK;
}

static void model_finish(void *state)
{
    (void)state;
}

static umo_status model_complete(umo_model *model, void *state, umo_error *error)
{
    (void)state;
    umo_status status = UMO_OK;
    if (engine.completes) {
        const umo_shape dims = {.rank = 1, .dims = {-1}};
        status = umo_model_add_input(model, "INPUT0", UMO_UINT8, &dims, false);
        if (status == UMO_OK) {
            status = umo_model_add_output(model, "OUTPUT0", UMO_UINT8, &dims);
        }
        if (status == UMO_OK && umo_model_batch_unset(model)) {
            umo_model_set_batch_max(model, 4);
        }
    }
    return status == UMO_OK ? UMO_OK
                            : umo_error_set(error, status, 0, "the model could not be completed");
}

static umo_status model_check(umo_model *model, void *state, umo_error *error)
{
    (void)state;
    size_t count;
    (void)umo_model_outputs(model, &count);
    umo_model_log(model, false, "%zu outputs", count);
    return count > 0 ? UMO_OK : umo_error_set(error, UMO_E_INVAL, 0, "a model without outputs");
}

static void instance_finish(void *state)
{
    engine_instance *own = state;
    umo_kernel_destroy(own->fill);
    umo_kernel_destroy(own->change);
    umo_program_destroy(own->program);
    free(own);
}

static umo_status instance_init(umo_instance *instance, void *model_state, void **state,
                                umo_error *error)
{
    if (engine.trouble == TROUBLE_INSTANCE_INIT) {
        return umo_error_set(error, UMO_E_DEVICE, 0, "the engine does not start");
    }
    engine_instance *own = plain_alloc(sizeof *own);
    own->model = model_state;
    umo_status status = UMO_OK;
    if (engine.device != NULL) {
        const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
        status = umo_program_create(engine.device, &source, &own->program, error);
        if (status == UMO_OK) {
            status = umo_kernel_create(own->program, "change", &own->change, error);
            engine.change = own->change;
        }
        if (status == UMO_OK) {
            status = umo_kernel_create(own->program, "fill", &own->fill, error);
        }
        umo_instance_set_device(instance, engine.device, engine.queue);
    }
    if (status != UMO_OK) {
        instance_finish(own);
        return status;
    }
    *state = own;
    return UMO_OK;
}

/* The input that an output is made of; count when it has none. */
static size_t source_of(const umo_model *model, size_t output)
{
    size_t count;
    const umo_io *outputs = umo_model_outputs((umo_model *)(uintptr_t)model, &count);
    if (outputs[output].source == UMO_IO_STATE) {
        return outputs[output].pair;
    }
    const umo_io *inputs = umo_model_inputs((umo_model *)(uintptr_t)model, &count);
    while (count > 1 && inputs[count - 1].source != UMO_IO_REQUEST) {
        count--; /* those of the configuration come first */
    }
    return output < count ? output : count - 1;
}

/* The shape of an output: its input's, or one element a row. */
static umo_shape shape_of(umo_batch *batch, const umo_io *io, bool batching, bool present,
                          const umo_tensor *from)
{
    umo_shape shape = io->dims;
    if (present) {
        return from->shape;
    }
    for (uint32_t d = io->dims.rank; d-- > 0;) {
        shape.dims[d + (batching ? 1 : 0)] = io->dims.dims[d] < 0 ? 1 : io->dims.dims[d];
    }
    if (batching) {
        shape.rank++;
        shape.dims[0] = umo_batch_rows(batch);
    }
    return shape;
}

static void shape_spoil(umo_shape *shape, umo_dtype *dtype)
{
    switch (engine.trouble) {
    case TROUBLE_WRONG_RANK:
        shape->dims[shape->rank++] = 1;
        break;
    case TROUBLE_WRONG_DIM:
        shape->dims[shape->rank - 1]++;
        break;
    case TROUBLE_WRONG_ROWS:
        shape->dims[0]++;
        break;
    case TROUBLE_NEGATIVE_DIM:
        shape->dims[shape->rank - 1] = -1;
        break;
    case TROUBLE_WRONG_DTYPE:
        *dtype = *dtype == UMO_INT32 ? UMO_FP32 : UMO_INT32;
        break;
    default:
        break;
    }
}

static umo_status on_device(const engine_instance *own, umo_batch *batch, const umo_tensor *from,
                            const umo_tensor *to, unsigned char output, umo_error *error)
{
    umo_kernel_arg args[3];
    size_t count = 0;
    if (from != NULL) {
        args[count++] = (umo_kernel_arg){.kind = UMO_ARG_MEMORY,
                                         .memory = umo_buffer_memory(from->buffer),
                                         .offset_bytes = umo_buffer_memory_offset(from->buffer) +
                                                         from->offset_bytes};
    }
    args[count++] =
        (umo_kernel_arg){.kind = UMO_ARG_MEMORY,
                         .memory = umo_buffer_memory(to->buffer),
                         .offset_bytes = umo_buffer_memory_offset(to->buffer) + to->offset_bytes};
    if (from != NULL) {
        args[count++] = (umo_kernel_arg){.kind = UMO_ARG_VALUE, .size_bytes = 1, .value = &output};
    }
    const umo_grid grid = {.dimensions = 1, .global = {to->size_bytes, 1, 1}};
    const umo_fence_set *waits = umo_batch_waits(batch);
    umo_fence fence;
    umo_status status =
        umo_kernel_launch(from != NULL ? own->change : own->fill, engine.queue, args, count, &grid,
                          waits->fences, waits->count, &fence, error);
    if (status == UMO_OK) {
        atomic_fetch_add(&engine.launches, 1);
        if (engine.synchronous) {
            return umo_fence_wait(fence, UINT64_MAX);
        }
        umo_batch_complete(batch, fence);
    }
    return status;
}

static void on_host(const umo_tensor *from, void *to, size_t size_bytes, size_t output)
{
    const unsigned char *source = from != NULL ? from->data : NULL;
    unsigned char *target = to;
    for (size_t i = 0; i < size_bytes; i++) {
        target[i] = source != NULL ? engine_byte(source[i], output) : ABSENT_BYTE;
    }
}

static umo_status answer_late(umo_batch *batch, size_t output, umo_dtype dtype,
                              const umo_shape *shape, const umo_tensor *from, umo_error *error)
{
    if (dtype == UMO_BYTES) {
        size_t size_bytes = from != NULL ? from->size_bytes : 0;
        size_bytes -= engine.trouble == TROUBLE_LATE_BAD_STRINGS ? 1 : 0;
        return umo_batch_output_late(batch, output, dtype, shape, from != NULL ? from->data : "",
                                     size_bytes, UMO_REASON_ENGINE_STRINGS, error);
    }
    if (engine.passes_on && from != NULL) {
        return umo_batch_output_late(batch, output, dtype, shape, from->data, from->size_bytes,
                                     UMO_REASON_ENGINE_OUTPUT, error);
    }
    uint64_t size_bytes = 0;
    umo_status status = umo_shape_bytes(shape, dtype, &size_bytes);
    if (status != UMO_OK) {
        size_bytes = 1;
    }
    char *data = plain_alloc((size_t)size_bytes + 1);
    on_host(from, data, (size_t)size_bytes, output);
    size_bytes += engine.trouble == TROUBLE_LATE_WRONG_SIZE ? 1 : 0;
    status = umo_batch_output_late(batch, output, dtype, shape, data, (size_t)size_bytes,
                                   UMO_REASON_UNKNOWN_SHAPE, error);
    free(data);
    return status;
}

static umo_status answer(const engine_instance *own, umo_batch *batch, size_t output, bool last,
                         const umo_tensor *from, umo_error *error)
{
    size_t count;
    const umo_io *io = &umo_model_outputs(own->model, &count)[output];
    bool batching = umo_model_batch_max(own->model) > 0;
    umo_dtype dtype = io->dtype;
    umo_shape shape = shape_of(batch, io, batching, from != NULL, from);
    if (last) {
        shape_spoil(&shape, &dtype);
    }
    if (engine.late || dtype == UMO_BYTES) {
        return answer_late(batch, output, dtype, &shape, from, error);
    }
    umo_tensor to;
    umo_status status = umo_batch_output(batch, output, dtype, &shape, &to, error);
    if (status == UMO_OK && last && engine.trouble == TROUBLE_OUTPUT_TWICE) {
        status = umo_batch_output(batch, output, dtype, &shape, &to, error);
    }
    if (status != UMO_OK || engine.trouble == TROUBLE_AFTER_OUTPUTS || to.size_bytes == 0) {
        return status;
    }
    if (engine.device == NULL) {
        on_host(from, to.data, to.size_bytes, output);
        return UMO_OK;
    }
    bool blind = engine.trouble == TROUBLE_FORGETS_INPUTS;
    return on_device(own, batch, blind ? NULL : from, &to, (unsigned char)output, error);
}

static umo_status inputs_take(umo_batch *batch, size_t count, umo_tensor *tensors, umo_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (!umo_batch_has_input(batch, i)) {
            continue;
        }
        umo_status status = umo_batch_input(batch, i, &tensors[i], error);
        if (status != UMO_OK && engine.trouble == TROUBLE_IGNORES_ERRORS) {
            status = umo_batch_input(batch, i, &tensors[i], error);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status execute(umo_instance *instance, void *state, umo_batch *batch, umo_error *error)
{
    const engine_instance *own = state;
    umo_tensor tensors[32];
    size_t inputs;
    size_t outputs;
    umo_model *model = umo_instance_model(instance);
    (void)umo_model_inputs(model, &inputs);
    (void)umo_model_outputs(model, &outputs);
    atomic_fetch_add(&engine.batches, 1);
    if (engine.run != NULL) {
        return engine.run(instance, batch, error);
    }
    if (engine.before != NULL) {
        engine.before(batch);
    }
    if (engine.trouble == TROUBLE_WORDLESS) {
        return UMO_E_DEVICE;
    }
    if (engine.trouble == TROUBLE_BEFORE_INPUTS) {
        return umo_error_set(error, UMO_E_DEVICE, 0, "the engine stumbled");
    }
    if (engine.trouble == TROUBLE_FAIL_ONE) {
        umo_batch_fail(batch, engine.which, UMO_E_INVAL, "the engine does not like this one");
    }
    umo_status status = inputs_take(batch, inputs, tensors, error);
    if (status == UMO_OK && engine.between != NULL) {
        engine.between(batch);
    }
    if (status == UMO_OK && engine.trouble == TROUBLE_AFTER_INPUTS) {
        status = umo_error_set(error, UMO_E_DEVICE, 0, "the engine stumbled");
    }
    for (size_t o = 0; o < outputs && status == UMO_OK; o++) {
        bool last = o + 1 == outputs;
        if ((last && engine.trouble == TROUBLE_NO_OUTPUT) ||
            (!umo_batch_wants_output(batch, o) && !engine.insists)) {
            continue;
        }
        size_t source = source_of(model, o);
        bool present = inputs > 0 && umo_batch_has_input(batch, source);
        status = answer(own, batch, o, last, present ? &tensors[source] : NULL, error);
    }
    if (status == UMO_OK && engine.trouble == TROUBLE_NO_SUCH_OUTPUT) {
        status = umo_batch_output_late(batch, outputs, UMO_UINT8, &(umo_shape){0}, "", 1,
                                       UMO_REASON_UNKNOWN_SHAPE, error);
    }
    if (engine.trouble == TROUBLE_FAIL_ONE_LATER) {
        umo_batch_fail(batch, engine.which, UMO_E_INVAL, "the engine does not like this one");
    }
    if (status == UMO_OK &&
        (engine.trouble == TROUBLE_AFTER_OUTPUTS || engine.trouble == TROUBLE_AFTER_LAUNCH)) {
        status = umo_error_set(error, UMO_E_DEVICE, 0, "the engine stumbled");
    }
    return status;
}

const umo_backend umo_backend_table = {
    .name = "engine",
    .model_init = model_init,
    .model_finish = model_finish,
    .model_complete = model_complete,
    .model_check = model_check,
    .instance_init = instance_init,
    .instance_finish = instance_finish,
    .execute = execute,
};
