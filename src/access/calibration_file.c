/*
 * The files that remember measurements: one a device, text, named by a hash of what it is of.
 *
 * A file begins with all that it depends on, in words, so that a hash that meets another one does
 * no harm, and ends with a checksum over the rest, so that nothing in between has to be believed.
 * One that is wrong in any way is not there: it is measured again and replaced.
 */
#include "access/calibration.h"

#include "base/hash.h"
#include "os/os.h"
#include "os/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES 8192
#define SUM_LINE "sum "
#define SUM_BYTES (sizeof SUM_LINE - 1 + 16 + 1) /* 16 digits, end of line */

static uint64_t bytes_hash(uint64_t seed, const char *bytes, size_t size_bytes)
{
    for (size_t at = 0; at < size_bytes; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        size_t left = size_bytes - at;
        memcpy(&word, bytes + at, left < sizeof word ? left : sizeof word);
        seed = umo_hash_mix(seed, word);
    }
    return umo_hash_mix(seed, size_bytes);
}

bool umo_calibration_key_make(const umo_device_info *info, const char *folder, bool no_files,
                              umo_calibration_key *out)
{
    bool delayed = strcmp(info->driver, "host") == 0 && (info->caps & UMO_CAP_ASYNC) != 0;
    char release[256] = "unknown";
    (void)umo_os_release(release, sizeof release);
    int written =
        snprintf(out->text, sizeof out->text,
                 "umo calibration 1\ndriver %s\ndevice %s\nfamily %s\ncan %" PRIx32
                 "\nsystem %s\nlibrary %s\n",
                 info->driver, info->name, info->family, info->caps, release, UMO_VERSION);
    out->path[0] = '\0';
    if (!umo_os_written(out->text, sizeof out->text, written) || delayed ||
        (info->caps & UMO_CAP_POISON) != 0) {
        return false;
    }
    char caches[PATH_MAX];
    if (no_files || (folder == NULL && !umo_os_cache_dir(caches, sizeof caches))) {
        return true;
    }
    size_t length = strlen(out->text);
    written =
        snprintf(out->path, sizeof out->path, "%s/calibration-%016" PRIx64 "%016" PRIx64 ".txt",
                 folder != NULL ? folder : caches, bytes_hash(1, out->text, length),
                 bytes_hash(2, out->text, length));
    (void)umo_os_written(out->path, sizeof out->path, written);
    return true;
}

/* ---- reading ---- */

/* A file's bytes, ended by a zero; 0 if there is none, or a longer one than we write. */
static size_t file_load(const char *path, char out[FILE_BYTES])
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return 0;
    }
    size_t size = 0;
    ssize_t got;
    do {
        got = read(file, out + size, FILE_BYTES - size);
        size += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && size < FILE_BYTES) || (got < 0 && errno == EINTR));
    (void)close(file);
    if (got != 0) {
        return 0;
    }
    out[size] = '\0';
    return size;
}

/* One line "WORD A B LATENCY BYTES_S" at *at, which is moved behind it. */
static bool rate_parse(const char **at, const char *word, int a, int b, umo_rate *out)
{
    char want[32];
    int length = snprintf(want, sizeof want, "%s %d %d ", word, a, b);
    int used = 0;
    /* The sum over the whole file was right: the numbers are ours. NOLINTBEGIN(cert-err34-c) */
    if (strncmp(*at, want, (size_t)length) != 0 ||
        sscanf(*at + length, "%" SCNu64 " %" SCNu64 "%n", &out->latency_ns, &out->bytes_s, &used) !=
            2 ||
        (*at)[length + used] != '\n') {
        return false;
    }
    /* NOLINTEND(cert-err34-c) */
    *at += length + used + 1;
    return true;
}

static bool model_parse(const char *at, umo_cost_model *out)
{
    int used = 0;
    /* As above. NOLINTNEXTLINE(cert-err34-c) */
    if (sscanf(at, "measured %" SCNd64 " modes %" SCNu32 "%n", &out->measured_s, &out->modes,
               &used) != 2 ||
        at[used] != '\n') {
        return false;
    }
    at += used + 1;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (int t = 0; t < UMO_TRAFFICS; t++) {
            if (!rate_parse(&at, "use", mode, t, &out->use[mode][t])) {
                return false;
            }
        }
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            if (!rate_parse(&at, "move", mode, to, &out->move[mode][to])) {
                return false;
            }
        }
    }
    return *at == '\0';
}

static void sum_line(const char *text, size_t size_bytes, char out[SUM_BYTES + 1])
{
    (void)snprintf(out, SUM_BYTES + 1, SUM_LINE "%016" PRIx64 "\n",
                   bytes_hash(3, text, size_bytes));
}

bool umo_calibration_read(const umo_calibration_key *key, umo_cost_model *out)
{
    char text[FILE_BYTES + 1];
    char sum[SUM_BYTES + 1];
    size_t key_bytes = strlen(key->text);
    size_t size = key->path[0] != '\0' ? file_load(key->path, text) : 0;
    if (size < key_bytes + SUM_BYTES || memcmp(text, key->text, key_bytes) != 0) {
        return false;
    }
    size -= SUM_BYTES;
    sum_line(text, size, sum);
    if (memcmp(text + size, sum, SUM_BYTES) != 0) {
        return false;
    }
    text[size] = '\0';
    umo_cost_model model = {.source = UMO_COST_CACHED};
    if (!model_parse(text + key_bytes, &model)) {
        return false;
    }
    *out = model;
    return true;
}

/* ---- writing ---- */

/* Text under way; full once something did not fit. */
typedef struct text_out {
    char text[FILE_BYTES];
    size_t used;
    bool full;
} text_out;

static void rate_print(text_out *out, const char *word, int a, int b, umo_rate rate)
{
    size_t left = sizeof out->text - out->used;
    int written = snprintf(out->text + out->used, left, "%s %d %d %" PRIu64 " %" PRIu64 "\n", word,
                           a, b, rate.latency_ns, rate.bytes_s);
    out->full = out->full || !umo_os_written(out->text + out->used, left, written);
    out->used += out->full ? 0 : (size_t)written;
}

static bool model_print(const umo_calibration_key *key, const umo_cost_model *model, text_out *out)
{
    int written =
        snprintf(out->text, sizeof out->text, "%smeasured %" PRId64 " modes %" PRIu32 "\n",
                 key->text, model->measured_s, model->modes);
    out->full = !umo_os_written(out->text, sizeof out->text, written);
    out->used = out->full ? 0 : (size_t)written;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (int t = 0; t < UMO_TRAFFICS; t++) {
            rate_print(out, "use", mode, t, model->use[mode][t]);
        }
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            rate_print(out, "move", mode, to, model->move[mode][to]);
        }
    }
    if (out->full || sizeof out->text - out->used <= SUM_BYTES) {
        return false;
    }
    sum_line(out->text, out->used, out->text + out->used);
    out->used += SUM_BYTES;
    return true;
}

/* Makes the file's folder, and the one above it: a user may have none yet. */
static void folder_make(const char *path)
{
    char folder[PATH_MAX];
    memcpy(folder, path, strlen(path) + 1);
    char *cut = strrchr(folder, '/');
    if (cut == NULL || cut == folder) {
        return;
    }
    *cut = '\0';
    char *above = strrchr(folder, '/');
    if (above != NULL && above != folder) {
        *above = '\0';
        (void)mkdir(folder, 0700);
        *above = '/';
    }
    (void)mkdir(folder, 0700);
}

void umo_calibration_write(const umo_calibration_key *key, const umo_cost_model *model)
{
    text_out out = {.used = 0};
    umo_os_replace file;
    if (key->path[0] == '\0' || !model_print(key, model, &out)) {
        return;
    }
    folder_make(key->path);
    if (umo_os_replace_begin(&file, key->path) != UMO_OK) {
        return;
    }
    if (umo_os_replace_write(&file, out.text, out.used) == UMO_OK) {
        umo_status_ignore(umo_os_replace_commit(&file));
    } else {
        umo_os_replace_cancel(&file);
    }
}
