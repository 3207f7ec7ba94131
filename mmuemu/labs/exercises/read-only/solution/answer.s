# protect(): store 42 at `page`, then make that page read-only
protect:
    lea rdi, [rip + page]
    mov qword ptr [rdi], 42
    mov esi, 4096
    mov edx, 1              # PROT_READ
    mov eax, 10             # mprotect
    syscall
    ret
