/* Faults for what a process writes below a directory, whoever writes it: Python, Rust or C++.

   Loaded with LD_PRELOAD. Operations that change the file system are counted; at the n-th one the process is killed, gets
   SIGTERM, finds the disk full from then on, or sees this one operation fail. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, STOP, FULL, FAIL };
enum { OTHER, TAKES_ROOM, REMOVES }; /* what an operation does; one that removes never fails */

static char root[PATH_MAX];
static int kind, nth, error;
static long count;

void faults_arm(const char *below, int which, int at, int number) {
    snprintf(root, sizeof root, "%s/", below);
    kind = which, nth = at, error = number;
    __atomic_store_n(&count, 0, __ATOMIC_SEQ_CST);
}

long faults_count(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }

static int below(int directory, const char *path) {
    char place[PATH_MAX], whole[PATH_MAX * 2 + 2];
    if (!root[0] || !path) return 0;
    if (path[0] == '/') return !strncmp(path, root, strlen(root));
    char link[64];
    snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, place, sizeof place - 1);
    if (length < 0) return 0;
    place[length] = 0;
    snprintf(whole, sizeof whole, "%s/%s", place, path);
    return !strncmp(whole, root, strlen(root));
}

static int opened_below(int file) { return below(file, ""); }

/* Count an operation; say whether it is to fail. */
static int fails(int what) {
    long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (kind == KILL && now == nth) _exit(137);
    if (kind == STOP && now == nth) raise(SIGTERM);
    int failing = (kind == FULL && now >= nth && what == TAKES_ROOM) || (kind == FAIL && now == nth && what != REMOVES);
    if (failing) errno = error;
    return failing;
}

#define NEXT(name) static typeof(&name) next; if (!next) next = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define OPEN(name, DIRECTORY, ...)                                                      \
    int mode = 0;                                                                       \
    NEXT(name);                                                                         \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                \
        va_list rest;                                                                   \
        va_start(rest, flags);                                                          \
        mode = va_arg(rest, int);                                                       \
        va_end(rest);                                                                   \
    }                                                                                   \
    if ((flags & (O_CREAT | O_TRUNC)) && below(DIRECTORY, path) && fails(TAKES_ROOM)) return -1; \
    return next(__VA_ARGS__, flags, mode);

int open(const char *path, int flags, ...) { OPEN(open, AT_FDCWD, path) }
int open64(const char *path, int flags, ...) { OPEN(open64, AT_FDCWD, path) }
int openat(int at, const char *path, int flags, ...) { OPEN(openat, at, at, path) }
int openat64(int at, const char *path, int flags, ...) { OPEN(openat64, at, at, path) }

#define FOPEN(name)                                                                     \
    NEXT(name);                                                                         \
    if (strpbrk(mode, "wa") && below(AT_FDCWD, path) && fails(TAKES_ROOM)) return NULL; \
    return next(path, mode);

FILE *fopen(const char *path, const char *mode) { FOPEN(fopen) }
FILE *fopen64(const char *path, const char *mode) { FOPEN(fopen64) }

/* Of a write that is cut off half arrives. */
#define WRITE(name, half, ...)                                                          \
    NEXT(name);                                                                         \
    if (opened_below(file)) {                                                           \
        if (kind == KILL && faults_count() + 1 == nth) half;                            \
        if (fails(TAKES_ROOM)) return -1;                                               \
    }                                                                                   \
    return next(__VA_ARGS__);

ssize_t write(int file, const void *from, size_t size) { WRITE(write, next(file, from, size / 2), file, from, size) }
ssize_t pwrite(int file, const void *from, size_t size, off_t at) {
    WRITE(pwrite, next(file, from, size / 2, at), file, from, size, at)
}
ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
    WRITE(pwrite64, next(file, from, size / 2, at), file, from, size, at)
}
ssize_t writev(int file, const struct iovec *from, int parts) {
    WRITE(writev, next(file, from, parts / 2), file, from, parts)
}

#define ON_FILE(name, what, ...)                                                        \
    NEXT(name);                                                                         \
    if (opened_below(file) && fails(what)) return -1;                                   \
    return next(__VA_ARGS__);

int fsync(int file) { ON_FILE(fsync, OTHER, file) }
int fdatasync(int file) { ON_FILE(fdatasync, OTHER, file) }
int ftruncate(int file, off_t size) { ON_FILE(ftruncate, TAKES_ROOM, file, size) }
int ftruncate64(int file, off64_t size) { ON_FILE(ftruncate64, TAKES_ROOM, file, size) }

#define ON_PATH(name, what, DIRECTORY, ...)                                             \
    NEXT(name);                                                                         \
    if (below(DIRECTORY, path) && fails(what)) return -1;                               \
    return next(__VA_ARGS__);

int mkdir(const char *path, mode_t mode) { ON_PATH(mkdir, TAKES_ROOM, AT_FDCWD, path, mode) }
int mkdirat(int at, const char *path, mode_t mode) { ON_PATH(mkdirat, TAKES_ROOM, at, at, path, mode) }
int rename(const char *path, const char *to) { ON_PATH(rename, OTHER, AT_FDCWD, path, to) }
int renameat(int at, const char *path, int there, const char *to) { ON_PATH(renameat, OTHER, at, at, path, there, to) }
int unlink(const char *path) { ON_PATH(unlink, REMOVES, AT_FDCWD, path) }
int unlinkat(int at, const char *path, int flags) { ON_PATH(unlinkat, REMOVES, at, at, path, flags) }
int rmdir(const char *path) { ON_PATH(rmdir, REMOVES, AT_FDCWD, path) }
