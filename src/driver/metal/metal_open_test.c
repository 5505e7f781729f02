/*
 * Finding and opening Metal's devices: systems without Metal, with half of it, with several
 * devices; and what a device says of itself.
 */
#include "driver/metal/metal_test.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- no Metal ---- */

static void without_a_library_the_words_name_the_remedy(void **unused)
{
    (void)unused;
    umo_metal_api api;
    umo_error error = {0};
    assert_int_equal(umo_metal_api_load("/nonexistent/Metal", &api, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "UMO_METAL_LIBRARY names a library that does not load"));
    assert_int_equal(umo_metal_api_load("/nonexistent/Metal", &api, NULL), UMO_E_NOT_FOUND);
}

/* Has to come first: what has been loaded once is kept. */
static void a_library_that_comes_later_is_found(void **unused)
{
    (void)unused;
    char library[1024];
    umo_error error = {0};
    umo_device_info info;
    uint32_t count = 77;
    void *state = NULL;
    assert_true(strlen(getenv("UMO_METAL_LIBRARY")) < sizeof library);
    (void)strcpy(library, getenv("UMO_METAL_LIBRARY"));
    assert_int_equal(setenv("UMO_METAL_LIBRARY", "/nonexistent/Metal", 1), 0);
    assert_int_equal(driver->count(&count, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "UMO_METAL_LIBRARY"));
    assert_int_equal(driver->open(0, &no_options, &state, &info, &error), UMO_E_NOT_FOUND);
    assert_int_equal(count, 77);
    assert_null(state);
    assert_int_equal(setenv("UMO_METAL_LIBRARY", library, 1), 0);
    assert_int_equal(driver->count(&count, &error), UMO_OK);
    assert_int_equal(count, 1);
    assert_int_equal(setenv("UMO_METAL_LIBRARY", "/nonexistent/Metal", 1), 0);
    assert_int_equal(driver->count(&count, &error), UMO_OK);
    assert_int_equal(setenv("UMO_METAL_LIBRARY", library, 1), 0);
    assert_nothing_left();
}

#ifdef __linux__
static void a_system_that_is_no_mac_has_no_metal(void **unused)
{
    (void)unused;
    umo_metal_api api;
    umo_error error = {0};
    assert_int_equal(umo_metal_api_load(NULL, &api, &error), UMO_E_NOT_FOUND);
    assert_string_equal(error.text,
                        "there is no /usr/lib/libobjc.A.dylib: Metal is part of macOS; elsewhere "
                        "name another device");
}
#endif

static void without_a_device_the_words_name_the_remedy(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.devices = 0;
    fake_metal_reset(&options);
    umo_error error = {0};
    umo_device_info info = {.queues = 77};
    uint32_t count = 77;
    void *state = &count;
    for (int way = 0; way < 2; way++) {
        assert_int_equal(driver->count(&count, &error), UMO_E_NOT_FOUND);
        assert_non_null(strstr(error.text, "Metal has no device here"));
        if (way == 1) {
            fake_metal_fail("MTLCopyAllDevices", 1);
        }
        assert_int_equal(driver->open(0, &no_options, &state, &info, &error), UMO_E_NOT_FOUND);
        assert_non_null(strstr(error.text, "Metal has no device here"));
        fake_metal_reset(NULL);
        fake_metal_fail("MTLCopyAllDevices", 1);
    }
    assert_int_equal(count, 77);
    assert_int_equal(info.queues, 77);
    assert_ptr_equal(state, &count);
    assert_nothing_left();
}

/* ---- devices ---- */

static void devices_are_opened_by_their_number(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.devices = 3;
    fake_metal_reset(&options);
    static const char *const names[] = {"Fake M1", "Fake M1 2", "Fake M1 3"};
    uint32_t count = 0;
    umo_error error = {0};
    void *states[3];
    assert_int_equal(driver->count(&count, &error), UMO_OK);
    assert_int_equal(count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        umo_device_info info;
        assert_int_equal(driver->open(i, &no_options, &states[i], &info, &error), UMO_OK);
        assert_string_equal(info.name, names[i]);
    }
    void *none = NULL;
    umo_device_info info;
    assert_int_equal(driver->open(3, &no_options, &none, &info, &error), UMO_E_NOT_FOUND);
    assert_string_equal(error.text, "Metal has 3 device(s), no number 3");
    assert_int_equal(driver->open(UINT32_MAX, &no_options, &none, &info, &error), UMO_E_NOT_FOUND);
    assert_null(none);
    /* Each works alone. */
    for (uint32_t i = 0; i < 3; i++) {
        unsigned char bytes[16];
        unsigned char back[16];
        umo_memory memory = memory_make(states[i], 16, UMO_PRIVATE);
        pattern_fill(bytes, 16, i);
        upload(states[i], &memory, 0, 16, bytes);
        download(states[i], &memory, 0, 16, back);
        assert_memory_equal(back, bytes, 16);
        driver->free(states[i], &memory);
    }
    for (uint32_t i = 0; i < 3; i++) {
        driver->close(states[i]);
    }
    assert_nothing_left();
}

static void one_device_is_opened_twice(void **unused)
{
    (void)unused;
    void *first = device_open();
    void *second = device_open();
    assert_int_equal(fake_metal_live("MTLDevice"), 1);
    driver->close(first);
    umo_memory memory = memory_make(second, 16, UMO_UNIFIED);
    driver->free(second, &memory);
    device_close(second);
}

static void a_device_without_queues_does_not_open(void **unused)
{
    (void)unused;
    static const char *const calls[] = {"newCommandQueueWithMaxCommandBufferCount:",
                                        "newSharedEvent"};
    for (size_t i = 0; i < 2; i++) {
        for (uint32_t q = 1; q <= UMO_METAL_QUEUES; q++) {
            umo_error error = {0};
            umo_device_info info;
            void *state = NULL;
            fake_metal_fail(calls[i], q);
            assert_int_equal(driver->open(0, &no_options, &state, &info, &error), UMO_E_DEVICE);
            assert_string_equal(
                error.text, "Metal gives no command queue, or no shared event (some sandboxes)");
            assert_null(state);
            assert_nothing_left();
        }
    }
}

/* ---- what a device says of itself ---- */

static umo_device_info facts_of(const fake_metal_options *options)
{
    umo_device_info info;
    fake_metal_reset(options);
    device_close(device_open_with(&no_options, &info));
    return info;
}

static void a_device_with_one_memory_says_so(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.working_set = UINT64_C(10) << 30;
    options.buffer_max = UINT64_C(3) << 30;
    umo_device_info info = facts_of(&options);
    assert_string_equal(info.driver, "metal");
    assert_string_equal(info.name, "Fake M1");
    assert_string_equal(info.family, "Apple 7, Metal 3");
    assert_true(info.unified);
    assert_int_equal(info.language, UMO_LANGUAGE_METAL);
    assert_int_equal(info.queues, UMO_METAL_QUEUES);
    assert_int_equal(info.memory_bytes, UINT64_C(10) << 30);
    assert_int_equal(info.buffer_max_bytes, UINT64_C(3) << 30);
    assert_int_equal(info.bandwidth_bytes_s, 0);
    assert_int_equal(info.import_align_bytes, pages_test_bytes());
    assert_int_equal(info.write_granule_bytes, umo_os_cache_line_bytes());
    assert_int_equal(info.caps, UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE |
                                    UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE | UMO_CAP_COHERENT |
                                    UMO_CAP_ASYNC | UMO_CAP_USAGE | UMO_CAP_PURGEABLE |
                                    UMO_CAP_KERNELS);
    void *state = device_open_with(&test_mode, &info);
    assert_true((info.caps & UMO_CAP_POISON) != 0);
    device_close(state);
}

static void families_are_named_by_the_newest(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t apple;
        bool mac2;
        bool metal3;
        bool unified;
        const char *family;
        bool kernels;
    } machines[] = {
        {7, true, true, true, "Apple 7, Metal 3", true},
        {9, true, true, true, "Apple 9, Metal 3", true},
        {20, true, true, true, "Apple 9, Metal 3", true}, /* the newest that is known */
        {7, true, false, true, "Apple 7", true},
        {4, false, false, true, "Apple 4", true},
        {3, false, false, true, "Apple 3", false}, /* only whole groups */
        {1, false, false, true, "Apple 1", false},
        {0, true, true, false, "Mac 2, Metal 3", true},
        {0, true, false, false, "Mac 2", true},
        {0, false, false, false, "unknown", false},
        {0, false, true, false, "unknown, Metal 3", false},
    };
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        fake_metal_options options = machine();
        options.apple_family = machines[i].apple;
        options.mac2 = machines[i].mac2;
        options.metal3 = machines[i].metal3;
        options.unified = machines[i].unified;
        umo_device_info info = facts_of(&options);
        assert_string_equal(info.family, machines[i].family);
        assert_int_equal((info.caps & UMO_CAP_KERNELS) != 0, machines[i].kernels);
        assert_int_equal(info.unified, machines[i].unified);
    }
}

static void a_chips_bandwidth_is_known_by_its_name(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        uint64_t gb_s;
    } chips[] = {{"Apple M1", 68},     {"Apple M2 Max", 400}, {"Apple M3 Ultra", 819},
                 {"Apple M5", 153},    {"Apple M1 ", 0},      {"Apple M99", 0},
                 {"AMD Radeon Pro", 0}};
    for (size_t i = 0; i < sizeof chips / sizeof chips[0]; i++) {
        fake_metal_options options = machine();
        (void)strcpy(options.name, chips[i].name);
        umo_device_info info = facts_of(&options);
        assert_int_equal(info.bandwidth_bytes_s, chips[i].gb_s * 1000000000u);
        assert_string_equal(info.name, chips[i].name);
    }
}

static void a_device_that_does_not_say_its_limit_does_not_open(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.buffer_max = 0;
    fake_metal_reset(&options);
    umo_error error = {0};
    umo_device_info info;
    void *state = NULL;
    assert_int_equal(driver->open(0, &no_options, &state, &info, &error), UMO_E_DEVICE);
    assert_string_equal(error.text, "Metal device 'Fake M1' does not say how long a buffer may be");
    assert_null(state);
    assert_nothing_left();
}

/* ---- the cache's place ---- */

static const char *cache_dir_of(const char *wish, const char *xdg, const char *home)
{
    static char dir[sizeof((umo_metal_state *)NULL)->cache_dir];
    const char *const names[] = {"UMO_METAL_CACHE", "XDG_CACHE_HOME", "HOME"};
    const char *const values[] = {wish, xdg, home};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(values[i] != NULL ? setenv(names[i], values[i], 1) : unsetenv(names[i]),
                         0);
    }
    umo_metal_state *state = device_open();
    (void)strcpy(dir, state->cache_dir);
    device_close(state);
    return dir;
}

static void the_cache_lies_where_it_is_wished_or_with_the_users_other_caches(void **unused)
{
    (void)unused;
    char home[256] = "";
    const char *old = getenv("HOME");
    if (old != NULL) {
        (void)snprintf(home, sizeof home, "%s", old);
    }
    assert_string_equal(cache_dir_of("/somewhere/else", "/xdg", "/home/me"), "/somewhere/else");
    assert_string_equal(cache_dir_of("0", "/xdg", "/home/me"), "");
    assert_string_equal(cache_dir_of("", "/xdg", "/home/me"), "");
#ifdef __linux__
    char too_long[600];
    memset(too_long, 'a', sizeof too_long);
    too_long[0] = '/';
    too_long[sizeof too_long - 1] = '\0';
    assert_string_equal(cache_dir_of(NULL, "/xdg", "/home/me"), "/xdg/umo");
    assert_string_equal(cache_dir_of(NULL, NULL, "/home/me"), "/home/me/.cache/umo");
    assert_string_equal(cache_dir_of(NULL, NULL, NULL), "");
    assert_string_equal(cache_dir_of(NULL, too_long, "/home/me"), "");
    /* A wish that does not fit is no reason to write where nobody asked for it. */
    assert_string_equal(cache_dir_of(too_long, "/xdg", "/home/me"), "");
#endif
    assert_int_equal(setenv("UMO_METAL_CACHE", "0", 1), 0);
    assert_int_equal(setenv("HOME", home, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_library_that_comes_later_is_found),
        TEST(without_a_library_the_words_name_the_remedy),
#ifdef __linux__
        TEST(a_system_that_is_no_mac_has_no_metal),
#endif
        TEST(without_a_device_the_words_name_the_remedy),
        TEST(devices_are_opened_by_their_number),
        TEST(one_device_is_opened_twice),
        TEST(a_device_without_queues_does_not_open),
        TEST(a_device_with_one_memory_says_so),
        TEST(families_are_named_by_the_newest),
        TEST(a_chips_bandwidth_is_known_by_its_name),
        TEST(a_device_that_does_not_say_its_limit_does_not_open),
        TEST(the_cache_lies_where_it_is_wished_or_with_the_users_other_caches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
