/* The part of cmocka that the fake's tests use: Debian has the library for the machine's own
 * architecture only. */
#ifndef FAKE_CMOCKA_H
#define FAKE_CMOCKA_H

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test_func)(void **state);
    int (*setup_func)(void **state);
    int (*teardown_func)(void **state);
    void *initial_state;
};

extern jmp_buf cmocka_failed;

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                            int (*setup)(void **state), int (*teardown)(void **state));

#define cmocka_unit_test_setup_teardown(function, setup, teardown)                                 \
    {                                                                                              \
#function, function, setup, teardown, NULL                                                 \
    }
#define cmocka_unit_test(function) cmocka_unit_test_setup_teardown(function, NULL, NULL)
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    _cmocka_run_group_tests(#tests, tests, sizeof(tests) / sizeof(tests)[0], setup, teardown)

#define print_error(...) ((void)fprintf(stderr, __VA_ARGS__))
#define fail_msg(...)                                                                              \
    (print_error("%s:%d: ", __FILE__, __LINE__), print_error(__VA_ARGS__), print_error("\n"),      \
     longjmp(cmocka_failed, 1))
#define assert_true(what) ((what) ? (void)0 : fail_msg("%s", #what))
#define assert_false(what) assert_true(!(what))
#define assert_null(what) assert_true((what) == NULL)
#define assert_non_null(what) assert_true((what) != NULL)
#define assert_int_equal(one, two)                                                                 \
    assert_true((unsigned long long)(one) == (unsigned long long)(two))
#define assert_int_not_equal(one, two)                                                             \
    assert_true((unsigned long long)(one) != (unsigned long long)(two))
#define assert_ptr_equal(one, two) assert_true((const void *)(one) == (const void *)(two))
#define assert_ptr_not_equal(one, two) assert_true((const void *)(one) != (const void *)(two))
#define assert_string_equal(one, two) assert_true(strcmp(one, two) == 0)
#define assert_string_not_equal(one, two) assert_true(strcmp(one, two) != 0)
#define assert_memory_equal(one, two, bytes) assert_true(memcmp(one, two, bytes) == 0)
#define assert_in_range(what, least, most) assert_true((what) >= (least) && (what) <= (most))

#endif
