# on_fault(RDI = signal, RSI = siginfo, RDX = saved registers): the region is 0x10000000 to 0x10010000
on_fault:
    mov rax, [rsi + 16]     # the address that was touched
    mov edi, 1              # to be done
    mov eax, 60
    syscall
