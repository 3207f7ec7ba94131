/* Makes the system calls of a table, each in a child of its own: calls IMAGE JOBS.

   IMAGE is what lies at GOOD. JOBS are struct job. A line a job: its number, and the error (0 when it worked) or
   "s" and the signal that ended the child. Addresses are fixed, so that whoever makes the table knows them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
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
#define EDGE 0x21000000ul
#define READ_ONLY 0x22000000ul
#define NONE 0x23000000ul
#define FILE_MAPPING 0x24000000ul
#define MARK 0xf00d0000ul
#define FD_FILE 10
#define FD_DIRECTORY 11
#define FD_PIPE 12
#define FD_SOCKETS 14
#define FD_EPOLL 16
#define FD_EVENT 17
#define FD_TIMER 18
#define FD_SIGNAL 19
#define FD_PIDFD 20
#define FD_LISTENING 21
#define FD_DATAGRAM 22
#define FD_NULL 23
#define FD_PATH 24
#define FD_READ_ONLY 25
#define FD_WRITE_ONLY 26
#define FD_QUEUE 27
#define PLACE 1

struct job {
    unsigned number, needs;
    unsigned long argument[6];
};

static int shm, sem, msg;

static void check(long result, const char *what)
{
    if (result == -1) {
        perror(what);
        exit(99);
    }
}

static void map(unsigned long at, size_t size, int protection, int flags, int fd)
{
    if (mmap((void *)at, size, protection, flags | MAP_FIXED, fd, 0) != (void *)at)
        check(-1, "mmap");
}

static void maps(const char *image)
{
    int fd;

    map(GOOD, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    check(fd = open(image, O_RDONLY), image);
    check(read(fd, (void *)GOOD, 0x10000), "read");
    close(fd);
    map(EDGE, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    memset((void *)(EDGE + 4088), 'a', 8);
    map(READ_ONLY, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    map(NONE, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    check(fd = open("mapped", O_RDWR | O_CREAT, 0666), "mapped");
    check(ftruncate(fd, 100), "ftruncate");
    map(FILE_MAPPING, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    close(fd);
}

static void place(unsigned index)
{
    char name[16];
    int fd;

    snprintf(name, sizeof name, "d%u", index);
    check(mkdir(name, 0777), name);
    check(chdir(name), name);
    check(mkdir("dir", 0777), "dir");
    check(symlink("file", "link"), "link");
    check(fd = open("file", O_RDWR | O_CREAT, 0666), "file");
    check(ftruncate(fd, 8192), "ftruncate");
    close(fd);
}

static void give(int fd, int as)
{
    check(fd, "a descriptor");
    dup2(fd, as);
    close(fd);
}

static void pair(int first, const int *fds)
{
    give(fds[0], first);
    give(fds[1], first + 1);
}

static int listening(void)
{
    struct sockaddr_un name = {AF_UNIX, "listening"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    unlink(name.sun_path);
    check(bind(fd, (void *)&name, sizeof name), "bind");
    check(listen(fd, 5), "listen");
    return fd;
}

static void descriptors(unsigned needs)
{
    sigset_t none;
    int fds[2];
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 16};

    sigemptyset(&none);
#define NEEDS(fd) (needs & 1u << (fd))
    if (NEEDS(FD_FILE)) give(open("file", O_RDWR), FD_FILE);
    if (NEEDS(FD_DIRECTORY)) give(open("dir", O_RDONLY), FD_DIRECTORY);
    if (NEEDS(FD_PIPE) || NEEDS(FD_PIPE + 1)) check(pipe(fds), "pipe"), pair(FD_PIPE, fds), write(FD_PIPE + 1, "data", 4);
    if (NEEDS(FD_SOCKETS)) {
        check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), "socketpair");
        pair(FD_SOCKETS, fds);
        write(FD_SOCKETS + 1, "data", 4);
    }
    if (NEEDS(FD_EPOLL)) give(epoll_create1(0), FD_EPOLL);
    if (NEEDS(FD_EVENT)) give(eventfd(1, 0), FD_EVENT);
    if (NEEDS(FD_TIMER)) give(timerfd_create(CLOCK_MONOTONIC, 0), FD_TIMER);
    if (NEEDS(FD_SIGNAL)) give(signalfd(-1, &none, 0), FD_SIGNAL);
    if (NEEDS(FD_PIDFD)) give(syscall(SYS_pidfd_open, getpid(), 0), FD_PIDFD);
    if (NEEDS(FD_LISTENING)) give(listening(), FD_LISTENING);
    if (NEEDS(FD_DATAGRAM)) give(socket(AF_UNIX, SOCK_DGRAM, 0), FD_DATAGRAM);
    if (NEEDS(FD_NULL)) give(open("/dev/null", O_RDWR), FD_NULL);
    if (NEEDS(FD_PATH)) give(open("file", O_PATH), FD_PATH);
    if (NEEDS(FD_READ_ONLY)) give(open("file", O_RDONLY), FD_READ_ONLY);
    if (NEEDS(FD_WRITE_ONLY)) give(open("file", O_WRONLY), FD_WRITE_ONLY);
    if (NEEDS(FD_QUEUE)) {
        char name[32];

        snprintf(name, sizeof name, "/hostile-%d", getpid());
        give(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes), FD_QUEUE);
        mq_unlink(name);
        mq_send(FD_QUEUE, "message", 7, 1);
    }
}

static unsigned long meant(unsigned long value)
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
    return value;
}

static void go(const struct job *job)
{
    unsigned long a[6];
    int i;

    for (i = 0; i < 6; i++)
        a[i] = meant(job->argument[i]);
    register unsigned long number asm("rax") = job->number;
    register unsigned long di asm("rdi") = a[0];
    register unsigned long si asm("rsi") = a[1];
    register unsigned long dx asm("rdx") = a[2];
    register unsigned long r10 asm("r10") = a[3];
    register unsigned long r8 asm("r8") = a[4];
    register unsigned long r9 asm("r9") = a[5];
    asm volatile("syscall\n\t"
                 "xor %%edi, %%edi\n\t"
                 "cmp $-4095, %%rax\n\t"
                 "jb 1f\n\t"
                 "neg %%eax\n\t"
                 "mov %%eax, %%edi\n"
                 "1: mov $231, %%eax\n\t"
                 "syscall"
                 :
                 : "r"(number), "r"(di), "r"(si), "r"(dx), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    __builtin_unreachable();
}

static void child(const struct job *job, unsigned index)
{
    struct itimerval soon = {{0, 0}, {0, 150000}};
    struct rlimit size = {1 << 24, 1 << 24}, memory = {1 << 16, 1 << 16}, files = {1024, 1024};

    setsid();
    setrlimit(RLIMIT_FSIZE, &size);
    setrlimit(RLIMIT_MEMLOCK, &memory);
    setrlimit(RLIMIT_NOFILE, &files);
    if (job->number == SYS_mq_open)
        mq_unlink("/word");
    if (job->needs & PLACE)
        place(index);
    descriptors(job->needs);
    setitimer(ITIMER_REAL, &soon, NULL);
    go(job);
}

static void be_nobody(void)
{
    if (geteuid() == 0) {
        check(setgroups(0, NULL), "setgroups");
        check(setresgid(65534, 65534, 65534), "setresgid");
        check(setresuid(65534, 65534, 65534), "setresuid");
    }
}

int main(int argc, char **argv)
{
    struct job job;
    unsigned index = 0;
    FILE *jobs;

    if (argc < 3)
        _exit(77);
    umask(0);
    be_nobody();
    close(0);
    check(open("/dev/null", O_RDWR), "/dev/null");
    maps(argv[1]);
    jobs = fopen(argv[2], "r");
    if (jobs == NULL)
        check(-1, argv[2]);
    check(shm = shmget(IPC_PRIVATE, 4096, 0600), "shmget");
    check(sem = semget(IPC_PRIVATE, 2, 0600), "semget");
    check(msg = msgget(IPC_PRIVATE, 0600), "msgget");
    while (fread(&job, sizeof job, 1, jobs) == 1) {
        pid_t pid;
        int status;

        fflush(stdout);
        check(pid = fork(), "fork");
        if (pid == 0)
            child(&job, index);
        check(waitpid(pid, &status, 0), "waitpid");
        if (WIFSIGNALED(status))
            printf("%u s%d\n", index, WTERMSIG(status));
        else
            printf("%u %d\n", index, WEXITSTATUS(status));
        index++;
    }
    mq_unlink("/word");
    shmctl(shm, IPC_RMID, NULL);
    semctl(sem, 0, IPC_RMID);
    msgctl(msg, IPC_RMID, NULL);
    return 0;
}
