/*
 * Assumptions: what the Metal driver relies on, and what the fake of tests/fake merely imitates
 * from Apple's documentation. Each check asks the machine.
 */
#include "checks.h"

#include "driver/device.h"
#include "os/os.h"
#include "os/pages_test.h"

#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#define MIB ((size_t)1 << 20)

/* A figure of the machine by its sysctl name; 0 where there is none. */
static uint64_t figure(const char *name)
{
#ifdef __APPLE__
    uint64_t value = 0;
    size_t value_bytes = sizeof value;
    return sysctlbyname(name, &value, &value_bytes, NULL, 0) == 0 ? value : 0;
#else
    (void)name;
    return 0;
#endif
}

static verdict page_size(probe *p)
{
    const uint64_t told = figure("hw.pagesize");
    say("pages of %zu bytes for umo, %ld by sysconf, %llu by hw.pagesize; imports at multiples of "
        "%zu",
        p->page, sysconf(_SC_PAGESIZE), (unsigned long long)told, p->info->import_align_bytes);
    /* The smallest import, at an odd multiple of a page. */
    region r = region_take(p, ORIGIN_ANONYMOUS, 2 * p->page);
    umo_buffer *buffer = probe_import(p, r.data + p->page, p->page, true);
    const bool taken = buffer != NULL;
    umo_buffer_release(buffer);
    region_give(&r);
    return taken && (told == 0 || told == p->page) && p->info->import_align_bytes == p->page
               ? VERDICT_HOLDS
               : VERDICT_FAILS;
}

/* ---- what the device says of memory ---- */

static umo_device_usage usage(const probe *p)
{
    umo_device_usage now = {0};
    must(p->device->driver->usage(p->device->state, &now), "the device's usage");
    return now;
}

static verdict limits(probe *p)
{
    const size_t size_bytes = 64 * MIB;
    umo_buffer *buffer = NULL;
    const umo_device_usage before = usage(p);
    must(umo_buffer_alloc(p->device, p->scope, size_bytes, UMO_UNIFIED, &buffer, NULL),
         "an allocation");
    const umo_device_usage during = usage(p);
    umo_buffer_release(buffer);
    const umo_device_usage after = usage(p);
    region r = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    buffer = probe_import(p, r.data, r.size_bytes, true);
    const umo_device_usage imported = usage(p);
    umo_buffer_release(buffer);
    region_give(&r);
    say("longest buffer %llu, working set %llu, wired limit of the system (MB) %llu, memory of the "
        "machine %llu",
        (unsigned long long)p->info->buffer_max_bytes, (unsigned long long)before.budget_bytes,
        (unsigned long long)figure("iogpu.wired_limit_mb"),
        (unsigned long long)umo_os_memory_bytes());
    say("allocated: %llu, with 64 MiB %llu, without them %llu, with an import of 64 MiB %llu",
        (unsigned long long)before.allocated_bytes, (unsigned long long)during.allocated_bytes,
        (unsigned long long)after.allocated_bytes, (unsigned long long)imported.allocated_bytes);
    return p->info->buffer_max_bytes >= 256 * MIB && before.budget_bytes > 0 &&
                   before.budget_bytes == p->info->memory_bytes &&
                   during.allocated_bytes >= before.allocated_bytes + size_bytes &&
                   after.allocated_bytes + size_bytes <= during.allocated_bytes
               ? VERDICT_HOLDS
               : VERDICT_FAILS;
}

static bool purged_right(probe *p, umo_storage_mode mode, size_t size_bytes)
{
    const umo_driver *driver = p->device->driver;
    void *state = p->device->state;
    umo_memory memory;
    bool lost = false;
    must(driver->alloc(state, size_bytes, mode, &memory, NULL), "an allocation");
    if (memory.host != NULL) {
        pattern_write(memory.host, size_bytes, 3);
    }
    must(driver->purgeable(state, &memory, UMO_PURGEABLE_EMPTY, &lost), "emptying");
    must(driver->purgeable(state, &memory, UMO_PURGEABLE_KEPT, &lost), "keeping again");
    const bool lost_when_emptied = lost;
    if (memory.host != NULL) {
        pattern_write(memory.host, size_bytes, 4);
    }
    must(driver->purgeable(state, &memory, UMO_PURGEABLE_VOLATILE, &lost), "letting go");
    must(driver->purgeable(state, &memory, UMO_PURGEABLE_KEPT, &lost), "keeping again");
    const bool told_right =
        lost || memory.host == NULL || pattern_is(memory.host, size_bytes, 4, 0);
    say("mode %d: emptied memory is told lost: %s; volatile memory: lost %s, told rightly: %s",
        (int)mode, lost_when_emptied ? "yes" : "no", lost ? "yes" : "no",
        told_right ? "yes" : "no");
    driver->free(state, &memory);
    return lost_when_emptied && told_right;
}

static verdict purgeable(probe *p)
{
    const bool unified = purged_right(p, UMO_UNIFIED, 16 * MIB);
    const bool private = purged_right(p, UMO_PRIVATE, 16 * MIB);
    return unified && private ? VERDICT_HOLDS : VERDICT_FAILS;
}

static verdict system_purgeable(probe *p)
{
    void *pages = NULL;
    bool lost = false;
    umo_status status = umo_os_pages_alloc_purgeable(4 * p->page, &pages);
    if (status == UMO_OK) {
        pattern_write(pages, 4 * p->page, 5);
        status = umo_os_pages_purgeable(pages, UMO_PURGEABLE_EMPTY, &lost);
    }
    if (status == UMO_OK) {
        status = umo_os_pages_purgeable(pages, UMO_PURGEABLE_KEPT, &lost);
    }
    umo_os_pages_free(pages, 4 * p->page);
    say("%s, told lost: %s", umo_status_name(status), lost ? "yes" : "no");
    if (status == UMO_E_UNSUPPORTED && p->stand_in) {
        return VERDICT_UNKNOWN;
    }
    return status == UMO_OK && lost ? VERDICT_HOLDS : VERDICT_FAILS;
}

static void pressure_ignore(umo_os_pressure_level level, void *user)
{
    (void)level;
    (void)user;
}

static verdict pressure(probe *p)
{
    umo_os_pressure *source = NULL;
    umo_status status = umo_os_pressure_create(pressure_ignore, NULL, &source);
    say("%s", umo_status_name(status));
    umo_os_pressure_destroy(status == UMO_OK ? source : NULL);
    if (status == UMO_E_UNSUPPORTED && p->stand_in) {
        return VERDICT_UNKNOWN;
    }
    return status == UMO_OK ? VERDICT_HOLDS : VERDICT_FAILS;
}

/* ---- whose memory an address is ---- */

static umo_mapping mapping_of(const void *data)
{
    umo_mapping mapping = {0};
    must(umo_mapping_query(data, &mapping), "the look-up of a mapping");
    return mapping;
}

static bool same_file(const umo_mapping *one, const umo_mapping *other)
{
    return one->device == other->device && one->inode == other->inode;
}

static verdict identity(probe *p)
{
    const origin kinds[] = {ORIGIN_SHM, ORIGIN_FILE};
    bool right = true;
    region anonymous = region_take(p, ORIGIN_ANONYMOUS, 2 * p->page);
    memset(anonymous.data, 1, anonymous.size_bytes);
    right = !mapping_of(anonymous.data).shared;
    say("anonymous memory is shared: %s", right ? "no" : "yes");
    umo_buffer *buffer = probe_import(p, anonymous.data, anonymous.size_bytes, true);
    if (buffer == NULL) {
        return VERDICT_FAILS;
    }
    /* Metal's own mapping may count as another user of the pages. That would break nothing: umo
     * would make a view where it needs none. So it is told only. */
    say("anonymous memory, while it is imported, is shared: %s",
        mapping_of(anonymous.data).shared ? "YES" : "no");
    umo_buffer_release(buffer);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        region one = region_take(p, kinds[i], 2 * p->page);
        region other = region_take(p, kinds[i], 2 * p->page);
        memset(one.data, 1, one.size_bytes);
        memset(other.data, 1, other.size_bytes);
        unsigned char *again = region_map_again(&one);
        again[0] = 2;
        const umo_mapping first = mapping_of(one.data);
        const umo_mapping second = mapping_of(again);
        const umo_mapping third = mapping_of(other.data);
        say("%s: shared %d, an identity %d, the same for a second mapping %d, another for another "
            "object %d",
            kinds[i] == ORIGIN_SHM ? "shared memory" : "a file", first.shared, first.inode != 0,
            same_file(&first, &second), !same_file(&first, &third));
        right = right && first.shared && first.inode != 0 && same_file(&first, &second) &&
                !same_file(&first, &third);
        (void)munmap(again, one.size_bytes);
        region_give(&one);
        region_give(&other);
    }
    region_give(&anonymous);
    return right ? VERDICT_HOLDS : VERDICT_FAILS;
}

static verdict untouched_identity(probe *p)
{
    region r = region_take(p, ORIGIN_SHM, 2 * p->page);
    const umo_mapping mapping = mapping_of(r.data);
    void *own = NULL;
    umo_view *view = NULL;
    umo_error error = {0};
    umo_status status =
        umo_view_find(p->registry, r.data, r.size_bytes, &mapping, &own, &view, &error);
    say("shared %d, an identity %d; a view: %s %s", mapping.shared, mapping.inode != 0,
        umo_status_name(status), error.text);
    umo_view_release(view);
    region_give(&r);
    if (status == UMO_OK) {
        return VERDICT_HOLDS;
    }
    /* No memory, or a bug, would be another status. */
    return status == UMO_E_REFUSED && mapping.inode == 0 ? VERDICT_STRICTER : VERDICT_FAILS;
}

/* ---- order ---- */

enum {
    ORDER_WORDS = 1024,
    ORDER_LAUNCHES = 1200 /* more than the rings of all queues hold */
};

static bool ordered(probe *p, uint32_t queues, unsigned char *bytes, umo_buffer *buffer)
{
    uint32_t expected = 1;
    umo_fence last = {0};
    uint32_t *words = (uint32_t *)(void *)bytes;
    host_begin(buffer, UMO_WRITE);
    for (size_t i = 0; i < ORDER_WORDS; i++) {
        words[i] = expected;
    }
    host_end(buffer, UMO_WRITE);
    double start_us = now_us();
    for (uint32_t i = 0; i < ORDER_LAUNCHES; i++) {
        const use uses[] = {{buffer, UMO_READ_WRITE}};
        expected = expected * 3 + i;
        last = probe_launch(p->step, i % queues, uses, 1, &i, 1, ORDER_WORDS);
    }
    must(umo_fence_wait(last, UINT64_MAX), "the commands");
    double took_us = now_us() - start_us;
    host_begin(buffer, UMO_READ);
    bool right = true;
    for (size_t i = 0; i < ORDER_WORDS; i++) {
        right = right && words[i] == expected;
    }
    host_end(buffer, UMO_READ);
    say("%u launches over %u queue(s), each on the last one's result: %s, %.1f us each",
        (unsigned)ORDER_LAUNCHES, queues, right ? "in order" : "NOT in order",
        took_us / ORDER_LAUNCHES);
    return right;
}

static verdict order(probe *p)
{
    region r = region_take(p, ORIGIN_ANONYMOUS, ORDER_WORDS * sizeof(uint32_t));
    umo_buffer *buffer = probe_import(p, r.data, r.size_bytes, true);
    if (buffer == NULL) {
        return VERDICT_FAILS;
    }
    const bool one = ordered(p, 1, r.data, buffer);
    const bool all = ordered(p, p->info->queues, r.data, buffer);
    umo_buffer_release(buffer);
    region_give(&r);
    return one && all ? VERDICT_HOLDS : VERDICT_FAILS;
}

/* Looks at the very moment the fence has passed, by waiting and by asking. */
static verdict seen_at_the_fence(probe *p)
{
    const uint32_t times = p->stand_in ? 400 : 4000;
    region r = region_take(p, ORIGIN_ANONYMOUS, p->page);
    umo_buffer *buffer = probe_import(p, r.data, r.size_bytes, true);
    unsigned stale = 0;
    if (buffer == NULL) {
        return VERDICT_FAILS;
    }
    volatile uint32_t *word = (uint32_t *)(void *)r.data;
    for (uint32_t i = 1; i <= times; i++) {
        const use uses[] = {{buffer, UMO_READ_WRITE}};
        umo_fence fence = probe_launch(p->one, i % p->info->queues, uses, 1, &i, 1, 1);
        if (i % 2 == 0) {
            must(umo_fence_wait(fence, UINT64_MAX), "a command");
        }
        while (!umo_fence_done(fence)) {
        }
        stale += *word != i;
    }
    say("%u commands, old bytes seen %u times", times, stale);
    umo_buffer_release(buffer);
    region_give(&r);
    return stale == 0 ? VERDICT_HOLDS : VERDICT_FAILS;
}

static verdict launches_leave_nothing(probe *p)
{
    const uint32_t times = p->stand_in ? 2000 : 10000;
    umo_buffer *buffer = NULL;
    uint64_t before = 0;
    must(umo_buffer_alloc(p->device, p->scope, p->page, UMO_UNIFIED, &buffer, NULL),
         "an allocation");
    for (uint32_t i = 0; i < 2 * times; i++) {
        const use uses[] = {{buffer, UMO_READ_WRITE}};
        before = i == times ? probe_footprint() : before;
        probe_run(p->one, uses, 1, &i, 1, 1);
    }
    uint64_t after = probe_footprint();
    umo_buffer_release(buffer);
    const double each = ((double)after - (double)before) / times;
    say("%u launches on a thread without a pool: memory grew by %.0f bytes each", times, each);
    if (before == 0) {
        return VERDICT_UNKNOWN;
    }
    return each < 256 ? VERDICT_HOLDS : VERDICT_FAILS;
}

static verdict compiler_words(probe *p)
{
    static const char text[] = "#include <metal_stdlib>\nusing namespace metal;\n"
                               "kernel void broken(device uint *words [[buffer(0)]])\n"
                               "{\n    words[0] = never_declared;\n}\n";
    const umo_program_source source = {
        .kind = UMO_PROGRAM_SOURCE, .text = text, .size_bytes = sizeof text - 1};
    umo_program *program = NULL;
    umo_error error = {0};
    umo_status status = umo_program_create(p->device, &source, &program, &error);
    say("%s: %s", umo_status_name(status), error.text);
    if (status == UMO_OK) {
        umo_program_destroy(program);
        say("the text was taken: this Metal does not compile");
        return p->stand_in ? VERDICT_UNKNOWN : VERDICT_FAILS;
    }
    return status == UMO_E_INVAL && strstr(error.text, "never_declared") != NULL ? VERDICT_HOLDS
                                                                                 : VERDICT_FAILS;
}

const check probe_assumptions[] = {
    {"A01", "a page is what the system says, and one page can be imported", page_size,
     .limit_s = 60},
    {"A02", "beside what the GPU wrote, bytes a granule away stay the CPU's", check_write_granule,
     .limit_s = 120},
    {"A03", "Metal does not take memory that may only be read", check_read_only, .limit_s = 60,
     .own_devices = true, .may_end = true},
    {"A04", "Metal does not take the pages of two mappings at once", check_two_mappings,
     .limit_s = 60, .own_devices = true, .may_end = true},
    {"A05", "Metal takes whole pages only", check_off_page, .limit_s = 60, .own_devices = true,
     .may_end = true},
    {"A06", "Metal makes no buffer of no bytes", check_no_bytes, .limit_s = 60, .own_devices = true,
     .may_end = true},
    {"A07", "wrapped memory is told with its own address and full length", check_contents,
     .limit_s = 60, .own_devices = true},
    {"A08", "small memory out of a heap lies as Metal says", check_heap_align, .limit_s = 60,
     .own_devices = true},
    {"A09", "the device tells its limits and what is allocated", limits, .limit_s = 60},
    {"A10", "events order commands in one queue and across queues", order, .limit_s = 120},
    {"A11", "bytes are the host's when the fence has passed", seen_at_the_fence, .limit_s = 120},
    {"A12", "a completed handler runs after its command's event", check_handler_after_event,
     .limit_s = 60, .own_devices = true},
    {"A13", "purged memory is told to be lost, kept memory is kept", purgeable, .limit_s = 60},
    {"A14", "the system's purgeable pages say when they are lost", system_purgeable, .limit_s = 60},
    {"A15", "memory stays warm over 3 s of rest in a residency set", check_residency,
     .limit_s = 300, .own_devices = true, .unvalidated = true},
    {"A16", "a kernel's second building comes out of the archive", check_archive, .limit_s = 120,
     .own_devices = true, .unvalidated = true},
    {"A17", "the compiler's words name the mistake", compiler_words, .limit_s = 60},
    {"A18", "launches leave nothing behind", launches_leave_nothing, .limit_s = 120,
     .unvalidated = true},
    {"A19", "shared memory is known by its object, however it is mapped", identity, .limit_s = 60},
    {"A20", "shared memory that nobody has touched can have a view", untouched_identity,
     .limit_s = 60},
    {"A21", "the system takes a watcher of memory pressure", pressure, .limit_s = 60},
};
const size_t probe_assumption_count = sizeof probe_assumptions / sizeof probe_assumptions[0];
