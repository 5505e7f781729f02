/*
 * The host side of memory that a driver keeps on its device alone: made when it is first needed.
 *
 * Ordinary PRIVATE memory gets fresh pages. Movable memory has had its addresses from the start
 * (home), so that a move can put pages behind them and take them away while everybody keeps the
 * address; there the host side is pages at home. Either is charged while it is there.
 */
#include "mem/events.h"

#include "base/scope.h"
#include "mem/page_lock.h"
#include "os/os.h"

static void pages_give(umo_buffer *buffer, void *pages)
{
    if (buffer->home != NULL) {
        umo_os_pages_decommit(buffer->home, buffer->home_bytes);
    } else {
        umo_os_pages_free(pages, buffer->size_bytes);
    }
}

umo_status umo_host_side_make(umo_buffer *buffer, umo_error *error)
{
    if (buffer->memory.host != NULL || buffer->shadow != NULL) {
        return UMO_OK;
    }
    if (!umo_scope_charge(buffer->scope, buffer->size_bytes)) {
        return umo_error_set(error, UMO_E_LIMIT, 0,
                             "a host side of %zu bytes would pass the budget of '%s'",
                             buffer->size_bytes, umo_scope_name(buffer->scope));
    }
    void *pages = buffer->home;
    if (pages == NULL) {
        pages = umo_os_pages_alloc(buffer->size_bytes);
    } else if (!umo_os_pages_commit(pages, buffer->home_bytes)) {
        /* Part of it may have been put there. */
        umo_os_pages_decommit(pages, buffer->home_bytes);
        pages = NULL;
    }
    umo_status status = UMO_OK;
    if (pages == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a host side of %zu bytes",
                               buffer->size_bytes);
    } else if (buffer->pins > 0) {
        status = umo_page_lock(pages, buffer->size_bytes, error);
        if (status != UMO_OK) {
            pages_give(buffer, pages);
        }
    }
    if (status != UMO_OK) {
        umo_scope_uncharge(buffer->scope, buffer->size_bytes);
        return status;
    }
    umo_scope_count_alloc(buffer->scope, buffer->size_bytes);
    buffer->charged_bytes += buffer->size_bytes;
    buffer->shadow = pages;
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_ALLOC, .side = UMO_SIDE_HOST,
                     .size_bytes = buffer->size_bytes);
    return UMO_OK;
}

void umo_host_side_drop(umo_buffer *buffer)
{
    if (buffer->shadow != NULL) {
        pages_give(buffer, buffer->shadow);
        buffer->shadow = NULL;
        buffer->charged_bytes -= buffer->size_bytes;
        umo_scope_uncharge(buffer->scope, buffer->size_bytes);
        UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_FREE, .side = UMO_SIDE_HOST,
                         .size_bytes = buffer->size_bytes);
    }
}

void umo_host_side_unlock(umo_buffer *buffer)
{
    void *host = umo_host_side(buffer);
    if (host != NULL) {
        umo_page_unlock(host, buffer->size_bytes);
    }
}

void umo_host_side_finish(umo_buffer *buffer)
{
    if (buffer->home != NULL) {
        umo_os_pages_free(buffer->home, buffer->home_bytes);
    } else if (buffer->shadow != NULL) {
        umo_os_pages_free(buffer->shadow, buffer->size_bytes);
    }
}
