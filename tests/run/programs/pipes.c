/* Pipes between processes: large writes, ends, packets, named pipes, splice and its kin. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char big[500000];

static void large(void) {
    int p[2];
    pipe(p);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        close(p[0]);
        for (int i = 0; i < (int)sizeof big; i++) big[i] = i * 7;
        long n = write(p[1], big, sizeof big);
        struct iovec v[2] = {{"tail", 4}, {big, 100000}};
        long m = writev(p[1], v, 2);
        _exit(n == sizeof big && m == 100004 ? 3 : 4);
    }
    close(p[1]);
    long total = 0, n, sum = 0;
    char piece[7001];
    while ((n = read(p[0], piece, sizeof piece)) > 0) {
        for (long i = 0; i < n; i++) sum = (sum * 31 + (unsigned char)piece[i]) & 0xffffff;
        total += n;
    }
    int status;
    waitpid(child, &status, 0);
    printf("total %ld sum %lx child %d\n", total, sum, WEXITSTATUS(status));
    close(p[0]);
}

static void ends(void) {
    int p[2], status;
    pipe(p);
    fflush(stdout);
    if (!fork()) {
        close(p[0]);
        write(p[1], big, sizeof big);
        _exit(0);
    }
    close(p[1]);
    read(p[0], big, 10);
    close(p[0]);
    wait(&status);
    printf("killed by %d\n", WTERMSIG(status));
    pipe(p);
    struct pollfd w = {p[1], POLLOUT, 0}, r = {p[0], POLLIN, 0};
    say("writable", poll(&w, 1, 0));
    say("resize", fcntl(p[1], F_SETPIPE_SZ, 5000));
    say("size", fcntl(p[1], F_GETPIPE_SZ));
    say("too large", fcntl(p[1], F_SETPIPE_SZ, 1u << 31));
    fcntl(p[1], F_SETFL, O_NONBLOCK);
    say("fill", write(p[1], big, 20000));
    say("full", write(p[1], "x", 1));
    say("shrink", fcntl(p[1], F_SETPIPE_SZ, 4096));
    printf("%d\n", poll(&w, 1, 0));
    int n = 0;
    ioctl(p[0], FIONREAD, &n);
    printf("waiting %d\n", n);
    close(p[1]);
    poll(&r, 1, 0);
    printf("reader %x\n", r.revents);
    say("drain", read(p[0], big, 20000));
    say("end", read(p[0], big, 20000));
    close(p[0]);
    pipe(p);
    fflush(stdout);
    if (!fork()) {
        usleep(3000);
        write(p[1], "late", 4);
        _exit(0);
    }
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p[0], &set);
    struct timeval t = {5, 0};
    say("select", select(p[0] + 1, &set, 0, 0, &t));
    printf("time left %d\n", t.tv_sec == 4);
    say("late", read(p[0], big, 100));
    struct timespec ts = {0, 5000000};
    r.fd = p[0];
    say("times out", ppoll(&r, 1, &ts, 0));
    wait(0);
    close(p[0]), close(p[1]);
}

static void packets(void) {
    int p[2];
    say("packet pipe", pipe2(p, O_DIRECT | O_NONBLOCK | O_CLOEXEC));
    write(p[1], "one", 3);
    write(p[1], "second", 6);
    write(p[1], big, 5000);
    say("first", read(p[0], big, 100));
    say("cut", read(p[0], big, 2));
    say("4096", read(p[0], big, 10000));
    say("rest", read(p[0], big, 10000));
    say("none", read(p[0], big, 10000));
    say("bad flags", pipe2(p, O_APPEND));
    close(p[0]), close(p[1]);
}

static void fifos(void) {
    int status;
    say("mkfifo", mkfifo("fifo", 0644));
    say("no reader", open("fifo", O_WRONLY | O_NONBLOCK));
    int r = open("fifo", O_RDONLY | O_NONBLOCK);
    struct pollfd q = {r, POLLIN, 0};
    poll(&q, 1, 0);
    printf("fresh %x\n", q.revents);
    say("no writer", read(r, big, 10));
    int w = open("fifo", O_WRONLY | O_NONBLOCK);
    say("empty", read(r, big, 10));
    write(w, "abc", 3);
    close(w);
    poll(&q, 1, 0);
    printf("left %x\n", q.revents);
    say("abc", read(r, big, 10));
    poll(&q, 1, 0);
    printf("over %x\n", q.revents);
    close(r);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        int fd = open("fifo", O_WRONLY);
        write(fd, "through", 7);
        close(fd);
        fd = open("fifo", O_RDONLY);
        char answer[10] = "";
        read(fd, answer, 10);
        _exit(answer[0] == 'b' ? 5 : 6);
    }
    usleep(2000);
    r = open("fifo", O_RDONLY);
    say("opened", read(r, big, 100));
    say("end", read(r, big, 100));
    close(r);
    w = open("fifo", O_WRONLY);
    say("back", write(w, "back", 4));
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    close(w);
    struct stat st;
    stat("fifo", &st);
    printf("%o\n", st.st_mode);
    unlink("fifo");
}

static void splices(void) {
    int p[2], q[2], file = open("spliced", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char buffer[64] = "";
    pipe(p), pipe(q);
    write(p[1], "0123456789", 10);
    say("tee", tee(p[0], q[1], 4, 0));
    say("tee same", tee(p[0], p[1], 4, 0));
    say("teed", read(q[0], buffer, 64));
    printf("%s\n", buffer);
    say("pipe to file", splice(p[0], 0, file, 0, 6, 0));
    loff_t at = 2;
    say("file to pipe", splice(file, &at, q[1], 0, 100, 0));
    printf("at %d\n", (int)at);
    memset(buffer, 0, 64);
    say("came", read(q[0], buffer, 64));
    printf("%s\n", buffer);
    say("pipe to pipe", splice(p[0], 0, q[1], 0, 2, 0));
    say("no pipe", splice(file, 0, file, 0, 2, 0));
    say("pipe offset", splice(p[0], &at, file, 0, 2, 0));
    say("wrong end", splice(p[1], 0, file, 0, 2, 0));
    say("flags", splice(p[0], 0, file, 0, 2, 64));
    read(p[0], buffer, 64);
    say("empty", splice(p[0], 0, file, 0, 2, SPLICE_F_NONBLOCK));
    struct iovec v[2] = {{"vm", 2}, {"splice", 6}};
    say("vmsplice", vmsplice(p[1], v, 2, 0));
    v[0].iov_base = buffer, v[0].iov_len = 20;
    say("vmsplice back", vmsplice(p[0], v, 1, 0));
    say("vmsplice file", vmsplice(file, v, 1, 0));
    off_t start = 1;
    say("sendfile", sendfile(p[1], file, &start, 3));
    printf("start %d\n", (int)start);
    say("sendfile from pipe", sendfile(file, p[0], 0, 3));
    int copy = open("copied", O_RDWR | O_CREAT | O_TRUNC, 0600);
    lseek(file, 0, SEEK_SET);
    say("sendfile to file", sendfile(copy, file, 0, 100));
    loff_t from = 1, to = 10;
    say("copy_file_range", copy_file_range(file, &from, copy, &to, 3, 0));
    printf("%d %d %d\n", (int)from, (int)to, (int)lseek(copy, 0, SEEK_END));
    say("overlap", copy_file_range(file, (loff_t[]){0}, file, (loff_t[]){1}, 3, 0));
    say("copy flags", copy_file_range(file, 0, copy, 0, 3, 1));
    say("copy pipe", copy_file_range(p[0], 0, copy, 0, 3, 0));
    fflush(stdout);
    ftruncate(file, 300000);
    read(p[0], big, sizeof big);
    fcntl(p[1], F_SETFL, O_NONBLOCK);
    off_t zero = 0;
    say("sendfile fills the pipe", sendfile(p[1], file, &zero, 300000));
    say("and no more", sendfile(p[1], file, &zero, 300000));
    int s[2], status;
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    fflush(stdout);
    if (!fork()) {
        close(s[0]);
        _exit(sendfile(s[1], file, 0, 0) == 0 && (zero = 0, sendfile(s[1], file, &zero, 300000)) == 300000 ? 8 : 9);
    }
    close(s[1]);
    long total = 0, n;
    while ((n = read(s[0], big, sizeof big)) > 0) total += n;
    wait(&status);
    printf("sent whole %ld %d\n", total, WEXITSTATUS(status));
}

int main(void) {
    large();
    ends();
    packets();
    fifos();
    splices();
    return 0;
}
