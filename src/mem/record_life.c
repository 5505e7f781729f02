/*
 * Who is recorded: records, their buffers, their addresses, and the threads that count.
 *
 * Records are never freed and are known by a key that is never the same twice, so that counting
 * needs no reference and what comes late finds nobody.
 */
#include "mem/record_state.h"

#include "base/scope.h"

#include <stdlib.h>

#define RECORDS_MOST (UINT32_C(1) << KEY_INDEX_BITS)
#define CHUNK_RECORDS 256u

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(umo_record *) chunks[RECORDS_MOST / CHUNK_RECORDS];
static umo_record *free_records;
static uint32_t records_made;
static umo_record_table *tables;
static uint64_t tables_made;

void umo_record_registry_lock(void)
{
    (void)pthread_mutex_lock(&registry_lock);
}

void umo_record_registry_unlock(void)
{
    (void)pthread_mutex_unlock(&registry_lock);
}

static umo_record *record_at(uint32_t index)
{
    umo_record *chunk = atomic_load_explicit(&chunks[index / CHUNK_RECORDS], memory_order_acquire);
    return &chunk[index % CHUNK_RECORDS];
}

umo_record *umo_record_of(uint64_t key)
{
    return record_at((uint32_t)(key >> KEY_INDEX_SHIFT) % RECORDS_MOST);
}

void umo_record_table_add(umo_record_table *table)
{
    umo_record_registry_lock();
    table->number = ++tables_made;
    table->next = tables;
    tables = table;
    umo_record_registry_unlock();
}

void umo_record_table_remove(umo_record_table *table)
{
    umo_record_registry_lock();
    umo_record_table **at = &tables;
    while (*at != table) {
        at = &(*at)->next;
    }
    *at = table->next;
    umo_record_registry_unlock();
}

umo_record_table *umo_record_table_first(void)
{
    return tables;
}

/* ---- fork ---- */

static void fork_prepare(void)
{
    umo_record_registry_lock();
    for (uint32_t i = 0; i < records_made; i++) {
        lock_take(&record_at(i)->locked);
    }
    for (umo_record_table *t = tables; t != NULL; t = t->next) {
        lock_take(&t->locked);
    }
}

static void fork_done(void)
{
    for (umo_record_table *t = tables; t != NULL; t = t->next) {
        lock_give(&t->locked);
    }
    for (uint32_t i = 0; i < records_made; i++) {
        lock_give(&record_at(i)->locked);
    }
    umo_record_registry_unlock();
}

void umo_record_fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_done, fork_done);
}

/* ---- records ---- */

static umo_status record_take(umo_record **out)
{
    if (free_records != NULL) {
        *out = free_records;
        free_records = free_records->next_free;
        return UMO_OK;
    }
    if (records_made == RECORDS_MOST) {
        return UMO_E_LIMIT;
    }
    uint32_t index = records_made;
    if (index % CHUNK_RECORDS == 0) {
        char *memory = calloc(1, CHUNK_RECORDS * sizeof(umo_record) + CACHE_LINE - 1);
        if (memory == NULL) {
            return UMO_E_NOMEM;
        }
        memory += -(uintptr_t)memory & (CACHE_LINE - 1);
        /* Kept for the life of the process. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
        atomic_store_explicit(&chunks[index / CHUNK_RECORDS], (umo_record *)(void *)memory,
                              memory_order_release);
    }
    records_made++;
    *out = record_at(index);
    (*out)->index = index;
    return UMO_OK;
}

static void record_give(umo_record *record)
{
    record->next_free = free_records;
    free_records = record;
}

/* Where the buffer's bytes are for the host, for as long as it lives; NULL when that may change. */
static void *buffer_address(const umo_buffer *buffer)
{
    if (buffer->home != NULL || buffer->memory.host == NULL) {
        return buffer->home;
    }
    return (char *)buffer->memory.host + buffer->memory_offset;
}

umo_status umo_buffer_track(umo_buffer *buffer)
{
    umo_status status = UMO_OK;
    umo_record_registry_lock();
    if (atomic_load_explicit(&buffer->record_key, memory_order_relaxed) != 0) {
        goto done;
    }
    umo_record *record = NULL;
    status = record_take(&record);
    if (status != UMO_OK) {
        goto done;
    }
    uint64_t key = ((++record->generation << KEY_INDEX_BITS) | (uint64_t)record->index)
                   << KEY_INDEX_SHIFT;
    void *address = buffer_address(buffer);
    record->addressed = address != NULL;
    if (!record->addressed) {
        umo_address_key_set(&record->range, key);
    } else if (!umo_address_insert(&record->range, key, (uintptr_t)address, buffer->size_bytes)) {
        record_give(record);
        status = UMO_E_NOMEM;
        goto done;
    }
    record->buffer = buffer;
    atomic_store_explicit(&buffer->record_key, key, memory_order_relaxed);

done:
    umo_record_registry_unlock();
    return status;
}

/* No address leads to the key any more in a thread's slots. */
static void slots_forget(umo_record_table *t, uint64_t key)
{
    lock_take(&t->locked);
    for (size_t i = HALF_SLOTS; i < SLOTS; i++) {
        if (t->keys[i] == key) {
            atomic_store_explicit(&slot_at(t, i)->size_bytes, 0, memory_order_relaxed);
        }
    }
    lock_give(&t->locked);
}

void umo_record_close(umo_buffer *buffer)
{
    uint64_t key = atomic_load_explicit(&buffer->record_key, memory_order_relaxed);
    if (key == 0) {
        return;
    }
    umo_record *record = umo_record_of(key);
    umo_record_registry_lock();
    if (record->addressed) {
        umo_address_remove(&record->range);
    } else {
        umo_address_key_set(&record->range, 0);
    }
    /* A thread that takes it into a slot after this has seen that the key is gone. */
    if (atomic_exchange_explicit(&record->paged, false, memory_order_seq_cst)) {
        for (umo_record_table *t = tables; t != NULL; t = t->next) {
            slots_forget(t, key);
        }
    }
    /* Who adds to a record looks at its key under this lock, so what comes late finds nobody. */
    lock_take(&record->locked);
    memset(&record->sums, 0, sizeof record->sums);
    record->stamp = 0;
    record->last_thread = 0;
    record->round = 0;
    memset(&record->votes, 0, sizeof record->votes);
    record->declared = UMO_PATTERN_UNKNOWN;
    record->pattern = UMO_PATTERN_UNKNOWN;
    lock_give(&record->locked);
    record->buffer = NULL;
    record_give(record);
    atomic_store_explicit(&buffer->record_key, 0, memory_order_relaxed);
    umo_record_registry_unlock();
}

/* One more reference, unless the last one is gone: under the registry's lock, where the buffer of a
 * record is not yet freed. */
static bool buffer_acquire(umo_buffer *buffer)
{
    uint32_t refs = atomic_load_explicit(&buffer->refs, memory_order_relaxed);
    while (refs != 0 &&
           !atomic_compare_exchange_weak_explicit(&buffer->refs, &refs, refs + 1,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
    return refs != 0;
}

umo_status umo_buffer_find(const void *address, umo_buffer **out)
{
    umo_status status = UMO_E_NOT_FOUND;
    umo_address_hit hit;
    umo_record_registry_lock();
    if (umo_address_find((uintptr_t)address, &hit)) {
        umo_buffer *buffer = umo_record_of(hit.key)->buffer;
        if (buffer_acquire(buffer)) {
            *out = buffer;
            status = UMO_OK;
        }
    }
    umo_record_registry_unlock();
    return status;
}

umo_buffer *umo_record_next(uint32_t *cursor, const umo_scope *scope)
{
    umo_buffer *found = NULL;
    umo_record_registry_lock();
    while (found == NULL && *cursor < records_made) {
        umo_buffer *buffer = record_at((*cursor)++)->buffer;
        if (buffer != NULL && (scope == NULL || umo_scope_within(buffer->scope, scope)) &&
            buffer_acquire(buffer)) {
            found = buffer;
        }
    }
    umo_record_registry_unlock();
    return found;
}

/* The record of a buffer, locked; NULL when it is not tracked. */
static umo_record *record_lock(umo_buffer *buffer)
{
    uint64_t key = atomic_load_explicit(&buffer->record_key, memory_order_relaxed);
    umo_record *record = key != 0 ? umo_record_of(key) : NULL;
    if (record != NULL) {
        lock_take(&record->locked);
    }
    return record;
}

umo_pattern umo_record_pattern(umo_buffer *buffer)
{
    umo_pattern pattern = UMO_PATTERN_UNKNOWN;
    umo_record *record = record_lock(buffer);
    if (record != NULL) {
        pattern = record->pattern;
        lock_give(&record->locked);
    }
    return pattern;
}

void umo_record_pattern_set(umo_buffer *buffer, umo_pattern pattern)
{
    umo_record *record = record_lock(buffer);
    if (record != NULL) {
        record->pattern = pattern;
        lock_give(&record->locked);
    }
}

umo_status umo_buffer_set_pattern(umo_buffer *buffer, umo_pattern pattern)
{
    if (buffer == NULL || (unsigned)pattern >= UMO_PATTERNS) {
        return UMO_E_INVAL;
    }
    umo_status status = umo_buffer_track(buffer);
    if (status == UMO_OK) {
        umo_record *record = record_lock(buffer);
        record->declared = pattern;
        lock_give(&record->locked);
    }
    return status;
}
