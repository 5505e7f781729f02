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

/* A range that the host has now, on a device whose UNIFIED memory needs map and unmap. */
typedef struct mapping {
    size_t offset_bytes;
    size_t size_bytes;
    void *address;
    umo_fence made;
} mapping;

/* umo_memory.driver_data where memory is published by mapping. The ranges are disjoint. */
typedef struct mappings {
    pthread_mutex_t lock;
    size_t count;
    size_t capacity;
    mapping *list;
} mappings;

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

static umo_status opencl_count(uint32_t *out, umo_error *error)
{
    const umo_opencl_api *api = NULL;
    found_device found[DEVICES_MAX];
    umo_status status = umo_opencl_api_get(&api, error);
    return status == UMO_OK ? devices_find(api, found, out, error) : status;
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
        status = devices_find(api, found, &count, error);
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

static bool publishes_by_mapping(const umo_opencl_state *state)
{
    return (state->caps & UMO_CAP_COHERENT) == 0;
}

static mappings *mappings_create(void)
{
    mappings *made = calloc(1, sizeof *made);
    if (made != NULL) {
        (void)pthread_mutex_init(&made->lock, NULL);
    }
    return made;
}

static void mappings_destroy(mappings *old)
{
    if (old != NULL) {
        (void)pthread_mutex_destroy(&old->lock);
        free(old->list);
        free(old);
    }
}

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
    umo_memory made = {.size_bytes = size_bytes, .mode = mode};
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
    if (mode == UMO_UNIFIED && publishes_by_mapping(state)) {
        made.driver_data = mappings_create();
        if (made.driver_data == NULL) {
            status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a buffer");
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
                                umo_memory *out, umo_error *error)
{
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
    if (publishes_by_mapping(state)) {
        made.driver_data = mappings_create();
        if (made.driver_data == NULL) {
            return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an import");
        }
    }
    const cl_mem_flags access =
        (flags & UMO_IMPORT_WRITE) != 0 ? CL_MEM_READ_WRITE : CL_MEM_READ_ONLY;
    cl_int code = CL_SUCCESS;
    made.native = state->api->clCreateBuffer(state->context, access | CL_MEM_USE_HOST_PTR,
                                             size_bytes, data, &code);
    if (made.native == NULL) {
        mappings_destroy(made.driver_data);
        umo_status status = umo_opencl_code_status(code);
        status = status == UMO_E_NOMEM ? status : UMO_E_REFUSED;
        return umo_error_set(error, status, code, "OpenCL wraps no %zu bytes here: %s (%d)",
                             size_bytes, umo_opencl_code_name(code), code);
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

/* ---- publishing by map and unmap ----
 *
 * The ranges that the host has are exactly those that are mapped. Giving a range to the host maps
 * what of it is not mapped yet; giving it to the device unmaps every mapping that it meets and maps
 * again what of those lies outside, because another bracket may still use it there. All mappings
 * are for reading and writing: on shared memory the difference is free, and a range that was mapped
 * to be read may be written next.
 */

/* A list of waits on its way through several commands: the first command takes them all. */
typedef struct step {
    umo_opencl_state *state;
    uint32_t queue;
    umo_memory *memory;
    umo_fence waits[UMO_WAITS_MAX];
    size_t wait_count;
    bool queued; /* done is the newest command's */
    umo_fence done;
} step;

static umo_status step_wait_for(step *s, umo_fence fence)
{
    if (s->wait_count == UMO_WAITS_MAX) {
        return umo_opencl_queue_wait(&s->state->queues[fence.queue], fence.value, UINT64_MAX);
    }
    s->waits[s->wait_count++] = fence;
    return UMO_OK;
}

static void step_queued(step *s)
{
    s->queued = true;
    s->wait_count = 0;
}

/* The list's room is made before the command, so that a mapping which exists is always known. */
static umo_status step_map(step *s, mappings *m, size_t offset_bytes, size_t size_bytes)
{
    if (m->count == m->capacity) {
        size_t capacity = m->capacity == 0 ? 4 : 2 * m->capacity;
        mapping *list = realloc(m->list, capacity * sizeof *list);
        if (list == NULL) {
            return UMO_E_NOMEM;
        }
        m->list = list;
        m->capacity = capacity;
    }
    umo_opencl_command command;
    umo_status status =
        umo_opencl_command_begin(s->state, s->queue, s->waits, s->wait_count, &command);
    if (status != UMO_OK) {
        return status;
    }
    cl_int code = CL_SUCCESS;
    void *address = s->state->api->clEnqueueMapBuffer(
        command.queue->native, s->memory->native, CL_FALSE, CL_MAP_READ | CL_MAP_WRITE,
        s->memory->offset_bytes + offset_bytes, size_bytes, command.wait_count, command.waits,
        &command.event, &code);
    status = umo_opencl_command_end(&command, code, &s->done);
    if (status == UMO_OK) {
        step_queued(s);
        m->list[m->count++] = (mapping){offset_bytes, size_bytes, address, s->done};
    }
    return status;
}

static umo_status step_unmap(step *s, mappings *m, size_t index)
{
    const mapping old = m->list[index];
    umo_status status = step_wait_for(s, old.made);
    umo_opencl_command command;
    if (status == UMO_OK) {
        status = umo_opencl_command_begin(s->state, s->queue, s->waits, s->wait_count, &command);
    }
    if (status != UMO_OK) {
        return status;
    }
    cl_int code = s->state->api->clEnqueueUnmapMemObject(command.queue->native, s->memory->native,
                                                         old.address, command.wait_count,
                                                         command.waits, &command.event);
    status = umo_opencl_command_end(&command, code, &s->done);
    if (status == UMO_OK) {
        step_queued(s);
        m->list[index] = m->list[--m->count];
    }
    return status;
}

static umo_status publish_to_host(step *s, mappings *m, size_t offset_bytes, size_t size_bytes)
{
    const size_t end = offset_bytes + size_bytes;
    umo_status status = UMO_OK;
    while (offset_bytes < end && status == UMO_OK) {
        size_t next = end; /* where the gap at offset_bytes ends */
        size_t covered = offset_bytes;
        for (size_t i = 0; i < m->count; i++) {
            const mapping *each = &m->list[i];
            size_t each_end = each->offset_bytes + each->size_bytes;
            if (each->offset_bytes <= offset_bytes && each_end > offset_bytes) {
                covered = each_end < end ? each_end : end;
                status = step_wait_for(s, each->made);
                break;
            }
            if (each->offset_bytes > offset_bytes && each->offset_bytes < next) {
                next = each->offset_bytes;
            }
        }
        if (covered == offset_bytes && status == UMO_OK) {
            status = step_map(s, m, offset_bytes, next - offset_bytes);
            covered = next;
        }
        offset_bytes = covered;
    }
    return status;
}

static umo_status publish_to_device(step *s, mappings *m, size_t offset_bytes, size_t size_bytes)
{
    const size_t end = offset_bytes + size_bytes;
    umo_status status = UMO_OK;
    for (size_t i = m->count; i-- > 0 && status == UMO_OK;) {
        const mapping old = m->list[i];
        const size_t old_end = old.offset_bytes + old.size_bytes;
        if (old.offset_bytes >= end || old_end <= offset_bytes) {
            continue;
        }
        status = step_unmap(s, m, i);
        if (status == UMO_OK && old.offset_bytes < offset_bytes) {
            status = step_map(s, m, old.offset_bytes, offset_bytes - old.offset_bytes);
        }
        if (status == UMO_OK && old_end > end) {
            status = step_map(s, m, end, old_end - end);
        }
    }
    return status;
}

static umo_status opencl_publish(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                                 bool writes, size_t offset_bytes, size_t size_bytes,
                                 const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    (void)writes;
    umo_opencl_state *state = opaque;
    if (memory->mode != UMO_UNIFIED || wait_count > UMO_WAITS_MAX || size_bytes == 0 ||
        !umo_range_fits(offset_bytes, size_bytes, memory->size_bytes)) {
        return UMO_E_INVAL;
    }
    step s = {.state = state, .queue = queue, .memory = memory, .wait_count = wait_count};
    for (size_t i = 0; i < wait_count; i++) {
        s.waits[i] = waits[i];
    }
    umo_status status = UMO_OK;
    mappings *m = memory->driver_data;
    if (m != NULL) {
        (void)pthread_mutex_lock(&m->lock);
        status = to == UMO_SIDE_HOST ? publish_to_host(&s, m, offset_bytes, size_bytes)
                                     : publish_to_device(&s, m, offset_bytes, size_bytes);
        (void)pthread_mutex_unlock(&m->lock);
    }
    if (status == UMO_OK && s.wait_count > 0) {
        /* Nothing was left to map, or something that was mapped earlier may still be on its way. */
        umo_opencl_command command;
        status = umo_opencl_command_begin(state, queue, s.waits, s.wait_count, &command);
        if (status == UMO_OK) {
            cl_int code = state->api->clEnqueueMarkerWithWaitList(
                command.queue->native, command.wait_count, command.waits, &command.event);
            status = umo_opencl_command_end(&command, code, &s.done);
        }
    }
    if (status == UMO_OK) {
        /* Value 0, which has passed, when the side had the bytes already. */
        out->queue = queue;
        out->value = s.done.value;
    }
    return status;
}

static void opencl_free(void *opaque, umo_memory *memory)
{
    umo_opencl_state *state = opaque;
    mappings *m = memory->driver_data;
    if (m != NULL) {
        step s = {.state = state, .memory = memory};
        umo_status status = UMO_OK;
        while (m->count > 0 && status == UMO_OK) {
            status = step_unmap(&s, m, m->count - 1);
        }
        /* An unmap may still write to the pages, so they wait for it. A failure is nobody's to hear
         * any more. */
        if (s.queued) {
            (void)umo_opencl_queue_wait(&state->queues[0], s.done.value, UINT64_MAX);
        }
        mappings_destroy(m);
    }
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
    .publish = opencl_publish,
    .copy = opencl_copy,
    .fence_done = opencl_fence_done,
    .fence_wait = opencl_fence_wait,
    .program_create = umo_opencl_program_create,
    .program_destroy = umo_opencl_program_destroy,
    .kernel_create = umo_opencl_kernel_create,
    .kernel_destroy = umo_opencl_kernel_destroy,
    .kernel_launch = umo_opencl_kernel_launch,
};
