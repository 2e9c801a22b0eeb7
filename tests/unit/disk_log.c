/* Logs what a process does to files below $DISK_LOG_ROOT, in order, to the file $DISK_LOG: each write with its
 * bytes, each change of size, each synchronisation, each removal. To be preloaded (LD_PRELOAD).
 *
 * A record is: type (1 byte), length of the path (2), offset (8), length of the data (4), path, data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int log_fd = -1;
static const char *root;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DISK_LOG");
    root = getenv("DISK_LOG_ROOT");
    if (path && root)
        log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(char type, const char *path, uint64_t offset, const void *data, uint32_t size)
{
    uint16_t length = strlen(path);
    char *record = malloc(15 + length + size);
    ssize_t (*plain)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");

    record[0] = type;
    memcpy(record + 1, &length, 2);
    memcpy(record + 3, &offset, 8);
    memcpy(record + 11, &size, 4);
    memcpy(record + 15, path, length);
    memcpy(record + 15 + length, data, size);
    plain(log_fd, record, 15 + length + size);
    free(record);
}

/* Whether the descriptor is of a file below the root; its path then. */
static int ours(int fd, char *path, size_t room)
{
    char link[64];
    ssize_t size;

    if (log_fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, room - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return !strncmp(path, root, strlen(root));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    char path[4096];
    ssize_t done = real(fd, data, size, offset);

    if (done > 0 && ours(fd, path, sizeof path))
        put('w', path, offset, data, done);
    return done;
}

int ftruncate64(int fd, off64_t size)
{
    int (*real)(int, off64_t) = dlsym(RTLD_NEXT, "ftruncate64");
    char path[4096];
    int done = real(fd, size);

    if (!done && ours(fd, path, sizeof path))
        put('t', path, size, "", 0);
    return done;
}

static int sync_with(const char *name, int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    char path[4096];
    int done = real(fd);

    if (!done && ours(fd, path, sizeof path))
        put('s', path, 0, "", 0);
    return done;
}

int fsync(int fd) { return sync_with("fsync", fd); }

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int unlink(const char *path)
{
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    int done = real(path);

    if (!done && log_fd >= 0 && !strncmp(path, root, strlen(root)))
        put('d', path, 0, "", 0);
    return done;
}
