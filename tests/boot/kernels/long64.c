/* Exceptions in ring 0 and 3, system calls both ways, a status. */
#include "io.h"
#include "idt.h"

extern u64 gdt[], pd[];
extern char user_entry[], syscall_entry[];

static struct { u32 zero; u64 rsp[3], reserved, ist[7], reserved2; u16 zero2, iomap; } __attribute__((packed)) tss;
static u8 rsp0_stack[8192] __attribute__((aligned(16)));
static u8 ist_stack[8192] __attribute__((aligned(16)));
u8 syscall_stack[8192] __attribute__((aligned(16)));
static u8 user_stack[8192] __attribute__((aligned(16)));
static u32 steps;

static int within(const void *p, const u8 *stack) { return (const u8 *)p >= stack && (const u8 *)p < stack + 8192; }

static void report(const struct frame *frame)
{
    word cr2;
    dec("vector ", frame->vector);
    hex(" error ", frame->error);
    dec(" ring ", frame->cs & 3);
    if (frame->vector == 14) {
        __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
        hex(" cr2 ", cr2);
    }
    print(within(frame, rsp0_stack) ? " on rsp0" : within(frame, ist_stack) ? " on ist" : "");
    if (frame->vector != 3 && frame->vector != 0x80) print(frame->flags & 0x10000 ? " rf" : "");
    print("\n");
}

void interrupt(struct frame *frame)
{
    word cr2;
    switch (frame->vector) {
    case 1:
        steps++;
        return;
    case 0x80:
        hex("int 80 with ", frame->ax);
        print(within(frame, rsp0_stack) ? " on rsp0\n" : "\n");
        frame->ax += 1;
        return;
    case 3:
        break;
    case 13:
        frame->ip += *(u8 *)frame->ip == 0xFA ? 1 : 2;
        break;
    case 14:
        __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
        if (cr2 == frame->ip) {
            report(frame);
            frame->ip = *(word *)frame->sp;
            frame->sp += 8;
            return;
        }
        frame->ip += 2;
        break;
    default:
        frame->ip += 2;
    }
    report(frame);
}

word system_call(word number, word argument)
{
    if (number == 60) finish(argument);
    hex("syscall ", number);
    hex(" with ", argument);
    print("\n");
    return argument * 2;
}

static inline void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
}

static inline u64 rdmsr(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (u64)high << 32 | low;
}

static void tables(void)
{
    u64 base = (u64)&tss;
    idt_init();
    pic_init(0xFF);
    set_gate(0x80, 0xEE);
    set_gate(3, 0xEE);
    idt[6].ist = 1;
    tss.rsp[0] = (u64)(rsp0_stack + sizeof rsp0_stack);
    tss.ist[0] = (u64)(ist_stack + sizeof ist_stack);
    tss.iomap = sizeof tss;
    gdt[6] = (sizeof tss - 1) | (base & 0xFFFFFF) << 16 | 0x89ULL << 40 | (base >> 24 & 0xFF) << 56;
    gdt[7] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(0x30));
    wrmsr(0xC0000080, rdmsr(0xC0000080) | 0x801);
    wrmsr(0xC0000081, 0x18ULL << 48 | 8ULL << 32);
    wrmsr(0xC0000082, (u64)syscall_entry);
    wrmsr(0xC0000084, 0x700);
    pd[4] = 0x800083;
    pd[5] = 0xA00085;
    __asm__ volatile("invlpg 0x800000; invlpg 0xa00000" : : : "memory");
}

void kmain(u32 magic, u32 information)
{
    serial_init();
    tables();
    print(magic == 0x2BADB002 && information ? "multiboot, long mode\n" : "long mode\n");
    __asm__ volatile("int3");
    __asm__ volatile("ud2");
    __asm__ volatile("divl %%ecx" : : "a"(1), "d"(0), "c"(0));
    __asm__ volatile(".byte 0x8b, 0x00" : : "a"(0x140000123) : "memory");
    __asm__ volatile(".byte 0x89, 0x00" : : "a"(0x140000123) : "memory");
    __asm__ volatile(".byte 0x89, 0x00" : : "a"(0xA00040) : "memory");
    __asm__ volatile(".byte 0x8e, 0xe0" : : "a"(0x48));   /* mov %eax, %fs */
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop; pushfq; andl $~0x100, (%%rsp); popfq" : : : "cc");
    dec("steps ", steps);
    print("\n");
    __asm__ volatile("pushq $0x23; pushq %0; pushq $0x202; pushq $0x2b; pushq %1; iretq"
                     : : "r"((u64)(user_stack + sizeof user_stack)), "r"((u64)user_entry));
}

__asm__(
    ".globl user_entry\nuser_entry:\n"
    "mov $1, %eax\n mov $0x21, %edi\n syscall\n"        /* rax = 0x42 */
    "int $0x80\n"                                       /* rax = 0x43 */
    "int3\n"
    "mov %rax, %rbx\n"
    "cli\n"
    "int $0x21\n"
    "mov $0x800040, %eax\n .byte 0x89, 0x00\n"          /* mov %eax, (%rax) */
    "mov $0x800044, %eax\n .byte 0x8b, 0x00\n"          /* mov (%rax), %eax */
    "mov $0x800048, %eax\n push $1f\n push %rax\n ret\n nop\n"
    "1: ud2\n"
    "mov $60, %eax\n mov %ebx, %edi\n syscall\n"
    ".globl syscall_entry\nsyscall_entry:\n"
    "mov %rsp, saved_rsp\n lea syscall_stack + 8192, %rsp\n push %rcx\n push %r11\n"
    "mov %rdi, %rsi\n mov %rax, %rdi\n call system_call\n"
    "pop %r11\n pop %rcx\n mov saved_rsp, %rsp\n sysretq\n"
    ".local saved_rsp\n.comm saved_rsp, 8, 8\n");
