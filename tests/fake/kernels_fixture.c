/* A library of kernels, as FAKE_METAL_KERNELS names one. */
#include "fake_metal.h"

static void run_twice(void *const *args, const size_t global[3])
{
    uint32_t *x = args[0];
    for (size_t i = 0; i < global[0]; i++) {
        x[i] *= 2;
    }
}

FAKE_METAL_API extern const fake_metal_kernel fake_metal_kernels[];

const fake_metal_kernel fake_metal_kernels[] = {{.name = "twice", .run = run_twice}, {.name = 0}};
