/* Command buffers on the fake: their order, their errors, and what they keep alive. */
#include "world.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static void fill_encode(id command, id buffer, uint8_t value)
{
    id encoder = command_blit(command);
    blit_fill(encoder, buffer, (ns_range){0, 64}, value);
    end_encoding(encoder);
}

static uint8_t first_byte(id buffer)
{
    return *(const uint8_t *)buffer_contents(buffer);
}

/* --- order
 * ---------------------------------------------------------------------------------------- */

static void unordered_command_buffers_run_newest_first(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED | UNTRACKED);
    id one = queue_command(w->queue);
    id two = queue_command(w->queue);
    fill_encode(one, buffer, 1);
    fill_encode(two, buffer, 2);
    fake_metal_pause();
    commit(one);
    commit(two);
    assert_int_equal(fake_metal_pending(), 2);
    fake_metal_resume();
    command_wait_ended(one);
    command_wait_ended(two);
    assert_int_equal(first_byte(buffer), 1);
    release(buffer);
}

static void they_can_be_made_to_run_in_order(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.in_order = true;
    world_restart(w, &options);
    id buffer = device_buffer(w->device, 64, SHARED | UNTRACKED);
    id one = queue_command(w->queue);
    id two = queue_command(w->queue);
    fill_encode(one, buffer, 1);
    fill_encode(two, buffer, 2);
    fake_metal_pause();
    commit(one);
    commit(two);
    fake_metal_resume();
    assert_true(fake_metal_idle());
    assert_int_equal(first_byte(buffer), 2);
    release(buffer);
}

static void hazard_tracking_orders_them(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    id other = device_queue(w->device, 4);
    id one = queue_command(w->queue);
    id two = queue_command(other);
    fill_encode(one, buffer, 1);
    fill_encode(two, buffer, 2);
    fake_metal_pause();
    commit(one);
    commit(two);
    fake_metal_resume();
    command_wait_ended(two);
    assert_int_equal(command_status(one), COMPLETED);
    assert_int_equal(first_byte(buffer), 2);
    release(other);
    release(buffer);
}

static void an_event_orders_them(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED | UNTRACKED);
    id event = device_event(w->device);
    id one = queue_command(w->queue);
    id two = queue_command(w->queue);
    fill_encode(one, buffer, 1);
    command_signal(one, event, 7);
    command_wait(two, event, 7);
    fill_encode(two, buffer, 2);
    fake_metal_pause();
    commit(one);
    commit(two);
    fake_metal_resume();
    command_wait_ended(two);
    assert_int_equal(first_byte(buffer), 2);
    assert_int_equal(event_value(event), 7);
    release(event);
    release(buffer);
}

static void a_wait_in_the_middle_lets_others_pass(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED | UNTRACKED);
    id event = device_event(w->device);
    id stopped = queue_command(w->queue);
    fill_encode(stopped, buffer, 1);
    command_wait(stopped, event, 1);
    fill_encode(stopped, buffer, 2);
    commit(stopped);
    assert_false(fake_metal_idle());
    assert_int_equal(fake_metal_pending(), 1);
    assert_int_equal(first_byte(buffer), 1);
    id other = queue_command(w->queue);
    fill_encode(other, buffer, 3);
    assert_int_equal(world_run(other), COMPLETED);
    assert_int_equal(first_byte(buffer), 3);
    event_set(event, 1);
    command_wait_ended(stopped);
    assert_int_equal(first_byte(buffer), 2);
    release(event);
    release(buffer);
}

static void *raise_soon(void *event)
{
    (void)usleep(2000);
    event_set(event, 3);
    return NULL;
}

static void the_host_waits_for_an_event(void **state)
{
    world *w = *state;
    id event = device_event(w->device);
    pthread_t thread;
    assert_false(event_wait(event, 1, 5));
    assert_int_equal(pthread_create(&thread, NULL, raise_soon, event), 0);
    assert_true(event_wait(event, 3, UINT64_MAX));
    assert_true(event_wait(event, 2, 0));
    assert_int_equal(pthread_join(thread, NULL), 0);
    release(event);
}

static void a_delay_holds_work_back(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    id command = queue_command(w->queue);
    fill_encode(command, buffer, 1);
    fake_metal_set_delay(20000000);
    commit(command);
    assert_int_equal(command_status(command), 2);
    assert_int_equal(first_byte(buffer), 0);
    assert_true(fake_metal_idle());
    assert_int_equal(command_status(command), COMPLETED);
    assert_int_equal(first_byte(buffer), 1);
    release(buffer);
}

static void a_full_queue_waits_for_room(void **state)
{
    world *w = *state;
    id queue = device_queue(w->device, 1);
    for (unsigned i = 0; i < 100; i++) {
        id command = queue_command(queue);
        assert_non_null(command);
        commit(command);
    }
    release(queue);
}

static void what_is_never_committed_gives_its_room_back(void **state)
{
    world *w = *state;
    id queue = device_queue(w->device, 1);
    for (unsigned i = 0; i < 3; i++) {
        void *pool = objc_autoreleasePoolPush();
        assert_non_null(queue_command(queue));
        objc_autoreleasePoolPop(pool);
    }
    release(queue);
}

static void a_reset_ends_what_can_never_run(void **state)
{
    world *w = *state;
    id event = device_event(w->device);
    id command = queue_command(w->queue);
    command_wait(command, event, 1);
    commit(command);
    fake_metal_reset(NULL);
    assert_int_equal(command_status(command), FAILED);
    assert_int_equal(error_code(command_error(command)), 1);
    release(event);
}

/* --- errors
 * --------------------------------------------------------------------------------------- */

static void a_commit_can_end_in_any_error(void **state)
{
    static const struct {
        int64_t code;
        const char *words;
    } errors[] = {{1, "Internal Error"},
                  {2, "Timeout"},
                  {3, "Address Fault"},
                  {8, "Insufficient Memory"},
                  {11, "Device Removed"}};
    world *w = *state;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        id buffer = device_buffer(w->device, 64, SHARED);
        id event = device_event(w->device);
        id command = queue_command(w->queue);
        fill_encode(command, buffer, 1);
        command_signal(command, event, 1);
        fake_metal_fail_code(errors[i].code);
        fake_metal_fail("commit", 1);
        assert_null(command_error(command));
        assert_int_equal(world_run(command), FAILED);
        assert_int_equal(error_code(command_error(command)), errors[i].code);
        assert_non_null(strstr(world_words(command_error(command)), errors[i].words));
        assert_int_equal(first_byte(buffer), 0);
        assert_int_equal(event_value(event), 0);
        release(event);
        release(buffer);
    }
}

static void an_empty_command_buffer_fails_too(void **state)
{
    world *w = *state;
    id command = queue_command(w->queue);
    fake_metal_fail("commit", 1);
    assert_int_equal(world_run(command), FAILED);
    id next = queue_command(w->queue);
    assert_int_equal(world_run(next), COMPLETED);
    assert_null(command_error(next));
}

static void a_lost_device_fails_what_waits_and_what_comes(void **state)
{
    world *w = *state;
    id event = device_event(w->device);
    id waiting = queue_command(w->queue);
    command_wait(waiting, event, 1);
    commit(waiting);
    fake_metal_set_modes(FAKE_METAL_DEVICE_LOST);
    id later = queue_command(w->queue);
    assert_int_equal(world_run(later), FAILED);
    command_wait_ended(waiting);
    assert_int_equal(command_status(waiting), FAILED);
    assert_int_equal(error_code(command_error(waiting)), 11);
    assert_int_equal(error_code(command_error(later)), 11);
    release(event);
}

static void queues_encoders_and_events_can_be_denied(void **state)
{
    world *w = *state;
    fake_metal_fail("newCommandQueueWithMaxCommandBufferCount:", 1);
    fake_metal_fail("newSharedEvent", 1);
    fake_metal_fail("commandBuffer", 1);
    fake_metal_fail("commandBufferWithUnretainedReferences", 1);
    fake_metal_fail("blitCommandEncoder", 1);
    fake_metal_fail("computeCommandEncoder", 1);
    assert_null(device_queue(w->device, 4));
    assert_null(device_event(w->device));
    assert_null(queue_command(w->queue));
    assert_null(queue_command_unretained(w->queue));
    id command = queue_command(w->queue);
    assert_null(command_blit(command));
    assert_null(command_compute(command));
    fill_encode(command, NULL, 0); /* to nil: the encoder is there again, the buffer is not */
    assert_int_equal(fake_metal_rule_violations("wrong_class"), 1);
    world_forgive();
    assert_int_equal(world_run(command), COMPLETED);
}

/* --- handlers and references
 * ---------------------------------------------------------------------- */

typedef struct seen {
    atomic_uint count;
    ns_uint status;
    int64_t code;
    id command;
} seen;

static void note_completed(world_block *block, id command)
{
    seen *note = block->context;
    note->status = command_status(command);
    note->code = error_code(command_error(command));
    note->command = command;
    (void)atomic_fetch_add(&note->count, 1);
}

static void handler_add(id command, seen *note)
{
    world_block block = world_block_make((void (*)(void))note_completed, note);
    command_on_completed(command, &block);
    memset(&block, 0, sizeof block);
}

static void handlers_run_once_with_the_final_status(void **state)
{
    world *w = *state;
    seen notes[2] = {0};
    id command = queue_command(w->queue);
    handler_add(command, &notes[0]);
    handler_add(command, &notes[1]);
    assert_int_equal(fake_metal_live("Block"), 2);
    fake_metal_fail_code(8);
    fake_metal_fail("commit", 1);
    assert_int_equal(world_run(command), FAILED);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(atomic_load(&notes[i].count), 1);
        assert_int_equal(notes[i].status, FAILED);
        assert_int_equal(notes[i].code, 8);
        assert_ptr_equal(notes[i].command, command);
    }
    assert_int_equal(fake_metal_live("Block"), 0);
}

static void a_handler_of_what_is_never_committed_does_not_run(void **state)
{
    world *w = *state;
    seen note = {0};
    void *pool = objc_autoreleasePoolPush();
    handler_add(queue_command(w->queue), &note);
    assert_int_equal(fake_metal_live("Block"), 1);
    objc_autoreleasePoolPop(pool);
    assert_int_equal(fake_metal_live("Block"), 0);
    assert_int_equal(atomic_load(&note.count), 0);
}

static void a_command_buffer_lives_until_it_has_ended(void **state)
{
    world *w = *state;
    seen note = {0};
    void *pool = objc_autoreleasePoolPush();
    id command = queue_command(w->queue);
    handler_add(command, &note);
    fake_metal_pause();
    commit(command);
    objc_autoreleasePoolPop(pool);
    assert_int_equal(fake_metal_live("MTLCommandBuffer"), 1);
    fake_metal_resume();
    assert_true(fake_metal_idle());
    assert_int_equal(atomic_load(&note.count), 1);
    assert_int_equal(fake_metal_live("MTLCommandBuffer"), 0);
}

static void references_are_kept_until_the_end(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    id event = device_event(w->device);
    id command = queue_command(w->queue);
    fill_encode(command, buffer, 1);
    command_signal(command, event, 1);
    fake_metal_pause();
    commit(command);
    release(buffer);
    release(event);
    assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    assert_int_equal(fake_metal_live("MTLSharedEvent"), 1);
    fake_metal_resume();
    command_wait_ended(command);
    assert_int_equal(command_status(command), COMPLETED);
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
    assert_int_equal(fake_metal_live("MTLSharedEvent"), 0);
}

/* The handler is the first place where the caller may let go. */
static void release_buffer(world_block *block, id command)
{
    (void)command;
    release(block->context);
}

static void unretained_references_may_go_in_the_handler(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    id command = queue_command_unretained(w->queue);
    fill_encode(command, buffer, 1);
    world_block block = world_block_make((void (*)(void))release_buffer, buffer);
    command_on_completed(command, &block);
    assert_int_equal(world_run(command), COMPLETED);
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
}

static void commands_are_counted(void **state)
{
    world *w = *state;
    const uint64_t before = fake_metal_commands_run();
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(world_run(queue_command(w->queue)), COMPLETED);
    }
    assert_int_equal(fake_metal_commands_run() - before, 3);
}

/* --- threads
 * -------------------------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 200

typedef struct worker {
    world *w;
    id event;
    seen note;
    unsigned index;
    bool right;
} worker;

static void *thread_work(void *argument)
{
    worker *self = argument;
    self->right = true;
    for (unsigned i = 0; i < ROUNDS; i++) {
        void *pool = objc_autoreleasePoolPush();
        id buffer = device_buffer(self->w->device, 64, SHARED);
        id command = queue_command_unretained(self->w->queue);
        fill_encode(command, buffer, (uint8_t)(self->index + 1));
        command_signal(command, self->event, i + 1);
        handler_add(command, &self->note);
        commit(command);
        command_wait_ended(command);
        self->right = self->right && first_byte(buffer) == self->index + 1 &&
                      event_value(self->event) == i + 1;
        release(buffer);
        objc_autoreleasePoolPop(pool);
    }
    return NULL;
}

static void threads_share_a_queue(void **state)
{
    world *w = *state;
    static worker workers[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.w = w, .event = device_event(w->device), .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, thread_work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(workers[i].right);
        assert_int_equal(atomic_load(&workers[i].note.count), ROUNDS);
        release(workers[i].event);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(unordered_command_buffers_run_newest_first),
        world_test(they_can_be_made_to_run_in_order),
        world_test(hazard_tracking_orders_them),
        world_test(an_event_orders_them),
        world_test(a_wait_in_the_middle_lets_others_pass),
        world_test(the_host_waits_for_an_event),
        world_test(a_delay_holds_work_back),
        world_test(a_full_queue_waits_for_room),
        world_test(what_is_never_committed_gives_its_room_back),
        world_test(a_reset_ends_what_can_never_run),
        world_test(a_commit_can_end_in_any_error),
        world_test(an_empty_command_buffer_fails_too),
        world_test(a_lost_device_fails_what_waits_and_what_comes),
        world_test(queues_encoders_and_events_can_be_denied),
        world_test(handlers_run_once_with_the_final_status),
        world_test(a_handler_of_what_is_never_committed_does_not_run),
        world_test(a_command_buffer_lives_until_it_has_ended),
        world_test(references_are_kept_until_the_end),
        world_test(unretained_references_may_go_in_the_handler),
        world_test(commands_are_counted),
        world_test(threads_share_a_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
