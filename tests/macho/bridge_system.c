/*
 * Errors, signals, clocks and the system's figures: what has other numbers or layouts on
 * Darwin.
 */
#include "bridges.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Errors below 35 agree, but for one exchanged pair; a few have no counterpart. */
static const struct {
    int darwin, ours;
} errors[] = {
    {11, EDEADLK},       {35, EAGAIN},          {36, EINPROGRESS},
    {37, EALREADY},      {38, ENOTSOCK},        {39, EDESTADDRREQ},
    {40, EMSGSIZE},      {41, EPROTOTYPE},      {42, ENOPROTOOPT},
    {45, EOPNOTSUPP},    {43, EPROTONOSUPPORT}, {44, ESOCKTNOSUPPORT},
    {46, EPFNOSUPPORT},  {47, EAFNOSUPPORT},    {48, EADDRINUSE},
    {49, EADDRNOTAVAIL}, {50, ENETDOWN},        {51, ENETUNREACH},
    {52, ENETRESET},     {53, ECONNABORTED},    {54, ECONNRESET},
    {55, ENOBUFS},       {56, EISCONN},         {57, ENOTCONN},
    {58, ESHUTDOWN},     {59, ETOOMANYREFS},    {60, ETIMEDOUT},
    {61, ECONNREFUSED},  {62, ELOOP},           {63, ENAMETOOLONG},
    {64, EHOSTDOWN},     {65, EHOSTUNREACH},    {66, ENOTEMPTY},
    {68, EUSERS},        {69, EDQUOT},          {70, ESTALE},
    {71, EREMOTE},       {77, ENOLCK},          {78, ENOSYS},
    {84, EOVERFLOW},     {89, ECANCELED},       {90, EIDRM},
    {91, ENOMSG},        {92, EILSEQ},          {94, EBADMSG},
    {95, EMULTIHOP},     {96, ENODATA},         {97, ENOLINK},
    {98, ENOSR},         {99, ENOSTR},          {100, EPROTO},
    {101, ETIME},        {102, EOPNOTSUPP},     {104, ENOTRECOVERABLE},
    {105, EOWNERDEAD},
};

int macho_errno(int linux_errno)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i].ours == linux_errno) {
            return errors[i].darwin;
        }
    }
    if (linux_errno < 0 || linux_errno > 34) {
        macho_die("error %d has no number on Darwin", linux_errno);
    }
    return linux_errno;
}

int macho_errno_to_linux(int darwin_errno)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i].darwin == darwin_errno) {
            return errors[i].ours;
        }
    }
    return darwin_errno >= 0 && darwin_errno <= 34 ? darwin_errno : -1;
}

/* Every look at errno comes through here, so what glibc has set meanwhile is taken over then. */
static int *bridge_error(void)
{
    static _Thread_local int darwin_errno;
    if (errno != 0) {
        darwin_errno = macho_errno(errno);
        errno = 0;
    }
    return &darwin_errno;
}

/* The words are glibc's: only the number is translated. */
static char *bridge_strerror(int error)
{
    static _Thread_local char unknown[40];
    int ours = macho_errno_to_linux(error);
    if (ours >= 0) {
        return strerror(ours);
    }
    (void)snprintf(unknown, sizeof unknown, "Unknown error: %d", error);
    return unknown;
}

static int bridge_strerror_r(int error, char *out, size_t size)
{
    return snprintf(out, size, "%s", bridge_strerror(error)) < (int)size ? 0 : ERANGE;
}

static void bridge_perror(const char *text)
{
    (void)fprintf(stderr, "%s: %s\n", text, bridge_strerror(*bridge_error()));
}

/* Our signal for each of Darwin's; 0 has none here. */
static const int signals[32] = {0,        SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGTRAP,   SIGABRT,
                                0,        SIGFPE,  SIGKILL, SIGBUS,  SIGSEGV, SIGSYS,    SIGPIPE,
                                SIGALRM,  SIGTERM, SIGURG,  SIGSTOP, SIGTSTP, SIGCONT,   SIGCHLD,
                                SIGTTIN,  SIGTTOU, SIGIO,   SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF,
                                SIGWINCH, 0,       SIGUSR1, SIGUSR2};

static int signal_from_darwin(int number)
{
    if (number < 1 || number > 31 || signals[number] == 0) {
        macho_die("no bridge for signal %d", number);
    }
    return signals[number];
}

int macho_signal_to_darwin(int number)
{
    for (int i = 1; i < 32; i++) {
        if (signals[i] == number) {
            return i;
        }
    }
    macho_die("signal %d has no number on Darwin", number);
}

typedef void (*handler)(int number);

typedef struct darwin_sigaction {
    handler run;
    uint32_t mask;
    int flags;
} darwin_sigaction;

#define DARWIN_SIGINFO 0x40
#define DARWIN_SI_USER 0x10001

typedef struct darwin_siginfo {
    int number;
    int error;
    int code;
    int pid;
    uint32_t uid;
    int status;
    void *address;
    void *value;
    long band;
    unsigned long rest[7];
} darwin_siginfo;

static darwin_sigaction actions[32]; /* what was set last, where it is a function */

static void handler_enter(int number)
{
    int darwin = macho_signal_to_darwin(number);
    actions[darwin].run(darwin);
}

/* The context is handed on as it is: good for whoever hands it on as well. */
static void handler_enter_full(int number, siginfo_t *info, void *context)
{
    int darwin = macho_signal_to_darwin(number);
    void (*run)(int, darwin_siginfo *, void *);
    memcpy(&run, &actions[darwin].run, sizeof run);
    darwin_siginfo theirs = {.number = darwin,
                             .code = info->si_code > 0 ? info->si_code : DARWIN_SI_USER};
    if (info->si_code > 0) {
        theirs.address = info->si_addr;
    } else {
        theirs.pid = info->si_pid;
        theirs.uid = info->si_uid;
    }
    run(darwin, &theirs, context);
}

static bool is_entered(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) != 0 ? action->sa_sigaction == handler_enter_full
                                                : action->sa_handler == handler_enter;
}

static handler bridge_signal(int number, handler run)
{
    bool plain = run == SIG_DFL || run == SIG_IGN;
    int ours = signal_from_darwin(number);
    struct sigaction was;
    (void)sigaction(ours, NULL, &was);
    handler before = is_entered(&was) ? actions[number].run : was.sa_handler;
    actions[number] = (darwin_sigaction){.run = run, .flags = 0x2};
    return signal(ours, plain ? run : handler_enter) == SIG_ERR ? SIG_ERR : before;
}

/* Bit n - 1 stands for signal n. */
static void mask_from_darwin(uint32_t mask, sigset_t *out)
{
    (void)sigemptyset(out);
    for (int i = 1; i < 32; i++) {
        if ((mask & (1u << (i - 1))) != 0 && signals[i] != 0) {
            (void)sigaddset(out, signals[i]);
        }
    }
}

static uint32_t mask_to_darwin(const sigset_t *from)
{
    uint32_t mask = 0;
    for (int i = 1; i < 32; i++) {
        if (signals[i] != 0 && sigismember(from, signals[i]) == 1) {
            mask |= 1u << (i - 1);
        }
    }
    return mask;
}

static const flag_row action_flags[] = {{0x1, SA_ONSTACK},
                                        {0x2, SA_RESTART},
                                        {0x4, (int)SA_RESETHAND},
                                        {0x10, SA_NODEFER},
                                        {DARWIN_SIGINFO, SA_SIGINFO}};

static int bridge_sigaction(int number, const darwin_sigaction *set, darwin_sigaction *before)
{
    int ours = signal_from_darwin(number);
    struct sigaction action;
    if (sigaction(ours, NULL, &action) != 0) {
        return -1;
    }
    darwin_sigaction was =
        is_entered(&action) ? actions[number] : (darwin_sigaction){.run = action.sa_handler};
    if (set != NULL) {
        bool plain = set->run == SIG_DFL || set->run == SIG_IGN;
        bool full = !plain && (set->flags & DARWIN_SIGINFO) != 0;
        action = (struct sigaction){.sa_flags = FLAGS("sigaction", set->flags, action_flags)};
        if (full) {
            action.sa_sigaction = handler_enter_full;
        } else {
            action.sa_handler = plain ? set->run : handler_enter;
            action.sa_flags &= ~SA_SIGINFO;
        }
        mask_from_darwin(set->mask, &action.sa_mask);
        actions[number] = *set;
        if (sigaction(ours, &action, NULL) != 0) {
            return -1;
        }
    }
    if (before != NULL) {
        *before = was;
    }
    return 0;
}

static int bridge_pthread_sigmask(int how, const uint32_t *set, uint32_t *before)
{
    static const int hows[] = {0, SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK};
    sigset_t ours;
    sigset_t was;
    if (set != NULL && (how < 1 || how > 3)) {
        return EINVAL;
    }
    mask_from_darwin(set != NULL ? *set : 0, &ours);
    int code =
        pthread_sigmask(set != NULL ? hows[how] : SIG_BLOCK, set != NULL ? &ours : NULL, &was);
    if (code == 0 && before != NULL) {
        *before = mask_to_darwin(&was);
    }
    return macho_errno(code);
}

static int bridge_sigprocmask(int how, const uint32_t *set, uint32_t *before)
{
    errno = macho_errno_to_linux(bridge_pthread_sigmask(how, set, before));
    return errno == 0 ? 0 : -1;
}

static int bridge_sigpending(uint32_t *out)
{
    sigset_t pending;
    int rc = sigpending(&pending);
    if (rc == 0) {
        *out = mask_to_darwin(&pending);
    }
    return rc;
}

static int bridge_sigwait(const uint32_t *set, int *out)
{
    sigset_t ours;
    int number = 0;
    mask_from_darwin(*set, &ours);
    int code = sigwait(&ours, &number);
    if (code == 0) {
        *out = macho_signal_to_darwin(number);
    }
    return macho_errno(code);
}

/* The 23rd doubleword of a jmp_buf; called from bridge.S. The kernel's set is one doubleword. */
int bridge_mask_keep(uint64_t *buffer);
void bridge_mask_restore(const uint64_t *buffer);

int bridge_mask_keep(uint64_t *buffer)
{
    sigset_t mask;
    (void)pthread_sigmask(SIG_BLOCK, NULL, &mask);
    memcpy(&buffer[22], &mask, sizeof buffer[22]);
    return 0;
}

void bridge_mask_restore(const uint64_t *buffer)
{
    sigset_t mask;
    (void)sigemptyset(&mask);
    memcpy(&mask, &buffer[22], sizeof buffer[22]);
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static int bridge_raise(int number)
{
    return raise(signal_from_darwin(number));
}

static int bridge_kill(pid_t process, int number)
{
    return kill(process, number == 0 ? 0 : signal_from_darwin(number));
}

/* A thread of the program is one of ours. */
static int bridge_pthread_kill(pthread_t thread, int number)
{
    return macho_errno(pthread_kill(thread, number == 0 ? 0 : signal_from_darwin(number)));
}

typedef struct darwin_stack {
    void *memory;
    size_t size;
    int flags; /* 1: in use, 4: none */
} darwin_stack;

static int bridge_sigaltstack(const darwin_stack *set, darwin_stack *before)
{
    stack_t was;
    stack_t now = {0};
    if (set != NULL) {
        now = (stack_t){.ss_sp = set->memory,
                        .ss_size = set->size,
                        .ss_flags = (set->flags & 4) != 0 ? SS_DISABLE : 0};
    }
    if (sigaltstack(set != NULL ? &now : NULL, &was) != 0) {
        return -1;
    }
    if (before != NULL) {
        *before = (darwin_stack){.memory = was.ss_sp,
                                 .size = was.ss_size,
                                 .flags = (was.ss_flags & SS_ONSTACK) != 0   ? 1
                                          : (was.ss_flags & SS_DISABLE) != 0 ? 4
                                                                             : 0};
    }
    return 0;
}

static char *bridge_strsignal(int number)
{
    return strsignal(signal_from_darwin(number));
}

static clockid_t clock_from_darwin(int clock)
{
    switch (clock) {
    case 0:
        return CLOCK_REALTIME;
    case 4:
    case 5:
        return CLOCK_MONOTONIC_RAW;
    case 6:
    case 8:
    case 9:
        return CLOCK_MONOTONIC;
    case 12:
        return CLOCK_PROCESS_CPUTIME_ID;
    case 16:
        return CLOCK_THREAD_CPUTIME_ID;
    default:
        macho_die("no bridge for clock %d", clock);
    }
}

static int bridge_clock_gettime(int clock, struct timespec *out)
{
    return clock_gettime(clock_from_darwin(clock), out);
}

static uint64_t bridge_clock_gettime_nsec_np(int clock)
{
    struct timespec now = {0, 0};
    (void)clock_gettime(clock_from_darwin(clock), &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Its microseconds are an int, followed by 4 bytes that nobody reads. */
static int bridge_gettimeofday(struct timeval *out, void *zone)
{
    return gettimeofday(out, zone);
}

static uint64_t bridge_mach_absolute_time(void)
{
    return bridge_clock_gettime_nsec_np(8);
}

/* Ticks are nanoseconds here; on a Mac they are 125/3. */
static int bridge_mach_timebase_info(uint32_t out[2])
{
    out[0] = 1;
    out[1] = 1;
    return 0;
}

static int bridge_usleep(uint32_t microseconds)
{
    return usleep(microseconds);
}

/* Of a small machine: programs reserve addresses by how much memory there is, and the emulator
 * keeps books of every page of them. */
static uint64_t memory_bytes(void)
{
    const uint64_t most = UINT64_C(2) << 30;
    uint64_t ours = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return ours < most ? ours : most;
}

static long bridge_sysconf(int name)
{
    switch (name) {
    case 29: /* _SC_PAGESIZE */
        return MACHO_PAGE_BYTES;
    case 57:
        return sysconf(_SC_NPROCESSORS_CONF);
    case 58:
        return sysconf(_SC_NPROCESSORS_ONLN);
    case 200:
        return (long)(memory_bytes() / MACHO_PAGE_BYTES);
    default:
        macho_die("sysconf: no bridge for %d", name);
    }
}

static int bridge_getpagesize(void)
{
    return MACHO_PAGE_BYTES;
}

/* A figure or a text that was asked for, or its size only. */
static int figure_out(const void *value, size_t size, void *old, size_t *old_size)
{
    if (old != NULL && *old_size < size) {
        errno = ENOMEM;
        return -1;
    }
    if (old != NULL) {
        memcpy(old, value, size);
    }
    *old_size = size;
    return 0;
}

/* Whether a process is there and has not ended. */
static bool process_runs(int pid)
{
    char path[32];
    char text[512] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) {
        (void)close(file);
    }
    const char *name_end = length > 0 ? strrchr(text, ')') : NULL;
    return name_end != NULL && strncmp(name_end, ") Z", 3) != 0;
}

/* KERN_PROC_PID. What is known of a process: when it started, which is where the answer begins; the
 * rest is zeros. Of one that has ended there is no answer, which is no error. */
static int bridge_sysctl(const int *name, unsigned count, void *old, size_t *old_size,
                         const void *fresh, size_t fresh_size)
{
    static const int64_t started_s = 1700000000;
    (void)fresh;
    (void)fresh_size;
    if (count == 4 && !process_runs(name[3])) {
        *old_size = 0;
        return 0;
    }
    memset(old, 0, *old_size);
    memcpy(old, &started_s, sizeof started_s);
    return 0;
}

/* The figures of a machine that our code asks; others are unknown there too: ENOENT. One may be
 * set: it makes memory pressure. */
static int bridge_sysctlbyname(const char *name, void *old, size_t *old_size, const void *fresh,
                               size_t fresh_size)
{
    const struct {
        const char *name;
        uint64_t value;
        size_t size;
    } figures[] = {
        {"hw.memsize", memory_bytes(), 8}, {"hw.pagesize", MACHO_PAGE_BYTES, 8},
        {"hw.cachelinesize", 128, 8},      {"hw.ncpu", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN), 4},
        {"hw.optional.arm64", 1, 4},
    };
    static const struct {
        const char *name, *text;
    } texts[] = {{"kern.osrelease", "22.6.0"}, {"kern.osversion", "macho_run"}};
    if (fresh != NULL) {
        int level;
        if (strcmp(name, "kern.memorypressure_manual_trigger") != 0 || old != NULL ||
            fresh_size != sizeof level) {
            errno = EPERM;
            return -1;
        }
        memcpy(&level, fresh, sizeof level);
        macho_pressure((unsigned long)level);
        return 0;
    }
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        if (strcmp(figures[i].name, name) == 0) {
            return figure_out(&figures[i].value, figures[i].size, old, old_size);
        }
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(texts[i].name, name) == 0) {
            return figure_out(texts[i].text, strlen(texts[i].text) + 1, old, old_size);
        }
    }
    errno = ENOENT;
    return -1;
}

static char ***bridge_NSGetEnviron(void)
{
    return &environ;
}

/* In bridge.S. */
void bridge_setjmp(void);
void bridge_setjmp_plain(void);
void bridge_sigsetjmp(void);
void bridge_longjmp(void);
void bridge_longjmp_plain(void);
void bridge_siglongjmp(void);

const macho_bridge macho_bridges_system[] = {
    BRIDGE_AS("___error", bridge_error),
    BRIDGE(strerror),
    BRIDGE(strerror_r),
    BRIDGE(perror),
    BRIDGE(signal),
    BRIDGE(sigaction),
    BRIDGE(sigprocmask),
    BRIDGE(pthread_sigmask),
    BRIDGE(sigpending),
    BRIDGE(sigwait),
    BRIDGE(raise),
    BRIDGE(kill),
    BRIDGE(pthread_kill),
    BRIDGE(sigaltstack),
    BRIDGE(strsignal),
    BRIDGE(clock_gettime),
    BRIDGE(clock_gettime_nsec_np),
    BRIDGE(gettimeofday),
    BRIDGE(mach_absolute_time),
    BRIDGE(mach_timebase_info),
    BRIDGE(usleep),
    BRIDGE(sysconf),
    BRIDGE(getpagesize),
    BRIDGE(sysctl),
    BRIDGE(sysctlbyname),
    BRIDGE_AS("__NSGetEnviron", bridge_NSGetEnviron),
    BRIDGE(setjmp),
    BRIDGE(longjmp),
    BRIDGE(sigsetjmp),
    BRIDGE(siglongjmp),
    BRIDGE_AS("__setjmp", bridge_setjmp_plain),
    BRIDGE_AS("__longjmp", bridge_longjmp_plain),
    DIRECT(isatty),
    DIRECT(sleep),
    DIRECT(alarm),
    BRIDGES_END,
};
