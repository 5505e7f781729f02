/*
 * Nodes for tests. On a machine with several nodes these are its own. On one with one, the calls of
 * numa.h are redirected when the test is linked (--wrap; see CMakeLists.txt), and there are two
 * with memory, 0 and 1, one of processors alone, 2, which is nearer to 1, and one that this process
 * may not use, 5. A fake page lies where it was bound, else where it was touched by numa_touch(),
 * else on node 0; it goes when the real page does. Included once in a program.
 */
#ifndef UMO_MEM_NUMA_FAKE_TEST_H
#define UMO_MEM_NUMA_FAKE_TEST_H

#include "os/os.h"

#include <umo/numa.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define FAKE_PAGES ((size_t)1 << 16)
#define FAKE_BINDINGS 256

/* Of the two nodes that tests use, by number; set by numa_test_start(). */
static int32_t numa_first = 0;
static int32_t numa_second = 1;
static bool numa_faked;

static struct {
    bool refuses;     /* mbind and move_pages are not allowed */
    unsigned sticky;  /* each so-manieth page does not move; 0: all do */
    uint64_t move_ns; /* of a page, which the fake really takes */
    void (*moving)(void *start, size_t size_bytes); /* called before pages move, under no lock */
    unsigned fail_at; /* of the calls that bind and move, the one that finds no memory; 0: none */
    unsigned calls;
    _Atomic uint64_t binds, moves, renews;
} numa_fake;

static _Thread_local int32_t fake_here;
static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
/* Pages that are known: open addressing, 0 for none. */
static struct {
    uintptr_t page;
    int32_t node;
} fake_pages[FAKE_PAGES];
static struct {
    uintptr_t start, end;
    int32_t node;
} fake_bindings[FAKE_BINDINGS];
static size_t fake_binding_count;

/* ---- pages and bindings, under the lock ---- */

static int32_t *fake_page(uintptr_t page, bool make)
{
    size_t at = (size_t)((page >> 12) * 0x9e3779b97f4a7c15u >> 20) % FAKE_PAGES;
    for (size_t i = 0; i < FAKE_PAGES; i++, at = (at + 1) % FAKE_PAGES) {
        if (fake_pages[at].page == page) {
            return &fake_pages[at].node;
        }
        if (fake_pages[at].page == 0) {
            if (!make) {
                return NULL;
            }
            fake_pages[at].page = page;
            fake_pages[at].node = -1;
            return &fake_pages[at].node;
        }
    }
    abort(); /* the test is too large for the fake */
}

static void fake_pages_forget(const void *start, size_t size_bytes)
{
    uintptr_t first = (uintptr_t)start;
    for (size_t i = 0; i < FAKE_PAGES; i++) {
        if (fake_pages[i].page - first < size_bytes) {
            fake_pages[i].node = -1; /* the entry stays, so that probes go on over it */
        }
    }
}

static int32_t fake_bound(uintptr_t page)
{
    for (size_t i = fake_binding_count; i-- > 0;) {
        if (page >= fake_bindings[i].start && page < fake_bindings[i].end) {
            return fake_bindings[i].node;
        }
    }
    return -1;
}

static void fake_bind(const void *start, size_t size_bytes, int32_t node)
{
    uintptr_t first = (uintptr_t)start;
    uintptr_t end = first + size_bytes;
    size_t kept = 0;
    for (size_t i = 0; i < fake_binding_count; i++) {
        if (fake_bindings[i].start < first || fake_bindings[i].end > end) {
            fake_bindings[kept++] = fake_bindings[i];
        }
    }
    fake_binding_count = kept;
    bool hides = false;
    for (size_t i = 0; i < kept; i++) {
        hides = hides || (fake_bindings[i].start < end && fake_bindings[i].end > first);
    }
    if (node < 0 && !hides) {
        return;
    }
    if (kept == FAKE_BINDINGS) {
        abort();
    }
    fake_bindings[kept].start = first;
    fake_bindings[kept].end = end;
    fake_bindings[kept].node = node;
    fake_binding_count++;
}

static bool fake_present(uintptr_t page)
{
    unsigned char in[64] = {0}; /* a forced page is some of the system's */
    return mincore((void *)page, umo_os_page_bytes(), in) == 0 && (in[0] & 1) != 0;
}

/* Where a page lies; -1 when it is not in memory. */
static int32_t fake_node(uintptr_t page)
{
    if (!fake_present(page)) {
        return -1;
    }
    int32_t *node = fake_page(page, true);
    if (*node < 0) {
        *node = fake_bound(page) >= 0 ? fake_bound(page) : 0;
    }
    return *node;
}

/* ---- numa.h ---- */

/* A call as the linker has it: what tests find under its name, and what it was. */
#define REDIRECTED(name) __typeof__(name) __wrap_##name, __real_##name

REDIRECTED(umo_numa_topology_read);
REDIRECTED(umo_numa_memory_nodes);
REDIRECTED(umo_numa_node_here);
REDIRECTED(umo_numa_bind);
REDIRECTED(umo_numa_residency_read);
REDIRECTED(umo_numa_move);
REDIRECTED(umo_os_pages_free);
REDIRECTED(umo_os_pages_decommit);
REDIRECTED(umo_os_pages_empty);
REDIRECTED(umo_os_pages_move);
REDIRECTED(umo_os_pages_renew);

#undef REDIRECTED

static void fake_topology(umo_numa_topology *out)
{
    static const uint8_t distances[4][4] = {
        {10, 31, 40, 31}, {31, 10, 21, 31}, {40, 21, 10, 40}, {31, 31, 40, 10}};
    const uint64_t gib = UINT64_C(1) << 30;
    memset(out, 0, sizeof *out);
    out->count = 4;
    out->nodes[0] = (umo_numa_node){.id = 0, .processors = 2, .memory_bytes = gib, .allowed = true};
    out->nodes[1] = (umo_numa_node){
        .id = 1, .processors = 2, .memory_bytes = gib, .allowed = true, .initiator = 1};
    out->nodes[2] = (umo_numa_node){.id = 2, .processors = 2, .allowed = true, .initiator = 2};
    out->nodes[3] = (umo_numa_node){.id = 5, .processors = 2, .memory_bytes = gib, .initiator = 5};
    for (int i = 0; i < 4; i++) {
        memcpy(out->distances[i], distances[i], sizeof distances[i]);
    }
}

umo_status __wrap_umo_numa_topology_read(umo_numa_topology *out, umo_error *error)
{
    if (!numa_faked) {
        return __real_umo_numa_topology_read(out, error);
    }
    fake_topology(out);
    return UMO_OK;
}

uint32_t __wrap_umo_numa_memory_nodes(void)
{
    return numa_faked ? 2 : __real_umo_numa_memory_nodes();
}

int32_t __wrap_umo_numa_node_here(void)
{
    return numa_faked ? fake_here : __real_umo_numa_node_here();
}

/* Not for several threads. */
static umo_status fake_fails(umo_error *error)
{
    return numa_fake.fail_at != 0 && ++numa_fake.calls == numa_fake.fail_at
               ? umo_error_set(error, UMO_E_NOMEM, 0, "the fake has no memory")
               : UMO_OK;
}

static umo_status fake_node_check(int32_t node, umo_error *error)
{
    umo_numa_topology topology;
    fake_topology(&topology);
    int index = umo_numa_index(&topology, node);
    if (index < 0) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "there is no node %d", (int)node);
    }
    if (topology.nodes[index].memory_bytes == 0 || !topology.nodes[index].allowed) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "node %d has no memory for you",
                             (int)node);
    }
    return numa_fake.refuses ? umo_error_set(error, UMO_E_REFUSED, 1, "refused") : UMO_OK;
}

umo_status __wrap_umo_numa_bind(void *start, size_t size_bytes, int32_t node,
                                umo_numa_binding binding, umo_error *error)
{
    (void)atomic_fetch_add(&numa_fake.binds, 1);
    if (fake_fails(error) != UMO_OK) {
        return UMO_E_NOMEM;
    }
    if (!numa_faked) {
        return __real_umo_numa_bind(start, size_bytes, node, binding, error);
    }
    if ((((uintptr_t)start | size_bytes) & (umo_os_page_bytes() - 1)) != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "not whole pages");
    }
    umo_status status = node == UMO_NUMA_ANY ? UMO_OK : fake_node_check(node, error);
    if (status == UMO_OK) {
        (void)pthread_mutex_lock(&fake_lock);
        /* What is there stays where it is. */
        for (size_t i = 0; i < FAKE_PAGES; i++) {
            if (fake_pages[i].page - (uintptr_t)start < size_bytes) {
                (void)fake_node(fake_pages[i].page);
            }
        }
        fake_bind(start, size_bytes, node);
        (void)pthread_mutex_unlock(&fake_lock);
    }
    return status;
}

umo_status __wrap_umo_numa_residency_read(const umo_numa_topology *topology, const void *start,
                                          size_t size_bytes, size_t step_pages,
                                          umo_numa_residency *out, umo_error *error)
{
    if (!numa_faked) {
        return __real_umo_numa_residency_read(topology, start, size_bytes, step_pages, out, error);
    }
    const size_t page = umo_os_page_bytes();
    uintptr_t first = (uintptr_t)start & ~(uintptr_t)(page - 1);
    memset(out, 0, sizeof *out);
    (void)pthread_mutex_lock(&fake_lock);
    for (uintptr_t at = first; at < (uintptr_t)start + size_bytes; at += page * step_pages) {
        int32_t node = fake_node(at);
        if (node < 0) {
            out->absent_bytes += page * step_pages;
        } else {
            out->node_bytes[umo_numa_index(topology, node)] += page * step_pages;
        }
    }
    (void)pthread_mutex_unlock(&fake_lock);
    return UMO_OK;
}

umo_status __wrap_umo_numa_move(void *start, size_t size_bytes, int32_t node, uint64_t *moved_bytes,
                                umo_error *error)
{
    (void)atomic_fetch_add(&numa_fake.moves, 1);
    if (numa_fake.moving != NULL) {
        numa_fake.moving(start, size_bytes);
    }
    if (fake_fails(error) != UMO_OK) {
        return UMO_E_NOMEM;
    }
    if (!numa_faked) {
        return __real_umo_numa_move(start, size_bytes, node, moved_bytes, error);
    }
    const size_t page = umo_os_page_bytes();
    uint64_t moved = 0;
    umo_status status = fake_node_check(node, error);
    if (status != UMO_OK) {
        return status;
    }
    (void)pthread_mutex_lock(&fake_lock);
    for (size_t at = 0; at < size_bytes; at += page) {
        uintptr_t here = (uintptr_t)start + at;
        int32_t now = fake_node(here);
        bool stays = numa_fake.sticky != 0 && here / page % numa_fake.sticky == 0;
        if (now >= 0 && now != node && !stays) {
            *fake_page(here, true) = node;
            moved += page;
        }
    }
    (void)pthread_mutex_unlock(&fake_lock);
    for (uint64_t end = umo_os_now_ns() + moved / page * numa_fake.move_ns;
         umo_os_now_ns() < end;) {
    }
    if (moved_bytes != NULL) {
        *moved_bytes = moved;
    }
    return UMO_OK;
}

/* ---- the pages that go ---- */

static void fake_forget(void *pages, size_t size_bytes, bool unbind)
{
    const size_t page = umo_os_page_bytes();
    size_t whole = (size_bytes + page - 1) / page * page;
    if (numa_faked && pages != NULL) {
        (void)pthread_mutex_lock(&fake_lock);
        fake_pages_forget(pages, whole);
        if (unbind) {
            fake_bind(pages, whole, -1);
        }
        (void)pthread_mutex_unlock(&fake_lock);
    }
}

void __wrap_umo_os_pages_free(void *pages, size_t size_bytes)
{
    fake_forget(pages, size_bytes, true);
    __real_umo_os_pages_free(pages, size_bytes);
}

void __wrap_umo_os_pages_decommit(void *pages, size_t size_bytes)
{
    fake_forget(pages, size_bytes, false);
    __real_umo_os_pages_decommit(pages, size_bytes);
}

void __wrap_umo_os_pages_empty(void *pages, size_t size_bytes)
{
    fake_forget(pages, size_bytes, false);
    __real_umo_os_pages_empty(pages, size_bytes);
}

bool __wrap_umo_os_pages_move(void *from, size_t size_bytes, void *to)
{
    if (!__real_umo_os_pages_move(from, size_bytes, to)) {
        return false; /* nothing has changed */
    }
    const size_t page = umo_os_page_bytes();
    (void)pthread_mutex_lock(&fake_lock);
    for (size_t at = 0; numa_faked && at < size_bytes; at += page) {
        const int32_t *node = fake_page((uintptr_t)from + at, false);
        int32_t was = node != NULL ? *node : -1;
        *fake_page((uintptr_t)to + at, true) = was;
    }
    (void)pthread_mutex_unlock(&fake_lock);
    fake_forget(from, size_bytes, false);
    return true;
}

bool __wrap_umo_os_pages_renew(void *pages, size_t size_bytes)
{
    bool renewed = __real_umo_os_pages_renew(pages, size_bytes);
    if (renewed) {
        (void)atomic_fetch_add(&numa_fake.renews, 1);
        fake_forget(pages, size_bytes, true); /* a new mapping has no policy */
    }
    return renewed;
}

/* ---- for the tests ---- */

/* Runs the calling thread on a node. False when it has no processor that we may use. */
static inline bool numa_run_on(int32_t node)
{
    fake_here = node;
    if (numa_faked) {
        return true;
    }
#ifdef __linux__
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one) == 0 && __real_umo_numa_node_here() == node) {
            return true;
        }
    }
#endif
    return false;
}

/* Writes to memory on a node: pages that were not there lie there, if nobody said otherwise. */
static inline bool numa_touch(int32_t node, void *start, size_t size_bytes, int byte)
{
    const size_t page = umo_os_page_bytes();
    if (!numa_run_on(node)) {
        return false;
    }
    (void)pthread_mutex_lock(&fake_lock);
    for (size_t at = 0; numa_faked && at < size_bytes; at += page) {
        uintptr_t here = ((uintptr_t)start + at) & ~(uintptr_t)(page - 1);
        int32_t *known = fake_page(here, true);
        if (!fake_present(here) || *known < 0) {
            *known = fake_bound(here) >= 0 ? fake_bound(here) : node;
        }
    }
    (void)pthread_mutex_unlock(&fake_lock);
    memset(start, byte, size_bytes);
    return true;
}

/* How many of a range's bytes in memory lie on a node. */
static inline uint64_t numa_bytes_on(int32_t node, const void *start, size_t size_bytes)
{
    umo_numa_topology topology;
    umo_numa_residency where;
    if (__wrap_umo_numa_topology_read(&topology, NULL) != UMO_OK ||
        __wrap_umo_numa_residency_read(&topology, start, size_bytes, 1, &where, NULL) != UMO_OK) {
        return UINT64_MAX;
    }
    return where.node_bytes[umo_numa_index(&topology, node)];
}

/* Once, before anything else of umo. */
static void numa_test_start(void)
{
    umo_numa_topology topology;
    numa_faked = __real_umo_numa_memory_nodes() < 2;
#ifdef __linux__
    /* Bytes are counted to the page, so none is to be a huge one. */
    (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    /* A policy of one's own, here the usual one, keeps the kernel's balancing away: it moves pages,
     * and on some kernels hides them. */
    enum {
        LOCAL = 4 /* MPOL_LOCAL */
    };
    if (!numa_faked && syscall(SYS_set_mempolicy, LOCAL, NULL, 0UL) != 0) {
        abort();
    }
#endif
    if (!numa_faked && __real_umo_numa_topology_read(&topology, NULL) == UMO_OK) {
        int32_t found[2] = {0, 0};
        size_t count = 0;
        for (uint32_t i = 0; i < topology.count && count < 2; i++) {
            if (topology.nodes[i].processors > 0 && topology.nodes[i].memory_bytes > 0 &&
                topology.nodes[i].allowed) {
                found[count++] = topology.nodes[i].id;
            }
        }
        numa_first = found[0];
        numa_second = found[1];
    }
}

#endif
