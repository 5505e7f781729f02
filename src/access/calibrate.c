/*
 * What a device costs, known: by this process, by a file, or by measuring now.
 *
 * A measurement is remembered twice. The file saves later processes the time; the table saves this
 * one from measuring at every call where no file can be written, as in a container whose disk is
 * read-only.
 */
#include "access/calibration.h"

#include "driver/device.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUDGET_NS ((uint64_t)80000000)
#define AGE_MAX_S ((int64_t)30 * 24 * 3600)
#define KNOWN_MAX 8

typedef struct known_device {
    char text[sizeof((umo_calibration_key *)NULL)->text]; /* empty: a free entry */
    umo_cost_model model;
} known_device;

/* Held while a device is measured: two that measure at once would measure each other. */
static pthread_mutex_t measure_lock = PTHREAD_MUTEX_INITIALIZER;

static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static known_device known[KNOWN_MAX];
static size_t known_next; /* the entry to give up when all are taken */

/* A child of fork() finds the table whole, and nobody measuring: who did is not there. */
static void fork_prepare(void)
{
    (void)pthread_mutex_lock(&known_lock);
}

static void fork_parent(void)
{
    (void)pthread_mutex_unlock(&known_lock);
}

static void fork_child(void)
{
    (void)pthread_mutex_unlock(&known_lock);
    (void)pthread_mutex_init(&measure_lock, NULL);
}

static void fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* A measurement from the future is one of a clock that was wrong. */
static bool fresh(const umo_cost_model *model, int64_t age_max_s)
{
    int64_t age_s = (int64_t)time(NULL) - model->measured_s;
    return age_s >= 0 && age_s <= age_max_s;
}

static bool known_find(const umo_calibration_key *key, umo_cost_model *out)
{
    bool found = false;
    (void)pthread_mutex_lock(&known_lock);
    for (size_t i = 0; i < KNOWN_MAX && !found; i++) {
        found = known[i].text[0] != '\0' && strcmp(known[i].text, key->text) == 0;
        if (found) {
            *out = known[i].model;
        }
    }
    (void)pthread_mutex_unlock(&known_lock);
    return found;
}

static void known_keep(const umo_calibration_key *key, const umo_cost_model *model)
{
    (void)pthread_mutex_lock(&known_lock);
    size_t at = known_next;
    for (size_t i = 0; i < KNOWN_MAX; i++) {
        if (strcmp(known[i].text, key->text) == 0) {
            at = i;
            break;
        }
    }
    memcpy(known[at].text, key->text, sizeof known[at].text);
    known[at].model = *model;
    known_next = at == known_next ? (known_next + 1) % KNOWN_MAX : known_next;
    (void)pthread_mutex_unlock(&known_lock);
}

/* From the table or the file. */
static bool recall(const umo_calibration_key *key, int64_t age_max_s, umo_cost_model *out)
{
    if (known_find(key, out) && fresh(out, age_max_s)) {
        out->source = UMO_COST_CACHED;
        return true;
    }
    if (umo_calibration_read(key, out) && fresh(out, age_max_s)) {
        out->source = UMO_COST_CACHED;
        known_keep(key, out);
        return true;
    }
    return false;
}

/* What the operator says wins over what the program says. */
static void environment_read(umo_calibrate_options *options)
{
    const char *wish = getenv("UMO_CALIBRATION");
    if (wish != NULL) {
        options->off = options->off || strcmp(wish, "off") == 0;
        options->redo = options->redo || strcmp(wish, "redo") == 0;
        options->no_files = options->no_files || strcmp(wish, "no-files") == 0;
    }
}

umo_status umo_device_calibrate(umo_device *device, const umo_calibrate_options *options,
                                umo_cost_model *out, umo_error *error)
{
    umo_calibrate_options how = options != NULL ? *options : (umo_calibrate_options){0};
    environment_read(&how);
    if (how.age_max_s < 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a measurement's age is not negative");
    }
    int64_t age_max_s = how.age_max_s != 0 ? how.age_max_s : AGE_MAX_S;
    uint64_t budget_ns = how.budget_ns != 0 ? how.budget_ns : BUDGET_NS;
    umo_calibration_key key;
    bool kept = umo_calibration_key_make(&device->info, how.folder, how.no_files, &key);
    if (kept && (!how.redo || how.off) && recall(&key, age_max_s, out)) {
        return UMO_OK;
    }
    if (how.off) {
        umo_cost_model_assume(&device->info, out);
        return UMO_OK;
    }
    umo_cost_model model;
    umo_status status = UMO_OK;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, fork_register);
    (void)pthread_mutex_lock(&measure_lock);
    /* Somebody may have measured it while we waited for our turn. */
    bool found = kept && !how.redo && recall(&key, age_max_s, &model);
    if (!found) {
        status = umo_calibration_measure(device, budget_ns, &model, error);
        model.measured_s = (int64_t)time(NULL);
        if (status == UMO_OK && kept) {
            known_keep(&key, &model);
        }
    }
    (void)pthread_mutex_unlock(&measure_lock);
    if (status != UMO_OK) {
        return status;
    }
    if (kept && !found && !model.disturbed) {
        umo_calibration_write(&key, &model);
    }
    *out = model;
    return UMO_OK;
}
