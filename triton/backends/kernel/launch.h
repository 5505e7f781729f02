/*
 * One launch, computed from the description and the shapes at hand: output shapes, arguments, work
 * sizes.
 *
 * Pure arithmetic over caller-owned memory: no allocation, no device, so that a request costs
 * little and a test needs no server.
 */
#ifndef UMO_KERNEL_LAUNCH_H
#define UMO_KERNEL_LAUNCH_H

#include "description.h"

/* Where a tensor lies, in the order of the formulas' names: the inputs, the outputs, the
 * intermediates; behind them the weights. */
typedef struct umo_launch_memory {
    const umo_memory *memory;
    size_t offset_bytes;
    size_t size_bytes;
} umo_launch_memory;

/* args points into values: a launch is used where it was filled, never copied. */
typedef struct umo_launch {
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX];
    umo_scalar values[UMO_KERNEL_ARGS_MAX];
    size_t arg_count;
    umo_grid grid;
    uint32_t zero_dimension; /* first dimension of the grid without a work item; grid.dimensions if
                                none */
} umo_launch;

/* What the launches of one batch have in common. */
typedef struct umo_launch_facts {
    const umo_shape *shapes;         /* one entry a name, without the batch dimension */
    const umo_launch_memory *memory; /* one entry a name, then one a weight */
    const bool *present;             /* of each input */
    int64_t batch;
} umo_launch_facts;

/*
 * Computes the shapes of outputs and intermediates behind the inputs'. shapes has one entry a name,
 * without the batch dimension. INVAL names the tensor.
 */
umo_status umo_launch_shapes(const umo_description *description, umo_shape *shapes, int64_t batch,
                             umo_error *error);

/* Computes a kernel's arguments and grid. INVAL names the argument or the size. */
umo_status umo_launch_fill(const umo_description *description, size_t stage,
                           const umo_launch_facts *facts, umo_launch *out, umo_error *error);

/*
 * Of a kernel without work items: the tensor with elements that nobody would write then, by its
 * index among the names. umo_description_names() when it may be left out.
 */
size_t umo_launch_missed(const umo_description *description, size_t stage, const umo_shape *shapes);

/* Whether a tensor of the shape has no element. */
bool umo_launch_is_empty(const umo_shape *shape);

#endif
