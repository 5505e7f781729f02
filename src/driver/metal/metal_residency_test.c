/*
 * Residency of the Metal driver's memory: what is in the set, how long it is kept wired, and what
 * happens where there are no sets.
 */
#include "driver/metal/metal_test.h"

#include <sched.h>
#include <stdlib.h>

enum {
    MIB = 1 << 20
};

static const char request[] = "requestResidency";
static const char end[] = "endResidency";

/* A command, and with it a sign of life to the thread that keeps memory wired. */
static void gpu_use(void *state)
{
    umo_fence fence;
    const umo_metal_host_step nothing = {.kind = UMO_METAL_STEP_NONE};
    assert_int_equal(umo_metal_host_step_give(state, 0, &nothing, NULL, NULL, 0, &fence), UMO_OK);
    fence_pass(state, fence);
}

/* Waits until a message has been sent as often since the mark; false after ten seconds. */
static bool sent(const char *selector, uint64_t count)
{
    for (int i = 0; i < 10000 && fake_metal_messages_of(selector) < count; i++) {
        (void)usleep(1000);
    }
    return fake_metal_messages_of(selector) >= count;
}

static void *device_open_kept(const char *seconds)
{
    assert_int_equal(setenv("UMO_METAL_KEEP_RESIDENT_S", seconds, 1), 0);
    void *state = device_open();
    assert_int_equal(unsetenv("UMO_METAL_KEEP_RESIDENT_S"), 0);
    return state;
}

static uint64_t kept_seconds(void *state)
{
    return ((umo_metal_state *)state)->residency.keep_ns / UINT64_C(1000000000);
}

/* Does not wait for the half second between two beats. */
static void beat(void *opaque)
{
    umo_metal_residency *r = &((umo_metal_state *)opaque)->residency;
    (void)pthread_mutex_lock(&r->lock);
    (void)pthread_cond_broadcast(&r->wake);
    (void)pthread_mutex_unlock(&r->lock);
}

static void keep_for(void *opaque, uint64_t keep_ns)
{
    umo_metal_residency *r = &((umo_metal_state *)opaque)->residency;
    (void)pthread_mutex_lock(&r->lock);
    r->keep_ns = keep_ns;
    (void)pthread_mutex_unlock(&r->lock);
}

/* ---- what is in the set ---- */

static void the_set_holds_what_lives_from_the_next_command_on(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(page);
    void *state = device_open();
    fake_metal_mark();
    gpu_use(state);
    assert_true(sent(request, 1));
    assert_int_equal(fake_metal_resident(), 0);
    umo_memory own = memory_make(state, MIB, UMO_PRIVATE);
    umo_memory small[3];
    for (int i = 0; i < 3; i++) {
        small[i] = memory_make(state, 1000, UMO_PRIVATE);
    }
    umo_memory imported;
    assert_int_equal(driver->import(state, pages, page, UMO_IMPORT_READ, &imported, NULL, NULL),
                     UMO_OK);
    /* One buffer, one heap for all small memory, one import. */
    assert_int_equal(fake_metal_resident(), 0);
    gpu_use(state);
    assert_int_equal(fake_metal_resident(), 3);
    /* A command with nothing new commits no set. */
    fake_metal_mark();
    gpu_use(state);
    assert_int_equal(fake_metal_messages_of("commit"), 1);
    /* What goes is out at once: its memory may be unmapped. */
    driver->free(state, &imported);
    assert_int_equal(fake_metal_resident(), 2);
    driver->free(state, &own);
    assert_int_equal(fake_metal_resident(), 1);
    for (int i = 0; i < 3; i++) {
        driver->free(state, &small[i]);
    }
    /* The last heap stays. */
    assert_int_equal(fake_metal_resident(), 1);
    device_close(state);
    umo_os_pages_free(pages, page);
}

static void volatile_memory_is_not_in_the_set(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, MIB, UMO_PRIVATE);
    umo_memory other = memory_make(state, MIB, UMO_PRIVATE);
    bool lost = true;
    fake_metal_mark();
    gpu_use(state);
    assert_true(sent(request, 1));
    assert_int_equal(fake_metal_resident(), 2);
    assert_int_equal(driver->purgeable(state, &memory, UMO_PURGEABLE_VOLATILE, NULL), UMO_OK);
    assert_int_equal(fake_metal_resident(), 1);
    gpu_use(state);
    assert_int_equal(fake_metal_resident(), 1);
    assert_int_equal(driver->purgeable(state, &memory, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    assert_false(lost);
    gpu_use(state);
    assert_int_equal(fake_metal_resident(), 2);
    driver->free(state, &memory);
    driver->free(state, &other);
    device_close(state);
}

/* ---- the beat ---- */

static void memory_is_kept_wired_while_the_device_is_used(void **unused)
{
    (void)unused;
    void *state = device_open_kept("60");
    umo_memory memory = memory_make(state, MIB, UMO_PRIVATE);
    fake_metal_mark();
    gpu_use(state);
    uint64_t start_ns = umo_os_now_ns();
    assert_true(sent(request, 2));
    /* Not more often than every half second. */
    assert_true(umo_os_now_ns() - start_ns > UINT64_C(300000000));
    assert_int_equal(fake_metal_messages_of(end), 0);
    assert_int_equal(fake_metal_resident(), 1);
    driver->free(state, &memory);
    device_close(state);
}

static void unused_memory_is_let_go_and_wired_again_at_the_next_use(void **unused)
{
    (void)unused;
    void *state = device_open_kept("60");
    umo_memory memory = memory_make(state, MIB, UMO_PRIVATE);
    for (int round = 0; round < 3; round++) {
        keep_for(state, UINT64_C(60000000000));
        fake_metal_mark();
        gpu_use(state);
        assert_true(sent(request, 1));
        assert_int_equal(fake_metal_resident(), 1);
        keep_for(state, 1);
        beat(state);
        assert_true(sent(end, 1));
        assert_int_equal(fake_metal_resident(), 0);
        /* While it rests it neither asks nor lets go again. */
        fake_metal_mark();
        beat(state);
        (void)usleep(1000);
        assert_int_equal(fake_metal_messages_of(end) + fake_metal_messages_of(request), 0);
    }
    driver->free(state, &memory);
    device_close(state);
    assert_int_equal(fake_metal_messages_of(end), 0);
}

static void close_ends_what_was_requested(void **unused)
{
    (void)unused;
    void *state = device_open_kept("60");
    fake_metal_mark();
    gpu_use(state);
    assert_true(sent(request, 1));
    uint64_t start_ns = umo_os_now_ns();
    device_close(state);
    assert_true(umo_os_now_ns() - start_ns <
                UINT64_C(400000000)); /* and does not wait for a beat */
    assert_int_equal(fake_metal_messages_of(end), 1);
    assert_int_equal(fake_metal_residency_leaked(), 0);
}

static void the_time_to_keep_is_a_number_of_seconds(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        uint64_t seconds;
    } wishes[] = {{"0", 0},  {"7", 7},    {"86400", 86400}, {"86401", 180},
                  {"", 180}, {"7s", 180}, {"often", 180},   {"-1", 180}};
    void *state = device_open();
    assert_int_equal(kept_seconds(state), 180);
    device_close(state);
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        state = device_open_kept(wishes[i].text);
        assert_int_equal(kept_seconds(state), wishes[i].seconds);
        device_close(state);
    }
}

/* ---- without ---- */

/* Everything works, and no set is ever asked for. */
static void assert_works_without_a_set(void)
{
    unsigned char bytes[4096];
    unsigned char back[4096] = {0};
    fake_metal_mark();
    void *state = device_open();
    umo_memory memory = memory_make(state, 4096, UMO_PRIVATE);
    umo_memory own = memory_make(state, MIB, UMO_PRIVATE);
    bool lost = true;
    pattern_fill(bytes, 4096, 3);
    upload(state, &memory, 0, 4096, bytes);
    download(state, &memory, 0, 4096, back);
    assert_memory_equal(back, bytes, 4096);
    assert_int_equal(driver->purgeable(state, &own, UMO_PURGEABLE_VOLATILE, NULL), UMO_OK);
    assert_int_equal(driver->purgeable(state, &own, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    assert_false(lost);
    driver->free(state, &own);
    driver->free(state, &memory);
    device_close(state);
    assert_int_equal(fake_metal_messages_of("addResidencySet:"), 0);
    assert_int_equal(fake_metal_messages_of("addAllocation:"), 0);
    assert_int_equal(fake_metal_messages_of(request), 0);
    assert_int_equal(fake_metal_messages_of(end), 0);
}

static void sets_are_switched_off_by_a_variable(void **unused)
{
    (void)unused;
    assert_int_equal(setenv("UMO_METAL_RESIDENCY", "0", 1), 0);
    assert_works_without_a_set();
    assert_int_equal(fake_metal_messages_of("newResidencySetWithDescriptor:error:"), 0);
    /* An empty one says nothing. */
    assert_int_equal(setenv("UMO_METAL_RESIDENCY", "", 1), 0);
    void *state = device_open();
    assert_int_equal(fake_metal_live("MTLResidencySet"), 1);
    device_close(state);
    assert_int_equal(unsetenv("UMO_METAL_RESIDENCY"), 0);
}

static void a_paravirtual_device_has_no_set_unless_it_is_wished_for(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    (void)strcpy(options.name, "Apple Paravirtual device");
    fake_metal_reset(&options);
    assert_works_without_a_set();
    assert_int_equal(fake_metal_messages_of("newResidencySetWithDescriptor:error:"), 0);
    fake_metal_record(true);
    assert_int_equal(setenv("UMO_METAL_RESIDENCY", "1", 1), 0);
    void *state = device_open();
    assert_int_equal(unsetenv("UMO_METAL_RESIDENCY"), 0);
    assert_int_equal(fake_metal_rule_violations("residency_paravirtual"), 1);
    driver->close(state);
}

static void a_system_without_sets_works(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.residency = false;
    fake_metal_reset(&options);
    /* The table of entry points is the process's, and what the system has does not change. */
    umo_metal_api api;
    assert_int_equal(umo_metal_api_load(getenv("UMO_METAL_LIBRARY"), &api, NULL), UMO_OK);
    assert_null(api.classes.residency_descriptor);
    umo_metal_api_replace(&api);
    assert_works_without_a_set();
    umo_metal_api_replace(NULL);
}

static void a_set_that_metal_refuses_is_done_without(void **unused)
{
    (void)unused;
    fake_metal_fail("newResidencySetWithDescriptor:error:", 1);
    assert_works_without_a_set();
    assert_string_equal(fake_metal_failed(), "newResidencySetWithDescriptor:error:");
    fake_metal_fail("new", 1); /* the set's descriptor */
    assert_works_without_a_set();
    assert_string_equal(fake_metal_failed(), "new");
}

static void a_device_that_never_worked_leaks_no_set(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        fake_metal_reset(NULL);
        fake_metal_mark();
        void *state = device_open();
        umo_memory memory = memory_make(state, MIB, UMO_PRIVATE);
        driver->free(state, &memory);
        assert_int_equal(fake_metal_live("MTLResidencySet"), 1);
        assert_int_equal(fake_metal_commands_run(), 0);
        device_close(state);
        assert_int_equal(fake_metal_commands_run(), 1);
        assert_int_equal(fake_metal_residency_leaked(), 0);
        assert_int_equal(fake_metal_messages_of(request), 0);
    }
}

static void a_device_that_takes_no_command_closes_all_the_same(void **unused)
{
    (void)unused;
    void *state = device_open();
    fake_metal_fail("commandBufferWithUnretainedReferences", 1);
    device_close(state);
    assert_string_equal(fake_metal_failed(), "commandBufferWithUnretainedReferences");
    state = device_open();
    fake_metal_fail("commit", 1);
    device_close(state);
    assert_string_equal(fake_metal_failed(), "commit");
}

/* ---- many threads ---- */

typedef struct churner {
    void *state;
    bool failed;
} churner;

static void *churn(void *opaque)
{
    churner *me = opaque;
    for (int i = 0; i < 100 && !me->failed; i++) {
        umo_memory memory;
        umo_fence fence;
        const umo_metal_host_step nothing = {.kind = UMO_METAL_STEP_NONE};
        me->failed = driver->alloc(me->state, 100000, UMO_PRIVATE, &memory, NULL) != UMO_OK ||
                     umo_metal_host_step_give(me->state, (uint32_t)i % UMO_METAL_QUEUES, &nothing,
                                              NULL, NULL, 0, &fence) != UMO_OK ||
                     driver->fence_wait(me->state, fence.queue, fence.value, UINT64_MAX) != UMO_OK;
        if (!me->failed) {
            driver->free(me->state, &memory);
        }
    }
    return NULL;
}

static void threads_change_the_set_while_it_beats(void **unused)
{
    (void)unused;
    void *state = device_open();
    pthread_t threads[4];
    churner churners[4];
    fake_metal_mark();
    for (size_t i = 0; i < 4; i++) {
        churners[i] = (churner){.state = state};
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &churners[i]), 0);
    }
    for (int i = 0; i < 200; i++) {
        keep_for(state, i % 2 == 0 ? 1 : UINT64_C(60000000000));
        beat(state);
        (void)sched_yield();
    }
    keep_for(state, UINT64_C(60000000000));
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(churners[i].failed);
    }
    umo_memory memory = memory_make(state, MIB, UMO_PRIVATE);
    fake_metal_mark();
    gpu_use(state);
    beat(state);
    assert_true(sent(request, 1));
    assert_int_equal(fake_metal_resident(), 1);
    driver->free(state, &memory);
    device_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_set_holds_what_lives_from_the_next_command_on),
        TEST(volatile_memory_is_not_in_the_set),
        TEST(memory_is_kept_wired_while_the_device_is_used),
        TEST(unused_memory_is_let_go_and_wired_again_at_the_next_use),
        TEST(close_ends_what_was_requested),
        TEST(the_time_to_keep_is_a_number_of_seconds),
        TEST(sets_are_switched_off_by_a_variable),
        TEST(a_paravirtual_device_has_no_set_unless_it_is_wished_for),
        TEST(a_system_without_sets_works),
        TEST(a_set_that_metal_refuses_is_done_without),
        TEST(a_device_that_never_worked_leaks_no_set),
        TEST(a_device_that_takes_no_command_closes_all_the_same),
        TEST(threads_change_the_set_while_it_beats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
