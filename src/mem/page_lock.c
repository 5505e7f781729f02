/*
 * See page_lock.h. The counts are a partition of all addresses; one lock is held over the system's
 * calls, because an unlock that overtakes a lock of the same page would undo it.
 */
#include "mem/page_lock.h"

#include "base/ranges.h"
#include "base/size.h"
#include "os/os.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static umo_ranges counts; /* of page-locks, by address; size 0 until the first */
static size_t lock_count;
static uint64_t locked_bytes;

/* False where the pages around the range do not end before the last address. */
static bool pages_around(void *start, size_t size_bytes, size_t *first, size_t *end)
{
    size_t page = umo_os_page_bytes();
    *first = (size_t)umo_round_down((uintptr_t)start, page);
    size_t whole;
    if (!umo_round_up((size_t)((uintptr_t)start - *first) + size_bytes, page, &whole) ||
        whole > SIZE_MAX - *first) {
        return false;
    }
    *end = *first + whole;
    return true;
}

static size_t stop_of(size_t index, size_t end)
{
    size_t range_end = umo_ranges_end(&counts, index);
    return range_end < end ? range_end : end;
}

static void count_down(size_t first, size_t end)
{
    for (size_t at = first; at < end;) {
        size_t index = umo_ranges_find(&counts, at);
        size_t stop = stop_of(index, end);
        uint32_t count = counts.items[index].value - 1;
        if (count == 0) {
            umo_os_pages_unlock((void *)at, stop - at);
            locked_bytes -= stop - at;
        }
        umo_ranges_set(&counts, at, stop - at, count);
        at = stop;
    }
}

static umo_status lock_failed(umo_status status, size_t size_bytes, umo_error *error)
{
    if (status == UMO_E_LIMIT) {
        return umo_error_set(error, status, 0,
                             "page-locking %zu bytes: RLIMIT_MEMLOCK allows %llu, umo has locked "
                             "%llu; raise it (ulimit -l, LimitMEMLOCK=, --ulimit memlock) or pin "
                             "less",
                             size_bytes, (unsigned long long)umo_os_lock_limit_bytes(),
                             (unsigned long long)locked_bytes);
    }
    return umo_error_set(error, status, 0, "the system does not page-lock %zu bytes", size_bytes);
}

umo_status umo_page_lock(void *start, size_t size_bytes, umo_error *error)
{
    size_t first;
    size_t end;
    if (!pages_around(start, size_bytes, &first, &end)) {
        return lock_failed(UMO_E_SYSTEM, size_bytes, error);
    }
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&lock);
    if (counts.size == 0) {
        umo_ranges_init(&counts, SIZE_MAX, 0);
    }
    /* Room for the ends of all locks that will be there: those that touch are one range now and may
     * come apart when one is undone, which must not fail. */
    if (!umo_ranges_reserve(&counts, lock_count + 3)) {
        status = UMO_E_NOMEM;
    }
    size_t at = first;
    while (at < end && status == UMO_OK) {
        size_t index = umo_ranges_find(&counts, at);
        size_t stop = stop_of(index, end);
        uint32_t count = counts.items[index].value;
        if (count == 0) {
            status = umo_os_pages_lock((void *)at, stop - at);
            locked_bytes += status == UMO_OK ? stop - at : 0;
        }
        if (status == UMO_OK) {
            umo_ranges_set(&counts, at, stop - at, count + 1);
            at = stop;
        }
    }
    if (status == UMO_OK) {
        lock_count++;
    } else {
        count_down(first, at);
        status = lock_failed(status, size_bytes, error);
    }
    (void)pthread_mutex_unlock(&lock);
    return status;
}

void umo_page_unlock(void *start, size_t size_bytes)
{
    size_t first;
    size_t end;
    if (pages_around(start, size_bytes, &first, &end)) {
        (void)pthread_mutex_lock(&lock);
        count_down(first, end);
        lock_count--;
        (void)pthread_mutex_unlock(&lock);
    }
}

uint64_t umo_page_locked_bytes(void)
{
    (void)pthread_mutex_lock(&lock);
    uint64_t bytes = locked_bytes;
    (void)pthread_mutex_unlock(&lock);
    return bytes;
}
