/*
 * Views of shared memory that outlive a truncation.
 *
 * Whoever holds a client's file can cut it short at any moment; a touch of what is gone is a SIGBUS
 * in whatever thread it happens to be, mostly an engine's, from which no long jump leads home. So
 * the handler repairs and returns: the rest of the view, from the faulting page on, becomes pages
 * of zeros, and the view is marked, so that whoever used it can tell afterwards. All of the rest at
 * once, or a large tensor would fault page by page.
 *
 * What the handler needs lies in a fixed table, which is read without a lock and costs nothing
 * where it was never touched. A reader takes hold of an entry by counting itself in and looking
 * again; a view is taken out of the table first, waits until nobody holds its entry, and is
 * unmapped then. So nothing is ever mapped over an address that was given back.
 *
 * Everything else that comes as SIGBUS goes where it would have gone without us. Whoever takes the
 * signal over after us and does not hand on what is not his would end all that, so each new view
 * looks, and takes it back; with another function each time, for if he does hand on, he calls the
 * one that he found, and that must not call him again.
 */
#include "os/fault.h"

#include "os/os.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GUARDS_MAX 32768
#define WRITABLE ((uintptr_t)1)
/* The same page may fault in many threads before it is repaired; what goes on faulting afterwards
 * is something else. */
#define REPEATS_MAX 65536

struct umo_os_guard {
    _Atomic uintptr_t start; /* 0 for a free entry; the lowest bit: may be written to */
    _Atomic size_t size_bytes;
    _Atomic size_t *whole_bytes; /* the owner's: from start on that were never lost */
    _Atomic uint32_t handlers;   /* at work in this view */
    _Atomic uint32_t repeats;
    uint32_t next_free; /* 1 + index; under the lock */
};

static umo_os_guard guards[GUARDS_MAX];
static _Atomic uint32_t guards_high; /* entries from here on were never used */

/* Threads that change the table, and the handler's being there. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t free_first;
static bool prepared;
static bool switched_off;

#define LEVELS 4

/* Who had the signal before each of our functions took it. Written before that, never changed. */
static struct sigaction before[LEVELS];
static _Atomic bool before_is_spent[LEVELS]; /* SA_RESETHAND */
static size_t levels;
static _Atomic int owner; /* the process: a child of fork has none of our views */

/* ---- what runs in the handler: system calls and atomics alone ---- */

/* Lets go of an entry that guard_hold() found. */
static void guard_drop(umo_os_guard *guard)
{
    (void)atomic_fetch_sub(&guard->handlers, 1);
}

/* The entry whose view holds an address, which cannot go away until it is dropped. */
static umo_os_guard *guard_hold(uintptr_t address)
{
    uint32_t high = atomic_load(&guards_high);
    for (uint32_t i = 0; i < high; i++) {
        umo_os_guard *guard = &guards[i];
        uintptr_t start = atomic_load_explicit(&guard->start, memory_order_relaxed) & ~WRITABLE;
        if (start == 0 ||
            address - start >= atomic_load_explicit(&guard->size_bytes, memory_order_relaxed)) {
            continue;
        }
        (void)atomic_fetch_add(&guard->handlers, 1);
        start = atomic_load(&guard->start) & ~WRITABLE;
        if (start != 0 && address - start < atomic_load(&guard->size_bytes)) {
            return guard;
        }
        guard_drop(guard);
    }
    return NULL;
}

static bool overlay(const umo_os_guard *guard, size_t from_bytes)
{
    uintptr_t start = atomic_load(&guard->start);
    return umo_os_fault_overlay((char *)(start & ~WRITABLE) + from_bytes,
                                atomic_load(&guard->size_bytes) - from_bytes,
                                (start & WRITABLE) != 0);
}

/* First the mark, then the zeros: who has seen one of them sees the mark. */
static bool lose_from(umo_os_guard *guard, size_t from_bytes)
{
    size_t whole_bytes = atomic_load(guard->whole_bytes);
    while (from_bytes < whole_bytes &&
           !atomic_compare_exchange_weak(guard->whole_bytes, &whole_bytes, from_bytes)) {
    }
    return overlay(guard, from_bytes);
}

static bool fault_repair(const siginfo_t *info)
{
    if (!umo_os_fault_lost_page(info) || getpid() != atomic_load(&owner)) {
        return false;
    }
    uintptr_t address = (uintptr_t)info->si_addr;
    umo_os_guard *guard = guard_hold(address);
    if (guard == NULL) {
        return false;
    }
    uintptr_t start = atomic_load(&guard->start) & ~WRITABLE;
    size_t from_bytes = (address - start) & ~(umo_os_page_bytes() - 1);
    bool repaired = false;
    if (from_bytes < atomic_load(guard->whole_bytes) ||
        atomic_fetch_add(&guard->repeats, 1) < REPEATS_MAX) {
        /* Where a mapping cannot be parted (a huge page), all of it goes. */
        repaired = lose_from(guard, from_bytes) || lose_from(guard, 0);
    }
    guard_drop(guard);
    return repaired;
}

/* As if we were not there. A fault happens again when its handler returns, which gives the system's
 * own answer the right address and registers; what somebody sent must be sent again. */
static void pass_on(size_t level, int number, siginfo_t *info, void *context)
{
    const struct sigaction *next = &before[level];
    bool spent = false;
    if (((unsigned)next->sa_flags & (unsigned)SA_RESETHAND) != 0) {
        spent = atomic_exchange(&before_is_spent[level], true);
    }
    bool plain = (next->sa_flags & SA_SIGINFO) == 0;
    bool ignored = plain && next->sa_handler == SIG_IGN;
    bool sent = umo_os_fault_sent(info);
    if (ignored && sent) {
        return;
    }
    if (spent || ignored || (plain && next->sa_handler == SIG_DFL)) {
        struct sigaction system = {.sa_handler = SIG_DFL};
        (void)sigemptyset(&system.sa_mask);
        (void)sigaction(SIGBUS, &system, NULL);
        if (sent) {
            umo_os_fault_send(number, info);
        }
    } else if (plain) {
        next->sa_handler(number);
    } else {
        next->sa_sigaction(number, info, context);
    }
}

static void handle(size_t level, int number, siginfo_t *info, void *context)
{
    int code = errno;
    bool repaired = info != NULL && fault_repair(info);
    errno = code;
    if (!repaired) {
        pass_on(level, number, info, context);
    }
}

static void handle_0(int number, siginfo_t *info, void *context)
{
    handle(0, number, info, context);
}

static void handle_1(int number, siginfo_t *info, void *context)
{
    handle(1, number, info, context);
}

static void handle_2(int number, siginfo_t *info, void *context)
{
    handle(2, number, info, context);
}

static void handle_3(int number, siginfo_t *info, void *context)
{
    handle(3, number, info, context);
}

typedef void (*handler)(int number, siginfo_t *info, void *context);

static const handler handlers[LEVELS] = {handle_0, handle_1, handle_2, handle_3};

/* ---- the table ---- */

static void fork_prepare(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void fork_parent(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* A child has none of the views: the table starts again. Nobody removes what was in it, see
 * umo_os_forks(). */
static void fork_child(void)
{
    uint32_t high = atomic_load(&guards_high);
    for (uint32_t i = 0; i < high; i++) {
        guards[i] = (umo_os_guard){.start = 0};
    }
    atomic_store(&guards_high, 0);
    free_first = 0;
    atomic_store(&owner, getpid());
    (void)pthread_mutex_unlock(&lock);
}

static bool same_handler(const struct sigaction *left, const struct sigaction *right)
{
    bool full = (left->sa_flags & SA_SIGINFO) != 0;
    return full == ((right->sa_flags & SA_SIGINFO) != 0) &&
           (full ? left->sa_sigaction == right->sa_sigaction
                 : left->sa_handler == right->sa_handler);
}

static bool is_ours(const struct sigaction *action)
{
    bool ours = false;
    for (size_t i = 0; i < LEVELS && (action->sa_flags & SA_SIGINFO) != 0; i++) {
        ours = ours || action->sa_sigaction == handlers[i];
    }
    return ours;
}

/* With the flags and the mask of the handler that was there, so that it runs in what it asked for
 * when it is called from ours. On the alternative stack, which is where the thread has one. */
static umo_status take_over(void)
{
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) != 0) {
        return UMO_E_SYSTEM;
    }
    if (is_ours(&now)) {
        return UMO_OK;
    }
    size_t level = 0;
    while (level < levels && !same_handler(&before[level], &now)) {
        level++;
    }
    if (level == LEVELS) {
        return UMO_E_LIMIT;
    }
    if (level == levels) {
        before[level] = now;
        levels++;
    }
    atomic_store(&before_is_spent[level], false);
    struct sigaction ours = now;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (now.sa_flags & (SA_RESTART | SA_NODEFER));
    ours.sa_sigaction = handlers[level];
    return sigaction(SIGBUS, &ours, NULL) == 0 ? UMO_OK : UMO_E_SYSTEM;
}

static umo_status guards_prepare(void)
{
    if (!prepared) {
        const char *wish = getenv("UMO_SIGBUS");
        switched_off = wish != NULL && strcmp(wish, "off") == 0;
        atomic_store(&owner, getpid());
        if (pthread_atfork(fork_prepare, fork_parent, fork_child) != 0) {
            return UMO_E_NOMEM;
        }
        prepared = true;
    }
    return switched_off ? UMO_E_UNSUPPORTED : take_over();
}

umo_status umo_os_guard_add(void *start, size_t size_bytes, bool writable,
                            _Atomic size_t *whole_bytes, umo_os_guard **out)
{
    umo_os_guard *guard = NULL;
    *whole_bytes = size_bytes;
    assert(((uintptr_t)start & WRITABLE) == 0);
    (void)pthread_mutex_lock(&lock);
    umo_status status = guards_prepare();
    uint32_t high = atomic_load_explicit(&guards_high, memory_order_relaxed);
    if (status == UMO_OK && free_first != 0) {
        guard = &guards[free_first - 1];
        free_first = guard->next_free;
    } else if (status == UMO_OK && high < GUARDS_MAX) {
        guard = &guards[high];
        atomic_store(&guards_high, high + 1);
    }
    (void)pthread_mutex_unlock(&lock);
    if (guard == NULL) {
        return status != UMO_OK ? status : UMO_E_LIMIT;
    }
    atomic_store(&guard->size_bytes, size_bytes);
    guard->whole_bytes = whole_bytes; /* nobody looks at it before start is there */
    atomic_store(&guard->repeats, 0);
    atomic_store(&guard->start, (uintptr_t)start | (writable ? WRITABLE : 0));
    *out = guard;
    return UMO_OK;
}

void umo_os_guard_remove(umo_os_guard *guard)
{
    if (guard == NULL) {
        return;
    }
    atomic_store(&guard->start, 0);
    while (atomic_load(&guard->handlers) != 0) {
        (void)sched_yield();
    }
    (void)pthread_mutex_lock(&lock);
    guard->next_free = free_first;
    free_first = (uint32_t)(guard - guards) + 1;
    (void)pthread_mutex_unlock(&lock);
}

bool umo_os_guarded(const void *address)
{
    umo_os_guard *guard = guard_hold((uintptr_t)address);
    if (guard != NULL) {
        guard_drop(guard);
    }
    return guard != NULL;
}
