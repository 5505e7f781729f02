/*
 * A pool whose system refuses what it asks for, as a sandbox may from one moment on: pages are not
 * moved, not given back, not looked at. It holds more then, and never shows one owner's bytes to
 * another.
 */
#include <umo/pool.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A sanitizer's own code needs these calls. */
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SLOTS = 64,
    STEPS = 3000,
    OWNERS = 3,
    NO_FILTER = 77
};

typedef struct slot {
    unsigned char *data;
    size_t size_bytes;
    unsigned char owner;
} slot;

/* From now on two calls fail in this process; one may be -1. */
static bool refuse(const int calls[2])
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[0], 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[1], 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* True when each byte is a zero or the owner's. */
static bool own(const slot *s)
{
    for (size_t i = 0; i < s->size_bytes; i++) {
        if (s->data[i] != 0 && s->data[i] != s->owner) {
            return false;
        }
    }
    return true;
}

static bool whole(const slot *s)
{
    for (size_t i = 0; i < s->size_bytes; i += i + 509 < s->size_bytes ? 509 : 1) {
        if (s->data[i] != s->owner) {
            return false;
        }
    }
    return true;
}

static size_t size_next(unsigned *seed)
{
    const size_t r = (size_t)rand_r(seed);
    return rand_r(seed) % 2 != 0 ? 1 + r % 20000 : 65536 + r % 1000000;
}

/* 0, or the line of what went otherwise. */
static int play(umo_pool *pool)
{
    slot slots[SLOTS] = {0};
    unsigned seed = 5;
    for (unsigned step = 0; step < STEPS; step++) {
        slot *s = &slots[(size_t)rand_r(&seed) % SLOTS];
        if (s->data != NULL) {
            if (!whole(s) || umo_pool_give(pool, s->data) != UMO_OK) {
                return __LINE__;
            }
            s->data = NULL;
        } else {
            void *data = NULL;
            s->size_bytes = size_next(&seed);
            s->owner = (unsigned char)(1 + rand_r(&seed) % OWNERS);
            const umo_status status = umo_pool_take(pool, s->size_bytes, s->owner, &data);
            if (status == UMO_E_NOMEM) {
                continue; /* more memory was refused, too */
            }
            s->data = data;
            if (status != UMO_OK || !own(s)) {
                return __LINE__;
            }
            memset(data, s->owner, s->size_bytes);
        }
        if (step % 100 == 0) {
            umo_pool_trim(pool, (size_t)rand_r(&seed) % 4000000);
        }
    }
    for (size_t i = 0; i < SLOTS; i++) {
        if (slots[i].data != NULL && umo_pool_give(pool, slots[i].data) != UMO_OK) {
            return __LINE__;
        }
    }
    umo_pool_stats stats;
    umo_pool_trim(pool, 0);
    umo_pool_read(pool, &stats);
    return stats.live_bytes == 0 && stats.reserved_bytes == 0 ? 0 : __LINE__;
}

static int child(const int calls[2])
{
    umo_device *device = NULL;
    umo_scope *scope = NULL;
    umo_pool *pool = NULL;
    if (umo_device_open("host", 0, NULL, &device, NULL) != UMO_OK ||
        umo_scope_create(NULL, "refused", 0, &scope, NULL) != UMO_OK) {
        return __LINE__;
    }
    const umo_pool_options options = {.device = device, .scope = scope, .idle_ns = UINT64_MAX};
    if (umo_pool_create(&options, &pool, NULL) != UMO_OK) {
        return __LINE__;
    }
    if (!refuse(calls)) {
        return NO_FILTER;
    }
    return play(pool);
}

static void what_is_refused_shows_nobody_anothers_bytes(void **state)
{
    (void)state;
    const int refused[][2] = {
        {-1, -1},          {SYS_mremap, -1},        {SYS_madvise, -1},
        {SYS_mincore, -1}, {SYS_mprotect, -1},      {SYS_madvise, SYS_mremap},
        {SYS_mmap, -1},    {SYS_madvise, SYS_mmap}, {SYS_mremap, SYS_mmap},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            _exit(child(refused[i]) % 256);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == NO_FILTER) {
            print_message("skipped: no seccomp filter can be set here\n");
            skip();
        }
        if (WEXITSTATUS(status) != 0) {
            fail_msg("case %zu: line %d", i, WEXITSTATUS(status));
        }
    }
}
#else
static void what_is_refused_shows_nobody_anothers_bytes(void **state)
{
    (void)state;
    skip(); /* no sandbox that we could set up */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused_shows_nobody_anothers_bytes),
    };
    return cmocka_run_group_tests_name("pool_refused", tests, NULL, NULL);
}
