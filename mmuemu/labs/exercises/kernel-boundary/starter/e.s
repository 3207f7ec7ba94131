_start:
    cli                             # nobody interrupts me
    mov eax, 60
    xor edi, edi
    syscall
