/* Errors have Darwin's numbers, whoever reports them. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *other_thread(void *user)
{
    CHECK(errno == 0);
    CHECK(open("/nonexistent/file", O_RDONLY) == -1);
    CHECK(errno == ENOENT);
    return user;
}

int main(void)
{
    char byte;
    char name[300];
    int ends[2];
    _Static_assert(EAGAIN == 35 && EDEADLK == 11 && ENAMETOOLONG == 63, "Darwin's own numbers");

    CHECK(errno == 0);
    CHECK(open("/nonexistent/file", O_RDONLY) == -1 && errno == ENOENT);
    errno = 0;
    CHECK(errno == 0);
    errno = EOVERFLOW;
    CHECK(errno == 84);

    CHECK(pipe(ends) == 0);
    int end = open("/dev/null", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(end >= 0 && close(end) == 0);
    CHECK(close(end) == -1 && errno == EBADF);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
    CHECK(read(ends[0], &byte, 1) == -1 && errno == EBADF);

    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    CHECK(open(name, O_RDONLY) == -1 && errno == ENAMETOOLONG);

    char folder[] = "/tmp/macho_errors_XXXXXX";
    CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(name, sizeof name, "%s/inner", folder);
    CHECK(mkdir(name, 0700) == 0);
    CHECK(mkdir(name, 0700) == -1 && errno == EEXIST);
    CHECK(rmdir(folder) == -1 && errno == ENOTEMPTY);
    CHECK(rmdir(name) == 0 && rmdir(folder) == 0);

    pthread_mutexattr_t kind;
    pthread_mutex_t lock;
    CHECK(pthread_mutexattr_init(&kind) == 0);
    CHECK(pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK) == 0);
    CHECK(pthread_mutex_init(&lock, &kind) == 0);
    CHECK(pthread_mutexattr_destroy(&kind) == 0);
    CHECK(pthread_mutex_lock(&lock) == 0);
    CHECK(pthread_mutex_lock(&lock) == EDEADLK);
    CHECK(pthread_mutex_trylock(&lock) == EBUSY);
    CHECK(pthread_mutex_unlock(&lock) == 0);
    CHECK(pthread_mutex_unlock(&lock) == EPERM);
    CHECK(pthread_mutex_destroy(&lock) == 0);
    CHECK(pthread_mutex_lock(&lock) == EINVAL);

    errno = ERANGE;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(errno == ERANGE);

    CHECK(strcmp(strerror(EAGAIN), "Resource temporarily unavailable") == 0);
    CHECK(strcmp(strerror(ETIMEDOUT), "Connection timed out") == 0);
    CHECK(strcmp(strerror(67), "Unknown error: 67") == 0);
    return probe_verdict();
}
