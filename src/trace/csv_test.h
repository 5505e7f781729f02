/*
 * A strict reader of RFC 4180 for tests: knows nothing of how the table is written. Cells are found
 * by the name of their column.
 */
#ifndef UMO_TRACE_CSV_TEST_H
#define UMO_TRACE_CSV_TEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CSV_COLUMNS_MAX 32u

typedef struct csv {
    char *text; /* the file; cells point into it */
    char *next;
    size_t columns;
    const char *names[CSV_COLUMNS_MAX];
    const char *cells[CSV_COLUMNS_MAX]; /* of the row read last */
    bool quoted[CSV_COLUMNS_MAX];
} csv;

/* Reads one row. False at the end; ends the program when a row is not as the RFC says. */
static bool csv_row(csv *c, const char *cells[CSV_COLUMNS_MAX], bool quoted[CSV_COLUMNS_MAX],
                    size_t *count)
{
    *count = 0;
    if (*c->next == '\0') {
        return false;
    }
    for (char ended = ','; ended == ',';) {
        char *from = c->next;
        char *to = from;
        bool in_quotes = *from == '"';
        cells[*count] = to;
        quoted[*count] = in_quotes;
        from += in_quotes ? 1 : 0;
        while (in_quotes ? *from != '"' || from[1] == '"' : *from != ',' && *from != '\n') {
            if (*from == '\0' || (!in_quotes && (*from == '"' || *from == '\r'))) {
                (void)fprintf(stderr, "csv: a cell that does not end, or a stray quote\n");
                abort();
            }
            from += in_quotes && *from == '"' ? 1 : 0;
            *to++ = *from++;
        }
        from += in_quotes ? 1 : 0;
        ended = *from;
        if (ended != ',' && ended != '\n') {
            (void)fprintf(stderr, "csv: something behind a closing quote\n");
            abort();
        }
        c->next = from + 1;
        *to = '\0';
        ++*count;
        if (ended == ',' && *count == CSV_COLUMNS_MAX) {
            abort();
        }
    }
    return true;
}

static bool csv_next(csv *c)
{
    size_t count;
    if (!csv_row(c, c->cells, c->quoted, &count)) {
        return false;
    }
    if (count != c->columns) {
        (void)fprintf(stderr, "csv: a row of %zu cells, not %zu\n", count, c->columns);
        abort();
    }
    return true;
}

static size_t csv_column(const csv *c, const char *name)
{
    for (size_t i = 0; i < c->columns; i++) {
        if (strcmp(c->names[i], name) == 0) {
            return i;
        }
    }
    (void)fprintf(stderr, "csv: no column %s\n", name);
    abort();
}

static const char *csv_text(const csv *c, const char *name)
{
    return c->cells[csv_column(c, name)];
}

/* 0 for an empty cell; ends the program when it is neither empty nor a number. */
static uint64_t csv_number(const csv *c, const char *name)
{
    const char *cell = csv_text(c, name);
    char *end;
    unsigned long long number = strtoull(cell, &end, 10);
    if (*end != '\0' || *cell == '-' || *cell == '+') {
        (void)fprintf(stderr, "csv: %s is '%s'\n", name, cell);
        abort();
    }
    return number;
}

static csv csv_open(const char *path)
{
    csv c = {0};
    FILE *file = fopen(path, "rb");
    size_t size = 0;
    size_t room = 1 << 16;
    c.text = malloc(room);
    if (file == NULL || c.text == NULL) {
        abort();
    }
    for (size_t got; (got = fread(c.text + size, 1, room - size - 1, file)) > 0;) {
        size += got;
        if (size + 1 == room) {
            room *= 2;
            char *text = realloc(c.text, room);
            if (text == NULL) {
                abort();
            }
            c.text = text;
        }
    }
    (void)fclose(file);
    c.text[size] = '\0';
    c.next = c.text;
    bool quoted[CSV_COLUMNS_MAX];
    if (strlen(c.text) != size || !csv_row(&c, c.names, quoted, &c.columns)) {
        abort();
    }
    return c;
}

static void csv_close(csv *c)
{
    free(c->text);
}

#endif
