/**
 * @file numa.h
 * Which memory is near which processors, and whose pages lie where.
 *
 * What is known comes from the system alone: its nodes, what they hold, their distances, and where
 * firmware says so (HMAT) their latencies and bandwidths. A machine that reports one node has one;
 * nothing is guessed from its size or its name. On systems without nodes (macOS: an Ultra chip
 * shows one memory) there is one node, 0, and everything here is of no effect and no error.
 *
 * Nodes are named by the system's numbers, which need not begin at 0 nor follow each other.
 */
#ifndef UMO_NUMA_H
#define UMO_NUMA_H

#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Nodes beyond so many are left out, and with them what lies there counts as elsewhere. */
#define UMO_NUMA_NODES_MAX 64
/** No node in particular. */
#define UMO_NUMA_ANY (-1)
/** The distance of a node to itself; others are in proportion (ACPI SLIT). */
#define UMO_NUMA_DISTANCE_LOCAL 10

typedef struct umo_numa_node {
    int32_t id;
    uint32_t processors;   /**< that are on; 0: a node of memory only */
    uint64_t memory_bytes; /**< 0: none of its own */
    bool allowed;          /**< this process may have memory there (cpuset) */
    /** The node with processors that is nearest to it, itself if it has some; UMO_NUMA_ANY: none.
     */
    int32_t initiator;
    /* As firmware tells them, from the initiator; 0 where it does not. */
    uint32_t read_latency_ns;
    uint32_t write_latency_ns;
    uint32_t read_mb_s; /**< 10^6 bytes a second */
    uint32_t write_mb_s;
} umo_numa_node;

typedef struct umo_numa_topology {
    uint32_t count;                          /**< at least 1 */
    umo_numa_node nodes[UMO_NUMA_NODES_MAX]; /**< by rising id */
    /** From the node at the first index to that at the second; 0 where the system does not say. */
    uint8_t distances[UMO_NUMA_NODES_MAX][UMO_NUMA_NODES_MAX];
} umo_numa_topology;

/**
 * Reads what nodes there are now: they come and go with memory that is plugged in.
 *
 * Errors:    NOMEM, SYSTEM what the system says makes no sense (the text has the file's name).
 * Threads:   any.
 * Cost:      some files for each node: not for a request.
 */
UMO_API UMO_MUST_USE umo_status umo_numa_topology_read(umo_numa_topology *out, umo_error *error);

/** The index of a node in a topology, or -1. Threads: any. */
UMO_API int umo_numa_index(const umo_numa_topology *topology, int32_t node);

/** Nodes with memory that this process may use, when it was first asked; at least 1. Everything
 * about nodes is skipped while it is 1. Threads: any. Cost: a load, after the first call. */
UMO_API uint32_t umo_numa_memory_nodes(void);

/** The node of the processor that the calling thread runs on now; 0 where there is one only.
 * Threads: any. Cost: what the C library's sched_getcpu() costs: no system call on Linux, but for
 * the first time on a processor. */
UMO_API int32_t umo_numa_node_here(void);

/** How a range is bound to a node. */
typedef enum umo_numa_binding {
    UMO_NUMA_PREFER = 0, /**< there, and elsewhere while that node is full */
    UMO_NUMA_ONLY = 1    /**< there, or a touch fails as memory that is out does */
} umo_numa_binding;

/**
 * Says where pages that come into a range from now on shall lie; those that are there stay. The
 * range is the caller's own private memory, in whole pages: what follows is its last owner's say.
 *
 * @param node  UMO_NUMA_ANY: where it is first touched, as if nothing had been said.
 *
 * Errors:    INVAL        not whole pages, or not all of it mapped.
 *            NOT_FOUND    no such node.
 *            UNSUPPORTED  the node has no memory, or none for this process; the text says which.
 *            REFUSED      the system lets nobody say so here (a seccomp filter: EPERM, ENOSYS).
 *            NOMEM.
 * Threads:   any.
 * Cost:      a system call.
 */
UMO_API UMO_MUST_USE umo_status umo_numa_bind(void *start, size_t size_bytes, int32_t node,
                                              umo_numa_binding binding, umo_error *error);

/** Where the pages of a range lie. */
typedef struct umo_numa_residency {
    uint64_t node_bytes[UMO_NUMA_NODES_MAX]; /**< by the index in the topology that was given */
    uint64_t elsewhere_bytes;                /**< on nodes that it does not have */
    /** Not in memory: never touched, or swapped out. On Linux 6.1 to 6.5 also what the kernel's own
     * balancing has marked and nobody has touched since: these kernels do not tell where it is. */
    uint64_t absent_bytes;
} umo_numa_residency;

/**
 * Looks where the pages that a range lies in are; touches none of them.
 *
 * @param step_pages  Looks at one of so many and counts it for all of them; 1: at each.
 *
 * Errors:    INVAL an empty range or step. REFUSED as umo_numa_bind(). NOMEM.
 * Threads:   any.
 * Cost:      about 0.1 us for each page looked at.
 */
UMO_API UMO_MUST_USE umo_status umo_numa_residency_read(const umo_numa_topology *topology,
                                                        const void *start, size_t size_bytes,
                                                        size_t step_pages, umo_numa_residency *out,
                                                        umo_error *error);

/**
 * Moves the pages of a range to a node, while anybody uses them; bytes and addresses stay. Pages
 * that cannot move (locked by a device, shared with another process, or that node is full) stay.
 *
 * @param[out] moved_bytes  What lies there now and did not before; may be NULL.
 *
 * Errors:    as umo_numa_bind(). That some pages stayed is no error.
 * Threads:   any.
 * Cost:      a copy of each page and the kernel's bookkeeping: about 1 to 3 us for a page of 4 KiB.
 */
UMO_API UMO_MUST_USE umo_status umo_numa_move(void *start, size_t size_bytes, int32_t node,
                                              uint64_t *moved_bytes, umo_error *error);

#ifdef __cplusplus
}
#endif

#endif
