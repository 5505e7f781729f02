/*
 * The census of dirtied pages, by userfaultfd's asynchronous write protection and PAGEMAP_SCAN
 * (Linux 6.7).
 *
 * ARM write-protects every writable or anonymous mapping of the process; the kernel lifts the
 * protection of a page by itself at its first write, whoever writes and by whatever instruction;
 * SCAN lists the pages whose protection is gone. So it sees what a symbol spy cannot: intrinsics,
 * rep movsb, JIT code, reads from a socket.
 *
 * Memory that is unmapped before SCAN leaves nothing to list: a staging buffer that is allocated
 * and freed for each request. But every page of it cost a page fault, and so did every first write
 * to a protected page; so SCAN also says how many page faults the process had since ARM, which the
 * reader compares with the pages listed. Transparent huge pages, which would hide many pages behind
 * one fault, are switched off in a process that is watched.
 *
 * The helper thread runs on memory of its own, left out of the census, and calls nothing but system
 * calls, so that it does not dirty what it counts. A write from another process (a client, a Python
 * stub) is not this process's and is not seen; a page written with the value it had counts as
 * written. In a transparent huge page one write dirties all of it.
 *
 * Debian 12's kernel headers are older than both interfaces: what is used of them is declared here
 * from their documentation.
 */
#include "census.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spy_table.h"

#define FEATURE_WP_FAULT (UINT64_C(1) << 0)
#define FEATURE_WP_SHARED_MEMORY (UINT64_C(1) << 12)
#define FEATURE_WP_UNPOPULATED (UINT64_C(1) << 13)
#define FEATURE_WP_ASYNC (UINT64_C(1) << 15)
#define FEATURES                                                                                   \
    (FEATURE_WP_FAULT | FEATURE_WP_SHARED_MEMORY | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC)
/* Kernel faults are resolved in the kernel in this mode, so the unprivileged form serves. */
#define USER_MODE_ONLY 1

#define PAGE_IS_WPALLOWED (UINT64_C(1) << 0)
#define PAGE_IS_WRITTEN (UINT64_C(1) << 1)
#define PAGE_IS_FILE (UINT64_C(1) << 2)
#define PAGE_IS_PRESENT (UINT64_C(1) << 3)
#define PAGE_IS_SWAPPED (UINT64_C(1) << 4)
#define PAGE_IS_PFNZERO (UINT64_C(1) << 5)
#define SCAN_AND_PROTECT (UINT64_C(1) << 0)

struct page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct scan_argument {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t regions;
    uint64_t region_count;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_any_mask;
    uint64_t return_mask;
};

#define SCAN_IOCTL _IOWR('f', 16, struct scan_argument)

#define MAPS_BYTES (4u << 20)
#define STACK_BYTES (256u << 10)
#define REGION_CAPACITY 4096u
#define KNOWN_CAPACITY UMO_SPY_MAPPING_CAPACITY

/* A line of /proc/self/maps. */
struct mapping {
    uint64_t start;
    uint64_t end;
    uint64_t offset;
    uint64_t device;
    uint64_t inode;
    bool is_readable;
    bool is_writable;
    bool is_shared;
    const char *name; /* up to the end of the line */
    size_t name_length;
};

struct known {
    uint64_t start;
    uint64_t end;
    int32_t error; /* why it could not be armed, or 0 */
};

/* All memory that the helper thread writes, but for the shared file: it is left out of the census.
 */
struct arena {
    unsigned char stack[STACK_BYTES];
    int pagemap;
    int watch;
    size_t maps_length;
    size_t known_count;
    uint64_t faults_at_arm;
    char maps[MAPS_BYTES];
    char stat[1024];
    struct page_region regions[REGION_CAPACITY];
    struct known known[KNOWN_CAPACITY];
};

static struct umo_spy_file *file;
static struct arena *arena;

static void reason_set(enum umo_census_status status, const char *reason, int error)
{
    struct umo_spy_header *header = &file->header;
    size_t i = 0;
    for (; reason[i] != '\0' && i < UMO_SPY_NAME_BYTES - 1; i++) {
        ((volatile char *)header->census_reason)[i] = reason[i];
    }
    header->census_reason[i] = '\0';
    header->census_native_error = error;
    __atomic_store_n(&header->census_status, status, __ATOMIC_RELEASE);
}

/* ---- Reading the mappings ---- */

static bool maps_read(void)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    arena->maps_length = 0;
    if (fd < 0) {
        return false;
    }
    ssize_t got;
    do {
        got = read(fd, arena->maps + arena->maps_length, MAPS_BYTES - arena->maps_length);
        arena->maps_length += got > 0 ? (size_t)got : 0;
    } while (got > 0 && arena->maps_length < MAPS_BYTES);
    close(fd);
    /* A full buffer may have cut a line. */
    return got == 0 && arena->maps_length < MAPS_BYTES;
}

static const char *number_read(const char *at, const char *end, unsigned base, uint64_t *out)
{
    *out = 0;
    for (; at < end; at++) {
        unsigned digit;
        if (*at >= '0' && *at <= '9') {
            digit = (unsigned)(*at - '0');
        } else if (base == 16 && *at >= 'a' && *at <= 'f') {
            digit = (unsigned)(*at - 'a') + 10;
        } else {
            break;
        }
        *out = *out * base + digit;
    }
    return at;
}

/* Reads one line; returns where the next one starts, or NULL at the end. */
static const char *mapping_read(const char *at, struct mapping *out)
{
    const char *end = arena->maps + arena->maps_length;
    uint64_t major;
    uint64_t minor;
    if (at >= end) {
        return NULL;
    }
    at = number_read(at, end, 16, &out->start) + 1;
    at = number_read(at, end, 16, &out->end) + 1;
    if (at + 5 > end) {
        return NULL;
    }
    out->is_readable = at[0] == 'r';
    out->is_writable = at[1] == 'w';
    out->is_shared = at[3] == 's';
    at = number_read(at + 5, end, 16, &out->offset) + 1;
    at = number_read(at, end, 16, &major) + 1;
    at = number_read(at, end, 16, &minor) + 1;
    at = number_read(at, end, 10, &out->inode);
    out->device = major << 32 | minor;
    while (at < end && *at == ' ') {
        at++;
    }
    out->name = at;
    while (at < end && *at != '\n') {
        at++;
    }
    out->name_length = (size_t)(at - out->name);
    return at + 1;
}

static bool is_named(const struct mapping *mapping, const char *name)
{
    size_t i = 0;
    while (i < mapping->name_length && name[i] != '\0' && mapping->name[i] == name[i]) {
        i++;
    }
    return name[i] == '\0' && i == mapping->name_length;
}

/* Ours, the kernel's, or memory that cannot be written. */
static bool is_left_out(const struct mapping *mapping)
{
    uint64_t arena_start = (uint64_t)(uintptr_t)arena;
    uint64_t file_start = (uint64_t)(uintptr_t)file;
    if (mapping->start < arena_start + sizeof *arena && mapping->end > arena_start) {
        return true;
    }
    if (mapping->start < file_start + sizeof *file && mapping->end > file_start) {
        return true;
    }
    if (is_named(mapping, "[vsyscall]") || is_named(mapping, "[vvar]") ||
        is_named(mapping, "[vvar_vclock]") || is_named(mapping, "[vdso]")) {
        return true;
    }
    if (mapping->is_writable) {
        return false;
    }
    /* Private anonymous memory may be made writable later, as malloc's arenas are. */
    return mapping->is_shared || mapping->inode != 0;
}

/* ---- Commands ---- */

/*
 * Only pages that are there: one that appears later was written (or is the zero page, told apart),
 * and a large reservation would cost page tables for all of it. The list of pages is not looked at,
 * but without room for one the kernel protects the empty places between them as well, and a first
 * write there costs two page faults.
 */
static int anonymous_protect(const struct mapping *mapping)
{
    uint64_t at = mapping->start;
    while (at < mapping->end) {
        struct scan_argument protect = {
            .size = sizeof protect,
            .flags = SCAN_AND_PROTECT,
            .start = at,
            .end = mapping->end,
            .regions = (uint64_t)(uintptr_t)arena->regions,
            .region_count = REGION_CAPACITY,
            .category_any_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            .return_mask = PAGE_IS_PRESENT,
        };
        if (ioctl(arena->pagemap, SCAN_IOCTL, &protect) < 0) {
            return errno;
        }
        if (protect.walk_end <= at) {
            break;
        }
        at = protect.walk_end;
    }
    return 0;
}

static int mapping_arm(const struct mapping *mapping)
{
    uint64_t length = mapping->end - mapping->start;
    struct uffdio_register registration = {
        .range = {.start = mapping->start, .len = length},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(arena->watch, UFFDIO_REGISTER, &registration) != 0) {
        return errno;
    }
    if (mapping->inode == 0 && !mapping->is_shared) {
        return anonymous_protect(mapping);
    }
    struct uffdio_writeprotect protect = {
        .range = {.start = mapping->start, .len = length},
        .mode = UFFDIO_WRITEPROTECT_MODE_WP,
    };
    return ioctl(arena->watch, UFFDIO_WRITEPROTECT, &protect) != 0 ? errno : 0;
}

/* Page faults of this process, without those of the helper thread. */
static uint64_t faults_read(void)
{
    struct rusage own;
    uint64_t minor = 0;
    uint64_t major = 0;
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, arena->stat, sizeof arena->stat);
    if (fd >= 0) {
        close(fd);
    }
    /* "pid (name) state ppid ...": the name may hold anything, its last parenthesis ends it. The
     * tenth field is the count of minor faults, the twelfth of major ones. */
    const char *at = arena->stat;
    const char *end = arena->stat + (length > 0 ? length : 0);
    for (const char *look = at; look < end; look++) {
        at = *look == ')' ? look + 1 : at;
    }
    for (unsigned field = 2; at < end && field < 12; at++) {
        if (*at == ' ') {
            field++;
            if (field == 10) {
                number_read(at + 1, end, 10, &minor);
            } else if (field == 12) {
                number_read(at + 1, end, 10, &major);
            }
        }
    }
    if (syscall(SYS_getrusage, RUSAGE_THREAD, &own) != 0) {
        return minor + major;
    }
    return minor + major - (uint64_t)own.ru_minflt - (uint64_t)own.ru_majflt;
}

static void disarm(void)
{
    if (arena->watch >= 0) {
        close(arena->watch); /* lifts every protection */
        arena->watch = -1;
    }
    arena->known_count = 0;
}

static void arm(void)
{
    disarm();
    arena->watch = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    if (arena->watch < 0) {
        reason_set(UMO_CENSUS_UNAVAILABLE,
                   "userfaultfd is refused (a seccomp filter of a container does that, or a kernel "
                   "without it)",
                   errno);
        return;
    }
    struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
    if (ioctl(arena->watch, UFFDIO_API, &api) != 0 || (api.features & FEATURES) != FEATURES) {
        reason_set(UMO_CENSUS_UNAVAILABLE,
                   "userfaultfd lacks asynchronous write protection (Linux 6.7 and later have it)",
                   errno);
        disarm();
        return;
    }
    if (!maps_read()) {
        reason_set(UMO_CENSUS_FAILED, "cannot read /proc/self/maps as a whole", errno);
        disarm();
        return;
    }
    struct mapping mapping;
    const char *at = arena->maps;
    while ((at = mapping_read(at, &mapping)) != NULL) {
        if (is_left_out(&mapping)) {
            continue;
        }
        if (arena->known_count == KNOWN_CAPACITY) {
            reason_set(UMO_CENSUS_FAILED, "the process has too many mappings", 0);
            disarm();
            return;
        }
        struct known *known = &arena->known[arena->known_count++];
        known->start = mapping.start;
        known->end = mapping.end;
        known->error = mapping_arm(&mapping);
    }
    arena->faults_at_arm = faults_read();
    reason_set(UMO_CENSUS_OK, "", 0);
}

static const struct known *known_find(uint64_t start)
{
    /* /proc/self/maps is in the order of addresses. */
    size_t low = 0;
    size_t high = arena->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (arena->known[middle].end <= start) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < arena->known_count && arena->known[low].start <= start ? &arena->known[low] : NULL;
}

static void range_add(struct umo_census_mapping *record, uint64_t start, uint64_t end)
{
    struct umo_spy_header *header = &file->header;
    record->dirty_pages += (end - start) / header->page_bytes;
    if (record->range_count > 0) {
        struct umo_census_range *last =
            &file->ranges[record->first_range + record->range_count - 1];
        if (last->end == start) {
            last->end = end;
            return;
        }
    }
    if (header->census_ranges == UMO_SPY_RANGE_CAPACITY) {
        header->census_ranges_lost++;
        return;
    }
    file->ranges[header->census_ranges++] = (struct umo_census_range){start, end};
    record->range_count++;
}

/* Lists the pages of one mapping that are written as far as the kernel can tell. */
static int mapping_scan(const struct mapping *mapping, struct umo_census_mapping *record)
{
    const struct known *known = known_find(mapping->start);
    uint64_t at = mapping->start;
    if (known != NULL && known->error != 0) {
        record->flags |= UMO_CENSUS_UNKNOWN;
        record->native_error = known->error;
        return 0;
    }
    while (at < mapping->end) {
        struct scan_argument scan = {
            .size = sizeof scan,
            .start = at,
            .end = mapping->end,
            .regions = (uint64_t)(uintptr_t)arena->regions,
            .region_count = REGION_CAPACITY,
            .category_inverted = PAGE_IS_PFNZERO,
            .category_mask = PAGE_IS_PFNZERO | PAGE_IS_WRITTEN,
            .category_any_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            .return_mask = PAGE_IS_WPALLOWED | PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        };
        int count = ioctl(arena->pagemap, SCAN_IOCTL, &scan);
        if (count < 0) {
            return errno;
        }
        for (int i = 0; i < count; i++) {
            const struct page_region *region = &arena->regions[i];
            bool is_watched = (region->categories & PAGE_IS_WPALLOWED) != 0;
            record->flags |= is_watched ? UMO_CENSUS_WATCHED : UMO_CENSUS_NEW;
            /* A page of a private file mapping that still is the file's was read, not written. */
            if (!mapping->is_shared && mapping->inode != 0 &&
                (region->categories & PAGE_IS_FILE) != 0) {
                continue;
            }
            range_add(record, region->start, region->end);
        }
        if (scan.walk_end <= at) {
            break;
        }
        at = scan.walk_end;
    }
    return 0;
}

static void scan(void)
{
    struct umo_spy_header *header = &file->header;
    header->census_faults = faults_read() - arena->faults_at_arm;
    header->census_mappings = 0;
    header->census_ranges = 0;
    header->census_ranges_lost = 0;
    header->census_mappings_lost = 0;
    if (arena->watch < 0) {
        reason_set(UMO_CENSUS_FAILED, "scan without arm", 0);
        return;
    }
    if (!maps_read()) {
        reason_set(UMO_CENSUS_FAILED, "cannot read /proc/self/maps as a whole", errno);
        return;
    }
    struct mapping mapping;
    const char *at = arena->maps;
    while ((at = mapping_read(at, &mapping)) != NULL) {
        if (is_left_out(&mapping)) {
            continue;
        }
        if (header->census_mappings == UMO_SPY_MAPPING_CAPACITY) {
            header->census_mappings_lost++;
            continue;
        }
        struct umo_census_mapping *record = &file->mappings[header->census_mappings];
        record->start = mapping.start;
        record->end = mapping.end;
        record->file_offset = mapping.offset;
        record->inode = mapping.inode;
        record->device = mapping.device;
        record->flags = (mapping.is_shared ? UMO_CENSUS_SHARED : 0u) |
                        (mapping.inode != 0 ? UMO_CENSUS_FILE : 0u) |
                        (mapping.is_writable ? UMO_CENSUS_WRITABLE : 0u);
        record->native_error = 0;
        record->dirty_pages = 0;
        record->first_range = header->census_ranges;
        record->range_count = 0;
        size_t length = mapping.name_length < UMO_SPY_NAME_BYTES - 1 ? mapping.name_length
                                                                     : UMO_SPY_NAME_BYTES - 1;
        umo_spy_bytes_copy(record->name, mapping.name, length);
        record->name[length] = '\0';
        int error = mapping_scan(&mapping, record);
        if (error != 0) {
            record->flags |= UMO_CENSUS_UNKNOWN;
            record->native_error = error;
        }
        if (record->dirty_pages > 0 || (record->flags & UMO_CENSUS_UNKNOWN) != 0) {
            header->census_mappings++;
        }
    }
    reason_set(UMO_CENSUS_OK, "", 0);
}

/* ---- The helper thread ---- */

static void *census_run(void *argument)
{
    struct umo_spy_header *header = &file->header;
    uint32_t done = 0;
    (void)argument;
    arena->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (arena->pagemap < 0) {
        reason_set(UMO_CENSUS_UNAVAILABLE, "cannot open /proc/self/pagemap", errno);
    } else {
        struct scan_argument probe = {.size = sizeof probe, .return_mask = PAGE_IS_WRITTEN};
        if (ioctl(arena->pagemap, SCAN_IOCTL, &probe) < 0) {
            reason_set(UMO_CENSUS_UNAVAILABLE,
                       "the kernel lacks PAGEMAP_SCAN (Linux 6.7 and later have it)", errno);
        } else {
            reason_set(UMO_CENSUS_READY, "", 0);
        }
    }
    bool is_available = header->census_status == UMO_CENSUS_READY;
    for (;;) {
        uint32_t sequence = __atomic_load_n(&header->census_sequence, __ATOMIC_ACQUIRE);
        if (sequence == done) {
            syscall(SYS_futex, &header->census_sequence, FUTEX_WAIT, sequence, NULL, NULL, 0);
            continue;
        }
        done = sequence;
        if (is_available) {
            switch (header->census_command) {
            case UMO_CENSUS_ARM:
                arm();
                break;
            case UMO_CENSUS_SCAN:
                scan();
                break;
            case UMO_CENSUS_DISARM:
                disarm();
                reason_set(UMO_CENSUS_OK, "", 0);
                break;
            default:
                reason_set(UMO_CENSUS_FAILED, "unknown command", 0);
                break;
            }
        }
        __atomic_store_n(&header->census_done, done, __ATOMIC_RELEASE);
        syscall(SYS_futex, &header->census_done, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    return NULL;
}

void umo_census_start(struct umo_spy_file *shared_file)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    file = shared_file;
    reason_set(UMO_CENSUS_STARTING, "", 0);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    void *at = mmap(NULL, sizeof *arena, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        reason_set(UMO_CENSUS_UNAVAILABLE, "no memory for the helper thread", errno);
        return;
    }
    arena = at;
    arena->pagemap = -1;
    arena->watch = -1;
    /* The program's signals are for the program's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_attr_init(&attributes);
    if (error == 0) {
        error = pthread_attr_setstack(&attributes, arena->stack, sizeof arena->stack);
        if (error == 0) {
            error = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        }
        if (error == 0) {
            error = pthread_create(&thread, &attributes, census_run, NULL);
        }
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        reason_set(UMO_CENSUS_UNAVAILABLE, "the helper thread could not be started", error);
    }
}
