/*
 * Tables of buffers: what is read, what is written, and that each wrong line is named.
 */
#include <umo/plan.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static umo_status parse(const char *text, umo_plan_table *out, umo_error *error)
{
    return umo_plan_table_parse(text, strlen(text), "t.csv", out, error);
}

static void all_columns_in_any_order_are_read(void **state)
{
    (void)state;
    umo_plan_table t;
    assert_int_equal(parse("\xef\xbb\xbfsize,note,upper,id,lower,offset,alignment\r\n"
                           "7,\"a, \"\"quoted\"\"\nnote\",9,\"x,1\",-3,64,32\r\n"
                           "\r\n"
                           " 9223372036854775807 ,,9223372036854775807,b\"\"",
                           &t, NULL),
                     UMO_E_INVAL); /* quotes belong around a field */
    assert_int_equal(parse("\xef\xbb\xbfsize,note,upper,id,lower,offset,alignment\r\n"
                           "7,\"a, \"\"quoted\"\"\nnote\",9,\"x,1\",-3,64,32\r\n"
                           "\r\n"
                           " 9223372036854775807 ,,9223372036854775807,b,-9223372036854775807,0,0",
                           &t, NULL),
                     UMO_OK);
    assert_int_equal(t.count, 2);
    assert_string_equal(t.ids[0], "x,1");
    assert_int_equal(t.buffers[0].lower, -3);
    assert_int_equal(t.buffers[0].upper, 9);
    assert_int_equal(t.buffers[0].size_bytes, 7);
    assert_int_equal(t.buffers[0].align_bytes, 32);
    assert_int_equal(t.offsets[0], 64);
    assert_string_equal(t.ids[1], "b");
    assert_int_equal(t.buffers[1].size_bytes, INT64_MAX);
    assert_int_equal(t.buffers[1].lower, -INT64_MAX);
    umo_plan_table_finish(&t);

    assert_int_equal(parse("id,lower,upper,size\n", &t, NULL), UMO_OK);
    assert_int_equal(t.count, 0);
    assert_null(t.offsets);
    umo_plan_table_finish(&t);
}

static void wrong_lines_are_named(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"", "t.csv is empty"},
        {"\n\r\n", "t.csv is empty"},
        {"id,lower,size\n1,2,3\n", "line 1: the header lacks the column upper"},
        {"id,lower,upper,size,id\n", "line 1: two columns of the name id"},
        {"id,lower,upper,size\na,0,1,1\nb,0,1\n", "line 3: 3 fields, the header has 4"},
        {"id,lower,upper,size\na,0,1,1,\n", "line 2: 5 fields"},
        {"id,lower,upper,size\na,0,1,x\n", "line 2: size is no whole number: x"},
        {"id,lower,upper,size\na,0,1,\n", "line 2: size is no whole number: "},
        {"id,lower,upper,size\na,0,1,1.5\n", "size is no whole number: 1.5"},
        {"id,lower,upper,size\na,0,1,1 2\n", "size is no whole number: 1 2"},
        {"id,lower,upper,size\na,-,1,1\n", "lower is no whole number: -"},
        {"id,lower,upper,size\na,0,1,0\n", "line 2: size is not within 1 to 2^63 - 1: 0"},
        {"id,lower,upper,size\na,0,1,-1\n", "size is not within 1 to 2^63 - 1: -1"},
        {"id,lower,upper,size\na,0,1,9223372036854775808\n", "size is not within 1 to 2^63 - 1"},
        {"id,lower,upper,size\na,0,1,99999999999999999999999\n", "size is not within"},
        {"id,lower,upper,size\na,0,99999999999999999999,1\n", "upper is not within 63 bits"},
        {"id,lower,upper,size\na,0,1,1\nb,5,5,1\n", "line 3: the lifetime of b ends at 5"},
        {"id,lower,upper,size\na,5,4,1\n", "not after its begin, 5"},
        {"id,lower,upper,size\na,0,1,1\nb,0,1,1\na,2,3,1\n",
         "line 4: the id a is that of line 2 too"},
        {"id,lower,upper,size\n,0,1,1\n", "line 2: an empty id"},
        {"id,lower,upper,size\n\"a,0,1,1\n", "line 2: a quote is not closed"},
        {"id,lower,upper,size\n\"a\"b,0,1,1\n", "line 2: a quote within a field"},
        {"id,lower,upper,size\n\"a\nb\",0,1,1\nc,0,1,-\n", "line 4: size"},
        {"id,lower,upper,size,offset\na,0,1,1,-1\n", "offset is not within 0 to 2^63 - 1: -1"},
        {"id,lower,upper,size,alignment\na,0,1,1,\n", "alignment is no whole number"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        umo_plan_table t;
        umo_error error = {0};
        assert_int_equal(parse(wrong[i][0], &t, &error), UMO_E_INVAL);
        if (strstr(error.text, wrong[i][1]) == NULL) {
            fail_msg("%s: %s", wrong[i][1], error.text);
        }
    }
    umo_plan_table t;
    static const char zero[] = "id,lower,upper,size\na\0b,0,1,1\n";
    assert_int_equal(umo_plan_table_parse(zero, sizeof zero - 1, "t", &t, NULL), UMO_E_INVAL);
    char fields[200];
    memset(fields, ',', sizeof fields);
    assert_int_equal(umo_plan_table_parse(fields, sizeof fields, "t", &t, NULL), UMO_E_INVAL);
}

/* Whatever is cut off or turned over, it is read or refused: the sanitizers see the rest. */
static void no_text_is_too_broken(void **state)
{
    (void)state;
    static const char text[] =
        "id,lower,upper,size,offset\r\n\"a\"\"b\",-1,2,3,0\n\"c\nx\",0,1,1,7\r";
    char broken[sizeof text];
    unsigned seed = 5;
    unsigned read = 0;
    for (unsigned turn = 0; turn < 20000; turn++) {
        const size_t length = turn < sizeof text ? turn : sizeof text - 1;
        memcpy(broken, text, length);
        for (unsigned k = 0; k < turn % 3 && length > 0; k++) {
            broken[(size_t)rand_r(&seed) % length] = "\",\n\r0-a"[rand_r(&seed) % 7];
        }
        char *exact = malloc(length + 1); /* no byte behind it is readable to a sanitizer */
        assert_non_null(exact);
        memcpy(exact + 1, broken, length);
        umo_plan_table t;
        if (umo_plan_table_parse(exact + 1, length, "t", &t, NULL) == UMO_OK) {
            read++;
            umo_plan_table_finish(&t);
        }
        free(exact);
    }
    assert_true(read > 100);
}

static void a_table_is_read_as_it_was_written(void **state)
{
    (void)state;
    char path[] = "/tmp/umo_plan_XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    (void)close(file);
    umo_plan_table t;
    umo_error error;
    assert_int_equal(parse("id,lower,upper,size,alignment\n\"a,\"\"\",-9223372036854775807,0,"
                           "9223372036854775807,9223372036854775807\n\" b\n\",0,5,3,1\n",
                           &t, NULL),
                     UMO_OK);
    t.offsets = calloc(2, sizeof *t.offsets);
    assert_non_null(t.offsets);
    t.offsets[1] = 12;
    assert_int_equal(umo_plan_table_write(&t, path, &error), UMO_OK);
    umo_plan_table again;
    assert_int_equal(umo_plan_table_read(path, &again, &error), UMO_OK);
    assert_int_equal(again.count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(again.ids[i], t.ids[i]);
        assert_memory_equal(&again.buffers[i], &t.buffers[i], sizeof t.buffers[i]);
        assert_int_equal(again.offsets[i], t.offsets[i]);
    }
    umo_plan_table_finish(&again);
    umo_plan_table_finish(&t);
    (void)unlink(path);
}

static void files_that_cannot_be_used_are_told(void **state)
{
    (void)state;
    umo_plan_table t = {0};
    umo_error error;
    assert_int_equal(umo_plan_table_read("/nowhere/t.csv", &t, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere/t.csv"));
    assert_int_equal(umo_plan_table_read("/tmp", &t, &error), UMO_E_SYSTEM);
    assert_int_equal(umo_plan_table_write(&t, "/nowhere/t.csv", &error), UMO_E_SYSTEM);
    assert_non_null(strstr(error.text, "/nowhere/t.csv"));
    assert_int_equal(umo_plan_table_write(&t, "", &error), UMO_E_INVAL);
    umo_plan_table_finish(&t);
}

static void a_file_of_many_rows_is_read_whole(void **state)
{
    (void)state;
    enum {
        ROWS = 50000
    };
    char *text = malloc(64 * ROWS);
    assert_non_null(text);
    int used = sprintf(text, "id,lower,upper,size\n");
    for (int i = 0; i < ROWS; i++) {
        used += sprintf(text + used, "buffer %d,%d,%d,%d\n", i, i, i + 3, i + 1);
    }
    char path[] = "/tmp/umo_plan_XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, (size_t)used), used);
    (void)close(file);
    umo_plan_table t;
    assert_int_equal(umo_plan_table_read(path, &t, NULL), UMO_OK);
    assert_int_equal(t.count, ROWS);
    assert_int_equal(t.buffers[ROWS - 1].size_bytes, ROWS);
    assert_string_equal(t.ids[ROWS - 1], "buffer 49999");
    umo_plan_table_finish(&t);
    free(text);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_columns_in_any_order_are_read),
        cmocka_unit_test(wrong_lines_are_named),
        cmocka_unit_test(no_text_is_too_broken),
        cmocka_unit_test(a_table_is_read_as_it_was_written),
        cmocka_unit_test(files_that_cannot_be_used_are_told),
        cmocka_unit_test(a_file_of_many_rows_is_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
