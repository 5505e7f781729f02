/*
 * The flight recorder of another process: what recorder.h promises.
 *
 * What is mapped here is written by a process that may be of another version, may crash in the
 * middle of a store, or may be hostile: sizes are checked once, when a part is mapped, and kept.
 * This side writes five words of the head and nothing else.
 */
#include "os/os.h"
#include "os/shown.h"
#include "trace/names.h"
#include "trace/ring.h"

#include <umo/recorder.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Less than caches hold: what is written there is warm. */
#define MEMORY_DEFAULT_BYTES ((size_t)4 << 20)
#define MEMORY_MAX_BYTES ((size_t)256 << 20)
#define LEASE_NS UINT64_C(2000000000)
#define PATIENCE_NS UINT64_C(100000000)

/* umo_recorder_wait() takes when that much of a shard waits, in 256ths, and looks so often that the
 * rest of it is room enough. A look reads one line of each shard, but on a machine at work it finds
 * all caches cold: some 70 us. */
#define WORTH 64u
#define PAUSE_LEAST_NS UINT64_C(1000000)
#define PAUSE_MOST_NS UINT64_C(50000000)

typedef struct cursor {
    uint64_t position;
    uint64_t stuck_ns; /* since when the event there is not whole; 0 when it is not known to be */
    bool loaded;
    umo_profile_event event; /* at position - 1, when loaded */
} cursor;

/* A ring of the process that events went to at some time. */
typedef struct source {
    struct source *next;
    umo_trace_ring ring;
    cursor cursors[UMO_TRACE_SHARDS_MAX];
} source;

struct umo_recorder {
    umo_os_other process;
    umo_trace_head *head;
    char version[sizeof((umo_trace_head *)NULL)->version];
    bool started;
    bool counted; /* among the watchers */
    bool broken;  /* the process's ring cannot be mapped */
    source *sources;
    source *current;
    source *previous;        /* where events went until now; NULL when it has nothing more */
    uint64_t previous_until; /* until when a late one may still come */
    uint64_t start_ns;
    uint64_t drained;
    uint64_t lost;
    uint64_t gaps;
    uint64_t names_lost_before;
    uint64_t missed_before;
    uint64_t pause_ns;
    umo_trace_name names[UMO_TRACE_NAMES];
};

/* ---- opening ---- */

static umo_status open_failed(int64_t pid, umo_status status, int cause, umo_error *error)
{
    const long long number = (long long)pid;
    switch (status) {
    case UMO_E_NOT_FOUND:
        return cause == ESRCH
                   ? umo_error_set(error, status, cause, "no process has the pid %lld", number)
                   : umo_error_set(error, status, 0,
                                   "process %lld shows no recorder: it has not used umo yet, or an "
                                   "older one, or runs with UMO_RECORDER=off",
                                   number);
    case UMO_E_REFUSED:
        return umo_error_set(error, status, cause,
                             "process %lld may not be looked at: run this as its user", number);
    default:
        return umo_error_set(error, status, cause, "the recorder of process %lld cannot be mapped",
                             number);
    }
}

/* Texts of the other process may be anything. */
static void text_copy(char *out, size_t out_bytes, const char *text)
{
    memcpy(out, text, out_bytes);
    out[out_bytes - 1] = '\0';
}

static umo_status head_check(umo_recorder *r, size_t size_bytes, umo_error *error)
{
    const umo_trace_head *head = r->head;
    const long long number = (long long)r->process.pid;
    if (size_bytes < sizeof *head ||
        atomic_load_explicit(&head->magic, memory_order_acquire) != UMO_TRACE_MAGIC) {
        return umo_error_set(
            error, UMO_E_UNSUPPORTED, 0,
            "what process %lld shows is no recorder that this version of umo knows", number);
    }
    text_copy(r->version, sizeof r->version, head->version);
    for (char *c = r->version; *c != '\0'; c++) {
        *c = *c > ' ' && *c < 0x7f ? *c : '?';
    }
    if (head->layout != UMO_TRACE_LAYOUT || head->head_bytes != sizeof *head ||
        head->slot_bytes != sizeof(umo_trace_slot)) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "process %lld keeps its events in another form (libumo %s, form %u; "
                             "this is %s, form %u): use the umo of its version",
                             number, r->version, head->layout, UMO_VERSION, UMO_TRACE_LAYOUT);
    }
    if (head->pid != umo_os_other_inner_pid(&r->process)) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0,
                             "process %lld shows the recorder of the process that it was made by",
                             number);
    }
    return UMO_OK;
}

umo_status umo_recorder_open(int64_t pid, umo_recorder **out, umo_error *error)
{
    umo_recorder *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a recorder");
    }
    size_t size_bytes = 0;
    int cause = ESRCH;
    int file = -1;
    umo_status status =
        pid > 0 && pid <= INT32_MAX ? umo_os_other_open(pid, &r->process) : UMO_E_NOT_FOUND;
    if (status == UMO_OK) {
        status = umo_os_shown_open(pid, 0, &file, &size_bytes, &cause);
    } else {
        r->process.handle = -1;
    }
    if (status == UMO_OK) {
        r->head = size_bytes >= sizeof *r->head
                      ? umo_os_shown_map(file, sizeof *r->head, NULL, true)
                      : NULL;
        umo_os_file_close(file); /* so that no child of ours shows it for its own */
        if (r->head == NULL) {
            status = UMO_E_SYSTEM;
        }
    }
    status = status == UMO_OK ? head_check(r, size_bytes, error)
                              : open_failed(pid, status, cause, error);
    if (status != UMO_OK) {
        umo_recorder_close(r);
        return status;
    }
    *out = r;
    return UMO_OK;
}

const char *umo_recorder_version(const umo_recorder *recorder)
{
    return recorder->version;
}

/* ---- rings ---- */

static uint64_t next_of(const source *s, uint32_t shard)
{
    return atomic_load_explicit(&s->ring.shards[shard].next, memory_order_acquire);
}

static source *source_find(umo_recorder *r, uint32_t part)
{
    for (source *s = r->sources; s != NULL; s = s->next) {
        if (s->ring.part_number == part) {
            return s;
        }
    }
    source *s = calloc(1, sizeof *s);
    size_t size_bytes = 0;
    int file;
    int cause;
    if (s == NULL ||
        umo_os_shown_open(r->process.pid, part, &file, &size_bytes, &cause) != UMO_OK) {
        free(s);
        return NULL;
    }
    void *mapped = umo_os_shown_map(file, size_bytes, NULL, false);
    umo_os_file_close(file);
    if (mapped == NULL || !umo_trace_ring_attach(&s->ring, mapped, size_bytes)) {
        if (mapped != NULL) {
            umo_os_mapping_drop(mapped, size_bytes);
        }
        free(s);
        return NULL;
    }
    s->ring.part_number = part;
    atomic_store_explicit(&s->ring.start_ns, r->start_ns, memory_order_relaxed);
    for (uint32_t i = 0; i < s->ring.shard_count; i++) {
        const uint64_t next = next_of(s, i);
        const uint64_t first = atomic_load_explicit(&s->ring.shards[i].first, memory_order_relaxed);
        s->cursors[i].position = first < next ? first : next;
    }
    s->next = r->sources;
    r->sources = s;
    return s;
}

/* Follows the process to where its events go, once the ring before is done with. */
static void source_follow(umo_recorder *r, uint64_t now)
{
    const uint32_t part = atomic_load_explicit(&r->head->ring_part, memory_order_acquire);
    if (part == 0 || r->previous != NULL ||
        (r->current != NULL && r->current->ring.part_number == part)) {
        return;
    }
    source *s = source_find(r, part);
    r->broken = s == NULL;
    if (s != NULL) {
        r->previous = r->current;
        r->previous_until = now + PATIENCE_NS;
        r->current = s;
    }
}

/* ---- names ---- */

static const char *name_find(umo_recorder *r, umo_trace_name_of what, uint32_t number)
{
    const uint64_t key = umo_trace_name_key(what, number);
    for (uint32_t probe = 0; number != 0 && probe < UMO_TRACE_NAME_PROBES; probe++) {
        const uint32_t place = umo_trace_name_place(key, probe);
        umo_trace_name *mine = &r->names[place];
        umo_trace_name *shown = &r->head->names[place];
        if (mine->ready == 0 && atomic_load_explicit(&shown->ready, memory_order_acquire) != 0) {
            text_copy(mine->text, sizeof mine->text, shown->text);
            mine->key = atomic_load_explicit(&shown->key, memory_order_relaxed);
            mine->ready = 1;
        }
        if (mine->ready != 0 && mine->key == key) {
            return mine->text;
        }
    }
    return "";
}

/* ---- starting and stopping ---- */

static void lease_extend(umo_recorder *r, uint64_t now)
{
    uint64_t lease = atomic_load_explicit(&r->head->lease_ns, memory_order_relaxed);
    while (lease < now + LEASE_NS &&
           !atomic_compare_exchange_weak_explicit(&r->head->lease_ns, &lease, now + LEASE_NS,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

umo_status umo_recorder_start(umo_recorder *r, size_t memory_bytes, umo_error *error)
{
    if (memory_bytes > MEMORY_MAX_BYTES) {
        return umo_error_set(error, UMO_E_INVAL, 0, "others may ask for at most 256 MiB");
    }
    if (r->started) {
        return umo_error_set(error, UMO_E_BUSY, 0, "this recorder was started already");
    }
    uint32_t wanted = 1; /* 0 asks for nothing */
    while ((size_t)1 << wanted < (memory_bytes != 0 ? memory_bytes : MEMORY_DEFAULT_BYTES)) {
        wanted++;
    }
    r->pause_ns = PAUSE_LEAST_NS;
    r->start_ns = umo_os_now_ns();
    r->names_lost_before = atomic_load_explicit(&r->head->names_lost, memory_order_relaxed);
    r->missed_before = atomic_load_explicit(&r->head->missed, memory_order_relaxed);
    source_follow(r, r->start_ns);
    for (uint32_t i = 0; r->current != NULL && i < r->current->ring.shard_count; i++) {
        r->current->cursors[i].position = next_of(r->current, i);
    }
    (void)atomic_fetch_add_explicit(&r->head->watchers, 1, memory_order_relaxed);
    lease_extend(r, r->start_ns);
    /* That it could not for the one before says nothing of now. */
    atomic_store_explicit(&r->head->refused, (uint32_t)UMO_OK, memory_order_relaxed);
    atomic_store_explicit(&r->head->wanted, wanted, memory_order_relaxed);
    atomic_store_explicit(&r->head->on, 1, memory_order_release);
    r->started = true;
    r->counted = true;
    return UMO_OK;
}

/* The process switches off by itself, at its next event: only it knows whether it records for
 * itself. Memory that was for those who look on is given back by the last of them. */
void umo_recorder_stop(umo_recorder *r)
{
    if (!r->counted) {
        return;
    }
    r->counted = false;
    uint32_t watchers = atomic_load_explicit(&r->head->watchers, memory_order_relaxed);
    while (watchers != 0 &&
           !atomic_compare_exchange_weak_explicit(&r->head->watchers, &watchers, watchers - 1,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
    if (watchers <= 1) {
        atomic_store_explicit(&r->head->lease_ns, 0, memory_order_relaxed);
    }
}

static void source_empty(const umo_recorder *r, const source *s)
{
    const size_t page = umo_os_page_bytes();
    const size_t head = (size_t)((char *)s->ring.slots - (char *)s->ring.part);
    const size_t from = (head + page - 1) & ~(page - 1);
    int file;
    size_t size_bytes;
    int cause;
    if (s->ring.part->outside != 0 && from < s->ring.memory_bytes &&
        umo_os_shown_open(r->process.pid, s->ring.part_number, &file, &size_bytes, &cause) ==
            UMO_OK) {
        umo_os_shown_empty(file, from, s->ring.memory_bytes - from);
        umo_os_file_close(file);
    }
}

void umo_recorder_close(umo_recorder *r)
{
    if (r == NULL) {
        return;
    }
    if (r->head != NULL) {
        umo_recorder_stop(r);
    }
    const bool last = r->started && !umo_os_other_ended(&r->process) &&
                      atomic_load_explicit(&r->head->watchers, memory_order_relaxed) == 0;
    while (r->sources != NULL) {
        source *s = r->sources;
        r->sources = s->next;
        if (last) {
            source_empty(r, s);
        }
        umo_os_mapping_drop(s->ring.part, s->ring.memory_bytes);
        free(s);
    }
    if (r->head != NULL) {
        umo_os_mapping_drop(r->head, sizeof *r->head);
    }
    umo_os_other_close(&r->process);
    free(r);
}

/* ---- draining ---- */

typedef struct pass {
    umo_recorder *r;
    source *s;
    uint64_t now;
    bool last; /* nothing that is not whole will be */
    uint64_t ends[UMO_TRACE_SHARDS_MAX];
    cursor *filled[UMO_TRACE_SHARDS_MAX];
    uint32_t filled_count;
} pass;

/* The next event of a shard that can be read; what is not there any more is counted. */
static void cursor_advance(pass *p, uint32_t shard)
{
    umo_trace_ring *ring = &p->s->ring;
    cursor *c = &p->s->cursors[shard];
    c->loaded = false;
    while (!c->loaded && c->position < p->ends[shard]) {
        const uint64_t behind = p->ends[shard] - c->position;
        if (behind > ring->shard_slots) {
            p->r->lost += behind - ring->shard_slots;
            c->position += behind - ring->shard_slots;
        }
        umo_trace_found found = umo_trace_ring_look(ring, shard, c->position, &c->event);
        if (found == UMO_TRACE_ABSENT && !p->last && behind <= ring->shard_slots / 2) {
            c->stuck_ns = c->stuck_ns == 0 ? p->now : c->stuck_ns;
            if (p->now - c->stuck_ns < PATIENCE_NS) {
                return;
            }
        }
        c->stuck_ns = 0;
        c->position++;
        c->loaded = found == UMO_TRACE_WHOLE;
        p->r->lost += c->loaded ? 0 : 1;
    }
}

/* Of the shards that had something: most threads are idle, and their cursors are cold. */
static cursor *oldest_find(const pass *p)
{
    cursor *oldest = NULL;
    for (uint32_t i = 0; i < p->filled_count; i++) {
        cursor *c = p->filled[i];
        if (c->loaded && (oldest == NULL || c->event.time_ns < oldest->event.time_ns)) {
            oldest = c;
        }
    }
    return oldest;
}

/* Returns false when visit has ended it. Events that were loaded and not visited stay loaded. */
static bool pass_visit(pass *p, umo_profile_visit visit, void *user)
{
    for (uint32_t i = 0; i < p->s->ring.shard_count; i++) {
        p->ends[i] = next_of(p->s, i);
        if (!p->s->cursors[i].loaded) {
            cursor_advance(p, i);
        }
        if (p->s->cursors[i].loaded) {
            p->filled[p->filled_count++] = &p->s->cursors[i];
        }
    }
    for (cursor *c; (c = oldest_find(p)) != NULL;) {
        c->event.scope_name = name_find(p->r, UMO_TRACE_NAME_SCOPE, c->event.scope);
        c->event.driver = name_find(p->r, UMO_TRACE_NAME_DEVICE, c->event.device);
        p->r->drained++;
        c->loaded = false;
        if (!visit(&c->event, user)) {
            return false;
        }
        cursor_advance(p, (uint32_t)(c - p->s->cursors));
    }
    return true;
}

static void stats_write(const umo_recorder *r, bool ended, umo_recorder_stats *out)
{
    *out = (umo_recorder_stats){
        .recording = !ended && atomic_load_explicit(&r->head->on, memory_order_relaxed) != 0,
        .ended = ended,
        .start_ns = r->start_ns,
        .drained = r->drained,
        .lost = r->lost + atomic_load_explicit(&r->head->missed, memory_order_relaxed) -
                r->missed_before,
        .gaps = r->gaps,
        .names_lost =
            atomic_load_explicit(&r->head->names_lost, memory_order_relaxed) - r->names_lost_before,
    };
    if (r->current != NULL) {
        out->capacity = r->current->ring.shard_count * r->current->ring.shard_slots;
        out->memory_bytes = r->current->ring.memory_bytes;
    }
}

/* Says that somebody still looks on. */
static void presence_tell(umo_recorder *r, uint64_t now)
{
    if (!r->counted) {
        return;
    }
    lease_extend(r, now);
    if (atomic_load_explicit(&r->head->on, memory_order_relaxed) == 0 &&
        atomic_load_explicit(&r->head->refused, memory_order_relaxed) == UMO_OK) {
        r->gaps++;
        (void)atomic_fetch_add_explicit(&r->head->watchers, 1, memory_order_relaxed);
        atomic_store_explicit(&r->head->on, 1, memory_order_release);
    }
}

umo_status umo_recorder_drain(umo_recorder *r, umo_profile_visit visit, void *user,
                              umo_recorder_stats *out)
{
    if (!r->started) {
        return UMO_E_INVAL;
    }
    /* First, so that all it has recorded is seen below. */
    const bool ended = umo_os_other_ended(&r->process);
    const uint64_t now = umo_os_now_ns();
    if (!ended) {
        presence_tell(r, now);
    }
    source_follow(r, now);
    bool more = visit != NULL;
    if (more && r->previous != NULL) {
        pass p = {.r = r, .s = r->previous, .now = now, .last = ended || now > r->previous_until};
        more = pass_visit(&p, visit, user);
        r->previous = more && p.last ? NULL : r->previous;
    }
    if (more && r->current != NULL) {
        pass p = {.r = r, .s = r->current, .now = now, .last = ended};
        (void)pass_visit(&p, visit, user);
    }
    if (out != NULL) {
        stats_write(r, ended, out);
    }
    const bool refused = atomic_load_explicit(&r->head->refused, memory_order_relaxed) != UMO_OK;
    return (refused || r->broken) && !ended ? UMO_E_NOMEM : UMO_OK;
}

typedef struct list {
    umo_profile_event *events;
    size_t room;
    size_t count;
} list;

static bool list_add(const umo_profile_event *event, void *user)
{
    list *l = user;
    l->events[l->count++] = *event;
    return l->count < l->room;
}

/* What waits in the fullest shard, as a part of it, in 256ths. */
static uint64_t fullness(const umo_recorder *r)
{
    const source *s = r->current;
    uint64_t most = 0;
    for (uint32_t i = 0; s != NULL && i < s->ring.shard_count; i++) {
        const uint64_t waiting = next_of(s, i) - s->cursors[i].position;
        most = waiting > most ? waiting : most;
    }
    return s == NULL ? 0 : most >= s->ring.shard_slots ? 256 : most * 256 / s->ring.shard_slots;
}

static bool ring_changes(const umo_recorder *r)
{
    const uint32_t part = atomic_load_explicit(&r->head->ring_part, memory_order_relaxed);
    return r->previous != NULL || part != (r->current != NULL ? r->current->ring.part_number : 0);
}

/* Sleeps until there is enough to take, the process wants to hear of us, or until. */
static void worth_wait(umo_recorder *r, uint64_t until)
{
    uint64_t now = umo_os_now_ns();
    until = until < now + LEASE_NS / 8 ? until : now + LEASE_NS / 8;
    while (now < until) {
        const uint64_t before = fullness(r);
        umo_os_sleep_ns(until - now < r->pause_ns ? until - now : r->pause_ns);
        const uint64_t full = fullness(r);
        if (full > before + WORTH) {
            r->pause_ns /= 2;
        } else if (full < before + WORTH / 4) {
            r->pause_ns += r->pause_ns / 2;
        }
        r->pause_ns = r->pause_ns < PAUSE_LEAST_NS  ? PAUSE_LEAST_NS
                      : r->pause_ns > PAUSE_MOST_NS ? PAUSE_MOST_NS
                                                    : r->pause_ns;
        if (full >= WORTH || ring_changes(r) || umo_os_other_ended(&r->process)) {
            return;
        }
        now = umo_os_now_ns();
    }
}

umo_status umo_recorder_wait(umo_recorder *r, umo_profile_event *events, size_t room,
                             uint64_t wait_ns, size_t *count, umo_recorder_stats *out)
{
    list l = {.events = events, .room = room};
    umo_recorder_stats stats = {0};
    const uint64_t now = umo_os_now_ns();
    const uint64_t until = wait_ns < UINT64_MAX - now ? now + wait_ns : UINT64_MAX;
    umo_status status = umo_recorder_drain(r, room > 0 ? list_add : NULL, &l, &stats);
    while (status == UMO_OK && l.count < room && !stats.ended && umo_os_now_ns() < until) {
        worth_wait(r, until);
        status = umo_recorder_drain(r, list_add, &l, &stats);
    }
    *count = l.count;
    if (out != NULL) {
        *out = stats;
    }
    return status;
}

umo_status umo_recorder_take(umo_recorder *r, umo_profile_event *events, size_t room, size_t *count,
                             umo_recorder_stats *out)
{
    return umo_recorder_wait(r, events, room, 0, count, out);
}
