/*
 * Threads. A mutex, a lock for reading and a once lie inside Darwin's object, behind its signature:
 * zeros are what both systems start from. A condition does not fit there and is made when it is
 * first used.
 */
#include "bridges.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Signatures of statically initialised objects, and those that the init functions write. */
#define MUTEX_STATIC 0x32AAABA7
#define MUTEX_MADE 0x4D555458
#define COND_STATIC 0x3CB0B1BB
#define COND_MADE 0x434F4E44
#define RWLOCK_STATIC 0x2DA8B3B4
#define RWLOCK_MADE 0x52574C4B
#define ONCE_STATIC 0x30B1BCBA

typedef struct darwin_mutex {
    long signature;
    pthread_mutex_t ours;
    char rest[56 - sizeof(pthread_mutex_t)];
} darwin_mutex;
_Static_assert(sizeof(darwin_mutex) == 64, "Darwin's pthread_mutex_t");

typedef struct darwin_rwlock {
    long signature;
    pthread_rwlock_t ours;
    char rest[192 - sizeof(pthread_rwlock_t)];
} darwin_rwlock;
_Static_assert(sizeof(darwin_rwlock) == 200, "Darwin's pthread_rwlock_t");

typedef struct darwin_cond {
    long signature;
    _Atomic(pthread_cond_t *) ours;
    char rest[32];
} darwin_cond;
_Static_assert(sizeof(darwin_cond) == 48, "Darwin's pthread_cond_t");

typedef struct darwin_once {
    long signature;
    pthread_once_t ours;
} darwin_once;
_Static_assert(sizeof(darwin_once) == 16, "Darwin's pthread_once_t");

/* Darwin's attributes are objects of 16 or 64 bytes; what was asked lies behind the signature. */
typedef struct darwin_attr {
    long signature;
    long value;
} darwin_attr;

static bool mutex_valid(const darwin_mutex *mutex)
{
    return mutex->signature == MUTEX_STATIC || mutex->signature == MUTEX_MADE;
}

static int bridge_pthread_mutex_init(darwin_mutex *mutex, const darwin_attr *attr)
{
    pthread_mutexattr_t ours;
    (void)pthread_mutexattr_init(&ours);
    /* PTHREAD_MUTEX_NORMAL 0, ERRORCHECK 1, RECURSIVE 2. */
    static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ERRORCHECK,
                                PTHREAD_MUTEX_RECURSIVE};
    (void)pthread_mutexattr_settype(&ours, types[attr == NULL ? 0 : attr->value]);
    mutex->signature = MUTEX_MADE;
    return macho_errno(pthread_mutex_init(&mutex->ours, &ours));
}

static int bridge_pthread_mutex_destroy(darwin_mutex *mutex)
{
    if (!mutex_valid(mutex)) {
        return EINVAL;
    }
    mutex->signature = 0;
    return macho_errno(pthread_mutex_destroy(&mutex->ours));
}

static int bridge_pthread_mutex_lock(darwin_mutex *mutex)
{
    return mutex_valid(mutex) ? macho_errno(pthread_mutex_lock(&mutex->ours)) : EINVAL;
}

static int bridge_pthread_mutex_trylock(darwin_mutex *mutex)
{
    return mutex_valid(mutex) ? macho_errno(pthread_mutex_trylock(&mutex->ours)) : EINVAL;
}

static int bridge_pthread_mutex_unlock(darwin_mutex *mutex)
{
    return mutex_valid(mutex) ? macho_errno(pthread_mutex_unlock(&mutex->ours)) : EINVAL;
}

static int bridge_pthread_mutexattr_init(darwin_attr *attr)
{
    *attr = (darwin_attr){.signature = 0x4D545841};
    return 0;
}

static int bridge_pthread_mutexattr_settype(darwin_attr *attr, int type)
{
    if (type < 0 || type > 2) {
        return EINVAL;
    }
    attr->value = type;
    return 0;
}

static int bridge_pthread_attr_destroy(darwin_attr *attr)
{
    attr->signature = 0;
    return 0;
}

static pthread_cond_t *cond_of(darwin_cond *cond)
{
    if (cond->signature != COND_STATIC && cond->signature != COND_MADE) {
        return NULL;
    }
    pthread_cond_t *ours = atomic_load(&cond->ours);
    if (ours == NULL) {
        pthread_cond_t *fresh = malloc(sizeof *fresh);
        if (fresh == NULL || pthread_cond_init(fresh, NULL) != 0) {
            macho_die("no memory for a condition");
        }
        if (atomic_compare_exchange_strong(&cond->ours, &ours, fresh)) {
            return fresh;
        }
        (void)pthread_cond_destroy(fresh);
        free(fresh);
    }
    return ours;
}

static int bridge_pthread_cond_init(darwin_cond *cond, const darwin_attr *attr)
{
    (void)attr; /* Darwin has no attribute but process-shared, which nobody here asks for */
    cond->signature = COND_MADE;
    atomic_store(&cond->ours, NULL);
    return 0;
}

static int bridge_pthread_cond_destroy(darwin_cond *cond)
{
    pthread_cond_t *ours = cond_of(cond);
    if (ours == NULL) {
        return EINVAL;
    }
    cond->signature = 0;
    (void)pthread_cond_destroy(ours);
    free(ours);
    return 0;
}

static int bridge_pthread_cond_wait(darwin_cond *cond, darwin_mutex *mutex)
{
    pthread_cond_t *ours = cond_of(cond);
    return ours == NULL || !mutex_valid(mutex) ? EINVAL
                                               : macho_errno(pthread_cond_wait(ours, &mutex->ours));
}

static int bridge_pthread_cond_timedwait(darwin_cond *cond, darwin_mutex *mutex,
                                         const struct timespec *until)
{
    pthread_cond_t *ours = cond_of(cond);
    return ours == NULL || !mutex_valid(mutex)
               ? EINVAL
               : macho_errno(pthread_cond_timedwait(ours, &mutex->ours, until));
}

static int bridge_pthread_cond_timedwait_relative_np(darwin_cond *cond, darwin_mutex *mutex,
                                                     const struct timespec *length)
{
    struct timespec until;
    pthread_cond_t *ours = cond_of(cond);
    if (ours == NULL || !mutex_valid(mutex)) {
        return EINVAL;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += length->tv_sec;
    until.tv_nsec += length->tv_nsec;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return macho_errno(pthread_cond_clockwait(ours, &mutex->ours, CLOCK_MONOTONIC, &until));
}

static int bridge_pthread_cond_signal(darwin_cond *cond)
{
    pthread_cond_t *ours = cond_of(cond);
    return ours == NULL ? EINVAL : macho_errno(pthread_cond_signal(ours));
}

static int bridge_pthread_cond_broadcast(darwin_cond *cond)
{
    pthread_cond_t *ours = cond_of(cond);
    return ours == NULL ? EINVAL : macho_errno(pthread_cond_broadcast(ours));
}

static bool rwlock_valid(const darwin_rwlock *lock)
{
    return lock->signature == RWLOCK_STATIC || lock->signature == RWLOCK_MADE;
}

static int bridge_pthread_rwlock_init(darwin_rwlock *lock, const darwin_attr *attr)
{
    (void)attr;
    lock->signature = RWLOCK_MADE;
    return macho_errno(pthread_rwlock_init(&lock->ours, NULL));
}

static int bridge_pthread_rwlock_destroy(darwin_rwlock *lock)
{
    if (!rwlock_valid(lock)) {
        return EINVAL;
    }
    lock->signature = 0;
    return macho_errno(pthread_rwlock_destroy(&lock->ours));
}

static int bridge_pthread_rwlock_rdlock(darwin_rwlock *lock)
{
    return rwlock_valid(lock) ? macho_errno(pthread_rwlock_rdlock(&lock->ours)) : EINVAL;
}

static int bridge_pthread_rwlock_wrlock(darwin_rwlock *lock)
{
    return rwlock_valid(lock) ? macho_errno(pthread_rwlock_wrlock(&lock->ours)) : EINVAL;
}

static int bridge_pthread_rwlock_unlock(darwin_rwlock *lock)
{
    return rwlock_valid(lock) ? macho_errno(pthread_rwlock_unlock(&lock->ours)) : EINVAL;
}

static int bridge_pthread_once(darwin_once *once, void (*run)(void))
{
    return once->signature == ONCE_STATIC ? macho_errno(pthread_once(&once->ours, run)) : EINVAL;
}

static int bridge_pthread_create(pthread_t *out, const darwin_attr *attr, void *(*run)(void *),
                                 void *user)
{
    if (attr != NULL) {
        macho_die("pthread_create: no bridge for attributes");
    }
    return macho_errno(pthread_create(out, NULL, run, user));
}

static int bridge_pthread_join(pthread_t thread, void **out)
{
    return macho_errno(pthread_join(thread, out));
}

static int bridge_pthread_detach(pthread_t thread)
{
    return macho_errno(pthread_detach(thread));
}

static int bridge_pthread_key_create(unsigned long *out, void (*destroy)(void *))
{
    pthread_key_t key;
    int rc = pthread_key_create(&key, destroy);
    if (rc == 0) {
        *out = key;
    }
    return macho_errno(rc);
}

static int bridge_pthread_key_delete(unsigned long key)
{
    return macho_errno(pthread_key_delete((pthread_key_t)key));
}

static void *bridge_pthread_getspecific(unsigned long key)
{
    return pthread_getspecific((pthread_key_t)key);
}

static int bridge_pthread_setspecific(unsigned long key, const void *value)
{
    return macho_errno(pthread_setspecific((pthread_key_t)key, value));
}

/* Darwin names the calling thread only. */
static int bridge_pthread_setname_np(const char *name)
{
    return macho_errno(pthread_setname_np(pthread_self(), name));
}

/* os_unfair_lock: 4 bytes; 0 free, 1 held, 2 held and waited for. */
static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    (void)syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static int bridge_os_unfair_lock_trylock(_Atomic uint32_t *lock)
{
    uint32_t free_value = 0;
    return atomic_compare_exchange_strong(lock, &free_value, 1) ? 1 : 0;
}

static void bridge_os_unfair_lock_lock(_Atomic uint32_t *lock)
{
    if (bridge_os_unfair_lock_trylock(lock) != 0) {
        return;
    }
    while (atomic_exchange(lock, 2) != 0) {
        futex(lock, FUTEX_WAIT, 2);
    }
}

static void bridge_os_unfair_lock_unlock(_Atomic uint32_t *lock)
{
    uint32_t was = atomic_exchange(lock, 0);
    if (was == 0) {
        macho_die("os_unfair_lock_unlock of a lock that nobody holds");
    }
    if (was == 2) {
        futex(lock, FUTEX_WAKE, 1);
    }
}

const macho_bridge macho_bridges_thread[] = {
    BRIDGE(pthread_mutex_init),
    BRIDGE(pthread_mutex_destroy),
    BRIDGE(pthread_mutex_lock),
    BRIDGE(pthread_mutex_trylock),
    BRIDGE(pthread_mutex_unlock),
    BRIDGE(pthread_mutexattr_init),
    BRIDGE(pthread_mutexattr_settype),
    BRIDGE_AS("_pthread_mutexattr_destroy", bridge_pthread_attr_destroy),
    BRIDGE(pthread_cond_init),
    BRIDGE(pthread_cond_destroy),
    BRIDGE(pthread_cond_wait),
    BRIDGE(pthread_cond_timedwait),
    BRIDGE(pthread_cond_timedwait_relative_np),
    BRIDGE(pthread_cond_signal),
    BRIDGE(pthread_cond_broadcast),
    BRIDGE(pthread_rwlock_init),
    BRIDGE(pthread_rwlock_destroy),
    BRIDGE(pthread_rwlock_rdlock),
    BRIDGE(pthread_rwlock_wrlock),
    BRIDGE(pthread_rwlock_unlock),
    BRIDGE(pthread_once),
    BRIDGE(pthread_create),
    BRIDGE(pthread_join),
    BRIDGE(pthread_detach),
    BRIDGE(pthread_key_create),
    BRIDGE(pthread_key_delete),
    BRIDGE(pthread_getspecific),
    BRIDGE(pthread_setspecific),
    BRIDGE(pthread_setname_np),
    BRIDGE(os_unfair_lock_lock),
    BRIDGE(os_unfair_lock_trylock),
    BRIDGE(os_unfair_lock_unlock),
    DIRECT(pthread_self),
    DIRECT(pthread_equal),
    DIRECT(pthread_atfork),
    DIRECT(sched_yield),
    BRIDGES_END,
};
