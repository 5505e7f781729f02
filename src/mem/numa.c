/*
 * Buffers and nodes: where their pages lie, and moving them.
 *
 * The system moves a page under those who use it, so a bracket never waits for this: `relocating`
 * keeps away those alone who promise that pages stay (pins, exports), and moves to another mode,
 * which take the pages away. It is set for one part at a time, so they wait for one at most.
 */
#include "mem/numa.h"

#include "base/scope.h"
#include "base/size.h"
#include "mem/buffer_state.h"
#include "mem/events.h"
#include "mem/nodes.h"
#include "os/os.h"

#define LOOKS_MOST 64u

bool umo_buffer_numa_look(umo_buffer *buffer, const umo_numa_topology *topology,
                          umo_numa_residency *out)
{
    const size_t page = umo_os_page_bytes();
    bool seen = false;
    (void)pthread_mutex_lock(&buffer->lock);
    /* A sample is not worth waiting for; and what was given at birth does not move. */
    const bool quiet = buffer->home == NULL || !buffer->changing;
    const char *host = quiet ? umo_host_side(buffer) : NULL;
    buffer->holds += quiet && buffer->home != NULL ? 1 : 0; /* as umo_buffer_hold() */
    (void)pthread_mutex_unlock(&buffer->lock);
    if (host != NULL) {
        size_t step = buffer->size_bytes / page / LOOKS_MOST + 1;
        seen =
            umo_numa_residency_read(topology, host, buffer->size_bytes, step, out, NULL) == UMO_OK;
    }
    if (quiet) {
        umo_buffer_unhold(buffer);
    }
    uint64_t present = 0;
    for (uint32_t i = 0; seen && i < topology->count; i++) {
        present += out->node_bytes[i];
    }
    return present > 0;
}

int32_t umo_buffer_numa_node(umo_buffer *buffer)
{
    umo_numa_topology topology;
    umo_numa_residency residency;
    if (umo_numa_topology_read(&topology, NULL) != UMO_OK ||
        !umo_buffer_numa_look(buffer, &topology, &residency)) {
        return UMO_NUMA_ANY;
    }
    uint32_t most = 0;
    for (uint32_t i = 1; i < topology.count; i++) {
        most = residency.node_bytes[i] > residency.node_bytes[most] ? i : most;
    }
    return topology.nodes[most].id;
}

static umo_buffer_pages pages_get(const umo_buffer *buffer)
{
    return (umo_buffer_pages)atomic_load_explicit(&buffer->pages, memory_order_relaxed);
}

bool umo_buffer_numa_own(const umo_buffer *buffer, const umo_scope *scope)
{
    return pages_get(buffer) != UMO_PAGES_SHARED &&
           (scope == NULL || umo_scope_within(buffer->scope, scope));
}

bool umo_buffer_numa_follows(const umo_buffer *buffer, const umo_scope *scope)
{
    return pages_get(buffer) == UMO_PAGES_OWN && umo_buffer_numa_own(buffer, scope);
}

/* The buffer's own pages. The lock is held, or no move can run. */
static char *own_pages(const umo_buffer *buffer, size_t *size_bytes)
{
    char *host = umo_host_side(buffer);
    *size_bytes = buffer->home_bytes;
    if (pages_get(buffer) == UMO_PAGES_SHARED || host == NULL) {
        return NULL;
    }
    if (buffer->home == NULL &&
        (((uintptr_t)host & (umo_os_page_bytes() - 1)) != 0 ||
         !umo_round_up(buffer->size_bytes, umo_os_page_bytes(), size_bytes))) {
        return NULL;
    }
    return host;
}

/* Nobody promises any more that pages stay, until relocation_end(). */
static umo_status relocation_begin(umo_buffer *buffer, bool asked, char **pages, size_t *size_bytes,
                                   umo_error *error)
{
    umo_status status = UMO_OK;
    umo_os_forks_watch();
    (void)pthread_mutex_lock(&buffer->lock);
    while (buffer->changing || umo_buffer_relocates(buffer)) {
        (void)umo_buffer_change_wait(buffer, UINT64_MAX);
    }
    *pages = own_pages(buffer, size_bytes);
    if (*pages == NULL) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "the buffer has no pages of its own in host memory");
    } else if (buffer->pins > 0 || buffer->export_count > 0) {
        status = umo_error_set(error, UMO_E_BUSY, 0, "a buffer that is %s does not move",
                               buffer->pins > 0 ? "pinned" : "exported");
    } else if (!asked && pages_get(buffer) == UMO_PAGES_PLACED) {
        status = umo_error_set(error, UMO_E_BUSY, 0, "a buffer that was placed does not move");
    } else {
        buffer->relocating = true;
        buffer->relocating_in = umo_os_forks();
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    return status;
}

static void relocation_end(umo_buffer *buffer)
{
    (void)pthread_mutex_lock(&buffer->lock);
    buffer->relocating = false;
    umo_buffer_changed(buffer);
    (void)pthread_mutex_unlock(&buffer->lock);
}

static umo_status part_move(umo_buffer *buffer, int32_t node, bool asked, size_t *offset_bytes,
                            uint64_t *moved_bytes, bool *more, umo_error *error)
{
    char *pages = NULL;
    size_t all_bytes = 0;
    uint64_t moved = 0;
    umo_status status = relocation_begin(buffer, asked, &pages, &all_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    const size_t at = *offset_bytes < all_bytes ? *offset_bytes : all_bytes;
    const size_t left = all_bytes - at;
    const size_t most =
        UMO_NUMA_PART_BYTES - (size_t)((uintptr_t)(pages + at) % UMO_NUMA_PART_BYTES);
    const size_t part = left < most ? left : most;
    if (part > 0) {
        status = umo_numa_move(pages + at, part, node, &moved, error);
    }
    relocation_end(buffer);
    if (status == UMO_OK) {
        *offset_bytes = at + part;
        *moved_bytes = moved;
        *more = part < left;
    }
    return status;
}

umo_status umo_buffer_numa_move_part(umo_buffer *buffer, int32_t node, size_t *offset_bytes,
                                     uint64_t *moved_bytes, bool *more, umo_error *error)
{
    return part_move(buffer, node, false, offset_bytes, moved_bytes, more, error);
}

/* Says where pages that come later shall lie, and whose choice that is. */
static umo_status pages_place(umo_buffer *buffer, int32_t node, umo_error *error)
{
    char *pages = NULL;
    size_t size_bytes = 0;
    umo_status status = relocation_begin(buffer, true, &pages, &size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_numa_place(pages, size_bytes, node, error);
    if (status == UMO_OK) {
        atomic_store_explicit(&buffer->pages,
                              node == UMO_NUMA_ANY ? UMO_PAGES_OWN : UMO_PAGES_PLACED,
                              memory_order_relaxed);
    }
    relocation_end(buffer);
    return status;
}

umo_status umo_buffer_numa_move(umo_buffer *buffer, int32_t node, uint64_t *moved_bytes,
                                umo_error *error)
{
    const bool moves = node != UMO_NUMA_ANY && umo_numa_memory_nodes() > 1;
    const uint64_t start_ns = umo_trace_clock();
    uint64_t moved = 0;
    umo_status status = pages_place(buffer, node, error);
    bool more = moves;
    for (size_t at = 0; status == UMO_OK && more;) {
        uint64_t part = 0;
        status = part_move(buffer, node, true, &at, &part, &more, error);
        moved += part;
    }
    if (moves) {
        UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_NUMA_MOVE,
                         .detail = (uint32_t)node, .size_bytes = moved, .status = status,
                         .start_ns = start_ns);
    }
    if (status == UMO_OK && moved_bytes != NULL) {
        *moved_bytes = moved;
    }
    return status;
}
