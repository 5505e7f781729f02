/* The regions of the process, from its own list: what the Mach calls about memory answer. */
#include "regions.h"

#include "runtime.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Our own descriptors lie above those that a program counts or expects. */
#define OWN_DESCRIPTORS 512

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static region *regions; /* in the order of addresses */
static memory_object *objects;

void regions_lock(void)
{
    (void)pthread_mutex_lock(&lock);
}

void regions_unlock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

static memory_object *object_named(uint64_t device, uint64_t inode)
{
    for (memory_object *object = objects; object != NULL; object = object->next) {
        if (object->named && object->device == device && object->inode == inode) {
            return object;
        }
    }
    return NULL;
}

/* Moves a descriptor up; itself when there is no room. */
static int descriptor_own(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, OWN_DESCRIPTORS);
    if (high < 0) {
        return fd;
    }
    (void)close(fd);
    return high;
}

memory_object *memory_object_take(int fd, bool external, bool named)
{
    static uint64_t numbers = 0x100;
    struct stat status = {0};
    if (named) {
        if (fstat(fd, &status) != 0) {
            (void)close(fd);
            return NULL;
        }
        memory_object *known = object_named(status.st_dev, status.st_ino);
        if (known != NULL) {
            bool allows_more = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
            (void)close(allows_more ? known->fd : fd);
            known->fd = allows_more ? descriptor_own(fd) : known->fd;
            return known;
        }
    }
    memory_object *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return NULL;
    }
    *fresh = (memory_object){
        .number = numbers++,
        .fd = fd >= 0 ? descriptor_own(fd) : -1,
        .external = external,
        .named = named,
        .truly_shared = named,
        .purgeable = PURGEABLE_NEVER,
        .device = status.st_dev,
        .inode = status.st_ino,
        .next = objects,
    };
    objects = fresh;
    return fresh;
}

void memory_object_drop_unused(memory_object *object)
{
    if (object->users > 0) {
        return;
    }
    memory_object **link = &objects;
    while (*link != object) {
        link = &(*link)->next;
    }
    *link = object->next;
    if (object->fd >= 0) {
        (void)close(object->fd);
    }
    free(object);
}

static void object_leave(memory_object *object)
{
    object->users--;
    memory_object_drop_unused(object);
}

static region *region_new(const region *from)
{
    region *fresh = malloc(sizeof *fresh);
    if (fresh == NULL) {
        macho_die("no memory for a mapping");
    }
    *fresh = *from;
    fresh->object->users++;
    return fresh;
}

/* What a child does not inherit: here, since the emulator knows no MADV_DONTFORK. */
static void child_cut(void)
{
    for (region **link = &regions; *link != NULL;) {
        region *r = *link;
        if (r->inherit == REGION_NONE) {
            (void)munmap((void *)r->start, r->end - r->start);
            *link = r->next;
            object_leave(r->object);
            free(r);
        } else {
            r->wired = 0;
            link = &r->next;
        }
    }
    regions_unlock();
}

__attribute__((constructor)) static void forks_watch(void)
{
    (void)pthread_atfork(regions_lock, regions_unlock, child_cut);
}

/* Makes a border of regions at the address. */
static void split(uintptr_t address)
{
    for (region *r = regions; r != NULL; r = r->next) {
        if (r->start < address && address < r->end) {
            region *upper = region_new(r);
            upper->offset += address - r->start;
            upper->start = address;
            r->end = address;
            r->next = upper;
            return;
        }
    }
}

/* Neighbours that differ in nothing are one. */
static void join(void)
{
    for (region *r = regions; r != NULL && r->next != NULL;) {
        region *upper = r->next;
        if (r->end == upper->start && r->object == upper->object &&
            r->offset + (r->end - r->start) == upper->offset &&
            r->protection == upper->protection && r->protection_max == upper->protection_max &&
            r->inherit == upper->inherit && r->copy_on_write == upper->copy_on_write &&
            r->wired == upper->wired) {
            r->end = upper->end;
            r->next = upper->next;
            object_leave(upper->object);
            free(upper);
        } else {
            r = upper;
        }
    }
}

void region_cut(uintptr_t start, uintptr_t end)
{
    split(start);
    split(end);
    for (region **link = &regions; *link != NULL;) {
        region *r = *link;
        if (r->start >= start && r->end <= end) {
            *link = r->next;
            object_leave(r->object);
            free(r);
        } else {
            link = &r->next;
        }
    }
}

void region_enter(const region *fresh)
{
    region *added = region_new(fresh); /* before the cut: it may be the object's last user */
    region_cut(fresh->start, fresh->end);
    region **link = &regions;
    while (*link != NULL && (*link)->start < fresh->start) {
        link = &(*link)->next;
    }
    added->next = *link;
    *link = added;
}

void region_protect(uintptr_t start, uintptr_t end, int protection)
{
    split(start);
    split(end);
    for (region *r = regions; r != NULL; r = r->next) {
        if (r->start >= start && r->end <= end) {
            r->protection = protection;
        }
    }
    join();
}

void region_wire(uintptr_t start, uintptr_t end)
{
    split(start);
    split(end);
    for (region *r = regions; r != NULL; r = r->next) {
        if (r->start >= start && r->end <= end) {
            r->wired++;
        }
    }
    join();
}

bool region_unwire(uintptr_t start, uintptr_t end, void (*freed)(uintptr_t start, uintptr_t end))
{
    bool all = true;
    split(start);
    split(end);
    for (region *r = regions; r != NULL; r = r->next) {
        if (r->start < start || r->end > end) {
            continue;
        }
        if (r->wired == 0) {
            all = false;
        } else if (--r->wired == 0) {
            freed(r->start, r->end);
        }
    }
    join();
    return all;
}

const region *region_at_or_after(uintptr_t address)
{
    for (const region *r = regions; r != NULL; r = r->next) {
        if (r->end > address) {
            return r;
        }
    }
    return NULL;
}

typedef struct place {
    uintptr_t start, end;
} place;

/* In the order of addresses. What does not fit is forgotten: it is only a wish. */
static place places[256];
static size_t place_count;

static void place_remove(size_t index)
{
    place_count--;
    memmove(&places[index], &places[index + 1], (place_count - index) * sizeof places[0]);
}

uintptr_t place_take(size_t size)
{
    for (size_t i = 0; i < place_count; i++) {
        if (places[i].end - places[i].start >= size) {
            uintptr_t start = places[i].start;
            places[i].start += size;
            if (places[i].start == places[i].end) {
                place_remove(i);
            }
            return start;
        }
    }
    return 0;
}

void place_give_back(uintptr_t start, uintptr_t end)
{
    /* What it touches becomes part of it. */
    for (size_t i = 0; i < place_count;) {
        if (places[i].start <= end && start <= places[i].end) {
            start = places[i].start < start ? places[i].start : start;
            end = places[i].end > end ? places[i].end : end;
            place_remove(i);
        } else {
            i++;
        }
    }
    size_t at = 0;
    while (at < place_count && places[at].start < start) {
        at++;
    }
    if (place_count < sizeof places / sizeof places[0]) {
        memmove(&places[at + 1], &places[at], (place_count - at) * sizeof places[0]);
        places[at] = (place){start, end};
        place_count++;
    }
}
