# harden(): switch SMEP and SMAP on
harden:
    mov rax, cr4
    mov cr4, rax            # to be done
    ret

# copy_from_user(RDI = to, RSI = from, RDX = bytes) -> RAX = 0 or -14
copy_from_user:
    mov rcx, rdx
    rep movsb               # to be done: what if SMAP is on? What if RSI is the kernel's?
    xor eax, eax
    ret
