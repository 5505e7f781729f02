/*
 * Programs and kernels of the Metal driver.
 *
 * An argument's place follows from its position: what is not work-group memory takes the buffer
 * indices 0, 1, 2 ... in order, which is also what Metal gives to arguments without an attribute;
 * work-group memory takes the threadgroup indices. What a kernel expects is read by reflection,
 * since Metal itself checks nothing unless its validation layer is on.
 *
 * Metal compiles twice: text to a library, a function to the GPU's code. The second is kept on disk
 * in a binary archive. Nothing that goes wrong with the archive ever fails a kernel.
 */
#include "driver/metal/metal_state.h"

#include "base/hash.h"
#include "base/size.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Metal's limit of buffer arguments. */
#define BUFFERS_MAX 31u

/* Work-group memory comes in these steps. */
#define LOCAL_ALIGN 16u

typedef struct program {
    umo_id library;
    umo_id archive;       /* NULL: no cache */
    char path[600];       /* of the archive */
    pthread_mutex_t lock; /* the archive is changed by one thread at a time */
} program;

typedef struct argument {
    bool known;
    bool read_only;
    size_t size_bytes; /* of the value, or of an element */
    size_t align_bytes;
} argument;

typedef struct kernel {
    umo_id pipeline;
    char *name;
    size_t buffer_count;
    argument buffers[BUFFERS_MAX];
    size_t local_count;
    size_t threads_max;
    size_t width;
    size_t local_static_bytes;
} kernel;

/* ---- words ---- */

void umo_metal_error_text(const umo_metal_api *api, umo_id error, char *out, size_t out_bytes)
{
    umo_id text = UMO_METAL_SEND0(api, error_text, error);
    const char *from = text != NULL ? UMO_METAL_SEND0(api, string_text, text) : NULL;
    if (from == NULL) {
        (void)snprintf(out, out_bytes, "Metal says nothing more");
        return;
    }
    /* From the first line that names an error; a log begins with a heading. */
    const char *found = strstr(from, "error:");
    if (found != NULL) {
        while (found > from && found[-1] != '\n') {
            found--;
        }
        from = found;
    }
    size_t length = 0;
    for (; *from != '\0' && length + 1 < out_bytes; from++) {
        bool blank = isspace((unsigned char)*from) != 0;
        if (!blank || (length > 0 && out[length - 1] != ' ')) {
            out[length++] = blank ? ' ' : *from;
        }
    }
    out[length > 0 && out[length - 1] == ' ' ? length - 1 : length] = '\0';
}

/* ---- programs ---- */

/*
 * The compiler's options as Metal has them: -DNAME[=VALUE] become lines in front of the text, fast
 * mathematics a flag. Writes what is in front, NUL-terminated; false for an option that is none.
 */
static bool options_translate(const char *options, char *out, size_t out_bytes, bool *fast)
{
    size_t length = 0;
    out[0] = '\0';
    *fast = false;
    while (options != NULL && *options != '\0') {
        size_t word = strcspn(options, " \t");
        if (word == 0) {
            options++;
            continue;
        }
        if (strncmp(options, "-D", 2) == 0 && word > 2) {
            const char *name = options + 2;
            size_t name_length = strcspn(name, "= \t");
            size_t value_length = word - 2 - name_length;
            const char *value = value_length > 0 ? name + name_length + 1 : "1";
            int value_shown = value_length > 0 ? (int)value_length - 1 : 1;
            int written = snprintf(out + length, out_bytes - length, "#define %.*s %.*s\n",
                                   (int)name_length, name, value_shown, value);
            if (written < 0 || (size_t)written >= out_bytes - length) {
                return false;
            }
            length += (size_t)written;
        } else if ((word == strlen("-ffast-math") && strncmp(options, "-ffast-math", word) == 0) ||
                   (word == strlen("-cl-fast-relaxed-math") &&
                    strncmp(options, "-cl-fast-relaxed-math", word) == 0)) {
            *fast = true;
        } else {
            return false;
        }
        options += word;
    }
    /* The compiler's messages count the lines of the user's text. */
    static const char restart[] = "#line 1\n";
    if (length > 0) {
        if (sizeof restart > out_bytes - length) {
            return false;
        }
        memcpy(out + length, restart, sizeof restart);
    }
    return true;
}

static umo_id library_make(umo_metal_state *state, const char *text, bool fast, umo_error *error)
{
    const umo_metal_api *api = state->api;
    umo_id string = UMO_METAL_SEND(api, string_make, api->classes.string, text);
    umo_id options = UMO_METAL_SEND0(api, new_object, api->classes.compile_options);
    umo_id library = NULL;
    umo_id why = NULL;
    if (string == NULL) {
        (void)umo_error_set(error, UMO_E_INVAL, 0, "the program's text is not UTF-8");
    } else if (options == NULL) {
        (void)umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a program");
    } else {
        UMO_METAL_SEND(api, compile_fast_math, options, fast);
        library = UMO_METAL_SEND(api, new_library, state->device, string, options, &why);
        if (library == NULL) {
            char words[UMO_ERROR_TEXT_BYTES];
            umo_metal_error_text(api, why, words, sizeof words);
            (void)umo_error_set(error, UMO_E_INVAL, (int32_t)UMO_METAL_SEND0(api, error_code, why),
                                "the program does not build: %s", words);
        }
    }
    UMO_METAL_SEND0(api, release, options);
    return library;
}

static uint64_t text_hash(uint64_t seed, const char *text)
{
    uint64_t word = 0;
    size_t length = strlen(text);
    for (size_t at = 0; at < length; at += sizeof word) {
        word = 0;
        memcpy(&word, text + at, length - at < sizeof word ? length - at : sizeof word);
        seed = umo_hash_mix(seed, word);
    }
    return umo_hash_mix(seed, length);
}

/* The archive's file: one for each text, device and system. False when there is no cache. */
static bool archive_path(const umo_metal_state *state, const char *text, bool fast, char *out,
                         size_t out_bytes)
{
    char release[256];
    if (state->cache_dir[0] == '\0' || !umo_os_release(release, sizeof release)) {
        return false;
    }
    uint64_t device = text_hash(text_hash(fast ? 2 : 1, state->name), release);
    int written = snprintf(out, out_bytes, "%s/metal-%016llx%016llx.archive", state->cache_dir,
                           (unsigned long long)text_hash(device, text),
                           (unsigned long long)text_hash(~device, text));
    return written > 0 && (size_t)written < out_bytes;
}

/* Autoreleased; NULL when Foundation gives none, which takes no nil. */
static umo_id file_url(const umo_metal_api *api, const char *path)
{
    umo_id string = UMO_METAL_SEND(api, string_make, api->classes.string, path);
    return string != NULL ? UMO_METAL_SEND(api, url_make, api->classes.url, string) : NULL;
}

/* The archive of the file, or an empty one; NULL when Metal gives neither. */
static umo_id archive_open(const umo_metal_state *state, const char *path)
{
    const umo_metal_api *api = state->api;
    umo_id archive = NULL;
    umo_id why = NULL;
    for (int empty = access(path, R_OK) != 0; empty < 2 && archive == NULL; empty++) {
        umo_id descriptor = UMO_METAL_SEND0(api, new_object, api->classes.archive_descriptor);
        if (empty == 0) {
            UMO_METAL_SEND(api, archive_describe_url, descriptor, file_url(api, path));
        }
        if (descriptor != NULL) {
            archive = UMO_METAL_SEND(api, new_archive, state->device, descriptor, &why);
        }
        UMO_METAL_SEND0(api, release, descriptor);
    }
    return archive;
}

/* Makes the cache's folder, and the one above it: a user may have none yet. */
static void cache_make(const umo_metal_state *state)
{
    char above[sizeof state->cache_dir];
    memcpy(above, state->cache_dir, sizeof above);
    char *cut = strrchr(above, '/');
    if (cut != NULL && cut != above) {
        *cut = '\0';
        (void)mkdir(above, 0700);
    }
    (void)mkdir(state->cache_dir, 0700);
}

/* Writes the archive beside its place and moves it there, so that nobody reads half of one. */
static void archive_write(const umo_metal_state *state, const program *owner)
{
    static _Atomic unsigned written; /* two programs of one text have one file */
    const umo_metal_api *api = state->api;
    char beside[sizeof owner->path + 48];
    umo_id why = NULL;
    cache_make(state);
    (void)snprintf(beside, sizeof beside, "%s.%ld.%u", owner->path, (long)getpid(),
                   atomic_fetch_add_explicit(&written, 1, memory_order_relaxed));
    umo_id url = file_url(api, beside);
    if (url == NULL || !UMO_METAL_SEND(api, archive_write, owner->archive, url, &why) ||
        rename(beside, owner->path) != 0) {
        (void)unlink(beside);
    }
}

umo_status umo_metal_program_create(void *opaque, const umo_program_source *source, void **out,
                                    umo_error *error)
{
    umo_metal_state *state = opaque;
    if (source->kind != UMO_PROGRAM_SOURCE) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the metal driver builds programs from Metal's text only");
    }
    if (source->text == NULL || source->size_bytes == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the program is empty");
    }
    char front[2048];
    bool fast = false;
    if (!options_translate(source->options, front, sizeof front, &fast)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "compiler options '%.80s': Metal has -DNAME, -DNAME=VALUE and "
                             "-ffast-math",
                             source->options);
    }
    size_t front_bytes = strlen(front);
    umo_status status = UMO_OK;
    program *made = calloc(1, sizeof *made);
    char *text = malloc(front_bytes + source->size_bytes + 1);
    if (made == NULL || text == NULL) {
        free(text);
        free(made);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a program");
    }
    memcpy(text, front, front_bytes);
    memcpy(text + front_bytes, source->text, source->size_bytes);
    text[front_bytes + source->size_bytes] = '\0';
    (void)pthread_mutex_init(&made->lock, NULL);
    UMO_METAL_POOL_BEGIN(state);
    umo_error own = {0};
    made->library = library_make(state, text, fast, &own);
    if (made->library == NULL) {
        status = umo_error_set(error, own.status, own.native, "%s", own.text);
    } else if (archive_path(state, text, fast, made->path, sizeof made->path)) {
        made->archive = archive_open(state, made->path);
    }
    UMO_METAL_POOL_END(state);
    free(text);
    if (status != UMO_OK) {
        umo_metal_program_destroy(state, made);
        return status;
    }
    *out = made;
    return UMO_OK;
}

void umo_metal_program_destroy(void *opaque, void *opaque_program)
{
    umo_metal_state *state = opaque;
    program *old = opaque_program;
    UMO_METAL_POOL_BEGIN(state);
    UMO_METAL_SEND0(state->api, release, old->archive);
    UMO_METAL_SEND0(state->api, release, old->library);
    UMO_METAL_POOL_END(state);
    (void)pthread_mutex_destroy(&old->lock);
    free(old);
}

/* ---- kernels ---- */

/* The pipeline of a function: out of the archive, or compiled and put into it. */
static umo_id pipeline_make(umo_metal_state *state, program *owner, umo_id function,
                            umo_id *reflection, umo_id *why)
{
    const umo_metal_api *api = state->api;
    const umo_uint reflect = UMO_MTL_REFLECT_BINDINGS | UMO_MTL_REFLECT_BUFFERS;
    umo_id descriptor = UMO_METAL_SEND0(api, new_object, api->classes.pipeline_descriptor);
    umo_id pipeline = NULL;
    if (descriptor == NULL) {
        return NULL;
    }
    UMO_METAL_SEND(api, pipeline_describe_function, descriptor, function);
    if (owner->archive != NULL) {
        umo_id archives = UMO_METAL_SEND(api, array_make, api->classes.array, owner->archive);
        UMO_METAL_SEND(api, pipeline_describe_archives, descriptor, archives);
        pipeline = UMO_METAL_SEND(api, new_pipeline, state->device, descriptor,
                                  reflect | UMO_MTL_FAIL_ON_ARCHIVE_MISS, reflection, why);
        if (pipeline == NULL) {
            (void)pthread_mutex_lock(&owner->lock);
            if (UMO_METAL_SEND(api, archive_add, owner->archive, descriptor, why)) {
                archive_write(state, owner);
            }
            (void)pthread_mutex_unlock(&owner->lock);
        } else if (*reflection == NULL) {
            /* Whether one out of an archive is described is not documented. */
            UMO_METAL_SEND0(api, release, pipeline);
            pipeline = NULL;
            UMO_METAL_SEND(api, pipeline_describe_archives, descriptor, NULL);
        }
    }
    if (pipeline == NULL) {
        *why = NULL;
        pipeline =
            UMO_METAL_SEND(api, new_pipeline, state->device, descriptor, reflect, reflection, why);
    }
    UMO_METAL_SEND0(api, release, descriptor);
    return pipeline;
}

/* What the kernel expects. False when it has more arguments than Metal binds. */
static bool kernel_reflect(const umo_metal_api *api, kernel *made, umo_id reflection)
{
    umo_id bindings = UMO_METAL_SEND0(api, reflection_bindings, reflection);
    umo_uint count = UMO_METAL_SEND0(api, array_count, bindings);
    for (umo_uint i = 0; i < count; i++) {
        umo_id binding = UMO_METAL_SEND(api, array_at, bindings, i);
        int64_t type = UMO_METAL_SEND0(api, binding_type, binding);
        umo_uint index = UMO_METAL_SEND0(api, binding_index, binding);
        if (type == UMO_MTL_BINDING_LOCAL) {
            made->local_count = index + 1 > made->local_count ? index + 1 : made->local_count;
        } else if (type == UMO_MTL_BINDING_BUFFER && index < BUFFERS_MAX) {
            made->buffers[index] =
                (argument){.known = UMO_METAL_SEND0(api, binding_used, binding) != 0,
                           .read_only = UMO_METAL_SEND0(api, binding_access, binding) ==
                                        UMO_MTL_BINDING_READ_ONLY,
                           .size_bytes = UMO_METAL_SEND0(api, binding_bytes, binding),
                           .align_bytes = UMO_METAL_SEND0(api, binding_align, binding)};
            made->buffer_count = index + 1 > made->buffer_count ? index + 1 : made->buffer_count;
        } else {
            return false;
        }
    }
    made->threads_max = UMO_METAL_SEND0(api, pipeline_threads_max, made->pipeline);
    made->width = UMO_METAL_SEND0(api, pipeline_width, made->pipeline);
    made->local_static_bytes = UMO_METAL_SEND0(api, pipeline_local, made->pipeline);
    return made->threads_max > 0 && made->width > 0;
}

umo_status umo_metal_kernel_create(void *opaque, void *opaque_program, const char *name, void **out,
                                   umo_error *error)
{
    umo_metal_state *state = opaque;
    const umo_metal_api *api = state->api;
    size_t name_bytes = strlen(name) + 1;
    kernel *made = calloc(1, sizeof *made);
    if (made == NULL || (made->name = malloc(name_bytes)) == NULL) {
        free(made);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for kernel '%s'", name);
    }
    memcpy(made->name, name, name_bytes);
    umo_status status = UMO_OK;
    umo_id reflection = NULL;
    umo_id why = NULL;
    program *owner = opaque_program;
    UMO_METAL_POOL_BEGIN(state);
    umo_id string = UMO_METAL_SEND(api, string_make, api->classes.string, name);
    umo_id function =
        string != NULL ? UMO_METAL_SEND(api, library_function, owner->library, string) : NULL;
    if (function == NULL) {
        status = umo_error_set(error, UMO_E_NOT_FOUND, 0, "the program has no kernel '%s'", name);
    } else {
        made->pipeline = pipeline_make(state, owner, function, &reflection, &why);
        if (made->pipeline == NULL) {
            char words[UMO_ERROR_TEXT_BYTES];
            umo_metal_error_text(api, why, words, sizeof words);
            status =
                umo_error_set(error, UMO_E_DEVICE, (int32_t)UMO_METAL_SEND0(api, error_code, why),
                              "kernel '%s': %s", name, words);
        } else if (reflection == NULL) {
            status = umo_error_set(error, UMO_E_DEVICE, 0,
                                   "kernel '%s': Metal does not say what it takes", name);
        } else if (!kernel_reflect(api, made, reflection)) {
            status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                                   "kernel '%s' takes arguments that are neither buffers nor "
                                   "work-group memory",
                                   name);
        }
    }
    UMO_METAL_SEND0(api, release, function);
    UMO_METAL_POOL_END(state);
    if (status != UMO_OK) {
        umo_metal_kernel_destroy(state, made);
        return status;
    }
    *out = made;
    return UMO_OK;
}

void umo_metal_kernel_destroy(void *opaque, void *opaque_kernel)
{
    umo_metal_state *state = opaque;
    kernel *old = opaque_kernel;
    UMO_METAL_POOL_BEGIN(state);
    UMO_METAL_SEND0(state->api, release, old->pipeline);
    UMO_METAL_POOL_END(state);
    free(old->name);
    free(old);
}

umo_id umo_metal_pipeline_simple(umo_metal_state *state, const char *text, const char *function)
{
    const umo_metal_api *api = state->api;
    program owner = {.archive = NULL};
    umo_id pipeline = NULL;
    umo_id reflection = NULL;
    umo_id why = NULL;
    owner.library = library_make(state, text, false, NULL);
    if (owner.library != NULL) {
        umo_id name = UMO_METAL_SEND(api, string_make, api->classes.string, function);
        umo_id made =
            name != NULL ? UMO_METAL_SEND(api, library_function, owner.library, name) : NULL;
        if (made != NULL) {
            pipeline = pipeline_make(state, &owner, made, &reflection, &why);
        }
        UMO_METAL_SEND0(api, release, made);
        UMO_METAL_SEND0(api, release, owner.library);
    }
    return pipeline;
}

/* ---- launches ---- */

static umo_status buffer_check(const kernel *called, size_t position, const argument *expected,
                               const umo_kernel_arg *arg, umo_error *error)
{
    const char *name = called->name;
    if (arg->kind == UMO_ARG_VALUE) {
        if (arg->value == NULL || arg->size_bytes == 0 ||
            arg->size_bytes > UMO_METAL_VALUE_BYTES_MAX) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "kernel '%s': argument %zu is a value of %zu bytes, not 1 to %u",
                                 name, position, arg->size_bytes, UMO_METAL_VALUE_BYTES_MAX);
        }
        if (expected->known && (!expected->read_only || arg->size_bytes != expected->size_bytes)) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "kernel '%s': argument %zu is %s of %zu bytes, not a value of %zu",
                                 name, position, expected->read_only ? "a value" : "memory",
                                 expected->size_bytes, arg->size_bytes);
        }
        return UMO_OK;
    }
    if (arg->memory == NULL || arg->offset_bytes >= arg->memory->size_bytes) {
        return umo_error_set(
            error, UMO_E_INVAL, 0, "kernel '%s': argument %zu starts at byte %zu of %zu", name,
            position, arg->offset_bytes, arg->memory != NULL ? arg->memory->size_bytes : (size_t)0);
    }
    if (expected->known && expected->size_bytes > arg->memory->size_bytes - arg->offset_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel '%s': argument %zu ends %zu bytes behind its start; one "
                             "element has %zu",
                             name, position, arg->memory->size_bytes - arg->offset_bytes,
                             expected->size_bytes);
    }
    if (expected->known && expected->align_bytes > 1 &&
        (arg->memory->offset_bytes + arg->offset_bytes) % expected->align_bytes != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel '%s': argument %zu starts at byte %zu, which is no multiple "
                             "of %zu",
                             name, position, arg->offset_bytes, expected->align_bytes);
    }
    return UMO_OK;
}

static umo_status args_check(const umo_metal_state *state, const kernel *called,
                             const umo_kernel_arg *args, size_t arg_count, umo_error *error)
{
    size_t buffers = 0;
    size_t locals = 0;
    size_t local_bytes = called->local_static_bytes;
    for (size_t i = 0; i < arg_count; i++) {
        const umo_kernel_arg *arg = &args[i];
        if (arg->kind == UMO_ARG_LOCAL) {
            const size_t left_bytes =
                local_bytes < state->local_max_bytes ? state->local_max_bytes - local_bytes : 0;
            size_t step_bytes;
            if (arg->size_bytes == 0 || !umo_round_up(arg->size_bytes, LOCAL_ALIGN, &step_bytes) ||
                step_bytes > left_bytes) {
                return umo_error_set(error, UMO_E_INVAL, 0,
                                     "kernel '%s': argument %zu asks for %zu bytes of work-group "
                                     "memory; %zu are left",
                                     called->name, i, arg->size_bytes, left_bytes);
            }
            local_bytes += step_bytes;
            locals++;
            continue;
        }
        if (buffers < called->buffer_count) {
            umo_status status = buffer_check(called, i, &called->buffers[buffers], arg, error);
            if (status != UMO_OK) {
                return status;
            }
        }
        buffers++;
    }
    if (buffers != called->buffer_count || locals != called->local_count) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel '%s' takes %zu buffer(s) or value(s) and %zu piece(s) of "
                             "work-group memory, not %zu and %zu",
                             called->name, called->buffer_count, called->local_count, buffers,
                             locals);
    }
    return UMO_OK;
}

/* The threads of a group: as asked, or full groups, along the first dimension first. */
static umo_status group_choose(const kernel *called, const umo_grid *grid, umo_mtl_size *out,
                               umo_error *error)
{
    size_t group[3] = {1, 1, 1};
    uint32_t given = 0;
    size_t threads = 1;
    for (uint32_t d = 0; d < grid->dimensions; d++) {
        given += grid->local[d] != 0;
    }
    for (uint32_t d = 0; d < grid->dimensions && given == grid->dimensions; d++) {
        group[d] = grid->local[d];
        if (group[d] > called->threads_max / threads) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "kernel '%s': a group has at most %zu work items", called->name,
                                 called->threads_max);
        }
        threads *= group[d];
    }
    if (given == 0) {
        size_t most = grid->dimensions == 1 ? called->threads_max : called->width;
        group[0] = grid->global[0] < most ? grid->global[0] : most;
        most = called->threads_max / group[0];
        if (grid->dimensions > 1) {
            group[1] = grid->global[1] < most ? grid->global[1] : most;
        }
    } else if (given != grid->dimensions) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel '%s': a local size is given in all dimensions or in none",
                             called->name);
    }
    *out = (umo_mtl_size){group[0], group[1], group[2]};
    return UMO_OK;
}

static void launch_encode(const umo_metal_encoding *encoding, const kernel *called,
                          const umo_kernel_arg *args, size_t arg_count, const umo_grid *grid,
                          umo_mtl_size group)
{
    const umo_metal_api *api = encoding->state->api;
    umo_id encoder = encoding->encoder;
    umo_uint buffer = 0;
    umo_uint local = 0;
    UMO_METAL_SEND(api, compute_pipeline, encoder, called->pipeline);
    for (size_t i = 0; i < arg_count; i++) {
        const umo_kernel_arg *arg = &args[i];
        switch (arg->kind) {
        case UMO_ARG_MEMORY:
            UMO_METAL_SEND(api, compute_buffer, encoder, arg->memory->native,
                           arg->memory->offset_bytes + arg->offset_bytes, buffer++);
            break;
        case UMO_ARG_VALUE:
            UMO_METAL_SEND(api, compute_bytes, encoder, arg->value, arg->size_bytes, buffer++);
            break;
        case UMO_ARG_LOCAL:
            UMO_METAL_SEND(api, compute_local, encoder,
                           (arg->size_bytes + LOCAL_ALIGN - 1) & ~(size_t)(LOCAL_ALIGN - 1),
                           local++);
            break;
        }
    }
    const umo_mtl_size threads = {grid->global[0], grid->dimensions > 1 ? grid->global[1] : 1,
                                  grid->dimensions > 2 ? grid->global[2] : 1};
    UMO_METAL_SEND(api, compute_dispatch, encoder, threads, group);
}

umo_status umo_metal_kernel_launch(void *opaque, uint32_t queue, void *opaque_kernel,
                                   const umo_kernel_arg *args, size_t arg_count,
                                   const umo_grid *grid, const umo_fence *waits, size_t wait_count,
                                   umo_fence *out, umo_error *error)
{
    umo_metal_state *state = opaque;
    const kernel *called = opaque_kernel;
    umo_mtl_size group = {0};
    umo_status status = args_check(state, called, args, arg_count, error);
    if (status == UMO_OK) {
        status = group_choose(called, grid, &group, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    umo_metal_encoding encoding;
    status = umo_metal_command_begin(state, queue, waits, wait_count, &encoding);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0,
                             "kernel '%s': what it waits for failed or is unknown, or Metal takes "
                             "no more work",
                             called->name);
    }
    /* Its owner may destroy the kernel while it runs, and Metal retains nothing. */
    umo_metal_command_keep(&encoding, UMO_METAL_SEND0(state->api, retain, called->pipeline));
    if (umo_metal_compute_begin(&encoding)) {
        launch_encode(&encoding, called, args, arg_count, grid, group);
    } else {
        status = umo_error_set(error, UMO_E_DEVICE, 0, "kernel '%s': Metal gives no encoder",
                               called->name);
    }
    return umo_metal_command_end(&encoding, status, out);
}
