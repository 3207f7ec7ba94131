/* The 8259s remapped, the 8254 at 100 Hz, ten interrupts; then masked, and none. */
#include "io.h"
#include "idt.h"

static volatile u32 ticks, others;

void interrupt(struct frame *frame)
{
    if (frame->vector == 0x20) ticks++;
    else others++;
    outb(0x20, 0x20);
}

void kmain(void)
{
    u32 seen = 0;
    serial_init();
    idt_init();
    pic_init(0xFE);
    outb(0x43, 0x34);
    outb(0x40, 11932 & 0xFF);
    outb(0x40, 11932 >> 8);
    while (seen < 10) {
        __asm__ volatile("cli");
        if (ticks == seen) __asm__ volatile("sti; hlt; cli");
        if (ticks != seen) {
            dec("tick ", ++seen);
            print("\n");
        }
        __asm__ volatile("sti");
    }
    while (ticks < 13) ;
    __asm__ volatile("cli");
    outb(0x21, 0xFF);
    seen = ticks;
    __asm__ volatile("sti");
    for (int i = 0; i < 20000; i++) inb(0x80);
    print(ticks == seen ? "masked\n" : "not masked\n");
    dec("others ", others);
    print("\n");
    finish(10);
}
