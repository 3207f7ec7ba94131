/* The local APIC: calibrated against the 8254, a periodic timer, self-IPIs, EOI and TPR; x2APIC where it is. */
#include "io.h"
#include "idt.h"

static volatile u32 ticks, ipis;
static volatile int acknowledge = 1;
static int x2apic;

static inline void msr_write(u32 msr, u32 value) { __asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0)); }
static inline u32 msr_read(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low;
}

static void apic_write(u32 offset, u32 value)
{
    if (x2apic) msr_write(0x800 + (offset >> 4), value);
    else *(volatile u32 *)(0xFEE00000UL + offset) = value;
}
static u32 apic_read(u32 offset)
{
    return x2apic ? msr_read(0x800 + (offset >> 4)) : *(volatile u32 *)(0xFEE00000UL + offset);
}

void interrupt(struct frame *frame)
{
    if (frame->vector == 0x40) ticks++;
    else if (frame->vector == 0x50) ipis++;
    else if (frame->vector == 0x51) {
        if (!acknowledge) return;
    } else if (frame->vector != 0xFF) dec("unexpected ", frame->vector);
    if (frame->vector != 0xFF) apic_write(0xB0, 0);
}

static void pit_start(u16 count)
{
    outb(0x61, inb(0x61) & ~3);
    outb(0x43, 0xB0);
    outb(0x42, count & 0xFF);
    outb(0x42, count >> 8);
    outb(0x61, (inb(0x61) & ~2) | 1);
}
static u16 pit_left(void)
{
    outb(0x43, 0x80);
    u8 low = inb(0x42);
    return low | inb(0x42) << 8;
}

static void self(u32 vector)
{
    if (x2apic) msr_write(0x83F, vector);
    else {
        apic_write(0x310, 0);
        apic_write(0x300, 0x40000 | vector);
        while (apic_read(0x300) & 0x1000) ;
    }
}
static void pause_a_while(void) { for (int i = 0; i < 100; i++) inb(0x80); }
static void check(const char *what, int good)
{
    print(what);
    print(good ? " ok\n" : " WRONG\n");
}

static void interprocessor(void)
{
    ipis = 0;
    self(0x50);
    pause_a_while();
    check("self-ipi", ipis == 1);
    apic_write(0x80, 0x60);
    self(0x50);
    pause_a_while();
    check("held by tpr", ipis == 1 && apic_read(0x200 + 0x20) >> 16 & 1);
    apic_write(0x80, 0x40);
    pause_a_while();
    check("released by tpr", ipis == 2);
    apic_write(0x80, 0);
    acknowledge = 0;
    self(0x51);
    pause_a_while();
    check("in service", apic_read(0x100 + 0x20) >> 17 & 1);
    self(0x50);
    pause_a_while();
    check("held by service", ipis == 2);
    apic_write(0xB0, 0);
    pause_a_while();
    check("released by eoi", ipis == 3);
    acknowledge = 1;
}

void kmain(void)
{
    u32 a, b, c, d;
    serial_init();
    idt_init();
    pic_init(0xFF);
    check("apic base", (msr_read(0x1B) & 0xFFFFF900) == 0xFEE00900);
    apic_write(0xF0, 0x1FF);
    apic_write(0x80, 0);
    check("version", (apic_read(0x30) & 0xF0) == 0x10);

    apic_write(0x3E0, 3);
    apic_write(0x320, 0x10040);
    pit_start(11932);
    apic_write(0x380, 0xFFFFFFFF);
    while (!(inb(0x61) & 0x20)) ;
    u32 per_10_ms = 0xFFFFFFFF - apic_read(0x390);
    check("calibrated", per_10_ms > 100 && per_10_ms < 0x10000000);

    apic_write(0x320, 0x20040);
    apic_write(0x380, per_10_ms / 10);
    ticks = 0;
    pit_start(0xFFFF);
    __asm__ volatile("sti");
    while (ticks < 10) __asm__ volatile("hlt");
    u32 taken = 0xFFFF - pit_left();
    apic_write(0x320, 0x10040);
    check("ten ticks in ten milliseconds", taken > 11932 / 2 && taken < 11932 * 2);

    interprocessor();
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
    if (c >> 21 & 1) {
        __asm__ volatile("cli");
        msr_write(0x1B, msr_read(0x1B) | 0xC00);
        x2apic = 1;
        __asm__ volatile("sti");
        print("x2apic\n");
        interprocessor();
    }
    finish(0);
}
