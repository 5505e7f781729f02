/*
 * Moves of a buffer to another storage mode, in place of its address.
 *
 * A move never waits for a bracket while brackets wait for it: it starts only at a moment when none
 * is open, and from then on waits for nothing but the device. What can fail comes first and leaves
 * the old memory as it is; then the memories are swapped under the lock, which cannot fail. While
 * `changing` is set nobody else reads or writes the memory or where its bytes are valid, so the
 * driver is called without the lock.
 */
#include "mem/events.h"

#include "base/scope.h"
#include "os/os.h"

enum {
    BOTH = UMO_SIDE_HOST | UMO_SIDE_DEVICE
};

static uint64_t deadline_of(uint64_t timeout_ns)
{
    uint64_t deadline_ns;
    return timeout_ns == UINT64_MAX ||
                   __builtin_add_overflow(umo_os_now_ns(), timeout_ns, &deadline_ns)
               ? UINT64_MAX
               : deadline_ns;
}

/* What keeps a move from starting. */
typedef enum obstacle {
    OBSTACLE_NONE,
    OBSTACLE_OTHERS, /* ends by itself */
    OBSTACLE_OWN,    /* a bracket of this thread */
    OBSTACLE_PINNED,
    OBSTACLE_EXPORTED
} obstacle;

static obstacle obstacle_find(const umo_buffer *buffer)
{
    if (buffer->pins > 0) {
        return OBSTACLE_PINNED;
    }
    if (buffer->export_count > 0) {
        return OBSTACLE_EXPORTED;
    }
    obstacle found = buffer->changing || umo_buffer_relocates(buffer) || buffer->holds > 0
                         ? OBSTACLE_OTHERS
                         : OBSTACLE_NONE;
    for (size_t i = 0; i < buffer->use_count; i++) {
        if (buffer->uses[i].open) {
            if (pthread_equal(buffer->uses[i].opener, pthread_self())) {
                return OBSTACLE_OWN;
            }
            found = OBSTACLE_OTHERS;
        }
    }
    return found;
}

/* Closes the buffer for brackets. */
static umo_status move_close(umo_buffer *buffer, uint64_t timeout_ns, umo_error *error)
{
    uint64_t deadline_ns = deadline_of(timeout_ns);
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&buffer->lock);
    for (bool late = timeout_ns == 0;;) {
        obstacle found = obstacle_find(buffer);
        if (found == OBSTACLE_NONE) {
            buffer->changing = true;
            break;
        }
        if (found == OBSTACLE_PINNED || found == OBSTACLE_EXPORTED) {
            status = umo_error_set(error, UMO_E_BUSY, 0, "a buffer that is %s does not move",
                                   found == OBSTACLE_PINNED ? "pinned" : "exported");
            break;
        }
        if (found == OBSTACLE_OWN || timeout_ns == 0) {
            status = umo_error_set(error, UMO_E_BUSY, 0, "a buffer in use does not move");
            break;
        }
        if (late) {
            status = umo_error_set(error, UMO_E_TIMEOUT, 0,
                                   "the buffer was in use all the time; it did not move");
            break;
        }
        late = !umo_buffer_change_wait(buffer, deadline_ns);
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    return status;
}

static void move_open(umo_buffer *buffer)
{
    (void)pthread_mutex_lock(&buffer->lock);
    buffer->changing = false;
    umo_buffer_changed(buffer);
    (void)pthread_mutex_unlock(&buffer->lock);
}

/* Waits for every pending use and notes which bytes they failed to bring. */
static umo_status uses_settle(umo_buffer *buffer)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&buffer->lock);
    while (buffer->use_count > 0 && status == UMO_OK) {
        size_t last = buffer->use_count - 1;
        umo_fence fence = buffer->uses[last].fence;
        (void)pthread_mutex_unlock(&buffer->lock);
        umo_status waited = umo_fence_wait(fence, UINT64_MAX);
        (void)pthread_mutex_lock(&buffer->lock);
        if (!umo_fence_done(fence)) {
            status = waited == UMO_OK ? UMO_E_DEVICE : waited;
        } else if (!umo_use_retire(buffer, last)) {
            status = UMO_E_NOMEM;
        }
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    return status;
}

/* The queue of whatever nobody has asked for a queue for. */
static uint32_t move_queue(const umo_device *device)
{
    return device->info.queues - 1;
}

static umo_status range_send(umo_buffer *buffer, umo_memory *memory, umo_side to,
                             size_t offset_bytes, size_t size_bytes)
{
    umo_device *device = buffer->device;
    umo_fence fence = {0};
    umo_status status =
        device->driver->transfer(device->state, move_queue(device), memory, to, offset_bytes,
                                 size_bytes, (char *)buffer->home + offset_bytes, NULL, 0, &fence);
    if (status == UMO_OK) {
        fence.device = device;
        fence.queue = move_queue(device);
        status = umo_fence_wait(fence, UINT64_MAX);
    }
    if (status == UMO_OK) {
        umo_buffer_count_transfer(buffer, buffer->scope, to, true, offset_bytes, size_bytes, fence);
    }
    return status;
}

/* Sends the ranges that `from` has and, unless all of them are wanted, `to` has not. */
static umo_status ranges_send(umo_buffer *buffer, umo_memory *memory, umo_side to,
                              bool (*wanted)(uint32_t valid))
{
    umo_status status = UMO_OK;
    for (size_t at = 0; at < buffer->size_bytes && status == UMO_OK;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        size_t end = umo_ranges_end(&buffer->valid, index);
        if (wanted(buffer->valid.items[index].value)) {
            status = range_send(buffer, memory, to, at, end - at);
        }
        at = end;
    }
    return status;
}

static bool on_device(uint32_t valid)
{
    return (valid & UMO_SIDE_DEVICE) != 0;
}

static bool anywhere(uint32_t valid)
{
    return (valid & BOTH) != 0;
}

static bool on_device_only(uint32_t valid)
{
    return valid == UMO_SIDE_DEVICE;
}

static bool on_host_only(uint32_t valid)
{
    return valid == UMO_SIDE_HOST;
}

/* Every range that holds bytes gets new sides: those of keep that it has, and those of gain. Whole
 * ranges, so nothing is cut and no room is needed. The lock is held. */
static void valid_become(umo_buffer *buffer, uint32_t keep, uint32_t gain)
{
    for (size_t at = 0; at < buffer->size_bytes;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        size_t end = umo_ranges_end(&buffer->valid, index);
        uint32_t value = buffer->valid.items[index].value;
        if (anywhere(value)) {
            umo_ranges_set(&buffer->valid, at, end - at, (value & keep) | gain);
        }
        at = end;
    }
}

/* Memory of a device that is not coherent: the host gets to see the bytes of the device. */
static umo_status home_publish(umo_buffer *buffer)
{
    umo_device *device = buffer->device;
    umo_status status = UMO_OK;
    if ((device->info.caps & UMO_CAP_COHERENT) != 0) {
        return UMO_OK;
    }
    for (size_t at = 0; at < buffer->size_bytes && status == UMO_OK;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        size_t end = umo_ranges_end(&buffer->valid, index);
        if (on_device_only(buffer->valid.items[index].value)) {
            umo_fence fence = {0};
            status = device->driver->publish(device->state, move_queue(device), &buffer->memory,
                                             UMO_SIDE_HOST, false, at, end - at, NULL, 0, &fence);
            fence.device = device;
            fence.queue = move_queue(device);
            if (status == UMO_OK) {
                status = umo_fence_wait(fence, UINT64_MAX);
            }
            if (status == UMO_OK) {
                /* Also if the move fails: what the host has now, the device has to take from it. */
                (void)pthread_mutex_lock(&buffer->lock);
                umo_ranges_set(&buffer->valid, at, end - at, BOTH);
                (void)pthread_mutex_unlock(&buffer->lock);
            }
        }
        at = end;
    }
    return status;
}

/* From memory that both sides see to memory of the device's own. */
static umo_status unified_leave(umo_buffer *buffer, umo_storage_mode mode, umo_error *error)
{
    umo_device *device = buffer->device;
    umo_memory memory;
    umo_status status = umo_movable_device_alloc(buffer, &memory, error);
    if (status != UMO_OK) {
        return status;
    }
    status = home_publish(buffer);
    if (status == UMO_OK) {
        status = ranges_send(buffer, &memory, UMO_SIDE_DEVICE,
                             mode == UMO_PRIVATE ? anywhere : on_device);
    }
    if (status != UMO_OK) {
        device->driver->free(device->state, &memory);
        umo_scope_uncharge(buffer->scope, buffer->size_bytes);
        UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_FREE, .side = UMO_SIDE_DEVICE,
                         .size_bytes = buffer->size_bytes);
        return umo_error_set(error, status, 0, "device '%s' did not take the buffer's bytes",
                             device->info.name);
    }
    (void)pthread_mutex_lock(&buffer->lock);
    umo_memory old = buffer->memory;
    buffer->memory = memory;
    buffer->shadow = buffer->home;
    buffer->charged_bytes += buffer->size_bytes;
    if (mode == UMO_PRIVATE) {
        valid_become(buffer, 0, UMO_SIDE_DEVICE);
    } else {
        valid_become(buffer, UMO_SIDE_DEVICE, UMO_SIDE_HOST);
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    device->driver->free(device->state, &old);
    if (mode == UMO_PRIVATE) {
        umo_host_side_drop(buffer);
    }
    return UMO_OK;
}

/* From memory of the device's own to memory that both sides see. */
static umo_status unified_enter(umo_buffer *buffer, umo_error *error)
{
    umo_device *device = buffer->device;
    bool made = buffer->shadow == NULL;
    umo_status status = umo_host_side_make(buffer, error);
    if (status != UMO_OK) {
        return status;
    }
    status = ranges_send(buffer, &buffer->memory, UMO_SIDE_HOST, on_device_only);
    if (status != UMO_OK) {
        status = umo_error_set(error, status, 0, "device '%s' did not give the buffer's bytes",
                               device->info.name);
    }
    umo_memory memory;
    if (status == UMO_OK) {
        status = umo_movable_import(buffer, &memory, error);
    }
    if (status != UMO_OK) {
        if (made) {
            umo_host_side_drop(buffer);
        }
        return status;
    }
    /* What the host has, a coherent device sees; another one has to be given it. */
    bool coherent = (device->info.caps & UMO_CAP_COHERENT) != 0;
    (void)pthread_mutex_lock(&buffer->lock);
    umo_memory old = buffer->memory;
    buffer->memory = memory;
    buffer->shadow = NULL;
    buffer->charged_bytes -= buffer->size_bytes;
    valid_become(buffer, coherent ? UMO_SIDE_DEVICE : 0, UMO_SIDE_HOST);
    (void)pthread_mutex_unlock(&buffer->lock);
    device->driver->free(device->state, &old);
    umo_scope_uncharge(buffer->scope, buffer->size_bytes);
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_FREE, .side = UMO_SIDE_DEVICE,
                     .size_bytes = buffer->size_bytes);
    return UMO_OK;
}

/* Memory of the device's own loses its host side. */
static umo_status host_side_leave(umo_buffer *buffer, umo_error *error)
{
    if (buffer->shadow == NULL) {
        return UMO_OK;
    }
    umo_status status = ranges_send(buffer, &buffer->memory, UMO_SIDE_DEVICE, on_host_only);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "device '%s' did not take the buffer's bytes",
                             buffer->device->info.name);
    }
    (void)pthread_mutex_lock(&buffer->lock);
    valid_become(buffer, 0, UMO_SIDE_DEVICE);
    (void)pthread_mutex_unlock(&buffer->lock);
    umo_host_side_drop(buffer);
    return UMO_OK;
}

static umo_status move_make(umo_buffer *buffer, umo_storage_mode mode, umo_error *error)
{
    umo_storage_mode now = umo_buffer_mode(buffer);
    if (now == mode && mode != UMO_PRIVATE) {
        return UMO_OK;
    }
    umo_status status = uses_settle(buffer);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0,
                             "a pending use of the buffer could not be waited for");
    }
    if (now == UMO_UNIFIED) {
        status = unified_leave(buffer, mode, error);
    } else if (mode == UMO_UNIFIED) {
        status = unified_enter(buffer, error);
    } else if (mode == UMO_MANAGED) {
        status = umo_host_side_make(buffer, error);
    } else {
        status = host_side_leave(buffer, error);
    }
    if (status == UMO_OK && now != mode) {
        atomic_store_explicit(&buffer->mode, (uint32_t)mode, memory_order_relaxed);
        umo_scope_count_move(buffer->scope, buffer->size_bytes);
    }
    return status;
}

umo_status umo_buffer_move(umo_buffer *buffer, umo_storage_mode mode, uint64_t timeout_ns,
                           umo_error *error)
{
    if (buffer->home == NULL) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "the buffer's memory is not movable");
    }
    umo_status status = umo_movable_check(buffer->device, mode, error);
    if (status == UMO_OK) {
        status = move_close(buffer, timeout_ns, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    const uint64_t start_ns = umo_trace_clock();
    const umo_storage_mode before = umo_buffer_mode(buffer);
    status = move_make(buffer, mode, error);
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_MOVE,
                     .mode_before = (uint32_t)before + 1, .size_bytes = buffer->size_bytes,
                     .status = status, .start_ns = start_ns);
    move_open(buffer);
    return status;
}
