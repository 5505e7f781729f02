/*
 * From shapes to a launch. Whatever does not fit (a size over its type, a negative one) is an error
 * with the place in the description; nothing is cut or wrapped around.
 */
#include "launch.h"

#include <inttypes.h>

/* On an error *failed is the dimension at fault. */
static umo_status eval_dims(const umo_formula_dims *dims, const umo_shape *shapes, int64_t batch,
                            umo_shape *out, uint32_t *failed, umo_error *error)
{
    *out = (umo_shape){.rank = dims->rank};
    for (uint32_t d = 0; d < dims->rank; d++) {
        if (umo_expression_eval_size(&dims->dims[d], shapes, batch, &out->dims[d], error) !=
            UMO_OK) {
            *failed = d;
            return UMO_E_INVAL;
        }
    }
    return UMO_OK;
}

umo_status umo_launch_shapes(const umo_description *description, umo_shape *shapes, int64_t batch,
                             umo_error *error)
{
    umo_error inner = {0};
    uint32_t failed = 0;
    umo_shape *outputs = shapes + description->input_count;
    umo_shape *between = outputs + description->output_count;
    for (size_t i = 0; i < description->output_count; i++) {
        if (eval_dims(&description->outputs[i], shapes, batch, &outputs[i], &failed, &inner) !=
            UMO_OK) {
            return umo_error_set(error, UMO_E_INVAL, 0, "dimension %" PRIu32 " of output %zu: %s",
                                 failed, i, inner.text);
        }
    }
    for (size_t i = 0; i < description->intermediate_count; i++) {
        const umo_intermediate *one = &description->intermediates[i];
        if (eval_dims(&one->dims, shapes, batch, &between[i], &failed, &inner) != UMO_OK) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "dimension %" PRIu32 " of intermediate '%s': %s", failed,
                                 one->name, inner.text);
        }
    }
    return UMO_OK;
}

/* Where the arguments of a kind begin in the list of memory. */
static size_t first_place(const umo_description *description, umo_argument_kind kind)
{
    switch (kind) {
    case UMO_ARGUMENT_OUTPUT:
        return description->input_count;
    case UMO_ARGUMENT_INTERMEDIATE:
        return description->input_count + description->output_count;
    case UMO_ARGUMENT_WEIGHTS:
        return umo_description_names(description);
    default:
        return 0;
    }
}

static umo_status fill_size_argument(const umo_argument *argument, size_t index,
                                     const umo_launch_facts *facts, umo_launch *out,
                                     umo_error *error)
{
    umo_error inner = {0};
    int64_t value;
    if (umo_expression_eval(&argument->expression, facts->shapes, facts->batch, &value, &inner) !=
        UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0, "arguments[%zu]: %s", index, inner.text);
    }
    if (!umo_scalar_from_integer(argument->type, value, &out->values[index])) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "arguments[%zu]: \"%s\" is %" PRId64 ", which does not fit %s", index,
                             argument->expression.text, value, umo_scalar_name(argument->type));
    }
    return UMO_OK;
}

static umo_status fill_argument(const umo_description *description, const umo_argument *argument,
                                size_t index, const umo_launch_facts *facts, umo_launch *out,
                                umo_error *error)
{
    umo_kernel_arg *arg = &out->args[index];
    umo_error inner = {0};
    umo_status status = UMO_OK;
    int64_t value;
    switch (argument->kind) {
    case UMO_ARGUMENT_INPUT:
    case UMO_ARGUMENT_OUTPUT:
    case UMO_ARGUMENT_INTERMEDIATE:
    case UMO_ARGUMENT_WEIGHTS: {
        const umo_launch_memory *place =
            &facts->memory[argument->tensor + first_place(description, argument->kind)];
        *arg = (umo_kernel_arg){.kind = UMO_ARG_MEMORY,
                                .memory = place->memory,
                                .offset_bytes = place->offset_bytes,
                                .size_bytes = place->size_bytes};
        return UMO_OK;
    }
    case UMO_ARGUMENT_VALUE:
        out->values[index] = argument->value;
        break;
    case UMO_ARGUMENT_PRESENT:
        (void)umo_scalar_from_integer(argument->type, facts->present[argument->tensor],
                                      &out->values[index]);
        break;
    case UMO_ARGUMENT_SIZE:
        status = fill_size_argument(argument, index, facts, out, error);
        break;
    case UMO_ARGUMENT_LOCAL:
        if (umo_expression_eval_size(&argument->expression, facts->shapes, facts->batch, &value,
                                     &inner) != UMO_OK) {
            return umo_error_set(error, UMO_E_INVAL, 0, "arguments[%zu].local_bytes: %s", index,
                                 inner.text);
        }
        if (value == 0) {
            return umo_error_set(error, UMO_E_INVAL, 0, "arguments[%zu].local_bytes: \"%s\" is 0",
                                 index, argument->expression.text);
        }
        *arg = (umo_kernel_arg){.kind = UMO_ARG_LOCAL, .size_bytes = (size_t)value};
        return UMO_OK;
    }
    *arg = (umo_kernel_arg){.kind = UMO_ARG_VALUE,
                            .value = &out->values[index],
                            .size_bytes = umo_scalar_size(argument->type)};
    return status;
}

static umo_status fill_size(const umo_expression *expression, const char *key, uint32_t dimension,
                            const umo_launch_facts *facts, size_t *out, umo_error *error)
{
    umo_error inner = {0};
    int64_t value;
    if (umo_expression_eval_size(expression, facts->shapes, facts->batch, &value, &inner) !=
        UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s[%" PRIu32 "]: %s", key, dimension,
                             inner.text);
    }
    *out = (size_t)value;
    return UMO_OK;
}

umo_status umo_launch_fill(const umo_description *description, size_t stage,
                           const umo_launch_facts *facts, umo_launch *out, umo_error *error)
{
    const umo_stage *own = &description->stages[stage];
    umo_status status = UMO_OK;
    out->arg_count = own->argument_count;
    for (size_t i = 0; i < own->argument_count && status == UMO_OK; i++) {
        status = fill_argument(description, &own->arguments[i], i, facts, out, error);
    }
    umo_grid *grid = &out->grid;
    *grid = (umo_grid){.dimensions = own->dimensions};
    out->zero_dimension = own->dimensions;
    for (uint32_t d = own->dimensions; d-- > 0 && status == UMO_OK;) {
        status = fill_size(&own->global_size[d], "global_size", d, facts, &grid->global[d], error);
        if (status == UMO_OK && grid->global[d] == 0) {
            out->zero_dimension = d;
        }
        if (status == UMO_OK && own->has_local_size) {
            status = fill_size(&own->local_size[d], "local_size", d, facts, &grid->local[d], error);
            if (status == UMO_OK && grid->local[d] == 0) {
                status =
                    umo_error_set(error, UMO_E_INVAL, 0, "local_size[%" PRIu32 "]: \"%s\" is 0", d,
                                  own->local_size[d].text);
            }
        }
    }
    return status;
}

bool umo_launch_is_empty(const umo_shape *shape)
{
    bool empty = false;
    for (uint32_t d = 0; d < shape->rank; d++) {
        empty = empty || shape->dims[d] == 0;
    }
    return empty;
}

size_t umo_launch_missed(const umo_description *description, size_t stage, const umo_shape *shapes)
{
    const umo_stage *own = &description->stages[stage];
    for (size_t i = 0; i < own->argument_count; i++) {
        const umo_argument *argument = &own->arguments[i];
        const size_t at = first_place(description, argument->kind) + argument->tensor;
        const bool cleared = argument->kind == UMO_ARGUMENT_INTERMEDIATE &&
                             description->intermediates[argument->tensor].clear;
        if (argument->first && !cleared && !umo_launch_is_empty(&shapes[at])) {
            return at;
        }
    }
    return umo_description_names(description);
}
