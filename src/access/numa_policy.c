/*
 * When a buffer follows its threads.
 *
 * A move is bought when what remote accesses have cost since the last one has reached its price:
 * whatever comes next, that is at most twice what somebody pays who knows it, the rule of ski
 * rental. Sources: Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", Algorithmica
 * 1988; Black, Sleator, "Competitive algorithms for replication and migration problems", CMU 1989.
 *
 * Two rules beside it keep a buffer from going back and forth. Two thirds of its recent bytes are
 * one node's, at two looks in a row: what two nodes use alike stays. And a move that did not earn
 * its price before the next one doubles that one's, up to 16 times: a use that changes as if to
 * annoy it is followed seldom, and one whose phases are worth a move always. Pages that would not
 * move are tried again after twice as many looks each time.
 */
#include "access/numa_policy.h"

#include "mem/nodes.h"

#define LOOKS_LEAST 2u
#define DOUBTS_MOST 4u
#define FAILURES_MOST 4u
/* Fewer pages elsewhere than one in so many are not worth a move: samples see no less. */
#define AWAY_SHARE 32u

/* A move's price is believed within so many reads, which is what machines have: on a busy one, what
 * was measured is often how long the thread was stopped. */
#define MOVE_LEAST 1.0
#define MOVE_MOST 8.0

static uint64_t present_bytes(const umo_numa_topology *topology, const umo_numa_residency *where)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < topology->count; i++) {
        sum += where->node_bytes[i];
    }
    return sum;
}

/* The node that two thirds of the recent bytes want. */
static int wanted_find(const umo_numa_case *c, const umo_numa_topology *topology)
{
    unsigned top = 0;
    for (unsigned i = 1; i < UMO_VOTERS; i++) {
        top = c->recent.bytes[i] > c->recent.bytes[top] ? i : top;
    }
    double most = (double)c->recent.bytes[top];
    return most > 0 && most * 3 >= umo_votes_sum(&c->recent) * 2
               ? umo_numa_home(topology, c->recent.node[top])
               : -1;
}

/* What a voter's bytes cost with all pages on one node. */
static double cost_on(const umo_numa_topology *topology, const umo_numa_prices *prices,
                      const umo_votes *votes, uint32_t node)
{
    double sum = 0;
    for (unsigned v = 0; v < UMO_VOTERS; v++) {
        int from = votes->bytes[v] > 0 ? umo_numa_index(topology, votes->node[v]) : -1;
        if (from >= 0) {
            sum += (double)votes->bytes[v] * prices->read *
                   umo_numa_factor(topology, (uint32_t)from, node);
        }
    }
    return sum;
}

/* And with pages where they are. */
static double cost_now(const umo_numa_topology *topology, const umo_numa_prices *prices,
                       const umo_votes *votes, const umo_numa_residency *where, uint64_t present)
{
    double sum = 0;
    for (uint32_t i = 0; i < topology->count; i++) {
        if (where->node_bytes[i] > 0) {
            sum += cost_on(topology, prices, votes, i) * (double)where->node_bytes[i] /
                   (double)present;
        }
    }
    return sum;
}

static int place_of_most(const umo_numa_topology *topology, const umo_numa_residency *where)
{
    uint32_t most = 0;
    for (uint32_t i = 1; i < topology->count; i++) {
        most = where->node_bytes[i] > where->node_bytes[most] ? i : most;
    }
    return (int)most;
}

static void recent_add(umo_votes *recent, const umo_votes *votes)
{
    for (unsigned v = 0; v < UMO_VOTERS; v++) {
        recent->bytes[v] /= 2;
    }
    for (unsigned v = 0; v < UMO_VOTERS; v++) {
        if (votes->bytes[v] > 0) {
            umo_votes_add(recent, votes->node[v], (double)votes->bytes[v]);
        }
    }
}

void umo_numa_case_init(umo_numa_case *c)
{
    *c = (umo_numa_case){.wanted = -1, .from = -1};
}

int umo_numa_case_look(umo_numa_case *c, const umo_numa_topology *topology,
                       const umo_numa_prices *prices, const umo_votes *votes,
                       const umo_numa_residency *where)
{
    recent_add(&c->recent, votes);
    int wanted = wanted_find(c, topology);
    if (wanted != c->wanted) {
        c->wanted = wanted;
        c->looks = 0;
        c->paid_ns = 0;
        c->asked_ns = 0;
    }
    uint64_t present = present_bytes(topology, where);
    if (present == 0) {
        return -1;
    }
    double now = cost_now(topology, prices, votes, where, present);
    if (c->from >= 0) {
        c->earned_ns += cost_on(topology, prices, votes, (uint32_t)c->from) - now;
        c->earned_most_ns = c->earned_ns > c->earned_most_ns ? c->earned_ns : c->earned_most_ns;
    }
    if (wanted < 0) {
        return -1;
    }
    uint64_t away = present - where->node_bytes[wanted];
    if (away <= present / AWAY_SHARE) {
        c->paid_ns = 0;
        return -1;
    }
    c->looks++;
    c->paid_ns += now - cost_on(topology, prices, votes, (uint32_t)wanted);
    c->paid_ns = c->paid_ns > 0 ? c->paid_ns : 0;
    double price = (double)away * prices->move;
    if (c->looks < LOOKS_LEAST << c->failures || c->paid_ns < price * (double)(1u << c->doubts)) {
        return -1;
    }
    if (c->asked_ns <= 0) { /* not while a move is under way */
        c->place = place_of_most(topology, where);
        c->asked_ns = price;
    }
    return wanted;
}

void umo_numa_case_moved(umo_numa_case *c, bool failed)
{
    if (failed) {
        c->failures += c->failures < FAILURES_MOST ? 1 : 0;
    } else {
        c->failures = 0;
        if (c->from >= 0 && c->earned_most_ns < c->price_ns) {
            c->doubts += c->doubts < DOUBTS_MOST ? 1 : 0;
        } else {
            c->doubts -= c->doubts > 0 ? 1 : 0;
        }
    }
    c->from = c->place;
    c->price_ns = c->asked_ns;
    c->asked_ns = 0;
    c->earned_ns = 0;
    c->earned_most_ns = 0;
    c->looks = 0;
    c->paid_ns = 0;
}

void umo_numa_prices_learn(umo_numa_prices *prices, uint64_t moved_bytes, uint64_t ns)
{
    if (moved_bytes == 0) {
        return;
    }
    double price = (double)ns / (double)moved_bytes;
    price = price < MOVE_LEAST * prices->read ? MOVE_LEAST * prices->read : price;
    price = price > MOVE_MOST * prices->read ? MOVE_MOST * prices->read : price;
    prices->move += (price - prices->move) / 8;
}

double umo_numa_local_bytes(const umo_numa_topology *topology, const umo_votes *votes,
                            const umo_numa_residency *where, double *used)
{
    uint64_t present = present_bytes(topology, where);
    double local = 0;
    *used = 0;
    for (unsigned v = 0; v < UMO_VOTERS && present > 0; v++) {
        int home = votes->bytes[v] > 0 ? umo_numa_home(topology, votes->node[v]) : -1;
        if (home >= 0) {
            *used += (double)votes->bytes[v];
            local += (double)votes->bytes[v] * (double)where->node_bytes[home] / (double)present;
        }
    }
    return local;
}
