/* eventfd, timerfd and epoll. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int events(int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void counters(void) {
    uint64_t v = 0;
    int e = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
    printf("poll %x\n", events(e));
    say("read", read(e, &v, 8));
    printf("%d\n", (int)v);
    printf("poll %x\n", events(e));
    say("empty", read(e, &v, 8));
    say("short", read(e, &v, 7));
    v = 5;
    say("write", write(e, &v, 8));
    say("long", write(e, (uint64_t[]){1, 2}, 16));
    say("short write", write(e, &v, 4));
    v = -1;
    say("too much", write(e, &v, 8));
    v = -2;
    say("overflow", write(e, &v, 8));
    v = -2ull - 6;
    say("to the brim", write(e, &v, 8));
    printf("poll %x\n", events(e));
    v = 1;
    say("full", write(e, &v, 8));
    read(e, &v, 8);
    printf("%llx\n", (long long)v);
    close(e);
    e = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    for (int i = 0; i < 3; i++) {
        v = 0;
        say("semaphore", read(e, &v, 8));
        printf("%d\n", (int)v);
    }
    say("flags", eventfd(0, 0x10));
    say("seek", lseek(e, 0, SEEK_SET));
    close(e);
    e = eventfd(0, 0);
    fflush(stdout);
    if (!fork()) {
        v = 42;
        usleep(1000);
        write(e, &v, 8);
        _exit(0);
    }
    say("sleeps", read(e, &v, 8));
    printf("%d\n", (int)v);
    wait(0);
}

static void timers(void) {
    uint64_t v = 0;
    int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec s = {{0, 0}, {0, 0}}, old;
    say("disarmed", read(t, &v, 8));
    s.it_value.tv_nsec = 200000000;
    say("settime", timerfd_settime(t, 0, &s, &old));
    printf("old %ld %ld\n", (long)old.it_value.tv_sec, old.it_value.tv_nsec);
    say("not yet", read(t, &v, 8));
    timerfd_gettime(t, &old);
    printf("left %d\n", old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 200000000);
    struct pollfd p = {t, POLLIN, 0};
    say("poll", poll(&p, 1, 1000));
    say("expired", read(t, &v, 8));
    printf("%d\n", (int)v);
    timerfd_gettime(t, &old);
    printf("left %ld\n", old.it_value.tv_nsec);
    s.it_interval.tv_nsec = 1000000;
    timerfd_settime(t, 0, &s, 0);
    usleep(20000);
    say("interval", read(t, &v, 8));
    printf("several %d\n", v >= 10);
    s.it_value.tv_nsec = 0;
    say("disarm", timerfd_settime(t, 0, &s, 0));
    say("write", write(t, &v, 8));
    s.it_value.tv_nsec = 1000000000;
    say("bad nsec", timerfd_settime(t, 0, &s, 0));
    say("bad flags", timerfd_settime(t, 8, &s, 0));
    say("no timer", timerfd_settime(1, 0, &old, 0));
    say("bad clock", timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
    close(t);
    t = timerfd_create(CLOCK_REALTIME, 0);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    s = (struct itimerspec){{0, 0}, now};
    say("absolute, passed", timerfd_settime(t, TFD_TIMER_ABSTIME, &s, 0));
    say("at once", read(t, &v, 8));
    s.it_value.tv_sec = 0, s.it_value.tv_nsec = 2000000;
    timerfd_settime(t, 0, &s, 0);
    say("sleeps", read(t, &v, 8));
    close(t);
}

static void waited(const char *what, int ep, int timeout) {
    struct epoll_event e[8];
    int n = epoll_wait(ep, e, 8, timeout);
    printf("%s: %d", what, n);
    for (int i = 0; i < n; i++) printf(" %x:%d", e[i].events, (int)e[i].data.u64);
    if (n < 0) printf(" (%s)", strerror(errno));
    puts("");
}

static int ctl(int ep, int op, int fd, unsigned events, int data) {
    struct epoll_event e = {events, {.u64 = data}};
    return epoll_ctl(ep, op, fd, &e);
}

static void sets(void) {
    int ep = epoll_create1(EPOLL_CLOEXEC), p[2], s[2];
    char buffer[16];
    pipe2(p, O_NONBLOCK);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s);
    say("size", epoll_create(0));
    say("flags", epoll_create1(4));
    say("add", ctl(ep, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    say("twice", ctl(ep, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    say("itself", ctl(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 1));
    int file = open("regular", O_RDWR | O_CREAT, 0600);
    say("file", ctl(ep, EPOLL_CTL_ADD, file, EPOLLIN, 1));
    int null = open("/dev/null", O_RDWR);
    say("null", ctl(ep, EPOLL_CTL_ADD, null, EPOLLIN, 1));
    say("absent", ctl(ep, EPOLL_CTL_MOD, p[1], EPOLLIN, 1));
    say("absent", ctl(ep, EPOLL_CTL_DEL, p[1], EPOLLIN, 1));
    say("operation", ctl(ep, 9, p[1], EPOLLIN, 1));
    say("no epoll", ctl(p[0], EPOLL_CTL_ADD, p[1], EPOLLIN, 1));
    say("closed", ctl(ep, EPOLL_CTL_ADD, 555, EPOLLIN, 1));
    struct epoll_event one;
    say("no events", epoll_wait(ep, &one, 0, 0));
    say("bad", epoll_wait(p[0], &one, 1, 0));
    waited("nothing", ep, 0);
    waited("timeout", ep, 10);
    write(p[1], "abc", 3);
    waited("level", ep, -1);
    waited("level again", ep, -1);
    read(p[0], buffer, 3);
    waited("read", ep, 0);
    say("edge", ctl(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLET, 2));
    write(p[1], "d", 1);
    waited("edge", ep, 0);
    waited("no edge", ep, 0);
    write(p[1], "e", 1);
    waited("new edge", ep, 0);
    waited("no edge", ep, 0);
    say("one shot", ctl(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 3));
    waited("shot", ep, 0);
    waited("over", ep, 0);
    ctl(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 3);
    waited("armed again", ep, 0);
    ctl(ep, EPOLL_CTL_MOD, p[0], EPOLLIN, 4);
    say("socket", ctl(ep, EPOLL_CTL_ADD, s[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP, 5));
    waited("both", ep, 0);
    int twin = dup(p[0]);
    close(p[0]);
    waited("a duplicate keeps it", ep, 0);
    close(twin);
    waited("closed", ep, 0);
    close(s[1]);
    waited("hung up", ep, 0);
    ctl(ep, EPOLL_CTL_DEL, s[0], 0, 0);
    waited("deleted", ep, 0);

    int outer = epoll_create1(0), e = eventfd(0, 0);
    say("nested", ctl(outer, EPOLL_CTL_ADD, ep, EPOLLIN, 6));
    say("circle", ctl(ep, EPOLL_CTL_ADD, outer, EPOLLIN, 7));
    ctl(ep, EPOLL_CTL_ADD, e, EPOLLIN | EPOLLEXCLUSIVE, 8);
    say("exclusive mod", ctl(ep, EPOLL_CTL_MOD, e, EPOLLIN, 8));
    waited("outer", outer, 0);
    fflush(stdout);
    if (!fork()) {
        usleep(2000);
        write(e, (uint64_t[]){1}, 8);
        _exit(0);
    }
    waited("outer sleeps", outer, -1);
    waited("inner", ep, 0);
    printf("poll %x\n", events(ep));
    struct timespec t = {0, 1000000};
    say("pwait2", syscall(441, ep, &one, 1, &t, NULL, 0));
    read(e, buffer, 8);
    say("pwait2 times out", syscall(441, ep, &one, 1, &t, NULL, 0));
    wait(0);
}

int main(void) {
    counters();
    timers();
    sets();
    return 0;
}
