/*
 * Makes the pointers of a mapped image right: rebases, binds (lazy ones at once, as with
 * DYLD_BIND_AT_LAUNCH), thread-local variables; and looks exports up. The opcodes come from a file
 * that may be broken: no pointer is written outside a segment that is writable, and no number is
 * read past its table.
 */
#include "image.h"

#include "runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* One table of opcodes, read from front to back. */
typedef struct reader {
    const uint8_t *at, *end;
    bool broken;
} reader;

static uint64_t uleb(reader *r)
{
    uint64_t value = 0;
    for (unsigned shift = 0; r->at < r->end && shift < 64; shift += 7) {
        uint8_t byte = *r->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    r->broken = true;
    return 0;
}

static int64_t sleb(reader *r)
{
    uint64_t value = 0;
    for (unsigned shift = 0; r->at < r->end && shift < 64;) {
        uint8_t byte = *r->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
        if ((byte & 0x80) == 0) {
            if ((byte & 0x40) != 0 && shift < 64) {
                value |= ~(uint64_t)0 << shift;
            }
            return (int64_t)value;
        }
    }
    r->broken = true;
    return 0;
}

static const char *string(reader *r)
{
    const uint8_t *end = memchr(r->at, 0, (size_t)(r->end - r->at));
    if (end == NULL) {
        r->broken = true;
        return "";
    }
    const char *text = (const char *)r->at;
    r->at = end + 1;
    return text;
}

/* What the opcodes of both kinds of table change as they go. */
typedef struct fixup {
    macho_image *image;
    macho_resolve resolve;
    macho_error *error;
    const char *table;
    bool weak_table;
    size_t segment;
    uint64_t offset; /* in the segment; wraps, as the format's own sums do */
    unsigned type;
    int64_t addend;
    int ordinal;
    const char *symbol;
    bool weak_import;
    size_t missing;
} fixup;

static uint8_t *fixup_place(fixup *f)
{
    if (f->segment >= f->image->segment_count) {
        (void)macho_fail(f->error, "%s: there is no segment %zu", f->table, f->segment);
        return NULL;
    }
    const macho_segment_command *segment = &f->image->segments[f->segment];
    if (f->offset > segment->memory_bytes || segment->memory_bytes - f->offset < 8) {
        (void)macho_fail(f->error, "%s: an offset lies outside segment %.16s", f->table,
                         segment->name);
        return NULL;
    }
    if ((segment->protection & MACHO_WRITE) == 0) {
        (void)macho_fail(f->error, "%s: segment %.16s is not writable", f->table, segment->name);
        return NULL;
    }
    return f->image->base + (segment->address - f->image->base_wanted) + f->offset;
}

/* Segments are numbered with __PAGEZERO, which image.c leaves out. */
static void set_segment(fixup *f, unsigned number, uint64_t offset)
{
    size_t skipped = f->image->has_page_zero ? 1 : 0;
    f->segment = number >= skipped ? number - skipped : SIZE_MAX;
    f->offset = offset;
}

static bool rebase_one(fixup *f)
{
    uint8_t *place = fixup_place(f);
    if (place == NULL) {
        return false;
    }
    if (f->type != 1) {
        return macho_fail(f->error, "rebases of type %u are not supported", f->type);
    }
    uint64_t value;
    memcpy(&value, place, sizeof value);
    value += (uint64_t)(uintptr_t)f->image->base - f->image->base_wanted;
    memcpy(place, &value, sizeof value);
    f->offset += 8;
    return true;
}

/* No segment has room for more pointers than this: an endless run ends here. */
static bool times_check(fixup *f, uint64_t times)
{
    return times <= f->image->mapped_bytes / 8 ||
           macho_fail(f->error, "%s: more pointers than there is room for", f->table);
}

static bool rebase_times(fixup *f, uint64_t times, uint64_t skip)
{
    if (!times_check(f, times)) {
        return false;
    }
    for (uint64_t i = 0; i < times; i++) {
        if (!rebase_one(f)) {
            return false;
        }
        f->offset += skip;
    }
    return true;
}

static bool rebase_opcode(fixup *f, reader *r, unsigned opcode, unsigned low)
{
    uint64_t times;
    bool ok = true;
    switch (opcode) {
    case 0x10:
        f->type = low;
        break;
    case 0x20:
        set_segment(f, low, uleb(r));
        break;
    case 0x30:
        f->offset += uleb(r);
        break;
    case 0x40:
        f->offset += (uint64_t)low * 8;
        break;
    case 0x50:
        ok = rebase_times(f, low, 0);
        break;
    case 0x60:
        times = uleb(r);
        ok = rebase_times(f, r->broken ? 0 : times, 0);
        break;
    case 0x70:
        ok = rebase_one(f);
        f->offset += uleb(r);
        break;
    case 0x80:
        times = uleb(r);
        ok = rebase_times(f, r->broken ? 0 : times, uleb(r));
        break;
    default:
        return macho_fail(f->error, "%s: unknown opcode 0x%x", f->table, opcode);
    }
    return ok;
}

static bool bind_one(fixup *f)
{
    uint8_t *place = fixup_place(f);
    if (place == NULL) {
        return false;
    }
    if (f->symbol == NULL || f->type != 1) {
        return macho_fail(f->error, "%s: a bind without a symbol, or of type %u", f->table,
                          f->type);
    }
    uint64_t address = 0;
    f->offset += 8;
    if (!f->resolve(f->image, f->ordinal, f->symbol, &address)) {
        if (f->weak_table) {
            return true; /* what the file holds already stays */
        }
        if (!f->weak_import) {
            /* All missing names go into one message, so that one run tells what is to be bridged.
             */
            size_t used = strlen(f->error->text);
            (void)snprintf(f->error->text + used, sizeof f->error->text - used, "%s %s",
                           f->missing == 0 ? "nothing provides" : ",", f->symbol);
            f->missing++;
            return true;
        }
        f->addend = 0;
    }
    address += (uint64_t)f->addend;
    memcpy(place, &address, sizeof address);
    return true;
}

static bool bind_times(fixup *f, uint64_t times, uint64_t skip)
{
    if (!times_check(f, times)) {
        return false;
    }
    for (uint64_t i = 0; i < times; i++) {
        if (!bind_one(f)) {
            return false;
        }
        f->offset += skip;
    }
    return true;
}

/* Settings; the opcodes that bind are in bind_opcode. */
static bool bind_setting(fixup *f, reader *r, unsigned opcode, unsigned low)
{
    switch (opcode) {
    case 0x10:
        f->ordinal = (int)low;
        break;
    case 0x20:
        f->ordinal = (int)(uleb(r) & 0xffff);
        break;
    case 0x30:
        f->ordinal = low == 0 ? 0 : (int)low - 16;
        break;
    case 0x40:
        f->weak_import = (low & 1) != 0;
        f->symbol = string(r);
        break;
    case 0x50:
        f->type = low;
        break;
    case 0x60:
        f->addend = sleb(r);
        break;
    case 0x70:
        set_segment(f, low, uleb(r));
        break;
    case 0x80:
        f->offset += uleb(r);
        break;
    default:
        return macho_fail(f->error, "%s: unknown opcode 0x%x", f->table, opcode);
    }
    return true;
}

static bool bind_opcode(fixup *f, reader *r, unsigned opcode, unsigned low)
{
    uint64_t times;
    bool ok;
    switch (opcode) {
    case 0x90:
        return bind_one(f);
    case 0xa0:
        ok = bind_one(f);
        f->offset += uleb(r);
        return ok;
    case 0xb0:
        ok = bind_one(f);
        f->offset += (uint64_t)low * 8;
        return ok;
    case 0xc0:
        times = uleb(r);
        return bind_times(f, r->broken ? 0 : times, uleb(r));
    default:
        return bind_setting(f, r, opcode, low);
    }
}

static bool table_run(fixup *f, macho_bytes table, bool done_ends,
                      bool (*run)(fixup *f, reader *r, unsigned opcode, unsigned low))
{
    reader r = {table.start, table.start + table.size, false};
    while (r.at < r.end) {
        uint8_t byte = *r.at++;
        if (byte == 0) {
            if (done_ends) {
                break;
            }
            continue; /* lazy binds: the end of one */
        }
        if (!run(f, &r, byte & 0xf0u, byte & 0x0fu)) {
            return false;
        }
        if (r.broken) {
            return macho_fail(f->error, "%s: a number or a name runs past the end", f->table);
        }
    }
    return f->missing == 0;
}

static bool tables_run(macho_image *image, macho_resolve resolve, macho_error *error)
{
    const fixup start = {
        .image = image, .resolve = resolve, .error = error, .segment = SIZE_MAX, .type = 1};
    fixup rebase = start;
    fixup bind = start;
    fixup lazy = start;
    fixup weak = start;
    rebase.table = "rebases";
    bind.table = "binds";
    lazy.table = "lazy binds";
    weak.table = "weak binds";
    weak.weak_table = true;
    weak.ordinal = MACHO_ORDINAL_FLAT;
    error->text[0] = '\0';
    if (!table_run(&rebase, image->rebase, true, rebase_opcode)) {
        return false;
    }
    bool bound = table_run(&bind, image->bind, true, bind_opcode);
    if (!bound && bind.missing == 0) {
        return false;
    }
    lazy.missing = bind.missing;
    return table_run(&lazy, image->lazy_bind, false, bind_opcode) && bound &&
           table_run(&weak, image->weak_bind, true, bind_opcode);
}

/* The template of a thread's block runs from the first to the last of these sections. */
static bool thread_locals_ready(macho_image *image, macho_error *error)
{
    uint64_t start = UINT64_MAX;
    uint64_t end = 0;
    image->tlv_align = sizeof(void *);
    for (size_t i = 0; i < image->section_count; i++) {
        const macho_section_header *section = &image->sections[i];
        unsigned type = section->flags & 0xff;
        if (type == MACHO_TLV_REGULAR || type == MACHO_TLV_ZEROFILL) {
            start = section->address < start ? section->address : start;
            end = section->address + section->size > end ? section->address + section->size : end;
            size_t align = (size_t)1 << section->align;
            image->tlv_align = align > image->tlv_align ? align : image->tlv_align;
        }
    }
    bool made = false;
    for (size_t i = 0; i < image->section_count; i++) {
        const macho_section_header *section = &image->sections[i];
        if ((section->flags & 0xff) != MACHO_TLV_DESCRIPTORS) {
            continue;
        }
        uint8_t *at = macho_image_at(image, section->address, (size_t)section->size);
        if (at == NULL || start > end) {
            return macho_fail(error, "thread-local variables without their initial values");
        }
        if (!made) {
            image->tlv_template = macho_image_at(image, start, (size_t)(end - start));
            image->tlv_bytes = (size_t)(end - start);
            made = true;
            if (image->tlv_template == NULL || pthread_key_create(&image->tlv_key, free) != 0) {
                return macho_fail(error, "thread-local variables cannot be made ready");
            }
            image->has_tlv_key = true;
        }
        for (uint64_t done = 0; section->size - done >= sizeof(macho_tlv_descriptor);
             done += sizeof(macho_tlv_descriptor)) {
            macho_tlv_descriptor descriptor;
            memcpy(&descriptor, at + done, sizeof descriptor);
            if (descriptor.offset >= image->tlv_bytes) {
                return macho_fail(error, "a thread-local variable lies outside its block");
            }
            descriptor.get = (uint64_t)(uintptr_t)macho_tlv_get;
            descriptor.key = (uint64_t)(uintptr_t)image;
            memcpy(at + done, &descriptor, sizeof descriptor);
        }
    }
    return true;
}

void *macho_tlv_address(const macho_tlv_descriptor *descriptor)
{
    const macho_image *image = (const macho_image *)(uintptr_t)descriptor->key;
    uint8_t *block = pthread_getspecific(image->tlv_key);
    if (block == NULL) {
        void *fresh = NULL;
        if (posix_memalign(&fresh, image->tlv_align, image->tlv_bytes) != 0 ||
            pthread_setspecific(image->tlv_key, fresh) != 0) {
            abort();
        }
        block = fresh;
        memcpy(block, image->tlv_template, image->tlv_bytes);
    }
    return block + descriptor->offset;
}

int macho_segment_protection(const macho_segment_command *segment)
{
    return (int)segment->protection &
           ((segment->flags & MACHO_SEGMENT_READ_ONLY) != 0 ? ~MACHO_WRITE : ~0);
}

static bool protect(macho_image *image, macho_error *error)
{
    for (size_t i = 0; i < image->segment_count; i++) {
        const macho_segment_command *segment = &image->segments[i];
        uint8_t *start = image->base + (segment->address - image->base_wanted);
        int protection = macho_segment_protection(segment);
        if (segment->memory_bytes == 0) {
            continue;
        }
        if (mprotect(start, (size_t)segment->memory_bytes, protection) != 0) {
            return macho_fail(error, "segment %.16s: %s", segment->name, strerror(errno));
        }
        if ((protection & MACHO_EXEC) != 0) {
            __builtin___clear_cache((char *)start, (char *)start + segment->memory_bytes);
        }
    }
    return true;
}

bool macho_image_fix(macho_image *image, macho_resolve resolve, macho_error *error)
{
    return tables_run(image, resolve, error) && thread_locals_ready(image, error) &&
           protect(image, error);
}

/* Steps from one node of the trie to the child that the rest of the name begins with. False at a
 * dead end or a broken trie. */
static bool trie_step(const macho_bytes trie, size_t *node, const char **rest)
{
    reader r = {trie.start + *node, trie.start + trie.size, false};
    uint64_t terminal = uleb(&r);
    if (r.broken || terminal >= (uint64_t)(r.end - r.at)) {
        return false;
    }
    r.at += terminal;
    unsigned children = *r.at++;
    for (unsigned i = 0; i < children && !r.broken; i++) {
        const char *edge = string(&r);
        size_t length = strlen(edge);
        uint64_t child = uleb(&r);
        if (!r.broken && length > 0 && strncmp(edge, *rest, length) == 0) {
            if (child >= trie.size) {
                return false;
            }
            *node = (size_t)child;
            *rest += length;
            return true;
        }
    }
    return false;
}

bool macho_image_export(const macho_image *image, const char *symbol, uint64_t *out_address)
{
    const macho_bytes trie = image->exports;
    size_t node = 0;
    if (trie.size == 0) {
        return false;
    }
    while (*symbol != '\0') {
        if (!trie_step(trie, &node, &symbol)) {
            return false;
        }
    }
    reader r = {trie.start + node, trie.start + trie.size, false};
    uint64_t terminal = uleb(&r);
    uint64_t flags = uleb(&r);
    uint64_t offset = uleb(&r);
    /* Re-exports (8), resolvers (16) and absolute symbols (2) are written by nobody here. */
    if (r.broken || terminal == 0 || (flags & 0x1a) != 0 || offset >= image->mapped_bytes) {
        return false;
    }
    *out_address = (uint64_t)(uintptr_t)image->base + offset;
    return true;
}
