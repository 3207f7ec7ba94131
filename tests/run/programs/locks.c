/* Record locks of processes and open files, flock, and how they meet. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static int fd, go[2], done[2];

static long lock(int f, int command, int type, long start, long length) {
    struct flock l = {type, SEEK_SET, start, length, 0};
    return fcntl(f, command, &l);
}

static void table(int f, long size) {
    printf("  ");
    for (long i = 0; i < size; i++) {
        struct flock l = {F_WRLCK, SEEK_SET, i, 1, 0};
        fcntl(f, F_GETLK, &l);
        printf("%c", l.l_type == F_UNLCK ? '.' : l.l_type == F_RDLCK ? 'r' : 'w');
    }
    puts("");
    fflush(stdout);
}

static void step(void) {
    char c = 'x';
    write(go[1], &c, 1);
    read(done[0], &c, 1);
}

static void wait_step(void) {
    char c;
    read(go[0], &c, 1);
}

static void ready(void) {
    fflush(stdout);
    write(done[1], "x", 1);
}

static void child(void) {
    wait_step();
    table(fd, 20);
    struct flock l = {F_WRLCK, SEEK_SET, 3, 4, 0};
    say("getlk", fcntl(fd, F_GETLK, &l));
    printf("type %d start %ld len %ld parent %d whence %d\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == getppid(), l.l_whence);
    say("conflict", lock(fd, F_SETLK, F_RDLCK, 0, 5));
    say("beside", lock(fd, F_SETLK, F_WRLCK, 10, 5));
    say("flock is another thing", flock(fd, LOCK_EX | LOCK_NB));
    int other = open("locked", O_RDWR);
    say("ofd against posix", lock(other, F_OFD_SETLK, F_WRLCK, 2, 1));
    say("ofd", lock(other, F_OFD_SETLK, F_WRLCK, 16, 2));
    l = (struct flock){F_WRLCK, SEEK_SET, 16, 1, 0};
    fcntl(fd, F_GETLK, &l);
    printf("ofd owner %d\n", l.l_pid);
    lock(other, F_OFD_SETLK, F_UNLCK, 0, 0);
    ready();
    wait_step();
    table(fd, 20);
    ready();
    say("waits", lock(fd, F_SETLKW, F_WRLCK, 0, 0));
    close(open("locked", O_RDONLY));
    ready();
    wait_step();
    _exit(0);
}

int main(void) {
    fd = open("locked", O_RDWR | O_CREAT, 0600);
    pipe(go), pipe(done);
    say("write lock", lock(fd, F_SETLK, F_WRLCK, 2, 6));
    say("split", lock(fd, F_SETLK, F_UNLCK, 4, 2));
    say("read part", lock(fd, F_SETLK, F_RDLCK, 6, 4));
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) child();
    step();
    table(fd, 20);
    say("theirs", lock(fd, F_SETLK, F_WRLCK, 12, 1));
    say("flock after the child's", flock(fd, LOCK_SH | LOCK_NB));
    say("join", lock(fd, F_SETLK, F_WRLCK, 0, 10));
    step();
    puts("unlock");
    fflush(stdout);
    lock(fd, F_SETLK, F_UNLCK, 0, 0);
    char c;
    read(done[0], &c, 1);
    puts("the child lost its locks by a close");
    table(fd, 20);
    write(go[1], "x", 1);
    wait(0);
    table(fd, 20);

    int a = open("locked", O_RDWR), b = open("locked", O_RDWR);
    flock(fd, LOCK_UN);
    say("flock a", flock(a, LOCK_EX));
    say("flock b", flock(b, LOCK_SH | LOCK_NB));
    say("dup unlocks", flock(dup(a), LOCK_UN));
    say("flock b now", flock(b, LOCK_SH | LOCK_NB));
    say("share", flock(a, LOCK_SH | LOCK_NB));
    say("upgrade", flock(a, LOCK_EX | LOCK_NB));
    say("lost it", flock(b, LOCK_EX | LOCK_NB));
    say("bad", flock(a, 77));
    say("ofd a", lock(a, F_OFD_SETLK, F_WRLCK, 0, 4));
    say("ofd b", lock(b, F_OFD_SETLK, F_RDLCK, 0, 4));
    say("posix", lock(fd, F_SETLK, F_RDLCK, 0, 4));
    close(a);
    say("a duplicate is left", lock(b, F_OFD_SETLK, F_RDLCK, 0, 4));
    int r = open("locked", O_RDONLY);
    say("read-only", lock(r, F_SETLK, F_WRLCK, 0, 1));
    say("range", lock(fd, F_SETLK, F_WRLCK, -5, 2));
    struct flock l = {F_WRLCK, SEEK_SET, 10, -5, 0};
    say("backwards", fcntl(fd, F_SETLK, &l));
    l = (struct flock){9, SEEK_SET, 10, 5, 0};
    say("type", fcntl(fd, F_SETLK, &l));
    l = (struct flock){F_UNLCK, SEEK_SET, 10, 5, 0};
    say("get unlock", fcntl(fd, F_GETLK, &l));
    l = (struct flock){F_WRLCK, SEEK_SET, 10, 5, 7};
    say("ofd pid", fcntl(fd, F_OFD_SETLK, &l));
    fflush(stdout);

    lock(fd, F_SETLK, F_UNLCK, 0, 0);
    lock(fd, F_SETLK, F_WRLCK, 100, 1);
    pid = fork();
    if (!pid) {
        lock(fd, F_SETLK, F_WRLCK, 200, 1);
        ready();
        long result = lock(fd, F_SETLKW, F_WRLCK, 100, 1);
        _exit(result == 0 ? 1 : 2);
    }
    read(done[0], &c, 1);
    usleep(20000);
    say("deadlock", lock(fd, F_SETLKW, F_WRLCK, 200, 1));
    lock(fd, F_SETLK, F_UNLCK, 100, 1);
    int status;
    wait(&status);
    printf("child %d\n", WEXITSTATUS(status));
    return 0;
}
