/*
 * The optimizer's object, for the files that implement optimizer.h.
 */
#ifndef UMO_CONTEXT_OPTIMIZER_STATE_H
#define UMO_CONTEXT_OPTIMIZER_STATE_H

#include <umo/numa.h>
#include <umo/optimizer.h>
#include <umo/placement.h>

#include <pthread.h>

typedef struct optimizer_pool {
    struct optimizer_pool *next;
    umo_device *device;
    umo_storage_mode mode;
    int32_t node; /* UMO_NUMA_ANY: of all of them */
    umo_pool *pool;
} optimizer_pool;

typedef struct optimizer {
    struct optimizer *next; /* of those that exist; with refs, under the life lock */
    size_t refs;
    umo_optimizer_config config;
    char driver[16];
    umo_context *context;
    umo_placer *placer;
    struct umo_placement_worker *worker; /* NULL when nothing moves by itself */
    umo_numa_topology *nodes;            /* NULL while there is one, or they do not matter */
    pthread_mutex_t lock;                /* all below; held while a pool is made */
    optimizer_pool *pools;
    umo_tally reset[UMO_DIRECTIONS]; /* the eliminated transfers at the last reset */
} optimizer;

/* The running one, with a reference, started with the defaults if this process never had one. INVAL
 * after a shutdown. */
umo_status umo_optimizer_enter(optimizer **out, umo_error *error);
void umo_optimizer_hold(optimizer *o);
void umo_optimizer_leave(optimizer *o);

/* The next of those that exist, running or not, from NULL to NULL; moves the reference on. */
optimizer *umo_optimizer_next(optimizer *o);

/* Device `number` of the configured driver. One reference. */
umo_status umo_optimizer_device(optimizer *o, uint32_t number, umo_device **out, umo_error *error);

#endif
