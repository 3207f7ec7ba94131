# walk(RDI = CR3, RSI = linear address, RDX = where physical memory begins) -> RAX = physical address, or -1
walk:
    mov rax, rsi            # to be done: this is right only where linear and physical addresses are the same
    ret
