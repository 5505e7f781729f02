/* What a caller can do wrong with queues, command buffers and events. */
#include "misuse.h"

static void ignore(world_block *block, id command)
{
    (void)block;
    (void)command;
}

static void a_queue_without_room(world *w)
{
    assert_null(device_queue(w->device, 0));
}

static void a_command_buffer_more_than_the_queue_has(world *w)
{
    id queue = device_queue(w->device, 2);
    id one = queue_command(queue);
    id two = queue_command_unretained(queue);
    assert_non_null(one);
    assert_non_null(two);
    assert_null(queue_command(queue));
    release(queue);
}

static void a_wait_for_what_is_not_committed(world *w)
{
    command_wait_ended(queue_command(w->queue));
}

static void a_second_encoder_at_once(world *w)
{
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    assert_null(command_compute(command));
    end_encoding(encoder);
}

static void an_event_inside_an_encoder(world *w)
{
    id event = device_event(w->device);
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    command_signal(command, event, 1);
    end_encoding(encoder);
    release(event);
}

static void a_copy_after_the_end_of_encoding(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    id encoder = command_blit(queue_command(w->queue));
    end_encoding(encoder);
    blit_fill(encoder, buffer, (ns_range){0, 64}, 1);
    release(buffer);
}

static void every_message_to_an_ended_encoder(world *w)
{
    const float by[4] = {1};
    id buffer = device_buffer(w->device, 64, SHARED);
    id pipeline = world_pipeline(w, "add_one");
    id command = queue_command(w->queue);
    id blit = command_blit(command);
    end_encoding(blit);
    id compute = command_compute(command);
    end_encoding(compute);
    blit_copy(blit, buffer, 0, buffer, 32, 32);
    blit_synchronize(blit, buffer);
    compute_pipeline(compute, pipeline);
    compute_buffer(compute, buffer, 0, 0);
    SEND(void, (id, SEL, ns_uint, ns_uint), compute, "setBufferOffset:atIndex:", 0, 0);
    compute_bytes(compute, by, sizeof by, 2);
    compute_local(compute, 16, 0);
    compute_dispatch(compute, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    compute_dispatch_groups(compute, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    assert_int_equal(fake_metal_rule_violations("encoder_ended"), 9);
    release(pipeline);
    release(buffer);
}

static void an_end_of_encoding_too_many(world *w)
{
    id encoder = command_compute(queue_command(w->queue));
    end_encoding(encoder);
    end_encoding(encoder);
}

static void an_encoder_dropped_without_its_end(world *w)
{
    void *pool = objc_autoreleasePoolPush();
    (void)command_blit(queue_command(w->queue));
    objc_autoreleasePoolPop(pool);
}

static void a_commit_while_an_encoder_is_open(world *w)
{
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    commit(command);
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
}

static void a_commit_too_many(world *w)
{
    id command = queue_command(w->queue);
    commit(command);
    commit(command);
    command_wait_ended(command);
}

static void enqueued_after_its_commit(world *w)
{
    id command = queue_command(w->queue);
    assert_int_equal(world_run(command), COMPLETED);
    command_enqueue(command);
}

static void an_encoder_after_the_commit(world *w)
{
    id command = queue_command(w->queue);
    assert_int_equal(world_run(command), COMPLETED);
    assert_null(command_blit(command));
}

static void a_wait_after_the_commit(world *w)
{
    id event = device_event(w->device);
    id command = queue_command(w->queue);
    assert_int_equal(world_run(command), COMPLETED);
    command_wait(command, event, 1);
    release(event);
}

static void a_handler_after_the_commit(world *w)
{
    const world_block block = world_block_make((void (*)(void))ignore, NULL);
    id command = queue_command(w->queue);
    assert_int_equal(world_run(command), COMPLETED);
    command_on_completed(command, &block);
}

static void an_event_set_back_by_the_host(world *w)
{
    id event = device_event(w->device);
    event_set(event, 5);
    event_set(event, 4);
    assert_int_equal(event_value(event), 5);
    release(event);
}

static void an_event_set_back_by_the_gpu(world *w)
{
    id event = device_event(w->device);
    id command = queue_command(w->queue);
    event_set(event, 5);
    command_signal(command, event, 4);
    assert_int_equal(world_run(command), COMPLETED);
    release(event);
}

static void a_signal_behind_the_wait_for_it(world *w)
{
    id event = device_event(w->device);
    id first = queue_command(w->queue);
    id second = queue_command(w->queue);
    command_wait(first, event, 1);
    command_signal(second, event, 1);
    commit(first);
    commit(second);
    command_wait_ended(first);
    release(event);
}

const misuse misuse_of_commands[] = {
    MISUSE("queue_count", a_queue_without_room),
    MISUSE("queue_full", a_command_buffer_more_than_the_queue_has),
    MISUSE("queue_full", a_wait_for_what_is_not_committed),
    MISUSE("encoder_open", a_second_encoder_at_once),
    MISUSE("encoder_open", an_event_inside_an_encoder),
    MISUSE("encoder_ended", a_copy_after_the_end_of_encoding),
    MISUSE("encoder_ended", every_message_to_an_ended_encoder),
    MISUSE("encoder_ended", an_end_of_encoding_too_many),
    MISUSE("encoder_not_ended", an_encoder_dropped_without_its_end),
    MISUSE("commit_open_encoder", a_commit_while_an_encoder_is_open),
    MISUSE("commit_twice", a_commit_too_many),
    MISUSE("commit_twice", enqueued_after_its_commit),
    MISUSE("encode_after_commit", an_encoder_after_the_commit),
    MISUSE("encode_after_commit", a_wait_after_the_commit),
    MISUSE("handler_after_commit", a_handler_after_the_commit),
    MISUSE("event_backwards", an_event_set_back_by_the_host),
    MISUSE("event_backwards", an_event_set_back_by_the_gpu),
    MISUSE("signal_behind_wait", a_signal_behind_the_wait_for_it),
    {NULL, NULL, NULL},
};
