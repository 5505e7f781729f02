/*
 * Looks at who uses what from where: the figures, and the moves.
 *
 * One for the process, since nodes are the machine's and buffers' uses are recorded once: whoever
 * looks, the optimizer's worker or somebody who wants figures, goes on with what the last one knew.
 * What is known of a buffer is kept here under its number, as the placer does (access/optimize.c).
 * The lock is held over a whole look, its system calls too, and so it is only ever tried: nobody
 * waits for it, and nobody needs a place in the order of locks.
 */
#include "context/numa.h"

#include "access/numa_policy.h"
#include "base/hash.h"
#include "mem/events.h"
#include "mem/numa.h"
#include "mem/record.h"
#include "os/os.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What was used less since the last look is looked at later: a look costs some 10 us. */
#define USED_LEAST_BYTES 65536.0
/* What a look moves at most, in bytes and in time. */
#define MOVE_MOST_BYTES ((uint64_t)64 << 20)
#define MOVE_MOST_NS UINT64_C(40000000)
/* Looks that decide are at least so far apart: two in a row are to say something. */
#define DECIDE_NS UINT64_C(40000000)
#define FIGURES_AGE_NS UINT64_C(100000000)

/* Reading is measured over so much; a move is assumed to cost so many times as much. */
#define MEASURE_BYTES ((size_t)4 << 20)
#define MOVE_READS 5.0
#define READ_LEAST_NS 0.02
#define READ_MOST_NS 5.0
#define READ_ASSUMED_NS 0.1

typedef struct known {
    umo_hash_link link; /* hash: the buffer's number */
    uint64_t run;       /* that saw it last */
    umo_numa_case use;
    int target; /* the index of the node that it is moving to, or -1 */
    size_t offset_bytes;
    uint64_t moved_bytes;
    uint64_t spent_ns; /* in its parts, not between them */
} known;

static struct {
    pthread_mutex_t lock; /* all below but the figures; only ever tried */
    bool started;
    umo_numa_topology topology;
    umo_numa_prices prices;
    umo_hash buffers;
    uint64_t run;
    uint64_t decided_ns; /* the last look that did not only go on with moves */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
    _Atomic uint64_t local_bytes;
    _Atomic uint64_t remote_bytes;
    _Atomic uint64_t moves;
    _Atomic uint64_t moved_bytes;
    _Atomic uint64_t stayed_bytes;
} figures;

static void figure_add(_Atomic uint64_t *figure, uint64_t more)
{
    (void)atomic_fetch_add_explicit(figure, more, memory_order_relaxed);
}

/* ---- the first look ---- */

/* A byte's price when memory is read in order: the best of some tries. */
static double read_measure(void)
{
    uint64_t *words = umo_os_pages_alloc(MEASURE_BYTES);
    double best = READ_MOST_NS;
    if (words == NULL) {
        return READ_ASSUMED_NS;
    }
    memset(words, 1, MEASURE_BYTES);
    for (int i = 0; i < 3; i++) {
        uint64_t start_ns = umo_os_now_ns();
        uint64_t sum = 0;
        for (size_t w = 0; w < MEASURE_BYTES / sizeof *words; w++) {
            sum += words[w];
        }
        *(volatile uint64_t *)words = sum;
        double ns = (double)(umo_os_now_ns() - start_ns) / (double)MEASURE_BYTES;
        best = ns < best ? ns : best;
    }
    umo_os_pages_free(words, MEASURE_BYTES);
    return best > READ_LEAST_NS ? best : READ_LEAST_NS;
}

/* A child of fork() begins anew: somebody else's thread may have been in the middle of a look. What
 * was known stays behind. */
static void fork_child(void)
{
    (void)pthread_mutex_init(&state.lock, NULL);
    state.started = false;
}

static void fork_register(void)
{
    (void)pthread_atfork(NULL, NULL, fork_child);
}

static bool start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (state.started) {
        return true;
    }
    (void)pthread_once(&once, fork_register);
    if (umo_numa_topology_read(&state.topology, NULL) != UMO_OK || !umo_hash_init(&state.buffers)) {
        return false;
    }
    state.prices.read = read_measure();
    state.prices.move = MOVE_READS * state.prices.read;
    state.started = true;
    return true;
}

/* ---- one buffer ---- */

static known *known_find(uint64_t number)
{
    return (known *)(void *)umo_hash_find(&state.buffers, umo_hash_mix(0, number));
}

/* NULL when memory is out: then it does not follow yet. */
static known *known_get(umo_buffer *buffer)
{
    uint64_t number = umo_buffer_number(buffer);
    known *k = known_find(number);
    if (k == NULL) {
        k = calloc(1, sizeof *k);
        if (k != NULL) {
            k->target = -1;
            umo_numa_case_init(&k->use);
            umo_hash_insert(&state.buffers, &k->link, umo_hash_mix(0, number));
        }
    }
    return k;
}

/* Forgets what this run has not seen. */
static void known_drop(void)
{
    for (size_t i = 0; i < state.buffers.slot_count; i++) {
        umo_hash_link *next = NULL;
        for (umo_hash_link *link = state.buffers.slots[i]; link != NULL; link = next) {
            known *k = (known *)(void *)link;
            next = link->next;
            if (k->run != state.run) {
                umo_hash_remove(&state.buffers, link);
                free(k);
            }
        }
    }
}

/* Once for a move, however many looks it took. The recorder takes no lock. */
static void move_tell(const known *k, umo_buffer *buffer, umo_status status)
{
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_NUMA_MOVE,
                     .detail = (uint32_t)state.topology.nodes[k->target].id,
                     .size_bytes = k->moved_bytes, .status = status,
                     .start_ns = umo_trace_clock_read() - k->spent_ns);
}

/* All was moved that could be, or nothing can be now. */
static void move_end(known *k, umo_buffer *buffer, umo_status status)
{
    umo_numa_residency where;
    uint64_t stayed = 0;
    if (umo_buffer_numa_look(buffer, &state.topology, &where)) {
        for (uint32_t i = 0; i < state.topology.count; i++) {
            stayed += (int)i != k->target ? where.node_bytes[i] : 0;
        }
    }
    if (status == UMO_OK && stayed > umo_buffer_size(buffer) / 4) {
        status = UMO_E_BUSY; /* what the system says of a page that somebody holds */
    }
    umo_numa_case_moved(&k->use, status != UMO_OK);
    move_tell(k, buffer, status);
    figure_add(&figures.moves, k->moved_bytes > 0 ? 1 : 0);
    figure_add(&figures.stayed_bytes, stayed);
    k->target = -1;
}

typedef struct look {
    const umo_scope *scope; /* whose buffers may move; NULL: none */
    size_t followers;
    /* What may still be moved, in bytes and in time. */
    uint64_t left_bytes;
    uint64_t left_ns;
    bool decides; /* and does not only go on with what was decided */
    bool unfinished;
} look;

static uint64_t less(uint64_t left, uint64_t spent)
{
    return spent < left ? left - spent : 0;
}

/* Moves the next parts, as far as this look may. */
static void move_on(known *k, umo_buffer *buffer, look *l)
{
    const int32_t node = state.topology.nodes[k->target].id;
    umo_status status = UMO_OK;
    bool more = true;
    while (status == UMO_OK && more && l->left_bytes > 0 && l->left_ns > 0) {
        uint64_t moved = 0;
        uint64_t start_ns = umo_os_now_ns();
        status = umo_buffer_numa_move_part(buffer, node, &k->offset_bytes, &moved, &more, NULL);
        uint64_t spent_ns = umo_os_now_ns() - start_ns;
        k->spent_ns += spent_ns;
        if (status == UMO_OK) {
            k->moved_bytes += moved;
            figure_add(&figures.moved_bytes, moved);
            umo_numa_prices_learn(&state.prices, moved, spent_ns);
            l->left_bytes = less(l->left_bytes, moved);
            l->left_ns = less(l->left_ns, spent_ns);
        }
    }
    if (status != UMO_OK || !more) {
        move_end(k, buffer, status);
    } else {
        l->unfinished = true;
    }
}

/* What was used of a buffer since the last look goes into the figures and into its case. */
static void buffer_count(umo_buffer *buffer, known *k, const umo_votes *votes)
{
    umo_numa_residency where;
    if (!umo_buffer_numa_look(buffer, &state.topology, &where)) {
        return;
    }
    double used;
    double local = umo_numa_local_bytes(&state.topology, votes, &where, &used);
    figure_add(&figures.local_bytes, (uint64_t)local);
    figure_add(&figures.remote_bytes, (uint64_t)(used - local));
    if (k == NULL) {
        return;
    }
    int to = umo_numa_case_look(&k->use, &state.topology, &state.prices, votes, &where);
    if (k->target < 0 && to >= 0) {
        k->target = to;
        k->offset_bytes = 0;
        k->moved_bytes = 0;
        k->spent_ns = 0;
    } else if (k->target >= 0 && k->use.wanted >= 0 && k->use.wanted != k->target) {
        umo_numa_case_moved(&k->use, false); /* they have gone on meanwhile */
        if (k->moved_bytes > 0) {
            move_tell(k, buffer, UMO_OK);
        }
        k->target = -1;
    }
}

static void buffer_look(umo_buffer *buffer, look *l)
{
    umo_votes votes;
    double used = l->decides ? umo_record_votes_take(buffer, USED_LEAST_BYTES, &votes) : 0;
    bool follows = l->scope != NULL && umo_buffer_numa_follows(buffer, l->scope);
    l->followers += l->scope != NULL && umo_buffer_numa_own(buffer, l->scope) ? 1 : 0;
    known *k = known_find(umo_buffer_number(buffer));
    if (k == NULL && used > 0 && umo_buffer_numa_follows(buffer, NULL)) {
        k = known_get(buffer);
    }
    if (used > 0) {
        buffer_count(buffer, k, &votes);
    }
    if (k == NULL) {
        return;
    }
    k->run = state.run;
    if (k->target >= 0 && follows) {
        move_on(k, buffer, l);
    }
}

/* ---- all of them ---- */

/* The lock is held. */
static size_t look_once(const umo_scope *scope, bool *unfinished)
{
    if (!start()) {
        return 0;
    }
    look l = {.scope = scope,
              .decides = umo_os_now_ns() - state.decided_ns >= DECIDE_NS,
              .left_bytes = MOVE_MOST_BYTES,
              .left_ns = MOVE_MOST_NS};
    state.run++;
    if (l.decides) {
        state.decided_ns = umo_os_now_ns();
        umo_record_votes_collect();
    }
    uint32_t cursor = 0;
    for (umo_buffer *buffer; (buffer = umo_record_next(&cursor, NULL)) != NULL;) {
        buffer_look(buffer, &l);
        umo_buffer_release(buffer);
    }
    known_drop();
    *unfinished = l.unfinished;
    return l.followers;
}

size_t umo_numa_run(const umo_scope *scope, bool *unfinished)
{
    *unfinished = false;
    if (umo_numa_memory_nodes() < 2) {
        return 0;
    }
    if (pthread_mutex_trylock(&state.lock) != 0) {
        return 1;
    }
    size_t followers = look_once(scope, unfinished);
    (void)pthread_mutex_unlock(&state.lock);
    return followers;
}

void umo_numa_figures_read(umo_numa_figures *out)
{
    if (umo_numa_memory_nodes() > 1 && pthread_mutex_trylock(&state.lock) == 0) {
        if (umo_os_now_ns() - state.decided_ns >= FIGURES_AGE_NS) {
            bool unfinished;
            (void)look_once(NULL, &unfinished);
        }
        (void)pthread_mutex_unlock(&state.lock);
    }
    *out = (umo_numa_figures){
        .local_bytes = atomic_load_explicit(&figures.local_bytes, memory_order_relaxed),
        .remote_bytes = atomic_load_explicit(&figures.remote_bytes, memory_order_relaxed),
        .moves = atomic_load_explicit(&figures.moves, memory_order_relaxed),
        .moved_bytes = atomic_load_explicit(&figures.moved_bytes, memory_order_relaxed),
        .stayed_bytes = atomic_load_explicit(&figures.stayed_bytes, memory_order_relaxed),
    };
}
