/* Protection keys: allocation, faults with SEGV_PKUERR, system calls that meet a key, fork, threads, signal handlers. */
#define _GNU_SOURCE
#include "say.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define ADDRESS ((char *)0x10000000)

static sigjmp_buf back;
static volatile unsigned in_handler;
static unsigned left;
static pthread_barrier_t meeting;

static unsigned rdpkru(void) {
    unsigned value;
    __asm__ volatile("xor %%ecx, %%ecx\n rdpkru" : "=a"(value) : : "ecx", "edx");
    return value;
}

static void wrpkru(unsigned value) { __asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory"); }

static void on_fault(int number, siginfo_t *info, void *context) {
    in_handler = rdpkru();
    ucontext_t *frame = context;
    printf("  %d code %d at +%#lx key %d error %llx ", number, info->si_code, (unsigned long)((char *)info->si_addr - ADDRESS),
           info->si_code == SEGV_PKUERR ? (int)info->si_pkey : -1, frame->uc_mcontext.gregs[REG_ERR]);
    siglongjmp(back, 1);
}

static void try_load(volatile char *at) {
    if (!sigsetjmp(back, 1))
        printf("  load %d", *at);
    printf("\n");
}

static void try_store(volatile char *at, char value) {
    if (!sigsetjmp(back, 1)) {
        *at = value;
        printf("  stored");
    }
    printf("\n");
}

static void both(const char *what, char *at) {
    unsigned rights = rdpkru();
    printf("%s\n", what);
    try_load(at);
    wrpkru(rights);
    try_store(at, 7);
    wrpkru(rights);
}

static void calls(char *at) {
    int ends[2];
    pipe(ends);
    printf("write %zd %d\n", write(ends[1], at, 8), errno);
    errno = 0;
    write(ends[1], "abcdefgh", 8);
    ssize_t got = read(ends[0], at, 8);
    printf("read %zd %d\n", got, errno);
    errno = 0;
    close(ends[0]), close(ends[1]);
}

static void *thread(void *at) {
    printf("thread %#x\n", rdpkru());
    wrpkru(0x55555550);
    both("thread's own rights", at);
    pthread_barrier_wait(&meeting);
    for (int i = 0; i < 200; i++)
        sched_yield(), ((volatile char *)at)[1] = i;
    return 0;
}

static void show_key(char *at) {
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[256];
    int here = 0;
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = start <= (unsigned long)at && (unsigned long)at < end;
        else if (here && !strncmp(line, "ProtectionKey", 13))
            fputs(line, stdout);
    }
    fclose(file);
}

int main(void) {
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, 0);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, 0);
    setvbuf(stdout, 0, _IONBF, 0);

    printf("at first %#x\n", rdpkru());
    printf("bad %d", pkey_alloc(1, 0));
    printf(" %d", errno);
    printf(" %d", pkey_alloc(0, 4));
    printf(" %d\n", errno);
    int key = pkey_alloc(0, PKEY_DISABLE_ACCESS), other = pkey_alloc(0, PKEY_DISABLE_WRITE);
    printf("keys %d %d, %#x\n", key, other, rdpkru());
    char *at = mmap(ADDRESS, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    at[0] = 1, at[PAGE] = 2;
    printf("mprotect %d", pkey_mprotect(at, PAGE, PROT_READ | PROT_WRITE, 9));
    printf(" %d", errno);
    printf(" %d", pkey_mprotect(at, PAGE, PROT_READ | PROT_WRITE, 16));
    printf(" %d", pkey_mprotect(at, 0, PROT_READ, 9));
    printf(" %d\n", pkey_mprotect(at + 1, PAGE, PROT_READ, key));
    printf("%d\n", pkey_mprotect(at, 3 * PAGE, PROT_READ | PROT_WRITE, key));

    both("no access", at);
    calls(at);
    both("no access, never touched", at + 2 * PAGE);
    both("without the key", at + 3 * PAGE);
    show_key(at), show_key(at + 3 * PAGE);
    pkey_set(key, PKEY_DISABLE_WRITE);
    both("no writes", at);
    calls(at);
    both("no writes, never touched", at + 2 * PAGE);
    printf("handler %#x\n", in_handler);
    if (!fork()) {
        both("child", at);
        pkey_set(key, 0);
        both("child with rights", at);
        printf("child %d %d\n", pkey_alloc(0, 0), at[0]);
        _exit(0);
    }
    wait(0);
    pthread_t other_thread;
    pthread_barrier_init(&meeting, 0, 2);
    pthread_create(&other_thread, 0, thread, at + PAGE);
    pthread_barrier_wait(&meeting);
    for (volatile int i = 0; i < 50; i++) {
        sched_yield();
        if (!sigsetjmp(back, 1))
            at[PAGE + 1] = 3, printf("not refused\n");
        else
            printf("while the thread may\n");
        left = rdpkru();
    }
    pthread_join(other_thread, 0);
    printf("mine %#x, after a handler %#x\n", rdpkru(), left);
    wrpkru(0);
    both("all rights", at);
    printf("mprotect keeps it %d\n", mprotect(at, PAGE, PROT_READ));
    show_key(at);
    both("read-only", at);
    wrpkru(0x55555554);
    both("read-only and no access", at);
    mprotect(at, PAGE, PROT_NONE);
    both("nothing and no access", at);
    char *moved = mremap(at + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + 16 * PAGE);
    both("moved", moved);
    printf("back to none %d\n", pkey_mprotect(moved, PAGE, PROT_READ | PROT_WRITE, 0));
    both("key 0", moved);
    printf("free %d", pkey_free(key));
    printf(" %d", pkey_free(key));
    printf(" %d", errno);
    printf(" %d", pkey_free(16));
    printf(" %d\n", pkey_free(-1));
    both("a page keeps a key that was freed", at + 2 * PAGE);
    for (int n = 0; n < 16; n++)
        printf("%d ", pkey_alloc(0, 0));
    printf("%d %#x\n", errno, rdpkru());
    return 0;
}
