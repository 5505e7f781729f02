/*
 * See keeper.h. A tick may take long (it gives memory back), so it runs without the lock, and the
 * one that runs is remembered: whoever removes it waits.
 */
#include "mem/keeper.h"

#include "os/os.h"
#include "os/thread.h"

#include <assert.h>

static pthread_mutex_t keeper_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t keeper_wakes;
static pthread_cond_t keeper_ticked = PTHREAD_COND_INITIALIZER;
static bool prepared; /* keeper_wakes */
static umo_list_link tasks = {&tasks, &tasks};
static size_t task_count;
static const umo_keeper_task *running;
static pthread_t thread;
static bool started;
static uintptr_t shift; /* each thread's number: it ends when another one's turn has come */

/* The task that is due first; NULL without any. */
static umo_keeper_task *task_first(void)
{
    umo_keeper_task *first = NULL;
    for (umo_list_link *link = tasks.next; link != &tasks; link = link->next) {
        umo_keeper_task *task = UMO_LIST_ENTRY(link, umo_keeper_task, link);
        if (first == NULL || task->due_ns < first->due_ns) {
            first = task;
        }
    }
    return first;
}

static void keeper_main(void *mine)
{
    (void)pthread_mutex_lock(&keeper_lock);
    while (shift == (uintptr_t)mine) {
        umo_keeper_task *task = task_first();
        uint64_t now = umo_os_now_ns();
        uint64_t due = task != NULL ? task->due_ns : UINT64_MAX;
        if (due > now) {
            (void)umo_os_condition_wait_until(&keeper_wakes, &keeper_lock, due);
            continue;
        }
        assert(task != NULL); /* or it would not be due */
        task->due_ns = UINT64_MAX;
        running = task;
        (void)pthread_mutex_unlock(&keeper_lock);
        uint64_t next = task->tick(task, now);
        (void)pthread_mutex_lock(&keeper_lock);
        running = NULL;
        if (next < task->due_ns) {
            task->due_ns = next; /* a wake meanwhile may want it sooner */
        }
        (void)pthread_cond_broadcast(&keeper_ticked);
    }
    (void)pthread_mutex_unlock(&keeper_lock);
}

static void fork_prepare(void)
{
    (void)pthread_mutex_lock(&keeper_lock);
}

static void fork_parent(void)
{
    (void)pthread_mutex_unlock(&keeper_lock);
}

/* The thread is gone; the next wake makes another one. */
static void fork_child(void)
{
    if (prepared) {
        umo_os_condition_init(&keeper_wakes);
    }
    started = false;
    shift++;
    running = NULL;
    for (umo_list_link *link = tasks.next; link != &tasks; link = link->next) {
        UMO_LIST_ENTRY(link, umo_keeper_task, link)->due_ns = UINT64_MAX;
    }
    (void)pthread_mutex_unlock(&keeper_lock);
}

static void fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void umo_keeper_fork_register(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, fork_register);
}

void umo_keeper_add(umo_keeper_task *task)
{
    umo_keeper_fork_register();
    task->due_ns = UINT64_MAX;
    (void)pthread_mutex_lock(&keeper_lock);
    if (!prepared) {
        umo_os_condition_init(&keeper_wakes);
        prepared = true;
    }
    task_count++;
    umo_list_push(&tasks, &task->link);
    (void)pthread_mutex_unlock(&keeper_lock);
}

void umo_keeper_remove(umo_keeper_task *task)
{
    (void)pthread_mutex_lock(&keeper_lock);
    /* First: one that is always due would be ticked again before this thread wakes. */
    umo_list_remove(&task->link);
    while (running == task) {
        (void)pthread_cond_wait(&keeper_ticked, &keeper_lock);
    }
    task_count--;
    bool last = task_count == 0 && started;
    pthread_t ending = thread;
    if (last) {
        started = false;
        shift++;
        (void)pthread_cond_broadcast(&keeper_wakes);
    }
    (void)pthread_mutex_unlock(&keeper_lock);
    if (last) {
        (void)pthread_join(ending, NULL);
    }
}

void umo_keeper_wake(umo_keeper_task *task, uint64_t due_ns)
{
    (void)pthread_mutex_lock(&keeper_lock);
    if (due_ns < task->due_ns) {
        task->due_ns = due_ns;
        if (!started) {
            started = umo_os_thread_create(&thread, "umo-keeper", keeper_main, (void *)shift) == 0;
        } else {
            (void)pthread_cond_broadcast(&keeper_wakes);
        }
    }
    if (!started) {
        task->due_ns = UINT64_MAX;
    }
    (void)pthread_mutex_unlock(&keeper_lock);
}
