"""Grader: break ASLR with a leak."""

import pytest

FRAME = """
    .text
_start:
    mov eax, 9                      # mmap: the library
    xor edi, edi
    mov esi, 0x4000
    mov edx, 3
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    syscall
    mov r12, rax
    mov eax, 318                    # getrandom
    lea rdi, [r12 + 0x2340]
    mov esi, 8
    xor edx, edx
    syscall
    lea rax, [r12 + 0x1100]
    mov [rip + lab_version], rax
    xor edi, edi
    xor r12d, r12d
    xor eax, eax
    call attack
    mov [rip + lab_result], rax
    mov eax, 1
    mov edi, 1
    lea rsi, [rip + lab_result]
    mov edx, 8
    syscall
    mov eax, 60
    xor edi, edi
    syscall
greet:
    sub rsp, 48
    mov rax, [rip + lab_name]
    mov [rsp], rax
    mov rax, [rip + lab_version]
    mov [rsp + 32], rax
    mov qword ptr [rsp + 40], 0
    mov ecx, 64
    cmp rsi, rcx
    cmovb rcx, rsi
    mov rsi, rsp
    rep movsb
    add rsp, 48
    ret
    .data
lab_name: .ascii "library\\0"
lab_version: .quad 0
lab_result: .quad 0
"""


@pytest.mark.points(2)
@pytest.mark.mmuemu(seed=[11, 12, 13])
def test_the_secret_is_found(lab):
    """The secret is found wherever the library lies"""
    result = lab.run(lab.program("answer.s", FRAME))
    assert not result.faults, f"an access faulted: {result.faults[0]}"
    pointer = int.from_bytes(result.process.read(result.program.address("lab_version"), 8), "little")
    secret = result.process.read(pointer - 0x1100 + 0x2340, 8)
    assert result.stdout == secret, f"attack() returned {result.stdout[::-1].hex()}, the secret is another"
