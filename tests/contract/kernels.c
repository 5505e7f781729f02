/*
 * The suite's kernels in the languages of the drivers: OpenCL C text, Metal's (kernels.metal), and
 * C functions for the host driver.
 */
#include "contract.h"

#include <time.h>

static const char opencl_text[] =
    "__kernel void scale_add(__global const float *x, __global float *y, float a)\n"
    "{\n"
    "    size_t i = get_global_id(0);\n"
    "    y[i] = a * x[i] + y[i];\n"
    "}\n"
    "__kernel void copy_bytes(__global const uchar *from, __global uchar *to)\n"
    "{\n"
    "    size_t i = get_global_id(0);\n"
    "    to[i] = from[i];\n"
    "}\n"
    "__kernel void grid_index(__global uint *out)\n"
    "{\n"
    "    size_t i = (get_global_id(2) * get_global_size(1) + get_global_id(1)) *\n"
    "               get_global_size(0) + get_global_id(0);\n"
    "    out[i] += (uint)i;\n"
    "}\n"
    "__kernel void slow(__global uint *out, uint rounds)\n"
    "{\n"
    "    uint x = rounds | 1u;\n"
    "    for (uint i = 0; i < rounds; i++) {\n"
    "        x ^= x << 13;\n"
    "        x ^= x >> 17;\n"
    "        x ^= x << 5;\n"
    "    }\n"
    "    out[0] = x != 0u ? 1u : 2u;\n"
    "}\n";

static void host_scale_add(void *const *args, const size_t global[3])
{
    const float *x = args[0];
    float *y = args[1];
    float a;
    memcpy(&a, args[2], sizeof a);
    for (size_t i = 0; i < global[0]; i++) {
        y[i] = a * x[i] + y[i];
    }
}

static void host_copy_bytes(void *const *args, const size_t global[3])
{
    memmove(args[1], args[0], global[0]);
}

static void host_grid_index(void *const *args, const size_t global[3])
{
    uint32_t *out = args[0];
    for (size_t i = 0; i < global[0] * global[1] * global[2]; i++) {
        out[i] += (uint32_t)i;
    }
}

static void host_slow(void *const *args, const size_t global[3])
{
    (void)global;
    uint32_t *out = args[0];
    const struct timespec pause = {.tv_nsec = 50000000};
    (void)nanosleep(&pause, NULL);
    out[0] = 1;
}

static const umo_host_kernel host_kernels[] = {
    {"scale_add", host_scale_add},
    {"copy_bytes", host_copy_bytes},
    {"grid_index", host_grid_index},
    {"slow", host_slow},
    {NULL, NULL},
};

static const umo_program_source host_program = {.kind = UMO_PROGRAM_HOST, .text = host_kernels};
static const umo_program_source opencl_program = {
    .kind = UMO_PROGRAM_SOURCE,
    .text = opencl_text,
    .size_bytes = sizeof opencl_text - 1,
    .options = "-cl-std=CL1.2",
};

/* Made by the build from kernels.metal. */
extern const char contract_metal_text[];
extern const size_t contract_metal_text_bytes;

const umo_program_source *contract_program(void)
{
    static umo_program_source metal_program = {.kind = UMO_PROGRAM_SOURCE};
    switch (contract_the_run.language) {
    case UMO_LANGUAGE_HOST:
        return &host_program;
    case UMO_LANGUAGE_METAL:
        metal_program.text = contract_metal_text;
        metal_program.size_bytes = contract_metal_text_bytes;
        return &metal_program;
    case UMO_LANGUAGE_OPENCL_C:
    case UMO_LANGUAGE_CUDA:
        break;
    }
    return &opencl_program;
}
