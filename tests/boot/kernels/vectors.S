/* 256 entry points, 16 bytes apart, that lead to interrupt(struct frame *). */
    .text
    .balign 16
    .globl vectors
vectors:
    vector = 0
    .rept 256
    .balign 16
    .if vector != 8 && vector != 17 && vector != 21 && (vector < 10 || vector > 14)
    push $0
    .endif
#ifdef __x86_64__
    pushq $vector
#else
    pushl $vector
#endif
    jmp common
    vector = vector + 1
    .endr

#ifdef __x86_64__
common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call interrupt
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq
#else
common:
    pusha
    cld
    push %esp
    call interrupt
    add $4, %esp
    popa
    add $8, %esp
    iret
#endif
    .section .note.GNU-stack, "", @progbits
