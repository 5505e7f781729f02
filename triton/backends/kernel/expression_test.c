/*
 * Formulas: values against arithmetic done here, every mistake named with its character, and a
 * sweep of mutated texts that must end in a value or in an error, never in anything else.
 */
#include "expression.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const umo_expression_name names[] = {
    {"IMAGE", 3}, {"batch", 1}, {"min", 2}, {"a-b.c/d", 1}, {"SCALAR", 0}};
#define NAME_COUNT (sizeof names / sizeof names[0])

static const umo_shape shapes[NAME_COUNT] = {
    {3, {480, 640, 3}}, {1, {77}}, {2, {5, 6}}, {1, {11}}, {0, {0}}};

static umo_status parse(const char *text, umo_expression *out, umo_error *error)
{
    static const umo_expression_number numbers[] = {{"K", 5}, {"k2", 3}};
    const umo_expression_names known = {names, NAME_COUNT, numbers, 2};
    return umo_expression_parse(text, &known, out, error);
}

static void formulas_have_their_value(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"0", 0},
        {"9223372036854775807", INT64_MAX},
        {" 7 ", 7},
        {"IMAGE[0]", 480},
        {"IMAGE [ 2 ]", 3},
        {"IMAGE[0]*IMAGE[1]*IMAGE[2]", 480 * 640 * 3},
        {"batch", 4},
        {"batch[0]", 77},
        {"min[1]", 6},
        {"min(min[0],min[1])", 5},
        {"max(3, 4)", 4},
        {"'a-b.c/d'[0]", 11},
        {"1+2*3", 7},
        {"(1+2)*3", 9},
        {"10-2-3", 5},
        {"100/10/5", 2},
        {"7/2", 3},
        {"7%4", 3},
        {"2*7%4", 2},
        {"-7/2", -3},
        {"-7%4", -3},
        {"--5", 5},
        {"3--2", 5},
        {"-9223372036854775807-1", INT64_MIN},
        {"(-9223372036854775807-1)%-1", 0},
        {"ceil(7,2)", 4},
        {"ceil(8,2)", 4},
        {"ceil(0,5)", 0},
        {"ceil(-7,2)", -3},
        {"ceil(7,-2)", -3},
        {"ceil(-7,-2)", 4},
        {"ceil(9223372036854775807,2)", INT64_C(4611686018427387904)},
        {"ceil(IMAGE[1],16)*16", 640},
        {"ceil(min(IMAGE[0],500)+1,16)*16", 496},
        {"K", 5},
        {"K*k2+IMAGE[2]", 18},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        umo_expression expression;
        umo_error error = {0};
        int64_t value = -99;
        if (parse(cases[i].text, &expression, &error) != UMO_OK ||
            umo_expression_eval(&expression, shapes, 4, &value, &error) != UMO_OK) {
            fail_msg("%s: %s", cases[i].text, error.text);
        }
        if (value != cases[i].value) {
            fail_msg("%s is %lld", cases[i].text, (long long)value);
        }
        assert_string_equal(expression.text, cases[i].text);
    }
}

static void mistakes_are_named_with_their_character(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *said;
    } cases[] = {
        {"", "a value expected at character 1, not the end"},
        {"   ", "a value expected at character 4, not the end"},
        {"1+", "a value expected at character 3, not the end"},
        {"IMAGE[0]**2", "a value expected at character 10, not '*'"},
        {"1 2", "an operator expected at character 3, not '2'"},
        {"3x", "an operator expected at character 2, not 'x'"},
        {"1)", "an operator expected at character 2, not ')'"},
        {"(1", "')' expected at character 3, not the end"},
        {"IMAGE", "'IMAGE' at character 1"},
        {"2*WIDTH", "'WIDTH' at character 3"},
        {"WIDTH[0]", "unknown tensor 'WIDTH' at character 1"},
        {"IMAG[0]", "unknown tensor 'IMAG' at character 1"},
        {"IMAGEX[0]", "unknown tensor 'IMAGEX' at character 1"},
        {"IMAGE[3]", "'IMAGE' has 3 dimension(s), no number 3, at character 7"},
        {"IMAGE[4294967296]", "no number 4294967296"},
        {"SCALAR[0]", "'SCALAR' has 0 dimension(s)"},
        {"IMAGE[]", "an integer expected at character 7, not ']'"},
        {"IMAGE[-1]", "an integer expected at character 7, not '-'"},
        {"IMAGE[batch]", "an integer expected at character 7, not 'b'"},
        {"IMAGE[0", "']' expected at character 8, not the end"},
        {"'a-b.c/d", "''' expected at character 9, not the end"},
        {"'a-b.c/d'", "'[' expected at character 10, not the end"},
        {"''[0]", "unknown tensor '' at character 1"},
        {"floor(1,2)", "unknown function 'floor' at character 1"},
        {"batch(1)", "unknown function 'batch'"},
        {"ceil(1)", "',' expected at character 7, not ')'"},
        {"ceil(1,2,3)", "')' expected at character 9, not ','"},
        {"ceil", "'ceil' at character 1"},
        {"min()", "a value expected at character 5, not ')'"},
        {"9223372036854775808", "does not fit 63 bits"},
        {"99999999999999999999999999", "the integer at character 1 does not fit 63 bits"},
        {"1.5", "an operator expected at character 2, not '.'"},
        {"1\n+2", "byte 0x0a"},
        {"1+\xc3\xa4", "byte 0xc3"},
        {"((((((((((((((((1))))))))))))))))", "nested deeper than 16"},
        {"-----------------1", "a value without another sign expected"},
        {"1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1",
         "more than 64 values and operators"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        umo_expression untouched;
        umo_expression expression;
        umo_error error = {0};
        memset(&expression, 0x5c, sizeof expression);
        untouched = expression;
        assert_int_equal(parse(cases[i].text, &expression, &error), UMO_E_INVAL);
        if (strstr(error.text, cases[i].said) == NULL) {
            fail_msg("'%s' gave: %s", cases[i].text, error.text);
        }
        assert_memory_equal(&expression, &untouched, sizeof expression);
    }
}

static void long_text_is_refused(void **state)
{
    (void)state;
    char text[UMO_EXPRESSION_TEXT_BYTES + 1];
    umo_expression expression;
    umo_error error;
    memset(text, ' ', sizeof text);
    text[0] = '1';
    text[UMO_EXPRESSION_TEXT_BYTES - 1] = '\0';
    assert_int_equal(parse(text, &expression, NULL), UMO_OK);
    text[UMO_EXPRESSION_TEXT_BYTES - 1] = ' ';
    text[UMO_EXPRESSION_TEXT_BYTES] = '\0';
    assert_int_equal(parse(text, &expression, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "128 characters is longer than the 127"));
}

static void impossible_values_are_named_with_their_character(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *said;
    } cases[] = {
        {"9223372036854775807+1", "the value at character 20 does not fit 63 bits"},
        {"-9223372036854775807-2", "does not fit 63 bits"},
        {"3037000500*3037000500", "the value at character 11 does not fit 63 bits"},
        {"IMAGE[0]*9223372036854775807", "the value at character 9 does not fit 63 bits"},
        {"-(-9223372036854775807-1)", "the value at character 1 does not fit 63 bits"},
        {"(-9223372036854775807-1)/-1", "does not fit 63 bits"},
        {"ceil(-9223372036854775807-1,-1)", "does not fit 63 bits"},
        {"1/0", "the value at character 2 divides by 0"},
        {"1%(batch-4)", "divides by 0"},
        {"2+ceil(3,0)", "the value at character 3 divides by 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        umo_expression expression;
        umo_error error = {0};
        int64_t value = -99;
        assert_int_equal(parse(cases[i].text, &expression, NULL), UMO_OK);
        assert_int_equal(umo_expression_eval(&expression, shapes, 4, &value, &error), UMO_E_INVAL);
        if (strstr(error.text, cases[i].said) == NULL ||
            strstr(error.text, cases[i].text) == NULL) {
            fail_msg("'%s' gave: %s", cases[i].text, error.text);
        }
        assert_int_equal(value, -99);
    }
}

static void negative_size_is_an_error(void **state)
{
    (void)state;
    umo_expression expression;
    umo_error error = {0};
    int64_t value = -99;
    assert_int_equal(parse("IMAGE[2]-5", &expression, NULL), UMO_OK);
    assert_int_equal(umo_expression_eval(&expression, shapes, 1, &value, NULL), UMO_OK);
    assert_int_equal(value, -2);
    assert_int_equal(umo_expression_eval_size(&expression, shapes, 1, &value, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "\"IMAGE[2]-5\" is -2, a size is 0 or more");
    assert_int_equal(parse("IMAGE[2]-3", &expression, NULL), UMO_OK);
    assert_int_equal(umo_expression_eval_size(&expression, shapes, 1, &value, NULL), UMO_OK);
    assert_int_equal(value, 0);
}

static void known_means_independent_of_the_request(void **state)
{
    (void)state;
    const umo_shape open[NAME_COUNT] = {
        {3, {480, -1, 3}}, {1, {77}}, {2, {5, 6}}, {1, {11}}, {0, {0}}};
    umo_expression expression;
    assert_int_equal(parse("IMAGE[0]*IMAGE[2]", &expression, NULL), UMO_OK);
    assert_true(umo_expression_is_known(&expression, open));
    assert_int_equal(parse("IMAGE[0]*IMAGE[1]", &expression, NULL), UMO_OK);
    assert_false(umo_expression_is_known(&expression, open));
    assert_int_equal(parse("IMAGE[0]*batch", &expression, NULL), UMO_OK);
    assert_false(umo_expression_is_known(&expression, open));
    umo_expression_init_constant(&expression, 12);
    assert_true(umo_expression_is_known(&expression, open));
    assert_string_equal(expression.text, "12");
}

/* A formula over small numbers, built together with its value; __int128 has room for every
 * intermediate. */
__extension__ typedef __int128 wide;

typedef struct built {
    char text[UMO_EXPRESSION_TEXT_BYTES];
    wide value;
    bool exists;
} built;

static bool fits(wide value)
{
    return value >= INT64_MIN && value <= INT64_MAX;
}

static built build(unsigned *seed, int depth)
{
    built out = {.exists = true};
    const int kind = depth == 0 ? 0 : rand_r(seed) % 6;
    if (kind == 0) {
        static const int64_t numbers[] = {0, 1, 2, 3, 7, 480, INT64_MAX, INT64_MAX / 2};
        if (rand_r(seed) % 3 == 0) {
            (void)snprintf(out.text, sizeof out.text, "IMAGE[1]");
            out.value = 640;
        } else {
            const int64_t number = numbers[(size_t)rand_r(seed) % 8];
            (void)snprintf(out.text, sizeof out.text, "%lld", (long long)number);
            out.value = number;
        }
        return out;
    }
    const built a = build(seed, depth - 1);
    const built b = build(seed, depth - 1);
    static const char *const middles[] = {"", ")+(", ")-(", ")*(", ")/(", ","};
    const int length = snprintf(out.text, sizeof out.text, "%s(%s%s%s)", kind == 5 ? "max" : "(",
                                a.text, middles[kind], b.text);
    if (kind != 5 && length + 1 < (int)sizeof out.text) {
        strcat(out.text, ")");
    }
    out.exists = a.exists && b.exists;
    if (length + 1 >= (int)sizeof out.text) {
        out.text[0] = '\0';
        return out;
    }
    if (!out.exists) {
        return out;
    }
    switch (kind) {
    case 1:
        out.value = a.value + b.value;
        break;
    case 2:
        out.value = a.value - b.value;
        break;
    case 3:
        out.value = a.value * b.value;
        break;
    case 4:
        out.exists = b.value != 0;
        out.value = out.exists ? a.value / b.value : 0;
        break;
    default:
        out.value = a.value > b.value ? a.value : b.value;
        break;
    }
    out.exists = out.exists && fits(out.value);
    return out;
}

static void random_formulas_agree_with_wider_arithmetic(void **state)
{
    (void)state;
    unsigned seed = 11;
    size_t tried = 0;
    size_t existed = 0;
    for (int round = 0; round < 20000; round++) {
        const built made = build(&seed, 3);
        umo_expression expression;
        int64_t value = -99;
        if (made.text[0] == '\0' || parse(made.text, &expression, NULL) != UMO_OK) {
            continue;
        }
        const umo_status status = umo_expression_eval(&expression, shapes, 1, &value, NULL);
        if ((status == UMO_OK) != made.exists || (made.exists && value != (int64_t)made.value)) {
            fail_msg("%s is %lld (status %d)", made.text, (long long)value, (int)status);
        }
        tried++;
        existed += made.exists;
    }
    assert_true(tried > 10000);
    assert_true(existed > 1000 && existed < tried);
}

static void mutated_texts_end_in_a_value_or_an_error(void **state)
{
    (void)state;
    static const char *const seeds[] = {"ceil(IMAGE[1],16)*16+min(batch,3)%7",
                                        "(IMAGE[0]-1)*(IMAGE[1]-1)/2", "'a-b.c/d'[0]--min[1]"};
    static const char alphabet[] = "0123456789()[]'+-*/%, abIMAGEminceilbatch\x01\xff";
    unsigned seed = 3;
    size_t good = 0;
    for (int round = 0; round < 60000; round++) {
        char text[UMO_EXPRESSION_TEXT_BYTES * 2];
        (void)snprintf(text, sizeof text, "%s", seeds[(size_t)rand_r(&seed) % 3]);
        for (int edits = 1 + rand_r(&seed) % 4; edits > 0; edits--) {
            const size_t length = strlen(text);
            const size_t at = length > 0 ? (size_t)rand_r(&seed) % length : 0;
            const char c = alphabet[(size_t)rand_r(&seed) % (sizeof alphabet - 1)];
            switch (rand_r(&seed) % 4) {
            case 0:
                text[at] = c;
                break;
            case 1:
                memmove(text + at, text + at + (length > 0), length - at);
                break;
            case 2:
                memmove(text + at + 1, text + at, length - at + 1);
                text[at] = c;
                break;
            default:
                text[at] = '\0';
                break;
            }
        }
        umo_expression expression;
        umo_error error = {0};
        int64_t value;
        /* Of exact size, so that a sanitizer sees a read past its end. */
        char *exact = strdup(text);
        umo_status status = parse(exact, &expression, &error);
        free(exact);
        if (status == UMO_OK) {
            assert_in_range(expression.step_count, 1, UMO_EXPRESSION_STEPS_MAX);
            status = umo_expression_eval(&expression, shapes, 1, &value, &error);
            good += status == UMO_OK;
        }
        if (status != UMO_OK) {
            assert_int_equal(status, UMO_E_INVAL);
            assert_int_equal(error.status, UMO_E_INVAL);
            assert_true(strlen(error.text) > 0);
        }
    }
    assert_true(good > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formulas_have_their_value),
        cmocka_unit_test(mistakes_are_named_with_their_character),
        cmocka_unit_test(long_text_is_refused),
        cmocka_unit_test(impossible_values_are_named_with_their_character),
        cmocka_unit_test(negative_size_is_an_error),
        cmocka_unit_test(known_means_independent_of_the_request),
        cmocka_unit_test(random_formulas_agree_with_wider_arithmetic),
        cmocka_unit_test(mutated_texts_end_in_a_value_or_an_error),
    };
    return cmocka_run_group_tests_name("expression", tests, NULL, NULL);
}
