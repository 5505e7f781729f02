/*
 * The parts of the Mach-O file format that zig's linker writes for arm64, in our own words. Numbers
 * and layouts are the format's; every field is little-endian, as is the machine.
 */
#ifndef MACHO_FORMAT_H
#define MACHO_FORMAT_H

#include <stdint.h>

#define MACHO_MAGIC_64 0xfeedfacfu
#define MACHO_MAGIC_FAT 0xbebafecau /* big-endian in the file */
#define MACHO_CPU_ARM64 0x0100000cu
#define MACHO_SUBTYPE_MASK 0x00ffffffu

/* The page of an arm64 Mac: what segments are aligned to. */
#define MACHO_PAGE_BYTES 0x4000u

enum {
    MACHO_EXECUTE = 2,
    MACHO_DYLIB = 6,
    MACHO_BUNDLE = 8
};

#define MACHO_FLAG_PIE 0x200000u

/* Load commands. A command with this bit must be understood, or the file must not run. */
#define MACHO_REQUIRED 0x80000000u
enum {
    MACHO_SYMTAB = 0x2,
    MACHO_LOAD_DYLIB = 0xc,
    MACHO_SEGMENT_64 = 0x19,
    MACHO_CODE_SIGNATURE = 0x1d,
    MACHO_BUILD_VERSION = 0x32
};
#define MACHO_LOAD_WEAK_DYLIB (0x18u | MACHO_REQUIRED)
#define MACHO_RPATH (0x1cu | MACHO_REQUIRED)
#define MACHO_REEXPORT_DYLIB (0x1fu | MACHO_REQUIRED)
#define MACHO_DYLD_INFO 0x22u
#define MACHO_DYLD_INFO_ONLY (0x22u | MACHO_REQUIRED)
#define MACHO_MAIN (0x28u | MACHO_REQUIRED)
#define MACHO_EXPORTS_TRIE (0x33u | MACHO_REQUIRED)
#define MACHO_CHAINED_FIXUPS (0x34u | MACHO_REQUIRED)

#define MACHO_PLATFORM_MACOS 1u

/* Bits of a segment's protection: Linux has the same. */
enum {
    MACHO_READ = 1,
    MACHO_WRITE = 2,
    MACHO_EXEC = 4
};

/* A segment that is written by fixups only, and read-only after. */
#define MACHO_SEGMENT_READ_ONLY 0x10u

/* Types of sections, the low byte of their flags. */
enum {
    MACHO_ZEROFILL = 0x1,
    MACHO_MOD_INIT_POINTERS = 0x9,
    MACHO_MOD_TERM_POINTERS = 0xa,
    MACHO_TLV_REGULAR = 0x11,
    MACHO_TLV_ZEROFILL = 0x12,
    MACHO_TLV_DESCRIPTORS = 0x13,
    MACHO_INIT_OFFSETS = 0x16
};

typedef struct macho_header {
    uint32_t magic;
    uint32_t cpu;
    uint32_t subtype;
    uint32_t type;
    uint32_t command_count;
    uint32_t commands_bytes;
    uint32_t flags;
    uint32_t reserved;
} macho_header;

typedef struct macho_command {
    uint32_t command;
    uint32_t size;
} macho_command;

typedef struct macho_segment_command {
    uint32_t command;
    uint32_t size;
    char name[16];
    uint64_t address;
    uint64_t memory_bytes;
    uint64_t file_offset;
    uint64_t file_bytes;
    uint32_t protection_max;
    uint32_t protection;
    uint32_t section_count;
    uint32_t flags;
} macho_segment_command;

typedef struct macho_section_header {
    char name[16];
    char segment[16];
    uint64_t address;
    uint64_t size;
    uint32_t file_offset;
    uint32_t align; /* a power of two's exponent */
    uint32_t relocations_offset;
    uint32_t relocation_count;
    uint32_t flags;
    uint32_t reserved[3];
} macho_section_header;

typedef struct macho_dyld_info_command {
    uint32_t command;
    uint32_t size;
    uint32_t rebase_offset, rebase_bytes;
    uint32_t bind_offset, bind_bytes;
    uint32_t weak_offset, weak_bytes;
    uint32_t lazy_offset, lazy_bytes;
    uint32_t export_offset, export_bytes;
} macho_dyld_info_command;

typedef struct macho_linkedit_command {
    uint32_t command;
    uint32_t size;
    uint32_t offset, bytes;
} macho_linkedit_command;

typedef struct macho_main_command {
    uint32_t command;
    uint32_t size;
    uint64_t entry_offset;
    uint64_t stack_bytes;
} macho_main_command;

typedef struct macho_build_version_command {
    uint32_t command;
    uint32_t size;
    uint32_t platform;
    uint32_t minimum;
    uint32_t sdk;
    uint32_t tool_count;
} macho_build_version_command;

/* A thread-local variable: code calls `get` with the descriptor's address. */
typedef struct macho_tlv_descriptor {
    uint64_t get;
    uint64_t key;
    uint64_t offset;
} macho_tlv_descriptor;

#endif
