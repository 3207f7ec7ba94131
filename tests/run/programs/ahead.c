/* Pages that are used one behind the other, and what happens to some of them meanwhile. */
#define _GNU_SOURCE
#include "say.h"
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 200UL

static sigjmp_buf back;

static void caught(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

/* How many of the first `count` pages at `p` let themselves be stored to, in order. */
static int stored(volatile char *p, unsigned long count, char value) {
    volatile int good = 0;
    for (unsigned long i = 0; i < count; i++)
        if (!sigsetjmp(back, 1)) {
            p[i * PAGE + i] = value;
            good++;
        }
    return good;
}

static long sum(volatile char *p, unsigned long count) {
    long found = 0;
    for (unsigned long i = 0; i < count; i++) found += p[i * PAGE + i];
    return found;
}

static void anonymous(void) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, good;
    char *p = mmap(0, 16UL << 20, PROT_READ | PROT_WRITE, flags, -1, 0);
    p = (char *)(((unsigned long)p + (4UL << 20)) & -(2UL << 20)) - 100 * PAGE;
    good = stored(p, PAGES, 3);
    printf("%d %ld\n", good, sum(p, PAGES));
    say("read-only", mprotect(p + 150 * PAGE, 20 * PAGE, PROT_READ));
    good = stored(p, PAGES, 5);
    printf("%d %ld\n", good, sum(p, PAGES));
    say("gone", munmap(p + 190 * PAGE, 5 * PAGE));
    good = stored(p, PAGES, 6);
    printf("%d %ld\n", good, sum(p, 190));
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        good = stored(p, PAGES, 7);
        printf("child: %d %ld\n", good, sum(p, 190));
        fflush(stdout);
        _exit(0);
    }
    printf("%d\n", stored(p, 100, 9));
    waitpid(child, 0, 0);
    printf("parent: %ld\n", sum(p, 190));
    say("zeros", madvise(p + 120 * PAGE, 20 * PAGE, MADV_DONTNEED));
    printf("%ld\n", sum(p, 190));
}

/* mov eax, VALUE; ret */
static void code(volatile char *at, char value) {
    at[1] = value;
    at[2] = at[3] = at[4] = 0;
    at[5] = (char)0xc3;
    at[0] = (char)0xb8;
}

static int call(char *at) {
    return ((int (*)(void))at)();
}

/* Stores through `data` and calls through `text`, of the same pages; `other` is a third place to store. */
static void aliased(int rights, int third) {
    int fd = memfd_create("code", 0), both = PROT_READ | PROT_WRITE;
    say("size", ftruncate(fd, PAGES * PAGE));
    char *data = mmap(0, PAGES * PAGE, both, MAP_SHARED, fd, 0);
    char *text = mmap(0, PAGES * PAGE, rights, MAP_SHARED, fd, 0);
    char *first = rights & PROT_WRITE ? text : data, *other = third ? data : first;
    for (int round = 0; round < 4; round++) {
        int wrong = 0;
        for (unsigned long i = 0; i < PAGES; i++) code(first + i * PAGE, (char)(round + 1));
        for (unsigned long i = 0; i < PAGES; i += 3) wrong += call(text + i * PAGE) != round + 1;
        say("flush", mprotect(text, PAGE, PROT_READ));
        say("flush", mprotect(text, PAGE, rights));
        for (unsigned long i = 4; i < PAGES && round & 1; i += 2) wrong += call(text + i * PAGE) != round + 1;
        for (unsigned long i = 4; i < PAGES && third; i++) code(other + i * PAGE, 90);
        /* Those behind come in with these. */
        for (unsigned long i = 0; i < 4; i++) code(first + i * PAGE, 100);
        for (unsigned long i = 4; i < PAGES; i++)
            for (int again = 0; again < 3; again++) {
                code(other + i * PAGE, (char)(50 + round + again));
                wrong += call(text + i * PAGE) != 50 + round + again;
            }
        printf("round %d: %d wrong\n", round, wrong);
    }
}

/* Code that is written, executed and written again at one address; each page has two pieces. */
static void rewritten(void) {
    int both = PROT_READ | PROT_WRITE;
    char *p = mmap(0, 4UL << 20, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 4; round++) {
        int wrong = 0;
        for (unsigned long i = 0; i < PAGES; i++) code(p + i * PAGE, (char)(round + 1));
        say("flush", mprotect(p + PAGES * PAGE, PAGE, round & 1 ? PROT_READ : both));
        for (unsigned long i = 0; i < PAGES; i++) code(p + i * PAGE + 2048, (char)(round + 50));
        say("executable", mprotect(p, 4UL << 20, PROT_READ | PROT_EXEC));
        for (unsigned long i = 0; i < PAGES; i++)
            wrong += (call(p + i * PAGE) != round + 1) + (call(p + i * PAGE + 2048) != round + 50);
        say("writable", mprotect(p, 4UL << 20, both | (round == 2 ? PROT_EXEC : 0)));
        printf("round %d: %d wrong\n", round, wrong);
    }
}

/* The same of code that may be stored to and executed all the time. */
static void open_code(void) {
    char *p = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 4; round++) {
        int wrong = 0;
        say("flush", munmap(mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0), PAGE));
        for (unsigned long i = 0; i < PAGES; i++) {
            code(p + i * PAGE, (char)(round + 1));
            code(p + i * PAGE + 2048, (char)(round + 50));
        }
        for (unsigned long i = 0; i < PAGES; i++)
            wrong += (call(p + i * PAGE) != round + 1) + (call(p + i * PAGE + 2048) != round + 50);
        printf("round %d: %d wrong\n", round, wrong);
    }
}

/* The same pages twice, with one place in a TLB of any size. */
static void twice(void) {
    int fd = memfd_create("twice", 0), wrong = 0;
    say("size", ftruncate(fd, PAGES * PAGE));
    char *p = mmap((char *)0x7e0000000000, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    char *q = mmap(p + (1UL << 32), PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    for (char round = 0; round < 9; round++) {
        say("flush", mprotect(p, PAGE, PROT_READ));
        say("flush", mprotect(p, PAGE, PROT_READ | PROT_WRITE));
        for (unsigned long i = 0; i < PAGES; i++) {
            p[i * PAGE + i] = round;
            q[i * PAGE + i] += 1;
        }
        for (unsigned long i = 0; i < PAGES; i++) wrong += p[i * PAGE + i] != round + 1;
    }
    printf("%d wrong\n", wrong);
}

int main(void) {
    struct sigaction action = {.sa_handler = caught};
    sigaction(SIGSEGV, &action, 0);
    aliased(PROT_READ | PROT_EXEC, 0);
    aliased(PROT_READ | PROT_WRITE | PROT_EXEC, 0);
    aliased(PROT_READ | PROT_WRITE | PROT_EXEC, 1);
    rewritten();
    open_code();
    twice();
    anonymous();
    return 0;
}
