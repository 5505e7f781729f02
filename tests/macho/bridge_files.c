/*
 * Files and shared memory: other numbers of flags, another struct stat; and Darwin's shared memory,
 * which is no file: its size is set once and counts in whole pages, and nothing but mmap reaches
 * its bytes.
 */
#include "bridges.h"

#include "regions.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const flag_row open_flags[] = {
    {0x1, O_WRONLY},         {0x2, O_RDWR},          {0x4, O_NONBLOCK}, {0x8, O_APPEND},
    {0x100, O_NOFOLLOW},     {0x200, O_CREAT},       {0x400, O_TRUNC},  {0x800, O_EXCL},
    {0x100000, O_DIRECTORY}, {0x1000000, O_CLOEXEC},
};

/* Where objects of shm_open live here; 0 before the first. */
static _Atomic(dev_t) shared_memory_device;

bool macho_is_shared_memory(int fd)
{
    struct stat status;
    int code = errno;
    bool is = shared_memory_device != 0 && fstat(fd, &status) == 0 &&
              status.st_dev == shared_memory_device;
    errno = code;
    return is;
}

int bridge_area_open(const char *path, int flags, char *area);
int bridge_area_openat(int folder, const char *path, int flags, char *area);
int bridge_area_shm_open(const char *name, int flags, char *area);
int bridge_area_fcntl(int fd, int command, char *area);
int bridge_area_ioctl(int fd, unsigned long request, char *area);

static mode_t mode_next(int flags, char *area)
{
    return (flags & 0x200) != 0 ? (mode_t)area_next(&area) : 0;
}

int bridge_area_open(const char *path, int flags, char *area)
{
    return open(path, FLAGS("open", flags, open_flags), mode_next(flags, area));
}

int bridge_area_openat(int folder, const char *path, int flags, char *area)
{
    /* AT_FDCWD is -2 on Darwin. */
    return openat(folder == -2 ? AT_FDCWD : folder, path, FLAGS("openat", flags, open_flags),
                  mode_next(flags, area));
}

int bridge_area_shm_open(const char *name, int flags, char *area)
{
    /* Darwin's names are short: PSHMNAMLEN. */
    if (strlen(name) > 31) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = shm_open(name, FLAGS("shm_open", flags, open_flags), mode_next(flags, area));
    struct stat status;
    if (fd >= 0 && fstat(fd, &status) == 0) {
        shared_memory_device = status.st_dev;
    }
    return fd;
}

/* Only what F_SETFL takes, and the way of access. */
static int status_to_darwin(int flags)
{
    return (flags & O_ACCMODE) | ((flags & O_NONBLOCK) != 0 ? 0x4 : 0) |
           ((flags & O_APPEND) != 0 ? 0x8 : 0);
}

int bridge_area_fcntl(int fd, int command, char *area)
{
    int flags;
    switch (command) {
    case 0:
        return fcntl(fd, F_DUPFD, (int)area_next(&area));
    case 1: /* F_GETFD, F_SETFD: the only flag is 1 in both */
        return fcntl(fd, F_GETFD);
    case 2:
        return fcntl(fd, F_SETFD, (int)area_next(&area));
    case 3:
        flags = fcntl(fd, F_GETFL);
        return flags < 0 ? -1 : status_to_darwin(flags);
    case 4:
        return fcntl(fd, F_SETFL, FLAGS("fcntl", (int)area_next(&area), open_flags));
    case 51: /* F_FULLFSYNC: down to the disk itself, as fsync does here */
        return fsync(fd);
    case 67: /* F_DUPFD_CLOEXEC */
        return fcntl(fd, F_DUPFD_CLOEXEC, (int)area_next(&area));
    default:
        macho_die("fcntl: no bridge for command %d", command);
    }
}

int bridge_area_ioctl(int fd, unsigned long request, char *area)
{
    (void)area;
    macho_die("ioctl of descriptor %d: no bridge for request 0x%lx", fd, request);
}

/* Darwin's struct stat, of which the first and the size are asked. */
typedef struct darwin_stat {
    int32_t device;
    uint16_t mode;
    uint16_t links;
    uint64_t inode;
    uint32_t user, group;
    int32_t special;
    int32_t padding;
    struct timespec accessed, modified, changed, born;
    int64_t size;
    int64_t blocks;
    int32_t block_size;
    uint32_t flags, generation;
    int32_t spare;
    int64_t spares[2];
} darwin_stat;
_Static_assert(sizeof(darwin_stat) == 144, "Darwin's struct stat");

static int stat_take(int rc, const struct stat *from, darwin_stat *out)
{
    if (rc == 0) {
        *out = (darwin_stat){.device = (int32_t)from->st_dev,
                             .mode = (uint16_t)from->st_mode,
                             .links = (uint16_t)from->st_nlink,
                             .inode = from->st_ino,
                             .user = from->st_uid,
                             .group = from->st_gid,
                             .accessed = from->st_atim,
                             .modified = from->st_mtim,
                             .changed = from->st_ctim,
                             .size = from->st_size,
                             .blocks = from->st_blocks,
                             .block_size = (int32_t)from->st_blksize};
    }
    return rc;
}

static int bridge_stat(const char *path, darwin_stat *out)
{
    struct stat ours;
    return stat_take(stat(path, &ours), &ours, out);
}

static int bridge_lstat(const char *path, darwin_stat *out)
{
    struct stat ours;
    return stat_take(lstat(path, &ours), &ours, out);
}

static int bridge_fstat(int fd, darwin_stat *out)
{
    struct stat ours;
    return stat_take(fstat(fd, &ours), &ours, out);
}

/* Fails with the error that a Mac has for bytes of shared memory that are not mapped. */
#define FILE_ONLY(fd, code)                                                                        \
    do {                                                                                           \
        if (macho_is_shared_memory(fd)) {                                                          \
            errno = code;                                                                          \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

static ssize_t bridge_read(int fd, void *out, size_t size)
{
    FILE_ONLY(fd, ENXIO);
    return read(fd, out, size);
}

static ssize_t bridge_write(int fd, const void *bytes, size_t size)
{
    FILE_ONLY(fd, ENXIO);
    return write(fd, bytes, size);
}

static ssize_t bridge_pread(int fd, void *out, size_t size, off_t offset)
{
    FILE_ONLY(fd, ESPIPE);
    return pread(fd, out, size, offset);
}

static ssize_t bridge_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    FILE_ONLY(fd, ESPIPE);
    return pwrite(fd, bytes, size, offset);
}

static off_t bridge_lseek(int fd, off_t offset, int whence)
{
    FILE_ONLY(fd, ESPIPE);
    return lseek(fd, offset, whence);
}

static int bridge_ftruncate(int fd, off_t size)
{
    struct stat status;
    if (!macho_is_shared_memory(fd)) {
        regions_lock(); /* a mapping may lengthen the file for a moment */
        int rc = ftruncate(fd, size);
        int code = errno;
        regions_unlock();
        errno = code;
        return rc;
    }
    if (size <= 0 || fstat(fd, &status) != 0 || status.st_size != 0) {
        errno = EINVAL;
        return -1;
    }
    return ftruncate(fd, (size + MACHO_PAGE_BYTES - 1) / MACHO_PAGE_BYTES * MACHO_PAGE_BYTES);
}

typedef struct darwin_dirent {
    uint64_t inode;
    uint64_t seek_offset;
    uint16_t record_bytes;
    uint16_t name_bytes;
    uint8_t type; /* the numbers agree */
    char name[1024];
} darwin_dirent;

typedef struct folder {
    DIR *ours;
    darwin_dirent entry;
} folder;

static folder *bridge_opendir(const char *path)
{
    DIR *ours = opendir(path);
    folder *opened = ours != NULL ? calloc(1, sizeof *opened) : NULL;
    if (opened != NULL) {
        opened->ours = ours;
    }
    return opened;
}

static darwin_dirent *bridge_readdir(folder *opened)
{
    const struct dirent *entry = readdir(opened->ours);
    if (entry == NULL) {
        return NULL;
    }
    size_t length = strlen(entry->d_name);
    opened->entry = (darwin_dirent){.inode = entry->d_ino,
                                    .record_bytes = sizeof opened->entry,
                                    .name_bytes = (uint16_t)length,
                                    .type = entry->d_type};
    memcpy(opened->entry.name, entry->d_name, length + 1);
    return &opened->entry;
}

static int bridge_closedir(folder *opened)
{
    int rc = closedir(opened->ours);
    free(opened);
    return rc;
}

/* glob_t; ours is kept where the error function stands, which nobody here gives. */
typedef struct darwin_glob {
    size_t count;
    int matches;
    size_t reserved;
    int flags;
    char **paths;
    glob_t *ours;
} darwin_glob;

static int bridge_glob(const char *pattern, int flags, const void *on_error, darwin_glob *out)
{
    if (flags != 0 || on_error != NULL) {
        macho_die("glob: no bridge for flags 0x%x, or for an error function", (unsigned)flags);
    }
    glob_t *ours = calloc(1, sizeof *ours);
    if (ours == NULL) {
        return -1;
    }
    int rc = glob(pattern, 0, NULL, ours);
    out->count = ours->gl_pathc;
    out->matches = (int)ours->gl_pathc;
    out->paths = ours->gl_pathv;
    out->ours = ours;
    return -rc; /* GLOB_NOSPACE, ABORTED, NOMATCH: 1 to 3 here, -1 to -3 there */
}

static void bridge_globfree(darwin_glob *found)
{
    globfree(found->ours);
    free(found->ours);
}

/* In bridge.S. */
void bridge_open(void);
void bridge_openat(void);
void bridge_shm_open(void);
void bridge_fcntl(void);
void bridge_ioctl(void);

const macho_bridge macho_bridges_files[] = {
    BRIDGE(opendir), BRIDGE(readdir), BRIDGE(closedir),   BRIDGE(glob),      BRIDGE(globfree),
    BRIDGE(open),    BRIDGE(openat),  BRIDGE(shm_open),   BRIDGE(fcntl),     BRIDGE(ioctl),
    BRIDGE(stat),    BRIDGE(lstat),   BRIDGE(fstat),      BRIDGE(read),      BRIDGE(write),
    BRIDGE(pread),   BRIDGE(pwrite),  BRIDGE(lseek),      BRIDGE(ftruncate), DIRECT(truncate),
    DIRECT(fsync),   DIRECT(close),   DIRECT(unlink),     DIRECT(link),      DIRECT(symlink),
    DIRECT(rmdir),   DIRECT(mkdir),   DIRECT(access),     DIRECT(pipe),      DIRECT(dup),
    DIRECT(dup2),    DIRECT(chdir),   DIRECT(shm_unlink), BRIDGES_END,
};
