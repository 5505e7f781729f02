/* Loads a model, completes a configuration from it, and checks the configuration against it.
 *
 * The session that is needed to describe the model is the one that serves it: nothing is loaded
 * twice. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SHAPE_TEXT_BYTES = 96
};

/* Finds the model's file; a folder holds model.onnx beside its external data. */
static umo_status find_file(const umo_model *umo, char **out, umo_error *error)
{
    const char *name = umo_model_file(umo, "model.onnx");
    const char *version = umo_model_path(umo);
    const char *number = strrchr(version, '/');
    struct stat seen;
    char *path = NULL;
    if (asprintf(&path, "%s/%s", version, name) < 0) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to load the model");
    }
    if (stat(path, &seen) == 0 && S_ISDIR(seen.st_mode)) {
        char *inside = NULL;
        if (asprintf(&inside, "%s/model.onnx", path) < 0) {
            free(path);
            return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to load the model");
        }
        free(path);
        path = inside;
    }
    if (stat(path, &seen) != 0 || !S_ISREG(seen.st_mode)) {
        free(path);
        return umo_error_set(error, UMO_E_NOT_FOUND, 0,
                             "no model file %s/%s: put the ONNX model there, or name it with "
                             "default_model_filename",
                             number != NULL ? number + 1 : version, name);
    }
    *out = path;
    return UMO_OK;
}

static umo_status acquire_engine(ort_model *model, ort_engine **out, bool *joined, umo_error *error)
{
    const ort_wish wish = {
        .runtime = model->runtime,
        .options = &model->options,
        .context = umo_model_context(model->umo),
        .path = model->path,
        .folder = umo_model_folder(model->umo),
    };
    return ort_engine_acquire(&wish, out, joined, error);
}

static umo_status load(ort_model *model, umo_error *error)
{
    umo_status status = ort_options_read(model->umo, &model->options, error);
    if (status == UMO_OK) {
        status = find_file(model->umo, &model->path, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    const ort_runtime_options wanted = {
        .library = model->options.library,
        .global_threads = model->options.global_threads,
        .intra_op_threads = model->options.intra_op_threads,
        .inter_op_threads = model->options.inter_op_threads,
    };
    status = ort_runtime_acquire(&wanted, &model->runtime, error);
    if (status == UMO_OK) {
        status = acquire_engine(model, &model->engine, &model->joined, error);
    }
    if (status == UMO_OK) {
        status = ort_session_describe(model->runtime, ort_engine_session(model->engine),
                                      &model->description, error);
    }
    if (status == UMO_OK && model->options.memory_pool && model->runtime->allocator_registered) {
        status = ort_heap_create(umo_model_context(model->umo), umo_model_scope(model->umo),
                                 model->options.mem_arena != 0, NULL, &model->heap, error);
    }
    return status;
}

static bool is_integer(umo_dtype dtype)
{
    return dtype != UMO_FP16 && dtype != UMO_BF16 && dtype != UMO_FP32 && dtype != UMO_FP64;
}

/* Whether a tensor's bytes must not stay where a client can write to them. */
static bool is_steered(const ort_model *model, const umo_io *io)
{
    return model->guarded && (model->graph == NULL ||
                              ort_graph_is_steered(model->graph, io->name, is_integer(io->dtype)));
}

/* Has the kit snapshot the inputs that steer the engine, beyond those whose type says so. */
static void guard_inputs(ort_model *model)
{
    size_t count;
    umo_io *inputs = umo_model_inputs(model->umo, &count);
    for (size_t i = 0; i < count; i++) {
        if (!inputs[i].control && is_steered(model, &inputs[i])) {
            inputs[i].control = true;
        }
    }
}

static umo_status read_graph(ort_model *model, umo_error *error)
{
    umo_error why = {0};
    umo_status status = ort_graph_read(model->path, &model->graph, &why);
    if (status == UMO_E_NOMEM) {
        return umo_error_set(error, status, 0, "%s", why.text);
    }
    if (status != UMO_OK) {
        umo_model_log(model->umo, true,
                      "%s: every input in shared memory is copied, because nothing tells what the "
                      "model does with it",
                      why.text);
    }
    return UMO_OK;
}

umo_status ort_model_init(umo_model *umo, void **state, umo_error *error)
{
    ort_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to load the model");
    }
    model->umo = umo;
    model->guarded = !umo_model_unified(umo)->trusted_clients;
    pthread_mutex_init(&model->lock, NULL);
    umo_status status = load(model, error);
    if (status == UMO_OK && model->guarded) {
        status = read_graph(model, error);
        guard_inputs(model);
    }
    if (status != UMO_OK) {
        ort_model_finish(model);
        return status;
    }
    ort_engine_facts facts = ort_engine_describe(model->engine);
    umo_model_log(
        umo, false,
        "ONNX Runtime %s, %zu inputs, %zu outputs, %s; %zu weights (%llu bytes) in place%s",
        model->runtime->release, model->description.inputs.count, model->description.outputs.count,
        model->options.share_session ? "one session for all instances" : "one session an instance",
        facts.weights, (unsigned long long)facts.weight_bytes,
        model->joined ? ", of a session that was there already" : "");
    *state = model;
    return UMO_OK;
}

void ort_model_finish(void *state)
{
    ort_model *model = state;
    if (model == NULL) {
        return;
    }
    ort_engine_release(model->engine);
    ort_heap_release(model->heap);
    ort_plan_finish(&model->plan);
    ort_graph_destroy(model->graph);
    ort_description_finish(&model->description);
    ort_runtime_release(model->runtime);
    ort_options_finish(&model->options);
    pthread_mutex_destroy(&model->lock);
    free(model->inputs);
    free(model->outputs);
    free(model->path);
    free(model);
}

static bool list_batches(const ort_spec_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const ort_spec *spec = &list->specs[i];
        if (spec->is_tensor && (spec->shape.rank == 0 || spec->shape.dims[0] != -1)) {
            return false;
        }
    }
    return true;
}

/* The dims that a configuration gets. Triton has no scalars, so one element is [1]. */
static umo_shape configured_dims(const ort_spec *spec, bool batches)
{
    umo_shape dims = spec->shape;
    if (batches && dims.rank > 0) {
        dims.rank -= 1;
        memmove(dims.dims, dims.dims + 1, dims.rank * sizeof dims.dims[0]);
    }
    if (dims.rank == 0) {
        dims.rank = 1;
        dims.dims[0] = 1;
    }
    return dims;
}

static umo_status check_usable(const char *kind, const ort_spec *spec, umo_error *error)
{
    if (!spec->is_tensor) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "%s '%s' of the model is a sequence, map or optional value; only "
                             "tensors can be served",
                             kind, spec->name);
    }
    if (spec->dtype == UMO_DTYPE_INVALID) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "%s '%s' of the model has an element type that Triton lacks", kind,
                             spec->name);
    }
    return UMO_OK;
}

umo_status ort_model_complete(umo_model *umo, void *state, umo_error *error)
{
    ort_model *model = state;
    const ort_description *is = &model->description;
    if (umo_model_batch_unset(umo) && model->options.batch_default > 0 && is->inputs.count > 0 &&
        list_batches(&is->inputs) && list_batches(&is->outputs)) {
        umo_model_set_batch_max(umo, model->options.batch_default);
    }
    bool batches = umo_model_batch_max(umo) > 0;
    for (size_t i = 0; i < is->inputs.count; i++) {
        const ort_spec *spec = &is->inputs.specs[i];
        umo_status status = check_usable("input", spec, error);
        if (status == UMO_OK) {
            umo_shape dims = configured_dims(spec, batches);
            status = umo_model_add_input(umo, spec->name, spec->dtype, &dims, false);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    guard_inputs(model);
    for (size_t i = 0; i < is->outputs.count; i++) {
        const ort_spec *spec = &is->outputs.specs[i];
        umo_error why = {0};
        if (check_usable("output", spec, &why) != UMO_OK) {
            umo_model_log(umo, true, "not served: %s", why.text);
            continue;
        }
        umo_shape dims = configured_dims(spec, batches);
        umo_status status = umo_model_add_output(umo, spec->name, spec->dtype, &dims);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

/* "'a', 'b'", for a message; cut where it does not fit. */
static char *list_names(const ort_spec_list *list, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < list->count && used < text_bytes; i++) {
        int length = snprintf(text + used, text_bytes - used, "%s'%s'", i == 0 ? "" : ", ",
                              list->specs[i].name);
        used += length > 0 ? (size_t)length : 0;
    }
    return text;
}

/* Tensors whose shape says nothing of rows: a concatenation, what the kit makes of a batch, and
 * what it splits by its inputs' shapes. */
static bool is_whole(const umo_io *io)
{
    return io->ragged || io->scattered || io->source == UMO_IO_BATCH;
}

/* Whether clients say [1] where the engine has no dimension at all. */
static bool is_squeezed(const umo_io *io, const ort_spec *spec, bool batches)
{
    return !is_whole(io) && io->dims.rank == 1 && io->dims.dims[0] == 1 &&
           spec->shape.rank == (batches ? 1 : 0);
}

/* The configured dims as the engine sees them. */
static umo_shape engine_shape(const umo_io *io, const ort_spec *spec, bool batches)
{
    umo_shape dims = io->dims;
    if (is_squeezed(io, spec, batches)) {
        dims.rank = 0;
    }
    if (!batches || dims.rank == UMO_RANK_MAX) {
        return dims;
    }
    umo_shape full = {.rank = dims.rank + 1, .dims = {-1}};
    memcpy(full.dims + 1, dims.dims, dims.rank * sizeof dims.dims[0]);
    return full;
}

static bool shape_fits(const umo_shape *configured, const umo_shape *declared)
{
    if (configured->rank != declared->rank) {
        return false;
    }
    for (uint32_t d = 0; d < declared->rank; d++) {
        if (declared->dims[d] != -1 && declared->dims[d] != configured->dims[d]) {
            return false;
        }
    }
    return true;
}

/* Whether the model takes, or gives, a tensor of no rows as the configuration has it. */
static umo_status check_whole(const char *kind, const umo_io *io, const ort_spec *spec,
                              umo_error *error)
{
    static const umo_shape line = {.rank = 1, .dims = {-1}};
    const umo_shape *wanted = io->ragged ? &line : &io->dims;
    bool fits = io->scattered || spec->shape.rank == wanted->rank;
    for (uint32_t d = 0; fits && !io->scattered && d < wanted->rank; d++) {
        int64_t declared = spec->shape.dims[d];
        fits = declared == -1 || (!io->ragged && declared == wanted->dims[d]);
    }
    if (fits) {
        return UMO_OK;
    }
    char ours[SHAPE_TEXT_BYTES];
    char theirs[SHAPE_TEXT_BYTES];
    return umo_error_set(error, UMO_E_INVAL, 0,
                         "%s %s '%s' of a whole batch has shape %s, and %s in the model",
                         io->ragged ? "ragged" : "batch", kind, io->name,
                         umo_shape_format(wanted, ours, sizeof ours),
                         umo_shape_format(&spec->shape, theirs, sizeof theirs));
}

static umo_status check_tensor(const char *kind, const umo_io *io, const ort_spec *spec,
                               bool batches, umo_error *error)
{
    umo_status status = check_usable(kind, spec, error);
    if (status != UMO_OK) {
        return status;
    }
    if (io->dtype != spec->dtype) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s '%s' is %s in the configuration and %s in the model", kind,
                             io->name, umo_dtype_name(io->dtype), umo_dtype_name(spec->dtype));
    }
    /* Rank 0 is also what ONNX Runtime says of a tensor whose rank the model does not tell. */
    if (spec->shape.rank == 0) {
        return UMO_OK;
    }
    if (is_whole(io)) {
        return check_whole(kind, io, spec, error);
    }
    if (batches && spec->shape.dims[0] != -1) {
        return umo_error_set(
            error, UMO_E_INVAL, 0,
            "the configuration batches, but the first dimension of %s '%s' is %lld "
            "in the model: set max_batch_size to 0 or make that dimension variable",
            kind, io->name, (long long)spec->shape.dims[0]);
    }
    umo_shape configured = engine_shape(io, spec, batches);
    if (!shape_fits(&configured, &spec->shape)) {
        char ours[SHAPE_TEXT_BYTES];
        char theirs[SHAPE_TEXT_BYTES];
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s '%s' has shape %s in the configuration%s and %s in the model",
                             kind, io->name, umo_shape_format(&configured, ours, sizeof ours),
                             batches ? " (with the batch dimension)" : "",
                             umo_shape_format(&spec->shape, theirs, sizeof theirs));
    }
    return UMO_OK;
}

static umo_status bind_input(const ort_description *is, const umo_io *io, bool batches,
                             ort_bound *out, umo_error *error)
{
    const ort_spec *required = ort_spec_find(&is->inputs, io->name);
    const ort_spec *spec = required != NULL ? required : ort_spec_find(&is->initializers, io->name);
    if (spec == NULL) {
        char names[160];
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the model has no input '%s'; its inputs are %s", io->name,
                             list_names(&is->inputs, names, sizeof names));
    }
    if (required != NULL && io->optional) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "input '%s' is optional in the configuration, but the model needs it: "
                             "it has no initializer of that name",
                             io->name);
    }
    *out = (ort_bound){
        .io = io, .spec = spec, .squeezed = is_squeezed(io, spec, batches), .whole = is_whole(io)};
    return check_tensor("input", io, spec, batches, error);
}

/* An output that the model itself reads again, so that a client could change it meanwhile. */
static bool is_kept_private(const ort_model *model, const umo_io *io, const ort_spec *spec)
{
    /* A state is written to the server's memory, also where the client gets a copy of it. */
    if (!model->guarded || !umo_model_unified(model->umo)->enable || io->state) {
        return false;
    }
    if (model->graph == NULL) {
        return true;
    }
    return umo_dtype_is_control(spec->dtype)
               ? ort_graph_reads(model->graph, spec->name)
               : ort_graph_is_steered(model->graph, spec->name, is_integer(spec->dtype));
}

static umo_status bind_output(const ort_model *model, const umo_io *io, bool batches,
                              ort_bound *out, umo_error *error)
{
    const ort_description *is = &model->description;
    const ort_spec *spec = ort_spec_find(&is->outputs, io->name);
    if (spec == NULL) {
        char names[160];
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the model has no output '%s'; its outputs are %s", io->name,
                             list_names(&is->outputs, names, sizeof names));
    }
    *out = (ort_bound){.io = io,
                       .spec = spec,
                       .squeezed = is_squeezed(io, spec, batches),
                       .whole = is_whole(io),
                       .kept_private = is_kept_private(model, io, spec)};
    return check_tensor("output", io, spec, batches, error);
}

static umo_status check_complete(const umo_model *umo, const ort_description *is,
                                 size_t input_count, umo_error *error)
{
    for (size_t i = 0; i < is->inputs.count; i++) {
        const char *name = is->inputs.specs[i].name;
        if (umo_model_find_input(umo, name) == input_count) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "the model needs input '%s', which the configuration lacks", name);
        }
    }
    return UMO_OK;
}

umo_status ort_model_check(umo_model *umo, void *state, umo_error *error)
{
    ort_model *model = state;
    const ort_description *is = &model->description;
    const umo_io *inputs = umo_model_inputs(umo, &model->input_count);
    const umo_io *outputs = umo_model_outputs(umo, &model->output_count);
    bool batches = umo_model_batch_max(umo) > 0;
    model->inputs = calloc(model->input_count + 1, sizeof *model->inputs);
    model->outputs = calloc(model->output_count + 1, sizeof *model->outputs);
    if (model->inputs == NULL || model->outputs == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to load the model");
    }
    umo_status status = check_complete(umo, is, model->input_count, error);
    for (size_t i = 0; status == UMO_OK && i < model->input_count; i++) {
        status = bind_input(is, &inputs[i], batches, &model->inputs[i], error);
    }
    for (size_t i = 0; status == UMO_OK && i < model->output_count; i++) {
        status = bind_output(model, &outputs[i], batches, &model->outputs[i], error);
    }
    ort_graph_destroy(model->graph);
    model->graph = NULL;
    if (status != UMO_OK) {
        return status;
    }
    return ort_plan_make(model->inputs, model->input_count, model->outputs, model->output_count,
                         batches, model->options.symbolic_shapes, &model->plan, error);
}

umo_status ort_model_engine(ort_model *model, ort_engine **out, umo_error *error)
{
    if (model->options.share_session) {
        ort_engine_hold(model->engine);
        *out = model->engine;
        return UMO_OK;
    }
    pthread_mutex_lock(&model->lock);
    ort_engine *first = model->engine;
    model->engine = NULL;
    pthread_mutex_unlock(&model->lock);
    if (first != NULL) {
        *out = first;
        return UMO_OK;
    }
    return acquire_engine(model, out, NULL, error);
}
