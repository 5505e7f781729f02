/*
 * A first launch while the model loads.
 *
 * A driver tells only at a launch whether the arguments fit the kernel, and many compile a kernel
 * to the end only then. So each kernel runs once on zeroed memory of small shapes: a wrong
 * argument list is a load error, not every request's error, and no request pays for the compiler.
 */
#ifndef UMO_KERNEL_TRIAL_H
#define UMO_KERNEL_TRIAL_H

#include "constants.h"
#include "programs.h"

typedef struct umo_trial {
    umo_model *model;
    umo_device *device;
    umo_kernel *const *kernels; /* one a stage */
    const umo_description *description;
    const umo_programs *programs;
    const umo_constants *constants;
} umo_trial;

/*
 * Runs all kernels once. Fails when one cannot run with this description. Where small shapes of our
 * choice prove nothing (a variable dimension that must be a multiple of something, no memory to
 * spare), the log says so and the model loads.
 */
umo_status umo_trial_run(const umo_trial *trial, umo_error *error);

#endif
