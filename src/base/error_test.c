/*
 * The error value, the names of results and reasons, and size arithmetic at its limits.
 */
#include "base/size.h"

#include <umo/reason.h>
#include <umo/status.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void an_error_is_one_line_and_never_too_long(void **state)
{
    (void)state;
    struct {
        umo_error error;
        char guard[16];
    } boxed;
    memset(&boxed, 0x55, sizeof boxed);
    char text[1000];
    memset(text, '%', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(umo_error_set(&boxed.error, UMO_E_DEVICE, -5, "a\nb\r\n%s", text),
                     UMO_E_DEVICE);
    assert_int_equal(strlen(boxed.error.text), UMO_ERROR_TEXT_BYTES - 1);
    assert_null(strchr(boxed.error.text, '\n'));
    assert_null(strchr(boxed.error.text, '\r'));
    assert_int_equal(boxed.error.status, UMO_E_DEVICE);
    assert_int_equal(boxed.error.native, -5);
    assert_int_equal(boxed.guard[0], 0x55);
    assert_int_equal(umo_error_set(NULL, UMO_E_BUSY, 0, "nobody listens"), UMO_E_BUSY);
}

static void every_status_has_words(void **state)
{
    (void)state;
    for (int i = 0; i < UMO_STATUS_COUNT; i++) {
        assert_string_not_equal(umo_status_name((umo_status)i), "UNKNOWN");
        assert_true(strlen(umo_status_cause((umo_status)i)) > 0);
        assert_true(strlen(umo_status_remedy((umo_status)i)) > 0);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(umo_status_name((umo_status)i), umo_status_name((umo_status)j));
        }
    }
    assert_string_equal(umo_status_name((umo_status)UMO_STATUS_COUNT), "UNKNOWN");
    assert_string_equal(umo_status_name((umo_status)-1), "UNKNOWN");
    assert_string_equal(umo_status_cause((umo_status)1000), "");
    assert_string_equal(umo_status_remedy((umo_status)1000), "");
}

/* The rows stand in the enumeration's order. */
static void a_status_has_its_own_words(void **state)
{
    (void)state;
    assert_string_equal(umo_status_name(UMO_OK), "OK");
    assert_string_equal(umo_status_name(UMO_E_INVAL), "INVAL");
    assert_string_equal(umo_status_name(UMO_E_NOMEM), "NOMEM");
    assert_string_equal(umo_status_name(UMO_E_LIMIT), "LIMIT");
    assert_string_equal(umo_status_name(UMO_E_UNSUPPORTED), "UNSUPPORTED");
    assert_string_equal(umo_status_name(UMO_E_NOT_FOUND), "NOT_FOUND");
    assert_string_equal(umo_status_name(UMO_E_BUSY), "BUSY");
    assert_string_equal(umo_status_name(UMO_E_DEVICE), "DEVICE");
    assert_string_equal(umo_status_name(UMO_E_SYSTEM), "SYSTEM");
    assert_string_equal(umo_status_name(UMO_E_REFUSED), "REFUSED");
    assert_string_equal(umo_status_name(UMO_E_TIMEOUT), "TIMEOUT");
}

static void every_reason_has_words(void **state)
{
    (void)state;
    for (int i = 0; i < UMO_REASON_COUNT; i++) {
        assert_true(strlen(umo_reason_label((umo_reason)i)) > 0);
        assert_true(strlen(umo_reason_cause((umo_reason)i)) > 0);
        assert_true(strlen(umo_reason_remedy((umo_reason)i)) > 0);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(umo_reason_label((umo_reason)i),
                                    umo_reason_label((umo_reason)j));
        }
    }
    assert_string_equal(umo_reason_label(UMO_REASON_COUNT), "unknown");
    assert_string_equal(umo_reason_label((umo_reason)-1), "unknown");
    assert_string_equal(umo_reason_cause((umo_reason)1000), "");
}

static void rounding_stops_at_the_end(void **state)
{
    (void)state;
    size_t out = 7;
    assert_true(umo_round_up(0, 4096, &out));
    assert_int_equal(out, 0);
    assert_true(umo_round_up(1, 4096, &out));
    assert_int_equal(out, 4096);
    assert_true(umo_round_up(SIZE_MAX - 4095, 4096, &out));
    assert_true(out == SIZE_MAX - 4095);
    out = 7;
    assert_false(umo_round_up(SIZE_MAX - 4094, 4096, &out));
    assert_int_equal(out, 7);
    assert_true(umo_round_up(SIZE_MAX, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_true(umo_round_down(8191, 4096) == 4096);
}

static void a_range_fits_without_overflow(void **state)
{
    (void)state;
    assert_true(umo_range_fits(0, 10, 10));
    assert_true(umo_range_fits(10, 0, 10));
    assert_false(umo_range_fits(11, 0, 10));
    assert_false(umo_range_fits(1, 10, 10));
    assert_false(umo_range_fits(SIZE_MAX, 2, 10));
    assert_false(umo_range_fits(5, SIZE_MAX, 10));
    assert_true(umo_range_fits(1, SIZE_MAX - 1, SIZE_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_is_one_line_and_never_too_long),
        cmocka_unit_test(every_status_has_words),
        cmocka_unit_test(a_status_has_its_own_words),
        cmocka_unit_test(every_reason_has_words),
        cmocka_unit_test(rounding_stops_at_the_end),
        cmocka_unit_test(a_range_fits_without_overflow),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
