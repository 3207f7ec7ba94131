# walk(RDI = CR3, RSI = linear address, RDX = where physical memory begins) -> RAX = physical address, or -1
walk:
    mov r11, 0x000ffffffffff000     # the address in an entry
    mov ecx, 39                     # where this level's index begins in the linear address
level:
    mov rax, rsi
    shr rax, cl
    and eax, 511
    and rdi, r11
    add rdi, rdx
    mov rdi, [rdi + 8 * rax]        # the entry
    test dil, 1
    jz absent
    cmp ecx, 12
    je page
    cmp ecx, 39
    je next                         # bit 7 of a PML4E means nothing
    test dil, 0x80
    jnz page
next:
    sub ecx, 9
    jmp level
page:
    mov r8d, 1
    shl r8, cl
    dec r8                          # the offset's bits
    and rsi, r8
    not r8
    and rdi, r11
    and rdi, r8                     # bit 12 of a large page's entry (PAT) is no address bit
    lea rax, [rdi + rsi]
    ret
absent:
    mov rax, -1
    ret
