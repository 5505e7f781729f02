/*
 * Buffers as CSV (RFC 4180), in the form of MiniMalloc's instances: id,lower,upper,size and, where
 * there are any, alignment and offset. One pass over a copy of the text, in which fields are
 * unquoted where they lie; every error has its line.
 */
#include "os/replace.h"

#include <umo/plan.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 30)
#define COLUMNS_MAX 64u
#define ROWS_FIRST 256u

typedef enum column {
    COLUMN_ID,
    COLUMN_LOWER,
    COLUMN_UPPER,
    COLUMN_SIZE,
    COLUMN_NEEDED,
    COLUMN_ALIGNMENT = COLUMN_NEEDED,
    COLUMN_OFFSET,
    COLUMN_OTHER
} column;

static const char *const column_names[COLUMN_OTHER] = {"id",   "lower",     "upper",
                                                       "size", "alignment", "offset"};

typedef struct reader {
    const char *name;
    char *at;
    char *end;
    size_t line;     /* of the row that is read */
    size_t line_now; /* of what is read next */
    char *fields[COLUMNS_MAX];
    uint32_t field_count;
    column columns[COLUMNS_MAX];
    uint32_t column_count;
    bool has[COLUMN_OTHER];
    umo_plan_table table;
    size_t room;
    size_t *lines;
    umo_error *error;
} reader;

static umo_status wrong(const reader *r, const char *what, const char *text)
{
    return umo_error_set(r->error, UMO_E_INVAL, 0, "%s, line %zu: %s%.60s", r->name, r->line, what,
                         text);
}

/* Reads one field and what ends it. 0 at the end of a row, ',' before another field; -1 on an
 * error. */
static int field_read(reader *r, char **field, umo_status *status)
{
    char *out = r->at;
    *field = out;
    const bool quoted = r->at < r->end && *r->at == '"';
    r->at += quoted ? 1 : 0;
    bool open = quoted;
    while (r->at < r->end) {
        const char c = *r->at;
        if (open && c == '"') {
            r->at++;
            if (r->at < r->end && *r->at == '"') {
                *out++ = *r->at++;
            } else {
                open = false;
            }
            continue;
        }
        if (!open && (c == ',' || c == '\n' || c == '\r')) {
            break;
        }
        if (c == '\0' || (!open && (quoted || c == '"'))) {
            *status = wrong(
                r, c == '\0' ? "a zero byte" : "a quote within a field that is not quoted", "");
            return -1;
        }
        r->line_now += c == '\n' ? 1 : 0;
        *out++ = c;
        r->at++;
    }
    if (open) {
        *status = wrong(r, "a quote is not closed", "");
        return -1;
    }
    int end = 0;
    if (r->at < r->end && *r->at == ',') {
        end = ',';
    } else if (r->at < r->end) {
        r->at += *r->at == '\r' && r->at + 1 < r->end && r->at[1] == '\n' ? 1 : 0;
        r->line_now++;
    }
    r->at += r->at < r->end ? 1 : 0;
    *out = '\0'; /* in place of a quote, a comma or a line's end; or the byte behind the text */
    return end;
}

/* Reads one row into fields; rows without anything are passed over. False at the end of the text.
 */
static bool row_read(reader *r, umo_status *status)
{
    for (;;) {
        if (r->at >= r->end) {
            return false;
        }
        r->line = r->line_now;
        r->field_count = 0;
        int end = ',';
        while (end == ',') {
            if (r->field_count == COLUMNS_MAX) {
                *status = wrong(r, "more than 64 fields", "");
                return false;
            }
            end = field_read(r, &r->fields[r->field_count], status);
            if (end < 0) {
                return false;
            }
            r->field_count++;
        }
        if (r->field_count > 1 || r->fields[0][0] != '\0') {
            return true;
        }
    }
}

static umo_status header_read(reader *r)
{
    umo_status status = UMO_OK;
    if (!row_read(r, &status)) {
        return status != UMO_OK
                   ? status
                   : umo_error_set(r->error, UMO_E_INVAL, 0,
                                   "%s is empty: a header id,lower,upper,size is missing", r->name);
    }
    r->column_count = r->field_count;
    for (uint32_t k = 0; k < r->field_count; k++) {
        r->columns[k] = COLUMN_OTHER;
        for (column c = COLUMN_ID; c < COLUMN_OTHER; c++) {
            if (strcmp(r->fields[k], column_names[c]) != 0) {
                continue;
            }
            if (r->has[c]) {
                return wrong(r, "two columns of the name ", column_names[c]);
            }
            r->has[c] = true;
            r->columns[k] = c;
        }
    }
    for (column c = COLUMN_ID; c < COLUMN_NEEDED; c++) {
        if (!r->has[c]) {
            return wrong(r, "the header lacks the column ", column_names[c]);
        }
    }
    return UMO_OK;
}

/* A whole decimal number, maybe negative; spaces around it are no part of it. */
static bool number_read(const char *text, bool *negative, uint64_t *out)
{
    text += strspn(text, " ");
    *negative = *text == '-';
    text += *negative ? 1 : 0;
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits + strspn(text + digits, " ")] != '\0') {
        return false;
    }
    uint64_t v = 0;
    for (size_t k = 0; k < digits; k++) {
        const uint64_t digit = (uint64_t)(text[k] - '0');
        if (v > (UINT64_MAX - digit) / 10) {
            v = UINT64_MAX; /* beyond what any column takes */
            break;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

static umo_status cell_read(reader *r, column c, const char *text, size_t row)
{
    umo_plan_buffer *b = &r->table.buffers[row];
    bool negative;
    uint64_t v;
    char words[64];
    (void)snprintf(words, sizeof words, "%s is no whole number: ", column_names[c]);
    if (!number_read(text, &negative, &v)) {
        return wrong(r, words, text);
    }
    const bool time = c == COLUMN_LOWER || c == COLUMN_UPPER;
    (void)snprintf(words, sizeof words, "%s is not within %s: ", column_names[c],
                   time               ? "63 bits"
                   : c == COLUMN_SIZE ? "1 to 2^63 - 1"
                                      : "0 to 2^63 - 1");
    if (v > INT64_MAX || (!time && negative && v > 0) || (c == COLUMN_SIZE && v == 0)) {
        return wrong(r, words, text);
    }
    const int64_t number = negative ? -(int64_t)v : (int64_t)v;
    switch (c) {
    case COLUMN_LOWER:
        b->lower = number;
        break;
    case COLUMN_UPPER:
        b->upper = number;
        break;
    case COLUMN_SIZE:
        b->size_bytes = v;
        break;
    case COLUMN_ALIGNMENT:
        b->align_bytes = v;
        break;
    case COLUMN_OFFSET:
        r->table.offsets[row] = number;
        break;
    case COLUMN_ID:
    case COLUMN_OTHER:
        break;
    }
    return UMO_OK;
}

/* Room for another row. A table keeps what it has when this fails. */
static bool rows_grow(reader *r)
{
    if (r->table.count < r->room) {
        return true;
    }
    const size_t room = r->room == 0 ? ROWS_FIRST : 2 * r->room;
    umo_plan_buffer *buffers = realloc(r->table.buffers, room * sizeof *buffers);
    r->table.buffers = buffers != NULL ? buffers : r->table.buffers;
    const char **ids = realloc(r->table.ids, room * sizeof *ids);
    r->table.ids = ids != NULL ? ids : r->table.ids;
    size_t *lines = realloc(r->lines, room * sizeof *lines);
    r->lines = lines != NULL ? lines : r->lines;
    int64_t *offsets = NULL;
    if (r->has[COLUMN_OFFSET]) {
        offsets = realloc(r->table.offsets, room * sizeof *offsets);
        r->table.offsets = offsets != NULL ? offsets : r->table.offsets;
    }
    if (buffers == NULL || ids == NULL || lines == NULL ||
        (r->has[COLUMN_OFFSET] && offsets == NULL)) {
        return false;
    }
    r->room = room;
    return true;
}

static umo_status row_take(reader *r)
{
    if (r->field_count != r->column_count) {
        return umo_error_set(r->error, UMO_E_INVAL, 0, "%s, line %zu: %u fields, the header has %u",
                             r->name, r->line, r->field_count, r->column_count);
    }
    if (r->table.count == UMO_PLAN_BUFFERS_MAX) {
        return wrong(r, "more buffers than a plan can have, 8000000", "");
    }
    if (!rows_grow(r)) {
        return umo_error_set(r->error, UMO_E_NOMEM, 0, "%s: no memory for %zu rows", r->name,
                             r->table.count + 1);
    }
    const size_t row = r->table.count;
    r->table.buffers[row] = (umo_plan_buffer){.align_bytes = 1};
    for (uint32_t k = 0; k < r->field_count; k++) {
        umo_status status = UMO_OK;
        if (r->columns[k] == COLUMN_ID) {
            r->table.ids[row] = r->fields[k];
            status = r->fields[k][0] == '\0' ? wrong(r, "an empty id", "") : UMO_OK;
        } else if (r->columns[k] != COLUMN_OTHER) {
            status = cell_read(r, r->columns[k], r->fields[k], row);
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    const umo_plan_buffer *b = &r->table.buffers[row];
    if (b->upper <= b->lower) {
        return umo_error_set(r->error, UMO_E_INVAL, 0,
                             "%s, line %zu: the lifetime of %.60s ends at %" PRId64
                             ", not after its begin, %" PRId64,
                             r->name, r->line, r->table.ids[row], b->upper, b->lower);
    }
    r->lines[row] = r->line;
    r->table.count++;
    return UMO_OK;
}

typedef struct named_line {
    const char *id;
    size_t line;
} named_line;

static int named_compare(const void *left, const void *right)
{
    const named_line *a = left;
    const named_line *b = right;
    const int order = strcmp(a->id, b->id);
    return order != 0 ? order : a->line < b->line ? -1 : a->line > b->line;
}

static umo_status ids_check(const reader *r)
{
    const size_t count = r->table.count;
    named_line *sorted = calloc(count + 1, sizeof *sorted);
    if (sorted == NULL) {
        return umo_error_set(r->error, UMO_E_NOMEM, 0, "%s: no memory for %zu ids", r->name, count);
    }
    for (size_t i = 0; i < count; i++) {
        sorted[i] = (named_line){r->table.ids[i], r->lines[i]};
    }
    qsort(sorted, count, sizeof *sorted, named_compare);
    umo_status status = UMO_OK;
    for (size_t i = 1; i < count && status == UMO_OK; i++) {
        if (strcmp(sorted[i - 1].id, sorted[i].id) == 0) {
            status = umo_error_set(r->error, UMO_E_INVAL, 0,
                                   "%s, line %zu: the id %.60s is that of line %zu too", r->name,
                                   sorted[i].line, sorted[i].id, sorted[i - 1].line);
        }
    }
    free(sorted);
    return status;
}

/* Takes the text over: size_bytes, and room for one more. */
static umo_status text_parse(char *text, size_t size_bytes, const char *name, umo_plan_table *out,
                             umo_error *error)
{
    static const char mark[] = "\xef\xbb\xbf"; /* which some programs put before UTF-8 */
    reader r = {.name = name,
                .at = text,
                .end = text + size_bytes,
                .line = 1,
                .line_now = 1,
                .table = {.text = text},
                .error = error};
    if (size_bytes >= 3 && memcmp(text, mark, 3) == 0) {
        r.at += 3;
    }
    umo_status status = header_read(&r);
    while (status == UMO_OK && row_read(&r, &status)) {
        status = row_take(&r);
    }
    if (status == UMO_OK) {
        status = ids_check(&r);
    }
    free(r.lines);
    if (status != UMO_OK) {
        umo_plan_table_finish(&r.table);
        return status;
    }
    *out = r.table;
    return UMO_OK;
}

umo_status umo_plan_table_parse(const char *csv, size_t size_bytes, const char *name,
                                umo_plan_table *out, umo_error *error)
{
    if (size_bytes > FILE_BYTES_MAX) {
        return umo_error_set(error, UMO_E_LIMIT, 0, "%s: longer than 1 GiB", name);
    }
    char *text = malloc(size_bytes + 1);
    if (text == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "%s: no memory for its text", name);
    }
    if (size_bytes > 0) {
        memcpy(text, csv, size_bytes);
    }
    return text_parse(text, size_bytes, name, out, error);
}

umo_status umo_plan_table_read(const char *path, umo_plan_table *out, umo_error *error)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        const int cause = errno;
        return umo_error_set(error, cause == ENOENT ? UMO_E_NOT_FOUND : UMO_E_SYSTEM, cause,
                             "%s: %s", path, strerror(cause));
    }
    size_t used = 0;
    size_t room = 65536;
    char *text = malloc(room);
    umo_status status = UMO_OK;
    while (text != NULL) {
        used += fread(text + used, 1, room - used, file);
        if (used < room) {
            break;
        }
        room *= 2;
        if (used > FILE_BYTES_MAX) {
            status = umo_error_set(error, UMO_E_LIMIT, 0, "%s: longer than 1 GiB", path);
            break;
        }
        char *grown = realloc(text, room);
        if (grown == NULL) {
            free(text);
        }
        text = grown;
    }
    if (text == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "%s: no memory for its text", path);
    } else if (status == UMO_OK && ferror(file) != 0) {
        const int cause = errno;
        status = umo_error_set(error, UMO_E_SYSTEM, cause, "%s: %s", path, strerror(cause));
    }
    (void)fclose(file);
    if (status != UMO_OK) {
        free(text);
        return status;
    }
    assert(text != NULL); /* or the status said why not */
    return text_parse(text, used, path, out, error);
}

/* ---- writing ---- */

typedef struct writer {
    umo_os_replace file;
    umo_status status;
    size_t used;
    char block[16384];
} writer;

static void put(writer *w, const char *text, size_t length)
{
    while (length > 0 && w->status == UMO_OK) {
        if (w->used == sizeof w->block) {
            w->status = umo_os_replace_write(&w->file, w->block, w->used);
            w->used = 0;
        }
        const size_t part = length < sizeof w->block - w->used ? length : sizeof w->block - w->used;
        memcpy(w->block + w->used, text, part);
        w->used += part;
        text += part;
        length -= part;
    }
}

static void put_id(writer *w, const char *id)
{
    if (strpbrk(id, ",\"\r\n") == NULL) {
        put(w, id, strlen(id));
        return;
    }
    put(w, "\"", 1);
    for (; *id != '\0'; id++) {
        put(w, *id == '"' ? "\"\"" : id, *id == '"' ? 2 : 1);
    }
    put(w, "\"", 1);
}

static void table_put(writer *w, const umo_plan_table *table)
{
    bool aligned = false;
    for (size_t i = 0; i < table->count; i++) {
        aligned = aligned || table->buffers[i].align_bytes > 1;
    }
    char row[128];
    int length = snprintf(row, sizeof row, "id,lower,upper,size%s%s\n", aligned ? ",alignment" : "",
                          table->offsets != NULL ? ",offset" : "");
    put(w, row, (size_t)length);
    for (size_t i = 0; i < table->count; i++) {
        const umo_plan_buffer *b = &table->buffers[i];
        put_id(w, table->ids[i]);
        length = snprintf(row, sizeof row, ",%" PRId64 ",%" PRId64 ",%" PRIu64, b->lower, b->upper,
                          b->size_bytes);
        if (aligned) {
            length += snprintf(row + length, sizeof row - (size_t)length, ",%" PRIu64,
                               b->align_bytes > 1 ? b->align_bytes : 1);
        }
        if (table->offsets != NULL) {
            length +=
                snprintf(row + length, sizeof row - (size_t)length, ",%" PRId64, table->offsets[i]);
        }
        row[length++] = '\n';
        put(w, row, (size_t)length);
    }
}

umo_status umo_plan_table_write(const umo_plan_table *table, const char *path, umo_error *error)
{
    writer *w = malloc(sizeof *w); /* a path and a block: too much for some stacks */
    if (w == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to write %s", path);
    }
    w->used = 0;
    w->status = umo_os_replace_begin(&w->file, path);
    if (w->status == UMO_OK) {
        table_put(w, table);
        if (w->status == UMO_OK && w->used > 0) {
            w->status = umo_os_replace_write(&w->file, w->block, w->used);
        }
        if (w->status == UMO_OK) {
            w->status = umo_os_replace_commit(&w->file);
        } else {
            umo_os_replace_cancel(&w->file);
        }
    }
    umo_status status = w->status;
    if (status == UMO_E_SYSTEM) {
        status = umo_error_set(error, status, w->file.cause, "%s cannot be %s: %s", path,
                               w->file.step, strerror(w->file.cause));
    } else if (status != UMO_OK) {
        status = umo_error_set(error, status, 0, "%s is no path that can be written to", path);
    }
    free(w);
    return status;
}

void umo_plan_table_finish(umo_plan_table *table)
{
    free(table->buffers);
    free(table->ids);
    free(table->offsets);
    free(table->text);
    *table = (umo_plan_table){0};
}
