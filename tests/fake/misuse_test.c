/* Every rule of the fake is broken in at least one way, and is what the fake then counts. */
#include "misuse.h"

#include <stdlib.h>

static const misuse *const tables[] = {misuse_of_the_runtime, misuse_of_resources,
                                       misuse_of_commands, misuse_of_encoders};

#define TABLES (sizeof tables / sizeof tables[0])
#define ROWS_MAX 256

static const misuse *row;

static int misuse_begin(void **state)
{
    row = *state;
    return world_begin(state);
}

static void misuse_is_caught(void **state)
{
    row->run(*state);
    (void)fake_metal_idle();
    if (fake_metal_rule_violations(row->rule) == 0 ||
        fake_metal_rule_violations(row->rule) != fake_metal_violations()) {
        fail_msg("expected %s alone; %u of %u violations are, the last: %s", row->rule,
                 fake_metal_rule_violations(row->rule), fake_metal_violations(),
                 fake_metal_violation_text());
    }
    for (const char *const *rule = fake_metal_rules(); *rule != NULL; rule++) {
        if (strcmp(*rule, row->rule) != 0) {
            assert_int_equal(fake_metal_rule_violations(*rule), 0);
        }
    }
    assert_int_equal(strncmp(fake_metal_violation_text(), row->rule, strlen(row->rule)), 0);
    world_forgive();
}

static bool is_covered(const char *rule)
{
    for (size_t t = 0; t < TABLES; t++) {
        for (const misuse *at = tables[t]; at->rule != NULL; at++) {
            if (strcmp(at->rule, rule) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void every_rule_has_a_misuse(void **state)
{
    (void)state;
    size_t count = 0;
    for (const char *const *rule = fake_metal_rules(); *rule != NULL; rule++, count++) {
        if (!is_covered(*rule)) {
            fail_msg("nothing here breaks the rule %s", *rule);
        }
    }
    assert_true(count > 0);
}

int main(void)
{
    struct CMUnitTest tests[ROWS_MAX] = {cmocka_unit_test(every_rule_has_a_misuse)};
    size_t count = 1;
    for (size_t t = 0; t < TABLES; t++) {
        for (const misuse *at = tables[t]; at->rule != NULL; at++) {
            union {
                const misuse *from;
                void *to;
            } the = {.from = at};
            if (count == ROWS_MAX) {
                abort();
            }
            tests[count++] = (struct CMUnitTest){.name = at->fact,
                                                 .test_func = misuse_is_caught,
                                                 .setup_func = misuse_begin,
                                                 .teardown_func = world_end,
                                                 .initial_state = the.to};
        }
    }
    return _cmocka_run_group_tests("misuse", tests, count, NULL, NULL);
}
