/* The rules, what happens when one is broken, and the options. */
#include "fake.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

fake_metal_options fake_options;

static const char *const rules[] = {
    /* the runtime */
    "unknown_selector", "zombie", "freed_in_use", "not_made_by_new", "no_pool", "pool_order",
    "pool_thread", "pool_left", "not_a_block", "nil_argument", "wrong_class", "index_range",
    "other_device",
    /* resources */
    "no_copy_pointer", "no_copy_length", "no_copy_mapping", "no_copy_storage", "buffer_length",
    "storage_mode", "managed_unified", "modified_not_managed", "modified_range", "heap_size",
    "heap_storage", "heap_purgeable", "purgeable_state",
    /* queues and command buffers */
    "queue_count", "queue_full", "encoder_open", "encoder_ended", "encoder_not_ended",
    "commit_open_encoder", "commit_twice", "encode_after_commit", "handler_after_commit",
    "event_backwards", "signal_behind_wait",
    /* encoders */
    "blit_range", "blit_overlap", "blit_size", "blit_align", "synchronize_not_managed",
    "no_pipeline", "binding_missing", "binding_kind", "bytes_length", "buffer_offset",
    "offset_align", "threads_per_group", "local_length", "local_total", "empty_dispatch",
    "nonuniform",
    /* residency */
    "residency_count", "residency_paravirtual", NULL};

#define RULES (FAKE_COUNT(rules) - 1)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t counts[RULES];
static uint32_t total;
static char last[640];
static atomic_bool recording;

static size_t rule_find(const char *rule)
{
    size_t i = 0;
    while (i < RULES && strcmp(rules[i], rule) != 0) {
        i++;
    }
    return i;
}

void fake_violate(const char *rule, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t index = rule_find(rule);
    if (index == RULES || !atomic_load(&recording)) {
        (void)fprintf(stderr, "fake metal: %s: %s\n", rule, text);
        abort();
    }
    (void)pthread_mutex_lock(&lock);
    counts[index]++;
    total++;
    (void)snprintf(last, sizeof last, "%s: %s", rule, text);
    (void)pthread_mutex_unlock(&lock);
}

void fake_violations_clear(void)
{
    (void)pthread_mutex_lock(&lock);
    memset(counts, 0, sizeof counts);
    total = 0;
    last[0] = 0;
    (void)pthread_mutex_unlock(&lock);
}

void fake_metal_record(bool on)
{
    atomic_store(&recording, on);
}

uint32_t fake_metal_violations(void)
{
    (void)pthread_mutex_lock(&lock);
    uint32_t count = total;
    (void)pthread_mutex_unlock(&lock);
    return count;
}

uint32_t fake_metal_rule_violations(const char *rule)
{
    size_t index = rule_find(rule);
    if (index == RULES) {
        (void)fprintf(stderr, "fake metal: there is no rule %s\n", rule);
        abort();
    }
    (void)pthread_mutex_lock(&lock);
    uint32_t count = counts[index];
    (void)pthread_mutex_unlock(&lock);
    return count;
}

const char *fake_metal_violation_text(void)
{
    return last;
}

const char *const *fake_metal_rules(void)
{
    return rules;
}

/* ---- options ---- */

typedef struct setting {
    const char *key;
    size_t offset;
    size_t size_bytes; /* 0: text */
} setting;

#define SETTING(field)                                                                             \
    {                                                                                              \
#field, offsetof(fake_metal_options, field), sizeof(((fake_metal_options *)0)->field)      \
    }

static const setting settings[] = {
    {"name", offsetof(fake_metal_options, name), 0},
    SETTING(devices),
    SETTING(apple_family),
    SETTING(unified),
    SETTING(mac2),
    SETTING(metal3),
    SETTING(residency),
    SETTING(managed_anywhere),
    SETTING(fresh_garbage),
    SETTING(in_order),
    SETTING(record),
    SETTING(page),
    SETTING(buffer_max),
    SETTING(working_set),
    SETTING(memory_limit),
    SETTING(local_max),
    SETTING(threads_max),
    SETTING(heap_align),
    SETTING(blit_align),
    SETTING(delay_ns),
    SETTING(late_ns),
};

static void setting_wrong(const char *text)
{
    (void)fprintf(stderr, "fake metal: FAKE_METAL: %s\n", text);
    abort();
}

static void setting_store(fake_metal_options *options, const setting *the, const char *value)
{
    char *field = (char *)options + the->offset;
    if (the->size_bytes == 0) {
        (void)snprintf(options->name, sizeof options->name, "%s", value);
        return;
    }
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 0);
    if (*value == 0 || *end != 0 || errno != 0) {
        setting_wrong(value);
    }
    if (the->size_bytes == sizeof(uint64_t)) {
        uint64_t wide = number;
        memcpy(field, &wide, sizeof wide);
    } else if (the->size_bytes == sizeof(uint32_t)) {
        uint32_t narrow = (uint32_t)number;
        memcpy(field, &narrow, sizeof narrow);
    } else {
        bool truth = number != 0;
        memcpy(field, &truth, sizeof truth);
    }
}

static void settings_read(fake_metal_options *options, const char *text)
{
    char copy[1024];
    char *rest = copy;
    (void)snprintf(copy, sizeof copy, "%s", text);
    while (*rest != 0) {
        char *item = rest;
        rest += strcspn(rest, ",");
        if (*rest == ',') {
            *rest++ = 0;
        }
        char *value = strchr(item, '=');
        if (value == NULL) {
            setting_wrong(item);
            return;
        }
        *value++ = 0;
        size_t i = 0;
        while (i < FAKE_COUNT(settings) && strcmp(settings[i].key, item) != 0) {
            i++;
        }
        if (i == FAKE_COUNT(settings)) {
            setting_wrong(item);
            return;
        }
        setting_store(options, &settings[i], value);
    }
}

void fake_metal_options_default(fake_metal_options *out)
{
    fake_metal_options options = {
        .name = "Fake M1",
        .devices = 1,
        .apple_family = UINT32_MAX,
        .unified = true,
        .mac2 = true,
        .metal3 = true,
        .residency = true,
        .page = (uint64_t)sysconf(_SC_PAGESIZE),
        .buffer_max = UINT64_C(4) << 30,
        .working_set = UINT64_C(16) << 30,
        .local_max = 32768,
        .threads_max = 1024,
        .heap_align = 256,
        .blit_align = 4,
    };
    const char *text = getenv("FAKE_METAL");
    if (text != NULL) {
        settings_read(&options, text);
    }
    if (options.apple_family == UINT32_MAX) {
        options.apple_family = options.unified ? 7 : 0;
    }
    *out = options;
}

void fake_metal_reset(const fake_metal_options *options)
{
    fake_gpu_reset();
    fake_metal_options fresh;
    if (options == NULL) {
        fake_metal_options_default(&fresh);
    } else {
        fresh = *options;
    }
    (void)fake_metal_run_late();
    fake_options = fresh;
    atomic_store(&recording, fresh.record);
    fake_faults_clear();
    fake_violations_clear();
    fake_residency_reset();
    fake_zombies_clear();
    fake_metal_mark();
}
