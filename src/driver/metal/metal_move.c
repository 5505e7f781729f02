/*
 * Movement of bytes in the Metal driver: between the sides of PRIVATE and Managed memory, and
 * between two memories.
 *
 * Blits take offsets and lengths in whole words; everything else goes through a kernel that copies
 * bytes. Host memory joins a blit by being wrapped, if it is long and its pages allow it, else
 * through staging memory.
 */
#include "driver/metal/metal_state.h"

#include "base/size.h"

#include <string.h>

/* Offsets and lengths of a blit between buffers are multiples of this on macOS. */
#define BLIT_ALIGN 4u

/* Shorter ranges go through staging memory: a copy costs less than a wrap. */
#define WRAP_MIN_BYTES ((size_t)256 << 10)

static umo_id copier_get(umo_metal_state *state)
{
    (void)pthread_mutex_lock(&state->copier_lock);
    if (state->copier == NULL) {
        state->copier = umo_metal_pipeline_simple(state, umo_metal_copy_text, "umo_copy_bytes");
    }
    umo_id copier = state->copier;
    (void)pthread_mutex_unlock(&state->copier_lock);
    return copier;
}

/* A place in a Metal buffer. */
typedef struct place {
    umo_id buffer;
    size_t offset_bytes;
} place;

static bool blit_fits(place from, place to, size_t size_bytes)
{
    return ((from.offset_bytes | to.offset_bytes | size_bytes) & (BLIT_ALIGN - 1)) == 0;
}

/* Encodes a copy of bytes. copier is NULL where a blit will do. */
static umo_status copy_encode(umo_metal_encoding *encoding, umo_id copier, place from, place to,
                              size_t size_bytes)
{
    const umo_metal_api *api = encoding->state->api;
    if (copier == NULL) {
        if (!umo_metal_blit_begin(encoding)) {
            return UMO_E_DEVICE;
        }
        UMO_METAL_SEND(api, blit_copy, encoding->encoder, from.buffer, from.offset_bytes, to.buffer,
                       to.offset_bytes, size_bytes);
        return UMO_OK;
    }
    if (!umo_metal_compute_begin(encoding)) {
        return UMO_E_DEVICE;
    }
    /* A position in the grid has 32 bits. */
    const size_t most = (size_t)1 << 31;
    const umo_uint width = UMO_METAL_SEND0(api, pipeline_width, copier);
    const umo_mtl_size group = {width, 1, 1};
    UMO_METAL_SEND(api, compute_pipeline, encoding->encoder, copier);
    for (size_t at = 0; at < size_bytes; at += most) {
        const umo_mtl_size grid = {size_bytes - at < most ? size_bytes - at : most, 1, 1};
        UMO_METAL_SEND(api, compute_buffer, encoding->encoder, to.buffer, to.offset_bytes + at, 0);
        UMO_METAL_SEND(api, compute_buffer, encoding->encoder, from.buffer, from.offset_bytes + at,
                       1);
        UMO_METAL_SEND(api, compute_dispatch, encoding->encoder, grid, group);
    }
    return UMO_OK;
}

/*
 * Gives one copy as a command. kept, a Metal object or NULL, is let go when it has ended; step is
 * what the host does then.
 */
static umo_status copy_give(umo_metal_state *state, uint32_t queue, place from, place to,
                            size_t size_bytes, umo_id kept, const umo_metal_host_step *step,
                            const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    umo_id copier = NULL;
    umo_status status = UMO_OK;
    if (!blit_fits(from, to, size_bytes)) {
        copier = copier_get(state);
        status = copier != NULL ? UMO_OK : UMO_E_DEVICE;
    }
    umo_metal_encoding encoding;
    if (status == UMO_OK) {
        status = umo_metal_command_begin(state, queue, waits, wait_count, &encoding);
    }
    if (status != UMO_OK) {
        UMO_METAL_SEND0(state->api, release, kept);
        return status;
    }
    umo_metal_command_keep(&encoding, kept);
    status = copy_encode(&encoding, copier, from, to, size_bytes);
    if (step != NULL) {
        encoding.command->step = *step;
    }
    return umo_metal_command_end(&encoding, status, out);
}

umo_status umo_metal_copy(void *opaque, uint32_t queue, const umo_memory *source,
                          size_t source_offset_bytes, umo_memory *target,
                          size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                          size_t wait_count, umo_fence *out)
{
    umo_metal_state *state = opaque;
    if (size_bytes == 0 || !umo_range_fits(source_offset_bytes, size_bytes, source->size_bytes) ||
        !umo_range_fits(target_offset_bytes, size_bytes, target->size_bytes)) {
        return UMO_E_INVAL;
    }
    UMO_METAL_POOL_BEGIN(state);
    umo_status status =
        copy_give(state, queue, (place){source->native, source->offset_bytes + source_offset_bytes},
                  (place){target->native, target->offset_bytes + target_offset_bytes}, size_bytes,
                  NULL, NULL, waits, wait_count, out);
    UMO_METAL_POOL_END(state);
    return status;
}

/*
 * The pages around host memory as a Metal buffer, where they are one region and nothing else is
 * written back with them; NULL where staging memory has to do.
 */
static umo_id host_wrap(const umo_metal_state *state, void *host, size_t size_bytes, bool written,
                        size_t *out_offset_bytes)
{
    const uintptr_t start = (uintptr_t)host;
    const uintptr_t first = umo_round_down(start, state->page_bytes);
    size_t wide;
    umo_mapping mapping;
    if (size_bytes < WRAP_MIN_BYTES ||
        (written && ((start | (start + size_bytes)) & (state->granule_bytes - 1)) != 0) ||
        !umo_round_up((size_t)(start - first) + size_bytes, state->page_bytes, &wide) ||
        wide > state->buffer_max_bytes || umo_os_mapping_query(host, &mapping) != UMO_OK ||
        first < mapping.start || wide > mapping.end - first || !mapping.readable ||
        !mapping.writable) {
        return NULL;
    }
    umo_id buffer = UMO_METAL_SEND(state->api, new_buffer_no_copy, state->device, (void *)first,
                                   wide, UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED, NULL);
    if (buffer != NULL && (UMO_METAL_SEND0(state->api, buffer_length, buffer) < wide ||
                           UMO_METAL_SEND0(state->api, buffer_contents, buffer) != (void *)first)) {
        UMO_METAL_SEND0(state->api, release, buffer);
        buffer = NULL;
    }
    *out_offset_bytes = (size_t)(start - first);
    return buffer;
}

/* Staging memory; NULL when Metal has none. */
static umo_id staging_make(const umo_metal_state *state, size_t size_bytes, bool host_reads,
                           void **out_contents)
{
    const umo_metal_api *api = state->api;
    /* The host reads write-combined memory very slowly. */
    const umo_uint cache = host_reads ? 0 : UMO_MTL_WRITE_COMBINED;
    umo_id buffer = UMO_METAL_SEND(api, new_buffer, state->device, size_bytes,
                                   UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED | cache);
    void *contents = buffer != NULL ? UMO_METAL_SEND0(api, buffer_contents, buffer) : NULL;
    if (contents == NULL || UMO_METAL_SEND0(api, buffer_length, buffer) < size_bytes) {
        UMO_METAL_SEND0(api, release, buffer);
        return NULL;
    }
    *out_contents = contents;
    return buffer;
}

/* Whether everything that is waited for has ended, so that the host may look at the bytes now. */
static bool waits_ended(umo_metal_state *state, const umo_fence *waits, size_t wait_count)
{
    for (size_t i = 0; i < wait_count; i++) {
        if (waits[i].value != 0 && !umo_metal_queue_done(state, waits[i].queue, waits[i].value)) {
            return false;
        }
    }
    return true;
}

static umo_status staged_in(umo_metal_state *state, uint32_t queue, const void *host, place to,
                            size_t size_bytes, const umo_fence *waits, size_t wait_count,
                            umo_fence *out)
{
    void *contents = NULL;
    umo_id staging = staging_make(state, size_bytes, false, &contents);
    if (staging == NULL) {
        return UMO_E_NOMEM;
    }
    umo_fence filled = {0};
    if (waits_ended(state, waits, wait_count)) {
        memcpy(contents, host, size_bytes);
    } else {
        /* The host's bytes may still be coming: their copy is a command of its own. */
        const umo_metal_host_step step = {.kind = UMO_METAL_STEP_COPY,
                                          .target = contents,
                                          .source = host,
                                          .size_bytes = size_bytes};
        /* Each has a reference: a copy that fails ends before the step that writes for it. */
        umo_id mine = UMO_METAL_SEND0(state->api, retain, staging);
        umo_status status =
            umo_metal_host_step_give(state, queue, &step, mine, waits, wait_count, &filled);
        if (status != UMO_OK) {
            UMO_METAL_SEND0(state->api, release, staging);
            return status;
        }
        status = copy_give(state, queue, (place){staging, 0}, to, size_bytes, staging, NULL,
                           &filled, 1, out);
        if (status != UMO_OK) {
            /* The step reads the host's bytes until it has ended. */
            (void)umo_metal_queue_wait(state, filled.queue, filled.value, UINT64_MAX);
        }
        return status;
    }
    return copy_give(state, queue, (place){staging, 0}, to, size_bytes, staging, NULL, waits,
                     wait_count, out);
}

static umo_status staged_out(umo_metal_state *state, uint32_t queue, place from, void *host,
                             size_t size_bytes, const umo_fence *waits, size_t wait_count,
                             umo_fence *out)
{
    void *contents = NULL;
    umo_id staging = staging_make(state, size_bytes, true, &contents);
    if (staging == NULL) {
        return UMO_E_NOMEM;
    }
    const umo_metal_host_step step = {
        .kind = UMO_METAL_STEP_COPY, .target = host, .source = contents, .size_bytes = size_bytes};
    return copy_give(state, queue, from, (place){staging, 0}, size_bytes, staging, &step, waits,
                     wait_count, out);
}

/* Between host memory anywhere and the device side. */
static umo_status private_transfer(umo_metal_state *state, uint32_t queue, const umo_memory *memory,
                                   umo_side to, size_t offset_bytes, size_t size_bytes, void *host,
                                   const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    const place device = {memory->native, memory->offset_bytes + offset_bytes};
    place wrapped = {0};
    wrapped.buffer = host_wrap(state, host, size_bytes, to == UMO_SIDE_HOST, &wrapped.offset_bytes);
    if (wrapped.buffer != NULL) {
        return to == UMO_SIDE_DEVICE ? copy_give(state, queue, wrapped, device, size_bytes,
                                                 wrapped.buffer, NULL, waits, wait_count, out)
                                     : copy_give(state, queue, device, wrapped, size_bytes,
                                                 wrapped.buffer, NULL, waits, wait_count, out);
    }
    return to == UMO_SIDE_DEVICE
               ? staged_in(state, queue, host, device, size_bytes, waits, wait_count, out)
               : staged_out(state, queue, device, host, size_bytes, waits, wait_count, out);
}

/*
 * Managed memory of a GPU with a memory of its own. Bytes that are not its own host side are copied
 * to or from the device side, as private memory's are. Else didModifyRange: acts at once, so
 * commands before it are waited for here; brackets have let the host wait already, so there is
 * seldom one. To the host, synchronizeResource: would bring old bytes over new ones of the host
 * beside the range: only the whole memory is synchronised, a part is copied.
 */
static umo_status managed_transfer(umo_metal_state *state, uint32_t queue, umo_memory *memory,
                                   umo_side to, size_t offset_bytes, size_t size_bytes, void *host,
                                   const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    const umo_metal_api *api = state->api;
    if (host != (char *)memory->host + offset_bytes) {
        return private_transfer(state, queue, memory, to, offset_bytes, size_bytes, host, waits,
                                wait_count, out);
    }
    if (to == UMO_SIDE_DEVICE) {
        for (size_t i = 0; i < wait_count; i++) {
            umo_status status =
                umo_metal_queue_wait(state, waits[i].queue, waits[i].value, UINT64_MAX);
            if (status != UMO_OK) {
                return status;
            }
        }
        UMO_METAL_SEND(api, buffer_modified, memory->native,
                       ((umo_ns_range){memory->offset_bytes + offset_bytes, size_bytes}));
        const umo_metal_host_step nothing = {.kind = UMO_METAL_STEP_NONE};
        return umo_metal_host_step_give(state, queue, &nothing, NULL, NULL, 0, out);
    }
    if (size_bytes < memory->size_bytes) {
        return staged_out(state, queue,
                          (place){memory->native, memory->offset_bytes + offset_bytes}, host,
                          size_bytes, waits, wait_count, out);
    }
    umo_metal_encoding encoding;
    umo_status status = umo_metal_command_begin(state, queue, waits, wait_count, &encoding);
    if (status != UMO_OK) {
        return status;
    }
    if (umo_metal_blit_begin(&encoding)) {
        UMO_METAL_SEND(api, blit_synchronize, encoding.encoder, memory->native);
    } else {
        status = UMO_E_DEVICE;
    }
    return umo_metal_command_end(&encoding, status, out);
}

umo_status umo_metal_transfer(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                              size_t offset_bytes, size_t size_bytes, void *host,
                              const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    umo_metal_state *state = opaque;
    if (memory->mode == UMO_UNIFIED || memory->one_memory || host == NULL || size_bytes == 0 ||
        !umo_range_fits(offset_bytes, size_bytes, memory->size_bytes)) {
        return UMO_E_INVAL;
    }
    UMO_METAL_POOL_BEGIN(state);
    umo_status status = memory->mode == UMO_MANAGED
                            ? managed_transfer(state, queue, memory, to, offset_bytes, size_bytes,
                                               host, waits, wait_count, out)
                            : private_transfer(state, queue, memory, to, offset_bytes, size_bytes,
                                               host, waits, wait_count, out);
    UMO_METAL_POOL_END(state);
    return status;
}

umo_status umo_metal_poison(void *opaque, uint32_t queue, umo_memory *memory, umo_side side,
                            size_t offset_bytes, size_t size_bytes, void *host,
                            const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    umo_metal_state *state = opaque;
    if (!umo_range_fits(offset_bytes, size_bytes, memory->size_bytes)) {
        return UMO_E_INVAL;
    }
    if (side == UMO_SIDE_HOST) {
        const umo_metal_host_step step = {
            .kind = UMO_METAL_STEP_POISON, .target = host, .size_bytes = size_bytes};
        return umo_metal_host_step_give(state, queue, &step, NULL, waits, wait_count, out);
    }
    /* A fill takes whole words; the ends that are none stay as they are. */
    const size_t first = memory->offset_bytes + offset_bytes;
    const size_t from = (first + BLIT_ALIGN - 1) & ~(size_t)(BLIT_ALIGN - 1);
    const size_t to = (first + size_bytes) & ~(size_t)(BLIT_ALIGN - 1);
    umo_metal_encoding encoding;
    umo_status status = umo_metal_command_begin(state, queue, waits, wait_count, &encoding);
    if (status != UMO_OK) {
        return status;
    }
    if (from < to && umo_metal_blit_begin(&encoding)) {
        UMO_METAL_SEND(state->api, blit_fill, encoding.encoder, memory->native,
                       ((umo_ns_range){from, to - from}), 0xDB);
    }
    return umo_metal_command_end(&encoding, UMO_OK, out);
}
