/*
 * See programs.h.
 */
#include "programs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Longer than any program that people write; keeps a wrong file from filling memory. */
#define PROGRAM_MAX_BYTES ((off_t)16 << 20)

/* A driver's language and its usual file. In the order in which a model that names no device
 * prefers them: a GPU's own driver first. */
typedef struct language {
    umo_program_language language;
    const char *driver;
    const char *file;
    const char *ending;
} language;

static const language languages[] = {
    {UMO_LANGUAGE_METAL, "metal", "model.metal", ".metal"},
    {UMO_LANGUAGE_CUDA, "cuda", "model.cu", ".cu"},
    {UMO_LANGUAGE_OPENCL_C, "opencl", "model.cl", ".cl"},
};

#define LANGUAGES (sizeof languages / sizeof languages[0])

/* A device without a language of ours compiles nothing by name, but takes a file that is named. */
static const language *find_language(umo_program_language wanted)
{
    size_t i = 0;
    while (i < LANGUAGES && languages[i].language != wanted) {
        i++;
    }
    return i < LANGUAGES ? &languages[i] : NULL;
}

/* The language that a file's name speaks of; NULL for another name. */
static const language *language_of(const char *file)
{
    const char *ending = strrchr(file, '.');
    for (size_t i = 0; ending != NULL && i < LANGUAGES; i++) {
        if (strcmp(ending, languages[i].ending) == 0) {
            return &languages[i];
        }
    }
    return NULL;
}

static bool is_in_folder(const umo_model *model, const char *file)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", umo_model_path(model), file) < 0) {
        return false;
    }
    const bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* OpenCL is never asked: opening it says as much, and some platforms do not bear being asked while
 * they are opened. */
static bool is_here(const language *which)
{
    uint32_t count = 0;
    return which->language == UMO_LANGUAGE_OPENCL_C ||
           (umo_driver_count(which->driver, &count, NULL) == UMO_OK && count > 0);
}

/* Whether every kernel has its text in a language. */
static bool has_text(const umo_model *model, const umo_description *description,
                     const language *with)
{
    for (size_t i = 0; i < description->stage_count; i++) {
        const char *file = description->stages[i].file;
        file = file != NULL ? file : umo_model_file(model, with->file);
        const language *said = language_of(file);
        if ((said != NULL && said != with) || !is_in_folder(model, file)) {
            return false;
        }
    }
    return true;
}

/* Of a model that names no device: the first driver that is here and has its text; else the first
 * that is here, which then says what it lacks. */
static const char *default_driver(const umo_model *model, const umo_description *description)
{
    const char *first = NULL;
    for (size_t i = 0; i < LANGUAGES; i++) {
        if (!is_here(&languages[i])) {
            continue;
        }
        if (has_text(model, description, &languages[i])) {
            return languages[i].driver;
        }
        first = first != NULL ? first : languages[i].driver;
    }
    return first;
}

umo_status umo_programs_device(umo_model *model, const umo_description *description,
                               umo_device **out, umo_error *error)
{
    const umo_unified_config *config = umo_model_unified(model);
    const bool named = config->driver[0] != '\0';
    const char *driver = named ? config->driver : default_driver(model, description);
    umo_error inner = {0};
    umo_status status = umo_context_device(umo_model_context(model), driver,
                                           named ? config->ordinal : 0, out, &inner);
    if (status == UMO_OK) {
        return UMO_OK;
    }
    for (size_t i = 0; i < LANGUAGES; i++) {
        if (status == UMO_E_NOT_FOUND && strcmp(languages[i].driver, driver) == 0 &&
            languages[i].language == UMO_LANGUAGE_CUDA) {
            return umo_error_set(error, status, inner.native,
                                 "the model asks for driver '%s', which this build of umo does not "
                                 "have, so '%s' is not compiled: %s",
                                 driver, languages[i].file, inner.text);
        }
    }
    return umo_error_set(error, status, inner.native, "%s", inner.text);
}

/* Which other languages' texts the folder has, for a message; "" if none. */
static void name_others(const umo_model *model, const language *own, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < LANGUAGES && used < bytes; i++) {
        if (&languages[i] != own && is_in_folder(model, languages[i].file)) {
            used += (size_t)snprintf(
                out + used, bytes - used, "; '%s' is there, but for driver '%s', which %s",
                languages[i].file, languages[i].driver,
                is_here(&languages[i]) ? "the model does not ask for" : "finds no device here");
        }
    }
}

static umo_status read_text(const umo_model *model, const char *file, const language *own,
                            char **out, size_t *out_bytes, umo_error *error)
{
    char *path = NULL;
    char *text = NULL;
    struct stat found;
    umo_status status = UMO_OK;
    int fd = -1;
    if (asprintf(&path, "%s/%s", umo_model_path(model), file) < 0) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the program's path");
    }
    /* Without O_NONBLOCK a FIFO of that name would stop the server here. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &found) != 0) {
        const int code = errno;
        char others[160];
        name_others(model, own, others, sizeof others);
        status =
            umo_error_set(error, code == ENOENT ? UMO_E_NOT_FOUND : UMO_E_SYSTEM, code,
                          "kernel file '%s' in folder %" PRIu64 " of the model: %s%s", file,
                          umo_model_version(model), strerror(code), code == ENOENT ? others : "");
        goto done;
    }
    if (!S_ISREG(found.st_mode) || found.st_size == 0 || found.st_size > PROGRAM_MAX_BYTES) {
        status =
            umo_error_set(error, UMO_E_INVAL, 0,
                          "kernel file '%s' is %s; a text of 1 byte to %d MiB is expected", file,
                          !S_ISREG(found.st_mode) ? "no plain file"
                          : found.st_size == 0    ? "empty"
                                                  : "too long",
                          (int)(PROGRAM_MAX_BYTES >> 20));
        goto done;
    }
    const size_t size_bytes = (size_t)found.st_size;
    text = malloc(size_bytes + 1);
    if (text == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the kernel file");
        goto done;
    }
    for (size_t had = 0; had < size_bytes;) {
        const ssize_t got = read(fd, text + had, size_bytes - had);
        if (got <= 0) {
            const int code = got < 0 ? errno : EIO;
            if (code == EINTR) {
                continue;
            }
            status = umo_error_set(error, UMO_E_SYSTEM, code, "kernel file '%s': %s", file,
                                   strerror(code));
            goto done;
        }
        had += (size_t)got;
    }
    text[size_bytes] = '\0';
    if (memchr(text, '\0', size_bytes) != NULL) {
        status = umo_error_set(error, UMO_E_INVAL, 0,
                               "kernel file '%s' is no text: it has a zero byte", file);
        goto done;
    }
    *out = text;
    *out_bytes = size_bytes;
    text = NULL;

done:
    free(text);
    free(path);
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

/* The stage before this one that has the same text and the same options; stage if none. */
static size_t same_program(const umo_programs *programs, const umo_description *description,
                           size_t stage)
{
    const char *options = description->stages[stage].options;
    for (size_t i = 0; i < stage; i++) {
        const char *other = description->stages[i].options;
        const bool same =
            options == NULL ? other == NULL : other != NULL && strcmp(options, other) == 0;
        if (same && strcmp(programs->files[i], programs->files[stage]) == 0) {
            return i;
        }
    }
    return stage;
}

/* The file of a stage's text: its own, else the device's usual one. */
static umo_status choose_file(const umo_model *model, const umo_device_info *info,
                              const umo_description *description, size_t stage, const char **out,
                              umo_error *error)
{
    const language *own = find_language(info->language);
    const char *file = description->stages[stage].file;
    if (file == NULL) {
        file = umo_model_file(model, own != NULL ? own->file : NULL);
    }
    if (file == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "parameter kernel: \"file\" is missing, and driver '%s' has no usual "
                             "name for it",
                             info->driver);
    }
    const language *said = language_of(file);
    if (said != NULL && own != NULL && said != own) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel file '%s' is for driver '%s', but the model runs on '%s', "
                             "whose files end in '%s'; nothing was compiled",
                             file, said->driver, info->driver, own->ending);
    }
    *out = file;
    return UMO_OK;
}

static umo_status compile(umo_model *model, umo_device *device, const char *file,
                          const char *options, umo_program **out, umo_error *error)
{
    umo_error inner = {0};
    char *text = NULL;
    size_t size_bytes = 0;
    umo_status status = read_text(model, file, find_language(umo_device_info_get(device)->language),
                                  &text, &size_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    const umo_program_source source = {
        .kind = UMO_PROGRAM_SOURCE, .text = text, .size_bytes = size_bytes, .options = options};
    status = umo_program_create(device, &source, out, &inner);
    free(text);
    return status == UMO_OK
               ? UMO_OK
               : umo_error_set(error, status, inner.native, "%s: %s", file, inner.text);
}

umo_status umo_programs_init(umo_model *model, umo_device *device,
                             const umo_description *description, umo_programs *out,
                             umo_error *error)
{
    *out = (umo_programs){.device = device};
    umo_status status = UMO_OK;
    for (size_t i = 0; i < description->stage_count && status == UMO_OK; i++) {
        status =
            choose_file(model, umo_device_info_get(device), description, i, &out->files[i], error);
        if (status != UMO_OK) {
            break;
        }
        const size_t same = same_program(out, description, i);
        if (same < i) {
            out->of[i] = out->of[same];
            continue;
        }
        out->of[i] = out->count;
        status = compile(model, device, out->files[i], description->stages[i].options,
                         &out->list[out->count], error);
        out->count += status == UMO_OK;
    }
    if (status != UMO_OK) {
        umo_programs_finish(out);
    }
    return status;
}

void umo_programs_finish(umo_programs *programs)
{
    for (size_t i = 0; i < programs->count; i++) {
        umo_program_destroy(programs->list[i]);
    }
    *programs = (umo_programs){0};
}

umo_status umo_programs_kernels(const umo_programs *programs, const umo_description *description,
                                umo_kernel **out, umo_error *error)
{
    umo_error inner = {0};
    for (size_t i = 0; i < description->stage_count; i++) {
        umo_status status = umo_kernel_create(programs->list[programs->of[i]],
                                              description->stages[i].function, &out[i], &inner);
        if (status != UMO_OK) {
            const char *file = programs->files[i];
            while (i-- > 0) {
                umo_kernel_destroy(out[i]);
                out[i] = NULL;
            }
            return umo_error_set(error, status, inner.native, "%s: %s", file, inner.text);
        }
    }
    return UMO_OK;
}

umo_status umo_programs_explain(const umo_programs *programs, const umo_description *description,
                                size_t stage, const umo_error *inner, umo_error *error)
{
    if (!description->listed) {
        return umo_error_set(error, inner->status, inner->native, "%s, kernel '%s': %s",
                             programs->files[0], description->stages[0].function, inner->text);
    }
    return stage < description->stage_count
               ? umo_error_set(error, inner->status, inner->native, "%s, kernels[%zu] '%s': %s",
                               programs->files[stage], stage, description->stages[stage].function,
                               inner->text)
               : umo_error_set(error, inner->status, inner->native, "parameter kernel: %s",
                               inner->text);
}
