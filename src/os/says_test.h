/*
 * An answer as it should be, status and words, for tests of what may be refused in many ways.
 */
#ifndef UMO_OS_SAYS_TEST_H
#define UMO_OS_SAYS_TEST_H

#include <umo/status.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Words: a part of the error's text, NULL for any. */
static inline void says(umo_status status, umo_status wanted, const umo_error *error,
                        const char *words)
{
    if (status != wanted || (words != NULL && strstr(error->text, words) == NULL)) {
        fail_msg("%s '%s', wanted %s '%s'", umo_status_name(status), error->text,
                 umo_status_name(wanted), words != NULL ? words : "");
    }
    if (wanted != UMO_OK) {
        assert_int_equal(error->status, wanted);
    }
}

#endif
