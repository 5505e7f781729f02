/*
 * The cache of compiled kernels: what it saves, and that nothing that is wrong with it ever fails a
 * kernel.
 */
#include "driver/metal/metal_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char base[256];     /* a fresh folder for each test */
static char dir[PATH_MAX]; /* the cache, two folders below: neither is there at first */

static int cache_setup(void **unused)
{
    const char *temporary = getenv("TMPDIR");
    (void)snprintf(base, sizeof base, "%.200s/umo_metal_XXXXXX",
                   temporary != NULL && temporary[0] == '/' ? temporary : "/tmp");
    if (mkdtemp(base) == NULL ||
        snprintf(dir, sizeof dir, "%s/caches/umo", base) >= (int)sizeof dir) {
        return -1;
    }
    return metal_setup(unused);
}

/* Removes what is in a folder, and the folder. */
static void folder_remove(const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char below[PATH_MAX];
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            snprintf(below, sizeof below, "%s/%s", path, entry->d_name) < (int)sizeof below &&
            unlink(below) != 0) {
            folder_remove(below);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    (void)rmdir(path);
}

static int cache_teardown(void **unused)
{
    folder_remove(base);
    return metal_teardown(unused);
}

#define CACHE_TEST(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)

static void *device_open_cached(const char *where)
{
    assert_int_equal(setenv("UMO_METAL_CACHE", where, 1), 0);
    void *state = device_open();
    assert_int_equal(setenv("UMO_METAL_CACHE", "0", 1), 0);
    return state;
}

/* How many files are in the cache; the path of the last of them. */
static unsigned files_count(char last[PATH_MAX])
{
    unsigned count = 0;
    DIR *folder = opendir(dir);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            count++;
            if (last != NULL) {
                assert_true(snprintf(last, PATH_MAX, "%s/%s", dir, entry->d_name) < PATH_MAX);
            }
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return count;
}

static void file_write(const char *path, const char *bytes, size_t size_bytes)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, size_bytes), size_bytes);
    assert_int_equal(close(file), 0);
}

static size_t file_read(const char *path, char *bytes, size_t size_bytes)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    ssize_t got = read(file, bytes, size_bytes);
    assert_true(got >= 0);
    assert_int_equal(close(file), 0);
    return (size_t)got;
}

typedef struct counts {
    uint64_t compiled;
    uint64_t cached;
} counts;

static counts counts_now(void)
{
    return (counts){fake_metal_pipelines_compiled(), fake_metal_pipelines_cached()};
}

/* Opens the device anew, builds a kernel and lets it run; whether it had to be compiled. */
static bool build_compiles(const char *where, const char *text, const char *options,
                           const char *name)
{
    umo_error error = {0};
    umo_program_source source = text_source(text);
    adder add = {0};
    const counts before = counts_now();
    void *state = device_open_cached(where);
    source.options = options;
    umo_status status = driver->program_create(state, &source, &add.program, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    status = driver->kernel_create(state, add.program, name, &add.kernel, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, UMO_OK);
    umo_memory memory = memory_make(state, 16, UMO_UNIFIED);
    memset(memory.host, 1, 16);
    fence_pass(state, add_give(state, 0, add, &memory, 16, 2, NULL, 0));
    assert_int_equal(*(unsigned char *)memory.host, add_value(1, 2));
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
    const counts after = counts_now();
    assert_in_range(after.compiled - before.compiled, 0, 1);
    return after.compiled > before.compiled;
}

static bool add_compiles(void)
{
    return build_compiles(dir, kernel_text, NULL, "add");
}

/* ---- what it saves ---- */

static void a_kernel_is_compiled_once_and_then_read(void **unused)
{
    (void)unused;
    assert_true(add_compiles());
    assert_int_equal(files_count(NULL), 1);
    for (int i = 0; i < 3; i++) {
        assert_false(add_compiles());
    }
    assert_int_equal(fake_metal_pipelines_compiled(), 1);
    assert_int_equal(files_count(NULL), 1);
}

static void the_folder_is_made_for_its_user_alone(void **unused)
{
    (void)unused;
    char file[PATH_MAX];
    char above[PATH_MAX];
    struct stat facts;
    assert_true(add_compiles());
    assert_int_equal(files_count(file), 1);
    assert_int_equal(stat(dir, &facts), 0);
    assert_int_equal(facts.st_mode & 0777, 0700);
    (void)snprintf(above, sizeof above, "%s/caches", base);
    assert_int_equal(stat(above, &facts), 0);
    assert_int_equal(facts.st_mode & 0777, 0700);
    /* Of a name that says nothing of the text. */
    const char *name = strrchr(file, '/') + 1;
    assert_int_equal(strncmp(name, "metal-", 6), 0);
    assert_string_equal(name + strlen(name) - strlen(".archive"), ".archive");
    assert_int_equal(strlen(name), strlen("metal-.archive") + 32);
    /* A name without folders above, and one in the root, have none to make. */
    assert_int_equal(chdir(base), 0);
    assert_true(build_compiles("here", kernel_text, NULL, "add"));
    assert_false(build_compiles("here", kernel_text, NULL, "add"));
    assert_int_equal(chdir("/"), 0);
    assert_true(build_compiles("/proc", kernel_text, NULL, "add"));
}

static void other_texts_options_devices_have_files_of_their_own(void **unused)
{
    (void)unused;
    char longer[sizeof kernel_text + 8];
    (void)snprintf(longer, sizeof longer, "%s\n", kernel_text);
    assert_true(add_compiles());
    assert_true(build_compiles(dir, longer, NULL, "add"));
    assert_true(build_compiles(dir, kernel_text, "-ffast-math", "add"));
    assert_true(build_compiles(dir, kernel_text, "-DONE", "add"));
    assert_int_equal(files_count(NULL), 4);
    assert_false(build_compiles(dir, kernel_text, "-DONE", "add"));
    assert_false(build_compiles(dir, kernel_text, "-cl-fast-relaxed-math", "add"));
    assert_false(build_compiles(dir, longer, NULL, "add"));
    assert_false(add_compiles());
    fake_metal_options options = machine();
    (void)strcpy(options.name, "Fake M2");
    fake_metal_reset(&options);
    assert_true(add_compiles());
    assert_int_equal(files_count(NULL), 5);
}

static const char two_text[] =
    "kernel void add(device uchar *bytes [[buffer(0)]], constant int &amount [[buffer(1)]],\n"
    "                threadgroup uchar *scratch [[threadgroup(0)]])\n"
    "{\n"
    "    bytes[0] = scratch[0] + amount;\n"
    "}\n"
    "kernel void add_again(device uchar *bytes [[buffer(0)]], constant int &amount [[buffer(1)]],\n"
    "                      threadgroup uchar *scratch [[threadgroup(0)]])\n"
    "{\n"
    "    bytes[0] = scratch[0] + amount;\n"
    "}\n";

static void the_kernels_of_a_program_share_a_file(void **unused)
{
    (void)unused;
    fake_metal_kernel_register(&(fake_metal_kernel){.name = "add_again", .run = add_run});
    assert_true(build_compiles(dir, two_text, NULL, "add"));
    assert_true(build_compiles(dir, two_text, NULL, "add_again"));
    assert_int_equal(files_count(NULL), 1);
    assert_false(build_compiles(dir, two_text, NULL, "add"));
    assert_false(build_compiles(dir, two_text, NULL, "add_again"));
}

static void the_cache_is_switched_off(void **unused)
{
    (void)unused;
    static const char *const off[] = {"0", ""};
    for (size_t i = 0; i < 2; i++) {
        fake_metal_mark();
        assert_true(build_compiles(off[i], kernel_text, NULL, "add"));
        assert_int_equal(fake_metal_messages_of("newBinaryArchiveWithDescriptor:error:"), 0);
    }
}

/* ---- what may be wrong with it ---- */

static void a_file_that_is_no_archive_is_made_anew(void **unused)
{
    (void)unused;
    char path[PATH_MAX];
    char whole[4096];
    char now[4096];
    assert_true(add_compiles());
    assert_int_equal(files_count(path), 1);
    size_t size_bytes = file_read(path, whole, sizeof whole);
    assert_true(size_bytes > 10 && size_bytes < sizeof whole);
    for (int way = 0; way < 5; way++) {
        switch (way) {
        case 0: /* empty */
            file_write(path, whole, 0);
            break;
        case 1: /* cut short */
            file_write(path, whole, size_bytes - 1);
            break;
        case 2:
            file_write(path, whole, size_bytes / 2);
            break;
        case 3: /* a byte is another */
            memcpy(now, whole, size_bytes);
            now[size_bytes / 2] ^= 1;
            file_write(path, now, size_bytes);
            break;
        default:
            file_write(path, "\0\1\2\3", 4);
            break;
        }
        assert_true(add_compiles());
        assert_int_equal(file_read(path, now, sizeof now), size_bytes);
        assert_memory_equal(now, whole, size_bytes);
        assert_int_equal(files_count(NULL), 1);
        assert_false(add_compiles());
    }
}

static void an_archive_of_something_else_is_added_to(void **unused)
{
    (void)unused;
    char path[PATH_MAX];
    char other[4096];
    char longer[sizeof kernel_text + 8];
    (void)snprintf(longer, sizeof longer, "%s\n", kernel_text);
    assert_true(build_compiles(dir, longer, NULL, "add"));
    assert_int_equal(files_count(path), 1);
    size_t size_bytes = file_read(path, other, sizeof other);
    assert_int_equal(unlink(path), 0);
    assert_true(add_compiles());
    assert_int_equal(files_count(path), 1);
    file_write(path, other, size_bytes);
    assert_true(add_compiles());
    assert_false(add_compiles());
}

static void a_folder_that_cannot_be_written_to_does_no_harm(void **unused)
{
    (void)unused;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/file", base);
    file_write(path, "x", 1);
    (void)snprintf(dir, sizeof dir, "%s/file/umo", base);
    for (int i = 0; i < 2; i++) {
        assert_true(add_compiles());
    }
    assert_int_equal(files_count(NULL), 0);
}

static void a_file_that_cannot_take_its_place_leaves_nothing_beside_it(void **unused)
{
    (void)unused;
    char path[PATH_MAX];
    char below[PATH_MAX + 8];
    assert_true(add_compiles());
    assert_int_equal(files_count(path), 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(below, sizeof below, "%s/below", path);
    file_write(below, "x", 1);
    assert_true(add_compiles());
    assert_int_equal(files_count(NULL), 1);
    assert_int_equal(unlink(below), 0);
    assert_int_equal(rmdir(path), 0);
    /* Nor one that Metal does not write. */
    fake_metal_fail("serializeToURL:error:", 1);
    assert_true(add_compiles());
    assert_string_equal(fake_metal_failed(), "serializeToURL:error:");
    assert_int_equal(files_count(NULL), 0);
    assert_true(add_compiles());
    assert_int_equal(files_count(NULL), 1);
    assert_false(add_compiles());
}

/* Every call of Metal's on the way fails once, with the kernel in the cache and without. */
static void no_call_about_the_cache_fails_a_kernel(void **unused)
{
    (void)unused;
    static const char *const calls[] = {
        "newBinaryArchiveWithDescriptor:error:", "addComputePipelineFunctionsWithDescriptor:error:",
        "serializeToURL:error:"};
    char path[PATH_MAX];
    for (int there = 0; there < 2; there++) {
        for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
            if (files_count(path) > 0 && there == 0) {
                assert_int_equal(unlink(path), 0);
            }
            fake_metal_fail(calls[i], 1);
            assert_int_equal(add_compiles(), there == 0 || i == 0);
            fake_metal_fail(calls[i], 0);
            (void)add_compiles();
            assert_false(add_compiles());
        }
    }
    /* And whatever call it is, also of those that the cache shares with the kernel. */
    for (int there = 0; there < 2; there++) {
        unsigned failures = 0;
        for (uint32_t nth = 1;; nth++) {
            fake_metal_reset(NULL);
            if (files_count(path) > 0 && there == 0) {
                assert_int_equal(unlink(path), 0);
            }
            void *state = device_open_cached(dir);
            const umo_program_source source = text_source(kernel_text);
            adder add = {0};
            umo_error error = {0};
            fake_metal_fail_nth(nth);
            umo_status status = driver->program_create(state, &source, &add.program, &error);
            if (status == UMO_OK) {
                status = driver->kernel_create(state, add.program, "add", &add.kernel, &error);
            }
            bool reached = fake_metal_failed()[0] != '\0';
            fake_metal_fail_nth(0);
            if (status != UMO_OK) {
                failures++;
                assert_string_not_equal(error.text, "");
            }
            if (add.kernel != NULL) {
                driver->kernel_destroy(state, add.kernel);
            }
            if (add.program != NULL) {
                driver->program_destroy(state, add.program);
            }
            device_close(state);
            if (!reached) {
                break;
            }
        }
        /* The text, the options, the library, the kernel's name, the function and the descriptor;
         * and the pipeline, where no other way to it is left. */
        assert_int_equal(failures, there == 0 ? 7 : 6);
        assert_false(add_compiles());
    }
}

static void a_path_that_is_too_long_is_no_cache(void **unused)
{
    (void)unused;
    /* It fits as a folder, but not with a name behind it. */
    char wish[512];
    memset(wish, 'a', sizeof wish);
    wish[0] = '/';
    wish[sizeof wish - 1] = '\0';
    fake_metal_mark();
    assert_true(build_compiles(wish, kernel_text, NULL, "add"));
    assert_int_equal(fake_metal_messages_of("serializeToURL:error:"), 1);
    assert_int_equal(files_count(NULL), 0);
}

/* ---- many at once ---- */

static void *build_run(void *opaque)
{
    void *state = opaque;
    const umo_program_source source = text_source(kernel_text);
    for (int i = 0; i < 20; i++) {
        void *program = NULL;
        void *kernel = NULL;
        if (driver->program_create(state, &source, &program, NULL) != UMO_OK) {
            return "program";
        }
        if (driver->kernel_create(state, program, "add", &kernel, NULL) != UMO_OK) {
            driver->program_destroy(state, program);
            return "kernel";
        }
        driver->kernel_destroy(state, kernel);
        driver->program_destroy(state, program);
    }
    return NULL;
}

static void many_threads_build_one_text(void **unused)
{
    (void)unused;
    pthread_t threads[4];
    void *state = device_open_cached(dir);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, build_run, state), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        void *wrong = NULL;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    device_close(state);
    assert_int_equal(files_count(NULL), 1);
    assert_false(add_compiles());
}

/* Two kernels of one program at the same time: neither's work is lost. */
typedef struct maker {
    void *state;
    void *program;
    const char *name;
    bool failed;
} maker;

static void *maker_run(void *opaque)
{
    maker *m = opaque;
    void *kernel = NULL;
    m->failed = driver->kernel_create(m->state, m->program, m->name, &kernel, NULL) != UMO_OK;
    if (!m->failed) {
        driver->kernel_destroy(m->state, kernel);
    }
    return NULL;
}

static void threads_that_share_a_program_lose_no_kernel(void **unused)
{
    (void)unused;
    fake_metal_kernel_register(&(fake_metal_kernel){.name = "add_again", .run = add_run});
    const umo_program_source source = text_source(two_text);
    void *program = NULL;
    void *state = device_open_cached(dir);
    assert_int_equal(driver->program_create(state, &source, &program, NULL), UMO_OK);
    maker makers[] = {{state, program, "add", false}, {state, program, "add_again", false}};
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, maker_run, &makers[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(makers[i].failed);
    }
    driver->program_destroy(state, program);
    device_close(state);
    assert_false(build_compiles(dir, two_text, NULL, "add"));
    assert_false(build_compiles(dir, two_text, NULL, "add_again"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CACHE_TEST(a_kernel_is_compiled_once_and_then_read),
        CACHE_TEST(the_folder_is_made_for_its_user_alone),
        CACHE_TEST(other_texts_options_devices_have_files_of_their_own),
        CACHE_TEST(the_kernels_of_a_program_share_a_file),
        CACHE_TEST(the_cache_is_switched_off),
        CACHE_TEST(a_file_that_is_no_archive_is_made_anew),
        CACHE_TEST(an_archive_of_something_else_is_added_to),
        CACHE_TEST(a_folder_that_cannot_be_written_to_does_no_harm),
        CACHE_TEST(a_file_that_cannot_take_its_place_leaves_nothing_beside_it),
        CACHE_TEST(no_call_about_the_cache_fails_a_kernel),
        CACHE_TEST(a_path_that_is_too_long_is_no_cache),
        CACHE_TEST(many_threads_build_one_text),
        CACHE_TEST(threads_that_share_a_program_lose_no_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
