/*
 * Gathering a batch's input into one piece of memory, and scattering an output from one. Small
 * tensors are copied request by request; large ones as one list, which the context's copier divides
 * among threads where that pays.
 */
#include "kit/kit.h"

#include <assert.h>
#include <string.h>

/* Below this the copier would copy alone anyway. */
#define LIST_BYTES ((size_t)256 << 10)
#define LIST_LENGTH 64

/* Ranges to be copied together; a full list is copied at once. */
typedef struct copy_list {
    umo_copier *copier;
    char *target; /* of the next piece of an input */
    size_t count;
    umo_copy copies[LIST_LENGTH];
} copy_list;

/* NULL copies on the caller's thread. */
static umo_copier *copier_of(const umo_model *model)
{
    return model->unified.parallel_copies ? umo_context_copier(model->context) : NULL;
}

static void list_flush(copy_list *list)
{
    umo_copier_run(list->copier, list->copies, list->count);
    list->count = 0;
}

static void list_add(copy_list *list, void *to, const void *from, size_t size_bytes)
{
    umo_copy *last = list->count > 0 ? &list->copies[list->count - 1] : NULL;
    if (last != NULL && (char *)last->to + last->size_bytes == (char *)to &&
        (const char *)last->from + last->size_bytes == (const char *)from) {
        last->size_bytes += size_bytes;
        return;
    }
    if (list->count == LIST_LENGTH) {
        list_flush(list);
    }
    list->copies[list->count++] = (umo_copy){to, from, size_bytes};
}

static umo_status list_piece(const void *data, size_t size_bytes, void *user)
{
    copy_list *list = user;
    list_add(list, list->target, data, size_bytes);
    list->target += size_bytes;
    return UMO_OK;
}

/* Adds one request's bytes to the list. What must not be touched is copied now. */
static umo_status input_list(copy_list *list, umo_instance *instance, kit_request *request,
                             kit_input *in, char *target, umo_error *why)
{
    if (in->data == NULL) {
        list->target = target;
        return kit_input_visit(instance, request, in, list_piece, list, why);
    }
    const kit_place *place = kit_input_place(instance, request, in);
    if (!place->guarded) {
        return kit_place_read(place, 0, target, (size_t)in->size_bytes, why);
    }
    list_add(list, target, place->data, (size_t)in->size_bytes);
    return UMO_OK;
}

/* Makes of any bytes `count` strings of as many bytes, the first ones as long as can be. */
static void strings_reframe(char *copy, uint64_t size_bytes, uint64_t count)
{
    assert(size_bytes / 4 >= count); /* each had its length there */
    uint64_t content = size_bytes - 4 * count;
    for (uint64_t s = 0; s < count; s++) {
        uint64_t length = content < UINT32_MAX ? content : UINT32_MAX;
        for (unsigned b = 0; b < 4; b++) {
            copy[b] = (char)(length >> (8 * b));
        }
        copy += 4 + length;
        content -= length;
    }
}

bool kit_strings_mend(char *copy, uint64_t size_bytes, uint64_t count)
{
    bool right = umo_bytes_check(copy, (size_t)size_bytes, count, NULL) == UMO_OK;
    if (!right) {
        strings_reframe(copy, size_bytes, count);
    }
    return right;
}

/* A client may have changed its strings since they were checked. Its request then fails alone: the
 * engine gets as many strings of as many bytes. */
static void strings_check_again(kit_request *request, const kit_input *in, char *copy)
{
    uint64_t count = 0;
    umo_status_ignore(umo_shape_count(&in->shape, &count));
    if (!kit_strings_mend(copy, in->size_bytes, count)) {
        (void)kit_request_fail(request, UMO_E_INVAL, "the strings of an input changed meanwhile");
    }
}

umo_status kit_batch_gather(umo_batch *batch, size_t input, size_t total, char *target,
                            umo_error *error)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    bool strings = model->inputs[input].dtype == UMO_BYTES;
    bool listed = total >= LIST_BYTES;
    copy_list list;
    list.copier = copier_of(model);
    list.count = 0;
    char *at = target;
    umo_status status = UMO_OK;
    for (size_t i = 0; i < batch->count && status == UMO_OK; i++) {
        kit_request *request = batch->members[i];
        kit_input *in = &request->inputs[input];
        umo_error why = {0};
        status = listed ? input_list(&list, instance, request, in, at, &why)
                        : kit_input_gather(instance, request, in, at, &why);
        if (status == UMO_E_INVAL) {
            /* Its client's doing: the others of the batch live, and the engine gets zeros. */
            (void)kit_request_fail(request, status, "input '%s': %s", model->inputs[input].name,
                                   why.text);
            list_flush(&list);
            memset(at, 0, (size_t)in->size_bytes);
            status = UMO_OK;
        } else if (status != UMO_OK) {
            (void)umo_error_set(error, status, 0, "%s", why.text);
        }
        at += in->size_bytes;
    }
    list_flush(&list);
    at = target;
    for (size_t i = 0; strings && i < batch->count && status == UMO_OK; i++) {
        const kit_input *in = &batch->members[i]->inputs[input];
        strings_check_again(batch->members[i], in, at);
        at += in->size_bytes;
    }
    return status;
}

/* Do two of a batch's responses share memory? Then they are written one after the other, so that
 * what stays is a whole answer. */
static bool responses_overlap(umo_batch *batch, size_t output)
{
    umo_instance *instance = batch->instance;
    for (size_t i = 1; i < batch->count; i++) {
        kit_request *request = batch->members[i];
        kit_output *out = &request->outputs[output];
        for (size_t k = 0; out->data != NULL && k < i; k++) {
            kit_request *other = batch->members[k];
            kit_output *before = &other->outputs[output];
            if (before->data != NULL &&
                kit_extents_overlap(&kit_output_place(instance, request, out)->extent,
                                    &kit_output_place(instance, other, before)->extent)) {
                return true;
            }
        }
    }
    return false;
}

/* Copies bytes into a response's memory, at once or by the list, and counts them. */
static void response_write(umo_batch *batch, kit_request *request, size_t output,
                           const void *source, size_t size_bytes, umo_reason reason,
                           copy_list *list)
{
    umo_instance *instance = batch->instance;
    const kit_place *place = kit_output_place(instance, request, &request->outputs[output]);
    umo_error why = {0};
    if (list != NULL && place->guarded) {
        list_add(list, place->data, source, size_bytes);
    } else if (kit_place_write(place, 0, source, size_bytes, &why) != UMO_OK) {
        (void)kit_request_fail(request, why.status, "output '%s': %s",
                               instance->model->outputs[output].name, why.text);
        return;
    }
    umo_scope_count_copy(instance->model->scope, UMO_DIRECTION_OUT, reason, size_bytes);
}

void kit_response_write(umo_batch *batch, kit_request *request, size_t output, const void *source,
                        size_t size_bytes, umo_reason reason)
{
    response_write(batch, request, output, source, size_bytes, reason, NULL);
}

void kit_batch_scatter(umo_batch *batch, size_t output, const char *source, size_t row_bytes,
                       umo_reason reason, bool own)
{
    const umo_model *model = batch->instance->model;
    size_t total = 0;
    for (size_t i = 0; i < batch->count; i++) {
        total += kit_output_bytes(model, batch->members[i], output, row_bytes);
    }
    copy_list list;
    list.copier = copier_of(model);
    list.count = 0;
    /* What is not ours may be a client's, and overlap what is written. */
    bool listed = own && total >= LIST_BYTES && !responses_overlap(batch, output);
    for (size_t i = 0; i < batch->count; i++) {
        kit_request *request = batch->members[i];
        size_t size_bytes = kit_output_bytes(model, request, output, row_bytes);
        if (request->outputs[output].data != NULL && request->error.status == UMO_OK &&
            size_bytes > 0) {
            response_write(batch, request, output, source, size_bytes, reason,
                           listed ? &list : NULL);
        }
        source += size_bytes;
    }
    list_flush(&list);
}
