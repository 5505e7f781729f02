/*
 * Benchmarks of one Metal device: umo against the conventional way, in turns inside this process.
 * Figures are medians of the turns, the spread is the range between their quartiles; every result
 * is compared with what it must be before its time counts.
 */
#include "plain.h"

#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TURNS_MAX = 31,
    LAUNCHES_A_TURN = 50,
    PIECES = 8
};

#define MIB ((size_t)1 << 20)

typedef struct series {
    double us[TURNS_MAX];
    int count;
} series;

typedef struct bench {
    probe p;
    int turns;
} bench;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void series_add(series *s, double us)
{
    s->us[s->count++] = us;
}

static double quantile(series *s, double q)
{
    qsort(s->us, (size_t)s->count, sizeof s->us[0], compare);
    return s->us[(size_t)(q * (s->count - 1) + 0.5)];
}

/* ratio: how many times longer the opponent takes. */
static void claim(const bench *b, const char *name, series *ours, const char *opponent,
                  series *theirs)
{
    double ours_us = quantile(ours, 0.5);
    double theirs_us = quantile(theirs, 0.5);
    (void)printf("{\"claim\": \"metal_%s\", \"value\": %.2f, \"unit\": \"us\", \"opponent\": "
                 "\"%s: %.2f us\", \"ratio\": %.2f, \"spread\": [%.2f, %.2f], \"command\": "
                 "\"mac_probe bench\"%s}\n",
                 name, ours_us, opponent, theirs_us, theirs_us / ours_us,
                 quantile(theirs, 0.25) / quantile(ours, 0.75),
                 quantile(theirs, 0.75) / quantile(ours, 0.25),
                 b->p.stand_in ? ", \"note\": \"stand-in: times mean nothing\"" : "");
}

static umo_buffer *import_must(bench *b, const region *r)
{
    umo_buffer *buffer = probe_import(&b->p, r->data, r->size_bytes, true);
    if (buffer == NULL) {
        die("the memory cannot be imported");
    }
    return buffer;
}

static void check_bytes(const void *data, size_t size_bytes, uint32_t seed, uint32_t key,
                        const char *what)
{
    if (!pattern_is(data, size_bytes, seed, key)) {
        die("%s: wrong bytes; no time counts", what);
    }
}

/* ---- one launch ---- */

static void launch_round_trip(bench *b)
{
    series ours = {.count = 0};
    series theirs = {.count = 0};
    probe *p = &b->p;
    plain m;
    umo_buffer *buffer = NULL;
    plain_open(&m, true);
    umo_id native = UMO_METAL_SEND(m.api, new_buffer, m.device, p->page,
                                   UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED);
    must(umo_buffer_alloc(p->device, p->scope, p->page, UMO_UNIFIED, &buffer, NULL),
         "an allocation");
    if (native == NULL) {
        die("Metal gives no buffer");
    }
    const volatile uint32_t *plain_word = UMO_METAL_SEND0(m.api, buffer_contents, native);
    for (int turn = -1; turn < b->turns; turn++) {
        const use uses[] = {{buffer, UMO_READ_WRITE}};
        uint32_t value = (uint32_t)(turn + 1) * LAUNCHES_A_TURN;
        const uint32_t last = value + LAUNCHES_A_TURN;
        double start_us = now_us();
        while (value < last) {
            value++;
            probe_run(p->one, uses, 1, &value, 1, 1);
        }
        double ours_us = (now_us() - start_us) / LAUNCHES_A_TURN;
        value = last - LAUNCHES_A_TURN;
        start_us = now_us();
        while (value < last) {
            value++;
            (void)plain_launch(&m, native, value, NULL, 0);
        }
        double theirs_us = (now_us() - start_us) / LAUNCHES_A_TURN;
        host_begin(buffer, UMO_READ);
        uint32_t word;
        memcpy(&word, umo_buffer_host(buffer), sizeof word);
        host_end(buffer, UMO_READ);
        if (word != last || *plain_word != last) {
            die("a launch did not write its value; no time counts");
        }
        if (turn >= 0) {
            series_add(&ours, ours_us);
            series_add(&theirs, theirs_us);
        }
    }
    umo_buffer_release(buffer);
    UMO_METAL_SEND0(m.api, release, native);
    plain_close(&m);
    claim(b, "launch_and_wait", &ours, "plain Metal: one command buffer and its handler", &theirs);
}

/* ---- a request ---- */

static const uint32_t request_key = UINT32_C(0x0f0f1234);

/* A request's input and the place for its result, and memory of umo's that is prepared for both. */
typedef struct request {
    probe *p;
    size_t size_bytes;
    region in;
    region out;
    umo_region *registered[2];
    umo_buffer *shared[2];
    umo_buffer *private[2];
} request;

static request request_open(bench *b, size_t size_bytes)
{
    probe *p = &b->p;
    request r = {.p = p,
                 .size_bytes = size_bytes,
                 .in = region_take(p, ORIGIN_ANONYMOUS, size_bytes),
                 .out = region_take(p, ORIGIN_ANONYMOUS, size_bytes)};
    must(umo_region_register(p->registry, r.in.data, size_bytes, true, &r.registered[0], NULL),
         "a region");
    must(umo_region_register(p->registry, r.out.data, size_bytes, true, &r.registered[1], NULL),
         "a region");
    for (int i = 0; i < 2; i++) {
        must(umo_buffer_alloc(p->device, p->scope, size_bytes, UMO_UNIFIED, &r.shared[i], NULL),
             "an allocation");
        must(umo_buffer_alloc(p->device, p->scope, size_bytes, UMO_PRIVATE, &r.private[i], NULL),
             "an allocation");
    }
    return r;
}

static void request_close(request *r)
{
    for (int i = 0; i < 2; i++) {
        umo_buffer_release(r->shared[i]);
        umo_buffer_release(r->private[i]);
        umo_region_release(r->registered[i]);
    }
    region_give(&r->in);
    region_give(&r->out);
}

static void request_in_place(request *r)
{
    probe *p = r->p;
    umo_buffer *wrapped[2];
    must(umo_registry_wrap(p->registry, p->device, p->scope, r->in.data, r->size_bytes, true,
                           &wrapped[0], NULL, NULL),
         "a wrap");
    must(umo_registry_wrap(p->registry, p->device, p->scope, r->out.data, r->size_bytes, true,
                           &wrapped[1], NULL, NULL),
         "a wrap");
    const use uses[] = {{wrapped[0], UMO_READ}, {wrapped[1], UMO_WRITE}};
    probe_run(p->xor_words, uses, 2, &request_key, 1, r->size_bytes / sizeof(uint32_t));
    umo_buffer_release(wrapped[0]);
    umo_buffer_release(wrapped[1]);
}

static void request_copied(request *r)
{
    const use uses[] = {{r->shared[0], UMO_READ}, {r->shared[1], UMO_WRITE}};
    host_begin(r->shared[0], UMO_WRITE);
    memcpy(umo_buffer_host(r->shared[0]), r->in.data, r->size_bytes);
    host_end(r->shared[0], UMO_WRITE);
    probe_run(r->p->xor_words, uses, 2, &request_key, 1, r->size_bytes / sizeof(uint32_t));
    host_begin(r->shared[1], UMO_READ);
    memcpy(r->out.data, umo_buffer_host(r->shared[1]), r->size_bytes);
    host_end(r->shared[1], UMO_READ);
}

static void request_moved(request *r)
{
    const use uses[] = {{r->private[0], UMO_READ}, {r->private[1], UMO_WRITE}};
    umo_fence fence;
    must(umo_buffer_upload(r->private[0], 0, r -> in.data, r->size_bytes, 0, &fence), "an upload");
    (void)probe_launch(r->p->xor_words, 0, uses, 2, &request_key, 1,
                       r->size_bytes / sizeof(uint32_t));
    must(umo_buffer_download(r->private[1], 0, r -> out.data, r->size_bytes, 0, &fence),
         "a download");
    must(umo_fence_wait(fence, UINT64_MAX), "a download");
}

/* One way of serving the request: its time goes to the series, unless the turn is for warming up.
 */
static void request_time(request *r, void (*serve)(request *r), uint32_t seed, bool counts,
                         series *out)
{
    memset(r->out.data, 0, r->size_bytes);
    double start_us = now_us();
    serve(r);
    double took_us = now_us() - start_us;
    check_bytes(r->out.data, r->size_bytes, seed, request_key, "a request");
    if (counts) {
        series_add(out, took_us);
    }
}

static void requests(bench *b, size_t size_bytes)
{
    series in_place = {.count = 0};
    series copied = {.count = 0};
    series moved = {.count = 0};
    request r = request_open(b, size_bytes);
    for (int turn = -1; turn < b->turns; turn++) {
        const uint32_t seed = (uint32_t)turn + 2;
        pattern_write(r.in.data, size_bytes, seed);
        request_time(&r, request_in_place, seed, turn >= 0, &in_place);
        request_time(&r, request_copied, seed, turn >= 0, &copied);
        request_time(&r, request_moved, seed, turn >= 0, &moved);
    }
    request_close(&r);
    char name[64];
    (void)snprintf(name, sizeof name, "request_in_place_%zuMB", size_bytes / MIB);
    claim(b, name, &in_place, "memcpy into prepared shared memory, kernel, memcpy out", &copied);
    (void)snprintf(name, sizeof name, "request_in_place_vs_private_%zuMB", size_bytes / MIB);
    claim(b, name, &in_place, "upload to private memory, kernel, download", &moved);
}

/* ---- a gather ---- */

static void gather(bench *b)
{
    series ours = {.count = 0};
    series theirs = {.count = 0};
    probe *p = &b->p;
    region pieces[PIECES];
    umo_buffer *buffers[PIECES];
    umo_piece list[PIECES];
    umo_buffer *target = NULL;
    unsigned char *copy = umo_os_pages_alloc(PIECES * MIB);
    must(umo_buffer_alloc(p->device, p->scope, PIECES * MIB, UMO_UNIFIED, &target, NULL),
         "an allocation");
    if (copy == NULL) {
        die("no memory");
    }
    memset(copy, 0, PIECES * MIB);
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = region_take(p, ORIGIN_ANONYMOUS, MIB);
        buffers[i] = import_must(b, &pieces[i]);
        list[i] = (umo_piece){.memory = umo_buffer_memory(buffers[i]),
                              .offset_bytes = umo_buffer_memory_offset(buffers[i]),
                              .size_bytes = MIB};
    }
    for (int turn = -1; turn < b->turns; turn++) {
        const umo_access write = {
            .size_bytes = PIECES * MIB, .side = UMO_SIDE_DEVICE, .use = UMO_WRITE};
        umo_fence_set waits;
        umo_fence fence;
        for (int i = 0; i < PIECES; i++) {
            pattern_write(pieces[i].data, MIB, (uint32_t)(turn + 2) * PIECES + (uint32_t)i);
        }
        double start_us = now_us();
        must(umo_access_begin(target, &write, &waits), "a bracket");
        must(umo_device_gather(p->device, 0, list, PIECES, umo_buffer_memory(target),
                               umo_buffer_memory_offset(target), waits.fences, waits.count, &fence,
                               NULL),
             "a gather");
        must(umo_access_end(target, &write, fence), "the end of a bracket");
        must(umo_fence_wait(fence, UINT64_MAX), "a gather");
        double ours_us = now_us() - start_us;
        start_us = now_us();
        for (int i = 0; i < PIECES; i++) {
            memcpy(copy + (size_t)i * MIB, pieces[i].data, MIB);
        }
        __asm__ volatile("" ::"r"(copy) : "memory");
        double theirs_us = now_us() - start_us;
        host_begin(target, UMO_READ);
        const unsigned char *got = umo_buffer_host(target);
        for (int i = 0; i < PIECES; i++) {
            const uint32_t seed = (uint32_t)(turn + 2) * PIECES + (uint32_t)i;
            check_bytes(got + (size_t)i * MIB, MIB, seed, 0, "the gather");
            check_bytes(copy + (size_t)i * MIB, MIB, seed, 0, "the copy");
        }
        host_end(target, UMO_READ);
        if (turn >= 0) {
            series_add(&ours, ours_us);
            series_add(&theirs, theirs_us);
        }
    }
    for (int i = 0; i < PIECES; i++) {
        umo_buffer_release(buffers[i]);
        region_give(&pieces[i]);
    }
    umo_buffer_release(target);
    umo_os_pages_free(copy, PIECES * MIB);
    claim(b, "gather_8x1MB", &ours, "memcpy of the pieces into prepared memory", &theirs);
}

/* ---- a kernel over memory of several kinds ---- */

static double kernel_us(bench *b, umo_buffer *in, umo_buffer *out, uint32_t key)
{
    const use uses[] = {{in, UMO_READ}, {out, UMO_WRITE}};
    double start_us = now_us();
    probe_run(b->p.xor_words, uses, 2, &key, 1, umo_buffer_size(in) / sizeof(uint32_t));
    return now_us() - start_us;
}

static void host_fill(umo_buffer *buffer, uint32_t seed)
{
    host_begin(buffer, UMO_WRITE);
    pattern_write(umo_buffer_host(buffer), umo_buffer_size(buffer), seed);
    host_end(buffer, UMO_WRITE);
}

static void host_check(umo_buffer *buffer, uint32_t seed, uint32_t key, const char *what)
{
    host_begin(buffer, UMO_READ);
    check_bytes(umo_buffer_host(buffer), umo_buffer_size(buffer), seed, key, what);
    host_end(buffer, UMO_READ);
}

/* Does the GPU work as fast on imported memory as on its own? */
static void kernel_over(bench *b, size_t size_bytes)
{
    series imported = {.count = 0};
    series unified = {.count = 0};
    series private = {.count = 0};
    probe *p = &b->p;
    region regions[2];
    umo_buffer *imports[2];
    umo_buffer *shared[2];
    umo_buffer *apart[2];
    for (int i = 0; i < 2; i++) {
        regions[i] = region_take(p, ORIGIN_ANONYMOUS, size_bytes);
        imports[i] = import_must(b, &regions[i]);
        must(umo_buffer_alloc(p->device, p->scope, size_bytes, UMO_UNIFIED, &shared[i], NULL),
             "an allocation");
        must(umo_buffer_alloc(p->device, p->scope, size_bytes, UMO_PRIVATE, &apart[i], NULL),
             "an allocation");
    }
    for (int turn = -1; turn < b->turns; turn++) {
        const uint32_t key = (uint32_t)turn + 77;
        host_fill(imports[0], 5);
        host_fill(shared[0], 5);
        if (turn < 0) {
            umo_fence fence;
            must(umo_buffer_upload(apart[0], 0, regions[0].data, size_bytes, 0, &fence),
                 "an upload");
            must(umo_fence_wait(fence, UINT64_MAX), "an upload");
        }
        double imported_us = kernel_us(b, imports[0], imports[1], key);
        double unified_us = kernel_us(b, shared[0], shared[1], key);
        double private_us = kernel_us(b, apart[0], apart[1], key);
        host_check(imports[1], 5, key, "imported memory");
        host_check(shared[1], 5, key, "unified memory");
        if (turn >= 0) {
            series_add(&imported, imported_us);
            series_add(&unified, unified_us);
            series_add(&private, private_us);
        } else {
            umo_fence fence;
            must(umo_buffer_download(apart[1], 0, regions[0].data, size_bytes, 0, &fence),
                 "a download");
            must(umo_fence_wait(fence, UINT64_MAX), "a download");
            check_bytes(regions[0].data, size_bytes, 5, key, "private memory");
        }
    }
    for (int i = 0; i < 2; i++) {
        umo_buffer_release(imports[i]);
        umo_buffer_release(shared[i]);
        umo_buffer_release(apart[i]);
        region_give(&regions[i]);
    }
    char name[64];
    (void)snprintf(name, sizeof name, "kernel_over_import_%zuMB", size_bytes / MIB);
    claim(b, name, &imported, "the same kernel over unified memory of umo's", &unified);
    (void)snprintf(name, sizeof name, "kernel_over_import_vs_private_%zuMB", size_bytes / MIB);
    claim(b, name, &imported, "the same kernel over private memory", &private);
}

int bench_run(void)
{
    bench b = {.turns = TURNS_MAX};
    probe_open(&b.p);
    if (b.p.stand_in) {
        b.turns = 3;
    }
    must(umo_device_prepare(b.p.device, NULL), "the operations' program");
    launch_round_trip(&b);
    gather(&b);
    requests(&b, MIB);
    requests(&b, 16 * MIB);
    /* The stand-in runs a kernel's threads one after the other. */
    if (!b.p.stand_in) {
        requests(&b, 256 * MIB);
    }
    kernel_over(&b, b.p.stand_in ? 4 * MIB : 256 * MIB);
    probe_close(&b.p);
    return 0;
}
