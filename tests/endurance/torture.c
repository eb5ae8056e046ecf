/* Makes one call of the C library fail: the one that `countdown` counts down to, of the kind in `kind`.
 *
 * Preloaded into a portal. The words are in a file that the test and all threads of the portal share. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct words { _Atomic int kind, countdown, error; };
enum { NOTHING, OPEN, WRITE, SYNC, RENAME, SOCKET, SEND, THREAD, MEMORY, POLL };
enum { LARGE = 32768 }; /* Python aborts where it cannot have a few bytes, as any program does */

static struct words *words;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("TORTURE_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *words, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    words = at == MAP_FAILED ? NULL : at;
}

static int fails(int kind) {
    if (!words || words->kind != kind) return 0;
    if (atomic_fetch_sub(&words->countdown, 1) != 1) return 0;
    errno = words->error;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define WRAP(kind, failed, type, name, parameters, arguments, ...) \
    type name parameters { REAL(type, name, __VA_ARGS__); return fails(kind) ? failed : real arguments; }

#define WRAP_OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        return fails(OPEN) ? -1 : real(path, flags, mode); }
#define WRAP_OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(int, name, int, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        return fails(OPEN) ? -1 : real(at, path, flags, mode); }
WRAP_OPEN(open)
WRAP_OPEN(open64)
WRAP_OPENAT(openat)
WRAP_OPENAT(openat64)

/* Neither the log nor an eventfd, which cannot fail. */
static int is_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return words && words->kind == WRITE && is_file(fd) && fails(WRITE) ? -1 : real(fd, data, size);
}
WRAP(WRITE, -1, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), int, const void *, size_t, off_t)
WRAP(WRITE, -1, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), int, const void *, size_t, off64_t)
WRAP(SYNC, -1, int, fsync, (int fd), (fd), int)
WRAP(SYNC, -1, int, fdatasync, (int fd), (fd), int)
WRAP(RENAME, -1, int, rename, (const char *a, const char *b), (a, b), const char *, const char *)
WRAP(RENAME, -1, int, renameat, (int a, const char *b, int c, const char *d), (a, b, c, d), int, const char *, int, const char *)
WRAP(RENAME, -1, int, unlink, (const char *a), (a), const char *)
WRAP(RENAME, -1, int, mkdir, (const char *a, mode_t mode), (a, mode), const char *, mode_t)
WRAP(RENAME, -1, int, ftruncate64, (int fd, off64_t size), (fd, size), int, off64_t)
WRAP(SOCKET, -1, int, socket, (int a, int b, int c), (a, b, c), int, int, int)
WRAP(SOCKET, -1, int, accept4, (int a, struct sockaddr *b, socklen_t *c, int d), (a, b, c, d), int, struct sockaddr *, socklen_t *, int)
WRAP(SOCKET, -1, int, eventfd, (unsigned a, int b), (a, b), unsigned, int)
WRAP(SEND, -1, ssize_t, send, (int a, const void *b, size_t c, int d), (a, b, c, d), int, const void *, size_t, int)
WRAP(SEND, -1, ssize_t, sendmsg, (int a, const struct msghdr *b, int c), (a, b, c), int, const struct msghdr *, int)
WRAP(THREAD, EAGAIN, int, pthread_create, (pthread_t *a, const pthread_attr_t *b, void *(*c)(void *), void *d), (a, b, c, d), pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)
WRAP(POLL, -1, int, epoll_ctl, (int a, int b, int c, struct epoll_event *d), (a, b, c, d), int, int, int, struct epoll_event *)

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t); /* dlsym itself calls them */
void *malloc(size_t size) { return size >= LARGE && fails(MEMORY) ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) {
    return count * size >= LARGE && fails(MEMORY) ? NULL : __libc_calloc(count, size);
}
int posix_memalign(void **at, size_t alignment, size_t size) {
    REAL(int, posix_memalign, void **, size_t, size_t);
    return size >= LARGE && fails(MEMORY) ? ENOMEM : real(at, alignment, size);
}
