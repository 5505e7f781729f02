/* The device, the memory and the launches of a check. */
#include "probe.h"

#include "os/os.h"
#include "os/pages_test.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#ifdef __APPLE__
#include <mach/mach.h>
#endif

/* Made by the build from probe.metal. */
extern const char probe_metal_text[];
extern const size_t probe_metal_text_bytes;

void say(const char *format, ...)
{
    va_list values;
    (void)printf("    ");
    va_start(values, format);
    (void)vprintf(format, values);
    va_end(values);
    (void)printf("\n");
}

void die(const char *format, ...)
{
    va_list values;
    (void)printf("    ");
    va_start(values, format);
    (void)vprintf(format, values);
    va_end(values);
    (void)printf("\n");
    (void)fflush(stdout);
    _exit(VERDICT_FAILS);
}

void must(umo_status status, const char *what)
{
    if (status != UMO_OK) {
        die("%s failed: %s", what, umo_status_name(status));
    }
}

double now_us(void)
{
    return (double)umo_os_now_ns() / 1e3;
}

void sleep_ms(unsigned ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&pause, NULL);
}

const char *probe_temporary(void)
{
    const char *folder = getenv("TMPDIR");
    return folder != NULL && folder[0] == '/' ? folder : "/tmp";
}

uint64_t probe_footprint(void)
{
#ifdef __APPLE__
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    return task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) == KERN_SUCCESS
               ? info.phys_footprint
               : 0;
#else
    char line[128];
    char *at = line;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return 0;
    }
    bool read = fgets(line, sizeof line, file) != NULL;
    (void)fclose(file);
    /* The size of everything, then of what is resident. */
    (void)(read ? strtoull(line, &at, 10) : 0);
    return read ? strtoull(at, NULL, 10) * (unsigned long long)sysconf(_SC_PAGESIZE) : 0;
#endif
}

/* ---- patterns ---- */

static uint32_t pattern_word(size_t at, uint32_t seed)
{
    uint32_t x = (uint32_t)at * UINT32_C(2654435761) + seed * UINT32_C(40503) + 1;
    return x ^ (x >> 15);
}

void pattern_write(void *data, size_t size_bytes, uint32_t seed)
{
    uint32_t *words = data;
    for (size_t i = 0; i < size_bytes / sizeof *words; i++) {
        words[i] = pattern_word(i, seed);
    }
}

bool pattern_is(const void *data, size_t size_bytes, uint32_t seed, uint32_t key)
{
    const uint32_t *words = data;
    for (size_t i = 0; i < size_bytes / sizeof *words; i++) {
        if (words[i] != (pattern_word(i, seed) ^ key)) {
            say("byte %zu of %zu is wrong: word %08x, not %08x", i * sizeof *words, size_bytes,
                words[i], pattern_word(i, seed) ^ key);
            return false;
        }
    }
    return true;
}

/* ---- the device ---- */

bool probe_is_stand_in(void)
{
    /* The fake takes the place of the system's own Metal when a Mac's programs are run on Linux. */
    return getenv("UMO_METAL_LIBRARY") != NULL || getenv("FAKE_METAL_KERNELS") != NULL;
}

const umo_program_source *probe_program(void)
{
    static umo_program_source source = {.kind = UMO_PROGRAM_SOURCE, .text = probe_metal_text};
    source.size_bytes = probe_metal_text_bytes;
    return &source;
}

void probe_open(probe *p)
{
    umo_error error = {0};
    p->stand_in = probe_is_stand_in();
    p->page = umo_os_page_bytes();
    must(umo_context_create(NULL, &p->context, NULL), "a context");
    p->scope = umo_context_scope(p->context);
    p->registry = umo_context_registry(p->context);
    if (umo_context_device(p->context, "metal", 0, &p->device, &error) != UMO_OK) {
        die("no Metal device: %s", error.text);
    }
    p->info = umo_device_info_get(p->device);
    const struct {
        const char *name;
        umo_kernel **out;
    } kernels[] = {
        {"probe_xor", &p->xor_words}, {"probe_touch", &p->touch}, {"probe_step", &p->step},
        {"probe_one", &p->one},       {"probe_poke", &p->poke},
    };
    umo_status status = umo_program_create(p->device, probe_program(), &p->program, &error);
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0] && status == UMO_OK; i++) {
        status = umo_kernel_create(p->program, kernels[i].name, kernels[i].out, &error);
    }
    if (status != UMO_OK) {
        die("the probe's kernels: %s", error.text);
    }
}

void probe_close(probe *p)
{
    umo_kernel_destroy(p->xor_words);
    umo_kernel_destroy(p->touch);
    umo_kernel_destroy(p->step);
    umo_kernel_destroy(p->one);
    umo_kernel_destroy(p->poke);
    umo_program_destroy(p->program);
    umo_device_release(p->device);
    umo_context_destroy(p->context);
    *p = (probe){0};
}

/* ---- memory ---- */

/* Its name is gone at once, or it would be left behind when somebody is killed. */
static int shm_take(size_t size_bytes)
{
    static unsigned made;
    char name[31];
    (void)snprintf(name, sizeof name, "/umo-%ld-%u", (long)getpid(), made++);
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    /* macOS gives shared memory its length once. */
    bool sized = file >= 0 && ftruncate(file, (off_t)size_bytes) == 0;
    if (file >= 0) {
        (void)shm_unlink(name);
    }
    if (!sized) {
        die("the system gives no shared memory");
    }
    return file;
}

static int file_take(size_t size_bytes)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/umo-mac-check-XXXXXX", probe_temporary());
    int file = mkstemp(path);
    if (file < 0 || ftruncate(file, (off_t)size_bytes) != 0) {
        die("no temporary file can be made");
    }
    (void)unlink(path);
    return file;
}

unsigned char *region_map_again(const region *r)
{
    void *data = pages_test_map(r->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->file, 0);
    if (data == MAP_FAILED) {
        die("the system maps no memory");
    }
    return data;
}

region region_take(probe *p, origin from, size_t size_bytes)
{
    void *data = NULL;
    region r = {.size_bytes = pages_test_round_up(size_bytes), .from = from, .file = -1};
    switch (from) {
    case ORIGIN_MALLOC:
        if (posix_memalign(&data, p->page, r.size_bytes) != 0) {
            die("malloc gives no memory");
        }
        memset(data, 0, r.size_bytes);
        r.data = data;
        return r;
    case ORIGIN_ANONYMOUS:
        data = pages_test_map(r.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                              0);
        if (data == MAP_FAILED) {
            die("the system maps no memory");
        }
        r.data = data;
        return r;
    case ORIGIN_SHM:
        r.file = shm_take(r.size_bytes);
        break;
    case ORIGIN_FILE:
        r.file = file_take(r.size_bytes);
        break;
    }
    r.data = region_map_again(&r);
    return r;
}

void region_give(region *r)
{
    if (r->from == ORIGIN_MALLOC) {
        free(r->data);
    } else if (r->data != NULL) {
        (void)munmap(r->data, r->size_bytes);
    }
    if (r->file >= 0) {
        (void)close(r->file);
    }
    *r = (region){.file = -1};
}

umo_buffer *probe_import(probe *p, void *data, size_t size_bytes, bool writable)
{
    const umo_import import = {.data = data, .size_bytes = size_bytes, .writable = writable};
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_NONE;
    umo_error error = {0};
    if (umo_buffer_import(p->device, p->scope, &import, &buffer, &why, &error) != UMO_OK) {
        say("refused, reason %s: %s", umo_reason_label(why), error.text);
        return NULL;
    }
    return buffer;
}

/* ---- launches ---- */

enum {
    USES_MAX = 4,
    VALUES_MAX = 4
};

static umo_access access_all(umo_buffer *buffer, umo_side side, umo_use how, uint32_t queue)
{
    return (umo_access){
        .size_bytes = umo_buffer_size(buffer), .side = side, .use = how, .queue = queue};
}

umo_fence probe_launch(umo_kernel *kernel, uint32_t queue, const use *uses, size_t use_count,
                       const uint32_t *values, size_t value_count, size_t count)
{
    umo_kernel_arg args[USES_MAX + VALUES_MAX];
    umo_fence_set waits = {0};
    size_t arg_count = 0;
    for (size_t i = 0; i < use_count; i++) {
        const umo_access access = access_all(uses[i].buffer, UMO_SIDE_DEVICE, uses[i].how, queue);
        umo_fence_set more;
        must(umo_access_begin(uses[i].buffer, &access, &more), "a device bracket");
        for (size_t f = 0; f < more.count; f++) {
            if (!umo_fence_set_add(&waits, more.fences[f])) {
                must(umo_fence_wait(more.fences[f], UINT64_MAX), "an earlier command");
            }
        }
        args[arg_count++] =
            (umo_kernel_arg){.kind = UMO_ARG_MEMORY,
                             .memory = umo_buffer_memory(uses[i].buffer),
                             .offset_bytes = umo_buffer_memory_offset(uses[i].buffer)};
    }
    for (size_t i = 0; i < value_count; i++) {
        args[arg_count++] = (umo_kernel_arg){
            .kind = UMO_ARG_VALUE, .value = &values[i], .size_bytes = sizeof values[i]};
    }
    const umo_grid grid = {.dimensions = 1, .global = {count}};
    umo_fence fence;
    umo_error error = {0};
    if (umo_kernel_launch(kernel, queue, args, arg_count, &grid, waits.fences, waits.count, &fence,
                          &error) != UMO_OK) {
        die("a launch failed: %s", error.text);
    }
    for (size_t i = 0; i < use_count; i++) {
        const umo_access access = access_all(uses[i].buffer, UMO_SIDE_DEVICE, uses[i].how, queue);
        must(umo_access_end(uses[i].buffer, &access, fence), "the end of a device bracket");
    }
    return fence;
}

void probe_run(umo_kernel *kernel, const use *uses, size_t use_count, const uint32_t *values,
               size_t value_count, size_t count)
{
    must(umo_fence_wait(probe_launch(kernel, 0, uses, use_count, values, value_count, count),
                        UINT64_MAX),
         "a command");
}

void host_begin(umo_buffer *buffer, umo_use how)
{
    const umo_access access = access_all(buffer, UMO_SIDE_HOST, how, 0);
    umo_fence_set waits;
    must(umo_access_begin(buffer, &access, &waits), "a host bracket");
    must(umo_fence_set_wait(&waits, UINT64_MAX), "what a host bracket waits for");
}

void host_end(umo_buffer *buffer, umo_use how)
{
    const umo_access access = access_all(buffer, UMO_SIDE_HOST, how, 0);
    must(umo_access_end(buffer, &access, (umo_fence){0}), "the end of a host bracket");
}
