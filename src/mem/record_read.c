/*
 * Reading how a buffer was used: its record's figures and what every thread has counted since.
 */
#include "mem/record_state.h"

/*
 * With the record's lock nobody brings counts to it, and with a table's its thread closes no
 * window: each access is found once, in the one place or in the other.
 */
static void record_sum(umo_record *record, uint64_t key, umo_record *out)
{
    umo_record_registry_lock();
    lock_take(&record->locked);
    out->sums = record->sums;
    out->stamp = record->stamp;
    out->last_thread = record->last_thread;
    out->last_side = record->last_side;
    out->round = record->round;
    out->declared = record->declared;
    for (umo_record_table *t = umo_record_table_first(); t != NULL; t = t->next) {
        lock_take(&t->locked);
        for (size_t i = 0; i < SLOTS; i++) {
            if (t->keys[i] != key) {
                continue;
            }
            const record_slot *slot = slot_at(t, i);
            umo_figures counted = t->carried[i].sums;
            uint32_t open = window_add(slot, &counted, 0, 0);
            if (open > 0 || umo_figures_accesses(&counted) > 0) {
                record_add(out, t->number, &counted, t->carried[i].first, slot_side(slot));
            }
            stamp_raise(&out->stamp, slot);
        }
        lock_give(&t->locked);
    }
    lock_give(&record->locked);
    umo_record_registry_unlock();
}

void umo_buffer_stats(umo_buffer *buffer, umo_access_stats *out)
{
    memset(out, 0, sizeof *out);
    uint64_t key = atomic_load_explicit(&buffer->record_key, memory_order_relaxed);
    if (key == 0) {
        return;
    }
    umo_record sum;
    memset(&sum, 0, sizeof sum);
    record_sum(umo_record_of(key), key, &sum);
    out->host = umo_figures_side(&sum.sums, UMO_SIDE_HOST);
    out->device = umo_figures_side(&sum.sums, UMO_SIDE_DEVICE);
    for (unsigned c = 0; c < CELLS; c++) {
        out->accesses += sum.sums.events[c];
    }
    out->recent_accesses = umo_figures_accesses(&sum.sums);
    out->recent_turns = sum.sums.recent_turns;
    out->last_ns = umo_record_time_ns(sum.stamp);
    out->declared = sum.declared;
}
