/* How much a socket takes that nobody reads: what a message costs its sender counts, not only its bytes. */
#define _GNU_SOURCE
#include "say.h"
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char bytes[1 << 20];

/* The exact figures are those of one kernel's structures. */
static void fill(int kind, int size, int buffer) {
    int s[2], under_way = 0, free;
    long n = 0, all = 0, t;
    socketpair(AF_UNIX, kind | SOCK_NONBLOCK, 0, s);
    if (buffer) setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    while ((t = send(s[0], bytes, size, 0)) >= 0 && n < 100000) n++, all += t;
    struct pollfd p = {s[0], POLLOUT, 0};
    poll(&p, 1, 0);
    ioctl(s[0], TIOCOUTQ, &under_way);
    printf("%d bytes, kind %d: %s, few %d, much %d, writable %d, charged more %d", size, kind, strerror(errno), n < 1000,
           all >= 1 << 20, p.revents & POLLOUT, under_way > all);
    while ((t = recv(s[1], bytes, size ? size : 1, 0)) >= 0) all -= t;
    ioctl(s[0], TIOCOUTQ, &free);
    printf(", left %ld, %d\n", all, free);
    close(s[0]), close(s[1]);
}

static void waits(int kind, int size, int count) {
    int s[2], status;
    long all = 0, n, parts = 0;
    socketpair(AF_UNIX, kind, 0, s);
    fflush(stdout);
    if (!fork()) {
        close(s[1]);
        for (int i = 0; i < count; i++)
            if (send(s[0], bytes, size, 0) != size) _exit(1);
        _exit(0);
    }
    close(s[0]);
    for (int i = 0; kind == SOCK_STREAM ? all < (long)size * count : i < count; i++)
        if ((n = recv(s[1], bytes, sizeof bytes, 0)) >= 0) all += n, parts++;
    wait(&status);
    printf("a sender waits, kind %d: %ld, %d\n", kind, all, status);
}

int main(void) {
    static const int sizes[] = {0, 1, 192, 193, 1000, 4000, 8000, 16000, 36000, 60000, 100000};
    for (int kind = 0; kind < 3; kind++)
        for (int i = 0; i < 11; i++) {
            int k = kind == 0 ? SOCK_STREAM : kind == 1 ? SOCK_DGRAM : SOCK_SEQPACKET;
            if (k != SOCK_STREAM || sizes[i]) fill(k, sizes[i], 0);
            if (sizes[i] == 1000) fill(k, sizes[i], 5000);
        }
    waits(SOCK_STREAM, 1, 2000);
    waits(SOCK_STREAM, 1 << 20, 2);
    waits(SOCK_DGRAM, 0, 1000);
    waits(SOCK_SEQPACKET, 5000, 100);
    return 0;
}
