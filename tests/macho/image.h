/*
 * One Mach-O file in memory: image.c checks the file and maps it, fixups.c makes its pointers right
 * and finds what it exports. Neither knows what the imports are bound to; that is `resolve`.
 */
#ifndef MACHO_IMAGE_H
#define MACHO_IMAGE_H

#include "format.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MACHO_SEGMENTS_MAX 16
#define MACHO_SECTIONS_MAX 64
#define MACHO_DYLIBS_MAX 16
#define MACHO_RPATHS_MAX 8

/* Why a file does not load: one line, the first reason found. */
typedef struct macho_error {
    char text[1024];
} macho_error;

/* False, with the reason written. */
bool macho_fail(macho_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A range of the file. */
typedef struct macho_bytes {
    const uint8_t *start;
    size_t size;
} macho_bytes;

typedef struct macho_dylib {
    const char *name; /* points into the file */
    bool weak;
    struct macho_image *image; /* NULL: the system's library, which the bridges are */
    bool missing;              /* weak, and not there */
} macho_dylib;

/* Ordinals of a bind that name no library. */
enum {
    MACHO_ORDINAL_SELF = 0,
    MACHO_ORDINAL_MAIN = -1,
    MACHO_ORDINAL_FLAT = -2,
    MACHO_ORDINAL_WEAK = -3
};

typedef struct macho_image {
    char *path;
    uint8_t *file;
    size_t file_bytes;
    uint32_t type;
    uint8_t *base;        /* where the header lies in memory */
    uint64_t base_wanted; /* where the file wants it */
    size_t mapped_bytes;
    macho_segment_command segments[MACHO_SEGMENTS_MAX];
    size_t segment_count;
    bool has_page_zero; /* segments are numbered with it, and it is not kept */
    macho_section_header sections[MACHO_SECTIONS_MAX];
    size_t section_count;
    macho_dylib dylibs[MACHO_DYLIBS_MAX];
    size_t dylib_count;
    const char *rpaths[MACHO_RPATHS_MAX];
    size_t rpath_count;
    macho_bytes rebase, bind, weak_bind, lazy_bind, exports;
    uint64_t entry_offset;
    bool has_entry;
    bool is_signed;
    /* Thread-local variables: what a thread's block starts as. */
    pthread_key_t tlv_key;
    bool has_tlv_key;
    const uint8_t *tlv_template;
    size_t tlv_bytes;
    size_t tlv_align;
    bool initialised;
    struct macho_image *next; /* in the order of loading */
} macho_image;

/* Reads, checks and maps a file; its pointers are not yet right. NULL with the reason. */
macho_image *macho_image_map(const char *path, macho_error *error);
/* Only before its code has run. */
void macho_image_unmap(macho_image *image);

/* Finds what a symbol is bound to. False when there is none. */
typedef bool (*macho_resolve)(macho_image *image, int ordinal, const char *symbol,
                              uint64_t *out_address);

/* Rebases and binds everything, lazy pointers too, makes thread-local variables ready and takes
 * the write permission from what is only read. */
bool macho_image_fix(macho_image *image, macho_resolve resolve, macho_error *error);

/* What a segment's pages allow once its pointers are right. */
int macho_segment_protection(const macho_segment_command *segment);

/* The address of an exported symbol (with its leading underscore). */
bool macho_image_export(const macho_image *image, const char *symbol, uint64_t *out_address);

/* Where an address of the file's own address space lies; NULL unless one segment holds it whole. */
uint8_t *macho_image_at(const macho_image *image, uint64_t address, size_t size_bytes);

/* Whether an address of this process lies in the image's code. */
bool macho_image_is_code(const macho_image *image, uint64_t address);

#endif
