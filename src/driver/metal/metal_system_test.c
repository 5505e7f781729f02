/*
 * What the Metal driver asks of the system fails: memory, threads, and what the system knows of
 * mappings and of itself. The calls are redirected when this program is linked
 * (src/CMakeLists.txt).
 */
#include "driver/metal/metal_scene_test.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- the calls that fail ---- */

static _Atomic bool armed;
static _Atomic bool failed;
static _Atomic unsigned long calls;
static unsigned long fail_at;
static _Atomic bool mappings_unknown;
static _Atomic bool release_unknown;
static const char *symbol_missing; /* NULL: none */

static bool fault(void)
{
    if (!armed || ++calls != fail_at) {
        return false;
    }
    failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
umo_status __real_umo_os_mapping_query(const void *address, umo_mapping *out);
bool __real_umo_os_release(char *out, size_t out_bytes);
void *__real_umo_os_library_symbol(void *library, const char *name);
/* Visible, as the linker looks for them from the fake's side too. */
UMO_API void *__wrap_malloc(size_t size);
UMO_API void *__wrap_calloc(size_t count, size_t size);
UMO_API int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                                  void *(*run)(void *), void *argument);
UMO_API umo_status __wrap_umo_os_mapping_query(const void *address, umo_mapping *out);
UMO_API bool __wrap_umo_os_release(char *out, size_t out_bytes);
UMO_API void *__wrap_umo_os_library_symbol(void *library, const char *name);

void *__wrap_malloc(size_t size)
{
    return fault() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fault() ? NULL : __real_calloc(count, size);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument)
{
    return fault() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

umo_status __wrap_umo_os_mapping_query(const void *address, umo_mapping *out)
{
    return mappings_unknown ? UMO_E_UNSUPPORTED : __real_umo_os_mapping_query(address, out);
}

bool __wrap_umo_os_release(char *out, size_t out_bytes)
{
    return !release_unknown && __real_umo_os_release(out, out_bytes);
}

void *__wrap_umo_os_library_symbol(void *library, const char *name)
{
    return symbol_missing != NULL && strcmp(name, symbol_missing) == 0
               ? NULL
               : __real_umo_os_library_symbol(library, name);
}

static int system_teardown(void **unused)
{
    armed = false;
    mappings_unknown = false;
    release_unknown = false;
    symbol_missing = NULL;
    return metal_teardown(unused);
}

#define SYSTEM_TEST(name) cmocka_unit_test_setup_teardown(name, metal_setup, system_teardown)

/* ---- memory and threads ---- */

static void memory_that_is_out_is_reported_and_a_missing_thread_done_without(void **unused)
{
    (void)unused;
    scene s;
    unsigned without = 0;
    scene_pages_make(&s);
    assert_int_equal(scene_play(&s, &no_options), UMO_OK);
    scene_clear(&s);
    for (unsigned long n = 1;; n++) {
        fail_at = n;
        calls = 0;
        failed = false;
        armed = true;
        umo_status status = scene_play(&s, &no_options);
        armed = false;
        scene_clear(&s);
        assert_int_equal(scene_play(&s, &no_options), UMO_OK);
        scene_clear(&s);
        if (!failed) {
            assert_int_equal(status, UMO_OK);
            assert_true(n > 8);
            break;
        }
        assert_true(status == UMO_OK || status == UMO_E_NOMEM);
        without += status == UMO_OK;
    }
    /* Three heaps, and the thread that keeps memory wired. */
    assert_int_equal(without, 4);
    scene_pages_free(&s);
}

static void without_a_thread_memory_is_never_wired_and_everything_works(void **unused)
{
    (void)unused;
    unsigned char bytes[64];
    unsigned char back[64];
    void *state = device_open();
    umo_memory memory = memory_make(state, 64, UMO_PRIVATE);
    pattern_fill(bytes, 64, 3);
    fake_metal_mark();
    fail_at = 1;
    calls = 0;
    armed = true;
    umo_fence up = upload_give(state, 0, &memory, 0, 64, bytes, NULL, 0);
    armed = false;
    assert_int_equal(calls, 1);
    fence_pass(state, up);
    /* It is not tried again. */
    armed = true;
    download(state, &memory, 0, 64, back);
    armed = false;
    assert_int_equal(calls, 1);
    assert_memory_equal(back, bytes, 64);
    driver->free(state, &memory);
    device_close(state);
    assert_int_equal(fake_metal_messages_of("requestResidency"), 0);
}

/* ---- what the system knows ---- */

static void without_sight_of_mappings_metal_decides(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(page);
    void *state = device_open();
    umo_memory memory;
    mappings_unknown = true;
    umo_status status = driver->import(state, pages, page, UMO_IMPORT_READ, &memory, NULL, NULL);
    mappings_unknown = false;
    assert_int_equal(status, UMO_OK);
    driver->free(state, &memory);
    device_close(state);
    umo_os_pages_free(pages, page);
}

static void without_sight_of_mappings_transfers_are_staged(void **unused)
{
    (void)unused;
    enum {
        SIZE = 512 << 10
    };
    unsigned char *pages = umo_os_pages_alloc(SIZE);
    void *state = device_open();
    umo_memory memory = memory_make(state, SIZE, UMO_PRIVATE);
    pattern_fill(pages, SIZE, 1);
    mappings_unknown = true;
    fake_metal_mark();
    umo_fence fence = upload_give(state, 0, &memory, 0, SIZE, pages, NULL, 0);
    mappings_unknown = false;
    assert_int_equal(fake_metal_messages_of("newBufferWithBytesNoCopy:length:options:deallocator:"),
                     0);
    fence_pass(state, fence);
    memset(pages, 0, SIZE);
    download(state, &memory, 0, SIZE, pages);
    unsigned char *expected = umo_os_pages_alloc(SIZE);
    pattern_fill(expected, SIZE, 1);
    assert_memory_equal(pages, expected, SIZE);
    driver->free(state, &memory);
    device_close(state);
    umo_os_pages_free(expected, SIZE);
    umo_os_pages_free(pages, SIZE);
}

static void without_the_systems_version_nothing_is_cached(void **unused)
{
    (void)unused;
    assert_int_equal(setenv("UMO_METAL_CACHE", "/dev/null/umo", 1), 0);
    void *state = device_open();
    assert_int_equal(setenv("UMO_METAL_CACHE", "0", 1), 0);
    release_unknown = true;
    fake_metal_mark();
    adder add = adder_create(state);
    assert_int_equal(fake_metal_messages_of("newBinaryArchiveWithDescriptor:error:"), 0);
    adder_destroy(state, add);
    device_close(state);
}

static void a_library_without_an_entry_point_is_refused_by_its_name(void **unused)
{
    (void)unused;
    static const char *const names[] = {
        "objc_msgSend",      "objc_autoreleasePoolPush", "objc_autoreleasePoolPop",
        "MTLCopyAllDevices", "_NSConcreteStackBlock",    "sel_registerName",
        "objc_getClass"};
    const char *library = getenv("UMO_METAL_LIBRARY");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        umo_metal_api api = {.pool_push = NULL};
        umo_error error = {0};
        char expected[64] = "Metal lacks ";
        (void)strcat(expected, names[i]);
        symbol_missing = names[i];
        assert_int_equal(umo_metal_api_load(library, &api, &error), UMO_E_NOT_FOUND);
        assert_string_equal(error.text, expected);
        assert_null(api.pool_push);
    }
    umo_metal_api api;
    symbol_missing = NULL;
    assert_int_equal(umo_metal_api_load(library, &api, NULL), UMO_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYSTEM_TEST(memory_that_is_out_is_reported_and_a_missing_thread_done_without),
        SYSTEM_TEST(without_a_thread_memory_is_never_wired_and_everything_works),
        SYSTEM_TEST(without_sight_of_mappings_metal_decides),
        SYSTEM_TEST(without_sight_of_mappings_transfers_are_staged),
        SYSTEM_TEST(without_the_systems_version_nothing_is_cached),
        SYSTEM_TEST(a_library_without_an_entry_point_is_refused_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
