/*
 * A phase change on a machine of two nodes: a thread on one node makes buffers and uses them, then
 * ends, and a thread on the other uses them from there on.
 *
 *   numa umo|both|kernel|nobody [BUFFERS [MIB [SECONDS]]]   by default 16 buffers of 4 MiB, 3
 * seconds
 *
 * umo     its optimizer's buffers, every use in a bracket
 * both    the same, and the kernel's balancing beside it
 * kernel  plain memory, and the kernel's balancing of nodes (kernel.numa_balancing, set here)
 * nobody  plain memory that stays where it was first touched
 *
 * One JSON line: the share of pages that are remote one second after the change, and the share of
 * accesses that were in the second after that: at each access, once a byte of each page was read,
 * the program looks where these pages are. Both are counts of places; how fast anything was is not
 * asked, since the machine may be emulated.
 */
#include <umo/access.h>
#include <umo/numa.h>
#include <umo/optimizer.h>

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BUFFERS_MAX 256
#define CHUNK_BYTES ((size_t)64 << 10)
#define SLICES_MAX 1000 /* of 0.1 s */
#define SLICE_NS UINT64_C(100000000)

typedef enum way {
    UMO,
    BOTH,
    KERNEL,
    NOBODY,
    WAYS
} way;

static const char *const names[WAYS] = {"umo", "both", "kernel", "nobody"};

typedef struct side {
    uint32_t index; /* in the topology */
    size_t processor;
} side;

static umo_numa_topology topology;
static way how;
static size_t buffer_count = 16;
static size_t buffer_bytes = (size_t)1 << 20;
static size_t slices = 30;
static umo_buffer *buffers[BUFFERS_MAX];
static char *memory[BUFFERS_MAX];
static _Atomic bool phase_over;
static double remote_before; /* of the pages, for the first thread */
static uint64_t sum;         /* so that reading is not left out */

static void die(const char *what, const umo_error *error)
{
    (void)fprintf(stderr, "numa: %s: %s\n", what, error != NULL ? error->text : "");
    exit(1);
}

static bool with_umo(void)
{
    return how == UMO || how == BOTH;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void pin(size_t processor)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        die("a thread cannot be pinned", NULL);
    }
}

/* The first two nodes that have both, and a processor of each. */
static void sides_find(side out[2])
{
    uint32_t found = 0;
    for (size_t processor = 0; processor < CPU_SETSIZE && found < 2; processor++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(processor, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0) {
            continue;
        }
        int index = umo_numa_index(&topology, umo_numa_node_here());
        if (index >= 0 && topology.nodes[index].memory_bytes > 0 && topology.nodes[index].allowed &&
            (found == 0 || out[0].index != (uint32_t)index)) {
            out[found++] = (side){(uint32_t)index, processor};
        }
    }
    if (found < 2) {
        (void)printf("skipped: there are no two nodes with processors and memory here\n");
        exit(77);
    }
}

static void buffers_make(void)
{
    for (size_t i = 0; i < buffer_count; i++) {
        umo_error error;
        if (with_umo()) {
            if (umo_optimizer_alloc(buffer_bytes, UMO_PATTERN_CPU_DOMINANT, 0, &buffers[i],
                                    &error) != UMO_OK) {
                die("no buffer", &error);
            }
            memory[i] = umo_buffer_host(buffers[i]);
        } else {
            memory[i] = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        }
        if (memory[i] == NULL || memory[i] == MAP_FAILED) {
            die("no memory", NULL);
        }
    }
}

/* Bytes of a range that are elsewhere than on a node, asked by who is using them: the kernel's
 * balancing moves pages when they are touched, and does not tell before where those are that it has
 * marked. */
static uint64_t remote_bytes(uint32_t index, const char *start, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i += 4096) {
        sum += (unsigned char)start[i];
    }
    umo_numa_residency seen;
    umo_error error;
    if (umo_numa_residency_read(&topology, start, size_bytes, 1, &seen, &error) != UMO_OK) {
        die("pages cannot be looked at", &error);
    }
    return size_bytes - seen.node_bytes[index];
}

/* Uses a part of a buffer; how many of its bytes were elsewhere than on a node. */
static uint64_t use(uint32_t index, size_t buffer, size_t offset, size_t size_bytes, bool write)
{
    umo_access access = {.offset_bytes = offset,
                         .size_bytes = size_bytes,
                         .side = UMO_SIDE_HOST,
                         .use = write ? UMO_READ_WRITE : UMO_READ};
    umo_fence_set waits;
    if (with_umo() && umo_access_begin(buffers[buffer], &access, &waits) != UMO_OK) {
        die("a use cannot begin", NULL);
    }
    char *at = memory[buffer] + offset;
    uint64_t remote = remote_bytes(index, at, size_bytes);
    for (size_t i = 0; i < size_bytes; i += 64) {
        if (write) {
            at[i] = (char)(at[i] + 1);
        } else {
            sum += (unsigned char)at[i];
        }
    }
    if (with_umo() && umo_access_end(buffers[buffer], &access, (umo_fence){0}) != UMO_OK) {
        die("a use cannot end", NULL);
    }
    return remote;
}

static double remote_pages(uint32_t index)
{
    uint64_t remote = 0;
    for (size_t i = 0; i < buffer_count; i++) {
        remote += use(index, i, 0, buffer_bytes, false);
    }
    return (double)remote / (double)(buffer_bytes * buffer_count);
}

static void *first_phase(void *argument)
{
    const side *where = argument;
    pin(where->processor);
    buffers_make();
    while (!atomic_load(&phase_over)) {
        for (size_t i = 0; i < buffer_count; i++) {
            for (size_t at = 0; at < buffer_bytes; at += CHUNK_BYTES) {
                (void)use(where->index, i, at, CHUNK_BYTES, true);
            }
        }
    }
    remote_before = remote_pages(where->index);
    return NULL;
}

typedef struct second_phase_result {
    double pages_at_1s;
    uint64_t remote[SLICES_MAX]; /* bytes of accesses, by when they were */
    uint64_t all[SLICES_MAX];
} second_phase_result;

static void second_phase(const side *where, second_phase_result *out)
{
    pin(where->processor);
    uint64_t start = now_ns();
    bool looked = false;
    size_t turn = 0;
    size_t chunks = buffer_bytes / CHUNK_BYTES;
    assert(chunks > 0); /* the command line gives whole MiB */
    for (;; turn++) {
        uint64_t slice = (now_ns() - start) / SLICE_NS;
        if (slice >= slices) {
            break;
        }
        if (slice >= 10 && !looked) {
            out->pages_at_1s = remote_pages(where->index);
            looked = true;
        }
        size_t buffer = turn / chunks % buffer_count;
        size_t at = turn % chunks * CHUNK_BYTES;
        out->remote[slice] += use(where->index, buffer, at, CHUNK_BYTES, turn % 4 == 0);
        out->all[slice] += CHUNK_BYTES;
    }
}

static void balancing_set(bool on)
{
    FILE *file = fopen("/proc/sys/kernel/numa_balancing", "we");
    bool written = file != NULL && fputs(on ? "1\n" : "0\n", file) >= 0;
    written = file != NULL && fclose(file) == 0 && written;
    if (!written && on) {
        (void)printf("skipped: kernel.numa_balancing cannot be set here\n");
        exit(77);
    }
}

static double share(const second_phase_result *result, size_t from, size_t to)
{
    uint64_t remote = 0;
    uint64_t all = 0;
    for (size_t i = from; i < to; i++) {
        remote += result->remote[i];
        all += result->all[i];
    }
    return all > 0 ? (double)remote / (double)all : 0;
}

/* Seconds after which no tenth of one had more than 5 % remote accesses; -1: it never came so far.
 */
static double settled(const second_phase_result *result)
{
    size_t first = slices;
    while (first > 0 && share(result, first - 1, first) <= 0.05) {
        first--;
    }
    return first < slices ? (double)first / 10 : -1;
}

static void report(const side sides[2], const second_phase_result *result)
{
    uint64_t all = 0;
    for (size_t i = 0; i < slices; i++) {
        all += result->all[i];
    }
    (void)printf("{\"way\": \"%s\", \"bytes\": %zu, \"distance\": %d, \"remote_before\": %.4f, "
                 "\"pages\": %.4f, \"accesses\": %.4f, \"settled_s\": %.1f, \"mb_s\": %.0f, "
                 "\"curve\": [",
                 names[how], buffer_count * buffer_bytes,
                 (int)topology.distances[sides[1].index][sides[0].index], remote_before,
                 result->pages_at_1s, share(result, 10, 20), settled(result),
                 (double)all / 1e5 / (double)slices);
    for (size_t i = 0; i < slices; i++) {
        (void)printf("%s%.3f", i > 0 ? ", " : "", share(result, i, i + 1));
    }
    (void)printf("]}\n");
}

int main(int argc, char **argv)
{
    how = WAYS;
    for (int i = 0; i < WAYS && argc > 1; i++) {
        how = strcmp(argv[1], names[i]) == 0 ? (way)i : how;
    }
    buffer_count = argc > 2 ? strtoul(argv[2], NULL, 10) : buffer_count;
    buffer_bytes = argc > 3 ? strtoul(argv[3], NULL, 10) << 20 : buffer_bytes;
    slices = argc > 4 ? strtoul(argv[4], NULL, 10) * 10 : slices;
    if (how == WAYS || buffer_count == 0 || buffer_count > BUFFERS_MAX || buffer_bytes == 0 ||
        slices < 20 || slices > SLICES_MAX) {
        (void)fprintf(stderr, "usage: numa umo|both|kernel|nobody [BUFFERS [MIB [SECONDS]]]\n");
        return 2;
    }
    umo_error error;
    if (umo_numa_topology_read(&topology, &error) != UMO_OK) {
        die("no nodes", &error);
    }
    side sides[2];
    cpu_set_t anywhere; /* umo's own threads are not pinned */
    (void)sched_getaffinity(0, sizeof anywhere, &anywhere);
    sides_find(sides);
    (void)sched_setaffinity(0, sizeof anywhere, &anywhere);
    balancing_set(how == KERNEL || how == BOTH);
    if (with_umo() && umo_optimizer_initialize(NULL, &error) != UMO_OK) {
        die("no optimizer", &error);
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, first_phase, &sides[0]) != 0) {
        die("no thread", NULL);
    }
    (void)nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
    atomic_store(&phase_over, true);
    (void)pthread_join(thread, NULL);
    static second_phase_result result;
    second_phase(&sides[1], &result);
    report(sides, &result);
    for (size_t i = 0; i < buffer_count && with_umo(); i++) {
        umo_buffer_release(buffers[i]);
    }
    if (with_umo()) {
        umo_status_ignore(umo_optimizer_shutdown(&error));
    }
    return sum == 1 ? 3 : 0;
}
