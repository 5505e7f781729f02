/*
 * Who called: return address -> shared object -> counters.
 *
 * The loader's _dl_find_object (glibc 2.35) answers without a lock, in signal handlers too, which
 * is why it is used and not dladdr or dl_iterate_phdr. The table is an open-addressing hash in the
 * shared file itself: an entry is claimed with one compare-and-swap and never freed, and a thread
 * that meets an entry half-written by another (or by the code it interrupted) goes on to the next
 * slot instead of waiting. That can make two entries for one library; the reader adds them up.
 */
#include "spy_table.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <unwind.h>

#define PROBE_LIMIT 64u
#define LARGE_BYTES 4096u
/* How far up the stack the client of a run-time library is looked for. */
#define FRAME_LIMIT 32u

static struct umo_spy_file early_file;
static struct umo_spy_file *current_file = &early_file;

struct caller {
    uint64_t map;
    uint64_t start;
    const char *name;
};

static struct umo_spy_file *file_load(void)
{
    return __atomic_load_n(&current_file, __ATOMIC_ACQUIRE);
}

struct umo_spy_file *umo_spy_table_file(void)
{
    struct umo_spy_file *file = file_load();
    return file == &early_file ? NULL : file;
}

void umo_spy_bytes_copy(void *to, const void *from, size_t size_bytes)
{
#if defined(__x86_64__)
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size_bytes) : : "memory");
#else
    volatile unsigned char *out = to;
    const volatile unsigned char *in = from;
    for (size_t i = 0; i < size_bytes; i++) {
        out[i] = in[i];
    }
#endif
}

void umo_spy_bytes_set(void *to, int value, size_t size_bytes)
{
    volatile unsigned char *out = to;
    for (size_t i = 0; i < size_bytes; i++) {
        out[i] = (unsigned char)value;
    }
}

static void name_copy(char *to, const char *from)
{
    size_t i = 0;
    /* The end of a long path tells libraries apart better than its beginning. */
    size_t length = 0;
    while (from[length] != '\0') {
        length++;
    }
    if (length >= UMO_SPY_NAME_BYTES) {
        from += length - (UMO_SPY_NAME_BYTES - 1);
    }
    for (; from[i] != '\0' && i < UMO_SPY_NAME_BYTES - 1; i++) {
        ((volatile char *)to)[i] = from[i];
    }
    ((volatile char *)to)[i] = '\0';
}

static bool has_prefix(const char *text, const char *prefix)
{
    while (*prefix != '\0') {
        if (*text++ != *prefix++) {
            return false;
        }
    }
    return true;
}

/* A run-time library copies on behalf of whoever called it. */
static bool is_runtime(const char *name)
{
    static const char *const prefixes[] = {"libstdc++", "libc++",  "libgcc_s", "libc.so",
                                           "libc-",     "libm.so", "ld-linux"};
    const char *base = name;
    for (const char *at = name; *at != '\0'; at++) {
        if (*at == '/') {
            base = at + 1;
        }
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (has_prefix(base, prefixes[i])) {
            return true;
        }
    }
    return false;
}

static bool caller_find(const void *address, struct caller *out)
{
    struct dl_find_object found;
    if (_dl_find_object((void *)(uintptr_t)address, &found) != 0) {
        return false;
    }
    out->map = (uint64_t)(uintptr_t)found.dlfo_link_map;
    out->start = (uint64_t)(uintptr_t)found.dlfo_map_start;
    out->name = found.dlfo_link_map->l_name;
    if (out->name == NULL) {
        out->name = "";
    }
    return true;
}

/* Code that belongs to no loaded object, as a JIT compiler makes it. */
static const struct caller nobody = {1, 1, "[no object]"};

static unsigned class_of(size_t size_bytes)
{
    unsigned index = 0;
    for (size_t limit = 64; index < UMO_SPY_CLASS_COUNT - 1 && size_bytes >= limit; limit *= 4) {
        index++;
    }
    return index;
}

static void object_fill(struct umo_spy_object *object, const struct caller *by,
                        const struct caller *via)
{
    object->key_map = by->map;
    object->key_start = by->start;
    object->via_map = via->map;
    object->via_start = via->start;
    object->is_runtime = is_runtime(by->name) ? 1 : 0;
    name_copy(object->name, by->name);
    name_copy(object->via, via->name);
    __atomic_store_n(&object->state, UMO_SPY_OBJECT_READY, __ATOMIC_RELEASE);
}

static struct umo_spy_object *object_find(struct umo_spy_file *file, const struct caller *by,
                                          const struct caller *via)
{
    uint64_t mixed = (by->map ^ (by->start >> 12) ^ (via->map << 1)) * UINT64_C(0x9E3779B97F4A7C15);
    size_t slot = (size_t)(mixed >> 40) % UMO_SPY_OBJECT_CAPACITY;
    for (unsigned probe = 0; probe < PROBE_LIMIT; probe++) {
        struct umo_spy_object *object = &file->objects[slot];
        uint32_t state = __atomic_load_n(&object->state, __ATOMIC_ACQUIRE);
        if (state == UMO_SPY_OBJECT_FREE &&
            __atomic_compare_exchange_n(&object->state, &state, UMO_SPY_OBJECT_CLAIMED, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            object_fill(object, by, via);
            return object;
        }
        if (state == UMO_SPY_OBJECT_READY && object->key_map == by->map &&
            object->key_start == by->start && object->via_map == via->map &&
            object->via_start == via->start) {
            return object;
        }
        slot = (slot + 1) % UMO_SPY_OBJECT_CAPACITY;
    }
    return NULL;
}

struct search {
    struct caller by;
    unsigned frames;
    bool is_found;
};

static _Unwind_Reason_Code frame_visit(struct _Unwind_Context *context, void *data)
{
    struct search *search = data;
    uintptr_t address = _Unwind_GetIP(context);
    struct caller by;
    if (address == 0 || ++search->frames > FRAME_LIMIT) {
        return _URC_END_OF_STACK;
    }
    if (caller_find((const void *)(address - 1), &by) && by.map != search->by.map &&
        !is_runtime(by.name)) {
        search->by = by;
        search->is_found = true;
        return _URC_END_OF_STACK;
    }
    return _URC_NO_REASON;
}

/*
 * Finds, up the stack, the object on whose behalf a run-time library copies. The unwinder may copy
 * by itself and so come back here, which `is_unwinding` cuts short.
 */
static bool client_find(struct caller *out)
{
    static _Thread_local __attribute__((tls_model("initial-exec"))) bool is_unwinding;
    struct search search = {.frames = 0};
    /* Any address of ours: our own frames are not the client's. */
    if (is_unwinding || !caller_find(&early_file, &search.by)) {
        return false;
    }
    is_unwinding = true;
    _Unwind_Backtrace(frame_visit, &search);
    is_unwinding = false;
    *out = search.by;
    return search.is_found;
}

void umo_spy_call_count(enum umo_spy_kind kind, size_t size_bytes, const void *return_address)
{
    static const struct caller none = {0, 0, ""};
    struct umo_spy_file *file = file_load();
    struct caller by;
    struct caller via = none;
    if (!caller_find(return_address, &by)) {
        by = nobody;
    }
    struct umo_spy_object *object = object_find(file, &by, &none);
    if (object != NULL && object->is_runtime != 0 && size_bytes >= LARGE_BYTES &&
        client_find(&via)) {
        object = object_find(file, &by, &via);
    }
    if (object == NULL) {
        __atomic_fetch_add(&file->header.lost_calls, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&file->header.lost_bytes, size_bytes, __ATOMIC_RELAXED);
        return;
    }
    struct umo_spy_cell *cell = &object->cells[kind][class_of(size_bytes)];
    __atomic_fetch_add(&cell->calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&cell->bytes, size_bytes, __ATOMIC_RELAXED);
}

void umo_spy_unhooked_count(void)
{
    __atomic_fetch_add(&file_load()->header.unhooked, 1, __ATOMIC_RELAXED);
}

static void header_fill(struct umo_spy_file *file)
{
    static const char *const names[] = {
#define KIND_NAME(id, name) name,
        UMO_SPY_KINDS(KIND_NAME)
#undef KIND_NAME
    };
    struct umo_spy_header *header = &file->header;
    header->kind_count = UMO_SPY_KIND_COUNT;
    header->class_count = UMO_SPY_CLASS_COUNT;
    header->object_capacity = UMO_SPY_OBJECT_CAPACITY;
    header->object_bytes = sizeof(struct umo_spy_object);
    header->object_offset = offsetof(struct umo_spy_file, objects);
    header->mapping_offset = offsetof(struct umo_spy_file, mappings);
    header->range_offset = offsetof(struct umo_spy_file, ranges);
    header->file_bytes = sizeof(struct umo_spy_file);
    header->mapping_capacity = UMO_SPY_MAPPING_CAPACITY;
    header->mapping_bytes = sizeof(struct umo_census_mapping);
    header->range_capacity = UMO_SPY_RANGE_CAPACITY;
    header->name_bytes = UMO_SPY_NAME_BYTES;
    header->page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
    uint64_t class_floor = 0;
    for (unsigned i = 0; i < UMO_SPY_CLASS_COUNT; i++) {
        header->class_floor[i] = class_floor;
        class_floor = class_floor == 0 ? 64 : class_floor * 4;
    }
    for (unsigned i = 0; i < UMO_SPY_KIND_COUNT; i++) {
        for (unsigned j = 0; names[i][j] != '\0' && j < 23; j++) {
            header->kind_names[i][j] = names[i][j];
        }
    }
    ssize_t length = readlink("/proc/self/exe", header->executable, UMO_SPY_NAME_BYTES - 1);
    header->executable[length < 0 ? 0 : length] = '\0';
    umo_spy_bytes_copy(header->magic, UMO_SPY_MAGIC, sizeof UMO_SPY_MAGIC);
    __atomic_store_n(&header->version, UMO_SPY_VERSION, __ATOMIC_RELEASE);
}

static struct umo_spy_file *file_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return NULL;
    }
    struct umo_spy_file *file = NULL;
    if (ftruncate(fd, (off_t)sizeof *file) == 0) {
        void *at = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        file = at == MAP_FAILED ? NULL : at;
    }
    close(fd);
    return file;
}

/* Takes the file for this process. A program that was started by exec in the same process starts it
 * anew. */
static bool file_claim(struct umo_spy_file *file)
{
    uint32_t mine = (uint32_t)getpid();
    uint32_t expected = 0;
    if (__atomic_compare_exchange_n(&file->header.pid, &expected, mine, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        return true;
    }
    if (expected != mine) {
        return false;
    }
    umo_spy_bytes_set(file, 0, sizeof file->header_page + sizeof file->objects);
    __atomic_store_n(&file->header.pid, mine, __ATOMIC_RELEASE);
    return true;
}

int umo_spy_table_attach(const char *path)
{
    struct umo_spy_file *file = file_map(path);
    if (file != NULL && !file_claim(file)) {
        char own[PATH_MAX];
        munmap(file, sizeof *file);
        file = NULL;
        int length = snprintf(own, sizeof own, "%s.%ld", path, (long)getpid());
        if (length > 0 && (size_t)length < sizeof own) {
            file = file_map(own);
            if (file != NULL && !file_claim(file)) {
                munmap(file, sizeof *file);
                file = NULL;
            }
        }
    }
    if (file == NULL) {
        __atomic_store_n(&current_file, &early_file, __ATOMIC_RELEASE);
        return -1;
    }
    header_fill(file);
    __atomic_store_n(&current_file, file, __ATOMIC_RELEASE);
    return 0;
}
