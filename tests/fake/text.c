/*
 * Source text: not compiled, but read closely enough to refuse what any compiler refuses. The
 * preprocessor's conditionals are followed, since brackets and kernels may stand in the dropped
 * part.
 */
#include "fake.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MACROS_MAX 512u
#define DEPTH_MAX 256u

typedef struct problems {
    const char *text;
    char *out;
    size_t size_bytes;
    size_t used;
} problems;

static void problem_add(problems *to, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void problem_add(problems *to, const char *at, const char *format, ...)
{
    char words[256];
    va_list arguments;
    unsigned line = 1;
    const char *start = to->text;
    if (to->used >= to->size_bytes) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    for (const char *c = to->text; c < at; c++) {
        if (*c == '\n') {
            line++;
            start = c + 1;
        }
    }
    int length =
        snprintf(to->out + to->used, to->size_bytes - to->used, "program_source:%u:%u: error: %s\n",
                 line, (unsigned)(at - start) + 1, words);
    to->used += length > 0 ? (size_t)length : 0;
}

size_t fake_word(const char *at)
{
    size_t length = 0;
    if (isdigit((unsigned char)*at)) {
        return 0;
    }
    while (isalnum((unsigned char)at[length]) || at[length] == '_') {
        length++;
    }
    return length;
}

bool fake_word_is(const char *at, size_t length, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strlen(*words) == length && strncmp(at, *words, length) == 0) {
            return true;
        }
    }
    return false;
}

static bool word_equals(const char *at, size_t length, const char *word)
{
    return strlen(word) == length && strncmp(at, word, length) == 0;
}

static const char *blanks_skip(const char *at)
{
    while (isspace((unsigned char)*at)) {
        at++;
    }
    return at;
}

/* ---- comments and strings ---- */

static void blank(char *from, const char *to)
{
    for (; from < to; from++) {
        *from = *from == '\n' ? '\n' : ' ';
    }
}

static void comments_blank(char *text, problems *found)
{
    const char *original = found->text;
    for (char *at = text; *at != 0;) {
        char *end = NULL;
        if (at[0] == '/' && at[1] == '/') {
            end = at + strcspn(at, "\n");
        } else if (at[0] == '/' && at[1] == '*') {
            end = strstr(at + 2, "*/");
            if (end == NULL) {
                problem_add(found, original + (at - text), "unterminated /* comment");
                end = at + strlen(at);
            } else {
                end += 2;
            }
        } else if (*at == '"' || (*at == '\'' && (at == text || !isalnum((unsigned char)at[-1])))) {
            char quote = *at;
            end = at + 1;
            while (*end != quote && *end != '\n' && *end != 0) {
                end += end[0] == '\\' && end[1] != 0 ? 2 : 1;
            }
            if (*end != quote) {
                problem_add(found, original + (at - text), "missing terminating '%c' character",
                            quote);
            }
            at++;
        }
        if (end == NULL) {
            at++;
        } else {
            blank(at, end);
            at = end + (*end == '"' || *end == '\'' ? 1 : 0);
        }
    }
}

/* ---- the preprocessor's conditionals ---- */

typedef struct macro {
    const char *name;
    size_t length;
    const char *value; /* to the line's end */
} macro;

typedef struct preprocessor {
    problems *found;
    const char *text;
    macro macros[MACROS_MAX];
    size_t count;
    struct {
        bool active; /* this branch */
        bool taken;  /* some branch so far */
        bool outer;  /* what is around */
        const char *begin;
    } levels[DEPTH_MAX];
    size_t depth;
} preprocessor;

typedef struct expression {
    const preprocessor *in;
    const char *at;
    unsigned nested; /* macros may name each other */
} expression;

static const macro *macro_find(const preprocessor *in, const char *name, size_t length)
{
    for (size_t i = in->count; i > 0; i--) {
        const macro *the = &in->macros[i - 1];
        if (the->length == length && strncmp(the->name, name, length) == 0) {
            return the->value == NULL ? NULL : the;
        }
    }
    return NULL;
}

/* value NULL: undefined. */
static void macro_set(preprocessor *in, const char *name, size_t length, const char *value)
{
    if (length > 0 && in->count < MACROS_MAX) {
        in->macros[in->count++] = (macro){.name = name, .length = length, .value = value};
    }
}

static void line_blanks_skip(expression *e)
{
    while (*e->at == ' ' || *e->at == '\t' || (e->at[0] == '\\' && e->at[1] == '\n')) {
        e->at += *e->at == '\\' ? 2 : 1;
    }
}

static bool expression_take(expression *e, const char *operator)
{
    line_blanks_skip(e);
    size_t length = strlen(operator);
    if (strncmp(e->at, operator, length) != 0) {
        return false;
    }
    e->at += length;
    return true;
}

static long long expression_read(expression *e, unsigned level);

static long long expression_name(expression *e)
{
    const char *name = e->at;
    size_t length = fake_word(name);
    e->at += length;
    if (word_equals(name, length, "defined")) {
        bool bracket = expression_take(e, "(");
        line_blanks_skip(e);
        size_t asked = fake_word(e->at);
        bool is = macro_find(e->in, e->at, asked) != NULL;
        e->at += asked;
        if (bracket) {
            (void)expression_take(e, ")");
        }
        return is;
    }
    if (expression_take(e, "(")) { /* __has_include() and its kind */
        e->at += strcspn(e->at, ")\n");
        (void)expression_take(e, ")");
        return 0;
    }
    const macro *the = macro_find(e->in, name, length);
    if (the == NULL || e->nested > 16) {
        return 0;
    }
    expression inner = {.in = e->in, .at = the->value, .nested = e->nested + 1};
    return expression_read(&inner, 0);
}

static long long expression_unary(expression *e)
{
    if (expression_take(e, "!")) {
        return expression_unary(e) == 0;
    }
    if (expression_take(e, "-")) {
        return (long long)(0 - (unsigned long long)expression_unary(e));
    }
    if (expression_take(e, "(")) {
        long long value = expression_read(e, 0);
        (void)expression_take(e, ")");
        return value;
    }
    line_blanks_skip(e);
    if (isdigit((unsigned char)*e->at)) {
        char *end;
        long long value = strtoll(e->at, &end, 0);
        e->at = end + strspn(end, "uUlL");
        return value;
    }
    return fake_word(e->at) > 0 ? expression_name(e) : 0;
}

/* By what binds least. */
static const char *const operators[][7] = {
    {"||", NULL}, {"&&", NULL}, {"==", "!=", "<=", ">=", "<", ">", NULL}, {"+", "-", NULL}};

static long long operator_apply(const char *operator, long long one, long long two)
{
    switch (operator[0]) {
    case '|':
        return one != 0 || two != 0;
    case '&':
        return one != 0 && two != 0;
    case '=':
        return one == two;
    case '!':
        return one != two;
    case '<':
        return operator[1] == '=' ? one <= two : one<two;
    case '>':
        return operator[1] == '=' ? one >= two : one> two;
    case '+':
        return (long long)((unsigned long long)one + (unsigned long long)two);
    default:
        return (long long)((unsigned long long)one - (unsigned long long)two);
    }
}

static long long expression_read(expression *e, unsigned level)
{
    if (level == FAKE_COUNT(operators)) {
        return expression_unary(e);
    }
    long long value = expression_read(e, level + 1);
    for (size_t i = 0; operators[level][i] != NULL;) {
        if (expression_take(e, operators[level][i])) {
            value = operator_apply(operators[level][i], value, expression_read(e, level + 1));
            i = 0;
        } else {
            i++;
        }
    }
    return value;
}

static bool is_active(const preprocessor *in)
{
    return in->depth == 0 || (in->levels[in->depth - 1].active && in->levels[in->depth - 1].outer);
}

static bool condition(const preprocessor *in, const char *word, size_t length, const char *rest)
{
    if (word_equals(word, length, "if") || word_equals(word, length, "elif")) {
        expression e = {.in = in, .at = rest};
        return expression_read(&e, 0) != 0;
    }
    bool defined = macro_find(in, rest, fake_word(rest)) != NULL;
    return word_equals(word, length, "ifdef") ? defined : !defined;
}

/* Whether the line was one of the conditionals. */
static bool conditional_take(preprocessor *in, const char *word, size_t length, const char *rest)
{
    static const char *const opens[] = {"if", "ifdef", "ifndef", NULL};
    static const char *const others[] = {"elif", "else", "endif", NULL};
    if (fake_word_is(word, length, opens)) {
        if (in->depth == DEPTH_MAX) {
            problem_add(in->found, in->found->text + (word - in->text), "conditionals too deep");
            return true;
        }
        bool outer = is_active(in);
        bool active = outer && condition(in, word, length, rest);
        size_t level = in->depth++;
        in->levels[level].active = active;
        in->levels[level].taken = active;
        in->levels[level].outer = outer;
        in->levels[level].begin = word;
        return true;
    }
    if (!fake_word_is(word, length, others)) {
        return false;
    }
    if (in->depth == 0) {
        problem_add(in->found, in->found->text + (word - in->text), "#%.*s without #if",
                    (int)length, word);
    } else if (word_equals(word, length, "endif")) {
        in->depth--;
    } else {
        size_t level = in->depth - 1;
        in->levels[level].active = !in->levels[level].taken && (word_equals(word, length, "else") ||
                                                                condition(in, word, length, rest));
        in->levels[level].taken = in->levels[level].taken || in->levels[level].active;
    }
    return true;
}

/* A directive that counts. */
static void directive_take(preprocessor *in, const char *word, size_t length, const char *rest,
                           const char *end)
{
    if (word_equals(word, length, "define")) {
        size_t name = fake_word(rest);
        macro_set(in, rest, name, rest + name);
    } else if (word_equals(word, length, "undef")) {
        macro_set(in, rest, fake_word(rest), NULL);
    } else if (word_equals(word, length, "error")) {
        problem_add(in->found, in->found->text + (word - in->text), "%.*s", (int)(end - rest),
                    rest);
    }
}

static char *line_end(char *at)
{
    char *end = at + strcspn(at, "\n");
    while (*end == '\n' && end > at && end[-1] == '\\') {
        end++;
        end += strcspn(end, "\n");
    }
    return end;
}

static void conditionals_blank(char *text, problems *found)
{
    preprocessor *in = calloc(1, sizeof *in);
    if (in == NULL) {
        abort();
    }
    in->found = found;
    in->text = text;
    macro_set(in, "__METAL_VERSION__", strlen("__METAL_VERSION__"), "310");
    macro_set(in, "__METAL__", strlen("__METAL__"), "1");
    for (char *line = text; *line != 0;) {
        char *end = line_end(line);
        const char *word = line + strspn(line, " \t");
        bool keep = is_active(in);
        if (*word == '#') {
            word += 1 + strspn(word + 1, " \t");
            size_t length = fake_word(word);
            const char *rest = word + length + strspn(word + length, " \t");
            if (conditional_take(in, word, length, rest)) {
                keep = false;
            } else if (keep) {
                directive_take(in, word, length, rest, end);
            }
        }
        /* What macro values point to must stay: those lines are kept. */
        if (!keep) {
            blank(line, end);
        }
        line = *end == 0 ? end : end + 1;
    }
    for (size_t i = 0; i < in->depth; i++) {
        problem_add(found, found->text + (in->levels[i].begin - text),
                    "unterminated conditional directive");
    }
    free(in);
}

static char *text_strip(const char *text, problems *found)
{
    char *stripped = strdup(text);
    if (stripped == NULL) {
        abort();
    }
    comments_blank(stripped, found);
    conditionals_blank(stripped, found);
    return stripped;
}

char *fake_text_strip(const char *text)
{
    problems found = {.text = text};
    return text_strip(text, &found);
}

/* ---- kernels ---- */

/* Behind "kernel void NAME (", or NULL. */
static const char *kernel_match(const char *at, char *name, size_t size_bytes)
{
    size_t length = fake_word(at);
    if (!word_equals(at, length, "kernel")) {
        return NULL;
    }
    at = blanks_skip(at + length);
    if (at[0] == ']' && at[1] == ']') { /* [[kernel]] */
        at = blanks_skip(at + 2);
    }
    length = fake_word(at);
    if (!word_equals(at, length, "void")) {
        return NULL;
    }
    at = blanks_skip(at + length);
    length = fake_word(at);
    if (length == 0 || length >= size_bytes) {
        return NULL;
    }
    (void)snprintf(name, size_bytes, "%.*s", (int)length, at);
    at = blanks_skip(at + length);
    return *at == '(' ? at + 1 : NULL;
}

const char *fake_text_kernel_next(const char *at, char *name, size_t size_bytes)
{
    while (*at != 0) {
        const char *parameters = kernel_match(at, name, size_bytes);
        if (parameters != NULL) {
            return parameters;
        }
        size_t length = fake_word(at);
        at += length > 0 ? length : 1;
    }
    return NULL;
}

const char *fake_text_kernel(const char *text, const char *name)
{
    char found[256];
    const char *at = text;
    while ((at = fake_text_kernel_next(at, found, sizeof found)) != NULL) {
        if (strcmp(found, name) == 0) {
            return at;
        }
    }
    return NULL;
}

/* ---- what a compiler refuses ---- */

static bool is_directive(const char *text, const char *at)
{
    while (at > text && at[-1] != '\n') {
        at--;
    }
    return at[strspn(at, " \t")] == '#';
}

static void brackets_check(const char *text, problems *found)
{
    const char *opened[DEPTH_MAX];
    size_t depth = 0;
    for (const char *at = text; *at != 0; at++) {
        if (*at == '#' && is_directive(text, at)) {
            while (*at != 0 && (*at != '\n' || at[-1] == '\\')) {
                at++;
            }
            if (*at == 0) {
                break;
            }
        }
        const char *original = found->text + (at - text);
        if (strchr("([{", *at) != NULL) {
            if (depth == DEPTH_MAX) {
                problem_add(found, original, "bracket nesting level exceeded maximum of %u",
                            DEPTH_MAX);
                return;
            }
            opened[depth++] = at;
        } else if (strchr(")]}", *at) != NULL) {
            char open = *at == ')' ? '(' : *at == ']' ? '[' : '{';
            if (depth == 0) {
                problem_add(found, original, "extraneous closing bracket ('%c')", *at);
                return;
            }
            if (*opened[--depth] != open) {
                char wanted = *opened[depth] == '(' ? ')' : *opened[depth] == '[' ? ']' : '}';
                problem_add(found, original, "expected '%c'", wanted);
                return;
            }
        }
    }
    if (depth > 0) {
        char wanted = *opened[depth - 1] == '(' ? ')' : *opened[depth - 1] == '[' ? ']' : '}';
        problem_add(found, found->text + strlen(text), "expected '%c'", wanted);
    }
}

static const char *const known_words[] = {
    "true",      "false",       "nullptr",   "this",   "sizeof",   "alignof", "return",    "device",
    "constant",  "threadgroup", "thread",    "const",  "volatile", "static",  "constexpr", "struct",
    "typename",  "void",        "bool",      "char",   "uchar",    "short",   "ushort",    "int",
    "uint",      "long",        "ulong",     "half",   "float",    "bfloat",  "unsigned",  "signed",
    "auto",      "size_t",      "ptrdiff_t", "kernel", "class",    "enum",    "template",  "using",
    "namespace", "inline",      NULL};

/* float4, packed_uchar3, uint8_t, atomic_uint, texture2d ... */
static bool is_type(const char *word, size_t length)
{
    static const char *const starts[] = {
        "packed_", "atomic_", "bool", "char",  "uchar",  "short",   "ushort",  "int",   "uint",
        "long",    "ulong",   "half", "float", "bfloat", "texture", "sampler", "metal", NULL};
    for (size_t i = 0; starts[i] != NULL; i++) {
        size_t start = strlen(starts[i]);
        if (length >= start && strncmp(word, starts[i], start) == 0 &&
            (word[start - 1] == '_' || length == start || isdigit((unsigned char)word[start]))) {
            return true;
        }
    }
    return fake_word_is(word, length, known_words);
}

static bool has_lower(const char *word, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (islower((unsigned char)word[i])) {
            return true;
        }
    }
    return false;
}

/* Past a character that begins no word, or past a number. */
static size_t number_skip(const char *at)
{
    size_t length = 1;
    while (isdigit((unsigned char)at[0]) &&
           (isalnum((unsigned char)at[length]) || at[length] == '.' || at[length] == '_')) {
        length++;
    }
    return length;
}

/* Whether the word stands earlier in the text. */
static bool is_earlier(const char *text, const char *word, size_t length)
{
    for (const char *at = text; at < word;) {
        size_t here = fake_word(at);
        if (here == length && strncmp(at, word, length) == 0) {
            return true;
        }
        at += here > 0 ? here : number_skip(at);
    }
    return false;
}

/* The first time that a name stands in a text, it is declared: it follows a type's name, a comma, a
 * bracket ... and not an operator. */
static bool is_use(const char *text, const char *word)
{
    const char *before = word;
    while (before > text && isspace((unsigned char)before[-1])) {
        before--;
    }
    bool attribute = before > text + 1 && before[-1] == '[' && before[-2] == '[';
    return before > text && !attribute && strchr("=+-/%!~?<|^([", before[-1]) != NULL;
}

static void names_check(const char *text, problems *found)
{
    const char *at = text;
    while (*at != 0) {
        size_t length = fake_word(at);
        if (length == 0) {
            at += number_skip(at);
            continue;
        }
        const char *word = at;
        const char *next = blanks_skip(at + length);
        at += length;
        bool member = word > text &&
                      (word[-1] == '.' || (word > text + 1 && word[-1] == '>' && word[-2] == '-'));
        bool scoped = word > text && word[-1] == ':';
        if (member || scoped || is_type(word, length) || fake_attribute_known(word, length) ||
            is_earlier(text, word, length) || is_directive(text, word)) {
            continue;
        }
        bool odd = length > 2 && word[0] == '_' && word[1] == '_' &&
                   strncmp(word, "__METAL", strlen("__METAL")) != 0 &&
                   !word_equals(word, length, "__attribute__");
        if (odd) {
            problem_add(found, found->text + (word - text), "unknown type name '%.*s'", (int)length,
                        word);
        } else if (is_use(text, word) && has_lower(word, length) && *next != '(' && *next != '<' &&
                   !(next[0] == ':' && next[1] == ':')) {
            problem_add(found, found->text + (word - text), "use of undeclared identifier '%.*s'",
                        (int)length, word);
        }
    }
}

static void kernels_check(const char *text, problems *found)
{
    char name[256];
    const char *at = text;
    while ((at = fake_text_kernel_next(at, name, sizeof name)) != NULL) {
        char words[200];
        const char *wrong = fake_signature_problem(at, words, sizeof words);
        if (wrong != NULL) {
            problem_add(found, found->text + (wrong - text), "%s", words);
        }
    }
}

const char *fake_text_check(const char *text, char *out, size_t size_bytes)
{
    problems found = {.text = text, .out = out, .size_bytes = size_bytes};
    char *stripped = text_strip(text, &found);
    if (found.used == 0) {
        brackets_check(stripped, &found);
    }
    if (found.used == 0) {
        names_check(stripped, &found);
        kernels_check(stripped, &found);
    }
    free(stripped);
    return found.used == 0 ? NULL : out;
}
