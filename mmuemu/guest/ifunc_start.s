# Start-up for a program that does not relocate itself and has IRELATIVE relocations: call each resolver in
# ring 3, store what it returns, then enter the program with registers as execve leaves them.
#
# In:  RBX = table of {resolver, target, addend}, RBP = its entries, R12 = the program's entry point,
#      RSP = the initial stack (16-byte aligned, argc on top).

    jmp check
next:
    call qword ptr [rbx]
    add rax, qword ptr [rbx + 16]
    mov rcx, qword ptr [rbx + 8]
    mov qword ptr [rcx], rax
    add rbx, 24
    dec rbp
check:
    test rbp, rbp
    jnz next
    push r12
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    ret
