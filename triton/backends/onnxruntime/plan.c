/* Decides once, at load, how each output's shape can be told from a request's inputs.
 *
 * Names are trusted only as far as one request bears them out: where two inputs of one name differ
 * (broadcasting allows it), the name says nothing for that request and ONNX Runtime is left to
 * allocate. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static size_t find_symbol(const ort_plan *plan, const char *name)
{
    size_t i = 0;
    while (i < plan->symbol_count && strcmp(plan->symbols[i], name) != 0) {
        i++;
    }
    return i;
}

static size_t count_named_dims(const ort_bound *inputs, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        for (uint32_t d = 0; d < inputs[i].spec->shape.rank; d++) {
            total += inputs[i].spec->symbols[d] != NULL;
        }
    }
    return total;
}

static void add_sources(ort_plan *plan, const ort_spec *spec, size_t input)
{
    for (uint32_t d = 0; d < spec->shape.rank; d++) {
        if (spec->symbols[d] == NULL) {
            continue;
        }
        size_t symbol = find_symbol(plan, spec->symbols[d]);
        if (symbol == plan->symbol_count) {
            plan->symbols[plan->symbol_count++] = spec->symbols[d];
        }
        plan->sources[plan->source_count++] =
            (ort_source){.symbol = symbol, .input = input, .dim = d};
    }
}

static ort_dim plan_dim(const ort_plan *plan, const ort_bound *output, uint32_t d, bool batches)
{
    const ort_spec *spec = output->spec;
    if (batches && d == 0 && !output->whole) {
        return (ort_dim){.kind = ORT_DIM_ROWS};
    }
    if (spec->shape.dims[d] >= 0) {
        return (ort_dim){.kind = ORT_DIM_FIXED, .value = spec->shape.dims[d]};
    }
    int64_t configured = output->whole ? -1 : output->io->dims.dims[d - (batches ? 1 : 0)];
    if (configured >= 0) {
        return (ort_dim){.kind = ORT_DIM_FIXED, .value = configured};
    }
    size_t symbol =
        spec->symbols[d] != NULL ? find_symbol(plan, spec->symbols[d]) : plan->symbol_count;
    if (symbol < plan->symbol_count) {
        return (ort_dim){.kind = ORT_DIM_SYMBOL, .symbol = symbol};
    }
    return (ort_dim){.kind = ORT_DIM_UNKNOWN};
}

static ort_output_plan plan_output(const ort_plan *plan, const ort_bound *output, bool batches)
{
    const ort_spec *spec = output->spec;
    /* Rank 0 is also what ONNX Runtime says of a tensor whose rank the model does not tell. */
    ort_output_plan result = {.possible = spec->dtype != UMO_BYTES && spec->shape.rank > 0 &&
                                          !output->kept_private,
                              .rank = spec->shape.rank};
    for (uint32_t d = 0; result.possible && d < result.rank; d++) {
        result.dims[d] = plan_dim(plan, output, d, batches);
        result.possible = result.dims[d].kind != ORT_DIM_UNKNOWN;
    }
    return result;
}

umo_status ort_plan_make(const ort_bound *inputs, size_t input_count, const ort_bound *outputs,
                         size_t output_count, bool batches, bool symbolic, ort_plan *out,
                         umo_error *error)
{
    size_t named = symbolic ? count_named_dims(inputs, input_count) : 0;
    ort_plan plan = {.output_count = output_count};
    /* One more than needed: calloc(0) may return NULL. */
    plan.outputs = calloc(output_count + 1, sizeof *plan.outputs);
    plan.sources = calloc(named + 1, sizeof *plan.sources);
    plan.symbols = calloc(named + 1, sizeof *plan.symbols);
    if (plan.outputs == NULL || plan.sources == NULL || plan.symbols == NULL) {
        ort_plan_finish(&plan);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to plan the outputs");
    }
    for (size_t i = 0; symbolic && i < input_count; i++) {
        add_sources(&plan, inputs[i].spec, i);
    }
    for (size_t i = 0; i < output_count; i++) {
        plan.outputs[i] = plan_output(&plan, &outputs[i], batches);
    }
    *out = plan;
    return UMO_OK;
}

void ort_plan_finish(ort_plan *plan)
{
    free(plan->outputs);
    free(plan->sources);
    free(plan->symbols);
    *plan = (ort_plan){0};
}

void ort_plan_values(const ort_plan *plan, const umo_tensor *inputs, int64_t *values)
{
    enum {
        UNSEEN = -2,
        CONTRADICTED = -1
    };
    for (size_t i = 0; i < plan->symbol_count; i++) {
        values[i] = UNSEEN;
    }
    for (size_t i = 0; i < plan->source_count; i++) {
        const ort_source *source = &plan->sources[i];
        const umo_tensor *input = &inputs[source->input];
        if (input->dtype == UMO_DTYPE_INVALID || source->dim >= input->shape.rank) {
            continue;
        }
        int64_t *value = &values[source->symbol];
        int64_t seen = input->shape.dims[source->dim];
        *value = *value == UNSEEN || *value == seen ? seen : CONTRADICTED;
    }
}

bool ort_plan_shape(const ort_plan *plan, size_t output, int64_t rows, const int64_t *values,
                    umo_shape *out)
{
    const ort_output_plan *from = &plan->outputs[output];
    if (!from->possible) {
        return false;
    }
    for (uint32_t d = 0; d < from->rank; d++) {
        if (from->dims[d].kind == ORT_DIM_SYMBOL && values[from->dims[d].symbol] < 0) {
            return false;
        }
    }
    out->rank = from->rank;
    for (uint32_t d = 0; d < from->rank; d++) {
        const ort_dim *dim = &from->dims[d];
        out->dims[d] = dim->kind == ORT_DIM_ROWS     ? rows
                       : dim->kind == ORT_DIM_SYMBOL ? values[dim->symbol]
                                                     : dim->value;
    }
    return true;
}
