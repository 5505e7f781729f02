/* Also runs with a libprobe that lacks what is imported weakly. */
#include "probe.h"

int library_answer(void);
__attribute__((weak_import)) int library_optional(void);
__attribute__((weak_import)) extern int *library_pointer;

int main(void)
{
    printf("optional %s\n", library_optional != NULL ? "there" : "not there");
    CHECK(library_answer() == 42);
    CHECK(&library_pointer != NULL);
    if (library_optional != NULL) {
        CHECK(library_optional() == 1);
    }
    return probe_verdict();
}
