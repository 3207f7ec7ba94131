/* Descriptors for processes, and signals read from a descriptor. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long pidfd_open(int pid, int flags) { return syscall(434, pid, flags); }
static long pidfd_signal(int fd, int number) { return syscall(424, fd, number, NULL, 0); }

int main(void) {
    int status, pipes[2];
    say("no pid", pidfd_open(0, 0));
    say("flags", pidfd_open(getpid(), 1));
    say("nobody", pidfd_open(1 << 22, 0));
    pipe(pipes);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        char c;
        dup2(pipes[0], 20);
        read(pipes[0], &c, 1);
        _exit(5);
    }
    int fd = pidfd_open(child, 0);
    printf("cloexec %d\n", fcntl(fd, F_GETFD));
    struct pollfd p = {fd, POLLIN, 0};
    say("alive", poll(&p, 1, 0));
    int theirs = -1;
    for (int tries = 0; theirs < 0 && tries < 5000; tries++) {
        usleep(1000);
        theirs = syscall(438, fd, 20, 0);
    }
    printf("their descriptor %d\n", theirs >= 0);
    say("not theirs", syscall(438, fd, 99, 0));
    say("check", pidfd_signal(fd, 0));
    write(pipes[1], "x", 1);
    say("poll", poll(&p, 1, -1));
    printf("%x\n", p.revents);
    siginfo_t info = {0};
    say("waitid", waitid(3, fd, &info, WEXITED));
    printf("status %d code %d\n", info.si_status, info.si_code);
    say("gone", pidfd_signal(fd, 9));
    close(fd);
    fd = pidfd_open(getpid(), 0);
    say("no pidfd", pidfd_signal(1, 0));

    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1), sigaddset(&set, SIGCHLD), sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int sfd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    struct signalfd_siginfo got[4];
    say("none", read(sfd, got, sizeof got));
    say("short", read(sfd, got, 100));
    pidfd_signal(fd, SIGUSR1);
    union sigval value = {.sival_int = 77};
    sigqueue(getpid(), SIGRTMIN, value);
    sigqueue(getpid(), SIGRTMIN, value);
    p.fd = sfd;
    say("ready", poll(&p, 1, 0));
    say("two", read(sfd, got, 2 * sizeof *got));
    printf("%d code %d pid %d; %d code %d int %d\n", got[0].ssi_signo, got[0].ssi_code, got[0].ssi_pid == getpid(),
        got[1].ssi_signo - SIGRTMIN, got[1].ssi_code, got[1].ssi_int);
    say("one", read(sfd, got, sizeof got));
    say("write", write(sfd, got, 128));
    int ep = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.u32 = 6}};
    epoll_ctl(ep, EPOLL_CTL_ADD, sfd, &e);
    fflush(stdout);
    child = fork();
    if (!child) {
        usleep(1000);
        _exit(3);
    }
    say("a child ends", epoll_wait(ep, &e, 1, -1));
    say("told", read(sfd, got, sizeof got));
    printf("%d pid %d status %d code %d\n", got[0].ssi_signo, got[0].ssi_pid == child, got[0].ssi_status, got[0].ssi_code);
    wait(&status);
    sigdelset(&set, SIGUSR1);
    say("change", signalfd(sfd, &set, 0) == sfd);
    raise(SIGUSR1);
    say("not this one", read(sfd, got, sizeof got));
    say("no signalfd", signalfd(1, &set, 0));
    fcntl(sfd, F_SETFL, 0);
    fflush(stdout);
    if (!fork()) {
        usleep(1000);
        sigqueue(getppid(), SIGRTMIN, value);
        _exit(0);
    }
    long count;
    do
        count = read(sfd, got, sizeof *got);
    while (got[0].ssi_signo == SIGCHLD);
    say("sleeps", count);
    printf("%d\n", got[0].ssi_int);
    return 0;
}
