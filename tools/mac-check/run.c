/* Checks in processes of their own: started, watched, and ended when their time is over. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __APPLE__
extern char **environ; /* whose headers do not have it */
#endif

static const char *self_path;
/* The child under way, for the handler; 0 for none. */
static volatile sig_atomic_t child;
/* This process was asked to end while it had a child: it ends that first. */
static volatile sig_atomic_t ending;

enum {
    OVERDUE = -1000, /* no signal's number */
    NOT_STARTED = -1001,
    END_WAIT_MS = 500, /* for a child that is asked to end */
    KILL_WAIT_S = 10   /* for one that was killed, and hangs in the system */
};

static void on_end(int number)
{
    (void)number;
    if (child == 0) {
        _exit(VERDICT_FAILS);
    }
    ending = 1;
}

static void ends_handle(void)
{
    (void)signal(SIGTERM, on_end);
    (void)signal(SIGINT, on_end);
    /* nohup(1) ignores it. */
    if (signal(SIGHUP, on_end) == SIG_IGN) {
        (void)signal(SIGHUP, SIG_IGN);
    }
}

void self_set(const char *path)
{
    self_path = path;
}

/* Asks first: the child may have a child of its own. */
_Noreturn static void child_end(pid_t pid)
{
    const double until_us = now_us() + END_WAIT_MS * 1e3;
    pid_t ended = 0;
    (void)kill(pid, SIGTERM);
    while ((ended = waitpid(pid, NULL, WNOHANG)) == 0 && now_us() < until_us) {
        sleep_ms(2);
    }
    if (ended == 0) {
        (void)kill(pid, SIGKILL);
    }
    _exit(VERDICT_FAILS);
}

static int child_wait(pid_t pid, unsigned limit_s, int pipe_end, char *out, size_t out_bytes)
{
    double until_us = now_us() + (double)limit_s * 1e6;
    size_t length = 0;
    bool overdue = false;
    int status = 0;
    for (;;) {
        char lost[512];
        ssize_t got = -1;
        /* Also when nobody wants it, or the child would wait for room in the pipe. */
        while (pipe_end >= 0 &&
               (got = length + 1 < out_bytes ? read(pipe_end, out + length, out_bytes - 1 - length)
                                             : read(pipe_end, lost, sizeof lost)) > 0) {
            length += length + 1 < out_bytes ? (size_t)got : 0;
        }
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid) {
            break;
        }
        if (ended < 0 && errno != EINTR) {
            return NOT_STARTED;
        }
        if (ending) {
            child_end(pid);
        }
        if (now_us() > until_us) {
            if (overdue) {
                say("process %ld does not even end when it is killed", (long)pid);
                return OVERDUE;
            }
            overdue = true;
            until_us = now_us() + KILL_WAIT_S * 1e6;
            (void)kill(pid, SIGKILL);
        }
        sleep_ms(2);
    }
    if (pipe_end >= 0) {
        ssize_t got;
        while (length + 1 < out_bytes &&
               (got = read(pipe_end, out + length, out_bytes - 1 - length)) > 0) {
            length += (size_t)got;
        }
        out[length] = '\0';
    }
    if (overdue) {
        return OVERDUE;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int self_run(const char *const *arguments, unsigned limit_s, char *out, size_t out_bytes)
{
    enum {
        ARGUMENTS_MAX = 8
    };
    char *list[ARGUMENTS_MAX + 2];
    size_t count = 0;
    int ends[2] = {-1, -1};
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    /* posix_spawn takes pointers to char for historical reasons, and writes nothing. */
    list[count++] = (char *)(uintptr_t)self_path;
    for (; arguments[count - 1] != NULL && count <= ARGUMENTS_MAX; count++) {
        list[count] = (char *)(uintptr_t)arguments[count - 1];
    }
    list[count] = NULL;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return NOT_STARTED;
    }
    if (out != NULL) {
        if (pipe(ends) != 0) {
            (void)posix_spawn_file_actions_destroy(&actions);
            return NOT_STARTED;
        }
        (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
        (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        (void)posix_spawn_file_actions_addclose(&actions, ends[0]);
        (void)posix_spawn_file_actions_addclose(&actions, ends[1]);
    }
    (void)fflush(stdout);
    int failed = posix_spawn(&pid, self_path, &actions, NULL, list, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (ends[1] >= 0) {
        (void)close(ends[1]);
    }
    int result = NOT_STARTED;
    if (failed == 0) {
        child = (sig_atomic_t)pid;
        result = child_wait(pid, limit_s, ends[0], out, out_bytes);
        child = 0;
        if (ending) {
            _exit(VERDICT_FAILS);
        }
    }
    if (ends[0] >= 0) {
        (void)close(ends[0]);
    }
    return result;
}

/* The layers of validation that Metal reads at the start of a process. */
static const char *const validation[] = {"MTL_DEBUG_LAYER", "MTL_DEBUG_LAYER_ERROR_MODE",
                                         "MTL_DEBUG_LAYER_WARNING_MODE", "MTL_SHADER_VALIDATION"};

enum {
    VALIDATIONS = sizeof validation / sizeof validation[0],
    VALUE_BYTES = 32
};

static void validation_drop(char kept[VALIDATIONS][VALUE_BYTES])
{
    for (size_t i = 0; i < VALIDATIONS; i++) {
        const char *value = getenv(validation[i]);
        (void)snprintf(kept[i], VALUE_BYTES, "%s", value != NULL ? value : "");
        (void)unsetenv(validation[i]);
    }
}

static void validation_restore(char kept[VALIDATIONS][VALUE_BYTES])
{
    for (size_t i = 0; i < VALIDATIONS; i++) {
        if (kept[i][0] != '\0') {
            (void)setenv(validation[i], kept[i], 1);
        }
    }
}

/* ---- questions ---- */

/* Where a check tells its parent of its question; -1 for nowhere. */
static int question_out = -1;

void question_tell(int descriptor)
{
    question_out = descriptor;
}

static void question_byte(char byte)
{
    if (question_out >= 0 && write(question_out, &byte, 1) != 1) {
        die("the parent does not listen");
    }
}

void question_begin(void)
{
    say("asking Metal for it ...");
    (void)fflush(stdout);
    question_byte('?');
}

void question_end(void)
{
    question_byte('.');
}

/* Whether the check was ended between its question and the answer. */
static bool question_open(int descriptor)
{
    char bytes[8];
    ssize_t got = descriptor >= 0 ? read(descriptor, bytes, sizeof bytes) : -1;
    return got > 0 && bytes[got - 1] == '?';
}

/* ---- checks ---- */

static verdict judge(const check *c, int result, bool asked)
{
    if (result == OVERDUE) {
        say("ended: it took more than %u s", c->limit_s);
        return VERDICT_FAILS;
    }
    if (result == NOT_STARTED) {
        say("the check could not be started");
        return VERDICT_FAILS;
    }
    if (result < 0) {
        say("the process was ended by signal %d (%s)%s", -result, strsignal(-result),
            c->may_end && !asked ? ", but not by the question" : "");
        /* What Metal's validation does; any other signal is a crash. */
        return asked && (result == -SIGABRT || result == -SIGTRAP) ? VERDICT_HOLDS : VERDICT_FAILS;
    }
    return result <= VERDICT_STRICTER ? (verdict)result : VERDICT_FAILS;
}

static verdict check_start(const check *c)
{
    int ends[2] = {-1, -1};
    char told[16] = "-1";
    const char *const arguments[] = {"check", c->name, told, NULL};
    if (c->may_end) {
        if (pipe(ends) != 0) {
            return judge(c, NOT_STARTED, false);
        }
        (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
        (void)snprintf(told, sizeof told, "%d", ends[1]);
    }
    int result = self_run(arguments, c->limit_s, NULL, 0);
    verdict v = judge(c, result, question_open(ends[0]));
    if (c->may_end) {
        (void)close(ends[0]);
        (void)close(ends[1]);
    }
    return v;
}

verdict check_watch(const check *c)
{
    static const char *const words[] = {"holds", "does-not-hold", "unknown", "stricter"};
    char kept[VALIDATIONS][VALUE_BYTES];
    ends_handle();
    (void)printf("-- %s\n", c->name);
    validation_drop(kept);
    if (!c->unvalidated) {
        validation_restore(kept);
    }
    double start_us = now_us();
    verdict v = check_start(c);
    double took_s = (now_us() - start_us) / 1e6;
    validation_restore(kept);
    (void)printf("%s %-15s %5.1f s  %s\n", c->name, words[v], took_s, c->claim);
    return v;
}

int check_run(const check *wanted)
{
    probe p = {0};
    /* Being ended is part of some checks; nobody wants their memory in a file. */
    const struct rlimit none = {0};
    (void)setrlimit(RLIMIT_CORE, &none);
    ends_handle();
    if (!wanted->own_devices) {
        probe_open(&p);
    }
    verdict v = wanted->run(&p);
    if (!wanted->own_devices) {
        probe_close(&p);
    }
    return (int)v;
}
