/* What runs before main, and after it; the expected text is in test_probes.py. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

extern int library_ready;

__attribute__((constructor(102))) static void second(int argc, char **argv)
{
    printf("program: constructor 2, %d arguments, the last %s\n", argc - 1, argv[argc - 1]);
}

__attribute__((constructor(101))) static void first(void)
{
    printf("program: constructor 1, library ready %d\n", library_ready);
}

__attribute__((destructor)) static void last(void)
{
    puts("program: destructor");
}

static void at_exit(void)
{
    puts("program: atexit");
}

int main(void)
{
    puts("main");
    (void)atexit(at_exit);
    if (dlopen("@rpath/libprobe_late.dylib", RTLD_LAZY | RTLD_LOCAL) == NULL) {
        puts(dlerror());
    }
    puts("main ends");
    return 7;
}
