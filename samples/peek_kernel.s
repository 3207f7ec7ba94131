# Reads the first byte of kernel text from ring 3, and dies of it. What the page fault's error code says depends on
# --kpti: mmuemu run --no-aslr [--kpti] samples/peek_kernel.s
    .text
_start:
    mov rdi, 0xffffffff80000000
    mov al, byte ptr [rdi]
    mov eax, 60             # exit(0), if ever it is reached
    xor edi, edi
    syscall
