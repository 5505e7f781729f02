/*
 * Every OpenCL call that moves bytes, once, in known amounts, on any platform. Built twice: linked
 * with the ICD loader, and (SPY_CL_TABLE) with a table of entry points taken at run time, as umo's
 * own driver does it.
 */
#define CL_TARGET_OPENCL_VERSION 200
#include <CL/cl.h>

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef SPY_CL_TABLE
static void *loader;
#define CALL(name) ((__typeof__(&name))(uintptr_t)entry(#name))
static void *entry(const char *name)
{
    loader = loader != NULL ? loader : dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    return loader == NULL ? NULL : dlsym(loader, name);
}
#else
#define CALL(name) name
#endif

__attribute__((visibility("default"))) int cl_run(const char *how);

enum {
    BLOCK_BYTES = 1 << 20
};
static char host[2 * BLOCK_BYTES];

#define TRY(call)                                                                                  \
    do {                                                                                           \
        cl_int try_status = (call);                                                                \
        if (try_status != CL_SUCCESS) {                                                            \
            fprintf(stderr, "%s: %d\n", #call, try_status);                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int cl_run(const char *how)
{
    cl_platform_id platform = NULL;
    cl_device_id device = NULL;
    cl_int status = CL_SUCCESS;
    cl_uint count = 0;
    (void)how;
#ifdef SPY_CL_TABLE
    if (entry("clGetPlatformIDs") == NULL) {
        return 77;
    }
#endif
    if (CALL(clGetPlatformIDs)(1, &platform, &count) != CL_SUCCESS || count == 0 ||
        CALL(clGetDeviceIDs)(platform, CL_DEVICE_TYPE_ALL, 1, &device, &count) != CL_SUCCESS) {
        return 77;
    }
    cl_context context = CALL(clCreateContext)(NULL, 1, &device, NULL, NULL, &status);
    TRY(status);
    cl_command_queue queue =
        CALL(clCreateCommandQueueWithProperties)(context, device, NULL, &status);
    TRY(status);
    cl_mem a = CALL(clCreateBuffer)(context, CL_MEM_READ_WRITE, BLOCK_BYTES, NULL, &status);
    TRY(status);
    cl_mem b = CALL(clCreateBuffer)(context, CL_MEM_READ_WRITE, BLOCK_BYTES, NULL, &status);
    TRY(status);
    cl_mem c = CALL(clCreateBuffer)(context, CL_MEM_COPY_HOST_PTR, 500000, host, &status);
    TRY(status);
    host[0] = 42;
    TRY(CALL(clEnqueueWriteBuffer)(queue, a, CL_TRUE, 0, 1000000, host, 0, NULL, NULL));
    TRY(CALL(clEnqueueCopyBuffer)(queue, a, b, 0, 0, 900000, 0, NULL, NULL));
    TRY(CALL(clEnqueueReadBuffer)(queue, b, CL_TRUE, 0, 800000, host + BLOCK_BYTES, 0, NULL, NULL));
    if (host[BLOCK_BYTES] != 42) {
        fprintf(stderr, "the copies do not arrive\n");
        return 1;
    }
    char zero = 0;
    TRY(CALL(clEnqueueFillBuffer)(queue, b, &zero, 1, 0, 700000, 0, NULL, NULL));
    size_t origin[3] = {0, 0, 0};
    size_t region[3] = {100, 200, 3};
    TRY(CALL(clEnqueueWriteBufferRect)(queue, a, CL_TRUE, origin, origin, region, 0, 0, 0, 0, host,
                                       0, NULL, NULL));
    void *mapped =
        CALL(clEnqueueMapBuffer)(queue, a, CL_TRUE, CL_MAP_READ, 0, 600000, 0, NULL, NULL, &status);
    TRY(status);
    TRY(CALL(clEnqueueUnmapMemObject)(queue, a, mapped, 0, NULL, NULL));
    TRY(CALL(clFinish)(queue));
    TRY(CALL(clReleaseMemObject)(a));
    TRY(CALL(clReleaseMemObject)(b));
    TRY(CALL(clReleaseMemObject)(c));
    TRY(CALL(clReleaseCommandQueue)(queue));
    TRY(CALL(clReleaseContext)(context));
    return 0;
}
