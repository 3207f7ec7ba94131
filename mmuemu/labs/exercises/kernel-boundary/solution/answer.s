# probe(RDI = address) -> RAX = 1: it can be read, 0: it cannot
probe:
    xor esi, esi            # F_OK
    mov eax, 21             # access: the address is that of a path, which the kernel must read
    syscall
    cmp rax, -14            # EFAULT; ENOENT, most likely, when it can be read
    setne al
    movzx eax, al
    ret
