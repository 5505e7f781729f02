/*
 * The keeper: ticks when due, sleeps otherwise, is gone with the last task, and a task that is
 * removed is never ticked again.
 */
#include "mem/keeper.h"

#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct counting {
    umo_keeper_task task;
    _Atomic int ticks;
    _Atomic bool inside;
    uint64_t again_ns; /* 0: once */
    unsigned slow_us;
} counting;

static uint64_t count_tick(umo_keeper_task *task, uint64_t now_ns)
{
    counting *c = UMO_LIST_ENTRY(task, counting, task);
    c->inside = true;
    c->ticks++;
    if (c->slow_us > 0) {
        (void)usleep(c->slow_us);
    }
    c->inside = false;
    return c->again_ns == 0 ? UINT64_MAX : now_ns + c->again_ns;
}

static void wait_for(const _Atomic int *ticks, int wanted)
{
    for (int i = 0; i < 1000 && *ticks < wanted; i++) {
        (void)usleep(2000);
    }
    assert_true(*ticks >= wanted);
}

static void a_task_is_ticked_when_it_is_due_and_not_before(void **state)
{
    (void)state;
    counting once = {.task = {.tick = count_tick}};
    counting often = {.task = {.tick = count_tick}, .again_ns = 1000000};
    umo_keeper_add(&once.task);
    umo_keeper_add(&often.task);
    (void)usleep(5000);
    assert_int_equal(once.ticks + often.ticks, 0);
    umo_keeper_wake(&often.task, umo_os_now_ns());
    wait_for(&often.ticks, 5);
    assert_int_equal(once.ticks, 0);
    umo_keeper_wake(&once.task, umo_os_now_ns() + 60000000000u);
    umo_keeper_wake(&once.task, umo_os_now_ns()); /* the sooner one counts */
    wait_for(&once.ticks, 1);
    int seen = often.ticks;
    wait_for(&often.ticks, seen + 5);
    assert_int_equal(once.ticks, 1);
    umo_keeper_wake(&once.task, umo_os_now_ns());
    wait_for(&once.ticks, 2);
    umo_keeper_remove(&often.task);
    umo_keeper_remove(&once.task);
}

/* Many times, so that a removal meets a tick; what is freed behind it is seen by the sanitizers.
 * There is another task, or the thread would be waited for. */
static void a_removed_task_is_never_ticked_again(void **state)
{
    (void)state;
    counting other = {.task = {.tick = count_tick}};
    umo_keeper_add(&other.task);
    for (int i = 0; i < 50; i++) {
        counting *c = calloc(1, sizeof *c);
        assert_non_null(c);
        *c = (counting){.task = {.tick = count_tick}, .again_ns = 1000, .slow_us = 200};
        umo_keeper_add(&c->task);
        umo_keeper_wake(&c->task, umo_os_now_ns());
        wait_for(&c->ticks, 1);
        umo_keeper_remove(&c->task);
        assert_false(c->inside);
        free(c);
    }
    umo_keeper_remove(&other.task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_is_ticked_when_it_is_due_and_not_before),
        cmocka_unit_test(a_removed_task_is_never_ticked_again),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
