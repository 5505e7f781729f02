/* Thread-local variables: with and without an initial value, aligned, of a library, of a library
 * opened late; each thread begins with the initial values. */
#include "probe.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>

static _Thread_local int zero;
static _Thread_local int seven = 7;
static _Thread_local _Alignas(64) char wide[64] = "wide";
_Thread_local long seen_outside = -1;
extern _Thread_local int library_local;
int library_local_next(void);

static int *(*late_local)(void);

static uint64_t many(uint64_t a, uint64_t b, double c, double d)
{
    /* All of these are alive in registers while the getter runs. */
    uint64_t sum = a * 3 + b;
    double other = c * 2 + d;
    zero += (int)a;
    return sum + (uint64_t)other + (uint64_t)zero;
}

/* What the getter of a variable must leave alone: everything but x0, x16, x17 and x30. */
static void registers(void)
{
    long *address;
    uint64_t sum;
    double first;
    double last;
    __asm__ volatile(
        "mov x1, #1\n mov x2, #2\n mov x3, #4\n mov x4, #8\n mov x5, #16\n mov x6, #32\n"
        "mov x7, #64\n mov x8, #128\n mov x9, #256\n mov x10, #512\n mov x11, #1024\n"
        "mov x12, #2048\n mov x13, #4096\n mov x14, #8192\n mov x15, #16384\n"
        "fmov d0, #1.0\n fmov d31, #31.0\n"
        "adrp x0, _seen_outside@TLVPPAGE\n ldr x0, [x0, _seen_outside@TLVPPAGEOFF]\n"
        "ldr x16, [x0]\n blr x16\n"
        "add x1, x1, x2\n add x1, x1, x3\n add x1, x1, x4\n add x1, x1, x5\n"
        "add x1, x1, x6\n add x1, x1, x7\n add x1, x1, x8\n add x1, x1, x9\n"
        "add x1, x1, x10\n add x1, x1, x11\n add x1, x1, x12\n add x1, x1, x13\n"
        "add x1, x1, x14\n add x1, x1, x15\n"
        "mov %0, x0\n mov %1, x1\n fmov %d2, d0\n fmov %d3, d31"
        : "=&r"(address), "=&r"(sum), "=&w"(first), "=&w"(last)
        :
        : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
          "x14", "x15", "x16", "x17", "x30", "v0", "v31", "memory");
    CHECK(address == &seen_outside);
    CHECK(sum == 32767);
    CHECK(first == 1.0 && last == 31.0);
}

static void *run(void *user)
{
    CHECK(zero == 0 && seven == 7 && wide[0] == 'w' && seen_outside == -1);
    CHECK((uintptr_t)wide % 64 == 0);
    registers();
    zero = 5;
    seven = 8;
    CHECK(zero == 5 && seven == 8);
    CHECK(many(1, 2, 3.0, 4.0) == 5 + 10 + 6);
    CHECK(library_local == 40);
    CHECK(library_local_next() == 41);
    CHECK(library_local == 41);
    CHECK(*late_local() == 100);
    *late_local() = 101;
    CHECK(*late_local() == 101);
    return user;
}

int main(void)
{
    pthread_t thread;
    void *library = dlopen("@loader_path/libprobe_late.dylib", RTLD_NOW);
    CHECK(library != NULL);
    if (library == NULL) {
        printf("%s\n", dlerror());
        return 1;
    }
    *(void **)&late_local = dlsym(library, "late_local_address");
    CHECK(late_local != NULL);
    (void)run(NULL);
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(zero == 6 && seven == 8 && library_local == 41 && *late_local() == 101);
    return probe_verdict();
}
