/* Pointers in data: rebased ones, bound ones with and without an addend, in read-only data too. */
#include "probe.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

extern int library_data[8];
extern int *library_pointer;
extern const char *const library_words[];
int library_answer(void);
int library_use_callback(int (*callback)(int), int value);

static int twice(int value)
{
    return 2 * value;
}

static int thrice(int value)
{
    return 3 * value;
}

typedef struct row {
    const char *name;
    int (*run)(int);
    const struct row *other;
    int *data;
} row;

/* More rows than the opcodes' short forms count. */
#define ROW(n)                                                                                     \
    {                                                                                              \
        "row " #n, (n) % 2 == 0 ? twice : thrice, &rows[(n) ^ 1], &numbers[n]                      \
    }
static int numbers[40];
extern const row rows[40];
const row rows[40] = {
    ROW(0),  ROW(1),  ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),  ROW(8),  ROW(9),
    ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15), ROW(16), ROW(17), ROW(18), ROW(19),
    ROW(20), ROW(21), ROW(22), ROW(23), ROW(24), ROW(25), ROW(26), ROW(27), ROW(28), ROW(29),
    ROW(30), ROW(31), ROW(32), ROW(33), ROW(34), ROW(35), ROW(36), ROW(37), ROW(38), ROW(39),
};

/* Volatile: the compiler must read them, and not know them. */
static int *volatile bound = library_data;
static int *volatile bound_with_addend = &library_data[3];
static int (*volatile const bound_function)(void) = library_answer;
static void *(*volatile const system_function)(size_t) = malloc;
static int (*sparse[100])(int) = {[3] = twice, [50] = thrice, [99] = twice};

int main(int argc, char **argv)
{
    char name[16];
    (void)argv;
    for (int i = 0; i < 40; i++) {
        (void)snprintf(name, sizeof name, "row %d", i);
        CHECK(strcmp(rows[i].name, name) == 0);
        CHECK(rows[i].run(10) == (i % 2 == 0 ? 20 : 30));
        CHECK(rows[i].other == &rows[i ^ 1] && rows[i].other->other == &rows[i]);
        CHECK(rows[i].data == &numbers[i]);
    }
    CHECK(bound[1] == 11 && *library_pointer == 15);
    /* zig's linker drops this one's addend; with an argument, the test has put it back. */
    CHECK(*bound_with_addend == (argc > 1 ? 13 : 10));
    CHECK(bound_function() == 42 && strcmp(library_words[2], "three") == 0);
    CHECK(library_use_callback(twice, 4) == 18);
    CHECK(sparse[3](1) == 2 && sparse[50](1) == 3 && sparse[99](2) == 4 && sparse[0] == NULL);
    void *block = system_function(32);
    CHECK(block != NULL);
    free(block);
    library_data[1] = 111;
    CHECK(*(int *)dlsym(RTLD_DEFAULT, "library_data") == 10 && bound[1] == 111);
    return probe_verdict();
}
