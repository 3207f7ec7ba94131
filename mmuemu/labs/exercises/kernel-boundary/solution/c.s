_start:
    mov rax, cr3                    # where are the page tables?
    mov eax, 60
    xor edi, edi
    syscall
