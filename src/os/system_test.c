/*
 * What else the system is asked: its clock and waits on it, its mappings, its figures, libraries
 * and folders, and whether it is short of memory.
 */
#include "os/os.h"
#include "os/pages_test.h"
#include "os/thread.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static bool woken;

static void *wake(void *argument)
{
    (void)pthread_mutex_lock(&lock);
    woken = true;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
    return argument;
}

static void a_wait_ends_at_its_deadline_or_when_woken(void **state)
{
    (void)state;
    umo_os_condition_init(&changed);
    (void)pthread_mutex_lock(&lock);
    uint64_t start_ns = umo_os_now_ns();
    while (umo_os_condition_wait_until(&changed, &lock, start_ns + 20 * MS)) {
    }
    assert_true(umo_os_now_ns() >= start_ns + 20 * MS);
    /* One that has passed does not wait. */
    while (umo_os_condition_wait_until(&changed, &lock, start_ns)) {
    }
    while (umo_os_condition_wait_until(&changed, &lock, 0)) {
    }
    const uint64_t deadlines[] = {UINT64_MAX, UINT64_MAX - 1, umo_os_now_ns() + 60000 * MS};
    for (size_t i = 0; i < sizeof deadlines / sizeof deadlines[0]; i++) {
        pthread_t thread;
        woken = false;
        assert_int_equal(pthread_create(&thread, NULL, wake, NULL), 0);
        while (!woken) {
            assert_true(umo_os_condition_wait_until(&changed, &lock, deadlines[i]));
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    (void)pthread_mutex_unlock(&lock);
    umo_os_condition_finish(&changed);
}

typedef struct search {
    uintptr_t address;
    umo_mapping found;
    int visited;
    int enough; /* stop after so many */
    uintptr_t end;
    bool in_order;
} search;

static bool look(const umo_mapping *mapping, void *user)
{
    search *s = user;
    s->visited++;
    s->in_order = s->in_order && mapping->start >= s->end && mapping->end > mapping->start;
    s->end = mapping->end;
    if (s->address >= mapping->start && s->address < mapping->end) {
        s->found = *mapping;
    }
    return s->visited != s->enough;
}

static void every_mapping_is_visited_until_it_is_enough(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    int file = pages_test_file(4 * page);
    assert_true(file >= 0);
    char *pages = pages_test_map(2 * page, PROT_READ, MAP_SHARED, file, (off_t)(2 * page));
    assert_true(pages != MAP_FAILED);
    umo_mapping asked;
    assert_int_equal(umo_os_mapping_query(pages + page, &asked), UMO_OK);
    assert_true(asked.start == (uintptr_t)pages && asked.end == (uintptr_t)pages + 2 * page);
    assert_true(asked.shared && asked.readable && !asked.writable && asked.inode != 0);
    assert_int_equal(asked.offset_bytes, 2 * page);

    search s = {.address = (uintptr_t)pages, .in_order = true};
    assert_int_equal(umo_os_mapping_visit(look, &s), UMO_OK);
    assert_true(s.in_order);
    assert_true(s.visited > 4);
    assert_true(s.found.start == asked.start && s.found.end == asked.end);
    assert_true(s.found.shared && s.found.readable && !s.found.writable);
    assert_true(s.found.device == asked.device && s.found.inode == asked.inode);
    assert_int_equal(s.found.offset_bytes, asked.offset_bytes);

    s = (search){.enough = 3, .in_order = true};
    assert_int_equal(umo_os_mapping_visit(look, &s), UMO_OK);
    assert_int_equal(s.visited, 3);
    assert_int_equal(munmap(pages, 2 * page), 0);
    (void)close(file);
}

static void the_machine_says_its_figures(void **state)
{
    (void)state;
    assert_true(umo_os_memory_bytes() > (uint64_t)1 << 20);
    size_t line = umo_os_cache_line_bytes();
    assert_true(line >= 16 && line <= 1024 && (line & (line - 1)) == 0);
    char text[512];
    assert_true(umo_os_release(text, sizeof text));
    assert_true(strlen(text) > 2);
    char again[512];
    assert_true(umo_os_release(again, strlen(text) + 1));
    assert_string_equal(again, text);
    assert_false(umo_os_release(again, strlen(text)));
    assert_false(umo_os_release(again, 0));
}

static void the_first_library_that_loads_is_taken(void **state)
{
    (void)state;
    const char *const names[] = {"libumo-absent.so.9", "libm.so.6", "/usr/lib/libSystem.B.dylib",
                                 NULL};
    const char *const absent[] = {"libumo-absent.so.9", NULL};
    void *library = umo_os_library_open(names);
    assert_non_null(library);
    double (*root)(double);
    *(void **)&root = umo_os_library_symbol(library, "sqrt");
    assert_non_null((void *)(uintptr_t)root);
    assert_true(root(9.0) == 3.0);
    assert_null(umo_os_library_symbol(library, "umo_absent"));
    assert_null(umo_os_library_open(absent));
}

static void the_cache_folder_is_the_users(void **state)
{
    (void)state;
#ifdef __APPLE__
    const char below_home[] = "/home/somebody/Library/Caches/umo";
#else
    const char below_home[] = "/home/somebody/.cache/umo";
#endif
    char out[64];
    (void)setenv("HOME", "/home/somebody", 1);
    (void)setenv("XDG_CACHE_HOME", "/fast", 1);
    assert_true(umo_os_cache_dir(out, sizeof out));
    assert_string_equal(out, "/fast/umo");
    assert_false(umo_os_cache_dir(out, sizeof "/fast/umo" - 1));
    (void)setenv("XDG_CACHE_HOME", "relative", 1);
    assert_true(umo_os_cache_dir(out, sizeof out));
    assert_string_equal(out, below_home);
    (void)unsetenv("XDG_CACHE_HOME");
    assert_true(umo_os_cache_dir(out, sizeof out));
    assert_string_equal(out, below_home);
    (void)setenv("HOME", "nowhere", 1);
    assert_false(umo_os_cache_dir(out, sizeof out));
    (void)unsetenv("HOME");
    assert_false(umo_os_cache_dir(out, sizeof out));
}

static void notified(umo_os_pressure_level level, void *user)
{
    (void)level;
    (void)user;
}

/* That a message comes is not to be tested without being short of memory. */
static void pressure_is_watched_where_the_system_tells(void **state)
{
    (void)state;
    umo_os_pressure *pressure = NULL;
    umo_status status = umo_os_pressure_create(notified, NULL, &pressure);
#ifdef __APPLE__
    assert_int_equal(status, UMO_OK);
    assert_non_null(pressure);
    umo_os_pressure *second = NULL;
    assert_int_equal(umo_os_pressure_create(notified, NULL, &second), UMO_OK);
    umo_os_pressure_destroy(second);
#else
    assert_int_equal(status, UMO_E_UNSUPPORTED);
    assert_null(pressure);
#endif
    umo_os_pressure_destroy(pressure);
    umo_os_pressure_destroy(NULL);
}

static void mask_note(void *blocked)
{
    (void)pthread_sigmask(SIG_SETMASK, NULL, blocked);
}

static void a_thread_of_ours_hears_its_own_faults_and_nothing_else(void **state)
{
    (void)state;
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    static const int others[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGUSR1, SIGALRM, SIGPROF};
    sigset_t blocked;
    pthread_t thread;
    (void)sigemptyset(&blocked);
    assert_int_equal(umo_os_thread_create(&thread, "umo-test", mask_note, &blocked), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        assert_int_equal(sigismember(&blocked, faults[i]), 0);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(sigismember(&blocked, others[i]), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_ends_at_its_deadline_or_when_woken),
        cmocka_unit_test(every_mapping_is_visited_until_it_is_enough),
        cmocka_unit_test(the_machine_says_its_figures),
        cmocka_unit_test(the_first_library_that_loads_is_taken),
        cmocka_unit_test(the_cache_folder_is_the_users),
        cmocka_unit_test(pressure_is_watched_where_the_system_tells),
        cmocka_unit_test(a_thread_of_ours_hears_its_own_faults_and_nothing_else),
    };
    return cmocka_run_group_tests_name("system", tests, NULL, NULL);
}
