/*
 * What a thread of our own is, whoever makes it.
 */
#include "os/thread.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#include <stdlib.h>
#endif

#include <cmocka.h>

typedef struct seen {
    char name[16];
    sigset_t blocked;
#ifdef __linux__
    cpu_set_t processors;
#endif
} seen;

static void look(void *argument)
{
    seen *s = argument;
    (void)pthread_getname_np(pthread_self(), s->name, sizeof s->name);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
#ifdef __linux__
    (void)sched_getaffinity(0, sizeof s->processors, &s->processors);
#endif
}

static void look_from_another(seen *out)
{
    pthread_t thread;
    assert_int_equal(umo_os_thread_create(&thread, "umo-test", look, out), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void it_has_its_name_and_hears_faults_alone(void **state)
{
    (void)state;
    seen s;
    look_from_another(&s);
    assert_string_equal(s.name, "umo-test");
    assert_true(sigismember(&s.blocked, SIGTERM) == 1 && sigismember(&s.blocked, SIGUSR1) == 1);
    assert_true(sigismember(&s.blocked, SIGSEGV) == 0 && sigismember(&s.blocked, SIGBUS) == 0);
    sigset_t mine;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mine), 0);
    assert_true(sigismember(&mine, SIGTERM) == 0); /* who made it hears what it heard */
}

#ifdef __GLIBC__
static void nothing(void *argument)
{
    (void)argument;
}

/* Arenas that malloc has. */
static size_t arenas(void)
{
    char *text = NULL;
    size_t bytes = 0;
    size_t count = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    assert_int_equal(malloc_info(0, out), 0);
    assert_int_equal(fclose(out), 0);
    for (const char *at = text; (at = strstr(at, "<heap nr=")) != NULL; at++) {
        count++;
    }
    free(text);
    return count;
}

static void it_takes_no_arena_to_begin(void **state)
{
    (void)state;
    const size_t before = arenas();
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        assert_int_equal(umo_os_thread_create(&thread, "umo-test", nothing, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_int_equal(arenas(), before);
}
#endif

#ifdef __linux__
static size_t lowest(const cpu_set_t *set)
{
    size_t processor = 0;
    while (!CPU_ISSET(processor, set)) {
        processor++;
    }
    return processor;
}

/* Binds itself to one processor, as a server's instance is, and then makes a thread. */
static void *bound_main(void *argument)
{
    seen *s = argument;
    cpu_set_t one;
    size_t processor = lowest(&s->processors);
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    look_from_another(s);
    cpu_set_t still;
    assert_int_equal(sched_getaffinity(0, sizeof still, &still), 0);
    assert_true(CPU_EQUAL(&still, &one));
    return NULL;
}

static void it_runs_where_the_process_may_whoever_made_it(void **state)
{
    (void)state;
    seen s;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(getpid(), sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2) {
        skip();
    }
    s.processors = all;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, bound_main, &s), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(CPU_EQUAL(&s.processors, &all));
}

/* A process that was started on one processor stays there. */
static void it_does_not_leave_what_the_process_was_given(void **state)
{
    (void)state;
    seen s;
    cpu_set_t all;
    cpu_set_t one;
    assert_int_equal(sched_getaffinity(getpid(), sizeof all, &all), 0);
    CPU_ZERO(&one);
    CPU_SET(lowest(&all), &one);
    assert_int_equal(sched_setaffinity(getpid(), sizeof one, &one), 0);
    look_from_another(&s);
    assert_int_equal(sched_setaffinity(getpid(), sizeof all, &all), 0);
    assert_true(CPU_EQUAL(&s.processors, &one));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef __GLIBC__
        cmocka_unit_test(it_takes_no_arena_to_begin), /* the first one that makes threads */
#endif
        cmocka_unit_test(it_has_its_name_and_hears_faults_alone),
#ifdef __linux__
        cmocka_unit_test(it_runs_where_the_process_may_whoever_made_it),
        cmocka_unit_test(it_does_not_leave_what_the_process_was_given),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
