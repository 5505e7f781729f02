/*
 * The recorder's table as a file.
 *
 * Names come from models and may be hostile: they are always quoted (RFC 4180), a name that a
 * spreadsheet would run as a formula gets an apostrophe in front, and bytes that are no UTF-8 or
 * steer a terminal become question marks. All else is numbers and words of our own.
 */
#include "os/replace.h"
#include "trace/trace.h"

#include <string.h>

#define BLOCK_BYTES 16384u
/* Longer than any line: 12 numbers of 20 digits, the words, two names of 63 bytes, all quotes. */
#define LINE_BYTES 1024u

static const char columns[] =
    "time_ns,kind,events,thread,scope,scope_name,device,driver,buffer,mode,mode_before,side,use,"
    "direction,offset_bytes,size_bytes,duration_ns,queue,fence,reason,detail,status\n";

typedef struct table {
    umo_os_replace file;
    umo_status status;
    size_t used;
    char block[BLOCK_BYTES];
} table;

const char *umo_event_kind_name(umo_event_kind kind)
{
    static const char *const kinds[UMO_EVENT_KINDS] = {
        [UMO_EVENT_NONE] = "none",
        [UMO_EVENT_ALLOC] = "alloc",
        [UMO_EVENT_FREE] = "free",
        [UMO_EVENT_IMPORT] = "import",
        [UMO_EVENT_IMPORT_HIT] = "import_hit",
        [UMO_EVENT_RELEASE] = "release",
        [UMO_EVENT_ACCESS_BEGIN] = "access_begin",
        [UMO_EVENT_ACCESS_END] = "access_end",
        [UMO_EVENT_ACCESS_ABORT] = "access_abort",
        [UMO_EVENT_TRANSFER_PERFORMED] = "transfer_performed",
        [UMO_EVENT_TRANSFER_ELIMINATED] = "transfer_eliminated",
        [UMO_EVENT_COPY] = "copy",
        [UMO_EVENT_COPY_AVOIDED] = "copy_avoided",
        [UMO_EVENT_MOVE] = "move",
        [UMO_EVENT_PREFETCH] = "prefetch",
        [UMO_EVENT_PIN] = "pin",
        [UMO_EVENT_UNPIN] = "unpin",
        [UMO_EVENT_EXPORT_BEGIN] = "export_begin",
        [UMO_EVENT_EXPORT_END] = "export_end",
        [UMO_EVENT_POOL_HIT] = "pool_hit",
        [UMO_EVENT_POOL_MISS] = "pool_miss",
        [UMO_EVENT_POOL_GIVE] = "pool_give",
        [UMO_EVENT_POOL_TRIM] = "pool_trim",
        [UMO_EVENT_PRESSURE_LEVEL] = "pressure_level",
        [UMO_EVENT_PRESSURE_ANSWER] = "pressure_answer",
        [UMO_EVENT_POOL_TAKE] = "pool_take",
        [UMO_EVENT_PATTERN] = "pattern",
        [UMO_EVENT_PLACEMENT] = "placement",
        [UMO_EVENT_REQUEST] = "request",
        [UMO_EVENT_BATCH] = "batch",
        [UMO_EVENT_NUMA_MOVE] = "numa_move",
    };
    return (unsigned)kind < UMO_EVENT_KINDS ? kinds[kind] : "unknown";
}

static void block_write(table *t)
{
    if (t->status == UMO_OK && t->used > 0) {
        t->status = umo_os_replace_write(&t->file, t->block, t->used);
    }
    t->used = 0;
}

static void put(table *t, const char *text)
{
    const size_t length = strlen(text);
    memcpy(t->block + t->used, text, length);
    t->used += length;
}

static void put_char(table *t, char c)
{
    t->block[t->used++] = c;
}

static void put_number(table *t, uint64_t number)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0) {
        put_char(t, digits[--count]);
    }
}

/* Nothing for 0, which no thread, scope, device or buffer has. */
static void put_identity(table *t, uint64_t number)
{
    if (number != 0) {
        put_number(t, number);
    }
}

static void put_choice(table *t, const char *const *words, size_t count, unsigned choice)
{
    if (choice < count && words[choice] != NULL) {
        put(t, words[choice]);
    }
}

/* Bytes of the UTF-8 character at text; 0 if there is none. Overlong forms, surrogates and what
 * lies beyond U+10FFFF are none. */
static size_t character_bytes(const unsigned char *text)
{
    static const struct {
        unsigned char first, last, second_first, second_last;
        unsigned char bytes;
    } forms[] = {
        {0x20, 0x7E, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
        {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
        {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (text[0] < forms[i].first || text[0] > forms[i].last) {
            continue;
        }
        if (forms[i].bytes > 1 &&
            (text[1] < forms[i].second_first || text[1] > forms[i].second_last)) {
            return 0;
        }
        for (size_t next = 2; next < forms[i].bytes; next++) {
            if ((text[next] & 0xC0) != 0x80) {
                return 0;
            }
        }
        /* U+0080 to U+009F steer terminals as well. */
        return text[0] == 0xC2 && text[1] < 0xA0 ? 0 : forms[i].bytes;
    }
    return 0;
}

/* Spreadsheets take these, also behind spaces, for the start of a formula; some of them the wide
 * forms of Asian scripts too. */
static bool starts_formula(const char *name)
{
    static const char *const wide[] = {"\xef\xbc\x9d", "\xef\xbc\x8b", "\xef\xbc\x8d",
                                       "\xef\xbc\xa0"};
    name += strspn(name, " ");
    bool starts = name[0] != '\0' && strchr("=+-@\t\r\n", name[0]) != NULL;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        starts = starts || strncmp(name, wide[i], 3) == 0;
    }
    return starts;
}

static void put_name(table *t, const char *name)
{
    if (name[0] == '\0') {
        return;
    }
    put_char(t, '"');
    if (starts_formula(name)) {
        put_char(t, '\'');
    }
    for (const unsigned char *c = (const unsigned char *)name; *c != '\0';) {
        const size_t bytes = character_bytes(c);
        if (bytes == 0) {
            put_char(t, '?');
            c++;
            continue;
        }
        if (*c == '"') {
            put_char(t, '"');
        }
        memcpy(t->block + t->used, c, bytes);
        t->used += bytes;
        c += bytes;
    }
    put_char(t, '"');
}

static bool event_put(const umo_profile_event *e, void *user)
{
    static const char *const modes[] = {"unified", "managed", "private"};
    static const char *const sides[] = {NULL, "host", "device"};
    static const char *const uses[] = {NULL, "read", "write", "read_write"};
    static const char *const directions[] = {NULL, "in", "out"};
    table *t = user;
    if (t->used + LINE_BYTES > sizeof t->block) {
        block_write(t);
    }
    put_number(t, e->time_ns);
    put_char(t, ',');
    put(t, umo_event_kind_name((umo_event_kind)e->kind));
    put(t, ",1,");
    put_identity(t, e->thread);
    put_char(t, ',');
    put_identity(t, e->scope);
    put_char(t, ',');
    put_name(t, e->scope_name);
    put_char(t, ',');
    put_identity(t, e->device);
    put_char(t, ',');
    put_name(t, e->driver);
    put_char(t, ',');
    put_identity(t, e->buffer);
    put_char(t, ',');
    put_choice(t, modes, 3, e->mode);
    put_char(t, ',');
    put_choice(t, modes, 3, e->mode_before);
    put_char(t, ',');
    put_choice(t, sides, 3, e->side);
    put_char(t, ',');
    put_choice(t, uses, 4, e->use);
    put_char(t, ',');
    put_choice(t, directions, 3, e->direction);
    const uint64_t numbers[] = {e->offset_bytes, e->size_bytes, e->duration_ns, e->queue,
                                e->fence_value};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        put_char(t, ',');
        put_number(t, numbers[i]);
    }
    put_char(t, ',');
    put(t, e->reason != UMO_REASON_NONE ? umo_reason_label((umo_reason)e->reason) : "");
    put_char(t, ',');
    put_number(t, e->detail);
    put_char(t, ',');
    put(t, umo_status_name((umo_status)e->status));
    put_char(t, '\n');
    return t->status == UMO_OK;
}

/* How many are missing is known only when the rest was read, so this line is the last. */
static void lost_put(table *t, const umo_profile_stats *stats)
{
    block_write(t);
    put(t, "0,lost,");
    put_number(t, stats->lost);
    put(t, ",,,,,,,,,,,,0,0,0,0,0,,");
    put_number(t, stats->names_lost);
    put(t, ",OK\n");
    block_write(t);
}

umo_status umo_profile_dump(const char *path, umo_error *error)
{
    table t;
    umo_profile_stats stats;
    if (umo_profile_read(NULL, NULL, NULL) != UMO_OK) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "nothing was recorded yet");
    }
    t.status = umo_os_replace_begin(&t.file, path);
    if (t.status == UMO_E_INVAL) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the profile needs a path that is not too long");
    }
    t.used = 0;
    if (t.status == UMO_OK) {
        put(&t, columns);
        umo_status_ignore(umo_profile_read(event_put, &t, &stats));
        lost_put(&t, &stats);
        if (t.status == UMO_OK) {
            t.status = umo_os_replace_commit(&t.file);
        } else {
            umo_os_replace_cancel(&t.file);
        }
    }
    if (t.status == UMO_OK) {
        return UMO_OK;
    }
    return umo_error_set(error, UMO_E_SYSTEM, t.file.cause, "the profile could not be %s: %s",
                         t.file.step, strerror(t.file.cause));
}
