/* Descriptors: dup, fcntl, pipes inside one process, poll, select, null and zero. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>

static long say(const char *what, long result) {
    printf("%s: %ld", what, result);
    if (result < 0) printf(" (%s)", strerror(errno));
    puts("");
    return result;
}

static void duplicates(void) {
    int fd = open("dup", O_RDWR | O_CREAT | O_TRUNC, 0600);
    int twin = dup(fd);
    write(fd, "abcdef", 6);
    say("shared offset", lseek(twin, 0, SEEK_CUR));
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 50);
    say("at least 50", high);
    say("cloexec", fcntl(high, F_GETFD));
    say("not on the first", fcntl(fd, F_GETFD));
    say("dup2", dup2(fd, 77));
    say("dup2 same", dup2(77, 77));
    say("dup3 same", dup3(77, 77, 0));
    say("dup2 bad", dup2(1234, 78));
    say("set append", fcntl(fd, F_SETFL, O_APPEND));
    say("seen by the twin", fcntl(twin, F_GETFL) & (O_APPEND | O_ACCMODE));
    lseek(fd, 0, SEEK_SET);
    write(twin, "gh", 2);
    say("size", lseek(fd, 0, SEEK_END));
    int saved = dup(1);
    fflush(stdout);
    dup2(fd, 1);
    printf("into the file\n");
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    char text[64] = "";
    pread(fd, text, 63, 8);
    printf("redirected: %s", text);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    say("lock", fcntl(fd, F_SETLK, &lock));
    lock.l_type = F_RDLCK;
    say("test", fcntl(fd, F_GETLK, &lock));
    printf("%d\n", lock.l_type == F_UNLCK);
    close(fd), close(twin), close(high), close(77);
    say("closed", fcntl(fd, F_GETFD));
}

static void pipes(void) {
    int ends[2];
    char buffer[70000];
    say("pipe", pipe(ends));
    say("write", write(ends[1], "through the pipe", 16));
    int waiting = -1;
    ioctl(ends[0], FIONREAD, &waiting);
    printf("%d wait\n", waiting);
    say("read", read(ends[0], buffer, 7));
    printf("%.7s\n", buffer);
    say("read rest", read(ends[0], buffer, sizeof buffer));
    say("seek", lseek(ends[0], 0, SEEK_SET));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    say("empty", read(ends[0], buffer, 1));
    memset(buffer, 'p', sizeof buffer);
    say("fill", write(ends[1], buffer, sizeof buffer));
    say("full", write(ends[1], buffer, 1));
    struct pollfd polls[3] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {99, POLLIN, 0}};
    say("poll", poll(polls, 3, 0));
    printf("%d %d %d\n", polls[0].revents, polls[1].revents, polls[2].revents);
    say("drain", read(ends[0], buffer, sizeof buffer));
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(ends[0], &in);
    FD_SET(ends[1], &out);
    struct timeval none = {0, 0};
    say("select", select(ends[1] + 1, &in, &out, NULL, &none));
    printf("%d %d\n", FD_ISSET(ends[0], &in) != 0, FD_ISSET(ends[1], &out) != 0);
    close(ends[1]);
    say("end of file", read(ends[0], buffer, 1));
    say("poll", poll(polls, 1, 0));
    printf("%d\n", polls[0].revents);
    say("read end for writing", write(ends[0], "x", 1));
    struct stat st;
    fstat(ends[0], &st);
    printf("fifo: %d\n", S_ISFIFO(st.st_mode));
}

static void devices(void) {
    char buffer[16];
    int zero = open("/dev/zero", O_RDWR), null = open("/dev/null", O_RDWR);
    memset(buffer, 1, sizeof buffer);
    say("zero", read(zero, buffer, sizeof buffer));
    printf("%d\n", buffer[15]);
    say("null", read(null, buffer, 1));
    say("null takes", write(null, buffer, 16));
    say("full", write(open("/dev/full", O_WRONLY), buffer, 1));
    say("tty", isatty(null));
    struct stat st;
    stat("/dev/null", &st);
    printf("character device %d, %lx\n", S_ISCHR(st.st_mode), (unsigned long)st.st_rdev);
}

int main(void) {
    duplicates();
    pipes();
    devices();
    return 0;
}
