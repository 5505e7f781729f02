/*
 * Metal's entry points, taken at run time through the Objective-C runtime: libumo links to no
 * framework, needs no SDK and holds no Objective-C, so one source serves a Mac, a Mac without
 * Metal, and every other system (where a test's library stands in).
 *
 * One row a message gives its selector, its type encoding and the C type of the call. Nothing
 * checks a message's types when it is sent, so tests/oracle compares every row and every constant
 * here with two copies of Apple's own declarations.
 */
#ifndef UMO_DRIVER_METAL_API_H
#define UMO_DRIVER_METAL_API_H

#include <umo/status.h>

typedef void *umo_id;             /* id */
typedef const void *umo_selector; /* SEL */
typedef uint64_t umo_uint;        /* NSUInteger; umo is for 64-bit systems */

/* BOOL is C's bool on arm64 and a signed char on x86-64. */
#if defined(__APPLE__) && defined(__x86_64__)
typedef signed char umo_objc_bool;
#else
typedef bool umo_objc_bool;
#endif

typedef struct umo_ns_range {
    umo_uint location;
    umo_uint length;
} umo_ns_range;

typedef struct umo_mtl_size {
    umo_uint width;
    umo_uint height;
    umo_uint depth;
} umo_mtl_size;

typedef struct umo_mtl_size_and_align {
    umo_uint size;
    umo_uint align;
} umo_mtl_size_and_align;

/*
 * MSG(field, owner, selector, encoding, result, parameters)
 *
 * The owner is the class or protocol that declares the method; "+" in front marks a class method.
 * The encoding is the one of arm64 without frame offsets.
 */
#define UMO_METAL_MESSAGES(MSG)                                                                    \
    MSG(new_object, "+NSObject", "new", "@@:", umo_id, (umo_id, umo_selector))                     \
    MSG(retain, "NSObject", "retain", "@@:", umo_id, (umo_id, umo_selector))                       \
    MSG(release, "NSObject", "release", "Vv@:", void, (umo_id, umo_selector))                      \
    MSG(string_make, "+NSString", "stringWithUTF8String:", "@@:r*", umo_id,                        \
        (umo_id, umo_selector, const char *))                                                      \
    MSG(string_text, "NSString", "UTF8String", "r*@:", const char *, (umo_id, umo_selector))       \
    MSG(error_code, "NSError", "code", "q@:", int64_t, (umo_id, umo_selector))                     \
    MSG(error_text, "NSError", "localizedDescription", "@@:", umo_id, (umo_id, umo_selector))      \
    MSG(array_make, "+NSArray", "arrayWithObject:", "@@:@", umo_id,                                \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(array_count, "NSArray", "count", "Q@:", umo_uint, (umo_id, umo_selector))                  \
    MSG(array_at, "NSArray", "objectAtIndex:", "@@:Q", umo_id, (umo_id, umo_selector, umo_uint))   \
    MSG(url_make, "+NSURL", "fileURLWithPath:", "@@:@", umo_id, (umo_id, umo_selector, umo_id))    \
                                                                                                   \
    MSG(device_name, "MTLDevice", "name", "@@:", umo_id, (umo_id, umo_selector))                   \
    MSG(device_unified, "MTLDevice", "hasUnifiedMemory", "B@:", umo_objc_bool,                     \
        (umo_id, umo_selector))                                                                    \
    MSG(device_supports, "MTLDevice", "supportsFamily:", "B@:q", umo_objc_bool,                    \
        (umo_id, umo_selector, int64_t))                                                           \
    MSG(device_buffer_max, "MTLDevice", "maxBufferLength", "Q@:", umo_uint,                        \
        (umo_id, umo_selector))                                                                    \
    MSG(device_working_set, "MTLDevice", "recommendedMaxWorkingSetSize", "Q@:", uint64_t,          \
        (umo_id, umo_selector))                                                                    \
    MSG(device_allocated, "MTLDevice", "currentAllocatedSize", "Q@:", umo_uint,                    \
        (umo_id, umo_selector))                                                                    \
    MSG(device_local_max, "MTLDevice", "maxThreadgroupMemoryLength", "Q@:", umo_uint,              \
        (umo_id, umo_selector))                                                                    \
    MSG(new_queue, "MTLDevice", "newCommandQueueWithMaxCommandBufferCount:", "@@:Q", umo_id,       \
        (umo_id, umo_selector, umo_uint))                                                          \
    MSG(new_event, "MTLDevice", "newSharedEvent", "@@:", umo_id, (umo_id, umo_selector))           \
    MSG(new_buffer, "MTLDevice", "newBufferWithLength:options:", "@@:QQ", umo_id,                  \
        (umo_id, umo_selector, umo_uint, umo_uint))                                                \
    MSG(new_buffer_no_copy, "MTLDevice",                                                           \
        "newBufferWithBytesNoCopy:length:options:deallocator:", "@@:^vQQ@?", umo_id,               \
        (umo_id, umo_selector, void *, umo_uint, umo_uint, const void *))                          \
    MSG(heap_size, "MTLDevice", "heapBufferSizeAndAlignWithLength:options:", "{?=QQ}@:QQ",         \
        umo_mtl_size_and_align, (umo_id, umo_selector, umo_uint, umo_uint))                        \
    MSG(new_heap, "MTLDevice", "newHeapWithDescriptor:", "@@:@", umo_id,                           \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(new_library, "MTLDevice", "newLibraryWithSource:options:error:", "@@:@@^@", umo_id,        \
        (umo_id, umo_selector, umo_id, umo_id, umo_id *))                                          \
    MSG(new_pipeline, "MTLDevice",                                                                 \
        "newComputePipelineStateWithDescriptor:options:reflection:error:", "@@:@Q^@^@", umo_id,    \
        (umo_id, umo_selector, umo_id, umo_uint, umo_id *, umo_id *))                              \
    MSG(new_archive, "MTLDevice", "newBinaryArchiveWithDescriptor:error:", "@@:@^@", umo_id,       \
        (umo_id, umo_selector, umo_id, umo_id *))                                                  \
    MSG(new_residency, "MTLDevice", "newResidencySetWithDescriptor:error:", "@@:@^@", umo_id,      \
        (umo_id, umo_selector, umo_id, umo_id *))                                                  \
                                                                                                   \
    MSG(buffer_contents, "MTLBuffer", "contents", "^v@:", void *, (umo_id, umo_selector))          \
    MSG(buffer_length, "MTLBuffer", "length", "Q@:", umo_uint, (umo_id, umo_selector))             \
    MSG(buffer_modified, "MTLBuffer", "didModifyRange:", "v@:{_NSRange=QQ}", void,                 \
        (umo_id, umo_selector, umo_ns_range))                                                      \
    MSG(resource_purgeable, "MTLResource", "setPurgeableState:", "Q@:Q", umo_uint,                 \
        (umo_id, umo_selector, umo_uint))                                                          \
                                                                                                   \
    MSG(heap_describe_size, "MTLHeapDescriptor", "setSize:", "v@:Q", void,                         \
        (umo_id, umo_selector, umo_uint))                                                          \
    MSG(heap_describe_storage, "MTLHeapDescriptor", "setStorageMode:", "v@:Q", void,               \
        (umo_id, umo_selector, umo_uint))                                                          \
    MSG(heap_describe_hazards, "MTLHeapDescriptor", "setHazardTrackingMode:", "v@:Q", void,        \
        (umo_id, umo_selector, umo_uint))                                                          \
    MSG(heap_buffer, "MTLHeap", "newBufferWithLength:options:", "@@:QQ", umo_id,                   \
        (umo_id, umo_selector, umo_uint, umo_uint))                                                \
                                                                                                   \
    MSG(queue_command, "MTLCommandQueue", "commandBufferWithUnretainedReferences", "@@:", umo_id,  \
        (umo_id, umo_selector))                                                                    \
    MSG(queue_add_residency, "MTLCommandQueue", "addResidencySet:", "v@:@", void,                  \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(queue_remove_residency, "MTLCommandQueue", "removeResidencySet:", "v@:@", void,            \
        (umo_id, umo_selector, umo_id))                                                            \
                                                                                                   \
    MSG(command_wait, "MTLCommandBuffer", "encodeWaitForEvent:value:", "v@:@Q", void,              \
        (umo_id, umo_selector, umo_id, uint64_t))                                                  \
    MSG(command_signal, "MTLCommandBuffer", "encodeSignalEvent:value:", "v@:@Q", void,             \
        (umo_id, umo_selector, umo_id, uint64_t))                                                  \
    MSG(command_blit, "MTLCommandBuffer", "blitCommandEncoder", "@@:", umo_id,                     \
        (umo_id, umo_selector))                                                                    \
    MSG(command_compute, "MTLCommandBuffer", "computeCommandEncoder", "@@:", umo_id,               \
        (umo_id, umo_selector))                                                                    \
    MSG(command_on_completed, "MTLCommandBuffer", "addCompletedHandler:", "v@:@?", void,           \
        (umo_id, umo_selector, const void *))                                                      \
    MSG(command_commit, "MTLCommandBuffer", "commit", "v@:", void, (umo_id, umo_selector))         \
    MSG(command_status, "MTLCommandBuffer", "status", "Q@:", umo_uint, (umo_id, umo_selector))     \
    MSG(command_error, "MTLCommandBuffer", "error", "@@:", umo_id, (umo_id, umo_selector))         \
                                                                                                   \
    MSG(encoder_end, "MTLCommandEncoder", "endEncoding", "v@:", void, (umo_id, umo_selector))      \
    MSG(blit_copy, "MTLBlitCommandEncoder",                                                        \
        "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:", "v@:@Q@QQ", void,          \
        (umo_id, umo_selector, umo_id, umo_uint, umo_id, umo_uint, umo_uint))                      \
    MSG(blit_fill, "MTLBlitCommandEncoder", "fillBuffer:range:value:", "v@:@{_NSRange=QQ}C", void, \
        (umo_id, umo_selector, umo_id, umo_ns_range, uint8_t))                                     \
    MSG(blit_synchronize, "MTLBlitCommandEncoder", "synchronizeResource:", "v@:@", void,           \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(compute_pipeline, "MTLComputeCommandEncoder", "setComputePipelineState:", "v@:@", void,    \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(compute_buffer, "MTLComputeCommandEncoder", "setBuffer:offset:atIndex:", "v@:@QQ", void,   \
        (umo_id, umo_selector, umo_id, umo_uint, umo_uint))                                        \
    MSG(compute_bytes, "MTLComputeCommandEncoder", "setBytes:length:atIndex:", "v@:r^vQQ", void,   \
        (umo_id, umo_selector, const void *, umo_uint, umo_uint))                                  \
    MSG(compute_local, "MTLComputeCommandEncoder", "setThreadgroupMemoryLength:atIndex:", "v@:QQ", \
        void, (umo_id, umo_selector, umo_uint, umo_uint))                                          \
    MSG(compute_dispatch, "MTLComputeCommandEncoder",                                              \
        "dispatchThreads:threadsPerThreadgroup:", "v@:{?=QQQ}{?=QQQ}", void,                       \
        (umo_id, umo_selector, umo_mtl_size, umo_mtl_size))                                        \
                                                                                                   \
    MSG(event_value, "MTLSharedEvent", "signaledValue", "Q@:", uint64_t, (umo_id, umo_selector))   \
    MSG(event_set, "MTLSharedEvent", "setSignaledValue:", "v@:Q", void,                            \
        (umo_id, umo_selector, uint64_t))                                                          \
                                                                                                   \
    MSG(compile_fast_math, "MTLCompileOptions", "setFastMathEnabled:", "v@:B", void,               \
        (umo_id, umo_selector, umo_objc_bool))                                                     \
    MSG(library_function, "MTLLibrary", "newFunctionWithName:", "@@:@", umo_id,                    \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(pipeline_describe_function, "MTLComputePipelineDescriptor", "setComputeFunction:", "v@:@", \
        void, (umo_id, umo_selector, umo_id))                                                      \
    MSG(pipeline_describe_archives, "MTLComputePipelineDescriptor", "setBinaryArchives:", "v@:@",  \
        void, (umo_id, umo_selector, umo_id))                                                      \
    MSG(pipeline_threads_max, "MTLComputePipelineState", "maxTotalThreadsPerThreadgroup",          \
        "Q@:", umo_uint, (umo_id, umo_selector))                                                   \
    MSG(pipeline_width, "MTLComputePipelineState", "threadExecutionWidth", "Q@:", umo_uint,        \
        (umo_id, umo_selector))                                                                    \
    MSG(pipeline_local, "MTLComputePipelineState", "staticThreadgroupMemoryLength",                \
        "Q@:", umo_uint, (umo_id, umo_selector))                                                   \
    MSG(reflection_bindings, "MTLComputePipelineReflection", "bindings", "@@:", umo_id,            \
        (umo_id, umo_selector))                                                                    \
    MSG(binding_type, "MTLBinding", "type", "q@:", int64_t, (umo_id, umo_selector))                \
    MSG(binding_access, "MTLBinding", "access", "Q@:", umo_uint, (umo_id, umo_selector))           \
    MSG(binding_index, "MTLBinding", "index", "Q@:", umo_uint, (umo_id, umo_selector))             \
    MSG(binding_used, "MTLBinding", "isUsed", "B@:", umo_objc_bool, (umo_id, umo_selector))        \
    MSG(binding_bytes, "MTLBufferBinding", "bufferDataSize", "Q@:", umo_uint,                      \
        (umo_id, umo_selector))                                                                    \
    MSG(binding_align, "MTLBufferBinding", "bufferAlignment", "Q@:", umo_uint,                     \
        (umo_id, umo_selector))                                                                    \
    MSG(archive_describe_url, "MTLBinaryArchiveDescriptor", "setUrl:", "v@:@", void,               \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(archive_add, "MTLBinaryArchive",                                                           \
        "addComputePipelineFunctionsWithDescriptor:error:", "B@:@^@", umo_objc_bool,               \
        (umo_id, umo_selector, umo_id, umo_id *))                                                  \
    MSG(archive_write, "MTLBinaryArchive", "serializeToURL:error:", "B@:@^@", umo_objc_bool,       \
        (umo_id, umo_selector, umo_id, umo_id *))                                                  \
                                                                                                   \
    MSG(residency_add, "MTLResidencySet", "addAllocation:", "v@:@", void,                          \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(residency_remove, "MTLResidencySet", "removeAllocation:", "v@:@", void,                    \
        (umo_id, umo_selector, umo_id))                                                            \
    MSG(residency_commit, "MTLResidencySet", "commit", "v@:", void, (umo_id, umo_selector))        \
    MSG(residency_request, "MTLResidencySet", "requestResidency", "v@:", void,                     \
        (umo_id, umo_selector))                                                                    \
    MSG(residency_end, "MTLResidencySet", "endResidency", "v@:", void, (umo_id, umo_selector))

/* CLASS(field, name): classes that messages are sent to. A system may lack those of newer versions:
 * they are NULL then. */
#define UMO_METAL_CLASSES(CLASS)                                                                   \
    CLASS(string, "NSString")                                                                      \
    CLASS(array, "NSArray")                                                                        \
    CLASS(url, "NSURL")                                                                            \
    CLASS(heap_descriptor, "MTLHeapDescriptor")                                                    \
    CLASS(compile_options, "MTLCompileOptions")                                                    \
    CLASS(pipeline_descriptor, "MTLComputePipelineDescriptor")                                     \
    CLASS(archive_descriptor, "MTLBinaryArchiveDescriptor")                                        \
    CLASS(residency_descriptor, "MTLResidencySetDescriptor")

/* CONSTANT(name, Apple's name, value) */
#define UMO_METAL_CONSTANTS(CONSTANT)                                                              \
    CONSTANT(WRITE_COMBINED, MTLResourceCPUCacheModeWriteCombined, 1)                              \
    CONSTANT(STORAGE_SHARED, MTLResourceStorageModeShared, 0)                                      \
    CONSTANT(STORAGE_MANAGED, MTLResourceStorageModeManaged, 16)                                   \
    CONSTANT(STORAGE_PRIVATE, MTLResourceStorageModePrivate, 32)                                   \
    CONSTANT(UNTRACKED, MTLResourceHazardTrackingModeUntracked, 256)                               \
    CONSTANT(HEAP_SHARED, MTLStorageModeShared, 0)                                                 \
    CONSTANT(HEAP_PRIVATE, MTLStorageModePrivate, 2)                                               \
    CONSTANT(HEAP_UNTRACKED, MTLHazardTrackingModeUntracked, 1)                                    \
    CONSTANT(PURGEABLE_NON_VOLATILE, MTLPurgeableStateNonVolatile, 2)                              \
    CONSTANT(PURGEABLE_VOLATILE, MTLPurgeableStateVolatile, 3)                                     \
    CONSTANT(PURGEABLE_EMPTY, MTLPurgeableStateEmpty, 4)                                           \
    CONSTANT(COMMAND_COMPLETED, MTLCommandBufferStatusCompleted, 4)                                \
    CONSTANT(ERROR_OUT_OF_MEMORY, MTLCommandBufferErrorOutOfMemory, 8)                             \
    CONSTANT(ERROR_DEVICE_REMOVED, MTLCommandBufferErrorDeviceRemoved, 11)                         \
    CONSTANT(BINDING_BUFFER, MTLBindingTypeBuffer, 0)                                              \
    CONSTANT(BINDING_LOCAL, MTLBindingTypeThreadgroupMemory, 1)                                    \
    CONSTANT(BINDING_READ_ONLY, MTLBindingAccessReadOnly, 0)                                       \
    CONSTANT(REFLECT_BINDINGS, MTLPipelineOptionBindingInfo, 1)                                    \
    CONSTANT(FAIL_ON_ARCHIVE_MISS, MTLPipelineOptionFailOnBinaryArchiveMiss, 4)                    \
    CONSTANT(REFLECT_BUFFERS, MTLPipelineOptionBufferTypeInfo, 2)                                  \
    CONSTANT(FAMILY_APPLE_1, MTLGPUFamilyApple1, 1001)                                             \
    CONSTANT(FAMILY_APPLE_4, MTLGPUFamilyApple4, 1004)                                             \
    CONSTANT(FAMILY_APPLE_9, MTLGPUFamilyApple9, 1009)                                             \
    CONSTANT(FAMILY_MAC_2, MTLGPUFamilyMac2, 2002)                                                 \
    CONSTANT(FAMILY_METAL_3, MTLGPUFamilyMetal3, 5001)

enum {
#define UMO_METAL_CONSTANT(name, apples, value) UMO_MTL_##name = (value),
    UMO_METAL_CONSTANTS(UMO_METAL_CONSTANT)
#undef UMO_METAL_CONSTANT
};

#define UMO_METAL_TYPE(field, owner, selector, encoding, result, parameters)                       \
    typedef result(*umo_metal_##field##_fn) parameters;
UMO_METAL_MESSAGES(UMO_METAL_TYPE)
#undef UMO_METAL_TYPE

typedef struct umo_metal_api {
    void (*send)(void); /* objc_msgSend; never called without a cast to a row's type */
    void *(*pool_push)(void);
    void (*pool_pop)(void *pool);
    umo_id (*copy_all_devices)(void);
    const void *stack_block; /* &_NSConcreteStackBlock */
    struct {
#define UMO_METAL_SELECTOR(field, owner, selector, encoding, result, parameters) umo_selector field;
        UMO_METAL_MESSAGES(UMO_METAL_SELECTOR)
#undef UMO_METAL_SELECTOR
    } selectors;
    struct {
#define UMO_METAL_CLASS(field, name) umo_id field;
        UMO_METAL_CLASSES(UMO_METAL_CLASS)
#undef UMO_METAL_CLASS
    } classes;
} umo_metal_api;

/* Sends a message without, and with, arguments. */
#define UMO_METAL_SEND0(api, field, self)                                                          \
    (((umo_metal_##field##_fn)(api)->send)((self), (api)->selectors.field))
#define UMO_METAL_SEND(api, field, self, ...)                                                      \
    (((umo_metal_##field##_fn)(api)->send)((self), (api)->selectors.field, __VA_ARGS__))

/*
 * A block literal as the Blocks ABI lays it out ("Block Implementation Specification" of Clang).
 * The context is copied with the block and is not owned by it.
 */
typedef struct umo_metal_block {
    const void *isa;
    int flags;
    int reserved;
    void (*invoke)(void);
    const struct umo_metal_block_descriptor *descriptor;
    void *context;
} umo_metal_block;

typedef struct umo_metal_block_descriptor {
    unsigned long reserved;
    unsigned long size_bytes;
    const char *signature;
} umo_metal_block_descriptor;

/* A block on the caller's stack: who keeps it copies it. The kinds' invoke functions take the block
 * first. */
umo_metal_block umo_metal_completed_block(const umo_metal_api *api,
                                          void (*invoke)(umo_metal_block *block, umo_id command),
                                          void *context);
umo_metal_block umo_metal_deallocator_block(const umo_metal_api *api,
                                            void (*invoke)(umo_metal_block *block, void *pointer,
                                                           umo_uint length),
                                            void *context);

/*
 * Fills a table. path names one library that stands in for the runtime and the frameworks together,
 * or is NULL for the system's. NOT_FOUND says what is missing.
 */
umo_status umo_metal_api_load(const char *path, umo_metal_api *out, umo_error *error);

/*
 * The process's table: loaded at the first success, then kept. The environment variable
 * UMO_METAL_LIBRARY names a stand-in (tests; on a Mac it is not set).
 */
umo_status umo_metal_api_get(const umo_metal_api **out, umo_error *error);

/* Tests: the table that umo_metal_api_get() gives from now on; NULL for the system's again. */
void umo_metal_api_replace(const umo_metal_api *api);

#endif
