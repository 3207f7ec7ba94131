/* A program's file while it runs, and a file that is written to while it is to run. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void copy(const char *from, const char *to) {
    static char text[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    long n;
    while ((n = read(in, text, sizeof text)) > 0) write(out, text, n);
    close(in), close(out);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        char c;
        write(4, "x", 1);
        read(5, &c, 1);
        return 9;
    }
    int out[2], in[2], status;
    copy("/proc/self/exe", "copy");
    pipe(out), pipe(in);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(out[1], 14), dup2(in[0], 15);
        dup2(14, 4), dup2(15, 5);
        execl("./copy", "copy", "child", NULL);
        _exit(1);
    }
    char c;
    read(out[0], &c, 1);
    say("write", open("copy", O_WRONLY));
    say("read and write", open("copy", O_RDWR));
    say("empty", open("copy", O_RDONLY | O_TRUNC));
    say("truncate", truncate("copy", 0));
    say("read", open("copy", O_RDONLY) >= 0);
    say("rename", rename("copy", "moved"));
    write(in[1], "x", 1);
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    int fd = open("moved", O_RDWR);
    say("write now", fd >= 0);
    fflush(stdout);
    if (!fork()) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        execl("./moved", "moved", "child", NULL);
        say("exec", -1);
        _exit(2);
    }
    wait(&status);
    printf("child %d\n", WEXITSTATUS(status));
    close(fd);
    unlink("moved");
    return 0;
}
