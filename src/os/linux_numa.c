/*
 * Placing, finding and moving pages on Linux, by its own calls: nothing but the kernel is needed. A
 * call is made first and the topology looked at only to word why it failed, because the kernel
 * knows at that moment and a file read before may not. A kernel without nodes (CONFIG_NUMA=n) lacks
 * the calls and the files alike: it has one node, and nothing is wrong.
 */
#include "os/numa.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    BATCH = 512,
    BATCH_BYTES = 2 << 20, /* a batch ends at a multiple: a huge page lies in one of them */
    MOVE_TRIES = 3,
    NOT_SAID = 1 << 30, /* a status that the kernel has not written */
    PROCESSORS = 4096,
    MASK_BITS = 8 * sizeof(unsigned long)
};

uint32_t umo_numa_memory_nodes(void)
{
    static _Atomic uint32_t cached; /* no lock: a child after fork may be the next to ask */
    uint32_t count = atomic_load_explicit(&cached, memory_order_relaxed);
    if (count > 0) {
        return count;
    }
    umo_numa_topology topology;
    umo_error error;
    if (umo_numa_topology_read(&topology, &error) != UMO_OK) {
        topology.count = 0;
        if (error.status == UMO_E_NOMEM || error.native == EMFILE || error.native == ENFILE) {
            return 1; /* that may pass: who asks again gets another answer */
        }
    }
    for (uint32_t i = 0; i < topology.count; i++) {
        count += topology.nodes[i].allowed && topology.nodes[i].memory_bytes > 0 ? 1 : 0;
    }
    count = count > 0 ? count : 1;
    uint32_t first = 0;
    return atomic_compare_exchange_strong_explicit(&cached, &first, count, memory_order_relaxed,
                                                   memory_order_relaxed)
               ? count
               : first;
}

int32_t umo_numa_node_here(void)
{
    /* A processor stays with its node. Which one runs us the C library knows without a call. */
    static _Atomic uint16_t nodes[PROCESSORS]; /* and 1 */
    int processor = sched_getcpu();
    if (processor >= 0 && processor < PROCESSORS) {
        uint16_t known = atomic_load_explicit(&nodes[processor], memory_order_relaxed);
        if (known > 0) {
            return known - 1;
        }
    }
    unsigned now;
    unsigned node;
    if (syscall(SYS_getcpu, &now, &node, NULL) != 0 || node >= UMO_NUMA_IDS) {
        return 0;
    }
    if (now < PROCESSORS) {
        atomic_store_explicit(&nodes[now], (uint16_t)(node + 1), memory_order_relaxed);
    }
    return (int32_t)node;
}

/* ---- why a call failed ---- */

static bool forbidden(int cause)
{
    return cause == EPERM || cause == ENOSYS || cause == EACCES;
}

/*
 * What a call's errno says; 0 only asks whether the node will do. UMO_OK where the call is missing
 * because there are no nodes, and *none is set then.
 */
static umo_status verdict(int cause, int32_t node, bool *none, umo_error *error)
{
    umo_numa_topology topology;
    bool told;
    umo_status status = umo_numa_topology_read_at("", &topology, &told, error);
    if (status == UMO_OK && node != UMO_NUMA_ANY) {
        status = umo_numa_check_usable(&topology, node, error);
    }
    *none = status == UMO_OK && cause == ENOSYS && !told;
    if (status != UMO_OK || cause == 0 || *none) {
        return status;
    }
    if (forbidden(cause)) {
        return umo_error_set(error, UMO_E_REFUSED, cause,
                             "the system lets this process place no memory on nodes (%s): allow "
                             "mbind and move_pages in its seccomp filter",
                             strerror(cause));
    }
    return umo_error_set(error, UMO_E_SYSTEM, cause, "memory cannot be placed on a node: %s",
                         strerror(cause));
}

static umo_status no_memory(umo_error *error)
{
    return umo_error_set(error, UMO_E_NOMEM, ENOMEM,
                         "the kernel has no memory, or no room for one more mapping");
}

/* ---- binding ---- */

static long bind_call(void *start, size_t size_bytes, int32_t node, umo_numa_binding binding)
{
    unsigned long mask[UMO_NUMA_IDS / MASK_BITS] = {0};
    if (node == UMO_NUMA_ANY) {
        return syscall(SYS_mbind, start, size_bytes, MPOL_DEFAULT, NULL, 0UL, 0U);
    }
    mask[(size_t)node / MASK_BITS] = 1UL << ((size_t)node % MASK_BITS);
    /* The kernel takes one bit less than it is told. */
    return syscall(SYS_mbind, start, size_bytes,
                   binding == UMO_NUMA_ONLY ? MPOL_BIND : MPOL_PREFERRED, mask,
                   (unsigned long)UMO_NUMA_IDS + 1, 0U);
}

umo_status umo_numa_bind(void *start, size_t size_bytes, int32_t node, umo_numa_binding binding,
                         umo_error *error)
{
    umo_status status = umo_numa_check_range(start, size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    if (binding != UMO_NUMA_PREFER && binding != UMO_NUMA_ONLY) {
        return umo_error_set(error, UMO_E_INVAL, 0, "there is no binding %d", (int)binding);
    }
    if (node == UMO_NUMA_ANY) { /* the kernel takes holes for that */
        status = umo_numa_check_mapped(start, size_bytes, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    bool none;
    int cause = EINVAL; /* what the kernel says of nodes that it cannot have */
    if (node >= UMO_NUMA_ANY && node < UMO_NUMA_IDS) {
        if (bind_call(start, size_bytes, node, binding) == 0) {
            return UMO_OK;
        }
        cause = errno;
    }
    if (cause == EFAULT) {
        return umo_error_set(error, UMO_E_INVAL, cause, "not all of the range is mapped");
    }
    if (cause == ENOMEM) {
        return no_memory(error);
    }
    status = verdict(cause, node, &none, error);
    return status == UMO_OK ? umo_numa_check_mapped(start, size_bytes, error) : status;
}

/* ---- pages ---- */

/* How many pages from the first on are neighbours that are all said to be absent. */
static size_t absent_run(void *const *pages, size_t count, const int *where)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t run = 0;
    while (run < count && run < BATCH && where[run] == -ENOENT &&
           (uintptr_t)pages[run] - (uintptr_t)pages[0] == run * page) {
        run++;
    }
    return run;
}

/*
 * Kernels from 6.1 to 6.5 say of a page that their balancing has marked, to see who touches it
 * next, that it is absent, and do not move it either. Asking where it is by another call is such a
 * touch, and then it is a page like any other. Which pages are there at all, mincore knows. Only
 * for pages that are to move: balancing may bring what is touched to who touches it.
 */
static void look_behind_marks(void *const *pages, size_t count, int *where)
{
    unsigned char in[BATCH];
    for (size_t i = 0; i < count; i++) {
        size_t run = absent_run(pages + i, count - i, where + i);
        if (run == 0 || mincore(pages[i], run * (size_t)sysconf(_SC_PAGESIZE), in) != 0) {
            continue;
        }
        for (size_t k = 0; k < run; k++) {
            int node;
            if ((in[k] & 1) != 0 && syscall(SYS_get_mempolicy, &node, NULL, 0UL, pages[i + k],
                                            (unsigned long)(MPOL_F_NODE | MPOL_F_ADDR)) == 0) {
                where[i + k] = node;
            }
        }
        i += run - 1;
    }
}

/* Without nodes, and without a call that speaks of them. */
static void look_at_one_node(void *const *pages, size_t count, int *where)
{
    for (size_t i = 0; i < count; i++) {
        unsigned char in = 0;
        where[i] = mincore(pages[i], 1, &in) == 0 && (in & 1) != 0 ? 0 : -ENOENT;
    }
}

umo_status umo_numa_look(void **pages, size_t count, int *where, umo_error *error)
{
    if (count == 0) {
        return UMO_OK;
    }
    if (syscall(SYS_move_pages, 0, count, pages, NULL, where, 0) >= 0) {
        return UMO_OK;
    }
    bool none;
    umo_status status = verdict(errno, UMO_NUMA_ANY, &none, error);
    if (status == UMO_OK) {
        look_at_one_node(pages, count, where);
    }
    return status;
}

typedef struct batch {
    void *pages[BATCH];
    int where[BATCH]; /* see umo_numa_look() */
    size_t count;
} batch;

typedef struct move_counts {
    uint64_t tried; /* pages that were elsewhere */
    uint64_t moved;
    bool full;
} move_counts;

/* Leaves in a batch what was looked at and lies on another node; those of them that the kernel said
 * for good cannot move (said, which may be NULL) go too. Returns how many lie on the node. */
static size_t batch_keep_others(batch *b, int32_t node, const int *said)
{
    size_t there = 0;
    size_t kept = 0;
    for (size_t i = 0; i < b->count; i++) {
        there += b->where[i] == node ? 1 : 0;
        bool again = said == NULL || said[i] == NOT_SAID || said[i] == -EBUSY ||
                     said[i] == -EAGAIN || said[i] == -ENOENT || said[i] == node;
        if (b->where[i] >= 0 && b->where[i] != node && again) {
            b->pages[kept++] = b->pages[i];
        }
    }
    b->count = kept;
    return there;
}

/*
 * Moves the pages of a batch that are elsewhere and counts them. What the kernel says of each is
 * not to be relied on (those of one huge page are busy after its first, and of a round that failed
 * nothing is said), so they are looked at again. counts->full: the node has no room, which is no
 * failure.
 */
static umo_status batch_move(batch *b, int32_t node, move_counts *counts, umo_error *error)
{
    int to[BATCH];
    int said[BATCH];
    umo_status status = umo_numa_look(b->pages, b->count, b->where, error);
    if (status != UMO_OK) { /* a node that cannot be has the first word, as where it is bound */
        bool none;
        umo_status of_node = verdict(0, node, &none, error);
        return of_node != UMO_OK ? of_node : status;
    }
    look_behind_marks(b->pages, b->count, b->where);
    (void)batch_keep_others(b, node, NULL);
    counts->tried += b->count;
    for (int i = 0; i < MOVE_TRIES && b->count > 0 && status == UMO_OK && !counts->full; i++) {
        for (size_t k = 0; k < b->count; k++) {
            to[k] = node;
            said[k] = NOT_SAID;
        }
        long rc = syscall(SYS_move_pages, 0, b->count, b->pages, to, said, MPOL_MF_MOVE);
        counts->full = rc < 0 && errno == ENOMEM;
        if (rc < 0 && !counts->full && errno != EAGAIN && errno != EBUSY && errno != ENOENT) {
            bool none;
            return verdict(errno, node, &none, error);
        }
        status = umo_numa_look(b->pages, b->count, b->where, error);
        counts->moved += status == UMO_OK ? batch_keep_others(b, node, said) : 0;
    }
    return status;
}

umo_status umo_numa_move(void *start, size_t size_bytes, int32_t node, uint64_t *moved_bytes,
                         umo_error *error)
{
    umo_status status = umo_numa_check_range(start, size_bytes, error);
    if (status == UMO_OK && node == UMO_NUMA_ANY) {
        status = umo_error_set(error, UMO_E_INVAL, 0, "pages move to a node, not to any");
    }
    if (status == UMO_OK) {
        status = umo_numa_check_mapped(start, size_bytes, error);
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE); /* the kernel's, whatever UMO_PAGE_BYTES says */
    uintptr_t at = (uintptr_t)start;
    uintptr_t end = at + size_bytes;
    move_counts counts = {0, 0, false};
    while (at < end && status == UMO_OK && !counts.full) {
        batch b = {.count = 0};
        do {
            b.pages[b.count++] = (void *)at;
            at += page;
        } while (at < end && b.count < BATCH && at % BATCH_BYTES != 0);
        status = batch_move(&b, node, &counts, error);
    }
    if (status == UMO_OK && counts.tried == 0) { /* the kernel was asked nothing about the node */
        bool none;
        status = verdict(0, node, &none, error);
    }
    if (status == UMO_OK && moved_bytes != NULL) {
        *moved_bytes = counts.moved * page;
    }
    return status;
}
