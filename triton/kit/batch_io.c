/*
 * What a configuration says about batches beside their tensors: inputs that are made of the shapes
 * of another input's requests (batch_input), and outputs that are split by them (batch_output).
 *
 * The kinds mean what they mean to Triton's own helpers. Such an input is an ordinary one to a
 * backend; only its values come from here, a few bytes a request.
 */
#include "kit/kit.h"

#include <stdlib.h>
#include <string.h>

/* What uneven requests together have at most, so that nobody's request is refused for want of the
 * memory that another one's takes, and no sum of theirs is too large for a number. */
#define SHARED_BATCH_BYTES ((uint64_t)256 << 20)

static const char *const kind_names[KIT_BATCH_KINDS] = {
    "BATCH_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "BATCH_ITEM_SHAPE",
    "BATCH_ITEM_SHAPE_FLATTEN",
};

/* ---- The configuration ---- */

/* The one input that an entry is made of. */
static umo_status source_read(const umo_model *model, const json_t *entry, const char *list,
                              size_t *out, umo_error *error)
{
    const json_t *names = json_object_get(entry, "source_input");
    if (json_array_size(names) != 1) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s: source_input names one input, not %zu",
                             list, json_array_size(names));
    }
    const char *name = json_string_value(json_array_get(names, 0));
    *out = umo_model_find_input(model, name != NULL ? name : "");
    if (*out == model->input_count || model->inputs[*out].source != UMO_IO_REQUEST) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s: source_input '%s' is no input of model '%s'", list,
                             name != NULL ? name : "", model->name);
    }
    return UMO_OK;
}

static umo_status kind_read(const json_t *entry, kit_batch_kind *out, umo_error *error)
{
    const char *name = json_string_value(json_object_get(entry, "kind"));
    *out = KIT_ELEMENT_COUNT; /* the server's default */
    while (name != NULL && *out < KIT_BATCH_KINDS && strcmp(kind_names[*out], name) != 0) {
        (*out)++;
    }
    return *out < KIT_BATCH_KINDS ? UMO_OK
                                  : umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                                                  "batch_input: no kind is named '%s'", name);
}

static umo_status batch_input_add(umo_model *model, const char *name, umo_dtype dtype,
                                  const kit_batch_input *plan, umo_error *error)
{
    const umo_shape dims = {.rank = plan->kind == KIT_ITEM_SHAPE ? 2 : 1, .dims = {-1, -1}};
    if (name == NULL || umo_model_find_input(model, name) < model->input_count) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "batch_input: target_name '%s' is an input already",
                             name != NULL ? name : "");
    }
    kit_batch_input *grown =
        realloc(model->batch_inputs, (model->batch_input_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a batch input");
    }
    model->batch_inputs = grown;
    if (kit_io_append(&model->inputs, &model->input_count, name, dtype, &dims, false) != UMO_OK) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a batch input");
    }
    umo_io *io = &model->inputs[model->input_count - 1];
    io->source = UMO_IO_BATCH;
    io->optional = model->inputs[plan->source].optional;
    grown[model->batch_input_count] = *plan;
    grown[model->batch_input_count++].input = model->input_count - 1;
    return UMO_OK;
}

static umo_status batch_input_read(umo_model *model, const json_t *entry, umo_error *error)
{
    kit_batch_input plan = {0};
    const char *type = json_string_value(json_object_get(entry, "data_type"));
    umo_dtype dtype = umo_dtype_parse(type != NULL ? type : "");
    umo_status status = kind_read(entry, &plan.kind, error);
    if (status == UMO_OK) {
        status = source_read(model, entry, "batch_input", &plan.source, error);
    }
    if (status == UMO_OK && dtype != UMO_INT32 && dtype != UMO_FP32) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "batch_input: data_type is TYPE_INT32 or TYPE_FP32, not %s",
                               type != NULL ? type : "none");
    }
    bool items = plan.kind == KIT_ITEM_SHAPE || plan.kind == KIT_ITEM_SHAPE_FLATTEN;
    if (status == UMO_OK && items && model->batch_max == 0 &&
        model->inputs[plan.source].dims.rank == 0) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "batch_input: '%s' has no items: it has no dimensions",
                               model->inputs[plan.source].name);
    }
    const json_t *targets = json_object_get(entry, "target_name");
    for (size_t i = 0; i < json_array_size(targets) && status == UMO_OK; i++) {
        status = batch_input_add(model, json_string_value(json_array_get(targets, i)), dtype, &plan,
                                 error);
    }
    return status;
}

/* Each open dimension of the output is the source's of the same place, so there must be one. */
static umo_status scatter_check(const umo_model *model, const umo_io *output, const umo_io *source,
                                umo_error *error)
{
    for (uint32_t d = 0; d < output->dims.rank; d++) {
        if (output->dims.dims[d] < 0 && d >= source->dims.rank) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "batch_output: dimension %u of output '%s' of model '%s' is open, "
                                 "and input '%s' has no such dimension",
                                 d, output->name, model->name, source->name);
        }
    }
    return UMO_OK;
}

static umo_status batch_output_read(umo_model *model, const json_t *entry, umo_error *error)
{
    const char *kind = json_string_value(json_object_get(entry, "kind"));
    if (kind != NULL && strcmp(kind, "BATCH_SCATTER_WITH_INPUT_SHAPE") != 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "batch_output: no kind is named '%s'",
                             kind);
    }
    size_t source = 0;
    umo_status status = source_read(model, entry, "batch_output", &source, error);
    const json_t *targets = json_object_get(entry, "target_name");
    for (size_t i = 0; i < json_array_size(targets) && status == UMO_OK; i++) {
        const char *name = json_string_value(json_array_get(targets, i));
        size_t output = umo_model_find_output(model, name != NULL ? name : "");
        if (output == model->output_count || model->outputs[output].dtype == UMO_BYTES) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "batch_output: target_name '%s' is no output of a fixed element "
                                 "size of model '%s'",
                                 name != NULL ? name : "", model->name);
        }
        status = scatter_check(model, &model->outputs[output], &model->inputs[source], error);
        model->outputs[output].scattered = true;
        model->scatter_inputs[output] = source;
    }
    return status;
}

umo_status kit_batch_io_read(umo_model *model, umo_error *error)
{
    const json_t *inputs = json_object_get(model->config, "batch_input");
    const json_t *outputs = json_object_get(model->config, "batch_output");
    umo_status status = UMO_OK;
    for (size_t i = 0; i < json_array_size(inputs) && status == UMO_OK; i++) {
        status = batch_input_read(model, json_array_get(inputs, i), error);
    }
    if (status != UMO_OK || json_array_size(outputs) == 0) {
        return status;
    }
    model->scatter_inputs = calloc(model->output_count + 1, sizeof *model->scatter_inputs);
    if (model->scatter_inputs == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for batch outputs");
    }
    for (size_t i = 0; i < json_array_size(outputs) && status == UMO_OK; i++) {
        status = batch_output_read(model, json_array_get(outputs, i), error);
    }
    return status;
}

/* ---- Inputs that are made of shapes ---- */

static const kit_batch_input *plan_of(const umo_model *model, size_t input)
{
    const kit_batch_input *plan = model->batch_inputs;
    while (plan->input != input) {
        plan++;
    }
    return plan;
}

bool kit_batch_input_present(const umo_batch *batch, size_t input)
{
    return batch->members[0]->inputs[plan_of(batch->instance->model, input)->source].present;
}

/* Elements of a request's source, which were counted when it was read. */
static int64_t elements_of(const kit_request *request, size_t source)
{
    uint64_t count = 0;
    umo_status_ignore(umo_shape_count(&request->inputs[source].shape, &count));
    return (int64_t)count;
}

/* Of an ITEM_SHAPE each dimension is a number, of the other kinds the count of elements. */
static bool plan_fits(const kit_batch_input *plan, const kit_input *source)
{
    bool items = plan->kind >= KIT_ITEM_SHAPE;
    uint64_t count = 0;
    umo_status_ignore(umo_shape_count(&source->shape, &count));
    bool fits = items || plan->kind == KIT_MAX_ELEMENT_COUNT_AS_SHAPE || count <= INT32_MAX;
    for (uint32_t d = 1; items && d < source->shape.rank; d++) {
        fits = fits && source->shape.dims[d] <= INT32_MAX;
    }
    return fits;
}

void kit_batch_input_check(const umo_model *model, kit_request *request)
{
    for (size_t i = 0; i < model->batch_input_count; i++) {
        const kit_batch_input *plan = &model->batch_inputs[i];
        const umo_io *io = &model->inputs[plan->input];
        const kit_input *source = &request->inputs[plan->source];
        if (source->present && io->dtype == UMO_INT32 && !plan_fits(plan, source)) {
            (void)kit_request_fail(request, UMO_E_INVAL,
                                   "a number for input '%s' of model '%s' does not fit %s",
                                   io->name, model->name, umo_dtype_name(io->dtype));
        }
    }
}

void kit_batch_rules_find(umo_model *model)
{
    /* Under the strategy direct all of a batch's requests are its slots. */
    for (size_t i = 0; i < model->input_count && !model->direct; i++) {
        const umo_io *io = &model->inputs[i];
        model->uneven = model->uneven || io->ragged || io->dtype == UMO_BYTES;
    }
}

bool kit_batch_has_room(const umo_model *model, const kit_request *request, uint64_t *taken_bytes)
{
    uint64_t total = *taken_bytes;
    bool first = total == 0;
    for (size_t i = 0; i < model->input_count; i++) {
        const kit_input *in = &request->inputs[i];
        if (in->present && __builtin_add_overflow(total, in->size_bytes, &total)) {
            total = UINT64_MAX;
        }
    }
    bool room = first || total <= SHARED_BATCH_BYTES;
    *taken_bytes = room ? total : *taken_bytes;
    return room;
}

static void shape_find(const umo_batch *batch, const kit_batch_input *plan, umo_shape *out)
{
    int64_t requests = (int64_t)batch->count;
    *out = (umo_shape){.rank = 1};
    switch (plan->kind) {
    case KIT_ELEMENT_COUNT:
    case KIT_ACCUMULATED_ELEMENT_COUNT:
        out->dims[0] = requests;
        break;
    case KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO:
        out->dims[0] = requests + 1;
        break;
    case KIT_MAX_ELEMENT_COUNT_AS_SHAPE:
        for (size_t i = 0; i < batch->count; i++) {
            int64_t elements = elements_of(batch->members[i], plan->source);
            out->dims[0] = elements > out->dims[0] ? elements : out->dims[0];
        }
        break;
    case KIT_ITEM_SHAPE:
    case KIT_ITEM_SHAPE_FLATTEN:
    default:
        for (size_t i = 0; i < batch->count; i++) {
            out->dims[0] += batch->members[i]->inputs[plan->source].shape.dims[0];
        }
        /* The first dimension is the batch's. */
        out->dims[1] = (int64_t)batch->members[0]->inputs[plan->source].shape.rank - 1;
        if (plan->kind == KIT_ITEM_SHAPE) {
            out->rank = 2;
        } else if (__builtin_mul_overflow(out->dims[0], out->dims[1], &out->dims[0])) {
            out->dims[0] = INT64_MAX; /* too large for memory, as it is for a shape */
        }
        break;
    }
}

/* Writes numbers of one of the two types that there are. */
typedef struct number_writer {
    char *to;
    umo_dtype dtype;
    bool fits;
} number_writer;

static void number_write(number_writer *writer, int64_t value)
{
    int32_t whole = (int32_t)value;
    float real = (float)value;
    writer->fits = writer->fits && (writer->dtype == UMO_FP32 || whole == value);
    memcpy(writer->to, writer->dtype == UMO_FP32 ? (const void *)&real : (const void *)&whole, 4);
    writer->to += 4;
}

static void item_shapes_write(number_writer *writer, const umo_shape *shape)
{
    for (int64_t row = 0; row < shape->dims[0]; row++) {
        for (uint32_t d = 1; d < shape->rank; d++) {
            number_write(writer, shape->dims[d]);
        }
    }
}

/* False: a number does not fit the type. */
static bool values_write(const umo_batch *batch, const kit_batch_input *plan, umo_dtype dtype,
                         size_t size_bytes, char *to)
{
    number_writer writer = {to, dtype, true};
    int64_t sum = 0;
    if (plan->kind == KIT_MAX_ELEMENT_COUNT_AS_SHAPE) {
        memset(to, 0, size_bytes); /* the shape is what counts; nobody else's bytes in it */
        return true;
    }
    if (plan->kind == KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO) {
        number_write(&writer, 0);
    }
    for (size_t i = 0; i < batch->count; i++) {
        const kit_request *request = batch->members[i];
        if (plan->kind >= KIT_ITEM_SHAPE) {
            item_shapes_write(&writer, &request->inputs[plan->source].shape);
            continue;
        }
        sum = plan->kind == KIT_ELEMENT_COUNT ? 0 : sum;
        sum += elements_of(request, plan->source);
        number_write(&writer, sum);
    }
    return writer.fits;
}

/* The values go into memory that host and device share, also where the rest of a batch is copied
 * the conventional way: they are not the clients' bytes. */
static umo_status values_make(umo_batch *batch, const kit_batch_input *plan, kit_slot *slot,
                              umo_error *error)
{
    umo_instance *instance = batch->instance;
    const umo_io *io = &instance->model->inputs[plan->input];
    umo_access access = {
        .size_bytes = slot->tensor.size_bytes, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    umo_status status = kit_scratch_take(instance, slot->tensor.size_bytes, &slot->block, error);
    if (status != UMO_OK) {
        return status;
    }
    slot->tensor.buffer = slot->block;
    slot->tensor.offset_bytes = 0;
    slot->tensor.data = umo_buffer_host(slot->block);
    status = umo_access_begin(slot->block, &access, &waits);
    if (status == UMO_OK) {
        status = umo_fence_set_wait(&waits, UINT64_MAX);
        bool fits = status == UMO_OK && values_write(batch, plan, io->dtype,
                                                     slot->tensor.size_bytes, slot->tensor.data);
        umo_status ended = umo_access_end(slot->block, &access, (umo_fence){0});
        status = status == UMO_OK ? ended : status;
        if (status == UMO_OK && !fits) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "a number for input '%s' of model '%s' does not fit %s", io->name,
                                 instance->model->name, umo_dtype_name(io->dtype));
        }
    }
    return status == UMO_OK ? UMO_OK : umo_error_set(error, status, 0, "scratch memory is in use");
}

umo_status kit_batch_input_make(umo_batch *batch, size_t input, kit_slot *slot, umo_error *error)
{
    const kit_batch_input *plan = plan_of(batch->instance->model, input);
    umo_dtype dtype = batch->instance->model->inputs[input].dtype;
    umo_shape shape;
    uint64_t size_bytes = 0;
    shape_find(batch, plan, &shape);
    umo_status status = umo_shape_bytes(&shape, dtype, &size_bytes);
    if (status != UMO_OK || size_bytes > SIZE_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "input '%s' of model '%s' would be too large",
                             batch->instance->model->inputs[input].name,
                             batch->instance->model->name);
    }
    status = umo_tensor_init(&slot->tensor, kit_nothing, (size_t)size_bytes, dtype, &shape, error);
    if (status == UMO_OK && size_bytes > 0) {
        status = values_make(batch, plan, slot, error);
    }
    return status;
}

/* ---- Outputs that are split by shapes ---- */

umo_status kit_scatter_shape(const umo_model *model, const kit_request *request, size_t output,
                             umo_shape *out)
{
    const kit_input *source = &request->inputs[model->scatter_inputs[output]];
    const umo_shape *dims = &model->outputs[output].dims;
    uint32_t skip = model->batch_max > 0 ? 1 : 0;
    if (!source->present) {
        return UMO_E_NOT_FOUND;
    }
    *out = (umo_shape){.rank = dims->rank + skip};
    out->dims[0] = skip > 0 ? request->rows : 0;
    for (uint32_t d = 0; d < dims->rank; d++) {
        out->dims[d + skip] = dims->dims[d] < 0 ? source->shape.dims[d + skip] : dims->dims[d];
    }
    return UMO_OK;
}

void kit_scatter_check(const umo_model *model, kit_request *request)
{
    for (size_t i = 0; i < model->output_count; i++) {
        umo_shape shape;
        uint64_t size_bytes;
        if (!request->outputs[i].wanted || !model->outputs[i].scattered) {
            continue;
        }
        if (kit_scatter_shape(model, request, i, &shape) != UMO_OK) {
            (void)kit_request_fail(request, UMO_E_INVAL,
                                   "output '%s' of model '%s' has the shape of an input that is "
                                   "absent",
                                   model->outputs[i].name, model->name);
        } else if (umo_shape_bytes(&shape, model->outputs[i].dtype, &size_bytes) != UMO_OK ||
                   size_bytes > SIZE_MAX) {
            (void)kit_request_fail(request, UMO_E_INVAL, "output '%s' of model '%s' is too large",
                                   model->outputs[i].name, model->name);
        }
    }
}

size_t kit_scatter_bytes(const umo_model *model, const kit_request *request, size_t output)
{
    umo_shape shape;
    uint64_t size_bytes = 0;
    if (kit_scatter_shape(model, request, output, &shape) == UMO_OK) {
        umo_status_ignore(umo_shape_bytes(&shape, model->outputs[output].dtype, &size_bytes));
    }
    return (size_t)size_bytes;
}
