/*
 * Of Grand Central Dispatch: serial queues that run functions at once, and sources of memory
 * pressure. There is no pressure here until somebody sets kern.memorypressure_manual_trigger, as
 * one may on a Mac (there, as root).
 */
#include "bridges.h"

#include <pthread.h>
#include <stdlib.h>

typedef void (*function)(void *context);

/* Queues and sources begin alike: both are released by one function. */
typedef struct object {
    enum {
        OBJECT_QUEUE,
        OBJECT_SOURCE
    } kind;
    unsigned references;
} object;

typedef struct queue {
    object object;
    pthread_mutex_t runs; /* held while one of its functions runs */
} queue;

typedef struct source {
    object object;
    queue *queue;
    unsigned long mask;
    unsigned long pending; /* levels not yet handled */
    unsigned long data;    /* what the running handler is told */
    void *context;
    function handler;
    bool resumed, cancelled;
    struct source *next;
} source;

/* libdispatch ends a child of fork() that touches what its parent made; so does this. */
static bool forked;

static void child_note(void)
{
    forked = true;
}

__attribute__((constructor)) static void forks_watch(void)
{
    (void)pthread_atfork(NULL, NULL, child_note);
}

static void process_check(const char *call)
{
    if (forked) {
        macho_die("%s in a child of fork()", call);
    }
}

/* Protects references, the list, and the sources' fields but data. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static source *sources;
static char type_memory_pressure;

static void object_retain(object *o)
{
    (void)pthread_mutex_lock(&lock);
    o->references++;
    (void)pthread_mutex_unlock(&lock);
}

static void source_unlink(const source *s)
{
    source **link = &sources;
    while (*link != s) {
        link = &(*link)->next;
    }
    *link = s->next;
}

static void bridge_dispatch_release(object *o)
{
    process_check("dispatch_release");
    (void)pthread_mutex_lock(&lock);
    if (o->references == 0) {
        macho_die("dispatch_release of what is gone");
    }
    bool last = --o->references == 0;
    source *s = o->kind == OBJECT_SOURCE ? (source *)o : NULL;
    if (last && s != NULL) {
        if (!s->resumed) {
            macho_die("dispatch_release of a source that was never resumed");
        }
        source_unlink(s);
    }
    (void)pthread_mutex_unlock(&lock);
    if (last && s != NULL) {
        bridge_dispatch_release(&s->queue->object);
    }
    if (last) {
        free(o);
    }
}

static queue *bridge_dispatch_queue_create(const char *label, const void *attribute)
{
    (void)label;
    if (attribute != NULL) {
        macho_die("dispatch_queue_create: no bridge for a queue that is not serial");
    }
    queue *fresh = calloc(1, sizeof *fresh);
    if (fresh != NULL) {
        fresh->object = (object){.kind = OBJECT_QUEUE, .references = 1};
        (void)pthread_mutex_init(&fresh->runs, NULL);
    }
    return fresh;
}

static void bridge_dispatch_sync_f(queue *on, void *context, function run)
{
    process_check("dispatch_sync_f");
    (void)pthread_mutex_lock(&on->runs);
    run(context);
    (void)pthread_mutex_unlock(&on->runs);
}

static source *bridge_dispatch_source_create(const char *type, uintptr_t handle, unsigned long mask,
                                             queue *on)
{
    if (type != &type_memory_pressure || handle != 0 || (mask & ~7ul) != 0 || on == NULL) {
        macho_die("dispatch_source_create: no bridge but for memory pressure, on a queue");
    }
    source *fresh = calloc(1, sizeof *fresh);
    if (fresh != NULL) {
        *fresh =
            (source){.object = {.kind = OBJECT_SOURCE, .references = 1}, .queue = on, .mask = mask};
        object_retain(&on->object);
        (void)pthread_mutex_lock(&lock);
        fresh->next = sources;
        sources = fresh;
        (void)pthread_mutex_unlock(&lock);
    }
    return fresh;
}

/* One row of the table each; sources only. */
static source *source_of(object *o, const char *what)
{
    if (o->kind != OBJECT_SOURCE) {
        macho_die("%s: no bridge for a queue", what);
    }
    return (source *)o;
}

static void bridge_dispatch_set_context(object *o, void *context)
{
    source_of(o, "dispatch_set_context")->context = context;
}

static void bridge_dispatch_source_set_event_handler_f(source *s, function handler)
{
    s->handler = handler;
}

static void bridge_dispatch_resume(object *o)
{
    source *s = source_of(o, "dispatch_resume");
    (void)pthread_mutex_lock(&lock);
    if (s->resumed) {
        macho_die("dispatch_resume of a source that is not suspended");
    }
    s->resumed = true;
    (void)pthread_mutex_unlock(&lock);
}

static void bridge_dispatch_source_cancel(source *s)
{
    process_check("dispatch_source_cancel");
    (void)pthread_mutex_lock(&lock);
    s->cancelled = true;
    (void)pthread_mutex_unlock(&lock);
}

static unsigned long bridge_dispatch_source_get_data(source *s)
{
    return s->data;
}

/* A thread for one event: holds a reference of the source. */
static void *event_run(void *user)
{
    source *s = user;
    (void)pthread_mutex_lock(&s->queue->runs);
    (void)pthread_mutex_lock(&lock);
    s->data = s->cancelled ? 0 : s->pending;
    s->pending = 0;
    (void)pthread_mutex_unlock(&lock);
    if (s->data != 0 && s->handler != NULL) {
        s->handler(s->context);
    }
    (void)pthread_mutex_unlock(&s->queue->runs);
    bridge_dispatch_release(&s->object);
    return NULL;
}

void macho_pressure(unsigned long level)
{
    (void)pthread_mutex_lock(&lock);
    for (source *s = sources; s != NULL; s = s->next) {
        if (!s->resumed || s->cancelled || (s->mask & level) == 0) {
            continue;
        }
        pthread_t thread;
        s->pending |= level;
        s->object.references++;
        if (pthread_create(&thread, NULL, event_run, s) != 0) {
            macho_die("no thread for an event");
        }
        (void)pthread_detach(thread);
    }
    (void)pthread_mutex_unlock(&lock);
}

const macho_bridge macho_bridges_dispatch[] = {
    BRIDGE(dispatch_queue_create),    BRIDGE(dispatch_sync_f),
    BRIDGE(dispatch_release),         BRIDGE(dispatch_source_create),
    BRIDGE(dispatch_set_context),     BRIDGE(dispatch_source_set_event_handler_f),
    BRIDGE(dispatch_resume),          BRIDGE(dispatch_source_cancel),
    BRIDGE(dispatch_source_get_data), BRIDGES_END,
};

const macho_bridge_data macho_bridges_dispatch_data[] = {
    {"__dispatch_source_type_memorypressure", &type_memory_pressure},
    {NULL, NULL},
};
