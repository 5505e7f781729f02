/*
 * Linux. PROCMAP_QUERY and a duplicate mapping by mremap(old size 0) carry the views of shared
 * memory; the ABI of the ioctl is declared here because distributions ship older kernel headers
 * than kernels.
 */
#include "os/os.h"

#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* A build may force a longer page than the kernel's, to find out who assumes one (CMake's option
 * UMO_PAGE_BYTES). Only this file knows: it hands out and duplicates nothing but whole pages of
 * that size, at its multiples. */
#ifdef UMO_PAGE_BYTES
static const size_t forced_page_bytes = UMO_PAGE_BYTES;
#else
static const size_t forced_page_bytes = 0;
#endif

static size_t system_page_bytes(void)
{
    static _Atomic size_t cached;
    size_t page = atomic_load_explicit(&cached, memory_order_relaxed);
    if (page == 0) {
        page = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&cached, page, memory_order_relaxed);
    }
    return page;
}

size_t umo_os_page_bytes(void)
{
    size_t page = system_page_bytes();
    return forced_page_bytes > page ? forced_page_bytes : page;
}

uint64_t umo_os_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? (uint64_t)pages * system_page_bytes() : 0;
}

/* Fresh whole pages. Where they are forced to be longer than the kernel's, its address is no
 * multiple of theirs: more is mapped, and what is too much is given back. */
static void *pages_map_aligned(size_t whole_bytes, int protection, size_t align_bytes)
{
    size_t slack = align_bytes - system_page_bytes();
    size_t more_bytes;
    if (__builtin_add_overflow(whole_bytes, slack, &more_bytes)) {
        return NULL;
    }
    char *area = mmap(NULL, more_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return NULL;
    }
    size_t before = (size_t)(-(uintptr_t)area & (align_bytes - 1));
    if (before > 0) {
        (void)munmap(area, before);
    }
    if (slack > before) {
        (void)munmap(area + before + whole_bytes, slack - before);
    }
    return area + before;
}

static void *pages_map(size_t whole_bytes, int protection)
{
    return pages_map_aligned(whole_bytes, protection, umo_os_page_bytes());
}

void *umo_os_pages_alloc(size_t size_bytes)
{
    size_t whole_bytes;
    return umo_round_up(size_bytes, umo_os_page_bytes(), &whole_bytes)
               ? pages_map(whole_bytes, PROT_READ | PROT_WRITE)
               : NULL;
}

void *umo_os_pages_reserve(size_t size_bytes)
{
    size_t whole_bytes;
    size_t align_bytes = umo_os_huge_page_bytes();
    if (align_bytes < umo_os_page_bytes() || size_bytes < align_bytes) {
        align_bytes = umo_os_page_bytes();
    }
    return umo_round_up(size_bytes, umo_os_page_bytes(), &whole_bytes)
               ? pages_map_aligned(whole_bytes, PROT_NONE, align_bytes)
               : NULL;
}

/* Neither madvise nor mprotect can leave a hole that another mapping might get, as mapping anew
 * over the range could. That is for pages that do not go otherwise: somebody has locked them, with
 * mlockall() at the latest, or a sandbox refuses the call. What was in them must go, since nobody
 * clears it for the next owner. */
void umo_os_pages_decommit(void *pages, size_t size_bytes)
{
    if (madvise(pages, size_bytes, MADV_DONTNEED) != 0) {
        (void)mmap(pages, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    (void)mprotect(pages, size_bytes, PROT_NONE);
}

void umo_os_pages_empty(void *pages, size_t size_bytes)
{
    if (madvise(pages, size_bytes, MADV_DONTNEED) != 0 && !umo_os_pages_renew(pages, size_bytes)) {
        memset(pages, 0, size_bytes);
    }
}

#ifndef MREMAP_DONTUNMAP /* Linux 5.7 */
#define MREMAP_DONTUNMAP 4
#endif

/*
 * Before Linux 6.17 a range of two mappings does not move, and is found to be one after the target
 * has been unmapped. Two come about unseen: parts that were touched before what lies between them
 * was in use do not join. So this asks for what no range can do, to grow beyond all addresses;
 * whether it is one mapping is looked at first. Later kernels look at the size first, and move two.
 */
static bool pages_are_one_mapping(void *pages, size_t size_bytes)
{
    size_t beyond = size_bytes + SIZE_MAX / 2 / system_page_bytes() * system_page_bytes();
    return mremap(pages, size_bytes, beyond, 0) != MAP_FAILED || errno != EFAULT;
}

/* What is moved away must stay mapped: a hole could become somebody else's mapping. */
bool umo_os_pages_move(void *from, size_t size_bytes, void *to)
{
    if (!pages_are_one_mapping(from, size_bytes)) {
        return false;
    }
    if (mremap(from, size_bytes, size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
               to) == to) {
        return true;
    }
    /* Of several mappings some may have moved, and the target may be a hole. */
    (void)umo_os_pages_renew(to, size_bytes);
    return false;
}

/* Mapping anew joins what moves have cut. */
bool umo_os_pages_renew(void *pages, size_t size_bytes)
{
    return mmap(pages, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                -1, 0) == pages;
}

/* Linux 4.14; the sandbox may not have it. */
enum {
    MEMBARRIER_PRIVATE = 1 << 3,
    MEMBARRIER_REGISTER_PRIVATE = 1 << 4
};

_Atomic bool umo_os_barrier_real = true;

/* Never back to true: a thread that has not seen it yet would pass without a fence. */
void umo_os_barrier_prepare(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE, 0, 0) == 0) {
        atomic_store_explicit(&umo_os_barrier_real, false, memory_order_relaxed);
    }
}

void umo_os_barrier_all(void)
{
    umo_os_fence();
    if (!atomic_load_explicit(&umo_os_barrier_real, memory_order_relaxed)) {
        (void)syscall(SYS_membarrier, MEMBARRIER_PRIVATE, 0, 0);
    }
}

/* Linux 5.14; the numbers are newer than some distributions' headers. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

umo_status umo_os_pages_populate(void *start, size_t size_bytes, bool writable)
{
    size_t page = system_page_bytes();
    uintptr_t first = (uintptr_t)start & ~(uintptr_t)(page - 1);
    size_t whole_bytes;
    if (!umo_round_up((size_t)((uintptr_t)start - first) + size_bytes, page, &whole_bytes)) {
        return UMO_E_SYSTEM;
    }
    if (madvise((void *)first, whole_bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) ==
        0) {
        return UMO_OK;
    }
    if (errno != EINVAL) {
        return errno == ENOMEM ? UMO_E_NOMEM : UMO_E_SYSTEM;
    }
    /* An older kernel: one read a page. It brings what a file or another process has; fresh pages
     * come with their first write. */
    for (size_t at = 0; at < whole_bytes; at += page) {
        (void)*(volatile const char *)(first + at);
    }
    return UMO_OK;
}

bool umo_os_pages_bring(void *pages, size_t size_bytes)
{
    return madvise(pages, size_bytes, MADV_POPULATE_WRITE) == 0 || errno != EINVAL;
}

/* MADV_FREE lets the kernel drop bytes, but nothing tells afterwards whether it has: a page of
 * zeros may be what was written there. */
umo_status umo_os_pages_alloc_purgeable(size_t size_bytes, void **out)
{
    (void)size_bytes;
    (void)out;
    return UMO_E_UNSUPPORTED;
}

umo_status umo_os_pages_purgeable(void *pages, umo_purgeable want, bool *out_lost)
{
    (void)pages;
    (void)want;
    (void)out_lost;
    return UMO_E_UNSUPPORTED;
}

/* What Linux has (the cgroup's usage against its limit, pressure_level, PSI) is of the cgroup, not
 * of the system, and must be asked for: it belongs to whoever knows which cgroup counts. */
umo_status umo_os_pressure_create(void (*notify)(umo_os_pressure_level level, void *user),
                                  void *user, umo_os_pressure **out)
{
    (void)notify;
    (void)user;
    (void)out;
    return UMO_E_UNSUPPORTED;
}

void umo_os_pressure_destroy(umo_os_pressure *pressure)
{
    (void)pressure;
}

uint64_t umo_os_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void umo_os_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

bool umo_os_condition_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock,
                                 uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        (void)pthread_cond_wait(condition, lock);
        return true;
    }
    struct timespec until = {
        .tv_sec = (time_t)(deadline_ns / 1000000000u),
        .tv_nsec = (long)(deadline_ns % 1000000000u),
    };
    return pthread_cond_timedwait(condition, lock, &until) != ETIMEDOUT;
}

/* The kernel's struct procmap_query (Linux 6.11); without room for a name or a build id. */
typedef struct procmap_query_arg {
    uint64_t size;
    uint64_t query_flags;
    uint64_t query_addr;
    uint64_t vma_start;
    uint64_t vma_end;
    uint64_t vma_flags;
    uint64_t vma_page_size;
    uint64_t vma_offset;
    uint64_t inode;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint32_t vma_name_size;
    uint32_t build_id_size;
    uint64_t vma_name_addr;
    uint64_t build_id_addr;
} procmap_query_arg;

#define PROCMAP_QUERY_CALL _IOWR('f', 17, procmap_query_arg)

enum {
    VMA_READABLE = 0x01,
    VMA_WRITABLE = 0x02,
    VMA_SHARED = 0x08
};

/* /proc/self/maps, opened once for the life of the process and again after a fork: the file shows
 * its opener's. -1 also where UMO_PROCMAP_QUERY=off has this kernel be an older one. */
static int maps_file(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static _Atomic int file = -1;
    static _Atomic uint32_t owner = UINT32_MAX;
    uint32_t forks = umo_os_forks();
    if (atomic_load_explicit(&owner, memory_order_acquire) == forks) {
        return atomic_load_explicit(&file, memory_order_relaxed);
    }
    umo_os_forks_watch();
    (void)pthread_mutex_lock(&lock);
    if (atomic_load_explicit(&owner, memory_order_relaxed) != forks) {
        int previous = atomic_load_explicit(&file, memory_order_relaxed);
        if (previous >= 0) {
            (void)close(previous);
        }
        const char *wish = getenv("UMO_PROCMAP_QUERY");
        bool off = wish != NULL && strcmp(wish, "off") == 0;
        int opened = off ? -1 : open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
        atomic_store_explicit(&file, opened, memory_order_relaxed);
        if (opened >= 0 || off) {
            atomic_store_explicit(&owner, forks, memory_order_release);
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return atomic_load_explicit(&file, memory_order_relaxed);
}

umo_status umo_os_mapping_query(const void *address, umo_mapping *out)
{
    int file = maps_file();
    procmap_query_arg query = {.size = sizeof query, .query_addr = (uint64_t)(uintptr_t)address};
    if (file < 0 || ioctl(file, PROCMAP_QUERY_CALL, &query) != 0) {
        return file >= 0 && errno == ENOENT ? UMO_E_NOT_FOUND : UMO_E_UNSUPPORTED;
    }
    *out = (umo_mapping){
        .start = (uintptr_t)query.vma_start,
        .end = (uintptr_t)query.vma_end,
        .device = makedev(query.dev_major, query.dev_minor),
        .inode = query.inode,
        .offset_bytes = query.vma_offset,
        .shared = (query.vma_flags & VMA_SHARED) != 0,
        .readable = (query.vma_flags & VMA_READABLE) != 0,
        .writable = (query.vma_flags & VMA_WRITABLE) != 0,
    };
    return UMO_OK;
}

/* A file's huge page takes one entry of the page tables where the mapping lies in step with it. Who
 * maps a segment maps all of it, so a multiple of a huge page is in step. */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/* An old size of 0 makes a second mapping of shared memory and refuses private memory. */
static void *mapping_again(void *start, size_t size_bytes)
{
    size_t align_bytes = umo_os_page_bytes();
    if (size_bytes >= HUGE_PAGE_BYTES && align_bytes < HUGE_PAGE_BYTES) {
        align_bytes = HUGE_PAGE_BYTES;
    }
    if (align_bytes == system_page_bytes()) {
        return mremap(start, 0, size_bytes, MREMAP_MAYMOVE);
    }
    void *place = pages_map_aligned(size_bytes, PROT_NONE, align_bytes);
    if (place == NULL) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *own = mremap(start, 0, size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    if (own == MAP_FAILED) {
        int code = errno;
        (void)munmap(place, size_bytes);
        errno = code;
    }
    return own;
}

umo_status umo_os_mapping_duplicate(void *start, size_t size_bytes, void **out)
{
    if ((((uintptr_t)start | size_bytes) & (umo_os_page_bytes() - 1)) != 0) {
        return UMO_E_REFUSED;
    }
    void *own = mapping_again(start, size_bytes);
    if (own == MAP_FAILED) {
        switch (errno) {
        case ENOMEM:
            return UMO_E_NOMEM;
        case ENOSYS:
            return UMO_E_UNSUPPORTED;
        default:
            return UMO_E_REFUSED;
        }
    }
    /* A child would keep the client's memory alive, and a dump would hold it. */
    (void)madvise(own, size_bytes, MADV_DONTFORK);
    (void)madvise(own, size_bytes, MADV_DONTDUMP);
    *out = own;
    return UMO_OK;
}

/* Duplicates a page of shared memory of our own and looks whether both show the same byte. */
static bool duplicates_try(void)
{
    size_t page_bytes = umo_os_page_bytes();
    int file = memfd_create("umo-probe", MFD_CLOEXEC);
    bool works = false;
    if (file >= 0 && ftruncate(file, (off_t)page_bytes) == 0) {
        char *first = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (first != MAP_FAILED) {
            char *second = mapping_again(first, page_bytes);
            if (second != MAP_FAILED) {
                first[0] = 1;
                works = *(volatile char *)second == 1;
                (void)munmap(second, page_bytes);
            }
            (void)munmap(first, page_bytes);
        }
    }
    if (file >= 0) {
        (void)close(file);
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
    char text[32] = {0};
    int file = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    ssize_t got = file >= 0 ? read(file, text, sizeof text - 1) : -1;
    if (file >= 0) {
        (void)close(file);
    }
    unsigned long most = got > 0 ? strtoul(text, NULL, 10) : 0;
    return most > 0 ? most : SIZE_MAX;
}

/* Reads a number and the character behind it; 0 where there is none, as the kernel writes none. */
static uint64_t maps_number(const char **text, unsigned base)
{
    uint64_t value = 0;
    for (;; (*text)++) {
        unsigned char c = (unsigned char)**text;
        unsigned digit = base;
        if (c >= '0' && c <= '9') {
            digit = c - (unsigned)'0';
        } else if (c >= 'a' && c <= 'f') {
            digit = c - (unsigned)'a' + 10;
        }
        if (digit >= base) {
            break;
        }
        value = value * base + digit;
    }
    *text += **text != '\0' ? 1 : 0;
    return value;
}

/* One line of /proc/self/maps: "start-end perms offset major:minor inode path". */
static umo_mapping maps_line(const char *line)
{
    umo_mapping out = {.start = (uintptr_t)maps_number(&line, 16)};
    out.end = (uintptr_t)maps_number(&line, 16);
    for (; *line != ' ' && *line != '\0'; line++) {
        out.readable = out.readable || *line == 'r';
        out.writable = out.writable || *line == 'w';
        out.shared = out.shared || *line == 's';
    }
    line += *line == ' ' ? 1 : 0;
    out.offset_bytes = maps_number(&line, 16);
    unsigned major = (unsigned)maps_number(&line, 16);
    out.device = makedev(major, (unsigned)maps_number(&line, 16));
    out.inode = maps_number(&line, 10);
    return out;
}

/* The kernel hands out whole lines, but a path may be longer than what is left of the buffer: what
 * is cut off a line's end is only ever its path. */
umo_status umo_os_mapping_visit(bool (*visit)(const umo_mapping *mapping, void *user), void *user)
{
    char text[16384];
    size_t filled = 0;
    bool in_path = false; /* of a line that was visited already */
    bool more = true;
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return UMO_E_SYSTEM;
    }
    ssize_t got = 0;
    while (more) {
        got = read(file, text + filled, sizeof text - 1 - filled);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        filled += (size_t)got;
        text[filled] = '\0';
        char *line = text;
        for (char *end = strchr(line, '\n'); more && end != NULL; end = strchr(line, '\n')) {
            *end = '\0';
            if (!in_path) {
                umo_mapping mapping = maps_line(line);
                more = visit(&mapping, user);
            }
            in_path = false;
            line = end + 1;
        }
        filled -= (size_t)(line - text);
        memmove(text, line, filled);
        if (filled == sizeof text - 1) {
            if (more && !in_path) {
                umo_mapping mapping = maps_line(text);
                more = visit(&mapping, user);
            }
            in_path = true;
            filled = 0;
        }
    }
    (void)close(file);
    return got < 0 ? UMO_E_SYSTEM : UMO_OK;
}

size_t umo_os_cache_line_bytes(void)
{
    long line = sysconf(_SC_LEVEL1_DCACHE_LINESIZE);
    return line > 0 ? (size_t)line : 64;
}

bool umo_os_release(char *out, size_t out_bytes)
{
    struct utsname system;
    return uname(&system) == 0 &&
           umo_os_written(out, out_bytes,
                          snprintf(out, out_bytes, "%s %s", system.release, system.version));
}

/* Refused by a sandbox or a kernel without it, as opposed to memory that is not there. */
static bool call_refused(ssize_t result)
{
    return result < 0 && errno != EFAULT && errno != ENOMEM;
}

/* One side is ours; the other one may end, and the call then comes back short. */
static size_t copy_by_call(char *to, const char *from, size_t size_bytes, bool to_may_end)
{
    size_t done = 0;
    while (done < size_bytes) {
        struct iovec target = {to + done, size_bytes - done};
        struct iovec source = {(char *)(uintptr_t)from + done, size_bytes - done};
        ssize_t copied = to_may_end ? process_vm_writev(getpid(), &source, 1, &target, 1, 0)
                                    : process_vm_readv(getpid(), &target, 1, &source, 1, 0);
        if (call_refused(copied)) {
            return done + umo_os_copy_by_pipe(to + done, from + done, size_bytes - done);
        }
        if (copied <= 0) {
            break;
        }
        done += (size_t)copied;
    }
    return done;
}

size_t umo_os_copy_from(void *to, const void *from, size_t size_bytes)
{
    return copy_by_call(to, from, size_bytes, false);
}

size_t umo_os_copy_to(void *to, const void *from, size_t size_bytes)
{
    return copy_by_call(to, from, size_bytes, true);
}
