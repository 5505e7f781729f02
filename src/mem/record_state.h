/*
 * The inside of recording, shared by record.c (counting), record_life.c (who is recorded) and
 * record_read.c (figures) alone. docs/patterns.md says who writes what.
 *
 * Locks, in the order in which they are taken: the registry's; a record's; a table's. Where a
 * thread holds its table's and wants a record's, it only tries.
 */
#ifndef UMO_MEM_RECORD_STATE_H
#define UMO_MEM_RECORD_STATE_H

#include "mem/address.h"
#include "mem/figures.h"
#include "mem/record.h"
#include "mem/votes.h"

#include <sched.h>
#include <string.h>

#define CACHE_LINE 128

/* A cell is one word, so that a reader never sees a count without its bytes: bytes above, accesses
 * below. A window's bytes fit because longer accesses are counted in the record directly. */
#define CELL_SHIFT 16u
#define CELL_COUNT ((UINT64_C(1) << CELL_SHIFT) - 1)
#define SLOT_ACCESS_MOST ((size_t)(UINT64_C(1) << (sizeof(size_t) > 4 ? 40 : 31)))

/* slot.window: accesses left above, changes of side below. The lowest bit is also the side of the
 * last access, UMO_SIDE_HOST 1 and UMO_SIDE_DEVICE 0: each change turns it over. */
#define WINDOW_ONE (1 << 16)

/* A record's key: generation, index, zeros. The low bits of the index are also the offset of a
 * slot, so neighbours never share one. */
#define SLOT_BYTES ((size_t)128)
#define KEY_INDEX_SHIFT 7u
#define KEY_INDEX_BITS 20u

/* A thread's slots: the first half by buffer, the second half by the page of an address. */
#define HALF_SLOTS ((size_t)64)
#define SLOTS (2 * HALF_SLOTS)
#define HALF_BYTES (HALF_SLOTS * SLOT_BYTES)
#define PAGE_SHIFT 12u

/* Where a thread counts the accesses of one buffer. */
typedef struct record_slot {
    uint64_t key; /* whose; 0 for nobody. Written under the table's lock */
    _Atomic uint64_t stamp;
    _Atomic uint64_t cells[CELLS];
    _Atomic int32_t window;
    int32_t skip; /* bits of window that must be 0 for the clock to be read */
    /* By page only: what addresses it answers for; none once the buffer is gone. */
    uintptr_t start;
    _Atomic size_t size_bytes;
    int32_t parity; /* of window when it was opened */
    uint32_t misses;
} record_slot;

UMO_STATIC_ASSERT(sizeof(record_slot) <= SLOT_BYTES, "a slot's place is its index, shifted");

/* What a slot's windows were, until its record takes it. */
typedef struct record_carry {
    umo_figures sums; /* under the table's lock */
    uint32_t first;   /* likewise: the side of the first access in here */
    uint64_t voted;   /* likewise: of sums and the open window, bytes that have voted */
    /* The thread's alone. */
    uint64_t stamped; /* the bytes that can vote, when the slot was last stamped */
    uint32_t late;    /* accesses that the open window takes beyond its length */
    uint64_t opened;  /* when the open window was */
    uint64_t merged;  /* when the record was last written to */
} record_carry;

/* Of one thread. The hot part in front; the rest is touched once a window. */
typedef struct umo_record_table {
    _Alignas(CACHE_LINE) unsigned char slots[SLOTS * SLOT_BYTES];
    record_carry carried[SLOTS];
    uint64_t keys[SLOTS]; /* the slots' again, close together for readers */
    _Atomic bool locked;
    uint64_t number;      /* never given twice, as an address may be; 0 is nobody's */
    _Atomic int32_t node; /* its thread's, at its last access that was stamped */
    struct umo_record_table *next;
    void *memory;
} umo_record_table;

/* Of one buffer. Never freed, used again: a late thread may look at it at any time. */
typedef struct umo_record {
    /* Read at each access by address. */
    _Alignas(CACHE_LINE) umo_address_range range;
    /* Written once a window. */
    _Alignas(CACHE_LINE) _Atomic bool locked;
    umo_pattern declared;
    umo_pattern pattern;
    umo_figures sums;
    uint64_t stamp;
    uint64_t last_thread; /* whose figures came last, 0 for nobody's; and the side it saw last */
    uint32_t last_side;
    uint64_t round;     /* threads whose figures came since sums faded: a bit for number % 64 */
    umo_votes votes;    /* since umo_record_votes_take(); none with one node */
    _Atomic bool paged; /* some thread has had it in a slot by page */
    /* Under the registry's lock. */
    bool addressed;
    uint32_t index;
    uint64_t generation;
    umo_buffer *buffer;
    struct umo_record *next_free;
} umo_record;

/* The lock over the records' owners, the addresses and the list of tables. */
void umo_record_registry_lock(void);
void umo_record_registry_unlock(void);

umo_record *umo_record_of(uint64_t key);

/* Threads that record. first and ->next under the registry's lock. */
void umo_record_table_add(umo_record_table *table);
void umo_record_table_remove(umo_record_table *table);
umo_record_table *umo_record_table_first(void);

/* Has all that a thread has counted vote for its node, but for the last bytes of one slot. The
 * table's lock is held. A record that somebody is at is left for the next time. */
void umo_record_table_vote(umo_record_table *table, const record_slot *last, uint64_t last_bytes);

/* The time of a stamp; 0 for 0. */
uint64_t umo_record_time_ns(uint64_t stamp);

/* Held for some hundred instructions at most, so waiting is a matter of the holder running. */
static inline bool lock_try(_Atomic bool *lock)
{
    return !atomic_exchange_explicit(lock, true, memory_order_acquire);
}

static inline void lock_take(_Atomic bool *lock)
{
    while (!lock_try(lock)) {
        (void)sched_yield();
    }
}

static inline void lock_give(_Atomic bool *lock)
{
    atomic_store_explicit(lock, false, memory_order_release);
}

static inline record_slot *slot_at(umo_record_table *table, size_t index)
{
    return (record_slot *)(void *)(table->slots + index * SLOT_BYTES);
}

/* The side of the last access, as UMO_SIDE_HOST and UMO_SIDE_DEVICE have it in their lowest bit. */
static inline uint32_t slot_side(const record_slot *slot)
{
    return (uint32_t)atomic_load_explicit(&slot->window, memory_order_relaxed) & 1;
}

static inline void stamp_raise(uint64_t *stamp, const record_slot *slot)
{
    uint64_t seen = atomic_load_explicit(&slot->stamp, memory_order_relaxed);
    *stamp = seen > *stamp ? seen : *stamp;
}

/* Bytes of the accesses on the host side: what a device does, it does from a node of its own, which
 * is not that of the thread that asked for it. */
static inline uint64_t host_bytes(const umo_figures *figures)
{
    return figures->bytes[0] + figures->bytes[1] + figures->bytes[2];
}

/* The same of an open window. */
static inline uint64_t window_host_bytes(const record_slot *slot)
{
    uint64_t bytes = 0;
    for (unsigned c = 0; c < 3; c++) {
        bytes += atomic_load_explicit(&slot->cells[c], memory_order_relaxed) >> CELL_SHIFT;
    }
    return bytes;
}

/* Has what was counted since the last time vote for its thread's node. counted never falls while a
 * slot is one buffer's and its record has not taken what it carries. Under both locks. */
static inline void carry_vote(const umo_record_table *t, record_carry *carried, umo_record *record,
                              uint64_t counted)
{
    if (counted > carried->voted) {
        umo_votes_add(&record->votes, atomic_load_explicit(&t->node, memory_order_relaxed),
                      (double)(counted - carried->voted));
        carried->voted = counted;
    }
}

/* Adds the open window of a slot, which fades what was there so often; fill if it ends early.
 * Accesses that its thread makes meanwhile are in it or not, each with all its bytes. Returns how
 * many there are. */
static inline uint32_t window_add(const record_slot *slot, umo_figures *figures, uint32_t fades,
                                  uint32_t fill)
{
    double factor = figures_factor(figures, fades, fill);
    uint32_t accesses = 0;
    for (unsigned c = 0; c < CELLS; c++) {
        uint64_t cell = atomic_load_explicit(&slot->cells[c], memory_order_relaxed);
        if (cell == 0 && figures->events[c] == 0) {
            continue;
        }
        int64_t events = (int64_t)(cell & CELL_COUNT);
        int64_t bytes = (int64_t)(cell >> CELL_SHIFT);
        figures->events[c] += (uint64_t)events;
        figures->bytes[c] += (uint64_t)bytes;
        figures->recent_events[c] = figures->recent_events[c] * factor + (double)events;
        figures->recent_bytes[c] = figures->recent_bytes[c] * factor + (double)bytes;
        accesses += (uint32_t)events;
    }
    int32_t window = atomic_load_explicit(&slot->window, memory_order_relaxed);
    figures->recent_turns =
        figures->recent_turns * factor + (double)(window % WINDOW_ONE - slot->parity);
    return accesses;
}

/*
 * Adds what a thread counted to a record's figures: the record's own, or a reader's copy of them.
 *
 * Threads' windows pass beside one another, not one after the other, so what is there fades once a
 * round, and by half: when one comes again that has come since. And where each thread keeps to one
 * side, none sees the side change: two streams that meet in any order change sides at every other
 * access.
 */
static inline void record_add(umo_record *record, uint64_t thread, const umo_figures *figures,
                              uint32_t first_side, uint32_t last_side)
{
    uint64_t bit = UINT64_C(1) << thread % 64;
    bool again = (record->round & bit) != 0 || record->round == 0;
    bool alone = record->round == bit || record->round == 0;
    uint32_t fades = figures->fades;
    fades = !again ? 0 : !alone && fades > 1 ? 1 : fades;
    umo_figures later = *figures;
    if (record->last_thread == thread) {
        later.recent_turns += first_side != record->last_side ? 1 : 0;
    } else if (record->last_thread != 0 && figures->recent_turns == 0 &&
               last_side != record->last_side) {
        later.recent_turns = umo_figures_accesses(figures) / 2;
    }
    umo_figures_add(&record->sums, &later, fades);
    record->round = again ? bit : record->round | bit;
    record->last_thread = thread;
    record->last_side = last_side;
}

#endif
