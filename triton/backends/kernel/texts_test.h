/*
 * What tests of descriptions share: a right text, in which one place after the other is made wrong.
 */
#ifndef UMO_KERNEL_TEXTS_TEST_H
#define UMO_KERNEL_TEXTS_TEST_H

#include "description.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a right text has at a place, what is there instead, and what is said then. */
typedef struct mistake {
    const char *from;
    const char *to;
    const char *said;
} mistake;

/* The right text with the first `from` replaced by `to`; the caller frees it. */
static inline char *text_replaced(const char *right, const char *from, const char *to)
{
    const char *at = strstr(right, from);
    assert_non_null(at);
    char *out = malloc(strlen(right) + strlen(to) + 1);
    assert_non_null(out);
    (void)sprintf(out, "%.*s%s%s", (int)(at - right), right, to, at + strlen(from));
    return out;
}

/* Each mistake is refused in its words, and nothing is written. */
static inline void mistakes_expect(const char *right, const umo_description_tensors *tensors,
                                   const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *text = text_replaced(right, mistakes[i].from, mistakes[i].to);
        umo_description d;
        umo_error error = {0};
        memset(&d, 0x5c, sizeof d);
        const umo_description untouched = d;
        assert_int_equal(umo_description_init(&d, text, tensors, &error), UMO_E_INVAL);
        if (strstr(error.text, mistakes[i].said) == NULL ||
            strncmp(error.text, "parameter kernel: ", 18) != 0) {
            fail_msg("%s\n-> %s\ngave: %s", mistakes[i].from, mistakes[i].to, error.text);
        }
        assert_memory_equal(&d, &untouched, sizeof d);
        free(text);
    }
}

/* A text that was mutated is taken, or refused in words. True when it was taken. */
static inline bool text_ends_well(const char *text, const umo_description_tensors *tensors)
{
    umo_description d;
    umo_error error = {0};
    const umo_status status = umo_description_init(&d, text, tensors, &error);
    if (status == UMO_OK) {
        umo_description_finish(&d);
        return true;
    }
    assert_int_equal(status, UMO_E_INVAL);
    assert_true(strncmp(error.text, "parameter kernel: ", 18) == 0);
    return false;
}

#endif
