_start:
    lea rax, [rip + _start]
    inc byte ptr [rax]
