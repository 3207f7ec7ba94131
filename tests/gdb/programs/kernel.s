# A kernel entered in long mode: a counter, an invalid instruction, a page fault and an int3, each with a handler.
    .globl _start
    .text
_start:
    lea on_ud(%rip), %rax
    mov $6, %ecx
    call gate
    lea on_pf(%rip), %rax
    mov $14, %ecx
    call gate
    lea on_bp(%rip), %rax
    mov $3, %ecx
    call gate
    lidt idtr(%rip)
    mov $3, %ebx
again:
    call work
    dec %ebx
    jnz again
invalid:
    ud2
    mov $0x8000000000, %rbx
missing:
    mov (%rbx), %rax
breakpoint:
    int3
forever:
    cmpb $0, go(%rip)
    je forever
    mov $5, %al
    out %al, $0xf4
    hlt
work:
    incl counter(%rip)
    ret
gate:
    shl $4, %ecx
    lea idt(%rip), %rdi
    add %rcx, %rdi
    mov %ax, (%rdi)
    mov %cs, %dx
    mov %dx, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shr $16, %rax
    mov %ax, 6(%rdi)
    shr $16, %rax
    mov %eax, 8(%rdi)
    movl $0, 12(%rdi)
    ret
on_ud:
    addq $2, (%rsp)
    incl handled(%rip)
    iretq
on_pf:
    addq $3, 8(%rsp)
    add $8, %rsp
    incl handled(%rip)
    iretq
on_bp:
    incl handled(%rip)
    iretq
    .data
counter: .long 0
handled: .long 0
go: .byte 0
idtr: .word 16 * 16 - 1
    .quad idt
    .balign 16
idt: .space 16 * 16
