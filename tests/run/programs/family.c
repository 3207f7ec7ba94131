// Tasks that take turns: fork, pipes, exec, wait; and tasks in one address space that spin until all have counted.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long *shared;

static volatile int counted;

static int count(void *argument) {
    long me = (long)argument, sum = 0;
    for (long i = 0; i < 30000; i++) {
        sum += i ^ me;
        shared[me] = sum;
    }
    __sync_fetch_and_add(&counted, 1);
    while (counted < 4) {}
    return 10 + me;
}

static void child(int number, int out) {
    char line[64];
    long sum = 0;
    for (long i = 0; i < 40000; i++) sum += i * number;
    shared[100 + number] = sum;
    int size = snprintf(line, sizeof line, "child %d: %ld\n", number, sum);
    write(out, line, size);
    _exit(number);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        printf("executed with %s\n", argv[1]);
        return 7;
    }
    setvbuf(stdout, 0, _IONBF, 0);
    shared = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ends[2], status;
    pid_t children[4];
    for (int number = 0; number < 4; number++) {
        pipe(ends);
        if (!(children[number] = fork())) child(number + 1, ends[1]);
        char line[64] = "";
        close(ends[1]);
        for (int got, at = 0; (got = read(ends[0], line + at, sizeof line - 1 - at)) > 0; at += got) {}
        close(ends[0]);
        waitpid(children[number], &status, 0);
        printf("%s%d, shared %ld\n", line, WEXITSTATUS(status), shared[101 + number]);
    }
    for (long number = 0; number < 4; number++) {
        char *stack = malloc(65536);
        children[number] = clone(count, stack + 65536, CLONE_VM | SIGCHLD, (void *)number);
    }
    for (int number = 0; number < 4; number++) {
        waitpid(children[number], &status, 0);
        printf("task %d: %d, %ld\n", number, WEXITSTATUS(status), shared[number]);
    }
    if (!fork()) {
        execl(argv[0], argv[0], "argument", (char *)0);
        _exit(1);
    }
    wait(&status);
    printf("and ended with %d\n", WEXITSTATUS(status));
    if (!fork()) *(volatile int *)8 = 1;
    wait(&status);
    printf("died of %d\n", WTERMSIG(status));
    return 0;
}
