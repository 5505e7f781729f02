/*
 * See cache.h. A thread finds its cache of a pool by the pool's slot, in a table of its own; the id
 * beside it tells an old pool's entry from the present one's, so that a pool that goes need not
 * look for the threads that used it.
 */
#include "mem/cache.h"

#include <sched.h>
#include <stdlib.h>

static umo_cache_thread nobodys; /* a thread's, before its first cache; never written */
_Thread_local umo_cache_thread *umo_cache_mine = &nobodys;

static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static umo_cache_slot *slots[UMO_CACHE_SLOTS];
static uint64_t last_id;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

static void thread_end(void *user)
{
    umo_cache_thread *thread = user;
    umo_cache_mine = &nobodys;
    (void)pthread_mutex_lock(&slots_lock);
    for (unsigned i = 0; i < thread->used; i++) {
        const umo_cache_entry *entry = &thread->entries[i];
        if (slots[i] != NULL && slots[i]->id == entry->id) {
            slots[i]->retire(slots[i]->user, entry->cache);
        }
    }
    (void)pthread_mutex_unlock(&slots_lock);
    free(thread);
}

static void key_make(void)
{
    key_made = pthread_key_create(&key, thread_end) == 0;
}

void umo_cache_slot_open(umo_cache_slot *slot)
{
    (void)pthread_once(&key_once, key_make);
    umo_os_barrier_prepare();
    (void)pthread_mutex_lock(&slots_lock);
    slot->id = ++last_id;
    slot->index = 0;
    while (slot->index < UMO_CACHE_SLOTS && slots[slot->index] != NULL) {
        slot->index++;
    }
    if (!key_made) {
        slot->index = UMO_CACHE_SLOTS; /* a thread's end could not give its cache back */
    } else if (slot->index < UMO_CACHE_SLOTS) {
        slots[slot->index] = slot;
    }
    (void)pthread_mutex_unlock(&slots_lock);
}

void umo_cache_slot_close(umo_cache_slot *slot)
{
    (void)pthread_mutex_lock(&slots_lock);
    if (slot->index < UMO_CACHE_SLOTS) {
        slots[slot->index] = NULL;
    }
    (void)pthread_mutex_unlock(&slots_lock);
}

umo_cache *umo_cache_create(const umo_cache_slot *slot)
{
    if (slot->index >= UMO_CACHE_SLOTS) {
        return NULL;
    }
    umo_cache_thread *mine = umo_cache_mine;
    if (mine == &nobodys) {
        mine = calloc(1, sizeof *mine);
        if (mine == NULL || pthread_setspecific(key, mine) != 0) {
            free(mine);
            return NULL;
        }
        umo_cache_mine = mine;
    }
    char *memory = calloc(1, sizeof(umo_cache) + _Alignof(umo_cache));
    if (memory == NULL) {
        return NULL;
    }
    size_t beyond = (size_t)(-(uintptr_t)memory & (_Alignof(umo_cache) - 1));
    umo_cache *cache = (umo_cache *)(void *)(memory + beyond);
    cache->memory = memory;
    for (uint32_t i = 0; i < UMO_CACHE_SMALL; i++) {
        cache->small[i].granules = i;
    }
    mine->entries[slot->index] = (umo_cache_entry){slot->id, cache};
    if (mine->used <= slot->index) {
        mine->used = slot->index + 1;
    }
    return cache;
}

void umo_cache_destroy(umo_cache *cache)
{
    free(cache->memory);
}

void umo_caches_block(umo_cache *first, const umo_cache *self)
{
    bool any = false;
    for (umo_cache *cache = first; cache != NULL; cache = cache->next) {
        if (cache != self) {
            atomic_store_explicit(&cache->blocked, 1, memory_order_relaxed);
            any = true;
        }
    }
    if (!any) {
        return;
    }
    umo_os_barrier_all();
    for (umo_cache *cache = first; cache != NULL; cache = cache->next) {
        while (cache != self && atomic_load_explicit(&cache->busy, memory_order_acquire) != 0) {
            (void)sched_yield(); /* a few dozen instructions, unless it was interrupted */
        }
    }
}

void umo_caches_unblock(umo_cache *first, const umo_cache *self)
{
    for (umo_cache *cache = first; cache != NULL; cache = cache->next) {
        if (cache != self) {
            atomic_store_explicit(&cache->blocked, 0, memory_order_release);
        }
    }
}

void umo_cache_fork_lock(void)
{
    (void)pthread_mutex_lock(&slots_lock);
}

void umo_cache_fork_unlock(void)
{
    (void)pthread_mutex_unlock(&slots_lock);
}
