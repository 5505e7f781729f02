/* Formatted input and output: Apple's variadic area read by glibc's own functions. */
#include "bridges.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * A copy of a format for glibc, which the caller frees. Darwin's long double is a double, so `L`
 * becomes `l`, which says double for input and changes nothing for output. %p of NULL is 0x0 there
 * and (nil) here, so %p becomes 0x%lx for output.
 */
static char *format_for_glibc(const char *format, bool output)
{
    char *out = malloc(strlen(format) * 3 + 1);
    if (out == NULL) {
        macho_die("no memory for a format");
    }
    char *to = out;
    while (*format != '\0') {
        *to++ = *format;
        if (*format++ != '%') {
            continue;
        }
        size_t settings = strspn(format, "0123456789$ #+-'.*hljztqL");
        char conversion = format[settings];
        if (conversion == 'm' || (output && conversion == 'p' && settings != 0)) {
            macho_die("no bridge for %%%.*s in a format", (int)settings + 1, format);
        }
        if (output && conversion == 'p') {
            to = stpcpy(to - 1, "0x%lx");
            format++;
            continue;
        }
        for (size_t i = 0; i <= settings && *format != '\0'; i++, format++) {
            *to++ = i < settings && *format == 'L' ? 'l' : *format;
        }
    }
    *to = '\0';
    return out;
}

#define FORMATTED(output, call)                                                                    \
    do {                                                                                           \
        va_list list;                                                                              \
        char *ours = format_for_glibc(format, output);                                             \
        area_to_va_list(area, &list);                                                              \
        int count = call;                                                                          \
        free(ours);                                                                                \
        return count;                                                                              \
    } while (0)

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

/* Those that are variadic enter through bridge.S, those that take Apple's va_list (a plain pointer)
 * come here directly. */
int bridge_area_printf(const char *format, char *area);
int bridge_area_fprintf(FILE *file, const char *format, char *area);
int bridge_area_dprintf(int fd, const char *format, char *area);
int bridge_area_asprintf(char **out, const char *format, char *area);
int bridge_area_sprintf(char *out, const char *format, char *area);
int bridge_area_snprintf(char *out, size_t size, const char *format, char *area);
int bridge_area_sprintf_chk(char *out, int flag, size_t size, const char *format, char *area);
int bridge_area_snprintf_chk(char *out, size_t size, int flag, size_t room, const char *format,
                             char *area);
int bridge_area_sscanf(const char *text, const char *format, char *area);
int bridge_area_fscanf(FILE *file, const char *format, char *area);

int bridge_area_printf(const char *format, char *area)
{
    FORMATTED(true, vprintf(ours, list));
}

int bridge_area_fprintf(FILE *file, const char *format, char *area)
{
    FORMATTED(true, vfprintf(file, ours, list));
}

int bridge_area_dprintf(int fd, const char *format, char *area)
{
    FORMATTED(true, vdprintf(fd, ours, list));
}

int bridge_area_asprintf(char **out, const char *format, char *area)
{
    FORMATTED(true, vasprintf(out, ours, list));
}

int bridge_area_sprintf(char *out, const char *format, char *area)
{
    FORMATTED(true, vsprintf(out, ours, list));
}

int bridge_area_snprintf(char *out, size_t size, const char *format, char *area)
{
    FORMATTED(true, vsnprintf(out, size, ours, list));
}

int bridge_area_sprintf_chk(char *out, int flag, size_t size, const char *format, char *area)
{
    (void)flag;
    int count = bridge_area_snprintf(out, size, format, area);
    if (count >= 0 && (size_t)count >= size) {
        macho_die("sprintf writes past the end of what it was given");
    }
    return count;
}

int bridge_area_snprintf_chk(char *out, size_t size, int flag, size_t room, const char *format,
                             char *area)
{
    (void)flag;
    if (size > room) {
        macho_die("snprintf is given a size past the end of its buffer");
    }
    return bridge_area_snprintf(out, size, format, area);
}

int bridge_area_sscanf(const char *text, const char *format, char *area)
{
    FORMATTED(false, vsscanf(text, ours, list));
}

int bridge_area_fscanf(FILE *file, const char *format, char *area)
{
    FORMATTED(false, vfscanf(file, ours, list));
}

/* In bridge.S. */
void bridge_printf(void);
void bridge_fprintf(void);
void bridge_dprintf(void);
void bridge_asprintf(void);
void bridge_sprintf(void);
void bridge_snprintf(void);
void bridge_sprintf_chk(void);
void bridge_snprintf_chk(void);
void bridge_sscanf(void);
void bridge_fscanf(void);

const macho_bridge macho_bridges_stdio[] = {
    BRIDGE(printf),
    BRIDGE(fprintf),
    BRIDGE(dprintf),
    BRIDGE(asprintf),
    BRIDGE(sprintf),
    BRIDGE(snprintf),
    BRIDGE(sscanf),
    BRIDGE(fscanf),
    BRIDGE_AS("___sprintf_chk", bridge_sprintf_chk),
    BRIDGE_AS("___snprintf_chk", bridge_snprintf_chk),
    BRIDGE_AS("_vprintf", bridge_area_printf),
    BRIDGE_AS("_vfprintf", bridge_area_fprintf),
    BRIDGE_AS("_vasprintf", bridge_area_asprintf),
    BRIDGE_AS("_vsprintf", bridge_area_sprintf),
    BRIDGE_AS("_vsnprintf", bridge_area_snprintf),
    BRIDGE_AS("___vsnprintf_chk", bridge_area_snprintf_chk),
    BRIDGE_AS("_vsscanf", bridge_area_sscanf),
    BRIDGES_END,
};
