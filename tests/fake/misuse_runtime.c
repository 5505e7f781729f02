/* What a caller can do wrong with objects, pools and blocks. */
#include "misuse.h"

#include <pthread.h>

static void a_selector_nobody_knows(world *w)
{
    SEND0(void, w->device, "makeMeACoffee");
}

static void a_selector_of_another_class(world *w)
{
    (void)buffer_contents(w->queue);
}

static void a_class_method_nobody_knows(world *w)
{
    (void)w;
    SEND0(void, objc_getClass("NSString"), "length");
}

static void a_message_to_a_freed_object(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    release(buffer);
    assert_int_equal(buffer_length(buffer), 0);
}

static void a_release_too_many(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    release(buffer);
    release(buffer);
}

static void an_autoreleased_object_is_released(world *w)
{
    void *pool = objc_autoreleasePoolPush();
    release(queue_command(w->queue));
    objc_autoreleasePoolPop(pool);
}

static void a_retain_too_late(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    release(buffer);
    (void)objc_retain(buffer);
}

static void a_freed_buffer_is_bound(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    id encoder = command_compute(queue_command(w->queue));
    release(buffer);
    compute_buffer(encoder, buffer, 0, 0);
    end_encoding(encoder);
}

static void a_commit_without_references_after_a_buffer_is_gone(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    id command = queue_command_unretained(w->queue);
    id encoder = command_blit(command);
    blit_fill(encoder, buffer, (ns_range){0, 64}, 1);
    end_encoding(encoder);
    release(buffer);
    commit(command);
}

static void a_buffer_freed_while_the_gpu_uses_it(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    id command = queue_command_unretained(w->queue);
    id encoder = command_blit(command);
    blit_fill(encoder, buffer, (ns_range){0, 64}, 1);
    end_encoding(encoder);
    fake_metal_pause();
    commit(command);
    release(buffer);
    fake_metal_resume();
    command_wait_ended(command);
    assert_int_equal(command_status(command), COMPLETED);
}

static void new_of_a_class_that_devices_make(world *w)
{
    (void)w;
    assert_null(new_of(objc_getProtocol("MTLDevice")));
}

static void new_of_a_class_without_public_init(world *w)
{
    (void)w;
    assert_null(new_of(objc_getClass("MTLComputePipelineReflection")));
}

static void an_autoreleased_object_without_a_pool(world *w)
{
    objc_autoreleasePoolPop(w->pool);
    id leaks = world_string("leaks");
    assert_non_null(leaks);
    release(leaks);
    w->pool = objc_autoreleasePoolPush();
}

static void a_pool_popped_twice(world *w)
{
    (void)w;
    void *pool = objc_autoreleasePoolPush();
    objc_autoreleasePoolPop(pool);
    objc_autoreleasePoolPop(pool);
}

static void the_outer_pool_popped_first(world *w)
{
    (void)w;
    void *outer = objc_autoreleasePoolPush();
    (void)objc_autoreleasePoolPush();
    (void)world_string("goes with both");
    objc_autoreleasePoolPop(outer);
}

static void *thread_pops(void *pool)
{
    objc_autoreleasePoolPop(pool);
    return NULL;
}

static void *thread_leaves_a_pool(void *unused)
{
    (void)unused;
    (void)objc_autoreleasePoolPush();
    (void)world_string("left");
    return NULL;
}

static void thread_run(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, argument), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_pool_popped_by_another_thread(world *w)
{
    (void)w;
    void *pool = objc_autoreleasePoolPush();
    thread_run(thread_pops, pool);
    objc_autoreleasePoolPop(pool);
}

static void a_thread_that_leaves_its_pool(world *w)
{
    (void)w;
    thread_run(thread_leaves_a_pool, NULL);
}

static void a_handler_that_is_no_block(world *w)
{
    world_block block = world_block_make(NULL, NULL);
    block.isa = &block;
    command_on_completed(queue_command(w->queue), &block);
}

static void a_string_of_no_text(world *w)
{
    (void)w;
    assert_null(world_string(NULL));
}

static void an_array_of_nil(world *w)
{
    (void)w;
    assert_null(array_make(objc_getClass("NSArray"), NULL));
}

static void an_array_with_nil(world *w)
{
    id items[2] = {w->queue, NULL};
    assert_null(SEND(id, (id, SEL, id const *, ns_uint), objc_getClass("NSArray"),
                     "arrayWithObjects:count:", items, 2));
}

static void a_string_object_of_null(world *w)
{
    (void)w;
    id made = SEND0(id, objc_getClass("NSString"), "alloc");
    assert_null(
        SEND(id, (id, SEL, const char *, ns_uint), made, "initWithCString:encoding:", NULL, 4));
}

static void a_file_of_no_name(world *w)
{
    (void)w;
    assert_null(url_make(objc_getClass("NSURL"), NULL));
}

static void a_buffer_as_a_label(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    SEND(void, (id, SEL, id), w->queue, "setLabel:", buffer);
    release(buffer);
}

static void a_string_as_archives(world *w)
{
    (void)w;
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_archives(descriptor, world_string("archive"));
    release(descriptor);
}

static void an_array_of_strings_as_archives(world *w)
{
    (void)w;
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_archives(descriptor, array_make(objc_getClass("NSArray"), world_string("archive")));
    release(descriptor);
}

static void a_string_as_a_residency_set(world *w)
{
    queue_add_residency(w->queue, world_string("set"));
}

static void a_string_removed_from_a_residency_set(world *w)
{
    id set = world_residency(w);
    residency_remove(set, world_string("buffer"));
    release(set);
}

static void a_string_as_a_residency_descriptor(world *w)
{
    id error = NULL;
    assert_null(device_residency(w->device, world_string("set"), &error));
}

static void a_residency_set_of_nothing(world *w)
{
    queue_remove_residency(w->queue, NULL);
}

/* An archive of the world's device, or nil. */
static id archive_of(const world *w, id described)
{
    id error = NULL;
    id descriptor = new_of(objc_getClass("MTLBinaryArchiveDescriptor"));
    id archive = device_archive(w->device, described == NULL ? descriptor : described, &error);
    release(descriptor);
    return archive;
}

static void a_string_as_an_archive_descriptor(world *w)
{
    assert_null(archive_of(w, world_string("archive")));
}

static void a_string_added_to_an_archive(world *w)
{
    id error = NULL;
    id archive = archive_of(w, NULL);
    assert_false(archive_add(archive, world_string("pipeline"), &error));
    release(archive);
}

static void a_pipeline_without_a_function_added_to_an_archive(world *w)
{
    id error = NULL;
    id archive = archive_of(w, NULL);
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    assert_false(archive_add(archive, descriptor, &error));
    release(descriptor);
    release(archive);
}

static void an_archive_written_to_a_string(world *w)
{
    id error = NULL;
    id archive = archive_of(w, NULL);
    assert_false(archive_write(archive, world_string("/tmp/x"), &error));
    release(archive);
}

static void a_string_as_a_pipeline_descriptor(world *w)
{
    id error = NULL;
    assert_null(device_pipeline_described(w->device, world_string("f"), 0, NULL, &error));
}

static void a_string_as_a_function(world *w)
{
    (void)w;
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_function(descriptor, world_string("f"));
    release(descriptor);
}

static void a_character_beyond_the_string(world *w)
{
    (void)w;
    (void)SEND(uint16_t, (id, SEL, ns_uint), world_string("abc"), "characterAtIndex:", 3);
}

static void unknown_pipeline_options(world *w)
{
    id error = NULL;
    id function = world_function(w, "add_one");
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_function(descriptor, function);
    assert_null(device_pipeline_described(w->device, descriptor, 8, NULL, &error));
    release(descriptor);
    release(function);
}

static void bytes_at_null(world *w)
{
    id encoder = command_compute(queue_command(w->queue));
    compute_bytes(encoder, NULL, 4, 0);
    end_encoding(encoder);
}

static void a_handler_at_null(world *w)
{
    command_on_completed(queue_command(w->queue), NULL);
}

static void a_library_without_text(world *w)
{
    id error = NULL;
    assert_null(device_library(w->device, NULL, NULL, &error));
}

static void a_pipeline_without_a_function(world *w)
{
    id error = NULL;
    assert_null(device_pipeline(w->device, NULL, &error));
}

static void a_buffer_as_a_pipeline(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    id encoder = command_compute(queue_command(w->queue));
    compute_pipeline(encoder, buffer);
    end_encoding(encoder);
    release(buffer);
}

static void a_string_as_an_event(world *w)
{
    command_wait(queue_command(w->queue), world_string("event"), 1);
}

static void a_string_as_compile_options(world *w)
{
    id error = NULL;
    assert_null(device_library(w->device, world_string(world_text), world_string("-O2"), &error));
}

static void a_string_as_a_heap_descriptor(world *w)
{
    assert_null(device_heap(w->device, world_string("heap")));
}

static void a_queue_in_a_residency_set(world *w)
{
    id set = world_residency(w);
    residency_add(set, w->queue);
    release(set);
}

static void an_item_beyond_the_array(world *w)
{
    id array = array_make(objc_getClass("NSArray"), w->queue);
    assert_null(array_at(array, 1));
}

static void a_buffer_index_of_31(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    id encoder = command_compute(queue_command(w->queue));
    compute_buffer(encoder, buffer, 0, 30);
    assert_int_equal(fake_metal_violations(), 0);
    compute_buffer(encoder, buffer, 0, 31);
    end_encoding(encoder);
    release(buffer);
}

static void a_threadgroup_index_of_31(world *w)
{
    id encoder = command_compute(queue_command(w->queue));
    compute_local(encoder, 16, 31);
    end_encoding(encoder);
}

static void bytes_at_an_index_of_31(world *w)
{
    id encoder = command_compute(queue_command(w->queue));
    compute_bytes(encoder, &encoder, 4, UINT64_MAX);
    end_encoding(encoder);
}

/* The second device of two, with the caller's reference. */
static id second_device(world *w)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.record = true;
    options.devices = 2;
    world_restart(w, &options);
    id all = MTLCopyAllDevices();
    assert_int_equal(array_count(all), 2);
    id second = retain(array_at(all, 1));
    release(all);
    return second;
}

static void a_buffer_of_another_device_is_bound(world *w)
{
    id other = second_device(w);
    id buffer = device_buffer(other, 64, SHARED);
    id encoder = command_compute(queue_command(w->queue));
    compute_buffer(encoder, buffer, 0, 0);
    end_encoding(encoder);
    release(buffer);
    release(other);
}

static void a_pipeline_of_another_device_is_set(world *w)
{
    id other = second_device(w);
    const world there = {.device = other};
    id pipeline = world_pipeline(&there, "add_one");
    id encoder = command_compute(queue_command(w->queue));
    compute_pipeline(encoder, pipeline);
    end_encoding(encoder);
    release(pipeline);
    release(other);
}

static void a_function_of_another_device_is_compiled(world *w)
{
    id other = second_device(w);
    id error = NULL;
    const world there = {.device = other};
    id function = world_function(&there, "add_one");
    assert_null(device_pipeline(w->device, function, &error));
    release(function);
    release(other);
}

static void a_function_of_another_device_in_an_archive(world *w)
{
    id other = second_device(w);
    id error = NULL;
    const world there = {.device = other};
    id archive = archive_of(w, NULL);
    id function = world_function(&there, "add_one");
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_function(descriptor, function);
    assert_false(archive_add(archive, descriptor, &error));
    release(descriptor);
    release(function);
    release(archive);
    release(other);
}

static void memory_of_another_device_in_a_residency_set(world *w)
{
    id other = second_device(w);
    id buffer = device_buffer(other, 64, SHARED);
    id set = world_residency(w);
    residency_add(set, buffer);
    release(set);
    release(buffer);
    release(other);
}

static void a_residency_set_of_another_device_on_a_queue(world *w)
{
    id other = second_device(w);
    const world there = {.device = other};
    id set = world_residency(&there);
    queue_add_residency(w->queue, set);
    release(set);
    release(other);
}

const misuse misuse_of_the_runtime[] = {
    MISUSE("unknown_selector", a_selector_nobody_knows),
    MISUSE("unknown_selector", a_selector_of_another_class),
    MISUSE("unknown_selector", a_class_method_nobody_knows),
    MISUSE("zombie", a_message_to_a_freed_object),
    MISUSE("zombie", a_release_too_many),
    MISUSE("zombie", an_autoreleased_object_is_released),
    MISUSE("zombie", a_retain_too_late),
    MISUSE("zombie", a_freed_buffer_is_bound),
    MISUSE("zombie", a_commit_without_references_after_a_buffer_is_gone),
    MISUSE("freed_in_use", a_buffer_freed_while_the_gpu_uses_it),
    MISUSE("not_made_by_new", new_of_a_class_that_devices_make),
    MISUSE("not_made_by_new", new_of_a_class_without_public_init),
    MISUSE("no_pool", an_autoreleased_object_without_a_pool),
    MISUSE("pool_order", a_pool_popped_twice),
    MISUSE("pool_order", the_outer_pool_popped_first),
    MISUSE("pool_thread", a_pool_popped_by_another_thread),
    MISUSE("pool_left", a_thread_that_leaves_its_pool),
    MISUSE("not_a_block", a_handler_that_is_no_block),
    MISUSE("nil_argument", a_string_of_no_text),
    MISUSE("nil_argument", an_array_of_nil),
    MISUSE("nil_argument", an_array_with_nil),
    MISUSE("nil_argument", a_string_object_of_null),
    MISUSE("nil_argument", a_file_of_no_name),
    MISUSE("nil_argument", bytes_at_null),
    MISUSE("nil_argument", a_handler_at_null),
    MISUSE("nil_argument", a_library_without_text),
    MISUSE("nil_argument", a_pipeline_without_a_function),
    MISUSE("wrong_class", a_buffer_as_a_pipeline),
    MISUSE("wrong_class", a_buffer_as_a_label),
    MISUSE("wrong_class", a_string_as_archives),
    MISUSE("wrong_class", an_array_of_strings_as_archives),
    MISUSE("wrong_class", a_string_as_a_residency_set),
    MISUSE("wrong_class", a_string_removed_from_a_residency_set),
    MISUSE("wrong_class", a_string_as_a_residency_descriptor),
    MISUSE("wrong_class", a_string_as_an_archive_descriptor),
    MISUSE("wrong_class", a_string_added_to_an_archive),
    MISUSE("wrong_class", an_archive_written_to_a_string),
    MISUSE("wrong_class", a_string_as_a_pipeline_descriptor),
    MISUSE("wrong_class", a_string_as_a_function),
    MISUSE("nil_argument", a_residency_set_of_nothing),
    MISUSE("nil_argument", a_pipeline_without_a_function_added_to_an_archive),
    MISUSE("wrong_class", a_string_as_an_event),
    MISUSE("wrong_class", a_string_as_compile_options),
    MISUSE("wrong_class", a_string_as_a_heap_descriptor),
    MISUSE("wrong_class", a_queue_in_a_residency_set),
    MISUSE("index_range", a_character_beyond_the_string),
    MISUSE("index_range", unknown_pipeline_options),
    MISUSE("index_range", an_item_beyond_the_array),
    MISUSE("index_range", a_buffer_index_of_31),
    MISUSE("index_range", a_threadgroup_index_of_31),
    MISUSE("index_range", bytes_at_an_index_of_31),
    MISUSE("other_device", a_buffer_of_another_device_is_bound),
    MISUSE("other_device", a_pipeline_of_another_device_is_set),
    MISUSE("other_device", a_function_of_another_device_is_compiled),
    MISUSE("other_device", a_function_of_another_device_in_an_archive),
    MISUSE("other_device", memory_of_another_device_in_a_residency_set),
    MISUSE("other_device", a_residency_set_of_another_device_on_a_queue),
    {NULL, NULL, NULL},
};
