/*
 * A program that copies, dirties and calls devices in known amounts, for the tests of the spy and
 * the census.
 *
 * It runs one scenario named by its first argument, or, as "pages", obeys commands on its standard
 * input, answering each with one line, so that a test can put the census around a single one.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spy_part.h"

void *__memcpy_chk(void *restrict to, const void *restrict from, size_t size_bytes, size_t room);
void *__memmove_chk(void *to, const void *from, size_t size_bytes, size_t room);
void *__memset_chk(void *to, int value, size_t size_bytes, size_t room);

#define BLOCK_BYTES (1u << 20)

static unsigned char block_a[BLOCK_BYTES];
static unsigned char block_b[BLOCK_BYTES];

static void check(bool is_right, const char *what)
{
    if (!is_right) {
        fprintf(stderr, "spy_probe: %s\n", what);
        exit(1);
    }
}

static void ramp_fill(void)
{
    for (size_t i = 0; i < BLOCK_BYTES; i++) {
        block_a[i] = (unsigned char)(i * 7 + i / 251);
        block_b[i] = 0;
    }
}

static void *symbol(void *handle, const char *name)
{
    void *found = dlsym(handle, name);
    check(found != NULL, name);
    return found;
}

/* Every copy function once, each with a size of its own. */
static int scenario_each(void)
{
    ramp_fill();
    check(memcpy(block_b, block_a, 100000) == block_b && memcmp(block_a, block_b, 100000) == 0,
          "memcpy");
    memmove(block_b + 10, block_b, 50000); /* overlaps upwards */
    check(memcmp(block_b + 10, block_a, 50000) == 0, "memmove up");
    memmove(block_b, block_b + 10, 50000); /* and downwards */
    check(memcmp(block_b, block_a, 50000) == 0, "memmove down");
    check(mempcpy(block_b, block_a, 40000) == block_b + 40000, "mempcpy");
    // NOLINTNEXTLINE(clang-analyzer-security.insecureAPI.bcopy): it is counted as well
    bcopy(block_a, block_b, 30000);
    check(memset(block_b, 7, 20000) == block_b && block_b[19999] == 7, "memset");
    check(__memcpy_chk(block_b, block_a, 70000, BLOCK_BYTES) == block_b, "__memcpy_chk");
    check(__memmove_chk(block_b, block_a, 80000, BLOCK_BYTES) == block_b, "__memmove_chk");
    check(__memset_chk(block_b, 1, 90000, BLOCK_BYTES) == block_b, "__memset_chk");
    part_copy(block_b, block_a, 60000);
    for (int i = 0; i < 5; i++) {
        memcpy(block_b, block_a, 16);
    }
    return 0;
}

/* A fortified copy that does not fit must end the program, as without the spy. */
static int scenario_overflow(void)
{
    volatile size_t size_bytes = 200;
    __memcpy_chk(block_b, block_a, size_bytes, 100);
    return 0;
}

/* libc's functions by name, as a loader of plug-ins gets them. */
static int scenario_by_name(void)
{
    void *libc = dlopen("libc.so.6", RTLD_LAZY);
    union {
        void *object;
        void *(*function)(void *, const void *, size_t);
    } copy;
    check(libc != NULL, "libc.so.6");
    copy.object = symbol(libc, "memcpy");
    copy.function(block_b, block_a, 300000);
    copy.object = symbol(RTLD_DEFAULT, "memmove");
    copy.function(block_b, block_a, 200000);
    /* What must go on as it does without the spy: */
    check(dlsym(RTLD_DEFAULT, "no_such_symbol_anywhere") == NULL && dlerror() != NULL, "dlerror");
    check(dlsym(libc, "clEnqueueReadBuffer") == NULL && dlerror() != NULL,
          "a device call that a library does not have");
    /* RTLD_NEXT is relative to who asks: after the program comes the spy, after the part comes
     * libc. */
    check(part_next("memcpy") != dlsym(RTLD_DEFAULT, "memcpy"), "RTLD_NEXT goes on after the spy");
    check(part_next("getpid") != NULL, "RTLD_NEXT");
    check(part_next("part_copy") == NULL, "RTLD_NEXT does not look at the caller itself");
    check(dlsym(RTLD_NEXT, "part_copy") != NULL, "RTLD_NEXT finds what comes after the program");
    return 0;
}

static void *copy_many(void *argument)
{
    unsigned char *mine = argument;
    for (int i = 0; i < 50000; i++) {
        memcpy(mine, block_a, 5000);
    }
    for (int i = 0; i < 500000; i++) {
        memcpy(mine, block_a, 10); /* so short that the counters are nearly always in use */
    }
    return NULL;
}

static int scenario_threads(void)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        check(pthread_create(&threads[i], NULL, copy_many, block_b + i * 65536) == 0, "thread");
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    static unsigned char other[8192];
    (void)number;
    memcpy(other, block_a, 8192);
    signals++;
}

/* Copies in a handler that interrupts copies. */
static int scenario_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct itimerval every = {{0, 500}, {0, 500}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (int i = 0; i < 100000 || signals < 20; i++) {
        memcpy(block_b, block_a, 512);
        if (i >= 100000) {
            usleep(100);
        }
    }
    every = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, NULL);
    printf("%d\n", (int)signals);
    return 0;
}

static int scenario_fork(void)
{
    int status = 0;
    memcpy(block_b, block_a, 10000);
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        memcpy(block_b, block_a, 20000);
        _exit(0);
    }
    check(waitpid(child, &status, 0) == child && status == 0, "the child");
    printf("%ld %ld\n", (long)getpid(), (long)child);
    return 0;
}

/* A C++ library that copies through libstdc++, on behalf of itself. */
static int scenario_string(void)
{
    void *library = dlopen("libspy_string.so", RTLD_NOW | RTLD_LOCAL);
    union {
        void *object;
        size_t (*function)(const char *, size_t);
    } grow;
    check(library != NULL, dlerror());
    grow.object = symbol(library, "string_grow");
    check(grow.function((const char *)block_a, 500000) == 500000, "string_grow");
    return 0;
}

/* ---- Devices ---- */

static int device_run(const char *file, const char *entry, const char *how)
{
    union {
        void *object;
        int (*function)(const char *);
    } run;
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 77;
    }
    run.object = symbol(library, entry);
    return run.function(how);
}

/* "dlsym": a table of entry points made at run time; "linked": a library that is linked with the
 * loader. */
static int scenario_opencl(const char *how)
{
    return device_run(strcmp(how, "linked") == 0 ? "libspy_cl_linked.so" : "libspy_cl_table.so",
                      "cl_run", how);
}

/* ---- Pages ---- */

#define PAGES 512u

static unsigned char *pages_map(int flags, int fd, int protection)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *at = mmap(NULL, PAGES * page, protection, flags, fd, 0);
    check(at != MAP_FAILED, "mmap");
    return at;
}

static void userfaultfd_forbid(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0,
          "seccomp");
}

static volatile unsigned sink;

static int scenario_pages(const char *shm_key, const char *file_path)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int shm = shm_open(shm_key, O_RDWR, 0600);
    int file = open(file_path, O_RDWR);
    check(shm >= 0 && file >= 0, "the shared object and the file");
    unsigned char *anonymous = pages_map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PROT_READ | PROT_WRITE);
    unsigned char *reserved = pages_map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PROT_NONE);
    unsigned char *shared = pages_map(MAP_SHARED, shm, PROT_READ | PROT_WRITE);
    unsigned char *again = pages_map(MAP_SHARED, shm, PROT_READ | PROT_WRITE);
    unsigned char *private = pages_map(MAP_PRIVATE, file, PROT_READ | PROT_WRITE);
    char command[64];
    setvbuf(stdout, NULL, _IONBF, 0);
    memset(anonymous, 1, 100 * page); /* there before the census */
    shared[0] = 1;
    printf("ready\n");
    while (fgets(command, sizeof command, stdin) != NULL) {
        char *number = strchr(command, ' ');
        if (number == NULL) {
            return 1;
        }
        *number++ = '\0';
        const char *verb = command;
        unsigned long count = strtoul(number, NULL, 10);
        if (count > 200) {
            return 1;
        }
        bool is_fleeting = strcmp(verb, "fleeting") == 0;
        unsigned char *fresh = anonymous;
        if (is_fleeting || strcmp(verb, "new") == 0) {
            fresh = pages_map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PROT_READ | PROT_WRITE);
        }
        for (unsigned long i = 0; i < count; i++) {
            if (strcmp(verb, "write") == 0) {
                anonymous[i * page + 17] = 2;
            } else if (strcmp(verb, "read") == 0) {
                sink = anonymous[(i + 300) * page]; /* the zero page: never written */
                sink = anonymous[i * page];
            } else if (strcmp(verb, "fill") == 0) {
                anonymous[(i + 300) * page] = 2; /* not there before */
            } else if (strcmp(verb, "same") == 0) {
                anonymous[i * page + 5] = 1; /* the value that is there */
            } else if (strcmp(verb, "shared") == 0) {
                shared[(i + 8) * page] = 3;
            } else if (strcmp(verb, "both") == 0) {
                shared[(i + 8) * page] = 3; /* the same page through two mappings */
                again[(i + 8) * page] = 4;
            } else if (strcmp(verb, "peek") == 0) {
                sink = shared[(i + 300) * page];
            } else if (strcmp(verb, "private") == 0) {
                private[i * page] = 1;
            } else if (strcmp(verb, "look") == 0) {
                sink = private[i * page];
            } else if (strcmp(verb, "unlock") == 0) {
                mprotect(reserved, (i + 1) * page, PROT_READ | PROT_WRITE);
                reserved[i * page] = 1;
            } else if (strcmp(verb, "syscall") == 0) {
                check(pread(file, anonymous + i * page, 1, 0) == 1, "pread");
            } else if (strcmp(verb, "new") == 0 || is_fleeting) {
                fresh[i * page] = 1;
            } else if (strcmp(verb, "forbid") == 0) {
                userfaultfd_forbid();
            } else {
                return 1;
            }
        }
        if (is_fleeting) {
            munmap(fresh, PAGES * page);
        }
        printf("done\n");
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "each") == 0) {
        return scenario_each();
    }
    if (strcmp(name, "overflow") == 0) {
        return scenario_overflow();
    }
    if (strcmp(name, "by-name") == 0) {
        return scenario_by_name();
    }
    if (strcmp(name, "threads") == 0) {
        return scenario_threads();
    }
    if (strcmp(name, "signals") == 0) {
        return scenario_signals();
    }
    if (strcmp(name, "fork") == 0) {
        return scenario_fork();
    }
    if (strcmp(name, "string") == 0) {
        return scenario_string();
    }
    if (strcmp(name, "opencl") == 0 && argc == 3) {
        return scenario_opencl(argv[2]);
    }
    if (strcmp(name, "cuda") == 0 && argc == 3) {
        return device_run("libspy_cuda.so", "cuda_run", argv[2]);
    }
    if (strcmp(name, "pages") == 0 && argc == 4) {
        return scenario_pages(argv[2], argv[3]);
    }
    return 2;
}
