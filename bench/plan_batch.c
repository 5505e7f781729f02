/*
 * What a batch takes with and without lifetimes: umo_optimizer_alloc_planned() against
 * umo_optimizer_alloc_batch(), on the host's memory.
 *
 *   plan_batch FILE.csv      id,lower,upper,size[,alignment]
 *
 * Both are allocated out of the same scope, one after the other, and its live bytes are what
 * counts. Before that every buffer of the planned batch is written at its lifetime's begin and
 * compared at its end. Prints one JSON line.
 */
#include <umo/umo.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(bool good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "plan_batch: %s\n", what);
        exit(1);
    }
}

static uint64_t live_bytes(umo_context *context)
{
    umo_counters counters;
    umo_scope_read(umo_context_scope(context), &counters);
    return counters.live_bytes;
}

static void release_all(umo_buffer **buffers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        umo_buffer_release(buffers[i]);
    }
}

static int value_of(size_t index)
{
    return (int)(index % 251 + 1);
}

static bool holds(const umo_buffer *buffer, int value)
{
    const unsigned char *bytes = umo_buffer_host(buffer);
    return bytes[0] == value && memcmp(bytes, bytes + 1, umo_buffer_size(buffer) - 1) == 0;
}

typedef struct event {
    int64_t at;
    bool begins;
    size_t index;
} event;

/* What ends at a time ends before what begins there. */
static int event_order(const void *a, const void *b)
{
    const event *x = a;
    const event *y = b;
    if (x->at != y->at) {
        return x->at < y->at ? -1 : 1;
    }
    return (int)x->begins - (int)y->begins;
}

static void play(const umo_plan_table *table, umo_buffer *const *buffers)
{
    event *events = calloc(2 * table->count + 1, sizeof *events);
    must(events != NULL, "no memory");
    for (size_t i = 0; i < table->count; i++) {
        events[2 * i] = (event){table->buffers[i].lower, true, i};
        events[2 * i + 1] = (event){table->buffers[i].upper, false, i};
    }
    qsort(events, 2 * table->count, sizeof *events, event_order);
    for (size_t i = 0; i < 2 * table->count; i++) {
        umo_buffer *buffer = buffers[events[i].index];
        if (events[i].begins) {
            memset(umo_buffer_host(buffer), value_of(events[i].index), umo_buffer_size(buffer));
        } else {
            must(holds(buffer, value_of(events[i].index)), "bytes of a buffer in use were lost");
        }
    }
    free(events);
}

int main(int argc, char **argv)
{
    umo_plan_table table = {0};
    umo_error error = {0};
    must(argc == 2, "one file, please");
    must(umo_plan_table_read(argv[1], &table, &error) == UMO_OK, error.text);
    umo_optimizer_config config;
    umo_optimizer_config_init(&config);
    memcpy(config.driver, "host", sizeof "host");
    config.auto_placement = false;
    config.pressure_adaptation = false;
    umo_context *context = NULL;
    must(umo_context_default_acquire(NULL, &context, &error) == UMO_OK, error.text);
    must(umo_optimizer_initialize(&config, &error) == UMO_OK, error.text);

    umo_buffer **buffers = calloc(table.count + 1, sizeof(umo_buffer *));
    size_t *sizes = calloc(table.count + 1, sizeof *sizes);
    must(buffers != NULL && sizes != NULL, "no memory");
    umo_plan_result plan;
    const uint64_t before = live_bytes(context);
    must(umo_optimizer_alloc_planned(table.buffers, table.count, UMO_PATTERN_UNKNOWN, 0, buffers,
                                     &plan, &error) == UMO_OK,
         error.text);
    const uint64_t planned_bytes = live_bytes(context) - before;
    play(&table, buffers);
    release_all(buffers, table.count);
    for (size_t i = 0; i < table.count; i++) {
        sizes[i] = (size_t)table.buffers[i].size_bytes;
    }
    must(umo_optimizer_alloc_batch(sizes, table.count, UMO_PATTERN_UNKNOWN, 0, buffers, &error) ==
             UMO_OK,
         error.text);
    const uint64_t batch_bytes = live_bytes(context) - before;
    release_all(buffers, table.count);
    must(live_bytes(context) == before, "memory stayed behind");
    (void)printf("{\"buffers\": %zu, \"planned_bytes\": %llu, \"batch_bytes\": %llu, "
                 "\"bound_bytes\": %lld, \"plan_ns\": %llu}\n",
                 table.count, (unsigned long long)planned_bytes, (unsigned long long)batch_bytes,
                 (long long)plan.bound_bytes, (unsigned long long)plan.time_ns);
    free(sizes);
    free(buffers);
    must(umo_optimizer_shutdown(NULL) == UMO_OK, "no end");
    umo_context_default_release(context);
    umo_plan_table_finish(&table);
    return 0;
}
