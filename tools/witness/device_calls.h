/*
 * The device calls that move bytes, one row each; device_hooks.c makes a counting hook of every
 * row.
 *
 * X(library, result, name, parameters, arguments, counts when, kind, bytes, result if there is no
 * such library)
 *
 * No vendor's header is needed: handles are pointers, enumerations are 32 bits, as the three ABIs
 * fix them. Bytes are counted when the copy is asked for, also where it runs later. Left out:
 * images and arrays, cudaMemcpy3D, copies inside captured graphs, the legacy CUDA entry points for
 * 32-bit device pointers.
 */
#ifndef UMO_SPY_DEVICE_CALLS_H
#define UMO_SPY_DEVICE_CALLS_H

#include <stddef.h>
#include <stdint.h>

#define CL_WAIT_PARAMETERS uint32_t wait_count, const void *waits, void *event
#define CL_WAIT wait_count, waits, event
#define CL_LINK_ERROR (-59) /* CL_INVALID_OPERATION */
#define CL_COPY_HOST_POINTER (UINT64_C(1) << 5)
#define CUDA_LINK_ERROR 999 /* unknown error, in the driver and the run-time library alike */

#define UMO_SPY_OPENCL_CALLS(X)                                                                    \
    X(OPENCL, void *, clCreateBuffer,                                                              \
      (void *context, uint64_t flags, size_t size, void *host, int32_t *error),                    \
      (context, flags, size, host, error), (flags & CL_COPY_HOST_POINTER) != 0, DEVICE_WRITE,      \
      size, NULL)                                                                                  \
    X(OPENCL, void *, clCreateBufferWithProperties,                                                \
      (void *context, const void *properties, uint64_t flags, size_t size, void *host,             \
       int32_t *error),                                                                            \
      (context, properties, flags, size, host, error), (flags & CL_COPY_HOST_POINTER) != 0,        \
      DEVICE_WRITE, size, NULL)                                                                    \
    X(OPENCL, int32_t, clEnqueueWriteBuffer,                                                       \
      (void *queue, void *buffer, uint32_t blocking, size_t offset, size_t size, const void *host, \
       CL_WAIT_PARAMETERS),                                                                        \
      (queue, buffer, blocking, offset, size, host, CL_WAIT), true, DEVICE_WRITE, size,            \
      CL_LINK_ERROR)                                                                               \
    X(OPENCL, int32_t, clEnqueueReadBuffer,                                                        \
      (void *queue, void *buffer, uint32_t blocking, size_t offset, size_t size, void *host,       \
       CL_WAIT_PARAMETERS),                                                                        \
      (queue, buffer, blocking, offset, size, host, CL_WAIT), true, DEVICE_READ, size,             \
      CL_LINK_ERROR)                                                                               \
    X(OPENCL, int32_t, clEnqueueCopyBuffer,                                                        \
      (void *queue, void *from, void *to, size_t from_offset, size_t to_offset, size_t size,       \
       CL_WAIT_PARAMETERS),                                                                        \
      (queue, from, to, from_offset, to_offset, size, CL_WAIT), true, DEVICE_COPY, size,           \
      CL_LINK_ERROR)                                                                               \
    X(OPENCL, int32_t, clEnqueueWriteBufferRect,                                                   \
      (void *queue, void *buffer, uint32_t blocking, const size_t *origin,                         \
       const size_t *host_origin, const size_t *region, size_t row, size_t slice, size_t host_row, \
       size_t host_slice, const void *host, CL_WAIT_PARAMETERS),                                   \
      (queue, buffer, blocking, origin, host_origin, region, row, slice, host_row, host_slice,     \
       host, CL_WAIT),                                                                             \
      region != NULL, DEVICE_WRITE, region[0] * region[1] * region[2], CL_LINK_ERROR)              \
    X(OPENCL, int32_t, clEnqueueReadBufferRect,                                                    \
      (void *queue, void *buffer, uint32_t blocking, const size_t *origin,                         \
       const size_t *host_origin, const size_t *region, size_t row, size_t slice, size_t host_row, \
       size_t host_slice, void *host, CL_WAIT_PARAMETERS),                                         \
      (queue, buffer, blocking, origin, host_origin, region, row, slice, host_row, host_slice,     \
       host, CL_WAIT),                                                                             \
      region != NULL, DEVICE_READ, region[0] * region[1] * region[2], CL_LINK_ERROR)               \
    X(OPENCL, int32_t, clEnqueueCopyBufferRect,                                                    \
      (void *queue, void *from, void *to, const size_t *from_origin, const size_t *to_origin,      \
       const size_t *region, size_t from_row, size_t from_slice, size_t to_row, size_t to_slice,   \
       CL_WAIT_PARAMETERS),                                                                        \
      (queue, from, to, from_origin, to_origin, region, from_row, from_slice, to_row, to_slice,    \
       CL_WAIT),                                                                                   \
      region != NULL, DEVICE_COPY, region[0] * region[1] * region[2], CL_LINK_ERROR)               \
    X(OPENCL, int32_t, clEnqueueFillBuffer,                                                        \
      (void *queue, void *buffer, const void *pattern, size_t pattern_size, size_t offset,         \
       size_t size, CL_WAIT_PARAMETERS),                                                           \
      (queue, buffer, pattern, pattern_size, offset, size, CL_WAIT), true, DEVICE_FILL, size,      \
      CL_LINK_ERROR)                                                                               \
    X(OPENCL, void *, clEnqueueMapBuffer,                                                          \
      (void *queue, void *buffer, uint32_t blocking, uint64_t flags, size_t offset, size_t size,   \
       CL_WAIT_PARAMETERS, int32_t *error),                                                        \
      (queue, buffer, blocking, flags, offset, size, CL_WAIT, error), true, DEVICE_MAP, size,      \
      NULL)                                                                                        \
    X(OPENCL, int32_t, clEnqueueUnmapMemObject,                                                    \
      (void *queue, void *object, void *mapped, CL_WAIT_PARAMETERS),                               \
      (queue, object, mapped, CL_WAIT), true, DEVICE_UNMAP, 0, CL_LINK_ERROR)                      \
    X(OPENCL, int32_t, clEnqueueSVMMemcpy,                                                         \
      (void *queue, uint32_t blocking, void *to, const void *from, size_t size,                    \
       CL_WAIT_PARAMETERS),                                                                        \
      (queue, blocking, to, from, size, CL_WAIT), true, DEVICE_ANY, size, CL_LINK_ERROR)           \
    X(OPENCL, int32_t, clEnqueueSVMMemFill,                                                        \
      (void *queue, void *to, const void *pattern, size_t pattern_size, size_t size,               \
       CL_WAIT_PARAMETERS),                                                                        \
      (queue, to, pattern, pattern_size, size, CL_WAIT), true, DEVICE_FILL, size, CL_LINK_ERROR)   \
    X(OPENCL, int32_t, clEnqueueSVMMap,                                                            \
      (void *queue, uint32_t blocking, uint64_t flags, void *at, size_t size, CL_WAIT_PARAMETERS), \
      (queue, blocking, flags, at, size, CL_WAIT), true, DEVICE_MAP, size, CL_LINK_ERROR)          \
    X(OPENCL, int32_t, clEnqueueSVMUnmap, (void *queue, void *at, CL_WAIT_PARAMETERS),             \
      (queue, at, CL_WAIT), true, DEVICE_UNMAP, 0, CL_LINK_ERROR)

/* The driver's device pointers are 64-bit numbers; `words` of the 2D and 3D calls is the v2
 * parameter structure. */
#define CUDA_DRIVER_LINEAR(X, name)                                                                \
    X(CUDA, int, name, (uint64_t to, uint64_t from, size_t size), (to, from, size), true,          \
      DEVICE_ANY, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_LINEAR_ASYNC(X, name)                                                          \
    X(CUDA, int, name, (uint64_t to, uint64_t from, size_t size, void *stream),                    \
      (to, from, size, stream), true, DEVICE_ANY, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_WRITE(X, name)                                                                 \
    X(CUDA, int, name, (uint64_t to, const void *from, size_t size), (to, from, size), true,       \
      DEVICE_WRITE, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_WRITE_ASYNC(X, name)                                                           \
    X(CUDA, int, name, (uint64_t to, const void *from, size_t size, void *stream),                 \
      (to, from, size, stream), true, DEVICE_WRITE, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_READ(X, name)                                                                  \
    X(CUDA, int, name, (void *to, uint64_t from, size_t size), (to, from, size), true,             \
      DEVICE_READ, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_READ_ASYNC(X, name)                                                            \
    X(CUDA, int, name, (void *to, uint64_t from, size_t size, void *stream),                       \
      (to, from, size, stream), true, DEVICE_READ, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_DEVICE(X, name)                                                                \
    X(CUDA, int, name, (uint64_t to, uint64_t from, size_t size), (to, from, size), true,          \
      DEVICE_COPY, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_DEVICE_ASYNC(X, name)                                                          \
    X(CUDA, int, name, (uint64_t to, uint64_t from, size_t size, void *stream),                    \
      (to, from, size, stream), true, DEVICE_COPY, size, CUDA_LINK_ERROR)
#define CUDA_DRIVER_2D(X, name)                                                                    \
    X(CUDA, int, name, (const size_t *words), (words), words != NULL, DEVICE_ANY,                  \
      words[14] * words[15], CUDA_LINK_ERROR)
#define CUDA_DRIVER_2D_ASYNC(X, name)                                                              \
    X(CUDA, int, name, (const size_t *words, void *stream), (words, stream), words != NULL,        \
      DEVICE_ANY, words[14] * words[15], CUDA_LINK_ERROR)
#define CUDA_DRIVER_3D(X, name)                                                                    \
    X(CUDA, int, name, (const size_t *words), (words), words != NULL, DEVICE_ANY,                  \
      words[22] * words[23] * words[24], CUDA_LINK_ERROR)
#define CUDA_DRIVER_3D_ASYNC(X, name)                                                              \
    X(CUDA, int, name, (const size_t *words, void *stream), (words, stream), words != NULL,        \
      DEVICE_ANY, words[22] * words[23] * words[24], CUDA_LINK_ERROR)

/* Each call has a second entry point for programs built with a default stream per thread. */
#define UMO_SPY_CUDA_CALLS(X)                                                                      \
    CUDA_DRIVER_LINEAR(X, cuMemcpy)                                                                \
    CUDA_DRIVER_LINEAR(X, cuMemcpy_ptds)                                                           \
    CUDA_DRIVER_LINEAR_ASYNC(X, cuMemcpyAsync)                                                     \
    CUDA_DRIVER_LINEAR_ASYNC(X, cuMemcpyAsync_ptsz)                                                \
    CUDA_DRIVER_WRITE(X, cuMemcpyHtoD_v2)                                                          \
    CUDA_DRIVER_WRITE(X, cuMemcpyHtoD_v2_ptds)                                                     \
    CUDA_DRIVER_WRITE_ASYNC(X, cuMemcpyHtoDAsync_v2)                                               \
    CUDA_DRIVER_WRITE_ASYNC(X, cuMemcpyHtoDAsync_v2_ptsz)                                          \
    CUDA_DRIVER_READ(X, cuMemcpyDtoH_v2)                                                           \
    CUDA_DRIVER_READ(X, cuMemcpyDtoH_v2_ptds)                                                      \
    CUDA_DRIVER_READ_ASYNC(X, cuMemcpyDtoHAsync_v2)                                                \
    CUDA_DRIVER_READ_ASYNC(X, cuMemcpyDtoHAsync_v2_ptsz)                                           \
    CUDA_DRIVER_DEVICE(X, cuMemcpyDtoD_v2)                                                         \
    CUDA_DRIVER_DEVICE(X, cuMemcpyDtoD_v2_ptds)                                                    \
    CUDA_DRIVER_DEVICE_ASYNC(X, cuMemcpyDtoDAsync_v2)                                              \
    CUDA_DRIVER_DEVICE_ASYNC(X, cuMemcpyDtoDAsync_v2_ptsz)                                         \
    CUDA_DRIVER_2D(X, cuMemcpy2D_v2)                                                               \
    CUDA_DRIVER_2D(X, cuMemcpy2D_v2_ptds)                                                          \
    CUDA_DRIVER_2D(X, cuMemcpy2DUnaligned_v2)                                                      \
    CUDA_DRIVER_2D(X, cuMemcpy2DUnaligned_v2_ptds)                                                 \
    CUDA_DRIVER_2D_ASYNC(X, cuMemcpy2DAsync_v2)                                                    \
    CUDA_DRIVER_2D_ASYNC(X, cuMemcpy2DAsync_v2_ptsz)                                               \
    CUDA_DRIVER_3D(X, cuMemcpy3D_v2)                                                               \
    CUDA_DRIVER_3D(X, cuMemcpy3D_v2_ptds)                                                          \
    CUDA_DRIVER_3D_ASYNC(X, cuMemcpy3DAsync_v2)                                                    \
    CUDA_DRIVER_3D_ASYNC(X, cuMemcpy3DAsync_v2_ptsz)

/* cudaMemcpyKind: 1 to the device, 2 from it, 3 within it; else by address. */
#define CUDA_KIND                                                                                  \
    (kind == 1 ? UMO_SPY_DEVICE_WRITE                                                              \
               : (kind == 2 ? UMO_SPY_DEVICE_READ                                                  \
                            : (kind == 3 ? UMO_SPY_DEVICE_COPY : UMO_SPY_DEVICE_ANY)))
#define CUDA_RUNTIME_LINEAR(X, name)                                                               \
    X(CUDART, int, name, (void *to, const void *from, size_t size, int kind),                      \
      (to, from, size, kind), true, BY_KIND, size, CUDA_LINK_ERROR)
#define CUDA_RUNTIME_LINEAR_ASYNC(X, name)                                                         \
    X(CUDART, int, name, (void *to, const void *from, size_t size, int kind, void *stream),        \
      (to, from, size, kind, stream), true, BY_KIND, size, CUDA_LINK_ERROR)
#define CUDA_RUNTIME_2D(X, name)                                                                   \
    X(CUDART, int, name,                                                                           \
      (void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,               \
       size_t height, int kind),                                                                   \
      (to, to_pitch, from, from_pitch, width, height, kind), true, BY_KIND, width *height,         \
      CUDA_LINK_ERROR)
#define CUDA_RUNTIME_2D_ASYNC(X, name)                                                             \
    X(CUDART, int, name,                                                                           \
      (void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,               \
       size_t height, int kind, void *stream),                                                     \
      (to, to_pitch, from, from_pitch, width, height, kind, stream), true, BY_KIND, width *height, \
      CUDA_LINK_ERROR)

#define UMO_SPY_CUDART_CALLS(X)                                                                    \
    CUDA_RUNTIME_LINEAR(X, cudaMemcpy)                                                             \
    CUDA_RUNTIME_LINEAR(X, cudaMemcpy_ptds)                                                        \
    CUDA_RUNTIME_LINEAR_ASYNC(X, cudaMemcpyAsync)                                                  \
    CUDA_RUNTIME_LINEAR_ASYNC(X, cudaMemcpyAsync_ptsz)                                             \
    CUDA_RUNTIME_2D(X, cudaMemcpy2D)                                                               \
    CUDA_RUNTIME_2D(X, cudaMemcpy2D_ptds)                                                          \
    CUDA_RUNTIME_2D_ASYNC(X, cudaMemcpy2DAsync)                                                    \
    CUDA_RUNTIME_2D_ASYNC(X, cudaMemcpy2DAsync_ptsz)                                               \
    X(CUDART, int, cudaMemcpyPeer,                                                                 \
      (void *to, int to_device, const void *from, int from_device, size_t size),                   \
      (to, to_device, from, from_device, size), true, DEVICE_COPY, size, CUDA_LINK_ERROR)          \
    X(CUDART, int, cudaMemcpyPeerAsync,                                                            \
      (void *to, int to_device, const void *from, int from_device, size_t size, void *stream),     \
      (to, to_device, from, from_device, size, stream), true, DEVICE_COPY, size, CUDA_LINK_ERROR)  \
    X(CUDART, int, cudaMemset, (void *to, int value, size_t size), (to, value, size), true,        \
      DEVICE_FILL, size, CUDA_LINK_ERROR)                                                          \
    X(CUDART, int, cudaMemsetAsync, (void *to, int value, size_t size, void *stream),              \
      (to, value, size, stream), true, DEVICE_FILL, size, CUDA_LINK_ERROR)

#define UMO_SPY_DEVICE_CALLS(X)                                                                    \
    UMO_SPY_OPENCL_CALLS(X)                                                                        \
    UMO_SPY_CUDA_CALLS(X)                                                                          \
    UMO_SPY_CUDART_CALLS(X)

#endif
