# The function of a TLS descriptor (RAX) whose variable lies in static storage: its offset from the thread pointer.
# Changes no other register.

    mov rax, qword ptr [rax + 8]
    ret
