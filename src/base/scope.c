/*
 * Scopes: a tree of counters. Counting walks to the root with relaxed additions, so the hot path
 * never locks; the price is that a snapshot is not of one instant.
 */
#include "base/scope.h"

#include "base/recorded.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct atomic_tally {
    _Atomic uint64_t events;
    _Atomic uint64_t bytes;
} atomic_tally;

struct umo_scope {
    _Atomic uint32_t refs;
    umo_scope *parent;
    uint64_t limit_bytes;
    uint32_t number;
    char name[64];
    atomic_tally transfer_performed[UMO_DIRECTIONS];
    atomic_tally transfer_eliminated[UMO_DIRECTIONS];
    atomic_tally copy_performed[UMO_DIRECTIONS][UMO_REASON_COUNT];
    _Atomic uint64_t copies; /* of all of them, counted last */
    atomic_tally copy_avoided[UMO_DIRECTIONS];
    atomic_tally imported;
    atomic_tally import_hits;
    atomic_tally allocated;
    _Atomic uint64_t live_bytes;
    _Atomic uint64_t peak_bytes;
    _Atomic uint64_t live_buffers;
    atomic_tally moves;
    _Atomic(const umo_scope_guard *) guard;
    _Atomic uint32_t guard_calls;
    _Atomic uint64_t guard_room; /* UINT64_MAX while there is no guard */
};

static _Atomic uint32_t numbers;
static _Atomic(umo_scope_listener) listener_now;

umo_status umo_scope_create(umo_scope *parent, const char *name, uint64_t limit_bytes,
                            umo_scope **out, umo_error *error)
{
    umo_scope *scope = calloc(1, sizeof *scope);
    if (scope == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the scope '%s'", name);
    }
    atomic_init(&scope->refs, 1);
    scope->number = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed) + 1;
    scope->parent = parent;
    scope->limit_bytes = limit_bytes;
    atomic_init(&scope->guard_room, UINT64_MAX);
    strncpy(scope->name, name, sizeof scope->name - 1);
    if (parent != NULL) {
        umo_scope_acquire(parent);
    }
    *out = scope;
    return UMO_OK;
}

void umo_scope_acquire(umo_scope *scope)
{
    atomic_fetch_add_explicit(&scope->refs, 1, memory_order_relaxed);
}

bool umo_scope_within(const umo_scope *scope, const umo_scope *above)
{
    while (scope != NULL && scope != above) {
        scope = scope->parent;
    }
    return scope != NULL;
}

umo_scope *umo_scope_root(umo_scope *scope)
{
    while (scope->parent != NULL) {
        scope = scope->parent;
    }
    return scope;
}

void umo_scope_destroy(umo_scope *scope)
{
    while (scope != NULL && atomic_fetch_sub_explicit(&scope->refs, 1, memory_order_acq_rel) == 1) {
        umo_scope *parent = scope->parent;
        free(scope);
        scope = parent;
    }
}

const char *umo_scope_name(const umo_scope *scope)
{
    return scope->name;
}

static void tally_add(atomic_tally *tally, uint64_t size_bytes)
{
    atomic_fetch_add_explicit(&tally->events, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&tally->bytes, size_bytes, memory_order_relaxed);
}

static umo_tally tally_read(const atomic_tally *tally)
{
    return (umo_tally){
        .events = atomic_load_explicit(&tally->events, memory_order_relaxed),
        .bytes = atomic_load_explicit(&tally->bytes, memory_order_relaxed),
    };
}

static void rest_read(const umo_scope *scope, umo_counters *out)
{
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        out->transfer_performed[d] = tally_read(&scope->transfer_performed[d]);
        out->transfer_eliminated[d] = tally_read(&scope->transfer_eliminated[d]);
        out->copy_avoided[d] = tally_read(&scope->copy_avoided[d]);
    }
    out->imported = tally_read(&scope->imported);
    out->import_hits = tally_read(&scope->import_hits);
    out->allocated = tally_read(&scope->allocated);
    out->live_bytes = atomic_load_explicit(&scope->live_bytes, memory_order_relaxed);
    out->peak_bytes = atomic_load_explicit(&scope->peak_bytes, memory_order_relaxed);
    out->live_buffers = atomic_load_explicit(&scope->live_buffers, memory_order_relaxed);
    out->moves = tally_read(&scope->moves);
}

static void copies_read(const umo_scope *scope, umo_counters *out)
{
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            out->copy_performed[d][r] = tally_read(&scope->copy_performed[d][r]);
        }
    }
}

bool umo_scope_read_again(const umo_scope *scope, uint64_t *copies, umo_counters *out)
{
    uint64_t now = atomic_load_explicit(&scope->copies, memory_order_acquire);
    bool moved = now != *copies;
    *copies = now;
    if (moved) {
        copies_read(scope, out);
    }
    rest_read(scope, out);
    return moved;
}

void umo_scope_read(const umo_scope *scope, umo_counters *out)
{
    copies_read(scope, out);
    rest_read(scope, out);
}

uint64_t umo_scope_limit(const umo_scope *scope)
{
    return scope->limit_bytes;
}

uint64_t umo_scope_live(const umo_scope *scope)
{
    return atomic_load_explicit(&scope->live_bytes, memory_order_relaxed);
}

uint32_t umo_scope_number(const umo_scope *scope)
{
    return scope->number;
}

void umo_scope_listen(umo_scope_listener listener)
{
    atomic_store_explicit(&listener_now, listener, memory_order_relaxed);
}

static void listener_tell(const umo_scope_event *event)
{
    if (umo_recorded_on() && event->scope != NULL) {
        umo_scope_listener listener = atomic_load_explicit(&listener_now, memory_order_relaxed);
        if (listener != NULL) {
            listener(event);
        }
    }
}

void umo_scope_add_transfer(umo_scope *scope, umo_direction direction, bool performed,
                            uint64_t size_bytes)
{
    for (; scope != NULL; scope = scope->parent) {
        tally_add(performed ? &scope->transfer_performed[direction]
                            : &scope->transfer_eliminated[direction],
                  size_bytes);
    }
}

void umo_scope_count_transfer(umo_scope *scope, umo_direction direction, bool performed,
                              uint64_t size_bytes)
{
    umo_scope_add_transfer(scope, direction, performed, size_bytes);
    listener_tell(&(umo_scope_event){.scope = scope,
                                     .size_bytes = size_bytes,
                                     .direction = direction,
                                     .transfer = true,
                                     .performed = performed});
}

void umo_scope_count_copy(umo_scope *scope, umo_direction direction, umo_reason reason,
                          uint64_t size_bytes)
{
    for (umo_scope *level = scope; level != NULL; level = level->parent) {
        tally_add(&level->copy_performed[direction][reason], size_bytes);
        (void)atomic_fetch_add_explicit(&level->copies, 1, memory_order_release);
    }
    listener_tell(&(umo_scope_event){.scope = scope,
                                     .size_bytes = size_bytes,
                                     .direction = direction,
                                     .reason = reason,
                                     .performed = true});
}

void umo_scope_count_copy_avoided(umo_scope *scope, umo_direction direction, uint64_t size_bytes)
{
    for (umo_scope *level = scope; level != NULL; level = level->parent) {
        tally_add(&level->copy_avoided[direction], size_bytes);
    }
    listener_tell(
        &(umo_scope_event){.scope = scope, .size_bytes = size_bytes, .direction = direction});
}

void umo_scope_count_import(umo_scope *scope, bool hit, uint64_t size_bytes)
{
    for (; scope != NULL; scope = scope->parent) {
        tally_add(hit ? &scope->import_hits : &scope->imported, size_bytes);
    }
}

void umo_scope_count_move(umo_scope *scope, uint64_t size_bytes)
{
    for (; scope != NULL; scope = scope->parent) {
        tally_add(&scope->moves, size_bytes);
    }
}

void umo_scope_count_buffer(umo_scope *scope, int change)
{
    for (; scope != NULL; scope = scope->parent) {
        atomic_fetch_add_explicit(&scope->live_buffers, (uint64_t)(int64_t)change,
                                  memory_order_relaxed);
    }
}

bool umo_scope_guard_set(umo_scope *root, const umo_scope_guard *guard)
{
    const umo_scope_guard *none = NULL;
    return atomic_compare_exchange_strong(&root->guard, &none, guard);
}

bool umo_scope_guard_clear(umo_scope *root, const umo_scope_guard *guard)
{
    const umo_scope_guard *found = guard;
    bool ours = atomic_compare_exchange_strong(&root->guard, &found, NULL) || found == NULL;
    /* Who counts itself afterwards finds no guard: both orders are of one sequence. */
    bool quiet = atomic_load(&root->guard_calls) == 0;
    if (ours) {
        /* Looked first, as a call that ran may have set a room; so also at the second try. */
        atomic_store_explicit(&root->guard_room, UINT64_MAX, memory_order_relaxed);
    }
    return quiet;
}

void umo_scope_guard_room(umo_scope *root, uint64_t room_bytes)
{
    atomic_store_explicit(&root->guard_room, room_bytes, memory_order_relaxed);
}

void umo_scope_guard_ask(umo_scope *scope, uint64_t size_bytes)
{
    umo_scope *root = umo_scope_root(scope);
    uint64_t room = atomic_load_explicit(&root->guard_room, memory_order_relaxed);
    if (room == UINT64_MAX) {
        return;
    }
    while (size_bytes <= room) {
        if (atomic_compare_exchange_weak_explicit(&root->guard_room, &room, room - size_bytes,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return;
        }
    }
    atomic_fetch_add(&root->guard_calls, 1);
    const umo_scope_guard *guard = atomic_load(&root->guard);
    if (guard != NULL) {
        guard->ask(size_bytes, guard->user);
    }
    atomic_fetch_sub(&root->guard_calls, 1);
}

/* Adds to one level unless its limit would be passed. */
static bool charge_level(umo_scope *scope, uint64_t size_bytes)
{
    uint64_t live = atomic_load_explicit(&scope->live_bytes, memory_order_relaxed);
    uint64_t wanted;
    do {
        if (__builtin_add_overflow(live, size_bytes, &wanted) ||
            (scope->limit_bytes != 0 && wanted > scope->limit_bytes)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&scope->live_bytes, &live, wanted,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* The mark rises when a charge has passed every level: one that was refused was never there. */
static void peak_raise(umo_scope *scope)
{
    uint64_t live = atomic_load_explicit(&scope->live_bytes, memory_order_relaxed);
    uint64_t peak = atomic_load_explicit(&scope->peak_bytes, memory_order_relaxed);
    while (peak < live &&
           !atomic_compare_exchange_weak_explicit(&scope->peak_bytes, &peak, live,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

bool umo_scope_charge(umo_scope *scope, uint64_t size_bytes)
{
    for (umo_scope *level = scope; level != NULL; level = level->parent) {
        if (!charge_level(level, size_bytes)) {
            for (umo_scope *undo = scope; undo != level; undo = undo->parent) {
                atomic_fetch_sub_explicit(&undo->live_bytes, size_bytes, memory_order_relaxed);
            }
            return false;
        }
    }
    for (umo_scope *level = scope; level != NULL; level = level->parent) {
        peak_raise(level);
    }
    return true;
}

void umo_scope_count_alloc(umo_scope *scope, uint64_t size_bytes)
{
    for (; scope != NULL; scope = scope->parent) {
        tally_add(&scope->allocated, size_bytes);
    }
}

void umo_scope_uncharge(umo_scope *scope, uint64_t size_bytes)
{
    for (; scope != NULL; scope = scope->parent) {
        atomic_fetch_sub_explicit(&scope->live_bytes, size_bytes, memory_order_relaxed);
    }
}
