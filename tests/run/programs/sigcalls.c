/* Calls that sleep, interrupted by a handler with and without SA_RESTART; timers. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2];
static volatile int ticks;

static void handler(int number)
{
    if (++ticks == 2)
        write(ends[1], "x", 1);
}

static void on(int number, void *function, int flags)
{
    struct sigaction action = {.sa_handler = function, .sa_flags = flags};
    sigaction(number, &action, NULL);
}

static void every(long microseconds)
{
    struct itimerval value = {{0, microseconds}, {0, microseconds}};
    ticks = 0;
    setitimer(ITIMER_REAL, &value, NULL);
}

static void done(const char *name, int restart, long result)
{
    int error = errno, ticks_then = ticks;
    every(0);
    printf("%s, %s: %ld %s, ticks %d\n", name, restart ? "SA_RESTART" : "no restart", result,
           result < 0 ? strerror(error) : "-", ticks_then > 0);
}

/* poll and its kin, with the argument "poll". */
static void polls(int restart)
{
    struct pollfd fd = {ends[0], POLLIN};
    struct timespec never = {5, 0};
    fd_set set;
    sigset_t none;
    sigemptyset(&none);
    on(SIGALRM, handler, restart ? SA_RESTART : 0);
    every(30000);
    done("poll", restart, poll(&fd, 1, 5000));
    every(30000);
    done("ppoll", restart, ppoll(&fd, 1, &never, &none));
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timeval limit = {5, 0};
    every(30000);
    done("select", restart, select(ends[0] + 1, &set, NULL, NULL, &limit));
}

static void calls(int restart)
{
    char byte;
    int status;
    struct timespec time = {0, 100000000}, left = {0, 0}, never = {5, 0};
    struct pollfd fd = {ends[0], POLLIN};
    sigset_t none;
    sigemptyset(&none);
    on(SIGALRM, handler, restart ? SA_RESTART : 0);

    every(30000);
    long result = read(ends[0], &byte, 1);
    done("read", restart, result);
    every(30000);
    result = nanosleep(&time, &left);
    int sane = left.tv_sec == 0 && left.tv_nsec > 0 && left.tv_nsec < 100000000;
    done("nanosleep", restart, result);
    printf("  time left: %d\n", sane);
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += 5;
    every(30000);
    result = -syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &time, &left);
    done("clock_nanosleep", restart, -result);
    every(30000);
    done("pause", restart, pause());
    every(30000);
    done("sigsuspend", restart, sigsuspend(&none));
    every(30000);
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    done("sigtimedwait", restart, sigtimedwait(&usr1, NULL, &never));
    pid_t child = fork();
    if (child == 0) {
        struct timespec nap = {0, 150000000};
        nanosleep(&nap, NULL);
        _exit(3);
    }
    every(30000);
    result = waitpid(child, &status, 0);
    int error = errno;
    every(0);
    printf("waitpid, %s: %d %s\n", restart ? "SA_RESTART" : "no restart", result == child,
           result < 0 ? strerror(error) : "-");
    while (result != child)
        result = waitpid(child, &status, 0);
    printf("  status %x\n", status);
    while (poll(&fd, 1, 0) == 1)
        read(ends[0], &byte, 1);
}

/* A signal without a handler, or one that is ignored, does not end a sleep. */
static void undisturbed(void)
{
    pid_t child, parent = getpid();
    struct timespec time = {0, 120000000}, before, after;
    signal(SIGUSR1, SIG_IGN);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        struct timespec nap = {0, 20000000};
        for (int i = 0; i < 3; i++) {
            nanosleep(&nap, NULL);
            kill(parent, i == 1 ? SIGURG : SIGUSR1);
        }
        _exit(0);
    }
    clock_gettime(CLOCK_MONOTONIC, &before);
    int result = nanosleep(&time, NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long passed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    printf("undisturbed: %d, slept long enough: %d\n", result, passed >= 119);
    waitpid(child, NULL, 0);
}

/* -- timers -- */

static volatile int fired, last_code, last_value, overrun;
static timer_t timer;

static void timed(int number, siginfo_t *info, void *context)
{
    fired++;
    last_code = info->si_code;
    last_value = info->si_value.sival_int;
    overrun += timer_getoverrun(timer);
}

static void timers(void)
{
    struct itimerval value = {{0, 0}, {100, 300000}}, old;
    printf("alarm %u %u %u\n", alarm(10), alarm(20), alarm(0));
    setitimer(ITIMER_REAL, &value, NULL);
    getitimer(ITIMER_REAL, &old);
    printf("itimer left %d, alarm left %u\n", old.it_value.tv_sec == 100 && old.it_value.tv_usec <= 300000, alarm(0));
    getitimer(ITIMER_REAL, &old);
    printf("off: %ld %ld\n", old.it_value.tv_sec, old.it_value.tv_usec);
    value.it_value.tv_usec = 1000000;
    int result = setitimer(ITIMER_REAL, &value, NULL);
    printf("bad: %d %s\n", result, strerror(errno));
    result = setitimer(7, &old, NULL);
    printf("which: %d %s\n", result, strerror(errno));

    struct sigaction action = {.sa_sigaction = timed, .sa_flags = SA_SIGINFO};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGVTALRM, &action, NULL);
    sigaction(SIGPROF, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    for (int which = 0; which < 3; which++) {
        struct itimerval fast = {{0, 2000}, {0, 2000}}, stop = {{0, 0}, {0, 0}};
        fired = 0;
        setitimer(which, &fast, NULL);
        while (fired < 5)
            ;
        setitimer(which, &stop, NULL);
        printf("itimer %d fires while we spin, code %d\n", which, last_code);
    }
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 77};
    struct itimerspec spec = {{0, 5000000}, {0, 5000000}}, now;
    printf("create %d\n", timer_create(CLOCK_MONOTONIC, &event, &timer));
    printf("settime %d\n", timer_settime(timer, 0, &spec, NULL));
    timer_gettime(timer, &now);
    printf("left %d interval %ld\n", now.it_value.tv_nsec > 0 && now.it_value.tv_nsec <= 5000000,
           now.it_interval.tv_nsec);
    fired = 0;
    while (fired < 3)
        pause();
    printf("code %d value %d\n", last_code, last_value);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    overrun = 0;
    struct timespec nap = {0, 60000000};
    nanosleep(&nap, NULL);
    fired = 0;
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    struct itimerspec zero = {{0, 0}, {0, 0}};
    timer_settime(timer, 0, &zero, &now);
    printf("overrun %d, told: %d\n", overrun >= 5, fired > 0);
    printf("delete %d\n", timer_delete(timer));
    long raw = syscall(SYS_timer_delete, 12345);
    printf("delete again %ld %s\n", raw, strerror(errno));
    event.sigev_notify = 9;
    result = timer_create(CLOCK_MONOTONIC, &event, &timer);
    printf("notify %d %s\n", result, strerror(errno));
    event.sigev_notify = SIGEV_NONE;
    result = timer_create(CLOCK_MONOTONIC_RAW, &event, &timer);
    printf("clock %d %s\n", result, strerror(errno));
    printf("none %d\n", timer_create(CLOCK_REALTIME, &event, &timer));
    struct itimerspec later = {{0, 0}, {1, 0}};
    timer_settime(timer, 0, &later, NULL);
    timer_gettime(timer, &now);
    printf("left %d\n", now.it_value.tv_sec <= 1);
}

static void waiting(void)
{
    sigset_t set;
    siginfo_t info;
    struct timespec zero = {0, 0}, soon = {0, 20000000}, bad = {0, 1000000000};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int result = sigtimedwait(&set, &info, &zero);
    printf("nothing: %d %s\n", result, strerror(errno));
    result = sigtimedwait(&set, &info, &soon);
    printf("soon: %d %s\n", result, strerror(errno));
    result = sigtimedwait(&set, &info, &bad);
    printf("bad: %d %s\n", result, strerror(errno));
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 5});
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 6});
    raise(SIGUSR2);
    for (int i = 0; i < 3; i++) {
        result = sigwaitinfo(&set, &info);
        printf("got %d code %d value %d\n", result, info.si_code, result > 30 ? info.si_value.sival_int : 0);
    }
    pid_t parent = getpid();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        usleep(30000);
        sigqueue(parent, SIGRTMIN + 1, (union sigval){.sival_int = 9});
        _exit(0);
    }
    result = sigwaitinfo(&set, &info);
    printf("woken by %d value %d pid %d\n", result, info.si_value.sival_int, info.si_pid == child);
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    pipe(ends);
    if (argc > 1) {
        polls(0);
        polls(1);
        return 0;
    }
    calls(0);
    calls(1);
    undisturbed();
    timers();
    waiting();
    return 0;
}
