/*
 * The `unified_memory` object of a model or of the command line, field by field.
 *
 * Every field is checked by a table: an unknown field, a wrong type and a bad value are errors that
 * name the path and what is allowed, because a silently ignored setting looks like one that does
 * not work. For the same reason the table knows fields of the original design that a served model
 * has no use for, and says what to do instead.
 */
#include "kit/unified.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIFIED_KEY "unified_memory"
#define PATH_BYTES 112
#define QUOTE_BYTES 40
#define NAME_MAX_BYTES 32 /* longer names are nobody's typing error */
#define LINE_MAX_BYTES 4096
#define PATTERNS_MAX 4096

typedef struct reader {
    kit_unified *unified;
    const kit_unified_source *source;
    umo_error *error;
} reader;

typedef struct field {
    const char *name;
    umo_status (*read)(const reader *r, const char *path, const json_t *value, void *out);
    size_t offset;       /* in umo_unified_config */
    bool process;        /* of the whole process: not a model's to say */
    const char *instead; /* of a field that cannot be: why, and what to do */
} field;

static const char *json_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

/* What the user wrote, fit for one line of a log: short, no control characters, no character cut
 * in half. */
static const char *quote(const char *text, char out[QUOTE_BYTES])
{
    size_t used = 0;
    while (text[used] != '\0' && used < QUOTE_BYTES - 4) {
        out[used] = (unsigned char)text[used] < ' ' || text[used] == 127 ? '?' : text[used];
        used++;
    }
    if (text[used] != '\0') {
        while (used > 0 && ((unsigned char)text[used] & 0xc0) == 0x80) {
            used--;
        }
        memcpy(out + used, "...", 3);
        used += 3;
    }
    out[used] = '\0';
    return out;
}

/* "a string ("1M")" for a string, else the type. */
static const char *describe(const json_t *value, char out[QUOTE_BYTES + 16])
{
    char text[QUOTE_BYTES];
    const char *string = json_string_value(value);
    if (string == NULL) {
        (void)snprintf(out, QUOTE_BYTES + 16, "%s", json_type_name(value));
    } else {
        (void)snprintf(out, QUOTE_BYTES + 16, "a string (\"%s\")", quote(string, text));
    }
    return out;
}

static umo_status refuse(const reader *r, const char *path, const json_t *value, const char *write)
{
    char text[QUOTE_BYTES + 16];
    return umo_error_set(r->error, UMO_E_INVAL, 0, "%s is %s; write %s", path,
                         describe(value, text), write);
}

/* How many letters have to be put in, taken out or exchanged. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_BYTES + 1];
    size_t length = strlen(b);
    for (size_t j = 0; j <= length; j++) {
        row[j] = j;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t best = corner + (a[i] != b[j] ? 1 : 0);
            corner = row[j + 1];
            best = best < corner + 1 ? best : corner + 1;
            row[j + 1] = best < row[j] + 1 ? best : row[j] + 1;
        }
    }
    return row[length];
}

/* The name that was probably meant, or NULL. next(i) is NULL behind the last one. */
static const char *nearest(const char *name, const char *(*next)(size_t index))
{
    char lower[NAME_MAX_BYTES + 1] = "";
    size_t length = strlen(name);
    const char *found = NULL;
    size_t best = 0;
    if (length > NAME_MAX_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i <= length; i++) {
        bool upper = name[i] >= 'A' && name[i] <= 'Z';
        lower[i] = name[i] == '-' ? '_' : (char)(upper ? name[i] - 'A' + 'a' : name[i]);
    }
    for (size_t i = 0; next(i) != NULL; i++) {
        size_t distance = edit_distance(lower, next(i));
        if (distance * 3 <= strlen(next(i)) && (found == NULL || distance < best)) {
            found = next(i);
            best = distance;
        }
    }
    return found;
}

static umo_status read_bool(const reader *r, const char *path, const json_t *value, void *out)
{
    const char *text = r->source->text ? json_string_value(value) : NULL;
    bool yes = json_is_true(value) || (text != NULL && strcmp(text, "true") == 0);
    bool no = json_is_false(value) || (text != NULL && strcmp(text, "false") == 0);
    if (!yes && !no) {
        return refuse(r, path, value, "true or false");
    }
    *(bool *)out = yes;
    return UMO_OK;
}

/* A number, or digits in a string: what protobuf makes of a 64-bit one. */
static bool to_size(const json_t *value, size_t *out)
{
    const char *text = json_string_value(value);
    unsigned long long number = 0;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        number = (unsigned long long)json_integer_value(value);
    } else if (text != NULL && text[0] >= '0' && text[0] <= '9') {
        char *end = NULL;
        errno = 0;
        number = strtoull(text, &end, 10);
        if (*end != '\0' || errno != 0) {
            return false;
        }
    } else {
        return false;
    }
    if (number >= SIZE_MAX) { /* which means "auto" */
        return false;
    }
    *out = (size_t)number;
    return true;
}

static umo_status read_threshold(const reader *r, const char *path, const json_t *value, void *out)
{
    const char *text = json_string_value(value);
    if (text != NULL && strcmp(text, "auto") == 0) {
        *(size_t *)out = UMO_THRESHOLD_AUTO;
        return UMO_OK;
    }
    if (to_size(value, out)) {
        return UMO_OK;
    }
    const char *write = "a number of bytes, 0 or more, or \"auto\"";
    if (json_is_integer(value)) {
        return umo_error_set(r->error, UMO_E_INVAL, 0, "%s is negative; write %s", path, write);
    }
    return refuse(r, path, value, write);
}

static umo_status read_line(const reader *r, const char *path, const json_t *value, void *out)
{
    size_t size = 0;
    if (!to_size(value, &size) || size == 0 || size > LINE_MAX_BYTES || (size & (size - 1)) != 0) {
        return umo_error_set(r->error, UMO_E_INVAL, 0,
                             "%s: write a power of two from 1 to %d, which memory is aligned to",
                             path, LINE_MAX_BYTES);
    }
    *(size_t *)out = size;
    return UMO_OK;
}

static umo_status read_fraction(const reader *r, const char *path, const json_t *value, void *out)
{
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= 0.1 && number <= 0.98)) {
        return umo_error_set(r->error, UMO_E_INVAL, 0,
                             "%s: write a number from 0.1 to 0.98, the part of a limit", path);
    }
    *(double *)out = number;
    return UMO_OK;
}

/* "opencl:0" or "opencl". */
static umo_status read_device(const reader *r, const char *path, const json_t *value, void *out)
{
    umo_unified_config *config = out;
    const char *text = json_string_value(value);
    const char *colon = text != NULL ? strchr(text, ':') : NULL;
    size_t length = text == NULL ? 0 : colon != NULL ? (size_t)(colon - text) : strlen(text);
    unsigned long ordinal = 0;
    char *end = NULL;
    bool numbered = true;
    if (colon != NULL) {
        ordinal = strtoul(colon + 1, &end, 10);
        numbered = colon[1] >= '0' && colon[1] <= '9' && *end == '\0' && ordinal < 1024;
    }
    if (length == 0 || length >= sizeof config->driver || !numbered) {
        return refuse(r, path, value, "a driver and a number, as \"opencl:0\"");
    }
    memcpy(config->driver, text, length);
    config->driver[length] = '\0';
    config->ordinal = (uint32_t)ordinal;
    return UMO_OK;
}

static const char *pattern_at(size_t index)
{
    return index < UMO_PATTERNS ? umo_pattern_name((umo_pattern)index) : NULL;
}

static bool pattern_find(const char *name, umo_pattern *out)
{
    for (size_t i = 0; name != NULL && i < UMO_PATTERNS; i++) {
        if (strcmp(pattern_at(i), name) == 0) {
            *out = (umo_pattern)i;
            return true;
        }
    }
    return false;
}

static umo_status check_pattern(const reader *r, const char *path, const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const json_t *value = json_object_get(entry, "pattern");
    const char *pattern = json_string_value(value);
    umo_pattern found;
    if (name == NULL || name[0] == '\0' || value == NULL || json_object_size(entry) != 2) {
        return umo_error_set(r->error, UMO_E_INVAL, 0,
                             "%s: an entry is {\"name\": TENSOR, \"pattern\": PATTERN} and nothing "
                             "else",
                             path);
    }
    if (pattern_find(pattern, &found)) {
        return UMO_OK;
    }
    char text[QUOTE_BYTES];
    const char *meant = pattern != NULL ? nearest(pattern, pattern_at) : NULL;
    return umo_error_set(r->error, UMO_E_INVAL, 0,
                         "%s.pattern: '%s' is no pattern; %s%s%swrite cpu_dominant, gpu_dominant, "
                         "balanced, streaming or unknown",
                         path, pattern != NULL ? quote(pattern, text) : json_type_name(value),
                         meant != NULL ? "did you mean " : "", meant != NULL ? meant : "",
                         meant != NULL ? "? " : "");
}

/* Only the last list of all sources counts: what it says is taken from it afterwards. */
static umo_status read_patterns(const reader *r, const char *path, const json_t *value, void *out)
{
    (void)out;
    if (!json_is_array(value)) {
        return refuse(r, path, value, "an array");
    }
    size_t count = json_array_size(value);
    if (count > PATTERNS_MAX) {
        return umo_error_set(r->error, UMO_E_INVAL, 0, "%s has %zu entries; at most %d", path,
                             count, PATTERNS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        char entry[PATH_BYTES + 24];
        (void)snprintf(entry, sizeof entry, "%s[%zu]", path, i);
        umo_status status = check_pattern(r, entry, json_array_get(value, i));
        if (status != UMO_OK) {
            return status;
        }
        const char *name = json_string_value(json_object_get(json_array_get(value, i), "name"));
        for (size_t k = 0; k < i; k++) {
            if (strcmp(json_string_value(json_object_get(json_array_get(value, k), "name")),
                       name) == 0) {
                char text[QUOTE_BYTES];
                return umo_error_set(r->error, UMO_E_INVAL, 0,
                                     "%s.name: '%s' has a pattern already, at [%zu]", entry,
                                     quote(name, text), k);
            }
        }
    }
    json_decref(r->unified->patterns);
    r->unified->patterns = json_incref((json_t *)(uintptr_t)value);
    return UMO_OK;
}

/* The original's three classes of blocks. What a pool of umo makes of them is how much it keeps:
 * its own classes are finer. */
static const struct {
    const char *name;
    size_t value;
    bool count;
} pool_fields[] = {
    {"small_buffer_size", (size_t)64 << 10, false}, {"small_buffer_count", 128, true},
    {"medium_buffer_size", (size_t)1 << 20, false}, {"medium_buffer_count", 32, true},
    {"large_buffer_size", (size_t)16 << 20, false}, {"large_buffer_count", 8, true},
};
#define POOL_FIELDS (sizeof pool_fields / sizeof pool_fields[0])

static const char *pool_field_at(size_t index)
{
    return index < POOL_FIELDS ? pool_fields[index].name : NULL;
}

/* The names that could have been meant, and those to tell. */
static umo_status unknown_field(const reader *r, const char *path, const char *name,
                                const char *(*meant_at)(size_t index),
                                const char *(*listed_at)(size_t index))
{
    char all[UMO_ERROR_TEXT_BYTES] = "";
    char text[QUOTE_BYTES];
    const char *meant = nearest(name, meant_at);
    for (size_t i = 0, used = 0; listed_at(i) != NULL && used < sizeof all; i++) {
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "",
                                 listed_at(i));
    }
    if (meant != NULL) {
        return umo_error_set(r->error, UMO_E_INVAL, 0, "%s has no field '%s'; did you mean %s?",
                             path, quote(name, text), meant);
    }
    return umo_error_set(r->error, UMO_E_INVAL, 0, "%s has no field '%s'; it has %s", path,
                         quote(name, text), all);
}

static umo_status read_pool(const reader *r, const char *path, const json_t *value, void *out)
{
    size_t figures[POOL_FIELDS];
    size_t keep = 0;
    if (!json_is_object(value)) {
        return refuse(r, path, value, "an object");
    }
    for (size_t i = 0; i < POOL_FIELDS; i++) {
        const json_t *figure = json_object_get(value, pool_fields[i].name);
        char own[PATH_BYTES + 24];
        figures[i] = pool_fields[i].value;
        if (figure != NULL &&
            (!to_size(figure, &figures[i]) || (figures[i] == 0 && !pool_fields[i].count))) {
            (void)snprintf(own, sizeof own, "%s.%s", path, pool_fields[i].name);
            return umo_error_set(r->error, UMO_E_INVAL, 0, "%s: write a number, %d or more", own,
                                 pool_fields[i].count ? 0 : 1);
        }
    }
    const char *key;
    json_t *ignored;
    json_object_foreach((json_t *)(uintptr_t)value, key, ignored)
    {
        size_t i = 0;
        while (i < POOL_FIELDS && strcmp(pool_fields[i].name, key) != 0) {
            i++;
        }
        if (i == POOL_FIELDS) {
            return unknown_field(r, path, key, pool_field_at, pool_field_at);
        }
    }
    for (size_t i = 0; i < POOL_FIELDS; i += 2) {
        size_t bytes;
        if (__builtin_mul_overflow(figures[i], figures[i + 1], &bytes) ||
            __builtin_add_overflow(keep, bytes, &keep)) {
            return umo_error_set(r->error, UMO_E_INVAL, 0,
                                 "%s: sizes times counts are more bytes than there can be", path);
        }
    }
    /* 0 would mean that nothing was said; one byte keeps no block either. */
    *(size_t *)out = keep > 0 ? keep : 1;
    return UMO_OK;
}

#define AT(member) offsetof(umo_unified_config, member)
#define NOT_HERE(name, words)                                                                      \
    {                                                                                              \
        name, NULL, 0, false, words                                                                \
    }

static const field fields[] = {
    {"enable", read_bool, AT(enable), false, NULL},
    {"batch_optimization", read_bool, AT(batch_optimization), false, NULL},
    {"trusted_clients", read_bool, AT(trusted_clients), false, NULL},
    {"profiling", read_bool, AT(profiling), false, NULL},
    {"parallel_copies", read_bool, AT(parallel_copies), false, NULL},
    {"zero_copy_threshold", read_threshold, AT(zero_copy_threshold), false, NULL},
    {"device", read_device, 0, false, NULL},
    {"tensor_patterns", read_patterns, 0, false, NULL},
    {"cache_line_size", read_line, AT(cache_line_bytes), false, NULL},
    {"pool_config", read_pool, AT(pool_keep_bytes), false, NULL},
    {"enable_numa_optimization", read_bool, AT(numa_optimization), false, NULL},
    {"enable_pressure_adaptation", read_bool, AT(pressure_adaptation), true, NULL},
    {"memory_pressure_threshold", read_fraction, AT(pressure_threshold), true, NULL},
    NOT_HERE("enable_unified_memory", "write enable, its name in a configuration"),
    NOT_HERE("enable_zero_copy", "write enable: it is one switch with zero copy"),
    NOT_HERE("enable_batch_optimization", "write batch_optimization, its name in a configuration"),
    NOT_HERE("enable_profiling", "write profiling, its name in a configuration"),
    NOT_HERE("enable_auto_placement",
             "tensors of a served model stay where its clients have them, and nothing moves at run "
             "time; where weights go is decided at load, by tensor_patterns"),
    NOT_HERE(
        "placement_change_threshold",
        "nothing of a served model moves at run time; in a program it is umo_optimizer_config's"),
    NOT_HERE("enable_prefetching",
             "a served model's tensors are there when they are used; in a program it is "
             "umo_optimizer_config's"),
    NOT_HERE("prefetch_size", "nothing is prefetched for a served model; in a program it is "
                              "umo_optimizer_config's"),
};
#define FIELDS (sizeof fields / sizeof fields[0])

/* Those that can be written. */
static const char *field_at(size_t index)
{
    return index < FIELDS && fields[index].read != NULL ? fields[index].name : NULL;
}

/* Those that a model can write, as many as an error has room for. */
static const char *model_field_at(size_t index)
{
    return index < FIELDS && !fields[index].process ? field_at(index) : NULL;
}

void kit_unified_init(kit_unified *unified)
{
    *unified = (kit_unified){.config = {.enable = true,
                                        .batch_optimization = true,
                                        .parallel_copies = true,
                                        .zero_copy_threshold = UMO_THRESHOLD_AUTO,
                                        .weights = UMO_PATTERN_UNKNOWN,
                                        .intermediate = UMO_PATTERN_UNKNOWN,
                                        .numa_optimization = true,
                                        .pressure_adaptation = true}};
}

void kit_unified_finish(kit_unified *unified)
{
    json_decref(unified->patterns);
    unified->patterns = NULL;
}

/* Structures inside a string; other strings stay what they are. */
static json_t *string_decode(const json_t *value)
{
    const char *text = json_string_value(value);
    return text == NULL ? NULL : json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
}

umo_status kit_unified_read_field(kit_unified *unified, const kit_unified_source *source,
                                  const char *name, const json_t *value, umo_error *error)
{
    const reader r = {unified, source, error};
    size_t i = 0;
    while (i < FIELDS && strcmp(fields[i].name, name) != 0) {
        i++;
    }
    if (i == FIELDS) {
        return unknown_field(&r, source->where, name, field_at, model_field_at);
    }
    const field *f = &fields[i];
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s.%s", source->where, name);
    if (f->instead != NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s has no meaning here: %s", path, f->instead);
    }
    if (f->process && !source->process) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s is of the whole process and not of one model: start the server "
                             "with --backend-config=BACKEND,%s.%s=VALUE",
                             path, UNIFIED_KEY, name);
    }
    json_t *decoded = source->text ? string_decode(value) : NULL;
    umo_status status =
        f->read(&r, path, decoded != NULL ? decoded : value, (char *)&unified->config + f->offset);
    json_decref(decoded);
    return status;
}

umo_status kit_unified_read(kit_unified *unified, const kit_unified_source *source,
                            const json_t *object, umo_error *error)
{
    if (!json_is_object(object)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s is %s; write an object", source->whole,
                             json_type_name(object));
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        umo_status status = kit_unified_read_field(unified, source, key, value, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

umo_status kit_unified_read_text(kit_unified *unified, const kit_unified_source *source,
                                 const char *text, umo_error *error)
{
    if (text == NULL) {
        return UMO_OK;
    }
    json_error_t problem;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    if (object == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s is not JSON: %s at line %d, column %d",
                             source->whole, problem.text, problem.line, problem.column);
    }
    umo_status status = kit_unified_read(unified, source, object, error);
    json_decref(object);
    return status;
}

static const kit_unified_source in_parameter = {.where = UNIFIED_KEY,
                                                .whole = "parameter '" UNIFIED_KEY "'"};
static const kit_unified_source in_mission = {.where = UNIFIED_KEY,
                                              .whole = "optimization." UNIFIED_KEY};
static const kit_unified_source in_accelerator = {.where = "execution_accelerators: " UNIFIED_KEY,
                                                  .whole = "execution_accelerators: " UNIFIED_KEY,
                                                  .text = true};

/* Finds {"name": "unified_memory"} in both lists of accelerators. */
static size_t accelerators_find(const json_t *optimization, const json_t **out)
{
    static const char *const lists[] = {"cpu_execution_accelerator", "gpu_execution_accelerator"};
    const json_t *all = json_object_get(optimization, "execution_accelerators");
    size_t found = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        size_t index;
        json_t *entry;
        json_array_foreach(json_object_get(all, lists[i]), index, entry)
        {
            const char *name = json_string_value(json_object_get(entry, "name"));
            if (name != NULL && strcmp(name, UNIFIED_KEY) == 0) {
                *out = json_object_get(entry, "parameters");
                found++;
            }
        }
    }
    return found;
}

umo_status kit_unified_read_model(kit_unified *unified, const json_t *model, umo_error *error)
{
    if (!json_is_object(model)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the model's configuration is %s; write an object",
                             json_type_name(model));
    }
    const json_t *optimization = json_object_get(model, "optimization");
    const json_t *object = json_object_get(optimization, UNIFIED_KEY);
    const json_t *parameter = json_object_get(json_object_get(model, "parameters"), UNIFIED_KEY);
    const json_t *accelerator = NULL;
    size_t places = accelerators_find(optimization, &accelerator);
    places += object != NULL;
    places += parameter != NULL;
    if (places > 1) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s is written %zu times (in parameters, optimization or its "
                             "execution_accelerators); write it once",
                             UNIFIED_KEY, places);
    }
    if (object != NULL) {
        return kit_unified_read(unified, &in_mission, object, error);
    }
    if (accelerator != NULL) {
        return kit_unified_read(unified, &in_accelerator, accelerator, error);
    }
    const char *text = json_string_value(json_object_get(parameter, "string_value"));
    if (parameter != NULL && text == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter '%s' has no string_value; write the object as JSON in it",
                             UNIFIED_KEY);
    }
    return kit_unified_read_text(unified, &in_parameter, text, error);
}

void kit_unified_visit(const kit_unified *unified, umo_pattern_visit visit, void *user)
{
    size_t index;
    json_t *entry;
    json_array_foreach(unified->patterns, index, entry)
    {
        umo_pattern pattern;
        if (pattern_find(json_string_value(json_object_get(entry, "pattern")), &pattern)) {
            visit(json_string_value(json_object_get(entry, "name")), pattern, user);
        }
    }
}

static void groups_note(const char *name, umo_pattern pattern, void *user)
{
    umo_unified_config *config = user;
    if (strcmp(name, "weights") == 0) {
        config->weights = pattern;
    } else if (strcmp(name, "intermediate") == 0) {
        config->intermediate = pattern;
    }
}

umo_unified_config kit_unified_result(const kit_unified *unified)
{
    umo_unified_config config = unified->config;
    kit_unified_visit(unified, groups_note, &config);
    return config;
}

umo_status umo_unified_config_parse(const char *text, umo_unified_config *out,
                                    umo_pattern_visit visit, void *user, umo_error *error)
{
    kit_unified unified;
    kit_unified_init(&unified);
    umo_status status = kit_unified_read_text(&unified, &in_parameter, text, error);
    if (status == UMO_OK) {
        *out = kit_unified_result(&unified);
        if (visit != NULL) {
            kit_unified_visit(&unified, visit, user);
        }
    }
    kit_unified_finish(&unified);
    return status;
}

umo_status umo_unified_config_find(const char *model, umo_unified_config *out,
                                   umo_pattern_visit visit, void *user, umo_error *error)
{
    json_error_t problem;
    json_t *root = json_loads(model, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the model's configuration is not JSON: %s at line %d, column %d",
                             problem.text, problem.line, problem.column);
    }
    kit_unified unified;
    kit_unified_init(&unified);
    umo_status status = kit_unified_read_model(&unified, root, error);
    if (status == UMO_OK) {
        *out = kit_unified_result(&unified);
        if (visit != NULL) {
            kit_unified_visit(&unified, visit, user);
        }
    }
    kit_unified_finish(&unified);
    json_decref(root);
    return status;
}
