# The kernel's entry point for `syscall` (LSTAR), position-independent, run in ring 0 with interrupts off.
#
# In:  RCX = user RIP, R11 = user RFLAGS, everything else the user's; GS.base after swapgs is the per-CPU block:
#      gs:[0] top of this task's kernel stack, gs:[8] scratch for the user's RSP.
# It builds Linux's struct pt_regs (arch/x86/include/asm/ptrace.h) on the kernel stack and asks the kernel
# through the hypercall port; the kernel reads and edits the structure in memory, and may come back on another
# task's stack. Like Linux it returns by `sysretq` where that gives the task the registers it is to have (RCX is RIP
# and canonical, R11 is RFLAGS without RF and TF, the user's CS and SS), and by `iretq` otherwise. `sysretq` and the
# absolute gs: accesses are spelled in bytes: Keystone does not know the one and encodes the others RIP-relative.
#
# KPTI: built with page-table isolation. Then trampoline.s has done the `swapgs` and the first store and changed CR3,
# and does the last steps: they need the user's RSP in gs:[8], or the frame of `iretq` in gs:[0x40] to gs:[0x68],
# which lie in a page that ring 3's tables have too. The kernel stack is not in those.
#
# What mitigations add is not here but put in when the kernel half is built (mmuemu/kernel/alternatives.py): VERW before
# each last `swapgs`, which moves into the nine bytes behind it that nobody executes, and in place of the load behind
# `out` a jump to `switched`, which fills the return stack buffer when gs:[0x38] says that this is another task.

.if KPTI == 0
    swapgs
    .byte 0x65, 0x48, 0x89, 0x24, 0x25, 8, 0, 0, 0      # mov gs:[8], rsp
.endif
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
resumed:
    cmp rcx, qword ptr [rsp + 0x80]
    jne by_iret
    shl rcx, 16
    sar rcx, 16
    cmp rcx, qword ptr [rsp + 0x80]
    jne by_iret
    mov r11, qword ptr [rsp + 0x30]
    cmp r11, qword ptr [rsp + 0x90]
    jne by_iret
    test r11d, 0x10100
    jnz by_iret
    cmp qword ptr [rsp + 0x88], 0x33
    jne by_iret
    cmp qword ptr [rsp + 0xa0], 0x2b
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
.if KPTI
    add rsp, 32
    .byte 0x65, 0x8f, 0x04, 0x25, 8, 0, 0, 0            # pop gs:[8]
    .byte 0x65, 0xff, 0x24, 0x25, 0x18, 0, 0, 0         # jmp gs:[0x18]
.else
    mov rsp, qword ptr [rsp + 32]
    swapgs
    .byte 0x48, 0x0f, 0x07                              # sysretq
    .byte 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc
.endif
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
.if KPTI
    .byte 0x65, 0x8f, 0x04, 0x25, 0x40, 0, 0, 0         # pop gs:[0x40]: RIP
    .byte 0x65, 0x8f, 0x04, 0x25, 0x48, 0, 0, 0         # CS
    .byte 0x65, 0x8f, 0x04, 0x25, 0x50, 0, 0, 0         # RFLAGS
    .byte 0x65, 0x8f, 0x04, 0x25, 0x58, 0, 0, 0         # RSP
    .byte 0x65, 0x8f, 0x04, 0x25, 0x60, 0, 0, 0         # SS
    .byte 0x65, 0xff, 0x24, 0x25, 0x20, 0, 0, 0         # jmp gs:[0x20]
.else
    swapgs
    iretq
    .byte 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc
.endif

switched:
    .byte 0x65, 0x80, 0x3c, 0x25, 0x38, 0, 0, 0, 0      # cmp byte ptr gs:[0x38], 0
    je same_task
    mov ecx, 16
fill:
    call fill_again
    .byte 0xcc
fill_again:
    call filled
    .byte 0xcc
filled:
    add rsp, 16
    dec ecx
    jnz fill
    lfence
    .byte 0x65, 0xc6, 0x04, 0x25, 0x38, 0, 0, 0, 0      # mov byte ptr gs:[0x38], 0
same_task:
    mov rcx, qword ptr [rsp + 0x58]
    jmp resumed
