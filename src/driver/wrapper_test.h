/*
 * A driver for tests, named "wrapper": the host driver behind switches.
 *
 * It can take capabilities away, bind whole pages only, keep two copies behind UNIFIED memory that
 * nothing but publish keeps in step (a device that is not coherent, as strict as OpenCL's map and
 * unmap: a side sees what was published to it and no more), return imports at another address, and
 * fail any call. A test that passes on it cannot have forgotten a publish, a wait or a status.
 */
#ifndef UMO_DRIVER_WRAPPER_TEST_H
#define UMO_DRIVER_WRAPPER_TEST_H

#include "driver/drivers.h"
#include "os/os.h"

#include <umo/device.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct wrapper_switches {
    uint32_t caps_off;
    size_t import_align_bytes; /* 0 leaves the host driver's */
    size_t import_size_align_bytes;
    size_t write_granule_bytes;
    uint64_t buffer_max_bytes;
    bool apart;     /* two copies behind UNIFIED memory, kept in step by publish alone */
    bool elsewhere; /* an import's host address is not the one given */
    /* Asked at every call that can fail. */
    bool (*fails)(const char *entry);
    /* Called inside import, without a lock. */
    void (*importing)(void);
    /* The result of this command: DEVICE. */
    uint32_t bad_queue;
    uint64_t bad_value;
} wrapper_switches;

static wrapper_switches wrapper;

static struct {
    _Atomic uint64_t alloc, free, import, transfer, publish, poison;
    _Atomic int64_t live; /* memories not yet freed */
} wrapper_calls;

static inline bool wrapper_fails(const char *entry)
{
    return wrapper.fails != NULL && wrapper.fails(entry);
}

static umo_status wrapper_count(uint32_t *out, umo_error *error)
{
    if (wrapper_fails("count")) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "count failed");
    }
    *out = 2;
    return UMO_OK;
}

static umo_status wrapper_open(uint32_t ordinal, const umo_driver_options *options,
                               void **out_state, umo_device_info *out_info, umo_error *error)
{
    if (wrapper_fails("open")) {
        return umo_error_set(error, UMO_E_DEVICE, 0, "open failed");
    }
    umo_device_info info;
    umo_status status = umo_driver_host.open(ordinal, options, out_state, &info, error);
    if (status != UMO_OK) {
        return status;
    }
    strcpy(info.driver, "wrapper");
    strcpy(info.name, "wrapped host memory");
    info.caps &= ~(wrapper.caps_off | (wrapper.apart ? UMO_CAP_COHERENT : 0u));
    if (wrapper.import_align_bytes != 0) {
        info.import_align_bytes = wrapper.import_align_bytes;
    }
    if (wrapper.import_size_align_bytes != 0) {
        info.import_size_align_bytes = wrapper.import_size_align_bytes;
    }
    if (wrapper.write_granule_bytes != 0) {
        info.write_granule_bytes = wrapper.write_granule_bytes;
    }
    if (wrapper.buffer_max_bytes != 0) {
        info.buffer_max_bytes = wrapper.buffer_max_bytes;
    }
    *out_info = info;
    return UMO_OK;
}

/* driver_data of UNIFIED memory with two copies: one byte for each, 1 while it is the host's. */
static umo_status wrapper_split(umo_memory *memory, unsigned char owned)
{
    unsigned char *host_owned = malloc(memory->size_bytes);
    void *second = umo_os_pages_alloc(memory->size_bytes);
    if (host_owned == NULL || second == NULL) {
        free(host_owned);
        umo_os_pages_free(second, memory->size_bytes);
        return UMO_E_NOMEM;
    }
    memset(host_owned, owned, memory->size_bytes);
    memory->native = second;
    memset(memory->native, 0xA5, memory->size_bytes);
    memory->driver_data = host_owned;
    return UMO_OK;
}

static umo_status wrapper_alloc(void *state, size_t size_bytes, umo_storage_mode mode,
                                umo_memory *out, umo_error *error)
{
    if (wrapper_fails("alloc")) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "alloc failed");
    }
    umo_status status = umo_driver_host.alloc(state, size_bytes, mode, out, error);
    if (status == UMO_OK && wrapper.apart && mode == UMO_UNIFIED) {
        status = wrapper_split(out, 0);
        if (status != UMO_OK) {
            umo_driver_host.free(state, out);
            return umo_error_set(error, status, 0, "no memory for a second copy");
        }
    }
    if (status == UMO_OK) {
        wrapper_calls.alloc++;
        wrapper_calls.live++;
    }
    return status;
}

static void wrapper_free(void *state, umo_memory *memory)
{
    wrapper_calls.free++;
    wrapper_calls.live--;
    free(memory->driver_data);
    if (memory->imported && memory->native != memory->host) {
        umo_os_pages_free(memory->native, memory->size_bytes);
    }
    umo_driver_host.free(state, memory);
}

static umo_status wrapper_import(void *state, void *data, size_t size_bytes, uint32_t flags,
                                 umo_memory *out, umo_reason *out_why, umo_error *error)
{
    if (wrapper_fails("import")) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "import failed");
    }
    if (wrapper.importing != NULL) {
        wrapper.importing();
    }
    umo_status status = umo_driver_host.import(state, data, size_bytes, flags, out, out_why, error);
    if (status == UMO_OK && wrapper.apart) {
        status = wrapper_split(out, 1);
        if (status != UMO_OK) {
            return umo_error_set(error, status, 0, "no memory for a second copy");
        }
    }
    if (status == UMO_OK && wrapper.elsewhere) {
        void *other = umo_os_pages_alloc(size_bytes);
        if (other == NULL) {
            return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for another address");
        }
        memcpy(other, data, size_bytes);
        out->native = other;
        out->host = other;
        out->imported = false;
    }
    if (status == UMO_OK) {
        wrapper_calls.import++;
        wrapper_calls.live++;
    }
    return status;
}

static umo_status wrapper_transfer(void *state, uint32_t queue, umo_memory *memory, umo_side to,
                                   size_t offset_bytes, size_t size_bytes, void *host,
                                   const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    if (wrapper_fails("transfer")) {
        return UMO_E_DEVICE;
    }
    wrapper_calls.transfer++;
    return umo_driver_host.transfer(state, queue, memory, to, offset_bytes, size_bytes, host, waits,
                                    wait_count, out);
}

/* Giving bytes to the host copies those that the host does not own; only a writer comes to own
 * them. Giving them to the device copies those that the host owns. */
static umo_status wrapper_publish(void *state, uint32_t queue, umo_memory *memory, umo_side to,
                                  bool writes, size_t offset_bytes, size_t size_bytes,
                                  const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    if (wrapper_fails("publish")) {
        return UMO_E_DEVICE;
    }
    wrapper_calls.publish++;
    unsigned char *host_owned = memory->driver_data;
    size_t end = offset_bytes + size_bytes;
    *out = (umo_fence){.queue = queue};
    for (size_t at = offset_bytes; at < end && host_owned != NULL;) {
        size_t stop = at + 1;
        while (stop < end && host_owned[stop] == host_owned[at]) {
            stop++;
        }
        if (host_owned[at] == (to == UMO_SIDE_DEVICE ? 1 : 0)) {
            umo_status status =
                umo_driver_host.transfer(state, queue, memory, to, at, stop - at,
                                         (char *)memory->host + at, waits, wait_count, out);
            if (status != UMO_OK) {
                return status;
            }
            if (to == UMO_SIDE_DEVICE || writes) {
                memset(host_owned + at, to == UMO_SIDE_HOST ? 1 : 0, stop - at);
            }
        }
        at = stop;
    }
    return UMO_OK;
}

static umo_status wrapper_copy(void *state, uint32_t queue, const umo_memory *source,
                               size_t source_offset_bytes, umo_memory *target,
                               size_t target_offset_bytes, size_t size_bytes,
                               const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    if (wrapper_fails("copy")) {
        return UMO_E_DEVICE;
    }
    return umo_driver_host.copy(state, queue, source, source_offset_bytes, target,
                                target_offset_bytes, size_bytes, waits, wait_count, out);
}

static umo_status wrapper_fence_wait(void *state, uint32_t queue, uint64_t value,
                                     uint64_t timeout_ns)
{
    umo_status status = umo_driver_host.fence_wait(state, queue, value, timeout_ns);
    bool bad = status == UMO_OK && wrapper.bad_value == value && wrapper.bad_queue == queue;
    return bad || wrapper_fails("fence_wait") ? UMO_E_DEVICE : status;
}

static umo_status wrapper_program_create(void *state, const umo_program_source *source, void **out,
                                         umo_error *error)
{
    if (wrapper_fails("program_create")) {
        return umo_error_set(error, UMO_E_INVAL, 0, "program_create failed");
    }
    return umo_driver_host.program_create(state, source, out, error);
}

static umo_status wrapper_kernel_create(void *state, void *program, const char *name, void **out,
                                        umo_error *error)
{
    if (wrapper_fails("kernel_create")) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "kernel_create failed");
    }
    return umo_driver_host.kernel_create(state, program, name, out, error);
}

static umo_status wrapper_kernel_launch(void *state, uint32_t queue, void *kernel,
                                        const umo_kernel_arg *args, size_t arg_count,
                                        const umo_grid *grid, const umo_fence *waits,
                                        size_t wait_count, umo_fence *out, umo_error *error)
{
    if (wrapper_fails("kernel_launch")) {
        return umo_error_set(error, UMO_E_DEVICE, 0, "kernel_launch failed");
    }
    return umo_driver_host.kernel_launch(state, queue, kernel, args, arg_count, grid, waits,
                                         wait_count, out, error);
}

static umo_status wrapper_poison(void *state, uint32_t queue, umo_memory *memory, umo_side side,
                                 size_t offset_bytes, size_t size_bytes, void *host,
                                 const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    if (wrapper_fails("poison")) {
        return UMO_E_DEVICE;
    }
    wrapper_calls.poison++;
    return umo_driver_host.poison(state, queue, memory, side, offset_bytes, size_bytes, host, waits,
                                  wait_count, out);
}

static umo_driver wrapper_driver;

/* The table, entries of the host driver where nothing can be switched. */
static inline umo_driver wrapper_table(const char *name)
{
    umo_driver table = umo_driver_host;
    table.name = name;
    table.count = wrapper_count;
    table.open = wrapper_open;
    table.alloc = wrapper_alloc;
    table.free = wrapper_free;
    table.import = wrapper_import;
    table.transfer = wrapper_transfer;
    table.publish = wrapper_publish;
    table.copy = wrapper_copy;
    table.fence_wait = wrapper_fence_wait;
    table.program_create = wrapper_program_create;
    table.kernel_create = wrapper_kernel_create;
    table.kernel_launch = wrapper_kernel_launch;
    table.poison = wrapper_poison;
    return table;
}

/* Registers the driver at the first call and opens a device of it with these switches. They hold
 * until the next call, for every device. NULL on failure. */
static inline umo_device *wrapper_device(const wrapper_switches *switches,
                                         const umo_driver_options *options)
{
    wrapper = switches != NULL ? *switches : (wrapper_switches){0};
    if (wrapper_driver.name == NULL) {
        wrapper_driver = wrapper_table("wrapper");
        if (umo_driver_register(&wrapper_driver, NULL) != UMO_OK) {
            return NULL;
        }
    }
    umo_device *device = NULL;
    return umo_device_open("wrapper", 0, options, &device, NULL) == UMO_OK ? device : NULL;
}

#endif
