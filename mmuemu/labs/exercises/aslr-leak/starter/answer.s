    .text
# attack() -> RAX = the secret
attack:
    lea rdi, [rip + buffer]
    mov esi, 32             # the name, and nothing else
    call greet
    xor eax, eax            # to be done
    ret

    .data
buffer: .zero 64
