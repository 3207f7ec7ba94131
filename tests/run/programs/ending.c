/* The ways a program ends by itself, chosen by its first argument. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void first(void) { puts("atexit first"); }
static void second(void) { puts("atexit second"); }
static void __attribute__((destructor)) last(void) { puts("destructor"); }

static void __attribute__((noinline)) smash(volatile char *at) {
    for (int i = 0; i < 64; i++) at[i] = 'x';
}

static void __attribute__((noinline)) overflow(void) {
    volatile char small[8] = "";
    smash(small);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    atexit(first);
    atexit(second);
    printf("ending by %s\n", how);
    if (!strcmp(how, "exit")) exit(300);
    if (!strcmp(how, "_exit")) fflush(stdout), _exit(77);
    if (!strcmp(how, "abort")) fflush(stdout), abort();
    if (!strcmp(how, "raw")) fflush(stdout), syscall(SYS_exit, 9);
    if (!strcmp(how, "smash")) fflush(stdout), overflow();
    if (!strcmp(how, "signal")) fflush(stdout), raise(atoi(argv[2]));
    if (!strcmp(how, "ignored")) signal(SIGTERM, SIG_IGN), raise(SIGTERM), puts("still here");
    if (!strcmp(how, "blocked")) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGUSR1);
        sigpending(&set);
        printf("pending: %d\n", sigismember(&set, SIGUSR1));
        fflush(stdout);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        puts("not reached");
    }
    if (!strcmp(how, "sigpipe")) {
        int ends[2];
        if (pipe(ends)) return 1;
        close(ends[0]);
        fflush(stdout);
        if (write(ends[1], "x", 1)) puts("not reached");
    }
    fprintf(stderr, "to standard error\n");
    return 5;
}
