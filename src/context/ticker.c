/*
 * A task of the keeper for those who stand outside of the library. It has no lock of its own: what
 * the keeper promises of its tasks is all that is promised of a ticker.
 */
#include "mem/keeper.h"
#include "os/os.h"

#include <umo/context.h>

#include <stdlib.h>

struct umo_ticker {
    umo_keeper_task task;
    umo_tick tick;
    void *user;
};

static uint64_t later(uint64_t now_ns, uint64_t delay_ns)
{
    return delay_ns < UINT64_MAX - now_ns ? now_ns + delay_ns : UINT64_MAX;
}

static uint64_t ticker_tick(umo_keeper_task *task, uint64_t now_ns)
{
    umo_ticker *ticker = UMO_LIST_ENTRY(task, umo_ticker, task);
    (void)now_ns; /* it may have been long ago when this one is done */
    uint64_t delay_ns = ticker->tick(ticker->user);
    return later(umo_os_now_ns(), delay_ns);
}

umo_status umo_ticker_start(umo_tick tick, void *user, uint64_t first_ns, umo_ticker **out,
                            umo_error *error)
{
    umo_ticker *ticker = calloc(1, sizeof *ticker);
    if (ticker == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a ticker");
    }
    ticker->task.tick = ticker_tick;
    ticker->tick = tick;
    ticker->user = user;
    umo_keeper_add(&ticker->task);
    umo_keeper_wake(&ticker->task, later(umo_os_now_ns(), first_ns));
    *out = ticker;
    return UMO_OK;
}

void umo_ticker_stop(umo_ticker *ticker)
{
    if (ticker == NULL) {
        return;
    }
    umo_keeper_remove(&ticker->task);
    free(ticker);
}
