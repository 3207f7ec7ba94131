_start:
    xor eax, eax
    cpuid                           # which processor is it?
    mov eax, 60
    xor edi, edi
    syscall
