/*
 * What becomes of idle views: they are dropped when the mapping that they were made from is gone,
 * so that memory which a client has unregistered goes back to the system although nobody comes to
 * ask for it again.
 *
 * No system tells of an unmapping, so the process's map is read, about once a second while there
 * are idle views, on the keeper's thread; less often where reading it takes long. Views are found
 * by the extents of the mapping they were made from, so each line of the map costs one look-up.
 */
#include "mem/registry.h"

#include "os/os.h"

#define SHARE 100                         /* of the keeper's time at most one part in so many */
#define PAUSE_MAX_NS UINT64_C(5000000000) /* a busy system makes any reading look long */
#define BATCH 16
#define SLOTS_A_TURN 64

static pthread_mutex_t registries_lock = PTHREAD_MUTEX_INITIALIZER; /* before a registry's own */
static umo_list_link registries = {&registries, &registries};

/* ---- fork: the child must not inherit a lock that another thread held ---- */

static void fork_prepare(void)
{
    (void)pthread_mutex_lock(&registries_lock);
    for (umo_list_link *at = registries.next; at != &registries; at = at->next) {
        (void)pthread_mutex_lock(&UMO_LIST_ENTRY(at, umo_registry, link)->lock);
    }
}

static void fork_done(void)
{
    for (umo_list_link *at = registries.next; at != &registries; at = at->next) {
        (void)pthread_mutex_unlock(&UMO_LIST_ENTRY(at, umo_registry, link)->lock);
    }
    (void)pthread_mutex_unlock(&registries_lock);
}

static void fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_done, fork_done);
}

/* ---- one sweep ---- */

typedef struct sweep {
    umo_registry *registry;
    uint64_t number;
    umo_mapping batch[BATCH];
    size_t count;
} sweep;

/* Whether a mapping is a view of this registry. Under its lock. */
static bool registry_owns(const umo_registry *registry, const umo_mapping *mapping)
{
    uint64_t hash;
    for (umo_hash_link *link = umo_view_chain(registry, mapping, &hash); link != NULL;
         link = link->next) {
        const umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
        if (link->hash == hash && (uintptr_t)view->base == mapping->start) {
            return true;
        }
    }
    return false;
}

static void mapping_mark(umo_registry *registry, const umo_mapping *mapping, uint64_t number)
{
    uint64_t hash;
    for (umo_hash_link *link = umo_view_chain(registry, mapping, &hash); link != NULL;
         link = link->next) {
        umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
        if (link->hash == hash && umo_view_matches(view, mapping) && view->seen < number) {
            view->seen = number;
        }
    }
}

/* Views do not keep each other: those of all registries of the process are left out. */
static void batch_mark(sweep *s)
{
    bool ours[BATCH] = {false};
    (void)pthread_mutex_lock(&registries_lock);
    for (umo_list_link *at = registries.next; at != &registries; at = at->next) {
        umo_registry *registry = UMO_LIST_ENTRY(at, umo_registry, link);
        (void)pthread_mutex_lock(&registry->lock);
        for (size_t i = 0; i < s->count; i++) {
            ours[i] = ours[i] || registry_owns(registry, &s->batch[i]);
        }
        (void)pthread_mutex_unlock(&registry->lock);
    }
    (void)pthread_mutex_unlock(&registries_lock);
    (void)pthread_mutex_lock(&s->registry->lock);
    for (size_t i = 0; i < s->count; i++) {
        if (!ours[i]) {
            mapping_mark(s->registry, &s->batch[i], s->number);
        }
    }
    (void)pthread_mutex_unlock(&s->registry->lock);
    s->count = 0;
}

static bool sweep_visit(const umo_mapping *mapping, void *user)
{
    sweep *s = user;
    if (mapping->shared && mapping->inode != 0) {
        s->batch[s->count++] = *mapping;
        if (s->count == BATCH) {
            batch_mark(s);
        }
    }
    return true;
}

/* Unlinks the idle views in a part of the table that the sweep has not seen. Under the lock. */
static umo_view *slots_unlink(umo_registry *registry, size_t first, uint64_t number)
{
    umo_view *gone = NULL;
    size_t count = registry->views.slot_count;
    for (size_t slot = first; slot < count && slot - first < SLOTS_A_TURN; slot++) {
        for (umo_hash_link *link = registry->views.slots[slot]; link != NULL;) {
            umo_view *view = UMO_LIST_ENTRY(link, umo_view, link);
            link = link->next;
            if (view->users == 0 && view->seen < number) {
                umo_view_unlink(registry, view);
                view->next_gone = gone;
                gone = view;
            }
        }
    }
    return gone;
}

size_t umo_registry_sweep(umo_registry *registry)
{
    sweep s = {.registry = registry};
    (void)pthread_mutex_lock(&registry->lock);
    registry->sweep_ns = umo_os_now_ns();
    s.number = ++registry->sweeps;
    bool idle = registry->idle_count > 0;
    (void)pthread_mutex_unlock(&registry->lock);
    if (!idle || umo_os_mapping_visit(sweep_visit, &s) != UMO_OK) {
        return 0;
    }
    batch_mark(&s);

    /* A part at a time, so that nobody waits long for the lock. A table that grows meanwhile may
     * hide a view until the next sweep. */
    size_t dropped = 0;
    bool more = true;
    for (size_t first = 0; more; first += SLOTS_A_TURN) {
        (void)pthread_mutex_lock(&registry->lock);
        umo_view *gone = slots_unlink(registry, first, s.number);
        more = first + SLOTS_A_TURN < registry->views.slot_count;
        (void)pthread_mutex_unlock(&registry->lock);
        while (gone != NULL) {
            umo_view *next = gone->next_gone;
            umo_view_free(gone);
            gone = next;
            dropped++;
        }
    }
    return dropped;
}

/* ---- when ---- */

static uint64_t sweep_tick(umo_keeper_task *task, uint64_t now_ns)
{
    umo_registry *registry = UMO_LIST_ENTRY(task, umo_registry, keeper);
    (void)umo_registry_sweep(registry);
    uint64_t end_ns = umo_os_now_ns();
    uint64_t pause_ns = (end_ns - now_ns) * SHARE;
    (void)pthread_mutex_lock(&registry->lock);
    registry->sweep_due = registry->idle_count > 0;
    bool again = registry->sweep_due;
    (void)pthread_mutex_unlock(&registry->lock);
    pause_ns = pause_ns < PAUSE_MAX_NS ? pause_ns : PAUSE_MAX_NS;
    return again ? end_ns + (pause_ns > UMO_SWEEP_EVERY_NS ? pause_ns : UMO_SWEEP_EVERY_NS)
                 : UINT64_MAX;
}

void umo_registry_join(umo_registry *registry)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, fork_register);
    umo_os_forks_watch();
    registry->forks = umo_os_forks();
    registry->sweep_ns = umo_os_now_ns();
    registry->keeper.tick = sweep_tick;
    umo_keeper_add(&registry->keeper);
    (void)pthread_mutex_lock(&registries_lock);
    umo_list_push(&registries, &registry->link);
    (void)pthread_mutex_unlock(&registries_lock);
}

void umo_registry_leave(umo_registry *registry)
{
    umo_keeper_remove(&registry->keeper);
    (void)pthread_mutex_lock(&registries_lock);
    umo_list_remove(&registry->link);
    (void)pthread_mutex_unlock(&registries_lock);
}
