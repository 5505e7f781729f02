/*
 * Pins and prefetches: what the system says about the pages is the evidence, where it says it.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"
#include "mem/page_lock.h"
#include "os/pages_test.h"

#include <setjmp.h>
#include <stdarg.h>
#ifdef __linux__
#include <sys/resource.h>
#include <sys/wait.h>
#endif

#include <cmocka.h>

/* The sanitizers' runtimes turn mlock into nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOCKS_NOTHING 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LOCKS_NOTHING 1
#endif
#endif
#ifndef LOCKS_NOTHING
#define LOCKS_NOTHING 0
#endif

#define HOST UMO_SIDE_HOST
#define DEVICE UMO_SIDE_DEVICE

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
} rig;

static rig rig_open(void)
{
    rig r = {.device = wrapper_device(NULL, &(const umo_driver_options){.test_mode = true})};
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "pins", 0, &r.scope, NULL), UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    assert_int_equal(umo_page_locked_bytes(), 0);
    umo_device_release(r->device);
    umo_scope_destroy(r->scope);
}

/* VmLck in KiB, or -1 where the system does not say. */
static long locked_kib(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;
    while (file != NULL && kib < 0 && fgets(line, sizeof line, file) != NULL) {
        (void)sscanf(line, "VmLck: %ld kB", &kib);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib;
}

/* What umo says is locked, and what the system says. */
static void assert_locked(size_t pages)
{
    assert_int_equal(umo_page_locked_bytes(), pages * umo_os_page_bytes());
    long kib = locked_kib();
    if (!LOCKS_NOTHING && kib >= 0) {
        assert_int_equal(kib, pages * umo_os_page_bytes() / 1024);
    }
}

static umo_buffer *import(const rig *r, void *data, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    const umo_import wanted = {.data = data, .size_bytes = size_bytes, .writable = true};
    assert_int_equal(umo_buffer_import(r->device, r->scope, &wanted, &buffer, NULL, NULL), UMO_OK);
    return buffer;
}

static void pins_are_counted(void **state)
{
    (void)state;
    rig r = rig_open();
    size_t page = umo_os_page_bytes();
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_buffer *buffer = NULL;
        assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, 3 * page - 1,
                                                  (umo_storage_mode)mode, &buffer, NULL),
                         UMO_OK);
        size_t pages = mode == UMO_PRIVATE ? 0 : 3;
        assert_int_equal(umo_buffer_unpin(buffer), UMO_E_INVAL);
        assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
        assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
        assert_locked(pages);
        umo_error error = {0};
        assert_int_equal(umo_buffer_move(buffer, UMO_UNIFIED, UINT64_MAX, &error), UMO_E_BUSY);
        assert_non_null(strstr(error.text, "pinned"));
        assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
        assert_locked(pages);
        assert_int_equal(umo_buffer_move(buffer, UMO_UNIFIED, 0, NULL), UMO_E_BUSY);
        assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
        assert_locked(0);
        assert_int_equal(umo_buffer_unpin(buffer), UMO_E_INVAL);
        assert_int_equal(umo_buffer_move(buffer, UMO_UNIFIED, 0, NULL), UMO_OK);
        umo_buffer_release(buffer);
    }
    rig_close(&r);
}

static void a_host_side_made_later_is_locked_too(void **state)
{
    (void)state;
    rig r = rig_open();
    size_t page = umo_os_page_bytes();
    for (int movable = 0; movable < 2; movable++) {
        umo_buffer *buffer = NULL;
        assert_int_equal(
            movable ? umo_buffer_alloc_movable(r.device, r.scope, page, UMO_PRIVATE, &buffer, NULL)
                    : umo_buffer_alloc(r.device, r.scope, page, UMO_PRIVATE, &buffer, NULL),
            UMO_OK);
        assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
        assert_locked(0);
        const umo_access write = {.size_bytes = page, .side = HOST, .use = UMO_WRITE};
        umo_fence_set waits;
        assert_int_equal(umo_access_begin(buffer, &write, &waits), UMO_OK);
        assert_int_equal(umo_access_end(buffer, &write, (umo_fence){0}), UMO_OK);
        assert_locked(1);
        if (movable) {
            assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
            assert_locked(0);
            assert_int_equal(umo_buffer_move(buffer, UMO_PRIVATE, 0, NULL), UMO_OK);
        }
        /* The other one is released with its pin. */
        umo_buffer_release(buffer);
        assert_locked(0);
    }
    rig_close(&r);
}

static void pages_that_buffers_share_are_locked_until_the_last(void **state)
{
    (void)state;
    rig r = rig_open();
    size_t page = umo_os_page_bytes();
    char *pages = umo_os_pages_alloc(6 * page);
    assert_non_null(pages);
    /* [0, 2.5), [2.5, 3), [2, 6), and alone [5, 6). */
    umo_buffer *buffers[] = {
        import(&r, pages, 2 * page + page / 2), import(&r, pages + 2 * page + page / 2, page / 2),
        import(&r, pages + 2 * page, 4 * page), import(&r, pages + 5 * page, page)};
    const size_t after_pin[] = {3, 3, 6, 6};
    const size_t after_unpin[] = {4, 4, 1, 0};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(umo_buffer_pin(buffers[i], NULL), UMO_OK);
        assert_locked(after_pin[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(umo_buffer_unpin(buffers[i]), UMO_OK);
        assert_locked(after_unpin[i]);
        umo_buffer_release(buffers[i]);
    }
    umo_os_pages_free(pages, 6 * page);
    rig_close(&r);
}

/* Neighbours are one range of the books, which comes apart when every second one is unpinned. */
static void many_neighbours_come_apart(void **state)
{
    (void)state;
    enum {
        MANY = 200
    };
    size_t page = umo_os_page_bytes();
    char *pages = umo_os_pages_alloc(MANY * page);
    assert_non_null(pages);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(umo_page_lock(pages + i * page, page, NULL), UMO_OK);
    }
    assert_locked(MANY);
    for (size_t i = 0; i < MANY; i += 2) {
        umo_page_unlock(pages + i * page, page);
        assert_locked(MANY - i / 2 - 1);
    }
    for (size_t i = 1; i < MANY; i += 2) {
        umo_page_unlock(pages + i * page, page);
    }
    assert_locked(0);
    umo_os_pages_free(pages, MANY * page);
}

static void memory_with_a_hole_is_not_locked(void **state)
{
    (void)state;
    if (LOCKS_NOTHING) {
        print_message("skipped: the sanitizer's mlock locks nothing\n");
        skip();
    }
    size_t page = umo_os_page_bytes();
    char *pages = umo_os_pages_alloc(3 * page);
    assert_non_null(pages);
    umo_os_pages_free(pages + page, page);
    umo_error error = {0};
    assert_int_equal(umo_page_lock(pages, 3 * page, &error), UMO_E_SYSTEM);
    assert_locked(0);
    assert_int_equal(umo_page_lock((void *)(UINTPTR_MAX - 10), 10, &error), UMO_E_SYSTEM);
    umo_os_pages_free(pages, page);
    umo_os_pages_free(pages + 2 * page, page);
}

#ifdef __linux__
/* In a child without privileges; 0, or the line that failed. */
#define CHILD(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return __LINE__ % 250 + 1;                                                             \
        }                                                                                          \
    } while (0)

static int child_of_limited(const rig *r)
{
    size_t page = umo_os_page_bytes();
    const struct rlimit limit = {4 * page, 4 * page};
    umo_buffer *buffers[2] = {NULL, NULL};
    umo_error error = {0};
    char words[64];
    CHILD(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHILD(geteuid() != 0 || setuid(65534) == 0);
    for (size_t i = 0; i < 2; i++) {
        CHILD(umo_buffer_alloc_movable(r->device, r->scope, 3 * page, UMO_UNIFIED, &buffers[i],
                                       NULL) == UMO_OK);
    }
    CHILD(umo_buffer_pin(buffers[0], &error) == UMO_OK);
    CHILD(umo_buffer_pin(buffers[1], &error) == UMO_E_LIMIT);
    (void)snprintf(words, sizeof words, "allows %zu, umo has locked %zu", 4 * page, 3 * page);
    CHILD(strstr(error.text, words) != NULL);
    CHILD(strstr(error.text, "ulimit -l") != NULL);
    CHILD(locked_kib() == (long)(3 * page / 1024));
    /* It is not pinned, so it moves; and there is room once the other one is not. */
    CHILD(umo_buffer_move(buffers[1], UMO_PRIVATE, 0, NULL) == UMO_OK);
    CHILD(umo_buffer_pin(buffers[1], NULL) == UMO_OK);
    const umo_access write = {.size_bytes = page, .side = HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    CHILD(umo_access_begin(buffers[1], &write, &waits) == UMO_E_LIMIT);
    CHILD(umo_buffer_unpin(buffers[0]) == UMO_OK);
    CHILD(umo_access_begin(buffers[1], &write, &waits) == UMO_OK);
    CHILD(umo_access_end(buffers[1], &write, (umo_fence){0}) == UMO_OK);
    CHILD(locked_kib() == (long)(3 * page / 1024));
    umo_buffer_release(buffers[0]);
    umo_buffer_release(buffers[1]);
    CHILD(locked_kib() == 0);
    return 0;
}

static void the_limit_of_locked_memory_is_honoured_and_named(void **state)
{
    (void)state;
    if (LOCKS_NOTHING || locked_kib() < 0) {
        print_message("skipped: %s\n", LOCKS_NOTHING ? "the sanitizer's mlock locks nothing"
                                                     : "no /proc/self/status");
        skip();
    }
    rig r = rig_open();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(child_of_limited(&r));
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    rig_close(&r);
}
#endif

/* ---- prefetch ---- */

/* Where the system cannot be asked, what is expected. */
static bool present(const void *page_start, bool expected)
{
#ifdef __linux__
    unsigned char in = 0;
    (void)expected;
    assert_int_equal(mincore((void *)(uintptr_t)page_start, 1, &in), 0);
    return (in & 1) != 0;
#else
    (void)page_start;
    return expected;
#endif
}

static void prefetch_makes_pages_present_and_changes_none(void **state)
{
    (void)state;
    rig r = rig_open();
    size_t page = umo_os_page_bytes();
    char *pages = umo_os_pages_alloc(8 * page);
    assert_non_null(pages);
    pages[3 * page + 7] = 9;
    umo_buffer *buffer = import(&r, pages + 100, 8 * page - 100);
    assert_int_equal(umo_buffer_prefetch(buffer, 2 * page, 4 * page, HOST, NULL), UMO_OK);
    assert_int_equal(pages[3 * page + 7], 9);
    umo_buffer_release(buffer);
    umo_os_pages_free(pages, 8 * page);

    assert_int_equal(
        umo_buffer_alloc_movable(r.device, r.scope, 8 * page, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    pages = umo_buffer_host(buffer);
    assert_false(present(pages + 3 * page, false));
    assert_int_equal(umo_buffer_prefetch(buffer, 2 * page + 1, 4 * page, HOST, NULL), UMO_OK);
    assert_false(present(pages + page, false));
    for (size_t i = 2; i < 7; i++) {
        assert_true(present(pages + i * page, true));
    }
    assert_false(present(pages + 7 * page, false));
    umo_buffer_release(buffer);
    rig_close(&r);
}

static void prefetch_transfers_once(void **state)
{
    (void)state;
    rig r = rig_open();
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 1000, UMO_MANAGED, &buffer, NULL), UMO_OK);
    umo_access access = {.size_bytes = 1000, .side = HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    memset(umo_buffer_host(buffer), 5, 1000);
    assert_int_equal(umo_buffer_prefetch(buffer, 0, 1000, DEVICE, NULL), UMO_E_BUSY);
    assert_int_equal(umo_buffer_prefetch(buffer, 0, 1000, HOST, NULL), UMO_E_BUSY);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);

    assert_int_equal(umo_buffer_prefetch(buffer, 100, 300, DEVICE, NULL), UMO_OK);
    assert_int_equal(umo_buffer_valid(buffer, 100, 300), HOST | DEVICE);
    assert_int_equal(umo_buffer_valid(buffer, 0, 100), HOST);
    umo_counters c;
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].bytes, 300);
    access = (umo_access){.offset_bytes = 100, .size_bytes = 300, .side = DEVICE, .use = UMO_READ};
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(*((unsigned char *)umo_buffer_memory(buffer)->native + 399), 5);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.transfer_performed[UMO_DIRECTION_IN].events, 1);

    umo_error error = {0};
    assert_int_equal(umo_buffer_prefetch(buffer, 1, 1000, HOST, &error), UMO_E_INVAL);
    assert_int_equal(umo_buffer_prefetch(buffer, SIZE_MAX, 2, HOST, &error), UMO_E_INVAL);
    assert_int_equal(umo_buffer_prefetch(buffer, 0, 1, (umo_side)3, &error), UMO_E_INVAL);
    assert_int_equal(umo_buffer_prefetch(buffer, 1000, 0, HOST, &error), UMO_OK);
    umo_buffer_release(buffer);
    rig_close(&r);
}

/* The bracket waits for what the prefetch has queued. */
static void a_bracket_waits_for_a_prefetch(void **state)
{
    (void)state;
    umo_device *device =
        wrapper_device(NULL, &(const umo_driver_options){.delay_ns = UINT64_C(20000000)});
    umo_scope *scope = NULL;
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_scope_create(NULL, "late", 0, &scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(device, scope, 1000, UMO_MANAGED, &buffer, NULL), UMO_OK);
    umo_access access = {.size_bytes = 1000, .side = HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    memset(umo_buffer_host(buffer), 5, 1000);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_buffer_prefetch(buffer, 0, 1000, DEVICE, NULL), UMO_OK);
    access.side = DEVICE;
    access.use = UMO_READ;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(waits.count, 1);
    assert_int_equal(waits.fences[0].queue, umo_device_info_get(device)->queues - 1);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_int_equal(*(unsigned char *)umo_buffer_memory(buffer)->native, 5);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
    umo_buffer_release(buffer);
    umo_scope_destroy(scope);
    umo_device_release(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pins_are_counted),
        cmocka_unit_test(a_host_side_made_later_is_locked_too),
        cmocka_unit_test(pages_that_buffers_share_are_locked_until_the_last),
        cmocka_unit_test(many_neighbours_come_apart),
        cmocka_unit_test(memory_with_a_hole_is_not_locked),
#ifdef __linux__
        cmocka_unit_test(the_limit_of_locked_memory_is_honoured_and_named),
#endif
        cmocka_unit_test(prefetch_makes_pages_present_and_changes_none),
        cmocka_unit_test(prefetch_transfers_once),
        cmocka_unit_test(a_bracket_waits_for_a_prefetch),
    };
    return cmocka_run_group_tests_name("pin", tests, NULL, NULL);
}
