/*
 * Imports of the Metal driver: what is refused and why, and that memory is given back only when
 * Metal has let go of it.
 */
#include "driver/metal/metal_test.h"

#include <stdatomic.h>
#include <sched.h>

enum {
    BOTH = UMO_IMPORT_READ | UMO_IMPORT_WRITE
};

/* ---- refusals ---- */

/* A refusal that Metal has never heard of. */
static void assert_refused(void *state, void *data, size_t size_bytes, umo_reason reason)
{
    umo_memory memory = {0};
    umo_error error = {0};
    umo_reason why = UMO_REASON_NONE;
    fake_metal_mark();
    assert_int_equal(driver->import(state, data, size_bytes, BOTH, &memory, &why, &error),
                     UMO_E_REFUSED);
    assert_int_equal(why, reason);
    assert_int_equal(error.status, UMO_E_REFUSED);
    assert_string_not_equal(error.text, "");
    assert_null(memory.native);
    assert_int_equal(driver->import(state, data, size_bytes, BOTH, &memory, NULL, NULL),
                     UMO_E_REFUSED);
    assert_int_equal(fake_metal_messages_of("newBufferWithBytesNoCopy:length:options:deallocator:"),
                     0);
}

static void what_is_not_whole_pages_is_refused(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(3 * page);
    umo_device_info info;
    void *state = device_open_with(&no_options, &info);
    assert_int_equal(info.import_align_bytes, page);
    assert_int_equal(info.import_size_align_bytes, page);
    assert_refused(state, pages + 64, page, UMO_REASON_DEVICE_REFUSED);
    assert_refused(state, pages, page - 1, UMO_REASON_DEVICE_REFUSED);
    assert_refused(state, pages, page + 64, UMO_REASON_DEVICE_REFUSED);
    assert_refused(state, pages, 0, UMO_REASON_DEVICE_REFUSED);
    /* Whole pages of Linux's may be parts of one of Apple's. */
    assert_refused(state, pages + page / 2, page, UMO_REASON_DEVICE_REFUSED);
    device_close(state);
    umo_os_pages_free(pages, 3 * page);
}

static void what_is_longer_than_a_buffer_is_refused(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(3 * page);
    fake_metal_options options = machine();
    options.buffer_max = 2 * page;
    fake_metal_reset(&options);
    void *state = device_open();
    umo_memory memory;
    assert_refused(state, pages, 3 * page, UMO_REASON_TOO_LONG);
    assert_int_equal(driver->import(state, pages, 2 * page, BOTH, &memory, NULL, NULL), UMO_OK);
    driver->free(state, &memory);
    device_close(state);
    umo_os_pages_free(pages, 3 * page);
}

static void what_is_not_readable_and_writable_is_refused(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    const int protections[] = {PROT_READ, PROT_WRITE, PROT_NONE};
    void *state = device_open();
    for (size_t i = 0; i < sizeof protections / sizeof protections[0]; i++) {
        void *pages = pages_test_map(page, protections[i], MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(pages != MAP_FAILED);
        assert_refused(state, pages, page, UMO_REASON_READ_ONLY);
        assert_int_equal(munmap(pages, page), 0);
    }
    device_close(state);
}

static void what_is_not_one_mapping_is_refused(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    const size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages =
        pages_test_map(3 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    void *state = device_open();
    umo_memory memory;
    assert_int_equal(driver->import(state, pages, 3 * page, BOTH, &memory, NULL, NULL), UMO_OK);
    driver->free(state, &memory);
    /* The mapping ends inside the last page, where pages are longer than the system's, or with it.
     */
    assert_int_equal(munmap(pages + 3 * page - system_page, system_page), 0);
    assert_refused(state, pages, 3 * page, UMO_REASON_NOT_ONE_MAPPING);
    assert_int_equal(driver->import(state, pages, 2 * page, BOTH, &memory, NULL, NULL), UMO_OK);
    driver->free(state, &memory);
    /* Two mappings with other rights, side by side. */
    assert_int_equal(mprotect(pages + page, page, PROT_READ), 0);
    assert_refused(state, pages, 2 * page, UMO_REASON_NOT_ONE_MAPPING);
    assert_int_equal(munmap(pages, 3 * page), 0);
    /* None at all. */
    assert_refused(state, pages, page, UMO_REASON_NOT_ONE_MAPPING);
    device_close(state);
}

/* Metal gives the buffer back at once, or none: the memory is free either way. */
static void what_metal_does_not_wrap_is_refused_without_a_reason(void **unused)
{
    (void)unused;
    static const char no_copy[] = "newBufferWithBytesNoCopy:length:options:deallocator:";
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(page);
    void *state = device_open();
    for (int way = 0; way < 4; way++) {
        umo_memory memory = {0};
        umo_error error = {0};
        umo_reason why = UMO_REASON_NONE;
        switch (way) {
        case 0: /* nil */
            fake_metal_set_modes(FAKE_METAL_NO_COPY_NIL);
            break;
        case 1:
            fake_metal_fail(no_copy, 1);
            break;
        case 2: /* empty */
            fake_metal_set_modes(FAKE_METAL_ZERO_LENGTH);
            break;
        default: /* contents elsewhere: a copy after all */
            fake_metal_fail("contents", 1);
            break;
        }
        assert_int_equal(driver->import(state, pages, page, BOTH, &memory, &why, &error),
                         UMO_E_REFUSED);
        assert_int_equal(why, UMO_REASON_NONE);
        assert_string_equal(error.text, "Metal does not wrap this memory");
        assert_null(memory.native);
        assert_int_equal(fake_metal_live("MTLBuffer"), 0);
        fake_metal_set_modes(0);
    }
    device_close(state);
    umo_os_pages_free(pages, page);
}

/* ---- use ---- */

static void both_sides_see_imported_bytes_where_they_lie(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(2 * page);
    void *state = device_open();
    adder add = adder_create(state);
    umo_memory memory;
    assert_int_equal(driver->import(state, pages, 2 * page, BOTH, &memory, NULL, NULL), UMO_OK);
    assert_ptr_equal(memory.host, pages);
    assert_int_equal(memory.size_bytes, 2 * page);
    assert_int_equal(memory.mode, UMO_UNIFIED);
    assert_true(memory.imported);
    assert_false(memory.one_memory);
    memset(pages, 6, 2 * page);
    umo_error error = {0};
    umo_fence fence;
    assert_int_equal(add_launch(state, 1, add, &memory, page - 5, page, 2, NULL, 0, &fence, &error),
                     UMO_OK);
    fence_pass(state, fence);
    for (size_t i = 0; i < 2 * page; i++) {
        bool inside = i >= page - 5 && i < 2 * page - 5;
        assert_int_equal(pages[i], inside ? add_value(6, 2) : 6);
    }
    driver->free(state, &memory);
    adder_destroy(state, add);
    device_close(state);
    umo_os_pages_free(pages, 2 * page);
}

/* ---- the end of an import ---- */

typedef struct release {
    void *state;
    umo_memory memory;
    _Atomic bool started;
    _Atomic bool done;
} release;

static void *release_run(void *opaque)
{
    release *r = opaque;
    atomic_store(&r->started, true);
    driver->free(r->state, &r->memory);
    atomic_store(&r->done, true);
    return NULL;
}

static void free_waits_until_metal_has_let_go(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(page);
    release r = {.state = device_open()};
    pthread_t thread;
    assert_int_equal(driver->import(r.state, pages, page, BOTH, &r.memory, NULL, NULL), UMO_OK);
    fake_metal_set_modes(FAKE_METAL_LATE_FREE);
    assert_int_equal(pthread_create(&thread, NULL, release_run, &r), 0);
    while (!atomic_load(&r.started)) {
        (void)sched_yield();
    }
    (void)usleep(20000);
    assert_false(atomic_load(&r.done));
    /* What waits is this memory's end only: other calls go on. */
    umo_memory other = memory_make(r.state, page, UMO_PRIVATE);
    driver->free(r.state, &other);
    uint32_t ran = 0;
    while (ran == 0) {
        ran = fake_metal_run_late();
    }
    assert_int_equal(ran, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(atomic_load(&r.done));
    fake_metal_set_modes(0);
    device_close(r.state);
    umo_os_pages_free(pages, page);
}

static void a_refused_import_waits_until_metal_has_let_go(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(page);
    fake_metal_options options = machine();
    options.late_ns = 20000000;
    fake_metal_reset(&options);
    void *state = device_open();
    umo_memory memory;
    fake_metal_fail("contents", 1);
    uint64_t start_ns = umo_os_now_ns();
    assert_int_equal(driver->import(state, pages, page, BOTH, &memory, NULL, NULL), UMO_E_REFUSED);
    assert_true(umo_os_now_ns() - start_ns >= options.late_ns);
    /* And so does an import that was made. */
    assert_int_equal(driver->import(state, pages, page, BOTH, &memory, NULL, NULL), UMO_OK);
    start_ns = umo_os_now_ns();
    driver->free(state, &memory);
    assert_true(umo_os_now_ns() - start_ns >= options.late_ns);
    device_close(state);
    umo_os_pages_free(pages, page);
}

/* Imports are cheap enough to be made for each request: many threads do, of neighbouring pages. */
typedef struct importer {
    void *state;
    unsigned char *pages;
    const char *wrong;
} importer;

static void *importer_run(void *opaque)
{
    importer *me = opaque;
    const size_t page = pages_test_bytes();
    for (int round = 0; round < 50 && me->wrong == NULL; round++) {
        umo_memory memory;
        umo_fence fence;
        if (driver->import(me->state, me->pages, page, BOTH, &memory, NULL, NULL) != UMO_OK) {
            me->wrong = "import failed";
            break;
        }
        if (driver->copy(me->state, 0, &memory, 0, &memory, page / 2, page / 2, NULL, 0, &fence) !=
                UMO_OK ||
            driver->fence_wait(me->state, 0, fence.value, UINT64_MAX) != UMO_OK) {
            me->wrong = "copy failed";
        }
        driver->free(me->state, &memory);
        if (memcmp(me->pages, me->pages + page / 2, page / 2) != 0) {
            me->wrong = "wrong bytes";
        }
    }
    return NULL;
}

static void many_threads_import_neighbouring_pages(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(4 * page);
    importer importers[4];
    pthread_t threads[4];
    void *state = device_open();
    pattern_fill(pages, 4 * page, 9);
    for (size_t i = 0; i < 4; i++) {
        importers[i] = (importer){.state = state, .pages = pages + i * page};
        assert_int_equal(pthread_create(&threads[i], NULL, importer_run, &importers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_null(importers[i].wrong);
    }
    device_close(state);
    umo_os_pages_free(pages, 4 * page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_whole_pages_is_refused),
        TEST(what_is_longer_than_a_buffer_is_refused),
        TEST(what_is_not_readable_and_writable_is_refused),
        TEST(what_is_not_one_mapping_is_refused),
        TEST(what_metal_does_not_wrap_is_refused_without_a_reason),
        TEST(both_sides_see_imported_bytes_where_they_lie),
        TEST(free_waits_until_metal_has_let_go),
        TEST(a_refused_import_waits_until_metal_has_let_go),
        TEST(many_threads_import_neighbouring_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
