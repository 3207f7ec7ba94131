/* Memory, processes, threads, areas and descriptors until there are no more. The first argument says what. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

static void eat(long bytes) {
    char *p = mmap(0, bytes, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (long i = 0; i < bytes; i += 4096) p[i] = i >> 12;
    for (long i = 0; i < bytes; i += 4096) if (p[i] != (char)(i >> 12)) _exit(99);
}

static void hogs(void) {
    int status, gate[2];
    char c;
    pipe(gate);
    pid_t small = fork();
    if (!small) { eat(4 << 20); close(gate[1]); read(gate[0], &c, 1); eat(4 << 20); _exit(1); }
    pid_t middle = fork();
    if (!middle) { eat(12 << 20); close(gate[1]); read(gate[0], &c, 1); _exit(2); }
    pid_t large = fork();
    if (!large) { eat(1 << 30); _exit(3); }
    waitpid(large, &status, 0);
    SAY("large %#x", status);
    eat(8 << 20);
    close(gate[1]);
    waitpid(small, &status, 0);
    SAY("small %#x", status);
    waitpid(middle, &status, 0);
    SAY("middle %#x", status);
}

static void adjusted(void) {
    int status, gate[2], ready[2];
    char c;
    pipe(gate), pipe(ready);
    pid_t offered = fork();
    if (!offered) {
        int fd = open("/proc/self/oom_score_adj", O_RDWR);
        if (write(fd, "900", 3) != 3) _exit(98);
        eat(8 << 20);
        write(ready[1], "x", 1);
        close(gate[1]), read(gate[0], &c, 1), _exit(1);
    }
    read(ready[0], &c, 1);
    char path[64], text[16] = "";
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", offered);
    int fd = open(path, O_RDONLY);
    read(fd, text, 15);
    SAY("adjustment %s", strtok(text, "\n"));
    eat(36 << 20);
    SAY("still here");
    SAY("offered: %d", waitpid(offered, &status, WNOHANG) == offered && status == SIGKILL);
}

static void copies(void) { /* fork is free until somebody writes: then whoever has most dies */
    int status;
    char *p = mmap(0, 24 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, 24 << 20);
    pid_t child = fork();
    if (!child) {
        eat(2 << 20);
        memset(p, 2, 24 << 20);
        _exit(0);
    }
    waitpid(child, &status, 0);
    SAY("child %#x, mine %d", status, p[1 << 20]);
}

static void call(void) { /* the kernel runs out while it writes for the program */
    int status;
    pid_t child = fork();
    if (!child) {
        int fd = open("/dev/zero", O_RDONLY);
        for (;;) {
            char *p = mmap(0, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (read(fd, p, 1 << 20) != 1 << 20) _exit(errno);
        }
    }
    waitpid(child, &status, 0);
    SAY("child %#x", status);
}

static void overcommit(void) {
    long sizes[] = {1l << 20, 31l << 20, 65l << 20, 1l << 40};
    for (int i = 0; i < 4; i++) {
        void *p = mmap(0, sizes[i], 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        SAY("%ld MiB: %s", sizes[i] >> 20, p == MAP_FAILED ? strerror(errno) : "mapped");
        p = mmap(0, sizes[i], 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        SAY("%ld MiB without reserve: %s", sizes[i] >> 20, p == MAP_FAILED ? strerror(errno) : "mapped");
        p = mmap(0, sizes[i], 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        SAY("%ld MiB for nobody: %s", sizes[i] >> 20, p == MAP_FAILED ? strerror(errno) : "mapped");
    }
    char text[16] = "";
    int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY);
    read(fd, text, 15);
    SAY("mode %s", strtok(text, "\n"));
}

static void forks(void) {
    static pid_t pids[10000];
    int count = 0, gate[2], status;
    char c;
    pipe(gate);
    for (;; count++) {
        pids[count] = fork();
        if (pids[count] < 0) break;
        if (!pids[count]) { close(gate[1]); read(gate[0], &c, 1); _exit(0); }
    }
    SAY("%d forks, then %s", count, strerror(errno));
    close(gate[1]);
    while (wait(&status) > 0) {}
    pid_t pid = fork();
    if (!pid) _exit(0);
    SAY("again %d", waitpid(pid, &status, 0) == pid);
    count = 0;
    while ((pid = fork()) > 0) count++;
    if (!pid) _exit(0);
    SAY("%d zombies, then %s", count, strerror(errno));
}

static void bomb(void) { /* the classic */
    for (int i = 0; i < 12; i++) fork();
    _exit(0);
}

static int idle(void *argument) { for (;;) pause(); }

static void threads(void) {
    int count = 0, flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    char *stacks = mmap(0, 4096 * 10000l, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    while (clone(idle, stacks + 4096 * (count + 1l), flags, NULL) > 0) count++;
    SAY("%d threads, then %s", count, strerror(errno));
}

static void areas(void) {
    long count = 0;
    while (mmap(0, 4096, count & 1 ? 1 : 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) count++;
    SAY("more than 65000: %d, then %s", count > 65000, strerror(errno));
}

static void descriptors(void) {
    int count = 0;
    while (open("/dev/null", O_RDONLY) >= 0) count++;
    SAY("%d more, then %s", count, strerror(errno));
    SAY("pipe: %s", pipe((int[2]){0}) ? strerror(errno) : "made");
}

static void limit(void) {
    struct rlimit most = {30, 30};
    setrlimit(RLIMIT_NPROC, &most);
    forks();
}

/* loops that must not grow: the number of rounds is the second argument */
static int rounds;

static void forkloop(void) {
    for (int i = 0; i < rounds; i++) {
        pid_t pid = fork();
        if (!pid) { static int own[3000]; own[i % 3000] = i; _exit(0); }
        waitpid(pid, NULL, 0);
    }
}

static void callloop(void) { for (int i = 0; i < rounds; i++) syscall(SYS_getppid); }

static void maploop(void) {
    for (int i = 0; i < rounds; i++) {
        char *p = mmap(0, 65536, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *p = 0xc3;
        ((void (*)(void))p)();
        p[40000] = 1;
        munmap(p, 65536);
        int fd = memfd_create("x", 0);
        ftruncate(fd, 8192);
        p = mmap(0, 8192, 3, MAP_SHARED, fd, 0);
        *p = 1;
        close(fd);
        munmap(p, 8192);
    }
}

static int ended(void *argument) { __sync_fetch_and_add((int *)argument, 1); syscall(SYS_exit, 0); }

static void threadloop(void) {
    static char stack[65536] __attribute__((aligned(16)));
    static int done;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    for (int i = 0; i < rounds; i++) {
        clone(ended, stack + sizeof stack, flags, &done);
        while (*(volatile int *)&done <= i) sched_yield();
        sched_yield();
    }
}

static char *self;

static void execloop(void) {
    char left[16];
    if (!rounds) return;
    snprintf(left, sizeof left, "%d", rounds - 1);
    execl(self, self, "execloop", left, NULL);
}

static void spawnloop(void) {
    for (int i = 0; i < rounds; i++) {
        pid_t pid = vfork();
        if (!pid) { execl(self, self, "execloop", "0", NULL); _exit(1); }
        waitpid(pid, NULL, 0);
    }
}

int main(int argc, char **argv) {
    struct { const char *name; void (*run)(void); } all[] = {
        {"hogs", hogs}, {"adjusted", adjusted}, {"copies", copies}, {"call", call}, {"overcommit", overcommit},
        {"forks", forks}, {"bomb", bomb}, {"threads", threads}, {"areas", areas}, {"descriptors", descriptors},
        {"limit", limit}, {"forkloop", forkloop}, {"callloop", callloop}, {"maploop", maploop},
        {"threadloop", threadloop}, {"execloop", execloop}, {"spawnloop", spawnloop},
    };
    self = argv[0];
    rounds = argc > 2 ? atoi(argv[2]) : 0;
    for (int i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(argv[1], all[i].name)) all[i].run();
    return 0;
}
