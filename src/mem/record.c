/*
 * Recording accesses.
 *
 * The decision that shapes it: counting writes nothing that another thread reads or writes. Each
 * thread has a table of slots; a slot belongs to one buffer at a time and counts its accesses until
 * a window is full. Then the window is added to what the slot carries, and what it carries to the
 * buffer's record, unless somebody is at the record just now or the slot was there a moment ago.
 * Readers add up the record and all slots. docs/patterns.md has who writes what, and why no count
 * is lost or seen twice.
 */
#include "mem/record_state.h"

#include "base/ticks.h"
#include "os/os.h"

#include <umo/numa.h>

#include <stdlib.h>

#define LATE 16              /* more accesses that a window takes while a reader looks at it */
#define LATE_MOST (3 * LATE) /* and how many in all */
/* In a burst the clock, which costs more than all the rest, is read at each eighth access. */
#define SKIP_BURST (7 * WINDOW_ONE)
/* So many look-ups in vain until a page's slot goes to another buffer. */
#define MISSES_MOST 8u

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;
static bool exit_key_made;
static uint64_t start_ticks;
static uint64_t start_ns;
/* How long a slot keeps its counts to itself, and how short a window is a burst. */
static uint64_t moment_ticks;
/* There are several nodes, and threads vote for theirs. */
static bool voting;

/* Initial-exec: a look-up of one instruction where the general way is a call. It takes eight bytes
 * of the room that the loader keeps for libraries that are loaded late. */
#if defined(__ELF__)
#define THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define THREAD_LOCAL _Thread_local
#endif
static umo_record_table nobody; /* never written to */
static THREAD_LOCAL umo_record_table *own = &nobody;

#if defined(__SANITIZE_THREAD__)
#define WATCHED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WATCHED 1
#endif
#endif
#ifndef WATCHED
#define WATCHED 0
#endif

#define COLD __attribute__((noinline, cold))

/* ---- slots: their thread's alone ---- */

static void window_open(record_slot *slot, uint32_t side)
{
    for (unsigned c = 0; c < CELLS; c++) {
        atomic_store_explicit(&slot->cells[c], 0, memory_order_relaxed);
    }
    slot->parity = (int32_t)(side & 1);
    atomic_store_explicit(&slot->window, UMO_ACCESS_WINDOW * WINDOW_ONE | slot->parity,
                          memory_order_relaxed);
}

/* Adds the open window to what the slot carries. */
static void window_carry(record_slot *slot, record_carry *carried)
{
    uint32_t left =
        (uint32_t)(atomic_load_explicit(&slot->window, memory_order_relaxed) / WINDOW_ONE);
    uint32_t accesses = UMO_ACCESS_WINDOW + carried->late - left;
    bool full = accesses >= UMO_ACCESS_WINDOW;
    (void)window_add(slot, &carried->sums, full ? 1 : 0, full ? 0 : accesses);
    carried->late = 0;
}

/* Brings what the slot carries to its record, or drops it when the buffer is gone. Under both
 * locks. */
static void slot_merge(umo_record_table *t, size_t index, umo_record *record)
{
    record_slot *slot = slot_at(t, index);
    record_carry *carried = &t->carried[index];
    if (atomic_load_explicit(&record->range.key, memory_order_relaxed) == slot->key) {
        record_add(record, t->number, &carried->sums, carried->first, slot_side(slot));
        stamp_raise(&record->stamp, slot);
        if (voting) {
            carry_vote(t, carried, record, host_bytes(&carried->sums));
        }
    }
    carried->voted = 0;
    carried->stamped = 0;
    carried->first = slot_side(slot);
    memset(&carried->sums, 0, sizeof carried->sums);
}

static void slot_leave(umo_record_table *t, size_t index)
{
    record_slot *slot = slot_at(t, index);
    if (slot->key == 0) {
        return;
    }
    umo_record *record = umo_record_of(slot->key);
    lock_take(&record->locked);
    lock_take(&t->locked);
    window_carry(slot, &t->carried[index]);
    slot_merge(t, index, record);
    slot->key = 0;
    t->keys[index] = 0;
    /* A buffer that is not tracked has this key too: nothing can be counted here. */
    atomic_store_explicit(&slot->window, 0, memory_order_relaxed);
    lock_give(&t->locked);
    lock_give(&record->locked);
}

/* Gives a slot to another buffer. */
static void slot_turn(umo_record_table *t, size_t index, const umo_address_hit *hit, umo_side side)
{
    slot_leave(t, index);
    record_slot *slot = slot_at(t, index);
    record_carry *carried = &t->carried[index];
    uint64_t now = umo_ticks_now();
    lock_take(&t->locked);
    slot->start = hit->start;
    /* See slots_forget(): whoever ends the buffer finds this slot, or was here before. */
    bool live = atomic_load_explicit(&hit->range->key, memory_order_seq_cst) == hit->key;
    atomic_store_explicit(&slot->size_bytes, live ? hit->size_bytes : 0, memory_order_relaxed);
    slot->skip = 0;
    slot->misses = 0;
    atomic_store_explicit(&slot->stamp, now, memory_order_relaxed);
    window_open(slot, (uint32_t)side);
    carried->opened = now;
    carried->merged = now - moment_ticks;
    carried->first = (uint32_t)slot->parity;
    slot->key = hit->key;
    t->keys[index] = hit->key;
    lock_give(&t->locked);
}

/* The window is full. */
static void window_close(umo_record_table *t, size_t index)
{
    record_slot *slot = slot_at(t, index);
    record_carry *carried = &t->carried[index];
    if (!lock_try(&t->locked)) {
        if (carried->late < LATE_MOST) {
            carried->late += LATE;
            int32_t window = atomic_load_explicit(&slot->window, memory_order_relaxed);
            atomic_store_explicit(&slot->window, window + LATE * WINDOW_ONE, memory_order_relaxed);
            return;
        }
        lock_take(&t->locked);
    }
    window_carry(slot, carried);
    window_open(slot, slot_side(slot));
    uint64_t now = umo_ticks_now();
    slot->skip = now - carried->opened < moment_ticks ? SKIP_BURST : 0;
    carried->opened = now;
    if (now - carried->merged >= moment_ticks) {
        umo_record *record = umo_record_of(slot->key);
        if (lock_try(&record->locked)) {
            slot_merge(t, index, record);
            carried->merged = now;
            lock_give(&record->locked);
        }
    }
    lock_give(&t->locked);
}

/* Notes where the thread is now. When that is another node, what it has counted votes for the one
 * before, but for what came since the slot was last stamped. */
static COLD umo_status node_note(const record_slot *slot)
{
    umo_record_table *t = own;
    record_carry *carried =
        &t->carried[(size_t)((const unsigned char *)slot - t->slots) / SLOT_BYTES];
    uint64_t counted = host_bytes(&carried->sums) + window_host_bytes(slot);
    int32_t now = umo_numa_node_here();
    if (now != atomic_load_explicit(&t->node, memory_order_relaxed)) {
        lock_take(&t->locked);
        umo_record_table_vote(t, slot, counted - carried->stamped);
        atomic_store_explicit(&t->node, now, memory_order_relaxed);
        lock_give(&t->locked);
    }
    carried->stamped = counted;
    return UMO_OK;
}

/* Apart, so that reading the clock claims no registers from accesses that leave it out. */
__attribute__((noinline)) static umo_status slot_stamp(record_slot *slot)
{
    atomic_store_explicit(&slot->stamp, umo_ticks_now(), memory_order_relaxed);
    return voting ? node_note(slot) : UMO_OK;
}

/* Adds to a word that only this thread writes, in one instruction where there is one: readers see
 * the word before or after. */
static inline void own_add(_Atomic uint64_t *word, uint64_t more)
{
#if defined(__x86_64__) && !WATCHED
    __asm__("addq %1, %0" : "+m"(*word) : "er"(more));
#else
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + more,
                          memory_order_relaxed);
#endif
}

/* Takes one access out of the window; less than 0 when it is full. */
static inline int32_t window_take(const record_slot *slot)
{
    return atomic_load_explicit(&slot->window, memory_order_relaxed) - WINDOW_ONE;
}

/* The one thing that every access does, with what window_take() gave. */
static inline umo_status slot_count(record_slot *slot, int32_t window, umo_side side, umo_use use,
                                    uint64_t size_bytes)
{
    own_add(&slot->cells[cell_index(side, use)], (size_bytes << CELL_SHIFT) + 1);
    window += (window ^ (int32_t)side) & 1;
    atomic_store_explicit(&slot->window, window, memory_order_relaxed);
    if ((window & slot->skip) == 0) {
        return slot_stamp(slot);
    }
    return UMO_OK;
}

/* ---- threads ---- */

static void table_leave(void *gone)
{
    umo_record_table *t = gone;
    for (size_t i = 0; i < SLOTS; i++) {
        slot_leave(t, i);
    }
    own = &nobody;
    umo_record_table_remove(t);
    free(t->memory);
}

static void start(void)
{
    exit_key_made = pthread_key_create(&exit_key, table_leave) == 0;
    voting = umo_numa_memory_nodes() > 1;
    moment_ticks = umo_ticks_of_300us();
    start_ticks = umo_ticks_now();
    start_ns = umo_os_now_ns();
}

/* This thread's table; NULL when memory is out. */
static umo_record_table *table_get(void)
{
    if (own != &nobody) {
        return own;
    }
    (void)pthread_once(&once, start);
    void *memory = calloc(1, sizeof(umo_record_table) + CACHE_LINE - 1);
    if (memory == NULL) {
        return NULL;
    }
    umo_record_table *t = (void *)((char *)memory + (-(uintptr_t)memory & (CACHE_LINE - 1)));
    if (!exit_key_made || pthread_setspecific(exit_key, t) != 0) {
        free(memory);
        return NULL;
    }
    t->memory = memory;
    umo_record_table_add(t);
    own = t;
    return t;
}

/* The rate is that since the first thread began. */
uint64_t umo_record_time_ns(uint64_t stamp)
{
    uint64_t ticks = umo_ticks_now();
    uint64_t now = umo_os_now_ns();
    if (stamp == 0) {
        return 0;
    }
    if (ticks <= stamp || stamp < start_ticks) {
        return now;
    }
    double rate = (double)(now - start_ns) / (double)(ticks - start_ticks);
    uint64_t ago = (uint64_t)((double)(ticks - stamp) * rate);
    return ago < now ? now - ago : 1;
}

/* ---- recording ---- */

/* What is too long for a slot. */
static void count_in_record(const umo_record_table *t, const umo_address_hit *hit, umo_side side,
                            umo_use use, uint64_t size_bytes)
{
    umo_record *record = umo_record_of(hit->key);
    unsigned cell = cell_index(side, use);
    uint32_t parity = (uint32_t)side & 1;
    umo_figures one = {.fill = 1};
    one.events[cell] = 1;
    one.bytes[cell] = size_bytes;
    one.recent_events[cell] = 1;
    one.recent_bytes[cell] = (double)size_bytes;
    lock_take(&record->locked);
    if (atomic_load_explicit(&record->range.key, memory_order_relaxed) == hit->key) {
        record_add(record, t->number, &one, parity, parity);
        record->stamp = umo_ticks_now();
        if (voting && side == UMO_SIDE_HOST) {
            umo_votes_add(&record->votes, umo_numa_node_here(), (double)size_bytes);
        }
    }
    lock_give(&record->locked);
}

/* Counts in a slot that may be somebody else's, or full. */
static void count_in_slot(umo_record_table *t, size_t index, const umo_address_hit *hit,
                          umo_side side, umo_use use, uint64_t size_bytes)
{
    record_slot *slot = slot_at(t, index);
    if (slot->key != hit->key) {
        slot_turn(t, index, hit, side);
    }
    if (window_take(slot) < 0) {
        window_close(t, index);
    }
    (void)slot_count(slot, window_take(slot), side, use, size_bytes);
}

/* The slot is the right one, but its window is full. */
static COLD umo_status count_after_close(record_slot *slot, umo_side side, umo_use use,
                                         uint64_t size_bytes)
{
    window_close(own, (size_t)((unsigned char *)slot - own->slots) / SLOT_BYTES);
    return slot_count(slot, window_take(slot), side, use, size_bytes);
}

static inline bool use_valid(umo_side side, umo_use use)
{
    return (unsigned)side - 1u < 2u && (unsigned)use - 1u < 3u;
}

static size_t key_slot(uint64_t key)
{
    return (size_t)(key / SLOT_BYTES) % HALF_SLOTS;
}

static COLD umo_status record_slowly(umo_buffer *buffer, umo_side side, umo_use use,
                                     uint64_t size_bytes)
{
    if (buffer == NULL || !use_valid(side, use) || size_bytes - 1 >= buffer->size_bytes) {
        return UMO_E_INVAL;
    }
    umo_record_table *t = table_get();
    if (t == NULL) {
        return UMO_E_NOMEM;
    }
    if (atomic_load_explicit(&buffer->record_key, memory_order_relaxed) == 0) {
        umo_status status = umo_buffer_track(buffer);
        if (status != UMO_OK) {
            return status;
        }
    }
    uint64_t key = atomic_load_explicit(&buffer->record_key, memory_order_relaxed);
    umo_address_hit hit = {.range = &umo_record_of(key)->range, .key = key};
    if (buffer->size_bytes > SLOT_ACCESS_MOST) {
        count_in_record(t, &hit, side, use, size_bytes);
    } else {
        count_in_slot(t, key_slot(key), &hit, side, use, size_bytes);
    }
    return UMO_OK;
}

umo_status umo_access_record(umo_buffer *buffer, umo_side side, umo_use use, uint64_t size_bytes)
{
    if (buffer != NULL && use_valid(side, use) && size_bytes - 1 < buffer->size_bytes) {
        uint64_t key = atomic_load_explicit(&buffer->record_key, memory_order_relaxed);
        /* A buffer that is not tracked has key 0, as an empty slot has, whose window is full. */
        record_slot *slot = (void *)(own->slots + (key & (HALF_BYTES - SLOT_BYTES)));
        int32_t window = window_take(slot);
        if (slot->key == key && window >= 0) {
            return slot_count(slot, window, side, use, size_bytes);
        }
        if (slot->key == key && key != 0) {
            return count_after_close(slot, side, use, size_bytes);
        }
    }
    return record_slowly(buffer, side, use, size_bytes);
}

void umo_record_count(umo_buffer *buffer, umo_side side, umo_use use, size_t size_bytes)
{
    umo_status_ignore(umo_access_record(buffer, side, use, size_bytes));
}

static COLD umo_status record_at_slowly(const void *at, umo_side side, umo_use use,
                                        uint64_t size_bytes)
{
    uintptr_t address = (uintptr_t)at;
    umo_address_hit hit;
    if (address == 0 || !use_valid(side, use) || size_bytes == 0) {
        return UMO_E_INVAL;
    }
    if (!umo_address_find(address, &hit)) {
        return UMO_E_NOT_FOUND;
    }
    if (size_bytes > hit.size_bytes - (address - hit.start)) {
        return UMO_E_INVAL;
    }
    umo_record_table *t = table_get();
    if (t == NULL) {
        return UMO_E_NOMEM;
    }
    if (hit.size_bytes > SLOT_ACCESS_MOST) {
        count_in_record(t, &hit, side, use, size_bytes);
        return UMO_OK;
    }
    /* Many buffers, or many places of a large one, may want one page slot: it changes hands only
     * now and then. */
    size_t index = HALF_SLOTS + (address >> PAGE_SHIFT) % HALF_SLOTS;
    record_slot *slot = slot_at(t, index);
    bool taken =
        slot->key != hit.key && atomic_load_explicit(&slot->size_bytes, memory_order_relaxed) != 0;
    if (taken && ++slot->misses < MISSES_MOST) {
        index = key_slot(hit.key);
    } else {
        atomic_store_explicit(&umo_record_of(hit.key)->paged, true, memory_order_seq_cst);
    }
    count_in_slot(t, index, &hit, side, use, size_bytes);
    return UMO_OK;
}

umo_status umo_access_record_at(const void *address, umo_side side, umo_use use,
                                uint64_t size_bytes)
{
    uintptr_t at = (uintptr_t)address;
    record_slot *slot = (void *)(own->slots + HALF_BYTES +
                                 ((at >> PAGE_SHIFT) * SLOT_BYTES & (HALF_BYTES - SLOT_BYTES)));
    uint64_t last;
    if (use_valid(side, use) &&
        !__builtin_add_overflow((uint64_t)(at - slot->start), size_bytes - 1, &last) &&
        last < atomic_load_explicit(&slot->size_bytes, memory_order_relaxed)) {
        int32_t window = window_take(slot);
        return window >= 0 ? slot_count(slot, window, side, use, size_bytes)
                           : count_after_close(slot, side, use, size_bytes);
    }
    return record_at_slowly(address, side, use, size_bytes);
}
