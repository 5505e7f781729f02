/*
 * The file that the preloaded witness shares with its reader.
 *
 * It is one fixed layout in the machine's byte order, so that a reader in any language needs no
 * code of ours: header, object table, mappings, ranges, in that order, at the offsets that the
 * header states. Every number that the witness changes while it runs is a naturally aligned word
 * written atomically; a reader takes two snapshots and subtracts. Any change to this file raises
 * UMO_SPY_VERSION.
 */
#ifndef UMO_SPY_LAYOUT_H
#define UMO_SPY_LAYOUT_H

#include <stdint.h>

#define UMO_SPY_MAGIC "UMOSPY1"
#define UMO_SPY_VERSION 1u

/* What a counted call does; the names are in the header's kind_names, in this order. */
#define UMO_SPY_KINDS(X)                                                                           \
    X(MEMCPY, "memcpy")                                                                            \
    X(MEMMOVE, "memmove")                                                                          \
    X(MEMPCPY, "mempcpy")                                                                          \
    X(MEMCPY_CHK, "__memcpy_chk")                                                                  \
    X(MEMMOVE_CHK, "__memmove_chk")                                                                \
    X(MEMPCPY_CHK, "__mempcpy_chk")                                                                \
    X(BCOPY, "bcopy")                                                                              \
    X(MEMSET, "memset")                                                                            \
    X(MEMSET_CHK, "__memset_chk")                                                                  \
    X(DEVICE_WRITE, "device_write")                                                                \
    X(DEVICE_READ, "device_read")                                                                  \
    X(DEVICE_COPY, "device_copy")                                                                  \
    X(DEVICE_ANY, "device_any")                                                                    \
    X(DEVICE_FILL, "device_fill")                                                                  \
    X(DEVICE_MAP, "device_map")                                                                    \
    X(DEVICE_UNMAP, "device_unmap")

enum umo_spy_kind {
#define UMO_SPY_KIND_ENUM(id, name) UMO_SPY_##id,
    UMO_SPY_KINDS(UMO_SPY_KIND_ENUM)
#undef UMO_SPY_KIND_ENUM
    UMO_SPY_KIND_COUNT
};

/* Class 0 holds sizes below 64 bytes; class i holds [64 * 4^(i-1), 64 * 4^i); the last has no upper
 * end. 4 KiB is a lower end (class 4), so headers and tensors part exactly there. */
#define UMO_SPY_CLASS_COUNT 13u
#define UMO_SPY_OBJECT_CAPACITY 512u
#define UMO_SPY_NAME_BYTES 256u
#define UMO_SPY_MAPPING_CAPACITY 8192u
#define UMO_SPY_RANGE_CAPACITY 65536u

enum umo_spy_object_state {
    UMO_SPY_OBJECT_FREE = 0,
    UMO_SPY_OBJECT_CLAIMED = 1,
    UMO_SPY_OBJECT_READY = 2
};

struct umo_spy_cell {
    uint64_t calls;
    uint64_t bytes;
};

/*
 * Calls made by one shared object. `via` is the object on whose behalf a run-time library
 * (libstdc++, libgcc) called; it is empty where the caller called by itself. Two entries may carry
 * the same names: a reader adds them up.
 */
struct umo_spy_object {
    uint32_t state;
    uint32_t is_runtime;
    uint64_t key_map;
    uint64_t key_start;
    uint64_t via_map;
    uint64_t via_start;
    char name[UMO_SPY_NAME_BYTES];
    char via[UMO_SPY_NAME_BYTES];
    struct umo_spy_cell cells[UMO_SPY_KIND_COUNT][UMO_SPY_CLASS_COUNT];
};

enum umo_census_command {
    UMO_CENSUS_NONE = 0,
    UMO_CENSUS_ARM = 1,
    UMO_CENSUS_SCAN = 2,
    UMO_CENSUS_DISARM = 3
};

enum umo_census_status {
    UMO_CENSUS_OFF = 0,         /* the helper thread was not asked for */
    UMO_CENSUS_STARTING = 1,    /* it was, and is not up yet */
    UMO_CENSUS_READY = 2,       /* waits for a command */
    UMO_CENSUS_OK = 3,          /* the last command succeeded */
    UMO_CENSUS_FAILED = 4,      /* the last command failed: native_error and reason say why */
    UMO_CENSUS_UNAVAILABLE = 5, /* this kernel cannot do it: reason says why */
};

enum umo_census_mapping_flag {
    UMO_CENSUS_SHARED = 1u << 0,  /* a shared mapping; else private */
    UMO_CENSUS_FILE = 1u << 1,    /* has an inode; else anonymous */
    UMO_CENSUS_WATCHED = 1u << 2, /* was armed; its written pages are exact */
    UMO_CENSUS_NEW = 1u << 3,     /* made after ARM: its populated pages are counted */
    UMO_CENSUS_UNKNOWN = 1u << 4, /* there at ARM, but could not be armed: nothing is counted */
    UMO_CENSUS_WRITABLE = 1u << 5,
};

struct umo_census_mapping {
    uint64_t start;
    uint64_t end;
    uint64_t file_offset;
    uint64_t inode;
    uint64_t device; /* major << 32 | minor */
    uint32_t flags;
    int32_t native_error;
    uint64_t dirty_pages;
    uint32_t first_range;
    uint32_t range_count;
    char name[UMO_SPY_NAME_BYTES];
};

struct umo_census_range {
    uint64_t start;
    uint64_t end;
};

/* One page of 4096 bytes; the rest of it is zero. */
struct umo_spy_header {
    char magic[8];
    uint32_t version;
    uint32_t pid;
    uint32_t kind_count;
    uint32_t class_count;
    uint32_t object_capacity;
    uint32_t object_bytes;
    uint64_t object_offset;
    uint64_t mapping_offset;
    uint64_t range_offset;
    uint64_t file_bytes;
    uint32_t mapping_capacity;
    uint32_t mapping_bytes;
    uint32_t range_capacity;
    uint32_t name_bytes;
    uint64_t lost_calls; /* calls that no entry of the table could take: any count is then a lower
                            bound */
    uint64_t lost_bytes;
    uint64_t unhooked; /* entry points of a second driver library, handed out uncounted */
    uint64_t class_floor[16];
    char kind_names[32][24];
    char executable[UMO_SPY_NAME_BYTES];
    /* The census: a reader writes command, then raises command_sequence and wakes it as a futex;
     * the helper thread answers by setting done_sequence to it. */
    uint32_t census_command;
    uint32_t census_sequence;
    uint32_t census_done;
    uint32_t census_status;
    int32_t census_native_error;
    uint32_t census_mappings;
    uint32_t census_ranges;
    uint32_t
        census_ranges_lost; /* ranges beyond the capacity; the mappings' dirty_pages stay exact */
    uint32_t census_mappings_lost;
    uint32_t page_bytes;
    uint64_t census_faults; /* page faults of the other threads from ARM to SCAN */
    char census_reason[UMO_SPY_NAME_BYTES];
};

#define UMO_SPY_HEADER_BYTES 4096u

struct umo_spy_file {
    union {
        struct umo_spy_header header;
        unsigned char header_page[UMO_SPY_HEADER_BYTES];
    };
    struct umo_spy_object objects[UMO_SPY_OBJECT_CAPACITY];
    struct umo_census_mapping mappings[UMO_SPY_MAPPING_CAPACITY];
    struct umo_census_range ranges[UMO_SPY_RANGE_CAPACITY];
};

_Static_assert(sizeof(struct umo_spy_header) <= UMO_SPY_HEADER_BYTES, "the header is one page");
_Static_assert(UMO_SPY_KIND_COUNT <= 32, "kind_names has room for every kind");
_Static_assert(UMO_SPY_CLASS_COUNT <= 16, "class_floor has room for every class");

#endif
