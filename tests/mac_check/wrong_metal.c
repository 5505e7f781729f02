/*
 * The fake Metal gone wrong, as WRONG_METAL says: what mac_probe must not mistake for a refusal.
 * It stands before libumo_fake_metal.so, which answers what is not answered here.
 *
 *   takes          takes every memory to wrap, and makes buffers of no bytes
 *   late           the same, and aborts when it is asked for a buffer's length
 *   early          aborts when it is asked for its devices
 *   crashes        crashes where it would abort
 *   exits          exits with status 1 where it would abort
 *   loses-first    tells its devices once only, so that none opens
 *   loses-second   tells them until the first is open
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *MTLCopyAllDevices(void);
const char *sel_registerName(const char *name);

static bool wrong(const char *way)
{
    const char *wish = getenv("WRONG_METAL");
    return wish != NULL && strcmp(wish, way) == 0;
}

static void on_abort(int number)
{
    (void)number;
    if (wrong("exits")) {
        _exit(1);
    }
    (void)raise(SIGSEGV);
}

__attribute__((constructor)) static void aborts_replace(void)
{
    if (wrong("crashes") || wrong("exits")) {
        (void)signal(SIGABRT, on_abort);
    }
}

void *MTLCopyAllDevices(void)
{
    static unsigned times;
    void *(*right)(void) = (void *(*)(void))dlsym(RTLD_NEXT, "MTLCopyAllDevices");
    if (wrong("early")) {
        abort();
    }
    times++;
    return (wrong("loses-first") && times > 1) || (wrong("loses-second") && times > 3) ? NULL
                                                                                       : right();
}

const char *sel_registerName(const char *name)
{
    static const char *const takes[][2] = {
        /* A copy can be made of any memory. */
        {"newBufferWithBytesNoCopy:length:options:deallocator:",
         "newBufferWithBytes:length:options:"},
        {"newBufferWithLength:options:", "retain"},
    };
    const char *(*right)(const char *) =
        (const char *(*)(const char *))dlsym(RTLD_NEXT, "sel_registerName");
    for (size_t i = 0; i < 2 && (wrong("takes") || wrong("late")); i++) {
        name = strcmp(name, takes[i][0]) == 0 ? takes[i][1] : name;
    }
    return right(wrong("late") && strcmp(name, "length") == 0 ? "nobodyKnowsThis" : name);
}
