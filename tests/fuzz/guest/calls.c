/* Makes the system calls of a table that is written while it waits in sched_yield, in a child, and ends everything.

   Standard input is what lies at GOOD (tests/hostile/image.py). The table is at TABLE: struct table. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GOOD 0x20000000ul
#define TABLE 0x30000000ul
#define MARK 0xf00d0000ul
#define RESULT 0xf00d1000ul
#define NOBODY 65534

struct call {
    long number;
    unsigned long argument[6];
};

struct table {
    unsigned root, count;
    struct call call[32];
    long result[32];
};

static int shm, sem, msg;
static pid_t master;

static void map(unsigned long at, size_t size, int protection, int flags, int fd)
{
    if (mmap((void *)at, size, protection, flags | MAP_FIXED, fd, 0) != (void *)at)
        _exit(98);
}

static void give(int fd, int as)
{
    if (fd < 0)
        _exit(97);
    dup2(fd, as);
    close(fd);
}

static void maps(void)
{
    int fd = open("mapped", O_RDWR | O_CREAT, 0666);

    ftruncate(fd, 100);
    map(GOOD, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (size_t at = 0; at < 0x10000;) {
        ssize_t got = read(0, (char *)GOOD + at, 0x10000 - at);
        if (got <= 0)
            break;
        at += got;
    }
    map(0x21000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    map(0x22000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    map(0x23000000, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    map(0x24000000, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    close(fd);
    map(TABLE, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    memset((void *)TABLE, 0, 8192);
}

static void files(void)
{
    struct sockaddr_un name = {AF_UNIX, "listening"};
    int fds[2], fd;

    mkdir("dir", 0777);
    symlink("file", "link");
    fd = open("file", O_RDWR | O_CREAT, 0666);
    ftruncate(fd, 8192);
    give(fd, 10);
    give(open("dir", O_RDONLY), 11);
    pipe(fds);
    write(fds[1], "data", 4);
    give(fds[0], 12);
    give(fds[1], 13);
    socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    write(fds[1], "data", 4);
    give(fds[0], 14);
    give(fds[1], 15);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(fd, (void *)&name, sizeof name);
    listen(fd, 5);
    give(fd, 21);
    give(socket(AF_UNIX, SOCK_DGRAM, 0), 22);
    give(open("/dev/null", O_RDWR), 23);
    give(open("file", O_PATH), 24);
    give(open("file", O_RDONLY), 25);
    give(open("file", O_WRONLY), 26);
}

static void objects(void)
{
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 16};
    sigset_t none;

    sigemptyset(&none);
    give(epoll_create1(0), 16);
    give(eventfd(1, 0), 17);
    give(timerfd_create(CLOCK_MONOTONIC, 0), 18);
    give(signalfd(-1, &none, 0), 19);
    give(syscall(SYS_pidfd_open, getpid(), 0), 20);
    give(mq_open("/queue", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes), 27);
    mq_unlink("/queue");
    mq_send(27, "message", 7, 1);
    shm = shmget(IPC_PRIVATE, 4096, 0666);
    sem = semget(IPC_PRIVATE, 2, 0666);
    msg = msgget(IPC_PRIVATE, 0666);
}

static unsigned long meant(const struct table *table, unsigned long value)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};

    switch (value) {
    case MARK: return shm;
    case MARK + 1: return sem;
    case MARK + 2: return msg;
    case MARK + 3: return timer_create(CLOCK_MONOTONIC, &event, &timer) ? -1 : (long)timer;
    case MARK + 4: return getpid();
    }
    return value >= RESULT && value < RESULT + 32 ? table->result[value - RESULT] : value;
}

static void calls(void)
{
    struct table *table = (void *)TABLE;
    struct itimerval soon = {{1, 0}, {0, 300000}};
    struct rlimit size = {1 << 22, 1 << 22}, number = {256, 256};
    unsigned i, j;

    setsid();
    setrlimit(RLIMIT_FSIZE, &size);
    setrlimit(RLIMIT_NOFILE, &number);
    sched_yield();
    if (!table->root) {
        setresgid(NOBODY, NOBODY, NOBODY);
        setresuid(NOBODY, NOBODY, NOBODY);
    }
    setitimer(ITIMER_REAL, &soon, NULL);
    for (i = 0; i < table->count && i < 32; i++) {
        unsigned long a[6];

        for (j = 0; j < 6; j++)
            a[j] = meant(table, table->call[i].argument[j]);
        if ((pid_t)a[0] == master)
            a[0] = getpid();
        table->result[i] = syscall(table->call[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    _exit(0);
}

int main(void)
{
    struct timespec limit = {2, 0};
    sigset_t child;
    pid_t pid;
    int status;

    umask(0);
    chdir("/tmp");
    master = getpid();
    maps();
    files();
    objects();
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    pid = fork();
    if (pid == 0)
        calls();
    while (waitpid(pid, &status, WUNTRACED | WNOHANG) == 0)
        if (sigtimedwait(&child, NULL, &limit) < 0)
            break;
    kill(-1, SIGKILL);
    while (waitpid(-1, &status, __WALL) > 0);
    shmctl(shm, IPC_RMID, NULL);
    semctl(sem, 0, IPC_RMID);
    msgctl(msg, IPC_RMID, NULL);
    return 0;
}
