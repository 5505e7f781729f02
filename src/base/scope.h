/*
 * The inner side of trace.h: charging memory against the limits of a scope and its parents.
 */
#ifndef UMO_BASE_SCOPE_H
#define UMO_BASE_SCOPE_H

#include <umo/trace.h>

/* One more reference. */
void umo_scope_acquire(umo_scope *scope);

/* Its topmost parent, or itself. */
umo_scope *umo_scope_root(umo_scope *scope);

/* Is it the other one, or below it? */
bool umo_scope_within(const umo_scope *scope, const umo_scope *above);

/* Its own limit, 0 for none, and what is charged now. */
uint64_t umo_scope_limit(const umo_scope *scope);
uint64_t umo_scope_live(const umo_scope *scope);

/* A number that no other scope of the process has, from 1 on. */
uint32_t umo_scope_number(const umo_scope *scope);

/* A count that was made through trace.h, for whoever records events: a layer above this one, so it
 * has itself called. */
typedef struct umo_scope_event {
    umo_scope *scope;
    uint64_t size_bytes;
    umo_direction direction;
    umo_reason reason;
    bool transfer; /* else a copy */
    bool performed;
} umo_scope_event;
typedef void (*umo_scope_listener)(const umo_scope_event *event);
/* Called while the recorder is on (recorded.h). Any thread. */
void umo_scope_listen(umo_scope_listener listener);

/* umo_scope_count_transfer() without telling the listener: by a caller that has more to tell. */
void umo_scope_add_transfer(umo_scope *scope, umo_direction direction, bool performed,
                            uint64_t size_bytes);

/*
 * Whoever watches memory pressure wants to be asked before more is taken than it has room for. A
 * room is used up by what is asked for and then set again by the watcher.
 */
typedef struct umo_scope_guard {
    void (*ask)(uint64_t size_bytes, void *user);
    void *user;
} umo_scope_guard;
/* False when the root has one already. */
bool umo_scope_guard_set(umo_scope *root, const umo_scope_guard *guard);
/* Takes it out if it is the root's. False while a call of it runs: try again. */
bool umo_scope_guard_clear(umo_scope *root, const umo_scope_guard *guard);
void umo_scope_guard_room(umo_scope *root, uint64_t room_bytes);
/* Before memory is taken from the system or a device. No lock is held that an answer to memory
 * pressure may want: it gives back what pools keep, on this thread. */
void umo_scope_guard_ask(umo_scope *scope, uint64_t size_bytes);

/* Takes size_bytes out of every limit up to the root, or out of none: false when one is reached. */
bool umo_scope_charge(umo_scope *scope, uint64_t size_bytes);
void umo_scope_uncharge(umo_scope *scope, uint64_t size_bytes);

/* Counts memory that was really taken: a charge comes before it, and the system may still refuse.
 */
void umo_scope_count_alloc(umo_scope *scope, uint64_t size_bytes);

/* Counts a umo_buffer that comes to life (+1) or goes (-1). */
void umo_scope_count_buffer(umo_scope *scope, int change);

/* Counts a buffer of size_bytes that changed its storage mode. */
void umo_scope_count_move(umo_scope *scope, uint64_t size_bytes);

/* Counts a wrap of size_bytes, made new or found in the registration cache. */
void umo_scope_count_import(umo_scope *scope, bool hit, uint64_t size_bytes);

#endif
