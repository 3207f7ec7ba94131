/*
 * Meltdown-PK: a protection key forbids the load, which forwards its data until the fault is delivered.
 *
 * The page of the secret carries a protection key. Its owner opens the page with WRPKRU, uses the secret, and closes
 * it again: from then on nobody may read, says PKRU, and user code alone decides that.
 */
#include "lab.h"

static const char ABOUT[] = "nobody while PKRU denies the key of its page";

static u8 *secret;
static u32 open_rights, closed_rights;

static void set_rights(u32 rights)
{
    __asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0) : "memory");
}

static int prepare(u64 bytes)
{
    i64 key = SYSCALL(pkey_alloc, 0, 0, 0);
    secret = map(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (key < 0 || failed(secret)) {
        note("this CPU has no protection keys");
        return 0;
    }
    make_secret(secret, bytes);
    catch_faults();
    if (syscall6(SYS_pkey_mprotect, (i64)secret, PAGE, PROT_READ | PROT_WRITE, key, 0, 0) < 0)
        return 0;
    __asm__ volatile("rdpkru" : "=a"(open_rights) : "c"(0) : "rdx");
    closed_rights = open_rights | 1U << 2 * key; /* access disable */
    return 1;
}

static void attempt(u64 index)
{
    set_rights(open_rights);
    touch(secret + index); /* the owner uses it */
    set_rights(closed_rights);
    flush_probe();
    FAULTING_ACCESS(LOAD_BYTE, secret + index, 0L);
}

static void done(void)
{
    say_value("faults", faults);
}
