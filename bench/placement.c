/*
 * How placement compares with what knew everything beforehand, on traces.
 *
 *   placement [FOLDER_OF_RECORDED_TRACES]   by default bench/placement_traces
 *
 * All of it is modelled: uses become costs by a cost model, nothing is moved. Four models: two
 * fixed links (PCIe 4, chip to chip) and what this machine's host and OpenCL devices were measured
 * to cost. Traces: brackets that a real server's requests opened (placement_record.py), the same
 * spliced into lives with changing phases, made phases of the four patterns, and adversaries. The
 * placement is charged as it runs: a window where the buffer was when it was used, then the move.
 * The optimum starts anywhere for nothing and may move before any single use.
 */
#include "access/traces_test.h"

#include <dirent.h>
#include <math.h>

#define COMMAND "make bench (bench/placement.c)"

enum {
    MODELS_MAX = 4,
    RECORDED_MAX = 64,
    THRESHOLD = 1000
};

static const uint64_t sizes[] = {16 << 10, 256 << 10, 4 << 20, 64 << 20};
enum {
    SIZES = sizeof sizes / sizeof sizes[0]
};

typedef struct named_model {
    const char *name;
    umo_cost_model model;
} named_model;

static named_model models[MODELS_MAX];
static size_t model_count;
static trace recorded[RECORDED_MAX];
static size_t recorded_count;

/* ---- figures ---- */

typedef struct figure {
    double sum;
    double least;
    double most;
    size_t count;
} figure;

static void figure_add(figure *f, double value)
{
    f->least = f->count == 0 || value < f->least ? value : f->least;
    f->most = f->count == 0 || value > f->most ? value : f->most;
    f->sum += value;
    f->count++;
}

static double figure_mean(const figure *f)
{
    return f->count > 0 ? f->sum / (double)f->count : 0;
}

static double ratio_of(uint64_t a, uint64_t b)
{
    return (double)a / (double)(b > 0 ? b : 1);
}

static void row(const char *claim, double value, const char *opponent, const figure *spread,
                const char *more)
{
    (void)printf("{\"claim\": \"%s\", \"value\": %.4f, \"unit\": \"modelled ratio\", \"opponent\": "
                 "\"%s\", \"ratio\": %.4f, \"spread\": [%.4f, %.4f]%s, \"command\": \"" COMMAND
                 "\"}\n",
                 claim, value, opponent, value, spread->least, spread->most, more);
}

/* ---- models ---- */

static void model_add(const char *name, const umo_cost_model *model)
{
    models[model_count++] = (named_model){name, *model};
}

static void model_measure(const char *driver)
{
    umo_device *device = NULL;
    umo_error error = {0};
    const umo_calibrate_options options = {.redo = true, .no_files = true};
    umo_cost_model model;
    umo_status status = umo_device_open(driver, 0, NULL, &device, &error);
    if (status == UMO_OK) {
        status = umo_device_calibrate(device, &options, &model, &error);
    }
    if (status == UMO_OK) {
        model_add(driver, &model);
    } else {
        (void)fprintf(stderr, "placement: without '%s': %s\n", driver, error.text);
    }
    umo_device_release(device);
}

/* ---- recorded traces ---- */

/* Each buffer of a file that was used often enough to have a life is a trace. */
static void recorded_load(const char *path)
{
    enum {
        BUFFERS = 64,
        USES_MIN = 32
    };
    trace traces[BUFFERS] = {{0}};
    FILE *file = fopen(path, "r");
    char line[256];
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned buffer;
        unsigned side;
        unsigned use;
        unsigned long long bytes;
        unsigned long long size;
        /* Our own recorder wrote the file. NOLINTNEXTLINE(cert-err34-c) */
        if (sscanf(line, "%u,%u,%u,%*u,%llu,%llu", &buffer, &side, &use, &bytes, &size) == 5 &&
            buffer < BUFFERS) {
            traces[buffer].size_bytes = size;
            trace_add(&traces[buffer], (umo_side)side, (umo_use)use, bytes);
        }
    }
    (void)fclose(file);
    for (int i = 0; i < BUFFERS; i++) {
        if (traces[i].count >= USES_MIN && recorded_count < RECORDED_MAX) {
            recorded[recorded_count++] = traces[i];
        } else {
            trace_finish(&traces[i]);
        }
    }
}

static int csv_only(const struct dirent *entry)
{
    const char *ending = strrchr(entry->d_name, '.');
    return ending != NULL && strcmp(ending, ".csv") == 0;
}

static void recorded_load_all(const char *folder)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, csv_only, alphasort);
    for (int i = 0; i < count; i++) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        recorded_load(path);
        free(names[i]);
    }
    free(names);
    if (recorded_count == 0) {
        (void)fprintf(stderr, "placement: no recorded traces in %s\n", folder);
        exit(1);
    }
}

/* A recorded life again and again, in a buffer of another size. */
static void recorded_append(trace *t, const trace *from, size_t uses)
{
    for (size_t i = 0; i < uses; i++) {
        trace_use use = from->uses[i % from->count];
        double part = (double)use.size_bytes / (double)from->size_bytes;
        trace_add(t, (umo_side)use.side, (umo_use)use.use,
                  (uint64_t)(part * (double)t->size_bytes));
    }
}

/* ---- average and worst ---- */

static void live(const umo_cost_model *model, trace *t, figure *kind, figure *fixed, figure *all)
{
    umo_storage_mode first = umo_placement_initial(model, t->size_bytes, UMO_PATTERN_UNKNOWN);
    trace_result r = trace_live(model, t, first, THRESHOLD);
    figure_add(kind, ratio_of(r.paid_ns, r.optimum_ns));
    figure_add(all, ratio_of(r.paid_ns, r.optimum_ns));
    figure_add(fixed, ratio_of(r.static_ns, r.paid_ns));
    trace_finish(t);
}

/* Charges the mode that it is in, a five hundredth of a move at a time, and no other: nothing that
 * a program could do, but what the bound is made of. */
static double adversary_abstract(const umo_cost_model *model, uint64_t size_bytes, bool revealed)
{
    umo_placement_moves moves;
    umo_placement p;
    umo_cost_moves(model, size_bytes, &moves);
    umo_placement_init(&p, model->modes, umo_placement_initial(model, size_bytes, 0), NULL);
    uint64_t window[UMO_STORAGE_MODES] = {0};
    uint64_t spared_ns = 0;
    for (int i = 0; i < 400000; i++) {
        uint64_t least = UINT64_MAX;
        for (int s = 0; s < UMO_STORAGE_MODES; s++) {
            uint64_t both = moves.ns[p.mode][s] + moves.ns[s][p.mode];
            least = s != (int)p.mode && both < least ? both : least;
        }
        window[p.mode] += least / 1000 + 1;
        if (umo_placement_due(&p, window, &moves, 1, THRESHOLD)) {
            umo_storage_mode before = p.mode;
            if (umo_placement_step(&p, window, &moves) != before) {
                spared_ns += window[before]; /* all of it would have been elsewhere, for nothing */
            }
            memset(window, 0, sizeof window);
        }
    }
    return ratio_of(p.paid_ns - (revealed ? spared_ns : 0), p.optimum_ns);
}

static void average_and_worst(void)
{
    figure all = {0};
    figure real = {0};
    figure spliced = {0};
    figure phases = {0};
    figure single = {0};
    figure fixed = {0};
    figure adversary = {0};
    figure abstract = {0};
    figure revealed = {0};
    double asymmetry = 1;
    uint64_t seed = 2026;
    for (size_t m = 0; m < model_count; m++) {
        const umo_cost_model *model = &models[m].model;
        for (size_t i = 0; i < recorded_count; i++) {
            trace t = {.size_bytes = recorded[i].size_bytes};
            recorded_append(&t, &recorded[i], recorded[i].count * 20);
            live(model, &t, &real, &single, &all);
        }
        for (size_t s = 0; s < SIZES; s++) {
            for (int round = 0; round < 8; round++) {
                trace t = {.size_bytes = sizes[s]};
                for (int part = 0; part < 20; part++) {
                    recorded_append(&t, &recorded[trace_below(&seed, recorded_count)],
                                    100 + (size_t)trace_below(&seed, 3000));
                }
                live(model, &t, &spliced, &fixed, &all);
                t = trace_phases(sizes[s], 20, 30, 1000, &seed);
                live(model, &t, &phases, &fixed, &all);
            }
            trace_result r = trace_adversary(
                model, sizes[s], umo_placement_initial(model, sizes[s], UMO_PATTERN_UNKNOWN),
                THRESHOLD, 20000);
            figure_add(&adversary, ratio_of(r.paid_ns, r.optimum_ns));
            figure_add(&all, ratio_of(r.paid_ns, r.optimum_ns));
            figure_add(&abstract, adversary_abstract(model, sizes[s], false));
            figure_add(&revealed, adversary_abstract(model, sizes[s], true));
            umo_placement_moves moves;
            umo_cost_moves(model, sizes[s], &moves);
            asymmetry = fmax(asymmetry, umo_placement_asymmetry(model->modes, &moves));
        }
    }
    char more[512];
    (void)snprintf(more, sizeof more,
                   ", \"recorded\": %.4f, \"recorded_phases\": %.4f, \"made_phases\": %.4f, "
                   "\"adversary\": %.4f, \"traces\": %zu, \"models\": %zu, "
                   "\"phases_against_best_static\": [%.4f, %.4f, %.4f]",
                   figure_mean(&real), figure_mean(&spliced), figure_mean(&phases),
                   figure_mean(&adversary), all.count, model_count, fixed.least,
                   figure_mean(&fixed), fixed.most);
    row("placement_average", figure_mean(&all), "the offline optimum: at most 1.5 asked", &all,
        more);
    (void)snprintf(more, sizeof more,
                   ", \"recorded\": %.4f, \"recorded_phases\": %.4f, \"made_phases\": %.4f, "
                   "\"adversary\": %.4f",
                   real.most, spliced.most, phases.most, adversary.most);
    row("placement_worst", all.most, "the offline optimum: at most 5 asked", &all, more);
    (void)snprintf(more, sizeof more,
                   ", \"windows_known_before\": [%.4f, %.4f], \"bound\": %.4f, \"asymmetry\": %.4f",
                   revealed.least, revealed.most, 5 * (1 + 1.0 / 32) * asymmetry, asymmetry);
    row("placement_adversary", abstract.most,
        "the offline optimum, against any costs, not those of uses alone: no deterministic "
        "algorithm "
        "is below 5 with even moves",
        &abstract, more);
}

/* ---- one phase ---- */

static void single_phase(void)
{
    figure declared = {0};
    figure cold = {0};
    figure settled = {0};
    uint64_t seed = 7;
    for (size_t m = 0; m < model_count; m++) {
        const umo_cost_model *model = &models[m].model;
        for (size_t s = 0; s < SIZES; s++) {
            for (umo_pattern p = UMO_PATTERN_CPU_DOMINANT; p < UMO_PATTERNS; p++) {
                trace t = {.size_bytes = sizes[s]};
                trace_phase(&t, p, 5000, &seed);
                umo_storage_mode first = umo_placement_initial(model, sizes[s], p);
                trace_result r = trace_live(model, &t, first, THRESHOLD);
                figure_add(&declared, ratio_of(r.paid_ns, r.static_ns));
                first = umo_placement_initial(model, sizes[s], UMO_PATTERN_UNKNOWN);
                r = trace_live(model, &t, first, THRESHOLD);
                figure_add(&cold, ratio_of(r.paid_ns, r.static_ns));
                figure_add(&settled, (double)r.last_move);
                trace_finish(&t);
            }
        }
    }
    char more[256];
    (void)snprintf(more, sizeof more,
                   ", \"mean\": %.4f, \"undeclared_mean\": %.4f, \"undeclared_worst\": %.4f, "
                   "\"undeclared_settled_after_uses\": %.0f",
                   figure_mean(&declared), figure_mean(&cold), cold.most, settled.most);
    row("placement_single_phase", declared.most,
        "the best static mode, placed there for nothing; the pattern is declared: at most 1.05 "
        "asked",
        &declared, more);
}

/* ---- gains ---- */

static void gains(const named_model *link)
{
    for (umo_pattern p = UMO_PATTERN_CPU_DOMINANT; p < UMO_PATTERNS; p++) {
        figure copies = {0};
        figure best = {0};
        double logs = 0;
        uint64_t seed = 99;
        for (size_t s = 0; s < SIZES; s++) {
            trace t = {.size_bytes = sizes[s]};
            trace_phase(&t, p, 5000, &seed);
            umo_storage_mode first =
                umo_placement_initial(&link->model, sizes[s], UMO_PATTERN_UNKNOWN);
            trace_result r = trace_live(&link->model, &t, first, THRESHOLD);
            figure_add(&copies, ratio_of(r.explicit_ns, r.paid_ns));
            figure_add(&best, ratio_of(r.static_ns, r.paid_ns));
            logs += log(ratio_of(r.explicit_ns, r.paid_ns));
            trace_finish(&t);
        }
        char claim[64];
        char more[128];
        (void)snprintf(claim, sizeof claim, "pattern_gain_%s_%s", umo_pattern_name(p), link->name);
        (void)snprintf(more, sizeof more, ", \"against_best_static\": [%.4f, %.4f]", best.least,
                       best.most);
        row(claim, exp(logs / SIZES),
            "explicit copies for each use; 16 KiB to 64 MiB, geometric mean, no pattern declared",
            &copies, more);
    }
}

int main(int argc, char **argv)
{
    umo_link links[] = {trace_link_pcie4(), trace_link_c2c()};
    static const char *const link_names[] = {"pcie4", "c2c"};
    for (size_t i = 0; i < 2; i++) {
        umo_cost_model model;
        umo_cost_model_link(&links[i], &model);
        model_add(link_names[i], &model);
    }
    model_measure("host");
    model_measure("opencl");
    recorded_load_all(argc > 1 ? argv[1] : "bench/placement_traces");
    average_and_worst();
    single_phase();
    gains(&models[0]);
    gains(&models[1]);
    for (size_t i = 0; i < recorded_count; i++) {
        trace_finish(&recorded[i]);
    }
    return 0;
}
