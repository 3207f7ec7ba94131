/* Ports, the first serial line, the debug exit. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long word;

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

#define COM1 0x3F8

static inline void serial_init(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x80);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
#ifndef NO_FIFO
    outb(COM1 + 2, 0xC7);
#endif
    outb(COM1 + 4, 3);
}

static inline void putch(char c)
{
    while (!(inb(COM1 + 5) & 0x20)) ;
    outb(COM1, c);
}

static inline int getch(void)
{
    while (!(inb(COM1 + 5) & 1)) ;
    return inb(COM1);
}

static inline void print(const char *s) { while (*s) putch(*s++); }

static inline void print_number(u64 value, int hexadecimal)
{
    char text[24];
    int n = 0;
    do {
        /* No 64-bit division: that would need a library in 32-bit code. */
        if (hexadecimal) {
            text[n++] = "0123456789abcdef"[value & 15];
            value >>= 4;
        } else {
            text[n++] = '0' + (u32)value % 10;
            value = (u32)value / 10;
        }
    } while (value);
    while (n) putch(text[--n]);
}

static inline void hex(const char *label, u64 value)
{
    print(label);
    print_number(value, 1);
}

static inline void dec(const char *label, u32 value)
{
    print(label);
    print_number(value, 0);
}

static inline __attribute__((noreturn)) void finish(u8 code)
{
    while (!(inb(COM1 + 5) & 0x40)) ;
    outb(0xF4, code);
    for (;;) __asm__ volatile("cli; hlt");
}
