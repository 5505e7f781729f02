/* Threads that do everything at once to what they share: nothing is lost, and nothing races. */
#include "world.h"

#include <pthread.h>
#include <stdatomic.h>

#define THREADS 4
#define ROUNDS 150

typedef struct shared {
    world *w;
    id heap;
    id set;
    id event;
    id pipeline;
    id archive;
    id function;
    _Atomic uint64_t signalled;
    atomic_uint completed;
    atomic_uint failed;
} shared;

typedef struct actor {
    shared *with;
    uint32_t random;
    bool right;
} actor;

static uint32_t next(actor *a)
{
    /* Source: Marsaglia, "Xorshift RNGs". */
    a->random ^= a->random << 13;
    a->random ^= a->random >> 17;
    a->random ^= a->random << 5;
    return a->random;
}

static void note_end(world_block *block, id command)
{
    shared *s = block->context;
    (void)atomic_fetch_add(command_status(command) == COMPLETED ? &s->completed : &s->failed, 1);
}

static void run_command(actor *a, bool retained)
{
    shared *s = a->with;
    id buffer = device_buffer(s->w->device, 64, next(a) % 2 == 0 ? SHARED : SHARED | UNTRACKED);
    id command = retained ? queue_command(s->w->queue) : queue_command_unretained(s->w->queue);
    world_block block = world_block_make((void (*)(void))note_end, s);
    id encoder = command_compute(command);
    compute_pipeline(encoder, s->pipeline);
    compute_buffer(encoder, buffer, 0, 0);
    compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){16, 1, 1});
    end_encoding(encoder);
    command_on_completed(command, &block);
    commit(command);
    if (!retained || next(a) % 2 == 0) {
        command_wait_ended(command);
        a->right = a->right && *(const uint32_t *)buffer_contents(buffer) == 1;
    }
    release(buffer);
}

static void use_heap(actor *a)
{
    id buffer = device_buffer(a->with->heap, 1 + next(a) % 500, SHARED);
    if (buffer != NULL) {
        memset(buffer_contents(buffer), 1, buffer_length(buffer));
        (void)SEND0(ns_uint, a->with->heap, "usedSize");
    }
    release(buffer);
}

static void use_residency(actor *a)
{
    id set = a->with->set;
    id buffer = device_buffer(a->with->w->device, 64, PRIVATE);
    residency_add(set, buffer);
    SEND0(void, set, "commit");
    residency_request(set);
    (void)fake_metal_resident();
    residency_remove(set, buffer);
    SEND0(void, set, "commit");
    residency_end(set);
    release(buffer);
}

static void use_purgeable(actor *a)
{
    id buffer = device_buffer(a->with->w->device, 64, SHARED);
    (void)purgeable_set(buffer, VOLATILE);
    (void)fake_metal_purge();
    (void)purgeable_set(buffer, NON_VOLATILE);
    memset(buffer_contents(buffer), 1, 64);
    release(buffer);
}

static void use_archive(actor *a)
{
    id error = NULL;
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_function(descriptor, a->with->function);
    a->right = archive_add(a->with->archive, descriptor, &error) && a->right;
    describe_archives(descriptor, array_make(objc_getClass("NSArray"), a->with->archive));
    id pipeline = device_pipeline_described(a->with->w->device, descriptor, 4, NULL, &error);
    a->right = a->right && pipeline != NULL;
    release(pipeline);
    release(descriptor);
}

static void use_device(actor *a)
{
    (void)a;
    id all = MTLCopyAllDevices();
    release(all);
    (void)sel_registerName("length");
    (void)fake_metal_live_total();
    (void)fake_metal_messages();
    (void)fake_metal_fallible_count();
}

static void *act(void *argument)
{
    actor *a = argument;
    void (*const uses[])(actor *) = {use_heap, use_residency, use_purgeable, use_archive,
                                     use_device};
    for (unsigned i = 0; i < ROUNDS; i++) {
        void *pool = objc_autoreleasePoolPush();
        const uint32_t choice = next(a) % 8;
        if (choice < 5) {
            uses[choice](a);
        } else {
            run_command(a, choice < 7);
        }
        objc_autoreleasePoolPop(pool);
    }
    return NULL;
}

static void threads_run(shared *s, actor *actors)
{
    pthread_t threads[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        actors[i] = (actor){.with = s, .random = 2463534242u + i, .right = true};
        assert_int_equal(pthread_create(&threads[i], NULL, act, &actors[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(actors[i].right);
    }
}

static void threads_use_everything_at_once(void **state)
{
    world *w = *state;
    static shared s;
    static actor actors[THREADS];
    id error = NULL;
    id descriptor = new_of(objc_getClass("MTLBinaryArchiveDescriptor"));
    s = (shared){.w = w,
                 .heap = world_heap(w, 4096, 0),
                 .set = world_residency(w),
                 .event = device_event(w->device),
                 .pipeline = world_pipeline(w, "add_one"),
                 .archive = device_archive(w->device, descriptor, &error),
                 .function = world_function(w, "add_one")};
    queue_add_residency(w->queue, s.set);
    threads_run(&s, actors);
    assert_true(fake_metal_idle());
    assert_int_equal(atomic_load(&s.failed), 0);
    assert_in_range(atomic_load(&s.completed), 1, THREADS * ROUNDS);
    assert_int_equal(fake_metal_resident(), 0);
    release(s.function);
    release(s.archive);
    release(s.pipeline);
    release(s.event);
    release(s.set);
    release(s.heap);
    release(descriptor);
}

/* A chain through an event: each command adds one to the word that the one before it wrote. */
static void *chain(void *argument)
{
    actor *a = argument;
    shared *s = a->with;
    for (unsigned i = 0; i < ROUNDS; i++) {
        void *pool = objc_autoreleasePoolPush();
        id command = queue_command(s->w->queue);
        const uint64_t ticket = atomic_fetch_add(&s->signalled, 1);
        command_wait(command, s->event, ticket);
        id encoder = command_compute(command);
        compute_pipeline(encoder, s->pipeline);
        compute_buffer(encoder, s->heap, 0, 0);
        compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){16, 1, 1});
        end_encoding(encoder);
        command_signal(command, s->event, ticket + 1);
        commit(command);
        objc_autoreleasePoolPop(pool);
    }
    return NULL;
}

/* Each thread has a queue of its own: one queue would have to start them in order. */
static void a_chain_of_events_runs_in_its_order_over_queues(void **state)
{
    world *w = *state;
    static world worlds[THREADS];
    static shared parts[THREADS];
    actor actors[THREADS];
    pthread_t threads[THREADS];
    id event = device_event(w->device);
    id pipeline = world_pipeline(w, "add_one");
    id buffer = device_buffer(w->device, 64, SHARED | UNTRACKED);
    for (uint64_t t = 0; t < THREADS; t++) {
        worlds[t] = (world){.device = w->device, .queue = device_queue(w->device, 1024)};
        parts[t] = (shared){.w = &worlds[t], .event = event, .pipeline = pipeline, .heap = buffer};
        atomic_store(&parts[t].signalled, t * ROUNDS);
        actors[t] = (actor){.with = &parts[t]};
    }
    for (size_t t = THREADS; t > 0; t--) { /* the last of the chain first */
        assert_int_equal(pthread_create(&threads[t - 1], NULL, chain, &actors[t - 1]), 0);
    }
    for (size_t t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_join(threads[t], NULL), 0);
    }
    assert_true(event_wait(event, THREADS * ROUNDS, 20000));
    assert_true(fake_metal_idle());
    assert_int_equal(*(const uint32_t *)buffer_contents(buffer), THREADS * ROUNDS);
    for (size_t t = 0; t < THREADS; t++) {
        release(worlds[t].queue);
    }
    release(buffer);
    release(pipeline);
    release(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(threads_use_everything_at_once),
        world_test(a_chain_of_events_runs_in_its_order_over_queues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
