/* libprobe_late: opened while the program runs; needs libprobe. */
#include <stdio.h>

int library_answer(void);
int late_answer(void);
int *late_local_address(void);
extern int *library_pointer;

static _Thread_local int late_local = 100;

int late_answer(void)
{
    return library_answer() + *library_pointer;
}

int *late_local_address(void)
{
    return &late_local;
}

__attribute__((constructor)) static void first(void)
{
    puts("libprobe_late: constructor");
}

__attribute__((destructor)) static void last(void)
{
    puts("libprobe_late: destructor");
}
