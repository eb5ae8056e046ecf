/* Viewers of an RTSP stream, by TCP or by UDP, which discard what they receive in the kernel.
 *
 *     rtsp_load PORT PATH tcp|udp VIEWERS SECONDS PID
 *
 * Connects all viewers one after the other, waits until the first pictures are read, and measures for SECONDS. Prints one
 * JSON object: the bytes and packets of all viewers, of the one with the fewest and of the one with the most, and the CPU
 * time of this process and of the server PID. One thread, one epoll, loopback only.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_VIEWERS 512
#define BATCH 64
#define RECEIVE_BYTES (4 << 20)
#define WARM_UP_S 1.0

typedef struct {
    int control, media, reports;
    int cseq;
    char session[128];
    uint64_t bytes, packets;
} viewer_t;

static viewer_t viewers[MAX_VIEWERS];
static char discarded[RECEIVE_BYTES];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static double clock_s(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        fail("clock: %s", strerror(errno));
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The CPU clock of a process, as clock_getcpuclockid(3) computes it. */
static clockid_t cpu_clock(pid_t pid) { return (clockid_t)((~(unsigned)pid << 3) | 2); }

/* Reads from the connection until there are `size` bytes in `buffer`. */
static void read_bytes(viewer_t *viewer, char *buffer, size_t size) {
    if (recv(viewer->control, buffer, size, MSG_WAITALL) != (ssize_t)size)
        fail("the server closed a connection");
}

/* Sends a request and reads the response; media before it is skipped. */
static void ask(viewer_t *viewer, const char *method, const char *url, const char *fields, char *answer, size_t size) {
    char request[2048];
    int length = snprintf(request, sizeof request, "%s %s RTSP/1.0\r\nCSeq: %d\r\n%s%s%s%s\r\n", method, url,
                          ++viewer->cseq, viewer->session[0] ? "Session: " : "", viewer->session,
                          viewer->session[0] ? "\r\n" : "", fields);
    if (send(viewer->control, request, (size_t)length, MSG_NOSIGNAL) != length)
        fail("%s: %s", method, strerror(errno));
    for (;;) {
        read_bytes(viewer, answer, 4);
        if (answer[0] != '$')
            break;
        read_bytes(viewer, discarded, (size_t)(uint8_t)answer[2] << 8 | (uint8_t)answer[3]);
    }
    size_t received = 4;
    for (answer[received] = 0; strstr(answer, "\r\n\r\n") == NULL; answer[++received] = 0) {
        if (received + 1 >= size)
            fail("%s: the response is too long", method);
        read_bytes(viewer, answer + received, 1);
    }
    char *body = strcasestr(answer, "Content-Length:");
    size_t expected = body != NULL ? strtoul(body + 15, NULL, 10) : 0;
    if (received + expected >= size)
        fail("%s: the response is too long", method);
    if (expected > 0)
        read_bytes(viewer, answer + received, expected);
    answer[received + expected] = 0;
    if (strncmp(answer, "RTSP/1.0 200", 12) != 0)
        fail("%s: %.60s", method, answer);
}

static int udp_socket(uint16_t *port) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int bytes = RECEIVE_BYTES, udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *)&name, length) != 0 ||
        getsockname(udp, (struct sockaddr *)&name, &length) != 0)
        fail("UDP: %s", strerror(errno));
    if (setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    *port = ntohs(name.sin_port);
    return udp;
}

static void play(viewer_t *viewer, int port, const char *path, int is_udp) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    viewer->control = socket(AF_INET, SOCK_STREAM, 0);
    if (viewer->control < 0 || connect(viewer->control, (struct sockaddr *)&name, sizeof name) != 0)
        fail("connect: %s", strerror(errno));
    static char answer[65536];
    char url[512], fields[256], track[640];
    snprintf(url, sizeof url, "rtsp://127.0.0.1:%d/%s", port, path);
    ask(viewer, "DESCRIBE", url, "Accept: application/sdp\r\n", answer, sizeof answer);
    char *control = NULL;
    for (char *next = answer; (next = strstr(next, "a=control:")) != NULL;)
        control = next += 10;
    if (control == NULL)
        fail("no track");
    control[strcspn(control, "\r\n")] = 0;
    if (strncmp(control, "rtsp://", 7) == 0)
        snprintf(track, sizeof track, "%s", control);
    else
        snprintf(track, sizeof track, "%s/%s", url, control);
    if (is_udp) {
        uint16_t media, reports;
        viewer->media = udp_socket(&media);
        viewer->reports = udp_socket(&reports);
        snprintf(fields, sizeof fields, "Transport: RTP/AVP;unicast;client_port=%d-%d\r\n", media, reports);
    } else {
        viewer->media = viewer->control;
        snprintf(fields, sizeof fields, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    }
    ask(viewer, "SETUP", track, fields, answer, sizeof answer);
    char *session = strcasestr(answer, "Session:");
    if (session == NULL)
        fail("no session");
    session += 8 + strspn(session + 8, " ");
    snprintf(viewer->session, sizeof viewer->session, "%.*s", (int)strcspn(session, ";\r\n"), session);
    ask(viewer, "PLAY", url, "Range: npt=0-\r\n", answer, sizeof answer);
}

static void receive(viewer_t *viewer, int is_udp) {
    if (!is_udp) {
        /* MSG_TRUNC: tcp(7) discards the bytes without a copy. */
        ssize_t count = recv(viewer->media, discarded, sizeof discarded, MSG_DONTWAIT | MSG_TRUNC);
        if (count == 0 || (count < 0 && errno != EAGAIN))
            fail("the server closed a connection");
        viewer->bytes += count > 0 ? (uint64_t)count : 0;
        return;
    }
    static struct mmsghdr messages[BATCH];
    static char bytes[BATCH][16];
    static struct iovec parts[BATCH];
    for (int index = 0; index < BATCH; index++) {
        parts[index] = (struct iovec){bytes[index], sizeof bytes[index]};
        messages[index].msg_hdr = (struct msghdr){.msg_iov = &parts[index], .msg_iovlen = 1};
    }
    int count = recvmmsg(viewer->media, messages, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
    for (int index = 0; index < count; index++)
        viewer->bytes += messages[index].msg_len;
    viewer->packets += count > 0 ? (uint64_t)count : 0;
}

static void receive_until(int epoll, double end_s, int is_udp) {
    struct epoll_event events[BATCH];
    for (double left_s; (left_s = end_s - clock_s(CLOCK_MONOTONIC)) > 0;) {
        int count = epoll_wait(epoll, events, BATCH, (int)(left_s * 1000) + 1);
        for (int index = 0; index < count; index++)
            receive(events[index].data.ptr, is_udp);
    }
}

int main(int count, char **words) {
    if (count != 7)
        fail("usage: rtsp_load PORT PATH tcp|udp VIEWERS SECONDS PID");
    int is_udp = strcmp(words[3], "udp") == 0, number = atoi(words[4]);
    double seconds = atof(words[5]);
    clockid_t server = cpu_clock(atoi(words[6])), own = CLOCK_PROCESS_CPUTIME_ID;
    if (number < 1 || number > MAX_VIEWERS)
        fail("VIEWERS: must be from 1 to %d", MAX_VIEWERS);
    int epoll = epoll_create1(0);
    for (int index = 0; index < number; index++) {
        play(&viewers[index], atoi(words[1]), words[2], is_udp);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &viewers[index]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, viewers[index].media, &event);
        receive_until(epoll, clock_s(CLOCK_MONOTONIC) + 0.001, is_udp);
    }
    receive_until(epoll, clock_s(CLOCK_MONOTONIC) + WARM_UP_S, is_udp);
    for (int index = 0; index < number; index++)
        viewers[index].bytes = viewers[index].packets = 0;
    double began_s = clock_s(CLOCK_MONOTONIC), server_s = clock_s(server), own_s = clock_s(own);
    receive_until(epoll, began_s + seconds, is_udp);
    double took_s = clock_s(CLOCK_MONOTONIC) - began_s;
    server_s = clock_s(server) - server_s;
    own_s = clock_s(own) - own_s;
    uint64_t bytes = 0, packets = 0, least = UINT64_MAX, most = 0;
    for (int index = 0; index < number; index++) {
        uint64_t each = viewers[index].bytes;
        bytes += each;
        packets += viewers[index].packets;
        least = each < least ? each : least;
        most = each > most ? each : most;
    }
    printf("{\"seconds\": %.3f, \"bytes\": %llu, \"packets\": %llu, \"bytes_least\": %llu, \"bytes_most\": %llu, "
           "\"server_cpu_ms\": %.3f, \"load_cpu_ms\": %.3f}\n",
           took_s, (unsigned long long)bytes, (unsigned long long)packets, (unsigned long long)least,
           (unsigned long long)most, server_s * 1000, own_s * 1000);
    return 0;
}
