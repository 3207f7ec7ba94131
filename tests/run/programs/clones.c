/* clone and clone3: what is shared, and what is refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))
static char stack[65536] __attribute__((aligned(16)));
static volatile int value;
static pid_t parent_tid, child_tid = -1;

static int child(void *argument) {
    value = 77;
    close(20);
    chdir("/");
    umask(011);
    signal(SIGUSR1, SIG_IGN);
    return 5;
}

static void shared(const char *what, int flags) {
    char cwd[4096];
    int status, fd = open("/dev/null", O_RDONLY);
    dup2(fd, 20);
    close(fd);
    value = 0;
    umask(022);
    signal(SIGUSR1, SIG_DFL);
    char *home = getcwd(NULL, 0);
    pid_t pid = clone(child, stack + sizeof stack, flags | SIGCHLD, NULL);
    waitpid(pid, &status, 0);
    struct sigaction action;
    sigaction(SIGUSR1, NULL, &action);
    SAY("%s: status %#x memory %d files %d cwd %d umask %o handlers %d", what, status, value == 77,
        fcntl(20, F_GETFD) < 0, !strcmp(getcwd(cwd, sizeof cwd), "/"), umask(0), action.sa_handler == SIG_IGN);
    chdir(home);
    close(20);
    free(home);
}

static void sharing(void) {
    shared("nothing", 0);
    shared("CLONE_VM", CLONE_VM);
    shared("CLONE_FILES", CLONE_FILES);
    shared("CLONE_FS", CLONE_FS);
    shared("CLONE_VM|SIGHAND", CLONE_VM | CLONE_SIGHAND);
    shared("all", CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND);
}

static int sibling(void *argument) {
    return getppid() == *(pid_t *)argument ? 21 : 22;
}

static void parents(void) {
    int status;
    pid_t self = getpid(), pid = fork();
    if (!pid) {
        pid_t other = clone(sibling, stack + sizeof stack, CLONE_PARENT | SIGCHLD, &self);
        SAY("child waits: %d errno %d", wait(&status), errno == ECHILD);
        _exit(other > 0 ? 1 : 2);
    }
    int sum = 0;
    while (wait(&status) > 0) sum += WEXITSTATUS(status);
    SAY("parent sums %d", sum);
    signal(SIGUSR1, SIG_IGN);
    pid = clone(sibling, stack + sizeof stack, SIGUSR1, &self);
    SAY("plain wait: %d errno %d", waitpid(-1, &status, WNOHANG), errno == ECHILD);
    pid_t got = waitpid(-1, &status, __WCLONE);
    SAY("__WCLONE: %d status %#x", got == pid, status);
    signal(SIGUSR1, SIG_DFL);
    pid = clone(sibling, stack + sizeof stack, 0, &self);
    got = waitpid(-1, &status, __WALL);
    SAY("__WALL: %d status %#x", got == pid, status);
}

static int tids(void *argument) {
    return parent_tid == getpid() && child_tid == getpid() && syscall(SYS_gettid) == getpid() ? 31 : 32;
}

static int tls(void *argument) {
    uint64_t base;
    syscall(SYS_arch_prctl, 0x1003, &base);
    syscall(SYS_exit, base == (uint64_t)argument ? 41 : 42);
}

static int cleared(void *argument) { return 0; }

static void settings(void) {
    int status;
    pid_t pid = clone(tids, stack + sizeof stack, CLONE_VM | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, NULL, &parent_tid, NULL, &child_tid);
    waitpid(pid, &status, 0);
    SAY("tids: %#x, set here %d %d", status, parent_tid == pid, child_tid == pid);
    child_tid = -1;
    pid = clone(cleared, stack + sizeof stack, CLONE_CHILD_SETTID | SIGCHLD, NULL, &parent_tid, NULL, &child_tid);
    waitpid(pid, &status, 0);
    SAY("in its own memory only: %d", child_tid);
    child_tid = 1;
    pid = clone(cleared, stack + sizeof stack, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, &parent_tid, NULL, &child_tid);
    waitpid(pid, &status, 0);
    SAY("cleared: %d", child_tid);
    char *block = calloc(1, 8192);
    *(void **)(block + 4096) = block + 4096;
    *(void **)(block + 4096 + 16) = block + 4096;
    pid = clone(tls, stack + sizeof stack, CLONE_VM | CLONE_SETTLS | SIGCHLD, block + 4096, NULL, block + 4096);
    waitpid(pid, &status, 0);
    SAY("FS base: %#x", status);
}

static volatile int counter;

static int adder(void *argument) {
    for (int i = 0; i < 1000; i++) __sync_fetch_and_add(&counter, 1);
    __sync_fetch_and_add((int *)argument, 1);
    syscall(SYS_exit, 0);
}

static void threads(void) {
    static int done;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    for (int i = 0; i < 20; i++) {
        char *stack = malloc(16384);
        if (clone(adder, stack + 16384, flags, &done) < 0) SAY("errno %d", errno);
    }
    while (done < 20) usleep(1000);
    SAY("counted %d", counter);
    SAY("no child: %d", waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static void refused(const char *what, long flags) {
    errno = 0;
    long pid = syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (!pid) _exit(0);
    SAY("%s: %s errno %d", what, pid > 0 ? "done" : "refused", errno);
    if (pid > 0) waitpid(pid, NULL, __WALL);
}

static void refused3(const char *what, uint64_t *args, size_t size) {
    errno = 0;
    long pid = syscall(SYS_clone3, args, size);
    if (!pid) _exit(0);
    SAY("%s: %s errno %d", what, pid > 0 ? "done" : "refused", errno);
    if (pid > 0) waitpid(pid, NULL, __WALL);
}

enum { FLAGS, PIDFD, CHILD, PARENT, EXIT, STACK, SIZE, TLS, SET_TID, SET_TID_SIZE, CGROUP, MORE };

static void with(const char *what, int field, uint64_t value, int field2, uint64_t value2) {
    uint64_t args[16] = {0};
    args[EXIT] = SIGCHLD;
    args[field] = value;
    args[field2] = value2;
    refused3(what, args, 88);
}

static void errors(void) {
    refused("CLONE_SIGHAND alone", CLONE_SIGHAND | SIGCHLD);
    refused("CLONE_THREAD alone", CLONE_THREAD | SIGCHLD);
    refused("CLONE_THREAD|VM", CLONE_THREAD | CLONE_VM | SIGCHLD);
    refused("CLONE_FS|NEWNS", CLONE_FS | CLONE_NEWNS | SIGCHLD);
    refused("CLONE_DETACHED is ignored", 0x400000 | SIGCHLD);
    refused("CLONE_UNTRACED is ignored", 0x800000 | SIGCHLD);
    uint64_t args[600] = {0};
    args[EXIT] = SIGCHLD;
    refused3("size 0", args, 0);
    refused3("size 63", args, 63);
    refused3("size 64", args, 64);
    refused3("size 80", args, 80);
    refused3("size 88", args, 88);
    refused3("size 96", args, 96);
    args[MORE] = 1;
    refused3("size 96 with a bit", args, 96);
    args[MORE] = 0;
    refused3("size 4096", args, 4096);
    refused3("size 4097", args, 4097);
    refused3("bad address", (uint64_t *)8, 88);
    refused3("NULL", 0, 88);
    with("exit signal 65", EXIT, 65, MORE, 0);
    signal(64, SIG_IGN);
    with("exit signal 64", EXIT, 64, MORE, 0);
    with("exit signal 256+17", EXIT, 256 + 17, MORE, 0);
    with("CSIGNAL in flags", FLAGS, 17, MORE, 0);
    with("CLONE_DETACHED", FLAGS, 0x400000, MORE, 0);
    with("unknown flag", FLAGS, 1ull << 40, MORE, 0);
    with("thread with a signal", FLAGS, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, MORE, 0);
    with("parent with a signal", FLAGS, CLONE_PARENT, MORE, 0);
    with("stack without size", STACK, (uint64_t)stack, MORE, 0);
    with("size without stack", SIZE, 4096, MORE, 0);
    with("stack out of reach", STACK, ~0xfffull, SIZE, 0x1000);
    with("set_tid without size", SET_TID, (uint64_t)stack, MORE, 0);
    with("set_tid_size without set_tid", SET_TID_SIZE, 1, MORE, 0);
    with("set_tid_size too large", SET_TID_SIZE, 33, SET_TID, (uint64_t)stack);
    with("clear sighand and sighand", FLAGS, 1ull << 32 | CLONE_SIGHAND | CLONE_VM, MORE, 0);
    with("clear sighand", FLAGS, 1ull << 32, MORE, 0);
    with("cgroup without flag is ignored", CGROUP, 5, MORE, 0);
}

static void clearing(void) {
    uint64_t args[11] = {0};
    int status;
    signal(SIGUSR1, (void (*)(int))clearing);
    signal(SIGUSR2, SIG_IGN);
    args[FLAGS] = 1ull << 32, args[EXIT] = SIGCHLD;
    long pid = syscall(SYS_clone3, args, 88);
    if (!pid) {
        struct sigaction one, two;
        sigaction(SIGUSR1, NULL, &one), sigaction(SIGUSR2, NULL, &two);
        _exit((one.sa_handler == SIG_DFL) * 2 + (two.sa_handler == SIG_IGN));
    }
    waitpid(pid, &status, 0);
    SAY("handlers cleared, ignored kept: %#x", status);
}

static void oddsignals(void) {
    int signals[] = {0, 34, 64, 65, 171, 255}, status;
    signal(34, SIG_IGN), signal(64, SIG_IGN);
    for (int i = 0; i < 6; i++) {
        long pid = syscall(SYS_clone, (long)signals[i], 0, 0, 0, 0);
        if (!pid) _exit(i);
        long found = waitpid(pid, &status, __WALL);
        SAY("exit signal %d: %d, status %#x", signals[i], found == pid, status);
        sched_yield();
    }
}

/* Who is told of an end by what: with CLONE_PARENT by what the parent has, after execve by SIGCHLD. */
static void exitsignals(void) {
    int status;
    sigset_t both;
    siginfo_t info;
    sigemptyset(&both), sigaddset(&both, SIGCHLD), sigaddset(&both, SIGUSR2);
    sigprocmask(SIG_BLOCK, &both, NULL);
    struct { const char *name; long outer, inner; } ways[] = {
        {"fork", SIGCHLD, SIGUSR2}, {"a child that tells by SIGUSR2", SIGUSR2, SIGFPE}, {"a silent child", 0, SIGUSR2},
    };
    for (int i = 0; i < 3; i++) {
        int ends[2];
        pipe(ends);
        long outer = syscall(SYS_clone, ways[i].outer, 0, 0, 0, 0);
        if (!outer) {
            long inner = syscall(SYS_clone, CLONE_PARENT | ways[i].inner, 0, 0, 0, 0);
            if (!inner) _exit(7);
            write(ends[1], &inner, sizeof inner);
            pause();
        }
        long inner;
        read(ends[0], &inner, sizeof inner);
        int got = ways[i].outer ? sigwaitinfo(&both, &info) : 0;
        long found = waitpid(inner, &status, ways[i].outer == SIGCHLD ? 0 : __WALL);
        SAY("CLONE_PARENT of %s: signal %d, code %d, of it %d, waited for %d, status %#x", ways[i].name, got,
            got ? info.si_code : 0, got ? info.si_pid == inner : 0, found == inner, status);
        kill(outer, SIGKILL);
        if (ways[i].outer) sigwaitinfo(&both, &info);
        waitpid(outer, &status, __WALL);
    }
    long pid = syscall(SYS_clone, (long)SIGUSR2, 0, 0, 0, 0);
    if (!pid) {
        execl("/proc/self/exe", "clones", "nothing", NULL);
        _exit(9);
    }
    int got = sigwaitinfo(&both, &info);
    long found = waitpid(pid, &status, 0);
    SAY("execve: signal %d, waited for %d, status %#x", got, found == pid, status);
}

int main(int argc, char **argv) {
    struct { const char *name; void (*run)(void); } all[] = {
        {"sharing", sharing}, {"parents", parents}, {"settings", settings}, {"threads", threads}, {"errors", errors},
        {"clearing", clearing}, {"oddsignals", oddsignals}, {"exitsignals", exitsignals},
    };
    for (int i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(argv[1], all[i].name)) all[i].run();
    return 0;
}
