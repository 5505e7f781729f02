/*
 * Views whose file is cut short under their users, grows again, or is unregistered: whoever used
 * one can tell, the next one gets the file as it is now, and nothing is kept that nobody needs.
 */
#include "mem/view_rig_test.h"

#include <pthread.h>
#include <sys/wait.h>

#ifdef __linux__
#include <sys/ptrace.h>
#include <sys/syscall.h>
#endif

/* macOS lets nobody cut its shared memory short; files it does. */
static int file_cuttable(size_t pages, unsigned char first)
{
    return file_fill(pages_test_file_any(pages * pages_test_bytes()), pages, first);
}

static void cut(int file, size_t pages)
{
    assert_int_equal(ftruncate(file, (off_t)(pages * pages_test_bytes())), 0);
}

static void a_view_that_lost_bytes_says_so(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_cuttable(8, 10);
    unsigned char *theirs = file_map(file, 8, 0, NULL);
    umo_view *view;
    unsigned char *own = found(&r, theirs, 8 * r.page, &view);
    assert_false(umo_view_lost(view, own, 8 * r.page));
    cut(file, 5);
    /* Nobody has touched it: what was read so far was there. */
    assert_false(umo_view_lost(view, own, 8 * r.page));
    assert_int_equal(own[5 * r.page - 1], 14);
    assert_int_equal(((volatile unsigned char *)own)[6 * r.page + 3], 0);
    const struct {
        size_t offset;
        size_t size;
        bool lost;
    } ranges[] = {
        {0, 8 * r.page, true},       {0, 6 * r.page, false},
        {0, 6 * r.page + 1, true},   {6 * r.page - 1, 1, false},
        {6 * r.page, 1, true},       {8 * r.page - 1, 1, true},
        {5 * r.page, r.page, false}, {7 * r.page, r.page, true},
        {7 * r.page, 0, false},      {6 * r.page - 1, SIZE_MAX, true},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        assert_int_equal(umo_view_lost(view, own + ranges[i].offset, ranges[i].size),
                         ranges[i].lost);
    }
    umo_view_release(view);
    assert_int_equal(munmap(theirs, 8 * r.page), 0);
    (void)close(file);
    rig_close(&r);
}

/* The file grows again. Who still has the old view sees what it lost; who comes now gets the file.
 */
static void the_next_one_gets_the_file_as_it_is_now(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_cuttable(4, 10);
    unsigned char *theirs = file_map(file, 4, 0, NULL);
    umo_view *old;
    unsigned char *own = found(&r, theirs, 4 * r.page, &old);
    umo_buffer *buffer = NULL;
    assert_int_equal(
        umo_registry_wrap(r.registry, r.device, r.scope, own, r.page, true, &buffer, NULL, NULL),
        UMO_OK);
    umo_buffer_release(buffer);
    cut(file, 0);
    ((volatile unsigned char *)own)[r.page] = 1;
    assert_true(umo_view_lost(old, own, 2 * r.page));
    assert_int_equal(ftruncate(file, (off_t)(4 * r.page)), 0);
    theirs[r.page] = 55;
    assert_int_equal(((volatile unsigned char *)own)[r.page], 1);
    umo_view *fresh;
    volatile unsigned char *now = found(&r, theirs, 4 * r.page, &fresh);
    assert_ptr_not_equal(fresh, old);
    assert_int_equal(now[r.page], 55);
    assert_false(umo_view_lost(fresh, (const void *)(uintptr_t)now, 4 * r.page));
    assert_int_equal(stats(&r).views, 1); /* the old one is not counted any more */
    assert_int_equal(stats(&r).view_bytes, 4 * r.page);
    assert_int_equal(stats(&r).regions, 2);
    assert_int_equal(stats(&r).wraps, 1);
    umo_view_release(old); /* and goes, with what was wrapped in it, with its last user */
    assert_int_equal(stats(&r).regions, 1);
    assert_int_equal(stats(&r).wraps, 0);
    umo_mapping mapping;
    assert_true(umo_mapping_query(own, &mapping) != UMO_OK || mapping.inode == 0);
    umo_view_release(fresh);
    assert_int_equal(munmap(theirs, 4 * r.page), 0);
    (void)close(file);
    rig_close(&r);
}

/* Lost while it was used, and given back: not even idle. */
static void a_lost_view_does_not_stay(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_cuttable(2, 10);
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    umo_view *view;
    volatile unsigned char *own = found(&r, theirs, 2 * r.page, &view);
    cut(file, 0);
    assert_int_equal(own[0], 0);
    umo_view_release(view);
    assert_int_equal(stats(&r).views, 0);
    assert_int_equal(stats(&r).view_bytes, 0);
    assert_int_equal(stats(&r).regions, 0);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    (void)close(file);
    rig_close(&r);
}

static void one_view_is_lost_alone(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int files[8];
    unsigned char *theirs[8];
    volatile unsigned char *owns[8];
    umo_view *views[8];
    for (int i = 0; i < 8; i++) {
        files[i] = file_cuttable(3, (unsigned char)(10 * i + 1));
        theirs[i] = file_map(files[i], 3, 0, NULL);
        owns[i] = found(&r, theirs[i], 3 * r.page, &views[i]);
    }
    cut(files[3], 1);
    assert_int_equal(owns[3][r.page], 0);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(umo_view_lost(views[i], (const void *)(uintptr_t)owns[i], 3 * r.page),
                         i == 3);
        assert_int_equal(owns[i][0], 10 * i + 1);
        assert_int_equal(owns[i][3 * r.page - 1], i == 3 ? 0 : 10 * i + 3);
        umo_view_release(views[i]);
        assert_int_equal(munmap(theirs[i], 3 * r.page), 0);
        (void)close(files[i]);
    }
    assert_int_equal(stats(&r).views, 7);
    rig_close(&r);
}

/* A client may map one file in thousands of places. */
static void many_places_of_one_file_are_told_apart(void **state)
{
    (void)state;
    enum {
        MANY = 2000
    };
    static unsigned char *theirs[MANY];
    rig r = rig_open(NULL);
    int file = pages_test_file(MANY * r.page);
    for (size_t i = 0; i < MANY; i++) {
        theirs[i] = file_map(file, 1, i, NULL);
        theirs[i][0] = (unsigned char)(i % 251);
        theirs[i][1] = (unsigned char)(i / 251);
    }
    umo_view *view;
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < MANY; i++) {
            size_t pick = i * 7 % MANY; /* not in the order of addresses */
            const unsigned char *own = found(&r, theirs[pick], 1, &view);
            assert_int_equal(own[0], pick % 251);
            assert_int_equal(own[1], pick / 251);
            umo_view_release(view);
        }
    }
    /* Neighbours that the system shows as one mapping make fewer views, never more. */
    assert_true(stats(&r).views <= MANY);
    assert_true(stats(&r).view_hits >= MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(munmap(theirs[i], r.page), 0);
    }
    (void)umo_registry_sweep(r.registry);
    assert_int_equal(stats(&r).views, 0);
    (void)close(file);
    rig_close(&r);
}

/* Registered again with another size, or with an offset: each shows what was asked for. */
static void one_file_has_a_view_of_each_extent(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_cuttable(8, 1);
    const struct {
        size_t pages;
        size_t first;
    } extents[] = {{2, 0}, {8, 0}, {4, 0}, {4, 4}, {1, 7}, {2, 0}};
    umo_view *views[6];
    unsigned char *theirs[6];
    for (size_t i = 0; i < 6; i++) {
        theirs[i] = file_map(file, extents[i].pages, extents[i].first, NULL);
        const unsigned char *own = found(&r, theirs[i], extents[i].pages * r.page, &views[i]);
        assert_int_equal(own[0], 1 + extents[i].first);
        assert_int_equal(own[extents[i].pages * r.page - 1], extents[i].first + extents[i].pages);
    }
    assert_ptr_equal(views[0], views[5]); /* two names for one file */
    for (size_t i = 0; i < 6; i++) {
        umo_view_release(views[i]);
        assert_int_equal(munmap(theirs[i], extents[i].pages * r.page), 0);
    }
    (void)close(file);
    rig_close(&r);
}

/* Nobody asks for anything again. */
static void memory_of_what_was_unregistered_goes_by_itself(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_cuttable(2, 1);
    int kept = file_cuttable(2, 1);
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    unsigned char *stays = file_map(kept, 2, 0, NULL);
    umo_view *view;
    (void)found(&r, theirs, r.page, &view);
    umo_view_release(view);
    (void)found(&r, stays, r.page, &view);
    umo_view_release(view);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    for (int i = 0; i < 500 && stats(&r).views == 2; i++) {
        (void)usleep(10000);
    }
    assert_int_equal(stats(&r).views, 1);
    assert_ptr_not_equal(found(&r, stays, r.page, &view), NULL);
    assert_int_equal(stats(&r).view_hits, 1);
    umo_view_release(view);
    assert_int_equal(munmap(stays, 2 * r.page), 0);
    (void)close(file);
    (void)close(kept);
    rig_close(&r);
}

/* The views of another context of this process are no client's mapping. */
static void registries_do_not_keep_each_others_views(void **state)
{
    (void)state;
    rig a = rig_open(NULL);
    umo_registry *second = NULL;
    assert_int_equal(umo_registry_create(NULL, a.scope, &second, NULL), UMO_OK);
    rig b = a;
    b.registry = second;
    int file = file_cuttable(2, 1);
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    umo_view *views[2];
    (void)found(&a, theirs, a.page, &views[0]);
    (void)found(&b, theirs, a.page, &views[1]);
    umo_view_release(views[0]);
    umo_view_release(views[1]);
    assert_int_equal(umo_registry_sweep(a.registry) + umo_registry_sweep(second), 0);
    assert_int_equal(munmap(theirs, 2 * a.page), 0);
    assert_int_equal(umo_registry_sweep(a.registry), 1);
    assert_int_equal(umo_registry_sweep(second), 1);
    (void)close(file);
    umo_registry_destroy(second);
    rig_close(&a);
}

/* A device still reads when its user has let go of everything and the region is unregistered. */
static void work_in_flight_keeps_a_view(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    umo_device_release(r.device);
    const umo_driver_options options = {.delay_ns = 30000000, .test_mode = true};
    r.device = wrapper_device(NULL, &options);
    assert_non_null(r.device);
    int file = file_cuttable(4, 30);
    unsigned char *theirs = file_map(file, 4, 0, NULL);
    umo_view *view;
    unsigned char *own = found(&r, theirs, 4 * r.page, &view);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_registry_wrap(r.registry, r.device, r.scope, own, 4 * r.page, false,
                                       &buffer, NULL, NULL),
                     UMO_OK);
    unsigned char *target = calloc(4, r.page);
    assert_non_null(target);
    umo_fence fence;
    assert_int_equal(umo_buffer_download(buffer, 0, target, 4 * r.page, 0, &fence), UMO_OK);
    umo_buffer_release(buffer);
    umo_view_release(view);
    assert_int_equal(munmap(theirs, 4 * r.page), 0);
    (void)close(file);
    assert_int_equal(umo_registry_sweep(r.registry), 1);
    assert_int_equal(umo_fence_wait(fence, 0), UMO_OK); /* it was waited for */
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(target[i * r.page], 30 + i);
    }
    free(target);
    rig_close(&r);
}

/* A child of fork() has none of its parent's views, and may make its own. */
static void a_child_makes_views_of_its_own(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_cuttable(2, 40);
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    umo_view *used;
    umo_view *idle;
    int other = file_cuttable(1, 70);
    unsigned char *others = file_map(other, 1, 0, NULL);
    unsigned char *own = found(&r, theirs, 2 * r.page, &used);
    (void)found(&r, others, r.page, &idle);
    umo_view_release(idle);
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        unsigned char *fresh;
        umo_view *view;
        bool right = find(&r, theirs, 2 * r.page, &fresh, &view) == UMO_OK && fresh[0] == 40 &&
                     stats(&r).views == 1;
        cut(file, 0);
        right = right && ((volatile unsigned char *)fresh)[r.page] == 0 &&
                umo_view_lost(view, fresh, 2 * r.page);
        umo_view_release(view);
        umo_view_release(used); /* it is nothing here, and unmaps nothing */
        umo_registry_destroy(r.registry);
        _exit(right ? 0 : 1);
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    assert_int_equal(stats(&r).views, 2);
    cut(file, 2);
    own[0] = 41;
    assert_int_equal(theirs[0], 41);
    assert_false(umo_view_lost(used, own, 2 * r.page));
    umo_view_release(used);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    assert_int_equal(munmap(others, r.page), 0);
    (void)close(file);
    (void)close(other);
    rig_close(&r);
}

#ifdef __linux__
/* Stops at each system call of a child, and counts those between two that mark the hits. */
static unsigned calls_between_marks(pid_t child, int *result)
{
    unsigned count = 0;
    bool marked = false;
    bool inside = true; /* of a call */
    assert_int_equal(waitpid(child, result, 0), child);
    (void)ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)PTRACE_O_TRACESYSGOOD);
    while (WIFSTOPPED(*result)) {
        int number = WSTOPSIG(*result);
        if (number == (SIGTRAP | 0x80)) {
            struct __ptrace_syscall_info info;
            (void)ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof info, &info);
            inside = info.op == PTRACE_SYSCALL_INFO_ENTRY;
            bool mark = inside && info.entry.nr == SYS_getppid;
            count += inside && marked && !mark ? 1 : 0;
            marked = mark ? !marked : marked;
        }
        (void)ptrace(
            PTRACE_SYSCALL, child, NULL,
            (void *)(intptr_t)((number & 0x7f) == SIGTRAP || number == SIGSTOP ? 0 : number));
        assert_int_equal(waitpid(child, result, 0), child);
    }
    return count;
}

/* What a request that has been here before asks of the system: which mapping this is. */
static void a_hit_is_one_system_call(void **state)
{
    (void)state;
    enum {
        HITS = 50
    };
    rig r = rig_open(NULL);
    umo_mappings *mappings = NULL;
    assert_int_equal(umo_mappings_create(&mappings, NULL), UMO_OK);
    int file = file_cuttable(2, 1);
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        (void)raise(SIGSTOP);
        bool well = true;
        for (int i = 0; i < HITS + 2; i++) {
            const umo_mapping *mapping = NULL;
            void *own = NULL;
            umo_view *view = NULL;
            umo_buffer *buffer = NULL;
            if (i == 2) { /* the keeper's thread was made */
                (void)getppid();
            }
            umo_mappings_forget(mappings);
            well =
                well && umo_mappings_find(mappings, theirs, r.page, &mapping) == UMO_OK &&
                umo_view_find(r.registry, theirs, r.page, mapping, &own, &view, NULL) == UMO_OK &&
                umo_registry_wrap(r.registry, r.device, r.scope, own, r.page, true, &buffer, NULL,
                                  NULL) == UMO_OK;
            umo_buffer_release(buffer);
            umo_view_release(view);
        }
        (void)getppid();
        _exit(well ? 0 : 1);
    }
    int result = -1;
    unsigned calls = calls_between_marks(child, &result);
    assert_int_equal(result, 0);
    assert_int_equal(calls, HITS);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    (void)close(file);
    umo_mappings_destroy(mappings);
    rig_close(&r);
}
#endif

/* ---- a client that does everything at once ---- */

enum {
    FILES = 4,
    PAGES = 8
};

typedef struct hostile {
    rig *rig;
    int files[FILES];
    unsigned char *theirs[FILES]; /* what the server has mapped; the lock holds it */
    pthread_rwlock_t locks[FILES];
    _Atomic bool stop;
    _Atomic unsigned lost;
    _Atomic unsigned whole;
} hostile;

static unsigned next(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* A request: the server holds its mapping meanwhile. Every byte is the file's own or zero. */
static void *request_run(void *user)
{
    hostile *h = user;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    while (!h->stop) {
        unsigned f = next(&seed) % FILES;
        (void)pthread_rwlock_rdlock(&h->locks[f]);
        unsigned char *own;
        umo_view *view = NULL;
        if (find(h->rig, h->theirs[f], PAGES * h->rig->page, &own, &view) == UMO_OK) {
            for (size_t at = 0; at < PAGES * h->rig->page; at += h->rig->page / 2) {
                unsigned char byte = ((_Atomic unsigned char *)own)[at];
                if (byte != f + 1 && byte != 0) {
                    abort();
                }
            }
            ((_Atomic unsigned char *)own)[(next(&seed) % PAGES) * h->rig->page] =
                (unsigned char)(f + 1);
            bool lost = umo_view_lost(view, own, PAGES * h->rig->page);
            h->lost += lost ? 1 : 0;
            h->whole += lost ? 0 : 1;
        }
        umo_view_release(view);
        (void)pthread_rwlock_unlock(&h->locks[f]);
    }
    return NULL;
}

static void *client_run(void *user)
{
    hostile *h = user;
    unsigned seed = 99;
    while (!h->stop) {
        unsigned f = next(&seed) % FILES;
        (void)ftruncate(h->files[f], (off_t)(next(&seed) % (PAGES + 1) * h->rig->page));
        if (next(&seed) % 4 == 0) {
            (void)ftruncate(h->files[f], (off_t)(PAGES * h->rig->page));
        }
        if (next(&seed) % 16 == 0) {
            /* Unregistered, and registered again. */
            (void)pthread_rwlock_wrlock(&h->locks[f]);
            (void)munmap(h->theirs[f], PAGES * h->rig->page);
            h->theirs[f] = file_map(h->files[f], PAGES, 0, NULL);
            (void)pthread_rwlock_unlock(&h->locks[f]);
        }
        (void)usleep(50);
    }
    return NULL;
}

static void no_request_dies_of_a_hostile_client(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    hostile h = {.rig = &r};
    for (int i = 0; i < FILES; i++) {
        h.files[i] = pages_test_file_any(PAGES * r.page);
        h.theirs[i] = file_map(h.files[i], PAGES, 0, NULL);
        (void)pthread_rwlock_init(&h.locks[i], NULL);
    }
    pthread_t threads[5];
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, i == 0 ? client_run : request_run, &h),
                         0);
    }
    for (int i = 0; i < 30; i++) {
        (void)usleep(10000);
        (void)umo_registry_sweep(r.registry);
    }
    for (int i = 0; i < 1000 && (h.lost < 20 || h.whole < 20); i++) {
        (void)usleep(10000);
    }
    h.stop = true;
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(h.lost >= 20 && h.whole >= 20);
    for (int i = 0; i < FILES; i++) {
        assert_int_equal(munmap(h.theirs[i], PAGES * r.page), 0);
        (void)close(h.files[i]);
        (void)pthread_rwlock_destroy(&h.locks[i]);
    }
    (void)umo_registry_sweep(r.registry);
    assert_int_equal(stats(&r).views, 0);
    assert_int_equal(stats(&r).regions, 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_that_lost_bytes_says_so),
        cmocka_unit_test(the_next_one_gets_the_file_as_it_is_now),
        cmocka_unit_test(a_lost_view_does_not_stay),
        cmocka_unit_test(one_view_is_lost_alone),
        cmocka_unit_test(many_places_of_one_file_are_told_apart),
        cmocka_unit_test(one_file_has_a_view_of_each_extent),
        cmocka_unit_test(memory_of_what_was_unregistered_goes_by_itself),
        cmocka_unit_test(registries_do_not_keep_each_others_views),
        cmocka_unit_test(work_in_flight_keeps_a_view),
        cmocka_unit_test(a_child_makes_views_of_its_own),
#ifdef __linux__
        cmocka_unit_test(a_hit_is_one_system_call),
#endif
        cmocka_unit_test(no_request_dies_of_a_hostile_client),
    };
    return cmocka_run_group_tests_name("lost", tests, NULL, NULL);
}
