/* Stopping, continuing and killing children; what parents hear; orphaned groups; who gets a process's signal. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int children;
static siginfo_t last;

static void on_child(int number, siginfo_t *info, void *context)
{
    children++;
    last = *info;
}

static void on(int number, void *handler, int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags};
    sigaction(number, &action, NULL);
}

static void nap(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) && errno == EINTR)
        ;
}

static void expect(pid_t child, int options, const char *what)
{
    int status = 0;
    pid_t found = waitpid(child, &status, options);
    printf("%s: %s status %x", what, found == child ? "child" : found ? "error" : "nothing", status & ~0x80);
    /* Whether the SIGCHLD of a continuation is seen before the child's end is a race. */
    if (options)
        printf("; SIGCHLD %d code %d status %d pid %d", children, last.si_code, last.si_status, last.si_pid == child);
    printf("\n");
    children = 0;
    memset(&last, 0, sizeof last);
}

static pid_t start(void (*body)(void))
{
    char byte;
    int begun[2];
    fflush(stdout);
    pipe(begun);
    pid_t pid = fork();
    if (pid == 0) {
        write(begun[1], "b", 1);
        close(begun[0]);
        close(begun[1]);
        body();
        _exit(9);
    }
    read(begun[0], &byte, 1);
    close(begun[0]);
    close(begun[1]);
    return pid;
}

static void spin(void)
{
    for (;;)
        __asm__ volatile("pause");
}

static void sleeper(void)
{
    for (;;)
        pause();
}

static void short_sleep(void)
{
    nap(120);
    _exit(4);
}

/* Linux tells the parent of a stop after it can be waited for, out of what that wait takes: the status may be 0 then. */
static void stop(pid_t child)
{
    kill(child, SIGSTOP);
    nap(20);
}

static void stops(void)
{
    on(SIGCHLD, on_child, SA_SIGINFO | SA_RESTART);
    void (*bodies[])(void) = {spin, sleeper};
    for (int i = 0; i < 2; i++) {
        pid_t child = start(bodies[i]);
        nap(20);
        stop(child);
        expect(child, WUNTRACED, "stopped");
        expect(child, WUNTRACED | WNOHANG, "once only");
        kill(child, SIGCONT);
        nap(30);
        expect(child, WCONTINUED, "continued");
        stop(child);
        expect(child, WUNTRACED, "stopped again");
        kill(child, SIGTERM);
        nap(20);
        expect(child, WNOHANG, "SIGTERM waits");
        kill(child, SIGCONT);
        expect(child, 0, "ended");
        child = start(bodies[i]);
        stop(child);
        expect(child, WUNTRACED, "stopped");
        kill(child, SIGKILL);
        expect(child, WUNTRACED, "killed");
    }
    pid_t child = start(short_sleep);
    nap(20);
    stop(child);
    expect(child, WUNTRACED, "sleeper stopped");
    kill(child, SIGCONT);
    expect(child, 0, "sleeper ended");
    on(SIGCHLD, on_child, SA_SIGINFO | SA_RESTART | SA_NOCLDSTOP);
    child = start(spin);
    kill(child, SIGSTOP);
    expect(child, WUNTRACED, "SA_NOCLDSTOP");
    kill(child, SIGQUIT);
    kill(child, SIGCONT);
    expect(child, 0, "quit");
    on(SIGCHLD, on_child, SA_SIGINFO | SA_RESTART | SA_NOCLDWAIT);
    child = start(short_sleep);
    int status, result = waitpid(child, &status, 0);
    printf("SA_NOCLDWAIT: %d %s, SIGCHLD %d\n", result, strerror(errno), children);
    signal(SIGCHLD, SIG_IGN);
    child = start(short_sleep);
    result = waitpid(child, &status, 0);
    printf("ignored: %d %s\n", result, strerror(errno));
    signal(SIGCHLD, SIG_DFL);
}

/* -- a stop signal and SIGCONT cancel each other while pending -- */

static void cancel(void)
{
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    sigaddset(&set, SIGCONT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGTSTP);
    raise(SIGCONT);
    sigpending(&pending);
    printf("after SIGCONT: %lx\n", *(long *)&pending);
    raise(SIGTSTP);
    sigpending(&pending);
    printf("after SIGTSTP: %lx\n", *(long *)&pending);
    raise(SIGCONT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void on_cont(int number)
{
    write(1, "SIGCONT handled\n", 16);
}

static void on_hup(int number)
{
    write(1, "SIGHUP handled\n", 15);
    _exit(0);
}

static void handles_cont(void)
{
    on(SIGCONT, on_cont, 0);
    raise(SIGSTOP);
    _exit(5);
}

/* A group that becomes an orphan with a stopped member gets SIGHUP and SIGCONT. */
static int ends[2];

static void grandchild(void)
{
    setpgid(0, 0);
    on(SIGHUP, on_hup, 0);
    on(SIGCONT, on_cont, 0);
    write(ends[1], "r", 1);
    raise(SIGTSTP);
    nap(2000);
}

static void leaves_orphan(void)
{
    char byte;
    pipe(ends);
    start(grandchild);
    read(ends[0], &byte, 1);
    nap(60);
    _exit(0);
}

/* In an orphaned group SIGTSTP does nothing. */
static void orphan_group(void)
{
    setsid();
    raise(SIGTSTP);
    write(1, "not stopped\n", 12);
    _exit(6);
}

static void on_usr1(int number, siginfo_t *info, void *context)
{
    printf("parent died: signal %d code %d\n", number, info->si_code);
    fflush(stdout);
    _exit(0);
}

static void dies_with_parent(void)
{
    int value;
    on(SIGUSR1, on_usr1, SA_SIGINFO);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    prctl(PR_GET_PDEATHSIG, &value);
    printf("death signal %d\n", value);
    fflush(stdout);
    write(ends[1], "r", 1);
    nap(2000);
}

static void parent_of_it(void)
{
    char byte;
    pipe(ends);
    start(dies_with_parent);
    read(ends[0], &byte, 1);
    _exit(0);
}

static void member_of_group(void)
{
    write(ends[1], "r", 1);
    sleeper();
}

int main(void)
{
    int status;
    char byte;
    setvbuf(stdout, NULL, _IONBF, 0);
    stops();
    cancel();
    pid_t child = start(handles_cont);
    waitpid(child, &status, WUNTRACED);
    printf("%x\n", status);
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    printf("%x\n", status);
    child = start(leaves_orphan);
    waitpid(child, &status, 0);
    nap(60);
    child = start(orphan_group);
    waitpid(child, &status, WUNTRACED);
    printf("%x\n", status);
    child = start(parent_of_it);
    waitpid(child, &status, 0);
    nap(60);

    pipe(ends);
    pid_t first = start(member_of_group);
    setpgid(first, first);
    pid_t second = start(member_of_group);
    setpgid(second, first);
    read(ends[0], &byte, 1);
    read(ends[0], &byte, 1);
    printf("killpg %d\n", kill(-first, SIGTERM));
    waitpid(first, &status, 0);
    printf("%x\n", status);
    waitpid(second, &status, 0);
    printf("%x\n", status);
    int result = kill(-first, SIGTERM);
    printf("empty group %d %s\n", result, strerror(errno));
    result = kill(first, 0);
    printf("gone %d %s\n", result, strerror(errno));
    return 0;
}
