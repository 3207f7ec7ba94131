/* /proc/self: what does not depend on the machine, said the same on any. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static char buffer[1 << 16];

static char *slurp(const char *name)
{
    int fd = open(name, O_RDONLY), at = 0, n;
    if (fd < 0) {
        sprintf(buffer, "open: %s", strerror(errno));
        return buffer;
    }
    while ((n = read(fd, buffer + at, sizeof buffer - 1 - at)) > 0)
        at += n;
    buffer[at] = 0;
    close(fd);
    return buffer;
}

static void show(const char *name)
{
    printf("%s: %s%s", name, slurp(name), buffer[0] && buffer[strlen(buffer) - 1] == '\n' ? "" : "\n");
}

static void smaps(const char *what, void *at)
{
    static const char *wanted[] = {"Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Pss_Dirty", "Shared_Clean",
        "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "Swap", "Locked"};
    char start[32], name[32];
    long size;
    int inside = 0;
    snprintf(start, sizeof start, "%08lx-", (long)at);
    FILE *f = fopen("/proc/self/smaps", "r");
    printf("smaps of %s:", what);
    while (fgets(buffer, sizeof buffer, f)) {
        if (strchr("0123456789abcdef", buffer[0]) && strchr(buffer, '-'))
            inside = !strncmp(buffer, start, strlen(start));
        else if (inside && sscanf(buffer, "%31[^:]: %ld", name, &size) == 2)
            for (int i = 0; i < sizeof wanted / sizeof *wanted; i++)
                if (!strcmp(wanted[i], name))
                    printf(" %s %ld", name, size);
        if (inside && !strncmp(buffer, "VmFlags:", 8)) {
            char *sd = strstr(buffer, " sd");
            if (sd)
                memmove(sd, sd + 3, strlen(sd + 3) + 1);
            printf(" %s", buffer);
        }
    }
    fclose(f);
}

static void pagemap(const char *what, char *at, int pages)
{
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    printf("pagemap of %s:", what);
    for (int i = 0; i < pages; i++) {
        if (pread(fd, &entry, 8, ((uint64_t)at / PAGE + i) * 8) != 8)
            perror("pread");
        printf(" %d%d%d%d", (int)(entry >> 63), (int)(entry >> 62 & 1), (int)(entry >> 61 & 1), (int)(entry >> 56 & 1));
    }
    printf("\nmisaligned %zd %s\n", pread(fd, &entry, 7, 0), strerror(errno));
    printf("far %zd\n", pread(fd, &entry, 8, (uint64_t)1 << 50));
    close(fd);
}

static void memory(void)
{
    char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *gap = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 4; i++)
        p[i * PAGE] = i;
    volatile char seen = p[5 * PAGE];
    mprotect(p + 4 * PAGE, PAGE, PROT_READ);
    smaps("four touched pages", p);
    pagemap("eight", p, 8);
    char *s = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s[0] = 1;
    seen = s[PAGE];
    smaps("shared", s);
    pagemap("shared", s, 3);
    int fd = open("mapped", O_RDWR | O_CREAT, 0600);
    write(fd, buffer, 3 * PAGE);
    char *f = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    f[PAGE] = 3;
    smaps("a file's private", f + 0);
    int pipes[2], status;
    pipe(pipes);
    fflush(stdout);
    if (!fork()) {
        p[0] = 9;
        smaps("the child's", p);
        smaps("the child's shared", s);
        pagemap("the child's", p, 5);
        fflush(stdout);
        _exit(0);
    }
    wait(&status);
    p[1 * PAGE] = 5;
    smaps("after the child", p);
}

static void mem(void)
{
    char *p = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), text[16] = "";
    munmap(p + 2 * PAGE, PAGE);
    int fd = open("/proc/self/mem", O_RDWR);
    printf("write %zd", pwrite(fd, "hello", 6, (long)p));
    printf(" read %zd", pread(fd, text, 6, (long)p));
    printf(" %s\n", text);
    printf("over the end %zd\n", pread(fd, text, 16, (long)p + 2 * PAGE - 4));
    printf("nothing there %zd %s\n", pread(fd, text, 16, (long)p + 2 * PAGE), strerror(errno));
    printf("seek %lx", (long)lseek(fd, 0xffffffffff600000, SEEK_SET));
    printf(" %lx\n", (long)lseek(fd, 16, SEEK_CUR));
    printf("end %ld %s\n", (long)lseek(fd, 0, SEEK_END), strerror(errno));
    lseek(fd, 0xfffffffffff00000, SEEK_SET);
    printf("kernel %zd %s\n", read(fd, text, 16), strerror(errno));
    errno = 0;
    printf("negative %zd %s\n", pread(fd, text, 16, -4096), strerror(errno));
    static const char constant[] = "constant";
    printf("by force %zd %s\n", pwrite(fd, "C", 1, (long)constant), (const char *)(volatile const char *)constant);
    close(fd);
}

static pthread_barrier_t barrier;
static pid_t tid;

static void *sleeps(void *arg)
{
    prctl(PR_SET_NAME, "a thread");
    tid = syscall(SYS_gettid);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static int count(const char *name)
{
    DIR *d = opendir(name);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void threads(void)
{
    pthread_t thread;
    char name[64];
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, sleeps, NULL);
    pthread_barrier_wait(&barrier);
    printf("tasks %d\n", count("/proc/self/task"));
    sprintf(name, "/proc/self/task/%d/comm", tid);
    printf("comm %s", slurp(name));
    sprintf(name, "/proc/self/task/%d/status", tid);
    slurp(name);
    printf("own pid %d threads %d\n", atoi(strstr(buffer, "\nPid:") + 5) == tid, atoi(strstr(buffer, "Threads:") + 8));
    printf("group %d\n", atoi(strstr(buffer, "Tgid:") + 5) == getpid());
    sprintf(name, "/proc/%d/stat", tid);
    printf("by its number %d\n", atoi(slurp(name)) == tid);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    /* The kernel wakes who joins before it lets go of the thread. */
    for (int tries = 0; tries < 2000 && count("/proc/self/task") > 1; tries++) usleep(1000);
    printf("tasks %d\n", count("/proc/self/task"));
}

static void others(char **argv)
{
    char name[64], expected[64];
    pid_t child = fork();
    if (!child)
        _exit(4);
    siginfo_t info;
    waitid(P_PID, child, &info, WEXITED | WNOWAIT);
    sprintf(name, "/proc/%d/stat", child);
    printf("zombie %c", strrchr(slurp(name), ')')[2]);
    printf(" exit code %s", strrchr(buffer, ' ') + 1);
    sprintf(name, "/proc/%d/maps", child);
    printf("maps %zu", strlen(slurp(name)));
    sprintf(name, "/proc/%d/cmdline", child);
    printf(" cmdline %zu\n", strlen(slurp(name)));
    sprintf(name, "/proc/%d/exe", child);
    printf("exe %zd %s\n", readlink(name, expected, 9), strerror(errno));
    waitpid(child, NULL, 0);
    sprintf(name, "/proc/%d/stat", child);
    printf("gone: %s\n", slurp(name));
}

int main(int argc, char **argv)
{
    slurp("/proc/self/cmdline");
    printf("cmdline %d %s\n", !strcmp(buffer, argv[0]), buffer + strlen(buffer) + 1);
    memset(argv[1], 'x', strlen(argv[1]));
    slurp("/proc/self/cmdline");
    printf("changed %s\n", buffer + strlen(buffer) + 1);
    printf("environ %s\n", slurp("/proc/self/environ"));
    int fd = open("/proc/self/comm", O_RDWR);
    printf("write %zd\n", write(fd, "a name that is long", 19));
    close(fd);
    show("/proc/self/comm");
    prctl(PR_GET_NAME, buffer);
    puts(buffer);
    show("/proc/self/personality");
    show("/proc/self/loginuid");
    show("/proc/self/sessionid");
    show("/proc/self/wchan");
    show("/proc/self/timers");
    show("/proc/self/oom_score_adj");
    fd = open("/proc/self/oom_score_adj", O_WRONLY);
    printf("write %zd", write(fd, "2000", 4));
    printf(" %s", strerror(errno));
    printf(" %zd\n", write(fd, "300\n", 4));
    close(fd);
    show("/proc/self/oom_score_adj");
    show("/proc/sys/kernel/ostype");
    show("/proc/sys/vm/overcommit_memory");
    printf("uuid %zu", strlen(slurp("/proc/sys/kernel/random/uuid")));
    char first[64];
    strcpy(first, buffer);
    printf(" %d %c\n", strcmp(first, slurp("/proc/sys/kernel/random/uuid")) != 0, buffer[14]);
    printf("syscall %ld\n", strtol(slurp("/proc/self/syscall"), NULL, 10));
    memory();
    mem();
    threads();
    others(argv);
    return 0;
}
