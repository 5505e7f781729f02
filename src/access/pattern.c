/*
 * Patterns: what the figures of a buffer's uses say about how it is used.
 *
 * Everything is decided by shares of recent bytes, because bytes are what a placement costs; counts
 * say only whether there is evidence, and whether the sides take turns. Each rule has two forms:
 * the strict one to come to a pattern, the loose one to stay. docs/patterns.md has the definitions.
 */
#include <umo/access.h>

#include "mem/buffer.h"
#include "mem/events.h"
#include "mem/record.h"

#include <stdlib.h>
#include <string.h>

/* Fewer accesses say nothing; a declared pattern stands until there are more. */
#define ACCESSES_LEAST 8.0
#define ACCESSES_TO_OVERRULE 32.0

/* Limits of a rule: to enter a pattern, and to stay in it. */
typedef struct limits {
    double dominant;     /* least share of a dominant side's bytes */
    double balanced;     /* least share of the lesser side's bytes */
    double stream_match; /* least ratio of bytes read there to bytes written here, or its inverse */
    double stream_rest;  /* most of the bytes that do neither */
    double stream_turns; /* least changes of side an access */
} limits;

static const limits enter = {0.80, 0.30, 0.60, 0.15, 1.0 / 8};
static const limits stay = {0.70, 0.20, 0.40, 0.25, 1.0 / 16};

const char *umo_pattern_name(umo_pattern pattern)
{
    static const char *const names[UMO_PATTERNS] = {"unknown", "cpu_dominant", "gpu_dominant",
                                                    "balanced", "streaming"};
    return (unsigned)pattern < UMO_PATTERNS ? names[pattern] : names[0];
}

static double side_bytes(const umo_side_stats *side)
{
    return side->recent_read_bytes + side->recent_write_bytes;
}

/* Do these two bytes counts make one stream from the writer to the reader? */
static bool streams(const umo_access_stats *stats, const umo_side_stats *writer,
                    const umo_side_stats *reader, const limits *limit)
{
    double written = writer->recent_write_bytes;
    double read = reader->recent_read_bytes;
    double all = side_bytes(&stats->host) + side_bytes(&stats->device);
    double less = written < read ? written : read;
    double more = written < read ? read : written;
    return less >= limit->stream_match * more && all - less - more <= limit->stream_rest * all &&
           stats->recent_turns >= limit->stream_turns * stats->recent_accesses;
}

static bool is_streaming(const umo_access_stats *stats, const limits *limit)
{
    return streams(stats, &stats->host, &stats->device, limit) ||
           streams(stats, &stats->device, &stats->host, limit);
}

umo_pattern umo_pattern_classify(const umo_access_stats *stats, umo_pattern before)
{
    if (stats->declared != UMO_PATTERN_UNKNOWN) {
        if (stats->recent_accesses < ACCESSES_TO_OVERRULE) {
            return stats->declared;
        }
        before = before == UMO_PATTERN_UNKNOWN ? stats->declared : before;
    }
    double host = side_bytes(&stats->host);
    double device = side_bytes(&stats->device);
    if (stats->recent_accesses < ACCESSES_LEAST || host + device <= 0) {
        return before;
    }
    if (is_streaming(stats, before == UMO_PATTERN_STREAMING ? &stay : &enter)) {
        return UMO_PATTERN_STREAMING;
    }
    double all = host + device;
    double lesser = host < device ? host : device;
    double greater = host < device ? device : host;
    if ((before == UMO_PATTERN_CPU_DOMINANT && host >= stay.dominant * all) ||
        (before == UMO_PATTERN_GPU_DOMINANT && device >= stay.dominant * all) ||
        (before == UMO_PATTERN_BALANCED && lesser >= stay.balanced * all)) {
        return before;
    }
    /* Between the limits it is what it is nearer to. */
    double limit = (enter.dominant + (1 - enter.balanced)) / 2;
    if (greater < limit * all) {
        return UMO_PATTERN_BALANCED;
    }
    return device > host ? UMO_PATTERN_GPU_DOMINANT : UMO_PATTERN_CPU_DOMINANT;
}

umo_pattern umo_buffer_pattern(umo_buffer *buffer)
{
    umo_access_stats stats;
    umo_buffer_stats(buffer, &stats);
    const umo_pattern before = umo_record_pattern(buffer);
    umo_pattern pattern = umo_pattern_classify(&stats, before);
    umo_record_pattern_set(buffer, pattern);
    if (pattern != before) {
        UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_PATTERN,
                         .size_bytes = umo_buffer_size(buffer),
                         .detail = (uint32_t)pattern | (uint32_t)before << 8);
    }
    return pattern;
}

void umo_buffer_visit(const umo_scope *scope, bool (*visit)(umo_buffer *buffer, void *user),
                      void *user)
{
    uint32_t cursor = 0;
    umo_buffer *buffer;
    bool more = true;
    while (more && (buffer = umo_record_next(&cursor, scope)) != NULL) {
        more = visit(buffer, user);
        umo_buffer_release(buffer);
    }
}

/* Memory that buffers share. */
typedef struct piece {
    const umo_buffer *buffer;
    uint64_t size_bytes;
    umo_storage_mode mode;
} piece;

typedef struct summing {
    umo_access_summary *sum;
    piece *pieces;
    size_t count;
    size_t room;
} summing;

/* Notes it; false when there is no memory for that. Those of one piece mostly come together. */
static bool piece_note(summing *s, const umo_buffer *buffer, umo_storage_mode mode)
{
    if (s->count > 0 && s->pieces[s->count - 1].buffer == buffer) {
        return true;
    }
    if (s->count == s->room) {
        const size_t room = s->room == 0 ? 16 : s->room * 2;
        piece *pieces = realloc(s->pieces, room * sizeof *pieces);
        if (pieces == NULL) {
            return false;
        }
        s->pieces = pieces;
        s->room = room;
    }
    s->pieces[s->count++] = (piece){buffer, umo_buffer_size(buffer), mode};
    return true;
}

static int piece_compare(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const piece *)a)->buffer;
    const uintptr_t y = (uintptr_t)((const piece *)b)->buffer;
    return (x > y) - (x < y);
}

static bool summary_add(umo_buffer *buffer, void *user)
{
    summing *s = user;
    umo_access_summary *sum = s->sum;
    const umo_buffer *shares = umo_buffer_piece(buffer);
    const uint64_t size_bytes = umo_buffer_size(buffer);
    const umo_storage_mode mode = umo_buffer_mode(buffer);
    sum->buffers++;
    sum->bytes += size_bytes;
    sum->wrapped_bytes += umo_buffer_wrapped_bytes(buffer);
    if (shares == NULL || !piece_note(s, shares, mode)) {
        sum->mode_bytes[mode] += size_bytes;
    }
    sum->pattern_bytes[umo_buffer_pattern(buffer)] += size_bytes;
    return true;
}

void umo_access_summarize(const umo_scope *scope, umo_access_summary *out)
{
    summing s = {.sum = out};
    memset(out, 0, sizeof *out);
    umo_buffer_visit(scope, summary_add, &s);
    if (s.count > 0) {
        qsort(s.pieces, s.count, sizeof *s.pieces, piece_compare);
    }
    for (size_t i = 0; i < s.count; i++) {
        if (i == 0 || s.pieces[i].buffer != s.pieces[i - 1].buffer) {
            out->mode_bytes[s.pieces[i].mode] += s.pieces[i].size_bytes;
        }
    }
    free(s.pieces);
}
