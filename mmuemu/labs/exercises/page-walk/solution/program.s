    .text
_start:
    mov rax, [rip + numbers + 0x18]
    push rax
    mov eax, 60             # exit(0)
    xor edi, edi
    syscall

    .data
    .balign 4096
numbers: .quad 1, 2, 3, 4
