/*
 * An OrtAllocator over pools.
 *
 * A block is freed by whatever thread drops its last user, long after the visit in which it was
 * taken, so it says itself where it belongs: 64 bytes before it, as many as the engine's kernels
 * want their memory aligned to.
 */
#include "heap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* A model that is asked every few seconds keeps its working memory: taking 100 MB anew costs tens
 * of milliseconds. Pressure takes it at once. */
#define IDLE_NS UINT64_C(10000000000)

enum {
    HEADER_BYTES = 64,
    /* Sessions take at loading and give back at unloading: there is nothing to keep for. */
    SESSIONS_KEEP_BYTES = 1 << 16
};

struct ort_heap {
    _Atomic size_t refs; /* of users, and one a block */
    umo_device *device;
    umo_scope *scope; /* own, or NULL */
    umo_pool *pool;
    const char *name;
    bool sessions;
    _Atomic uint64_t owners;
};

/* Before each block. */
typedef struct header {
    ort_heap *heap; /* NULL: of malloc */
} header;

/* OrtAllocator, as far as its version below promises. */
typedef struct allocator {
    uint32_t version;
    void *(*alloc)(struct allocator *self, size_t size_bytes);
    void (*free)(struct allocator *self, void *block);
    const ort_memory_info *(*info)(const struct allocator *self);
    const ort_memory_info *described;
    ort_thrower bad_alloc;
} allocator;

static _Thread_local ort_heap *current;
static _Thread_local ort_heap_visit *visiting;

static struct {
    pthread_mutex_t lock;
    ort_heap *heap; /* of the sessions; NULL while there is none */
    size_t users;
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void heap_drop(ort_heap *heap)
{
    if (atomic_fetch_sub_explicit(&heap->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    umo_pool_destroy(heap->pool);
    umo_scope_destroy(heap->scope);
    umo_device_release(heap->device);
    free(heap);
}

static umo_status heap_make(umo_context *context, umo_scope *scope, size_t keep_bytes,
                            const umo_instance *instance, ort_heap **out, umo_error *error)
{
    ort_heap *heap = calloc(1, sizeof *heap);
    if (heap == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the engine's pool");
    }
    atomic_init(&heap->refs, 1);
    umo_status status = umo_context_device(context, "host", 0, &heap->device, error);
    if (status == UMO_OK) {
        const umo_pool_options options = {.device = heap->device,
                                          .scope = scope,
                                          .mode = UMO_UNIFIED,
                                          .keep_bytes_max = keep_bytes,
                                          .idle_ns = IDLE_NS};
        status = instance != NULL ? umo_instance_pool_create(instance, &options, &heap->pool, error)
                                  : umo_pool_create(&options, &heap->pool, error);
    }
    if (status != UMO_OK) {
        heap_drop(heap);
        return status;
    }
    heap->name = umo_scope_name(scope);
    *out = heap;
    return UMO_OK;
}

umo_status ort_heap_create(umo_context *context, umo_scope *scope, bool keep,
                           const umo_instance *instance, ort_heap **out, umo_error *error)
{
    return heap_make(context, scope, keep ? 0 : 1, instance, out, error);
}

umo_status ort_heap_sessions(umo_context *context, ort_heap **out, umo_error *error)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&process.lock);
    if (process.users == 0) {
        umo_scope *scope = NULL;
        status = umo_scope_create(umo_context_scope(context), "onnxruntime", 0, &scope, error);
        if (status == UMO_OK) {
            status = heap_make(context, scope, SESSIONS_KEEP_BYTES, NULL, &process.heap, error);
        }
        if (status == UMO_OK) {
            process.heap->scope = scope;
            process.heap->sessions = true;
        } else {
            umo_scope_destroy(scope);
        }
    }
    if (status == UMO_OK) {
        process.users += 1;
        *out = process.heap;
    }
    (void)pthread_mutex_unlock(&process.lock);
    return status;
}

void ort_heap_release(ort_heap *heap)
{
    if (heap == NULL) {
        return;
    }
    if (heap->sessions) {
        (void)pthread_mutex_lock(&process.lock);
        bool last = --process.users == 0;
        if (last) {
            process.heap = NULL;
        }
        (void)pthread_mutex_unlock(&process.lock);
        if (!last) {
            return;
        }
    }
    heap_drop(heap);
}

void ort_heap_trim(ort_heap *heap)
{
    umo_pool_trim(heap->pool, 0);
}

void ort_heap_read(ort_heap *heap, umo_pool_stats *out)
{
    *out = (umo_pool_stats){0};
    if (heap != NULL) {
        umo_pool_read(heap->pool, out);
    }
}

void ort_heap_enter(ort_heap *heap, ort_heap_visit *visit)
{
    *visit = (ort_heap_visit){.before = current, .outer = visiting};
    current = heap;
    visiting = visit;
}

void ort_heap_leave(ort_heap_visit *visit)
{
    current = visit->before;
    visiting = visit->outer;
}

umo_status ort_heap_explain(const ort_heap_visit *visit, const ort_heap *heap, umo_status status,
                            umo_error *error)
{
    if (status == UMO_OK || visit->refused == UMO_OK) {
        return status;
    }
    const char *name = heap != NULL ? heap->name : "onnxruntime";
    if (visit->refused == UMO_E_LIMIT) {
        return umo_error_set(error, UMO_E_LIMIT, 0,
                             "%zu bytes for the engine would pass the budget of '%s'",
                             visit->refused_bytes, name);
    }
    return umo_error_set(error, visit->refused, 0, "no memory: %zu bytes for the engine in '%s'",
                         visit->refused_bytes, name);
}

/* The heap of a thread that says nothing, with a reference. NULL when no model is loaded. */
static ort_heap *heap_of_nobody(void)
{
    (void)pthread_mutex_lock(&process.lock);
    ort_heap *heap = process.heap;
    if (heap != NULL) {
        (void)atomic_fetch_add_explicit(&heap->refs, 1, memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&process.lock);
    return heap;
}

/* A block of a heap, or NULL and why. The heap's reference goes with the block. */
static void *take_from(ort_heap *heap, size_t size_bytes, umo_status *status)
{
    void *data = NULL;
    /* What sessions and unknown threads had is cleared for the next, whoever it is; a model's pool
     * is its own. */
    uint64_t owner =
        heap->sessions ? 1 + atomic_fetch_add_explicit(&heap->owners, 1, memory_order_relaxed) : 1;
    *status = umo_pool_take(heap->pool, size_bytes, owner, &data);
    if (*status != UMO_OK) {
        heap_drop(heap);
        return NULL;
    }
    *(header *)data = (header){.heap = heap};
    return data;
}

/* For threads of the engine that nobody sent, when no heap has room: an exception would end the
 * process there. */
static void *take_uncounted(size_t size_bytes)
{
    void *data = NULL;
    if (posix_memalign(&data, HEADER_BYTES, size_bytes) != 0) {
        return NULL;
    }
    *(header *)data = (header){0};
    return data;
}

static void *take(allocator *self, size_t size_bytes)
{
    ort_heap *heap = current;
    umo_status status = UMO_E_NOMEM;
    void *data = NULL;
    size_t with_header;
    if (heap != NULL) {
        (void)atomic_fetch_add_explicit(&heap->refs, 1, memory_order_relaxed);
    } else {
        heap = heap_of_nobody();
    }
    if (__builtin_add_overflow(size_bytes, (size_t)HEADER_BYTES, &with_header)) {
        with_header = SIZE_MAX;
    }
    if (heap != NULL) {
        data = take_from(heap, with_header, &status);
    }
    if (data == NULL && visiting == NULL) {
        data = take_uncounted(with_header);
    }
    if (data != NULL) {
        return (char *)data + HEADER_BYTES;
    }
    if (visiting != NULL && visiting->refused == UMO_OK) {
        visiting->refused = status;
        visiting->refused_bytes = size_bytes;
    }
    self->bad_alloc();
    return NULL;
}

static void give(allocator *self, void *block)
{
    (void)self;
    if (block == NULL) {
        return;
    }
    void *data = (char *)block - HEADER_BYTES;
    const header at = *(const header *)data;
    if (at.heap == NULL) {
        free(data);
        return;
    }
    umo_status_ignore(umo_pool_give(at.heap->pool, data));
    heap_drop(at.heap);
}

static const ort_memory_info *describe(const allocator *self)
{
    return self->described;
}

ort_allocator *ort_heap_allocator(const ort_memory_info *info, ort_thrower bad_alloc)
{
    static allocator table = {
        .version = ORT_TABLE_VERSION, .alloc = take, .free = give, .info = describe};
    table.described = info;
    table.bad_alloc = bad_alloc;
    return (ort_allocator *)&table;
}
