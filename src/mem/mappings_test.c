/*
 * Whose memory is it: asked as seldom as possible, and on a system without a quick answer only
 * where that is cheaper than to copy.
 */
#include "mem/view_rig_test.h"
#include "os/mapping_test.h"

/* Whether the whole map can be read where one address cannot be asked about. */
#ifdef __linux__
#define MAPS 1
#else
#define MAPS 0
#endif

static umo_mappings *mappings_open(void)
{
    umo_mappings *mappings = NULL;
    assert_int_equal(umo_mappings_create(&mappings, NULL), UMO_OK);
    return mappings;
}

static void an_address_is_asked_about_once(void **state)
{
    (void)state;
    umo_mappings *mappings = mappings_open();
    size_t page = pages_test_bytes();
    unsigned char *one = file_map(file_make(2, 1), 2, 0, NULL);
    const umo_mapping *mapping = NULL;
    assert_int_equal(umo_mappings_find(mappings, one + 5, 10, &mapping), UMO_OK);
    assert_true(mapping->shared && mapping->start <= (uintptr_t)one &&
                mapping->end >= (uintptr_t)one + 2 * page);
    mapping_test_silent = true;
    /* Still known, also at another address of it. */
    assert_int_equal(umo_mappings_find(mappings, one + page, 10, &mapping), UMO_OK);
    assert_int_equal(umo_mappings_find(mappings, mappings, 1, &mapping), UMO_E_REFUSED);
    umo_mappings_forget(mappings);
    assert_int_equal(umo_mappings_find(mappings, one, 1, &mapping), UMO_E_REFUSED);
    mapping_test_silent = false;
    assert_int_equal(munmap(one, 2 * page), 0);
    umo_mappings_forget(mappings);
    mapping = NULL;
    umo_status status = umo_mappings_find(mappings, one, 1, &mapping);
    assert_true(status == UMO_E_NOT_FOUND || !mapping->shared);
    umo_mappings_destroy(mappings);
    umo_mappings_destroy(NULL);
}

/* More mappings than are kept in mind, and all right. */
static void many_mappings_are_told_apart(void **state)
{
    (void)state;
    enum {
        MANY = 40
    };
    size_t page = pages_test_bytes();
    unsigned char *maps[MANY];
    umo_mapping direct[MANY];
    for (size_t i = 0; i < MANY; i++) {
        int file = file_make(3, (unsigned char)i);
        maps[i] = file_map(file, 2, 1, NULL);
        (void)close(file);
        assert_int_equal(umo_mapping_query(maps[i], &direct[i]), UMO_OK);
    }
    for (int silent = 0; silent <= MAPS; silent++) {
        umo_mappings *mappings = mappings_open();
        mapping_test_silent = silent != 0;
        for (size_t turn = 0; turn < 3; turn++) {
            for (size_t i = 0; i < MANY; i++) {
                const umo_mapping *mapping = NULL;
                size_t pick = i * 7 % MANY;
                assert_int_equal(umo_mappings_find(mappings, maps[pick] + page, SIZE_MAX, &mapping),
                                 UMO_OK);
                assert_int_equal(mapping->start, direct[pick].start);
                assert_int_equal(mapping->end, direct[pick].end);
                assert_int_equal(mapping->device, direct[pick].device);
                assert_int_equal(mapping->inode, direct[pick].inode);
                assert_int_equal(mapping->offset_bytes, direct[pick].offset_bytes);
                assert_true(mapping->shared && mapping->readable && mapping->writable);
            }
        }
        mapping_test_silent = false;
        umo_mappings_destroy(mappings);
    }
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(munmap(maps[i], 2 * page), 0);
    }
}

#if MAPS
/* Rent until it has cost as much as to buy. */
static void the_map_is_read_when_copying_would_have_cost_as_much(void **state)
{
    (void)state;
    uint64_t crossover = umo_mappings_crossover_bytes();
    assert_true(crossover > 4096 && crossover < (uint64_t)1 << 40);
    umo_mappings *mappings = mappings_open();
    int file = file_make(2, 1);
    unsigned char *one = file_map(file, 2, 0, NULL);
    (void)close(file);
    const umo_mapping *mapping = NULL;
    mapping_test_silent = true;
    for (int turn = 0; turn < 3; turn++) {
        size_t part = (size_t)(umo_mappings_crossover_bytes() / 8);
        int refused = 0;
        umo_status status = UMO_E_REFUSED;
        while (status == UMO_E_REFUSED && refused < 100) {
            status = umo_mappings_find(mappings, one, part, &mapping);
            refused += status == UMO_E_REFUSED ? 1 : 0;
        }
        assert_int_equal(status, UMO_OK);
        assert_true(refused >= 7 && refused <= 8);
        assert_true(mapping->shared);
        /* From now on everything is known, of one byte too. */
        assert_int_equal(umo_mappings_find(mappings, mappings, 1, &mapping), UMO_OK);
        assert_false(mapping->shared);
        assert_int_equal(umo_mappings_find(mappings, (const void *)16, 1, &mapping),
                         UMO_E_NOT_FOUND);
        umo_mappings_forget(mappings);
    }
    /* One large tensor is enough, and no sum overflows. */
    assert_int_equal(umo_mappings_find(mappings, one, 1, &mapping), UMO_E_REFUSED);
    assert_int_equal(umo_mappings_find(mappings, one, SIZE_MAX, &mapping), UMO_OK);
    mapping_test_silent = false;
    assert_int_equal(munmap(one, 2 * pages_test_bytes()), 0);
    umo_mappings_destroy(mappings);
}

/* What was measured at a bad moment is not believed for ever. */
static void a_price_that_was_too_high_falls(void **state)
{
    (void)state;
    enum {
        MANY = 8000
    };
    size_t page = pages_test_bytes();
    /* Every second page is another mapping: to read all takes many times as long as usually. */
    char *pages = mmap(NULL, MANY * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    for (size_t i = 0; i < MANY; i += 2) {
        assert_int_equal(mprotect(pages + i * page, page, PROT_NONE), 0);
    }
    umo_mappings *mappings = mappings_open();
    const umo_mapping *mapping = NULL;
    mapping_test_silent = true;
    for (int i = 0; i < 30; i++) { /* each is a quarter of what is known */
        umo_mappings_forget(mappings);
        assert_int_equal(umo_mappings_find(mappings, mappings, SIZE_MAX, &mapping), UMO_OK);
    }
    assert_int_equal(munmap(pages, MANY * page), 0);
    uint64_t high = umo_mappings_crossover_bytes();
    /* Usually some ten; more where something else has the processor while it is measured. */
    for (int i = 0; i < 2000 && umo_mappings_crossover_bytes() >= high / 4; i++) {
        umo_mappings_forget(mappings);
        umo_status status = umo_mappings_find(mappings, mappings, (size_t)high / 8, &mapping);
        assert_true(status == UMO_E_REFUSED || umo_mappings_crossover_bytes() <= high / 8);
    }
    mapping_test_silent = false;
    assert_true(umo_mappings_crossover_bytes() < high / 4);
    umo_mappings_destroy(mappings);
}

/* Views on such a system: made, found again, lost, swept. */
static void an_older_system_has_views(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    umo_mappings *mappings = mappings_open();
    int file = file_make(4, 60);
    unsigned char *theirs = file_map(file, 4, 0, NULL);
    mapping_test_silent = true;
    umo_view *first = NULL;
    for (int turn = 0; turn < 3; turn++) {
        const umo_mapping *mapping = NULL;
        void *own = NULL;
        umo_view *view = NULL;
        umo_mappings_forget(mappings);
        assert_int_equal(umo_mappings_find(mappings, theirs, SIZE_MAX, &mapping), UMO_OK);
        assert_int_equal(
            umo_view_find(r.registry, theirs + r.page, 3 * r.page, mapping, &own, &view, NULL),
            UMO_OK);
        assert_int_equal(((volatile unsigned char *)own)[2 * r.page], 63);
        assert_true(turn == 0 || view == first);
        first = view;
        if (turn == 2) {
            assert_int_equal(ftruncate(file, 0), 0);
            assert_int_equal(((volatile unsigned char *)own)[0], 0);
            assert_true(umo_view_lost(view, own, 1));
        }
        umo_view_release(view);
    }
    assert_int_equal(stats(&r).view_hits, 2);
    assert_int_equal(stats(&r).views, 0);
    mapping_test_silent = false;
    assert_int_equal(munmap(theirs, 4 * r.page), 0);
    (void)close(file);
    umo_mappings_destroy(mappings);
    rig_close(&r);
}

static bool count_visit(const umo_mapping *mapping, void *user)
{
    (void)mapping;
    ++*(size_t *)user;
    return true;
}

static void the_map_has_as_many_lines_as_mappings(void **state)
{
    (void)state;
    enum {
        MANY = 3000
    };
    static unsigned char *maps[MANY];
    size_t before = 0;
    size_t after = 0;
    int file = file_make(1, 1);
    assert_int_equal(umo_os_mapping_visit(count_visit, &before), UMO_OK);
    for (size_t i = 0; i < MANY; i++) {
        maps[i] = file_map(file, 1, 0, NULL); /* the same page again is never joined */
    }
    assert_int_equal(umo_os_mapping_visit(count_visit, &after), UMO_OK);
    assert_in_range(after - before, MANY, MANY + 2);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(munmap(maps[i], pages_test_bytes()), 0);
    }
    (void)close(file);
    assert_true(umo_os_mappings_max() >= 1024);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_asked_about_once),
        cmocka_unit_test(many_mappings_are_told_apart),
#if MAPS
        cmocka_unit_test(the_map_is_read_when_copying_would_have_cost_as_much),
        cmocka_unit_test(a_price_that_was_too_high_falls),
        cmocka_unit_test(an_older_system_has_views),
        cmocka_unit_test(the_map_has_as_many_lines_as_mappings),
#endif
    };
    return cmocka_run_group_tests_name("mappings", tests, NULL, NULL);
}
