_start:
    mov rax, 0xffffffff80000000     # the kernel's text (with --no-aslr)
    mov rax, [rax]
