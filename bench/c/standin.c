/* An emulated V4L2 camera: preloaded into a program, it plays a reel as a camera that delivers MJPEG.
 *
 *     BENCH_REEL=vga.reel BENCH_WIDTH=640 BENCH_HEIGHT=480 BENCH_FPS=30 LD_PRELOAD=standin.so ustreamer --device vga.reel …
 *
 * The program opens the reel's path as its device and gets a timer, which becomes readable when a frame is due, so that
 * select and poll work as on a camera. The few ioctls that a capturing program uses are implemented; calls on any other
 * descriptor go to the real functions. One device, one stream, MMAP buffers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "reel.h"

#define MOST_BUFFERS 16

/* Guarded by `lock`, as the program may queue buffers from its worker threads. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int camera_fd = -1;
static reel_t reel;
static unsigned char *buffers[MOST_BUFFERS];
static unsigned queue[MOST_BUFFERS]; /* the buffers that the program has queued, oldest first */
static unsigned buffer_count, queued;
static size_t buffer_bytes;
static uint64_t shown;

static unsigned read_number(const char *name, unsigned otherwise) {
    const char *text = getenv(name);
    return text != NULL && atoi(text) > 0 ? (unsigned)atoi(text) : otherwise;
}

static int is_camera(const char *path) {
    const char *wanted = getenv("BENCH_REEL");
    return wanted != NULL && strcmp(path, wanted) == 0;
}

static int open_camera(const char *path) {
    pthread_mutex_lock(&lock);
    if (reel.count == 0 && load_reel(path, &reel) != 0) {
        pthread_mutex_unlock(&lock);
        errno = ENODEV;
        return -1;
    }
    long page = sysconf(_SC_PAGESIZE);
    buffer_bytes = (reel.largest + (size_t)page - 1) / (size_t)page * (size_t)page;
    camera_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int fd = camera_fd;
    pthread_mutex_unlock(&lock);
    return fd;
}

static int fail(int number) {
    errno = number;
    return -1;
}

static void run_timer(int is_running) {
    long period_ns = is_running ? 1000000000L / (long)read_number("BENCH_FPS", 30) : 0;
    struct itimerspec beat = {.it_interval = {0, period_ns}, .it_value = {0, period_ns}};
    if (period_ns >= 1000000000L)
        beat = (struct itimerspec){.it_interval = {1, 0}, .it_value = {1, 0}};
    timerfd_settime(camera_fd, 0, &beat, NULL);
}

static void fill_format(struct v4l2_format *format) {
    format->fmt.pix = (struct v4l2_pix_format){
        .width = read_number("BENCH_WIDTH", 640),
        .height = read_number("BENCH_HEIGHT", 480),
        .pixelformat = V4L2_PIX_FMT_MJPEG,
        .field = V4L2_FIELD_NONE,
        .sizeimage = (uint32_t)buffer_bytes,
        .colorspace = V4L2_COLORSPACE_JPEG,
    };
}

static int dequeue(struct v4l2_buffer *buffer) {
    uint64_t due;
    if (queued == 0 || read(camera_fd, &due, sizeof due) != sizeof due)
        return fail(EAGAIN);
    shown += due;
    const picture_t *picture = &reel.pictures[shown % reel.count];
    unsigned index = queue[0];
    memmove(queue, queue + 1, --queued * sizeof *queue);
    memcpy(buffers[index], picture->data, picture->size);
    uint64_t made_ns = now_ns(CLOCK_MONOTONIC);
    write_stamp(buffers[index], made_ns);
    buffer->index = index;
    buffer->bytesused = (uint32_t)picture->size;
    buffer->length = (uint32_t)buffer_bytes;
    buffer->flags = V4L2_BUF_FLAG_MAPPED | V4L2_BUF_FLAG_DONE | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->field = V4L2_FIELD_NONE;
    buffer->timestamp.tv_sec = (time_t)(made_ns / 1000000000u);
    buffer->timestamp.tv_usec = (suseconds_t)(made_ns / 1000 % 1000000);
    buffer->sequence = (uint32_t)shown;
    return 0;
}

static int answer(unsigned long request, void *argument) {
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *capability = argument;
        memset(capability, 0, sizeof *capability);
        strcpy((char *)capability->driver, "standin");
        strcpy((char *)capability->card, "a reel");
        strcpy((char *)capability->bus_info, "none");
        capability->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        capability->capabilities = capability->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_S_INPUT:
        return 0;
    case VIDIOC_G_FMT:
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT:
        fill_format(argument);
        return 0;
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *parameters = argument;
        parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        parameters->parm.capture.timeperframe = (struct v4l2_fract){1, read_number("BENCH_FPS", 30)};
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wish = argument;
        if (wish->memory != V4L2_MEMORY_MMAP)
            return fail(EINVAL);
        if (wish->count > MOST_BUFFERS)
            wish->count = MOST_BUFFERS;
        buffer_count = wish->count;
        queued = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        if (buffer->index >= buffer_count)
            return fail(EINVAL);
        buffer->length = (uint32_t)buffer_bytes;
        buffer->m.offset = buffer->index * (uint32_t)buffer_bytes;
        return 0;
    }
    case VIDIOC_QBUF: {
        struct v4l2_buffer *buffer = argument;
        if (buffer->index >= buffer_count || queued == MOST_BUFFERS)
            return fail(EINVAL);
        queue[queued++] = buffer->index;
        return 0;
    }
    case VIDIOC_DQBUF:
        return dequeue(argument);
    case VIDIOC_STREAMON:
        run_timer(1);
        return 0;
    case VIDIOC_STREAMOFF:
        run_timer(0);
        queued = 0;
        return 0;
    default:
        return fail(ENOTTY); /* as a driver answers an unknown request */
    }
}

/* --- what the program calls ------------------------------------------------------------------------------------- */

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static int open_any(const char *path, int flags, va_list rest, const char *real) {
    if (is_camera(path))
        return open_camera(path);
    int has_mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    mode_t mode = has_mode ? va_arg(rest, mode_t) : 0;
    int (*function)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, real);
    return function(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int fd = open_any(path, flags, rest, "open");
    va_end(rest);
    return fd;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int fd = open_any(path, flags, rest, "open64");
    va_end(rest);
    return fd;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd < 0 || fd != camera_fd)
        return REAL(ioctl)(fd, request, argument);
    pthread_mutex_lock(&lock);
    /* Callers may sign-extend the request to 64 bits; the kernel uses 32. */
    int result = answer(request & 0xffffffffu, argument);
    int number = errno;
    pthread_mutex_unlock(&lock);
    errno = number;
    return result;
}

static void *map_any(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd < 0 || fd != camera_fd)
        return REAL(mmap)(at, length, protection, flags, fd, offset);
    size_t index = (size_t)offset / buffer_bytes;
    if (index >= buffer_count || length > buffer_bytes) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    void *memory = REAL(mmap)(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED)
        buffers[index] = memory;
    return memory;
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return map_any(at, length, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
    return map_any(at, length, protection, flags, fd, (off_t)offset);
}
