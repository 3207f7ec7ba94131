lookup:                         # RDI = index -> RAX = table[array[index] * 64], or -1 when index >= 16
    cmp rdi, [rip + size]
    jae outside
    lea rcx, [rip + array]
    movzx eax, byte ptr [rcx + rdi]
    shl eax, 6
    lea rdx, [rip + table]
    movzx eax, byte ptr [rdx + rax]
    ret
outside:
    mov rax, -1
    ret
