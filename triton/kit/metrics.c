/*
 * A model's figures on the server's /metrics. What an operator pays for, bytes moved and copied, is
 * there before the request's answer; each execution adds what has changed. Everything else costs
 * more to find out than a request may, or changes while there is none, and is looked at once a
 * second.
 */
#include "kit/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>

#define SECOND_NS UINT64_C(1000000000)
/* A look may take a hundredth of the time. */
#define SHARE 100u
#define GAUGES (UMO_PRESSURE_DEVICE + 1)

uint64_t kit_metrics_period_ns = SECOND_NS;

/* A tally's two series. */
typedef struct tally_series {
    kit_series bytes;
    kit_series events;
} tally_series;

struct kit_metrics {
    const umo_model *model;
    umo_ticker *ticker;
    umo_pressure_listener listener;
    _Atomic uint64_t refused;

    pthread_mutex_t lock; /* down to the end */
    kit_series_set set;
    umo_counters now; /* as last read */
    uint64_t copies_seen;
    tally_series transfers[UMO_DIRECTIONS][2]; /* performed, eliminated */
    tally_series copies[UMO_DIRECTIONS][UMO_REASON_COUNT];
    tally_series avoided[UMO_DIRECTIONS];
    tally_series imports[2]; /* new, from the cache */
    tally_series allocated;
    tally_series moves;
    kit_series live;
    kit_series peak;
    kit_series buffers;
    kit_series pool_bytes[3];  /* used, idle, rounding */
    kit_series pool_blocks[2]; /* new, reused */
    kit_series pool_trimmed;
    kit_series scratch_bytes[2]; /* local, remote */
    kit_series scratch_moves;
    kit_series modes[UMO_STORAGE_MODES];
    kit_series patterns[UMO_PATTERNS];
    kit_series cache[2]; /* views, wraps */
    kit_series view_bytes;
    kit_series evictions;
    kit_series refusals;
    kit_series ready;
    kit_series level;
    kit_series answers[UMO_PRESSURE_ANSWERS];
    kit_series usage[GAUGES];
    kit_series limit[GAUGES];

    /* Of the look's alone: a walk over all recorded buffers. */
    umo_access_summary summary;
    uint64_t summary_due_ns;
};

/* Told at once and not with the next request: who keeps requests away while the server is not ready
 * has to learn that it is again. */
static void pressure_report(umo_pressure_level level, bool ready, void *user)
{
    kit_metrics *metrics = user;
    (void)pthread_mutex_lock(&metrics->lock);
    kit_series_set_value(&metrics->set, KIT_READY, NULL, 0, ready ? 1 : 0, &metrics->ready);
    kit_series_set_value(&metrics->set, KIT_PRESSURE_LEVEL, NULL, 0, (uint64_t)level,
                         &metrics->level);
    (void)pthread_mutex_unlock(&metrics->lock);
}

static uint64_t metrics_tick(void *user)
{
    return kit_metrics_refresh(user);
}

kit_metrics *kit_metrics_create(const umo_model *model)
{
    kit_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL) {
        return NULL;
    }
    metrics->model = model;
    (void)pthread_mutex_init(&metrics->lock, NULL);
    kit_series_begin(&metrics->set, model);
    if (model->pressure != NULL) {
        pressure_report(UMO_PRESSURE_NORMAL, umo_pressure_ready(model->pressure), metrics);
        metrics->listener = (umo_pressure_listener){.notify = pressure_report, .user = metrics};
        umo_pressure_add_listener(model->pressure, &metrics->listener);
    }
    if (kit_metrics_period_ns != UINT64_MAX) {
        /* Without memory for it the figures of requests are all there is. */
        umo_status_ignore(umo_ticker_start(metrics_tick, metrics, 0, &metrics->ticker, NULL));
    }
    return metrics;
}

void kit_metrics_destroy(kit_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    umo_ticker_stop(metrics->ticker);
    if (metrics->model->pressure != NULL) {
        umo_pressure_remove_listener(metrics->model->pressure, &metrics->listener);
    }
    kit_series_end(&metrics->set);
    (void)pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

void kit_metrics_refuse(kit_metrics *metrics, uint64_t requests)
{
    if (metrics != NULL) {
        atomic_fetch_add_explicit(&metrics->refused, requests, memory_order_relaxed);
    }
}

/* ---- what a request brings up to date ---- */

static const char *const way_names[UMO_DIRECTIONS] = {"host_to_device", "device_to_host"};
static const char *const side_names[UMO_DIRECTIONS] = {"in", "out"};

/* Both series of a tally, or the bytes alone, which a request can afford. */
static void tally_report(kit_metrics *metrics, kit_family bytes, const kit_label *labels,
                         size_t label_count, const umo_tally *tally, bool events,
                         tally_series *both)
{
    kit_series_set_value(&metrics->set, bytes, labels, label_count, tally->bytes, &both->bytes);
    if (events) { /* the family behind that of the bytes */
        kit_series_set_value(&metrics->set, (kit_family)(bytes + 1), labels, label_count,
                             tally->events, &both->events);
    }
}

static void transfer_report(kit_metrics *metrics, int direction, bool eliminated,
                            const umo_tally *tally, bool events)
{
    const kit_label labels[] = {{"direction", way_names[direction]},
                                {"outcome", eliminated ? "eliminated" : "performed"}};
    tally_report(metrics, KIT_TRANSFER_BYTES, labels, 2, tally, events,
                 &metrics->transfers[direction][eliminated]);
}

static void avoided_report(kit_metrics *metrics, int direction, const umo_tally *tally, bool events)
{
    const kit_label label = {"direction", side_names[direction]};
    tally_report(metrics, KIT_AVOIDED_BYTES, &label, 1, tally, events,
                 &metrics->avoided[direction]);
}

/* A reason that never was has no series: there are many. */
static void copies_report(kit_metrics *metrics, int direction, const umo_tally *tallies,
                          bool events)
{
    for (int r = 0; r < UMO_REASON_COUNT; r++) {
        tally_series *both = &metrics->copies[direction][r];
        if (tallies[r].bytes != both->bytes.value ||
            (events && tallies[r].events != both->events.value)) {
            const kit_label labels[] = {{"direction", side_names[direction]},
                                        {"reason", umo_reason_label((umo_reason)r)}};
            tally_report(metrics, KIT_COPY_BYTES, labels, 2, &tallies[r], events, both);
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
        const umo_tally *performed = &now->transfer_performed[d];
        const umo_tally *eliminated = &now->transfer_eliminated[d];
        if (!kit_series_advance(&metrics->transfers[d][false].bytes, performed->bytes)) {
            transfer_report(metrics, d, false, performed, false);
        }
        if (!kit_series_advance(&metrics->transfers[d][true].bytes, eliminated->bytes)) {
            transfer_report(metrics, d, true, eliminated, false);
        }
        if (!kit_series_advance(&metrics->avoided[d].bytes, now->copy_avoided[d].bytes)) {
            avoided_report(metrics, d, &now->copy_avoided[d], false);
        }
        if (copies) {
            copies_report(metrics, d, now->copy_performed[d], false);
        }
    }
    if (now->live_bytes != metrics->live.value) {
        kit_series_set_value(&metrics->set, KIT_LIVE_BYTES, NULL, 0, now->live_bytes,
                             &metrics->live);
    }
    (void)pthread_mutex_unlock(&metrics->lock);
}

/* ---- what is looked at now and then ---- */

/* What is read before the lock is taken that requests wait for. */
typedef struct look {
    umo_pool_stats pools;
    umo_registry_stats registry;
    umo_pressure_stats pressure;
} look;

static void figure_report(kit_metrics *metrics, kit_family family, const char *name,
                          const char *label, uint64_t value, kit_series *series)
{
    const kit_label labels[] = {{name, label}};
    kit_series_set_value(&metrics->set, family, labels, name != NULL ? 1 : 0, value, series);
}

static void movement_report(kit_metrics *metrics)
{
    const umo_counters *now = &metrics->now;
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        transfer_report(metrics, d, false, &now->transfer_performed[d], true);
        transfer_report(metrics, d, true, &now->transfer_eliminated[d], true);
        avoided_report(metrics, d, &now->copy_avoided[d], true);
        copies_report(metrics, d, now->copy_performed[d], true);
    }
    tally_report(metrics, KIT_MOVED_BYTES, NULL, 0, &now->moves, true, &metrics->moves);
}

static void memory_report(kit_metrics *metrics, const umo_pool_stats *pools)
{
    const umo_counters *now = &metrics->now;
    static const char *const cache[2] = {"miss", "hit"};
    const umo_tally *imports[2] = {&now->imported, &now->import_hits};
    for (int hit = 0; hit < 2; hit++) {
        const kit_label label = {"cache", cache[hit]};
        tally_report(metrics, KIT_IMPORT_BYTES, &label, 1, imports[hit], true,
                     &metrics->imports[hit]);
    }
    tally_report(metrics, KIT_ALLOCATED_BYTES, NULL, 0, &now->allocated, true, &metrics->allocated);
    figure_report(metrics, KIT_LIVE_BYTES, NULL, NULL, now->live_bytes, &metrics->live);
    figure_report(metrics, KIT_PEAK_BYTES, NULL, NULL, now->peak_bytes, &metrics->peak);
    figure_report(metrics, KIT_LIVE_BUFFERS, NULL, NULL, now->live_buffers, &metrics->buffers);

    static const char *const states[3] = {"used", "idle", "rounding"};
    uint64_t taken_bytes = pools->live_bytes + pools->kept_bytes;
    const uint64_t bytes[3] = {
        pools->live_bytes, pools->kept_bytes,
        pools->reserved_bytes > taken_bytes ? pools->reserved_bytes - taken_bytes : 0};
    for (int s = 0; s < 3; s++) {
        figure_report(metrics, KIT_POOL_BYTES, "state", states[s], bytes[s],
                      &metrics->pool_bytes[s]);
    }
    figure_report(metrics, KIT_POOL_BLOCKS, "memory", "new", pools->misses,
                  &metrics->pool_blocks[0]);
    figure_report(metrics, KIT_POOL_BLOCKS, "memory", "kept", pools->hits,
                  &metrics->pool_blocks[1]);
    figure_report(metrics, KIT_POOL_TRIMMED, NULL, NULL, pools->trimmed_bytes,
                  &metrics->pool_trimmed);
}

/* All 0 where there is one node: then nobody counts. */
static void nodes_report(kit_metrics *metrics)
{
    static const char *const where[2] = {"local", "remote"};
    const umo_model *model = metrics->model;
    for (int w = 0; w < 2; w++) {
        figure_report(metrics, KIT_NUMA_SCRATCH_BYTES, "where", where[w],
                      atomic_load_explicit(&model->scratch_bytes[w], memory_order_relaxed),
                      &metrics->scratch_bytes[w]);
    }
    figure_report(metrics, KIT_NUMA_MOVES, NULL, NULL,
                  atomic_load_explicit(&model->scratch_moves, memory_order_relaxed),
                  &metrics->scratch_moves);
}

static void buffers_report(kit_metrics *metrics)
{
    static const char *const modes[UMO_STORAGE_MODES] = {"unified", "managed", "private"};
    for (int m = 0; m < UMO_STORAGE_MODES; m++) {
        figure_report(metrics, KIT_PLACEMENT_BYTES, "mode", modes[m],
                      metrics->summary.mode_bytes[m], &metrics->modes[m]);
    }
    for (int p = 0; p < UMO_PATTERNS; p++) {
        figure_report(metrics, KIT_PATTERN_BYTES, "pattern", umo_pattern_name((umo_pattern)p),
                      metrics->summary.pattern_bytes[p], &metrics->patterns[p]);
    }
}

static void process_report(kit_metrics *metrics, const look *seen)
{
    const umo_registry_stats *registry = &seen->registry;
    figure_report(metrics, KIT_CACHE_ENTRIES, "kind", "view", registry->views, &metrics->cache[0]);
    figure_report(metrics, KIT_CACHE_ENTRIES, "kind", "binding", registry->wraps,
                  &metrics->cache[1]);
    figure_report(metrics, KIT_CACHE_VIEW_BYTES, NULL, NULL, registry->view_bytes,
                  &metrics->view_bytes);
    figure_report(metrics, KIT_CACHE_EVICTIONS, NULL, NULL, registry->evictions,
                  &metrics->evictions);
    if (metrics->model->pressure == NULL) {
        return;
    }
    figure_report(metrics, KIT_REFUSED, NULL, NULL,
                  atomic_load_explicit(&metrics->refused, memory_order_relaxed),
                  &metrics->refusals);
    const umo_pressure_stats *pressure = &seen->pressure;
    for (int a = 0; a < UMO_PRESSURE_ANSWERS; a++) {
        figure_report(metrics, KIT_PRESSURE_ANSWERS, "answer",
                      umo_pressure_answer_name((umo_pressure_answer)a), pressure->answers[a].count,
                      &metrics->answers[a]);
    }
    for (int g = 0; g < GAUGES; g++) {
        const umo_pressure_source_stats *gauge = &pressure->sources[g];
        if (gauge->active && gauge->limit_bytes > 0) {
            const char *name = umo_pressure_source_name((umo_pressure_source)g);
            figure_report(metrics, KIT_MEMORY_USAGE, "source", name, gauge->usage_bytes,
                          &metrics->usage[g]);
            figure_report(metrics, KIT_MEMORY_LIMIT, "source", name, gauge->limit_bytes,
                          &metrics->limit[g]);
        }
    }
}

/* When to look again at what took so long. */
static uint64_t rest_ns(uint64_t start_ns)
{
    uint64_t took_ns = kit_now_ns() - start_ns;
    uint64_t rest = took_ns < UINT64_MAX / SHARE ? took_ns * SHARE : UINT64_MAX;
    return rest > SECOND_NS ? rest : SECOND_NS;
}

uint64_t kit_metrics_refresh(kit_metrics *metrics)
{
    const umo_model *model = metrics->model;
    uint64_t start_ns = kit_now_ns();
    if (start_ns >= metrics->summary_due_ns) {
        umo_access_summarize(model->scope, &metrics->summary);
        metrics->summary_due_ns = kit_now_ns() + rest_ns(start_ns) / 2;
        start_ns = kit_now_ns();
    }
    look seen;
    umo_pools_read(model->scope, &seen.pools);
    umo_registry_read(umo_context_registry(model->context), &seen.registry);
    if (model->pressure != NULL) {
        umo_pressure_read(model->pressure, &seen.pressure);
    }
    (void)pthread_mutex_lock(&metrics->lock);
    (void)umo_scope_read_again(model->scope, &metrics->copies_seen, &metrics->now);
    movement_report(metrics);
    memory_report(metrics, &seen.pools);
    nodes_report(metrics);
    buffers_report(metrics);
    process_report(metrics, &seen);
    (void)pthread_mutex_unlock(&metrics->lock);
    return rest_ns(start_ns);
}
