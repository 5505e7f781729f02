/*
 * Whose nodes' threads use a buffer: what threads have counted becomes votes in its record.
 *
 * A thread votes for the node that it notes at its accesses, so it votes when that changes, too:
 * else one that goes back and forth would give all to where it happens to be when somebody asks.
 */
#include "mem/record_state.h"

void umo_record_table_vote(umo_record_table *table, const record_slot *last, uint64_t last_bytes)
{
    for (size_t i = 0; i < SLOTS; i++) {
        const uint64_t key = table->keys[i];
        umo_record *record = key != 0 ? umo_record_of(key) : NULL;
        /* Here its lock comes second. */
        if (record == NULL || !lock_try(&record->locked)) {
            continue;
        }
        if (atomic_load_explicit(&record->range.key, memory_order_relaxed) == key) {
            const record_slot *slot = slot_at(table, i);
            uint64_t counted = host_bytes(&table->carried[i].sums) + window_host_bytes(slot);
            carry_vote(table, &table->carried[i], record,
                       counted - (slot == last ? last_bytes : 0));
        }
        lock_give(&record->locked);
    }
}

/* One pass over the tables, whatever buffers there are. */
void umo_record_votes_collect(void)
{
    umo_record_registry_lock();
    for (umo_record_table *t = umo_record_table_first(); t != NULL; t = t->next) {
        lock_take(&t->locked);
        umo_record_table_vote(t, NULL, 0);
        lock_give(&t->locked);
    }
    umo_record_registry_unlock();
}

double umo_record_votes_take(umo_buffer *buffer, double least, umo_votes *out)
{
    const uint64_t key = atomic_load_explicit(&buffer->record_key, memory_order_relaxed);
    if (key == 0) {
        return 0;
    }
    umo_record *record = umo_record_of(key);
    lock_take(&record->locked);
    double sum = umo_votes_sum(&record->votes);
    if (sum > 0 && sum >= least) {
        *out = record->votes;
        memset(&record->votes, 0, sizeof record->votes);
    } else {
        sum = 0;
    }
    lock_give(&record->locked);
    return sum;
}
