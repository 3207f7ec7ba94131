# probe(RDI = address) -> RAX = 1: it can be read, 0: it cannot
probe:
    mov rax, [rdi]          # to be done: this faults
    mov eax, 1
    ret
