/*
 * Counting where pages lie, for what systems say page by page.
 */
#include "os/numa.h"

#include "base/size.h"

enum {
    BATCH = 512
};

/* The whole pages that a range lies in. */
static bool pages_of(const void *start, size_t size_bytes, uintptr_t *at, size_t *whole_bytes)
{
    size_t page = umo_os_page_bytes();
    size_t long_bytes;
    *at = umo_round_down((uintptr_t)start, page);
    return size_bytes > 0 &&
           !__builtin_add_overflow(size_bytes, (uintptr_t)start - *at, &long_bytes) &&
           umo_round_up(long_bytes, page, whole_bytes) && *whole_bytes - 1 <= UINTPTR_MAX - *at;
}

static void count(const umo_numa_topology *topology, int where, size_t bytes,
                  umo_numa_residency *out)
{
    int index = where >= 0 ? umo_numa_index(topology, where) : -1;
    if (index >= 0) {
        out->node_bytes[index] += bytes;
    } else if (where >= 0) {
        out->elsewhere_bytes += bytes;
    } else {
        out->absent_bytes += bytes;
    }
}

umo_status umo_numa_residency_read(const umo_numa_topology *topology, const void *start,
                                   size_t size_bytes, size_t step_pages, umo_numa_residency *out,
                                   umo_error *error)
{
    size_t page = umo_os_page_bytes();
    uintptr_t at;
    size_t left;
    if (topology == NULL || out == NULL || start == NULL || step_pages == 0 ||
        !pages_of(start, size_bytes, &at, &left)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "nothing to look at: an empty range or step");
    }
    size_t step = step_pages > SIZE_MAX / page ? SIZE_MAX : step_pages * page;
    umo_numa_residency seen = {.absent_bytes = 0};
    while (left > 0) {
        void *pages[BATCH];
        int where[BATCH];
        size_t stands_for[BATCH];
        size_t looks = 0;
        for (; left > 0 && looks < BATCH; looks++) {
            pages[looks] = (void *)at;
            stands_for[looks] = step < left ? step : left;
            at += stands_for[looks];
            left -= stands_for[looks];
        }
        umo_status status = umo_numa_look(pages, looks, where, error);
        if (status != UMO_OK) {
            return status;
        }
        for (size_t i = 0; i < looks; i++) {
            count(topology, where[i], stands_for[i], &seen);
        }
    }
    *out = seen;
    return UMO_OK;
}
