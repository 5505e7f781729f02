/*
 * Memory of the Metal driver.
 *
 * UNIFIED memory is Shared. MANAGED is Managed only where the GPU has a memory of its own;
 * elsewhere Metal's Managed is one memory under another name, so it is Shared here too, and says
 * that it is one. No memory is hazard-tracked: fences order all uses. Small memory comes out of
 * heaps, because a buffer of its own costs whole pages and an entry in the residency set.
 */
#include "driver/metal/metal_state.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

/* Memory up to this size comes out of a heap. */
#define HEAP_MEMORY_MAX ((size_t)64 << 10)
#define HEAP_BYTES ((size_t)4 << 20)

/* What stands behind imported memory. */
typedef struct umo_metal_wrapped {
    umo_metal_state *state;
    bool released; /* Metal's last reference is gone; the device's lock */
} umo_metal_wrapped;

static umo_uint mode_options(const umo_metal_state *state, umo_storage_mode mode)
{
    switch (mode) {
    case UMO_PRIVATE:
        return UMO_MTL_STORAGE_PRIVATE | UMO_MTL_UNTRACKED;
    case UMO_MANAGED:
        if (!state->unified) {
            return UMO_MTL_STORAGE_MANAGED | UMO_MTL_UNTRACKED;
        }
        break;
    case UMO_UNIFIED:
        break;
    }
    return UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED;
}

/* ---- heaps ---- */

size_t umo_metal_heap_align(const umo_metal_state *state)
{
    /* Asked for the kind of heap that there is; other memory lies on pages. */
    const umo_uint storage = state->shared_heaps ? UMO_MTL_STORAGE_SHARED : UMO_MTL_STORAGE_PRIVATE;
    umo_mtl_size_and_align fit =
        UMO_METAL_SEND(state->api, heap_size, state->device, 1, storage | UMO_MTL_UNTRACKED);
    size_t align = (size_t)fit.align;
    return umo_is_power_of_two(align) && align <= state->page_bytes ? align : 1;
}

static umo_metal_heap *heap_make(umo_metal_state *state, umo_storage_mode mode)
{
    const umo_metal_api *api = state->api;
    umo_metal_heap *heap = calloc(1, sizeof *heap);
    umo_id descriptor = UMO_METAL_SEND0(api, new_object, api->classes.heap_descriptor);
    if (heap != NULL && descriptor != NULL) {
        UMO_METAL_SEND(api, heap_describe_size, descriptor, HEAP_BYTES);
        UMO_METAL_SEND(api, heap_describe_storage, descriptor,
                       mode == UMO_PRIVATE ? UMO_MTL_HEAP_PRIVATE : UMO_MTL_HEAP_SHARED);
        UMO_METAL_SEND(api, heap_describe_hazards, descriptor, UMO_MTL_HEAP_UNTRACKED);
        heap->native = UMO_METAL_SEND(api, new_heap, state->device, descriptor);
    }
    UMO_METAL_SEND0(api, release, descriptor);
    if (heap == NULL || heap->native == NULL) {
        free(heap);
        return NULL;
    }
    umo_metal_residency_add(state, heap->native);
    return heap;
}

static void heap_destroy(umo_metal_state *state, umo_metal_heap *heap)
{
    umo_metal_residency_remove(state, heap->native);
    UMO_METAL_SEND0(state->api, release, heap->native);
    free(heap);
}

/* Small memory out of the first heap with room, which then is the one to ask first; NULL when none
 * has and none can be made. */
static umo_id heap_take(umo_metal_state *state, size_t size_bytes, umo_storage_mode mode,
                        umo_metal_heap **out_heap)
{
    const umo_metal_api *api = state->api;
    const umo_uint options = mode_options(state, mode);
    umo_id buffer = NULL;
    (void)pthread_mutex_lock(&state->heaps_lock);
    umo_metal_heap **at = &state->heaps[mode];
    while (*at != NULL && (buffer = UMO_METAL_SEND(api, heap_buffer, (*at)->native, size_bytes,
                                                   options)) == NULL) {
        at = &(*at)->next;
    }
    umo_metal_heap *heap = *at;
    if (heap != NULL) {
        *at = heap->next;
    } else {
        heap = heap_make(state, mode);
        if (heap != NULL) {
            buffer = UMO_METAL_SEND(api, heap_buffer, heap->native, size_bytes, options);
        }
    }
    if (buffer != NULL) {
        heap->next = state->heaps[mode];
        state->heaps[mode] = heap;
        heap->live++;
        *out_heap = heap;
    } else if (heap != NULL) {
        heap_destroy(state, heap);
    }
    (void)pthread_mutex_unlock(&state->heaps_lock);
    return buffer;
}

/* Gives a place back. An empty heap goes, unless it is the mode's only one. */
static void heap_give(umo_metal_state *state, umo_storage_mode mode, umo_metal_heap *heap)
{
    umo_metal_heap *empty = NULL;
    (void)pthread_mutex_lock(&state->heaps_lock);
    heap->live--;
    if (heap->live == 0 && (state->heaps[mode] != heap || heap->next != NULL)) {
        umo_metal_heap **at = &state->heaps[mode];
        while (*at != heap) {
            at = &(*at)->next;
        }
        *at = heap->next;
        empty = heap;
    }
    (void)pthread_mutex_unlock(&state->heaps_lock);
    if (empty != NULL) {
        heap_destroy(state, empty);
    }
}

void umo_metal_heaps_finish(umo_metal_state *state)
{
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (umo_metal_heap *heap = state->heaps[mode]; heap != NULL;) {
            umo_metal_heap *next = heap->next;
            heap_destroy(state, heap);
            heap = next;
        }
    }
}

/* ---- allocation ---- */

static bool heap_fits(const umo_metal_state *state, size_t size_bytes, umo_storage_mode mode)
{
    return size_bytes <= HEAP_MEMORY_MAX &&
           (mode == UMO_PRIVATE || (state->shared_heaps && state->unified));
}

umo_status umo_metal_alloc(void *opaque, size_t size_bytes, umo_storage_mode mode, umo_memory *out,
                           umo_error *error)
{
    umo_metal_state *state = opaque;
    const umo_metal_api *api = state->api;
    umo_metal_heap *heap = NULL;
    umo_id buffer = NULL;
    umo_status status = UMO_OK;
    void *contents = NULL;
    if (size_bytes == 0 || size_bytes > state->buffer_max_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a buffer of this Metal device has 1 to %llu bytes, not %zu",
                             (unsigned long long)state->buffer_max_bytes, size_bytes);
    }
    UMO_METAL_POOL_BEGIN(state);
    if (heap_fits(state, size_bytes, mode)) {
        buffer = heap_take(state, size_bytes, mode, &heap);
    }
    if (buffer == NULL) {
        heap = NULL;
        buffer =
            UMO_METAL_SEND(api, new_buffer, state->device, size_bytes, mode_options(state, mode));
    }
    /* A virtual machine's device may answer with an empty buffer instead of none. */
    if (buffer != NULL && mode != UMO_PRIVATE) {
        contents = UMO_METAL_SEND0(api, buffer_contents, buffer);
    }
    if (buffer == NULL || UMO_METAL_SEND0(api, buffer_length, buffer) < size_bytes ||
        (mode != UMO_PRIVATE && contents == NULL)) {
        UMO_METAL_SEND0(api, release, buffer);
        if (heap != NULL) {
            heap_give(state, mode, heap);
        }
        status =
            umo_error_set(error, UMO_E_NOMEM, 0, "Metal gives no buffer of %zu bytes", size_bytes);
    } else if (heap == NULL) {
        umo_metal_residency_add(state, buffer);
    }
    UMO_METAL_POOL_END(state);
    if (status != UMO_OK) {
        return status;
    }
    if (state->test_mode && contents != NULL) {
        memset(contents, 0xDB, size_bytes);
    }
    *out = (umo_memory){
        .host = contents,
        .native = buffer,
        .size_bytes = size_bytes,
        .mode = mode,
        .one_memory = mode == UMO_MANAGED && state->unified,
        .driver_data = heap,
    };
    return UMO_OK;
}

/* ---- imports ---- */

/* Any thread. Metal is done with the memory. */
static void import_released(umo_metal_block *block, void *pointer, umo_uint length)
{
    umo_metal_wrapped *record = block->context;
    umo_metal_state *state = record->state;
    (void)pointer;
    (void)length;
    (void)pthread_mutex_lock(&state->lock);
    record->released = true;
    (void)pthread_cond_broadcast(&state->changed);
    (void)pthread_mutex_unlock(&state->lock);
}

/*
 * Waits until Metal has let go of the memory: its owner may unmap it then. Outside of any pool of
 * ours, since a pool may hold the last reference.
 */
static void import_end(umo_metal_wrapped *record)
{
    umo_metal_state *state = record->state;
    (void)pthread_mutex_lock(&state->lock);
    while (!record->released) {
        (void)pthread_cond_wait(&state->changed, &state->lock);
    }
    (void)pthread_mutex_unlock(&state->lock);
    free(record);
}

/* Metal made no buffer. Whether it calls the deallocator all the same, and when, is not documented:
 * the record stays for the next refusals. */
static void import_orphan(umo_metal_wrapped *record)
{
    umo_metal_state *state = record->state;
    (void)pthread_mutex_lock(&state->lock);
    umo_metal_wrapped **slot = &state->orphans[state->orphan_next];
    umo_metal_wrapped *oldest = *slot;
    *slot = record;
    state->orphan_next = (state->orphan_next + 1) % UMO_METAL_ORPHANS;
    (void)pthread_mutex_unlock(&state->lock);
    free(oldest);
}

void umo_metal_imports_finish(umo_metal_state *state)
{
    for (size_t i = 0; i < UMO_METAL_ORPHANS; i++) {
        free(state->orphans[i]);
    }
}

/* Whether Metal can take the pages: they are one region that may be read and written. */
static umo_status import_check(const umo_metal_state *state, const void *data, size_t size_bytes,
                               umo_reason *why, umo_error *error)
{
    umo_reason ignored;
    why = why != NULL ? why : &ignored;
    if (size_bytes == 0 || ((uintptr_t)data | size_bytes) % state->page_bytes != 0) {
        *why = UMO_REASON_DEVICE_REFUSED;
        return umo_error_set(error, UMO_E_REFUSED, 0, "Metal wraps whole pages of %zu bytes",
                             state->page_bytes);
    }
    if (size_bytes > state->buffer_max_bytes) {
        *why = UMO_REASON_TOO_LONG;
        return umo_error_set(error, UMO_E_REFUSED, 0, "%s", umo_reason_cause(*why));
    }
    umo_mapping mapping;
    umo_status status = umo_os_mapping_query(data, &mapping);
    if (status == UMO_E_UNSUPPORTED) {
        return UMO_OK;
    }
    if (status != UMO_OK || size_bytes > mapping.end - (uintptr_t)data) {
        *why = UMO_REASON_NOT_ONE_MAPPING;
        return umo_error_set(error, UMO_E_REFUSED, 0, "%s", umo_reason_cause(*why));
    }
    if (!mapping.readable || !mapping.writable) {
        *why = UMO_REASON_READ_ONLY;
        return umo_error_set(error, UMO_E_REFUSED, 0, "%s", umo_reason_cause(*why));
    }
    return UMO_OK;
}

umo_status umo_metal_import(void *opaque, void *data, size_t size_bytes, uint32_t flags,
                            umo_memory *out, umo_reason *out_why, umo_error *error)
{
    umo_metal_state *state = opaque;
    const umo_metal_api *api = state->api;
    (void)flags; /* Metal maps for both */
    umo_status status = import_check(state, data, size_bytes, out_why, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_metal_wrapped *record = calloc(1, sizeof *record);
    if (record == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an import");
    }
    record->state = state;
    UMO_METAL_POOL_BEGIN(state);
    umo_metal_block block = umo_metal_deallocator_block(api, import_released, record);
    umo_id buffer = UMO_METAL_SEND(api, new_buffer_no_copy, state->device, data, size_bytes,
                                   UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED, &block);
    /* Empty, or a copy after all. */
    const bool wrong =
        buffer != NULL && (UMO_METAL_SEND0(api, buffer_length, buffer) < size_bytes ||
                           UMO_METAL_SEND0(api, buffer_contents, buffer) != data);
    if (wrong) {
        UMO_METAL_SEND0(api, release, buffer);
    } else if (buffer != NULL) {
        umo_metal_residency_add(state, buffer);
    }
    UMO_METAL_POOL_END(state);
    if (wrong) {
        import_end(record);
    } else if (buffer == NULL) {
        import_orphan(record);
    }
    if (wrong || buffer == NULL) {
        return umo_error_set(error, UMO_E_REFUSED, 0, "Metal does not wrap this memory");
    }
    *out = (umo_memory){
        .host = data,
        .native = buffer,
        .size_bytes = size_bytes,
        .mode = UMO_UNIFIED,
        .imported = true,
        .driver_data = record,
    };
    return UMO_OK;
}

void umo_metal_free(void *opaque, umo_memory *memory)
{
    umo_metal_state *state = opaque;
    UMO_METAL_POOL_BEGIN(state);
    if (!memory->imported && memory->driver_data != NULL) {
        UMO_METAL_SEND0(state->api, release, memory->native);
        heap_give(state, memory->mode, memory->driver_data);
    } else {
        umo_metal_residency_remove(state, memory->native);
        UMO_METAL_SEND0(state->api, release, memory->native);
    }
    UMO_METAL_POOL_END(state);
    if (memory->imported) {
        import_end(memory->driver_data);
    }
}

umo_status umo_metal_purgeable(void *opaque, umo_memory *memory, umo_purgeable want, bool *out_lost)
{
    static const umo_uint states[] = {
        [UMO_PURGEABLE_KEPT] = UMO_MTL_PURGEABLE_NON_VOLATILE,
        [UMO_PURGEABLE_VOLATILE] = UMO_MTL_PURGEABLE_VOLATILE,
        [UMO_PURGEABLE_EMPTY] = UMO_MTL_PURGEABLE_EMPTY,
    };
    umo_metal_state *state = opaque;
    if ((unsigned)want >= sizeof states / sizeof states[0]) {
        return UMO_E_INVAL;
    }
    /* A heap is purged as a whole, and imported memory is not Metal's to purge. */
    if (memory->imported || memory->driver_data != NULL) {
        return UMO_E_UNSUPPORTED;
    }
    UMO_METAL_POOL_BEGIN(state);
    /* Wired memory cannot be purged. */
    if (want != UMO_PURGEABLE_KEPT) {
        umo_metal_residency_remove(state, memory->native);
    }
    umo_uint was = UMO_METAL_SEND(state->api, resource_purgeable, memory->native, states[want]);
    if (want == UMO_PURGEABLE_KEPT) {
        umo_metal_residency_add(state, memory->native);
        *out_lost = was == UMO_MTL_PURGEABLE_EMPTY;
    }
    UMO_METAL_POOL_END(state);
    return UMO_OK;
}
