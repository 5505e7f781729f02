/* What a caller can do wrong while encoding copies and dispatches. */
#include "misuse.h"

#define ONE ((mtl_size){1, 1, 1})

/* ---- blits ---- */

typedef struct blit {
    id from;
    id to;
    id encoder;
} blit;

static blit blit_begin(const world *w)
{
    blit b = {.from = device_buffer(w->device, 64, SHARED),
              .to = device_buffer(w->device, 64, SHARED)};
    b.encoder = command_blit(queue_command(w->queue));
    return b;
}

static void blit_end(const blit *b)
{
    end_encoding(b->encoder);
    release(b->to);
    release(b->from);
}

static void a_copy_that_starts_beyond_the_end(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 68, b.to, 0, 4);
    blit_end(&b);
}

static void a_copy_that_ends_beyond_the_end(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 0, b.to, 4, 60);
    assert_int_equal(fake_metal_violations(), 0);
    blit_copy(b.encoder, b.from, 0, b.to, 4, 64);
    blit_end(&b);
}

static void a_copy_whose_end_overflows(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 8, b.to, 0, UINT64_MAX - 3);
    blit_end(&b);
}

static void a_fill_beyond_the_end(world *w)
{
    blit b = blit_begin(w);
    blit_fill(b.encoder, b.to, (ns_range){64, 4}, 1);
    blit_end(&b);
}

static void a_copy_onto_itself(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 0, b.from, 32, 32);
    assert_int_equal(fake_metal_violations(), 0);
    blit_copy(b.encoder, b.from, 0, b.from, 28, 32);
    blit_end(&b);
}

static void a_copy_of_nothing(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 0, b.to, 0, 0);
    blit_end(&b);
}

static void a_fill_of_nothing(world *w)
{
    blit b = blit_begin(w);
    blit_fill(b.encoder, b.to, (ns_range){0, 0}, 1);
    blit_end(&b);
}

static void a_copy_from_an_odd_offset(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 2, b.to, 0, 8);
    blit_end(&b);
}

static void a_copy_to_an_odd_offset(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 0, b.to, 1, 8);
    blit_end(&b);
}

static void a_copy_of_an_odd_size(world *w)
{
    blit b = blit_begin(w);
    blit_copy(b.encoder, b.from, 0, b.to, 0, 7);
    blit_end(&b);
}

static void a_fill_of_an_odd_range(world *w)
{
    blit b = blit_begin(w);
    blit_fill(b.encoder, b.to, (ns_range){3, 4}, 1);
    blit_end(&b);
}

static void shared_memory_is_synchronized(world *w)
{
    blit b = blit_begin(w);
    blit_synchronize(b.encoder, b.to);
    blit_end(&b);
}

/* ---- dispatches ---- */

/* A dispatch of kernel "scale" that lacks nothing: a test takes something away. */
typedef struct launch {
    id from;
    id to;
    id pipeline;
    id encoder;
} launch;

static launch launch_begin(const world *w)
{
    static const float by[4] = {2};
    launch l = {.from = device_buffer(w->device, 64, SHARED),
                .to = device_buffer(w->device, 64, SHARED),
                .pipeline = world_pipeline(w, "scale")};
    l.encoder = command_compute(queue_command(w->queue));
    compute_pipeline(l.encoder, l.pipeline);
    compute_buffer(l.encoder, l.from, 0, 0);
    compute_buffer(l.encoder, l.to, 0, 1);
    compute_bytes(l.encoder, by, sizeof by, 2);
    compute_local(l.encoder, 16, 0);
    compute_dispatch(l.encoder, (mtl_size){16, 1, 1}, ONE);
    assert_int_equal(fake_metal_violations(), 0);
    return l;
}

static void launch_end(const launch *l)
{
    compute_dispatch(l->encoder, (mtl_size){16, 1, 1}, ONE);
    end_encoding(l->encoder);
    release(l->pipeline);
    release(l->to);
    release(l->from);
}

static void a_dispatch_without_a_pipeline(world *w)
{
    id encoder = command_compute(queue_command(w->queue));
    compute_dispatch(encoder, ONE, ONE);
    end_encoding(encoder);
}

static void a_dispatch_without_a_buffer(world *w)
{
    launch l = launch_begin(w);
    compute_buffer(l.encoder, NULL, 0, 1);
    launch_end(&l);
}

static void a_dispatch_without_threadgroup_memory(world *w)
{
    launch l = launch_begin(w);
    compute_local(l.encoder, 0, 0);
    launch_end(&l);
}

static void bytes_where_the_kernel_writes(world *w)
{
    static const float bytes[16] = {0};
    launch l = launch_begin(w);
    compute_bytes(l.encoder, bytes, sizeof bytes, 1);
    launch_end(&l);
}

static void bytes_of_nothing(world *w)
{
    launch l = launch_begin(w);
    compute_bytes(l.encoder, &l, 0, 2);
    launch_end(&l);
}

static void bytes_beyond_4096(world *w)
{
    static const uint8_t bytes[4097];
    launch l = launch_begin(w);
    compute_bytes(l.encoder, bytes, 4096, 2);
    assert_int_equal(fake_metal_violations(), 0);
    compute_bytes(l.encoder, bytes, 4097, 2);
    launch_end(&l);
}

static void bytes_shorter_than_the_value(world *w)
{
    static const float by[3];
    launch l = launch_begin(w);
    compute_bytes(l.encoder, by, sizeof by, 2);
    launch_end(&l);
}

static void a_buffer_bound_at_its_end(world *w)
{
    launch l = launch_begin(w);
    compute_buffer(l.encoder, l.from, 64, 0);
    assert_int_equal(fake_metal_violations(), 1);
    launch_end(&l);
}

static void an_offset_at_the_end(world *w)
{
    launch l = launch_begin(w);
    SEND(void, (id, SEL, ns_uint, ns_uint), l.encoder, "setBufferOffset:atIndex:", 60, 0);
    assert_int_equal(fake_metal_violations(), 0);
    SEND(void, (id, SEL, ns_uint, ns_uint), l.encoder, "setBufferOffset:atIndex:", 64, 0);
    assert_int_equal(fake_metal_violations(), 1);
    launch_end(&l);
}

static void an_offset_of_nothing(world *w)
{
    launch l = launch_begin(w);
    SEND(void, (id, SEL, ns_uint, ns_uint), l.encoder, "setBufferOffset:atIndex:", 0, 2);
    launch_end(&l);
}

static void a_buffer_too_short_for_the_value(world *w)
{
    launch l = launch_begin(w);
    compute_buffer(l.encoder, l.from, 48, 2);
    compute_dispatch(l.encoder, ONE, ONE);
    assert_int_equal(fake_metal_violations(), 0);
    id short_one = device_buffer(w->device, 12, SHARED);
    compute_buffer(l.encoder, short_one, 0, 2);
    launch_end(&l);
    release(short_one);
}

static void an_offset_against_the_elements_alignment(world *w)
{
    launch l = launch_begin(w);
    compute_buffer(l.encoder, l.from, 6, 0);
    launch_end(&l);
}

static void an_offset_against_the_values_alignment(world *w)
{
    launch l = launch_begin(w);
    compute_buffer(l.encoder, l.from, 24, 2);
    launch_end(&l);
}

static void a_threadgroup_of_1025(world *w)
{
    launch l = launch_begin(w);
    compute_dispatch(l.encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1024, 1});
    assert_int_equal(fake_metal_violations(), 0);
    compute_dispatch(l.encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1025, 1});
    launch_end(&l);
}

static void threadgroup_memory_of_20_bytes(world *w)
{
    launch l = launch_begin(w);
    compute_local(l.encoder, 20, 0);
    launch_end(&l);
}

static void threadgroup_memory_beyond_the_devices(world *w)
{
    launch l = launch_begin(w);
    compute_local(l.encoder, 32768, 0);
    compute_dispatch(l.encoder, ONE, ONE);
    assert_int_equal(fake_metal_violations(), 0);
    compute_local(l.encoder, 32784, 0);
    launch_end(&l);
}

static void run_nothing(void *const *args, const size_t global[3])
{
    (void)args;
    (void)global;
}

static void threadgroup_memory_too_large_together(world *w)
{
    const fake_metal_kernel kernel = {
        .name = "scale", .run = run_nothing, .static_local_bytes = 32768 - 16};
    fake_metal_kernel_register(&kernel);
    launch l = launch_begin(w);
    compute_local(l.encoder, 32, 0);
    launch_end(&l);
}

static void a_grid_of_nothing(world *w)
{
    launch l = launch_begin(w);
    compute_dispatch(l.encoder, (mtl_size){16, 0, 1}, ONE);
    launch_end(&l);
}

static void a_threadgroup_of_nothing(world *w)
{
    launch l = launch_begin(w);
    compute_dispatch_groups(l.encoder, ONE, (mtl_size){1, 1, 0});
    launch_end(&l);
}

static void a_grid_whose_size_overflows(world *w)
{
    launch l = launch_begin(w);
    compute_dispatch(l.encoder, (mtl_size){(uint64_t)1 << 33, (uint64_t)1 << 33, 1}, ONE);
    launch_end(&l);
}

static void device_of(world *w, uint32_t apple_family, bool mac2)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.record = true;
    options.apple_family = apple_family;
    options.mac2 = mac2;
    world_restart(w, &options);
}

static void uneven_threadgroups_on_an_old_device(world *w)
{
    device_of(w, 4, false);
    launch l = launch_begin(w);
    launch_end(&l);
    device_of(w, 0, true);
    l = launch_begin(w);
    launch_end(&l);
    assert_int_equal(fake_metal_violations(), 0);
    device_of(w, 3, false);
    id pipeline = world_pipeline(w, "add_one");
    id buffer = device_buffer(w->device, 64, SHARED);
    id encoder = command_compute(queue_command(w->queue));
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, buffer, 0, 0);
    compute_dispatch_groups(encoder, (mtl_size){4, 1, 1}, (mtl_size){4, 1, 1});
    assert_int_equal(fake_metal_violations(), 0);
    compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){4, 1, 1});
    end_encoding(encoder);
    release(buffer);
    release(pipeline);
}

const misuse misuse_of_encoders[] = {
    MISUSE("blit_range", a_copy_that_starts_beyond_the_end),
    MISUSE("blit_range", a_copy_that_ends_beyond_the_end),
    MISUSE("blit_range", a_copy_whose_end_overflows),
    MISUSE("blit_range", a_fill_beyond_the_end),
    MISUSE("blit_overlap", a_copy_onto_itself),
    MISUSE("blit_size", a_copy_of_nothing),
    MISUSE("blit_size", a_fill_of_nothing),
    MISUSE("blit_align", a_copy_from_an_odd_offset),
    MISUSE("blit_align", a_copy_to_an_odd_offset),
    MISUSE("blit_align", a_copy_of_an_odd_size),
    MISUSE("blit_align", a_fill_of_an_odd_range),
    MISUSE("synchronize_not_managed", shared_memory_is_synchronized),
    MISUSE("no_pipeline", a_dispatch_without_a_pipeline),
    MISUSE("binding_missing", a_dispatch_without_a_buffer),
    MISUSE("binding_missing", a_dispatch_without_threadgroup_memory),
    MISUSE("binding_kind", bytes_where_the_kernel_writes),
    MISUSE("bytes_length", bytes_of_nothing),
    MISUSE("bytes_length", bytes_beyond_4096),
    MISUSE("bytes_length", bytes_shorter_than_the_value),
    MISUSE("binding_missing", an_offset_of_nothing),
    MISUSE("buffer_offset", a_buffer_bound_at_its_end),
    MISUSE("buffer_offset", an_offset_at_the_end),
    MISUSE("buffer_offset", a_buffer_too_short_for_the_value),
    MISUSE("offset_align", an_offset_against_the_elements_alignment),
    MISUSE("offset_align", an_offset_against_the_values_alignment),
    MISUSE("threads_per_group", a_threadgroup_of_1025),
    MISUSE("local_length", threadgroup_memory_of_20_bytes),
    MISUSE("local_length", threadgroup_memory_beyond_the_devices),
    MISUSE("local_total", threadgroup_memory_too_large_together),
    MISUSE("empty_dispatch", a_grid_of_nothing),
    MISUSE("empty_dispatch", a_threadgroup_of_nothing),
    MISUSE("empty_dispatch", a_grid_whose_size_overflows),
    MISUSE("nonuniform", uneven_threadgroups_on_an_old_device),
    {NULL, NULL, NULL},
};
