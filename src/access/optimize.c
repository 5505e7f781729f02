/*
 * The placer: from how buffers were used to where they are.
 *
 * What is known about a buffer is kept here under its number, not in the buffer and not with a
 * reference to it: a buffer that nobody wants any more is freed at once, and the next run forgets
 * what was known. No lock is held over a measurement or a move; an entry that somebody works on is
 * marked.
 */
#include <umo/placement.h>

#include "base/hash.h"
#include "mem/events.h"
#include "os/os.h"

#include <pthread.h>
#include <stdlib.h>

#define CHANGE_THRESHOLD 1000u
#define MOVE_SHARE 8u
#define MOVE_CREDIT_NS 250000000u /* a program's start brings many moves at once */

/* What is known about one buffer. While busy, its user's alone but for the link. */
typedef struct placed {
    umo_hash_link link; /* hash: the buffer's number */
    uint64_t seen_run;
    bool busy;
    bool started;
    umo_placement placement;
    umo_access_stats stats; /* at the last decision */
} placed;

typedef struct placed_device {
    struct placed_device *next;
    umo_device *device;
    umo_cost_model model;
} placed_device;

struct umo_placer {
    umo_placer_options options;
    pthread_mutex_t lock; /* all below */
    umo_hash buffers;
    placed_device *devices; /* entries stay as they are until the end */
    uint64_t run;
    bool running;
    int64_t credit_ns;
    uint64_t credit_at_ns;
    umo_placer_stats stats;
};

umo_status umo_placer_create(const umo_placer_options *options, umo_placer **out, umo_error *error)
{
    umo_placer *placer = calloc(1, sizeof *placer);
    if (placer == NULL || !umo_hash_init(&placer->buffers)) {
        free(placer);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a placer");
    }
    placer->options = options != NULL ? *options : (umo_placer_options){0};
    if (placer->options.calibrate.age_max_s < 0) {
        umo_hash_finish(&placer->buffers);
        free(placer);
        return umo_error_set(error, UMO_E_INVAL, 0, "a measurement's age is not negative");
    }
    if (placer->options.change_threshold == 0) {
        placer->options.change_threshold = CHANGE_THRESHOLD;
    }
    if (placer->options.move_share == 0) {
        placer->options.move_share = MOVE_SHARE;
    }
    if (placer->options.move_credit_ns == 0) {
        placer->options.move_credit_ns = MOVE_CREDIT_NS;
    } else if (placer->options.move_credit_ns > INT32_MAX) {
        placer->options.move_credit_ns = INT32_MAX; /* two seconds */
    }
    placer->credit_ns = (int64_t)placer->options.move_credit_ns;
    placer->credit_at_ns = umo_os_now_ns();
    (void)pthread_mutex_init(&placer->lock, NULL);
    *out = placer;
    return UMO_OK;
}

/* Frees the entries that were not seen in this run; all of them for run 0. The lock is held, or not
 * needed any more. */
static void entries_drop(umo_placer *placer, uint64_t run)
{
    for (size_t i = 0; i < placer->buffers.slot_count; i++) {
        umo_hash_link *next = NULL;
        for (umo_hash_link *link = placer->buffers.slots[i]; link != NULL; link = next) {
            placed *entry = (placed *)(void *)link;
            next = link->next;
            if (!entry->busy && (run == 0 || entry->seen_run != run)) {
                umo_hash_remove(&placer->buffers, link);
                free(entry);
            }
        }
    }
}

void umo_placer_destroy(umo_placer *placer)
{
    if (placer == NULL) {
        return;
    }
    entries_drop(placer, 0);
    umo_hash_finish(&placer->buffers);
    while (placer->devices != NULL) {
        placed_device *first = placer->devices;
        placer->devices = first->next;
        umo_device_release(first->device);
        free(first);
    }
    (void)pthread_mutex_destroy(&placer->lock);
    free(placer);
}

/* ---- devices ---- */

/* The lock is held. */
static const umo_cost_model *model_find(const umo_placer *placer, const umo_device *device)
{
    for (const placed_device *d = placer->devices; d != NULL; d = d->next) {
        if (d->device == device) {
            return &d->model;
        }
    }
    return NULL;
}

/* The model of a device. Without memory to keep it in, it is assumed in spare. */
static const umo_cost_model *model_get(umo_placer *placer, umo_device *device,
                                       umo_cost_model *spare)
{
    (void)pthread_mutex_lock(&placer->lock);
    const umo_cost_model *model = model_find(placer, device);
    (void)pthread_mutex_unlock(&placer->lock);
    if (model != NULL) {
        return model;
    }
    placed_device *made = calloc(1, sizeof *made);
    if (made == NULL ||
        umo_device_calibrate(device, &placer->options.calibrate, &made->model, NULL) != UMO_OK) {
        umo_cost_model_assume(umo_device_info_get(device), spare);
        if (made == NULL) {
            return spare;
        }
        made->model = *spare;
    }
    (void)pthread_mutex_lock(&placer->lock);
    model = model_find(placer, device); /* somebody may have been faster */
    if (model == NULL) {
        umo_device_acquire(device);
        made->device = device;
        made->next = placer->devices;
        placer->devices = made;
        model = &made->model;
        made = NULL;
    }
    (void)pthread_mutex_unlock(&placer->lock);
    free(made);
    return model;
}

umo_storage_mode umo_placer_initial(umo_placer *placer, umo_device *device, uint64_t size_bytes,
                                    umo_pattern pattern)
{
    umo_cost_model spare;
    const umo_cost_model *model = model_get(placer, device, &spare);
    /* Where there is one memory, only what the device has for itself is worth hiding from the host:
     * measured differences between the modes are small there, and often noise. */
    if (umo_device_info_get(device)->unified && pattern != UMO_PATTERN_GPU_DOMINANT &&
        (model->modes & (1u << UMO_UNIFIED)) != 0) {
        return UMO_UNIFIED;
    }
    return umo_placement_initial(model, size_bytes, pattern);
}

/* ---- buffers ---- */

/* The lock is held. */
static placed *entry_find(const umo_placer *placer, uint64_t number)
{
    return (placed *)(void *)umo_hash_find(&placer->buffers, umo_hash_mix(0, number));
}

/* The buffer's entry, marked as busy. BUSY when somebody else works on it. */
static umo_status entry_take(umo_placer *placer, umo_buffer *buffer, placed **out)
{
    uint64_t number = umo_buffer_number(buffer);
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&placer->lock);
    placed *entry = entry_find(placer, number);
    if (entry == NULL) {
        entry = calloc(1, sizeof *entry);
        if (entry != NULL) {
            umo_hash_insert(&placer->buffers, &entry->link, umo_hash_mix(0, number));
        }
    }
    if (entry == NULL) {
        status = UMO_E_NOMEM;
    } else {
        entry->seen_run = placer->run;
        status = entry->busy ? UMO_E_BUSY : UMO_OK;
        entry->busy = true;
        *out = entry;
    }
    (void)pthread_mutex_unlock(&placer->lock);
    return status;
}

/* What became of a decision, for the sums. */
typedef struct outcome {
    uint64_t steps, moves, refused, deferred, moved_ns, paid_ns, optimum_ns;
} outcome;

static void entry_give(umo_placer *placer, placed *entry, const outcome *o)
{
    (void)pthread_mutex_lock(&placer->lock);
    entry->busy = false;
    placer->stats.steps += o->steps;
    placer->stats.moves += o->moves;
    placer->stats.refused += o->refused;
    placer->stats.deferred += o->deferred;
    placer->stats.moved_ns += o->moved_ns;
    placer->stats.paid_ns += o->paid_ns;
    placer->stats.optimum_ns += o->optimum_ns;
    placer->credit_ns -= o->moved_ns < (uint64_t)INT32_MAX ? (int64_t)o->moved_ns : INT32_MAX;
    (void)pthread_mutex_unlock(&placer->lock);
}

/* Whether moves have had less than their share of the time. */
static bool move_allowed(umo_placer *placer)
{
    uint64_t now_ns = umo_os_now_ns();
    (void)pthread_mutex_lock(&placer->lock);
    uint64_t earned_ns = (now_ns - placer->credit_at_ns) / placer->options.move_share;
    int64_t room_ns = (int64_t)placer->options.move_credit_ns - placer->credit_ns;
    placer->credit_ns += earned_ns < (uint64_t)room_ns ? (int64_t)earned_ns : room_ns;
    placer->credit_at_ns = now_ns;
    bool allowed = placer->credit_ns > 0;
    (void)pthread_mutex_unlock(&placer->lock);
    return allowed;
}

/* Makes the move that was decided, or takes the decision back. */
static umo_status entry_move(umo_placer *placer, umo_buffer *buffer, placed *entry, outcome *o,
                             umo_error *error)
{
    if (!move_allowed(placer)) {
        o->deferred = 1;
        umo_placement_stay(&entry->placement);
        return UMO_OK;
    }
    uint64_t start_ns = umo_os_now_ns();
    umo_status status =
        umo_buffer_move(buffer, entry->placement.mode, placer->options.wait_ns, error);
    o->moved_ns = umo_os_now_ns() - start_ns;
    if (status != UMO_OK) {
        o->refused = 1;
        umo_placement_stay(&entry->placement);
        return status;
    }
    o->moves = 1;
    return UMO_OK;
}

static void decision_tell(umo_buffer *buffer, umo_storage_mode from, umo_storage_mode to,
                          const uint64_t *cost_ns, const outcome *o, umo_status status)
{
    if (!umo_trace_on()) {
        return;
    }
    const umo_placement_why why = o->moves != 0      ? UMO_WHY_CHEAPER
                                  : o->deferred != 0 ? UMO_WHY_DEFERRED
                                                     : UMO_WHY_REFUSED;
    umo_trace_write(&(umo_trace_event){
        .kind = UMO_EVENT_PLACEMENT,
        .scope = buffer->scope,
        .device = buffer->device->number,
        .driver = buffer->device->info.driver,
        .buffer = umo_buffer_number(buffer),
        .mode = (uint32_t)to + 1,
        .mode_before = (uint32_t)from + 1,
        .size_bytes = umo_buffer_size(buffer),
        .start_ns = o->moved_ns != 0 ? umo_trace_clock() - o->moved_ns : 0,
        .offset_bytes = cost_ns[from],
        .fence_value = cost_ns[to],
        .detail = (uint32_t)why | (uint32_t)umo_buffer_pattern(buffer) << 8,
        .status = status,
    });
}

static umo_status entry_decide(umo_placer *placer, umo_buffer *buffer, uint32_t modes,
                               const umo_cost_model *model, placed *entry, outcome *o,
                               umo_error *error)
{
    umo_storage_mode mode = umo_buffer_mode(buffer);
    umo_placement_moves moves;
    umo_placement_reckon(model, umo_buffer_size(buffer), &moves);
    if (!entry->started) {
        umo_placement_init(&entry->placement, modes, mode, NULL);
        entry->started = true;
    } else if (mode != entry->placement.mode) {
        umo_placement_set(&entry->placement, mode);
    }
    umo_access_stats now;
    umo_placement_window window;
    uint64_t cost_ns[UMO_STORAGE_MODES] = {0};
    umo_buffer_stats(buffer, &now);
    umo_placement_window_between(&entry->stats, &now, &window);
    for (int s = 0; s < UMO_STORAGE_MODES; s++) {
        cost_ns[s] = umo_cost_window_ns(model, (umo_storage_mode)s, &window);
    }
    uint64_t accesses =
        now.accesses > entry->stats.accesses ? now.accesses - entry->stats.accesses : 0;
    if (accesses == 0 || !umo_placement_due(&entry->placement, cost_ns, &moves, accesses,
                                            placer->options.change_threshold)) {
        return UMO_OK;
    }
    const umo_placement before = entry->placement;
    entry->stats = now;
    umo_status status = UMO_OK;
    const umo_storage_mode wanted = umo_placement_step(&entry->placement, cost_ns, &moves);
    if (wanted != mode) {
        status = entry_move(placer, buffer, entry, o, error);
        decision_tell(buffer, mode, wanted, cost_ns, o, status);
    }
    o->steps = 1;
    o->paid_ns = entry->placement.paid_ns - before.paid_ns;
    o->optimum_ns = entry->placement.optimum_ns - before.optimum_ns;
    return status;
}

umo_status umo_buffer_optimize(umo_buffer *buffer, umo_placer *placer, bool *moved,
                               umo_error *error)
{
    if (moved != NULL) {
        *moved = false;
    }
    umo_device *device = umo_buffer_device(buffer);
    umo_cost_model spare;
    const umo_cost_model *model = NULL;
    uint32_t modes = umo_buffer_modes(buffer);
    if ((modes & (modes - 1)) != 0) {
        model = model_get(placer, device, &spare);
        modes &= model->modes;
    }
    if ((modes & (modes - 1)) == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the buffer cannot move: it has one storage mode");
    }
    placed *entry = NULL;
    umo_status status = entry_take(placer, buffer, &entry);
    if (status != UMO_OK) {
        return status == UMO_E_BUSY
                   ? UMO_OK
                   : umo_error_set(error, status, 0, "no memory to know a buffer by");
    }
    outcome o = {0};
    if (umo_trace_on()) {
        (void)umo_buffer_pattern(buffer); /* which tells when it is another one */
    }
    status = entry_decide(placer, buffer, modes, model, entry, &o, error);
    entry_give(placer, entry, &o);
    if (moved != NULL) {
        *moved = o.moves > 0;
    }
    return status;
}

/* ---- all of them ---- */

typedef struct run_state {
    umo_placer *placer;
    size_t moves;
} run_state;

static bool run_visit(umo_buffer *buffer, void *user)
{
    run_state *run = user;
    uint32_t modes = umo_buffer_modes(buffer);
    bool moved = false;
    if ((modes & (modes - 1)) != 0) {
        umo_status_ignore(umo_buffer_optimize(buffer, run->placer, &moved, NULL));
        run->moves += moved ? 1 : 0;
    }
    return true;
}

/* A buffer outside of the scope, that somebody may have asked about by itself: it lives. */
static bool run_mark(umo_buffer *buffer, void *user)
{
    umo_placer *placer = ((run_state *)user)->placer;
    (void)pthread_mutex_lock(&placer->lock);
    placed *entry = entry_find(placer, umo_buffer_number(buffer));
    if (entry != NULL) {
        entry->seen_run = placer->run;
    }
    (void)pthread_mutex_unlock(&placer->lock);
    return true;
}

size_t umo_placer_run(umo_placer *placer)
{
    (void)pthread_mutex_lock(&placer->lock);
    bool running = placer->running;
    placer->running = true;
    placer->run += running ? 0 : 1;
    (void)pthread_mutex_unlock(&placer->lock);
    if (running) {
        return 0;
    }
    run_state run = {.placer = placer};
    umo_buffer_visit(placer->options.scope, run_visit, &run);
    if (placer->options.scope != NULL) {
        umo_buffer_visit(NULL, run_mark, &run);
    }
    (void)pthread_mutex_lock(&placer->lock);
    entries_drop(placer, placer->run);
    placer->running = false;
    (void)pthread_mutex_unlock(&placer->lock);
    return run.moves;
}

void umo_placer_read(umo_placer *placer, umo_placer_stats *out)
{
    (void)pthread_mutex_lock(&placer->lock);
    *out = placer->stats;
    out->buffers = placer->buffers.count;
    (void)pthread_mutex_unlock(&placer->lock);
}
