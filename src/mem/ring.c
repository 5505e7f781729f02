/*
 * Rings: a segment in lanes, and which slots of it are out.
 *
 * A slot is a bit for each model, and the lowest free one is given out. Its memory is taken when it
 * is first given out, outside of the lock: the system zeroes it, which takes as long as it is
 * large. Until then it counts as out.
 */
#include <umo/ring.h>

#include "base/size.h"
#include "os/os.h"
#include "os/shared.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORD_BITS 64u

/* What the slots of one model are; the bits lie behind each other in umo_ring.bits. */
typedef struct ring_model {
    uint32_t slots;
    uint32_t words;
    uint64_t *out;
    uint64_t *lost;
    uint64_t *committed;
    uint32_t first_lane; /* lanes of a model need not be neighbours: the first one that is of it */
} ring_model;

struct umo_ring {
    char name[UMO_RING_NAME_BYTES];
    char key[UMO_RING_KEY_BYTES];
    unsigned char *base;
    size_t size_bytes;
    int file;
    pid_t maker;
    uint32_t lane_count;
    uint32_t model_count;
    umo_lane *lanes;
    ring_model *models;
    uint64_t *bits;
    char **words; /* two for each lane: model, tensor; all in one block behind them */
    pthread_mutex_t lock;
    pthread_cond_t given;
    bool hidden;
    umo_ring_stats stats;
};

static umo_status lane_refused(const umo_lane_spec *spec, const char *why, umo_error *error)
{
    return umo_error_set(error, UMO_E_INVAL, 0, "lane %s/%s: %s",
                         spec->model != NULL ? spec->model : "",
                         spec->tensor != NULL ? spec->tensor : "", why);
}

/* The model's number, found among the lanes before this one or new. */
static umo_status lane_model(const umo_lane_spec *specs, const umo_lane *lanes, uint32_t at,
                             uint32_t *models, uint32_t *out, umo_error *error)
{
    *out = *models;
    for (uint32_t i = 0; i < at; i++) {
        if (strcmp(specs[i].model, specs[at].model) != 0) {
            continue;
        }
        if (strcmp(specs[i].tensor, specs[at].tensor) == 0) {
            return lane_refused(&specs[at], "asked for twice", error);
        }
        if (specs[i].slots != specs[at].slots) {
            return lane_refused(&specs[at], "another lane of the model has more or fewer slots",
                                error);
        }
        *out = lanes[i].model;
    }
    *models += *out == *models ? 1 : 0;
    return UMO_OK;
}

umo_status umo_ring_layout(const umo_lane_spec *specs, uint32_t count, size_t page_bytes,
                           umo_lane *out_lanes, size_t *out_size_bytes, umo_error *error)
{
    if (specs == NULL || out_lanes == NULL || out_size_bytes == NULL || count == 0 ||
        count > UMO_RING_LANES || !umo_is_power_of_two(page_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a ring of %" PRIu32 " lanes on pages of %zu bytes", count,
                             page_bytes);
    }
    size_t offset_bytes = 0;
    uint32_t models = 0;
    for (uint32_t i = 0; i < count; i++) {
        const umo_lane_spec *spec = &specs[i];
        if (spec->model == NULL || spec->tensor == NULL) {
            return lane_refused(spec, "no name", error);
        }
        if (spec->tensor_bytes == 0 || spec->slots == 0) {
            return lane_refused(spec, "bytes and slots are at least 1", error);
        }
        umo_lane *lane = &out_lanes[i];
        lane->offset_bytes = offset_bytes;
        lane->stride_bytes = spec->tensor_bytes;
        lane->slots = spec->slots;
        umo_status status = lane_model(specs, out_lanes, i, &models, &lane->model, error);
        if (status != UMO_OK) {
            return status;
        }
        size_t size_bytes;
        if (__builtin_mul_overflow(spec->tensor_bytes, (size_t)spec->slots, &size_bytes) ||
            !umo_round_up(size_bytes, page_bytes, &size_bytes) ||
            __builtin_add_overflow(offset_bytes, size_bytes, &offset_bytes) ||
            (uint64_t)offset_bytes > UMO_RING_LARGEST_BYTES) {
            return lane_refused(spec, "the segment would be too large", error);
        }
    }
    *out_size_bytes = offset_bytes;
    return UMO_OK;
}

/* Copies the names, all of them into one block. */
static bool ring_keep_names(umo_ring *ring, const umo_lane_spec *specs)
{
    size_t text_bytes = 0;
    for (uint32_t i = 0; i < ring->lane_count; i++) {
        text_bytes += strlen(specs[i].model) + strlen(specs[i].tensor) + 2;
    }
    const size_t table_bytes = sizeof(char *) * 2 * ring->lane_count;
    ring->words = malloc(table_bytes + text_bytes);
    if (ring->words == NULL) {
        return false;
    }
    char *text = (char *)ring->words + table_bytes;
    for (uint32_t i = 0; i < 2 * ring->lane_count; i++) {
        const char *word = i % 2 == 0 ? specs[i / 2].model : specs[i / 2].tensor;
        const size_t word_bytes = strlen(word) + 1;
        ring->words[i] = memcpy(text, word, word_bytes);
        text += word_bytes;
    }
    return true;
}

/* Finds the models among the lanes and gives each its bits. */
static bool ring_make_models(umo_ring *ring)
{
    size_t words = 0;
    for (uint32_t i = 0; i < ring->lane_count; i++) {
        if (ring->lanes[i].model == ring->model_count) {
            ring->model_count++;
            words += ring->lanes[i].slots / WORD_BITS + 1;
        }
    }
    assert(words > 0); /* each lane has slots, and the first one's model is new */
    ring->models = calloc(ring->model_count, sizeof(*ring->models));
    ring->bits = calloc(words, 3 * sizeof(*ring->bits));
    if (ring->models == NULL || ring->bits == NULL) {
        return false;
    }
    uint64_t *bits = ring->bits;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < ring->lane_count; i++) {
        if (ring->lanes[i].model != seen) {
            continue;
        }
        ring_model *model = &ring->models[seen++];
        model->slots = ring->lanes[i].slots;
        model->words = model->slots / WORD_BITS + 1;
        model->first_lane = i;
        model->out = bits;
        model->lost = bits + model->words;
        model->committed = bits + (size_t)2 * model->words;
        bits += (size_t)3 * model->words;
    }
    return true;
}

/* A name that says whose it is, and a key that nobody can guess. */
static umo_status ring_name(umo_ring *ring, umo_error *error)
{
    uint64_t started;
    uint64_t random[2];
    if (!umo_os_process_started(&started)) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "this process's start time is unknown");
    }
    if (!umo_os_random(random, sizeof(random))) {
        return umo_error_set(error, UMO_E_SYSTEM, 0, "the system has no random bytes");
    }
    ring->maker = getpid();
    int written =
        snprintf(ring->name, sizeof(ring->name), "umo-%ld-%" PRIu64 "-%" PRIu64 "-%016" PRIx64,
                 (long)ring->maker, started, umo_os_process_namespace(), random[0]);
    bool whole = umo_os_written(ring->name, sizeof(ring->name), written);
    /* macOS takes 30 characters. */
    written = snprintf(ring->key, sizeof(ring->key) - 1, "/umo.%ld.%016" PRIx64, (long)ring->maker,
                       random[1]);
    whole = umo_os_written(ring->key, sizeof(ring->key) - 1, written) && whole;
    return whole ? UMO_OK : umo_error_set(error, UMO_E_SYSTEM, 0, "the pid is too long for a key");
}

static void ring_free(umo_ring *ring)
{
    free(ring->words);
    free(ring->bits);
    free(ring->models);
    free(ring->lanes);
    free(ring);
}

umo_status umo_ring_create(const umo_lane_spec *specs, uint32_t count, umo_ring **out,
                           umo_error *error)
{
    if (out == NULL || count == 0 || count > UMO_RING_LANES) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a ring of %" PRIu32 " lanes", count);
    }
    umo_ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a ring");
    }
    umo_status status = UMO_E_NOMEM;
    int cause = 0;
    void *base = NULL;
    ring->lane_count = count;
    ring->lanes = calloc(count, sizeof(*ring->lanes));
    if (ring->lanes == NULL) {
        goto no_memory;
    }
    status =
        umo_ring_layout(specs, count, umo_os_page_bytes(), ring->lanes, &ring->size_bytes, error);
    if (status != UMO_OK) {
        goto fail;
    }
    if (!ring_keep_names(ring, specs) || !ring_make_models(ring)) {
        goto no_memory;
    }
    status = ring_name(ring, error);
    if (status != UMO_OK) {
        goto fail;
    }
    status = umo_os_shared_create(ring->key, ring->size_bytes, &ring->file, &base, &cause);
    if (status != UMO_OK) {
        (void)umo_error_set(error, status, cause, "a segment of %zu bytes could not be made",
                            ring->size_bytes);
        goto fail;
    }
    ring->base = base;
    pthread_mutex_init(&ring->lock, NULL);
    umo_os_condition_init(&ring->given);
    *out = ring;
    return UMO_OK;

no_memory:
    status =
        umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a ring of %" PRIu32 " lanes", count);
fail:
    ring_free(ring);
    return status;
}

void umo_ring_hide(umo_ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    /* In a child of fork() the name is the parent's. */
    bool hides = !ring->hidden && ring->maker == getpid();
    ring->hidden = true;
    pthread_mutex_unlock(&ring->lock);
    if (hides) {
        umo_os_shared_hide(ring->key);
    }
}

void umo_ring_destroy(umo_ring *ring)
{
    if (ring == NULL) {
        return;
    }
    umo_ring_hide(ring);
    umo_os_shared_close(ring->file, ring->base, ring->size_bytes);
    umo_os_condition_finish(&ring->given);
    pthread_mutex_destroy(&ring->lock);
    ring_free(ring);
}

void umo_ring_describe(const umo_ring *ring, umo_ring_info *out)
{
    *out = (umo_ring_info){
        .name = ring->name, .key = ring->key, .base = ring->base, .size_bytes = ring->size_bytes};
}

umo_status umo_ring_lane(const umo_ring *ring, const char *model, const char *tensor, umo_lane *out)
{
    for (uint32_t i = 0; i < ring->lane_count; i++) {
        if (strcmp(ring->words[(size_t)2 * i], model) == 0 &&
            strcmp(ring->words[(size_t)2 * i + 1], tensor) == 0) {
            *out = ring->lanes[i];
            return UMO_OK;
        }
    }
    return UMO_E_NOT_FOUND;
}

static bool bit_get(const uint64_t *bits, uint32_t at)
{
    return (bits[at / WORD_BITS] >> (at % WORD_BITS) & 1u) != 0;
}

static void bit_set(uint64_t *bits, uint32_t at)
{
    bits[at / WORD_BITS] |= (uint64_t)1 << (at % WORD_BITS);
}

static void bit_clear(uint64_t *bits, uint32_t at)
{
    bits[at / WORD_BITS] &= ~((uint64_t)1 << (at % WORD_BITS));
}

/* The lowest slot that is not out. */
static bool model_lowest(const ring_model *model, uint32_t *out)
{
    for (uint32_t i = 0; i < model->words; i++) {
        if (~model->out[i] != 0) {
            *out = i * WORD_BITS + (uint32_t)__builtin_ctzll(~model->out[i]);
            return *out < model->slots;
        }
    }
    return false;
}

/* Takes memory for a slot in all lanes of its model. */
static umo_status ring_commit(const umo_ring *ring, uint32_t model, uint32_t slot,
                              size_t *out_bytes)
{
    size_t size_bytes = 0;
    for (uint32_t i = ring->models[model].first_lane; i < ring->lane_count; i++) {
        const umo_lane *lane = &ring->lanes[i];
        if (lane->model != model) {
            continue;
        }
        umo_status status =
            umo_os_shared_commit(ring->file, umo_lane_slot_offset(lane, slot), lane->stride_bytes);
        if (status != UMO_OK) {
            return status;
        }
        size_bytes += lane->stride_bytes;
    }
    *out_bytes = size_bytes;
    return UMO_OK;
}

/* With the lock held: gives the slot to whoever waits. */
static void ring_put(umo_ring *ring, ring_model *model, uint32_t slot)
{
    bit_clear(model->out, slot);
    ring->stats.out--;
    /* Who wakes may be waiting for another model. */
    pthread_cond_broadcast(&ring->given);
}

umo_status umo_ring_take(umo_ring *ring, uint32_t model_index, uint64_t timeout_ns,
                         uint32_t *out_slot)
{
    if (model_index >= ring->model_count) {
        return UMO_E_INVAL;
    }
    ring_model *model = &ring->models[model_index];
    uint64_t deadline_ns = UINT64_MAX;
    if (timeout_ns != UINT64_MAX &&
        __builtin_add_overflow(umo_os_now_ns(), timeout_ns, &deadline_ns)) {
        deadline_ns = UINT64_MAX;
    }
    uint32_t slot;
    pthread_mutex_lock(&ring->lock);
    while (!model_lowest(model, &slot)) {
        if (timeout_ns == 0) {
            pthread_mutex_unlock(&ring->lock);
            return UMO_E_LIMIT;
        }
        if (!umo_os_condition_wait_until(&ring->given, &ring->lock, deadline_ns) &&
            !model_lowest(model, &slot)) {
            pthread_mutex_unlock(&ring->lock);
            return UMO_E_TIMEOUT;
        }
    }
    bit_set(model->out, slot);
    ring->stats.out++;
    const bool committed = bit_get(model->committed, slot);
    pthread_mutex_unlock(&ring->lock);
    if (!committed) {
        size_t size_bytes = 0;
        umo_status status = ring_commit(ring, model_index, slot, &size_bytes);
        pthread_mutex_lock(&ring->lock);
        if (status == UMO_OK) {
            bit_set(model->committed, slot);
            ring->stats.committed_bytes += size_bytes;
        } else {
            ring_put(ring, model, slot);
        }
        pthread_mutex_unlock(&ring->lock);
        if (status != UMO_OK) {
            return status;
        }
    }
    *out_slot = slot;
    return UMO_OK;
}

/* With the lock held: the model of a slot that the caller has; NULL for a mistake. */
static ring_model *ring_held(umo_ring *ring, uint32_t model_index, uint32_t slot)
{
    if (model_index >= ring->model_count || slot >= ring->models[model_index].slots) {
        return NULL;
    }
    ring_model *model = &ring->models[model_index];
    return bit_get(model->out, slot) && !bit_get(model->lost, slot) ? model : NULL;
}

umo_status umo_ring_give(umo_ring *ring, uint32_t model_index, uint32_t slot)
{
    pthread_mutex_lock(&ring->lock);
    ring_model *model = ring_held(ring, model_index, slot);
    if (model != NULL) {
        ring_put(ring, model, slot);
    }
    pthread_mutex_unlock(&ring->lock);
    return model != NULL ? UMO_OK : UMO_E_INVAL;
}

umo_status umo_ring_lose(umo_ring *ring, uint32_t model_index, uint32_t slot)
{
    pthread_mutex_lock(&ring->lock);
    ring_model *model = ring_held(ring, model_index, slot);
    if (model != NULL) {
        bit_set(model->lost, slot);
        ring->stats.lost++;
    }
    pthread_mutex_unlock(&ring->lock);
    return model != NULL ? UMO_OK : UMO_E_INVAL;
}

void umo_ring_read(umo_ring *ring, umo_ring_stats *out)
{
    pthread_mutex_lock(&ring->lock);
    *out = ring->stats;
    pthread_mutex_unlock(&ring->lock);
}
