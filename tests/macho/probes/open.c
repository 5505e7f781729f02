/* dlopen, dlsym, dlerror, dladdr. */
#include "probe.h"

#include <dlfcn.h>
#include <sched.h>
#include <string.h>

int library_answer(void);

/* The program's own comes before the system's, which it reaches as the next one. */
int sched_yield(void)
{
    return 77;
}

static void next_ones(void)
{
    int (*next)(void);
    *(void **)&next = dlsym(RTLD_NEXT, "sched_yield");
    CHECK(next != NULL && next != sched_yield && next() == 0);
    CHECK(dlsym(RTLD_DEFAULT, "sched_yield") == (void *)sched_yield);
    CHECK(dlsym(RTLD_NEXT, "next_ones") == NULL && dlerror() != NULL);
}

int main(void)
{
    int (*answer)(void);
    CHECK(dlerror() == NULL);
    next_ones();
    CHECK(dlopen("/nonexistent/lib.dylib", RTLD_NOW) == NULL);
    const char *why = dlerror();
    CHECK(why != NULL && strstr(why, "/nonexistent/lib.dylib") != NULL);
    CHECK(dlerror() == NULL);

    void *late = dlopen("@loader_path/libprobe_late.dylib", RTLD_NOW | RTLD_LOCAL);
    CHECK(late != NULL);
    CHECK(dlopen("@rpath/libprobe_late.dylib", RTLD_NOW | RTLD_LOCAL) == late);
    *(void **)&answer = dlsym(late, "late_answer");
    CHECK(answer != NULL && answer() == 42 + 15);
    CHECK(dlsym(late, "library_answer") == (void *)library_answer);
    CHECK(dlsym(late, "no_such_symbol") == NULL);
    why = dlerror();
    CHECK(why != NULL && strstr(why, "no_such_symbol") != NULL);
    CHECK(dlclose(late) == 0);

    CHECK(dlsym(RTLD_DEFAULT, "library_answer") == (void *)library_answer);
    CHECK(dlsym(RTLD_DEFAULT, "strlen") == (void *)strlen);
    void *system_library = dlopen("/usr/lib/libSystem.B.dylib", RTLD_NOW);
    CHECK(system_library != NULL && dlsym(system_library, "strlen") == (void *)strlen);

    Dl_info info;
    CHECK(dladdr((void *)library_answer, &info) != 0);
    CHECK(strstr(info.dli_fname, "libprobe.dylib") != NULL);
    CHECK(memcmp(info.dli_fbase, "\xcf\xfa\xed\xfe", 4) == 0);
    return probe_verdict();
}
