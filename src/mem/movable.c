/*
 * Movable memory: what its modes are made of.
 *
 * A range of host addresses (home) is the buffer's for life. UNIFIED is pages at home that the
 * device imports. MANAGED and PRIVATE are memory of the device's own, with pages at home as the
 * host side: always, or from the first host bracket on. The driver's own MANAGED is not used,
 * because it has a host address of its own; what the layer keeps in step is the same.
 */
#include "mem/events.h"

#include "base/scope.h"
#include "base/size.h"
#include "mem/nodes.h"
#include "os/os.h"

#include <umo/access.h>

static uint32_t movable_modes(const umo_device *device)
{
    const uint32_t imports = UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE;
    const umo_device_info *info = &device->info;
    uint32_t modes = 0;
    if ((info->caps & imports) == imports && info->import_align_bytes <= umo_os_page_bytes()) {
        modes |= 1u << UMO_UNIFIED;
    }
    if ((info->caps & UMO_CAP_PRIVATE) != 0) {
        modes |= 1u << UMO_MANAGED | 1u << UMO_PRIVATE;
    }
    return modes;
}

uint32_t umo_buffer_modes(const umo_buffer *buffer)
{
    return buffer->home != NULL ? movable_modes(buffer->device)
                                : 1u << (uint32_t)umo_buffer_mode(buffer);
}

umo_status umo_movable_check(const umo_device *device, umo_storage_mode mode, umo_error *error)
{
    if ((unsigned)mode >= UMO_STORAGE_MODES) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%d is no storage mode", (int)mode);
    }
    if ((movable_modes(device) & 1u << mode) != 0) {
        return UMO_OK;
    }
    return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                         mode == UMO_UNIFIED
                             ? "device '%s' cannot bind host memory for writing: no UNIFIED"
                             : "device '%s' has no memory of its own: no MANAGED, no PRIVATE",
                         device->info.name);
}

umo_status umo_movable_device_alloc(umo_buffer *buffer, umo_memory *out, umo_error *error)
{
    umo_device *device = buffer->device;
    if (!umo_scope_charge(buffer->scope, buffer->size_bytes)) {
        return umo_error_set(error, UMO_E_LIMIT, 0,
                             "a device side of %zu bytes would pass the budget of '%s'",
                             buffer->size_bytes, umo_scope_name(buffer->scope));
    }
    umo_status status =
        device->driver->alloc(device->state, buffer->size_bytes, UMO_PRIVATE, out, error);
    if (status != UMO_OK) {
        umo_scope_uncharge(buffer->scope, buffer->size_bytes);
        return status;
    }
    umo_scope_count_alloc(buffer->scope, buffer->size_bytes);
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_ALLOC, .side = UMO_SIDE_DEVICE,
                     .size_bytes = buffer->size_bytes);
    return UMO_OK;
}

umo_status umo_movable_import(umo_buffer *buffer, umo_memory *out, umo_error *error)
{
    umo_device *device = buffer->device;
    if (buffer->home_bytes > device->info.buffer_max_bytes) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "device '%s' binds at most %llu bytes of host memory",
                             device->info.name, (unsigned long long)device->info.buffer_max_bytes);
    }
    umo_status status =
        device->driver->import(device->state, buffer->home, buffer->home_bytes,
                               UMO_IMPORT_READ | UMO_IMPORT_WRITE, out, NULL, error);
    if (status == UMO_OK && out->host != buffer->home) {
        device->driver->free(device->state, out);
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "device '%s' does not leave imported memory at its address",
                             device->info.name);
    }
    return status;
}

static umo_status movable_fill(umo_buffer *buffer, umo_storage_mode mode, int32_t node,
                               umo_error *error)
{
    const umo_device_info *info = &buffer->device->info;
    size_t page = umo_os_page_bytes();
    size_t align = info->import_size_align_bytes > page ? info->import_size_align_bytes : page;
    if (!umo_round_up(buffer->size_bytes, align, &buffer->home_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%zu bytes are no size", buffer->size_bytes);
    }
    buffer->home = umo_os_pages_reserve(buffer->home_bytes);
    if (buffer->home == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no addresses for %zu bytes",
                             buffer->size_bytes);
    }
    /* Before an import, which may touch what it binds. What is said of addresses holds for all
     * pages that ever lie behind them. */
    umo_status status = node != UMO_NUMA_ANY
                            ? umo_numa_place(buffer->home, buffer->home_bytes, node, error)
                            : UMO_OK;
    if (status == UMO_OK && mode != UMO_PRIVATE) {
        status = umo_host_side_make(buffer, error);
    }
    umo_memory memory;
    if (status == UMO_OK) {
        status = mode == UMO_UNIFIED ? umo_movable_import(buffer, &memory, error)
                                     : umo_movable_device_alloc(buffer, &memory, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    buffer->memory = memory;
    if (mode == UMO_UNIFIED) {
        buffer->shadow = NULL; /* the memory's own host side now */
    } else {
        buffer->charged_bytes += buffer->size_bytes;
    }
    atomic_store_explicit(&buffer->mode, (uint32_t)mode, memory_order_relaxed);
    return UMO_OK;
}

umo_status umo_buffer_alloc_movable_on(umo_device *device, umo_scope *scope, size_t size_bytes,
                                       umo_storage_mode mode, int32_t node, umo_buffer **out,
                                       umo_error *error)
{
    umo_status status = umo_buffer_size_check(device, size_bytes, error);
    if (status == UMO_OK) {
        status = umo_movable_check(device, mode, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    umo_buffer *buffer = umo_buffer_object_take();
    if (buffer == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a buffer");
    }
    buffer->memory = (umo_memory){.mode = UMO_PRIVATE};
    buffer->memory_offset = 0;
    buffer->charged_bytes = 0;
    buffer->writable = true;
    buffer->deleter = NULL;
    umo_buffer_object_start(buffer, device, scope, size_bytes, 0);
    atomic_store_explicit(&buffer->pages, node == UMO_NUMA_ANY ? UMO_PAGES_OWN : UMO_PAGES_PLACED,
                          memory_order_relaxed);
    status = movable_fill(buffer, mode, node, error);
    if (status != UMO_OK) {
        umo_buffer_release(buffer);
        return status;
    }
    umo_status_ignore(umo_buffer_track(buffer));
    *out = buffer;
    return UMO_OK;
}

umo_status umo_buffer_alloc_movable(umo_device *device, umo_scope *scope, size_t size_bytes,
                                    umo_storage_mode mode, umo_buffer **out, umo_error *error)
{
    return umo_buffer_alloc_movable_on(device, scope, size_bytes, mode, UMO_NUMA_ANY, out, error);
}
