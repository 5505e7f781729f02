/*
 * The OpenCL driver: devices, memory and its movement.
 *
 * UNIFIED memory is our own pages under CL_MEM_USE_HOST_PTR. MANAGED has two copies, our pages and
 * a device buffer, since OpenCL 1.2 has no memory that migrates by itself; transfer keeps them in
 * step.
 */
#include "driver/drivers.h"
#include "driver/opencl/opencl_state.h"

#include "base/size.h"
#include "os/os.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PLATFORMS_MAX 16u
#define DEVICES_MAX 64u

/* One device as found, in the order of ordinals. */
typedef struct found_device {
    cl_platform_id platform;
    cl_device_id device;
} found_device;

typedef struct named_platform {
    cl_platform_id id;
    char name[128];
} named_platform;

/* ---- finding devices ---- */

static umo_status platforms_find(const umo_opencl_api *api, named_platform *out, cl_uint *out_count,
                                 umo_error *error)
{
    cl_platform_id ids[PLATFORMS_MAX];
    cl_uint count = 0;
    cl_int code = api->clGetPlatformIDs(PLATFORMS_MAX, ids, &count);
    if (code == CL_OUT_OF_HOST_MEMORY) {
        return umo_error_set(error, UMO_E_NOMEM, code, "no memory to list OpenCL platforms");
    }
    /* A loader without platforms answers with a code of its own extension, so any other failure
     * means none. */
    if (code != CL_SUCCESS || count == 0) {
        return umo_error_set(error, UMO_E_NOT_FOUND, code,
                             "OpenCL has no platform: on Debian install pocl-opencl-icd (any CPU) "
                             "or your GPU vendor's ICD");
    }
    count = count < PLATFORMS_MAX ? count : PLATFORMS_MAX;
    for (cl_uint i = 0; i < count; i++) {
        named_platform platform = {.id = ids[i]};
        if (api->clGetPlatformInfo(ids[i], CL_PLATFORM_NAME, sizeof platform.name - 1,
                                   platform.name, NULL) != CL_SUCCESS) {
            platform.name[0] = '\0';
        }
        /* By name: loaders list platforms in the order of a directory, or of their devices. */
        cl_uint at = i;
        for (; at > 0 && strcmp(out[at - 1].name, platform.name) > 0; at--) {
            out[at] = out[at - 1];
        }
        out[at] = platform;
    }
    *out_count = count;
    return UMO_OK;
}

static umo_status devices_find(const umo_opencl_api *api, found_device out[DEVICES_MAX],
                               uint32_t *out_count, umo_error *error)
{
    named_platform platforms[PLATFORMS_MAX];
    cl_uint platform_count = 0;
    umo_status status = platforms_find(api, platforms, &platform_count, error);
    if (status != UMO_OK) {
        return status;
    }
    uint32_t total = 0;
    cl_int failed = CL_SUCCESS;
    for (cl_uint p = 0; p < platform_count && total < DEVICES_MAX; p++) {
        cl_device_id devices[DEVICES_MAX];
        cl_uint count = 0;
        cl_uint room = DEVICES_MAX - total;
        cl_int code =
            api->clGetDeviceIDs(platforms[p].id, CL_DEVICE_TYPE_ALL, room, devices, &count);
        if (code != CL_SUCCESS) {
            /* One vendor's broken runtime does not hide the devices of the others. */
            failed = code == CL_DEVICE_NOT_FOUND ? failed : code;
            continue;
        }
        count = count < room ? count : room;
        for (cl_uint d = 0; d < count; d++) {
            out[total++] = (found_device){.platform = platforms[p].id, .device = devices[d]};
        }
    }
    if (total == 0 && failed != CL_SUCCESS) {
        return umo_error_set(error, UMO_E_DEVICE, failed, "listing OpenCL devices failed: %s (%d)",
                             umo_opencl_code_name(failed), failed);
    }
    if (total == 0) {
        return umo_error_set(error, UMO_E_NOT_FOUND, CL_DEVICE_NOT_FOUND,
                             "OpenCL platform '%s' has no device: on Debian install "
                             "pocl-opencl-icd (any CPU) or your GPU vendor's ICD",
                             platforms[0].name);
    }
    *out_count = total;
    return UMO_OK;
}

/* Some platforms start up in the first listing, and two threads at once break them (PoCL 3.1). */
static umo_status devices_list(const umo_opencl_api *api, found_device out[DEVICES_MAX],
                               uint32_t *out_count, umo_error *error)
{
    static pthread_mutex_t first_use = PTHREAD_MUTEX_INITIALIZER;
    (void)pthread_mutex_lock(&first_use);
    umo_status status = devices_find(api, out, out_count, error);
    (void)pthread_mutex_unlock(&first_use);
    return status;
}

static umo_status opencl_count(uint32_t *out, umo_error *error)
{
    const umo_opencl_api *api = NULL;
    found_device found[DEVICES_MAX];
    umo_status status = umo_opencl_api_get(&api, error);
    return status == UMO_OK ? devices_list(api, found, out, error) : status;
}

static void opencl_close(void *opaque)
{
    umo_opencl_state *state = opaque;
    if (state == NULL) {
        return;
    }
    for (uint32_t q = 0; q < state->queue_count; q++) {
        umo_opencl_queue_finish(&state->queues[q]);
    }
    if (state->context != NULL) {
        (void)state->api->clReleaseContext(state->context);
    }
    free(state);
}

static umo_status opencl_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                              umo_device_info *out_info, umo_error *error)
{
    (void)options;
    const umo_opencl_api *api = NULL;
    found_device found[DEVICES_MAX];
    uint32_t count = 0;
    umo_status status = umo_opencl_api_get(&api, error);
    if (status == UMO_OK) {
        status = devices_list(api, found, &count, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (ordinal >= count) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "OpenCL has %u device(s), no number %u",
                             count, ordinal);
    }
    umo_opencl_state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an OpenCL device");
    }
    state->api = api;
    state->platform = found[ordinal].platform;
    state->device = found[ordinal].device;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM,
                                                (cl_context_properties)state->platform, 0};
    cl_int code = CL_SUCCESS;
    state->context = api->clCreateContext(properties, 1, &state->device, NULL, NULL, &code);
    if (state->context == NULL) {
        status = umo_error_set(error, umo_opencl_code_status(code), code,
                               "no context on OpenCL device %u: %s (%d)", ordinal,
                               umo_opencl_code_name(code), code);
        goto fail;
    }
    for (uint32_t q = 0; q < UMO_OPENCL_QUEUES; q++) {
        status = umo_opencl_queue_init(&state->queues[q], state, q, error);
        if (status != UMO_OK) {
            goto fail;
        }
        state->queue_count++;
    }
    status = umo_opencl_facts_read(state, out_info, error);
    if (status != UMO_OK) {
        goto fail;
    }
    *out_state = state;
    return UMO_OK;

fail:
    opencl_close(state);
    return status;
}

/* ---- memory ---- */

static umo_status alloc_failed(umo_error *error, size_t size_bytes, cl_int code)
{
    umo_status status = code == CL_OUT_OF_RESOURCES ? UMO_E_NOMEM : umo_opencl_code_status(code);
    return umo_error_set(error, status, code, "no OpenCL buffer of %zu bytes: %s (%d)", size_bytes,
                         umo_opencl_code_name(code), code);
}

static umo_status opencl_alloc(void *opaque, size_t size_bytes, umo_storage_mode mode,
                               umo_memory *out, umo_error *error)
{
    umo_opencl_state *state = opaque;
    const uint32_t needed = mode == UMO_UNIFIED   ? UMO_CAP_UNIFIED
                            : mode == UMO_MANAGED ? UMO_CAP_MANAGED
                                                  : UMO_CAP_PRIVATE;
    if ((state->caps & needed) == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "this OpenCL device has a memory of its own: no unified storage");
    }
    if (size_bytes == 0 || size_bytes > state->buffer_max_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a buffer of this OpenCL device has 1 to %llu bytes, not %zu",
                             (unsigned long long)state->buffer_max_bytes, size_bytes);
    }
    /* UNIFIED memory is fresh pages of the system; what a device's own memory holds nobody says. */
    umo_memory made = {.size_bytes = size_bytes, .mode = mode, .cleared = mode == UMO_UNIFIED};
    size_t native_bytes = size_bytes;
    cl_mem_flags flags = CL_MEM_READ_WRITE;
    if (mode != UMO_PRIVATE) {
        made.host = umo_os_pages_alloc(size_bytes);
        if (made.host == NULL) {
            return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for %zu bytes", size_bytes);
        }
    }
    if (mode == UMO_UNIFIED) {
        flags |= CL_MEM_USE_HOST_PTR;
        /* Whole lines where devices want them: the pages behind the bytes are ours. */
        if (!umo_round_up(size_bytes, UMO_OPENCL_LINE_BYTES, &native_bytes) ||
            native_bytes > state->buffer_max_bytes) {
            native_bytes = size_bytes;
        }
    }
    umo_status status = UMO_OK;
    cl_int code = CL_SUCCESS;
    made.native = state->api->clCreateBuffer(state->context, flags, native_bytes,
                                             mode == UMO_UNIFIED ? made.host : NULL, &code);
    if (made.native == NULL) {
        status = alloc_failed(error, size_bytes, code);
        goto fail;
    }
    if (mode == UMO_UNIFIED) {
        status = umo_opencl_publish_init(state, &made, error);
        if (status != UMO_OK) {
            goto fail;
        }
    }
    *out = made;
    return UMO_OK;

fail:
    if (made.native != NULL) {
        (void)state->api->clReleaseMemObject(made.native);
    }
    umo_os_pages_free(made.host, size_bytes);
    return status;
}

static umo_status opencl_import(void *opaque, void *data, size_t size_bytes, uint32_t flags,
                                umo_memory *out, umo_reason *out_why, umo_error *error)
{
    (void)out_why;
    umo_opencl_state *state = opaque;
    if ((state->caps & UMO_CAP_IMPORT_READ) == 0) {
        return umo_error_set(error, UMO_E_REFUSED, 0,
                             "this OpenCL device has a memory of its own: nothing can be wrapped");
    }
    if ((uintptr_t)data % state->import_align_bytes != 0 || size_bytes == 0 ||
        size_bytes % state->import_size_align_bytes != 0) {
        return umo_error_set(error, UMO_E_REFUSED, 0,
                             "this OpenCL device wraps memory at multiples of %zu bytes, in "
                             "lengths that are multiples of %zu",
                             state->import_align_bytes, state->import_size_align_bytes);
    }
    umo_memory made = {
        .host = data, .size_bytes = size_bytes, .mode = UMO_UNIFIED, .imported = true};
    const cl_mem_flags access =
        (flags & UMO_IMPORT_WRITE) != 0 ? CL_MEM_READ_WRITE : CL_MEM_READ_ONLY;
    cl_int code = CL_SUCCESS;
    made.native = state->api->clCreateBuffer(state->context, access | CL_MEM_USE_HOST_PTR,
                                             size_bytes, data, &code);
    if (made.native == NULL) {
        umo_status status = umo_opencl_code_status(code);
        status = status == UMO_E_NOMEM ? status : UMO_E_REFUSED;
        return umo_error_set(error, status, code, "OpenCL wraps no %zu bytes here: %s (%d)",
                             size_bytes, umo_opencl_code_name(code), code);
    }
    umo_status status = umo_opencl_publish_init(state, &made, error);
    if (status != UMO_OK) {
        (void)state->api->clReleaseMemObject(made.native);
        return status;
    }
    *out = made;
    return UMO_OK;
}

/* ---- movement ---- */

static umo_status opencl_transfer(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                                  size_t offset_bytes, size_t size_bytes, void *host,
                                  const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    umo_opencl_state *state = opaque;
    if (memory->mode == UMO_UNIFIED || host == NULL || size_bytes == 0 ||
        !umo_range_fits(offset_bytes, size_bytes, memory->size_bytes)) {
        return UMO_E_INVAL;
    }
    umo_opencl_command command;
    umo_status status = umo_opencl_command_begin(state, queue, waits, wait_count, &command);
    if (status != UMO_OK) {
        return status;
    }
    cl_int code =
        to == UMO_SIDE_DEVICE
            ? state->api->clEnqueueWriteBuffer(command.queue->native, memory->native, CL_FALSE,
                                               memory->offset_bytes + offset_bytes, size_bytes,
                                               host, command.wait_count, command.waits,
                                               &command.event)
            : state->api->clEnqueueReadBuffer(command.queue->native, memory->native, CL_FALSE,
                                              memory->offset_bytes + offset_bytes, size_bytes, host,
                                              command.wait_count, command.waits, &command.event);
    return umo_opencl_command_end(&command, code, out);
}

static umo_status opencl_copy(void *opaque, uint32_t queue, const umo_memory *source,
                              size_t source_offset_bytes, umo_memory *target,
                              size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                              size_t wait_count, umo_fence *out)
{
    umo_opencl_state *state = opaque;
    if (size_bytes == 0 || !umo_range_fits(source_offset_bytes, size_bytes, source->size_bytes) ||
        !umo_range_fits(target_offset_bytes, size_bytes, target->size_bytes)) {
        return UMO_E_INVAL;
    }
    umo_opencl_command command;
    umo_status status = umo_opencl_command_begin(state, queue, waits, wait_count, &command);
    if (status != UMO_OK) {
        return status;
    }
    cl_int code = state->api->clEnqueueCopyBuffer(
        command.queue->native, source->native, target->native,
        source->offset_bytes + source_offset_bytes, target->offset_bytes + target_offset_bytes,
        size_bytes, command.wait_count, command.waits, &command.event);
    return umo_opencl_command_end(&command, code, out);
}

static void opencl_free(void *opaque, umo_memory *memory)
{
    umo_opencl_state *state = opaque;
    umo_opencl_publish_finish(state, memory);
    (void)state->api->clReleaseMemObject(memory->native);
    if (!memory->imported && memory->mode != UMO_PRIVATE) {
        umo_os_pages_free(memory->host, memory->size_bytes);
    }
}

static bool opencl_fence_done(void *opaque, uint32_t queue, uint64_t value)
{
    umo_opencl_state *state = opaque;
    return queue < UMO_OPENCL_QUEUES && umo_opencl_queue_done(&state->queues[queue], value);
}

static umo_status opencl_fence_wait(void *opaque, uint32_t queue, uint64_t value,
                                    uint64_t timeout_ns)
{
    umo_opencl_state *state = opaque;
    return queue < UMO_OPENCL_QUEUES
               ? umo_opencl_queue_wait(&state->queues[queue], value, timeout_ns)
               : UMO_E_INVAL;
}

const umo_driver umo_driver_opencl = {
    .abi = UMO_DRIVER_ABI,
    .size_bytes = sizeof(umo_driver),
    .name = "opencl",
    .count = opencl_count,
    .open = opencl_open,
    .close = opencl_close,
    .alloc = opencl_alloc,
    .free = opencl_free,
    .import = opencl_import,
    .transfer = opencl_transfer,
    .publish = umo_opencl_publish,
    .copy = opencl_copy,
    .fence_done = opencl_fence_done,
    .fence_wait = opencl_fence_wait,
    .program_create = umo_opencl_program_create,
    .program_destroy = umo_opencl_program_destroy,
    .kernel_create = umo_opencl_kernel_create,
    .kernel_destroy = umo_opencl_kernel_destroy,
    .kernel_launch = umo_opencl_kernel_launch,
};
