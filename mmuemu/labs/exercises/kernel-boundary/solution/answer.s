# probe(RDI = address) -> RAX = 1: it can be read, 0: it cannot
probe:
    mov rsi, rdi            # set
    mov edi, 99             # no such operation: the kernel reads the set first, and then says EINVAL
    xor edx, edx
    mov r10d, 8
    mov eax, 14             # rt_sigprocmask
    syscall
    cmp rax, -14            # EFAULT
    setne al
    movzx eax, al
    ret
