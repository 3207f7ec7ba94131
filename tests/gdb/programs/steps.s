# Every kind of instruction that a single step could get wrong: string instructions, system calls, pages touched for the
# first time, flags, a signal handler that is entered and left, code that reads itself.
    .globl _start
    .text
_start:
    xor %ecx, %ecx
    lea src(%rip), %rsi
    lea dst(%rip), %rdi
    mov $5, %ecx
    rep movsb
    xor %ecx, %ecx
    rep stosb
    lea src(%rip), %rsi
    mov $3, %ecx
    rep lodsb
    lea big(%rip), %rdi
    add $8190, %rdi
    mov $4, %ecx
    rep stosw
    mov $39, %eax
    syscall
    xor %ebx, %ebx
    sub $1, %ebx
    pushfq
    pop %rdx
    and $0x8d5, %edx
    call one
    lea action(%rip), %rsi
    mov $10, %edi
    xor %edx, %edx
    mov $8, %r10d
    mov $13, %eax
    syscall
    mov $39, %eax
    syscall
    mov %eax, %edi
    mov $10, %esi
    mov $62, %eax
    syscall
self:
    movzbl self(%rip), %edx
    lea text(%rip), %rsi
    mov $1, %edi
    mov $3, %edx
    mov $1, %eax
    syscall
last:
    mov $7, %edi
    mov $231, %eax
    syscall
one:
    incq value(%rip)
    ret
handler:
    mov $0x77, %r12d
    ret
restorer:
    mov $15, %eax
    syscall
    .data
src: .byte 1, 2, 3, 4, 5, 6, 7, 8, 9
dst: .space 16
value: .quad 41
text: .ascii "ok\n"
action: .quad handler, 0x04000000, restorer, 0
    .bss
    .balign 4096
big: .space 16384
