# __tls_get_addr(RDI = {module, offset}): the address of a thread-local variable, out of the vector at fs:8.

    .byte 0x64, 0x48, 0x8b, 0x04, 0x25, 8, 0, 0, 0      # mov rax, fs:[8]
    mov rcx, qword ptr [rdi]
    shl rcx, 4
    mov rax, qword ptr [rax + rcx]
    add rax, qword ptr [rdi + 8]
    ret
