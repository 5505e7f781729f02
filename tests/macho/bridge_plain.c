/*
 * The C library where both systems agree in types and values; the data symbols; and the list of all
 * tables. A small integer that is returned may have any upper bits here and is extended there: the
 * functions below return int or wider.
 */
#include "bridges.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

int macho_flags(const char *what, int darwin, const flag_row *rows, size_t count)
{
    int ours = 0;
    for (size_t i = 0; i < count; i++) {
        if ((darwin & rows[i].darwin) == rows[i].darwin) {
            ours |= rows[i].ours;
            darwin &= ~rows[i].darwin;
        }
    }
    if (darwin != 0) {
        macho_die("%s: no bridge for the flags 0x%x", what, (unsigned)darwin);
    }
    return ours;
}

static void bridge_bzero(void *start, size_t size)
{
    memset(start, 0, size);
}

/* Fills with a pattern; clang makes calls of them from loops. */
static void pattern_fill(void *start, const void *pattern, size_t step, size_t size)
{
    uint8_t *to = start;
    while (size > 0) {
        size_t part = size < step ? size : step;
        memcpy(to, pattern, part);
        to += part;
        size -= part;
    }
}

static void bridge_memset_pattern4(void *start, const void *pattern, size_t size)
{
    pattern_fill(start, pattern, 4, size);
}

static void bridge_memset_pattern8(void *start, const void *pattern, size_t size)
{
    pattern_fill(start, pattern, 8, size);
}

static void bridge_memset_pattern16(void *start, const void *pattern, size_t size)
{
    pattern_fill(start, pattern, 16, size);
}

static void *bridge_memcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    if (size > room) {
        macho_die("memcpy writes past the end of what it was given");
    }
    return memcpy(to, from, size);
}

static void *bridge_memmove_chk(void *to, const void *from, size_t size, size_t room)
{
    if (size > room) {
        macho_die("memmove writes past the end of what it was given");
    }
    return memmove(to, from, size);
}

static void *bridge_memset_chk(void *to, int byte, size_t size, size_t room)
{
    if (size > room) {
        macho_die("memset writes past the end of what it was given");
    }
    return memset(to, byte, size);
}

static char *bridge_strcpy_chk(char *to, const char *from, size_t room)
{
    return bridge_memcpy_chk(to, from, strlen(from) + 1, room);
}

static size_t bridge_strlcpy(char *to, const char *from, size_t size)
{
    size_t length = strlen(from);
    if (size > 0) {
        size_t part = length < size ? length : size - 1;
        memcpy(to, from, part);
        to[part] = '\0';
    }
    return length;
}

static size_t bridge_strlcat(char *to, const char *from, size_t size)
{
    size_t length = strnlen(to, size);
    return length + bridge_strlcpy(to + length, from, size - length);
}

static size_t bridge_strlcpy_chk(char *to, const char *from, size_t size, size_t room)
{
    if (size > room) {
        macho_die("strlcpy is given a size past the end of its buffer");
    }
    return bridge_strlcpy(to, from, size);
}

static size_t bridge_strlcat_chk(char *to, const char *from, size_t size, size_t room)
{
    if (size > room) {
        macho_die("strlcat is given a size past the end of its buffer");
    }
    return bridge_strlcat(to, from, size);
}

static char *bridge_strncpy_chk(char *to, const char *from, size_t size, size_t room)
{
    if (size > room) {
        macho_die("strncpy writes past the end of what it was given");
    }
    return strncpy(to, from, size);
}

static char *bridge_strcat_chk(char *to, const char *from, size_t room)
{
    if (strlen(to) + strlen(from) >= room) {
        macho_die("strcat writes past the end of what it was given");
    }
    return strcat(to, from);
}

static char *bridge_strncat_chk(char *to, const char *from, size_t size, size_t room)
{
    if (strlen(to) + strnlen(from, size) >= room) {
        macho_die("strncat writes past the end of what it was given");
    }
    return strncat(to, from, size);
}

/*
 * Darwin's <ctype.h> looks characters up in a table, of which it knows the part of ASCII; here all
 * of it is the C locale's.
 */
typedef struct rune_locale {
    char magic[8];
    char encoding[32];
    void *functions[2];
    int invalid;
    uint32_t types[256];
    int lower[256];
    int upper[256];
    char rest[128];
} rune_locale;

static rune_locale runes = {.magic = "RuneMagA", .encoding = "NONE"};

/* Bits of a character's type; the digit's value lies in the low byte. */
static uint32_t rune_type(int c)
{
    return (isalpha(c) ? 0x100u : 0) | (iscntrl(c) ? 0x200u : 0) | (isdigit(c) ? 0x400u : 0) |
           (isgraph(c) ? 0x800u : 0) | (islower(c) ? 0x1000u : 0) | (ispunct(c) ? 0x2000u : 0) |
           (isspace(c) ? 0x4000u : 0) | (isupper(c) ? 0x8000u : 0) | (isxdigit(c) ? 0x10000u : 0) |
           (isblank(c) ? 0x20000u : 0) | (isprint(c) ? 0x40000u : 0) |
           (isdigit(c) ? (uint32_t)(c - '0') : 0) |
           (isxdigit(c) && !isdigit(c) ? (uint32_t)(tolower(c) - 'a' + 10) : 0);
}

__attribute__((constructor)) static void runes_fill(void)
{
    for (int c = 0; c < 128; c++) {
        runes.types[c] = rune_type(c);
        runes.lower[c] = tolower(c);
        runes.upper[c] = toupper(c);
    }
}

/* For what is not ASCII: no character at all in the C locale. */
static int bridge_maskrune(int c, unsigned long mask)
{
    (void)mask;
    if (c >= 0 && c < 128) {
        macho_die("__maskrune of an ASCII character, which the caller knows itself");
    }
    return 0;
}

/* Of the C locale, which nobody leaves here; what is a number there stays at "not available". */
static const void *bridge_localeconv(void)
{
    static const struct {
        const char *decimal_point, *texts[9];
        char numbers[14];
    } conventions = {".",
                     {"", "", "", "", "", "", "", "", ""},
                     "\177\177\177\177\177\177\177\177\177\177\177\177\177"};
    return &conventions;
}

/* Everything is bound at load, so the binder of lazy pointers is imported and never called. */
static void bridge_stub_binder(void)
{
    macho_die("dyld_stub_binder was called: a lazy pointer was not bound");
}

static void bridge_tlv_bootstrap(void)
{
    macho_die("a thread-local variable was used before it was made ready");
}

static void bridge_stack_chk_fail(void)
{
    macho_die("a function has overwritten its stack");
}

static void bridge_assert_rtn(const char *function, const char *file, int line, const char *text)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "Assertion failed: (%s), function %s, file %s, line %d.\n", text,
                  function, file, line);
    abort();
}

/* The compiler's own: division of 128 bits. */
__extension__ typedef __int128 wide;
wide __divti3(wide a, wide b);

/* glibc's own, which no header declares; what is given as the library only matters to dlclose. */
int __cxa_atexit(void (*run)(void *), void *argument, void *library);

static int bridge_cxa_atexit(void (*run)(void *), void *argument, const void *library)
{
    (void)library;
    return __cxa_atexit(run, argument, NULL);
}

const macho_bridge macho_bridges_plain[] = {
    DIRECT(memcpy),
    DIRECT(memmove),
    DIRECT(memset),
    DIRECT(memcmp),
    DIRECT(memchr),
    DIRECT(memmem),
    DIRECT(strlen),
    DIRECT(strnlen),
    DIRECT(strcmp),
    DIRECT(strncmp),
    DIRECT(strcasecmp),
    DIRECT(strncasecmp),
    DIRECT(strcpy),
    DIRECT(strncpy),
    DIRECT(strcat),
    DIRECT(strncat),
    DIRECT(strchr),
    DIRECT(strrchr),
    DIRECT(strstr),
    DIRECT(strdup),
    DIRECT(strndup),
    DIRECT(strspn),
    DIRECT(strcspn),
    DIRECT(strpbrk),
    DIRECT(strtok),
    DIRECT(strtok_r),
    DIRECT(strtol),
    DIRECT(strtoul),
    DIRECT(strtoll),
    DIRECT(strtoull),
    DIRECT(strtoimax),
    DIRECT(strtoumax),
    DIRECT(strtod),
    DIRECT(strtof),
    DIRECT(atoi),
    DIRECT(atol),
    DIRECT(atof),
    DIRECT(malloc),
    DIRECT(calloc),
    DIRECT(realloc),
    DIRECT(free),
    DIRECT(posix_memalign),
    DIRECT(aligned_alloc),
    DIRECT(qsort),
    DIRECT(bsearch),
    DIRECT(abort),
    DIRECT(exit),
    DIRECT(_exit),
    DIRECT(atexit),
    DIRECT(getenv),
    DIRECT(setenv),
    DIRECT(unsetenv),
    DIRECT(mkstemp),
    DIRECT(mkdtemp),
    DIRECT(realpath),
    DIRECT(rand),
    DIRECT(srand),
    DIRECT(rand_r),
    DIRECT(tolower),
    DIRECT(toupper),
    DIRECT(fopen),
    DIRECT(fclose),
    DIRECT(fflush),
    DIRECT(fread),
    DIRECT(fwrite),
    DIRECT(fgets),
    DIRECT(fgetc),
    DIRECT(getc),
    DIRECT(getline),
    DIRECT(getdelim),
    DIRECT(fputs),
    DIRECT(fputc),
    DIRECT(putc),
    DIRECT(putchar),
    DIRECT(puts),
    DIRECT(fseek),
    DIRECT(ftell),
    DIRECT(rewind),
    DIRECT(feof),
    DIRECT(ferror),
    DIRECT(fileno),
    DIRECT(setvbuf),
    DIRECT(remove),
    DIRECT(rename),
    DIRECT(tmpfile),
    DIRECT(open_memstream),
    DIRECT(time),
    DIRECT(difftime),
    DIRECT(clock),
    DIRECT(nanosleep),
    DIRECT(localtime_r),
    DIRECT(gmtime_r),
    DIRECT(strftime),
    DIRECT(sqrt),
    DIRECT(pow),
    DIRECT(log),
    DIRECT(exp),
    DIRECT(fmod),
    DIRECT(ldexp),
    DIRECT(sqrtf),
    DIRECT(expf),
    DIRECT(tanhf),
    DIRECT(erff),
    BRIDGE_AS("_fopen$DARWIN_EXTSN", fopen),
    BRIDGE_AS("_realpath$DARWIN_EXTSN", realpath),
    BRIDGE(localeconv),
    BRIDGE(bzero),
    BRIDGE_AS("___bzero", bridge_bzero),
    BRIDGE(memset_pattern4),
    BRIDGE(memset_pattern8),
    BRIDGE(memset_pattern16),
    BRIDGE(strlcpy),
    BRIDGE(strlcat),
    BRIDGE_AS("___memcpy_chk", bridge_memcpy_chk),
    BRIDGE_AS("___memmove_chk", bridge_memmove_chk),
    BRIDGE_AS("___memset_chk", bridge_memset_chk),
    BRIDGE_AS("___strcpy_chk", bridge_strcpy_chk),
    BRIDGE_AS("___strncpy_chk", bridge_strncpy_chk),
    BRIDGE_AS("___strcat_chk", bridge_strcat_chk),
    BRIDGE_AS("___strncat_chk", bridge_strncat_chk),
    BRIDGE_AS("___strlcpy_chk", bridge_strlcpy_chk),
    BRIDGE_AS("___strlcat_chk", bridge_strlcat_chk),
    BRIDGE_AS("dyld_stub_binder", bridge_stub_binder),
    BRIDGE_AS("__tlv_bootstrap", bridge_tlv_bootstrap),
    BRIDGE_AS("___stack_chk_fail", bridge_stack_chk_fail),
    BRIDGE_AS("___assert_rtn", bridge_assert_rtn),
    BRIDGE_AS("___maskrune", bridge_maskrune),
    BRIDGE_AS("___tolower", tolower),
    BRIDGE_AS("___toupper", toupper),
    BRIDGE_AS("___divti3", __divti3),
    BRIDGE_AS("___cxa_atexit", bridge_cxa_atexit),
    BRIDGES_END,
};

/* Data is bound to the address of our own variable. stdin and its like are pointers in both. */
static uint64_t stack_guard = UINT64_C(0x595e9fbd94fda766);

const macho_bridge_data macho_bridges_data[] = {
    {"___stdinp", &stdin},
    {"___stdoutp", &stdout},
    {"___stderrp", &stderr},
    {"___stack_chk_guard", &stack_guard},
    {"_environ", &environ},
    {"__DefaultRuneLocale", &runes},
    {"_mach_task_self_", &macho_task_self},
    {NULL, NULL},
};

bool macho_bridge_find(const char *symbol, uint64_t *out_address)
{
    static const macho_bridge *const tables[] = {
        macho_bridges_stdio,   macho_bridges_plain,    macho_bridges_thread,
        macho_bridges_memory,  macho_bridges_files,    macho_bridges_system,
        macho_bridges_library, macho_bridges_dispatch, macho_bridges_process};
    static const macho_bridge_data *const data[] = {macho_bridges_data,
                                                    macho_bridges_dispatch_data};
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        for (const macho_bridge *row = tables[t]; row->name != NULL; row++) {
            if (strcmp(row->name, symbol) == 0) {
                *out_address = (uint64_t)(uintptr_t)row->function;
                return true;
            }
        }
    }
    for (size_t t = 0; t < sizeof data / sizeof data[0]; t++) {
        for (const macho_bridge_data *row = data[t]; row->name != NULL; row++) {
            if (strcmp(row->name, symbol) == 0) {
                *out_address = (uint64_t)(uintptr_t)row->data;
                return true;
            }
        }
    }
    return false;
}
