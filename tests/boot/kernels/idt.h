/* Interrupt descriptors for either width, and the 8259s. */
struct frame {
#ifdef __x86_64__
    word r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
#else
    word di, si, bp, sp_of_pusha, bx, dx, cx, ax;
#endif
    word vector, error, ip, cs, flags, sp, ss;
};

extern char vectors[];
void interrupt(struct frame *frame);

struct gate {
    u16 low, selector;
    u8 ist, type;
    u16 middle;
#ifdef __x86_64__
    u32 high, zero;
#endif
} __attribute__((packed));

static struct gate idt[256];

static inline void set_gate(int vector, u8 type)
{
    word to = (word)(vectors + 16 * vector);
    struct gate *gate = &idt[vector];
    gate->low = to;
    gate->selector = 8;
    gate->type = type;
    gate->middle = to >> 16;
#ifdef __x86_64__
    gate->high = to >> 32;
#endif
}

static inline void idt_init(void)
{
    struct { u16 limit; word base; } __attribute__((packed)) pointer = {sizeof idt - 1, (word)idt};
    for (int vector = 0; vector < 256; vector++) set_gate(vector, 0x8E);
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static inline void pic_init(u8 mask)
{
    outb(0x20, 0x11);
    outb(0xA0, 0x11);
    outb(0x21, 0x20);
    outb(0xA1, 0x28);
    outb(0x21, 4);
    outb(0xA1, 2);
    outb(0x21, 1);
    outb(0xA1, 1);
    outb(0x21, mask);
    outb(0xA1, 0xFF);
}
