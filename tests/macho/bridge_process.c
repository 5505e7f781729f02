/*
 * Processes: their limits and figures, and how one starts another. A program for macOS is started
 * by the script that started this one, tests/macho/run, which is found in UMO_MACHO_RUN.
 */
#include "bridges.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t bridge_waitpid(pid_t process, int *out_status, int options)
{
    int status = 0;
    pid_t done = waitpid(process, &status, options);
    if (done > 0 && WIFSIGNALED(status)) {
        status = (status & ~0x7f) | macho_signal_to_darwin(WTERMSIG(status));
    }
    if (out_status != NULL) {
        *out_status = status;
    }
    return done;
}

/* The layouts agree; Darwin counts the largest resident size in bytes. */
static int bridge_getrusage(int who, struct rusage *out)
{
    int rc = getrusage(who, out);
    if (rc == 0) {
        out->ru_maxrss *= 1024;
    }
    return rc;
}

/* Darwin's word for "no limit" is the largest signed number. */
#define NO_LIMIT ((rlim_t)INT64_MAX)

/* Those that mean the same here; Darwin's own RLIMIT_AS is another name of the resident set's. */
static int limit_from_darwin(const char *call, int which)
{
    switch (which) {
    case 1:
        return RLIMIT_FSIZE;
    case 4:
        return RLIMIT_CORE;
    case 6:
        return RLIMIT_MEMLOCK;
    case 8:
        return RLIMIT_NOFILE;
    default:
        macho_die("%s: no bridge for limit %d", call, which);
    }
}

static int bridge_getrlimit(int which, struct rlimit *out)
{
    struct rlimit ours;
    int rc = getrlimit(limit_from_darwin("getrlimit", which), &ours);
    if (rc == 0) {
        out->rlim_cur = ours.rlim_cur < NO_LIMIT ? ours.rlim_cur : NO_LIMIT;
        out->rlim_max = ours.rlim_max < NO_LIMIT ? ours.rlim_max : NO_LIMIT;
    }
    return rc;
}

static int bridge_setrlimit(int which, const struct rlimit *limit)
{
    const struct rlimit ours = {
        .rlim_cur = limit->rlim_cur < NO_LIMIT ? limit->rlim_cur : RLIM_INFINITY,
        .rlim_max = limit->rlim_max < NO_LIMIT ? limit->rlim_max : RLIM_INFINITY,
    };
    return setrlimit(limit_from_darwin("setrlimit", which), &ours);
}

/* A line of /proc/self/status, in bytes; of the emulator's process, which is ours. */
static uint64_t status_bytes(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    uint64_t kib = 0;
    size_t length = strlen(name);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            kib = strtoull(line + length + 1, NULL, 10);
        }
    }
    if (file == NULL || kib == 0) {
        macho_die("/proc/self/status does not say %s", name);
    }
    (void)fclose(file);
    return kib * 1024;
}

/* The first revision of struct task_vm_info, packed to 4 bytes; what Linux does not count is 0. */
typedef struct vm_info {
    uint32_t all[2];
    int32_t regions, page;
    uint32_t resident[2], resident_most[2];
    uint32_t between[28];
    uint32_t footprint[2];
} vm_info;
_Static_assert(sizeof(vm_info) == 152, "Darwin's struct task_vm_info, revision 1");

static int bridge_task_info(uint32_t task, uint32_t flavor, void *out, uint32_t *count)
{
    const uint32_t words = sizeof(vm_info) / sizeof(uint32_t);
    if (task != macho_task_self || flavor != 22 || *count < words) {
        macho_die("task_info: no bridge for flavor %u with %u words", (unsigned)flavor,
                  (unsigned)*count);
    }
    const uint64_t all = status_bytes("VmSize");
    const uint64_t resident = status_bytes("VmRSS");
    const uint64_t most = status_bytes("VmHWM");
    const uint64_t own = status_bytes("RssAnon");
    vm_info info = {.page = MACHO_PAGE_BYTES};
    memcpy(info.all, &all, sizeof all);
    memcpy(info.resident, &resident, sizeof resident);
    memcpy(info.resident_most, &most, sizeof most);
    memcpy(info.footprint, &own, sizeof own);
    memcpy(out, &info, sizeof info);
    *count = words;
    return 0;
}

/* Darwin's type is a pointer: to ours. */
static int bridge_posix_spawn_file_actions_init(posix_spawn_file_actions_t **out)
{
    posix_spawn_file_actions_t *actions = malloc(sizeof *actions);
    if (actions == NULL) {
        return ENOMEM;
    }
    *out = actions;
    return macho_errno(posix_spawn_file_actions_init(actions));
}

static int bridge_posix_spawn_file_actions_destroy(posix_spawn_file_actions_t **actions)
{
    int rc = posix_spawn_file_actions_destroy(*actions);
    free(*actions);
    *actions = NULL;
    return macho_errno(rc);
}

static int bridge_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t **actions, int fd,
                                                   int as)
{
    return macho_errno(posix_spawn_file_actions_adddup2(*actions, fd, as));
}

static int bridge_posix_spawn_file_actions_addclose(posix_spawn_file_actions_t **actions, int fd)
{
    return macho_errno(posix_spawn_file_actions_addclose(*actions, fd));
}

static bool is_macho(const char *path)
{
    uint32_t magic = 0;
    FILE *file = fopen(path, "rbe");
    if (file != NULL) {
        (void)fread(&magic, 1, sizeof magic, file);
        (void)fclose(file);
    }
    return magic == MACHO_MAGIC_64;
}

static int bridge_posix_spawn(pid_t *out, const char *path, posix_spawn_file_actions_t **actions,
                              const void *attributes, char **argv, char **envp)
{
    enum {
        ARGUMENTS_MAX = 64
    };
    char *list[ARGUMENTS_MAX + 2];
    if (attributes != NULL || !is_macho(path)) {
        macho_die("posix_spawn: no bridge for attributes, or for what is no program for macOS");
    }
    list[0] = getenv("UMO_MACHO_RUN");
    if (list[0] == NULL) {
        macho_die("posix_spawn: UMO_MACHO_RUN does not say how programs are run");
    }
    /* The loader takes the file where the program's own name stands. */
    list[1] = (char *)(uintptr_t)path;
    size_t count = 1;
    for (; argv[count] != NULL; count++) {
        if (count == ARGUMENTS_MAX) {
            return 7; /* E2BIG */
        }
        list[count + 1] = argv[count];
    }
    list[count + 1] = NULL;
    return macho_errno(
        posix_spawn(out, list[0], actions != NULL ? *actions : NULL, NULL, list, envp));
}

const macho_bridge macho_bridges_process[] = {
    BRIDGE(waitpid),
    BRIDGE(getrusage),
    BRIDGE(getrlimit),
    BRIDGE(setrlimit),
    BRIDGE(task_info),
    BRIDGE(posix_spawn),
    BRIDGE(posix_spawn_file_actions_init),
    BRIDGE(posix_spawn_file_actions_destroy),
    BRIDGE(posix_spawn_file_actions_adddup2),
    BRIDGE(posix_spawn_file_actions_addclose),
    DIRECT(fork),
    DIRECT(getpid),
    DIRECT(getppid),
    DIRECT(getuid),
    DIRECT(geteuid),
    DIRECT(setuid),
    BRIDGES_END,
};
