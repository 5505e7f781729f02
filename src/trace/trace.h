/*
 * The inner side of profile.h: how an event is recorded.
 *
 *     UMO_TRACE(.kind = UMO_EVENT_POOL_TRIM, .scope = scope, .size_bytes = given_back);
 *
 * The fields are evaluated only while something records; what is left out is zero. Off, it is one
 * relaxed load and a branch that is laid out as never taken.
 */
#ifndef UMO_TRACE_TRACE_H
#define UMO_TRACE_TRACE_H

#include "base/recorded.h"

#include <umo/profile.h>

static inline bool umo_trace_on(void)
{
    return umo_recorded_on();
}

/* Lets other processes of this user find the recorder by our pid and switch it on (recorder.h). Any
 * thread, any number of times; some system calls for the first. */
void umo_trace_show(void);

typedef struct umo_trace_event {
    const umo_scope *scope; /* NULL for none */
    uint32_t device;        /* its number; 0 for none */
    const char *driver;     /* of the device */
    uint64_t buffer;        /* its number; 0 for none */
    uint64_t start_ns;      /* umo_trace_clock() when it began; 0 when it took no time */
    uint64_t offset_bytes;
    uint64_t size_bytes;
    uint64_t fence_value;
    uint32_t queue;
    uint32_t detail;
    umo_event_kind kind;
    uint32_t side;
    uint32_t use;
    uint32_t mode; /* umo_storage_mode + 1, as zero means none */
    uint32_t mode_before;
    uint32_t direction; /* umo_direction + 1 */
    umo_reason reason;
    umo_status status;
} umo_trace_event;

/* Any thread; takes no lock, allocates nothing, never fails: what cannot be kept is counted. */
void umo_trace_write(const umo_trace_event *event);

#define UMO_TRACE(...)                                                                             \
    do {                                                                                           \
        if (umo_trace_on()) {                                                                      \
            umo_trace_write(&(umo_trace_event){__VA_ARGS__});                                      \
        }                                                                                          \
    } while (0)

/* Now, for start_ns of an event that takes time; 0 without a system call while nobody records. */
uint64_t umo_trace_clock_read(void);
static inline uint64_t umo_trace_clock(void)
{
    return umo_trace_on() ? umo_trace_clock_read() : 0;
}

#endif
