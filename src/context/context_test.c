/*
 * Contexts: one default for all of a process, devices opened once, configurations that disagree.
 */
#include "driver/wrapper_test.h"

#include <umo/context.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void a_context_owns_what_it_gives_out(void **state)
{
    (void)state;
    umo_context *context = NULL;
    assert_int_equal(umo_context_create(NULL, &context, NULL), UMO_OK);
    umo_device *first = NULL;
    umo_device *second = NULL;
    assert_int_equal(umo_context_device(context, "host", 0, &first, NULL), UMO_OK);
    assert_int_equal(umo_context_device(context, "host", 0, &second, NULL), UMO_OK);
    assert_ptr_equal(first, second);
    umo_device_release(second);
    assert_int_equal(umo_context_device(context, "host", 1, &second, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(umo_context_device(context, "nobody", 0, &second, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(
        umo_context_device(context, "a name that is longer than any", 0, &second, NULL),
        UMO_E_NOT_FOUND);
    assert_non_null(umo_context_scope(context));
    assert_non_null(umo_context_registry(context));
    assert_string_equal(umo_version(), "0.1.0");
    umo_context_destroy(context);
    /* A device outlives the context for who holds it. */
    assert_string_equal(umo_device_info_get(first)->driver, "host");
    umo_device_release(first);
    umo_context_destroy(NULL);
}

static void a_failed_opening_is_tried_again(void **state)
{
    (void)state;
    umo_device *device = wrapper_device(NULL, NULL); /* registers the driver */
    umo_device_release(device);
    umo_context *context = NULL;
    assert_int_equal(umo_context_create(NULL, &context, NULL), UMO_OK);
    assert_int_equal(umo_context_device(context, "wrapper", 7, &device, NULL), UMO_E_NOT_FOUND);
    for (uint32_t ordinal = 0; ordinal < 2; ordinal++) {
        assert_int_equal(umo_context_device(context, "wrapper", ordinal, &device, NULL), UMO_OK);
        umo_device_release(device);
    }
    umo_context_destroy(context);
}

static void the_budget_is_the_root_scopes_limit(void **state)
{
    (void)state;
    const umo_context_options options = {.budget_bytes = 10000};
    umo_context *context = NULL;
    umo_device *device = NULL;
    umo_buffer *buffer = NULL;
    umo_scope *model = NULL;
    assert_int_equal(umo_context_create(&options, &context, NULL), UMO_OK);
    assert_int_equal(umo_context_device(context, "host", 0, &device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(umo_context_scope(context), "model", 0, &model, NULL),
                     UMO_OK);
    assert_int_equal(umo_buffer_alloc(device, model, 10001, UMO_UNIFIED, &buffer, NULL),
                     UMO_E_LIMIT);
    assert_int_equal(umo_buffer_alloc(device, model, 10000, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    umo_buffer_release(buffer);
    umo_scope_destroy(model);
    umo_device_release(device);
    umo_context_destroy(context);
}

static void the_default_context_is_one(void **state)
{
    (void)state;
    umo_context *first = NULL;
    umo_context *second = NULL;
    assert_int_equal(umo_context_default_acquire(NULL, &first, NULL), UMO_OK);
    assert_int_equal(umo_context_default_acquire(NULL, &second, NULL), UMO_OK);
    assert_ptr_equal(first, second);
    /* Another context is nobody's default, and NULL is nothing. */
    umo_context *other = NULL;
    assert_int_equal(umo_context_create(NULL, &other, NULL), UMO_OK);
    umo_context_default_release(other);
    umo_context_default_release(NULL);
    umo_context_destroy(other);
    umo_context_default_release(first);
    assert_non_null(umo_context_scope(second));
    umo_context_default_release(second);
    umo_context_default_release(second); /* one too many does no harm */
    /* The last one destroyed it: the next configuration may be another one. */
    const umo_context_options options = {.budget_bytes = 5};
    assert_int_equal(umo_context_default_acquire(&options, &first, NULL), UMO_OK);
    umo_context_default_release(first);
}

/* Every field that differs is an error that names it; what is zero asks for nothing. */
static void a_second_configuration_must_agree(void **state)
{
    (void)state;
    const umo_context_options made = {
        .budget_bytes = 1000,
        .registry = {.wraps_max = 10, .views_max = 20, .views_bytes_max = 1 << 20},
        .driver = {.delay_ns = 30},
    };
    const struct {
        umo_context_options options;
        const char *field;
    } tries[] = {
        {made, NULL},
        {{0}, NULL},
        {{.budget_bytes = 1000}, NULL},
        {{.registry = {.views_max = 20}}, NULL},
        {{.budget_bytes = 1001}, "budget_bytes"},
        {{.registry = {.wraps_max = 11}}, "wraps_max"},
        {{.registry = {.views_max = 21}}, "views_max"},
        {{.registry = {.views_bytes_max = 5}}, "views_bytes_max"},
        {{.driver = {.delay_ns = 31}}, "delay_ns"},
        {{.driver = {.test_mode = true}}, "test_mode"},
    };
    umo_context *context = NULL;
    assert_int_equal(umo_context_default_acquire(&made, &context, NULL), UMO_OK);
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        umo_context *joined = NULL;
        umo_error error = {0};
        umo_status status = umo_context_default_acquire(&tries[i].options, &joined, &error);
        if (tries[i].field == NULL) {
            assert_int_equal(status, UMO_OK);
            assert_ptr_equal(joined, context);
            umo_context_default_release(joined);
        } else {
            assert_int_equal(status, UMO_E_INVAL);
            assert_null(joined);
            assert_non_null(strstr(error.text, tries[i].field));
        }
    }
    umo_context_default_release(context);
    /* Defaults that were spelled out agree with defaults that were not. */
    assert_int_equal(umo_context_default_acquire(NULL, &context, NULL), UMO_OK);
    const umo_context_options spelled = {.registry = {.wraps_max = 16384}};
    umo_context *joined = NULL;
    assert_int_equal(umo_context_default_acquire(&spelled, &joined, NULL), UMO_OK);
    umo_context_default_release(joined);
    umo_context_default_release(context);
}

enum {
    THREADS = 6,
    ROUNDS = 100
};

static void *join_and_leave(void *argument)
{
    (void)argument;
    for (int i = 0; i < ROUNDS; i++) {
        umo_context *context = NULL;
        umo_device *device = NULL;
        umo_buffer *buffer = NULL;
        if (umo_context_default_acquire(NULL, &context, NULL) != UMO_OK ||
            umo_context_device(context, "host", 0, &device, NULL) != UMO_OK ||
            umo_buffer_alloc(device, umo_context_scope(context), 100, UMO_MANAGED, &buffer, NULL) !=
                UMO_OK) {
            return device;
        }
        umo_buffer_release(buffer);
        umo_device_release(device);
        umo_context_default_release(context);
    }
    return NULL;
}

static void threads_come_and_go(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, join_and_leave, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed = &threads;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_context_owns_what_it_gives_out),
        cmocka_unit_test(a_failed_opening_is_tried_again),
        cmocka_unit_test(the_budget_is_the_root_scopes_limit),
        cmocka_unit_test(the_default_context_is_one),
        cmocka_unit_test(a_second_configuration_must_agree),
        cmocka_unit_test(threads_come_and_go),
    };
    return cmocka_run_group_tests_name("context", tests, NULL, NULL);
}
