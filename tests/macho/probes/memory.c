/* Mappings: pages of 16 KiB and nothing less. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 16384
#define REFUSED(call, code) (errno = 0, (call) && errno == (code))

static void anonymous(void)
{
    char *two = mmap(NULL, PAGE + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(two != MAP_FAILED && (uintptr_t)two % PAGE == 0);
    two[2 * PAGE - 1] = 1;
    CHECK(REFUSED(munmap(two + 4096, 4096) == -1, EINVAL));
    CHECK(REFUSED(munmap(two, 0) == -1, EINVAL));
    CHECK(REFUSED(mprotect(two + 4096, 4096, PROT_READ) == -1, EINVAL));
    CHECK(REFUSED(msync(two + 4096, 4096, MS_SYNC) == -1, EINVAL));
    CHECK(mprotect(two, 1, PROT_NONE) == 0);
    CHECK(mprotect(two, PAGE, PROT_READ | PROT_WRITE) == 0);
    CHECK(madvise(two, 2 * PAGE, MADV_DONTNEED) == 0 && two[2 * PAGE - 1] == 1);
    CHECK(munmap(two + PAGE, 1) == 0);
    two[PAGE - 1] = 2;
    CHECK(munmap(two, PAGE) == 0);
    CHECK(REFUSED(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0) == MAP_FAILED, EINVAL));
    CHECK(REFUSED(mmap(NULL, PAGE, PROT_READ, MAP_ANON, -1, 0) == MAP_FAILED, EINVAL));
    CHECK(REFUSED(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 99, 0) == MAP_FAILED, EBADF));
    CHECK(
        REFUSED(mmap(NULL, SIZE_MAX - 100, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0) == MAP_FAILED,
                EINVAL));
    CHECK(
        REFUSED(mmap(NULL, (size_t)1 << 60, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0) == MAP_FAILED,
                ENOMEM));
}

/* An address that was given back comes again, as it does on a Mac. */
static void addresses_again(void)
{
    unsigned again = 0;
    char *before = NULL;
    for (int i = 0; i < 8; i++) {
        char *pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
        CHECK(pages != MAP_FAILED && pages[3 * PAGE] == 0);
        pages[3 * PAGE] = 1;
        again += pages == before ? 1 : 0;
        before = pages;
        CHECK(munmap(pages, 4 * PAGE) == 0);
    }
    CHECK(again > 0);
}

static void fixed(void)
{
    char *area = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(area != MAP_FAILED);
    CHECK(REFUSED(mmap(area + 4096, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0) ==
                      MAP_FAILED,
                  EINVAL));
    CHECK(mmap(area + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1,
               0) == area + PAGE);
    area[PAGE] = 3;
    CHECK(munmap(area, 4 * PAGE) == 0);
}

static void files(void)
{
    char name[] = "/tmp/macho_memory_XXXXXX";
    int file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0);
    CHECK(ftruncate(file, 3 * PAGE) == 0);
    CHECK(pwrite(file, "second", 7, PAGE) == 7);
    CHECK(REFUSED(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 4096) == MAP_FAILED, EINVAL));
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, PAGE);
    char *own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, PAGE);
    CHECK(shared != MAP_FAILED && own != MAP_FAILED);
    CHECK(strcmp(shared, "second") == 0 && strcmp(own, "second") == 0);
    shared[0] = 'S';
    own[1] = 'E';
    char back[7];
    CHECK(msync(shared, PAGE, MS_SYNC) == 0);
    CHECK(pread(file, back, 7, PAGE) == 7 && strcmp(back, "Second") == 0);
    CHECK(munmap(shared, PAGE) == 0 && munmap(own, PAGE) == 0 && close(file) == 0);
    file = open("/dev/null", O_RDONLY);
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED);
    CHECK(close(file) == 0);
}

static sigjmp_buf back;
static siginfo_t fault;

static void fault_jump_back(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    fault = *info;
    siglongjmp(back, 1);
}

/* Whether a touch is a SIGBUS there. */
static bool no_page(const volatile char *address)
{
    bool faulted = sigsetjmp(back, 1) != 0;
    if (!faulted) {
        (void)*address;
    }
    return faulted && fault.si_signo == SIGBUS && fault.si_addr == (const void *)address;
}

/* What a file does not have is mapped as well; it is there as soon as the file has it. */
static void beyond_the_end(void)
{
    char name[] = "/tmp/macho_memory_XXXXXX";
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    struct sigaction before;
    struct stat status;
    int file = mkstemp(name);
    int reader = open(name, O_RDONLY);
    CHECK(file >= 0 && reader >= 0 && unlink(name) == 0);
    CHECK(ftruncate(file, 2 * PAGE) == 0);
    action.sa_sigaction = fault_jump_back;
    CHECK(sigaction(SIGBUS, &action, &before) == 0);
    char *all = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    char *rest = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, reader, 2 * PAGE);
    CHECK(all != MAP_FAILED && rest != MAP_FAILED);
    CHECK(fstat(file, &status) == 0 && status.st_size == 2 * PAGE);
    all[2 * PAGE - 1] = 4;
    CHECK(no_page(all + 2 * PAGE + 7) && no_page(all + 4 * PAGE - 1) && no_page(rest + 5));
    CHECK(ftruncate(file, 3 * PAGE) == 0);
    all[2 * PAGE] = 5;
    CHECK(rest[0] == 5 && no_page(all + 3 * PAGE) && no_page(rest + PAGE));
    CHECK(ftruncate(file, 0) == 0 && no_page(all) && no_page(rest));
    char *over = mmap(all + PAGE, 3 * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
    CHECK(over == all + PAGE && over[0] == 0 && over[3 * PAGE - 1] == 0 && no_page(all));
    CHECK(sigaction(SIGBUS, &before, NULL) == 0);
    CHECK(munmap(all, 4 * PAGE) == 0 && munmap(rest, 2 * PAGE) == 0);
    CHECK(close(file) == 0 && close(reader) == 0);
}

/* Locks nest, and each has its error: a hole, memory that nobody may touch, a limit. */
static void locks(void)
{
    char *area = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(area != MAP_FAILED);
    CHECK(mlock(area, 0) == 0 && mlock(area + 5, 1) == 0 && mlock(area, 2 * PAGE) == 0);
    CHECK(munlock(area, PAGE) == 0 && munlock(area, PAGE) == 0);
    CHECK(REFUSED(munlock(area, PAGE) == -1, ENOMEM));
    CHECK(munlock(area + PAGE, PAGE) == 0);
    CHECK(mprotect(area + PAGE, PAGE, PROT_NONE) == 0);
    CHECK(REFUSED(mlock(area, 2 * PAGE) == -1, EACCES));
    CHECK(REFUSED(munlock(area, PAGE) == -1, ENOMEM));
    CHECK(munmap(area + PAGE, PAGE) == 0);
    CHECK(REFUSED(mlock(area, 3 * PAGE) == -1, ENOMEM));

    struct rlimit none = {.rlim_cur = 1};
    CHECK(getrlimit(RLIMIT_MEMLOCK, &none) == 0 && none.rlim_cur <= RLIM_INFINITY);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit page = {.rlim_cur = PAGE, .rlim_max = PAGE};
        bool user = geteuid() != 0 || setuid(65534) == 0; /* root has no limit */
        bool set = setrlimit(RLIMIT_MEMLOCK, &page) == 0;
        bool right = mlock(area, PAGE) == 0 && munlock(area, PAGE) == 0 &&
                     REFUSED(mlock(area + 2 * PAGE, 2 * PAGE) == -1, EAGAIN);
        _exit(user && set && right ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(munmap(area, 4 * PAGE) == 0);
}

/* Shared memory is no file: its size is set once, in whole pages. */
static void shared_memory(void)
{
    char name[64];
    struct stat status;
    char byte = 0;
    (void)snprintf(name, sizeof name, "/macho_probe_%d", (int)getpid());
    int memory = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
    CHECK(memory >= 0);
    CHECK(REFUSED(shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600) == -1, EEXIST));
    CHECK(REFUSED(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, memory, 0) == MAP_FAILED, EINVAL));
    CHECK(ftruncate(memory, 2 * PAGE - 5) == 0);
    CHECK(fstat(memory, &status) == 0 && status.st_size == 2 * PAGE);
    CHECK(REFUSED(ftruncate(memory, 4 * PAGE) == -1, EINVAL));
    CHECK(REFUSED(read(memory, &byte, 1) == -1, ENXIO));
    CHECK(REFUSED(lseek(memory, 0, SEEK_SET) == -1, ESPIPE));
    CHECK(REFUSED(mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, memory, 0) == MAP_FAILED, EINVAL));
    CHECK(REFUSED(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, memory, 0) == MAP_FAILED, EINVAL));
    char *first = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    CHECK(first != MAP_FAILED);
    int again = shm_open(name, O_RDONLY);
    CHECK(again >= 0 && shm_unlink(name) == 0);
    char *second = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, again, PAGE);
    CHECK(second != MAP_FAILED);
    first[PAGE + 9] = 9;
    CHECK(second[9] == 9);
    CHECK(REFUSED(mprotect(second, PAGE, PROT_READ | PROT_WRITE) == -1, EACCES));
    CHECK(munmap(first, 2 * PAGE) == 0 && munmap(second, PAGE) == 0);
    CHECK(close(memory) == 0 && close(again) == 0);
    CHECK(REFUSED(shm_open("/a_name_of_more_than_thirty_one_letters", O_RDWR) == -1, ENAMETOOLONG));
}

int main(void)
{
    CHECK(sysconf(_SC_PAGESIZE) == PAGE && getpagesize() == PAGE);
    anonymous();
    addresses_again();
    fixed();
    files();
    beyond_the_end();
    locks();
    shared_memory();
    return probe_verdict();
}
