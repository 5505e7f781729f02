/* Heaps: one memory, buffers at the first place that fits. */
#include "fake.h"

#include <inttypes.h>

typedef struct heap_descriptor {
    fake_object object;
    ns_uint size;
    ns_uint storage;
    ns_uint hazards;
} heap_descriptor;

enum {
    HAZARDS_TRACKED = 2
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static fake_heap *heaps;

fake_size_align fake_heap_size_align(ns_uint length)
{
    ns_uint align = fake_options.heap_align;
    ns_uint padded;
    if (__builtin_add_overflow(length, align - 1, &padded)) {
        padded = UINT64_MAX;
    }
    return (fake_size_align){padded / align * align, align};
}

id fake_heap_new(fake_device *device, SEL selector, id given)
{
    if (!fake_is(given, &fake_class_heap_descriptor)) {
        fake_violate("wrong_class", "a %s is given as an MTLHeapDescriptor",
                     fake_class_name(given));
        return NULL;
    }
    const heap_descriptor *descriptor = given;
    if (descriptor->size == 0) {
        fake_violate("heap_size", "a heap of 0 bytes");
        return NULL;
    }
    if (descriptor->storage != FAKE_SHARED && descriptor->storage != FAKE_PRIVATE) {
        fake_violate("heap_storage", "a heap of storage mode %" PRIu64, descriptor->storage);
        return NULL;
    }
    if (descriptor->storage == FAKE_SHARED && fake_options.apple_family == 0) {
        fake_violate("heap_storage", "a Shared heap of a GPU that is not Apple's");
        return NULL;
    }
    if (fake_fails(selector) || !fake_account(device, descriptor->size)) {
        return NULL;
    }
    uint8_t *memory = fake_memory_map(descriptor->size);
    if (memory == NULL) {
        fake_unaccount(device, descriptor->size);
        return NULL;
    }
    fake_heap *made = fake_make(&fake_class_heap);
    made->device = objc_retain(device);
    made->size = descriptor->size;
    made->storage = descriptor->storage;
    made->untracked = descriptor->hazards != HAZARDS_TRACKED; /* the default of heaps */
    made->memory = memory;
    atomic_init(&made->purgeable, FAKE_NON_VOLATILE);
    (void)pthread_mutex_init(&made->lock, NULL);
    (void)pthread_mutex_lock(&list_lock);
    made->next = heaps;
    heaps = made;
    (void)pthread_mutex_unlock(&list_lock);
    return made;
}

static bool heap_dealloc(void *object)
{
    fake_heap *self = object;
    (void)pthread_mutex_lock(&list_lock);
    fake_heap **at = &heaps;
    while (*at != self) {
        at = &(*at)->next;
    }
    *at = self->next;
    (void)pthread_mutex_unlock(&list_lock);
    (void)pthread_mutex_destroy(&self->lock);
    fake_memory_unmap(self->memory, self->size);
    fake_unaccount(self->device, self->size);
    objc_release(self->device);
    return true;
}

static id heap_buffer(fake_heap *self, SEL selector, ns_uint length, ns_uint options)
{
    if (!fake_options_valid(self->device, options)) {
        return NULL;
    }
    bool tracked = ((options >> 8) & 0x3) == HAZARDS_TRACKED;
    if (((options >> 4) & 0xf) != self->storage || (options & 0xf) != 0 ||
        (tracked && self->untracked)) {
        fake_violate("heap_storage", "options %#" PRIx64 " differ from the heap's", options);
        return NULL;
    }
    if (length == 0 || length > fake_options.buffer_max) {
        fake_violate("buffer_length", "%" PRIu64 " bytes of a heap", length);
        return NULL;
    }
    if (fake_fails(selector)) {
        return NULL;
    }
    ns_uint bytes = fake_heap_size_align(length).size;
    fake_buffer *made = NULL;
    (void)pthread_mutex_lock(&self->lock);
    fake_buffer **at = &self->first;
    ns_uint offset = 0;
    while (*at != NULL && (*at)->heap_offset - offset < bytes) {
        offset = (*at)->heap_offset + (*at)->heap_bytes;
        at = &(*at)->heap_next;
    }
    if (*at != NULL || (offset <= self->size && length <= self->size - offset)) {
        made = fake_buffer_in_heap(self, length, offset, bytes);
        made->heap_next = *at;
        *at = made;
    }
    (void)pthread_mutex_unlock(&self->lock);
    return made;
}

void fake_heap_give(fake_buffer *buffer)
{
    fake_heap *heap = buffer->heap;
    (void)pthread_mutex_lock(&heap->lock);
    fake_buffer **at = &heap->first;
    while (*at != buffer) {
        at = &(*at)->heap_next;
    }
    *at = buffer->heap_next;
    (void)pthread_mutex_unlock(&heap->lock);
}

static ns_uint heap_purgeable(fake_heap *self, SEL selector, ns_uint want)
{
    (void)selector;
    (void)pthread_mutex_lock(&list_lock);
    ns_uint former =
        fake_purgeable_set(&self->purgeable, want, self->memory, self->memory, self->size);
    (void)pthread_mutex_unlock(&list_lock);
    return former;
}

uint32_t fake_heaps_purge(void)
{
    uint32_t count = 0;
    (void)pthread_mutex_lock(&list_lock);
    for (fake_heap *at = heaps; at != NULL; at = at->next) {
        if (atomic_load(&at->purgeable) == FAKE_VOLATILE) {
            (void)fake_purgeable_set(&at->purgeable, FAKE_EMPTY, at->memory, at->memory, at->size);
            count++;
        }
    }
    (void)pthread_mutex_unlock(&list_lock);
    return count;
}

static ns_uint heap_size(fake_heap *self, SEL selector)
{
    (void)selector;
    return self->size;
}

static ns_uint heap_used(fake_heap *self, SEL selector)
{
    (void)selector;
    ns_uint used = 0;
    (void)pthread_mutex_lock(&self->lock);
    for (const fake_buffer *at = self->first; at != NULL; at = at->heap_next) {
        used += at->heap_bytes;
    }
    (void)pthread_mutex_unlock(&self->lock);
    return used;
}

static const fake_method heap_methods[] = {
    FAKE_METHOD("newBufferWithLength:options:", "@@:QQ", heap_buffer),
    FAKE_METHOD("setPurgeableState:", "Q@:Q", heap_purgeable),
    FAKE_METHOD("size", "Q@:", heap_size),
    FAKE_METHOD("usedSize", "Q@:", heap_used),
};

fake_class fake_class_heap = {.super = &fake_class_object,
                              .name = "MTLHeap",
                              .size_bytes = sizeof(fake_heap),
                              .dealloc = heap_dealloc,
                              .methods = heap_methods,
                              .method_count = FAKE_COUNT(heap_methods),
                              .hidden = true};

static void describe_size(heap_descriptor *self, SEL selector, ns_uint size)
{
    (void)selector;
    self->size = size;
}

static ns_uint described_size(heap_descriptor *self, SEL selector)
{
    (void)selector;
    return self->size;
}

static void describe_storage(heap_descriptor *self, SEL selector, ns_uint storage)
{
    (void)selector;
    self->storage = storage;
}

static void describe_hazards(heap_descriptor *self, SEL selector, ns_uint hazards)
{
    (void)selector;
    self->hazards = hazards;
}

/* Apple's descriptor starts with private storage. */
static id descriptor_new(fake_class *class, SEL selector)
{
    if (fake_fails(selector)) {
        return NULL;
    }
    heap_descriptor *made = fake_make(class);
    made->storage = FAKE_PRIVATE;
    return made;
}

static const fake_method descriptor_methods[] = {
    FAKE_METHOD("setSize:", "v@:Q", describe_size),
    FAKE_METHOD("size", "Q@:", described_size),
    FAKE_METHOD("setStorageMode:", "v@:Q", describe_storage),
    FAKE_METHOD("setHazardTrackingMode:", "v@:Q", describe_hazards),
};

static const fake_method descriptor_class_methods[] = {
    FAKE_METHOD("new", "@@:", descriptor_new),
    FAKE_METHOD("alloc", "@@:", descriptor_new),
};

fake_class fake_class_heap_descriptor = {.super = &fake_class_object,
                                         .name = "MTLHeapDescriptor",
                                         .size_bytes = sizeof(heap_descriptor),
                                         .methods = descriptor_methods,
                                         .method_count = FAKE_COUNT(descriptor_methods),
                                         .class_methods = descriptor_class_methods,
                                         .class_method_count = FAKE_COUNT(descriptor_class_methods),
                                         .makes = true};
