/* Command buffers on the fake: their order, their errors, and what they keep alive. */
#include "world.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

typedef struct order {
    atomic_uint count;
    id commands[2];
} order;

static void note_order(world_block *block, id command)
{
    order *of = block->context;
    of->commands[atomic_fetch_add(&of->count, 1) % 2] = command;
}

static void copy_encode(id command, id from, id to)
{
    id encoder = command_blit(command);
    blit_copy(encoder, from, 0, to, 0, 64);
    end_encoding(encoder);
}

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

/* ---- order ---- */

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

/* What is written first and read then counts as written. */
static void a_reader_waits_for_what_is_written_and_read_before(void **state)
{
    world *w = *state;
    id x = device_buffer(w->device, 64, SHARED);
    id y = device_buffer(w->device, 64, SHARED);
    id z = device_buffer(w->device, 64, SHARED);
    id one = queue_command(w->queue);
    id two = queue_command(w->queue);
    fill_encode(one, x, 1);
    id encoder = command_blit(one);
    blit_copy(encoder, x, 0, y, 0, 64);
    end_encoding(encoder);
    encoder = command_blit(two);
    blit_copy(encoder, x, 0, z, 0, 64);
    end_encoding(encoder);
    fake_metal_pause();
    commit(one);
    commit(two);
    fake_metal_resume();
    assert_true(fake_metal_idle());
    assert_int_equal(first_byte(z), 1);
    release(z);
    release(y);
    release(x);
}

/* A kernel's bindings say what it writes. */
static void hazard_tracking_knows_what_a_kernel_writes(void **state)
{
    world *w = *state;
    static const float by[4] = {1};
    id x = device_buffer(w->device, 64, SHARED);
    id y = device_buffer(w->device, 64, SHARED);
    id add_one = world_pipeline(w, "add_one");
    id scale = world_pipeline(w, "scale");
    *(float *)buffer_contents(x) = 2;
    id one = queue_command(w->queue);
    id encoder = command_compute(one);
    compute_pipeline(encoder, add_one);
    compute_buffer(encoder, x, 0, 0);
    compute_dispatch(encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    id two = queue_command(w->queue);
    encoder = command_compute(two);
    compute_pipeline(encoder, scale);
    compute_buffer(encoder, x, 0, 0);
    compute_buffer(encoder, y, 0, 1);
    compute_bytes(encoder, by, sizeof by, 2);
    compute_local(encoder, 16, 0);
    compute_dispatch(encoder, (mtl_size){1, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    fake_metal_pause();
    commit(one);
    commit(two);
    fake_metal_resume();
    assert_true(fake_metal_idle());
    assert_memory_equal(buffer_contents(y), "\x01\x00\x00\x40", 4);
    release(scale);
    release(add_one);
    release(y);
    release(x);
}

/* Two readers of one buffer, and a writer of another: the newest is first to go. */
static void what_has_nothing_in_common_is_not_ordered(void **state)
{
    world *w = *state;
    id read = device_buffer(w->device, 64, SHARED);
    for (unsigned round = 0; round < 2; round++) {
        order of = {0};
        const world_block block = world_block_make((void (*)(void))note_order, &of);
        id one_to = device_buffer(w->device, 64, SHARED);
        id two_to = device_buffer(w->device, 64, SHARED);
        id one = queue_command(w->queue);
        id two = queue_command(w->queue);
        copy_encode(one, read, one_to);
        if (round == 0) {
            copy_encode(two, read, two_to);
        } else {
            fill_encode(two, two_to, 1);
        }
        command_on_completed(one, &block);
        command_on_completed(two, &block);
        fake_metal_pause();
        commit(one);
        commit(two);
        fake_metal_resume();
        assert_true(fake_metal_idle());
        assert_ptr_equal(of.commands[0], two);
        assert_ptr_equal(of.commands[1], one);
        release(two_to);
        release(one_to);
    }
    release(read);
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

/* The rule is about a signal that an earlier command buffer of the same queue needs. */
static void signals_that_nobody_before_needs_are_fine(void **state)
{
    world *w = *state;
    id awaited = device_event(w->device);
    id other = device_event(w->device);
    id queue = device_queue(w->device, 4);
    id waiting = queue_command(w->queue);
    command_wait(waiting, awaited, 5);
    command_signal(waiting, other, 9);
    commit(waiting);
    id signals = queue_command(w->queue);
    command_signal(signals, other, 7);
    command_signal(signals, awaited, 4);
    command_wait(signals, other, 7);
    assert_int_equal(world_run(signals), COMPLETED);
    id elsewhere = queue_command(queue);
    command_signal(elsewhere, awaited, 5);
    commit(elsewhere);
    command_wait_ended(waiting);
    id late = queue_command(w->queue);
    command_signal(late, awaited, 6);
    assert_int_equal(world_run(late), COMPLETED);
    assert_int_equal(event_value(other), 9);
    assert_true(fake_metal_idle());
    release(queue);
    release(other);
    release(awaited);
}

static void the_host_waits_for_an_event(void **state)
{
    world *w = *state;
    id event = device_event(w->device);
    pthread_t thread;
    struct timespec before;
    struct timespec after;
    (void)clock_gettime(CLOCK_MONOTONIC, &before);
    assert_false(event_wait(event, 1, 5));
    (void)clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >=
                5000000);
    assert_int_equal(pthread_create(&thread, NULL, raise_soon, event), 0);
    assert_true(event_wait(event, 3, UINT64_MAX));
    assert_true(event_wait(event, 2, 0));
    event_set(event, 3); /* what it is already */
    assert_int_equal(pthread_join(thread, NULL), 0);
    release(event);
}

static void a_delay_holds_work_back(void **state)
{
    world *w = *state;
    struct timespec before;
    struct timespec after;
    id buffer = device_buffer(w->device, 64, SHARED);
    id command = queue_command(w->queue);
    fill_encode(command, buffer, 1);
    fake_metal_set_delay(20000000);
    (void)clock_gettime(CLOCK_MONOTONIC, &before);
    commit(command);
    assert_true(fake_metal_idle());
    (void)clock_gettime(CLOCK_MONOTONIC, &after);
    assert_int_equal(command_status(command), COMPLETED);
    assert_int_equal(first_byte(buffer), 1);
    assert_true((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >=
                20000000);
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

static void *take_command(void *queue)
{
    void *pool = objc_autoreleasePoolPush();
    id command = queue_command(queue);
    ns_uint status = command == NULL ? FAILED : world_run(command);
    objc_autoreleasePoolPop(pool);
    return status == COMPLETED ? queue : NULL;
}

static void room_that_is_given_back_wakes_who_waits(void **state)
{
    world *w = *state;
    void *taken = NULL;
    pthread_t thread;
    id event = device_event(w->device);
    id queue = device_queue(w->device, 2);
    id waiting = queue_command(queue);
    void *pool = objc_autoreleasePoolPush();
    (void)queue_command(queue);
    command_wait(waiting, event, 1);
    commit(waiting);
    assert_int_equal(pthread_create(&thread, NULL, take_command, queue), 0);
    (void)usleep(5000);
    objc_autoreleasePoolPop(pool);
    assert_int_equal(pthread_join(thread, &taken), 0);
    assert_ptr_equal(taken, queue);
    event_set(event, 1);
    command_wait_ended(waiting);
    release(queue);
    release(event);
}

static void a_command_buffer_can_be_enqueued_before_its_commit(void **state)
{
    world *w = *state;
    id command = queue_command(w->queue);
    command_enqueue(command);
    assert_int_equal(command_status(command), 1);
    assert_int_equal(world_run(command), COMPLETED);
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

/* ---- errors ---- */

static void a_copy_goes_from_place_to_place(void **state)
{
    world *w = *state;
    id from = device_buffer(w->device, 64, SHARED);
    id to = device_buffer(w->device, 64, SHARED);
    memcpy((uint8_t *)buffer_contents(from) + 8, "12345678", 8);
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    blit_copy(encoder, from, 8, to, 16, 8);
    blit_fill(encoder, from, (ns_range){32, 4}, 'x');
    blit_copy(encoder, from, 32, from, 60, 4);
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
    assert_memory_equal((uint8_t *)buffer_contents(to) + 12, "\0\0\0\00012345678\0\0\0", 16);
    assert_memory_equal((uint8_t *)buffer_contents(from) + 56, "\0\0\0\0xxxx", 8);
    release(to);
    release(from);
}

/* What a kernel finds in threadgroup memory is nobody's. */
static void threadgroup_memory_holds_garbage(void **state)
{
    world *w = *state;
    id pipeline = world_pipeline(w, "local");
    id out = device_buffer(w->device, 64, SHARED);
    id command = queue_command(w->queue);
    id encoder = command_compute(command);
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, out, 0, 0);
    compute_local(encoder, 64, 0);
    compute_dispatch(encoder, (mtl_size){64, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
    for (size_t i = 0; i < 64; i++) {
        assert_int_not_equal(((const uint8_t *)buffer_contents(out))[i], 0);
    }
    release(out);
    release(pipeline);
}

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
    assert_false(fake_metal_idle());
    fake_metal_set_modes(FAKE_METAL_DEVICE_LOST);
    command_wait_ended(waiting);
    id later = queue_command(w->queue);
    assert_int_equal(world_run(later), FAILED);
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

/* ---- handlers and references ---- */

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

/* ---- threads ---- */

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
        world_test(a_reader_waits_for_what_is_written_and_read_before),
        world_test(hazard_tracking_knows_what_a_kernel_writes),
        world_test(an_event_orders_them),
        world_test(a_wait_in_the_middle_lets_others_pass),
        world_test(signals_that_nobody_before_needs_are_fine),
        world_test(the_host_waits_for_an_event),
        world_test(a_delay_holds_work_back),
        world_test(a_full_queue_waits_for_room),
        world_test(what_is_never_committed_gives_its_room_back),
        world_test(room_that_is_given_back_wakes_who_waits),
        world_test(a_command_buffer_can_be_enqueued_before_its_commit),
        world_test(a_reset_ends_what_can_never_run),
        world_test(a_copy_goes_from_place_to_place),
        world_test(threadgroup_memory_holds_garbage),
        world_test(what_has_nothing_in_common_is_not_ordered),
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
