/*
 * The second half of the porting surface: how much memory is used of what may be used, and being
 * told when that changes. linux_watch.c and darwin_watch.c each implement it.
 *
 * Gauges are read by anybody at any time; events come to one thread that sleeps in
 * umo_os_watch_wait(). What is missing on a machine is described, never an error: only memory and
 * the means to be woken are needed.
 */
#ifndef UMO_OS_WATCH_H
#define UMO_OS_WATCH_H

#include "os/os.h"

typedef enum umo_os_gauge {
    UMO_OS_GAUGE_CGROUP = 0,  /* of own cgroup and those above, the one nearest to its limit */
    UMO_OS_GAUGE_PHYSICAL = 1 /* of the machine */
} umo_os_gauge;

#define UMO_OS_GAUGES 2

typedef enum umo_os_signal {
    UMO_OS_SIGNAL_THRESHOLD = 0, /* a mark on a limit was passed, in either direction */
    UMO_OS_SIGNAL_EVENTS = 1,    /* cgroup v2: over high, at max, out of memory */
    UMO_OS_SIGNAL_RECLAIM = 2,   /* cgroup v1: pressure_level */
    UMO_OS_SIGNAL_STALL = 3,     /* PSI */
    UMO_OS_SIGNAL_SYSTEM = 4     /* macOS */
} umo_os_signal;

#define UMO_OS_SIGNALS 5

/* How loud an event was; the greatest of those that came together. */
typedef enum umo_os_urgency {
    UMO_OS_URGENCY_NONE = 0,
    UMO_OS_URGENCY_LOW = 1,
    UMO_OS_URGENCY_MEDIUM = 2,
    UMO_OS_URGENCY_CRITICAL = 3
} umo_os_urgency;

#define UMO_OS_MARKS 3

typedef struct umo_os_watch_options {
    const char *proc;           /* NULL for "/proc" */
    double marks[UMO_OS_MARKS]; /* parts of a limit whose passing is an event, rising */
    bool events;                /* umo_os_watch_wait() will be called */
    uint32_t signals_off;       /* bits (1u << umo_os_signal) */
} umo_os_watch_options;

/* Whether something is there, and if not why. */
typedef struct umo_os_presence {
    const char *why; /* a constant; NULL if it is there */
    int native;      /* errno, if that was it */
} umo_os_presence;

typedef struct umo_os_reading {
    umo_os_presence presence;
    uint64_t usage_bytes; /* without file pages that are easily dropped */
    uint64_t limit_bytes; /* 0: none */
} umo_os_reading;

typedef struct umo_os_watch_sample {
    umo_os_reading gauges[UMO_OS_GAUGES];
    umo_os_presence signals[UMO_OS_SIGNALS];
    bool armed;   /* an event is sure to come before a cgroup's usage passes its next mark */
    bool unarmed; /* umo_os_watch_arm() has more to do */
} umo_os_watch_sample;

typedef struct umo_os_watch_events {
    uint64_t count[UMO_OS_SIGNALS];
    umo_os_urgency urgency;
    bool calm; /* the system says that its pressure has ended */
} umo_os_watch_events;

typedef struct umo_os_watch umo_os_watch;

/* NOMEM; SYSTEM where options->events and the means to be woken are not to be had. */
umo_status umo_os_watch_create(const umo_os_watch_options *options, umo_os_watch **out,
                               umo_error *error);
/* Nobody waits or reads. After a fork a child may call it. NULL is allowed. */
void umo_os_watch_destroy(umo_os_watch *watch);

/* The smallest limit of a cgroup that holds this process; 0 if none has one. Any thread. */
uint64_t umo_os_watch_limit(umo_os_watch *watch);

/* Any thread. now_ns: a cgroup's limit and its place are looked up again when they may be stale. */
void umo_os_watch_read(umo_os_watch *watch, uint64_t now_ns, umo_os_watch_sample *out);

/*
 * Makes events come: all but one mark of each cgroup at the first call, and whenever limits have
 * changed; one more mark at each further call. Blocks for 10 to 50 ms a mark, so the caller chooses
 * when. By the thread that waits, or before there is one.
 */
void umo_os_watch_arm(umo_os_watch *watch);

/*
 * Sleeps until an event, a wake or the timeout, and takes the events that came. ignored: bits
 * (1u << umo_os_signal) of events that do not end the sleep; they are kept, and counted later.
 */
void umo_os_watch_wait(umo_os_watch *watch, uint64_t timeout_ns, uint32_t ignored,
                       umo_os_watch_events *out);
/* Ends a sleep, or the next one. Any thread. */
void umo_os_watch_wake(umo_os_watch *watch);

#endif
