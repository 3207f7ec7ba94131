# The trampoline of page-table isolation: the only kernel code that ring 3's tables hold (Linux: the entry code's
# SWITCH_TO_KERNEL_CR3 and SWITCH_TO_USER_CR3, arch/x86/entry/calling.h). Bit 12 of CR3 tells the two roots of a
# task apart: they are neighbours in one 8 KiB block, ring 3's above.
#
# The per-CPU block: gs:[0] top of the kernel stack, gs:[8] scratch for the user's RSP, gs:[0x10] where the entry
# goes on in kernel text, gs:[0x18] and gs:[0x20] the two exits below, gs:[0x28] the linear address of gs:[0x40],
# gs:[0x40] a frame for `iretq`. The exits stand at 0x40 and 0x80, to which the code before them is padded: VERW may be put
# before their last two instructions (mmuemu/kernel/alternatives.py).

entry:
    swapgs
    .byte 0x65, 0x48, 0x89, 0x24, 0x25, 8, 0, 0, 0      # mov gs:[8], rsp
    mov rsp, cr3
    and rsp, -4097
    mov cr3, rsp
    .byte 0x65, 0xff, 0x24, 0x25, 0x10, 0, 0, 0         # jmp gs:[0x10]
    .balign 64, 0xcc
exit_by_sysret:
    mov rsp, cr3
    or rsp, 4096
    mov cr3, rsp
    .byte 0x65, 0x48, 0x8b, 0x24, 0x25, 8, 0, 0, 0      # mov rsp, gs:[8]
    swapgs
    .byte 0x48, 0x0f, 0x07                              # sysretq
    .balign 64, 0xcc
exit_by_iret:
    mov rsp, cr3
    or rsp, 4096
    mov cr3, rsp
    .byte 0x65, 0x48, 0x8b, 0x24, 0x25, 0x28, 0, 0, 0   # mov rsp, gs:[0x28]
    swapgs
    iretq
    .byte 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc
