/*
 * Making and reading rings. The sizes that count are those in umo_trace_ring: the part itself can
 * be written by others.
 */
#include "trace/ring.h"

#include "base/size.h"
#include "os/os.h"
#include "os/shown.h"

#define MEMORY_DEFAULT_BYTES ((size_t)4 << 20)
#define MEMORY_MAX_BYTES ((size_t)1 << 30)
#define SHARDS_DEFAULT_MAX 16u
#define SHARD_SLOTS_MIN 64u

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

static size_t head_bytes_of(uint32_t shard_count)
{
    return sizeof(umo_trace_part) + shard_count * sizeof(umo_trace_shard);
}

static void ring_fill(umo_trace_ring *ring, void *memory, size_t memory_bytes, uint32_t shard_count,
                      uint64_t shard_slots)
{
    ring->part = memory;
    ring->memory_bytes = memory_bytes;
    ring->shard_count = shard_count;
    ring->shard_slots = shard_slots;
    ring->shards = ring->part->shards;
    ring->slots = (umo_trace_slot *)(void *)((char *)memory + head_bytes_of(shard_count));
}

umo_trace_ring *umo_trace_ring_create(uint32_t part_number, bool outside, uint32_t shard_count,
                                      uint64_t shard_slots)
{
    umo_trace_ring *ring = umo_os_pages_alloc(sizeof *ring);
    if (ring == NULL) {
        return NULL;
    }
    /* At most MEMORY_MAX_BYTES and a little. */
    const size_t memory_bytes =
        head_bytes_of(shard_count) + shard_count * (size_t)shard_slots * sizeof(umo_trace_slot);
    void *memory = NULL;
    int cause = 0;
    ring->file = -1;
    if (part_number != 0 &&
        umo_os_shown_create(part_number, memory_bytes, &ring->file, &cause) == UMO_OK) {
        ring->part_number = part_number;
        memory = umo_os_shown_map(ring->file, memory_bytes, NULL, true);
        if (memory == NULL) {
            umo_os_shown_close(part_number, ring->file, true);
            ring->file = -1;
            ring->part_number = 0;
        }
    }
    if (memory == NULL && !outside) {
        memory = umo_os_pages_alloc(memory_bytes);
    }
    if (memory == NULL) {
        umo_os_pages_free(ring, sizeof *ring);
        return NULL;
    }
    ring_fill(ring, memory, memory_bytes, shard_count, shard_slots);
    ring->part->shard_count = shard_count;
    ring->part->shard_slots = shard_slots;
    ring->outside = outside;
    ring->part->outside = outside ? 1 : 0;
    ring->part->slot_bytes = (uint32_t)sizeof(umo_trace_slot);
    atomic_store_explicit(&ring->part->magic, UMO_TRACE_MAGIC, memory_order_release);
    return ring;
}

bool umo_trace_ring_attach(umo_trace_ring *ring, void *mapped, size_t size_bytes)
{
    const umo_trace_part *part = mapped;
    if (size_bytes < sizeof *part ||
        atomic_load_explicit(&part->magic, memory_order_acquire) != UMO_TRACE_MAGIC ||
        part->slot_bytes != sizeof(umo_trace_slot)) {
        return false;
    }
    const uint32_t shard_count = part->shard_count;
    const uint64_t shard_slots = part->shard_slots;
    if (shard_count == 0 || shard_count > UMO_TRACE_SHARDS_MAX ||
        (shard_count & (shard_count - 1)) != 0 || shard_slots == 0 ||
        (shard_slots & (shard_slots - 1)) != 0 || size_bytes < head_bytes_of(shard_count) ||
        shard_slots >
            (size_bytes - head_bytes_of(shard_count)) / shard_count / sizeof(umo_trace_slot)) {
        return false;
    }
    ring_fill(ring, mapped, size_bytes, shard_count, shard_slots);
    return true;
}

void umo_trace_ring_restart(umo_trace_ring *ring)
{
    for (uint32_t i = 0; i < ring->shard_count; i++) {
        const uint64_t next = atomic_load_explicit(&ring->shards[i].next, memory_order_relaxed);
        atomic_store_explicit(&ring->first[i], next, memory_order_relaxed);
        atomic_store_explicit(&ring->shards[i].first, next, memory_order_relaxed);
    }
    atomic_store_explicit(&ring->names_lost, 0, memory_order_relaxed);
    atomic_store_explicit(&ring->start_ns, umo_os_now_ns(), memory_order_relaxed);
}

static uint8_t byte_of(uint64_t word, unsigned shift)
{
    return (uint8_t)(word >> shift & 0xFF);
}

umo_trace_found umo_trace_ring_look(const umo_trace_ring *ring, uint32_t shard, uint64_t position,
                                    umo_profile_event *out)
{
    umo_trace_slot *slot = umo_trace_ring_slot(ring, shard, position);
    uint64_t w[UMO_TRACE_WORDS];
    const uint64_t whole = position * 2 + 2;
    const uint64_t seen = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    if (seen != whole) {
        return seen > whole ? UMO_TRACE_GONE : UMO_TRACE_ABSENT;
    }
    for (uint32_t i = 0; i < UMO_TRACE_WORDS; i++) {
        w[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
    }
    if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != whole) {
        return UMO_TRACE_GONE;
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
    return UMO_TRACE_WHOLE;
}
