/*
 * Whether a process survives: 100 MB idle in umo's pools, the application grows by 150 MB, all of
 * it in a cgroup of 200 MB. Without an answer the kernel kills it, which the control shows.
 *
 *   pressure [--turns N] [--pace burst|steps|slow|all]
 *
 * Two lines of JSON for each pace, the control and umo's: how many turns were survived, how many
 * the kernel killed. Turns with and without an answer alternate. Each turn is a child of its own
 * that enters the cgroup before it allocates; the program itself stays outside. Exits with 77 where
 * no such cgroup can be made, and says why.
 */
#include <umo/umo.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define LIMIT_BYTES (200 * MIB)
#define POOL_BYTES (100 * MIB)
#define GROWTH_BYTES (150 * MIB)
#define BLOCK_BYTES MIB
#define SKIPPED 77
#define PATH_BYTES 4096

typedef enum pace {
    PACE_BURST, /* one memset */
    PACE_STEPS, /* 1 MB at a time, without a pause */
    PACE_SLOW,  /* 1 MB, then a millisecond */
    PACES
} pace;

static const char *const pace_names[PACES] = {"burst", "steps", "slow"};

static char group[PATH_BYTES];

/* ---- the cgroup ---- */

static bool file_write(const char *name, const char *text)
{
    char path[PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", group, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    bool written = write(file, text, strlen(text)) == (ssize_t)strlen(text);
    int code = errno;
    (void)close(file);
    errno = code;
    return written;
}

/* The folder of our own memory cgroup; an empty text where there is none that we know. */
static void own_group(char *out, size_t out_bytes)
{
    char line[PATH_BYTES];
    char path[PATH_BYTES] = "";
    char mount[PATH_BYTES] = "";
    char root[PATH_BYTES] = "";
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *at = strstr(line, ":memory:");
        if (at != NULL) {
            at[strcspn(at, "\n")] = '\0';
            (void)snprintf(path, sizeof path, "%s", at + strlen(":memory:"));
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    file = fopen("/proc/self/mountinfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *type = strstr(line, " - cgroup ");
        if (type != NULL && strstr(type, "memory") != NULL) {
            /* The fields are paths, cut by the longest that fits. NOLINTNEXTLINE(cert-err34-c) */
            (void)sscanf(line, "%*s %*s %*s %4095s %4095s", root, mount);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    size_t cut = strcmp(root, "/") == 0 ? 0 : strlen(root);
    out[0] = '\0';
    if (path[0] != '\0' && mount[0] != '\0' && strncmp(path, root, cut) == 0) {
        int length = snprintf(out, out_bytes, "%s%s", mount, path + cut);
        out[length > 0 && (size_t)length < out_bytes ? (size_t)length : 0] = '\0';
    }
}

/* NULL, or why there can be none. */
static const char *group_create(void)
{
    char own[PATH_BYTES];
    own_group(own, sizeof own - 64);
    if (own[0] == '\0') {
        return "this process is in no memory cgroup of version 1";
    }
    (void)snprintf(group, sizeof group, "%.*s/umo-pressure-%ld", PATH_BYTES - 64, own,
                   (long)getpid());
    if (mkdir(group, 0755) != 0) {
        group[0] = '\0';
        return "no cgroup can be made";
    }
    char limit[32];
    (void)snprintf(limit, sizeof limit, "%zu", LIMIT_BYTES);
    if (!file_write("memory.limit_in_bytes", limit)) {
        return "the cgroup takes no limit";
    }
    (void)file_write("memory.swappiness", "0"); /* or it would swap instead of dying */
    return NULL;
}

static void group_remove(void)
{
    for (int i = 0; group[0] != '\0' && i < 100 && rmdir(group) != 0 && errno == EBUSY; i++) {
        (void)usleep(10000);
    }
}

/* How often the kernel has killed in it. */
static unsigned long kills(void)
{
    char path[PATH_BYTES + 64];
    char line[128];
    unsigned long count = 0;
    (void)snprintf(path, sizeof path, "%s/memory.oom_control", group);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        (void)sscanf(line, "oom_kill %lu", &count); /* NOLINT(cert-err34-c) */
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return count;
}

/* ---- one turn, in a process of its own ---- */

typedef struct report {
    unsigned char survived;
    uint64_t trimmed_bytes;
    uint64_t growth_ns;
    uint64_t answer_max_ns;
} report;

static void need(bool good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "pressure: %s\n", what);
        _exit(2);
    }
}

/* Fills the pool with blocks that were touched, all of them free. */
static void pool_fill(umo_pool *pool)
{
    static umo_buffer *blocks[POOL_BYTES / BLOCK_BYTES];
    const size_t count = sizeof blocks / sizeof blocks[0];
    for (size_t i = 0; i < count; i++) {
        need(umo_pool_alloc(pool, BLOCK_BYTES, 0, &blocks[i], NULL) == UMO_OK, "a block");
        memset(umo_buffer_host(blocks[i]), 0x5a, BLOCK_BYTES);
    }
    for (size_t i = 0; i < count; i++) {
        need(umo_pool_free(pool, blocks[i]) == UMO_OK, "a block back");
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned char *grow(pace how)
{
    unsigned char *memory =
        mmap(NULL, GROWTH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "address space");
    size_t step = how == PACE_BURST ? GROWTH_BYTES : MIB;
    for (size_t at = 0; at < GROWTH_BYTES; at += step) {
        memset(memory + at, 0xa5, step);
        if (how == PACE_SLOW) {
            (void)usleep(1000);
        }
    }
    return memory;
}

static void turn_run(pace how, bool answer, int out)
{
    char pid[32];
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    need(file_write("cgroup.procs", pid), "the cgroup takes no process");
    umo_device *device;
    umo_scope *scope;
    umo_pool *pool;
    umo_pressure *pressure = NULL;
    need(umo_device_open("host", 0, NULL, &device, NULL) == UMO_OK, "the host device");
    need(umo_scope_create(NULL, "pressure", 0, &scope, NULL) == UMO_OK, "a scope");
    /* A pool that gives nothing back by itself: what is measured is the answer. */
    const umo_pool_options options = {.device = device,
                                      .scope = scope,
                                      .mode = UMO_UNIFIED,
                                      .keep_bytes_max = 2 * POOL_BYTES,
                                      .idle_keep_bytes = 2 * POOL_BYTES,
                                      .idle_ns = UINT64_MAX};
    need(umo_pool_create(&options, &pool, NULL) == UMO_OK, "a pool");
    pool_fill(pool);
    need(umo_pools_kept(scope) >= POOL_BYTES, "the pool keeps what was freed");
    if (answer) {
        need(umo_pressure_create(NULL, scope, &pressure, NULL) == UMO_OK, "the watch");
    }
    report said = {.survived = 1};
    uint64_t start_ns = now_ns();
    unsigned char *memory = grow(how);
    said.growth_ns = now_ns() - start_ns;
    for (size_t at = 0; at < GROWTH_BYTES; at += 4096) {
        need(memory[at] == 0xa5, "the application's bytes");
    }
    if (answer) {
        umo_pressure_stats stats;
        umo_pressure_read(pressure, &stats);
        said.trimmed_bytes = stats.answers[UMO_PRESSURE_TRIM].bytes;
        said.answer_max_ns = stats.answer_max_ns;
    }
    umo_pressure_destroy(pressure);
    umo_pool_destroy(pool);
    umo_scope_destroy(scope);
    umo_device_release(device);
    need(write(out, &said, sizeof said) == (ssize_t)sizeof said, "a report");
    _exit(0);
}

/* How a turn ended. */
typedef enum verdict {
    VERDICT_SURVIVED,
    VERDICT_KILLED, /* by the kernel, for its memory */
    VERDICT_FAILED  /* anything else */
} verdict;

static verdict turn(pace how, bool answer, report *out)
{
    int ends[2];
    unsigned long kills_before = kills();
    *out = (report){.survived = 0};
    if (pipe(ends) != 0) {
        return VERDICT_FAILED;
    }
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)close(ends[0]);
        turn_run(how, answer, ends[1]);
    }
    (void)close(ends[1]);
    bool told = child > 0 && read(ends[0], out, sizeof *out) == (ssize_t)sizeof *out;
    (void)close(ends[0]);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return VERDICT_FAILED;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && kills() > kills_before) {
        return VERDICT_KILLED;
    }
    return told && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? VERDICT_SURVIVED
                                                                 : VERDICT_FAILED;
}

/* ---- all of them ---- */

typedef struct outcome {
    unsigned turns;
    unsigned survived;
    unsigned killed;
    uint64_t trimmed_min_bytes;
    uint64_t growth_min_ns;
    uint64_t growth_max_ns;
    uint64_t answer_max_ns;
} outcome;

static void outcome_add(outcome *sum, verdict how, const report *said)
{
    sum->turns++;
    sum->survived += how == VERDICT_SURVIVED ? 1 : 0;
    sum->killed += how == VERDICT_KILLED ? 1 : 0;
    if (how != VERDICT_SURVIVED) {
        return;
    }
    bool first = sum->survived == 1;
    sum->trimmed_min_bytes = first || said->trimmed_bytes < sum->trimmed_min_bytes
                                 ? said->trimmed_bytes
                                 : sum->trimmed_min_bytes;
    sum->growth_min_ns =
        first || said->growth_ns < sum->growth_min_ns ? said->growth_ns : sum->growth_min_ns;
    sum->growth_max_ns =
        said->growth_ns > sum->growth_max_ns ? said->growth_ns : sum->growth_max_ns;
    sum->answer_max_ns =
        said->answer_max_ns > sum->answer_max_ns ? said->answer_max_ns : sum->answer_max_ns;
}

static void outcome_print(const char *name, bool answer, const outcome *sum)
{
    (void)printf("{\"pace\": \"%s\", \"answer\": %s, \"turns\": %u, \"survived\": %u, "
                 "\"killed\": %u, \"trimmed_min_mib\": %.1f, \"growth_ms\": [%.1f, %.1f], "
                 "\"answer_max_ms\": %.2f}\n",
                 name, answer ? "true" : "false", sum->turns, sum->survived, sum->killed,
                 (double)sum->trimmed_min_bytes / (double)MIB, (double)sum->growth_min_ns / 1e6,
                 (double)sum->growth_max_ns / 1e6, (double)sum->answer_max_ns / 1e6);
    (void)fflush(stdout);
}

/* Turns with an answer and as many without, one after the other. True when all went as they must.
 */
static bool pace_run(pace how, unsigned turns)
{
    outcome sums[2] = {{.turns = 0}, {.turns = 0}};
    for (unsigned t = 0; t < turns; t++) {
        for (int answer = 0; answer < 2; answer++) {
            report said;
            verdict ended = turn(how, answer != 0, &said);
            outcome_add(&sums[answer], ended, &said);
        }
    }
    outcome_print(pace_names[how], false, &sums[0]);
    outcome_print(pace_names[how], true, &sums[1]);
    return sums[0].killed == turns && sums[1].survived == turns;
}

static int usage(void)
{
    (void)fprintf(stderr, "pressure [--turns N] [--pace burst|steps|slow|all]\n");
    return 2;
}

int main(int count, char **words)
{
    unsigned turns = 20;
    const char *wanted = "all";
    for (int i = 1; i + 1 < count; i += 2) {
        if (strcmp(words[i], "--turns") == 0) {
            turns = (unsigned)strtoul(words[i + 1], NULL, 10);
        } else if (strcmp(words[i], "--pace") == 0) {
            wanted = words[i + 1];
        } else {
            return usage();
        }
    }
    if (count % 2 == 0) {
        return usage();
    }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)printf("skipped: a sanitizer's own memory would count against the limit\n");
    return SKIPPED;
#endif
    const char *why = group_create();
    bool good = true;
    bool known = false;
    for (int p = 0; why == NULL && p < PACES; p++) {
        if (strcmp(wanted, "all") == 0 || strcmp(wanted, pace_names[p]) == 0) {
            known = true;
            good = pace_run((pace)p, turns) && good;
        }
    }
    group_remove();
    if (why != NULL) {
        (void)printf("skipped: %s\n", why);
        return SKIPPED;
    }
    return known ? (good ? 0 : 1) : usage();
}
