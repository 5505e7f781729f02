/*
 * When a buffer follows the threads that use it to their node: plain arithmetic over what was
 * counted, without buffers, clocks or system calls.
 */
#ifndef UMO_ACCESS_NUMA_POLICY_H
#define UMO_ACCESS_NUMA_POLICY_H

#include "mem/votes.h"

#include <umo/numa.h>

/* What things cost on this machine, ns for each byte. */
typedef struct umo_numa_prices {
    double read; /* of memory on the own node */
    double move; /* of a page to another node, on the thread that moves it */
} umo_numa_prices;

/* What is known of one buffer; umo_numa_case_init(). */
typedef struct umo_numa_case {
    umo_votes recent; /* halved at each look */
    int wanted;       /* the index of the node that most of them want; -1: no clear one */
    uint32_t looks;   /* that wanted has been the same */
    double paid_ns;   /* meanwhile, for the pages being elsewhere */
    int place;        /* where most pages were when a move was asked for, and its price */
    double asked_ns;
    uint32_t doubts;   /* how often the price of a move is doubled */
    uint32_t failures; /* and how often the looks that it takes are */
    /* Of the last move: where most pages were before (-1: there was none), what it was thought to
     * cost, and what it has earned since: now, and at best. */
    int from;
    double price_ns;
    double earned_ns;
    double earned_most_ns;
} umo_numa_case;

void umo_numa_case_init(umo_numa_case *c);

/* One look: what was used since the last one, and where the pages are. Returns the index of the
 * node to move to, or -1; asked for again at each look until umo_numa_case_moved(). */
int umo_numa_case_look(umo_numa_case *c, const umo_numa_topology *topology,
                       const umo_numa_prices *prices, const umo_votes *votes,
                       const umo_numa_residency *where);

/* The move that umo_numa_case_look() asked for has been made, or most pages would not move. */
void umo_numa_case_moved(umo_numa_case *c, bool failed);

/* What a move cost, for the next ones. */
void umo_numa_prices_learn(umo_numa_prices *prices, uint64_t moved_bytes, uint64_t ns);

/* Of what votes say was used, the part by threads to whose node the pages were nearest; *used: all
 * of it. */
double umo_numa_local_bytes(const umo_numa_topology *topology, const umo_votes *votes,
                            const umo_numa_residency *where, double *used);

#endif
