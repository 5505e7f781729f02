/*
 * Memory that the Metal driver makes itself: sizes, heaps for small memory, storage modes, figures,
 * and what may be purged.
 */
#include "driver/metal/metal_test.h"

enum {
    KIB = 1024,
    MIB = 1024 * KIB,
    HEAP_BYTES = 4 * MIB,
    /* The longest memory that comes out of a heap, and how many of them fill one. */
    SMALL = 64 * KIB,
    HEAP_FULL = HEAP_BYTES / SMALL
};

static umo_device_usage usage_of(void *state)
{
    umo_device_usage usage = {0};
    assert_int_equal(driver->usage(state, &usage), UMO_OK);
    return usage;
}

/* ---- sizes ---- */

static void a_buffer_has_one_byte_at_least_and_the_devices_limit_at_most(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.buffer_max = MIB;
    fake_metal_reset(&options);
    void *state = device_open();
    const size_t wrong[] = {0, MIB + 1, SIZE_MAX};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_memory memory = {0};
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            umo_error error = {0};
            assert_int_equal(
                driver->alloc(state, wrong[i], (umo_storage_mode)mode, &memory, &error),
                UMO_E_INVAL);
            assert_non_null(strstr(error.text, "1 to 1048576 bytes"));
            assert_null(memory.native);
        }
        memory = memory_make(state, MIB, (umo_storage_mode)mode);
        driver->free(state, &memory);
        memory = memory_make(state, 1, (umo_storage_mode)mode);
        driver->free(state, &memory);
    }
    device_close(state);
}

static void memory_says_what_it_is(void **unused)
{
    (void)unused;
    for (int discrete = 0; discrete < 2; discrete++) {
        if (discrete != 0) {
            machine_discrete();
        }
        umo_device_info info;
        void *state = device_open_with(&no_options, &info);
        assert_int_equal(info.unified, discrete == 0);
        assert_int_equal(info.alloc_align_bytes, 256);
        const size_t sizes[] = {1, 1000, SMALL, SMALL + 1, MIB};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
                umo_memory memory = memory_make(state, sizes[i], (umo_storage_mode)mode);
                assert_int_equal(memory.size_bytes, sizes[i]);
                assert_int_equal(memory.mode, mode);
                assert_int_equal(memory.offset_bytes, 0);
                assert_false(memory.imported);
                assert_false(memory.cleared);
                assert_int_equal(memory.one_memory, mode == UMO_MANAGED && discrete == 0);
                assert_int_equal(memory.host == NULL, mode == UMO_PRIVATE);
                assert_int_equal((uintptr_t)memory.host % info.alloc_align_bytes, 0);
                driver->free(state, &memory);
            }
        }
        device_close(state);
    }
}

static void an_odd_answer_about_heaps_promises_no_alignment(void **unused)
{
    (void)unused;
    const uint64_t odd[] = {384, (uint64_t)2 * pages_test_bytes()};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        fake_metal_options options = machine();
        options.heap_align = odd[i];
        fake_metal_reset(&options);
        umo_device_info info;
        void *state = device_open_with(&no_options, &info);
        assert_int_equal(info.alloc_align_bytes, 1);
        device_close(state);
    }
}

static void fresh_memory_is_poisoned_in_test_mode(void **unused)
{
    (void)unused;
    umo_device_info info;
    void *state = device_open_with(&test_mode, &info);
    assert_true((info.caps & UMO_CAP_POISON) != 0);
    const size_t sizes[] = {1000, MIB};
    for (size_t i = 0; i < 2; i++) {
        for (int mode = 0; mode < UMO_PRIVATE; mode++) {
            umo_memory memory = memory_make(state, sizes[i], (umo_storage_mode)mode);
            const unsigned char *bytes = memory.host;
            assert_int_equal(bytes[0], 0xDB);
            assert_memory_equal(bytes, bytes + 1, sizes[i] - 1);
            driver->free(state, &memory);
        }
        umo_memory memory = memory_make(state, sizes[i], UMO_PRIVATE);
        driver->free(state, &memory);
    }
    device_close(state);
}

/* ---- when there is none ---- */

static void an_empty_or_unreachable_buffer_is_no_memory(void **unused)
{
    (void)unused;
    void *state = device_open();
    const size_t sizes[] = {1000, MIB};
    for (size_t i = 0; i < 2; i++) {
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            umo_error error = {0};
            umo_memory memory = {0};
            /* As virtual machines have answered. */
            fake_metal_set_modes(FAKE_METAL_ZERO_LENGTH);
            assert_int_equal(
                driver->alloc(state, sizes[i], (umo_storage_mode)mode, &memory, &error),
                UMO_E_NOMEM);
            assert_non_null(strstr(error.text, "Metal gives no buffer of"));
            assert_null(memory.native);
            fake_metal_set_modes(0);
            if (mode != UMO_PRIVATE) {
                fake_metal_fail("contents", 1);
                assert_int_equal(
                    driver->alloc(state, sizes[i], (umo_storage_mode)mode, &memory, NULL),
                    UMO_E_NOMEM);
                assert_string_equal(fake_metal_failed(), "contents");
            }
            memory = memory_make(state, sizes[i], (umo_storage_mode)mode);
            driver->free(state, &memory);
        }
    }
    /* A heap's place that was refused is free again. */
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
    assert_int_equal(fake_metal_live("MTLHeap"), UMO_STORAGE_MODES);
    device_close(state);
}

static void without_room_for_a_heap_small_memory_has_a_buffer_of_its_own(void **unused)
{
    (void)unused;
    void *state = device_open();
    fake_metal_set_memory_limit(MIB);
    umo_memory memory = memory_make(state, 1000, UMO_PRIVATE);
    assert_int_equal(fake_metal_live("MTLHeap"), 0);
    assert_int_equal(usage_of(state).allocated_bytes, pages_test_round_up(1000));
    driver->free(state, &memory);
    assert_int_equal(usage_of(state).allocated_bytes, 0);
    fake_metal_set_memory_limit(1);
    umo_error error = {0};
    assert_int_equal(driver->alloc(state, 1000, UMO_PRIVATE, &memory, &error), UMO_E_NOMEM);
    assert_non_null(strstr(error.text, "1000 bytes"));
    device_close(state);
}

/* ---- heaps ---- */

static void small_memory_of_a_mode_shares_one_heap(void **unused)
{
    (void)unused;
    enum {
        PIECES = 20,
        SIZE = 1000
    };
    for (int discrete = 0; discrete < 2; discrete++) {
        if (discrete != 0) {
            machine_discrete();
        }
        void *state = device_open();
        umo_memory pieces[UMO_STORAGE_MODES][PIECES];
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            for (int i = 0; i < PIECES; i++) {
                pieces[mode][i] = memory_make(state, SIZE, (umo_storage_mode)mode);
                if (mode != UMO_PRIVATE) {
                    memset(pieces[mode][i].host, i + mode * PIECES, SIZE);
                }
            }
        }
        /* Managed memory of two sides cannot come out of a heap, and Shared only on Apple's GPUs.
         */
        assert_int_equal(fake_metal_live("MTLHeap"), discrete != 0 ? 1 : 3);
        uint64_t own = discrete != 0 ? 2 * PIECES * pages_test_round_up(SIZE) : 0;
        assert_int_equal(usage_of(state).allocated_bytes,
                         fake_metal_live("MTLHeap") * HEAP_BYTES + own);
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            for (int i = 0; i < PIECES; i++) {
                const unsigned char *bytes = pieces[mode][i].host;
                for (size_t b = 0; mode != UMO_PRIVATE && b < SIZE; b++) {
                    assert_int_equal(bytes[b], i + mode * PIECES);
                }
                driver->free(state, &pieces[mode][i]);
            }
        }
        device_close(state);
    }
}

static void longer_memory_is_a_buffer_of_its_own(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, SMALL + 1, UMO_UNIFIED);
    assert_int_equal(fake_metal_live("MTLHeap"), 0);
    assert_int_equal(usage_of(state).allocated_bytes, pages_test_round_up(SMALL + 1));
    driver->free(state, &memory);
    assert_int_equal(usage_of(state).allocated_bytes, 0);
    device_close(state);
}

static void an_empty_heap_goes_unless_it_is_the_last(void **unused)
{
    (void)unused;
    umo_memory full[3][HEAP_FULL];
    void *state = device_open();
    for (int heap = 0; heap < 3; heap++) {
        for (int i = 0; i < HEAP_FULL; i++) {
            full[heap][i] = memory_make(state, SMALL, UMO_PRIVATE);
        }
        assert_int_equal(fake_metal_live("MTLHeap"), heap + 1);
    }
    /* A place that was given back is taken again, whichever heap it is in. */
    driver->free(state, &full[0][5]);
    full[0][5] = memory_make(state, SMALL, UMO_PRIVATE);
    driver->free(state, &full[1][7]);
    full[1][7] = memory_make(state, SMALL, UMO_PRIVATE);
    assert_int_equal(fake_metal_live("MTLHeap"), 3);
    /* The one in the middle, the newest, and the last. */
    const int order[] = {1, 2, 0};
    for (int o = 0; o < 3; o++) {
        for (int i = 0; i < HEAP_FULL; i++) {
            driver->free(state, &full[order[o]][i]);
        }
        assert_int_equal(fake_metal_live("MTLHeap"), o < 2 ? 2 - o : 1);
    }
    assert_int_equal(usage_of(state).allocated_bytes, HEAP_BYTES);
    full[0][0] = memory_make(state, SMALL, UMO_PRIVATE);
    assert_int_equal(fake_metal_live("MTLHeap"), 1);
    driver->free(state, &full[0][0]);
    device_close(state);
}

static void a_heap_that_gave_nothing_goes_again(void **unused)
{
    (void)unused;
    void *state = device_open();
    /* The first of these is the heap's; the second makes a buffer of its own. */
    fake_metal_fail("newBufferWithLength:options:", 1);
    umo_memory own = memory_make(state, 1000, UMO_UNIFIED);
    assert_int_equal(usage_of(state).allocated_bytes, pages_test_round_up(1000));
    umo_memory shared = memory_make(state, 1000, UMO_UNIFIED);
    assert_int_equal(usage_of(state).allocated_bytes, HEAP_BYTES + pages_test_round_up(1000));
    driver->free(state, &own);
    driver->free(state, &shared);
    assert_int_equal(usage_of(state).allocated_bytes, HEAP_BYTES);
    device_close(state);
}

/* ---- figures ---- */

static void usage_follows_what_lives(void **unused)
{
    (void)unused;
    fake_metal_options options = machine();
    options.working_set = UINT64_C(5) << 30;
    fake_metal_reset(&options);
    umo_device_info info;
    void *state = device_open_with(&no_options, &info);
    assert_int_equal(info.memory_bytes, UINT64_C(5) << 30);
    assert_int_equal(usage_of(state).budget_bytes, UINT64_C(5) << 30);
    assert_int_equal(usage_of(state).allocated_bytes, 0);
    umo_memory first = memory_make(state, MIB, UMO_PRIVATE);
    assert_int_equal(usage_of(state).allocated_bytes, MIB);
    umo_memory second = memory_make(state, 2 * MIB, UMO_UNIFIED);
    assert_int_equal(usage_of(state).allocated_bytes, 3 * MIB);
    driver->free(state, &first);
    assert_int_equal(usage_of(state).allocated_bytes, 2 * MIB);
    driver->free(state, &second);
    assert_int_equal(usage_of(state).allocated_bytes, 0);
    device_close(state);
}

static void one_memory_shows_the_devices_bytes_at_once(void **unused)
{
    (void)unused;
    void *state = device_open();
    adder add = adder_create(state);
    for (int mode = 0; mode < UMO_PRIVATE; mode++) {
        umo_memory memory = memory_make(state, 1000, (umo_storage_mode)mode);
        memset(memory.host, 5, 1000);
        fence_pass(state, add_give(state, 0, add, &memory, 999, 2, NULL, 0));
        const unsigned char *bytes = memory.host;
        assert_int_equal(bytes[0], add_value(5, 2));
        assert_memory_equal(bytes, bytes + 1, 998);
        assert_int_equal(bytes[999], 5);
        driver->free(state, &memory);
    }
    adder_destroy(state, add);
    device_close(state);
}

/* ---- what may be purged ---- */

static bool kept_again(void *state, umo_memory *memory)
{
    bool lost = true;
    assert_int_equal(driver->purgeable(state, memory, UMO_PURGEABLE_KEPT, &lost), UMO_OK);
    return lost;
}

static void volatile_memory_is_lost_only_when_it_was_purged(void **unused)
{
    (void)unused;
    for (int discrete = 0; discrete < 2; discrete++) {
        if (discrete != 0) {
            machine_discrete();
        }
        void *state = device_open();
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            umo_memory memory = memory_make(state, MIB, (umo_storage_mode)mode);
            bool untouched = true;
            if (mode != UMO_PRIVATE) {
                memset(memory.host, 3, MIB);
            }
            assert_false(kept_again(state, &memory));
            assert_int_equal(driver->purgeable(state, &memory, UMO_PURGEABLE_VOLATILE, &untouched),
                             UMO_OK);
            assert_false(kept_again(state, &memory));
            if (mode != UMO_PRIVATE) {
                assert_int_equal(((unsigned char *)memory.host)[MIB - 1], 3);
            }
            assert_int_equal(driver->purgeable(state, &memory, UMO_PURGEABLE_VOLATILE, &untouched),
                             UMO_OK);
            assert_int_equal(fake_metal_purge(), 1);
            assert_true(kept_again(state, &memory));
            assert_false(kept_again(state, &memory));
            assert_int_equal(fake_metal_purge(), 0);
            assert_true(untouched);
            driver->free(state, &memory);
        }
        device_close(state);
    }
}

static void emptied_memory_is_lost(void **unused)
{
    (void)unused;
    void *state = device_open();
    umo_memory memory = memory_make(state, MIB, UMO_UNIFIED);
    memset(memory.host, 3, MIB);
    assert_int_equal(driver->purgeable(state, &memory, UMO_PURGEABLE_EMPTY, NULL), UMO_OK);
    assert_true(kept_again(state, &memory));
    assert_int_not_equal(((unsigned char *)memory.host)[0], 3);
    /* It is memory like any other again. */
    adder add = adder_create(state);
    memset(memory.host, 4, MIB);
    fence_pass(state, add_give(state, 0, add, &memory, 100, 1, NULL, 0));
    assert_int_equal(((unsigned char *)memory.host)[99], add_value(4, 1));
    fake_metal_set_modes(FAKE_METAL_PURGE_AT_ONCE);
    assert_int_equal(driver->purgeable(state, &memory, UMO_PURGEABLE_VOLATILE, NULL), UMO_OK);
    assert_true(kept_again(state, &memory));
    adder_destroy(state, add);
    driver->free(state, &memory);
    device_close(state);
}

static void what_shares_pages_or_belongs_to_somebody_else_is_not_purged(void **unused)
{
    (void)unused;
    const size_t page = pages_test_bytes();
    unsigned char *pages = umo_os_pages_alloc(page);
    void *state = device_open();
    umo_memory in_heap = memory_make(state, 1000, UMO_PRIVATE);
    umo_memory own = memory_make(state, MIB, UMO_PRIVATE);
    umo_memory imported;
    bool lost = true;
    assert_int_equal(driver->import(state, pages, page, UMO_IMPORT_READ, &imported, NULL, NULL),
                     UMO_OK);
    fake_metal_mark();
    for (int want = UMO_PURGEABLE_KEPT; want <= UMO_PURGEABLE_EMPTY; want++) {
        assert_int_equal(driver->purgeable(state, &in_heap, (umo_purgeable)want, &lost),
                         UMO_E_UNSUPPORTED);
        assert_int_equal(driver->purgeable(state, &imported, (umo_purgeable)want, &lost),
                         UMO_E_UNSUPPORTED);
    }
    assert_int_equal(driver->purgeable(state, &own, (umo_purgeable)3, &lost), UMO_E_INVAL);
    assert_int_equal(fake_metal_messages_of("setPurgeableState:"), 0);
    assert_true(lost);
    driver->free(state, &imported);
    driver->free(state, &own);
    driver->free(state, &in_heap);
    device_close(state);
    umo_os_pages_free(pages, page);
}

static bool is_one_value(const umo_memory *memory)
{
    const unsigned char *bytes = memory->host;
    return memcmp(bytes, bytes + 1, memory->size_bytes - 1) == 0;
}

/* Small memory is taken and given back by many threads, which write to all of theirs. */
static void *small_memory_churn(void *opaque)
{
    void *state = opaque;
    umo_memory mine[8] = {{0}};
    for (unsigned round = 0; round < 200; round++) {
        umo_memory *memory = &mine[round % 8];
        if (memory->native != NULL) {
            if (!is_one_value(memory)) {
                return "somebody else wrote to the memory";
            }
            driver->free(state, memory);
        }
        if (driver->alloc(state, 1 + round * 331 % SMALL, UMO_UNIFIED, memory, NULL) != UMO_OK) {
            return "alloc failed";
        }
        memset(memory->host, (int)((round + (uintptr_t)mine) & 0xff), memory->size_bytes);
    }
    for (unsigned i = 0; i < 8; i++) {
        if (!is_one_value(&mine[i])) {
            return "somebody else wrote to the memory";
        }
        driver->free(state, &mine[i]);
    }
    return NULL;
}

static void many_threads_share_the_heaps(void **unused)
{
    (void)unused;
    pthread_t threads[4];
    void *state = device_open();
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, small_memory_churn, state), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        void *wrong = NULL;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
    device_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_buffer_has_one_byte_at_least_and_the_devices_limit_at_most),
        TEST(memory_says_what_it_is),
        TEST(an_odd_answer_about_heaps_promises_no_alignment),
        TEST(fresh_memory_is_poisoned_in_test_mode),
        TEST(an_empty_or_unreachable_buffer_is_no_memory),
        TEST(without_room_for_a_heap_small_memory_has_a_buffer_of_its_own),
        TEST(small_memory_of_a_mode_shares_one_heap),
        TEST(longer_memory_is_a_buffer_of_its_own),
        TEST(an_empty_heap_goes_unless_it_is_the_last),
        TEST(a_heap_that_gave_nothing_goes_again),
        TEST(usage_follows_what_lives),
        TEST(one_memory_shows_the_devices_bytes_at_once),
        TEST(volatile_memory_is_lost_only_when_it_was_purged),
        TEST(emptied_memory_is_lost),
        TEST(what_shares_pages_or_belongs_to_somebody_else_is_not_purged),
        TEST(many_threads_share_the_heaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
