/*
 * What is counted of a buffer, and how old accesses fade. Plain values; no threads here.
 */
#ifndef UMO_MEM_FIGURES_H
#define UMO_MEM_FIGURES_H

#include <umo/access.h>

/* One for each side and umo_use: host 0 to 2, device 4 to 6. The others stay empty; they make the
 * index cheap. */
#define CELLS 8u

static inline unsigned cell_index(umo_side side, umo_use use)
{
    return (unsigned)side * 4u + (unsigned)use - 5u;
}

/* In a record, or carried by a thread until its record takes them. */
typedef struct umo_figures {
    uint64_t events[CELLS];
    uint64_t bytes[CELLS];
    double recent_events[CELLS];
    double recent_bytes[CELLS];
    double recent_turns;
    uint32_t fades; /* how often full windows have faded what was there before */
    uint32_t fill;  /* accesses of windows that ended early */
} umo_figures;

/* Recent accesses of all kinds. */
double umo_figures_accesses(const umo_figures *figures);

/* Fades what is there so often, and once more when windows that ended early have filled one up.
 * Returns by what. */
static inline double figures_factor(umo_figures *figures, uint32_t fades, uint32_t fill)
{
    fill += figures->fill;
    fades += fill / UMO_ACCESS_WINDOW;
    figures->fill = fill % UMO_ACCESS_WINDOW;
    figures->fades += fades;
    return fades < 63 ? 1.0 / (double)(INT64_C(1) << fades) : 0.0;
}

/* Adds later figures to earlier ones, which the later ones have faded so often. */
void umo_figures_add(umo_figures *figures, const umo_figures *later, uint32_t fades);

/* What one side did. */
umo_side_stats umo_figures_side(const umo_figures *figures, umo_side side);

#endif
