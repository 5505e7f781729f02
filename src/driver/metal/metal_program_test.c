/*
 * Programs and kernels of the Metal driver: the compiler's options and its words.
 */
#include "driver/metal/metal_test.h"

#include <stdio.h>

/* ---- programs ---- */

static umo_status build(void *state, const char *text, const char *options, umo_error *error)
{
    umo_program_source source = text_source(text);
    void *program = NULL;
    source.options = options;
    *error = (umo_error){0};
    umo_status status = driver->program_create(state, &source, &program, error);
    assert_int_equal(status != UMO_OK, program == NULL);
    assert_int_equal(error->status, status);
    assert_null(strchr(error->text, '\n'));
    if (program != NULL) {
        driver->program_destroy(state, program);
    }
    return status;
}

static void options_define_names_in_front_of_the_text(void **unused)
{
    (void)unused;
    static const char text[] = "#ifndef ONE\n"
                               "#error ONE is missing\n"
                               "#endif\n"
                               "#if SCALE != 3\n"
                               "#error SCALE is wrong\n"
                               "#endif\n"
                               "#if ONE != 1\n"
                               "#error ONE is wrong\n"
                               "#endif\n";
    static const char *const right[] = {
        "-DONE -DSCALE=3",
        "  -DONE=1\t-DSCALE=3  ",
        "-DSCALE=3 -ffast-math -DONE -DEMPTY=",
        "-cl-fast-relaxed-math -DSCALE=3 -DONE",
        "-DSCALE=2 -DSCALE=3 -DONE -DLIST=1,2",
    };
    static const struct {
        const char *options;
        const char *words;
    } wrong[] = {{NULL, "ONE is missing"},
                 {"", "ONE is missing"},
                 {" \t ", "ONE is missing"},
                 {"-DONE", "SCALE is wrong"},
                 {"-DONE -DSCALE", "SCALE is wrong"},
                 {"-DONE=2 -DSCALE=3", "ONE is wrong"}};
    umo_error error;
    void *state = device_open();
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        umo_status status = build(state, text, right[i], &error);
        assert_string_equal(error.text, "");
        assert_int_equal(status, UMO_OK);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(build(state, text, wrong[i].options, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, wrong[i].words));
    }
    device_close(state);
}

static void options_that_metal_lacks_are_named(void **unused)
{
    (void)unused;
    static const char *const wrong[] = {"-O3",         "-D",
                                        "-ffast",      "-ffast-math2",
                                        "ffast-math",  "-DONE -Wall",
                                        "-I include",  "-cl-fast-relaxed-math -cl-mad-enable",
                                        "-ffast-meth", "-cl-fast-relaxed-moth"};
    umo_error error;
    void *state = device_open();
    fake_metal_mark();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(build(state, kernel_text, wrong[i], &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, wrong[i]));
        assert_non_null(strstr(error.text, "-DNAME=VALUE"));
    }
    char too_long[3000] = "-DNAME=";
    memset(too_long + 7, '7', sizeof too_long - 8);
    too_long[sizeof too_long - 1] = '\0';
    assert_int_equal(build(state, kernel_text, too_long, &error), UMO_E_INVAL);
    assert_int_equal(fake_metal_messages_of("newLibraryWithSource:options:error:"), 0);
    device_close(state);
}

static void the_compilers_words_are_passed_on_from_its_first_error(void **unused)
{
    (void)unused;
    umo_error error;
    void *state = device_open();
    assert_int_equal(build(state,
                           "kernel void one(device int *out [[buffer(0)]])\n{\n    out[0] = 1;\n",
                           NULL, &error),
                     UMO_E_INVAL);
    assert_string_equal(error.text,
                        "the program does not build: program_source:4:1: error: expected '}'");
    assert_int_equal(error.native, 3);
    /* As much as fits. */
    char text[2000] = "";
    for (int i = 0; i < 9; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text),
                       "#error problem %d with  blanks that are more than there is any need for\n",
                       i);
    }
    assert_int_equal(build(state, text, NULL, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "1:2: error: problem 0 with blanks that"));
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    /* Nothing in it that names an error. */
    fake_metal_fail("newLibraryWithSource:options:error:", 1);
    assert_int_equal(build(state, kernel_text, NULL, &error), UMO_E_INVAL);
    assert_string_equal(error.text,
                        "the program does not build: Compiler encountered an internal error");
    device_close(state);
}

static void what_is_no_text_is_refused(void **unused)
{
    (void)unused;
    static const umo_host_kernel none[] = {{NULL, NULL}};
    umo_error error = {0};
    void *program = NULL;
    void *state = device_open();
    umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = none};
    assert_int_equal(driver->program_create(state, &source, &program, &error), UMO_E_UNSUPPORTED);
    source = (umo_program_source){.kind = UMO_PROGRAM_SOURCE, .text = NULL, .size_bytes = 5};
    assert_int_equal(driver->program_create(state, &source, &program, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "the program is empty");
    source = (umo_program_source){.kind = UMO_PROGRAM_SOURCE, .text = "", .size_bytes = 0};
    assert_int_equal(driver->program_create(state, &source, &program, NULL), UMO_E_INVAL);
    assert_int_equal(build(state, "kernel void \xff\xfe()", NULL, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "the program's text is not UTF-8");
    fake_metal_fail("new", 1); /* the compiler's options */
    assert_int_equal(build(state, kernel_text, NULL, &error), UMO_E_NOMEM);
    assert_null(program);
    device_close(state);
}

static void a_text_ends_where_its_size_says(void **unused)
{
    (void)unused;
    char text[sizeof kernel_text + 8];
    void *program = NULL;
    void *kernel = NULL;
    void *state = device_open();
    memset(text, '{', sizeof text);
    memcpy(text, kernel_text, sizeof kernel_text - 1);
    const umo_program_source source = {
        .kind = UMO_PROGRAM_SOURCE, .text = text, .size_bytes = sizeof kernel_text - 1};
    assert_int_equal(driver->program_create(state, &source, &program, NULL), UMO_OK);
    assert_int_equal(driver->kernel_create(state, program, "add", &kernel, NULL), UMO_OK);
    driver->kernel_destroy(state, kernel);
    driver->program_destroy(state, program);
    device_close(state);
}

/* ---- kernels ---- */

static void nothing_run(void *const *args, const size_t global[3])
{
    (void)args;
    (void)global;
}

static void what_is_no_kernel_is_named(void **unused)
{
    (void)unused;
    static const char picture[] =
        "#include <metal_stdlib>\n"
        "using namespace metal;\n"
        "kernel void picture(texture2d<float> in [[texture(0)]], device int *out [[buffer(0)]])\n"
        "{\n"
        "    out[0] = int(in.get_width());\n"
        "}\n";
    fake_metal_kernel_register(&(fake_metal_kernel){.name = "picture", .run = nothing_run});
    umo_error error;
    void *program = NULL;
    void *state = device_open();
    (void)kernel_of(state, kernel_text, "absent", &program, UMO_E_NOT_FOUND, &error);
    assert_string_equal(error.text, "the program has no kernel 'absent'");
    driver->program_destroy(state, program);
    (void)kernel_of(state, picture, "picture", &program, UMO_E_UNSUPPORTED, &error);
    assert_string_equal(error.text, "kernel 'picture' takes arguments that are neither buffers nor "
                                    "work-group memory");
    driver->program_destroy(state, program);
    (void)kernel_of(state,
                    "kernel void unregistered(device int *out [[buffer(0)]])\n{\n    out[0] = "
                    "1;\n}\n",
                    "unregistered", &program, UMO_E_DEVICE, &error);
    assert_non_null(strstr(error.text, "kernel 'unregistered': "));
    assert_string_not_equal(error.text, "kernel 'unregistered': ");
    driver->program_destroy(state, program);
    device_close(state);
}

static void a_kernel_that_metal_does_not_build_carries_its_words(void **unused)
{
    (void)unused;
    umo_error error;
    void *program = NULL;
    void *state = device_open();
    fake_metal_fail("newComputePipelineStateWithDescriptor:options:reflection:error:", 1);
    (void)kernel_of(state, kernel_text, "add", &program, UMO_E_DEVICE, &error);
    assert_string_equal(error.text, "kernel 'add': Compiler encountered an internal error");
    assert_int_equal(error.native, 2);
    driver->program_destroy(state, program);
    fake_metal_fail("new", 2); /* the pipeline's descriptor, behind the compiler's options */
    (void)kernel_of(state, kernel_text, "add", &program, UMO_E_DEVICE, &error);
    assert_string_equal(error.text, "kernel 'add': Metal says nothing more");
    assert_int_equal(error.native, 0);
    driver->program_destroy(state, program);
    fake_metal_fail("stringWithUTF8String:", 2); /* the name, behind the text */
    (void)kernel_of(state, kernel_text, "add", &program, UMO_E_NOT_FOUND, &error);
    driver->program_destroy(state, program);
    device_close(state);
    /* A pipeline that runs no thread is none. */
    fake_metal_options options = machine();
    options.threads_max = 0;
    fake_metal_reset(&options);
    state = device_open();
    (void)kernel_of(state, kernel_text, "add", &program, UMO_E_UNSUPPORTED, &error);
    driver->program_destroy(state, program);
    device_close(state);
}

/* ---- many threads ---- */

typedef struct builder {
    void *state;
    unsigned number;
    bool failed;
} builder;

static void *builder_run(void *opaque)
{
    builder *b = opaque;
    const umo_program_source source = text_source(kernel_text);
    for (int round = 0; round < 20 && !b->failed; round++) {
        void *program = NULL;
        adder add = {0};
        umo_memory memory;
        umo_fence fence;
        if (driver->program_create(b->state, &source, &program, NULL) != UMO_OK ||
            driver->kernel_create(b->state, program, "add", &add.kernel, NULL) != UMO_OK ||
            driver->alloc(b->state, 64, UMO_UNIFIED, &memory, NULL) != UMO_OK) {
            b->failed = true;
            break;
        }
        memset(memory.host, (int)b->number, 64);
        b->failed = add_launch(b->state, b->number % UMO_METAL_QUEUES, add, &memory, 0, 64, round,
                               NULL, 0, &fence, NULL) != UMO_OK ||
                    driver->fence_wait(b->state, fence.queue, fence.value, UINT64_MAX) != UMO_OK ||
                    *(unsigned char *)memory.host != add_value((unsigned char)b->number, round);
        driver->free(b->state, &memory);
        driver->kernel_destroy(b->state, add.kernel);
        driver->program_destroy(b->state, program);
    }
    return NULL;
}

static void many_threads_build_and_launch(void **unused)
{
    (void)unused;
    builder builders[4];
    pthread_t threads[4];
    void *state = device_open();
    for (unsigned i = 0; i < 4; i++) {
        builders[i] = (builder){.state = state, .number = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, builder_run, &builders[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(builders[i].failed);
    }
    device_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(options_define_names_in_front_of_the_text),
        TEST(options_that_metal_lacks_are_named),
        TEST(the_compilers_words_are_passed_on_from_its_first_error),
        TEST(what_is_no_text_is_refused),
        TEST(a_text_ends_where_its_size_says),
        TEST(what_is_no_kernel_is_named),
        TEST(a_kernel_that_metal_does_not_build_carries_its_words),
        TEST(many_threads_build_and_launch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
