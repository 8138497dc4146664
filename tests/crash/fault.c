/* Faults in file operations, for the processes that load this library with LD_PRELOAD.

   Counts what changes files below one folder: opening to write, writing, syncing, renaming, removing,
   making folders. Writes to one file in a row count as one. At the n-th such operation the process is
   killed, or from there on the operations fail as on a full disk or on a read-only one. A killed
   write has written the first half of its bytes. Nothing happens until `fault_arm` is called. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FULL, READ_ONLY };
enum { MAX_FD = 4096 };

static int mode = -1;
static long at;
static char folder[PATH_MAX];
static atomic_long *counter; /* lies in memory that the parent sees as well */
static unsigned char watched[MAX_FD];
static int written = -1; /* the file that the last operation wrote to, if it did */

void fault_arm(const char *below, int how, long number, void *shared_counter) {
    snprintf(folder, sizeof folder, "%s", below);
    counter = shared_counter;
    at = number;
    mode = how;
}

#define REAL(type, name, ...)                                                                     \
    static type (*real)(__VA_ARGS__);                                                             \
    if (!real) real = dlsym(RTLD_NEXT, name)

static int inside(int dir, const char *path) {
    if (mode < 0 || !path) return 0;
    char whole[2 * PATH_MAX + 2];
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    return strncmp(whole, folder, strlen(folder)) == 0;
}

/* Counts an operation. Returns an error number if it must fail, -1 if the process must die. */
static int strike(int fd, int gives_space_back) {
    int goes_on = fd >= 0 && fd == written;
    long number = goes_on ? atomic_load(counter) : atomic_fetch_add(counter, 1) + 1;
    written = fd;
    if (mode == KILL && number == at) return -1;
    if (mode == READ_ONLY && number >= at) return EROFS;
    if (mode == FULL && number >= at && !gives_space_back) return ENOSPC;
    return 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define GUARD(is_inside, gives_space_back)                                                        \
    if (is_inside) {                                                                              \
        int error_ = strike(-1, gives_space_back);                                                   \
        if (error_ < 0) die();                                                                    \
        if (error_) {                                                                             \
            errno = error_;                                                                       \
            return -1;                                                                            \
        }                                                                                         \
    }

static int follow(int dir, const char *path, int fd) {
    if (fd >= 0 && fd < MAX_FD) watched[fd] = inside(dir, path);
    return fd;
}

static int is_watched(int fd) { return mode >= 0 && fd >= 0 && fd < MAX_FD && watched[fd]; }

static int changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; }

#define DEFINE_OPEN(name)                                                                         \
    int name(const char *path, int flags, ...) {                                                  \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        REAL(int, #name, const char *, int, ...);                                                 \
        GUARD(changes(flags) && inside(AT_FDCWD, path), 0);                                       \
        return follow(AT_FDCWD, path, real(path, flags, bits));                                   \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                                                       \
    int name(int dir, const char *path, int flags, ...) {                                         \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        REAL(int, #name, int, const char *, int, ...);                                            \
        GUARD(changes(flags) && inside(dir, path), 0);                                            \
        return follow(dir, path, real(dir, path, flags, bits));                                   \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

int close(int fd) {
    REAL(int, "close", int);
    if (fd >= 0 && fd < MAX_FD) watched[fd] = 0;
    if (fd == written) written = -1;
    return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (is_watched(fd)) {
        int error = strike(fd, 0);
        if (error < 0) {
            real(fd, bytes, size / 2);
            die();
        }
        if (error) {
            errno = error;
            return -1;
        }
    }
    return real(fd, bytes, size);
}

#define DEFINE_ON_FD(type, name, parameters, types, arguments)                                    \
    type name parameters {                                                                        \
        REAL(type, #name, types);                                                                 \
        GUARD(is_watched(fd), 0);                                                                 \
        return real arguments;                                                                    \
    }
#define LIST(...) __VA_ARGS__
DEFINE_ON_FD(int, fsync, (int fd), int, (fd))
DEFINE_ON_FD(int, fdatasync, (int fd), int, (fd))
DEFINE_ON_FD(int, ftruncate, (int fd, off_t size), LIST(int, off_t), (fd, size))
DEFINE_ON_FD(int, ftruncate64, (int fd, off64_t size), LIST(int, off64_t), (fd, size))
DEFINE_ON_FD(ssize_t, pwrite, (int fd, const void *bytes, size_t size, off_t to),
             LIST(int, const void *, size_t, off_t), (fd, bytes, size, to))
DEFINE_ON_FD(ssize_t, pwrite64, (int fd, const void *bytes, size_t size, off64_t to),
             LIST(int, const void *, size_t, off64_t), (fd, bytes, size, to))
DEFINE_ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int count),
             LIST(int, const struct iovec *, int), (fd, parts, count))
DEFINE_ON_FD(ssize_t, sendfile64, (int fd, int from, off64_t *offset, size_t size),
             LIST(int, int, off64_t *, size_t), (fd, from, offset, size))

#define DEFINE_ON_PATH(name, parameters, types, where, gives_space_back, arguments)               \
    int name parameters {                                                                         \
        REAL(int, #name, types);                                                                  \
        GUARD(inside where, gives_space_back);                                                    \
        return real arguments;                                                                    \
    }
DEFINE_ON_PATH(mkdir, (const char *path, mode_t bits), LIST(const char *, mode_t),
               (AT_FDCWD, path), 0, (path, bits))
DEFINE_ON_PATH(mkdirat, (int dir, const char *path, mode_t bits), LIST(int, const char *, mode_t),
               (dir, path), 0, (dir, path, bits))
DEFINE_ON_PATH(rmdir, (const char *path), LIST(const char *), (AT_FDCWD, path), 1, (path))
DEFINE_ON_PATH(unlink, (const char *path), LIST(const char *), (AT_FDCWD, path), 1, (path))
DEFINE_ON_PATH(unlinkat, (int dir, const char *path, int flags), LIST(int, const char *, int),
               (dir, path), 1, (dir, path, flags))
DEFINE_ON_PATH(rename, (const char *from, const char *to), LIST(const char *, const char *),
               (AT_FDCWD, to), 1, (from, to))
DEFINE_ON_PATH(renameat, (int from_dir, const char *from, int dir, const char *to),
               LIST(int, const char *, int, const char *), (dir, to), 1, (from_dir, from, dir, to))
DEFINE_ON_PATH(link, (const char *from, const char *to), LIST(const char *, const char *),
               (AT_FDCWD, to), 0, (from, to))
DEFINE_ON_PATH(symlink, (const char *target, const char *path), LIST(const char *, const char *),
               (AT_FDCWD, path), 0, (target, path))
