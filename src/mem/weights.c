/*
 * The files that are open for their weights: one mapping a file, one buffer a range, device and
 * mode.
 *
 * The table is the process's and not a context's: what is shared is the file, and whoever loads a
 * second libumo into the process has it twice anyway. Maps and copies are made by one thread while
 * the others that want the same wait for it, because a second copy of the weights, if only for a
 * moment, is what this file is there to avoid.
 */
#include <umo/weights.h>

#include "base/scope.h"
#include "base/size.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "os/os.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The bytes themselves: alive while the file is open or a buffer shows them. */
typedef struct file_bytes {
    _Atomic size_t refs;
    void *data;
    size_t size_bytes;
} file_bytes;

/* A range on a device. Made by the first who asks; ready once it has a buffer. */
typedef struct device_range {
    struct device_range *next;
    umo_device *device;
    umo_storage_mode mode;
    size_t offset_bytes;
    size_t size_bytes;
    umo_buffer *buffer;
} device_range;

struct umo_weights {
    umo_weights *next;
    size_t users;
    int file; /* kept open: its identity is asked again, and nobody else gets its inode */
    umo_os_file_id id;
    file_bytes *bytes;
    umo_scope *scope;
    device_range *ranges;
};

static struct {
    pthread_mutex_t lock;   /* all below; never held over a call that may block */
    pthread_mutex_t opener; /* taken before lock, by the one thread that maps a file */
    pthread_cond_t made;    /* a range got its buffer, or its maker failed */
    umo_weights *files;
    umo_weights_stats stats;
} table = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .opener = PTHREAD_MUTEX_INITIALIZER,
    .made = PTHREAD_COND_INITIALIZER,
};

static void bytes_release(file_bytes *bytes)
{
    if (bytes == NULL || atomic_fetch_sub_explicit(&bytes->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (bytes->data != NULL) {
        umo_os_mapping_drop(bytes->data, bytes->size_bytes);
    }
    free(bytes);
}

static bool same_file(const umo_os_file_id *a, const umo_os_file_id *b)
{
    return a->device == b->device && a->inode == b->inode && a->size_bytes == b->size_bytes &&
           a->changed_s == b->changed_s && a->changed_ns == b->changed_ns;
}

/* One more use of the open file of this identity, or NULL. The lock is held. */
static umo_weights *find_identity(const umo_os_file_id *id)
{
    for (umo_weights *w = table.files; w != NULL; w = w->next) {
        if (same_file(&w->id, id)) {
            w->users++;
            table.stats.users++;
            table.stats.hits++;
            return w;
        }
    }
    return NULL;
}

static umo_weights *lookup(const umo_os_file_id *id)
{
    (void)pthread_mutex_lock(&table.lock);
    umo_weights *found = find_identity(id);
    (void)pthread_mutex_unlock(&table.lock);
    return found;
}

/* One more use of the first open file of this length behind `after` (NULL: of all), or NULL.
 * Files are only added at the front and by the opener, so that the walk meets each once; `after`
 * is in use by the caller. */
static umo_weights *next_of_length(const umo_weights *after, uint64_t size_bytes)
{
    (void)pthread_mutex_lock(&table.lock);
    umo_weights *w = after != NULL ? after->next : table.files;
    while (w != NULL && w->id.size_bytes != size_bytes) {
        w = w->next;
    }
    if (w != NULL) {
        w->users++;
        table.stats.users++;
    }
    (void)pthread_mutex_unlock(&table.lock);
    return w;
}

/* The open file that has these bytes, with one more use; NULL if there is none. Of the opener. */
static umo_weights *find_same_bytes(const file_bytes *bytes)
{
    umo_weights *at = next_of_length(NULL, bytes->size_bytes);
    while (at != NULL && (umo_weights_check(at, NULL) != UMO_OK ||
                          memcmp(at->bytes->data, bytes->data, bytes->size_bytes) != 0)) {
        umo_weights *next = next_of_length(at, bytes->size_bytes);
        umo_weights_release(at);
        at = next;
    }
    if (at != NULL) {
        umo_weights_rest(at); /* comparing has touched all of it */
        (void)pthread_mutex_lock(&table.lock);
        table.stats.same_bytes++;
        (void)pthread_mutex_unlock(&table.lock);
    }
    return at;
}

static void weights_free(umo_weights *weights)
{
    while (weights->ranges != NULL) {
        device_range *range = weights->ranges;
        weights->ranges = range->next;
        umo_buffer_release(range->buffer);
        umo_device_release(range->device);
        free(range);
    }
    bytes_release(weights->bytes);
    umo_os_file_close(weights->file);
    umo_scope_destroy(weights->scope);
    free(weights);
}

static umo_status system_error(umo_error *error, umo_status status, int cause, const char *text)
{
    return umo_error_set(error, status, cause, "%s: %s", text,
                         status == UMO_E_NOT_FOUND ? "there is none" : strerror(cause));
}

/* Maps the file, or joins one that has its bytes already; takes over `file` on success. */
static umo_status open_new(int file, const umo_os_file_id *id, umo_scope *scope, uint32_t flags,
                           umo_weights **out, umo_error *error)
{
    umo_weights *fresh = calloc(1, sizeof *fresh);
    file_bytes *bytes = calloc(1, sizeof *bytes);
    if (fresh == NULL || bytes == NULL) {
        free(fresh);
        free(bytes);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to open the weights");
    }
    int cause = 0;
    atomic_init(&bytes->refs, 1);
    bytes->size_bytes = (size_t)id->size_bytes;
    umo_status status = umo_os_file_map(file, bytes->size_bytes, &bytes->data, &cause);
    if (status != UMO_OK) {
        free(fresh);
        bytes_release(bytes);
        return system_error(error, status, cause, "the weights cannot be mapped");
    }
    umo_weights *known = (flags & UMO_WEIGHTS_SAME_BYTES) != 0 ? find_same_bytes(bytes) : NULL;
    if (known != NULL) {
        free(fresh);
        bytes_release(bytes);
        umo_os_file_close(file);
        *out = known;
        return UMO_OK;
    }
    umo_scope_acquire(scope);
    umo_scope_count_import(scope, false, bytes->size_bytes);
    *fresh = (umo_weights){.users = 1, .file = file, .id = *id, .bytes = bytes, .scope = scope};
    (void)pthread_mutex_lock(&table.lock);
    fresh->next = table.files;
    table.files = fresh;
    table.stats.files++;
    table.stats.users++;
    table.stats.misses++;
    table.stats.mapped_bytes += bytes->size_bytes;
    (void)pthread_mutex_unlock(&table.lock);
    *out = fresh;
    return UMO_OK;
}

umo_status umo_weights_open(const char *path, umo_scope *scope, uint32_t flags, umo_weights **out,
                            umo_error *error)
{
    umo_os_file_id id;
    int file = -1;
    int cause = 0;
    if (path == NULL || scope == NULL || (flags & ~(uint32_t)UMO_WEIGHTS_SAME_BYTES) != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "weights need a path, a scope and known flags");
    }
    umo_status status = umo_os_file_open(path, &file, &id, &cause);
    if (status != UMO_OK) {
        return system_error(error, status, cause, "the file with the weights cannot be opened");
    }
    if (!id.regular || id.size_bytes == 0 || id.size_bytes > SIZE_MAX / 2) {
        umo_os_file_close(file);
        return umo_error_set(error, UMO_E_INVAL, 0, "the weights are %s",
                             !id.regular          ? "no regular file"
                             : id.size_bytes == 0 ? "an empty file"
                                                  : "longer than the address space");
    }
    umo_weights *known = lookup(&id);
    if (known == NULL) {
        (void)pthread_mutex_lock(&table.opener);
        known = lookup(&id);
        if (known == NULL) {
            status = open_new(file, &id, scope, flags, out, error);
            (void)pthread_mutex_unlock(&table.opener);
            if (status != UMO_OK) {
                umo_os_file_close(file);
            }
            return status;
        }
        (void)pthread_mutex_unlock(&table.opener);
    }
    umo_os_file_close(file);
    *out = known;
    return UMO_OK;
}

/* Takes out the ranges that are ready and that nobody but the table holds. The lock is held. */
static device_range *take_idle(umo_weights *weights)
{
    device_range *idle = NULL;
    for (device_range **at = &weights->ranges; *at != NULL;) {
        device_range *range = *at;
        if (range->buffer == NULL || umo_buffer_refs(range->buffer) > 1) {
            at = &range->next;
            continue;
        }
        *at = range->next;
        range->next = idle;
        idle = range;
    }
    return idle;
}

static uint64_t copied_bytes(const device_range *range)
{
    return range->mode == UMO_UNIFIED ? 0 : range->size_bytes;
}

static void ranges_free(device_range *range)
{
    while (range != NULL) {
        device_range *next = range->next;
        umo_buffer_release(range->buffer);
        umo_device_release(range->device);
        free(range);
        range = next;
    }
}

void umo_weights_release(umo_weights *weights)
{
    if (weights == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&table.lock);
    device_range *idle = take_idle(weights);
    bool last = --weights->users == 0;
    table.stats.users--;
    for (const device_range *r = idle; r != NULL; r = r->next) {
        table.stats.buffers--;
        table.stats.copied_bytes -= copied_bytes(r);
    }
    if (last) {
        umo_weights **at = &table.files;
        while (*at != weights) {
            at = &(*at)->next;
        }
        *at = weights->next;
        table.stats.files--;
        table.stats.mapped_bytes -= weights->bytes->size_bytes;
        for (const device_range *r = weights->ranges; r != NULL; r = r->next) {
            table.stats.buffers--;
            table.stats.copied_bytes -= copied_bytes(r);
        }
    }
    (void)pthread_mutex_unlock(&table.lock);
    ranges_free(idle);
    if (last) {
        weights_free(weights);
    }
}

const void *umo_weights_data(const umo_weights *weights)
{
    return weights->bytes->data;
}

size_t umo_weights_size(const umo_weights *weights)
{
    return weights->bytes->size_bytes;
}

void umo_weights_rest(umo_weights *weights)
{
    umo_os_file_rest(weights->bytes->data, weights->bytes->size_bytes);
}

umo_status umo_weights_check(const umo_weights *weights, umo_error *error)
{
    umo_os_file_id now;
    int cause = 0;
    umo_status status = umo_os_file_identify(weights->file, &now, &cause);
    if (status != UMO_OK) {
        return system_error(error, status, cause, "the file with the weights cannot be looked at");
    }
    if (same_file(&weights->id, &now)) {
        return UMO_OK;
    }
    return umo_error_set(error, UMO_E_NOT_FOUND, 0,
                         "the file with the weights was %s while it is in use: load it again, and "
                         "replace files instead of writing to them",
                         now.size_bytes < weights->id.size_bytes ? "cut short" : "written to");
}

static void bytes_deleter(void *data, void *user)
{
    (void)data;
    bytes_release(user);
}

static umo_status import_range(const umo_weights *weights, umo_device *device, size_t offset_bytes,
                               size_t size_bytes, umo_buffer **out, umo_reason *why,
                               umo_error *error)
{
    file_bytes *bytes = weights->bytes;
    const umo_device_info *info = umo_device_info_get(device);
    uintptr_t start = (uintptr_t)bytes->data + offset_bytes;
    uintptr_t first = umo_round_down(start, info->import_align_bytes);
    size_t wide = 0;
    size_t whole_bytes = 0;
    /* The mapping is ours to the end of its last page. */
    bool inside =
        first >= (uintptr_t)bytes->data &&
        umo_round_up((size_t)(start - first) + size_bytes, info->import_size_align_bytes, &wide) &&
        umo_round_up(bytes->size_bytes, umo_os_page_bytes(), &whole_bytes) &&
        wide <= whole_bytes - (size_t)(first - (uintptr_t)bytes->data);
    const umo_import import = {
        .data = (char *)bytes->data + offset_bytes,
        .size_bytes = size_bytes,
        .whole_pages = inside,
        .deleter = bytes_deleter,
        .user = bytes,
    };
    atomic_fetch_add_explicit(&bytes->refs, 1, memory_order_relaxed);
    umo_status status =
        umo_buffer_import_uncounted(device, weights->scope, &import, out, why, error);
    if (status != UMO_OK) {
        bytes_release(bytes);
    }
    return status;
}

static umo_status copy_range(const umo_weights *weights, umo_device *device, umo_storage_mode mode,
                             size_t offset_bytes, size_t size_bytes, umo_buffer **out,
                             umo_error *error)
{
    umo_status status = umo_weights_check(weights, error);
    umo_buffer *buffer = NULL;
    if (status == UMO_OK) {
        status = umo_buffer_alloc(device, weights->scope, size_bytes, mode, &buffer, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    umo_fence done = {0};
    status = umo_buffer_upload(buffer, 0, (const char *)weights->bytes->data + offset_bytes,
                               size_bytes, 0, &done);
    if (status == UMO_OK) {
        status = umo_fence_wait(done, UINT64_MAX);
    }
    if (status != UMO_OK) {
        umo_buffer_release(buffer);
        return umo_error_set(error, status, 0, "the weights did not reach the device's memory");
    }
    *out = buffer;
    return UMO_OK;
}

/* The range's entry, made or found; false when memory is out. *make: the caller has to make the
 * buffer. Waits for another maker. The lock is held. */
static bool enter_range(umo_weights *weights, const device_range *wanted, device_range **out,
                        bool *make)
{
    device_range *range = weights->ranges;
    while (range != NULL) {
        if (range->device != wanted->device || range->mode != wanted->mode ||
            range->offset_bytes != wanted->offset_bytes ||
            range->size_bytes != wanted->size_bytes) {
            range = range->next;
        } else if (range->buffer != NULL) {
            *out = range;
            *make = false;
            return true;
        } else {
            /* It may be gone afterwards: its maker may have failed. */
            (void)pthread_cond_wait(&table.made, &table.lock);
            range = weights->ranges;
        }
    }
    range = malloc(sizeof *range);
    if (range == NULL) {
        return false;
    }
    *range = *wanted;
    range->next = weights->ranges;
    weights->ranges = range;
    umo_device_acquire(range->device);
    *out = range;
    *make = true;
    return true;
}

/* Publishes what the maker made, or takes the entry back. */
static void leave_range(umo_weights *weights, device_range *range, umo_buffer *made)
{
    (void)pthread_mutex_lock(&table.lock);
    range->buffer = made;
    if (made != NULL) {
        umo_buffer_acquire(made);
        table.stats.buffers++;
        table.stats.copied_bytes += copied_bytes(range);
    } else {
        device_range **at = &weights->ranges;
        while (*at != range) {
            at = &(*at)->next;
        }
        *at = range->next;
    }
    (void)pthread_cond_broadcast(&table.made);
    (void)pthread_mutex_unlock(&table.lock);
    if (made == NULL) {
        umo_device_release(range->device);
        free(range);
    }
}

umo_status umo_weights_buffer(umo_weights *weights, umo_device *device, umo_storage_mode mode,
                              size_t offset_bytes, size_t size_bytes, umo_buffer **out,
                              umo_reason *why, umo_error *error)
{
    if (why != NULL) {
        *why = UMO_REASON_NONE;
    }
    if (size_bytes == 0 || !umo_range_fits(offset_bytes, size_bytes, weights->bytes->size_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the range is outside of the weights");
    }
    const device_range wanted = {
        .device = device, .mode = mode, .offset_bytes = offset_bytes, .size_bytes = size_bytes};
    device_range *range = NULL;
    bool make = false;
    (void)pthread_mutex_lock(&table.lock);
    bool entered = enter_range(weights, &wanted, &range, &make);
    if (entered && !make) {
        umo_buffer_acquire(range->buffer);
        *out = range->buffer;
    }
    (void)pthread_mutex_unlock(&table.lock);
    if (!entered) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a buffer of weights");
    }
    if (!make) {
        return UMO_OK;
    }
    umo_buffer *made = NULL;
    umo_status status =
        mode == UMO_UNIFIED
            ? import_range(weights, device, offset_bytes, size_bytes, &made, why, error)
            : copy_range(weights, device, mode, offset_bytes, size_bytes, &made, error);
    leave_range(weights, range, made);
    if (status == UMO_OK) {
        *out = made;
    }
    return status;
}

void umo_weights_read(umo_weights_stats *out)
{
    (void)pthread_mutex_lock(&table.lock);
    *out = table.stats;
    (void)pthread_mutex_unlock(&table.lock);
}
