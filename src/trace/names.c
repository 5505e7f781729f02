/*
 * The table of names, filled by compare-and-exchange.
 */
#include "trace/names.h"

#include <string.h>

static umo_trace_name names[UMO_TRACE_NAMES];

static void name_show(umo_trace_head *head, uint32_t place, uint64_t key, const char *text)
{
    umo_trace_name *shown = &head->names[place];
    memcpy(shown->text, text, sizeof shown->text);
    atomic_store_explicit(&shown->key, key, memory_order_relaxed);
    atomic_store_explicit(&shown->ready, 1, memory_order_release);
}

bool umo_trace_name_keep(umo_trace_name_of what, uint32_t number, const char *text)
{
    const uint64_t key = umo_trace_name_key(what, number);
    for (uint32_t probe = 0; probe < UMO_TRACE_NAME_PROBES; probe++) {
        const uint32_t place = umo_trace_name_place(key, probe);
        umo_trace_name *n = &names[place];
        uint64_t seen = atomic_load_explicit(&n->key, memory_order_relaxed);
        if (seen == key) {
            return true;
        }
        if (seen == 0 && atomic_compare_exchange_strong_explicit(
                             &n->key, &seen, key, memory_order_relaxed, memory_order_relaxed)) {
            strncpy(n->text, text, sizeof n->text - 1);
            atomic_store_explicit(&n->ready, 1, memory_order_release);
            name_show((umo_trace_head *)(void *)&umo_recorded, place, key, n->text);
            return true;
        }
        if (seen == key) {
            return true;
        }
    }
    return false;
}

const char *umo_trace_name_find(umo_trace_name_of what, uint32_t number)
{
    const uint64_t key = umo_trace_name_key(what, number);
    for (uint32_t probe = 0; number != 0 && probe < UMO_TRACE_NAME_PROBES; probe++) {
        umo_trace_name *n = &names[umo_trace_name_place(key, probe)];
        if (atomic_load_explicit(&n->key, memory_order_relaxed) == key &&
            atomic_load_explicit(&n->ready, memory_order_acquire) != 0) {
            return n->text;
        }
    }
    return "";
}

void umo_trace_names_show(umo_trace_head *head)
{
    for (uint32_t place = 0; place < UMO_TRACE_NAMES; place++) {
        if (atomic_load_explicit(&names[place].ready, memory_order_acquire) != 0) {
            name_show(head, place, atomic_load_explicit(&names[place].key, memory_order_relaxed),
                      names[place].text);
        }
    }
}
