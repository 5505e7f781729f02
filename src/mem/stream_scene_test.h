/*
 * What the tests of streams share: a stream on the wrapper's device, and parties on both sides that
 * write and check what follows from a message's number.
 */
#ifndef UMO_MEM_STREAM_SCENE_TEST_H
#define UMO_MEM_STREAM_SCENE_TEST_H

#include "driver/wrapper_test.h"

#include "base/scope.h"

#include <umo/stream.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_stream *stream;
    umo_stream_options options;
} rig;

static inline rig rig_open(const umo_stream_options *wanted, const wrapper_switches *switches,
                           const umo_driver_options *options)
{
    rig r = {.options = *wanted};
    r.device = wrapper_device(switches, options);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "stream", 0, &r.scope, NULL), UMO_OK);
    r.options.device = r.device;
    r.options.scope = r.scope;
    assert_int_equal(umo_stream_create(&r.options, &r.stream, NULL), UMO_OK);
    return r;
}

static inline void rig_close(rig *r)
{
    wrapper = (wrapper_switches){.apart = wrapper.apart};
    assert_int_equal(umo_stream_destroy(r->stream), UMO_OK);
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
    assert_int_equal(wrapper_calls.live, 0);
    wrapper = (wrapper_switches){0};
}

static inline umo_counters counters(const rig *r)
{
    umo_counters c;
    umo_scope_read(r->scope, &c);
    return c;
}

static inline umo_stream_stats stats(const rig *r)
{
    umo_stream_stats s;
    umo_stream_read(r->stream, &s);
    return s;
}

static inline unsigned char *host_bytes(const umo_stream_slot *slot)
{
    return (unsigned char *)umo_buffer_host(slot->buffer) + slot->offset_bytes;
}

static inline void bytes_fill(unsigned char *bytes, size_t size, uint64_t number)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(number * 31 + i);
    }
}

static inline bool bytes_match(const unsigned char *bytes, size_t size, uint64_t number)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != (unsigned char)(number * 31 + i)) {
            return false;
        }
    }
    return true;
}

/* ---- the device's party: kernels that fill and check as the host does ---- */

static _Atomic uint64_t kernel_wrong;

static inline void kernel_fill(void *const *args, const size_t global[3])
{
    bytes_fill(args[0], global[0], *(const uint64_t *)args[1]);
}

static inline void kernel_check(void *const *args, const size_t global[3])
{
    kernel_wrong += bytes_match(args[0], global[0], *(const uint64_t *)args[1]) ? 0 : 1;
}

typedef struct kernels {
    umo_program *program;
    umo_kernel *fill;
    umo_kernel *check;
} kernels;

static inline kernels kernels_open(umo_device *device)
{
    static const umo_host_kernel table[] = {
        {"fill", kernel_fill}, {"check", kernel_check}, {NULL, NULL}};
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = table};
    kernels k;
    assert_int_equal(umo_program_create(device, &source, &k.program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(k.program, "fill", &k.fill, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(k.program, "check", &k.check, NULL), UMO_OK);
    kernel_wrong = 0;
    return k;
}

static inline void kernels_close(kernels *k)
{
    umo_kernel_destroy(k->fill);
    umo_kernel_destroy(k->check);
    umo_program_destroy(k->program);
}

static inline umo_fence launch(umo_kernel *kernel, uint32_t queue, const umo_stream_slot *slot,
                               size_t size_bytes)
{
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(slot->buffer),
         .offset_bytes = umo_buffer_memory_offset(slot->buffer) + slot->offset_bytes},
        {.kind = UMO_ARG_VALUE, .value = &slot->number, .size_bytes = sizeof slot->number},
    };
    const umo_grid grid = {.dimensions = 1, .global = {size_bytes}};
    umo_fence fence = {0};
    assert_int_equal(umo_kernel_launch(kernel, queue, args, 2, &grid, slot->waits.fences,
                                       slot->waits.count, &fence, NULL),
                     UMO_OK);
    return fence;
}

static inline void produce(const rig *r, const kernels *k, size_t size_bytes)
{
    umo_stream_slot slot;
    assert_int_equal(umo_stream_produce_begin(r->stream, size_bytes, UINT64_MAX, &slot), UMO_OK);
    assert_int_equal(slot.size_bytes, size_bytes);
    umo_fence done = {0};
    if (r->options.producer == UMO_SIDE_DEVICE) {
        done = launch(k->fill, r->options.producer_queue, &slot, size_bytes);
    } else {
        assert_int_equal(umo_fence_set_wait(&slot.waits, UINT64_MAX), UMO_OK);
        bytes_fill(host_bytes(&slot), size_bytes, slot.number);
    }
    assert_int_equal(umo_stream_produce_end(r->stream, &slot, size_bytes, done), UMO_OK);
}

static inline uint64_t consume(const rig *r, const kernels *k, size_t size_bytes)
{
    umo_stream_slot slot;
    assert_int_equal(umo_stream_consume_begin(r->stream, UINT64_MAX, &slot), UMO_OK);
    assert_int_equal(slot.size_bytes, size_bytes);
    umo_fence done = {0};
    if (r->options.consumer == UMO_SIDE_DEVICE) {
        done = launch(k->check, r->options.consumer_queue, &slot, size_bytes);
    } else {
        assert_int_equal(umo_fence_set_wait(&slot.waits, UINT64_MAX), UMO_OK);
        assert_true(bytes_match(host_bytes(&slot), size_bytes, slot.number));
    }
    assert_int_equal(umo_stream_consume_end(r->stream, &slot, done), UMO_OK);
    return slot.number;
}

#endif
