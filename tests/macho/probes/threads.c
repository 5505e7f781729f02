/* Threads and what they wait for. */
#include "probe.h"

#include <errno.h>
#include <os/lock.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4
#define TURNS 2000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_rwlock_t shared = PTHREAD_RWLOCK_INITIALIZER;
static os_unfair_lock unfair = OS_UNFAIR_LOCK_INIT;
static pthread_key_t key;
static int once_calls;
static long locked_count, unfair_count, written;
static int arrived;
static _Atomic int destroyed;
static _Atomic long atomic_count;

static void run_once(void)
{
    once_calls++;
}

static void destroy_value(void *value)
{
    destroyed += *(int *)value;
}

static void *work(void *user)
{
    static int values[THREADS] = {1, 10, 100, 1000};
    size_t mine = (size_t)(uintptr_t)user;
    CHECK(pthread_once(&once, run_once) == 0);
    CHECK(pthread_getspecific(key) == NULL);
    CHECK(pthread_setspecific(key, &values[mine]) == 0);
    for (int i = 0; i < TURNS; i++) {
        (void)pthread_mutex_lock(&lock);
        locked_count++;
        (void)pthread_mutex_unlock(&lock);
        os_unfair_lock_lock(&unfair);
        unfair_count++;
        os_unfair_lock_unlock(&unfair);
        atomic_fetch_add(&atomic_count, 1);
        if (i % 100 == 0) {
            (void)pthread_rwlock_wrlock(&shared);
            written++;
        } else {
            (void)pthread_rwlock_rdlock(&shared);
        }
        (void)pthread_rwlock_unlock(&shared);
    }
    (void)pthread_mutex_lock(&lock);
    arrived++;
    (void)pthread_cond_broadcast(&changed);
    while (arrived < THREADS + 1) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    (void)pthread_mutex_unlock(&lock);
    CHECK(pthread_getspecific(key) == &values[mine]);
    return (void *)(uintptr_t)(mine * 3 + 1);
}

static void together(void)
{
    pthread_t threads[THREADS];
    CHECK(pthread_key_create(&key, destroy_value) == 0);
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) == 0);
    }
    (void)pthread_mutex_lock(&lock);
    while (arrived < THREADS) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    arrived++;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < THREADS; i++) {
        void *out = NULL;
        CHECK(pthread_join(threads[i], &out) == 0);
        CHECK((uintptr_t)out == i * 3 + 1);
    }
    CHECK(once_calls == 1);
    CHECK(locked_count == THREADS * TURNS && unfair_count == THREADS * TURNS);
    CHECK(atomic_count == THREADS * TURNS && written == THREADS * TURNS / 100);
    CHECK(destroyed == 1111);
    CHECK(pthread_key_delete(key) == 0);
    CHECK(os_unfair_lock_trylock(&unfair));
    CHECK(!os_unfair_lock_trylock(&unfair));
    os_unfair_lock_unlock(&unfair);
}

static void *wait_for_unfair(void *user)
{
    os_unfair_lock_lock(&unfair);
    unfair_count = -1;
    os_unfair_lock_unlock(&unfair);
    return user;
}

/* Long enough that the other one sleeps: it must be woken. */
static void sleeper(void)
{
    pthread_t thread;
    os_unfair_lock_lock(&unfair);
    CHECK(pthread_create(&thread, NULL, wait_for_unfair, NULL) == 0);
    (void)usleep(30000);
    CHECK(unfair_count != -1);
    os_unfair_lock_unlock(&unfair);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(unfair_count == -1);
}

static uint64_t now_ns(void)
{
    return clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
}

static void timed_waits(void)
{
    pthread_cond_t own;
    pthread_mutex_t own_lock;
    struct timespec length = {.tv_sec = 0, .tv_nsec = 20000000};
    struct timespec until;
    CHECK(pthread_cond_init(&own, NULL) == 0 && pthread_mutex_init(&own_lock, NULL) == 0);
    (void)pthread_mutex_lock(&own_lock);
    uint64_t start = now_ns();
    CHECK(pthread_cond_timedwait_relative_np(&own, &own_lock, &length) == ETIMEDOUT);
    CHECK(now_ns() - start >= 20000000);
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    start = now_ns();
    until.tv_nsec += 20000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    CHECK(pthread_cond_timedwait(&own, &own_lock, &until) == ETIMEDOUT);
    CHECK(now_ns() - start >= 19000000);
    CHECK(pthread_cond_timedwait(&own, &own_lock, &until) == ETIMEDOUT);
    (void)pthread_mutex_unlock(&own_lock);
    CHECK(pthread_cond_destroy(&own) == 0 && pthread_mutex_destroy(&own_lock) == 0);
    CHECK(pthread_cond_wait(&own, &own_lock) == EINVAL);
}

static void recursive(void)
{
    pthread_mutexattr_t kind;
    pthread_mutex_t own;
    CHECK(pthread_mutexattr_init(&kind) == 0);
    CHECK(pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE) == 0);
    CHECK(pthread_mutex_init(&own, &kind) == 0);
    CHECK(pthread_mutex_lock(&own) == 0 && pthread_mutex_lock(&own) == 0);
    CHECK(pthread_mutex_unlock(&own) == 0 && pthread_mutex_unlock(&own) == 0);
    CHECK(pthread_mutex_destroy(&own) == 0);
}

static int prepared, in_parent, in_child;

static void prepare_count(void)
{
    prepared++;
}

static void parent_count(void)
{
    in_parent++;
}

static void child_count(void)
{
    in_child++;
}

static void forks(void)
{
    int status = 0;
    CHECK(pthread_atfork(prepare_count, parent_count, child_count) == 0);
    pid_t child = fork();
    if (child == 0) {
        _exit(prepared == 1 && in_parent == 0 && in_child == 1 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(prepared == 1 && in_parent == 1 && in_child == 0);
}

int main(void)
{
    together();
    sleeper();
    timed_waits();
    recursive();
    forks();
    CHECK(pthread_equal(pthread_self(), pthread_self()));
    return probe_verdict();
}
