/* Memory and files shared between processes: shm_open, memfd, mapped files; names and openat2. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define RESOLVE_NO_XDEV 1
#define RESOLVE_NO_MAGICLINKS 2
#define RESOLVE_NO_SYMLINKS 4
#define RESOLVE_BENEATH 8
#define RESOLVE_IN_ROOT 16

static void shared(const char *what, int fd) {
    ftruncate(fd, 8192);
    volatile int *mine = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    mine[0] = 1;
    fflush(stdout);
    if (!fork()) {
        volatile int *theirs = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        theirs[1] = theirs[0] + 41;
        mine[2] = 7;
        pwrite(fd, "file", 4, 4096);
        _exit(0);
    }
    wait(0);
    printf("%s: %d %d %.4s\n", what, mine[1], mine[2], (char *)&mine[1024]);
    int value = 0;
    pread(fd, &value, 4, 4);
    printf("read %d\n", value);
}

static long open2(const char *path, unsigned long flags, unsigned long mode, unsigned long resolve, int dir) {
    unsigned long how[3] = {flags, mode, resolve};
    return syscall(437, dir, path, how, sizeof how);
}

static void ways(void) {
    mkdir("d", 0755);
    close(open("d/file", O_RDWR | O_CREAT, 0600));
    symlink("file", "d/link");
    symlink("/etc/passwd", "d/out");
    symlink("../d/file", "d/up");
    int d = open("d", O_RDONLY | O_DIRECTORY);
    say("plain", open2("file", O_RDONLY, 0, 0, d) > 0);
    say("link", open2("link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS, d));
    say("beneath", open2("link", O_RDONLY, 0, RESOLVE_BENEATH, d) > 0);
    say("out", open2("out", O_RDONLY, 0, RESOLVE_BENEATH, d));
    say("up", open2("up", O_RDONLY, 0, RESOLVE_BENEATH, d));
    say("absolute", open2("/etc/passwd", O_RDONLY, 0, RESOLVE_BENEATH, d));
    say("dots", open2("..", O_RDONLY, 0, RESOLVE_BENEATH, d));
    say("in root", open2("/../file", O_RDONLY, 0, RESOLVE_IN_ROOT, d) > 0);
    say("out in root", open2("out", O_RDONLY, 0, RESOLVE_IN_ROOT, d));
    say("magic", open2("/proc/self/fd/0", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS, d));
    say("device", open2("/proc/self/status", O_RDONLY, 0, RESOLVE_NO_XDEV, d));
    say("mode", open2("file", O_RDONLY, 0600, 0, d));
    say("flags", open2("file", 1ul << 40, 0, 0, d));
    say("resolve", open2("file", O_RDONLY, 0, 1 << 20, d));
    say("size", syscall(437, d, "file", (long[3]){0}, 8));
    say("nofollow", openat(d, "link", O_RDONLY | O_NOFOLLOW));
    say("path", openat(d, "link", O_PATH | O_NOFOLLOW) > 0);
    int t = openat(d, ".", O_TMPFILE | O_RDWR, 0600);
    char name[64];
    sprintf(name, "/proc/self/fd/%d", t);
    say("named", linkat(AT_FDCWD, name, d, "tmp", AT_SYMLINK_FOLLOW));
    t = openat(d, ".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    sprintf(name, "/proc/self/fd/%d", t);
    say("never named", linkat(AT_FDCWD, name, d, "tmp2", AT_SYMLINK_FOLLOW));
    static char path[100001];
    memset(path, 'a', 100000);
    say("long", open(path, O_RDONLY));
    symlink("loop", "loop");
    say("loop", open("loop", O_RDONLY));
    say("odd flags", open("d/file", 0x80000000 | 020) > 0);
    char value[8];
    say("missing attribute", getxattr("none", "user.x", value, 8));
    say("no name", getxattr("d/file", "", value, 8));
    say("list", listxattr("/proc/self/status", value, 8));
}

int main(void) {
    int m = memfd_create("shared", 0);
    shared("memfd", m);
    int s = shm_open("/mmuemu-test", O_RDWR | O_CREAT, 0600);
    shared("shm", s);
    shm_unlink("/mmuemu-test");
    int f = open("mapped", O_RDWR | O_CREAT, 0600);
    shared("file", f);
    ways();
    return 0;
}
