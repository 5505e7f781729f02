/*
 * A strict OpenCL in memory, for tests of the driver: it counts every object, makes a chosen call
 * fail, runs commands only when somebody waits or asks, and notes what a real runtime would leave
 * undefined (violations): a command that touches mapped bytes, mappings that overlap, memory that
 * goes while commands use it. With shadow set, wrapped memory has a device copy of its own, so that
 * a forgotten map or unmap computes with stale bytes.
 *
 * One thread only; all state is in the one variable fake. Its only kernel is
 * add(__global uchar *data, int amount, __local uchar *scratch).
 */
#ifndef UMO_DRIVER_OPENCL_FAKE_OPENCL_H
#define UMO_DRIVER_OPENCL_FAKE_OPENCL_H

#include "driver/opencl/opencl_api.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

#define FAKE_MAPS_MAX 32
#define FAKE_WAITS_MAX 32

typedef enum fake_kind {
    FAKE_CONTEXT,
    FAKE_QUEUE,
    FAKE_MEMORY,
    FAKE_PROGRAM,
    FAKE_KERNEL,
    FAKE_EVENT,
    FAKE_KINDS
} fake_kind;

static struct {
    /* what the machine is like */
    cl_uint platforms;
    const char *platform_names[4];
    cl_uint devices[4]; /* of each platform */
    cl_device_type type;
    cl_bool unified;
    bool shadow;
    size_t wrap_align_bytes; /* wrapped addresses are multiples of this */
    cl_uint base_align_bits;
    /* what goes wrong */
    uint64_t fail_at; /* the call of this number fails; 0 for none */
    cl_int fail_code;
    uint64_t fail_command_at; /* the command of this number ends with an error */
    cl_uint broken_platform;  /* 1-based: its clGetDeviceIDs fails */
    bool no_platform;
    bool elsewhere; /* mapping gives an address that is not the wrapped one */
    bool deaf;      /* unmapping drops what the host wrote */
    bool mute;      /* mapping does not bring what the device wrote */
    bool spill;     /* a fill writes one byte before its range too */
    bool stuck;     /* commands run only in clFinish */
    /* what was seen */
    uint64_t calls;
    uint64_t commands;
    uint64_t run;
    uint64_t violations;
    long live[FAKE_KINDS];
} fake;

struct _cl_platform_id {
    cl_uint index;
};
struct _cl_device_id {
    cl_uint platform;
    cl_uint index;
};
struct _cl_context {
    int refs;
};
struct _cl_mem {
    int refs;
    cl_mem parent;
    size_t size;
    unsigned char *device; /* what commands see */
    unsigned char *host;   /* of CL_MEM_USE_HOST_PTR */
    bool owned;            /* device is this object's own */
    size_t map_count;      /* of a root object */
    struct {
        size_t offset;
        size_t size;
        bool writes;
    } maps[FAKE_MAPS_MAX];
};
struct _cl_program {
    int refs;
    bool built;
};
struct _cl_kernel {
    int refs;
    cl_program program;
    cl_mem data;
    cl_int amount;
    unsigned set; /* a bit an argument */
};

typedef enum fake_work {
    FAKE_NOTHING,
    FAKE_MOVE, /* bytes between plain addresses */
    FAKE_FILL,
    FAKE_ADD,
    FAKE_MAP,
    FAKE_UNMAP
} fake_work;

struct _cl_event {
    int refs;
    cl_int status;
    cl_command_queue queue;
    cl_event next;
    uint64_t number;
    cl_uint wait_count;
    cl_event waits[FAKE_WAITS_MAX];
    fake_work work;
    cl_mem used[2];
    unsigned char *target;
    const unsigned char *source;
    size_t size;
    int amount;
};
struct _cl_command_queue {
    int refs;
    cl_event first;
    cl_event last;
};

static struct _cl_platform_id fake_platforms[4];
static struct _cl_device_id fake_devices[4][4];

/* A CPU as PoCL shows it. */
static void fake_reset(void)
{
    memset(&fake, 0, sizeof fake);
    fake.platforms = 1;
    fake.platform_names[0] = "Fake";
    fake.devices[0] = 1;
    fake.type = CL_DEVICE_TYPE_CPU;
    fake.unified = CL_TRUE;
    fake.wrap_align_bytes = 1;
    fake.base_align_bits = 1024;
    fake.fail_code = CL_OUT_OF_RESOURCES;
    for (cl_uint p = 0; p < 4; p++) {
        fake_platforms[p].index = p;
        for (cl_uint d = 0; d < 4; d++) {
            fake_devices[p][d] = (struct _cl_device_id){p, d};
        }
    }
}

/* A GPU that shares the memory but not the caches. */
static void fake_reset_gpu(void)
{
    fake_reset();
    fake.type = CL_DEVICE_TYPE_GPU;
    fake.shadow = true;
    fake.wrap_align_bytes = umo_os_page_bytes();
    fake.base_align_bits = 4096 * 8;
}

static bool fake_fails(void)
{
    return ++fake.calls == fake.fail_at;
}

static void *fake_object(fake_kind kind, size_t bytes)
{
    fake.live[kind]++;
    return calloc(1, bytes);
}

static void *fake_created(void *object, cl_int code, cl_int *out)
{
    if (out != NULL) {
        *out = code;
    }
    return object;
}

static cl_int fake_answer(const void *value, size_t bytes, size_t room, void *out,
                          size_t *out_bytes)
{
    if (out_bytes != NULL) {
        *out_bytes = bytes;
    }
    if (out != NULL) {
        if (room < bytes) {
            return CL_INVALID_VALUE;
        }
        memcpy(out, value, bytes);
    }
    return CL_SUCCESS;
}

static cl_mem fake_root(cl_mem memory)
{
    return memory->parent != NULL ? memory->parent : memory;
}

static void fake_memory_release(cl_mem memory)
{
    if (--memory->refs > 0) {
        return;
    }
    /* After a failed unmap nobody could have done better. */
    fake.violations += memory->map_count > 0 && fake.fail_at == 0 && fake.fail_command_at == 0;
    if (memory->parent != NULL) {
        fake_memory_release(memory->parent);
    }
    if (memory->owned) {
        free(memory->device);
    }
    free(memory);
    fake.live[FAKE_MEMORY]--;
}

static void fake_event_release(cl_event event)
{
    if (--event->refs == 0) {
        free(event);
        fake.live[FAKE_EVENT]--;
    }
}

/* A command must not write bytes that the host has mapped, nor read what is mapped for writing. */
static void fake_touch(cl_mem memory, const unsigned char *bytes, size_t size, bool writes)
{
    if (memory == NULL) {
        return;
    }
    cl_mem root = fake_root(memory);
    if (bytes < root->device || bytes >= root->device + root->size) {
        return;
    }
    size_t offset = (size_t)(bytes - root->device);
    for (size_t i = 0; i < root->map_count; i++) {
        fake.violations += root->maps[i].offset < offset + size &&
                           offset < root->maps[i].offset + root->maps[i].size &&
                           (writes || root->maps[i].writes);
    }
}

static void fake_map(cl_mem memory, size_t offset, size_t size, bool writes)
{
    for (size_t i = 0; i < memory->map_count; i++) {
        fake.violations += memory->maps[i].offset < offset + size &&
                           offset < memory->maps[i].offset + memory->maps[i].size;
    }
    if (memory->map_count == FAKE_MAPS_MAX) {
        abort();
    }
    memory->maps[memory->map_count].offset = offset;
    memory->maps[memory->map_count].writes = writes;
    memory->maps[memory->map_count++].size = size;
    if (memory->device != memory->host && !fake.mute) {
        memcpy(memory->host + offset, memory->device + offset, size);
    }
}

static void fake_unmap(cl_mem memory, size_t offset)
{
    for (size_t i = 0; i < memory->map_count; i++) {
        if (memory->maps[i].offset == offset) {
            if (memory->device != memory->host && !fake.deaf && memory->maps[i].writes) {
                memcpy(memory->device + offset, memory->host + offset, memory->maps[i].size);
            }
            memory->maps[i] = memory->maps[--memory->map_count];
            return;
        }
    }
    fake.violations++;
}

static void fake_execute(cl_event event)
{
    switch (event->work) {
    case FAKE_NOTHING:
        break;
    case FAKE_MOVE:
        fake_touch(event->used[0], event->target, event->size, true);
        fake_touch(event->used[1], event->source, event->size, false);
        memcpy(event->target, event->source, event->size);
        break;
    case FAKE_FILL:
        fake_touch(event->used[0], event->target, event->size, true);
        memset(event->target - (fake.spill ? 1 : 0), event->amount,
               event->size + (fake.spill ? 1 : 0));
        break;
    case FAKE_ADD:
        fake_touch(event->used[0], event->target, event->size, true);
        for (size_t i = 0; i < event->size; i++) {
            event->target[i] = (unsigned char)(event->target[i] + event->amount);
        }
        break;
    case FAKE_MAP:
        fake_map(event->used[0], (size_t)(event->target - event->used[0]->host), event->size,
                 event->amount != 0);
        break;
    case FAKE_UNMAP:
        fake_unmap(event->used[0], (size_t)(event->target - event->used[0]->host));
        break;
    }
}

/* Runs the oldest command of a queue, and before it what it waits for. */
static void fake_run_one(cl_command_queue queue)
{
    cl_event event = queue->first;
    if (event == NULL) {
        return;
    }
    cl_int status = CL_COMPLETE;
    for (cl_uint i = 0; i < event->wait_count; i++) {
        while (event->waits[i]->status > CL_COMPLETE) {
            fake_run_one(event->waits[i]->queue);
        }
        if (event->waits[i]->status < 0) {
            status = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
        }
    }
    if (event->number == fake.fail_command_at) {
        status = CL_OUT_OF_RESOURCES;
    }
    queue->first = event->next;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    fake.run++;
    if (status == CL_COMPLETE) {
        fake_execute(event);
    }
    event->status = status;
    for (cl_uint i = 0; i < event->wait_count; i++) {
        fake_event_release(event->waits[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        if (event->used[i] != NULL) {
            fake_memory_release(event->used[i]);
        }
    }
    fake_event_release(event);
}

static cl_int fake_enqueue(cl_command_queue queue, fake_work work, cl_mem first, cl_mem second,
                           void *target, const void *source, size_t size, int amount,
                           cl_bool blocking, cl_uint wait_count, const cl_event *waits,
                           cl_event *out)
{
    if ((wait_count == 0) != (waits == NULL)) {
        return CL_INVALID_EVENT_WAIT_LIST;
    }
    if (fake_fails()) {
        return fake.fail_code;
    }
    cl_event event = fake_object(FAKE_EVENT, sizeof *event);
    event->refs = 1;
    event->status = CL_QUEUED;
    event->queue = queue;
    event->number = ++fake.commands;
    event->work = work;
    event->used[0] = first;
    event->used[1] = second;
    event->target = target;
    event->source = source;
    event->size = size;
    event->amount = amount;
    for (size_t i = 0; i < 2; i++) {
        if (event->used[i] != NULL) {
            event->used[i]->refs++;
        }
    }
    for (cl_uint i = 0; i < wait_count; i++) {
        event->waits[event->wait_count++] = waits[i];
        waits[i]->refs++;
    }
    if (queue->last != NULL) {
        queue->last->next = event;
    } else {
        queue->first = event;
    }
    queue->last = event;
    if (out != NULL) {
        event->refs++;
        *out = event;
    }
    cl_int status = CL_SUCCESS;
    if (blocking) {
        event->refs++;
        while (event->status > CL_COMPLETE) {
            fake_run_one(queue);
        }
        status = event->status < 0 ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : CL_SUCCESS;
        fake_event_release(event);
    }
    return status;
}

/* ---- the entry points ---- */

static cl_int fake_clGetPlatformIDs(cl_uint room, cl_platform_id *out, cl_uint *count)
{
    if (fake.no_platform) {
        return -1001; /* CL_PLATFORM_NOT_FOUND_KHR */
    }
    if (fake_fails()) {
        return fake.fail_code;
    }
    for (cl_uint p = 0; p < fake.platforms && p < room; p++) {
        out[p] = &fake_platforms[p];
    }
    *count = fake.platforms;
    return CL_SUCCESS;
}

static cl_int fake_clGetPlatformInfo(cl_platform_id platform, cl_platform_info what, size_t room,
                                     void *out, size_t *bytes)
{
    const char *name = fake.platform_names[platform->index];
    if (fake_fails() || what != CL_PLATFORM_NAME) {
        return fake.fail_code;
    }
    return fake_answer(name, strlen(name) + 1, room, out, bytes);
}

static cl_int fake_clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint room,
                                  cl_device_id *out, cl_uint *count)
{
    (void)type;
    if (fake_fails() || platform->index + 1 == fake.broken_platform) {
        return fake.fail_code;
    }
    cl_uint have = fake.devices[platform->index];
    if (have == 0) {
        return CL_DEVICE_NOT_FOUND;
    }
    for (cl_uint d = 0; d < have && d < room; d++) {
        out[d] = &fake_devices[platform->index][d];
    }
    *count = have;
    return CL_SUCCESS;
}

static cl_int fake_clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t room, void *out,
                                   size_t *bytes)
{
    const cl_bool yes = CL_TRUE;
    const cl_ulong memory = (cl_ulong)1 << 30;
    const cl_bitfield no_svm = 0;
    if (fake_fails()) {
        return fake.fail_code;
    }
    switch (what) {
    case CL_DEVICE_NAME: {
        char name[] = "fake device 0.0";
        name[12] = (char)('0' + (int)device->platform);
        name[14] = (char)('0' + (int)device->index);
        return fake_answer(name, sizeof name, room, out, bytes);
    }
    case CL_DEVICE_TYPE:
        return fake_answer(&fake.type, sizeof fake.type, room, out, bytes);
    case CL_DEVICE_SVM_CAPABILITIES:
        return fake_answer(&no_svm, sizeof no_svm, room, out, bytes);
    case CL_DEVICE_HOST_UNIFIED_MEMORY:
        return fake_answer(&fake.unified, sizeof fake.unified, room, out, bytes);
    case CL_DEVICE_COMPILER_AVAILABLE:
        return fake_answer(&yes, sizeof yes, room, out, bytes);
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN:
        return fake_answer(&fake.base_align_bits, sizeof fake.base_align_bits, room, out, bytes);
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
    case CL_DEVICE_GLOBAL_MEM_SIZE:
        return fake_answer(&memory, sizeof memory, room, out, bytes);
    default:
        return CL_INVALID_VALUE;
    }
}

static cl_context fake_clCreateContext(const cl_context_properties *properties, cl_uint count,
                                       const cl_device_id *devices,
                                       void (*notify)(const char *, const void *, size_t, void *),
                                       void *user, cl_int *code)
{
    (void)properties, (void)count, (void)devices, (void)notify, (void)user;
    if (fake_fails()) {
        return fake_created(NULL, fake.fail_code, code);
    }
    cl_context context = fake_object(FAKE_CONTEXT, sizeof *context);
    context->refs = 1;
    return fake_created(context, CL_SUCCESS, code);
}

static cl_int fake_clReleaseContext(cl_context context)
{
    free(context);
    fake.live[FAKE_CONTEXT]--;
    return CL_SUCCESS;
}

static cl_command_queue fake_clCreateCommandQueue(cl_context context, cl_device_id device,
                                                  cl_command_queue_properties properties,
                                                  cl_int *code)
{
    (void)context, (void)device;
    if (fake_fails() || properties != 0) {
        return fake_created(NULL, fake.fail_code, code);
    }
    return fake_created(fake_object(FAKE_QUEUE, sizeof(struct _cl_command_queue)), CL_SUCCESS,
                        code);
}

static cl_int fake_clReleaseCommandQueue(cl_command_queue queue)
{
    fake.violations += queue->first != NULL;
    while (queue->first != NULL) {
        fake_run_one(queue);
    }
    free(queue);
    fake.live[FAKE_QUEUE]--;
    return CL_SUCCESS;
}

static cl_mem fake_clCreateBuffer(cl_context context, cl_mem_flags flags, size_t size, void *host,
                                  cl_int *code)
{
    (void)context;
    if (fake_fails()) {
        return fake_created(NULL, fake.fail_code, code);
    }
    if (((flags & CL_MEM_USE_HOST_PTR) != 0) != (host != NULL) || size == 0) {
        return fake_created(NULL, CL_INVALID_HOST_PTR, code);
    }
    cl_mem memory = fake_object(FAKE_MEMORY, sizeof *memory);
    memory->refs = 1;
    memory->size = size;
    memory->host = host;
    memory->owned = host == NULL || fake.shadow;
    memory->device = memory->owned ? malloc(size) : host;
    if (host != NULL) {
        fake.violations += (uintptr_t)host % fake.wrap_align_bytes != 0;
        memmove(memory->device, host, size);
    } else {
        memset(memory->device, 0xEE, size);
    }
    return fake_created(memory, CL_SUCCESS, code);
}

static cl_mem fake_clCreateSubBuffer(cl_mem parent, cl_mem_flags flags, cl_buffer_create_type type,
                                     const void *info, cl_int *code)
{
    const cl_buffer_region *region = info;
    (void)flags, (void)type;
    if (fake_fails()) {
        return fake_created(NULL, fake.fail_code, code);
    }
    if (region->origin % (fake.base_align_bits / 8) != 0) {
        return fake_created(NULL, CL_MISALIGNED_SUB_BUFFER_OFFSET, code);
    }
    if (region->size == 0 || region->origin + region->size > parent->size) {
        return fake_created(NULL, CL_INVALID_VALUE, code);
    }
    cl_mem memory = fake_object(FAKE_MEMORY, sizeof *memory);
    memory->refs = 1;
    memory->parent = parent;
    memory->size = region->size;
    memory->device = parent->device + region->origin;
    parent->refs++;
    return fake_created(memory, CL_SUCCESS, code);
}

static cl_int fake_clReleaseMemObject(cl_mem memory)
{
    fake_memory_release(memory);
    return CL_SUCCESS;
}

static cl_program fake_clCreateProgramWithSource(cl_context context, cl_uint count,
                                                 const char **texts, const size_t *sizes,
                                                 cl_int *code)
{
    (void)context, (void)count;
    if (fake_fails()) {
        return fake_created(NULL, fake.fail_code, code);
    }
    cl_program program = fake_object(FAKE_PROGRAM, sizeof *program);
    program->refs = 1;
    program->built = sizes[0] < 6 || memcmp(texts[0], "broken", 6) != 0;
    return fake_created(program, CL_SUCCESS, code);
}

static cl_int fake_clBuildProgram(cl_program program, cl_uint count, const cl_device_id *devices,
                                  const char *options, void (*notify)(cl_program, void *),
                                  void *user)
{
    (void)count, (void)devices, (void)notify, (void)user;
    if (fake_fails()) {
        return fake.fail_code;
    }
    if (strstr(options, "-nonsense") != NULL) {
        return CL_INVALID_BUILD_OPTIONS;
    }
    return program->built ? CL_SUCCESS : CL_BUILD_PROGRAM_FAILURE;
}

static cl_int fake_clGetProgramBuildInfo(cl_program program, cl_device_id device,
                                         cl_program_build_info what, size_t room, void *out,
                                         size_t *bytes)
{
    static const char log[] =
        "note: a line before\n"
        "/var/tmp/some dir/x.cl:3:7: error:\tno such thing: a / b\n   a / b\n";
    (void)program, (void)device, (void)what;
    if (fake_fails()) {
        return fake.fail_code;
    }
    return program->built ? fake_answer("", 1, room, out, bytes)
                          : fake_answer(log, sizeof log, room, out, bytes);
}

static void fake_program_release(cl_program program)
{
    if (--program->refs == 0) {
        free(program);
        fake.live[FAKE_PROGRAM]--;
    }
}

static cl_int fake_clReleaseProgram(cl_program program)
{
    fake_program_release(program);
    return CL_SUCCESS;
}

static cl_kernel fake_clCreateKernel(cl_program program, const char *name, cl_int *code)
{
    if (fake_fails()) {
        return fake_created(NULL, fake.fail_code, code);
    }
    if (strcmp(name, "add") != 0) {
        return fake_created(NULL, CL_INVALID_KERNEL_NAME, code);
    }
    cl_kernel kernel = fake_object(FAKE_KERNEL, sizeof *kernel);
    kernel->refs = 1;
    kernel->program = program;
    program->refs++;
    return fake_created(kernel, CL_SUCCESS, code);
}

static cl_int fake_clReleaseKernel(cl_kernel kernel)
{
    fake_program_release(kernel->program);
    free(kernel);
    fake.live[FAKE_KERNEL]--;
    return CL_SUCCESS;
}

static cl_int fake_clGetKernelInfo(cl_kernel kernel, cl_kernel_info what, size_t room, void *out,
                                   size_t *bytes)
{
    const cl_uint args = 3;
    (void)kernel;
    if (fake_fails() || what != CL_KERNEL_NUM_ARGS) {
        return fake.fail_code;
    }
    return fake_answer(&args, sizeof args, room, out, bytes);
}

static cl_int fake_clGetKernelArgInfo(cl_kernel kernel, cl_uint index, cl_kernel_arg_info what,
                                      size_t room, void *out, size_t *bytes)
{
    static const cl_kernel_arg_address_qualifier spaces[] = {
        CL_KERNEL_ARG_ADDRESS_GLOBAL, CL_KERNEL_ARG_ADDRESS_PRIVATE, CL_KERNEL_ARG_ADDRESS_LOCAL};
    (void)kernel, (void)what;
    if (fake_fails()) {
        return fake.fail_code;
    }
    return fake_answer(&spaces[index], sizeof spaces[index], room, out, bytes);
}

static cl_int fake_clSetKernelArg(cl_kernel kernel, cl_uint index, size_t size, const void *value)
{
    if (fake_fails()) {
        return fake.fail_code;
    }
    if (index == 0 && size == sizeof(cl_mem)) {
        memcpy(&kernel->data, value, size);
    } else if (index == 1 && size == sizeof(cl_int)) {
        memcpy(&kernel->amount, value, size);
    } else if (index != 2 || value != NULL) {
        return CL_INVALID_ARG_SIZE;
    }
    kernel->set |= 1u << index;
    return CL_SUCCESS;
}

static cl_int fake_clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel,
                                          cl_uint dimensions, const size_t *offset,
                                          const size_t *global, const size_t *local,
                                          cl_uint wait_count, const cl_event *waits, cl_event *out)
{
    (void)dimensions, (void)offset;
    if (kernel->set != 7) {
        return CL_INVALID_KERNEL_ARGS;
    }
    if (local != NULL && global[0] % local[0] != 0) {
        return CL_INVALID_WORK_GROUP_SIZE;
    }
    cl_int code = fake_enqueue(queue, FAKE_ADD, kernel->data, NULL, kernel->data->device, NULL,
                               global[0], kernel->amount, CL_FALSE, wait_count, waits, out);
    kernel->set = 0; /* so that an argument left from another launch is noticed */
    return code;
}

static cl_int fake_clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                       size_t offset, size_t size, void *host, cl_uint wait_count,
                                       const cl_event *waits, cl_event *out)
{
    return fake_enqueue(queue, FAKE_MOVE, NULL, memory, host, memory->device + offset, size, 0,
                        blocking, wait_count, waits, out);
}

static cl_int fake_clEnqueueWriteBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                        size_t offset, size_t size, const void *host,
                                        cl_uint wait_count, const cl_event *waits, cl_event *out)
{
    return fake_enqueue(queue, FAKE_MOVE, memory, NULL, memory->device + offset, host, size, 0,
                        blocking, wait_count, waits, out);
}

static cl_int fake_clEnqueueCopyBuffer(cl_command_queue queue, cl_mem source, cl_mem target,
                                       size_t source_offset, size_t target_offset, size_t size,
                                       cl_uint wait_count, const cl_event *waits, cl_event *out)
{
    return fake_enqueue(queue, FAKE_MOVE, target, source, target->device + target_offset,
                        source->device + source_offset, size, 0, CL_FALSE, wait_count, waits, out);
}

static cl_int fake_clEnqueueFillBuffer(cl_command_queue queue, cl_mem memory, const void *pattern,
                                       size_t pattern_size, size_t offset, size_t size,
                                       cl_uint wait_count, const cl_event *waits, cl_event *out)
{
    unsigned char byte;
    (void)pattern_size;
    memcpy(&byte, pattern, 1);
    return fake_enqueue(queue, FAKE_FILL, memory, NULL, memory->device + offset, NULL, size, byte,
                        CL_FALSE, wait_count, waits, out);
}

static void *fake_clEnqueueMapBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                     cl_map_flags flags, size_t offset, size_t size,
                                     cl_uint wait_count, const cl_event *waits, cl_event *out,
                                     cl_int *code)
{
    const int writes = (flags & CL_MAP_WRITE) != 0;
    cl_int queued = fake_enqueue(queue, FAKE_MAP, memory, NULL, memory->host + offset, NULL, size,
                                 writes, blocking, wait_count, waits, out);
    size_t beside = fake.elsewhere ? 1 : 0;
    return fake_created(queued == CL_SUCCESS ? memory->host + offset + beside : NULL, queued, code);
}

static cl_int fake_clEnqueueUnmapMemObject(cl_command_queue queue, cl_mem memory, void *address,
                                           cl_uint wait_count, const cl_event *waits, cl_event *out)
{
    return fake_enqueue(queue, FAKE_UNMAP, memory, NULL, address, NULL, 0, 0, CL_FALSE, wait_count,
                        waits, out);
}

static cl_int fake_clEnqueueMarkerWithWaitList(cl_command_queue queue, cl_uint wait_count,
                                               const cl_event *waits, cl_event *out)
{
    return fake_enqueue(queue, FAKE_NOTHING, NULL, NULL, NULL, NULL, 0, 0, CL_FALSE, wait_count,
                        waits, out);
}

static cl_int fake_clFlush(cl_command_queue queue)
{
    (void)queue;
    return fake_fails() ? fake.fail_code : CL_SUCCESS;
}

static cl_int fake_clFinish(cl_command_queue queue)
{
    while (queue->first != NULL) {
        fake_run_one(queue);
    }
    return fake_fails() ? fake.fail_code : CL_SUCCESS;
}

static cl_int fake_clWaitForEvents(cl_uint count, const cl_event *events)
{
    if (fake_fails()) {
        return fake.fail_code;
    }
    cl_int code = CL_SUCCESS;
    for (cl_uint i = 0; i < count; i++) {
        while (events[i]->status > CL_COMPLETE) {
            fake_run_one(events[i]->queue);
        }
        if (events[i]->status < 0) {
            code = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
        }
    }
    return code;
}

/* Each question lets one command run, so that polling makes progress. */
static cl_int fake_clGetEventInfo(cl_event event, cl_event_info what, size_t room, void *out,
                                  size_t *bytes)
{
    if (fake_fails() || what != CL_EVENT_COMMAND_EXECUTION_STATUS) {
        return fake.fail_code;
    }
    cl_int status = event->status;
    if (status > CL_COMPLETE && !fake.stuck) {
        fake_run_one(event->queue);
    }
    return fake_answer(&status, sizeof status, room, out, bytes);
}

static cl_int fake_clRetainEvent(cl_event event)
{
    if (fake_fails()) {
        return fake.fail_code;
    }
    event->refs++;
    return CL_SUCCESS;
}

static cl_int fake_clReleaseEvent(cl_event event)
{
    fake_event_release(event);
    return CL_SUCCESS;
}

static const umo_opencl_api fake_api = {
#define FAKE_ENTRY(name) .name = fake_##name,
    UMO_OPENCL_CALLS(FAKE_ENTRY)
#undef FAKE_ENTRY
};

#endif
