/* The C library: strings, numbers, sorting, characters, files, clocks, figures of the machine. */
#include "probe.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mach/mach_time.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a;
    int y = *(const int *)b;
    return (x > y) - (x < y);
}

static void strings(void)
{
    char text[32] = "abc";
    char *end = NULL;
    CHECK(strlcpy(text, "a long word", 7) == 11 && strcmp(text, "a long") == 0);
    CHECK(strlcat(text, " road", sizeof text) == 11 && strcmp(text, "a long road") == 0);
    CHECK(strtoull("18446744073709551615x", &end, 10) == UINT64_MAX && *end == 'x');
    errno = 0;
    CHECK(strtoull("18446744073709551616", NULL, 10) == UINT64_MAX && errno == ERANGE);
    CHECK(strtol("-0x10", NULL, 0) == -16 && strtod("0.125e1", NULL) == 1.25);
    CHECK(strtoumax("77", NULL, 8) == 63 && atoi("12") == 12 && strtof("0.5", NULL) == 0.5f);
    CHECK(memmem("needle in", 9, "le", 2) != NULL && strstr("haystack", "st") != NULL);
    char list[] = "a,b;c";
    char *rest = NULL;
    CHECK(strcmp(strtok_r(list, ",;", &rest), "a") == 0);
    CHECK(strcmp(strtok_r(NULL, ",;", &rest), "b") == 0);
    char *copy = strndup("duplicate", 4);
    CHECK(copy != NULL && strcmp(copy, "dupl") == 0);
    free(copy);
    memset_pattern4(text, "wxyz", 10);
    CHECK(memcmp(text, "wxyzwxyzwx", 10) == 0);
    CHECK(strcasecmp("ABC", "abc") == 0 && strncasecmp("ABx", "aby", 2) == 0);
}

static void characters(void)
{
    for (int c = 0; c < 256; c++) {
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool digit = c >= '0' && c <= '9';
        CHECK((isalpha(c) != 0) == letter);
        CHECK((isdigit(c) != 0) == digit);
        CHECK((isalnum(c) != 0) == (letter || digit));
        CHECK((isspace(c) != 0) == (c == ' ' || (c >= 9 && c <= 13)));
        CHECK((isprint(c) != 0) == (c >= 32 && c < 127));
        CHECK((isxdigit(c) != 0) == (digit || (letter && (c | 32) <= 'f')));
        CHECK(toupper(c) == (c >= 'a' && c <= 'z' ? c - 32 : c));
        CHECK(tolower(c) == (c >= 'A' && c <= 'Z' ? c + 32 : c));
    }
}

static void memory(void)
{
    int numbers[] = {5, 3, 9, 1, 7};
    qsort(numbers, 5, sizeof numbers[0], compare);
    CHECK(numbers[0] == 1 && numbers[4] == 9);
    int key = 7;
    CHECK(bsearch(&key, numbers, 5, sizeof numbers[0], compare) == &numbers[3]);
    void *aligned = NULL;
    CHECK(posix_memalign(&aligned, 4096, 100) == 0 && (uintptr_t)aligned % 4096 == 0);
    free(aligned);
    aligned = aligned_alloc(64, 128);
    CHECK(aligned != NULL && (uintptr_t)aligned % 64 == 0);
    free(aligned);
    aligned = valloc(10);
    CHECK((uintptr_t)aligned % 16384 == 0);
    free(aligned);
    char *grown = calloc(3, 5);
    CHECK(grown != NULL && grown[14] == 0);
    grown = realloc(grown, 100);
    CHECK(grown != NULL && grown[14] == 0);
    free(grown);
}

static void environment(void)
{
    CHECK(getenv("PROBE_SET") != NULL && strcmp(getenv("PROBE_SET"), "yes") == 0);
    CHECK(getenv("PROBE_UNSET") == NULL);
    CHECK(setenv("PROBE_UNSET", "now", 1) == 0 && strcmp(getenv("PROBE_UNSET"), "now") == 0);
    CHECK(unsetenv("PROBE_UNSET") == 0 && getenv("PROBE_UNSET") == NULL);
}

static void files(void)
{
    char name[] = "/tmp/macho_plain_XXXXXX";
    char line[64];
    int fd = mkstemp(name);
    CHECK(fd >= 0 && close(fd) == 0);
    FILE *file = fopen(name, "w+");
    CHECK(file != NULL);
    CHECK(fprintf(file, "%s\n%d %s\n", "first line", 22, "second") > 0);
    CHECK(fputs("third", file) >= 0 && fputc('!', file) == '!');
    CHECK(fflush(file) == 0 && ftell(file) == 27);
    rewind(file);
    CHECK(fgets(line, sizeof line, file) == line && strcmp(line, "first line\n") == 0);
    int number = 0;
    CHECK(fscanf(file, "%d %63s", &number, line) == 2 && number == 22);
    CHECK(strcmp(line, "second") == 0 && fgetc(file) == '\n');
    CHECK(fread(line, 1, sizeof line, file) == 6 && memcmp(line, "third!", 6) == 0);
    CHECK(feof(file) != 0 && ferror(file) == 0);
    struct stat status;
    CHECK(fstat(fileno(file), &status) == 0 && status.st_size == 27 && S_ISREG(status.st_mode));
    CHECK((status.st_mode & 0777) == 0600 && status.st_nlink == 1 && status.st_uid == getuid());
    CHECK(fclose(file) == 0);
    CHECK(stat(name, &status) == 0 && status.st_size == 27);
    CHECK(llabs((long long)status.st_mtimespec.tv_sec - (long long)time(NULL)) < 100);
    char *whole = NULL;
    size_t room = 0;
    file = fopen(name, "r");
    CHECK(file != NULL && getline(&whole, &room, file) == 11);
    free(whole);
    CHECK(fclose(file) == 0 && remove(name) == 0 && access(name, F_OK) == -1);
}

static void links(void)
{
    char folder[] = "/tmp/macho_links_XXXXXX";
    char file[64];
    char other[64];
    struct stat status;
    CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(file, sizeof file, "%s/file", folder);
    (void)snprintf(other, sizeof other, "%s/other", folder);
    int fd = open(file, O_CREAT | O_WRONLY, 0600);
    CHECK(write(fd, "bytes", 5) == 5 && fsync(fd) == 0 && fcntl(fd, F_FULLFSYNC) == 0);
    CHECK(close(fd) == 0 && truncate(file, 3) == 0);
    CHECK(link(file, other) == 0 && lstat(other, &status) == 0);
    CHECK(S_ISREG(status.st_mode) && status.st_nlink == 2 && status.st_size == 3);
    CHECK(link(file, other) == -1 && errno == EEXIST && unlink(other) == 0);
    CHECK(symlink("file", other) == 0 && lstat(other, &status) == 0);
    CHECK(S_ISLNK(status.st_mode) && status.st_size == 4);
    CHECK(stat(other, &status) == 0 && S_ISREG(status.st_mode));
    CHECK(unlink(other) == 0 && unlink(file) == 0 && rmdir(folder) == 0);
    CHECK(lstat(file, &status) == -1 && errno == ENOENT);

    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    CHECK(memory != NULL && fprintf(memory, "%d %s", 12, "words") == 8);
    CHECK(fclose(memory) == 0 && size == 8 && strcmp(text, "12 words") == 0);
    free(text);
}

/* As a full disk: an error, and a signal that is due to whoever has it blocked. */
static void limits(void)
{
    char name[] = "/tmp/macho_limits_XXXXXX";
    int fd = mkstemp(name);
    int status = 0;
    CHECK(fd >= 0 && unlink(name) == 0);
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit four = {.rlim_cur = 4, .rlim_max = RLIM_INFINITY};
        struct rlimit now;
        sigset_t set;
        int number = 0;
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGXFSZ);
        bool right = setrlimit(RLIMIT_FSIZE, &four) == 0 && getrlimit(RLIMIT_FSIZE, &now) == 0 &&
                     now.rlim_cur == 4 && now.rlim_max == RLIM_INFINITY &&
                     pthread_sigmask(SIG_BLOCK, &set, NULL) == 0 && write(fd, "12345", 5) == 4 &&
                     write(fd, "5", 1) == -1 && errno == EFBIG && sigpending(&set) == 0 &&
                     sigismember(&set, SIGXFSZ) == 1 && sigwait(&set, &number) == 0 &&
                     number == SIGXFSZ && sigpending(&set) == 0 && sigismember(&set, SIGXFSZ) == 0;
        if (right) {
            (void)alarm(1);
            (void)sleep(20);
        }
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGALRM && close(fd) == 0);
}

static void clocks(void)
{
    struct timespec length = {.tv_nsec = 2000000};
    struct timespec now;
    mach_timebase_info_data_t base;
    uint64_t start = clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
    uint64_t ticks = mach_absolute_time();
    CHECK(nanosleep(&length, NULL) == 0);
    CHECK(clock_gettime_nsec_np(CLOCK_UPTIME_RAW) - start >= 2000000);
    CHECK(mach_timebase_info(&base) == 0);
    CHECK((mach_absolute_time() - ticks) * base.numer / base.denom >= 2000000);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && now.tv_nsec < 1000000000);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0 && now.tv_sec > 1600000000);
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
}

static void machine(void)
{
    uint64_t figure = 0;
    size_t size = sizeof figure;
    char text[64];
    CHECK(sysctlbyname("hw.memsize", &figure, &size, NULL, 0) == 0 && size == 8);
    CHECK(figure > (uint64_t)1 << 28);
    size = sizeof text;
    CHECK(sysctlbyname("kern.osrelease", text, &size, NULL, 0) == 0);
    CHECK(size == strlen(text) + 1);
    size = 2;
    CHECK(sysctlbyname("kern.osrelease", text, &size, NULL, 0) == -1 && errno == ENOMEM);
    CHECK(sysctlbyname("no.such.figure", text, &size, NULL, 0) == -1 && errno == ENOENT);
    CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
    struct rusage used;
    CHECK(getrusage(RUSAGE_SELF, &used) == 0 && used.ru_maxrss > 1 << 20);
    CHECK(sqrt(2.0) * sqrt(2.0) > 1.99 && fabs(pow(2.0, 0.5) - sqrt(2.0)) < 1e-12);
}

int main(void)
{
    strings();
    characters();
    memory();
    environment();
    files();
    links();
    limits();
    clocks();
    machine();
    return probe_verdict();
}
