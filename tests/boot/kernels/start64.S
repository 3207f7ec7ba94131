/* The multiboot header, and the way from 32-bit protected mode to long mode: kmain(magic, information) in 64-bit code
   on an identity map of 4 GiB in 2 MiB pages. start64 is the way in for a loader that has done that already. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

    .macro build_tables
    movl $pdpt + 7, %eax
    movl $pml4, %edx
    movl %eax, (%edx)
    movl $pd + 7, %eax
    movl $pdpt, %edx
    movl $4, %ecx
1:  movl %eax, (%edx)
    addl $4096, %eax
    addl $8, %edx
    decl %ecx
    jnz 1b
    movl $0x87, %eax
    movl $pd, %edx
    movl $2048, %ecx
2:  movl %eax, (%edx)
    cmpl $0xC0000000, %eax
    jb 3f
    orl $0x18, (%edx)           /* device memory: not cached */
3:  addl $0x200000, %eax
    addl $8, %edx
    decl %ecx
    jnz 2b
    .endm

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    movl $stack_top, %esp
    movl %eax, %edi
    movl %ebx, %esi
    movl $0x80000001, %eax
    cpuid
    testl $1 << 29, %edx
    jz no_long_mode
    build_tables
    movl %cr4, %eax
    orl $1 << 5, %eax           /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $1 << 8, %eax           /* LME */
    wrmsr
    movl %cr0, %eax
    orl $0x80010001, %eax       /* PG, WP, PE */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $long_mode
no_long_mode:
    movw $0x3F8, %dx
    movb $'!', %al
    outb %al, %dx
    hlt
    jmp no_long_mode

    .code64
    .globl start64
start64:
    cli
    cld
    movl $stack_top, %esp
    movl %eax, %edi
    movl %ebx, %esi
    build_tables
    movl $pml4, %eax
    movq %rax, %cr3
    movq %cr0, %rax
    orq $0x10000, %rax          /* WP */
    movq %rax, %cr0
    lgdt gdt_pointer
    pushq $0x08
    pushq $long_mode
    lretq
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $stack_top, %esp
    movl %edi, %edi
    movl %esi, %esi
    pushq $0
    popfq
    call kmain
1:  cli
    hlt
    jmp 1b

    .data
    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF    /* 08: code, ring 0 */
    .quad 0x00CF92000000FFFF    /* 10: data, ring 0 */
    .quad 0x00CFFA000000FFFF    /* 18: 32-bit code, ring 3 */
    .quad 0x00CFF2000000FFFF    /* 20: data, ring 3 */
    .quad 0x00AFFA000000FFFF    /* 28: code, ring 3 */
    .quad 0, 0                  /* 30: TSS */
gdt_pointer:
    .word . - gdt - 1
    .quad gdt

    .bss
    .balign 4096
    .globl pd
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 4 * 4096
    .skip 16384
stack_top:
