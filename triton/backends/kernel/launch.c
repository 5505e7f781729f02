/*
 * From shapes to a launch. Whatever does not fit (a size over its type, a negative one) is an error
 * with the place in the description; nothing is cut or wrapped around.
 */
#include "launch.h"

#include <inttypes.h>

umo_status umo_launch_shapes(const umo_description *description, umo_shape *shapes, int64_t batch,
                             umo_error *error)
{
    umo_error inner = {0};
    for (size_t i = 0; i < description->output_count; i++) {
        const umo_output_dims *dims = &description->outputs[i];
        umo_shape *shape = &shapes[description->input_count + i];
        *shape = (umo_shape){.rank = dims->rank};
        for (uint32_t d = 0; d < dims->rank; d++) {
            if (umo_expression_eval_size(&dims->dims[d], shapes, batch, &shape->dims[d], &inner) !=
                UMO_OK) {
                return umo_error_set(error, UMO_E_INVAL, 0,
                                     "dimension %" PRIu32 " of output %zu: %s", d, i, inner.text);
            }
        }
    }
    return UMO_OK;
}

/* Where the arguments of a kind begin in the list of memory. */
static size_t first_place(const umo_description *description, umo_argument_kind kind)
{
    return kind == UMO_ARGUMENT_INPUT    ? 0
           : kind == UMO_ARGUMENT_OUTPUT ? description->input_count
                                         : description->input_count + description->output_count;
}

static umo_status fill_argument(const umo_description *description, size_t index,
                                const umo_shape *shapes, int64_t batch,
                                const umo_launch_memory *memory, umo_launch *out, umo_error *error)
{
    const umo_argument *argument = &description->arguments[index];
    umo_kernel_arg *arg = &out->args[index];
    umo_error inner = {0};
    int64_t value;
    switch (argument->kind) {
    case UMO_ARGUMENT_INPUT:
    case UMO_ARGUMENT_OUTPUT:
    case UMO_ARGUMENT_WEIGHTS: {
        const umo_launch_memory *place =
            &memory[argument->tensor + first_place(description, argument->kind)];
        *arg = (umo_kernel_arg){.kind = UMO_ARG_MEMORY,
                                .memory = place->memory,
                                .offset_bytes = place->offset_bytes,
                                .size_bytes = place->size_bytes};
        return UMO_OK;
    }
    case UMO_ARGUMENT_VALUE:
        *arg = (umo_kernel_arg){.kind = UMO_ARG_VALUE,
                                .value = &argument->value,
                                .size_bytes = umo_scalar_size(argument->type)};
        return UMO_OK;
    case UMO_ARGUMENT_SIZE:
        if (umo_expression_eval(&argument->expression, shapes, batch, &value, &inner) != UMO_OK) {
            return umo_error_set(error, UMO_E_INVAL, 0, "arguments[%zu]: %s", index, inner.text);
        }
        if (!umo_scalar_from_integer(argument->type, value, &out->values[index])) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "arguments[%zu]: \"%s\" is %" PRId64 ", which does not fit %s",
                                 index, argument->expression.text, value,
                                 umo_scalar_name(argument->type));
        }
        *arg = (umo_kernel_arg){.kind = UMO_ARG_VALUE,
                                .value = &out->values[index],
                                .size_bytes = umo_scalar_size(argument->type)};
        return UMO_OK;
    case UMO_ARGUMENT_LOCAL:
        if (umo_expression_eval_size(&argument->expression, shapes, batch, &value, &inner) !=
            UMO_OK) {
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
    return umo_error_set(error, UMO_E_INVAL, 0, "arguments[%zu] is of no kind", index);
}

static umo_status fill_size(const umo_expression *expression, const char *key, uint32_t dimension,
                            const umo_shape *shapes, int64_t batch, size_t *out, umo_error *error)
{
    umo_error inner = {0};
    int64_t value;
    if (umo_expression_eval_size(expression, shapes, batch, &value, &inner) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s[%" PRIu32 "]: %s", key, dimension,
                             inner.text);
    }
    *out = (size_t)value;
    return UMO_OK;
}

umo_status umo_launch_fill(const umo_description *description, const umo_shape *shapes,
                           int64_t batch, const umo_launch_memory *memory, umo_launch *out,
                           umo_error *error)
{
    umo_status status = UMO_OK;
    out->arg_count = description->argument_count;
    for (size_t i = 0; i < description->argument_count && status == UMO_OK; i++) {
        status = fill_argument(description, i, shapes, batch, memory, out, error);
    }
    umo_grid *grid = &out->grid;
    *grid = (umo_grid){.dimensions = description->dimensions};
    out->zero_dimension = description->dimensions;
    for (uint32_t d = description->dimensions; d-- > 0 && status == UMO_OK;) {
        status = fill_size(&description->global_size[d], "global_size", d, shapes, batch,
                           &grid->global[d], error);
        if (status == UMO_OK && grid->global[d] == 0) {
            out->zero_dimension = d;
        }
        if (status == UMO_OK && description->has_local_size) {
            status = fill_size(&description->local_size[d], "local_size", d, shapes, batch,
                               &grid->local[d], error);
            if (status == UMO_OK && grid->local[d] == 0) {
                status =
                    umo_error_set(error, UMO_E_INVAL, 0, "local_size[%" PRIu32 "]: \"%s\" is 0", d,
                                  description->local_size[d].text);
            }
        }
    }
    return status;
}
