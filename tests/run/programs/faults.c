/* The ways a program dies of an exception, chosen by name. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char constant[4096] = "read-only";
static unsigned char data[64] = {0xc3};
static volatile uintptr_t zero = 0;

static void *pages(int count, int prot) { return mmap(NULL, count * 4096ul, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void null_read(void) { (void)*(volatile int *)zero; }
static void null_write(void) { *(volatile int *)(zero + 16) = 1; }
static void null_call(void) { ((void (*)(void))zero)(); }
static void read_only(void) { *(volatile char *)(constant + zero) = 1; }
static void write_code(void) { *(volatile char *)((char *)null_read + zero) = 1; }
static void no_execute(void) { ((void (*)(void))(void *)data)(); }
static void stack_execute(void) {
    unsigned char code[16] = {0xc3};
    ((void (*)(void))(void *)code)();
}
static void divide(void) {
    volatile int a = 1;
    a = a / (int)zero;
}
static void divide_overflow(void) { __asm__ volatile("mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx" ::: "eax", "ecx", "edx"); }
static void undefined(void) { __asm__ volatile("ud2"); }
static void invalid(void) { __asm__ volatile(".byte 0x06"); }
static void breakpoint(void) { __asm__ volatile("int3"); }
static void single_step(void) { __asm__ volatile("pushf; orl $0x100, (%rsp); popf; nop; nop"); }
static void icebp(void) { __asm__ volatile(".byte 0xf1"); }
static void interrupt(void) { __asm__ volatile("int $0x42"); }
static void int80(void) { __asm__ volatile("mov $20, %%eax; int $0x80" ::: "eax"); }
static void page_fault_gate(void) { __asm__ volatile("int $14"); }
static void overflow_gate(void) { __asm__ volatile("int $4"); }
static void cli(void) { __asm__ volatile("cli"); }
static void hlt(void) { __asm__ volatile("hlt"); }
static void in(void) { __asm__ volatile("in $0x60, %%al" ::: "eax"); }
static void out(void) { __asm__ volatile("mov $0x51, %%edx; out %%al, %%dx" ::: "edx"); }
static void rdmsr(void) { __asm__ volatile("mov $0xc0000080, %%ecx; rdmsr" ::: "eax", "ecx", "edx"); }
static void wrmsr(void) { __asm__ volatile("mov $0xc0000082, %%ecx; wrmsr" ::: "ecx"); }
static void read_cr0(void) { __asm__ volatile("mov %%cr0, %%rax" ::: "rax"); }
static void write_cr3(void) { __asm__ volatile("mov %0, %%cr3" ::"r"(zero)); }
static void swapgs(void) { __asm__ volatile("swapgs"); }
static void sysret(void) { __asm__ volatile("sysretq"); }
static void lgdt(void) { __asm__ volatile("lgdt (%0)" ::"r"(data)); }
static void invlpg(void) { __asm__ volatile("invlpg (%0)" ::"r"(data)); }
static void iret_to_ring_0(void) {
    __asm__ volatile("mov %%rsp, %%rax; push $0x18; push %%rax; pushf; push $0x10; lea 1f(%%rip), %%rax; push %%rax; iretq; 1: nop" ::: "rax");
}
static void load_kernel_segment(void) { __asm__ volatile("mov $0x18, %%eax; mov %%eax, %%ss" ::: "eax"); }
static void load_bad_segment(void) { __asm__ volatile("mov $0x1230, %%eax; mov %%eax, %%ds" ::: "eax"); }
static void non_canonical_read(void) { (void)*(volatile char *)(zero + 0x800000000000); }
static void non_canonical_write(void) { *(volatile char *)(zero + 0x1234567800000000) = 1; }
static void non_canonical_jump(void) { ((void (*)(void))(zero + 0x8000000000000000))(); }
static void non_canonical_push(void) { __asm__ volatile("movabs $0x8000000000000000, %rsp; push %rax"); }
static void non_canonical_rbp(void) { __asm__ volatile("movabs $0x8000000000000000, %rbp; mov (%rbp), %rax"); }
static void kernel_read(void) { (void)*(volatile char *)(zero + 0xffff888000000000); }
static void kernel_write(void) { *(volatile char *)(zero + 0xffffffff80000000) = 1; }
static void kernel_jump(void) { ((void (*)(void))(zero + 0xffffffff80000000))(); }
static void vsyscall_read(void) { (void)*(volatile char *)(zero + 0xffffffffff600000); }
static void top_of_user(void) { (void)*(volatile char *)(zero + 0x7ffffffff000); }
static void unmapped(void) {
    char *at = pages(3, PROT_READ | PROT_WRITE);
    munmap(at + 4096, 4096);
    at[4095] = 1;
    *(volatile char *)(at + 4096) = 1;
}
static void across_pages(void) {
    char *at = pages(2, PROT_READ | PROT_WRITE);
    munmap(at + 4096, 4096);
    *(volatile uint64_t *)(at + 4092) = 1;
}
static void no_access(void) { (void)*(volatile char *)pages(1, PROT_NONE); }
static void taken_away(void) {
    volatile char *at = pages(1, PROT_READ | PROT_WRITE);
    *at = 1;
    mprotect((void *)at, 4096, PROT_NONE);
    (void)*at;
}
static void made_read_only(void) {
    volatile char *at = pages(1, PROT_READ | PROT_WRITE);
    *at = 1;
    mprotect((void *)at, 4096, PROT_READ);
    if (*at == 1) *at = 2;
}
static void execute_taken_away(void) {
    char *at = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
    *at = (char)0xc3;
    ((void (*)(void))(void *)at)();
    mprotect(at, 4096, PROT_READ | PROT_WRITE);
    ((void (*)(void))(void *)at)();
}
static char *of_file(void) {
    int fd = open("short", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (write(fd, "short", 5) != 5) exit(99);
    return mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}
static void past_end_of_file(void) {
    char *at = of_file();
    at[4095] = 1;
    (void)*(volatile char *)(at + 4096);
}
static void truncated_away(void) {
    char *at = of_file();
    if (*(volatile char *)at != 's') exit(98);
    if (truncate("short", 0)) exit(97);
    (void)*(volatile char *)at;
}
static int __attribute__((noinline)) deeper(volatile char *above) {
    volatile char frame[4000];
    frame[0] = above[0];
    return deeper(frame) + frame[0];
}
static void stack_overflow(void) { exit(deeper((volatile char *)data)); }
static void far_below_stack(void) { *(volatile char *)((char *)__builtin_frame_address(0) - (9 << 20)) = 1; }
static void unaligned_sse(void) {
    static char bytes[64] __attribute__((aligned(16)));
    __asm__ volatile("movaps 1(%0), %%xmm0" ::"r"(bytes) : "xmm0");
}
static void x87_exception(void) { __asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(*(short[]){0x300})); }
static void sse_exception(void) {
    unsigned mask = 0x1d80 & ~0x200u;
    __asm__ volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0; mov $1, %%eax; cvtsi2sd %%eax, %%xmm1; divsd %%xmm0, %%xmm1" ::"m"(mask) : "eax", "xmm0", "xmm1");
}

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(null_read), CASE(null_write), CASE(null_call), CASE(read_only), CASE(write_code), CASE(no_execute),
    CASE(stack_execute), CASE(divide), CASE(divide_overflow), CASE(undefined), CASE(invalid), CASE(breakpoint),
    CASE(single_step), CASE(icebp), CASE(interrupt), CASE(int80), CASE(page_fault_gate), CASE(overflow_gate), CASE(cli), CASE(hlt),
    CASE(in), CASE(out), CASE(rdmsr), CASE(wrmsr), CASE(read_cr0), CASE(write_cr3), CASE(swapgs), CASE(sysret),
    CASE(lgdt), CASE(invlpg), CASE(iret_to_ring_0), CASE(load_kernel_segment), CASE(load_bad_segment),
    CASE(non_canonical_read), CASE(non_canonical_write), CASE(non_canonical_jump), CASE(non_canonical_push),
    CASE(non_canonical_rbp), CASE(kernel_read), CASE(kernel_write), CASE(kernel_jump), CASE(vsyscall_read),
    CASE(top_of_user), CASE(unmapped), CASE(across_pages), CASE(no_access), CASE(taken_away), CASE(made_read_only),
    CASE(execute_taken_away), CASE(past_end_of_file), CASE(truncated_away), CASE(stack_overflow), CASE(far_below_stack),
    CASE(unaligned_sse), CASE(x87_exception), CASE(sse_exception),
};

int main(int argc, char **argv) {
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc < 2) puts(cases[i].name);
        else if (!strcmp(argv[1], cases[i].name)) {
            printf("about to die: %s\n", argv[1]);
            fflush(stdout);
            cases[i].run();
            puts("survived");
            return 0;
        }
    }
    return argc < 2 ? 0 : 100;
}
