/*
 * Sums and fading. Fading is by the count of accesses, never by time, so that the same accesses
 * give the same figures whenever they are brought together.
 */
#include "mem/figures.h"

double umo_figures_accesses(const umo_figures *figures)
{
    double sum = 0;
    for (unsigned c = 0; c < CELLS; c++) {
        sum += figures->recent_events[c];
    }
    return sum;
}

void umo_figures_add(umo_figures *figures, const umo_figures *later, uint32_t fades)
{
    double factor = figures_factor(figures, fades, later->fill);
    for (unsigned c = 0; c < CELLS; c++) {
        figures->events[c] += later->events[c];
        figures->bytes[c] += later->bytes[c];
        figures->recent_events[c] = figures->recent_events[c] * factor + later->recent_events[c];
        figures->recent_bytes[c] = figures->recent_bytes[c] * factor + later->recent_bytes[c];
    }
    figures->recent_turns = figures->recent_turns * factor + later->recent_turns;
}

umo_side_stats umo_figures_side(const umo_figures *figures, umo_side side)
{
    umo_side_stats out = {0};
    for (unsigned use = UMO_READ; use <= UMO_READ_WRITE; use++) {
        unsigned c = cell_index(side, (umo_use)use);
        if ((use & UMO_READ) != 0) {
            out.reads.events += figures->events[c];
            out.reads.bytes += figures->bytes[c];
            out.recent_reads += figures->recent_events[c];
            out.recent_read_bytes += figures->recent_bytes[c];
        }
        if ((use & UMO_WRITE) != 0) {
            out.writes.events += figures->events[c];
            out.writes.bytes += figures->bytes[c];
            out.recent_writes += figures->recent_events[c];
            out.recent_write_bytes += figures->recent_bytes[c];
        }
    }
    return out;
}
