# Says hello and exits with 0. Run it: mmuemu run samples/hello.s
    .text
_start:
    mov eax, 1              # write(1, message, 19)
    mov edi, 1
    lea rsi, [rip + message]
    mov edx, 19
    syscall
    mov eax, 60             # exit(0)
    xor edi, edi
    syscall
    .data
message:
    .ascii "Hello from ring 3!\n"
