/* Devices. There is one object a device as long as somebody holds it. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

#define DEVICES_MAX 8u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fake_device *devices[DEVICES_MAX]; /* not owned */

/* With a reference of the caller's. */
static id device_get(uint32_t index)
{
    (void)pthread_mutex_lock(&lock);
    fake_device *the = devices[index];
    unsigned count = the == NULL ? 0 : atomic_load(&the->object.references);
    while (count > 0 && !atomic_compare_exchange_weak(&the->object.references, &count, count + 1)) {
    }
    if (count == 0) {
        the = fake_make(&fake_class_device);
        the->index = index;
        char name[128];
        if (index == 0) {
            (void)snprintf(name, sizeof name, "%s", fake_options.name);
        } else {
            (void)snprintf(name, sizeof name, "%s %u", fake_options.name, index + 1);
        }
        the->name = fake_string_new(name);
        devices[index] = the;
    }
    (void)pthread_mutex_unlock(&lock);
    return the;
}

static bool device_dealloc(void *object)
{
    fake_device *self = object;
    (void)pthread_mutex_lock(&lock);
    if (devices[self->index] == self) {
        devices[self->index] = NULL;
    }
    (void)pthread_mutex_unlock(&lock);
    objc_release(self->name);
    return true;
}

id MTLCopyAllDevices(void)
{
    if (fake_fails(sel_registerName("MTLCopyAllDevices"))) {
        return NULL;
    }
    id all[DEVICES_MAX];
    uint32_t count = fake_options.devices < DEVICES_MAX ? fake_options.devices : DEVICES_MAX;
    for (uint32_t i = 0; i < count; i++) {
        all[i] = device_get(i);
    }
    id array = fake_array_new(all, count);
    for (uint32_t i = 0; i < count; i++) {
        objc_release(all[i]);
    }
    return array;
}

id MTLCreateSystemDefaultDevice(void)
{
    return fake_options.devices == 0 ? NULL : device_get(0);
}

bool fake_account(fake_device *device, uint64_t bytes)
{
    uint64_t before = atomic_load(&device->allocated);
    do {
        if (fake_options.memory_limit != 0 &&
            (before > fake_options.memory_limit || bytes > fake_options.memory_limit - before)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&device->allocated, &before, before + bytes));
    return true;
}

void fake_unaccount(fake_device *device, uint64_t bytes)
{
    (void)atomic_fetch_sub(&device->allocated, bytes);
}

void fake_metal_set_memory_limit(uint64_t bytes)
{
    fake_options.memory_limit = bytes;
}

bool fake_supports(int64_t family)
{
    if (family > 1000 && family < 2000) {
        return family - 1000 <= (int64_t)fake_options.apple_family;
    }
    switch (family) {
    case 2001: /* Mac1 */
    case 2002: /* Mac2 */
        return fake_options.mac2;
    case 3001: /* Common1 to Common3 */
    case 3002:
    case 3003:
        return true;
    case 5001: /* Metal3 */
        return fake_options.metal3;
    default:
        return false;
    }
}

static id device_name(fake_device *self, SEL selector)
{
    (void)selector;
    return self->name;
}

static bool device_unified(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return fake_options.unified;
}

static bool device_supports(id self, SEL selector, int64_t family)
{
    (void)self;
    (void)selector;
    return fake_supports(family);
}

static ns_uint device_buffer_max(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return fake_options.buffer_max;
}

static uint64_t device_working_set(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return fake_options.working_set;
}

static ns_uint device_allocated(fake_device *self, SEL selector)
{
    (void)selector;
    return atomic_load(&self->allocated);
}

static ns_uint device_local_max(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return fake_options.local_max;
}

static fake_size device_threads_max(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return (fake_size){fake_options.threads_max, fake_options.threads_max,
                       fake_options.threads_max};
}

static uint64_t device_registry_id(fake_device *self, SEL selector)
{
    (void)selector;
    return 0x100000000u + self->index;
}

static bool device_no(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return false;
}

static fake_size_align device_heap_size(id self, SEL selector, ns_uint length, ns_uint options)
{
    (void)selector;
    if (length == 0 || !fake_options_valid(self, options)) {
        return (fake_size_align){0, 0};
    }
    return fake_heap_size_align(length);
}

static const fake_method device_methods[] = {
    FAKE_METHOD("name", "@@:", device_name),
    FAKE_METHOD("registryID", "Q@:", device_registry_id),
    FAKE_METHOD("isLowPower", "B@:", device_no),
    FAKE_METHOD("isHeadless", "B@:", device_no),
    FAKE_METHOD("isRemovable", "B@:", device_no),
    FAKE_METHOD("hasUnifiedMemory", "B@:", device_unified),
    FAKE_METHOD("supportsFamily:", "B@:q", device_supports),
    FAKE_METHOD("maxBufferLength", "Q@:", device_buffer_max),
    FAKE_METHOD("recommendedMaxWorkingSetSize", "Q@:", device_working_set),
    FAKE_METHOD("currentAllocatedSize", "Q@:", device_allocated),
    FAKE_METHOD("maxThreadgroupMemoryLength", "Q@:", device_local_max),
    FAKE_METHOD("maxThreadsPerThreadgroup", "{?=QQQ}@:", device_threads_max),
    FAKE_METHOD("heapBufferSizeAndAlignWithLength:options:", "{?=QQ}@:QQ", device_heap_size),
    FAKE_METHOD("newCommandQueue", "@@:", fake_queue_new_default),
    FAKE_METHOD("newCommandQueueWithMaxCommandBufferCount:", "@@:Q", fake_queue_new),
    FAKE_METHOD("newSharedEvent", "@@:", fake_event_new),
    FAKE_METHOD("newBufferWithLength:options:", "@@:QQ", fake_buffer_new),
    FAKE_METHOD("newBufferWithBytes:length:options:", "@@:r^vQQ", fake_buffer_new_with),
    FAKE_METHOD("newBufferWithBytesNoCopy:length:options:deallocator:", "@@:^vQQ@?",
                fake_buffer_new_no_copy),
    FAKE_METHOD("newHeapWithDescriptor:", "@@:@", fake_heap_new),
    FAKE_METHOD("newLibraryWithSource:options:error:", "@@:@@^@", fake_library_new),
    FAKE_METHOD("newComputePipelineStateWithFunction:error:", "@@:@^@", fake_pipeline_new_simple),
    FAKE_METHOD("newComputePipelineStateWithFunction:options:reflection:error:", "@@:@Q^@^@",
                fake_pipeline_new_of),
    FAKE_METHOD("newComputePipelineStateWithDescriptor:options:reflection:error:", "@@:@Q^@^@",
                fake_pipeline_new),
    FAKE_METHOD("newBinaryArchiveWithDescriptor:error:", "@@:@^@", fake_archive_new),
    FAKE_METHOD("newResidencySetWithDescriptor:error:", "@@:@^@", fake_residency_new),
};

fake_class fake_class_device = {.super = &fake_class_object,
                                .name = "MTLDevice",
                                .size_bytes = sizeof(fake_device),
                                .dealloc = device_dealloc,
                                .methods = device_methods,
                                .method_count = FAKE_COUNT(device_methods),
                                .hidden = true};
