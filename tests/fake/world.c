/* What the fake's tests share: a device with its queue, memory, and what must be left at the end.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

void (*volatile send_message)(void) = objc_msgSend;

const char world_text[] =
    "#include <metal_stdlib>\n"
    "using namespace metal;\n"
    "kernel void add_one(device uint *x [[buffer(0)]], uint i [[thread_position_in_grid]])\n"
    "{\n"
    "    x[i] += 1;\n"
    "}\n"
    "kernel void scale(device const float *from [[buffer(0)]], device float *to [[buffer(1)]],\n"
    "                  constant float4 &by [[buffer(2)]], threadgroup float *part "
    "[[threadgroup(0)]],\n"
    "                  uint i [[thread_position_in_grid]])\n"
    "{\n"
    "    part[0] = by.x;\n"
    "    to[i] = from[i] * part[0];\n"
    "}\n"
    "kernel void local(device uchar *to [[buffer(0)]], threadgroup uchar *part "
    "[[threadgroup(0)]],\n"
    "                  uint i [[thread_position_in_grid]])\n"
    "{\n"
    "    to[i] = part[i];\n"
    "}\n";

static void run_add_one(void *const *args, const size_t global[3])
{
    uint32_t *x = args[0];
    for (size_t i = 0; i < global[0]; i++) {
        x[i]++;
    }
}

static void run_scale(void *const *args, const size_t global[3])
{
    const float *from = args[0];
    float *to = args[1];
    float *part = args[3];
    memcpy(part, args[2], sizeof *part);
    for (size_t i = 0; i < global[0]; i++) {
        to[i] = from[i] * part[0];
    }
}

static void run_local(void *const *args, const size_t global[3])
{
    memcpy(args[0], args[1], global[0]);
}

static void device_take(world *w)
{
    w->device = MTLCreateSystemDefaultDevice();
    w->queue = device_queue(w->device, 64);
}

int world_begin(void **state)
{
    static world the;
    const fake_metal_kernel kernels[] = {{.name = "add_one", .run = run_add_one},
                                         {.name = "scale", .run = run_scale},
                                         {.name = "local", .run = run_local}};
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.record = true;
    fake_metal_reset(&options);
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        fake_metal_kernel_register(&kernels[i]);
    }
    the.pool = objc_autoreleasePoolPush();
    device_take(&the);
    *state = &the;
    return 0;
}

void world_restart(world *w, const fake_metal_options *options)
{
    release(w->queue);
    release(w->device);
    objc_autoreleasePoolPop(w->pool);
    fake_metal_reset(options);
    w->pool = objc_autoreleasePoolPush();
    device_take(w);
}

static uint32_t forgiven;

void world_forgive(void)
{
    forgiven = fake_metal_violations();
}

int world_end(void **state)
{
    world *w = *state;
    char left[1024];
    release(w->queue);
    release(w->device);
    objc_autoreleasePoolPop(w->pool);
    /* What waits for nothing ends; the worker lets go of the last references. */
    (void)fake_metal_idle();
    fake_metal_set_modes(0);
    (void)fake_metal_run_late();
    uint32_t unforgiven = fake_metal_violations() - forgiven;
    forgiven = 0;
    if (unforgiven > 0) {
        print_error("%u violations, the last: %s\n", unforgiven, fake_metal_violation_text());
        return -1;
    }
    if (fake_metal_live_total() > 0) {
        fake_metal_live_print(left, sizeof left);
        print_error("left behind:\n%s", left);
        return -1;
    }
    return 0;
}

id world_library(const world *w, const char *text)
{
    id error = NULL;
    id library = device_library(w->device, world_string(text), NULL, &error);
    if (library == NULL) {
        fail_msg("%s", world_words(error));
    }
    return library;
}

id world_function(const world *w, const char *name)
{
    id library = world_library(w, world_text);
    id function = library_function(library, world_string(name));
    release(library);
    assert_non_null(function);
    return function;
}

id world_pipeline(const world *w, const char *name)
{
    id error = NULL;
    id function = world_function(w, name);
    id pipeline = device_pipeline(w->device, function, &error);
    if (pipeline == NULL) {
        fail_msg("%s", world_words(error));
    }
    release(function);
    return pipeline;
}

world_block world_block_make(void (*invoke)(void), void *context)
{
    static const struct {
        unsigned long reserved;
        unsigned long size_bytes;
    } descriptor = {.size_bytes = sizeof(world_block)};
    return (world_block){.isa = _NSConcreteStackBlock,
                         .invoke = invoke,
                         .descriptor = &descriptor,
                         .context = context};
}

id world_heap(const world *w, ns_uint size, ns_uint mode)
{
    id descriptor = new_of(objc_getClass("MTLHeapDescriptor"));
    describe_size(descriptor, size);
    describe_storage(descriptor, mode);
    id heap = device_heap(w->device, descriptor);
    release(descriptor);
    return heap;
}

id world_residency(const world *w)
{
    id error = NULL;
    id descriptor = new_of(objc_getClass("MTLResidencySetDescriptor"));
    id set = device_residency(w->device, descriptor, &error);
    release(descriptor);
    return set;
}

ns_uint world_run(id command)
{
    commit(command);
    command_wait_ended(command);
    return command_status(command);
}

id world_string(const char *text)
{
    return string_make(objc_getClass("NSString"), text);
}

const char *world_words(id error)
{
    return error == NULL ? "" : string_text(error_text(error));
}
