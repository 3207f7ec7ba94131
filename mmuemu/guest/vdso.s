# The functions of the vDSO (vdso(7)), each a system call: time is the kernel's to tell, so that a run with virtual
# time repeats. They return negative error numbers, as Linux's do. vdso.py makes a shared object of them.

__vdso_clock_gettime:
    mov eax, 228
    syscall
    ret

__vdso_gettimeofday:
    mov eax, 96
    syscall
    ret

__vdso_time:
    mov eax, 201
    syscall
    ret

__vdso_getcpu:
    mov eax, 309
    syscall
    ret

__vdso_clock_getres:
    mov eax, 229
    syscall
    ret
