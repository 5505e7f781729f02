/*
 * The monitor: reads the gauges, asks the policy, gives the answers. All that decides is in
 * pressure_policy.c; here is who may answer when.
 *
 * One thread or caller answers at a time: it is marked busy under the lock, and reads, calls
 * drivers, pools and reliefs without it.
 */
#include "access/pressure.h"

#include "access/pressure_policy.h"
#include "access/relieve.h"
#include "base/scope.h"
#include "os/thread.h"
#include "os/watch.h"
#include "trace/trace.h"

#include <umo/pool.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES_MAX 16
#define RELIEFS_MAX 16
#define MILLISECOND_NS UINT64_C(1000000)
/* After an event of its kind, further ones wait this long: reclaim alone sends 3,000 a second. What
 * is passed over meanwhile is seen by the samples. */
#define LOUD_NS (20 * MILLISECOND_NS)
#define THRESHOLD_NS MILLISECOND_NS
#define FRESH_NS (10 * MILLISECOND_NS)
#define ARM_NS 1e8 /* arming one event may block for so long */

typedef struct relief {
    umo_pressure_relief call;
    void *user;
} relief;

/* One reading of all gauges. */
typedef struct reading {
    umo_pressure_source_stats gauges[UMO_PRESSURE_THRESHOLD];
    umo_os_presence signals[UMO_OS_SIGNALS];
    umo_pressure_source decisive;
    uint64_t usage_bytes;
    uint64_t limit_bytes;
    uint64_t blind_bytes;
    bool unarmed;        /* the events are not all on yet */
    uint64_t calm_bytes; /* below the mark where pressure begins */
    uint64_t room_bytes; /* below the mark from which new work is refused, with what pools keep */
} reading;

struct umo_pressure {
    umo_scope *root;
    umo_scope_guard guard;
    bool guards; /* it is the root's */
    umo_os_watch *watch;
    uint32_t sources_off;
    pid_t owner;
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock; /* down to stats */
    pthread_cond_t changed;
    bool stop;
    bool busy;
    pthread_t answerer;
    size_t device_count;
    umo_device *devices[DEVICES_MAX];
    size_t relief_count;
    relief reliefs[RELIEFS_MAX];
    umo_pressure_stats stats;
    umo_pressure_listener *listeners; /* changed by whoever is busy */
    /* Of whoever is busy. */
    pressure_state state;
    umo_pressure_level system; /* what the system said last, until it says otherwise */
    uint64_t last_ns;          /* of the last reading */
    uint64_t last_bytes;       /* what was in use then */
    bool calm;                 /* there is time to arm events */
    /* Of anybody. */
    _Atomic bool refusing;
    _Atomic bool asked; /* for a sample, by an allocation */
    _Atomic uint32_t level;
    _Atomic uint64_t room_bytes;
    _Atomic uint64_t sampled_ns;
    _Atomic uint64_t refused;
    _Atomic uint64_t refused_bytes;
};

static bool off(const umo_pressure *pressure, umo_pressure_source source)
{
    return (pressure->sources_off & (1u << source)) != 0;
}

/* ---- reading ---- */

static umo_pressure_source_stats gauge_absent(const char *why, int native)
{
    return (umo_pressure_source_stats){.why = why, .native = native};
}

static umo_pressure_source_stats gauge_of(const umo_os_reading *from)
{
    if (from->presence.why != NULL) {
        umo_pressure_source_stats gauge = gauge_absent(from->presence.why, from->presence.native);
        gauge.usage_bytes = from->usage_bytes;
        return gauge;
    }
    return (umo_pressure_source_stats){
        .active = true, .usage_bytes = from->usage_bytes, .limit_bytes = from->limit_bytes};
}

static double part_used(const umo_pressure_source_stats *gauge)
{
    return gauge->limit_bytes > 0 ? (double)gauge->usage_bytes / (double)gauge->limit_bytes : 0;
}

/* What pools keep is no use of the budget: they give it back before they meet its limit. */
static umo_pressure_source_stats budget_read(const umo_pressure *pressure, uint64_t kept_bytes)
{
    uint64_t limit_bytes = umo_scope_limit(pressure->root);
    if (limit_bytes == 0) {
        return gauge_absent("the context has no budget", 0);
    }
    uint64_t live_bytes = umo_scope_live(pressure->root);
    return (umo_pressure_source_stats){
        .active = true,
        .usage_bytes = live_bytes > kept_bytes ? live_bytes - kept_bytes : 0,
        .limit_bytes = limit_bytes,
    };
}

static umo_pressure_source_stats device_read(umo_pressure *pressure)
{
    umo_device *devices[DEVICES_MAX];
    (void)pthread_mutex_lock(&pressure->lock);
    size_t count = pressure->device_count;
    memcpy(devices, pressure->devices, count * sizeof devices[0]);
    (void)pthread_mutex_unlock(&pressure->lock);
    umo_pressure_source_stats nearest = gauge_absent("no device tells its working set", 0);
    for (size_t i = 0; i < count; i++) {
        umo_device_usage usage;
        if (umo_device_usage_get(devices[i], &usage) != UMO_OK || usage.budget_bytes == 0) {
            continue;
        }
        umo_pressure_source_stats gauge = {.active = true,
                                           .usage_bytes = usage.allocated_bytes,
                                           .limit_bytes = usage.budget_bytes};
        if (!nearest.active || part_used(&gauge) > part_used(&nearest)) {
            nearest = gauge;
        }
    }
    return nearest;
}

/* How many bytes may still come before a mark is passed, with what pools keep; UINT64_MAX where
 * nothing has a limit. */
static uint64_t room_below(const reading *r, double mark, uint64_t kept_bytes)
{
    uint64_t room_bytes = UINT64_MAX;
    for (size_t g = 0; g < UMO_PRESSURE_THRESHOLD; g++) {
        const umo_pressure_source_stats *gauge = &r->gauges[g];
        if (!gauge->active || gauge->limit_bytes == 0) {
            continue;
        }
        uint64_t most_bytes = (uint64_t)((double)gauge->limit_bytes * mark);
        if (g != UMO_PRESSURE_BUDGET) { /* which does not count what is kept */
            most_bytes =
                most_bytes < UINT64_MAX - kept_bytes ? most_bytes + kept_bytes : most_bytes;
        }
        uint64_t room = most_bytes > gauge->usage_bytes ? most_bytes - gauge->usage_bytes : 0;
        room_bytes = room < room_bytes ? room : room_bytes;
    }
    return room_bytes;
}

static void gauges_read(umo_pressure *pressure, uint64_t now_ns, reading *out)
{
    umo_os_watch_sample sample;
    umo_os_watch_read(pressure->watch, now_ns, &sample);
    uint64_t kept_bytes = umo_pools_kept(pressure->root);
    *out = (reading){.blind_bytes = UINT64_MAX, .unarmed = sample.unarmed};
    memcpy(out->signals, sample.signals, sizeof out->signals);
    out->gauges[UMO_PRESSURE_CGROUP] = gauge_of(&sample.gauges[UMO_OS_GAUGE_CGROUP]);
    out->gauges[UMO_PRESSURE_PHYSICAL] = gauge_of(&sample.gauges[UMO_OS_GAUGE_PHYSICAL]);
    out->gauges[UMO_PRESSURE_BUDGET] = budget_read(pressure, kept_bytes);
    out->gauges[UMO_PRESSURE_DEVICE] = device_read(pressure);
    double most = -1;
    for (umo_pressure_source g = 0; g < UMO_PRESSURE_THRESHOLD; g++) {
        umo_pressure_source_stats *gauge = &out->gauges[g];
        if (off(pressure, g)) {
            *gauge = gauge_absent("turned off", 0);
        }
        if (!gauge->active || gauge->limit_bytes == 0) {
            continue;
        }
        if (part_used(gauge) > most) {
            most = part_used(gauge);
            out->decisive = g;
            out->usage_bytes = gauge->usage_bytes;
            out->limit_bytes = gauge->limit_bytes;
        }
        /* What only we can fill is looked at when we do. */
        bool watched = g == UMO_PRESSURE_BUDGET || g == UMO_PRESSURE_DEVICE ||
                       (g == UMO_PRESSURE_CGROUP && sample.armed);
        uint64_t room =
            gauge->limit_bytes > gauge->usage_bytes ? gauge->limit_bytes - gauge->usage_bytes : 0;
        if (!watched && room < out->blind_bytes) {
            out->blind_bytes = room;
        }
    }
    const double *level = pressure->state.marks.level;
    out->room_bytes = room_below(out, level[UMO_PRESSURE_CRITICAL], kept_bytes);
    out->calm_bytes = room_below(out, level[UMO_PRESSURE_LOW], 0);
}

/* ---- answering ---- */

/* Makes the caller the one who answers. False when it is already, further up its stack. */
static bool busy_begin(umo_pressure *pressure)
{
    bool first = true;
    (void)pthread_mutex_lock(&pressure->lock);
    if (pressure->busy && pthread_equal(pressure->answerer, pthread_self())) {
        first = false;
    } else {
        while (pressure->busy) {
            (void)pthread_cond_wait(&pressure->changed, &pressure->lock);
        }
        pressure->busy = true;
        pressure->answerer = pthread_self();
    }
    (void)pthread_mutex_unlock(&pressure->lock);
    return first;
}

/* The same for who does not want to wait. */
static bool busy_try(umo_pressure *pressure)
{
    (void)pthread_mutex_lock(&pressure->lock);
    bool first = !pressure->busy;
    if (first) {
        pressure->busy = true;
        pressure->answerer = pthread_self();
    }
    (void)pthread_mutex_unlock(&pressure->lock);
    return first;
}

static void busy_end(umo_pressure *pressure)
{
    (void)pthread_mutex_lock(&pressure->lock);
    pressure->busy = false;
    (void)pthread_cond_broadcast(&pressure->changed);
    (void)pthread_mutex_unlock(&pressure->lock);
}

static uint64_t reliefs_call(umo_pressure *pressure, uint64_t want_bytes, umo_pressure_level level)
{
    relief reliefs[RELIEFS_MAX];
    (void)pthread_mutex_lock(&pressure->lock);
    size_t count = pressure->relief_count;
    memcpy(reliefs, pressure->reliefs, count * sizeof reliefs[0]);
    (void)pthread_mutex_unlock(&pressure->lock);
    uint64_t given_bytes = 0;
    for (size_t i = 0; i < count && given_bytes < want_bytes; i++) {
        given_bytes += reliefs[i].call(want_bytes - given_bytes, level, reliefs[i].user);
    }
    return given_bytes;
}

/* Idle buffers first: they lose nothing but time. */
static uint64_t relieve(umo_pressure *pressure, uint64_t want_bytes, bool device)
{
    umo_pressure_level level = pressure->state.level;
    uint64_t given_bytes =
        umo_relieve_buffers(pressure->root, device, want_bytes, level, umo_os_now_ns());
    return given_bytes < want_bytes
               ? given_bytes + reliefs_call(pressure, want_bytes - given_bytes, level)
               : given_bytes;
}

/* Returns the bytes that an answer gave back. */
static uint64_t answer_give(umo_pressure *pressure, umo_pressure_answer answer,
                            const pressure_actions *actions, umo_pressure_source decisive)
{
    switch (answer) {
    case UMO_PRESSURE_TRIM:
        return umo_pools_trim(pressure->root, 0);
    case UMO_PRESSURE_TIGHTEN: {
        uint64_t before = umo_pools_kept(pressure->root);
        umo_pools_tighten(pressure->root, actions->percent);
        uint64_t after = umo_pools_kept(pressure->root);
        return before > after ? before - after : 0;
    }
    case UMO_PRESSURE_RELIEVE:
        return relieve(pressure, actions->want_bytes > 0 ? actions->want_bytes : UINT64_MAX,
                       decisive == UMO_PRESSURE_DEVICE);
    case UMO_PRESSURE_REFUSE:
        break;
    }
    return 0;
}

static void answers_give(umo_pressure *pressure, const pressure_actions *actions,
                         umo_pressure_source decisive)
{
    for (umo_pressure_answer a = 0; a < UMO_PRESSURE_ANSWERS; a++) {
        uint64_t bytes = 0;
        if (actions->give[a]) {
            uint64_t start_ns = umo_trace_clock();
            bytes = answer_give(pressure, a, actions, decisive);
            UMO_TRACE(.kind = UMO_EVENT_PRESSURE_ANSWER, .scope = pressure->root, .detail = a,
                      .size_bytes = bytes, .start_ns = start_ns);
        }
        (void)pthread_mutex_lock(&pressure->lock);
        umo_pressure_answer_stats *stats = &pressure->stats.answers[a];
        stats->suppressed += actions->suppressed[a] ? 1 : 0;
        if (actions->give[a]) {
            stats->count++;
            stats->bytes += bytes;
            stats->last_ns = umo_os_now_ns();
        }
        (void)pthread_mutex_unlock(&pressure->lock);
    }
    if (actions->restore) {
        umo_pools_tighten(pressure->root, actions->percent);
    }
}

/* Puts what was read where umo_pressure_read() finds it. */
static void reading_publish(umo_pressure *pressure, const reading *r,
                            const umo_os_watch_events *events, uint64_t now_ns)
{
    static const umo_pressure_source sources[UMO_OS_SIGNALS] = {
        [UMO_OS_SIGNAL_THRESHOLD] = UMO_PRESSURE_THRESHOLD,
        [UMO_OS_SIGNAL_EVENTS] = UMO_PRESSURE_EVENTS,
        [UMO_OS_SIGNAL_RECLAIM] = UMO_PRESSURE_RECLAIM,
        [UMO_OS_SIGNAL_STALL] = UMO_PRESSURE_STALL,
        [UMO_OS_SIGNAL_SYSTEM] = UMO_PRESSURE_SYSTEM,
    };
    (void)pthread_mutex_lock(&pressure->lock);
    umo_pressure_stats *stats = &pressure->stats;
    memcpy(stats->sources, r->gauges, sizeof r->gauges);
    for (size_t s = 0; s < UMO_OS_SIGNALS; s++) {
        umo_pressure_source_stats *source = &stats->sources[sources[s]];
        source->active = r->signals[s].why == NULL;
        source->why = r->signals[s].why;
        source->native = r->signals[s].native;
        source->events += events->count[s];
        source->suppressed += events->count[s] > 1 ? events->count[s] - 1 : 0;
    }
    stats->decisive = r->decisive;
    stats->usage_bytes = r->usage_bytes;
    stats->limit_bytes = r->limit_bytes;
    stats->sampled_ns = now_ns;
    stats->samples++;
    (void)pthread_mutex_unlock(&pressure->lock);
    atomic_store_explicit(&pressure->room_bytes, r->room_bytes, memory_order_relaxed);
    atomic_store_explicit(&pressure->sampled_ns, now_ns, memory_order_relaxed);
    if (pressure->guards) {
        /* Under pressure there is no room, but a sample for each small buffer would be too much. */
        uint64_t least_bytes = r->limit_bytes / 256;
        umo_scope_guard_room(pressure->root,
                             r->calm_bytes > least_bytes ? r->calm_bytes : least_bytes);
    }
}

static void state_publish(umo_pressure *pressure, uint64_t start_ns, bool refused)
{
    const pressure_state *state = &pressure->state;
    uint64_t took_ns = umo_os_now_ns() - start_ns;
    uint32_t before =
        atomic_exchange_explicit(&pressure->level, (uint32_t)state->level, memory_order_relaxed);
    if (before != (uint32_t)state->level) {
        UMO_TRACE(.kind = UMO_EVENT_PRESSURE_LEVEL, .scope = pressure->root,
                  .detail = (uint32_t)state->level);
    }
    (void)pthread_mutex_lock(&pressure->lock);
    umo_pressure_stats *stats = &pressure->stats;
    stats->level = state->level;
    stats->budget_percent = state->percent;
    stats->stages = state->stage;
    stats->refusing = state->refusing;
    stats->answer_max_ns = took_ns > stats->answer_max_ns ? took_ns : stats->answer_max_ns;
    (void)pthread_mutex_unlock(&pressure->lock);
    const umo_pressure_listener *told = NULL;
    if (before != (uint32_t)state->level || refused != state->refusing) {
        told = pressure->listeners;
    }
    for (; told != NULL; told = told->next) {
        told->notify(state->level, !state->refusing, told->user);
    }
}

/* Whether usage grows so slowly that nobody has to look for a while. */
static bool calm_read(umo_pressure *pressure, const reading *r, uint64_t now_ns)
{
    uint64_t room_bytes = r->limit_bytes > r->usage_bytes ? r->limit_bytes - r->usage_bytes : 0;
    double growth = (double)r->usage_bytes - (double)pressure->last_bytes;
    double passed_ns = (double)(now_ns - pressure->last_ns);
    bool calm =
        pressure->last_ns > 0 && r->unarmed && growth / passed_ns * ARM_NS < (double)room_bytes / 4;
    pressure->last_ns = now_ns;
    pressure->last_bytes = r->usage_bytes;
    return calm;
}

/* Reads, decides, answers. The caller is the one who is busy. Returns how long until the next. */
static uint64_t step(umo_pressure *pressure, const umo_os_watch_events *events, bool forced)
{
    uint64_t now_ns = umo_os_now_ns();
    reading r;
    gauges_read(pressure, now_ns, &r);
    reading_publish(pressure, &r, events, now_ns);
    pressure->calm = calm_read(pressure, &r, now_ns);
    umo_pressure_level urgency = (umo_pressure_level)events->urgency;
    /* macOS tells once how things stand, and again when they change. */
    if (events->count[UMO_OS_SIGNAL_SYSTEM] > 0) {
        pressure->system = events->calm ? UMO_PRESSURE_NORMAL : urgency;
    }
    pressure_sample sample = {
        .usage_bytes = r.usage_bytes,
        .limit_bytes = r.limit_bytes,
        .urgency = urgency,
        .system = pressure->system,
        .forced = forced,
        .blind_bytes = r.blind_bytes,
        .pools_bytes = umo_pools_reserved(pressure->root),
    };
    pressure_actions actions;
    umo_pressure_policy_step(&pressure->state, &sample, now_ns, &actions);
    /* Who asks meanwhile is refused from now on, not when the other answers are done. */
    bool refused = atomic_exchange_explicit(&pressure->refusing, pressure->state.refusing,
                                            memory_order_relaxed);
    answers_give(pressure, &actions, r.decisive);
    state_publish(pressure, now_ns, refused);
    return actions.next_ns;
}

/* An allocation is about to take more than there was room for: what is idle goes first, now and on
 * this thread, because the kernel does not wait for ours. The rest is the thread's, since nobody
 * knows which locks are held here that a relief might want. */
static void guard_asked(uint64_t size_bytes, void *user)
{
    umo_pressure *pressure = user;
    static const umo_os_watch_events none = {.urgency = UMO_OS_URGENCY_NONE};
    uint64_t sampled_ns = atomic_load_explicit(&pressure->sampled_ns, memory_order_relaxed);
    uint64_t now_ns = umo_os_now_ns();
    if (pressure->owner != getpid() || now_ns - sampled_ns < FRESH_NS || !busy_try(pressure)) {
        return;
    }
    reading r;
    gauges_read(pressure, now_ns, &r);
    reading_publish(pressure, &r, &none, now_ns);
    uint64_t wanted_bytes;
    if (__builtin_add_overflow(r.usage_bytes, size_bytes, &wanted_bytes)) {
        wanted_bytes = UINT64_MAX;
    }
    if (r.calm_bytes < size_bytes &&
        umo_pressure_pools_matter(&pressure->state.marks, wanted_bytes, r.limit_bytes,
                                  umo_pools_reserved(pressure->root))) {
        pressure_actions trim = {.give = {[UMO_PRESSURE_TRIM] = true}};
        answers_give(pressure, &trim, r.decisive);
        atomic_store_explicit(&pressure->asked, true, memory_order_relaxed);
        umo_os_watch_wake(pressure->watch);
    }
    busy_end(pressure);
}

/* ---- the thread ---- */

static bool stopped(umo_pressure *pressure)
{
    (void)pthread_mutex_lock(&pressure->lock);
    bool stop = pressure->stop;
    (void)pthread_mutex_unlock(&pressure->lock);
    return stop;
}

static void watch_run(void *opaque)
{
    umo_pressure *pressure = opaque;
    const uint32_t threshold = 1u << UMO_OS_SIGNAL_THRESHOLD;
    uint64_t due_ns = 0;
    uint64_t threshold_ns = 0; /* until when an event of the kind is passed over */
    uint64_t loud_ns = 0;
    while (!stopped(pressure)) {
        uint64_t now_ns = umo_os_now_ns();
        uint64_t until_ns = due_ns;
        uint32_t ignored = 0;
        if (now_ns < threshold_ns) {
            ignored |= threshold;
            until_ns = threshold_ns < until_ns ? threshold_ns : until_ns;
        }
        if (now_ns < loud_ns) {
            ignored |= ~threshold;
            until_ns = loud_ns < until_ns ? loud_ns : until_ns;
        }
        umo_os_watch_events events;
        umo_os_watch_wait(pressure->watch, until_ns > now_ns ? until_ns - now_ns : 0, ignored,
                          &events);
        now_ns = umo_os_now_ns();
        bool passed = events.count[UMO_OS_SIGNAL_THRESHOLD] > 0;
        bool loud = events.urgency != UMO_OS_URGENCY_NONE || events.calm;
        bool asked = atomic_exchange_explicit(&pressure->asked, false, memory_order_relaxed);
        if (!passed && !loud && !asked && now_ns < due_ns) {
            continue;
        }
        threshold_ns = passed ? now_ns + THRESHOLD_NS : threshold_ns;
        loud_ns = loud ? now_ns + LOUD_NS : loud_ns;
        (void)busy_begin(pressure);
        uint64_t next_ns = step(pressure, &events, false);
        bool calm = pressure->calm;
        busy_end(pressure);
        if (calm) {
            umo_os_watch_arm(pressure->watch);
        }
        due_ns = umo_os_now_ns() + next_ns;
    }
}

/* ---- life ---- */

static uint32_t signals_off(uint32_t sources_off)
{
    return sources_off >> UMO_PRESSURE_THRESHOLD; /* the sources that send events, in that order */
}

UMO_STATIC_ASSERT((int)UMO_OS_SIGNAL_EVENTS == UMO_PRESSURE_EVENTS - UMO_PRESSURE_THRESHOLD &&
                      (int)UMO_OS_SIGNAL_RECLAIM == UMO_PRESSURE_RECLAIM - UMO_PRESSURE_THRESHOLD &&
                      (int)UMO_OS_SIGNAL_STALL == UMO_PRESSURE_STALL - UMO_PRESSURE_THRESHOLD &&
                      (int)UMO_OS_SIGNAL_SYSTEM == UMO_PRESSURE_SYSTEM - UMO_PRESSURE_THRESHOLD,
                  "signals are the later sources");

static umo_status options_check(const umo_pressure_options *options, umo_scope *root,
                                umo_error *error)
{
    double threshold = options->threshold;
    if (threshold != 0 && !(threshold >= 0.1 && threshold <= 0.98)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a pressure threshold of %g; it is a part of the limit, 0.1 to 0.98",
                             threshold);
    }
    if (root == NULL || umo_scope_root(root) != root) {
        return umo_error_set(error, UMO_E_INVAL, 0, "pressure is watched for a root scope");
    }
    return UMO_OK;
}

umo_status umo_pressure_create_below(const umo_pressure_options *options, umo_scope *root,
                                     const char *proc, umo_pressure **out, umo_error *error)
{
    static const umo_pressure_options defaults = {.manual = false};
    options = options != NULL ? options : &defaults;
    umo_status status = options_check(options, root, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_pressure *pressure = calloc(1, sizeof *pressure);
    if (pressure == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to watch memory");
    }
    double threshold =
        options->threshold != 0 ? options->threshold : UMO_PRESSURE_THRESHOLD_DEFAULT;
    umo_pressure_policy_init(&pressure->state, threshold);
    const double *level = pressure->state.marks.level;
    umo_os_watch_options watch = {
        .proc = proc,
        .marks = {level[UMO_PRESSURE_LOW], level[UMO_PRESSURE_MEDIUM],
                  level[UMO_PRESSURE_CRITICAL]},
        .events = !options->manual,
        .signals_off = signals_off(options->sources_off),
    };
    pressure->owner = getpid();
    pressure->sources_off = options->sources_off;
    pressure->stats.budget_percent = 100;
    atomic_init(&pressure->room_bytes, UINT64_MAX);
    (void)pthread_mutex_init(&pressure->lock, NULL);
    (void)pthread_cond_init(&pressure->changed, NULL);
    umo_scope_acquire(root);
    pressure->root = root;
    status = umo_os_watch_create(&watch, &pressure->watch, error);
    if (status != UMO_OK) {
        goto fail;
    }
    pressure->guard = (umo_scope_guard){guard_asked, pressure};
    pressure->guards = umo_scope_guard_set(root, &pressure->guard);
    if (options->manual) {
        (void)umo_pressure_poke(pressure); /* so that the figures are there, as with a thread */
    } else {
        /* Here and not on the thread: whoever has started the watch is watched. */
        umo_os_watch_arm(pressure->watch);
        int code = umo_os_thread_create(&pressure->thread, "umo-pressure", watch_run, pressure);
        pressure->thread_runs = code == 0;
        if (code != 0) {
            status = umo_error_set(error, UMO_E_SYSTEM, code, "no thread to watch memory");
            goto fail;
        }
    }
    *out = pressure;
    return UMO_OK;

fail:
    umo_pressure_destroy(pressure);
    return status;
}

umo_status umo_pressure_create(const umo_pressure_options *options, umo_scope *root,
                               umo_pressure **out, umo_error *error)
{
    return umo_pressure_create_below(options, root, NULL, out, error);
}

/* Ends what only the process that began it can. */
static void watch_end(umo_pressure *pressure)
{
    (void)pthread_mutex_lock(&pressure->lock);
    pressure->stop = true;
    (void)pthread_mutex_unlock(&pressure->lock);
    if (pressure->thread_runs) {
        umo_os_watch_wake(pressure->watch);
        (void)pthread_join(pressure->thread, NULL);
    }
    while (pressure->guards && !umo_scope_guard_clear(pressure->root, &pressure->guard)) {
        (void)usleep(100);
    }
    (void)busy_begin(pressure);
    if (pressure->state.percent < 100) {
        umo_pools_tighten(pressure->root, 100);
    }
    busy_end(pressure);
    for (size_t i = 0; i < pressure->device_count; i++) {
        umo_device_release(pressure->devices[i]);
    }
    (void)pthread_cond_destroy(&pressure->changed);
    (void)pthread_mutex_destroy(&pressure->lock);
}

void umo_pressure_destroy(umo_pressure *pressure)
{
    if (pressure == NULL) {
        return;
    }
    if (pressure->owner == getpid()) {
        watch_end(pressure);
    } else if (pressure->guards) {
        /* A child of fork() has none of the threads, and locks and devices as some left them. */
        (void)umo_scope_guard_clear(pressure->root, &pressure->guard);
    }
    umo_os_watch_destroy(pressure->watch);
    umo_scope_destroy(pressure->root);
    free(pressure);
}

umo_status umo_pressure_add_device(umo_pressure *pressure, umo_device *device)
{
    if ((umo_device_info_get(device)->caps & UMO_CAP_USAGE) == 0) {
        return UMO_OK;
    }
    umo_status status = UMO_E_LIMIT;
    (void)pthread_mutex_lock(&pressure->lock);
    if (pressure->device_count < DEVICES_MAX) {
        umo_device_acquire(device);
        pressure->devices[pressure->device_count++] = device;
        status = UMO_OK;
    }
    (void)pthread_mutex_unlock(&pressure->lock);
    return status;
}

umo_status umo_pressure_add_relief(umo_pressure *pressure, umo_pressure_relief call, void *user)
{
    umo_status status = UMO_E_LIMIT;
    (void)pthread_mutex_lock(&pressure->lock);
    if (pressure->relief_count < RELIEFS_MAX) {
        pressure->reliefs[pressure->relief_count++] = (relief){call, user};
        status = UMO_OK;
    }
    (void)pthread_mutex_unlock(&pressure->lock);
    return status;
}

void umo_pressure_remove_relief(umo_pressure *pressure, umo_pressure_relief call, void *user)
{
    bool first = busy_begin(pressure); /* an answer that is being given has a copy of the list */
    (void)pthread_mutex_lock(&pressure->lock);
    for (size_t i = 0; i < pressure->relief_count; i++) {
        if (pressure->reliefs[i].call == call && pressure->reliefs[i].user == user) {
            pressure->relief_count--;
            memmove(&pressure->reliefs[i], &pressure->reliefs[i + 1],
                    (pressure->relief_count - i) * sizeof pressure->reliefs[0]);
            break;
        }
    }
    (void)pthread_mutex_unlock(&pressure->lock);
    if (first) {
        busy_end(pressure);
    }
}

void umo_pressure_add_listener(umo_pressure *pressure, umo_pressure_listener *listener)
{
    bool first = busy_begin(pressure);
    listener->next = pressure->listeners;
    pressure->listeners = listener;
    if (first) {
        busy_end(pressure);
    }
}

void umo_pressure_remove_listener(umo_pressure *pressure, umo_pressure_listener *listener)
{
    bool first = busy_begin(pressure); /* it is being told something, perhaps */
    umo_pressure_listener **at = &pressure->listeners;
    while (*at != NULL && *at != listener) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = listener->next;
    }
    if (first) {
        busy_end(pressure);
    }
}

umo_pressure_level umo_pressure_poke(umo_pressure *pressure)
{
    static const umo_os_watch_events none = {.urgency = UMO_OS_URGENCY_NONE};
    if (pressure->owner == getpid() && busy_begin(pressure)) {
        (void)step(pressure, &none, true);
        busy_end(pressure);
    }
    return (umo_pressure_level)atomic_load_explicit(&pressure->level, memory_order_relaxed);
}

static umo_status refuse(umo_pressure *pressure, uint64_t size_bytes, umo_error *error)
{
    atomic_fetch_add_explicit(&pressure->refused, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pressure->refused_bytes, size_bytes, memory_order_relaxed);
    umo_pressure_stats stats;
    umo_pressure_read(pressure, &stats);
    const unsigned mib = 20;
    return umo_error_set(error, UMO_E_LIMIT, 0,
                         "memory is short: %llu of %llu MiB in use (%s), %llu MiB asked for; try "
                         "again later",
                         (unsigned long long)(stats.usage_bytes >> mib),
                         (unsigned long long)(stats.limit_bytes >> mib),
                         umo_pressure_source_name(stats.decisive),
                         (unsigned long long)(size_bytes >> mib));
}

umo_status umo_pressure_admit(umo_pressure *pressure, uint64_t size_bytes, umo_error *error)
{
    if (!umo_pressure_ready(pressure)) {
        return refuse(pressure, size_bytes, error);
    }
    if (size_bytes <= atomic_load_explicit(&pressure->room_bytes, memory_order_relaxed)) {
        return UMO_OK;
    }
    uint64_t sampled_ns = atomic_load_explicit(&pressure->sampled_ns, memory_order_relaxed);
    if (umo_os_now_ns() - sampled_ns >= FRESH_NS) {
        (void)umo_pressure_poke(pressure);
    }
    bool fits = size_bytes <= atomic_load_explicit(&pressure->room_bytes, memory_order_relaxed);
    return fits && umo_pressure_ready(pressure) ? UMO_OK : refuse(pressure, size_bytes, error);
}

bool umo_pressure_ready(const umo_pressure *pressure)
{
    return !atomic_load_explicit(&pressure->refusing, memory_order_relaxed);
}

void umo_pressure_read(umo_pressure *pressure, umo_pressure_stats *out)
{
    /* In a child of fork() the lock may be held by a thread that is not there, and nobody writes.
     */
    bool own = pressure->owner == getpid();
    if (own) {
        (void)pthread_mutex_lock(&pressure->lock);
    }
    *out = pressure->stats;
    if (own) {
        (void)pthread_mutex_unlock(&pressure->lock);
    }
    out->refused = atomic_load_explicit(&pressure->refused, memory_order_relaxed);
    out->answers[UMO_PRESSURE_REFUSE].bytes =
        atomic_load_explicit(&pressure->refused_bytes, memory_order_relaxed);
}
