/* The multiboot header (ADDRESSES: for a file without any other) and the 32-bit way in: a stack, then kmain(magic, information). */
    .section .multiboot, "a"
    .balign 4
#ifdef ADDRESSES
header:
    .long 0x1BADB002, 0x00010003, -(0x1BADB002 + 0x00010003)
    .long header, header, data_end, kernel_end, _start
#else
    .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)
#endif

    .text
    .code32
    .globl _start
_start:
    cli
    mov $stack_top, %esp
    push $0
    popf
    push %ebx
    push %eax
#ifdef TABLES
    lgdt gdt_pointer
    mov $0x10, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %ss
    ljmp $0x08, $1f
1:
#endif
    call kmain
2:  cli
    hlt
    jmp 2b

#ifdef TABLES
    .section .rodata
    .balign 8
gdt:
    .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer:
    .word 23
    .long gdt
#endif

    .bss
    .balign 16
    .skip 16384
stack_top:
