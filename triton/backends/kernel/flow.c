/*
 * Who writes and who reads what: the kernels run in their order, so one walk over them tells.
 *
 * An output or an intermediate is written before it is read, because its memory holds what somebody
 * else left there. That is checked for each as a whole: whether a kernel writes every element is
 * its author's word, as for outputs.
 */
#include "reader.h"

#include <stdio.h>

typedef struct walk {
    const umo_reader *r;
    char where[UMO_WHERE_BYTES]; /* of the kernel at hand */
    size_t stage;
} walk;

/* Whether a kernel before this one writes the tensor. */
static bool is_written_before(const umo_description *d, size_t stage, umo_argument_kind kind,
                              size_t tensor)
{
    for (size_t s = 0; s < stage; s++) {
        for (size_t i = 0; i < d->stages[s].argument_count; i++) {
            const umo_argument *other = &d->stages[s].arguments[i];
            if (other->kind == kind && other->tensor == tensor && other->writes) {
                return true;
            }
        }
    }
    return false;
}

static umo_status take_argument(walk *w, size_t index, umo_argument *argument)
{
    char place[UMO_WHERE_BYTES];
    umo_description *d = w->r->out;
    umo_intermediate *between = NULL;
    const char *what = "output";
    const char *name = NULL;
    if (argument->kind == UMO_ARGUMENT_INTERMEDIATE) {
        between = &d->intermediates[argument->tensor];
        what = "intermediate";
        name = between->name;
    } else if (argument->kind == UMO_ARGUMENT_OUTPUT) {
        name = w->r->model->outputs[argument->tensor].name;
    } else {
        return UMO_OK;
    }
    const bool written = is_written_before(d, w->stage, argument->kind, argument->tensor);
    argument->first = argument->writes && !written;
    if (argument->reads && !written && (between == NULL || !between->clear)) {
        return umo_reader_complain(w->r, umo_reader_join_at(place, w->where, "arguments", index),
                                   "reads %s '%s', which no kernel before has written%s", what,
                                   name, between != NULL ? "; \"clear\": true gives zeros" : "");
    }
    if (between != NULL) {
        between->read = between->read || argument->reads || argument->scratch;
        between->first_stage = between->first_stage < w->stage ? between->first_stage : w->stage;
        between->last_stage = w->stage;
    }
    return UMO_OK;
}

static umo_status take_stage(walk *w)
{
    umo_stage *stage = &w->r->out->stages[w->stage];
    bool writes = false;
    for (size_t i = 0; i < stage->argument_count; i++) {
        umo_status status = take_argument(w, i, &stage->arguments[i]);
        if (status != UMO_OK) {
            return status;
        }
        writes = writes || stage->arguments[i].writes;
    }
    /* A tensor that nobody writes is named below; this is for a kernel beside others. */
    return writes || !w->r->out->listed
               ? UMO_OK
               : umo_reader_complain(w->r, w->where, "the kernel writes nothing");
}

static bool is_bound(const umo_description *d, umo_argument_kind kind, size_t tensor)
{
    for (size_t s = 0; s < d->stage_count; s++) {
        for (size_t i = 0; i < d->stages[s].argument_count; i++) {
            const umo_argument *argument = &d->stages[s].arguments[i];
            if (argument->kind == kind && argument->tensor == tensor) {
                return true;
            }
        }
    }
    return false;
}

/* A tensor that no kernel sees is a mistake in one of the two lists. */
static umo_status bound_check(const umo_reader *r)
{
    const umo_description_tensors *model = r->model;
    const char *where = r->out->listed ? "kernels" : "arguments";
    for (size_t i = 0; i < model->input_count; i++) {
        if (!is_bound(r->out, UMO_ARGUMENT_INPUT, i)) {
            return umo_reader_complain(r, where, "no argument binds the model's input '%s'",
                                       model->inputs[i].name);
        }
    }
    for (size_t i = 0; i < model->output_count; i++) {
        if (!is_bound(r->out, UMO_ARGUMENT_OUTPUT, i)) {
            return umo_reader_complain(r, where, "no argument binds the model's output '%s'",
                                       model->outputs[i].name);
        }
    }
    for (size_t i = 0; i < r->out->intermediate_count; i++) {
        if (!is_bound(r->out, UMO_ARGUMENT_INTERMEDIATE, i)) {
            return umo_reader_complain(r, where, "no argument binds the intermediate '%s'",
                                       r->out->intermediates[i].name);
        }
    }
    return UMO_OK;
}

umo_status umo_reader_flow(const umo_reader *r)
{
    walk w = {.r = r};
    umo_status status = bound_check(r);
    for (size_t i = 0; i < r->out->intermediate_count; i++) {
        r->out->intermediates[i].first_stage = r->out->stage_count;
    }
    for (; status == UMO_OK && w.stage < r->out->stage_count; w.stage++) {
        if (r->out->listed) {
            (void)umo_reader_join_at(w.where, "", "kernels", w.stage);
        }
        status = take_stage(&w);
    }
    return status;
}
