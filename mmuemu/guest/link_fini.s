# What a linked program finds in RDX at its entry, to register with atexit: calls the end functions of the program and
# its libraries. The block of link_start.s begins at the page after this code: 48 number of functions, 56 their table.

    push rbx
    push rbp
    push r12
    call here
here:
    pop rbx
    and rbx, -4096
    add rbx, 4096
    mov rbp, qword ptr [rbx + 48]
    mov r12, qword ptr [rbx + 56]
    jmp check
next:
    call qword ptr [r12]
    add r12, 8
    dec rbp
check:
    test rbp, rbp
    jnz next
    pop r12
    pop rbp
    pop rbx
    ret
