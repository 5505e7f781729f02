/*
 * The OpenCL entry points, taken at run time: libumo does not link to a loader, so one binary
 * serves machines with and without OpenCL. Only calls of OpenCL 1.2 are used, which every loader
 * and every device of today has; the types come from the system's <CL/cl.h>. Tests put a table of
 * their own in place.
 */
#ifndef UMO_DRIVER_OPENCL_API_H
#define UMO_DRIVER_OPENCL_API_H

#include <umo/status.h>

#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

/* One row per call. clCreateCommandQueue is deprecated in 2.0 and, unlike its successor, present
 * everywhere. */
#define UMO_OPENCL_CALLS(CALL)                                                                     \
    CALL(clGetPlatformIDs)                                                                         \
    CALL(clGetPlatformInfo)                                                                        \
    CALL(clGetDeviceIDs)                                                                           \
    CALL(clGetDeviceInfo)                                                                          \
    CALL(clCreateContext)                                                                          \
    CALL(clReleaseContext)                                                                         \
    CALL(clCreateCommandQueue)                                                                     \
    CALL(clReleaseCommandQueue)                                                                    \
    CALL(clCreateBuffer)                                                                           \
    CALL(clCreateSubBuffer)                                                                        \
    CALL(clReleaseMemObject)                                                                       \
    CALL(clCreateProgramWithSource)                                                                \
    CALL(clBuildProgram)                                                                           \
    CALL(clGetProgramBuildInfo)                                                                    \
    CALL(clReleaseProgram)                                                                         \
    CALL(clCreateKernel)                                                                           \
    CALL(clReleaseKernel)                                                                          \
    CALL(clGetKernelInfo)                                                                          \
    CALL(clGetKernelArgInfo)                                                                       \
    CALL(clSetKernelArg)                                                                           \
    CALL(clEnqueueNDRangeKernel)                                                                   \
    CALL(clEnqueueReadBuffer)                                                                      \
    CALL(clEnqueueWriteBuffer)                                                                     \
    CALL(clEnqueueCopyBuffer)                                                                      \
    CALL(clEnqueueFillBuffer)                                                                      \
    CALL(clEnqueueMapBuffer)                                                                       \
    CALL(clEnqueueUnmapMemObject)                                                                  \
    CALL(clEnqueueMarkerWithWaitList)                                                              \
    CALL(clFlush)                                                                                  \
    CALL(clFinish)                                                                                 \
    CALL(clWaitForEvents)                                                                          \
    CALL(clGetEventInfo)                                                                           \
    CALL(clRetainEvent)                                                                            \
    CALL(clReleaseEvent)

typedef struct umo_opencl_api {
#define UMO_OPENCL_FIELD(name) __typeof__(&name) name;
    UMO_OPENCL_CALLS(UMO_OPENCL_FIELD)
#undef UMO_OPENCL_FIELD
} umo_opencl_api;

/* Fills a table from the first library of a NULL-terminated list that loads. NOT_FOUND says what to
 * install. */
umo_status umo_opencl_api_load(const char *const *libraries, umo_opencl_api *out, umo_error *error);

/* The process's table: loaded at the first success, then kept, since runtimes do not survive being
 * unloaded. */
umo_status umo_opencl_api_get(const umo_opencl_api **out, umo_error *error);

/* Tests: the table that umo_opencl_api_get() gives from now on; NULL for the system's again. */
void umo_opencl_api_replace(const umo_opencl_api *api);

#endif
