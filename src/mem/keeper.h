/*
 * One thread of the process that looks after things now and then: "umo-keeper". It runs while
 * something is due and sleeps without a deadline otherwise; it is started by the first wake and
 * gone with the last task.
 */
#ifndef UMO_MEM_KEEPER_H
#define UMO_MEM_KEEPER_H

#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct umo_keeper_task {
    umo_list_link link;
    /* Called on the keeper's thread under no lock. Returns when next: UINT64_MAX is not before it
     * is woken. */
    uint64_t (*tick)(struct umo_keeper_task *task, uint64_t now_ns);
    uint64_t due_ns;
} umo_keeper_task;

/* tick is filled. It is not due until it is woken. */
void umo_keeper_add(umo_keeper_task *task);

/* No tick of it runs any more when this returns; not from a tick. The last one's ends the thread.
 */
void umo_keeper_remove(umo_keeper_task *task);

/* It is due at due_ns, if not sooner. May be called under a lock that ticks take. Where the system
 * has no thread for it, nothing is looked after, and the next wake tries again. */
void umo_keeper_wake(umo_keeper_task *task, uint64_t due_ns);

/* Its part of a fork: called by whoever holds locks during one that are held while a task is woken,
 * before it registers itself. */
void umo_keeper_fork_register(void);

#endif
