_start:
    mov rax, 0x0000800000000000
    mov rax, [rax]
