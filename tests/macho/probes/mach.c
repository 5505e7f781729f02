/* Mach's view of memory: which mapping an address lies in, a second mapping of shared memory,
 * memory that may be purged. */
#include "probe.h"

#include <dispatch/dispatch.h>
#include <errno.h>
#include <fcntl.h>
#include <mach/mach.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

kern_return_t mach_vm_region_recurse(vm_map_read_t task, mach_vm_address_t *address,
                                     mach_vm_size_t *size, natural_t *depth,
                                     vm_region_recurse_info_t info, mach_msg_type_number_t *count);
kern_return_t mach_vm_remap(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                            mach_vm_offset_t mask, int flags, vm_map_read_t source,
                            mach_vm_address_t source_address, boolean_t copy, vm_prot_t *protection,
                            vm_prot_t *protection_max, vm_inherit_t inherit);
kern_return_t mach_vm_purgable_control(vm_map_t task, mach_vm_address_t address,
                                       vm_purgable_t control, int *state);

#define PAGE ((size_t)16384)

typedef struct found {
    kern_return_t code;
    char *start;
    size_t size;
    vm_region_submap_info_data_64_t info;
} found;

static found look(const void *address)
{
    found out = {.start = (char *)(uintptr_t)address};
    mach_vm_address_t at = (uintptr_t)address;
    mach_vm_size_t size = 0;
    natural_t depth = UINT32_MAX;
    mach_msg_type_number_t count = VM_REGION_SUBMAP_INFO_V2_COUNT_64;
    out.code = mach_vm_region_recurse(mach_task_self(), &at, &size, &depth,
                                      (vm_region_recurse_info_t)&out.info, &count);
    out.start = (char *)(uintptr_t)at;
    out.size = size;
    return out;
}

static kern_return_t again(void *start, size_t size, char **out)
{
    mach_vm_address_t place = 0;
    vm_prot_t now = 0;
    vm_prot_t most = 0;
    kern_return_t code =
        mach_vm_remap(mach_task_self(), &place, size, 0, VM_FLAGS_ANYWHERE, mach_task_self(),
                      (uintptr_t)start, FALSE, &now, &most, VM_INHERIT_NONE);
    *out = (char *)(uintptr_t)place;
    return code;
}

static void *pages(size_t count, int flags)
{
    return mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANON, -1, 0);
}

static int constant_data[4] = {1, 2, 3, 4};

static void regions(void)
{
    char *area = pages(4, MAP_PRIVATE);
    found one = look(area + 5);
    CHECK(one.code == KERN_SUCCESS && one.start == area && one.size == 4 * PAGE);
    CHECK(one.info.protection == (VM_PROT_READ | VM_PROT_WRITE));
    CHECK(one.info.inheritance == VM_INHERIT_COPY && one.info.external_pager == 0);
    CHECK(one.info.share_mode == SM_EMPTY && one.info.object_id_full == 0);
    area[PAGE] = 1;
    one = look(area);
    CHECK(one.info.share_mode == SM_PRIVATE && one.info.object_id_full != 0);
    CHECK(one.info.is_submap == 0 && one.info.offset == 0);

    CHECK(mprotect(area + PAGE, PAGE, PROT_READ) == 0);
    one = look(area + PAGE);
    CHECK(one.start == area + PAGE && one.size == PAGE && one.info.offset == PAGE);
    CHECK(one.info.protection == VM_PROT_READ);
    one = look(area + 2 * PAGE);
    CHECK(one.start == area + 2 * PAGE && one.size == 2 * PAGE);
    CHECK(mprotect(area + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
    one = look(area);
    CHECK(one.start == area && one.size == 4 * PAGE);

    CHECK(munmap(area + PAGE, PAGE) == 0);
    one = look(area + PAGE);
    CHECK(one.code == KERN_SUCCESS && one.start == area + 2 * PAGE && one.size == 2 * PAGE);
    CHECK(munmap(area, 4 * PAGE) == 0);

    one = look((void *)(uintptr_t)regions);
    CHECK(one.info.protection == (VM_PROT_READ | VM_PROT_EXECUTE));
    CHECK(one.info.share_mode == SM_COW && one.info.external_pager == 1);
    one = look(constant_data);
    CHECK((char *)constant_data >= one.start && (char *)constant_data < one.start + one.size);
    CHECK(one.info.protection == (VM_PROT_READ | VM_PROT_WRITE));
    char *heap = malloc(100);
    one = look(heap);
    CHECK(heap >= one.start && heap < one.start + one.size);
    CHECK(one.info.inheritance == VM_INHERIT_COPY && one.info.share_mode == SM_PRIVATE);
    free(heap);
    CHECK(look((void *)(UINTPTR_MAX - PAGE)).code == KERN_INVALID_ADDRESS);
}

static void *stack_look(void *user)
{
    char local[64];
    found one = look(local);
    CHECK(local >= one.start && local < one.start + one.size);
    CHECK(one.info.protection == (VM_PROT_READ | VM_PROT_WRITE));
    CHECK(one.info.inheritance == VM_INHERIT_COPY && one.info.share_mode == SM_PRIVATE);
    return user;
}

static void stacks(void)
{
    pthread_t thread;
    (void)stack_look(NULL);
    CHECK(pthread_create(&thread, NULL, stack_look, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* One walk over everything: in order, without overlaps, to the end. */
static void walk(void)
{
    size_t count = 0;
    char *end = NULL;
    for (found next = look(NULL); next.code == KERN_SUCCESS; next = look(end)) {
        if (next.start < end || next.size == 0) {
            CHECK(!"a mapping overlaps the one before");
            return;
        }
        end = next.start + next.size;
        count++;
    }
    CHECK(count > 5);
}

static void duplicates(void)
{
    char *second = NULL;
    char *shared = pages(3, MAP_SHARED);
    CHECK(look(shared).info.inheritance == VM_INHERIT_SHARE);
    CHECK(look(shared).info.share_mode == SM_EMPTY);
    shared[PAGE] = 1;
    found one = look(shared);
    CHECK(one.info.share_mode == SM_PRIVATE);
    CHECK(again(shared + PAGE, 2 * PAGE, &second) == KERN_SUCCESS && second != shared + PAGE);
    CHECK(second[0] == 1);
    shared[PAGE + 1] = 2;
    second[PAGE] = 3;
    CHECK(second[1] == 2 && shared[2 * PAGE] == 3);
    found other = look(second);
    CHECK(other.start == second && other.size == 2 * PAGE);
    CHECK(other.info.object_id_full == one.info.object_id_full && other.info.offset == PAGE);
    CHECK(other.info.share_mode == SM_TRUESHARED && other.info.inheritance == VM_INHERIT_NONE);
    CHECK(look(shared).info.share_mode == SM_TRUESHARED);

    /* The second mapping outlives the first; a child has neither it nor a crash. */
    CHECK(munmap(shared, 3 * PAGE) == 0);
    CHECK(second[1] == 2 && look(second).info.share_mode == SM_PRIVATE);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        found inherited = look(second);
        _exit(inherited.code == KERN_SUCCESS && inherited.start <= second ? 1 : 0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(munmap(second, 2 * PAGE) == 0);
    CHECK(again((void *)(PAGE * 4), PAGE, &second) == KERN_INVALID_ADDRESS);
}

/* What shows a part of shared memory gets an object of its own when it is first mapped again. */
static void parts(void)
{
    char *shared = pages(4, MAP_SHARED);
    char *second = NULL;
    char *third = NULL;
    memset(shared, 1, 4 * PAGE);
    CHECK(munmap(shared, PAGE) == 0 && mprotect(shared + 3 * PAGE, PAGE, PROT_READ) == 0);
    found before = look(shared + PAGE);
    CHECK(before.size == 2 * PAGE && before.info.offset == PAGE);
    CHECK(again(shared + PAGE, 2 * PAGE, &second) == KERN_SUCCESS);
    found after = look(shared + PAGE);
    CHECK(after.start == shared + PAGE && after.size == 2 * PAGE && after.info.offset == 0);
    CHECK(after.info.object_id_full != before.info.object_id_full);
    CHECK(look(second).info.object_id_full == after.info.object_id_full);
    CHECK(look(shared + 3 * PAGE).info.object_id_full == before.info.object_id_full);
    CHECK(again(shared + 2 * PAGE, PAGE, &third) == KERN_SUCCESS);
    CHECK(look(shared + PAGE).info.object_id_full == after.info.object_id_full);
    CHECK(look(third).info.offset == PAGE);
    shared[2 * PAGE + 9] = 9;
    CHECK(second[PAGE + 9] == 9 && third[9] == 9);
    CHECK(munmap(shared + PAGE, 3 * PAGE) == 0);
    CHECK(munmap(second, 2 * PAGE) == 0 && munmap(third, PAGE) == 0);
}

/* A second mapping of a file is known by the same object, one of read-only memory is read-only. */
static void files(void)
{
    char name[] = "/tmp/macho_mach_XXXXXX";
    char *second = NULL;
    int file = mkstemp(name);
    int reading = open(name, O_RDONLY);
    CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, (off_t)(4 * PAGE)) == 0);
    char *first = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)PAGE);
    char *reader = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reading, (off_t)PAGE);
    CHECK(first != MAP_FAILED && reader != MAP_FAILED && close(file) == 0 && close(reading) == 0);
    found one = look(first);
    found other = look(reader);
    CHECK(one.info.object_id_full != 0 && one.info.object_id_full == other.info.object_id_full);
    CHECK(one.info.offset == PAGE && one.info.external_pager == 1);
    CHECK(one.info.inheritance == VM_INHERIT_SHARE);
    CHECK(again(reader, PAGE, &second) == KERN_SUCCESS);
    first[7] = 7;
    CHECK(second[7] == 7 && look(second).info.protection == VM_PROT_READ);
    CHECK(look(second).info.max_protection == (VM_PROT_READ | VM_PROT_EXECUTE));
    CHECK(mprotect(second, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    CHECK(munmap(first, 2 * PAGE) == 0 && munmap(reader, PAGE) == 0 && munmap(second, PAGE) == 0);
}

/* The short structure says the same, but for the number, of which it has the low half. */
static void shorter(void)
{
    char *area[] = {pages(2, MAP_PRIVATE), pages(2, MAP_SHARED)};
    for (int i = 0; i < 2; i++) {
        area[i][PAGE] = 1;
        CHECK(mprotect(area[i] + PAGE, PAGE, PROT_READ) == 0);
        found full = look(area[i] + PAGE);
        vm_region_submap_short_info_data_64_t info;
        mach_vm_address_t at = (uintptr_t)area[i] + PAGE;
        mach_vm_size_t size = 0;
        natural_t depth = UINT32_MAX;
        mach_msg_type_number_t count = VM_REGION_SUBMAP_SHORT_INFO_COUNT_64;
        CHECK(mach_vm_region_recurse(mach_task_self(), &at, &size, &depth,
                                     (vm_region_recurse_info_t)&info, &count) == KERN_SUCCESS);
        CHECK(count == VM_REGION_SUBMAP_SHORT_INFO_COUNT_64);
        CHECK(at == (uintptr_t)full.start && size == full.size && info.offset == PAGE);
        CHECK(info.protection == VM_PROT_READ && info.inheritance == full.info.inheritance);
        CHECK(info.share_mode == full.info.share_mode && info.external_pager == 0);
        CHECK(info.is_submap == 0 && info.object_id == full.info.object_id);
        CHECK(munmap(area[i], 2 * PAGE) == 0);
    }
}

static int purgeable(void *start, vm_purgable_t control, int state, kern_return_t wanted)
{
    kern_return_t code =
        mach_vm_purgable_control(mach_task_self(), (uintptr_t)start, control, &state);
    CHECK(code == wanted);
    return state & VM_PURGABLE_STATE_MASK;
}

static void purges(void)
{
    char *area =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, VM_FLAGS_PURGABLE, 0);
    char *plain = pages(1, MAP_PRIVATE);
    CHECK(area != MAP_FAILED && plain != MAP_FAILED);
    memset(area, 5, 2 * PAGE);
    CHECK(purgeable(area, VM_PURGABLE_GET_STATE, 0, KERN_SUCCESS) == VM_PURGABLE_NONVOLATILE);
    CHECK(purgeable(area, VM_PURGABLE_SET_STATE, VM_PURGABLE_VOLATILE, KERN_SUCCESS) ==
          VM_PURGABLE_NONVOLATILE);
    bool at_once = getenv("UMO_MACHO_PURGE") != NULL;
    CHECK(purgeable(area, VM_PURGABLE_SET_STATE, VM_PURGABLE_NONVOLATILE, KERN_SUCCESS) ==
          (at_once ? VM_PURGABLE_EMPTY : VM_PURGABLE_VOLATILE));
    CHECK(area[PAGE] == (at_once ? 0 : 5));
    CHECK(purgeable(area, VM_PURGABLE_SET_STATE, VM_PURGABLE_EMPTY, KERN_SUCCESS) ==
          VM_PURGABLE_NONVOLATILE);
    CHECK(purgeable(area, VM_PURGABLE_SET_STATE, VM_PURGABLE_NONVOLATILE, KERN_SUCCESS) ==
          VM_PURGABLE_EMPTY);
    CHECK(area[0] == 0);
    (void)purgeable(plain, VM_PURGABLE_SET_STATE, VM_PURGABLE_VOLATILE, KERN_INVALID_ARGUMENT);
    CHECK(munmap(area, 2 * PAGE) == 0 && munmap(plain, PAGE) == 0);
}

static dispatch_source_t source;
static _Atomic unsigned long told;
static int context;

static void pressure(void *user)
{
    CHECK(user == &context);
    told = dispatch_source_get_data(source);
}

static void nothing(void *user)
{
    (void)user;
}

static void press_and_cancel(void *user)
{
    (void)user;
    int level = 2;
    told = 0;
    CHECK(sysctlbyname("kern.memorypressure_manual_trigger", NULL, NULL, &level, sizeof level) ==
          0);
    dispatch_source_cancel(source);
}

static unsigned long press(int level)
{
    told = 0;
    CHECK(sysctlbyname("kern.memorypressure_manual_trigger", NULL, NULL, &level, sizeof level) ==
          0);
    for (int i = 0; i < 1000 && told == 0; i++) {
        (void)usleep(1000);
    }
    return told;
}

static void pressures(void)
{
    dispatch_queue_t queue = dispatch_queue_create("probe", DISPATCH_QUEUE_SERIAL);
    source = dispatch_source_create(DISPATCH_SOURCE_TYPE_MEMORYPRESSURE, 0,
                                    DISPATCH_MEMORYPRESSURE_WARN | DISPATCH_MEMORYPRESSURE_CRITICAL,
                                    queue);
    CHECK(queue != NULL && source != NULL);
    dispatch_set_context(source, &context);
    dispatch_source_set_event_handler_f(source, pressure);
    dispatch_resume(source);
    CHECK(press(2) == DISPATCH_MEMORYPRESSURE_WARN);
    CHECK(press(4) == DISPATCH_MEMORYPRESSURE_CRITICAL);
    /* An event that waits for the queue when the source is cancelled is never told. */
    dispatch_sync_f(queue, NULL, press_and_cancel);
    (void)usleep(20000);
    dispatch_sync_f(queue, NULL, nothing);
    CHECK(told == 0);
    int level = 2;
    CHECK(sysctlbyname("kern.memorypressure_manual_trigger", NULL, NULL, &level, sizeof level) ==
          0);
    dispatch_sync_f(queue, NULL, nothing);
    CHECK(told == 0);
    dispatch_release(source);
    dispatch_release(queue);
}

int main(void)
{
    regions();
    stacks();
    walk();
    duplicates();
    parts();
    files();
    shorter();
    purges();
    pressures();
    return probe_verdict();
}
