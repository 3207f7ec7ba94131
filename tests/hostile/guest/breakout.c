/* Ways out that take more than one call: breakout WAY ARGUMENT... Each says what it got. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static const char *word(long result)
{
    return result < 0 ? strerrorname_np(errno) : "ok";
}

static int secret(int fd)
{
    char data[16] = "";
    int found = fd >= 0 && read(fd, data, 6) == 6 && strncmp(data, "secret", 6) == 0;

    if (fd >= 0)
        close(fd);
    return found;
}

/* race PLACE TIMES: somebody outside makes PLACE/flip a link and a directory in turn. What we rename can stay lost. */
static int race(char **arguments)
{
    char path[4096], copy[4096];
    int i, found = 0, opened = 0, fd;

    snprintf(path, sizeof path, "%s/flip/name", arguments[0]);
    snprintf(copy, sizeof copy, "%s/flip/made", arguments[0]);
    for (i = 0; i < atoi(arguments[1]) * (opened ? 1 : 100); i++) {
        fd = open(path, O_RDONLY);
        opened += fd >= 0;
        found += secret(fd);
        fd = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        opened += fd >= 0;
        if (fd >= 0 && write(fd, "broken", 6) == 6)
            close(fd);
        chmod(path, 0700);
        unlink(copy);
        rename(path, copy);
        rename(copy, path);
    }
    printf("secret: %d\nopened: %s\n", found, opened ? "some" : "none");
    return 0;
}

/* moved PLACE: a directory that is open is moved out of PLACE by somebody outside, while we wait. */
static int moved(char **arguments)
{
    static const char *const ways[] = {"../name", "../../name", "../outside/name", "../../outside/name", "link"};
    char path[4096];
    unsigned i;
    int found = 0, dir, made;

    snprintf(path, sizeof path, "%s/deep/down", arguments[0]);
    dir = open(path, O_RDONLY | O_DIRECTORY);
    if (dir < 0 || chdir(path) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    snprintf(path, sizeof path, "%s/go", arguments[0]);
    while (access(path, F_OK) != 0)
        usleep(1000);
    for (i = 0; i < sizeof ways / sizeof *ways; i++) {
        found += secret(open(ways[i], O_RDONLY));
        found += secret(openat(dir, ways[i], O_RDONLY));
        made = openat(dir, ways[i], O_WRONLY | O_TRUNC);
        if (made >= 0)
            close(made);
    }
    made = openat(dir, "../made", O_WRONLY | O_CREAT, 0600);
    if (made >= 0)
        close(made);
    printf("secret: %d\n", found);
    return 0;
}

/* ioctls FIRST LAST FILE: every request of that range on every kind of descriptor; prints how many were taken. */
static int ioctls(char **arguments)
{
    static char data[65536];
    int pipes[2], fds[6] = {0, 1, 2}, i, taken = 0;
    unsigned long request;

    signal(SIGHUP, SIG_IGN); /* TIOCNOTTY */
    if (pipe(pipes) != 0)
        return 1;
    fds[3] = pipes[0];
    fds[4] = open(arguments[2], O_RDWR);
    fds[5] = open("/", O_RDONLY | O_DIRECTORY);
    for (i = 0; i < 6; i++)
        for (request = strtoul(arguments[0], NULL, 0); request <= strtoul(arguments[1], NULL, 0); request++) {
            memset(data, 'A', 64);
            if (request == TCGETS || request == TCSETS || request == TCSETSW || request == TCSETSF)
                continue;
            taken += ioctl(fds[i], request, data) == 0;
        }
    printf("taken: %d\n", taken);
    return 0;
}

/* streams: what else can be done to the standard streams, which are somebody else's. */
static int streams(char **arguments)
{
    static const int commands[] = {F_SETFL, F_SETOWN, F_SETSIG, F_SETLEASE, F_SETPIPE_SZ, F_NOTIFY, F_ADD_SEALS};
    struct timespec times[2] = {{1, 0}, {2, 0}};
    struct flock lock = {.l_type = F_WRLCK};
    char path[64];
    unsigned i;
    int fd;

    (void)arguments;
    for (fd = 0; fd < 2; fd++) {
        for (i = 0; i < sizeof commands / sizeof *commands; i++)
            fcntl(fd, commands[i], commands[i] == F_SETFL ? O_NONBLOCK | O_ASYNC | O_APPEND | O_DIRECT : 1);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETLK, &lock);
        flock(fd, LOCK_EX | LOCK_NB);
        fchmod(fd, 04777);
        if (fchown(fd, 0, 0) == 0)
            fprintf(stderr, "fchown worked\n");
        futimens(fd, times);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", 0);
    fprintf(stderr, "cut it by opening: %s\n", word(open(path, O_RDONLY | O_TRUNC)));
    fd = open(path, O_RDWR);
    fprintf(stderr, "write to standard input: %s\n", word(fd < 0 ? -1 : write(fd, "broken", 6)));
    fprintf(stderr, "cut standard input: %s\n", word(ftruncate(0, 0)));
    fprintf(stderr, "cut it by name: %s\n", word(truncate(path, 0)));
    fprintf(stderr, "map it: %s\n", word(mmap(NULL, 4096, 3, MAP_SHARED, 0, 0) == MAP_FAILED ? -1 : 0));
    fd = open("/proc/self/fd/1", O_RDONLY);
    fprintf(stderr, "read standard output: %s\n", word(fd < 0 ? -1 : read(fd, path, 8)));
    close_range(0, ~0u, 0);
    return 0;
}

static const struct {
    const char *name;
    unsigned char code[16];
} forbidden[] = {
    {"hlt", {0xf4}},
    {"cli", {0xfa}},
    {"sti", {0xfb}},
    {"in al, dx", {0x66, 0xba, 0x00, 0x05, 0xec}},
    {"in eax, dx", {0x66, 0xba, 0x10, 0x05, 0xed}},
    {"outsb", {0x6e}},
    {"insb", {0x6c}},
    {"mov cr3, rax", {0x0f, 0x22, 0xd8}},
    {"mov rax, cr0", {0x0f, 0x20, 0xc0}},
    {"mov dr7, rax", {0x0f, 0x23, 0xf8}},
    {"lgdt", {0x0f, 0x01, 0x14, 0x24}},
    {"lidt", {0x0f, 0x01, 0x1c, 0x24}},
    {"lldt", {0x0f, 0x00, 0xd0}},
    {"ltr", {0x0f, 0x00, 0xd8}},
    {"lmsw", {0x0f, 0x01, 0xf0}},
    {"wrmsr", {0x0f, 0x30}},
    {"rdmsr", {0x0f, 0x32}},
    {"invlpg", {0x0f, 0x01, 0x38}},
    {"wbinvd", {0x0f, 0x09}},
    {"invd", {0x0f, 0x08}},
    {"clts", {0x0f, 0x06}},
    {"swapgs", {0x0f, 0x01, 0xf8}},
    {"sysret", {0x48, 0x0f, 0x07}},
    {"sysexit", {0x48, 0x0f, 0x35}},
    {"sysenter", {0x0f, 0x34}},
    {"int 0x80", {0xcd, 0x80}},
    {"int 0x20", {0xcd, 0x20}},
    {"vmcall", {0x0f, 0x01, 0xc1}},
    {"vmmcall", {0x0f, 0x01, 0xd9}},
    {"vmrun", {0x0f, 0x01, 0xd8}},
    {"rsm", {0x0f, 0xaa}},
    {"monitor", {0x0f, 0x01, 0xc8}},
    {"xsetbv", {0x0f, 0x01, 0xd1}},
    {"clac", {0x0f, 0x01, 0xca}},
    {"getsec", {0x0f, 0x37}},
    {"ring 0 by iretq", {0x6a, 0x10, 0x54, 0x9c, 0x6a, 0x08, 0x50, 0x48, 0xcf}},
    {"ring 0 by lretq", {0x6a, 0x08, 0x50, 0x48, 0xcb}},
    {"the direct map", {0x48, 0xb8, 0, 0, 0, 0, 0x80, 0x88, 0xff, 0xff, 0xc6, 0x00, 0x41}},
    {"the kernel's text", {0x48, 0xb8, 0, 0, 0, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe0}},
};

/* instructions HYPERCALL-PORT: what ring 3 may not execute, one child each. */
static int instructions(char **arguments)
{
    unsigned char *code = mmap(NULL, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned port = strtoul(arguments[0], NULL, 0), i, count = sizeof forbidden / sizeof *forbidden;
    unsigned char hypercall[sizeof forbidden->code] = {0x66, 0xba, port, port >> 8, 0xb8, 60, 0, 0, 0, 0xef};
    int status;

    for (i = 0; i <= count; i++) {
        const char *name = i < count ? forbidden[i].name : "the hypercall";
        if (fork() == 0) {
            unsigned length = sizeof forbidden->code;
            const unsigned char *bytes = i < count ? forbidden[i].code : hypercall;
            while (bytes[length - 1] == 0)
                length--;
            memset(code, 0xc3, 64);
            memcpy(code, bytes, length);
            ((void (*)(void))code)();
            _exit(0);
        }
        wait(&status);
        printf("%s: %s\n", name, WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : "went on");
        fflush(stdout);
    }
    return 0;
}

static void dump(const char *path)
{
    char data[65536];
    int fd = open(path, O_RDONLY);
    ssize_t count;

    printf("== %s %s\n", path, fd < 0 ? strerrorname_np(errno) : "");
    fflush(stdout);
    while (fd >= 0 && (count = read(fd, data, sizeof data)) > 0)
        if (write(1, data, count) != count)
            break;
    close(fd);
}

/* look FILE...: everything that the files say, the environment, and what uname says. */
static int look(char **arguments)
{
    struct utsname names;
    char **variable;

    for (; *arguments; arguments++)
        dump(*arguments);
    for (variable = environ; *variable; variable++)
        puts(*variable);
    uname(&names);
    printf("%s %s %s %s %s\n", names.sysname, names.nodename, names.release, names.version, names.machine);
    return 0;
}

/* everybody: a signal for all there are, and for the groups and parents that a host would have. */
static int everybody(char **arguments)
{
    (void)arguments;
    kill(1, SIGKILL);
    kill(0, SIGCONT);
    kill(-getppid(), SIGKILL);
    printf("parent: %d\n", getppid());
    fflush(stdout);
    kill(-1, SIGKILL);
    raise(SIGKILL);
    return 0;
}

/* meet PATH: what the host has at PATH (a pipe, a socket) and what of it can be reached. */
static int meet(char **arguments)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char path[4096];
    int fd;

    snprintf(path, sizeof path, "%s/pipe", arguments[0]);
    printf("read: %s\n", word(fd = open(path, O_RDONLY | O_NONBLOCK)));
    printf("empty: %zd\n", fd < 0 ? 0 : read(fd, path, 6));
    snprintf(path, sizeof path, "%s/pipe", arguments[0]);
    fd = open(path, O_RDWR | O_NONBLOCK);
    printf("write: %s\n", word(fd < 0 ? -1 : write(fd, "broken", 6)));
    snprintf(name.sun_path, sizeof name.sun_path, "%s/socket", arguments[0]);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    printf("connect: %s\n", word(connect(fd, (void *)&name, sizeof name)));
    memcpy(name.sun_path, "\0mmuemu-hostile", 15);
    printf("connect by name: %s\n", word(connect(fd, (void *)&name, sizeof(sa_family_t) + 15)));
    printf("device: %s\n", word(open("/hostdev/zero", O_RDONLY)));
    printf("terminal: %s\n", word(open("/hostdev/tty", O_RDWR)));
    return 0;
}

static const struct {
    const char *name;
    int (*way)(char **arguments);
} ways[] = {
    {"race", race}, {"moved", moved}, {"ioctls", ioctls}, {"streams", streams}, {"instructions", instructions},
    {"look", look}, {"everybody", everybody}, {"meet", meet},
};

int main(int argc, char **argv)
{
    unsigned i;

    for (i = 0; argc > 1 && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            return ways[i].way(argv + 2);
    return 2;
}
