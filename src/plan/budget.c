/*
 * See budget.h.
 */
#include "plan/budget.h"

#include "os/os.h"

/* Steps between two looks at the clock: some 50 us. */
#define LOOK_WORK 32768u
#define NODES_DEFAULT 1000000u

void umo_plan_options_init(umo_plan_options *options)
{
    *options = (umo_plan_options){.time_limit_ns = UINT64_C(1000000000)};
}

void umo_plan_budget_start(plan_budget *budget, const umo_plan_options *options)
{
    *budget = (plan_budget){.options = options,
                            .start_ns = umo_os_now_ns(),
                            .deadline_ns = UINT64_MAX,
                            .node_limit = UINT64_MAX,
                            .look_at = LOOK_WORK,
                            .progress = {.peak_bytes = -1}};
    if (options->time_limit_ns != 0 &&
        options->time_limit_ns <= UINT64_MAX - 1 - budget->start_ns) {
        budget->deadline_ns = budget->start_ns + options->time_limit_ns;
    }
    if (options->node_limit != 0) {
        budget->node_limit = options->node_limit;
    } else if (options->time_limit_ns == 0) {
        budget->node_limit = NODES_DEFAULT;
    }
}

void umo_plan_budget_look(plan_budget *budget)
{
    budget->look_at = budget->work + LOOK_WORK;
    const uint64_t now = umo_os_now_ns();
    if (now >= budget->deadline_ns) {
        budget->over = true;
    }
    const umo_plan_options *options = budget->options;
    if (options->progress != NULL && !budget->interrupted) {
        budget->progress.nodes = budget->nodes;
        budget->progress.time_ns = now - budget->start_ns;
        if (!options->progress(&budget->progress, options->user)) {
            budget->interrupted = true;
            budget->over = true;
        }
    }
}
