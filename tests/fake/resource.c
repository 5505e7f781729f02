/*
 * Buffers. Managed storage of a device with its own memory has two real memories, so that a missing
 * didModifyRange: or synchronizeResource: shows as wrong data.
 */
#include "fake.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PURGED 0xee
#define GARBAGE 0xa7
/* Smaller ones come from malloc, where a sanitizer sees what runs over. */
#define MAPPED_FROM (UINT64_C(256) << 10)

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static fake_buffer *buffers;

uint8_t *fake_memory_map(uint64_t bytes)
{
    if (bytes >= MAPPED_FROM) {
        void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return mapped == MAP_FAILED ? NULL : mapped;
    }
    void *memory;
    if (posix_memalign(&memory, fake_options.page, bytes) != 0) {
        return NULL;
    }
    return memset(memory, 0, bytes);
}

void fake_memory_unmap(uint8_t *memory, uint64_t bytes)
{
    if (memory != NULL && bytes >= MAPPED_FROM) {
        (void)munmap(memory, bytes);
    } else {
        free(memory);
    }
}

static uint64_t page_round(uint64_t bytes)
{
    return (bytes + fake_options.page - 1) / fake_options.page * fake_options.page;
}

bool fake_options_valid(fake_device *device, ns_uint options)
{
    (void)device;
    ns_uint storage = (options >> 4) & 0xf;
    if ((options & 0xf) > 1 || storage > FAKE_PRIVATE || ((options >> 8) & 0x3) == 3 ||
        options >> 10 != 0) {
        fake_violate("storage_mode", "options %#" PRIx64 " suit no buffer", options);
        return false;
    }
    if (storage == FAKE_MANAGED && fake_options.unified && !fake_options.managed_anywhere) {
        fake_violate("managed_unified", "managed storage on a device of one memory");
        return false;
    }
    return true;
}

/* ---- making ---- */

static fake_buffer *buffer_make(fake_device *device, ns_uint length, ns_uint options)
{
    fake_buffer *made = fake_make(&fake_class_buffer);
    made->device = objc_retain(device);
    made->length = length;
    made->storage = (options >> 4) & 0xf;
    made->untracked = ((options >> 8) & 0x3) == 1;
    atomic_init(&made->purgeable, FAKE_NON_VOLATILE);
    (void)pthread_mutex_lock(&list_lock);
    made->next = buffers;
    if (buffers != NULL) {
        buffers->previous = made;
    }
    buffers = made;
    (void)pthread_mutex_unlock(&list_lock);
    return made;
}

static bool is_two_memories(const fake_buffer *buffer)
{
    return buffer->storage == FAKE_MANAGED && !fake_options.unified;
}

static void buffer_shrink(fake_buffer *buffer)
{
    if ((atomic_load(&fake_modes) & FAKE_METAL_ZERO_LENGTH) != 0) {
        buffer->length = 0;
    }
}

static bool length_valid(ns_uint length)
{
    if (length == 0 || length > fake_options.buffer_max) {
        fake_violate("buffer_length", "%" PRIu64 " bytes; 1 to %" PRIu64 " are allowed", length,
                     fake_options.buffer_max);
        return false;
    }
    return true;
}

id fake_buffer_new(fake_device *device, SEL selector, ns_uint length, ns_uint options)
{
    if (!length_valid(length) || !fake_options_valid(device, options)) {
        return NULL;
    }
    uint64_t rounded = page_round(length);
    if (fake_fails(selector) || !fake_account(device, rounded)) {
        return NULL;
    }
    uint8_t *memory = fake_memory_map(length);
    if (memory == NULL) {
        fake_unaccount(device, rounded);
        return NULL;
    }
    if (fake_options.fresh_garbage) {
        memset(memory, GARBAGE, length);
    }
    fake_buffer *made = buffer_make(device, length, options);
    made->accounted = rounded;
    made->mapped_bytes = length;
    made->gpu = memory;
    made->host = made->storage == FAKE_PRIVATE ? NULL : memory;
    if (is_two_memories(made)) {
        made->host = fake_memory_map(length);
        if (made->host == NULL) {
            objc_release(made);
            return NULL;
        }
    }
    buffer_shrink(made);
    return made;
}

id fake_buffer_new_with(fake_device *device, SEL selector, const void *bytes, ns_uint length,
                        ns_uint options)
{
    if (bytes == NULL || ((options >> 4) & 0xf) == FAKE_PRIVATE) {
        fake_violate("storage_mode", "%s without bytes or with private storage", selector);
        return NULL;
    }
    fake_buffer *made = fake_buffer_new(device, selector, length, options);
    if (made != NULL) {
        memcpy(made->host, bytes, length);
        if (made->gpu != made->host) {
            memcpy(made->gpu, bytes, length);
        }
    }
    return made;
}

id fake_buffer_in_heap(fake_heap *heap, ns_uint length, ns_uint offset, ns_uint bytes)
{
    fake_buffer *made = buffer_make(heap->device, length, heap->storage << 4);
    made->heap = objc_retain(heap);
    made->untracked = heap->untracked;
    made->heap_offset = offset;
    made->heap_bytes = bytes;
    made->gpu = heap->memory + offset;
    made->host = heap->storage == FAKE_PRIVATE ? NULL : made->gpu;
    memset(made->gpu, GARBAGE, length);
    buffer_shrink(made);
    return made;
}

/* ---- memory of somebody else ---- */

typedef struct mapping {
    uint64_t begin;
    uint64_t end;
    uint64_t offset;
    uint64_t inode;
    unsigned major;
    unsigned minor;
    bool usable;
} mapping;

static bool continues(const mapping *one, const mapping *next)
{
    return one->end == next->begin && one->inode == next->inode && one->major == next->major &&
           one->minor == next->minor &&
           (one->inode == 0 || one->offset + (one->end - one->begin) == next->offset);
}

/* Whether the range lies in one mapping that is readable and writable. Neighbours that show the
 * same thing are one. */
static bool range_mapped(uint64_t begin, uint64_t end)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return true;
    }
    char line[512];
    mapping run = {0};
    bool found = false;
    while (!found && fgets(line, sizeof line, maps) != NULL) {
        mapping next = {0};
        char access[5] = "";
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &next.begin,
                   &next.end, access, &next.offset, &next.major, &next.minor, &next.inode) != 7) {
            continue;
        }
        next.usable = access[0] == 'r' && access[1] == 'w';
        if (run.usable && next.usable && continues(&run, &next)) {
            next.offset -= run.inode == 0 ? 0 : run.end - run.begin;
            next.begin = run.begin;
        }
        run = next;
        found = run.usable && run.begin <= begin && end <= run.end;
        if (run.begin > begin) {
            break;
        }
    }
    (void)fclose(maps);
    return found;
}

static bool no_copy_valid(fake_device *device, const void *pointer, ns_uint length, ns_uint options)
{
    uint64_t page = fake_options.page;
    if (pointer == NULL || (uintptr_t)pointer % page != 0) {
        fake_violate("no_copy_pointer", "the pointer is no multiple of the page, %" PRIu64, page);
        return false;
    }
    if (length == 0 || length % page != 0 || length > fake_options.buffer_max) {
        fake_violate("no_copy_length",
                     "%" PRIu64 " bytes: not a multiple of the page, %" PRIu64
                     ", or not in 1 to %" PRIu64,
                     length, page, fake_options.buffer_max);
        return false;
    }
    if (((options >> 4) & 0xf) == FAKE_PRIVATE) {
        fake_violate("no_copy_storage", "the memory of somebody else cannot be private");
        return false;
    }
    if (!fake_options_valid(device, options)) {
        return false;
    }
    if (!range_mapped((uintptr_t)pointer, (uintptr_t)pointer + length)) {
        fake_violate("no_copy_mapping", "the range is not one readable and writable mapping");
        return false;
    }
    return true;
}

id fake_buffer_new_no_copy(fake_device *device, SEL selector, void *pointer, ns_uint length,
                           ns_uint options, const void *deallocator)
{
    if (!no_copy_valid(device, pointer, length, options) || fake_fails(selector) ||
        (atomic_load(&fake_modes) & FAKE_METAL_NO_COPY_NIL) != 0 || !fake_account(device, length)) {
        return NULL;
    }
    fake_buffer *made = buffer_make(device, length, options);
    made->accounted = length;
    made->no_copy = true;
    made->host = pointer;
    made->gpu = pointer;
    made->mapped_bytes = length;
    if (is_two_memories(made)) {
        made->gpu = fake_memory_map(length);
        if (made->gpu == NULL) {
            made->gpu = pointer;
            objc_release(made);
            return NULL;
        }
        memcpy(made->gpu, pointer, length);
    }
    made->deallocator = _Block_copy(deallocator);
    buffer_shrink(made);
    return made;
}

/* ---- ending ---- */

static pthread_mutex_t late_lock = PTHREAD_MUTEX_INITIALIZER;
static fake_buffer *late_first;
static fake_buffer *late_last;

static void deallocator_call(fake_buffer *buffer)
{
    if (buffer->deallocator != NULL) {
        void (*invoke)(fake_block *, void *, ns_uint) =
            (void (*)(fake_block *, void *, ns_uint))buffer->deallocator->invoke;
        invoke(buffer->deallocator, buffer->host, buffer->mapped_bytes);
        _Block_release(buffer->deallocator);
    }
}

static void memory_give(fake_buffer *buffer)
{
    if (buffer->heap != NULL) {
        fake_heap_give(buffer);
    } else {
        if (buffer->gpu != buffer->host) {
            fake_memory_unmap(buffer->gpu, buffer->mapped_bytes);
        }
        if (!buffer->no_copy) {
            fake_memory_unmap(buffer->host, buffer->mapped_bytes);
        }
        fake_unaccount(buffer->device, buffer->accounted);
    }
    objc_release(buffer->heap);
    objc_release(buffer->device);
}

static bool buffer_dealloc(void *object)
{
    fake_buffer *self = object;
    (void)pthread_mutex_lock(&list_lock);
    if (self->next != NULL) {
        self->next->previous = self->previous;
    }
    if (self->previous != NULL) {
        self->previous->next = self->next;
    } else {
        buffers = self->next;
    }
    (void)pthread_mutex_unlock(&list_lock);
    bool held = (atomic_load(&fake_modes) & FAKE_METAL_LATE_FREE) != 0;
    if (self->deallocator == NULL || (!held && fake_options.late_ns == 0)) {
        deallocator_call(self);
        memory_give(self);
        return true;
    }
    self->next = NULL;
    self->late_at = held ? UINT64_MAX : fake_now_ns() + fake_options.late_ns;
    (void)pthread_mutex_lock(&late_lock);
    if (late_last != NULL) {
        late_last->next = self;
    } else {
        late_first = self;
    }
    late_last = self;
    (void)pthread_mutex_unlock(&late_lock);
    fake_gpu_nudge();
    return false;
}

uint64_t fake_late_next(void)
{
    uint64_t next = 0;
    (void)pthread_mutex_lock(&late_lock);
    for (const fake_buffer *at = late_first; at != NULL; at = at->next) {
        if (at->late_at != UINT64_MAX && (next == 0 || at->late_at < next)) {
            next = at->late_at;
        }
    }
    (void)pthread_mutex_unlock(&late_lock);
    return next;
}

static fake_buffer *late_take(uint64_t now_ns, bool all)
{
    fake_buffer *taken = NULL;
    (void)pthread_mutex_lock(&late_lock);
    fake_buffer *before = NULL;
    for (fake_buffer *at = late_first; at != NULL; before = at, at = at->next) {
        if (all || at->late_at <= now_ns) {
            *(before == NULL ? &late_first : &before->next) = at->next;
            late_last = late_last == at ? before : late_last;
            taken = at;
            break;
        }
    }
    (void)pthread_mutex_unlock(&late_lock);
    return taken;
}

uint32_t fake_late_run(uint64_t now_ns, bool all)
{
    uint32_t count = 0;
    for (fake_buffer *at = late_take(now_ns, all); at != NULL; at = late_take(now_ns, all)) {
        deallocator_call(at);
        memory_give(at);
        fake_bury(&at->object, &fake_class_buffer);
        count++;
    }
    return count;
}

/* ---- purgeable memory ---- */

static void memory_purge(atomic_uint *state, uint8_t *host, uint8_t *gpu, uint64_t bytes)
{
    atomic_store(state, FAKE_EMPTY);
    memset(gpu, PURGED, bytes);
    if (host != NULL && host != gpu) {
        memset(host, PURGED, bytes);
    }
}

ns_uint fake_purgeable_set(atomic_uint *state, ns_uint want, uint8_t *host, uint8_t *gpu,
                           uint64_t bytes)
{
    ns_uint former = atomic_load(state);
    bool at_once = (atomic_load(&fake_modes) & FAKE_METAL_PURGE_AT_ONCE) != 0;
    if (want < FAKE_KEEP || want > FAKE_EMPTY) {
        fake_violate("purgeable_state", "%" PRIu64 " is no purgeable state", want);
    } else if (want == FAKE_NON_VOLATILE) {
        atomic_store(state, FAKE_NON_VOLATILE);
    } else if (want == FAKE_EMPTY || (want == FAKE_VOLATILE && at_once)) {
        memory_purge(state, host, gpu, bytes);
    } else if (want == FAKE_VOLATILE && former != FAKE_EMPTY) {
        atomic_store(state, FAKE_VOLATILE);
    }
    return former;
}

static ns_uint resource_purgeable(fake_buffer *self, SEL selector, ns_uint want)
{
    (void)selector;
    if (self->heap != NULL) {
        fake_violate("heap_purgeable", "a buffer of a heap is not purgeable by itself");
        return FAKE_NON_VOLATILE;
    }
    if (self->no_copy) { /* not the device's to drop */
        return FAKE_NON_VOLATILE;
    }
    (void)pthread_mutex_lock(&list_lock);
    ns_uint former =
        fake_purgeable_set(&self->purgeable, want, self->host, self->gpu, self->mapped_bytes);
    (void)pthread_mutex_unlock(&list_lock);
    return former;
}

bool fake_buffer_lost(const fake_buffer *buffer)
{
    const atomic_uint *state = buffer->heap != NULL ? &buffer->heap->purgeable : &buffer->purgeable;
    return atomic_load(state) != FAKE_NON_VOLATILE;
}

uint32_t fake_buffers_purge(void)
{
    uint32_t count = 0;
    (void)pthread_mutex_lock(&list_lock);
    for (fake_buffer *at = buffers; at != NULL; at = at->next) {
        if (atomic_load(&at->purgeable) == FAKE_VOLATILE) {
            memory_purge(&at->purgeable, at->host, at->gpu, at->mapped_bytes);
            count++;
        }
    }
    (void)pthread_mutex_unlock(&list_lock);
    return count;
}

/* ---- messages ---- */

static void *buffer_contents(fake_buffer *self, SEL selector)
{
    return fake_fails(selector) ? NULL : self->host;
}

static ns_uint buffer_length(fake_buffer *self, SEL selector)
{
    (void)selector;
    return self->length;
}

static void buffer_modified(fake_buffer *self, SEL selector, fake_range range)
{
    (void)selector;
    if (self->storage != FAKE_MANAGED) {
        fake_violate("modified_not_managed", "didModifyRange: of a buffer that is not managed");
        return;
    }
    if (range.length == 0 || range.location > self->length ||
        range.length > self->length - range.location) {
        fake_violate("modified_range", "%" PRIu64 "+%" PRIu64 " in a buffer of %" PRIu64,
                     range.location, range.length, self->length);
        return;
    }
    if (self->gpu != self->host) {
        memcpy(self->gpu + range.location, self->host + range.location, range.length);
    }
}

static uint64_t buffer_address(fake_buffer *self, SEL selector)
{
    (void)selector;
    return (uintptr_t)self->gpu;
}

static id resource_device(fake_buffer *self, SEL selector)
{
    (void)selector;
    return self->device;
}

static ns_uint resource_storage(fake_buffer *self, SEL selector)
{
    (void)selector;
    return self->storage;
}

static ns_uint resource_allocated(fake_buffer *self, SEL selector)
{
    (void)selector;
    return self->heap != NULL ? self->heap_bytes : self->accounted;
}

static void resource_label(fake_buffer *self, SEL selector, id label)
{
    (void)self;
    (void)selector;
    (void)fake_text(label);
}

static const fake_method resource_methods[] = {
    FAKE_METHOD("setPurgeableState:", "Q@:Q", resource_purgeable),
    FAKE_METHOD("device", "@@:", resource_device),
    FAKE_METHOD("storageMode", "Q@:", resource_storage),
    FAKE_METHOD("allocatedSize", "Q@:", resource_allocated),
    FAKE_METHOD("setLabel:", "v@:@", resource_label),
};

static const fake_method buffer_methods[] = {
    FAKE_METHOD("contents", "^v@:", buffer_contents),
    FAKE_METHOD("length", "Q@:", buffer_length),
    FAKE_METHOD("didModifyRange:", "v@:{_NSRange=QQ}", buffer_modified),
    FAKE_METHOD("gpuAddress", "Q@:", buffer_address),
};

fake_class fake_class_resource = {.super = &fake_class_object,
                                  .name = "MTLResource",
                                  .size_bytes = sizeof(fake_object),
                                  .methods = resource_methods,
                                  .method_count = FAKE_COUNT(resource_methods),
                                  .hidden = true};
fake_class fake_class_buffer = {.super = &fake_class_resource,
                                .name = "MTLBuffer",
                                .size_bytes = sizeof(fake_buffer),
                                .dealloc = buffer_dealloc,
                                .methods = buffer_methods,
                                .method_count = FAKE_COUNT(buffer_methods),
                                .hidden = true};
