/* Runs batches: binds what the kit gives where it lies, and lets ONNX Runtime allocate only what
 * nobody can size.
 *
 * Run with given output values is used and not an IoBinding: both do the same work inside, and a
 * binding would have to be filled anew for every request. All arrays are made once an instance, so
 * that a warm request allocates nothing here; the values themselves are ONNX Runtime's to allocate.
 *
 * When a batch of single rows fails in the engine, its rows are run one by one, so that one
 * client's bad data (an index out of bounds, say) fails that client's request alone. */
#include "model.h"
#include "tensor.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>

enum {
    SCRATCH_KEPT_BYTES = 16 << 20
};

typedef struct ort_instance {
    ort_model *model;
    ort_engine *engine;
    ort_heap *heap; /* for what requests need, on its node; NULL: the model's */
    ort_run_options *run_options;
    ort_watch *watch; /* NULL: runs are never ended */
    ort_scratch scratch;
    ort_scratch *padded; /* one an input, for engines that read too far */
    int64_t *symbols;
    /* By index of the configuration; dtype UMO_DTYPE_INVALID where there is none. */
    umo_tensor *inputs;
    umo_tensor *outputs;
    bool *wanted;
    /* What Run takes, without gaps. */
    const char **input_names;
    ort_value **input_values;
    size_t fed;
    const char **output_names;
    ort_value **output_values;
    size_t *output_index;
    size_t asked;
} ort_instance;

static umo_status make_run_options(const ort_model *model, ort_run_options **out, umo_error *error)
{
    const ort_api *api = &model->runtime->api;
    umo_status status = ort_check(api, api->create_run_options(out), "make run options", error);
    if (status == UMO_OK) {
        /* A failing run is answered with its words; a client must not be able to fill the log as
         * well. */
        status = ort_check(api, api->run_set_log_severity(*out, ORT_LOG_FATAL), "set its log level",
                           error);
    }
    /* The arena to shrink is the engine's own; ours is trimmed after a run. */
    if (status == UMO_OK && model->options.shrinkage != NULL && model->heap == NULL) {
        status = ort_check(api,
                           api->add_run_config(*out, "memory.enable_memory_arena_shrinkage",
                                               model->options.shrinkage),
                           "set memory.enable_memory_arena_shrinkage", error);
    }
    return status;
}

static bool make_arrays(ort_instance *instance)
{
    const ort_model *model = instance->model;
    size_t inputs = model->input_count + 1;
    size_t outputs = model->output_count + 1;
    instance->symbols = calloc(model->plan.symbol_count + 1, sizeof *instance->symbols);
    instance->inputs = calloc(inputs, sizeof *instance->inputs);
    instance->outputs = calloc(outputs, sizeof *instance->outputs);
    instance->wanted = calloc(outputs, sizeof *instance->wanted);
    instance->input_names = calloc(inputs, sizeof *instance->input_names);
    instance->input_values = calloc(inputs, sizeof *instance->input_values);
    instance->output_names = calloc(outputs, sizeof *instance->output_names);
    instance->output_values = calloc(outputs, sizeof *instance->output_values);
    instance->output_index = calloc(outputs, sizeof *instance->output_index);
    instance->padded = calloc(inputs, sizeof *instance->padded);
    return instance->symbols != NULL && instance->inputs != NULL && instance->outputs != NULL &&
           instance->wanted != NULL && instance->input_names != NULL &&
           instance->input_values != NULL && instance->output_names != NULL &&
           instance->output_values != NULL && instance->output_index != NULL &&
           instance->padded != NULL;
}

umo_status ort_instance_init(umo_instance *umo, void *model_state, void **state, umo_error *error)
{
    ort_model *model = model_state;
    ort_instance *instance = calloc(1, sizeof *instance);
    if (instance == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an instance");
    }
    instance->model = model;
    umo_status status = UMO_OK;
    if (!make_arrays(instance)) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an instance");
    }
    if (status == UMO_OK) {
        status = ort_model_engine(model, &instance->engine, error);
    }
    if (status == UMO_OK && model->heap != NULL && umo_instance_node(umo) != UMO_NUMA_ANY) {
        status = ort_heap_create(umo_model_context(model->umo), umo_model_scope(model->umo),
                                 model->options.mem_arena != 0, umo, &instance->heap, error);
    }
    if (status == UMO_OK) {
        status = make_run_options(model, &instance->run_options, error);
    }
    if (status == UMO_OK && model->options.cancel_runs) {
        status = ort_watch_create(model->runtime, instance->run_options, &instance->watch, error);
    }
    if (status != UMO_OK) {
        ort_instance_finish(instance);
        return status;
    }
    *state = instance;
    return UMO_OK;
}

void ort_instance_finish(void *state)
{
    ort_instance *instance = state;
    if (instance == NULL) {
        return;
    }
    const ort_api *api = &instance->model->runtime->api;
    ort_watch_destroy(instance->watch);
    for (size_t i = 0; instance->padded != NULL && i < instance->model->input_count; i++) {
        ort_scratch_finish(&instance->padded[i]);
    }
    free(instance->padded);
    if (instance->run_options != NULL) {
        api->release_run_options(instance->run_options);
    }
    ort_engine_release(instance->engine);
    ort_heap_release(instance->heap);
    ort_scratch_finish(&instance->scratch);
    free(instance->symbols);
    free(instance->inputs);
    free(instance->outputs);
    free(instance->wanted);
    free(instance->input_names);
    free(instance->input_values);
    free(instance->output_names);
    free(instance->output_values);
    free(instance->output_index);
    free(instance);
}

static umo_status take_inputs(ort_instance *instance, umo_batch *batch, umo_error *error)
{
    for (size_t i = 0; i < instance->model->input_count; i++) {
        instance->inputs[i].dtype = UMO_DTYPE_INVALID;
        if (!umo_batch_has_input(batch, i)) {
            continue;
        }
        umo_status status = umo_batch_input(batch, i, &instance->inputs[i], error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

/* Asks for memory for every wanted output whose shape is certain. */
static umo_status take_outputs(ort_instance *instance, umo_batch *batch, umo_error *error)
{
    const ort_model *model = instance->model;
    int64_t rows = umo_batch_rows(batch);
    ort_plan_values(&model->plan, instance->inputs, instance->symbols);
    for (size_t i = 0; i < model->output_count; i++) {
        umo_shape shape;
        instance->outputs[i].dtype = UMO_DTYPE_INVALID;
        instance->wanted[i] = umo_batch_wants_output(batch, i);
        if (!instance->wanted[i] ||
            !ort_plan_shape(&model->plan, i, rows, instance->symbols, &shape)) {
            continue;
        }
        if (model->outputs[i].squeezed) {
            shape.dims[shape.rank++] = 1;
        }
        umo_status status = umo_batch_output(batch, i, model->outputs[i].spec->dtype, &shape,
                                             &instance->outputs[i], error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status wait_for_inputs(const umo_batch *batch, umo_error *error)
{
    const umo_fence_set *waits = umo_batch_waits(batch);
    if (waits == NULL || waits->count == 0) {
        return UMO_OK;
    }
    umo_fence_set set = *waits;
    umo_status status = umo_fence_set_wait(&set, UINT64_MAX);
    return status == UMO_OK ? UMO_OK
                            : umo_error_set(error, status, 0, "an input did not arrive in memory");
}

/* Copies inputs to where something of nobody lies behind them. */
static umo_status pad_inputs(ort_instance *instance, umo_error *error)
{
    ort_model *model = instance->model;
    size_t over_bytes = (size_t)model->options.over_read_bytes;
    for (size_t i = 0; over_bytes > 0 && i < model->input_count; i++) {
        umo_tensor *tensor = &instance->inputs[i];
        ort_scratch *to = &instance->padded[i];
        size_t size_bytes = tensor->size_bytes;
        if (tensor->dtype == UMO_DTYPE_INVALID || tensor->dtype == UMO_BYTES) {
            continue; /* strings get another form anyway */
        }
        if (size_bytes > SIZE_MAX - over_bytes ||
            !ort_scratch_reserve(to, size_bytes + over_bytes)) {
            return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a copy of input '%s'",
                                 model->inputs[i].io->name);
        }
        if (size_bytes > 0) {
            memcpy(to->data, tensor->data, size_bytes);
        }
        memset(to->data + size_bytes, 0, over_bytes);
        tensor->data = to->data;
        umo_scope_count_copy(umo_model_scope(model->umo), UMO_DIRECTION_IN, UMO_REASON_OVER_READ,
                             size_bytes);
    }
    return UMO_OK;
}

enum {
    ALL_ROWS = -1
};

/* A packed tensor as the engine is to see it: all of it or one row, without a [1] that is only the
 * clients'. */
static const umo_tensor *engine_view(const umo_tensor *whole, const ort_bound *bound, int64_t row,
                                     umo_tensor *copy)
{
    if (row == ALL_ROWS && !bound->squeezed) {
        return whole;
    }
    *copy = *whole;
    if (row != ALL_ROWS) {
        copy->size_bytes = whole->size_bytes / (size_t)whole->shape.dims[0];
        copy->data = (char *)whole->data + copy->size_bytes * (size_t)row;
        copy->shape.dims[0] = 1;
    }
    if (bound->squeezed) {
        copy->shape.rank -= 1;
    }
    return copy;
}

static umo_status bind_inputs(ort_instance *instance, int64_t row, umo_error *error)
{
    const ort_model *model = instance->model;
    for (size_t i = 0; i < model->input_count; i++) {
        umo_tensor copy;
        if (instance->inputs[i].dtype == UMO_DTYPE_INVALID) {
            continue;
        }
        const umo_tensor *tensor = engine_view(&instance->inputs[i], &model->inputs[i], row, &copy);
        const char *name = model->inputs[i].spec->name;
        umo_status status = ort_value_wrap(model->runtime, name, tensor, model->guarded,
                                           &instance->input_values[instance->fed], error);
        if (status != UMO_OK) {
            return status;
        }
        instance->input_names[instance->fed] = name;
        instance->fed += 1;
    }
    return UMO_OK;
}

static umo_status bind_outputs(ort_instance *instance, int64_t row, umo_error *error)
{
    const ort_model *model = instance->model;
    for (size_t i = 0; i < model->output_count; i++) {
        umo_tensor copy;
        if (!instance->wanted[i]) {
            continue;
        }
        ort_value **value = &instance->output_values[instance->asked];
        *value = NULL; /* the engine allocates */
        if (instance->outputs[i].dtype != UMO_DTYPE_INVALID) {
            const umo_tensor *tensor =
                engine_view(&instance->outputs[i], &model->outputs[i], row, &copy);
            umo_status status = ort_value_target(model->runtime, tensor, value, error);
            if (status != UMO_OK) {
                return status;
            }
        }
        instance->output_names[instance->asked] = model->outputs[i].spec->name;
        instance->output_index[instance->asked] = i;
        instance->asked += 1;
    }
    return UMO_OK;
}

static void release_values(const ort_api *api, ort_value **values, size_t *count)
{
    for (size_t i = 0; i < *count; i++) {
        if (values[i] != NULL) {
            api->release_value(values[i]);
            values[i] = NULL;
        }
    }
    *count = 0;
}

static ort_heap *heap_of(const ort_instance *instance)
{
    return instance->heap != NULL ? instance->heap : instance->model->heap;
}

static umo_status run(ort_instance *instance, umo_error *error)
{
    const ort_api *api = &instance->model->runtime->api;
    ort_heap *heap = heap_of(instance);
    ort_heap_visit visit;
    ort_heap_enter(heap, &visit);
    umo_status status = ort_check(
        api,
        api->run(ort_engine_session(instance->engine), instance->run_options, instance->input_names,
                 (const ort_value *const *)instance->input_values, instance->fed,
                 instance->output_names, instance->asked, instance->output_values),
        "run the model", error);
    ort_heap_leave(&visit);
    return ort_heap_explain(&visit, heap, status, error);
}

/* Binds and runs. The values stay, for the outputs that the engine allocated, until they are
 * released. */
static umo_status compute(ort_instance *instance, int64_t row, umo_error *error)
{
    const ort_api *api = &instance->model->runtime->api;
    umo_status status = bind_inputs(instance, row, error);
    if (status == UMO_OK) {
        status = bind_outputs(instance, row, error);
    }
    if (status == UMO_OK && instance->asked > 0) {
        status = run(instance, error);
    }
    release_values(api, instance->input_values, &instance->fed);
    return status;
}

static umo_reason late_reason(const ort_bound *output)
{
    if (output->spec->dtype == UMO_BYTES) {
        return UMO_REASON_ENGINE_STRINGS;
    }
    return output->kept_private ? UMO_REASON_CONTROL_DATA : UMO_REASON_UNKNOWN_SHAPE;
}

/* Copies what the engine allocated to the responses. */
static umo_status deliver_late(ort_instance *instance, umo_batch *batch, umo_error *error)
{
    const ort_model *model = instance->model;
    for (size_t k = 0; k < instance->asked; k++) {
        size_t i = instance->output_index[k];
        if (instance->outputs[i].dtype != UMO_DTYPE_INVALID) {
            continue;
        }
        ort_result result;
        umo_status status =
            ort_value_read(model->runtime, instance->output_names[k], instance->output_values[k],
                           &instance->scratch, &result, error);
        if (status == UMO_OK && model->outputs[i].squeezed &&
            result.shape.rank == model->outputs[i].spec->shape.rank) {
            result.shape.dims[result.shape.rank++] = 1;
        }
        if (status == UMO_OK) {
            status =
                umo_batch_output_late(batch, i, result.dtype, &result.shape, result.data,
                                      result.size_bytes, late_reason(&model->outputs[i]), error);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

/* Whether each request is one row of every tensor, all of them packed and in known memory. */
static bool rows_can_run_alone(const ort_instance *instance, const umo_batch *batch)
{
    const ort_model *model = instance->model;
    int64_t rows = umo_batch_rows(batch);
    if (rows < 2 || umo_batch_requests(batch) != (size_t)rows ||
        umo_model_batch_max(model->umo) == 0) {
        return false;
    }
    for (size_t i = 0; i < model->input_count; i++) {
        const umo_tensor *tensor = &instance->inputs[i];
        if (tensor->dtype == UMO_BYTES || model->inputs[i].whole ||
            (tensor->dtype != UMO_DTYPE_INVALID && tensor->shape.dims[0] != rows)) {
            return false;
        }
    }
    for (size_t i = 0; i < model->output_count; i++) {
        if (instance->wanted[i] &&
            (instance->outputs[i].dtype == UMO_DTYPE_INVALID || model->outputs[i].whole)) {
            return false;
        }
    }
    return true;
}

static void run_rows_alone(ort_instance *instance, umo_batch *batch)
{
    const ort_api *api = &instance->model->runtime->api;
    int64_t rows = umo_batch_rows(batch);
    for (int64_t row = 0; row < rows; row++) {
        umo_error error = {0};
        umo_status status = compute(instance, row, &error);
        release_values(api, instance->output_values, &instance->asked);
        if (status != UMO_OK) {
            umo_batch_fail(batch, (size_t)row, status, error.text);
        }
    }
}

umo_status ort_instance_execute(umo_instance *umo, void *state, umo_batch *batch, umo_error *error)
{
    (void)umo;
    ort_instance *instance = state;
    const ort_api *api = &instance->model->runtime->api;
    umo_status status = take_inputs(instance, batch, error);
    if (status == UMO_OK) {
        status = take_outputs(instance, batch, error);
    }
    if (status == UMO_OK) {
        status = wait_for_inputs(batch, error);
    }
    if (status == UMO_OK) {
        status = pad_inputs(instance, error);
    }
    if (status == UMO_OK) {
        status = ort_engine_check(instance->engine, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    ort_watch_begin(instance->watch, batch);
    status = compute(instance, ALL_ROWS, error);
    if (ort_watch_end(instance->watch) && status != UMO_OK) {
        release_values(api, instance->output_values, &instance->asked);
        return umo_error_set(error, UMO_E_REFUSED, 0, "every request of the batch was cancelled");
    }
    if (status == UMO_OK) {
        status = deliver_late(instance, batch, error);
        release_values(api, instance->output_values, &instance->asked);
    } else {
        release_values(api, instance->output_values, &instance->asked);
        if (rows_can_run_alone(instance, batch)) {
            run_rows_alone(instance, batch);
            status = UMO_OK;
        }
    }
    if (instance->model->heap != NULL && instance->model->options.shrinkage != NULL) {
        ort_heap_trim(heap_of(instance));
    }
    if (instance->scratch.capacity_bytes > SCRATCH_KEPT_BYTES) {
        ort_scratch_finish(&instance->scratch);
    }
    return status;
}
