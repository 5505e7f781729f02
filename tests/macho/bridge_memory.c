/*
 * Mappings. Addresses, lengths and offsets that an arm64 Mac would refuse, because they are no
 * whole pages of 16 KiB, are refused here. Shared memory without a file gets one of ours, so that
 * mach_vm_remap can map it again: Linux's own way, mremap of an old size of 0, is refused by the
 * emulator.
 */
#include "bridges.h"

#include "regions.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DARWIN_SHARED 0x1
#define DARWIN_PRIVATE 0x2
#define DARWIN_FIXED 0x10
#define DARWIN_ANONYMOUS 0x1000

enum {
    KERN_SUCCESS = 0,
    KERN_INVALID_ADDRESS = 1,
    KERN_PROTECTION_FAILURE = 2,
    KERN_NO_SPACE = 3,
    KERN_INVALID_ARGUMENT = 4,
    KERN_RESOURCE_SHORTAGE = 6
};

uint32_t macho_task_self = 0x203;

static bool whole_pages(uint64_t value)
{
    return value % MACHO_PAGE_BYTES == 0;
}

/* False, with EINVAL, for nothing and for more than there is. */
static bool round_up(size_t size, size_t *out)
{
    if (size == 0 || size > SIZE_MAX - MACHO_PAGE_BYTES) {
        errno = EINVAL;
        return false;
    }
    *out = (size + MACHO_PAGE_BYTES - 1) / MACHO_PAGE_BYTES * MACHO_PAGE_BYTES;
    return true;
}

static const flag_row map_flags[] = {
    {DARWIN_SHARED, MAP_SHARED}, {DARWIN_PRIVATE, MAP_PRIVATE},     {DARWIN_FIXED, MAP_FIXED},
    {0x40, MAP_NORESERVE},       {DARWIN_ANONYMOUS, MAP_ANONYMOUS},
};

/* What a mapping shows: anonymous memory, a file, or shared memory; NULL with errno. */
static memory_object *object_for(int flags, int fd, size_t size)
{
    bool shared = (flags & DARWIN_SHARED) != 0;
    if ((flags & DARWIN_ANONYMOUS) == 0) {
        int again = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        return again < 0 ? NULL : memory_object_take(again, !macho_is_shared_memory(fd), true);
    }
    if (!shared) {
        memory_object *object = memory_object_take(-1, false, false);
        if (object != NULL && fd != -1) {
            /* The descriptor carries flags: VM_FLAGS_PURGABLE, and a tag in the top byte. */
            if ((fd & 0x00ffffff & ~0x2) != 0) {
                macho_die("mmap: no bridge for the flags 0x%x of anonymous memory", (unsigned)fd);
            }
            object->purgeable = (fd & 0x2) != 0 ? PURGEABLE_NONVOLATILE : PURGEABLE_NEVER;
        }
        return object;
    }
    int own = memfd_create("macho_run", MFD_CLOEXEC);
    if (own >= 0 && ftruncate(own, (off_t)size) != 0) {
        (void)close(own);
        own = -1;
    }
    if (own < 0) {
        errno = ENOMEM;
        return NULL;
    }
    return memory_object_take(own, false, false);
}

static int protection_max(int flags, int fd)
{
    bool file = (flags & DARWIN_ANONYMOUS) == 0;
    bool writable = !file || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    return (flags & DARWIN_PRIVATE) != 0 || writable ? 7 : 7 & ~MACHO_WRITE;
}

/*
 * Whether there are addresses for so much more, with the lock held. A Mac has 47 bits of them; here
 * are fewer, because the emulator keeps books of every page that is mapped, touched or not.
 */
static bool addresses_left(size_t size)
{
    const size_t most = (size_t)16 << 30;
    size_t used = 0;
    for (const region *r = region_at_or_after(0); r != NULL; r = region_at_or_after(r->end)) {
        used += r->end - r->start;
    }
    return size <= most && used <= most - size;
}

/* With the lock held: nothing else that is bridged maps or unmaps meanwhile. */
static void *map(void *start, size_t size, int protection, int flags, int fd, off_t offset)
{
    const size_t large = (size_t)1 << 30;
    int ours = FLAGS("mmap", flags, map_flags);
    bool file = (flags & DARWIN_ANONYMOUS) == 0;
    if (size >= large && (flags & DARWIN_FIXED) == 0 && !addresses_left(size)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    bool shared = (flags & DARWIN_SHARED) != 0;
    memory_object *object = object_for(flags, fd, size);
    if (object == NULL) {
        return MAP_FAILED;
    }
    if (shared && !file) {
        ours &= ~MAP_ANONYMOUS;
    }
    if (start == NULL && (flags & DARWIN_FIXED) == 0) {
        start = (void *)place_take(size);
    }
    void *mapped = macho_map(start, size, protection, ours, file ? fd : (shared ? object->fd : -1),
                             file ? offset : 0);
    region fresh = {
        .protection = protection,
        .protection_max = protection_max(flags, fd),
        .inherit = shared ? REGION_SHARE : REGION_COPY,
        .object = object,
        .offset = file ? (uint64_t)offset : 0,
        .copy_on_write = file && !shared,
    };
    if (mapped == MAP_FAILED) {
        memory_object_drop_unused(object);
        return MAP_FAILED;
    }
    if (!whole_pages((uintptr_t)mapped)) {
        macho_die("the system maps at %p, which is no page of 16 KiB", mapped);
    }
    fresh.start = (uintptr_t)mapped;
    fresh.end = fresh.start + size;
    region_enter(&fresh);
    return mapped;
}

static void *bridge_mmap(void *start, size_t size, int protection, int flags, int fd, off_t offset)
{
    size_t whole;
    bool shared = (flags & DARWIN_SHARED) != 0;
    bool fixed = (flags & DARWIN_FIXED) != 0;
    bool file = (flags & DARWIN_ANONYMOUS) == 0;
    if (!round_up(size, &whole) || shared == ((flags & DARWIN_PRIVATE) != 0) ||
        (fixed && !whole_pages((uintptr_t)start)) || !whole_pages((uint64_t)offset)) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    if ((protection & ~7) != 0 || (protection & 6) == 6) {
        macho_die("mmap: no bridge for the protection 0x%x", (unsigned)protection);
    }
    struct stat status;
    if (file && macho_is_shared_memory(fd) &&
        (!shared || fstat(fd, &status) != 0 || offset > status.st_size ||
         size > (size_t)(status.st_size - offset))) {
        errno = EINVAL; /* shared memory is not mapped private, and ends with its size */
        return MAP_FAILED;
    }
    regions_lock();
    void *mapped = map(start, whole, protection, flags, fd, offset);
    int code = errno;
    regions_unlock();
    errno = code;
    return mapped;
}

static int bridge_munmap(void *start, size_t size)
{
    size_t whole;
    if (!round_up(size, &whole) || !whole_pages((uintptr_t)start)) {
        errno = EINVAL;
        return -1;
    }
    regions_lock();
    int rc = munmap(start, whole);
    if (rc == 0) {
        region_cut((uintptr_t)start, (uintptr_t)start + whole);
        place_give_back((uintptr_t)start, (uintptr_t)start + whole);
    }
    regions_unlock();
    return rc;
}

/* With the lock held. */
static bool all_may_have(uintptr_t start, uintptr_t end, int protection)
{
    for (const region *r = region_at_or_after(start); r != NULL && r->start < end;
         r = region_at_or_after(r->end)) {
        if ((protection & ~r->protection_max) != 0) {
            return false;
        }
    }
    return true;
}

static int bridge_mprotect(void *start, size_t size, int protection)
{
    size_t whole;
    if (!whole_pages((uintptr_t)start)) {
        errno = EINVAL;
        return -1;
    }
    if (size == 0) {
        return 0;
    }
    if ((protection & ~7) != 0 || (protection & 6) == 6) {
        macho_die("mprotect: no bridge for the protection 0x%x", (unsigned)protection);
    }
    if (!round_up(size, &whole)) {
        return -1;
    }
    uintptr_t from = (uintptr_t)start;
    regions_lock();
    int rc = -1;
    errno = EACCES;
    if (all_may_have(from, from + whole, protection)) {
        rc = mprotect(start, whole, protection);
    }
    if (rc == 0) {
        region_protect(from, from + whole, protection);
    }
    regions_unlock();
    return rc;
}

static int bridge_madvise(void *start, size_t size, int advice)
{
    if (!whole_pages((uintptr_t)start)) {
        macho_die("madvise: no bridge for a part of a page");
    }
    switch (advice) {
    case 0:
    case 1:
    case 2:
    case 3:
        return madvise(start, size, advice);
    case 4: /* Darwin's DONTNEED drops nothing that a program can see */
        return 0;
    case 5:
        return madvise(start, size, MADV_FREE);
    default:
        macho_die("madvise: no bridge for %d", advice);
    }
}

static int bridge_msync(void *start, size_t size, int flags)
{
    static const flag_row rows[] = {{0x1, MS_ASYNC}, {0x2, MS_INVALIDATE}, {0x10, MS_SYNC}};
    if (!whole_pages((uintptr_t)start)) {
        errno = EINVAL;
        return -1;
    }
    return msync(start, size, FLAGS("msync", flags, rows));
}

/* A byte for each of its pages; one of ours that is in memory is enough. */
static int bridge_mincore(const void *start, size_t size, char *pages)
{
    unsigned char ours[MACHO_PAGE_BYTES / 4096];
    if (!whole_pages((uintptr_t)start)) {
        errno = EINVAL;
        return -1;
    }
    for (size_t at = 0; at < size; at += MACHO_PAGE_BYTES) {
        if (mincore((char *)(uintptr_t)start + at, MACHO_PAGE_BYTES, ours) != 0) {
            return -1;
        }
        char in = 0;
        for (size_t i = 0; i < sizeof ours; i++) {
            in |= (char)(ours[i] & 1);
        }
        *pages++ = in;
    }
    return 0;
}

static void *bridge_valloc(size_t size)
{
    void *out = NULL;
    return posix_memalign(&out, MACHO_PAGE_BYTES, size) == 0 ? out : NULL;
}

/* Whether private memory has a page yet. */
static bool touched(const region *r)
{
    enum {
        PAGE = 4096,
        STEP = 1024 * PAGE
    };
    static unsigned char pages[STEP / PAGE + 1];
    for (uintptr_t at = r->start; at < r->end; at += STEP) {
        size_t part = r->end - at < STEP ? r->end - at : STEP;
        memset(pages, 0, sizeof pages);
        if (mincore((void *)at, part, pages) != 0) {
            continue; /* not readable: nobody has touched it */
        }
        for (size_t i = 0; i < part / PAGE; i++) {
            if ((pages[i] & 1) != 0) {
                return true;
            }
        }
    }
    return false;
}

/* Whether the memory object exists: it comes with the first page. */
static bool object_exists(const region *r)
{
    struct stat status;
    if (r->object->external || r->object->named || r->object->truly_shared) {
        return true;
    }
    if (r->object->fd >= 0) {
        return fstat(r->object->fd, &status) == 0 && status.st_blocks > 0;
    }
    return touched(r);
}

enum {
    SHARE_COW = 1,
    SHARE_PRIVATE = 2,
    SHARE_EMPTY = 3,
    SHARE_TRUE = 5,
    SHARE_PRIVATE_ALIASED = 6
};

static uint8_t share_mode(const region *r, bool exists)
{
    if (!exists) {
        return SHARE_EMPTY;
    }
    if (r->copy_on_write || r->object->part) {
        return SHARE_COW;
    }
    if (r->object->users + (r->object->named ? 1 : 0) == 1) {
        return SHARE_PRIVATE;
    }
    return r->object->truly_shared ? SHARE_TRUE : SHARE_PRIVATE_ALIASED;
}

/* struct vm_region_submap_info_64, packed to 4 bytes. */
typedef struct submap_info {
    int32_t protection, protection_max;
    uint32_t inherit;
    uint32_t offset[2];
    uint32_t tag, pages[4], references;
    uint16_t shadow_depth;
    uint8_t external_pager, share_mode;
    uint32_t is_submap;
    int32_t behavior;
    uint32_t object;
    uint16_t wired, flags;
    uint32_t reusable;
    uint32_t object_full[2];
    uint32_t pages_wired;
    uint16_t wire_tag, padding;
} submap_info;
_Static_assert(sizeof(submap_info) == 84, "Darwin's struct vm_region_submap_info_64");

/* struct vm_region_submap_short_info_64, likewise: without what is counted page by page. */
typedef struct submap_short_info {
    int32_t protection, protection_max;
    uint32_t inherit;
    uint32_t offset[2];
    uint32_t tag, references;
    uint16_t shadow_depth;
    uint8_t external_pager, share_mode;
    uint32_t is_submap;
    int32_t behavior;
    uint32_t object;
    uint16_t wired, flags;
} submap_short_info;
_Static_assert(sizeof(submap_short_info) == 48, "Darwin's struct vm_region_submap_short_info_64");

static submap_short_info shortened(const submap_info *info)
{
    return (submap_short_info){
        .protection = info->protection,
        .protection_max = info->protection_max,
        .inherit = info->inherit,
        .offset = {info->offset[0], info->offset[1]},
        .tag = info->tag,
        .references = info->references,
        .shadow_depth = info->shadow_depth,
        .external_pager = info->external_pager,
        .share_mode = info->share_mode,
        .is_submap = info->is_submap,
        .behavior = info->behavior,
        .object = info->object,
        .wired = info->wired,
        .flags = info->flags,
    };
}

static void region_describe(const region *r, submap_info *out)
{
    bool exists = object_exists(r);
    uint64_t number = exists ? r->object->number : 0;
    *out = (submap_info){
        .protection = r->protection,
        .protection_max = r->protection_max,
        .inherit = (uint32_t)r->inherit,
        .references = exists ? r->object->users + (r->object->named ? 1u : 0u) : 0,
        .shadow_depth = r->object->part ? 1 : 0,
        .external_pager = r->object->external ? 1 : 0,
        .share_mode = share_mode(r, exists),
        .object = (uint32_t)number,
        .wired = (uint16_t)r->wired,
    };
    memcpy(out->offset, &r->offset, sizeof r->offset);
    memcpy(out->object_full, &number, sizeof number);
}

/* The first mapping of the system's map that ends after an address. */
static bool system_mapping(uintptr_t address, uintptr_t *out_start, uintptr_t *out_end,
                           int *out_protection)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        macho_die("/proc/self/maps cannot be read");
    }
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, maps) != NULL) {
        char mode[5];
        unsigned long start;
        unsigned long end;
        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) == 3 && end > address) {
            found = true;
            *out_start = start;
            *out_end = end;
            *out_protection = (mode[0] == 'r' ? MACHO_READ : 0) |
                              (mode[1] == 'w' ? MACHO_WRITE : 0) |
                              (mode[2] == 'x' ? MACHO_EXEC : 0);
        }
    }
    (void)fclose(maps);
    return found;
}

/* The first mapping that ends after an address, with the lock held: one of ours, or what the system
 * shows between them. */
static bool mapping_after(uintptr_t address, uintptr_t *out_start, uintptr_t *out_end,
                          submap_info *out)
{
    const region *ours = region_at_or_after(address);
    uintptr_t start;
    uintptr_t end;
    int protection;
    bool found = (ours == NULL || ours->start > address) &&
                 system_mapping(address, &start, &end, &protection);
    if (!found || (ours != NULL && ours->start <= (start > address ? start : address))) {
        if (ours == NULL) {
            return false;
        }
        *out_start = ours->start;
        *out_end = ours->end;
        region_describe(ours, out);
        return true;
    }
    /* The system's map may have joined it with ours. */
    for (const region *r = region_at_or_after(start); r != NULL && r->start < end;
         r = region_at_or_after(r->end)) {
        if (r->end <= address) {
            start = r->end;
        } else {
            end = r->start;
            break;
        }
    }
    *out_start = start;
    *out_end = end;
    *out = (submap_info){.protection = protection,
                         .protection_max = 7,
                         .inherit = REGION_COPY,
                         .references = 1,
                         .share_mode = SHARE_PRIVATE,
                         .object = (uint32_t)(start / MACHO_PAGE_BYTES)};
    uint64_t number = start;
    memcpy(out->object_full, &number, sizeof number);
    return true;
}

static void task_check(const char *what, uint32_t task)
{
    if (task != macho_task_self) {
        macho_die("%s: no bridge for another task", what);
    }
}

/* Nothing here is nested: depth, how far it may look into nested maps, becomes 0. */
static int bridge_mach_vm_region_recurse(uint32_t task, uint64_t *address, uint64_t *size,
                                         uint32_t *depth, void *out, uint32_t *count)
{
    submap_info info;
    uintptr_t start;
    uintptr_t end;
    task_check("mach_vm_region_recurse", task);
    /* The short structure has 12 words; the versions of the long one end after the others. */
    if (*count != 12 && *count != 16 && *count != 17 && *count != 19 && *count != 21) {
        macho_die("mach_vm_region_recurse: no bridge for a structure of %u words",
                  (unsigned)*count);
    }
    regions_lock();
    bool found = mapping_after((uintptr_t)*address, &start, &end, &info);
    regions_unlock();
    if (!found) {
        return KERN_INVALID_ADDRESS;
    }
    *address = start;
    *size = end - start;
    *depth = 0;
    if (*count == 12) {
        submap_short_info brief = shortened(&info);
        memcpy(out, &brief, sizeof brief);
    } else {
        memcpy(out, &info, *count * sizeof(uint32_t));
    }
    return KERN_SUCCESS;
}

/* What keeps [start, end) from being locked, with the lock held: 0, or an error. */
static int lock_check(uintptr_t start, uintptr_t end)
{
    for (uintptr_t from, to; start < end; start = to) {
        submap_info info;
        if (!mapping_after(start, &from, &to, &info) || from > start) {
            return ENOMEM;
        }
        if (info.protection == 0) {
            return EACCES;
        }
    }
    return 0;
}

/* Locks nest there, and a failure leaves nothing locked. A limit that is reached has an error of
 * its own. What is not ours (the heap, stacks) is locked as here, once. */
static int bridge_mlock(const void *start, size_t size)
{
    uintptr_t from = (uintptr_t)start / MACHO_PAGE_BYTES * MACHO_PAGE_BYTES;
    size_t whole;
    if (size == 0) {
        return 0;
    }
    if (!round_up(size + ((uintptr_t)start - from), &whole)) {
        return -1;
    }
    regions_lock();
    int code = lock_check(from, from + whole);
    if (code == 0 && mlock((void *)from, whole) != 0) {
        code = errno == ENOMEM || errno == EPERM ? EAGAIN : errno;
    }
    if (code == 0) {
        region_wire(from, from + whole);
    }
    regions_unlock();
    errno = code;
    return code == 0 ? 0 : -1;
}

static void unlock_part(uintptr_t start, uintptr_t end)
{
    (void)munlock((void *)start, end - start);
}

static int bridge_munlock(const void *start, size_t size)
{
    uintptr_t from = (uintptr_t)start / MACHO_PAGE_BYTES * MACHO_PAGE_BYTES;
    size_t whole;
    if (size == 0) {
        return 0;
    }
    if (!round_up(size + ((uintptr_t)start - from), &whole)) {
        return -1;
    }
    regions_lock();
    bool ours = region_at_or_after(from) != NULL && region_at_or_after(from)->start < from + whole;
    int code = lock_check(from, from + whole) == ENOMEM ? ENOMEM : 0;
    if (code == 0 && !ours) {
        unlock_part(from, from + whole);
    } else if (code == 0 && !region_unwire(from, from + whole, unlock_part)) {
        code = ENOMEM;
    }
    regions_unlock();
    errno = code;
    return code == 0 ? 0 : -1;
}

/* Whether [start, end) is mapped without a gap, all of it shared memory. */
static int remap_check(uintptr_t start, uintptr_t end)
{
    while (start < end) {
        const region *r = region_at_or_after(start);
        if (r == NULL || r->start > start) {
            return KERN_INVALID_ADDRESS;
        }
        if (r->copy_on_write || r->object->fd < 0) {
            macho_die("mach_vm_remap: no bridge for private memory, which would become shared");
        }
        start = r->end;
    }
    return KERN_SUCCESS;
}

/* Before it is first mapped again, what shows only a part of an anonymous object gets one of its
 * own, which begins where the mapping does. */
static void part_off(uintptr_t start)
{
    const region *r = region_at_or_after(start);
    const memory_object *whole = r->object;
    struct stat status;
    if (whole->external || whole->truly_shared || fstat(whole->fd, &status) != 0 ||
        (size_t)status.st_size <= r->end - r->start) {
        return;
    }
    int fd = fcntl(whole->fd, F_DUPFD_CLOEXEC, 0);
    memory_object *part = fd >= 0 ? memory_object_take(fd, false, false) : NULL;
    if (part == NULL) {
        macho_die("mach_vm_remap: no memory for an object");
    }
    part->part = true;
    part->beneath = whole->beneath + r->offset;
    region fresh = *r;
    fresh.object = part;
    fresh.offset = 0;
    region_enter(&fresh);
}

/* Maps the object of what lies at start once more, at place; as much of it as is asked. */
static size_t remap_one(uintptr_t start, uintptr_t end, uint8_t *place, int inherit)
{
    part_off(start);
    region again = *region_at_or_after(start);
    size_t size = (again.end < end ? again.end : end) - start;
    again.offset += start - again.start;
    again.start = (uintptr_t)place;
    again.end = again.start + size;
    again.inherit = inherit;
    again.wired = 0;
    if (macho_map(place, size, again.protection, MAP_SHARED | MAP_FIXED, again.object->fd,
                  (off_t)(again.object->beneath + again.offset)) == MAP_FAILED) {
        macho_die("mach_vm_remap: %s", strerror(errno));
    }
    again.object->truly_shared = true;
    region_enter(&again);
    return size;
}

static int remap(uintptr_t start, size_t size, int inherit, uint64_t *out_address,
                 int *out_protection, int *out_protection_max)
{
    int code = remap_check(start, start + size);
    if (code != KERN_SUCCESS) {
        return code;
    }
    uint8_t *place =
        mmap((void *)place_take(size), size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) {
        return KERN_NO_SPACE;
    }
    *out_protection = 7;
    *out_protection_max = 7;
    for (size_t done = 0; done < size;) {
        const region *r = region_at_or_after(start + done);
        *out_protection &= r->protection;
        *out_protection_max &= r->protection_max;
        done += remap_one(start + done, start + size, place + done, inherit);
    }
    *out_address = (uintptr_t)place;
    return KERN_SUCCESS;
}

static int bridge_mach_vm_remap(uint32_t target, uint64_t *address, uint64_t size, uint64_t mask,
                                int flags, uint32_t source, uint64_t source_address, uint32_t copy,
                                int *protection, int *protection_max, uint32_t inherit)
{
    task_check("mach_vm_remap", target);
    task_check("mach_vm_remap", source);
    if (flags != 1 || mask != 0 || copy != 0 || inherit > REGION_NONE) {
        macho_die("mach_vm_remap: no bridge for flags 0x%x, mask 0x%lx, copy %u, inheritance %u",
                  (unsigned)flags, (unsigned long)mask, (unsigned)copy, (unsigned)inherit);
    }
    if (!whole_pages(source_address) || !whole_pages(size)) {
        macho_die("mach_vm_remap: no bridge for parts of pages");
    }
    if (size == 0 || source_address > UINT64_MAX - size) {
        return KERN_INVALID_ARGUMENT;
    }
    regions_lock();
    int code =
        remap((uintptr_t)source_address, size, (int)inherit, address, protection, protection_max);
    regions_unlock();
    return code;
}

/* The kernel copies, by way of a pipe, and says where it cannot. */
static int bridge_mach_vm_read_overwrite(uint32_t target, uint64_t from, uint64_t size, uint64_t to,
                                         uint64_t *out_size)
{
    task_check("mach_vm_read_overwrite", target);
    int ends[2];
    if (pipe(ends) != 0) {
        return KERN_RESOURCE_SHORTAGE;
    }
    uint64_t done = 0;
    while (done < size) {
        size_t part = size - done < 4096 ? (size_t)(size - done) : 4096;
        ssize_t in = write(ends[1], (const char *)(uintptr_t)from + done, part);
        ssize_t out = in > 0 ? read(ends[0], (char *)(uintptr_t)to + done, (size_t)in) : -1;
        if (out <= 0) {
            break;
        }
        done += (uint64_t)out;
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
    if (done < size) {
        return KERN_INVALID_ADDRESS;
    }
    *out_size = done;
    return KERN_SUCCESS;
}

static void object_empty(const region *r)
{
    if (madvise((void *)r->start, r->end - r->start, MADV_DONTNEED) != 0) {
        macho_die("memory cannot be purged: %s", strerror(errno));
    }
    r->object->purgeable = PURGEABLE_EMPTY;
}

/*
 * SET_STATE (0) and GET_STATE (1). There is no pressure here that would purge: UMO_MACHO_PURGE=1
 * empties at once what becomes volatile.
 */
static int bridge_mach_vm_purgable_control(uint32_t task, uint64_t address, int control, int *state)
{
    task_check("mach_vm_purgable_control", task);
    if (control != 0 && control != 1) {
        macho_die("mach_vm_purgable_control: no bridge for control %d", control);
    }
    int code = KERN_SUCCESS;
    regions_lock();
    const region *r = region_at_or_after((uintptr_t)address);
    if (r == NULL || r->start > address) {
        code = KERN_INVALID_ADDRESS;
    } else if ((r->protection & MACHO_WRITE) == 0) {
        code = KERN_PROTECTION_FAILURE;
    } else if (r->object->purgeable == PURGEABLE_NEVER || r->object->users != 1) {
        code = KERN_INVALID_ARGUMENT;
    } else {
        int before = r->object->purgeable;
        if (control == 0) {
            switch (*state) {
            case PURGEABLE_NONVOLATILE:
                r->object->purgeable = PURGEABLE_NONVOLATILE;
                break;
            case PURGEABLE_VOLATILE:
                /* What is empty stays so. */
                r->object->purgeable =
                    before == PURGEABLE_EMPTY ? PURGEABLE_EMPTY : PURGEABLE_VOLATILE;
                if (getenv("UMO_MACHO_PURGE") != NULL) {
                    object_empty(r);
                }
                break;
            case PURGEABLE_EMPTY:
                object_empty(r);
                break;
            default:
                macho_die("mach_vm_purgable_control: no bridge for state 0x%x", (unsigned)*state);
            }
        }
        *state = before;
    }
    regions_unlock();
    return code;
}

const macho_bridge macho_bridges_memory[] = {
    BRIDGE(mmap),
    BRIDGE(munmap),
    BRIDGE(mprotect),
    BRIDGE(madvise),
    BRIDGE(msync),
    BRIDGE(mincore),
    BRIDGE(mlock),
    BRIDGE(munlock),
    BRIDGE(valloc),
    BRIDGE(mach_vm_region_recurse),
    BRIDGE(mach_vm_remap),
    BRIDGE(mach_vm_read_overwrite),
    BRIDGE(mach_vm_purgable_control),
    BRIDGES_END,
};
