"""Programs that several tests use."""

EXIT = "mov eax, 60\nmov edi, {}\nsyscall\n"
HELLO = """
    mov eax, 1
    mov edi, 1
    lea rsi, [rip + text]
    mov edx, 3
    syscall
    mov eax, 60
    mov edi, 7
    syscall
    .data
    text: .ascii "hi\\n"
"""
NULL = "mov qword ptr [0], rax\n"
SPIN = "again: jmp again\n"
SHARED = """
    #include <sys/mman.h>
    #include <unistd.h>
    #include <stdio.h>
    int main(int argc, char **argv) {
        volatile char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, FLAGS | MAP_ANONYMOUS, -1, 0);
        *p = 1;
        if (fork() == 0) *p = 2;
        printf("%p\\n", (void *)p);
        fflush(stdout);
        for (;;) __asm__ volatile("");
    }
"""
