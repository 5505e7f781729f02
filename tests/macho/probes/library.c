/* libprobe: what a library exports. Built twice: with LESS it lacks what programs import weakly. */
#include <stdio.h>
#include <stdlib.h>

int library_data[8] = {10, 11, 12, 13, 14, 15, 16, 17};
int *library_pointer = &library_data[5];
const char *const library_words[] = {"one", "two", "three"};
_Thread_local int library_local = 40;
int library_answer(void);
int library_optional(void);
int library_local_next(void);
int library_use_callback(int (*callback)(int), int value);
/* Overridden by nobody, but bound through the export table like all that is visible. */
int library_ready;

int library_answer(void)
{
    return 42;
}

#ifndef LESS
int library_optional(void)
{
    return 1;
}
#endif

int library_local_next(void)
{
    return ++library_local;
}

int library_use_callback(int (*callback)(int), int value)
{
    return callback(value) + library_data[0];
}

static void at_exit(void)
{
    puts("libprobe: atexit");
}

__attribute__((constructor)) static void first(void)
{
    library_ready = 1;
    (void)atexit(at_exit);
    puts("libprobe: constructor");
}

__attribute__((destructor)) static void last(void)
{
    puts("libprobe: destructor");
}
