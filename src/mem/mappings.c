/*
 * Which mapping an address lies in, asked as seldom as possible.
 *
 * On a kernel without PROCMAP_QUERY the whole map must be read, for half a millisecond or more in a
 * server, and whether that is worth it depends on bytes that are not known yet: more tensors of the
 * same execution may be asked about. That is the ski-rental problem: rent (copy) until the rent
 * paid equals the price, then buy (read the map), which never costs more than twice the best.
 * Source: Karlin, Manasse, Rudolph, Sleator, Algorithmica 3, 1988.
 */
#include "os/os.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define RECENT_MAX 8
#define PROBE_BYTES ((size_t)256 << 10)

struct umo_mappings {
    umo_mapping recent[RECENT_MAX];
    size_t recent_count;
    size_t recent_next;
    uint64_t unknown_bytes; /* asked about without an answer */
    bool read;              /* map is that of now */
    bool short_of_memory;   /* map is not all of it */
    umo_mapping *map;       /* in the order of addresses */
    size_t map_count;
    size_t map_capacity;
};

/* A figure that is much too high would never be corrected, for then nobody reads: it is taken again
 * whenever so much more was copied for it, which costs a quarter of what these copies did at most.
 */
#define RENTS_UNTIL_MEASURED 4
#define MEASURE_TURNS 3

/* Measured when first needed; threads that measure at once find much the same. */
static _Atomic uint64_t read_ns;
static _Atomic uint64_t copy_ns;      /* of PROBE_BYTES */
static _Atomic uint64_t rented_bytes; /* copied since read_ns was measured */

static bool nothing_visit(const umo_mapping *mapping, void *user)
{
    (void)mapping;
    (void)user;
    return true;
}

/* The best of some turns: whatever else runs meanwhile only ever makes one slower. */
static uint64_t read_measure(void)
{
    uint64_t best_ns = UINT64_MAX;
    for (int turn = 0; turn < MEASURE_TURNS; turn++) {
        uint64_t start_ns = umo_os_now_ns();
        if (umo_os_mapping_visit(nothing_visit, NULL) != UMO_OK) {
            return UINT64_MAX;
        }
        uint64_t took_ns = umo_os_now_ns() - start_ns + 1;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    atomic_store_explicit(&rented_bytes, 0, memory_order_relaxed);
    return best_ns;
}

static uint64_t copy_measure(void)
{
    uint64_t best_ns = UINT64_MAX;
    char *memory = malloc(2 * PROBE_BYTES);
    if (memory == NULL) {
        return 0;
    }
    memset(memory, 1, 2 * PROBE_BYTES);
    for (int turn = 0; turn < MEASURE_TURNS; turn++) {
        uint64_t start_ns = umo_os_now_ns();
        (void)umo_os_copy_from(memory, memory + PROBE_BYTES, PROBE_BYTES);
        uint64_t took_ns = umo_os_now_ns() - start_ns + 1;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    free(memory);
    return best_ns;
}

uint64_t umo_mappings_crossover_bytes(void)
{
    uint64_t read = atomic_load_explicit(&read_ns, memory_order_relaxed);
    uint64_t copy = atomic_load_explicit(&copy_ns, memory_order_relaxed);
    if (read == 0) {
        read = read_measure();
        atomic_store_explicit(&read_ns, read, memory_order_relaxed);
    }
    if (copy == 0) {
        copy = copy_measure();
        atomic_store_explicit(&copy_ns, copy, memory_order_relaxed);
    }
    if (read == UINT64_MAX || copy == 0) {
        return UINT64_MAX;
    }
    return read > UINT64_MAX / PROBE_BYTES ? UINT64_MAX : read * PROBE_BYTES / copy;
}

umo_status umo_mappings_create(umo_mappings **out, umo_error *error)
{
    umo_mappings *mappings = calloc(1, sizeof *mappings);
    if (mappings == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for what is known of mappings");
    }
    *out = mappings;
    return UMO_OK;
}

void umo_mappings_destroy(umo_mappings *mappings)
{
    if (mappings != NULL) {
        free(mappings->map);
        free(mappings);
    }
}

void umo_mappings_forget(umo_mappings *mappings)
{
    mappings->recent_count = 0;
    mappings->recent_next = 0;
    mappings->unknown_bytes = 0;
    mappings->read = false;
}

static bool map_visit(const umo_mapping *mapping, void *user)
{
    umo_mappings *mappings = user;
    if (mappings->map_count == mappings->map_capacity) {
        size_t capacity = mappings->map_capacity == 0 ? 512 : mappings->map_capacity * 2;
        umo_mapping *map = realloc(mappings->map, capacity * sizeof *map);
        if (map == NULL) {
            mappings->short_of_memory = true;
            return false;
        }
        mappings->map = map;
        mappings->map_capacity = capacity;
    }
    mappings->map[mappings->map_count++] = *mapping;
    return true;
}

static umo_status map_read(umo_mappings *mappings)
{
    mappings->map_count = 0;
    mappings->short_of_memory = false;
    uint64_t start_ns = umo_os_now_ns();
    umo_status status = umo_os_mapping_visit(map_visit, mappings);
    if (status != UMO_OK || mappings->short_of_memory) {
        return status != UMO_OK ? status : UMO_E_NOMEM;
    }
    /* The map grows and shrinks with what the server does. */
    uint64_t took_ns = umo_os_now_ns() - start_ns;
    uint64_t known_ns = atomic_load_explicit(&read_ns, memory_order_relaxed);
    atomic_store_explicit(&read_ns, known_ns - known_ns / 4 + took_ns / 4 + 1,
                          memory_order_relaxed);
    atomic_store_explicit(&rented_bytes, 0, memory_order_relaxed);
    mappings->read = true;
    return UMO_OK;
}

static const umo_mapping *map_find(const umo_mappings *mappings, uintptr_t address)
{
    size_t low = 0;
    size_t high = mappings->map_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (mappings->map[middle].end <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < mappings->map_count && mappings->map[low].start <= address ? &mappings->map[low]
                                                                            : NULL;
}

/* The long way round. */
static umo_status find_in_map(umo_mappings *mappings, uintptr_t address, size_t size_bytes,
                              const umo_mapping **out)
{
    if (!mappings->read) {
        if (__builtin_add_overflow(mappings->unknown_bytes, size_bytes, &mappings->unknown_bytes)) {
            mappings->unknown_bytes = UINT64_MAX;
        }
        uint64_t crossover = umo_mappings_crossover_bytes();
        if (mappings->unknown_bytes < crossover) {
            uint64_t rented =
                atomic_fetch_add_explicit(&rented_bytes, size_bytes, memory_order_relaxed);
            if ((rented + size_bytes) / RENTS_UNTIL_MEASURED >= crossover) {
                atomic_store_explicit(&read_ns, read_measure(), memory_order_relaxed);
            }
            return UMO_E_REFUSED;
        }
        umo_status status = map_read(mappings);
        if (status != UMO_OK) {
            return status;
        }
    }
    *out = map_find(mappings, address);
    return *out != NULL ? UMO_OK : UMO_E_NOT_FOUND;
}

umo_status umo_mappings_find(umo_mappings *mappings, const void *address, size_t size_bytes,
                             const umo_mapping **out)
{
    uintptr_t at = (uintptr_t)address;
    umo_mapping *next = NULL;
    for (size_t i = 0; i < mappings->recent_count; i++) {
        umo_mapping *known = &mappings->recent[i];
        if (at >= known->start && at < known->end) {
            if (size_bytes <= known->end - at || known->shared || mappings->read) {
                *out = known;
                return UMO_OK;
            }
            next = known; /* a heap may have grown since */
        }
    }
    if (mappings->read) {
        return find_in_map(mappings, at, size_bytes, out);
    }
    umo_mapping mapping;
    umo_status status = umo_os_mapping_query(address, &mapping);
    if (status == UMO_E_UNSUPPORTED) {
        return find_in_map(mappings, at, size_bytes, out);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (next == NULL) {
        next = &mappings->recent[mappings->recent_next];
        mappings->recent_next = (mappings->recent_next + 1) % RECENT_MAX;
        mappings->recent_count += mappings->recent_count < RECENT_MAX ? 1 : 0;
    }
    *next = mapping;
    *out = next;
    return UMO_OK;
}
