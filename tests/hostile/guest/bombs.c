/* Asks for more than there is: bombs NAME. Each says what it got and with which error that ended. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 10000000
#define TELL(what, result)           \
    do {                             \
        long told;                   \
        errno = 0;                   \
        told = (result);             \
        say(what, told, errno);      \
    } while (0)

static void say(const char *what, long count, int error)
{
    printf("%s: %ld, %s\n", what, count, error ? strerrorname_np(error) : "0");
    fflush(stdout);
}

static void forks(void)
{
    pid_t pid;
    long count = 0;

    while (count < MOST && (pid = fork()) >= 0) {
        if (pid == 0)
            pause();
        count++;
    }
    say("forks", count, errno);
    kill(0, SIGKILL);
}

/* Every child forks too. */
static void doubling(void)
{
    pid_t first = getpid();
    int i, *refused = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    for (i = 0; i < 9; i++)
        *refused += fork() < 0;
    if (getpid() != first) {
        usleep(100000);
        _exit(0);
    }
    while (wait(NULL) > 0);
    say("doubling", *refused > 0, 0);
}

static void zombies(void)
{
    pid_t pid;
    long count = 0;

    while (count < MOST && (pid = fork()) >= 0) {
        if (pid == 0)
            _exit(0);
        count++;
    }
    say("zombies", count, errno);
}

static void *waits(void *unused)
{
    pause();
    return NULL;
}

static void threads(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    long count = 0;
    int error;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    while (!(error = pthread_create(&thread, &attributes, waits, NULL)))
        count++;
    say("threads", count, error);
}

/* Neighbours of different protection, so that no two areas become one. */
static void areas(void)
{
    long count = 0;

    while (count < MOST && mmap(NULL, 4096, count & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        count++;
    say("areas", count, errno);
}

static void splits(void)
{
    size_t size = 1ul << 30;
    char *all = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long count = 0;

    while (count < size / 8192 && mprotect(all + count * 8192, 4096, PROT_READ) == 0)
        count++;
    say("splits", count, count < size / 8192 ? errno : 0);
}

static void sizes(void)
{
    unsigned long size;
    long count = 0;

    for (size = 1ul << 46; size >= 1ul << 30; size >>= 1)
        while (mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED && count < 1000)
            count++;
    say("sizes", count > 0, errno);
    mlockall(MCL_CURRENT);
    size = (unsigned long)mmap(NULL, 1ul << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    say("populate", size == -1ul, 0);
}

static void touching(void)
{
    long count = 0, size = 1l << 34;
    char *all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    for (; count < size; count += 4096)
        all[count] = 1;
    say("touching", count, 0);
}

static void more(void)
{
    struct rlimit limit = {4096, 4096};

    setrlimit(RLIMIT_NOFILE, &limit);
}

#define UNTIL_REFUSED(name, make)              \
    static void name(void)                     \
    {                                          \
        long count = 0;                        \
        int fds[2];                            \
                                               \
        more();                                \
        while (count < MOST && (make) >= 0)    \
            count++;                           \
        say(#name, count, errno);              \
    }

UNTIL_REFUSED(dups, dup(0))
UNTIL_REFUSED(pipes, pipe(fds))
UNTIL_REFUSED(pairs, socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
UNTIL_REFUSED(epolls, epoll_create1(0))
UNTIL_REFUSED(eventfds, eventfd(0, 0))
UNTIL_REFUSED(timerfds, timerfd_create(CLOCK_MONOTONIC, 0))
UNTIL_REFUSED(memfds, memfd_create("m", 0))
UNTIL_REFUSED(opens, open("/proc/self/exe", O_RDONLY))
UNTIL_REFUSED(creations, open("created", O_RDWR | O_CREAT, 0600))
UNTIL_REFUSED(ptys, open("/dev/ptmx", O_RDWR | O_NOCTTY))

static void tables(void)
{
    long count = 0;

    more();
    while (count < 200) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            while (eventfd(0, 0) >= 0);
            pause();
        }
        count++;
    }
    say("tables", count > 0, 0);
    usleep(1000);
    kill(0, SIGKILL);
}

/* Every file that can be found, all open and mapped. */
static void walk(const char *top, long *opened, long *refused)
{
    DIR *directory = opendir(top);
    struct dirent *entry;
    char name[4096];

    if (directory == NULL)
        return;
    while (*refused == 0 && (entry = readdir(directory)) != NULL) {
        int fd;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", top, entry->d_name);
        fd = open(name, O_RDONLY | O_NOFOLLOW);
        if (fd < 0)
            *refused += errno == EMFILE || errno == ENFILE;
        else
            ++*opened, read(fd, name, 10), mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    }
}

static void different(void)
{
    long opened = 0, refused = 0;

    more();
    walk(".", &opened, &refused);
    say("different", opened > 50, refused ? EMFILE : 0);
}

static void nesting(void)
{
    struct epoll_event event = {EPOLLIN};
    int inner = epoll_create1(0), outer, depth;

    for (depth = 0; depth < 1000; depth++) {
        outer = epoll_create1(0);
        event.data.fd = inner;
        if (epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event))
            break;
        inner = outer;
    }
    say("nesting", depth, errno);
    outer = epoll_create1(0);
    inner = epoll_create1(0);
    epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event);
    TELL("circle", epoll_ctl(inner, EPOLL_CTL_ADD, outer, &event));
}

static void names(void)
{
    static char name[100001];
    int i, fd, depth = 0;
    char target[32];

    memset(name, 'a', 100000);
    TELL("long name", open(name, O_RDONLY));
    for (i = 0; i < 100000; i++)
        name[i] = i & 1 ? '/' : '.';
    TELL("long path", open(name, O_RDONLY));
    symlink("loop", "loop");
    TELL("loop", open("loop", O_RDONLY));
    symlink("there/..", "back");
    mkdir("there", 0700);
    symlink("l1", "l0");
    for (i = 1; i < 60; i++) {
        char link[16];
        snprintf(link, sizeof link, "l%d", i);
        snprintf(target, sizeof target, "l%d", i + 1);
        symlink(target, link);
    }
    close(open("l60", O_CREAT | O_RDWR, 0600));
    TELL("forty links", open("l0", O_RDONLY));
    while (depth < 3000 && mkdir("deep", 0700) == 0 && chdir("deep") == 0)
        depth++;
    say("depth", depth, depth < 3000 ? errno : 0);
    TELL("getcwd", getcwd(name, 1000) != NULL);
    TELL("getcwd, long", syscall(SYS_getcwd, name, sizeof name));
    say("up", chdir("../../../..") == 0, 0);
    fd = open(".", O_RDONLY);
    say("fchdir", fchdir(fd), 0);
}

static int recurse(volatile char *above)
{
    volatile char here[256];

    here[0] = above[0];
    return recurse(here) + here[0];
}

static void recursion(void)
{
    stack_t stack = {malloc(65536), 0, 65536};
    char start = 1;

    sigaltstack(&stack, NULL);
    say("recursion", 0, 0);
    recurse(&start);
}

static volatile sig_atomic_t got;

static void on_signal(int number)
{
    got++;
}

/* A handler that its own signal interrupts again and again: the stack ends. */
static void on_nested(int number)
{
    got++;
    raise(number);
}

static void storm(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
    union sigval value = {0};
    sigset_t all;
    long queued = 0;
    int i;

    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    for (i = 0; i < 5000; i++)
        raise(SIGUSR1);
    say("raised", got, 0);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    while (queued < MOST && sigqueue(getpid(), SIGRTMIN, value) == 0)
        queued++;
    say("queued", queued, errno);
    for (i = 0; i < 100000; i++)
        kill(getpid(), SIGUSR1);
    got = 0;
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    say("delivered", got == queued + 1, 0);
    action.sa_handler = on_nested;
    sigaction(SIGUSR2, &action, NULL);
    raise(SIGUSR2);
}

static void timers(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec fast = {{0, 1}, {0, 1}};
    struct itimerval quick = {{0, 1}, {0, 1}};
    timer_t timer;
    long count = 0, i;

    signal(SIGUSR1, on_signal);
    signal(SIGALRM, on_signal);
    signal(SIGVTALRM, on_signal);
    signal(SIGPROF, on_signal);
    for (i = 0; i < 20; i++) {
        if (timer_create(CLOCK_MONOTONIC, &event, &timer))
            break;
        timer_settime(timer, 0, &fast, NULL);
    }
    setitimer(ITIMER_REAL, &quick, NULL);
    setitimer(ITIMER_VIRTUAL, &quick, NULL);
    setitimer(ITIMER_PROF, &quick, NULL);
    for (i = 0; i < 20000; i++)
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &fast.it_value);
    say("timers fired", got, 0);
    signal(SIGUSR1, SIG_IGN);
    while (count < MOST && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0)
        count++;
    say("timers", count, errno);
}

static void arguments(void)
{
    static char *argv[70000], big[200000];
    char *env[] = {NULL}, *two[] = {big, NULL};
    long i;

    memset(big, 'x', sizeof big - 1);
    execve("/proc/self/exe", two, env);
    say("a long argument", 0, errno);
    big[120000] = 0;
    for (i = 0; i < 69999; i++)
        argv[i] = big;
    execve("/proc/self/exe", argv, env);
    say("long arguments", 0, errno);
    for (i = 0; i < 64; i++)
        ((char **)big)[i] = (char *)argv;
    syscall(SYS_execve, "/proc/self/exe", argv, (char **)-8l);
    say("bad environment", 0, errno);
}

static void vectors(void)
{
    static struct iovec all[1025];
    static char data[4096], entries[1 << 20];
    int fds[2], i, dir;
    long total = 0, n;

    for (i = 0; i < 1025; i++)
        all[i].iov_base = data, all[i].iov_len = sizeof data;
    pipe2(fds, O_NONBLOCK);
    TELL("1025 pieces", writev(fds[1], all, 1025));
    TELL("-1 pieces", writev(fds[1], all, -1));
    errno = 0;
    TELL("1024 pieces", writev(fds[1], all, 1024));
    for (i = 0; i < 1024; i++)
        all[i].iov_len = 1ul << 62;
    TELL("huge pieces", writev(fds[1], all, 1024));
    errno = 0;
    while ((n = write(fds[1], data, sizeof data)) > 0)
        total += n;
    say("never read", total, errno);
    dir = open("/proc", O_RDONLY);
    errno = 0;
    TELL("giant getdents", syscall(SYS_getdents64, dir, entries, 0x7fffffff) > 0);
    TELL("getdents, all", syscall(SYS_getdents64, dir, entries, -1));
}

/* Descriptors in flight in a circle of unread messages. */
static void passing(void)
{
    char control[CMSG_SPACE(sizeof(int) * 2)] = {0}, byte = 0;
    struct iovec piece = {&byte, 1};
    struct msghdr message = {NULL, 0, &piece, 1, control, sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    long count = 0;
    int fds[2];

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fds);
    for (;;) {
        if (count >= 20000 || socketpair(AF_UNIX, SOCK_DGRAM, 0, fds))
            break;
        memcpy(CMSG_DATA(header), fds, sizeof fds);
        if (sendmsg(fds[0], &message, MSG_DONTWAIT) != 1 || sendmsg(fds[1], &message, MSG_DONTWAIT) != 1)
            break;
        close(fds[0]);
        close(fds[1]);
        count++;
    }
    say("circles", count, count < 20000 ? errno : 0);
}

static void disk(void)
{
    static char data[1 << 20];
    long total = 0, n;
    int fd = open("/tmp/big", O_RDWR | O_CREAT, 0600);

    memset(data, 1, sizeof data);
    while (total < 1l << 34 && (n = write(fd, data, sizeof data)) > 0)
        total += n;
    say("disk", total > 0, total < 1l << 34 ? errno : 0);
    ftruncate(fd, 0);
    TELL("sparse", ftruncate(fd, 1l << 50));
    TELL("at the end", pwrite(fd, data, 4096, (1l << 50) - 4096));
    TELL("allocated", fallocate(fd, 0, 0, 1l << 49));
}

static void files(void)
{
    char name[64];
    long count = 0;

    mkdir("/tmp/many", 0700);
    for (; count < 100000; count++) {
        snprintf(name, sizeof name, "/tmp/many/%ld", count);
        if (mknod(name, S_IFREG | 0600, 0))
            break;
    }
    say("files", count, count < 100000 ? errno : 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} bombs[] = {
#define BOMB(name) {#name, name}
    BOMB(forks), BOMB(doubling), BOMB(zombies), BOMB(threads), BOMB(areas), BOMB(splits), BOMB(sizes), BOMB(touching),
    BOMB(dups), BOMB(pipes), BOMB(pairs), BOMB(epolls), BOMB(eventfds), BOMB(timerfds), BOMB(memfds), BOMB(opens),
    BOMB(creations), BOMB(ptys), BOMB(tables), BOMB(different), BOMB(nesting), BOMB(names), BOMB(recursion), BOMB(storm), BOMB(timers),
    BOMB(arguments), BOMB(vectors), BOMB(passing), BOMB(disk), BOMB(files),
};

int main(int argc, char **argv)
{
    unsigned i;

    for (i = 0; argc == 2 && i < sizeof bombs / sizeof *bombs; i++)
        if (strcmp(bombs[i].name, argv[1]) == 0) {
            bombs[i].run();
            return 0;
        }
    return 2;
}
