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

/* Where a tensor lies, in the order of the formulas' names: the inputs, then the outputs; behind
 * them the weights. */
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

/*
 * Computes the outputs' shapes behind the inputs'. shapes has one entry a name, without the batch
 * dimension. INVAL names the output.
 */
umo_status umo_launch_shapes(const umo_description *description, umo_shape *shapes, int64_t batch,
                             umo_error *error);

/* Computes arguments and grid. memory has one entry a name, then one a weight. INVAL names the
 * argument or the size.
 */
umo_status umo_launch_fill(const umo_description *description, const umo_shape *shapes,
                           int64_t batch, const umo_launch_memory *memory, umo_launch *out,
                           umo_error *error);

#endif
