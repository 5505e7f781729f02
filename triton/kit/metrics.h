/*
 * Families and series of the server's /metrics, and nothing of what they show.
 */
#ifndef UMO_KIT_METRICS_H
#define UMO_KIT_METRICS_H

#include "kit/kit.h"

/* Rows of metrics_series.c. */
typedef enum kit_family {
    KIT_TRANSFER_BYTES,
    KIT_TRANSFERS,
    KIT_COPY_BYTES,
    KIT_COPIES,
    KIT_AVOIDED_BYTES,
    KIT_AVOIDED,
    KIT_IMPORT_BYTES,
    KIT_IMPORTS,
    KIT_ALLOCATED_BYTES,
    KIT_ALLOCATIONS,
    KIT_MOVED_BYTES,
    KIT_MOVES,
    KIT_LIVE_BYTES,
    KIT_PEAK_BYTES,
    KIT_LIVE_BUFFERS,
    KIT_POOL_BYTES,
    KIT_POOL_BLOCKS,
    KIT_POOL_TRIMMED,
    KIT_NUMA_SCRATCH_BYTES,
    KIT_NUMA_MOVES,
    KIT_PLACEMENT_BYTES,
    KIT_PATTERN_BYTES,
    KIT_CACHE_ENTRIES,
    KIT_CACHE_VIEW_BYTES,
    KIT_CACHE_EVICTIONS,
    KIT_REFUSED,
    KIT_READY,
    KIT_PRESSURE_LEVEL,
    KIT_PRESSURE_ANSWERS,
    KIT_MEMORY_USAGE,
    KIT_MEMORY_LIMIT,
    KIT_FAMILIES
} kit_family;

/* One series. Zeroed, it is made when it is first set. */
typedef struct kit_series {
    TRITONSERVER_Metric *metric;
    uint64_t value; /* as reported */
    struct kit_series *next;
} kit_series;

/* All of one model's. */
typedef struct kit_series_set {
    const umo_model *model;
    kit_series *made;
} kit_series_set;

typedef struct kit_label {
    const char *name;
    const char *value;
} kit_label;

#define KIT_LABELS_MAX 2u

/* Adds to a counter that was made. */
void kit_series_increment(kit_series *series, uint64_t more);
/* Brings a counter to a value that is never below the one before. False when it has to be made. */
static inline bool kit_series_advance(kit_series *series, uint64_t value)
{
    uint64_t more = value - series->value;
    if (more == 0) {
        return true;
    }
    if (series->metric == NULL) {
        return false;
    }
    kit_series_increment(series, more);
    return true;
}

/* Every set holds the families. */
void kit_series_begin(kit_series_set *set, const umo_model *model);
/* Takes its series away. */
void kit_series_end(kit_series_set *set);
/* Brings a series to a value; a counter that would fall stays, and counts on from there. Labels are
 * read only when it is made. One caller at a time. */
void kit_series_set_value(kit_series_set *set, kit_family family, const kit_label *labels,
                          size_t label_count, uint64_t value, kit_series *series);

#endif
