# Start-up for a program that the loader has linked: what only ring 3 can do of it, then the program's entry point with
# registers as a dynamic linker leaves them.
#
# In:  RSP = the initial stack (16-byte aligned, argc on top), RBX = a block of quadwords:
#        0 entry point            32 number of areas to make read-only
#        8 RDX at the entry       40 number of functions to call first
#       16 thread pointer, or 0   48, 56 are link_fini's
#       24 number of resolvers    64 address of the tables, one after the other: {resolver, target, addend},
#                                    {address, size}, {function}

    mov r12, rbx
    mov r13, qword ptr [r12 + 64]
    mov rsi, qword ptr [r12 + 16]
    test rsi, rsi
    jz no_tls
    mov edi, 0x1002
    mov eax, 158
    syscall
no_tls:
    mov rbp, qword ptr [r12 + 24]
    jmp check_resolvers
next_resolver:
    call qword ptr [r13]
    add rax, qword ptr [r13 + 16]
    mov rcx, qword ptr [r13 + 8]
    mov qword ptr [rcx], rax
    add r13, 24
    dec rbp
check_resolvers:
    test rbp, rbp
    jnz next_resolver
    mov rbp, qword ptr [r12 + 32]
    jmp check_areas
next_area:
    mov rdi, qword ptr [r13]
    mov rsi, qword ptr [r13 + 8]
    mov edx, 1
    mov eax, 10
    syscall
    add r13, 16
    dec rbp
check_areas:
    test rbp, rbp
    jnz next_area
    mov rbp, qword ptr [r12 + 40]
    jmp check_functions
next_function:
    mov rdi, qword ptr [rsp]
    lea rsi, [rsp + 8]
    lea rdx, [rsp + rdi*8 + 16]
    call qword ptr [r13]
    add r13, 8
    dec rbp
check_functions:
    test rbp, rbp
    jnz next_function
    mov rdx, qword ptr [r12 + 8]
    push qword ptr [r12]
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    ret
