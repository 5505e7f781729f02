/*
 * The thread that lets a placer decide, and buffers follow their threads from node to node,
 * "umo-placement".
 */
#ifndef UMO_CONTEXT_WORKER_H
#define UMO_CONTEXT_WORKER_H

#include <umo/placement.h>

typedef struct umo_placement_worker umo_placement_worker;

/* placer: NULL where no buffer changes its mode by itself. followers: the scope whose buffers
 * follow their threads; NULL for none. Both stay the caller's, who destroys the worker first. */
umo_status umo_placement_worker_create(umo_placer *placer, const umo_scope *followers,
                                       umo_placement_worker **out, umo_error *error);
/* No further run begins. Does not wait. */
void umo_placement_worker_stop(umo_placement_worker *worker);
/* Waits for a run that is under way, then calls `then`, which may destroy the placer. A run may
 * have called this itself (it lets go of a buffer whose deleter does): `then` comes when it is
 * over. */
void umo_placement_worker_destroy(umo_placement_worker *worker, void (*then)(void *user),
                                  void *user);

/* There are buffers to look after: wakes it, if it sleeps without an end. */
void umo_placement_worker_kick(umo_placement_worker *worker);

#endif
