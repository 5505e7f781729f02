/* Binary archives: what is compiled once is found again, in this process and in a file. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FAIL_ON_MISS 4u

static char path[64];

static int archive_begin(void **state)
{
    (void)snprintf(path, sizeof path, "/tmp/fake_archive.XXXXXX");
    int file = mkstemp(path);
    if (file < 0 || close(file) != 0) {
        return -1;
    }
    return world_begin(state);
}

static int archive_end(void **state)
{
    (void)unlink(path);
    return world_end(state);
}

static id url(void)
{
    return url_make(objc_getClass("NSURL"), world_string(path));
}

/* NULL: nothing of a file. */
static id archive_open(const world *w, id from, id *error)
{
    id descriptor = new_of(objc_getClass("MTLBinaryArchiveDescriptor"));
    describe_url(descriptor, from);
    *error = NULL;
    id archive = device_archive(w->device, descriptor, error);
    release(descriptor);
    return archive;
}

static id describe(id function, id archive)
{
    id descriptor = new_of(objc_getClass("MTLComputePipelineDescriptor"));
    describe_function(descriptor, function);
    if (archive != NULL) {
        describe_archives(descriptor, array_make(objc_getClass("NSArray"), archive));
    }
    return descriptor;
}

/* Whether the archive alone gives the pipeline of a function. */
static bool hit(const world *w, id archive, id function)
{
    id error = NULL;
    id descriptor = describe(function, archive);
    id pipeline = device_pipeline_described(w->device, descriptor, FAIL_ON_MISS, NULL, &error);
    assert_true((pipeline == NULL) == (error != NULL));
    release(descriptor);
    release(pipeline);
    return pipeline != NULL;
}

static bool add(id archive, id function, id *error)
{
    id descriptor = describe(function, NULL);
    bool added = archive_add(archive, descriptor, error);
    release(descriptor);
    return added;
}

static id function_of(const world *w, const char *text, const char *name)
{
    id library = world_library(w, text);
    id function = library_function(library, world_string(name));
    release(library);
    return function;
}

static id archive_with(const world *w, const char *name)
{
    id error = NULL;
    id archive = archive_open(w, NULL, &error);
    id function = world_function(w, name);
    assert_true(add(archive, function, &error));
    release(function);
    return archive;
}

static size_t file_read(char *out, size_t size_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t bytes = fread(out, 1, size_bytes, file);
    assert_int_equal(fclose(file), 0);
    return bytes;
}

static void file_write(const char *bytes, size_t size_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

static void what_was_added_is_found_and_compiled_once(void **state)
{
    world *w = *state;
    id error = NULL;
    id archive = archive_open(w, NULL, &error);
    id function = world_function(w, "add_one");
    assert_false(hit(w, archive, function));
    assert_int_equal(fake_metal_pipelines_compiled(), 0);
    assert_true(add(archive, function, &error));
    assert_true(add(archive, function, &error));
    assert_int_equal(fake_metal_pipelines_compiled(), 1);
    assert_true(hit(w, archive, function));
    assert_int_equal(fake_metal_pipelines_compiled(), 1);
    assert_int_equal(fake_metal_pipelines_cached(), 1);
    release(function);
    release(archive);
}

static void without_a_hit_the_pipeline_is_compiled(void **state)
{
    world *w = *state;
    id error = NULL;
    id archive = archive_with(w, "scale");
    id function = world_function(w, "add_one");
    id descriptor = describe(function, archive);
    id pipeline = device_pipeline_described(w->device, descriptor, 0, NULL, &error);
    assert_non_null(pipeline);
    assert_int_equal(fake_metal_pipelines_compiled(), 2);
    assert_int_equal(fake_metal_pipelines_cached(), 0);
    release(pipeline);
    release(descriptor);
    release(function);
    release(archive);
}

static void without_archives_everything_is_a_miss(void **state)
{
    world *w = *state;
    id function = world_function(w, "add_one");
    assert_false(hit(w, NULL, function));
    release(function);
}

static void a_key_is_text_and_name_and_options(void **state)
{
    world *w = *state;
    id archive = archive_with(w, "add_one");
    id again = world_function(w, "add_one");
    id other = world_function(w, "scale");
    id changed =
        function_of(w, "kernel void add_one(device uint *x [[buffer(0)]]) { x[0]++; }", "add_one");
    id options = new_of(objc_getClass("MTLCompileOptions"));
    SEND(void, (id, SEL, bool), options, "setFastMathEnabled:", false);
    id library = device_library(w->device, world_string(world_text), options, NULL);
    id precise = library_function(library, world_string("add_one"));
    assert_true(hit(w, archive, again));
    assert_false(hit(w, archive, other));
    assert_false(hit(w, archive, changed));
    assert_false(hit(w, archive, precise));
    release(precise);
    release(library);
    release(options);
    release(changed);
    release(other);
    release(again);
    release(archive);
}

static void a_file_carries_the_archive(void **state)
{
    world *w = *state;
    id error = NULL;
    id written = archive_with(w, "add_one");
    id both = world_function(w, "scale");
    assert_true(add(written, both, &error));
    assert_true(archive_write(written, url(), &error));
    release(written);
    id read = archive_open(w, url(), &error);
    assert_non_null(read);
    id function = world_function(w, "add_one");
    assert_true(hit(w, read, function));
    assert_true(hit(w, read, both));
    assert_int_equal(fake_metal_pipelines_compiled(), 2);
    release(function);
    release(both);
    release(read);
}

static void an_empty_archive_can_be_written_and_read(void **state)
{
    world *w = *state;
    id error = NULL;
    id empty = archive_open(w, NULL, &error);
    assert_true(archive_write(empty, url(), &error));
    id read = archive_open(w, url(), &error);
    assert_non_null(read);
    release(read);
    release(empty);
}

static void another_devices_archive_is_a_miss(void **state)
{
    world *w = *state;
    id error = NULL;
    id written = archive_with(w, "add_one");
    assert_true(archive_write(written, url(), &error));
    release(written);
    fake_metal_options options;
    fake_metal_options_default(&options);
    (void)snprintf(options.name, sizeof options.name, "Fake M2");
    world_restart(w, &options);
    id read = archive_open(w, url(), &error);
    assert_non_null(read);
    id function = world_function(w, "add_one");
    assert_false(hit(w, read, function));
    release(function);
    release(read);
}

static void a_file_cut_short_anywhere_is_refused(void **state)
{
    world *w = *state;
    char bytes[1024];
    id error = NULL;
    id written = archive_with(w, "add_one");
    assert_true(archive_write(written, url(), &error));
    release(written);
    size_t size_bytes = file_read(bytes, sizeof bytes);
    assert_in_range(size_bytes, 40, sizeof bytes - 1);
    for (size_t cut = 0; cut < size_bytes; cut++) {
        file_write(bytes, cut);
        assert_null(archive_open(w, url(), &error));
        assert_int_equal(error_code(error), 1);
    }
    file_write(bytes, size_bytes);
    id read = archive_open(w, url(), &error);
    assert_non_null(read);
    release(read);
}

static void a_file_with_a_changed_byte_is_refused(void **state)
{
    world *w = *state;
    char bytes[1024];
    id error = NULL;
    id written = archive_with(w, "add_one");
    assert_true(archive_write(written, url(), &error));
    release(written);
    size_t size_bytes = file_read(bytes, sizeof bytes);
    for (size_t at = 0; at < size_bytes; at++) {
        for (unsigned bit = 0; bit < 8; bit += 5) {
            bytes[at] = (char)(bytes[at] ^ (1 << bit));
            file_write(bytes, size_bytes);
            id read = archive_open(w, url(), &error);
            if (read != NULL) {
                fail_msg("byte %zu bit %u", at, bit);
            }
            bytes[at] = (char)(bytes[at] ^ (1 << bit));
        }
    }
    bytes[size_bytes] = 'x';
    file_write(bytes, size_bytes + 1);
    assert_null(archive_open(w, url(), &error));
    bytes[size_bytes] = 0;
    file_write(bytes, size_bytes + 1);
    assert_null(archive_open(w, url(), &error));
}

static void a_large_archive_is_read_whole(void **state)
{
    world *w = *state;
    id error = NULL;
    id functions[150];
    id written = archive_open(w, NULL, &error);
    for (unsigned i = 0; i < 150; i++) {
        char text[128];
        (void)snprintf(text, sizeof text,
                       "kernel void add_one(device uint *x [[buffer(0)]]) { x[0] += %u; }", i);
        functions[i] = function_of(w, text, "add_one");
        assert_true(add(written, functions[i], &error));
    }
    assert_true(archive_write(written, url(), &error));
    release(written);
    id read = archive_open(w, url(), &error);
    assert_non_null(read);
    for (unsigned i = 0; i < 150; i++) {
        assert_true(hit(w, read, functions[i]));
        release(functions[i]);
    }
    release(read);
}

static void descriptors_hold_what_was_set_last(void **state)
{
    world *w = *state;
    id archive = archive_with(w, "add_one");
    id one = world_function(w, "add_one");
    id two = world_function(w, "scale");
    id descriptor = describe(one, archive);
    describe_function(descriptor, two);
    describe_function(descriptor, two);
    assert_ptr_equal(SEND0(id, descriptor, "computeFunction"), two);
    describe_archives(descriptor, NULL);
    assert_null(SEND0(id, descriptor, "binaryArchives"));
    for (unsigned i = 0; i < 2; i++) {
        SEND(void, (id, SEL, id), descriptor, "setLabel:", world_string(i == 0 ? "a" : "b"));
    }
    assert_string_equal(string_text(SEND0(id, descriptor, "label")), "b");
    describe_function(descriptor, NULL);
    assert_null(SEND0(id, descriptor, "computeFunction"));
    id of_archive = new_of(objc_getClass("MTLBinaryArchiveDescriptor"));
    describe_url(of_archive, url());
    describe_url(of_archive, url());
    describe_url(of_archive, NULL);
    assert_null(SEND0(id, of_archive, "url"));
    release(of_archive);
    release(descriptor);
    release(two);
    release(one);
    release(archive);
}

static void files_that_are_not_there_are_errors(void **state)
{
    world *w = *state;
    id error = NULL;
    id archive = archive_with(w, "add_one");
    id nowhere = url_make(objc_getClass("NSURL"), world_string("/dev/null/umo/archive"));
    assert_false(archive_write(archive, nowhere, &error));
    assert_int_equal(error_code(error), 1);
    assert_null(archive_open(w, nowhere, &error));
    assert_int_equal(error_code(error), 1);
    id folder = url_make(objc_getClass("NSURL"), world_string("/tmp"));
    assert_null(archive_open(w, folder, &error));
    assert_int_equal(error_code(error), 1);
    release(archive);
}

static void every_call_of_an_archive_can_fail(void **state)
{
    world *w = *state;
    id error = NULL;
    fake_metal_fail("newBinaryArchiveWithDescriptor:error:", 1);
    assert_null(archive_open(w, NULL, &error));
    assert_non_null(error);
    id archive = archive_with(w, "add_one");
    id function = world_function(w, "scale");
    error = NULL;
    fake_metal_fail("addComputePipelineFunctionsWithDescriptor:error:", 1);
    assert_false(add(archive, function, &error));
    assert_non_null(error);
    assert_false(hit(w, archive, function));
    error = NULL;
    fake_metal_fail("serializeToURL:error:", 1);
    assert_false(archive_write(archive, url(), &error));
    assert_non_null(error);
    fake_metal_fail("serializeToURL:error:", 1);
    assert_false(archive_write(archive, url(), NULL));
    release(function);
    release(archive);
}

static void a_kernel_nobody_registered_is_not_added(void **state)
{
    world *w = *state;
    id error = NULL;
    id archive = archive_open(w, NULL, &error);
    id function =
        function_of(w, "kernel void nobody_registered_this() {}", "nobody_registered_this");
    assert_false(add(archive, function, &error));
    assert_non_null(error);
    release(function);
    release(archive);
}

static void an_archive_of_a_descriptor_stays_alive(void **state)
{
    world *w = *state;
    id error = NULL;
    id archive = archive_with(w, "add_one");
    id function = world_function(w, "add_one");
    void *pool = objc_autoreleasePoolPush();
    id descriptor = describe(function, archive);
    objc_autoreleasePoolPop(pool);
    release(archive);
    id pipeline = device_pipeline_described(w->device, descriptor, FAIL_ON_MISS, NULL, &error);
    assert_non_null(pipeline);
    release(pipeline);
    release(descriptor);
    assert_int_equal(fake_metal_live("MTLBinaryArchive"), 0);
    release(function);
}

#define archive_fact(function) cmocka_unit_test_setup_teardown(function, archive_begin, archive_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        archive_fact(what_was_added_is_found_and_compiled_once),
        archive_fact(without_a_hit_the_pipeline_is_compiled),
        archive_fact(without_archives_everything_is_a_miss),
        archive_fact(a_key_is_text_and_name_and_options),
        archive_fact(a_file_carries_the_archive),
        archive_fact(an_empty_archive_can_be_written_and_read),
        archive_fact(another_devices_archive_is_a_miss),
        archive_fact(a_file_cut_short_anywhere_is_refused),
        archive_fact(a_file_with_a_changed_byte_is_refused),
        archive_fact(a_large_archive_is_read_whole),
        archive_fact(descriptors_hold_what_was_set_last),
        archive_fact(files_that_are_not_there_are_errors),
        archive_fact(every_call_of_an_archive_can_fail),
        archive_fact(a_kernel_nobody_registered_is_not_added),
        archive_fact(an_archive_of_a_descriptor_stays_alive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
