/*
 * Rings: lanes lie as they must, slots are given out lowest first and to one taker each, what is
 * lost stays lost, and nothing of a ring is left in the file system.
 */
#include <umo/ring.h>

#include "os/os.h"
#include "os/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static umo_ring *make(const umo_lane_spec *specs, uint32_t count)
{
    umo_ring *ring = NULL;
    umo_error error;
    if (umo_ring_create(specs, count, &ring, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return ring;
}

static umo_ring *small(uint32_t slots)
{
    const umo_lane_spec specs[] = {{"m", "in", 12, slots}, {"m", "out", 20, slots}};
    return make(specs, COUNT(specs));
}

static umo_ring_stats stats(umo_ring *ring)
{
    umo_ring_stats s;
    umo_ring_read(ring, &s);
    return s;
}

static void lanes_do_not_share_a_page_and_slots_touch(void **state)
{
    (void)state;
    const umo_lane_spec specs[] = {
        {"a", "x", 1, 5}, {"b", "x", 4097, 3}, {"a", "y", 4096, 5}, {"c", "x", 3, 65}};
    umo_lane lanes[COUNT(specs)];
    size_t size_bytes = 0;
    const size_t pages[] = {4096, 16384, 65536};
    for (size_t p = 0; p < COUNT(pages); p++) {
        assert_int_equal(umo_ring_layout(specs, COUNT(specs), pages[p], lanes, &size_bytes, NULL),
                         UMO_OK);
        size_t end = 0;
        for (size_t i = 0; i < COUNT(specs); i++) {
            assert_int_equal(lanes[i].offset_bytes % pages[p], 0);
            assert_true(lanes[i].offset_bytes >= end && lanes[i].offset_bytes < end + pages[p]);
            assert_int_equal(umo_lane_slot_offset(&lanes[i], 1),
                             lanes[i].offset_bytes + specs[i].tensor_bytes);
            end = umo_lane_slot_offset(&lanes[i], lanes[i].slots);
        }
        assert_true(size_bytes >= end && size_bytes < end + pages[p] && size_bytes % pages[p] == 0);
    }
    assert_int_equal(lanes[0].model, 0);
    assert_int_equal(lanes[1].model, 1);
    assert_int_equal(lanes[2].model, 0);
    assert_int_equal(lanes[3].model, 2);
}

static void a_layout_that_cannot_be_is_refused(void **state)
{
    (void)state;
    const umo_lane_spec bad[][2] = {
        {{"m", "t", 0, 1}, {"n", "t", 1, 1}},
        {{"m", "t", 4, 0}, {"n", "t", 1, 1}},
        {{"m", "t", 4, 2}, {"m", "t", 8, 2}},
        {{"m", "t", 4, 2}, {"m", "u", 4, 3}},
        {{"m", "t", SIZE_MAX, 2}, {"n", "t", 1, 1}},
        {{"m", "t", SIZE_MAX, 1}, {"n", "t", 1, 1}},
        {{"m", "t", SIZE_MAX / 2, 1}, {"n", "t", SIZE_MAX / 2, 1}},
        {{NULL, "t", 4, 1}, {"n", "t", 1, 1}},
        {{"m", NULL, 4, 1}, {"n", "t", 1, 1}},
    };
    umo_lane lanes[2];
    size_t size_bytes = 7;
    umo_error error;
    for (size_t i = 0; i < COUNT(bad); i++) {
        umo_ring *ring = NULL;
        assert_int_equal(umo_ring_layout(bad[i], 2, 4096, lanes, &size_bytes, &error), UMO_E_INVAL);
        assert_int_equal(umo_ring_create(bad[i], 2, &ring, &error), UMO_E_INVAL);
        assert_null(ring);
    }
#if SIZE_MAX > UINT32_MAX
    const umo_lane_spec largest[] = {{"m", "t", (size_t)UMO_RING_LARGEST_BYTES, 1},
                                     {"n", "t", 1, 1}};
    assert_int_equal(umo_ring_layout(largest, 1, 4096, lanes, &size_bytes, NULL), UMO_OK);
    size_bytes = 7;
    assert_int_equal(umo_ring_layout(largest, 2, 4096, lanes, &size_bytes, NULL), UMO_E_INVAL);
#endif
    const umo_lane_spec good = {"m", "t", 4, 1};
    umo_ring *ring = NULL;
    assert_int_equal(umo_ring_layout(&good, 0, 4096, lanes, &size_bytes, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_layout(&good, 1, 0, lanes, &size_bytes, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_layout(&good, 1, 3000, lanes, &size_bytes, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_layout(NULL, 1, 4096, lanes, &size_bytes, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_layout(&good, 1, 4096, NULL, &size_bytes, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_layout(&good, 1, 4096, lanes, NULL, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_create(&good, UMO_RING_LANES + 1, &ring, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_create(&good, 0, &ring, NULL), UMO_E_INVAL);
    assert_int_equal(umo_ring_create(&good, 1, NULL, NULL), UMO_E_INVAL);
    assert_int_equal(size_bytes, 7);
}

static bool seen(const char *key)
{
    int file = shm_open(key, O_RDWR, 0);
    if (file >= 0) {
        (void)close(file);
    }
    return file >= 0;
}

static void a_segment_can_be_opened_until_it_is_hidden(void **state)
{
    (void)state;
    umo_ring *ring = small(3);
    umo_ring_info info;
    umo_ring_describe(ring, &info);
    assert_true(strlen(info.key) <= 30);
    char prefix[32];
    (void)snprintf(prefix, sizeof(prefix), "umo-%ld-", (long)getpid());
    assert_memory_equal(info.name, prefix, strlen(prefix));
    int file = shm_open(info.key, O_RDWR, 0);
    assert_true(file >= 0);
    void *server = mmap(NULL, info.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_true(server != MAP_FAILED);
    (void)close(file);
    umo_ring_hide(ring);
    umo_ring_hide(ring);
    assert_false(seen(info.key));
    uint32_t slot;
    umo_lane lane;
    assert_int_equal(umo_ring_lane(ring, "m", "out", &lane), UMO_OK);
    assert_int_equal(umo_ring_take(ring, lane.model, 0, &slot), UMO_OK);
    memset(info.base + umo_lane_slot_offset(&lane, slot), 9, lane.stride_bytes);
    assert_int_equal(((unsigned char *)server)[lane.offset_bytes + 19], 9);
    umo_os_mapping_drop(server, info.size_bytes);
    umo_ring_destroy(ring);
}

static void a_destroyed_ring_leaves_no_name(void **state)
{
    (void)state;
    umo_ring *ring = small(1);
    umo_ring_info info;
    umo_ring_describe(ring, &info);
    char key[UMO_RING_KEY_BYTES];
    memcpy(key, info.key, sizeof(key));
    assert_true(seen(key));
    umo_ring_destroy(ring);
    assert_false(seen(key));
    umo_ring_destroy(NULL);
}

static void a_child_does_not_remove_its_parents_name(void **state)
{
    (void)state;
    umo_ring *ring = small(1);
    umo_ring_info info;
    umo_ring_describe(ring, &info);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        umo_ring_destroy(ring);
        _exit(0);
    }
    int ended = -1;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
    assert_true(seen(info.key));
    umo_ring_destroy(ring);
}

static void lanes_are_found_by_their_names(void **state)
{
    (void)state;
    char model[] = "m";
    char tensor[] = "in";
    const umo_lane_spec specs[] = {{model, tensor, 12, 2}, {"n", "in", 8, 5}};
    umo_ring *ring = make(specs, COUNT(specs));
    model[0] = tensor[0] = 'x'; /* the ring has names of its own */
    umo_lane lane = {.slots = 77};
    assert_int_equal(umo_ring_lane(ring, "m", "out", &lane), UMO_E_NOT_FOUND);
    assert_int_equal(umo_ring_lane(ring, "in", "m", &lane), UMO_E_NOT_FOUND);
    assert_int_equal(lane.slots, 77);
    assert_int_equal(umo_ring_lane(ring, "n", "in", &lane), UMO_OK);
    assert_int_equal(lane.slots, 5);
    assert_int_equal(lane.model, 1);
    assert_int_equal(umo_ring_lane(ring, "m", "in", &lane), UMO_OK);
    assert_int_equal(lane.stride_bytes, 12);
    umo_ring_destroy(ring);
}

static void slots_are_given_out_lowest_first(void **state)
{
    (void)state;
    enum {
        SLOTS = 130
    };
    const umo_lane_spec specs[] = {
        {"m", "in", 12, SLOTS}, {"n", "in", 4, 2}, {"m", "out", 8, SLOTS}};
    umo_ring *ring = make(specs, COUNT(specs));
    uint32_t slot;
    for (uint32_t i = 0; i < SLOTS; i++) {
        assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
        assert_int_equal(slot, i);
    }
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_E_LIMIT);
    assert_int_equal(umo_ring_take(ring, 0, 1000, &slot), UMO_E_TIMEOUT);
    assert_int_equal(umo_ring_take(ring, 1, 0, &slot), UMO_OK);
    assert_int_equal(slot, 0);
    const uint32_t back[] = {129, 64, 63, 0};
    for (size_t i = 0; i < COUNT(back); i++) {
        assert_int_equal(umo_ring_give(ring, 0, back[i]), UMO_OK);
    }
    for (size_t i = COUNT(back); i > 0; i--) {
        assert_int_equal(umo_ring_take(ring, 0, UINT64_MAX, &slot), UMO_OK);
        assert_int_equal(slot, back[i - 1]);
    }
    assert_int_equal(stats(ring).out, SLOTS + 1);
    assert_int_equal(stats(ring).committed_bytes, SLOTS * 20 + 4);
    umo_ring_destroy(ring);
}

static void mistakes_are_refused(void **state)
{
    (void)state;
    umo_ring *ring = small(3);
    uint32_t slot = 77;
    assert_int_equal(umo_ring_take(ring, 1, 0, &slot), UMO_E_INVAL);
    assert_int_equal(slot, 77);
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
    assert_int_equal(umo_ring_give(ring, 0, 1), UMO_E_INVAL);
    assert_int_equal(umo_ring_give(ring, 0, 3), UMO_E_INVAL);
    assert_int_equal(umo_ring_give(ring, 0, UINT32_MAX), UMO_E_INVAL);
    assert_int_equal(umo_ring_give(ring, 1, 0), UMO_E_INVAL);
    assert_int_equal(umo_ring_lose(ring, 0, 1), UMO_E_INVAL);
    assert_int_equal(umo_ring_lose(ring, 7, 0), UMO_E_INVAL);
    assert_int_equal(umo_ring_give(ring, 0, slot), UMO_OK);
    assert_int_equal(umo_ring_give(ring, 0, slot), UMO_E_INVAL);
    assert_int_equal(stats(ring).out, 0);
    umo_ring_destroy(ring);
}

static void a_lost_slot_is_never_given_out_again(void **state)
{
    (void)state;
    umo_ring *ring = small(2);
    uint32_t slot;
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
    assert_int_equal(umo_ring_lose(ring, 0, slot), UMO_OK);
    assert_int_equal(umo_ring_lose(ring, 0, slot), UMO_E_INVAL);
    assert_int_equal(umo_ring_give(ring, 0, slot), UMO_E_INVAL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
        assert_int_equal(slot, 1);
        assert_int_equal(umo_ring_give(ring, 0, slot), UMO_OK);
    }
    assert_int_equal(stats(ring).lost, 1);
    assert_int_equal(stats(ring).out, 1);
    umo_ring_destroy(ring);
}

static void a_reserved_segment_takes_memory_slot_by_slot(void **state)
{
    (void)state;
    /* Far more than there is: only what is given out is asked for. */
    const size_t tensor_bytes = (size_t)1 << 20;
    const umo_lane_spec spec = {"m", "t", tensor_bytes, 1000};
    umo_ring *ring = make(&spec, 1);
    uint32_t slot;
    assert_int_equal(stats(ring).committed_bytes, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
        assert_int_equal(umo_ring_give(ring, 0, slot), UMO_OK);
        assert_int_equal(stats(ring).committed_bytes, tensor_bytes);
    }
    umo_ring_destroy(ring);
}

static void a_slot_that_the_system_has_no_memory_for_stays_free(void **state)
{
    (void)state;
#if defined(__linux__)
    struct statvfs room;
    assert_int_equal(statvfs("/dev/shm", &room), 0);
    const size_t all_bytes = (size_t)room.f_blocks * room.f_frsize;
    const umo_lane_spec specs[] = {{"m", "t", all_bytes + 1, 1}, {"n", "t", 8, 1}};
    umo_ring *ring = make(specs, COUNT(specs));
    uint32_t slot = 77;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_E_NOMEM);
        assert_int_equal(slot, 77);
    }
    assert_int_equal(umo_ring_take(ring, 1, 0, &slot), UMO_OK);
    assert_int_equal(stats(ring).out, 1);
    assert_int_equal(stats(ring).committed_bytes, 8);
    umo_ring_destroy(ring);
#else
    skip(); /* where memory that is out makes a write wait */
#endif
}

typedef struct worker {
    umo_ring *ring;
    umo_lane in;
    umo_lane out;
    unsigned char *base;
    unsigned number;
    bool wrong;
} worker;

enum {
    THREADS = 6,
    TURNS = 2000
};

static void *work(void *argument)
{
    worker *w = argument;
    for (unsigned i = 0; i < TURNS; i++) {
        uint32_t slot;
        if (umo_ring_take(w->ring, w->in.model, UINT64_MAX, &slot) != UMO_OK) {
            w->wrong = true;
            return NULL;
        }
        const unsigned value = w->number * TURNS + i;
        memcpy(w->base + umo_lane_slot_offset(&w->in, slot), &value, sizeof(value));
        memcpy(w->base + umo_lane_slot_offset(&w->out, slot), &value, sizeof(value));
        unsigned back = 0;
        memcpy(&back, w->base + umo_lane_slot_offset(&w->in, slot), sizeof(back));
        w->wrong = w->wrong || back != value;
        memcpy(&back, w->base + umo_lane_slot_offset(&w->out, slot), sizeof(back));
        w->wrong = w->wrong || back != value;
        w->wrong = umo_ring_give(w->ring, w->in.model, slot) != UMO_OK || w->wrong;
    }
    return NULL;
}

static void threads_never_share_a_slot(void **state)
{
    (void)state;
    umo_ring *ring = small(3);
    umo_ring_info info;
    umo_ring_describe(ring, &info);
    worker workers[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.ring = ring, .base = info.base, .number = i};
        assert_int_equal(umo_ring_lane(ring, "m", "in", &workers[i].in), UMO_OK);
        assert_int_equal(umo_ring_lane(ring, "m", "out", &workers[i].out), UMO_OK);
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(workers[i].wrong);
    }
    assert_int_equal(stats(ring).out, 0);
    umo_ring_destroy(ring);
}

static void *take_one(void *argument)
{
    worker *w = argument;
    const uint64_t second_ns = 1000000000u;
    const uint64_t start_ns = umo_os_now_ns();
    uint32_t slot = 0;
    w->wrong = umo_ring_take(w->ring, 0, 30 * second_ns, &slot) != UMO_OK || slot != 1;
    /* Who is not woken finds the slot when the time is over. */
    w->wrong = w->wrong || umo_os_now_ns() - start_ns > 20 * second_ns;
    return NULL;
}

static void who_waits_gets_the_slot_that_comes_back(void **state)
{
    (void)state;
    umo_ring *ring = small(2);
    uint32_t slot;
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
    worker w = {.ring = ring, .wrong = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, take_one, &w), 0);
    /* It waits by then, or the test shows less; it does not fail. */
    (void)nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    assert_int_equal(umo_ring_give(ring, 0, 1), UMO_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(w.wrong);
    umo_ring_destroy(ring);
}

#ifdef __linux__
/* Bytes of a mapping that its page table shows as huge pages. */
static size_t huge_bytes_at(const void *start)
{
    char line[512];
    char begin[32];
    unsigned long kib = 0;
    bool here = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    assert_non_null(file);
    (void)snprintf(begin, sizeof begin, "%lx-", (unsigned long)(uintptr_t)start);
    while (fgets(line, sizeof line, file) != NULL) {
        here = here || strncmp(line, begin, strlen(begin)) == 0;
        if (here && sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1) {
            break;
        }
    }
    assert_int_equal(fclose(file), 0);
    return (size_t)kib << 10;
}
#endif

/* What a server's view of it shows; the ring's own mapping lies anywhere. */
static void a_large_slot_is_of_huge_pages(void **state)
{
    (void)state;
#ifdef __linux__
    int major = 0;
    int minor = 0;
    struct utsname system;
    assert_int_equal(uname(&system), 0);
    (void)sscanf(system.release, "%d.%d", &major, &minor);
    if (major * 100 + minor < 601 || !umo_os_mapping_duplicates() ||
        access("/sys/kernel/mm/transparent_hugepage", F_OK) != 0) {
        skip(); /* no MADV_COLLAPSE before Linux 6.1, nor without huge pages */
    }
    const size_t huge = (size_t)2 << 20;
    const umo_lane_spec specs[] = {{"m", "x", 2 * huge + 4096, 3}};
    umo_ring *ring = make(specs, COUNT(specs));
    umo_ring_info info;
    uint32_t slot;
    void *view;
    umo_ring_describe(ring, &info);
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
    assert_int_equal(umo_ring_take(ring, 0, 0, &slot), UMO_OK);
    assert_int_equal(umo_os_mapping_duplicate(info.base, info.size_bytes, &view), UMO_OK);
    for (size_t at = 0; at < 4 * huge; at += 4096) {
        (void)*((volatile char *)view + at);
    }
    /* The third page belongs to two slots. */
    assert_int_equal(huge_bytes_at(view), 3 * huge);
    umo_os_mapping_drop(view, info.size_bytes);
    umo_ring_destroy(ring);
#else
    skip(); /* other systems have no huge pages of files */
#endif
}

static void a_process_has_a_start_time_that_stays(void **state)
{
    (void)state;
    uint64_t first = 0;
    uint64_t second = 0;
    assert_true(umo_os_process_started(&first) && umo_os_process_started(&second));
    assert_true(first != 0 && first == second);
    assert_int_equal(umo_os_process_namespace(), umo_os_process_namespace());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_do_not_share_a_page_and_slots_touch),
        cmocka_unit_test(a_layout_that_cannot_be_is_refused),
        cmocka_unit_test(a_segment_can_be_opened_until_it_is_hidden),
        cmocka_unit_test(a_destroyed_ring_leaves_no_name),
        cmocka_unit_test(a_child_does_not_remove_its_parents_name),
        cmocka_unit_test(lanes_are_found_by_their_names),
        cmocka_unit_test(slots_are_given_out_lowest_first),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(a_lost_slot_is_never_given_out_again),
        cmocka_unit_test(a_reserved_segment_takes_memory_slot_by_slot),
        cmocka_unit_test(a_slot_that_the_system_has_no_memory_for_stays_free),
        cmocka_unit_test(threads_never_share_a_slot),
        cmocka_unit_test(who_waits_gets_the_slot_that_comes_back),
        cmocka_unit_test(a_large_slot_is_of_huge_pages),
        cmocka_unit_test(a_process_has_a_start_time_that_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
