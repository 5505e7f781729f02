/*
 * Memory from the optimizer: movable, wrapped, in batches, and out of pools.
 */
#include "base/size.h"
#include "context/optimizer_state.h"
#include "context/worker.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "mem/events.h"
#include "mem/nodes.h"
#include "mem/record.h"

#include <assert.h>
#include <stdlib.h>

/* The mode for a new buffer on a device. */
static umo_status mode_choose(optimizer *o, umo_device *device, size_t size_bytes,
                              umo_pattern pattern, umo_storage_mode *out, umo_error *error)
{
    if (size_bytes == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a buffer has at least one byte");
    }
    *out = umo_placer_initial(o->placer, device, size_bytes, pattern);
    return UMO_OK;
}

/* The running optimizer and one of its devices, each with a reference; nothing on an error. */
static umo_status device_enter(uint32_t number, optimizer **o, umo_device **device,
                               umo_error *error)
{
    umo_status status = umo_optimizer_enter(o, error);
    if (status == UMO_OK) {
        status = umo_optimizer_device(*o, number, device, error);
        if (status != UMO_OK) {
            umo_optimizer_leave(*o);
        }
    }
    return status;
}

static void device_leave(optimizer *o, umo_device *device)
{
    umo_device_release(device);
    umo_optimizer_leave(o);
}

umo_status umo_optimizer_mode(size_t size_bytes, umo_pattern pattern, uint32_t device,
                              umo_storage_mode *out, umo_error *error)
{
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    status = mode_choose(o, opened, size_bytes, pattern, out, error);
    device_leave(o, opened);
    return status;
}

/* Has a buffer found by its address and its uses counted. It is a buffer without that too. */
static void found_by_address(umo_buffer *buffer, umo_pattern pattern)
{
    umo_status_ignore(umo_buffer_track(buffer));
    umo_status_ignore(umo_buffer_set_pattern(buffer, pattern));
}

/* There is a new buffer to look after. */
static void worker_kick(optimizer *o)
{
    if (o->worker != NULL) {
        umo_placement_worker_kick(o->worker);
    }
}

static void alloc_tell(optimizer *o, umo_buffer *buffer, size_t size_bytes, umo_pattern pattern)
{
    found_by_address(buffer, pattern);
    UMO_TRACE_BUFFER(buffer, umo_context_scope(o->context), .kind = UMO_EVENT_PLACEMENT,
                     .size_bytes = size_bytes,
                     .detail = (uint32_t)UMO_WHY_NEW | (uint32_t)pattern << 8);
    worker_kick(o);
}

/* Movable where the device can, else fixed: a device without memory that it could move to. */
static umo_status movable_alloc(optimizer *o, umo_device *device, size_t size_bytes,
                                umo_pattern pattern, umo_buffer **out, umo_error *error)
{
    umo_storage_mode mode = UMO_UNIFIED;
    umo_status status = mode_choose(o, device, size_bytes, pattern, &mode, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_scope *scope = umo_context_scope(o->context);
    status = umo_buffer_alloc_movable(device, scope, size_bytes, mode, out, error);
    if (status == UMO_E_UNSUPPORTED) {
        status = umo_buffer_alloc(device, scope, size_bytes, mode, out, error);
    }
    if (status == UMO_OK) {
        assert(out != NULL);
        alloc_tell(o, *out, size_bytes, pattern);
    }
    return status;
}

umo_status umo_optimizer_alloc(size_t size_bytes, umo_pattern pattern, uint32_t device,
                               umo_buffer **out, umo_error *error)
{
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    status = movable_alloc(o, opened, size_bytes, pattern, out, error);
    device_leave(o, opened);
    return status;
}

/* Memory of the host alone is on a node that anybody can choose. */
static umo_status placed_alloc(optimizer *o, umo_device *device, size_t size_bytes, int32_t node,
                               umo_buffer **out, umo_error *error)
{
    umo_storage_mode mode = UMO_PRIVATE;
    umo_status status = mode_choose(o, device, size_bytes, UMO_PATTERN_UNKNOWN, &mode, error);
    if (status == UMO_OK && mode != UMO_UNIFIED) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "device '%s' keeps buffers in memory of its own, which has no node",
                               umo_device_info_get(device)->name);
    }
    if (status == UMO_OK) {
        status = umo_buffer_alloc_movable_on(device, umo_context_scope(o->context), size_bytes,
                                             mode, node, out, error);
    }
    if (status == UMO_OK) {
        assert(out != NULL);
        alloc_tell(o, *out, size_bytes, UMO_PATTERN_UNKNOWN);
    }
    return status;
}

umo_status umo_optimizer_alloc_numa(size_t size_bytes, int32_t node, uint32_t device,
                                    umo_buffer **out, umo_error *error)
{
    if (node == UMO_NUMA_ANY) {
        return umo_optimizer_alloc(size_bytes, UMO_PATTERN_UNKNOWN, device, out, error);
    }
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    status = placed_alloc(o, opened, size_bytes, node, out, error);
    device_leave(o, opened);
    return status;
}

umo_status umo_optimizer_wrap(void *data, size_t size_bytes, uint32_t device, umo_buffer **out,
                              umo_error *error)
{
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    if (!o->config.zero_copy) {
        status = umo_error_set(error, UMO_E_REFUSED, 0, "zero copy is off in the configuration");
    }
    if (status == UMO_OK) {
        const umo_import import = {.data = data, .size_bytes = size_bytes, .writable = true};
        status =
            umo_buffer_import(opened, umo_context_scope(o->context), &import, out, NULL, error);
    }
    if (status == UMO_OK) {
        found_by_address(*out, UMO_PATTERN_UNKNOWN);
    }
    device_leave(o, opened);
    return status;
}

static void parent_release(void *data, void *user)
{
    (void)data;
    umo_buffer_release(user);
}

/* Where the buffers of a batch lie in their piece, each on whole pages of the device. */
typedef struct batch_layout {
    const size_t *sizes;
    size_t *offsets;
    size_t count;
    size_t page_bytes;
    size_t align_bytes; /* of the piece, a page or more */
    size_t bytes;
    bool shared; /* some lie on bytes of others */
} batch_layout;

static size_t batch_page(const umo_device_info *info)
{
    size_t page = info->import_align_bytes;
    page = page < info->import_size_align_bytes ? info->import_size_align_bytes : page;
    return page < info->alloc_align_bytes ? info->alloc_align_bytes : page;
}

/* One behind the other; false on overflow. */
static bool batch_line_up(batch_layout *layout)
{
    size_t sum = 0;
    for (size_t i = 0; i < layout->count; i++) {
        size_t padded;
        layout->offsets[i] = sum;
        if (!umo_round_up(layout->sizes[i], layout->page_bytes, &padded) ||
            __builtin_add_overflow(sum, padded, &sum)) {
            return false;
        }
    }
    layout->bytes = sum;
    layout->align_bytes = layout->page_bytes;
    layout->shared = false;
    return true;
}

/* The piece, from the host, and where the first buffer may begin in it. */
static umo_status piece_alloc(optimizer *o, const batch_layout *layout, umo_buffer **piece,
                              size_t *start, umo_error *error)
{
    /* The host's driver aligns to a page. */
    const size_t slack = layout->align_bytes - layout->page_bytes;
    size_t bytes;
    if (__builtin_add_overflow(layout->bytes, slack, &bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the sizes of a batch overflow");
    }
    umo_device *host = NULL;
    umo_status status = umo_context_device(o->context, "host", 0, &host, error);
    if (status != UMO_OK) {
        return status;
    }
    status =
        umo_buffer_alloc(host, umo_context_scope(o->context), bytes, UMO_UNIFIED, piece, error);
    umo_device_release(host);
    if (status != UMO_OK) {
        return status;
    }
    umo_record_close(*piece); /* its parts are what is used, found and counted */
    const uintptr_t at = (uintptr_t)umo_buffer_host(*piece);
    *start = slack > 0 ? (size_t)(-at & (layout->align_bytes - 1)) : 0;
    return UMO_OK;
}

static umo_status part_cut(optimizer *o, umo_device *device, umo_buffer *piece, size_t at,
                           size_t size_bytes, umo_buffer **out, umo_error *error)
{
    const umo_import import = {.data = (char *)umo_buffer_host(piece) + at,
                               .size_bytes = size_bytes,
                               .writable = true,
                               .whole_pages = true,
                               .deleter = parent_release,
                               .user = piece};
    umo_buffer_acquire(piece);
    umo_status status = umo_buffer_import_uncounted(device, umo_context_scope(o->context), &import,
                                                    out, NULL, error);
    if (status != UMO_OK) {
        umo_buffer_release(piece);
        return status;
    }
    umo_buffer_make_inner(*out);
    return UMO_OK;
}

/* One allocation cut into buffers that hold it together. */
static umo_status batch_cut(optimizer *o, umo_device *device, const batch_layout *layout,
                            umo_pattern pattern, umo_buffer **made, umo_error *error)
{
    umo_buffer *piece = NULL;
    size_t start = 0;
    umo_status status = piece_alloc(o, layout, &piece, &start, error);
    size_t done = 0;
    while (status == UMO_OK && done < layout->count) {
        const size_t at = start + layout->offsets[done];
        status = part_cut(o, device, piece, at, layout->sizes[done], &made[done], error);
        if (status != UMO_OK) {
            break;
        }
        assert(made != NULL);
        if (layout->shared) {
            umo_buffer_share_piece(made[done], piece, at); /* and no page is its own */
        } else {
            umo_buffer_own_pages(made[done]);
        }
        found_by_address(made[done], pattern);
        done++;
    }
    while (status != UMO_OK && done > 0) {
        umo_buffer_release(made[--done]);
    }
    umo_buffer_release(piece);
    return status;
}

static umo_status batch_each(optimizer *o, umo_device *device, const size_t *sizes, size_t count,
                             umo_pattern pattern, umo_buffer **made, umo_error *error)
{
    assert(made != NULL);
    size_t done = 0;
    umo_status status = UMO_OK;
    while (status == UMO_OK && done < count) {
        status = movable_alloc(o, device, sizes[done], pattern, &made[done], error);
        done += status == UMO_OK ? 1 : 0;
    }
    while (status != UMO_OK && done > 0) {
        umo_buffer_release(made[--done]);
    }
    return status;
}

/* In one piece only where no buffer of the batch would ever want to move. */
static umo_status batch_alloc(optimizer *o, umo_device *device, batch_layout *layout,
                              umo_pattern pattern, umo_buffer **made, umo_error *error)
{
    for (size_t i = 0; i < layout->count; i++) {
        if (layout->sizes[i] == 0) {
            return umo_error_set(error, UMO_E_INVAL, 0, "a buffer has at least one byte");
        }
    }
    if (layout->count > 0 && umo_device_info_get(device)->unified) {
        if (!batch_line_up(layout)) {
            return umo_error_set(error, UMO_E_INVAL, 0, "the sizes of a batch overflow");
        }
        umo_status status = batch_cut(o, device, layout, pattern, made, error);
        if (status != UMO_E_REFUSED) {
            return status;
        }
    }
    return batch_each(o, device, layout->sizes, layout->count, pattern, made, error);
}

/* Hands out what was made, and tells the worker. */
static void batch_done(optimizer *o, umo_buffer *const *made, size_t count, umo_buffer **out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = made[i];
    }
    if (o->nodes != NULL) {
        worker_kick(o);
    }
}

umo_status umo_optimizer_alloc_batch(const size_t *sizes, size_t count, umo_pattern pattern,
                                     uint32_t device, umo_buffer **out, umo_error *error)
{
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_buffer **made = calloc(count + 1, sizeof *made);
    batch_layout layout = {.sizes = sizes,
                           .offsets = calloc(count + 1, sizeof *layout.offsets),
                           .count = count,
                           .page_bytes = batch_page(umo_device_info_get(opened))};
    if (made == NULL || layout.offsets == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a batch");
    } else {
        status = batch_alloc(o, opened, &layout, pattern, made, error);
        if (status == UMO_OK) {
            batch_done(o, made, count, out);
        }
    }
    free(layout.offsets);
    free(made);
    device_leave(o, opened);
    return status;
}

/* ---- batches with lifetimes ---- */

enum {
    /* As many as find the shortest piece for a model's tensors many times over, and some 20 ms. */
    PLAN_NODES = 20000
};

/* Buffers with lifetimes on their way to be made. */
typedef struct planned_batch {
    umo_plan_buffer *padded; /* on whole pages */
    int64_t *places;
    size_t *sizes;
    umo_buffer **made;
    batch_layout layout;
    umo_plan_result plan;
} planned_batch;

static void planned_finish(planned_batch *batch)
{
    free(batch->padded);
    free(batch->places);
    free(batch->sizes);
    free(batch->layout.offsets);
    free(batch->made);
}

static umo_status planned_init(planned_batch *batch, size_t count, size_t page_bytes,
                               umo_error *error)
{
    *batch = (planned_batch){.padded = calloc(count + 1, sizeof *batch->padded),
                             .places = calloc(count + 1, sizeof *batch->places),
                             .sizes = calloc(count + 1, sizeof *batch->sizes),
                             .made = calloc(count + 1, sizeof *batch->made)};
    batch->layout = (batch_layout){.sizes = batch->sizes,
                                   .offsets = calloc(count + 1, sizeof *batch->layout.offsets),
                                   .count = count,
                                   .page_bytes = page_bytes,
                                   .align_bytes = page_bytes,
                                   .shared = true};
    if (batch->padded == NULL || batch->places == NULL || batch->sizes == NULL ||
        batch->made == NULL || batch->layout.offsets == NULL) {
        planned_finish(batch);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a batch");
    }
    return UMO_OK;
}

/* A device binds whole pages, so no two buffers in use at once may have one of them together. */
static umo_status planned_pad(planned_batch *batch, const umo_plan_buffer *lifetimes,
                              umo_error *error)
{
    batch_layout *layout = &batch->layout;
    for (size_t i = 0; i < layout->count; i++) {
        const uint64_t align = lifetimes[i].align_bytes;
        size_t size_bytes = 0;
        size_t padded = 0;
        if ((align & (align - 1)) != 0) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "buffer %zu: an alignment of %llu is no power of two", i,
                                 (unsigned long long)align);
        }
        if (align > UMO_PLAN_BYTES_MAX || lifetimes[i].size_bytes > UMO_PLAN_BYTES_MAX ||
            __builtin_add_overflow(lifetimes[i].size_bytes, 0, &size_bytes) ||
            !umo_round_up(size_bytes, layout->page_bytes, &padded) || padded > INT64_MAX) {
            return umo_error_set(error, UMO_E_INVAL, 0, "buffer %zu is longer than memory can be",
                                 i);
        }
        const size_t aligned = align > layout->page_bytes ? (size_t)align : layout->page_bytes;
        layout->align_bytes = aligned > layout->align_bytes ? aligned : layout->align_bytes;
        batch->sizes[i] = size_bytes;
        batch->padded[i] = lifetimes[i];
        batch->padded[i].size_bytes = padded;
        batch->padded[i].align_bytes = aligned;
    }
    return UMO_OK;
}

static umo_status planned_place(planned_batch *batch, umo_error *error)
{
    umo_plan_options options;
    umo_plan_options_init(&options);
    options.time_limit_ns = 0; /* the same plan everywhere */
    options.node_limit = PLAN_NODES;
    batch_layout *layout = &batch->layout;
    umo_status status =
        umo_plan(batch->padded, layout->count, &options, batch->places, &batch->plan, error);
    if (status != UMO_OK) {
        return status;
    }
    for (size_t i = 0; i < layout->count; i++) {
        layout->offsets[i] = (size_t)batch->places[i];
    }
    layout->bytes = (size_t)batch->plan.peak_bytes;
    return UMO_OK;
}

/* Together where one memory is all that there is. A device that keeps copies of what it binds would
 * write one buffer's back over the next one's bytes. */
static bool shares_bytes(const umo_device_info *info)
{
    return info->unified && (info->caps & UMO_CAP_COHERENT) != 0;
}

static umo_status planned_make(optimizer *o, umo_device *device, planned_batch *batch,
                               umo_pattern pattern, umo_error *error)
{
    batch_layout *layout = &batch->layout;
    if (layout->count > 0 && shares_bytes(umo_device_info_get(device))) {
        umo_status status = batch_cut(o, device, layout, pattern, batch->made, error);
        if (status != UMO_E_REFUSED) {
            return status;
        }
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < layout->count; i++) {
        sum += batch->padded[i].size_bytes;
    }
    umo_status status = batch_alloc(o, device, layout, pattern, batch->made, error);
    batch->plan.peak_bytes = (int64_t)sum; /* that there is room for it has just been seen */
    batch->plan.proof = layout->count > 0 ? UMO_PLAN_OPEN : batch->plan.proof;
    return status;
}

static umo_status planned_alloc(optimizer *o, umo_device *device, const umo_plan_buffer *lifetimes,
                                size_t count, umo_pattern pattern, umo_buffer **out,
                                umo_plan_result *plan, umo_error *error)
{
    planned_batch batch;
    umo_status status = planned_init(&batch, count, batch_page(umo_device_info_get(device)), error);
    if (status != UMO_OK) {
        return status;
    }
    status = planned_pad(&batch, lifetimes, error);
    if (status == UMO_OK) {
        status = planned_place(&batch, error);
    }
    if (status == UMO_OK) {
        status = planned_make(o, device, &batch, pattern, error);
    }
    if (status == UMO_OK) {
        batch_done(o, batch.made, count, out);
        if (plan != NULL) {
            *plan = batch.plan;
        }
    }
    planned_finish(&batch);
    return status;
}

umo_status umo_optimizer_alloc_planned(const umo_plan_buffer *lifetimes, size_t count,
                                       umo_pattern pattern, uint32_t device, umo_buffer **out,
                                       umo_plan_result *plan, umo_error *error)
{
    if (count > UMO_PLAN_BUFFERS_MAX || (count > 0 && (lifetimes == NULL || out == NULL))) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a batch of %zu buffers needs their %s", count,
                             count > UMO_PLAN_BUFFERS_MAX ? "number to be smaller" : "lifetimes");
    }
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    status = planned_alloc(o, opened, lifetimes, count, pattern, out, plan, error);
    device_leave(o, opened);
    return status;
}

/* The lock is held, for these two too. */
static optimizer_pool *pool_look(const optimizer *o, const umo_device *device,
                                 umo_storage_mode mode, int32_t node)
{
    optimizer_pool *entry = o->pools;
    while (entry != NULL &&
           (entry->device != device || entry->mode != mode || entry->node != node)) {
        entry = entry->next;
    }
    return entry;
}

static umo_status pool_make(optimizer *o, umo_device *device, umo_storage_mode mode, int32_t node,
                            optimizer_pool **out, umo_error *error)
{
    optimizer_pool *entry = calloc(1, sizeof *entry);
    if (entry == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a pool");
    }
    umo_pool_options options = {.device = device,
                                .scope = umo_context_scope(o->context),
                                .mode = mode,
                                .align_bytes = o->config.cache_line_bytes,
                                .one_node = node != UMO_NUMA_ANY,
                                .numa_node = node};
    for (size_t i = 0; i < UMO_OPTIMIZER_CLASSES; i++) {
        options.keep_bytes_max += o->config.classes[i].size_bytes * o->config.classes[i].count;
    }
    umo_status status = umo_pool_create(&options, &entry->pool, error);
    if (status != UMO_OK) {
        free(entry);
        return status;
    }
    umo_device_acquire(device);
    entry->device = device;
    entry->mode = mode;
    entry->node = node;
    entry->next = o->pools;
    o->pools = entry;
    *out = entry;
    return UMO_OK;
}

/* The node whose pool a thread takes from. */
static int32_t node_here(const optimizer *o)
{
    int home = o->nodes != NULL ? umo_numa_home(o->nodes, umo_numa_node_here()) : -1;
    return home >= 0 ? o->nodes->nodes[home].id : UMO_NUMA_ANY;
}

/* The pool for a device, a mode and the calling thread's node, made at its first use. Where pools
 * cannot be on a node there is one for all of them, as without nodes. */
static umo_status pool_find(optimizer *o, umo_device *device, umo_storage_mode mode, umo_pool **out,
                            umo_error *error)
{
    const int32_t node = node_here(o);
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&o->lock);
    optimizer_pool *entry = pool_look(o, device, mode, node);
    if (entry == NULL && node != UMO_NUMA_ANY) {
        entry = pool_look(o, device, mode, UMO_NUMA_ANY);
    }
    if (entry == NULL) {
        status = pool_make(o, device, mode, node, &entry, error);
    }
    if (node != UMO_NUMA_ANY && status != UMO_OK && status != UMO_E_NOMEM) {
        status = pool_make(o, device, mode, UMO_NUMA_ANY, &entry, error);
    }
    if (status == UMO_OK) {
        assert(entry != NULL);
        *out = entry->pool;
    }
    (void)pthread_mutex_unlock(&o->lock);
    return status;
}

umo_status umo_optimizer_take(size_t size_bytes, umo_pattern pattern, uint32_t device,
                              umo_buffer **out, umo_error *error)
{
    optimizer *o;
    umo_device *opened;
    umo_status status = device_enter(device, &o, &opened, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_pool *pool = NULL;
    umo_storage_mode mode = UMO_UNIFIED;
    status = mode_choose(o, opened, size_bytes, pattern, &mode, error);
    if (status == UMO_OK) {
        status = pool_find(o, opened, mode, &pool, error);
    }
    umo_buffer *block = NULL;
    if (status == UMO_OK) {
        status = umo_pool_alloc(pool, size_bytes, 0, &block, error);
    }
    if (status == UMO_OK) {
        found_by_address(block, pattern);
        umo_optimizer_hold(o); /* until the block comes back */
        *out = block;
    }
    device_leave(o, opened);
    return status;
}

static bool pool_takes_back(optimizer *o, umo_buffer *block)
{
    bool taken = false;
    (void)pthread_mutex_lock(&o->lock);
    for (optimizer_pool *entry = o->pools; entry != NULL && !taken; entry = entry->next) {
        taken = umo_pool_free(entry->pool, block) == UMO_OK;
    }
    (void)pthread_mutex_unlock(&o->lock);
    return taken;
}

umo_status umo_optimizer_give(umo_buffer *block)
{
    for (optimizer *o = umo_optimizer_next(NULL); o != NULL; o = umo_optimizer_next(o)) {
        if (pool_takes_back(o, block)) {
            umo_optimizer_leave(o); /* what was held for the block */
            umo_optimizer_leave(o);
            return UMO_OK;
        }
    }
    return UMO_E_INVAL;
}
