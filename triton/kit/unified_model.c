/*
 * Where a model's `unified_memory` settings come from, and who gets them.
 *
 * The operator's defaults (--backend-config) come first and the model's own fields over them. What
 * holds in the end is one line of the server's log: a setting is then never a guess.
 */
#include "kit/kit.h"
#include "kit/unified.h"

#include <stdio.h>
#include <string.h>

#define UNIFIED_KEY "unified_memory"
#define FIELD_PREFIX UNIFIED_KEY "."

/* unified_memory={...} is one JSON object, unified_memory.FIELD=VALUE a field as text. */
static const kit_unified_source in_option = {.where = "--backend-config " UNIFIED_KEY,
                                             .whole = "--backend-config " UNIFIED_KEY,
                                             .process = true};
static const kit_unified_source in_option_field = {.where = "--backend-config " UNIFIED_KEY,
                                                   .whole = "--backend-config " UNIFIED_KEY,
                                                   .text = true,
                                                   .process = true};

static umo_status defaults_read(kit_unified *unified, const json_t *options, umo_error *error)
{
    json_t *cmdline = json_object_get(options, "cmdline");
    const char *key;
    json_t *value;
    umo_status status = kit_unified_read_text(
        unified, &in_option, json_string_value(json_object_get(cmdline, UNIFIED_KEY)), error);
    json_object_foreach(cmdline, key, value)
    {
        if (status == UMO_OK && strncmp(key, FIELD_PREFIX, strlen(FIELD_PREFIX)) == 0) {
            status = kit_unified_read_field(unified, &in_option_field, key + strlen(FIELD_PREFIX),
                                            value, error);
        }
    }
    if (status == UMO_OK && json_object_get(cmdline, "pressure") != NULL &&
        (!unified->config.pressure_adaptation || unified->config.pressure_threshold > 0)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "--backend-config says pressure and %s.%s, which are one setting; "
                             "write one of them",
                             UNIFIED_KEY,
                             unified->config.pressure_adaptation ? "memory_pressure_threshold"
                                                                 : "enable_pressure_adaptation");
    }
    return status;
}

static umo_status settings_read(const umo_model *model, kit_unified *unified, umo_error *error)
{
    kit_unified_init(unified);
    umo_status status = defaults_read(unified, model->options, error);
    return status == UMO_OK ? kit_unified_read_model(unified, model->config, error) : status;
}

typedef struct sides {
    umo_io *ios[2];
    size_t counts[2];
} sides;

static sides sides_of(umo_model *model)
{
    return (sides){{model->inputs, model->outputs}, {model->input_count, model->output_count}};
}

static bool tensor_find(const sides *s, const char *name)
{
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < s->counts[side]; i++) {
            if (strcmp(s->ios[side][i].name, name) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* "input" and "output" are all of their side, unless a tensor is called so. */
static void group_note(const char *name, umo_pattern pattern, void *user)
{
    static const char *const groups[2] = {"input", "output"};
    const sides *s = user;
    for (int side = 0; side < 2; side++) {
        if (strcmp(name, groups[side]) != 0 || tensor_find(s, name)) {
            continue;
        }
        for (size_t i = 0; i < s->counts[side]; i++) {
            s->ios[side][i].pattern = pattern;
        }
    }
}

static void tensor_note(const char *name, umo_pattern pattern, void *user)
{
    const sides *s = user;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < s->counts[side]; i++) {
            if (strcmp(s->ios[side][i].name, name) == 0) {
                s->ios[side][i].pattern = pattern;
            }
        }
    }
}

static void patterns_apply(umo_model *model, const kit_unified *unified)
{
    sides s = sides_of(model);
    kit_unified_visit(unified, group_note, &s);
    kit_unified_visit(unified, tensor_note, &s);
}

umo_status kit_config_unified(umo_model *model, umo_error *error)
{
    kit_unified unified;
    umo_status status = settings_read(model, &unified, error);
    if (status == UMO_OK) {
        model->unified = kit_unified_result(&unified);
        patterns_apply(model, &unified);
    }
    kit_unified_finish(&unified);
    return status;
}

typedef struct line {
    char text[400];
    size_t used;
} line;

static void line_add(line *l, const char *key, const char *value)
{
    if (l->used < sizeof l->text) {
        int wrote = snprintf(l->text + l->used, sizeof l->text - l->used, " %s=%s", key, value);
        l->used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static void line_add_size(line *l, const char *key, size_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%zu", value);
    line_add(l, key, text);
}

static void pattern_add(const char *name, umo_pattern pattern, void *user)
{
    line_add(user, name, umo_pattern_name(pattern));
}

static void idle_name_warn(const char *name, umo_pattern pattern, void *user)
{
    static const char *const groups[] = {"input", "output", "weights", "intermediate"};
    umo_model *model = user;
    const sides s = sides_of(model);
    bool known = tensor_find(&s, name);
    (void)pattern;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        known = known || strcmp(name, groups[i]) == 0;
    }
    if (!known) {
        umo_model_log(model, true,
                      "%s.tensor_patterns: '%.64s' is no tensor of this model, nor input, output, "
                      "weights or intermediate: it has no effect",
                      UNIFIED_KEY, name);
    }
}

static void settings_log(umo_model *model, const kit_unified *unified)
{
    const umo_unified_config *config = &model->unified;
    line l = {.used = 0};
    line_add(&l, "enable", config->enable ? "true" : "false");
    line_add(&l, "batch_optimization", config->batch_optimization ? "true" : "false");
    line_add(&l, "trusted_clients", config->trusted_clients ? "true" : "false");
    line_add(&l, "profiling", config->profiling ? "true" : "false");
    line_add(&l, "parallel_copies", config->parallel_copies ? "true" : "false");
    line_add(&l, "enable_numa_optimization", config->numa_optimization ? "true" : "false");
    if (config->zero_copy_threshold == UMO_THRESHOLD_AUTO) {
        line_add(&l, "zero_copy_threshold", "auto");
    } else {
        line_add_size(&l, "zero_copy_threshold", config->zero_copy_threshold);
    }
    if (config->driver[0] != '\0') {
        char device[32];
        (void)snprintf(device, sizeof device, "%s:%u", config->driver, config->ordinal);
        line_add(&l, "device", device);
    }
    if (config->cache_line_bytes > 0) {
        line_add_size(&l, "cache_line_size", config->cache_line_bytes);
    }
    if (config->pool_keep_bytes > 0) {
        line_add_size(&l, "pool_config", config->pool_keep_bytes);
    }
    if (unified->patterns != NULL) {
        line_add(&l, "tensor_patterns", "");
        kit_unified_visit(unified, pattern_add, &l);
    }
    umo_model_log(model, false, "%s:%s", UNIFIED_KEY, l.text);
    kit_unified_visit(unified, idle_name_warn, model);
}

umo_status kit_unified_log(umo_model *model, umo_error *error)
{
    kit_unified unified;
    umo_status status = settings_read(model, &unified, error);
    if (status == UMO_OK) {
        settings_log(model, &unified);
    }
    kit_unified_finish(&unified);
    return status;
}
