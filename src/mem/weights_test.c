/*
 * Files of weights: what is the same file, what is not, and what devices share of them.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"

#include <umo/weights.h>

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    FILE_BYTES = 200 * 1000, /* ends inside a page, whatever its size */
    PATH_BYTES = 128,
    THREADS = 8,
    ROUNDS = 60
};

static char folder[] = "/tmp/umo-weights-XXXXXX";
static umo_scope *scope;

static const char *path_of(const char *name)
{
    static _Thread_local char paths[8][PATH_BYTES];
    static _Thread_local int turn;
    char *path = paths[turn++ % 8];
    assert_true(snprintf(path, PATH_BYTES, "%s/%s", folder, name) < PATH_BYTES);
    return path;
}

static unsigned char byte_at(size_t offset, unsigned seed)
{
    return (unsigned char)(offset * 31 + offset / 251 + seed);
}

static void write_file(const char *name, size_t size_bytes, unsigned seed)
{
    FILE *file = fopen(path_of(name), "wb");
    unsigned char *bytes = malloc(size_bytes + 1);
    assert_non_null(file);
    assert_non_null(bytes);
    for (size_t i = 0; i < size_bytes; i++) {
        bytes[i] = byte_at(i, seed);
    }
    assert_int_equal(fwrite(bytes, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
    free(bytes);
}

/* In place: size_bytes long afterwards, and this byte at its end. */
static void change_end(const char *name, size_t size_bytes, unsigned char last)
{
    int file = open(path_of(name), O_WRONLY | O_CREAT, 0600);
    assert_true(file >= 0);
    assert_int_equal(ftruncate(file, (off_t)size_bytes), 0);
    assert_int_equal(pwrite(file, &last, 1, (off_t)size_bytes - 1), 1);
    assert_int_equal(close(file), 0);
}

static umo_weights *opened(const char *name, uint32_t flags)
{
    umo_weights *weights = NULL;
    umo_error error = {0};
    if (umo_weights_open(path_of(name), scope, flags, &weights, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return weights;
}

static umo_weights_stats stats(void)
{
    umo_weights_stats s;
    umo_weights_read(&s);
    return s;
}

static umo_counters counters(void)
{
    umo_counters c;
    umo_scope_read(scope, &c);
    return c;
}

static int setup(void **state)
{
    (void)state;
    write_file("weights", FILE_BYTES, 0);
    return umo_scope_create(NULL, "weights", 0, &scope, NULL) == UMO_OK ? 0 : -1;
}

/* Nothing of any test stays behind. */
static int teardown(void **state)
{
    (void)state;
    umo_weights_stats s = stats();
    umo_counters c = counters();
    umo_scope_destroy(scope);
    wrapper = (wrapper_switches){0};
    return s.files == 0 && s.users == 0 && s.mapped_bytes == 0 && s.buffers == 0 &&
                   s.copied_bytes == 0 && c.live_bytes == 0 && c.live_buffers == 0 &&
                   wrapper_calls.live == 0
               ? 0
               : -1;
}

static void one_file_is_mapped_once_by_whatever_path(void **state)
{
    (void)state;
    umo_weights_stats before = stats();
    umo_weights *first = opened("weights", 0);
    umo_weights *second = opened("./weights", 0);
    assert_ptr_equal(first, second);
#ifndef __APPLE__ /* the loader that runs this there knows no links */
    assert_int_equal(link(path_of("weights"), path_of("hard")), 0);
    assert_int_equal(symlink("hard", path_of("soft")), 0);
    umo_weights *third = opened("soft", 0);
    assert_ptr_equal(first, third);
    umo_weights_release(third);
    assert_int_equal(unlink(path_of("hard")), 0);
    assert_int_equal(unlink(path_of("soft")), 0);
#endif
    assert_int_equal(umo_weights_size(first), FILE_BYTES);
    const unsigned char *data = umo_weights_data(first);
    for (size_t i = 0; i < FILE_BYTES; i++) {
        assert_int_equal(data[i], byte_at(i, 0));
    }
    assert_int_equal(stats().files, 1);
    assert_int_equal(stats().users, 2);
    assert_int_equal(stats().mapped_bytes, FILE_BYTES);
    assert_int_equal(stats().misses - before.misses, 1);
    assert_int_equal(counters().imported.events, 1);
    assert_int_equal(counters().imported.bytes, FILE_BYTES);
    assert_int_equal(counters().live_bytes, 0);
    umo_weights_release(first);
    assert_int_equal(((const unsigned char *)umo_weights_data(second))[7], byte_at(7, 0));
    umo_weights_release(second);
    umo_weights_release(NULL);
}

static void file_that_took_anothers_place_is_another(void **state)
{
    (void)state;
    umo_weights *old = opened("weights", 0);
    write_file("fresh", FILE_BYTES, 1);
    assert_int_equal(rename(path_of("fresh"), path_of("weights")), 0);
    umo_weights *fresh = opened("weights", 0);
    assert_ptr_not_equal(old, fresh);
    /* The old bytes live on, and nobody wrote to them. */
    assert_int_equal(umo_weights_check(old, NULL), UMO_OK);
    assert_int_equal(((const unsigned char *)umo_weights_data(old))[5], byte_at(5, 0));
    assert_int_equal(((const unsigned char *)umo_weights_data(fresh))[5], byte_at(5, 1));
    umo_weights_release(old);
    umo_weights_release(fresh);
}

static void copies_are_one_on_request_alone(void **state)
{
    (void)state;
    umo_weights *first = opened("weights", 0);
    write_file("copy", FILE_BYTES, 0);
    write_file("other", FILE_BYTES, 0);
    change_end("other", FILE_BYTES, byte_at(FILE_BYTES - 1, 0) ^ 1);
    umo_weights *apart = opened("copy", 0);
    assert_ptr_not_equal(apart, first);
    umo_weights_release(apart);
    umo_weights *joined = opened("copy", UMO_WEIGHTS_SAME_BYTES);
    assert_ptr_equal(joined, first);
    umo_weights *differs = opened("other", UMO_WEIGHTS_SAME_BYTES);
    assert_ptr_not_equal(differs, first);
    /* Past one that differs, the right one is found. */
    umo_weights *again = opened("copy", UMO_WEIGHTS_SAME_BYTES);
    assert_ptr_equal(again, first);
    assert_int_equal(stats().files, 2);
    umo_weights_release(again);
    umo_weights_release(joined);
    umo_weights_release(differs);
    umo_weights_release(first);
}

static void copy_of_a_changed_file_is_not_looked_for_in_it(void **state)
{
    (void)state;
    umo_weights *first = opened("weights", 0);
    write_file("copy", FILE_BYTES, 0);
    /* Cut short behind its first page: comparing with what is gone would end the process. */
    size_t page = umo_os_page_bytes();
    change_end("weights", page, byte_at(page - 1, 0));
    umo_weights *copy = opened("copy", UMO_WEIGHTS_SAME_BYTES);
    assert_ptr_not_equal(copy, first);
    umo_weights_release(first);
    umo_weights_release(copy);
}

static void what_is_no_file_of_bytes_is_refused_in_words(void **state)
{
    (void)state;
    umo_weights *none = NULL;
    write_file("empty", 0, 0);
    const struct {
        const char *path;
        umo_status status;
        const char *words;
    } cases[] = {
        {path_of("missing"), UMO_E_NOT_FOUND, "there is none"},
        {path_of("weights/below"), UMO_E_NOT_FOUND, "there is none"},
        {path_of("empty"), UMO_E_INVAL, "an empty file"},
        {folder, UMO_E_INVAL, "no regular file"},
        {"/dev/null", UMO_E_INVAL, "no regular file"},
        {NULL, UMO_E_INVAL, "a path"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        umo_error error = {0};
        assert_int_equal(umo_weights_open(cases[i].path, scope, 0, &none, &error), cases[i].status);
        assert_non_null(strstr(error.text, cases[i].words));
        assert_null(none);
    }
    assert_int_equal(umo_weights_open(path_of("weights"), NULL, 0, &none, NULL), UMO_E_INVAL);
    assert_int_equal(umo_weights_open(path_of("weights"), scope, 2, &none, NULL), UMO_E_INVAL);
}

static void writing_to_an_open_file_is_told(void **state)
{
    (void)state;
    const struct timespec tick = {.tv_nsec = 30 * 1000 * 1000};
    umo_weights *weights = opened("weights", 0);
    umo_error error = {0};
    assert_int_equal(umo_weights_check(weights, &error), UMO_OK);
    (void)nanosleep(&tick, NULL);
    write_file("weights", FILE_BYTES, 9); /* in place: the same inode and length */
    assert_int_equal(umo_weights_check(weights, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "written to"));
    /* Who opens it now gets what it has become. */
    umo_weights *now = opened("weights", 0);
    assert_ptr_not_equal(now, weights);
    assert_int_equal(umo_weights_check(now, NULL), UMO_OK);
    change_end("weights", 100, 1);
    assert_int_equal(umo_weights_check(now, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "cut short"));
    umo_device *device = wrapper_device(NULL, NULL);
    umo_buffer *none = NULL;
    assert_int_equal(
        umo_weights_buffer(now, device, UMO_PRIVATE, 0, FILE_BYTES, &none, NULL, &error),
        UMO_E_NOT_FOUND);
    assert_null(none);
    umo_device_release(device);
    umo_weights_release(weights);
    umo_weights_release(now);
}

/* A file lies by pages of this system, not by longer ones that umo is made to believe in: what such
 * a device binds around it may not be the file's. */
static void needs_the_systems_own_pages(void)
{
#ifdef UMO_PAGE_BYTES
    print_message("skipped: a file is mapped by this system's pages, not by pretended ones\n");
    skip();
#endif
}

static umo_buffer *buffer_of(umo_weights *weights, umo_device *device, umo_storage_mode mode,
                             size_t offset, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    umo_reason why = UMO_REASON_COUNT;
    if (umo_weights_buffer(weights, device, mode, offset, size_bytes, &buffer, &why, &error) !=
        UMO_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(why, UMO_REASON_NONE);
    assert_int_equal(umo_buffer_size(buffer), size_bytes);
    return buffer;
}

static void assert_shows(umo_buffer *buffer, size_t offset, size_t size_bytes)
{
    umo_fence done;
    unsigned char *got = malloc(size_bytes);
    assert_non_null(got);
    assert_int_equal(umo_buffer_download(buffer, 0, got, size_bytes, 0, &done), UMO_OK);
    assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
    for (size_t i = 0; i < size_bytes; i++) {
        assert_int_equal(got[i], byte_at(offset + i, 0));
    }
    free(got);
}

static void equal_ranges_on_a_device_are_one_buffer(void **state)
{
    (void)state;
    needs_the_systems_own_pages();
    const wrapper_switches pages = {.import_align_bytes = umo_os_page_bytes(),
                                    .import_size_align_bytes = umo_os_page_bytes()};
    umo_device *device = wrapper_device(&pages, NULL);
    umo_weights *first = opened("weights", 0);
    umo_weights *second = opened("weights", 0);
    uint64_t imports = wrapper_calls.import;
    umo_buffer *a = buffer_of(first, device, UMO_UNIFIED, 1000, FILE_BYTES - 1000);
    umo_buffer *b = buffer_of(second, device, UMO_UNIFIED, 1000, FILE_BYTES - 1000);
    umo_buffer *c = buffer_of(second, device, UMO_UNIFIED, 1001, FILE_BYTES - 1001);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_int_equal(wrapper_calls.import - imports, 2);
    assert_ptr_equal(umo_buffer_host(a), (const char *)umo_weights_data(first) + 1000);
    assert_false(umo_buffer_writable(a));
    assert_shows(a, 1000, FILE_BYTES - 1000);
    assert_int_equal(stats().buffers, 2);
    assert_int_equal(stats().copied_bytes, 0);
    assert_int_equal(counters().live_bytes, 0);
    umo_buffer_release(a);
    umo_buffer_release(b);
    umo_buffer_release(c);
    umo_weights_release(first);
    umo_weights_release(second);
    umo_device_release(device);
}

static void private_copy_is_made_once_and_goes_with_its_last_user(void **state)
{
    (void)state;
    umo_device *device = wrapper_device(NULL, NULL);
    umo_weights *first = opened("weights", 0);
    umo_weights *second = opened("weights", 0);
    uint64_t allocs = wrapper_calls.alloc;
    umo_buffer *a = buffer_of(first, device, UMO_PRIVATE, 4096, 64 * 1024);
    umo_buffer *b = buffer_of(second, device, UMO_PRIVATE, 4096, 64 * 1024);
    assert_ptr_equal(a, b);
    assert_int_equal(umo_buffer_mode(a), UMO_PRIVATE);
    assert_int_equal(wrapper_calls.alloc - allocs, 1);
    assert_shows(a, 4096, 64 * 1024);
    assert_int_equal(stats().copied_bytes, 64 * 1024);
    assert_true(counters().live_bytes >= 64 * 1024);
    umo_buffer_release(a);
    umo_weights_release(first);
    assert_int_equal(stats().copied_bytes, 64 * 1024); /* b */
    umo_buffer_release(b);
    umo_weights *third = opened("weights", 0);
    umo_weights_release(third); /* any use that ends lets go of what nobody holds */
    assert_int_equal(stats().copied_bytes, 0);
    assert_int_equal(counters().live_bytes, 0);
    umo_weights_release(second);
    umo_device_release(device);
}

static void buffer_outlives_the_file(void **state)
{
    (void)state;
    needs_the_systems_own_pages();
    umo_device *device = wrapper_device(NULL, NULL);
    umo_weights *weights = opened("weights", 0);
    umo_buffer *buffer = buffer_of(weights, device, UMO_UNIFIED, 0, FILE_BYTES);
    umo_weights_release(weights);
    assert_int_equal(stats().files, 0);
    assert_shows(buffer, 0, FILE_BYTES);
    umo_buffer_release(buffer);
    umo_device_release(device);
}

static void refusal_names_its_reason_and_leaves_nothing(void **state)
{
    (void)state;
    const wrapper_switches none = {.caps_off = UMO_CAP_IMPORT_READ};
    umo_device *device = wrapper_device(&none, NULL);
    umo_weights *weights = opened("weights", 0);
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_NONE;
    assert_int_equal(
        umo_weights_buffer(weights, device, UMO_UNIFIED, 0, FILE_BYTES, &buffer, &why, NULL),
        UMO_E_REFUSED);
    assert_int_equal(why, UMO_REASON_DEVICE_REFUSED);
    assert_null(buffer);
    assert_int_equal(stats().buffers, 0);
    buffer = buffer_of(weights, device, UMO_PRIVATE, 0, FILE_BYTES);
    assert_shows(buffer, 0, FILE_BYTES);
    umo_buffer_release(buffer);
    const struct {
        size_t offset, size_bytes;
    } outside[] = {{0, 0}, {0, FILE_BYTES + 1}, {FILE_BYTES, 1}, {1, SIZE_MAX}, {SIZE_MAX, 2}};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        assert_int_equal(umo_weights_buffer(weights, device, UMO_PRIVATE, outside[i].offset,
                                            outside[i].size_bytes, &buffer, NULL, NULL),
                         UMO_E_INVAL);
    }
    umo_weights_release(weights);
    umo_device_release(device);
}

static void pages_behind_the_files_end_are_not_bound(void **state)
{
    (void)state;
    const wrapper_switches wide = {.import_align_bytes = umo_os_page_bytes(),
                                   .import_size_align_bytes = (size_t)1 << 24};
    umo_device *device = wrapper_device(&wide, NULL);
    umo_weights *weights = opened("weights", 0);
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_NONE;
    assert_int_equal(
        umo_weights_buffer(weights, device, UMO_UNIFIED, 0, FILE_BYTES, &buffer, &why, NULL),
        UMO_E_REFUSED);
    assert_true(why == UMO_REASON_NOT_ONE_MAPPING || why == UMO_REASON_NO_IDENTITY);
    umo_weights_release(weights);
    umo_device_release(device);
}

static int failures_left;
static const char *failing_entry = "alloc";

static bool fails_for_a_while(const char *entry)
{
    return strcmp(entry, failing_entry) == 0 && failures_left-- > 0;
}

static void failed_copy_is_tried_again_by_the_next(void **state)
{
    (void)state;
    const wrapper_switches failing = {.fails = fails_for_a_while};
    umo_device *device = wrapper_device(&failing, NULL);
    umo_weights *weights = opened("weights", 0);
    umo_buffer *buffer = NULL;
    failures_left = 1; /* alloc */
    assert_int_equal(
        umo_weights_buffer(weights, device, UMO_PRIVATE, 0, FILE_BYTES, &buffer, NULL, NULL),
        UMO_E_NOMEM);
    failing_entry = "transfer";
    failures_left = 1;
    assert_int_equal(
        umo_weights_buffer(weights, device, UMO_PRIVATE, 0, FILE_BYTES, &buffer, NULL, NULL),
        UMO_E_DEVICE);
    assert_int_equal(stats().buffers, 0);
    buffer = buffer_of(weights, device, UMO_PRIVATE, 0, FILE_BYTES);
    umo_buffer_release(buffer);
    umo_weights_release(weights);
    umo_device_release(device);
}

static void copy_honours_the_budget(void **state)
{
    (void)state;
    umo_scope *small = NULL;
    umo_weights *weights = NULL;
    umo_buffer *buffer = NULL;
    umo_device *device = wrapper_device(NULL, NULL);
    assert_int_equal(umo_scope_create(scope, "small", 1000, &small, NULL), UMO_OK);
    assert_int_equal(umo_weights_open(path_of("weights"), small, 0, &weights, NULL), UMO_OK);
    assert_int_equal(umo_weights_buffer(weights, device, UMO_PRIVATE, 0, 5000, &buffer, NULL, NULL),
                     UMO_E_LIMIT);
    umo_scope_destroy(small); /* the weights hold it */
    buffer = buffer_of(weights, device, UMO_PRIVATE, 0, 500);
    umo_buffer_release(buffer);
    umo_weights_release(weights);
    umo_device_release(device);
}

static void file_beyond_two_gibibytes_is_seen_to_its_end(void **state)
{
    (void)state;
    if (sizeof(size_t) < 8) {
        skip();
    }
    const size_t size_bytes = ((size_t)5 << 29) + 3;
    change_end("long", size_bytes, 77); /* after a hole */
    umo_device *device = wrapper_device(NULL, NULL);
    umo_weights *weights = opened("long", 0);
    assert_int_equal(umo_weights_size(weights), size_bytes);
    umo_buffer *buffer = buffer_of(weights, device, UMO_PRIVATE, size_bytes - 2, 2);
    unsigned char got[2];
    umo_fence done;
    assert_int_equal(umo_buffer_download(buffer, 0, got, 2, 0, &done), UMO_OK);
    assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
    assert_true(got[0] == 0 && got[1] == 77);
    umo_buffer_release(buffer);
    umo_weights_release(weights);
    umo_device_release(device);
    assert_int_equal(unlink(path_of("long")), 0);
}

/* ---- threads ---- */

static umo_device *common_device;
static _Atomic int most_allocs;

static void *use_it(void *argument)
{
    const char *name = argument;
    for (int round = 0; round < ROUNDS; round++) {
        umo_weights *weights = opened(name, UMO_WEIGHTS_SAME_BYTES);
        umo_storage_mode mode = round % 2 == 0 ? UMO_PRIVATE : UMO_UNIFIED;
        umo_buffer *buffer = buffer_of(weights, common_device, mode, 100, 8000);
        int live = (int)wrapper_calls.live;
        int most = most_allocs;
        while (live > most && !atomic_compare_exchange_weak(&most_allocs, &most, live)) {
        }
        unsigned char got[64];
        umo_fence done;
        assert_int_equal(umo_buffer_download(buffer, 0, got, sizeof got, 0, &done), UMO_OK);
        assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
        assert_int_equal(got[5], byte_at(105, 0));
        umo_buffer_release(buffer);
        umo_weights_release(weights);
    }
    return NULL;
}

static void threads_share_one_mapping_and_one_copy(void **state)
{
    (void)state;
    needs_the_systems_own_pages();
    static char names[2][16] = {"weights", "copy"};
    pthread_t threads[THREADS];
    write_file("copy", FILE_BYTES, 0);
    common_device = wrapper_device(NULL, NULL);
    most_allocs = 0;
    umo_weights *held = opened("weights", 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use_it, names[i % 2]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(stats().files, 1);
    /* A copy and an import, and at most one of each on its way out. */
    assert_in_range(most_allocs, 1, 4 + THREADS);
    umo_weights_release(held);
    umo_device_release(common_device);
}

static _Atomic int makers;
static _Atomic int most_makers;

static bool sees_makers(const char *entry)
{
    if (strcmp(entry, "transfer") == 0) {
        int now = ++makers;
        const struct timespec while_others_ask = {.tv_nsec = 20 * 1000 * 1000};
        (void)nanosleep(&while_others_ask, NULL);
        if (now > most_makers) {
            most_makers = now;
        }
    }
    return false;
}

static umo_weights *common_weights;
static umo_buffer *gathered[THREADS];

static void *ask_once(void *argument)
{
    umo_buffer **out = argument;
    *out = buffer_of(common_weights, common_device, UMO_PRIVATE, 0, FILE_BYTES);
    return NULL;
}

static void who_asks_while_a_copy_is_made_waits_for_it(void **state)
{
    (void)state;
    const wrapper_switches slow = {.fails = sees_makers};
    pthread_t threads[THREADS];
    common_device = wrapper_device(&slow, NULL);
    common_weights = opened("weights", 0);
    uint64_t allocs = wrapper_calls.alloc;
    makers = most_makers = 0;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_once, &gathered[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(wrapper_calls.alloc - allocs, 1);
    assert_int_equal(most_makers, 1);
    for (int i = 0; i < THREADS; i++) {
        assert_ptr_equal(gathered[i], gathered[0]);
        umo_buffer_release(gathered[i]);
    }
    umo_weights_release(common_weights);
    umo_device_release(common_device);
}

static void remove_files(void)
{
    static const char *const names[] = {"weights", "copy", "other", "empty", "fresh", "long"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)unlink(path_of(names[i]));
    }
    (void)rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        TEST(one_file_is_mapped_once_by_whatever_path),
        TEST(file_that_took_anothers_place_is_another),
        TEST(copies_are_one_on_request_alone),
        TEST(copy_of_a_changed_file_is_not_looked_for_in_it),
        TEST(what_is_no_file_of_bytes_is_refused_in_words),
        TEST(writing_to_an_open_file_is_told),
        TEST(equal_ranges_on_a_device_are_one_buffer),
        TEST(private_copy_is_made_once_and_goes_with_its_last_user),
        TEST(buffer_outlives_the_file),
        TEST(refusal_names_its_reason_and_leaves_nothing),
        TEST(pages_behind_the_files_end_are_not_bound),
        TEST(failed_copy_is_tried_again_by_the_next),
        TEST(copy_honours_the_budget),
        TEST(file_beyond_two_gibibytes_is_seen_to_its_end),
        TEST(threads_share_one_mapping_and_one_copy),
        TEST(who_asks_while_a_copy_is_made_waits_for_it),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_files();
    return failed;
}
