/* Each way ends the process with status 2 and a line that says what no bridge does. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    puts("begins");
    if (strcmp(what, "mmap") == 0) {
        (void)mmap(NULL, 16384, PROT_READ, MAP_PRIVATE | MAP_ANON | MAP_JIT, -1, 0);
    } else if (strcmp(what, "open") == 0) {
        (void)open("/dev/null", O_RDONLY | O_SHLOCK);
    } else if (strcmp(what, "sysconf") == 0) {
        (void)sysconf(_SC_ARG_MAX);
    } else if (strcmp(what, "signal") == 0) {
        (void)signal(SIGINFO, SIG_IGN);
    } else if (strcmp(what, "dlopen") == 0) {
        (void)dlopen(NULL, RTLD_NOW | RTLD_FIRST);
    } else if (strcmp(what, "format") == 0) {
        printf("%20p\n", (void *)argv);
    } else if (strcmp(what, "madvise") == 0) {
        (void)madvise(NULL, 16384, 99);
    }
    return 0;
}
