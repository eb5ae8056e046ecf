/*
 * Preloaded into every process of the rig: gives buffers where the kernel offers no dma-buf.
 *
 * Two devices are asked for memory that a camera and a processor can share. libcamera's virtual pipeline turns a
 * memfd into a dma-buf at /dev/udmabuf; Picamera2 takes one from /dev/dma_heap. No device of the rig ever touches
 * that memory, so a plain memfd serves as well, and a kernel without either device does not matter:
 *
 *   opening one of them       opens /dev/null, which makes a descriptor to send the requests to
 *   udmabuf "create"          gives the caller's own memfd back
 *   dma-heap "allocate"       gives a fresh memfd
 *   dma-buf "sync", "name"    are accepted: memory of one processor needs no sync
 *
 *   gcc -O2 -Wall -Werror -shared -fPIC -o dmabuf_shim.so dmabuf_shim.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>

/*
 * The next definition of a function, looked up on first use: a constructor would come too late, as constructors of
 * other libraries open files. Two threads that meet here store the same value.
 */
#define NEXT(name)                                            \
    ({                                                        \
        static __typeof__(&name) next_;                       \
        if (next_ == NULL)                                    \
            next_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        if (next_ == NULL)                                    \
            abort();                                          \
        next_;                                                \
    })

static const char heap_folder[] = "/dev/dma_heap/";

static int gives_buffers(const char *path)
{
    return path != NULL && (strcmp(path, "/dev/udmabuf") == 0 || strncmp(path, heap_folder, sizeof heap_folder - 1) == 0);
}

static const char *redirected(const char *path)
{
    return gives_buffers(path) ? "/dev/null" : path;
}

/* The third argument of open(2) exists only where a file may be made. */
#define READ_MODE(mode, flags)                              \
    mode_t mode = 0;                                        \
    if (((flags) & O_CREAT) != 0 || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode = va_arg(rest, mode_t);                        \
        va_end(rest);                                       \
    }

int open(const char *path, int flags, ...)
{
    READ_MODE(mode, flags)
    return NEXT(open)(redirected(path), flags, mode);
}

int open64(const char *path, int flags, ...)
{
    READ_MODE(mode, flags)
    return NEXT(open64)(redirected(path), flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    READ_MODE(mode, flags)
    return NEXT(openat)(folder, redirected(path), flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    READ_MODE(mode, flags)
    return NEXT(openat64)(folder, redirected(path), flags, mode);
}

static int allocate(struct dma_heap_allocation_data *wish)
{
    int memory = memfd_create("rig-dma-heap", MFD_CLOEXEC);
    if (memory < 0)
        return -1;
    if (ftruncate(memory, (off_t)wish->len) < 0) {
        int reason = errno;
        close(memory);
        errno = reason;
        return -1;
    }
    wish->fd = (unsigned int)memory;
    return 0;
}

int ioctl(int descriptor, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);

    /* Python passes the number as a signed int, so the upper half may be all ones. */
    unsigned int number = (unsigned int)request;
    if (number == UDMABUF_CREATE)
        return fcntl((int)((struct udmabuf_create *)argument)->memfd, F_DUPFD_CLOEXEC, 0);
    if (number == DMA_HEAP_IOCTL_ALLOC)
        return allocate(argument);

    int result = NEXT(ioctl)(descriptor, request, argument);
    if (result < 0 && errno == ENOTTY && _IOC_TYPE(number) == DMA_BUF_BASE) {
        errno = 0;
        return 0;
    }
    return result;
}
