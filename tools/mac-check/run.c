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

enum {
    OVERDUE = -1000, /* no signal's number */
    NOT_STARTED = -1001
};

static void on_end(int number)
{
    (void)number;
    if (child != 0) {
        (void)kill((pid_t)child, SIGKILL);
    }
    _exit(VERDICT_FAILS);
}

void self_set(const char *path)
{
    self_path = path;
}

static int child_wait(pid_t pid, unsigned limit_s, int pipe_end, char *out, size_t out_bytes)
{
    const double until_us = now_us() + (double)limit_s * 1e6;
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
        if (!overdue && now_us() > until_us) {
            overdue = true;
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

static verdict judge(const check *c, int result)
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
        say("the process was ended by signal %d (%s)", -result, strsignal(-result));
        return c->may_end ? VERDICT_HOLDS : VERDICT_FAILS;
    }
    return result <= VERDICT_UNKNOWN ? (verdict)result : VERDICT_FAILS;
}

unsigned checks_run(const check *checks, size_t count)
{
    static const char *const words[] = {"holds", "does-not-hold", "unknown"};
    unsigned failed = 0;
    (void)signal(SIGTERM, on_end);
    (void)signal(SIGINT, on_end);
    for (size_t i = 0; i < count; i++) {
        const check *c = &checks[i];
        char kept[VALIDATIONS][VALUE_BYTES];
        const char *const arguments[] = {"check", c->name, NULL};
        (void)printf("-- %s\n", c->name);
        validation_drop(kept);
        if (!c->unvalidated) {
            validation_restore(kept);
        }
        double start_us = now_us();
        verdict v = judge(c, self_run(arguments, c->limit_s, NULL, 0));
        double took_s = (now_us() - start_us) / 1e6;
        validation_restore(kept);
        const bool stricter = v == VERDICT_FAILS && c->harmless;
        failed += v == VERDICT_FAILS && !stricter;
        (void)printf("%s %-15s %5.1f s  %s\n", c->name, stricter ? "stricter" : words[v], took_s,
                     c->claim);
    }
    return failed;
}

int check_run(const check *wanted)
{
    probe p = {0};
    /* Being ended is part of some checks; nobody wants their memory in a file. */
    const struct rlimit none = {0};
    (void)setrlimit(RLIMIT_CORE, &none);
    if (!wanted->own_devices) {
        probe_open(&p);
    }
    verdict v = wanted->run(&p);
    if (!wanted->own_devices) {
        probe_close(&p);
    }
    return (int)v;
}
