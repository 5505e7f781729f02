/*
 * Buffers: life, import and look-up of their memory. The brackets are in access.c.
 *
 * Every import makes a umo_buffer, on a server's hot path, so freed objects are kept on a short
 * list with their lock initialised: a warm import allocates nothing. Under the address sanitizer
 * the list is off, so that a use after the last release is seen.
 */
#include "mem/events.h"

#include "base/scope.h"
#include "base/size.h"
#include "mem/record.h"
#include "os/os.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SPARE_MAX 256

#if defined(__SANITIZE_ADDRESS__)
#define KEEP_SPARE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEP_SPARE 0
#endif
#endif
#ifndef KEEP_SPARE
#define KEEP_SPARE 1
#endif

static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static umo_buffer *spare_first;
static size_t spare_count;

/* ---- fork: a child must not inherit a lock that some other thread held ---- */

static void spare_take(void)
{
    (void)pthread_mutex_lock(&spare_lock);
}

static void spare_give(void)
{
    (void)pthread_mutex_unlock(&spare_lock);
}

static void fork_register(void)
{
    (void)pthread_atfork(spare_take, spare_give, spare_give);
    umo_record_fork_register();
}

void umo_buffer_fork_register(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, fork_register);
}

umo_buffer *umo_buffer_object_take(void)
{
    umo_buffer *buffer = NULL;
    (void)pthread_mutex_lock(&spare_lock);
    if (spare_first != NULL) {
        buffer = spare_first;
        spare_first = buffer->next_spare;
        spare_count--;
    }
    (void)pthread_mutex_unlock(&spare_lock);
    if (buffer == NULL) {
        umo_buffer_fork_register();
        buffer = calloc(1, sizeof *buffer);
        if (buffer != NULL) {
            (void)pthread_mutex_init(&buffer->lock, NULL);
            umo_os_condition_init(&buffer->changed);
        }
    }
    return buffer;
}

static void object_give(umo_buffer *buffer)
{
    if (KEEP_SPARE) {
        (void)pthread_mutex_lock(&spare_lock);
        if (spare_count < SPARE_MAX) {
            buffer->next_spare = spare_first;
            spare_first = buffer;
            spare_count++;
            buffer = NULL;
        }
        (void)pthread_mutex_unlock(&spare_lock);
    }
    if (buffer != NULL) {
        umo_os_condition_finish(&buffer->changed);
        (void)pthread_mutex_destroy(&buffer->lock);
        free(buffer);
    }
}

void umo_buffer_object_start(umo_buffer *buffer, umo_device *device, umo_scope *scope,
                             size_t size_bytes, uint32_t valid)
{
    atomic_store_explicit(&buffer->refs, 1, memory_order_relaxed);
    buffer->device = device;
    buffer->scope = scope;
    buffer->size_bytes = size_bytes;
    atomic_store_explicit(&buffer->number, 0, memory_order_relaxed);
    atomic_store_explicit(&buffer->mode, (uint32_t)buffer->memory.mode, memory_order_relaxed);
    buffer->inner = false;
    atomic_store_explicit(&buffer->pages, UMO_PAGES_SHARED, memory_order_relaxed);
    buffer->shadow = NULL;
    buffer->piece = NULL;
    buffer->home = NULL;
    buffer->use_count = 0;
    buffer->use_capacity = USES_INLINE;
    buffer->uses = buffer->inline_uses;
    umo_ranges_init(&buffer->valid, size_bytes, valid);
    umo_device_acquire(device);
    umo_scope_acquire(scope);
    umo_scope_count_buffer(scope, 1);
}

static bool device_has_mode(const umo_device *device, umo_storage_mode mode)
{
    static const uint32_t bits[UMO_STORAGE_MODES] = {UMO_CAP_UNIFIED, UMO_CAP_MANAGED,
                                                     UMO_CAP_PRIVATE};
    return (unsigned)mode < UMO_STORAGE_MODES && (device->info.caps & bits[mode]) != 0;
}

umo_status umo_buffer_size_check(const umo_device *device, size_t size_bytes, umo_error *error)
{
    if (size_bytes == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a buffer has at least one byte");
    }
    if (size_bytes > device->info.buffer_max_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%zu bytes: device '%s' takes at most %llu in one buffer", size_bytes,
                             device->info.name, (unsigned long long)device->info.buffer_max_bytes);
    }
    return UMO_OK;
}

umo_status umo_buffer_alloc(umo_device *device, umo_scope *scope, size_t size_bytes,
                            umo_storage_mode mode, umo_buffer **out, umo_error *error)
{
    umo_status status = umo_buffer_size_check(device, size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    if (!device_has_mode(device, mode)) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "device '%s' lacks storage mode %d",
                             device->info.name, (int)mode);
    }
    umo_buffer *buffer = umo_buffer_object_take();
    if (buffer == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a buffer");
    }
    umo_scope_guard_ask(scope, size_bytes);
    if (!umo_scope_charge(scope, size_bytes)) {
        object_give(buffer);
        return umo_error_set(error, UMO_E_LIMIT, 0, "%zu bytes would pass the budget of '%s'",
                             size_bytes, umo_scope_name(scope));
    }
    const uint64_t start_ns = umo_trace_clock();
    status = device->driver->alloc(device->state, size_bytes, mode, &buffer->memory, error);
    if (status != UMO_OK) {
        umo_scope_uncharge(scope, size_bytes);
        object_give(buffer);
        return status;
    }
    umo_scope_count_alloc(scope, size_bytes);
    buffer->memory_offset = 0;
    buffer->charged_bytes = size_bytes;
    buffer->writable = true;
    buffer->deleter = NULL;
    umo_buffer_object_start(buffer, device, scope, size_bytes, 0);
    if (strcmp(device->info.driver, "host") == 0) {
        umo_buffer_own_pages(buffer); /* its driver gives out whole ones */
    }
    UMO_TRACE_BUFFER(buffer, scope, .kind = UMO_EVENT_ALLOC, .size_bytes = size_bytes,
                     .start_ns = start_ns);
    umo_status_ignore(umo_buffer_track(buffer));
    *out = buffer;
    return UMO_OK;
}

static umo_status refuse(umo_reason *why, umo_reason reason, umo_error *error)
{
    if (why != NULL) {
        *why = reason;
    }
    return umo_error_set(error, UMO_E_REFUSED, 0, "%s", umo_reason_cause(reason));
}

/* The range of whole device pages around the memory, when the device may bind all of it. */
static umo_status import_widen(const umo_device *device, const umo_import *import, uintptr_t *start,
                               size_t *size_bytes, umo_reason *why, umo_error *error)
{
    const umo_device_info *info = &device->info;
    uintptr_t data = (uintptr_t)import->data;
    uintptr_t first = umo_round_down(data, info->import_align_bytes);
    size_t wide;
    if (!umo_round_up((size_t)(data - first) + import->size_bytes, info->import_size_align_bytes,
                      &wide) ||
        wide > UINTPTR_MAX - first) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the range wraps around");
    }
    *start = first;
    *size_bytes = wide;
    bool exact = first == data && wide == import->size_bytes;
    if (exact || import->whole_pages) {
        return UMO_OK;
    }
    if (import->writable &&
        ((data | (data + import->size_bytes)) & (info->write_granule_bytes - 1)) != 0) {
        return refuse(why, UMO_REASON_PARTIAL_PAGE, error);
    }
    umo_mapping mapping;
    umo_status status = umo_os_mapping_query(import->data, &mapping);
    if (status == UMO_E_UNSUPPORTED) {
        return refuse(why, UMO_REASON_NO_IDENTITY, error);
    }
    if (status != UMO_OK || first < mapping.start || wide > mapping.end - first) {
        return refuse(why, UMO_REASON_NOT_ONE_MAPPING, error);
    }
    return UMO_OK;
}

umo_status umo_buffer_import_uncounted(umo_device *device, umo_scope *scope,
                                       const umo_import *import, umo_buffer **out, umo_reason *why,
                                       umo_error *error)
{
    if (why != NULL) {
        *why = UMO_REASON_NONE;
    }
    if (import->data == NULL || import->size_bytes == 0 ||
        import->size_bytes > UINTPTR_MAX - (uintptr_t)import->data) {
        return umo_error_set(error, UMO_E_INVAL, 0, "an import needs memory of at least one byte");
    }
    uint32_t needed = UMO_CAP_IMPORT_READ | (import->writable ? UMO_CAP_IMPORT_WRITE : 0u);
    if ((device->info.caps & needed) != needed) {
        return refuse(why, UMO_REASON_DEVICE_REFUSED, error);
    }
    uintptr_t start = 0;
    size_t wide = 0;
    umo_status status = import_widen(device, import, &start, &wide, why, error);
    if (status != UMO_OK) {
        return status;
    }
    if (wide > device->info.buffer_max_bytes) {
        return refuse(why, UMO_REASON_TOO_LONG, error);
    }
    umo_buffer *buffer = umo_buffer_object_take();
    if (buffer == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a buffer");
    }
    uint32_t flags = UMO_IMPORT_READ | (import->writable ? (uint32_t)UMO_IMPORT_WRITE : 0u);
    umo_reason refused = UMO_REASON_DEVICE_REFUSED;
    status = device->driver->import(device->state, (void *)start, wide, flags, &buffer->memory,
                                    &refused, error);
    if (status != UMO_OK) {
        object_give(buffer);
        if (status == UMO_E_REFUSED && why != NULL) {
            *why = refused;
        }
        return status;
    }
    buffer->memory_offset = (size_t)((uintptr_t)import->data - start);
    buffer->charged_bytes = 0;
    buffer->writable = import->writable;
    buffer->deleter = import->deleter;
    buffer->deleter_data = import->data;
    buffer->deleter_user = import->user;
    umo_buffer_object_start(buffer, device, scope, import->size_bytes, UMO_SIDE_HOST);
    *out = buffer;
    return UMO_OK;
}

umo_status umo_buffer_import(umo_device *device, umo_scope *scope, const umo_import *import,
                             umo_buffer **out, umo_reason *why, umo_error *error)
{
    umo_status status = umo_buffer_import_uncounted(device, scope, import, out, why, error);
    if (status == UMO_OK) {
        umo_scope_count_import(scope, false, import->size_bytes);
        UMO_TRACE_BUFFER(*out, scope, .kind = UMO_EVENT_IMPORT, .size_bytes = import->size_bytes);
    }
    return status;
}

void umo_buffer_acquire(umo_buffer *buffer)
{
    atomic_fetch_add_explicit(&buffer->refs, 1, memory_order_relaxed);
}

uint32_t umo_buffer_refs(const umo_buffer *buffer)
{
    return atomic_load_explicit(&buffer->refs, memory_order_acquire);
}

void umo_buffer_release(umo_buffer *buffer)
{
    if (buffer == NULL || atomic_fetch_sub_explicit(&buffer->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    /* A use that failed has ended too: what matters here is that nobody touches the memory any
     * more. */
    umo_status_ignore(umo_buffer_settle(buffer));
    umo_record_close(buffer);
    umo_device *device = buffer->device;
    umo_scope *scope = buffer->scope;
    umo_deleter deleter = buffer->deleter;
    void *user = buffer->deleter_user;
    void *data = buffer->deleter_data;
    const bool owned = buffer->charged_bytes > 0;
    UMO_TRACE_BUFFER(buffer, scope, .kind = owned ? UMO_EVENT_FREE : UMO_EVENT_RELEASE,
                     .size_bytes = owned ? buffer->charged_bytes : buffer->size_bytes);
    if (buffer->pins > 0) {
        umo_host_side_unlock(buffer);
        buffer->pins = 0;
    }
    if (buffer->memory.size_bytes > 0) {
        device->driver->free(device->state, &buffer->memory);
    }
    umo_host_side_finish(buffer);
    if (buffer->charged_bytes > 0) {
        umo_scope_uncharge(scope, buffer->charged_bytes);
    }
    umo_ranges_finish(&buffer->valid);
    if (buffer->uses != buffer->inline_uses) {
        free(buffer->uses);
    }
    object_give(buffer);
    umo_scope_count_buffer(scope, -1);
    if (deleter != NULL) {
        deleter(data, user);
    }
    umo_device_release(device);
    umo_scope_destroy(scope);
}

size_t umo_buffer_size(const umo_buffer *buffer)
{
    return buffer->size_bytes;
}

umo_storage_mode umo_buffer_mode(const umo_buffer *buffer)
{
    return (umo_storage_mode)atomic_load_explicit(&buffer->mode, memory_order_relaxed);
}

umo_device *umo_buffer_device(const umo_buffer *buffer)
{
    return buffer->device;
}

const umo_memory *umo_buffer_memory(const umo_buffer *buffer)
{
    return &buffer->memory;
}

size_t umo_buffer_memory_offset(const umo_buffer *buffer)
{
    return buffer->memory_offset;
}

void umo_buffer_own_pages(umo_buffer *buffer)
{
    atomic_store_explicit(&buffer->pages, UMO_PAGES_OWN, memory_order_relaxed);
}

void umo_buffer_make_inner(umo_buffer *buffer)
{
    buffer->inner = true;
    umo_buffer_forget(buffer);
}

void umo_buffer_share_piece(umo_buffer *buffer, umo_buffer *piece, size_t offset_bytes)
{
    buffer->piece = piece;
    buffer->piece_offset = offset_bytes;
}

const umo_buffer *umo_buffer_piece(const umo_buffer *buffer)
{
    return buffer->piece;
}

size_t umo_buffer_wrapped_bytes(const umo_buffer *buffer)
{
    /* Memory that does not move stays imported or not. */
    bool wraps = buffer->home == NULL && buffer->memory.imported && !buffer->inner;
    return wraps ? buffer->size_bytes : 0;
}

bool umo_buffer_writable(const umo_buffer *buffer)
{
    return buffer->writable;
}

void *umo_buffer_host(const umo_buffer *buffer)
{
    return buffer->home != NULL ? buffer->home : umo_host_side(buffer);
}
