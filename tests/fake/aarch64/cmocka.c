/* As much of cmocka as the fake's tests use, for the architecture that Debian has none for. */
#include "cmocka.h"

jmp_buf cmocka_failed;

static int test_run(const struct CMUnitTest *test)
{
    void *state = test->initial_state;
    volatile int failed = test->setup_func != NULL && test->setup_func(&state) != 0;
    if (!failed) {
        if (setjmp(cmocka_failed) == 0) {
            test->test_func(&state);
        } else {
            failed = 1;
        }
    }
    if (test->teardown_func != NULL && test->teardown_func(&state) != 0) {
        failed = 1;
    }
    return failed;
}

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                            int (*setup)(void **state), int (*teardown)(void **state))
{
    (void)setup;
    (void)teardown;
    volatile int failed = 0;
    for (volatile size_t i = 0; i < count; i++) {
        if (test_run(&tests[i]) != 0) {
            print_error("failed: %s\n", tests[i].name);
            failed++;
        }
    }
    (void)printf("%s: %zu test(s), %d failed\n", name, count, failed);
    return failed != 0 || count == 0;
}
