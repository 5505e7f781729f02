/*
 * macOS. The system's own message (WARN, CRITICAL, NORMAL again) is the event;
 * it has no limit of a process to hold usage against, so the gauges are absent
 * and the devices' working sets stand in for them.
 */
#include "os/watch.h"

#include <stdlib.h>

struct umo_os_watch {
    umo_os_watch_options options;
    umo_os_presence system;
    umo_os_pressure *source;
    pthread_mutex_t lock;
    pthread_cond_t came;
    bool woken;
    umo_os_watch_events events;
};

static void system_notified(umo_os_pressure_level level, void *user)
{
    static const umo_os_urgency urgencies[] = {
        [UMO_OS_PRESSURE_NORMAL] = UMO_OS_URGENCY_NONE,
        [UMO_OS_PRESSURE_WARN] = UMO_OS_URGENCY_MEDIUM,
        [UMO_OS_PRESSURE_CRITICAL] = UMO_OS_URGENCY_CRITICAL,
    };
    umo_os_watch *watch = user;
    umo_os_urgency urgency = urgencies[level];
    (void)pthread_mutex_lock(&watch->lock);
    watch->events.count[UMO_OS_SIGNAL_SYSTEM]++;
    watch->events.urgency = urgency > watch->events.urgency ? urgency : watch->events.urgency;
    watch->events.calm = level == UMO_OS_PRESSURE_NORMAL;
    (void)pthread_cond_signal(&watch->came);
    (void)pthread_mutex_unlock(&watch->lock);
}

umo_status umo_os_watch_create(const umo_os_watch_options *options, umo_os_watch **out,
                               umo_error *error)
{
    umo_os_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to watch memory");
    }
    watch->options = *options;
    watch->system.why = "not asked for";
    (void)pthread_mutex_init(&watch->lock, NULL);
    umo_os_condition_init(&watch->came);
    if (options->events && (options->signals_off & (1u << UMO_OS_SIGNAL_SYSTEM)) == 0) {
        umo_status status = umo_os_pressure_create(system_notified, watch, &watch->source);
        watch->system.why = status == UMO_OK ? NULL : "the system gives no source of it";
    }
    *out = watch;
    return UMO_OK;
}

void umo_os_watch_destroy(umo_os_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    umo_os_pressure_destroy(watch->source);
    umo_os_condition_finish(&watch->came);
    (void)pthread_mutex_destroy(&watch->lock);
    free(watch);
}

uint64_t umo_os_watch_limit(umo_os_watch *watch)
{
    (void)watch;
    return 0;
}

void umo_os_watch_read(umo_os_watch *watch, uint64_t now_ns, umo_os_watch_sample *out)
{
    (void)now_ns;
    *out = (umo_os_watch_sample){.armed = false};
    for (size_t g = 0; g < UMO_OS_GAUGES; g++) {
        out->gauges[g].presence.why = "Linux's alone";
    }
    for (size_t s = 0; s < UMO_OS_SIGNALS; s++) {
        out->signals[s].why = "Linux's alone";
    }
    out->signals[UMO_OS_SIGNAL_SYSTEM] = watch->system;
}

void umo_os_watch_arm(umo_os_watch *watch)
{
    (void)watch; /* the source was there from the start */
}

void umo_os_watch_wait(umo_os_watch *watch, uint64_t timeout_ns, uint32_t ignored,
                       umo_os_watch_events *out)
{
    bool quiet = (ignored & (1u << UMO_OS_SIGNAL_SYSTEM)) != 0;
    uint64_t now_ns = umo_os_now_ns();
    uint64_t deadline_ns = timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX;
    (void)pthread_mutex_lock(&watch->lock);
    bool more = true;
    while (more && !watch->woken && (quiet || watch->events.count[UMO_OS_SIGNAL_SYSTEM] == 0)) {
        more = umo_os_condition_wait_until(&watch->came, &watch->lock, deadline_ns);
    }
    watch->woken = false;
    *out = (umo_os_watch_events){.urgency = UMO_OS_URGENCY_NONE};
    if (!quiet) {
        umo_os_watch_events taken = watch->events;
        watch->events = *out;
        *out = taken;
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

void umo_os_watch_wake(umo_os_watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    watch->woken = true;
    (void)pthread_cond_signal(&watch->came);
    (void)pthread_mutex_unlock(&watch->lock);
}
