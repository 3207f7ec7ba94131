/* Random system calls with random arguments: fuzz SEED CALLS. Children make them, 100 each at most, some as root.

   The last line tells how many calls were made and how the children ended. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GOOD 0x20000000ul
#define PAGES 64
#define EACH 100
#define LAST_CALL 470

static unsigned long state;
static volatile unsigned long *made;
static pid_t master;

static unsigned long any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dul;
}

static unsigned below(unsigned limit)
{
    return (any() >> 33) % limit;
}

static const char *const paths[] = {
    "f", "d", "d/x", "new", "link", "..", ".", "/", "/proc/self/mem", "/proc/self/maps", "/proc/self/fd/3", "/dev/null",
    "/dev/zero", "/tmp/f", "/proc/1/root", "/proc/self/exe", "/dev/ptmx", "/dev/tty", "", "loop", "fifo", "/proc/self/cwd",
    "/proc/self/fd", "/dev/shm", "/etc/passwd", "user.x", "/queue", "tmpfs", "/proc/self/status", "/proc/self/root/..",
};
#define PATHS (sizeof paths / sizeof *paths)
static const unsigned long hostile[] = {
    0, 1, 0xffff888000000000ul, 0xffffffff81000000ul, 0x8000000000000000ul, 0x800000000000ul, 0x7fffffffefff, -1ul,
    0x21000fff, 0x22000000, 0x23000000, 0x24001000, 0x20800000, -8ul, 0x7ffffffff000ul, 0x7fffffff, 0x80000000,
    0x100000000ul, 0x7ffffffffffffffful, 4096, 4095, 255, -100ul, -4095ul, 0xffff800000000000ul,
};

static unsigned long good(void)
{
    return GOOD + (unsigned long)below(PAGES * 4096 / 8) * 8 + (below(8) ? 0 : below(8));
}

static unsigned long argument(void)
{
    switch (below(12)) {
    case 0: return hostile[below(sizeof hostile / sizeof *hostile)];
    case 1: return any();
    case 2: return any() & any() & any();
    case 3: return 1ul << below(64);
    case 4: case 5: return below(32);
    case 6: return GOOD + below(PATHS) * 64;
    case 7: return below(4096);
    default: return good();
    }
}

/* A word of plausible content: small numbers, addresses, flags. */
static unsigned long content(void)
{
    switch (below(6)) {
    case 0: return 0;
    case 1: return below(40);
    case 2: return good();
    case 3: return below(1 << 16) | (unsigned long)below(64) << 32;
    case 4: return hostile[below(sizeof hostile / sizeof *hostile)];
    default: return any();
    }
}

static void fill(void)
{
    unsigned i;

    for (i = 0; i < PAGES * 512; i += 1 + below(3))
        ((unsigned long *)GOOD)[i] = content();
    for (i = 0; i < PATHS; i++)
        strcpy((char *)GOOD + i * 64, paths[i]);
}

static void map(unsigned long at, int protection, int flags, int fd, int pages)
{
    mmap((void *)at, pages * 4096, protection, flags | MAP_FIXED, fd, 0);
}

static void objects(void)
{
    int fds[2];

    mkdir("d", 0777);
    symlink("loop", "loop");
    symlink("f", "link");
    mknod("fifo", S_IFIFO | 0666, 0);
    open("f", O_RDWR | O_CREAT, 0666);
    pipe(fds);
    socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
    socket(AF_UNIX, SOCK_SEQPACKET, 0);
    epoll_create1(0);
    eventfd(3, 0);
    timerfd_create(CLOCK_MONOTONIC, 0);
    open(".", O_RDONLY);
    open("/dev/ptmx", O_RDWR | O_NOCTTY);
    open("/dev/zero", O_RDWR);
    syscall(SYS_pidfd_open, getpid(), 0);
    open("/proc/self/mem", O_RDWR);
    open("/proc/self/maps", O_RDONLY);
    map(0x21000000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1);
    map(0x22000000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1);
    map(0x23000000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1);
    ftruncate(3, 100);
    map(0x24000000, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 2);
}

static int spared(unsigned number, const unsigned long *a)
{
    switch (number) {
    case SYS_exit: case SYS_exit_group: case SYS_pause: case SYS_rt_sigsuspend: case SYS_vfork:
        return below(20) != 0;
    case SYS_kill: case SYS_tkill: case SYS_rt_sigqueueinfo: case SYS_prlimit64: case SYS_sched_setaffinity:
        return (int)a[0] == master || (int)a[0] == -1 || (int)a[0] == -master;
    case SYS_tgkill: case SYS_rt_tgsigqueueinfo:
        return (int)a[0] == master || (int)a[1] == master;
    }
    return 0;
}

static void children_calls(unsigned long seed)
{
    struct itimerval soon = {{1, 0}, {0, 300000}};
    unsigned i;

    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    state = seed;
    setsid();
    objects();
    map(GOOD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGES);
    fill();
    if (below(2)) {
        setgroups(0, NULL);
        setresgid(65534, 65534, 65534);
        setresuid(65534, 65534, 65534);
    }
    setitimer(ITIMER_REAL, &soon, NULL);
    for (i = 0; i < EACH; i++) {
        unsigned number = below(50) ? below(LAST_CALL) : any();
        unsigned long a[6];
        unsigned j;

        for (j = 0; j < 6; j++)
            a[j] = argument();
        if (below(2))
            a[0] = below(26);
        if (spared(number, a))
            continue;
        ++*made;
        syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    _exit(0);
}

/* The status of a child, which is killed when it stops or takes too long: it may have blocked its alarm. */
static int ended(pid_t pid)
{
    struct timespec limit = {2, 0};
    sigset_t child;
    int status;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    while (waitpid(pid, &status, WUNTRACED | WNOHANG) == 0)
        if (sigtimedwait(&child, NULL, &limit) < 0)
            kill(pid, SIGKILL);
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    return status;
}

int main(int argc, char **argv)
{
    unsigned long seed = strtoul(argv[1], NULL, 0), calls = strtoul(argv[2], NULL, 0), round = 0, signals = 0, exits = 0;
    sigset_t child;

    if (argc < 3)
        return 2;
    umask(0);
    setvbuf(stdout, NULL, _IONBF, 0);
    master = getpid();
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    made = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (*made < calls && round < calls) {
        pid_t pid = fork();
        int status;

        if (pid == 0)
            children_calls(seed * 1000003 + round + 0x9e3779b97f4a7c15ul);
        if (pid < 0) {
            /* What earlier children left running is in the way. */
            while (waitpid(-1, &status, 0) > 0);
            perror("fork");
            return 1;
        }
        status = ended(pid);
        if (WIFSIGNALED(status))
            signals++;
        else
            exits++;
        round++;
    }
    printf("%lu calls, %lu exits, %lu signals\n", *made, exits, signals);
    return 0;
}
