_start:
    mov eax, 1                      # write(1, the kernel's text, 8)
    mov edi, 1
    mov rsi, 0xffffffff80000000
    mov edx, 8
    syscall
    mov eax, 60
    xor edi, edi
    syscall
