/*
 * The model's counters on the server's /metrics. Each execution adds what changed, after its
 * responses are sent.
 */
#include "kit/kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One series: a counter of bytes, read from a snapshot of the scope. */
typedef struct series {
    TRITONSERVER_Metric *metric; /* made when it first moves */
    uint64_t reported;
} series;

typedef struct label {
    const char *name;
    const char *value;
} label;

typedef enum family_index {
    FAMILY_TRANSFERS,
    FAMILY_COPIES,
    FAMILY_AVOIDED,
    FAMILY_LIVE,
    FAMILY_READY,
    FAMILY_PRESSURE,
    FAMILIES
} family_index;

static const struct {
    const char *name;
    const char *help;
    TRITONSERVER_MetricKind kind;
} family_rows[FAMILIES] = {
    [FAMILY_TRANSFERS] = {"umo_transfer_bytes_total",
                          "Bytes between host and device, moved or found not to need moving",
                          TRITONSERVER_METRIC_KIND_COUNTER},
    [FAMILY_COPIES] = {"umo_copy_bytes_total", "Bytes copied within host memory, by reason",
                       TRITONSERVER_METRIC_KIND_COUNTER},
    [FAMILY_AVOIDED] = {"umo_copy_avoided_bytes_total",
                        "Bytes that the conventional way copies within host memory and umo did not",
                        TRITONSERVER_METRIC_KIND_COUNTER},
    [FAMILY_LIVE] = {"umo_live_bytes", "Memory that the model holds",
                     TRITONSERVER_METRIC_KIND_GAUGE},
    [FAMILY_READY] = {"umo_ready", "1, or 0 while memory is so short that requests are refused",
                      TRITONSERVER_METRIC_KIND_GAUGE},
    [FAMILY_PRESSURE] = {"umo_pressure_level",
                         "Memory pressure on the process: 0 none, 1 low, 2 medium, 3 critical",
                         TRITONSERVER_METRIC_KIND_GAUGE},
};

struct kit_metrics {
    pthread_mutex_t lock;
    const umo_model *model;
    TRITONSERVER_MetricFamily *families[FAMILIES];
    series transfers[UMO_DIRECTIONS][2]; /* performed, eliminated */
    series copies[UMO_DIRECTIONS][UMO_REASON_COUNT];
    series avoided[UMO_DIRECTIONS];
    series live;
    series ready;
    series level;
    umo_pressure_listener listener;
    umo_counters now; /* as last read */
    uint64_t copies_seen;
};

static void series_move(const kit_metrics *metrics, family_index family, const label *labels,
                        size_t label_count, uint64_t value, series *s);

/* Told at once and not with the next request: who keeps requests away while the server is not ready
 * has to learn that it is again. */
static void pressure_report(umo_pressure_level level, bool ready, void *user)
{
    kit_metrics *metrics = user;
    (void)pthread_mutex_lock(&metrics->lock);
    series_move(metrics, FAMILY_READY, NULL, 0, ready ? 1 : 0, &metrics->ready);
    series_move(metrics, FAMILY_PRESSURE, NULL, 0, (uint64_t)level, &metrics->level);
    (void)pthread_mutex_unlock(&metrics->lock);
}

kit_metrics *kit_metrics_create(const umo_model *model)
{
    kit_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL) {
        return NULL;
    }
    metrics->model = model;
    (void)pthread_mutex_init(&metrics->lock, NULL);
    for (int i = 0; i < FAMILIES; i++) {
        /* A server without metrics refuses; then there is nothing to report to. */
        (void)kit_from_triton(TRITONSERVER_MetricFamilyNew(&metrics->families[i],
                                                           family_rows[i].kind, family_rows[i].name,
                                                           family_rows[i].help),
                              NULL);
    }
    if (model->pressure != NULL) {
        pressure_report(UMO_PRESSURE_NORMAL, umo_pressure_ready(model->pressure), metrics);
        metrics->listener = (umo_pressure_listener){.notify = pressure_report, .user = metrics};
        umo_pressure_add_listener(model->pressure, &metrics->listener);
    }
    return metrics;
}

static void series_delete(series *s)
{
    if (s->metric != NULL) {
        (void)kit_from_triton(TRITONSERVER_MetricDelete(s->metric), NULL);
    }
}

void kit_metrics_destroy(kit_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    if (metrics->model->pressure != NULL) {
        umo_pressure_remove_listener(metrics->model->pressure, &metrics->listener);
    }
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        series_delete(&metrics->transfers[d][0]);
        series_delete(&metrics->transfers[d][1]);
        series_delete(&metrics->avoided[d]);
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            series_delete(&metrics->copies[d][r]);
        }
    }
    series_delete(&metrics->live);
    series_delete(&metrics->ready);
    series_delete(&metrics->level);
    for (int i = 0; i < FAMILIES; i++) {
        if (metrics->families[i] != NULL) {
            (void)kit_from_triton(TRITONSERVER_MetricFamilyDelete(metrics->families[i]), NULL);
        }
    }
    (void)pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

static void series_create(const kit_metrics *metrics, family_index family, const label *labels,
                          size_t label_count, series *s)
{
    TRITONSERVER_Parameter *parameters[4];
    const TRITONSERVER_Parameter *given[4];
    char version[24];
    (void)snprintf(version, sizeof version, "%llu", (unsigned long long)metrics->model->version);
    size_t count = 0;
    parameters[count++] =
        TRITONSERVER_ParameterNew("model", TRITONSERVER_PARAMETER_STRING, metrics->model->name);
    parameters[count++] =
        TRITONSERVER_ParameterNew("version", TRITONSERVER_PARAMETER_STRING, version);
    for (size_t i = 0; i < label_count; i++) {
        parameters[count++] = TRITONSERVER_ParameterNew(
            labels[i].name, TRITONSERVER_PARAMETER_STRING, labels[i].value);
    }
    bool complete = true;
    for (size_t i = 0; i < count; i++) {
        given[i] = parameters[i];
        complete = complete && parameters[i] != NULL;
    }
    if (complete) {
        (void)kit_from_triton(
            TRITONSERVER_MetricNew(&s->metric, metrics->families[family], given, count), NULL);
    }
    for (size_t i = 0; i < count; i++) {
        if (parameters[i] != NULL) {
            TRITONSERVER_ParameterDelete(parameters[i]);
        }
    }
}

/* Brings a series to a value. Its labels are read only when it moves for the first time. */
static void series_move(const kit_metrics *metrics, family_index family, const label *labels,
                        size_t label_count, uint64_t value, series *s)
{
    if (s->metric == NULL && metrics->families[family] != NULL) {
        series_create(metrics, family, labels, label_count, s);
    }
    if (s->metric != NULL) {
        TRITONSERVER_Error *failed =
            family_rows[family].kind == TRITONSERVER_METRIC_KIND_GAUGE
                ? TRITONSERVER_MetricSet(s->metric, (double)value)
                : TRITONSERVER_MetricIncrement(s->metric, (double)(value - s->reported));
        (void)kit_from_triton(failed, NULL);
    }
    s->reported = value;
}

static void transfer_report(kit_metrics *metrics, int direction, bool eliminated, uint64_t value)
{
    static const char *const ways[UMO_DIRECTIONS] = {"host_to_device", "device_to_host"};
    series *s = &metrics->transfers[direction][eliminated];
    if (value != s->reported) {
        const label labels[] = {{"direction", ways[direction]},
                                {"outcome", eliminated ? "eliminated" : "performed"}};
        series_move(metrics, FAMILY_TRANSFERS, labels, 2, value, s);
    }
}

static const char *const side_names[UMO_DIRECTIONS] = {"in", "out"};

static void copies_report(kit_metrics *metrics, int direction, const umo_tally *tallies)
{
    for (int r = 0; r < UMO_REASON_COUNT; r++) {
        series *s = &metrics->copies[direction][r];
        if (tallies[r].bytes != s->reported) {
            const label labels[] = {{"direction", side_names[direction]},
                                    {"reason", umo_reason_label((umo_reason)r)}};
            series_move(metrics, FAMILY_COPIES, labels, 2, tallies[r].bytes, s);
        }
    }
}

void kit_metrics_update(kit_metrics *metrics, umo_scope *scope)
{
    if (metrics == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&metrics->lock);
    const umo_counters *now = &metrics->now;
    bool copies = umo_scope_read_again(scope, &metrics->copies_seen, &metrics->now);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        transfer_report(metrics, d, false, now->transfer_performed[d].bytes);
        transfer_report(metrics, d, true, now->transfer_eliminated[d].bytes);
        if (copies) {
            copies_report(metrics, d, now->copy_performed[d]);
        }
        if (now->copy_avoided[d].bytes != metrics->avoided[d].reported) {
            const label labels[] = {{"direction", side_names[d]}};
            series_move(metrics, FAMILY_AVOIDED, labels, 1, now->copy_avoided[d].bytes,
                        &metrics->avoided[d]);
        }
    }
    if (now->live_bytes != metrics->live.reported) {
        series_move(metrics, FAMILY_LIVE, NULL, 0, now->live_bytes, &metrics->live);
    }
    (void)pthread_mutex_unlock(&metrics->lock);
}
