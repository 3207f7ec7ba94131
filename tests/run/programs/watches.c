/* inotify: the exact events of what happens to watched files and directories. */
#define _GNU_SOURCE
#include "say.h"
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef IN_MASK_CREATE
#define IN_MASK_CREATE 0x10000000
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static int ino, shared; /* shared: in a host directory that is mounted rw */
static uint32_t cookies[8];
static int known;

static int cookie_number(uint32_t cookie) {
    if (!cookie) return 0;
    for (int i = 0; i < known; i++)
        if (cookies[i] == cookie) return i + 1;
    if (known == 8) known = 0;
    cookies[known++] = cookie;
    return known;
}

static void drain(const char *title) {
    char buffer[8192] __attribute__((aligned(8)));
    int waiting = -1;
    ioctl(ino, FIONREAD, &waiting);
    printf("== %s (%d bytes)\n", title, waiting);
    for (;;) {
        ssize_t got = read(ino, buffer, sizeof buffer);
        if (got < 0) { if (errno != EAGAIN) perror("read"); break; }
        for (char *at = buffer; at < buffer + got;) {
            struct inotify_event *e = (void *)at;
            printf("  wd %d mask %08x cookie %d len %u %s\n", e->wd, e->mask, cookie_number(e->cookie), e->len,
                   e->len ? e->name : "-");
            at += sizeof *e + e->len;
        }
    }
    fflush(stdout);
}

static void put(const char *name, const char *text, int flags) {
    int fd = open(name, O_WRONLY | O_CREAT | flags, 0644);
    write(fd, text, strlen(text));
    close(fd);
}

static void contents(void) {
    char buffer[64];
    put("d/file", "hello", 0);
    drain("create write close");
    say("watch file", inotify_add_watch(ino, "d/file", IN_ALL_EVENTS));
    put("d/file", "again", O_APPEND);
    drain("append");
    int fd = open("d/file", O_RDWR);
    read(fd, buffer, 3);
    read(fd, buffer, 0);
    pread(fd, buffer, 3, 0);
    pread(fd, buffer, 3, 1000);
    pwrite(fd, "x", 1, 20);
    write(fd, "", 0);
    lseek(fd, 0, SEEK_SET);
    struct stat st;
    fstat(fd, &st);
    drain("read write");
    ftruncate(fd, 3);
    fchmod(fd, 0600);
    int other = dup(fd);
    close(fd);
    drain("ftruncate fchmod dup close");
    close(other);
    drain("last close");
    truncate("d/file", 10);
    chmod("d/file", 0644);
    chown("d/file", -1, -1);
    drain("truncate chmod chown");
    struct timespec both[2] = {{1, 0}, {2, 0}}, first[2] = {{1, 0}, {0, UTIME_OMIT}}, second[2] = {{0, UTIME_OMIT}, {3, 0}};
    utimensat(AT_FDCWD, "d/file", both, 0);
    utimensat(AT_FDCWD, "d/file", first, 0);
    utimensat(AT_FDCWD, "d/file", second, 0);
    utimensat(AT_FDCWD, "d/file", NULL, 0);
    drain("times");
    close(open("d/file", O_WRONLY | O_TRUNC));
    drain("O_TRUNC");
    close(open("d/file", O_PATH));
    access("d/file", R_OK);
    stat("d/file", &st);
    drain("silent");
    int to = open("d/copy", O_WRONLY | O_CREAT, 0644);
    put("d/file", "0123456789", 0);
    fd = open("d/file", O_RDONLY);
    drain("before sendfile");
    sendfile(to, fd, NULL, 4);
    drain("sendfile");
    close(to);
    close(fd);
    drain("both closed");
    posix_fallocate(to = open("d/copy", O_WRONLY), 0, 100);
    close(to);
    drain("fallocate");
}

static void names(void) {
    mkdir("d/sub", 0755);
    symlink("file", "d/link");
    mkfifo("d/fifo", 0600);
    link("d/file", "d/second");
    drain("mkdir symlink mkfifo link");
    DIR *dir = opendir("d/sub");
    readdir(dir);
    closedir(dir);
    drain("opendir sub");
    dir = opendir("d");
    while (readdir(dir)) ;
    closedir(dir);
    drain("opendir d");
    chmod("d/sub", 0700);
    drain("chmod sub");
    unlink("d/second");
    drain("unlink one of two");
    rename("d/file", "d/moved");
    drain("rename in place");
    rename("d/moved", "e/moved");
    drain("to the other");
    rename("e/moved", "d/file");
    drain("and back");
    rename("d/file", "f/away");
    put("f/away", "?", O_APPEND);
    drain("out of sight");
    rename("f/away", "d/file");
    drain("into sight");
    put("d/victim", "v", 0);
    say("watch victim", inotify_add_watch(ino, "d/victim", IN_ALL_EVENTS));
    drain("victim");
    rename("d/file", "d/victim");
    drain("replace");
    rename("d/victim", "d/file");
    drain("back");
    if (!shared && syscall(SYS_renameat2, AT_FDCWD, "d/file", AT_FDCWD, "e/other", RENAME_EXCHANGE)) perror("exchange");
    drain("exchange");
    rename("d/sub", "e/sub");
    drain("directory moves");
    say("watch sub", inotify_add_watch(ino, "e/sub", IN_ALL_EVENTS | IN_ONLYDIR));
    put("e/sub/inner", "i", 0);
    rename("e/sub", "d/sub");
    unlink("d/sub/inner");
    drain("watched directory moves");
    rmdir("d/sub");
    drain("rmdir");
}

static void endings(void) {
    put("d/gone", "g", 0);
    drain("gone made");
    int wd = say("watch gone", inotify_add_watch(ino, "d/gone", IN_ALL_EVENTS));
    int fd = open("d/gone", O_RDWR);
    unlink("d/gone");
    drain("unlinked, open");
    write(fd, "z", 1);
    drain("written");
    close(fd);
    drain("closed");
    say("rm", inotify_rm_watch(ino, wd));
    put("d/gone", "g", 0);
    drain("again");
    wd = say("watch", inotify_add_watch(ino, "d/gone", IN_ALL_EVENTS));
    say("rm", inotify_rm_watch(ino, wd));
    drain("removed");
    wd = say("once", inotify_add_watch(ino, "d/gone", IN_OPEN | IN_ONESHOT));
    close(open("d/gone", O_RDONLY));
    close(open("d/gone", O_RDONLY));
    drain("oneshot");
    wd = say("add", inotify_add_watch(ino, "d/gone", IN_OPEN));
    say("add more", inotify_add_watch(ino, "d/gone", IN_ACCESS | IN_MASK_ADD) == wd);
    say("create", inotify_add_watch(ino, "d/gone", IN_ACCESS | IN_MASK_CREATE));
    close(open("d/gone", O_RDONLY));
    drain("open and access");
    say("replace", inotify_add_watch(ino, "d/gone", IN_CLOSE) == wd);
    close(open("d/gone", O_RDONLY));
    drain("close only");
    unlink("d/gone");
    drain("IGNORED always");
}

static void errors(void) {
    char small[8];
    say("no bits", inotify_add_watch(ino, "d", 0));
    say("both", inotify_add_watch(ino, "d", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE));
    say("not there", inotify_add_watch(ino, "d/nothing", IN_OPEN));
    say("only a directory", inotify_add_watch(ino, "d/copy", IN_OPEN | IN_ONLYDIR));
    say("wrong kind", inotify_add_watch(1, "d", IN_OPEN));
    say("bad fd", inotify_add_watch(77, "d", IN_OPEN));
    say("bad path", inotify_add_watch(ino, NULL, IN_OPEN));
    say("rm bad", inotify_rm_watch(ino, 12345));
    say("rm wrong kind", inotify_rm_watch(1, 1));
    say("flags", inotify_init1(3));
    say("write", write(ino, "x", 1));
    say("seek", lseek(ino, 0, SEEK_SET));
    put("d/copy", "x", 0);
    say("small", read(ino, small, 8));
    struct pollfd p = {ino, POLLIN | POLLOUT, 0};
    say("poll", poll(&p, 1, 0));
    printf("%x\n", p.revents);
    drain("errors");
    say("poll", poll(&p, 1, 0));
    chmod("d/copy", 0);
    drain("chmod");
    say("unreadable", getuid() && !shared ? inotify_add_watch(ino, "d/copy", IN_OPEN) : (errno = EACCES, -1));
    chmod("d/copy", 0644);
    say("link", inotify_add_watch(ino, "d/link", IN_OPEN | IN_DONT_FOLLOW) > 0);
    drain("chmod");
}

static void unlinked_children(void) {
    int one = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), keep = ino;
    ino = one;
    say("excl", inotify_add_watch(ino, "d", IN_ALL_EVENTS | IN_EXCL_UNLINK));
    int fd = open("d/tmp", O_RDWR | O_CREAT, 0600);
    unlink("d/tmp");
    write(fd, "x", 1);
    close(fd);
    drain("IN_EXCL_UNLINK");
    close(one);
    ino = keep;
    drain("without");
}

static void waiting(void) {
    int two = inotify_init(), ep = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.u32 = 9}};
    say("watch", inotify_add_watch(two, "d", IN_CREATE));
    say("epoll", epoll_ctl(ep, EPOLL_CTL_ADD, two, &event));
    say("quiet", epoll_wait(ep, &event, 1, 0));
    pid_t pid = fork();
    if (!pid) {
        usleep(20000);
        put("d/child", "c", 0);
        usleep(20000);
        put("d/child2", "c", 0);
        _exit(0);
    }
    say("epoll_wait", epoll_wait(ep, &event, 1, 5000));
    char buffer[512];
    say("read", read(two, buffer, sizeof buffer));
    say("blocking read", read(two, buffer, sizeof buffer));
    printf("%s\n", ((struct inotify_event *)buffer)->name);
    waitpid(pid, NULL, 0);
    close(two);
    drain("by a child");
}

static void overflow(void) {
    int many = inotify_init1(IN_NONBLOCK), keep = ino, total = 0, last = 0, lost = 0;
    say("watch", inotify_add_watch(many, "d", IN_OPEN | IN_CLOSE));
    FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
    int limit = 0;
    fscanf(f, "%d", &limit);
    fclose(f);
    printf("limit %d\n", limit == 16384);
    for (int i = 0; i < 8200; i++) close(open("d/copy", O_RDONLY));
    static char buffer[1 << 20];
    ssize_t got;
    while ((got = read(many, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; at < buffer + got;) {
            struct inotify_event *e = (void *)at;
            total++;
            last = e->mask;
            lost += e->mask == IN_Q_OVERFLOW && e->wd == -1 && !e->len;
            at += sizeof *e + e->len;
        }
    printf("%d events, %d overflow, last %x\n", total, lost, last);
    close(many);
}

int main(int argc, char **argv) {
    shared = argc > 1 && !strcmp(argv[1], "shared");
    mkdir("d", 0755);
    mkdir("e", 0755);
    mkdir("f", 0755);
    put("e/other", "o", 0);
    ino = inotify_init1(IN_NONBLOCK);
    say("watch d", inotify_add_watch(ino, "d", IN_ALL_EVENTS));
    say("watch e", inotify_add_watch(ino, "e", IN_ALL_EVENTS));
    contents();
    names();
    endings();
    errors();
    unlinked_children();
    waiting();
    if (argc > 1 && !shared) overflow();
    close(ino);
    return 0;
}
