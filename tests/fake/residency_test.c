/* Residency sets: what is resident when, what a set keeps, and what leaks. */
#include "world.h"

static ns_uint count_of(id set)
{
    return SEND0(ns_uint, set, "allocationCount");
}

static ns_uint bytes_of(id set)
{
    return SEND0(ns_uint, set, "allocatedSize");
}

static void commit_set(id set)
{
    SEND0(void, set, "commit");
}

static void changes_take_effect_on_commit(void **state)
{
    world *w = *state;
    id set = world_residency(w);
    id buffer = device_buffer(w->device, 64, SHARED);
    id heap = world_heap(w, 4096, 2);
    queue_add_residency(w->queue, set);
    residency_request(set);
    residency_add(set, buffer);
    residency_add(set, buffer);
    residency_add(set, heap);
    assert_int_equal(count_of(set), 2);
    assert_int_equal(bytes_of(set), 0);
    assert_int_equal(fake_metal_resident(), 0);
    commit_set(set);
    assert_int_equal(fake_metal_resident(), 2);
    assert_int_equal(bytes_of(set), SEND0(ns_uint, buffer, "allocatedSize") + 4096);
    residency_remove(set, buffer);
    assert_int_equal(count_of(set), 1);
    assert_false(SEND(bool, (id, SEL, id), set, "containsAllocation:", buffer));
    assert_int_equal(fake_metal_resident(), 2);
    commit_set(set);
    assert_int_equal(fake_metal_resident(), 1);
    release(heap);
    release(buffer);
    release(set);
}

static void only_requested_sets_of_queues_are_resident(void **state)
{
    world *w = *state;
    id set = world_residency(w);
    id buffer = device_buffer(w->device, 64, SHARED);
    residency_add(set, buffer);
    commit_set(set);
    residency_request(set);
    assert_int_equal(fake_metal_resident(), 0);
    queue_add_residency(w->queue, set);
    assert_int_equal(fake_metal_resident(), 1);
    residency_end(set);
    assert_int_equal(fake_metal_resident(), 0);
    residency_request(set);
    queue_remove_residency(w->queue, set);
    queue_remove_residency(w->queue, set);
    assert_int_equal(fake_metal_resident(), 0);
    release(buffer);
    release(set);
}

static void a_set_keeps_its_memory_until_the_commit_after_removal(void **state)
{
    world *w = *state;
    id set = world_residency(w);
    id buffer = device_buffer(w->device, 64, SHARED);
    residency_add(set, buffer);
    release(buffer);
    assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    commit_set(set);
    residency_remove(set, buffer);
    assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    commit_set(set);
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
    release(set);
}

static void a_set_that_goes_lets_its_memory_go(void **state)
{
    world *w = *state;
    id set = world_residency(w);
    id buffers[3];
    for (size_t i = 0; i < 3; i++) {
        buffers[i] = device_buffer(w->device, 64, SHARED);
    }
    SEND(void, (id, SEL, id const *, ns_uint), set, "addAllocations:count:", buffers, 3);
    commit_set(set);
    residency_remove(set, buffers[1]);
    for (size_t i = 0; i < 3; i++) {
        release(buffers[i]);
    }
    assert_int_equal(fake_metal_live("MTLBuffer"), 3);
    release(set);
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
}

static void a_queue_keeps_its_sets(void **state)
{
    world *w = *state;
    id queue = device_queue(w->device, 4);
    id set = world_residency(w);
    queue_add_residency(queue, set);
    release(set);
    assert_int_equal(fake_metal_live("MTLResidencySet"), 1);
    release(queue);
    assert_int_equal(fake_metal_live("MTLResidencySet"), 0);
}

static void a_queue_takes_32_sets(void **state)
{
    world *w = *state;
    id sets[32];
    for (size_t i = 0; i < 32; i++) {
        sets[i] = world_residency(w);
        queue_add_residency(w->queue, sets[i]);
        release(sets[i]);
    }
    queue_remove_residency(w->queue, sets[5]);
    id another = world_residency(w);
    queue_add_residency(w->queue, another);
    release(another);
    assert_int_equal(fake_metal_violations(), 0);
    assert_int_equal(fake_metal_live("MTLResidencySet"), 32);
}

static void sets_go_in_any_order_and_forget_strangers(void **state)
{
    world *w = *state;
    id sets[3];
    id buffer = device_buffer(w->device, 64, SHARED);
    for (size_t i = 0; i < 3; i++) {
        sets[i] = world_residency(w);
    }
    residency_remove(sets[0], buffer);
    assert_int_equal(count_of(sets[0]), 0);
    residency_add(sets[0], buffer);
    SEND(void, (id, SEL, id const *, ns_uint), sets[0], "removeAllocations:count:", &buffer, 1);
    residency_add(sets[0], buffer);
    commit_set(sets[0]);
    SEND0(void, sets[0], "removeAllAllocations");
    commit_set(sets[0]);
    assert_int_equal(count_of(sets[0]), 0);
    SEND(void, (id, SEL, id const *, ns_uint), w->queue, "addResidencySets:count:", sets, 3);
    SEND(void, (id, SEL, id const *, ns_uint), w->queue, "removeResidencySets:count:", sets, 3);
    release(sets[1]);
    release(sets[0]);
    assert_int_equal(fake_metal_residency_leaked(), 3);
    release(sets[2]);
    assert_int_equal(fake_metal_residency_leaked(), 3);
    release(buffer);
}

static void a_set_leaks_where_nothing_ever_ran(void **state)
{
    world *w = *state;
    id set = world_residency(w);
    assert_int_equal(fake_metal_residency_leaked(), 1);
    release(set);
    assert_int_equal(fake_metal_residency_leaked(), 1);
    set = world_residency(w);
    assert_int_equal(fake_metal_residency_leaked(), 2);
    assert_int_equal(world_run(queue_command(w->queue)), COMPLETED);
    assert_int_equal(fake_metal_residency_leaked(), 1);
    release(set);
    assert_int_equal(fake_metal_residency_leaked(), 1);
}

static void a_set_can_be_denied(void **state)
{
    world *w = *state;
    id error = NULL;
    id descriptor = new_of(objc_getClass("MTLResidencySetDescriptor"));
    fake_metal_fail("newResidencySetWithDescriptor:error:", 1);
    assert_null(device_residency(w->device, descriptor, &error));
    assert_string_not_equal(world_words(error), "");
    fake_metal_fail("newResidencySetWithDescriptor:error:", 1);
    assert_null(device_residency(w->device, descriptor, NULL));
    release(descriptor);
}

static void older_systems_have_no_sets(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.residency = false;
    world_restart(w, &options);
    assert_null(objc_getClass("MTLResidencySetDescriptor"));
    assert_false(SEND(bool, (id, SEL, SEL), w->device, "respondsToSelector:",
                      sel_registerName("newResidencySetWithDescriptor:error:")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(changes_take_effect_on_commit),
        world_test(only_requested_sets_of_queues_are_resident),
        world_test(a_set_keeps_its_memory_until_the_commit_after_removal),
        world_test(a_set_that_goes_lets_its_memory_go),
        world_test(a_queue_keeps_its_sets),
        world_test(a_queue_takes_32_sets),
        world_test(sets_go_in_any_order_and_forget_strangers),
        world_test(a_set_leaks_where_nothing_ever_ran),
        world_test(a_set_can_be_denied),
        world_test(older_systems_have_no_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
