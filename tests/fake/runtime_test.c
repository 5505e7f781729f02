/* The runtime of the fake: objects, pools, blocks, and what the control side counts. */
#include "world.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- objects and pools ---- */

static ns_uint retain_count(id object)
{
    return SEND0(ns_uint, object, "retainCount");
}

static void a_message_to_nil_gives_zero(void **state)
{
    (void)state;
    assert_int_equal(buffer_length(NULL), 0);
    assert_null(buffer_contents(NULL));
    assert_null(string_text(NULL));
    assert_false(event_wait(NULL, 1, 1));
    const mtl_size_align both = SEND(mtl_size_align, (id, SEL, ns_uint, ns_uint), NULL,
                                     "heapBufferSizeAndAlignWithLength:options:", 1, 0);
    assert_int_equal(both.size, 0);
    assert_int_equal(both.align, 0);
    release(NULL);
}

static void selectors_are_equal_when_their_names_are(void **state)
{
    (void)state;
    char name[] = "lengths";
    name[6] = 0;
    assert_ptr_equal(sel_registerName(name), sel_registerName("length"));
    assert_ptr_not_equal(sel_registerName("length"), sel_registerName("lengthy"));
    assert_string_equal(sel_registerName("a:new:one:"), "a:new:one:");
}

static void classes_are_found_and_protocols_are_not_classes(void **state)
{
    (void)state;
    assert_non_null(objc_getClass("NSString"));
    assert_null(objc_getClass("MTLDevice"));
    assert_non_null(objc_getProtocol("MTLDevice"));
    assert_null(objc_getClass("NSNothing"));
    assert_string_equal(object_getClassName(world_string("x")), "NSString");
}

static void retain_and_release_count(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    assert_int_equal(retain_count(buffer), 1);
    assert_ptr_equal(retain(buffer), buffer);
    assert_int_equal(retain_count(buffer), 2);
    assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    release(buffer);
    release(buffer);
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
}

static void a_pool_releases_what_was_put_in_since(void **state)
{
    (void)state;
    const uint64_t before = fake_metal_live("NSString");
    void *outer = objc_autoreleasePoolPush();
    (void)world_string("outer");
    void *inner = objc_autoreleasePoolPush();
    id kept = retain(world_string("kept"));
    for (unsigned i = 0; i < 1000; i++) {
        (void)world_string("inner");
    }
    assert_int_equal(fake_metal_live("NSString") - before, 1002);
    objc_autoreleasePoolPop(inner);
    assert_int_equal(fake_metal_live("NSString") - before, 2);
    assert_string_equal(string_text(kept), "kept");
    release(kept);
    objc_autoreleasePoolPop(outer);
    assert_int_equal(fake_metal_live("NSString"), before);
}

static void a_pool_object_is_a_pool(void **state)
{
    (void)state;
    const uint64_t before = fake_metal_live("NSString");
    id pool = SEND0(id, SEND0(id, objc_getClass("NSAutoreleasePool"), "alloc"), "init");
    (void)world_string("x");
    SEND0(void, pool, "drain");
    pool = new_of(objc_getClass("NSAutoreleasePool"));
    (void)world_string("y");
    release(pool);
    assert_int_equal(fake_metal_live("NSString"), before);
    assert_int_equal(fake_metal_live("NSAutoreleasePool"), 0);
}

static void *pool_of_its_own(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 100; i++) {
        void *pool = objc_autoreleasePoolPush();
        (void)world_string("mine");
        objc_autoreleasePoolPop(pool);
    }
    return NULL;
}

static void every_thread_has_its_own_pools(void **state)
{
    (void)state;
    const uint64_t before = fake_metal_live("NSString");
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pool_of_its_own, NULL), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(fake_metal_live("NSString"), before);
}

static void many_freed_objects_are_remembered_as_freed(void **state)
{
    world *w = *state;
    id buffers[100];
    for (size_t i = 0; i < 100; i++) {
        buffers[i] = device_buffer(w->device, 64, SHARED);
        release(buffers[i]);
    }
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(buffer_length(buffers[i]), 0);
    }
    assert_int_equal(fake_metal_rule_violations("zombie"), 100);
    assert_string_equal(fake_metal_violation_text(),
                        "zombie: length was sent to a freed MTLBuffer");
    world_forgive();
}

static void devices_are_the_same_object_while_somebody_holds_them(void **state)
{
    world *w = *state;
    id all = MTLCopyAllDevices();
    assert_int_equal(array_count(all), 1);
    assert_ptr_equal(array_at(all, 0), w->device);
    release(all);
    assert_int_equal(fake_metal_live("MTLDevice"), 1);
}

static void a_machine_can_have_no_device_or_eight(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.devices = 0;
    world_restart(w, &options);
    assert_null(w->device);
    id all = MTLCopyAllDevices();
    assert_int_equal(array_count(all), 0);
    release(all);
    options.devices = 8;
    world_restart(w, &options);
    all = MTLCopyAllDevices();
    assert_int_equal(array_count(all), 8);
    assert_string_equal(string_text(SEND0(id, array_at(all, 7), "name")), "Fake M1 8");
    release(all);
    fake_metal_fail("MTLCopyAllDevices", 1);
    assert_null(MTLCopyAllDevices());
}

static void a_device_answers_by_its_options(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.apple_family = 4;
    options.metal3 = false;
    options.working_set = 123;
    world_restart(w, &options);
    const int64_t families[] = {1001, 1004, 1005, 2002, 5001, 1000, 2000};
    const bool supported[] = {true, true, false, true, false, false, false};
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(SEND(bool, (id, SEL, int64_t), w->device, "supportsFamily:", families[i]),
                         supported[i]);
    }
    assert_int_equal(SEND0(uint64_t, w->device, "recommendedMaxWorkingSetSize"), 123);
    assert_true(SEND0(bool, w->device, "hasUnifiedMemory"));
}

/* ---- blocks ---- */

#define HAS_HELPERS (1 << 25)
#define FIELD_OBJECT 3
#define FIELD_BLOCK 7
#define FIELD_BYREF 8

typedef struct variable {
    void *isa;
    struct variable *forwarding;
    int flags;
    uint32_t size_bytes;
    int value;
} variable;

/* One whose type has helpers. */
typedef struct helped {
    void *isa;
    struct helped *forwarding;
    int flags;
    uint32_t size_bytes;
    void (*keep)(struct helped *to, struct helped *from);
    void (*destroy)(struct helped *self);
    unsigned *kept;
    unsigned *destroyed;
} helped;

typedef struct holding_block {
    world_block block;
    variable *shared;
} holding_block;

static unsigned copies;
static unsigned disposals;

static void holding_copy(void *to, const void *from)
{
    copies++;
    _Block_object_assign(&((holding_block *)to)->shared, ((const holding_block *)from)->shared,
                         FIELD_BYREF);
}

static void holding_dispose(const void *block)
{
    disposals++;
    _Block_object_dispose(((const holding_block *)block)->shared, FIELD_BYREF);
}

static const struct {
    unsigned long reserved;
    unsigned long size_bytes;
    void (*copy)(void *to, const void *from);
    void (*dispose)(const void *block);
} holding_descriptor = {
    .size_bytes = sizeof(holding_block), .copy = holding_copy, .dispose = holding_dispose};

static void a_block_is_copied_once_and_then_counted(void **state)
{
    (void)state;
    world_block block = world_block_make(NULL, &block);
    world_block *one = _Block_copy(&block);
    assert_ptr_not_equal(one, &block);
    assert_ptr_equal(one->context, &block);
    assert_ptr_equal(_Block_copy(one), one);
    assert_int_equal(fake_metal_live("Block"), 1);
    _Block_release(one);
    assert_int_equal(fake_metal_live("Block"), 1);
    _Block_release(one);
    assert_int_equal(fake_metal_live("Block"), 0);
    _Block_release(&block);
    assert_null(_Block_copy(NULL));
    _Block_release(NULL);
}

static void a_shared_variable_moves_with_the_first_copy(void **state)
{
    (void)state;
    variable shared = {.forwarding = &shared, .size_bytes = sizeof shared, .value = 3};
    holding_block block = {.block = world_block_make(NULL, NULL), .shared = &shared};
    block.block.flags = HAS_HELPERS;
    block.block.descriptor = &holding_descriptor;
    copies = 0;
    disposals = 0;
    holding_block *one = _Block_copy(&block);
    holding_block *two = _Block_copy(&block);
    assert_int_equal(copies, 2);
    assert_ptr_not_equal(shared.forwarding, &shared);
    assert_ptr_equal(one->shared, shared.forwarding);
    assert_ptr_equal(two->shared, shared.forwarding);
    one->shared->forwarding->value++;
    assert_int_equal(shared.forwarding->value, 4);
    _Block_release(one);
    _Block_release(two);
    assert_int_equal(disposals, 2);
    assert_int_equal(shared.forwarding->value, 4);
    _Block_object_dispose(&shared, FIELD_BYREF); /* the frame's own */
    assert_int_equal(fake_metal_live("Block"), 0);
}

static void helped_keep(helped *to, helped *from)
{
    (void)from;
    (*to->kept)++;
}

static void helped_destroy(helped *self)
{
    (*self->destroyed)++;
}

static void a_shared_variable_is_destroyed_by_its_last_user(void **state)
{
    (void)state;
    unsigned kept = 0;
    unsigned destroyed = 0;
    helped shared = {.forwarding = &shared,
                     .flags = HAS_HELPERS,
                     .size_bytes = sizeof shared,
                     .keep = helped_keep,
                     .destroy = helped_destroy,
                     .kept = &kept,
                     .destroyed = &destroyed};
    helped *one = NULL;
    helped *two = NULL;
    _Block_object_dispose(&shared, FIELD_BYREF); /* never left the stack */
    assert_int_equal(destroyed, 0);
    _Block_object_assign(&one, &shared, FIELD_BYREF);
    _Block_object_assign(&two, &shared, FIELD_BYREF);
    assert_ptr_equal(one, two);
    assert_int_equal(kept, 1);
    _Block_object_dispose(one, FIELD_BYREF);
    _Block_object_dispose(&shared, FIELD_BYREF);
    assert_int_equal(destroyed, 0);
    _Block_object_dispose(two, FIELD_BYREF);
    assert_int_equal(destroyed, 1);
}

static void objects_and_blocks_in_a_block_are_kept(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    id kept = NULL;
    _Block_object_assign(&kept, buffer, FIELD_OBJECT);
    assert_ptr_equal(kept, buffer);
    assert_int_equal(retain_count(buffer), 2);
    _Block_object_dispose(kept, FIELD_OBJECT);
    assert_int_equal(retain_count(buffer), 1);
    release(buffer);
    world_block block = world_block_make(NULL, NULL);
    world_block *copy = NULL;
    _Block_object_assign(&copy, &block, FIELD_BLOCK);
    assert_ptr_not_equal(copy, &block);
    assert_int_equal(fake_metal_live("Block"), 1);
    _Block_object_dispose(copy, FIELD_BLOCK);
    assert_int_equal(fake_metal_live("Block"), 0);
}

static void a_global_block_is_never_copied(void **state)
{
    (void)state;
    world_block block = world_block_make(NULL, NULL);
    block.isa = _NSConcreteGlobalBlock;
    assert_ptr_equal(_Block_copy(&block), &block);
    _Block_release(&block);
    _Block_release(&block);
    block.flags = 1 << 28;
    assert_ptr_equal(_Block_copy(&block), &block);
    assert_int_equal(fake_metal_live("Block"), 0);
}

/* ---- counts and faults ---- */

static void messages_are_counted_since_the_mark(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    fake_metal_mark();
    (void)buffer_length(buffer);
    (void)buffer_length(buffer);
    (void)buffer_contents(buffer);
    assert_int_equal(fake_metal_messages(), 3);
    assert_int_equal(fake_metal_messages_of("length"), 2);
    assert_int_equal(fake_metal_messages_of("contents"), 1);
    assert_int_equal(fake_metal_fallible_count(), 1);
    fake_metal_mark();
    assert_int_equal(fake_metal_messages(), 0);
    release(buffer);
}

static void what_lives_is_listed(void **state)
{
    world *w = *state;
    char text[256];
    id buffer = device_buffer(w->device, 64, SHARED);
    fake_metal_live_print(text, sizeof text);
    assert_non_null(strstr(text, "MTLBuffer 1\n"));
    assert_non_null(strstr(text, "MTLDevice 1\n"));
    fake_metal_live_print(text, 4);
    assert_int_equal(strlen(text), 3);
    release(buffer);
}

static void encodings_are_told_by_owner(void **state)
{
    (void)state;
    assert_string_equal(fake_metal_encoding("MTLBuffer", "didModifyRange:"), "v@:{_NSRange=QQ}");
    assert_string_equal(fake_metal_encoding("+NSString", "stringWithUTF8String:"), "@@:r*");
    assert_null(fake_metal_encoding("NSString", "stringWithUTF8String:"));
    assert_null(fake_metal_encoding("MTLBuffer", "nothing"));
    assert_null(fake_metal_encoding("Nothing", "length"));
}

static void a_fault_can_be_disarmed_and_replaced(void **state)
{
    world *w = *state;
    fake_metal_fail("newSharedEvent", 1);
    fake_metal_fail("newSharedEvent", 0);
    id event = device_event(w->device);
    assert_non_null(event);
    release(event);
    fake_metal_fail("newSharedEvent", 5);
    fake_metal_fail("newSharedEvent", 1);
    assert_null(device_event(w->device));
    assert_string_equal(fake_metal_failed(), "newSharedEvent");
    fake_metal_fail("newSharedEvent", 1);
    world_restart(w, NULL);
    assert_string_equal(fake_metal_failed(), "");
    event = device_event(w->device);
    assert_non_null(event);
    release(event);
}

/* Some work with every kind of object; false as soon as something is denied. */
static bool everything(const world *w)
{
    bool done = false;
    id error = NULL;
    id all = MTLCopyAllDevices();
    id text = world_string(world_text);
    id name = world_string("add_one");
    id options = new_of(objc_getClass("MTLCompileOptions"));
    id queue = device_queue(w->device, 8);
    id event = device_event(w->device);
    id buffer = device_buffer(w->device, 64, SHARED);
    id heap_descriptor = new_of(objc_getClass("MTLHeapDescriptor"));
    describe_size(heap_descriptor, 4096);
    id heap = heap_descriptor == NULL ? NULL : device_heap(w->device, heap_descriptor);
    id inner = heap == NULL ? NULL : device_buffer(heap, 64, PRIVATE);
    id library =
        text == NULL || options == NULL ? NULL : device_library(w->device, text, options, &error);
    id function = library == NULL || name == NULL ? NULL : library_function(library, name);
    id pipeline = function == NULL ? NULL : device_pipeline(w->device, function, &error);
    id command = queue == NULL ? NULL : queue_command(queue);
    id encoder = command_compute(command);
    if (all != NULL && inner != NULL && event != NULL && buffer != NULL && pipeline != NULL &&
        encoder != NULL && buffer_contents(buffer) != NULL) {
        compute_pipeline(encoder, pipeline);
        compute_buffer(encoder, buffer, 0, 0);
        compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){16, 1, 1});
        end_encoding(encoder);
        command_signal(command, event, 1);
        done = world_run(command) == COMPLETED && event_value(event) == 1;
    } else {
        end_encoding(encoder);
    }
    release(pipeline);
    release(function);
    release(library);
    release(inner);
    release(heap);
    release(heap_descriptor);
    release(buffer);
    release(event);
    release(queue);
    release(options);
    release(all);
    return done;
}

static void every_fallible_call_fails_once_and_leaves_nothing(void **state)
{
    world *w = *state;
    fake_metal_mark();
    assert_true(everything(w));
    const uint32_t calls = (uint32_t)fake_metal_fallible_count();
    assert_in_range(calls, 15, 100);
    for (uint32_t nth = 1; nth <= calls; nth++) {
        void *pool = objc_autoreleasePoolPush();
        const uint64_t before = fake_metal_live_total();
        fake_metal_fail_nth(nth);
        if (everything(w)) {
            fail_msg("call %u, %s, failed without a trace", nth, fake_metal_failed());
        }
        objc_autoreleasePoolPop(pool);
        (void)fake_metal_idle();
        assert_int_equal(fake_metal_live_total(), before);
        fake_metal_fail_nth(0);
    }
    assert_true(everything(w));
}

/* Denied by name, so that none of them forgets to ask. */
static void every_call_that_can_fail_fails_by_its_name(void **state)
{
    static const char *const selectors[] = {"MTLCopyAllDevices",
                                            "stringWithUTF8String:",
                                            "new",
                                            "newCommandQueueWithMaxCommandBufferCount:",
                                            "newSharedEvent",
                                            "newBufferWithLength:options:",
                                            "newHeapWithDescriptor:",
                                            "newLibraryWithSource:options:error:",
                                            "newFunctionWithName:",
                                            "newComputePipelineStateWithFunction:error:",
                                            "commandBuffer",
                                            "computeCommandEncoder",
                                            "contents",
                                            "commit"};
    world *w = *state;
    for (size_t i = 0; i < sizeof selectors / sizeof selectors[0]; i++) {
        fake_metal_fail(selectors[i], 1);
        assert_false(everything(w));
        assert_string_equal(fake_metal_failed(), selectors[i]);
    }
    /* The second of the two: of a heap. */
    fake_metal_fail("newBufferWithLength:options:", 2);
    assert_false(everything(w));
    fake_metal_fail("new", 2);
    assert_false(everything(w));
    assert_true(everything(w));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(a_message_to_nil_gives_zero),
        world_test(selectors_are_equal_when_their_names_are),
        world_test(classes_are_found_and_protocols_are_not_classes),
        world_test(retain_and_release_count),
        world_test(a_pool_releases_what_was_put_in_since),
        world_test(a_pool_object_is_a_pool),
        world_test(every_thread_has_its_own_pools),
        world_test(many_freed_objects_are_remembered_as_freed),
        world_test(devices_are_the_same_object_while_somebody_holds_them),
        world_test(a_machine_can_have_no_device_or_eight),
        world_test(a_device_answers_by_its_options),
        world_test(a_block_is_copied_once_and_then_counted),
        world_test(a_shared_variable_moves_with_the_first_copy),
        world_test(a_shared_variable_is_destroyed_by_its_last_user),
        world_test(objects_and_blocks_in_a_block_are_kept),
        world_test(a_global_block_is_never_copied),
        world_test(messages_are_counted_since_the_mark),
        world_test(what_lives_is_listed),
        world_test(encodings_are_told_by_owner),
        world_test(a_fault_can_be_disarmed_and_replaced),
        world_test(every_fallible_call_fails_once_and_leaves_nothing),
        world_test(every_call_that_can_fail_fails_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
