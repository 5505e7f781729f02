/*
 * See metrics.h. The models of one backend share the server's family objects: it counts by family
 * object who uses a series, so that with one each, a model that is reloaded would lose its series
 * to the end of the version before. The label "backend" keeps models of two backends apart.
 */
#include "kit/metrics.h"

#include <stdio.h>

static const struct {
    const char *name;
    const char *help;
    TRITONSERVER_MetricKind kind;
} rows[KIT_FAMILIES] = {
#define COUNTER(id, name, help) [id] = {name, help, TRITONSERVER_METRIC_KIND_COUNTER}
#define GAUGE(id, name, help) [id] = {name, help, TRITONSERVER_METRIC_KIND_GAUGE}
    COUNTER(KIT_TRANSFER_BYTES, "umo_transfer_bytes_total",
            "Bytes between host and device, moved or found not to need moving"),
    COUNTER(KIT_TRANSFERS, "umo_transfers_total",
            "Transfers between host and device, made or found not to be needed"),
    COUNTER(KIT_COPY_BYTES, "umo_copy_bytes_total", "Bytes copied within host memory, by reason"),
    COUNTER(KIT_COPIES, "umo_copies_total", "Copies made within host memory, by reason"),
    COUNTER(KIT_AVOIDED_BYTES, "umo_copy_avoided_bytes_total",
            "Bytes that the conventional way copies within host memory and umo did not"),
    COUNTER(KIT_AVOIDED, "umo_copies_avoided_total",
            "Copies that the conventional way makes within host memory and umo did not"),
    COUNTER(KIT_IMPORT_BYTES, "umo_import_bytes_total",
            "Bytes that a device used where they lie, newly bound or found in the cache"),
    COUNTER(KIT_IMPORTS, "umo_imports_total",
            "Times that a device used memory where it lies, newly bound or found in the cache"),
    COUNTER(KIT_ALLOCATED_BYTES, "umo_allocated_bytes_total",
            "Bytes taken from the system or a device"),
    COUNTER(KIT_ALLOCATIONS, "umo_allocations_total",
            "Times that memory was taken from the system or a device"),
    COUNTER(KIT_MOVED_BYTES, "umo_moved_bytes_total",
            "Bytes of the buffers that changed their storage mode"),
    COUNTER(KIT_MOVES, "umo_moves_total", "Times that a buffer changed its storage mode"),
    GAUGE(KIT_LIVE_BYTES, "umo_live_bytes", "Memory that the model holds"),
    GAUGE(KIT_PEAK_BYTES, "umo_peak_bytes", "The most memory that the model has held"),
    GAUGE(KIT_LIVE_BUFFERS, "umo_live_buffers", "Buffers of the model that exist"),
    GAUGE(KIT_POOL_BYTES, "umo_pool_bytes",
          "Memory that the model's pools hold: in use, kept for reuse, lost to rounding"),
    COUNTER(KIT_POOL_BLOCKS, "umo_pool_blocks_total",
            "Blocks taken from the model's pools, out of kept memory or new memory"),
    COUNTER(KIT_POOL_TRIMMED, "umo_pool_trimmed_bytes_total",
            "Bytes that the model's pools gave back to the system or a device"),
    COUNTER(
        KIT_NUMA_SCRATCH_BYTES, "umo_numa_scratch_bytes_total",
        "Bytes of scratch memory that executions took, by whether it is on their thread's node"),
    COUNTER(KIT_NUMA_MOVES, "umo_numa_moves_total",
            "Times that an instance's scratch memory went to another node, after its thread"),
    GAUGE(KIT_PLACEMENT_BYTES, "umo_placement_bytes",
          "Memory in the model's recorded buffers, by where it lives"),
    GAUGE(KIT_PATTERN_BYTES, "umo_pattern_bytes",
          "Memory in the model's recorded buffers, by how it is used"),
    GAUGE(KIT_CACHE_ENTRIES, "umo_cache_entries",
          "Process-wide: views of shared memory and bound ranges that are kept"),
    GAUGE(KIT_CACHE_VIEW_BYTES, "umo_cache_view_bytes",
          "Process-wide: address space in views of shared memory"),
    COUNTER(KIT_CACHE_EVICTIONS, "umo_cache_evictions_total",
            "Process-wide: kept views and bound ranges that made room for others"),
    COUNTER(KIT_REFUSED, "umo_requests_refused_total",
            "Requests answered with UNAVAILABLE because memory was short"),
    GAUGE(KIT_READY, "umo_ready", "1, or 0 while memory is so short that requests are refused"),
    GAUGE(KIT_PRESSURE_LEVEL, "umo_pressure_level",
          "Memory pressure on the process: 0 none, 1 low, 2 medium, 3 critical"),
    COUNTER(KIT_PRESSURE_ANSWERS, "umo_pressure_answers_total",
            "Process-wide: times that memory pressure was answered, by what was done"),
    GAUGE(KIT_MEMORY_USAGE, "umo_memory_usage_bytes",
          "Process-wide: memory in use, by who limits it"),
    GAUGE(KIT_MEMORY_LIMIT, "umo_memory_limit_bytes",
          "Process-wide: the most memory that may be in use, by who limits it"),
#undef COUNTER
#undef GAUGE
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t sets;
static TRITONSERVER_MetricFamily *families[KIT_FAMILIES]; /* constant while there is a set */

void kit_series_begin(kit_series_set *set, const umo_model *model)
{
    *set = (kit_series_set){.model = model};
    (void)pthread_mutex_lock(&lock);
    for (int i = 0; i < KIT_FAMILIES && sets == 0; i++) {
        /* A server without metrics refuses; then there is nothing to report to. */
        (void)kit_from_triton(
            TRITONSERVER_MetricFamilyNew(&families[i], rows[i].kind, rows[i].name, rows[i].help),
            NULL);
    }
    sets++;
    (void)pthread_mutex_unlock(&lock);
}

void kit_series_end(kit_series_set *set)
{
    for (kit_series *series = set->made; series != NULL; series = series->next) {
        (void)kit_from_triton(TRITONSERVER_MetricDelete(series->metric), NULL);
    }
    set->made = NULL;
    (void)pthread_mutex_lock(&lock);
    sets--;
    for (int i = 0; i < KIT_FAMILIES && sets == 0; i++) {
        if (families[i] != NULL) {
            (void)kit_from_triton(TRITONSERVER_MetricFamilyDelete(families[i]), NULL);
            families[i] = NULL;
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

static void series_make(kit_series_set *set, kit_family family, const kit_label *labels,
                        size_t label_count, kit_series *series)
{
    char version[24];
    (void)snprintf(version, sizeof version, "%llu", (unsigned long long)set->model->version);
    kit_label all[3 + KIT_LABELS_MAX] = {
        {"model", set->model->name},
        {"version", version},
        {"backend", umo_backend_table.name},
    };
    size_t count = 3;
    for (size_t i = 0; i < label_count && i < KIT_LABELS_MAX; i++) {
        all[count++] = labels[i];
    }
    TRITONSERVER_Parameter *parameters[3 + KIT_LABELS_MAX];
    const TRITONSERVER_Parameter *given[3 + KIT_LABELS_MAX];
    bool complete = true;
    for (size_t i = 0; i < count; i++) {
        parameters[i] =
            TRITONSERVER_ParameterNew(all[i].name, TRITONSERVER_PARAMETER_STRING, all[i].value);
        given[i] = parameters[i];
        complete = complete && parameters[i] != NULL;
    }
    if (complete) {
        (void)kit_from_triton(
            TRITONSERVER_MetricNew(&series->metric, families[family], given, count), NULL);
    }
    for (size_t i = 0; i < count; i++) {
        if (parameters[i] != NULL) {
            TRITONSERVER_ParameterDelete(parameters[i]);
        }
    }
    if (series->metric != NULL) {
        series->next = set->made;
        set->made = series;
    }
}

void kit_series_increment(kit_series *series, uint64_t more)
{
    (void)kit_from_triton(TRITONSERVER_MetricIncrement(series->metric, (double)more), NULL);
    series->value += more;
}

void kit_series_set_value(kit_series_set *set, kit_family family, const kit_label *labels,
                          size_t label_count, uint64_t value, kit_series *series)
{
    if (series->metric == NULL && families[family] != NULL) {
        series_make(set, family, labels, label_count, series);
        /* It may have been refused before; what was counted meanwhile is not in it yet. */
        series->value = series->metric != NULL ? 0 : series->value;
    }
    if (series->metric != NULL) {
        TRITONSERVER_Error *failed = NULL;
        if (rows[family].kind == TRITONSERVER_METRIC_KIND_GAUGE) {
            failed = TRITONSERVER_MetricSet(series->metric, (double)value);
        } else if (value > series->value) {
            failed = TRITONSERVER_MetricIncrement(series->metric, (double)(value - series->value));
        }
        (void)kit_from_triton(failed, NULL);
    }
    series->value = value;
}
