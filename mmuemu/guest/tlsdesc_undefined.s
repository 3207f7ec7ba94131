# The same for a weak variable that nothing defines: the offset that makes its address the descriptor's argument.

    mov rax, qword ptr [rax + 8]
    .byte 0x64, 0x48, 0x2b, 0x04, 0x25, 0, 0, 0, 0      # sub rax, fs:[0]
    ret
