/*
 * A context, and the process's default one. Every backend of a server is opened on its own, yet all
 * find this one object, because libumo.so.0 exists once: one budget, one set of counters, one
 * registration cache.
 */
#include "access/pressure.h"
#include "mem/registry.h"
#include "trace/trace.h"

#include <umo/context.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES_MAX 16

typedef struct context_device {
    char driver[sizeof((umo_device_info *)NULL)->driver];
    uint32_t ordinal;
    umo_device *device;
} context_device;

struct umo_context {
    umo_context_options options;
    umo_scope *scope;
    umo_registry *registry;
    umo_copier *copier;
    pthread_mutex_t lock; /* devices, and starting the pressure */
    context_device devices[DEVICES_MAX];
    size_t device_count;
    umo_pressure *_Atomic pressure;
    double pressure_threshold;
};

/* The smaller of the two budgets; 0 for none. */
static umo_status budget_of(const umo_context_options *options, uint64_t *out, umo_error *error)
{
    *out = options->budget_bytes;
    double fraction = options->budget_fraction;
    if (!(fraction >= 0 && fraction <= 1)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "budget_fraction lies in 0 to 1");
    }
    if (!(fraction > 0)) {
        return UMO_OK;
    }
    uint64_t memory_bytes = umo_pressure_memory_bytes();
    if (memory_bytes == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the system does not say how much memory there is: "
                             "give budget_bytes instead of budget_fraction");
    }
    uint64_t part = (uint64_t)((double)memory_bytes * fraction);
    if (*out == 0 || part < *out) {
        *out = part > 0 ? part : 1;
    }
    return UMO_OK;
}

umo_status umo_context_create(const umo_context_options *options, umo_context **out,
                              umo_error *error)
{
    umo_trace_show();
    umo_context *context = calloc(1, sizeof *context);
    if (context == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a context");
    }
    if (options != NULL) {
        context->options = *options;
    }
    (void)pthread_mutex_init(&context->lock, NULL);
    uint64_t budget_bytes = 0;
    umo_status status = budget_of(&context->options, &budget_bytes, error);
    if (status == UMO_OK) {
        status = umo_scope_create(NULL, "umo", budget_bytes, &context->scope, error);
    }
    if (status == UMO_OK) {
        status = umo_registry_create(&context->options.registry, context->scope, &context->registry,
                                     error);
    }
    if (status == UMO_OK) {
        status = umo_copier_create(UINT32_MAX, 0, &context->copier, error);
    }
    if (status != UMO_OK) {
        umo_context_destroy(context);
        return status;
    }
    *out = context;
    return UMO_OK;
}

void umo_context_destroy(umo_context *context)
{
    if (context == NULL) {
        return;
    }
    umo_pressure_destroy(atomic_load_explicit(&context->pressure, memory_order_relaxed));
    umo_copier_destroy(context->copier);
    umo_registry_destroy(context->registry);
    for (size_t i = 0; i < context->device_count; i++) {
        umo_device_release(context->devices[i].device);
    }
    umo_scope_destroy(context->scope);
    (void)pthread_mutex_destroy(&context->lock);
    free(context);
}

static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;
static umo_context *default_context;
static size_t default_refs;

/* The field in which a configuration asks for something else than the context has; NULL when they
 * agree. Zero asks for nothing. */
static const char *options_differ(const umo_context *context, const umo_context_options *wanted,
                                  uint64_t *asked, uint64_t *have)
{
    const umo_registry_options *registry = &context->registry->options;
    const umo_context_options *made = &context->options;
    const struct {
        const char *name;
        uint64_t asked;
        uint64_t have;
    } fields[] = {
        {"budget_bytes", wanted->budget_bytes, made->budget_bytes},
        {"budget_fraction (in millionths)", (uint64_t)(wanted->budget_fraction * 1e6),
         (uint64_t)(made->budget_fraction * 1e6)},
        {"wraps_max", wanted->registry.wraps_max, registry->wraps_max},
        {"views_max", wanted->registry.views_max, registry->views_max},
        {"views_bytes_max", wanted->registry.views_bytes_max, registry->views_bytes_max},
        {"delay_ns", wanted->driver.delay_ns, made->driver.delay_ns},
        {"test_mode", wanted->driver.test_mode ? 1 : 0, made->driver.test_mode ? 1 : 0},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].asked != 0 && fields[i].asked != fields[i].have) {
            *asked = fields[i].asked;
            *have = fields[i].have;
            return fields[i].name;
        }
    }
    return NULL;
}

umo_status umo_context_default_acquire(const umo_context_options *options, umo_context **out,
                                       umo_error *error)
{
    umo_status status = UMO_OK;
    uint64_t asked = 0;
    uint64_t have = 0;
    const char *field = NULL;
    if (options != NULL && !(options->budget_fraction >= 0 && options->budget_fraction <= 1)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "budget_fraction lies in 0 to 1");
    }
    (void)pthread_mutex_lock(&default_lock);
    if (default_context == NULL) {
        status = umo_context_create(options, &default_context, error);
    } else if (options != NULL) {
        field = options_differ(default_context, options, &asked, &have);
    }
    if (field != NULL) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "%s is %llu, but this process's context was made with %llu", field,
                               (unsigned long long)asked, (unsigned long long)have);
    }
    if (status == UMO_OK) {
        default_refs++;
        *out = default_context;
    }
    (void)pthread_mutex_unlock(&default_lock);
    return status;
}

void umo_context_default_release(umo_context *context)
{
    (void)pthread_mutex_lock(&default_lock);
    umo_context *last = NULL;
    if (context != NULL && context == default_context && --default_refs == 0) {
        last = default_context;
        default_context = NULL;
    }
    (void)pthread_mutex_unlock(&default_lock);
    umo_context_destroy(last);
}

umo_scope *umo_context_scope(umo_context *context)
{
    return context->scope;
}

umo_copier *umo_context_copier(umo_context *context)
{
    return context->copier;
}

umo_registry *umo_context_registry(umo_context *context)
{
    return context->registry;
}

umo_status umo_context_device(umo_context *context, const char *driver, uint32_t ordinal,
                              umo_device **out, umo_error *error)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&context->lock);
    for (size_t i = 0; i < context->device_count; i++) {
        context_device *entry = &context->devices[i];
        if (entry->ordinal == ordinal && strcmp(entry->driver, driver) == 0) {
            umo_device_acquire(entry->device);
            *out = entry->device;
            goto done;
        }
    }
    if (context->device_count == DEVICES_MAX) {
        status =
            umo_error_set(error, UMO_E_LIMIT, 0, "a context opens at most %d devices", DEVICES_MAX);
        goto done;
    }
    context_device *entry = &context->devices[context->device_count];
    status = umo_device_open(driver, ordinal, &context->options.driver, &entry->device, error);
    if (status != UMO_OK) {
        goto done;
    }
    entry->ordinal = ordinal;
    strcpy(entry->driver, driver); /* fits: the registry takes no longer name */
    context->device_count++;
    umo_device_acquire(entry->device);
    *out = entry->device;
    umo_pressure *pressure = umo_context_pressure(context);
    if (pressure != NULL) {
        /* Its working set is a limit too; one device more than is watched is no failure. */
        umo_status_ignore(umo_pressure_add_device(pressure, entry->device));
    }

done:
    (void)pthread_mutex_unlock(&context->lock);
    return status;
}

umo_status umo_context_pressure_start(umo_context *context, const umo_pressure_options *options,
                                      umo_error *error)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&context->lock);
    umo_pressure *pressure = umo_context_pressure(context);
    double threshold = options != NULL && options->threshold > 0 ? options->threshold : 0;
    if (pressure == NULL) {
        status = umo_pressure_create(options, context->scope, &pressure, error);
        if (status == UMO_OK) {
            for (size_t i = 0; i < context->device_count; i++) {
                umo_status_ignore(umo_pressure_add_device(pressure, context->devices[i].device));
            }
            context->pressure_threshold =
                threshold > 0 ? threshold : UMO_PRESSURE_THRESHOLD_DEFAULT;
            atomic_store_explicit(&context->pressure, pressure, memory_order_release);
        }
    } else if (threshold > 0 && (threshold < context->pressure_threshold ||
                                 threshold > context->pressure_threshold)) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "pressure is watched with a threshold of %g already, not %g",
                               context->pressure_threshold, threshold);
    }
    (void)pthread_mutex_unlock(&context->lock);
    return status;
}

umo_pressure *umo_context_pressure(umo_context *context)
{
    return atomic_load_explicit(&context->pressure, memory_order_acquire);
}

const char *umo_version(void)
{
    return UMO_VERSION;
}
