/* A multiboot kernel that says hello on COM1 and ends the machine. Build and boot it: docs/howto-boot.md */

typedef unsigned int u32;

__attribute__((section(".text.start"), used, aligned(4))) static const u32 header[3] = {
    0x1BADB002, 2, -(0x1BADB002 + 2), /* magic, "tell me about memory", checksum */
};

static void outb(unsigned short port, unsigned char value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static void print(const char *text) {
    while (*text) outb(0x3F8, *text++);
}

__attribute__((used)) void kernel(const u32 *information) {
    const char *line = (const char *)information[4];
    print("Hello from ring 0. My command line is: ");
    print(line);
    print("\n");
    if (line[0] == 'c' && line[1] == 'r') __asm__ volatile("ud2"); /* "crash": there is no IDT */
    outb(0xF4, 0);
    for (;;) __asm__ volatile("hlt");
}

__attribute__((used)) static unsigned char stack[4096];
__asm__(".globl _start\n_start: lea stack+4096, %esp\n push %ebx\n call kernel\n");
