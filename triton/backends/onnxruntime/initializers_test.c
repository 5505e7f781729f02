/*
 * Which constants are taken out of a file and which are left to the engine; and that no file,
 * however broken, is read past its end or believed.
 */
#include "initializers.h"
#include "ort_api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    BYTES = 1 << 13,
    COUNT = 64,
    LEAST = 128
};

static char folder[] = "/tmp/umo-initializers-XXXXXX";
static umo_scope *scope;

/* ---- protobuf by hand ---- */

typedef struct bytes {
    size_t size_bytes;
    unsigned char at[BYTES];
} bytes;

static void put(bytes *to, const void *data, size_t size_bytes)
{
    assert_true(size_bytes <= BYTES - to->size_bytes);
    memcpy(to->at + to->size_bytes, data, size_bytes);
    to->size_bytes += size_bytes;
}

static void varint(bytes *to, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
        put(to, &byte, 1);
        value >>= 7;
    } while (value != 0);
}

static void number(bytes *to, unsigned field, uint64_t value)
{
    varint(to, (uint64_t)field << 3);
    varint(to, value);
}

static void data(bytes *to, unsigned field, const void *from, size_t size_bytes)
{
    varint(to, (uint64_t)field << 3 | 2);
    varint(to, size_bytes);
    put(to, from, size_bytes);
}

static void text(bytes *to, unsigned field, const char *words)
{
    data(to, field, words, strlen(words));
}

static void inner(bytes *to, unsigned field, const bytes *body)
{
    data(to, field, body->at, body->size_bytes);
}

/* What a tensor of a test is; a float of [COUNT] in raw bytes unless said. */
typedef struct given {
    const char *name;
    int type;             /* 0: float */
    size_t raw_bytes;     /* 0: as many as it should have */
    int64_t dim;          /* 0: COUNT */
    bool typed;           /* float_data */
    bool packed;          /* its dims */
    const char *location; /* external */
    const char *offset;
    const char *length;
} given;

static void entry(bytes *tensor, const char *key, const char *value)
{
    if (value != NULL) {
        bytes e = {0};
        text(&e, 1, key);
        text(&e, 2, value);
        inner(tensor, 13, &e);
    }
}

static bytes tensor(const given *g)
{
    bytes made = {0};
    unsigned char raw[COUNT * 8];
    uint64_t dim = g->dim != 0 ? (uint64_t)g->dim : COUNT;
    for (size_t i = 0; i < sizeof raw; i++) {
        raw[i] = (unsigned char)i;
    }
    if (g->packed) {
        bytes dims = {0};
        varint(&dims, dim);
        inner(&made, 1, &dims);
    } else {
        number(&made, 1, dim);
    }
    number(&made, 2, g->type != 0 ? (uint64_t)g->type : ORT_ELEMENT_FLOAT);
    text(&made, 8, g->name);
    if (g->location != NULL) {
        entry(&made, "location", g->location);
        entry(&made, "offset", g->offset);
        entry(&made, "length", g->length);
        entry(&made, "checksum", "0000");
        number(&made, 14, 1);
    } else {
        data(&made, g->typed ? 4 : 9, raw, g->raw_bytes != 0 ? g->raw_bytes : COUNT * 4);
    }
    return made;
}

static bytes model_of(const given *list, size_t count, const bytes *node)
{
    bytes graph = {0};
    bytes model = {0};
    for (size_t i = 0; i < count; i++) {
        bytes t = tensor(&list[i]);
        inner(&graph, 5, &t);
    }
    if (node != NULL) {
        inner(&graph, 1, node);
    }
    number(&model, 1, 8);
    inner(&model, 7, &graph);
    return model;
}

/* A node whose branch defines a name: as an initializer, an output of a node or an input. */
static bytes node_with_branch(unsigned kind, const char *name)
{
    bytes branch = {0};
    bytes attribute = {0};
    bytes node = {0};
    if (kind == 5) {
        bytes t = tensor(&(given){.name = name});
        inner(&branch, 5, &t);
    } else {
        bytes named = {0};
        text(&named, kind == 1 ? 2 : 1, name);
        inner(&branch, kind, &named);
    }
    inner(&attribute, 6, &branch);
    inner(&node, 5, &attribute);
    return node;
}

static const char *path_of(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_bytes(const char *name, const void *from, size_t size_bytes)
{
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(from, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

static umo_status read_model(const bytes *model, ort_initializers *out, umo_error *error)
{
    /* A new file each time: one that is written to is another. */
    (void)unlink(path_of("model.onnx"));
    write_bytes("model.onnx", model->at, model->size_bytes);
    return ort_initializers_read(path_of("model.onnx"), scope, 0, LEAST, out, error);
}

/* ---- tests ---- */

static void constant_is_found_where_it_lies(void **state)
{
    (void)state;
    ort_initializers found;
    for (int packed = 0; packed < 2; packed++) {
        const given list[] = {{.name = "a", .packed = packed != 0},
                              {.name = "b", .type = ORT_ELEMENT_INT64, .dim = COUNT / 2}};
        bytes model = model_of(list, 2, NULL);
        assert_int_equal(read_model(&model, &found, NULL), UMO_OK);
        assert_int_equal(found.count, 2);
        assert_int_equal(found.file_count, 1);
        assert_true(found.complete);
        assert_string_equal(found.list[0].name, "a");
        assert_int_equal(found.list[0].element, ORT_ELEMENT_FLOAT);
        assert_int_equal(found.list[0].shape.rank, 1);
        assert_int_equal(found.list[0].shape.dims[0], COUNT);
        assert_int_equal(found.list[1].element, ORT_ELEMENT_INT64);
        for (int k = 0; k < 2; k++) {
            const unsigned char *at = umo_weights_data(found.files[0]);
            assert_int_equal(found.list[k].size_bytes, COUNT * 4);
            for (size_t i = 0; i < COUNT * 4; i++) {
                assert_int_equal(at[found.list[k].offset_bytes + i], (unsigned char)i);
            }
        }
        ort_initializers_finish(&found);
    }
}

static void what_is_not_as_it_should_be_is_left_to_the_engine(void **state)
{
    (void)state;
    const given cases[] = {
        {.name = "small", .dim = LEAST / 4 - 1, .raw_bytes = LEAST - 4},
        {.name = "short", .raw_bytes = COUNT * 4 - 1},
        {.name = "long", .raw_bytes = COUNT * 4 + 1},
        {.name = "typed", .typed = true},
        {.name = "string", .type = ORT_ELEMENT_STRING},
        {.name = "int4", .type = 22},
        {.name = "complex", .type = 14, .dim = COUNT / 2},
        {.name = "negative", .dim = -1},
        {.name = "huge", .dim = INT64_MAX},
        {.name = ""},
        {.name = "none", .location = "none.bin"},
        {.name = "past", .location = "w.bin", .offset = "1", .length = "256"},
        {.name = "far", .location = "w.bin", .offset = "99999999999999999999"},
        {.name = "signed", .location = "w.bin", .offset = "-1"},
        {.name = "brief", .location = "w.bin", .length = "255"},
    };
    char content[COUNT * 4] = {0};
    write_bytes("w.bin", content, sizeof content);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ort_initializers found;
        const given list[] = {{.name = "good"}, cases[i]};
        bytes model = model_of(list, 2, NULL);
        assert_int_equal(read_model(&model, &found, NULL), UMO_OK);
        if (found.count != 1 || strcmp(found.list[0].name, "good") != 0) {
            fail_msg("%s was taken", cases[i].name);
        }
        ort_initializers_finish(&found);
    }
}

static void name_that_a_branch_defines_too_is_left_to_the_engine(void **state)
{
    (void)state;
    const given list[] = {{.name = "w"}, {.name = "v"}};
    static const unsigned kinds[] = {1, 5, 11};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        ort_initializers found;
        bytes node = node_with_branch(kinds[i], "w");
        bytes model = model_of(list, 2, &node);
        assert_int_equal(read_model(&model, &found, NULL), UMO_OK);
        assert_int_equal(found.count, 1); /* nor is the branch's own taken */
        assert_string_equal(found.list[0].name, "v");
        ort_initializers_finish(&found);
    }
    const given twice[] = {{.name = "w"}, {.name = "v"}, {.name = "w"}};
    ort_initializers found;
    bytes model = model_of(twice, 3, NULL);
    assert_int_equal(read_model(&model, &found, NULL), UMO_OK);
    assert_int_equal(found.count, 1);
    ort_initializers_finish(&found);
}

static void external_data_is_found_in_its_files(void **state)
{
    (void)state;
    char content[COUNT * 8];
    memset(content, 5, sizeof content);
    write_bytes("w.bin", content, sizeof content);
    write_bytes("v.bin", content, sizeof content);
    const given list[] = {
        {.name = "a", .location = "w.bin", .offset = "256", .length = "256"},
        {.name = "b", .location = "./w.bin"},
        {.name = "c", .location = "w.bin", .offset = "3"},
        {.name = "d", .location = "x/../v.bin"},
        {.name = "e"},
    };
    ort_initializers found;
    bytes model = model_of(list, 5, NULL);
    assert_int_equal(mkdir(path_of("x"), 0700), 0);
    assert_int_equal(read_model(&model, &found, NULL), UMO_OK);
    assert_int_equal(rmdir(path_of("x")), 0);
    assert_int_equal(found.count, 5);
    assert_true(found.complete);
    /* By two names it is one file all the same. */
    assert_ptr_equal(found.files[found.list[0].file], found.files[found.list[1].file]);
    assert_int_equal(found.list[0].file, found.list[2].file);
    assert_int_equal(found.list[0].offset_bytes, 256);
    assert_int_equal(found.list[1].offset_bytes, 0);
    assert_int_equal(found.list[2].offset_bytes, 3);
    assert_ptr_not_equal(found.files[found.list[3].file], found.files[found.list[0].file]);
    assert_int_equal(found.list[4].file, 0);
    ort_initializers_finish(&found);
}

static void external_data_outside_of_the_folder_is_refused(void **state)
{
    (void)state;
    static const char *const outside[] = {"../w.bin", "/etc/passwd", "x/../../w.bin", "./../w.bin",
                                          ".."};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        ort_initializers found;
        umo_error error = {0};
        const given list[] = {{.name = "w", .location = outside[i]}};
        bytes model = model_of(list, 1, NULL);
        assert_int_equal(read_model(&model, &found, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, "tensor 'w' lies outside of the model's folder"));
        ort_initializers_finish(&found);
    }
}

static void missing_files_make_a_model_incomplete(void **state)
{
    (void)state;
    ort_initializers found;
    const given list[] = {{.name = "w", .location = "none.bin"}, {.name = "v"}};
    bytes model = model_of(list, 2, NULL);
    assert_int_equal(read_model(&model, &found, NULL), UMO_OK);
    assert_false(found.complete);
    assert_int_equal(found.count, 1);
    ort_initializers_finish(&found);
    assert_int_equal(ort_initializers_read(path_of("none.onnx"), scope, 0, LEAST, &found, NULL),
                     UMO_OK);
    assert_false(found.complete);
    assert_int_equal(found.file_count, 0);
    ort_initializers_finish(&found);
}

static void broken_files_are_neither_believed_nor_read_past_their_end(void **state)
{
    (void)state;
    const given list[] = {{.name = "a", .packed = true},
                          {.name = "b", .location = "w.bin", .offset = "0", .length = "256"},
                          {.name = "c"}};
    bytes node = node_with_branch(5, "c");
    const bytes whole = model_of(list, 3, &node);
    char content[COUNT * 4] = {0};
    write_bytes("w.bin", content, sizeof content);
    for (size_t i = 0; i < 3 * whole.size_bytes; i++) {
        bytes broken = whole;
        ort_initializers found;
        if (i < whole.size_bytes) {
            broken.size_bytes = i;
        } else {
            broken.at[i % whole.size_bytes] ^= i < 2 * whole.size_bytes ? 0xFF : 0x09;
        }
        umo_status status = read_model(&broken, &found, NULL);
        assert_true(status == UMO_OK || status == UMO_E_INVAL);
        for (size_t k = 0; k < found.count; k++) {
            const ort_initializer *at = &found.list[k];
            size_t limit = umo_weights_size(found.files[at->file]);
            assert_true(at->file < found.file_count && at->offset_bytes <= limit &&
                        at->size_bytes <= limit - at->offset_bytes);
        }
        ort_initializers_finish(&found);
    }
}

int main(void)
{
    if (mkdtemp(folder) == NULL || umo_scope_create(NULL, "test", 0, &scope, NULL) != UMO_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constant_is_found_where_it_lies),
        cmocka_unit_test(what_is_not_as_it_should_be_is_left_to_the_engine),
        cmocka_unit_test(name_that_a_branch_defines_too_is_left_to_the_engine),
        cmocka_unit_test(external_data_is_found_in_its_files),
        cmocka_unit_test(external_data_outside_of_the_folder_is_refused),
        cmocka_unit_test(missing_files_make_a_model_incomplete),
        cmocka_unit_test(broken_files_are_neither_believed_nor_read_past_their_end),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    umo_weights_stats stats;
    umo_weights_read(&stats);
    umo_scope_destroy(scope);
    static const char *const names[] = {"model.onnx", "w.bin", "v.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)unlink(path_of(names[i]));
    }
    (void)rmdir(folder);
    return failed != 0 ? failed : stats.files != 0;
}
