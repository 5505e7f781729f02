/*
 * Writing and reading one event.
 */
#include "trace/ring.h"

#include "base/scope.h"
#include "os/os.h"

#include <string.h>

#define MEMORY_DEFAULT_BYTES ((size_t)4 << 20)
#define MEMORY_MAX_BYTES ((size_t)1 << 30)
#define SHARDS_DEFAULT_MAX 16u
#define SHARD_SLOTS_MIN 64u
#define NAMES 1024u
#define PROBES 16u
#define NAME_BYTES 64u

_Atomic(umo_trace_ring *) umo_trace_now;

/* ---- names ----
 * Numbers of scopes and devices are never used again in a process, so a name that is in the table
 * stays right, and the table outlives recordings. */

typedef struct name {
    _Atomic uint64_t key; /* 0 while free; set once */
    _Atomic bool ready;
    char text[NAME_BYTES];
} name;

static name names[NAMES];

typedef enum name_of {
    NAME_SCOPE = 1,
    NAME_DEVICE = 2
} name_of;

static uint64_t name_key(name_of what, uint32_t number)
{
    return (uint64_t)what << 32 | number;
}

static name *name_slot(uint64_t key, uint32_t probe)
{
    return &names[((key * UINT64_C(0x9e3779b97f4a7c15) >> 40) + probe) & (NAMES - 1)];
}

/* False when there is no room near its place. */
static bool name_keep(name_of what, uint32_t number, const char *text)
{
    const uint64_t key = name_key(what, number);
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        name *n = name_slot(key, probe);
        uint64_t seen = atomic_load_explicit(&n->key, memory_order_relaxed);
        if (seen == key) {
            return true;
        }
        if (seen == 0 && atomic_compare_exchange_strong_explicit(
                             &n->key, &seen, key, memory_order_relaxed, memory_order_relaxed)) {
            strncpy(n->text, text, NAME_BYTES - 1);
            atomic_store_explicit(&n->ready, true, memory_order_release);
            return true;
        }
        if (seen == key) {
            return true;
        }
    }
    return false;
}

static const char *name_find(name_of what, uint32_t number)
{
    const uint64_t key = name_key(what, number);
    for (uint32_t probe = 0; number != 0 && probe < PROBES; probe++) {
        name *n = name_slot(key, probe);
        if (atomic_load_explicit(&n->key, memory_order_relaxed) == key &&
            atomic_load_explicit(&n->ready, memory_order_acquire)) {
            return n->text;
        }
    }
    return "";
}

/* ---- rings ---- */

static uint32_t shards_default(void)
{
    uint32_t processors = umo_os_processors();
    uint32_t shards = 1;
    while (shards < processors && shards < SHARDS_DEFAULT_MAX) {
        shards *= 2;
    }
    return shards;
}

umo_status umo_trace_shape(const umo_profile_options *options, uint32_t *shard_count,
                           uint64_t *shard_slots)
{
    uint32_t shards = options != NULL && options->shards != 0 ? options->shards : shards_default();
    size_t memory = options != NULL && options->memory_bytes != 0 ? options->memory_bytes
                                                                  : MEMORY_DEFAULT_BYTES;
    if (shards > UMO_TRACE_SHARDS_MAX || (shards & (shards - 1)) != 0 ||
        memory > MEMORY_MAX_BYTES) {
        return UMO_E_INVAL;
    }
    uint64_t slots = SHARD_SLOTS_MIN;
    while (slots * 2 * shards * sizeof(umo_trace_slot) <= memory) {
        slots *= 2;
    }
    *shard_count = shards;
    *shard_slots = slots;
    return UMO_OK;
}

umo_trace_ring *umo_trace_ring_create(uint32_t shard_count, uint64_t shard_slots)
{
    /* At most MEMORY_MAX_BYTES and these. */
    const size_t head_bytes = sizeof(umo_trace_ring) + shard_count * sizeof(umo_trace_shard);
    const size_t shard_bytes = (size_t)shard_slots * sizeof(umo_trace_slot);
    const size_t memory_bytes = head_bytes + shard_count * shard_bytes;
    umo_trace_ring *ring = umo_os_pages_alloc(memory_bytes);
    if (ring == NULL) {
        return NULL;
    }
    ring->memory_bytes = memory_bytes;
    ring->shard_count = shard_count;
    ring->shard_slots = shard_slots;
    for (uint32_t i = 0; i < shard_count; i++) {
        ring->shards[i].slots =
            (umo_trace_slot *)(void *)((char *)ring + head_bytes + (size_t)i * shard_bytes);
    }
    return ring;
}

void umo_trace_ring_restart(umo_trace_ring *ring)
{
    for (uint32_t i = 0; i < ring->shard_count; i++) {
        umo_trace_shard *shard = &ring->shards[i];
        atomic_store_explicit(&shard->first,
                              atomic_load_explicit(&shard->next, memory_order_relaxed),
                              memory_order_relaxed);
    }
    atomic_store_explicit(&ring->names_lost, 0, memory_order_relaxed);
    atomic_store_explicit(&ring->start_ns, umo_os_now_ns(), memory_order_relaxed);
}

/* ---- events ---- */

static uint32_t thread_number(void)
{
    static _Atomic uint32_t threads;
    static _Thread_local uint32_t own;
    if (own == 0) {
        own = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
    }
    return own;
}

uint64_t umo_trace_clock_read(void)
{
    return umo_os_now_ns();
}

static uint64_t small_pack(const umo_trace_event *e)
{
    return (uint64_t)(e->kind & 0xFFu) | (uint64_t)(e->side & 0xFFu) << 8 |
           (uint64_t)(e->use & 0xFFu) << 16 | (uint64_t)(e->mode & 0xFFu) << 24 |
           (uint64_t)(e->mode_before & 0xFFu) << 32 | (uint64_t)(e->direction & 0xFFu) << 40 |
           (uint64_t)(e->reason & 0xFFu) << 48 | (uint64_t)(e->status & 0xFu) << 56 |
           (uint64_t)(e->queue & 0xFu) << 60;
}

/* Owns the slot of the next position, or returns NULL when somebody who is a whole ring behind or
 * ahead has it: then this event is one of those that are lost. */
static umo_trace_slot *slot_claim(umo_trace_ring *ring, umo_trace_shard *shard, uint64_t *position)
{
    *position = atomic_fetch_add_explicit(&shard->next, 1, memory_order_relaxed);
    umo_trace_slot *slot = &shard->slots[*position & (ring->shard_slots - 1)];
    uint64_t seen = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    if ((seen & 1) != 0 || seen > *position * 2 ||
        !atomic_compare_exchange_strong_explicit(&slot->sequence, &seen, *position * 2 + 1,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return NULL;
    }
    return slot;
}

void umo_trace_write(const umo_trace_event *e)
{
    umo_trace_ring *ring = atomic_load_explicit(&umo_trace_now, memory_order_acquire);
    if (ring == NULL) {
        return;
    }
    const uint32_t thread = thread_number();
    const uint32_t scope = e->scope != NULL ? umo_scope_number(e->scope) : 0;
    bool named = scope == 0 || name_keep(NAME_SCOPE, scope, umo_scope_name(e->scope));
    named = (e->device == 0 || name_keep(NAME_DEVICE, e->device, e->driver)) && named;
    if (!named) {
        atomic_fetch_add_explicit(&ring->names_lost, 1, memory_order_relaxed);
    }
    uint64_t position;
    umo_trace_slot *slot =
        slot_claim(ring, &ring->shards[(thread - 1) & (ring->shard_count - 1)], &position);
    if (slot == NULL) {
        return;
    }
    const uint64_t now = umo_os_now_ns();
    const uint64_t words[UMO_TRACE_WORDS] = {
        now,
        e->start_ns != 0 ? now - e->start_ns : 0,
        e->buffer,
        e->offset_bytes,
        e->size_bytes,
        e->fence_value,
        (uint64_t)thread << 32 | scope,
        (uint64_t)e->device << 32 | e->detail,
        small_pack(e),
    };
    /* Release, so that whoever sees one of these words also sees that the slot is being written. */
    for (uint32_t i = 0; i < UMO_TRACE_WORDS; i++) {
        atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
    }
    atomic_store_explicit(&slot->sequence, position * 2 + 2, memory_order_release);
}

static uint8_t byte_of(uint64_t word, unsigned shift)
{
    return (uint8_t)(word >> shift & 0xFF);
}

bool umo_trace_ring_get(const umo_trace_ring *ring, uint32_t shard, uint64_t position,
                        umo_profile_event *out)
{
    umo_trace_slot *slot = &ring->shards[shard].slots[position & (ring->shard_slots - 1)];
    uint64_t w[UMO_TRACE_WORDS];
    if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != position * 2 + 2) {
        return false;
    }
    for (uint32_t i = 0; i < UMO_TRACE_WORDS; i++) {
        w[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
    }
    if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != position * 2 + 2) {
        return false;
    }
    const uint64_t start = atomic_load_explicit(&ring->start_ns, memory_order_relaxed);
    *out = (umo_profile_event){
        .time_ns = w[0] > start ? w[0] - start : 0,
        .duration_ns = w[1],
        .buffer = w[2],
        .offset_bytes = w[3],
        .size_bytes = w[4],
        .fence_value = w[5],
        .thread = (uint32_t)(w[6] >> 32),
        .scope = (uint32_t)w[6],
        .device = (uint32_t)(w[7] >> 32),
        .detail = (uint32_t)w[7],
        .kind = byte_of(w[8], 0),
        .side = byte_of(w[8], 8),
        .use = byte_of(w[8], 16),
        .mode = (uint8_t)(byte_of(w[8], 24) - 1),
        .mode_before = (uint8_t)(byte_of(w[8], 32) - 1),
        .direction = byte_of(w[8], 40),
        .reason = byte_of(w[8], 48),
        .status = (uint8_t)(w[8] >> 56 & 0xF),
        .queue = (uint8_t)(w[8] >> 60),
    };
    out->scope_name = name_find(NAME_SCOPE, out->scope);
    out->driver = name_find(NAME_DEVICE, out->device);
    return true;
}
