_start:
    mov rax, 0xffffffff80000000     # the kernel's text
    mov rax, [rax]
    mov eax, 60
    xor edi, edi
    syscall
