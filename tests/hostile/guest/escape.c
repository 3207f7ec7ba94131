/* Tries to leave what was mounted: escape RW RO OUTSIDE SECRET. RW and RO are mounted, OUTSIDE is not; SECRET lies in
   it. A line for each attempt that worked; "tried" and their number at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int tried;

static void worked(const char *what, const char *path)
{
    printf("worked: %s %s\n", what, path);
}

static void look(const char *path)
{
    char data[16] = "";
    int fd = open(path, O_RDONLY);

    tried++;
    if (fd >= 0 && read(fd, data, 6) == 6 && strncmp(data, "secret", 6) == 0)
        worked("read", path);
    if (fd >= 0)
        close(fd);
}

static void alter(const char *path)
{
    int fd = open(path, O_WRONLY);

    tried++;
    if (fd >= 0 && write(fd, "broken", 6) == 6)
        worked("write", path);
    if (fd >= 0)
        close(fd);
    if (truncate(path, 0) == 0)
        worked("truncate", path);
    if (chmod(path, 0777) == 0)
        worked("chmod", path);
    if (utimensat(AT_FDCWD, path, NULL, 0) == 0)
        worked("utimensat", path);
}

static void make(const char *format, const char *directory)
{
    char path[4096];
    int fd;

    snprintf(path, sizeof path, "%s/%s", directory, format);
    tried++;
    if ((fd = open(path, O_WRONLY | O_CREAT, 0666)) >= 0)
        worked("create", path);
    if (mkdir(path, 0777) == 0)
        worked("mkdir", path);
    if (symlink("x", path) == 0)
        worked("symlink", path);
    if (mknod(path, S_IFCHR | 0666, 0x101) == 0 || mknod(path, S_IFBLK | 0666, 0x800) == 0)
        worked("mknod", path);
}

/* A path made of a prefix and the secret's own path. */
static void through(const char *prefix, const char *secret)
{
    char path[8192];

    snprintf(path, sizeof path, "%s%s", prefix, secret);
    look(path);
    alter(path);
}

static void descriptors(const char *secret)
{
    int fd;
    struct stat st;

    for (fd = 3; fd < 1024; fd++) {
        tried++;
        if (fstat(fd, &st) == 0)
            printf("worked: descriptor %d\n", fd);
        if (openat(fd, secret + 1, O_RDONLY) >= 0)
            printf("worked: openat %d\n", fd);
    }
}

static void processes(const char *secret)
{
    static const char *const links[] = {"root", "cwd", "fd/0", "fd/1", "fd/2", "fd/3", "exe", "task/1/root", "map_files"};
    char prefix[64];
    unsigned i;
    int pid;

    for (pid = 0; pid < 120; pid++)
        for (i = 0; i < sizeof links / sizeof *links; i++) {
            snprintf(prefix, sizeof prefix, pid ? "/proc/%d/%s/../../../../../.." : "/proc/self%.0d/%s/../..", pid, links[i]);
            through(prefix, secret);
        }
    snprintf(prefix, sizeof prefix, "/proc/%d/mem", getppid());
    if (open(prefix, O_RDWR) >= 0)
        worked("open", prefix);
}

static void memory(void)
{
    int fd = open("/proc/self/mem", O_RDWR);
    char *kernel = (char *)0xffff888000000000;
    char byte;

    tried++;
    if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED)
        worked("mmap", "/proc/self/mem");
    if (pread(fd, &byte, 1, (long)kernel) == 1 || pwrite(fd, &byte, 1, (long)kernel) == 1)
        worked("the kernel through", "/proc/self/mem");
}

static void leave_chroot(const char *secret)
{
    int i, top = open("/", O_RDONLY);

    tried++;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0)
        worked("unshare", "");
    mkdir("/tmp/jail", 0700);
    chroot("/tmp/jail");
    fchdir(top);
    for (i = 0; i < 100; i++)
        chdir("..");
    chroot(".");
    look(secret);
    if (mount("/dev/sda1", "/tmp/jail", "ext4", 0, NULL) == 0 || mount("/", "/tmp/jail", NULL, MS_BIND, NULL) == 0)
        worked("mount", "");
}

static void mounts(const char *rw, const char *ro, const char *secret)
{
    char from[4096], to[4096];

    snprintf(from, sizeof from, "%s/file", ro);
    snprintf(to, sizeof to, "%s/hard", rw);
    tried++;
    if (link(from, to) == 0)
        worked("link", to);
    if (linkat(AT_FDCWD, secret, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0)
        worked("link", secret);
    if (rename(from, to) == 0)
        worked("rename", to);
    snprintf(to, sizeof to, "%s/out", rw);
    if (rename(to, "/tmp/out") == 0)
        worked("rename", to);
}

int main(int argc, char **argv)
{
    static const char *const links[] = {"link", "directory/name", "made", "made-directory/name", "back"};
    const char *rw = argv[1], *ro = argv[2], *outside = argv[3], *secret = argv[4];
    char path[4096];
    unsigned i;

    descriptors(secret);
    snprintf(path, sizeof path, "%s/made", rw);
    symlink(secret, path);
    snprintf(path, sizeof path, "%s/made-directory", rw);
    symlink(outside, path);
    snprintf(path, sizeof path, "%s/back", rw);
    symlink("../outside/name", path);
    through("", secret);
    through("/../../../..", secret);
    make("new", outside);
    for (i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "%s/%s", rw, links[i]);
        look(path);
        alter(path);
        snprintf(path, sizeof path, "%s/%s", ro, links[i]);
        look(path);
        alter(path);
    }
    make("../outside/new", rw);
    make("directory/new", rw);
    make("made-directory/new", rw);
    mounts(rw, ro, secret);
    processes(secret);
    memory();
    leave_chroot(secret);
    printf("tried %d\n", tried);
    return 0;
}
