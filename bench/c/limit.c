/* The lower bound: a minimal MJPEG server with one send per client, in one epoll loop.
 *
 *     limit REEL FPS
 *
 * Listens at 127.0.0.1 on a port that the system chooses, prints `Listening on http://127.0.0.1:PORT/`, and plays the reel to
 * every connection, whatever the request. Each frame is assembled once; every idle client gets it with one send; a client
 * that has bytes left completes its part and continues with the newest frame. Exits on SIGTERM.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "reel.h"

#define MOST_VIEWERS 4096
#define NOTSENT_LOWAT 16384 /* as the portal: bytes that wait in the kernel are old when they are sent */
#define HEADER_BYTES 256

static const char answer[] = "HTTP/1.1 200 OK\r\n"
                             "Content-Type: multipart/x-mixed-replace;boundary=frame\r\n"
                             "Cache-Control: no-store\r\n"
                             "Connection: close\r\n\r\n"
                             "--frame\r\n";

/* The bytes of one frame, shared by all clients that send it; freed by the last one. */
typedef struct {
    size_t users;
    size_t size;
    unsigned char bytes[];
} part_t;

typedef struct {
    int fd;
    size_t place;    /* index in `viewers` */
    int is_watching; /* the request has been read */
    int is_waiting;  /* for EPOLLOUT */
    part_t *part;    /* being sent, or NULL */
    size_t sent;
} viewer_t;

static viewer_t *viewers[MOST_VIEWERS];
static size_t viewer_count;
static int poller;
static part_t *newest;

static void drop_part(part_t *part) {
    if (part != NULL && --part->users == 0)
        free(part);
}

static void drop_viewer(viewer_t *viewer) {
    close(viewer->fd);
    drop_part(viewer->part);
    viewers[viewer->place] = viewers[--viewer_count];
    viewers[viewer->place]->place = viewer->place;
    free(viewer);
}

static void watch(viewer_t *viewer, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = viewer};
    epoll_ctl(poller, EPOLL_CTL_MOD, viewer->fd, &event);
}

/* Returns 0, or -1 if the client has disconnected. */
static int send_on(viewer_t *viewer) {
    part_t *part = viewer->part;
    ssize_t count = send(viewer->fd, part->bytes + viewer->sent, part->size - viewer->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN)
        return -1;
    if (count > 0)
        viewer->sent += (size_t)count;
    if (viewer->sent == part->size) {
        drop_part(part);
        viewer->part = NULL;
    }
    int must_wait = viewer->part != NULL;
    if (must_wait != viewer->is_waiting)
        watch(viewer, EPOLLIN | EPOLLRDHUP | (must_wait ? EPOLLOUT : 0));
    viewer->is_waiting = must_wait;
    return 0;
}

static void begin(viewer_t *viewer) {
    viewer->part = newest;
    viewer->sent = 0;
    newest->users++;
    if (send_on(viewer) != 0)
        drop_viewer(viewer);
}

static void show(const picture_t *picture) {
    part_t *part = malloc(sizeof *part + HEADER_BYTES + picture->size);
    if (part == NULL)
        abort();
    uint64_t unix_us = now_ns(CLOCK_REALTIME) / 1000;
    int header = snprintf((char *)part->bytes, HEADER_BYTES,
                          "Content-Type: image/jpeg\r\nContent-Length: %zu\r\nX-Timestamp: %llu.%06llu\r\n\r\n", picture->size,
                          (unsigned long long)(unix_us / 1000000), (unsigned long long)(unix_us % 1000000));
    unsigned char *jpeg = part->bytes + header;
    memcpy(jpeg, picture->data, picture->size);
    write_stamp(jpeg, now_ns(CLOCK_MONOTONIC));
    memcpy(jpeg + picture->size, "\r\n--frame\r\n", 11);
    part->size = (size_t)header + picture->size + 11;
    part->users = 1;
    drop_part(newest);
    newest = part;
    /* Downwards: when a client is removed, the last one is moved to its index. */
    for (size_t i = viewer_count; i-- > 0;)
        if (viewers[i]->is_watching && viewers[i]->part == NULL)
            begin(viewers[i]);
}

static void take(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    viewer_t *viewer = calloc(1, sizeof *viewer);
    if (viewer == NULL || viewer_count == MOST_VIEWERS) {
        free(viewer);
        close(fd);
        return;
    }
    int one = 1, lowat = NOTSENT_LOWAT;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof lowat);
    viewer->fd = fd;
    viewer->place = viewer_count;
    viewers[viewer_count++] = viewer;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = viewer};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void serve(viewer_t *viewer, uint32_t events) {
    if (events & EPOLLIN) {
        char request[4096];
        ssize_t count = recv(viewer->fd, request, sizeof request, MSG_DONTWAIT);
        if (count == 0 || (count < 0 && errno != EAGAIN)) {
            drop_viewer(viewer);
            return;
        }
        /* The client sends its request in one piece, and nothing after it. */
        if (!viewer->is_watching) {
            if (send(viewer->fd, answer, sizeof answer - 1, MSG_NOSIGNAL) != (ssize_t)sizeof answer - 1) {
                drop_viewer(viewer);
                return;
            }
            viewer->is_watching = 1;
            if (newest != NULL) {
                begin(viewer);
                return;
            }
        }
    }
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        drop_viewer(viewer);
        return;
    }
    if ((events & EPOLLOUT) && viewer->part != NULL && send_on(viewer) != 0)
        drop_viewer(viewer);
}

int main(int argc, char **argv) {
    reel_t reel;
    double fps = argc == 3 ? atof(argv[2]) : 0;
    if (fps <= 0 || load_reel(argv[1], &reel) != 0) {
        fprintf(stderr, "limit REEL FPS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1024) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        perror("limit");
        return 1;
    }
    printf("Listening on http://127.0.0.1:%d/\n", ntohs(address.sin_port));
    fflush(stdout);

    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    long period_ns = (long)(1e9 / fps);
    struct itimerspec beat = {.it_interval = {period_ns / 1000000000, period_ns % 1000000000},
                              .it_value = {period_ns / 1000000000, period_ns % 1000000000}};
    timerfd_settime(timer, 0, &beat, NULL);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);

    uint64_t shown = 0;
    for (;;) {
        /* One event at a time, so that a removed client has no event left in the list. */
        if (epoll_wait(poller, &event, 1, -1) != 1)
            continue;
        if (event.data.ptr == &listener) {
            take(listener);
        } else if (event.data.ptr == &timer) {
            uint64_t due;
            if (read(timer, &due, sizeof due) == sizeof due) {
                shown += due;
                show(&reel.pictures[shown % reel.count]);
            }
        } else {
            serve(event.data.ptr, event.events);
        }
    }
}
