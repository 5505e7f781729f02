/*
 * How often the pattern of a buffer is right, over labelled windows of accesses
 * (src/access/windows_test.h). Prints the claim; with "table" also who was taken for whom.
 */
#include <umo/umo.h>

#include "access/windows_test.h"

#include <string.h>

enum {
    SEEDS = 60,
    PHASES = 60,
    BYTES = 1 << 20
};

static void must(umo_status status)
{
    if (status != UMO_OK) {
        (void)fprintf(stderr, "pattern: %s\n", umo_status_name(status));
        exit(1);
    }
}

static void table_print(const char *title, unsigned counts[UMO_PATTERNS][UMO_PATTERNS])
{
    unsigned of;
    double right = windows_right(counts, &of);
    (void)printf("%s: %u windows, %.2f %% right\n%-14s", title, of, 100 * right, "is \\ said");
    for (int said = 0; said < UMO_PATTERNS; said++) {
        (void)printf("%14s", umo_pattern_name((umo_pattern)said));
    }
    for (int label = 1; label < UMO_PATTERNS; label++) {
        (void)printf("\n%-14s", umo_pattern_name((umo_pattern)label));
        for (int said = 0; said < UMO_PATTERNS; said++) {
            (void)printf("%14u", counts[label][said]);
        }
    }
    (void)printf("\n");
}

int main(int argc, char **argv)
{
    umo_context *context = NULL;
    umo_device *device = NULL;
    must(umo_context_create(NULL, &context, NULL));
    must(umo_context_device(context, "host", 0, &device, NULL));
    window_result result = {0};
    double worst = 1;
    double best = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        umo_buffer *buffer = NULL;
        must(umo_buffer_alloc(device, umo_context_scope(context), BYTES, UMO_UNIFIED, &buffer,
                              NULL));
        window_result one = {0};
        windows_run(buffer, seed, PHASES, &one);
        unsigned of;
        double right = windows_right(one.all, &of);
        worst = right < worst ? right : worst;
        best = right > best ? right : best;
        for (int i = 0; i < UMO_PATTERNS * UMO_PATTERNS; i++) {
            (&result.all[0][0])[i] += (&one.all[0][0])[i];
            (&result.changed[0][0])[i] += (&one.changed[0][0])[i];
        }
        for (int i = 0; i < WINDOW_BEHAVIOURS; i++) {
            result.of[i] += one.of[i];
            result.wrong[i] += one.wrong[i];
        }
        umo_buffer_release(buffer);
    }
    unsigned of;
    double right = windows_right(result.all, &of);
    if (argc == 2 && strcmp(argv[1], "table") == 0) {
        table_print("all", result.all);
        table_print("in which the phase changed", result.changed);
        for (int i = 0; i < WINDOW_BEHAVIOURS; i++) {
            (void)printf("%-18s %5u of %5u wrong\n", window_behaviours[i].name, result.wrong[i],
                         result.of[i]);
        }
    }
    (void)printf("{\"claim\": \"pattern_accuracy\", \"value\": %.4f, \"unit\": \"of %u labelled "
                 "windows\", \"opponent\": \"none: at least 0.95 asked\", \"ratio\": %.4f, "
                 "\"spread\": [%.4f, %.4f], \"command\": \"make bench (bench/pattern.c)\"}\n",
                 right, of, right / 0.95, worst, best);
    umo_device_release(device);
    umo_context_destroy(context);
    return 0;
}
