/* Jumps, out of signal handlers too, and signals, as cmocka uses them. */
#include "probe.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static jmp_buf place;
static sigjmp_buf signal_place;
static volatile sig_atomic_t got;

static void jump_back(int number)
{
    got = number;
    longjmp(place, number);
}

static void signal_jump_back(int number)
{
    got = number;
    siglongjmp(signal_place, number);
}

static void note(int number)
{
    got = number;
}

__attribute__((noinline)) static double deep(int depth, double value)
{
    if (depth == 0) {
        longjmp(place, 77);
    }
    return deep(depth - 1, value * 1.5) + value;
}

static void plain_jumps(void)
{
    volatile int turns = 0;
    switch (setjmp(place)) {
    case 0:
        (void)deep(20, 1.0);
        CHECK(!"reached");
        break;
    case 77:
        turns++;
        CHECK(turns == 1);
        break;
    default:
        CHECK(!"another value");
    }
    if (setjmp(place) == 0) {
        longjmp(place, 0);
    } else {
        turns++;
    }
    CHECK(turns == 2);
    if (_setjmp(place) == 0) {
        _longjmp(place, 5);
    }
    turns++;
    CHECK(turns == 3);
}

/* What a function's caller counts on: the compiler itself keeps nothing in these here. */
static void registers(void)
{
    double d8;
    double d15;
    __asm__ volatile("fmov d8, #2.0\n fmov d15, #4.0" ::: "d8", "d15");
    int value = setjmp(place);
    __asm__ volatile("fmov %d0, d8\n fmov %d1, d15" : "=&w"(d8), "=&w"(d15));
    CHECK(d8 == 2.0 && d15 == 4.0);
    if (value == 0) {
        __asm__ volatile("fmov d8, #3.0\n fmov d15, #3.0" ::: "d8", "d15");
        longjmp(place, 1);
    }
}

/* The mask is the one of setjmp's time; _setjmp and sigsetjmp without a mask leave it alone. */
static void kept_masks(void)
{
    sigset_t set;
    sigset_t now;
    CHECK(sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR1) == 0);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    if (setjmp(place) == 0) {
        CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
        longjmp(place, 1);
    }
    CHECK(sigprocmask(SIG_SETMASK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 1);
    if (_setjmp(place) == 0) {
        CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
        _longjmp(place, 1);
    }
    CHECK(sigprocmask(SIG_SETMASK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 0);
    if (sigsetjmp(signal_place, 0) == 0) {
        CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
        siglongjmp(signal_place, 1);
    }
    CHECK(sigprocmask(SIG_SETMASK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 1);
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
}

/* The handler's own signal is unblocked by the jump, so it comes again. */
static void fault(int number, int (*provoke)(void))
{
    for (volatile int i = 0; i < 3; i++) {
        void (*before)(int) = signal(number, jump_back);
        CHECK(before == SIG_DFL);
        got = 0;
        if (setjmp(place) == 0) {
            (void)provoke();
        }
        CHECK(got == number);
        CHECK(signal(number, SIG_DFL) == jump_back);
    }
}

static int read_nothing(void)
{
    return *(volatile int *)16;
}

static int raise_usr1(void)
{
    return raise(SIGUSR1);
}

static int raise_abort(void)
{
    return raise(SIGABRT);
}

static void masks(void)
{
    sigset_t set;
    sigset_t was;
    struct sigaction action = {.sa_handler = signal_jump_back};
    struct sigaction before;
    CHECK(sigemptyset(&action.sa_mask) == 0);
    CHECK(sigaction(SIGUSR2, &action, &before) == 0 && before.sa_handler == SIG_DFL);
    for (volatile int i = 0; i < 2; i++) {
        got = 0;
        if (sigsetjmp(signal_place, 1) == 0) {
            (void)raise(SIGUSR2);
        }
        CHECK(got == SIGUSR2);
    }
    CHECK(sigaction(SIGUSR2, NULL, &before) == 0 && before.sa_handler == signal_jump_back);
    CHECK(signal(SIGUSR2, note) == signal_jump_back);
    CHECK(sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR2) == 0);
    CHECK(sigprocmask(SIG_BLOCK, &set, &was) == 0);
    got = 0;
    CHECK(raise(SIGUSR2) == 0 && got == 0);
    CHECK(sigprocmask(SIG_SETMASK, &was, &set) == 0);
    CHECK(got == SIGUSR2);
    CHECK(sigismember(&set, SIGUSR2) == 1);
    CHECK(signal(SIGUSR2, SIG_DFL) == note);
}

static void children(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        _exit(9);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    child = fork();
    if (child == 0) {
        (void)raise(SIGUSR2);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
          WTERMSIG(status) == SIGUSR2);
    child = fork();
    if (child == 0) {
        (void)sleep(20);
        _exit(0);
    }
    CHECK(kill(child, SIGUSR1) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
          WTERMSIG(status) == SIGUSR1);
}

int main(void)
{
    _Static_assert(SIGUSR2 == 31 && SIGUSR1 == 30, "Darwin's own numbers");
    plain_jumps();
    registers();
    kept_masks();
    fault(SIGSEGV, read_nothing);
    fault(SIGUSR1, raise_usr1);
    fault(SIGABRT, raise_abort);
    masks();
    children();
    CHECK(strlen(strsignal(SIGSEGV)) > 0);
    return probe_verdict();
}
