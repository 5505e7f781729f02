/* For tests: the messages of Metal as typed functions, and what the tests' GPU work consists of. */
#ifndef FAKE_SEND_H
#define FAKE_SEND_H

#include "fake_metal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef void *id;
typedef const char *SEL;
typedef uint64_t ns_uint;

typedef struct ns_range {
    ns_uint location;
    ns_uint length;
} ns_range;

typedef struct mtl_size {
    ns_uint width;
    ns_uint height;
    ns_uint depth;
} mtl_size;

typedef struct mtl_size_align {
    ns_uint size;
    ns_uint align;
} mtl_size_align;

void objc_msgSend(void);
SEL sel_registerName(const char *name);
id objc_getClass(const char *name);
id objc_getProtocol(const char *name);
const char *object_getClassName(id object);
id objc_retain(id object);
id objc_autorelease(id object);
void *objc_autoreleasePoolPush(void);
void objc_autoreleasePoolPop(void *pool);
id MTLCopyAllDevices(void);
id MTLCreateSystemDefaultDevice(void);
void *_Block_copy(const void *block);
void _Block_release(const void *block);
void _Block_object_assign(void *target, const void *object, int flags);
void _Block_object_dispose(const void *object, int flags);
extern char _NSConcreteStackBlock[];
extern char _NSConcreteGlobalBlock[];

enum {
    SHARED = 0,
    MANAGED = 16,
    PRIVATE = 32,
    UNTRACKED = 256
};

enum {
    KEEP = 1,
    NON_VOLATILE = 2,
    VOLATILE = 3,
    EMPTY = 4
};

enum {
    COMPLETED = 4,
    FAILED = 5
};

/* objc_msgSend, behind a variable: a compiler does not believe such a call of a function it knows.
 */
extern void (*volatile send_message)(void);

/* Sends a message without, and with, arguments. */
#define SEND0(result, self, selector)                                                              \
    (((result(*)(id, SEL))send_message)((self), sel_registerName(selector)))
#define SEND(result, types, self, selector, ...)                                                   \
    (((result(*) types)send_message)((self), sel_registerName(selector), __VA_ARGS__))

static inline id new_of(id self)
{
    return SEND0(id, self, "new");
}

static inline id retain(id self)
{
    return SEND0(id, self, "retain");
}

static inline void release(id self)
{
    SEND0(void, self, "release");
}

static inline id autorelease(id self)
{
    return SEND0(id, self, "autorelease");
}

static inline id string_make(id self, const char *text)
{
    return SEND(id, (id, SEL, const char *), self, "stringWithUTF8String:", text);
}

static inline const char *string_text(id self)
{
    return SEND0(const char *, self, "UTF8String");
}

static inline int64_t error_code(id self)
{
    return SEND0(int64_t, self, "code");
}

static inline id error_text(id self)
{
    return SEND0(id, self, "localizedDescription");
}

static inline id array_make(id self, id item)
{
    return SEND(id, (id, SEL, id), self, "arrayWithObject:", item);
}

static inline ns_uint array_count(id self)
{
    return SEND0(ns_uint, self, "count");
}

static inline id array_at(id self, ns_uint index)
{
    return SEND(id, (id, SEL, ns_uint), self, "objectAtIndex:", index);
}

static inline id url_make(id self, id path)
{
    return SEND(id, (id, SEL, id), self, "fileURLWithPath:", path);
}

static inline id device_queue(id self, ns_uint max)
{
    return SEND(id, (id, SEL, ns_uint), self, "newCommandQueueWithMaxCommandBufferCount:", max);
}

static inline id device_event(id self)
{
    return SEND0(id, self, "newSharedEvent");
}

static inline id device_buffer(id self, ns_uint length, ns_uint options)
{
    return SEND(id, (id, SEL, ns_uint, ns_uint), self, "newBufferWithLength:options:", length,
                options);
}

static inline id device_buffer_with(id self, const void *bytes, ns_uint length, ns_uint options)
{
    return SEND(id, (id, SEL, const void *, ns_uint, ns_uint), self,
                "newBufferWithBytes:length:options:", bytes, length, options);
}

static inline id device_no_copy(id self, void *bytes, ns_uint length, ns_uint options,
                                const void *block)
{
    return SEND(id, (id, SEL, void *, ns_uint, ns_uint, const void *), self,
                "newBufferWithBytesNoCopy:length:options:deallocator:", bytes, length, options,
                block);
}

static inline id device_heap(id self, id descriptor)
{
    return SEND(id, (id, SEL, id), self, "newHeapWithDescriptor:", descriptor);
}

static inline id device_library(id self, id text, id options, id *error)
{
    return SEND(id, (id, SEL, id, id, id *), self, "newLibraryWithSource:options:error:", text,
                options, error);
}

static inline id device_pipeline(id self, id function, id *error)
{
    return SEND(id, (id, SEL, id, id *), self,
                "newComputePipelineStateWithFunction:error:", function, error);
}

static inline id device_pipeline_described(id self, id descriptor, ns_uint options, id *reflection,
                                           id *error)
{
    return SEND(id, (id, SEL, id, ns_uint, id *, id *), self,
                "newComputePipelineStateWithDescriptor:options:reflection:error:", descriptor,
                options, reflection, error);
}

static inline id device_archive(id self, id descriptor, id *error)
{
    return SEND(id, (id, SEL, id, id *), self, "newBinaryArchiveWithDescriptor:error:", descriptor,
                error);
}

static inline id device_residency(id self, id descriptor, id *error)
{
    return SEND(id, (id, SEL, id, id *), self, "newResidencySetWithDescriptor:error:", descriptor,
                error);
}

static inline void *buffer_contents(id self)
{
    return SEND0(void *, self, "contents");
}

static inline ns_uint buffer_length(id self)
{
    return SEND0(ns_uint, self, "length");
}

static inline void buffer_modified(id self, ns_range range)
{
    SEND(void, (id, SEL, ns_range), self, "didModifyRange:", range);
}

static inline ns_uint purgeable_set(id self, ns_uint state)
{
    return SEND(ns_uint, (id, SEL, ns_uint), self, "setPurgeableState:", state);
}

static inline void describe_size(id self, ns_uint size)
{
    SEND(void, (id, SEL, ns_uint), self, "setSize:", size);
}

static inline void describe_storage(id self, ns_uint mode)
{
    SEND(void, (id, SEL, ns_uint), self, "setStorageMode:", mode);
}

static inline void describe_hazards(id self, ns_uint mode)
{
    SEND(void, (id, SEL, ns_uint), self, "setHazardTrackingMode:", mode);
}

static inline id queue_command(id self)
{
    return SEND0(id, self, "commandBuffer");
}

static inline id queue_command_unretained(id self)
{
    return SEND0(id, self, "commandBufferWithUnretainedReferences");
}

static inline void queue_add_residency(id self, id set)
{
    SEND(void, (id, SEL, id), self, "addResidencySet:", set);
}

static inline void queue_remove_residency(id self, id set)
{
    SEND(void, (id, SEL, id), self, "removeResidencySet:", set);
}

static inline void command_wait(id self, id event, uint64_t value)
{
    SEND(void, (id, SEL, id, uint64_t), self, "encodeWaitForEvent:value:", event, value);
}

static inline void command_signal(id self, id event, uint64_t value)
{
    SEND(void, (id, SEL, id, uint64_t), self, "encodeSignalEvent:value:", event, value);
}

static inline id command_blit(id self)
{
    return SEND0(id, self, "blitCommandEncoder");
}

static inline id command_compute(id self)
{
    return SEND0(id, self, "computeCommandEncoder");
}

static inline void command_on_completed(id self, const void *block)
{
    SEND(void, (id, SEL, const void *), self, "addCompletedHandler:", block);
}

static inline void command_enqueue(id self)
{
    SEND0(void, self, "enqueue");
}

static inline void commit(id self)
{
    SEND0(void, self, "commit");
}

static inline void command_wait_ended(id self)
{
    SEND0(void, self, "waitUntilCompleted");
}

static inline ns_uint command_status(id self)
{
    return SEND0(ns_uint, self, "status");
}

static inline id command_error(id self)
{
    return SEND0(id, self, "error");
}

static inline void end_encoding(id self)
{
    SEND0(void, self, "endEncoding");
}

static inline void blit_copy(id self, id from, ns_uint from_offset, id to, ns_uint to_offset,
                             ns_uint size)
{
    SEND(void, (id, SEL, id, ns_uint, id, ns_uint, ns_uint), self,
         "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:", from, from_offset, to,
         to_offset, size);
}

static inline void blit_fill(id self, id to, ns_range range, uint8_t value)
{
    SEND(void, (id, SEL, id, ns_range, uint8_t), self, "fillBuffer:range:value:", to, range, value);
}

static inline void blit_synchronize(id self, id resource)
{
    SEND(void, (id, SEL, id), self, "synchronizeResource:", resource);
}

static inline void compute_pipeline(id self, id pipeline)
{
    SEND(void, (id, SEL, id), self, "setComputePipelineState:", pipeline);
}

static inline void compute_buffer(id self, id buffer, ns_uint offset, ns_uint index)
{
    SEND(void, (id, SEL, id, ns_uint, ns_uint), self, "setBuffer:offset:atIndex:", buffer, offset,
         index);
}

static inline void compute_bytes(id self, const void *bytes, ns_uint length, ns_uint index)
{
    SEND(void, (id, SEL, const void *, ns_uint, ns_uint), self, "setBytes:length:atIndex:", bytes,
         length, index);
}

static inline void compute_local(id self, ns_uint length, ns_uint index)
{
    SEND(void, (id, SEL, ns_uint, ns_uint), self, "setThreadgroupMemoryLength:atIndex:", length,
         index);
}

static inline void compute_dispatch(id self, mtl_size threads, mtl_size group)
{
    SEND(void, (id, SEL, mtl_size, mtl_size), self,
         "dispatchThreads:threadsPerThreadgroup:", threads, group);
}

static inline void compute_dispatch_groups(id self, mtl_size groups, mtl_size group)
{
    SEND(void, (id, SEL, mtl_size, mtl_size), self,
         "dispatchThreadgroups:threadsPerThreadgroup:", groups, group);
}

static inline uint64_t event_value(id self)
{
    return SEND0(uint64_t, self, "signaledValue");
}

static inline void event_set(id self, uint64_t value)
{
    SEND(void, (id, SEL, uint64_t), self, "setSignaledValue:", value);
}

static inline bool event_wait(id self, uint64_t value, uint64_t timeout_ms)
{
    return SEND(bool, (id, SEL, uint64_t, uint64_t), self,
                "waitUntilSignaledValue:timeoutMS:", value, timeout_ms);
}

static inline id library_function(id self, id name)
{
    return SEND(id, (id, SEL, id), self, "newFunctionWithName:", name);
}

static inline void describe_function(id self, id function)
{
    SEND(void, (id, SEL, id), self, "setComputeFunction:", function);
}

static inline void describe_archives(id self, id archives)
{
    SEND(void, (id, SEL, id), self, "setBinaryArchives:", archives);
}

static inline id reflection_bindings(id self)
{
    return SEND0(id, self, "bindings");
}

static inline void describe_url(id self, id url)
{
    SEND(void, (id, SEL, id), self, "setUrl:", url);
}

static inline bool archive_add(id self, id descriptor, id *error)
{
    return SEND(bool, (id, SEL, id, id *), self,
                "addComputePipelineFunctionsWithDescriptor:error:", descriptor, error);
}

static inline bool archive_write(id self, id url, id *error)
{
    return SEND(bool, (id, SEL, id, id *), self, "serializeToURL:error:", url, error);
}

static inline void residency_add(id self, id allocation)
{
    SEND(void, (id, SEL, id), self, "addAllocation:", allocation);
}

static inline void residency_remove(id self, id allocation)
{
    SEND(void, (id, SEL, id), self, "removeAllocation:", allocation);
}

static inline void residency_request(id self)
{
    SEND0(void, self, "requestResidency");
}

static inline void residency_end(id self)
{
    SEND0(void, self, "endResidency");
}

#endif
