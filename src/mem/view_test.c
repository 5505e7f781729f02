/*
 * Own views of shared memory: the right bytes after the first mapping is gone and its address means
 * something else, and nothing kept alive longer than it must be.
 */
#include "mem/view_rig_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#ifdef __APPLE__
#include <dlfcn.h>
#include <mach/mach.h>

/* What the kernel says of a mapping, as it would with somebody else using it too. */
static unsigned char mach_share_mode; /* 0: as it is */
static unsigned mach_long_answers;

kern_return_t mach_vm_region_recurse(vm_map_read_t task, mach_vm_address_t *address,
                                     mach_vm_size_t *size, natural_t *depth,
                                     vm_region_recurse_info_t info, mach_msg_type_number_t *count);

kern_return_t mach_vm_region_recurse(vm_map_read_t task, mach_vm_address_t *address,
                                     mach_vm_size_t *size, natural_t *depth,
                                     vm_region_recurse_info_t info, mach_msg_type_number_t *count)
{
    kern_return_t (*next)(vm_map_read_t, mach_vm_address_t *, mach_vm_size_t *, natural_t *,
                          vm_region_recurse_info_t, mach_msg_type_number_t *);
    *(void **)&next = dlsym(RTLD_NEXT, "mach_vm_region_recurse");
    bool brief = *count < VM_REGION_SUBMAP_INFO_V0_COUNT_64;
    mach_long_answers += brief ? 0 : 1;
    kern_return_t code = next(task, address, size, depth, info, count);
    if (code == KERN_SUCCESS && mach_share_mode != 0) {
        if (brief) {
            ((vm_region_submap_short_info_64_t)info)->share_mode = mach_share_mode;
        } else {
            ((vm_region_submap_info_64_t)info)->share_mode = mach_share_mode;
        }
    }
    return code;
}
#endif

static void a_view_shows_the_same_memory(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_make(4, 10);
    unsigned char *theirs = file_map(file, 4, 0, NULL);
    umo_view *view;
    unsigned char *own = found(&r, theirs + r.page + 5, 100, &view);
    assert_int_equal(own[0], 11);
    theirs[r.page + 5] = 99;
    assert_int_equal(own[0], 99);
    own[1] = 98;
    assert_int_equal(theirs[r.page + 6], 98);
    /* It is found again, also by another range. */
    umo_view *again;
    assert_ptr_equal(found(&r, theirs, 4 * r.page, &again), own - r.page - 5);
    assert_ptr_equal(again, view);
    assert_int_equal(stats(&r).views, 1);
    assert_int_equal(stats(&r).view_hits, 1);
    assert_int_equal(stats(&r).view_misses, 1);
    assert_int_equal(stats(&r).view_bytes, 4 * r.page);
    umo_view_release(view);
    umo_view_release(again);
    umo_view_release(NULL);
    assert_int_equal(munmap(theirs, 4 * r.page), 0);
    (void)close(file);
    rig_close(&r);
}

/* What the server does: unmap one region, map another one at the same address. */
static void another_segment_at_the_address_is_not_confused(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int files[3];
    for (int i = 0; i < 3; i++) {
        files[i] = file_make(2, (unsigned char)(20 * i + 1));
    }
    unsigned char *theirs = file_map(files[0], 2, 0, NULL);
    unsigned char *owns[3];
    umo_view *views[3];
    owns[0] = found(&r, theirs, r.page, &views[0]);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(munmap(theirs, 2 * r.page), 0);
        assert_ptr_equal(file_map(files[i], 2, 0, theirs), theirs);
        owns[i] = found(&r, theirs, r.page, &views[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(owns[i][0], 20 * i + 1);
        umo_buffer *buffer = NULL;
        assert_int_equal(umo_registry_wrap(r.registry, r.device, r.scope, owns[i], r.page, false,
                                           &buffer, NULL, NULL),
                         UMO_OK);
        assert_int_equal(*(unsigned char *)umo_buffer_memory(buffer)->native, 20 * i + 1);
        umo_buffer_release(buffer);
    }
    /* The first one comes back somewhere else: its view is still known. */
    unsigned char *moved = file_map(files[0], 2, 0, NULL);
    umo_view *again;
    assert_ptr_equal(found(&r, moved, r.page, &again), owns[0]);
    umo_view_release(again);
    for (int i = 0; i < 3; i++) {
        umo_view_release(views[i]);
        (void)close(files[i]);
    }
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    assert_int_equal(munmap(moved, 2 * r.page), 0);
    rig_close(&r);
}

static void a_view_outlives_unlink_and_unmap(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    char name[64];
    (void)snprintf(name, sizeof name, "/umo_view_test_%d", (int)getpid());
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(ftruncate(file, (off_t)r.page), 0);
    unsigned char *theirs = file_map(file, 1, 0, NULL);
    theirs[7] = 77;
    umo_view *view;
    unsigned char *own = found(&r, theirs, r.page, &view);
    assert_int_equal(shm_unlink(name), 0);
    (void)close(file);
    assert_int_equal(munmap(theirs, r.page), 0);
    assert_int_equal(own[7], 77);
    /* Made anew under its name: other memory. */
    file = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(file, (off_t)r.page), 0);
    theirs = file_map(file, 1, 0, NULL);
    theirs[7] = 78;
    umo_view *second;
    unsigned char *other = found(&r, theirs, r.page, &second);
    assert_int_equal(other[7], 78);
    assert_int_equal(own[7], 77);
    assert_int_equal(shm_unlink(name), 0);
    (void)close(file);
    umo_view_release(view);
    umo_view_release(second);
    assert_int_equal(munmap(theirs, r.page), 0);
    rig_close(&r);
}

/* While a view holds a file no other one gets its number; afterwards the number may come back and
 * must mean the new file. */
static void a_number_that_comes_back_is_the_new_file(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    for (int i = 1; i <= 100; i++) {
        int file = file_make(1, (unsigned char)i);
        unsigned char *theirs = file_map(file, 1, 0, NULL);
        (void)close(file);
        umo_view *view;
        assert_int_equal(found(&r, theirs, r.page, &view)[r.page - 1], i);
        umo_view_release(view);
        assert_int_equal(munmap(theirs, r.page), 0);
        if (i % 3 == 0) {
            (void)umo_registry_sweep(r.registry);
            assert_int_equal(stats(&r).views, 0);
        }
    }
    rig_close(&r);
}

static void a_sweep_drops_what_nobody_maps(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int files[3];
    unsigned char *theirs[3];
    umo_view *views[3];
    for (int i = 0; i < 3; i++) {
        files[i] = file_make(1, (unsigned char)i);
        theirs[i] = file_map(files[i], 1, 0, NULL);
        (void)found(&r, theirs[i], r.page, &views[i]);
    }
    umo_buffer *buffer = NULL;
    unsigned char *own = found(&r, theirs[0], r.page, &views[0]);
    umo_view_release(views[0]);
    assert_int_equal(
        umo_registry_wrap(r.registry, r.device, r.scope, own, r.page, false, &buffer, NULL, NULL),
        UMO_OK);
    umo_buffer_release(buffer);
    assert_int_equal(stats(&r).wraps, 1);
    assert_int_equal(umo_registry_sweep(r.registry), 0); /* all are in use and mapped */
    umo_view_release(views[0]);
    umo_view_release(views[1]);
    assert_int_equal(umo_registry_sweep(r.registry), 0); /* still mapped */
    assert_int_equal(munmap(theirs[0], r.page), 0);
    assert_int_equal(munmap(theirs[2], r.page), 0);
    assert_int_equal(umo_registry_sweep(r.registry), 1); /* 1 is mapped, 2 is in use */
    assert_int_equal(stats(&r).views, 2);
    assert_int_equal(stats(&r).wraps, 0);
    umo_view_release(views[2]);
    assert_int_equal(umo_registry_sweep(r.registry), 1);
    assert_int_equal(munmap(theirs[1], r.page), 0);
    assert_int_equal(umo_registry_sweep(r.registry), 1);
    assert_int_equal(stats(&r).views, 0);
    assert_int_equal(stats(&r).view_bytes, 0);
    for (int i = 0; i < 3; i++) {
        (void)close(files[i]);
    }
    rig_close(&r);
}

/* Two views of one file: a mapping that was widened, or two pieces of it. Neither is somebody
 * else's mapping, so they must not keep each other alive. */
static void views_of_one_file_do_not_keep_each_other(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    for (int pieces = 0; pieces < 4; pieces++) {
        int file = file_make(8, 1);
        unsigned char *first = file_map(file, 4, pieces == 2 ? 4 : 0, NULL);
        umo_view *views[2];
        (void)found(&r, first, r.page, &views[0]);
        unsigned char *second;
        size_t pages = 4;
        if (pieces == 0) {
            pages = 8;
            second = file_map(file, 8, 0, NULL);
        } else {
            second = file_map(file, 4, pieces == 2 ? 0 : 4, NULL);
        }
        size_t last = pages * r.page - 1;
        unsigned char *own = found(&r, second, pages * r.page, &views[1]);
        assert_int_equal(own[0], second[0]);
        assert_int_equal(own[last], second[last]);
        assert_int_equal(stats(&r).views, 2);
        if (pieces == 3) {
            /* One mapping stays: its view does too, the other one goes. */
            umo_view_release(views[0]);
            umo_view_release(views[1]);
            assert_int_equal(munmap(first, 4 * r.page), 0);
            assert_int_equal(umo_registry_sweep(r.registry), 1);
            umo_view *again;
            assert_ptr_equal(found(&r, second, r.page, &again), own);
            umo_view_release(again);
            assert_int_equal(munmap(second, pages * r.page), 0);
            assert_int_equal(umo_registry_sweep(r.registry), 1);
        } else {
            umo_view_release(views[0]);
            umo_view_release(views[1]);
            assert_int_equal(munmap(first, 4 * r.page), 0);
            assert_int_equal(munmap(second, pages * r.page), 0);
            assert_int_equal(umo_registry_sweep(r.registry), 2);
        }
        assert_int_equal(stats(&r).views, 0);
        (void)close(file);
    }
    rig_close(&r);
}

/* Neighbours that the system shows as one mapping, whatever the order in which they came. */
static void neighbours_in_one_mapping_are_told_apart(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    enum {
        PAGES = 12
    };
    int file = file_make(PAGES, 1);
    umo_view *views[PAGES];
    unsigned char *theirs[PAGES];
    unsigned char *area =
        pages_test_map(2 * PAGES * r.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(area != MAP_FAILED);
    /* Every second page of an area, so that theirs stay apart and holes of one page are left for
     * ours. */
    for (size_t i = 0; i < PAGES; i++) {
        theirs[i] = file_map(file, 1, (i * 5) % PAGES, area + 2 * i * r.page);
        assert_int_equal(munmap(area + (2 * i + 1) * r.page, r.page), 0);
    }
    for (size_t i = 0; i < PAGES; i++) {
        const unsigned char *own = found(&r, theirs[i], r.page, &views[i]);
        assert_int_equal(own[0], 1 + (i * 5) % PAGES);
        assert_int_equal(own[r.page - 1], 1 + (i * 5) % PAGES);
    }
    assert_int_equal(stats(&r).views, PAGES);
    for (size_t i = 0; i < PAGES; i++) {
        umo_view_release(views[i]);
    }
    assert_int_equal(umo_registry_sweep(r.registry), 0);
    for (size_t i = 0; i < PAGES; i++) {
        assert_int_equal(munmap(theirs[i], r.page), 0);
    }
    assert_int_equal(umo_registry_sweep(r.registry), PAGES);
    (void)close(file);
    rig_close(&r);
}

static void what_is_not_shared_has_no_view(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    unsigned char *own;
    umo_view *view;
    unsigned char local[16] = {0};
    assert_int_equal(find(&r, local, sizeof local, &own, &view), UMO_E_REFUSED);
    assert_null(view);
    int file = file_fill(pages_test_file_any(2 * r.page), 2, 1);
    unsigned char *mine = pages_test_map(2 * r.page, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    assert_true(mine != MAP_FAILED);
    assert_int_equal(find(&r, mine, r.page, &own, &view), UMO_E_REFUSED);
    /* A mapping that says shared and is not any more when it is duplicated. */
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    umo_mapping stale;
    void *address = NULL;
    assert_int_equal(umo_mapping_query(theirs, &stale), UMO_OK);
    assert_ptr_equal(
        mmap(theirs, 2 * r.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0), theirs);
    assert_int_equal(umo_view_find(r.registry, theirs, r.page, &stale, &address, &view, NULL),
                     UMO_E_REFUSED);
    /* Or another file, or nothing at all. */
    int other = file_make(2, 5);
    (void)file_map(other, 2, 0, theirs);
    assert_int_equal(umo_view_find(r.registry, theirs, r.page, &stale, &address, &view, NULL),
                     UMO_E_REFUSED);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    assert_int_equal(umo_view_find(r.registry, theirs, r.page, &stale, &address, &view, NULL),
                     UMO_E_REFUSED);
    assert_null(view);
    assert_null(address);
    assert_int_equal(stats(&r).views, 0);
    assert_int_equal(stats(&r).regions, 0);
    assert_int_equal(munmap(mine, 2 * r.page), 0);
    (void)close(file);
    (void)close(other);
    rig_close(&r);
}

#ifdef __APPLE__
static void private_memory_that_a_gpu_imported_stays_private(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    const int protection = PROT_READ | PROT_WRITE;
    unsigned char *heap =
        pages_test_map(2 * r.page, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *theirs =
        pages_test_map(2 * r.page, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(heap != MAP_FAILED && theirs != MAP_FAILED);
    memset(heap, 1, 2 * r.page);
    memset(theirs, 1, 2 * r.page);
    static const unsigned char modes[] = {SM_SHARED, SM_TRUESHARED, SM_SHARED_ALIASED, SM_PRIVATE,
                                          SM_COW};
    for (size_t i = 0; i < sizeof modes; i++) {
        umo_mapping mapping;
        unsigned char *own;
        umo_view *view;
        mach_share_mode = modes[i];
        mach_long_answers = 0;
        assert_int_equal(find(&r, heap, r.page, &own, &view), UMO_E_REFUSED);
        assert_int_equal(umo_mapping_query(heap, &mapping), UMO_OK);
        assert_true(!mapping.shared && mapping.inode == 0 && mapping.device == 0);
        /* Nobody waits until the kernel has counted the pages of a heap. */
        assert_int_equal(mach_long_answers, 0);
        umo_view_release(view);
        (void)found(&r, theirs, r.page, &view);
        umo_view_release(view);
    }
    mach_share_mode = 0;
    assert_int_equal(munmap(heap, 2 * r.page), 0);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    rig_close(&r);
}
#endif

/* Also what was mapped as a part of more, and is not any more. */
static void a_part_of_shared_memory_is_duplicated(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    for (int cut = 0; cut < 2; cut++) {
        unsigned char *theirs =
            pages_test_map(4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(theirs != MAP_FAILED);
        memset(theirs, 1, 4 * page);
        if (cut == 0) {
            assert_int_equal(munmap(theirs, page), 0);
        } else {
            assert_int_equal(mprotect(theirs, page, PROT_READ), 0);
        }
        for (int again = 0; again < 2; again++) {
            void *own = NULL;
            assert_int_equal(umo_os_mapping_duplicate(theirs + page, 3 * page, &own), UMO_OK);
            theirs[2 * page] = (unsigned char)(7 + again);
            assert_int_equal(((volatile unsigned char *)own)[page], 7 + again);
            umo_os_mapping_drop(own, 3 * page);
        }
        assert_int_equal(munmap(theirs, 4 * page), 0);
    }
}

static void a_range_beyond_its_mapping_is_refused(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_make(2, 1);
    unsigned char *theirs = file_map(file, 2, 0, NULL);
    umo_mapping mapping;
    void *address = NULL;
    umo_view *view = NULL;
    assert_int_equal(umo_mapping_query(theirs, &mapping), UMO_OK);
    const struct {
        size_t offset;
        size_t size;
        umo_status status;
    } tries[] = {{0, 2 * r.page, UMO_OK},           {0, 2 * r.page + 1, UMO_E_REFUSED},
                 {1, 2 * r.page, UMO_E_REFUSED},    {0, SIZE_MAX, UMO_E_REFUSED},
                 {2 * r.page, 0, UMO_E_REFUSED},    {2 * r.page - 1, 1, UMO_OK},
                 {2 * r.page - 1, 2, UMO_E_REFUSED}};
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        view = NULL;
        assert_int_equal(umo_view_find(r.registry, theirs + tries[i].offset, tries[i].size,
                                       &mapping, &address, &view, NULL),
                         tries[i].status);
        umo_view_release(view);
    }
    assert_int_equal(umo_view_find(r.registry, theirs - 1, 1, &mapping, &address, &view, NULL),
                     UMO_E_REFUSED);
    assert_int_equal(munmap(theirs, 2 * r.page), 0);
    (void)close(file);
    rig_close(&r);
}

/* What a client may only read, a device must not write through us. */
static void a_read_only_mapping_has_a_read_only_view(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_make(1, 9);
    unsigned char *readable = pages_test_map(r.page, PROT_READ, MAP_SHARED, file, 0);
    assert_true(readable != MAP_FAILED);
    umo_view *view;
    unsigned char *own = found(&r, readable, r.page, &view);
    umo_mapping mapping;
    assert_int_equal(umo_mapping_query(own, &mapping), UMO_OK);
    assert_false(mapping.writable);
    umo_buffer *buffer = NULL;
    assert_int_equal(
        umo_registry_wrap(r.registry, r.device, r.scope, own, r.page, true, &buffer, NULL, NULL),
        UMO_E_NOT_FOUND);
    assert_int_equal(
        umo_registry_wrap(r.registry, r.device, r.scope, own, r.page, false, &buffer, NULL, NULL),
        UMO_OK);
    umo_buffer_release(buffer);
    /* The same file mapped for writing gets a view of its own. */
    unsigned char *writable = file_map(file, 1, 0, NULL);
    umo_view *second;
    unsigned char *wide = found(&r, writable, r.page, &second);
    assert_ptr_not_equal(wide, own);
    wide[0] = 42;
    assert_int_equal(readable[0], 42);
    umo_view_release(view);
    umo_view_release(second);
    assert_int_equal(munmap(readable, r.page), 0);
    assert_int_equal(munmap(writable, r.page), 0);
    (void)close(file);
    rig_close(&r);
}

/* The other way round: a reader must not be given what writes through. */
static void a_reader_finds_a_view_of_a_writer(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_make(1, 9);
    unsigned char *writable = file_map(file, 1, 0, NULL);
    unsigned char *readable = pages_test_map(r.page, PROT_READ, MAP_SHARED, file, 0);
    assert_true(readable != MAP_FAILED);
    umo_view *views[2];
    unsigned char *owns[2] = {found(&r, writable, r.page, &views[0]),
                              found(&r, readable, r.page, &views[1])};
    assert_int_equal(owns[1][0], 9);
    (void)owns;
    umo_view_release(views[0]);
    umo_view_release(views[1]);
    assert_int_equal(munmap(readable, r.page), 0);
    assert_int_equal(munmap(writable, r.page), 0);
    (void)close(file);
    rig_close(&r);
}

static void limits_make_the_oldest_go(void **state)
{
    (void)state;
    const umo_registry_options options = {.views_max = 3};
    rig r = rig_open(&options);
    int files[5];
    unsigned char *theirs[5];
    umo_view *views[5];
    for (int i = 0; i < 5; i++) {
        files[i] = file_make(1, (unsigned char)i);
        theirs[i] = file_map(files[i], 1, 0, NULL);
    }
    for (int i = 0; i < 3; i++) {
        (void)found(&r, theirs[i], r.page, &views[i]);
    }
    unsigned char *own;
    umo_error error = {0};
    umo_mapping mapping;
    void *address = NULL;
    assert_int_equal(umo_mapping_query(theirs[3], &mapping), UMO_OK);
    assert_int_equal(
        umo_view_find(r.registry, theirs[3], r.page, &mapping, &address, &views[3], &error),
        UMO_E_LIMIT);
    umo_view_release(views[0]);
    umo_view_release(views[1]);
    (void)found(&r, theirs[0], r.page, &views[0]); /* now 1 is the oldest */
    umo_view_release(views[0]);
    (void)found(&r, theirs[3], r.page, &views[3]);
    assert_int_equal(stats(&r).views, 3);
    assert_int_equal(stats(&r).evictions, 1);
    uint64_t misses = stats(&r).view_misses;
    own = found(&r, theirs[0], r.page, &views[0]);
    assert_int_equal(own[0], 0);
    assert_int_equal(stats(&r).view_misses, misses);
    umo_view_release(views[0]);
    umo_view_release(views[2]);
    umo_view_release(views[3]);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(munmap(theirs[i], r.page), 0);
        (void)close(files[i]);
    }
    rig_close(&r);
}

static void the_address_space_of_views_is_limited(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    const umo_registry_options options = {.views_bytes_max = 10 * page};
    rig r = rig_open(&options);
    int big = file_make(8, 1);
    int small = file_make(2, 50);
    int huge = file_make(11, 90);
    unsigned char *maps[] = {file_map(big, 8, 0, NULL), file_map(small, 2, 0, NULL),
                             file_map(huge, 11, 0, NULL)};
    umo_view *views[2];
    (void)found(&r, maps[0], page, &views[0]);
    (void)found(&r, maps[1], page, &views[1]);
    assert_int_equal(stats(&r).view_bytes, 10 * page);
    unsigned char *own;
    umo_view *none;
    assert_int_equal(find(&r, maps[2], page, &own, &none), UMO_E_LIMIT);
    assert_int_equal(stats(&r).views, 2);
    umo_view_release(views[0]);
    /* Nothing is dropped for what can never fit. */
    assert_int_equal(find(&r, maps[2], page, &own, &none), UMO_E_LIMIT);
    assert_int_equal(stats(&r).views, 2);
    assert_int_equal(stats(&r).evictions, 0);
    umo_view_release(views[1]);
    for (int i = 0; i < 3; i++) {
        size_t pages[] = {8, 2, 11};
        assert_int_equal(munmap(maps[i], pages[i] * page), 0);
    }
    (void)close(big);
    (void)close(small);
    (void)close(huge);
    rig_close(&r);
}

/* A child must not inherit a client's memory. */
static void a_child_has_no_view(void **state)
{
    (void)state;
    rig r = rig_open(NULL);
    int file = file_make(1, 1);
    unsigned char *theirs = file_map(file, 1, 0, NULL);
    umo_view *view;
    unsigned char *own = found(&r, theirs, r.page, &view);
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        umo_mapping mapping;
        _exit(umo_mapping_query(own, &mapping) == UMO_E_NOT_FOUND ? 0 : 1);
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    umo_view_release(view);
    assert_int_equal(munmap(theirs, r.page), 0);
    (void)close(file);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_shows_the_same_memory),
        cmocka_unit_test(another_segment_at_the_address_is_not_confused),
        cmocka_unit_test(a_view_outlives_unlink_and_unmap),
        cmocka_unit_test(a_number_that_comes_back_is_the_new_file),
        cmocka_unit_test(a_sweep_drops_what_nobody_maps),
        cmocka_unit_test(views_of_one_file_do_not_keep_each_other),
        cmocka_unit_test(neighbours_in_one_mapping_are_told_apart),
        cmocka_unit_test(what_is_not_shared_has_no_view),
#ifdef __APPLE__
        cmocka_unit_test(private_memory_that_a_gpu_imported_stays_private),
#endif
        cmocka_unit_test(a_part_of_shared_memory_is_duplicated),
        cmocka_unit_test(a_range_beyond_its_mapping_is_refused),
        cmocka_unit_test(a_read_only_mapping_has_a_read_only_view),
        cmocka_unit_test(a_reader_finds_a_view_of_a_writer),
        cmocka_unit_test(limits_make_the_oldest_go),
        cmocka_unit_test(the_address_space_of_views_is_limited),
        cmocka_unit_test(a_child_has_no_view),
    };
    return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
