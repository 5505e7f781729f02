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

/* Bytes of a batch with each buffer on whole pages of the device; false on overflow. */
static bool batch_bytes(const umo_device_info *info, const size_t *sizes, size_t count,
                        size_t *align_bytes, size_t *out)
{
    size_t align = info->import_align_bytes;
    align = align < info->import_size_align_bytes ? info->import_size_align_bytes : align;
    align = align < info->alloc_align_bytes ? info->alloc_align_bytes : align;
    *align_bytes = align;
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        size_t padded;
        if (!umo_round_up(sizes[i], align, &padded) || __builtin_add_overflow(sum, padded, &sum)) {
            return false;
        }
    }
    *out = sum;
    return true;
}

/* One allocation cut into buffers that hold it together. */
static umo_status batch_cut(optimizer *o, umo_device *device, const size_t *sizes, size_t count,
                            umo_pattern pattern, umo_buffer **made, umo_error *error)
{
    size_t align = 1;
    size_t sum = 0;
    if (!batch_bytes(umo_device_info_get(device), sizes, count, &align, &sum)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the sizes of a batch overflow");
    }
    umo_device *host = NULL;
    umo_buffer *parent = NULL;
    umo_scope *scope = umo_context_scope(o->context);
    umo_status status = umo_context_device(o->context, "host", 0, &host, error);
    if (status == UMO_OK) {
        status = umo_buffer_alloc(host, scope, sum, UMO_UNIFIED, &parent, error);
    }
    if (status == UMO_OK) {
        umo_record_close(parent); /* its parts are what is used, found and counted */
    }
    size_t done = 0;
    char *at = status == UMO_OK ? umo_buffer_host(parent) : NULL;
    while (status == UMO_OK && done < count) {
        size_t padded = 0;
        (void)umo_round_up(sizes[done], align, &padded); /* fitted above */
        const umo_import import = {.data = at,
                                   .size_bytes = sizes[done],
                                   .writable = true,
                                   .whole_pages = true,
                                   .deleter = parent_release,
                                   .user = parent};
        umo_buffer_acquire(parent);
        status = umo_buffer_import_uncounted(device, scope, &import, &made[done], NULL, error);
        if (status != UMO_OK) {
            umo_buffer_release(parent);
            break;
        }
        assert(made != NULL);
        umo_buffer_make_inner(made[done]);
        umo_buffer_own_pages(made[done]);
        found_by_address(made[done], pattern);
        at += padded;
        done++;
    }
    while (status != UMO_OK && done > 0) {
        umo_buffer_release(made[--done]);
    }
    umo_buffer_release(parent);
    umo_device_release(host);
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
static umo_status batch_alloc(optimizer *o, umo_device *device, const size_t *sizes, size_t count,
                              umo_pattern pattern, umo_buffer **made, umo_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (sizes[i] == 0) {
            return umo_error_set(error, UMO_E_INVAL, 0, "a buffer has at least one byte");
        }
    }
    if (count > 0 && umo_device_info_get(device)->unified) {
        umo_status status = batch_cut(o, device, sizes, count, pattern, made, error);
        if (status != UMO_E_REFUSED) {
            return status;
        }
    }
    return batch_each(o, device, sizes, count, pattern, made, error);
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
    umo_buffer **made = calloc(count + 1, sizeof(umo_buffer *));
    if (made == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a batch");
    }
    if (status == UMO_OK) {
        status = batch_alloc(o, opened, sizes, count, pattern, made, error);
    }
    assert(made != NULL || status != UMO_OK);
    for (size_t i = 0; status == UMO_OK && i < count; i++) {
        out[i] = made[i];
    }
    free(made);
    if (status == UMO_OK && o->nodes != NULL) {
        worker_kick(o);
    }
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
