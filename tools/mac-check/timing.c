/* Assumptions about time: residency sets keep memory warm, archives save compiling. */
#include "checks.h"

#include "driver/metal/metal_api.h"
#include "os/os.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

/* ---- residency ---- */

enum {
    RESIDENCY_TURNS = 3
};

/* How long a touch of every page takes. */
static double touch_us(probe *p, umo_buffer *words, umo_buffer *found)
{
    const use uses[] = {{words, UMO_READ}, {found, UMO_WRITE}};
    const uint32_t step = (uint32_t)(p->page / sizeof(uint32_t));
    double start_us = now_us();
    probe_run(p->touch, uses, 2, &step, 1, umo_buffer_size(words) / p->page);
    return now_us() - start_us;
}

typedef struct warmth {
    double first_us;
    double warm_us;
    double rested_us;
} warmth;

static warmth residency_turn(const char *wish, size_t size_bytes, unsigned rest_ms)
{
    probe p = {0};
    warmth w;
    (void)setenv("UMO_METAL_RESIDENCY", wish, 1);
    probe_open(&p);
    region r = region_take(&p, ORIGIN_ANONYMOUS, size_bytes);
    region f = region_take(&p, ORIGIN_ANONYMOUS, size_bytes / p.page * sizeof(uint32_t));
    memset(r.data, 1, r.size_bytes);
    umo_buffer *words = probe_import(&p, r.data, r.size_bytes, false);
    umo_buffer *found = probe_import(&p, f.data, f.size_bytes, true);
    if (words == NULL || found == NULL) {
        die("the memory cannot be imported");
    }
    w.first_us = touch_us(&p, words, found);
    w.warm_us = touch_us(&p, words, found);
    for (int i = 0; i < 4; i++) {
        double again_us = touch_us(&p, words, found);
        w.warm_us = again_us < w.warm_us ? again_us : w.warm_us;
    }
    sleep_ms(rest_ms);
    w.rested_us = touch_us(&p, words, found);
    umo_buffer_release(words);
    umo_buffer_release(found);
    region_give(&r);
    region_give(&f);
    probe_close(&p);
    return w;
}

static double middle(double a, double b, double c)
{
    double low = a < b ? a : b;
    double high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Without sets both ways are one, and their times differ by chance. Says why there are none. */
static bool residency_to_be_had(void)
{
    const umo_metal_api *api = NULL;
    umo_error error = {0};
    probe p = {0};
    if (umo_metal_api_get(&api, &error) != UMO_OK) {
        die("no Metal: %s", error.text);
    }
    if (api->classes.residency_descriptor == NULL) {
        say("this system has no residency sets (they came with macOS 15)");
        return false;
    }
    probe_open(&p);
    const bool paravirtual = strstr(p.info->name, "Paravirtual") != NULL;
    probe_close(&p);
    if (paravirtual) {
        say("residency sets crash on paravirtual devices");
    }
    return !paravirtual;
}

verdict check_residency(probe *p)
{
    const char *why = NULL;
    (void)p;
    if (!residency_to_be_had()) {
        return VERDICT_UNKNOWN;
    }
    const bool stand_in = probe_is_stand_in();
    const uint64_t share_bytes = umo_os_memory_bytes() / 16;
    size_t size_bytes = share_bytes < 1024 * MIB ? (size_t)share_bytes : 1024 * MIB;
    size_bytes = stand_in ? 16 * MIB : size_bytes / MIB * MIB;
    const unsigned rest_ms = stand_in ? 100 : 3000;
    double slower[2][RESIDENCY_TURNS];
    for (int turn = 0; turn < RESIDENCY_TURNS; turn++) {
        for (int with = 1; with >= 0; with--) {
            warmth w = residency_turn(with ? "1" : "0", size_bytes, rest_ms);
            slower[with][turn] = w.rested_us / w.warm_us;
            say("%zu MiB, %s residency set: first use %.0f us, warm %.0f us, after %u ms of rest "
                "%.0f us",
                size_bytes / MIB, with ? "with" : "without", w.first_us, w.warm_us, rest_ms,
                w.rested_us);
        }
    }
    const double with = middle(slower[1][0], slower[1][1], slower[1][2]);
    const double without = middle(slower[0][0], slower[0][1], slower[0][2]);
    say("after the rest a use took %.1f times the warm one's time with a set, %.1f times without",
        with, without);
    if (stand_in) {
        say("stand-in: times mean nothing");
        return VERDICT_UNKNOWN;
    }
    verdict v = judge_residency(with, without, &why);
    if (why != NULL) {
        say("%s", why);
    }
    return v;
}

/* ---- the archive ---- */

int archive_build(const char *salt)
{
    probe p = {0};
    umo_error error = {0};
    umo_program *program = NULL;
    umo_kernel *kernel = NULL;
    char options[64];
    umo_program_source source = *probe_program();
    must(umo_context_create(NULL, &p.context, NULL), "a context");
    if (umo_context_device(p.context, "metal", 0, &p.device, &error) != UMO_OK) {
        die("no Metal device: %s", error.text);
    }
    /* Metal keeps a cache of its own, by the text: only another text was never built before. */
    (void)snprintf(options, sizeof options, "-DPROBE_SALT=%.32s", salt);
    source.options = options;
    double start_us = now_us();
    umo_status status = umo_program_create(p.device, &source, &program, &error);
    double program_us = now_us();
    if (status == UMO_OK) {
        status = umo_kernel_create(program, "probe_poke", &kernel, &error);
    }
    double kernel_us = now_us();
    if (status != UMO_OK) {
        die("%s", error.text);
    }
    (void)printf("%.0f %.0f\n", program_us - start_us, kernel_us - program_us);
    umo_kernel_destroy(kernel);
    umo_program_destroy(program);
    umo_device_release(p.device);
    umo_context_destroy(p.context);
    return 0;
}

static void build(const char *salt, const char *what, double *kernel_us)
{
    const char *const arguments[] = {"build", salt, NULL};
    char out[256] = "";
    char *at = out;
    if (self_run(arguments, 60, out, sizeof out) != 0) {
        die("%s: the program did not build: %s", what, out);
    }
    const double program_us = strtod(out, &at);
    *kernel_us = strtod(at, NULL);
    if (*kernel_us <= 0) {
        die("%s: no times: %s", what, out);
    }
    say("%s: text to program %.0f us, program to kernel %.0f us", what, program_us, *kernel_us);
}

/* Removes the folder and the files in it; how many there were. */
static unsigned folder_remove(const char *folder)
{
    unsigned files = 0;
    DIR *open = opendir(folder);
    const struct dirent *entry;
    while (open != NULL && (entry = readdir(open)) != NULL) {
        char path[1400];
        if (entry->d_name[0] != '.') {
            (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            (void)unlink(path);
            files++;
        }
    }
    if (open != NULL) {
        (void)closedir(open);
    }
    (void)rmdir(folder);
    return files;
}

verdict check_archive(probe *p)
{
    char folder[1100];
    char salt[32];
    char other_salt[32];
    double first_us = 0;
    double second_us = 0;
    double apples_us = 0;
    const char *why = NULL;
    (void)p;
    (void)snprintf(folder, sizeof folder, "%s/umo-mac-check-XXXXXX", probe_temporary());
    if (mkdtemp(folder) == NULL) {
        die("no temporary folder can be made");
    }
    (void)snprintf(salt, sizeof salt, "%llu", (unsigned long long)umo_os_now_ns() + 1);
    (void)snprintf(other_salt, sizeof other_salt, "%llu", (unsigned long long)umo_os_now_ns() + 2);
    (void)setenv("UMO_METAL_CACHE", folder, 1);
    build(salt, "a text never seen, in an empty cache", &first_us);
    build(salt, "the same again", &second_us);
    (void)setenv("UMO_METAL_CACHE", "0", 1);
    double ignored_us = 0;
    build(other_salt, "another text, without umo's cache", &ignored_us);
    build(other_salt, "the same again: what Metal's own cache does", &apples_us);
    unsigned files = folder_remove(folder);
    say("the archive's folder held %u file(s)", files);
    if (files == 0) {
        return VERDICT_FAILS;
    }
    if (probe_is_stand_in()) {
        say("stand-in: times mean nothing");
        return VERDICT_UNKNOWN;
    }
    verdict v = judge_archive(first_us, second_us, ignored_us, apples_us, &why);
    if (why != NULL) {
        say("%s", why);
    }
    return v;
}
