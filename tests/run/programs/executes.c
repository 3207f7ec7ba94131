/* execve in all its ways, in the working directory; the program calls itself with "show". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

static const char *self;
static char *environment[] = {"HOME=/", "KEY=value", NULL};

static void file(const char *name, const char *text, int mode) {
    int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0755);
    write(fd, text, strlen(text));
    fchmod(fd, mode);
    close(fd);
}

static void copy(const char *name, long bytes) {
    static char data[4 << 20];
    int fd = open(self, O_RDONLY);
    long size = read(fd, data, sizeof data);
    close(fd);
    fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0755);
    write(fd, data, bytes && bytes < size ? bytes : size);
    fchmod(fd, 0755);
    close(fd);
}

/* Run it in a child; what execve returns when it fails is the child's status. */
static void run(const char *what, const char *path, char **argv, char **envp) {
    int status;
    if (!fork()) {
        execve(path, argv, envp);
        SAY("%s: errno %d (%s)", what, errno, strerror(errno));
        _exit(1);
    }
    wait(&status);
    SAY("%s: status %#x", what, status);
}

static void simple(const char *what, const char *path) {
    char *argv[] = {"zero", "one", "", "two words", NULL};
    run(what, path, argv, environment);
}

static void scripts(void) {
    char line[4600];
    snprintf(line, sizeof line, "#!%s show\nrest\n", self);
    file("plain", line, 0755);
    simple("script", "./plain");
    snprintf(line, sizeof line, "#!  \t %s \t show  more words\t \n", self);
    file("spaces", line, 0755);
    simple("one argument only", "./spaces");
    snprintf(line, sizeof line, "#!%s", self);
    file("nothing", line, 0755);
    char *show[] = {"zero", "show", NULL};
    run("no newline, no argument", "./nothing", show, environment);
    file("chain1", "#!./plain deeper\n", 0755);
    simple("chain of two", "./chain1");
    file("chain2", "#!./chain1\n", 0755);
    file("chain3", "#!./chain2\n", 0755);
    simple("chain of four", "./chain3");
    file("chain4", "#!./chain3\n", 0755);
    simple("chain of five", "./chain4");
    file("chain5", "#!./chain4\n", 0755);
    simple("chain of six", "./chain5");
    file("loop", "#!./loop\n", 0755);
    simple("loop", "./loop");
    file("missing", "#!/no/such/interpreter\n", 0755);
    simple("missing interpreter", "./missing");
    file("directory", "#!/\n", 0755);
    simple("interpreter is a directory", "./directory");
    file("notexecutable", "echo", 0644);
    file("points", "#!./notexecutable\n", 0755);
    simple("interpreter not executable", "./points");
    file("empty", "#!\n", 0755);
    simple("no name", "./empty");
    file("blank", "#!   \n", 0755);
    simple("blank name", "./blank");
    memset(line, 'x', 4000);
    memcpy(line, "#!/", 3);
    strcpy(line + 400, "\n");
    file("long", line, 0755);
    simple("a line too long", "./long");
    snprintf(line, sizeof line, "#!%s show ", self);
    int at = strlen(line);
    memset(line + at, 'y', 400);
    strcpy(line + at + 400, "\n");
    file("longargument", line, 0755);
    simple("an argument cut", "./longargument");
    char *none[] = {NULL};
    run("script without argv", "./plain", none, environment);
}

static void errors(void) {
    simple("missing", "./no-such-file");
    simple("empty path", "");
    file("text", "just text\n", 0755);
    simple("text", "./text");
    file("nothing", "", 0755);
    simple("empty", "./nothing");
    file("short", "\177ELF", 0755);
    simple("four bytes", "./short");
    copy("cut", 100);
    simple("cut in its headers", "./cut");
    file("hidden", "#!/bin/sh\n", 0644);
    simple("not executable", "./hidden");
    mkdir("place", 0755);
    simple("directory", "./place");
    simple("through a file", "./text/x");
    symlink("ring", "ring");
    simple("ring of links", "./ring");
    symlink(self, "link");
    char *show[] = {"zero", "show", NULL};
    run("link", "./link", show, environment);
    mkfifo("pipe", 0755);
    simple("pipe", "./pipe");
    mkdir("closed", 0755);
    copy("closed/inside", 0);
    if (geteuid()) chmod("closed", 0);
    char longname[5000];
    memset(longname, 'a', 4999);
    longname[4999] = 0;
    simple("long path", longname);
    longname[300] = 0;
    simple("long name", longname);
    run("path faults", (char *)8, show, environment);
    run("argv faults", self, (char **)8, environment);
    char *bad[] = {"zero", "show", (char *)8, NULL};
    run("a string faults", self, bad, environment);
    run("envp faults", self, show, (char **)8);
    run("no environment", self, show, NULL);
    char *none[] = {NULL};
    copy("writing", 0);
    int fd = open("writing", O_RDWR);
    run("open for writing", "./writing", show, environment);
    close(fd);
    run("closed again", "./writing", show, environment);
    char *huge = malloc(140000);
    memset(huge, 'h', 140000);
    huge[131071] = 0;
    char *most[] = {"zero", "length", huge, NULL};
    run("131071 bytes", self, most, environment);
    huge[131071] = 'h', huge[131072] = 0;
    run("131072 bytes", self, most, environment);
    char **crowd = calloc(300, sizeof *crowd);
    huge[100000] = 0;
    crowd[0] = "zero", crowd[1] = "length";
    for (int i = 2; i < 17; i++) crowd[i] = huge;
    run("1.5 MB", self, crowd, environment);
    for (int i = 2; i < 100; i++) crowd[i] = huge;
    run("9.8 MB", self, crowd, environment);
}

static void kept(void) {
    int shut = open("/dev/null", O_RDONLY | O_CLOEXEC), stay = open("/dev/null", O_RDONLY);
    dup2(shut, 30), dup2(stay, 31);
    fcntl(31, F_SETFD, FD_CLOEXEC);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, (void (*)(int))kept);
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGHUP);
    setpgid(0, 0);
    umask(027);
    chdir("/");
    char numbers[200];
    snprintf(numbers, sizeof numbers, "%d %d %d %d %d %d", shut, stay, getpid(), getppid(), getpgrp(), getsid(0));
    char *argv[] = {"zero", "state", numbers, NULL};
    execve(self, argv, environment);
    _exit(99);
}

static void state(char **argv) {
    int n[6];
    sscanf(argv[2], "%d %d %d %d %d %d", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5]);
    SAY("close-on-exec %d %d %d %d", fcntl(n[0], F_GETFD), fcntl(n[1], F_GETFD), fcntl(30, F_GETFD), fcntl(31, F_GETFD));
    SAY("same pid %d ppid %d group %d session %d", n[2] == getpid(), n[3] == getppid(), n[4] == getpgrp(), n[5] == getsid(0));
    struct sigaction action;
    sigaction(SIGUSR1, NULL, &action);
    SAY("ignored stays %d", action.sa_handler == SIG_IGN);
    sigaction(SIGUSR2, NULL, &action);
    SAY("handler goes %d", action.sa_handler == SIG_DFL);
    sigset_t set;
    sigprocmask(0, NULL, &set);
    SAY("mask stays %d", sigismember(&set, SIGHUP));
    sigpending(&set);
    SAY("pending stays %d", sigismember(&set, SIGHUP));
    char cwd[4096];
    SAY("cwd %s umask %o", getcwd(cwd, sizeof cwd), umask(0));
    char name[32] = "";
    int fd = open("/proc/self/comm", O_RDONLY);
    name[read(fd, name, 31)] = 0;
    SAY("comm %.9s", name);
}

static void at(const char *what, int dirfd, const char *path, int flags) {
    char *argv[] = {"zero", "show", NULL};
    int status;
    if (!fork()) {
        syscall(SYS_execveat, dirfd, path, argv, environment, flags);
        SAY("%s: errno %d (%s)", what, errno, strerror(errno));
        _exit(1);
    }
    wait(&status);
    SAY("%s: status %#x", what, status);
}

static void relative(void) {
    char line[4600];
    mkdir("here", 0755);
    copy("here/program", 0);
    symlink("program", "here/link");
    snprintf(line, sizeof line, "#!%s show\n", self);
    file("here/script", line, 0755);
    int directory = open("here", O_RDONLY | O_DIRECTORY), program = open("here/program", O_RDONLY);
    int path = open("here/program", O_PATH), script = open("here/script", O_RDONLY);
    int hidden = open("here/script", O_RDONLY | O_CLOEXEC);
    at("directory", directory, "program", 0);
    at("cwd", AT_FDCWD, "here/program", 0);
    at("absolute", 77, self, 0);
    at("empty path", program, "", AT_EMPTY_PATH);
    at("O_PATH", path, "", AT_EMPTY_PATH);
    at("empty path refused", program, "", 0);
    at("script by descriptor", script, "", AT_EMPTY_PATH);
    at("script by closing descriptor", hidden, "", AT_EMPTY_PATH);
    at("script", directory, "script", 0);
    at("link", directory, "link", 0);
    at("link not followed", directory, "link", AT_SYMLINK_NOFOLLOW);
    at("program not followed", directory, "program", AT_SYMLINK_NOFOLLOW);
    at("bad descriptor", 77, "program", 0);
    at("bad descriptor, empty", 77, "", AT_EMPTY_PATH);
    at("directory itself", directory, "", AT_EMPTY_PATH);
    at("no directory", program, "x", 0);
    at("bad flags", directory, "program", 0x1);
    at("missing", directory, "missing", 0);
}

static char stack[65536] __attribute__((aligned(16)));

static int in_thread(void *argument) {
    char numbers[64], *argv[] = {"zero", "thread", numbers, NULL};
    snprintf(numbers, sizeof numbers, "%d", getpid());
    execve(self, argv, environment);
    _exit(98);
}

static void thread(void) {
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    clone(in_thread, stack + sizeof stack, flags, NULL);
    for (;;) usleep(1000);
}

static volatile int here = 1;

static void vforks(void) {
    int status;
    pid_t pid = vfork();
    if (!pid) { here = 2; usleep(20000); here = 3; _exit(6); }
    waitpid(pid, &status, 0);
    SAY("vfork shared and waited: %d, status %#x", here, status);
    char *argv[] = {"zero", "sleep", NULL};
    pid = vfork();
    if (!pid) { here = 4; execve(self, argv, environment); _exit(9); }
    SAY("after exec: %d, child still there: %d", here, waitpid(pid, &status, WNOHANG) == 0);
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    SAY("status %#x", status);
    pid = vfork();
    if (!pid) { execve("./none", argv, environment); here = errno; _exit(9); }
    waitpid(pid, &status, 0);
    SAY("failed: errno %d, status %#x", here, status);
    pid = vfork();
    if (!pid) { kill(getpid(), SIGKILL); }
    waitpid(pid, &status, 0);
    SAY("killed %#x", status);
}

static void repeat(int argc, char **argv) {
    int left = argc > 2 ? atoi(argv[2]) : 20;
    if (!left) { SAY("the last of them, same pid %s", argv[3]); return; }
    char number[16], pid[16];
    snprintf(number, sizeof number, "%d", left - 1);
    snprintf(pid, sizeof pid, "%d", argc > 3 && atoi(argv[3]) != getpid() ? -1 : getpid());
    char *next[] = {"zero", "repeat", number, pid, NULL};
    if (left == 1) next[3] = atoi(argv[3]) == getpid() ? "yes" : "no";
    execve(self, next, environment);
}

extern char **environ;

int main(int argc, char **argv) {
    static char path[4096];
    path[readlink("/proc/self/exe", path, sizeof path)] = 0;
    self = path;
    const char *what = argc > 1 ? argv[1] : "";
    if (!strncmp(what, "show", 4)) {
        for (int i = 1; i < argc; i++) SAY("  argv[%d] = %.60s (%zu)", i, argv[i], strlen(argv[i]));
        for (char **e = environ; e && *e; e++) SAY("  %s", *e);
        return 0;
    }
    if (!strcmp(what, "length")) { size_t sum = 0; for (int i = 0; i < argc; i++) sum += strlen(argv[i]); SAY("  %d arguments, %zu bytes", argc, sum); }
    if (!strcmp(what, "state")) state(argv);
    if (!strcmp(what, "thread") && argc > 2) { SAY("leader now: %d", atoi(argv[2]) == getpid() && getpid() == syscall(SYS_gettid)); }
    else if (!strcmp(what, "thread")) thread();
    if (!strcmp(what, "sleep")) for (;;) usleep(1000000);
    if (!strcmp(what, "scripts")) scripts();
    if (!strcmp(what, "errors")) errors();
    if (!strcmp(what, "kept")) kept();
    if (!strcmp(what, "relative")) relative();
    if (!strcmp(what, "vforks")) vforks();
    if (!strcmp(what, "repeat")) repeat(argc, argv);
    return 0;
}
