/*
 * Memory whose file is cut short under its users, and every other SIGBUS, which must do what it
 * would have done without us. What ends a process, or needs one in which nothing was taken over
 * yet, runs in a child, before anything is taken over here.
 */
#include "os/os.h"
#include "os/pages_test.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#endif

#include <cmocka.h>

/* A file, mapped, and watched over unless said otherwise. */
typedef struct piece {
    int file;
    size_t size_bytes;
    volatile unsigned char *data;
    _Atomic size_t *whole_bytes;
    umo_os_guard *guard;
} piece;

static piece piece_open(size_t pages, bool writable, bool guarded)
{
    piece p = {.size_bytes = pages * pages_test_bytes()};
    p.file = pages_test_file_any(p.size_bytes); /* macOS cuts no shared memory short */
    void *data = pages_test_map(p.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p.file, 0);
    if (p.file < 0 || data == MAP_FAILED) {
        abort();
    }
    memset(data, 7, p.size_bytes);
    if (!writable && mprotect(data, p.size_bytes, PROT_READ) != 0) {
        abort();
    }
    p.whole_bytes = calloc(1, sizeof *p.whole_bytes);
    if (p.whole_bytes == NULL || (guarded && umo_os_guard_add(data, p.size_bytes, writable,
                                                              p.whole_bytes, &p.guard) != UMO_OK)) {
        abort();
    }
    p.data = data;
    return p;
}

static void piece_cut(const piece *p, size_t pages)
{
    if (ftruncate(p->file, (off_t)(pages * pages_test_bytes())) != 0) {
        abort();
    }
}

static void piece_close(piece *p)
{
    umo_os_guard_remove(p->guard);
    (void)munmap((void *)(uintptr_t)p->data, p->size_bytes);
    (void)close(p->file);
    free((void *)p->whole_bytes);
}

static void what_is_lost_reads_as_zeros_to_the_end(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    for (int writable = 0; writable < 2; writable++) {
        piece p = piece_open(8, writable != 0, true);
        assert_int_equal(*p.whole_bytes, p.size_bytes);
        piece_cut(&p, 3);
        assert_int_equal(p.data[3 * page - 1], 7);
        assert_int_equal(*p.whole_bytes, p.size_bytes);
        assert_int_equal(p.data[5 * page + 9], 0);
        assert_int_equal(*p.whole_bytes, 5 * page);
        /* The rest is gone at once: no longer the file's, however long that gets. */
        piece_cut(&p, 8);
        assert_int_equal(pwrite(p.file, "x", 1, (off_t)(6 * page)), 1);
        assert_int_equal(p.data[6 * page], 0);
        assert_int_equal(p.data[8 * page - 1], 0);
        /* What is before it still is. */
        assert_int_equal(pwrite(p.file, "y", 1, (off_t)(4 * page)), 1);
        assert_int_equal(p.data[4 * page], 'y');
        assert_int_equal(*p.whole_bytes, 5 * page);
        /* And can be lost as well. */
        piece_cut(&p, 0);
        assert_int_equal(p.data[0], 0);
        assert_int_equal(*p.whole_bytes, 0);
        piece_close(&p);
    }
}

static void what_is_written_there_goes_nowhere(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    piece p = piece_open(4, true, true);
    piece_cut(&p, 1);
    p.data[2 * page] = 99;
    assert_int_equal(p.data[2 * page], 99); /* ordinary memory now */
    assert_int_equal(*p.whole_bytes, 2 * page);
    piece_cut(&p, 4);
    unsigned char byte = 1;
    assert_int_equal(pread(p.file, &byte, 1, (off_t)(2 * page)), 1);
    assert_int_equal(byte, 0);
    piece_close(&p);
}

static void errno_is_left_alone(void **state)
{
    (void)state;
    piece p = piece_open(1, true, true);
    piece_cut(&p, 0);
    errno = 4242;
    assert_int_equal(p.data[0], 0);
    assert_int_equal(errno, 4242);
    piece_close(&p);
}

static void a_guard_that_was_removed_is_used_again(void **state)
{
    (void)state;
    piece a = piece_open(1, true, true);
    umo_os_guard *first = a.guard;
    piece_cut(&a, 0);
    assert_int_equal(a.data[0], 0);
    assert_true(umo_os_guarded((const void *)(uintptr_t)(a.data + 5)));
    const void *gone = (const void *)(uintptr_t)a.data;
    piece_close(&a);
    assert_false(umo_os_guarded(gone));
    piece b = piece_open(1, true, true);
    assert_ptr_equal(b.guard, first);
    assert_int_equal(*b.whole_bytes, b.size_bytes);
    piece_close(&b);
    umo_os_guard_remove(NULL);
}

/* The table ends somewhere, and says so. */
static void more_than_can_be_watched_over_is_refused(void **state)
{
    (void)state;
    enum {
        MANY = 40000
    };
    static umo_os_guard *guards[MANY];
    size_t page = pages_test_bytes();
    char *area = pages_test_map(page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t made = 0;
    _Atomic size_t whole_bytes;
    umo_status status = UMO_OK;
    while (made < MANY && status == UMO_OK) {
        /* Never touched: the entry is all that matters. */
        status = umo_os_guard_add(area + made * page, page, true, &whole_bytes, &guards[made]);
        made += status == UMO_OK ? 1 : 0;
    }
    assert_int_equal(status, UMO_E_LIMIT);
    assert_true(made >= 20000);
    for (size_t i = 0; i < made; i++) {
        umo_os_guard_remove(guards[i]);
    }
    assert_int_equal(umo_os_guard_add(area, page, true, &whole_bytes, &guards[0]), UMO_OK);
    umo_os_guard_remove(guards[0]);
    (void)munmap(area, page);
}

/* Copies that come back short. */
static void copies_are_made(void)
{
    size_t page = pages_test_bytes();
    unsigned char *own = calloc(40, page);
    assert_non_null(own);
    size_t (*const from[])(void *, const void *, size_t) = {umo_os_copy_from, umo_os_copy_by_pipe};
    size_t (*const to[])(void *, const void *, size_t) = {umo_os_copy_to, umo_os_copy_by_pipe};
    for (size_t way = 0; way < 2; way++) {
        piece p = piece_open(40, true, false);
        unsigned char *data = (unsigned char *)(uintptr_t)p.data;
        memset(own, 0, 40 * page);
        assert_int_equal(from[way](own, data + 3, 40 * page - 3), 40 * page - 3);
        assert_true(own[0] == 7 && own[40 * page - 4] == 7 && own[40 * page - 3] == 0);
        memset(own, 9, 40 * page);
        assert_int_equal(to[way](data + 1, own, 40 * page - 1), 40 * page - 1);
        assert_true(data[0] == 7 && data[1] == 9 && data[40 * page - 1] == 9);
        assert_int_equal(from[way](own, data, 0), 0);
        piece_cut(&p, 30);
        assert_int_equal(from[way](own, data, 40 * page), 30 * page);
        assert_int_equal(to[way](data, own, 40 * page), 30 * page);
        assert_int_equal(from[way](own, data + 30 * page, page), 0);
        assert_int_equal(to[way](data + 35 * page, own, 1), 0);
        /* Nor is memory touched that is not mapped at all. */
        piece_close(&p);
        assert_int_equal(from[way](own, (const void *)(uintptr_t)16, 100), 0);
    }
    free(own);
}

static void a_copy_comes_back_short(void **state)
{
    (void)state;
    copies_are_made();
}

#ifdef __linux__
/* In a sandbox that allows no process to copy another's memory, not even its own. */
static void a_sandbox_does_not_stop_copies(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        struct sock_filter rules[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        const struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
            _exit(2);
        }
        struct iovec one = {&one, sizeof one};
        if (process_vm_readv(getpid(), &one, 1, &one, 1, 0) >= 0) {
            _exit(3);
        }
        copies_are_made();
        _exit(0);
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
}
#endif

/* ---- many threads ---- */

typedef struct crowd {
    piece piece;
    _Atomic bool stop;
    _Atomic int reading;
    bool write;
} crowd;

static void *crowd_run(void *user)
{
    crowd *c = user;
    size_t page = pages_test_bytes();
    _Atomic unsigned char *data = (_Atomic unsigned char *)(uintptr_t)c->piece.data;
    uintptr_t wrong = 0;
    c->reading++;
    do {
        for (size_t at = 0; at < c->piece.size_bytes; at += page / 4) {
            if (c->write) {
                data[at] = 7; /* all write the same */
            } else {
                unsigned char byte = data[at];
                wrong += byte != 7 && byte != 0 ? 1 : 0;
            }
        }
    } while (!c->stop);
    return (void *)wrong;
}

static void a_file_is_cut_under_eight_threads(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        crowd c = {.piece = piece_open(64, true, true), .write = round % 2 != 0};
        pthread_t threads[8];
        for (size_t i = 0; i < 8; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, &c), 0);
        }
        while (c.reading < 8) {
            (void)sched_yield();
        }
        size_t cuts[] = {60, (size_t)round % 32 + 9, 3, 0};
        for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
            piece_cut(&c.piece, cuts[i]);
            while (*c.piece.whole_bytes > cuts[i] * pages_test_bytes()) {
                (void)sched_yield();
            }
        }
        c.stop = true;
        for (size_t i = 0; i < 8; i++) {
            void *wrong;
            assert_int_equal(pthread_join(threads[i], &wrong), 0);
            assert_null(wrong);
        }
        piece_close(&c.piece);
    }
}

static void *churn_run(void *user)
{
    _Atomic bool *stop = user;
    for (unsigned i = 0; !*stop; i++) {
        piece p = piece_open(1 + i % 3, true, true);
        piece_cut(&p, 0);
        if (p.data[0] != 0 || *p.whole_bytes != 0) {
            abort();
        }
        piece_close(&p);
    }
    return NULL;
}

/* Addresses come back at once as another piece: a handler that comes late would blank that. */
static void addresses_that_come_back_are_the_new_memory(void **state)
{
    (void)state;
    _Atomic bool stop = false;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn_run, (void *)&stop), 0);
    }
    for (int i = 0; i < 2000; i++) {
        piece p = piece_open(2, true, true);
        assert_int_equal(p.data[p.size_bytes - 1], 7);
        assert_int_equal(p.data[0], 7);
        assert_int_equal(*p.whole_bytes, p.size_bytes);
        piece_close(&p);
    }
    stop = true;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

/* ---- parts that run in a process of their own ---- */

static volatile unsigned char *expected; /* where the fault is */
static volatile sig_atomic_t times;
static struct sigaction under; /* what a later installer found */

static void no_core(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
}

/* SIGBUS as `how` says, then taken over. */
static void take_over(const struct sigaction *how)
{
    no_core();
    if (sigaction(SIGBUS, how, NULL) != 0) {
        abort();
    }
    piece p = piece_open(1, true, true);
    piece_cut(&p, 0);
    if (p.data[0] != 0) {
        abort();
    }
    piece_close(&p);
}

static void take_over_plain(void (*handler)(int))
{
    struct sigaction how = {.sa_handler = handler};
    (void)sigemptyset(&how.sa_mask);
    take_over(&how);
}

/* A fault that is not ours. */
static void fault_elsewhere(void)
{
    piece p = piece_open(2, true, false);
    piece_cut(&p, 1);
    expected = p.data + pages_test_bytes() + 17;
    (void)*expected;
    piece_close(&p);
}

/* Makes the faulting page real again, so that the faulting instruction goes through. */
static void repair(void)
{
    times++;
    size_t page = pages_test_bytes();
    void *start = (void *)((uintptr_t)expected & ~(uintptr_t)(page - 1));
    if (mmap(start, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
        abort();
    }
}

static bool blocked(int number)
{
    sigset_t set;
    return pthread_sigmask(SIG_BLOCK, NULL, &set) == 0 && sigismember(&set, number) == 1;
}

static void plain_handler(int number)
{
    if (number != SIGBUS || !blocked(SIGBUS)) {
        abort();
    }
    repair();
}

static void full_handler(int number, siginfo_t *info, void *context)
{
    if (number != SIGBUS || info->si_addr != (void *)(uintptr_t)expected || context == NULL ||
        !blocked(SIGBUS) || !blocked(SIGUSR1)) {
        abort();
    }
    repair();
}

static void sent_handler(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (number != SIGBUS || info->si_code != SI_USER || info->si_pid != getpid()) {
        abort();
    }
    times++;
}

static void later_handler(int number, siginfo_t *info, void *context)
{
    times += 100;
    under.sa_sigaction(number, info, context);
}

static int part_default(void)
{
    take_over_plain(SIG_DFL);
    fault_elsewhere();
    return 1;
}

static int part_ignored(void)
{
    take_over_plain(SIG_IGN);
    if (kill(getpid(), SIGBUS) != 0) {
        return 2;
    }
    /* Still ours: the signal that was ignored has changed nothing. */
    piece p = piece_open(1, true, true);
    piece_cut(&p, 0);
    if (p.data[0] != 0) {
        return 3;
    }
    fault_elsewhere();
    return 1;
}

static int part_sent(void)
{
    take_over_plain(SIG_DFL);
    (void)kill(getpid(), SIGBUS);
    return 1;
}

static int part_plain(void)
{
    take_over_plain(plain_handler);
    fault_elsewhere();
    fault_elsewhere();
    return times == 2 ? 0 : 1;
}

static int part_full(void)
{
    struct sigaction how = {.sa_flags = SA_SIGINFO};
    how.sa_sigaction = full_handler;
    (void)sigemptyset(&how.sa_mask);
    (void)sigaddset(&how.sa_mask, SIGUSR1);
    take_over(&how);
    fault_elsewhere();
    how.sa_sigaction = sent_handler;
    return times == 1 ? 0 : 1;
}

static int part_sent_to_handler(void)
{
    struct sigaction how = {.sa_flags = SA_SIGINFO};
    how.sa_sigaction = sent_handler;
    (void)sigemptyset(&how.sa_mask);
    take_over(&how);
    (void)kill(getpid(), SIGBUS);
    return times == 1 ? 0 : 1;
}

/* The second time the system's own answer comes. */
static int part_once(void)
{
    struct sigaction how = {.sa_handler = plain_handler, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&how.sa_mask);
    take_over(&how);
    fault_elsewhere();
    if (times != 1) {
        return 2;
    }
    fault_elsewhere();
    return 1;
}

/* Somebody takes the signal over after us, and hands on what is not his. */
static int part_later(void)
{
    take_over_plain(plain_handler);
    piece p = piece_open(1, true, true);
    struct sigaction how = {.sa_flags = SA_SIGINFO};
    how.sa_sigaction = later_handler;
    (void)sigemptyset(&how.sa_mask);
    if (sigaction(SIGBUS, &how, &under) != 0 || (under.sa_flags & SA_SIGINFO) == 0) {
        return 2;
    }
    piece_cut(&p, 0);
    if (p.data[0] != 0 || times != 100) {
        return 3;
    }
    fault_elsewhere();
    return times == 201 ? 0 : 4;
}

static void deaf_handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    times += 1000;
    repair();
}

/* He who hands nothing on is taken over as well, and he who does is not called in a ring. */
static int part_deaf(void)
{
    take_over_plain(plain_handler);
    for (int turn = 0; turn < 20; turn++) {
        struct sigaction how = {.sa_flags = SA_SIGINFO};
        how.sa_sigaction = turn % 2 == 0 ? deaf_handler : later_handler;
        (void)sigemptyset(&how.sa_mask);
        struct sigaction found;
        if (sigaction(SIGBUS, &how, &found) != 0) {
            return 2;
        }
        if (turn == 1) {
            under = found;
        }
        piece p = piece_open(1, true, true);
        piece_cut(&p, 0);
        times = 0;
        if (p.data[0] != 0 || times != 0) {
            return 3;
        }
        piece_close(&p);
        fault_elsewhere();
        /* later_handler found the function that goes to deaf_handler, on to plain_handler's. */
        if (times != (turn % 2 == 0 ? 1001 : 1101)) {
            return 4;
        }
    }
    return 0;
}

/* The handler's own stack, where a thread has one. */
static int part_stack(void)
{
    static char memory[65536];
    static char *low;
    static char *high;
    low = memory;
    high = memory + sizeof memory;
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
    struct sigaction how;
    if (sigaltstack(&stack, NULL) != 0) {
        return 2;
    }
    take_over_plain(plain_handler);
    return sigaction(SIGBUS, NULL, &how) == 0 && (how.sa_flags & SA_ONSTACK) != 0 && low < high ? 0
                                                                                                : 1;
}

static int part_off(void)
{
    no_core();
    struct sigaction how;
    umo_os_guard *guard = NULL;
    piece p = piece_open(1, true, false);
    void (*was)(int) = signal(SIGBUS, SIG_DFL);
    (void)was;
    if (umo_os_guard_add((void *)(uintptr_t)p.data, p.size_bytes, true, p.whole_bytes, &guard) !=
            UMO_E_UNSUPPORTED ||
        guard != NULL || sigaction(SIGBUS, NULL, &how) != 0 || how.sa_handler != SIG_DFL) {
        return 1;
    }
    piece_cut(&p, 0);
    (void)p.data[0];
    return 2;
}

/* A child has its own memory at the address of a parent's view. */
static int part_fork(void)
{
    take_over_plain(SIG_DFL);
    piece p = piece_open(2, true, true);
    pid_t child = fork();
    if (child == 0) {
        if (umo_os_guarded((const void *)(uintptr_t)p.data)) {
            _exit(1);
        }
        piece own = piece_open(1, true, true); /* one of its own works */
        piece_cut(&own, 0);
        if (own.data[0] != 0) {
            _exit(2);
        }
        piece_cut(&p, 0);
        (void)p.data[0]; /* inherited here, and nobody's */
        _exit(3);
    }
    int result = 0;
    if (waitpid(child, &result, 0) != child) {
        return 1;
    }
    if (!WIFSIGNALED(result) || WTERMSIG(result) != SIGBUS) {
        return 10 + WEXITSTATUS(result);
    }
    /* The parent's is as it was. */
    return p.data[0] == 0 && *p.whole_bytes == 0 ? 0 : 2;
}

static const struct part {
    const char *name;
    int (*run)(void);
    int ends_by; /* a signal, or 0 */
} parts[] = {
    {"default", part_default, SIGBUS},
    {"ignored", part_ignored, SIGBUS},
    {"sent", part_sent, SIGBUS},
    {"plain", part_plain, 0},
    {"full", part_full, 0},
    {"sent_to_handler", part_sent_to_handler, 0},
    {"once", part_once, SIGBUS},
    {"later", part_later, 0},
    {"stack", part_stack, 0},
    {"off", part_off, SIGBUS},
    {"fork", part_fork, 0},
    {"deaf", part_deaf, 0},
};

#define PARTS (sizeof parts / sizeof parts[0])

static void part_run(const char *name)
{
    if (strcmp(name, "off") == 0) {
        (void)setenv("UMO_SIGBUS", "off", 1);
    }
    for (size_t i = 0; i < PARTS; i++) {
        if (strcmp(name, parts[i].name) == 0) {
            _exit(parts[i].run());
        }
    }
    _exit(127);
}

static void every_other_signal_does_what_it_did_before(void **state)
{
    (void)state;
    for (size_t i = 0; i < PARTS; i++) {
        pid_t child = fork();
        assert_int_not_equal(child, -1);
        if (child == 0) {
            part_run(parts[i].name);
        }
        int result = -1;
        assert_int_equal(waitpid(child, &result, 0), child);
        bool right = parts[i].ends_by != 0
                         ? WIFSIGNALED(result) && WTERMSIG(result) == parts[i].ends_by
                         : WIFEXITED(result) && WEXITSTATUS(result) == 0;
        if (!right) {
            print_error("%s: %x\n", parts[i].name, (unsigned)result);
        }
        assert_true(right);
    }
}

#ifdef __linux__
/* What a debugger or a core file shows of a fault that is not ours: its own address and code, in
 * the signal that ends the process. */
static void the_system_sees_the_fault_itself(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        part_run("default");
    }
    siginfo_t seen[8];
    size_t count = 0;
    int result = 0;
    while (waitpid(child, &result, 0) == child && WIFSTOPPED(result)) {
        int number = WSTOPSIG(result);
        if (number == SIGBUS && count < 8) {
            assert_int_equal(ptrace(PTRACE_GETSIGINFO, child, NULL, &seen[count++]), 0);
        }
        (void)ptrace(PTRACE_CONT, child, NULL, (void *)(intptr_t)(number == SIGTRAP ? 0 : number));
    }
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGBUS);
    assert_int_equal(count, 3); /* the guarded one, the other, and that again */
    assert_int_equal(seen[2].si_code, BUS_ADRERR);
    assert_ptr_equal(seen[2].si_addr, seen[1].si_addr);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* First, while nothing is taken over. */
        cmocka_unit_test(every_other_signal_does_what_it_did_before),
#ifdef __linux__
        cmocka_unit_test(the_system_sees_the_fault_itself),
#endif
        cmocka_unit_test(what_is_lost_reads_as_zeros_to_the_end),
        cmocka_unit_test(what_is_written_there_goes_nowhere),
        cmocka_unit_test(errno_is_left_alone),
        cmocka_unit_test(a_guard_that_was_removed_is_used_again),
        cmocka_unit_test(more_than_can_be_watched_over_is_refused),
        cmocka_unit_test(a_copy_comes_back_short),
#ifdef __linux__
        cmocka_unit_test(a_sandbox_does_not_stop_copies),
#endif
        cmocka_unit_test(a_file_is_cut_under_eight_threads),
        cmocka_unit_test(addresses_that_come_back_are_the_new_memory),
    };
    return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
