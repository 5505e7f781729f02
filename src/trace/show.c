/*
 * The recorder's switch, its rings, and what is left of them in a child.
 *
 * The head is mapped over static pages (base/recorded.h), so that asking whether somebody records
 * stays one load, and one of another process's stores is enough to start. Rings cost nothing before
 * they are wanted: the first event maps one, which is the only time that an event makes a system
 * call.
 *
 * A child of fork() shares these mappings with its parent. It leaves them, before it runs anything
 * else, for pages of its own at the same addresses.
 */
#include "trace/show.h"

#include "os/os.h"
#include "os/shown.h"
#include "trace/names.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What others may ask for: 2^13 to 2^28 bytes, 256 MiB; 4 MiB where nobody has said. */
#define WANTED_MIN 13u
#define WANTED_MAX 28u
#define WANTED_DEFAULT 22u

_Atomic(umo_trace_ring *) umo_trace_now;
_Atomic bool umo_trace_own_now;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* Under the lock. */
static bool show_tried;
static bool stranded; /* a child that could not leave its parent's pages */
static int head_file = -1;
static uint32_t parts;
static umo_trace_ring *kept;
static umo_trace_ring *outside;
static uint32_t outside_wanted = WANTED_DEFAULT;
static uint32_t own_shards;
static uint64_t own_slots;

static _Atomic(umo_trace_ring *) own;
static _Atomic uint64_t own_missed;

/* ---- the head ---- */

static void head_fill(umo_trace_head *head)
{
    head->layout = UMO_TRACE_LAYOUT;
    head->head_bytes = (uint32_t)sizeof *head;
    head->slot_bytes = (uint32_t)sizeof(umo_trace_slot);
    head->pid = (int64_t)getpid();
    strncpy(head->version, UMO_VERSION, sizeof head->version - 1);
    umo_trace_names_show(head);
    atomic_store_explicit(&head->magic, UMO_TRACE_MAGIC, memory_order_release);
}

/* Best effort: without it, this process records for itself alone. */
static void head_show(void)
{
    const char *wish = getenv("UMO_RECORDER");
    int cause;
    if (show_tried || (wish != NULL && strcmp(wish, "off") == 0)) {
        return;
    }
    show_tried = true;
    if (UMO_RECORDED_ALIGN % (size_t)sysconf(_SC_PAGESIZE) != 0 ||
        umo_os_shown_create(0, UMO_RECORDED_BYTES, &head_file, &cause) != UMO_OK) {
        return;
    }
    if (umo_os_shown_map(head_file, UMO_RECORDED_BYTES, &umo_recorded, true) == NULL) {
        umo_os_shown_close(0, head_file, true);
        head_file = -1;
        return;
    }
    head_fill(UMO_TRACE_HEAD);
}

/* ---- a child ---- */

static void lock_take(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void lock_give(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* The rings stay mapped, as private pages of zeros: whoever forked may be in the middle of one. */
static void child_leave(void)
{
    const bool shown = head_file >= 0;
    atomic_store_explicit(&umo_trace_now, NULL, memory_order_relaxed);
    atomic_store_explicit(&own, NULL, memory_order_relaxed);
    atomic_store_explicit(&own_missed, 0, memory_order_relaxed);
    for (umo_trace_ring *ring = kept; ring != NULL; ring = ring->kept) {
        if (ring->file >= 0) {
            stranded = !umo_os_shown_leave(ring->part, ring->memory_bytes) || stranded;
            umo_os_shown_close(ring->part_number, ring->file, false);
        }
    }
    kept = NULL;
    outside = NULL;
    parts = 0;
    if (shown) {
        stranded = !umo_os_shown_leave(&umo_recorded, UMO_RECORDED_BYTES) || stranded;
        umo_os_shown_close(0, head_file, false);
        head_file = -1;
        show_tried = stranded;
    }
    if (!stranded) {
        if (shown) {
            head_show();
        }
        atomic_store_explicit(&UMO_TRACE_HEAD->on, umo_trace_own_on() ? 1 : 0,
                              memory_order_relaxed);
    }
    lock_give();
}

static void fork_prepare(void)
{
    /* A child must not inherit the lock of a thread that it does not have. */
    (void)pthread_atfork(lock_take, lock_give, child_leave);
}

static void begin(void)
{
    (void)pthread_once(&fork_once, fork_prepare);
    lock_take();
    head_show();
}

void umo_trace_head_show(void)
{
    begin();
    lock_give();
}

/* ---- rings ---- */

static umo_trace_ring *ring_find(bool for_outside, uint32_t shard_count, uint64_t shard_slots)
{
    for (umo_trace_ring *ring = kept; ring != NULL; ring = ring->kept) {
        if (ring->outside == for_outside && ring->shard_count == shard_count &&
            ring->shard_slots == shard_slots) {
            return ring;
        }
    }
    umo_trace_ring *ring =
        umo_trace_ring_create(head_file >= 0 ? ++parts : 0, for_outside, shard_count, shard_slots);
    if (ring != NULL) {
        ring->kept = kept;
        kept = ring;
    }
    return ring;
}

/* Events go there from now on. A ring that no file could be had for is nothing to those who look
 * on: they are told instead of waiting for it. */
static void ring_use(umo_trace_ring *ring)
{
    const bool hidden = head_file >= 0 && ring != NULL && ring->part_number == 0;
    atomic_store_explicit(&umo_trace_now, ring, memory_order_release);
    atomic_store_explicit(&UMO_TRACE_HEAD->refused, (uint32_t)(hidden ? UMO_E_NOMEM : UMO_OK),
                          memory_order_relaxed);
    atomic_store_explicit(&UMO_TRACE_HEAD->ring_part, ring != NULL ? ring->part_number : 0,
                          memory_order_release);
}

static bool looked_on(void)
{
    return atomic_load_explicit(&UMO_TRACE_HEAD->watchers, memory_order_relaxed) != 0 &&
           !umo_trace_lapsed(umo_os_now_ns());
}

static void on_set(bool on)
{
    atomic_store_explicit(&UMO_TRACE_HEAD->on, on ? 1 : 0, memory_order_release);
}

umo_status umo_trace_own_start(uint32_t shard_count, uint64_t shard_slots)
{
    begin();
    umo_trace_ring *ring = stranded ? NULL : ring_find(false, shard_count, shard_slots);
    if (ring != NULL) {
        own_shards = shard_count;
        own_slots = shard_slots;
        umo_trace_ring_restart(ring);
        atomic_store_explicit(&own_missed, 0, memory_order_relaxed);
        atomic_store_explicit(&own, ring, memory_order_release);
        atomic_store_explicit(&umo_trace_own_now, true, memory_order_relaxed);
        ring_use(ring);
        on_set(true);
    }
    lock_give();
    return ring != NULL ? UMO_OK : UMO_E_NOMEM;
}

umo_status umo_trace_own_enable(bool on)
{
    begin();
    umo_trace_ring *ring = atomic_load_explicit(&own, memory_order_relaxed);
    const bool can = ring != NULL && !stranded;
    if (can || (!on && !stranded)) {
        atomic_store_explicit(&umo_trace_own_now, on, memory_order_relaxed);
        if (!on && outside != NULL) {
            umo_trace_ring_restart(outside); /* what others saw of it before is old */
        }
        ring_use(on ? ring : outside);
        on_set(on || looked_on());
    }
    lock_give();
    return on && !can ? UMO_E_NOT_FOUND : UMO_OK;
}

const umo_trace_ring *umo_trace_own(uint64_t *missed)
{
    *missed = atomic_load_explicit(&own_missed, memory_order_relaxed);
    return atomic_load_explicit(&own, memory_order_acquire);
}

/* ---- those who look on ---- */

/* A larger one than there is, if that is asked for and can be had. */
static void outside_grow(void)
{
    uint32_t shard_count;
    uint64_t shard_slots;
    const umo_profile_options options = {.memory_bytes = (size_t)1 << outside_wanted};
    if (umo_trace_shape(&options, &shard_count, &shard_slots) != UMO_OK ||
        (outside != NULL && outside->shard_slots >= shard_slots)) {
        return;
    }
    umo_trace_ring *ring = ring_find(true, shard_count, shard_slots);
    outside = ring != NULL ? ring : outside;
}

/* What a child's own recording goes on in, or what somebody asked for. */
static umo_trace_ring *ring_choose(uint32_t wanted)
{
    if (wanted != 0) {
        outside_wanted = wanted < WANTED_MIN   ? WANTED_MIN
                         : wanted > WANTED_MAX ? WANTED_MAX
                                               : wanted;
    }
    if (umo_trace_own_on()) {
        umo_trace_ring *ring = atomic_load_explicit(&own, memory_order_relaxed);
        if (ring == NULL && (ring = ring_find(false, own_shards, own_slots)) != NULL) {
            umo_trace_ring_restart(ring);
            atomic_store_explicit(&own, ring, memory_order_release);
        }
        return ring;
    }
    outside_grow();
    return outside;
}

static void event_missed(void)
{
    (void)atomic_fetch_add_explicit(&UMO_TRACE_HEAD->missed, 1, memory_order_relaxed);
    if (umo_trace_own_on()) {
        (void)atomic_fetch_add_explicit(&own_missed, 1, memory_order_relaxed);
    }
}

umo_trace_ring *umo_trace_answer(void)
{
    if (pthread_mutex_trylock(&lock) != 0) {
        umo_trace_ring *now = atomic_load_explicit(&umo_trace_now, memory_order_acquire);
        if (now == NULL) {
            event_missed();
        }
        return now;
    }
    umo_trace_ring *ring = NULL;
    if (!stranded) {
        ring =
            ring_choose(atomic_exchange_explicit(&UMO_TRACE_HEAD->wanted, 0, memory_order_relaxed));
        ring_use(ring);
        if (ring == NULL) {
            atomic_store_explicit(&UMO_TRACE_HEAD->refused, (uint32_t)UMO_E_NOMEM,
                                  memory_order_relaxed);
            on_set(false);
        }
    }
    lock_give();
    return ring;
}

void umo_trace_lapse(void)
{
    if (umo_trace_own_on() || pthread_mutex_trylock(&lock) != 0) {
        return;
    }
    if (!umo_trace_own_on() && umo_trace_lapsed(umo_os_now_ns())) {
        atomic_store_explicit(&UMO_TRACE_HEAD->watchers, 0, memory_order_relaxed);
        on_set(false);
    }
    lock_give();
}
