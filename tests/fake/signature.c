/* A kernel's parameters as its text declares them. */
#include "fake.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARAMETERS_MAX 96u
#define TEXTURE 2u
#define SAMPLER 3u

typedef enum space {
    SPACE_NONE,
    SPACE_DEVICE,
    SPACE_CONSTANT,
    SPACE_THREADGROUP
} space;

typedef struct parameter {
    const char *begin;
    const char *type;
    size_t type_length;
    const char *name;
    size_t name_length;
    space in;
    bool pointer; /* or reference */
    bool constant;
    bool bound;    /* to an index; otherwise the system gives the value */
    bool numbered; /* the index stands in the text */
    uint32_t kind;
    uint32_t index;
} parameter;

typedef struct problem {
    const char *at;
    char *out;
    size_t size_bytes;
} problem;

typedef struct attribute {
    const char *name;
    uint32_t kind;
    uint32_t count; /* of indices */
} attribute;

static const attribute bound[] = {{"buffer", FAKE_METAL_BUFFER, FAKE_INDEXES},
                                  {"threadgroup", FAKE_METAL_THREADGROUP, FAKE_INDEXES},
                                  {"texture", TEXTURE, 128},
                                  {"sampler", SAMPLER, 16}};

static const char *const given[] = {"thread_position_in_grid",
                                    "threads_per_grid",
                                    "thread_position_in_threadgroup",
                                    "threads_per_threadgroup",
                                    "threadgroup_position_in_grid",
                                    "threadgroups_per_grid",
                                    "thread_index_in_threadgroup",
                                    "thread_index_in_simdgroup",
                                    "thread_index_in_quadgroup",
                                    "threads_per_simdgroup",
                                    "thread_execution_width",
                                    "simdgroup_index_in_threadgroup",
                                    "simdgroups_per_threadgroup",
                                    "quadgroup_index_in_threadgroup",
                                    "quadgroups_per_threadgroup",
                                    "dispatch_threads_per_threadgroup",
                                    "dispatch_simdgroups_per_threadgroup",
                                    "dispatch_quadgroups_per_threadgroup",
                                    "grid_origin",
                                    "grid_size",
                                    "stage_in",
                                    NULL};

static bool is_word(const char *at, size_t length, const char *word)
{
    return strlen(word) == length && strncmp(at, word, length) == 0;
}

static const attribute *attribute_find(const char *at, size_t length)
{
    for (size_t i = 0; i < FAKE_COUNT(bound); i++) {
        if (is_word(at, length, bound[i].name)) {
            return &bound[i];
        }
    }
    return NULL;
}

bool fake_attribute_known(const char *at, size_t length)
{
    static const char *const others[] = {"kernel",
                                         "host_name",
                                         "max_total_threads_per_threadgroup",
                                         "function_constant",
                                         "maybe_unused",
                                         "unused",
                                         NULL};
    return attribute_find(at, length) != NULL || fake_word_is(at, length, given) ||
           fake_word_is(at, length, others);
}

static void wrong(problem *found, const char *at, const char *format, const char *word,
                  size_t length)
{
    char name[96];
    if (found->at == NULL) {
        (void)snprintf(name, sizeof name, "%.*s", (int)length, word);
        found->at = at;
        (void)snprintf(found->out, found->size_bytes, format, name);
    }
}

/* ---- one parameter ---- */

/* Behind "[[", up to "]]". */
static const char *attributes_read(parameter *p, const char *at, const char *end, problem *found)
{
    while (at < end && *at != ']') {
        size_t length = fake_word(at);
        if (length == 0) {
            at++;
            continue;
        }
        const char *word = at;
        const attribute *the = attribute_find(word, length);
        at += length;
        at += strspn(at, " \t\n");
        const char *number = NULL;
        if (at < end && *at == '(') {
            number = at + 1 + strspn(at + 1, " \t\n");
            at += strcspn(at, ")");
            at += at < end ? 1 : 0;
        }
        if (the == NULL) {
            if (!fake_attribute_known(word, length)) {
                wrong(found, word, "unknown attribute '%s'", word, length);
            }
            continue;
        }
        char *stop = NULL;
        unsigned long index = number == NULL ? 0 : strtoul(number, &stop, 10);
        if (number == NULL || stop == number || *(stop + strspn(stop, " \t\n")) != ')' ||
            index >= the->count) {
            wrong(found, word, "'%s' attribute parameter is out of bounds or no number", word,
                  length);
            continue;
        }
        p->bound = true;
        p->numbered = true;
        p->kind = the->kind;
        p->index = (uint32_t)index;
    }
    return at;
}

static void word_take(parameter *p, const char *word, size_t length)
{
    static const char *const ignored[] = {"volatile",   "restrict", "struct", "metal",
                                          "thread",     "unsigned", "signed", "coherent",
                                          "__restrict", NULL};
    if (is_word(word, length, "device")) {
        p->in = SPACE_DEVICE;
    } else if (is_word(word, length, "constant")) {
        p->in = SPACE_CONSTANT;
    } else if (is_word(word, length, "threadgroup")) {
        p->in = SPACE_THREADGROUP;
    } else if (is_word(word, length, "const")) {
        p->constant = true;
    } else if (!fake_word_is(word, length, ignored)) {
        /* The last word is the name, the one before it the type's. */
        p->type = p->name;
        p->type_length = p->name_length;
        p->name = word;
        p->name_length = length;
    }
}

static void declaration_read(parameter *p, const char *begin, const char *end, problem *found)
{
    unsigned angles = 0;
    for (const char *at = begin; at < end && *at != 0;) {
        if (at[0] == '[' && at[1] == '[') {
            at = attributes_read(p, at + 2, end, found);
            at += strspn(at, "]");
            continue;
        }
        size_t length = angles == 0 ? fake_word(at) : 0;
        if (length > 0) {
            word_take(p, at, length);
            at += length;
            continue;
        }
        angles += *at == '<' ? 1 : 0;
        angles -= *at == '>' && angles > 0 ? 1 : 0;
        p->pointer = p->pointer || *at == '*' || *at == '&' || *at == '[';
        at++;
    }
}

static void parameter_check(parameter *p, problem *found)
{
    if (p->type == NULL) {
        wrong(found, p->begin, "expected a type and a name, not '%s'", p->name, p->name_length);
    } else if (p->bound && p->kind == FAKE_METAL_BUFFER &&
               (!p->pointer || (p->in != SPACE_DEVICE && p->in != SPACE_CONSTANT))) {
        wrong(found, p->begin,
              "'buffer' attribute only applies to pointers and references in the device or "
              "constant address space: '%s'",
              p->name, p->name_length);
    } else if (p->bound && p->kind == FAKE_METAL_THREADGROUP &&
               (!p->pointer || p->in != SPACE_THREADGROUP)) {
        wrong(found, p->begin,
              "'threadgroup' attribute only applies to pointers and references in the threadgroup "
              "address space: '%s'",
              p->name, p->name_length);
    }
}

static bool parameter_read(parameter *p, const char *begin, const char *end, problem *found)
{
    begin += strspn(begin, " \t\n");
    *p = (parameter){.begin = begin};
    if (begin >= end) {
        return false;
    }
    const char *attributes = NULL;
    for (const char *at = begin; attributes == NULL && at + 1 < end; at++) {
        attributes = at[0] == '[' && at[1] == '[' ? at : NULL;
    }
    declaration_read(p, begin, end, found);
    if (is_word(p->name == NULL ? "" : p->name, p->name_length, "void") && p->type == NULL) {
        return false;
    }
    if (!p->bound && attributes == NULL) {
        if (p->pointer && p->in != SPACE_NONE) {
            p->bound = true;
            p->kind = p->in == SPACE_THREADGROUP ? FAKE_METAL_THREADGROUP : FAKE_METAL_BUFFER;
        } else {
            wrong(found, begin, "invalid type '%s' for input declaration in a kernel function",
                  p->type == NULL ? p->name : p->type,
                  p->type == NULL ? p->name_length : p->type_length);
        }
    }
    parameter_check(p, found);
    return true;
}

/* ---- all of them ---- */

static const char *list_end(const char *at)
{
    unsigned depth = 1;
    for (; *at != 0; at++) {
        depth += *at == '(' ? 1 : 0;
        depth -= *at == ')' ? 1 : 0;
        if (depth == 0) {
            break;
        }
    }
    return at;
}

static const char *parameter_end(const char *at, const char *end)
{
    int depth = 0;
    for (; at < end && (*at != ',' || depth > 0); at++) {
        depth += strchr("(<[", *at) != NULL ? 1 : 0;
        depth -= strchr(")>]", *at) != NULL ? 1 : 0;
    }
    return at;
}

static bool index_taken(const parameter *all, size_t count, uint32_t kind, uint32_t index)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].numbered && all[i].kind == kind && all[i].index == index) {
            return true;
        }
    }
    return false;
}

/* Parameters without an attribute take the free indices in order. */
static void indices_give(parameter *all, size_t count, problem *found)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].numbered && index_taken(all, i, all[i].kind, all[i].index)) {
            wrong(found, all[i].begin, "cannot reserve resource location of '%s': it is taken",
                  all[i].name, all[i].name_length);
        }
    }
    for (size_t i = 0; i < count; i++) {
        parameter *p = &all[i];
        if (!p->bound || p->numbered) {
            continue;
        }
        while (p->index < FAKE_INDEXES && index_taken(all, count, p->kind, p->index)) {
            p->index++;
        }
        p->numbered = true;
        if (p->index == FAKE_INDEXES) {
            wrong(found, p->begin, "no resource location available for '%s'", p->name,
                  p->name_length);
        }
    }
}

static size_t parameters_read(const char *at, parameter *all, problem *found)
{
    const char *end = list_end(at);
    size_t count = 0;
    while (at < end) {
        const char *stop = parameter_end(at, end);
        if (count == PARAMETERS_MAX) {
            wrong(found, at, "too many parameters%s", "", 0);
            break;
        }
        count += parameter_read(&all[count], at, stop, found) ? 1 : 0;
        at = stop + (stop < end ? 1 : 0);
    }
    if (found->at == NULL) {
        indices_give(all, count, found);
    }
    return count;
}

const char *fake_signature_problem(const char *parameters, char *out, size_t size_bytes)
{
    parameter all[PARAMETERS_MAX];
    problem found = {.out = out, .size_bytes = size_bytes};
    (void)parameters_read(parameters, all, &found);
    return found.at;
}

/* ---- bindings ---- */

/* 0: not a type of the language. */
static size_t scalar_bytes(const char *type, size_t length)
{
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {{"bool", 1},    {"char", 1},      {"uchar", 1},      {"int8_t", 1},
                 {"uint8_t", 1}, {"short", 2},     {"ushort", 2},     {"half", 2},
                 {"bfloat", 2},  {"int16_t", 2},   {"uint16_t", 2},   {"int", 4},
                 {"uint", 4},    {"float", 4},     {"int32_t", 4},    {"uint32_t", 4},
                 {"long", 8},    {"ulong", 8},     {"int64_t", 8},    {"uint64_t", 8},
                 {"size_t", 8},  {"ptrdiff_t", 8}, {"atomic_int", 4}, {"atomic_uint", 4}};
    for (size_t i = 0; i < FAKE_COUNT(types); i++) {
        if (is_word(type, length, types[i].name)) {
            return types[i].bytes;
        }
    }
    return 0;
}

static void type_size(const char *type, size_t length, size_t *out_bytes, size_t *out_align)
{
    *out_bytes = scalar_bytes(type, length);
    *out_align = *out_bytes;
    if (*out_bytes > 0 || length < 2) {
        return;
    }
    bool packed = length > 7 && strncmp(type, "packed_", 7) == 0;
    size_t skip = packed ? 7 : 0;
    char last = type[length - 1];
    size_t scalar = scalar_bytes(type + skip, length - skip - 1);
    if (scalar > 0 && last >= '2' && last <= '4') {
        size_t elements = (size_t)(last - '0');
        *out_bytes = scalar * (elements == 3 && !packed ? 4 : elements);
        *out_align = packed ? scalar : *out_bytes;
    }
}

/* Whether the kernel's body names it. */
static bool is_used(const char *body, const char *name, size_t length)
{
    unsigned depth = 0;
    for (const char *at = body + strcspn(body, "{"); *at != 0;) {
        size_t here = fake_word(at);
        if (here == length && strncmp(at, name, length) == 0) {
            return true;
        }
        depth += *at == '{' ? 1 : 0;
        depth -= *at == '}' ? 1 : 0;
        if (depth == 0) {
            return false;
        }
        at += here > 0 ? here : 1;
        while (here == 0 && isdigit((unsigned char)at[-1]) && isalnum((unsigned char)*at)) {
            at++;
        }
    }
    return false;
}

bool fake_signature_read(const char *text, const char *name, fake_signature *out)
{
    char words[200];
    parameter all[PARAMETERS_MAX];
    problem found = {.out = words, .size_bytes = sizeof words};
    const char *at = fake_text_kernel(text, name);
    if (at == NULL) {
        return false;
    }
    size_t count = parameters_read(at, all, &found);
    if (found.at != NULL) {
        return false;
    }
    const char *body = list_end(at);
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        const parameter *p = &all[i];
        if (!p->bound) {
            continue;
        }
        if (out->count == FAKE_BINDINGS_MAX) {
            return false;
        }
        fake_metal_binding *to = &out->bindings[out->count];
        char *kept = out->names[out->count++];
        (void)snprintf(kept, sizeof out->names[0], "%.*s", (int)p->name_length, p->name);
        *to = (fake_metal_binding){.name = kept,
                                   .type = p->kind,
                                   .index = p->index,
                                   .writes = p->in == SPACE_DEVICE && !p->constant,
                                   .unused = !is_used(body, p->name, p->name_length)};
        type_size(p->type, p->type_length, &to->data_bytes, &to->align_bytes);
    }
    return true;
}
