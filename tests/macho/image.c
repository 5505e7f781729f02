/*
 * Checks a Mach-O file as strictly as the kernel and dyld of an arm64 Mac would, as far as it is
 * known: what would be killed there must not pass here. The file's bytes are copied into anonymous
 * memory, so a file that shrinks later does no harm, and nothing depends on the page size of the
 * machine beneath.
 */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* More than any program of ours needs; keeps sums of addresses far from overflow. */
#define SPAN_MAX ((uint64_t)1 << 32)
#define FILE_MAX ((off_t)1 << 30)

bool macho_fail(macho_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return false;
}

static bool file_read(macho_image *image, macho_error *error)
{
    int fd = open(image->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return macho_fail(error, "%s", strerror(errno));
    }
    struct stat status;
    bool ok = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= FILE_MAX;
    if (!ok) {
        (void)close(fd);
        return macho_fail(error, "not a regular file of a sensible size");
    }
    image->file_bytes = (size_t)status.st_size;
    image->file = malloc(image->file_bytes + 1);
    size_t done = 0;
    while (image->file != NULL && done < image->file_bytes) {
        ssize_t got = read(fd, image->file + done, image->file_bytes - done);
        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    (void)close(fd);
    if (image->file == NULL || done < image->file_bytes) {
        return macho_fail(error, "the file cannot be read");
    }
    return true;
}

/* A string of a load command: it must end inside the command. */
static const char *command_string(const uint8_t *command, uint32_t size, uint32_t at)
{
    uint32_t offset;
    memcpy(&offset, command + at, sizeof offset);
    if (offset >= size || memchr(command + offset, 0, size - offset) == NULL) {
        return NULL;
    }
    return (const char *)command + offset;
}

static bool file_range(const macho_image *image, uint64_t offset, uint64_t size, const char *what,
                       macho_bytes *out, macho_error *error)
{
    if (offset > image->file_bytes || size > image->file_bytes - offset) {
        return macho_fail(error, "truncated: %s lies past the end of the file", what);
    }
    *out = (macho_bytes){image->file + offset, (size_t)size};
    return true;
}

static bool sections_read(macho_image *image, const macho_segment_command *segment,
                          const uint8_t *command, macho_error *error)
{
    for (uint32_t i = 0; i < segment->section_count; i++) {
        macho_section_header section;
        memcpy(&section, command + sizeof *segment + i * sizeof section, sizeof section);
        if (image->section_count == MACHO_SECTIONS_MAX) {
            return macho_fail(error, "more than %d sections", MACHO_SECTIONS_MAX);
        }
        if (section.address < segment->address ||
            section.address - segment->address > segment->memory_bytes ||
            section.size > segment->memory_bytes - (section.address - segment->address)) {
            return macho_fail(error, "section %.16s lies outside its segment", section.name);
        }
        if (section.align > 14) {
            return macho_fail(error, "section %.16s wants an alignment above a page", section.name);
        }
        image->sections[image->section_count++] = section;
    }
    return true;
}

static bool segment_read(macho_image *image, const uint8_t *command, uint32_t size,
                         macho_error *error)
{
    macho_segment_command segment;
    macho_bytes ignored;
    if (size < sizeof segment) {
        return macho_fail(error, "a segment's load command is too short");
    }
    memcpy(&segment, command, sizeof segment);
    if ((size - sizeof segment) / sizeof(macho_section_header) < segment.section_count) {
        return macho_fail(error, "segment %.16s: its sections do not fit its load command",
                          segment.name);
    }
    if (strncmp(segment.name, "__PAGEZERO", sizeof segment.name) == 0) {
        if (segment.protection != 0 || segment.file_bytes != 0 || segment.address != 0) {
            return macho_fail(error, "__PAGEZERO is mapped");
        }
        image->has_page_zero = true;
        return true;
    }
    if (image->segment_count == MACHO_SEGMENTS_MAX) {
        return macho_fail(error, "more than %d segments", MACHO_SEGMENTS_MAX);
    }
    if (segment.address % MACHO_PAGE_BYTES != 0 || segment.file_offset % MACHO_PAGE_BYTES != 0) {
        return macho_fail(error, "segment %.16s does not begin at a page of 16 KiB", segment.name);
    }
    if (segment.address > UINT64_MAX - 4 * SPAN_MAX) {
        return macho_fail(error, "segment %.16s ends past the end of all addresses", segment.name);
    }
    if (segment.memory_bytes > SPAN_MAX || segment.file_bytes > segment.memory_bytes) {
        return macho_fail(error, "segment %.16s is larger in the file than in memory",
                          segment.name);
    }
    if (!file_range(image, segment.file_offset, segment.file_bytes, "a segment", &ignored, error)) {
        return false;
    }
    if ((segment.protection & MACHO_WRITE) != 0 && (segment.protection & MACHO_EXEC) != 0) {
        return macho_fail(error, "segment %.16s is writable and executable", segment.name);
    }
    if ((segment.protection & ~segment.protection_max) != 0) {
        return macho_fail(error, "segment %.16s begins with more than it may have", segment.name);
    }
    image->segments[image->segment_count++] = segment;
    return sections_read(image, &segment, command, error);
}

static bool dylib_read(macho_image *image, const uint8_t *command, uint32_t size, bool weak,
                       macho_error *error)
{
    const char *name = size < 24 ? NULL : command_string(command, size, 8);
    if (name == NULL || image->dylib_count == MACHO_DYLIBS_MAX) {
        return macho_fail(error, "a library's name is broken, or there are more than %d",
                          MACHO_DYLIBS_MAX);
    }
    image->dylibs[image->dylib_count++] = (macho_dylib){.name = name, .weak = weak};
    return true;
}

static bool dyld_info_read(macho_image *image, const uint8_t *command, uint32_t size,
                           macho_error *error)
{
    macho_dyld_info_command info;
    if (size < sizeof info) {
        return macho_fail(error, "the dyld info is too short");
    }
    memcpy(&info, command, sizeof info);
    return file_range(image, info.rebase_offset, info.rebase_bytes, "the rebases", &image->rebase,
                      error) &&
           file_range(image, info.bind_offset, info.bind_bytes, "the binds", &image->bind, error) &&
           file_range(image, info.weak_offset, info.weak_bytes, "the weak binds", &image->weak_bind,
                      error) &&
           file_range(image, info.lazy_offset, info.lazy_bytes, "the lazy binds", &image->lazy_bind,
                      error) &&
           file_range(image, info.export_offset, info.export_bytes, "the exports", &image->exports,
                      error);
}

static bool main_read(macho_image *image, const uint8_t *command, uint32_t size, macho_error *error)
{
    macho_main_command entry;
    if (size < sizeof entry) {
        return macho_fail(error, "the entry point's load command is too short");
    }
    memcpy(&entry, command, sizeof entry);
    image->entry_offset = entry.entry_offset;
    image->has_entry = true;
    return true;
}

static bool platform_check(const uint8_t *command, uint32_t size, macho_error *error)
{
    macho_build_version_command version;
    if (size < sizeof version) {
        return macho_fail(error, "the build version is too short");
    }
    memcpy(&version, command, sizeof version);
    if (version.platform != MACHO_PLATFORM_MACOS) {
        return macho_fail(error, "built for platform %u, not macOS", (unsigned)version.platform);
    }
    return true;
}

static bool command_read(macho_image *image, const uint8_t *at, macho_command command,
                         macho_error *error)
{
    macho_linkedit_command range;
    macho_bytes ignored;
    const char *rpath;
    switch (command.command) {
    case MACHO_SEGMENT_64:
        return segment_read(image, at, command.size, error);
    case MACHO_LOAD_DYLIB:
        return dylib_read(image, at, command.size, false, error);
    case MACHO_LOAD_WEAK_DYLIB:
        return dylib_read(image, at, command.size, true, error);
    case MACHO_DYLD_INFO:
    case MACHO_DYLD_INFO_ONLY:
        return dyld_info_read(image, at, command.size, error);
    case MACHO_MAIN:
        return main_read(image, at, command.size, error);
    case MACHO_BUILD_VERSION:
        return platform_check(at, command.size, error);
    case MACHO_RPATH:
        rpath = command.size < 12 ? NULL : command_string(at, command.size, 8);
        if (rpath == NULL || image->rpath_count == MACHO_RPATHS_MAX) {
            return macho_fail(error, "a run path is broken, or there are more than %d",
                              MACHO_RPATHS_MAX);
        }
        image->rpaths[image->rpath_count++] = rpath;
        return true;
    case MACHO_EXPORTS_TRIE:
        if (command.size < sizeof range) {
            return macho_fail(error, "the export trie's load command is too short");
        }
        memcpy(&range, at, sizeof range);
        return file_range(image, range.offset, range.bytes, "the exports", &image->exports, error);
    case MACHO_CODE_SIGNATURE:
        if (command.size < sizeof range) {
            return macho_fail(error, "the signature's load command is too short");
        }
        memcpy(&range, at, sizeof range);
        image->is_signed = range.bytes > 0;
        return file_range(image, range.offset, range.bytes, "the signature", &ignored, error);
    case MACHO_CHAINED_FIXUPS:
        return macho_fail(error, "LC_DYLD_CHAINED_FIXUPS is not supported: zig's linker writes "
                                 "LC_DYLD_INFO_ONLY");
    case MACHO_REEXPORT_DYLIB:
        return macho_fail(error, "LC_REEXPORT_DYLIB is not supported");
    default:
        if ((command.command & MACHO_REQUIRED) != 0) {
            return macho_fail(error, "unknown load command 0x%x, which must be understood",
                              (unsigned)command.command);
        }
        return true;
    }
}

static bool header_check(const macho_image *image, macho_header *out, macho_error *error)
{
    macho_header header;
    if (image->file_bytes < sizeof header) {
        return macho_fail(error, "truncated: shorter than a Mach-O header");
    }
    memcpy(&header, image->file, sizeof header);
    if (header.magic == MACHO_MAGIC_FAT) {
        return macho_fail(error, "a universal file: take the arm64 part out of it first");
    }
    if (header.magic != MACHO_MAGIC_64) {
        return macho_fail(error, "not a Mach-O file of 64 bits");
    }
    if (header.cpu != MACHO_CPU_ARM64 || (header.subtype & MACHO_SUBTYPE_MASK) != 0) {
        return macho_fail(error, "for CPU type 0x%x, subtype %u, not plain arm64",
                          (unsigned)header.cpu, (unsigned)(header.subtype & MACHO_SUBTYPE_MASK));
    }
    if (header.type != MACHO_EXECUTE && header.type != MACHO_DYLIB && header.type != MACHO_BUNDLE) {
        return macho_fail(error, "file type %u is neither program nor library",
                          (unsigned)header.type);
    }
    if (header.type == MACHO_EXECUTE && (header.flags & MACHO_FLAG_PIE) == 0) {
        return macho_fail(error, "not position independent: an arm64 Mac runs no such program");
    }
    if (header.commands_bytes > image->file_bytes - sizeof header) {
        return macho_fail(error, "truncated: the load commands lie past the end of the file");
    }
    *out = header;
    return true;
}

static bool commands_read(macho_image *image, macho_error *error)
{
    macho_header header = {0};
    if (!header_check(image, &header, error)) {
        return false;
    }
    image->type = header.type;
    const uint8_t *at = image->file + sizeof header;
    size_t left = header.commands_bytes;
    for (uint32_t i = 0; i < header.command_count; i++) {
        macho_command command;
        if (left < sizeof command) {
            return macho_fail(error, "load command %u lies past the end of the commands",
                              (unsigned)i);
        }
        memcpy(&command, at, sizeof command);
        if (command.size < sizeof command || command.size % 8 != 0 || command.size > left) {
            return macho_fail(error, "load command %u has the size %u", (unsigned)i,
                              (unsigned)command.size);
        }
        if (!command_read(image, at, command, error)) {
            return false;
        }
        at += command.size;
        left -= command.size;
    }
    return true;
}

/* Segments in the order of their addresses, the header in the first, an entry inside code. */
static bool layout_check(macho_image *image, uint64_t *out_span, macho_error *error)
{
    const macho_segment_command *first = &image->segments[0];
    if (image->segment_count == 0 || first->file_offset != 0 ||
        first->file_bytes < sizeof(macho_header)) {
        return macho_fail(error, "the first segment does not hold the header");
    }
    uint64_t end = first->address;
    for (size_t i = 0; i < image->segment_count; i++) {
        const macho_segment_command *segment = &image->segments[i];
        if (segment->address < end || segment->address - first->address > SPAN_MAX) {
            return macho_fail(error, "segment %.16s overlaps another, or lies too far away",
                              segment->name);
        }
        end = segment->address + segment->memory_bytes;
    }
    if (image->type == MACHO_EXECUTE) {
        if (!image->has_entry) {
            return macho_fail(error, "a program without an entry point (LC_MAIN)");
        }
        if ((first->protection & MACHO_EXEC) == 0 || image->entry_offset % 4 != 0 ||
            image->entry_offset >= first->file_bytes) {
            return macho_fail(error, "the entry point lies outside the code");
        }
    }
    if (!image->is_signed) {
        return macho_fail(error, "not signed: an arm64 Mac runs no such code");
    }
    image->base_wanted = first->address;
    *out_span = end - first->address;
    return true;
}

static bool segments_map(macho_image *image, uint64_t span, macho_error *error)
{
    size_t size = ((size_t)span + MACHO_PAGE_BYTES - 1) / MACHO_PAGE_BYTES * MACHO_PAGE_BYTES;
    uint8_t *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        return macho_fail(error, "no room for %zu bytes", size);
    }
    image->base = base;
    image->mapped_bytes = size;
    for (size_t i = 0; i < image->segment_count; i++) {
        const macho_segment_command *segment = &image->segments[i];
        uint8_t *start = base + (segment->address - image->base_wanted);
        if (segment->memory_bytes == 0) {
            continue;
        }
        if (mprotect(start, (size_t)segment->memory_bytes, PROT_READ | PROT_WRITE) != 0) {
            return macho_fail(error, "segment %.16s: %s", segment->name, strerror(errno));
        }
        memcpy(start, image->file + segment->file_offset, (size_t)segment->file_bytes);
    }
    return true;
}

void macho_image_unmap(macho_image *image)
{
    if (image->base != NULL) {
        (void)munmap(image->base, image->mapped_bytes);
    }
    if (image->has_tlv_key) {
        (void)pthread_key_delete(image->tlv_key);
    }
    free(image->file);
    free(image->path);
    free(image);
}

macho_image *macho_image_map(const char *path, macho_error *error)
{
    uint64_t span = 0;
    macho_image *image = calloc(1, sizeof *image);
    if (image == NULL || (image->path = strdup(path)) == NULL) {
        free(image);
        (void)macho_fail(error, "out of memory");
        return NULL;
    }
    if (!file_read(image, error) || !commands_read(image, error) ||
        !layout_check(image, &span, error) || !segments_map(image, span, error)) {
        macho_image_unmap(image);
        return NULL;
    }
    return image;
}

uint8_t *macho_image_at(const macho_image *image, uint64_t address, size_t size_bytes)
{
    for (size_t i = 0; i < image->segment_count; i++) {
        const macho_segment_command *segment = &image->segments[i];
        if (address >= segment->address && address - segment->address <= segment->memory_bytes &&
            size_bytes <= segment->memory_bytes - (address - segment->address)) {
            return image->base + (address - image->base_wanted);
        }
    }
    return NULL;
}

bool macho_image_is_code(const macho_image *image, uint64_t address)
{
    uint64_t base = (uint64_t)(uintptr_t)image->base;
    for (size_t i = 0; i < image->segment_count; i++) {
        const macho_segment_command *segment = &image->segments[i];
        uint64_t start = base + (segment->address - image->base_wanted);
        if ((segment->protection & MACHO_EXEC) != 0 && address >= start &&
            address - start < segment->memory_bytes) {
            return true;
        }
    }
    return false;
}
