/*
 * The error value and the names of results and reasons. No allocation, so that it works when memory
 * is out.
 */
#include <umo/reason.h>
#include <umo/status.h>

#include <stdarg.h>
#include <stdio.h>

typedef struct status_row {
    const char *name;
    const char *cause;
    const char *remedy;
} status_row;

static const status_row status_rows[] = {
#define UMO_STATUS(identifier, cause, remedy) {#identifier, cause, remedy},
#include <umo/statuses.inc>
#undef UMO_STATUS
};
UMO_STATIC_ASSERT(sizeof status_rows / sizeof *status_rows == UMO_STATUS_COUNT,
                  "a row for each status");

static const status_row *status_find(umo_status status)
{
    static const status_row unknown = {"UNKNOWN", "", ""};
    return (unsigned)status < UMO_STATUS_COUNT ? &status_rows[status] : &unknown;
}

const char *umo_status_name(umo_status status)
{
    return status_find(status)->name;
}

const char *umo_status_cause(umo_status status)
{
    return status_find(status)->cause;
}

const char *umo_status_remedy(umo_status status)
{
    return status_find(status)->remedy;
}

umo_status umo_error_set(umo_error *error, umo_status status, int32_t native, const char *format,
                         ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        /* One line: a compiler's log keeps its words, not its line breaks. */
        for (char *c = error->text; *c != '\0'; c++) {
            if (*c == '\n' || *c == '\r') {
                *c = ' ';
            }
        }
        error->status = status;
        error->native = native;
    }
    return status;
}

typedef struct reason_row {
    const char *label;
    const char *cause;
    const char *remedy;
} reason_row;

static const reason_row reason_rows[UMO_REASON_COUNT] = {
#define UMO_REASON(identifier, label, cause, remedy) {label, cause, remedy},
#include <umo/reasons.inc>
#undef UMO_REASON
};

static const reason_row *reason_find(umo_reason reason)
{
    static const reason_row unknown = {"unknown", "", ""};
    return (unsigned)reason < UMO_REASON_COUNT ? &reason_rows[reason] : &unknown;
}

const char *umo_reason_label(umo_reason reason)
{
    return reason_find(reason)->label;
}

const char *umo_reason_cause(umo_reason reason)
{
    return reason_find(reason)->cause;
}

const char *umo_reason_remedy(umo_reason reason)
{
    return reason_find(reason)->remedy;
}
