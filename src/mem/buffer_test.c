/*
 * Buffers: allocation against limits, imports of whole pages and their refusals, deleters.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"
#include "os/mapping_test.h"
#include "os/pages_test.h"

#include <umo/region.h>

#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct rig {
    umo_device *device;
    umo_scope *root;
    umo_scope *scope;
    char *pages; /* 12 pages: one mapping, a hole of one page at 8 */
    size_t page;
} rig;

static rig rig_open(const wrapper_switches *switches)
{
    rig r = {.page = umo_os_page_bytes()};
    r.device = wrapper_device(switches, NULL);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "root", 0, &r.root, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(r.root, "leaf", 0, &r.scope, NULL), UMO_OK);
    /* At an address that is a multiple of the longest alignment used here. */
    r.pages = pages_test_map_at(32 * r.page, 12 * r.page, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(r.pages != MAP_FAILED);
    assert_int_equal(munmap(r.pages + 8 * r.page, r.page), 0);
    return r;
}

static void rig_close(rig *r)
{
    umo_counters c;
    umo_scope_read(r->root, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    assert_int_equal(munmap(r->pages, 12 * r->page), 0);
    umo_scope_destroy(r->scope);
    umo_scope_destroy(r->root);
    umo_device_release(r->device);
    assert_int_equal(wrapper_calls.live, 0);
    wrapper = (wrapper_switches){0};
}

/* Imports and says why not; an import that works is checked and given back. */
static umo_reason import(rig *r, void *data, size_t size_bytes, bool writable, bool whole_pages)
{
    const umo_import what = {
        .data = data, .size_bytes = size_bytes, .writable = writable, .whole_pages = whole_pages};
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_COUNT;
    umo_error error = {0};
    umo_status status = umo_buffer_import(r->device, r->scope, &what, &buffer, &why, &error);
    if (status != UMO_OK) {
        assert_int_equal(status, UMO_E_REFUSED);
        assert_null(buffer);
        assert_int_not_equal(why, UMO_REASON_NONE);
        assert_true(strlen(error.text) > 0);
        return why;
    }
    assert_int_equal(why, UMO_REASON_NONE);
    const umo_device_info *info = umo_device_info_get(r->device);
    const umo_memory *memory = umo_buffer_memory(buffer);
    assert_int_equal((uintptr_t)memory->host % info->import_align_bytes, 0);
    assert_int_equal(memory->size_bytes % info->import_size_align_bytes, 0);
    assert_true((char *)memory->host <= (char *)data);
    assert_true((char *)memory->host + memory->size_bytes >= (char *)data + size_bytes);
    assert_ptr_equal((char *)memory->host + umo_buffer_memory_offset(buffer), data);
    assert_ptr_equal(umo_buffer_host(buffer), data);
    assert_int_equal(umo_buffer_size(buffer), size_bytes);
    assert_int_equal(umo_buffer_valid(buffer, 0, size_bytes), UMO_SIDE_HOST);
    assert_int_equal(umo_buffer_writable(buffer), writable);
    umo_buffer_release(buffer);
    return UMO_REASON_NONE;
}

static void alloc_is_checked(void **state)
{
    (void)state;
    const wrapper_switches switches = {.caps_off = UMO_CAP_PRIVATE, .buffer_max_bytes = 5000};
    rig r = rig_open(&switches);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 0, UMO_UNIFIED, &buffer, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 5001, UMO_UNIFIED, &buffer, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, SIZE_MAX, UMO_UNIFIED, &buffer, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 1, UMO_PRIVATE, &buffer, NULL),
                     UMO_E_UNSUPPORTED);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 1, (umo_storage_mode)3, &buffer, NULL),
                     UMO_E_UNSUPPORTED);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 1, (umo_storage_mode)-1, &buffer, NULL),
                     UMO_E_UNSUPPORTED);
    assert_null(buffer);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 5000, UMO_MANAGED, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_buffer_valid(buffer, 0, 5000), 0);
    assert_int_equal(umo_buffer_mode(buffer), UMO_MANAGED);
    assert_ptr_equal(umo_buffer_device(buffer), r.device);
    umo_buffer_acquire(buffer);
    umo_buffer_release(buffer);
    umo_counters c;
    umo_scope_read(r.root, &c);
    assert_int_equal(c.live_bytes, 5000);
    assert_int_equal(c.live_buffers, 1);
    assert_int_equal(c.allocated.events, 1);
    umo_buffer_release(buffer);
    umo_buffer_release(NULL);
    rig_close(&r);
}

static bool fails_alloc(const char *entry)
{
    return strcmp(entry, "alloc") == 0;
}

static void a_limit_holds_and_a_failure_gives_back(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    umo_scope *tight = NULL;
    umo_scope *below = NULL;
    assert_int_equal(umo_scope_create(r.root, "tight", 1000, &tight, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(tight, "below", 0, &below, NULL), UMO_OK);
    umo_buffer *first = NULL;
    umo_buffer *second = NULL;
    umo_error error = {0};
    assert_int_equal(umo_buffer_alloc(r.device, below, 600, UMO_UNIFIED, &first, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(r.device, below, 401, UMO_UNIFIED, &second, &error),
                     UMO_E_LIMIT);
    assert_int_equal(umo_buffer_alloc(r.device, below, 400, UMO_UNIFIED, &second, NULL), UMO_OK);
    umo_buffer_release(first);
    wrapper.fails = fails_alloc;
    first = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, below, 600, UMO_UNIFIED, &first, &error),
                     UMO_E_NOMEM);
    assert_null(first);
    wrapper.fails = NULL;
    umo_counters c;
    umo_scope_read(r.root, &c);
    assert_int_equal(c.live_bytes, 400);
    assert_int_equal(c.live_buffers, 1);
    assert_int_equal(c.allocated.bytes, 1000); /* what was refused was not allocated */
    umo_scope_destroy(below);
    umo_scope_destroy(tight);
    /* The buffer keeps its scope. */
    umo_buffer_release(second);
    rig_close(&r);
}

static void nonsense_is_not_imported(void **state)
{
    (void)state;
    const wrapper_switches switches = {.import_align_bytes = pages_test_bytes(),
                                       .import_size_align_bytes = pages_test_bytes()};
    rig r = rig_open(&switches);
    umo_buffer *buffer = NULL;
    const umo_import bad[] = {
        {.data = NULL, .size_bytes = 10},
        {.data = r.pages, .size_bytes = 0},
        {.data = r.pages, .size_bytes = SIZE_MAX},
        {.data = (void *)(UINTPTR_MAX - 10), .size_bytes = 12},
        {.data = (void *)UINTPTR_MAX, .size_bytes = 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        umo_reason why = UMO_REASON_COUNT;
        umo_status status = umo_buffer_import(r.device, r.scope, &bad[i], &buffer, &why, NULL);
        assert_true(status == UMO_E_INVAL || status == UMO_E_REFUSED);
        assert_null(buffer);
    }
    rig_close(&r);
}

static void any_address_will_do_where_the_device_says_so(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    for (size_t at = 0; at < 70; at += 7) {
        for (size_t size = 1; size < 200; size += 31) {
            assert_int_equal(import(&r, r.pages + at, size, true, false), UMO_REASON_NONE);
        }
    }
    const umo_memory *memory;
    umo_buffer *buffer = NULL;
    const umo_import what = {.data = r.pages + 5, .size_bytes = 10};
    assert_int_equal(umo_buffer_import(r.device, r.scope, &what, &buffer, NULL, NULL), UMO_OK);
    memory = umo_buffer_memory(buffer);
    assert_ptr_equal(memory->host, r.pages + 5);
    assert_int_equal(memory->size_bytes, 10);
    umo_counters c;
    umo_scope_read(r.scope, &c);
    assert_int_equal(c.live_bytes, 0); /* the memory is its owner's */
    assert_int_equal(c.live_buffers, 1);
    umo_buffer_release(buffer);
    rig_close(&r);
}

/* Pages of the device around the range: its own page size and one four times as long, with a device
 * that keeps off the neighbours' bytes and one that writes whole pages back. */
static void whole_pages_are_bound_when_they_may_be(void **state)
{
    (void)state;
    const size_t aligns[] = {pages_test_bytes(), 4 * pages_test_bytes()};
    for (int exact = 0; exact < 2; exact++) {
        for (size_t a = 0; a < 2; a++) {
            const size_t align = aligns[a];
            const wrapper_switches switches = {.import_align_bytes = align,
                                               .import_size_align_bytes = align,
                                               .write_granule_bytes = exact != 0 ? 0 : align};
            rig r = rig_open(&switches);
            const umo_reason partial = exact != 0 ? UMO_REASON_NONE : UMO_REASON_PARTIAL_PAGE;
            /* Exactly whole pages: always. */
            assert_int_equal(import(&r, r.pages, align, true, false), UMO_REASON_NONE);
            assert_int_equal(import(&r, r.pages, align, false, false), UMO_REASON_NONE);
            /* Part of a page: to be read, yes; to be written, if the device is exact. */
            const struct {
                size_t at;
                size_t size;
            } parts[] = {{0, 1},          {1, 1},
                         {align - 1, 1},  {0, align - 1},
                         {1, align - 1},  {0, align + 1},
                         {align - 1, 2},  {align, 100},
                         {17, align + 5}, {1, 2 * align - 1}};
            for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
                char *data = r.pages + parts[i].at;
                assert_int_equal(import(&r, data, parts[i].size, false, false), UMO_REASON_NONE);
                assert_int_equal(import(&r, data, parts[i].size, true, false), partial);
                assert_int_equal(import(&r, data, parts[i].size, true, true), UMO_REASON_NONE);
            }
            rig_close(&r);
        }
    }
}

/* A device that binds pages and writes back cache lines: the range's ends decide, not its pages. */
static void whole_granules_may_be_written_inside_a_page(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    const wrapper_switches switches = {
        .import_align_bytes = page, .import_size_align_bytes = page, .write_granule_bytes = 128};
    rig r = rig_open(&switches);
    assert_int_equal(import(&r, r.pages + 128, 256, true, false), UMO_REASON_NONE);
    assert_int_equal(import(&r, r.pages + page - 128, 256, true, false), UMO_REASON_NONE);
    assert_int_equal(import(&r, r.pages + 128, 255, true, false), UMO_REASON_PARTIAL_PAGE);
    assert_int_equal(import(&r, r.pages + 129, 255, true, false), UMO_REASON_PARTIAL_PAGE);
    assert_int_equal(import(&r, r.pages + 64, 128, true, false), UMO_REASON_PARTIAL_PAGE);
    assert_int_equal(import(&r, r.pages + 129, 255, false, false), UMO_REASON_NONE);
    rig_close(&r);
}

static void pages_of_two_mappings_are_not_bound(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    const wrapper_switches switches = {.import_align_bytes = 4 * page,
                                       .import_size_align_bytes = 4 * page};
    rig r = rig_open(&switches);
    /* Page 8 is a hole, so the device's pages at 8 to 11 are not all there. */
    assert_int_equal(import(&r, r.pages + 9 * page, page, false, false),
                     UMO_REASON_NOT_ONE_MAPPING);
    assert_int_equal(import(&r, r.pages + 11 * page + 5, 10, true, false),
                     UMO_REASON_NOT_ONE_MAPPING);
    assert_int_equal(import(&r, r.pages + 4 * page + 5, 10, false, false), UMO_REASON_NONE);
    /* The last page's neighbour, 12, is nobody's either. */
    assert_int_equal(import(&r, r.pages + 7 * page, 2 * page, false, false),
                     UMO_REASON_NOT_ONE_MAPPING);
    /* The range itself is not even mapped. */
    assert_int_equal(import(&r, r.pages + 8 * page, 10, false, false), UMO_REASON_NOT_ONE_MAPPING);
    /* A neighbour of other protection is another mapping. */
    assert_int_equal(mprotect(r.pages + 2 * page, page, PROT_READ), 0);
    assert_int_equal(import(&r, r.pages + 5, 10, false, false), UMO_REASON_NOT_ONE_MAPPING);
    rig_close(&r);
}

static void without_an_answer_of_the_system_nothing_is_assumed(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    const wrapper_switches switches = {.import_align_bytes = page, .import_size_align_bytes = page};
    rig r = rig_open(&switches);
    mapping_test_silent = true;
    assert_int_equal(import(&r, r.pages + 5, 10, false, false), UMO_REASON_NO_IDENTITY);
    assert_int_equal(import(&r, r.pages + 5, 10, false, true), UMO_REASON_NONE);
    assert_int_equal(import(&r, r.pages, page, false, false), UMO_REASON_NONE);
    umo_mapping mapping;
    assert_int_equal(umo_mapping_query(r.pages, &mapping), UMO_E_UNSUPPORTED);
    mapping_test_silent = false;
    assert_int_equal(import(&r, r.pages + 5, 10, false, false), UMO_REASON_NONE);
    rig_close(&r);
}

static bool fails_import(const char *entry)
{
    return strcmp(entry, "import") == 0;
}

static void what_the_device_cannot_do_is_refused(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    wrapper_switches switches = {.caps_off = UMO_CAP_IMPORT_WRITE,
                                 .buffer_max_bytes = page,
                                 .import_size_align_bytes = page};
    rig r = rig_open(&switches);
    assert_int_equal(import(&r, r.pages, page, true, true), UMO_REASON_DEVICE_REFUSED);
    assert_int_equal(import(&r, r.pages, page, false, true), UMO_REASON_NONE);
    assert_int_equal(import(&r, r.pages, page + 1, false, true), UMO_REASON_TOO_LONG);
    wrapper.fails = fails_import;
    assert_int_equal(import(&r, r.pages, page, false, true), UMO_REASON_DEVICE_REFUSED);
    rig_close(&r);
    switches = (wrapper_switches){.caps_off = UMO_CAP_IMPORT_READ};
    r = rig_open(&switches);
    assert_int_equal(import(&r, r.pages, page, false, true), UMO_REASON_DEVICE_REFUSED);
    rig_close(&r);
    /* The pages around it are what has to fit, not the range. */
    switches = (wrapper_switches){.buffer_max_bytes = page + 900,
                                  .import_size_align_bytes = page,
                                  .import_align_bytes = page};
    r = rig_open(&switches);
    uint64_t before = wrapper_calls.import;
    assert_int_equal(import(&r, r.pages, page + 899, false, true), UMO_REASON_TOO_LONG);
    assert_int_equal(wrapper_calls.import, before);
    rig_close(&r);
}

typedef struct deleted {
    void *data;
    int calls;
} deleted;

static void deleter(void *data, void *user)
{
    deleted *seen = user;
    seen->data = data;
    seen->calls++;
}

/* Also where the device gave the memory another address. */
static void a_deleter_gets_the_owners_address_once(void **state)
{
    (void)state;
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        const wrapper_switches switches = {.elsewhere = elsewhere != 0};
        rig r = rig_open(&switches);
        deleted seen = {0};
        const umo_import what = {
            .data = r.pages + 7, .size_bytes = 9, .deleter = deleter, .user = &seen};
        umo_buffer *buffer = NULL;
        assert_int_equal(umo_buffer_import(r.device, r.scope, &what, &buffer, NULL, NULL), UMO_OK);
        umo_buffer_acquire(buffer);
        umo_buffer_release(buffer);
        assert_int_equal(seen.calls, 0);
        umo_buffer_release(buffer);
        assert_int_equal(seen.calls, 1);
        assert_ptr_equal(seen.data, r.pages + 7);
        /* An import that fails leaves the memory to its owner. */
        wrapper.fails = fails_import;
        assert_int_equal(umo_buffer_import(r.device, r.scope, &what, &buffer, NULL, NULL),
                         UMO_E_REFUSED);
        assert_int_equal(seen.calls, 1);
        rig_close(&r);
    }
}

static void a_mapping_query_names_the_mapping(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    umo_mapping mapping;
    assert_int_equal(umo_mapping_query(r.pages + 3 * r.page + 11, &mapping), UMO_OK);
    assert_true(mapping.start == (uintptr_t)r.pages);
    assert_true(mapping.end == (uintptr_t)r.pages + 8 * r.page);
    assert_true(mapping.shared && mapping.readable && mapping.writable);
    assert_int_equal(umo_mapping_query(r.pages + 8 * r.page, &mapping), UMO_E_NOT_FOUND);
    int local = 0;
    assert_int_equal(umo_mapping_query(&local, &mapping), UMO_OK);
    assert_false(mapping.shared);
    assert_int_equal(mapping.inode, 0);
    /* A child asks about its own mappings, not about its parent's. */
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        int failed =
            munmap(r.pages, r.page) != 0 || umo_mapping_query(r.pages, &mapping) != UMO_E_NOT_FOUND;
        _exit(failed);
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    assert_int_equal(umo_mapping_query(r.pages, &mapping), UMO_OK);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alloc_is_checked),
        cmocka_unit_test(a_limit_holds_and_a_failure_gives_back),
        cmocka_unit_test(nonsense_is_not_imported),
        cmocka_unit_test(any_address_will_do_where_the_device_says_so),
        cmocka_unit_test(whole_pages_are_bound_when_they_may_be),
        cmocka_unit_test(whole_granules_may_be_written_inside_a_page),
        cmocka_unit_test(pages_of_two_mappings_are_not_bound),
        cmocka_unit_test(without_an_answer_of_the_system_nothing_is_assumed),
        cmocka_unit_test(what_the_device_cannot_do_is_refused),
        cmocka_unit_test(a_deleter_gets_the_owners_address_once),
        cmocka_unit_test(a_mapping_query_names_the_mapping),
    };
    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
