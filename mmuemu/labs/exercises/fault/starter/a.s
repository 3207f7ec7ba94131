_start:
    xor ebx, ebx
    mov qword ptr [rbx + 16], 1
