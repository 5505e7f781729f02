/*
 * The mappings that the program made or was given, as the kernel of a Mac keeps them: each shows a
 * part of a memory object. Neither Linux nor the emulator can tell this: their map knows no memory
 * objects, merges what lies side by side, and shows for executable pages what the host's are.
 *
 * Everything else that lives in the process (our own code, stacks, the heap) is known from
 * /proc/self/maps only, and is private memory.
 */
#ifndef MACHO_REGIONS_H
#define MACHO_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How a child inherits a mapping. */
enum {
    REGION_SHARE = 0,
    REGION_COPY = 1,
    REGION_NONE = 2
};

/* States of memory that may be purged. */
enum {
    PURGEABLE_NEVER = -1,
    PURGEABLE_NONVOLATILE = 0,
    PURGEABLE_VOLATILE = 1,
    PURGEABLE_EMPTY = 2
};

typedef struct memory_object {
    uint64_t number;
    unsigned users;         /* mappings */
    int fd;                 /* what a further mapping is made of; -1: there can be none */
    bool external;          /* a file's */
    bool named;             /* a file or a shared memory object, which has a reference of its own */
    bool truly_shared;      /* named, or mapped again by mach_vm_remap */
    bool part;              /* of an older object; on a Mac a shadow of it */
    uint64_t beneath;       /* where that part begins in fd */
    int purgeable;          /* a state above */
    uint64_t device, inode; /* of what is named */
    struct memory_object *next;
} memory_object;

typedef struct region {
    uintptr_t start, end;
    int protection, protection_max;
    int inherit;
    memory_object *object;
    uint64_t offset;
    bool copy_on_write;
    unsigned wired; /* locks of its pages that are not undone: on a Mac they nest */
    struct region *next;
} region;

/* The lock of everything here; held by the callers of all functions below. */
void regions_lock(void);
void regions_unlock(void);

/* A new object; takes fd. For a file or shared memory: the one that stands for it already, if one
 * does, and fd is closed. NULL without memory. */
memory_object *memory_object_take(int fd, bool external, bool named);

/* Frees what was taken and then not mapped. */
void memory_object_drop_unused(memory_object *object);

/* Enters a mapping, in place of whatever lay there. Counts as a user of the object. */
void region_enter(const region *fresh);
/* Takes out what lies in [start, end). */
void region_cut(uintptr_t start, uintptr_t end);
void region_protect(uintptr_t start, uintptr_t end, int protection);
/* One more lock of what lies in [start, end); one less, and freed is called for what has none left.
 * False if a part of it had none. */
void region_wire(uintptr_t start, uintptr_t end);
bool region_unwire(uintptr_t start, uintptr_t end, void (*freed)(uintptr_t start, uintptr_t end));
/* The first that ends after address; NULL if none. */
const region *region_at_or_after(uintptr_t address);

/*
 * Where a new mapping may go: the lowest place that was given back and is long enough, as on a Mac,
 * where addresses come again; the emulator would always go on upwards. Only a wish: others may have
 * taken the place since. 0 if there is none.
 */
uintptr_t place_take(size_t size);
void place_give_back(uintptr_t start, uintptr_t end);

/* mmap(), also of what a file does not have, see beyond.c. With the lock held. */
void *macho_map(void *start, size_t size, int protection, int flags, int fd, off_t offset);

#endif
