# share(): make both views read-only
share:
    ret

# on_fault(RDI = signal, RSI = siginfo, RDX = saved registers)
on_fault:
    mov rax, [rsi + 16]     # the address that was written
    mov edi, 1              # to be done
    mov eax, 60
    syscall
