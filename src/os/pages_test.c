/*
 * Pages: what the system hands out and duplicates is whole pages of the size in force, at its
 * multiples, also in a build that forces a size.
 */
#include "os/os.h"
#include "os/pages_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum {
    PIECES = 40
};

/* A page of the kernel's: where ours are longer, what the kernel places next to it lies on none. */
static void neighbour_map(void)
{
    void *page =
        mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
}

static void pages_have_the_size_in_force(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    assert_int_equal(page, pages_test_bytes());
    assert_int_equal(page % (size_t)sysconf(_SC_PAGESIZE), 0);
    assert_int_equal(page & (page - 1), 0);
#ifdef UMO_PAGE_BYTES
    assert_int_equal(page, UMO_PAGE_BYTES);
#endif
#ifdef _SC_PHYS_PAGES
    /* The memory of the machine is no matter of what a build forces. */
    assert_int_equal(umo_os_memory_bytes(),
                     (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
#endif
}

static void fresh_pages_are_whole_zeroed_and_apart(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    unsigned char *pages[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        size_t size_bytes = i * 1000 + 1;
        neighbour_map();
        pages[i] = umo_os_pages_alloc(size_bytes);
        assert_non_null(pages[i]);
        assert_int_equal((uintptr_t)pages[i] % page, 0);
        size_t whole = pages_test_round_up(size_bytes);
        for (size_t at = 0; at < whole; at++) {
            assert_int_equal(pages[i][at], 0);
        }
        memset(pages[i], (int)i + 1, whole);
    }
    for (size_t i = 0; i < PIECES; i++) {
        assert_int_equal(pages[i][0], i + 1);
        assert_int_equal(pages[i][pages_test_round_up(i * 1000 + 1) - 1], i + 1);
    }
    /* Nothing of a page stays when it is given back, however little of it was asked for. */
    for (size_t i = 0; i < PIECES; i++) {
        umo_os_pages_free(pages[i], i * 1000 + 1);
    }
    umo_os_pages_free(NULL, 1);
    for (size_t i = 0; i < PIECES; i++) {
        umo_mapping mapping;
        umo_status status =
            umo_os_mapping_query(pages[i] + pages_test_round_up(i * 1000 + 1) - 1, &mapping);
        assert_true(status == UMO_E_NOT_FOUND || status == UMO_E_UNSUPPORTED);
    }
}

static void more_than_there_is_is_not_handed_out(void **state)
{
    (void)state;
    assert_null(umo_os_pages_alloc(SIZE_MAX));
    assert_null(umo_os_pages_alloc(SIZE_MAX - umo_os_page_bytes() + 1));
    assert_null(umo_os_pages_alloc(SIZE_MAX / 2));
}

/* Where the system cannot tell a loss, there is no such memory. */
static void purgeable_pages_say_what_was_lost(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    void *out = NULL;
    umo_status status = umo_os_pages_alloc_purgeable(3 * page - 1, &out);
#ifdef __linux__
    assert_int_equal(status, UMO_E_UNSUPPORTED);
    assert_null(out);
#else
    assert_int_equal(status, UMO_OK);
    unsigned char *pages = out;
    assert_int_equal((uintptr_t)pages % page, 0);
    for (size_t at = 0; at < 3 * page; at++) {
        assert_int_equal(pages[at], 0);
    }
    memset(pages, 7, 3 * page);
    bool lost = true;
    assert_int_equal(umo_os_pages_purgeable(pages, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    assert_false(lost);
    /* The system may have dropped them or not, but it says so. */
    assert_int_equal(umo_os_pages_purgeable(pages, UMO_PURGEABLE_VOLATILE, NULL), UMO_OK);
    assert_int_equal(umo_os_pages_purgeable(pages, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    if (!lost) {
        assert_int_equal(pages[0], 7);
        assert_int_equal(pages[3 * page - 1], 7);
    }
    assert_int_equal(umo_os_pages_purgeable(pages, UMO_PURGEABLE_EMPTY, NULL), UMO_OK);
    assert_int_equal(umo_os_pages_purgeable(pages, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    assert_true(lost);
    memset(pages, 8, 3 * page);
    assert_int_equal(umo_os_pages_purgeable(pages, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    assert_false(lost);
    assert_int_equal(pages[3 * page - 1], 8);
    umo_os_pages_free(pages, 3 * page - 1);
    /* Other memory is none. */
    void *plain = umo_os_pages_alloc(page);
    assert_non_null(plain);
    assert_int_equal(umo_os_pages_purgeable(plain, UMO_PURGEABLE_VOLATILE, NULL),
                     UMO_E_UNSUPPORTED);
    umo_os_pages_free(plain, page);
    assert_int_equal(umo_os_pages_alloc_purgeable(SIZE_MAX, &out), UMO_E_NOMEM);
#endif
}

static void a_duplicate_lies_on_pages_and_is_of_whole_pages(void **state)
{
    (void)state;
    if (!umo_os_mapping_duplicates()) {
        skip();
    }
    size_t page = umo_os_page_bytes();
    unsigned char *shared =
        pages_test_map(4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    void *own = NULL;
    unsigned char *first = NULL;
    for (size_t pages = 1; pages < 4; pages++) {
        neighbour_map();
        assert_int_equal(umo_os_mapping_duplicate(shared + page, pages * page, &own), UMO_OK);
        assert_int_equal((uintptr_t)own % page, 0);
        shared[page] = (unsigned char)pages;
        shared[(1 + pages) * page - 1] = 77;
        first = own;
        assert_int_equal(first[0], pages);
        assert_int_equal(first[pages * page - 1], 77);
        umo_os_mapping_drop(own, pages * page);
    }
    /* The kernel's pages may be shorter than ours: halves of ours are refused all the same. */
    own = NULL;
    assert_int_equal(umo_os_mapping_duplicate(shared + page / 2, page, &own), UMO_E_REFUSED);
    assert_int_equal(umo_os_mapping_duplicate(shared, page / 2, &own), UMO_E_REFUSED);
    assert_int_equal(umo_os_mapping_duplicate(shared, page + 1, &own), UMO_E_REFUSED);
    /* Private memory has no second mapping. */
    unsigned char *private = umo_os_pages_alloc(page);
    assert_non_null(private);
    assert_int_equal(umo_os_mapping_duplicate(private, page, &own), UMO_E_REFUSED);
    assert_null(own);
    umo_os_pages_free(private, page);
    assert_int_equal(munmap(shared, 4 * page), 0);
}

/* In step with the file behind it, so that its huge pages are seen as such. */
static void a_large_duplicate_lies_at_a_multiple_of_a_huge_page(void **state)
{
    (void)state;
#ifdef __linux__
    const size_t huge = (size_t)2 << 20;
    if (!umo_os_mapping_duplicates()) {
        skip();
    }
    for (size_t size_bytes = huge; size_bytes < 4 * huge; size_bytes += huge / 2) {
        char *shared =
            pages_test_map(size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        void *own[3];
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(umo_os_mapping_duplicate(shared, size_bytes, &own[i]), UMO_OK);
            assert_int_equal((uintptr_t)own[i] % huge, 0);
        }
        shared[size_bytes - 1] = 7;
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(((char *)own[i])[size_bytes - 1], 7);
            umo_os_mapping_drop(own[i], size_bytes);
        }
        assert_int_equal(munmap(shared, size_bytes), 0);
    }
#else
    skip(); /* other systems have no huge pages of files */
#endif
}

static void reserved_addresses_get_pages_and_give_them_back(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    unsigned char *area = umo_os_pages_reserve(5 * page - 1);
    assert_non_null(area);
    assert_int_equal((uintptr_t)area % page, 0);
    umo_mapping mapping;
    if (umo_os_mapping_query(area, &mapping) == UMO_OK) {
        assert_false(mapping.readable || mapping.writable);
    }
    assert_true(umo_os_pages_commit(area + page, 3 * page));
    for (int round = 0; round < 2; round++) {
        for (size_t at = page; at < 4 * page; at++) {
            assert_int_equal(area[at], 0);
        }
        memset(area + page, 7, 3 * page);
        /* What is there already stays. */
        assert_true(umo_os_pages_commit(area + page, 4 * page));
        assert_int_equal(area[page], 7);
        assert_int_equal(area[4 * page], 0);
        umo_os_pages_decommit(area + page, 4 * page);
        if (umo_os_mapping_query(area + page, &mapping) == UMO_OK) {
            assert_false(mapping.readable || mapping.writable);
        }
        assert_true(umo_os_pages_commit(area + page, 3 * page));
    }
    umo_os_pages_free(area, 5 * page - 1);
    assert_null(umo_os_pages_reserve(SIZE_MAX));
}

/* Locked pages are not taken away, but what was in them is. */
static void emptied_pages_are_zeros_also_where_some_are_locked(void **state)
{
    (void)state;
    const size_t page = umo_os_page_bytes();
    for (int decommits = 0; decommits < 2; decommits++) {
        unsigned char *pages = umo_os_pages_reserve(8 * page);
        assert_non_null(pages);
        assert_true(umo_os_pages_commit(pages, 8 * page));
        memset(pages, 0xaa, 8 * page);
        if (mlock(pages + 2 * page, 3 * page) != 0) {
            umo_os_pages_free(pages, 8 * page);
            skip(); /* nothing may be locked here */
        }
        if (decommits) {
            umo_os_pages_decommit(pages + page, 6 * page);
            assert_true(umo_os_pages_commit(pages + page, 6 * page));
        } else {
            umo_os_pages_empty(pages + page, 6 * page);
        }
        for (size_t at = 0; at < 8 * page; at++) {
            assert_int_equal(pages[at], at < page || at >= 7 * page ? 0xaa : 0);
        }
        memset(pages, 1, 8 * page);
        umo_os_pages_free(pages, 8 * page);
    }
}

static void pages_are_populated_as_they_are(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    unsigned char *pages = umo_os_pages_alloc(4 * page);
    assert_non_null(pages);
    pages[page] = 5;
    for (int writable = 0; writable < 2; writable++) {
        assert_int_equal(umo_os_pages_populate(pages + 100, 3 * page, writable != 0), UMO_OK);
        assert_int_equal(pages[page], 5);
        assert_int_equal(pages[page - 1], 0);
    }
    umo_os_pages_free(pages, 4 * page);
}

/* Parts that were touched before what lies between them was in use are two mappings on Linux, which
 * kernels before 6.17 do not move in one call: they unmap the target and then say so. */
static void a_move_does_all_or_nothing(void **state)
{
    (void)state;
    size_t page = umo_os_page_bytes();
    unsigned char *pages = umo_os_pages_reserve(64 * page);
    assert_non_null(pages);
    assert_true(umo_os_pages_commit(pages, 4 * page));
    pages[0] = 1;
    assert_true(umo_os_pages_commit(pages + 8 * page, 4 * page));
    pages[8 * page] = 2;
    assert_true(umo_os_pages_commit(pages + 4 * page, 4 * page));
    assert_true(umo_os_pages_commit(pages + 20 * page, 20 * page));
    unsigned char *target = pages + 24 * page;
    target[0] = 7;
    target[8 * page] = 8;
    bool moved = umo_os_pages_move(pages, 12 * page, target);
    assert_int_equal(target[0], moved ? 1 : 7);
    assert_int_equal(target[8 * page], moved ? 2 : 8);
    assert_int_equal(pages[0], moved ? 0 : 1);
    assert_int_equal(pages[8 * page], moved ? 0 : 2);
    /* What is one mapping moves where the system moves at all; its end may be the end of all. */
    unsigned char *last = pages + 60 * page;
    assert_true(umo_os_pages_commit(last, 4 * page));
    last[page] = 9;
    if (umo_os_pages_move(last, 4 * page, pages + 20 * page)) {
        assert_int_equal(pages[21 * page], 9);
        assert_int_equal(last[page], 0);
    } else {
        assert_false(moved);
        assert_int_equal(last[page], 9);
    }
    umo_os_pages_free(pages, 64 * page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_have_the_size_in_force),
        cmocka_unit_test(fresh_pages_are_whole_zeroed_and_apart),
        cmocka_unit_test(more_than_there_is_is_not_handed_out),
        cmocka_unit_test(purgeable_pages_say_what_was_lost),
        cmocka_unit_test(a_duplicate_lies_on_pages_and_is_of_whole_pages),
        cmocka_unit_test(a_large_duplicate_lies_at_a_multiple_of_a_huge_page),
        cmocka_unit_test(reserved_addresses_get_pages_and_give_them_back),
        cmocka_unit_test(emptied_pages_are_zeros_also_where_some_are_locked),
        cmocka_unit_test(pages_are_populated_as_they_are),
        cmocka_unit_test(a_move_does_all_or_nothing),
    };
    return cmocka_run_group_tests_name("pages", tests, NULL, NULL);
}
