/*
 * UNIFIED memory of an OpenCL device that is not coherent: bytes change sides by map and unmap.
 *
 * The ranges that the host has are exactly those that are mapped, for reading or for reading and
 * writing; the device may read what is mapped for reading alone. Giving a range to the host maps
 * what of it is not mapped (or not for writing); giving it to the device unmaps every mapping that
 * it meets. What of those lies outside the range is mapped again, because another bracket may still
 * use it there.
 */
#include "driver/opencl/opencl_state.h"

#include "base/size.h"

#include <stdlib.h>

/* A range that the host has now, on a device whose UNIFIED memory needs map and unmap. */
typedef struct mapping {
    size_t offset_bytes;
    size_t size_bytes;
    bool writes;
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
static umo_status step_map(step *s, mappings *m, bool writes, size_t offset_bytes,
                           size_t size_bytes)
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
    const cl_map_flags flags = writes ? CL_MAP_READ | CL_MAP_WRITE : CL_MAP_READ;
    cl_int code = CL_SUCCESS;
    void *address =
        s->state->api->clEnqueueMapBuffer(command.queue->native, s->memory->native, CL_FALSE, flags,
                                          s->memory->offset_bytes + offset_bytes, size_bytes,
                                          command.wait_count, command.waits, &command.event, &code);
    status = umo_opencl_command_end(&command, code, &s->done);
    if (status == UMO_OK) {
        step_queued(s);
        m->list[m->count++] = (mapping){offset_bytes, size_bytes, writes, address, s->done};
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

/* Unmaps what meets the range, or of that only what is not mapped for writing. */
static umo_status take_back(step *s, mappings *m, bool readers_only, size_t offset_bytes,
                            size_t size_bytes)
{
    const size_t end = offset_bytes + size_bytes;
    umo_status status = UMO_OK;
    for (size_t i = m->count; i-- > 0 && status == UMO_OK;) {
        const mapping old = m->list[i];
        const size_t old_end = old.offset_bytes + old.size_bytes;
        if (old.offset_bytes >= end || old_end <= offset_bytes || (readers_only && old.writes)) {
            continue;
        }
        status = step_unmap(s, m, i);
        if (status == UMO_OK && old.offset_bytes < offset_bytes) {
            status = step_map(s, m, old.writes, old.offset_bytes, offset_bytes - old.offset_bytes);
        }
        if (status == UMO_OK && old_end > end) {
            status = step_map(s, m, old.writes, end, old_end - end);
        }
    }
    return status;
}

static umo_status publish_to_host(step *s, mappings *m, bool writes, size_t offset_bytes,
                                  size_t size_bytes)
{
    const size_t end = offset_bytes + size_bytes;
    umo_status status = writes ? take_back(s, m, true, offset_bytes, size_bytes) : UMO_OK;
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
            status = step_map(s, m, writes, offset_bytes, next - offset_bytes);
            covered = next;
        }
        offset_bytes = covered;
    }
    return status;
}

umo_status umo_opencl_publish(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                              bool writes, size_t offset_bytes, size_t size_bytes,
                              const umo_fence *waits, size_t wait_count, umo_fence *out)
{
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
        status = to == UMO_SIDE_HOST ? publish_to_host(&s, m, writes, offset_bytes, size_bytes)
                                     : take_back(&s, m, false, offset_bytes, size_bytes);
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

umo_status umo_opencl_publish_init(umo_opencl_state *state, umo_memory *memory, umo_error *error)
{
    if ((state->caps & UMO_CAP_COHERENT) != 0) {
        return UMO_OK;
    }
    memory->driver_data = mappings_create();
    if (memory->driver_data == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a buffer");
    }
    if (!memory->imported) {
        return UMO_OK;
    }
    /* The owner's bytes are with the host from the start, and nobody waits before using them. */
    umo_fence mapped = {0};
    umo_status status = umo_opencl_publish(state, 0, memory, UMO_SIDE_HOST, true, 0,
                                           memory->size_bytes, NULL, 0, &mapped);
    if (status == UMO_OK) {
        status = umo_opencl_queue_wait(&state->queues[0], mapped.value, UINT64_MAX);
    }
    if (status != UMO_OK) {
        umo_opencl_publish_finish(state, memory);
        return umo_error_set(error, status, 0, "OpenCL does not map imported memory");
    }
    return UMO_OK;
}

void umo_opencl_publish_finish(umo_opencl_state *state, umo_memory *memory)
{
    mappings *m = memory->driver_data;
    if (m == NULL) {
        return;
    }
    step s = {.state = state, .memory = memory};
    umo_status status = UMO_OK;
    while (m->count > 0 && status == UMO_OK) {
        status = step_unmap(&s, m, m->count - 1);
    }
    /* An unmap may still write to the pages, so they wait for it. A failure is nobody's to hear any
     * more. */
    if (s.queued) {
        (void)umo_opencl_queue_wait(&state->queues[0], s.done.value, UINT64_MAX);
    }
    mappings_destroy(m);
    memory->driver_data = NULL;
}
