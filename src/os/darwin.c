/*
 * macOS. Mach knows every mapping of the process by the memory object behind it, file or not: the
 * object's number stands for the inode, and mach_vm_remap makes the views of shared memory.
 *
 * Whether memory is shared is told by how a child inherits it. MAP_SHARED of any kind is inherited
 * as shared (VM_INHERIT_SHARE), also before its first page exists and when its last other user has
 * left, which the share mode would call private. What a child gets a copy of (VM_INHERIT_COPY) is
 * private whatever the mode says: a heap that Metal has imported is truly shared there. Memory that
 * another task gave us to be copied by children is missed so, and only copied. Where a child
 * inherits nothing, the mode decides.
 */
#include "os/os.h"

#include "base/size.h"

#include <dispatch/dispatch.h>
#include <errno.h>
#include <mach/mach.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <time.h>
#include <unistd.h>

/* <mach/mach_vm.h>, which is not among the headers that come with the compiler on Linux. */
kern_return_t mach_vm_region_recurse(vm_map_read_t task, mach_vm_address_t *address,
                                     mach_vm_size_t *size, natural_t *depth,
                                     vm_region_recurse_info_t info, mach_msg_type_number_t *count);
kern_return_t mach_vm_read_overwrite(vm_map_read_t target, mach_vm_address_t address,
                                     mach_vm_size_t size, mach_vm_address_t data,
                                     mach_vm_size_t *out_size);
kern_return_t mach_vm_remap(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                            mach_vm_offset_t mask, int flags, vm_map_read_t source,
                            mach_vm_address_t source_address, boolean_t copy, vm_prot_t *protection,
                            vm_prot_t *protection_max, vm_inherit_t inherit);
kern_return_t mach_vm_purgable_control(vm_map_t task, mach_vm_address_t address,
                                       vm_purgable_t control, int *state);

#define WAIT_MAX_NS (UINT64_C(3600) * 1000000000)

/* A figure of the machine; 0 if it is unknown. */
static uint64_t figure(const char *name)
{
    uint64_t value = 0;
    size_t value_bytes = sizeof value;
    if (sysctlbyname(name, &value, &value_bytes, NULL, 0) != 0) {
        return 0;
    }
    /* An int fills the low half: every Mac is little-endian. */
    return value;
}

size_t umo_os_page_bytes(void)
{
    static _Atomic size_t cached;
    size_t page = atomic_load_explicit(&cached, memory_order_relaxed);
    if (page == 0) {
        page = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&cached, page, memory_order_relaxed);
    }
    return page;
}

uint64_t umo_os_memory_bytes(void)
{
    return figure("hw.memsize");
}

size_t umo_os_cache_line_bytes(void)
{
    uint64_t line = figure("hw.cachelinesize");
    return line > 0 ? (size_t)line : 64;
}

/* flags: VM_FLAGS_PURGABLE or 0; Darwin's mmap takes them where the file stands otherwise. */
static void *pages_map(size_t size_bytes, int flags)
{
    size_t whole_bytes;
    if (!umo_round_up(size_bytes, umo_os_page_bytes(), &whole_bytes)) {
        return NULL;
    }
    void *pages = mmap(NULL, whole_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       flags != 0 ? flags : -1, 0);
    return pages != MAP_FAILED ? pages : NULL;
}

void *umo_os_pages_alloc(size_t size_bytes)
{
    return pages_map(size_bytes, 0);
}

void *umo_os_pages_reserve(size_t size_bytes)
{
    void *pages = pages_map(size_bytes, 0);
    size_t whole_bytes;
    if (pages != NULL && umo_round_up(size_bytes, umo_os_page_bytes(), &whole_bytes)) {
        (void)mprotect(pages, whole_bytes, PROT_NONE);
    }
    return pages;
}

/* Mapped anew: MADV_FREE leaves the old bytes for a while, and a new page has to be of zeros. */
void umo_os_pages_decommit(void *pages, size_t size_bytes)
{
    (void)mmap(pages, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Mapped anew: MADV_FREE leaves the old bytes for a while. */
void umo_os_pages_empty(void *pages, size_t size_bytes)
{
    if (!umo_os_pages_renew(pages, size_bytes)) {
        memset(pages, 0, size_bytes);
    }
}

/* Superpages are an Intel machine's, and of a mapping's whole. */
size_t umo_os_huge_page_bytes(void)
{
    return 0;
}

void umo_os_pages_huge(void *pages, size_t size_bytes, bool huge)
{
    (void)pages;
    (void)size_bytes;
    (void)huge;
}

/* mach_vm_remap shares pages; nothing moves them. */
bool umo_os_pages_move(void *from, size_t size_bytes, void *to)
{
    (void)from;
    (void)size_bytes;
    (void)to;
    return false;
}

bool umo_os_pages_renew(void *pages, size_t size_bytes)
{
    return mmap(pages, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                -1, 0) == pages;
}

_Atomic bool umo_os_barrier_real = true;

void umo_os_barrier_prepare(void)
{
}

void umo_os_barrier_all(void)
{
    umo_os_fence();
}

/* A read brings a page, a fresh one too: there is no common page of zeros. Only a write parts it
 * from what it is still a copy of; a compare-and-exchange is one that the compiler keeps. */
static void page_touch(void *page, bool writable)
{
    _Atomic unsigned char *byte = page;
    unsigned char seen = atomic_load_explicit(byte, memory_order_relaxed);
    if (writable) {
        (void)atomic_compare_exchange_strong(byte, &seen, seen);
    }
}

umo_status umo_os_pages_populate(void *start, size_t size_bytes, bool writable)
{
    size_t page = umo_os_page_bytes();
    uintptr_t first = umo_round_down((uintptr_t)start, page);
    size_t whole_bytes;
    if (!umo_round_up((size_t)((uintptr_t)start - first) + size_bytes, page, &whole_bytes) ||
        whole_bytes > UINTPTR_MAX - first) {
        return UMO_E_SYSTEM;
    }
    uintptr_t end = first + whole_bytes;
    umo_mapping mapping;
    /* Nothing populates and reports: a touch is a fault where the mappings do not allow it. */
    for (uintptr_t at = first; at < end; at = mapping.end) {
        if (umo_os_mapping_query((const void *)at, &mapping) != UMO_OK || !mapping.readable ||
            (writable && !mapping.writable)) {
            return UMO_E_SYSTEM;
        }
    }
    (void)madvise((void *)first, whole_bytes, MADV_WILLNEED);
    for (uintptr_t at = first; at < end; at += page) {
        page_touch((void *)at, writable);
    }
    return UMO_OK;
}

bool umo_os_pages_bring(void *pages, size_t size_bytes)
{
    (void)pages;
    (void)size_bytes;
    return false;
}

umo_status umo_os_pages_alloc_purgeable(size_t size_bytes, void **out)
{
    void *pages = pages_map(size_bytes, VM_FLAGS_PURGABLE);
    if (pages == NULL) {
        return UMO_E_NOMEM;
    }
    *out = pages;
    return UMO_OK;
}

umo_status umo_os_pages_purgeable(void *pages, umo_purgeable want, bool *out_lost)
{
    static const int states[] = {
        [UMO_PURGEABLE_KEPT] = VM_PURGABLE_NONVOLATILE,
        [UMO_PURGEABLE_VOLATILE] = VM_PURGABLE_VOLATILE,
        [UMO_PURGEABLE_EMPTY] = VM_PURGABLE_EMPTY,
    };
    int state = states[want]; /* then the one before */
    if (mach_vm_purgable_control(mach_task_self(), (uintptr_t)pages, VM_PURGABLE_SET_STATE,
                                 &state) != KERN_SUCCESS) {
        return UMO_E_UNSUPPORTED;
    }
    if (want == UMO_PURGEABLE_KEPT) {
        *out_lost = (state & VM_PURGABLE_STATE_MASK) == VM_PURGABLE_EMPTY;
    }
    return UMO_OK;
}

struct umo_os_pressure {
    void (*notify)(umo_os_pressure_level level, void *user);
    void *user;
    dispatch_queue_t queue;
    dispatch_source_t source;
    pid_t process;
};

static void pressure_changed(void *user)
{
    const umo_os_pressure *pressure = user;
    uintptr_t flags = dispatch_source_get_data(pressure->source);
    umo_os_pressure_level level = UMO_OS_PRESSURE_NORMAL;
    if ((flags & DISPATCH_MEMORYPRESSURE_CRITICAL) != 0) {
        level = UMO_OS_PRESSURE_CRITICAL;
    } else if ((flags & DISPATCH_MEMORYPRESSURE_WARN) != 0) {
        level = UMO_OS_PRESSURE_WARN;
    }
    pressure->notify(level, pressure->user);
}

umo_status umo_os_pressure_create(void (*notify)(umo_os_pressure_level level, void *user),
                                  void *user, umo_os_pressure **out)
{
    umo_os_pressure *pressure = calloc(1, sizeof *pressure);
    if (pressure == NULL) {
        return UMO_E_NOMEM;
    }
    pressure->notify = notify;
    pressure->user = user;
    pressure->process = getpid();
    pressure->queue = dispatch_queue_create("umo.pressure", DISPATCH_QUEUE_SERIAL);
    if (pressure->queue == NULL) {
        goto fail;
    }
    pressure->source =
        dispatch_source_create(DISPATCH_SOURCE_TYPE_MEMORYPRESSURE, 0,
                               DISPATCH_MEMORYPRESSURE_NORMAL | DISPATCH_MEMORYPRESSURE_WARN |
                                   DISPATCH_MEMORYPRESSURE_CRITICAL,
                               pressure->queue);
    if (pressure->source == NULL) {
        goto fail;
    }
    dispatch_set_context(pressure->source, pressure);
    dispatch_source_set_event_handler_f(pressure->source, pressure_changed);
    dispatch_resume(pressure->source);
    *out = pressure;
    return UMO_OK;

fail:
    umo_os_pressure_destroy(pressure);
    return UMO_E_UNSUPPORTED;
}

static void pressure_nothing(void *user)
{
    (void)user;
}

void umo_os_pressure_destroy(umo_os_pressure *pressure)
{
    if (pressure == NULL) {
        return;
    }
    /* A child of fork() has neither the queue's thread nor the source, and libdispatch ends a child
     * that touches what its parent made. */
    bool own = pressure->process == getpid();
    if (own && pressure->source != NULL) {
        /* The queue runs one thing at a time: what comes after the cancellation comes after the
         * last call of the handler. */
        dispatch_source_cancel(pressure->source);
        dispatch_sync_f(pressure->queue, NULL, pressure_nothing);
        dispatch_release(pressure->source);
    }
    if (own && pressure->queue != NULL) {
        dispatch_release(pressure->queue);
    }
    free(pressure);
}

/* Like Linux's monotonic clock this one stands still while the machine sleeps, and it is the clock
 * of timed waits. */
uint64_t umo_os_now_ns(void)
{
    return clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
}

void umo_os_condition_init(pthread_cond_t *condition)
{
    (void)pthread_cond_init(condition, NULL);
}

bool umo_os_condition_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock,
                                 uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        (void)pthread_cond_wait(condition, lock);
        return true;
    }
    /* An absolute deadline would be on the wall clock, which may be set. Waking early is allowed,
     * so that nobody has to know what the kernel makes of a century. */
    uint64_t now_ns = umo_os_now_ns();
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    left_ns = left_ns < WAIT_MAX_NS ? left_ns : WAIT_MAX_NS;
    struct timespec left = {
        .tv_sec = (time_t)(left_ns / 1000000000u),
        .tv_nsec = (long)(left_ns % 1000000000u),
    };
    return pthread_cond_timedwait_relative_np(condition, lock, &left) != ETIMEDOUT ||
           umo_os_now_ns() < deadline_ns;
}

/* The first mapping that ends after address, also in the maps that processes share, as that of the
 * system's libraries. KERN_INVALID_ADDRESS: there is none. */
static kern_return_t region_ask(mach_vm_address_t address, vm_region_recurse_info_t info,
                                mach_msg_type_number_t count, umo_mapping *out)
{
    mach_vm_size_t size_bytes = 0;
    natural_t depth = UINT32_MAX; /* of nested maps that it may look into */
    kern_return_t code =
        mach_vm_region_recurse(mach_task_self(), &address, &size_bytes, &depth, info, &count);
    *out = (umo_mapping){.start = (uintptr_t)address, .end = (uintptr_t)(address + size_bytes)};
    return code;
}

static bool region_shared(vm_inherit_t inheritance, unsigned char share_mode)
{
    return inheritance == VM_INHERIT_SHARE ||
           (inheritance != VM_INHERIT_COPY &&
            (share_mode == SM_SHARED || share_mode == SM_TRUESHARED ||
             share_mode == SM_SHARED_ALIASED));
}

/*
 * The long answer makes the kernel look at every page of the mapping, with its object locked: only
 * for what may be shared, where the object's full number is the identity. It is an answer of its
 * own, since the mapping may be another one meanwhile.
 */
static kern_return_t region_next(mach_vm_address_t address, umo_mapping *out)
{
    vm_region_submap_short_info_data_64_t info;
    kern_return_t code = region_ask(address, (vm_region_recurse_info_t)&info,
                                    VM_REGION_SUBMAP_SHORT_INFO_COUNT_64, out);
    if (code != KERN_SUCCESS) {
        return code;
    }
    uint64_t number = info.external_pager != 0 ? info.object_id : 0;
    if (info.inheritance != VM_INHERIT_COPY) {
        vm_region_submap_info_data_64_t full;
        /* Up to the object's full number: older systems know no more. */
        code = region_ask(address, (vm_region_recurse_info_t)&full,
                          VM_REGION_SUBMAP_INFO_V2_COUNT_64, out);
        if (code != KERN_SUCCESS) {
            return code;
        }
        info.protection = full.protection;
        info.inheritance = full.inheritance;
        info.offset = full.offset;
        info.external_pager = full.external_pager;
        info.share_mode = full.share_mode;
        number = full.object_id_full;
    }
    out->device = info.external_pager != 0 ? 1 : 0;
    out->inode = number;
    out->offset_bytes = info.offset;
    out->shared = region_shared(info.inheritance, info.share_mode);
    out->readable = (info.protection & VM_PROT_READ) != 0;
    out->writable = (info.protection & VM_PROT_WRITE) != 0;
    return KERN_SUCCESS;
}

umo_status umo_os_mapping_query(const void *address, umo_mapping *out)
{
    umo_mapping mapping;
    kern_return_t code = region_next((uintptr_t)address, &mapping);
    if (code != KERN_SUCCESS) {
        return code == KERN_INVALID_ADDRESS ? UMO_E_NOT_FOUND : UMO_E_UNSUPPORTED;
    }
    if (mapping.start > (uintptr_t)address) {
        return UMO_E_NOT_FOUND;
    }
    *out = mapping;
    return UMO_OK;
}

static umo_status mapping_again(void *start, size_t size_bytes, void **out)
{
    mach_vm_address_t place = 0;
    vm_prot_t protection = VM_PROT_NONE;
    vm_prot_t protection_max = VM_PROT_NONE;
    /* A child would keep the client's memory alive. */
    kern_return_t code =
        mach_vm_remap(mach_task_self(), &place, size_bytes, 0, VM_FLAGS_ANYWHERE, mach_task_self(),
                      (uintptr_t)start, FALSE, &protection, &protection_max, VM_INHERIT_NONE);
    switch (code) {
    case KERN_SUCCESS:
        *out = (void *)(uintptr_t)place;
        return UMO_OK;
    case KERN_NO_SPACE:
    case KERN_RESOURCE_SHORTAGE:
        return UMO_E_NOMEM;
    case KERN_NOT_SUPPORTED:
        return UMO_E_UNSUPPORTED;
    default:
        return UMO_E_REFUSED;
    }
}

/* Whether two addresses show the same place of the same object. */
static bool same_memory(const umo_mapping *left, const void *left_address, const umo_mapping *right,
                        const void *right_address)
{
    return left->inode != 0 && left->inode == right->inode && left->device == right->device &&
           left->offset_bytes + ((uintptr_t)left_address - left->start) ==
               right->offset_bytes + ((uintptr_t)right_address - right->start);
}

umo_status umo_os_mapping_duplicate(void *start, size_t size_bytes, void **out)
{
    umo_mapping source;
    /* mach_vm_remap would round to whole pages, go on in the next mapping, and make shared memory
     * of what was private: nobody but us refuses. */
    if (size_bytes == 0 || (((uintptr_t)start | size_bytes) & (umo_os_page_bytes() - 1)) != 0 ||
        umo_os_mapping_query(start, &source) != UMO_OK || !source.shared ||
        size_bytes > source.end - (uintptr_t)start) {
        return UMO_E_REFUSED;
    }
    void *own;
    umo_status status = mapping_again(start, size_bytes, &own);
    if (status != UMO_OK) {
        return status;
    }
    umo_mapping copy;
    if (umo_os_mapping_query(own, &copy) != UMO_OK) {
        goto refuse;
    }
    /* Being mapped again may give the source another object: its first if nobody has touched it
     * yet, one of its own if it shows a part only of an anonymous one. */
    if (!same_memory(&copy, own, &source, start) &&
        (umo_os_mapping_query(start, &source) != UMO_OK || !source.shared ||
         !same_memory(&copy, own, &source, start))) {
        goto refuse;
    }
    *out = own;
    return UMO_OK;

refuse:
    (void)munmap(own, size_bytes);
    return UMO_E_REFUSED;
}

/* Duplicates a page of shared memory of our own and looks whether both show the same byte. */
static bool duplicates_try(void)
{
    size_t page_bytes = umo_os_page_bytes();
    bool works = false;
    char *first = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (first != MAP_FAILED) {
        void *second;
        if (umo_os_mapping_duplicate(first, page_bytes, &second) == UMO_OK) {
            first[0] = 1;
            works = *(volatile char *)second == 1;
            (void)munmap(second, page_bytes);
        }
        (void)munmap(first, page_bytes);
    }
    return works;
}

bool umo_os_mapping_duplicates(void)
{
    static _Atomic int
        known; /* 0 not tried, 1 no, 2 yes; two threads that both try find the same */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == 0) {
        answer = duplicates_try() ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

size_t umo_os_mappings_max(void)
{
    return SIZE_MAX;
}

umo_status umo_os_mapping_visit(bool (*visit)(const umo_mapping *mapping, void *user), void *user)
{
    umo_mapping mapping = {.end = 0};
    for (;;) {
        kern_return_t code = region_next(mapping.end, &mapping);
        if (code != KERN_SUCCESS) {
            return code == KERN_INVALID_ADDRESS ? UMO_OK : UMO_E_SYSTEM;
        }
        if (!visit(&mapping, user)) {
            return UMO_OK;
        }
    }
}

bool umo_os_release(char *out, size_t out_bytes)
{
    char kernel[64];
    char build[64];
    size_t kernel_bytes = sizeof kernel;
    size_t build_bytes = sizeof build;
    return sysctlbyname("kern.osrelease", kernel, &kernel_bytes, NULL, 0) == 0 &&
           sysctlbyname("kern.osversion", build, &build_bytes, NULL, 0) == 0 &&
           umo_os_written(out, out_bytes, snprintf(out, out_bytes, "%s %s", kernel, build));
}

/* All or nothing: how much there is, where it is not all, the pipe finds out. */
size_t umo_os_copy_from(void *to, const void *from, size_t size_bytes)
{
    mach_vm_size_t copied = 0;
    kern_return_t failed =
        mach_vm_read_overwrite(mach_task_self(), (mach_vm_address_t)(uintptr_t)from, size_bytes,
                               (mach_vm_address_t)(uintptr_t)to, &copied);
    return failed == KERN_SUCCESS ? (size_t)copied : umo_os_copy_by_pipe(to, from, size_bytes);
}

size_t umo_os_copy_to(void *to, const void *from, size_t size_bytes)
{
    return umo_os_copy_from(to, from, size_bytes);
}
