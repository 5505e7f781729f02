/*
 * The one place where umo's results and the server's errors are turned into each other.
 */
#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>

static TRITONSERVER_Error_Code code_of(umo_status status)
{
    switch (status) {
    case UMO_OK:
        return TRITONSERVER_ERROR_UNKNOWN;
    case UMO_E_INVAL:
        return TRITONSERVER_ERROR_INVALID_ARG;
    case UMO_E_NOT_FOUND:
        return TRITONSERVER_ERROR_NOT_FOUND;
    case UMO_E_NOMEM:
    case UMO_E_LIMIT:
    case UMO_E_BUSY:
    case UMO_E_TIMEOUT:
        return TRITONSERVER_ERROR_UNAVAILABLE;
    case UMO_E_UNSUPPORTED:
    case UMO_E_REFUSED:
        return TRITONSERVER_ERROR_UNSUPPORTED;
    case UMO_E_DEVICE:
    case UMO_E_SYSTEM:
        return TRITONSERVER_ERROR_INTERNAL;
    }
    return TRITONSERVER_ERROR_UNKNOWN;
}

TRITONSERVER_Error *kit_error(umo_status status, const char *text)
{
    return TRITONSERVER_ErrorNew(code_of(status), text);
}

TRITONSERVER_Error *kit_error_cancelled(const char *text)
{
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_CANCELLED, text);
}

static umo_status status_of(TRITONSERVER_Error_Code code)
{
    switch (code) {
    case TRITONSERVER_ERROR_INVALID_ARG:
    case TRITONSERVER_ERROR_ALREADY_EXISTS:
        return UMO_E_INVAL;
    case TRITONSERVER_ERROR_NOT_FOUND:
        return UMO_E_NOT_FOUND;
    case TRITONSERVER_ERROR_UNAVAILABLE:
    case TRITONSERVER_ERROR_CANCELLED:
        return UMO_E_BUSY;
    case TRITONSERVER_ERROR_UNSUPPORTED:
        return UMO_E_UNSUPPORTED;
    case TRITONSERVER_ERROR_UNKNOWN:
    case TRITONSERVER_ERROR_INTERNAL:
        return UMO_E_SYSTEM;
    }
    return UMO_E_SYSTEM;
}

umo_status kit_from_triton(TRITONSERVER_Error *triton, umo_error *error)
{
    if (triton == NULL) {
        return UMO_OK;
    }
    umo_status status = umo_error_set(error, status_of(TRITONSERVER_ErrorCode(triton)), 0, "%s",
                                      TRITONSERVER_ErrorMessage(triton));
    TRITONSERVER_ErrorDelete(triton);
    return status;
}

umo_status kit_request_fail(kit_request *request, umo_status status, const char *format, ...)
{
    /* The first failure is the cause; what follows is its consequence. */
    if (request->error.status == UMO_OK) {
        char text[UMO_ERROR_TEXT_BYTES];
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        (void)umo_error_set(&request->error, status, 0, "%s", text);
    }
    return status;
}
