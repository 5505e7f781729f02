/*
 * Witnesses: the GPU uses memory of somebody else where it lies, seen from both ends.
 *
 * The CPU writes after the import and through its own pointer, so a copy made by the import shows
 * as old bytes; the GPU's result is read at the pointer that its owner has, so a copy on the way
 * back shows too.
 */
#include "probe.h"

#include "driver/device.h"
#include "os/pages_test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum {
    PIECE_PAGES = 3,
    ROUNDS = 4
};

#define MIB ((size_t)1 << 20)

/* out = in ^ key on the GPU, round after round over the same two imports. The owners' pointers may
 * be other mappings of the same memory than those that were imported. */
static verdict in_place(probe *p, umo_buffer *in, unsigned char *in_owner, umo_buffer *out,
                        unsigned char *out_owner, size_t size_bytes)
{
    umo_counters before;
    umo_counters after;
    umo_scope_read(p->scope, &before);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        const uint32_t key = UINT32_C(0x5a5a0000) + round;
        const use uses[] = {{in, UMO_READ}, {out, UMO_WRITE}};
        host_begin(in, UMO_WRITE);
        pattern_write(in_owner, size_bytes, round);
        host_end(in, UMO_WRITE);
        probe_run(p->xor_words, uses, 2, &key, 1, size_bytes / sizeof(uint32_t));
        host_begin(out, UMO_READ);
        bool right = pattern_is(out_owner, size_bytes, round, key);
        host_end(out, UMO_READ);
        if (!right) {
            say("in round %u: the owner's pointer does not show what the GPU computed", round);
            return VERDICT_FAILS;
        }
    }
    umo_scope_read(p->scope, &after);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        if (after.transfer_performed[d].events != before.transfer_performed[d].events) {
            say("umo moved bytes");
            return VERDICT_FAILS;
        }
    }
    return VERDICT_HOLDS;
}

static verdict origin_in_place(probe *p, origin from)
{
    const size_t size_bytes = PIECE_PAGES * p->page;
    region in = region_take(p, from, size_bytes);
    region out = region_take(p, from, size_bytes);
    umo_buffer *in_buffer = probe_import(p, in.data, size_bytes, true);
    umo_buffer *out_buffer = probe_import(p, out.data, size_bytes, true);
    verdict v = VERDICT_FAILS;
    if (in_buffer != NULL && out_buffer != NULL) {
        v = in_place(p, in_buffer, in.data, out_buffer, out.data, size_bytes);
        say("%d rounds over the same two imports of %zu bytes", ROUNDS, size_bytes);
    }
    umo_buffer_release(in_buffer);
    umo_buffer_release(out_buffer);
    region_give(&in);
    region_give(&out);
    return v;
}

static verdict anonymous_memory(probe *p)
{
    return origin_in_place(p, ORIGIN_ANONYMOUS);
}

static verdict malloc_memory(probe *p)
{
    return origin_in_place(p, ORIGIN_MALLOC);
}

static verdict shared_memory(probe *p)
{
    return origin_in_place(p, ORIGIN_SHM);
}

static verdict file_memory(probe *p)
{
    return origin_in_place(p, ORIGIN_FILE);
}

/* umo's own view of a region, imported; NULL after saying why not. */
static umo_buffer *view_import(probe *p, const region *r, umo_view **view)
{
    umo_mapping mapping;
    void *own = NULL;
    umo_error error = {0};
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_NONE;
    umo_status status = umo_mapping_query(r->data, &mapping);
    if (status != UMO_OK) {
        say("the system does not say whose memory it is: %s", umo_status_name(status));
        return NULL;
    }
    status = umo_view_find(p->registry, r->data, r->size_bytes, &mapping, &own, view, &error);
    if (status != UMO_OK) {
        say("no view: %s: %s", umo_status_name(status), error.text);
        return NULL;
    }
    say("the view is %s mapping", own == r->data ? "the client's own" : "a second");
    status = umo_registry_wrap(p->registry, p->device, p->scope, own, r->size_bytes, true, &buffer,
                               &why, &error);
    if (status != UMO_OK) {
        say("the view is refused, reason %s: %s", umo_reason_label(why), error.text);
        umo_view_release(*view);
        return NULL;
    }
    return buffer;
}

static verdict views_in_place(probe *p, bool unmap_first)
{
    const size_t size_bytes = PIECE_PAGES * p->page;
    region in = region_take(p, ORIGIN_SHM, size_bytes);
    region out = region_take(p, ORIGIN_SHM, size_bytes);
    umo_view *in_view = NULL;
    umo_view *out_view = NULL;
    verdict v = VERDICT_FAILS;
    memset(in.data, 1, size_bytes);
    memset(out.data, 1, size_bytes);
    umo_buffer *in_buffer = view_import(p, &in, &in_view);
    umo_buffer *out_buffer = in_buffer != NULL ? view_import(p, &out, &out_view) : NULL;
    if (out_buffer != NULL) {
        unsigned char *in_owner = region_map_again(&in);
        unsigned char *out_owner = region_map_again(&out);
        if (unmap_first) {
            (void)munmap(in.data, in.size_bytes);
            (void)munmap(out.data, out.size_bytes);
            in.data = NULL;
            out.data = NULL;
        }
        v = in_place(p, in_buffer, in_owner, out_buffer, out_owner, size_bytes);
        (void)munmap(in_owner, in.size_bytes);
        (void)munmap(out_owner, out.size_bytes);
        umo_buffer_release(out_buffer);
        umo_view_release(out_view);
    }
    if (in_buffer != NULL) {
        umo_buffer_release(in_buffer);
        umo_view_release(in_view);
    }
    region_give(&in);
    region_give(&out);
    return v;
}

static verdict own_view(probe *p)
{
    return views_in_place(p, false);
}

static verdict own_view_outlives(probe *p)
{
    return views_in_place(p, true);
}

/* Another process, its client, fills the first half of shared memory; the GPU makes the second half
 * of it; the client looks at that. */
static verdict other_process(probe *p)
{
    const size_t half = PIECE_PAGES * p->page;
    char file[16];
    char bytes[32];
    umo_view *view = NULL;
    verdict v = VERDICT_FAILS;
    region r = region_take(p, ORIGIN_SHM, 2 * half);
    /* The client inherits it. */
    (void)fcntl(r.file, F_SETFD, 0);
    (void)snprintf(file, sizeof file, "%d", r.file);
    (void)snprintf(bytes, sizeof bytes, "%zu", half);
    const char *const fill[] = {"client", "fill", file, bytes, NULL};
    const char *const look[] = {"client", "look", file, bytes, NULL};
    int filled = self_run(fill, 20, NULL, 0);
    umo_buffer *buffer = filled == 0 ? view_import(p, &r, &view) : NULL;
    if (filled != 0) {
        say("the client failed: %d", filled);
    }
    if (buffer != NULL) {
        const umo_kernel_arg args[] = {
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(buffer)},
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(buffer), .offset_bytes = half},
            {.kind = UMO_ARG_VALUE,
             .value = &(const uint32_t){UINT32_C(0x12345678)},
             .size_bytes = 4}};
        const umo_grid grid = {.dimensions = 1, .global = {half / sizeof(uint32_t)}};
        const umo_access access = {
            .size_bytes = r.size_bytes, .side = UMO_SIDE_DEVICE, .use = UMO_READ_WRITE};
        umo_fence_set waits;
        umo_fence fence;
        must(umo_access_begin(buffer, &access, &waits), "a bracket");
        must(umo_kernel_launch(p->xor_words, 0, args, 3, &grid, waits.fences, waits.count, &fence,
                               NULL),
             "a launch");
        must(umo_access_end(buffer, &access, fence), "the end of a bracket");
        must(umo_fence_wait(fence, UINT64_MAX), "a command");
        v = self_run(look, 20, NULL, 0) == 0 ? VERDICT_HOLDS : VERDICT_FAILS;
        umo_buffer_release(buffer);
        umo_view_release(view);
    }
    region_give(&r);
    return v;
}

/* What Metal says it has allocated on the device. */
static uint64_t metals_bytes(const probe *p)
{
    umo_device_usage now = {0};
    must(p->device->driver->usage(p->device->state, &now), "the device's usage");
    return now.allocated_bytes;
}

static double to_mib(uint64_t from, uint64_t to)
{
    return ((double)to - (double)from) / (double)MIB;
}

/* A census of pages, as far as one can be had from outside: what the process holds before and
 * after. Memory of the same size that umo allocates shows that the meter would see a copy. */
static verdict no_hidden_copy(probe *p)
{
    const size_t size_bytes = p->stand_in ? 32 * MIB : 256 * MIB;
    const double size_mib = (double)size_bytes / (double)MIB;
    region r = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    region found = region_take(p, ORIGIN_ANONYMOUS, size_bytes / p->page * sizeof(uint32_t));
    umo_buffer *sums = probe_import(p, found.data, found.size_bytes, true);
    pattern_write(r.data, size_bytes, 7);
    memset(found.data, 0, found.size_bytes);
    const uint32_t step = (uint32_t)(p->page / sizeof(uint32_t));
    uint64_t before = probe_footprint();
    const uint64_t metal_before = metals_bytes(p);
    umo_buffer *buffer = probe_import(p, r.data, size_bytes, true);
    if (buffer == NULL || sums == NULL) {
        return VERDICT_FAILS;
    }
    const use uses[] = {{buffer, UMO_READ}, {sums, UMO_WRITE}};
    uint64_t imported = probe_footprint();
    const uint64_t metal_imported = metals_bytes(p);
    probe_run(p->touch, uses, 2, &step, 1, 1);
    uint64_t one_page = probe_footprint();
    probe_run(p->touch, uses, 2, &step, 1, size_bytes / p->page);
    uint64_t all_pages = probe_footprint();
    const uint64_t metal_used = metals_bytes(p);
    const uint32_t *words = (const uint32_t *)(const void *)r.data;
    const uint32_t *sum = (const uint32_t *)(const void *)found.data;
    for (size_t i = 0; i < size_bytes / p->page; i++) {
        if (sum[i] != words[i * step]) {
            die("the GPU read another word in page %zu", i);
        }
    }
    umo_buffer_release(buffer);
    const uint64_t metal_after = metals_bytes(p);
    umo_buffer_release(sums);
    umo_buffer *control = NULL;
    uint64_t control_before = probe_footprint();
    must(umo_buffer_alloc(p->device, p->scope, size_bytes, UMO_UNIFIED, &control, NULL),
         "an allocation");
    host_begin(control, UMO_WRITE);
    memset(umo_buffer_host(control), 1, size_bytes);
    host_end(control, UMO_WRITE);
    uint64_t control_after = probe_footprint();
    umo_buffer_release(control);
    region_give(&r);
    region_give(&found);
    say("growth in MiB: import of %.0f: %+.1f; kernel on one page: %+.1f; on every page: %+.1f",
        size_mib, to_mib(before, imported), to_mib(before, one_page), to_mib(before, all_pages));
    say("the meter, shown an allocation of %.0f: %+.1f", size_mib,
        to_mib(control_before, control_after));
    say("Metal's own count: import: %+.1f; after the kernels: %+.1f; after the release: %+.1f",
        to_mib(metal_before, metal_imported), to_mib(metal_before, metal_used),
        to_mib(metal_before, metal_after));
    if (judge_metals_count(size_mib, to_mib(metal_before, metal_imported),
                           to_mib(metal_imported, metal_used)) == VERDICT_FAILS) {
        say("Metal counts more than the import");
        return VERDICT_FAILS;
    }
    if (before == 0 || to_mib(control_before, control_after) < size_mib / 2) {
        say("the meter does not see memory grow here");
        return VERDICT_UNKNOWN;
    }
    return to_mib(before, all_pages) < size_mib / 4 ? VERDICT_HOLDS : VERDICT_FAILS;
}

/* Memory is unmapped right after its import is released, and other memory takes its address. */
static verdict reused_address(probe *p)
{
    enum {
        TIMES = 40
    };
    const size_t size_bytes = PIECE_PAGES * p->page;
    region out = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    region in = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    verdict v = VERDICT_HOLDS;
    double release_us = 0;
    for (uint32_t time = 0; time < TIMES && v == VERDICT_HOLDS; time++) {
        umo_buffer *from = probe_import(p, in.data, size_bytes, true);
        umo_buffer *to = probe_import(p, out.data, size_bytes, true);
        if (from == NULL || to == NULL) {
            return VERDICT_FAILS;
        }
        v = in_place(p, from, in.data, to, out.data, size_bytes);
        double start_us = now_us();
        umo_buffer_release(from);
        umo_buffer_release(to);
        release_us += now_us() - start_us;
        if (mmap(in.data, in.size_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)in.data) {
            die("the system maps no memory");
        }
    }
    say("%d times at one address; two imports were let go in %.0f us on average", TIMES,
        release_us / TIMES);
    region_give(&in);
    region_give(&out);
    return v;
}

static verdict many_imports(probe *p)
{
    const size_t count = p->stand_in ? 256 : 4096;
    region r = region_take(p, ORIGIN_ANONYMOUS, count * p->page);
    umo_buffer **buffers = calloc(count, sizeof *buffers);
    umo_fence last = {0};
    if (buffers == NULL) {
        die("no memory");
    }
    double start_us = now_us();
    for (size_t i = 0; i < count; i++) {
        buffers[i] = probe_import(p, r.data + i * p->page, p->page, true);
        if (buffers[i] == NULL) {
            die("import %zu of %zu", i, count);
        }
    }
    double made_us = now_us();
    for (size_t i = 0; i < count; i++) {
        const use uses[] = {{buffers[i], UMO_READ_WRITE}};
        const uint32_t value = (uint32_t)i + 1;
        last = probe_launch(p->one, 0, uses, 1, &value, 1, 1);
    }
    must(umo_fence_wait(last, UINT64_MAX), "the commands");
    double used_us = now_us();
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, r.data + i * p->page, sizeof word);
        if (word != i + 1) {
            die("import %zu holds %u", i, word);
        }
        umo_buffer_release(buffers[i]);
    }
    double freed_us = now_us();
    say("%zu imports of a page at once; each: made in %.1f us, used in %.1f us, let go in %.1f us",
        count, (made_us - start_us) / (double)count, (used_us - made_us) / (double)count,
        (freed_us - used_us) / (double)count);
    free(buffers);
    region_give(&r);
    return VERDICT_HOLDS;
}

/* Pages of the file that nobody has read or written yet: a CPU that writes to one gets a page of
 * its own then, and a GPU that was shown the file's page would go on reading that. */
static verdict private_file(probe *p)
{
    const size_t size_bytes = PIECE_PAGES * p->page;
    const uint32_t key = UINT32_C(0x00c0ffee);
    region file = region_take(p, ORIGIN_FILE, size_bytes);
    region out = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    pattern_write(file.data, size_bytes, 21);
    unsigned char *own =
        pages_test_map(size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.file, 0);
    if (own == MAP_FAILED) {
        die("the system maps no memory");
    }
    umo_buffer *in_buffer = probe_import(p, own, size_bytes, true);
    umo_buffer *out_buffer = probe_import(p, out.data, size_bytes, true);
    verdict v = VERDICT_FAILS;
    if (in_buffer != NULL && out_buffer != NULL) {
        const use uses[] = {{in_buffer, UMO_READ}, {out_buffer, UMO_WRITE}};
        probe_run(p->xor_words, uses, 2, &key, 1, size_bytes / sizeof(uint32_t));
        host_begin(out_buffer, UMO_READ);
        const bool file_read = pattern_is(out.data, size_bytes, 21, key);
        host_end(out_buffer, UMO_READ);
        say("the GPU reads the file's bytes: %s", file_read ? "yes" : "NO");
        v = file_read ? in_place(p, in_buffer, own, out_buffer, out.data, size_bytes) : v;
    }
    if (v == VERDICT_HOLDS && !pattern_is(file.data, size_bytes, 21, 0)) {
        say("the file itself was written to");
        v = VERDICT_FAILS;
    }
    umo_buffer_release(in_buffer);
    umo_buffer_release(out_buffer);
    (void)munmap(own, size_bytes);
    region_give(&file);
    region_give(&out);
    return v;
}

/* After a fork both processes' pages are copied on the next write: the GPU must stay with those of
 * the process that imported them. */
static verdict after_fork(probe *p)
{
    const size_t size_bytes = PIECE_PAGES * p->page;
    region in = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    region out = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
    umo_buffer *in_buffer = probe_import(p, in.data, size_bytes, true);
    umo_buffer *out_buffer = probe_import(p, out.data, size_bytes, true);
    if (in_buffer == NULL || out_buffer == NULL) {
        return VERDICT_FAILS;
    }
    verdict v = in_place(p, in_buffer, in.data, out_buffer, out.data, size_bytes);
    const pid_t parent = getpid();
    pid_t other = v == VERDICT_HOLDS ? fork() : -1;
    if (other == 0) {
        /* Holds on to its side of the pages; touches nothing else of this process. */
        while (getppid() == parent) {
            sleep_ms(100);
        }
        _exit(0);
    }
    if (other > 0) {
        v = in_place(p, in_buffer, in.data, out_buffer, out.data, size_bytes);
        (void)kill(other, SIGKILL);
        (void)waitpid(other, NULL, 0);
    }
    umo_buffer_release(in_buffer);
    umo_buffer_release(out_buffer);
    region_give(&in);
    region_give(&out);
    return other > 0 ? v : VERDICT_FAILS;
}

const check probe_witnesses[] = {
    {"W01", "anonymous memory is used where it lies", anonymous_memory, .limit_s = 60},
    {"W02", "malloc's memory is used where it lies", malloc_memory, .limit_s = 60},
    {"W03", "POSIX shared memory is used where it lies", shared_memory, .limit_s = 60},
    {"W04", "a shared mapping of a file is used where it lies", file_memory, .limit_s = 60},
    {"W05", "umo's own view of shared memory is used where it lies", own_view, .limit_s = 60},
    {"W06", "the view lives on when its client's mapping is gone", own_view_outlives,
     .limit_s = 60},
    {"W07", "what another process wrote is read, and what the GPU wrote is seen there",
     other_process, .limit_s = 90},
    {"W08", "an import makes no copy that the process's footprint or Metal's own count would show",
     no_hidden_copy, .limit_s = 120, .unvalidated = true},
    {"W09", "an address that means other memory now is not mixed up with the old", reused_address,
     .limit_s = 120},
    {"W10", "thousands of imports live side by side", many_imports, .limit_s = 120},
    {"W11", "a private mapping of a file is used where it lies", private_file, .limit_s = 60},
    {"W12", "a fork does not part the CPU from the GPU", after_fork, .limit_s = 60},
};
const size_t probe_witness_count = sizeof probe_witnesses / sizeof probe_witnesses[0];
