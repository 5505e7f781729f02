/*
 * The life of the process's optimizer.
 *
 * A running optimizer is an object with references: one for running, one for each call inside, one
 * for each block of its pools that is out. So a shutdown never waits for a caller, a block may come
 * back after it, and a new start is a new object. The first call of a process that never started
 * one starts it with the defaults; a start with a configuration then takes its place.
 */
#include "context/optimizer_state.h"

#include "base/size.h"
#include "context/worker.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef enum life {
    LIFE_NEVER = 0, /* the first call starts it */
    LIFE_IMPLICIT,  /* a call has, with the defaults */
    LIFE_EXPLICIT,
    LIFE_OVER
} life;

static pthread_mutex_t life_lock = PTHREAD_MUTEX_INITIALIZER; /* the four below */
static life life_now;
static size_t starts; /* without their shutdown */
static optimizer *running;
static optimizer *existing;

void umo_optimizer_config_init(umo_optimizer_config *config)
{
    *config = (umo_optimizer_config){
        .auto_placement = true,
        .placement_change_threshold = 1000,
        .prefetching = true,
        .prefetch_bytes = (size_t)4 << 20,
        .pressure_adaptation = true,
        .pressure_threshold = 0.8,
        .numa = true,
        .cache_line_bytes = 128,
        .zero_copy = true,
        .classes = {{(size_t)64 << 10, 128}, {(size_t)1 << 20, 32}, {(size_t)16 << 20, 8}},
    };
}

static umo_status config_check(const umo_optimizer_config *config, umo_error *error)
{
    if (!(config->pressure_threshold >= 0.1 && config->pressure_threshold <= 0.98)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the pressure threshold lies in 0.1 to 0.98");
    }
    if (config->placement_change_threshold == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "placement is decided after 1 use or more");
    }
    size_t line = config->cache_line_bytes;
    if (line == 0 || (line & (line - 1)) != 0 || line > 4096) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a cache line of %zu bytes: a power of two up to 4096 is meant", line);
    }
    size_t sum = 0;
    for (size_t i = 0; i < UMO_OPTIMIZER_CLASSES; i++) {
        size_t bytes;
        if (__builtin_mul_overflow(config->classes[i].size_bytes, config->classes[i].count,
                                   &bytes) ||
            __builtin_add_overflow(sum, bytes, &sum)) {
            return umo_error_set(error, UMO_E_INVAL, 0, "the pools would keep more than there is");
        }
    }
    if (memchr(config->driver, '\0', sizeof config->driver) == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a driver's name has at most 15 letters");
    }
    return UMO_OK;
}

/* The field in which two configurations differ; NULL when they agree. */
static const char *config_differ(const umo_optimizer_config *a, const umo_optimizer_config *b)
{
    const struct {
        const char *name;
        bool equal;
    } fields[] = {
        {"auto_placement", a->auto_placement == b->auto_placement},
        {"placement_change_threshold",
         a->placement_change_threshold == b->placement_change_threshold},
        {"prefetching", a->prefetching == b->prefetching},
        {"prefetch_bytes", a->prefetch_bytes == b->prefetch_bytes},
        {"pressure_adaptation", a->pressure_adaptation == b->pressure_adaptation},
        {"pressure_threshold", !(a->pressure_threshold < b->pressure_threshold) &&
                                   !(a->pressure_threshold > b->pressure_threshold)},
        {"numa", a->numa == b->numa},
        {"cache_line_bytes", a->cache_line_bytes == b->cache_line_bytes},
        {"zero_copy", a->zero_copy == b->zero_copy},
        {"classes", memcmp(a->classes, b->classes, sizeof a->classes) == 0},
        {"driver", strcmp(a->driver, b->driver) == 0},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (!fields[i].equal) {
            return fields[i].name;
        }
    }
    return NULL;
}

static void optimizer_free(void *user)
{
    optimizer *o = user;
    umo_placer_destroy(o->placer);
    while (o->pools != NULL) {
        optimizer_pool *pool = o->pools;
        o->pools = pool->next;
        umo_pool_destroy(pool->pool);
        umo_device_release(pool->device);
        free(pool);
    }
    umo_context_default_release(o->context);
    free(o->nodes);
    (void)pthread_mutex_destroy(&o->lock);
    free(o);
}

static void optimizer_destroy(optimizer *o)
{
    if (o != NULL && o->worker != NULL) {
        umo_placement_worker_destroy(o->worker, optimizer_free, o);
    } else if (o != NULL) {
        optimizer_free(o);
    }
}

/* The driver with a device: a GPU's own before what runs on the CPU. */
static const char *driver_best(void)
{
    static const char *const names[] = {"metal", "opencl"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint32_t count = 0;
        if (umo_driver_count(names[i], &count, NULL) == UMO_OK && count > 0) {
            return names[i];
        }
    }
    return "host";
}

/* Where there are several nodes. What cannot be read does not matter: memory is memory. */
static umo_status nodes_read(optimizer *o, umo_error *error)
{
    if (!o->config.numa || umo_numa_memory_nodes() < 2) {
        return UMO_OK;
    }
    o->nodes = calloc(1, sizeof *o->nodes);
    if (o->nodes == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the nodes");
    }
    if (umo_numa_topology_read(o->nodes, NULL) != UMO_OK) {
        free(o->nodes);
        o->nodes = NULL;
    }
    return UMO_OK;
}

/* Who asked for no configuration joins the pressure as it is watched. */
static umo_status optimizer_create(const umo_optimizer_config *config, bool asked, optimizer **out,
                                   umo_error *error)
{
    optimizer *o = calloc(1, sizeof *o);
    if (o == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the optimizer");
    }
    (void)pthread_mutex_init(&o->lock, NULL);
    o->refs = 1;
    o->config = *config;
    strcpy(o->driver, config->driver[0] != '\0' ? config->driver : driver_best());
    uint32_t count = 0;
    umo_status status = umo_driver_count(o->driver, &count, error);
    if (status == UMO_OK && count == 0) {
        status = umo_error_set(error, UMO_E_NOT_FOUND, 0, "driver '%s' has no device", o->driver);
    }
    if (status == UMO_OK) {
        status = umo_context_default_acquire(NULL, &o->context, error);
    }
    if (status == UMO_OK && config->pressure_adaptation) {
        const umo_pressure_options options = {.threshold = asked ? config->pressure_threshold : 0};
        status = umo_context_pressure_start(o->context, &options, error);
    }
    if (status == UMO_OK) {
        const umo_placer_options options = {.scope = umo_context_scope(o->context),
                                            .change_threshold = config->placement_change_threshold};
        status = umo_placer_create(&options, &o->placer, error);
    }
    if (status == UMO_OK) {
        status = nodes_read(o, error);
    }
    if (status == UMO_OK && (config->auto_placement || o->nodes != NULL)) {
        umo_placer *placer = config->auto_placement ? o->placer : NULL;
        const umo_scope *followers = o->nodes != NULL ? umo_context_scope(o->context) : NULL;
        status = umo_placement_worker_create(placer, followers, &o->worker, error);
    }
    if (status != UMO_OK) {
        optimizer_destroy(o);
        return status;
    }
    *out = o;
    return UMO_OK;
}

/* Drops references and returns the object if that was the last one, to be destroyed without the
 * lock. The life lock is held. */
static optimizer *optimizer_drop(optimizer *o)
{
    if (o == NULL || --o->refs > 0) {
        return NULL;
    }
    for (optimizer **at = &existing; *at != NULL; at = &(*at)->next) {
        if (*at == o) {
            *at = o->next;
            break;
        }
    }
    return o;
}

/* Makes a new object the running one. The life lock is held. */
static void optimizer_install(optimizer *o, life how)
{
    assert(o != NULL);
    o->next = existing;
    existing = o;
    running = o;
    life_now = how;
}

/* Nothing runs any more; returns what has to be destroyed. Who holds the object goes on with it,
 * but it moves nothing. The life lock is held. */
static optimizer *optimizer_end(life how)
{
    optimizer *o = running;
    if (o->worker != NULL) {
        umo_placement_worker_stop(o->worker);
    }
    running = NULL;
    life_now = how;
    return optimizer_drop(o);
}

/* Takes the life lock. One that a call has started gives way to a configuration that differs:
 * before, so that what it had started in the context goes with it. Returns the field in which the
 * one that runs differs. */
static const char *life_lock_for(const umo_optimizer_config *config)
{
    for (;;) {
        (void)pthread_mutex_lock(&life_lock);
        const char *field =
            running != NULL && config != NULL ? config_differ(&running->config, config) : NULL;
        if (field == NULL || life_now != LIFE_IMPLICIT) {
            return field;
        }
        optimizer *old = optimizer_end(LIFE_NEVER);
        (void)pthread_mutex_unlock(&life_lock);
        optimizer_destroy(old);
    }
}

umo_status umo_optimizer_initialize(const umo_optimizer_config *config, umo_error *error)
{
    umo_optimizer_config wanted;
    umo_optimizer_config_init(&wanted);
    umo_status status = UMO_OK;
    if (config != NULL) {
        wanted = *config;
        status = config_check(config, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    const char *field = life_lock_for(config);
    if (running == NULL) {
        optimizer *o = NULL;
        status = optimizer_create(&wanted, config != NULL, &o, error);
        if (status == UMO_OK) {
            optimizer_install(o, LIFE_EXPLICIT);
        }
    } else if (field != NULL) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "the optimizer runs with another configuration: %s differs", field);
    } else {
        life_now = LIFE_EXPLICIT;
    }
    if (status == UMO_OK) {
        starts++;
    }
    (void)pthread_mutex_unlock(&life_lock);
    return status;
}

umo_status umo_optimizer_shutdown(umo_error *error)
{
    umo_status status = UMO_OK;
    optimizer *old = NULL;
    (void)pthread_mutex_lock(&life_lock);
    if (running == NULL) {
        status = umo_error_set(error, UMO_E_INVAL, 0, "the optimizer does not run");
    } else if (life_now == LIFE_IMPLICIT || --starts == 0) {
        old = optimizer_end(LIFE_OVER);
    }
    (void)pthread_mutex_unlock(&life_lock);
    optimizer_destroy(old);
    return status;
}

bool umo_optimizer_running(void)
{
    (void)pthread_mutex_lock(&life_lock);
    bool runs = running != NULL;
    (void)pthread_mutex_unlock(&life_lock);
    return runs;
}

umo_status umo_optimizer_enter(optimizer **out, umo_error *error)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&life_lock);
    if (life_now == LIFE_NEVER) {
        umo_optimizer_config config;
        umo_optimizer_config_init(&config);
        optimizer *o = NULL;
        status = optimizer_create(&config, false, &o, error);
        if (status == UMO_OK) {
            optimizer_install(o, LIFE_IMPLICIT);
        }
    } else if (running == NULL) {
        status =
            umo_error_set(error, UMO_E_INVAL, 0, "the optimizer was shut down and does not run");
    }
    if (status == UMO_OK) {
        running->refs++;
        *out = running;
    }
    (void)pthread_mutex_unlock(&life_lock);
    return status;
}

void umo_optimizer_hold(optimizer *o)
{
    (void)pthread_mutex_lock(&life_lock);
    o->refs++;
    (void)pthread_mutex_unlock(&life_lock);
}

void umo_optimizer_leave(optimizer *o)
{
    (void)pthread_mutex_lock(&life_lock);
    optimizer *old = optimizer_drop(o);
    (void)pthread_mutex_unlock(&life_lock);
    optimizer_destroy(old);
}

optimizer *umo_optimizer_next(optimizer *o)
{
    (void)pthread_mutex_lock(&life_lock);
    optimizer *next = o == NULL ? existing : o->next;
    if (next != NULL) {
        next->refs++;
    }
    optimizer *old = optimizer_drop(o);
    (void)pthread_mutex_unlock(&life_lock);
    optimizer_destroy(old);
    return next;
}

umo_status umo_optimizer_device(optimizer *o, uint32_t number, umo_device **out, umo_error *error)
{
    return umo_context_device(o->context, o->driver, number, out, error);
}
