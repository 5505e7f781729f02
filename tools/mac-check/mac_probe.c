/*
 * Asks a Mac what could not be proved without one:
 *
 *   mac_probe facts          what Metal says of itself
 *   mac_probe witnesses      does the GPU use memory where it lies?
 *   mac_probe assumptions    does Metal behave as the driver assumes and the tests' fake imitates?
 *   mac_probe bench          ratios, as JSON lines
 *   mac_probe watch NAME     one check, as the two above run it
 *   mac_probe check NAME     the same in this process, for a debugger
 *
 * Exit status 0: nothing that umo relies on was found wrong. tools/mac-check/README.md says more.
 */
#include "checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* NULL after saying that there is none. */
static const check *check_find(const char *name)
{
    for (size_t i = 0; i < probe_witness_count; i++) {
        if (strcmp(probe_witnesses[i].name, name) == 0) {
            return &probe_witnesses[i];
        }
    }
    for (size_t i = 0; i < probe_assumption_count; i++) {
        if (strcmp(probe_assumptions[i].name, name) == 0) {
            return &probe_assumptions[i];
        }
    }
    (void)fprintf(stderr, "mac_probe: there is no check %s\n", name);
    return NULL;
}

static int here(const char *name, const char *tell)
{
    const check *wanted = check_find(name);
    question_tell((int)strtol(tell, NULL, 10));
    return wanted != NULL ? check_run(wanted) : 2;
}

static int watch(const char *name)
{
    const check *wanted = check_find(name);
    return wanted == NULL ? 2 : check_watch(wanted) == VERDICT_FAILS ? 1 : 0;
}

/* The other process of W07: it has its own mapping and never sees Metal. It inherits the memory's
 * descriptor: a name would be left behind when somebody is killed. */
static int client(const char *what, const char *file, const char *bytes)
{
    const size_t half = strtoul(bytes, NULL, 10);
    region r = {.size_bytes = 2 * half, .from = ORIGIN_SHM, .file = (int)strtol(file, NULL, 10)};
    r.data = region_map_again(&r);
    if (strcmp(what, "fill") == 0) {
        pattern_write(r.data, half, 11);
        return 0;
    }
    return pattern_is(r.data + half, half, 11, UINT32_C(0x12345678)) ? 0 : 1;
}

static int all(const check *checks, size_t count)
{
    unsigned failed = 0;
    for (size_t i = 0; i < count; i++) {
        failed += check_watch(&checks[i]) == VERDICT_FAILS;
    }
    (void)printf("%u of %zu do not hold\n", failed, count);
    return failed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    self_set(argv[0]);
    /* A line at a time: what is said before a crash is the best there is. */
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (strcmp(what, "facts") == 0 && argc == 2) {
        return facts_print();
    }
    if (strcmp(what, "witnesses") == 0 && argc == 2) {
        return all(probe_witnesses, probe_witness_count);
    }
    if (strcmp(what, "assumptions") == 0 && argc == 2) {
        return all(probe_assumptions, probe_assumption_count);
    }
    if (strcmp(what, "bench") == 0 && argc == 2) {
        return bench_run();
    }
    if (strcmp(what, "watch") == 0 && argc == 3) {
        return watch(argv[2]);
    }
    if (strcmp(what, "check") == 0 && (argc == 3 || argc == 4)) {
        return here(argv[2], argc == 4 ? argv[3] : "-1");
    }
    if (strcmp(what, "client") == 0 && argc == 5) {
        return client(argv[2], argv[3], argv[4]);
    }
    if (strcmp(what, "build") == 0 && argc == 3) {
        return archive_build(argv[2]);
    }
    (void)fprintf(stderr, "usage: mac_probe facts | witnesses | assumptions | bench | watch NAME | "
                          "check NAME\n");
    return 2;
}
