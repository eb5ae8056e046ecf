/* The load generator: many clients of an MJPEG server in one epoll loop, which discards bodies so as not to limit the server.
 *
 *     load --port P [--path /stream] [--viewers N] [--seconds S] [--warmup S] [--pid PID] [--queries "quality=50 quality=60"]
 *          [--throttled N --rate BYTES_PER_S] [--stuck N]
 *     load --port P [--path /stream] --connects N
 *
 * The first form runs N clients for S seconds, besides some that read slowly or not at all; --pid measures the CPU time of
 * that process in the window. It prints `ready` when all clients have received a frame and the warm-up starts, `watching`
 * when the window starts, and then one JSON object. The second form connects N times, one after another, and reports the
 * time to the first frame. Parts are framed by Content-Length; bodies are discarded in the kernel (MSG_TRUNC), except for
 * the stamp of reel.h (else X-Timestamp), from which the age of a frame at its last byte is computed.
 *
 * Connects only to 127.0.0.1, for at most MOST_SECONDS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "reel.h"

#define MOST_VIEWERS 1000
#define MOST_SECONDS 60
#define HEAD_BYTES 2048
#define ENOUGH_BYTES 1024 /* a part's header and the beginning of its picture, in one read */
#define READY_NS 20000000000u
#define THROTTLE_TICK_NS 5000000
/* A slow network keeps bytes at the sender. On loopback the receive buffer must be small, or it would contain seconds. */
#define THROTTLED_BUFFER 32768

typedef enum { ANSWER, HEADER, BODY } phase_t;

typedef struct {
    int fd;
    phase_t phase;
    size_t held; /* bytes in `head` */
    uint64_t left;
    uint64_t stamp_ns; /* CLOCK_MONOTONIC, 0 if there is none */
    int64_t unix_us;   /* X-Timestamp, 0 if there is none */
    uint64_t frames, bytes;
    uint64_t last_ns, longest_gap_ns;
    double budget_bytes; /* of a throttled viewer */
    int is_throttled;
    char head[HEAD_BYTES + 1];
} viewer_t;

typedef struct {
    uint32_t *us;
    size_t count, room;
} samples_t;

static char sink[1 << 20]; /* MSG_TRUNC writes nothing into it */
static samples_t latencies, throttled_ages;
static int is_measuring, is_stamped, is_timestamped;

static void quit(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
    exit(1);
}

/* --- figures ----------------------------------------------------------------------------------------------------- */

static void keep(samples_t *samples, uint64_t ns) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 4096;
        samples->us = realloc(samples->us, samples->room * sizeof *samples->us);
        if (samples->us == NULL)
            quit("no memory");
    }
    samples->us[samples->count++] = ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Prints `"name": {"p50_ms": …}`, or null without samples. */
static void print_samples(const char *name, samples_t *samples) {
    if (samples->count == 0) {
        printf(", \"%s\": null", name);
        return;
    }
    qsort(samples->us, samples->count, sizeof *samples->us, compare);
    size_t last = samples->count - 1;
    printf(", \"%s\": {\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}", name, samples->us[last / 2] / 1e3,
           samples->us[(size_t)((double)last * 0.99)] / 1e3, samples->us[last] / 1e3);
}

/* --- a viewer ---------------------------------------------------------------------------------------------------- */

static const char *find_header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strchr(head, '\n'); line != NULL; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':')
            return line + length + 1;
    }
    return NULL;
}

/* In microseconds: a double with today's date is only accurate to a quarter of one. */
static int64_t parse_timestamp(const char *text) {
    char *end;
    long long seconds = strtoll(text, &end, 10);
    long long us = 0;
    if (*end == '.')
        for (int digit = 0; digit < 6; digit++)
            us = us * 10 + (end[1] >= '0' && end[1] <= '9' ? *++end - '0' : 0);
    return seconds * 1000000 + us;
}

static void finish_frame(viewer_t *viewer) {
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (is_measuring) {
        samples_t *samples = viewer->is_throttled ? &throttled_ages : &latencies;
        if (viewer->stamp_ns) {
            is_stamped = 1;
            keep(samples, now - viewer->stamp_ns);
        } else if (viewer->unix_us) {
            is_timestamped = 1;
            int64_t age_us = (int64_t)(now_ns(CLOCK_REALTIME) / 1000) - viewer->unix_us;
            keep(samples, age_us > 0 ? (uint64_t)age_us * 1000 : 0);
        }
    }
    if (viewer->last_ns && now - viewer->last_ns > viewer->longest_gap_ns)
        viewer->longest_gap_ns = now - viewer->last_ns;
    viewer->last_ns = now;
    viewer->frames++;
    viewer->phase = HEADER;
}

/* Parses the complete items in `head`. Returns 1, or 0 if it needs more bytes. */
static int digest(viewer_t *viewer) {
    viewer->head[viewer->held] = 0;
    char *end = memmem(viewer->head, viewer->held, "\r\n\r\n", 4);
    if (end == NULL) {
        if (viewer->held >= HEAD_BYTES)
            quit("a header without an end");
        return 0;
    }
    end += 4;
    size_t taken = (size_t)(end - viewer->head);
    size_t behind = viewer->held - taken;
    if (viewer->phase == ANSWER) {
        if (strncmp(viewer->head, "HTTP/1.", 7) != 0 || strncmp(viewer->head + 8, " 200", 4) != 0)
            quit("the server returned %.60s", viewer->head);
        viewer->phase = HEADER;
    } else {
        char first = *end;
        *end = 0;
        const char *length = find_header(viewer->head, "Content-Length");
        const char *timestamp = find_header(viewer->head, "X-Timestamp");
        if (length == NULL)
            quit("a part without Content-Length: %s", viewer->head);
        viewer->left = strtoull(length, NULL, 10);
        viewer->unix_us = timestamp ? parse_timestamp(timestamp) : 0;
        *end = first;
        if (behind < STAMP_END && behind < viewer->left)
            return 0; /* the stamp is not complete yet */
        viewer->stamp_ns = read_stamp((unsigned char *)end, behind);
        size_t body = behind < viewer->left ? behind : (size_t)viewer->left;
        viewer->left -= body;
        viewer->bytes += body;
        taken += body;
        viewer->phase = BODY;
    }
    viewer->held -= taken;
    memmove(viewer->head, viewer->head + taken, viewer->held);
    return 1;
}

/* Reads at most `most` bytes without blocking; returns their number. */
static size_t advance(viewer_t *viewer, size_t most) {
    size_t total = 0;
    while (total < most) {
        size_t wanted;
        ssize_t count;
        if (viewer->phase == BODY) {
            wanted = viewer->left < sizeof sink ? (size_t)viewer->left : sizeof sink;
            wanted = wanted < most - total ? wanted : most - total;
            count = wanted ? recv(viewer->fd, sink, wanted, MSG_TRUNC | MSG_DONTWAIT) : 0;
        } else {
            size_t room = HEAD_BYTES - viewer->held;
            wanted = room < ENOUGH_BYTES ? room : ENOUGH_BYTES;
            wanted = wanted < most - total ? wanted : most - total;
            count = recv(viewer->fd, viewer->head + viewer->held, wanted, MSG_DONTWAIT);
        }
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0 || (count == 0 && wanted))
            quit("the server ended a connection (%s)", count < 0 ? strerror(errno) : "orderly");
        total += (size_t)count;
        if (viewer->phase == BODY) {
            viewer->left -= (uint64_t)count;
            viewer->bytes += (uint64_t)count;
        } else {
            viewer->held += (size_t)count;
            while (viewer->phase != BODY && digest(viewer))
                ;
        }
        if (viewer->phase == BODY && viewer->left == 0)
            finish_frame(viewer);
        if ((size_t)count < wanted)
            break; /* the socket is empty: another call would fail */
    }
    return total;
}

static void open_viewer(viewer_t *viewer, int port, const char *path, const char *query, int buffer_bytes) {
    memset(viewer, 0, sizeof *viewer);
    viewer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (buffer_bytes)
        setsockopt(viewer->fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(viewer->fd, (struct sockaddr *)&address, sizeof address) != 0)
        quit("cannot connect to port %d: %s", port, strerror(errno));
    char request[1024];
    const char *sign = *query ? (strchr(path, '?') ? "&" : "?") : "";
    int length = snprintf(request, sizeof request, "GET %s%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", path, sign, query, port);
    if (send(viewer->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        quit("cannot ask: %s", strerror(errno));
}

/* --- the two forms ----------------------------------------------------------------------------------------------- */

typedef struct {
    int port, viewers, throttled, stuck, connects;
    const char *path;
    char *queries;
    double seconds, warmup, rate;
    pid_t pid;
} options_t;

static void measure_connects(const options_t *options) {
    samples_t firsts = {0};
    for (int i = 0; i < options->connects; i++) {
        /* At a random moment between two frames of the server. */
        usleep((useconds_t)(rand() % 40000));
        viewer_t viewer;
        uint64_t began = now_ns(CLOCK_MONOTONIC);
        open_viewer(&viewer, options->port, options->path, "", 0);
        while (viewer.frames == 0) {
            struct pollfd wait = {.fd = viewer.fd, .events = POLLIN};
            if (poll(&wait, 1, 5000) != 1)
                quit("no picture within 5 s of connecting");
            advance(&viewer, SIZE_MAX);
        }
        keep(&firsts, viewer.last_ns - began);
        close(viewer.fd);
    }
    printf("{\"connects\": %d", options->connects);
    print_samples("first_picture", &firsts);
    printf("}\n");
}

static uint64_t process_cpu_ns(pid_t pid) {
    /* The id of a process's CPU clock, as clock_getcpuclockid(3) computes it. */
    return pid ? now_ns((clockid_t)((~(unsigned)pid) << 3 | 2)) : 0;
}

static int compare_frames(const void *a, const void *b) {
    uint64_t x = ((const viewer_t *)a)->frames, y = ((const viewer_t *)b)->frames;
    return (x > y) - (x < y);
}

static void measure_viewers(const options_t *options) {
    int total = options->viewers + options->throttled;
    viewer_t *viewers = calloc((size_t)total + 1, sizeof *viewers);
    if (viewers == NULL)
        quit("no memory");
    int poller = epoll_create1(EPOLL_CLOEXEC);
    char *queries[64] = {""};
    int query_count = 0;
    for (char *query = options->queries ? strtok(options->queries, " ") : NULL; query && query_count < 64; query = strtok(NULL, " "))
        queries[query_count++] = query;
    for (int i = 0; i < total; i++) {
        int is_throttled = i >= options->viewers;
        open_viewer(&viewers[i], options->port, options->path, query_count ? queries[i % query_count] : "",
                    is_throttled ? THROTTLED_BUFFER : 0);
        viewers[i].is_throttled = is_throttled;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &viewers[i]};
        if (!is_throttled)
            epoll_ctl(poller, EPOLL_CTL_ADD, viewers[i].fd, &event);
    }
    for (int i = 0; i < options->stuck; i++) {
        viewer_t *stuck = malloc(sizeof *stuck); /* left open until the end */
        open_viewer(stuck, options->port, options->path, "", 0);
    }
    int ticker = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec tick = {.it_interval = {0, THROTTLE_TICK_NS}, .it_value = {0, THROTTLE_TICK_NS}};
    timerfd_settime(ticker, 0, &tick, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (options->throttled)
        epoll_ctl(poller, EPOLL_CTL_ADD, ticker, &event);

    uint64_t began = now_ns(CLOCK_MONOTONIC), ready = 0, opens = UINT64_MAX, closes = UINT64_MAX;
    uint64_t server_cpu = 0, own_cpu = 0;
    int waiting = 1;
    for (;;) {
        uint64_t now = now_ns(CLOCK_MONOTONIC);
        if (!ready) {
            waiting = 0;
            for (int i = 0; i < total; i++)
                waiting += viewers[i].frames == 0;
            if (!waiting) {
                ready = now;
                opens = now + (uint64_t)(options->warmup * 1e9);
                closes = opens + (uint64_t)(options->seconds * 1e9);
                printf("ready\n");
                fflush(stdout);
            } else if (now - began > READY_NS) {
                quit("%d of %d viewers got no picture within %u s", waiting, total, READY_NS / 1000000000u);
            }
        }
        if (!is_measuring && now >= opens) {
            is_measuring = 1;
            for (int i = 0; i < total; i++)
                viewers[i].frames = viewers[i].bytes = viewers[i].longest_gap_ns = 0;
            printf("watching\n");
            fflush(stdout);
            opens = now_ns(CLOCK_MONOTONIC);
            server_cpu = process_cpu_ns(options->pid);
            own_cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        }
        if (now >= closes)
            break;
        struct epoll_event events[256];
        int count = epoll_wait(poller, events, 256, 10);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr != NULL) {
                advance(events[i].data.ptr, SIZE_MAX);
                continue;
            }
            uint64_t ticks;
            if (read(ticker, &ticks, sizeof ticks) != sizeof ticks)
                continue;
            for (viewer_t *viewer = viewers + options->viewers; viewer < viewers + total; viewer++) {
                viewer->budget_bytes += options->rate * (double)ticks * THROTTLE_TICK_NS / 1e9;
                if (viewer->budget_bytes >= 1)
                    viewer->budget_bytes -= (double)advance(viewer, (size_t)viewer->budget_bytes);
                if (viewer->budget_bytes > options->rate / 20)
                    viewer->budget_bytes = options->rate / 20; /* unused budget of the past expires */
            }
        }
    }
    uint64_t ended = now_ns(CLOCK_MONOTONIC);
    server_cpu = process_cpu_ns(options->pid) - server_cpu;
    own_cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu;

    double seconds = (double)(ended - opens) / 1e9;
    uint64_t frames = 0, bytes = 0, longest = 0, throttled_frames = 0;
    for (int i = 0; i < total; i++) {
        viewer_t *viewer = &viewers[i];
        if (viewer->is_throttled) {
            throttled_frames += viewer->frames;
            continue;
        }
        frames += viewer->frames;
        bytes += viewer->bytes;
        uint64_t gap = ended - viewer->last_ns > viewer->longest_gap_ns ? ended - viewer->last_ns : viewer->longest_gap_ns;
        longest = gap > longest ? gap : longest;
    }
    qsort(viewers, (size_t)options->viewers, sizeof *viewers, compare_frames);
    printf("{\"viewers\": %d, \"seconds\": %.4f, \"frames\": %llu, \"bytes\": %llu", options->viewers, seconds,
           (unsigned long long)frames, (unsigned long long)bytes);
    if (options->viewers)
        printf(", \"fps_slowest\": %.3f, \"fps_median\": %.3f, \"gap_longest_ms\": %.3f", (double)viewers[0].frames / seconds,
               (double)viewers[options->viewers / 2].frames / seconds, (double)longest / 1e6);
    printf(", \"server_cpu_ms\": %.6f, \"load_cpu_ms\": %.6f", (double)server_cpu / 1e6, (double)own_cpu / 1e6);
    printf(", \"age_by\": %s", is_stamped ? "\"stamp\"" : is_timestamped ? "\"X-Timestamp\"" : "null");
    print_samples("latency", &latencies);
    print_samples("throttled_age", &throttled_ages);
    printf(", \"throttled_fps\": %.3f", options->throttled ? (double)throttled_frames / options->throttled / seconds : 0.0);
    printf(", \"stuck\": %d}\n", options->stuck);
}

int main(int argc, char **argv) {
    options_t options = {.path = "/stream", .seconds = 5, .warmup = 1, .rate = 700000};
    static const struct option names[] = {
        {"port", 1, 0, 'p'},     {"path", 1, 0, 'P'}, {"viewers", 1, 0, 'v'}, {"seconds", 1, 0, 's'},
        {"warmup", 1, 0, 'w'},   {"pid", 1, 0, 'i'},  {"queries", 1, 0, 'q'}, {"throttled", 1, 0, 't'},
        {"rate", 1, 0, 'r'},     {"stuck", 1, 0, 'k'}, {"connects", 1, 0, 'c'}, {0, 0, 0, 0},
    };
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'p': options.port = atoi(optarg); break;
        case 'P': options.path = optarg; break;
        case 'v': options.viewers = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'w': options.warmup = atof(optarg); break;
        case 'i': options.pid = atoi(optarg); break;
        case 'q': options.queries = optarg; break;
        case 't': options.throttled = atoi(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'k': options.stuck = atoi(optarg); break;
        case 'c': options.connects = atoi(optarg); break;
        default: return 2;
        }
    }
    int total = options.viewers + options.throttled + options.stuck;
    if (options.port <= 0 || options.viewers < 0 || options.throttled < 0 || options.stuck < 0 || total > MOST_VIEWERS ||
        !(options.seconds > 0) || options.seconds + options.warmup > MOST_SECONDS || options.connects > MOST_VIEWERS ||
        (total == 0) == (options.connects <= 0) || !(options.rate > 0)) {
        fprintf(stderr, "load: see the head of load.c for what may be given\n");
        return 2;
    }
    alarm(MOST_SECONDS + 30); /* ends the process in any case */
    if (options.connects > 0)
        measure_connects(&options);
    else
        measure_viewers(&options);
    return 0;
}
