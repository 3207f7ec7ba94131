# What the trampoline enters for `syscall` under page-table isolation: syscall_entry.s on the kernel's own tables.
#
# In:  as trampoline.s leaves it: GS.base is the per-CPU block, gs:[8] holds the user's RSP, CR3 the kernel's root.
# It leaves by the trampoline, with the user's RSP in gs:[8] (`sysretq`) or the frame of `iretq` in gs:[0x40] to
# gs:[0x68]: these lie in a page that ring 3's tables have too, the kernel stack does not.

    .byte 0x65, 0x48, 0x8b, 0x24, 0x25, 0, 0, 0, 0      # mov rsp, gs:[0]
    push 0x2b
    .byte 0x65, 0xff, 0x34, 0x25, 8, 0, 0, 0            # push gs:[8]
    push r11
    push 0x33
    push rcx
    push rax
    push rdi
    push rsi
    push rdx
    push rcx
    push -38
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    out 0x51, al
    mov rcx, qword ptr [rsp + 0x58]
    cmp rcx, qword ptr [rsp + 0x80]
    jne by_iret
    mov r11, qword ptr [rsp + 0x30]
    cmp r11, qword ptr [rsp + 0x90]
    jne by_iret
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    add rsp, 8
    pop r10
    pop r9
    pop r8
    pop rax
    add rsp, 8
    pop rdx
    pop rsi
    pop rdi
    mov rcx, qword ptr [rsp + 8]
    mov r11, qword ptr [rsp + 24]
    .byte 0x48, 0x83, 0xc4, 32                          # add rsp, 32
    .byte 0x65, 0x8f, 0x04, 0x25, 8, 0, 0, 0            # pop gs:[8]
    .byte 0x65, 0xff, 0x24, 0x25, 0x18, 0, 0, 0         # jmp gs:[0x18]
by_iret:
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    add rsp, 8
    .byte 0x65, 0x8f, 0x04, 0x25, 0x40, 0, 0, 0         # pop gs:[0x40]: RIP
    .byte 0x65, 0x8f, 0x04, 0x25, 0x48, 0, 0, 0         # CS
    .byte 0x65, 0x8f, 0x04, 0x25, 0x50, 0, 0, 0         # RFLAGS
    .byte 0x65, 0x8f, 0x04, 0x25, 0x58, 0, 0, 0         # RSP
    .byte 0x65, 0x8f, 0x04, 0x25, 0x60, 0, 0, 0         # SS
    .byte 0x65, 0xff, 0x24, 0x25, 0x20, 0, 0, 0         # jmp gs:[0x20]
