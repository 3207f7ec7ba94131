/* fork, wait, zombies, orphans, process groups: everything printed is the same on every run. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))
#define TRY(call) do { errno = 0; long r_ = (long)(call); SAY("%s = %ld %s", #call, r_, r_ < 0 ? strerrorname_np_(errno) : ""); } while (0)
#define OK(condition) SAY("%s: %s", #condition, (condition) ? "yes" : "no")

static const char *strerrorname_np_(int e) {
    switch (e) {
    case EPERM: return "EPERM"; case ENOENT: return "ENOENT"; case ESRCH: return "ESRCH"; case EINTR: return "EINTR";
    case ECHILD: return "ECHILD"; case EAGAIN: return "EAGAIN"; case ENOMEM: return "ENOMEM"; case EACCES: return "EACCES";
    case EFAULT: return "EFAULT"; case EINVAL: return "EINVAL"; case E2BIG: return "E2BIG"; case ENOSYS: return "ENOSYS";
    case EBADF: return "EBADF"; default: return strerror(e);
    }
}

static void drain(void) { while (wait(NULL) > 0 || errno == EINTR) {} }

static int tree(int depth) {
    int sum = 1, status;
    if (!depth) return 1;
    for (int i = 0; i < 2; i++)
        if (!fork()) _exit(tree(depth - 1));
    while (wait(&status) > 0) sum += WEXITSTATUS(status);
    return sum;
}

static void forks(void) {
    static int data = 1;
    int *heap = malloc(sizeof *heap), stack = 3;
    *heap = 2;
    SAY("tree %d", tree(4));
    if (!fork()) {
        data = 10, *heap = 20, stack = 30;
        SAY("child %d %d %d", data, *heap, stack);
        _exit(0);
    }
    wait(NULL);
    SAY("parent %d %d %d", data, *heap, stack);
    int *shared = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int *private = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 5; i++) {
        if (!fork()) { shared[i] = i * i; private[i] = 7; shared[10] += 1; _exit(0); }
        wait(NULL);
    }
    SAY("shared %d %d %d %d, private %d", shared[2], shared[3], shared[4], shared[10], private[3]);
    int fd = memfd_create("m", 0);
    ftruncate(fd, 8192);
    int *file = mmap(0, 8192, 3, MAP_SHARED, fd, 0);
    if (!fork()) {
        int *again = mmap(0, 8192, 3, MAP_SHARED, fd, 0);
        again[1] = 5, again[1024] = 6;
        pwrite(fd, "abc", 4, 100);
        _exit(0);
    }
    wait(NULL);
    SAY("memfd %d %d %s", file[1], file[1024], (char *)file + 100);
    /* a fork of a fork of a fork: each writes the page the others see no more */
    int *level = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), status;
    for (*level = 0; *level < 6; ) {
        pid_t pid = fork();
        if (pid) { waitpid(pid, &status, 0); SAY("level %d child %d", *level, WEXITSTATUS(status)); break; }
        ++*level;
        if (*level == 6) _exit(*level);
    }
    if (*level) _exit(*level);
}

static void many(void) {
    int sum = 0, status, count = 0;
    for (int i = 0; i < 150; i++) {
        pid_t pid = fork();
        if (pid < 0) { SAY("fork failed"); break; }
        if (!pid) _exit(i & 127);
    }
    while (wait(&status) > 0) sum += WEXITSTATUS(status), count++;
    SAY("%d children, sum %d", count, sum);
    TRY(wait(NULL));
}

static void statuses(void) {
    int status;
    int codes[] = {0, 1, 127, 255, 256, 263, -1};
    for (int i = 0; i < 7; i++) {
        if (!fork()) _exit(codes[i]);
        wait(&status);
        SAY("exit %d: %#x", codes[i], status);
    }
    int signals[] = {SIGKILL, SIGTERM, SIGINT, SIGUSR1, SIGALRM, SIGPIPE, SIGHUP};
    for (int i = 0; i < 7; i++) {
        pid_t pid = fork();
        if (!pid) { signal(SIGINT, SIG_DFL); raise(signals[i]); _exit(9); }
        waitpid(pid, &status, 0);
        SAY("signal %d: %#x", signals[i], status);
    }
    pid_t pid = fork();
    if (!pid) { *(volatile int *)0 = 1; }
    waitpid(pid, &status, 0);
    SAY("null: signalled %d by %d", WIFSIGNALED(status), WTERMSIG(status));
    pid = fork();
    if (!pid) abort();
    waitpid(pid, &status, 0);
    SAY("abort: signalled %d by %d", WIFSIGNALED(status), WTERMSIG(status));
    int gate[2];
    pipe(gate);
    pid = fork();
    if (!pid) { char c; close(gate[1]); read(gate[0], &c, 1); _exit(3); }
    TRY(waitpid(-1, &status, WNOHANG) == 0);
    kill(pid, SIGKILL);
    OK(waitpid(pid, &status, 0) == pid);
    SAY("killed: %#x", status);
}

static void show(const char *what, siginfo_t *info, pid_t pid) {
    SAY("%s: signo %d code %d status %d pid %s uid %s", what, info->si_signo, info->si_code, info->si_status,
        info->si_pid == pid ? "child" : info->si_pid ? "other" : "0", info->si_uid == getuid() ? "mine" : "other");
}

static void waits(void) {
    int status, gate[2];
    siginfo_t info;
    pipe(gate);
    TRY(wait(&status));
    TRY(waitpid(1, &status, 0));
    TRY(waitid(P_ALL, 0, &info, WEXITED));
    pid_t pid = fork();
    if (!pid) { char c; close(gate[1]); read(gate[0], &c, 1); _exit(42); }
    close(gate[0]);
    TRY(waitpid(pid, &status, WNOHANG));
    memset(&info, 0x55, sizeof info);
    TRY(waitid(P_PID, pid, &info, WEXITED | WNOHANG));
    SAY("nothing yet: signo %d pid %d", info.si_signo, info.si_pid);
    TRY(waitpid(pid + 100000, &status, WNOHANG));
    TRY(waitpid(-pid, &status, WNOHANG));
    TRY(waitpid(0, &status, WNOHANG));
    TRY(waitpid(-getpgrp(), &status, WNOHANG));
    TRY(waitid(P_PGID, getpgrp(), &info, WEXITED | WNOHANG));
    TRY(waitid(P_PGID, 0, &info, WEXITED | WNOHANG));
    TRY(waitid(P_PID, 0, &info, WEXITED | WNOHANG));
    TRY(waitid(P_PID, -1, &info, WEXITED | WNOHANG));
    TRY(waitid(77, pid, &info, WEXITED | WNOHANG));
    TRY(waitid(P_PID, pid, &info, WNOHANG));
    TRY(waitid(P_PID, pid, &info, WEXITED | 0x400));
    TRY(waitpid(pid, &status, 0x400));
    TRY(syscall(SYS_wait4, 0x80000000, &status, WNOHANG, 0));
    TRY(waitpid(pid, &status, WNOHANG | __WCLONE));
    TRY(waitpid(pid, &status, WNOHANG | __WALL));
    TRY(waitpid(pid, &status, WNOHANG | WUNTRACED | WCONTINUED));
    close(gate[1]);
    TRY(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    show("nowait", &info, pid);
    TRY(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | WNOHANG));
    show("nowait again", &info, pid);
    TRY(syscall(SYS_waitid, P_PID, pid, NULL, WEXITED | WNOWAIT, NULL));
    TRY(kill(pid, 0));
    TRY(waitid(P_PID, pid, &info, WEXITED));
    show("reaped", &info, pid);
    TRY(kill(pid, 0));
    TRY(waitid(P_PID, pid, &info, WEXITED));
    pid = fork();
    if (!pid) { raise(SIGKILL); }
    waitid(P_PID, pid, &info, WEXITED);
    show("killed", &info, pid);
    pid = fork();
    if (!pid) _exit(1);
    TRY(waitpid(pid, (int *)8, 0));
    TRY(waitpid(pid, NULL, 0));
    pid_t first = fork();
    if (!first) _exit(1);
    pid_t second = fork();
    if (!second) _exit(2);
    OK(waitpid(second, &status, 0) == second && WEXITSTATUS(status) == 2);
    OK(waitpid(-1, &status, 0) == first && WEXITSTATUS(status) == 1);
}

static int state_of(pid_t pid, char *name) {
    char path[64], text[512], state = '-';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return '-';
    text[read(fd, text, sizeof text - 1)] = 0;
    close(fd);
    char *close_ = strrchr(text, ')');
    *close_ = 0;
    strcpy(name, strchr(text, '(') + 1);
    return close_[2];
}

static void zombies(void) {
    char name[64];
    int gate[2], status;
    pipe(gate);
    pid_t pid = fork();
    if (!pid) _exit(5);
    siginfo_t info;
    waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    int state = state_of(pid, name);
    OK(strstr(name, "processes") == name);
    SAY("state %c", state);
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    TRY(readlink(path, target, sizeof target));
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY);
    SAY("cmdline opens: %d, has %ld bytes", fd >= 0, (long)read(fd, target, sizeof target));
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    fd = open(path, O_RDONLY);
    SAY("maps opens: %d, has %ld bytes", fd >= 0, (long)read(fd, target, sizeof target));
    TRY(getpgid(pid) == getpgrp());
    TRY(kill(pid, SIGKILL));
    waitpid(pid, &status, 0);
    SAY("status %#x, then %c", status, state_of(pid, name));
    TRY(getpgid(pid));
    TRY(getsid(pid));
    /* ignored SIGCHLD and SA_NOCLDWAIT: children vanish by themselves */
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 3; i++) if (!fork()) _exit(0);
    TRY(wait(NULL));
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    for (int i = 0; i < 3; i++) if (!fork()) _exit(0);
    TRY(wait(NULL));
    signal(SIGCHLD, SIG_DFL);
    if (!fork()) _exit(7);
    OK(wait(&status) > 0);
    SAY("status %#x", status);
}

static void orphans(void) {
    int tell[2], gate[2], ready[2], status;
    pipe(tell);
    pipe(gate);
    pipe(ready);
    pid_t self = getpid(), pid = fork();
    if (!pid) {
        pid_t middle = getpid();
        if (!fork()) {
            char c;
            OK(getppid() == middle);
            write(ready[1], "r", 1);
            close(gate[1]);
            read(gate[0], &c, 1);
            int now = getppid();
            char answer[2] = {now != middle && now != self ? 'y' : 'n', getpgrp() == getpgid(self) ? 'y' : 'n'};
            write(tell[1], answer, 2);
            _exit(0);
        }
        pid_t zombie = fork(); /* becomes a zombie, then an orphan */
        if (!zombie) _exit(0);
        char c;
        siginfo_t info;
        read(ready[0], &c, 1);
        waitid(P_PID, zombie, &info, WEXITED | WNOWAIT);
        _exit(4);
    }
    waitpid(pid, &status, 0);
    SAY("middle %#x", status);
    close(gate[0]);
    close(gate[1]);
    char answer[3] = "";
    read(tell[0], answer, 2);
    SAY("adopted by another: %c, group kept: %c", answer[0], answer[1]);
    TRY(wait(NULL));
}

static void groups(void) {
    int gate[2], ready[2], status;
    char c;
    if (fork()) { wait(&status); SAY("done %#x", status); return; }
    TRY(setpgid(0, 0));
    OK(getpgrp() == getpid());
    TRY(setpgid(0, -1));
    TRY(setpgid(-1, 0));
    TRY(setpgid(1000000, 0));
    TRY(setpgid(getppid(), 0));
    TRY(setpgid(0, 999999));
    TRY(setsid());
    pipe(gate), pipe(ready);
    pid_t pid = fork();
    if (!pid) {
        close(gate[1]);
        OK(getsid(0) == getsid(getppid()));
        OK(setsid() == getpid());
        OK(getsid(0) == getpid() && getpgrp() == getpid());
        TRY(setsid());
        TRY(setpgid(0, 0));
        TRY(setpgid(0, getppid()));
        write(ready[1], "x", 1);
        read(gate[0], &c, 1);
        _exit(0);
    }
    read(ready[0], &c, 1);
    TRY(setpgid(pid, 0));
    TRY(setpgid(pid, pid));
    OK(getsid(pid) == pid);
    TRY(setpgid(0, pid));
    pid_t a = fork();
    if (!a) { close(gate[1]); read(gate[0], &c, 1); _exit(getpgrp() == getpid() ? 11 : 12); }
    pid_t b = fork();
    if (!b) { close(gate[1]); read(gate[0], &c, 1); _exit(getpgrp() == a ? 13 : 14); }
    TRY(setpgid(a, a));
    TRY(setpgid(b, a));
    OK(getpgid(a) == a && getpgid(b) == a);
    TRY(waitpid(-a, &status, WNOHANG));
    close(gate[1]);
    int sum = 0;
    pid_t got;
    while ((got = waitpid(-a, &status, 0)) > 0) sum += WEXITSTATUS(status);
    SAY("group sum %d", sum);
    drain();
    _exit(0);
}

static void numbers(void) {
    static pid_t seen[60];
    int status, falls = 0, alike = 0;
    for (int i = 0; i < 60; i++) {
        seen[i] = fork();
        if (!seen[i]) _exit(0);
        waitpid(seen[i], &status, 0);
        falls += i && seen[i] <= seen[i - 1];
        for (int j = 0; j < i; j++) alike += seen[j] == seen[i];
    }
    SAY("rising %d alike %d", falls <= 1, alike); // The host begins anew at 32,768.
    OK(syscall(SYS_gettid) == getpid());
}

static void spin(int ms) {
    struct timespec t;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < ms);
}

static void usage(void) {
    struct rusage child, all, self;
    int status;
    pid_t pid = fork();
    if (!pid) {
        spin(30);
        char *p = mmap(0, 4 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(p, 4 << 20, MADV_NOHUGEPAGE);
        for (int i = 0; i < 4 << 20; i += 4096) p[i] = 1;
        _exit(0);
    }
    wait4(pid, &status, 0, &child);
    getrusage(RUSAGE_CHILDREN, &all);
    TRY(getrusage(RUSAGE_SELF, &self));
    long ms = (child.ru_utime.tv_sec + child.ru_stime.tv_sec) * 1000 + (child.ru_utime.tv_usec + child.ru_stime.tv_usec) / 1000;
    OK(ms >= 25 && ms < 20000);
    OK(child.ru_maxrss >= 4096);
    OK(child.ru_minflt >= 1000);
    OK(all.ru_utime.tv_sec * 1000000 + all.ru_utime.tv_usec + all.ru_stime.tv_usec + all.ru_stime.tv_sec * 1000000 >= ms * 1000);
    OK(all.ru_maxrss >= child.ru_maxrss);
    OK(all.ru_minflt >= child.ru_minflt);
    TRY(getrusage(5, &self));
}

int main(int argc, char **argv) {
    struct { const char *name; void (*run)(void); } all[] = {
        {"forks", forks}, {"many", many}, {"statuses", statuses}, {"waits", waits}, {"zombies", zombies},
        {"orphans", orphans}, {"groups", groups}, {"numbers", numbers}, {"usage", usage},
    };
    for (int i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(argv[1], all[i].name)) all[i].run();
    return 0;
}
